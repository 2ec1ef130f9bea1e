# Memory stores and skills: what a session brings into its sandbox, kept in step with the platform, and in no checkpoint.
# The same for the worker outside and the SDK's inside.
# parallel-safe
# timeout: 300
load ../lib/common
load lib

setup() { worker_setup; }
teardown() { worker_teardown; }

RESOURCES='[{"type":"memory_store","memory_store_id":"memstore_a","mount_path":"/mnt/memory/notes","access":"read_write","name":"notes"},
	{"type":"memory_store","memory_store_id":"memstore_r","mount_path":"/mnt/memory/rules","access":"read_only","name":"rules"},
	{"type":"other_thing"}]'
MEMORY='{"memstore_a":{"/one.md":"first\n","/deep/er/two.md":"second ü\u0000\n","/three.md":"third","/four.md":"4","/five.md":"5"},
	"memstore_r":{"/rule.md":"be kind"}}'

# Something in the session's sandbox has been stopped by a signal.
stopped_in_it() {
	local pid
	for pid in $(pids_of "$SESSION"); do
		! grep -q '^State:.T' "/proc/$pid/status" 2>/dev/null || return 0
	done
	return 1
}

# The session of $SESSION with the stores and these turns.
with_memory() { # TURN...
	session "$@" | jq -c --argjson r "$RESOURCES" --argjson m "$MEMORY" '.session = {resources: $r} | .memory = $m'
}

