# parallel-safe
# Checkpoints that are encrypted: nothing of them lies in clear in the store, the wrong key is one clear error, and with
# the right one they are as good as others.

load ../lib/common

CANARY="canary-$RANDOM$RANDOM-sings"

setup() {
	need_root
	need jq
	common_setup
	STORE="$PF_DIR/store" # each test has one of its own: what is in it is looked through
	mkdir -m 700 "$STORE"
	KEY="$PF_DIR/key"
	OTHER="$PF_DIR/other"
	(umask 077; openssl rand -hex 32 >"$KEY"; openssl rand -base64 32 >"$OTHER")
}
teardown() {
	# What destroys an unpacked layer may still be at it.
	! mountpoint -q "$STORE/checkpoints" || wait_for 30 umount "$STORE/checkpoints"
	[ -z "${DISK:-}" ] || rm -f "$DISK"
	common_teardown
}

# A sandbox with the canary in a file, a name, a link and an attribute.
make_canary() {
	create_sandbox '{"env":{"NOTE":"env-'"$CANARY"'"}}'
	pinfold exec "$ID" -- sh -c "echo $CANARY >/workspace/small; echo x >/workspace/name-$CANARY
		ln -s $CANARY /workspace/link; for i in \$(seq 9000); do echo \$i $CANARY; done >/workspace/big"
}

# Everything below the checkpoints, decompressed where it is zstd, has the canary: 0. The key and the id of its layers'
# contents may be in no file either.
has_canary() {
	grep -rqF "$CANARY" "$STORE/checkpoints" && return 0
	find "$STORE/checkpoints" -name "*$CANARY*" | grep -q . && return 0
	compressed_canary
}

compressed_canary() {
	local found=0
	python3 - "$STORE/checkpoints" "$CANARY" <<-'PY' || found=$?
	import os, re, subprocess, sys
	word = sys.argv[2].encode()
	for d, _, files in os.walk(sys.argv[1]):
	    for f in files:
	        data = open(os.path.join(d, f), "rb").read()
	        for m in re.finditer(re.escape(b"\x28\xb5\x2f\xfd"), data):
	            out = subprocess.run(["zstd", "-dcq"], input=data[m.start():], capture_output=True).stdout
	            if word in out:
	                sys.exit(0)
	sys.exit(3)
	PY
	[ "$found" = 0 ] || [ "$found" = 3 ] || exit 1 # a search that cannot search would find nothing
	return "$found"
}

no_canary() { refute has_canary; }

gone() { ! ls "$STORE/checkpoints/unpacked" 2>/dev/null | grep -q .; }

@test "what is encrypted is nowhere in clear, and the same search finds it where it is not" {
	make_canary
	pinfold snapshot "$ID" --name plain >/dev/null
	has_canary
	compressed_canary
	pinfold checkpoint rm plain >/dev/null
	pinfold checkpoint gc >/dev/null
	pinfold snapshot "$ID" --name sealed --encrypt --key "file:$KEY" >/dev/null
	no_canary
	refute grep -rqF "$(<"$KEY")" "$STORE"
	pf checkpoint ls --json --key "file:$KEY"
	assert_equal "$(jq -r '.[0].name, .[0].sealed, .[0].damaged' <<<"$output" | tr '\n' ' ')" "sealed true false "
}

@test "a sandbox from an encrypted checkpoint has its files; what was unpacked for it goes when it is destroyed" {
	make_canary
	pinfold snapshot "$ID" --name s --encrypt --key "file:$KEY" >/dev/null
	pinfold destroy "$ID"
	new_id
	pf create "$ID" --from s
	assert_equal "$status" 125
	[[ "$stderr" == *"sealed"*"--key file:PATH"* ]]
	pf create "$ID" --from s --key "file:$OTHER"
	assert_equal "$status" 125
	[[ "$stderr" == *"sealed with key "*" that was given is "* ]]
	pinfold create "$ID" --from s --key "file:$KEY" >/dev/null
	assert_equal "$(pinfold exec "$ID" -- sh -c 'cat /workspace/small; readlink /workspace/link; wc -l </workspace/big; echo $NOTE' |
		tr '\n' ' ')" "$CANARY $CANARY 9000 env-$CANARY "
	refute gone
	first=$ID
	new_id
	pinfold create "$ID" --from s --key "file:$KEY" >/dev/null
	pinfold destroy "$first"
	sleep 0.3
	assert_equal "$(pinfold exec "$ID" -- cat /workspace/small)" "$CANARY"
	refute gone
	pinfold destroy "$ID"
	wait_for 10 gone
	no_canary
}

