# pinfold-jail for an ordinary user with a systemd of his own (scripts/test-vm --systemd): limits by a scope that the kernel
# keeps; and under the AppArmor profile that is shipped, where AppArmor knows user namespaces.
# timeout: 500
load ../lib/common

setup_file() {
	[ -d /run/systemd/system ] || skip "needs systemd as process 1 (scripts/test-vm --systemd)"
	[ -n "${VM_TESTS:-}" ] || skip "adds a user: in the machine of scripts/test-vm alone"
	local i
	# As it is installed.
	mkdir -p /usr/local/libexec /usr/local/share/pinfold
	cp -a "$BUILD/bin/pinfold-jail" "$BUILD/bin/pinfold-bwrap" /usr/local/bin/
	cp -a "$BUILD/libexec/pinfold" /usr/local/libexec/
	cp -a "$BATS_TEST_DIRNAME/../../deploy/apparmor" /usr/local/share/pinfold/
	chmod -R go+rX /usr/local
	useradd -m jailer
	# He is nowhere logged in: his systemd runs because it is to linger.
	loginctl enable-linger jailer
	export JAILER=$(id -u jailer)
	for ((i = 0; i < 600; i++)); do
		[ -S "/run/user/$JAILER/bus" ] && break
		sleep 0.1
	done
	[ -S "/run/user/$JAILER/bus" ] || { systemctl status "user@$JAILER.service" >&2; return 1; }
}
teardown_file() {
	[ -n "${JAILER:-}" ] || return 0
	loginctl disable-linger jailer
	systemctl stop "user@$JAILER.service"
}
setup() {
	PF_DIR=$(mktemp -d)
	chmod 777 "$PF_DIR"
}
teardown() { rm -rf "$PF_DIR"; }

jail() { # as the user
	status=0
	output=$(cd /home/jailer && setpriv --reuid "$JAILER" --regid "$JAILER" --clear-groups -- env -i HOME=/home/jailer PATH=/usr/local/bin:/usr/bin:/bin \
		XDG_RUNTIME_DIR="/run/user/$JAILER" "$@" 2>"$PF_DIR/stderr" 3>&-) || status=$?
	stderr=$(<"$PF_DIR/stderr")
}

@test "--memory, --pids and --cpus of a user who lingers are in his scope's files, and pinfold-jail says that they are" {
	jail pinfold-jail -v --memory 64M --pids 20 --cpus 0.5 --ro /sys/fs/cgroup -- sh -c 'sleep 2' &
	local job=$! dir="" i
	for ((i = 0; i < 300 && ${#dir} == 0; i++)); do
		dir=$(find "/sys/fs/cgroup/user.slice/user-$JAILER.slice" -type d -name 'pinfold-jail-*.scope' | head -n 1)
		sleep 0.1
	done
	[ -n "$dir" ] || show "no scope"
	assert_equal "$(cat "$dir/memory.max") $(cat "$dir/memory.swap.max") $(cat "$dir/pids.max")" "67108864 0 23"
	assert_equal "$(cat "$dir/cpu.max")" "50000 100000"
	wait "$job"
	jail pinfold-jail -v --memory 64M -- true
	assert_status 0
	assert_err "kept by a scope of your systemd"
}

@test "the kernel keeps --memory: what takes more is killed, 137, and its user's systemd goes on" {
	jail pinfold-jail --json --memory 64M -- sh -c 'exec head -c 300M /dev/zero | tail'
	assert_status 137
	assert_json '.limit == "memory"'
	# Files in memory count too, which no resource limit does.
	jail pinfold-jail --memory 64M -- sh -c 'head -c 200M /dev/zero >/tmp/f; echo done'
	[ "$status" != 0 ] || [ "$output" != done ] || show "200 MB in a limit of 64"
	jail systemctl --user is-system-running
	[[ "$output" == running || "$output" == degraded ]] || show "his systemd: $output"
}

@test "the kernel keeps --pids for all of the jail" {
	jail pinfold-jail --pids 10 -- sh -c 'n=0; while [ $n -lt 30 ]; do sleep 5 & n=$((n + 1)); done; wait' || true
	assert_err "fork"
	jail pinfold-jail --pids 10 -- sh -c 'for i in 1 2 3 4 5; do sleep 0.1 & done; wait; echo fine'
	assert_status 0
	assert_equal "$output" fine
}

@test "nothing of a jail stays in his slice" {
	local i left
	for ((i = 0; i < 100; i++)); do
		left=$(find "/sys/fs/cgroup/user.slice/user-$JAILER.slice" -type d -name 'pinfold-jail-*.scope')
		[ -n "$left" ] || return 0
		sleep 0.1
	done
	show "left: $left"
}

# ---- AppArmor ----

need_apparmor() {
	[ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] || skip "needs a kernel with AppArmor"
	grep -qs userns_create /sys/kernel/security/apparmor/features/namespaces/mask ||
		skip "this kernel's AppArmor knows no user namespaces"
	printf 'abi <abi/4.0>,\nprofile x /x flags=(unconfined) {\n\tuserns,\n}\n' >"$PF_DIR/probe"
	apparmor_parser -Q "$PF_DIR/probe" 2>/dev/null || skip "needs AppArmor 4 (this parser knows no userns rule)"
}
shipped=/usr/local/share/pinfold/apparmor/pinfold-jail

works() {
	jail pinfold-jail -- sh -c 'cat /proc/self/attr/current; id -u'
	assert_status 0
	assert_equal "$(tail -n 1 <<<"$output")" "$JAILER"
	jail pinfold-jail --memory 64M --pids 20 --rw . --allow example.com -- true
	assert_status 0
	jail pinfold-bwrap --ro-bind / / --unshare-all echo in
	assert_equal "$output" in
}

@test "a jail works under the AppArmor profile that is shipped; under one without its rule pinfold-jail names what to add" {
	need_apparmor
	printf 'abi <abi/4.0>,\nprofile pinfold-jail /usr/local/bin/pinfold-{jail,bwrap} {\n\tallow all,\n\tdeny userns,\n}\n' \
		>"$PF_DIR/strict"
	apparmor_parser -r "$PF_DIR/strict"
	jail pinfold-jail -- echo in
	assert_status 125
	assert_err "the AppArmor profile pinfold-jail (enforce)"
	assert_err '"userns,"'
	apparmor_parser -r "$shipped"
	jail pinfold-jail -- cat /proc/self/attr/current
	[[ "$output" == "pinfold-jail (unconfined)"* || "$output" == *pinfold-jail* ]] || show "under: $output"
	works
	apparmor_parser -R "$shipped"
}

restrict=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
@test "where AppArmor forbids user namespaces to all others, pinfold-jail names the one command, and works after it" {
	need_apparmor
	[ -e "$restrict" ] || skip "this kernel's AppArmor restricts nobody without a profile (Ubuntu's does)"
	echo 1 >"$restrict"
	jail pinfold-jail -- echo in
	assert_status 125
	assert_err apparmor_parser
	# Literally what it says.
	local command
	command=$(sed -n 's/.*as root: //p' <<<"$stderr")
	sh -ec "$command"
	works
	# And it is no door for others.
	jail unshare -Ur true
	[ "$status" != 0 ] || show "everybody may again"
	echo 0 >"$restrict"
	apparmor_parser -R /etc/apparmor.d/pinfold-jail
}
