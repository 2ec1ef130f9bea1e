#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "base/sys.h"

int pf_open_in_root(int rootfd, const char *path, int flags, mode_t mode)
{
	int fd, tries = 0;

	/* EAGAIN: the kernel saw a rename or mount race while resolving and could not vouch for the result.
	 */
	do
		fd = pf_openat2(rootfd, *path ? path : ".", (uint64_t)(unsigned)flags,
			(flags & (O_CREAT | O_TMPFILE)) ? mode : 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
	while (fd < 0 && errno == EAGAIN && ++tries < 128);
	return fd;
}

/* Walks path one component at a time: open what is there (symlinks resolved inside root from the full prefix,
 * so that a link in the middle works), mkdir what is not. The prefix is re-resolved from root each time, so a
 * racing swap can only lead elsewhere *inside* root. */
static int mkdirs_in_root(int rootfd, const char *path, mode_t mode)
{
	char prefix[PATH_MAX];
	size_t len = strlen(path), pos = 0;
	PF_CLOSE int own = -1; /* of what was walked to */

	if (len >= sizeof(prefix)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	while (pos < len) {
		while (pos < len && path[pos] == '/')
			pos++;
		size_t start = pos;
		while (pos < len && path[pos] != '/')
			pos++;
		if (pos == start)
			break;
		memcpy(prefix, path, pos);
		prefix[pos] = '\0';
		int fd = pf_open_in_root(rootfd, prefix, O_PATH | O_DIRECTORY, 0);
		if (fd < 0 && errno == ENOENT) {
			bool last = path[pos + strspn(path + pos, "/")] == '\0';
			if (mkdirat(own < 0 ? rootfd : own, prefix + start, last ? mode : 0755) < 0 &&
				errno != EEXIST)
				return -1;
			fd = pf_open_in_root(rootfd, prefix, O_PATH | O_DIRECTORY, 0);
		}
		if (fd < 0)
			return -1;
		if (own >= 0)
			close(own);
		own = fd;
	}
	return own < 0 ? pf_open_in_root(rootfd, ".", O_PATH | O_DIRECTORY, 0) : pf_take_fd(&own);
}

/* umask and not chmod: what was just made may have been swapped by somebody inside root. */
int pf_mkdirs_in_root(int rootfd, const char *path, mode_t mode)
{
	/* Often it is there. */
	int fd = pf_open_in_root(rootfd, path, O_PATH | O_DIRECTORY, 0);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	mode_t old = umask(0);
	fd = mkdirs_in_root(rootfd, path, mode);
	umask(old);
	return fd;
}

static int mkfile_in_root(int rootfd, const char *path)
{
	char copy[PATH_MAX];
	int fd;

	if (strlen(path) >= sizeof(copy)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(copy, path);
	char *slash = strrchr(copy, '/');
	const char *name = slash ? slash + 1 : copy;
	PF_CLOSE int dir = -1;
	if (slash) {
		*slash = '\0';
		dir = mkdirs_in_root(rootfd, copy, 0755);
	} else {
		dir = pf_open_in_root(rootfd, ".", O_PATH | O_DIRECTORY, 0);
	}
	if (dir < 0)
		return -1;
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 && errno != EEXIST)
		return -1;
	if (fd >= 0)
		close(fd);
	return pf_open_in_root(rootfd, path, O_PATH, 0);
}

int pf_mkfile_in_root(int rootfd, const char *path)
{
	int fd = pf_open_in_root(rootfd, path, O_PATH, 0);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	mode_t old = umask(0);
	fd = mkfile_in_root(rootfd, path);
	umask(old);
	return fd;
}

int pf_mkdirs(const char *path, mode_t mode, struct pf_err *err)
{
	PF_FREE char *p = pf_strdup(path);

	for (char *s = p + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = '\0';
		if (mkdir(p, mode) < 0 && errno != EEXIST)
			return pf_fail(err, errno, "mkdir %s", p);
		*s = '/';
	}
	if (mkdir(p, mode) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "mkdir %s", p);
	return 0;
}

/* A tree that somebody else made may be deeper than we have descriptors or stack for, since its maker could
 * always chdir one further. Directories below this depth are moved up into the top of the tree being removed
 * and come to their turn there. */
#define RM_DEPTH 64

struct rm {
	int top;             /* the directory named by the caller, -1 while it is not open */
	unsigned long moved; /* for unique names in top */
};

static int rm_rf(struct rm *rm, int dirfd, const char *name, int depth, struct pf_err *err);

/* Remove name by taking it to the top first. */
static int rm_lift(struct rm *rm, int dirfd, const char *name, struct pf_err *err)
{
	char up[64];

	for (;;) {
		snprintf(up, sizeof(up), ".pinfold-rm-%lu", rm->moved++);
		if (renameat(dirfd, name, rm->top, up) == 0 || errno == ENOENT)
			return 0;
		if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR)
			return pf_fail(err, errno, "remove %s", name);
	}
}

static int rm_entries(struct rm *rm, DIR *d, int depth, bool *any, struct pf_err *err)
{
	struct dirent *e;

	*any = false;
	while ((errno = 0, e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		*any = true;
		if (rm_rf(rm, dirfd(d), e->d_name, depth + 1, err) < 0)
			return -1;
	}
	return errno ? pf_fail(err, errno, "read directory") : 0;
}

static int rm_rf(struct rm *rm, int dirfd, const char *name, int depth, struct pf_err *err)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR)
		return pf_fail(err, errno, "remove %s", name);
	if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return pf_fail(
			err, errno, "remove %s%s", name, errno == EBUSY ? ": a mount is in the way" : "");
	if (depth >= RM_DEPTH)
		return rm_lift(rm, dirfd, name, err);

	/* NO_XDEV also stops at bind mounts of the same file system, which no device number shows. The
	 * caller's own name may be a path through other mounts. */
	int fd = pf_openat2(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0,
		depth > 0 ? RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH : 0);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return pf_fail(
			err, errno, "remove %s%s", name, errno == EXDEV ? ": a mount is in the way" : "");
	PF_CLOSEDIR DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return pf_fail(err, errno, "remove %s", name);
	}
	if (depth == 0)
		rm->top = fd;
	/* More than one round where lifted directories came in behind the reader, or a file system skipped
	 * entries because others went away. */
	for (bool any = true; any; rewinddir(d)) {
		if (rm_entries(rm, d, depth, &any, err) < 0)
			return pf_wrap(err, "%s", name);
		if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != ENOTEMPTY && errno != EEXIST)
			break;
	}
	return pf_fail(err, errno, "remove %s", name);
}

