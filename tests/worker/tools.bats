# The tools' words and limits, and that nothing of the platform is inside.
# parallel-safe
# timeout: 200
load ../lib/common
load lib

setup() { worker_setup; }
teardown() { worker_teardown; }

# Adds a call and what its result must be: call NAME INPUT true|false TEXT
calls=() expected=()
call() {
	calls+=("$(jq -cn --arg n "$1" --argjson i "$2" '{name: $n, input: $i}')")
	expected+=("$3 $(jq -n --arg t "$4" '$t')")
}

run_calls() { # [WORKER OPTION...]
	new_session
	start_stub "[$(session "$(printf '%s\n' "${calls[@]}" | jq -cs .)")]"
	run_worker "$@"
	assert_equal "$(results)" "$(printf '%s\n' "${expected[@]}")"
	assert_no_violations
	assert_put_away
}

@test "bash: what persists, what is kept, what ends it" {
	call bash '{"command":"cd /tmp; X=5; f() { echo f; }"}' false '(no output)'
	call bash '{"command":"pwd; echo $X; f"}' false $'/tmp\n5\nf'
	call bash '{"command":"echo out; echo err >&2; exit_with() { return 3; }; exit_with"}' true $'out\nerr'
	call bash '{"command":"false"}' true 'exit 1'
	call bash '{"command":"cat; read x; echo \"[$x]\""}' false '[]'
	call bash '{"command":"printf \"\\033[31mred\\033[0m\\n\\n\\n\""}' false red
	call bash '{"command":"sleep 30","timeout_ms":400}' true 'bash: bash command timed out after 400ms'
	call bash '{"command":"echo \"$X\"; pwd"}' false $'\n/workspace'
	call bash '{"command":"exit 3"}' true 'bash: bash session terminated'
	call bash '{"restart":true}' false 'bash session restarted'
	call bash '{}' true 'bash: command is required'
	call bash '{"command":"echo \"unbalanced","timeout_ms":400}' true 'bash: bash command timed out after 400ms'
	# Nothing of the worker's own can be opened through the shell's parent: not the file that its log may be.
	call bash '{"command":"readlink /proc/$PPID/fd/2 | cut -d: -f1"}' false pipe
	call bash '{"command":"kill -9 $PPID; sleep 5"}' true 'bash: bash session terminated'
	call bash '{"command":"echo $TERM; tty; cat /proc/self/status | grep -c \"^NoNewPrivs:.1\""}' false $'dumb\nnot a tty\n1'
	call bash '{"command":"head -c 300000 /dev/zero | tr \"\\\\0\" x | wc -c; printf ü | cut -b1"}' false $'300000\n\xef\xbf\xbd'
	run_calls
}

@test "bash: of much output the end is kept, and said so" {
	call bash '{"command":"seq 1 100000"}' false ""
	new_session
	start_stub "[$(session "[${calls[0]}]")]"
	run_worker
	local text
	text=$(stub_says ".sessions[\"$SESSION\"].results[0].text")
	[ "$(head -n 1 <<<"$text")" = "[output truncated]" ]
	[ "$(tail -n 1 <<<"$text")" = 100000 ]
	[ "${#text}" -gt 102000 ] && [ "${#text}" -lt 102450 ]
}

@test "read, write and edit: words, limits, modes, and where they may" {
	call write '{"file_path":"a/b/c.txt","content":"one\ntwo\nthree\n"}' false 'wrote 14 bytes to a/b/c.txt'
	call bash '{"command":"stat -c %a a a/b a/b/c.txt; ls -A a/b"}' false $'700\n700\n600\nc.txt'
	call read '{"file_path":"a/b/c.txt"}' false $'one\ntwo\nthree\n'
	call read '{"file_path":"/workspace/a/b/c.txt","view_range":[2,2]}' false 'two'
	call read '{"file_path":"a/b/c.txt","view_range":[2,-1]}' false $'two\nthree\n'
	call read '{"file_path":"a/b/c.txt","view_range":[2]}' true 'read: view_range must be [start_line, end_line]'
	call read '{"file_path":"none"}' true 'read: none: no such file or directory'
	call read '{"file_path":"a"}' true 'read: a is not a regular file'
	call read '{}' true 'read: file_path is required'
	call read '{"file_path":"/etc/passwd"}' true "path \"/etc/passwd\" is outside the session's working directory"
	call read '{"file_path":"../etc/passwd"}' true "path \"../etc/passwd\" is outside the session's working directory"
	call bash '{"command":"ln -s /etc out; ln -s loop loop; chmod 755 a/b/c.txt; mkfifo pipe; seq 1 60000 >big"}' false '(no output)'
	call write '{"file_path":"out/x","content":"x"}' true "path \"out/x\" is outside the session's working directory"
	call read '{"file_path":"loop"}' true 'path "loop": too many levels of symbolic links'
	call read '{"file_path":"pipe"}' true 'read: pipe is not a regular file'
	call read '{"file_path":"big"}' true 'read: big is 348894 bytes, exceeds 262144-byte limit. Use the view_range parameter to read specific line ranges, e.g. view_range: [1, 500].'
	call read '{"file_path":"big","view_range":[59999,0]}' false $'59999\n60000\n'
	call read '{"file_path":"big","view_range":[1,60000]}' true 'read: view_range [1, 60000] of big exceeds 262144-byte limit. Narrow the view_range to read a smaller portion.'
	call edit '{"file_path":"a/b/c.txt","old_string":"two","new_string":"2 & $1"}' false 'edited a/b/c.txt (1 replacement(s))'
	call bash '{"command":"cat a/b/c.txt; stat -c %a a/b/c.txt"}' false $'one\n2 & $1\nthree\n755'
	call edit '{"file_path":"a/b/c.txt","old_string":"e","new_string":"E"}' true 'edit: old_string appears 3 times in a/b/c.txt (must be unique)'
	call edit '{"file_path":"a/b/c.txt","old_string":"e","new_string":"E","replace_all":true}' false 'edited a/b/c.txt (3 replacement(s))'
	call edit '{"file_path":"a/b/c.txt","old_string":"nowhere","new_string":""}' true 'edit: old_string not found in a/b/c.txt'
	call edit '{"file_path":"a/b/c.txt","old_string":"","new_string":""}' true 'edit: old_string is required'
	call write '{"file_path":"nul","content":"a\u0000b"}' false 'wrote 3 bytes to nul'
	call read '{"file_path":"nul"}' false $'a\x01b'
	expected[-1]='false "a\u0000b"'
	run_calls
}

