# parallel-safe
# What a sandbox is made of: seen from inside, and compared with the host.
load ../lib/common

setup() {
	need_root
	common_setup
}
teardown() { common_teardown; }

# A value of /proc/self/status inside.
status_of() { # KEY [EXEC-OPTION...]
	local key=$1
	shift
	pinfold exec "$ID" "$@" -- sed -n "s/^$key:[[:space:]]*//p" /proc/self/status
}

@test "every namespace is the sandbox's own" {
	create_sandbox
	local ns pid
	pid=$(state_of .pid)
	for ns in user mnt pid ipc uts net cgroup; do
		[ "$(readlink "/proc/$pid/ns/$ns")" != "$(readlink "/proc/self/ns/$ns")" ] || show "same $ns namespace"
		inside readlink "/proc/self/ns/$ns"
		assert_equal "$output" "$(readlink "/proc/$pid/ns/$ns")"
	done
}

@test "the network namespace holds only lo, and its owner is outside" {
	create_sandbox
	inside sh -c 'sed 1,2d /proc/net/dev | cut -d: -f1 | tr -d " "'
	assert_equal "$output" lo
	# Root inside has no power over it: adding an address is refused.
	need ip
	inside ip link set lo down
	[ "$status" != 0 ]
	inside ip addr add 10.9.9.9/8 dev lo
	[ "$status" != 0 ]
}

@test "root inside is nobody outside: 64 Ki ids of its own, mapped from 0" {
	create_sandbox
	inside cat /proc/self/uid_map
	read -r first host size <<<"$output"
	assert_equal "$first $size" "0 65536"
	[ "$host" -ge 65536 ]
	assert_equal "$(stat -c %u "/proc/$(state_of .pid)/task")" "$host"
	inside cat /proc/self/gid_map
	read -r first _ size <<<"$output"
	assert_equal "$first $size" "0 65536"
	inside sh -c 'touch /workspace/mine && stat -c %u:%g /workspace/mine'
	assert_equal "$output" 0:0
}

@test "no two sandboxes share ids" {
	create_sandbox
	local first=$ID
	create_sandbox
	[ "$(state_of .pinfold.id_base)" != "$(state_of .pinfold.id_base "$first")" ]
}

@test "pieces of /proc that show the machine are masked or not there" {
	create_sandbox
	local p
	for p in kcore keys timer_list interrupts kallsyms kpagecount kpageflags sched_debug latency_stats; do
		inside sh -c "[ ! -e /proc/$p ] || head -c 10 /proc/$p"
		[ -z "$output" ] || show "/proc/$p is readable"
	done
	for p in acpi scsi asound; do
		inside sh -c "[ ! -e /proc/$p ] || ls -A /proc/$p"
		[ -z "$output" ] || show "/proc/$p is readable"
	done
}

@test "pieces of /proc with levers in them are read-only, to root too" {
	create_sandbox
	local p
	for p in sys/kernel/core_pattern sys/kernel/hostname sys/vm/overcommit_memory sys/net/ipv4/ip_forward \
		sysrq-trigger irq/default_smp_affinity sys/kernel/randomize_va_space; do
		inside sh -c "[ ! -e /proc/$p ] || echo 1 >/proc/$p"
		[ "$status" != 0 ] || [ ! -e "/proc/$p" ] || show "/proc/$p is writable"
	done
	inside sh -c 'for d in sys bus irq fs; do [ ! -d /proc/$d ] || grep " /proc/$d ro," /proc/self/mountinfo >/dev/null || echo $d; done'
	assert_equal "$output" ""
}

@test "/sys is read-only and shows no network device of the host; its cgroups are read-only" {
	create_sandbox
	inside sh -c 'touch /sys/x || mkdir /sys/fs/cgroup/x || mkdir /sys/kernel/x'
	[ "$status" != 0 ]
	inside ls /sys/class/net
	assert_equal "$output" lo
	inside sh -c 'grep -E " (cgroup|cgroup2|sysfs) " /proc/self/mountinfo | grep -v " ro," ; find /sys/fs/cgroup -writable -type f 2>/dev/null | head -1'
	assert_equal "$output" ""
	inside sh -c 'echo 0 >/sys/fs/cgroup/cgroup.procs; echo 1 >/sys/fs/cgroup/cgroup.kill'
	[ "$status" != 0 ]
}

