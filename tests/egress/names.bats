# Names: what is allowed is reached, by v4 and by v6; what is not has no address, and nobody outside is asked.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() { world_setup; }
teardown() { common_teardown; }

# Moves rotate.test; returns when the resolver knows.
rotate() { # ADDRESS
	local read_before
	read_before=$(grep -c 'read .*/rotating' "$WORLD/dns.log")
	echo "rotate $1" >&"$WORLD_FD"
	wait_for 10 sh -c 'test "$(grep -c "read .*/rotating" "$1")" -gt "$2"' - "$WORLD/dns.log" "$read_before"
}

@test "an allowed name is reached over IPv4 and over IPv6, and answers from its real address" {
	sandbox '{"allowed_hosts":["web.one.test","only4.one.test","only6.one.test"]}'
	expect_dials <<-END
		ok web.one.test 7 4
		ok web.one.test 7 6
	END
	# The sandbox's family is not the server's: either address stands for the name.
	expect_dials <<-END
		ok only4.one.test 7 6
		ok only6.one.test 7 4
	END
	probe 'print(http("only4.one.test", family="6")); print(http("only6.one.test", family="4"))'
	assert_equal "$output" $'200 host=only4.one.test sni= at=9.9.9.14\n200 host=only6.one.test sni= at=2600:9::16'
	[ -n "$(captured 'dst host 9.9.9.14 and tcp port 7')" ]
	[ -n "$(captured 'dst host 2600:9::16 and tcp port 80')" ]
}

@test "a name that is not allowed does not exist, in any spelling, and is asked of nobody" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	expect_dials < <(printf 'no_name %s 80\n' secret.other.test SECRET.Other.Test secret.other.test. xweb.one.test web.one.test.other.test one.test)
	probe 'print(ask("secret.other.test", 1), ask("secret.other.test", 28), ask("secret.other.test", 1, tcp=True),
		ask("secret.other.test", 1, "2600::53"))'
	assert_equal "$output" "(3, 0) (3, 0) (3, 0) (3, 0)"
	assert_audit '.event=="egress_denied" and .kind=="dns" and .name=="secret.other.test" and .reason=="not_listed"'
	refute_left secret
	expect_dial ok WEB.One.Test. 7
}

@test "a wildcard is every name below, never the name itself, and nothing beside" {
	sandbox '{"allowed_hosts":["*.wild.test"]}'
	expect_dials <<-END
		ok a.wild.test 7
		ok deep.er.wild.test 7
		no_name wild.test 7
		no_name wild.test.other.test 7
		no_name awild.test 7
	END
	set_policy '{"allowed_hosts":["*.wild.test"],"denied_hosts":["bad.wild.test"]}'
	expect_dials <<-END
		no_name bad.wild.test 7
		ok good.wild.test 7
	END
}

@test "a rule's ports are all that is open of its name" {
	sandbox '{"allowed_hosts":["web.one.test:7","only4.one.test:5000-6000",{"host":"a.cdn.test","ports":[9,22]}]}'
	expect_dials <<-END
		ok web.one.test 7
		refused web.one.test 8080
		ok only4.one.test 5432
		refused only4.one.test 8080
	END
	# Ports of one name are not open for another, although the filter lets the sum of them through to the gate.
	expect_dials <<-END
		reset web.one.test 5432
		reset only4.one.test 7
	END
	assert_audit '.event=="egress_denied" and .kind=="connect" and .name=="web.one.test" and .port==5432 and .reason=="port"'
	assert_audit '.event=="egress_denied" and .kind=="packet" and .name=="web.one.test" and .port==8080 and .reason=="port"'
	refute_captured 'host 9.9.9.10 and (tcp port 5432 or tcp port 8080)'
}

@test "a literal address needs a rule for a network" {
	sandbox '{"allowed_hosts":["web.one.test"],"allowed_cidrs":["9.9.11.0/24:7","[2600:11::/32]:7"]}'
	expect_dials <<-END
		ok 9.9.11.5 7
		ok 2600:11::5 7
		refused 9.9.11.5 8080
		refused 9.9.12.5 7
		refused 2600:12::5 7
	END
	# Also the address of an allowed name.
	expect_dials <<-END
		refused 9.9.9.10 7
		refused ::ffff:9.9.9.10 7
	END
	assert_audit '.event=="egress_denied" and .orig=="9.9.12.5" and .port==7 and .reason=="not_listed" and .proto=="tcp"'
	refute_captured 'dst net 9.9.12.0/24 or dst net 2600:12::/32'
}

