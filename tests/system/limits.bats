# parallel-safe
# Limits: each one bites, says so, and bites nobody else.
load ../lib/common

setup() {
	need_root
	common_setup
}
teardown() { common_teardown; }

# Fills N MiB of memory and holds it for a moment.
HOG='my $x = "x" x ($ARGV[0] << 20); print length($x) >> 20, "\n";'

stopped_because() { [ "$(state_of '"\(.status) \(.pinfold.stop_reason)"')" = "stopped $1" ]; }

audit_has() { # JQ-EXPRESSION
	pinfold logs "$ID" --json | jq -se "any(.[]; $1)" >/dev/null
}

@test "a command that outgrows the sandbox's memory is killed, and the sandbox lives" {
	create_sandbox '{"resources":{"memory":"64M"}}'
	pf exec "$ID" --json -- perl -e "$HOG" 32
	assert_status 0
	pf exec "$ID" --json -- perl -e "$HOG" 128
	assert_status 137
	assert_json '.limit == "memory" and .exit_code == 137'
	inside perl -e "$HOG" 16
	assert_status 0
	wait_for 5 audit_has '.event == "limit_hit" and .limit == "memory"'
}

@test "kills for memory one after the other are few lines of the log, which tell of them all" {
	create_sandbox '{"resources":{"memory":"32M"}}'
	local kills
	inside sh -c 'n=0; for i in $(seq 40); do perl -e "$0" 128 >/dev/null 2>&1 || n=$((n + 1)); done; echo $n' "$HOG"
	[ "$output" -ge 30 ]
	kills=$output
	told() { pinfold logs "$ID" --json | jq -se "[.[] | select(.event == \"limit_hit\")] | $1" >/dev/null; }
	wait_for 10 told "(map(.kills) | add // 0) >= $kills" || show "$(pinfold logs "$ID" --json)"
	# One a second.
	told 'map(.time[:19] + "Z" | fromdate) | length <= last - first + 2' || show "$(pinfold logs "$ID" --json)"
}

@test "tmpfs and page cache count as memory of the sandbox" {
	create_sandbox '{"resources":{"memory":"48M"}}'
	# Whether the shell is killed along with the writer is the kernel's choice.
	inside sh -c 'head -c 60000000 /dev/zero >/dev/shm/x; [ "$(stat -c %s /dev/shm/x)" = 60000000 ]'
	[ "$status" != 0 ]
	wait_for 5 audit_has '.event == "limit_hit" and .limit == "memory"'
	[ "$(state_of .status)" = running ]
}

@test "memory of one command alone: it is killed with all it started, its neighbours are not" {
	create_sandbox
	pinfold exec "$ID" -- sleep 30 &
	local neighbour=$!
	# On cgroup v1 the group's kill comes a moment after the kernel's.
	pf exec "$ID" --json --memory 32M -- sh -c "sleep 300 & perl -e '$HOG' 64; sleep 20; echo survived"
	assert_status 137
	assert_json '.limit == "memory" and (.stdout | contains("survived") | not)'
	wait_for 5 eval '[ "$(pids_of | wc -w)" = 2 ]'
	kill -0 "$neighbour"
	kill "$neighbour"
	wait "$neighbour" || true
}

@test "no process escapes the limit of its command by leaving its session" {
	create_sandbox
	pf exec "$ID" --json --memory 32M -- setsid -w perl -e "$HOG" 64
	assert_status 137
	assert_json '.limit == "memory"'
}

@test "swap is off unless asked for" {
	create_sandbox '{"resources":{"memory":"64M"}}'
	local f
	f=$(find /sys/fs/cgroup -path "*/pinfold/*$ID/memory.swap.max" -o -path "*/pinfold/*$ID/memory.memsw.limit_in_bytes" | head -1)
	[ -n "$f" ] || { [ "$(sed 1d /proc/swaps)" = "" ] && skip "this kernel accounts no swap and there is none"; }
	case "$f" in
	*swap.max) assert_equal "$(cat "$f")" 0 ;;
	*) assert_equal "$(cat "$f")" 67108864 ;;
	esac
}