@test "/dev holds a handful of harmless devices, and no others can be made" {
	create_sandbox
	inside sh -c 'find /dev \( -type c -o -type b \) ! -path "/dev/pts/*" -printf "%f\n" | sort | xargs'
	assert_equal "$output" "full null random tty urandom zero"
	inside sh -c 'stat -c %t:%T /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty | xargs'
	assert_equal "$output" "1:3 1:5 1:7 1:8 1:9 5:0"
	inside sh -c 'echo x >/dev/null && head -c 3 /dev/zero | wc -c && echo x >/dev/shm/x && readlink /dev/fd /dev/stdout'
	assert_status 0
	inside mknod /tmp/sda b 8 0
	[ "$status" != 0 ]
	inside mknod /dev/kmsg c 1 11
	[ "$status" != 0 ]
}

@test "nothing can gain privileges: no_new_privs is on, a seccomp filter is on" {
	create_sandbox
	assert_equal "$(status_of NoNewPrivs)" 1
	assert_equal "$(status_of Seccomp)" 2
	assert_equal "$(status_of NoNewPrivs --user 1000)" 1
	assert_equal "$(status_of Seccomp --user 1000)" 2
	# Process 1 as well.
	inside grep -E '^(NoNewPrivs|Seccomp):' /proc/1/status
	assert_equal "$output" $'NoNewPrivs:\t1\nSeccomp:\t2'
}

@test "root has exactly the nine capabilities of package managers, others none, nobody any to pass on" {
	# chown dac_override fowner fsetid kill setgid setuid net_bind_service setfcap: capabilities(7), by bit.
	local nine=$((1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 31)) set
	nine=$(printf %016x "$nine")
	create_sandbox
	for set in CapEff CapPrm CapBnd; do assert_equal "$set $(status_of $set)" "$set $nine"; done
	for set in CapInh CapAmb; do assert_equal "$set $(status_of $set)" "$set 0000000000000000"; done
	for set in CapEff CapPrm CapInh CapAmb CapBnd; do
		assert_equal "$set $(status_of $set --user 1000)" "$set 0000000000000000"
	done
	inside sh -c 'grep -h ^CapEff /proc/1/status'
	assert_equal "$output" "CapEff:	$nine"
}

@test "the hostname is the sandbox's own, and names itself" {
	create_sandbox '{"hostname":"box.example"}'
	inside hostname
	assert_equal "$output" box.example
	inside cat /etc/hostname
	assert_equal "$output" box.example
	inside getent hosts box.example
	assert_status 0
	inside hostname other
	[ "$status" != 0 ]
}

@test "of the host's files only programs and libraries are visible" {
	create_sandbox
	local secret
	secret=$(mktemp "$HOME/pf-visible.XXXXXX")
	inside ls -A /root
	rm -f "$secret"
	refute_out "$(basename "$secret")"
	inside sh -c 'ls -A /home /root | grep -v -e "^/" -e "^agent$" -e "^$" -e "^\."; ls -A /var/lib /var/log /srv /mnt /media /boot 2>/dev/null | grep -iE "docker|containerd|mysql|systemd|pinfold|wtmp|syslog"'
	assert_equal "$output" ""
	inside sh -c 'ls -d /etc/shadow /etc/gshadow /etc/ssh /etc/sudoers /etc/machine-id /var/lib/dpkg/lock-backend /boot/vmlinuz* /lost+found 2>/dev/null'
	assert_equal "$output" ""
	inside sh -c 'ls /usr/bin/env && touch /usr/bin/pf-x'
	assert_out /usr/bin/env
	[ "$status" != 0 ]
}

@test "/etc is synthetic: users of the sandbox, nobody's of the host" {
	create_sandbox
	inside cat /etc/passwd
	assert_out root:
	local name
	# Whoever logs in on the host and is not a system account.
	while IFS=: read -r name _ uid _; do
		if [ "$uid" -ge 1000 ] && [ "$uid" -lt 60000 ] && [ "$name" != agent ]; then refute_out "$name:"; fi
	done </etc/passwd
	inside cat /etc/resolv.conf
	assert_status 0
	assert_out nameserver
}

