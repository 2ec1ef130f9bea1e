/* Theory of operation.
 *
 * Taking has two halves. First a walk notes of each name what the tree needs (struct taken), and reads files'
 * data into chunks; then tree and map are written down from these notes in one go. In between, when somebody
 * writes to the directory, comes a second walk while all writers stand still: names that are provably the
 * same keep the first walk's note, the data of all others is copied into a spool; the writers go on, and the
 * spool is read into chunks. The time they stand still depends on the number of names (one stat each) and on
 * what changed, not on the size of the tree.
 *
 * "Provably the same": same inode, size, mode, ids, times, and a ctime before the moment the first walk
 * began; where that holds of every name, there is no second walk at all. A ctime later than that proves
 * nothing: two changes within one clock tick bear the same time, and a page that was made writable in a
 * memory mapping is written again and again under the first fault's time. The syncfs before the walk
 * write-protects all mapped pages, so that a write through a mapping after it does move the ctime. Where the
 * kernel does not work so (tmpfs maps pages writable at once, and writes through them leave no trace at all)
 * no stat proves a file's content: the second walk takes every file that has any, and no index of unchanged
 * files is made or believed.
 *
 * The same rule makes the index (filesindex.h): a file goes into it if its ctime is before this walk's
 * beginning and it was read by this walk. */
#include "checkpoint/take.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/sys.h"
#include "checkpoint/map.h"
#include "checkpoint/nodeio.h"
#include "checkpoint/restat.h"
#include "checkpoint/spool.h"
#include "checkpoint/tree.h"

/* More than any kernel's tick (10 ms at 100 Hz). */
#define TICK_NS 20000000

/* What is noted of a name. */
struct taken {
	struct pf_content content;
	const struct pf_tar_xa *xattrs;
	size_t n_xattrs;
	const char *target;
	uint64_t number; /* of its entry */
	bool linked;
	bool provable; /* read by the first walk, or known before */
	bool holes;    /* of the spooled file */
};

struct run {
	struct pf_take *k;
	struct pf_txn_layer *out;
	struct timespec since;
	bool traceless; /* writes through a mapping move no ctime here */
	bool frozen;    /* the second walk */
	struct pf_spool *spool;
	struct taken **spooled; /* by their numbers there */
	size_t n_spooled, cap_spooled;
};

static struct taken *note_of(const struct pf_node *n)
{
	return n->note;
}

/* ---- the walks ---- */

static int gone(struct run *r, struct pf_node *n, const char *path, struct pf_err *err)
{
	n->unstable = true;
	return r->k->src->live && !r->frozen
		       ? 0
		       : pf_fail_kind(err, PF_ERR_STATE, 0,
				 "/%s changed while it was read: the tree is in use", path);
}

static int keep_xattrs(struct run *r, const struct pf_node *n, int dirfd, int fd, const char *path,
	struct taken *t, struct pf_err *err)
{
	PF_CLEANUP(pf_node_xattrs_done) struct pf_node_xattrs x = {0};
	bool live = r->k->src->live && !r->frozen;

	if (pf_node_xattrs(n, dirfd, fd, path, live, &x, &r->out->dropped_xattrs, err) < 0)
		return -1;
	if (x.n > PF_TREE_MAX_XATTRS)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"/%s has %zu extended attributes; a checkpoint holds %d of a file", path, x.n,
			PF_TREE_MAX_XATTRS);
	if (x.n == 0)
		return 0;
	struct pf_tar_xa *v = pf_arena_copy(r->k->arena, x.v, x.n * sizeof(*v));
	for (size_t i = 0; i < x.n; i++) {
		v[i].name = pf_arena_copy(r->k->arena, x.v[i].name, strlen(x.v[i].name) + 1);
		v[i].value = pf_arena_copy(r->k->arena, x.v[i].value, x.v[i].len);
	}
	t->xattrs = v;
	t->n_xattrs = x.n;
	return 0;
}

/* A file that is known from the last snapshot, with all its chunks still there. */
static bool is_known(struct run *r, const struct pf_node *n, struct taken *t)
{
	const struct pf_files_known *known =
		r->k->known && !r->frozen ? pf_files_index_find(r->k->known, n) : NULL;

	if (!known)
		return false;
	for (size_t i = 0; i < known->content.n_refs; i++) {
		const struct pf_ref *ref = &known->content.refs[i];
		struct pf_chunk_id id;
		uint32_t len;
		/* Those of a bundle come one after the other. */
		if (i > 0 && memcmp(ref->id, ref[-1].id, sizeof(ref->id)) == 0)
			continue;
		memcpy(id.b, ref->id, sizeof(id.b));
		if (!pf_packs_has(r->k->packs, &id, &len) || len < ref->off || len - ref->off < ref->len)
			return false;
	}
	t->content = known->content;
	t->xattrs = known->xattrs;
	t->n_xattrs = known->n_xattrs;
	t->provable = true;
	r->out->unchanged++;
	r->out->unchanged_bytes += n->size;
	return true;
}

