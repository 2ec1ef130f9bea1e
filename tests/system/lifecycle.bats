# parallel-safe
# From create to destroy, and what happens when somebody dies in between.
load ../lib/common

setup() {
	need_root
	common_setup
}
teardown() { common_teardown; }

status_is() { [ "$(state_of .status)" = "$1" ]; }

# Ends process PID for good and waits until it is gone.
kill_hard() { # PID
	kill -9 "$1"
	wait_for 10 eval "[ ! -d /proc/$1 ] || grep -q '^State:.Z' /proc/$1/status"
}

# As a reboot does: the sandbox is dead, and what was in /run is not there.
lose_runtime_state() {
	kill_hard "$(state_of .pinfold.keeper)"
	wait_for 10 eval '[ -z "$(pids_of)" ]'
	rm -rf "$ROOT"
	mkdir -m 700 "$ROOT"
}

# Nothing at all is left of anything below $ROOT and $STORE but logs, caches and images.
assert_all_gone() {
	local left
	left=$(
		find "$ROOT" -mindepth 1 ! -path "$ROOT/.*"
		find "$ROOT/.locks" "$STORE/sandboxes" "$STORE/trash" -mindepth 1 -maxdepth 1 2>/dev/null
		find /sys/fs/cgroup -type d -path "*/pinfold/*t$$-$BATS_TEST_NUMBER-*"
		grep -F "$PF_DIR" /proc/self/mountinfo
		losetup -ln -O NAME,BACK-FILE 2>/dev/null | grep -F "$STORE/sandboxes"
		find /run/pinfold/.ids -lname "$ROOT/*" -printf '%p %l\n' 2>/dev/null
	) || true
	[ -z "$left" ] || show "left over:" "$left"
}

trash_is_empty() { [ -z "$(ls -A "$STORE/trash" 2>/dev/null)" ]; }

@test "create prints one JSON object with the state; state and list show the same" {
	new_id
	config '{"name":"x","resources":{"memory":"64M"}}'
	pf create "$ID" --config "$CONFIG"
	assert_status 0
	assert_json ".id == \"$ID\" and .status == \"running\" and .pid > 1 and (.created | test(\"^20..-..-..T\")) and .pinfold.image == \"host\""
	local created=$output
	pf state "$ID"
	assert_equal "$(jq -cS . <<<"$output")" "$(jq -cS . <<<"$created")"
	pf list --format json
	assert_json "length == 1 and .[0].id == \"$ID\" and .[0].status == \"running\""
	pf list
	assert_out "$ID"
	assert_out running
	pf list -q
	assert_equal "$output" "$ID"
	grep -q pinfold "/proc/$(state_of .pid)/comm"
}

@test "an id that lives is refused without --reuse, and returned as it is with it" {
	create_sandbox
	local pid
	pid=$(state_of .pid)
	inside sh -c 'echo kept >/workspace/file'
	pf create "$ID" --config "$CONFIG"
	assert_refused "$ID" exists
	pf create "$ID" --config "$CONFIG" --reuse
	assert_status 0
	assert_json ".pid == $pid and .pinfold.reused"
	inside cat /workspace/file
	assert_equal "$output" kept
}

@test "pause stops everything, exec says so, resume goes on where it was" {
	create_sandbox
	pf exec "$ID" -- sh -c 'sh -c "while :; do echo x >>/workspace/ticks; sleep 0.02; done" >/dev/null 2>&1 &'
	pinfold pause "$ID"
	status_is paused
	local n pid
	sleep 0.2
	pid=$(pids_of | tr ' ' '\n' | tail -1)
	n=$(awk '{ print $14 + $15 }' "/proc/$pid/stat")
	sleep 0.3
	assert_equal "$(awk '{ print $14 + $15 }' "/proc/$pid/stat")" "$n"
	pf exec "$ID" -- true
	assert_refused "$ID" paused
	pinfold resume "$ID"
	status_is running
	inside sh -c 'a=$(wc -l </workspace/ticks); sleep 0.5; b=$(wc -l </workspace/ticks); [ "$b" -gt "$a" ]'
	assert_status 0
}

