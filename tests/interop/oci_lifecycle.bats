# parallel-safe
# The operations of runtime.md on plain bundles, with runc's command line.
# timeout: 300
load ../lib/common
load bundle

setup() {
	common_setup
	bundle_setup
}
teardown() {
	[ -z "${USER_DIR:-}" ] || rm -rf "$USER_DIR"
	container_teardown
}

@test "create, start, state, kill, delete: the statuses of runtime.md in their order" {
	script 'echo started; exec sleep 1000'
	new_id
	pinfold create --bundle "$BUNDLE" --pid-file "$PF_DIR/pid" "$ID" </dev/null >"$PF_DIR/out" 2>&1
	pf state "$ID"
	assert_json '.status == "created" and .id == "'"$ID"'" and .pid == '"$(<"$PF_DIR/pid")"
	assert_json '.bundle == "'"$BUNDLE"'" and (.ociVersion | startswith("1."))'
	[ ! -s "$PF_DIR/out" ]
	pinfold start "$ID"
	status_is running
	wait_for 5 grep -q started "$PF_DIR/out"
	pf start "$ID"
	assert_status 1
	pf delete "$ID"
	assert_status 1
	pinfold kill "$ID" KILL
	wait_for 5 status_is stopped
	pf state "$ID"
	assert_json '.pid == 0'
	pf kill "$ID" 9
	assert_status 1
	assert_err "container not running"
	pinfold kill --all "$ID" 9
	pinfold delete "$ID"
	pf state "$ID"
	[ "$status" != 0 ]
	assert_gone "$ID"
	pinfold delete --force "$ID"
}

@test "an id is free again after delete, and taken before" {
	start_bundle 'sleep 1000'
	pf create --bundle "$BUNDLE" "$ID"
	assert_status 1
	assert_err "exists"
	pinfold delete --force "$ID"
	pinfold create --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
	pinfold delete "$ID"
}

@test "run gives back the program's exit code, 128 + n for a signal, and leaves nothing" {
	run_bundle 'echo hello; exit 7'
	assert_status 7
	assert_equal "$output" hello
	assert_gone "$ID"
	run_bundle 'kill -9 $$; exec sleep 1'
	# Process 1 of a pid namespace does not die of its own signals.
	assert_status 0
	edit '.linux.namespaces |= map(select(.type != "pid"))'
	run_bundle 'kill -SEGV $$'
	assert_status 139
}

@test "run that finds its container deleted leaves the next one of that name alone" {
	script 'exec sleep 1000'
	new_id
	"$PINFOLD" --root "$ROOT" run --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1 &
	local run=$!
	wait_for 30 status_is running
	# Not while it holds the lock that delete wants.
	wait_for 30 flock -n "$ROOT/.locks/$ID" true
	kill -STOP "$run"
	pinfold delete --force "$ID"
	pinfold create --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
	kill -CONT "$run"
	status=0
	wait "$run" || status=$?
	assert_status 137
	status_is created
	pinfold start "$ID"
	status_is running
}

@test "one that is paused before its start is resumed and started, and start does not wait for that" {
	script 'exec sleep 1000'
	new_id
	pinfold create --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
	pinfold pause "$ID"
	status_is paused
	status=0
	stderr=$(timeout 30 "$PINFOLD" --root "$ROOT" start "$ID" 2>&1) || status=$?
	assert_status 1
	assert_err "is paused"
	pinfold resume "$ID"
	status_is created
	pinfold start "$ID"
	status_is running
}