@test "a checkpoint of a sandbox that came from an encrypted one is encrypted without being asked" {
	make_canary
	pinfold snapshot "$ID" --name s1 --encrypt --key "file:$KEY" >/dev/null
	pinfold destroy "$ID"
	new_id
	pinfold create "$ID" --from s1 --key "file:$KEY" >/dev/null
	pinfold exec "$ID" -- sh -c "echo more-$CANARY >/workspace/more"
	pf snapshot "$ID" --name s2
	assert_equal "$status" 125
	pinfold snapshot "$ID" --name s2 --key "file:$KEY" >/dev/null
	pinfold destroy "$ID"
	wait_for 10 gone
	no_canary
	pinfold checkpoint verify --all --key "file:$KEY" >/dev/null
}

@test "a store that encrypts by default does so for every checkpoint, with the key that it names" {
	pinfold checkpoint encryption --key "file:$KEY" --default yes >"$PF_DIR/out"
	assert_equal "$(jq -r '.key, .default' "$PF_DIR/out" | tr '\n' ' ')" "file:$KEY true "
	make_canary
	pinfold snapshot "$ID" --name a >/dev/null
	pinfold exec "$ID" -- sh -c "echo more-$CANARY >>/workspace/small"
	pinfold snapshot "$ID" --name b >/dev/null
	no_canary
	[ "$(pinfold checkpoint stats --json | jq .stored_bytes)" -ge "$(cat "$STORE"/checkpoints/packs/*.pack | wc -c)" ]
	pinfold checkpoint verify --all >/dev/null
	pinfold diff a b --name-only | grep -q small
	# Compared in memory (Linux 6.6), or it would lie unpacked in clear.
	[ "$(printf '6.6\n%s\n' "$(uname -r)" | sort -V | head -n 1)" != 6.6 ] || { gone; no_canary; }
	pinfold checkpoint rm a >/dev/null
	pinfold checkpoint gc >/dev/null
	new_id
	pinfold create "$ID" --from b >/dev/null
	pinfold exec "$ID" -- grep -q "more-$CANARY" /workspace/small
	# The key out of reach: what is plain can be done, what is not says why.
	mv "$KEY" "$KEY.away"
	pf snapshot "$ID"
	assert_equal "$status" 125
	[[ "$stderr" == *"$KEY"*"No such file"* ]]
	pinfold snapshot "$ID" --name plain --no-encrypt >/dev/null || true
	pf checkpoint verify b
	assert_equal "$status" 125
	mv "$KEY.away" "$KEY"
}

@test "a key comes from a descriptor, a command, the keyring; never from the command line" {
	make_canary
	pinfold snapshot "$ID" --name fd --encrypt --key fd:9 9<"$KEY" >/dev/null
	pinfold checkpoint verify fd --key fd:8 8< <(cat "$KEY") >/dev/null
	pinfold checkpoint verify fd --key "cmd:cat $KEY" >/dev/null
	pinfold destroy "$ID"
	new_id
	pinfold create "$ID" --from fd --key fd:7 7< <(cat "$KEY") >/dev/null
	pinfold exec "$ID" -- grep -q "$CANARY" /workspace/small
	pf checkpoint verify fd --key "$(<"$KEY")"
	assert_equal "$status" 125
	[[ "$stderr" == *"never given itself"* && "$stderr" != *"$(<"$KEY")"* ]]
	chmod 644 "$KEY"
	pf checkpoint verify fd --key "file:$KEY"
	assert_equal "$status" 125
	[[ "$stderr" == *"chmod 600"* ]]
}

