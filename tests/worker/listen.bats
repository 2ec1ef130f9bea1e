# The worker as a service: webhooks beside polling, health, metrics, draining.
# parallel-safe
# timeout: 300
load ../lib/common
load lib

HOOK_KEY=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
NEW_KEY=whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3

setup() { worker_setup; }
teardown() { worker_teardown; }

# Starts a worker that listens; AT is its address.
start_listening() { # [OPTION...]
	export ANTHROPIC_WEBHOOK_SIGNING_KEY=${ENV_KEY-$HOOK_KEY}
	start_worker --listen 127.0.0.1:0 "$@"
	unset ANTHROPIC_WEBHOOK_SIGNING_KEY
	wait_for 60 grep -q 'listening on' "$PF_DIR/worker.log"
	AT="http://$(sed -n 's/.*listening on \([^,]*\).*/\1/p' "$PF_DIR/worker.log" | tail -n 1)"
}

hook() { # KEYS TYPE SESSION [NAME=VALUE...]
	python3 "$TESTS_DIR/worker/hook.py" "$AT" "$@"
}
status_of() { # PATH [CURL OPTION...]
	curl -s -o "$PF_DIR/answer" -w '%{http_code}' "$AT$1" "${@:2}"
}
polled() { # N: times at least
	stub_is "[.log[] | select(.path | endswith(\"/poll\"))] | length >= $1"
}
answered() { # N
	stub_is "[.sessions[\"$SESSION\"].results[] | select(.missing | not)] | length >= $1"
}
done_with_it() { stub_is '.items | last | .state == "stopped"'; }
metric() { # NAME{LABELS}
	curl -sf "$AT/metrics" | awk -v n="$1" '$1 == n { print $2 }'
}
metric_is() { [ "$(metric "$1")" = "$2" ]; }

@test "a webhook has the queue asked at once, without waiting there, until it is empty; without one nobody asks" {
	start_stub '[]'
	start_listening --poll-every 10m --max-sessions 3
	wait_for 10 polled 1
	new_session
	local first=$SESSION
	stub_tell add "$(session "[$(sh_call 'echo 1')]")"
	new_session
	stub_tell add "$(session "[$(sh_call 'echo 2')]")"
	sleep 1.5
	[ "$(stub_says '[.log[] | select(.path | endswith("/poll"))] | length')" = 1 ]
	assert_equal "$(hook "$HOOK_KEY" session.status_run_started "$SESSION")" 204
	wait_for 20 stub_is '[.items[].state] == ["stopped", "stopped"]'
	assert_equal "$(results "$first")$(results)" 'false "1"false "2"'
	# None of the polls blocked, and what others left there was taken over sooner.
	stub_is '[.log[] | select(.path | endswith("/poll")) | .query] | all(has("block_ms") | not) and .[1].reclaim_older_than_ms == "2000"'
	assert_no_violations
	# What it is not about changes nothing.
	assert_equal "$(hook "$HOOK_KEY" session.status_idled "$SESSION")" 204
	assert_equal "$(hook "$HOOK_KEY" x x 'body=[1]')" 204
	assert_equal "$(metric 'pinfold_worker_webhooks_total{result="accepted"}') $(metric 'pinfold_worker_webhooks_total{result="ignored"}')" "1 2"
}

