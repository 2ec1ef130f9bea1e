# parallel-safe
# What is said about files: --rw --ro --hide --tmpfs --home --size --cwd, profiles, --explain.
load lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() { jail_setup; }
teardown() { jail_teardown; }

own() { [ "$AS" = root ] || chown -R "$JAIL_UID:$JAIL_UID" "$PF_DIR/user"; }

nesting() {
	local t
	t=$(tree)
	mkdir -p "$t/a/b/c/d"
	for d in a a/b a/b/c a/b/c/d; do echo "$d" >"$t/$d/f"; done
	own
	local rules=("--rw $t/a" "--ro $t/a/b" "--hide $t/a/b/c" "--rw $t/a/b/c/d") order
	for order in "0 1 2 3" "3 2 1 0" "2 0 3 1"; do
		local args=()
		# shellcheck disable=SC2206
		for i in $order; do args+=(${rules[i]}); done
		inside 'cat a/f a/b/f a/b/c/d/f; ls a/b/c; for d in a a/b a/b/c a/b/c/d; do
			(echo new >$d/f) 2>/dev/null && echo "wrote $d"; done; echo done' "${args[@]}"
		assert_equal "$(xargs <<<"$output")" "a a/b a/b/c/d d wrote a wrote a/b/c/d done"
		for d in a a/b/c/d; do assert_equal "$(<"$t/$d/f")" new; echo "$d" >"$t/$d/f"; done
		own
	done
	rm -rf "${t:?}"/a
}
@test "rules nest by depth in whatever order they are given" {
	each nesting
}

last_wins() {
	inside '(: >x) 2>/dev/null || echo no' --rw . --ro .
	assert_equal "$output" no
	inside ': >x && rm x && echo yes' --ro . --rw .
	assert_equal "$output" yes
}
@test "of two rules for one place the later one holds" {
	each last_wins
}

missing() {
	local option
	for option in --rw --ro --hide; do
		pj $option "$(tree)/no/such/place" -- true
		assert_refused "$(tree)/no/such/place" "$(tree) is there"
		pj $option no/such/place -- true
		assert_refused no/such/place
	done
	inside 'echo ran' --rw-try "$(tree)/none" --ro-try none --rw-try .
	assert_equal "$output" ran
	pj --rw-try ../../../../../../proc/1 -- true
	assert_refused /proc
}
@test "a path that is not there is an error that names the nearest that is; -try lets it pass" {
	each missing
}

