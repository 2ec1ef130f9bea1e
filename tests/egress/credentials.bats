# Credentials: the sandbox knows a placeholder, the host it is bound to gets the secret, and nobody else does.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() { world_setup; SECRET="s3cr3t-$BASHPID-$RANDOM$RANDOM"; }
teardown() { common_teardown; }

# CREDENTIALS BINDINGS [NETWORKING]: a sandbox; @FILE@ in both is a file that holds $SECRET.
with_credentials() {
	echo "$SECRET" >"$PF_DIR/secret"
	chmod 600 "$PF_DIR/secret"
	local networking=${3:-'{"allowed_hosts":["a.cdn.test","b.cdn.test","web.one.test"]}'}
	jq -nc --argjson c "${1//@FILE@/$PF_DIR/secret}" --argjson n "$networking" --arg ca "$WORLD/cert.pem" \
		"{credentials:\$c, networking:(\$n + {upstream_ca:\$ca,$RESOLVER})}" >"$PF_DIR/sandbox.json"
	echo "${2//@FILE@/$PF_DIR/secret}" >"$PF_DIR/bindings.json"
	chmod 600 "$PF_DIR/bindings.json"
	create_sandbox "$(<"$PF_DIR/sandbox.json")" --credentials "$PF_DIR/bindings.json"
}

KEY='{"api":{"type":"api_key"}}'
BOUND='{"api":{"source":{"file":"@FILE@"},"hosts":["a.cdn.test"]}}'

