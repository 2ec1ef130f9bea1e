# First bytes: one allowed host on a shared address does not stand for the others behind it.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() { world_setup; }
teardown() { common_teardown; }

@test "of two names on one address only the permitted one is reached, by TLS and by HTTP" {
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
	trust
	probe 'print(tls("a.cdn.test"))
print(http("a.cdn.test"))
where = addresses("a.cdn.test", "4")[0]
print(tls(where, sni="b.cdn.test"))
print(http(where, name="b.cdn.test"))'
	assert_equal "${output%%$'\n403'*}" "host=a.cdn.test sni=a.cdn.test at=9.9.9.20
200 host=a.cdn.test sni= at=9.9.9.20
reset"
	assert_out "403 b.cdn.test:80 is denied"
	expect_dial no_name b.cdn.test 443
	assert_audit '.event=="egress_denied" and .name=="a.cdn.test" and .reason=="sni_mismatch" and .detail=="b.cdn.test"'
	assert_audit '.event=="egress_denied" and .name=="a.cdn.test" and .reason=="host_mismatch" and .detail=="b.cdn.test"'
	# The real server never saw the other name.
	refute_left 'b.cdn.test'
}

@test "names under one rule may stand for each other, names under two may not" {
	sandbox '{"allowed_hosts":["*.cdn.test","web.one.test"]}'
	trust
	probe 'print(tls("a.cdn.test", sni="b.cdn.test"), tls("a.cdn.test", sni="web.one.test"), tls("web.one.test", sni="a.cdn.test"))'
	assert_equal "$output" "host=b.cdn.test sni=b.cdn.test at=9.9.9.20 reset reset"
	# What only ends like one, and is no host name, is what a server takes it for.
	probe 'for name in r"front.other.test/.cdn.test", r"front.other.test\.cdn.test", "front.other.test,b.cdn.test", "front.other.test b.cdn.test", "a_b.cdn.test":
    print(http("a.cdn.test", name=name)[:3], exchange(connect("a.cdn.test", 443), hello(name)))'
	assert_equal "$(sort -u <<<"$output")" "403 reset"
	refute_left front.other
}

@test "an encrypted ClientHello is refused, but with the dialled name outside as clients grease it" {
	sandbox '{"allowed_hosts":["*.cdn.test"]}'
	probe 'def answers(data):
    got = exchange(connect("a.cdn.test", 443), data)
    return got if isinstance(got, str) else "tls" if got[0] in (21, 22) else repr(got)
print(answers(hello("front.other.test", ech=True)), answers(hello("b.cdn.test", ech=True)), answers(hello(None, ech=True)),
    answers(hello("a.cdn.test", ech=True)), answers(hello("a.cdn.test")))'
	assert_equal "$output" "reset reset reset tls tls"
	assert_audit '.event=="egress_denied" and .reason=="ech" and .detail=="front.other.test"'
	assert_audit '.event=="egress_denied" and .reason=="ech" and .detail=="b.cdn.test"'
	refute_left front.other
}

@test "a head is judged on every port, however late and in however many pieces it comes" {
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
	probe 'for port in (7, 8080, 8443):
    s = connect("a.cdn.test", port)
    time.sleep(0.3)
    h = hello("front.other.test")
    s.sendall(h[:3]); time.sleep(0.05); s.sendall(h[3:60]); time.sleep(0.05)
    print(exchange(s, h[60:]))
s = connect("a.cdn.test", 8080)
for piece in b"GE", b"T / HTTP/1.1\r\nAccept: */*\r\nHo", b"st: front.other.test\r\n\r\n":
    s.sendall(piece); time.sleep(0.1)
print(b"".join(iter(lambda: s.recv(4096), b"")).split(b"\r\n")[0])'
	assert_equal "$(head -3 <<<"$output")" $'reset\nreset\nreset'
	# The beginning of a first line may have passed, for protocols that have no lines; no name is in it.
	assert_out "HTTP/1.1 403 Forbidden"
	refute_left front.other
}

