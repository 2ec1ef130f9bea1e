# Everything a hostile payload may try instead of connecting by name. It is root inside.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() { world_setup; }
teardown() { common_teardown; }

@test "no socket but TCP, UDP and UNIX can be had: no raw, packet, netfilter, vsock or crypto ones" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	probe 'for name, args in (("raw", (2, 3, 255)), ("raw icmp", (2, 3, 1)), ("ping", (2, 2, 1)), ("raw6", (10, 3, 58)),
        ("packet", (17, 3, 0x300)), ("packet dgram", (17, 2, 0x300)), ("netfilter", (16, 3, 12)), ("xfrm", (16, 3, 6)),
        ("audit", (16, 3, 9)), ("vsock", (40, 1, 0)), ("alg", (38, 5, 0)), ("xdp", (44, 3, 0)), ("can", (29, 3, 1)),
        ("bluetooth", (31, 3, 1)), ("rds", (21, 5, 0)), ("tipc", (30, 1, 0)), ("smc", (43, 1, 0)), ("sctp", (2, 1, 132)),
        ("dccp", (2, 6, 33)), ("ppp", (24, 1, 0)), ("key", (15, 3, 2))):
    try:
        socket.socket(*args)
        print(name)
    except OSError:
        pass'
	assert_equal "$status:$output" 0:
}

@test "root inside changes neither rules nor routes nor interfaces, and cannot get a namespace where it could" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	local before command
	rules() { nsenter --net="/proc/$(state_of .pid)/ns/net" sh -c 'nft -s list ruleset; ip addr; ip route show table all; ip -6 route show table all'; }
	before=$(rules)
	[[ "$before" == *"table inet pinfold"* ]]
	for command in 'nft flush ruleset' 'nft add table inet mine' 'nft delete table inet pinfold' 'ip link add v0 type veth' \
		'ip link set lo down' 'ip addr add 9.9.9.1/32 dev lo' 'ip route flush table local' 'ip route add 9.0.0.0/8 dev lo' \
		'ip rule add pref 1 lookup main' 'ip tuntap add mode tun' 'unshare -n true' 'unshare -rn true' 'unshare -r true' \
		'nsenter --net=/proc/1/ns/net true' 'sysctl -w net.ipv4.ip_forward=1' 'echo 1 >/proc/sys/net/ipv4/conf/all/accept_local' \
		'ip netns add x' 'echo x >/dev/net/tun'; do
		inside sh -c "PATH=\$PATH:/usr/sbin:/sbin; $command"
		[ "$status" != 0 ] || show "worked: $command"
	done
	# Options of sockets that would mark, bind or rewrite.
	probe 's = socket.socket()
for name, args in (("mark", (1, 36, 1)), ("transparent", (0, 19, 1)), ("freebind-any", (1, 25, b"lo\0")), ("force", (1, 32, 1 << 24))):
    try:
        s.setsockopt(*args)
        print(name)
    except OSError:
        pass'
	refute_out mark
	refute_out transparent
	assert_equal "$(rules)" "$before"
}

@test "UDP goes nowhere but to our DNS: QUIC, other resolvers' ports, broadcast and multicast are refused at once" {
	sandbox '{"allowed_hosts":["web.one.test"],"allowed_cidrs":["9.9.11.0/24"]}'
	probe 'def send(to, port, data=b"exfil-udp"):
    s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.settimeout(5)
    try:
        s.connect((to, port)); s.send(data); return repr(s.recv(100))
    except OSError as e:
        return word(e)
synthetic = addresses("web.one.test", "4")[0], addresses("web.one.test", "6")[0]
for to in ("9.9.9.10", "9.9.11.5", "2600:9::10") + synthetic:
    for port in (443, 853, 123, 4433):
        print(send(to, port))
print(send("9.9.9.10", 443, b"exfil-udp" * 1000))
for to in ("255.255.255.255", "224.0.0.251", "ff02::fb%lo", "9.9.8.255", "169.254.169.254"):
    r = send(to.split("%")[0], 5353)
    print(r if r not in ("unreachable", "forbidden", "refused", "hangs", "ENODEV", "EINVAL", "EADDRNOTAVAIL") else "forbidden")'
	assert_equal "$(sort -u <<<"$output" | sed 's/unreachable/forbidden/' | sort -u)" forbidden
	assert_audit '.event=="egress_denied" and .kind=="packet" and .proto=="udp" and .port==443 and .orig=="9.9.9.10" and (.exec|startswith("x")) and (.process|startswith("python3"))'
	assert_audit '.event=="egress_denied" and .proto=="udp" and .orig=="9.9.11.5" and .reason=="protocol"'
	refute_captured 'udp and not port 53 and not dst port 9999 and not ip6 multicast'
	refute_left exfil-udp
	# Port 53 of any address is answered here.
	probe 'print({ask("web.one.test", 1, s) for s in ("9.9.9.53", "1.1.1.1", "127.0.0.1", "10.0.0.1", "2600::53")},
		{ask("exfil-dns.other.test", 1, s) for s in ("9.9.9.53", "1.1.1.1")})'
	assert_equal "$output" "{(0, 1)} {(3, 0)}"
	refute_left exfil-dns
}