@test "what is not signed, not of now, or not the same is refused; what comes twice has no effect twice" {
	start_stub '[]'
	start_listening --poll-every 10m
	wait_for 10 polled 1
	local k=$HOOK_KEY t=session.status_run_started
	assert_equal "$(hook "$NEW_KEY" $t s)" 401
	assert_equal "$(hook "$k" $t s send='{"type":"event"}')" 401
	assert_equal "$(hook "$k" $t s at=-400)" 401
	assert_equal "$(hook "$k" $t s at=400)" 401
	assert_equal "$(hook "$k" $t s signature=v1,AAAA)" 401
	assert_equal "$(status_of /webhook -d '{}')" 400
	assert_equal "$(status_of /webhook)" 405
	assert_equal "$(head -c 70000 /dev/zero | status_of /webhook --data-binary @-)" 413
	sleep 0.3
	[ "$(stub_says '[.log[] | select(.path | endswith("/poll"))] | length')" = 1 ]
	assert_equal "$(metric 'pinfold_worker_webhooks_total{result="refused"}')" 6
	# Twice the same; then one that several keys have signed.
	assert_equal "$(hook "$k" $t s id=msg_1)$(hook "$k" $t s id=msg_1)" 204204
	assert_equal "$(metric 'pinfold_worker_webhooks_total{result="accepted"}') $(metric 'pinfold_worker_webhooks_total{result="repeated"}')" "1 1"
	assert_equal "$(hook "$NEW_KEY,$k" $t s)" 204
	refute grep -q "${k#whsec_}" "$PF_DIR/worker.log"
}

@test "keys in a file are changed without a restart; wrong ones are told at the start" {
	start_stub '[]'
	(umask 077 && echo "$HOOK_KEY" >"$PF_DIR/keys")
	ENV_KEY="" start_listening --webhook-key-file "$PF_DIR/keys"
	local t=session.status_run_started
	assert_equal "$(hook "$HOOK_KEY" $t s) $(hook "$NEW_KEY" $t s)" "204 401"
	printf '# both, for a while\n%s\n%s\n' "$HOOK_KEY" "$NEW_KEY" >"$PF_DIR/keys"
	assert_equal "$(hook "$HOOK_KEY" $t s) $(hook "$NEW_KEY" $t s)" "204 204"
	echo "$NEW_KEY" >"$PF_DIR/keys"
	assert_equal "$(hook "$HOOK_KEY" $t s) $(hook "$NEW_KEY" $t s)" "401 204"
	rm "$PF_DIR/keys"
	assert_equal "$(hook "$NEW_KEY" $t s)" 500
	echo short >"$PF_DIR/keys"
	worker_args
	refute env ANTHROPIC_ENVIRONMENT_KEY=$KEY timeout 10 "$WORKER" "${ARGS[@]}" --listen 127.0.0.1:0 --webhook-key-file "$PF_DIR/keys" 2>"$PF_DIR/err"
	grep -q 'webhook key 1' "$PF_DIR/err"
	refute env ANTHROPIC_ENVIRONMENT_KEY=$KEY timeout 10 "$WORKER" "${ARGS[@]}" --listen example.com:80 2>"$PF_DIR/err"
	grep -q 'no numeric address' "$PF_DIR/err"
	# Without a key there is no such place.
	: >"$PF_DIR/worker.log"
	ENV_KEY="" start_listening
	assert_equal "$(status_of /webhook -d '{}')" 404
}

@test "health and readiness: not before the first poll, not without the control plane, not while draining" {
	new_session
	start_stub "[$(session "[$(sh_call 'touch on; until [ -e go ]; do sleep 0.1; done; echo finished')]")]"
	start_listening
	wait_for 10 eval '[ "$(status_of /readyz)" = 200 ]'
	wait_for 20 pinfold exec "$SESSION" -- test -e /workspace/on 2>/dev/null
	wait_for 10 eval '[ "$(curl -sf "$AT/healthz" | jq -c "[.status, .sessions, .max_sessions]")" = "[\"ok\",1,1]" ]'
	kill "$WORKER_PID"
	wait_for 5 eval '[ "$(status_of /readyz)" = 503 ]'
	assert_equal "$(jq -r .status "$PF_DIR/answer")" draining
	assert_equal "$(status_of /healthz)" 200
	assert_equal "$(metric pinfold_worker_draining)" 1
	# Another worker is to take what comes now.
	assert_equal "$(hook "$HOOK_KEY" session.status_run_started s)" 503
	pinfold exec "$SESSION" -- touch /workspace/go
	wait "$WORKER_PID"
	assert_equal "$(results)" 'false "finished"'
	assert_no_violations
	# The control plane cannot be reached.
	stub_tell fault '{"down":60}'
	: >"$PF_DIR/worker.log"
	start_listening
	assert_equal "$(status_of /readyz) $(status_of /healthz)" "503 200"
	assert_equal "$(jq -r .status "$PF_DIR/answer")" unreachable
}

