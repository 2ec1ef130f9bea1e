# parallel-safe
# Running commands in a sandbox: what goes in, what comes out, how it ends.
load ../lib/common

setup() {
	need_root
	common_setup
	create_sandbox
}
teardown() {
	[ -z "${CLI:-}" ] || kill -9 "$CLI" 2>/dev/null || true
	common_teardown
}

# Starts pinfold exec in the background; its pid is CLI, its outputs go to $PF_DIR/out and err.
start_exec() { # EXEC-ARGUMENT...
	"$PINFOLD" --root "$ROOT" --store "$STORE" exec "$ID" "$@" </dev/null >"$PF_DIR/out" 2>"$PF_DIR/err" &
	CLI=$!
}

# Waits for start_exec's pinfold and sets status.
end_exec() {
	status=0
	wait "$CLI" || status=$?
	CLI=
}

only_init_lives() { [ "$(pids_of | wc -w)" = 1 ]; }

@test "the exit code is the command's own" {
	local n
	for n in 0 1 3 42 124 125 126 255; do
		inside sh -c "exit $n"
		assert_status "$n"
		assert_equal "$stderr" ""
	done
}

@test "a command killed by a signal ends with 128 and the signal, and the JSON names it" {
	inside sh -c 'kill -TERM $$'
	assert_status 143
	pf exec "$ID" --json -- sh -c 'kill -SEGV $$'
	assert_status 139
	assert_json '.signal == 11 and .exit_code == 139'
}

@test "a script without its interpreter cannot be executed, and the message says so" {
	inside sh -c 'printf "#!/no/such/sh\n" >/tmp/s && chmod 755 /tmp/s'
	inside /tmp/s
	assert_status 126
	assert_err interpreter
}

@test "what a command prints comes out as it is, both streams apart" {
	inside sh -c 'echo out; echo err >&2'
	assert_equal "$output" out
	assert_equal "$stderr" err
}

@test "binary input goes through unchanged" {
	head -c 5000000 /dev/urandom >"$PF_DIR/in"
	pinfold exec "$ID" -- sh -c 'cat >/workspace/in; sha256sum </workspace/in' <"$PF_DIR/in" >"$PF_DIR/out"
	assert_equal "$(cat "$PF_DIR/out")" "$(sha256sum <"$PF_DIR/in")"
	# The end of the input arrives.
	run timeout 10 "$PINFOLD" --root "$ROOT" --store "$STORE" exec "$ID" -- cat </dev/null
	assert_status 0
}

@test "256 MiB of binary output reach a slow reader complete" {
	local got wanted
	head -c 16777216 /dev/urandom >"$PF_DIR/block"
	pinfold exec "$ID" -- sh -c 'cat >/workspace/block' <"$PF_DIR/block"
	got=$(pinfold exec "$ID" -- sh -c 'cd /workspace; set -- block block block block; cat $* $* $* $*' |
		(sleep 1 && sha256sum))
	wanted=$(for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat "$PF_DIR/block"; done | sha256sum)
	assert_equal "$got" "$wanted"
}

# Peak resident memory, in KiB, of pinfold while it runs the exec: of its own while there is output, and of all
# that it was at its end.
peak_of() { # EXEC-ARGUMENT...
	python3 - "$PINFOLD" --root "$ROOT" --store "$STORE" exec "$ID" "$@" <<'PY'
import resource, subprocess, sys
p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
while p.stdout.read(1 << 20):
    pass
p.wait()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
PY
}

@test "1 GiB of output does not grow pinfold's memory, with --json neither" {
	need python3
	local small large json
	small=$(peak_of -- echo)
	large=$(peak_of -- head -c 1073741824 /dev/zero)
	[ "$large" -lt $((small + 4096)) ] || show "peak $large KiB, $small for no output"
	# What is kept is 1 MiB; it becomes text, JSON, and a copy on the way.
	json=$(peak_of --json -- sh -c 'yes | head -c 1073741824')
	[ "$json" -lt $((small + 24576)) ] || show "peak $json KiB with --json, $small for no output"
}

@test "--json bounds what it keeps and says that it cut" {
	pf exec "$ID" --json --output-max 1000 -- sh -c 'head -c 5000 /dev/zero | tr "\0" x; echo short >&2'
	assert_status 0
	assert_json '(.stdout | length) == 1000 and .stdout_truncated and (.stderr_truncated | not) and .stderr == "short\n"'
	pf exec "$ID" --json -- echo whole
	assert_json '.stdout == "whole\n" and (.stdout_truncated | not)'
}

