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
