/* Theory of operation: a jail without namespaces.
 *
 * Landlock decides which files can be opened, and, where the kernel knows how, that no TCP leaves and no
 * signal reaches outside; the strict seccomp list leaves no sockets but pairs (Landlock lets every unix
 * socket be connected to, the session bus and the agents too), no System V IPC and no tracing; resource
 * limits bound memory. What is lost is that other processes and the machine's own paths are still *seen*
 * (their contents are not), that a file can only be shown or not, never hidden inside something shown, and
 * that there is no gate. Landlock says nothing of changes by path that open nothing: the list refuses those
 * of owners, attributes and lengths, and what it cannot (modes and times) is said. */
#include "jail/weak.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/child.h"

/* linux/landlock.h, of which Debian 12 has the first version only. */
struct ruleset {
	uint64_t fs, net, scoped;
};
struct path_beneath {
	uint64_t allowed;
	int32_t parent;
} __attribute__((packed));
#define RULE_PATH_BENEATH 1
#define CREATE_RULESET_VERSION 1u
#define FS_EXECUTE 0x0001
#define FS_WRITE_FILE 0x0002
#define FS_READ_FILE 0x0004
#define FS_READ_DIR 0x0008
#define FS_TRUNCATE 0x4000
#define FS_IOCTL_DEV 0x8000
#define FS_READ (FS_EXECUTE | FS_READ_FILE | FS_READ_DIR)
#define FS_OF_FILES (FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)

static int landlock_abi(void)
{
	return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
}

static uint64_t fs_rights(int abi)
{
	/* The first version had 13; then came moving, truncating and device ioctls. */
	return abi >= 5 ? 0xffff : abi >= 3 ? 0x7fff : abi == 2 ? 0x3fff : 0x1fff;
}

int pf_weak_check(const struct pf_jail *j, struct pf_err *err)
{
	int abi = landlock_abi();

	if (abi < 1)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errno,
			"--weak stands on Landlock, which this kernel has not (Linux 5.13, lsm=landlock)");
	if (j->caller_uid == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"--weak is for who is not root; root can have all of a jail: leave it out");
	if (j->net == PF_JAIL_NET_GATE)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"--weak has no gate: no network can be let through; leave --allow and --policy out");
	if (j->seccomp != PF_JAIL_SECCOMP_DEFAULT && j->seccomp != PF_JAIL_SECCOMP_STRICT)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"--weak stands on its own seccomp list too: with another your session's sockets "
			"could be "
			"reached");
	if (j->pids >= 0 || j->millicpus >= 0)
		return pf_fail_kind(
			err, PF_ERR_UNSUPPORTED, 0, "--weak cannot keep --pids and --cpus; leave them out");
	if (j->uid != j->caller_uid || j->gid != getegid())
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"--weak has no user namespace, in which --user could be another; leave it out");
	for (size_t i = 0; i < j->n_ops; i++) {
		const struct pf_jail_op *op = &j->ops[i];
		if (op->kind == PF_JAIL_TMPFS && op->size >= 0)
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"--weak has no file systems of its own, which could keep --size; leave it "
				"out");
		if (op->kind == PF_JAIL_HIDE || op->kind == PF_JAIL_OVERLAY ||
			(op->kind == PF_JAIL_BIND && strcmp(op->dest, op->source) != 0) ||
			(op->kind == PF_JAIL_TMPFS && strcmp(op->why, "default") != 0))
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"--weak can show files or not, and nothing else: %s of %s needs a jail",
				op->why, op->dest);
	}
	if (j->warn) {
		PF_FREE char *text = pf_asprintf(
			"weak: no namespaces. Other processes and all file names are visible, /etc and /proc "
			"can be "
			"read, no sockets can be made, /tmp and home are a scratch directory named by TMPDIR "
			"and HOME, modes and times of files that are not shown can be changed, what is left "
			"of a command whose pinfold-jail is killed by SIGKILL goes on%s%s",
			j->memory >= 0 ? ", --memory counts for each process alone" : "",
			abi < 6 ? ", signals to your other processes are not stopped" : "");
		j->warn(j->say_arg, text);
	}
	return 0;
}

static void set_env(struct pf_jail *j, const char *name, const char *value)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < j->n_env; i++)
		if (strncmp(j->env[i], name, len) == 0 && j->env[i][len] == '=') {
			free(j->env[i]);
			j->env[i] = pf_asprintf("%s=%s", name, value);
			return;
		}
	char **more = realloc(j->env, (j->n_env + 2) * sizeof(*more));
	if (!more)
		abort();
	j->env = more;
	j->env[j->n_env++] = pf_asprintf("%s=%s", name, value);
	j->env[j->n_env] = NULL;
}

char *pf_weak_scratch(struct pf_jail *j, struct pf_err *err)
{
	const char *base = getenv("TMPDIR");
	PF_FREE char *path = pf_asprintf("%s/pinfold-weak-XXXXXX", base && base[0] == '/' ? base : "/tmp");

	if (!mkdtemp(path)) {
		pf_fail(err, errno, "scratch directory %s", path);
		return NULL;
	}
	set_env(j, "HOME", path);
	set_env(j, "TMPDIR", path);
	return pf_take(path);
}

/* ---- in the child ---- */

static int allow(int rules, int fd, uint64_t rights)
{
	struct path_beneath rule = {.allowed = rights, .parent = fd};
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	if (!S_ISDIR(st.st_mode))
		rule.allowed &= FS_OF_FILES;
	return (int)syscall(SYS_landlock_add_rule, rules, RULE_PATH_BENEATH, &rule, 0);
}

