/* Theory of operation.
 *
 * The caller's thread reads the tree and makes directories, links and everything small; files go to workers
 * in batches of neighbours, because neighbours lie in the same chunks. Nothing is ever made by a path: every
 * name is a single component below a directory's descriptor, made with O_EXCL or a call that fails when the
 * name is there, so no symbolic link of the layer can lead anywhere.
 *
 * A directory's time and the access list that new things in it inherit are set when the last of them has been
 * made: its handle counts who still needs it.
 *
 * A file with further names is made by the caller's thread at once, and linked under its number into a
 * directory beside the tree; its other names are linked from there. So a path of any length costs nothing,
 * and no descriptor is kept. */
#include "checkpoint/unpacklayer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "checkpoint/content.h"
#include "checkpoint/filesum.h"
#include "checkpoint/layer.h"
#include "checkpoint/packs.h"

#define MAX_THREADS 16
#define MAX_BATCHES 8 /* waiting */
#define BATCH_FILES 128
#define BATCH_BYTES ((int64_t)2 << 20)
#define PIECE ((size_t)256 << 10)
#define DEFAULT_ACL "system.posix_acl_default"

struct dir {
	struct dir *parent;
	int fd;
	struct timespec mtime;
	char *acl; /* that is inherited; NULL: none */
	size_t acl_len;
	int users; /* atomically: itself while it is open, and every file that is to be made in it */
};

struct file {
	struct dir *dir;
	const char *name, *path;
	struct pf_tree_entry e; /* extents, xattrs: in the batch's arena */
	struct pf_ref *refs;
	size_t n_refs;
	int version; /* of the tree */
};

struct batch {
	struct batch *next;
	struct pf_arena arena;
	struct file files[BATCH_FILES];
	size_t n;
	int64_t bytes;
};

struct worker {
	struct pf_filesum *sum;
	uint8_t *buf;
};

struct unpack {
	struct pf_packs *packs;
	struct pf_unpacked *stats;
	int linksfd;
	struct dir *at; /* the directory that is open */
	size_t depth;
	struct batch *filling;
	struct worker mine;

	pthread_mutex_t mu;
	pthread_cond_t more, room;
	struct batch *first, **last;
	size_t waiting;
	bool ended, failed;
	struct pf_err why; /* of a worker */
	pthread_t threads[MAX_THREADS];
	int n_threads;
};

static void worker_make(struct worker *w)
{
	w->sum = pf_filesum_new();
	w->buf = malloc(PIECE);
	if (!w->buf)
		abort();
}

static void worker_done(struct worker *w)
{
	pf_filesum_free(w->sum);
	free(w->buf);
}

/* ---- directories ---- */

static int dir_release(struct dir *d, struct pf_err *err)
{
	if (__atomic_sub_fetch(&d->users, 1, __ATOMIC_ACQ_REL) > 0)
		return 0;
	struct timespec times[2] = {d->mtime, d->mtime};
	int r = 0;
	if (d->acl && fsetxattr(d->fd, DEFAULT_ACL, d->acl, d->acl_len, 0) < 0)
		r = pf_fail(err, errno, "set attribute %s", DEFAULT_ACL);
	else if (futimens(d->fd, times) < 0)
		r = pf_fail(err, errno, "set a directory's time");
	close(d->fd);
	free(d->acl);
	free(d);
	return r;
}

static int leave_dir(struct unpack *u, struct pf_err *err)
{
	struct dir *d = u->at;

	u->at = d->parent;
	u->depth--;
	return dir_release(d, err);
}

/* ---- one entry ---- */

static int set_xattrs(const struct pf_tree_entry *e, int fd, struct pf_err *err)
{
	for (size_t i = 0; i < e->n_xattrs; i++)
		if ((e->type != PF_TREE_DIR || strcmp(e->xattrs[i].name, DEFAULT_ACL) != 0) &&
			fsetxattr(fd, e->xattrs[i].name, e->xattrs[i].value, e->xattrs[i].len, 0) < 0)
			return pf_fail(err, errno, "set attribute %s", e->xattrs[i].name);
	return 0;
}

/* Owner before mode (chown clears setuid), both before attributes (chown clears capabilities). */
static int set_meta(const struct pf_tree_entry *e, int fd, struct pf_err *err)
{
	if (fchown(fd, e->uid, e->gid) < 0)
		return pf_fail(err, errno, "chown");
	if (fchmod(fd, e->mode) < 0)
		return pf_fail(err, errno, "chmod");
	return set_xattrs(e, fd, err);
}

