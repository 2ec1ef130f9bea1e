# bash completion for pinfold and its programs. Options are those that --help tells, names those that there are, so there
# is nothing here to be forgotten.

# The options of a command, from its help: what its usage says, and what its list begins lines with.
_pinfold_options() { # COMMAND...
	"$@" --help 2>/dev/null | sed -n '/^usage:/p; /^ *pinfold /p; s/^  *\(-[^ ].*\)/\1/; s/^\(-.*[^ ]\)   *.*/\1/; /^-/p' | grep -oE -- '(^|[^a-z-])--[a-z][a-z0-9-]*' | grep -oE -- '--.*' |
		sort -u
}
# The verbs of a command that has some.
_pinfold_verbs() { "$@" --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\)  *[^ ].*/\1/p'; }
_pinfold_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }
# What options take that can be known; status 1: nothing of the kind.
_pinfold_value() { # OPTION
	case $1 in
	--config | --credentials | --resources | --process | --key-file | --webhook-key-file | --log | --allow-file | --policy | --ca | --pid-file | --console-socket)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	--root | --store | --bundle | --state-dir | --inputs) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
	--image) _pinfold_words "host $("${p[@]}" image ls 2>/dev/null | awk 'NR > 1 { print $1 }')" ;;
	--from) _pinfold_words "latest $("${p[@]}" checkpoint ls 2>/dev/null | awk 'NR > 1 { print $1 }')" ;;
	--sandbox) _pinfold_words "$("${p[@]}" list --quiet 2>/dev/null)" ;;
	--log-format) _pinfold_words "text json" ;;
	--format) _pinfold_words "table json" ;;
	*) return 1 ;;
	esac
}

_pinfold() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb="" sub="" i
	local p=(pinfold)
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--root | --store) p+=("${COMP_WORDS[i]}" "${COMP_WORDS[++i]}") ;;
		--log | --log-format) ((i++)) ;;
		-*) ;;
		help) ;;
		*)
			verb=${COMP_WORDS[i]} sub=${COMP_WORDS[i + 1]:-}
			break
			;;
		esac
	done
	[ "$verb" = image ] || [ "$verb" = checkpoint ] && [ $((i + 1)) -lt "$COMP_CWORD" ] || sub=""
	! _pinfold_value "$prev" || return 0
	if [[ "$cur" == -* ]]; then
		# shellcheck disable=SC2046,SC2086
		_pinfold_words "$(_pinfold_options pinfold $verb $sub) --help $(
			case $verb in
			"") echo --systemd-cgroup ;;
			create | run) _pinfold_options pinfold create --bundle . ;;
			exec) echo --process ;;
			esac
		)"
		return
	fi
	case "$verb $sub" in
	" ") _pinfold_words "$(_pinfold_verbs pinfold) help" ;;
	"image " | "checkpoint ") _pinfold_words "$(_pinfold_verbs pinfold "$verb")" ;;
	"image rm" | "image inspect" | "image export") _pinfold_words "$("${p[@]}" image ls 2>/dev/null | awk 'NR > 1 { print $1 }')" ;;
	"image "* | "checkpoint import" | "spec "*) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	"checkpoint "* | "fork ") _pinfold_words "$("${p[@]}" checkpoint ls 2>/dev/null | awk 'NR > 1 { print $1 }')" ;;
	"diff ") _pinfold_words "$("${p[@]}" checkpoint ls 2>/dev/null | awk 'NR > 1 { print $1 }') $("${p[@]}" list --quiet 2>/dev/null)" ;;
	"policy ")
		case $((COMP_CWORD - i)) in
		1) _pinfold_words "$("${p[@]}" list --quiet 2>/dev/null)" ;;
		2) _pinfold_words "show set check test suggest rotate" ;;
		*) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
		esac
		;;
	"cp "*) mapfile -t COMPREPLY < <(compgen -f -- "$cur"; compgen -S : -W "$("${p[@]}" list --quiet 2>/dev/null)" -- "$cur") ;;
	*) _pinfold_words "$("${p[@]}" list --quiet 2>/dev/null)" ;;
	esac
}
complete -F _pinfold pinfold

_pinfold_jail() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} p=(pinfold --store "${XDG_STATE_HOME:-$HOME/.local/state}/pinfold") i
	# Behind --, or the first word that is neither an option nor what one takes, it is another program's line.
	for ((i = 1; i < COMP_CWORD; i++)); do [ "${COMP_WORDS[i]}" != -- ] || return; done
	case "$prev" in
	--rw | --ro | --rw-try | --ro-try | --hide | --tmpfs | -C | --cwd) return ;;
	--home) mapfile -t COMPREPLY < <(compgen -W "private keep" -- "$cur"; compgen -d -- "$cur") ;;
	--seccomp) mapfile -t COMPREPLY < <(compgen -W "default strict off" -- "$cur"; compgen -f -- "$cur") ;;
	--profile) mapfile -t COMPREPLY < <(compgen -W "default build node python offline-strict" -- "$cur"; compgen -f -- "$cur") ;;
	*) _pinfold_value "$prev" || [[ "$cur" != -* ]] || _pinfold_words "$(_pinfold_options "${COMP_WORDS[0]}")" ;;
	esac
}
complete -o default -F _pinfold_jail pinfold-jail pinfold-worker pinfold-on-work
