# parallel-safe
# hooks of config.json.
# timeout: 300
load ../lib/common
load bundle

setup() {
	common_setup
	bundle_setup
}
teardown() {
	container_teardown
}

hook() { # NAME SCRIPT: a hook that logs itself
	cat >"$PF_DIR/$1" <<-END
		#!/bin/sh
		$2
	END
	chmod 755 "$PF_DIR/$1"
}

@test "hooks run in order, each with the state on its input" {
	# shellcheck disable=SC2016
	hook logger 'echo "$1 $(cat)" >>'"$PF_DIR/log"
	edit '.hooks = (["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
		| map({key: ., value: [{path: $p, args: ["log", .], env: ["PATH=/usr/bin:/bin"]}]}) | from_entries)
		+ {startContainer: [{path: "/bin/sh", args: ["sh", "-c", "cat >/state"]}]}' --arg p "$PF_DIR/logger"
	run_bundle 'echo ran'
	assert_status 0
	assert_equal "$(cut -d' ' -f1 "$PF_DIR/log" | xargs)" "prestart createRuntime createContainer poststart poststop"
	assert_equal "$(sed 's/^[^ ]* //' "$PF_DIR/log" | jq -r .status | xargs)" "creating creating creating running stopped"
	sed 's/^[^ ]* //' "$PF_DIR/log" | jq -e -s 'all(.[]; .id == "'"$ID"'" and .bundle == "'"$BUNDLE"'")'
	jq -e '.status == "created" and .pid == 1' "$BUNDLE/rootfs/state"
}

@test "a hook that fails or takes too long ends create, is quoted, and nothing stays but poststop's call" {
	hook bad 'echo "no good" >&2; exit 3'
	hook stop 'echo stop >>'"$PF_DIR/stops"
	edit '.hooks = {createRuntime: [{path: ($d + "/bad")}], poststop: [{path: ($d + "/stop")}]}' --arg d "$PF_DIR"
	assert_create_refused createRuntime "exit status 3" "no good"
	assert_equal "$(cat "$PF_DIR/stops")" stop
	hook slow 'exec sleep 100'
	edit '.hooks = {createContainer: [{path: ($d + "/slow"), timeout: 1}]}' --arg d "$PF_DIR"
	assert_create_refused createContainer "within 1 s"
	edit '.hooks = {startContainer: [{path: "/bin/false"}]}'
	new_id
	pf run --bundle "$BUNDLE" "$ID"
	assert_status 1
	assert_err startContainer
}

@test "run that waits for a hook can be interrupted, and nothing stays" {
	hook slow 'echo $$ >'"$PF_DIR/slow.pid"'; exec sleep 1000'
	hook stop 'echo stop >>'"$PF_DIR/stops"
	local kind
	for kind in createRuntime createContainer; do
		rm -f "$PF_DIR/slow.pid"
		edit '.hooks = {($k): [{path: ($d + "/slow")}], poststop: [{path: ($d + "/stop")}]}' --arg d "$PF_DIR" --arg k "$kind"
		new_id
		"$PINFOLD" --root "$ROOT" run --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>"$PF_DIR/stderr" &
		local run=$!
		wait_for 30 test -s "$PF_DIR/slow.pid"
		kill -TERM "$run"
		status=0
		wait "$run" || status=$?
		stderr=$(<"$PF_DIR/stderr")
		assert_status 1
		assert_err interrupted
		assert_gone "$ID"
	done
	assert_equal "$(xargs <"$PF_DIR/stops")" "stop stop"
}

@test "a failing poststart hook stops the container; a failing poststop one is a warning" {
	hook bad 'exit 1'
	edit '.hooks = {poststart: [{path: ($d + "/bad")}]}' --arg d "$PF_DIR"
	script 'exec sleep 1000'
	new_id
	pinfold create --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
	pf start "$ID"
	assert_status 1
	wait_for 5 status_is stopped
	pinfold delete "$ID"
	edit '.hooks = {poststop: [{path: ($d + "/bad")}, {path: "/usr/bin/touch", args: ["touch", ($d + "/second")]}]}' --arg d "$PF_DIR"
	run_bundle 'exit 0'
	assert_status 0
	assert_err warning
	[ -e "$PF_DIR/second" ]
}

@test "hooks that close their input, leave processes behind or exec nothing do no harm" {
	hook quick 'exec <&-; (sleep 3 &) ; exit 0'
	edit '.hooks = {createRuntime: [{path: ($d + "/quick")}]} | .annotations = {big: ("x" * 300000)}' --arg d "$PF_DIR"
	run_bundle 'echo fine'
	assert_equal "$output" fine
	edit '.hooks = {createRuntime: [{path: "/nosuch-hook"}]}'
	assert_create_refused /nosuch-hook
	edit '.hooks = {createRuntime: [{path: "relative"}]}'
	assert_create_refused hooks.createRuntime absolute
}
