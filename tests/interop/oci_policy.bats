# parallel-safe
# The annotation io.pinfold.policy on plain bundles: networks that are new, joined, owned by a user namespace,
# taken over from a keeper that is gone; and what is taken back when a container does not come about.
# timeout: 200
load ../lib/common
load bundle

setup_file() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	local p
	for p in busybox jq dnsmasq nft; do command -v "$p" >/dev/null || skip "needs $p"; done
	# A node and a server beyond it, in networks of their own; pinfold runs in the node's.
	unshare -n sleep 100000 3>&- 4>&- &
	export NODE=$!
	unshare -n sleep 100000 3>&- 4>&- &
	export WORLD=$!
	local home
	home=$(readlink /proc/self/ns/net)
	wait_for 5 sh -c "[ \"\$(readlink /proc/$NODE/ns/net)\" != '$home' ] && [ \"\$(readlink /proc/$WORLD/ns/net)\" != '$home' ]"
	in_net "$NODE" sh -ec "
		ip link add s0 type veth peer name eth0 netns $WORLD
		ip link set lo up; ip addr add 5.5.5.1/24 dev s0; ip link set s0 up; sysctl -qw net.ipv4.ip_forward=1"
	in_net "$WORLD" sh -ec 'ip link set lo up; ip addr add 5.5.5.5/24 dev eth0; ip link set eth0 up; ip route add default via 5.5.5.1'
	mkdir "$BATS_FILE_TMPDIR/www"
	echo hello >"$BATS_FILE_TMPDIR/www/index.html"
	nsenter -t "$WORLD" -n busybox httpd -f -p 80 -h "$BATS_FILE_TMPDIR/www" 3>&- 4>&- &
	export WEB=$!
	nsenter -t "$WORLD" -n dnsmasq -k --conf-file=/dev/null --pid-file= --user=root --no-resolv --no-hosts --bind-interfaces --listen-address=5.5.5.5 \
		--address=/good.example.com/5.5.5.5 --address=/other.example.com/5.5.5.5 3>&- 4>&- &
	export DNS=$!
	wait_for 5 sh -c "nsenter -t $NODE -n busybox nslookup good.example.com 5.5.5.5 2>&1 | grep -q 'Address: 5.5.5.5$'"
}

