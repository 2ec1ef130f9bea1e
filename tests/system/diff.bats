# parallel-safe
# pinfold diff: what a session did, for people to review and for patch to apply.

load ../lib/common

setup() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	HELPER="$BUILD/libexec/pinfold/pinfold-store"
	T=$(mktemp -d "${TMPDIR:-/tmp}/pf-diff.XXXXXX")
	mkdir -p "$T/store/images" "$T/a" "$T/b" "$T/image"
}

teardown() {
	[ -n "${T:-}" ] && rm -rf "$T"
}

# take DIR NAME: a checkpoint of a directory as if it were all that a sandbox has written.
take() {
	printf '{"sandbox_id":"s1","name":"%s","base_image":{"ref":"%s","digest":"dir:%s"}}\n' "$2" "$T/image" "$T/image" |
		"$HELPER" --store "$T/store" snapshot-write --upper-fd 9 9<"$1" >"$T/$2.json"
}

both() {
	take "$T/a" one
	take "$T/b" two
}

differ() {
	run "$HELPER" --store "$T/store" diff "$@" one two
	[ "$status" -eq 0 ] || { echo "$output"; false; }
}

texts() {
	mkdir -p "$T/a/src" "$T/b/src" "$T/b/new dir"
	seq 1 40 >"$T/a/src/numbers"
	sed 's/^7$/seven/; 30d' "$T/a/src/numbers" >"$T/b/src/numbers"
	printf 'no end' >"$T/a/src/tail"
	printf 'no end still' >"$T/b/src/tail"
	echo gone >"$T/a/src/deleted"
	echo added >"$T/b/new dir/a file"
	echo same | tee "$T/a/same" >"$T/b/same"
	echo script >"$T/a/tool"
	cp "$T/a/tool" "$T/b/tool"
	chmod 755 "$T/b/tool"
	ln -s /old "$T/a/link"
	ln -s /new "$T/b/link"
	: >"$T/b/empty"
	chmod 755 "$T"/*/*/
}

@test "texts are shown as a unified diff that git apply and patch make the one tree into the other with" {
	texts
	both
	differ
	[[ "$output" == *$'--- a/src/numbers\n+++ b/src/numbers\n@@ -4,7 +4,7 @@\n 4\n 5\n 6\n-7\n+seven\n'* ]] || { echo "$output"; false; }
	[[ "$output" == *'\ No newline at end of file'* ]]
	[[ "$output" != *same* ]]
	printf '%s\n' "$output" >"$T/diff"
	cp -a "$T/a" "$T/git"
	(cd "$T/git" && git apply --whitespace=nowarn "$T/diff")
	diff -r --no-dereference "$T/git" "$T/b"
	[ "$(stat -c %a "$T/git/tool")" = 755 ]
	# patch knows neither links nor modes, but all of the texts.
	cp -a "$T/a" "$T/patched"
	(cd "$T/patched" && patch -s -p1 <"$T/diff") || true
	diff "$T/patched/src/numbers" "$T/b/src/numbers"
	diff "$T/patched/new dir/a file" "$T/b/new dir/a file"
}

@test "what is no text is named with its sizes, and its bytes are not shown" {
	head -c 3000 /dev/urandom >"$T/a/data"
	head -c 5000 /dev/urandom >"$T/b/data"
	printf 'x\0y' | tee -a "$T/a/data" >>"$T/b/data"
	printf 'x\0y' >"$T/b/small"
	truncate -s 3G "$T/b/huge"
	head -c 5000000 /dev/zero | tr '\0' x >"$T/a/long"
	head -c 5000001 /dev/zero | tr '\0' y >"$T/b/long"
	both
	differ
	[[ "$output" == *"Binary files /dev/null and b/small differ (0 B to 3 B)"* ]] || { echo "$output"; false; }
	[[ "$output" == *"Binary files /dev/null and b/huge differ (0 B to 3.2 GB)"* ]] || { echo "$output"; false; }
	[[ "$output" == *"Files too large to be compared by lines, a/long and b/long differ (5.0 MB to 5.0 MB)"* ]] || { echo "$output"; false; }
	[ "${#output}" -lt 2000 ]
}

