# parallel-safe
# Its standard streams: pipes, files, closed ones, terminals, and --json.
load lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() { jail_setup; }
teardown() { jail_teardown; }

streams() {
	output=$(echo hello | jail -- cat)
	assert_equal "$output" hello
	output=$(jail -- sh -c 'echo out; echo err >&2' 2>/dev/null)
	assert_equal "$output" out
	output=$(jail -- sh -c 'echo out; echo err >&2' 2>&1 >/dev/null)
	assert_equal "$output" err
	output=$(jail -- sh -c 'read x || echo eof' </dev/null)
	assert_equal "$output" eof
	jail -- sh -c 'echo to-file' >"$PF_DIR/out"
	assert_equal "$(<"$PF_DIR/out")" to-file
	# An end of input is one while the command runs on.
	output=$(printf 'a\nb\n' | jail -- sh -c 'wc -l; echo then')
	assert_equal "$(xargs <<<"$output")" "2 then"
}
@test "streams are the caller's own: pipes, files, /dev/null" {
	each streams
}

closed() {
	status=0
	jail -- sh -c 'echo x 2>/dev/null; exit 3' >&- || status=$?
	[ "$status" = 3 ] || [ "$status" = 125 ]
	status=0
	jail -- true <&- || status=$?
	assert_status 0
	status=0
	jail -- sh -c 'exit 7' 2>&- || status=$?
	assert_status 7
	# The reader goes away: the command gets SIGPIPE as anywhere.
	set +o pipefail
	output=$(jail -- sh -c 'yes; echo $? >/dev/null' | head -n 2 | xargs)
	assert_equal "$output" "y y"
}
@test "closed streams, and a reader that goes away, end nobody who does not write" {
	each closed
}

through_a_pipe() {
	local sum
	sum=$(head -c 1G /dev/zero | jail -- cat | cksum)
	assert_equal "$sum" "$(head -c 1G /dev/zero | cksum)"
}
@test "1 GiB through a pipe arrives whole" {
	AS=user
	through_a_pipe
}

random_bytes() {
	head -c 20000000 /dev/urandom >"$PF_DIR/shared/data"
	assert_equal "$(jail -- cat <"$PF_DIR/shared/data" | sha256sum)" "$(sha256sum <"$PF_DIR/shared/data")"
	rm "$PF_DIR/shared/data"
}
@test "every byte passes as it is" {
	each random_bytes
}

as_json() {
	pj --json -- sh -c 'printf "a\0b\377c"; echo "ü \"q\"" >&2; exit 3'
	assert_status 3
	assert_equal "$stderr" ""
	assert_json '.exit_code == 3 and (.wall_ms > 0) and (.cpu_ms >= 0) and (.memory_peak > 0) and
		.stderr == "ü \"q\"\n" and .stdout_truncated == false and (.limit | not)'
	pj --json -- sh -c 'kill -9 $$'
	assert_status 137
	assert_json '.exit_code == 137 and .signal == 9 and (.limit | not)'
	pj --json -- sh -c 'head -c 3000000 /dev/zero | tr "\0" x'
	assert_json '.stdout_truncated and (.stdout | length) == 1048576'
	pj --json -- no-such-program
	assert_status 127
	assert_equal "$output" ""
	output=$(echo in | jail --json -- cat)
	assert_json '.stdout == "in\n"'
}
@test "--json is one object: exit code, signal, limit, times, memory, streams" {
	each as_json
}

