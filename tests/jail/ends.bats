# parallel-safe
# How a command ends, by itself and by others, and that nothing of it stays.
load lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() { jail_setup; }
teardown() { jail_teardown; }

exit_codes() {
	local n
	for n in 0 1 3 77 255; do
		pj -- sh -c "exit $n"
		assert_status "$n"
		assert_equal "$output$stderr" ""
	done
	pj -- "$(tree)/not-there"
	assert_status 127
	assert_err not-there
	pj -- no-such-program-anywhere
	assert_status 127
	assert_err no-such-program-anywhere
	echo 'not executable' >"$(tree)/plain"
	pj -- ./plain
	assert_status 126
	pj -- "$(tree)"
	assert_status 126
	rm "$(tree)/plain"
	for n in TERM KILL SEGV PIPE USR1; do
		pj -- sh -c "kill -$n \$\$"
		assert_status $((128 + $(kill -l "$n")))
	done
}
@test "its exit code is the command's, 128 + signal, 126, 127" {
	each exit_codes
}

time_out() {
	pj --timeout 2s -- sh -c 'trap "" TERM INT HUP; echo begun; sleep 100; echo more'
	assert_status 124
	assert_equal "$output" begun
	assert_err timeout
	pj --timeout 60s -- sh -c 'exit 5'
	assert_status 5
	pj --timeout 2s --json -- sh -c 'echo out; sleep 100 & sleep 100'
	assert_status 124
	assert_json '.exit_code == 124 and .limit == "timeout" and .stdout == "out\n"'
}
@test "--timeout ends it and all that it started: 124" {
	each time_out
}

descendants() {
	local mark=$((100000 + RANDOM))
	pj -- sh -c "setsid sleep $mark & (sleep $mark & ) & nohup sleep $mark >/dev/null 2>&1 & exit 4"
	assert_status 4
	wait_for 5 nothing_of_it "$mark"
	# Its output is a pipe here: what stays must not keep it open.
	output=$(jail -- sh -c 'setsid sleep 100 & echo done')
	assert_equal "$output" done
}
nothing_of_it() { ! pgrep -f "^sleep $1\$" -u "$([ "$AS" = root ] && echo 0 || echo "$JAIL_UID")" >/dev/null; }
@test "what it leaves running ends with it" {
	each descendants
}

forwarded() {
	local s
	for s in TERM INT HUP QUIT USR1 USR2; do
		start_jail -- sh -c "trap 'echo got-$s; exit 9' $s; echo ready; while :; do sleep 0.05; done"
		wait_for 10 has "$PF_DIR/out" ready
		kill -"$s" "$pid"
		status=0
		wait "$pid" || status=$?
		assert_status 9
		has "$PF_DIR/out" "got-$s" || show "$s did not arrive"
	done
	start_jail -- sh -c 'echo ready; exec sleep 1000'
	wait_for 10 has "$PF_DIR/out" ready
	kill -TERM "$pid"
	status=0
	wait "$pid" || status=$?
	assert_status 143
}
@test "signals to pinfold-jail reach the command" {
	each forwarded
}

grace() {
	start_jail --grace 300ms "$@" -- sh -c 'trap "" TERM; echo ready; while :; do sleep 0.05; done'
	wait_for 10 has "$PF_DIR/out" ready
	kill -TERM "$pid"
	status=0
	wait "$pid" || status=$?
	assert_status 137
}
graces() {
	grace
	grace --allow example.com
	grace --memory 64M
	grace --timeout 1h
	pj --grace 0 -- true
	assert_refused grace
}
@test "a command that will not hear of SIGTERM is killed after --grace" {
	each graces
}

# What somebody with the same user id could do to process 1: trace it, write its memory, take its descriptors.
on_process_1() {
	cat >"$PF_DIR/shared/attack.py" <<-'END'
		import ctypes, os, sys
		libc = ctypes.CDLL(None, use_errno=True)
		libc.ptrace.argtypes = [ctypes.c_long] * 4
		def tell(what, r): print(what, "done" if r >= 0 else os.strerror(ctypes.get_errno()))
		tell("attach", libc.ptrace(16, 1, 0, 0))
		tell("seize", libc.ptrace(0x4206, 1, 0, 0))
		buf = ctypes.create_string_buffer(8)
		there = (ctypes.c_size_t * 2)(int(open("/proc/1/stat").read().split()[27]) or 4096, 8)
		here = (ctypes.c_size_t * 2)(ctypes.addressof(buf), 8)
		tell("vm", libc.process_vm_readv(1, here, 1, there, 1, 0))
		tell("getfd", libc.syscall(438, os.pidfd_open(1), 0, 0))
		for f in ("mem", "environ", "maps", "exe", "root/", "fd/0", "syscall", "stack"):
		    try: os.stat(f"/proc/1/{f}") if f[-1] in "/e0" else open(f"/proc/1/{f}").read(1); print(f, "done")
		    except OSError as e: print(f, e.strerror)
		print("ready", flush=True)
		while True: os.kill(1, 19); os.sched_yield()
	END
	start_jail --ro "$PF_DIR/shared" -- /usr/bin/python3 "$PF_DIR/shared/attack.py"
	wait_for 10 has "$PF_DIR/out" ready
	kill -TERM "$pid"
	status=0
	wait "$pid" || status=$?
	assert_status 143
	if grep done "$PF_DIR/out"; then show "process 1 can be got at"; fi
	grep -q "attach Operation not permitted" "$PF_DIR/out" || show "no attack" "$(cat "$PF_DIR/out")"
}
@test "a command cannot trace or stop process 1, which hands signals on" {
	each on_process_1
}

