# parallel-safe
# A pod under a policy (annotation io.pinfold.policy), in a network that containerd's CRI and the bridge plugin made,
# with name servers and web servers behind a router, as in a cluster.
# timeout: 300
load ../lib/common
load images
load containerd

SERVER4=5.5.5.5 OTHER4=5.5.5.6 SERVER6=2a00:5::5
POLICY='{"allowed_hosts": ["good.example.com:80", "meta.example.com", "node.example.com", "*.wild.example.com",
	{"host": "good.example.com", "ports": 5300, "protocol": "udp"}]}'

# The world beyond the node: a namespace whose address is a public one, with everything that could be reached.
world_up() {
	nsenter -t "$DAEMON" -n unshare -n sleep 100000 3>&- 4>&- &
	export WORLD=$!
	wait_for 5 sh -c "[ \"\$(readlink /proc/$WORLD/ns/net)\" != \"\$(readlink /proc/$DAEMON/ns/net)\" ]"
	nsenter -t "$DAEMON" -n sh -ec "
		ip link add s0 type veth peer name eth0 netns $WORLD
		ip addr add 5.5.5.1/24 dev s0; ip addr add 2a00:5::1/64 dev s0 nodad; ip link set s0 up
		ip route add 169.254.169.254/32 via $SERVER4
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
	mkdir -p "$CT/www/cgi-bin"
	printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"; echo "from $REMOTE_ADDR"\n' >"$CT/www/cgi-bin/who"
	chmod 755 "$CT/www/cgi-bin/who"
	in_world sh -ec "
		ip link set lo up; ip link set eth0 up
		ip addr add $SERVER4/24 dev eth0; ip addr add $OTHER4/24 dev eth0; ip addr add 169.254.169.254/32 dev lo
		ip addr add $SERVER6/64 dev eth0 nodad
		ip route add default via 5.5.5.1; ip -6 route add default via 2a00:5::1"
	nsenter -t "$WORLD" -n dnsmasq -k --conf-file=/dev/null --pid-file= --user=root --no-resolv --no-hosts --bind-interfaces \
		--listen-address=$SERVER4 --log-queries --log-facility="$CT/dns.log" --address=/good.example.com/$SERVER4 \
		--address=/six.wild.example.com/$SERVER6 --address=/bad.example.com/$OTHER4 \
		--address=/meta.example.com/169.254.169.254 --address=/node.example.com/5.5.5.1 3>&- 4>&- &
	export DNS=$!
	# Something that answers by UDP, and is not at port 53.
	nsenter -t "$WORLD" -n dnsmasq -k --conf-file=/dev/null --pid-file= --user=root --no-resolv --no-hosts --bind-interfaces \
		--listen-address=$SERVER4 --port=5300 --address=/udp.example.com/9.8.7.6 3>&- 4>&- &
	export DNS2=$!
	nsenter -t "$WORLD" -n busybox httpd -f -p '[::]:80' -h "$CT/www" 3>&- 4>&- &
	export WEB=$!
	nsenter -t "$WORLD" -n busybox httpd -f -p '[::]:81' -h "$CT/www" 3>&- 4>&- &
	export WEB2=$!
	wait_for 5 in_world busybox wget -qO /dev/null "http://$SERVER4/cgi-bin/who"
	wait_for 5 grep -q started "$CT/dns.log"
}

in_world() { nsenter -t "$WORLD" -n "$@"; }

setup_file() {
	local p
	for p in dnsmasq tcpdump; do command -v "$p" >/dev/null || skip "needs $p"; done
	[ -x "$BUILD/tests/helpers/rawsend" ] || skip "needs $BUILD/tests/helpers/rawsend (make test-programs)"
	containerd_up '{"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "bridge", "bridge": "pft0", "isGateway": true,
		"ipMasq": false, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.7.0/24"}], [{"subnet": "fd88:7::/64"}]],
		"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}], "dataDir": "@CT@/ipam"}}]}'
	world_up
	# The way back to the pods.
	in_world ip route add 10.88.7.0/24 via 5.5.5.1
}

teardown_file() {
	local pid
	for pid in "${DNS:-}" "${DNS2:-}" "${WEB:-}" "${WEB2:-}"; do [ -z "$pid" ] || kill "$pid" 2>/dev/null || true; done
	containerd_down
	[ -z "${WORLD:-}" ] || kill "$WORLD"
}

setup() {
	DNS_SERVERS='["5.5.5.5"]'
	ANNOTATIONS=$(jq -n --arg p "$POLICY" '{"io.pinfold.policy": $p}')
}