# What a program does on a terminal that is ROWS x COLUMNS: runs under a pty of python's.
on_terminal() { # INPUT ARGUMENT...
	local input=$1
	shift
	(IN=/ as_with_pty "$input" "$@")
}
as_with_pty() {
	local who=() input=$1
	shift
	[ "$AS" = root ] || who=(setpriv --reuid "$JAIL_UID" --regid "$JAIL_UID" --clear-groups --)
	cd "$(tree)" || return
	timeout 60 "${who[@]}" env -i HOME="$(home)" PATH=/usr/bin:/bin TERM=xterm /usr/bin/python3 \
		- "$input" "$JAIL_BIN/pinfold-jail" "$@" 3>&- <<-'END'
		import fcntl, os, pty, re, select, struct, sys, termios, time
		script, argv = sys.argv[1], sys.argv[2:]
		pid, fd = pty.fork()
		if pid == 0:
		    time.sleep(0.05)
		    os.execv(argv[0], argv)
		def size(rows, cols):
		    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, cols, 0, 0))
		size(33, 111)
		# script: "TEXT=>KEYS" separated by ";;": when TEXT is seen, KEYS are typed; "@ROWSxCOLS" resizes.
		steps = [s.split("=>", 1) for s in script.split(";;") if s]
		seen = b""
		end = time.monotonic() + 40
		while time.monotonic() < end:
		    if steps and re.search(steps[0][0].encode(), seen):
		        keys = steps.pop(0)[1]
		        seen = b""
		        m = re.fullmatch(r"@(\d+)x(\d+)", keys)
		        if m:
		            size(int(m[1]), int(m[2]))
		        else:
		            os.write(fd, keys.encode().decode("unicode_escape").encode())
		    if not select.select([fd], [], [], 0.2)[0]:
		        continue
		    try:
		        data = os.read(fd, 65536)
		    except OSError:
		        break
		    if not data:
		        break
		    seen += data
		    os.write(1, data)
		else:
		    os.kill(pid, 9)
		    print("TIMED OUT")
		sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
	END
}

terminals() {
	status=0
	output=$(as_with_pty "" -- sh -c 'tty; stty size; ps -o sid= -p $$; test -t 0 && test -t 1 && echo terminal') || status=$?
	assert_status 0
	assert_out "33 111"
	assert_out terminal
	# Not the caller's: what is typed into it by the command (TIOCSTI) is not typed at the caller's shell.
	assert_out /dev/console
	output=$(as_with_pty 'ready=>hello\r;;got=>\x04' -- sh -c 'echo ready; read x; echo "got $x"; cat; echo end')
	assert_out "got hello"
	assert_out end
	status=0
	output=$(as_with_pty 'ready=>\x03' -- sh -c 'trap "echo interrupted; exit 8" INT; echo ready; sleep 30 & wait') || status=$?
	assert_out interrupted
	assert_status 8
	output=$(as_with_pty 'ready=>@20x70' -- sh -c 'trap "stty size; exit" WINCH; echo ready; while :; do sleep 0.05; done')
	assert_out "20 70"
}
@test "on a terminal it has one of its own: size, keys, ^C, ^D, a resize" {
	each terminals
}

full_screen() {
	printf '%s\n' line-{1..200} >"$(tree)/text"
	[ "$AS" = root ] || chown "$JAIL_UID" "$(tree)/text"
	if command -v vim >/dev/null; then
		status=0
		output=$(as_with_pty '' --rw . -- vim -u NONE -N -c 'normal Ghello' -c 'normal GoADDED' -c wq text) || status=$?
		assert_status 0
		assert_equal "$(tail -n 1 "$(tree)/text")" ADDED
	fi
	status=0
	output=$(as_with_pty 'line-20=>G;;line-200=>q' -- less text) || status=$?
	assert_status 0
	assert_out line-200
	rm -f "$(tree)"/.*.sw? "$(tree)/text"
}
@test "vim and less work in it" {
	need less
	each full_screen
}

shell_jobs() {
	status=0
	output=$(as_with_pty '[\$#] =>PS1=\x22pro\x22\x22mpt> \x22\r;;prompt> =>sh -c \x27echo RUN\x22\x22NING; exec sleep 50\x27\r;;RUNNING=>\x1a;;Stopped=>jobs\r;;Stopped=>kill -9 %1; sleep 1; exit 6\rexit 6\r' \
		-- bash --norc -i) || status=$?
	assert_out "Stopped"
	[ "$status" = 6 ] || show "status"
}
@test "a shell in it has job control" {
	each shell_jobs
}

tty_options() {
	output=$(as_with_pty '' --no-tty -- sh -c 'tty </dev/console 2>&1; ls -l /proc/self/fd/0')
	refute_out "-> /dev/console"
	output=$(jail --tty -- sh -c 'tty; test -t 1 && echo terminal' </dev/null | tr -d '\r')
	assert_out terminal
}
@test "--no-tty leaves the caller's, --tty makes one even without" {
	each tty_options
}
