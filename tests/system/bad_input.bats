# parallel-safe
# What is wrong is refused with one line that says what and where, status 125, and nothing is left behind.
load ../lib/common

setup() {
	need_root
	common_setup
	new_id
}
teardown() { common_teardown; }

# Creates from a sandbox file that must be refused, with each of the words in the message.
refused() { # JSON WORD...
	config "$1"
	shift
	pf create "$ID" --config "$CONFIG"
	assert_refused "$@"
	assert_gone "$ID"
	[ ! -e "$STORE/logs/$ID.jsonl" ] || show "an empty log is left"
}

@test "an unknown key is named with the nearest known one" {
	refused '{"resources":{"memroy":"512M"}}' resources.memroy "'memory'"
	refused '{"network_whitelists":[]}' network_whitelists network_whitelist
	refused '{"sandbox":{"filesystem":{"writeable_paths":["/tmp"]}}}' sandbox.filesystem.writeable_paths
}

@test "one setting in two spellings names both" {
	refused '{"memory_limit":"512MB","resources":{"memory":"512MB"}}' memory_limit resources.memory
}

@test "sizes that are none are refused" {
	local v
	for v in '"512MBB"' '"-1"' -1 0 1e300 9223372036854775808 '""' '"512 MB"' '"0x100000"' true; do
		refused "{\"memory_limit\":$v}" memory_limit
		refused "{\"filesystem\":{\"size\":$v}}" filesystem.size
	done
	refused '{"sandbox":{"max_memory_mb":"512"}}' sandbox.max_memory_mb
	refused '{"resources":{"pids":0}}' resources.pids
	refused '{"cpu_limit":"0"}' cpu_limit
}

@test "paths that are relative or climb are refused" {
	refused '{"filesystem":{"writable_paths":["workspace"]}}' workspace absolute
	refused '{"filesystem":{"read_only_paths":["/a/../../etc"]}}' "'..'"
	refused '{"filesystem":{"mounts":[{"source":"data","target":"/data"}]}}' 'mounts[0].source'
	refused '{"workdir":"src"}' workdir
}

@test "a mount whose source is missing is refused by its name" {
	refused '{"filesystem":{"mounts":[{"source":"/no/such/place","target":"/data"}]}}' /no/such/place
}

@test "a sandbox file that is no JSON object is refused" {
	local text
	for text in '' '[]' '{' '{"a":1}{"b":2}' 'nul' '{"memory_limit":"1G","memory_limit":"2G"}'; do
		printf '%s' "$text" >"$PF_DIR/broken.json"
		pf create "$ID" --config "$PF_DIR/broken.json"
		assert_refused broken.json
		assert_gone "$ID"
	done
	pf create "$ID" --config "$PF_DIR/missing.json"
	assert_refused missing.json
	pf create "$ID" --config "$PF_DIR"
	assert_refused "$PF_DIR"
}

@test "ids that could be a path or an option are refused" {
	local id
	config
	for id in '' . .. ../x a/b 'a b' $'a\nb' .hidden "$(printf 'a%.0s' {1..129})"; do
		pf create "$id" --config "$CONFIG"
		assert_status 125
		[ -n "$stderr" ]
		[ -z "$(ls -A "$ROOT")" ]
	done
}

@test "a missing image is named" {
	refused '{"image":"no-such-image:1"}' no-such-image
	config
	pf create "$ID" --config "$CONFIG" --image /no/such/rootfs
	assert_refused /no/such/rootfs
	assert_gone "$ID"
}

@test "a missing checkpoint is named" {
	config
	pf create "$ID" --config "$CONFIG" --from no-such-checkpoint
	assert_refused no-such-checkpoint
	assert_gone "$ID"
}

@test "host patterns that mean nothing or too much are refused" {
	refused '{"network_whitelist":["*"]}' '*'
	refused '{"network_whitelist":["*.com"]}' '*.com'
	refused '{"network_whitelist":["https://a.example/"]}' https
	refused '{"networking":{"type":"limited","allowed_cidrs":["10.0.0.0/33"]}}' 10.0.0.0/33
	refused '{"networking":{"type":"none","allowed_hosts":["a.example"]}}' networking.allowed_hosts
}

