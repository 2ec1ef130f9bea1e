# parallel-safe
# checkpoint prune and stats: what the rules do to a real store.

load ../lib/common

setup() {
	need_root
	need jq
	common_setup
	HELPER="$BUILD/libexec/pinfold/pinfold-store"
	STORE="$PF_DIR/store" # what other tests made would be pruned too
	mkdir -m 700 "$STORE" "$PF_DIR/upper"
	HOST=$(pinfold image inspect host | jq -r .digest)
}
teardown() { common_teardown; }

# take SANDBOX NAME [LABELS]: a checkpoint with a file of its own.
take() {
	head -c 20000 /dev/urandom >"$PF_DIR/upper/data"
	printf '{"sandbox_id":"%s","name":"%s","base_image":{"ref":"host","digest":"%s"},"labels":%s}\n' "$1" "$2" "$HOST" "${3:-"{}"}" |
		"$HELPER" --root "$ROOT" --store "$STORE" snapshot-write --upper-fd 9 9<"$PF_DIR/upper" >/dev/null
}

names() {
	pinfold checkpoint ls --json | jq -r '[.[].name]|join(" ")'
}

@test "prune keeps what its rules say, for each sandbox, and frees the rest" {
	for i in 1 2 3; do
		take a "a$i"
		take b "b$i" '{"stage":"done"}'
	done
	local before
	before=$(pinfold checkpoint stats --json | jq .stored_bytes)
	pf checkpoint prune --keep-last 2 --dry-run
	assert_status 0
	assert_out "2 of 6 would go"
	assert_equal "$(names)" "a1 b1 a2 b2 a3 b3"
	pf checkpoint prune --keep-last 1 --label stage=done --json
	assert_status 0
	assert_json '([.removed[].name] == ["b1","b2"]) and ([.kept[]|[.name,.because]] == [["b3","last"]]) and .bytes > 40000'
	assert_equal "$(names)" "a1 a2 a3 b3"
	pf checkpoint prune --keep-last 2 --sandbox a
	assert_status 0
	assert_equal "$(names)" "a2 a3 b3"
	pf checkpoint verify --all
	assert_status 0
	local after
	after=$(pinfold checkpoint stats --json | jq .stored_bytes)
	# What little a pack holds of what is gone may stay there until it is worth writing the rest anew.
	[ $((before - after)) -gt 40000 ]
}

@test "the clock of --older-than runs from the last use" {
	take a old
	take a unused
	local digest
	for n in old unused; do
		digest=$(pinfold checkpoint inspect $n | jq -r .checkpoint)
		find "$STORE/checkpoints" -name "${digest#sha256:}" -exec touch -d '40 days ago' {} +
	done
	create_sandbox '{}' --from old
	pf destroy "$ID"
	pf checkpoint prune --older-than 30d --json
	assert_status 0
	assert_json '([.removed[].name] == ["unused"]) and .kept[0].because == "recent"'
}

@test "what a sandbox was created from stays, whatever the rules say" {
	take a first
	create_sandbox '{}' --from first
	pf checkpoint prune --keep-last 0 --json
	assert_status 0
	assert_json '.removed == [] and .kept[0].because == "in use"'
	pf destroy "$ID"
	pf checkpoint prune --keep-last 0 --json
	assert_json '.removed[0].name == "first"'
	assert_equal "$(names)" ""
}

