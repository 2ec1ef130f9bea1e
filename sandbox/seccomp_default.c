/* The list for agent sessions: theory of operation.
 *
 * It starts from what container engines allow by default and takes away what an agent's session has no use
 * for or what has been a way out of containers again and again: foreign ABIs, socket families other than
 * unix, inet, inet6 and NETLINK_ROUTE, io_uring, user namespaces and with them the mount and netfilter code,
 * terminal input injection, PI futex requeueing. Three kinds of "no":
 *
 *  EPERM   a call we know and refuse. Programs expect it from an unprivileged process.
 *  ENOSYS  a call we do not know, that is: newer than this list. Libraries probe new calls and fall back on
 *          ENOSYS, and only on that. clone3 is refused so, too: its flags are behind a pointer, where a
 * filter cannot see them, and every libc falls back to clone, whose flags it can. KILL    another ABI than
 * the machine's own. Nobody comes here by accident, and one table is enough to keep right.
 *
 * A refused socket family answers EAFNOSUPPORT, which is what a kernel built without it says: programs that
 * probe (AF_ALG for crypto, AF_VSOCK, AF_PACKET, further netlink families) then take their other path, where
 * EPERM makes some of them give up. Protocols answer EPROTONOSUPPORT for the same reason.
 *
 * ptrace and its kin are allowed: debuggers are daily tools, a tracer cannot take its tracee past the filter
 * (since Linux 4.8 the filter runs after the tracer's changes), and pid and user namespaces bound whom it can
 * reach.
 *
 * int and unsigned arguments are compared by their low 32 bits, as the kernel reads them: the upper half of
 * the register may hold anything, and a test on it would be a way around (CVE-2019-10063). */
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "sandbox/seccomp_gen.h"

#define ALLOW SECCOMP_RET_ALLOW
#define FAIL(e) (SECCOMP_RET_ERRNO | (uint32_t)(e))

/* Names that an architecture does not have are passed over. */
static const char *const allowed[] = {
	/* files */
	"access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup",
	"dup2", "dup3", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat",
	"fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock",
	"fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "futimesat", "getcwd",
	"getdents", "getdents64", "getxattr", "getxattrat", "lchown", "lgetxattr", "link", "linkat",
	"listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat",
	"memfd_create", "memfd_secret", "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at",
	"newfstatat", "open", "openat", "openat2", "pipe", "pipe2", "pread64", "preadv", "preadv2",
	"pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv",
	"removexattr", "removexattrat", "rename", "renameat", "renameat2", "rmdir", "sendfile", "setxattr",
	"setxattrat", "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync", "sync_file_range",
	"syncfs", "tee", "truncate", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimes",
	"vmsplice", "write", "writev",
	/* waiting, events, asynchronous input and output */
	"epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd",
	"eventfd2", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel",
	"io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit", "poll", "ppoll", "pselect6",
	"select", "signalfd", "signalfd4", "timerfd_create", "timerfd_gettime", "timerfd_settime",
	/* memory */
	"brk", "get_mempolicy", "madvise", "map_shadow_stack", "membarrier", "mincore", "mlock", "mlock2",
	"mlockall", "mmap", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap",
	"pkey_alloc", "pkey_free", "pkey_mprotect", "remap_file_pages",
	/* processes and threads */
	"arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex_waitv",
	"get_robust_list", "getcpu", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrlimit",
	"getrusage", "getsid", "gettid", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule",
	"landlock_create_ruleset", "landlock_restrict_self", "pause", "pidfd_getfd", "pidfd_open",
	"pidfd_send_signal", "process_madvise", "prctl", "prlimit64", "process_mrelease", "process_vm_readv",
	"process_vm_writev", "ptrace", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending",
	"rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
	"rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
	"sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity",
	"sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "set_robust_list",
	"set_tid_address", "setpgid", "setpriority", "setrlimit", "setsid", "sigaltstack", "tgkill", "tkill",
	"vfork", "wait4", "waitid",
	/* identity */
	"getegid", "geteuid", "getgid", "getgroups", "getresgid", "getresuid", "getuid", "setfsgid",
	"setfsuid", "setgid", "setgroups", "setregid", "setresgid", "setresuid", "setreuid", "setuid",
	/* time and the machine; the clocks may be read, and the kernel refuses to set them */
	"adjtimex", "alarm", "clock_adjtime", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer",
	"getrandom", "gettimeofday", "nanosleep", "setitimer", "sysinfo", "time", "timer_create",
	"timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "times", "uname",
	/* sockets, once socket() has let the family pass */
	"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
	"recvfrom", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
	/* System V and POSIX message passing: the ipc namespace bounds it */
	"mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl",
	"msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt",
	"shmget"};

