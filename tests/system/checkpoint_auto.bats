# parallel-safe
# Checkpoints that are made because the sandbox file says so, and what goes again because it says so.

load ../lib/common

setup() {
	need_root
	need jq
	common_setup
}
teardown() { common_teardown; }

has_ended() {
	[ "$(state_of .status)" = stopped ] && ! kill -0 "$KEEPER" 2>/dev/null
}

# Waits until the keeper of create_sandbox's sandbox has ended.
wait_end() {
	wait_for 20 has_ended
}

make() { # SANDBOX-FILE
	create_sandbox "$1"
	KEEPER=$(state_of .pinfold.keeper)
}

# The audit lines of an event, as one array.
audit() { # EVENT
	jq -cs --arg e "$1" 'map(select(.event == $e))' "$STORE/logs/$ID.jsonl"
}

checkpoints() {
	pinfold checkpoint ls --sandbox "$ID" --json
}

occasions() {
	checkpoints | jq -r 'map(.labels["io.pinfold.auto"]) | join(" ")'
}

# What the newest checkpoint has in /workspace/f; without running again what wrote that.
restored() {
	pinfold destroy "$ID"
	config
	pinfold create "$ID" --from latest --config "$CONFIG" >/dev/null
	pinfold exec "$ID" -- cat /workspace/f
}

@test "on exit: what the command wrote is in a checkpoint that --from latest finds" {
	make '{"command":["sh","-c","echo kept >/workspace/f"],"checkpoint":{"on":["exit"]}}'
	wait_end
	assert_equal "$(occasions)" exit
	assert_equal "$(audit snapshot | jq -r '.[0].on')" exit
	assert_equal "$(audit snapshot | jq -r '.[0].frozen_ms')" 0
	assert_equal "$(restored)" kept
}

@test "on idle: a sandbox that nobody used is saved before it is gone" {
	make '{"limits":{"idle":"2s"},"checkpoint":{"on":["idle","exit"]}}'
	pinfold exec "$ID" -- sh -c 'echo idle >/workspace/f'
	wait_end
	assert_equal "$(state_of .pinfold.stop_reason)" idle
	assert_equal "$(occasions)" idle
	assert_equal "$(restored)" idle
}

@test "on limit: max_runtime ends the sandbox and keeps its files" {
	make '{"limits":{"max_runtime":"3s"},"checkpoint":{"on":["limit"]}}'
	pinfold exec "$ID" -- sh -c 'echo late >/workspace/f'
	wait_end
	assert_equal "$(state_of .pinfold.stop_reason)" max_runtime
	assert_equal "$(occasions)" limit
	assert_equal "$(restored)" late
}

@test "on limit: a kill for memory is followed by a checkpoint of the sandbox that lives on" {
	make '{"resources":{"memory":"48M"},"checkpoint":{"on":["limit"]}}'
	pf exec "$ID" -- sh -c 'echo oom >/workspace/f; head -c 200M /dev/zero | tail -c 150M >/dev/null'
	saved() { [ "$(occasions)" = limit ]; }
	wait_for 10 saved
	assert_equal "$(state_of .status)" running
	assert_equal "$(restored)" oom
}

@test "on limit: a command that is the sandbox's own and runs out of memory leaves a checkpoint" {
	make '{"resources":{"memory":"48M"},"checkpoint":{"on":["limit"]},"command":["sh","-c","echo own >/workspace/f; x=$(head -c 200M /dev/zero | tr \\\\0 a); exit 3"]}'
	wait_end
	assert_equal "$(occasions | xargs -n1 | sort -u)" limit
	assert_equal "$(restored)" own
}

@test "on signal: a keeper that is told to end saves the files first" {
	make '{"checkpoint":{"on":["signal"]}}'
	pinfold exec "$ID" -- sh -c 'echo term >/workspace/f'
	kill -TERM "$KEEPER"
	wait_end
	assert_equal "$(state_of .pinfold.stop_reason)" terminated
	assert_equal "$(occasions)" signal
	assert_equal "$(restored)" term
}

