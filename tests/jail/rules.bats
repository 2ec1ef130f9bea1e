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
	# Over what every command has, and a directory like any other.
	mkdir "$(tree)/data"
	own
	cat >"$PF_DIR/p.json" <<-END
		{"env":{"PATH":"/usr/bin:/opt/mine","HOME":"/tmp","LANG":"C"},
		 "filesystem":{"mounts":[{"source":"$(tree)/data","target":"/data","read_only":false}]}}
	END
	inside 'echo "$PATH $HOME $LANG"; echo x >/data/f; cat /data/f' --overlay --profile "$PF_DIR/p.json" --env LANG=mine
	assert_equal "$(xargs <<<"$output")" "/usr/bin:/opt/mine /tmp mine x"
	[ ! -e "$(tree)/data/f" ]
	rmdir "$(tree)/data"
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

trusted_profiles() {
	local p="$PF_DIR/$AS/own.json" d="$PF_DIR/$AS/.config/pinfold/profiles"
	mkdir -p "$d"
	echo '{"env":{"FROM":"own"}}' >"$p"
	cp "$p" "$d/mine.json"
	own
	chown -R "$(stat -c %u:%g "$(tree)")" "$p" "$PF_DIR/$AS/.config"
	inside 'echo $FROM' --profile "$p"
	assert_equal "$output" own
	inside 'echo $FROM' --profile mine
	assert_equal "$output" own
	for mode in 664 646; do
		chmod "$mode" "$p" "$d/mine.json"
		pj --profile "$p" -- true
		assert_refused "chmod go-w $p"
		pj --profile mine -- true
		assert_refused "chmod go-w $d/mine.json"
	done
	chmod 644 "$p" "$d/mine.json"
	chmod 777 "$d"
	pj --profile mine -- true
	assert_refused "chmod go-w $d"
	chmod 755 "$d"
	chown 12345 "$p" "$d/mine.json"
	pj --profile "$p" -- true
	assert_refused "belongs to user 12345"
	pj --profile mine -- true
	assert_refused "belongs to user 12345"
	# Nor can a command write one, whatever it is shown.
	rm "$d/mine.json"
	pj --rw "$(home)" -- sh -c "echo '{}' >$d/mine.json || mv $(home)/.config $(home)/other"
	[ "$status" != 0 ] && [ ! -e "$d/mine.json" ] || show "a command wrote a profile"
	mkfifo "$p.fifo"
	chown "$(stat -c %u "$(tree)")" "$p.fifo"
	pj --profile "$p.fifo" -- true
	assert_refused "no file"
	rm -rf "$p" "$p.fifo" "$PF_DIR/$AS/.config"
}
@test "a profile that somebody else could write is refused, with what to do; no command writes one" {
	each trusted_profiles
}

texts() {
	local want
	while IFS='|' read -r args want; do
		eval "pj $args -- true"
		assert_status 125
		assert_err "$want"
	done <<-'END'
		--cwd ''|--cwd: the path is empty
		--cwd /etc/nope/x|(/etc is there)
		--cwd /etc/passwd|--cwd /etc/passwd: Not a directory
		--allow a..b:99999|--allow a..b:99999: 'a..b' is no host name
		--allow a.example:99999|--allow a.example:99999: port: '99999'
		--allow ''|--allow : '' is no host name
		--tmpfs ''|--tmpfs: the path is empty
		--bind-env ''|--env NAME=VALUE sets one
		--seccomp ''|default, strict, off or a file
		--profile ./nope.json|--profile ./nope.json
		--learn --seccomp off|leave --seccomp out
		--overlay --rw /etc/passwd|name the one that it is in
	END
	pj --memory 10 -- true
	# Ended by whoever comes first: the one who watches, or the kernel that gives it no page.
	if [ "$AS" = root ]; then assert_refused "--memory 10"; else [[ "$status" = 137 || "$status" = 139 ]] || show; fi
}
@test "what cannot be is said with what to do" {
	each texts
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
