# parallel-safe
# checkpoint push and pull, against Debian's docker-registry on loopback: with TLS and a password, and through somebody
# who misbehaves.
# timeout: 240
load ../lib/common
load registry

setup() {
	need_root
	need docker-registry
	common_setup
	PIDS=()
	unset REGISTRY_AUTH_FILE DOCKER_CONFIG XDG_RUNTIME_DIR
	export HOME="$PF_DIR/home"
	mkdir -p "$HOME"
	OTHER="$PF_DIR/other-store"
}
teardown() {
	local pid
	for pid in "${PIDS[@]}"; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	! mountpoint -q "$OTHER/checkpoints" || wait_for 30 umount "$OTHER/checkpoints"
	common_teardown
}

faults() { # MODE: sets FPORT
	rm -f "$PF_DIR/fport"
	: >"$PF_DIR/faults"
	/usr/bin/python3 "$BATS_TEST_DIRNAME/registry_faults.py" "$PF_DIR/fport" "$PORT" "$1" "$PF_DIR/faults" 3>&- &
	PIDS+=($!)
	wait_for 60 test -s "$PF_DIR/fport"
	FPORT=$(<"$PF_DIR/fport")
}

# A sandbox with something in it, and its checkpoint $C. SIZE: MiB of a file that does not compress.
checkpoint() { # [SIZE]
	create_sandbox '{"networking":{"type":"none"}}'
	inside sh -c "mkdir -p /workspace/d/e && echo one >/workspace/d/e/f && ln -s f /workspace/d/e/l && chmod 640 /workspace/d/e/f &&
		rm -f /etc/timezone && head -c ${1:-0}M /dev/urandom >/workspace/big"
	assert_status 0
	C=c$BATS_TEST_NUMBER
	pf snapshot "$ID" --name "$C"
	assert_status 0
	DIGEST=$(jq -r .checkpoint <<<"$output")
}

# What a checkpoint unpacked to, as text.
tree_of() { # STORE CHECKPOINT
	(
		STORE="$1"
		pinfold checkpoint prepare "$2" >/dev/null
		cd "$1/checkpoints/unpacked/$(pinfold checkpoint inspect "$2" | jq -r ".layers[0].id" | tr : -)/fs" && { find . -mindepth 1 ! -type c -printf '%P %y %m %U:%G %T@ %l\n' -o -type c -printf '%P deleted\n' | sort; find . -type f -exec sha256sum {} + | sort; }
	)
}

@test "push and pull with TLS and a password: the same checkpoint, in another store, starts a sandbox with the same files" {
	registry tls
	login secret "localhost:$PORT"
	checkpoint 1
	pf checkpoint push --ca "$PF_DIR/tls/cert.pem" --json "$C" "localhost:$PORT/team/work:v1"
	assert_status 0
	assert_json ".checkpoint == \"$DIGEST\" and .tag == \"v1\" and .blobs == 2 and .blobs_moved == 2"
	local pushed
	pushed=$(jq -r .digest <<<"$output")
	STORE="$OTHER" pf checkpoint pull --ca "$PF_DIR/tls/cert.pem" --json "localhost:$PORT/team/work:v1"
	assert_status 0
	assert_json ".checkpoint == \"$DIGEST\" and .name == \"work.v1\""
	tree_of "$OTHER" work.v1 >"$PF_DIR/there"
	tree_of "$STORE" "$C" >"$PF_DIR/here"
	[ "$(wc -l <"$PF_DIR/here")" -gt 8 ]
	diff "$PF_DIR/here" "$PF_DIR/there"
	pf destroy "$ID"
	STORE="$OTHER"
	pf create "$ID" --from work.v1
	assert_status 0
	pf destroy "$ID"
	STORE="$PF_DIR/third-store"
	SSL_CERT_FILE="$PF_DIR/tls/cert.pem" pf create "$ID" --from "localhost:$PORT/team/work@$pushed"
	assert_status 0
	assert_json ".pinfold.checkpoint == \"$DIGEST\""
	inside sh -c 'cat /workspace/d/e/l; stat -c %a /workspace/d/e/f; test -e /etc/timezone || echo gone'
	assert_equal "$output" $'one\n640\ngone'
}

