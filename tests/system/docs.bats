# parallel-safe
# What the documents show works as they show it.
load ../lib/common

setup() {
	need_root
	common_setup
	DOCS="$TESTS_DIR/../docs"
}
teardown() { common_teardown; }

@test "sandbox-file.md: the addresses shown for allowed_cidrs are accepted, all in one list" {
	local row list
	row=$(grep '^| `allowed_cidrs`' "$DOCS/sandbox-file.md")
	# In backquotes: strings, and objects with values.
	list=$(grep -o '`\("[^`]*"\|{[^`]*: [^`]*}\)`' <<<"$row" | tr -d '`' | jq -cs .)
	[ "$(jq length <<<"$list")" -ge 4 ] || show "only $list"
	create_sandbox "{\"networking\":{\"type\":\"limited\",\"allowed_cidrs\":$list}}"
	pf policy "$ID" show
	assert_status 0
	assert_out 140.82.112.0/20
}

@test "sandbox-file.md: the least and the greatest size it names are taken, and no less and no more" {
	local least greatest
	read -r least greatest < <(sed -n 's/^| `size` | size, from \([0-9]*[MT]\) to \([0-9]*[MT]\) .*/\1 \2/p' \
		"$DOCS/sandbox-file.md")
	[ -n "$greatest" ]
	create_sandbox "{\"filesystem\":{\"size\":\"$least\"}}"
	config "{\"filesystem\":{\"size\":\"$((${least%M} - 1))M\"}}"
	new_id
	pf create "$ID" --config "$CONFIG"
	assert_refused filesystem.size "$least"
	config "{\"filesystem\":{\"size\":\"$((${greatest%T} + 1))T\"}}"
	pf create "$ID" --config "$CONFIG"
	assert_refused filesystem.size "$greatest"
}
