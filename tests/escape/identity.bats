# parallel-safe
# G3 and G5: identity, capabilities, control groups, terminals, and the kernel's surface.
load ../lib/common

setup() {
	need_root
	common_setup
	create_sandbox
}
teardown() { common_teardown; }

refused() { # COMMAND... must fail inside
	inside "$@"
	[ "$status" != 0 ] || show "worked: $*"
}

# Results of trysyscalls: one line "NAME RESULT" each that must match.
results() { # EXTENDED-REGEX NAME...
	local want=$1 line
	shift
	inside /tmp/trysyscalls "$@"
	assert_status 0
	[ -n "$output" ] || show "tried nothing: $*"
	while read -r line; do
		[[ "$line" =~ \ ($want)$ ]] || show "got: $line, wanted: $want" || return 1
	done <<<"$output"
}

@test "no capability can be inherited, by file capabilities neither (CVE-2022-29162)" {
	inside grep -E '^Cap(Inh|Amb):' /proc/self/status
	assert_equal "$output" $'CapInh:\t0000000000000000\nCapAmb:\t0000000000000000'
	# A file with inheritable capabilities and one that is set-user-id give an ordinary user nothing.
	inside sh -c 'cp /usr/bin/grep /workspace/g && chmod 4755 /workspace/g && cp /usr/bin/id /workspace/id && chmod 6755 /workspace/id'
	assert_status 0
	command -v setcap >/dev/null && inside sh -c 'setcap all=ei /workspace/g 2>/dev/null; setcap cap_chown=ei /workspace/g'
	pf exec "$ID" --user 1000 -- /workspace/g -E '^Cap(Eff|Prm):' /proc/self/status
	assert_equal "$output" $'CapPrm:\t0000000000000000\nCapEff:\t0000000000000000'
	pf exec "$ID" --user 1000 -- /workspace/id -u
	assert_equal "$output" 1000
}

@test "no namespace of its own: user, mount, network, pid, by any call" {
	give_helper trysyscalls
	results 'EPERM|ENOSYS' clone/newuser clone/newns clone/newnet clone/newpid clone/newcgroup clone3 unshare/newuser unshare/newns unshare/newnet unshare/newtime
	results 'EPERM|ENOSYS' setns
	refused unshare -U true
	refused unshare -Ur true
	refused unshare -m true
	refused unshare -n true
	# An ordinary fork is not affected.
	results ok clone/plain
}

@test "no mount, by the old calls or the new, and nothing of a mount undone" {
	give_helper trysyscalls
	results 'EPERM|ENOSYS' mount umount2 pivot_root chroot fsopen fsmount fsconfig fspick open_tree open_tree_attr move_mount mount_setattr
	refused mount -t tmpfs x /mnt
	refused mount -o remount,rw /sys
	refused umount /proc/kcore
	refused umount /sys
	refused mount -t cgroup -o memory x /mnt
	refused mount --bind / /mnt
}

@test "no call into parts of the kernel that a payload has no business with" {
	give_helper trysyscalls
	results 'EPERM|ENOSYS' bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register keyctl add_key request_key \
		kexec_load init_module finit_module delete_module reboot swapon swapoff quotactl acct syslog settimeofday clock_settime \
		open_by_handle_at fanotify_init move_pages sethostname
}

@test "an unknown call is ENOSYS, a foreign architecture is death" {
	give_helper trysyscalls
	results ENOSYS unknown
	results 'SIGSYS|SIGSEGV|SIGKILL|ENOSYS' x32/getpid i386/getpid
}

@test "sockets: unix (sequenced packets too), inet and inet6 streams and datagrams, netlink for routes; no other family or type" {
	give_helper trysyscalls
	inside /tmp/trysyscalls sockets
	assert_status 0
	[ "$(grep -c . <<<"$output")" -gt 500 ]
	local open
	open=$(awk '$2 == "ok" { print $1 }' <<<"$output" | grep '/[0-9]*/[0-9]*$' | sort -t/ -k2n -k3n | xargs)
	assert_equal "$open" "socket/1/1 socket/1/2 socket/1/5 socket/2/1 socket/2/2 socket/10/1 socket/10/2 socket/16/2 socket/16/3"
	results ok socket/route
	results 'E[A-Z]*' socket/netfilter socket/sctp socket/upper-family socketpair/tipc
	results ok socketpair/unix
}