# What both workers must make of a session that reads, writes, removes and is refused.
both_ways() { # WORKER-OPTION...
	new_session
	start_stub "[$(with_memory "[$(sh_call 'cd /mnt/memory; find . -type f | sort; cat notes/one.md notes/deep/er/two.md rules/rule.md | base64; stat -c %a notes notes/one.md'),
		{\"name\":\"read\",\"input\":{\"file_path\":\"/mnt/memory/notes/three.md\"}},
		{\"name\":\"write\",\"input\":{\"file_path\":\"/mnt/memory/notes/new/six.md\",\"content\":\"six\"}},
		{\"name\":\"edit\",\"input\":{\"file_path\":\"/mnt/memory/notes/one.md\",\"old_string\":\"first\",\"new_string\":\"1st\"}},
		{\"name\":\"write\",\"input\":{\"file_path\":\"/mnt/memory/rules/rule.md\",\"content\":\"be evil\"}},
		{\"name\":\"read\",\"input\":{\"file_path\":\"/mnt/other\"}},
		$(sh_call 'cd /mnt/memory; rm notes/four.md; echo evil >rules/rule.md; echo evil >rules/more.md; ln -s /etc/passwd notes/link.md; head -c 200000 /dev/zero | tr "\\0" x >notes/big.md; printf "\\377" >notes/binary.md')]" \
		"[$(sh_call 'cd /mnt/memory; find . -type f | sort; cat notes/one.md rules/rule.md')]")]"
	run_worker "$@"
	assert_equal "$status" 0
	assert_equal "$(result_text 0)" "./notes/.anthropic-memory-store
./notes/deep/er/two.md
./notes/five.md
./notes/four.md
./notes/one.md
./notes/three.md
./rules/.anthropic-memory-store
./rules/rule.md
$(printf 'first\nsecond ü\0\nbe kind' | base64)
700
600"
	assert_equal "$(results | sed -n '2,6p')" 'false "third"
false "wrote 3 bytes to /mnt/memory/notes/new/six.md"
false "edited /mnt/memory/notes/one.md (1 replacement(s))"
true "write: /mnt/memory/rules/rule.md is inside read-only directory /mnt/memory/rules"
true "path \"/mnt/other\" is outside the session'"'"'s working directory and its other permitted directories"'
	assert_equal "$(result_text 7)" './notes/.anthropic-memory-store
./notes/deep/er/two.md
./notes/five.md
./notes/new/six.md
./notes/one.md
./notes/three.md
./rules/.anthropic-memory-store
./rules/rule.md
1st
be kind'
	assert_equal "$(stub_says '.memory.memstore_a | to_entries | map("\(.key)=\(.value | @json)") | sort | join(" ")')" \
		'/deep/er/two.md="second ü\u0000\n" /five.md="5" /new/six.md="six" /one.md="1st\n" /three.md="third"'
	assert_equal "$(stub_says '.memory.memstore_r | tojson')" '{"/rule.md":"be kind"}'
	assert_no_violations
	assert_put_away
	# No checkpoint has any of it.
	local c
	for c in $(pinfold checkpoint ls --sandbox "$SESSION" --quiet); do
		pinfold checkpoint export "$c" --to "oci:$PF_DIR/x.$c" >/dev/null
		! find "$PF_DIR/x.$c" -type f -exec sh -c 'zstd -dcqf "$1" 2>/dev/null || cat "$1"' _ {} \; | grep -aqE 'be kind|memory-store|1st'
	done
}

@test "memory stores, worker outside: fetched, read and written by the tools, brought back, gone from the sandbox" { both_ways; }

@test "memory stores, the SDK's worker inside: the same through the gateway" {
	need_sdk
	both_ways --config "$CONFIG" -- "${INSIDE[@]}"
}

@test "both sides write: the platform's counts; who is told to end sends what was written" {
	new_session
	start_stub "[$(with_memory "[$(sh_call 'cd /mnt/memory/notes; echo mine >one.md; echo mine >three.md; rm four.md; echo mine >seven.md; touch /workspace/done'),$(sh_call 'sleep 77777')]")]"
	start_worker
	wait_for 20 pinfold exec "$SESSION" -- test -e /workspace/done
	stub_tell memory '{"store":"memstore_a","path":"/one.md","content":"theirs"}'
	stub_tell memory '{"store":"memstore_a","path":"/three.md","content":null}'
	wait_for 20 stub_is ".sessions[\"$SESSION\"].results[0].missing | not"
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	# One edited on both sides, one removed there and edited here, one removed here, one new.
	assert_equal "$(stub_says '.memory.memstore_a | [.["/one.md"], .["/three.md"], .["/four.md"], .["/seven.md"]] | tojson')" '["theirs","mine\n","4","mine\n"]'
	assert_no_violations
	assert_gone "$SESSION"
}

@test "a directory that was wiped is fetched again; one removed file is removed there" {
	new_session
	start_stub "[$(with_memory "[$(sh_call 'rm -rf /mnt/memory/notes')]" "[$(sh_call 'rm /mnt/memory/notes/four.md')]" "[$(sh_call 'rm /mnt/memory/notes/*.md; rm -r /mnt/memory/notes/deep')]")]"
	run_worker
	assert_equal "$(stub_says '.memory.memstore_a | keys | join(" ")')" '/deep/er/two.md /five.md /one.md /three.md'
	[ "$(grep -c 'fetched again' "$PF_DIR/worker.log")" = 2 ]
	assert_no_violations
}

@test "what a killed worker left of memory stores is in nobody's way and gets into no store" {
	new_session
	start_stub "[$(with_memory "[$(sh_call 'ls /mnt/memory/notes; [ -e /workspace/again ] || { touch /workspace/again /mnt/memory/notes/left.md; sleep 77777; }')]")]" '{"ttl":2}'
	start_worker
	wait_for 20 pinfold exec "$SESSION" -- test -e /mnt/memory/notes/left.md
	kill -9 "$(sed -n "s/.*$SESSION: work item .*, process //p" "$PF_DIR/worker.log" | tail -n 1)"
	wait_for 30 stub_is '.items | last | .state == "stopped"'
	assert_equal "$(result_text 0)" $'deep\nfive.md\nfour.md\none.md\nthree.md'
	assert_equal "$(stub_says '.memory.memstore_a | has("/left.md")')" false
	assert_no_violations
}

@test "a helper that the agent stops holds nobody: the sandbox ends when the lease is lost" {
	new_session
	start_stub "[$(with_memory "[$(sh_call '(until [ -e /workspace/go ]; do sleep 0.1; done; kill -STOP $PPID; exec sleep 77777) >/dev/null 2>&1 &')]" |
		jq -c '.turns[0].idle = null')]" '{"ttl":4}'
	start_worker
	wait_for 30 stub_is "[.sessions[\"$SESSION\"].results[] | select(.missing | not)] | length == 1"
	pinfold exec "$SESSION" -- touch /workspace/go
	wait_for 20 stopped_in_it
	# Its memory is brought back now, and nobody answers.
	stub_tell event "{\"session\":\"$SESSION\",\"event\":{\"type\":\"session.status_idle\",\"stop_reason\":{\"type\":\"end_turn\"}}}"
	wait_for 30 grep -q 'ends: the session is idle' "$PF_DIR/worker.log"
	stub_tell fault '{"lose":true}'
	wait_for 60 eval '[ -z "$(pids_of "$SESSION")" ]'
	# The first question was not waited for to its end, and a second one not asked.
	grep -q 'memory memstore_r: not looked at' "$PF_DIR/worker.log"
	[ -z "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" ]
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	assert_no_violations
}

@test "without a token, or with a mount path that is none, a session with memory stores is refused" {
	new_session
	start_stub "[$(with_memory "[$(sh_call 'echo never')]" | jq -c '.token = false | .turns = []')]"
	run_worker
	grep -q 'no token to reach it with' "$PF_DIR/worker.log"
	assert_put_away
	new_session
	stub_tell add "$(with_memory | jq -c '.session.resources[0].mount_path = "/mnt/memory/../../etc"')"
	run_worker
	grep -q 'no clean absolute path' "$PF_DIR/worker.log"
	assert_put_away
	assert_no_violations
}

@test "checkpoints that are made by themselves while the session runs have neither memory stores nor skills" {
	make_skills
	config '{"checkpoint":{"every":"1s"}}'
	new_session
	start_stub "[$(with_memory "[$(sh_call 'cat skills/pdf/SKILL.md /mnt/memory/rules/rule.md; echo kept >kept; sleep 3')]" |
		jq -c --argjson s "$SKILLS" --argjson a "$AGENT" '.skills = $s | .session.agent = $a')]"
	run_worker --config "$CONFIG"
	assert_equal "$(result_text 0)" $'# pdf\nbe kind'
	[ "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet | wc -l)" -ge 2 ]
	local c kept=0
	for c in $(pinfold checkpoint ls --sandbox "$SESSION" --quiet); do
		pinfold checkpoint export "$c" --to "oci:$PF_DIR/x.$c" --uncompressed >/dev/null
		refute grep -raqE 'be kind|# pdf' "$PF_DIR/x.$c"
		! grep -raq '^kept' "$PF_DIR/x.$c" || kept=1
	done
}

# Skills in three kinds of archives; in SKILLS the stub's, in AGENT the session's.
make_skills() {
	local d="$PF_DIR/skills"
	mkdir -p "$d/pdf/scripts" "$d/flat"
	echo '# pdf' >"$d/pdf/SKILL.md"
	printf '#!/bin/sh\necho ran\n' >"$d/pdf/scripts/run"
	chmod 4777 "$d/pdf/scripts/run"
	chmod 600 "$d/pdf/SKILL.md"
	ln -s /etc/passwd "$d/pdf/link"
	echo '# flat' >"$d/flat/SKILL.md"
	echo data >"$d/flat/data"
	tar -C "$d" -czf "$d/pdf.tgz" pdf
	(cd "$d/flat" && python3 -m zipfile -c ../flat.zip SKILL.md data)
	tar -C "$d" -cf "$d/evil.tar" --transform 's,^pdf/SKILL.md,../../evil,' -P pdf/SKILL.md
	SKILLS=$(jq -cn --arg a "$(base64 -w0 "$d/pdf.tgz")" --arg b "$(base64 -w0 "$d/flat.zip")" --arg c "$(base64 -w0 "$d/evil.tar")" \
		'{skill_pdf: {name: "pdf", archive: $a}, skill_flat: {name: "../../etc/flat one", archive: $b}, skill_evil: {name: "evil", archive: $c}}')
	AGENT='{"skills":[{"type":"custom","skill_id":"skill_pdf","version":"latest"},{"type":"custom","skill_id":"skill_flat","version":"7"},
		{"type":"custom","skill_id":"skill_evil","version":"latest"},{"type":"custom","skill_id":"skill_none","version":"latest"}]}'
}

