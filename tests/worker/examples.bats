# The examples do what they say.
# parallel-safe
# timeout: 120
load ../lib/common
load lib

setup() { worker_setup; }
teardown() { worker_teardown; }

@test "examples/python/worker.py does a session twice, with its files kept between" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; echo one'),$(sh_call false)]" "[$(sh_call 'cat f')]")]"
	local n
	for n in 1 2; do
		PATH="$BUILD/bin:$PATH" ANTHROPIC_ENVIRONMENT_ID=$ENVIRONMENT ANTHROPIC_ENVIRONMENT_KEY=$KEY ANTHROPIC_BASE_URL=$URL MAX_IDLE=0.5 \
			timeout 60 python3 "$TESTS_DIR/../examples/python/worker.py" --once --root "$ROOT" --store "$STORE" 3>&- 4>&-
	done
	assert_equal "$(results)" $'false "one"\ntrue "exit 1"\nfalse "kept"'
	assert_no_violations
	assert_put_away
}

@test "the environment files are sandbox files that can be used" {
	local f
	for f in "$TESTS_DIR"/../examples/environments/*.json; do
		new_id
		# The image is another machine's matter, and with it which hosts its package managers use.
		jq '.image = "host" | del(.user, .networking.allow_package_managers)' "$f" >"$PF_DIR/env.json"
		pf create "$ID" --config "$PF_DIR/env.json"
		assert_status 0
		pinfold destroy "$ID" >/dev/null
	done
}
