# parallel-safe
# A full disk under the checkpoint store: whatever is under way fails with one error that says so, nothing half-made is
# left, what was there is whole, and once there is room the same thing works.

load ../lib/common

setup() {
	need_root
	need mke2fs jq
	[ -w /dev/loop-control ] || skip "needs loop devices"
	common_setup
	STORE="$PF_DIR/store"
	DISK="$STORE/checkpoints" # a small one; sandboxes are elsewhere
	mkdir -m 700 "$STORE" "$DISK"
	IMAGE=$(mktemp "$([ "$(stat -f -c %T /dev/shm)" = tmpfs ] && echo /dev/shm || echo "$PF_DIR")/pinfold-disk.XXXXXX")
	truncate -s 24M "$IMAGE"
	mke2fs -q -t ext4 -O ^has_journal -m 0 "$IMAGE"
	mount -o loop "$IMAGE" "$DISK" 2>/dev/null || skip "cannot mount a loop device"
	chmod 700 "$DISK"
	rmdir "$DISK/lost+found"
}

teardown() {
	[ -z "${DISK:-}" ] || ! mountpoint -q "$DISK" || wait_for 30 umount "$DISK"
	[ -z "${IMAGE:-}" ] || rm -f "$IMAGE"
	common_teardown
}

# Not a block is free.
fill_disk() {
	sync -f "$DISK"
	head -c 40M /dev/zero >"$DISK/ballast" 2>/dev/null || true
	sync -f "$DISK"
	head -c 1M /dev/zero >>"$DISK/ballast" 2>/dev/null || true
}
make_room() { rm "$DISK/ballast"; }

# Everything in the store but its locks.
listing() { (cd "$DISK" && find . ! -name ballast ! -name '*lock' | sort); }

# It fails for want of room, and nothing has come of it.
fails_full() { # ARGUMENT of pinfold...
	local before
	before=$(listing)
	pf "$@"
	assert_status 125
	assert_err "No space left on device"
	[ "$(wc -l <<<"$stderr")" = 1 ] || show "one line was expected"
	assert_equal "$(listing)" "$before"
}

make_files() {
	create_sandbox
	pinfold exec "$ID" -- sh -c "head -c 3M /dev/urandom >/workspace/random; yes | head -c 6M >/workspace/text"
}

@test "snapshot and create --from on a full disk fail, leave nothing, and work when there is room" {
	make_files
	local first=$ID
	fill_disk
	fails_full snapshot "$first" --name one
	make_room
	pinfold snapshot "$first" --name one >/dev/null
	# Some room, and too little: 8 MB are free.
	pinfold exec "$first" -- sh -c "head -c 12M /dev/urandom >/workspace/more"
	head -c 11M /dev/zero >"$DISK/ballast"
	fails_full snapshot "$first" --name two
	pinfold checkpoint verify --all >/dev/null
	make_room
	fill_disk
	new_id
	fails_full create "$ID" --from one
	pf state "$ID"
	assert_status 125
	[ ! -e "$STORE/sandboxes/$ID" ]
	make_room
	head -c 13M /dev/zero >"$DISK/ballast"
	fails_full create "$ID" --from one
	make_room
	pinfold create "$ID" --from one >/dev/null
	assert_equal "$(pinfold exec "$ID" -- sh -c 'cat /workspace/random /workspace/text' | wc -c)" $((9 << 20))
}

@test "import on a full disk fails, leaves nothing, and works when there is room" {
	local form
	make_files
	pinfold snapshot "$ID" --name one >/dev/null
	pinfold checkpoint export one --to "oci:$PF_DIR/oci" >/dev/null
	pinfold checkpoint export one --to "oci-archive:$PF_DIR/archive" >/dev/null
	pinfold destroy "$ID"
	pinfold checkpoint rm one >/dev/null
	for form in "oci:$PF_DIR/oci" "oci-archive:$PF_DIR/archive"; do
		fill_disk
		fails_full checkpoint import "$form"
		make_room
		head -c 18M /dev/zero >"$DISK/ballast"
		fails_full checkpoint import "$form"
		make_room
		pinfold checkpoint import "$form" >/dev/null
		pinfold checkpoint verify one >/dev/null
		pinfold checkpoint rm one >/dev/null
	done
}

@test "on a full disk checkpoints can be removed, by rm and by prune, and that makes room" {
	local name
	create_sandbox
	for name in one two three; do
		pinfold exec "$ID" -- sh -c "head -c 3M /dev/urandom >/workspace/random"
		pinfold snapshot "$ID" --name $name >/dev/null
	done
	fill_disk
	pf checkpoint rm one
	assert_status 0
	assert_json '.bytes > 2000000 and .kept_all == false and .because == null'
	fill_disk
	pf checkpoint prune --keep-last 1 --json
	assert_status 0
	assert_json '[.removed[].name] == ["two"] and .bytes > 2000000 and .because == null'
	# Of this one's pack half is needed, and there is no room for a new one: it goes later.
	make_room
	pinfold exec "$ID" -- sh -c "head -c 3M /dev/urandom >/workspace/a; head -c 3M /dev/urandom >/workspace/b"
	pinfold snapshot "$ID" --name four >/dev/null
	pinfold exec "$ID" -- rm /workspace/a
	pinfold snapshot "$ID" --name five >/dev/null
	fill_disk
	pf checkpoint rm four
	assert_status 0
	assert_json '.kept_all == false and .bytes < 2000000 and (.because | contains("No space left"))'
	assert_err "not all was freed"
	pinfold checkpoint verify --all >/dev/null
	make_room
	pf checkpoint gc
	assert_json '.bytes > 2000000 and .because == null'
	pinfold checkpoint verify --all >/dev/null
}
