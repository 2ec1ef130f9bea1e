# OCI bundles for the tests here. A file loads this after ../lib/common and has then
#
#   setup() { common_setup; bundle_setup; }
#   teardown() { container_teardown; }
#
# and in every test a bundle of its own in $BUNDLE: busybox, and the configuration that `spec` writes, without a
# terminal, with a root that can be written, in a cgroup that nobody else has.
# shellcheck shell=bash

# The root that every test gets a copy of: made once for a file.
bundle_template() {
	local rootfs=$1/rootfs
	mkdir -p "$rootfs"/{bin,etc,tmp,data}
	cp "$(command -v busybox)" "$rootfs/bin/busybox"
	# Without a static one there is no root file system to be had from nothing.
	chroot "$rootfs" /bin/busybox --install -s /bin || return 1
	printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' >"$rootfs/etc/passwd"
	"$PINFOLD" spec --bundle "$1" &&
		jq '.process.terminal = false | .root.readonly = false' "$1/config.json" >"$1/new.json" &&
		mv "$1/new.json" "$1/config.json"
}

bundle_setup() {
	need_root
	need busybox jq
	local template="$BATS_FILE_TMPDIR/bundle"
	[ -e "$template" ] || bundle_template "$template" || skip "needs busybox-static"
	BUNDLE="$PF_DIR/bundle"
	cp -a "$template" "$BUNDLE"
	CGROUP="/pinfold-test-$$/$RANDOM"
	edit '.linux.cgroupsPath = $c' --arg c "$CGROUP"
}

# Removes the cgroups of this test. Processes in one of them have survived their container: that is a failure.
bundle_teardown() {
	local dir left=0
	while read -r dir; do
		if [ -s "$dir/cgroup.procs" ] && [ -n "$(cat "$dir/cgroup.procs")" ]; then
			echo "left in $dir: $(xargs ps -o args= -p <"$dir/cgroup.procs")" >&2
			[ ! -e "$dir/cgroup.kill" ] || echo 1 >"$dir/cgroup.kill"
			left=1
		fi
	done < <(find /sys/fs/cgroup -type d -path "*/pinfold-test-$$*")
	# Those who were killed hold their group until they are reaped.
	for _ in {1..30}; do
		find /sys/fs/cgroup -depth -type d -path "*/pinfold-test-$$*" -exec rmdir {} \; 2>/dev/null || true
		[ -n "$(find /sys/fs/cgroup -type d -path "*/pinfold-test-$$*" -print -quit)" ] || break
		sleep 0.1
	done
	return "$left"
}

# Both, whatever becomes of the first.
container_teardown() {
	local left=0
	common_teardown || left=1
	bundle_teardown || left=1
	return "$left"
}

edit() { # JQ-FILTER [JQ ARGUMENTS]
	jq "${@:2}" "$1" "$BUNDLE/config.json" >"$BUNDLE/new.json" && mv "$BUNDLE/new.json" "$BUNDLE/config.json"
}

# What the container is to run: a shell script.
script() {
	edit '.process.args = ["sh", "-c", $s]' --arg s "$1"
}

# Runs the bundle to its end with the given script, as pf does.
run_bundle() { # [SCRIPT]
	[ $# -eq 0 ] || script "$1"
	new_id
	pf run --bundle "$BUNDLE" "$ID"
}

# Creates and starts the bundle; its output goes to $PF_DIR/out.
start_bundle() { # [SCRIPT]
	[ $# -eq 0 ] || script "$1"
	new_id
	pinfold create --bundle "$BUNDLE" --pid-file "$PF_DIR/pid" "$ID" </dev/null >"$PF_DIR/out" 2>&1 ||
		{ cat "$PF_DIR/out" >&2; return 1; }
	PID=$(<"$PF_DIR/pid")
	pinfold start "$ID"
}

status_is() { # STATUS
	[ "$(pinfold state "$ID" | jq -r .status)" = "$1" ]
}

# One line, the exit status of runc, nothing left of the container.
assert_create_refused() { # WORD…
	local w
	new_id
	pf run --bundle "$BUNDLE" "$ID"
	assert_status 1 || return 1
	for w; do assert_err "$w" || return 1; done
	[ ! -e "$ROOT/$ID" ] || show "the state directory of $ID is left" || return 1
	# One that has processes is that of a container which the test has made before.
	[ -n "$(find /sys/fs/cgroup -path "*$CGROUP/cgroup.procs" -exec cat {} +)" ] ||
		[ -z "$(find /sys/fs/cgroup -type d -path "*$CGROUP")" ] || show "the cgroup of $ID is left"
}