@test "pause killed with -9 when all stands still: the sandbox goes on" {
	create_sandbox
	[ -e "$BUILD/tests/helpers/faultinject.so" ] || skip "needs tests/helpers/faultinject.so (make test-programs)"
	sanitized && skip "nothing can be preloaded in front of a sanitizer"
	# What it renames is the mark.
	LD_PRELOAD="$BUILD/tests/helpers/faultinject.so" PF_FAULT=rename:1:kill pf pause "$ID"
	assert_status 137
	status_is running
	pf exec "$ID" --timeout 20s -- echo alive
	assert_status 0
	assert_equal "$output" alive
	pinfold pause "$ID"
	status_is paused
}

@test "a paused sandbox is destroyed like any other, and resumed by --reuse" {
	create_sandbox
	pinfold pause "$ID"
	pinfold pause "$ID" # again is no error, nor a change
	status_is paused
	pf create "$ID" --config "$CONFIG" --reuse
	assert_status 0
	assert_json '.status == "running"'
	inside echo alive
	assert_equal "$output" alive
	pinfold pause "$ID"
	pf destroy "$ID"
	assert_status 0
	assert_gone "$ID"
}

@test "destroy removes everything; again, or of an id that never was, it is no error" {
	create_sandbox '{"filesystem":{"size":"32M"}}'
	inside sh -c 'echo x >/workspace/x'
	pf destroy "$ID"
	assert_status 0
	assert_equal "$output" ""
	assert_gone "$ID"
	pf destroy "$ID"
	assert_status 0
	pf destroy never-was-here
	assert_status 0
	pf destroy --snapshot never-was-here "$ID"
	assert_status 0
	assert_equal "$output" ""
	pf state "$ID"
	assert_refused "$ID"
	pf exec "$ID" -- true
	assert_refused "$ID"
	wait_for 10 trash_is_empty
	assert_all_gone
}

@test "the files of a tree that nobody may list are removed as well" {
	create_sandbox
	inside sh -c 'mkdir -p /workspace/a/b && touch /workspace/a/b/c && chmod 0 /workspace/a/b /workspace/a; i=0; cd /workspace; while [ $i -lt 300 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done'
	assert_status 0
	pinfold destroy "$ID"
	wait_for 10 trash_is_empty
	assert_all_gone
}

@test "destroy while commands run ends them; their callers hear of it" {
	create_sandbox
	pinfold exec "$ID" -- sh -c 'trap "" TERM; while :; do sleep 1; done' >"$PF_DIR/out" 2>&1 &
	local cli=$!
	wait_for 5 eval '[ "$(pids_of | wc -w)" -ge 2 ]'
	pf destroy "$ID"
	assert_status 0
	status=0
	wait "$cli" || status=$?
	[ "$status" != 0 ]
	assert_gone "$ID"
}

@test "process 1 killed: the sandbox has stopped, says so, keeps its files for --reuse" {
	create_sandbox
	inside sh -c 'echo kept >/workspace/file'
	kill_hard "$(state_of .pid)"
	wait_for 5 status_is stopped
	[ "$(pids_of)" = "" ]
	pf exec "$ID" -- true
	assert_refused "$ID" stopped
	pf create "$ID" --config "$CONFIG"
	assert_refused exists
	pf create "$ID" --config "$CONFIG" --reuse
	assert_status 0
	assert_json '.status == "running"'
	inside cat /workspace/file
	assert_equal "$output" kept
}

@test "the sandbox ended by its own root is stopped, not half alive" {
	create_sandbox
	inside sh -c 'kill -TERM 1; sleep 5'
	wait_for 10 status_is stopped
	pinfold destroy "$ID"
	assert_gone "$ID"
}