@test "DNS over TLS or HTTPS to anyone is an ordinary connection, and refused as one" {
	sandbox '{"allowed_hosts":["web.one.test:443"]}'
	expect_dials <<-END
		refused 9.9.9.9 853
		refused 2600::9 853
		refused web.one.test 853
		no_name dns.google 443
	END
	refute_captured 'port 853'
	# Not below a wildcard either: no rule opens a public resolver by accident.
	sandbox '{"allowed_hosts":["*.quad9.net","*.cloudflare-dns.com"]}'
	expect_dials <<-END
		no_name dns9.quad9.net 443
		no_name mozilla.cloudflare-dns.com 443
	END
	assert_audit '.name=="dns9.quad9.net" and .reason=="public_resolver"'
}

@test "the gate's own sockets cannot be dialled, taken or passed off for" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	local at port
	for at in 127.0.0.1 ::1 ::ffff:127.0.0.1 127.0.0.2; do
		for port in 1 2; do expect_dial refused "$at" "$port"; done
	done
	assert_audit '.event=="egress_denied" and .kind=="packet" and .reason=="direct_dial" and (.exec|startswith("x"))'
	probe 'for fam, at in ((2, "127.0.0.1"), (2, "0.0.0.0"), (10, "::1"), (10, "::")):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for port in (1, 2):
            if kind == socket.SOCK_DGRAM and port == 1:
                continue # the gate has no such socket
            s = socket.socket(fam, kind)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                s.bind((at, port)); s.listen(); print("taken", at, port)
            except OSError:
                pass
# An address of the pool that stands for no name, and one made up.
print({dial(f"198.{b}.{c}.9", 80) for b in (18, 19) for c in range(0, 250, 25)} - {"reset", "refused"})'
	assert_equal "$output" "set()"
}

@test "source routes, spoofed sources, fast open and multipath TCP lead to the same gate" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	probe 'def attempt(to, port=7, proto=0, options=None, source=None, fast=False):
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, proto)
        s.settimeout(10)
        if options: s.setsockopt(socket.IPPROTO_IP, 4, options)
        if source: s.bind((source, 0))
        if fast: s.settimeout(None); s.sendto(b"exfil-fast", 0x20000000, (to, port))
        else: s.connect((to, port))
        return exchange(s, b"exfil-other")
    except OSError as e:
        return word(e)
route = b"\x83\x07\x04" + socket.inet_aton("9.9.9.66") + b"\1"
bad = "9.9.9.66"
print(attempt(bad, options=route), attempt(bad, source="9.9.9.66"), attempt(bad, source="127.0.0.1"), attempt(bad, source="10.1.1.1"),
    attempt(bad, fast=True), attempt(bad, proto=262), attempt("169.254.169.254", 80, source="127.0.0.1"))
good = addresses("web.one.test", "4")[0]
print(attempt(good, proto=262) in (b"exfil-other", "EPROTONOSUPPORT", "ENOPROTOOPT"))'
	! grep -qv -E "^((refused|unreachable|forbidden|EINVAL|EPROTONOSUPPORT|ENOPROTOOPT|EADDRNOTAVAIL|reset) ?)+$|^True$" <<<"$output" || show
	refute_captured 'dst host 9.9.9.66'
	refute grep -q exfil-fast "$WORLD/heard"
}

@test "the host's services are not there: loopback, own addresses, abstract and other UNIX sockets" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	# They are there for the host.
	at_host python3 -c 'import socket, sys
for a in ("127.0.0.1", 8081), ("::1", 8081), ("9.9.8.1", 8082), ("10.20.0.1", 8082):
    assert socket.create_connection(a).recv(20) == b"host-service\n"
for a in "\0" + sys.argv[1], sys.argv[1] + "/host.sock":
    s = socket.socket(socket.AF_UNIX); s.connect(a); assert s.recv(20) == b"host-service\n"' "$WORLD"
	local heard
	heard=$(grep -c 'host tcp' "$WORLD/heard")
	probe 'for a in ("127.0.0.1", 8081), ("::1", 8081), ("localhost", 8081), ("9.9.8.1", 8082), ("10.20.0.1", 8082), ("fd20::1", 8082), ("0.0.0.0", 8081), ("::", 8082), ("::ffff:127.0.0.1", 8081):
    print(dial(*a))
for a in "\0" + argv[1], argv[1] + "/host.sock":
    try:
        socket.socket(socket.AF_UNIX).connect(a); print("connected")
    except OSError as e:
        print("refused" if e.errno in (errno.ENOENT, errno.ECONNREFUSED) else word(e))
