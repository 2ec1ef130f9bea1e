# The processes around a sandbox: what the one that reads the payload's bytes is, and what becomes of the sandbox
# when one of them dies.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() { world_setup; }
teardown() { common_teardown; }

# Done when whoever made the sandbox is not waiting any more, or a packet has come.
confined() { [ "$(status_of "$1" Seccomp)" = 2 ]; }
status_of() { awk -v k="$2:" '$1 == k {print $2}' "/proc/$1/status"; }

@test "the gate is a user that nobody else is, with one capability, no programs, no files, and one descriptor of the keeper's" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	expect_dial ok web.one.test 7
	local gate uid other
	gate=$(gate_pid)
	uid=$(status_of "$gate" Uid)
	[ "$uid" -gt 1879113727 ] || show "uid $uid"
	assert_equal "$(awk '/^(Uid|Gid)/ {print $2 == $3 && $3 == $4 && $4 == $5 && $2 == '"$uid"'}' "/proc/$gate/status" | uniq)" 1
	assert_equal "$(awk '/^Groups/ {print NF}' "/proc/$gate/status")" 1
	# CAP_NET_ADMIN, for the packet filter; nothing that could come back.
	assert_equal "$(for c in CapEff CapPrm CapInh CapBnd CapAmb; do status_of "$gate" $c; done | xargs)" \
		"0000000000001000 0000000000001000 0000000000000000 0000000000000000 0000000000000000"
	assert_equal "$(status_of "$gate" Seccomp) $(status_of "$gate" NoNewPrivs)" "2 1"
	local limits="/proc/$gate/limits"
	assert_equal "$(awk '/^Max (core|processes|locked)/ {print $(NF - 1)}' "$limits" | xargs)" "0 0 0"
	# Its descriptors: sockets, epoll, the log. Neither workspace nor lock nor cgroup files that can be written.
	local odd
	odd=$(find "/proc/$gate/fd" -type l -printf '%l\n' | grep -v -E '^(socket:|anon_inode:\[eventpoll\]|/dev/null$|pipe:)' || true)
	assert_equal "$odd" "$STORE/logs/$ID.jsonl"
	# Two sandboxes' gates are two users.
	other=$uid
	sandbox '{"allowed_hosts":["web.one.test"]}'
	wait_for 20 confined "$(gate_pid)"
	[ "$(status_of "$(gate_pid)" Uid)" != "$other" ]
}

@test "of the host's files the gate sees what resolving a name takes, all of it read-only, of its processes none" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	local gate root ns
	gate=$(gate_pid)
	# Nothing was sent yet: what is put behind the making of the box comes all the same.
	wait_for 20 confined "$gate"
	root="/proc/$gate/root"
	for ns in mnt pid; do
		[ "$(readlink "/proc/$gate/ns/$ns")" != "$(readlink "/proc/self/ns/$ns")" ] || show "$ns: the host's"
		[ "$(readlink "/proc/$gate/ns/$ns")" != "$(readlink "/proc/$(state_of .pid)/ns/$ns")" ] || show "$ns: the sandbox's"
	done
	assert_equal "$(awk '/^NSpid/ {print $NF}' "/proc/$gate/status")" 1
	assert_equal "$(find "$root/" -mindepth 1 -maxdepth 1 -printf '%f\n' | grep -v -x -E 'lib|lib64|run|mnt|nix' | sort | xargs)" \
		"cgroup dev etc proc usr var"
	assert_equal "$(find "$root/dev" "$root/var" -mindepth 1 -printf '%f %Y\n' | sort | grep -v '^run ' | xargs)" "urandom c"
	assert_equal "$(awk '$6 !~ /^ro,nosuid/ || $5 ~ /^\/(home|root|tmp|sys)/' "/proc/$gate/mountinfo")" ""
	run ! touch "$root/x" "$root/etc/x" "$root/cgroup/init/cgroup.procs" "$root/usr/x"
	[ "$(grep -c 'Read-only file system' <<<"$output")" = 4 ] || show
	# The control group is the sandbox's, without a way up; of processes there are the sandbox's.
	[ -d "$root/cgroup/init" ]
	[ "$(stat -c %i "$root/cgroup/..")" = "$(stat -c %i "$root/")" ]
	assert_equal "$(find "$root/proc/" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' | xargs)" 1
	assert_equal "$(cat "$root/proc/1/comm")" "$(cat "/proc/$(state_of .pid)/comm")"
	# And works so.
	expect_dial ok web.one.test 7
	set_policy '{"allowed_hosts":["bücher.one.test","only4.one.test"]}'
	expect_dials <<-END
		ok only4.one.test 7
		no_name web.one.test 7
	END
}

