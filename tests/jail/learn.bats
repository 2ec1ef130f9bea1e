# --learn tells what a command missed; --weak is a jail without namespaces.
# parallel-safe
load lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() {
	jail_setup
	# Outside of /tmp, which is private in a jail anyway.
	DATA=$(mktemp -d /opt/pf-learn.XXXXXX)
	mkdir "$DATA/many" "$DATA/work"
	for i in 1 2 3 4 5 6; do echo "$i" >"$DATA/many/f$i"; done
	echo x >"$DATA/one"
	chmod -R a+rX "$DATA"
	chmod 1777 "$DATA/work"
}
teardown() {
	rm -rf "${DATA:?}"
	jail_teardown
}

SCRIPT='cat $D/one $D/many/f1 $D/many/f2 $D/many/f3 $D/many/f4 $D/many/f5 /no/such/file; echo y >$D/work/out; wget -T 2 -O- http://api.example.com/'

learned() {
	pj --learn --ro "$DATA/work" -e "D=$DATA" -- sh -c "$SCRIPT; exit 4"
	assert_status 4
	assert_json ".name == \"learned\" and .filesystem.read_only_paths == [\"$DATA/many\", \"$DATA/one\"] and
		.filesystem.writable_paths == [\"$DATA/work\"] and .networking.allowed_hosts == [\"api.example.com\"]"
	# It is a profile, and with it nothing of the files is missed.
	jq '.networking = {type: "none"}' <<<"$output" >"$PF_DIR/shared/learned.json"
	chmod 644 "$PF_DIR/shared/learned.json"
	pj --learn --json --profile "$PF_DIR/shared/learned.json" -e "D=$DATA" -- sh -c "$SCRIPT"
	assert_json '.learned.filesystem == {} and (.stdout | startswith("x\n1\n2\n"))'
	assert_equal "$(cat "$DATA/work/out")" y
	rm -f "$DATA/work/out"
}
@test "--learn prints the smallest profile: files as directories, writes apart, hosts; and that profile is enough" {
	each learned
}

same() {
	pj --learn --json -- sh -c 'echo out; exit 5'
	assert_status 5
	assert_json '.stdout == "out\n" and .learned.networking.type == "none"'
	pj --learn --seccomp off -- true
	assert_status 125
}
@test "--learn changes nothing of the command; what it listens through cannot be off" {
	each same
}

# ---- --weak ----

weak() {
	AS=user
	pj --weak "$@"
}

need_landlock() {
	/usr/bin/python3 -c 'import ctypes; raise SystemExit(ctypes.CDLL(None).syscall(444, 0, 0, 1) < 1)' ||
		skip "this kernel has no Landlock"
}

@test "--weak: the tree is read-only, home and TMPDIR are scratch, the rest is shut, no network; and it says what is lost" {
	need_landlock
	weak -- sh -c "touch here && echo wrote; touch ~/x \"\$TMPDIR/y\" && echo scratch; cat $DATA/one; ls $DATA; cat $(home)/.ssh/id
		/usr/bin/python3 -c 'import socket; socket.socket()' 2>/dev/null || echo no socket; echo end"
	assert_status 0
	assert_equal "$output" $'scratch\nno socket\nend'
	[[ "$stderr" == *"weak: no namespaces"* ]] || show "does not say what is lost"
	weak --rw . --ro "$DATA" -- sh -c "echo x >w; cat $DATA/one; touch $DATA/work/n && echo wrote"
	assert_equal "$output" x
	assert_equal "$(cat "$(tree)/w")" x
}

@test "--weak: all that the command started ends with it, and with its time" {
	need_landlock
	weak --timeout 2s -- sh -c '(setsid sleep 300 &); sleep 300'
	assert_status 124
	no_processes
	weak -- sh -c '(setsid sleep 300 &); exit 6'
	assert_status 6
	no_processes
}

@test "--weak: no socket of the caller's is reached, no shared memory, no terminal but its own" {
	need_landlock
	cat >"$DATA/many/try" <<-EOF
		import ctypes, os, socket
		def no(what, f):
		    try: f(); print(what)
		    except OSError: pass
		c = ctypes.CDLL(None, use_errno=True)
		no("socket", lambda: socket.socket(socket.AF_UNIX))
		no("terminals", lambda: os.listdir("/dev/pts"))
		no("a new terminal", lambda: os.open("/dev/ptmx", os.O_RDWR))
		if c.shmget(0x1234, 4096, 0o1600) >= 0: print("shm")
		if c.prlimit(os.getppid(), 7, None, ctypes.create_string_buffer(16)) == 0: print("limits of others")
		socket.socketpair()
		print("end")
	EOF
	weak --ro "$DATA" -- /usr/bin/python3 "$DATA/many/try"
	assert_status 0
	assert_equal "$output" end
}

@test "--weak: what is not shown keeps its length, its owner and its attributes" {
	need_landlock
	AS=user
	cat >"$DATA/many/try" <<-EOF
		import os
		for what, f in (("length", lambda p: os.truncate(p, 0)), ("owner", lambda p: os.chown(p, -1, os.getgid())),
		                ("attributes", lambda p: os.setxattr(p, "user.x", b"y"))):
		    for p in "$(home)/.ssh/id", "own":
		        try: f(p); print(what, p)
		        except PermissionError: pass
		with open("own", "r+") as f: f.truncate(1); os.fchown(f.fileno(), -1, os.getgid())
		print("end")
	EOF
	echo mine >"$(tree)/own"
	chown "$JAIL_UID" "$(tree)/own"
	weak --ro "$DATA" --rw . -- /usr/bin/python3 "$DATA/many/try"
	assert_equal "$output" end
	assert_equal "$(cat "$(home)/.ssh/id" "$(tree)/own")" $'key-of-user\nm'
}

@test "--weak refuses what it cannot keep, each with its name" {
	need_landlock
	local o
	for o in "--seccomp off" "--hide ." "--tmpfs /mnt/x" "--allow example.com" "--pids 5" "--overlay" "--learn" "--size 1M" "--user 7"; do
		# shellcheck disable=SC2086
		weak $o -- true
		assert_status 125
	done
	AS=root
	pj --weak -- true
	assert_status 125
	[[ "$stderr" == *"root can have all of a jail"* ]] || show "no reason"
}

# ---- what later jails believe ----

trusted() {
	mkdir -p "$(home)/.cache"
	chown -R "$(stat -c %u:%g "$(tree)")" "$(home)/.cache"
	pj true
	[ -d "$(home)/.cache/pinfold" ] || show "no cache"
	for what in "$(home)/.cache" "$(home)" "$(home)/.cache/pinfold"; do
		pj --rw "$what" -- sh -c "echo x >$(home)/.cache/pinfold/poison || mv $(home)/.cache/pinfold $(home)/.cache/other"
		[ "$status" != 0 ] || show "--rw $what lets the cache be written"
		[ ! -e "$(home)/.cache/pinfold/poison" ]
		[ -d "$(home)/.cache/pinfold" ]
	done
	pj --rw "$(home)/.cache" -- touch "$(home)/.cache/mine"
	assert_status 0
	# Nor be replaced, by way of what is above it, seen elsewhere, or by a commit.
	pj --rw "$(home)" -- mv "$(home)/.cache" "$(home)/other"
	[ "$status" != 0 ] && [ -d "$(home)/.cache/pinfold" ] || show "the cache was moved away"
	pj --commit --rw "$(home)" -- sh -c "exec 2>/dev/null; rm -rf $(home)/.cache; mv $(home)/.cache $(home)/other; mkdir $(home)/.cache/pinfold/poison; touch $(home)/kept"
	assert_status 0
	[ -e "$(home)/kept" ] && [ -d "$(home)/.cache/pinfold" ] && [ ! -e "$(home)/.cache/pinfold/poison" ] || show "by a commit"
	(as "$JAIL_BIN/pinfold-bwrap" --ro-bind / / --tmpfs /mnt --bind "$(home)" /mnt mkdir /mnt/.cache/pinfold/poison) || true
	[ ! -e "$(home)/.cache/pinfold/poison" ] || show "at another place"
	pj --rw "$(home)/.cache/pinfold"/etc-* -- true
	assert_status 125
	# Whatever the environment makes it be; rules that are deeper still hold.
	echo secret >"$(home)/.cache/secret"
	mkdir -p "$(home)/run"
	chmod 777 "$(home)/run"
	WITH=(XDG_RUNTIME_DIR="$(home)/run")
	pj --rw "$(home)" --hide "$(home)/.cache/secret" -- sh -c "cat $(home)/.cache/secret; mkdir $(home)/.cache/pinfold/poison || mkdir $(home)/run/pinfold/poison"
	WITH=()
	[ "$status" != 0 ] && [ -z "$output" ] || show "another cache"
	# A link on the way could be bent.
	mv "$(home)/.cache" "$(home)/real"
	ln -s real "$(home)/.cache"
	pj --rw "$(home)" -- true
	assert_status 125
	[[ "$stderr" == *"symbolic link"* ]] || show "says nothing of the link"
	rm "$(home)/.cache"
	mv "$(home)/real" "$(home)/.cache"
}
@test "filters and the like that are kept for later jails cannot be written by a command, whatever --rw says" {
	each trusted
	need_landlock
	AS=user
	weak --rw "$(home)/.cache" -- true
	assert_status 125
}

# ---- what a caller left closed ----

closed() {
	local end
	for end in '<&-' '>&-' '2>&-' '<&- >&- 2>&-'; do
		(as sh -c "\"\$@\" -- sh -c 'for n in 0 1 2; do [ ! -e /proc/self/fd/\$n/../etc ] || touch $(tree)/out; done' $end" sh "$JAIL_BIN/pinfold-jail" --rw "$(tree)")
		[ ! -e "$(tree)/out" ] || show "with $end the command has a directory of the machine"
	done
}
@test "standard input, output and error that the caller closed are no descriptors of ours for the command" {
	each closed
}

codes() {
	local status=0
	(as "$JAIL_BIN/pinfold-bwrap" --ro-bind / / sh -c 'exit 3') || status=$?
	assert_status 3
}
@test "pinfold-bwrap's exit code is the command's" {
	each codes
}
