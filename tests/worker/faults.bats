# What goes wrong: leases, networks, processes. No result is lost, none is posted twice, nothing is left behind.
# parallel-safe
# timeout: 500
load ../lib/common
load lib

setup() { worker_setup; }
teardown() { worker_teardown; }

answered() { # N
	stub_is "[.sessions[\"$SESSION\"].results[] | select(.missing | not)] | length >= $1"
}
done_with_it() { stub_is '.items | last | .state == "stopped"'; }
running() { # what of the session's sandbox runs a command that holds this word
	local pid
	for pid in $(pids_of "$SESSION"); do
		tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qe "$1" && return 0
	done
	return 1
}
not_running() { ! running "$1"; }
runner_pid() { sed -n "s/.*$SESSION: work item .*, process //p" "$PF_DIR/worker.log" | tail -n 1; }

@test "a heartbeat that says stopping: the call is ended, nothing is posted, the files are kept, the item is stopped" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; sleep 77777')]" "[$(sh_call 'cat f')]")]"
	start_worker
	wait_for 20 running 'sleep 7777[7]'
	stub_tell fault '{"stopping":true}'
	wait_for 20 stub_is '.items[0].state == "stopped"'
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	assert_equal "$(results)" missing
	assert_gone "$SESSION"
	[ "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet | wc -l)" = 1 ]
	assert_no_violations
}

@test "412: the sandbox's processes are ended at once, neither result nor stop is sent, no checkpoint is made" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo newest >f; sleep 77777')]")]"
	start_worker
	wait_for 20 running 'sleep 7777[7]'
	stub_tell fault '{"lose":true}'
	wait_for 20 not_running 'sleep 7777[7]'
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	assert_equal "$(stub_says '.items[0].stopped_by_worker')" false
	[ "$(stub_says '[.log[] | select(.method == "POST" and (.path | test("events$|stop$")))] | length')" = 0 ]
	[ -z "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]
	assert_equal "$(pids_of "$SESSION")" ""
	# What was written stays for whoever has the session next on this machine.
	assert_equal "$(pinfold state "$SESSION" | jq -r .status)" stopped
	assert_no_violations
}

@test "the control plane is away while a call runs: its result comes when it is back, once" {
	new_session
	start_stub "[$(session "[$(sh_call 'sleep 1; echo a >>f; echo first'),$(sh_call 'cat f')]")]" '{"ttl":30}'
	start_worker
	wait_for 20 running 'sleep [1]'
	stub_tell fault '{"down":6}'
	wait_for 30 answered 2
	assert_equal "$(results)" $'false "first"\nfalse "a"'
	wait_for 20 done_with_it
	assert_no_violations
}

@test "a post whose answer is lost is not posted again; one that was refused for now is" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo 1'),$(sh_call 'echo 2'),$(sh_call 'echo 3')]")]" '{"ttl":30}'
	stub_tell fault '{"post_lost":2,"post_500":2,"list_500":2}'
	run_worker
	assert_equal "$(results)" $'false "1"\nfalse "2"\nfalse "3"'
	assert_no_violations
	assert_put_away
}

@test "streams that break, crawl, or talk nonsense lose no event" {
	local fault
	for fault in '{"break_stream":3}' '{"slow_stream":0.01}' '{"garbage":true}'; do
		new_session
		start_stub "[$(session "[$(sh_call 'echo 1'),$(sh_call 'echo 2'),$(sh_call 'echo 3')]" | jq -c '.turns[0].foreign = [{type: "a.kind.of.next.year", x: {y: 1}}, {type: "agent.thinking"}]')]"
		stub_tell fault "$fault"
		run_worker
		assert_equal "$(results)" $'false "1"\nfalse "2"\nfalse "3"'
		assert_no_violations
		assert_put_away
		kill "$STUB_PID"
		wait "$STUB_PID" || true
		rm "$PF_DIR/port"
	done
	STUB_PID=""
}

@test "kill -9 of a session's process in a call: the poller lives, the command dies, the next item has the files and runs the call" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo x >>f; wc -l <f; [ "$(wc -l <f)" -gt 1 ] || sleep 77777')]")]" '{"ttl":2}'
	start_worker
	wait_for 20 running 'sleep 7777[7]'
	kill -9 "$(runner_pid)"
	wait_for 20 not_running 'sleep 7777[7]'
	wait_for 30 answered 1
	assert_equal "$(results)" 'false "2"'
	wait_for 20 done_with_it
	kill -0 "$WORKER_PID"
	assert_no_violations
	assert_put_away
}

