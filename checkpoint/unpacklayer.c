/* Theory of operation.
 *
 * The caller's thread reads the tree and makes directories, links and everything without data; files go to
 * workers (unpackfile.h): in batches of neighbours, because neighbours lie in the same chunks, and large ones
 * in parts. Nothing is ever made by a path: every name is a single component below a directory's descriptor,
 * made with O_EXCL or a call that fails when the name is there, so no symbolic link of the layer can lead
 * anywhere.
 *
 * A directory's time, and what new things in it would inherit (its set-group-id bit, a default access list),
 * are set when the last of them has been made: its handle counts who still needs it.
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
#include "checkpoint/layer.h"
#include "checkpoint/packs.h"
#include "checkpoint/unpackfile.h"

#define MAX_THREADS 16
#define MAX_BATCHES 8 /* waiting */
#define BATCH_FILES 256
#define BATCH_BYTES ((int64_t)1 << 20)

struct dir {
	struct dir *parent;
	int fd;
	gid_t gid;
	mode_t mode;
	struct timespec mtime;
	char *acl; /* that is inherited; NULL: none */
	size_t acl_len;
	int users; /* atomically: itself while it is open, and every file that is to be made in it */
};

/* Files that are made together. */
struct files {
	struct pf_arena arena; /* what the todos point to */
	struct pf_file_todo v[BATCH_FILES];
	struct dir *dirs[BATCH_FILES];
	size_t n;
	int64_t bytes;
};

/* A file that is made in parts. */
struct big {
	struct pf_arena arena;
	struct pf_big_file *file;
	struct dir *dir;
	size_t users; /* atomically: parts that are not done yet */
};

/* What a worker takes. */
struct batch {
	struct batch *next;
	struct files *files; /* or … */
	struct big *big;
	size_t part;
};

struct unpack {
	struct pf_packs *packs;
	struct pf_unpacked *stats;
	struct pf_file_born born;
	int linksfd;
	struct dir *at; /* the directory that is open */
	size_t depth;
	struct files *filling;
	struct pf_file_maker *mine;

	pthread_mutex_t mu;
	pthread_cond_t more, room;
	struct batch *first, **last;
	size_t waiting;
	bool ended, failed;
	struct pf_err why; /* of a worker */
	pthread_t threads[MAX_THREADS];
	int n_threads;
};

/* ---- directories ---- */

static int dir_complete(const struct dir *d, struct pf_err *err)
{
	struct timespec times[2] = {d->mtime, d->mtime};

	if ((d->mode & S_ISGID) && fchmod(d->fd, d->mode) < 0)
		return pf_fail(err, errno, "chmod");
	if (d->acl && fsetxattr(d->fd, PF_FILE_INHERITED_ACL, d->acl, d->acl_len, 0) < 0)
		return pf_fail(err, errno, "set attribute %s", PF_FILE_INHERITED_ACL);
	return futimens(d->fd, times) < 0 ? pf_fail(err, errno, "set a directory's time") : 0;
}