# More of them, and of programs at work in a sandbox: make soak-checkpoint.
@test "generation after generation of all that a tree can hold comes back in another store as it was" {
	registry tls
	login secret "localhost:$PORT"
	export SSL_CERT_FILE="$PF_DIR/tls/cert.pem"
	mkdir "$PF_DIR/upper"
	local g want here
	for g in 0 1 2; do
		if [ $g = 0 ]; then
			/usr/bin/python3 "$TESTS_DIR/lib/generations.py" limits "$PF_DIR/upper"
		else
			/usr/bin/python3 "$TESTS_DIR/lib/generations.py" edit "$PF_DIR/upper" "$g" 200
		fi
		want=$(/usr/bin/python3 "$TESTS_DIR/lib/generations.py" hash "$PF_DIR/upper")
		output=$(printf '{"sandbox_id":"s","name":"gen%s","base_image":{"ref":"x","digest":""}}\n' $g |
			"$BUILD/libexec/pinfold/pinfold-store" --store "$STORE" snapshot-write --upper-fd 9 9<"$PF_DIR/upper")
		# Of 80 GiB the most are holes.
		assert_json '.bytes > 80000000000 and .bytes_new < 3000000 and .skipped >= 3'
		pinfold checkpoint push "gen$g" "localhost:$PORT/gens:$g" >/dev/null
		STORE="$OTHER" pf checkpoint pull --name "gen$g" "localhost:$PORT/gens:$g"
		assert_status 0
		assert_equal "$(layers_hash "$OTHER" "gen$g")" "$want"
		[ "$(du -s --block-size=1M "$OTHER/checkpoints/unpacked" | cut -f1)" -lt $((100 * (g + 1))) ]
	done
	assert_equal "$(layers_hash "$STORE" "gen$g")" "$want"
	STORE="$OTHER" pf checkpoint verify --all
	assert_status 0
}

@test "what the registry has is not sent again; what the store has is not fetched again" {
	registry
	checkpoint
	pf checkpoint push --plain-http "$C" "127.0.0.1:$PORT/a:1"
	assert_status 0
	local pushed
	pushed=$(jq -r .digest < <(pinfold checkpoint push --plain-http --json "$C" "127.0.0.1:$PORT/a:1"))
	# It is known what the layer was packed to, so that it need not be packed again: its data is not touched.
	mv "$STORE/checkpoints/packs" "$PF_DIR/packs"
	mkdir "$STORE/checkpoints/packs"
	pf checkpoint push --plain-http --json "$C" "127.0.0.1:$PORT/a:2"
	assert_json '.blobs == 2 and .blobs_moved == 0'
	rmdir "$STORE/checkpoints/packs"
	mv "$PF_DIR/packs" "$STORE/checkpoints/packs"
	pf checkpoint push --plain-http --mount-from a --json "$C" "127.0.0.1:$PORT/b:1"
	assert_json '.blobs_moved == 0 and .blobs_mounted == 2'
	for moved in 2 1; do # the second time only what says that the layer is there
		STORE="$OTHER" pf checkpoint pull --plain-http --json --name again "127.0.0.1:$PORT/b@$pushed"
		assert_status 0
		assert_json ".blobs_moved == $moved and .name == \"again\""
	done
}

@test "where the registry has the image, what is pushed is whole without a byte of it being sent, and pulls without it" {
	need skopeo umoci
	registry
	mkdir -p "$PF_DIR/root/bin" "$PF_DIR/upper"
	head -c 3M /dev/urandom >"$PF_DIR/root/bin/large"
	umoci init --layout "$PF_DIR/oci"
	umoci new --image "$PF_DIR/oci:i"
	umoci insert --image "$PF_DIR/oci:i" "$PF_DIR/root" /
	umoci config --image "$PF_DIR/oci:i" --config.env A=b
	skopeo --insecure-policy copy -q --dest-tls-verify=false "oci:$PF_DIR/oci:i" "docker://127.0.0.1:$PORT/images/base:1"
	pinfold image import "oci:$PF_DIR/oci:i" --name based >/dev/null
	echo mine >"$PF_DIR/upper/mine"
	DIGEST=$(printf '{"sandbox_id":"s","name":"on-base","base_image":{"ref":"based:latest","digest":"%s"}}\n' \
		"$(pinfold image inspect based | jq -r .digest)" |
		"$BUILD/libexec/pinfold/pinfold-store" --store "$STORE" snapshot-write --upper-fd 9 9<"$PF_DIR/upper" | jq -r .checkpoint)
	pf checkpoint push --plain-http --mount-from images/base --json on-base "127.0.0.1:$PORT/work:1"
	assert_status 0
	assert_json '.blobs == 3 and .blobs_mounted == 1 and .bytes_moved < 20000'
	# Anybody has the whole of it.
	skopeo --insecure-policy copy -q --src-tls-verify=false "docker://127.0.0.1:$PORT/work:1" "oci:$PF_DIR/whole:1"
	skopeo inspect --config "oci:$PF_DIR/whole:1" | jq -e '.config.Env == ["A=b"]' >/dev/null
	[ "$(find "$PF_DIR/whole/blobs" -size +2M | wc -l)" = 1 ]
	# We need our own part alone.
	STORE="$OTHER" pf checkpoint pull --plain-http --json "127.0.0.1:$PORT/work:1"
	assert_status 0
	assert_json ".checkpoint == \"$DIGEST\" and .blobs_moved == 2 and .bytes_moved < 20000"
}