@test "a name that moves between the question and the connection is reached where it is now" {
	sandbox '{"allowed_hosts":["rotate.test"]}'
	cat >"$PF_DIR/rotate.py" <<-'END'
		where = addresses("rotate.test", "4")[0]
		old = connect(where, 7)
		print("first", exchange(old, b"ping"), http(where, name="rotate.test"), flush=True)
		while not os.path.exists("/workspace/moved"):
		    time.sleep(0.02)
		print("second", exchange(old, b"ping"), http(where, name="rotate.test"), flush=True)
	END
	pinfold exec "$ID" -- python3 -c "$(cat "$TESTS_DIR/egress/probe.py" "$PF_DIR/rotate.py")" \
		>"$PF_DIR/out" 2>&1 3>&- &
	local job=$!
	wait_for 10 grep -q first "$PF_DIR/out" || show "$(<"$PF_DIR/out")"
	rotate 9.9.9.42
	pinfold exec "$ID" -- touch /workspace/moved
	wait "$job"
	assert_equal "$(<"$PF_DIR/out")" "first b'ping' 200 host=rotate.test sni= at=9.9.9.41
second b'ping' 200 host=rotate.test sni= at=9.9.9.42"
}

@test "a name that is moved to a private address is not followed there, nor is it when it moves between two dials" {
	sandbox '{"allowed_hosts":["rotate.test"]}'
	expect_dial ok rotate.test 7
	local address
	for address in 10.20.0.1 127.0.0.1 169.254.169.254; do
		rotate "$address"
		expect_dial reset rotate.test 7
	done
	refute grep -q 'host tcp 7 ' "$WORLD/heard"
	rotate 9.9.9.41
	expect_dial ok rotate.test 7
}

@test "a pool of thirty addresses and a chain of nine aliases are one name" {
	sandbox '{"allowed_hosts":["pool.one.test","c1.chain.test"]}'
	expect_dials <<-END
		ok pool.one.test 7
		ok c1.chain.test 7
	END
	# The aliases on the way were never allowed themselves.
	expect_dials <<-END
		no_name c2.chain.test 7
		no_name end.chain.test 7
	END
	[ -n "$(captured 'dst host 9.9.9.40 and tcp port 7')" ]
}

@test "an allowed name that leads to a loopback, metadata, private, mapped or own address is not dialled" {
	sandbox '{"allowed_hosts":["*.bad.test"]}'
	local reasons="to-loopback:own_address to-metadata:metadata to-mapped:metadata to-nat64:metadata to-6to4:metadata
		to-ec2v6:metadata to-azure:metadata to-private:private to-lan:own_address to-host:own_address to-multicast:reserved to-zero:reserved"
	expect_dials < <(sed 's/\(to-[a-z0-9]*\):[a-z_]*/reset \1.bad.test 7\n/g' <<<"$reasons" | awk NF | awk '{$1=$1} 1')
	local denied='.event=="egress_denied" and .kind=="connect" and .reason=="address"'
	all_told() { [ "$(audit "$denied" | wc -l)" = "$(wc -w <<<"$reasons")" ]; }
	wait_for 10 all_told
	assert_equal "$(audit "$denied" | jq -r '(.name | rtrimstr(".bad.test")) + ":" + .detail' | sort | xargs)" "$(xargs -n1 <<<"$reasons" | sort | xargs)"
	refute grep -q 'host tcp' "$WORLD/heard"
	refute_captured 'dst host 169.254.169.254 or dst host fd00:ec2::254 or dst host 168.63.129.16 or dst net 64:ff9b::/96 or dst net 2002::/16 or dst net 192.168.0.0/16 or dst net 172.16.0.0/12'
	# Of several addresses only the public one.
	expect_dial ok mixed.bad.test 7
	refute grep -q 'host tcp' "$WORLD/heard"
}

