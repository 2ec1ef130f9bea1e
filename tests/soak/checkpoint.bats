# Checkpoints for minutes: programs at work, generation after generation through a registry; everything that a store can be
# asked at once, and killed. PF_SOAK_GENERATIONS and SOAK_SECONDS say how long (make soak-checkpoint).
# timeout: 7200
load ../lib/common
load ../interop/registry

setup() {
	need_root
	need docker-registry git npm sqlite3 setfacl
	common_setup
	PIDS=()
	unset REGISTRY_AUTH_FILE DOCKER_CONFIG XDG_RUNTIME_DIR
	export HOME="$PF_DIR/home"
	mkdir -p "$HOME"
	STORE="$PF_DIR/store"
	OTHER="$PF_DIR/other-store"
	mkdir -m 700 "$STORE"
}
teardown() {
	local pid
	[ -z "${OTHER_ID:-}" ] || STORE="$OTHER" pinfold destroy --discard "$OTHER_ID" >/dev/null 2>&1 || true
	for pid in "${PIDS[@]}"; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	common_teardown
}

# In the sandbox, from now until it ends: a database that is written all the time. What is committed adds up to zero.
begin_writing() {
	pinfold exec "$ID" -- /usr/bin/python3 -c '
import sqlite3, random
db = sqlite3.connect("/workspace/db", timeout=60)
db.execute("pragma journal_mode=wal")
db.execute("create table if not exists t (a int, b int, c blob)")
while True:
    with db:
        for _ in range(random.randrange(1, 20)):
            n = random.randrange(1 << 30)
            db.execute("insert into t values (?, ?, ?)", (n, -n, random.randbytes(500)))
        db.execute("delete from t where rowid % 7 = ? and rowid < (select max(rowid) - 3000 from t)", (random.randrange(7),))
' >/dev/null 2>&1 3>&- 4>&- &
	PIDS+=($!)
}

# One generation of work: commits, a rebase, packages, files of all kinds.
work() { # N
	pinfold exec "$ID" -- bash -ec '
		export HOME=/workspace GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
		cd /workspace
		n=$1
		if [ ! -e origin.git ]; then
			git init -q --bare -b main origin.git
			git clone -q origin.git repo 2>/dev/null
			cd repo
			git checkout -q -b main
			for i in 1 2 3 4 5; do mkdir -p d$i; seq $i 3000 >d$i/f; git add .; git commit -q -m "start $i"; done
			git push -q origin main
			cd ..
		fi
		cd repo
		git checkout -q -b "topic$n" "main~2"
		for i in 1 2; do seq "$n" 2000 >"topic$n-$i"; git add .; git commit -q -m "topic $n $i"; done
		git checkout -q main
		sed -i "1s/.*/$n/" d1/f
		git commit -q -a -m "main $n"
		git rebase -q main "topic$n"
		git checkout -q main
		git merge -q --ff-only "topic$n"
		git push -q origin main
		rm -rf ../clone
		# By hard links; where the objects had several names in a layer below, these come apart, and git refuses that.
		git clone -q ../origin.git ../clone 2>/dev/null || { rm -rf ../clone; git clone -q --no-hardlinks ../origin.git ../clone; }
		[ $((n % 4)) != 3 ] || git gc -q --prune=now
		mkdir -p "../package$n" ../project
		cd "../package$n"
		printf "{\"name\":\"package%s\",\"version\":\"1.0.%s\"}" "$n" "$n" >package.json
		echo "module.exports = $n" >index.js
		for i in $(seq 50); do echo "exports.x = \"$n $i\"" >"m$i.js"; done
		npm pack --silent >/dev/null
		cd ../project
		[ -e package.json ] || echo "{\"name\":\"project\",\"version\":\"1.0.0\"}" >package.json
		npm install --offline --no-audit --no-fund --silent "../package$n/package$n-1.0.$n.tgz" >/dev/null
		[ $((n % 3)) != 2 ] || npm uninstall --no-audit --no-fund --silent "package$((n - 1))" >/dev/null
		cd ..
		mkdir -p tree
		python3 /tmp/generations.py edit tree "$n" 300
		setfacl -d -m u:$((n + 1)):rwx tree
		truncate -s 4G "sparse$((n % 3))"
		echo "$n" | dd of="sparse$((n % 3))" bs=1 seek=$((n * 100000000)) conv=notrunc status=none
		rm -rf /etc/skel /etc/timezone # deleted, and replaced as a whole
		mkdir /etc/skel
		echo "$n" >/etc/skel/new
	' work "$1"
}