/* Set a file's data aside. */
static int spool_file(struct run *r, const struct pf_node *n, int fd, struct taken *t, struct pf_err *err)
{
	t->holes = n->blocks * 512 < n->size;
	if (pf_spool_put(r->spool, fd, n->size, t->holes, err) < 0)
		return -1;
	if (r->n_spooled == r->cap_spooled) {
		r->cap_spooled = r->cap_spooled ? r->cap_spooled * 2 : 64;
		void *v = realloc(r->spooled, r->cap_spooled * sizeof(struct taken *));
		if (!v)
			abort();
		r->spooled = v;
	}
	r->spooled[r->n_spooled++] = t;
	t->content.size = n->size;
	return 0;
}

int pf_take_check_bytes(const struct pf_txn_layer *l, struct pf_err *err)
{
	if (l->walked.bytes <= PF_CKPT_MAX_BYTES)
		return 0;
	return pf_fail_kind(err, PF_ERR_UNSUPPORTED, EFBIG,
		"the files add up to %lld bytes or more, holes included; a checkpoint holds %lld",
		(long long)l->walked.bytes, (long long)PF_CKPT_MAX_BYTES);
}

static int take_file(
	struct run *r, struct pf_node *n, int dirfd, const char *path, struct taken *t, struct pf_err *err)
{
	PF_CLOSE int fd = -1;
	bool cut = false;

	if (pf_take_check_bytes(r->out, err) < 0)
		return pf_wrap(err, "/%s", path);
	if (is_known(r, n, t))
		return 0;
	int rc = pf_node_open(n, dirfd, path, r->k->src->live && !r->frozen, &fd, err);
	if (rc != 0)
		return rc < 0 ? -1 : gone(r, n, path, err);
	if (keep_xattrs(r, n, dirfd, fd, path, t, err) < 0)
		return -1;
	if (r->frozen && n->size > 0)
		rc = spool_file(r, n, fd, t, err);
	else
		rc = pf_content_read(r->k->writer, &(struct pf_content_in){.fd = fd}, n->size,
			n->blocks * 512 < n->size, &t->content, &cut, err);
	if (rc < 0)
		return pf_wrap(err, "/%s", path);
	t->provable = !r->frozen;
	return cut ? gone(r, n, path, err) : 0;
}

static int take(struct run *r, struct pf_node *n, int dirfd, int selffd, const char *path, struct pf_err *err)
{
	char target[4097];

	if (n->kind == PF_NODE_WHITEOUT)
		return 0;
	if (n->uid > PF_TREE_MAX_ID || n->gid > PF_TREE_MAX_ID)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"/%s belongs to %u:%u: a box has the ids 0 to %d, so this was not written by one",
			path, n->uid, n->gid, PF_TREE_MAX_ID);
	if (n->leader) /* the first name vanished before it was read */
		return note_of(n->leader) ? 0 : gone(r, n, path, err);
	struct taken *t = pf_arena_alloc(r->k->arena, sizeof(*t));
	*t = (struct taken){0};
	int rc = 0;
	if (n->kind == PF_NODE_FILE) {
		rc = take_file(r, n, dirfd, path, t, err);
	} else if (n->kind == PF_NODE_SYMLINK) {
		rc = pf_node_target(n, dirfd, path, r->k->src->live && !r->frozen, target, err);
		if (rc > 0)
			rc = gone(r, n, path, err);
		else if (rc == 0)
			t->target = pf_arena_copy(r->k->arena, target, strlen(target) + 1);
	} else if (n->kind == PF_NODE_DIR) {
		rc = selffd < 0 ? gone(r, n, path, err) : keep_xattrs(r, n, dirfd, selffd, path, t, err);
	}
	if (rc == 0 && !n->unstable)
		n->note = t;
	return rc;
}

static int first_visit(
	void *ctx, struct pf_node *n, int dirfd, int selffd, const char *path, struct pf_err *err)
{
	return take(ctx, n, dirfd, selffd, path, err);
}

