# parallel-safe
# The checkpoint store: what is written comes back, and only what is new takes room.

load ../lib/common

setup() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	HELPER="$BUILD/libexec/pinfold/pinfold-store"
	[ -x "$HELPER" ] || skip "$HELPER is not built"
	T=$(mktemp -d "${TMPDIR:-/tmp}/pf-ckpt.XXXXXX")
	STORE="$T/store"
	mkdir "$STORE" "$T/upper" "$T/image"
	echo "from the image" >"$T/image/base-file"
	echo "to be changed" >"$T/image/changed"
	mkdir "$T/image/gone-dir"
	echo x >"$T/image/gone-dir/x"
}

teardown() {
	[ -n "${T:-}" ] || return 0
	! mountpoint -q "$STORE" || wait_for 30 umount "$STORE"
	rm -rf "$T"
}

store() {
	"$HELPER" --store "$STORE" "$@"
}

# snapshot NAME [JSON members]: an idle snapshot of $T/upper; sets RESULT.
snapshot() {
	RESULT=$(printf '{"sandbox_id":"s1","name":"%s","base_image":{"ref":"%s","digest":"dir:%s"}%s}\n' \
		"$1" "$T/image" "$T/image" "${2:-}" | store snapshot-write --upper-fd 9 9<"$T/upper")
}

fill() {
	local u="$T/upper"
	echo "new" >"$u/changed"
	mkdir -p "$u/dir/sub"
	echo "data" >"$u/dir/file"
	ln "$u/dir/file" "$u/dir/sub/hard"
	ln -s ../file "$u/dir/sub/soft"
	mknod "$u/gone-dir" c 0 0
	truncate -s 300M "$u/sparse"
	printf tail | dd of="$u/sparse" bs=1 seek=200M conv=notrunc status=none
	echo cap >"$u/capable"
	setcap cap_net_bind_service=ep "$u/capable"
	setfattr -n user.note -v hello "$u/dir/file"
	touch -d '2024-05-06 07:08:09.123456789' "$u/dir/file"
	printf x >"$u/$(printf 'n%.0s' {1..200})"
	printf x >"$u/umläut"
	chmod 4755 "$u/changed"
	chown 1000:1001 "$u/dir"
}

# Bytes of all that checkpoints are made of.
stored() {
	cat "$STORE"/checkpoints/{manifests,layers,packs}/* | wc -c
}

@test "a bit flip is found by verify, and by prepare" {
	fill
	snapshot first
	store checkpoint verify --all
	printf '\377' | dd of="$(echo "$STORE"/checkpoints/packs/*.pack)" bs=1 seek=40 conv=notrunc status=none
	run store checkpoint verify --all
	[ "$status" -eq 125 ]
	run store checkpoint prepare first
	[ "$status" -eq 125 ]
	[[ "$output" == *"sha256:"* ]]
	[ -z "$(ls -A "$STORE/checkpoints/unpacked")" ]
}

@test "a live snapshot waits for the freeze and holds what stood there then" {
	fill
	mkfifo "$T/in" "$T/out"
	"$HELPER" --store "$STORE" snapshot-write --upper-fd 9 --live <"$T/in" >"$T/out" 9<"$T/upper" &
	local pid=$!
	exec 7>"$T/in" 8<"$T/out"
	printf '{"sandbox_id":"s1","name":"live","base_image":{"ref":"%s","digest":"dir:%s"}}\n' "$T/image" "$T/image" >&7
	read -r line <&8
	[ "$(jq -r .phase <<<"$line")" = ready ]
	echo "between the passes" >"$T/upper/late"
	rm "$T/upper/changed"
	printf f >&7
	read -r line <&8
	[ "$(jq -r .phase <<<"$line")" = thaw ]
	echo "too late" >"$T/upper/after"
	read -r line <&8
	exec 7>&- 8<&-
	wait "$pid"
	[ "$(jq -r .name <<<"$line")" = live ]
	store checkpoint prepare live
	local fs
	fs=$(echo "$STORE"/checkpoints/unpacked/*/fs)
	[ "$(cat "$fs/late")" = "between the passes" ]
	[ ! -e "$fs/changed" ]
	[ ! -e "$fs/after" ]
}

@test "a caller that goes away before the freeze leaves nothing" {
	fill
	run bash -c "printf '{\"sandbox_id\":\"s1\",\"base_image\":{\"ref\":\"x\",\"digest\":\"y\"}}\n' |
		'$HELPER' --store '$STORE' snapshot-write --upper-fd 9 --live 9<'$T/upper'"
	[ "$status" -eq 125 ]
	[[ "$output" == *"caller has gone"* ]]
	[ -z "$(ls -A "$STORE/checkpoints/tmp" "$STORE/checkpoints/manifests" "$STORE/checkpoints/packs" | grep -v :)" ]
}

