# --keep and --from: what was written to an overlay becomes a checkpoint in the user's own store, and a later jail goes on
# from it.
# parallel-safe
load lib
setup_file() {
	local prefix
	jail_file
	# Beside the helper, as it is installed.
	prefix=${JAIL_BIN%/bin}
	mkdir -p "$prefix/libexec/pinfold"
	cp "$BUILD/bin/pinfold" "$JAIL_BIN"
	cp "$BUILD/libexec/pinfold/pinfold-store" "$prefix/libexec/pinfold"
}
teardown_file() { jail_file_end; }
setup() {
	jail_setup
	for who in user root; do
		t="$PF_DIR/$who/tree"
		mkdir -p "$t/dir/deep" "$t/gone/sub"
		echo one >"$t/a" && echo two >"$t/dir/b" && echo three >"$t/gone/sub/c" && ln -s a "$t/link"
	done
	chown -R "$JAIL_UID:$JAIL_UID" "$PF_DIR/user/tree"
	mkdir -m 1777 "$PF_DIR/scratch"
	WITH=("TMPDIR=$PF_DIR/scratch")
}
teardown() {
	local left
	left=$(ls -A "$PF_DIR/scratch" 2>/dev/null
		find "$PF_DIR"/*/.local/state/pinfold -path '*pinfold-jail-*' 2>/dev/null
		find "$PF_DIR"/*/.local/state/pinfold/checkpoints/tmp -mindepth 1 2>/dev/null)
	[ -z "$left" ] || show "left:" "$left"
	jail_teardown
}

