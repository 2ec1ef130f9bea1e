# On cgroup v2 alone, as scripts/test-vm boots it: every limit is in one tree and bites there.
# timeout: 400
load ../lib/common

setup() {
	[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || skip "needs cgroup v2 alone (make test-vm)"
	common_setup
}
teardown() { common_teardown; }

# The sandbox's own group.
group() { find /sys/fs/cgroup/pinfold -mindepth 1 -maxdepth 1 -name "*$ID"; }

# One file of it, or of a group below: knob memory.max, knob init/memory.max
knob() { cat "$(group)/$1"; }

# One "key value" line of it.
value() { knob "$1" | sed -n "s/^$2[ =]//p"; }

HOG='my $x = "x" x ($ARGV[0] << 20); print length($x) >> 20, "\n";'

@test "doctor finds one tree with every controller in it" {
	pf doctor --json
	assert_status 0
	assert_json '[.checks[] | select(.check == "cgroups")][0].detail == "v2"'
	assert_json '[.checks[] | select(.check | startswith("limit "))] | length == 5 and all(.status == "ok")'
}

@test "every limit of the sandbox file is in the kernel's files, and controllers are handed down" {
	create_sandbox '{"resources":{"memory":"64M","memory_swap":"16M","pids":30,"cpus":0.5,"cpu_weight":50,"cpuset":"1"}}'
	assert_equal "$(knob memory.max) $(knob memory.swap.max)" "67108864 16777216"
	assert_equal "$(knob pids.max)" 30
	assert_equal "$(knob cpu.max)" "50000 100000"
	assert_equal "$(knob cpu.weight)" 50
	assert_equal "$(knob cpuset.cpus.effective)" 1
	local c
	for c in cpu cpuset memory pids io; do
		grep -qw "$c" "$(group)/cgroup.controllers" || show "no $c"
	done
	# The kernel lets nobody sit beside children with limits.
	assert_equal "$(knob cgroup.procs)" ""
	assert_equal "$(knob init/cgroup.procs)" "$(state_of .pid)"
	grep -qw memory "$(group)/cgroup.subtree_control"
}

@test "the process at fault is counted where its limit is, and a command's group goes as one" {
	create_sandbox '{"resources":{"memory":"64M"}}'
	pf exec "$ID" --json -- perl -e "$HOG" 128
	assert_status 137
	assert_json '.limit == "memory"'
	[ "$(value memory.events oom_kill)" -ge 1 ]
	pf exec "$ID" --json --memory 24M -- sh -c "sleep 300 & perl -e '$HOG' 64; echo survived"
	assert_status 137
	assert_json '.limit == "memory" and (.stdout | contains("survived") | not)'
	# memory.oom.group took the sleeper along.
	wait_for 5 eval '[ "$(pids_of | wc -w)" = 1 ]'
	inside echo alive
	assert_equal "$output" alive
}

@test "swap: none without a word, and as much as the file says" {
	[ "$(sed 1d /proc/swaps)" != "" ] || skip "no swap here"
	create_sandbox '{"resources":{"memory":"48M"}}'
	assert_equal "$(knob memory.swap.max)" 0
	pf exec "$ID" -- perl -e "$HOG" 72
	assert_status 137
	create_sandbox '{"resources":{"memory":"48M","memory_swap":"64M"}}'
	pf exec "$ID" -- perl -e "$HOG" 72
	assert_status 0
	# What was swapped out is still counted in the peak of the kernel or the counter of swap-outs.
	[ "$(knob memory.stat | awk '$1 == "pswpout" || $1 == "workingset_restore_anon" || $1 == "pgsteal" { n += $2 } END { print n + 0 }')" -gt 0 ]
}

@test "io: what goes through the page cache is held to its rate on the workspace's device" {
	mountpoint -q /mnt/disk || skip "needs a disk at /mnt/disk"
	STORE=/mnt/disk/store
	mkdir -p -m 700 "$STORE"
	create_sandbox '{"resources":{"memory":"64M","io":{"write_bps":"1M"}}}'
	local dev
	dev=$(mountpoint -d /mnt/disk)
	[[ "$(knob io.max)" == "$dev "*wbps=1048576* ]] || show "io.max: $(knob io.max)"
	local begin=$SECONDS
	inside sh -c 'head -c 6291456 /dev/zero >/workspace/file && sync /workspace/file'
	assert_status 0
	# Six seconds' worth, less what a burst may take: never at once.
	[ $((SECONDS - begin)) -ge 4 ] || show "6 MiB at 1 MiB/s in $((SECONDS - begin)) s"
	[ "$(knob io.stat | sed -n "s/^$dev .*wbytes=\([0-9]*\).*/\1/p")" -ge 6000000 ] || show "$(knob io.stat)"
	pinfold destroy "$ID"
	rm -rf "$STORE"
}

@test "cpu: more than the share is throttled, and pressure is told" {
	create_sandbox '{"resources":{"cpus":0.2}}'
	inside perl -e 'my $t = time + 2; 1 while time < $t'
	[ "$(value cpu.stat nr_throttled)" -gt 0 ]
	[ "$(sed -n 's/^some.*total=//p' "$(group)/cpu.pressure")" -gt 0 ]
}

@test "a paused sandbox is frozen in the kernel, whatever it forks, and thaws" {
	create_sandbox
	pf exec "$ID" -- sh -c 'sh -c "while :; do sh -c : & wait; done" >/dev/null 2>&1 &'
	pinfold pause "$ID"
	assert_equal "$(value cgroup.events frozen)" 1
	local before after
	before=$(value cpu.stat usage_usec)
	sleep 0.5
	after=$(value cpu.stat usage_usec)
	assert_equal "$after" "$before"
	pinfold resume "$ID"
	assert_equal "$(value cgroup.events frozen)" 0
	inside echo alive
	assert_equal "$output" alive
}

@test "destroy ends what forks as fast as it can, paused or not" {
	local how
	for how in running paused; do
		create_sandbox '{"resources":{"pids":60}}'
		pf exec "$ID" -- sh -c 'for i in 1 2 3 4; do setsid sh -c "f() { f & f & sleep 0.01; }; while :; do f; done" >/dev/null 2>&1 & done'
		[ "$how" = running ] || pinfold pause "$ID"
		pf destroy "$ID"
		assert_status 0
		assert_gone "$ID"
	done
}

@test "controllers that nobody had handed down from the root are, and again after the last sandbox" {
	local dir
	for dir in /sys/fs/cgroup/*/; do
		[ "$dir" = /sys/fs/cgroup/pinfold/ ] || ! grep -qwE 'io|cpuset' "$dir/cgroup.subtree_control" ||
			skip "$dir hands them further down, so nobody can take them back (systemd does for a service that delegates)"
	done
	rmdir /sys/fs/cgroup/pinfold 2>/dev/null || [ ! -e /sys/fs/cgroup/pinfold ] || show "left over: $(find /sys/fs/cgroup/pinfold -type d)"
	echo "-io -cpuset" >/sys/fs/cgroup/cgroup.subtree_control
	create_sandbox '{"resources":{"memory":"64M","cpuset":"0"}}'
	assert_equal "$(knob cpuset.cpus.effective)" 0
	pinfold destroy "$ID"
	assert_gone "$ID"
	create_sandbox '{"resources":{"cpuset":"1"}}'
	assert_equal "$(knob cpuset.cpus.effective)" 1
}

# In a part of the tree of its own, as in a container that was given one: outer N SCRIPT
part_of_tree() { # SCRIPT
	local dir="/sys/fs/cgroup/pinfold-part-$$"
	mkdir "$dir"
	bash -c 'echo $$ >"$0/cgroup.procs"; exec unshare -C -m bash -c "
		umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 99
		$1"' "$dir" "$1" >"$PF_DIR/part.out" 2>&1 || { cat "$PF_DIR/part.out" >&2; rmdir_all "$dir"; return 1; }
	rmdir_all "$dir"
}

rmdir_all() { find "$1" -depth -type d -exec rmdir {} +; }

@test "in a container: with processes at the top of its tree it is refused and the remedy named, which works" {
	config '{"resources":{"memory":"64M"}}'
	new_id
	part_of_tree "
		p='$PINFOLD --root $ROOT --store $STORE'
		\$p create $ID --config $CONFIG; echo first: \$?
		find /sys/fs/cgroup -mindepth 1 -type d | grep pinfold; echo looked
		mkdir /sys/fs/cgroup/self
		for p in \$(cat /sys/fs/cgroup/cgroup.procs); do echo \$p >/sys/fs/cgroup/self/cgroup.procs 2>/dev/null; done
		p='$PINFOLD --root $ROOT --store $STORE'
		\$p create $ID --config $CONFIG >/dev/null; echo second: \$?
		cat \$(find /sys/fs/cgroup/pinfold -path '*$ID/memory.max')
		\$p exec $ID -- echo inside
		\$p destroy $ID; echo third: \$?"
	output=$(<"$PF_DIR/part.out")
	assert_out "has processes of its own (remedy: move them"
	assert_out $'first: 125\nlooked\nsecond: 0\n67108864\ninside\nthird: 0'
}

@test "the keeper is counted where its caller was, the sandbox is not" {
	config '{"resources":{"memory":"64M"}}'
	new_id
	local dir="/sys/fs/cgroup/pinfold-caller-$$"
	mkdir "$dir"
	bash -c 'echo $$ >"$0/cgroup.procs"; shift; exec "$@"' "$dir" - "$PINFOLD" --root "$ROOT" --store "$STORE" create "$ID" \
		--config "$CONFIG" >/dev/null
	assert_equal "$(sed 's/.*:://' "/proc/$(state_of .pinfold.keeper)/cgroup")" "/pinfold-caller-$$"
	assert_equal "$(sed 's/.*:://' "/proc/$(state_of .pid)/cgroup")" "$(group | sed 's|^/sys/fs/cgroup||')/init"
	pinfold destroy "$ID"
	wait_for 5 rmdir "$dir"
}

@test "stats: numbers of the one tree, limits and peaks among them" {
	create_sandbox '{"resources":{"memory":"64M","pids":30}}'
	inside perl -e "$HOG" 8
	pf stats "$ID"
	assert_json '.memory.limit == 67108864 and .pids.limit == 30 and .cpu.usage_us > 0 and .memory.current > 0'
}

@test "a workspace with a size is kept while the sandbox runs, and comes back: the files' owners are those on the disk" {
	create_sandbox '{"filesystem":{"size":"64M"}}'
	inside sh -c 'echo kept >/workspace/f && chown 1000:1000 /workspace/f'
	pf snapshot "$ID"
	assert_status 0
	inside sh -c 'echo later >/workspace/g'
	pinfold destroy "$ID"
	pinfold create "$ID" --config "$CONFIG" --from latest >/dev/null
	inside sh -c 'cat /workspace/f; stat -c %u:%g /workspace/f; ls /workspace'
	assert_equal "$output" $'kept\n1000:1000\nf'
}
