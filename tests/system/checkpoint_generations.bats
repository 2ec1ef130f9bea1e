# parallel-safe
# timeout: 1800
# Many checkpoints of trees that change between them: each gives back what was there when it was made.
# PF_GENERATIONS and PF_EDITS make it longer (make soak-checkpoint).

load ../lib/common

setup() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	HELPER="$BUILD/libexec/pinfold/pinfold-store"
	[ -x "$HELPER" ] || skip "$HELPER is not built"
	T=$(mktemp -d "${TMPDIR:-/tmp}/pf-gen.XXXXXX")
	STORE="$T/store"
	GENERATIONS=${PF_GENERATIONS:-20} EDITS=${PF_EDITS:-40}
	mkdir "$STORE" "$T/upper"
}

teardown() {
	[ -n "${T:-}" ] && rm -rf "$T"
}

store() {
	"$HELPER" --store "$STORE" "$@"
}

tree() {
	python3 "$BATS_TEST_DIRNAME/../lib/generations.py" "$@"
}

# snapshot SANDBOX NAME DIR
snapshot() {
	printf '{"sandbox_id":"%s","name":"%s","base_image":{"ref":"x","digest":""}}\n' "$1" "$2" |
		store snapshot-write --upper-fd 9 9<"$3"
}

# The tree hash of a checkpoint, unpacked for that and thrown away again.
given_back() {
	local id
	store checkpoint prepare "$1" >/dev/null
	id=$(store checkpoint inspect "$1" | jq -r '.layers[0].id')
	tree hash "$STORE/checkpoints/unpacked/sha256-${id#sha256:}/fs"
	rm -rf "$STORE/checkpoints/unpacked/sha256-${id#sha256:}"
}

@test "generation after generation comes back as it was, before and after others are removed" {
	local g want=()
	for ((g = 0; g < GENERATIONS; g++)); do
		tree edit "$T/upper" "$g" "$EDITS"
		want[g]=$(tree hash "$T/upper")
		RESULT=$(snapshot s1 "g$g" "$T/upper")
		assert_equal "$(given_back "g$g")" "${want[g]}"
	done
	# The last ones read only what was new.
	[ "$(jq .unchanged <<<"$RESULT")" -gt 0 ]
	store checkpoint verify --all
	for ((g = 0; g < GENERATIONS; g += 2)); do
		store checkpoint rm "g$g" >/dev/null
	done
	store checkpoint gc
	for ((g = 1; g < GENERATIONS; g += 4)); do
		assert_equal "$(given_back "g$g")" "${want[g]}"
	done
	store checkpoint verify --all
}

# For minutes, with restores and forks and with everything killed: make soak-checkpoint.
@test "snapshots of several sandboxes beside pruning: what is left is whole, and nothing else is" {
	local s pids=() pid
	for s in 1 2 3; do
		(
			mkdir "$T/u$s"
			for ((g = 0; g < 4; g++)); do
				tree edit "$T/u$s" $((s * 100 + g)) "$EDITS"
				snapshot "s$s" "s$s-$g" "$T/u$s" >"$T/out.$s" || exit 1
			done
			tree hash "$T/u$s" >"$T/hash.$s"
		) &
		pids+=($!)
	done
	for g in 1 2 3 4 5; do
		store checkpoint prune --keep-last 2 >/dev/null
		store checkpoint gc >/dev/null
	done
	for pid in "${pids[@]}"; do wait "$pid"; done
	store checkpoint prune --keep-last 2 >/dev/null
	store checkpoint verify --all >"$T/verified"
	assert_equal "$(jq 'map(select(.good)) | length' "$T/verified")" 6
	for s in 1 2 3; do
		assert_equal "$(given_back "s$s-3")" "$(cat "$T/hash.$s")"
	done
	store checkpoint prune --keep-last 0 >/dev/null
	[ -z "$(ls -A "$STORE"/checkpoints/{manifests,layers,packs,tmp} | grep -v :)" ]
}
