#include "sandbox/console.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/mounts.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

int pf_console_connect(const char *path, struct pf_err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	PF_FREE char *dir = pf_strdup(path);
	char *slash = strrchr(dir, '/');
	PF_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), d = -1;

	if (fd < 0)
		return pf_fail(err, errno, "socket");
	if (strlen(path) < sizeof(sa.sun_path)) {
		strcpy(sa.sun_path, path);
	} else {
		/* By the directory's descriptor. */
		if (slash)
			*slash = '\0';
		d = open(slash ? (*dir ? dir : "/") : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (d < 0 || snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/%s", d,
				     slash ? slash + 1 : path) >= (int)sizeof(sa.sun_path))
			return pf_fail(err, d < 0 ? errno : ENAMETOOLONG, "socket %s", path);
	}
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return pf_fail(err, errno, "connect to socket %s", path);
	return pf_take_fd(&fd);
}

int pf_console_open(int root, int sock, const struct pf_process *p, struct pf_err *err)
{
	PF_CLOSE int pts = pf_open_in_root(root, "dev/pts", O_PATH | O_DIRECTORY, 0), master = -1, slave = -1;
	struct winsize ws = {.ws_col = p->console_width, .ws_row = p->console_height};
	struct statfs fs;
	int unlock = 0;

	/* Believed for what it is, not for where it lies: an image may have its own idea of /dev/pts
	 * (CVE-2025-52565). A devpts has nothing but terminals in it. */
	if (pts < 0 || fstatfs(pts, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"process.terminal: no devpts is mounted at /dev/pts (remedy: add it to mounts)");
	master = openat(pts, "ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return pf_fail(err, errno, "terminal: /dev/pts/ptmx");
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return pf_fail(err, errno, "terminal");
	if (ws.ws_col && ws.ws_row && ioctl(master, TIOCSWINSZ, &ws) < 0)
		return pf_fail(err, errno, "process.consoleSize");
	/* The message's text is the descriptor's name; what reads it wants it not empty. */
	if (pf_send_with_fd(sock, "/dev/ptmx", strlen("/dev/ptmx"), master) < 0)
		return pf_fail(err, errno, "send the terminal to the console socket");
	return pf_take_fd(&slave);
}

int pf_console_bind(int root, int slave, struct pf_err *err)
{
	PF_CLOSE int place = pf_mkfile_in_root(root, "/dev/console"), m = -1;

	if (place < 0)
		return pf_fail(err, errno, "/dev/console");
	m = pf_mount_clone(slave, false, 0, -1, err);
	if (m < 0)
		return pf_wrap(err, "/dev/console");
	if (move_mount(m, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return pf_fail(err, errno, "/dev/console");
	return 0;
}