@test "glob and grep: patterns, order, what is passed over" {
	call bash '{"command":"mkdir -p src/deep .git node_modules .hidden; for f in src/a.c src/deep/b.c src/c.h top.c .git/x.c node_modules/y.c .hidden/z.c; do echo \"int needle$((i++)) = 1;\" >$f; done; touch -d 2020-01-01 top.c; touch -d 2021-01-01 src/a.c; touch -d 2022-01-01 src/deep/b.c"}' false '(no output)'
	call glob '{"pattern":"**/*.c"}' false $'/workspace/src/deep/b.c\n/workspace/src/a.c\n/workspace/top.c'
	call glob '{"pattern":"src/*.{c,h}"}' false $'/workspace/src/c.h\n/workspace/src/a.c'
	call glob '{"pattern":"*.c","path":"src"}' false '/workspace/src/a.c'
	call glob '{"pattern":"*.none"}' false 'no matches'
	call glob '{"pattern":"/etc/*"}' true 'glob: absolute pattern not permitted; pass a relative pattern (and optionally path)'
	call glob '{"pattern":"../*"}' true 'glob: ".." is not permitted in the pattern'
	call glob '{}' true 'glob: pattern is required'
	# ripgrep, where the image has it, prints as it pleases: files in no order, a newline at the end.
	local rg_end=""
	! command -v rg >/dev/null || rg_end=$'\n'
	call grep '{"pattern":"needle[12]\\b","path":"src/deep"}' false "/workspace/src/deep/b.c:1:int needle1 = 1;$rg_end"
	call grep '{"pattern":"nothing like it"}' false 'no matches'
	call grep '{"pattern":"x","path":"/etc"}' true "path \"/etc\" is outside the session's working directory"
	call grep '{}' true 'grep: pattern is required'
	run_calls
}

@test "neither the key nor the token is anywhere in the sandbox: environment, processes, memory, files, checkpoint" {
	new_session
	local look
	look=$(sh_call 'env; tr "\0" "\n" </proc/$PPID/environ; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" "\n"; sleep 2')
	start_stub "[$(session "[$look]" | jq -c '.turns[0].idle = null')]"
	start_worker
	wait_for 20 stub_is ".sessions[\"$SESSION\"].results[0].text | type == \"string\""
	stub_says ".sessions[\"$SESSION\"].results[0].text" >"$PF_DIR/seen"
	grep -q '^PATH=' "$PF_DIR/seen"
	refute grep -qi 'CANARY\|ANTHROPIC' "$PF_DIR/seen"
	# All memory of all processes inside, as the host sees it.
	local n=0 pid
	for pid in $(pids_of "$SESSION"); do
		python3 - "$pid" <<-'END'
			import re, sys
			pid = sys.argv[1]
			with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
			    for line in maps:
			        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
			        if not m or "[v" in line:
			            continue
			        a, b = int(m[1], 16), int(m[2], 16)
			        try:
			            mem.seek(a)
			            data = mem.read(b - a)
			        except (OSError, ValueError, OverflowError):
			            continue
			        if b"CANARY" in data:
			            sys.exit(f"process {pid}: {line}")
		END
		n=$((n + 1))
	done
	[ "$n" -ge 2 ]
	# Nor have the keeper and the helper's exec it, on the host's side.
	refute grep -q CANARY "/proc/$(pinfold state "$SESSION" | jq .pinfold.keeper)/environ"
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	refute grep -rq CANARY "$STORE" "$ROOT"
	refute grep -q CANARY "$PF_DIR/worker.log"
	pinfold checkpoint export "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet | tail -n 1)" --to "oci:$PF_DIR/exported" >/dev/null
	assert_equal "$(find "$PF_DIR/exported" -type f -exec sh -c 'zstd -dcf "$1" 2>/dev/null | grep -q CANARY' _ {} \; -print)" ""
	assert_no_violations
}
