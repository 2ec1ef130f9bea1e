# parallel-safe
# The recipes in images/: built from this machine's apt sources, the same twice, small, and without anything of this machine.
# timeout: 900

load ../lib/common

# Both builds once for all tests here, side by side, in two stores.
setup_file() {
	export HELPER="$BUILD/libexec/pinfold/pinfold-store" WORK="$BATS_FILE_TMPDIR/work"
	[ "$(id -u)" = 0 ] && [ -x "$HELPER" ] && command -v mmdebstrap >/dev/null || return 0
	mkdir -p "$WORK"
	local pids=() i
	for i in 1 2; do
		"$HELPER" --store "$WORK/s$i" image build "$TESTS_DIR/../images/base" >"$WORK/$i.json" 2>"$WORK/$i.err" 3>&- &
		pids+=($!)
		sleep 3 # so that a time of day in the image would show
	done
	for i in "${pids[@]}"; do wait "$i" || touch "$WORK/failed"; done
}

setup() {
	need_root
	need mmdebstrap jq
	[ -x "$HELPER" ] || skip "$HELPER is not built"
	[ ! -e "$WORK/failed" ] || { cat "$WORK"/*.err >&2; return 1; }
	FS=$("$HELPER" --store "$WORK/s1" image inspect base | jq -r '.directories[0]')
}

teardown_file() {
	rm -rf "$BATS_FILE_TMPDIR/work"
}

@test "two builds of one recipe have one digest" {
	local a b
	a=$(jq -r .digest "$WORK/1.json") b=$(jq -r .digest "$WORK/2.json")
	[[ "$a" == sha256:* ]]
	if [ "$a" != "$b" ]; then
		diff -r --no-dereference "$FS" "$(dirname "$(dirname "$FS")" | sed s,/s1/,/s2/,)"/*/fs >&2 || true
		return 1
	fi
}

@test "nothing of the building machine is in the image" {
	[ ! -s "$FS/etc/machine-id" ]
	[ ! -e "$FS/etc/hostname" ]
	[ ! -e "$FS/etc/resolv.conf" ]
	assert_equal "$(find "$FS/var/log" "$FS/var/cache/apt" "$FS/var/lib/apt/lists" "$FS/tmp" "$FS/run" "$FS/dev" -mindepth 1)" ""
	# No password, and no day on which one was changed.
	assert_equal "$(cut -d: -f2,3 "$FS/etc/shadow" | sort -u)" "*:"
	assert_equal "$(find "$FS" \( -type b -o -type c \) | wc -l)" 0
	assert_equal "$(find "$WORK/s1/images/tmp" -mindepth 1 | wc -l)" 0
	refute grep -q "$WORK" /proc/self/mountinfo
}

@test "it has its programs and its user, and is small" {
	local p
	for p in bash git curl ls; do [ -x "$FS/usr/bin/$p" ] || show "no $p"; done
	[ -s "$FS/etc/ssl/certs/ca-certificates.crt" ]
	assert_equal "$(stat -c %u:%g "$FS/workspace" "$FS/home/agent" | sort -u)" 1000:1000
	assert_equal "$(chroot "$FS" /usr/bin/id -un 1000)" agent
	# In a mount namespace of its own, with the host's /dev for a moment: git wants /dev/null.
	p=$(unshare -m sh -c "mount --bind /dev '$FS/dev' && chroot '$FS' /bin/bash -c 'git --version && curl --version'")
	[[ "$p" == git\ version*curl* ]]
	[ "$(jq .bytes "$WORK/1.json")" -lt 300000000 ]
}

@test "an export of it is itself" {
	local out
	out=$("$HELPER" --store "$WORK/s1" image export base "oci:$WORK/out:base")
	assert_equal "$(jq -r .same <<<"$out")" true
	assert_equal "$(jq -r .digest <<<"$out")" "$(jq -r .digest "$WORK/1.json")"
	"$HELPER" --store "$WORK/s3" image import "oci:$WORK/out:base" --name base >"$WORK/3.json"
	assert_equal "$(jq -r .digest "$WORK/3.json")" "$(jq -r .digest "$WORK/1.json")"
}

@test "a package that does not exist: one line from apt, nothing left" {
	mkdir -p "$WORK/bad"
	printf '{"packages":["no-such-package-anywhere"]}' >"$WORK/bad/recipe.json"
	status=0 output="" stderr=$("$HELPER" --store "$WORK/s4" image build "$WORK/bad" 2>&1 >/dev/null) || status=$?
	assert_refused no-such-package-anywhere
	assert_equal "$(find "$WORK/s4/images/tmp" "$WORK/s4/images/refs" "$WORK/s4/images/layers" -mindepth 1 | wc -l)" 0
}
