/* The list for sessions: what it decides, for both machines, by running the program over numbers and
 * arguments; that the kernel decides the same; and that the cache never hands out another filter. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/seccomp.h"
#include "tests/unit/seccomp_run.h"

#define ALLOW SECCOMP_RET_ALLOW
#define FAIL(e) (SECCOMP_RET_ERRNO | (uint32_t)(e))
#define KILL SECCOMP_RET_KILL_PROCESS
#define UPPER 0xabcdef0100000000ULL /* what an int's upper half may hold */

static const uint32_t machines[] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64};

static struct pf_bpf list(uint32_t arch, bool nested)
{
	struct pf_seccomp_opts opts = {.nested = nested, .arch = arch};
	struct pf_err err = PF_ERR_INIT;
	struct pf_bpf out = {0};

	if (pf_seccomp_default(&opts, &out, &err) < 0)
		fail_msg("%s", err.msg);
	return out;
}

static uint32_t ask(const struct pf_bpf *b, uint32_t arch, int nr, uint64_t a0, uint64_t a1, uint64_t a2)
{
	struct seccomp_data d = {.arch = arch, .nr = nr, .args = {a0, a1, a2}};

	return seccomp_run(b->insns, b->len, &d);
}

static int number(uint32_t arch, const char *name)
{
	return seccomp_syscall_resolve_name_arch(arch, name);
}

/* Every name in the list that the machine has must get this answer, with any arguments. */
static void all_get(const struct pf_bpf *b, uint32_t arch, uint32_t want, const char *const *names)
{
	static const uint64_t values[] = {0, 1, UINT32_MAX, UINT64_MAX, CLONE_NEWUSER, UPPER};

	for (; *names; names++) {
		int nr = number(arch, *names);

		for (size_t i = 0; nr >= 0 && i < 6; i++) {
			uint32_t got = ask(b, arch, nr, values[i], values[(i + 1) % 6], values[(i + 2) % 6]);

			if (got != want)
				fail_msg("arch 0x%x %s: 0x%x instead of 0x%x", arch, *names, got, want);
		}
	}
}

/* Promise: the ways to more kernel than a session needs are closed. */
static void test_refused(void **state)
{
	static const char *const mounts[] = {"mount", "umount2", "pivot_root", "chroot", "fsopen", "fsconfig",
		"fsmount", "fspick", "open_tree", "move_mount", "mount_setattr", "setns", "sethostname",
		"setdomainname", NULL};
	static const char *const always[] = {"bpf", "perf_event_open", "userfaultfd", "io_uring_setup",
		"io_uring_enter", "io_uring_register", "kexec_load", "kexec_file_load", "init_module",
		"finit_module", "delete_module", "reboot", "swapon", "swapoff", "acct", "quotactl",
		"quotactl_fd", "syslog", "iopl", "ioperm", "settimeofday", "clock_settime",
		"open_by_handle_at", "fanotify_init", "mbind", "move_pages", "modify_ldt", "lookup_dcookie",
		"vhangup", NULL};
	static const char *const keys[] = {"add_key", "keyctl", "request_key", NULL};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		PF_BPF struct pf_bpf plain = list(machines[i], false), nested = list(machines[i], true);

		all_get(&plain, machines[i], FAIL(EPERM), mounts);
		all_get(&nested, machines[i], ALLOW, mounts);
		all_get(&plain, machines[i], FAIL(EPERM), always);
		all_get(&nested, machines[i], FAIL(EPERM), always);
		all_get(&plain, machines[i], FAIL(EPERM), keys);
		all_get(&nested, machines[i], FAIL(ENOSYS), keys);
	}
}

/* Promise: work goes on: what every program and debugger calls is allowed, whatever the arguments. */
static void test_allowed(void **state)
{
	static const char *const names[] = {"read", "write", "openat", "close", "mmap", "mprotect", "munmap",
		"brk", "rt_sigaction", "rt_sigreturn", "execve", "execveat", "exit", "exit_group", "wait4",
		"waitid", "kill", "connect", "bind", "listen", "accept4", "sendmsg", "recvmsg", "epoll_pwait",
		"ppoll", "pselect6", "inotify_add_watch", "getrandom", "prctl", "ptrace", "process_vm_readv",
		"process_vm_writev", "seccomp", "landlock_create_ruleset", "memfd_create", "pidfd_open",
		"pidfd_send_signal", "statx", "openat2", "faccessat2", "close_range", "copy_file_range",
		"renameat2", "utimensat", "fallocate", "setxattr", "chown", "fchownat", "setresuid",
		"setgroups", "capset", "prlimit64", "sched_setaffinity", "membarrier", "rseq",
		"set_robust_list", "timer_create", "timerfd_create", "signalfd4", "eventfd2", "pipe2", "dup3",
		"fork", "vfork", "arch_prctl", "open", "stat", "poll", "mknodat", "name_to_handle_at",
		"shmget", "mq_open", NULL};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		PF_BPF struct pf_bpf b = list(machines[i], false);

		all_get(&b, machines[i], ALLOW, names);
		assert_int_equal(ask(&b, machines[i], 452, 0, 0, 0), ALLOW); /* fchmodat2 */
	}
}