int pf_rm_rf_at(int dirfd, const char *name, struct pf_err *err)
{
	struct rm rm = {.top = -1};

	return rm_rf(&rm, dirfd, name, 0, err);
}

char *pf_path_clean(const char *path, struct pf_err *err)
{
	char *out = pf_calloc(strlen(path) + 2, 1);
	size_t n = 0;

	if (path[0] != '/') {
		free(out);
		pf_fail_kind(err, PF_ERR_INVALID, 0, "path '%s' must be absolute", path);
		return NULL;
	}
	for (const char *s = path; *s;) {
		while (*s == '/')
			s++;
		size_t len = strcspn(s, "/");
		if (len == 0)
			break;
		if (len == 2 && s[0] == '.' && s[1] == '.') {
			free(out);
			pf_fail_kind(err, PF_ERR_INVALID, 0, "path '%s' must not hold '..'", path);
			return NULL;
		}
		if (!(len == 1 && s[0] == '.')) {
			out[n++] = '/';
			memcpy(out + n, s, len);
			n += len;
		}
		s += len;
	}
	if (n == 0)
		out[n++] = '/';
	out[n] = '\0';
	return out;
}

bool pf_path_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	if (strcmp(dir, "/") == 0)
		return path[0] == '/';
	return strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

static char *program_was;

void pf_program_was(const char *path)
{
	struct stat is, was;

	if (stat("/proc/self/exe", &is) < 0 || stat(path, &was) < 0 || is.st_dev != was.st_dev ||
		is.st_ino != was.st_ino)
		return;
	free(program_was);
	program_was = pf_strdup(path);
}

char *pf_program_dir(struct pf_err *err)
{
	char buf[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", buf, sizeof(buf) - 1);

	if (n < 0) {
		pf_fail(err, errno, "readlink /proc/self/exe");
		return NULL;
	}
	buf[n] = '\0';
	if (program_was && strlen(program_was) < sizeof(buf))
		strcpy(buf, program_was);
	char *slash = strrchr(buf, '/');
	if (!slash) {
		pf_fail(err, ENOENT, "where this program is: %s", buf);
		return NULL;
	}
	*(slash == buf ? slash + 1 : slash) = '\0';
	return pf_strdup(buf);
}
