/* Theory of operation: a tree and a tar have the same order (depth first, names sorted by bytes, parents
 * before what is in them), so one becomes the other entry by entry. A whiteout is an empty file .wh.NAME, an
 * opaque directory is followed by .wh..wh..opq in it, a file with holes is GNU sparse 1.0, or, if the layer
 * gets a table of contents, one with zeros. */
#include "checkpoint/layertar.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "checkpoint/layer.h"
#include "checkpoint/tarhdr.h"
#include "checkpoint/toc.h"

/* What a hard link to entry `number` has to say. */
struct linked {
	uint64_t number;
	unsigned mode;
	uint32_t uid, gid;
	struct timespec mtime;
};

struct to_tar {
	struct pf_layer_reader *l;
	struct pf_tarout *o;
	struct pf_toc *toc; /* NULL: none */
	struct linked *v;   /* by number */
	size_t n, cap;
};

static void remember(struct to_tar *t, const struct pf_tree_entry *e)
{
	if (t->n == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 64;
		struct linked *v = realloc(t->v, t->cap * sizeof(*v));
		if (!v)
			abort();
		t->v = v;
	}
	t->v[t->n++] = (struct linked){pf_layer_number(t->l), e->mode, e->uid, e->gid, e->mtime};
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = ((const struct linked *)a)->number, y = ((const struct linked *)b)->number;

	return x < y ? -1 : x > y;
}

static int emit(struct to_tar *t, const struct pf_tar_member *m, struct pf_err *err)
{
	PF_BUF struct pf_buf h = {0};

	pf_tar_header(&h, m);
	return t->toc ? pf_toc_member(t->toc, m, h.data, h.len, err)
		      : pf_tarout_write(t->o, h.data, h.len, err);
}

static int emit_mark(struct to_tar *t, const char *path, struct pf_err *err)
{
	struct pf_tar_member m = {.type = '0', .path = path, .sparse_size = -1};

	return emit(t, &m, err);
}

static int emit_dir(struct to_tar *t, struct pf_tar_member *m, const struct pf_tree_entry *e,
	const char *path, struct pf_err *err)
{
	PF_FREE char *name = pf_asprintf("%s/", *path ? path : ".");
	PF_FREE char *mark = pf_asprintf("%s%s.wh..wh..opq", path, *path ? "/" : "");

	m->type = '5';
	m->path = name;
	if (emit(t, m, err) < 0)
		return -1;
	return e->opaque ? emit_mark(t, mark, err) : 0;
}

static int emit_whiteout(
	struct to_tar *t, const struct pf_tree_entry *e, const char *path, struct pf_err *err)
{
	size_t dir = strlen(path) - e->name_len;
	PF_FREE char *name = pf_asprintf("%.*s.wh.%s", (int)dir, path, path + dir);

	return emit_mark(t, name, err);
}

/* The map of a file with holes, as it stands before its data: how many stretches, then offset and length of
 * each. One of no length says where a hole at the end ends. */
static void put_map(struct pf_buf *map, const struct pf_tree_entry *e)
{
	const struct pf_extent *last = e->extents && e->n_extents ? &e->extents[e->n_extents - 1] : NULL;
	bool end = !last || last->off + last->len < e->size;

	pf_buf_printf(map, "%zu\n", e->n_extents + end);
	for (size_t i = 0; last && i < e->n_extents; i++)
		pf_buf_printf(map, "%" PRId64 "\n%" PRId64 "\n", e->extents[i].off, e->extents[i].len);
	if (end)
		pf_buf_printf(map, "%" PRId64 "\n0\n", e->size);
	while (map->len % PF_TAR_BLOCK != 0)
		pf_buf_add(map, "", 1);
}

/* Whole, and described in the table. */
static int emit_described(
	struct to_tar *t, struct pf_tar_member *m, const struct pf_tree_entry *e, struct pf_err *err)
{
	int64_t at = 0, offset;
	const void *data;
	ssize_t n;

	if (emit(t, m, err) < 0)
		return -1;
	while ((n = pf_layer_data(t->l, &data, &offset, err)) > 0) {
		if (pf_toc_hole(t->toc, offset - at, err) < 0 ||
			pf_toc_data(t->toc, data, (size_t)n, err) < 0)
			return -1;
		at = offset + n;
	}
	return n < 0 ? -1 : pf_toc_hole(t->toc, e->size - at, err);
}

static int emit_file(
	struct to_tar *t, struct pf_tar_member *m, const struct pf_tree_entry *e, struct pf_err *err)
{
	PF_BUF struct pf_buf map = {0};
	const void *data;
	int64_t offset;
	ssize_t n;

	m->type = '0';
	m->size = e->size;
	if (t->toc)
		return emit_described(t, m, e, err);
	if (e->data_bytes != e->size) {
		put_map(&map, e);
		m->sparse_size = e->size;
		m->size = (int64_t)map.len + e->data_bytes;
	}
	if (emit(t, m, err) < 0 || (map.len > 0 && pf_tarout_write(t->o, map.data, map.len, err) < 0))
		return -1;
	while ((n = pf_layer_data(t->l, &data, &offset, err)) > 0)
		if (pf_tarout_write(t->o, data, (size_t)n, err) < 0)
			return -1;
	if (n < 0)
		return -1;
	return pf_tarout_zeros(t->o, (size_t)(-m->size & (PF_TAR_BLOCK - 1)), err);
}

