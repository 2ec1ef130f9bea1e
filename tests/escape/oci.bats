# parallel-safe
# G1 and G2 for plain bundles: what images.bats and runtime.bats try against sessions, by the command line of containerd and podman.
load ../lib/common
load ../interop/bundle

setup() {
	common_setup
	bundle_setup
	VICTIM="$PF_DIR/victim"
	mkdir -p "$VICTIM"
	echo untouched >"$VICTIM/file"
	VICTIM_WAS=$(victim)
}
teardown() { container_teardown; }

# Everything about the host's directory that must not change.
victim() { (cd "$VICTIM" && find . -printf '%p %m %U %G %y %l %s\n' | sort && cat file); }

# The host is as it was, whether the container came about or not.
assert_untouched() {
	assert_equal "$(victim)" "$VICTIM_WAS" || return 1
	! grep -qF "$VICTIM" /proc/self/mountinfo || show "mounted: $(grep -F "$VICTIM" /proc/self/mountinfo)"
}

@test "no working directory leads out by a descriptor: create, run and exec (CVE-2024-21626)" {
	local n where
	# The caller has directories of the host's open: not handed on, and handed on.
	exec 5<"$VICTIM" 6<"$VICTIM"
	for n in 3 4 5 6 7 8 9; do
		ln -sfn "/proc/self/fd/$n" "$BUNDLE/rootfs/link"
		for where in "/proc/self/fd/$n" /link; do
			edit '.process.cwd = $c' --arg c "$where"
			run_bundle 'pwd; ls'
			[ "$status" != 0 ] || show "ran in $where" || return 1
			assert_equal "$output" "" || return 1
		done
	done
	edit '.process.cwd = "/proc/self/fd/5"'
	new_id
	pf run --preserve-fds 4 --bundle "$BUNDLE" "$ID" 3<"$VICTIM" 4<"$VICTIM"
	assert_status 1
	assert_err "is outside the sandbox"
	assert_equal "$output" ""
	edit '.process.cwd = "/"'
	start_bundle 'exec sleep 1000'
	for n in 3 4 5 6 7 8 9; do
		pf exec --cwd "/proc/self/fd/$n" "$ID" sh -c 'pwd; ls'
		[ "$status" != 0 ] || show "ran in descriptor $n" || return 1
		assert_equal "$output" "" || return 1
	done
	pf exec --preserve-fds 4 --cwd /proc/self/fd/5 "$ID" sh -c 'pwd; ls' 3<"$VICTIM" 4<"$VICTIM"
	assert_status 255
	assert_err "is outside the sandbox"
	exec 5<&- 6<&-
	assert_untouched
}

@test "a symlink swapped while containers are made never leads out (CVE-2021-30465, CVE-2024-45310)" {
	need python3
	local i racer
	mkdir -p "$PF_DIR/shared/in/x" "$VICTIM/x" "$PF_DIR/source"
	ln -s "$VICTIM" "$PF_DIR/shared/out"
	VICTIM_WAS=$(victim)
	# The volume holds the target of another mount; who has it, too, swaps the directory for a link to the host and back.
	python3 - "$PF_DIR/shared" "$PF_DIR/stop" >"$PF_DIR/racing" 2>/dev/null <<-'END' &
		import ctypes, os, sys, time
		libc, end = ctypes.CDLL(None), time.time() + 120
		os.chdir(sys.argv[1])
		print("up", flush=True)
		while not os.path.exists(sys.argv[2]) and time.time() < end:
		    for _ in range(200): libc.renameat2(-100, b"in", -100, b"out", 2)
	END
	racer=$!
	wait_for 30 grep -q up "$PF_DIR/racing"
	edit '.mounts += [{destination: "/shared", type: "bind", source: ($d + "/shared"), options: ["rbind"]},
		{destination: "/shared/in/x", type: "bind", source: ($d + "/source"), options: ["rbind"]},
		{destination: "/shared/in/y", type: "tmpfs", source: "t"},
		{destination: "/shared/in/z/file", type: "bind", source: "/etc/passwd", options: ["bind"]}]' --arg d "$PF_DIR"
	script true
	for i in $(seq 20); do
		new_id
		pf run --bundle "$BUNDLE" "$ID"
	done
	touch "$PF_DIR/stop"
	wait "$racer" || true
	assert_untouched
}

