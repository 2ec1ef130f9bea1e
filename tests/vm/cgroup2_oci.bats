# OCI bundles on cgroup v2 alone, as scripts/test-vm boots it: resources, device filter, update, run control.
# timeout: 400
load ../lib/common

setup_file() {
	[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || skip "needs cgroup v2 alone (make test-vm)"
	command -v busybox >/dev/null || skip "needs busybox-static"
	export ROOTFS="$BATS_FILE_TMPDIR/rootfs"
	mkdir -p "$ROOTFS"/{bin,proc,dev,sys,tmp,huge,etc}
	cp "$(command -v busybox)" "$ROOTFS/bin/"
	"$ROOTFS/bin/busybox" --install -s "$ROOTFS/bin"
	# Absolute links of --install lead to where it was called; here to the one program.
	local l
	for l in "$ROOTFS"/bin/*; do [ -L "$l" ] && ln -sf busybox "$l"; done
	(cd "$BATS_FILE_TMPDIR" && "$PINFOLD" spec)
}

setup() {
	common_setup
	BUNDLE="$PF_DIR/bundle"
	mkdir "$BUNDLE"
	GROUP="/pinfold-vm-$$/$RANDOM"
	jq --arg r "$ROOTFS" --arg g "$GROUP" '.root = {path: $r, readonly: false} | .process.terminal = false
		| .linux.cgroupsPath = $g' "$BATS_FILE_TMPDIR/config.json" >"$BUNDLE/config.json"
}

teardown() {
	common_teardown
	find /sys/fs/cgroup -depth -type d -path "*/pinfold-vm-$$*" -exec rmdir {} + 2>/dev/null || true
}

edit() { jq "$1" "$BUNDLE/config.json" >"$BUNDLE/new" && mv "$BUNDLE/new" "$BUNDLE/config.json"; }
knob() { cat "/sys/fs/cgroup$GROUP/$1"; }
value() { knob "$1" | sed -n "s/^$2[ =]//p"; }

# Runs the bundle to its end.
run_bundle() { # SCRIPT
	edit ".process.args = [\"sh\", \"-c\", $(jq -Rs . <<<"$1")]"
	new_id
	pf run --bundle "$BUNDLE" "$ID"
}

start_bundle() { # SCRIPT
	edit ".process.args = [\"sh\", \"-c\", $(jq -Rs . <<<"$1")]"
	new_id
	pinfold create --bundle "$BUNDLE" --pid-file "$PF_DIR/pid" "$ID" </dev/null >"$PF_DIR/out" 2>&1 || { cat "$PF_DIR/out" >&2; return 1; }
	PID=$(<"$PF_DIR/pid")
	pinfold start "$ID"
}

@test "linux.resources arrives in the files of v2, fields of v1 converted" {
	edit '.linux.resources += {
		memory: {limit: 67108864, reservation: 33554432, swap: 83886080},
		cpu: {shares: 512, quota: 50000, period: 200000, cpus: "0-1", mems: "0"},
		pids: {limit: 20},
		blockIO: {throttleWriteBpsDevice: [{major: 254, minor: 16, rate: 2097152}], throttleReadIOPSDevice: [{major: 254, minor: 16, rate: 500}]},
		hugepageLimits: [{pageSize: "2MB", limit: 4194304}],
		unified: {"memory.high": "60000000", "cpu.weight.nice": "5"}}'
	start_bundle 'sleep 1000'
	assert_equal "$(knob memory.max) $(knob memory.low) $(knob memory.swap.max)" "67108864 33554432 16777216"
	assert_equal "$(knob memory.high)" 59998208
	assert_equal "$(knob cpu.max)" "50000 200000"
	assert_equal "$(knob cpuset.cpus.effective) $(knob cpuset.mems.effective)" "0-1 0"
	assert_equal "$(knob pids.max)" 20
	assert_equal "$(knob hugetlb.2MB.max)" 4194304
	[[ "$(knob io.max)" == "254:16 "*wbps=2097152*riops=500* ]] || show "io.max: $(knob io.max)"
	knob cgroup.procs | grep -qx "$PID"
}

@test "what v2 cannot do is an error that names the field, and nothing stays" {
	edit '.linux.resources.unified = {"memory.nosuchfile": "1"}'
	run_bundle true
	assert_status 1
	assert_err memory.nosuchfile
	[ ! -e "/sys/fs/cgroup$GROUP" ] || show "$GROUP is left"
	edit '.linux.resources = {unified: {"../cgroup.procs": "0"}}'
	run_bundle true
	assert_status 1
	[ ! -e "/sys/fs/cgroup$GROUP" ] || show "$GROUP is left"
	edit '.linux.resources = {cpu: {cpus: "77"}}'
	run_bundle true
	assert_status 1
	assert_err cpus
	[ ! -e "/sys/fs/cgroup$GROUP" ] || show "$GROUP is left"
}

@test "memory: the container is killed at its limit" {
	edit '.linux.resources.memory = {limit: 16777216, swap: 16777216}'
	start_bundle 'sleep 1; head -c 50000000 /dev/zero | tail; echo status $?; sleep 1000'
	wait_for 20 eval '[ "$(value memory.events oom_kill)" -ge 1 ]'
	pf events --stats "$ID"
	assert_json '.data.memory.usage.limit == 16777216'
}

@test "huge pages beyond the limit are refused" {
	[ "$(cat /proc/sys/vm/nr_hugepages)" -ge 4 ] || skip "no huge pages here"
	edit '.linux.resources.hugepageLimits = [{pageSize: "2MB", limit: 2097152}]
		| .mounts += [{destination: "/huge", type: "hugetlbfs", source: "none", options: ["pagesize=2M"]}]'
	run_bundle 'fallocate -l 2097152 /huge/a && echo one; fallocate -l 4194304 /huge/b && echo two; exit 0'
	assert_out one
	refute_out two
}

