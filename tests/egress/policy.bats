# The policy over a sandbox's life: changed while it runs, kept by checkpoints, gone with the keeper; and what the
# audit log says about it all.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() { world_setup; }
teardown() { common_teardown; }

# A slow download in the background; its exit code will be in $PF_DIR/NAME.code.
download() { # NAME HOST
	{
		pinfold exec "$ID" -- curl -sS --limit-rate 4M -o "/dev/null" "http://$2/big" >"$PF_DIR/$1.out" 2>&1 3>&- && echo 0 || echo $?
	} >"$PF_DIR/$1.code" 3>&- &
}
flowing() { # HOST
	at_host ss -Htn state established dst "$1" | grep -q .
}

@test "a smaller policy ends a running download that it does not allow, and no other" {
	sandbox '{"allowed_hosts":["only4.one.test","a.cdn.test"]}'
	download doomed only4.one.test
	download kept a.cdn.test
	wait_for 10 flowing 9.9.9.14
	wait_for 10 flowing 9.9.9.20
	set_policy '{"allowed_hosts":["a.cdn.test"]}'
	wait_for 15 test -s "$PF_DIR/doomed.code"
	assert_equal "$(<"$PF_DIR/doomed.code")" 56
	refute flowing 9.9.9.14
	flowing 9.9.9.20
	[ ! -s "$PF_DIR/kept.code" ]
	expect_dials <<-END
		no_name only4.one.test 7
		ok a.cdn.test 7
	END
	assert_audit '.event=="policy_set" and .revision==2'
	assert_audit '.event=="egress_denied" and .kind=="close" and .name=="only4.one.test" and .reason=="policy_changed" and .revision==2 and .bytes_in>0'
	assert_equal "$(pinfold policy "$ID" show | jq -c '[.revision, .policy.allowed]')" '[2,["a.cdn.test"]]'
	# Nothing at all any more.
	set_policy '{"type":"none"}'
	wait_for 15 test -s "$PF_DIR/kept.code"
	refute flowing 9.9.9.20
	expect_dial no_name a.cdn.test 7
	wait
}

@test "a larger policy opens at once; the sandbox need not be restarted" {
	sandbox '{}'
	expect_dials <<-END
		no_name web.one.test 7
		refused 9.9.11.1 7
	END
	set_policy '{"allowed_hosts":["web.one.test"],"allowed_cidrs":["9.9.11.0/24"]}'
	expect_dials <<-END
		ok web.one.test 7
		ok 9.9.11.1 7
	END
}

@test "a policy that is no policy changes nothing" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	local bad
	for bad in '{"allowed_hosts":["*"]}' '{"allowed_hosts":["*.com"]}' '{"allowed_host":["web.one.test"]}' '{"allowed_hosts":["a b"]}' \
		'{"allowed_hosts":["web.one.test:99999"]}' '{"type":"none","allowed_hosts":["web.one.test"]}' '{"type":"open"}' \
		'{"allowed_cidrs":["10.0.0.0/8"]}' '{"allowed_cidrs":["9.9.9.9/8"]}' '{"type":"limited","resolver":"nonsense"}' '[]' '{"type":'; do
		printf '%s' "$bad" >"$PF_DIR/bad.json"
		pf policy "$ID" set "$PF_DIR/bad.json"
		assert_refused || show "$bad"
	done
	assert_equal "$(pinfold policy "$ID" show | jq -c '[.revision, .policy.allowed]')" '[1,["web.one.test"]]'
	expect_dial ok web.one.test 7
}

@test "a sandbox from a checkpoint has the policy it was taken under" {
	sandbox '{"allowed_hosts":["web.one.test:7"]}'
	pf snapshot "$ID"
	local checkpoint
	checkpoint=$(jq -r .checkpoint <<<"$output")
	pinfold destroy "$ID"
	new_id
	pf create "$ID" --from "$checkpoint"
	assert_status 0
	expect_dials <<-END
		ok web.one.test 7
		refused web.one.test 80
		no_name secret.other.test 7
		refused 9.9.9.66 7
	END
	assert_equal "$(pinfold policy "$ID" show | jq -c .policy.allowed)" '["web.one.test:7"]'
	# So has each of several.
	new_id
	pf fork "$checkpoint" "$ID"
	assert_status 0
	expect_dials <<-END
		ok web.one.test 7
		no_name secret.other.test 7
	END
}

