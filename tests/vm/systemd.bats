# --systemd-cgroup with a real systemd as process 1 (scripts/test-vm --systemd), as kubelet's nodes have it.
# timeout: 400
load ../lib/common

setup_file() {
	[ -d /run/systemd/system ] || skip "needs systemd as process 1 (scripts/test-vm --systemd)"
	command -v busybox >/dev/null || skip "needs busybox-static"
	export ROOTFS="$BATS_FILE_TMPDIR/rootfs"
	mkdir -p "$ROOTFS"/{bin,proc,dev,sys,tmp,etc}
	cp "$(command -v busybox)" "$ROOTFS/bin/"
	local a
	for a in sh sleep cat echo true; do ln -s busybox "$ROOTFS/bin/$a"; done
	(cd "$BATS_FILE_TMPDIR" && "$PINFOLD" spec)
}

# systemd made the slice for the scopes, and keeps it.
teardown_file() {
	[ ! -d /run/systemd/system ] || systemctl stop pinfoldtest.slice
}

setup() {
	common_setup
	BUNDLE="$PF_DIR/bundle"
	mkdir "$BUNDLE"
	new_id
	UNIT="pf-$ID.scope"
	jq --arg r "$ROOTFS" --arg g "pinfoldtest.slice:pf:$ID" '.root = {path: $r} | .process.terminal = false
		| .process.args = ["sleep", "1000"] | .linux.cgroupsPath = $g
		| .linux.resources += {memory: {limit: 67108864}, pids: {limit: 20}, cpu: {quota: 20000, period: 100000}}' \
		"$BATS_FILE_TMPDIR/config.json" >"$BUNDLE/config.json"
}
teardown() {
	[ -z "${ID:-}" ] || "$PINFOLD" --root "$ROOT" --systemd-cgroup delete --force "$ID" 2>/dev/null || true
	common_teardown
}

start_it() {
	pinfold --systemd-cgroup create --bundle "$BUNDLE" --pid-file "$PF_DIR/pid" "$ID" </dev/null >"$PF_DIR/out" 2>&1 ||
		{ cat "$PF_DIR/out" >&2; return 1; }
	pinfold --systemd-cgroup start "$ID"
	PID=$(<"$PF_DIR/pid")
	GROUP="/sys/fs/cgroup/pinfoldtest.slice/$UNIT"
}

@test "the container lives in a scope of systemd's, with its limits both there and in the kernel" {
	start_it
	assert_equal "$(sed 's/^0:://' "/proc/$PID/cgroup")" "/pinfoldtest.slice/$UNIT"
	assert_equal "$(systemctl show -P ActiveState "$UNIT")" active
	assert_equal "$(systemctl show -P MemoryMax "$UNIT") $(systemctl show -P TasksMax "$UNIT")" "67108864 20"
	assert_equal "$(cat "$GROUP/memory.max") $(cat "$GROUP/pids.max") $(cat "$GROUP/cpu.max")" "67108864 20 20000 100000"
}

@test "systemd's reload takes nothing back, update tells it too" {
	start_it
	pinfold --systemd-cgroup update --memory 33554432 --pids-limit 30 "$ID"
	assert_equal "$(cat "$GROUP/memory.max") $(cat "$GROUP/pids.max")" "33554432 30"
	systemctl daemon-reload
	assert_equal "$(cat "$GROUP/memory.max") $(cat "$GROUP/pids.max")" "33554432 30"
	assert_equal "$(systemctl show -P MemoryMax "$UNIT")" 33554432
}

@test "exec, pause and delete, and the scope is gone" {
	start_it
	pf --systemd-cgroup exec "$ID" cat /proc/self/cgroup
	assert_out "0::/"
	pinfold --systemd-cgroup pause "$ID"
	grep -q 'frozen 1' "$GROUP/cgroup.events"
	pinfold --systemd-cgroup delete --force "$ID"
	wait_for 5 eval '! systemctl is-active -q "$UNIT"'
	[ ! -e "$GROUP" ]
}

@test "beside systemd a session's sandbox has its own tree, and keeps its limits over a reload" {
	create_sandbox '{"resources":{"memory":"64M","cpuset":"0","cpus":0.5}}'
	local group
	group=$(find /sys/fs/cgroup/pinfold -mindepth 1 -maxdepth 1 -name "*$ID")
	systemctl daemon-reload
	assert_equal "$(cat "$group/memory.max") $(cat "$group/cpuset.cpus.effective") $(cat "$group/cpu.max")" "67108864 0 50000 100000"
	pf exec "$ID" -- cat /proc/self/cgroup
	assert_status 0
}
