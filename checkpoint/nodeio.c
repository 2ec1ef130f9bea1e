/* Theory of operation: everything by descriptor, or by name below an open directory and never through a
 * symbolic link. The walk has seen the name before; what it is now is looked at again, and a name that has
 * become something else meanwhile is told apart from an error. */
#include "checkpoint/nodeio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "checkpoint/tree.h"

#define XATTR_MAX PF_TREE_MAX_XATTR

void pf_node_xattrs_done(struct pf_node_xattrs *x)
{
	for (size_t i = 0; i < x->n; i++) {
		free(x->v[i].name);
		free(x->v[i].value);
	}
	free(x->v);
}

static int cmp_xattr(const void *a, const void *b)
{
	return strcmp(((const struct pf_tar_xa *)a)->name, ((const struct pf_tar_xa *)b)->name);
}

/* By descriptor, or for what cannot be opened (symlinks, FIFOs) by name through a trusted /proc/self/fd. */
static ssize_t list_xattr(int fd, const char *proc_path, char *buf, size_t len)
{
	return fd >= 0 ? flistxattr(fd, buf, len) : llistxattr(proc_path, buf, len);
}

static ssize_t get_xattr(int fd, const char *proc_path, const char *name, char *buf, size_t len)
{
	return fd >= 0 ? fgetxattr(fd, name, buf, len) : lgetxattr(proc_path, name, buf, len);
}

int pf_node_xattrs(const struct pf_node *n, int dirfd, int fd, const char *path, bool live,
	struct pf_node_xattrs *out, int64_t *dropped, struct pf_err *err)
{
	char names[4096], proc_path[300];
	PF_FREE char *big = NULL;
	char *list = names;

	snprintf(proc_path, sizeof(proc_path), "/proc/self/fd/%d/%s", dirfd, n->name);
	ssize_t len = list_xattr(fd, proc_path, list, sizeof(names));
	if (len < 0 && errno == ERANGE) {
		if (!(list = big = malloc(XATTR_MAX)))
			abort();
		len = list_xattr(fd, proc_path, list, XATTR_MAX);
	}
	if (len < 0 && (errno == EOPNOTSUPP || (live && errno == ENOENT)))
		return 0;
	if (len < 0)
		return pf_fail(err, errno, "list attributes of /%s", path);
	for (char *name = list; name < list + len; name += strlen(name) + 1) {
		if (pf_starts_with(name, "trusted.overlay.redirect") ||
			pf_starts_with(name, "trusted.overlay.metacopy"))
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"/%s holds the overlay mark %s: the upper is no plain difference; mount with "
				"redirect_dir=nofollow,metacopy=off",
				path, name);
		if (!pf_tree_xattr_ok(name)) {
			*dropped += !strstr(name, ".overlay.");
			continue;
		}
		char *value = malloc(XATTR_MAX);
		if (!value)
			abort();
		ssize_t vlen = get_xattr(fd, proc_path, name, value, XATTR_MAX);
		if (vlen < 0) {
			int e = errno;
			free(value);
			if (live && (e == ENODATA || e == ENOENT))
				continue;
			return pf_fail(err, e, "read attribute %s of /%s", name, path);
		}
		struct pf_tar_xa *v = realloc(out->v, (out->n + 1) * sizeof(*v));
		char *fitting = realloc(value, (size_t)vlen + 1);
		if (!v || !fitting)
			abort();
		out->v = v;
		v[out->n++] =
			(struct pf_tar_xa){.name = pf_strdup(name), .value = fitting, .len = (size_t)vlen};
	}
	if (out->n > 1)
		qsort(out->v, out->n, sizeof(*out->v), cmp_xattr);
	return 0;
}

/* Open the file the walk saw. 1 when it is not there any more. */
int pf_node_open(struct pf_node *n, int dirfd, const char *path, bool live, int *fd, struct pf_err *err)
{
	struct stat st;

	/* NONBLOCK: should a FIFO have taken the name, opening it must not hang. */
	*fd = openat(dirfd, n->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_NOATIME | O_CLOEXEC);
	if (*fd < 0) {
		/* EACCES: it is a device node now. */
		if (live && (errno == ENOENT || errno == ELOOP || errno == ENXIO || errno == EISDIR ||
				    errno == EACCES))
			return 1;
		return pf_fail(err, errno, "open /%s", path);
	}
	if (fstat(*fd, &st) < 0)
		return pf_fail(err, errno, "stat /%s", path);
	if (st.st_ino != n->ino || st.st_dev != n->dev || !S_ISREG(st.st_mode))
		return 1;
	if (!live && (st.st_ctim.tv_sec != n->ctime.tv_sec || st.st_ctim.tv_nsec != n->ctime.tv_nsec))
		return 1;
	/* One stat for header and data; where it differs from the walk's, the walk's ctime was older. */
	n->size = st.st_size;
	n->blocks = st.st_blocks;
	n->mode = st.st_mode;
	n->uid = st.st_uid;
	n->gid = st.st_gid;
	n->mtime = st.st_mtim;
	return 0;
}

int pf_node_target(
	struct pf_node *n, int dirfd, const char *path, bool live, char target[4097], struct pf_err *err)
{
	ssize_t len = readlinkat(dirfd, n->name, target, 4096);

	if (len < 0 && live && (errno == ENOENT || errno == EINVAL))
		return 1;
	if (len < 0)
		return pf_fail(err, errno, "readlink /%s", path);
	target[len] = '\0';
	return 0;
}
