# The host that the gate dials from: with both families, with one, and with another resolver from one moment to the
# next.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() { world_setup; }
teardown() {
	[ ! -s "${PF_DIR:-}/dns.pid" ] || kill "$(<"$PF_DIR/dns.pid")"
	common_teardown
	rm -rf "${ETC:-}"
	[ -z "${WORLD:-}" ] || {
		at_host ip addr replace 9.9.8.1/24 dev up0
		at_host ip route replace default via 9.9.8.254
		at_host ip -6 addr replace 2600:8::1/64 dev up0 nodad
		at_host ip -6 route replace default via 2600:8::fe
	}
}

both='{"allowed_hosts":["web.one.test","only4.one.test","only6.one.test"]}'

@test "a host with both families reaches names of either, and of both, whichever the client asks for" {
	sandbox "$both"
	local family
	for family in any 4 6; do
		expect_dials <<-END
			ok web.one.test 7 $family
			ok only4.one.test 7 $family
			ok only6.one.test 7 $family
		END
	done
}

@test "a host without IPv6 reaches what has IPv4, also for clients that ask for IPv6, and says at once of the rest why not" {
	at_host ip -6 route del default
	at_host ip -6 addr del 2600:8::1/64 dev up0
	sandbox "$both"
	local family
	for family in any 4 6; do
		expect_dials <<-END
			ok web.one.test 7 $family
			ok only4.one.test 7 $family
			reset only6.one.test 7 $family
		END
	done
	assert_audit '.event=="egress_error" and .name=="only6.one.test" and .reason=="connect" and .detail=="Network is unreachable"'
}

@test "a host without IPv4 reaches what has IPv6, with a resolver that it reaches over IPv6" {
	at_host ip route del default
	at_host ip addr del 9.9.8.1/24 dev up0
	create_sandbox "$(jq -nc --argjson n "$both" '{networking:($n + {resolver:"2600:8::fe"})}')"
	local family
	for family in any 4 6; do
		expect_dials <<-END
			ok web.one.test 7 $family
			ok only6.one.test 7 $family
			reset only4.one.test 7 $family
		END
	done
	assert_audit '.event=="egress_error" and .name=="only4.one.test" and .reason=="connect"'
}

@test "a host that loses a family while a sandbox runs goes on with the other" {
	sandbox "$both"
	expect_dial ok web.one.test 7 6
	at_host ip -6 route del default
	expect_dials <<-END
		ok web.one.test 7 6
		ok web.one.test 7 4
	END
}

@test "the host's resolv.conf is read again when it has changed, in place or replaced" {
	# In memory: of thousands of small files a disk makes seconds.
	ETC=$(mktemp -d /dev/shm/pinfold-etc.XXXXXX)
	cp -a /etc/. "$ETC/"
	rm -f "$ETC/resolv.conf"
	# A resolver of this host's own, which knows better.
	at_host dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --listen-address=127.0.0.9 --bind-interfaces \
		--user=root --pid-file="$PF_DIR/dns.pid" --host-record=web.one.test,9.9.9.77 --host-record=a.cdn.test,9.9.9.78 \
		</dev/null >/dev/null 2>&1 3>&- &
	wait_for 10 test -s "$PF_DIR/dns.pid"
	echo 'nameserver 127.0.0.9' >"$ETC/resolv.conf"
	create_sandbox # only for its directories; the next one is the subject
	config '{"networking":{"allowed_hosts":["web.one.test","*.cdn.test"]}}'
	new_id
	at_host unshare -m sh -c 'mount --bind "$1" /etc && shift && exec "$@"' - "$ETC" \
		"$PINFOLD" --root "$ROOT" --store "$STORE" create "$ID" --config "$CONFIG" >/dev/null
	expect_dial ok web.one.test 7
	assert_audit '.kind=="connect" and .name=="web.one.test" and .addr=="9.9.9.77"'
	# Each on a name that is not remembered; the file is looked at every two seconds.
	echo 'nameserver 9.9.9.53' >"$ETC/resolv.conf"
	sleep 2
	expect_dial ok b.cdn.test 7
	assert_audit '.kind=="connect" and .name=="b.cdn.test" and .addr=="9.9.9.20"'
	echo 'nameserver 127.0.0.9' >"$ETC/new"
	mv "$ETC/new" "$ETC/resolv.conf"
	sleep 2
	expect_dial ok a.cdn.test 7
	assert_audit '.kind=="connect" and .name=="a.cdn.test" and .addr=="9.9.9.78"'
}
