# A session from the first work item to the last, with the runner outside of the sandbox.
# parallel-safe
# timeout: 240
load ../lib/common
load lib

setup() { worker_setup; }
teardown() { worker_teardown; }

@test "a scripted session is done in order: poll, ack, heartbeat, session, stream, list, results, stop" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo one; echo two >&2'),$(sh_call 'exit 7'),$(sh_call true)]")]"
	run_worker
	assert_equal "$status" 0
	assert_equal "$(results)" $'false "one\\ntwo"\ntrue "bash: bash session terminated"\nfalse "(no output)"'
	assert_no_violations
	assert_put_away
	[ "$(stub_says '[.log[] | .path | split("/") | last] | map(select(. != "heartbeat")) | .[0:2] | join(" ")')" = "poll ack" ]
}

@test "the next work item of a session finds its files, packages, modes and deletions, and none of its processes" {
	new_session
	local first second
	first=$(sh_call 'mkdir -p d && echo kept >d/file && chmod 640 d/file && ln -s file d/link && rm /etc/motd 2>/dev/null
		mkdir -p /opt/bin && echo "#!/bin/sh" >/opt/bin/installed && chmod 755 /opt/bin/installed
		sleep 54321 & setsid -f sleep 54321; export LOST=1')
	second=$(sh_call 'cat d/file; stat -c %a d/file; readlink d/link; /opt/bin/installed && echo installed; ls /etc/motd 2>&1 | grep -c "No such"
		cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" " " | grep -c "sleep 5432[1]"; echo "[$LOST]"')
	start_stub "[$(session "[$first]" "[$second]")]"
	run_worker
	assert_equal "$status" 0
	assert_equal "$(results | tail -n 1)" 'false "kept\n640\nfile\ninstalled\n1\n0\n[]"'
	assert_no_violations
	assert_put_away
	[ "$(grep -c 'resumed from its checkpoint' "$PF_DIR/worker.log")" = 1 ]
	# Nothing of the helper is in the checkpoint but perhaps the place it was mounted at.
	[ "$(find "$STORE/checkpoints" -name pinfold-tool -size +0 | wc -l)" = 0 ]
}

@test "a call that asks waits for its confirmation; a denied one never runs; another's tool is left alone" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo allowed' '{"permission":"ask","confirm":"allow"}'),
		$(sh_call 'touch denied1' '{"permission":"ask","confirm":"deny"}'),$(sh_call 'touch denied2' '{"permission":"deny"}'),
		{\"name\":\"somebody_elses\",\"input\":{},\"custom\":true,\"unanswered\":true},
		$(sh_call 'ls')]")]"
	run_worker
	assert_equal "$(results)" $'false "allowed"\nmissing\nmissing\nmissing\nfalse "(no output)"'
	assert_no_violations
}

@test "a permission that is not known is not taken for an allowance" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo ran' '{"permission":"of_next_year","unanswered":true}'),$(sh_call 'echo ran too')]")]"
	start_worker
	wait_for 20 stub_is ".sessions[\"$SESSION\"].results[1].text == \"ran too\""
	assert_equal "$(results | head -n 1)" missing
	# Nor is the session over while it waits.
	sleep 1
	stub_is '[.items[] | .state] == ["active"]'
	assert_no_violations
}

@test "calls that come all at once are run one after the other" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo a >f; sleep 0.3'),$(sh_call 'cat f; echo b >f'),$(sh_call 'cat f')]" | jq -c '.turns[0].together = true')]"
	run_worker
	assert_equal "$(results)" $'false "(no output)"\nfalse "a"\nfalse "b"'
	assert_no_violations
}

@test "an item without a secret is worked at with the environment key; 204 is an empty poll, too" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo ok')]" | jq -c '.token = false')]" '{"empty":"204"}'
	run_worker
	assert_equal "$status" 0
	assert_equal "$(results)" 'false "ok"'
	assert_no_violations
}

