/* PID 1 of a session's sandbox.
 *
 * Theory of operation. It reaps whatever is orphaned to it, and that is nearly all. Commands come in from
 * outside (setns), so it never starts anything unless it was given a command line of its own: then it starts
 * that once, hands signals on to it and ends with its status. Without one it stays until it is told to go
 * (SIGTERM, SIGINT, SIGQUIT, SIGHUP), hands that signal to everybody in the namespace, and ends when nobody
 * is left.
 *
 * All signals are blocked and taken with rt_sigtimedwait: the kernel drops unhandled signals to a PID 1
 * unless they are blocked, and a blocked set needs no handler, no restorer and no async-signal reasoning.
 *
 * No libc: this process lives as long as the sandbox does, once per sandbox, and it is the one program of
 * ours that stays inside. It is two pages, has no relocations, no heap, no file of its own (it runs from a
 * sealed memfd), and nothing to be attacked through but signals: it makes itself not dumpable before anybody
 * else is there, since a command with the same user id could otherwise stop it with ptrace or write its
 * memory, and nobody would hand signals on any more. */

#if defined(__x86_64__)
enum {
	NR_sigprocmask = 14,
	NR_fork = 57,
	NR_execve = 59,
	NR_ioctl = 16,
	NR_exit = 60,
	NR_wait4 = 61,
	NR_kill = 62,
	NR_setsid = 112,
	NR_getsid = 124,
	NR_sigtimedwait = 128,
	NR_prctl = 157
};
static long sys4(long n, long a, long b, long c, long d)
{
	long r;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return r;
}
static long start_child(void)
{
	return sys4(NR_fork, 0, 0, 0, 0);
}
/* The kernel enters with argc at the stack pointer and no return address. */
__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall run\n");
#elif defined(__aarch64__)
enum {
	NR_ioctl = 29,
	NR_exit = 93,
	NR_kill = 129,
	NR_sigprocmask = 135,
	NR_sigtimedwait = 137,
	NR_setsid = 157,
	NR_getsid = 156,
	NR_prctl = 167,
	NR_clone = 220,
	NR_execve = 221,
	NR_wait4 = 260
};
static long sys4(long n, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = 0;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}
static long start_child(void)
{
	return sys4(NR_clone, 17 /* SIGCHLD */, 0, 0, 0);
}
__asm__(".globl _start\n_start:\n\tmov x29,#0\n\tmov x0,sp\n\tbl run\n");
#else
#error "pinfold-init: unknown architecture"
#endif

enum {
	SIGHUP_ = 1,
	SIGINT_ = 2,
	SIGQUIT_ = 3,
	SIGTERM_ = 15,
	SIGCHLD_ = 17,
	SIGCONT_ = 18,
	SIGTTIN_ = 21,
	SIGTTOU_ = 22
};
enum { SIG_SETMASK_ = 2, WNOHANG_ = 1, ECHILD_ = 10, EINTR_ = 4, TIOCSCTTY_ = 0x540e, PR_SET_DUMPABLE_ = 4 };

__attribute__((noreturn, used)) void run(long *sp);

__attribute__((noreturn)) static void leave(int code)
{
	for (;;)
		sys4(NR_exit, code, 0, 0, 0);
}

static int status_code(int status)
{
	int sig = status & 0x7f;
	return sig ? 128 + sig : (status >> 8) & 0xff;
}

/* Reap everything that has ended. Returns 0 when no child is left at all. *main_code is set when the main
 * child was among them. */
static int reap(long main_pid, int *main_code)
{
	for (;;) {
		int status = 0;
		long pid = sys4(NR_wait4, -1, (long)&status, WNOHANG_, 0);
		if (pid == -EINTR_)
			continue;
		if (pid <= 0)
			return pid != -ECHILD_;
		if (pid == main_pid)
			*main_code = status_code(status);
	}
}

void run(long *sp)
{
	unsigned long all = ~0UL, none = 0;
	char **argv = (char **)(sp + 1);
	long argc = *sp, main_pid = -1;
	char **envp = argv + argc + 1;
	int main_code = -1, leaving = 0;
	long moment[2] = {0, 50000000}; /* struct timespec */

	sys4(NR_sigprocmask, SIG_SETMASK_, (long)&all, 0, sizeof(all));
	sys4(NR_prctl, PR_SET_DUMPABLE_, 0, 0, 0);
	if (argc > 1) {
		main_pid = start_child();
		if (main_pid == 0) {
			/* Without a session of our own we are meant to stay in the caller's, and with its
			 * terminal. Else a terminal that is nobody's yet becomes the command's; any other
			 * refuses. */
			if (sys4(NR_getsid, 0, 0, 0, 0) != 0) {
				sys4(NR_setsid, 0, 0, 0, 0);
				sys4(NR_ioctl, 0, TIOCSCTTY_, 0, 0);
			}
			sys4(NR_sigprocmask, SIG_SETMASK_, (long)&none, 0, sizeof(none));
			long r = sys4(NR_execve, (long)argv[1], (long)(argv + 1), (long)envp, 0);
			leave(r == -2 ? 127 : 126);
		}
		if (main_pid < 0)
			leave(125);
	}
	for (;;) {
		long sig = sys4(NR_sigtimedwait, (long)&all, 0, leaving ? (long)&moment : 0, sizeof(all));
		if (sig <= 0) {
			/* Commands that came in from outside are nobody's children here: no SIGCHLD tells
			 * when the last of them is gone. */
			if (leaving && sys4(NR_kill, -1, 0, 0, 0) < 0)
				leave(128 + leaving);
			continue;
		}
		if (sig == SIGCHLD_) {
			int children = reap(main_pid, &main_code);
			if (main_code >= 0)
				leave(main_code);
			if (leaving && !children)
				leave(128 + leaving);
			continue;
		}
		if (sig == SIGCONT_ || sig == SIGTTIN_ || sig == SIGTTOU_)
			continue;
		if (main_pid > 0) {
			/* It leads a group of its own, once it got so far. */
			if (sys4(NR_kill, -main_pid, sig, 0, 0) < 0)
				sys4(NR_kill, main_pid, sig, 0, 0);
		} else if (sig == SIGTERM_ || sig == SIGINT_ || sig == SIGQUIT_ || sig == SIGHUP_) {
			leaving = (int)sig;
			/* -1 is everybody in the namespace but us; nobody there: go. */
			if (sys4(NR_kill, -1, sig, 0, 0) < 0)
				leave(128 + leaving);
		}
	}
}