teardown() {
	[ -z "${CAPTURE:-}" ] || kill "$CAPTURE" 2>/dev/null || true
	# Whatever a test left, the next one begins without.
	local id
	for id in $(ctr -n k8s.io container ls -q 2>/dev/null); do
		cri StopPodSandbox "{\"pod_sandbox_id\": \"$id\"}"
		cri RemovePodSandbox "{\"pod_sandbox_id\": \"$id\"}"
	done
}

# Whatever a container has by default under containerd, with a helper in /helpers.
CONFIG='.mounts = [{container_path: "/helpers", host_path: (env.BUILD + "/tests/helpers"), readonly: true}]'

policy_pod() { # NAME: a pod and a container in it
	run_pod "$1" 0
	container "$1" 'exec sleep 1000' "$CONFIG${2:+ | $2}"
	start_container
	assert_status 0
}

oci() { "$CT/runtime" --root "$CT/pinfold/k8s.io" "$@"; }

egress() { oci state "$1" | jq -r ".egress.$2"; }

# Tries each URL; prints the answer or "refused SECONDS".
TRY='try() { for u; do s=$(date +%s); echo "$u $(timeout 5 wget -qO- "$u" 2>/dev/null || echo refused $(($(date +%s) - s)))"; done; }'

# What passes the world's and the node's devices until capture_end, in $CT/NAME.cap. At once and with room: what is
# lost on the way into the file would prove nothing.
capture() { # NAME
	nsenter -t "$DAEMON" -n tcpdump --immediate-mode -B 16384 -s 200 -U -n -i any -w "$CT/$1.cap" >/dev/null 2>"$CT/$1.err" 3>&- 4>&- &
	CAPTURE=$!
	wait_for 5 grep -q listening "$CT/$1.err"
}

capture_end() { # NAME
	sleep 0.5
	kill -INT "$CAPTURE"
	wait "$CAPTURE" || true
	CAPTURE=
	grep -q '^0 packets dropped by kernel' "$CT/$1.err" || { cat "$CT/$1.err" >&2; return 1; }
}

@test "a pod reaches an allowed name over IPv4 and IPv6, with its own address, and nothing else" {
	policy_pod a
	local ip
	exec_sync "ip -4 -o addr show eth0 | sed 's/.*inet \([0-9.]*\).*/\1/'"
	ip=$output
	exec_sync "$TRY
		try http://good.example.com/cgi-bin/who
		try http://six.wild.example.com/cgi-bin/who
		try http://good.example.com:81/ http://bad.example.com/ http://$SERVER4/ 'http://[$SERVER6]/' http://$OTHER4/
		try http://169.254.169.254/ http://meta.example.com/ http://10.88.7.1/ http://5.5.5.1/ http://node.example.com/"
	assert_out "http://good.example.com/cgi-bin/who from [::ffff:$ip]"
	assert_out "http://six.wild.example.com/cgi-bin/who from [fd88:7::"
	assert_equal "$(sed -n '3,$p' <<<"$output" | sed 's/refused [01]/refused/' | sort | uniq -c | grep -c ' refused$')" 10
	# The name that is not allowed was never asked for, the one that is, was.
	grep -q good.example.com "$CT/dns.log"
	run ! grep -q bad.example.com "$CT/dns.log"
	remove_pod
}

@test "DNS goes to the keeper whatever resolv.conf says, and nowhere else" {
	DNS_SERVERS="[\"$SERVER4\"]"
	policy_pod d
	exec_sync "nslookup good.example.com $OTHER4 2>&1; nslookup bad.example.com $SERVER4 2>&1; nslookup -type=txt secret.exfil.example.com $SERVER4 2>&1"
	[[ "$output" =~ "Address: 198.1"[89]\. ]] || show "expected a synthetic address"
	assert_out "can't find bad.example.com: NXDOMAIN"
	run ! grep -q exfil "$CT/dns.log"
	remove_pod
}

@test "UDP leaves by a rule of its own, from the pod, and not without" {
	policy_pod u
	capture udp
	exec_sync "timeout 8 nslookup -type=a udp.example.com good.example.com:5300 2>&1; timeout 8 nslookup -type=a udp.example.com $SERVER4:5300 2>&1"
	capture_end udp
	assert_equal "$(grep -c 'Address: 9.8.7.6' <<<"$output")" 1
	tcpdump -nr "$CT/udp.cap" 'udp dst port 5300' 2>/dev/null >"$CT/out"
		grep -q "IP 10.88.7.[0-9]*.[0-9]* > $SERVER4.5300" "$CT/out"
	remove_pod
}