@test "snapshots and prunes at the same time: all that is listed is whole, and the newest is there" {
	local i failed=0 pids=()
	mkdir "$PF_DIR/u1" "$PF_DIR/u2"
	write() { # SANDBOX
		for i in 1 2 3 4 5; do
			head -c 300000 /dev/urandom >"$PF_DIR/u$1/data$((i % 3))"
			printf '{"sandbox_id":"s%s","name":"s%s-%s","base_image":{"ref":"host","digest":"%s"}}\n' "$1" "$1" "$i" "$HOST" |
				"$HELPER" --store "$STORE" snapshot-write --upper-fd 9 9<"$PF_DIR/u$1" >/dev/null || return 1
		done
	}
	prune() {
		for i in 1 2 3 4 5; do
			"$HELPER" --store "$STORE" checkpoint prune --keep-last 2 >/dev/null || return 1
			"$HELPER" --store "$STORE" checkpoint gc >/dev/null || return 1
		done
	}
	write 1 & pids+=($!)
	write 2 & pids+=($!)
	prune & pids+=($!)
	prune & pids+=($!)
	for i in "${pids[@]}"; do wait "$i" || failed=1; done
	assert_equal "$failed" 0
	pf checkpoint verify --all
	assert_status 0
	[[ " $(names) " == *" s1-5 "* && " $(names) " == *" s2-5 "* ]]
	pf checkpoint prune --keep-last 1 --json
	assert_json '.kept | length == 2'
	pf checkpoint prepare s1-5
	assert_status 0
	cmp "$PF_DIR/u1/data2" "$STORE"/checkpoints/unpacked/*/fs/data2
}

@test "stats tell what files are there, what of them is stored, and how small" {
	take a one
	take a two
	# Larger than what is bundled with its neighbours.
	head -c 200000 /dev/urandom >"$PF_DIR/upper/large"
	cp "$PF_DIR/upper/large" "$PF_DIR/upper/same"
	yes text | head -c 1000000 >"$PF_DIR/upper/text"
	"$HELPER" --store "$STORE" snapshot-write --upper-fd 9 9<"$PF_DIR/upper" >/dev/null \
		< <(printf '{"sandbox_id":"a","name":"three","base_image":{"ref":"host","digest":"%s"}}\n' "$HOST")
	pf checkpoint stats --json
	assert_status 0
	assert_json '.checkpoints == 3 and .layers >= 2 and .logical_bytes >= 1000000 and .chunk_bytes < .logical_bytes
		and .stored_bytes < 400000 and .dedup_ratio > 1 and .compression_ratio > 3'
	pf checkpoint stats
	assert_out "to 1"
}

@test "without a rule, or with a wrong one, nothing is removed" {
	take a only
	pf checkpoint prune
	assert_refused --keep-last --older-than
	pf checkpoint prune --sandbox a
	assert_refused --keep-daily
	pf checkpoint prune --keep-last -1
	assert_refused --keep-last
	pf checkpoint prune --keep-last 0 --label stage
	assert_refused KEY=VALUE
	pf checkpoint prune --keep-lost 1
	assert_refused "did you mean --keep-last"
	assert_equal "$(names)" only
}

@test "checkpoint --help lists all its verbs, push and pull too" {
	pf checkpoint --help
	assert_status 0
	for v in ls inspect verify rm export import push pull prune stats gc; do
		assert_out $'\n'"  $v "
	done
}

@test "rm waits for a sandbox that is being made of the checkpoint, and then refuses" {
	take a first
	mkfifo "$PF_DIR/secret"
	config '{"networking":{"allowed_hosts":["example.com"]},"credentials":{"x":{"type":"api_key","hosts":["example.com"],
		"source":{"command":["/bin/sh","-c","touch '"$PF_DIR/asked; cat $PF_DIR/secret"'"]}}}}'
	new_id
	pinfold create "$ID" --config "$CONFIG" --from first >/dev/null 2>"$PF_DIR/create.err" &
	local making=$!
	wait_for 30 [ -e "$PF_DIR/asked" ]
	status=0
	timeout 1 "$HELPER" --store "$STORE" checkpoint rm first >/dev/null || status=$?
	echo sesame >"$PF_DIR/secret"
	wait "$making" || show "$(<"$PF_DIR/create.err")"
	assert_equal "$status" 124
	pf checkpoint rm first
	assert_refused "$ID"
	inside cat /data
	assert_status 0
}

@test "the caches of sandboxes that have gone go with their checkpoints" {
	take a a1
	take b b1
	take c c1
	mkdir -p "$STORE/sandboxes/c"
	touch "$STORE/checkpoints/files/.b.1.tmp"
	pinfold checkpoint rm a1 c1 >/dev/null
	assert_equal "$(ls -A "$STORE/checkpoints/files" | xargs)" "b c"
}