teardown_file() {
	local pid
	for pid in "${WEB:-}" "${DNS:-}" "${NODE:-}" "${WORLD:-}"; do [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; done
}

setup() {
	common_setup
	bundle_setup
	PODNET=
	policy '{"allowed_hosts": ["good.example.com:80"], "resolver": "5.5.5.5"}'
}

teardown() {
	# Common teardown runs pinfold where the test did.
	common_teardown
	bundle_teardown
	[ -z "$PODNET" ] || kill "$PODNET" 2>/dev/null || true
}

in_net() { nsenter -t "$1" -n "${@:2}"; }

pinfold() { nsenter -t "$NODE" -n "$PINFOLD" --root "$ROOT" --store "$STORE" "$@"; }

policy() {
	edit '.annotations["io.pinfold.policy"] = $p' --arg p "$1"
}

# A network as a CNI plugin makes it; the bundle joins it.
podnet() {
	unshare -n sleep 100000 3>&- 4>&- &
	PODNET=$!
	wait_for 5 sh -c "[ \"\$(readlink /proc/$PODNET/ns/net)\" != \"\$(readlink /proc/self/ns/net)\" ]"
	in_net "$NODE" sh -ec "
		ip link add v$PODNET type veth peer name eth0 netns $PODNET
		ip addr replace 10.89.0.1/24 dev v$PODNET; ip link set v$PODNET up"
	in_net "$PODNET" sh -ec "ip link set lo up; ip addr add ${1:-10.89.0.2}/24 dev eth0; ip link set eth0 up; ip route add default via 10.89.0.1 dev eth0 onlink"
	edit '(.linux.namespaces[] | select(.type == "network")).path = $p' --arg p "/proc/$PODNET/ns/net"
}

# Starts the bundle with `sleep`; sets ID.
start_bundle() {
	script 'exec sleep 1000'
	new_id
	pinfold run --detach --bundle "$BUNDLE" "$ID" </dev/null >/dev/null
}

fetch() { # URL...
	pf exec "$ID" sh -c 'for u; do timeout 5 wget -qO- "$u" 2>/dev/null || echo refused; done' - "$@"
}

create_refused() {
	status=0
	timeout 20 nsenter -t "$NODE" -n "$PINFOLD" --root "$ROOT" --store "$STORE" create --bundle "$BUNDLE" "$ID" </dev/null \
		>/dev/null 2>"$PF_DIR/stderr" || status=$?
	stderr=$(<"$PF_DIR/stderr")
}

tables() { in_net "$PODNET" nft list tables; }

@test "a new network of the container's own: the allowed name, by the host's way, and nothing else" {
	start_bundle
	fetch http://good.example.com/ http://other.example.com/ http://5.5.5.5/
	assert_equal "$output" "hello
refused
refused"
	pf exec "$ID" sh -c 'ls /sys/class/net 2>/dev/null; ip -o link | cut -d: -f2'
	assert_out lo
	refute_out eth0
}

@test "a network that is joined: its own addresses stay reachable, its way out is used" {
	podnet
	start_bundle
	fetch http://good.example.com/ http://other.example.com/ http://5.5.5.5/ http://10.89.0.1/
	assert_equal "$output" "hello
refused
refused
refused"
	assert_equal "$(state_of .egress.status)" enforced
}

@test "type none: nothing leaves a network that is joined" {
	podnet
	policy '{"type": "none"}'
	start_bundle
	fetch http://good.example.com/ http://5.5.5.5/
	assert_equal "$output" "refused
refused"
}

@test "in a user namespace CAP_NET_ADMIN is no power over a joined or new network, and is left alone" {
	local net
	edit '.linux.namespaces += [{type: "user"}]
		| .linux.uidMappings = [{containerID: 0, hostID: 200000, size: 65536}] | .linux.gidMappings = .linux.uidMappings
		| (.process.capabilities.bounding, .process.capabilities.effective, .process.capabilities.permitted) += ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]'
	chown -R 200000:200000 "$BUNDLE/rootfs"
	for net in new joined; do
		[ "$net" = new ] || podnet
		start_bundle
		fetch http://good.example.com/ http://5.5.5.5/
		assert_equal "$output" "hello
refused"
		pf exec "$ID" sh -c 'ip link set lo down || echo no; ip route add 1.2.3.4 dev lo || echo no; ip addr add 1.2.3.4/32 dev lo || echo no'
		assert_equal "$output" "no
no
no"
		pinfold delete --force "$ID"
	done
}

@test "power over the network, and the host's network, are refused before anything is made" {
	edit '(.process.capabilities.bounding) += ["CAP_NET_ADMIN"]'
	new_id
	create_refused
	assert_status 1
	assert_err CAP_NET_ADMIN
	assert_gone "$ID"
	edit '(.process.capabilities.bounding) -= ["CAP_NET_ADMIN"] | .linux.namespaces |= map(select(.type != "network"))'
	create_refused
	assert_status 1
	assert_err "the host's network"
	assert_gone "$ID"
}

@test "a joined network with an address among the synthetic ones is refused" {
	podnet 198.18.3.4
	new_id
	create_refused
	assert_status 1
	assert_err 198.18.0.0/15
	assert_gone "$ID"
	assert_equal "$(tables)" ""
}