@test "generations of git, npm, a database and all kinds of files: the same trees here, through a registry and in another store" {
	local g want pair kind last="${PF_SOAK_GENERATIONS:-20}"
	registry tls
	login secret "localhost:$PORT"
	export SSL_CERT_FILE="$PF_DIR/tls/cert.pem"
	create_sandbox '{"networking":{"type":"none"},"limits":{"max_runtime":"12h"}}'
	OTHER_ID="other-$ID"
	for ((g = 0; g < last; g++)); do
		if [ $((g % 5)) = 0 ]; then
			# On top of what was: layers on layers.
			if [ $g != 0 ]; then
				pinfold destroy "$ID"
				pinfold create "$ID" --from latest >/dev/null
			fi
			pinfold exec "$ID" -- sh -c 'cat >/tmp/generations.py' <"$TESTS_DIR/lib/generations.py"
			begin_writing
		fi
		work "$g"
		want="" kind=live
		if [ $((g % 2)) = 1 ]; then
			# Standing still: we can look at the very files.
			kind=paused
			pinfold pause "$ID"
			want=$(/usr/bin/python3 "$TESTS_DIR/lib/generations.py" hash "$STORE/sandboxes/$ID/workspace/upper/workspace")
		fi
		pf snapshot "$ID" --name "g$g"
		assert_status 0
		[ $kind = live ] || pinfold resume "$ID"
		jq -c "{kind: \"$kind\", generation: $g, bytes, bytes_new, files, unchanged, skipped, deletions, duration_ms, frozen_ms}" <<<"$output" >&3
		pf checkpoint push "g$g" "localhost:$PORT/gens:$g"
		assert_status 0
		STORE="$OTHER" pf checkpoint pull --name "g$g" "localhost:$PORT/gens:$g"
		assert_status 0
		layers_hash "$STORE" "g$g" "$PF_DIR/here" >"$PF_DIR/hash.here"
		layers_hash "$OTHER" "g$g" "$PF_DIR/there" >"$PF_DIR/hash.there"
		cmp "$PF_DIR/hash.here" "$PF_DIR/hash.there" || { diff -a "$PF_DIR/here" "$PF_DIR/there" | head -c 3000 >&3; false; }
		if [ -n "$want" ]; then
			pair=$(pinfold checkpoint inspect "g$g" | jq -r '.layers[0].id')
			assert_equal "$(/usr/bin/python3 "$TESTS_DIR/lib/generations.py" hash "$OTHER/checkpoints/unpacked/${pair/:/-}/fs/workspace")" "$want"
		fi
		# What programs say of it, over there.
		(
			STORE="$OTHER"
			pinfold create "$OTHER_ID" --from "g$g" >/dev/null
			pinfold exec "$OTHER_ID" -- bash -ec 'cd /workspace
				[ "$(sqlite3 db "pragma integrity_check; select coalesce(sum(a + b), 0) from t")" = "ok
0" ]
				git -c safe.directory="*" -C repo fsck --strict --no-progress 2>&1 | grep -v dangling >&2 && exit 1
				[ -z "$(git -c safe.directory="*" -C repo status --porcelain)" ]
				cd project && node -e "if (require(\"package$1\") !== $1) process.exit(1)"
				[ "$(ls /etc/skel)" = new ] && [ ! -e /etc/timezone ]
				[ "$(stat -c %s ../sparse$(($1 % 3)))" = 4294967296 ] && [ "$(stat -c %b ../sparse$(($1 % 3)))" -lt 2000 ]' look "$g"
			pinfold destroy --discard "$OTHER_ID"
		)
		# What nobody stands on is unpacked again when it is needed.
		STORE="$OTHER" pinfold checkpoint rm "g$g" >/dev/null
		rm -rf "$OTHER/checkpoints/unpacked"/*
		[ $((g % 5)) != 4 ] || STORE="$OTHER" pinfold checkpoint gc >/dev/null
	done
	pinfold checkpoint verify --all >/dev/null
}

@test "everything at once, and killed at random: what should be there is there, whole, and nothing else is" {
	# A directory of its own, which goes whatever happens.
	mkdir "$PF_DIR/race"
	/usr/bin/python3 "$BATS_TEST_DIRNAME/checkpoint_race.py" --build "$BUILD" --dir "$PF_DIR/race" --seconds "${SOAK_SECONDS:-300}" >&3
}