static int write_at(int fd, const uint8_t *p, size_t len, int64_t off, struct pf_err *err)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pf_fail(err, errno, "write");
		p += n;
		off += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_data(struct unpack *u, struct worker *w, const struct file *f, int fd, struct pf_err *err)
{
	size_t extent = 0;
	int64_t in_extent = 0;
	uint8_t raw[32];

	if (f->e.n_extents == 0)
		return 0;
	pf_filesum_begin(w->sum, f->version);
	for (size_t i = 0; i < f->n_refs; i++) {
		struct pf_chunk_id id;
		memcpy(id.b, f->refs[i].id, sizeof(id.b));
		for (uint32_t done = 0; done < f->refs[i].len;) {
			const struct pf_extent *x = &f->e.extents[extent];
			size_t n = f->refs[i].len - done;
			if ((int64_t)n > x->len - in_extent)
				n = (size_t)(x->len - in_extent);
			if (n > PIECE)
				n = PIECE;
			if (pf_packs_read(u->packs, &id, f->refs[i].off + done, w->buf, n, err) < 0)
				return -1;
			pf_filesum_add(w->sum, w->buf, n);
			if (write_at(fd, w->buf, n, x->off + in_extent, err) < 0)
				return -1;
			done += (uint32_t)n;
			in_extent += (int64_t)n;
			if (in_extent == x->len) {
				extent++;
				in_extent = 0;
			}
		}
	}
	pf_filesum_end(w->sum, raw);
	return memcmp(raw, f->e.sum, sizeof(raw)) == 0
		       ? 0
		       : pf_fail_kind(err, PF_ERR_CORRUPT, 0, "its data is not what the tree says");
}

static int put_file(struct unpack *u, struct worker *w, const struct file *f, struct pf_err *err)
{
	const struct timespec times[2] = {f->e.mtime, f->e.mtime};
	PF_CLOSE int fd = openat(
		f->dir->fd, f->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);

	if (fd < 0)
		return pf_fail(err, errno, "create");
	if (write_data(u, w, f, fd, err) < 0)
		return -1;
	const struct pf_extent *last = f->e.n_extents ? &f->e.extents[f->e.n_extents - 1] : NULL;
	if (f->e.size > 0 && (!last || last->off + last->len != f->e.size) && ftruncate(fd, f->e.size) < 0)
		return pf_fail(err, errno, "set the size");
	if (set_meta(&f->e, fd, err) < 0)
		return -1;
	return futimens(fd, times) < 0 ? pf_fail(err, errno, "set the time") : 0;
}