skills_both() { # WORKER-OPTION...
	need unzip
	make_skills
	new_session
	start_stub "[$(session "[$(sh_call 'cd skills; find pdf "flat one" evil -mindepth 1 ! -type d 2>/dev/null | sort; stat -c %a pdf pdf/SKILL.md pdf/scripts/run; pdf/scripts/run; cat "flat one/SKILL.md"; ls -A . ..; echo mine >own; ls / /workspace/.. | grep -c evil')]" \
		"[$(sh_call 'ls skills/pdf; cat skills/own')]" | jq -c --argjson s "$SKILLS" --argjson a "$AGENT" '.skills = $s | .session = {agent: $a}')]"
	run_worker "$@"
	assert_equal "$status" 0
	assert_equal "$(result_text 0 | sed -n '1,/^\.:/p' | grep -v '^evil')" 'flat one/SKILL.md
flat one/data
pdf/SKILL.md
pdf/scripts/run
700
644
755
ran
# flat
.:'
	[ "$(result_text 0 | tail -n 1)" = 0 ]
	assert_equal "$(result_text 1)" $'SKILL.md\nscripts\nmine'
	assert_put_away
	local c
	for c in $(pinfold checkpoint ls --sandbox "$SESSION" --quiet); do
		pinfold checkpoint export "$c" --to "oci:$PF_DIR/x.$c" >/dev/null
		! find "$PF_DIR/x.$c" -type f -exec sh -c 'zstd -dcqf "$1" 2>/dev/null || cat "$1"' _ {} \; | grep -aq '# pdf'
	done
}