@test "--json is valid JSON whatever the bytes, and flags what is not UTF-8" {
	pf exec "$ID" --json -- printf 'a\377b\000c\355\240\200d\303\251\n'
	assert_status 0
	assert_json '.stdout_not_utf8 and (.stdout | startswith("a")) and (.stdout | endswith("dé\n")) and (has("stderr_not_utf8") | not)'
	pf exec "$ID" --json -- printf 'plain é\n'
	assert_json '.stdout == "plain é\n" and (has("stdout_not_utf8") | not)'
}

@test "--json reports code, times and peak memory" {
	pf exec "$ID" --json -- sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 7'
	assert_status 7
	assert_json '.exit_code == 7 and (has("limit") | not) and .wall_ms > 0 and .cpu_ms > 0 and .memory_peak > 100000'
}

@test "--user takes names and numbers of the sandbox, with their groups" {
	pf exec "$ID" --user agent -- id -un
	assert_equal "$output" agent
	pf exec "$ID" -u 1234:5678 -- sh -c 'id -u; id -g; id -G; cat /proc/self/gid_map >/dev/null; echo $HOME'
	assert_equal "$output" $'1234\n5678\n5678\n/'
	inside sh -c 'echo "extra:x:777:agent" >>/etc/group'
	pf exec "$ID" -u agent -- id -G
	assert_out 777
	pf exec "$ID" -u root -- id -u
	assert_equal "$output" 0
	# The largest of its ids, and not one more.
	pf exec "$ID" -u 65535 -- id -u
	assert_equal "$output" 65535
	pf exec "$ID" -u 65536 -- id -u
	assert_refused 65536
	pf exec "$ID" -u 0:65536 -- id -u
	assert_refused 65536
}

@test "a user that is not exactly one never becomes root" {
	local u
	for u in -1 4294967296 18446744073709551616 0x0 "" 1000: :1000 $'root\n' " 1" "1 " 00 01 +0 0.0 "root:" "agent:nosuch" nosuch; do
		pf exec "$ID" "--user=$u" -- id -u
		if [ "$status" = 0 ]; then
			# 00 and 01, if taken, are the numbers they look like.
			[[ "$u" =~ ^[0-9]+$ ]] || show "'$u' was taken"
			assert_equal "$output" "$((10#$u))"
		else
			assert_status 125
			[ -n "$stderr" ]
		fi
	done
}

@test "--cwd is where it starts; one that is not there is an error that names it" {
	pf exec "$ID" --cwd /usr/bin -- pwd
	assert_equal "$output" /usr/bin
	pf exec "$ID" --cwd /no/such/dir -- pwd
	assert_refused /no/such/dir
	pf exec "$ID" --cwd /etc/passwd -- pwd
	assert_refused /etc/passwd
	pf exec "$ID" -- pwd
	assert_equal "$output" /workspace
}

@test "--env adds and replaces, with spaces, newlines and = in the value" {
	pf exec "$ID" --env "A=b c=d" -e $'B=1\n2' -e PATH=/usr/bin -e EMPTY= -- sh -c 'echo "$A|$B|$PATH|${EMPTY-unset}"'
	assert_equal "$output" $'b c=d|1\n2|/usr/bin|'
	pf exec "$ID" --env NOTHING -- true
	assert_refused NOTHING
	pf exec "$ID" --env =x -- true
	assert_refused =x
}

@test "options may stand before the id and after it, and what follows the command is its own" {
	pf exec --env A=1 "$ID" --env B=2 sh -c 'echo $A $B $*' x --user root -t
	assert_equal "$output" "1 2 --user root -t"
}

@test "signals to pinfold reach the command" {
	local sig
	for sig in TERM INT HUP USR1; do
		start_exec -- sh -c "trap 'echo got $sig; exit 9' $sig; echo ready; while :; do sleep 0.05; done"
		wait_for 10 grep -q ready "$PF_DIR/out"
		kill "-$sig" "$CLI"
		end_exec
		assert_equal "$sig $status $(tail -1 "$PF_DIR/out")" "$sig 9 got $sig"
	done
}

@test "-t gives a terminal of the right size, and follows when it changes" {
	need python3
	run python3 - "$PINFOLD" --root "$ROOT" --store "$STORE" exec -t "$ID" -- \
		sh -c 'tty; stty size; trap "stty size; exit 5" WINCH; echo ready; while :; do sleep 0.05; done' <<'PY'
import fcntl, os, pty, select, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    time.sleep(0.3)  # the size is set by then
    os.execv(sys.argv[1], sys.argv[1:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
out, resized, end = b"", False, time.time() + 20
while time.time() < end:
    if select.select([fd], [], [], 0.1)[0]:
        try:
            chunk = os.read(fd, 65536)
        except OSError:
            break
        if not chunk:
            break
        out += chunk
    if b"ready" in out and not resized:
        resized = True
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 77, 0, 0))
status = os.waitpid(pid, 0)[1]
sys.stdout.write(out.decode())
sys.exit(os.waitstatus_to_exitcode(status) & 255)
PY
	assert_status 5
	assert_out /dev/pts/
	assert_out "33 111"
	assert_out "20 77"
}