@test "the secret goes to its host in place of the placeholder, and to nobody else" {
	with_credentials "$KEY" "$BOUND"
	inside sh -c 'echo "$API"'
	[[ "$output" == pfcred_* ]] || show
	inside sh -c 'curl -sS -H "Authorization: Bearer $API" https://a.cdn.test:8444/'
	assert_json ".head.authorization==\"Bearer $SECRET\""
	# As Basic authentication, which hides it in base64.
	inside sh -c 'curl -sS -u "user:$API" https://a.cdn.test:8444/'
	assert_json ".head.authorization==\"Basic $(printf 'user:%s' "$SECRET" | base64 -w0)\""
	inside sh -c 'curl -sS -H "X-Two: $API,$API" https://a.cdn.test:8444/'
	assert_json ".head[\"x-two\"]==\"$SECRET,$SECRET\""
	# Elsewhere, and in a body or an address, it is what it is.
	inside sh -c 'curl -sSk -H "Authorization: Bearer $API" https://b.cdn.test:8444/ | grep -c "Bearer pfcred_"'
	assert_equal "$output" 1
	inside sh -c 'curl -sS -d "key=$API" "https://a.cdn.test:8444/?k=$API"'
	assert_json '(.body|startswith("key=pfcred_")) and (.path|startswith("/?k=pfcred_"))'
	# A name that only looks like the host is another one.
	inside sh -c 'curl -sS -H "Host: b.cdn.test" -H "Authorization: Bearer $API" https://a.cdn.test:8444/'
	assert_out host_mismatch
	# What comes back in a header is the placeholder again; TRACE, which sends all of it back, gets none.
	inside sh -c 'curl -sS -D /tmp/head -o /tmp/body -H "X-Request-Id: 1-$API-2" https://a.cdn.test:8444/; tr -d "\r" </tmp/head |
		grep -cx "X-Request-Id: 1-$API-2"; cat /tmp/body'
	assert_equal "${output%%$'\n'*}" 1
	output=${output#*$'\n'}
	assert_json ".head[\"x-request-id\"]==\"1-$SECRET-2\""
	inside sh -c 'curl -sS -X TRACE -H "Authorization: Bearer $API" https://a.cdn.test:8444/'
	assert_out "not sent with TRACE"
	# Plain HTTP never carries it.
	inside sh -c 'curl -sS -H "Authorization: Bearer $API" http://a.cdn.test:8000/'
	assert_out "only sent over verified TLS"
	assert_audit '.kind=="request" and .credential=="api" and .verdict=="allow"'
	settle
	refute grep -qa "$SECRET" "$WORLD/up.pcap"
}

@test "on a kernel without secret memory pinfold-tls stays, is all that has the secret, and is not followed by another" {
	[ -x "$BUILD/tests/helpers/oldkernel" ] || skip "needs $BUILD/tests/helpers/oldkernel (make test-programs)"
	local keeper tls
	pinfold() { at_host "$BUILD/tests/helpers/oldkernel" "$PINFOLD" --root "$ROOT" --store "$STORE" "$@"; }
	with_credentials "$KEY" "$BOUND"
	unset -f pinfold
	pinfold() { at_host "$PINFOLD" --root "$ROOT" --store "$STORE" "$@"; }
	keeper=$(state_of .pinfold.keeper)
	tls=$(pgrep -P "$keeper" -x pinfold-tls)
	# Neither of the others has a descriptor of it.
	local fd fds
	fds=$(find "/proc/$keeper/fd" "/proc/$(gate_pid)/fd" -lname '/memfd:*')
	for fd in $fds; do refute grep -qa "$SECRET" "$fd"; done
	inside sh -c 'curl -sS -H "Authorization: Bearer $API" https://a.cdn.test:8444/; curl -sS -o /dev/null https://a.cdn.test:8444/'
	assert_json ".head.authorization==\"Bearer $SECRET\""
	assert_equal "$(pgrep -P "$keeper" -x pinfold-tls)" "$tls"
	kill -9 "$tls"
	assert_audit '.event=="tls_died" and .error=="pinfold-tls was killed by signal 9"'
	inside curl -sS https://a.cdn.test:8444/
	[ "$status" != 0 ]
	assert_audit '.event=="egress_error" and .kind=="tls" and (.detail|test("and with it the sandbox.s authority"))'
	assert_audit '.event=="egress_denied" and .kind=="connect" and .reason=="tls_down" and .name=="a.cdn.test"'
	[ -z "$(pgrep -P "$keeper" -x pinfold-tls)" ]
}

@test "a server that is not who it should be gets nothing" {
	echo "$SECRET" >"$PF_DIR/secret"
	create_sandbox "{\"networking\":{\"allowed_hosts\":[\"a.cdn.test\"],$RESOLVER},\"credentials\":{\"api\":{\"type\":\"api_key\",
		\"source\":{\"file\":\"$PF_DIR/secret\"},\"hosts\":[\"a.cdn.test\"]}}}"
	inside sh -c 'curl -sS -H "Authorization: Bearer $API" https://a.cdn.test:8444/'
	assert_out "did not prove who it is"
	refute grep -q "$SECRET" "$WORLD/heard"
}

@test "a policy that was narrowed holds for a pinfold-tls that runs, and that no connection has needed yet" {
	with_credentials "$KEY" "$BOUND"
	echo "other-$SECRET" | pinfold policy "$ID" rotate api -
	set_policy "$(jq -nc --arg ca "$WORLD/cert.pem" '{allowed_hosts:[{host:"a.cdn.test",methods:["GET"]}],upstream_ca:$ca}')"
	inside sh -c 'curl -sS -X POST -H "K: $API" https://a.cdn.test:8444/'
	assert_out "POST is not among the methods"
	inside sh -c 'curl -sS -H "K: $API" https://a.cdn.test:8444/'
	assert_json ".head.k==\"other-$SECRET\""
}

@test "of headers that are listed it stands in these alone" {
	with_credentials "$KEY" '{"api":{"source":{"file":"@FILE@"},"hosts":["a.cdn.test"],"injection_location":{"headers":["X-Key","authorization"]}}}'
	inside sh -c 'curl -sS -u "u:$API" -H "X-KEY: $API" -H "User-Agent: $API" -H "X-Key-2: $API" -d "$API" https://a.cdn.test:8444/'
	assert_json ".head[\"x-key\"]==\"$SECRET\" and .head.authorization==\"Basic $(printf 'u:%s' "$SECRET" | base64 -w0)\" and
		(.head[\"user-agent\"]|startswith(\"pfcred_\")) and (.head[\"x-key-2\"]|startswith(\"pfcred_\")) and (.body|startswith(\"pfcred_\"))"
	local wrong
	for wrong in '{"headers":[]}' '{"headers":["a b"]}' '{"headers":[1]}' '{"header":true,"headers":["a"]}'; do
		jq --argjson w "$wrong" '.api.injection_location = $w' "$PF_DIR/bindings.json" >"$PF_DIR/wrong.json"
		chmod 600 "$PF_DIR/wrong.json"
		new_id
		pf create "$ID" --config "$PF_DIR/sandbox.json" --credentials "$PF_DIR/wrong.json"
		assert_refused injection_location
	done
}

@test "scope, methods, paths and requests per hour bound what it is good for" {
	with_credentials '{"crm":{"type":"api_key","scope":"read:contacts","max_requests_per_hour":3},"ro":{"type":"api_key","scope":"read_only"},
		"own":{"type":"api_key","methods":["POST"],"paths":["/hook"]}}' '{"crm":{"source":{"file":"@FILE@"},"hosts":["a.cdn.test"]},
		"ro":{"source":{"file":"@FILE@"},"hosts":["a.cdn.test"]},"own":{"source":{"file":"@FILE@"},"hosts":["a.cdn.test"]}}'
	inside sh -c 'ask() { curl -sS -o /dev/null -w "%{http_code} " "$@"; }; u=https://a.cdn.test:8444
ask -H "K: $CRM" $u/v1/contacts/7; ask -H "K: $CRM" $u/contacts; ask -H "K: $CRM" $u/v1/invoices; ask -X POST -H "K: $CRM" $u/contacts
ask -H "K: $CRM" $u/contacts; ask -H "K: $CRM" $u/contacts; ask $u/v1/invoices
ask -H "K: $RO" $u/any; ask -X DELETE -H "K: $RO" $u/any; ask -X POST -H "K: $OWN" $u/hook; ask -X POST -H "K: $OWN" $u/hooks'
	assert_equal "$output" "200 200 403 403 200 429 200 200 403 200 403 "
	inside sh -c 'curl -sS -H "K: $CRM" https://a.cdn.test:8444/invoices'
	assert_out "Credential crm (scope read:contacts) is not for GET of this path."
	inside sh -c 'curl -sSi -H "K: $CRM" https://a.cdn.test:8444/contacts'
	assert_out "good for 3 requests an hour"
	assert_out "Retry-After: "
	assert_audit '.reason=="credential_scope"'
	assert_audit '.reason=="credential_rate"'
}

@test "validity ends" {
	with_credentials '{"api":{"type":"api_key","validity":"1s"}}' "$BOUND"
	sleep 1.1
	inside sh -c 'curl -sS -H "K: $API" https://a.cdn.test:8444/'
	assert_out "Credential api is no longer valid."
}

@test "bodies carry it where that is switched on, with the right length" {
	with_credentials "$KEY" '{"api":{"source":{"file":"@FILE@"},"hosts":["a.cdn.test"],"env":"MY_KEY","injection_location":{"body":true}}}'
	inside sh -c 'curl -sS -H "X: $MY_KEY" -d "key=$MY_KEY&b=2" https://a.cdn.test:8444/'
	assert_json ".body==\"key=$SECRET&b=2\" and (.head.x|startswith(\"pfcred_\"))"
	inside sh -c 'head -c 300000 /dev/zero | curl -sS -H "Expect: 100-continue" --data-binary @- https://a.cdn.test:8444/'
	assert_json '.length==300000'
	# What many together promise, or have sent to a server that does not take it, is bounded, and free again when
	# they are gone.
	probe 'import ssl
context = ssl.create_default_context()
held = []
for i in range(70):
    s = context.wrap_socket(connect("a.cdn.test", 8445 if i < 32 else 8444), server_hostname="a.cdn.test")
    s.settimeout(30)
    s.sendall(b"POST / HTTP/1.1\r\nHost: a.cdn.test\r\nContent-Length: 1048576\r\n" +
        (b"\r\n" + bytes(1048576) if i < 32 else b"Expect: 100-continue\r\n\r\n"))
    held.append((s, s.recv(12)))
print([answer for s, answer in held] == [b"HTTP/1.1 100"] * 64 + [b"HTTP/1.1 429"] * 6)'
	assert_equal "$output" True
	inside sh -c 'head -c 300000 /dev/zero | curl -sS --retry 10 --data-binary @- https://a.cdn.test:8444/'
	assert_json '.length==300000'
	# What a long secret makes of a body counts, too.
	head -c 3000 /dev/zero | base64 -w0 | pinfold policy "$ID" rotate api -
	inside sh -c 'for i in $(seq 22000); do printf %s "$MY_KEY"; done | curl -sS -o /dev/null -w "%{http_code}" --data-binary @- https://a.cdn.test:8444/'
	assert_equal "$output" 429
}

@test "a body that streams in chunks carries it too, whatever its length and wherever it is split, and is cut off when it may not" {
	with_credentials "$KEY" '{"api":{"source":{"file":"@FILE@"},"hosts":["a.cdn.test"],"methods":["POST"],"injection_location":{"body":true}}}'
	probe 'import json, http.client
key = os.environ["API"].encode()
def send(chunks, method="POST", host="a.cdn.test"):
    context = ssl.create_default_context() if host == "a.cdn.test" else ssl._create_unverified_context()
    c = http.client.HTTPSConnection(host, 8444, context=context)
    try:
        c.request(method, "/in", iter(chunks), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        r = c.getresponse()
        return r.status, r.read().decode()
    except OSError as e:
        return 0, word(e)
secret = argv[1]
def body(chunks): return json.loads(send(chunks)[1])["body"]
print(body([b"a=", key, b"&b=1"]) == "a=" + secret + "&b=1")
# Byte by byte, twice in a row, and something that only begins like one.
print(body([bytes([b]) for b in b"x" + key + key + b"pfcred_pfcr"]) == "x" + secret * 2 + "pfcred_pfcr")
# Longer than what is collected of a body with a length.
big = [b"z" * 65536] * 40 + [key] + [b"z" * 65536] * 40
print(json.loads(send(big)[1])["length"] == 80 * 65536 + len(secret))
print(body([b"", b"no placeholder"]) , body([]) == "")
print(json.loads(send([key], host="b.cdn.test")[1])["body"] == key.decode())
status, text = send([b"y" * 1000, key, b"end"], method="PUT")
print(status, "is not for PUT" in text)
# Nothing is kept back longer than it must be: the server sees what was sent while more is to come.
s = ssl.create_default_context().wrap_socket(connect("a.cdn.test", 8444), server_hostname="a.cdn.test")
s.sendall(b"POST / HTTP/1.1\r\nHost: a.cdn.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nwait\r\n")
time.sleep(0.3)
s.sendall(b"2f;ext=1\r\n" + key + b"\r\n0\r\nTrailer: " + key + b"\r\n\r\n")
answer = b""
while data := s.recv(65536): answer += data
print(json.loads(answer.split(b"\r\n\r\n")[1])["body"] == "wait" + secret)' "$SECRET"
	assert_equal "$output" "True
True
True
no placeholder True
True
403 True
True"
	assert_audit '.kind=="request" and .verdict=="allow" and .credential=="api" and .method=="POST"'
	assert_audit '.kind=="request" and .verdict=="deny" and .reason=="credential_scope" and .method=="PUT"'
	settle
	refute grep -qa "$SECRET" "$WORLD/up.pcap"
}

@test "secrets come from a file, a descriptor or a command, and are given anew without a restart" {
	exec {fd}<<<"from-fd-$SECRET"
	with_credentials '{"f":{"type":"t"},"d":{"type":"t"},"c":{"type":"t"}}' "{\"f\":{\"source\":{\"file\":\"@FILE@\"},\"hosts\":[\"a.cdn.test\"]},
		\"d\":{\"source\":{\"fd\":$fd},\"hosts\":[\"a.cdn.test\"]},
		\"c\":{\"source\":{\"command\":[\"/bin/echo\",\"from-command-$SECRET\"]},\"hosts\":[\"a.cdn.test\"]}}"
	exec {fd}<&-
	inside sh -c 'curl -sS -H "K: $F $D $C" https://a.cdn.test:8444/'
	assert_json ".head.k==\"$SECRET from-fd-$SECRET from-command-$SECRET\""
	echo "new-$SECRET" >"$PF_DIR/secret"
	pinfold policy "$ID" rotate f --credentials "$PF_DIR/bindings.json"
	echo "new-$SECRET-longer" | pinfold policy "$ID" rotate d -
	inside sh -c 'curl -sS -H "K: $F $D" https://a.cdn.test:8444/'
	assert_json ".head.k==\"new-$SECRET new-$SECRET-longer\""
	# Where one is how another begins, it is the longer one that comes back.
	inside sh -c 'curl -sS -D - -o /dev/null -H "X-Request-Id: $D $F" https://a.cdn.test:8444/ | tr -d "\r" | grep -cx "X-Request-Id: $D $F"'
	assert_equal "$output" 1
	pf policy "$ID" rotate nobody "$PF_DIR/secret"
	assert_refused "no credential 'nobody'"
	# The number means something else to who rotates.
	pf policy "$ID" rotate d --credentials "$PF_DIR/bindings.json" <<<wrong
	assert_refused "was given as a descriptor"
	assert_audit '.event=="secret_set" and .credential=="f"'
	jq '.credentials={"api.key":{type:"t"},"api-key":{type:"t"}}' "$PF_DIR/sandbox.json" >"$PF_DIR/same.json"
	jq -n --arg f "$PF_DIR/secret" '{source:{file:$f},hosts:["a.cdn.test"]}|{"api.key":.,"api-key":.}' >"$PF_DIR/same-bindings.json"
	chmod 600 "$PF_DIR/same-bindings.json"
	new_id
	pf create "$ID" --config "$PF_DIR/same.json" --credentials "$PF_DIR/same-bindings.json"
	assert_refused API_KEY "another credential"
}

@test "the secret is nowhere: not in the sandbox, the state, the logs, a checkpoint, or another process" {
	with_credentials "$KEY" "$BOUND"
	inside sh -c 'curl -sS -o /dev/null -H "Authorization: Bearer $API" https://a.cdn.test:8444/ && echo done'
	assert_equal "$output" done
	pinfold snapshot "$ID" >/dev/null
	rm "$PF_DIR/secret"
	refute grep -rqa -- "$SECRET" "$ROOT" "$STORE" "$PF_DIR"
	# (The pattern is made inside, or grep would find itself.)
	inside sh -c 'p=$(echo "$0" | rev); grep -rqa "$p" /proc/[0-9]*/environ /proc/[0-9]*/cmdline /etc /workspace /tmp /run 2>/dev/null && echo found; env | grep -c "$p"' "$(rev <<<"$SECRET")"
	assert_equal "$output" 0
	# Of all processes on the machine only the one that injects it has it in memory, and no core file would.
	local keeper pid
	keeper=$(state_of .pinfold.keeper)
	probe_memory() { # PID
		python3 - "$1" "$SECRET" <<-'END'
			import re, sys
			pid, secret = sys.argv[1], sys.argv[2].encode()
			with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
			    for line in maps:
			        a, b, perms = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
			        if perms[0] != "r" or "[v" in line:
			            continue
			        try:
			            mem.seek(int(a, 16))
			            if secret in mem.read(int(b, 16) - int(a, 16)):
			                print("found", line.strip())
			        except (OSError, MemoryError):
			            pass
		END
	}
	assert_equal "$(probe_memory "$keeper")" ""
	pid=$(pgrep -P "$keeper" -f pinfold-tls)
	# Once, in locked memory that is left out of core files.
	local places
	places=$(probe_memory "$pid")
	[ "$(wc -l <<<"$places")" = 1 ] || show "places:" "$places"
	grep -q dd "/proc/$pid/smaps"
}

@test "the example of the platform works as it is, and says what nothing enforces" {
	local example='{"credentials":{"crm_api_key":{"type":"api_key","scope":"read:contacts","validity":"30d","max_requests_per_hour":1000},
		"db_read_only":{"type":"database","scope":"read_only","databases":["customer_data"]}}}'
	# shellcheck disable=SC2034
	create_sandbox "$example"
	inside true
	assert_status 0
	pinfold destroy "$ID"
	with_credentials "$(jq -c .credentials <<<"$example")" '{"crm_api_key":{"source":{"file":"@FILE@"},"hosts":["a.cdn.test"]}}'
	inside sh -c 'curl -sS -H "Authorization: $CRM_API_KEY" https://a.cdn.test:8444/contacts'
	assert_json ".head.authorization==\"$SECRET\""
}

@test "what cannot be kept is refused when the sandbox is made" {
	refused() { # CREDENTIALS BINDINGS WORD...
		jq -nc --argjson c "$1" "{credentials:\$c, networking:{allowed_hosts:[\"a.cdn.test\",{host:\"b.cdn.test\",tls:\"passthrough\"}],$RESOLVER}}" >"$PF_DIR/s.json"
		echo "$2" >"$PF_DIR/b.json"
		chmod 600 "$PF_DIR/b.json"
		new_id
		pf create "$ID" --config "$PF_DIR/s.json" --credentials "$PF_DIR/b.json"
		assert_refused "${@:3}"
	}
	printf 'two\nlines\n' >"$PF_DIR/lines"
	echo x >"$PF_DIR/x"
	local f="\"source\":{\"file\":\"$PF_DIR/x\"}"
	refused "$KEY" "{\"api\":{$f,\"hosts\":[\"web.one.test\"]}}" "cannot be reached under this policy"
	refused "$KEY" "{\"api\":{$f,\"hosts\":[\"b.cdn.test\"]}}" "not to be ended"
	refused "$KEY" "{\"api\":{$f,\"hosts\":[\"9.9.9.9\"]}}" "bound to names"
	refused "$KEY" "{\"api\":{$f}}" "hosts"
	refused "$KEY" "{\"api\":{\"source\":{\"file\":\"$PF_DIR/lines\"},\"hosts\":[\"a.cdn.test\"]}}" "line break"
	refused "$KEY" "{\"api\":{\"source\":{\"file\":\"$PF_DIR/nothing\"},\"hosts\":[\"a.cdn.test\"]}}" "No such file"
	refused "$KEY" "{\"api\":{\"source\":{\"value\":\"x\"},\"hosts\":[\"a.cdn.test\"]}}" "value"
	refused '{"api":{"type":"t","scope":"sometimes"}}' "{\"api\":{$f,\"hosts\":[\"a.cdn.test\"]}}" "scope"
	refused '{"api":{"type":"t","hosts":["a.cdn.test"]}}' "{\"api\":{$f,\"hosts\":[\"a.cdn.test\"]}}" "one must go"
	chmod 666 "$PF_DIR/b.json"
	pf create "$ID" --config "$PF_DIR/s.json" --credentials "$PF_DIR/b.json"
	assert_refused "others than its owner"
	assert_gone "$ID"
}