@test "a policy that was set while it ran is the one a checkpoint brings back" {
	sandbox '{"allowed_hosts":["web.one.test","only4.one.test"]}'
	set_policy '{"allowed_hosts":["web.one.test"]}'
	pf snapshot "$ID"
	local checkpoint
	checkpoint=$(jq -r .checkpoint <<<"$output")
	new_id
	pf create "$ID" --from "$checkpoint"
	assert_status 0
	expect_dials <<-END
		ok web.one.test 7
		no_name only4.one.test 7
	END
}

@test "a policy that was set outlives the keeper, but not the sandbox file that --reuse is given" {
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
	set_policy '{"allowed_hosts":["web.one.test","only4.one.test"]}'
	allowed() { pinfold policy "$ID" show | jq -c .policy.allowed; }
	restart() { # CREATE-OPTION...
		kill -9 "$(state_of .pinfold.keeper)"
		gone() { [ -z "$(pids_of)" ] && [ "$(state_of .status)" = stopped ]; }
		wait_for 10 gone
		pinfold create "$ID" --reuse "$@" >/dev/null
	}
	restart
	assert_equal "$(allowed)" '["web.one.test","only4.one.test"]'
	echo "{\"networking\":{\"allowed_hosts\":[\"b.cdn.test\"],$RESOLVER}}" >"$PF_DIR/strict.json"
	restart --config "$PF_DIR/strict.json"
	assert_equal "$(allowed)" '["b.cdn.test"]'
	pf snapshot "$ID"
	pf checkpoint inspect "$(jq -r .checkpoint <<<"$output")"
	assert_json '.record.policy.allowed_hosts == ["b.cdn.test"] and .record.sandbox_file.networking.allowed_hosts == ["b.cdn.test"]'
	restart
	assert_equal "$(allowed)" '["b.cdn.test"]'
	assert_equal "$(pinfold policy "$ID" show | jq '.revision > 2')" true
}

@test "max_bytes_per_hour: a rule's connections have so many bytes between them, both ways, ended at the gate or not" {
	sandbox "{\"upstream_ca\":\"$WORLD/cert.pem\",\"allowed_hosts\":[{\"host\":\"a.cdn.test\",\"max_bytes_per_hour\":\"1MB\"},
		{\"host\":\"b.cdn.test\",\"tls\":\"terminate\",\"max_bytes_per_hour\":1000000},{\"host\":\"web.one.test\",\"ports\":5000,\"protocol\":\"udp\",\"max_bytes_per_hour\":25}]}"
	probe 'def get(host, port=80):
    s = connect(host, port)
    s.sendall(b"GET /big HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n")
    n = 0
    try:
        while data := s.recv(65536): n += len(data)
    except OSError as e:
        return n, word(e)
print(dial("a.cdn.test", 7))
n, how = get("a.cdn.test")
print(n <= 1048576, how) # a reset takes away what has arrived and was not read yet
print(dial("a.cdn.test", 7), http("a.cdn.test").split("\n")[0])
context = ssl.create_default_context()
n = 0
s = context.wrap_socket(connect("b.cdn.test", 8444), server_hostname="b.cdn.test")
try:
    for _ in range(100):
        s.sendall(b"POST / HTTP/1.1\r\nHost: b.cdn.test\r\nContent-Length: 65536\r\n\r\n" + b"b" * 65536)
        n += len(s.recv(65536)) and 65536
except OSError: pass
print(400000 < n < 2500000, dial("b.cdn.test", 7))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(1)
u.connect(("web.one.test", 5000)); got = []
for i in range(3):
    u.send(b"ten bytes!")
    try: got.append(u.recv(100).decode())
    except OSError as e: got.append(word(e))
print(got[0], got.count(got[0]))'
	assert_equal "$output" "ok
True reset
reset 403 a.cdn.test:80 is denied by this sandbox's network policy (rate).
True reset
TEN BYTES! 1"
	assert_audit '.event=="egress_denied" and .reason=="rate" and .detail=="max_bytes_per_hour" and .name=="a.cdn.test" and .kind=="close" and .bytes_in > 300000'
	assert_audit '.reason=="rate" and .detail=="max_bytes_per_hour" and .name=="a.cdn.test" and .kind=="connect"'
	assert_audit '.reason=="rate" and .detail=="max_bytes_per_hour" and .name=="b.cdn.test"'
	assert_audit '.reason=="rate" and .detail=="max_bytes_per_hour" and .proto=="udp"'
	assert_equal "$(pinfold policy "$ID" test a.cdn.test:80 | jq -c '[.max_bytes_per_hour,.bytes_left]')" '[1048576,0]'
	# A rule that stays goes on where it was; one with more has more.
	set_policy '{"allowed_hosts":[{"host":"a.cdn.test","max_bytes_per_hour":"1MB"}]}'
	expect_dial reset a.cdn.test 7
	set_policy '{"allowed_hosts":[{"host":"a.cdn.test","max_bytes_per_hour":"2MB"}]}'
	expect_dial ok a.cdn.test 7
}

@test "a keeper that is killed in mid-traffic takes the sandbox with it: nothing leaves any more" {
	sandbox '{"allowed_hosts":["web.one.test","only4.one.test"]}'
	local keeper before
	keeper=$(state_of .pinfold.keeper)
	download doomed only4.one.test
	wait_for 10 flowing 9.9.9.14
	kill -9 "$keeper"
	gone() { [ -z "$(pids_of)" ] && [ -s "$PF_DIR/doomed.code" ]; }
	wait_for 10 gone || show "left: $(pids_of)"
	refute flowing 9.9.9.14
	[ "$(<"$PF_DIR/doomed.code")" != 0 ]
	settle
	before=$(tcpdump -nr "$WORLD/up.pcap" 'dst host 9.9.9.14' 2>/dev/null | wc -l)
	inside curl -sS http://web.one.test/
	assert_status 125
	assert_equal "$(state_of .status)" stopped
	assert_equal "$(captured 'dst host 9.9.9.14' | wc -l)" "$before"
	wait
}

@test "a keeper that does not move lets nothing pass" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	local keeper
	keeper=$(state_of .pinfold.keeper)
	kill -STOP "$keeper"
	at_host timeout 3 "$PINFOLD" --root "$ROOT" --store "$STORE" exec "$ID" -- sh -c 'nc -w 1 9.9.9.66 7 </dev/null; curl -sS --max-time 1 http://stopped-keeper.one.test/' || true
	kill -CONT "$keeper"
	refute_captured 'dst host 9.9.9.66'
	refute_left stopped-keeper
	expect_dial ok web.one.test 7
}

