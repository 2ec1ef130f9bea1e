# parallel-safe
# Bundles and ids that are wrong: refused by name, with nothing left.
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

@test "config.json: missing, malformed, of a wrong version, with wrong types, huge" {
	printf '{"ociVersion": ' >"$BUNDLE/config.json"
	assert_create_refused "not valid JSON"
	rm "$BUNDLE/config.json"
	assert_create_refused config.json "No such file"
	"$PINFOLD" spec --bundle "$BUNDLE"
	edit '.process.terminal = false | .ociVersion = "2.0.0"'
	assert_create_refused ociVersion
	edit 'del(.ociVersion)'
	assert_create_refused ociVersion
	edit '.ociVersion = "1.0.0" | .process.args = "sh"'
	assert_create_refused process.args
	edit '.process.args = []'
	assert_create_refused process.args
	edit '.process.args = ["true"] | .process.cwd = "relative"'
	assert_create_refused process.cwd
	edit '.process.cwd = "/" | .annotations = {a: $x}' --rawfile x <(head -c 9000000 /dev/zero | tr '\0' x)
	assert_create_refused config.json
	edit '.annotations = {a: $x}' --rawfile x <(head -c 5000000 /dev/zero | tr '\0' x)
	run_bundle 'echo five megabytes'
	assert_equal "$output" "five megabytes"
}

@test "ids that are no names are refused" {
	local id
	for id in ../x a/b '' .hidden "$(printf 'a%.0s' {1..200})"; do
		pf create --bundle "$BUNDLE" -- "$id"
		[ "$status" != 0 ]
	done
	[ ! -e "$ROOT/../x" ]
}