@test "rotate-key rewrites no data; then the new key opens everything and the old one nothing" {
	pinfold checkpoint encryption --key "file:$KEY" --default yes >/dev/null
	make_canary
	pinfold snapshot "$ID" --name a >/dev/null
	before=$(cd "$STORE/checkpoints/packs" && sha256sum ./*.pack)
	pf checkpoint rotate-key --new-key "file:$OTHER"
	assert_equal "$status" 0
	[ "$(jq .objects <<<"$output")" -ge 4 ]
	assert_equal "$(cd "$STORE/checkpoints/packs" && sha256sum ./*.pack)" "$before"
	assert_equal "$(pinfold checkpoint encryption | jq -r .key)" "file:$OTHER"
	pinfold checkpoint verify --all >/dev/null
	pf checkpoint verify --all --key "file:$KEY"
	assert_equal "$status" 125
	[[ "$stderr" == *"sealed with key "* ]]
	pinfold exec "$ID" -- sh -c "echo more >>/workspace/small"
	pinfold snapshot "$ID" --name b >/dev/null
	pf checkpoint rotate-key --new-key "file:$OTHER"
	assert_equal "$status" 125
	no_canary
	# What nobody has used for long is as old as before.
	touch -d '40 days ago' "$STORE"/checkpoints/manifests/*
	pinfold checkpoint rotate-key --new-key "file:$KEY" >/dev/null
	pf checkpoint prune --older-than 30d --dry-run --json
	assert_json '.removed | length == 2'
}

@test "without the key gc removes nothing that is encrypted and says so, until no checkpoint is" {
	make_canary
	pinfold snapshot "$ID" --name s --encrypt --key "file:$KEY" >/dev/null
	pf checkpoint gc
	assert_status 0
	assert_json '.kept_all and (.because | contains("sealed"))'
	assert_err "nothing was freed"
	assert_err "--key file:PATH"
	pinfold checkpoint verify s --key "file:$KEY" >/dev/null
	assert_equal "$(pinfold checkpoint gc --key "file:$KEY" | jq -r .kept_all)" false
	pinfold checkpoint verify s --key "file:$KEY" >/dev/null
	pinfold checkpoint rm s --key "file:$KEY" >/dev/null
	pinfold checkpoint gc --key "file:$KEY" >/dev/null
	assert_equal "$(find "$STORE/checkpoints/packs" -type f | wc -l)" 0
	pinfold snapshot "$ID" --name t --encrypt --key "file:$KEY" >/dev/null
	pinfold exec "$ID" -- touch /workspace/new # or they would have the same layer
	pinfold snapshot "$ID" --name plain --no-encrypt >/dev/null
	pf checkpoint rm t
	assert_status 0
	pf checkpoint gc
	assert_json '.kept_all | not'
	assert_equal "$(find "$STORE/checkpoints/packs" -name '*.key' | wc -l)" 0
	pinfold checkpoint verify --all >/dev/null
	pinfold snapshot "$ID" --name u --encrypt --key "file:$KEY" >/dev/null
	pinfold checkpoint verify --all --key "file:$KEY" >/dev/null
}

@test "an import of what is encrypted that is killed anywhere has put nothing in clear on the disk" {
	[ -e "$BUILD/tests/helpers/faultinject.so" ] || skip "needs make test-programs"
	make_canary
	pinfold snapshot "$ID" --name s --encrypt --key "file:$KEY" >/dev/null
	pinfold checkpoint export s --to "oci:$PF_DIR/out" --key "file:$KEY" >/dev/null
	pinfold destroy "$ID"
	struck() { # N
		LD_PRELOAD="$BUILD/tests/helpers/faultinject.so" PF_FAULT="any:$1:kill" PF_FAULT_PROGRAM=pinfold-store PF_FAULT_COUNT="$PF_DIR/count" \
			pinfold checkpoint import "oci:$PF_DIR/out" --key "file:$KEY" >/dev/null 2>&1
	}
	local n calls
	STORE="$PF_DIR/first"
	struck 0
	calls=$(tail -n 1 "$PF_DIR/count")
	[ "$calls" -ge 15 ]
	for ((n = 1; n <= calls; n += 1 + calls / 12)); do
		STORE="$PF_DIR/n$n"
		refute struck $n
		# Where memory does for it (Linux 6.6).
		[ "$(printf '6.6\n%s\n' "$(uname -r)" | sort -V | head -n 1)" != 6.6 ] || no_canary
	done
}

@test "what is encrypted leaves the store so, and comes back with its key: here, in another store, from an archive" {
	make_canary
	pf snapshot "$ID" --name s --encrypt --key "file:$KEY"
	local digest form
	digest=$(jq -r .checkpoint <<<"$output")
	pinfold checkpoint export s --to "oci:$PF_DIR/out" --key "file:$KEY" >/dev/null
	pinfold checkpoint export s --to "oci-archive:$PF_DIR/out.tar" --key "file:$KEY" >/dev/null
	refute grep -rqF "$CANARY" "$PF_DIR/out" "$PF_DIR/out.tar"
	pinfold destroy "$ID"
	for form in "oci:$PF_DIR/out" "oci-archive:$PF_DIR/out.tar"; do
		STORE="$PF_DIR/${form%%:*}"
		mkdir -m 700 "$STORE"
		pf checkpoint import "$form"
		assert_equal "$status" 125
		assert_err key
		pf checkpoint import "$form" --key "file:$OTHER"
		assert_equal "$status" 125
		pf checkpoint import "$form" --key "file:$KEY"
		assert_status 0
		assert_json ".checkpoint == \"$digest\""
		assert_equal "$(pinfold checkpoint ls --json --key "file:$KEY" | jq -r '.[0].sealed')" true
		pinfold checkpoint verify --all --key "file:$KEY" >/dev/null
		no_canary
	done
	# One bit of any blob.
	local blob
	for blob in "$PF_DIR"/out/blobs/sha256/*; do
		rm -rf "$PF_DIR/bad" "$PF_DIR/third"
		cp -a "$PF_DIR/out" "$PF_DIR/bad"
		printf '\377' | dd of="$PF_DIR/bad/blobs/sha256/$(basename "$blob")" bs=1 seek=$(($(stat -c %s "$blob") / 2)) conv=notrunc status=none
		STORE="$PF_DIR/third" pf checkpoint import "oci:$PF_DIR/bad" --key "file:$KEY"
		assert_equal "$status" 125
	done
}

@test "what is encrypted leaves in clear only with --decrypt, and what comes in is encrypted where the store wants it" {
	make_canary
	pinfold snapshot "$ID" --name s --encrypt --key "file:$KEY" >/dev/null
	for form in "tar:$PF_DIR/out" "oci:$PF_DIR/out --uncompressed" "oci:$PF_DIR/out --zstd-chunked"; do
		# shellcheck disable=SC2086
		pf checkpoint export s --to $form --key "file:$KEY"
		assert_equal "$status" 125
		[[ "$stderr" == *"--decrypt"* ]]
		[ ! -e "$PF_DIR/out" ]
	done
	pinfold checkpoint export s --to "oci:$PF_DIR/out" --decrypt --key "file:$KEY" >/dev/null
	pinfold destroy "$ID"
	STORE="$PF_DIR/second"
	mkdir -m 700 "$STORE"
	pinfold checkpoint encryption --key "file:$OTHER" --default yes >/dev/null
	pinfold checkpoint import "oci:$PF_DIR/out" >/dev/null
	assert_equal "$(pinfold checkpoint ls --json | jq -r '.[0].sealed')" true
	pinfold checkpoint verify --all >/dev/null
	wait_for 10 gone
	no_canary
}

# The raw bytes of a file system, whatever has become of the files that they were in.
disk_has_canary() {
	sync -f "$STORE/checkpoints"
	grep -aqF "$CANARY" "$DISK"
}

@test "what changes while an encrypted snapshot is taken lies in clear on no block of the store's disk" {
	need mke2fs
	[ -w /dev/loop-control ] || skip "needs loop devices"
	DISK=$(mktemp "$([ "$(stat -f -c %T /dev/shm)" = tmpfs ] && echo /dev/shm || echo "$PF_DIR")/pinfold-disk.XXXXXX")
	# The workspace is elsewhere. Every write goes to the disk at once: what a file without a name has does not always.
	mkdir -m 700 "$STORE/checkpoints"
	truncate -s 128M "$DISK"
	mke2fs -q -t ext4 -O ^has_journal "$DISK"
	mount -o loop,sync "$DISK" "$STORE/checkpoints" 2>/dev/null || skip "cannot mount a loop device"
	chmod 700 "$STORE/checkpoints"
	# In the moment between the passes everything is written anew, more than memory is used for; and a program goes on.
	create_sandbox '{"env":{"NOTE":"env-'"$CANARY"'"},
		"checkpoint":{"pre":["sh","-c","for i in 1 2 3; do cat /tmp/text /tmp/text >/workspace/big$i; cp /tmp/line /workspace/small$i; done"]}}'
	pinfold exec "$ID" -- sh -c "echo $CANARY >/tmp/line; yes $CANARY | head -c 4M | cat -n >/tmp/text"
	pinfold exec "$ID" -- sh -c 'setsid sh -c "while cp /tmp/line /workspace/again; do sleep 0.01; done" >/dev/null 2>&1 </dev/null &'
	pf snapshot "$ID" --name sealed --encrypt --key "file:$KEY"
	assert_status 0
	assert_json '.changed >= 6 and .frozen_ms > 0'
	refute disk_has_canary
	pinfold checkpoint verify --all --key "file:$KEY" >/dev/null
	# The same search finds it where the snapshot is not encrypted, also when that is gone.
	pinfold snapshot "$ID" --name plain --no-encrypt >/dev/null
	disk_has_canary
	# What was set aside in between is what there was.
	pinfold exec "$ID" -- sha256sum /workspace/big2 /workspace/small3 >"$PF_DIR/sums"
	pinfold destroy "$ID"
	new_id
	pinfold create "$ID" --from sealed --key "file:$KEY" >/dev/null
	pinfold exec "$ID" -- sha256sum -c <"$PF_DIR/sums"
	pinfold destroy "$ID"
}

@test "a program that has a key and crashes leaves no core dump" {
	mkdir "$PF_DIR/cores" "$PF_DIR/upper"
	# The key's command is where it waits; without a key it would leave one.
	/usr/bin/python3 - "$BUILD/libexec/pinfold/pinfold-store" "$STORE" "$KEY" "$PF_DIR" <<-'P'
		import os, resource, signal, subprocess, sys, time
		store, at, key, here = sys.argv[1:]
		hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
		resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
		os.dup2(os.open(here + "/upper", os.O_RDONLY), 9, inheritable=True)
		p = subprocess.Popen([store, "--store", at, "--key", "file:" + key, "snapshot-write", "--upper-fd", "9", "--live"], cwd=here + "/cores",
		    stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(9,), env={**os.environ, "PINFOLD_ENCRYPT": "yes"})
		p.stdin.write(b'{"sandbox_id":"s1","name":"c","base_image":{"ref":"host","digest":"x"}}\n')
		p.stdin.flush()
		assert b"ready" in p.stdout.readline()
		with open(f"/proc/{p.pid}/limits") as f:
		    limit = [l for l in f if "core file" in l][0].split()[4]
		p.send_signal(signal.SIGABRT)
		p.wait()
		assert p.returncode == -signal.SIGABRT and limit == "1" and not os.listdir(here + "/cores"), (p.returncode, limit, os.listdir(here + "/cores"))
	P
}

@test "who is not root has his key from a file of root's that he may read, and of nobody else's, in whatever namespace" {
	local user=(setpriv --reuid 61234 --regid 61234 --groups 61235 --) helper="$BUILD/libexec/pinfold/pinfold-store" h
	"${user[@]}" unshare -Ur true || skip "users get no user namespaces here"
	mkdir "$PF_DIR/upper"
	echo x >"$PF_DIR/upper/file"
	pinfold checkpoint encryption --key "file:$KEY" --default yes >/dev/null
	printf '{"sandbox_id":"s","name":"s","base_image":{"ref":"host","digest":"x"}}\n' |
		"$helper" --store "$STORE" snapshot-write --upper-fd 9 9<"$PF_DIR/upper" >/dev/null
	chown -R 61234:61234 "$STORE"
	chmod 711 "$PF_DIR"
	chmod 640 "$KEY"
	chown 0:61235 "$KEY"
	"${user[@]}" "$helper" --store "$STORE" checkpoint prepare s >/dev/null
	# What its user cannot read has no /proc of its own: namespaces are to be had, and nobody to be in them.
	install -m 711 "$helper" "$PF_DIR/pinfold-store"
	for h in "$helper" "$PF_DIR/pinfold-store"; do
		chown 0:61235 "$KEY"
		assert_equal "$("${user[@]}" "$h" --store "$STORE" checkpoint gc | jq -r .kept_all)" false
		chown 61236:61235 "$KEY"
		status=0
		stderr=$("${user[@]}" "$h" --store "$STORE" --key "file:$KEY" checkpoint gc 2>&1 >"$PF_DIR/out") || status=$?
		output=$(<"$PF_DIR/out")
		assert_refused "belongs to user 61236"
	done
}

@test "a layer that is there twice, in clear and encrypted, goes with the last checkpoint of its kind" {
	make_canary
	pinfold snapshot "$ID" --name plain >/dev/null
	pinfold snapshot "$ID" --name sealed --encrypt --key "file:$KEY" >/dev/null
	pinfold checkpoint prepare plain >/dev/null
	pinfold checkpoint rm plain --key "file:$KEY" >/dev/null
	no_canary
	gone
	pinfold checkpoint verify --all --key "file:$KEY" >/dev/null
	pinfold snapshot "$ID" --name again --no-encrypt >/dev/null
	pinfold checkpoint rm sealed --key "file:$KEY" >/dev/null
	assert_equal "$(ls "$STORE/checkpoints/layers" | grep -c sealed)" 0
	pinfold checkpoint verify --all >/dev/null
}
