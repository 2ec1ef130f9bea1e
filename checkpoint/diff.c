/* Theory of operation.
 *
 * A directory of a stacked tree is a list of real directories, topmost first, up to the first opaque one. Two
 * such lists are compared after their common tail is cut off: names that exist only in common directories are
 * the same on both sides by construction, so a diff against an image of any size reads only what the layers
 * above it touched. Each remaining name is looked up on both sides by overlay's rules (whiteout: nothing; not
 * a directory: that; directory: merged with those below) and the two results are compared. */
#include "checkpoint/diff.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"
#include "checkpoint/xattrs.h"

#define MAX_DEPTH 4096

/* One merged directory: open descriptors and the layer number each belongs to. Layers that are the same
 * directory on both sides have the same number. */
struct merged {
	int *fd;
	size_t *layer;
	size_t n;
};

/* What a name is on one side. */
struct found {
	bool there;
	struct pf_diff_at at;
	struct merged dir;
};

struct diff {
	const char *const *exclude;
	int (*fn)(void *ctx, const struct pf_diff_entry *e, struct pf_err *err);
	void *ctx;
	struct pf_diff_sum *sum;
	struct pf_buf path;
	char *buf_a, *buf_b; /* for comparing contents */
};

#define COMPARE_BUF ((size_t)128 << 10)

static void merged_done(struct merged *m)
{
	for (size_t i = 0; i < m->n; i++)
		close(m->fd[i]);
	free(m->fd);
	free(m->layer);
	*m = (struct merged){0};
}

static void found_done(struct found *f)
{
	merged_done(&f->dir);
}

static void merged_add(struct merged *m, int fd, size_t layer)
{
	int *fds = realloc(m->fd, (m->n + 1) * sizeof(*fds));
	size_t *layers = realloc(m->layer, (m->n + 1) * sizeof(*layers));

	if (!fds || !layers)
		abort();
	m->fd = fds;
	m->layer = layers;
	m->fd[m->n] = fd;
	m->layer[m->n++] = layer;
}

static bool opaque(int fd)
{
	char v[2];
	return fgetxattr(fd, "trusted.overlay.opaque", v, sizeof(v)) == 1 && v[0] == 'y';
}