@test "device filter: what is not allowed cannot be opened, though its node can be made" {
	# 254:0 is a disk of this machine; 1:5 is /dev/zero.
	edit '.process.capabilities |= with_entries(.value += ["CAP_MKNOD"])'
	run_bundle 'head -c 1 /dev/zero >/dev/null && echo zero
		mknod /tmp/disk b 254 0 2>/dev/null; head -c 1 /tmp/disk >/dev/null 2>&1 && echo disk
		mknod /tmp/port c 1 4 2>/dev/null; head -c 1 /tmp/port >/dev/null 2>&1 && echo port; exit 0'
	assert_equal "$output" zero
	rm -f "$ROOTFS/tmp/disk" "$ROOTFS/tmp/port"
	edit '.linux.resources.devices += [{allow: true, type: "b", major: 254, minor: 0, access: "rm"}]'
	run_bundle 'mknod /tmp/disk b 254 0; head -c 1 /tmp/disk >/dev/null && echo read; (: >/tmp/disk) 2>/dev/null && echo written; exit 0'
	assert_equal "$output" read
	rm -f "$ROOTFS/tmp/disk"
}

@test "update changes every limit of a live container; one that is refused leaves the others as they were" {
	edit '.linux.resources.memory = {limit: 67108864, swap: 67108864} | .linux.resources.pids = {limit: 20}'
	start_bundle 'sleep 1000'
	pf update --memory 33554432 --memory-swap 50331648 --pids-limit 40 --cpu-quota 20000 --cpu-period 100000 --cpu-share 2048 \
		--cpuset-cpus 1 "$ID"
	assert_status 0
	assert_equal "$(knob memory.max) $(knob memory.swap.max)" "33554432 16777216"
	assert_equal "$(knob pids.max) $(knob cpu.max) $(knob cpuset.cpus.effective)" "40 20000 100000 1"
	pf update --memory 50331648 --cpuset-cpus 77 "$ID"
	assert_status 1
	assert_equal "$(knob memory.max) $(knob pids.max)" "33554432 40"
	pf update --resources - "$ID" <<<'{"unified":{"memory.high":"20971520"},"pids":{"limit":-1}}'
	assert_status 0
	assert_equal "$(knob memory.high) $(knob pids.max)" "20971520 max"
}

@test "pause, resume, kill --all and delete --force act on everything in the group" {
	start_bundle 'sh -c "while :; do sh -c : ; done" & sh -c "setsid sleep 1000" & wait'
	wait_for 10 eval '[ "$(knob cgroup.procs | wc -l)" -ge 3 ]'
	pinfold pause "$ID"
	assert_equal "$(value cgroup.events frozen)" 1
	assert_equal "$(pinfold state "$ID" | jq -r .status)" paused
	pinfold resume "$ID"
	assert_equal "$(value cgroup.events frozen)" 0
	pinfold kill --all "$ID" KILL
	wait_for 10 eval '[ "$(value cgroup.events populated)" = 0 ]'
	pinfold delete "$ID"
	[ ! -e "/sys/fs/cgroup$GROUP" ]
	start_bundle 'sleep 1000'
	pinfold pause "$ID"
	pf delete --force "$ID"
	assert_status 0
	[ ! -e "/sys/fs/cgroup$GROUP" ] && [ ! -d "/proc/$PID" ]
}

@test "the container sees its own part of the tree, and cannot raise its limits there" {
	edit '.linux.resources.memory = {limit: 67108864}'
	run_bundle 'cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max; echo max >/sys/fs/cgroup/memory.max; echo $?; mkdir /sys/fs/cgroup/x; echo $?' 
	assert_out $'0::/\n67108864'
	[ "$(tail -n 2 <<<"$output" | xargs)" = "1 1" ] || show "it wrote"
}

@test "exec joins the container's group, also when there are groups below it" {
	edit '(.mounts[] | select(.type == "cgroup") | .options) = ["rw", "nosuid", "noexec", "nodev"]
		| .linux.resources.pids = {limit: 50}'
	start_bundle 'mkdir /sys/fs/cgroup/inner; echo $$ >/sys/fs/cgroup/inner/cgroup.procs; echo +pids >/sys/fs/cgroup/cgroup.subtree_control; exec sleep 1000'
	wait_for 10 eval '[ "$(knob cgroup.procs 2>/dev/null)" = "" ] && [ -n "$(knob inner/cgroup.procs 2>/dev/null)" ]' ||
		show "$(<"$PF_DIR/out")" "$(knob cgroup.procs)"
	pf exec "$ID" cat /proc/self/cgroup
	assert_status 0
	assert_out "0::/"
	pf delete --force "$ID"
	assert_status 0
	[ ! -e "/sys/fs/cgroup$GROUP" ]
}

@test "a cgroupsPath whose parent has processes: without limits it works, with them the error says why" {
	local parent="/sys/fs/cgroup/pinfold-vm-$$"
	mkdir -p "$parent"
	sleep 1000 3>&- &
	local sleeper=$!
	echo "$sleeper" >"$parent/cgroup.procs"
	edit '.linux.resources.memory = {limit: 67108864}'
	run_bundle true
	assert_status 1
	assert_err "has processes of its own"
	edit 'del(.linux.resources.memory)'
	run_bundle 'echo ran'
	assert_equal "$output" ran
	kill "$sleeper"
	wait "$sleeper" || true
}
