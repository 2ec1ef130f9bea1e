/* Theory of operation: a handler may do next to nothing, and the threads that it interrupts go on making
 * files. So it starts a process, by what may be called in a handler, and ends its own; that process waits
 * until its parent is gone with all threads, and then removes in peace. The paths are kept ready in the form
 * that execv() wants. */
#include "base/guard.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "base/str.h"

#define SLOTS 32
#define WAIT_S 60 /* a process in an uninterruptible wait ends late */
#define TRIES 500

static char paths[SLOTS][PATH_MAX];
static char program[PATH_MAX], own_pid[16];
static const int guarded[] = {SIGINT, SIGTERM, SIGHUP};

static void start_remover(void)
{
	static char verb[] = "remove-behind";
	char *argv[SLOTS + 4] = {program, verb, own_pid};
	size_t n = 3;

	for (size_t i = 0; i < SLOTS; i++)
		if (paths[i][0])
			argv[n++] = paths[i];
	if (n == 3 || _Fork() != 0)
		return;
	for (size_t i = 0; i < sizeof(guarded) / sizeof(guarded[0]); i++)
		(void)signal(guarded[i], SIG_IGN);
	(void)setsid();
	/* Whoever reads our output sees its end. */
	(void)close_range(0, ~0U, 0);
	if (open("/dev/null", O_RDWR) == 0 && dup(0) == 1 && dup(0) == 2)
		execv(program, argv);
	_exit(127);
}

static void on_signal(int sig)
{
	static int going;

	if (!__atomic_exchange_n(&going, 1, __ATOMIC_SEQ_CST))
		start_remover();
	/* SA_RESETHAND: this one ends us, as soon as the handler returns. */
	(void)raise(sig);
}

void pf_guard_begin(const char *remover)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}, was;

	if (strlen(remover) >= sizeof(program))
		return;
	snprintf(program, sizeof(program), "%s", remover);
	snprintf(own_pid, sizeof(own_pid), "%d", (int)getpid());
	sigfillset(&sa.sa_mask);
	for (size_t i = 0; i < sizeof(guarded) / sizeof(guarded[0]); i++)
		if (sigaction(guarded[i], NULL, &was) == 0 && was.sa_handler == SIG_DFL)
			(void)sigaction(guarded[i], &sa, NULL);
}

/* Of what is not there any more, too. 0; -1: it has no path, or one that is too long. */
static int path_of(int dirfd, const char *name, char out[PATH_MAX])
{
	char link[40], dir[PATH_MAX] = ".";

	if (name[0] == '/')
		return snprintf(out, PATH_MAX, "%s", name) < PATH_MAX ? 0 : -1;
	if (dirfd == AT_FDCWD) {
		if (!getcwd(dir, sizeof(dir)))
			return -1;
	} else {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
		ssize_t n = readlink(link, dir, sizeof(dir) - 1);
		if (n <= 0 || dir[0] != '/')
			return -1;
		dir[n] = '\0';
	}
	return snprintf(out, PATH_MAX, "%s/%s", dir, name) < PATH_MAX ? 0 : -1;
}

void pf_guard_add(int dirfd, const char *name)
{
	char path[PATH_MAX];

	if (!program[0] || path_of(dirfd, name, path) < 0)
		return;
	for (size_t i = 0; i < SLOTS; i++)
		if (!paths[i][0]) {
			/* A signal in between sees nothing or all of it. */
			memcpy(paths[i] + 1, path + 1, strlen(path));
			__atomic_signal_fence(__ATOMIC_SEQ_CST);
			paths[i][0] = path[0];
			return;
		}
}

void pf_guard_drop(int dirfd, const char *name)
{
	char path[PATH_MAX];

	if (!program[0] || path_of(dirfd, name, path) < 0)
		return;
	for (size_t i = 0; i < SLOTS; i++)
		if (strcmp(paths[i], path) == 0)
			paths[i][0] = '\0';
}

void pf_guard_remove(int pid, char *const *what)
{
	const struct timespec pause = {0, 2000000};
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	for (time_t end = now.tv_sec + WAIT_S; getppid() == pid;) {
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec > end)
			return;
		(void)nanosleep(&pause, NULL);
	}
	for (; *what; what++) {
		struct pf_err ignored = PF_ERR_INIT; /* gc finds what is left */
		PF_FREE char *dir = pf_strdup(*what);
		char *slash = strrchr(dir, '/');
		if (dir[0] != '/' || !slash[1])
			continue;
		*slash = '\0';
		PF_CLOSE int fd = open(*dir ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		/* A program that the parent had started, and that ends with it, may have put something in
		 * meanwhile. */
		for (int i = 0; fd >= 0 && pf_rm_rf_at(fd, slash + 1, &ignored) < 0 && i < TRIES; i++)
			(void)nanosleep(&pause, NULL);
	}
}