@test "an encrypted checkpoint is kept by the registry as bytes that only the key opens" {
	registry
	(umask 077; openssl rand -hex 32 >"$PF_DIR/key")
	create_sandbox '{"networking":{"type":"none"}}'
	inside sh -c 'echo only-for-the-key >/workspace/secret'
	pf snapshot "$ID" --name e --encrypt --key "file:$PF_DIR/key"
	DIGEST=$(jq -r .checkpoint <<<"$output")
	pf checkpoint push --plain-http --json --key "file:$PF_DIR/key" e "127.0.0.1:$PORT/e:1"
	assert_status 0
	STORE="$OTHER" pf checkpoint pull --plain-http "127.0.0.1:$PORT/e:1"
	assert_status 125
	STORE="$OTHER" pf checkpoint pull --plain-http --json --key "file:$PF_DIR/key" "127.0.0.1:$PORT/e:1"
	assert_status 0
	assert_json ".checkpoint == \"$DIGEST\""
	STORE="$OTHER" pf checkpoint verify --all --key "file:$PF_DIR/key"
	assert_status 0
}

@test "others read it: skopeo inspects and copies what was pushed, and what skopeo pushed is pulled" {
	need skopeo
	registry
	checkpoint
	pf checkpoint push --plain-http --json "$C" "127.0.0.1:$PORT/ours:1"
	assert_status 0
	local pushed
	pushed=$(jq -r .digest <<<"$output")
	skopeo inspect --tls-verify=false "docker://127.0.0.1:$PORT/ours:1" >"$PF_DIR/inspect"
	jq -e ".Digest == \"$pushed\" and (.Layers | length == 1)" "$PF_DIR/inspect" >/dev/null || show "$(cat "$PF_DIR/inspect")"
	skopeo --insecure-policy copy -q --src-tls-verify=false "docker://127.0.0.1:$PORT/ours:1" "oci:$PF_DIR/copied:1"
	pinfold checkpoint export "$C" --to "oci:$PF_DIR/layout" >/dev/null
	skopeo --insecure-policy copy -q --dest-tls-verify=false "oci:$PF_DIR/layout" "docker://127.0.0.1:$PORT/by-skopeo:1"
	STORE="$OTHER" pf checkpoint pull --plain-http --json "127.0.0.1:$PORT/by-skopeo:1"
	assert_status 0
	assert_json ".checkpoint == \"$DIGEST\""
}

@test "a token service is asked with the password, for this repository alone" {
	registry
	faults token
	login secret "127.0.0.1:$FPORT"
	checkpoint
	pf checkpoint push --plain-http "$C" "127.0.0.1:$FPORT/team/work:1"
	assert_status 0
	jq -es 'map(select(.path == "/token")) | length == 1 and .[0].good and .[0].scope == ["repository:team/work:pull,push"]
		and .[0].service == ["reg"]' "$PF_DIR/faults" >/dev/null || show "$(cat "$PF_DIR/faults")"
	login wrong "127.0.0.1:$FPORT"
	pf checkpoint push --plain-http "$C" "127.0.0.1:$FPORT/team/work:2"
	assert_status 125
	assert_err "token service says 401"
	[[ "$stderr" != *secret* ]]
}

@test "the password goes to no other host, whether an upload is sent there or a download, and whatever that one asks for" {
	registry
	faults stray
	login secret "127.0.0.1:$FPORT"
	checkpoint
	pf checkpoint push --plain-http "$C" "127.0.0.1:$FPORT/w:1"
	assert_status 125
	jq -es 'map(select(.stray and .method != "GET")) | length > 0 and all(.auth == "")' "$PF_DIR/faults" >/dev/null ||
		show "$(cat "$PF_DIR/faults")"
	pf checkpoint push --plain-http "$C" "127.0.0.1:$PORT/w:1"
	assert_status 0
	STORE="$OTHER" pf checkpoint pull --plain-http "127.0.0.1:$FPORT/w:1"
	assert_status 125
	jq -es 'map(select(.stray and .method == "GET")) | length > 0 and all(.auth == "" and .path != "/token")' "$PF_DIR/faults" >/dev/null ||
		show "$(cat "$PF_DIR/faults")"
}

