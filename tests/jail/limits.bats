# parallel-safe
# timeout: 900
# What limits hold, with a cgroup as root and without one as a user; many at once.
load lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() { jail_setup; }
teardown() { jail_teardown; }

# Touches MiB megabytes in each of N processes and holds them.
HOG='import os,sys,time
for _ in range(int(sys.argv[2])-1):
    if os.fork()==0: break
b=bytearray(int(sys.argv[1])<<20)
for i in range(0,len(b),4096): b[i]=1
print("held",flush=True)
time.sleep(20)'

memory() {
	pj --memory 96M --timeout 30s -- /usr/bin/python3 -c "$HOG" 300 1
	# Without a cgroup a single process is refused the memory; Python says so and ends.
	[ "$status" = 137 ] || [[ "$AS" = user && "$status" = 1 && "$stderr" == *MemoryError* ]] || show "no limit"
	refute_out held
	pj --memory 128M --timeout 30s --json -- /usr/bin/python3 -c "$HOG" 48 6
	assert_status 137
	assert_json '.limit == "memory" and .exit_code == 137'
	pj --memory 256M -- /usr/bin/python3 -c 'b = bytearray(30 << 20); print("fine")'
	assert_status 0
	assert_equal "$output" fine
}
@test "--memory holds for one process and for the sum of all: 137, limit memory" {
	each memory
}

scratch_counts() {
	pj --memory 64M --timeout 30s -- sh -c 'head -c 200M /dev/zero >/tmp/f; sleep 10; echo survived'
	refute_out survived
	assert_status 137
}
@test "--memory counts what is written to the scratch file systems (with a cgroup)" {
	AS=root
	scratch_counts
}

pids() {
	pj --pids 20 --timeout 30s -- /usr/bin/python3 -c 'import os,time
n=0
try:
    for _ in range(60):
        if os.fork()==0: time.sleep(3); os._exit(0)
        n+=1
except OSError as e: print(e.errno==11)
print(n)'
	assert_out True
	[ "$(tail -n 1 <<<"$output")" -lt 20 ] || show "too many"
	[ "$(tail -n 1 <<<"$output")" -ge 10 ] || show "too few"
}
@test "--pids bounds the processes of one box" {
	each pids
}

@test "--pids of a user's boxes are counted apart, and other processes of the user not at all" {
	AS=user
	local i
	for i in 1 2 3; do (as sleep 30) & done 3>&-
	(as "$JAIL_BIN/pinfold-jail" --pids 5 -- sh -c 'sleep 30 & sleep 30 & echo ready; wait') >"$PF_DIR/out" 3>&- &
	local first=$!
	wait_for 10 has "$PF_DIR/out" ready
	pj --pids 5 -- sh -c '(sleep 0.1) & (sleep 0.1) & wait; echo fine'
	assert_equal "$output" fine
	kill "$first"
	wait "$first" || true
	pkill_user
}
pkill_user() {
	local p
	for p in $(pgrep -u "$JAIL_UID"); do kill -KILL "$p" 2>/dev/null || true; done
	wait || true
}

@test "--cpus takes a cgroup: as root it holds, as a user it is refused and says so" {
	AS=root
	pj --cpus 0.2 --json -- sh -c 'i=0; end=$(($(date +%s%N) + 1000000000)); while [ "$(date +%s%N)" -lt $end ]; do :; done'
	assert_status 0
	assert_json '.cpu_ms < .wall_ms * 0.6'
	AS=user
	pj --cpus 1 -- true
	assert_refused "--cpus" cgroup
}

@test "-v says how limits are kept" {
	AS=user
	pj -v --memory 64M --pids 10 -- true
	assert_status 0
	assert_err RLIMIT_NPROC
	assert_err "memory: kept by"
	pj --memory 64M --pids 10 -- true
	assert_equal "$stderr" ""
	AS=root
	pj -v --memory 64M -- true
	[[ "$stderr" != *RLIMIT* ]] || show "no cgroup"
}

no_core() {
	inside 'ulimit -c; cd /tmp; sh -c "kill -SEGV \$\$"; ls /tmp/core* 2>/dev/null || :'
	assert_equal "$output" 0
}
@test "it leaves no core files" {
	each no_core
}

at_once() { # N OPTION...
	local n=$1 i failed=0 pids=()
	shift
	for ((i = 0; i < n; i++)); do
		(as "$JAIL_BIN/pinfold-jail" "$@" -- sh -c "echo run-$i; exit $((i % 100))") >"$PF_DIR/out.$i" 2>&1 &
		pids+=($!)
	done 3>&-
	for ((i = 0; i < n; i++)); do
		status=0
		wait "${pids[i]}" || status=$?
		[ "$status" = $((i % 100)) ] && [ "$(<"$PF_DIR/out.$i")" = "run-$i" ] ||
			{ failed=$((failed + 1)); stderr="$i: $status $(<"$PF_DIR/out.$i")"; }
	done
	assert_equal "$failed failed" "0 failed"
	rm -f "$PF_DIR"/out.*
}

many() {
	at_once "${JAIL_SOAK:-100}"
}
@test "a hundred at once (500 with JAIL_SOAK=500): each has its own output and exit code" {
	each many
}

many_with_limits() {
	at_once $((${JAIL_SOAK:-100} / 5)) --memory 64M --pids 20 --allow example.com
}
@test "many at once with limits and a gate" {
	each many_with_limits
}

modes() {
	local probe='import socket,ctypes,sys
try:
    socket.socket(socket.AF_INET); print("inet")
except OSError: print("no inet")
socket.socket(socket.AF_UNIX); print("unix")
libc=ctypes.CDLL(None, use_errno=True)
print("ptrace" if libc.ptrace(0,0,0,0)==0 else "no ptrace")
print("ns" if libc.unshare(0x10000000)==0 else "no ns")'
	inside "cat >/tmp/p; /usr/bin/python3 /tmp/p" <<<"$probe"
	assert_equal "$(xargs <<<"$output")" "inet unix ptrace no ns"
	inside "cat >/tmp/p; /usr/bin/python3 /tmp/p" --seccomp strict <<<"$probe"
	assert_equal "$(xargs <<<"$output")" "no inet unix no ptrace no ns"
	inside "cat >/tmp/p; /usr/bin/python3 /tmp/p; grep Seccomp: /proc/self/status" --seccomp off <<<"$probe"
	assert_equal "$(xargs <<<"$output")" "inet unix ptrace ns Seccomp: 0"
	echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":71}]}' \
		>"$PF_DIR/shared/f.json"
	inside 'mkdir /tmp/d 2>&1 || echo no' --seccomp "$PF_DIR/shared/f.json"
	assert_out "Protocol error"
	rm -f "$PF_DIR/shared/f.json"
	pj --seccomp "$PF_DIR/none.json" -- true
	assert_status 125
	echo '{"defaultAction":"SCMP_ACT_MAYBE"}' >"$PF_DIR/shared/f.json"
	pj --seccomp "$PF_DIR/shared/f.json" -- true
	assert_status 125
	assert_err SCMP_ACT_MAYBE
	rm -f "$PF_DIR/shared/f.json"
}
@test "--seccomp default, strict, off, and a file" {
	each modes
}
