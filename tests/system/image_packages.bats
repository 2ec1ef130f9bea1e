# Packages in images: installed once in a container, kept by what was asked for, found by create. With managers that only
# write down how they were called; the real ones are in tests/images (make test-images).
# parallel-safe
# timeout: 120
load ../lib/common

setup_file() {
	[ "$(id -u)" = 0 ] && command -v busybox >/dev/null || return 0
	local fs="$BATS_FILE_TMPDIR/fs" a
	mkdir -p "$fs"/{bin,etc,usr/bin,usr/local/bin,tmp,run,proc,sys,dev,root,var/log}
	cp "$(command -v busybox)" "$fs/bin/"
	for a in sh cat ls id env sort touch mkdir grep readlink sleep; do ln -s busybox "$fs/bin/$a"; done
	cat >"$fs/usr/bin/npm" <<-'END'
		#!/bin/sh
		mkdir -p /usr/local/lib/seen
		cd /usr/local/lib/seen
		echo "$@" >arguments
		env | sort >environment
		id >id
		grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status >status
		readlink /proc/self/ns/user /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/net >namespaces
		ls -A / /home /root /tmp >directories 2>/dev/null
		[ -z "$NPM_CONFIG_USERCONFIG" ] || grep -c CANARY "$NPM_CONFIG_USERCONFIG" >config
		{ echo x >"$NPM_CONFIG_USERCONFIG"; } 2>/dev/null && echo written >config
		touch /tmp/scratch /var/log/npm.log
		case " $* " in
		*" slow "*) touch /usr/local/lib/slow; sleep 77777 ;;
		*" bad "*) echo "some words" >&2; echo "npm ERR! code E404" >&2; echo "npm ERR! no bad here" >&2; exit 1 ;;
		esac
	END
	printf '#!/bin/sh\nfor p; do :; done\necho "$p" >>/usr/local/apt\n' >"$fs/usr/bin/apt-get"
	chmod 755 "$fs"/usr/bin/*
	export BASE_FS=$fs
}

setup() {
	need_root
	need jq busybox
	common_setup
	# A store of its own: what is cached is what is tested.
	STORE="$PF_DIR/store"
	mkdir -m 700 "$STORE"
	pinfold image import "dir:$BASE_FS" --name small >"$PF_DIR/base.json"
	mkdir "$PF_DIR/home"
	echo '//registry.example/:_authToken=CANARY' >"$PF_DIR/home/.npmrc"
	export HOME="$PF_DIR/home"
}
teardown() { common_teardown; }

# Makes the image of a sandbox file's text; sets status, output, stderr, and FS to its own layer.
packages() { # JSON [OPTION...]
	echo "$1" >"$PF_DIR/env.json"
	pf image packages "$PF_DIR/env.json" "${@:2}"
	[ "$status" != 0 ] || FS="$STORE/images/layers/$(jq -r '.layers[-1] | sub(":"; "-")' <<<"$output")/fs"
}
layers() { find "$STORE/images/layers" -mindepth 1 -maxdepth 1 | wc -l; }

@test "packages are installed by their manager, once: the same list on the same image is the same image" {
	packages '{"image":"small","packages":{"npm":["b@2","a"],"apt":["x"]}}'
	assert_status 0
	assert_json '.cached == false and (.layers | length) == 2 and (.ref | startswith("packages:"))'
	assert_equal "$(<"$FS/usr/local/lib/seen/arguments")" "install --global --no-audit --no-fund --no-update-notifier --loglevel=error -- a b@2"
	assert_equal "$(<"$FS/usr/local/apt")" $'update\nx'
	local digest
	digest=$(jq -r .digest <<<"$output")
	# Another order, the environment form, a repetition; and a second name.
	packages '{"image":"small","config":{"type":"self_hosted","packages":{"type":"packages","apt":["x"],"npm":["a","b@2","a"]}}}' --name mine
	assert_json '.cached and .digest == "'"$digest"'" and .ref == "mine:latest"'
	assert_equal "$(pinfold image inspect mine | jq -r .digest)" "$digest"
	# Another list, and the same on another image, are others.
	packages '{"image":"small","packages":{"npm":["a"]}}'
	assert_json '.cached == false and .digest != "'"$digest"'"'
	packages '{"packages":{"npm":["a"]}}' --image mine
	assert_json '.cached == false and (.layers | length) == 3'
}

@test "the container has its own ids' powers, processes and files; of the machine's it sees what it needs, and keeps nothing" {
	packages '{"image":"small","packages":{"npm":["a"]}}'
	assert_status 0
	local seen="$FS/usr/local/lib/seen" ns
	# The manager's configuration is there to be read, not to be written, and not in the image.
	assert_equal "$(<"$seen/config")" 1
	refute grep -rq authToken=CANARY "$STORE"
	[ -z "$(find "$FS" -name 'npmrc*' -o -name scratch -o -name npm.log -o -name resolv.conf -o -name hosts)" ]
	assert_equal "$(stat -c %U:%G:%a "$FS")" root:root:755
	for ns in user pid mnt; do ! grep -q "$(readlink /proc/self/ns/$ns)" "$seen/namespaces" || show "shares $ns"; done
	grep -q 'NoNewPrivs.*1' "$seen/status"
	refute grep -q 'CapBnd.*1ff' "$seen/status"
	refute grep -q "$(basename "$PF_DIR")" "$seen/directories"
	refute grep -qi 'ANTHROPIC\|PF_DIR\|BATS' "$seen/environment"
	# Not even a name of what was made for it is left.
	[ -z "$(ls -A "$STORE/images/tmp")" ]
	[ -z "$(find /sys/fs/cgroup -type d -name "*build-*-npm*")" ]
	refute grep -q "$STORE" /proc/self/mountinfo
}

@test "create takes the image with the file's packages, and says so where there is none" {
	config '{"image":"small","packages":{"npm":["a"]},"networking":{"type":"none"}}'
	new_id
	pf create "$ID" --config "$CONFIG"
	assert_status 0
	assert_err "image packages"
	pf exec "$ID" -- ls /usr/local/lib
	[ "$status" != 0 ]
	pinfold destroy "$ID"
	pinfold image packages "$CONFIG" >/dev/null
	pf create "$ID" --config "$CONFIG"
	assert_status 0
	assert_equal "$stderr" ""
	pf exec "$ID" -- cat /usr/local/lib/seen/arguments
	assert_out ' a'
	# Its checkpoint goes on on that image.
	pinfold destroy "$ID" --snapshot >/dev/null
	pf create "$ID" --config "$CONFIG" --from latest
	assert_status 0
}

@test "what fails leaves no image: the manager's own words, a manager that is missing, names that are none" {
	local before
	before=$(layers)
	packages '{"image":"small","packages":{"npm":["bad"]}}'
	assert_refused npm 'npm ERR! code E404;npm ERR! no bad here'
	[[ "$stderr" != *"some words"* ]]
	packages '{"image":"small","packages":{"pip":["a"]}}'
	assert_refused pip 'python3 is not in the image'
	packages '{"image":"small","packages":{"npm":["--prefix=/etc"]}}'
	assert_refused packages.npm 'not a package name'
	packages '{"image":"host","packages":{"npm":["a"]}}'
	assert_refused 'image host' 'images of the store only'
	packages '{"image":"small"}'
	assert_refused 'no packages'
	packages '{"packages":{"npm":["a"]}}'
	assert_refused 'names no image' --image
	assert_equal "$(layers)" "$before"
	[ -z "$(ls -A "$STORE/images/tmp")" ]
	pf image ls --json
	assert_json 'length == 1'
}

@test "a build that is ended leaves no process and no image" {
	echo '{"image":"small","packages":{"npm":["slow"]}}' >"$PF_DIR/env.json"
	"$PINFOLD" --root "$ROOT" --store "$STORE" image packages "$PF_DIR/env.json" >/dev/null 2>&1 3>&- 4>&- &
	local builder=$!
	wait_for 10 eval 'ls "$STORE"/images/tmp/*/rw/upper/usr/local/lib/slow >/dev/null 2>&1'
	kill -9 "$builder"
	wait "$builder" || true
	wait_for 10 eval '[ -z "$(find /sys/fs/cgroup -type d -name "*build-$builder-npm*")" ]'
	pinfold gc >/dev/null
	[ -z "$(ls -A "$STORE/images/tmp")" ]
	pf image ls --json
	assert_json 'length == 1'
}

@test "a recipe may have packages of other managers than Debian's: they are checked like its own" {
	mkdir -p "$PF_DIR/recipes/r"
	local text
	for text in '{"packages":{"apt":["bash"],"npn":["x"]}}' '{"packages":{"apt":["bash"],"npm":["-x"]}}' '{"packages":{"npm":["x"]}}'; do
		echo "$text" >"$PF_DIR/recipes/r/recipe.json"
		pf image build "$PF_DIR/recipes/r"
		assert_status 125
		[ -n "$stderr" ]
	done
	assert_refused 'names no packages'
}