@test "a command has descriptors 0, 1 and 2 and no others, whatever the caller left open" {
	create_sandbox
	exec 7</etc/passwd 9</ 19<"$PF_DIR"
	inside sh -c 'n=0; while [ $n -lt 256 ]; do [ -L /proc/self/fd/$n ] && echo $n; n=$((n+1)); done | xargs'
	assert_equal "$output" "0 1 2"
	# Neither does the keeper hold on to what was open when the sandbox was made.
	create_sandbox
	exec 7<&- 9<&- 19<&-
	run readlink "/proc/$(state_of .pinfold.keeper)/fd/"*
	refute_out /etc/passwd
	refute_out "$PF_DIR"$'\n'
	# Process 1 of the sandbox: nothing of the host is open in it.
	local pid
	pid=$(state_of .pid)
	assert_equal "$(readlink "/proc/$pid/fd/"* | grep -v '^/dev/null$' || true)" ""
	assert_equal "$(readlink "/proc/$pid/cwd")" "$(pinfold exec "$ID" -- pwd)"
}

@test "process 1 is tiny and reaps orphans" {
	create_sandbox
	inside sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do (sh -c "sleep 0.05" &) ; done'
	assert_status 0
	wait_for 5 eval '[ "$(pids_of | wc -w)" = 1 ]'
	inside sh -c 'grep -l "^State:.Z" /proc/[0-9]*/status'
	assert_equal "$output" ""
	# Anonymous memory and data, not what the kernel maps for everybody.
	local kb
	kb=$(awk '/^RssAnon/ { print $2 }' "/proc/$(state_of .pid)/status")
	[ "$kb" -le 64 ] || show "process 1 has $kb KiB"
}

@test "the environment holds nothing of the caller's" {
	create_sandbox '{"env":{"GIVEN":"yes"}}'
	export PF_LEAK=secret LD_PRELOAD_X=1 _OCI_SYNCPIPE=3 AWS_SECRET_ACCESS_KEY=x
	inside env
	assert_out GIVEN=yes
	refute_out PF_LEAK
	refute_out _OCI
	refute_out AWS_
	refute_out BATS_
	assert_equal "$(sed 's/=.*//' <<<"$output" | sort | xargs)" "GIVEN HOME LANG PATH USER"
	# Not in the keeper-made processes either.
	run tr '\0' '\n' <"/proc/$(state_of .pid)/environ"
	[[ "$output" != *PF_LEAK* ]]
}

@test "the host's mount table does not change while sandboxes live" {
	local before
	before=$(cut -d' ' -f3- /proc/self/mountinfo | sort)
	create_sandbox '{"filesystem":{"size":"64M","writable_paths":["/data","/tmp"],"tmp_size":"8M"}}'
	inside touch /data/x
	assert_status 0
	assert_equal "$(cut -d' ' -f3- /proc/self/mountinfo | sort)" "$before"
	pinfold destroy "$ID"
	assert_equal "$(cut -d' ' -f3- /proc/self/mountinfo | sort)" "$before"
}

@test "state directories are closed to other users" {
	create_sandbox
	local open
	open=$(find "$ROOT" "$STORE" -mindepth 1 -maxdepth 1 -perm /077 ! -type l)
	assert_equal "$open" ""
	assert_equal "$(stat -c %a "$ROOT/$ID" "$STORE/sandboxes/$ID" | xargs)" "700 700"
	# No socket by which a stranger, or a sandbox with the host's network, could talk to a keeper.
	run grep -a '@.*pinfold' /proc/net/unix
	[ -z "$output" ]
}

@test "a sandbox cannot use swap, core files or the host's keyring" {
	create_sandbox
	inside sh -c 'ulimit -c; ulimit -Hc'
	assert_equal "$output" $'0\n0'
	# In bytes it is one, where ours allows it: none would still have a program named by core_pattern started.
	inside grep core /proc/self/limits
	[[ "$output" =~ core\ file\ size\ +1\ +1\  || "$(ulimit -Hc)" = 0 ]] || show
	inside cat /proc/keys
	assert_equal "$output" ""
}

@test "an interrupted create says so and leaves nothing: no helper, no mount, no group" {
	# A root that cannot be made into one: the last step before the payload fails.
	mkdir -p "$PF_DIR/rootfs/etc"
	printf 'x' >"$PF_DIR/rootfs/proc"
	new_id
	config
	pf create "$ID" --config "$CONFIG" --image "$PF_DIR/rootfs"
	assert_refused /proc
	assert_gone "$ID"
}
