# pinfold-on-work in the hands of another poller, as `ant beta:worker poll --on-work` is documented to use it: environment, standard
# input and output, signals, exit codes, the stop that follows.
# parallel-safe
# timeout: 180
load ../lib/common
load lib

setup() { worker_setup; }
teardown() { worker_teardown; }

# Starts the poller in the background with what a person has set up: POLLER.
poller() { # OPTION...
	env "PINFOLD_ROOT=$ROOT" "PINFOLD_STORE=$STORE" "PINFOLD_STATE_DIR=$PF_DIR/state" PINFOLD_MAX_IDLE=300ms ${CONFIG:+"PINFOLD_CONFIG=$CONFIG"} \
		"ANTHROPIC_ENVIRONMENT_ID=$ENVIRONMENT" "ANTHROPIC_ENVIRONMENT_KEY=$KEY" "ANTHROPIC_BASE_URL=$URL" \
		python3 "$TESTS_DIR/worker/poller.py" --on-work "$BUILD/bin/pinfold-on-work" "$@" >"$PF_DIR/polled" 2>>"$PF_DIR/worker.log" 3>&- 4>&- &
	POLLER=$!
	WORKERS+=("$POLLER")
}

@test "items come with no more than the environment and their JSON; the tools see neither key nor secret; the second finds the first's files" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; env | grep -ci -e anthropic -e canary'),$(sh_call 'exit 3')]" "[$(sh_call 'cat f')]")]"
	poller --items 2
	wait_for 90 eval '[ "$(wc -l <"$PF_DIR/polled")" = 2 ]'
	wait "$POLLER"
	# By then it is stopped: the poller's own stop comes too late, and is told so.
	assert_equal "$(<"$PF_DIR/polled")" $'work_1 0 409\nwork_2 0 409'
	assert_equal "$(results | sed 's/^true "bash: bash session terminated"/true/')" $'true "0"\ntrue\nfalse "kept"'
	refute grep -q CANARY "$PF_DIR/worker.log"
	assert_no_violations
	assert_put_away
}

@test "SIGTERM to the poller in the middle of a call: it is answered, the files are kept, the item is stopped, in good time" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; touch running; sleep 3; echo done')]")]" '{"ttl":30}'
	poller
	wait_for 60 pinfold exec "$SESSION" -- test -e /workspace/running 2>/dev/null
	kill "$POLLER"
	wait "$POLLER"
	# Not killed: 0, and long before the 30 s that it is given are over.
	assert_equal "$(<"$PF_DIR/polled")" 'work_1 0 409'
	assert_equal "$(results)" 'false "done"'
	[ -n "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]
	assert_no_violations
	assert_put_away
}

@test "an item that cannot be done is a failure that its poller survives: the next one is done" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo 1')]")]"
	config '{"image":"not-there"}'
	poller
	wait "$POLLER"
	read -r _ status _ <"$PF_DIR/polled"
	[ "$status" != 0 ]
	grep -q "no image 'not-there'" "$PF_DIR/worker.log"
	CONFIG=""
	# Its session has still something to do, and is handed out again.
	poller
	wait "$POLLER"
	assert_equal "$(cut -d' ' -f2 "$PF_DIR/polled")" 0
	assert_equal "$(results)" 'false "1"'
	assert_put_away
}