/* The first walk's note serves again: nothing about the name has changed, nor its part among its inode's
 * names. */
static bool same(const struct run *r, const struct pf_node *n)
{
	/* A further name of an inode has no content of its own, an empty file none to be mapped. */
	if (r->traceless && n->kind == PF_NODE_FILE && n->size > 0 && !n->leader)
		return false;
	return pf_node_unchanged(n, r->since) && n->cut == n->twin->cut && n->opaque == n->twin->opaque &&
	       (n->leader ? n->leader->twin && n->leader->twin == n->twin->leader
			  : !n->twin->leader && (n->twin->note || n->kind == PF_NODE_WHITEOUT));
}

static bool second_same(void *ctx, struct pf_node *n)
{
	if (!same(ctx, n))
		return false;
	n->note = n->twin->note;
	return true;
}

static int second_visit(
	void *ctx, struct pf_node *n, int dirfd, int selffd, const char *path, struct pf_err *err)
{
	struct run *r = ctx;

	r->out->live.changed++;
	r->out->live.changed_bytes += n->leader ? 0 : n->size;
	return take(r, n, dirfd, selffd, path, err);
}

static int begin(struct run *r, struct pf_err *err)
{
	const struct pf_txn_source *src = r->k->src;
	struct statfs fs;

	r->traceless = fstatfs(src->rootfd, &fs) < 0 || fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
	if (r->traceless)
		r->k->known = NULL;
	if (clock_gettime(CLOCK_REALTIME_COARSE, &r->since) < 0)
		return pf_fail(err, errno, "clock");
	r->since.tv_nsec -= TICK_NS;
	if (r->since.tv_nsec < 0) {
		r->since.tv_sec--;
		r->since.tv_nsec += 1000000000;
	}
	if (!src->no_sync && (src->live || src->files_index) && syncfs(src->rootfd) < 0)
		return pf_fail(err, errno, "syncfs");
	return 0;
}

/* A file that was empty in the first walk is in no listing, and its directory says nothing of what is in it.
 */
