# parallel-safe
# What a command line and the process that calls it hand down: options, operands, help, output, signals, umask.
load ../lib/common

setup() {
	need_root
	common_setup
	new_id
}
teardown() { common_teardown; }

# A root directory with one program that does nothing, as an image.
tiny_image() { # NAME
	mkdir -p "$PF_DIR/tree/bin"
	echo data >"$PF_DIR/tree/file"
	pinfold image import "dir:$PF_DIR/tree" --name "$1" >/dev/null
}

snapshot_of() { # NAME: of a sandbox that is gone afterwards
	create_sandbox
	pinfold exec "$ID" -- sh -c "echo $1 >/tmp/$1"
	pinfold snapshot "$ID" --name "$1" >/dev/null
	pinfold destroy "$ID"
}

modes_below() { # DIRECTORY: all paths with their modes
	(cd "$1" && find . -printf '%m %p\n' | sort)
}

@test "a caller that ignores SIGCHLD gets sandboxes, commands and checkpoints all the same" {
	# bash cannot hand SIGCHLD down as ignored.
	local run=(python3 -c 'import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])' "$PINFOLD" --root "$ROOT" --store "$STORE")
	need python3
	"${run[@]}" create "$ID" >/dev/null
	run -7 "${run[@]}" exec "$ID" -- sh -c 'true; sh -c "exit 7"'
	"${run[@]}" snapshot "$ID" --name "sigchld-$ID" >/dev/null
	"${run[@]}" checkpoint verify "sigchld-$ID" >/dev/null
	"${run[@]}" destroy "$ID"
	assert_gone "$ID"
}

@test "the caller's umask changes no image, no workspace and nothing that is kept private" {
	local umask
	for umask in 077 022 000; do
		(
			umask "$umask"
			STORE="$PF_DIR/store-$umask"
			create_sandbox '{"filesystem":{"size":"64M"}}'
			tiny_image tiny
			pinfold exec "$ID" -- sh -c 'mkdir -p /workspace/d && echo x >/workspace/d/f && stat -c "%a %n" \
				/ /etc /etc/hosts /etc/resolv.conf /workspace /workspace/d /workspace/d/f' \
				>"$PF_DIR/inside-$umask"
			pinfold snapshot "$ID" --name s >/dev/null
			pinfold destroy "$ID"
			wait_for 10 rmdir "$STORE/trash"
			(cd "$STORE" && find . -printf '%m %y %P\n' | grep -v ' images/host/.*/fs/' |
				sed 's/[0-9a-f]\{64\}/HASH/; s/[0-9a-f]\{16,\}/HASH/; s/t[0-9]*-[0-9]*-[0-9]*/ID/' |
				sort) >"$PF_DIR/store-modes-$umask"
			# Whoever is not root gets no further than the store itself.
			[ -z "$(find "$STORE" -mindepth 1 -maxdepth 1 -perm /077)" ] ||
				show "$(ls -l "$STORE")"
		)
	done
	diff "$PF_DIR/inside-022" "$PF_DIR/inside-077"
	diff "$PF_DIR/inside-022" "$PF_DIR/inside-000"
	diff "$PF_DIR/store-modes-022" "$PF_DIR/store-modes-077"
	diff "$PF_DIR/store-modes-022" "$PF_DIR/store-modes-000"
}

@test "output that cannot be written is a failure, and what was done is said" {
	local verb
	tiny_image tiny
	create_sandbox
	for verb in "list" "list --format json" "list --quiet" "state $ID" "stats $ID" "logs $ID" "policy $ID show" \
		"doctor" "--help" "--version" "create --help" "image ls" "image ls --json" "image inspect tiny" \
		"image --help" "checkpoint ls" "checkpoint ls --json" "checkpoint verify --all" "diff --stat $ID"; do
		status=0
		# shellcheck disable=SC2086
		stderr=$(pinfold $verb 2>&1 >/dev/full) || status=$?
		assert_status 125 || show "$verb"
		assert_err "standard output cannot be written: No space left on device" || show "$verb"
	done
	status=0
	stderr=$(pinfold snapshot "$ID" --name "full-$ID" 2>&1 >/dev/full) || status=$?
	assert_status 125
	assert_err "is made; standard output"
	pinfold checkpoint verify "full-$ID" >/dev/null
	new_id
	status=0
	stderr=$(pinfold create "$ID" 2>&1 >/dev/full) || status=$?
	assert_status 125
	assert_err "sandbox '$ID' is there; standard output"
	assert_equal "$(state_of .status)" running
}

