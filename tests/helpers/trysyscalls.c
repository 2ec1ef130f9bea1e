/* Try what a sandbox should refuse, and print what happened, one attempt a line: "NAME RESULT", where RESULT
 * is "ok", an errno's name, or "SIGSYS" and the like when it was killed. Each attempt runs in a child of its
 * own, harmless where it is allowed.
 *
 *   trysyscalls              everything
 *   trysyscalls sockets      every family 0..46 x type 0..11: "socket/FAMILY/TYPE RESULT"
 *   trysyscalls calls        the rest
 *   trysyscalls NAME...      the attempts of these names only (mount, io_uring_setup, ...)
 *
 * Exit code 0 whenever all attempts were made. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NR_young_cachestat 451
#define NR_young_open_tree_attr 467

struct attempt {
	const char *name;
	long nr;
	unsigned long args[6];
};

static char zeroes[4096];
#define ZEROES ((unsigned long)zeroes)
#define TEXT(s) ((unsigned long)(s))
#define MINUS ((unsigned long)-1)

/* Arguments that a kernel which lets the call through refuses without doing harm, or whose effect dies with
 * the child. */
static const struct attempt attempts[] = {
	{"clone/newuser", SYS_clone, {CLONE_NEWUSER | SIGCHLD}},
	{"clone/newns", SYS_clone, {CLONE_NEWNS | SIGCHLD}},
	{"clone/newnet", SYS_clone, {CLONE_NEWNET | SIGCHLD}},
	{"clone/newpid", SYS_clone, {CLONE_NEWPID | SIGCHLD}},
	{"clone/newcgroup", SYS_clone, {CLONE_NEWCGROUP | SIGCHLD}},
	{"clone/plain", SYS_clone, {SIGCHLD}},
	{"clone3", SYS_clone3, {ZEROES, 88}},
	{"unshare/newuser", SYS_unshare, {CLONE_NEWUSER}},
	{"unshare/newns", SYS_unshare, {CLONE_NEWNS}},
	{"unshare/newnet", SYS_unshare, {CLONE_NEWNET}},
	{"unshare/newtime", SYS_unshare, {0x80}},
	{"unshare/files", SYS_unshare, {CLONE_FILES}},
	{"setns", SYS_setns, {MINUS, 0}},
	{"mount", SYS_mount, {TEXT("none"), TEXT("/nowhere"), TEXT("tmpfs"), 0, 0}},
	{"umount2", SYS_umount2, {TEXT("/nowhere"), 0}},
	{"pivot_root", SYS_pivot_root, {TEXT("/nowhere"), TEXT("/nowhere")}},
	{"chroot", SYS_chroot, {TEXT("/nowhere")}},
	{"fsopen", SYS_fsopen, {TEXT("tmpfs"), 0}},
	{"fsmount", SYS_fsmount, {MINUS, 0, 0}},
	{"fsconfig", SYS_fsconfig, {MINUS, 0, 0, 0, 0}},
	{"fspick", SYS_fspick, {MINUS, TEXT("/nowhere"), 0}},
	{"open_tree", SYS_open_tree, {MINUS, TEXT("/nowhere"), 0}},
	{"open_tree_attr", NR_young_open_tree_attr, {MINUS, TEXT("/nowhere"), 0, 0, 0}},
	{"move_mount", SYS_move_mount, {MINUS, TEXT(""), MINUS, TEXT(""), 0}},
	{"mount_setattr", SYS_mount_setattr, {MINUS, TEXT(""), 0, ZEROES, 32}},
	{"bpf", SYS_bpf, {0, ZEROES, 64}},
	{"perf_event_open", SYS_perf_event_open, {ZEROES, 0, MINUS, MINUS, 0}},
	{"userfaultfd", SYS_userfaultfd, {0}},
	{"io_uring_setup", SYS_io_uring_setup, {1, ZEROES}},
	{"io_uring_enter", SYS_io_uring_enter, {MINUS, 0, 0, 0, 0, 0}},
	{"io_uring_register", SYS_io_uring_register, {MINUS, 0, 0, 0}},
	{"keyctl", SYS_keyctl, {0, (unsigned long)-3, 0}},
	{"add_key", SYS_add_key, {TEXT("user"), TEXT("x"), 0, 0, 0}},
	{"request_key", SYS_request_key, {TEXT("user"), TEXT("x"), 0, 0}},
	{"kexec_load", SYS_kexec_load, {0, MINUS, 0, 0}},
	{"init_module", SYS_init_module, {0, 0, TEXT("")}},
	{"finit_module", SYS_finit_module, {MINUS, TEXT(""), 0}},
	{"delete_module", SYS_delete_module, {TEXT("nowhere"), O_NONBLOCK}},
	{"reboot", SYS_reboot, {0, 0, 0, 0}},
	{"swapon", SYS_swapon, {TEXT("/nowhere"), 0}},
	{"swapoff", SYS_swapoff, {TEXT("/nowhere")}},
	{"quotactl", SYS_quotactl, {MINUS, 0, 0, 0}},
	{"acct", SYS_acct, {TEXT("/nowhere")}},
	{"syslog", SYS_syslog, {10, 0, 0}},
	{"sethostname", SYS_sethostname, {0, MINUS}},
	{"settimeofday", SYS_settimeofday, {1, 1}},
	{"clock_settime", SYS_clock_settime, {MINUS, 1}},
	{"open_by_handle_at", SYS_open_by_handle_at, {MINUS, ZEROES, 0}},
	{"fanotify_init", SYS_fanotify_init, {0, 0}},
	{"move_pages", SYS_move_pages, {0, 0, 0, 0, 0, 0}},
	{"cachestat", NR_young_cachestat, {MINUS, 0, 0, 0}},
	{"personality/exec", SYS_personality, {0x0400000}},
	{"personality/query", SYS_personality, {0xffffffff}},
	{"tiocsti", SYS_ioctl, {0, 0x5412, 0}},
	{"tiocsti/upper", SYS_ioctl, {0, 0x100005412, 0}},
	{"tioclinux", SYS_ioctl, {0, 0x541c, 0}},
	{"tioclinux/upper", SYS_ioctl, {0, 0xffffffff0000541c, 0}},
	{"futex/requeue_pi", SYS_futex, {ZEROES, 12 | 128, 0, 0, 0, 0}},
	{"socketpair/unix", SYS_socketpair, {AF_UNIX, SOCK_SEQPACKET, 0, ZEROES}},
	{"socketpair/tipc", SYS_socketpair, {30, SOCK_STREAM, 0, ZEROES}},
	{"socket/netfilter", SYS_socket, {AF_NETLINK, SOCK_RAW, 12}},
	{"socket/route", SYS_socket, {AF_NETLINK, SOCK_RAW, 0}},
	{"socket/sctp", SYS_socket, {AF_INET, SOCK_STREAM, 132}},
	{"socket/mptcp", SYS_socket, {AF_INET, SOCK_STREAM, 262}},
	{"socket/upper-family", SYS_socket, {0x100000026, SOCK_SEQPACKET, 0}},
	{"unknown", 1023, {0}},
#ifdef __x86_64__
	{"modify_ldt", SYS_modify_ldt, {0, 0, 0}},
	{"iopl", SYS_iopl, {4}},
	{"x32/getpid", 0x40000000 | SYS_getpid, {0}},
#endif
};

