# The worker as a service of a real systemd (scripts/test-vm --systemd vm/worker): with its unit as it is shipped, hardened, it
# does sessions; it drains when it is stopped and goes on after it was killed.
# timeout: 550
load ../lib/common
load ../worker/lib

setup_file() {
	[ -d /run/systemd/system ] || skip "needs systemd as process 1 (scripts/test-vm --systemd)"
}

UNIT=pinfold-worker.service

setup() {
	worker_setup
	ROOT=/run/pinfold STORE=/var/lib/pinfold
	mkdir -p /opt/pinfold /etc/pinfold
	[ -e /opt/pinfold/bin ] || cp -rL "$BUILD/bin" "$BUILD/libexec" /opt/pinfold/
	(umask 077 && echo "$KEY" >/etc/pinfold/environment-key)
	echo '{"filesystem":{"size":"64M"},"resources":{"memory":"256M","pids":100},"networking":{"type":"none"}}' >/etc/pinfold/sandbox.json
	cp "$TESTS_DIR/../deploy/systemd/$UNIT" /etc/systemd/system/
}
teardown() {
	systemctl stop "$UNIT" || true
	systemctl reset-failed "$UNIT" 2>/dev/null || true
	journalctl -u "$UNIT" --no-pager -n 60 >&2 || true
	rm -rf "/etc/systemd/system/$UNIT" "/etc/systemd/system/$UNIT.d" /etc/pinfold
	worker_teardown
	rm -rf /var/lib/pinfold /run/pinfold /run/pinfold-worker
}

# Starts the service with the stub as its control plane.
start_service() {
	mkdir -p "/etc/systemd/system/$UNIT.d"
	cat >"/etc/systemd/system/$UNIT.d/test.conf" <<-END
		[Service]
		Environment=ANTHROPIC_ENVIRONMENT_ID=$ENVIRONMENT ANTHROPIC_BASE_URL=$URL
		Environment="WORKER_OPTIONS=--max-sessions 2 --max-idle 500ms --listen 127.0.0.1:9464"
		RestartSec=1
	END
	systemctl daemon-reload
	systemctl start "$UNIT"
}
# The machine is slow, and a look takes its time: looks are counted, not seconds.
until_it() { # COMMAND...
	local n
	for n in $(seq 60); do
		! "$@" || return 0
		sleep 0.5
	done
	return 1
}
answered() { # N
	stub_is "[.sessions[\"$SESSION\"].results[] | select(.missing | not)] | length >= $1"
}
done_with_it() { stub_is '.items | last | .state == "stopped"'; }

@test "as a hardened service the worker does a session, and the next item has its files" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo kept >f; id -u; cat /proc/self/comm; mount | grep -c ext4; echo "$CREDENTIALS_DIRECTORY"'),$(sh_call 'head -c 100M /dev/zero >big; ls /run/credentials; true')]" "[$(sh_call 'cat f')]")]" '{"ttl":30}'
	start_service
	until_it answered 3
	until_it done_with_it
	results | tee "$PF_DIR/results" >&2
	grep -q '^false "0\\ncat' "$PF_DIR/results"
	grep -q 'No space left' "$PF_DIR/results"
	refute grep -q 'environment-key' "$PF_DIR/results"
	assert_equal "$(tail -n 1 "$PF_DIR/results")" 'false "kept"'
	assert_no_violations
	curl -sf http://127.0.0.1:9464/healthz | grep -q '"status":"ok"'
	# What the unit takes away is away, from the worker and from what it starts.
	local pid
	pid=$(systemctl show -P MainPID "$UNIT")
	grep -q 'NoNewPrivs:.1' "/proc/$pid/status"
	grep -q 'Seccomp:.2' "/proc/$pid/status"
	refute nsenter -t "$pid" -m sh -c 'echo x >/etc/x' 2>/dev/null
	systemctl stop "$UNIT"
	assert_put_away
	systemd-analyze security --no-pager "$UNIT" | tail -n 1 >&2
}

@test "stopping the service drains it: the call is finished and posted, the sandbox put away, the item stopped" {
	new_session
	start_stub "[$(session "[$(sh_call 'touch begun; sleep 5; echo finished')]")]" '{"ttl":30}'
	start_service
	until_it stub_is '.items[0].state == "active"'
	until_it eval '[ -n "$(pids_of "$SESSION")" ]'
	sleep 3
	systemctl stop "$UNIT"
	assert_equal "$(results)" 'false "finished"'
	assert_equal "$(systemctl show -P Result "$UNIT")" success
	assert_put_away
	assert_no_violations
}

@test "kill -9 of the whole service: systemd starts it again, and the session goes on with its files" {
	new_session
	start_stub "[$(session "[$(sh_call 'echo x >>f; [ "$(wc -l <f)" -gt 1 ] || sleep 77777; cat f')]")]" '{"ttl":4}'
	start_service
	until_it eval '[ -n "$(pids_of "$SESSION")" ]'
	sleep 5
	systemctl kill --kill-whom=all -s KILL "$UNIT"
	until_it answered 1
	assert_equal "$(results)" 'false "x\nx"'
	until_it done_with_it
	assert_no_violations
}