@test "a list of events that breaks off: a call whose answer is in the part that is missing is not run again" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo x >>f; wc -l <f'),$(sh_call 'wc -l <f'),$(sh_call 'echo x >>g; [ "$(wc -l <g)" -gt 1 ] || sleep 77777; wc -l <f')]" | jq -c '.turns[0].foreign = [{type: "a"}, {type: "b"}]')]" '{"ttl":2}'
	start_worker
	wait_for 20 running 'sleep 7777[7]'
	# The second call is the last event of the first page.
	stub_tell fault '{"list_tail_500":4}'
	kill -9 "$(runner_pid)"
	wait_for 40 answered 3
	assert_equal "$(results)" $'false "1"\nfalse "1"\nfalse "1"'
	wait_for 20 done_with_it
	assert_no_violations
	assert_put_away
}

@test "kill -9 of the poller: its sessions put their sandboxes away" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo 1')]" | jq -c '.turns[0].idle = null')]"
	start_worker
	wait_for 20 answered 1
	kill -9 "$WORKER_PID"
	wait_for 20 done_with_it
	wait_for 10 no_runners
	assert_put_away
	[ "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet | wc -l)" = 1 ]
	assert_no_violations
}

@test "kill -9 of the keeper in a call: the call fails, and the session goes on with its files" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo x >>f; wc -l <f; [ "$(wc -l <f)" -gt 1 ] || sleep 77777'),$(sh_call 'cat f')]")]" '{"ttl":2}'
	start_worker
	wait_for 20 running 'sleep 7777[7]'
	kill -9 "$(pinfold state "$SESSION" | jq .pinfold.keeper)"
	wait_for 40 answered 2
	assert_equal "$(results)" $'true "bash: bash session terminated"\nfalse "x"'
	wait_for 30 done_with_it
	assert_no_violations
	assert_put_away
}

@test "SIGTERM lets the call finish, posts it, keeps the files, stops the item, and takes nothing new" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo x >f; sleep 2; echo finished'),$(sh_call 'cat f')]")]"
	start_worker
	wait_for 20 running 'sleep [2]'
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	assert_equal "$(results | head -n 1)" 'false "finished"'
	assert_equal "$(stub_says '.items[0].state')" stopped
	assert_gone "$SESSION"
	run_worker
	assert_equal "$(results)" $'false "finished"\nfalse "x"'
	assert_no_violations
	assert_put_away
}

@test "two workers and two items for one session: one sandbox, each call answered once" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo x >>f; sleep 1; cat f'),$(sh_call 'cat f')]")]"
	stub_tell enqueue "{\"session\":\"$SESSION\"}"
	start_worker
	local first=$WORKER_PID
	start_worker
	wait_for 40 answered 2
	assert_equal "$(results)" $'false "x"\nfalse "x"'
	wait_for 40 stub_is '[.items[] | .state] | all(. == "stopped")'
	kill "$first" "$WORKER_PID"
	wait "$first" "$WORKER_PID"
	assert_no_violations
	assert_gone "$SESSION"
}

@test "a key that is refused ends the poller with status 1, instead of asking for ever" {
	start_stub '[]'
	stub_tell fault '{"fatal_poll":401}'
	run_worker
	assert_equal "$status" 1
	refute grep -q "$KEY" "$PF_DIR/worker.log"
}

