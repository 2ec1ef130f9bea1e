# parallel-safe
# Images: what other people's tools made comes in exactly and once; what is damaged, hostile or too large does not, and leaves
# nothing; what is used stays.

load ../lib/common

setup() {
	need_root
	HELPER="$BUILD/libexec/pinfold/pinfold-store"
	[ -x "$HELPER" ] || skip "$HELPER is not built"
	PF_DIR=$(mktemp -d "${TMPDIR:-/tmp}/pf-image.XXXXXX")
	T="$PF_DIR" STORE="$PF_DIR/store" ROOT="$PF_DIR/run"
	mkdir -p "$T/root/bin" "$T/root/etc" "$ROOT"
	printf 'root:x:0:0::/root:/bin/sh\n' >"$T/root/etc/passwd"
	echo hello >"$T/root/bin/file"
	ln "$T/root/bin/file" "$T/root/bin/hard"
	ln -s ../bin/file "$T/root/etc/link"
	chmod 4755 "$T/root/bin/file"
	touch -d @1000000000.123456789 "$T/root/bin/file"
}

teardown() {
	umount "$PF_DIR/small" 2>/dev/null || true
	[ -z "${PF_DIR:-}" ] || rm -rf "$PF_DIR"
}

img() {
	status=0
	output=$("$HELPER" --root "$ROOT" --store "$STORE" image "$@" 2>"$T/stderr") || status=$?
	stderr=$(<"$T/stderr")
}

layers() { # how many the store has
	find "$STORE/images/layers" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l
}

# Nothing half-made: no temporary directory, no record of that name.
nothing_left() { # NAME
	assert_equal "$(find "$STORE/images/tmp" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)" 0
	assert_equal "$(find "$STORE/images/refs" -name "$1*" 2>/dev/null | wc -l)" 0
}

# An OCI layout $T/oci with two layers, tagged t; the second removes etc/passwd and changes bin/.
make_layout() {
	need umoci
	umoci init --layout "$T/oci"
	umoci new --image "$T/oci:t"
	tar -C "$T/root" --numeric-owner -cf "$T/l1.tar" .
	umoci raw add-layer --image "$T/oci:t" "$T/l1.tar"
	mkdir "$T/l2"
	: >"$T/l2/.wh.gone"
	echo two >"$T/l2/two"
	tar -C "$T/l2" -cf "$T/l2.tar" .
	umoci raw add-layer --image "$T/oci:t" "$T/l2.tar"
	umoci config --image "$T/oci:t" --config.env A=b --config.cmd /bin/sh --config.workingdir /w --config.user 1000 \
		--config.label evil=binary:///bin/sh
}

fs_of() { # IMAGE LAYER-INDEX (0 is the topmost)
	"$HELPER" --store "$STORE" image inspect "$1" | jq -r ".directories[$2]"
}

@test "an OCI layout comes in: layers, whiteouts, modes, times, configuration, and no label" {
	make_layout
	img import "oci:$T/oci:t" --name app
	assert_status 0
	assert_json '.ref == "app:latest" and .env == ["A=b"] and .cmd == ["/bin/sh"] and .workdir == "/w" and .user == "1000" and (.layers | length) == 2'
	refute_out evil
	local top bottom
	top=$(fs_of app 0) bottom=$(fs_of app 1)
	assert_equal "$(stat -c %F,%t,%T "$top/gone")" "character special file,0,0"
	assert_equal "$(cat "$top/two")" two
	assert_equal "$(stat -c %a,%h,%.9Y "$bottom/bin/hard")" "4755,2,$(stat -c %.9Y "$T/root/bin/file" | sed 's/\..*//').000000000"
	nothing_left none
}

