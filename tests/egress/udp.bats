# UDP: nothing without a rule of its own; with one, by name and by network, and only there.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() { world_setup; }
teardown() { common_teardown; }

ASK='def ask(host, port, data=b"hello", family="any", wait=3, s=None):
    fam, kind, proto, _, sa = socket.getaddrinfo(host, port, FAMILIES[family], socket.SOCK_DGRAM)[0]
    s = s or socket.socket(fam, kind, proto)
    s.settimeout(wait)
    try:
        s.sendto(data, sa)
        got, frm = s.recvfrom(70000)
        return got.decode() if frm[:2] == sa[:2] else f"from {frm}"
    except OSError as e:
        return word(e)
'

@test "a rule for UDP opens its name and port over IPv4 and IPv6, and answers come from where was asked" {
	sandbox '{"allowed_hosts":[{"host":"web.one.test","ports":5000,"protocol":"udp"},"a.cdn.test"]}'
	probe "$ASK"'print(ask("web.one.test", 5000, family="4"), ask("web.one.test", 5000, family="6"))
print(ask("web.one.test", 5001, wait=1), ask("a.cdn.test", 5000, wait=1), dial("web.one.test", 5000))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print([ask("web.one.test", 5000, b"n%d" % i, "4", s=s) for i in range(20)][-1])
print(ask("web.one.test", 5000, b"x" * 9000, "4") == "X" * 9000)
s.connect(("web.one.test", 5000)); s.send(b"connected"); print(s.recv(99).decode())'
	assert_equal "$output" "HELLO HELLO
forbidden hangs reset
N19
True
CONNECTED"
	assert_audit '.event=="egress_allowed" and .kind=="connect" and .proto=="udp" and .rule=="web.one.test:5000/udp" and (.process|startswith("python3"))'
	assert_audit '.event=="egress_denied" and .proto=="udp" and .reason=="protocol" and .name=="a.cdn.test"'
	refute_captured 'dst host 9.9.9.20'
	# Also of a flow that is there when the sandbox ends it is written down how much it was.
	pinfold destroy "$ID"
	assert_audit '.kind=="close" and .proto=="udp" and .reason=="gate_closed" and .bytes_out>0'
}

@test "one socket with two destinations has two flows; a network opens what is in it" {
	sandbox '{"allowed_hosts":[{"host":"a.cdn.test","ports":5000,"protocol":"udp"},{"host":"web.one.test","ports":5000,"protocol":"udp"}],"allowed_cidrs":[{"cidr":"9.9.11.0/24","ports":"5000-5010","protocol":"udp"}]}'
	probe "$ASK"'s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(ask("a.cdn.test", 5000, b"a", "4", s=s), ask("9.9.11.5", 5000, b"b", "4", s=s), ask("a.cdn.test", 5000, b"c", "4", s=s))
print(ask("9.9.12.5", 5000, family="4", wait=1), dial("9.9.11.5", 5000))'
	assert_equal "$output" $'A B C\nforbidden refused'
	# Nor does the second inherit the first, when the kernel has forgotten that one before the gate does.
	forget_after() { # SECONDS
		at_host nsenter --net="/proc/$(state_of .pid)/ns/net" sh -c 'cd /proc/sys/net/netfilter &&
			echo "$0" >nf_conntrack_udp_timeout && echo "$0" >nf_conntrack_udp_timeout_stream' "$1"
	}
	probe "$ASK"'def step(name):
    open("/workspace/" + name, "w").close()
    while not os.path.exists("/workspace/after-" + name): time.sleep(0.02)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))  # else it has another address for each destination
first, second = addresses("a.cdn.test", "4")[0], addresses("web.one.test", "4")[0]
print(ask(first, 5000, b"a", "4", wait=20, s=s))
step("asked")
s.sendto(b"again", (first, 5000))
time.sleep(2.5)
step("forgotten")
s.setblocking(False)
try:
    while True: s.recv(100)