@test "several sessions at once, each in its own sandbox, with --max-sessions" {
	local i sessions=() ids=()
	for i in 1 2 3 4; do
		new_session
		ids+=("$SESSION")
		sessions+=("$(session "[$(sh_call "hostname >h; sleep 1; ls; cat h")]")")
	done
	start_stub "$(printf '%s\n' "${sessions[@]}" | jq -cs .)"
	run_worker --max-sessions 4
	assert_equal "$status" 0
	for i in "${ids[@]}"; do
		SESSION=$i
		assert_equal "$(results | jq -r 'if type == "boolean" then empty else . end' | head -n 1)" h
		assert_put_away
	done
	assert_no_violations
}

@test "a session that is terminated gets no sandbox, and its item is stopped" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo never')]" | jq -c '.session = {status: "terminated"} | .turns = []')]"
	run_worker
	assert_put_away
	assert_no_violations
}

@test "a deleted session leaves neither sandbox nor checkpoint" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo 1')]" "[$(sh_call 'echo 2')]" | jq -c '.turns[1].idle = null')]"
	start_worker
	wait_for 30 stub_is "(.sessions[\"$SESSION\"].results | length) == 2 and .sessions[\"$SESSION\"].open == []"
	[ -n "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]
	stub_tell event "{\"session\":\"$SESSION\",\"event\":{\"type\":\"session.deleted\"}}"
	wait_for 20 stub_is '[.items[] | .state] | last == "stopped"'
	assert_put_away
	[ -z "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]
	assert_no_violations
}

@test "on-work does one item from standard input, and ends with its outcome" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo from on-work')]" "[$(sh_call 'cat /workspace/none')]")]"
	local item n
	for n in 1 2; do
		item=$(curl -sf -H "Authorization: Bearer $KEY" -H 'anthropic-beta: managed-agents-2026-04-01' -H 'anthropic-version: 2023-06-01' \
			-H 'accept: application/json' -H 'anthropic-worker-id: x' "$URL/v1/environments/$ENVIRONMENT/work/poll?reclaim_older_than_ms=1000")
		curl -sf -o /dev/null -X POST -H 'content-length: 0' -H "Authorization: Bearer $KEY" -H 'anthropic-beta: managed-agents-2026-04-01' \
			-H 'anthropic-version: 2023-06-01' -H 'accept: application/json' "$URL/v1/environments/$ENVIRONMENT/work/$(jq -r .id <<<"$item")/ack"
		if [ "$n" = 1 ]; then
			# By the name that is given to a poller, and with no argument.
			ANTHROPIC_ENVIRONMENT_KEY=$KEY ANTHROPIC_ENVIRONMENT_ID=$ENVIRONMENT ANTHROPIC_BASE_URL=$URL PINFOLD_ROOT=$ROOT PINFOLD_STORE=$STORE \
				PINFOLD_STATE_DIR=$PF_DIR/state PINFOLD_MAX_IDLE=300ms timeout 60 "$BUILD/bin/pinfold-on-work" <<<"$item" >"$PF_DIR/out" 2>>"$PF_DIR/worker.log"
		else
			pinfold on-work --environment-id "$ENVIRONMENT" --base-url "$URL" --state-dir "$PF_DIR/state" --max-idle 300ms <<<"$item" >"$PF_DIR/out" 2>>"$PF_DIR/worker.log"
		fi
		[ ! -s "$PF_DIR/out" ]
	done
	assert_equal "$(results)" $'false "from on-work"\ntrue "cat: /workspace/none: No such file or directory"'
	assert_put_away
	assert_no_violations
	# What is no work item is refused.
	refute pinfold on-work --environment-id "$ENVIRONMENT" --base-url "$URL" <<<'{"id":"../x","data":{"type":"session","id":"y"}}' 2>"$PF_DIR/err"
	grep -q 'work item' "$PF_DIR/err"
	refute pinfold on-work --environment-id "$ENVIRONMENT" --base-url "$URL" <<<'{"id":"x","data":{"type":"session","id":"--snapshot"}}' 2>"$PF_DIR/err"
	grep -q "begins with '-'" "$PF_DIR/err"
}
