#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/sink.h"
#include "base/str.h"
#include "base/sys.h"

uint64_t pf_proc_start_time(pid_t pid)
{
	char path[64], buf[1024];
	unsigned long long start = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	PF_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = pf_read_full(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		return 0;
	buf[n] = '\0';
	/* The command name may hold blanks and parentheses; the fields begin after the last ')'. */
	char *p = strrchr(buf, ')');
	if (!p)
		return 0;
	p++;
	for (int field = 3; field < 22 && *p; field++) {
		p += strspn(p, " ");
		p += strcspn(p, " ");
	}
	if (sscanf(p, " %llu", &start) != 1)
		return 0;
	return start;
}

int pf_pidfd_open_checked(pid_t pid, uint64_t start_time)
{
	PF_CLOSE int fd = pidfd_open(pid, 0);

	if (fd < 0) {
		if (errno == EINVAL)
			errno = ESRCH;
		return -1;
	}
	/* Read after opening: the pid cannot be reused for another process while it has this start time. */
	errno = 0;
	uint64_t started = pf_proc_start_time(pid);
	if (started == 0 && errno != 0 && errno != ENOENT && errno != ESRCH)
		return -1;
	if (started != start_time || pf_pidfd_ended(fd)) {
		errno = ESRCH;
		return -1;
	}
	return pf_take_fd(&fd);
}

bool pf_pidfd_ended(int pidfd)
{
	return pf_pidfd_wait(pidfd, 0) == 1;
}

int pf_pidfd_wait(int pidfd, int timeout_ms)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int64_t deadline = pf_now_us() + (int64_t)timeout_ms * 1000;

	for (;;) {
		int n = poll(&p, 1, timeout_ms);
		if (n > 0)
			return 1;
		if (n == 0)
			return 0;
		if (errno != EINTR)
			return -1;
		if (timeout_ms >= 0) {
			int64_t left = (deadline - pf_now_us()) / 1000;
			timeout_ms = left > 0 ? (int)left : 0;
		}
	}
}

bool pf_in_first_userns(void)
{
	struct stat st;

	/* PROC_USER_INIT_INO, include/linux/proc_ns.h: fixed, as user space relies on it. A kernel without
	 * user namespaces has only that one. */
	return stat("/proc/self/ns/user", &st) < 0 || st.st_ino == 0xEFFFFFFDU;
}

int64_t pf_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void sink_done(struct pf_sink *s)
{
	pf_cleanup_close(&s->fd);
	pf_buf_done(&s->data);
}

static void drain(struct pf_sink *s)
{
	if (!pf_sink_drain(s)) {
		close(s->fd);
		s->fd = -1;
	}
}

static int run(char *const argv[], bool tied, char **out, struct pf_err *err)
{
	pid_t self = getpid();
	int po[2], pe[2], status;

	if (pf_two_pipes(po, pe) < 0)
		return pf_fail(err, errno, "pipe");
	PF_CLEANUP(sink_done) struct pf_sink o = {.fd = po[0], .max = (size_t)1 << 20};
	PF_CLEANUP(sink_done) struct pf_sink e = {.fd = pe[0], .max = 4096};
	pid_t pid = fork();
	if (pid == 0) {
		if (tied && (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != self))
			_exit(127);
		int null = open("/dev/null", O_RDWR);
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		dup2(null, 0);
		dup2(out ? po[1] : null, 1);
		dup2(pe[1], 2);
		execv(argv[0], argv);
		dprintf(2, "%s: %s", argv[0], strerrordesc_np(errno));
		_exit(127);
	}
	int saved = errno;
	close(po[1]);
	close(pe[1]);
	if (pid < 0)
		return pf_fail(err, saved, "fork");
	while (o.fd >= 0 || e.fd >= 0) {
		struct pollfd p[2] = {{.fd = o.fd, .events = POLLIN}, {.fd = e.fd, .events = POLLIN}};
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents)
			drain(&o);
		if (p[1].revents)
			drain(&e);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return pf_fail(err, errno, "wait for %s", argv[0]);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		const char *base = strrchr(argv[0], '/');
		struct pf_buf *said = &e.data;
		while (said->len && (said->data[said->len - 1] == '\n' || said->data[said->len - 1] == ' '))
			said->data[--said->len] = '\0';
		return pf_fail(err, 0, "%s: %s", base ? base + 1 : argv[0],
			said->len             ? said->data
			: WIFSIGNALED(status) ? "killed by a signal"
					      : "failed");
	}
	if (out) {
		pf_buf_add(&o.data, "", 0);
		*out = pf_take(o.data.data);
	}
	return 0;
}

int pf_run(char *const argv[], char **out, struct pf_err *err)
{
	return run(argv, false, out, err);
}

int pf_run_tied(char *const argv[], char **out, struct pf_err *err)
{
	return run(argv, true, out, err);
}
