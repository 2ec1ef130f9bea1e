# parallel-safe
# G1: the runtime's own binary and descriptors. Code inside, as the sandbox's root, against whoever joins it.
load ../lib/common

setup() {
	need_root
	common_setup
}
teardown() { common_teardown; }

@test "a process that joins cannot be traced, nor its memory, environment, root or descriptors reached" {
	create_sandbox
	give_helper joinspy
	export PF_SECRET="secret-$$-$RANDOM"
	pinfold exec "$ID" -- /tmp/joinspy 5 "$PF_SECRET" /usr/bin/true >"$PF_DIR/spy" 2>&1 &
	local spy=$! n=0
	wait_for 10 grep -q ready "$PF_DIR/spy"
	while kill -0 "$spy" 2>/dev/null; do
		timeout 20 "$PINFOLD" --root "$ROOT" --store "$STORE" exec "$ID" -- /usr/bin/true || show "exec under watch failed"
		n=$((n + 1))
	done
	status=0
	wait "$spy" || status=$?
	output=$(head -20 "$PF_DIR/spy")
	assert_status 0
	refute_out VIOLATION
	# It did see them, at least when the machine let it look in time.
	[ "$(sed -n 's/^seen //p' "$PF_DIR/spy")" -ge 1 ]
}

@test "the host's binary cannot be overwritten by way of /proc/PID/exe (CVE-2019-5736)" {
	create_sandbox
	# The command is the joiner's own file: it follows a log, which is for ever, and another takes hold of it. Whether
	# that one may write is said before whether the file is run just now. Nothing is written, should it be let. (Until
	# it has exec'ed the joiner has that command line as well, and does not show its file.)
	inside sh -c 'mkdir -p /tmp/store/logs && : >/tmp/store/logs/x.jsonl'
	# shellcheck disable=SC2016
	pinfold exec "$ID" -- sh -c 'p=
		until [ -n "$p" ]; do
			for d in /proc/[0-9]*; do
				[ $d = /proc/$$ ] || { grep -q follow $d/cmdline && [ -e $d/exe ] && p=$d; }
			done
			sleep 0.05
		done
		exec 5<$p/exe || { echo failed; exit 1; }
		readlink $p/exe
		# (A redirection that fails for ":" would end the shell.)
		true >>/proc/self/fd/5 && echo opened
		kill ${p#/proc/}' >"$PF_DIR/writer" 2>&1 &
	local writer=$!
	pf exec "$ID" --timeout 60s -- /proc/self/exe --store /tmp/store logs --follow x
	wait "$writer" || true
	status=0 output=$(<"$PF_DIR/writer")
	assert_out pinfold
	assert_out "Permission denied"
	refute_out opened
	# And process 1's program is sealed.
	inside sh -c 'echo x >>/proc/1/exe'
	[ "$status" != 0 ]
	inside sh -c 'chmod 777 /proc/1/exe'
	[ "$status" != 0 ]
}

@test "process 1 cannot be traced, read or stopped from inside, by root either" {
	create_sandbox
	local user
	for user in 0 1000; do
		pf exec "$ID" --user "$user" -- /usr/bin/python3 -c 'import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
print(libc.ptrace(16, 1, 0, 0), libc.ptrace(0x4206, 1, 0, 0))
for f in "mem", "environ", "maps":
    try: open("/proc/1/" + f, "rb").read(1); print(f)
    except OSError: pass
try: os.kill(1, 19)
except OSError: pass'
		assert_status 0
		assert_equal "$output" "-1 -1"
	done
	# It still does what it is told to.
	inside sh -c 'kill -TERM 1 && sleep 5 || true'
	wait_for 10 ended
}
ended() { pf state "$ID" && [ "$(jq -r .status <<<"$output")" = stopped ]; }

@test "no working directory leads out by a descriptor (CVE-2024-21626)" {
	create_sandbox
	local n
	for n in 3 4 5 6 7 8 9 10 11 12 13 14 15 20; do
		pf exec "$ID" --cwd "/proc/self/fd/$n" -- sh -c 'pwd; ls'
		assert_status 125
		assert_equal "$output" ""
	done
	for n in 3 4 5 6 7 8 9 10; do
		inside ln -sfn "/proc/self/fd/$n" /workspace/link
		pf exec "$ID" --cwd /workspace/link -- pwd
		assert_status 125
	done
	pf exec "$ID" --cwd /proc/1/root -- pwd
	[ "$status" != 0 ] || assert_equal "$output" /
	pf exec "$ID" --cwd /proc/1/cwd -- pwd
	[ "$status" != 0 ] || [[ "$output" != *unreachable* ]]
	create_with_cwd() {
		config "{\"workdir\":\"/proc/self/fd/$1\"}"
		new_id
		pf create "$ID" --config "$CONFIG"
	}
	for n in 3 4 5 6 7 8 9 10 11 12; do
		create_with_cwd "$n"
		assert_status 125
		assert_gone "$ID"
	done
}

@test "a command path by way of a descriptor or another process leads nowhere outside" {
	create_sandbox
	local p
	for p in /proc/self/fd/3 /proc/self/fd/4 /proc/self/fd/5 /proc/self/fd/6; do
		inside "$p" --version
		[[ "$output" != *"pinfold version"* ]] || show "$p ran the host's pinfold"
		[ "$status" -ge 125 ]
	done
}

@test "the joining program is nothing more inside than a program" {
	create_sandbox
	# Until it has become the command the joiner is the host's file. As a command that is a program like any other,
	# with the sandbox's own rights: it finds no sandboxes, makes none, and cannot be written.
	inside /proc/self/exe list --quiet
	assert_equal "$output" ""
	inside /proc/self/exe create other
	[ "$status" != 0 ]
	inside sh -c 'printf "#!/proc/self/exe\n" >/tmp/destroy; chmod 755 /tmp/destroy'
	inside /tmp/destroy "$ID"
	[ "$status" != 0 ]
	inside /proc/self/exe destroy "$ID"
	pf state "$ID"
	assert_json '.status == "running"'
}

@test "what exec is given does not come from places that the sandbox can write" {
	create_sandbox
	# All that a join depends on is outside of it.
	inside sh -c 'ls -d /run/pinfold /var/lib/pinfold 2>/dev/null; find / -xdev \( -name "*.bpf" -o -name control -o -name state.json -o -name config.json \) -path "*pinfold*" 2>/dev/null'
	assert_equal "$output" ""
	inside sh -c 'rm -rf /etc/* /workspace/* /tmp /run /var 2>/dev/null; true'
	inside grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/self/status
	assert_equal "$output" $'CapBnd:\t00000000800004fb\nNoNewPrivs:\t1\nSeccomp:\t2'
}

@test "the keeper and pinfold are not visible inside" {
	create_sandbox
	inside sh -c 'cat /proc/[0-9]*/comm | sort -u | xargs'
	refute_out keeper
	inside sh -c 'kill -0 '"$(state_of .pinfold.keeper)"
	[ "$status" != 0 ]
}

@test "an id is a name: none becomes a path of a group, a file or a lock" {
	local id
	config
	for id in .. ../../x x/../y /abs '' . $'a\nb' 'a b' '*' "$(printf 'a%.0s' {1..300})"; do
		pf create --config "$CONFIG" -- "$id"
		assert_status 125
		pf destroy -- "$id"
		assert_status 125
		pf exec -- "$id" true
		assert_status 125
	done
	assert_equal "$(find "$ROOT" -mindepth 1 ! -path "$ROOT/.*"; find "$ROOT/.locks" "$STORE/sandboxes" -mindepth 1 2>/dev/null)" ""
}
