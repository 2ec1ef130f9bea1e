# The examples do what they say.
# parallel-safe
# timeout: 280
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

@test "examples/typescript/worker.ts does the same, with nothing but Node.js" {
	need_sdk
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; echo one'),$(sh_call false)]" "[$(sh_call 'cat f')]")]"
	local n
	for n in 1 2; do
		PATH="$BUILD/bin:$PATH" ANTHROPIC_ENVIRONMENT_ID=$ENVIRONMENT ANTHROPIC_ENVIRONMENT_KEY=$KEY ANTHROPIC_BASE_URL=$URL MAX_IDLE=0.5 \
			timeout 60 "$SDK/node_modules/node/bin/node" "$TESTS_DIR/../examples/typescript/worker.ts" --once --root "$ROOT" --store "$STORE" 3>&- 4>&-
	done
	assert_equal "$(results)" $'false "one"\ntrue "exit 1"\nfalse "kept"'
	assert_no_violations
	assert_put_away
}

@test "examples/on-work/spawn.sh is the script for another poller, with a sandbox file for each environment" {
	new_session
	start_stub "[$(session "[$(sh_call 'hostname; echo kept >f')]" "[$(sh_call 'cat f; hostname')]")]"
	mkdir -p "$PF_DIR/etc/environments"
	echo '{"hostname":"common"}' >"$PF_DIR/etc/sandbox.json"
	local n
	for n in 1 2; do
		take_item
		PATH="$BUILD/bin:$PATH" ANTHROPIC_ENVIRONMENT_ID=$ENVIRONMENT ANTHROPIC_ENVIRONMENT_KEY=$KEY ANTHROPIC_BASE_URL=$URL MAX_IDLE=300ms \
			PINFOLD_ETC=$PF_DIR/etc PINFOLD_STATE_DIR=$PF_DIR/state PINFOLD_OPTIONS="--root $ROOT --store $STORE" \
			timeout 60 "$TESTS_DIR/../examples/on-work/spawn.sh" <<<"$ITEM" 2>>"$PF_DIR/worker.log"
		echo '{"hostname":"own"}' >"$PF_DIR/etc/environments/$ENVIRONMENT.json"
	done
	assert_equal "$(results)" $'false "common"\nfalse "kept\\nown"'
	assert_no_violations
	assert_put_away
}

@test "examples/quickstart: from a key to a session that is done, twice" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; echo one')]" "[$(sh_call 'cat f')]")]"
	echo "$KEY" >"$PF_DIR/key"
	# The pinfold that it finds works in the test's own directories.
	mkdir "$PF_DIR/bin"
	printf '#!/bin/sh\n[ "$1" != doctor ] || exec "%s" --root "%s" --store "%s" doctor >/dev/null\nexec "%s" --root "%s" --store "%s" "$@"\n' \
		"$PINFOLD" "$ROOT" "$STORE" "$PINFOLD" "$ROOT" "$STORE" >"$PF_DIR/bin/pinfold"
	chmod 755 "$PF_DIR/bin/pinfold"
	ln -s "$WORKER" "$PF_DIR/bin/pinfold-worker"
	PATH="$PF_DIR/bin:$PATH" ANTHROPIC_BASE_URL=$URL timeout 100 "$TESTS_DIR/../examples/quickstart/quickstart" "$ENVIRONMENT" "$PF_DIR/key" \
		--foreground --etc "$PF_DIR/etc" -- --drain --max-idle 300ms --root "$ROOT" --store "$STORE" --state-dir "$PF_DIR/state" \
		>>"$PF_DIR/worker.log" 2>&1 3>&- 4>&-
	assert_equal "$(results)" $'false "one"\nfalse "kept"'
	assert_equal "$(stat -c %a "$PF_DIR/etc/environment-key")" 600
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
