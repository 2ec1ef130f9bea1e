# What hostile programs get through: nothing (scripts/compare-jail, which runs the same ones under other tools too).
load lib
setup() {
	need_root
	need jq unshare ip setpriv
	[ -x "$BUILD/tests/hostile" ] || skip "needs $BUILD/tests/hostile (make test-programs)"
	PF_DIR=$(mktemp -d "${TMPDIR:-/tmp}/pf.XXXXXX")
}
teardown() {
	[ -z "${PF_DIR:-}" ] || rm -rf "$PF_DIR"
	[ -z "$(find /sys/fs/cgroup -maxdepth 2 -name "pinfold-compare-*" 2>/dev/null)" ]
}

rows() { # JQ-CONDITION : the attacks of which it is true, in one line
	jq -r ".rows[] | select($1) | .attack" "$PF_DIR/result" | xargs
}

@test "every hostile program that gets what it wants bare is stopped by pinfold-jail as it is; as a user, some as root" {
	local status=0
	timeout 200 scripts/compare-jail --tools pinfold-jail --json >"$PF_DIR/result" 2>"$PF_DIR/log" || status=$?
	[ -s "$PF_DIR/result" ] || { cat "$PF_DIR/log"; return 1; }
	assert_equal "$(rows '.results["pinfold-jail"].verdict != "stopped"')" ""
	assert_status 0
	# One that does nothing even bare proves nothing: the kernel has not what it wants, or lets nobody have it.
	local mute
	mute=$(rows '.valid | not')
	[ -z "$mute" ] || echo "# says nothing on this machine: $mute" >&3
	[ "$(rows .valid | wc -w)" -ge 30 ] || show "too few rows say something: $(rows .valid)"
}
