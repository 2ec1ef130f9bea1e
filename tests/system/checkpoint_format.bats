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

# blob_of CHECKPOINT: its only layer as an OCI blob, exported anew each time.
blob_of() {
	rm -rf "$T/blob"
	store checkpoint export "$1" --to "oci:$T/blob" >/dev/null
	local manifest
	manifest=$(jq -r '.manifests[0].digest' "$T/blob/index.json")
	echo "$T/blob/blobs/sha256/$(jq -r '.layers[-1].digest' "$T/blob/blobs/sha256/${manifest#sha256:}" | cut -d: -f2)"
}

@test "skopeo inspects an export: digest, labels, layers, and which checkpoint it is" {
	fill
	snapshot first ',"labels":{"purpose":"test"}'
	store checkpoint export first --to "oci:$T/out" >"$T/export.json"
	run skopeo inspect "oci:$T/out:first"
	[ "$status" -eq 0 ]
	[ "$(jq -r .Digest <<<"$output")" = "$(jq -r .digest "$T/export.json")" ]
	[ "$(jq -r .Labels.purpose <<<"$output")" = test ]
	[ "$(jq -r '.Layers|length' <<<"$output")" = 1 ]
	run skopeo inspect --config --raw "oci:$T/out:first"
	# The checkpoint's digest is that of its manifest's own words.
	jq -j '."io.pinfold.checkpoint"' <<<"$output" >"$T/words"
	[ "sha256:$(sha256sum <"$T/words" | cut -d' ' -f1)" = "$(jq -r .checkpoint <<<"$RESULT")" ]
	[ "$(jq -r '.layers[0].id' "$T/words")" = "$(jq -r .layer <<<"$RESULT")" ]
}

@test "equal checkpoints give equal exports, byte for byte, from this store and from another" {
	fill
	snapshot first
	store checkpoint export first --to "oci-archive:$T/a.tar"
	store checkpoint export first --to "oci-archive:$T/b.tar"
	cmp "$T/a.tar" "$T/b.tar"
	STORE="$T/other" store checkpoint import "oci-archive:$T/a.tar"
	STORE="$T/other" store checkpoint export first --to "oci-archive:$T/c.tar"
	cmp "$T/a.tar" "$T/c.tar"
	skopeo inspect "oci-archive:$T/a.tar" >/dev/null
}

@test "what is exported in whatever form comes back as the same checkpoint" {
	fill
	snapshot first
	local form digest i=0
	digest=$(jq -r .checkpoint <<<"$RESULT")
	for form in "oci:$T/f1" "oci-archive:$T/f2" "oci:$T/f3 --uncompressed" "oci:$T/f4 --complete" "oci-archive:$T/f5 --complete --uncompressed"; do
		# shellcheck disable=SC2086
		store checkpoint export first --to $form >/dev/null
		i=$((i + 1))
		STORE="$T/back$i" run store checkpoint import "${form%% *}"
		[ "$status" -eq 0 ] || { echo "$form: $output"; false; }
		[ "$(jq -r .checkpoint <<<"$output")" = "$digest" ]
		[ "$(jq .unpacked <<<"$output")" = 1 ]
		STORE="$T/back$i" store checkpoint verify --all >/dev/null
	done
	# It is there: nothing is unpacked again, and the layers need not even lie beside it.
	local blob
	blob=$(jq -r '.manifests[0].digest' "$T/f1/index.json" | cut -d: -f2)
	rm "$T/f1/blobs/sha256/$(jq -r '.layers[0].digest' "$T/f1/blobs/sha256/$blob" | cut -d: -f2)"
	store checkpoint rm first
	run store checkpoint import "oci:$T/f1"
	[ "$status" -eq 125 ]
	STORE="$T/back1" run store checkpoint import "oci:$T/f1"
	[ "$status" -eq 0 ]
	[ "$(jq .unpacked <<<"$output")" = 0 ]
}

@test "a tar has all files over each other, with --complete the image's too" {
	fill
	snapshot first
	store checkpoint export first --to "tar:$T/own.tar"
	store checkpoint export first --to "tar:$T/all.tar" --complete
	run tar -tf "$T/own.tar"
	[[ "$output" == *dir/file* && "$output" != *base-file* && "$output" != *.wh.* ]]
	mkdir "$T/x"
	tar -C "$T/x" --xattrs --xattrs-include='*' -xf "$T/all.tar"
	[ "$(cat "$T/x/base-file")" = "from the image" ]
	[ "$(cat "$T/x/changed")" = new ]
	[ ! -e "$T/x/gone-dir" ]
	cmp "$T/x/sparse" "$T/upper/sparse"
	[ "$(getfattr --only-values -n user.note "$T/x/dir/file")" = hello ]
	# A deletion in a directory that only the image has, without the image.
	mkdir "$T/upper/gone-dir2"
	mknod "$T/upper/gone-dir2/x" c 0 0
	echo y >"$T/upper/gone-dir2/y"
	snapshot second
	store checkpoint export second --to "tar:$T/second.tar"
	run tar -tf "$T/second.tar"
	[[ "$output" == *gone-dir2/y* && "$output" != *gone-dir2/x* ]]
	run store checkpoint export first --to "tar:$T/y.tar" --uncompressed
	[ "$status" -eq 125 ]
	run store checkpoint export first --to "zip:$T/y"
	[ "$status" -eq 125 ]
	[[ "$output" == *oci-archive:FILE* ]]
}

@test "an image that is no checkpoint is refused as that" {
	umoci init --layout "$T/img"
	umoci new --image "$T/img:t"
	run store checkpoint import "oci:$T/img:t"
	[ "$status" -eq 125 ]
	[[ "$output" == *"no checkpoint"* ]] || { echo "$output"; false; }
}

# tamper JQ: the export's configuration changed, and every digest above it made to fit.
tamper() {
	rm -rf "$T/bad"
	cp -a "$T/out" "$T/bad"
	local b="$T/bad/blobs/sha256" m c n
	m=$(jq -r '.manifests[0].digest' "$T/bad/index.json" | cut -d: -f2)
	c=$(jq -r .config.digest "$b/$m" | cut -d: -f2)
	jq -c "$1" "$b/$c" >"$T/c.new"
	n=$(sha256sum <"$T/c.new" | cut -d' ' -f1)
	mv "$T/c.new" "$b/$n"
	jq -c ".config.digest=\"sha256:$n\"|.config.size=$(stat -c %s "$b/$n")" "$b/$m" >"$T/m.new"
	n=$(sha256sum <"$T/m.new" | cut -d' ' -f1)
	mv "$T/m.new" "$b/$n"
	jq -c ".manifests[0].digest=\"sha256:$n\"|.manifests[0].size=$(stat -c %s "$b/$n")" "$T/bad/index.json" >"$T/i.new"
	mv "$T/i.new" "$T/bad/index.json"
}

@test "an image that says another checkpoint than its layers are is refused, and nothing of it stays" {
	fill
	snapshot first
	store checkpoint export first --to "oci:$T/out" >/dev/null
	STORE="$T/victim"
	local change
	for change in \
		'."io.pinfold.checkpoint" |= (fromjson | .layers[0].id = "sha256:" + ("0" * 64) | tojson)' \
		'."io.pinfold.checkpoint" |= (fromjson | .layers += .layers | tojson)' \
		'."io.pinfold.checkpoint" |= (fromjson | .layers = [] | tojson)' \
		'."io.pinfold.checkpoint" |= (fromjson | .version = 3 | tojson)' \
		'."io.pinfold.checkpoint" = "no JSON"' \
		'."io.pinfold.checkpoint" = {"version": 9}' \
		'.rootfs.diff_ids[0] = "sha256:" + ("0" * 64)' \
		'.rootfs.diff_ids = []' \
		'.rootfs.diff_ids[0] = "../../etc/passwd"' \
		'del(.rootfs)'; do
		tamper "$change"
		run store checkpoint import "oci:$T/bad"
		[ "$status" -eq 125 ] || { echo "$change: $output"; false; }
		run store checkpoint ls --quiet
		[ -z "$output" ]
		[ -z "$(ls -A "$STORE/checkpoints/layers" "$STORE/checkpoints/manifests" "$STORE/checkpoints/packs" "$STORE/checkpoints/unpacked" "$STORE/checkpoints/tmp" | grep -v :)" ] ||
			{ echo "$change"; ls -AR "$STORE/checkpoints"; false; }
	done
	# The same with nothing changed goes in.
	tamper .
	store checkpoint import "oci:$T/bad"
}

@test "an export's name is on the disk when it is told" {
	command -v strace >/dev/null || skip "needs strace"
	fill
	snapshot first
	strace -f -y -qq -e trace=fsync,renameat2 -o "$T/trace" "$HELPER" --store "$STORE" checkpoint export first --to "oci:$T/out" >/dev/null
	awk -v name="$T/out\"" 'index($0, "renameat2(") && index($0, name) { seen = 1 } seen' "$T/trace" >"$T/after"
	grep -F "fsync(" "$T/after" | grep -F "<$T>)" || { cat "$T/trace"; false; }
}

@test "a blob of an archive that is a symbolic link is refused, though what it points at has the digest" {
	fill
	snapshot first
	store checkpoint export first --to "oci:$T/out" >/dev/null
	STORE="$T/victim"
	local m c x
	m=$(jq -r '.manifests[0].digest' "$T/out/index.json" | cut -d: -f2)
	c=$(jq -r .config.digest "$T/out/blobs/sha256/$m" | cut -d: -f2)
	for x in "$m" "$c"; do
		mv "$T/out/blobs/sha256/$x" "$T/good"
		ln -s "$T/good" "$T/out/blobs/sha256/$x"
		tar -C "$T/out" -cf "$T/out.tar" .
		run store checkpoint import "oci-archive:$T/out.tar"
		[ "$status" -eq 125 ]
		[[ "$output" == *"a symbolic link"* ]] || { echo "$output"; false; }
		mv "$T/good" "$T/out/blobs/sha256/$x"
	done
	tar -C "$T/out" -cf "$T/out.tar" .
	store checkpoint import "oci-archive:$T/out.tar"
}

@test "a checkpoint of version 1 comes in, with all that it said of itself" {
	fill
	snapshot first ',"labels":{"k":"v"},"sandbox_file":{"image":"x"}'
	store checkpoint export first --to "oci:$T/out" >/dev/null
	# What version 1 had in that place.
	tamper '."io.pinfold.checkpoint" |= (fromjson | .version = 1 | .from = "sha256:" + ("1" * 64) | del(.layers))'
	STORE="$T/new"
	run store checkpoint import "oci:$T/bad" --name moved
	[ "$status" -eq 0 ] || { echo "$output"; false; }
	run store checkpoint inspect moved
	[ "$(jq -c '[.labels.k,.record.version,.record.from,.record.sandbox_file.image,.layers[0].present]' <<<"$output")" = '["v",2,"","x",true]' ] ||
		{ echo "$output"; false; }
	store checkpoint prepare moved
	cmp "$T/upper/sparse" "$STORE"/checkpoints/unpacked/*/fs/sparse
	store checkpoint verify --all
	# Again: the same.
	store checkpoint import "oci:$T/bad" --name moved
	run store checkpoint import "oci:$T/bad" --name other
	[ "$status" -eq 125 ]
	[[ "$output" == *"already, as 'moved'"* ]]
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
	local blob
	blob=$(blob_of first)
	mkdir "$T/gnu" "$T/bsd"
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

# table EXPRESSION: jq, of the entries by name that the last check of $T/z left.
table() {
	jq -e "$1" "$T/z.table" >/dev/null || { echo "not so: $1"; jq . "$T/z.table"; false; }
}

@test "with --zstd-chunked a file is had by ranges of the blob, and the table says what the tar says" {
	local chunked="$BATS_TEST_DIRNAME/../lib/zstd_chunked.py"
	fill
	rm "$T/upper/sparse"
	: >"$T/upper/empty"
	printf weird >"$T/upper/$(printf 'a"b\\c\nd')"
	# Large enough for several chunks, one of zeros among them.
	/usr/bin/python3 -c 'import random, sys
r = random.Random(1)
sys.stdout.buffer.write(r.randbytes(600000) + bytes(100000) + r.randbytes(5000))' >"$T/upper/large"
	touch -d '1960-01-01 00:00:00 UTC' "$T/upper/dir/sub"
	snapshot first
	run store checkpoint export first --to "oci:$T/z" --zstd-chunked
	[ "$status" -eq 0 ]
	[ "$(jq -c '[.tables, .without_table]' <<<"$output")" = '[1,null]' ]
	run /usr/bin/python3 "$chunked" check "$T/z" dir/file changed
	[ "$status" -eq 0 ] || { echo "$output"; false; }
	[ "$output" = $'data\nnew' ]
	table '."./".type == "dir" and ."dir/".uid == 1000 and ."dir/".gid == 1001 and ."umläut".size == 1'
	table '."dir/sub/hard".type == "hardlink" and ."dir/sub/hard".linkName == "dir/file"'
	table '."dir/sub/soft".type == "symlink" and ."dir/sub/soft".linkName == "../file"'
	table '."changed".mode == 2541 and .".wh.gone-dir".type == "reg" and .empty.size == null'
	table '."dir/file".modtime == "2024-05-06T07:08:09.123456789Z" and ."dir/sub/".modtime == "1960-01-01T00:00:00Z"'
	table '."dir/file".xattrs."user.note" == "aGVsbG8=" and .capable.xattrs."security.capability" != null'
	table '."a\"b\\c\nd".size == 5 and .large.chunkSize > 0'
	# The same bytes each time, also out of another store, and the same checkpoint comes back.
	STORE="$T/other" store checkpoint import "oci:$T/z" >"$T/imported"
	[ "$(jq -r .checkpoint "$T/imported")" = "$(jq -r .checkpoint <<<"$RESULT")" ]
	STORE="$T/other" store checkpoint export first --to "oci:$T/z2" --zstd-chunked >/dev/null
	diff -r "$T/z" "$T/z2"
	# Others read it as what it is to them: zstd.
	skopeo copy -q "oci:$T/z:first" "oci-archive:$T/copied.tar:first"
	STORE="$T/third" store checkpoint import "oci-archive:$T/copied.tar" >/dev/null
	# What stands behind the tar is nobody's business; what is not the tar is refused, and nothing remains.
	local how i=0
	for how in "no table" "another table" "frames to skip everywhere"; do
		cp -r "$T/z" "$T/f$((++i))"
		/usr/bin/python3 "$chunked" forge "$T/f$i" "$how"
		STORE="$T/s$i" run store checkpoint import "oci:$T/f$i"
		[ "$status" -eq 0 ] || { echo "$how: $output"; false; }
		[ "$(jq -r .checkpoint <<<"$output")" = "$(jq -r .checkpoint <<<"$RESULT")" ]
	done
	for how in "a skipped frame longer than the blob" "a second tar in the table's place" "no end"; do
		cp -r "$T/z" "$T/f$((++i))"
		/usr/bin/python3 "$chunked" forge "$T/f$i" "$how"
		STORE="$T/s$i" run store checkpoint import "oci:$T/f$i"
		[ "$status" -eq 125 ] || { echo "$how: $output"; false; }
		STORE="$T/s$i" run store checkpoint ls --quiet
		[ "$output" = "" ]
	done
}

@test "--zstd-chunked: holes are zeros; a layer that no table can describe is an ordinary one, and it says why" {
	local how chunked="$BATS_TEST_DIRNAME/../lib/zstd_chunked.py"
	truncate -s 3M "$T/upper/sparse"
	printf middle | dd of="$T/upper/sparse" bs=1 seek=1000000 conv=notrunc status=none
	truncate -s 1M "$T/upper/hole"
	snapshot holes
	store checkpoint export holes --to "oci:$T/z" --zstd-chunked >/dev/null
	/usr/bin/python3 "$chunked" check "$T/z"
	table '.sparse.size == 3145728 and .sparse.chunkType == "zeros" and .hole.size == 1048576'
	STORE="$T/other" store checkpoint import "oci:$T/z" >"$T/imported"
	[ "$(jq -r .checkpoint "$T/imported")" = "$(jq -r .checkpoint <<<"$RESULT")" ]
	truncate -s 300M "$T/upper/hole"
	snapshot large
	run store checkpoint export large --to "oci:$T/large" --zstd-chunked
	[ "$(jq -r '[.tables, .without_table[0]] | @tsv' <<<"$output")" = \
		"0	$(jq -r .layer <<<"$RESULT"): /hole: with it there are more than 256 MiB of holes" ]
	rm "$T/upper/hole"
	printf x >"$T/upper/$(printf 'n\377')"
	snapshot bytes
	run store checkpoint export bytes --to "oci:$T/bytes" --zstd-chunked
	[ "$status" -eq 0 ]
	[ "$(jq -r '.without_table[0]' <<<"$output" | cut -d' ' -f2-)" = '"/n\377": its name, target or an attribute is not UTF-8' ]
	store checkpoint export bytes --to "oci:$T/plain" >/dev/null
	diff -r "$T/bytes" "$T/plain"
	for how in "oci:$T/no --uncompressed" "tar:$T/no"; do
		# shellcheck disable=SC2086
		run store checkpoint export bytes --zstd-chunked --to $how
		[ "$status" -eq 125 ]
		[[ "$output" == *--zstd-chunked* ]]
	done
}
