# A worker inside, when something goes wrong: leases, networks, processes.
# parallel-safe
# timeout: 400
load ../lib/common
load lib

setup() {
	worker_setup
	need_sdk
}
teardown() { worker_teardown; }

# Waits until the first call runs, which touches this file.
call_runs() { wait_for 30 pinfold exec "$SESSION" -- test -e /workspace/running 2>/dev/null; }
start_inside() { start_worker --config "$CONFIG" "$@" -- "${INSIDE[@]}"; }
end_worker() {
	kill "$WORKER_PID"
	wait "$WORKER_PID"
}

@test "a heartbeat that says stopping reaches the worker inside: it ends, the files are kept, then the item is stopped" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; touch running; sleep 77777')]")]"
	start_inside
	call_runs
	stub_tell fault '{"stopping":true}'
	wait_for 30 stub_is '.items[0].state == "stopped"'
	end_worker
	assert_equal "$(results)" missing
	assert_gone "$SESSION"
	[ "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet | wc -l)" = 1 ]
	assert_no_violations
}

@test "412: the worker inside is ended at once, no stop is sent, no checkpoint is made, the files stay" {
	new_session
	start_stub "[$(session "[$(sh_call 'touch running; trap "" TERM; sleep 77777')]")]"
	start_inside
	call_runs
	stub_tell fault '{"lose":true}'
	wait_for 20 grep -q 'ends: the lease is lost' "$PF_DIR/worker.log"
	end_worker
	assert_equal "$(stub_says '.items[0].stopped_by_worker')" false
	[ "$(stub_says '[.log[] | select(.method == "POST" and (.path | test("events$|stop$")))] | length')" = 0 ]
	[ -z "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]
	assert_equal "$(pids_of "$SESSION")" ""
	assert_equal "$(pinfold state "$SESSION" | jq -r .status)" stopped
	assert_no_violations
}

@test "SIGTERM is passed on; the files are kept" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; touch running; sleep 77777')]")]"
	start_inside
	call_runs
	end_worker
	wait_for 30 stub_is '.items[0].state == "stopped"'
	assert_gone "$SESSION"
	[ "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet | wc -l)" = 1 ]
	assert_no_violations
}

@test "a worker inside that does not heed SIGTERM is killed after the grace" {
	new_session
	start_stub "[$(session)]"
	start_worker --config "$CONFIG" --grace 1s -- /bin/sh -c 'trap "" TERM; touch running; while :; do sleep 1; done'
	call_runs
	end_worker
	grep -q 'did not end when it was told to' "$PF_DIR/worker.log"
	assert_put_away
	assert_no_violations
}

# Beats once, unless its session's id says otherwise, and then does nothing more.
HANGS='case "$ANTHROPIC_SESSION_ID" in *.never) ;; *) curl -sf -o /dev/null -X POST -H "Authorization: Bearer $ANTHROPIC_ENVIRONMENT_KEY" \
	-H "anthropic-version: 2023-06-01" "$ANTHROPIC_BASE_URL/v1/environments/$ANTHROPIC_ENVIRONMENT_ID/work/$ANTHROPIC_WORK_ID/heartbeat?expected_last_heartbeat=NO_HEARTBEAT" ||
	exit 9 ;; esac; echo kept >/workspace/f; touch running; exec sleep 77777'

@test "a worker inside that hangs, after its first heartbeat or before it, is ended after --hang; its files are kept" {
	new_session
	local sessions s
	echo "$SESSION.never" >>"$PF_DIR/ids"
	s=$(session "[$(sh_call 'echo 1')]" | jq -c '.turns[0].idle = null')
	sessions=$(jq -c '[., .id += ".never"]' <<<"$s")
	start_stub "$sessions" '{"ttl":2}'
	PINFOLD_HANG=1h start_worker --config "$CONFIG" --hang 2s --max-sessions 2 -- /bin/bash -c "$HANGS"
	call_runs
	wait_for 90 stub_is '.items[0].state == "stopped" and .items[1].state == "stopped"'
	end_worker
	for s in "$SESSION" "$SESSION.never"; do
		grep -q "$s: error: the worker inside hangs: no heartbeat for [0-9]* s" "$PF_DIR/worker.log"
		assert_gone "$s"
		[ -n "$(pinfold checkpoint ls --sandbox "$s" --quiet)" ]
		assert_equal "$(results "$s")" missing
	done
	assert_no_violations
}

@test "a worker inside that beats its heart is not taken for hung, and with --hang never one that does not" {
	new_session
	start_stub "[$(session)]" '{"ttl":2}'
	# Seven seconds of both and more, where six are enough for the other kind.
	local beats='beat=NO_HEARTBEAT; for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
		beat=$(curl -sf -X POST -H "Authorization: Bearer $ANTHROPIC_ENVIRONMENT_KEY" -H "anthropic-version: 2023-06-01" \
			"$ANTHROPIC_BASE_URL/v1/environments/$ANTHROPIC_ENVIRONMENT_ID/work/$ANTHROPIC_WORK_ID/heartbeat?expected_last_heartbeat=$beat" |
			sed "s/.*\"last_heartbeat\":\"\([^\"]*\)\".*/\1/"); [ -n "$beat" ] || exit 9; sleep 0.5; done; exit 5'
	take_item
	{ on_work --config "$CONFIG" --hang 1s -- /bin/bash -c "$beats"; exit "$status"; } &
	local beating=$!
	new_session
	stub_tell add "$(session)"
	take_item
	PINFOLD_HANG=never on_work --config "$CONFIG" -- /bin/bash -c 'sleep 7; exit 6'
	assert_equal "$status" 6
	status=0
	wait "$beating" || status=$?
	assert_equal "$status" 5
	refute grep -q hangs "$PF_DIR/worker.log"
}