@test "a container that does not come about leaves the network as it was, and no keeper" {
	podnet
	edit '.root.path = "nosuch"'
	new_id
	create_refused
	assert_status 1
	wait_for 5 sh -c "[ -z \"\$(nsenter -t $PODNET -n nft list tables)\" ]"
	wait_for 5 sh -c "! nsenter -t $PODNET -n ip route show table local | grep 198.18"
	assert_gone "$ID"
	# And one whose create was killed: the keeper hears of it by itself.
	edit '.root.path = "rootfs" | .hooks = {createRuntime: [{path: "/bin/sleep", args: ["sleep", "1000"]}]}'
	new_id
	nsenter -t "$NODE" -n "$PINFOLD" --root "$ROOT" --store "$STORE" create --bundle "$BUNDLE" "$ID" \
		</dev/null >/dev/null 2>&1 3>&- 4>&- &
	local pid=$!
	wait_for 5 sh -c "nsenter -t $PODNET -n nft list tables | grep -q pinfold"
	kill -9 "$pid"
	wait_for 5 sh -c "[ -z \"\$(nsenter -t $PODNET -n nft list tables)\" ]"
	pinfold delete --force "$ID"
}

@test "rules outlive the container in a network that does; the next one with a policy takes over" {
	podnet
	start_bundle
	local keeper
	keeper=$(state_of .egress.keeper)
	kill -9 "$keeper"
	pinfold delete --force "$ID"
	assert_equal "$(tables)" "table inet pinfold"
	run in_net "$PODNET" timeout 5 busybox wget -qO- http://5.5.5.5/
	[ "$status" != 0 ]
	start_bundle
	fetch http://good.example.com/ http://5.5.5.5/
	assert_equal "$output" "hello
refused"
}

@test "a keeper holds nothing of its creator: no lock, no pipe, no power but one capability, no user id but its own" {
	podnet
	script 'exec sleep 1000'
	new_id
	(
		exec 9>"$PF_DIR/lock"
		flock 9
		timeout 20 nsenter -t "$NODE" -n "$PINFOLD" --root "$ROOT" --store "$STORE" create --bundle "$BUNDLE" "$ID" \
			</dev/null >/dev/null 2>&1
	)
	# The container's process has it too, but not after its exec, and not the keeper.
	pinfold start "$ID"
	flock -n "$PF_DIR/lock" true
	local keeper
	keeper=$(state_of .egress.keeper)
	assert_equal "$(find "/proc/$keeper/fd" -lname '/dev/null' | wc -l)" 3
	assert_equal "$(find "/proc/$keeper/fd" -lname 'pipe:*' | wc -l)" 0
	grep -q '^CapEff:	0000000000001000$' "/proc/$keeper/status"
	grep -q '^Seccomp:	2$' "/proc/$keeper/status"
}

@test "the number of a namespace is not the namespace: a record of one that is gone opens nothing" {
	podnet
	start_bundle
	local first=$ID name
	name=$(jq -r .netns "$ROOT/$first/policy.json")
	# What is left of a pod that was never deleted, and whose namespace's number has come back.
	kill -9 "$(state_of .pid)"
	wait_for 5 sh -c "! [ -e /proc/$(state_of .egress.keeper)/fd ]"
	in_net "$PODNET" nft delete table inet pinfold
	assert_equal "$(cat "$ROOT/.netns/$name")" "$first"
	edit '.linux.cgroupsPath += "b"'
	start_bundle
	assert_equal "$(state_of .egress.container)" "$ID"
	fetch http://good.example.com/ http://5.5.5.5/
	assert_equal "$output" "hello
refused"
	pinfold delete "$first"
	assert_equal "$(cat "$ROOT/.netns/$name")" "$ID"
}

@test "a log that has grown large loses its older half" {
	start_bundle
	local log="$STORE/logs/$ID.jsonl"
	{ head -c 9000000 /dev/zero | tr '\0' x; echo; head -c 8000000 /dev/zero | tr '\0' y; echo; } >"$log"
	fetch http://other.example.com/
	shortened() { [ "$(stat -c %s "$log")" -lt 9000000 ]; }
	wait_for 5 shortened
	fetch http://third.example.com/
	wait_for 5 grep -q third.example.com "$log"
	assert_equal "$(grep -c xxxxx "$log") $(grep -c yyyyy "$log")" "0 1"
	grep -q other.example.com "$log"
}