@test "--help of image, checkpoint and each of their verbs is on stdout, with status 0" {
	local group verb
	for group in image checkpoint; do
		pf "$group" --help
		assert_status 0
		assert_equal "$stderr" ""
		assert_out "usage: pinfold $group VERB"
		for verb in $(sed -n 's/^  \([a-z-]*\) .*/\1/p' <<<"$output"); do
			pf "$group" "$verb" --help
			assert_status 0
			assert_equal "$stderr" ""
			# Verbs that belong together share a page.
			[[ "$output" == usage:*"pinfold $group $verb "* ]] || show "$group $verb"
		done
		pf "$group"
		assert_status 125
		assert_equal "$output" ""
		assert_err "usage: pinfold $group VERB"
		pf "$group" frobnicate
		assert_refused "$group frobnicate"
	done
	[ "$verb" = rotate-key ]
}

# The options of a command line that its help tells.
options_of() { # HELP
	sed -n '/^usage:/p; /^ *pinfold /p; /^ *-/p' <<<"$1" | grep -oE -- '(^|[^a-z-])--[a-z][a-z0-9-]*' | grep -oE -- '--.*' | sort -u
}
# What the completion offers for a line whose last word is to be completed, a word a line.
completed() { # WORD...
	bash -c '. "$0"; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); COMPREPLY=()
		case $1 in pinfold) _pinfold ;; *) _pinfold_jail ;; esac
		printf "%s\n" ${COMPREPLY[@]+"${COMPREPLY[@]}"}' "$TESTS_DIR/../scripts/completion.bash" "$@"
}
# A manual page as it is read, without its marks.
manual() { sed 's/\\-/-/g; s/\\f[BIR]//g' "$TESTS_DIR/../docs/man/$1.1"; }

@test "each verb has its help, its place in the manual and its completion, and so has each of its options" {
	local verb option page verbs
	PATH="$(dirname "$PINFOLD"):$PATH"
	verbs=$("$PINFOLD" --help | sed -n 's/^  \([a-z][a-z-]*\)  *[^ ].*/\1/p')
	[ "$(wc -l <<<"$verbs")" -ge 27 ]
	assert_equal "$(completed pinfold '' | sed '/^help$/d')" "$verbs"
	for verb in $verbs; do
		pf "$verb" --help
		assert_status 0
		[ "$(wc -l <<<"$output")" -ge 3 ] && [ "$stderr" = "" ] || show "$verb"
		assert_equal "$("$PINFOLD" help "$verb")" "$output"
		[ "$verb" = on-work ] && page=pinfold-worker || page=pinfold
		[ -e "$PF_DIR/$page" ] || manual "$page" >"$PF_DIR/$page"
		grep -qE "(^|[^a-z-])$verb([^a-z-]|\$)" "$PF_DIR/$page" || show "the manual lacks $verb"
		completed pinfold "$verb" -- >"$PF_DIR/completed"
		for option in $(options_of "$output"); do
			# Verbs of two words have their own pages, and their options are completed there.
			[[ " image checkpoint " == *" $verb "* ]] || grep -qxF -- "$option" "$PF_DIR/completed" || show "completion of $verb: $option"
			grep -qE -- "$option([^a-z0-9-]|\$)" "$PF_DIR/$page" || show "the manual lacks $option of $verb"
		done
		[[ " image checkpoint " != *" $verb "* ]] ||
			assert_equal "$(completed pinfold "$verb" '')" "$(sed -n 's/^  \([a-z-]*\) .*/\1/p' <<<"$output")"
	done
	completed pinfold checkpoint prune -- | grep -qx -- --keep-daily
	[ -z "$(completed pinfold checkpoint prune -- | grep -x -- --from)" ]
	completed pinfold run -- | grep -qx -- --pidfd-socket
	completed pinfold help sna | grep -qx snapshot
}

@test "each program that is installed has a manual page; what make install puts somewhere make uninstall takes away" {
	local dest="$PF_DIR/dest" program
	need make
	mkdir -p "$dest/usr/lib" "$dest/usr/bin"
	touch "$dest/usr/bin/other" "$dest/usr/lib/other"
	make -s -C "$TESTS_DIR/.." BUILD="$BUILD" PREFIX=/usr DESTDIR="$dest" install >/dev/null
	for program in "$dest"/usr/bin/pinfold*; do
		program=$(basename "$program")
		[ -s "$dest/usr/share/man/man1/$program.1" ] || show "no manual page of $program"
		[ -x "$dest/usr/bin/$program" ]
		# bash looks for a completion under the command's own name; that of bwrap's options is bwrap's.
		[ "$program" = pinfold-bwrap ] || [ -s "$dest/usr/share/bash-completion/completions/$program" ] || show "no completion of $program"
	done
	"$dest/usr/bin/pinfold-worker" --version | grep -q '^pinfold-worker version'
	[ -e "$dest/usr/share/pinfold/examples/quickstart/quickstart" ]
	grep -q '^ExecStart=/usr/bin/pinfold-worker ' "$dest/usr/share/pinfold/deploy/systemd/pinfold-worker.service"
	make -s -C "$TESTS_DIR/.." BUILD="$BUILD" PREFIX=/usr DESTDIR="$dest" uninstall >/dev/null
	assert_equal "$(cd "$dest" && find . ! -type d | sort | xargs)" "./usr/bin/other ./usr/lib/other"
	assert_equal "$(find "$dest" -name '*pinfold*')" ""
}

