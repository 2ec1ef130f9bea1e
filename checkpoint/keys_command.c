/* Theory of operation: a key from a command.
 *
 * The shell shares our process group, so that a key service's client may ask at the terminal and ^C ends
 * both. What it prints counts when it has ended, whoever still holds the pipe then: clients leave agents
 * behind. A command that has not ended in time is killed with everything that descends from it; each process
 * is stopped before its children are looked up, so that it makes no more of them. */
#include "checkpoint/keys_command.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"

#define DEPTH_MAX 64

/* Start the shell with its output in outfd and its complaints in errfd. */
static int spawn_shell(const char *command, int outfd, int errfd, pid_t *pid)
{
	char *argv[] = {"/bin/sh", "-c", (char *)(uintptr_t)command, NULL};
	posix_spawn_file_actions_t actions;
	int r;

	if ((r = posix_spawn_file_actions_init(&actions)) != 0)
		return r;
	if ((r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)) == 0 &&
		(r = posix_spawn_file_actions_adddup2(&actions, outfd, 1)) == 0 &&
		(r = posix_spawn_file_actions_adddup2(&actions, errfd, 2)) == 0)
		r = posix_spawn(pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* pid is a child of ours, or of a process that is stopped: the number cannot have become another's. A process
 * that stops may still end a fork that it is in; that one is missed, as is who has another parent by then. */
static void kill_tree(pid_t pid, int depth)
{
	PF_FREE char *tasks = pf_asprintf("/proc/%d/task", (int)pid);
	PF_CLOSEDIR DIR *d = NULL;
	struct dirent *e;

	(void)kill(pid, SIGSTOP);
	d = depth < DEPTH_MAX ? opendir(tasks) : NULL;
	/* Each thread has the children that it has forked itself. */
	while (d && (e = readdir(d))) {
		PF_FREE char *path = pf_asprintf("%s/children", e->d_name), *list = NULL;
		struct pf_err ignored = PF_ERR_INIT;
		if (e->d_name[0] == '.' ||
			pf_read_pseudo_at(dirfd(d), path, (size_t)1 << 20, &list, &ignored) < 0)
			continue;
		for (char *save = NULL, *w = strtok_r(list, " \n", &save); w;
			w = strtok_r(NULL, " \n", &save))
			kill_tree((pid_t)atoi(w), depth + 1);
	}
	(void)kill(pid, SIGKILL);
}

/* What there is to read now. Closes *fd at the end, on an error, and when there is no more room: whoever goes
 * on printing gets SIGPIPE. */
static void take(int *fd, uint8_t *out, size_t max, size_t *len)
{
	ssize_t n = 1;

	while (*len < max && (n = read(*fd, out + *len, max - *len)) > 0)
		*len += (size_t)n;
	if (*len == max || n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		close(pf_take_fd(fd));
}

/* Until the shell has ended. Returns whether it did so in time. */
static bool listen_to(int pidfd, int *fd, int64_t ms, uint8_t *out, size_t max, size_t *len)
{
	int64_t end = pf_now_us() + ms * 1000;

	for (;;) {
		int64_t left = (end - pf_now_us() + 999) / 1000;
		struct pollfd p[2] = {{.fd = pidfd, .events = POLLIN}, {.fd = *fd, .events = POLLIN}};
		if (poll(p, 2, left > 0 ? (int)left : 0) < 0 && errno != EINTR)
			return false;
		bool ended = pf_pidfd_ended(pidfd);
		if (*fd >= 0)
			take(fd, out, max, len);
		if (ended || left <= 0)
			return ended;
	}
}

int pf_key_command(const char *spec, const char *command, int64_t ms, uint8_t *out, size_t max, size_t *len,
	struct pf_err *err)
{
	char said[400] = "";
	int pipe_fds[2], status = 0, r;
	/* A file in memory and not a second pipe: complaints of any length block nobody. */
	PF_CLOSE int errfd = memfd_create("pinfold-key-stderr", MFD_CLOEXEC);
	PF_CLOSE int outr = -1;
	PF_CLOSE int outw = -1;
	pid_t pid;

	*len = 0;
	if (errfd < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "key %s", spec);
	outr = pipe_fds[0];
	outw = pipe_fds[1];
	if (fcntl(outr, F_SETFL, O_NONBLOCK) < 0)
		return pf_fail(err, errno, "key %s", spec);
	if ((r = spawn_shell(command, outw, errfd, &pid)) != 0)
		return pf_fail(err, r, "key %s: /bin/sh", spec);
	close(pf_take_fd(&outw));
	PF_CLOSE int pidfd = pidfd_open(pid, 0);
	r = errno;
	bool ended = pidfd >= 0 && listen_to(pidfd, &outr, ms, out, max, len);
	if (!ended)
		kill_tree(pid, 0);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return pf_fail(err, errno, "key %s", spec);
	if (pidfd < 0)
		return pf_fail(err, r, "key %s: pidfd_open", spec);
	if (!ended)
		return pf_fail_kind(err, PF_ERR_SYSTEM, ETIMEDOUT,
			"key %s: the command did not end within %lld seconds", spec,
			(long long)((ms + 999) / 1000));
	/* Whoever prints more than we read gets SIGPIPE; what is wrong then is the length. */
	if (status != 0 && *len < max) {
		ssize_t n = pread(errfd, said, sizeof(said) - 1, 0);
		said[n < 0 ? 0 : n] = '\0';
		said[strcspn(said, "\n")] = '\0';
		return pf_fail(err, 0, "key %s: %s %d%s%s", spec,
			WIFEXITED(status) ? "exit code" : "ended by signal",
			WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), said[0] ? ": " : "",
			said);
	}
	return 0;
}
