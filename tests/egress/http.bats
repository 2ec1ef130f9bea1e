# Plain HTTP: every request of a connection is judged, not only its first.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() {
	world_setup
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
}
teardown() { common_teardown; }

# In front of the programs below: r = a request, talk = what comes back until the end or the reset.
REQUESTS='import json
def r(host="a.cdn.test", path="/", method="GET", extra="", body=""):
    return (f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n{body}").encode()
def talk(*parts, wait=0.1):
    s = connect("a.cdn.test", 8000)
    got = b""
    try:
        for p in parts:
            s.sendall(p); time.sleep(wait)
        try: s.shutdown(socket.SHUT_WR)
        except OSError: pass
        while d := s.recv(65536):
            got += d
    except OSError as e:
        return got, word(e)
    return got, "end"
def hosts(got):
    return [json.loads(l)["head"]["host"] for l in got.decode().split("\n") if l.startswith("{")]
'

@test "requests one after another, pipelined or not, whole or in pieces, all go through" {
	probe "$REQUESTS"'
got, how = talk(r(), r(), r() + r() + r()[:20], r()[20:])
print(hosts(got), how)
b = "x" * 200000
got, how = talk(r(method="POST", extra="Content-Length: 200000\r\n", body=b[:1000]), b[1000:].encode(), r(),
    r(method="POST", extra="Transfer-Encoding: chunked\r\n", body="5\r\nhello\r\n0\r\n\r\n") + r(method="HEAD") + r())
print([json.loads(l)["length"] for l in got.decode().split("\n") if l.startswith("{")], how)'
	assert_equal "$output" "['a.cdn.test', 'a.cdn.test', 'a.cdn.test', 'a.cdn.test', 'a.cdn.test'] end
[200000, 0, 5, 0] end"
}

@test "a later request for another host is refused and never leaves, pipelined or not" {
	probe "$REQUESTS"'
for parts in ([r(), r("front.other.test")], [r() + r("front.other.test")], [r(), r("front.other.test")[:30], r("front.other.test")[30:]],
        [r(method="POST", extra="Content-Length: 3\r\n", body="abc") + r("front.other.test")],
        [r(method="POST", extra="Transfer-Encoding: chunked\r\n", body="3\r\nabc\r\n0\r\n\r\n") + r("front.other.test")]):
    got, how = talk(*parts)
    print(len(hosts(got)) <= 1, how)'
	assert_equal "$output" $'True reset\nTrue reset\nTrue reset\nTrue reset\nTrue reset'
	assert_audit '.event=="egress_denied" and .reason=="host_mismatch" and .detail=="front.other.test"'
	refute_left front.other
}

@test "a request that two readers would end at different places is refused" {
	probe "$REQUESTS"'
inner = r("front.other.test").decode()
for extra, body in (("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n" + inner),
        ("Content-Length: 5\r\nContent-Length: 0\r\n", inner),
        ("Content-Length: +5\r\n", "12345" + inner),
        ("Transfer-Encoding: xchunked\r\n", inner),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n" + inner),
        ("Transfer-Encoding: chunked\r\n", "0x0\r\n\r\n" + inner)):
    got, how = talk(r(method="POST", extra=extra, body=body))
    print(how)'
	refute grep -v reset <<<"$output"
	refute_left front.other
	# What is in a body is nobody's request.
	probe "$REQUESTS"'
inner = r("in.a.body.test").decode()
got, how = talk(r(method="POST", extra=f"Content-Length: {len(inner)}\r\n", body=inner) + r())
print(hosts(got), how)'
	assert_equal "$output" "['a.cdn.test', 'a.cdn.test'] end"
}

@test "a protocol that the server agrees to goes on freely; one that it was only asked for does not" {
	probe "$REQUESTS"'
s = connect("a.cdn.test", 8000)
s.sendall(r(extra="Connection: upgrade\r\nUpgrade: echo\r\n"))
print(s.recv(4096).split(b"\r\n")[0].decode(), exchange(s, b"\x81\x05hello"), exchange(s, r("any.thing.here")))
# nginx does not upgrade: what follows must be requests again.
s = connect("a.cdn.test", 80)
s.sendall(r(extra="Upgrade: echo\r\n") + r("front.other.test"))
got = b""
try:
    while d := s.recv(4096):
        got += d
except OSError as e:
    print(got.count(b"200 OK") <= 1, word(e))'
	assert_equal "$output" "HTTP/1.1 101 Switching Protocols b'\\x81\\x05hello' b'GET / HTTP/1.1\\r\\nHost: any.thing.here\\r\\n\\r\\n'
True reset"
	refute_left front.other
}

@test "a control byte in a request line hides nothing from the gate, however it arrives" {
	probe "$REQUESTS"'
for byte in b"\0", b"\1", b"\x0b", b"\rx":
    for pause in 0, 0.1:
        s = connect("a.cdn.test", 8080)
        s.sendall(b"GET /" + byte)
        time.sleep(pause)
        try:
            s.sendall(b" HTTP/1.1\r\nHost: front.other.test\r\n\r\n")
            got = b"".join(iter(lambda: s.recv(4096), b""))
        except OSError as e:
            got = word(e).encode()
        # The beginning of the line may have come back from the echo.
        print("refused" if got == b"reset" or b"HTTP/1.1 403" in got else got)'
	refute grep -v '^refused$' <<<"$output"
	refute_left front.other
}