@test "skopeo's forms of one image have one identity: oci, oci-archive, docker-archive, gzip or zstd" {
	need skopeo
	make_layout
	local policy='{"default":[{"type":"insecureAcceptAnything"}]}'
	printf '%s' "$policy" >"$T/policy.json"
	local copy=(skopeo --policy "$T/policy.json" --tmpdir "$T" copy -q)
	img import "oci:$T/oci:t" --name a
	local want
	want=$(jq -r .digest <<<"$output")
	"${copy[@]}" "oci:$T/oci:t" "oci-archive:$T/a.tar:t"
	img import "oci-archive:$T/a.tar:t" --name b
	assert_status 0
	assert_json ".digest == \"$want\""
	"${copy[@]}" --dest-compress --dest-compress-format zstd "oci:$T/oci:t" "oci:$T/zstd:t"
	img import "oci:$T/zstd:t" --name c
	assert_status 0
	assert_json ".digest == \"$want\""
	"${copy[@]}" "oci:$T/oci:t" "docker-archive:$T/d.tar:team/app:1"
	img import "$T/d.tar"
	assert_status 0
	# skopeo writes a docker configuration of its own; the layers are the same ones.
	assert_json '.ref == "team/app:1" and .env == ["A=b"]'
	assert_equal "$(layers)" 2
}

@test "a layer that umoci wrote itself, without an end mark, comes in" {
	need umoci
	umoci init --layout "$T/oci"
	umoci new --image "$T/oci:t"
	umoci insert --image "$T/oci:t" "$T/root" / >/dev/null
	umoci insert --image "$T/oci:t" "$T/root/etc" /more >/dev/null
	img import "oci:$T/oci:t" --name u
	[ "$status" = 0 ] || { echo "$stderr"; false; }
	local found=""
	for i in 0 1; do [ ! -e "$(fs_of u $i)/more/passwd" ] || found=yes; done
	assert_equal "$found" yes
}

@test "a root file system comes in as directory, tar, compressed tar and pipe" {
	need zstd xz
	img import "dir:$T/root" --name d
	assert_status 0
	tar -C "$T/root" -cf "$T/r.tar" .
	zstd -q "$T/r.tar"
	xz -k "$T/r.tar"
	img import "$T/r.tar" --name t
	assert_status 0
	local digest
	digest=$(jq -r .digest <<<"$output")
	img import "$T/r.tar.zst"
	assert_json ".ref == \"r:latest\" and .digest == \"$digest\""
	img import "tar:$T/r.tar.xz" --name x
	assert_json ".digest == \"$digest\""
	img import - --name pipe <"$T/r.tar"
	assert_json ".digest == \"$digest\""
	img import - <"$T/r.tar"
	assert_refused "--name"
	diff -r --no-dereference "$T/root" "$(fs_of d 0)"
	diff -r --no-dereference "$T/root" "$(fs_of t 0)"
	assert_equal "$(stat -c %a,%h,%.9Y "$(fs_of d 0)/bin/file")" "$(stat -c %a,%h,%.9Y "$T/root/bin/file")"
	img ls
	assert_out "r:latest"
}

@test "a directory's image is the same wherever and whenever it is imported" {
	img import "$T/root" --name one
	local digest
	digest=$(jq -r .digest <<<"$output")
	cp -a "$T/root" "$T/again"
	STORE="$T/store2"
	img import "$T/again" --name two
	assert_json ".digest == \"$digest\""
}

@test "export and import again: the same image, and skopeo and umoci read it" {
	need skopeo umoci jq
	img import "$T/root" --name one
	local digest
	digest=$(jq -r .digest <<<"$output")
	img export one "oci:$T/out:v1"
	assert_json ".same and .digest == \"$digest\""
	skopeo inspect "oci:$T/out:v1" >/dev/null
	# This umoci knows no zstd: it gets the same layers uncompressed.
	printf '{"default":[{"type":"insecureAcceptAnything"}]}' >"$T/policy.json"
	skopeo --policy "$T/policy.json" --tmpdir "$T" copy -q --dest-decompress "oci:$T/out:v1" "dir:$T/plain"
	umoci init --layout "$T/oci2"
	umoci new --image "$T/oci2:v1"
	umoci raw add-layer --image "$T/oci2:v1" "$T/plain/$(jq -r '.layers[0].digest' "$T/plain/manifest.json" | cut -d: -f2)"
	umoci unpack --image "$T/oci2:v1" "$T/bundle"
	diff -r --no-dereference "$T/root" "$T/bundle/rootfs"
	STORE="$T/store2"
	img import "oci:$T/out:v1"
	assert_json ".ref == \"out:v1\" and .digest == \"$digest\""
	img export out:v1 "oci:$T/out:v2"
	assert_status 0
	img import "oci:$T/out"
	assert_refused "several images" v1 v2
}