@test "keeper killed with -9: the sandbox dies with it, and gc, --reuse and destroy all work" {
	local how
	for how in gc reuse destroy; do
		create_sandbox '{"filesystem":{"size":"32M"}}'
		inside sh -c 'echo kept >/workspace/file; setsid sleep 300 >/dev/null 2>&1 &'
		kill_hard "$(state_of .pinfold.keeper)"
		wait_for 10 status_is stopped
		wait_for 10 eval '[ -z "$(pids_of)" ]'
		case $how in
		gc)
			pf gc
			assert_status 0
			status_is stopped
			pf create "$ID" --reuse
			assert_status 0
			inside cat /workspace/file
			assert_equal "$output" kept
			;;
		reuse)
			pf create "$ID" --reuse
			assert_status 0
			inside cat /workspace/file
			assert_equal "$output" kept
			;;
		esac
		pf destroy "$ID"
		assert_status 0
		assert_gone "$ID"
	done
	wait_for 10 trash_is_empty
	assert_all_gone
}

@test "a keeper dies while a command runs: the command goes too, and its caller is told" {
	create_sandbox
	pinfold exec "$ID" -- sleep 300 >"$PF_DIR/out" 2>&1 &
	local cli=$!
	wait_for 5 eval '[ "$(pids_of | wc -w)" -ge 2 ]'
	kill_hard "$(state_of .pinfold.keeper)"
	status=0
	wait "$cli" || status=$?
	[ "$status" != 0 ]
	assert_equal "$(pids_of)" ""
}

@test "create killed with -9 at any moment: gc finds everything" {
	local i keeper
	config '{"filesystem":{"size":"16M","writable_paths":["/data"]}}'
	for i in $(seq 30); do
		new_id
		"$PINFOLD" --root "$ROOT" --store "$STORE" create "$ID" --config "$CONFIG" >/dev/null 2>&1 &
		local cli=$!
		sleep "0.0$(printf %02d $((i * 3)))"
		kill -9 "$cli" 2>/dev/null || true
		wait "$cli" 2>/dev/null || true
	done
	# Keepers may still be at it, or have finished; gc takes the dead, destroy the living.
	sleep 1
	pf gc --stopped
	assert_status 0
	while read -r ID; do
		if [ -e "$ROOT/$ID" ]; then
			[ "$(state_of .status)" = running ]
			inside true
			assert_status 0
			pf destroy "$ID"
			assert_status 0
		fi
	done <"$PF_DIR/ids"
	pf gc --stopped
	assert_status 0
	wait_for 10 trash_is_empty
	assert_all_gone
}

@test "create killed before its keeper was ready: the id is free after gc, without waiting" {
	new_id
	config
	"$PINFOLD" --root "$ROOT" --store "$STORE" create "$ID" --config "$CONFIG" >/dev/null 2>&1 &
	local cli=$!
	sleep 0.01
	kill -9 "$cli" 2>/dev/null || true
	wait "$cli" 2>/dev/null || true
	pf create "$ID" --config "$CONFIG" --reuse
	[ "$status" = 0 ] || { pf gc && pf create "$ID" --config "$CONFIG" --reuse; }
	assert_status 0
	inside echo alive
	assert_equal "$output" alive
}

@test "destroy killed with -9 at any moment, then again: everything is gone" {
	local i
	for i in $(seq 12); do
		create_sandbox '{"filesystem":{"size":"16M"}}'
		"$PINFOLD" --root "$ROOT" --store "$STORE" destroy "$ID" >/dev/null 2>&1 &
		local cli=$!
		sleep "0.0$(printf %02d $((i * 2)))"
		kill -9 "$cli" 2>/dev/null || true
		wait "$cli" 2>/dev/null || true
		pf destroy "$ID"
		assert_status 0
		assert_gone "$ID"
	done
	pf gc
	assert_status 0
	wait_for 10 trash_is_empty
	assert_all_gone
}