@test "raw, packet and other sockets send nothing that passes the pod's device" {
	local -a tries=()
	local name
	# First without a policy: what the capture and the tries are worth.
	ANNOTATIONS=null
	policy_pod free
	capture free
	exec_sync "/helpers/rawsend $SERVER4 $SERVER6"
	assert_out "frame-eth0 sent"
	assert_out "raw sent"
	for name in frame-eth0 packet-eth0 raw forged raw6 udp udp6 udp-by-eth0 udplite broadcast multicast6; do
		wait_for 3 grep -qa "escape-$name" "$CT/free.cap" || tries+=("$name")
	done
	capture_end free
		assert_equal "${tries[*]}" ""
	remove_pod
	setup
	policy_pod held
	capture held
	exec_sync "/helpers/rawsend $SERVER4 $SERVER6"
	assert_out "frame-eth0 Operation not permitted"
	assert_out "raw Operation not permitted"
	assert_out "mark Operation not permitted"
	# The same from somebody who has asked for the capability.
	container raw 'exec sleep 1000' "$CONFIG | .linux.security_context.capabilities = {add_capabilities: [\"NET_RAW\"]}"
	start_container
	exec_sync "/helpers/rawsend $SERVER4 $SERVER6"
	assert_out "frame-eth0 Operation not permitted"
	oci exec --cap CAP_NET_RAW "$CONTAINER" /helpers/rawsend $SERVER4 $SERVER6 >"$CT/out"
	grep -q "frame-eth0 Operation not permitted" "$CT/out"
	capture_end held
	run grep -ao "escape-[a-z0-9-]*" "$CT/held.cap"
	assert_equal "$output" ""
	remove_pod
}

@test "what could undo the rules is refused, with the reason: NET_ADMIN, everything, another policy" {
	policy_pod p
	container admin 'exec sleep 1000' '.linux.security_context.capabilities = {add_capabilities: ["NET_ADMIN"]}'
	start_container
	[ "$status" != 0 ]
	assert_err CAP_NET_ADMIN
	assert_err "policy of its network"
	container all 'exec sleep 1000' '.linux.security_context.capabilities = {add_capabilities: ["ALL"]}'
	start_container
	[ "$status" != 0 ]
	assert_err CAP_SYS_ADMIN
	container other 'exec sleep 1000' '.annotations = {"io.pinfold.policy": "{\"type\": \"unrestricted\"}"}'
	start_container
	[ "$status" != 0 ]
	assert_err "under another policy already"
	container same 'exec sleep 1000'
	start_container
	assert_status 0
	exec_sync "$TRY; try http://good.example.com/cgi-bin/who http://$SERVER4/"
	assert_out "from [::ffff:10.88.7."
	assert_out "http://$SERVER4/ refused"
	status=0
	oci exec --cap CAP_NET_ADMIN "$CONTAINER" true 2>"$CT/stderr" || status=$?
	assert_status 255
	grep -q CAP_NET_ADMIN "$CT/stderr"
	remove_pod
}

@test "others reach the pod, and get answers: policy is about what the pod begins" {
	policy_pod in
	local ip
	exec_sync "ip -4 -o addr show eth0 | sed 's/.*inet \([0-9.]*\).*/\1/'"
	ip=$output
	exec_sync 'echo inside >/tmp/index.html; httpd -p 8080 -h /tmp; wget -qO- http://127.0.0.1:8080/; wget -qO- http://'"$ip"':8080/'
	assert_equal "$output" "inside
inside"
	assert_equal "$(in_world timeout 5 busybox wget -qO- "http://$ip:8080/")" inside
	assert_equal "$(nsenter -t "$DAEMON" -n timeout 5 busybox wget -qO- "http://$ip:8080/")" inside
	# And after the pod's name server's answer to itself it still begins nothing.
	exec_sync "$TRY; try http://5.5.5.1:8080/"
	assert_out refused
	remove_pod
}