@test "destroy --snapshot of a container makes a checkpoint and ends it" {
	script 'echo kept >/data/file; echo written; exec sleep 1000'
	new_id
	mkdir "$PF_DIR/upper" "$PF_DIR/work"
	mv "$BUNDLE/rootfs" "$BUNDLE/lower"
	mkdir "$BUNDLE/rootfs"
	# An engine's overlay, in a mount namespace of the test's own.
	cat >"$PF_DIR/engine" <<-'END'
		mount -t overlay -o "lowerdir=$1/lower,upperdir=$2/upper,workdir=$2/work" overlay "$1/rootfs" || exit 77
		"${@:4}" run --detach --bundle "$1" "$3" </dev/null >"$2/out" 2>&1 || exit 1
		for _ in {1..600}; do grep -q written "$2/out" && break; sleep 0.05; done
		"${@:4}" destroy --snapshot "$3"
	END
	status=0
	output=$(unshare -m bash "$PF_DIR/engine" "$BUNDLE" "$PF_DIR" "$ID" "$PINFOLD" --root "$ROOT" --store "$STORE" 2>"$PF_DIR/stderr") || status=$?
	stderr=$(<"$PF_DIR/stderr")
	[ "$status" != 77 ] || skip "needs overlay mounts"
	assert_status 0
	assert_json '.checkpoint | startswith("sha256:")'
	assert_gone "$ID"
	[ -z "$(find /sys/fs/cgroup -type d -path "*$CGROUP")" ] || show "its cgroup is left"
}

@test "run --keep leaves it stopped, run --detach running" {
	script 'exit 0'
	new_id
	pinfold run --keep --bundle "$BUNDLE" "$ID"
	status_is stopped
	pinfold delete "$ID"
	script 'exec sleep 1000'
	new_id
	pinfold run --detach --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
	status_is running
}

@test "changes of config.json after create do not count" {
	script 'echo first'
	new_id
	pinfold create --bundle "$BUNDLE" "$ID" </dev/null >"$PF_DIR/out" 2>&1
	script 'echo second'
	pinfold start "$ID"
	wait_for 5 status_is stopped
	assert_equal "$(<"$PF_DIR/out")" first
}

@test "a create that is killed leaves what delete --force removes" {
	cat >"$PF_DIR/hook" <<-'END'
		#!/bin/sh
		exec sleep 1000
	END
	chmod 755 "$PF_DIR/hook"
	edit '.hooks.createRuntime = [{path: $p}]' --arg p "$PF_DIR/hook"
	new_id
	"$PINFOLD" --root "$ROOT" --store "$STORE" create --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1 &
	local creator=$!
	wait_for 5 test -s "$ROOT/$ID/state.json"
	assert_equal "$(state_of .status)" creating
	kill -9 "$creator"
	wait "$creator" || true
	wait_for 5 status_is stopped
	pinfold delete --force "$ID"
	assert_gone "$ID"
	local pid
	for pid in /proc/[0-9]*; do
		if [ "$(tr '\0' ' ' <"$pid/cmdline" 2>/dev/null)" = "sleep 1000 " ]; then kill "${pid#/proc/}"; fi
	done
}

@test "kill takes names, numbers and names with SIG, and refuses others" {
	start_bundle 'trap "echo usr1" USR1; trap "echo term; exit 3" TERM; while :; do sleep 0.05; done'
	sleep 0.2
	pinfold kill "$ID" SIGUSR1
	wait_for 5 grep -q usr1 "$PF_DIR/out"
	pf kill "$ID" NOSUCH
	assert_status 1
	assert_err "unknown signal"
	pf kill "$ID" 99
	assert_status 1
	pinfold kill "$ID"
	wait_for 5 status_is stopped
	grep -q term "$PF_DIR/out"
}

@test "pause and resume; exec in a paused container is refused unless told otherwise" {
	start_bundle 'exec sleep 1000'
	pinfold pause "$ID"
	status_is paused
	pf exec "$ID" true
	assert_status 255
	assert_err paused
	pinfold resume "$ID"
	status_is running
	pinfold exec "$ID" true
	pf resume "$ID"
	assert_status 1
}

@test "ps tells the pids of the host, as JSON and as a table" {
	start_bundle 'sleep 1000 & exec sleep 1001'
	wait_for 5 sh -c "[ \$('$PINFOLD' --root '$ROOT' ps --format json '$ID' | jq length) = 2 ]"
	pf ps --format json "$ID"
	assert_json 'index('"$PID"') != null'
	pf ps "$ID"
	assert_out "sleep 1001"
	pf ps "$ID" -o pid,comm
	assert_out sleep
}