@test "a request that names two hosts, or names one where another reader would not see it, is refused" {
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
	probe 'for request in (b"GET / HTTP/1.1\r\nHost: a.cdn.test\r\nHost: front.other.test\r\n\r\n",
        b"GET http://front.other.test/ HTTP/1.1\r\nHost: a.cdn.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.cdn.test\r\n front.other.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : front.other.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: y\rHost: front.other.test\r\nHost: a.cdn.test\r\n\r\n",
        b"CONNECT front.other.test:443 HTTP/1.1\r\nHost: a.cdn.test\r\n\r\n",
        b"GET http://front.other.test/\r\n",
        b"X" * 40 + b" / HTTP/1.1\r\nHost: front.other.test\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: front.other.test\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9):
    got = exchange(connect("a.cdn.test", 80), request)
    print(got if isinstance(got, str) else got.split(b" ")[1].decode())'
	refute_out 200
	refute grep -q "^40[05]$" <<<"$output"
	assert_equal "$(wc -l <<<"$output")" 10
	refute_left front.other
}

@test "TLS on 443 needs a server name" {
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
	probe 'print(exchange(connect("a.cdn.test", 443), hello()))'
	assert_equal "$output" reset
	assert_audit '.event=="egress_denied" and .reason=="sni_missing"'
}

@test "a denied host answers HTTP with 403 that names it; everything else is refused at once" {
	sandbox '{"allowed_hosts":["a.cdn.test:443","b.cdn.test:80"]}'
	probe 'print(http("a.cdn.test"))'
	[[ "$output" == "403 a.cdn.test:80 is denied by this sandbox's network policy (port)."* ]] || show
	inside curl -sS -o /dev/null -w '%{http_code}' http://a.cdn.test/
	assert_equal "$output" 403
}

@test "protocols of any kind go by name: the server may speak first, either side may end first" {
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
	probe 's = connect("a.cdn.test", 22)
print(s.recv(100), exchange(s, b"SSH-2.0-client\r\n"))
s = connect("a.cdn.test", 9)
s.sendall(b"x\n" * 500000); s.shutdown(socket.SHUT_WR)
print(s.recv(100), s.recv(100))
print(exchange(connect("a.cdn.test", 5432), b"\0\0\0\x08\x04\xd2\x16\x2f"))'
	assert_equal "$output" "b'SSH-2.0-world\\r\\n' b'SSH-2.0-client\\r\\n'
b'1000000' b''
b'\\x00\\x00\\x00\\x08\\x04\\xd2\\x16/'"
}

@test "clients that never finish their hello are cut off, and hold up nobody meanwhile" {
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
	trust
	probe 'import select
slow = [connect("a.cdn.test", 443) for _ in range(200)]
for s in slow:
    s.sendall(hello("a.cdn.test")[:40])
print(tls("a.cdn.test"), flush=True)
# A byte now and then does not buy more time.
gone, end = set(), time.monotonic() + 25
for s in slow:
    s.setblocking(False)
while len(gone) < len(slow) and time.monotonic() < end:
    time.sleep(0.2)
    for s in slow:
        if s in gone:
            continue
        try:
            if len(gone) < 100:
                s.send(b"\0")
            if s.recv(1) == b"":
                gone.add(s)
        except BlockingIOError:
            pass
        except OSError:
            gone.add(s)
print(len(gone))'
	assert_equal "$output" $'host=a.cdn.test sni=a.cdn.test at=9.9.9.20\n200'
	assert_audit '.event=="egress_denied" and .reason=="slow_head"'
	assert_equal "$(pinfold policy "$ID" show | jq .gate.connections)" 0
	# Of what they sent nothing was passed on.
	assert_equal "$(audit '.reason=="slow_head"' | jq -s 'map(.bytes_out // 0) | add')" 0
}