@test "a flipped bit, a missing blob, a cut archive: refused, named, and nothing left" {
	make_layout
	tar -C "$T/oci" -cf "$T/good.tar" .
	local blob
	blob=$(jq -r '.manifests[0].digest' "$T/oci/index.json" | cut -d: -f2)
	blob=$(jq -r '.layers[1].digest' "$T/oci/blobs/sha256/$blob" | cut -d: -f2)
	# One bit, whatever stood there: the blob is another one in each run.
	python3 -c 'import sys; f = open(sys.argv[1], "r+b"); f.seek(40); b = f.read(1)[0] ^ 1; f.seek(40); f.write(bytes([b]))' \
		"$T/oci/blobs/sha256/$blob"
	img import "oci:$T/oci:t" --name bad
	assert_refused import
	nothing_left bad
	rm "$T/oci/blobs/sha256/$blob"
	img import "oci:$T/oci:t" --name bad
	assert_refused missing
	nothing_left bad
	head -c 3000 "$T/good.tar" >"$T/cut.tar"
	img import "$T/cut.tar" --name bad
	assert_refused tar
	nothing_left bad
	img import "$T/nowhere" --name bad
	assert_refused "No such file"
	img import "oci:$T/oci:nosuch" --name bad
	assert_refused "named nosuch" "there are: t"
	assert_equal "$(layers)" 0
}

@test "hostile archives: ../, absolute links, devices, a FIFO for passwd, 1 TiB of nothing" {
	need python3
	cat >"$T/make.py" <<-'PY'
		import tarfile, io, sys, os
		def make(name, members):
		    with tarfile.open(name, 'w') as t:
		        for n, kw in members:
		            i = tarfile.TarInfo(n)
		            data = kw.pop('data', b'')
		            i.size = len(data)
		            for k, v in kw.items(): setattr(i, k, v)
		            t.addfile(i, io.BytesIO(data))
		os.chdir(sys.argv[1])
		make('dotdot.tar', [('../../evil', dict(data=b'x'))])
		make('parent.tar', [('up', dict(type=tarfile.SYMTYPE, linkname=sys.argv[1])), ('up/evil', dict(data=b'x'))])
		make('fifo.tar', [('etc/passwd', dict(type=tarfile.FIFOTYPE))])
		make('dev.tar', [('dev/sda', dict(type=tarfile.BLKTYPE, devmajor=8)), ('ok', dict(data=b'x'))])
	PY
	python3 "$T/make.py" "$T"
	img import "$T/dotdot.tar" --name bad
	assert_refused "'..'"
	img import "$T/parent.tar" --name bad
	assert_refused "symbolic link"
	img import "$T/fifo.tar" --name bad
	assert_refused /etc/passwd
	truncate -s 1T "$T/huge"
	tar -C "$T" -S --format=pax -cf "$T/huge.tar" huge
	img import "$T/huge.tar" --name bad
	assert_refused limit
	img import "$T/root" --name bad --max-size 4
	assert_refused limit
	nothing_left bad
	[ ! -e "$T/evil" ] && [ ! -e "$T/store/images/evil" ]
	img import "$T/dev.tar" --name dev
	assert_json '.skipped_devices == 1'
	[ ! -e "$(fs_of dev 0)/dev/sda" ]
}

@test "an image for another machine or of encrypted layers is refused as such" {
	make_layout
	umoci config --image "$T/oci:t" --architecture riscv64
	img import "oci:$T/oci:t" --name bad
	assert_refused riscv64 "this machine"
	nothing_left bad
}

@test "a full disk: one line, and the store is as before" {
	mkdir "$T/small"
	mount -t tmpfs -o size=1m pf-test "$T/small"
	head -c 3M /dev/urandom >"$T/root/big"
	STORE="$T/small/store"
	img import "$T/root" --name bad
	assert_refused "No space left"
	nothing_left bad
	assert_equal "$(layers)" 0
	rm "$T/root/big"
	img import "$T/root" --name good
	assert_status 0
}

@test "eight imports of one image at once: all succeed, one layer" {
	make_layout
	local pids=() i
	for i in 1 2 3 4 5 6 7 8; do
		"$HELPER" --store "$STORE" image import "oci:$T/oci:t" --name "n$((i % 3))" >/dev/null 3>&- &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i"; done
	assert_equal "$(layers)" 2
	img ls --json
	assert_json 'length == 3 and ([.[].digest] | unique | length) == 1'
	nothing_left none
}

