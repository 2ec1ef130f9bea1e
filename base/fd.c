#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sys.h"

int pf_write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int pf_pwrite_all(int fd, const void *data, size_t len, off_t off)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		p += n;
		off += n;
		len -= (size_t)n;
	}
	return 0;
}

ssize_t pf_read_full(int fd, void *data, size_t len)
{
	char *p = data;
	size_t got = 0;

	while (got < len) {
		ssize_t n = read(fd, p + got, len - got);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

static int read_growing(int fd, const char *path, size_t max, char **out, size_t *len, struct pf_err *err)
{
	size_t cap = 4096, got = 0;
	PF_FREE char *buf = malloc(cap + 1);

	if (!buf)
		return pf_fail(err, ENOMEM, "%s", path);
	for (;;) {
		ssize_t n = pf_read_full(fd, buf + got, cap - got);
		if (n < 0)
			return pf_fail(err, errno, "read %s", path);
		got += (size_t)n;
		if (got < cap)
			break;
		if (got > max)
			return pf_fail_kind(
				err, PF_ERR_INVALID, EFBIG, "%s: larger than %zu bytes", path, max);
		cap *= 2;
		char *more = realloc(buf, cap + 1);
		if (!more)
			return pf_fail(err, ENOMEM, "%s", path);
		buf = more;
	}
	if (got > max)
		return pf_fail_kind(err, PF_ERR_INVALID, EFBIG, "%s: larger than %zu bytes", path, max);
	buf[got] = '\0';
	if (len)
		*len = got;
	*out = pf_take(buf);
	return 0;
}

static int read_file(
	int dirfd, const char *path, int flags, size_t max, char **out, size_t *len, struct pf_err *err)
{
	/* O_NONBLOCK: a FIFO in its place must not hang us. */
	PF_CLOSE int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);
	struct stat st;

	if (fd < 0 && errno == ELOOP && flags)
		return pf_fail_kind(err, PF_ERR_INVALID, ELOOP, "%s: a symbolic link", path);
	if (fd < 0)
		return pf_fail_kind(
			err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "%s", path);
	if (fstat(fd, &st) < 0)
		return pf_fail(err, errno, "stat %s", path);
	if (!S_ISREG(st.st_mode))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: not a regular file", path);
	return read_growing(fd, path, max, out, len, err);
}

int pf_read_file_at(int dirfd, const char *path, size_t max, char **out, size_t *len, struct pf_err *err)
{
	return read_file(dirfd, path, 0, max, out, len, err);
}

int pf_read_plain_at(int dirfd, const char *path, size_t max, char **out, size_t *len, struct pf_err *err)
{
	return read_file(dirfd, path, O_NOFOLLOW, max, out, len, err);
}

int pf_read_pseudo_at(int dirfd, const char *path, size_t max, char **out, struct pf_err *err)
{
	PF_CLOSE int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return pf_fail(err, errno, "%s", path);
	return read_growing(fd, path, max, out, NULL, err);
}

int pf_write_pseudo_at(int dirfd, const char *path, const char *text)
{
	PF_CLOSE int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);
	size_t len = strlen(text);
	ssize_t n;

	if (fd < 0)
		return -1;
	do
		n = write(fd, text, len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -1;
	if ((size_t)n != len) {
		errno = EIO;
		return -1;
	}
	return 0;
}

int pf_sync_dir(int dirfd, struct pf_err *err)
{
	PF_CLOSE int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return pf_fail(err, errno, "fsync of directory");
	return 0;
}

int pf_replace_file_at(int dirfd, const char *name, const void *data, size_t len, mode_t mode, bool durable,
	struct pf_err *err)
{
	char tmp[300];
	PF_CLOSE int fd = -1;

	if (snprintf(tmp, sizeof(tmp), ".%s.%d.tmp", name, (int)getpid()) >= (int)sizeof(tmp))
		return pf_fail(err, ENAMETOOLONG, "%s", name);
	(void)unlinkat(dirfd, tmp, 0); /* of an earlier process with our pid that was killed here */
	fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return pf_fail(err, errno, "create %s", tmp);
	/* fchmod: mode means mode, whatever the umask. */
	if (fchmod(fd, mode) < 0 || pf_write_all(fd, data, len) < 0 || (durable && fsync(fd) < 0)) {
		pf_fail(err, errno, "write %s", name);
		(void)unlinkat(dirfd, tmp, 0);
		return -1;
	}
	if (renameat(dirfd, tmp, dirfd, name) < 0) {
		pf_fail(err, errno, "rename %s", name);
		(void)unlinkat(dirfd, tmp, 0);
		return -1;
	}
	return durable ? pf_sync_dir(dirfd, err) : 0;
}

int pf_new_file_at(int dirfd, const char *name, const void *data, size_t len, mode_t mode, struct pf_err *err)
{
	PF_CLOSE int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);

	if (fd < 0 && errno == EEXIST)
		return pf_replace_file_at(dirfd, name, data, len, mode, false, err);
	if (fd < 0)
		return pf_fail(err, errno, "create %s", name);
	if (fchmod(fd, mode) < 0 || pf_write_all(fd, data, len) < 0) {
		pf_fail(err, errno, "write %s", name);
		(void)unlinkat(dirfd, name, 0);
		return -1;
	}
	return 0;
}

int pf_lock_file_at(int dirfd, const char *name, bool wait, struct pf_err *err)
{
	PF_CLOSE int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return pf_fail(err, errno, "lock %s", name);
	while (flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) < 0)
		if (errno != EINTR)
			return pf_fail_kind(err, PF_ERR_STATE, errno, "lock %s", name);
	return pf_take_fd(&fd);
}

int pf_open_stdio(void)
{
	/* No O_CLOEXEC: these three are the ones that are passed on. */
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return -1;
	return 0;
}

int pf_set_cloexec(int fd, bool on)
{
	return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0);
}

int pf_two_pipes(int one[2], int other[2])
{
	if (pipe2(one, O_CLOEXEC) < 0)
		return -1;
	if (pipe2(other, O_CLOEXEC) < 0) {
		int saved = errno;
		close(one[0]);
		close(one[1]);
		errno = saved;
		return -1;
	}
	return 0;
}

int pf_send_with_fd(int sock, const void *data, size_t len, int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
	const char *p = data;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	ssize_t n;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	for (size_t sent = 0; n >= 0 && (sent += (size_t)n) < len;) {
		do
			n = send(sock, p + sent, len - sent, MSG_NOSIGNAL);
		while (n < 0 && errno == EINTR);
	}
	return n < 0 ? -1 : 0;
}

int pf_send_fd(int sock, int fd)
{
	return pf_send_with_fd(sock, "", 1, fd);
}

size_t pf_take_fds(struct msghdr *msg, int *fds, size_t max)
{
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (n < max)
				fds[n++] = fd;
			else
				close(fd);
		}
	}
	return n;
}

int pf_recv_fd(int sock)
{
	char byte;
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	int fds[2];
	ssize_t n;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -1;
	size_t got = pf_take_fds(&msg, fds, 2);
	if (got == 1 && n > 0)
		return fds[0];
	while (got > 0)
		close(fds[--got]);
	errno = ECONNRESET;
	return -1;
}
