# --systemd-cgroup: cgroups that systemd makes. What systemd is told is seen by one that answers in its place on a
# bus of the test's own; what becomes of it by a real one, which runs in namespaces and a cgroup of the test's own.
# timeout: 120
load ../lib/common
load bundle

setup() {
	common_setup
	bundle_setup
	# A slice of the test's own, found by bundle_teardown.
	SLICE="pinfold-test-$$.slice"
	IN_SLICE="/pinfold.slice/pinfold-test.slice/$SLICE"
}
teardown() {
	local pid
	# What is left ends while there still is somebody to ask for its scope.
	for id in $(cat "$PF_DIR/ids"); do systemd_pinfold delete --force "$id" >/dev/null 2>&1 || true; done
	for pid in ${MOCK:-} ${BUS:-}; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	[ -z "${BOOTED:-}" ] || { kill -9 "$BOOTED"; wait "$BOOTED" || true; } 2>/dev/null
	local left=0
	container_teardown || left=1
	find /sys/fs/cgroup -depth -type d -path "*/pinfold.slice*" -exec rmdir {} \; 2>/dev/null || true
	return "$left"
}

# Boots the machine's own systemd as process 1 of a pid namespace, with nothing to start, in the cgroup $SD. All that
# it sees is read-only but this test's directory.
boot_systemd() {
	[ -x /lib/systemd/systemd ] || skip "needs systemd"
	local tree=/sys/fs/cgroup
	[ -e "$tree/cgroup.procs" ] || tree=/sys/fs/cgroup/unified
	[ -e "$tree/cgroup.procs" ] || skip "needs a cgroup v2 tree"
	SD="$tree/pinfold-test-$$/systemd"
	mkdir -p "$SD"
	cat >"$PF_DIR/boot" <<-'END'
		echo $$ >"$2/cgroup.procs"
		exec unshare -C -m -p -f -n -u -i --kill-child --propagation private sh -ec '
			mount --bind "$1" "$1"; mount -o remount,bind,ro /
			umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
			mount -t proc proc /proc; mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
			mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/system
			printf "[Unit]\\nDefaultDependencies=no\\n" >/run/systemd/system/idle.target
			exec env -i container=other PATH="$PATH" /lib/systemd/systemd --system --unit=idle.target --show-status=no' sh "$1"
	END
	sh "$PF_DIR/boot" "$PF_DIR" "$SD" </dev/null >"$PF_DIR/boot.log" 2>&1 3>&- &
	BOOTED=$!
	wait_for 20 grep -qs . "$SD/init.scope/cgroup.procs"
	INIT=$(head -1 "$SD/init.scope/cgroup.procs")
	wait_for 20 test -S "/proc/$INIT/root/run/systemd/private"
}

beside_systemd() {
	nsenter -t "$INIT" -m -p -u -i -n -C --wd="$PF_DIR" "$@"
}

need_bus() {
	need dbus-daemon
	/usr/bin/python3 -c 'import dbus, gi' 2>/dev/null || skip "needs python3-dbus and python3-gi"
	TREE=/sys/fs/cgroup
	[ -e "$TREE/cgroup.procs" ] || TREE=/sys/fs/cgroup/unified
	[ -e "$TREE/cgroup.procs" ] || skip "needs a cgroup v2 tree"
	cat >"$PF_DIR/bus.conf" <<-END
		<busconfig><type>session</type><listen>unix:path=$PF_DIR/bus</listen><auth>EXTERNAL</auth>
		<policy context="default"><allow send_destination="*"/><allow own="*"/><allow receive_sender="*"/></policy>
		</busconfig>
	END
	dbus-daemon --config-file="$PF_DIR/bus.conf" --nofork --nopidfile >/dev/null 2>&1 3>&- &
	BUS=$!
	wait_for 10 test -S "$PF_DIR/bus"
	/usr/bin/python3 "$BATS_TEST_DIRNAME/mock_systemd.py" "unix:path=$PF_DIR/bus" "$TREE" "$PF_DIR/calls" 3>&- &
	MOCK=$!
	wait_for 20 test -s "$PF_DIR/calls"
}

# pinfold where systemd runs: in a mount namespace of its own, with its mark in /run and our bus as the system's.
systemd_pinfold() {
	unshare -m --propagation private sh -ec 'd=$1; shift
		mount -t tmpfs run /run; mkdir -p /run/systemd/system
		export DBUS_SYSTEM_BUS_ADDRESS="unix:path=$d/bus"; exec "$@"' sh \
		"$PF_DIR" "$PINFOLD" --root "$ROOT" --store "$STORE" --systemd-cgroup "$@"
}

spf() { # as pf
	status=0
	output=$(systemd_pinfold "$@" 2>"$PF_DIR/stderr") || status=$?
	stderr=$(<"$PF_DIR/stderr")
}

asked() { # JQ-EXPRESSION over all calls
	jq -es "$1" "$PF_DIR/calls" >/dev/null || show "expected of the calls: $1" "$(cat "$PF_DIR/calls")"
}

@test "where systemd does not run --systemd-cgroup is refused with the remedy" {
	[ ! -d /run/systemd/system ] || skip "systemd runs here"
	edit '.linux.cgroupsPath = "system.slice:pinfold:x"'
	new_id
	pf --systemd-cgroup run --bundle "$BUNDLE" "$ID"
	assert_status 1
	assert_err "systemd does not run on this host"
	[ ! -e "$ROOT/$ID" ]
}

