# parallel-safe
# exec into containers of plain bundles.
# timeout: 300
load ../lib/common
load bundle

setup() {
	common_setup
	bundle_setup
}
teardown() {
	container_teardown
}

@test "exec: exit code, environment, directory, user, capabilities" {
	start_bundle 'exec sleep 1000'
	pf exec --env A=b --cwd /tmp --user 1000:1001 --additional-gids 7 "$ID" sh -c 'echo $A $PWD; id; exit 9'
	assert_status 9
	assert_out "b /tmp"
	assert_out "uid=1000(user) gid=1001 groups=7"
	pf exec --cap CAP_SYS_CHROOT "$ID" grep CapEff /proc/self/status
	assert_out "0000000020040420"
	pf exec "$ID" sh -c 'echo $HOME'
	assert_equal "$output" /root
}

@test "exec --process, --detach, --pid-file" {
	start_bundle 'exec sleep 1000'
	echo '{"args":["sh","-c","echo x >/tmp/done; exec sleep 1000"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}}' >"$PF_DIR/process.json"
	pinfold exec --process "$PF_DIR/process.json" --detach --pid-file "$PF_DIR/exec.pid" "$ID"
	wait_for 5 test -e "$BUNDLE/rootfs/tmp/done"
	kill -0 "$(<"$PF_DIR/exec.pid")"
	pf ps --format json "$ID"
	assert_json 'index('"$(<"$PF_DIR/exec.pid")"') != null'
}

@test "exec: a command that is not there or not executable is told in runc's words" {
	start_bundle 'exec sleep 1000'
	pf exec "$ID" nosuch
	assert_status 255
	assert_err 'executable file not found in $PATH'
	pf exec "$ID" /nosuch
	assert_err "No such file or directory"
	pf exec "$ID" /etc/passwd
	assert_err "Permission denied"
}

@test "exec -t gives a terminal of the container's" {
	start_bundle 'exec sleep 1000'
	pf exec -t "$ID" sh -c 'tty; test -t 0 && test -t 1 && test -t 2 && exit 5'
	assert_status 5
	assert_out /dev/pts/0
}

@test "exec again works after kill --all ended an earlier exec (cgroups that were killed take no clones)" {
	start_bundle 'trap "" TERM; while :; do sleep 1; done'
	pinfold exec --detach "$ID" sleep 1000
	pinfold kill --all "$ID" TERM
	pinfold exec "$ID" true
}

@test "exec works in a cgroup that the kernel takes no clones into any more" {
	start_bundle 'exec sleep 1000'
	local tree=/sys/fs/cgroup
	[ -e "$tree/cgroup.procs" ] || tree=/sys/fs/cgroup/unified
	[ -e "$tree/cgroup.procs" ] || skip "needs a cgroup v2 tree"
	mkdir "$tree${CGROUP%/*}/aside"
	echo "$PID" >"$tree${CGROUP%/*}/aside/cgroup.procs"
	echo 1 >"$tree$CGROUP/cgroup.kill"
	echo "$PID" >"$tree$CGROUP/cgroup.procs"
	pf exec "$ID" echo in
	assert_equal "$output" in
	pf exec "$ID" sh -c 'exit 4'
	assert_status 4
}

@test "a user that is no number is refused" {
	start_bundle 'exec sleep 1000'
	local u
	for u in 0x0 -1 4294967296 1000: ' 1' root; do
		pf exec --user "$u" "$ID" id
		assert_status 255
	done
}

# A copy of pinfold, which may be overwritten, with what it needs to run in the container: there it follows a log,
# which is for ever.
FOLLOW='["/proc/self/exe", "--store", "/data", "logs", "--follow", "x"]'
runtime_copy() {
	local f
	cp "$PINFOLD" "$PF_DIR/pinfold"
	PINFOLD="$PF_DIR/pinfold"
	while read -r f; do
		mkdir -p "$BUNDLE/rootfs${f%/*}" && cp "$f" "$BUNDLE/rootfs$f" || return 1
	done < <(ldd "$PINFOLD" | grep -o '/[^ ]*')
	mkdir -p "$BUNDLE/rootfs/data/logs"
	: >"$BUNDLE/rootfs/data/logs/x.jsonl"
}
# Until nobody runs the file behind descriptor 7: while it runs it cannot be written by anybody.
nobody_runs_it() { ! { : >>/proc/self/fd/7; } 2>&1 | grep -q busy; }

