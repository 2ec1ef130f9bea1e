#include "sandbox/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/caps.h"
#include "sandbox/rlimit.h"
#include "sandbox/user.h"

void pf_child_fail(int sync, const struct pf_err *err)
{
	(void)send(sync, err, sizeof(*err), MSG_NOSIGNAL);
	_exit(125);
}

int pf_child_die_with_parent(int sync, struct pf_err *err)
{
	char byte;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return pf_fail(err, errno, "PR_SET_PDEATHSIG");
	/* A parent that died before this call sends no signal; its end of the socket is closed. */
	if (recv(sync, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
		return pf_fail(err, 0, "the parent died");
	return 0;
}

int pf_child_note(int sync, int what, int fd, struct pf_err *err)
{
	struct pf_child_note note = {.what = what, .fd = fd};

	/* write and not send: a seccomp filter that is in force already is likelier to let it pass. */
	if (write(sync, &note, sizeof(note)) != (ssize_t)sizeof(note))
		return pf_fail(err, errno, "tell the parent");
	return 0;
}

int pf_child_new_keyring(const char *name, struct pf_err *err)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) >= 0 || errno == ENOSYS)
		return 0;
	return pf_fail(err, errno,
		"session keyring (remedy: raise kernel.keys.maxkeys, or create --no-new-keyring)");
}

int pf_child_wait_go_on(int sync, struct pf_err *err)
{
	char byte = 0;
	ssize_t n;

	do
		n = read(sync, &byte, 1);
	while (n < 0 && errno == EINTR);
	return n == 1 && byte == PF_SYNC_GO_ON
		       ? 0
		       : pf_fail(err, n < 0 ? errno : ECONNRESET, "the parent gave up");
}

int pf_child_oom_score(pid_t pid, const struct pf_process *p, struct pf_err *err)
{
	char path[48], text[16];

	if (!p->has_oom_score_adj)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
	snprintf(text, sizeof(text), "%d", p->oom_score_adj);
	if (pf_write_pseudo_at(AT_FDCWD, path, text) < 0)
		return pf_fail(err, errno,
			"process.oomScoreAdj: %d (to lower it below our own takes CAP_SYS_RESOURCE)",
			p->oom_score_adj);
	return 0;
}

/* Wait until there is something to receive. */
static int be_patient(int sync, const struct pf_child_patience *p, struct pf_err *err)
{
	while (p) {
		struct pollfd fds[2] = {
			{.fd = sync, .events = POLLIN}, {.fd = p->cancel_fd, .events = POLLIN}};
		int64_t left = p->deadline_us - pf_now_us();
		int64_t ms = left / 1000 + 1 < 3600000 ? left / 1000 + 1 : 3600000;
		int n = left <= 0 ? 0 : poll(fds, 2, (int)ms);

		if ((n < 0 && errno == EINTR) || (n == 0 && left > 0))
			continue;
		if (n < 0)
			return pf_fail(err, errno, "wait for the new process");
		if (n == 0)
			return pf_fail_kind(err, PF_ERR_STATE, ETIMEDOUT,
				"the new process did not get to start (is the sandbox frozen, or stopping "
				"what enters it?)");
		if (fds[0].revents)
			return 0;
		return pf_fail_kind(err, PF_ERR_STATE, EINTR, "interrupted before the command had started");
	}
	return 0;
}

int pf_child_follow(int sync, pf_child_note_fn on_note, void *arg, const struct pf_child_patience *patience,
	struct pf_err *err)
{
	bool execs = false;

	for (;;) {
		union {
			struct pf_err err;
			struct pf_child_note note;
		} m;
		ssize_t n;

		if (be_patient(sync, patience, err) < 0)
			return -1;
		/* A child that ends before it has read all that we sent leaves a reset. The kernel tells of
		 * it once, and before it hands out what the child had said. */
		do
			n = recv(sync, &m, sizeof(m), 0);
		while (n < 0 && (errno == EINTR || errno == ECONNRESET));
		if (n == 0 && execs)
			return 0;
		if (n == (ssize_t)sizeof(m.err)) {
			m.err.msg[sizeof(m.err.msg) - 1] = '\0';
			*err = m.err;
			return -1;
		}
		if (n != (ssize_t)sizeof(m.note)) {
			pf_fail(err, n < 0 ? errno : 0, "the new process was killed before it could start");
			if (n == 0)
				err->errnum = PF_CHILD_DIED;
			return -1;
		}
		if (m.note.what == PF_NOTE_READY)
			return 0;
		if (m.note.what == PF_NOTE_EXEC)
			execs = true;
		else if (!on_note || on_note(arg, sync, &m.note, err) < 0)
			return on_note ? -1 : pf_fail(err, EPROTO, "the new process");
	}
}