@test "every verdict is a line of the audit log with all that there is to say" {
	sandbox '{"allowed_hosts":["web.one.test:7","*.bad.test","gone.cdn.test"],"allowed_cidrs":["9.9.11.0/24:7"]}'
	probe 'dial("web.one.test", 7); dial("9.9.11.3", 7); dial("secret.other.test", 7); dial("9.9.9.66", 7)
dial("to-metadata.bad.test", 80); dial("gone.cdn.test", 7); dial("web.one.test", 9); dial("9.9.11.3", 9)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b"x", ("9.9.11.3", 7))'
	local line
	while read -r line; do
		assert_audit "(.time | test(\"^[0-9-]+T[0-9:.]+Z$\")) and .revision==1 and ($line)"
	done <<-'END'
		.event=="egress_allowed" and .kind=="dns" and .name=="web.one.test" and .rule=="web.one.test:7" and .reason=="allowed"
		.event=="egress_allowed" and .kind=="connect" and .name=="web.one.test" and .rule=="web.one.test:7" and .port==7 and .proto=="tcp" and (.orig|test("^(198\\.1[89]\\.|fd)")) and (.addr|test("^(9\\.9\\.9\\.10|2600:9::10)$")) and .duration_us>0
		.event=="egress_allowed" and .kind=="close" and .name=="web.one.test" and .bytes_out==5 and .bytes_in==5 and .duration_us>0 and .reason=="closed"
		.event=="egress_allowed" and .kind=="connect" and .orig=="9.9.11.3" and .addr=="9.9.11.3" and .rule=="9.9.11.0/24:7" and (.name|not)
		.event=="egress_denied" and .kind=="dns" and .name=="secret.other.test" and .reason=="not_listed"
		.event=="egress_denied" and .kind=="packet" and .orig=="9.9.9.66" and .port==7 and .proto=="tcp" and .reason=="not_listed"
		.event=="egress_denied" and .kind=="connect" and .name=="to-metadata.bad.test" and .addr=="169.254.169.254" and .rule=="*.bad.test" and .reason=="address" and .detail=="metadata"
		.event=="egress_error" and .kind=="connect" and .name=="gone.cdn.test" and .reason=="resolve" and (.detail|length)>0
		.event=="egress_denied" and .name=="web.one.test" and .port==9 and .reason=="port"
		.event=="egress_denied" and .orig=="9.9.11.3" and .port==9 and .reason=="port" and .rule=="9.9.11.0/24:7"
		.event=="egress_denied" and .orig=="9.9.11.3" and .port==7 and .proto=="udp" and .reason=="protocol"
	END
	# For people: only what was refused.
	pf logs "$ID" --denied
	assert_out secret.other.test
	refute_out egress_allowed
	# It outlives the sandbox.
	pinfold destroy "$ID"
	pf logs "$ID" --denied
	assert_out secret.other.test
}