print(sorted(set(open("/proc/net/unix").read().split()) & {"@" + argv[1]}))' "$WORLD"
	assert_equal "$(sort -u <<<"$output" | xargs)" "[] refused"
	assert_equal "$(grep -c 'host tcp' "$WORLD/heard")" "$heard"
}

@test "two sandboxes see neither each other's services nor each other's permissions" {
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
	local first=$ID server
	pinfold exec "$first" -- python3 -c 'import socket, threading
def serve(s):
    while True: s.accept()[0].send(b"neighbour")
for s in socket.create_server(("0.0.0.0", 8000)), socket.socket(socket.AF_UNIX):
    if s.family == socket.AF_UNIX: s.bind("\0neighbour"); s.listen()
    threading.Thread(target=serve, args=(s,)).start()
print("up", flush=True)' >"$PF_DIR/neighbour" 2>&1 3>&- &
	server=$!
	wait_for 10 grep -q up "$PF_DIR/neighbour"
	probe 'print(exchange(connect("127.0.0.1", 8000), b""), addresses("a.cdn.test", "4")[0], addresses("a.cdn.test", "6")[0])'
	local theirs4 theirs6
	read -r _ theirs4 theirs6 <<<"$output"
	assert_out neighbour

	sandbox '{"allowed_hosts":["b.cdn.test"]}'
	expect_dials <<-END
		ok b.cdn.test 7
		no_name a.cdn.test 7
	END
	probe 's = socket.socket(socket.AF_UNIX)
try:
    s.connect("\0neighbour"); print("connected")
except OSError as e:
    print(word(e))
print(dial("127.0.0.1", 8000), dial("::1", 8000))
# The address by which the other one knows a.cdn.test says nothing here: at most it is our own name.
print(http(argv[1], name="a.cdn.test")[:4], http(argv[2], name="a.cdn.test")[:4])' "$theirs4" "$theirs6"
	refute_out connected
	refute_out 200
	assert_out "refused refused"
	ID=$first
	expect_dials <<-END
		ok a.cdn.test 7
		no_name b.cdn.test 7
	END
	kill "$server"
	wait "$server" || true
}

@test "a flood of questions and connections costs the others nothing, and the log stays short" {
	sandbox '{"allowed_hosts":["web.one.test","*.wild.test"]}'
	local flooder=$ID lines
	probe 'for i in range(3000):
    try: addresses(f"n{i}.wild.test", "4")
    except OSError: pass
    try: addresses(f"n{i}.denied.test", "4")
    except OSError: pass
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(3000):
    try: s.sendto(b"x", ("9.9.9.9", 1000 + i))
    except OSError: pass
print("done", dial("web.one.test", 7))'
	assert_equal "$output" "done ok"
	lines=$(audit '.event=="egress_denied"' | wc -l)
	[ "$lines" -lt 1500 ] || show "$lines lines of denials"
	assert_audit '(.suppressed // 0) > 0 or .reason=="rate"'
	[ "$(pinfold policy "$flooder" show | jq .gate.packets_denied)" -ge 2000 ]
	sandbox '{"allowed_hosts":["web.one.test"]}'
	expect_dial ok web.one.test 7
}

@test "what is no question, no hello and no request harms nobody" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	probe 'import random
random.seed(7)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(("8.8.8.8", 53)); u.setblocking(False)
good = question("web.one.test", 1)
odd = [b"", good[:11], good[:-1], good + b"x" * 1400, good[:2] + b"\x80" + good[3:], good[:4] + b"\0\2" + good[6:],
    good[:12] + b"\xc0\x0c" + good[-4:], good[:12] + b"\x3f" + b"a" * 20, good[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0" + good[-4:],
    good[:12] + b"\3a\0b\0" + good[-4:], good[:-2] + b"\0\3"]
for i in range(3000):
    q = odd[i] if i < len(odd) else bytearray(good)
    if i >= len(odd):
        for _ in range(random.randrange(1, 5)): q[random.randrange(len(q))] = random.randrange(256)
    try: u.send(q)
    except OSError: pass
    try: u.recv(4096)
    except OSError: pass
for data in b"\0\0", b"\xff\xff", b"\0\1x", struct.pack(">H", len(good)) + good[:-1], b"\0\x0c" + b"\xff" * 12:
    s = connect("8.8.8.8", 53); s.sendall(data); s.shutdown(socket.SHUT_WR)
    try: s.recv(100)
    except OSError: pass
base = hello("web.one.test", ech=True)
for i in range(600):
    data = bytearray(base if i % 2 else b"POST /x HTTP/1.1\r\nHost: web.one.test\r\nContent-Length: 0\r\n\r\n")
    for _ in range(random.randrange(1, 5)): data[random.randrange(len(data))] = random.randrange(256)
    try:
        s = connect("web.one.test", 8080); s.sendall(data); s.shutdown(socket.SHUT_WR)
        while s.recv(65536): pass
    except OSError: pass
print(dial("web.one.test", 7))'
	assert_equal "$output" ok
	assert_equal "$(state_of .status)" running
}