@test "exec killed with -9 at any moment leaves no process and no group" {
	create_sandbox
	local i
	for i in $(seq 20); do
		"$PINFOLD" --root "$ROOT" --store "$STORE" exec "$ID" -- sh -c 'sleep 200 & sleep 200' >/dev/null 2>&1 &
		local cli=$!
		sleep "0.0$(printf %02d $((i * 2)))"
		kill -9 "$cli" 2>/dev/null || true
		wait "$cli" 2>/dev/null || true
	done
	# On a machine with much else to do the keeper may get at the last one late.
	wait_for 60 eval '[ "$(pids_of | wc -w)" = 1 ]' ||
		show "still there: $(for pid in $(pids_of); do tr '\0' ' ' </proc/$pid/cmdline; echo "($pid)"; done)"
	wait_for 60 eval '[ -z "$(find /sys/fs/cgroup -type d -path "*/pinfold/*$ID/x*")" ]' ||
		show "still there: $(find /sys/fs/cgroup -type d -path "*/pinfold/*$ID/x*")"
	inside echo alive
	assert_equal "$output" alive
}

@test "after a reboot the runtime state is gone: gc finds the workspace, --reuse gives the files back" {
	create_sandbox '{"filesystem":{"size":"32M"}}'
	inside sh -c 'echo kept >/workspace/file'
	lose_runtime_state
	pf gc
	assert_status 0
	status_is stopped
	pf create "$ID" --reuse
	assert_status 0
	inside cat /workspace/file
	assert_equal "$output" kept
	pinfold destroy "$ID"
	assert_gone "$ID"
}

@test "after a reboot, without gc: create says that it exists, --reuse and destroy still find it" {
	create_sandbox
	inside sh -c 'echo kept >/workspace/file'
	lose_runtime_state
	pf create "$ID" --reuse
	assert_status 0
	inside cat /workspace/file
	assert_equal "$output" kept
	lose_runtime_state
	pf create "$ID"
	assert_refused exists
	# What is there and cannot be packed is not "nothing there".
	pf destroy --snapshot "$ID"
	assert_refused snapshot
	[ -e "$STORE/sandboxes/$ID" ]
	pf destroy "$ID"
	assert_status 0
	assert_gone "$ID"
}

@test "after a reboot, a --reuse that fails late or is killed leaves the workspace to gc and to the next --reuse" {
	create_sandbox
	inside sh -c 'echo kept >/workspace/file'
	lose_runtime_state
	# Found out when its cgroup is made.
	echo '{"resources":{"cpuset":"4000"}}' >"$PF_DIR/late.json"
	pf create "$ID" --reuse --config "$PF_DIR/late.json"
	assert_refused cpuset
	pf gc
	assert_status 0
	status_is stopped
	# Killed before anything was written down.
	rm -r "${ROOT:?}/$ID"
	mkdir -m 700 "$ROOT/$ID"
	pf gc
	assert_status 0
	status_is stopped
	pf create "$ID" --reuse --config "$CONFIG"
	assert_status 0
	inside cat /workspace/file
	assert_equal "$output" kept
	pinfold destroy "$ID"
	assert_gone "$ID"
}

@test "gc touches nothing that lives, and no checkpoint" {
	create_sandbox
	local pid
	pid=$(state_of .pid)
	inside sh -c 'echo x >/workspace/x'
	pf gc --stopped
	assert_status 0
	status_is running
	assert_equal "$(state_of .pid)" "$pid"
	inside cat /workspace/x
	assert_equal "$output" x
}

@test "gc frees the id range of a sandbox that has stopped, but not while somebody starts it again" {
	create_sandbox
	kill_hard "$(state_of .pid)"
	wait_for 10 status_is stopped
	# As it stands while a create --reuse is at it: the range taken, the state still the old one, the lock held.
	local range=/run/pinfold/.ids/t$$
	ln -s "$ROOT/$ID" "$range"
	flock "$ROOT/.locks/$ID" "$PINFOLD" --root "$ROOT" --store "$STORE" gc >/dev/null
	[ -L "$range" ]
	pf gc
	assert_status 0
	[ ! -L "$range" ]
}

@test "doctor says what this machine has, as text and as JSON" {
	pf doctor --json
	assert_json '(.checks | length) > 5 and (.checks | all(has("check") and has("status") and has("detail")))'
	assert_equal "$status" "$(jq 'if .usable then 0 else 1 end' <<<"$output")"
	pf doctor
	assert_out kernel
}

@test "doctor tells what a container may lack: capabilities, the initial user namespace, descriptors" {
	check() { jq -e "[.checks[] | select(.check == \"$1\")] | length == 1 and (.[0] | $2)" <<<"$output" >/dev/null ||
		show "$1: $2"; }
	pf doctor --json
	check "packet filter" '.status == "ok"'
	check capabilities '.status == "ok"'
	check "user namespace" '.status == "ok"'
	check "descriptor limit" '.detail | test("^soft [0-9]+, hard [0-9]+$")'
	run -1 --separate-stderr setpriv --bounding-set -sys_ptrace "$PINFOLD" doctor --json
	check capabilities '.status == "fail" and .detail == "missing: CAP_SYS_PTRACE"'
	run -1 --separate-stderr unshare --user --map-root-user "$PINFOLD" doctor --json
	check "user namespace" '.status == "fail"'
	# No filter may be loaded: the system call that makes the namespace is not allowed.
	run -1 --separate-stderr setpriv --bounding-set -net_admin,-sys_admin "$PINFOLD" doctor --json
	check "packet filter" '.status == "fail" and (.detail | length > 0)'
	run --separate-stderr bash -c "ulimit -Sn 500; exec '$PINFOLD' doctor --json"
	check "descriptor limit" '.status == "warn" and (.detail | startswith("soft 500,"))'
}

@test "stats counts what the sandbox uses" {
	create_sandbox '{"resources":{"memory":"64M"}}'
	inside true
	pf stats "$ID"
	assert_json '.memory.limit == 67108864 and .pids.current == 1 and .cpu.usage_us > 0'
}

@test "gc collects half-made checkpoints and images, and skeletons of the host that no sandbox stands on" {
	STORE="$PF_DIR/store"
	create_sandbox
	pinfold snapshot "$ID" --name kept >/dev/null
	local host="$STORE/images/host" current
	current=$(ls "$host")
	cp -a "$host/$current" "$host/0ld"
	cp -a "$host/$current" "$host/u5ed"
	mkdir -p "$host/.half.1.tmp/fs" "$STORE/sandboxes/other" "$STORE/checkpoints/tmp/dead" "$STORE/images/tmp/dead"
	jq -n --arg l "$host/u5ed/fs" '{id: "other", image: "host", image_layers: [$l]}' \
		>"$STORE/sandboxes/other/sandbox.json"
	mkdir -p "$ROOT/other"
	# A record that cannot be read may stand on anything.
	mkdir "$STORE/sandboxes/broken"
	echo '{' >"$STORE/sandboxes/broken/sandbox.json"
	pf image gc
	assert_json '.host_skeletons == 1 and .temporary == 1'
	assert_equal "$(ls "$host" | sort | xargs)" "$(printf '%s\n' 0ld u5ed "$current" | sort | xargs)"
	rm -r "$STORE/sandboxes/broken"
	pf image gc
	assert_json '.host_skeletons == 1'
	assert_equal "$(ls "$host" | sort | xargs)" "$(printf '%s\n' u5ed "$current" | sort | xargs)"
	rm -r "$STORE/sandboxes/other" "$ROOT/other"
	mkdir "$STORE/images/tmp/dead"
	pf gc
	assert_status 0
	assert_json '.checkpoints.temps == 1 and .images.temporary == 1 and .images.host_skeletons == 1'
	assert_equal "$(ls "$host")" "$current"
	inside cat /etc/passwd
	assert_status 0
	pinfold checkpoint verify kept >/dev/null
}
