# OCI bundles for the tests here. A file loads this after ../lib/common and calls bundle_setup in setup().
# shellcheck shell=bash

bundle_setup() {
	need_root
	need busybox jq
	BUNDLE="$PF_DIR/bundle"
	mkdir -p "$BUNDLE/rootfs"/{bin,etc,tmp,data}
	cp "$(command -v busybox)" "$BUNDLE/rootfs/bin/busybox"
	# busybox-static links its applets; without it there is no root file system to be had from nothing.
	"$BUNDLE/rootfs/bin/busybox" true || skip "needs busybox-static"
	local a
	for a in $("$BUNDLE/rootfs/bin/busybox" --list | grep -vx busybox); do ln -s busybox "$BUNDLE/rootfs/bin/$a"; done
	printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' >"$BUNDLE/rootfs/etc/passwd"
	"$PINFOLD" spec --bundle "$BUNDLE"
	edit '.process.terminal = false | .root.readonly = false | .linux.cgroupsPath = "/pinfold-test-'"$$"'/'"$RANDOM"'"'
}

# Removes the cgroup above the test's own.
bundle_teardown() {
	find /sys/fs/cgroup -depth -type d -path "*/pinfold-test-$$*" -exec rmdir {} \; 2>/dev/null || true
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
	[ ! -e "$ROOT/$ID" ] || show "the state directory of $ID is left"
}