int pf_child_signals(struct pf_err *err)
{
	sigset_t none;

	sigemptyset(&none);
	for (int sig = 1; sig < 65; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			(void)signal(sig, SIG_DFL);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		return pf_fail(err, errno, "signal mask");
	return 0;
}

/* Close all descriptors from first on but those in need (n small; -1 among them is none). */
static int close_but(unsigned first, const int *need, size_t n)
{
	for (;;) {
		unsigned next = ~0U;
		for (size_t i = 0; i < n; i++)
			if (need[i] >= 0 && (unsigned)need[i] >= first && (unsigned)need[i] < next)
				next = (unsigned)need[i];
		if (next == ~0U)
			return close_range(first, ~0U, 0);
		if (next > first && close_range(first, next - 1, 0) < 0)
			return -1;
		first = next + 1;
	}
}

int pf_child_stdio(const int stdio[3], unsigned keep, const int *need, size_t n_need, struct pf_err *err)
{
	int fds[3];

	/* Copies above 2 first: one of them may sit where another belongs. */
	for (int i = 0; i < 3; i++) {
		fds[i] = fcntl(stdio[i], F_DUPFD_CLOEXEC, 3 + (int)keep);
		if (fds[i] < 0)
			return pf_fail(err, errno, "descriptor %d", i);
	}
	for (int i = 0; i < 3; i++)
		if (dup2(fds[i], i) < 0)
			return pf_fail(err, errno, "descriptor %d", i);
	if (close_but(3 + keep, need, n_need) < 0)
		return pf_fail(err, errno, "close_range");
	return 0;
}

static int set_ids(const struct pf_process *p, bool keeps_groups, struct pf_err *err)
{
	/* Raw calls: glibc's wrappers synchronise threads, of which there are none, by ways that are not
	 * async-signal-safe. */
	if (syscall(SYS_setresgid, p->gid, p->gid, p->gid) < 0)
		return pf_fail(err, errno, "group id %u (is it in the sandbox's id range?)", p->gid);
	if (syscall(SYS_setgroups, p->n_groups, p->groups) < 0 && !(keeps_groups && errno == EPERM))
		return pf_fail(err, errno, "supplementary groups (is each in the sandbox's id range?)");
	if (syscall(SYS_setresuid, p->uid, p->uid, p->uid) < 0)
		return pf_fail(err, errno, "user id %u (is it in the sandbox's id range?)", p->uid);
	return 0;
}

/* From linux/sched/types.h, which clashes with sched.h. */
struct sched_attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/* What is the kernel's to give and needs our privileges. */
static int set_scheduling(const struct pf_process *p, const struct pf_spec *spec, struct pf_err *err)
{
	const struct pf_scheduler *s = &p->scheduler;
	struct sched_attributes attr = {.size = sizeof(attr),
		.policy = s->policy,
		.flags = s->flags,
		.nice = s->nice,
		.priority = s->priority,
		.runtime = s->runtime,
		.deadline = s->deadline,
		.period = s->period};

	if (s->set && syscall(SYS_sched_setattr, 0, &attr, 0) < 0)
		return pf_fail(err, errno, "process.scheduler");
	if (p->has_io_priority && syscall(SYS_ioprio_set, 1, 0, p->io_priority) < 0)
		return pf_fail(err, errno, "process.ioPriority");
	if (spec && spec->mempolicy.set &&
		syscall(SYS_set_mempolicy, spec->mempolicy.mode, spec->mempolicy.nodes,
			sizeof(spec->mempolicy.nodes) * 8) < 0)
		return pf_fail(err, errno, "linux.memoryPolicy");
	if (spec && spec->has_personality && personality(spec->personality) < 0)
		return pf_fail(err, errno, "linux.personality");
	return 0;
}

/* Its standard streams are the user's to open again (/dev/stdout), whoever made them; the null device stays
 * whose it is. Where it cannot be done nothing is lost but that. */
static void give_stdio(const struct pf_process *p)
{
	for (int i = 0; i < 3; i++) {
		struct stat st;
		if (fstat(i, &st) < 0 || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)))
			continue;
		if (st.st_uid != p->uid && fchown(i, p->uid, p->gid) < 0)
			continue;
	}
}