@test "a gate that fails while the box is being made: create says why, and nothing of it is left" {
	local when
	new_id
	config '{"networking":{"allowed_hosts":["web.one.test"]}}'
	# The packet filter's socket, and the gate's own: after the namespace is there and the box born in it.
	for when in 3 5; do
		status=0
		timeout 60 strace -f -qq -o "$PF_DIR/calls" -e trace=bind -e "inject=bind:error=EADDRINUSE:when=$when" \
			"$PINFOLD" --root "$ROOT" --store "$STORE" create "$ID" --config "$CONFIG" \
			>"$PF_DIR/out" 2>"$PF_DIR/stderr" || status=$?
		assert_equal "$status" 125
		grep -q "egress gate: .*Address already in use" "$PF_DIR/stderr" || show "$(<"$PF_DIR/stderr")"
		[ ! -e "$ROOT/$ID" ]
		[ ! -e "$STORE/sandboxes/$ID" ]
		assert_equal "$(find /sys/fs/cgroup -type d -name "*$ID" 2>/dev/null)" ""
	done
	pf create "$ID" --config "$CONFIG"
	assert_status 0
	pinfold destroy "$ID"
}

@test "the keeper keeps no capability over the network, and without TLS to end can start no program" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	local keeper
	keeper=$(state_of .pinfold.keeper)
	# CAP_KILL: the box's processes have ids of their own.
	assert_equal "$(status_of "$keeper" CapEff) $(status_of "$keeper" CapBnd)" "0000000000000020 0000000000000000"
	assert_equal "$(status_of "$keeper" Seccomp) $(status_of "$keeper" NoNewPrivs)" "2 1"
	# None of its sockets is one that the sandbox, or a host that it talks to, could send to.
	local inodes
	inodes=$(find "/proc/$keeper/fd" -type l -printf '%l\n' | sed -n 's/^socket:\[\(.*\)\]$/\1/p')
	local i
	for i in $inodes; do
		at_host grep -qw "$i" /proc/net/unix || show "socket $i of the keeper is no unix socket"
	done
}

@test "the gate dies: nothing leaves any more, the sandbox ends with it and says why" {
	sandbox '{"allowed_hosts":["only4.one.test"]}'
	inside true
	kill -9 "$(gate_pid)"
	stopped() { [ "$(state_of .status)" = stopped ]; }
	wait_for 10 stopped
	assert_equal "$(state_of .pinfold.stop_reason)" gate_failed
	assert_audit '.event=="stop" and .reason=="gate_failed"'
	wait_for 5 test -z "$(pids_of)"
	# And can be started again.
	pf create "$ID" --reuse
	assert_status 0
	expect_dial ok only4.one.test 7
}

@test "the keeper dies: so do the gate and pinfold-tls" {
	sandbox "{\"upstream_ca\":\"$WORLD/cert.pem\",\"allowed_hosts\":[{\"host\":\"a.cdn.test\",\"tls\":\"terminate\"}]}"
	inside curl -sS -o /dev/null -w '%{http_code}' https://a.cdn.test:8444/
	assert_equal "$output" 200
	local children
	children=$(pgrep -P "$(state_of .pinfold.keeper)" | xargs)
	[ "$(wc -w <<<"$children")" = 3 ] || show "children: $children"
	kill -9 "$(state_of .pinfold.keeper)"
	gone() { local p; for p in $children; do [ ! -e "/proc/$p" ] || return 1; done; }
	wait_for 10 gone
}

@test "a policy that cannot be set leaves the old one in force, now and after a restart" {
	sandbox '{"allowed_hosts":["web.one.test"]}'
	jq -nc '{allowed_hosts:[{host:"a.cdn.test",methods:["GET"]}]}' >"$PF_DIR/later.json"
	pf policy "$ID" set "$PF_DIR/later.json"
	assert_refused "created anew"
	assert_equal "$(pinfold policy "$ID" show | jq -c '[.revision,.gate.revision]')" "[1,1]"
	set_policy '{"allowed_hosts":["only4.one.test"]}'
	pf policy "$ID" set "$PF_DIR/later.json"
	assert_refused "created anew"
	kill -9 "$(state_of .pinfold.keeper)"
	wait_for 10 eval '[ -z "$(pids_of)" ]'
	pf create "$ID" --reuse
	assert_status 0
	expect_dials <<-END
		ok only4.one.test 7
		no_name web.one.test 7
	END
}