@test "skills, worker outside: unpacked in the sandbox without what would surprise, and gone at the end" { skills_both; }

@test "skills, the SDK's worker inside: the same through the gateway" {
	need_sdk
	skills_both --config "$CONFIG" -- "${INSIDE[@]}"
}

@test "inputs that the session's metadata names come from the administrator's directory, once, as a whole, as the sandbox's user's" {
	local d="$PF_DIR/inputs"
	mkdir -p "$d/data set" "$d/data/sub"
	echo one >"$d/data/sub/file"
	chmod 750 "$d/data/sub/file"
	echo two >"$d/spec.txt"
	echo secret >"$PF_DIR/outside"
	config '{"user":"1000:1000"}'
	new_session
	start_stub "[$(session "[$(sh_call 'find inputs -type f | sort; stat -c "%a %U" inputs/data/sub/file; cat inputs/data/sub/file inputs/spec.txt; ls -A inputs; echo mine >inputs/spec.txt')]" \
		"[$(sh_call 'cat inputs/spec.txt')]" | jq -c '.session.metadata = {inputs: "data, spec.txt", other: "x"}')]"
	run_worker --config "$CONFIG" --inputs "$d"
	assert_equal "$(results)" 'false "inputs/data/sub/file\ninputs/spec.txt\n750 agent\none\ntwo\ndata\nspec.txt"
false "mine"'
	assert_no_violations
	local names
	for names in ../outside none .. 'data/../../outside'; do
		new_session
		stub_tell add "$(session "[$(sh_call 'echo never')]" | jq -c --arg n "$names" '.turns = [] | .session.metadata = {inputs: $n}')"
		run_worker --config "$CONFIG" --inputs "$d"
		tail -n 5 "$PF_DIR/worker.log" | grep -q 'error.* input'
		assert_put_away
	done
	new_session
	stub_tell add "$(session | jq -c '.session.metadata = {inputs: "data"}')"
	run_worker --config "$CONFIG"
	grep -q 'no directory of them: --inputs' "$PF_DIR/worker.log"
	assert_no_violations
}