static int lookup(
	const struct merged *m, const char *name, const char *path, struct found *f, struct pf_err *err)
{
	struct stat st;

	for (size_t i = 0; i < m->n; i++) {
		if (fstatat(m->fd[i], name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			if (errno == ENOENT)
				continue;
			return pf_fail(err, errno, "%s", path);
		}
		bool white = S_ISCHR(st.st_mode) && st.st_rdev == 0;
		if (white || (f->there && !S_ISDIR(st.st_mode)))
			return 0;
		if (!f->there) {
			f->there = true;
			f->at.st = st;
			f->at.dirfd = m->fd[i];
			f->at.name = name;
		}
		if (!S_ISDIR(st.st_mode))
			return 0;
		int fd = openat(m->fd[i], name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return pf_fail(err, errno, "%s", path);
		merged_add(&f->dir, fd, m->layer[i]);
		if (opaque(fd))
			return 0;
	}
	return 0;
}

static char type_of(const struct found *f)
{
	if (!f || !f->there)
		return 0;
	switch (f->at.st.st_mode & S_IFMT) {
	case S_IFREG:
		return 'f';
	case S_IFDIR:
		return 'd';
	case S_IFLNK:
		return 'l';
	default:
		return 'o';
	}
}

static int add_names(int fd, struct pf_buf *all, size_t *n, const char *path, struct pf_err *err)
{
	PF_CLOSE int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	if (!d)
		return pf_fail(err, errno, "readdir %s", path);
	(void)pf_take_fd(&copy);
	while ((errno = 0, e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		pf_buf_add(all, e->d_name, strlen(e->d_name) + 1);
		(*n)++;
	}
	return errno ? pf_fail(err, errno, "readdir %s", path) : 0;
}

static int cmp_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* 1: the same bytes, 0: not. */
static int same_content(
	struct diff *d, const struct pf_diff_at *a, const struct pf_diff_at *b, struct pf_err *err)
{
	PF_CLOSE int fa = -1, fb = -1;

	if (a->st.st_size != b->st.st_size)
		return 0;
	fa = openat(a->dirfd, a->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	fb = openat(b->dirfd, b->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fa < 0 || fb < 0)
		return pf_fail(err, errno, "%s", d->path.data);
	for (off_t at = 0; at < a->st.st_size;) {
		/* Where both have a hole there is nothing to compare. */
		off_t da = lseek(fa, at, SEEK_DATA), db = lseek(fb, at, SEEK_DATA);
		if (da < 0 && db < 0)
			return 1;
		off_t next = da < 0 ? db : db < 0 || da < db ? da : db;
		ssize_t na = pread(fa, d->buf_a, COMPARE_BUF, next),
			nb = pread(fb, d->buf_b, COMPARE_BUF, next);
		if (na < 0 || nb < 0)
			return pf_fail(err, errno, "read %s", d->path.data);
		if (na != nb || memcmp(d->buf_a, d->buf_b, (size_t)na) != 0)
			return 0;
		if (na == 0)
			return 1;
		at = next + na;
	}
	return 1;
}

static int same_target(
	const struct diff *d, const struct pf_diff_at *a, const struct pf_diff_at *b, struct pf_err *err)
{
	char la[4096], lb[4096];
	ssize_t na = readlinkat(a->dirfd, a->name, la, sizeof(la)),
		nb = readlinkat(b->dirfd, b->name, lb, sizeof(lb));

	if (na < 0 || nb < 0)
		return pf_fail(err, errno, "readlink %s", d->path.data);
	return na == nb && memcmp(la, lb, (size_t)na) == 0;
}

/* PF_DIFF_* of a name that is on both sides; -1 with err. */
static int compare(struct diff *d, const struct pf_diff_at *a, const struct pf_diff_at *b, struct pf_err *err)
{
	PF_CLEANUP(pf_xattrs_done) struct pf_xattrs xa = {0}, xb = {0};
	const mode_t type = a->st.st_mode & S_IFMT;
	int what = 0, same = 1;

	if (type != (b->st.st_mode & S_IFMT))
		return PF_DIFF_TYPE;
	if (a->st.st_dev == b->st.st_dev && a->st.st_ino == b->st.st_ino)
		return 0;
	if (type == S_IFREG)
		same = same_content(d, a, b, err);
	else if (type == S_IFLNK)
		same = same_target(d, a, b, err);
	else if (type == S_IFCHR || type == S_IFBLK)
		same = a->st.st_rdev == b->st.st_rdev;
	if (same < 0 || pf_xattrs_read(a->dirfd, a->name, d->path.data, &xa, err) < 0 ||
		pf_xattrs_read(b->dirfd, b->name, d->path.data, &xb, err) < 0)
		return -1;
	what |= same ? 0 : PF_DIFF_CONTENT;
	what |= a->st.st_mode != b->st.st_mode ? PF_DIFF_MODE : 0;
	what |= a->st.st_uid != b->st.st_uid || a->st.st_gid != b->st.st_gid ? PF_DIFF_OWNER : 0;
	what |= pf_xattrs_compare(&xa, &xb, NULL, NULL) ? PF_DIFF_XATTRS : 0;
	return what;
}

static int report(
	struct diff *d, unsigned what, const struct found *a, const struct found *b, struct pf_err *err)
{
	const char change = !a->there ? 'A' : !b->there ? 'D' : 'C';
	struct pf_diff_entry e = {.change = change,
		.old = type_of(a),
		.new = type_of(b),
		.what = what,
		.path = d->path.data,
		.from = a->there ? &a->at : NULL,
		.to = b->there ? &b->at : NULL};

	e.old_size = e.old == 'f' ? a->at.st.st_size : 0;
	e.new_size = e.new == 'f' ? b->at.st.st_size : 0;
	switch (change) {
	case 'A':
		d->sum->added++;
		d->sum->added_bytes += e.new_size;
		break;
	case 'D':
		d->sum->deleted++;
		d->sum->deleted_bytes += e.old_size;
		break;
	default:
		d->sum->changed++;
		d->sum->changed_old_bytes += e.old_size;
		d->sum->changed_new_bytes += e.new_size;
	}
	return d->fn(d->ctx, &e, err);
}

static int diff_dirs(
	struct diff *d, const struct merged *a, const struct merged *b, int depth, struct pf_err *err);

static int diff_name(struct diff *d, const struct merged *a, const struct merged *b, const char *name,
	int depth, struct pf_err *err)
{
	PF_CLEANUP(found_done) struct found fa = {0}, fb = {0};
	static const struct merged nothing;

	if (lookup(a, name, d->path.data, &fa, err) < 0 || lookup(b, name, d->path.data, &fb, err) < 0)
		return -1;
	if (!fa.there && !fb.there)
		return 0;
	int what = fa.there && fb.there ? compare(d, &fa.at, &fb.at, err) : 0;
	if (what < 0)
		return -1;
	if ((what || !fa.there || !fb.there) && report(d, (unsigned)what, &fa, &fb, err) < 0)
		return -1;
	for (const char *const *e = d->exclude; e && *e; e++)
		if (strcmp(*e, d->path.data) == 0)
			return 0;
	bool da = type_of(&fa) == 'd', db = type_of(&fb) == 'd';
	return da || db ? diff_dirs(d, da ? &fa.dir : &nothing, db ? &fb.dir : &nothing, depth + 1, err) : 0;
}

static int diff_dirs(
	struct diff *d, const struct merged *a, const struct merged *b, int depth, struct pf_err *err)
{
	size_t na = a->n, nb = b->n, n = 0, base = d->path.len;
	PF_BUF struct pf_buf all = {0};
	PF_FREE char **names = NULL;

	if (depth > MAX_DEPTH)
		return pf_fail_kind(
			err, PF_ERR_UNSUPPORTED, 0, "directories nest deeper than %d levels", MAX_DEPTH);
	while (na > 0 && nb > 0 && a->layer[na - 1] == b->layer[nb - 1]) {
		na--;
		nb--;
	}
	for (size_t i = 0; i < na; i++)
		if (add_names(a->fd[i], &all, &n, d->path.data, err) < 0)
			return -1;
	for (size_t i = 0; i < nb; i++)
		if (add_names(b->fd[i], &all, &n, d->path.data, err) < 0)
			return -1;
	names = pf_calloc(n + 1, sizeof(*names));
	char *p = all.data;
	for (size_t i = 0; i < n; i++, p += strlen(p) + 1)
		names[i] = p;
	if (n > 1)
		qsort(names, n, sizeof(*names), cmp_names);
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && strcmp(names[i], names[i - 1]) == 0)
			continue;
		d->path.len = base;
		pf_buf_add(&d->path, "/", 1);
		pf_buf_str(&d->path, names[i]);
		if (diff_name(d, a, b, names[i], depth, err) < 0)
			return -1;
	}
	d->path.len = base;
	d->path.data[base] = '\0';
	return 0;
}

static int open_side(const struct pf_diff_side *s, const struct pf_diff_side *other, size_t first,
	struct merged *m, struct pf_err *err)
{
	struct stat mine, theirs;

	for (size_t i = 0; i < s->n; i++) {
		int fd = openat(s->layers[i], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		size_t number = first + i;
		if (fd < 0 || fstat(fd, &mine) < 0) {
			int e = errno;
			if (fd >= 0)
				close(fd);
			return pf_fail(err, e, "layer %zu", i);
		}
		for (size_t k = 0; k < other->n; k++)
			if (fstat(other->layers[k], &theirs) == 0 && theirs.st_ino == mine.st_ino &&
				theirs.st_dev == mine.st_dev)
				number = k;
		merged_add(m, fd, number);
	}
	return 0;
}

int pf_diff(const struct pf_diff_side *a, const struct pf_diff_side *b, const char *const *exclude,
	int (*fn)(void *ctx, const struct pf_diff_entry *e, struct pf_err *err), void *ctx,
	struct pf_diff_sum *sum, struct pf_err *err)
{
	PF_CLEANUP(merged_done) struct merged ma = {0}, mb = {0};
	static const struct pf_diff_side none;
	struct diff d = {.exclude = exclude, .fn = fn, .ctx = ctx, .sum = sum};
	int r = -1;

	*sum = (struct pf_diff_sum){0};
	/* Numbers: a's layers count from 0, b's own ones go on behind them. */
	if (open_side(a, &none, 0, &ma, err) < 0 || open_side(b, a, a->n, &mb, err) < 0)
		return -1;
	d.buf_a = malloc(COMPARE_BUF);
	d.buf_b = malloc(COMPARE_BUF);
	pf_buf_str(&d.path, "");
	if (!d.buf_a || !d.buf_b)
		pf_fail(err, ENOMEM, "diff");
	else
		r = diff_dirs(&d, &ma, &mb, 0, err);
	free(d.buf_a);
	free(d.buf_b);
	pf_buf_done(&d.path);
	return r;
}