@test "the payload cannot write the runtime's file (CVE-2019-5736)" {
	local PINFOLD=$PINFOLD maps
	runtime_copy
	local before
	before=$(sha256sum "$PINFOLD")
	# Exec's: a process inside takes hold of the file while it is run there, and writes to it when nobody runs it.
	# Without a user namespace, and with one whose root is the host's.
	for maps in '' '[{containerID: 0, hostID: 0, size: 65536}]'; do
		[ -z "$maps" ] ||
			edit '.linux.namespaces += [{type: "user"}] | .linux.uidMappings = '"$maps"' | .linux.gidMappings = '"$maps"
		# shellcheck disable=SC2016
		start_bundle 'p=
			until [ -n "$p" ]; do
				for d in /proc/[0-9]*; do
					[ $d = /proc/1 ] || { grep -q follow $d/cmdline && [ -e $d/exe ] && p=$d; }
				done
				sleep 0.05
			done
			exec 5<$p/exe || { echo failed; exit 1; }
			kill ${p#/proc/}
			for i in $(seq 300); do
				said=$({ echo overwritten >>/proc/self/fd/5; } 2>&1) && { echo written; break; }
				case $said in *busy*) sleep 0.1;; *) echo "refused: $said"; break;; esac
			done
			exec sleep 1000'
		timeout 60 "$PINFOLD" --root "$ROOT" exec "$ID" /proc/self/exe --store /data logs --follow x >"$PF_DIR/follow" 2>&1 || true
		wait_for 30 grep -qE "written|refused|failed" "$PF_DIR/out" || show "$(cat "$PF_DIR/out" "$PF_DIR/follow")"
		grep -q "refused: .*Read-only file system" "$PF_DIR/out" || show "$(cat "$PF_DIR/out" "$PF_DIR/follow")"
		assert_equal "$(sha256sum "$PINFOLD")" "$before"
		pinfold delete --force "$ID"
		# Create's: whoever finds the file behind the first process finds it there, too.
		edit '.process.args = '"$FOLLOW"
		start_bundle
		wait_for 30 grep -q follow "/proc/$PID/cmdline"
		exec 7<"/proc/$PID/exe"
		pinfold delete --force "$ID"
		wait_for 30 nobody_runs_it
		status=0
		output=$({ : >>/proc/self/fd/7; } 2>&1) || status=$?
		exec 7<&-
		[ "$status" != 0 ] || show "the file of the first process can be written"
		assert_out "Read-only file system"
	done
}

@test "exec has a session keyring of its own; with create --no-new-keyring it is the caller's" {
	[ -x "$BUILD/tests/hostile" ] || skip "needs $BUILD/tests/hostile (make test-programs)"
	local secret="secret-$$-$RANDOM" option
	"$BUILD/tests/hostile" with-key "$secret" "$BUILD/tests/hostile" keyring hostile-secret | grep -q "$secret" ||
		skip "needs keyrings"
	cp "$BUILD/tests/hostile" "$BUNDLE/rootfs/bin/hostile"
	edit 'del(.linux.seccomp)'
	script 'exec sleep 1000'
	for option in "" --no-new-keyring; do
		new_id
		# shellcheck disable=SC2086
		pinfold create $option --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
		pinfold start "$ID"
		output=$("$BUILD/tests/hostile" with-key "$secret" "$PINFOLD" --root "$ROOT" exec "$ID" hostile keyring hostile-secret)
		assert_out begun
		if [ "$option" ]; then assert_out "$secret"; else refute_out "$secret"; fi
		pinfold delete --force "$ID"
	done
}

@test "exec that fails after all leaves no command behind" {
	start_bundle 'exec sleep 1000'
	local option
	for option in --pid-file --pidfd-socket; do
		status=0
		# Nobody waits for the end of what holds its output open.
		pinfold exec --detach "$option" /nosuch/file "$ID" sleep 1000 >/dev/null 2>"$PF_DIR/stderr" || status=$?
		stderr=$(<"$PF_DIR/stderr")
		assert_status 255
		assert_err /nosuch/file
		assert_equal "$(pinfold ps --format json "$ID" | jq -c .)" "[$PID]"
	done
}

@test "exec that waits for its command to start can be interrupted" {
	start_bundle 'exec sleep 1000'
	pinfold pause "$ID"
	pf exec "$ID" true
	assert_status 255
	assert_err "--ignore-paused"
	"$PINFOLD" --root "$ROOT" exec --ignore-paused "$ID" true 2>"$PF_DIR/stderr" &
	local exec=$!
	in_it() { [ "$(pinfold ps --format json "$ID" | jq length)" = "$1" ]; }
	wait_for 30 in_it 2
	kill -TERM "$exec"
	status=0
	wait "$exec" || status=$?
	stderr=$(<"$PF_DIR/stderr")
	assert_status 255
	assert_err interrupted
	wait_for 30 in_it 1
	pinfold resume "$ID"
	pinfold exec "$ID" true
}