/* Known, and refused with EPERM. */
static const char *const refused[] = {
	/* the kernel's own machinery */
	"acct", "bpf", "delete_module", "finit_module", "init_module", "io_uring_enter", "io_uring_register",
	"io_uring_setup", "ioperm", "iopl", "kexec_file_load", "kexec_load", "lookup_dcookie", "modify_ldt",
	"nfsservctl", "perf_event_open", "quotactl", "quotactl_fd", "reboot", "swapoff", "swapon", "syslog",
	"userfaultfd", "vhangup", "_sysctl", "sysfs", "uselib", "ustat",
	/* what the machine shares: clocks, memory placement, all files by handle or by watching a mount */
	"clock_settime", "fanotify_init", "fanotify_mark", "kcmp", "mbind", "migrate_pages", "move_pages",
	"open_by_handle_at", "set_mempolicy", "set_mempolicy_home_node", "settimeofday",
	/* whether a file of somebody else was read lately */
	"cachestat"};

/* Names without a call behind them on these machines. They stand with their neighbours, for a smaller filter:
 * what is let through, the kernel answers with ENOSYS. */
static const char *const dead_allowed[] = {
	"epoll_ctl_old", "epoll_wait_old", "get_thread_area", "set_thread_area", "vserver"};
static const char *const dead_refused[] = {"afs_syscall", "create_module", "get_kernel_syms", "getpmsg",
	"putpmsg", "query_module", "security", "tuxcall"};

/* Keys belong to a user, not to a namespace of ours. */
static const char *const keyrings[] = {"add_key", "keyctl", "request_key"};

/* Refused unless nested. */
static const char *const nesting[] = {"chroot", "fsconfig", "fsmount", "fsopen", "fspick", "mount",
	"mount_setattr", "move_mount", "open_tree", "open_tree_attr", "pivot_root", "setdomainname",
	"sethostname", "setns", "umount2"};

#define NS_FLAGS                                                                                      \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | \
		CLONE_NEWNET)

#define ARG(n, o, v)                                               \
	{                                                          \
		.arg = (n), .op = (o), .low32 = true, .value = (v) \
	}
#define ARG_MASKED(n, o, m, v)                                                  \
	{                                                                       \
		.arg = (n), .op = (o), .low32 = true, .value = (v), .mask = (m) \
	}

struct list {
	struct pf_sc_policy *policy;
	uint32_t arch;
};

static void rule(
	const struct list *l, const char *name, uint32_t action, const struct pf_sc_cond *conds, size_t n)
{
	/* libseccomp's tokens are the kernel's AUDIT_ARCH values for both machines we have a list for. */
	int nr = pf_sc_number(l->arch, name);

	if (nr >= 0)
		pf_sc_add_rule(l->policy, l->arch, (uint32_t)nr, action, conds, n);
}

static void rules(const struct list *l, const char *const *names, size_t n, uint32_t action)
{
	for (size_t i = 0; i < n; i++)
		rule(l, names[i], action, NULL, 0);
}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define RULES(l, names, action) rules(l, names, COUNT(names), action)
/* All of these conditions, in curly brackets, must hold. */
#define RULE(l, name, action, ...)                                \
	do {                                                      \
		const struct pf_sc_cond conds_[] = {__VA_ARGS__}; \
		rule(l, name, action, conds_, COUNT(conds_));     \
	} while (0)
#define RULE_ELSE(l, name, action) rule(l, name, action, NULL, 0)

/* Values from the kernel's user API that libc's headers do not have, or have in headers that clash. */
#define TYPE_MASK 0xf /* of socket()'s type; the rest are flags */
#define NETLINK_ROUTE_ 0
#define TCP 6
#define UDP 17
#define TIOCLINUX_ 0x541c
#define FUTEX_CMD 0x7f /* without the private and clock flags */
#define FUTEX_WAIT_REQUEUE_PI_ 11
#define FUTEX_CMP_REQUEUE_PI_ 12