listing() { (cd "$(tree)" && find . -printf '%P %y %m %s %l\n' | sort && cat a dir/* 2>/dev/null | sort); }
# The store's own command as $AS, on that user's store.
store() { (as "$JAIL_BIN/pinfold" --store "$(home)/.local/state/${IN_STORE:-pinfold}" checkpoint "$@"); }

round_trip() {
	local before
	before=$(listing)
	pj --keep first -- sh -ec 'echo 1 >new; echo changed >a; rm -r gone; mkdir gone; echo 2 >gone/other; rm dir/b
		mkdir -p x/y; chmod 700 x; echo deep >x/y/f; ln x/y/f x/y/g; ln -s /etc/passwd out; mkfifo pipe; chmod 640 new
		touch -d 2001-02-03 x/y/f; truncate -s 1M hole; mkdir shut; echo s >shut/s; chmod 0 shut; exit 3'
	assert_status 3
	assert_err "kept as first (sha256:"
	assert_equal "$(listing)" "$before"
	# It is an ordinary checkpoint.
	assert_equal "$(store ls --json | jq -r '.[] | .name + " " + .sandbox_id + " " + .base_image.ref')" "first jail jail"
	store verify --all >/dev/null
	store inspect first | jq -e --arg t "$(tree)" '[.. | .writable_paths? // empty] == [[$t]]' >/dev/null
	# And what it holds is there again, with all that a command can see.
	pj --from first -- sh -ec 'cat new a gone/other x/y/f; ls gone dir; stat -c "%a %n" x new shut; readlink out; test -p pipe
		stat -c %y x/y/f | cut -d. -f1; stat -c %s hole; test ! -e gone/sub; chmod 755 shut; cat shut/s; stat -c %u a new'
	assert_status 0
	local id=0
	[ "$AS" = root ] || id=$JAIL_UID
	assert_equal "$(xargs <<<"$output")" \
		"1 changed 2 deep dir: deep gone: other 700 x 640 new 0 shut /etc/passwd 2001-02-03 00:00:00 1048576 s $id $id"
	assert_equal "$(listing)" "$before"
	# Without root too it is unpacked, written as a tar, imported elsewhere, and removed with directories that nobody may enter.
	store prepare first >/dev/null
	store export first --to "tar:$PF_DIR/scratch/$AS.tar" >/dev/null
	tar -tf "$PF_DIR/scratch/$AS.tar" >"$PF_DIR/list"
	grep -qx 0/x/y/f "$PF_DIR/list" && grep -qx 0/gone/other "$PF_DIR/list"
	[ "$(grep -c dir/b "$PF_DIR/list")" = 0 ]
	store export first --to "oci:$PF_DIR/scratch/$AS.oci" >/dev/null
	IN_STORE=other store import "oci:$PF_DIR/scratch/$AS.oci" >/dev/null
	IN_STORE=other store rm first >/dev/null
	[ -z "$(ls -A "$(home)/.local/state/other/checkpoints/unpacked")" ]
	rm -rf "$PF_DIR/scratch/$AS".*
	(as "$JAIL_BIN/pinfold" --root "$PF_DIR/$AS/run" --store "$(home)/.local/state/pinfold" create made-of-a-jail --from first) 2>"$PF_DIR/said" && return 1
	grep -q "pinfold-jail --from" "$PF_DIR/said"
}
@test "what was kept is there again: contents, deletions, whole directories, links, modes, times" {
	each round_trip
}

goes_on() {
	pj --keep one -- sh -ec 'echo 1 >new; rm -r gone; mkdir gone; echo g >gone/g; echo x >a'
	assert_status 0
	# Another thing by the user meanwhile.
	echo mine >"$(tree)/mine"
	pj --from one --keep two -- sh -ec 'cat mine; echo 2 >>new; rm a; echo 2 >second'
	assert_status 0
	assert_equal "$output" mine
	pj --from two --json --commit -- sh -ec 'cat new >>second'
	assert_status 0
	assert_json '.committed and ([.changes[] | .change[0:1] + " " + (.path | split("/") | last)] | sort) ==
		(["a new", "a second", "d a", "d gone", "a g", "a gone"] | sort)'
	cd "$(tree)" || return
	assert_equal "$(cat new second gone/g)" $'1\n2\n2\n1\n2\ng'
	[ ! -e a ]
	[ ! -e gone/sub ]
	[ -e mine ]
	assert_equal "$(store inspect two | jq -r '.. | .parent? // empty' | sort -u)" \
		"$(store ls --json | jq -r '.[] | select(.name == "one") | .checkpoint')"
	# latest is the newest that a jail kept.
	rm -rf gone new second
	pj --from latest --diff -- true
	assert_status 0
	assert_out "A $(tree)/second"
}
@test "--from goes on with all that differs from the real directories; --diff, --commit and --keep see all of it" {
	each goes_on
}

several() {
	local other="$PF_DIR/$AS/other"
	mkdir "$other" "$(tree)/dir/inner"
	chown "$(stat -c %u:%g "$(tree)")" "$other" "$(tree)/dir/inner"
	pj --keep three --rw . --rw "$other" --rw dir/inner -- sh -c "echo 1 >x; echo 2 >$other/x; echo 3 >dir/inner/x"
	assert_status 0
	# Options in another order, and one more.
	mkdir -p "$PF_DIR/$AS/more"
	chown "$(stat -c %u:%g "$(tree)")" "$PF_DIR/$AS/more"
	pj --from three --rw "$PF_DIR/$AS/more" --rw "$other" --rw dir/inner --rw . -- \
		sh -c "cat x $other/x dir/inner/x; echo 4 >$PF_DIR/$AS/more/x"
	assert_status 0
	assert_equal "$(xargs <<<"$output")" "1 2 3"
	# What a checkpoint names is not shown for that.
	pj --from three --rw "$other" -- true
	assert_status 125
	assert_err "--rw $(tree) "
	rm -rf "$other" "$PF_DIR/$AS/more"
}
@test "several directories, nested ones too, find their own again; none is shown because a checkpoint says so" {
	each several
}

refused() {
	pj --keep taken -- true
	assert_status 0
	pj --keep taken -- touch "$PF_DIR/shared/ran"
	assert_status 125
	assert_err "checkpoint rm taken"
	pj --keep latest -- true
	assert_refused latest
	pj --keep ../x -- true
	assert_refused x
	pj --keep y --store relative -- true
	assert_refused absolute
	pj --from nothing -- true
	assert_refused nothing
	[ ! -e "$PF_DIR/shared/ran" ]
	# Damaged: a byte of the layer.
	local blob
	blob=$(find "$(home)/.local/state/pinfold/checkpoints" -type f -size +1 ! -name '*.json' ! -name lock -printf '%s %p\n' |
		sort -n | tail -n 1 | cut -d' ' -f2)
	printf '\377\377\377\377' | dd of="$blob" bs=1 seek=20 conv=notrunc status=none
	pj --from taken -- true
	assert_status 125
	pj --from taken --store "$PF_DIR/none" -- true
	assert_status 125
	[ ! -e "$PF_DIR/none" ]
}
@test "a taken name, a bad one, none and a damaged checkpoint are errors before anything runs" {
	each refused
}

inside_what_is_overlaid() {
	pj --store "$(tree)/store" --keep in -- sh -c 'echo x >f; ls store/checkpoints >/dev/null'
	assert_status 0
	assert_equal "$(as "$JAIL_BIN/pinfold" --store "$(tree)/store" checkpoint ls --quiet | wc -l)" 1
	[ ! -e "$(tree)/f" ]
	pj --store "$(tree)/store" --from in --commit -- cat f
	assert_status 0
	assert_equal "$output" x
	assert_equal "$(<"$(tree)/f")" x
	[ -z "$(find "$(tree)/store" -maxdepth 1 -name 'pinfold-jail-*')" ]
	rm -rf "$(tree)/store" "$(tree)/f"
}
@test "a store in an overlaid directory is the real one, and so is what goes on from there" {
	each inside_what_is_overlaid
}

at_once() {
	pj --keep base -- sh -c 'i=0; while [ $i -lt 200 ]; do echo $i >f$i; i=$((i+1)); done'
	assert_status 0
	local i
	for i in 1 2 3 4; do
		(as "$JAIL_BIN/pinfold-jail" --from base --keep "n$i" -- sh -c "ls | wc -l; echo $i >own") >"$PF_DIR/out$i" 2>&1 3>&- &
	done
	wait
	for i in 1 2 3 4; do assert_equal "$(sed -n '/^[0-9]*$/p' "$PF_DIR/out$i")" "$(($(find "$(tree)" -mindepth 1 -maxdepth 1 | wc -l) + 200))"; done
	assert_equal "$(store ls --quiet | wc -l)" 5
}
@test "several jails from one checkpoint at once do not disturb each other" {
	each at_once
}

trusted() {
	local cache
	cache=$(home)/.cache/pinfold
	mkdir -p "$cache"
	[ "$AS" = root ] || chown -R "$JAIL_UID:$JAIL_UID" "$(home)/.cache"
	local store=(--store "$PF_DIR/shared/store-$AS" --rw "$(home)")
	pj "${store[@]}" --keep poison -- sh -c "mkdir $cache/poison; touch $(home)/kept"
	assert_status 0
	pj "${store[@]}" --from poison --commit -- true
	assert_status 0
	[ -e "$(home)/kept" ] && [ ! -e "$cache/poison" ] || show "by a checkpoint"
	# One of a run for which these places were others.
	WITH=(HOME="$PF_DIR/shared")
	pj "${store[@]}" --keep other -- mkdir "$cache/poison"
	assert_status 0
	pj "${store[@]}" --keep gone -- mv "$cache" "$cache-old"
	assert_status 0
	WITH=()
	for k in other gone; do
		pj "${store[@]}" --from $k --commit -- true
		assert_refused "checkpoint $k" "later jails trust"
	done
	[ -e "$cache" ] && [ ! -e "$cache/poison" ] || show "by a checkpoint of another environment"
	rm -rf "$PF_DIR/shared/store-$AS"
}
@test "no checkpoint brings into the caller's cache what a command wrote there" {
	each trusted
}