static bool mount_points_filled(const struct pf_txn_source *src)
{
	struct stat st;

	for (const char *const *p = src->exclude_empty; p && *p; p++) {
		PF_CLOSE int fd =
			pf_openat2(src->rootfd, *p + strspn(*p, "/"), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0,
				RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
		if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
			return true;
	}
	return false;
}

/* Everything between freeze and thaw, and these. */
static int second_walk(struct run *r, const struct pf_walk_opts *first_opts, const struct pf_tree *first,
	struct pf_tree **second, struct pf_err *err)
{
	const struct pf_live *live = r->k->src->live;
	struct pf_walk_opts o = *first_opts;
	struct pf_err thaw_err = PF_ERR_INIT;

	struct pf_restat *again = pf_restat_new(r->k->src->rootfd, first, r->since);
	o.into = pf_tree_new(first);
	if (live->freeze(live->ctx, err) < 0) {
		pf_tree_free(o.into);
		pf_restat_free(again);
		return -1;
	}
	int64_t t0 = pf_now_us();
	int rc = 0;
	o.live = false;
	o.previous = first;
	o.since = r->since;
	o.visit = second_visit;
	o.same = second_same;
	r->frozen = true;
	/* Where nothing has changed the first walk's tree is the tree. */
	bool idle = pf_restat_run(again) && !r->traceless && !mount_points_filled(r->k->src);
	if (!idle)
		rc = pf_walk(r->k->src->rootfd, &o, second, &r->out->walked, err);
	r->out->live.frozen_us = pf_now_us() - t0;
	if (rc < 0)
		pf_wrap(err, "second pass");
	if (live->thaw(live->ctx, &thaw_err) < 0) {
		if (rc == 0)
			*err = thaw_err;
		rc = -1;
	}
	if (idle)
		pf_tree_free(o.into);
	pf_restat_free(again);
	return rc;
}

static int read_spool(struct run *r, struct pf_err *err)
{
	bool cut;

	for (size_t i = 0; i < r->n_spooled; i++) {
		struct taken *t = r->spooled[i];
		struct pf_content_in in;
		if (pf_spool_get(r->spool, (int64_t)i, &in, err) < 0 ||
			pf_content_read(
				r->k->writer, &in, t->content.size, t->holes, &t->content, &cut, err) < 0)
			return -1;
		if (cut)
			return pf_fail(err, EIO, "read the spool");
	}
	return 0;
}

/* ---- writing down ---- */

static void put_entry(struct run *r, const struct pf_node *n, uint64_t number)
{
	struct taken *t = note_of(n);
	struct pf_tree_entry e = {.name = n->name, .name_len = strlen(n->name)};

	if (n->kind == PF_NODE_WHITEOUT) {
		e.type = PF_TREE_WHITEOUT;
	} else if (n->leader) {
		e.type = PF_TREE_LINK;
		e.link = note_of(n->leader)->number;
	} else {
		t->number = number;
		e.mode = n->mode & 07777;
		e.uid = n->uid;
		e.gid = n->gid;
		e.mtime = n->mtime;
		e.linked = t->linked;
		e.xattrs = t->xattrs;
		e.n_xattrs = t->n_xattrs;
	}
	if (!n->leader && n->kind == PF_NODE_DIR) {
		e.type = PF_TREE_DIR;
		e.opaque = n->opaque && n->parent; /* the kernel merges the roots in any case */
	} else if (!n->leader && n->kind == PF_NODE_FILE) {
		e.type = PF_TREE_FILE;
		e.size = t->content.size;
		e.extents = t->content.extents;
		e.n_extents = t->content.n_extents;
		e.data_bytes = t->content.data_bytes;
		memcpy(e.sum, t->content.sum, sizeof(e.sum));
		if (e.n_extents > 0)
			pf_map_put(&r->k->map, t->content.refs, t->content.n_refs);
		if (t->provable && r->k->index.len > 0 &&
			(n->ctime.tv_sec != r->since.tv_sec ? n->ctime.tv_sec < r->since.tv_sec
							    : n->ctime.tv_nsec < r->since.tv_nsec))
			pf_files_index_add(&r->k->index, n, &t->content, t->xattrs, t->n_xattrs);
	} else if (!n->leader && n->kind == PF_NODE_SYMLINK) {
		e.type = PF_TREE_SYMLINK;
		e.target = t->target;
		e.target_len = strlen(t->target);
	} else if (!n->leader && n->kind == PF_NODE_FIFO) {
		e.type = PF_TREE_FIFO;
	}
	pf_tree_put(&r->k->tree, &e);
}

static const struct pf_node *following(struct run *r, const struct pf_node *n, bool write)
{
	if (n->children)
		return n->children;
	if (write && n->kind == PF_NODE_DIR)
		pf_tree_end_dir(&r->k->tree);
	while (n && !n->next) {
		n = n->parent;
		if (write && n)
			pf_tree_end_dir(&r->k->tree);
	}
	return n ? n->next : NULL;
}

static void write_down(struct run *r, const struct pf_tree *tree)
{
	uint64_t number = 0;

	for (const struct pf_node *n = pf_tree_root(tree); n; n = following(r, n, false))
		if (n->leader)
			note_of(n->leader)->linked = true;
	pf_tree_begin(&r->k->tree, r->k->version);
	pf_map_begin(&r->k->map);
	if (r->k->src->files_index && !r->traceless && r->k->version == PF_TREE_VERSION)
		pf_files_index_begin(&r->k->index, r->k->src->rootfd);
	for (const struct pf_node *n = pf_tree_root(tree); n; n = following(r, n, true))
		put_entry(r, n, number++);
	r->out->entries = (int64_t)number;
}

static int take_all(struct run *r, struct pf_err *err)
{
	const struct pf_txn_source *src = r->k->src;
	struct pf_walk_opts o = {.exclude = src->exclude,
		.exclude_empty = src->exclude_empty,
		.userxattr = src->userxattr,
		.live = src->live != NULL,
		.visit = first_visit,
		.ctx = r};
	struct pf_tree *first = NULL, *second = NULL;

	int rc = pf_walk(src->rootfd, &o, &first, &r->out->walked, err);
	if (rc == 0 && src->live)
		rc = second_walk(r, &o, first, &second, err);
	if (rc == 0)
		rc = read_spool(r, err);
	if (rc == 0)
		rc = pf_content_flush(r->k->writer, err);
	if (rc == 0)
		write_down(r, second ? second : first);
	pf_tree_free(second);
	pf_tree_free(first);
	return rc;
}

int pf_take_tree(struct pf_take *k, struct pf_err *err)
{
	struct run r = {.k = k, .out = k->out};

	if (begin(&r, err) < 0)
		return -1;
	if (k->src->live && pf_spool_new(k->tmp_fd, pf_packs_sealed(k->packs), &r.spool, err) < 0)
		return -1;
	int rc = take_all(&r, err);
	pf_spool_free(r.spool);
	free(r.spooled);
	return rc;
}