@test "a keeper that is killed leaves the pod closed, and state says so" {
	policy_pod k
	local keeper
	assert_equal "$(egress "$CONTAINER" status)" enforced
	assert_equal "$(egress "$CONTAINER" container)" "$POD"
	keeper=$(egress "$POD" keeper)
	assert_equal "$(cat "/proc/$keeper/comm")" pinfold-keeper
	# A user that no other is: the namespace's number says which.
	assert_equal "$(stat -c %u "/proc/$keeper/task")" $((1879179264 + $(stat -Lc %i "/proc/$(oci state "$POD" | jq .pid)/ns/net") - 0xF0000000))
	# Its files and processes are not the node's.
	[ "$(readlink "/proc/$keeper/ns/mnt")" != "$(readlink "/proc/$DAEMON/ns/mnt")" ]
	assert_equal "$(awk '/^NSpid/ {print $NF}' "/proc/$keeper/status")" 1
	assert_equal "$(awk '$6 !~ /^ro,nosuid/' "/proc/$keeper/mountinfo")" ""
	[ ! -e "/proc/$keeper/root/proc" ]
	[ ! -e "/proc/$keeper/root/root" ]
	exec_sync "$TRY; try http://good.example.com/cgi-bin/who"
	assert_out from
	kill -9 "$keeper"
	wait_for 5 sh -c "! [ -d /proc/$keeper/fd/0 ] && [ \"\$(\"$CT/runtime\" --root \"$CT/pinfold/k8s.io\" state $POD | jq -r .egress.status)\" = closed ]"
	assert_equal "$(egress "$CONTAINER" status)" closed
	capture closed
	exec_sync "$TRY; try http://good.example.com/cgi-bin/who http://$SERVER4/ http://198.18.0.1/; /helpers/rawsend $SERVER4 $SERVER6"
	capture_end closed
	assert_equal "$(grep -c 'refused' <<<"$output")" 3
	run grep -ao "escape-[a-z0-9-]*" "$CT/closed.cap"
	assert_equal "$output" ""
	# Neither does who plays the keeper's part get out.
	exec_sync 'nc -l -p 1 -s 127.0.0.1 & timeout 2 wget -qO- http://198.18.0.1/ 2>&1; kill $!'
	remove_pod
	[ ! -e "/proc/$keeper" ] || [ "$(cut -d' ' -f3 "/proc/$keeper/stat")" = Z ]
	# One that is told to end, as at the end of the machine's day, does.
	policy_pod t
	keeper=$(egress "$POD" keeper)
	kill -TERM "$keeper"
	wait_for 20 sh -c "[ ! -e /proc/$keeper ] || [ \"\$(cut -d' ' -f3 /proc/$keeper/stat)\" = Z ]"
	remove_pod
}

@test "policy show and set, and the log, work by container id; the keeper and all files go with the pod" {
	policy_pod s
	local keeper
	keeper=$(egress "$POD" keeper)
	oci policy "$CONTAINER" show | jq -e '.revision == 1 and .policy.type == "limited"'
	echo '{"allowed_hosts": ["six.wild.example.com"]}' >"$CT/new.json"
	oci policy "$POD" set "$CT/new.json" | jq -e '.revision == 2'
	exec_sync "$TRY; try http://good.example.com/ http://six.wild.example.com/cgi-bin/who"
	assert_out "http://good.example.com/ refused"
	assert_out "who from"
	oci policy "$CONTAINER" test six.wild.example.com:80 | jq -e '.verdict == "allow"'
	oci policy "$CONTAINER" test good.example.com:80 | jq -e '.verdict == "deny"'
	oci logs "$POD" --denied --json | jq -es 'any(.[]; .name == "good.example.com" and .reason == "not_listed")'
	# Which of the pod's containers it was.
	oci logs "$POD" --json | jq -es --arg id "$CONTAINER" 'any(.[]; .kind == "connect" and .name == "six.wild.example.com" and .exec == $id)'
	remove_pod
	[ ! -d "/proc/$keeper" ] || [ "$(cut -d' ' -f3 "/proc/$keeper/stat")" = Z ]
	assert_equal "$(find "$CT/pinfold/k8s.io" -mindepth 1 -maxdepth 1 -not -name '.*')" ""
	assert_equal "$(find "$CT/pinfold/k8s.io/.netns" -type f -not -name lock)" ""
}

@test "a policy that cannot be is an error of the pod that says why, and nothing stays" {
	pod_config bad 0
	local p
	for p in '{"allowed_hosts": ["*"]}' '{"alowed_hosts": []}' 'no JSON' '{"type": "limited", "allowed_hosts": ["10.0.0.0/8"]}' '[]' \
		'{"allow_package_managers": true}' '{"allowed_hosts": [{"host": "a.example.com", "tls": "terminate"}]}'; do
		cri RunPodSandbox "$(jq -n --argjson c "$POD_CONFIG" --arg p "$p" \
			'{runtime_handler: "pinfold", config: ($c | .annotations = {"io.pinfold.policy": $p})}')"
		[ "$status" != 0 ]
		assert_err "annotation io.pinfold.policy"
	done
	pod_config host 2
	cri RunPodSandbox "$(jq -n --argjson c "$POD_CONFIG" '{runtime_handler: "pinfold", config: $c}')"
	[ "$status" != 0 ]
	assert_err "host's network"
	assert_equal "$(find "$CT/pinfold/k8s.io" -mindepth 1 -maxdepth 1 -not -name '.*')" ""
	run ! pgrep -f "pinfold-keeper.*$CT"
}