@test "the worker names what is wrong with its command line, and the nearest option" {
	local line
	while IFS='|' read -r line text; do
		status=0
		# shellcheck disable=SC2086
		stderr=$("$(dirname "$PINFOLD")/pinfold-worker" $line 2>&1 >/dev/null) || status=$?
		assert_status 1
		assert_err "$text"
		[ "$(wc -l <<<"$stderr")" = 1 ] || show "more than one line"
	done <<-'END'
		--enviroment-id x|did you mean --environment-id?
		--keep|option --keep needs a value
		--log-format xml|--log-format must be text or json
		--max-idle soon|--max-idle
		--hang 0|--hang
		start|a worker's command after --
	END
}

# Command lines that are wrong, one a line, with the status that they get.
mistakes() {
	local verb oci=" run start kill delete ps update events features spec "
	for verb in $("$PINFOLD" --help | sed -n 's/^  \([a-z][a-z-]*\)  *[^ ].*/\1/p' | grep -vxE 'image|checkpoint|on-work'); do
		[[ "$oci" == *" $verb "* ]] && echo "1 pinfold $verb --frobnicate" || echo "125 pinfold $verb --frobnicate"
	done
	for verb in image checkpoint; do
		"$PINFOLD" "$verb" --help | sed -n "s/^  \([a-z-]*\) .*/125 pinfold $verb \1 --frobnicate/p"
		"$PINFOLD" "$verb" --help | sed -n "s/^  \([a-z-]*\) .*/125 pinfold $verb \1/p" | grep -vE ' (ls|gc|stats|encryption)$'
	done
	printf '125 pinfold %s\n' create "create a b" "create --config" "create -Z" exec "exec a" "exec --tty --json a b" cp "cp a" "cp a b c" "cp a:/b c:/d" \
		snapshot "snapshot a b" destroy "destroy --snapshot --discard a" fork "fork a" diff "diff a b c" "list a" "list --format xml" \
		state "state a b" stats "stats a b" pause "pause a b" resume "resume a b" logs "logs a b" policy "policy a" "policy a frobnicate" "policy a show --credentials x" \
		"gc a" "doctor a" "image ls a" "image gc a" "image rm" "checkpoint ls a" "checkpoint gc a" "checkpoint stats a" "checkpoint inspect a b" \
		frobnicate "image frobnicate" --frobnicate -Z --root "--log-format xml" "--rootless maybe"
	printf '1 pinfold %s\n' run "run a b" start "start a b" kill "kill a b c" delete ps "ps --format xml a" update "update a b" \
		events "events a b" "features a" "spec a"
	printf '1 pinfold-worker %s\n' --frobnicate -Z --keep "--keep many" start "--webhook-key-file x" ""
	printf '125 ../libexec/pinfold/pinfold-store %s\n' frobnicate --frobnicate -Z --root "image rm"
	printf '125 pinfold-jail %s\n' "" --frobnicate -Z -vZ --rw --env "--env x -- true" "--size x -- true" "--serve x" "--json --tty -- true"
}

@test "each mistake on a command line is one line that says what and where help is, or one JSON object" {
	local at expected program words format
	at=$(dirname "$PINFOLD")
	unset ANTHROPIC_ENVIRONMENT_KEY
	STORE="$PF_DIR/none"
	mistakes >"$PF_DIR/mistakes"
	while read -r expected program words; do
		for format in text json; do
			# The jail has its own --json, which is about the command's result.
			[ "$program $format" != "pinfold-jail json" ] || continue
			# shellcheck disable=SC2086
			if [ "$format" = json ]; then
				set -- --log-format json $words
			else
				set -- $words
			fi
			# Nothing that the machine has is looked at, and nothing made.
			[ "$program" != pinfold ] || set -- --root "$ROOT" --store "$STORE" "$@"
			status=0
			"$at/$program" "$@" >"$PF_DIR/out" 2>"$PF_DIR/err" </dev/null || status=$?
			stderr=$(<"$PF_DIR/err")
			[ "$status" = "$expected" ] && [ ! -s "$PF_DIR/out" ] && [ -n "$stderr" ] && [[ "$stderr" != *$'\n'* ]] ||
				show "$format: $program $words" || return 1
			if [ "$format" = json ]; then
				echo "$stderr" >>"$PF_DIR/json"
			else
				[[ "$stderr" == "pinfold: "* || "$stderr" == "${program##*/}: "* ]] || show "$program $words" || return 1
			fi
		done
	done <"$PF_DIR/mistakes"
	jq -es 'length > 120 and all(.[]; .level == "error" and (.msg | length > 0) and .time)' "$PF_DIR/json" >/dev/null ||
		show "$(cat "$PF_DIR/json")"
	# Also for options behind the id.
	pf exec s1 --frobnicate -- true
	assert_refused "exec: unknown option --frobnicate; try: pinfold exec --help"
	# Without any word there is the whole help, which is for people.
	pf
	assert_status 125
	assert_err "usage: pinfold"
	pf --log-format json
	assert_refused "no verb"
}

