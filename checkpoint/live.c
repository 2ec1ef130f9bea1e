/* Theory of operation.
 *
 * Pass 1 packs the tree while everybody keeps writing. Then the writers are stopped, the tree is stat'ed
 * again, and only what is not provably the same is copied, as finished tar members, into a spool file; the
 * writers go on. Afterwards, off line, the layer is put together: members of pass 1 where nothing changed,
 * members of the spool where something did, in the order of the second walk. The time the writers stand still
 * depends on the number of names (one stat each) and on what changed, not on the size of the tree.
 *
 * "Provably the same": same inode, size, mode, ids, times, and a ctime before the moment pass 1 began. A
 * ctime later than that proves nothing: two changes within one clock tick bear the same time, and a page that
 * was made writable in a memory mapping is written again and again under the first fault's time. The syncfs
 * before pass 1 write-protects all mapped pages, so that a write through a mapping after it does move the
 * ctime. Where the kernel does not work so (tmpfs maps pages writable at once, and writes through them leave
 * no trace at all) no stat proves a file's content, and the second pass takes every file that has any. */
#include "checkpoint/live.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/str.h"

/* More than any kernel's tick (10 ms at 100 Hz). */
#define TICK_NS 20000000

/* The tar stream of pass 1, read forward. */
struct stream {
	int fd;
	ZSTD_DCtx *zstd;
	char *in, *out;
	size_t in_cap, out_cap;
	ZSTD_inBuffer ib;
	size_t out_at, out_len; /* decompressed bytes not yet used: out[out_at..out_len) */
	uint64_t pos;           /* tar offset of out[out_at] */
};

static void stream_done(struct stream *s)
{
	ZSTD_freeDCtx(s->zstd);
	free(s->in);
	free(s->out);
}

static int stream_fill(struct stream *s, struct pf_err *err)
{
	ZSTD_outBuffer ob = {s->out, s->out_cap, 0};

	while (ob.pos == 0) {
		if (s->ib.pos == s->ib.size) {
			ssize_t n = read(s->fd, s->in, s->in_cap);
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return pf_fail(err, n < 0 ? errno : EIO, "read the first pass");
			s->ib = (ZSTD_inBuffer){s->in, (size_t)n, 0};
		}
		if (ZSTD_isError(ZSTD_decompressStream(s->zstd, &ob, &s->ib)))
			return pf_fail(err, EIO, "read the first pass");
	}
	s->out_at = 0;
	s->out_len = ob.pos;
	return 0;
}

/* Copy [start, end) of the stream; start is never before what was copied last. */
static int stream_copy(
	struct stream *s, uint64_t start, uint64_t end, struct pf_tarout *o, struct pf_err *err)
{
	while (s->pos < end) {
		if (s->out_at == s->out_len && stream_fill(s, err) < 0)
			return -1;
		uint64_t have = s->out_len - s->out_at;
		uint64_t n = s->pos < start ? start - s->pos : end - s->pos;
		if (n > have)
			n = have;
		if (s->pos >= start && pf_tarout_write(o, s->out + s->out_at, (size_t)n, err) < 0)
			return -1;
		s->out_at += (size_t)n;
		s->pos += n;
	}
	return 0;
}

struct rescan {
	struct pf_tarout *spool;
	struct pf_pack_stats *stats;
	struct pf_live_stats *lstats;
	struct timespec since;
	bool traceless; /* writes through a mapping move no ctime here */
};

/* The member of pass 1 serves again: nothing about the name has changed, nor its part among its inode's
 * names. */
static bool same_member(const struct pf_node *n, const struct rescan *r)
{
	/* A further name of an inode has no content of its own, an empty file none to be mapped. */
	if (r->traceless && n->kind == PF_NODE_FILE && n->size > 0 && !n->leader)
		return false;
	return pf_node_unchanged(n, r->since) && n->cut == n->twin->cut && n->opaque == n->twin->opaque &&
	       (n->leader ? n->leader->twin && n->leader->twin == n->twin->leader : !n->twin->leader);
}

static int rescan_visit(
	void *ctx, struct pf_node *n, int dirfd, int selffd, const char *path, struct pf_err *err)
{
	struct rescan *r = ctx;

	if (same_member(n, r)) {
		n->tar_start = n->twin->tar_start;
		n->tar_end = n->twin->tar_end;
		return 0;
	}
	n->spooled = true;
	r->lstats->changed++;
	if (pf_pack_node(r->spool, n, dirfd, selffd, path, false, r->stats, err) < 0)
		return -1;
	r->lstats->changed_bytes += (int64_t)(n->tar_end - n->tar_start);
	return 0;
}

static bool traceless(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) < 0 || fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

/* Everything between freeze and thaw. */
static int frozen_pass(int upper_fd, const struct pf_walk_opts *opts, const struct pf_tree *first,
	int spool_fd, struct pf_tree **second, struct pf_walk_stats *walked, struct pf_pack_stats *stats,
	struct pf_live_stats *lstats, struct pf_err *err)
{
	struct pf_walk_opts o = *opts;
	struct rescan r = {.spool = pf_tarout_spool(spool_fd, err),
		.stats = stats,
		.lstats = lstats,
		.since = opts->since,
		.traceless = traceless(upper_fd)};

