# Ordinary programs, as they are, without proxy variables: all of them go through the gate by name.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() {
	world_setup
	sandbox '{"allowed_hosts":["*.one.test"]}'
	trust
}
teardown() { common_teardown; }

ANSWER='host=web.one.test sni=web.one.test at='

@test "the environment of a command has no proxy in it" {
	inside sh -c 'env | grep -i proxy'
	assert_equal "$output" ""
}

@test "curl: HTTP, HTTPS, IPv4, IPv6; a denied name fails at once with what is wrong" {
	inside curl -fsS --cacert /workspace/ca.pem https://web.one.test/
	assert_out "$ANSWER"
	local family
	for family in 4 6; do
		inside curl "-${family}fsS" --cacert /workspace/ca.pem https://web.one.test/
		assert_out "$ANSWER"
	done
	inside curl -fsS http://web.one.test/
	assert_out host=web.one.test
	inside curl -sS --max-time 30 https://secret.other.test/
	assert_status 6
	inside curl -sS --max-time 30 https://9.9.9.66/
	assert_status 7
}

@test "curl: a name that is pinned to an address by hand is no way around" {
	inside curl -sS --max-time 30 --resolve secret.other.test:443:9.9.9.66 https://secret.other.test/
	assert_status 7
	inside curl -sSk --max-time 30 --connect-to secret.other.test:443:web.one.test:443 https://secret.other.test/
	[ "$status" != 0 ]
	inside curl -sS --max-time 30 -H 'Host: secret.other.test' http://web.one.test/
	assert_out "secret.other.test:80 is denied"
	refute_left secret.other
}

@test "wget" {
	need wget
	inside wget -q -O - --ca-certificate=/workspace/ca.pem https://web.one.test/
	assert_out "$ANSWER"
	inside wget -q -O - -T 30 -t 1 https://secret.other.test/
	[ "$status" != 0 ]
}

@test "Python: urllib, and requests where it is installed" {
	inside python3 -c 'import ssl, urllib.request as u
c = ssl.create_default_context(cafile="/workspace/ca.pem")
print(u.urlopen("https://web.one.test/", context=c).read().decode())
try: u.urlopen("https://secret.other.test/")
except u.URLError as e: print(e.reason)'
	assert_out "$ANSWER"
	assert_out "Name or service not known"
	if inside python3 -c 'import requests' && [ "$status" = 0 ]; then
		inside python3 -c 'import requests; print(requests.get("https://web.one.test/", verify="/workspace/ca.pem").text)'
		assert_out "$ANSWER"
	fi
}

@test "Node: fetch" {
	[ -x /usr/bin/node ] || skip "needs node"
	pf exec "$ID" --env NODE_EXTRA_CA_CERTS=/workspace/ca.pem -- node -e 'const show = (f) => f.then(r => r.text()).then(console.log, e => console.log(e.cause.code));
show(fetch("https://web.one.test/")).then(() => show(fetch("https://secret.other.test/")))'
	assert_out "$ANSWER"
	assert_out ENOTFOUND
}

@test "git: a clone over HTTP and over HTTPS" {
	[ -x /usr/bin/git ] || skip "needs git"
	inside git clone -q http://web.one.test/repo.git /workspace/a
	assert_status 0
	inside git -c http.sslCAInfo=/workspace/ca.pem clone -q https://web.one.test/repo.git /workspace/b
	assert_status 0
	inside cat /workspace/a/hello /workspace/b/hello
	assert_equal "$output" $'hello\nhello'
	inside git clone -q https://secret.other.test/repo.git /workspace/c
	[ "$status" != 0 ]
	assert_err "Could not resolve host: secret.other.test"
}

@test "openssl s_client: a TLS server on a port of its own" {
	inside sh -c 'printf "GET / HTTP/1.0\r\n\r\n" | timeout 20 openssl s_client -quiet -verify_return_error -CAfile /workspace/ca.pem -connect web.one.test:8443 -servername web.one.test'
	assert_out "200 ok"
}

@test "nc and socat: any protocol over TCP, as git+ssh or a database would" {
	[ -x /usr/bin/nc ] && [ -x /usr/bin/socat ] || skip "needs nc and socat"
	inside sh -c 'echo select 1 | nc -N -w 20 web.one.test 5432'
	assert_equal "$output" "select 1"
	inside sh -c 'sleep 0.2 | socat -t 5 - TCP:web.one.test:22'
	assert_out SSH-2.0-world
	inside sh -c 'echo x | nc -N -w 20 9.9.9.66 5432'
	[ "$status" != 0 ]
}

@test "an ordinary user inside goes the same way as root" {
	pf exec "$ID" --user 1000:1000 -- curl -fsS --cacert /workspace/ca.pem https://web.one.test/
	assert_out "$ANSWER"
	pf exec "$ID" --user 1000:1000 -- curl -sS --max-time 30 https://9.9.9.66/
	assert_status 7
}

@test "a thousand connections, a hundred at a time, all of them whole" {
	probe 'import asyncio
async def one(i, gate):
    async with gate:
        r, w = await asyncio.open_connection("web.one.test", 7)
        data = (b"%d " % i) * 1000
        w.write(data); w.write_eof()
        ok = await r.read() == data
        w.close()
        return ok
async def main():
    gate = asyncio.Semaphore(100)
    print(sum(await asyncio.gather(*(one(i, gate) for i in range(1000)))))
asyncio.run(main())'
	assert_equal "$output" 1000
	pinfold policy "$ID" show >"$PF_DIR/show"
	assert_equal "$(jq -c '[.gate.connections_accepted, .gate.connections_denied, .gate.connections_failed]' "$PF_DIR/show")" "[1000,0,0]"
}

@test "a large transfer arrives unchanged" {
	inside sh -c 'head -c 50000000 /dev/urandom >/workspace/data && nc -N -w 20 web.one.test 7 </workspace/data | cmp - /workspace/data && echo same'
	assert_equal "$output" same
}
