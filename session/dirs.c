#include "session/dirs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"

int pf_dirs_open(const char *base, const char *sub, struct pf_err *err)
{
	PF_FREE char *path = *sub ? pf_asprintf("%s/%s", base, sub) : pf_strdup(base);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT) {
		if (pf_mkdirs(path, 0700, err) < 0)
			return -1;
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	return fd < 0 ? pf_fail(err, errno, "%s", path) : fd;
}

static int open_below(const char *base, const char *sub, const char *id, bool create, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("%s%s/%s", base, sub, id);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 && errno == ENOENT) {
		if (!create)
			return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "no sandbox '%s'", id);
		if (pf_mkdirs(path, 0700, err) < 0)
			return -1;
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	}
	return fd < 0 ? pf_fail(err, errno, "%s", path) : fd;
}

int pf_dirs_run(const struct pf_dirs *d, const char *id, bool create, struct pf_err *err)
{
	return open_below(d->root, "", id, create, err);
}

int pf_dirs_sandbox(const struct pf_dirs *d, const char *id, bool create, struct pf_err *err)
{
	return open_below(d->store, "/sandboxes", id, create, err);
}

int pf_dirs_lock(const struct pf_dirs *d, const char *id, bool wait, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_open(d->root, ".locks", err);

	if (dir < 0)
		return -1;
	for (;;) {
		struct stat held, named;
		PF_CLOSE int fd = pf_lock_file_at(dir, id, wait, err);
		if (fd < 0) {
			if (err->errnum == EWOULDBLOCK)
				return pf_fail_kind(err, PF_ERR_STATE, 0,
					"sandbox '%s' is being changed by another pinfold process", id);
			return -1;
		}
		/* A holder that removed the file while we waited left us a lock that nobody else will see. */
		if (fstat(fd, &held) == 0 && fstatat(dir, id, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
			held.st_ino == named.st_ino)
			return pf_take_fd(&fd);
	}
}

void pf_dirs_unlock_remove(const struct pf_dirs *d, const char *id, int *lock_fd)
{
	char path[PATH_MAX];

	if (*lock_fd < 0)
		return;
	if (snprintf(path, sizeof(path), "%s/.locks/%s", d->root, id) < (int)sizeof(path))
		(void)unlink(path);
	close(pf_take_fd(lock_fd));
}

int pf_dirs_trash(const struct pf_dirs *d, const char *id, struct pf_err *err)
{
	PF_CLOSE int sandboxes = pf_dirs_open(d->store, "sandboxes", err), trash = -1;
	char name[200];

	if (sandboxes < 0)
		return -1;
	trash = pf_dirs_open(d->store, "trash", err);
	if (trash < 0)
		return -1;
	snprintf(name, sizeof(name), "%.128s.%lld", id, (long long)pf_now_us());
	if (renameat(sandboxes, id, trash, name) < 0 && errno != ENOENT)
		return pf_fail(err, errno, "move %s/sandboxes/%s to the trash", d->store, id);
	return 0;
}

int pf_dirs_empty_trash(const struct pf_dirs *d, struct pf_err *err)
{
	PF_CLOSE int trash = pf_dirs_open(d->store, "trash", err);
	struct dirent *e;
	int r = 0;

	if (trash < 0)
		return -1;
	PF_CLOSEDIR DIR *dir = fdopendir(fcntl(trash, F_DUPFD_CLOEXEC, 3));
	if (!dir)
		return pf_fail(err, errno, "%s/trash", d->store);
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.' || (e->d_name[1] && strcmp(e->d_name, "..") != 0)) {
			/* Two of us at it at once see each other's removals as ENOENT, or a directory not
			 * empty yet. */
			struct pf_err one = PF_ERR_INIT;
			if (pf_rm_rf_at(trash, e->d_name, &one) < 0 && one.errnum != ENOTEMPTY) {
				*err = one;
				r = -1;
			}
		}
	return r;
}
