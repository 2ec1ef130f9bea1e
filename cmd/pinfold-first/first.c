/* bin/pinfold: what is started when somebody starts pinfold. It starts the program itself,
 * libexec/pinfold/pinfold.
 *
 * Theory of operation. What makes or enters a container that has no user namespace of its own must run from a
 * read-only mount of its file (sandbox/selfguard.h), and only a program that is started from there does.
 * pinfold can see to that itself, but its start is most of a millisecond (loader, libraries, relocations),
 * and it would be the second one. This program has no libc and nothing to load or relocate; its start is a
 * tenth of that. So it makes the mount before pinfold runs at all, where the verb may need it.
 *
 * It decides nothing: pinfold asks the kernel where it runs from, and starts itself anew if it must and does
 * not. Nothing that is missed here is unsafe, only slower; nothing that is done here without need costs more
 * than the mount. Both programs are this one as far as anybody outside is concerned: one process, its
 * arguments and its environment as they were given. */

#if defined(__x86_64__)
enum { NR_write = 1, NR_execve = 59, NR_exit = 60, NR_readlinkat = 267, NR_execveat = 322 };
static long sys5(long n, long a, long b, long c, long d, long e)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return r;
}
/* The kernel enters with argc at the stack pointer and no return address. */
__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall run\n");
#elif defined(__aarch64__)
enum { NR_write = 64, NR_readlinkat = 78, NR_exit = 93, NR_execve = 221, NR_execveat = 281 };
static long sys5(long n, long a, long b, long c, long d, long e)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}
__asm__(".globl _start\n_start:\n\tmov x29,#0\n\tmov x0,sp\n\tbl run\n");
#else
#error "pinfold: unknown architecture"
#endif

enum { NR_open_tree = 428, NR_mount_setattr = 442 }; /* the same everywhere */

enum {
	AT_FDCWD_ = -100,
	AT_EMPTY_PATH_ = 0x1000,
	OPEN_TREE_CLONE_ = 1,
	OPEN_TREE_CLOEXEC_ = 02000000,
	MOUNT_ATTR_RDONLY_ = 1,
	MS_PRIVATE_ = 1 << 18,
	FAILED = 125
};

struct mount_attr {
	unsigned long long set, clear, propagation, userns_fd;
};

/* selfguard.c's: by which path the file in the mount is known. */
#define WAS "PINFOLD_SELF_GUARD="
static const char program[] = "libexec/pinfold/pinfold";

__attribute__((noreturn, used)) void run(long *sp);

static int begins(const char *s, const char *with)
{
	while (*with)
		if (*s++ != *with++)
			return 0;
	return 1;
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* With the terminating zero. The barrier keeps a compiler from making a call of memcpy of it: there is none.
 */
static void copy(char *to, const char *from)
{
	do
		__asm__ volatile("" ::: "memory");
	while ((*to++ = *from++) != '\0');
}

static void say(const char *s)
{
	long n = 0;

	while (s[n]) {
		__asm__ volatile("" ::: "memory");
		n++;
	}
	sys5(NR_write, 2, (long)s, n, 0, 0);
}

/* Whether an OCI container may be made or entered: `run`, a `create` with a bundle, an `exec`. Which of the
 * two kinds an exec is about only pinfold knows, but a session's has "--" before its command, as runc's
 * callers have not. */
static int may_need_guard(char **argv)
{
	int run = 0, create = 0, bundle = 0, exec = 0;

	for (; *argv && !same(*argv, "--"); argv++) {
		run = run || same(*argv, "run");
		create = create || same(*argv, "create");
		bundle = bundle || same(*argv, "-b") || begins(*argv, "--bundle");
		exec = exec || same(*argv, "exec");
	}
	return run || (create && bundle) || (exec && !*argv);
}

/* Start path from a read-only mount of it. Comes back when that is not possible: the caller has not the
 * right, or the kernel lacks it. */
static void start_guarded(const char *path, const char *was, char **argv, char **env)
{
	struct mount_attr ro = {MOUNT_ATTR_RDONLY_, 0, MS_PRIVATE_, 0};
	long fd = sys5(NR_open_tree, AT_FDCWD_, (long)path, OPEN_TREE_CLONE_ | OPEN_TREE_CLOEXEC_, 0, 0);
	char **from = env, **to = env;

	if (fd < 0 || sys5(NR_mount_setattr, fd, (long)"", AT_EMPTY_PATH_, (long)&ro, sizeof(ro)) < 0)
		return;
	for (; *from; from++)
		if (!begins(*from, WAS))
			*to++ = *from;
	/* There is room for one more: behind the environment the kernel has put the auxiliary vector, which
	 * nobody needs any more. */
	to[0] = (char *)(unsigned long)was;
	to[1] = 0;
	sys5(NR_execveat, fd, (long)"", (long)argv, (long)env, AT_EMPTY_PATH_);
	to[0] = 0;
}

void run(long *sp)
{
	char was[sizeof(WAS) + 4096 + sizeof(program)];
	char **argv = (char **)(sp + 1), **env = argv + *sp + 1, *path = was + sizeof(WAS) - 1;

	copy(was, WAS);
	/* From PREFIX/bin/pinfold to PREFIX/. */
	long n = sys5(NR_readlinkat, AT_FDCWD_, (long)"/proc/self/exe", (long)path, 4096, 0);
	for (int slashes = 0; n > 0; n--) {
		slashes += path[n - 1] == '/';
		if (slashes == 2)
			break;
	}
	copy(path + (n > 0 ? n : 0), program);
	if (n > 0 && may_need_guard(argv))
		start_guarded(path, was, argv, env);
	if (n > 0)
		sys5(NR_execve, (long)path, (long)argv, (long)env, 0, 0);
	say("pinfold: cannot start ");
	say(path);
	say(", which belongs beside the directory of this program (as /proc/self/exe tells it)\n");
	for (;;)
		sys5(NR_exit, FAILED, 0, 0, 0, 0);
}
