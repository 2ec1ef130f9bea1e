# Helpers for the bats files. A file begins with
#
#   load ../lib/common
#   setup() { common_setup; }
#   teardown() { common_teardown; }
#
# and has then, in every test: $ROOT and $STORE of its own (the store is shared within the file), pinfold() with
# both filled in, pf() which runs it and keeps $status, $output (stdout) and $stderr, and new_id() for ids that
# nobody else uses. common_teardown destroys every sandbox that was made, whatever the test did.
# shellcheck shell=bash

bats_require_minimum_version 1.5.0

: "${BUILD:=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build}"
: "${PINFOLD:=$BUILD/bin/pinfold}"
TESTS_DIR=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
export BUILD PINFOLD TESTS_DIR

common_setup() {
	[ -x "$PINFOLD" ] || { echo "$PINFOLD is not built" >&2; return 1; }
	# Short: sockets live below it, and their paths end at 107 bytes.
	PF_DIR=$(mktemp -d "${TMPDIR:-/tmp}/pf.XXXXXX")
	ROOT="$PF_DIR/run"
	STORE="${PF_SHARED_STORE:-$BATS_FILE_TMPDIR/store}"
	mkdir -p -m 700 "$ROOT" "$STORE"
	: >"$PF_DIR/ids"
}

common_teardown() {
	local id dir left=0
	[ -n "${PF_DIR:-}" ] || return 0
	while read -r id; do
		[ -e "$ROOT/$id" ] || [ -e "$STORE/sandboxes/$id" ] || continue
		pinfold destroy -- "$id" >/dev/null 2>&1 || pinfold delete --force -- "$id" >/dev/null 2>&1 || true
	done <"$PF_DIR/ids"
	# Sandboxes that the test made under a name it did not take from new_id.
	for dir in "$ROOT"/*/; do
		[ -d "$dir" ] || continue
		id=$(basename -- "$dir")
		pinfold destroy -- "$id" >/dev/null 2>&1 || pinfold delete --force -- "$id" >/dev/null 2>&1 ||
			{ echo "cannot destroy $id" >&2; left=1; }
	done
	rm -rf "$PF_DIR"
	return "$left"
}

pinfold() {
	"$PINFOLD" --root "$ROOT" --store "$STORE" "$@"
}

# Runs pinfold; sets status, output (stdout alone) and stderr. Never fails by itself. Not with bats' run, which
# takes a 127 for a mistake of the test.
pf() {
	status=0
	output=$(pinfold "$@" 2>"$PF_DIR/stderr") || status=$?
	stderr=$(<"$PF_DIR/stderr")
}

# Sets ID to a fresh sandbox id.
new_id() {
	ID="t$$-${BATS_TEST_NUMBER:-0}-$RANDOM"
	echo "$ID" >>"$PF_DIR/ids"
}

# Writes a sandbox file and sets CONFIG to it. Without an argument: the empty document.
config() {
	CONFIG="$PF_DIR/sandbox.json"
	printf '%s\n' "${1:-{\}}" >"$CONFIG"
}

# Makes a sandbox from a sandbox file's text (default {}); sets ID. Further arguments go to create.
create_sandbox() {
	config "${1:-}"
	[ $# -eq 0 ] || shift
	new_id
	pinfold create "$ID" --config "$CONFIG" "$@" >"$PF_DIR/state.json"
}

# ---- inside and around the sandbox of create_sandbox -----------------------------------------------------------

# Runs a command in it, as pf does.
inside() {
	pf exec "$ID" -- "$@"
}

# One value of its state as the host sees it: state_of .pid
state_of() { # JQ-EXPRESSION [ID]
	pinfold state "${2:-$ID}" | jq -r "$1"
}

# Puts a program of tests/helpers into it as /tmp/NAME.
give_helper() { # NAME
	[ -x "$BUILD/tests/helpers/$1" ] || skip "needs $BUILD/tests/helpers/$1 (make test-programs)"
	pinfold exec "$ID" -- sh -c "cat >/tmp/$1 && chmod 755 /tmp/$1" <"$BUILD/tests/helpers/$1"
}

# Until the command succeeds; fails when it has not after that many seconds.
wait_for() { # SECONDS COMMAND...
	local tries=$(($1 * 20))
	shift
	while ! "$@"; do
		[ $((tries -= 1)) -gt 0 ] || return 1
		sleep 0.05
	done
}

# The pids of its processes, of the host's numbering, in one line; empty when there are none.
pids_of() { # [ID]
	find /sys/fs/cgroup -path "*/pinfold/*${1:-$ID}*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -nu | xargs
}

# ---- what tests ask for ------------------------------------------------------------------------------------

# Built with sanitizers, whose own memory is beyond any bound that a test could give.
sanitized() { grep -q __asan_init "$PINFOLD"; }

need_root() {
	[ "$(id -u)" = 0 ] || skip "needs root"
}

need() { # PROGRAM...
	local p
	for p; do command -v "$p" >/dev/null || skip "needs $p"; done
}

# As an ordinary user without groups.
run_as_user() {
	setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs -- "$@"
}

# ---- assertions: each says what it saw when it fails ---------------------------------------------------------

show() {
	printf '%s\n' "$@" "status: ${status:-}" "stdout: ${output:-}" "stderr: ${stderr:-}" >&2
	return 1
}

assert_status() { # N
	[ "$status" = "$1" ] || show "expected status $1"
}

assert_out() { # TEXT in stdout
	[[ "$output" == *"$1"* ]] || show "expected on stdout: $1"
}

assert_err() { # TEXT in stderr
	[[ "$stderr" == *"$1"* ]] || show "expected on stderr: $1"
}

refute_out() { # TEXT not in stdout
	[[ "$output" != *"$1"* ]] || show "not expected on stdout: $1"
}

# Fails when the command succeeds. (Of one behind a bare "!" errexit takes no notice.)
refute() { # COMMAND...
	if "$@"; then show "not expected: $*"; fi
}

assert_equal() { # ACTUAL EXPECTED
	[ "$1" = "$2" ] || show "expected: $2" "     got: $1"
}

assert_json() { # JQ-EXPRESSION that must be true of stdout
	jq -e "$1" <<<"$output" >/dev/null || show "expected of the JSON: $1"
}

# One line on stderr for a person, status 125, nothing on stdout.
assert_refused() { # WORD... each in the message
	local w
	assert_status 125 || return 1
	[ -z "$output" ] || show "expected nothing on stdout" || return 1
	[ -n "$stderr" ] || show "expected a message" || return 1
	[ "$(grep -c . <<<"$stderr")" = 1 ] || show "expected one line on stderr" || return 1
	for w; do assert_err "$w" || return 1; done
}

# Nothing of a sandbox is on the machine: state, workspace, cgroup, mount, process.
assert_gone() { # ID
	local found
	found=$(
		find "$ROOT" "$STORE/sandboxes" -mindepth 1 -maxdepth 1 -name "*$1*" 2>/dev/null || true
		find /sys/fs/cgroup -type d -name "*$1*" 2>/dev/null || true
		grep -F -- "$1" /proc/self/mountinfo || true
	)
	[ -z "$found" ] || show "left of $1:" "$found"
}