/* HOME, unless the configuration says it: what the box's passwd knows of the user. One that cannot be read as
 * such knows nothing. */
static int set_home(struct pf_become *b, struct pf_err *err)
{
	const struct pf_process *p = b->process;
	struct pf_err ignored = PF_ERR_INIT;
	struct pf_user user;
	size_t n = 0;

	for (; p->env && p->env[n]; n++)
		if (strncmp(p->env[n], "HOME=", 5) == 0)
			return 0;
	PF_CLOSE int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return pf_fail(err, errno, "/");
	bool known = pf_user_lookup(root, NULL, p->uid, NULL, p->gid, &user, &ignored) == 0;
	b->env = pf_calloc(n + 2, sizeof(*b->env));
	for (size_t i = 0; i < n; i++)
		b->env[i] = p->env[i];
	b->env[n] = pf_asprintf("HOME=%s", known ? user.home : "/");
	if (known)
		pf_user_done(&user);
	return 0;
}

static int load_filter(struct pf_become *b, int sync, struct pf_err *err)
{
	int fd = pf_seccomp_load(b->seccomp, b->seccomp_flags);

	if (fd < 0)
		return pf_fail(err, errno, "seccomp filter");
	if (!(b->seccomp_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER))
		return 0;
	/* A container's filter may let write(2) pass and little else: its listener is fetched. A session's is
	 * ours, and sends; who has no root could not fetch. */
	if (pf_child_note(sync, PF_NOTE_LISTENER, b->oci ? fd : -1, err) < 0)
		return -1;
	if (!b->oci && pf_send_fd(sync, fd) < 0)
		return pf_fail(err, errno, "hand over the seccomp listener");
	return pf_child_wait_go_on(sync, err);
}

/* Without no_new_privs loading a filter takes a privilege, so it comes before that is given up; one with a
 * listener is handed over while there still is somebody to hand it to. */
static bool filter_is_early(const struct pf_become *b)
{
	return !b->process->no_new_privileges || (b->seccomp_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER);
}

int pf_child_late_filter(const struct pf_become *b, struct pf_err *err)
{
	if (!b->seccomp || filter_is_early(b))
		return 0;
	return pf_seccomp_load(b->seccomp, b->seccomp_flags) < 0 ? pf_fail(err, errno, "seccomp filter") : 0;
}

/* A container's is tried as root first, so that a directory that only root may enter can be one to start in.
 * Returns 1 when it was denied and may be tried again. */
static int enter_cwd(const char *cwd, bool again, struct pf_err *err)
{
	char path[4096];

	if (chdir(cwd) < 0) {
		if (!again && errno == EACCES)
			return 1;
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "process.cwd: working directory %s", cwd);
	}
	/* A directory outside the root would let everything else be undone (a leaked descriptor as cwd). */
	if (syscall(SYS_getcwd, path, sizeof(path)) < 0 || path[0] != '/')
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"process.cwd: working directory %s is outside the sandbox", cwd);
	return 0;
}

