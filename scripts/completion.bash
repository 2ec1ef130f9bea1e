# bash completion for pinfold
_pinfold() {
	local cur=${COMP_WORDS[COMP_CWORD]} verb="" i root="" store=""
	local verbs="create exec snapshot destroy fork diff list state stats pause resume logs policy image checkpoint on-work gc doctor run start kill delete ps update events features spec"
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--root) root=${COMP_WORDS[++i]} ;;
		--store) store=${COMP_WORDS[++i]} ;;
		--log | --log-format) ((i++)) ;;
		-*) ;;
		*) verb=${COMP_WORDS[i]}; break ;;
		esac
	done
	_pinfold_ids() { pinfold ${root:+--root "$root"} list --quiet 2>/dev/null; }
	_pinfold_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }
	case $verb in
	"") _pinfold_words "$verbs --root --store --log --log-format --systemd-cgroup --version --help" ;;
	create) case ${COMP_WORDS[COMP_CWORD - 1]} in
		--config) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
		*) _pinfold_words "--config --image --from --credentials --reuse --strict-runtime --rebase --trust --help" ;;
		esac ;;
	exec) _pinfold_words "--timeout --memory --pids --cpus --user --cwd --env --tty --json --output-max --stdin --help $(_pinfold_ids)" ;;
	destroy) _pinfold_words "--snapshot --discard --help $(_pinfold_ids)" ;;
	snapshot) _pinfold_words "--name --label --image --encrypt --no-encrypt --key --help $(_pinfold_ids)" ;;
	diff) _pinfold_words "--unified --json --stat --name-only --help $(_pinfold_ids)" ;;
	list) _pinfold_words "--format --quiet --json --help" ;;
	logs) _pinfold_words "--follow --denied --json --help $(_pinfold_ids)" ;;
	policy) _pinfold_words "--credentials show set check test suggest rotate $(_pinfold_ids)" ;;
	image) _pinfold_words "build packages import ls inspect rm export gc --help" ;;
	checkpoint) case " ${COMP_WORDS[*]} " in
		*" export "*) _pinfold_words "--to --complete --uncompressed --sandbox --key --decrypt --help" ;;
		*" prune "*) _pinfold_words "--keep-last --keep-daily --older-than --sandbox --label --auto --dry-run --json --help" ;;
		*) _pinfold_words "ls inspect verify export import push pull prune stats gc prepare rm encryption rotate-key --key --encrypt --decrypt --help" ;;
		esac ;;
	on-work) _pinfold_words "--environment-id --key-file --base-url --max-idle --config --credentials --keep --rebase --remote --inputs --grace --state-dir" ;;
	gc) _pinfold_words "--stopped --help" ;;
	run) _pinfold_words "--bundle --detach --keep --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --help" ;;
	kill) _pinfold_words "--all --help $(_pinfold_ids)" ;;
	delete) _pinfold_words "--force --help $(_pinfold_ids)" ;;
	ps) _pinfold_words "--format --help $(_pinfold_ids)" ;;
	events) _pinfold_words "--stats --interval --help $(_pinfold_ids)" ;;
	update) _pinfold_words "--resources --memory --memory-reservation --memory-swap --cpu-period --cpu-quota --cpu-burst --cpu-share
		--cpu-idle --cpuset-cpus --cpuset-mems --pids-limit --blkio-weight --help $(_pinfold_ids)" ;;
	spec) _pinfold_words "--bundle --rootless --help" ;;
	features) _pinfold_words "--help" ;;
	doctor) _pinfold_words "--json --help" ;;
	*) _pinfold_words "--help $(_pinfold_ids)" ;;
	esac
}
complete -F _pinfold pinfold

_pinfold_jail() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	case "$prev" in
	--rw | --ro | --rw-try | --ro-try | --hide | --tmpfs | -C | --cwd | --allow-file | --policy) return ;;
	--home) COMPREPLY=($(compgen -W "private keep" -- "$cur") $(compgen -d -- "$cur")) && return ;;
	--seccomp) COMPREPLY=($(compgen -W "default strict off" -- "$cur") $(compgen -f -- "$cur")) && return ;;
	--profile) COMPREPLY=($(compgen -W "default build node python offline-strict" -- "$cur") $(compgen -f -- "$cur")) && return ;;
	esac
	[[ "$cur" == -* ]] && COMPREPLY=($(compgen -W "--rw --ro --rw-try --ro-try --hide --tmpfs --home --size --cwd --overlay --diff
		--commit --keep --from --store --allow --allow-file --policy --env --bind-env --user --timeout --grace --memory --pids --cpus --profile --seccomp --tty
		--no-tty --json --learn --weak --explain --verbose --version --help" -- "$cur"))
}
complete -o default -F _pinfold_jail pinfold-jail