@test "a registry that is busy, and connections that break in the middle, up and down, are got over" {
	registry
	faults busy
	checkpoint 40
	pf checkpoint push --plain-http "$C" "127.0.0.1:$FPORT/w:1"
	assert_status 0
	jq -es 'map(select(.busy)) | length >= 4' "$PF_DIR/faults" >/dev/null
	faults cut
	pf checkpoint push --plain-http "$C" "127.0.0.1:$FPORT/x:1"
	assert_status 0
	STORE="$OTHER" pf checkpoint pull --plain-http "127.0.0.1:$FPORT/x:1"
	assert_status 0
	jq -es 'map(select(.cut)) | length == 6' "$PF_DIR/faults" >/dev/null || show "$(cat "$PF_DIR/faults")"
	# It went on from where it broke.
	jq -es 'map(select(.method == "GET" and .range != null)) | length == 3' "$PF_DIR/faults" >/dev/null || show "$(cat "$PF_DIR/faults")"
	STORE="$OTHER" pf checkpoint verify --all
	assert_status 0
}

@test "a download that broke is gone on with where the registry sends all of it again" {
	registry
	checkpoint 3
	pf checkpoint push --plain-http "$C" "127.0.0.1:$PORT/x:1"
	assert_status 0
	faults cut-whole
	STORE="$OTHER" pf checkpoint pull --plain-http "127.0.0.1:$FPORT/x:1"
	assert_status 0
	jq -es 'map(select(.cut)) | length == 3' "$PF_DIR/faults" >/dev/null || show "$(cat "$PF_DIR/faults")"
	STORE="$OTHER" pf checkpoint verify --all
	assert_status 0
}

# One that answers nothing but what the mode says; sets FPORT.
hostile() { # MODE
	rm -f "$PF_DIR/fport"
	/usr/bin/python3 "$BATS_TEST_DIRNAME/registry_hostile.py" "$PF_DIR/fport" "$1" 3>&- &
	PIDS+=($!)
	wait_for 10 test -s "$PF_DIR/fport"
	FPORT=$(<"$PF_DIR/fport")
}

@test "numbers beyond all numbers and answers without end are one clear line, and leave nothing" {
	local mode
	for mode in sizes:size error:404 redirect:longer large:longer busy:404 realm:TLS; do
		hostile "${mode%:*}"
		login secret "127.0.0.1:$FPORT"
		pf checkpoint pull --plain-http "127.0.0.1:$FPORT/w:1"
		assert_refused "${mode#*:}"
		[ -z "$(ls -A "$STORE/checkpoints/tmp")" ]
	done
	# Whom a registry tells to come back at the end of time does so before.
	hostile later
	status=0
	timeout 2 "$PINFOLD" --root "$ROOT" --store "$OTHER" checkpoint pull --plain-http "127.0.0.1:$FPORT/w:1" || status=$?
	assert_status 124
}

imports() { grep -lzxF "$STORE" /proc/[0-9]*/cmdline 2>/dev/null | xargs -r grep -lzxF import 2>/dev/null | tr -dc '0-9\n'; }
waits_for_lock() {
	local pid
	pid=$(imports)
	[ -n "$pid" ] && grep -q -- "-> FLOCK .* $pid " /proc/locks
}
none_imports() { [ -z "$(imports)" ]; }

@test "a pull that is ended puts nothing into the store any more" {
	registry
	checkpoint
	pinfold checkpoint push --plain-http "$C" "127.0.0.1:$PORT/w:1"
	local before
	before=$(pinfold checkpoint ls --quiet)
	# It has fetched all, and waits to take it in.
	exec 8<"$STORE/checkpoints/packs.lock"
	flock 8
	"$PINFOLD" --root "$ROOT" --store "$STORE" checkpoint pull --plain-http --name w "127.0.0.1:$PORT/w:1" 3>&- 8<&- &
	PIDS+=($!)
	wait_for 60 waits_for_lock
	kill -TERM $!
	wait_for 60 none_imports
	exec 8<&-
	wait_for 60 empty "$STORE/checkpoints/tmp"
	assert_equal "$(pinfold checkpoint ls --quiet)" "$before"
}

