# Helpers for the egress tests. A file begins with
#
#   load lib
#   setup_file() { world_begin; }
#   teardown_file() { world_end; }
#   setup() { world_setup; }
#   teardown() { common_teardown; }
#
# and has then a world of its own (world.sh): pinfold runs in the namespace that plays the host, and what leaves
# that is captured. In the world are, on every address of the internet: HTTP(S) on 80 and 443 for any name, TLS
# on 8443, echo on 7, 853, 5432 and 8080, a greeting and echo on 22, a counter of bytes on 9, HTTP that tells what
# it was asked on 8000 (8444 with TLS; 8446: with tickets that wait; 8445 reads no body), UDP sinks and on port 5000 of some addresses an echo in upper
# case; the names are those of world.sh.
# shellcheck shell=bash

load ../lib/common

RESOLVER='"resolver":"9.9.9.53"'

world_begin() {
	local p
	for p in ip nft dnsmasq nginx openssl tcpdump python3 nsenter unshare jq curl; do
		command -v "$p" >/dev/null || { export WORLD_LACKS="needs $p"; return 0; }
	done
	[ "$(id -u)" = 0 ] || { export WORLD_LACKS="needs root"; return 0; }
	WORLD=$(mktemp -d "${TMPDIR:-/tmp}/pfw.XXXXXX")
	mkfifo "$WORLD/commands"
	# Process 1 of the world ends at the end of its stdin, and everything in the world with it. (3 is bats'.)
	unshare --net --pid --fork --kill-child=KILL bash "$TESTS_DIR/egress/world.sh" "$WORLD" \
		<"$WORLD/commands" >/dev/null 3>&- &
	WORLD_PID=$!
	exec {WORLD_FD}>"$WORLD/commands"
	export WORLD WORLD_PID WORLD_FD
	wait_for 20 test -e "$WORLD/ready" -o -e "$WORLD/failed"
	[ -e "$WORLD/ready" ] || { cat "$WORLD/world.log" >&2; return 1; }
}

world_end() {
	[ -n "${WORLD:-}" ] || return 0
	exec {WORLD_FD}>&-
	kill "$WORLD_PID" 2>/dev/null || true
	wait "$WORLD_PID" || true
	rm -rf "$WORLD"
}

world_setup() {
	[ -z "${WORLD_LACKS:-}" ] || skip "$WORLD_LACKS"
	common_setup
}

at_host() { nsenter --net="/proc/$WORLD_PID/ns/net" "$@" {WORLD_FD}>&-; }
at_internet() { nsenter --net="/proc/$(<"$WORLD/inet.pid")/ns/net" "$@" {WORLD_FD}>&-; }

pinfold() { at_host "$PINFOLD" --root "$ROOT" --store "$STORE" "$@"; }

# A sandbox with this networking object, to which the resolver of the world is added.
sandbox() { # NETWORKING [CREATE-OPTION...]
	local networking
	networking=$(jq -c ". + {$RESOLVER}" <<<"$1")
	shift
	create_sandbox "{\"networking\":$networking}" "$@"
}

# The policy of a running one, likewise.
set_policy() { # NETWORKING [ID]
	jq -c ". + {$RESOLVER}" <<<"$1" >"$PF_DIR/policy.json"
	pinfold policy "${2:-$ID}" set "$PF_DIR/policy.json" >/dev/null
}

# A registry with one package, as any web server can serve it.
registry() {
	local dir="$WORLD/pkg/package"
	mkdir -p "$dir"
	echo '{"name":"tiny","version":"1.0.0","main":"index.js"}' >"$dir/package.json"
	echo 'module.exports = "tiny works"' >"$dir/index.js"
	tar -C "$WORLD/pkg" -czf "$WORLD/www/tiny-1.0.0.tgz" package
	local sum
	sum=$(openssl dgst -sha512 -binary "$WORLD/www/tiny-1.0.0.tgz" | base64 -w0)
	jq -n --arg sum "sha512-$sum" '{name:"tiny","dist-tags":{latest:"1.0.0"},versions:{"1.0.0":{name:"tiny",version:"1.0.0",
		dist:{tarball:"https://a.cdn.test/tiny-1.0.0.tgz",integrity:$sum}}}}' >"$WORLD/www/tiny"
}

# The process that reads what the sandbox sends.
gate_pid() { pgrep -P "$(state_of .pinfold.keeper)" -x pinfold-gate; }

# ---- inside ------------------------------------------------------------------------------------------------

# What a short Python program prints; probe.py is in front of it. Its arguments are in argv.
probe() { # PROGRAM [ARGUMENT...]
	local program=$1
	shift
	inside python3 -c "$(<"$TESTS_DIR/egress/probe.py")
$program" "$@"
}

# Prints "ok", "no_name", "refused", "reset", … and fails the test when it is not the first argument.
expect_dial() { # WHAT NAME-OR-ADDRESS PORT [4|6]
	probe 'print(dial(argv[1], int(argv[2]), argv[3]))' "$2" "$3" "${4:-any}"
	assert_equal "$2:$3 $output" "$2:$3 $1"
}

# The same of many, one a line, by one process.
expect_dials() { # <<<"WHAT NAME-OR-ADDRESS PORT [4|6]"
	local expected
	expected=$(cat)
	probe 'for line in argv[1].splitlines():
    where, port, *family = line.split()[1:]
    print(dial(where, int(port), *family), *line.split()[1:])' "$expected"
	assert_equal "$output" "$expected"
}

trust() { # the world's certificate, at /workspace/ca.pem
	pinfold exec "$ID" -- sh -c 'cat >/workspace/ca.pem' <"$WORLD/cert.pem"
}

# ---- what left, what arrived, what was written down ---------------------------------------------------------

# Until everything that left before is in the capture: a datagram of our own follows it.
settle() {
	local token="token-$BASHPID-$RANDOM$RANDOM"
	at_host bash -c "echo -n $token >/dev/udp/9.9.9.99/9999"
	wait_for 10 grep -qa "$token" "$WORLD/up.pcap"
}

# The packets of the capture that match, one a line. An unfinished last packet may be complained about.
captured() { # TCPDUMP-FILTER
	settle
	tcpdump -nr "$WORLD/up.pcap" "$1" 2>/dev/null || true
}

refute_captured() { # TCPDUMP-FILTER
	local packets
	packets=$(captured "$1")
	[ -z "$packets" ] || show "left the host:" "$packets"
}

# No packet that left holds this text, and no server heard it.
refute_left() { # TEXT
	settle
	! grep -qai -- "$1" "$WORLD/up.pcap" || show "left the host: $1"
	! grep -qi -- "$1" "$WORLD/heard" || show "was heard: $1"
	! grep -qi -- "$1" "$WORLD/dns.log" || show "the resolver was asked: $1"
}

audit() { # JQ-SELECTION: the lines of the audit log that match, one JSON a line
	pinfold logs "$ID" --json | jq -c "select($1)"
}

# The gate writes when its turn comes; a line may be a moment later than what it reports.
has_audit() { [ -n "$(audit "$1")" ]; }
assert_audit() { # JQ-SELECTION
	wait_for 5 has_audit "$1" || show "not in the audit log: $1" "$(pinfold logs "$ID" --json | tail -20)"
}
