# The image for agents as it comes out of images/agent, and real package managers. Minutes: make test-images.
# timeout: 1800
load ../lib/common

setup_file() {
	export STORE="$BATS_FILE_TMPDIR/store" WORK="$BATS_FILE_TMPDIR"
	[ "$(id -u)" = 0 ] && [ -x "$PINFOLD" ] && command -v mmdebstrap >/dev/null || return 0
	mkdir -m 700 "$STORE" "$WORK/run"
	"$PINFOLD" --root "$WORK/run" --store "$STORE" image build "$TESTS_DIR/../images/agent" >"$WORK/agent.json" 2>"$WORK/agent.err" 3>&- 4>&- ||
		touch "$WORK/failed"
}

setup() {
	need_root
	need mmdebstrap jq
	[ ! -e "$WORK/failed" ] || { cat "$WORK/agent.err" >&2; return 1; }
	PF_SHARED_STORE=$STORE
	common_setup
}
teardown() { common_teardown; }

@test "it has a shell, Python, Node.js of 22 or later, git, ripgrep and build tools, and its user has a home" {
	create_sandbox '{"image":"agent"}'
	inside /bin/bash -c 'set -e; id -un; echo "$HOME"; touch "$HOME/x" /workspace/x; for p in python3 pip3 node npm git rg gcc make cmake jq unzip tar sqlite3; do
		command -v $p >/dev/null || echo "no $p"; done; node -p "process.versions.node.split(\".\")[0]"; npm --version | cut -d. -f1; ls -A /mnt'
	assert_equal "$output" $'agent\n/home/agent\n22\n10'
	inside /bin/bash -c 'cd /tmp && printf "int main(void) { return 7; }" >a.c && gcc a.c -o a && ./a'
	assert_status 7
	inside python3 -c 'import ssl, sqlite3, venv, ensurepip; print("ok")'
	assert_out ok
	inside node -e 'console.log(require("node:crypto").createHash("sha256").update("x").digest("hex").slice(0, 4))'
	assert_out 2d71
}

@test "built again it is another bootstrap of the same packages, and what the managers brought is taken from before" {
	pf image inspect agent
	local layers
	layers=$(jq -c .layers <<<"$output")
	pf image build "$TESTS_DIR/../images/agent"
	assert_status 0
	assert_json '.cached and .ref == "agent:latest"'
	assert_equal "$(jq -c .layers <<<"$output")" "$layers"
}

@test "real managers: packages of apt, npm and pip are there for the sandbox's user, and nothing of this machine's configuration" {
	config '{"image":"agent","packages":{"apt":["bc"],"npm":["is-number@7.0.0"],"pip":["six==1.16.0"]}}'
	pf image packages "$CONFIG"
	assert_status 0
	new_id
	pinfold create "$ID" --config "$CONFIG" >/dev/null
	inside /bin/bash -c 'echo 6*7 | bc; python3 -c "import six; print(six.__version__)"; NODE_PATH=$(npm root -g) node -p "require(\"is-number\")(7)"; find / -xdev -name .npmrc 2>/dev/null'
	assert_equal "$output" $'42\n1.16.0\ntrue'
	pf image packages "$CONFIG"
	assert_json .cached
}

@test "a package that does not exist is told in the manager's words" {
	local m
	for m in apt npm pip; do
		config "{\"image\":\"agent\",\"packages\":{\"$m\":[\"no-such-package-anywhere-7\"]}}"
		pf image packages "$CONFIG"
		assert_refused "$m" no-such-package-anywhere-7
	done
}
