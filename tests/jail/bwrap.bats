# pinfold-bwrap beside bubblewrap: the same options make the same box.
load lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() { jail_setup; }
teardown() { jail_teardown; }

@test "the options of the table in docs/jail.md, as user and as root: same exit code, files, environment, ids, namespaces" {
	need bwrap python3
	local dir="$PF_DIR/user/tree"
	mkdir -p "$dir/data/dir"
	echo text >"$dir/data/file"
	echo inner >"$dir/data/dir/inner"
	ln -s dir "$dir/data/link"
	cp "$BUILD/tests/helpers/boxfacts" "$dir/boxfacts"
	chmod 755 "$PF_DIR/user" "$dir"
	output=$(timeout 100 /usr/bin/python3 tests/jail/bwrap_same.py "$JAIL_BIN/pinfold-bwrap" "$dir/boxfacts" "$dir" "$JAIL_UID")
	assert_equal "$(sed '$d' <<<"$output")" ""
	[[ "$output" =~ ^[0-9]+\ cases$ ]] || show "no cases"
}

# The caller makes the network ready, or a cgroup, between the two.
blocked() {
	mkfifo "$PF_DIR/info" "$PF_DIR/block"
	[ "$AS" = root ] || chown "$JAIL_UID" "$PF_DIR/info" "$PF_DIR/block"
	(as sh -c "exec \"$JAIL_BIN/pinfold-bwrap\" --ro-bind / / --unshare-all --info-fd 7 --block-fd 8 \
		sh -c 'echo ran >&2' 8<\"$PF_DIR/block\" 7>\"$PF_DIR/info\"") 2>"$PF_DIR/stderr" 3>&- &
	local starter=$! child
	exec 9>"$PF_DIR/block"
	child=$(jq -r '."child-pid"' "$PF_DIR/info")
	[ "$(readlink "/proc/$child/ns/net")" != "$(readlink /proc/self/ns/net)" ]
	[ ! -s "$PF_DIR/stderr" ]
	echo >&9
	exec 9>&-
	wait "$starter"
	assert_equal "$(<"$PF_DIR/stderr")" ran
	rm "$PF_DIR/info" "$PF_DIR/block"
}
@test "--info-fd tells before the command runs, and --block-fd holds it until the caller is ready" {
	each blocked
}

ended_while_blocked() {
	mkfifo "$PF_DIR/block"
	[ "$AS" = root ] || chown "$JAIL_UID" "$PF_DIR/block"
	(as sh -c "exec \"$JAIL_BIN/pinfold-bwrap\" --ro-bind / / --unshare-all --json-status-fd 1 --block-fd 8 sleep 1000 \
		8<\"$PF_DIR/block\"") >"$PF_DIR/out" 2>&1 3>&- &
	local starter=$!
	exec 9>"$PF_DIR/block"
	wait_for 10 has "$PF_DIR/out" child-pid
	kill -TERM "$starter"
	status=0
	wait "$starter" || status=$?
	exec 9>&-
	assert_status 143
	wait_for 5 gone "$(jq -r '."child-pid"' "$PF_DIR/out")"
	rm "$PF_DIR/block" "$PF_DIR/out"
}
gone() { [ ! -d "/proc/$1" ]; }
@test "SIGTERM ends it while it is held" {
	each ended_while_blocked
}

# Opened and not written to: it is the machine's.
proc_elsewhere() {
	local system=(--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 --unshare-pid) procs
	for procs in "--proc /p" "--proc /proc --proc /p" "--dir /d --proc /d/proc --symlink d/proc /p"; do
		# shellcheck disable=SC2086
		(as "$JAIL_BIN/pinfold-bwrap" "${system[@]}" $procs sh -c 'for f in sys/kernel/core_pattern sysrq-trigger; do
			(: >>/p/$f) 2>/dev/null && echo "$f can be written"; done; wc -c </p/keys; echo end') >"$PF_DIR/out"
		assert_equal "$(<"$PF_DIR/out")" $'0\nend'
	done
	rm "$PF_DIR/out"
}
@test "a procfs at another place than /proc, or a second one, is masked and read-only as the first" {
	each proc_elsewhere
}

ignores_children() {
	# bash cannot hand SIGCHLD down as ignored.
	local run=(/usr/bin/python3 -c 'import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])') status=0
	(as "${run[@]}" "$JAIL_BIN/pinfold-bwrap" --ro-bind / / sh -c 'true; exit 3') || status=$?
	assert_status 3
	status=0
	(as "${run[@]}" "$JAIL_BIN/pinfold-jail" --commit -- sh -c 'true; : >made') || status=$?
	assert_status 0
	rm "$(tree)/made"
	status=0
	(as "${run[@]}" "$JAIL_BIN/pinfold-jail" -- sh -c 'true; exit 4') || status=$?
	assert_status 4
}
@test "a caller that ignores SIGCHLD gets exit codes and commits all the same" {
	each ignores_children
}