@test "changes of mode, owner and attributes alone are changes, and say from what to what" {
	for t in a b; do
		mkdir "$T/$t/dir"
		for f in mode owner note cap; do echo text >"$T/$t/$f"; done
	done
	chmod 600 "$T/b/mode"
	chmod 700 "$T/b/dir"
	chown 1000:1001 "$T/b/owner"
	setfattr -n user.note -v old "$T/a/note"
	setfattr -n user.note -v new "$T/b/note"
	setcap cap_net_bind_service=ep "$T/b/cap"
	both
	differ
	[[ "$output" == *$'diff --git a/mode b/mode\nold mode 100644\nnew mode 100600'* ]] || { echo "$output"; false; }
	[[ "$output" == *"Mode of /dir changed: 0755 to 0700"* ]] || { echo "$output"; false; }
	[[ "$output" == *"Owner of /owner changed: 0:0 to 1000:1001"* ]] || { echo "$output"; false; }
	[[ "$output" == *"Attribute user.note of /note changed: old to new"* ]] || { echo "$output"; false; }
	[[ "$output" == *"Attribute security.capability of /cap changed: nothing to "* ]] || { echo "$output"; false; }
	[[ "$output" != *"@@"* ]]
	differ --json
	jq -e '[.entries[]|{path,what}] == [{"path":"/cap","what":["xattrs"]},{"path":"/dir","what":["mode"]},
		{"path":"/mode","what":["mode"]},{"path":"/note","what":["xattrs"]},{"path":"/owner","what":["owner"]}]' <<<"$output"
	jq -e '.entries[2] | .old_mode == "0644" and .mode == "0600"' <<<"$output"
	jq -e '.entries[3].xattrs == ["user.note"]' <<<"$output"
}

@test "a name that became another thing is shown as gone and come" {
	echo text >"$T/a/thing"
	ln -s target "$T/b/thing"
	mkdir "$T/a/dir"
	echo text >"$T/b/dir"
	both
	differ
	[[ "$output" == *"Directory /dir deleted"* ]] || { echo "$output"; false; }
	[[ "$output" == *$'deleted file mode 100644\n--- a/thing'* ]] || { echo "$output"; false; }
	[[ "$output" == *$'new file mode 120000\n--- /dev/null\n+++ b/thing\n@@ -0,0 +1 @@\n+target'* ]] || { echo "$output"; false; }
}

@test "--stat, --name-only and --json tell the names without the texts" {
	texts
	both
	differ --stat
	[[ "$output" == *"C           +1  /src/numbers"* ]] || { echo "$output"; false; }
	[[ "$output" == *" added ("*" changed ("*" deleted ("* ]]
	[[ "$output" != *seven* ]]
	differ --name-only
	[[ "$output" == *"/src/numbers"* && "$output" != *"+"* ]]
	differ --json
	jq -e '.entries | map(select(.path=="/src/numbers"))[0] | .change=="changed" and .what==["content"]' <<<"$output"
}

@test "colours go to a terminal alone, and a terminal gets no control characters of a file or name" {
	printf 'safe\n' >"$T/a/text"
	printf 'safe\n\033]0;title\007 and \xc2\x9b31m and \xff\n' >"$T/b/text"
	printf 'x\n' >"$T/b/"$'name\033[2J'
	both
	differ
	[[ "$output" == *$'\033]0;title\007'* ]]
	[[ "$output" == *'"b/name\033[2J"'* ]] || { echo "$output"; false; }
	[[ "$output" != *$'\033[3'* ]]
	run script -qec "$HELPER --store $T/store diff one two" /dev/null
	[[ "$output" == *$'\033[32m+'* ]] || { echo "$output"; false; }
	[[ "$output" == *'\033]0;title\007 and \302\23331m and \377'* ]] || { echo "$output"; false; }
	[[ "$output" != *$'\033]0;'* && "$output" != *$'\xc2\x9b'* && "$output" != *$'\033[2J'* ]]
	NO_COLOR=1 run script -qec "$HELPER --store $T/store diff one two" /dev/null
	[[ "$output" != *$'\033[3'* ]]
}

@test "--unified says how many lines stand around a change" {
	texts
	both
	differ --unified 0
	[[ "$output" == *$'@@ -7 +7 @@\n-7\n+seven\n'* ]] || { echo "$output"; false; }
	run "$HELPER" --store "$T/store" diff --unified x one two
	[ "$status" -eq 125 ]
	[[ "$output" == *--unified* ]]
}
