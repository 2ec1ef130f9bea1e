#include "sandbox/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/sys.h"
#include "sandbox/caps.h"
#include "sandbox/rlimit.h"

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

int pf_child_result(int sync, struct pf_err *err)
{
	struct pf_err remote;
	ssize_t n;

	do
		n = recv(sync, &remote, sizeof(remote), 0);
	while (n < 0 && errno == EINTR);
	if (n == 0)
		return 0;
	if (n != (ssize_t)sizeof(remote))
		return pf_fail(err, n < 0 ? errno : EPROTO, "lost the new process before it started");
	remote.msg[sizeof(remote.msg) - 1] = '\0';
	*err = remote;
	return -1;
}

int pf_child_stdio(const int stdio[3], struct pf_err *err)
{
	int fds[3];

	/* Copies above 2 first: one of them may sit where another belongs. */
	for (int i = 0; i < 3; i++) {
		PF_CLOSE int null = -1;
		if (stdio[i] < 0)
			null = open("/dev/null", O_RDWR | O_CLOEXEC);
		fds[i] = fcntl(stdio[i] < 0 ? null : stdio[i], F_DUPFD_CLOEXEC, 3);
		if (fds[i] < 0)
			return pf_fail(err, errno, "descriptor %d", i);
	}
	for (int i = 0; i < 3; i++)
		if (dup2(fds[i], i) < 0)
			return pf_fail(err, errno, "descriptor %d", i);
	/* Whatever the caller had open without O_CLOEXEC goes too. */
	if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return pf_fail(err, errno, "close_range");
	return 0;
}

static int set_ids(const struct pf_process *p, struct pf_err *err)
{
	/* Raw calls: glibc's wrappers synchronise threads, of which there are none, by ways that are not
	 * async-signal-safe. */
	if (syscall(SYS_setresgid, p->gid, p->gid, p->gid) < 0)
		return pf_fail(err, errno, "group id %u (is it in the sandbox's id range?)", p->gid);
	if (syscall(SYS_setgroups, p->n_groups, p->groups) < 0)
		return pf_fail(err, errno, "supplementary groups (is each in the sandbox's id range?)");
	if (syscall(SYS_setresuid, p->uid, p->uid, p->uid) < 0)
		return pf_fail(err, errno, "user id %u (is it in the sandbox's id range?)", p->uid);
	return 0;
}

int pf_child_become(const struct pf_process *p, const struct pf_bpf *seccomp, struct pf_err *err)
{
	size_t failed;

	if (pf_rlimits_apply(p->rlimits, p->n_rlimits, &failed) < 0)
		return pf_rlimit_fail(&p->rlimits[failed], errno, err);
	if (pf_caps_apply_bounding(p->caps.bounding) < 0)
		return pf_fail(err, errno, "capability bounding set");
	/* Keep permitted over the change of uid; pf_caps_apply then reduces it to what was asked for. */
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return pf_fail(err, errno, "keep capabilities");
	if (set_ids(p, err) < 0)
		return -1;
	if (pf_caps_apply(&p->caps) < 0)
		return pf_fail(err, errno, "capabilities");
	if (p->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return pf_fail(err, errno, "no_new_privs");
	umask(p->has_umask ? (mode_t)p->umask : 022);
	if (chdir(p->cwd) < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "working directory %s", p->cwd);
	/* A directory outside the root would let everything else be undone (a leaked descriptor as cwd). */
	char cwd[4096];
	if (syscall(SYS_getcwd, cwd, sizeof(cwd)) < 0 || cwd[0] != '/')
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "working directory %s is outside the sandbox", p->cwd);
	if (seccomp && pf_seccomp_load(seccomp, 0) < 0)
		return pf_fail(err, errno, "seccomp filter");
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

/* The file that args[0] names: itself when it holds a slash, else the first match on PATH that can be
 * executed; a match that cannot is remembered for the error. buf holds the result. */
static const char *resolve(const struct pf_process *p, char *buf, size_t size, struct pf_err *err)
{
	const char *file = p->args[0], *path = env_value(p->env, "PATH");
	size_t len = strlen(file);
	struct stat st;
	bool denied = false;

	if (strchr(file, '/'))
		return file;
	if (!path)
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	while (len && *path) {
		size_t n = strcspn(path, ":");
		if (n && n + len + 2 <= size) {
			memcpy(buf, path, n);
			buf[n] = '/';
			memcpy(buf + n + 1, file, len + 1);
			if (stat(buf, &st) == 0 && S_ISREG(st.st_mode)) {
				if (faccessat(AT_FDCWD, buf, X_OK, AT_EACCESS) == 0)
					return buf;
				denied = true;
			}
		}
		path += n + (path[n] == ':');
	}
	if (denied)
		pf_fail_kind(err, PF_ERR_NO_EXEC, EACCES, "%s", file);
	else
		pf_fail_kind(err, PF_ERR_NO_COMMAND, 0, "%s: command not found in the sandbox's PATH", file);
	return NULL;
}

static char *const no_env[] = {NULL};

int pf_child_exec(const struct pf_process *p, struct pf_err *err)
{
	char buf[4096];
	const char *file = resolve(p, buf, sizeof(buf), err);
	struct stat st;

	if (!file)
		return -1;
	execve(file, p->args, p->env ? p->env : no_env);
	/* ENOENT of a file that exists is its interpreter's or its loader's: execve(2). */
	if (errno == ENOENT && stat(file, &st) == 0)
		return pf_fail_kind(
			err, PF_ERR_NO_EXEC, 0, "%s: its interpreter (#! line or loader) is not there", file);
	return pf_fail_kind(err, errno == ENOENT || errno == ENOTDIR ? PF_ERR_NO_COMMAND : PF_ERR_NO_EXEC,
		errno, "%s", file);
}

void pf_child_exec_init(int init_fd, const struct pf_process *p, struct pf_err *err)
{
	enum { MAX_ARGS = 1000 };
	char buf[4096], *argv[MAX_ARGS + 2] = {"pinfold-init"};

	if (p->args && p->args[0]) {
		const char *file = resolve(p, buf, sizeof(buf), err);
		if (!file)
			return;
		argv[1] = file == buf ? buf : p->args[0];
		for (size_t n = 1; p->args[n]; n++) {
			if (n == MAX_ARGS) {
				pf_fail_kind(err, PF_ERR_INVALID, 0, "the command has more than %d words",
					MAX_ARGS);
				return;
			}
			argv[n + 1] = p->args[n];
		}
	}
	(void)syscall(SYS_execveat, init_fd, "", argv, p->env ? p->env : no_env, AT_EMPTY_PATH);
	pf_fail(err, errno, "start process 1");
}
