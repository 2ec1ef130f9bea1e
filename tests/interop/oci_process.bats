# parallel-safe
# process of config.json: what the first program is given.
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

@test "user, groups, umask, HOME, cwd that is not there yet" {
	edit '.process.user = {uid: 1000, gid: 1000, additionalGids: [5, 6], umask: 63} | .process.cwd = "/made/here"'
	run_bundle 'id; umask; echo $HOME; pwd'
	assert_out "uid=1000(user) gid=1000 groups=5,6"
	assert_out 0077
	assert_out /home/user
	assert_out /made/here
}

@test "capabilities: five sets as given, inheritable empty, what cannot be granted is a warning" {
	run_bundle 'grep Cap /proc/self/status'
	assert_out "CapInh:	0000000000000000"
	assert_out "CapBnd:	0000000020000420"
	edit '.process.capabilities.ambient = ["CAP_KILL"] | .process.capabilities.inheritable = ["CAP_KILL"] | .process.user.uid = 5'
	run_bundle 'grep Cap /proc/self/status'
	assert_out "CapAmb:	0000000000000020"
	edit '.process.capabilities.bounding += ["CAP_NOSUCH"]'
	assert_create_refused process.capabilities CAP_NOSUCH
}

@test "rlimits, oomScoreAdj, noNewPrivileges, scheduler, ioPriority" {
	edit '.process.rlimits = [{type: "RLIMIT_NOFILE", soft: 100, hard: 200}] | .process.oomScoreAdj = 500
		| .process.scheduler = {policy: "SCHED_BATCH", nice: 5} | .process.ioPriority = {class: "IOPRIO_CLASS_IDLE", priority: 0}'
	run_bundle 'ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status; cut -d" " -f 19,41 /proc/self/stat; ionice -p $$'
	assert_out "100
200
500
NoNewPrivs:	1
5 3"
	assert_out idle
}

@test "a terminal: /dev/console, the size, and the socket protocol" {
	edit '.process.terminal = true | .process.consoleSize = {width: 91, height: 27}'
	script 'ls -l /dev/console; stty size; tty; exit 6'
	new_id
	status=0
	output=$(python3 - "$PINFOLD" "$ROOT" "$BUNDLE" "$ID" "$PF_DIR/console.sock" <<-'END'
		import array, os, socket, subprocess, sys
		pinfold, root, bundle, id, path = sys.argv[1:]
		s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen()
		subprocess.run([pinfold, "--root", root, "create", "--bundle", bundle, "--console-socket", path, id], check=True, stdin=subprocess.DEVNULL)
		c, _ = s.accept()
		name, anc, _, _ = c.recvmsg(4096, socket.CMSG_SPACE(4))
		fd = array.array("i", anc[0][2])[0]
		subprocess.run([pinfold, "--root", root, "start", id], check=True)
		data = b""
		try:
		    while True:
		        chunk = os.read(fd, 4096)
		        if not chunk: break
		        data += chunk
		except OSError: pass
		print(name.decode(), data.decode())
	END
	) || status=$?
	assert_status 0
	assert_out "27 91"
	assert_out /dev/pts/0
	assert_out "136,   0"
	edit '.process.terminal = true'
	new_id
	pf create --bundle "$BUNDLE" "$ID"
	assert_status 1
	assert_err --console-socket
}

@test "a program that is not there is found out at create" {
	edit '.process.args = ["nosuch"]'
	assert_create_refused 'executable file not found in $PATH'
	edit '.process.args = ["/etc/nosuch"]'
	assert_create_refused "No such file or directory"
}

@test "the program has 0, 1, 2 and nothing else, also when its caller has more; --preserve-fds hands on" {
	exec 7</etc/passwd
	run_bundle 'ls /proc/self/fd'
	exec 7<&-
	assert_equal "$(grep -c . <<<"$output")" 4
	script 'cat <&3'
	new_id
	echo through >"$PF_DIR/f"
	# bats has descriptor 3 for itself.
	output=$("$PINFOLD" --root "$ROOT" run --preserve-fds 1 --bundle "$BUNDLE" "$ID" 3<"$PF_DIR/f")
	assert_equal "$output" through
}
