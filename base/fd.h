/* Descriptors and whole files: complete reads and writes, files that are either the old or the new one. */
#ifndef PF_BASE_FD_H
#define PF_BASE_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* Write all of it; EINTR and short writes are handled. -1 with errno. Async-signal-safe. */
int pf_write_all(int fd, const void *data, size_t len);
/* The same at an offset. */
int pf_pwrite_all(int fd, const void *data, size_t len, off_t off);
/* Read until len bytes or end of file. Returns the count, -1 with errno. Async-signal-safe. */
ssize_t pf_read_full(int fd, void *data, size_t len);

/* Read a whole regular file below dirfd into a malloc'ed, NUL-terminated *out (*len may be NULL). A file that
 * is no regular file, or larger than max bytes, is an error: what we read is never unbounded. */
int pf_read_file_at(int dirfd, const char *path, size_t max, char **out, size_t *len, struct pf_err *err);
/* The same where somebody else made the names: a symbolic link is not followed, for what opening its target
 * does is done before one sees that it is no file. */
int pf_read_plain_at(int dirfd, const char *path, size_t max, char **out, size_t *len, struct pf_err *err);
/* For /proc, /sys and cgroup files: no size is known before reading. */
int pf_read_pseudo_at(int dirfd, const char *path, size_t max, char **out, struct pf_err *err);

/* Write text to an existing pseudo file (cgroup, /proc, /sys) in one write(2). -1 with errno. */
int pf_write_pseudo_at(int dirfd, const char *path, const char *text);

/* Replace a file durably: temporary name, fsync, rename, fsync of the directory. durable=false skips both
 * fsyncs (runtime state on tmpfs). The file has mode exactly, whatever the umask. */
int pf_replace_file_at(int dirfd, const char *name, const void *data, size_t len, mode_t mode, bool durable,
	struct pf_err *err);

/* Write a file that nobody can know of yet; one that is there nevertheless is replaced. Not durable. */
int pf_new_file_at(
	int dirfd, const char *name, const void *data, size_t len, mode_t mode, struct pf_err *err);

/* fsync the directory that dirfd names. */
int pf_sync_dir(int dirfd, struct pf_err *err);

/* flock(2) an exclusive lock on name below dirfd, made 0600 if missing. wait=false fails with EWOULDBLOCK in
 * err->errnum. The lock lives as long as the returned fd. */
int pf_lock_file_at(int dirfd, const char *name, bool wait, struct pf_err *err);

/* To be called first of all: where a caller closed standard input, output or error, /dev/null. Else the next
 * file that is opened would take the number, and be handed to the command as its own. -1 with errno. */
int pf_open_stdio(void);

/* Make fd inheritable or not across exec. */
int pf_set_cloexec(int fd, bool on);

/* Two pipes, close-on-exec, or none: -1 with errno. */
int pf_two_pipes(int one[2], int other[2]);

/* Send len bytes, at least one, to a connected socket, and a descriptor (SCM_RIGHTS) with the first of them.
 * -1 with errno. Async-signal-safe. */
int pf_send_with_fd(int sock, const void *data, size_t len, int fd);
/* Send and receive one descriptor with a one-byte message. -1 with errno. */
int pf_send_fd(int sock, int fd);
int pf_recv_fd(int sock);

/* What came with a message that recvmsg(2) has received: the first max of its descriptors go to fds, the
 * others are closed (the padding of a control buffer has room for more than were asked for). Returns how many
 * there are in fds. */
struct msghdr;
size_t pf_take_fds(struct msghdr *msg, int *fds, size_t max);

#endif
