# TLS that is ended at the gate: requests are judged by method, path and host, and everything else of HTTP works.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() { world_setup; }
teardown() { common_teardown; }

# A sandbox whose upstream servers are verified against the world's certificate.
ending() { # NETWORKING
	sandbox "$(jq -c --arg ca "$WORLD/cert.pem" '. + {upstream_ca:$ca}' <<<"$1")"
}

@test "requests over TLS are judged by method and path, and answered with what is wrong" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","ports":[443,8444],"methods":["GET","HEAD"],"paths":["/v1/**"]}]}'
	inside curl -sS https://a.cdn.test:8444/v1/things?x=1
	assert_json '.path=="/v1/things?x=1" and .head.host=="a.cdn.test:8444"'
	inside curl -sS -X POST -d x https://a.cdn.test:8444/v1/things
	assert_out "POST is not among the methods"
	inside curl -sS -o /dev/null -w '%{http_code}' https://a.cdn.test:8444/admin
	assert_equal "$output" 403
	inside curl -sS -H 'Accept: application/json' https://a.cdn.test:8444/admin
	assert_json '.error=="egress_denied" and .reason=="path" and .host=="a.cdn.test"'
	local odd
	for odd in /v1/../admin /v1/%2e%2e/admin /v1//admin /v1/..%2fadmin; do
		inside curl -sS --path-as-is "https://a.cdn.test:8444$odd"
		assert_out "This path is not among those"
	done
	assert_audit '.event=="egress_denied" and .kind=="request" and .reason=="method" and .method=="POST" and .path=="/v1/things"'
	assert_audit '.event=="egress_allowed" and .kind=="request" and .method=="GET" and .path=="/v1/things" and .rule=="a.cdn.test:443,8444"'
	refute_left admin
}

@test "plain HTTP under such a rule is judged alike, and what is no HTTP is refused" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","methods":["GET"]}]}'
	inside curl -sS http://a.cdn.test:8000/x
	assert_json '.path=="/x"'
	inside curl -sS -X DELETE http://a.cdn.test:8000/x
	assert_out "DELETE is not among the methods"
	# Two blanks are one, for the log too.
	probe 'print(exchange(connect("a.cdn.test", 8000), b"GET  /two HTTP/1.1\r\nHost: a.cdn.test\r\nConnection: close\r\n\r\n")[:12])
s = connect("a.cdn.test", 7)
print(exchange(s, b"\1\2\3\4"))'
	assert_equal "${output#*$'\n'}" reset
	assert_audit '.kind=="request" and .method=="GET" and .path=="/two"'
	assert_audit '.reason=="not_http"'
}

@test "Host inside TLS must be the host that is connected to" {
	ending '{"allowed_hosts":[{"host":"*.cdn.test","tls":"terminate"}]}'
	inside curl -sS -H 'Host: front.other.test' https://a.cdn.test:8444/
	assert_out "(host_mismatch)"
	inside curl -sS -H 'Host: b.cdn.test' https://a.cdn.test:8444/
	assert_out "(host_mismatch)"
	inside curl -sS https://b.cdn.test:8444/
	assert_json '.head.host=="b.cdn.test:8444"'
	refute_left front.other
}

@test "an upstream whose certificate proves nothing is told of, not trusted" {
	sandbox '{"allowed_hosts":[{"host":"a.cdn.test","tls":"terminate"}]}'
	inside curl -sS -w '%{http_code}' https://a.cdn.test/
	assert_out "a.cdn.test:443 did not prove who it is"
	assert_out 502
	assert_audit '.event=="egress_error" and .reason=="upstream_tls"'
	# Of the request nothing went out.
	assert_equal "$(audit '.kind=="request" and .verdict=="allow"')" ""
}

@test "bodies stream both ways, keep-alive holds, events arrive as they are sent, websockets open" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","tls":"terminate"}]}'
	probe 'import json, http.client
c = http.client.HTTPSConnection("a.cdn.test", 8444, context=ssl.create_default_context())
for body in (b"", b"x" * 3000000):
    c.request("POST", "/up", body)
    print(json.loads(c.getresponse().read())["length"])
c.request("POST", "/chunks", iter([b"a" * 70000, b"b" * 70000]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
print(json.loads(c.getresponse().read())["length"])
c.request("HEAD", "/")
print(c.getresponse().read())
c.request("GET", "/events")
r, at = c.getresponse(), []
while line := r.fp.readline() if False else r.readline():
    if line.startswith(b"data"):
        at.append(time.monotonic())
print(len(at), at[2] - at[0] > 0.25)
c.request("GET", "/again")
print(json.loads(c.getresponse().read())["path"])
s = ssl.create_default_context().wrap_socket(connect("a.cdn.test", 8444), server_hostname="a.cdn.test")
s.sendall(b"GET /ws HTTP/1.1\r\nHost: a.cdn.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
print(s.recv(4096).split(b"\r\n")[0].decode(), exchange(s, b"\x81\5hello"), exchange(s, os.urandom(9))[:0])'
	assert_equal "$output" "0
3000000
140000
b''
3 True
/again
HTTP/1.1 101 Switching Protocols b'\\x81\\x05hello' b''"
}

@test "a server that proved its name a moment ago is known again, by that name and port, until the policy changes" {
	local policy='{"allowed_hosts":[{"host":"a.cdn.test","methods":["GET"]},{"host":"b.cdn.test","methods":["GET"]}]}'
	ending "$policy"
	inside sh -c 'for h in a a a b b; do curl -sS "https://$h.cdn.test:8444/" | grep -o "resumed[^,}]*"; done'
	assert_equal "$output" 'resumed": false
resumed": true
resumed": true
resumed": false
resumed": true'
	# Whoever is trusted no more is not believed for having been.
	set_policy "$policy"
	inside curl -sS https://a.cdn.test:8444/
	assert_out "a.cdn.test:8444 did not prove who it is"
}

@test "a ticket that comes on an old connection after the policy has changed is not believed either" {
	local policy='{"allowed_hosts":[{"host":"a.cdn.test","methods":["GET"]}]}'
	ending "$policy"
	probe 'import http.client
c = http.client.HTTPSConnection("a.cdn.test", 8446, context=ssl.create_default_context(), timeout=60)
c.request("GET", "/late")
# To the end: of a connection that breaks no session is used again.
if b"/late" in c.getresponse().read():
    open("/workspace/answered", "w").close()' &
	wait_for 20 grep -q 'GET /late' "$WORLD/heard"
	set_policy "$policy"
	# pinfold-tls has it, then.
	inside curl -sS https://a.cdn.test:8444/
	assert_out "a.cdn.test:8444 did not prove who it is"
	: >"$WORLD/tickets"
	wait $!
	pinfold exec "$ID" -- test -e /workspace/answered
	inside curl -sS https://a.cdn.test:8446/
	assert_out "a.cdn.test:8446 did not prove who it is"
}

@test "a large download comes whole, and with little memory" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","tls":"terminate"}]}'
	inside sh -c 'curl -sS --limit-rate 2G https://a.cdn.test/big | head -c 200000000 | wc -c'
	assert_equal "$output" 200000000
	local pid
	pid=$(pgrep -P "$(state_of .pinfold.keeper)" -f pinfold-tls)
	sanitized || [ "$(awk '/VmHWM/ {print $2}' "/proc/$pid/status")" -lt 20000 ] || show "$(grep VmHWM "/proc/$pid/status")"
}

@test "HTTP/1.1 is what is agreed on: with who offers HTTP/2 too, and with nobody who offers nothing else" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","tls":"terminate"}]}'
	inside sh -c 'for p in h2,http/1.1 h2 http/1.1; do openssl s_client -connect a.cdn.test:8444 -servername a.cdn.test -alpn $p </dev/null 2>&1 |
		grep -o -m1 -e "ALPN protocol: .*" -e "alert no application protocol"; done'
	assert_equal "$output" "ALPN protocol: http/1.1
alert no application protocol
ALPN protocol: http/1.1"
	inside curl -sS --http2 -o /dev/null -w '%{http_version} %{http_code}' https://a.cdn.test:8444/
	assert_equal "$output" "1.1 200"
}

@test "max_requests_per_hour and max_connections of a rule hold" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","max_requests_per_hour":2,"max_connections":3}]}'
	inside sh -c 'for i in 1 2 3; do curl -sS -o /dev/null -w "%{http_code} " https://a.cdn.test:8444/; done; curl -sSi https://a.cdn.test:8444/ | grep -ic retry-after'
	assert_equal "$output" "200 200 429 1"
	probe 'held = [connect("a.cdn.test", 443) for _ in range(3)]
time.sleep(0.2)
print(dial("a.cdn.test", 443))'
	assert_equal "$output" reset
}

@test "programs trust the sandbox's authority without being told, each sandbox its own" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","tls":"terminate"}]}'
	inside python3 -c 'import urllib.request as u; print(u.urlopen("https://a.cdn.test:8444/").status)'
	assert_equal "$output" 200
	inside sh -c 'env -i PATH=$PATH curl -sS -o /dev/null -w "%{http_code}" https://a.cdn.test:8444/'
	assert_equal "$output" 200
	if inside command -v wget && [ "$status" = 0 ]; then
		inside wget -q -O - https://a.cdn.test:8444/w
		assert_json '.path=="/w"'
	fi
	if inside command -v node && [ "$status" = 0 ]; then
		inside node -e 'fetch("https://a.cdn.test:8444/n").then(r => r.json()).then(j => console.log(j.path))'
		assert_equal "$output" /n
	fi
	inside python3 -c 'import requests' && [ "$status" = 0 ] && {
		inside python3 -c 'import requests; print(requests.get("https://a.cdn.test:8444/r").json()["path"])'
		assert_equal "$output" /r
	}
	inside sh -c 'openssl s_client -connect a.cdn.test:443 -servername a.cdn.test </dev/null 2>/dev/null | openssl x509 -noout -issuer'
	local first=$output
	[[ "$first" == *"Pinfold sandbox"* ]] || show
	# It speaks for the allowed names only.
	inside sh -c 'tail -40 /run/pinfold/ca-certificates.crt | sed -n "/BEGIN/h;//!H;\$!d;x;p" | openssl x509 -noout -text'
	assert_out "DNS:a.cdn.test"
	assert_out pathlen:0
}

@test "without a rule that needs it there is no authority, no process and no variable" {
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
	inside sh -c 'env | grep -c CERT; ls /run/pinfold'
	assert_out 0
	[ -z "$(pgrep -P "$(state_of .pinfold.keeper)" -f pinfold-tls)" ]
	# Such a rule cannot come later: the box would not trust what it is shown.
	jq -c ". + {$RESOLVER}" <<<'{"allowed_hosts":[{"host":"a.cdn.test","methods":["GET"]}]}' >"$PF_DIR/later.json"
	pf policy "$ID" set "$PF_DIR/later.json"
	assert_refused "created anew"
	expect_dial ok a.cdn.test 7
}

@test "a policy change reaches connections that are ended, and its rules are new at once" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","methods":["GET"]},{"host":"b.cdn.test","tls":"terminate"}]}'
	probe 'import subprocess
s = ssl.create_default_context().wrap_socket(connect("b.cdn.test", 8444), server_hostname="b.cdn.test")
s.sendall(b"GET /one HTTP/1.1\r\nHost: b.cdn.test\r\n\r\n"); print(s.recv(12))
open("/workspace/ready", "w").close()
s.settimeout(20)
try:
    while s.recv(4096): pass
    print("end")
except OSError as e: print(word(e))' &
	wait_for 10 pinfold exec "$ID" -- test -e /workspace/ready
	set_policy "$(jq -nc --arg ca "$WORLD/cert.pem" '{upstream_ca:$ca,allowed_hosts:[{host:"a.cdn.test",methods:["GET","POST"]}]}')"
	wait
	assert_audit '.reason=="policy_changed" and .name=="b.cdn.test"'
	inside curl -sS -X POST -d abc https://a.cdn.test:8444/new
	assert_json '.method=="POST" and .length==3'
}

@test "denied hosts answer HTTPS with 403 when explain_denied says so, and nothing of it leaves" {
	ending '{"explain_denied":true,"allowed_hosts":["a.cdn.test:443"],"denied_hosts":["bad.cdn.test"]}'
	inside curl -sS -w '%{http_code}' https://secret.other.test/path
	assert_out "secret.other.test:443 is denied by this sandbox's network policy (not_listed)."
	assert_out 403
	inside curl -sS -H 'Accept: application/json' https://bad.cdn.test/
	assert_json '.reason=="denied_host" and .host=="bad.cdn.test" and .policy_revision==1'
	inside curl -sS http://secret.other.test/
	assert_out "secret.other.test:80 is denied"
	# A wrong SNI is told of too; and what is not HTTP is reset.
	inside curl -sS --connect-to secret.other.test:443:a.cdn.test:443 https://secret.other.test/
	assert_out "secret.other.test:443 is denied"
	expect_dial refused secret.other.test 22
	inside python3 -c 'import urllib.request as u, urllib.error as e
try: u.urlopen("https://secret.other.test/")
except e.HTTPError as x: print(x.code, x.read().decode().split(" ")[0])'
	assert_equal "$output" "403 secret.other.test:443"
	refute_left secret.other
}

@test "pinfold-tls is not there before the first connection that needs it, and holds nothing but its sockets" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","tls":"terminate"},"b.cdn.test"]}'
	local pid uid
	wait_for 5 sh -c "! pgrep -P $(state_of .pinfold.keeper) -f pinfold-tls"
	expect_dial ok b.cdn.test 7
	assert_equal "$(pinfold policy "$ID" show | jq -c '[.gate.tls,.gate.tls_started]')" '["asleep",0]'
	# No process of this sandbox has loaded OpenSSL.
	refute grep -lq libcrypto "/proc/$(state_of .pinfold.keeper)/maps" "/proc/$(gate_pid)/maps"
	inside curl -sS -o /dev/null -w '%{http_code}' https://a.cdn.test:8444/
	assert_equal "$output" 200
	assert_equal "$(pinfold policy "$ID" show | jq -c '[.gate.tls,.gate.tls_started]')" '["up",1]'
	pid=$(pgrep -P "$(state_of .pinfold.keeper)" -f pinfold-tls)
	uid=$(awk '/^Uid/ {print $2}' "/proc/$pid/status")
	[ "$uid" -gt 1879000000 ] || show "uid $uid"
	[ "$(awk '/^CapEff/ {print $2}' "/proc/$pid/status")" = 0000000000000000 ]
	[ "$(awk '/^Seccomp:/ {print $2}' "/proc/$pid/status")" = 2 ]
	[ "$(awk '/^NoNewPrivs/ {print $2}' "/proc/$pid/status")" = 1 ]
}

@test "pinfold-tls dies in mid-traffic: it is told, nothing goes past it, and the next connection starts another, not for ever" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","tls":"terminate"},"b.cdn.test"]}'
	local ca i
	inside sh -c 'tail -c 300 /run/pinfold/ca-certificates.crt'
	ca=$output
	tls() { pgrep -P "$(state_of .pinfold.keeper)" -f pinfold-tls; }
	for i in 1 2 3 4; do
		inside curl -sS -o /dev/null -w '%{http_code}' https://a.cdn.test:8444/
		assert_equal "$i $output" "$i 200"
		kill -9 "$(tls)"
		assert_audit '.event=="tls_died" and .times=='"$i"' and .error=="pinfold-tls was killed by signal 9"'
		assert_audit '.event=="egress_error" and .kind=="tls" and .reason=="tls_down"'
	done
	inside curl -sS https://a.cdn.test:8444/
	[ "$status" != 0 ]
	assert_audit '.event=="egress_error" and .kind=="tls" and (.detail|test("has died 4 times"))'
	assert_audit '.event=="egress_denied" and .kind=="connect" and .reason=="tls_down" and .name=="a.cdn.test"'
	# The authority was the same all the time, and the rest goes on.
	inside sh -c 'tail -c 300 /run/pinfold/ca-certificates.crt'
	assert_equal "$output" "$ca"
	expect_dial ok b.cdn.test 7
	assert_equal "$(state_of .status)" running
}

@test "a policy that pinfold-tls does not hear of is in force, and policy set says so" {
	ending '{"allowed_hosts":[{"host":"a.cdn.test","tls":"terminate"}]}'
	local tls
	inside curl -sS -o /dev/null -w '%{http_code}' https://a.cdn.test:8444/
	assert_equal "$output" 200
	tls=$(pgrep -P "$(state_of .pinfold.keeper)" -f pinfold-tls)
	kill -STOP "$tls"
	# Long heads go along with connections: there is no room left in the line to it.
	pinfold exec "$ID" -- python3 -c "$(<"$TESTS_DIR/egress/probe.py")"'
held = []
for i in range(60):
    held.append(connect("a.cdn.test", 8000))
    held[-1].sendall(b"GET / HTTP/1.1\r\nHost: a.cdn.test:8000\r\nX-Long: " + b"x" * 20000 + b"\r\n\r\n")
open("/workspace/full", "w")
import signal
signal.pause()' >/dev/null 2>&1 3>&- &
	wait_for 60 pinfold exec "$ID" -- test -e /workspace/full
	jq -nc --arg ca "$WORLD/cert.pem" "{$RESOLVER}"' + {upstream_ca:$ca, allowed_hosts:[{host:"a.cdn.test",tls:"terminate"},"b.cdn.test"]}' >"$PF_DIR/policy.json"
	pf policy "$ID" set "$PF_DIR/policy.json"
	kill -KILL "$tls" || true # unless it has been ended, since it takes nothing
	assert_status 0
	assert_json '.revision == 2'
	assert_equal "$(pinfold policy "$ID" show | jq -c '[.revision, .policy.allowed]')" '[2,["a.cdn.test","b.cdn.test"]]'
	assert_audit '.event=="egress_error" and .kind=="tls" and .reason=="tls_down"'
	pinfold destroy "$ID"
	wait
}

@test "a root that is read-only, an image without certificates, and a start after a stop: trusted all the same" {
	create_sandbox "{\"filesystem\":{\"access\":\"read_only\"},\"networking\":{\"allowed_hosts\":[{\"host\":\"a.cdn.test\",\"tls\":\"terminate\"}],
		\"upstream_ca\":\"$WORLD/cert.pem\",$RESOLVER}}"
	inside curl -sS -o /dev/null -w '%{http_code}' https://a.cdn.test:8444/
	assert_equal "$output" 200
	local before
	before=$(state_of .pinfold.keeper)
	kill -TERM "$before"
	wait_for 10 test ! -e "/proc/$before"
	pinfold create "$ID" --reuse >/dev/null
	inside curl -sS -o /dev/null -w '%{http_code}' https://a.cdn.test:8444/
	assert_equal "$output" 200
	# Nothing of it is in a checkpoint.
	pinfold snapshot "$ID" >/dev/null
	pf diff "$ID"
	refute_out ca-certificates
}

@test "passthrough is a rule's own wish: TLS of any name goes to its host, plain HTTP is still judged" {
	sandbox '{"allowed_hosts":[{"host":"a.cdn.test","tls":"passthrough"}]}'
	trust
	probe 'print(tls("a.cdn.test", sni="b.cdn.test"))
print(http("a.cdn.test", name="b.cdn.test")[:3])'
	assert_equal "$output" $'host=b.cdn.test sni=b.cdn.test at=9.9.9.20\n403'
}

@test "commands that end while pinfold-tls is being started leave the keeper whole" {
	local keeper n
	# Of what the keeper closes then, its child still has copies; what epoll told of these was believed, once in a dozen times.
	for n in 1 2 3 4; do
		ending '{"allowed_hosts":[{"host":"a.cdn.test","ports":[8444],"methods":["GET"]}]}'
		keeper=$(state_of .pinfold.keeper)
		seq 24 | xargs -P 4 -I{} "$PINFOLD" --root "$ROOT" --store "$STORE" exec "$ID" -- true &
		# Three starts are no failure yet.
		for _ in 1 2 3; do
			inside curl -sS -o /dev/null https://a.cdn.test:8444/
			pgrep -P "$keeper" -f pinfold-tls | xargs -r kill -9
		done
		wait $!
		assert_equal "$(state_of '"\(.status) \(.pinfold.stop_reason)"')" "running null"
		pinfold destroy "$ID"
	done
}
