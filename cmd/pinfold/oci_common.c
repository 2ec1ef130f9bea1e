#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "cmd/pinfold/oci.h"
#include "session/tty.h"

void pf_oci_close(struct pf_oci *h)
{
	pf_container_done(&h->c);
	if (h->dir >= 0)
		close(pf_take_fd(&h->dir));
	if (h->lock >= 0)
		close(pf_take_fd(&h->lock));
}

int pf_oci_open(const char *id, bool lock, struct pf_oci *h, struct pf_err *err)
{
	h->id = id;
	if (pf_check_id("container id", id, err) < 0)
		return -1;
	if (lock) {
		h->lock = pf_dirs_lock(&pf_globals.dirs, id, true, err);
		if (h->lock < 0)
			return -1;
	}
	h->dir = pf_dirs_run(&pf_globals.dirs, id, false, err);
	if (h->dir < 0 && lock)
		pf_dirs_unlock_remove(&pf_globals.dirs, id, &h->lock);
	if (h->dir < 0)
		return err->kind == PF_ERR_NOT_FOUND
			       ? pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "container %s does not exist", id)
			       : -1;
	if (!pf_container_is(h->dir) && faccessat(h->dir, "state.json", F_OK, 0) == 0)
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"'%s' is a session, not an OCI container (see exec, destroy, stats)", id);
	return pf_container_load(h->dir, id, &h->c, err);
}

bool pf_oci_is(const char *id)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_CLOSE int dir = -1;

	if (pf_check_id("container id", id, &ignored) < 0)
		return false;
	dir = pf_dirs_run(&pf_globals.dirs, id, false, &ignored);
	return dir >= 0 && pf_container_is(dir);
}

int pf_oci_cache(void)
{
	struct pf_err ignored = PF_ERR_INIT;

	return pf_dirs_open(pf_globals.dirs.root, ".cache", &ignored);
}

int pf_oci_fail(const char *what, struct pf_err *err, int code)
{
	pf_wrap(err, "%s", what);
	(void)pf_report(err);
	return code;
}

void pf_oci_warn(struct pf_buf *warnings)
{
	char *save = NULL;

	for (char *line = warnings->data ? strtok_r(warnings->data, "\n", &save) : NULL; line;
		line = strtok_r(NULL, "\n", &save))
		pf_log("warning", line);
	pf_buf_done(warnings);
	*warnings = (struct pf_buf){0};
}

int pf_oci_check_fds(unsigned n, struct pf_err *err)
{
	for (unsigned i = 0; i < n; i++) {
		int flags = fcntl(3 + (int)i, F_GETFD);
		/* One that is to be closed on exec has not come over one: it is ours. */
		if (flags < 0 || (flags & FD_CLOEXEC))
			return pf_fail_kind(
				err, PF_ERR_INVALID, EBADF, "--preserve-fds %u: descriptor %u", n, 3 + i);
	}
	return 0;
}

int pf_oci_console_pair(int pair[2], struct pf_err *err)
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0
		       ? pf_fail(err, errno, "socketpair")
		       : 0;
}

/* ---- waiting ---- */

/* All that can be sent to us and means the program; not those that tell us of our own faults or children. */
static void forwarded(sigset_t *set)
{
	static const int own[] = {SIGCHLD, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGABRT, SIGPIPE,
		SIGTTIN, SIGTTOU, SIGTSTP, SIGURG};

	sigfillset(set);
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		sigdelset(set, own[i]);
}

int pf_oci_block_signals(struct pf_err *err)
{
	static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct sigaction how;
	sigset_t set, cancel;

	forwarded(&set);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	sigemptyset(&cancel);
	/* Who has us ignore one (nohup) does not want it to end us. */
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (sigaction(ends[i], NULL, &how) == 0 && how.sa_handler != SIG_IGN)
			sigaddset(&cancel, ends[i]);
	int fd = signalfd(-1, &cancel, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? pf_fail(err, errno, "signalfd") : fd;
}

static int take_master(struct pf_tty *t, int console)
{
	t->master = pf_recv_fd(console);
	if (t->master < 0)
		return -1;
	(void)fcntl(t->master, F_SETFL, O_NONBLOCK);
	pf_tty_started(t);
	pf_tty_resize(t);
	return 0;
}

int pf_oci_wait(pid_t pid, int pidfd, int console)
{
	struct pf_tty tty = PF_TTY_INIT;
	sigset_t set;
	bool ended = false, has_tty = false;
	int status = 0;

	forwarded(&set);
	PF_CLOSE int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (console >= 0)
		has_tty = take_master(&tty, console) == 0;
	while (!ended) {
		struct signalfd_siginfo si;
		struct pollfd p[4] = {{.fd = pidfd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
		int n = 2 + (has_tty ? pf_tty_poll(&tty, &p[2]) : 0);
		if (poll(p, (nfds_t)n, -1) < 0)
			continue;
		while (p[1].revents && read(signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
			if (si.ssi_signo == SIGWINCH && has_tty)
				pf_tty_resize(&tty);
			else
				(void)pidfd_send_signal(pidfd, (int)si.ssi_signo, NULL, 0);
		}
		if (has_tty)
			pf_tty_serve(&tty, &p[2]);
		ended = p[0].revents != 0;
	}
	if (has_tty)
		pf_tty_drain(&tty);
	pf_tty_close(&tty);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