killed() {
	local mark=$((100000 + RANDOM))
	start_jail "$@" -- sh -c "sleep $mark & setsid sleep $mark & echo ready; trap '' TERM; sleep $mark; sleep $mark"
	wait_for 10 has "$PF_DIR/out" ready
	kill -KILL "$pid"
	wait "$pid" || true
	wait_for 5 nothing_of_it "$mark"
}
killed_all() {
	killed
	killed --rw . --memory 64M --pids 20
	killed --allow example.com
	killed --rw . --overlay
}
@test "kill -9 of pinfold-jail ends the command and all that it started" {
	each killed_all
	wait_for 10 no_new_cgroups
}

# Parents: a shell that starts it in the background and dies.
parent_dies() {
	local mark=$((100000 + RANDOM))
	(as sh -c "\"$JAIL_BIN/pinfold-jail\" -- sh -c 'echo ready; sleep $mark; :' & echo \$! ; wait") >"$PF_DIR/out" 3>&- &
	local shell=$!
	wait_for 10 has "$PF_DIR/out" ready
	kill -KILL "$shell"
	wait "$shell" || true
	wait_for 5 nothing_of_it "$mark"
}
@test "it ends when the parent of pinfold-jail dies" {
	each parent_dies
}

job_control() {
	start_jail -- sh -c 'echo ready; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'
	wait_for 10 has "$PF_DIR/out" 3
	kill -STOP "$pid"
	kill -CONT "$pid"
	local n
	n=$(wc -l <"$PF_DIR/out")
	wait_for 5 more_lines "$n"
	kill -TERM "$pid"
	wait "$pid" || true
}
more_lines() { [ "$(wc -l <"$PF_DIR/out")" -gt "$1" ]; }
@test "it goes on after a stop" {
	each job_control
}

no_new_cgroups() {
	[ -z "$(find /sys/fs/cgroup -type d -path '*pinfold/jail-*' 2>/dev/null | sort | comm -13 "$PF_DIR/cgroups" -)" ]
}

nothing_left() {
	local before after
	before=$(cat /proc/self/mountinfo; ip netns list 2>/dev/null; ls /tmp /var/tmp /dev/shm /run)
	jail --rw . -- sh -c 'echo x >made; echo y >/tmp/y; exit 3' || true
	jail --memory 64M --pids 30 --timeout 10s -- true
	jail --allow example.com -- true
	jail --rw . --overlay -- sh -c 'mkdir -p d/e; echo x >d/e/f; chmod 0 d/e'
	jail -- /no/such || true
	jail --rw /no/such -- true || true
	jail --seccomp /no/such -- true || true
	after=$(cat /proc/self/mountinfo; ip netns list 2>/dev/null; ls /tmp /var/tmp /dev/shm /run)
	# Others work on this machine too: only what looks like ours counts.
	local new
	new=$(comm -13 <(sort <<<"$before") <(sort <<<"$after") | grep -iE "pinfold|jail|$JAIL_UID" || true)
	[ -z "$new" ] || show "left:" "$new"
	wait_for 5 no_new_cgroups
	[ -e "$(tree)/made" ]
	[ ! -e "$(tree)/d" ]
	# Its cache is all that it keeps.
	local kept
	kept=$(find "$(home)" -mindepth 1 -maxdepth 3 -newer "$PF_DIR/cgroups" ! -path '*/tree*' -printf '%P\n' | sort | xargs)
	[[ "$kept" =~ ^(\.cache( \.cache/pinfold( \.cache/pinfold/[a-z0-9.-]+)*)?)?$ ]] || show "kept: $kept"
	rm -rf "$(tree)/made"
}
@test "nothing is left behind but a cache: no process, mount, cgroup, file" {
	each nothing_left
}