@test "a fork bomb meets the sandbox's limit of processes, and the sandbox is usable afterwards" {
	create_sandbox '{"resources":{"pids":20}}'
	pf exec "$ID" --timeout 10s -- perl -e 'my $n = 0; for (1..40) { my $p = fork; if (!defined $p) { print "refused after $n\n"; kill 9, @k; exit 0 } if (!$p) { sleep 60; exit } push @k, $p; $n++ } print "never\n"'
	assert_out "refused after"
	[ "$(sed 's/.* //' <<<"$output")" -le 19 ]
	wait_for 5 eval '[ "$(pids_of | wc -w)" = 1 ]'
	inside echo alive
	assert_equal "$output" alive
}

@test "without a word in the file there is a limit of processes too" {
	create_sandbox
	local f
	f=$(find /sys/fs/cgroup -path "*/pinfold/*$ID/pids.max" | head -1)
	[ -n "$f" ]
	assert_equal "$(cat "$f")" 2048
}

@test "processes of one command alone, and the JSON says which limit" {
	create_sandbox
	pf exec "$ID" --json --pids 5 -- perl -e 'for (1..10) { my $p = fork; if (!defined $p) { print "refused\n"; exit 3 } if (!$p) { sleep 1; exit } }'
	assert_status 3
	assert_json '.limit == "pids" and .stdout == "refused\n"'
	inside perl -e 'for (1..10) { my $p = fork; defined $p or die; $p or exit } wait for 1..10; print "ok\n"'
	assert_equal "$output" ok
}

# Throttled periods of the sandbox, or of its commands (deeper groups).
throttled() {
	find /sys/fs/cgroup -path "*/pinfold/*$ID*" -name cpu.stat -exec awk '/^nr_throttled/ { n += $2 } END { print n + 0 }' {} + |
		sort -n | tail -1
}

@test "a share of a cpu is a share: who wants more is throttled" {
	create_sandbox '{"resources":{"cpus":0.05}}'
	local before
	before=$(throttled) # making it takes more than the share on a slow machine
	# More than once where so much else is to be done that it does not come to its share.
	for _ in $(seq 20); do
		pf exec "$ID" --json -- perl -e 'my $t = time + 2; 1 while time < $t'
		assert_status 0
		# Far from the wall time, with room for the end of a period.
		assert_json '.cpu_ms < .wall_ms * 0.3'
		[ "$(throttled)" = "$before" ] || break
	done
	[ "$(throttled)" -gt "$before" ]
}

@test "cpus of one command alone" {
	create_sandbox
	pf exec "$ID" --json --cpus 0.2 -- perl -e 'my $t = time + 2; 1 while time < $t'
	assert_status 0
	assert_json '.cpu_ms < .wall_ms * 0.5'
}

@test "which cpus: a command sees the ones of the file" {
	create_sandbox '{"resources":{"cpuset":"0"}}'
	inside sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status
	assert_equal "$output" 0
}

@test "limits hold in commands that came by exec, not only in process 1" {
	create_sandbox '{"resources":{"memory":"64M","pids":50}}'
	pinfold exec "$ID" -- sleep 60 &
	local pid cli=$!
	wait_for 20 eval '[ "$(pids_of | wc -w)" = 2 ]'
	for pid in $(pids_of); do
		[ "$(grep -c "/pinfold/[^/]*$ID/" "/proc/$pid/cgroup")" -ge 1 ]
		# A v1 hierarchy that carries a limit has the process below the sandbox's group as well.
		run grep -E '(memory|pids):' "/proc/$pid/cgroup"
		[ -z "$output" ] || [ "$(grep -c "/pinfold/[^/]*$ID" <<<"$output")" = "$(grep -c . <<<"$output")" ]
	done
	kill "$cli"
	wait "$cli" || true
}

