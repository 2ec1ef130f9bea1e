# parallel-safe
# A checkpoint is an OCI image for everybody else: other people's tools read what pinfold-store writes.

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
	[ -n "${T:-}" ] && rm -rf "$T"
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

@test "skopeo inspects a checkpoint by name in the store itself" {
	fill
	snapshot first ',"labels":{"purpose":"test"}'
	run skopeo inspect "oci:$STORE/checkpoints:first"
	[ "$status" -eq 0 ]
	[ "$(jq -r .Digest <<<"$output")" = "$(jq -r .checkpoint <<<"$RESULT")" ]
	[ "$(jq -r .Labels.purpose <<<"$output")" = test ]
	[ "$(jq -r '.Layers|length' <<<"$output")" = 1 ]
	[ "$(jq -r '.Layers[0]' <<<"$output")" = "$(jq -r .layer <<<"$RESULT")" ]
}

@test "skopeo copies an exported checkpoint, checking every digest" {
	fill
	snapshot first
	store checkpoint export first --to "oci:$T/out"
	skopeo copy --insecure-policy "oci:$T/out:first" "oci:$T/copy:first"
	STORE="$T/other"
	run store checkpoint import "oci:$T/copy:first" --name back
	[ "$status" -eq 0 ] || { echo "$output"; false; }
}

@test "umoci unpacks a complete export into the tree the sandbox saw" {
	fill
	snapshot first
	# Debian's umoci knows no zstd.
	store checkpoint export first --to "oci:$T/out" --complete --uncompressed
	umoci unpack --image "$T/out:first" "$T/bundle"
	local r="$T/bundle/rootfs"
	[ "$(cat "$r/base-file")" = "from the image" ]
	[ "$(cat "$r/changed")" = new ]
	[ ! -e "$r/gone-dir" ]
	[ "$(stat -c %a "$r/changed")" = 4755 ]
	[ "$(stat -c %u:%g "$r/dir")" = 1000:1001 ]
	[ "$(stat -c %i "$r/dir/file")" = "$(stat -c %i "$r/dir/sub/hard")" ]
	[ "$(readlink "$r/dir/sub/soft")" = ../file ]
	[ "$(stat -c %y "$r/dir/file")" = "$(stat -c %y "$T/upper/dir/file")" ]
	[ "$(getfattr --only-values -n user.note "$r/dir/file")" = hello ]
	[[ "$(getcap "$r/capable")" == *cap_net_bind_service* ]]
	cmp "$r/sparse" "$T/upper/sparse"
	[ -e "$r/umläut" ]
	[ -e "$r/$(printf 'n%.0s' {1..200})" ]
}

@test "GNU tar and bsdtar read the layer, the sparse file included" {
	fill
	snapshot first
	local blob="$STORE/checkpoints/blobs/sha256/$(jq -r .layer <<<"$RESULT" | cut -d: -f2)"
	mkdir "$T/gnu"
	zstd -dcq "$blob" | tar -C "$T/gnu" --xattrs --xattrs-include='*' -xf -
	cmp "$T/gnu/sparse" "$T/upper/sparse"
	[ "$(stat -c %b "$T/gnu/sparse")" -lt 1000 ]
	[ "$(stat -c %y "$T/gnu/dir/file")" = "$(stat -c %y "$T/upper/dir/file")" ]
}

@test "a bit flip is found by verify, and by prepare" {
	fill
	snapshot first
	store checkpoint verify --all
	local blob="$STORE/checkpoints/blobs/sha256/$(jq -r .layer <<<"$RESULT" | cut -d: -f2)"
	printf '\377' | dd of="$blob" bs=1 seek=100 conv=notrunc status=none
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
	[ -z "$(ls -A "$STORE/checkpoints/tmp" "$STORE/checkpoints/blobs/sha256" | grep -v :)" ]
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
	[ -z "$(ls -A "$STORE/checkpoints/blobs/sha256")" ]
	run store checkpoint inspect first
	[ "$status" -eq 125 ]
}

@test "bytes_new is what the store grew by: a layer that is there already adds nothing" {
	local before after new
	head -c 300000 /dev/urandom >"$T/upper/random"
	snapshot first
	[ "$(jq .bytes_new <<<"$RESULT")" -gt 300000 ]
	before=$(stat -c %s "$STORE"/checkpoints/blobs/sha256/* | paste -sd+ | bc)
	snapshot second
	new=$(jq .bytes_new <<<"$RESULT")
	after=$(stat -c %s "$STORE"/checkpoints/blobs/sha256/* | paste -sd+ | bc)
	[ "$new" -lt 10000 ]
	[ "$new" = $((after - before)) ]
}

@test "export: bytes is what was written, and --complete keeps the image's environment, command, directory and user" {
	umoci init --layout "$T/oci"
	umoci new --image "$T/oci:i"
	umoci unpack --image "$T/oci:i" "$T/unpacked"
	cp -a "$T/image/." "$T/unpacked/rootfs"
	umoci repack --image "$T/oci:i" "$T/unpacked"
	umoci config --image "$T/oci:i" --config.env A=b --config.env PATH=/bin --config.entrypoint /bin/entry \
		--config.cmd arg --config.workingdir /gone-dir --config.user 12:34
	store image import "oci:$T/oci:i" --name based
	local digest
	digest=$(store image inspect based | jq -r .digest)
	fill
	RESULT=$(printf '{"sandbox_id":"s1","name":"n","base_image":{"ref":"based:latest","digest":"%s"}}\n' "$digest" |
		store snapshot-write --upper-fd 9 9<"$T/upper")
	local opts dir
	for opts in "" --uncompressed --complete "--complete --uncompressed"; do
		dir="$T/out${opts// /}"
		# shellcheck disable=SC2086
		run store checkpoint export n --to "oci:$dir" $opts
		[ "$status" -eq 0 ]
		[ "$(jq .bytes <<<"$output")" = "$(stat -c %s "$dir"/blobs/sha256/* | paste -sd+ | bc)" ]
	done
	run skopeo inspect --config "oci:$T/out--complete--uncompressed:n"
	[ "$(jq -c '.config|[.Env,.Cmd,.WorkingDir,.User]' <<<"$output")" = \
		'[["A=b","PATH=/bin"],["/bin/entry","arg"],"/gone-dir","12:34"]' ]
}

@test "mount points that the box needed are not in a checkpoint, files of that name are" {
	mkdir -p "$T/upper/etc"
	: >"$T/upper/etc/hosts"
	: >"$T/upper/etc/hostname"
	: >"$T/upper/etc/empty"
	echo "nameserver 192.0.2.1" >"$T/upper/etc/resolv.conf"
	snapshot first
	run bash -c "zstd -dcq '$STORE/checkpoints/blobs/sha256/$(jq -r .layer <<<"$RESULT" | cut -d: -f2)' | tar -tf - | grep etc/"
	[ "$output" = "etc/
etc/empty
etc/resolv.conf" ] || { echo "$output"; false; }
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