static int dir_release(struct dir *d, struct pf_err *err)
{
	if (__atomic_sub_fetch(&d->users, 1, __ATOMIC_ACQ_REL) > 0)
		return 0;
	int r = dir_complete(d, err);
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

static int put_dir(struct unpack *u, const struct pf_tree_entry *e, int rootfd, struct pf_err *err)
{
	struct pf_tree_entry now = *e;

	if (u->at && mkdirat(u->at->fd, e->name, 0700) < 0)
		return pf_fail(err, errno, "mkdir");
	PF_CLOSE int fd = openat(u->at ? u->at->fd : rootfd, u->at ? e->name : ".",
		O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == EMFILE ? pf_fail(err, ELOOP, "directories nest too deep")
				       : pf_fail(err, errno, "open");
	now.mode &= ~(unsigned)S_ISGID;
	if (pf_file_set_meta(&now, fd, NULL, err) < 0)
		return -1;
	/* Who is root in a user namespace alone mounts with userxattr, since he may not set the other. */
	if (e->opaque && fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0) < 0 &&
		(errno != EPERM || fsetxattr(fd, "user.overlay.opaque", "y", 1, 0) < 0))
		return pf_fail(err, errno, "mark a directory as opaque");
	struct dir *d = pf_calloc(1, sizeof(*d));
	*d = (struct dir){.parent = u->at,
		.fd = pf_take_fd(&fd),
		.gid = e->gid,
		.mode = e->mode,
		.mtime = e->mtime,
		.users = 1};
	for (size_t i = 0; i < e->n_xattrs; i++)
		if (strcmp(e->xattrs[i].name, PF_FILE_INHERITED_ACL) == 0) {
			d->acl_len = e->xattrs[i].len;
			d->acl = memcpy(pf_calloc(d->acl_len + 1, 1), e->xattrs[i].value, d->acl_len);
		}
	u->at = d;
	u->depth++;
	return 0;
}

/* ---- other things without data ---- */

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

/* ---- batches ---- */

static int files_done(struct files *f, int r, struct pf_err *err)
{
	for (size_t i = 0; f && i < f->n; i++) {
		struct pf_err late = PF_ERR_INIT;
		if (dir_release(f->dirs[i], &late) < 0 && r == 0) {
			*err = late;
			r = -1;
		}
	}
	if (f)
		pf_arena_done(&f->arena);
	free(f);
	return r;
}

static int big_done(struct big *b, int r, struct pf_err *err)
{
	struct pf_err late = PF_ERR_INIT;

	if (__atomic_sub_fetch(&b->users, 1, __ATOMIC_ACQ_REL) > 0)
		return r;
	pf_big_file_free(b->file);
	if (dir_release(b->dir, &late) < 0 && r == 0) {
		*err = late;
		r = -1;
	}
	pf_arena_done(&b->arena);
	free(b);
	return r;
}

/* skip: something has failed, it is only let go of. */
static int run_batch(struct pf_file_maker *m, struct batch *b, bool skip, struct pf_err *err)
{
	int r = 0;

	if (b->big) {
		if (!skip)
			r = pf_big_file_part(m, b->big->file, b->part, err);
		r = big_done(b->big, r, err);
	} else {
		if (!skip)
			r = pf_files_make(m, b->files->v, b->files->n, err);
		r = files_done(b->files, r, err);
	}
	free(b);
	return r;
}

static void *work(void *arg)
{
	struct unpack *u = arg;
	struct pf_file_maker *m = pf_file_maker_new(u->packs, &u->born);

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
		bool skip = u->failed;
		pthread_cond_signal(&u->room);
		pthread_mutex_unlock(&u->mu);
		struct pf_err err = PF_ERR_INIT;
		int r = run_batch(m, b, skip, &err);
		pthread_mutex_lock(&u->mu);
		if (r < 0 && !u->failed) {
			u->failed = true;
			u->why = err;
		}
	}
	pthread_mutex_unlock(&u->mu);
	pf_file_maker_free(m);
	return NULL;
}