@test "-t puts the caller's terminal back as it was, also when the command dies" {
	need script
	run script -qec "stty -a >'$PF_DIR/before'; '$PINFOLD' --root '$ROOT' --store '$STORE' exec -t '$ID' -- sh -c 'stty raw -echo; kill -9 \$\$'; stty -a >'$PF_DIR/after'" /dev/null </dev/null
	[ -s "$PF_DIR/before" ]
	cmp "$PF_DIR/before" "$PF_DIR/after"
}

@test "a terminal of one exec is its controlling terminal: ^C interrupts" {
	need python3
	run timeout 30 python3 - "$PINFOLD" --root "$ROOT" --store "$STORE" exec -t "$ID" -- sh -c 'echo ready; sleep 20' <<'PY'
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
out = b""
while b"ready" not in out:
    out += os.read(fd, 4096)
os.write(fd, b"\x03")
try:
    while os.read(fd, 4096):
        pass
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
PY
	assert_status 130
}

@test "--timeout ends the whole tree, also what has left the session, and the sandbox lives" {
	pf exec "$ID" --timeout 2s -- sh -c 'setsid sh -c "sleep 301 & sleep 302" & (trap "" TERM; sleep 303) & sleep 304'
	assert_status 124
	assert_err "timed out"
	wait_for 5 only_init_lives
	pf exec "$ID" --json --timeout 2s -- sleep 300
	assert_status 124
	assert_json '.limit == "timeout" and .exit_code == 124 and .wall_ms < 20000'
	inside echo alive
	assert_equal "$output" alive
}

@test "pinfold killed with -9 takes its command and all that came from it along" {
	start_exec -- sh -c 'setsid sleep 311 & sleep 312 & echo ready; sleep 313'
	wait_for 10 grep -q ready "$PF_DIR/out"
	kill -9 "$CLI"
	end_exec
	wait_for 5 only_init_lives
	inside echo alive
	assert_equal "$output" alive
}

@test "what a command leaves in the background lives on, and ends with the sandbox" {
	pf exec "$ID" -- sh -c 'setsid sleep 321 >/dev/null 2>&1 & echo started'
	assert_status 0
	inside true
	assert_equal "$(pids_of | wc -w)" 2
	local pids
	pids=$(pids_of)
	pinfold destroy "$ID"
	for pid in $pids; do wait_for 5 eval "[ ! -d /proc/$pid ]"; done
}

@test "a background process that holds the output open does not keep exec --json waiting" {
	pf exec "$ID" --json --timeout 20s -- sh -c 'sleep 300 & echo started'
	assert_status 0
	assert_json '.stdout == "started\n"'
}

@test "a command may start one hundred others at once, and many execs run beside each other" {
	local i n=0 pids=()
	for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
		pinfold exec "$ID" -- sh -c "sleep 0.2; exit $i" &
		pids+=($!)
	done
	i=0
	for pid in "${pids[@]}"; do
		i=$((i + 1))
		status=0
		wait "$pid" || status=$?
		assert_status "$i"
	done
	inside sh -c 'for i in $(seq 100); do sleep 0.1 & done; wait; echo done'
	assert_equal "$output" done
	assert_equal "$(find /sys/fs/cgroup -type d -path "*/pinfold/*$ID/x*")" ""
}

@test "stdin closed by the caller is no one else's descriptor" {
	cat >"$PF_DIR/fds" <<'SH'
readlink /proc/self/fd/0
n=3
while [ $n -lt 64 ]; do [ -L /proc/self/fd/$n ] && echo $n; n=$((n + 1)); done
true
SH
	run --separate-stderr bash -c "'$PINFOLD' --root '$ROOT' --store '$STORE' exec '$ID' -- sh -c '$(cat "$PF_DIR/fds")' <&-"
	assert_status 0
	assert_equal "$output" /dev/null
}

@test "a reader that goes away ends the command by SIGPIPE, and pinfold with it" {
	run timeout 20 bash -c "'$PINFOLD' --root '$ROOT' --store '$STORE' exec '$ID' -- yes | head -1"
	assert_status 0
	assert_equal "$output" y
	wait_for 5 only_init_lives
}
