# --overlay, --diff, --commit: what is written goes to a scratch layer, can be looked at, and made real.
# parallel-safe
load lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() {
	jail_setup
	for who in user root; do
		t="$PF_DIR/$who/tree"
		mkdir -p "$t/dir/deep" "$t/gone/sub" "$t/swap"
		echo one >"$t/a" && echo two >"$t/dir/b" && echo three >"$t/gone/sub/c" && echo four >"$t/swap/d"
		echo "with space" >"$t/dir/n a m e" && ln -s a "$t/link" && chmod 640 "$t/a"
	done
	chown -R "$JAIL_UID:$JAIL_UID" "$PF_DIR/user/tree"
	# Nothing may stay in the place of scratch layers.
	mkdir -m 1777 "$PF_DIR/scratch"
	WITH=("TMPDIR=$PF_DIR/scratch")
}
teardown() {
	[ -z "$(ls -A "$PF_DIR/scratch" 2>/dev/null)" ] || show "scratch left:" "$(find "$PF_DIR/scratch")"
	jail_teardown
}

EDIT='echo 1 >new; echo changed >a; rm -r gone; mkdir gone; echo 2 >gone/other; rm dir/b; ln -sfn dir link
	rm -r swap; echo file >swap; mkdir -p x/y/z; echo deep >x/y/z/f; chmod 600 "dir/n a m e"; mkfifo pipe; touch -d 2001-01-01 dir/deep
	cp /bin/true tool; chmod 4755 tool'
WANT='D gone/
A gone/
A gone/other
A new
A pipe
A tool
A x/
A x/y/
A x/y/z/
A x/y/z/f
D dir/b
M a
M dir/n a m e
M link
M swap'

listing() { (cd "$(tree)" && find . -printf '%P %y %m %s %l\n' | sort && cat a dir/* gone/* 2>/dev/null | sort); }

throw_away() {
	local before
	before=$(listing)
	pj --diff -- sh -ec "$EDIT"
	assert_status 0
	assert_equal "$(sed "s,$(tree)/,," <<<"$output" | sort)" "$(sort <<<"$WANT")"
	assert_equal "$(listing)" "$before"
	# No name hides a line, forges one or speaks to the terminal.
	pj --diff -- touch $'x\e[2K\nM fake' $'c1\302\233'
	assert_equal "$(sed "s,$(tree)/,," <<<"$output" | sort)" 'A "c1\302\233"
A "x\033[2K\012M fake"'
}
@test "--diff lists what was written, by name and kind, and nothing of it is real" {
	each throw_away
}

make_real() {
	pj --commit -- sh -ec "$EDIT"
	assert_status 0
	cd "$(tree)" || return
	assert_equal "$(cat new a gone/other swap x/y/z/f)" $'1\nchanged\n2\nfile\ndeep'
	[ ! -e gone/sub ]
	[ ! -e dir/b ]
	[ -p pipe ]
	[ -f swap ]
	assert_equal "$(readlink link)" dir
	assert_equal "$(stat -c %a a 'dir/n a m e' tool | xargs)" "640 600 755" # no set-id bit is taken over
	[ -z "$(find . ! -user "$(stat -c %U .)")" ]
	[ -z "$(find . -name '.pinfold-*')" ]
}
@test "--commit makes it real: files, links, deletions, whole directories in the place of others, without set-id bits" {
	each make_real
}

only_on_success() {
	local before
	before=$(listing)
	pj --json --commit -- sh -c 'echo x >a; exit 3'
	assert_status 3
	assert_json '.committed == false and (.changes | map(select(.change == "modified")) | length == 1)'
	assert_equal "$(listing)" "$before"
}
@test "--commit does nothing when the command fails" {
	each only_on_success
}

nothing() {
	pj --diff -- sh -c 'cat a dir/b >/dev/null; echo one >a; touch dir'
	assert_status 0
	assert_equal "$output" ""
}
@test "what was read, touched, or written as it was before, is no change" {
	each nothing
}

only_its_own() {
	# In the home, with all that jails keep there.
	rm -rf "$(home)/.cache"
	IN=$(home)
	pj --diff --rw "$(home)" -- sh -c 'echo x >f'
	IN=
	assert_status 0
	assert_equal "$output" "A $(home)/f"
	[ -d "$(home)/.cache/pinfold" ]
	[ ! -e "$(home)/f" ]
}
@test "what pinfold-jail itself keeps for later goes to the real home, and is no change" {
	each only_its_own
}

others() {
	mkdir "$PF_DIR/$AS/other"
	chown "$(stat -c %u:%g "$(tree)")" "$PF_DIR/$AS/other"
	pj --diff --rw "$PF_DIR/$AS/other" -- sh -c "echo x >$PF_DIR/$AS/other/f; echo y >a 2>/dev/null || echo read-only"
	assert_status 0
	assert_equal "$output" "read-only
A $PF_DIR/$AS/other/f"
	[ ! -e "$PF_DIR/$AS/other/f" ]
}
@test "with --rw the places named are overlaid, and the working directory stays read-only" {
	each others
}

hostile() {
	# Directories without rights, names of all kinds, links that lead out, deep nesting.
	pj --diff -- sh -ec 'mkdir -p shut/in; echo x >shut/in/f; chmod 0 shut/in shut; ln -s /etc/passwd out; ln -s ../../.. up
		printf x >"$(printf "new\nline")"; i=0; while [ $i -lt 60 ]; do mkdir d; cd d; i=$((i+1)); done; chmod 0 .'
	assert_status 0
	pj --commit -- sh -ec 'ln -s /etc outdir; rm -r dir; ln -s /etc dir; mkdir -p t; ln -s /etc/passwd t/p'
	assert_status 0
	assert_equal "$(readlink "$(tree)/dir") $(readlink "$(tree)/t/p")" "/etc /etc/passwd"
}
@test "a tree made to be in the way is listed and removed; links are taken as links" {
	each hostile
}

killed() {
	start_jail --overlay -- sh -c 'echo x >big; chmod 0 .; echo ready; sleep 60'
	wait_for 10 has "$PF_DIR/out" ready
	kill -9 "$pid"
	wait "$pid" 2>/dev/null || true
	wait_for 10 empty_scratch
	[ ! -e "$(tree)/big" ]
}
empty_scratch() { [ -z "$(ls -A "$PF_DIR/scratch")" ]; }
@test "kill -9 of pinfold-jail leaves no scratch layer" {
	each killed
}