/* The batch is copied. */
static int hand_on(struct unpack *u, const struct batch *what, struct pf_err *err)
{
	struct batch *b = pf_calloc(1, sizeof(*b));

	*b = *what;
	if (u->n_threads == 0)
		return run_batch(u->mine, b, false, err);
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

static int hand_on_files(struct unpack *u, struct pf_err *err)
{
	const struct batch b = {.files = u->filling};

	u->filling = NULL;
	return b.files ? hand_on(u, &b, err) : 0;
}

/* What the reader has of a file, to be kept for longer. */
static struct pf_file_todo copy_todo(struct pf_arena *a, const struct pf_file_todo *t)
{
	struct pf_file_todo c = *t;

	c.path = pf_arena_copy(a, t->path, strlen(t->path) + 1);
	c.name = pf_arena_copy(a, t->name, t->e.name_len + 1);
	c.refs = pf_arena_copy(a, t->refs, t->n_refs * sizeof(*t->refs));
	c.e.extents = pf_arena_copy(a, t->e.extents, t->e.n_extents * sizeof(*t->e.extents));
	if (t->e.n_xattrs > 0) {
		struct pf_tar_xa *v = pf_arena_copy(a, t->e.xattrs, t->e.n_xattrs * sizeof(*v));
		for (size_t i = 0; i < t->e.n_xattrs; i++) {
			v[i].name = pf_arena_copy(a, v[i].name, strlen(v[i].name) + 1);
			v[i].value = pf_arena_copy(a, v[i].value, v[i].len);
		}
		c.e.xattrs = v;
	}
	return c;
}

static int queue_big(struct unpack *u, const struct pf_file_todo *t, struct pf_err *err)
{
	struct big *b = pf_calloc(1, sizeof(*b));
	struct pf_file_todo mine = copy_todo(&b->arena, t);
	size_t n;

	b->file = pf_big_file_begin(&mine, err);
	if (!b->file) {
		pf_arena_done(&b->arena);
		free(b);
		return -1;
	}
	b->dir = u->at;
	__atomic_add_fetch(&u->at->users, 1, __ATOMIC_RELAXED);
	n = b->users = pf_big_file_parts(b->file);
	for (size_t i = 0; i < n; i++) {
		if (hand_on(u, &(struct batch){.big = b, .part = i}, err) < 0) {
			/* That part is with the workers; the rest is not. */
			for (i++; i < n; i++)
				(void)big_done(b, -1, err);
			return -1;
		}
	}
	return 0;
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
	struct pf_file_todo t = {.dirfd = u->at->fd,
		.dir_gid = u->at->gid,
		.name = e->name,
		.path = pf_layer_path(l),
		.e = *e,
		.version = pf_layer_tree_version(l)};

	t.refs = pf_layer_refs(l, &t.n_refs);
	u->stats->bytes += e->size;
	if (e->linked)
		return pf_files_make(u->mine, &t, 1, err) < 0 ? -1
							      : put_linked(u, e, pf_layer_number(l), err);
	if (pf_file_is_big(&t))
		return queue_big(u, &t, err);
	struct files *f = u->filling;
	/* Between two bundles, if there is a choice. */
	bool same = f && f->n > 0 && t.n_refs > 0 && f->v[f->n - 1].n_refs > 0 &&
		    memcmp(f->v[f->n - 1].refs[0].id, t.refs[0].id, sizeof(t.refs[0].id)) == 0;
	if (f && (f->n == BATCH_FILES || f->bytes >= (same ? 2 * BATCH_BYTES : BATCH_BYTES)) &&
		hand_on_files(u, err) < 0)
		return -1;
	if (!u->filling)
		u->filling = pf_calloc(1, sizeof(*u->filling));
	f = u->filling;
	f->v[f->n] = copy_todo(&f->arena, &t);
	f->dirs[f->n++] = u->at;
	__atomic_add_fetch(&u->at->users, 1, __ATOMIC_RELAXED);
	f->bytes += e->data_bytes;
	return 0;
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
		/* As many as the file system takes: ours is one of them, and nobody's last. */
		if (r < 0 && errno == EMLINK)
			r = renameat(u->linksfd, name, u->at->fd, e->name);
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
	return r < 0 ? -1 : hand_on_files(u, err);
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
	(void)files_done(u->filling, -1, &late);
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
	pf_file_born_look(destfd, &u.born);
	u.mine = pf_file_maker_new(u.packs, &u.born);
	start_threads(&u, threads);
	int r = end_threads(&u, read_entries(&u, l, destfd, err), err);
	pf_file_maker_free(u.mine);
	pthread_cond_destroy(&u.room);
	pthread_cond_destroy(&u.more);
	pthread_mutex_destroy(&u.mu);
	pf_layer_close(l);
	return r;
}