empty() { [ -z "$(ls -A "$1")" ]; }

@test "plain text is for registries of this machine" {
	local host
	for host in registry.example.com:80 127.0.0.1.example.com:80 10.0.0.1:80 '[2001:db8::1]:80'; do
		pf checkpoint pull --plain-http "$host/w:1"
		assert_refused "on this machine"
	done
}

@test "uploads whose answers are lost after they were done are not done twice" {
	registry
	faults mute
	checkpoint 40
	pf checkpoint push --plain-http "$C" "127.0.0.1:$FPORT/m:1"
	assert_status 0
	jq -es 'map(select(.mute)) | length >= 4' "$PF_DIR/faults" >/dev/null || show "$(cat "$PF_DIR/faults")"
	STORE="$OTHER" pf checkpoint pull --plain-http "127.0.0.1:$FPORT/m:1"
	assert_status 0
	STORE="$OTHER" pf checkpoint verify --all
	assert_status 0
}

@test "what is not what its digest says is refused, and nothing of it stays" {
	registry
	checkpoint
	pf checkpoint push --plain-http "$C" "127.0.0.1:$PORT/w:1"
	faults liar
	STORE="$OTHER" pf checkpoint pull --plain-http "127.0.0.1:$FPORT/w:1"
	assert_status 125
	assert_err "sent something else"
	[ -z "$(find "$OTHER/checkpoints" -type f ! -name '*lock' ! -name format ! -name index.json 2>/dev/null)" ] || show "left:" "$(find "$OTHER/checkpoints")"
	STORE="$OTHER" pf checkpoint pull --plain-http "127.0.0.1:$PORT/w@sha256:$(printf %064d 0)"
	assert_status 125
}

@test "a wrong password, nobody's certificate, an unknown name, plain text, nonsense: one clear line each" {
	registry tls
	checkpoint
	login wrong "localhost:$PORT"
	pf checkpoint push --ca "$PF_DIR/tls/cert.pem" "$C" "localhost:$PORT/w:1"
	assert_status 125
	assert_err "is the password right"
	rm "$PF_DIR/auth.json"
	pf checkpoint push --ca "$PF_DIR/tls/cert.pem" "$C" "localhost:$PORT/w:1"
	assert_status 125
	assert_err "no user is known for it"
	login secret "localhost:$PORT"
	pf checkpoint push "$C" "localhost:$PORT/w:1"
	assert_status 125
	assert_err certificate
	pf checkpoint pull --ca "$PF_DIR/tls/cert.pem" "localhost:$PORT/none:1"
	assert_status 125
	assert_err "status 404"
	local ref
	for ref in nothing host/repo localhost:1/UPPER:1 "localhost:1/a b" localhost:1/a:.. localhost:1/a@sha256:123 localhost:1/; do
		pf checkpoint pull "$ref"
		assert_status 125
	done
	pf checkpoint push no-such-checkpoint "localhost:$PORT/w:1"
	assert_status 125
	pf checkpoint push "$C"
	assert_status 125
	[ -z "$(ls -A "$STORE/checkpoints/tmp")" ]
}

@test "a pull onto a full disk says so and leaves nothing, wherever it ends, and works when there is room" {
	local size
	registry
	checkpoint 4
	pf checkpoint push --plain-http "$C" "127.0.0.1:$PORT/team/work:v1"
	assert_status 0
	STORE="$OTHER"
	mkdir -p -m 700 "$STORE/checkpoints"
	mount -t tmpfs -o size=1m,mode=700 pf-test "$STORE/checkpoints" 2>/dev/null || skip "cannot mount here"
	# Of the blobs one does not fit; they do, and what is in them does not.
	for size in 1m 6m; do
		mount -o "remount,size=$size" "$STORE/checkpoints"
		pf checkpoint pull --plain-http "127.0.0.1:$PORT/team/work:v1"
		assert_status 125
		assert_err "No space left on device"
		assert_equal "$(pinfold checkpoint ls --quiet)" ""
		assert_equal "$(find "$STORE/checkpoints" -mindepth 1 -type f ! -name '*lock' ! -name format ! -name index.json)" ""
		assert_equal "$(find "$STORE/checkpoints/tmp" -mindepth 1)" ""
	done
	mount -o remount,size=32m "$STORE/checkpoints"
	pf checkpoint pull --plain-http "127.0.0.1:$PORT/team/work:v1"
	assert_status 0
	pinfold checkpoint verify --all >/dev/null
}