static void socket_rules(const struct list *l)
{
	RULE(l, "socket", FAIL(EAFNOSUPPORT), ARG(0, PF_SC_NE, AF_UNIX), ARG(0, PF_SC_NE, AF_INET),
		ARG(0, PF_SC_NE, AF_INET6), ARG(0, PF_SC_NE, AF_NETLINK));
	RULE(l, "socket", FAIL(EPROTONOSUPPORT), ARG(0, PF_SC_EQ, AF_NETLINK),
		ARG(2, PF_SC_NE, NETLINK_ROUTE_));
	RULE(l, "socket", ALLOW, ARG(0, PF_SC_EQ, AF_NETLINK));
	/* Raw and packet sockets: the kernel's own answer to whoever lacks the capability. */
	RULE(l, "socket", FAIL(EPERM), ARG_MASKED(1, PF_SC_MASKED_NE, TYPE_MASK, SOCK_STREAM),
		ARG_MASKED(1, PF_SC_MASKED_NE, TYPE_MASK, SOCK_DGRAM),
		ARG_MASKED(1, PF_SC_MASKED_NE, TYPE_MASK, SOCK_SEQPACKET));
	RULE(l, "socket", ALLOW, ARG(0, PF_SC_EQ, AF_UNIX));
	/* Over inet, SEQPACKET and other protocols than these mean SCTP, MPTCP, SMC, L2TP, UDP-Lite, ping. */
	RULE(l, "socket", FAIL(EPERM), ARG_MASKED(1, PF_SC_MASKED_EQ, TYPE_MASK, SOCK_SEQPACKET));
	RULE(l, "socket", ALLOW, ARG(2, PF_SC_EQ, 0));
	RULE(l, "socket", ALLOW, ARG(2, PF_SC_EQ, TCP),
		ARG_MASKED(1, PF_SC_MASKED_EQ, TYPE_MASK, SOCK_STREAM));
	RULE(l, "socket", ALLOW, ARG(2, PF_SC_EQ, UDP),
		ARG_MASKED(1, PF_SC_MASKED_EQ, TYPE_MASK, SOCK_DGRAM));
	RULE_ELSE(l, "socket", FAIL(EPROTONOSUPPORT));

	RULE(l, "socketpair", ALLOW, ARG(0, PF_SC_EQ, AF_UNIX));
	RULE_ELSE(l, "socketpair", FAIL(EAFNOSUPPORT));
}

static void argument_rules(const struct list *l)
{
	/* Both put input into a terminal that outlives the session's hold on it. */
	RULE(l, "ioctl", FAIL(EPERM), ARG(1, PF_SC_EQ, TIOCSTI));
	RULE(l, "ioctl", FAIL(EPERM), ARG(1, PF_SC_EQ, TIOCLINUX_));
	RULE_ELSE(l, "ioctl", ALLOW);

	/* Asking, the two personalities containers need, and no address randomisation for debuggers. What
	 * stays out weakens memory protection or reaches dead emulation code. */
	RULE(l, "personality", ALLOW, ARG(0, PF_SC_EQ, 0xffffffff));
	RULE(l, "personality", ALLOW,
		ARG_MASKED(0, PF_SC_MASKED_EQ, ~(uint32_t)(PER_LINUX32 | UNAME26 | ADDR_NO_RANDOMIZE), 0));
	RULE_ELSE(l, "personality", FAIL(EPERM));

	/* Nothing but real-time priority inheritance in old libraries asks for these two. */
	RULE(l, "futex", FAIL(ENOSYS), ARG_MASKED(1, PF_SC_MASKED_EQ, FUTEX_CMD, FUTEX_WAIT_REQUEUE_PI_));
	RULE(l, "futex", FAIL(ENOSYS), ARG_MASKED(1, PF_SC_MASKED_EQ, FUTEX_CMD, FUTEX_CMP_REQUEUE_PI_));
	RULE_ELSE(l, "futex", ALLOW);
}

static void namespace_rules(const struct list *l, bool nested)
{
	if (nested) {
		RULES(l, nesting, ALLOW);
		RULE_ELSE(l, "clone", ALLOW);
		RULE_ELSE(l, "clone3", ALLOW);
		RULE_ELSE(l, "unshare", ALLOW);
		/* A runtime inside takes ENOSYS for a kernel without keyrings and goes on; EPERM stops it. */
		RULES(l, keyrings, FAIL(ENOSYS));
		return;
	}
	RULES(l, nesting, FAIL(EPERM));
	RULES(l, keyrings, FAIL(EPERM));
	RULE(l, "clone", ALLOW, ARG_MASKED(0, PF_SC_MASKED_EQ, NS_FLAGS, 0));
	RULE_ELSE(l, "clone", FAIL(EPERM));
	RULE_ELSE(l, "clone3", FAIL(ENOSYS));
	/* In clone's flags the bit of the time namespace is part of the exit signal. */
	RULE(l, "unshare", ALLOW, ARG_MASKED(0, PF_SC_MASKED_EQ, NS_FLAGS | CLONE_NEWTIME, 0));
	RULE_ELSE(l, "unshare", FAIL(EPERM));
}