@test "a delegated scope with the limits as its properties; update tells them, delete stops it" {
	need_bus
	local name="x$$" limits='{memory: {limit: 67108864}, pids: {limit: 40}}'
	edit '.linux.cgroupsPath = $s + ":pinfold:" + $n | .linux.resources += '"$limits" --arg n "$name" --arg s "$SLICE"
	script 'exec sleep 1000'
	new_id
	systemd_pinfold create --bundle "$BUNDLE" --pid-file "$PF_DIR/pid" "$ID" </dev/null >"$PF_DIR/out" 2>&1
	PID=$(<"$PF_DIR/pid")
	asked '.[1] | .call == "start" and .unit == "pinfold-'"$name"'.scope" and .mode == "fail"'
	asked '.[1].properties | .Slice == "'"$SLICE"'" and .Delegate and (.DefaultDependencies | not) and .TasksMax == 40
		and (.MemoryMax // .MemoryLimit) == 67108864 and .CollectMode == "inactive-or-failed"'
	grep -q "^0::$IN_SLICE/pinfold-$name.scope$" "/proc/$PID/cgroup"
	# The process that held the scope open is gone, and the container's own is the only one there.
	assert_equal "$(cat "$TREE$IN_SLICE/pinfold-$name.scope/cgroup.procs")" "$PID"
	systemd_pinfold start "$ID"
	spf exec "$ID" cat /proc/self/cgroup
	assert_status 0
	spf events --stats "$ID"
	assert_json '.data.pids.limit == 40'
	systemd_pinfold update --pids-limit 50 --cpu-quota 25500 --cpu-period 50000 "$ID"
	asked '.[-1] | .call == "set" and .runtime and .properties.TasksMax == 50 and .properties.CPUQuotaPerSecUSec == 510000
		and .properties.CPUQuotaPeriodUSec == 50000'
	systemd_pinfold delete --force "$ID"
	asked '.[-1].call == "stop"'
	[ -z "$(find /sys/fs/cgroup -name "*pinfold-$name*")" ]
	# One whose systemd does not answer any more goes as well.
	new_id
	systemd_pinfold create --bundle "$BUNDLE" "$ID" </dev/null >"$PF_DIR/out" 2>&1
	kill "$MOCK"
	wait "$MOCK" || true
	spf delete --force "$ID"
	assert_status 0
	assert_err warning
	[ -z "$(find /sys/fs/cgroup -name "*pinfold-$name*")" ]
}

@test "what systemd refuses is told, and nothing is left" {
	need_bus
	local unit
	for unit in refused failing; do
		edit '.linux.cgroupsPath = ":pinfold:'$unit'"'
		new_id
		spf run --bundle "$BUNDLE" "$ID"
		assert_status 1
		[ "$unit" = failing ] || assert_err "Unit exists already"
		[ "$unit" = refused ] || assert_err "systemd says: failed"
		[ ! -e "$ROOT/$ID" ]
	done
	edit '.linux.cgroupsPath = "/not/for/systemd"'
	spf run --bundle "$BUNDLE" "$ID"
	assert_status 1
	assert_err "slice:prefix:name"
	# A mistake behind the scope's start ends it again.
	edit '.linux.cgroupsPath = ":pinfold:y'$$'" | .process.args = ["nosuch"]'
	spf run --bundle "$BUNDLE" "$ID"
	assert_status 1
	assert_err nosuch
	asked '.[-1].call == "stop"'
	[ -z "$(find /sys/fs/cgroup -name "*y$$*")" ]
}

@test "a real systemd: the scope is there, delegated, ours alone, and gone after delete" {
	boot_systemd
	local with="" pinfold="$PINFOLD --root $ROOT"
	if grep -q pids "$SD/cgroup.controllers" && grep -q memory "$SD/cgroup.controllers"; then
		with='| .linux.resources += {memory: {limit: 67108864}, pids: {limit: 40}}'
	fi
	edit '.linux.cgroupsPath = "pftest-x.slice:pinfold:real"'"$with"
	script 'exec sleep 1000'
	# shellcheck disable=SC2086
	beside_systemd $pinfold --systemd-cgroup create --bundle "$BUNDLE" c </dev/null >"$PF_DIR/out" 2>&1
	beside_systemd $pinfold start c
	output=$(beside_systemd systemctl show pinfold-real.scope -p ControlGroup,Delegate,ActiveState,Slice,Description,TasksMax,MemoryMax)
	assert_out "ControlGroup=/pftest.slice/pftest-x.slice/pinfold-real.scope"
	assert_out Delegate=yes
	assert_out ActiveState=active
	assert_out "Description=pinfold container c"
	[ -z "$with" ] || { assert_out TasksMax=40; assert_out MemoryMax=67108864; }
	assert_equal "$(grep -c . "$SD/pftest.slice/pftest-x.slice/pinfold-real.scope/cgroup.procs")" 1
	if [ -n "$with" ]; then
		beside_systemd $pinfold update --pids-limit 50 c
		# It writes its own idea of them again.
		beside_systemd systemctl daemon-reload
		assert_equal "$(cat "$SD/pftest.slice/pftest-x.slice/pinfold-real.scope/pids.max")" 50
	fi
	assert_equal "$(beside_systemd $pinfold exec c echo in)" in
	beside_systemd $pinfold delete --force c
	output=$(beside_systemd systemctl show pinfold-real.scope -p LoadState)
	assert_equal "$output" LoadState=not-found
	[ ! -e "$SD/pftest.slice/pftest-x.slice/pinfold-real.scope" ]
	# One that ends by itself is systemd's to collect.
	script 'exit 3'
	status=0
	beside_systemd $pinfold --systemd-cgroup run --bundle "$BUNDLE" c || status=$?
	assert_status 3
	output=$(beside_systemd systemctl list-units --all --plain --no-legend 'pinfold-*')
	assert_equal "$output" ""
}
