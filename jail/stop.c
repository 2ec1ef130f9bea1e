/* Stopping a box without a cgroup of its own: every process of its pid namespace by SIGSTOP, again and again
 * until a look finds none that runs, since what runs may start others meanwhile. Each is held by a descriptor
 * from before it is looked at, so that no other process of the same number is meant. When all that does not
 * stop waits in the kernel, all go on for a moment: one may wait for another that was stopped (vfork). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proc.h"
#include "jail/keep.h"

#define MAX_STOPPED 4096
#define PATIENCE_US 5000000
#define WAITING_US 20000

static struct {
	int fds[MAX_STOPPED];
	pid_t pids[MAX_STOPPED];
	size_t n;
} stopped;

static void go_on(void)
{
	/* The last that was stopped first: its parent may be waiting for it. */
	while (stopped.n > 0) {
		int fd = stopped.fds[--stopped.n];
		(void)pidfd_send_signal(fd, SIGCONT, NULL, 0);
		close(fd);
	}
}

/* 'R', 'S', 'T', …; 'X' when it is gone. */
static char state_of(const char *pid)
{
	char path[64];
	PF_FREE char *text = NULL;
	struct pf_err ignored = PF_ERR_INIT;

	snprintf(path, sizeof(path), "/proc/%.16s/stat", pid);
	if (pf_read_pseudo_at(AT_FDCWD, path, 4096, &text, &ignored) < 0)
		return 'X';
	const char *end = strrchr(text, ')');
	return end && end[1] == ' ' ? end[2] : 'X';
}

static bool same_namespace(const char *pid, const struct stat *ns)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%.16s/ns/pid", pid);
	return stat(path, &st) == 0 && st.st_ino == ns->st_ino && st.st_dev == ns->st_dev;
}

/* What one look found. */
struct look {
	int running; /* had to be stopped, or are not yet */
	int waiting; /* of those: in the kernel, where no signal is taken */
};

static void stop_one(const char *pid, const struct stat *ns, struct look *look)
{
	pid_t number = (pid_t)atoi(pid);
	PF_CLOSE int fd = pidfd_open(number, 0);
	char state;

	if (fd < 0 || !same_namespace(pid, ns) || strchr("TtZX", state = state_of(pid)))
		return;
	look->running++;
	look->waiting += state == 'D';
	for (size_t i = 0; i < stopped.n; i++)
		if (stopped.pids[i] == number && !pf_pidfd_ended(stopped.fds[i]))
			return; /* told already, and not there yet */
	if (stopped.n == MAX_STOPPED)
		return;
	if (pidfd_send_signal(fd, SIGSTOP, NULL, 0) == 0) {
		stopped.pids[stopped.n] = number;
		stopped.fds[stopped.n++] = pf_take_fd(&fd);
	}
}

int pf_jail_stop(void *arg, bool stop, struct pf_err *err)
{
	const pid_t *box = arg;
	int64_t until = pf_now_us() + PATIENCE_US, alone = 0;
	const struct timespec moment = {.tv_nsec = 1000000};
	struct stat ns;
	char path[64];

	if (!stop) {
		go_on();
		return 0;
	}
	snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)*box);
	if (stat(path, &ns) < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "%s", path);
	for (;;) {
		PF_CLOSEDIR DIR *d = opendir("/proc");
		struct dirent *e;
		struct look look = {0};
		if (!d) {
			go_on();
			return pf_fail(err, errno, "/proc");
		}
		while ((e = readdir(d)))
			if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
				stop_one(e->d_name, &ns, &look);
		if (look.running == 0)
			return 0;
		if (pf_now_us() > until) {
			go_on();
			return pf_fail_kind(err, PF_ERR_STATE, 0,
				"the command's processes do not stand still (%d do not)", look.running);
		}
		/* Who waits in vfork() for a child that was stopped before its exec waits for ever. */
		if (look.waiting < look.running)
			alone = 0;
		else if (alone == 0)
			alone = pf_now_us();
		else if (pf_now_us() - alone > WAITING_US) {
			go_on();
			alone = 0;
		}
		(void)nanosleep(&moment, NULL);
	}
}
