# Kills at random, the short way: twenty seconds of what make soak-worker does for minutes.
# timeout: 280
load ../lib/common
load lib

setup() {
	need_root
	[ -x "$WORKER" ] || skip "needs $WORKER"
}

@test "poller, runner, keeper and pinfold are killed at random: no session is lost, nothing is answered twice, nothing is left" {
	run timeout 260 python3 "$TESTS_DIR/worker/soak.py" --build "$BUILD" --seconds 20 --sessions 4 --workers 2
	echo "$output" | grep -v '^pinfold-worker' >&2
	[ "$status" = 0 ] || { echo "$output" >&2; return 1; }
}