@test "what is refused for want of root says what would do, and doctor tells a user of that and of pinfold-jail alone" {
	local at
	at=$(dirname "$PINFOLD")
	status=0
	stderr=$(run_as_user "$PINFOLD" create "$ID" 2>&1 >/dev/null) || status=$?
	assert_status 125
	assert_err "Permission denied"
	assert_err "try: as root; one command needs none: pinfold-jail"
	pf doctor --json
	assert_json '[.checks[] | select(.check == "pinfold-jail")][0].status == "ok"' ||
		! run_as_user "$at/pinfold-jail" -- true || show "there is one, and doctor says no"
	status=0
	output=$(run_as_user "$PINFOLD" doctor --json) || status=$?
	assert_status 1
	assert_json '[.checks[] | select(.status == "fail") | .check] == ["user"]'
}

@test "--log and --log-format hold for what the helper program says too" {
	local line
	for line in "image inspect nowhere" "checkpoint inspect nowhere" "checkpoint ls --jsn" "image rm" \
		"image import a b c" "diff nowhere" "state nowhere" "checkpoint frobnicate"; do
		rm -f "$PF_DIR/log"
		# shellcheck disable=SC2086
		pf --log-format json $line
		assert_status 125
		jq -e '.level == "error" and (.msg | length > 0) and .code and .time' <<<"$stderr" >/dev/null ||
			show "$line"
		# shellcheck disable=SC2086
		pf --log "$PF_DIR/log" --log-format json $line
		assert_status 125
		jq -e '.level == "error" and .code' "$PF_DIR/log" >/dev/null || show "$line: $(cat "$PF_DIR/log")"
		assert_err "pinfold: "
		assert_equal "$(stat -c %a "$PF_DIR/log")" 600
	done
	pf --log "$PF_DIR/log" on-work </dev/null
	assert_status 125
	assert_err "leave --log out"
	pf image inspect nowhere
	assert_refused "image import, or build"
}

@test "checkpoint rm: an option after the names counts, and nothing goes before the whole line is understood" {
	snapshot_of "one-$BASHPID"
	snapshot_of "two-$BASHPID"
	pf checkpoint rm "one-$BASHPID" --fierce
	assert_refused "--fierce"
	pf checkpoint rm "one-$BASHPID" "none-$BASHPID"
	assert_refused "none-$BASHPID"
	pinfold checkpoint inspect "one-$BASHPID" >/dev/null
	new_id
	pinfold create "$ID" --from "one-$BASHPID" >/dev/null
	pf checkpoint rm "one-$BASHPID"
	assert_refused "$ID"
	pf checkpoint rm "one-$BASHPID" "two-$BASHPID" --force
	assert_status 0
	pf checkpoint ls
	refute_out "one-$BASHPID"
	refute_out "two-$BASHPID"
}

@test "what begins with a dash is an operand behind --" {
	local id="-t$$-$RANDOM"
	pf create -- "$id"
	assert_status 0
	pf exec -- "$id" sh -c 'echo $0 -- "$@"' -x --json -- y
	assert_status 0
	assert_equal "$output" "-x -- --json -- y"
	local verb
	for verb in state stats pause resume logs snapshot diff; do
		pf "$verb" -- "$id"
		assert_status 0
	done
	pf policy -- "$id" show
	assert_status 0
	pf snapshot --name "-n$id" -- "$id"
	assert_status 0
	pf checkpoint inspect -- "-n$id"
	assert_status 0
	pf diff -- "-n$id" "$id"
	assert_status 0
	pf fork -- "-n$id" "$id-2"
	assert_status 0
	pf destroy -- "$id" "$id-2"
	assert_status 0
	assert_gone "$id"
	pf checkpoint rm -- "-n$id"
	assert_status 0
}

@test "labels that are Pinfold's own cannot be given" {
	create_sandbox
	pf snapshot "$ID" --label io.pinfold.checkpoint=x
	assert_refused io.pinfold
	pf snapshot "$ID" --label purpose=io.pinfold.checkpoint
	assert_status 0
}