/* Promise: calls that the list does not know, on both sides of it, fail with ENOSYS; other ABIs kill. */
static void test_unknown_and_foreign(void **state)
{
	static const uint32_t foreign[] = {
		AUDIT_ARCH_I386, AUDIT_ARCH_ARM, AUDIT_ARCH_MIPS, AUDIT_ARCH_RISCV64, 0};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		PF_BPF struct pf_bpf b = list(machines[i], false);

		for (int nr = 470; nr < 4096; nr++)
			assert_int_equal(ask(&b, machines[i], nr, 0, 0, 0), FAIL(ENOSYS));
		for (int nr = 454; nr <= 461; nr++)
			assert_int_equal(ask(&b, machines[i], nr, 0, 0, 0), FAIL(ENOSYS));
		assert_int_equal(ask(&b, machines[i], -1, 0, 0, 0), FAIL(ENOSYS));
		assert_int_equal(ask(&b, machines[i], 435, 0, 88, 0), FAIL(ENOSYS)); /* clone3 */
		for (size_t f = 0; f < sizeof(foreign) / sizeof(foreign[0]); f++)
			for (int nr = -1; nr < 1024; nr++)
				assert_int_equal(ask(&b, foreign[f], nr, 0, 0, 0), KILL);
		assert_int_equal(ask(&b, machines[1 - i], 0, 0, 0, 0), KILL);
		for (uint32_t nr = 0; machines[i] == AUDIT_ARCH_X86_64 && nr < 1024; nr++) {
			assert_int_equal(ask(&b, machines[i], (int)(nr | 0x40000000), 0, 0, 0), KILL);
			assert_int_equal(ask(&b, machines[i], (int)(nr | 0xc0000000), 0, 0, 0), KILL);
		}
	}
}

/* The socket policy, written down a second time. */
static uint32_t socket_policy(uint32_t family, uint32_t type, uint32_t protocol)
{
	uint32_t t = type & 0xf;

	if (family == AF_NETLINK)
		return protocol == 0 ? ALLOW : FAIL(EPROTONOSUPPORT);
	if (family != AF_UNIX && family != AF_INET && family != AF_INET6)
		return FAIL(EAFNOSUPPORT);
	if (family == AF_UNIX)
		return t == SOCK_STREAM || t == SOCK_DGRAM || t == SOCK_SEQPACKET ? ALLOW : FAIL(EPERM);
	if (t != SOCK_STREAM && t != SOCK_DGRAM)
		return FAIL(EPERM);
	return protocol == 0 || protocol == (t == SOCK_STREAM ? 6 : 17) ? ALLOW : FAIL(EPROTONOSUPPORT);
}

/* Promise: every family, type and protocol, with flags and with garbage in the registers' upper halves, gets
 * what the policy says. */
static void test_sockets(void **state)
{
	static const uint32_t flags[] = {0, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_CLOEXEC | SOCK_NONBLOCK, 0x10};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		PF_BPF struct pf_bpf b = list(machines[i], false);
		int socket_nr = number(machines[i], "socket"), pair_nr = number(machines[i], "socketpair");

		for (uint32_t family = 0; family < 64; family++)
			for (uint32_t type = 0; type < 16; type++)
				for (uint32_t protocol = 0; protocol < 300; protocol++)
					for (size_t f = 0; f < 5; f++) {
						uint32_t t = type | flags[f],
							 want = socket_policy(family, t, protocol);

						assert_int_equal(
							ask(&b, machines[i], socket_nr, family, t, protocol),
							want);
						assert_int_equal(
							ask(&b, machines[i], socket_nr, family | UPPER,
								t | UPPER, protocol | UPPER),
							want);
					}
		for (uint64_t family = 0; family < 64; family++)
			assert_int_equal(ask(&b, machines[i], pair_nr, family | UPPER, 1, 0),
				family == AF_UNIX ? ALLOW : FAIL(EAFNOSUPPORT));
	}
}