@test "max_runtime ends the sandbox and says why, and exec says that it has stopped" {
	create_sandbox '{"limits":{"max_runtime":"1s"}}'
	pf exec "$ID" -- sleep 60
	[ "$status" != 0 ]
	wait_for 10 stopped_because max_runtime
	assert_equal "$(pids_of)" ""
	pf exec "$ID" -- true
	assert_refused "$ID" stopped
	audit_has '.event == "stop" and .limit == "max_runtime"'
	pinfold destroy "$ID"
	assert_gone "$ID"
}

@test "idle ends a sandbox that does nothing, never one that works" {
	create_sandbox '{"limits":{"idle":"1s"}}'
	inside sleep 2
	assert_status 0
	wait_for 10 stopped_because idle
	audit_has '.event == "stop" and .limit == "idle"'
}

@test "exec_timeout of the file bounds each command, --timeout overrides it" {
	create_sandbox '{"timeout_seconds":1}'
	pf exec "$ID" -- sleep 30
	assert_status 124
	pf exec "$ID" --timeout 10s -- sleep 1.5
	assert_status 0
}

@test "filesystem.size: the writer gets ENOSPC, the host loses nothing, a deletion makes room" {
	create_sandbox '{"filesystem":{"size":"32M"}}'
	inside sh -c 'head -c 100000000 /dev/zero >/workspace/big'
	[ "$status" != 0 ]
	assert_err "No space left"
	inside sh -c 's=$(stat -c %s /workspace/big); [ $s -ge 33000000 ] && [ $s -le 36000000 ]'
	assert_status 0
	[ "$(du -sk "$STORE/sandboxes/$ID" | cut -f1)" -le 40960 ]
	# Everywhere in the root: there is no second way to the disk.
	local p
	for p in /etc /var/tmp /root /home /opt /run; do
		inside sh -c "head -c 1000000 /dev/zero >$p/more"
		[ "$status" != 0 ] || show "$p is another disk"
	done
	inside sh -c 'rm /workspace/big && head -c 8000000 /dev/zero >/workspace/small && stat -c %s /workspace/small'
	assert_equal "$output" 8000000
}

@test "no file that the sandbox is given lets it write to the host's disk past its size" {
	create_sandbox '{"filesystem":{"size":"16M"}}'
	local f
	for f in /etc/resolv.conf /etc/hosts /etc/hostname; do
		inside sh -c "head -c 50000000 /dev/zero >$f"
		inside stat -c %s "$f"
		[ "$output" -le 16777216 ] || show "$f grew to $output bytes"
	done
	[ "$(du -sk "$STORE/sandboxes/$ID" | cut -f1)" -le 24576 ]
}

@test "files without end: inodes run out inside, not outside" {
	create_sandbox '{"filesystem":{"size":"8M"}}'
	pf exec "$ID" --timeout 60s -- perl -e 'my $i = 0; mkdir "/workspace/d"; while (open(my $f, ">", "/workspace/d/$i")) { $i++; last if $i > 200000 } print "$i $!\n"'
	assert_out "No space left"
	[ "${output%% *}" -lt 200000 ]
	inside sh -c 'rm -rf /workspace/d && touch /workspace/again'
	assert_status 0
}

@test "tmp_size is the size of /tmp" {
	create_sandbox '{"filesystem":{"tmp_size":"4M"}}'
	inside sh -c 'head -c 10000000 /dev/zero >/tmp/x; stat -c %s /tmp/x'
	assert_err "No space left"
	assert_equal "$output" 4194304
	inside stat -f -c %T /tmp
	assert_equal "$output" tmpfs
}

@test "open files and processes of one sandbox are bounded by limits it cannot raise" {
	create_sandbox
	inside sh -c 'ulimit -n 99999999'
	[ "$status" != 0 ]
}