/* The first rule that fits a call counts, so these come before the others. */
static void strict_rules(const struct list *l)
{
	static const char *const names[] = {"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd",
		"personality", "mq_open", "process_madvise", "sched_setattr", "sched_setscheduler"};

	RULES(l, names, FAIL(EPERM));
	RULE(l, "socket", FAIL(EAFNOSUPPORT), ARG(0, PF_SC_NE, AF_UNIX));
}

/* Nothing but this list keeps a command without namespaces from these: the caller's session bus, agents and
 * shared memory are his, and file rules say nothing about them. */
static void bare_rules(const struct list *l)
{
	static const char *const ipc[] = {"msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop",
		"semtimedop", "shmat", "shmctl", "shmdt", "shmget"};
	/* Landlock knows nothing of owners and attributes, and of truncate() only since its third version: by
	 * path these reach what could not be opened. Modes and times are not here, since no compiler's output
	 * becomes a program without chmod(). */
	static const char *const by_path[] = {"truncate", "chown", "lchown", "fchownat", "setxattr",
		"lsetxattr", "removexattr", "lremovexattr", "setxattrat", "removexattrat"};

	RULE_ELSE(l, "socket", FAIL(EAFNOSUPPORT));
	RULES(l, ipc, FAIL(EPERM));
	RULES(l, by_path, FAIL(EPERM));
	RULE(l, "prlimit64", FAIL(EPERM), ARG(0, PF_SC_NE, 0));
}

int pf_seccomp_default(const struct pf_seccomp_opts *opts, struct pf_bpf *out, struct pf_err *err)
{
	PF_SC_POLICY struct pf_sc_policy policy = {.bad_arch = SECCOMP_RET_KILL_PROCESS};
	struct list l = {.policy = &policy, .arch = opts->arch ? opts->arch : seccomp_arch_native()};

	if (l.arch != AUDIT_ARCH_X86_64 && l.arch != AUDIT_ARCH_AARCH64)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"seccomp: the default list knows x86_64 and aarch64, not arch 0x%x: give a list of "
			"your own",
			l.arch);
	pf_sc_add_segment(&policy, l.arch, 0, FAIL(ENOSYS));
	if (l.arch == AUDIT_ARCH_X86_64) {
		pf_sc_add_segment(&policy, l.arch, PF_SC_X32_BIT, SECCOMP_RET_KILL_PROCESS);
		/* What a tracer leaves behind when it skips a call. */
		pf_sc_add_segment(&policy, l.arch, UINT32_MAX, FAIL(ENOSYS));
	}
	for (const char *const *n = opts->notify; n && *n; n++)
		rules(&l, n, 1, SECCOMP_RET_USER_NOTIF);
	if (opts->bare)
		bare_rules(&l);
	if (opts->strict)
		strict_rules(&l);
	RULES(&l, allowed, ALLOW);
	RULES(&l, dead_allowed, ALLOW);
	RULES(&l, refused, FAIL(EPERM));
	RULES(&l, dead_refused, FAIL(EPERM));
	socket_rules(&l);
	argument_rules(&l);
	namespace_rules(&l, opts->nested);
	return pf_sc_compile(&policy, out, err);
}

static int build_default(void *arg, struct pf_bpf *out, struct pf_err *err)
{
	return pf_seccomp_default(arg, out, err);
}

int pf_seccomp_default_cached(
	int cache_dirfd, const struct pf_seccomp_opts *opts, struct pf_bpf *out, struct pf_err *err)
{
	struct pf_seccomp_opts copy = *opts;
	char key[64];
	int len = snprintf(key, sizeof(key), "default nested=%d strict=%d bare=%d arch=0x%x", opts->nested,
		opts->strict, opts->bare, opts->arch);

	return pf_seccomp_cached(cache_dirfd, key, (size_t)len, build_default, &copy, out, err);
}