/* Promise: terminal injection, namespaces, personalities, PI requeueing are told by the bits the kernel
 * reads, no more and no fewer. */
static void test_arguments(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		uint32_t m = machines[i];
		PF_BPF struct pf_bpf b = list(m, false), nested = list(m, true);
		int io = number(m, "ioctl"), clone_nr = number(m, "clone"), unshare_nr = number(m, "unshare");
		int pers = number(m, "personality"), futex = number(m, "futex");
		static const uint32_t ns[] = {CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
			CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET};
		static const uint32_t threads = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
						CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
						CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;

		for (uint64_t upper = 0; upper < 2; upper++) {
			uint64_t u = upper ? UPPER : 0;

			assert_int_equal(ask(&b, m, io, 0, u | TIOCSTI, 0), FAIL(EPERM));
			assert_int_equal(ask(&b, m, io, 0, u | 0x541c, 0), FAIL(EPERM));
			assert_int_equal(ask(&b, m, io, 0, u | TIOCGWINSZ, 0), ALLOW);
			for (size_t n = 0; n < 7; n++) {
				assert_int_equal(
					ask(&b, m, clone_nr, u | ns[n] | SIGCHLD, 0, 0), FAIL(EPERM));
				assert_int_equal(ask(&nested, m, clone_nr, u | ns[n] | SIGCHLD, 0, 0), ALLOW);
				assert_int_equal(ask(&b, m, unshare_nr, u | ns[n], 0, 0), FAIL(EPERM));
				assert_int_equal(ask(&nested, m, unshare_nr, u | ns[n], 0, 0), ALLOW);
			}
			assert_int_equal(ask(&b, m, unshare_nr, u | 0x80, 0, 0), FAIL(EPERM));
			assert_int_equal(ask(&b, m, clone_nr, u | SIGCHLD, 0, 0), ALLOW);
			assert_int_equal(ask(&b, m, clone_nr, u | threads, 0, 0), ALLOW);
			assert_int_equal(ask(&b, m, unshare_nr, u | CLONE_FS | CLONE_FILES, 0, 0), ALLOW);
			assert_int_equal(ask(&b, m, pers, u | 0xffffffff, 0, 0), ALLOW);
			assert_int_equal(ask(&b, m, pers, u, 0, 0), ALLOW);
			assert_int_equal(ask(&b, m, pers, u | 0x20008, 0, 0), ALLOW);
			assert_int_equal(ask(&b, m, pers, u | 0x0040000, 0, 0), ALLOW);
			assert_int_equal(
				ask(&b, m, pers, u | 0x0400000, 0, 0), FAIL(EPERM)); /* READ_IMPLIES_EXEC */
			assert_int_equal(
				ask(&b, m, pers, u | 0x0100000, 0, 0), FAIL(EPERM)); /* MMAP_PAGE_ZERO */
			assert_int_equal(ask(&b, m, pers, u | 4, 0, 0), FAIL(EPERM));
			for (uint64_t op = 0; op < 14; op++) {
				uint32_t want = op == 11 || op == 12 ? FAIL(ENOSYS) : ALLOW;

				assert_int_equal(ask(&b, m, futex, 0, u | op, 0), want);
				assert_int_equal(ask(&b, m, futex, 0, u | op | 128 | 256, 0), want);
			}
		}
		assert_int_equal(ask(&nested, m, 435, 0, 88, 0), ALLOW); /* clone3 */
	}
}

/* Promise: no list is invented for a machine that has none. */
static void test_other_machine(void **state)
{
	struct pf_seccomp_opts opts = {.arch = AUDIT_ARCH_RISCV64};
	struct pf_err err = PF_ERR_INIT;
	struct pf_bpf out = {0};

	(void)state;
	assert_int_equal(pf_seccomp_default(&opts, &out, &err), -1);
	assert_int_equal(err.kind, PF_ERR_UNSUPPORTED);
}

/* Promise: the filter stays small; its size is what a start pays for. */
static void test_size(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		PF_BPF struct pf_bpf b = list(machines[i], false);

		print_message("arch 0x%x: %d instructions\n", machines[i], b.len);
		assert_true(b.len < 160);
	}
}