@test "on destroy: made before, and --discard does without" {
	make '{"checkpoint":{"on":["destroy"]}}'
	pinfold exec "$ID" -- sh -c 'echo last >/workspace/f'
	pinfold destroy "$ID"
	assert_equal "$(occasions)" destroy
	pinfold create "$ID" --from latest >/dev/null
	pinfold destroy --discard "$ID"
	assert_equal "$(occasions)" destroy
}

@test "destroy is no exit: what is ended from outside is not saved" {
	make '{"checkpoint":{"on":["exit","limit","signal"]}}'
	pinfold destroy "$ID"
	assert_equal "$(checkpoints)" '[]'
	assert_gone "$ID"
}

@test "every: while it runs, the newest are kept, and no named one is touched" {
	make '{"checkpoint":{"every":"1s","keep":2}}'
	pinfold snapshot "$ID" --name "mine-$ID" >/dev/null
	pinfold snapshot "$ID" >/dev/null
	four() { [ "$(audit snapshot | jq 'map(select(.on == "every")) | length')" -ge 4 ]; }
	wait_for 20 four
	pinfold destroy "$ID"
	assert_equal "$(audit snapshot_failed)" '[]'
	assert_equal "$(audit prune_failed)" '[]'
	assert_equal "$(checkpoints | jq 'map(select(.labels["io.pinfold.auto"] == "every")) | length')" 2
	assert_equal "$(checkpoints | jq 'map(select(.labels["io.pinfold.auto"] == null)) | length')" 2
	checkpoints | jq -e 'any(.name == "mine-'"$ID"'")' >/dev/null
}

@test "every: a busy workspace with a disk of its own is saved whole, and again at its end" {
	make '{"filesystem":{"size":"64M"},"checkpoint":{"every":"1s","on":["exit"]},"command":["sh","-c","for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do echo $i >/workspace/f; sleep 0.1; done"]}'
	wait_end
	occasions | grep -q 'every.*exit'
	assert_equal "$(restored)" 25
}

@test "a checkpoint that cannot be made is in the audit log and holds up nothing" {
	local broken="$PF_DIR/broken"
	mkdir -p "$broken"
	STORE=$broken
	make '{"checkpoint":{"on":["signal"]}}'
	mkdir -p "$STORE/checkpoints"
	echo nonsense >"$STORE/checkpoints/index.json"
	kill -TERM "$KEEPER"
	wait_end
	assert_equal "$(audit snapshot_failed | jq -r '.[0].on')" signal
	[ -n "$(audit snapshot_failed | jq -r '.[0].error')" ]
	assert_equal "$(state_of .status)" stopped
	pinfold destroy "$ID"
	assert_gone "$ID"
}

@test "a saver that is killed is in the audit log, and the sandbox goes on without" {
	make '{"checkpoint":{"on":["exit"]}}'
	local saver
	saver=$(pgrep -P "$KEEPER" -x pinfold-saver)
	kill -KILL "$saver"
	gone() { [ "$(audit snapshot_failed | jq length)" = 1 ]; }
	wait_for 5 gone
	inside echo lives
	assert_out lives
	kill -TERM "$KEEPER"
	wait_end
}

@test "no saver is left when the keeper is killed" {
	make '{"checkpoint":{"on":["exit"]}}'
	local saver
	saver=$(pgrep -P "$KEEPER" -x pinfold-saver)
	kill -KILL "$KEEPER"
	dead() { [ ! -e "/proc/$saver/exe" ]; }
	wait_for 5 dead
	pinfold destroy "$ID"
	assert_gone "$ID"
}

@test "a sandbox file without automatic checkpoints has no saver" {
	make '{}'
	run pgrep -P "$KEEPER" -x pinfold-saver
	assert_equal "$output" ""
}
