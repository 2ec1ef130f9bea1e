# What the worker's tests share: a stub control plane (stub.py) per test, and pinfold-worker against it.
# shellcheck shell=bash

WORKER="$BUILD/bin/pinfold-worker"
KEY=sk-ant-oat01-ENVIRONMENTCANARY
ENVIRONMENT=env_test

worker_setup() {
	need_root
	need jq curl
	[ -x "$WORKER" ] || skip "needs $WORKER"
	common_setup
	STUB_PID="" WORKERS=()
}

worker_teardown() {
	local pid
	for pid in ${WORKERS[@]+"${WORKERS[@]}"}; do
		kill -9 "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	[ -z "$STUB_PID" ] || { kill "$STUB_PID" 2>/dev/null; wait "$STUB_PID" 2>/dev/null || true; }
	# Sessions whose poller was killed end by themselves; nothing of theirs may be in the way of destroying.
	wait_for 30 no_runners || true
	[ -n "${BATS_TEST_COMPLETED:-}" ] || [ ! -e "$PF_DIR/worker.log" ] || sed 's/^/# /' "$PF_DIR/worker.log" >&2
	common_teardown
}

# No process works at a session of this test.
no_runners() {
	refute pgrep -f -- "pinfold-worker .*--root $ROOT " >/dev/null
}

# Starts the stub with sessions (a JSON array), further members of the script in $2.
start_stub() { # SESSIONS [MEMBERS]
	jq -n --argjson s "$1" --argjson more "${2:-{\}}" --arg key "$KEY" --arg env "$ENVIRONMENT" \
		'{environment_id: $env, key: $key, ttl: 4, sessions: $s} + $more' >"$PF_DIR/script.json"
	python3 "$TESTS_DIR/worker/stub.py" --script "$PF_DIR/script.json" --port-file "$PF_DIR/port" \
		>"$PF_DIR/stub.log" 2>&1 3>&- 4>&- &
	STUB_PID=$!
	wait_for 10 test -e "$PF_DIR/port"
	URL="http://127.0.0.1:$(<"$PF_DIR/port")"
}

# A session's id that nobody else uses, in SESSION; its sandbox is destroyed at the end.
new_session() {
	SESSION="sesn_$$_${BATS_TEST_NUMBER}_$RANDOM"
	echo "$SESSION" >>"$PF_DIR/ids"
}

worker_args() {
	ARGS=(--environment-id "$ENVIRONMENT" --base-url "$URL" --root "$ROOT" --store "$STORE"
		--state-dir "$PF_DIR/state" --max-idle "${IDLE:-500ms}")
}

# Starts a worker in the background; WORKER_PID.
start_worker() { # [OPTION...]
	worker_args
	ANTHROPIC_ENVIRONMENT_KEY=$KEY "$WORKER" "${ARGS[@]}" "$@" >>"$PF_DIR/worker.log" 2>&1 3>&- 4>&- &
	WORKER_PID=$!
	WORKERS+=("$WORKER_PID")
}

# Runs a worker until there is no work; status.
run_worker() { # [OPTION...]
	worker_args
	status=0
	ANTHROPIC_ENVIRONMENT_KEY=$KEY timeout 120 "$WORKER" "${ARGS[@]}" --drain "$@" >>"$PF_DIR/worker.log" 2>&1 3>&- 4>&- || status=$?
}

# What the stub knows, through jq.
stub_says() { # EXPRESSION
	curl -sf "$URL/_stub/state" | jq -r "$1"
}

stub_is() { # EXPRESSION that must be true
	[ "$(stub_says "$1")" = true ]
}

stub_tell() { # ROUTE JSON
	curl -sf -o /dev/null "$URL/_stub/$1" -d "$2"
}

# The results of $SESSION: lines "false text" (is_error, JSON text) in the order of the calls.
results() {
	stub_says ".sessions[\"${1:-$SESSION}\"].results[] | if .missing then \"missing\" else \"\(.is_error) \(.text | @json)\" end"
}

assert_no_violations() {
	assert_equal "$(stub_says '.violations | join("; ")')" ""
}

# The session's item is done, and its sandbox is gone from the machine.
assert_put_away() {
	local id=${1:-$SESSION}
	assert_equal "$(stub_says "[.items[] | select(.session == \"$id\") | .state] | last")" stopped
	assert_gone "$id"
}

# One bash call.
sh_call() { # COMMAND [MEMBERS]
	jq -cn --arg c "$1" --argjson more "${2:-{\}}" '{name: "bash", input: {command: $c}} + $more'
}

# A session with one turn for each further argument, which is a JSON array of calls.
session() { # TURN...
	local turn turns='[]'
	for turn; do turns=$(jq -c --argjson c "$turn" '. + [{calls: $c}]' <<<"$turns"); done
	jq -cn --arg id "$SESSION" --argjson t "$turns" '{id: $id, turns: $t}'
}

# ---- a worker inside -----------------------------------------------------------------------------------------

# The platform's SDK and a Node that runs it, fetched once with npm: in SDK; and a sandbox file in CONFIG that has them
# at /opt/agent, made of the members of $1. INSIDE is the command of its worker.
need_sdk() { # [MEMBERS]
	SDK="$BUILD/sdk"
	(
		flock 9
		[ ! -e "$SDK/complete" ] || exit 0
		command -v npm >/dev/null && mkdir -p "$SDK" || exit 1
		command timeout 200 npm install --prefix "$SDK" --silent --no-audit --no-fund @anthropic-ai/sdk@1.11.0 node@22 >/dev/null 2>&1 &&
			touch "$SDK/complete"
	) 9>"$BUILD/sdk.lock" || skip "needs @anthropic-ai/sdk and node from npm"
	cp "$TESTS_DIR/../examples/inside/worker.mjs" "$TESTS_DIR/worker/compare/sdk.mjs" "$SDK/"
	config "$(jq -cn --arg sdk "$SDK" --argjson more "${1:-{\}}" \
		'{filesystem: {mounts: [{source: $sdk, target: "/opt/agent"}]}} * $more')"
	INSIDE=(/opt/agent/node_modules/node/bin/node /opt/agent/worker.mjs)
}

# Takes the item that is queued as a poller does: ITEM.
take_item() {
	local headers=(-H "Authorization: Bearer $KEY" -H 'anthropic-beta: managed-agents-2026-04-01' -H 'anthropic-version: 2023-06-01'
		-H 'accept: application/json')
	ITEM=$(curl -sf "${headers[@]}" -H 'anthropic-worker-id: x' "$URL/v1/environments/$ENVIRONMENT/work/poll?block_ms=900")
	curl -sf -o /dev/null -X POST -H 'content-length: 0' "${headers[@]}" \
		"$URL/v1/environments/$ENVIRONMENT/work/$(jq -r .id <<<"$ITEM")/ack"
}

# Does it as the script of another poller; status.
on_work() { # [OPTION...]
	status=0
	ANTHROPIC_ENVIRONMENT_KEY=$KEY ANTHROPIC_ENVIRONMENT_ID=$ENVIRONMENT ANTHROPIC_BASE_URL=$URL \
		timeout 120 "$PINFOLD" --root "$ROOT" --store "$STORE" on-work --state-dir "$PF_DIR/state" --max-idle "${IDLE:-500ms}" "$@" \
		<<<"$ITEM" >>"$PF_DIR/worker.log" 2>&1 || status=$?
}

# The text of one of $SESSION's results, counted from 0.
result_text() { # N
	stub_says ".sessions[\"$SESSION\"].results[$1].text"
}
