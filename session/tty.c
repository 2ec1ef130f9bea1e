#include "session/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

/* The other end of t->master, and its size. */
static int open_peer(struct pf_tty *t, struct pf_err *err)
{
	struct winsize ws;
	int unlock = 0;

	if (ioctl(t->master, TIOCSPTLCK, &unlock) < 0)
		return pf_fail(err, errno, "terminal");
	/* By the master's descriptor, not by a name that could lead elsewhere. */
	t->peer = ioctl(t->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (t->peer < 0)
		return pf_fail(err, errno, "terminal");
	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) == 0)
		(void)ioctl(t->master, TIOCSWINSZ, &ws);
	return fcntl(t->master, F_SETFL, O_NONBLOCK) < 0 ? pf_fail(err, errno, "terminal") : 0;
}

int pf_tty_open_here(struct pf_tty *t, struct pf_err *err)
{
	t->master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (t->master < 0)
		return pf_fail(err, errno, "/dev/ptmx");
	return open_peer(t, err);
}

int pf_tty_open(struct pf_tty *t, pid_t pid, uint32_t host_uid, struct pf_err *err)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
	PF_CLOSE int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSE int look = root < 0 ? -1 : pf_open_in_root(root, "dev/pts/ptmx", O_PATH | O_NOFOLLOW, 0);
	/* Looked at before it is opened: opening some other device could do something. */
	if (look < 0 || fstat(look, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(5, 2))
		return pf_fail(err, 0, "the sandbox has no terminal multiplexer at /dev/pts/ptmx");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", look);
	t->master = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (t->master < 0)
		return pf_fail(err, errno, "terminal");
	if (open_peer(t, err) < 0)
		return -1;
	return fchown(t->peer, host_uid, (gid_t)-1) < 0 ? pf_fail(err, errno, "owner of the terminal") : 0;
}

void pf_tty_started(struct pf_tty *t)
{
	struct termios raw;

	if (t->peer >= 0)
		close(pf_take_fd(&t->peer));
	t->stdin_open = true;
	if (tcgetattr(STDIN_FILENO, &t->saved) < 0)
		return;
	raw = t->saved;
	cfmakeraw(&raw);
	t->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

void pf_tty_resize(struct pf_tty *t)
{
	struct winsize ws;

	if (t->master >= 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) == 0)
		(void)ioctl(t->master, TIOCSWINSZ, &ws);
}

int pf_tty_poll(const struct pf_tty *t, struct pollfd *p)
{
	p[0] = (struct pollfd){
		.fd = t->stdin_open && t->to_cmd_len == 0 ? STDIN_FILENO : -1, .events = POLLIN};
	p[1] = (struct pollfd){.fd = t->master, .events = (short)(POLLIN | (t->to_cmd_len ? POLLOUT : 0))};
	return 2;
}

static void flush_input(struct pf_tty *t)
{
	ssize_t n = write(t->master, t->to_cmd, t->to_cmd_len);

	if (n > 0) {
		t->to_cmd_len -= (size_t)n;
		memmove(t->to_cmd, t->to_cmd + n, t->to_cmd_len);
	}
}

/* One read's worth of output to the caller. False when there is none. */
static bool pump_output(struct pf_tty *t)
{
	char chunk[65536];
	ssize_t n = read(t->master, chunk, sizeof(chunk));

	if (n <= 0) {
		/* EIO: nobody has the other end open any more. */
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			close(pf_take_fd(&t->master));
		return false;
	}
	(void)pf_write_all(STDOUT_FILENO, chunk, (size_t)n);
	return true;
}

void pf_tty_serve(struct pf_tty *t, const struct pollfd *p)
{
	if (p[0].revents) {
		ssize_t n = read(STDIN_FILENO, t->to_cmd, sizeof(t->to_cmd));
		if (n > 0) {
			t->to_cmd_len = (size_t)n;
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			/* A terminal has no half-close: its end of file is a character. */
			t->stdin_open = false;
			t->to_cmd[0] = 4;
			t->to_cmd_len = 1;
		}
	}
	if (t->to_cmd_len && t->master >= 0)
		flush_input(t);
	if (p[1].revents & (POLLIN | POLLHUP | POLLERR) && t->master >= 0)
		(void)pump_output(t);
}

void pf_tty_drain(struct pf_tty *t)
{
	while (t->master >= 0 && pump_output(t))
		;
}

void pf_tty_close(struct pf_tty *t)
{
	if (t->raw)
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &t->saved);
	if (t->master >= 0)
		close(t->master);
	if (t->peer >= 0)
		close(t->peer);
	*t = PF_TTY_INIT;
}