@test "a worker that could make no sandbox says so and takes no item" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo 1')]")]"
	config '{"image":"not-there"}'
	run_worker --config "$CONFIG"
	assert_equal "$status" 1
	grep -q "no sandbox can be made for sessions: .*there is no image 'not-there'" "$PF_DIR/worker.log"
	assert_equal "$(stub_says '.items[0].state')" queued
	config '{"resources":{"memroy":"1G"}}'
	run_worker --config "$CONFIG"
	assert_equal "$status" 1
	grep -q 'memroy' "$PF_DIR/worker.log"
	[ -z "$(find "$ROOT" "$STORE" /sys/fs/cgroup -name 'pinfold-worker-trial*' ! -path "*/.locks/*")" ]
}

@test "items that fail as soon as they are begun do not empty the queue; when the machine is mended they are done" {
	new_session
	start_stub "[]"
	config '{}'
	start_worker --config "$CONFIG"
	wait_for 30 grep -q polling "$PF_DIR/worker.log"
	echo '{"image":"not-there"}' >"$CONFIG"
	# Whenever it was given up it is handed out again.
	stub_tell add "$(session "[$(sh_call 'echo 1')]")"
	wait_for 60 eval '[ "$(grep -c "ends: failed" "$PF_DIR/worker.log")" -ge 3 ]'
	# The first and the third are two pauses apart: of a second at least, and of two.
	stub_says '[.log[] | select(.path | test("ack$")) | .at] | "\(.[2] - .[0] >= 2) \(length)"' >"$PF_DIR/paces"
	read -r apart n <"$PF_DIR/paces"
	[ "$apart" = true ] && [ "$n" -le 6 ] || show "$(<"$PF_DIR/paces")"
	echo '{}' >"$CONFIG"
	wait_for 90 stub_is '.items | last | .state == "stopped"'
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	assert_equal "$(results)" 'false "1"'
}

@test "told to end, a worker waits for no ack that is to be tried later, and takes no item any more" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; touch on; until [ -e go ]; do sleep 0.1; done; echo finished')]")]"
	start_worker --max-sessions 3
	wait_for 30 pinfold exec "$SESSION" -- test -e /workspace/on 2>/dev/null
	stub_tell fault '{"ack_429":60}'
	local first=$SESSION
	new_session
	stub_tell add "$(session "[$(sh_call 'echo never')]")"
	wait_for 30 stub_is "[.log[] | select(.path | test(\"ack$\"))] | length >= 2"
	kill "$WORKER_PID"
	pinfold exec "$first" -- touch /workspace/go
	# Three tries, a minute apart, would be the other way.
	wait_for 40 eval '! kill -0 "$WORKER_PID" 2>/dev/null'
	wait "$WORKER_PID"
	assert_equal "$(results "$first")" 'false "finished"'
	[ "$(pinfold checkpoint ls --sandbox "$first" --quiet | wc -l)" = 1 ]
	assert_equal "$(stub_says '.items | last | .state')" queued
	assert_no_violations
	assert_gone "$first"
}

@test "an item that comes when the worker has been told to end is not taken" {
	new_session
	start_stub '[]'
	stub_tell fault '{"hold_poll":60}'
	start_worker
	wait_for 60 stub_is '[.log[] | select(.path | endswith("/poll"))] | length >= 1'
	# While the poll waits.
	kill "$WORKER_PID"
	stub_tell add "$(session "[$(sh_call 'echo never')]")"
	wait "$WORKER_PID"
	assert_equal "$(stub_says '[.log[] | select(.path | test("ack$"))] | length')" 0
	assert_equal "$(stub_says ".items[0].state")" queued
}

@test "where no session can be begun the queue is left to others: one item a second, then fewer" {
	mkdir "$PF_DIR/bin"
	cp "$WORKER" "$PF_DIR/bin/"
	ln -s "$PINFOLD" "$BUILD/libexec/pinfold/pinfold-tool" "$PF_DIR/bin/"
	start_stub '[]'
	WORKER="$PF_DIR/bin/pinfold-worker" start_worker
	wait_for 60 stub_is '[.log[] | select(.path | endswith("/poll"))] | length >= 1'
	rm "$PF_DIR/bin/pinfold"
	local i
	for i in {1..6}; do
		new_session
		stub_tell add "$(session "[$(sh_call 'echo never')]")"
	done
	wait_for 40 stub_is '[.log[] | select(.path | test("ack$"))] | length >= 3'
	stub_is '[.log[] | select(.path | test("ack$")) | .at] | .[2] - .[0] >= 2'
	grep -q 'the program pinfold is not installed' "$PF_DIR/worker.log"
	kill "$WORKER_PID"
	wait "$WORKER_PID"
}

@test "the machine was started anew: the files that are on its disk are the session's still" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo x >>f; wc -l <f; [ "$(wc -l <f)" -gt 1 ] || sleep 77777')]")]" '{"ttl":2}'
	start_worker
	wait_for 30 running 'sleep 7777[7]'
	stub_tell fault '{"lose":true}'
	wait_for 30 not_running 'sleep 7777[7]'
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	# What is in memory is gone.
	rm -rf "${ROOT:?}/$SESSION"
	stub_tell fault '{"lose":null}'
	wait_for 20 stub_is '.items | last | .state == "queued"'
	run_worker
	assert_equal "$(results)" 'false "2"'
	assert_no_violations
	assert_put_away
}