static long call(const struct attempt *a)
{
	return syscall(a->nr, a->args[0], a->args[1], a->args[2], a->args[3], a->args[4], a->args[5]);
}

#ifdef __x86_64__
static long call_i386(const struct attempt *a)
{
	long r;

	(void)a;
	/* getpid of the 32-bit ABI */
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
	if (r < 0 && r > -4096) {
		errno = (int)-r;
		return -1;
	}
	return r;
}
#endif

static void report(const char *name, const struct attempt *a, long (*how)(const struct attempt *))
{
	int *result = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), status = 0;
	pid_t pid;

	if (result == MAP_FAILED) {
		printf("%s cannot-try\n", name);
		return;
	}
	*result = -1;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		pid_t self = getpid();
		long r = how(a);
		int e = r < 0 ? errno : 0;

		if (getpid() == self) /* not what a clone made */
			*result = e;
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		printf("%s cannot-try\n", name);
	else if (WIFSIGNALED(status))
		printf("%s SIG%s\n", name, sigabbrev_np(WTERMSIG(status)));
	else if (*result > 0)
		printf("%s %s\n", name,
			strerrorname_np(*result) ? strerrorname_np(*result) : "unknown-errno");
	else
		printf("%s ok\n", name);
	munmap(result, 4096);
}

static void sockets(void)
{
	for (unsigned long family = 0; family <= 46; family++)
		for (unsigned long type = 0; type <= 11; type++) {
			struct attempt a = {.nr = SYS_socket, .args = {family, type, 0}};
			char name[40];

			snprintf(name, sizeof(name), "socket/%lu/%lu", family, type);
			report(name, &a, call);
		}
}

/* Whether the attempt's name is one of those asked for; "clone" asks for "clone/newuser" too. */
static int asked(const char *name, char **argv)
{
	for (; *argv; argv++) {
		size_t n = strlen(*argv);

		if (strcmp(*argv, "calls") == 0 ||
			(strncmp(name, *argv, n) == 0 && (name[n] == 0 || name[n] == '/')))
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	int all = argc < 2;

	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
		if (all || asked(attempts[i].name, argv + 1))
			report(attempts[i].name, &attempts[i], call);
#ifdef __x86_64__
	if (all || asked("i386/getpid", argv + 1))
		report("i386/getpid", NULL, call_i386);
#endif
	for (int i = 1; i < argc; i++)
		all = all || strcmp(argv[i], "sockets") == 0;
	if (all)
		sockets();
	return 0;
}