symlinks() {
	local t
	t=$(tree)
	mkdir -p "$t/real" "$(home)/elsewhere"
	echo secret >"$(home)/elsewhere/f"
	ln -sfn "$t/real" "$t/link"
	ln -sfn "$(home)/elsewhere" "$t/real/out"
	own
	inside 'echo x >link/f; cat real/f; cat real/out/f 2>/dev/null || echo hidden' --rw link
	assert_equal "$(xargs <<<"$output")" "x hidden"
	inside 'cat real/out/f' --ro "$t/link/out"
	assert_equal "$output" secret
	rm -rf "${t:?}"/* "$(home)/elsewhere"
}
@test "a link in an argument is followed once, to where it leads; a link inside leads nowhere that is not shown" {
	each symlinks
}

files() {
	local t
	t=$(tree)
	echo one >"$t/one"
	echo two >"$t/two"
	own
	inside 'cat one; cat two; (echo x >one) 2>/dev/null; echo y >>two; wc -c <one' --hide one --rw two
	assert_equal "$(xargs <<<"$output")" "two 0"
	assert_equal "$(xargs <"$t/two")" "two y"
	assert_equal "$(<"$t/one")" one
	inside 'echo x >sub/f && cat sub/f && ls sub' --tmpfs "$t/sub" --rw .
	assert_equal "$(xargs <<<"$output")" "x f"
	[ ! -e "$t/sub/f" ]
	rm -rf "${t:?}"/*
}
@test "rules are for files too; --tmpfs is writable and gone after it" {
	each files
}

too_much() {
	local p
	for p in / /proc /proc/self /proc/1/root; do
		pj --ro "$p" -- true
		assert_status 125
		assert_err "$p"
	done
	pj --rw "" -- true
	assert_refused "--rw"
	pj --tmpfs / -- true
	assert_refused "--tmpfs"
}
@test "the whole machine, its /proc, and no name at all are no paths to show" {
	each too_much
}

homes() {
	local h
	h=$(home)
	inside 'cat ~/.ssh/id; (: >~/x) 2>/dev/null || echo ro' --home keep
	assert_equal "$(xargs <<<"$output")" "key-of-$AS ro"
	mkdir "$PF_DIR/$AS/h2"
	own
	inside 'echo $HOME; : >~/x; ls ~' --home "$h/h2"
	assert_out "$h"
	[ -e "$h/h2/x" ]
	inside 'ls -A ~; : >~/x' --home private
	assert_equal "$output" tree
	pj --home "$h/.ssh/id" -- true
	assert_refused "--home" "no directory"
	pj --home "$h/none" -- true
	assert_refused "$h/none"
	rm -rf "$h/h2"
}
@test "--home is private, one's own read-only, or another directory" {
	each homes
}

home_is_not_shown() {
	IN=$(home)
	pj -- sh -c 'cat .ssh/id 2>/dev/null || echo hidden'
	assert_status 0
	assert_equal "$output" hidden
	assert_err "stays hidden"
	inside 'cat .ssh/id' --ro .
	assert_equal "$output" "key-of-$AS"
	IN=$PF_DIR
	pj -- sh -c "cat $AS/.ssh/id 2>/dev/null || echo hidden"
	assert_equal "$output" hidden
}
@test "started in the home or above it, it does not show it, and says so" {
	each home_is_not_shown
}

sizes() {
	inside 'for d in /tmp ~ /var/tmp /dev/shm /run; do
		dd if=/dev/zero of=$d/f bs=64k count=64 2>&1 | grep -o "No space left"; stat -c %s $d/f; done' --size 1M
	assert_equal "$(sort -u <<<"$output" | xargs)" "1048576 No space left"
	inside 'dd if=/dev/zero of=/tmp/f bs=64k count=64 2>/dev/null; stat -c %s /tmp/f'
	assert_equal "$output" 4194304
	pj --size lots -- true
	assert_refused size lots
}
@test "--size bounds each scratch file system: ENOSPC" {
	each sizes
}

cwds() {
	mkdir -p "$(tree)/sub"
	echo here >"$(tree)/sub/f"
	own
	inside 'pwd; cat f' --cwd sub
	assert_equal "$(xargs <<<"$output")" "$(tree)/sub here"
	inside 'pwd' -C /usr/share
	assert_equal "$output" /usr/share
	pj --cwd "$(tree)/none" -- true
	assert_refused cwd "$(tree)/none"
	rm -rf "${PF_DIR:?}/$AS/tree/sub"
}
@test "--cwd is where it starts, and what is shown then" {
	each cwds
}

profiles() {
	cat >"$PF_DIR/p.json" <<-END
		{"filesystem":{"writable_paths":["./out"],"read_only_paths":["~/.ssh"],"size":"4M"},
		 "resources":{"pids":20},"env":{"FROM":"profile"},"limits":{"max_runtime":"20s"}}
	END
	mkdir -p "$(tree)/out"
	own
	inside 'cat ~/.ssh/id; echo x >out/f; (: >./g) 2>/dev/null || echo ro; echo $FROM
		dd if=/dev/zero of=/tmp/f bs=64k count=96 2>/dev/null; stat -c %s /tmp/f' --profile "$PF_DIR/p.json"
	assert_equal "$(xargs <<<"$output")" "key-of-$AS ro profile 4194304"
	[ -e "$(tree)/out/f" ]
	inside '(: >out/g) 2>/dev/null || echo ro; echo $FROM' --profile "$PF_DIR/p.json" --ro out --env FROM=me
	assert_equal "$(xargs <<<"$output")" "ro me"
	pj --profile nonesuch -- true
	assert_refused nonesuch
	echo '{"filesystem":{"writeable_paths":[]}}' >"$PF_DIR/p.json"
	pj --profile "$PF_DIR/p.json" -- true
	assert_refused writeable_paths writable_paths
	echo '{"image":"host"}' >"$PF_DIR/p.json"
	pj --profile "$PF_DIR/p.json" -- true
	assert_refused image
	rm -rf "$(tree)/out"
}
@test "a profile is a sandbox file; what is given beside it wins; what a jail cannot keep is refused" {
	each profiles
}

explained() {
	pj --rw . --hide "$(home)/.ssh" --allow example.com --memory 64M --timeout 5s --explain -- sh -c 'touch x; exit 3'
	assert_status 0
	[ ! -e "$(tree)/x" ]
	for w in "$(tree)" writable hidden example.com 64 "5.0 s"; do assert_out "$w"; done
	pj --explain --json --pids 9 -- true
	assert_json '.limits.pids == 9 and .networking.type == "none" and (.files | map(.path) | index("/usr")) and .cwd'
}
@test "--explain says what would be done and does nothing" {
	each explained
}

mistakes() {
	pj --rww . -- true
	assert_status 125
	assert_err "did you mean --rw"
	pj --memory -- true
	assert_status 125
	pj
	assert_status 125
	assert_err "no command given"
	pj --timeout
	assert_status 125
	assert_err "needs a value"
	pj --help
	assert_status 0
	assert_out "usage: pinfold-jail"
	pj --version
	assert_out "pinfold-jail "
	inside 'echo $0 "$@"'
	pj -- echo --rw -v --
	assert_equal "$output" "--rw -v --"
	pj echo -v
	assert_equal "$output" "-v"
}
@test "what is not understood is named, with the nearest option" {
	each mistakes
}

places_with_odd_names() {
	local t
	t=$(tree)
	local d
	for d in "with space" $'new\nline' 'back\slash' 'comma,colon:' "ünïcode" '-dash' '%s%n' '[glob]*'; do
		mkdir -p "$t/$d"
		echo "in" >"$t/$d/f"
		own
		inside 'cat "$D/f"; echo w >"$D/f"' --rw "$t/$d" --env "D=$t/$d"
		assert_equal "$output" in
		assert_equal "$(<"$t/$d/f")" w
	done
	rm -rf "${t:?}"/*
}
@test "paths may have any name" {
	each places_with_odd_names
}