@test "on-work passes signals on and ends with the code of the worker inside" {
	new_session
	start_stub "[$(session)]"
	take_item
	on_work --config "$CONFIG" -- /bin/sh -c 'echo "a line for the log"; exit 7'
	assert_equal "$status" 7
	grep -q 'inside: a line for the log' "$PF_DIR/worker.log"
	assert_put_away
	new_session
	stub_tell add "$(session)"
	take_item
	PINFOLD_WORKER_COMMAND="/bin/sleep 77777" on_work --config "$CONFIG" &
	WORKERS+=("$!")
	wait_for 20 pinfold exec "$SESSION" -- pgrep -f 'sleep 7777[7]' >/dev/null 2>&1
	kill "$(pgrep -f -- "pinfold-worker --on-work --root $ROOT ")"
	wait_for 20 stub_is '.items[1].state == "stopped"'
	assert_put_away
	assert_no_violations
}

@test "kill -9 of the worker inside in a call: its item is stopped, its files are kept" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; touch running; sleep 77777')]")]"
	start_inside
	call_runs
	pinfold exec "$SESSION" -- pkill -9 -f worker.mjs
	wait_for 30 stub_is '.items[0].state == "stopped"'
	end_worker
	grep -q 'the worker inside ended with 137' "$PF_DIR/worker.log"
	assert_gone "$SESSION"
	[ -n "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]
}

gateway_pid() { pgrep -P "$(sed -n "s/.*$SESSION: work item .*, process //p" "$PF_DIR/worker.log" | tail -n 1)" -f '^pinfold-worker-gateway'; }

@test "the gateway's process is a user that owns nothing, behind a filter; killed, it takes the worker inside along, and it goes with ours" {
	local pid
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >>f; touch running; sleep 77777')]")]" '{"ttl":2}'
	start_inside
	call_runs
	pid=$(gateway_pid)
	[ "$(awk '$1 == "Uid:" || $1 == "Gid:" { for (i = 2; i <= 5; i++) if ($i < 65534) print }' "/proc/$pid/status")" = "" ]
	[ "$(grep -cE '^(CapInh|CapPrm|CapEff|CapAmb):.0000000000000000$|^NoNewPrivs:.1$|^Seccomp:.2$|^Groups:[[:space:]]*$' "/proc/$pid/status")" = 7 ]
	kill -9 "$pid"
	wait_for 30 stub_is '.items[0].state == "stopped"'
	grep -q "the gateway's process has ended" "$PF_DIR/worker.log"
	[ -n "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]
	# The next item of the session, and its process is killed.
	wait_for 30 stub_is '.items[1].state == "active"'
	wait_for 20 gateway_pid >/dev/null
	pid=$(gateway_pid)
	kill -9 "$(sed -n "s/.*$SESSION: work item .*, process //p" "$PF_DIR/worker.log" | tail -n 1)"
	wait_for 10 test ! -e "/proc/$pid/exe"
	end_worker
}

@test "the control plane is away while a call runs, streams break: results come once" {
	local fault
	for fault in '{"down":4}' '{"break_stream":3}' '{"garbage":true}' '{"post_500":2}'; do
		new_session
		start_stub "[$(session "[$(sh_call 'touch running; sleep 1; echo 1'),$(sh_call 'echo 2'),$(sh_call 'echo 3')]")]" '{"ttl":30}'
		[[ "$fault" == *down* ]] || stub_tell fault "$fault"
		start_inside --drain
		call_runs
		[[ "$fault" != *down* ]] || stub_tell fault "$fault"
		wait "$WORKER_PID"
		assert_equal "$(results)" $'false "1"\nfalse "2"\nfalse "3"'
		[ "$fault" = '{"garbage":true}' ] || assert_no_violations
		assert_put_away
		kill "$STUB_PID"
		wait "$STUB_PID" || true
		rm "$PF_DIR/port"
	done
	STUB_PID=""
}

@test "a deleted session leaves neither sandbox nor checkpoint" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo 1')]" "[$(sh_call 'touch running')]" | jq -c '.turns[1].idle = null')]"
	start_inside
	call_runs
	[ -n "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]
	# As it is: gone before anybody hears of it.
	stub_tell fault '{"gone":true}'
	stub_tell event "{\"session\":\"$SESSION\",\"event\":{\"type\":\"session.deleted\"}}"
	wait_for 30 stub_is '.items | last | .state == "stopped"'
	end_worker
	assert_put_away
	[ -z "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]
}
