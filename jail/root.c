/* The root of a jail: a tmpfs that holds mount points, links and small files, and goes with the box. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "jail/run.h"
#include "sandbox/mounts.h"

/* The directory above path, made if need be, and the last part of path. */
static int open_parent(int root, const char *path, const char **name, struct pf_err *err)
{
	const char *slash = strrchr(path, '/');
	PF_FREE char *parent = pf_strdup(path);

	parent[slash == path ? 1 : slash - path] = '\0';
	*name = slash + 1;
	int fd = strcmp(parent, "/") == 0 ? fcntl(root, F_DUPFD_CLOEXEC, 3)
					  : pf_mkdirs_in_root(root, parent, 0755);
	return fd < 0 ? pf_fail(err, errno, "%s", path) : fd;
}

static int copy_fd(int from, int dir, const char *name, mode_t mode, struct pf_err *err)
{
	char buf[65536];
	ssize_t n;
	PF_CLOSE int to = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (to < 0)
		return pf_fail(err, errno, "%s", name);
	while ((n = read(from, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR))
		if (n > 0 && pf_write_all(to, buf, (size_t)n) < 0)
			return pf_fail(err, errno, "%s", name);
	if (n < 0 || fchmod(to, mode) < 0)
		return pf_fail(err, errno, "%s", name);
	return 0;
}

/* A link that stands there is not followed, since it leads into the caller's file system. With --dir it
 * stays, as with bubblewrap. */
static int put_directory(int dir, const char *name, const struct pf_jail_op *op)
{
	struct stat st;

	if (mkdirat(dir, name, op->mode) < 0) {
		if (errno != EEXIST || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return -1;
		if (S_ISLNK(st.st_mode) && strcmp(op->why, "--dir") == 0)
			return 0;
	}
	PF_CLOSE int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -1 : fchmod(fd, op->mode);
}

static int put(int root, const struct pf_jail_op *op, struct pf_err *err)
{
	const char *name;
	PF_CLOSE int dir = open_parent(root, op->dest, &name, err);

	if (dir < 0)
		return -1;
	switch (op->kind) {
	case PF_JAIL_DIR:
		return put_directory(dir, name, op) < 0 ? pf_fail(err, errno, "directory %s", op->dest) : 0;
	case PF_JAIL_SYMLINK:
		return symlinkat(op->source, dir, name) < 0 ? pf_fail(err, errno, "link %s", op->dest) : 0;
	case PF_JAIL_FILE:
		return copy_fd(op->fd, dir, name, op->mode, err) < 0 ? pf_wrap(err, "file %s", op->dest) : 0;
	case PF_JAIL_BIND:
	case PF_JAIL_HIDE:
	case PF_JAIL_TMPFS:
	case PF_JAIL_PROC:
	case PF_JAIL_DEV:
	case PF_JAIL_MQUEUE:
	case PF_JAIL_OVERLAY:
	default:
		return 0;
	}
}

static bool in_root(const struct pf_jail_op *op)
{
	return op->kind == PF_JAIL_DIR || op->kind == PF_JAIL_SYMLINK || op->kind == PF_JAIL_FILE;
}

/* What covers the place of op i, so that what is put into the root would not be seen. */
static const char *covered_by(const struct pf_jail *j, size_t i)
{
	for (size_t k = 0; k < j->n_ops; k++)
		if (!in_root(&j->ops[k]) && pf_path_below(j->ops[i].dest, j->ops[k].dest))
			return j->ops[k].dest;
	return NULL;
}

/* A directory at or above the place of a later mount, which makes what it needs on the way. */
static bool made_by_mount(const struct pf_jail *j, size_t i)
{
	for (size_t k = i + 1; j->ops[i].kind == PF_JAIL_DIR && k < j->n_ops; k++)
		if (!in_root(&j->ops[k]) && pf_path_below(j->ops[k].dest, j->ops[i].dest))
			return true;
	return false;
}

int pf_jail_data_files(struct pf_jail *j, struct pf_err *err)
{
	PF_CLOSE int dir = -1;

	for (size_t i = 0; i < j->n_ops; i++) {
		struct pf_jail_op *op = &j->ops[i];
		char name[24];

		if (op->kind != PF_JAIL_FILE || (!covered_by(j, i) && !op->read_only))
			continue;
		if (dir < 0) {
			/* Attached somewhere, because only what is can be cloned before Linux 6.15;
			 * everything that was asked for is open already, so that it hides nothing from us. */
			PF_CLOSE int m = pf_mount_new("tmpfs", "tmpfs", (char *[]){(char *)"mode=700", NULL},
				MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, err);
			if (m < 0)
				return -1;
			if (move_mount(m, "", AT_FDCWD, "/tmp", MOVE_MOUNT_F_EMPTY_PATH) < 0)
				return pf_fail(err, errno, "scratch at /tmp");
			dir = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			if (dir < 0)
				return pf_fail(err, errno, "scratch at /tmp");
		}
		snprintf(name, sizeof(name), "%zu", i);
		if (copy_fd(op->fd, dir, name, op->mode, err) < 0)
			return pf_wrap(err, "file %s", op->dest);
		close(op->fd);
		op->fd = openat(dir, name, O_PATH | O_CLOEXEC);
		if (op->fd < 0)
			return pf_fail(err, errno, "file %s", op->dest);
		op->kind = PF_JAIL_BIND;
	}
	return 0;
}

/* A tree of the machine's in the place of a root of our own. */
static int bound_root(const struct pf_jail_op *op, struct pf_err *err)
{
	const struct pf_mount how = {.recursive = true,
		.propagation = MS_PRIVATE | MS_REC,
		.rec_attr_set = MOUNT_ATTR_NOSUID | (op->devices ? 0 : (uint64_t)MOUNT_ATTR_NODEV) |
				(op->read_only ? (uint64_t)MOUNT_ATTR_RDONLY : 0)};

	return pf_mount_bind(op->fd, &how, 0, -1, err);
}

int pf_jail_root(void *arg, int userns_fd, struct pf_err *err)
{
	const struct pf_jail *j = arg;
	size_t whole = j->n_ops; /* the bind that is the root */

	(void)userns_fd;
	for (size_t i = 0; i < j->n_ops; i++)
		if (j->ops[i].kind == PF_JAIL_BIND && strcmp(j->ops[i].dest, "/") == 0)
			whole = i;
	/* What came before it would be hidden by it. */
	for (size_t i = whole < j->n_ops ? whole : 0; i < j->n_ops; i++) {
		if (whole < j->n_ops && made_by_mount(j, i))
			continue;
		const char *cover = in_root(&j->ops[i]) ? covered_by(j, i) : NULL;
		if (cover)
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"%s: it lies in %s, which is mounted; only the root itself can get new files",
				j->ops[i].dest, cover);
	}
	if (whole < j->n_ops)
		return bound_root(&j->ops[whole], err);
	PF_CLOSE int root = pf_mount_new("tmpfs", "tmpfs", (char *[]){(char *)"mode=755", NULL},
		MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, err);
	if (root < 0)
		return pf_wrap(err, "root");
	mode_t old = umask(0);
	int r = 0;
	for (size_t i = 0; r == 0 && i < j->n_ops; i++)
		if (in_root(&j->ops[i]))
			r = put(root, &j->ops[i], err);
	umask(old);
	if (r == 0 && j->etc) {
		PF_CLOSE int etc = pf_mkdirs_in_root(root, "/etc", 0755);
		PF_CLOSE int dir = etc < 0 ? -1 : openat(etc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = dir < 0 ? pf_fail(err, errno, "/etc") : pf_jail_fill_etc(j, dir, err);
	}
	return r < 0 ? -1 : pf_take_fd(&root);
}
