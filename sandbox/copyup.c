/* tmpcopyup: a tmpfs begins with what lay at its place. The tree comes from an image, so that nothing in it
 * is followed: directories are opened without following, files are read only when they are regular, links are
 * copied as they are. Devices, sockets and FIFOs are left out: a tmpfs in a container is no place for them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/mounts.h"

#define MAX_DEPTH 64

static int copy_dir(int from, int to, int depth, struct pf_err *err);

/* Owner, mode and times of what st tells, for fd. */
static int copy_meta(int fd, const struct stat *st, struct pf_err *err)
{
	const struct timespec times[2] = {st->st_atim, st->st_mtim};

	if (fchown(fd, st->st_uid, st->st_gid) < 0 || fchmod(fd, st->st_mode & 07777) < 0 ||
		futimens(fd, times) < 0)
		return pf_fail(err, errno, "owner and mode");
	return 0;
}

static int copy_file(int from, int to, const char *name, struct pf_err *err)
{
	PF_CLOSE int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), out = -1;
	struct stat st;
	ssize_t n;

	if (in < 0 || fstat(in, &st) < 0)
		return pf_fail(err, errno, "%s", name);
	if (!S_ISREG(st.st_mode))
		return 0;
	out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0)
		return pf_fail(err, errno, "%s", name);
	do
		n = sendfile(out, in, NULL, (size_t)1 << 30);
	while (n > 0 || (n < 0 && errno == EINTR));
	if (n < 0)
		return pf_fail(err, errno, "%s", name);
	return copy_meta(out, &st, err);
}

static int copy_link(int from, int to, const char *name, const struct stat *st, struct pf_err *err)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(from, name, target, sizeof(target) - 1);

	if (n < 0)
		return pf_fail(err, errno, "%s", name);
	target[n] = '\0';
	if (symlinkat(target, to, name) < 0 ||
		fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		return pf_fail(err, errno, "%s", name);
	return 0;
}

static int copy_entry(int from, int to, const char *name, int depth, struct pf_err *err)
{
	struct stat st;

	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "%s", name);
	if (S_ISLNK(st.st_mode))
		return copy_link(from, to, name, &st, err);
	if (S_ISREG(st.st_mode))
		return copy_file(from, to, name, err);
	if (!S_ISDIR(st.st_mode))
		return 0;
	if (mkdirat(to, name, 0700) < 0)
		return pf_fail(err, errno, "%s", name);
	PF_CLOSE int in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	PF_CLOSE int out = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (in < 0 || out < 0)
		return pf_fail(err, errno, "%s", name);
	return copy_dir(in, out, depth + 1, err);
}

static int copy_dir(int from, int to, int depth, struct pf_err *err)
{
	PF_CLOSEDIR DIR *d = fdopendir(fcntl(from, F_DUPFD_CLOEXEC, 3));
	struct dirent *e;
	struct stat st;

	if (!d || fstat(from, &st) < 0)
		return pf_fail(err, errno, "directory");
	if (depth > MAX_DEPTH)
		return pf_fail(err, ELOOP, "deeper than %d directories", MAX_DEPTH);
	while ((errno = 0, e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
			copy_entry(from, to, e->d_name, depth, err) < 0)
			return -1;
	if (errno)
		return pf_fail(err, errno, "read directory");
	return copy_meta(to, &st, err);
}

int pf_copy_tree(int from, int to, struct pf_err *err)
{
	/* A detached mount is held by a descriptor that only names it. */
	PF_CLOSE int top = openat(to, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return top < 0 ? pf_fail(err, errno, "tmpfs") : copy_dir(from, top, 0, err);
}