@test "an import killed in the middle is invisible, and gc collects it" {
	head -c 60M /dev/urandom >"$T/root/big"
	local pid=
	"$HELPER" --store "$STORE" image import "$T/root" --name dead >/dev/null 3>&- &
	pid=$!
	wait_for 10 test -e "$STORE/images/tmp"
	wait_for 10 sh -c "ls $STORE/images/tmp | grep -q ."
	kill -9 "$pid"
	wait "$pid" || true
	img ls
	refute_out dead
	img gc
	assert_json '.temporary == 1 and .layers == 0'
	nothing_left dead
	img import "$T/root" --name dead
	assert_status 0
}

@test "rm frees what only that image had, keeps what others share, and refuses what is used" {
	make_layout
	img import "oci:$T/oci:t" --name a
	local digest
	digest=$(jq -r .digest <<<"$output")
	umoci raw add-layer --image "$T/oci:t" --tag t2 "$T/l1.tar"
	echo more >"$T/l2/more"
	tar -C "$T/l2" -cf "$T/l3.tar" .
	umoci raw add-layer --image "$T/oci:t2" "$T/l3.tar"
	img import "oci:$T/oci:t2" --name b
	assert_equal "$(layers)" 3
	mkdir -p "$STORE/sandboxes/s1"
	printf '{"id":"s1","image_digest":"%s"}' "$digest" >"$STORE/sandboxes/s1/sandbox.json"
	img rm a
	assert_refused "used by sandbox s1"
	img import "oci:$T/oci:t" --name other
	img rm a
	assert_status 0
	img rm other
	assert_refused "used by sandbox s1"
	rm -r "$STORE/sandboxes/s1"
	img rm other
	assert_json '.layers == 0'
	img rm b
	assert_json '.layers == 3'
	assert_equal "$(layers)" 0
	img rm b
	assert_refused "no image 'b'" host
	img rm host
	assert_refused "not an image of the store"
}

@test "rm refuses the image of a checkpoint whose sandbox is gone, and any while there is one that cannot be read" {
	img import "$T/root" --name base
	local digest
	digest=$(jq -r .digest <<<"$output")
	openssl rand -hex 32 >"$T/key"
	chmod 600 "$T/key"
	checkpoint() { # NAME
		printf '{"sandbox_id":"s","name":"%s","base_image":{"ref":"base","digest":"%s"}}\n' "$1" "$digest" |
			"$HELPER" --store "$STORE" snapshot-write --upper-fd 9 9<"$T/root" >/dev/null
	}
	checkpoint plain
	img rm base
	assert_refused "image base:latest is used by checkpoint plain"
	"$HELPER" --store "$STORE" checkpoint rm plain >/dev/null
	PINFOLD_ENCRYPT=yes PINFOLD_KEY="file:$T/key" checkpoint hidden
	img rm base
	assert_refused "by checkpoint hidden, perhaps, which cannot be read (remedy: give --key)"
	PINFOLD_KEY="file:$T/key" img rm base
	assert_refused "image base:latest is used by checkpoint hidden"
	"$HELPER" --store "$STORE" --key "file:$T/key" checkpoint rm hidden >/dev/null
	img rm base
	assert_json '.layers == 1'
}

@test "an image whose layer was lost can still be removed" {
	img import "$T/root" --name broken
	rm -rf "$STORE"/images/layers/*
	img inspect broken
	assert_refused "missing from the store"
	img rm broken
	assert_status 0
	nothing_left broken
}

@test "a recipe with a mistake is told where" {
	mkdir "$T/rec"
	printf '{"packages":["bash"],"confg":{}}' >"$T/rec/recipe.json"
	img build "$T/rec"
	assert_refused confg config
	printf '{"packages":["bash; rm -rf /"]}' >"$T/rec/recipe.json"
	img build "$T/rec"
	assert_refused "not a package name"
	printf '{"packages":["bash"],"base":"rec"}' >"$T/rec/recipe.json"
	img build "$T/rec"
	assert_refused "cycle"
	printf '{"packages":[]}' >"$T/rec/recipe.json"
	img build "$T/rec"
	assert_refused "no packages"
	img build "$T/none"
	assert_refused "recipe directory"
	nothing_left rec
}
