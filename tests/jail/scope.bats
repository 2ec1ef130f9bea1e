# Limits of an ordinary user by a scope of his own systemd. None runs where tests do; one that behaves like it answers
# on a bus of the test's own (tests/interop/mock_systemd.py).
load lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() {
	jail_setup
	need dbus-daemon
	/usr/bin/python3 -c 'import dbus, gi' 2>/dev/null || skip "needs python3-dbus and python3-gi"
	TREE=/sys/fs/cgroup
	[ -e "$TREE/cgroup.procs" ] || TREE=/sys/fs/cgroup/unified
	[ -e "$TREE/cgroup.procs" ] || skip "needs a cgroup v2 tree"
	# The bus wants to know the account of whoever comes.
	JAIL_UID=$(id -u nobody)
	mkdir -p "$PF_DIR/user/run/systemd"
	chown -R "$JAIL_UID:$JAIL_UID" "$PF_DIR/user"
	cat >"$PF_DIR/bus.conf" <<-END
		<busconfig><type>session</type><listen>unix:path=$PF_DIR/bus</listen><auth>EXTERNAL</auth>
		<policy context="default"><allow user="*"/><allow send_destination="*"/><allow own="*"/>
		<allow receive_sender="*"/></policy></busconfig>
	END
	dbus-daemon --config-file="$PF_DIR/bus.conf" --nofork --nopidfile >/dev/null 2>&1 3>&- &
	BUS=$!
	wait_for 10 test -S "$PF_DIR/bus"
	chmod 777 "$PF_DIR/bus"
	/usr/bin/python3 "$BATS_TEST_DIRNAME/../interop/mock_systemd.py" "unix:path=$PF_DIR/bus" "$TREE" \
		"$PF_DIR/calls" 3>&- &
	MOCK=$!
	wait_for 20 test -s "$PF_DIR/calls"
	# Beside the program, as it is installed.
	PREFIX_DIR=$PF_DIR/prefix
	mkdir -p "$PREFIX_DIR/bin" "$PREFIX_DIR/libexec/pinfold"
	cp "$BUILD/bin/pinfold-jail" "$PREFIX_DIR/bin"
	cp "$BUILD/libexec/pinfold/pinfold-systemd" "$PREFIX_DIR/libexec/pinfold"
	chmod -R go+rX "$PREFIX_DIR"
	JAIL_BIN=$PREFIX_DIR/bin
	AS=user
	WITH=("XDG_RUNTIME_DIR=$PF_DIR/user/run" "DBUS_SESSION_BUS_ADDRESS=unix:path=$PF_DIR/bus")
}
teardown() {
	local pid
	for pid in ${MOCK:-} ${BUS:-}; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	find "${TREE:-/nonexistent}/app.slice" -depth -type d -name 'pinfold-jail-*' -exec rmdir {} + 2>/dev/null || true
	rmdir "${TREE:-/nonexistent}/app.slice" 2>/dev/null || true
	jail_teardown
}

asked() { # JQ-EXPRESSION over all calls
	jq -es "$1" "$PF_DIR/calls" >/dev/null || show "expected of the calls: $1" "$(cat "$PF_DIR/calls")"
}

@test "a user's limits are asked of his own systemd, around pinfold-jail and all that is below it" {
	pj --memory 100M --pids 10 -- echo fine
	assert_status 0
	assert_equal "$output" fine
	asked 'map(select(.call == "start")) | length == 1 and (.[0].unit | startswith("pinfold-jail-")) and
		(.[0].properties | .MemoryMax == 104857600 and .MemorySwapMax == 0 and .TasksMax == 13 and
			.OOMPolicy == "continue" and .Slice == "app.slice")'
}

@test "so are the limits of a profile; what is given beside it wins" {
	echo '{"resources":{"memory":"100M","cpus":0.5,"pids":10}}' >"$PF_DIR/p.json"
	pj --pids 20 --profile "$PF_DIR/p.json" -- true
	asked 'map(select(.call == "start")) | length == 1 and (.[0].properties | .MemoryMax == 104857600 and
		.TasksMax == 23 and .CPUQuotaPerSecUSec == 500000)'
}

@test "what systemd answers is not believed: where its cgroup holds no limit another way is taken, and said" {
	[ ! -e "$TREE/memory.pressure" ] || ! grep -qw memory "$TREE/cgroup.controllers" ||
		skip "the memory controller is on cgroup v2 here"
	pj -v --memory 100M -- true
	assert_status 0
	[[ "$stderr" == *"kept by RLIMIT_DATA"* ]] || show "no word of the other way"
	pj --cpus 0.5 -- true
	assert_status 125
	asked 'map(select(.properties.CPUQuotaPerSecUSec == 500000)) | length == 1'
}

@test "without limits systemd is not asked" {
	pj -- true
	assert_status 0
	asked 'map(select(.call == "start")) | length == 0'
}