static int put_special(const struct unpack *u, const struct pf_tree_entry *e, struct pf_err *err)
{
	const struct timespec times[2] = {e->mtime, e->mtime};
	int dir = u->at->fd;

	if (e->type == PF_TREE_SYMLINK) {
		if (symlinkat(e->target, dir, e->name) < 0)
			return pf_fail(err, errno, "symlink");
	} else if (mknodat(dir, e->name, S_IFIFO | 0600, 0) < 0) {
		return pf_fail(err, errno, "mkfifo");
	}
	if (fchownat(dir, e->name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return pf_fail(err, errno, "chown");
	if (e->type == PF_TREE_FIFO && fchmodat(dir, e->name, e->mode, 0) < 0)
		return pf_fail(err, errno, "chmod");
	return utimensat(dir, e->name, times, AT_SYMLINK_NOFOLLOW) < 0 ? pf_fail(err, errno, "set the time")
								       : 0;
}

static int put_dir(struct unpack *u, const struct pf_tree_entry *e, int rootfd, struct pf_err *err)
{
	if (u->at && mkdirat(u->at->fd, e->name, 0700) < 0)
		return pf_fail(err, errno, "mkdir");
	PF_CLOSE int fd = openat(u->at ? u->at->fd : rootfd, u->at ? e->name : ".",
		O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == EMFILE ? pf_fail(err, ELOOP, "directories nest too deep")
				       : pf_fail(err, errno, "open");
	if (set_meta(e, fd, err) < 0)
		return -1;
	/* Who is root in a user namespace alone mounts with userxattr, since he may not set the other. */
	if (e->opaque && fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0) < 0 &&
		(errno != EPERM || fsetxattr(fd, "user.overlay.opaque", "y", 1, 0) < 0))
		return pf_fail(err, errno, "mark a directory as opaque");
	struct dir *d = pf_calloc(1, sizeof(*d));
	*d = (struct dir){.parent = u->at, .fd = pf_take_fd(&fd), .mtime = e->mtime, .users = 1};
	for (size_t i = 0; i < e->n_xattrs; i++)
		if (strcmp(e->xattrs[i].name, DEFAULT_ACL) == 0) {
			d->acl_len = e->xattrs[i].len;
			d->acl = memcpy(pf_calloc(d->acl_len + 1, 1), e->xattrs[i].value, d->acl_len);
		}
	u->at = d;
	u->depth++;
	return 0;
}

/* ---- batches ---- */

static void batch_free(struct batch *b)
{
	if (!b)
		return;
	pf_arena_done(&b->arena);
	free(b);
}

static int run_batch(struct unpack *u, struct worker *w, struct batch *b, struct pf_err *err)
{
	int r = 0;

	for (size_t i = 0; i < b->n; i++) {
		struct pf_err late = PF_ERR_INIT;
		if (r == 0 && put_file(u, w, &b->files[i], err) < 0)
			r = pf_wrap(err, "/%s", b->files[i].path);
		if (dir_release(b->files[i].dir, &late) < 0 && r == 0) {
			*err = late;
			r = -1;
		}
	}
	batch_free(b);
	return r;
}

static void *work(void *arg)
{
	struct unpack *u = arg;
	struct worker w;

	worker_make(&w);
	pthread_mutex_lock(&u->mu);
	for (;;) {
		while (!u->first && !u->ended)
			pthread_cond_wait(&u->more, &u->mu);
		struct batch *b = u->first;
		if (!b)
			break;
		u->first = b->next;
		if (!u->first)
			u->last = &u->first;
		u->waiting--;
		pthread_cond_signal(&u->room);
		pthread_mutex_unlock(&u->mu);
		struct pf_err err = PF_ERR_INIT;
		int r = run_batch(u, &w, b, &err);
		pthread_mutex_lock(&u->mu);
		if (r < 0 && !u->failed) {
			u->failed = true;
			u->why = err;
		}
	}
	pthread_mutex_unlock(&u->mu);
	worker_done(&w);
	return NULL;
}

static int hand_on(struct unpack *u, struct pf_err *err)
{
	struct batch *b = u->filling;

	u->filling = NULL;
	if (!b)
		return 0;
	if (u->n_threads == 0)
		return run_batch(u, &u->mine, b, err);
	pthread_mutex_lock(&u->mu);
	while (u->waiting >= MAX_BATCHES && !u->failed)
		pthread_cond_wait(&u->room, &u->mu);
	*u->last = b;
	u->last = &b->next;
	u->waiting++;
	pthread_cond_signal(&u->more);
	bool failed = u->failed;
	if (failed)
		*err = u->why;
	pthread_mutex_unlock(&u->mu);
	return failed ? -1 : 0;
}

static void add_file(struct unpack *u, struct batch *b, const struct pf_layer_reader *l,
	const struct pf_tree_entry *e, const struct pf_ref *refs, size_t n_refs)
{
	const char *path = pf_layer_path(l);
	struct file *f = &b->files[b->n++];
	struct pf_arena *a = &b->arena;

	*f = (struct file){.dir = u->at, .e = *e, .n_refs = n_refs, .version = pf_layer_tree_version(l)};
	f->path = pf_arena_copy(a, path, strlen(path) + 1);
	f->name = pf_arena_copy(a, e->name, e->name_len + 1);
	f->refs = pf_arena_copy(a, refs, n_refs * sizeof(*refs));
	f->e.extents = pf_arena_copy(a, e->extents, e->n_extents * sizeof(*e->extents));
	if (e->n_xattrs > 0) {
		struct pf_tar_xa *v = pf_arena_copy(a, e->xattrs, e->n_xattrs * sizeof(*v));
		for (size_t i = 0; i < e->n_xattrs; i++) {
			v[i].name = pf_arena_copy(a, e->xattrs[i].name, strlen(e->xattrs[i].name) + 1);
			v[i].value = pf_arena_copy(a, e->xattrs[i].value, e->xattrs[i].len);
		}
		f->e.xattrs = v;
	}
	__atomic_add_fetch(&u->at->users, 1, __ATOMIC_RELAXED);
	b->bytes += e->data_bytes;
}

static int put_linked(struct unpack *u, const struct pf_tree_entry *e, uint64_t number, struct pf_err *err)
{
	char name[24];

	snprintf(name, sizeof(name), "%llu", (unsigned long long)number);
	return linkat(u->at->fd, e->name, u->linksfd, name, 0) < 0 ? pf_fail(err, errno, "link") : 0;
}

static int queue_file(
	struct unpack *u, const struct pf_layer_reader *l, const struct pf_tree_entry *e, struct pf_err *err)
{
	size_t n_refs;
	const struct pf_ref *refs = pf_layer_refs(l, &n_refs);

	u->stats->bytes += e->size;
	if (e->linked) {
		const struct file f = {.dir = u->at,
			.name = e->name,
			.path = pf_layer_path(l),
			.e = *e,
			.refs = (struct pf_ref *)(uintptr_t)refs,
			.n_refs = n_refs,
			.version = pf_layer_tree_version(l)};
		return put_file(u, &u->mine, &f, err) < 0 ? -1 : put_linked(u, e, pf_layer_number(l), err);
	}
	if (!u->filling)
		u->filling = pf_calloc(1, sizeof(*u->filling));
	add_file(u, u->filling, l, e, refs, n_refs);
	return u->filling->n == BATCH_FILES || u->filling->bytes >= BATCH_BYTES ? hand_on(u, err) : 0;
}

static int put(struct unpack *u, const struct pf_layer_reader *l, const struct pf_tree_entry *e, int rootfd,
	struct pf_err *err)
{
	char name[24];
	int r = 0;

	switch (e->type) {
	case PF_TREE_DIR:
		return put_dir(u, e, rootfd, err);
	case PF_TREE_FILE:
		return queue_file(u, l, e, err);
	case PF_TREE_WHITEOUT:
		r = mknodat(u->at->fd, e->name, S_IFCHR, makedev(0, 0));
		return r < 0 ? pf_fail(err, errno, "make a whiteout") : 0;
	case PF_TREE_LINK:
		snprintf(name, sizeof(name), "%llu", (unsigned long long)e->link);
		r = linkat(u->linksfd, name, u->at->fd, e->name, 0);
		return r < 0 ? pf_fail(err, errno, "link") : 0;
	default:
		r = put_special(u, e, err);
		return r == 0 && e->linked ? put_linked(u, e, pf_layer_number(l), err) : r;
	}
}

static int check_limits(const struct unpack *u, const struct pf_tree_entry *e, struct pf_err *err)
{
	if (u->stats->entries > PF_CKPT_MAX_ENTRIES)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the layer has more than %lld entries",
			(long long)PF_CKPT_MAX_ENTRIES);
	if (e->size > PF_CKPT_MAX_BYTES - u->stats->bytes)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
			"the files are larger than the limit of %lld bytes", (long long)PF_CKPT_MAX_BYTES);
	return 0;
}

