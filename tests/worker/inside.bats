# A worker made by somebody else, in the sandbox, with the platform behind a gateway.
# parallel-safe
# timeout: 300
load ../lib/common
load lib

setup() { worker_setup; }
teardown() { worker_teardown; }

@test "the SDK's worker runs in the sandbox as it is; what its tools see and may is the sandbox's, not the machine's" {
	need_sdk '{"user":"1000:1000","resources":{"memory":"700M","pids":100},"env":{"HOME":"/workspace"}}'
	new_session
	echo secret >"$PF_DIR/canary"
	local calls
	calls=$(
		sh_call 'for n in mnt pid net ipc uts user cgroup; do readlink /proc/self/ns/$n; done'
		sh_call 'hostname'
		sh_call 'cat /proc/self/uid_map /proc/self/gid_map'
		sh_call 'ls -d /proc/[0-9]* | wc -l; cat /proc/[0-9]*/cmdline | tr "\0" " " | grep -c "stub[.]py"'
		sh_call 'grep -E "^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):" /proc/self/status'
		sh_call "cat $PF_DIR/canary; ls $PF_DIR"
		sh_call 'python3 -c "
import os
import signal
pids = []
try:
    while True:
        pids.append(os.fork())
        if not pids[-1]:
            signal.pause()
except OSError as e:
    print(e.strerror, len(pids) < 100)
for p in pids:
    os.kill(p, 9)
    os.wait()
"'
		sh_call 'python3 -c "x = bytearray(2 << 30)"; echo "hog ended with $?"'
		sh_call "(echo >/dev/tcp/127.0.0.1/PORT) 2>&1 | grep -o refused | head -n 1"
		sh_call 'touch /usr/bin/x /opt/agent/x 2>&1 | grep -c "cannot touch"; echo still here'
	)
	start_stub "[]"
	calls=${calls//PORT/${URL##*:}}
	stub_tell add "$(session "$(jq -cs . <<<"$calls")")"
	run_worker --config "$CONFIG" -- "${INSIDE[@]}"
	assert_equal "$status" 0
	assert_no_violations
	assert_put_away
	local n=0 ns
	for ns in mnt pid net ipc uts user cgroup; do
		! grep -qxF "$(readlink "/proc/self/ns/$ns")" <<<"$(result_text 0)" || show "shared namespace: $ns"
		n=$((n + 1))
	done
	[ "$(result_text 0 | wc -l)" = "$n" ]
	[ "$(result_text 1)" != "$(hostname)" ]
	# Nobody in there is anybody out here.
	[ "$(result_text 2 | awk '$2 < 65536' | wc -l)" = 0 ]
	[ "$(result_text 3 | head -n 1)" -lt 30 ] && [ "$(result_text 3 | tail -n 1)" = 0 ]
	assert_equal "$(result_text 4 | tr -s '\t\n' '  ' | sed 's/ $//')" 'CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 0000000000000000 CapAmb: 0000000000000000 NoNewPrivs: 1 Seccomp: 2'
	[[ "$(result_text 5)" == *"No such file"*"No such file"* ]]
	assert_equal "$(result_text 6)" 'Resource temporarily unavailable True'
	[[ "$(result_text 7)" == *'hog ended with 137' ]]
	assert_equal "$(result_text 8)" refused
	assert_equal "$(result_text 9)" $'2\nstill here'
}

@test "all tools answer from the sandbox what the same SDK answers on the bare machine" {
	need_sdk
	new_session
	local calls="$PF_DIR/calls.json" normal
	# Without one whose answer has a random mark of the SDK's own in it, and one whose answer depends on the order in
	# which the file system lists a directory.
	jq -c 'map(select((.input.command // "" | test("set [-+]v") | not) and .input.pattern != ".*/*.c"))' \
		"$TESTS_DIR/worker/compare/calls.json" >"$calls"
	mkdir "$PF_DIR/ws"
	start_stub "[$(session "$(<"$calls")")]"
	(cd "$SDK" && HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin timeout 100 node_modules/node/bin/node sdk.mjs "$PF_DIR/ws" "$calls" "$PF_DIR/bare.json")
	run_worker --config "$CONFIG" -- "${INSIDE[@]}"
	assert_equal "$status" 0
	# Files are found in no order that is promised.
	normal='.[] | .[1] |= (gsub($ws; "/workspace") | if . == "" then "(no output)" else . end | split("\n") | sort | join("\n")) | tojson'
	jq -r --arg ws "$PF_DIR/ws" "$normal" "$PF_DIR/bare.json" >"$PF_DIR/bare"
	stub_says ".sessions[\"$SESSION\"].results | map([.is_error, .text])" | jq -r --arg ws /workspace "$normal" >"$PF_DIR/inside"
	[ "$(wc -l <"$PF_DIR/bare")" -gt 150 ]
	diff "$PF_DIR/bare" "$PF_DIR/inside" >&2
	assert_no_violations
}

@test "the next item of a session, on another store, finds files, packages, modes and deletions; a survivor of the first is gone" {
	need_sdk
	new_session
	local first second cg checkpoint
	first=$(sh_call 'mkdir -p d && echo kept >d/file && chmod 2751 d && chmod 640 d/file && ln -s file d/link && rm -f /etc/passwd- && ln d/file d/hard
		setfattr -n user.note -v yes d/file; printf "#!/bin/sh\necho installed\n" >/opt/tool && chmod 755 /opt/tool
		P=$(python3 -m site --user-site); mkdir -p "$P/from_turn_one" && echo "x = 41 + 1" >"$P/from_turn_one/__init__.py"
		setsid -f sleep 54321; rm -rf /etc/alternatives; pgrep -c sleep')
	second=$(sh_call 'stat -c "%a %h %N" d d/file d/link; cat d/hard; getfattr --only-values -n user.note d/file; echo; /opt/tool
		python3 -c "import from_turn_one; print(from_turn_one.x)"; ls /etc/passwd- /etc/alternatives 2>&1 | grep -c "No such"; pgrep -c sleep')
	start_stub "[$(session "[$first]" "[$second]")]"
	take_item
	on_work --config "$CONFIG" -- "${INSIDE[@]}"
	assert_equal "$status" 0
	assert_equal "$(result_text 0)" 1
	[ ! -e /opt/tool ] && [ -d /etc/alternatives ]
	# Nothing of the first turn is on the machine but its checkpoint.
	assert_gone "$SESSION"
	cg=$(find /sys/fs/cgroup -path "*$SESSION*" | wc -l)
	[ "$cg" = 0 ]
	checkpoint=$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)
	pinfold checkpoint export "$checkpoint" --to "oci:$PF_DIR/moved" >/dev/null
	STORE="$PF_DIR/elsewhere"
	ROOT="$PF_DIR/elsewhere.run"
	mkdir -m 700 "$STORE" "$ROOT"
	pinfold checkpoint import "oci:$PF_DIR/moved" >/dev/null
	take_item
	on_work --config "$CONFIG" -- "${INSIDE[@]}"
	assert_equal "$status" 0
	assert_equal "$(result_text 1)" "2751 2 'd'
640 2 'd/file'
777 1 'd/link' -> 'file'
kept
yes
installed
42
2
0"
	grep -q 'resumed from its checkpoint' "$PF_DIR/worker.log"
	assert_no_violations
	assert_put_away
}

@test "neither the key nor the token is in the sandbox: environment, processes, memory, files, checkpoint, traffic" {
	need_sdk '{"user":"1000:1000"}'
	need tcpdump nsenter zstd
	new_session
	start_stub "[$(session "[$(sh_call 'env; tr "\0" "\n" </proc/$PPID/environ; cat /dev/shm/*; touch ready; until [ -e go ]; do sleep 0.1; done'),
		$(sh_call 'grep -rlE "(TOKEN|MENT)CANARY" / --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr 2>/dev/null; echo looked')]")]"
	start_worker --config "$CONFIG" -- "${INSIDE[@]}"
	wait_for 30 pinfold exec "$SESSION" -- test -e /workspace/ready
	local pid n=0 init
	init=$(pinfold state "$SESSION" | jq .pid)
	nsenter -t "$init" -n tcpdump -q -i lo -s 0 -U -w "$PF_DIR/traffic" >/dev/null 2>&1 3>&- &
	WORKERS+=("$!")
	wait_for 10 test -s "$PF_DIR/traffic"
	for pid in $(pids_of "$SESSION"); do
		python3 "$TESTS_DIR/worker/memory.py" "$pid" TOKENCANARY ENVIRONMENTCANARY
		n=$((n + 1))
	done
	# Process 1, the shell of the tools and Node at least.
	[ "$n" -ge 3 ]
	# That the search finds what is there: the placeholder is in somebody's memory.
	local found=0
	for pid in $(pids_of "$SESSION"); do python3 "$TESTS_DIR/worker/memory.py" "$pid" placeholder- 2>/dev/null || found=1; done
	[ "$found" = 1 ]
	pinfold exec "$SESSION" -- touch /workspace/go
	wait_for 60 stub_is '.items[0].state == "stopped"'
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	result_text 0 >"$PF_DIR/seen"
	grep -q '^ANTHROPIC_WORK_SECRET=' "$PF_DIR/seen" && grep -q '^ANTHROPIC_BASE_URL=http://127.0.0.1:' "$PF_DIR/seen"
	refute grep -q CANARY "$PF_DIR/seen"
	assert_equal "$(result_text 1)" looked
	grep -aq placeholder- "$PF_DIR/traffic"
	refute grep -aqE '(TOKEN|MENT)CANARY' "$PF_DIR/traffic"
	refute grep -rq 'sk-ant' "$STORE/checkpoints" "$ROOT"
	pinfold checkpoint export "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" --to "oci:$PF_DIR/exported" >/dev/null
	local f
	while read -r f; do
		! zstd -dcqf "$f" 2>/dev/null | grep -aqE '(TOKEN|MENT)CANARY|placeholder-[0-9a-f]' || show "in $f"
	done < <(find "$PF_DIR/exported" -type f)
	refute grep -q CANARY "$PF_DIR/worker.log"
	assert_no_violations
}

@test "the gateway lets nothing through but this session, this item's heartbeat and stop, and results of tools" {
	need_sdk
	new_session
	local other="$SESSION.other"
	start_stub "[$(session "[$(sh_call "$(cat "$TESTS_DIR/worker/refused.sh")")]")]"
	run_worker --config "$CONFIG" -- "${INSIDE[@]}"
	assert_equal "$status" 0
	result_text 0 >&2
	assert_equal "$(result_text 0 | grep -v ': 403$' | sed 's/ *$//')" "$(cat <<-END
		session: 200
		list: 200
		without the placeholder: 401
		with another: 401
		as x-api-key: 401
		proxied elsewhere: 400
		no path: 400
		not HTTP: 400
		heartbeat out of turn: 412
	END
	)"
	[ "$(result_text 0 | grep -c ': 403$')" -ge 30 ]
	# Of all that nothing has come to the control plane.
	assert_no_violations
	[ "$(stub_says "[.sessions[\"$SESSION\"].events[] | select(.type | startswith(\"user.\")) | .type] | unique | join(\" \")")" = "user.message user.tool_result" ]
	grep -q 'refused from inside' "$PF_DIR/worker.log"
}

@test "a worker of the command line's shape finds what it looks for: variables, a secret in a file of its own, ?beta=true" {
	config '{"user":"1000:1000"}'
	new_session
	start_stub "[$(session)]"
	cat >"$PF_DIR/ant" <<-'END'
		echo "ids $ANTHROPIC_WORK_ID $ANTHROPIC_ENVIRONMENT_ID $ANTHROPIC_SESSION_ID"
		echo "file $(stat -c '%a %U' "$ANTHROPIC_WORK_SECRET_FILE") $(cmp "$ANTHROPIC_WORK_SECRET_FILE" <(printf %s "$ANTHROPIC_WORK_SECRET") && echo same)"
		[ "$(printf %s "$ANTHROPIC_WORK_SECRET" | tr _- /+ | sed -e 's/$/===/' | base64 -d 2>/dev/null)" = "{\"sessions_token\":\"$ANTHROPIC_ENVIRONMENT_KEY\"}" ] && echo "secret right"
		beat=NO_HEARTBEAT
		for n in 1 2 3; do
			beat=$(curl -sf -X POST -H "Authorization: Bearer $ANTHROPIC_ENVIRONMENT_KEY" -H 'anthropic-version: 2023-06-01' \
				"$ANTHROPIC_BASE_URL/v1/environments/$ANTHROPIC_ENVIRONMENT_ID/work/$ANTHROPIC_WORK_ID/heartbeat?beta=true&expected_last_heartbeat=$beat" |
				sed 's/.*"last_heartbeat":"\([^"]*\)".*/\1/')
		done
		echo "beat ${beat:+three times}"
		echo "session $(curl -sf -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $ANTHROPIC_ENVIRONMENT_KEY" -H 'anthropic-version: 2023-06-01' \
			-H 'anthropic-beta: managed-agents-2026-04-01' -H 'accept: application/json' "$ANTHROPIC_BASE_URL/v1/sessions/$ANTHROPIC_SESSION_ID?beta=true")"
		python3 -c 'import os; os.openpty()' && echo "pty there"
		curl -sf -o /dev/null -w 'stop %{http_code}\n' -X POST -d '{"force":true}' -H "Authorization: Bearer $ANTHROPIC_ENVIRONMENT_KEY" \
			"$ANTHROPIC_BASE_URL/v1/environments/$ANTHROPIC_ENVIRONMENT_ID/work/$ANTHROPIC_WORK_ID/stop?beta=true"
	END
	run_worker --config "$CONFIG" -- /bin/bash -c "$(<"$PF_DIR/ant")"
	assert_equal "$status" 0
	assert_equal "$(sed -n 's/.*: inside: //p' "$PF_DIR/worker.log")" "ids work_1 $ENVIRONMENT $SESSION
file 600 agent same
secret right
beat three times
session 200
pty there
stop 204"
	refute grep -q 'without stopping its item' "$PF_DIR/worker.log"
	assert_no_violations
	assert_put_away
}