/* --- in the kernel ---------------------------------------------------------------------------------------
 */

struct trial {
	long nr;
	unsigned long args[6];
	int before, after; /* errno without and with the filter */
};

static int try(const struct trial *t)
{
	long r = syscall(t->nr, t->args[0], t->args[1], t->args[2], t->args[3], t->args[4], t->args[5]);
	int e = errno;

	if (r >= 0 && (t->nr == SYS_socket))
		close((int)r);
	return r < 0 ? e : 0;
}

/* Fill in .after (and .before, where asked) of shared trials in children, one with the filter. */
static void run_trials(const struct pf_bpf *b, struct trial *t, size_t n, bool before)
{
	for (int filtered = !before; filtered < 2; filtered++) {
		int status = 0;
		pid_t pid = fork();

		if (pid == 0) {
			if (filtered &&
				(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || pf_seccomp_load(b, 0) < 0))
				_exit(1);
			for (size_t i = 0; i < n; i++)
				*(filtered ? &t[i].after : &t[i].before) = try(&t[i]);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
}

static struct trial *shared(size_t n)
{
	void *p = mmap(
		NULL, n * sizeof(struct trial), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/* Promise: in the kernel, every family 0..46 and type 0..11 is refused as the policy says, and what it allows
 * answers as without a filter. */
static void test_kernel_sockets(void **state)
{
	PF_BPF struct pf_bpf b = list(0, false);
	const size_t max = 47UL * 12;
	struct trial *t = shared(max);
	size_t n = 0;

	(void)state;
	for (unsigned long family = 0; family <= 46; family++)
		for (unsigned long type = 0; type <= 11; type++)
			t[n++] = (struct trial){.nr = SYS_socket, .args = {family, type, 0}};
	run_trials(&b, t, n, true);
	for (size_t i = 0; i < n; i++) {
		uint32_t want = socket_policy((uint32_t)t[i].args[0], (uint32_t)t[i].args[1], 0);

		if (t[i].after != (want == ALLOW ? t[i].before : (int)(want & SECCOMP_RET_DATA)))
			fail_msg("family %lu type %lu: errno %d, without the filter %d", t[i].args[0],
				t[i].args[1], t[i].after, t[i].before);
	}
	munmap(t, max * sizeof(*t));
}

/* Promise: the kernel refuses the calls themselves, with arguments that would be harmless. */
static void test_kernel_calls(void **state)
{
	static char zeroes[128];
	const struct trial trials[] = {
		{.nr = SYS_clone, .args = {CLONE_NEWUSER | SIGCHLD}, .before = EPERM},
		{.nr = SYS_clone3, .args = {(unsigned long)zeroes, 88}, .before = ENOSYS},
		{.nr = SYS_unshare, .args = {CLONE_NEWUSER}, .before = EPERM},
		{.nr = SYS_unshare, .args = {CLONE_NEWNET}, .before = EPERM},
		{.nr = SYS_setns, .args = {(unsigned long)-1, 0}, .before = EPERM},
		{.nr = SYS_mount, .args = {0, 0, 0, 0, 0}, .before = EPERM},
		{.nr = SYS_open_tree, .args = {0, 0, 0}, .before = EPERM},
		{.nr = SYS_fsopen, .args = {0, 0}, .before = EPERM},
		{.nr = SYS_bpf, .args = {0, (unsigned long)zeroes, 64}, .before = EPERM},
		{.nr = SYS_io_uring_setup, .args = {1, (unsigned long)zeroes}, .before = EPERM},
		{.nr = SYS_keyctl, .args = {0, (unsigned long)-3, 0}, .before = EPERM},
		{.nr = SYS_userfaultfd, .args = {0}, .before = EPERM},
		{.nr = SYS_perf_event_open, .args = {(unsigned long)zeroes, 0, 0, 0, 0}, .before = EPERM},
		{.nr = SYS_ioctl, .args = {0, TIOCSTI, 0}, .before = EPERM},
		{.nr = SYS_ioctl, .args = {0, UPPER | TIOCSTI, 0}, .before = EPERM},
		{.nr = SYS_ioctl, .args = {(unsigned long)-1, TIOCGWINSZ, 0}, .before = EBADF},
		{.nr = SYS_personality, .args = {0x0400000}, .before = EPERM},
		{.nr = 1023, .before = ENOSYS},
		{.nr = SYS_getpid, .before = 0},
	};
	const size_t n = sizeof(trials) / sizeof(trials[0]);
	PF_BPF struct pf_bpf b = list(0, false);
	struct trial *t = shared(n);

	(void)state;
	memcpy(t, trials, sizeof(trials));
	run_trials(&b, t, n, false);
	for (size_t i = 0; i < n; i++)
		if (t[i].after != t[i].before)
			fail_msg("call %ld (trial %zu): errno %d instead of %d", t[i].nr, i, t[i].after,
				t[i].before);
	munmap(t, n * sizeof(*t));
}

#ifdef __x86_64__
static long i386_getpid(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	return r;
}

/* How a child ends that makes a call of a foreign ABI: its signal, 0 for none. */
static int foreign_call(const struct pf_bpf *b, bool x32)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL); /* a sanitizer's */
		if (b && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || pf_seccomp_load(b, 0) < 0))
			_exit(1);
		if (x32)
			(void)syscall(0x40000000L | SYS_getpid);
		else
			(void)i386_getpid();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* Promise: int 0x80 and x32 numbers end the process. */
static void test_kernel_foreign(void **state)
{
	PF_BPF struct pf_bpf b = list(0, false);

	(void)state;
	assert_int_equal(foreign_call(&b, true), SIGSYS);
	if (foreign_call(NULL, false) == SIGSEGV)
		print_message("this kernel has no 32-bit calls; not tried\n");
	else
		assert_int_equal(foreign_call(&b, false), SIGSYS);
}
#endif

/* Promise: a listener comes back as a close-on-exec descriptor, and a filter the kernel refuses is an error.
 */
static void test_load(void **state)
{
	struct sock_filter notify[] = {{BPF_LD | BPF_W | BPF_ABS, 0, 0, 0},
		{BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_mkdirat},
		{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF}, {BPF_RET | BPF_K, 0, 0, ALLOW}};
	struct pf_bpf good = {notify, 4}, bad = {notify, 1};
	int status = 0;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		int fd;

		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || pf_seccomp_load(&bad, 0) != -1 ||
			errno != EINVAL)
			_exit(1);
		fd = pf_seccomp_load(&good, SECCOMP_FILTER_FLAG_NEW_LISTENER);
		if (fd < 0 || fcntl(fd, F_GETFD) != FD_CLOEXEC)
			_exit(2);
		close(fd);
		/* With the listener gone the kernel answers for it. */
		_exit(syscall(SYS_mkdirat, AT_FDCWD, "/proc/self", 0755) == -1 && errno == ENOSYS ? 0 : 3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- the cache -------------------------------------------------------------------------------------------
 */

static char cache_path[64];
static int builds;

static int make_cache(void **state)
{
	(void)state;
	builds = 0;
	snprintf(cache_path, sizeof(cache_path), "/tmp/pf-seccomp-%d", (int)getpid());
	return mkdir(cache_path, 0700);
}

static int drop_cache(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	return pf_rm_rf_at(AT_FDCWD, cache_path, &err);
}

static int build(void *arg, struct pf_bpf *out, struct pf_err *err)
{
	builds++;
	if (!arg)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "no such filter");
	out->insns = pf_calloc(2, sizeof(*out->insns));
	out->len = 2;
	out->insns[0] = (struct sock_filter){BPF_LD | BPF_W | BPF_ABS, 0, 0, 0};
	out->insns[1] = (struct sock_filter){BPF_RET | BPF_K, 0, 0, *(uint32_t *)arg};
	return 0;
}

/* The action of the filter that the cache gives for key, where one for `action` belongs. */
static uint32_t cached(int fd, const char *key, uint32_t action)
{
	PF_BPF struct pf_bpf out = {0};
	struct pf_err err = PF_ERR_INIT;

	assert_int_equal(pf_seccomp_cached(fd, key, strlen(key), build, &action, &out, &err), 0);
	assert_int_equal(out.len, 2);
	return out.insns[1].k;
}

/* The one file in the cache. */
static char *cache_file(void)
{
	PF_CLOSEDIR DIR *d = opendir(cache_path);
	char *found = NULL;
	struct dirent *e;

	assert_non_null(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.') {
			assert_null(found);
			found = pf_asprintf("%s/%s", cache_path, e->d_name);
		}
	assert_non_null(found);
	return found;
}

/* Promise: the second time nothing is built; another text is another filter; a failed build leaves nothing.
 */
static void test_cache(void **state)
{
	PF_CLOSE int fd = open(cache_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_BPF struct pf_bpf out = {0};
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *file = NULL;
	struct stat st;

	(void)state;
	assert_int_equal(pf_seccomp_cached(fd, "x", 1, build, NULL, &out, &err), -1);
	assert_int_equal(cached(fd, "key", 1), 1);
	assert_int_equal(cached(fd, "key", 2), 1); /* from the file: the text is the same */
	assert_int_equal(builds, 2);
	file = cache_file();
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(cached(fd, "kez", 3), 3);
	assert_int_equal(builds, 3);
	assert_int_equal(cached(-1, "key", 4), 4);
	assert_int_equal(builds, 4);
}

/* Promise: a file with any byte changed, cut, or grown is not believed, and is replaced. */
static void test_cache_damage(void **state)
{
	PF_CLOSE int fd = open(cache_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_FREE char *file = NULL, *good = NULL;
	struct pf_err err = PF_ERR_INIT;
	size_t len = 0;

	(void)state;
	cached(fd, "key", 1);
	file = cache_file();
	assert_int_equal(pf_read_file_at(AT_FDCWD, file, 1 << 16, &good, &len, &err), 0);
	for (size_t i = 0; i < len + 3; i++) {
		PF_FREE char *bad = pf_calloc(1, len + 1);
		PF_CLOSE int out = open(file, O_WRONLY | O_TRUNC | O_CLOEXEC);
		size_t bad_len = i < len ? len : i == len ? len - 1 : i == len + 1 ? len + 1 : 0;
		int before = builds;

		memcpy(bad, good, len);
		if (i < len)
			bad[i] ^= 0x40;
		assert_int_equal(write(out, bad, bad_len), bad_len);
		assert_int_equal(cached(fd, "key", 9), 9);
		assert_int_equal(builds, before + 1);
		assert_int_equal(cached(fd, "key", 8), 9); /* replaced by a good one */
	}
}

/* Promise: nothing is read from or written to a place that others can write, nor through a symlink. */
static void test_cache_distrust(void **state)
{
	PF_CLOSE int fd = open(cache_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_FREE char *file = NULL, *moved = NULL;

	(void)state;
	cached(fd, "key", 1);
	file = cache_file();
	assert_int_equal(chmod(file, 0620), 0);
	assert_int_equal(cached(fd, "key", 2), 2);
	moved = pf_asprintf("%s/.moved", cache_path);
	assert_int_equal(rename(file, moved), 0);
	assert_int_equal(symlink(".moved", file), 0);
	assert_int_equal(cached(fd, "key", 3), 3);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(mkfifo(file, 0600), 0);
	assert_int_equal(cached(fd, "key", 4), 4);
	if (geteuid() == 0) {
		assert_int_equal(chown(file, 1, 1), 0);
		assert_int_equal(cached(fd, "key", 5), 5);
	}
	assert_int_equal(fchmod(fd, 0770), 0);
	assert_int_equal(cached(fd, "key", 6), 6);
	assert_int_equal(fchmod(fd, 0700), 0);
	assert_int_equal(cached(fd, "key", 7), geteuid() == 0 ? 5 : 4);
}

/* Promise: the cached default list is the built one. */
static void test_cache_default(void **state)
{
	PF_CLOSE int fd = open(cache_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)state;
	for (int nested = 0; nested < 2; nested++)
		for (int i = 0; i < 2; i++) {
			struct pf_seccomp_opts opts = {.nested = nested};
			PF_BPF struct pf_bpf built = list(0, nested), from = {0};
			struct pf_err err = PF_ERR_INIT;

			assert_int_equal(pf_seccomp_default_cached(fd, &opts, &from, &err), 0);
			assert_int_equal(from.len, built.len);
			assert_memory_equal(from.insns, built.insns, built.len * sizeof(*built.insns));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_unknown_and_foreign),
		cmocka_unit_test(test_sockets),
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_other_machine),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_kernel_sockets),
		cmocka_unit_test(test_kernel_calls),
#ifdef __x86_64__
		cmocka_unit_test(test_kernel_foreign),
#endif
		cmocka_unit_test(test_load),
		cmocka_unit_test_setup_teardown(test_cache, make_cache, drop_cache),
		cmocka_unit_test_setup_teardown(test_cache_damage, make_cache, drop_cache),
		cmocka_unit_test_setup_teardown(test_cache_distrust, make_cache, drop_cache),
		cmocka_unit_test_setup_teardown(test_cache_default, make_cache, drop_cache),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