@test "a limit that this machine cannot set is an error, not a silence" {
	refused '{"resources":{"cpuset":"4000"}}' cpuset
}

@test "users that are not exactly a number or a name are refused" {
	local u
	for u in '' 0x0 -1 4294967296 4294967295 1000: ' 1' 'root\n' +1 1:2:3; do
		refused "{\"user\":\"$u\"}" user
	done
	create_sandbox
	for u in '' 0x0 -1 4294967296 1000: ' 1' $'root\n' 65536; do
		pf exec "$ID" --user "$u" -- true
		assert_refused
	done
	pf exec "$ID" --user no-such-user -- true
	assert_refused no-such-user
}

@test "a command that is not there is 127" {
	create_sandbox
	pf exec "$ID" -- no-such-command
	assert_status 127
	assert_err no-such-command
	pf exec "$ID" -- /no/such/command
	assert_status 127
	assert_err /no/such/command
}

@test "a command that cannot be executed is 126" {
	create_sandbox
	pf exec "$ID" -- sh -c 'mkdir -p /tmp/t && echo "echo hello" >/tmp/t/plain && chmod 644 /tmp/t/plain'
	assert_status 0
	pf exec "$ID" -- /tmp/t/plain
	assert_status 126
	assert_err /tmp/t/plain
	pf exec "$ID" -- /tmp/t
	assert_status 126
}

@test "limits of one command are checked like those of the sandbox" {
	create_sandbox
	local o
	for o in "--memory 512MBB" "--memory -1" "--pids 0" "--pids x" "--cpus 0" "--timeout 5x" "--timeout 0" "--cwd src"; do
		# shellcheck disable=SC2086
		pf exec "$ID" $o -- true
		assert_refused
	done
	pf exec "$ID"
	assert_status 125
}

@test "a command that takes too long is 124, the sandbox lives on" {
	create_sandbox
	pf exec "$ID" --timeout 2s -- sleep 30
	assert_status 124
	pf exec "$ID" -- echo alive
	assert_status 0
	assert_out alive
}

@test "a command that outgrows its memory is 137 and the JSON says which limit" {
	create_sandbox
	pf exec "$ID" --json --memory 32M -- sh -c 'a=x; while :; do a=$a$a; done'
	assert_status 137
	assert_out memory
	pf exec "$ID" -- echo alive
	assert_out alive
}

@test "an id that lives is taken, and the one who has it is not disturbed" {
	create_sandbox
	pf exec "$ID" -- touch /tmp/mine
	pf create "$ID" --config "$CONFIG"
	assert_refused exists "$ID"
	pf exec "$ID" -- ls /tmp/mine
	assert_status 0
	pf create "$ID" --config "$CONFIG" --reuse
	assert_status 0
	assert_json ".id == \"$ID\""
	pf exec "$ID" -- ls /tmp/mine
	assert_status 0
}

@test "a sandbox that is not there is named" {
	pf exec "$ID" -- true
	assert_refused "$ID"
	pf state "$ID"
	assert_refused "$ID"
	pf destroy "$ID" # whoever cleans up twice gets what was asked for
	assert_status 0
}

@test "an unknown verb or option is refused by its name" {
	pf no-such-verb
	[ "$status" != 0 ]
	assert_err no-such-verb
	config
	pf create "$ID" --config "$CONFIG" --no-such-option
	assert_status 125
	assert_err no-such-option
	assert_gone "$ID"
}

@test "an ordinary user is told what is missing and changes nothing" {
	config
	chmod 755 "$PF_DIR"
	run --separate-stderr run_as_user "$PINFOLD" --root "$ROOT" --store "$STORE" create "$ID" --config "$CONFIG"
	assert_status 125
	[ -n "$stderr" ]
	assert_gone "$ID"
}

@test "a create that fails when all but the mounts is made leaves no empty log" {
	refused '{"filesystem":{"mounts":[{"source":"/tmp","target":"/etc/passwd"}]}}' /etc/passwd
}
