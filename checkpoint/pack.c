/* Theory of operation.
 *
 * Each node becomes one member; a directory that hides its lower layers also a `.wh..wh..opq` right after it,
 * before anything in it. A file's size is fixed when its header is written, from fstat on the descriptor that
 * is then read: if the file shrinks meanwhile the rest is zeros and the node is marked unstable, so the
 * archive is always well-formed and the second pass knows what to take again.
 *
 * Holes: asked for (SEEK_HOLE) only where a file has fewer blocks than bytes. The map is bounded, because
 * readers bound it too (Go: 1 MiB): with too many holes the small ones are stored as zeros. */
#include "checkpoint/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "checkpoint/nodeio.h"
#include "checkpoint/tarhdr.h"

#define MAX_EXTENTS 16384

struct extent {
	int64_t off, len;
};

static int emit(struct pf_tarout *o, const struct pf_tar_member *m, struct pf_err *err)
{
	PF_BUF struct pf_buf h = {0};

	pf_tar_header(&h, m);
	return pf_tarout_write(o, h.data, h.len, err);
}

/* The data extents of a file of `size` bytes; *v stays NULL when it is one piece. */
static int find_extents(int fd, int64_t size, struct extent **v, size_t *n, struct pf_err *err)
{
	PF_FREE struct extent *e = NULL;
	size_t count = 0, cap = 0;

	for (int64_t at = 0; at < size;) {
		int64_t data = lseek(fd, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break;
		int64_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return errno == EINVAL ? 0 : pf_fail(err, errno, "find holes");
		if (data >= size)
			break;
		if (hole > size)
			hole = size;
		if (count == cap) {
			cap = cap ? cap * 2 : 16;
			struct extent *more = realloc(e, cap * sizeof(*e));
			if (!more)
				return pf_fail(err, ENOMEM, "find holes");
			e = more;
		}
		e[count++] = (struct extent){data, hole - data};
		at = hole;
	}
	if (count == 1 && e[0].off == 0 && e[0].len == size)
		return 0;
	for (int64_t least = 8192; count > MAX_EXTENTS; least *= 2) {
		size_t kept = 0;
		for (size_t i = 1; i < count; i++)
			if (e[i].off - (e[kept].off + e[kept].len) < least)
				e[kept].len = e[i].off + e[i].len - e[kept].off;
			else
				e[++kept] = e[i];
		count = kept + 1;
	}
	if (!e)
		e = pf_calloc(1, sizeof(*e)); /* nothing but a hole */
	*v = pf_take(e);
	*n = count;
	return 0;
}

static int read_part(struct pf_tarout *o, struct pf_node *n, int fd, int64_t len, struct pf_err *err)
{
	int64_t got;

	if (pf_tarout_from_fd(o, fd, len, &got, err) < 0)
		return -1;
	if (got != len)
		n->unstable = true;
	return 0;
}

static int emit_sparse(struct pf_tarout *o, struct pf_node *n, int fd, struct pf_tar_member *m,
	const struct extent *v, size_t count, struct pf_err *err)
{
	PF_BUF struct pf_buf map = {0};
	int64_t data = 0;
	bool end = count == 0 || v[count - 1].off + v[count - 1].len < m->size;

	pf_buf_printf(&map, "%zu\n", count + end);
	for (size_t i = 0; i < count; i++) {
		pf_buf_printf(&map, "%" PRId64 "\n%" PRId64 "\n", v[i].off, v[i].len);
		data += v[i].len;
	}
	if (end)
		pf_buf_printf(&map, "%" PRId64 "\n0\n", m->size); /* says where a hole at the end ends */
	while (map.len % PF_TAR_BLOCK != 0)
		pf_buf_add(&map, "", 1);
	m->sparse_size = m->size;
	m->size = (int64_t)map.len + data;
	if (emit(o, m, err) < 0 || pf_tarout_write(o, map.data, map.len, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++) {
		if (lseek(fd, v[i].off, SEEK_SET) < 0)
			return pf_fail(err, errno, "seek");
		if (read_part(o, n, fd, v[i].len, err) < 0)
			return -1;
	}
	return 0;
}

static int emit_file(
	struct pf_tarout *o, struct pf_node *n, int fd, struct pf_tar_member *m, struct pf_err *err)
{
	PF_FREE struct extent *v = NULL;
	size_t count = 0;
	int r;

	if (n->blocks * 512 < n->size && find_extents(fd, n->size, &v, &count, err) < 0)
		return -1;
	if (v) {
		r = emit_sparse(o, n, fd, m, v, count, err);
	} else {
		/* find_extents has moved the file position, unless it was not called. */
		r = n->blocks * 512 < n->size && lseek(fd, 0, SEEK_SET) < 0 ? pf_fail(err, errno, "seek") : 0;
		if (r == 0)
			r = emit(o, m, err);
		if (r == 0)
			r = read_part(o, n, fd, n->size, err);
	}
	if (r < 0)
		return -1;
	return pf_tarout_zeros(o, (size_t)(-m->size & (PF_TAR_BLOCK - 1)), err);
}

static int gone(struct pf_node *n, const char *path, bool live, struct pf_err *err)
{
	n->unstable = true;
	return live ? 0
		    : pf_fail_kind(err, PF_ERR_STATE, 0, "/%s changed while it was read: the tree is in use",
			      path);
}

static int emit_whiteout(struct pf_tarout *o, const struct pf_node *n, const char *path, struct pf_err *err)
{
	size_t dir = strlen(path) - strlen(n->name);
	PF_FREE char *name = pf_asprintf("%.*s.wh.%s", (int)dir, path, n->name);
	struct pf_tar_member m = {.type = '0', .path = name, .sparse_size = -1};

	return emit(o, &m, err);
}

static int emit_dir(
	struct pf_tarout *o, struct pf_node *n, struct pf_tar_member *m, const char *path, struct pf_err *err)
{
	PF_FREE char *name = pf_asprintf("%s/", *path ? path : ".");

	m->type = '5';
	m->path = name;
	if (emit(o, m, err) < 0)
		return -1;
	if (!n->opaque)
		return 0;
	PF_FREE char *mark = pf_asprintf("%s%s.wh..wh..opq", path, *path ? "/" : "");
	struct pf_tar_member opq = {.type = '0', .path = mark, .sparse_size = -1};
	return emit(o, &opq, err);
}

static int pack_node(struct pf_tarout *o, struct pf_node *n, int dirfd, int selffd, const char *path,
	bool live, struct pf_pack_stats *stats, struct pf_err *err)
{
	PF_CLEANUP(pf_node_xattrs_done) struct pf_node_xattrs x = {0};
	PF_CLOSE int fd = -1;
	PF_FREE char *leader = NULL;
	char target[4097];
	int r;

	if (n->kind == PF_NODE_WHITEOUT)
		return emit_whiteout(o, n, path, err);
	if (n->uid > PF_PACK_MAX_ID || n->gid > PF_PACK_MAX_ID)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"/%s belongs to %u:%u: a box has the ids 0 to %d, so this was not written by one",
			path, n->uid, n->gid, PF_PACK_MAX_ID);
	struct pf_tar_member m = {.path = path,
		.mode = n->mode & 07777,
		.uid = n->uid,
		.gid = n->gid,
		.sparse_size = -1,
		.mtime = n->mtime};
	if (n->leader) {
		if (n->leader->tar_end == n->leader->tar_start)
			return gone(n, path, live, err); /* the first name vanished before it was packed */
		m.type = '1';
		m.link = leader = pf_node_path(n->leader);
		return emit(o, &m, err);
	}
	if (n->kind == PF_NODE_FILE) {
		r = pf_node_open(n, dirfd, path, live, &fd, err);
		if (r != 0)
			return r < 0 ? -1 : gone(n, path, live, err);
		m.type = '0';
		m.mode = n->mode & 07777;
		m.uid = n->uid;
		m.gid = n->gid;
		m.size = n->size;
		m.mtime = n->mtime;
	} else if (n->kind == PF_NODE_SYMLINK) {
		r = pf_node_target(n, dirfd, path, live, target, err);
		if (r != 0)
			return r < 0 ? -1 : gone(n, path, live, err);
		m.type = '2';
		m.link = target;
	} else if (n->kind == PF_NODE_FIFO) {
		m.type = '6';
	} else if (selffd < 0) {
		return gone(n, path, live, err);
	}
	if (pf_node_xattrs(n, dirfd, n->kind == PF_NODE_DIR ? selffd : fd, path, live, &x,
		    &stats->dropped_xattrs, err) < 0)
		return -1;
	m.xattrs = x.v;
	m.n_xattrs = x.n;
	if (n->kind == PF_NODE_DIR)
		return emit_dir(o, n, &m, path, err);
	if (n->kind != PF_NODE_FILE)
		return emit(o, &m, err);
	if (emit_file(o, n, fd, &m, err) < 0)
		return pf_wrap(err, "/%s", path);
	return n->unstable && !live ? gone(n, path, live, err) : 0;
}

int pf_pack_node(struct pf_tarout *o, struct pf_node *n, int dirfd, int selffd, const char *path, bool live,
	struct pf_pack_stats *stats, struct pf_err *err)
{
	n->tar_start = pf_tarout_pos(o);
	int r = pack_node(o, n, dirfd, selffd, path, live, stats, err);
	n->tar_end = pf_tarout_pos(o);
	return r;
}

struct pack {
	struct pf_tarout *o;
	struct pf_pack_stats *stats;
	bool live;
};

static int visit(void *ctx, struct pf_node *n, int dirfd, int selffd, const char *path, struct pf_err *err)
{
	struct pack *p = ctx;

	return pf_pack_node(p->o, n, dirfd, selffd, path, p->live, p->stats, err);
}

int pf_pack_layer(int rootfd, const struct pf_walk_opts *opts, int outfd, int level, int threads,
	struct pf_tree **tree, struct pf_tarout_result *res, struct pf_walk_stats *walked,
	struct pf_pack_stats *stats, struct pf_err *err)
{
	struct pf_walk_opts o = *opts;
	struct pack p = {
		.o = pf_tarout_layer(outfd, level, threads, err), .stats = stats, .live = opts->live};
	struct pf_tree *t = NULL;

	if (!p.o)
		return -1;
	*stats = (struct pf_pack_stats){0};
	o.visit = visit;
	o.ctx = &p;
	if (pf_walk(rootfd, &o, &t, walked, err) < 0) {
		pf_tarout_abort(p.o);
		return -1;
	}
	int r = pf_tarout_finish(p.o, res, err);
	if (tree && r == 0)
		*tree = t;
	else
		pf_tree_free(t);
	return r;
}
