# parallel-safe
# exec into containers of plain bundles.
# timeout: 300
load ../lib/common
load bundle

setup() {
	common_setup
	bundle_setup
}
teardown() {
	container_teardown
}

@test "exec: exit code, environment, directory, user, capabilities" {
	start_bundle 'exec sleep 1000'
	pf exec --env A=b --cwd /tmp --user 1000:1001 --additional-gids 7 "$ID" sh -c 'echo $A $PWD; id; exit 9'
	assert_status 9
	assert_out "b /tmp"
	assert_out "uid=1000(user) gid=1001 groups=7"
	pf exec --cap CAP_SYS_CHROOT "$ID" grep CapEff /proc/self/status
	assert_out "0000000020040420"
	pf exec "$ID" sh -c 'echo $HOME'
	assert_equal "$output" /root
}

@test "exec --process, --detach, --pid-file" {
	start_bundle 'exec sleep 1000'
	echo '{"args":["sh","-c","echo x >/tmp/done; exec sleep 1000"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}}' >"$PF_DIR/process.json"
	pinfold exec --process "$PF_DIR/process.json" --detach --pid-file "$PF_DIR/exec.pid" "$ID"
	wait_for 5 test -e "$BUNDLE/rootfs/tmp/done"
	kill -0 "$(<"$PF_DIR/exec.pid")"
	pf ps --format json "$ID"
	assert_json 'index('"$(<"$PF_DIR/exec.pid")"') != null'
}

@test "exec: a command that is not there or not executable is told in runc's words" {
	start_bundle 'exec sleep 1000'
	pf exec "$ID" nosuch
	assert_status 255
	assert_err 'executable file not found in $PATH'
	pf exec "$ID" /nosuch
	assert_err "No such file or directory"
	pf exec "$ID" /etc/passwd
	assert_err "Permission denied"
}

@test "exec -t gives a terminal of the container's" {
	start_bundle 'exec sleep 1000'
	pf exec -t "$ID" sh -c 'tty; test -t 0 && test -t 1 && test -t 2 && exit 5'
	assert_status 5
	assert_out /dev/pts/0
}

@test "exec again works after kill --all ended an earlier exec (cgroups that were killed take no clones)" {
	start_bundle 'trap "" TERM; while :; do sleep 1; done'
	pinfold exec --detach "$ID" sleep 1000
	pinfold kill --all "$ID" TERM
	pinfold exec "$ID" true
}

@test "exec works in a cgroup that the kernel takes no clones into any more" {
	start_bundle 'exec sleep 1000'
	local tree=/sys/fs/cgroup
	[ -e "$tree/cgroup.procs" ] || tree=/sys/fs/cgroup/unified
	[ -e "$tree/cgroup.procs" ] || skip "needs a cgroup v2 tree"
	mkdir "$tree${CGROUP%/*}/aside"
	echo "$PID" >"$tree${CGROUP%/*}/aside/cgroup.procs"
	echo 1 >"$tree$CGROUP/cgroup.kill"
	echo "$PID" >"$tree$CGROUP/cgroup.procs"
	pf exec "$ID" echo in
	assert_equal "$output" in
	pf exec "$ID" sh -c 'exit 4'
	assert_status 4
}

@test "a user that is no number is refused" {
	start_bundle 'exec sleep 1000'
	local u
	for u in 0x0 -1 4294967296 1000: ' 1' root; do
		pf exec --user "$u" "$ID" id
		assert_status 255
	done
}

@test "the payload cannot write the runtime's file (CVE-2019-5736)" {
	local before
	before=$(sha256sum "$PINFOLD")
	ln -sf /proc/self/exe "$BUNDLE/rootfs/bin/self"
	printf '#!/proc/self/exe\n' >"$BUNDLE/rootfs/bin/script"
	chmod 755 "$BUNDLE/rootfs/bin/script"
	edit '.process.args = ["/proc/self/exe", "--version"]'
	run_bundle_raw() { new_id; pf run --bundle "$BUNDLE" "$ID"; }
	run_bundle_raw
	start_bundle 'while :; do for p in /proc/[0-9]*; do { echo x >$p/exe; } 2>/dev/null && echo "wrote $(cat $p/cmdline)"; done; done'
	for _ in 1 2 3 4 5 6 7 8; do pf exec "$ID" /bin/script; pf exec "$ID" true; done
	! grep -q pinfold "$PF_DIR/out" || show "$(<"$PF_DIR/out")"
	assert_equal "$(sha256sum "$PINFOLD")" "$before"
}

@test "exec has a session keyring of its own; with create --no-new-keyring it is the caller's" {
	[ -x "$BUILD/tests/hostile" ] || skip "needs $BUILD/tests/hostile (make test-programs)"
	local secret="secret-$$-$RANDOM" option
	"$BUILD/tests/hostile" with-key "$secret" "$BUILD/tests/hostile" keyring hostile-secret | grep -q "$secret" ||
		skip "needs keyrings"
	cp "$BUILD/tests/hostile" "$BUNDLE/rootfs/bin/hostile"
	edit 'del(.linux.seccomp)'
	script 'exec sleep 1000'
	for option in "" --no-new-keyring; do
		new_id
		# shellcheck disable=SC2086
		pinfold create $option --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
		pinfold start "$ID"
		output=$("$BUILD/tests/hostile" with-key "$secret" "$PINFOLD" --root "$ROOT" exec "$ID" hostile keyring hostile-secret)
		assert_out begun
		if [ "$option" ]; then assert_out "$secret"; else refute_out "$secret"; fi
		pinfold delete --force "$ID"
	done
}
