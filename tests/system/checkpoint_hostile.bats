# parallel-safe
# Checkpoints that somebody else made: they bring files, and no power over the machine that takes them in.

load ../lib/common

setup() {
	need_root
	common_setup
	STORE="$PF_DIR/store"
	mkdir -m 700 "$STORE" "$PF_DIR/upper"
	echo data >"$PF_DIR/upper/file"
	printf '{"sandbox_id":"s1","name":"own","base_image":{"ref":"host","digest":"%s"}}\n' \
		"host:$(. /etc/os-release && echo "$ID:$VERSION_ID"):$(uname -m)" |
		store snapshot-write --upper-fd 9 9<"$PF_DIR/upper" >/dev/null
	pinfold checkpoint export own --to "oci:$PF_DIR/own" >/dev/null
}
teardown() { common_teardown; }

store() {
	"$BUILD/libexec/pinfold/pinfold-store" --store "$STORE" "$@"
}

# Import own with these keys of its manifest changed, as NAME.
forged() { # NAME KEY=JSON...
	/usr/bin/python3 "$TESTS_DIR/lib/forge_checkpoint.py" "$PF_DIR/own" "$PF_DIR/$1" "${@:2}"
	pf checkpoint import "oci:$PF_DIR/$1" --name "$1"
}

@test "the sandbox file of a checkpoint from elsewhere gets no mount, no credential, no network and no directory of the host" {
	local secret="$PF_DIR/secret" file
	echo sesame >"$secret"
	forged mounts "sandbox_file={\"filesystem\":{\"mounts\":[{\"source\":\"$PF_DIR\",\"target\":\"/mnt/x\"}]}}"
	forged command "sandbox_file={\"credentials\":{\"x\":{\"type\":\"api_key\",\"hosts\":[\"example.com\"],
		\"source\":{\"command\":[\"/bin/sh\",\"-c\",\"touch $PF_DIR/ran; echo s\"]}}}}"
	forged network 'sandbox_file={"networking":{"type":"unrestricted"}}'
	forged image "sandbox_file={\"image\":\"$PF_DIR\"}" "base_image={\"ref\":\"$PF_DIR\",\"digest\":\"dir:$PF_DIR\"}"
	for file in mounts:filesystem.mounts command:credentials network:networking image:image; do
		new_id
		pf create "$ID" --from "${file%:*}"
		assert_refused "${file#*:}" --config
		assert_gone "$ID"
		pf fork "${file%:*}" "$ID"
		assert_refused "${file#*:}"
	done
	[ ! -e "$PF_DIR/ran" ]
	# Nor by way of what it says to stand on.
	forged base 'sandbox_file={}' "base_image={\"ref\":\"$PF_DIR\",\"digest\":\"dir:$PF_DIR\"}"
	config
	pf create "$ID" --from base --config "$CONFIG"
	assert_refused "came from elsewhere" --image
	pf diff base
	assert_refused "came from elsewhere"
	pf checkpoint export base --complete --to "oci:$PF_DIR/out"
	assert_refused "came from elsewhere"
	# With a file of ours its files are as good as any; and who says so gets all of it.
	pf create "$ID" --from mounts --config "$CONFIG"
	assert_status 0
	inside cat /file
	assert_equal "$output" data
	new_id
	pf create "$ID" --from mounts --trust
	assert_status 0
	inside cat /mnt/x/secret
	assert_equal "$output" sesame
}

@test "a checkpoint from elsewhere that asks for nothing starts as it is; ls says where it is from" {
	forged plain 'sandbox_file={"env":{"A":"b"},"networking":{"type":"none"}}'
	new_id
	pf create "$ID" --from plain
	assert_status 0
	inside sh -c 'echo $A'
	assert_equal "$output" b
	pf checkpoint ls --json
	assert_json 'map({(.name): .foreign}) | add == {"own": false, "plain": true}'
}

@test "an archive whose documents are links to files of the host is refused" {
	local part
	for part in index.json blobs; do
		cp -r "$PF_DIR/own" "$PF_DIR/$part"
		mv "$PF_DIR/$part/$part" "$PF_DIR/$part.real"
		ln -s "$PF_DIR/$part.real" "$PF_DIR/$part/$part"
		tar -C "$PF_DIR/$part" -cf "$PF_DIR/$part.tar" .
		pf checkpoint import "oci-archive:$PF_DIR/$part.tar" --name x
		assert_refused "$part is a symbolic link"
	done
}

@test "a checkpoint that says to be another sandbox's is refused where that is asked, and does not become its latest" {
	/usr/bin/python3 "$TESTS_DIR/lib/forge_checkpoint.py" "$PF_DIR/own" "$PF_DIR/x" 'sandbox_id="victim"'
	pf checkpoint import "oci:$PF_DIR/x" --name x --sandbox mine
	assert_refused "sandbox 'victim', not of 'mine'"
	assert_equal "$(pinfold checkpoint ls --quiet | wc -l)" 1
	pf checkpoint inspect latest --sandbox victim
	assert_refused "no checkpoint"
	pf checkpoint import "oci:$PF_DIR/x" --name x --sandbox victim
	assert_status 0
}

@test "control characters of a manifest reach no terminal" {
	forged esc 'created="\u001b[31m"'
	assert_refused "control characters"
	forged esc2 'base_image={"ref":"x\u009b31m","digest":"x"}'
	assert_refused "control characters"
	forged esc3 'sandbox_id="\u009b31m"'
	assert_status 125
	[[ "$stderr" != *$'\xc2\x9b'* ]]
}

@test "a file with as many names as its file system takes comes back with all of them" {
	/usr/bin/python3 - "$PF_DIR/upper" <<-'P' || skip "no bound on names here"
		import os, sys
		os.chdir(sys.argv[1])
		os.mkdir("names")
		try:
		    for i in range(70000):
		        os.link("file", f"names/{i}")
		except OSError:
		    sys.exit(0)
		sys.exit(1)
	P
	printf '{"sandbox_id":"s1","name":"names","base_image":{"ref":"host","digest":"x"}}\n' |
		store snapshot-write --upper-fd 9 9<"$PF_DIR/upper" >/dev/null
	pf checkpoint prepare names
	assert_status 0
	local id
	id=$(pinfold checkpoint inspect names | jq -r '.layers[0].id' | tr : -)
	assert_equal "$(stat -c %h "$STORE/checkpoints/unpacked/$id/fs/file")" "$(stat -c %h "$PF_DIR/upper/file")"
}