@test "diff tells added, changed and deleted against the image and between checkpoints" {
	fill
	snapshot first
	run store diff --json first
	[ "$status" -eq 0 ]
	[ "$(jq -r '.entries[]|select(.path=="/changed").change' <<<"$output")" = changed ]
	[ "$(jq -r '.entries[]|select(.path=="/changed").size' <<<"$output")" = 4 ]
	[ "$(jq -r '.entries[]|select(.path=="/dir/file").change' <<<"$output")" = added ]
	[ "$(jq -r '.entries[]|select(.path=="/gone-dir/x").change' <<<"$output")" = deleted ]
	[ "$(jq -r '.entries[]|select(.path=="/base-file")' <<<"$output")" = "" ]
	touch "$T/upper/dir/file" # the time alone is no change
	echo "4" >"$T/upper/umläut"
	rm "$T/upper/capable"
	snapshot second
	run store diff --name-only first second
	[ "$status" -eq 0 ]
	[ "$output" = "/capable
/umläut" ]
	run store diff --stat first second
	[[ "$output" == *"0 added"*"1 changed"*"1 deleted"* ]]
	# a sandbox's live files, as pinfold passes them
	mkdir -p "$STORE/sandboxes/s1"
	printf '{"id":"s1","image":"%s"}' "$T/image" >"$STORE/sandboxes/s1/sandbox.json"
	echo more >"$T/upper/more"
	run store diff --name-only second sandbox:s1:9 9<"$T/upper"
	[ "$output" = "/more" ]
}

@test "ls, inspect and rm" {
	fill
	snapshot first ',"sandbox_file":{"image":"x"},"policy":{"type":"limited"}'
	run store checkpoint ls
	[[ "${lines[1]}" == first* ]]
	run store checkpoint ls --json
	[ "$(jq -r '.[0].name' <<<"$output")" = first ]
	run store checkpoint inspect first
	[ "$(jq -r .record.sandbox_file.image <<<"$output")" = x ]
	[ "$(jq -r .record.policy.type <<<"$output")" = limited ]
	run store checkpoint inspect latest
	[ "$status" -eq 125 ]
	run store checkpoint inspect latest --sandbox s1
	[ "$status" -eq 0 ]
	run store checkpoint inspect --sandbox s1 latest
	[ "$status" -eq 0 ]
	store checkpoint rm first
	[ -z "$(ls -A "$STORE/checkpoints/manifests" "$STORE/checkpoints/layers" "$STORE/checkpoints/packs" | grep -v :)" ]
	run store checkpoint inspect first
	[ "$status" -eq 125 ]
}

@test "bytes_new is what the store grew by: a layer that is there already adds nothing" {
	local before after new
	head -c 300000 /dev/urandom >"$T/upper/random"
	snapshot first
	[ "$(jq .bytes_new <<<"$RESULT")" -gt 300000 ]
	before=$(stored)
	snapshot second
	new=$(jq .bytes_new <<<"$RESULT")
	after=$(stored)
	[ "$new" -lt 10000 ]
	[ "$new" = $((after - before)) ]
}

@test "mount points that the box needed are not in a checkpoint, files of that name are" {
	mkdir -p "$T/upper/etc"
	: >"$T/upper/etc/hosts"
	: >"$T/upper/etc/hostname"
	: >"$T/upper/etc/empty"
	echo "nameserver 192.0.2.1" >"$T/upper/etc/resolv.conf"
	snapshot first
	store checkpoint prepare first
	run ls "$STORE"/checkpoints/unpacked/*/fs/etc
	[ "$output" = "empty
resolv.conf" ] || { echo "$output"; false; }
}

@test "a store that was copied without its unpacked and temporary files is whole" {
	fill
	snapshot first
	store checkpoint prepare first
	mkdir "$T/copy"
	cp -a "$STORE/checkpoints" "$T/copy"
	STORE="$T/copy"
	rm -rf "$STORE/checkpoints/unpacked" "$STORE/checkpoints/tmp"
	store checkpoint gc
	run store checkpoint prepare first
	[ "$status" -eq 0 ] || { echo "$output"; false; }
	[ "$(jq .unpacked <<<"$output")" = 1 ]
	rm -rf "$STORE/checkpoints/unpacked" "$STORE/checkpoints/tmp"
	snapshot second
	store checkpoint verify --all
	store checkpoint rm first
}

@test "what has not changed is not read: an unchanged snapshot reads no file, one changed file is one" {
	fill
	head -c 3000000 /dev/urandom >"$T/upper/large"
	mkdir "$T/upper/many"
	for i in {1..300}; do echo "$i" >"$T/upper/many/$i"; done
	sleep 0.1 # so that the change times prove something
	snapshot first
	[ "$(jq .unchanged <<<"$RESULT")" = 0 ]
	RESULT=$(printf '{"sandbox_id":"s1","base_image":{"ref":"x","digest":""}}\n' |
		strace -f -qq -e trace=openat,read,pread64 -o "$T/trace" "$HELPER" --store "$STORE" snapshot-write --upper-fd 9 9<"$T/upper") ||
		skip "strace does not work here"
	[ "$(jq .unchanged <<<"$RESULT")" = "$(jq .files <<<"$RESULT")" ] || { echo "$RESULT"; false; }
	[ "$(jq .chunks_new <<<"$RESULT")" = 0 ]
	run grep -c '"large"\|"file"\|"299"' "$T/trace"
	[ "$output" = 0 ]
	echo more >>"$T/upper/many/7"
	snapshot third
	[ $(($(jq .files <<<"$RESULT") - $(jq .unchanged <<<"$RESULT"))) = 1 ]
	store checkpoint prepare third
	[ "$(cat "$STORE"/checkpoints/unpacked/*/fs/many/7)" = "7
more" ]
	cmp "$STORE"/checkpoints/unpacked/*/fs/large "$T/upper/large"
}

@test "a write of 4 KiB into a file of 200 MiB adds less than 300 kB" {
	openssl enc -aes-128-ctr -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c 209715200 >"$T/upper/big"
	snapshot first
	head -c 4096 /dev/urandom | dd of="$T/upper/big" bs=4096 seek=20000 conv=notrunc status=none
	snapshot second
	[ "$(jq .bytes_new <<<"$RESULT")" -lt 300000 ] || { echo "$RESULT"; false; }
	rm "$T/upper/big"
	store checkpoint prepare second
	store checkpoint verify second
}

@test "a damaged index of unchanged files costs time and nothing else" {
	fill
	sleep 0.1
	snapshot first
	[ -s "$STORE/checkpoints/files/s1" ]
	printf '\377' | dd of="$STORE/checkpoints/files/s1" bs=1 seek=60 conv=notrunc status=none
	snapshot second
	[ "$(jq .unchanged <<<"$RESULT")" = 0 ]
	[ "$(jq -r .layer <<<"$RESULT")" = "$(store checkpoint inspect first | jq -r '.layers[0].id')" ]
	echo "nonsense" >"$STORE/checkpoints/files/s1"
	snapshot third
	store checkpoint verify --all
}

@test "a store of the version before is refused with what to do, and is not touched" {
	mkdir -p "$STORE/checkpoints/blobs/sha256"
	echo '{"imageLayoutVersion":"1.0.0"}' >"$STORE/checkpoints/oci-layout"
	fill
	run snapshot first
	[ "$status" -eq 125 ]
	[[ "$output" == *"older version"*"checkpoint import oci:"* ]]
	[ ! -e "$STORE/checkpoints/format" ]
	rm "$STORE/checkpoints/oci-layout"
	snapshot first
	sed -i 's/"version":2/"version":3/' "$STORE/checkpoints/format"
	run store checkpoint ls
	[ "$status" -eq 125 ]
	[[ "$output" == *"version 3"* ]]
}

# Sets DIGEST to that of the checkpoint of that name, MANIFEST to its file.
manifest_of() { # NAME
	DIGEST=$(jq -r --arg n "$1" '.checkpoints[] | select(.name == $n).digest' "$STORE/checkpoints/index.json")
	MANIFEST="$STORE/checkpoints/manifests/${DIGEST#sha256:}"
}

# Runs the store's program; sets status, output and stderr.
try() {
	status=0
	output=$(store "$@" 2>"$T/stderr") || status=$?
	stderr=$(<"$T/stderr")
}

packs() { (cd "$STORE/checkpoints/packs" && sha256sum -- *); }

@test "what cannot be read keeps every chunk until it is given up, and what says so says how" {
	local n before how
	for n in one two three; do
		head -c 60000 /dev/urandom >"$T/upper/data"
		snapshot $n
	done
	before=$(packs)
	# The manifest of one has a bit flipped, that of another is gone.
	for how in 'printf X | dd of="$MANIFEST" bs=1 seek=40 conv=notrunc status=none' 'rm "$MANIFEST"'; do
		manifest_of two
		[ -e "$T/kept" ] || cp "$MANIFEST" "$T/kept"
		eval "$how"
		try checkpoint gc
		assert_status 0
		assert_json '.kept_all and .chunks == 0 and .layers == 0 and .manifests == 0'
		assert_err "${DIGEST:7:12}"
		assert_err "pinfold checkpoint rm ${DIGEST:7:12}"
		assert_equal "$(packs)" "$before"
	done
	# Also where something else goes: whether it is needed is not known.
	try checkpoint prune --keep-last 1 --json
	assert_status 0
	assert_json '[.removed[].name] == ["one"] and .kept_all and (.because | contains("pinfold checkpoint rm"))'
	assert_err "pinfold checkpoint rm ${DIGEST:7:12}"
	assert_equal "$(packs)" "$before"
	# Once the file is back nothing is lost.
	cp "$T/kept" "$MANIFEST"
	store checkpoint verify two three >/dev/null
	rm "$MANIFEST"
	# What was told works, and frees what only that one and those removed before had.
	try checkpoint rm "${DIGEST:7:12}"
	assert_status 0
	assert_json '(.kept_all | not) and .layers == 2 and .chunks > 0'
	try checkpoint gc
	assert_json '.kept_all | not'
	store checkpoint verify --all >/dev/null
	assert_equal "$(store checkpoint ls --json | jq -r '[.[].name] | join(" ")')" three
	# A layer's document: verify names the checkpoint.
	head -c 60000 /dev/urandom >"$T/upper/data"
	snapshot four
	before=$(packs)
	manifest_of three
	echo junk >"$STORE/checkpoints/layers/$(jq -r '.layers[0].id' "$MANIFEST" | cut -d: -f2)"
	try checkpoint gc
	assert_json .kept_all
	assert_err "checkpoint verify --all"
	assert_equal "$(packs)" "$before"
	try checkpoint verify --all
	assert_status 125
	assert_json '[.[] | select(.good | not).name] == ["three"]'
	try checkpoint rm three
	assert_json '(.kept_all | not) and .chunks > 0'
	store checkpoint verify --all >/dev/null
	echo junk >"$STORE/checkpoints/index.json"
	try checkpoint verify --all
	assert_status 125
	assert_err index.json
}

@test "a store that is mounted read-only is listed, verified, compared and exported, and nothing is written to it" {
	fill
	snapshot one
	echo newer >"$T/upper/changed"
	snapshot two
	(umask 077; openssl rand -hex 32 >"$T/key")
	echo newest >"$T/upper/changed"
	export PINFOLD_KEY="file:$T/key"
	printf '{"sandbox_id":"s1","name":"sealed","base_image":{"ref":"%s","digest":"dir:%s"}}\n' "$T/image" "$T/image" |
		PINFOLD_ENCRYPT=yes store snapshot-write --upper-fd 9 9<"$T/upper" >/dev/null
	before=$(cd "$STORE" && find . -printf '%p %T@ %C@ %s\n' | sort)
	mount --bind "$STORE" "$STORE" 2>/dev/null || skip "cannot mount here"
	mount -o remount,ro,bind "$STORE"
	store checkpoint verify --all >/dev/null
	assert_equal "$(store checkpoint ls --json | jq -r '[.[] | select(.damaged | not).name] | join(" ")')" \
		"one two sealed"
	store checkpoint inspect one >/dev/null
	try checkpoint stats --json
	assert_json '.checkpoints == 3 and .damaged == 0'
	try checkpoint prune --keep-last 1 --dry-run --json
	assert_json '[.removed[].name] | index("one") != null'
	store checkpoint export one --to "oci:$T/oci" >/dev/null
	store checkpoint export sealed --to "oci-archive:$T/sealed.tar" >/dev/null
	if [ "$(printf '6.6\n%s\n' "$(uname -r)" | sort -V | head -n 1)" = 6.6 ]; then
		try diff one two
		assert_status 0
		assert_out "+newer"
		try diff two sealed
		assert_out "+newest"
	fi
	# What would have to write says what stands in the way.
	for verb in "checkpoint gc" "checkpoint rm one" "checkpoint prune --keep-last 1" "checkpoint export one --to tar:$T/tar" \
		"checkpoint prepare one" "checkpoint import oci:$T/oci"; do
		# shellcheck disable=SC2086
		try $verb
		assert_status 125
		[[ "$stderr" == *[Rr]ead-only* ]] || show "$verb"
	done
	umount "$STORE"
	assert_equal "$(cd "$STORE" && find . -printf '%p %T@ %C@ %s\n' | sort)" "$before"
	# What was exported is all there.
	STORE="$T/second"
	store checkpoint import "oci:$T/oci" >/dev/null
	store checkpoint import "oci-archive:$T/sealed.tar" >/dev/null
	store checkpoint verify --all >/dev/null
}

@test "verify --repair-index writes indexes of packs and of checkpoints anew from what they are about" {
	local n before
	for n in one two three; do
		head -c 60000 /dev/urandom >"$T/upper/data"
		snapshot $n
	done
	jq -c '[.checkpoints[] | del(.foreign)]' "$STORE/checkpoints/index.json" >"$T/before"
	before=$(packs)
	rm "$(find "$STORE/checkpoints/packs" -name '*.idx' | head -n 1)"
	: >"$STORE/checkpoints/index.json"
	try checkpoint verify --all
	assert_status 125
	assert_err "index.json"
	assert_err "--repair-index"
	try checkpoint verify --repair-index --all
	assert_status 0
	assert_err "1 indexes of packs written anew"
	assert_err "3 checkpoints, 0 of them damaged"
	assert_json 'length == 3 and all(.good)'
	assert_equal "$(packs)" "$before"
	assert_equal "$(jq -c '[.checkpoints[] | del(.foreign)]' "$STORE/checkpoints/index.json")" "$(<"$T/before")"
	# Whose they are nothing tells any more.
	jq -e '.checkpoints | all(.foreign)' "$STORE/checkpoints/index.json"
	# An index that is not what its pack says is found although nothing needs it to be right.
	printf X | dd of="$(find "$STORE/checkpoints/packs" -name '*.idx' | head -n 1)" bs=1 seek=20 conv=notrunc status=none
	try checkpoint verify --all
	assert_status 125
	assert_err "--repair-index"
	assert_json 'all(.good)'
	try checkpoint verify --repair-index --all
	assert_status 0
	assert_equal "$(packs)" "$before"
	# What is whole is left as it is, and one whose manifest is damaged is still listed, so that nothing of it goes.
	try checkpoint verify --repair-index --all
	assert_err "0 indexes of packs written anew"
	[[ "$stderr" != *index.json* ]]
	manifest_of two
	printf X | dd of="$MANIFEST" bs=1 seek=40 conv=notrunc status=none
	rm "$STORE/checkpoints/index.json"
	try checkpoint verify --repair-index --all
	assert_status 125
	assert_err "3 checkpoints, 1 of them damaged"
	assert_json 'map(select(.good)) | length == 2'
	try checkpoint gc
	assert_json '.kept_all'
	try checkpoint rm "${DIGEST:7:12}"
	assert_status 0
	store checkpoint verify --all
}

@test "checkpoints/ that is a symbolic link is refused: behind it nobody could see what is in use" {
	snapshot one
	mv "$STORE/checkpoints" "$T/elsewhere"
	ln -s "$T/elsewhere" "$STORE/checkpoints"
	for verb in ls "rm one" gc; do
		# shellcheck disable=SC2086
		try checkpoint $verb
		assert_status 125
		assert_err "symbolic link"
	done
	[ -n "$(ls "$T/elsewhere/manifests")" ]
}

@test "an index that is full takes no more checkpoints, and can still be listed and made shorter" {
	local index="$STORE/checkpoints/index.json"
	snapshot one
	head -c $((8 * 1024 * 1024 - $(stat -c %s "$index") - 100)) /dev/zero | tr '\0' x >"$T/pad"
	jq -c --rawfile pad "$T/pad" '.pad = $pad' "$index" >"$T/full"
	cp "$T/full" "$index"
	run snapshot two
	[ "$status" -eq 125 ]
	[[ "$output" == *"checkpoint prune"* ]]
	assert_equal "$(store checkpoint ls --json | jq -r '.[].name')" one
	store checkpoint rm one >/dev/null
	snapshot two
}

@test "more than a checkpoint holds is refused before anything of it is read" {
	truncate -s 300G "$T/upper/a"
	echo x >"$T/upper/b"
	chown 70000 "$T/upper/b" # would be refused as well, were it looked at
	run snapshot large
	[ "$status" -eq 125 ]
	[[ "$output" == *"/a"*"add up to"* ]]
}