@test "no characters into a terminal's input: TIOCSTI and TIOCLINUX, upper half of the number set or not" {
	give_helper trysyscalls
	results EPERM tiocsti tiocsti/upper tioclinux tioclinux/upper
	pf exec "$ID" -- sh -c '[ "$(ps -o sid= -p $$ 2>/dev/null | tr -d " ")" = $$ ] || [ "$(cut -d" " -f6 /proc/$$/stat)" = "$$" ]'
	assert_status 0
}

@test "control groups cannot be changed: no release_agent, no write, no second view" {
	refused sh -c 'find / -xdev -name release_agent -writable 2>/dev/null | grep .; find /sys/fs/cgroup -name release_agent | grep .'
	refused sh -c 'find /sys/fs/cgroup -type f -writable | grep .'
	refused sh -c 'mkdir /sys/fs/cgroup/x'
	# Its own limits neither, from the inside.
	refused sh -c 'echo max >/sys/fs/cgroup/pids.max'
	inside sh -c 'sed "s/.*:\//\//" /proc/self/cgroup | grep -e "$0"' "$ID"
	assert_equal "$output" ""
}

@test "kernel settings cannot be written, and no setting of the host can be changed by name" {
	local f
	for f in kernel/core_pattern kernel/hostname kernel/domainname kernel/modprobe kernel/hotplug vm/drop_caches fs/binfmt_misc/register \
		net/ipv4/ip_forward kernel/shmmax kernel/ns_last_pid; do
		inside sh -c "[ ! -e /proc/sys/$f ] || ! echo x >/proc/sys/$f"
		assert_status 0
	done
	refused sh -c 'echo b >/proc/sysrq-trigger'
	refused sh -c 'echo 1000 >/proc/1/oom_score_adj && echo -1000 >/proc/self/oom_score_adj'
}

@test "kernel memory, logs, keys and devices are out of reach" {
	refused sh -c 'head -c 1 /dev/mem /dev/kmem /dev/port /dev/kmsg /dev/sda /dev/vda 2>/dev/null | grep -c . | grep -v 0'
	refused dmesg
	inside sh -c 'head -c 16 /proc/kcore 2>/dev/null | wc -c'
	assert_equal "$output" 0
	inside sh -c 'cat /proc/keys /proc/key-users 2>/dev/null | grep -v ":.* 0/" | head -3'
	refute_out _ses
	# Kernel addresses are zeroes or hidden.
	inside sh -c 'grep -v "^0* " /proc/kallsyms | head -1; cat /sys/kernel/notes 2>/dev/null | wc -c | grep -v . ; true'
	assert_equal "$output" ""
}

@test "abstract unix sockets of the host are in another world" {
	need python3
	local name="pf-abstract-$$-$RANDOM"
	python3 -c "
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind('\0$name'); s.listen(); print('up', flush=True); time.sleep(20)" >"$PF_DIR/up" &
	local server=$!
	wait_for 10 grep -q up "$PF_DIR/up"
	python3 -c "import socket; socket.socket(socket.AF_UNIX).connect('\0$name')"
	inside python3 -c "import socket; socket.socket(socket.AF_UNIX).connect('\0$name')"
	kill "$server"
	[ "$status" != 0 ]
	assert_err refused
}

@test "System V and POSIX queues and segments of the host are not there" {
	local id
	id=$(ipcmk -M 4096 | sed 's/.*: //')
	inside sh -c 'sed 1d /proc/sysvipc/shm; sed 1d /proc/sysvipc/msg; ls /dev/mqueue /dev/shm'
	ipcrm -m "$id"
	[[ "$output" != *4096* ]] || show "segments"
}

@test "root inside owns nothing outside: files, processes, links in /proc" {
	refused sh -c 'kill -0 '$$
	refused sh -c 'ls /proc/1/root/../../../../root | grep .ssh'
	refused chown 99999 /workspace
	refused chown 0 /proc/1
	refused sh -c 'nsenter -t 1 -m true'
	refused sh -c 'chroot / true'
}

@test "two sandboxes cannot see or signal each other, nor share a lock, a socket or a file" {
	local first=$ID
	pinfold exec "$first" -- sh -c 'echo mine >/workspace/f; echo mine >/dev/shm/f; echo mine >/tmp/f; setsid sleep 20 >/dev/null 2>&1 &'
	create_sandbox
	inside sh -c 'ls /workspace /dev/shm /tmp; ls -d /proc/[0-9]* | wc -l'
	refute_out f$'\n'
	[ "$(tail -1 <<<"$output")" -le 4 ]
	refused sh -c 'kill -0 3'
}