@test "clients that hold connections and never finish a request keep nobody out" {
	start_stub '[]'
	start_listening
	# More than there is room for, each alive: what is sent now and then holds off what ends idle ones.
	python3 - "${AT#http://}" >"$PF_DIR/held" <<-'END' &
		import socket, sys, time
		host, port = sys.argv[1].rsplit(":", 1)
		held = []
		for i in range(400):
		    s = socket.create_connection((host, int(port)), timeout=60)
		    s.setblocking(False)
		    held.append(s)
		print("held", flush=True)
		for _ in range(600):
		    for s in held:
		        try: s.send(b"G")
		        except OSError: pass
		    time.sleep(0.2)
	END
	local holder=$! i
	wait_for 60 grep -q held "$PF_DIR/held"
	for i in 1 2 3; do
		status=0
		output=$(curl -s -m 60 -o "$PF_DIR/answer" -w '%{http_code}' "$AT/healthz") || status=$?
		[ "$status$output" = 0200 ] || break
	done
	kill "$holder"
	assert_status 0
	assert_equal "$output" 200
}

@test "metrics: sessions' processes are counted together, killed ones too, in words that Prometheus takes" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo 1'),$(sh_call false),$(sh_call 'sleep 77777')]" "[]")]" '{"ttl":2}'
	start_listening
	wait_for 20 answered 2
	kill -9 "$(sed -n "s/.*$SESSION: work item .*, process //p" "$PF_DIR/worker.log" | tail -n 1)"
	wait_for 10 metric_is 'pinfold_worker_items_total{end="killed"}' 1
	curl -sf "$AT/metrics" >"$PF_DIR/metrics"
	assert_equal "$(metric 'pinfold_worker_tool_calls_total{result="ok"}') $(metric 'pinfold_worker_tool_calls_total{result="error"}')" "1 1"
	assert_equal "$(metric 'pinfold_worker_results_total{outcome="posted"}') $(metric pinfold_worker_tool_call_seconds_count)" "2 2"
	assert_equal "$(metric 'pinfold_worker_sandboxes_total{how="created"}')" 1
	curl -sf "$AT/metrics" -o /dev/null -D - | grep -qi '^content-type: text/plain; version=0.0.4'
	need promtool
	promtool check metrics <"$PF_DIR/metrics"
}

@test "a webhook that says a session was deleted has its checkpoints and its sandbox removed" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo 1')]")]"
	start_listening
	wait_for 20 done_with_it
	[ "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet | wc -l)" = 1 ]
	assert_equal "$(hook "$HOOK_KEY" session.deleted "$SESSION")" 204
	wait_for 10 eval '[ -z "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]'
	assert_equal "$(hook "$HOOK_KEY" session.deleted ../../x)" 204
	assert_equal "$(metric 'pinfold_worker_webhooks_total{result="ignored"}')" 1
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	assert_put_away
}

@test "many sessions deleted at once: a few at a time are removed, and what was taken is done though the worker is told to end" {
	start_stub '[]'
	start_listening --poll-every 10m
	wait_for 10 polled 1
	local i ids="" most=0 now
	for i in {1..24}; do
		new_session
		ids+=",$SESSION"
	done
	assert_equal "$(hook "$HOOK_KEY" session.deleted "${ids#,}" | sort -u)" 204
	kill "$WORKER_PID"
	while kill -0 "$WORKER_PID" 2>/dev/null; do
		now=$(pgrep -c -P "$WORKER_PID" || true)
		[ "${now:-0}" -le "$most" ] || most=$now
		sleep 0.02
	done
	wait "$WORKER_PID"
	[ "$most" -le 8 ] || show "$most at a time"
	[ "$(grep -c 'deleted: nothing of it is left here' "$PF_DIR/worker.log")" = 24 ]
}