	if (!r.spool)
		return -1;
	o.live = false;
	o.previous = first;
	o.visit = rescan_visit;
	o.ctx = &r;
	if (pf_walk(upper_fd, &o, second, walked, err) < 0) {
		pf_tarout_abort(r.spool);
		return -1;
	}
	return pf_tarout_finish(r.spool, NULL, err);
}

static int merge_tree(
	const struct pf_node *root, struct stream *s, int spool_fd, struct pf_tarout *o, struct pf_err *err)
{
	const struct pf_node *n = root;
	int64_t got;

	/* Depth first without recursion: down, else right, else up and right. */
	while (n) {
		int64_t len = (int64_t)(n->tar_end - n->tar_start);
		if (!n->spooled && stream_copy(s, n->tar_start, n->tar_end, o, err) < 0)
			return -1;
		if (n->spooled && (pf_tarout_from_fd(o, spool_fd, len, &got, err) < 0 || got != len))
			return got != len ? pf_fail(err, EIO, "read the spool") : -1;
		if (n->children) {
			n = n->children;
			continue;
		}
		while (n && !n->next)
			n = n->parent;
		n = n ? n->next : NULL;
	}
	return 0;
}

static int merge(const struct pf_tree *second, int first_fd, int spool_fd, int out_fd, int level, int threads,
	struct pf_tarout_result *res, struct pf_err *err)
{
	PF_CLEANUP(stream_done)
	struct stream s = {.fd = first_fd,
		.zstd = ZSTD_createDCtx(),
		.in_cap = ZSTD_DStreamInSize(),
		.out_cap = (size_t)1 << 20};

	s.in = malloc(s.in_cap);
	s.out = malloc(s.out_cap);
	if (!s.zstd || !s.in || !s.out)
		return pf_fail(err, ENOMEM, "merge");
	if (lseek(first_fd, 0, SEEK_SET) < 0 || lseek(spool_fd, 0, SEEK_SET) < 0)
		return pf_fail(err, errno, "seek");
	struct pf_tarout *o = pf_tarout_layer(out_fd, level, threads, err);
	if (!o)
		return -1;
	if (merge_tree(pf_tree_root(second), &s, spool_fd, o, err) < 0) {
		pf_tarout_abort(o);
		return -1;
	}
	return pf_tarout_finish(o, res, err);
}

static int begin(int upper_fd, struct timespec *since, struct pf_err *err)
{
	if (clock_gettime(CLOCK_REALTIME_COARSE, since) < 0)
		return pf_fail(err, errno, "clock");
	since->tv_nsec -= TICK_NS;
	if (since->tv_nsec < 0) {
		since->tv_sec--;
		since->tv_nsec += 1000000000;
	}
	if (syncfs(upper_fd) < 0)
		return pf_fail(err, errno, "syncfs");
	return 0;
}

static int temp_file(int dirfd, struct pf_err *err)
{
	PF_CLOSE int fd = openat(dirfd, "spool", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0 || unlinkat(dirfd, "spool", 0) < 0)
		return pf_fail(err, errno, "temporary file");
	return pf_take_fd(&fd);
}

int pf_live_pack(int upper_fd, const struct pf_walk_opts *opts, int tmp_fd, const char *layer, int level,
	int threads, const struct pf_live *live, struct pf_tarout_result *res, struct pf_walk_stats *walked,
	struct pf_pack_stats *stats, struct pf_live_stats *lstats, struct pf_err *err)
{
	PF_CLOSE int layer_fd = openat(tmp_fd, layer, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	PF_CLOSE int spool_fd = temp_file(tmp_fd, err);
	PF_CLOSE int merged_fd = -1;
	struct pf_walk_opts o = *opts;
	struct pf_tree *first = NULL, *second = NULL;
	struct pf_err thaw_err = PF_ERR_INIT;
	int r = -1;

	*lstats = (struct pf_live_stats){0};
	if (layer_fd < 0)
		return pf_fail(err, errno, "create %s", layer);
	if (spool_fd < 0)
		return -1;
	o.live = true;
	if (begin(upper_fd, &o.since, err) < 0 ||
		pf_pack_layer(upper_fd, &o, layer_fd, level, threads, &first, res, walked, stats, err) < 0)
		return pf_wrap(err, "first pass");
	if (live->freeze(live->ctx, err) < 0)
		goto out;
	int64_t t0 = pf_now_us();
	struct pf_pack_stats again = {0};
	r = frozen_pass(upper_fd, &o, first, spool_fd, &second, walked, &again, lstats, err);
	lstats->frozen_us = pf_now_us() - t0;
	if (r < 0)
		pf_wrap(err, "second pass");
	if (live->thaw(live->ctx, &thaw_err) < 0) {
		if (r == 0)
			*err = thaw_err;
		r = -1;
	}
	if (r < 0 || lstats->changed == 0)
		goto out;
	/* The spool's attributes were counted in pass 1 too, unless the file is new; a small overcount. */
	stats->dropped_xattrs += again.dropped_xattrs;
	r = -1;
	if (unlinkat(tmp_fd, layer, 0) < 0) {
		pf_fail(err, errno, "remove %s", layer);
		goto out;
	}
	merged_fd = openat(tmp_fd, layer, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (merged_fd < 0) {
		pf_fail(err, errno, "create %s", layer);
		goto out;
	}
	r = merge(second, layer_fd, spool_fd, merged_fd, level, threads, res, err);
	if (r < 0)
		pf_wrap(err, "merge");
out:
	pf_tree_free(second);
	pf_tree_free(first);
	return r;
}
