# parallel-safe
# The audit log: what is in it, what must never be.
load ../lib/common

setup() {
	need_root
	common_setup
}
teardown() { common_teardown; }

log() { cat "$STORE/logs/$ID.jsonl"; }

# Exactly N lines for which the expression is true.
lines() { # N JQ-EXPRESSION
	assert_equal "$(log | jq -c "select($2)" | grep -c .)" "$1"
}

@test "every line is one JSON object with a time and an event" {
	create_sandbox
	inside true
	inside false
	pinfold destroy "$ID"
	assert_equal "$(log | jq -c 'select((.time | test("^20..-..-..T..:..:.*Z$")) and (.event | length > 0))' | wc -l)" "$(log | wc -l)"
	assert_equal "$(log | jq -r .time)" "$(log | jq -r .time | sort)"
}

@test "create says what was made from what" {
	create_sandbox '{"networking":{"type":"limited","allowed_hosts":["api.example.com"]}}'
	lines 1 ".event == \"create\" and .id == \"$ID\" and .image == \"host\" and (.image_digest | length > 0) and .networking.allowed_hosts == [\"api.example.com\"]"
}

@test "exec says who ran what where, how it ended, how long it took and how much it held" {
	create_sandbox
	pf exec "$ID" --user 1000 --cwd /tmp -- sh -c 'exit 3'
	lines 1 '.event == "exec" and .argv == ["sh","-c","exit 3"] and .cwd == "/tmp" and .uid == 1000 and .exit_code == 3 and .wall_us > 0 and .cpu_us >= 0 and .memory_peak > 0'
}

@test "a limit that was hit is named: memory, timeout, processes" {
	create_sandbox
	pf exec "$ID" --timeout 2s -- sleep 9
	lines 1 '.event == "exec" and .limit == "timeout" and .exit_code == 124'
	pf exec "$ID" --memory 16M -- perl -e 'my $x = "x" x (64 << 20)'
	lines 1 '.event == "exec" and .limit == "memory" and .exit_code == 137'
	pf exec "$ID" --pids 2 -- perl -e 'for (1..4) { fork // last or do { sleep 1; exit } }'
	lines 1 '.event == "exec" and .limit == "pids"'
}

@test "the end is there with its reason, and destroy; the log outlives both" {
	create_sandbox
	pinfold destroy "$ID"
	lines 1 '.event == "stop"'
	lines 1 '.event == "destroy"'
	pf logs "$ID" --json
	assert_status 0
	assert_equal "$output" "$(log)"
	pf logs "$ID"
	assert_out destroy
}

@test "a snapshot is in it" {
	[ -x "$BUILD/libexec/pinfold/pinfold-store" ] || skip "needs pinfold-store"
	create_sandbox
	inside sh -c 'echo x >/workspace/x'
	pf snapshot "$ID"
	assert_status 0
	lines 1 ".event == \"snapshot\" and .checkpoint == \"$(jq -r .checkpoint <<<"$output")\""
}

@test "no value of an environment variable is ever in it, nor in the state that is printed" {
	local secret="s3cr3t-$RANDOM-$RANDOM"
	create_sandbox "{\"env\":{\"API_KEY\":\"$secret-file\"}}"
	export PF_CALLER="$secret-caller"
	pf exec "$ID" --env "TOKEN=$secret-exec" -e "OTHER=$secret-short" -- sh -c 'echo $TOKEN $API_KEY'
	assert_out "$secret-exec $secret-file"
	pf exec "$ID" --json --env "TOKEN=$secret-json" -- true
	pinfold pause "$ID"
	pinfold resume "$ID"
	pf state "$ID"
	refute_out "$secret"
	pf list --format json
	refute_out "$secret"
	pinfold destroy "$ID"
	refute grep -rF "$secret" "$STORE/logs"
}

@test "output and input of commands are not in it" {
	create_sandbox
	echo "in-$$-mark" | pinfold exec "$ID" -- sh -c 'cat; echo out-$((40 + 2))-mark'
	[ -z "$(log | grep -e "in-$$-mark" -e out-42-mark)" ]
}

@test "what a command prints cannot forge a line: newlines and quotes in arguments stay in their string" {
	create_sandbox
	inside printf '%s' $'x"}\n{"event":"destroy"}\n'
	lines 0 '.event == "destroy"'
	lines 1 '.event == "exec" and (.argv[2] | contains("\n"))'
	# Bytes that are no text do not make the line invalid.
	inside printf '%s' $'a\xffb'
	log | jq -e . >/dev/null
	log | iconv -f UTF-8 -t UTF-8 >/dev/null
	# What a gate writes that was taken over says nothing to a terminal either.
	printf '%s\n' '{"time":"t","event":"egress_denied","name":"\u001b[31mx","process":"\u009bp","x\u001b":["\u009b"]}' \
		$'{"time":"t","event":"raw\e[31m"}' >>"$STORE/logs/$ID.jsonl"
	local form
	for form in "" --denied --json; do
		pf logs "$ID" $form
		refute_out $'\e'
		refute_out $'\302\233'
	done
}

@test "an exec that failed to start is in it as well" {
	create_sandbox
	pf exec "$ID" -- /no/such/command
	assert_status 127
	lines 1 '.event == "exec" and .argv == ["/no/such/command"] and .exit_code == 127'
}

@test "the log belongs to root alone, and lines of parallel execs do not mix" {
	create_sandbox
	local i
	for i in $(seq 12); do pinfold exec "$ID" -- echo "$i" >/dev/null & done
	wait
	lines 12 '.event == "exec"'
	assert_equal "$(stat -c %a "$STORE/logs/$ID.jsonl")" 600
}

@test "connections cannot fill the disk with lines: a log of 1 GiB takes no more until it is rotated, and says so" {
	create_sandbox '{"networking":{"allowed_hosts":["a.test"]}}'
	local file="$STORE/logs/$ID.jsonl" dial='for i in 1 2 3; do echo >"/dev/tcp/9.9.9.9/$0"; done 2>/dev/null || true'
	is_told() { tail -c 4096 "$file" | grep -qa "$1"; }
	truncate -s 1G "$file"
	inside bash -c "$dial" 81
	wait_for 20 is_told '"event":"log_full","limit":1073741824'
	truncate -s 0 "$file"
	inside bash -c "$dial" 83
	wait_for 20 is_told '"port":83'
	log | jq -se 'map(select(.event == "log_resumed")) | length == 1 and .[0].suppressed >= 1' >/dev/null
}

@test "a line that a full disk cut takes no other with it" {
	create_sandbox
	printf '{"time":"2026-01-01T00:00:00.000Z","event":"exec","argv":["\\"{' >>"$STORE/logs/$ID.jsonl"
	inside true
	pf logs "$ID" --json
	assert_equal "$(jq -r .event <<<"$output")" $'create\nexec'
}

@test "logs --follow goes on when the file was copied and emptied" {
	create_sandbox
	timeout 100 "$PINFOLD" --root "$ROOT" --store "$STORE" logs "$ID" --json --follow >"$PF_DIR/followed" 3>&- &
	local follower=$!
	says() { grep -q "$1" "$PF_DIR/followed"; }
	wait_for 30 says '"create"'
	: >"$STORE/logs/$ID.jsonl"
	inside echo after-it
	wait_for 30 says after-it
	kill "$follower"
	wait "$follower" || true
}