static int emit_link(struct to_tar *t, const struct pf_tree_entry *e, const char *path, struct pf_err *err)
{
	const struct linked key = {.number = e->link};
	const struct linked *to = t->n ? bsearch(&key, t->v, t->n, sizeof(*t->v), by_number) : NULL;
	struct pf_tar_member m = {
		.type = '1', .path = path, .link = pf_layer_link_path(t->l), .sparse_size = -1};

	if (!to)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "/%s is a link to what has none", path);
	m.mode = to->mode;
	m.uid = to->uid;
	m.gid = to->gid;
	m.mtime = to->mtime;
	return emit(t, &m, err);
}

static int emit_entry(struct to_tar *t, const struct pf_tree_entry *e, struct pf_err *err)
{
	const char *path = pf_layer_path(t->l);
	struct pf_tar_member m = {.path = path,
		.mode = e->type == PF_TREE_SYMLINK ? 0777 : e->mode,
		.uid = e->uid,
		.gid = e->gid,
		.sparse_size = -1,
		.mtime = e->mtime,
		.xattrs = e->xattrs,
		.n_xattrs = e->n_xattrs};

	if (e->linked)
		remember(t, e);
	switch (e->type) {
	case PF_TREE_DIR:
		return emit_dir(t, &m, e, path, err);
	case PF_TREE_FILE:
		return emit_file(t, &m, e, err);
	case PF_TREE_WHITEOUT:
		return emit_whiteout(t, e, path, err);
	case PF_TREE_SYMLINK: {
		/* The target is not terminated where it lies. */
		PF_FREE char *target = pf_asprintf("%.*s", (int)e->target_len, e->target);
		m.type = '2';
		m.link = target;
		return emit(t, &m, err);
	}
	case PF_TREE_LINK:
		return emit_link(t, e, path, err);
	case PF_TREE_FIFO:
		m.type = '6';
		return emit(t, &m, err);
	case PF_TREE_END:
		break;
	}
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "/%s: a kind of entry that no tar has", path);
}

static int emit_layer(
	struct pf_ckpt_heavy *h, const struct pf_digest *layer, struct to_tar *t, struct pf_err *err)
{
	const struct pf_tree_entry *e;
	int r;

	if (!(t->l = pf_layer_open(h, layer, err)))
		return -1;
	while ((r = pf_layer_next(t->l, &e, NULL, err)) > 0)
		if ((r = emit_entry(t, e, err)) < 0)
			break;
	pf_layer_close(t->l);
	free(t->v);
	return r < 0 ? pf_wrap(err, "layer %.19s", layer->s) : 0;
}

int pf_layer_tar(
	struct pf_ckpt_heavy *h, const struct pf_digest *layer, struct pf_tarout *o, struct pf_err *err)
{
	struct to_tar t = {.o = o};

	return emit_layer(h, layer, &t, err);
}

int pf_layer_tar_toc(struct pf_ckpt_heavy *h, const struct pf_digest *layer, struct pf_tarout *o,
	cJSON **notes, struct pf_err *err)
{
	struct to_tar t = {.o = o, .toc = pf_toc_new(o)};
	int r = emit_layer(h, layer, &t, err) < 0 ? -1 : pf_toc_finish(t.toc, notes, err);

	pf_toc_free(t.toc);
	return r;
}

/* ---- whether a table can be had ---- */

/* What holes would be as zeros is bounded: they cost nothing here, but are written out by those who read it.
 */
#define MAX_HOLES ((int64_t)256 << 20)

struct check {
	int64_t holes, table;
};

static const char *check_entry(
	struct check *c, const struct pf_layer_reader *l, const struct pf_tree_entry *e)
{
	PF_FREE char *target = pf_asprintf("%.*s", (int)e->target_len, e->target ? e->target : "");
	const struct pf_tar_member m = {.path = pf_layer_path(l),
		.link = e->type == PF_TREE_LINK ? pf_layer_link_path(l) : target,
		.mtime = e->mtime,
		.size = e->type == PF_TREE_FILE ? e->size : 0,
		.xattrs = e->xattrs,
		.n_xattrs = e->n_xattrs};
	const char *why = NULL;

	if (!pf_toc_can_say(&m, &why))
		return why;
	if (e->type == PF_TREE_FILE && e->size - e->data_bytes > MAX_HOLES - c->holes)
		return "with it there are more than 256 MiB of holes";
	c->holes += e->type == PF_TREE_FILE ? e->size - e->data_bytes : 0;
	c->table += pf_toc_entry_size(&m);
	return c->table > PF_TOC_MAX_SIZE ? "with it the table is longer than readers take" : NULL;
}

int pf_layer_has_toc(struct pf_ckpt_heavy *h, const struct pf_digest *layer, char **why, struct pf_err *err)
{
	struct pf_layer_reader *l = pf_layer_open(h, layer, err);
	const struct pf_tree_entry *e;
	struct check c = {0};
	int r;

	*why = NULL;
	while ((r = l ? pf_layer_next(l, &e, NULL, err) : -1) > 0) {
		const char *because = check_entry(&c, l, e);
		if (!because)
			continue;
		PF_BUF struct pf_buf text = {0};
		pf_quote_name(&text, "/", pf_layer_path(l), strlen(pf_layer_path(l)));
		pf_buf_printf(&text, ": %s", because);
		*why = pf_take(text.data);
		break;
	}
	pf_layer_close(l);
	return r < 0 ? pf_wrap(err, "layer %.19s", layer->s) : r == 0;
}
