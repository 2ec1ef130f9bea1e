# parallel-safe
# Whoever makes a checkpoint may be killed, lose power or run out of disk at any of its calls: those that were there before
# are good, the sandbox runs on, and the next one succeeds.

load ../lib/common

setup() {
	need_root
	need jq
	common_setup
	STORE="$PF_DIR/store"
	mkdir -m 700 "$STORE"
	FAULTS="$BUILD/tests/helpers/faultinject.so"
	[ -e "$FAULTS" ] || skip "$FAULTS is missing (make test-programs)"
}
teardown() { common_teardown; }

# struck N WHAT VERB...: pinfold, whose helper's N-th call is struck.
struck() {
	local n=$1 what=$2
	shift 2
	LD_PRELOAD="$FAULTS" PF_FAULT="any:$n:$what" PF_FAULT_PROGRAM=pinfold-store PF_FAULT_COUNT="$PF_DIR/count" pinfold "$@"
}

change() { # N: files large and small, another one deleted
	pinfold exec "$ID" -- sh -c "cd /workspace; echo $1 >a; rm -f b; seq $1 ${1}9999 >c; mkdir -p d$1; echo $1 >d$1/e; rm -rf d$(($1 - 1))"
}

strike_snapshots() { # [OPTION...]: of snapshot and verify
	local n=0 calls what failed=0 want
	create_sandbox
	change 1
	pinfold snapshot "$ID" --name good "$@" >/dev/null
	change 2
	struck 0 kill snapshot "$ID" --name counted "$@" >/dev/null
	calls=$(tail -n 1 "$PF_DIR/count")
	[ "$calls" -ge 10 ]
	for ((n = 1; n <= calls + 1; n += 1 + calls / 14)); do
		what=power
		[ $((n % 3)) != 0 ] || what=ENOSPC+
		change $((n + 2))
		if struck "$n" "$what" snapshot "$ID" --name "s$n" "$@" >"$PF_DIR/out" 2>&1; then
			pinfold checkpoint verify "s$n" "$@" >/dev/null
		else
			failed=$((failed + 1))
			# Either not there, or (when it was killed after the last step that counts) whole.
			pf checkpoint ls --json "$@"
			want=$(jq -r --arg n "s$n" 'map(select(.name == $n)) | length' <<<"$output")
			[ "$want" = 0 ] || pinfold checkpoint verify "s$n" "$@" >/dev/null
		fi
		pinfold checkpoint verify good "$@" >/dev/null
		assert_equal "$(pinfold exec "$ID" -- cat /workspace/a)" $((n + 2))
	done
	[ "$failed" -ge 5 ]
	pinfold checkpoint gc "$@" >/dev/null
	pinfold snapshot "$ID" --name last "$@" >/dev/null
	pinfold checkpoint verify --all "$@" >/dev/null
	pinfold destroy "$ID"
	new_id
	pinfold create "$ID" --from last "$@" >/dev/null
	assert_equal "$(pinfold exec "$ID" -- cat /workspace/a)" $((n - 1 - calls / 14 + 2))
	assert_equal "$(ls -A "$STORE/checkpoints/tmp")" ""
}

@test "a snapshot that is killed, unplugged or starved anywhere leaves what was there, and no half of itself" {
	strike_snapshots
}

@test "so does an encrypted one" {
	(umask 077; openssl rand -hex 32 >"$PF_DIR/key")
	export PINFOLD_KEY="file:$PF_DIR/key" PINFOLD_ENCRYPT=yes
	strike_snapshots
}

@test "what was published already when the maker of a snapshot was killed is in nobody's way, and gc removes all of it" {
	local n calls orphans=0
	mkdir "$PF_DIR/upper"
	head -c 300000 /dev/urandom >"$PF_DIR/upper/f"
	write() { # N NAME
		printf '{"sandbox_id":"s","name":"%s","base_image":{"ref":"x","digest":""}}\n' "$2" |
			LD_PRELOAD="$FAULTS" PF_FAULT="any:$1:kill" PF_FAULT_PROGRAM=pinfold-store PF_FAULT_COUNT="$PF_DIR/count" \
				"$BUILD/libexec/pinfold/pinfold-store" --store "$STORE" snapshot-write --upper-fd 9 9<"$PF_DIR/upper" >/dev/null 2>&1
	}
	write 0 counted
	calls=$(tail -n 1 "$PF_DIR/count")
	pinfold checkpoint rm counted >/dev/null
	# From the last call back: the pack has its name, and sooner or later not yet.
	for ((n = calls; n > 0 && orphans < 4; n--)); do
		if write "$n" struck; then continue; fi
		[ "$(pinfold checkpoint ls --quiet | wc -l)" = 0 ] || { pinfold checkpoint rm struck >/dev/null; continue; }
		[ -n "$(ls -A "$STORE/checkpoints/packs")" ] || break
		orphans=$((orphans + 1))
		pf checkpoint verify --all
		assert_status 0
		pf checkpoint gc
		assert_json '.bytes > 300000'
		[ -z "$(ls -A "$STORE"/checkpoints/{manifests,layers,packs,tmp} | grep -v :)" ] || show "left:" "$(ls -AR "$STORE/checkpoints")"
	done
	[ "$orphans" -ge 2 ]
}

@test "what an import has unpacked is whole when the power goes after it got its name" {
	local n calls whole=0
	mkdir "$PF_DIR/upper"
	head -c 300000 /dev/urandom >"$PF_DIR/upper/f"
	printf '{"sandbox_id":"s","name":"a","base_image":{"ref":"x","digest":""}}\n' |
		"$BUILD/libexec/pinfold/pinfold-store" --store "$STORE" snapshot-write --upper-fd 9 9<"$PF_DIR/upper" >/dev/null
	pinfold checkpoint export a --to "oci:$PF_DIR/oci" >/dev/null
	pinfold checkpoint rm a >/dev/null
	struck 0 power checkpoint import "oci:$PF_DIR/oci" >/dev/null
	calls=$(tail -n 1 "$PF_DIR/count")
	# From the last call back, until it is not there yet.
	for ((n = calls; n > 0; n--)); do
		pinfold checkpoint rm a >/dev/null
		refute struck "$n" power checkpoint import "oci:$PF_DIR/oci" >/dev/null 2>&1
		[ -n "$(ls -A "$STORE/checkpoints/unpacked")" ] || break
		cmp "$PF_DIR/upper/f" "$STORE"/checkpoints/unpacked/sha256-*/fs/f
		whole=$((whole + 1))
	done
	[ "$whole" -ge 2 ]
}

@test "a snapshot whose last fsync fails is not there, or whole" {
	local n
	create_sandbox
	change 1
	pinfold snapshot "$ID" --name first >/dev/null
	change 2
	LD_PRELOAD="$FAULTS" PF_FAULT=fsync:0:EIO PF_FAULT_PROGRAM=pinfold-store PF_FAULT_COUNT="$PF_DIR/count" \
		pinfold snapshot "$ID" --name counted >/dev/null
	# One may make do with fewer.
	for ((n = $(tail -n 1 "$PF_DIR/count"); n > 0; n--)); do
		change $((n + 2))
		LD_PRELOAD="$FAULTS" PF_FAULT="fsync:$n:EIO" PF_FAULT_PROGRAM=pinfold-store pf snapshot "$ID" --name "s$n"
		[ "$status" = 0 ] || break
	done
	assert_status 125
	pf checkpoint verify --all
	assert_status 0
	assert_json 'all(.good)'
}