/* One that is not there is not there for the command either. */
static int allow_path(int rules, const char *path, uint64_t rights)
{
	PF_CLOSE int fd = open(path, O_PATH | O_CLOEXEC);

	return fd < 0 ? 0 : allow(rules, fd, rights);
}

static int restrict_files(
	const struct pf_jail *j, const char *scratch, const int stdio[3], struct pf_err *err)
{
	static const char *const devices[] = {
		"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"};
	int abi = landlock_abi();
	uint64_t all = fs_rights(abi), read = FS_READ & all;
	struct ruleset attr = {.fs = all, .net = abi >= 4 ? 3 : 0, .scoped = abi >= 6 ? 3 : 0};
	size_t size = abi >= 6 ? sizeof(attr) : abi >= 4 ? 16 : 8;
	PF_CLOSE int rules = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	int r = rules < 0 ? -1 : 0;

	for (size_t i = 0; r == 0 && i < j->n_ops; i++)
		if (j->ops[i].kind == PF_JAIL_BIND)
			r = allow(rules, j->ops[i].fd,
				j->ops[i].read_only ? read : all & ~(uint64_t)FS_IOCTL_DEV);
	for (size_t i = 0; r == 0 && i < sizeof(devices) / sizeof(devices[0]); i++)
		r = allow_path(rules, devices[i], (FS_READ_FILE | FS_WRITE_FILE | FS_IOCTL_DEV) & all);
	/* Of the terminals its own, as /dev/stderr: on the others somebody may be typing. */
	for (int i = 0; r == 0 && i < 3; i++)
		if (isatty(stdio[i]))
			r = allow(rules, stdio[i], (FS_READ_FILE | FS_WRITE_FILE | FS_IOCTL_DEV) & all);
	if (r == 0)
		r = allow_path(rules, "/etc", read);
	if (r == 0)
		r = allow_path(rules, "/proc", read);
	if (r == 0)
		r = allow_path(rules, scratch, all & ~(uint64_t)FS_IOCTL_DEV);
	if (r < 0 || syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		return pf_fail(err, errno, "Landlock");
	return 0;
}

__attribute__((noreturn)) static void child(const struct pf_jail *j, const char *scratch, const int stdio[3],
	const struct pf_bpf *filter, int sync)
{
	struct pf_process p = {.args = j->argv, .env = j->env, .cwd = j->cwd};
	struct pf_err err = PF_ERR_INIT;
	const struct rlimit core = {0, 0};
	char path[4096];

	if (pf_child_signals(&err) < 0 || pf_child_die_with_parent(sync, &err) < 0)
		pf_child_fail(sync, &err);
	if (syscall(SYS_setsid) < 0 || setrlimit(RLIMIT_CORE, &core) < 0)
		pf_fail(&err, errno, "session");
	else if (j->memory >= 0 &&
		 setrlimit(RLIMIT_DATA, &(struct rlimit){(rlim_t)j->memory, (rlim_t)j->memory}) < 0)
		pf_fail(&err, errno, "--memory");
	else if (chdir(j->cwd) < 0)
		pf_fail_kind(&err, PF_ERR_INVALID, errno, "%s", j->cwd);
	else if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		pf_fail(&err, errno, "no_new_privs");
	else if (restrict_files(j, scratch, stdio, &err) == 0 &&
		 pf_child_stdio(stdio, 0, &sync, 1, &err) == 0) {
		if (j->tty)
			(void)ioctl(0, TIOCSCTTY, 0);
		const char *file = pf_child_resolve(&p, p.env, path, sizeof(path), &err);
		if (file && filter->len && pf_seccomp_load(filter, 0) < 0)
			pf_fail(&err, errno, "seccomp filter");
		else if (file)
			(void)pf_child_exec(sync, file, &p, p.env, &err);
	}
	pf_child_fail(sync, &err);
}

int pf_weak_start(const struct pf_jail *j, const char *scratch, const int stdio[3],
	const struct pf_bpf *filter, struct pf_box *box, struct pf_err *err)
{
	int pair[2], pidfd = -1, given[3];
	PF_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct clone_args args = {
		.flags = CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)&pidfd, .exit_signal = SIGCHLD};

	if (null < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return pf_fail(err, errno, "start the command");
	for (int i = 0; i < 3; i++)
		given[i] = stdio[i] >= 0 ? stdio[i] : null;
	pid_t pid = pf_clone3(&args);
	if (pid == 0) {
		close(pair[0]);
		child(j, scratch, given, filter, pair[1]);
	}
	int saved = errno;
	close(pair[1]);
	int r = pid < 0 ? pf_fail(err, saved, "clone3") : pf_child_follow(pair[0], NULL, NULL, NULL, err);
	close(pair[0]);
	if (r < 0 && pid > 0) {
		(void)kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		close(pidfd);
	}
	if (r == 0)
		*box = (struct pf_box){.pid = pid, .pidfd = pidfd};
	return r;
}

void pf_weak_sweep(void)
{
	/* Each round ends a generation; what it leaves behind becomes ours, and is next. */
	for (int round = 0; round < 1000; round++) {
		PF_FREE char *path = pf_asprintf("/proc/self/task/%d/children", (int)getpid()), *text = NULL;
		struct pf_err ignored = PF_ERR_INIT;
		if (pf_read_pseudo_at(AT_FDCWD, path, (size_t)1 << 20, &text, &ignored) < 0 || !text[0])
			return;
		for (char *save = NULL, *p = strtok_r(text, " ", &save); p; p = strtok_r(NULL, " ", &save))
			(void)kill((pid_t)atoi(p), SIGKILL);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		usleep(1000);
	}
}
