# parallel-safe
# What a command sees, may write and may do when nothing is said.
load lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() { jail_setup; }
teardown() { jail_teardown; }

only_the_system_and_the_tree() {
	echo mine >"$(tree)/file"
	inside 'cat file; ls -A ~ /tmp /var/tmp; ls /'
	assert_out mine
	assert_equal "$(tail -n 11 <<<"$output" | grep -vE '^(lib.*|sbin|bin)$' | xargs)" "dev etc proc run tmp usr var"
	inside 'ls -A ~; cat ~/.ssh/id 2>&1 || echo none'
	refute_out key-of
	assert_out none
	assert_equal "$(head -n 1 <<<"$output")" tree
	inside "ls $PF_DIR/shared 2>&1 || echo none; ls /root /home /opt /srv /mnt /boot /sys 2>/dev/null || echo none"
	assert_equal "$(grep -c none <<<"$output")" 2
}
@test "it sees the system's programs and the tree it is started in; not the home, not other directories" {
	each only_the_system_and_the_tree
}

writes_nowhere() {
	inside 'for f in ./x /usr/x /etc/x /x ~/tree/x; do (: >"$f") 2>/dev/null && echo "wrote $f"; done; echo done'
	assert_equal "$output" done
	[ -z "$(ls -A "$(tree)")" ]
	local token="pfj-$BASHPID-$RANDOM"
	inside "for d in /tmp /var/tmp /dev/shm /run ~; do echo x >\$d/$token && cat \$d/$token; done"
	assert_equal "$(grep -c x <<<"$output")" 5
	for d in /tmp /var/tmp /dev/shm /run "$(home)"; do [ ! -e "$d/$token" ]; done
}
@test "the tree and the system are read-only; /tmp, /var/tmp, /dev/shm, /run and home are its own and gone after it" {
	each writes_nowhere
}

short_environment() {
	WITH=(AWS_SECRET_ACCESS_KEY=secret SSH_AUTH_SOCK=/x LANG=de_DE.UTF-8 LC_TIME=C TZ=UTC LD_PRELOAD= BASH_ENV=/x)
	inside 'env'
	refute_out secret
	assert_equal "$(cut -d= -f1 <<<"$output" | sort | xargs)" \
		"HOME LANG LC_TIME LOGNAME PATH PWD SHELL TERM TZ USER"
	assert_out LANG=de_DE.UTF-8
	assert_out "HOME=$(home)"
	inside 'env' --env A=1 --env "B=two words" --bind-env AWS_SECRET_ACCESS_KEY --env TERM=dumb
	assert_out A=1
	assert_out "B=two words"
	assert_out AWS_SECRET_ACCESS_KEY=secret
	assert_out TERM=dumb
	refute_out TERM=xterm
	pj --bind-env NOT_SET_AT_ALL -- true
	assert_refused NOT_SET_AT_ALL
	pj --env WITHOUT -- true
	assert_refused WITHOUT NAME=value
}
@test "of the environment it has a short list, and what is given by name" {
	WITH=()
	each short_environment
}

alone() {
	inside 'ls -d /proc/[0-9]* | wc -l; tr "\0" " " </proc/1/cmdline; echo; cat /proc/self/environ | tr "\0" "\n"'
	[ "$(head -n 1 <<<"$output")" -le 4 ]
	[[ "$(sed -n 2p <<<"$output")" == pinfold-init* ]] || show "process 1"
	refute_out PINFOLD_TEST_RUN
	inside 'kill -0 '"$$"' 2>&1; kill -TERM -1 2>/dev/null; ls -l /proc/self/ns | sed -n "s/.*-> //p"'
	local ns
	for ns in user mnt pid net ipc uts cgroup; do
		refute_out "$(readlink "/proc/self/ns/$ns")"
	done
}
@test "it is alone: no process of others, and namespaces of its own" {
	each alone
}

