#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
int pf_mkdirs_in_root(int rootfd, const char *path, mode_t mode)
{
	char prefix[PATH_MAX];
	size_t len = strlen(path), pos = 0;
	PF_CLOSE int parent = pf_open_in_root(rootfd, ".", O_PATH | O_DIRECTORY, 0);

	if (parent < 0)
		return -1;
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
			if (mkdirat(parent, prefix + start, pos == len ? mode : 0755) < 0 && errno != EEXIST)
				return -1;
			fd = pf_open_in_root(rootfd, prefix, O_PATH | O_DIRECTORY, 0);
		}
		if (fd < 0)
			return -1;
		close(parent);
		parent = fd;
	}
	return pf_take_fd(&parent);
}

int pf_mkfile_in_root(int rootfd, const char *path)
{
	char copy[PATH_MAX];
	int fd = pf_open_in_root(rootfd, path, O_PATH, 0);

	if (fd >= 0 || errno != ENOENT)
		return fd;
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
		dir = pf_mkdirs_in_root(rootfd, copy, 0755);
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

static int rm_rf(int dirfd, const char *name, dev_t dev, int depth, struct pf_err *err)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return pf_fail(err, errno, "remove %s", name);
	if (depth > 4096)
		return pf_fail(err, ELOOP, "remove %s", name);

	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "remove %s", name);
	struct stat st;
	if (fstat(fd, &st) < 0 || st.st_dev != dev) {
		int e = st.st_dev != dev ? EXDEV : errno;
		close(fd);
		return pf_fail(err, e, "remove %s: a mount is in the way", name);
	}
	PF_CLOSEDIR DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return pf_fail(err, errno, "remove %s", name);
	}
	struct dirent *e;
	while ((errno = 0, e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (rm_rf(fd, e->d_name, dev, depth + 1, err) < 0)
			return -1;
	}
	if (errno)
		return pf_fail(err, errno, "readdir %s", name);
	if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return pf_fail(err, errno, "remove %s", name);
	return 0;
}

int pf_rm_rf_at(int dirfd, const char *name, struct pf_err *err)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "remove %s", name);
	return rm_rf(dirfd, name, st.st_dev, 0, err);
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

char *pf_program_dir(struct pf_err *err)
{
	char buf[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", buf, sizeof(buf) - 1);

	if (n < 0) {
		pf_fail(err, errno, "readlink /proc/self/exe");
		return NULL;
	}
	buf[n] = '\0';
	char *slash = strrchr(buf, '/');
	if (!slash) {
		pf_fail(err, ENOENT, "where this program is: %s", buf);
		return NULL;
	}
	*(slash == buf ? slash + 1 : slash) = '\0';
	return pf_strdup(buf);
}