int pf_child_become(struct pf_become *b, int sync, struct pf_err *err)
{
	const struct pf_process *p = b->process;
	size_t failed;
	int denied;

	b->env = p->env;
	if (set_scheduling(p, b->spec, err) < 0)
		return -1;
	if (pf_rlimits_apply(p->rlimits, p->n_rlimits, &failed) < 0)
		return pf_rlimit_fail(&p->rlimits[failed], errno, err);
	if (b->oci) {
		give_stdio(p);
		if (set_home(b, err) < 0)
			return -1;
	}
	if (b->lsm_fd >= 0 && write(b->lsm_fd, b->lsm_label, strlen(b->lsm_label)) < 0)
		return pf_fail(err, errno, "security label '%s'", b->lsm_label);
	denied = b->oci ? enter_cwd(p->cwd, false, err) : 1;
	if (denied < 0)
		return -1;
	umask(p->has_umask ? (mode_t)p->umask : 022);
	if (b->seccomp && !p->no_new_privileges && load_filter(b, sync, err) < 0)
		return -1;
	if (pf_caps_apply_bounding(p->caps.bounding) < 0)
		return pf_fail(err, errno, "capability bounding set");
	/* Keep permitted over the change of uid; pf_caps_apply then reduces it to what was asked for. */
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return pf_fail(err, errno, "keep capabilities");
	if (set_ids(p, b->keeps_groups, err) < 0)
		return -1;
	if (pf_caps_apply(&p->caps) < 0)
		return pf_fail(err, errno, "capabilities");
	if (p->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return pf_fail(err, errno, "no_new_privs");
	if (denied && enter_cwd(p->cwd, true, err) < 0)
		return -1;
	if (b->seccomp && p->no_new_privileges && filter_is_early(b) && load_filter(b, sync, err) < 0)
		return -1;
	return 0;
}

static const char *env_value(char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	return NULL;
}

/* A match that cannot be executed is remembered for the error. */
const char *pf_child_resolve(
	const struct pf_process *p, char *const *env, char *buf, size_t size, struct pf_err *err)
{
	const char *file = p->args[0], *path = env_value(env, "PATH");
	size_t len = strlen(file);
	struct stat st;
	bool denied = false;

	if (strchr(file, '/')) {
		if (stat(file, &st) == 0 && S_ISREG(st.st_mode) &&
			syscall(SYS_faccessat, AT_FDCWD, file, X_OK) == 0)
			return file;
		int why = stat(file, &st) < 0 ? errno : EACCES;
		pf_fail_kind(err, why == ENOENT || why == ENOTDIR ? PF_ERR_NO_COMMAND : PF_ERR_NO_EXEC, why,
			"%s", file);
		return NULL;
	}
	if (!path)
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	while (len && *path) {
		size_t n = strcspn(path, ":");
		if (n && n + len + 2 <= size) {
			memcpy(buf, path, n);
			buf[n] = '/';
			memcpy(buf + n + 1, file, len + 1);
			/* The call of old: it looks at the real ids, which are the effective ones, and a
			 * filter that is in force already knows it. */
			if (stat(buf, &st) == 0 && S_ISREG(st.st_mode)) {
				if (syscall(SYS_faccessat, AT_FDCWD, buf, X_OK) == 0)
					return buf;
				denied = true;
			}
		}
		path += n + (path[n] == ':');
	}
	if (denied)
		pf_fail_kind(err, PF_ERR_NO_EXEC, EACCES, "%s", file);
	else
		pf_fail_kind(err, PF_ERR_NO_COMMAND, 0,
			"\"%s\": executable file not found in $PATH (command not found)", file);
	return NULL;
}

static char *const no_env[] = {NULL};

int pf_child_exec(
	int sync, const char *file, const struct pf_process *p, char *const *env, struct pf_err *err)
{
	struct stat st;

	if (sync >= 0 && pf_child_note(sync, PF_NOTE_EXEC, -1, err) < 0)
		return -1;
	execve(file, p->args, env ? env : no_env);
	/* ENOENT of a file that exists is its interpreter's or its loader's: execve(2). */
	if (errno == ENOENT && stat(file, &st) == 0)
		return pf_fail_kind(
			err, PF_ERR_NO_EXEC, 0, "%s: its interpreter (#! line or loader) is not there", file);
	return pf_fail_kind(err, errno == ENOENT || errno == ENOTDIR ? PF_ERR_NO_COMMAND : PF_ERR_NO_EXEC,
		errno, "%s", file);
}

void pf_child_exec_init(int sync, int init_fd, const struct pf_process *p, struct pf_err *err)
{
	enum { MAX_ARGS = 1000 };
	char buf[4096], *argv[MAX_ARGS + 2] = {"pinfold-init"};

	if (p->args && p->args[0]) {
		const char *file = pf_child_resolve(p, p->env, buf, sizeof(buf), err);
		if (!file)
			return;
		argv[1] = file == buf ? buf : p->args[0];
		size_t n = 1;
		for (; n < MAX_ARGS && p->args[n]; n++)
			argv[n + 1] = p->args[n];
		if (p->args[n]) {
			pf_fail_kind(err, PF_ERR_INVALID, 0, "the command has more than %d words", MAX_ARGS);
			return;
		}
	}
	if (pf_child_note(sync, PF_NOTE_EXEC, -1, err) < 0)
		return;
	(void)syscall(SYS_execveat, init_fd, "", argv, p->env ? p->env : no_env, AT_EMPTY_PATH);
	pf_fail(err, errno, "start process 1");
}