@test "private addresses open by opting in, each kind as far as it was meant" {
	sandbox '{"allowed_hosts":[{"host":"to-lan.bad.test","allow_private":true},"to-host.bad.test","to-metadata.bad.test"],
		"allowed_cidrs":[{"cidr":"10.20.0.0/24","ports":8082,"allow_private":true}]}'
	probe 'print(exchange(connect("to-lan.bad.test", 8082), b""), exchange(connect("10.20.0.1", 8082), b""))'
	assert_equal "$output" "b'host-service\n' b'host-service\n'"
	expect_dials <<-END
		refused 10.20.0.1 7
		reset to-host.bad.test 7
		reset to-metadata.bad.test 7
	END
	# allow_private for everything does not reach metadata services either.
	set_policy '{"allowed_hosts":["to-metadata.bad.test","to-ec2v6.bad.test"],"allow_private":true}'
	expect_dials <<-END
		reset to-metadata.bad.test 80
		reset to-ec2v6.bad.test 80
	END
	refute_captured 'dst host 169.254.169.254 or dst host fd00:ec2::254'
}

@test "unrestricted is every public address and no other, without the denied ones" {
	sandbox '{"type":"unrestricted","denied_hosts":["secret.other.test","9.9.9.77"]}'
	expect_dials <<-END
		ok web.one.test 7
		ok 9.9.9.200 7
		ok 2600:99::1 7
		no_name secret.other.test 7
		refused 9.9.9.77 7
	END
	# Nor under the denied name at another's address.
	probe 'print(http("9.9.9.66", name="secret.other.test").split("\n")[0])'
	[[ "$output" == 403* ]] || show
	probe 'print(*[a for a in argv[1:] if dial(a, 7) == "ok"])' 10.20.0.1 192.168.7.7 169.254.169.254 100.100.100.200 fd20::1 fd00:ec2::254 fe80::1 9.9.8.1
	assert_equal "$output" ""
	expect_dials <<-END
		reset to-private.bad.test 7
		reset to-host.bad.test 7
	END
	refute grep -q "host tcp 7 " "$WORLD/heard"
	refute_captured 'dst host 169.254.169.254 or dst net 192.168.0.0/16 or dst host 100.100.100.200'
}

@test "without a policy nothing leaves: no packet, no question" {
	local policy
	for policy in '{}' '{"networking":{"type":"none"}}' '{"networking":{"type":"limited"}}' '{"network_whitelist":[]}'; do
		create_sandbox "$policy"
		expect_dials <<-END
			no_name marker-nothing.one.test 80
			refused 9.9.9.10 80
			refused 2600:9::10 80
			refused 198.18.0.7 80
		END
	done
	refute_left marker-nothing
}

@test "questions with a payload do not get out, whatever their type; HTTPS and SVCB say nothing" {
	sandbox '{"allowed_hosts":["web.one.test","*.wild.test"]}'
	probe 'long = "exfil" + "x" * 50
name = ".".join([long] * 4) + ".other.test"
print({ask(name, kind) for kind in (1, 5, 6, 10, 12, 15, 16, 28, 33, 64, 65, 255)},
	{ask(name, kind, tcp=True) for kind in (10, 16)})'
	assert_equal "$output" "{(3, 0)} {(3, 0)}"
	# An allowed name: addresses, and no other data (ECH keys would come with HTTPS).
	probe 'print({k: ask("web.one.test", k) for k in (1, 28, 16, 64, 65, 15, 10)})'
	assert_equal "$output" "{1: (0, 1), 28: (0, 1), 16: (0, 0), 64: (0, 0), 65: (0, 0), 15: (0, 0), 10: (0, 0)}"
	# Nor below a wildcard: what is too deep or too long for a host is no host, and questions are answered here.
	probe 'print(ask(".".join(["exfil"] * 12) + ".wild.test", 1), ask(".".join(["exfil" + "y" * 50] * 3) + ".wild.test", 1))
print(ask("exfil-short.wild.test", 16), ask("exfil-short.wild.test", 1))'
	assert_equal "$output" $'(3, 0) (3, 0)\n(0, 0) (0, 1)'
	refute_left exfil
}

@test "names come from the host's resolver when the file gives none" {
	echo 'nameserver 9.9.9.53' >"$PF_DIR/resolv.conf"
	create_sandbox # only for its directories; the next one is the subject
	config '{"networking":{"allowed_hosts":["web.one.test"]}}'
	new_id
	at_host unshare -m sh -c 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"' - "$PF_DIR/resolv.conf" \
		"$PINFOLD" --root "$ROOT" --store "$STORE" create "$ID" --config "$CONFIG" >/dev/null
	expect_dial ok web.one.test 7
	# What an allowed name that does not exist is like.
	set_policy '{"allowed_hosts":["gone.one.test"]}'
	expect_dial reset gone.one.test 7
	assert_audit '.event=="egress_error" and .name=="gone.one.test" and .reason=="resolve"'
}