except BlockingIOError: pass
print(ask(second, 5000, b"b", "4", wait=20, s=s))' &
	wait_for 20 pinfold exec "$ID" -- test -e /workspace/asked
	forget_after 1
	pinfold exec "$ID" -- touch /workspace/after-asked
	wait_for 20 pinfold exec "$ID" -- test -e /workspace/forgotten
	forget_after 60
	pinfold exec "$ID" -- touch /workspace/after-forgotten
	wait $!
	assert_audit '.kind=="connect" and .proto=="udp" and .verdict=="allow" and .name=="web.one.test"'
}

@test "a name over UDP is not followed to a private address, and a rule for UDP is none for QUIC elsewhere" {
	sandbox '{"allowed_hosts":[{"host":"*.bad.test","protocol":"udp","ports":[123,5000]},"web.one.test"]}'
	probe "$ASK"'print(ask("to-lan.bad.test", 5000, family="4", wait=0.5), ask("to-metadata.bad.test", 123, family="4", wait=0.5), ask("web.one.test", 443, family="4", wait=1))'
	assert_equal "$output" "hangs hangs forbidden"
	assert_audit '.proto=="udp" and .reason=="address" and .detail=="metadata"'
	refute_captured 'dst host 10.20.0.1 or dst host 169.254.169.254'
}

@test "a datagram that is refused after its name was resolved, and one beyond the limits, is answered at once" {
	sandbox '{"allowed_hosts":[{"host":"*.bad.test","protocol":"udp","ports":[123,5000]}]}'
	probe 'def told(host, port, family):
    fam, kind, proto, _, sa = socket.getaddrinfo(host, port, FAMILIES[family], socket.SOCK_DGRAM)[0]
    s = socket.socket(fam, kind, proto)
    s.settimeout(10)
    try:
        s.connect(sa)
        s.send(b"hello" * 200)
        return s.recv(100)
    except OSError as e:
        return word(e)
for family in "4", "6":
    print(*[told(*to, family) for to in (("to-lan.bad.test", 5000), ("to-metadata.bad.test", 123), ("to-lan.bad.test", 5000))])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: for who has not connected
s.settimeout(10)
to = (addresses("to-lan.bad.test", "4")[0], 5000)
s.sendto(b"x", to)
try: s.recv(100)
except OSError as e: print(word(e), s.recvmsg(100, 500, socket.MSG_ERRQUEUE)[3] == to)'
	assert_equal "$output" "unreachable unreachable unreachable
forbidden forbidden forbidden
unreachable True"
}

@test "a policy change ends a flow at once; what TCP and limits are of is refused for UDP" {
	local hosts='{"host":"web.one.test","ports":5000,"protocol":"udp"},{"host":"to-lan.bad.test","ports":5000,"protocol":"udp"}'
	sandbox "{\"allowed_hosts\":[$hosts],\"allow_private\":[\"to-lan.bad.test\"]}"
	probe "$ASK"'import threading
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(ask("web.one.test", 5000, family="4", s=s), ask("to-lan.bad.test", 5000, family="4", wait=0.1))
to = addresses("web.one.test", "4")[0]
open("/workspace/ready", "w").close()
while not os.path.exists("/workspace/go"): time.sleep(0.02)
print(ask(to, 5000, family="4", s=s, wait=0.5))' &
	wait_for 10 pinfold exec "$ID" -- test -e /workspace/ready
	assert_audit '.verdict=="allow" and .proto=="udp" and .name=="to-lan.bad.test"'
	# The name is allowed still; where it led to is not.
	set_policy "{\"allowed_hosts\":[$hosts]}"
	assert_audit '.proto=="udp" and .reason=="policy_changed" and .name=="to-lan.bad.test"'
	refute has_audit '.proto=="udp" and .reason=="policy_changed" and .name=="web.one.test"'
	set_policy '{"allowed_hosts":["a.cdn.test"]}'
	inside touch /workspace/go
	wait
	assert_audit '.proto=="udp" and .reason=="policy_changed" and .name=="web.one.test"'
	echo '{"allowed_hosts":[{"host":"web.one.test","protocol":"udp","methods":["GET"]}]}' >"$PF_DIR/p.json"
	pf policy "$ID" check "$PF_DIR/p.json"
	assert_refused "are of TCP"
}