@test "a volume over /proc gets none of what is written there for the container (CVE-2019-16884, CVE-2019-19921)" {
	local f
	mkdir -p "$PF_DIR/fake"/{sys/net/ipv4,self/attr,thread-self/attr,1}
	for f in sys/net/ipv4/ip_forward self/attr/exec thread-self/attr/exec self/oom_score_adj 1/oom_score_adj self/uid_map; do
		echo untouched >"$PF_DIR/fake/$f"
	done
	edit '.mounts |= map(select(.destination != "/proc")) + [{destination: "/proc", type: "bind", source: ($d + "/fake"), options: ["rbind", "rw"]},
		{destination: "/real", type: "proc", source: "proc"}] | .linux.sysctl = {"net.ipv4.ip_forward": "1"}
		| .process.oomScoreAdj = 321 | .linux.maskedPaths = ["/real/keys"] | .linux.readonlyPaths = []' --arg d "$PF_DIR"
	run_bundle 'cat /real/sys/net/ipv4/ip_forward /real/self/oom_score_adj /proc/sys/net/ipv4/ip_forward; cat /real/keys'
	assert_equal "$output" $'1\n321\nuntouched'
	assert_equal "$(cat "$PF_DIR/fake/"{sys/net/ipv4/ip_forward,self/attr/exec,thread-self/attr/exec,self/oom_score_adj,1/oom_score_adj,self/uid_map} | sort -u)" untouched
	# Nor what exec writes.
	start_bundle 'exec sleep 1000'
	pf exec "$ID" cat /real/self/oom_score_adj
	assert_status 0
	assert_equal "$(find "$PF_DIR/fake" -type f -exec cat {} + | sort -u)" untouched
}

@test "an image's own /dev/pts, /dev/ptmx and /dev/console become nobody's terminal (CVE-2025-52565)" {
	need python3
	mkdir -p "$BUNDLE/rootfs/dev/pts"
	# Where terminals would be opened, and what would be mounted as the console.
	ln -s "$VICTIM/file" "$BUNDLE/rootfs/dev/console"
	ln -s /proc/sysrq-trigger "$BUNDLE/rootfs/dev/pts/0"
	echo untouched >"$BUNDLE/rootfs/dev/pts/ptmx"
	edit '.process.terminal = true | .mounts |= map(select(.destination | startswith("/dev") | not))'
	script 'stat -L -c "%t %F" /dev/console; tty'
	on_terminal
	[ "$status" != 0 ] || show "ran without a devpts"
	assert_err "no devpts is mounted at /dev/pts"
	assert_untouched
	# With one, in a /dev whose links lead to the host: in the image's own root, or not at all.
	rm -r "$BUNDLE/rootfs/dev/pts"
	ln -s "../../../../../../../..$VICTIM" "$BUNDLE/rootfs/dev/pts"
	edit '.mounts += [{destination: "/dev/pts", type: "devpts", source: "devpts", options: ["newinstance", "ptmxmode=0666"]}]'
	on_terminal
	if [ "$status" = 0 ]; then assert_out "88 character special file"; fi
	assert_untouched
	# And in a /dev of its own, where the console is the terminal and no other file.
	rm -rf "$BUNDLE/rootfs/dev"
	edit '.mounts |= map(select(.destination != "/dev/pts")) + [{destination: "/dev", type: "tmpfs", source: "tmpfs"},
		{destination: "/dev/pts", type: "devpts", source: "devpts", options: ["newinstance", "ptmxmode=0666"]}]'
	on_terminal
	assert_status 0
	assert_out "88 character special file"
}

# Runs the bundle with a terminal; sets status, output (what came from it) and stderr.
on_terminal() {
	new_id
	status=0
	output=$(python3 - "$PINFOLD" "$ROOT" "$BUNDLE" "$ID" 2>"$PF_DIR/stderr" <<-'END'
		import os, pty, subprocess, sys
		pinfold, root, bundle, id = sys.argv[1:]
		master, slave = pty.openpty()
		p = subprocess.Popen([pinfold, "--root", root, "run", "--bundle", bundle, id], stdin=slave, stdout=slave)
		os.close(slave)
		try:
		    while True:
		        data = os.read(master, 4096)
		        if not data: break
		        sys.stdout.write(data.decode())
		except OSError: pass
		sys.exit(p.wait())
	END
	) || status=$?
	stderr=$(<"$PF_DIR/stderr")
}