@test "list shows containers, update changes limits, events tells what is used" {
	start_bundle 'exec sleep 1000'
	pf list --format json
	assert_json 'map(select(.id == "'"$ID"'" and .status == "running")) | length == 1'
	pf list --quiet
	assert_out "$ID"
	pinfold update --memory 64m --pids-limit 33 "$ID"
	pf events --stats "$ID"
	assert_json '.type == "stats" and .data.pids.limit == 33 and .data.memory.usage.limit == 67108864'
	echo '{"memory":{"limit":33554432},"devices":[{"allow":false,"access":"rwm"}]}' |
		pinfold update --resources - "$ID"
	pf events --stats "$ID"
	assert_json '.data.memory.usage.limit == 33554432'
	pf update --resources=/nosuch "$ID"
	assert_status 1
}

@test "features and spec are what the specification says, checkpoint and restore say what to use" {
	pf features
	assert_json '.ociVersionMin == "1.0.0" and (.hooks | index("poststop")) and (.linux.seccomp.enabled == true)'
	assert_json '(.mountOptions | index("rro")) and (.linux.namespaces | index("time"))'
	mkdir "$PF_DIR/spec"
	pinfold spec --rootless --bundle "$PF_DIR/spec"
	jq -e '.linux.uidMappings | length == 1' "$PF_DIR/spec/config.json"
	pf spec --bundle "$PF_DIR/spec"
	assert_status 1
	pf checkpoint --image-path /x "$ID"
	assert_status 1
	assert_err "see pinfold snapshot"
	pf restore "$ID"
	assert_status 1
}

@test "--log gets JSON lines with level, msg and time; standard error plain text" {
	status=0
	"$PINFOLD" --root "$ROOT" --log "$PF_DIR/log" --log-format json start nosuch 2>"$PF_DIR/stderr" || status=$?
	assert_status 1
	jq -e '.level == "error" and (.msg | contains("does not exist")) and (.time | test("^[0-9]{4}-.*Z$"))' "$PF_DIR/log"
	! grep -q '^{' "$PF_DIR/stderr"
}

@test "run by root of a user namespace only, as spec --rootless has it, in a cgroup that was handed over" {
	local tree=/sys/fs/cgroup part="/pinfold-test-$$/rootless"
	[ -e "$tree/cgroup.procs" ] || tree=/sys/fs/cgroup/unified
	[ -e "$tree/cgroup.procs" ] || skip "needs a cgroup v2 tree"
	mkdir -p "$tree$part/caller"
	# Where an ordinary user gets to, with all that he runs.
	USER_DIR=$(mktemp -d /tmp/pfu.XXXXXX)
	mv "$BUNDLE/rootfs" "$USER_DIR/"
	cp "$PINFOLD" "$USER_DIR/pinfold"
	mkdir "$USER_DIR/root"
	chown -R 65534:65534 "$USER_DIR" "$tree$part"
	cat >"$USER_DIR/user" <<-'END'
		cd "$1" && ./pinfold spec --rootless && jq '.process.terminal = false | .linux.cgroupsPath = $p
			| .process.args = ["sh", "-c", "id; cat /proc/self/uid_map; echo x >/dev/null && echo wrote; touch /t || echo read-only"]' \
			--arg p "$2/c" config.json >new.json && mv new.json config.json && exec ./pinfold --root "$1/root" run c
	END
	status=0
	output=$(sh -c 'echo $$ >"$1/caller/cgroup.procs"; shift
		exec setpriv --reuid 65534 --regid 65534 --clear-groups unshare -Urm "$@"' sh "$tree$part" \
		sh "$USER_DIR/user" "$USER_DIR" "$part" 2>&1) || status=$?
	assert_status 0
	assert_out "uid=0(root) gid=0"
	assert_out wrote
	assert_out read-only
	[ -z "$(find /sys/fs/cgroup -path "*$part/c")" ]
}