powerless() {
	inside 'grep -E "^(Cap|NoNewPrivs|Seccomp)" /proc/self/status'
	assert_equal "$(sed -n 's/^Cap[A-Za-z]*:\t//p' <<<"$output" | sort -u)" 0000000000000000
	grep -q '^NoNewPrivs:.1$' <<<"$output"
	grep -q '^Seccomp:.2$' <<<"$output"
	inside 'unshare -U true 2>&1 || echo no; mount -t tmpfs x /tmp 2>&1 || echo no; mknod /tmp/d b 8 0 2>&1 || echo no
		ls /dev | xargs; cat /proc/sys/kernel/core_pattern >/dev/null; (echo x >/proc/sys/kernel/core_pattern) 2>&1 || echo no'
	assert_equal "$(grep -c '^no$' <<<"$output")" 4
	assert_out "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
	inside 'cat /proc/kcore /proc/kallsyms /proc/keys 2>/dev/null | head -c 10'
	assert_equal "$output" ""
}
@test "it has no capability, cannot gain any, is filtered, makes no namespace, mount or device" {
	each powerless
}

is_the_caller() {
	inside 'id -u; id -g; id -un; whoami; stat -c %u .; : >made; mkdir dir' --rw .
	local id=0 name=root
	[ "$AS" = root ] || { id=$JAIL_UID; name=user; }
	assert_equal "$(xargs <<<"$output")" "$id $id $name $name $id"
	assert_equal "$(stat -c %u:%g "$(tree)/made" "$(tree)/dir" | sort -u)" "$id:$id"
	inside 'id -u; id -g; : >again' --rw . --user 1234:77
	assert_equal "$(xargs <<<"$output")" "1234 77"
	assert_equal "$(stat -c %u:%g "$(tree)/again")" "$id:$id"
	rm -rf "$(tree)"/*
}
@test "it is who the caller is, or sees itself as --user; what it writes is the caller's" {
	each is_the_caller
}

new_session() {
	inside 'ps -o pid=,sid=,tty= -p $$'
	[[ "$output" == *"?"* ]] || show "a terminal"
	inside 'hostname; cat /etc/hostname; getent hosts localhost; cat /etc/resolv.conf'
	assert_out pinfold-jail
	refute_out "$(uname -n)"
}
@test "it has a session of its own without a terminal, and a name that is not the machine's" {
	each new_session
}

stops_no_more_than_root_can() {
	inside 'for a in 1.1.1.1 127.0.0.1 169.254.169.254; do
		timeout 3 bash -c ": </dev/tcp/$a/80" 2>/dev/null; echo $?; done; cat /proc/net/dev | grep -c :'
	assert_equal "$(xargs <<<"$output")" "1 1 1 1"
	inside 'getent hosts example.com || echo none'
	assert_out none
}
@test "it has no network: a connection fails at once, a name is unknown" {
	each stops_no_more_than_root_can
}

descriptors() {
	exec 7<"$(home)/.ssh/id"
	pj -- sh -c 'ls /proc/self/fd | xargs; cat <&7 2>/dev/null || echo closed'
	exec 7<&-
	assert_out closed
	refute_out key-of
}
@test "of its caller's descriptors it has three" {
	each descriptors
}

refuses_setuid() {
	local copy="$JAIL_BIN/suid-jail-$BASHPID"
	for p in jail bwrap; do
		cp "$JAIL_BIN/pinfold-$p" "$copy"
		chmod 4755 "$copy"
		AS=user
		status=0
		stderr=$( (as "$copy" -- true) 2>&1) || status=$?
		chmod 755 "$copy"
		chgrp 1 "$copy"
		chmod 2755 "$copy"
		[ "$status" != 0 ]
		assert_err setuid
		status=0
		stderr=$( (as "$copy" -- true) 2>&1) || status=$?
		[ "$status" != 0 ]
		assert_err setgid
		rm -f "$copy"
	done
}
@test "it refuses to run setuid or setgid" {
	refuses_setuid
}
