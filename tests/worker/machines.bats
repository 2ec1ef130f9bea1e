# One session on two machines: two stores, two runtime directories.
# parallel-safe
# timeout: 180
load ../lib/common
load lib

setup() { worker_setup; }
teardown() {
	[ -z "${REGISTRY:-}" ] || { kill "$REGISTRY" 2>/dev/null && wait "$REGISTRY" 2>/dev/null; } || true
	machine a
	worker_teardown
}

# Be machine a (that of worker_setup) or b. Its sandboxes know in PLACE where they are.
machine() { # a|b
	: "${ROOT_A:=$ROOT}" "${STORE_A:=$STORE}"
	if [ "$1" = a ]; then ROOT=$ROOT_A STORE=$STORE_A; else ROOT="$PF_DIR/b.run" STORE="$PF_DIR/b.store"; fi
	mkdir -p -m 700 "$ROOT" "$STORE"
	config "{\"env\":{\"PLACE\":\"$1\"}}"
}

runs() { pinfold exec "$SESSION" -- pgrep -f "sleep 7777[7]" >/dev/null 2>&1; }

# A session whose lease machine a loses while its first call runs; the files stay there.
lose_on_a() { # LAST-CALL
	new_session
	start_stub "[$(session "[$(sh_call 'echo $PLACE >>f; [ "$PLACE" = b ] || [ "$(wc -l <f)" -gt 1 ] || sleep 77777; cat f')]" "[$(sh_call "$1")]")]" '{"ttl":2}'
	machine a
	start_worker --config "$CONFIG"
	wait_for 20 runs
	stub_tell fault '{"lose":true}'
	wait_for 20 grep -q 'ends: the lease is lost' "$PF_DIR/worker.log"
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	stub_tell fault '{"lose":null}'
	assert_equal "$(pinfold state "$SESSION" | jq -r .status)" stopped
	wait_for 20 stub_is '.items | last | .state == "queued"'
}

@test "files left by a lost lease are given up when somebody else has had the session since" {
	lose_on_a 'cat f; echo $PLACE'
	machine b
	take_item
	on_work --config "$CONFIG"
	assert_equal "$(results | head -n 1)" 'false "b"'
	pinfold checkpoint export "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" --to "oci:$PF_DIR/moved" >/dev/null
	machine a
	pinfold checkpoint import "oci:$PF_DIR/moved" >/dev/null
	take_item
	on_work --config "$CONFIG"
	# Not what machine a had written: "a".
	assert_equal "$(result_text 1)" $'b\na'
	grep -q 'they are given up for it' "$PF_DIR/worker.log"
	assert_no_violations
	assert_put_away
}

@test "files left by a lost lease are gone on with when nobody else has had the session" {
	lose_on_a 'cat f'
	take_item
	on_work --config "$CONFIG"
	assert_equal "$(results | head -n 1)" 'false "a\na"'
	grep -q 'started again on its files' "$PF_DIR/worker.log"
	# And after a checkpoint of theirs, from that.
	take_item
	on_work --config "$CONFIG"
	assert_equal "$(result_text 1)" $'a\na'
	assert_no_violations
	assert_put_away
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

@test "with --remote a session goes from machine to machine, and stale files of the first are given up" {
	need docker-registry
	local port
	port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "127.0.0.1:%s"}\n' "$PF_DIR/registry" "$port" >"$PF_DIR/registry.yml"
	docker-registry serve "$PF_DIR/registry.yml" >"$PF_DIR/registry.log" 2>&1 3>&- 4>&- &
	REGISTRY=$!
	wait_for 10 listens "$port"
	new_session
	start_stub "[$(session "[$(sh_call 'echo $PLACE >f; cat f')]" "[$(sh_call 'echo $PLACE >>f; cat f')]" "[$(sh_call 'echo $PLACE >>f; cat f')]" "[$(sh_call 'cat f')]")]"
	local n=0 m
	for m in a b a a; do
		machine "$m"
		take_item
		on_work --config "$CONFIG" --remote "http://127.0.0.1:$port/sessions"
		assert_equal "$status" 0
		assert_gone "$SESSION"
	done
	assert_equal "$(results)" $'false "a"\nfalse "a\\nb"\nfalse "a\\nb\\na"\nfalse "a\\nb\\na"'
	[ "$(grep -c 'resumed from its checkpoint' "$PF_DIR/worker.log")" = 3 ]
	assert_no_violations
	# Who cannot ask does not guess.
	machine a
	stub_tell add "$(session | jq -c '.id += ".x"')"
	take_item
	on_work --config "$CONFIG" --remote "http://127.0.0.1:$port/Not/A/Repository"
	assert_equal "$status" 1
	grep -q "ask for the session's newest checkpoint" "$PF_DIR/worker.log"
}