static int read_entries(struct unpack *u, struct pf_layer_reader *l, int destfd, struct pf_err *err)
{
	const struct pf_tree_entry *e;
	size_t depth;
	int r;

	while ((r = pf_layer_next(l, &e, &depth, err)) > 0) {
		while (u->depth > depth)
			if (leave_dir(u, err) < 0)
				return -1;
		u->stats->entries++;
		if (check_limits(u, e, err) < 0 || put(u, l, e, destfd, err) < 0)
			return pf_wrap(err, "/%s", pf_layer_path(l));
	}
	return r < 0 ? -1 : hand_on(u, err);
}

static void start_threads(struct unpack *u, int threads)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (threads <= 0)
		threads = cpus > 0 ? (int)cpus : 1;
	if (threads > MAX_THREADS)
		threads = MAX_THREADS;
	/* With none at all it is done by the caller's own. */
	while (u->n_threads < threads && pthread_create(&u->threads[u->n_threads], NULL, work, u) == 0)
		u->n_threads++;
}

static int end_threads(struct unpack *u, int r, struct pf_err *err)
{
	struct pf_err late = PF_ERR_INIT;

	pthread_mutex_lock(&u->mu);
	u->ended = true;
	pthread_cond_broadcast(&u->more);
	pthread_mutex_unlock(&u->mu);
	for (int i = 0; i < u->n_threads; i++)
		pthread_join(u->threads[i], NULL);
	/* What was never handed on still holds directories. */
	for (size_t i = 0; u->filling && i < u->filling->n; i++)
		(void)dir_release(u->filling->files[i].dir, &late);
	batch_free(u->filling);
	while (u->at)
		if (leave_dir(u, &late) < 0 && r == 0) {
			*err = late;
			r = -1;
		}
	if (r == 0 && u->failed) {
		*err = u->why;
		r = -1;
	}
	return r;
}

int pf_ckpt_layer_unpack(struct pf_ckpt_heavy *h, const struct pf_digest *layer, int destfd, int linksfd,
	int threads, struct pf_unpacked *stats, struct pf_err *err)
{
	struct pf_layer_reader *l = pf_layer_open(h, layer, err);
	struct unpack u = {.stats = stats, .linksfd = linksfd, .why = PF_ERR_INIT};

	*stats = (struct pf_unpacked){0};
	if (!l)
		return -1;
	u.packs = pf_layer_packs(l);
	u.last = &u.first;
	pthread_mutex_init(&u.mu, NULL);
	pthread_cond_init(&u.more, NULL);
	pthread_cond_init(&u.room, NULL);
	worker_make(&u.mine);
	start_threads(&u, threads);
	int r = end_threads(&u, read_entries(&u, l, destfd, err), err);
	worker_done(&u.mine);
	pthread_cond_destroy(&u.room);
	pthread_cond_destroy(&u.more);
	pthread_mutex_destroy(&u.mu);
	pf_layer_close(l);
	return r;
}
