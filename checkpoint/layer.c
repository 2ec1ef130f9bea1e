/* Theory of operation: three streams side by side. The tree's chunks are hashed while they are read and give
 * the entries; the map gives where each file's data is; the data is read when it is asked for. */
#include "checkpoint/layer.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/progress.h"
#include "base/str.h"
#include "checkpoint/filesum.h"
#include "checkpoint/packs.h"

/* A stream of chunks. */
struct stream {
	struct pf_packs *packs;
	const uint8_t (*ids)[32];
	size_t n, next;
	uint32_t at, len; /* in chunk next - 1 */
	EVP_MD_CTX *md;   /* NULL: not hashed */
};

struct pf_layer_reader {
	struct pf_layer_doc doc;
	struct pf_packs *packs;
	struct pf_digest id;
	struct stream tree, map;
	struct pf_tree_reader *entries;
	struct pf_map_reader refs;
	const struct pf_tree_entry *e;
	/* Data of e. */
	struct pf_filesum *sum;
	uint8_t *buf;
	size_t ref, extent;
	uint32_t in_ref;
	int64_t in_extent, done;
};

#define PIECE ((size_t)256 << 10)

static ssize_t read_stream(void *arg, void *buf, size_t len, struct pf_err *err)
{
	struct stream *s = arg;
	struct pf_chunk_id id;

	if (s->at == s->len) {
		if (s->next == s->n)
			return 0;
		memcpy(id.b, s->ids[s->next], sizeof(id.b));
		if (!pf_packs_has(s->packs, &id, &s->len))
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "a chunk of it is missing");
		s->at = 0;
		s->next++;
	}
	memcpy(id.b, s->ids[s->next - 1], sizeof(id.b));
	if (len > s->len - s->at)
		len = s->len - s->at;
	if (pf_packs_read(s->packs, &id, s->at, buf, len, err) < 0)
		return -1;
	s->at += (uint32_t)len;
	if (s->md && EVP_DigestUpdate(s->md, buf, len) != 1)
		return pf_fail(err, EIO, "SHA-256");
	return (ssize_t)len;
}

void pf_layer_close(struct pf_layer_reader *l)
{
	if (!l)
		return;
	pf_tree_reader_free(l->entries);
	pf_map_reader_done(&l->refs);
	EVP_MD_CTX_free(l->tree.md);
	pf_filesum_free(l->sum);
	free(l->buf);
	pf_layer_doc_done(&l->doc);
	free(l);
}

static struct pf_layer_reader *open_doc(
	struct pf_ckpt_heavy *h, struct pf_layer_reader *l, struct pf_err *err)
{
	if (!(l->packs = pf_ckpt_heavy_packs(h, l->doc.sealed, err))) {
		pf_layer_close(l);
		return NULL;
	}
	l->tree = (struct stream){
		.packs = l->packs, .ids = (const uint8_t(*)[32])l->doc.tree, .n = l->doc.n_tree};
	l->map = (struct stream){
		.packs = l->packs, .ids = (const uint8_t(*)[32])l->doc.map, .n = l->doc.n_map};
	l->tree.md = EVP_MD_CTX_new();
	l->sum = pf_filesum_new();
	l->buf = malloc(PIECE);
	if (!l->tree.md || !l->buf || EVP_DigestInit_ex(l->tree.md, EVP_sha256(), NULL) != 1)
		abort();
	l->entries = pf_tree_reader_new(read_stream, &l->tree);
	l->refs.in.source = read_stream;
	l->refs.in.arg = &l->map;
	return l;
}

struct pf_layer_reader *pf_layer_open(
	struct pf_ckpt_heavy *h, const struct pf_digest *layer, struct pf_err *err)
{
	struct pf_layer_reader *l = pf_calloc(1, sizeof(*l));

	l->id = *layer;
	if (pf_layer_doc_load(h, layer, &l->doc, err) == 0)
		return open_doc(h, l, err);
	pf_layer_close(l);
	return NULL;
}

struct pf_layer_reader *pf_layer_open_as(
	struct pf_ckpt_heavy *h, const struct pf_digest *layer, bool sealed, struct pf_err *err)
{
	struct pf_layer_reader *l = pf_calloc(1, sizeof(*l));

	l->id = *layer;
	if (pf_layer_doc_load_as(h, layer, sealed, &l->doc, err) == 0)
		return open_doc(h, l, err);
	pf_layer_close(l);
	return NULL;
}

/* The tree has been read to its end: it must be this layer's. */
static int compare_id(struct pf_layer_reader *l, struct pf_err *err)
{
	uint8_t raw[32];
	struct pf_digest got;

	if (EVP_DigestFinal_ex(l->tree.md, raw, NULL) != 1)
		return pf_fail(err, EIO, "SHA-256");
	pf_digest_from_raw(raw, &got);
	if (strcmp(got.s, l->id.s) != 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "its tree is that of layer %.19s", got.s);
	return pf_map_finish(&l->refs, err);
}

static int next(struct pf_layer_reader *l, size_t *depth, struct pf_err *err)
{
	int r = pf_tree_next(l->entries, &l->e, depth, err);

	l->refs.n = 0;
	l->ref = l->extent = 0;
	l->in_ref = 0;
	l->in_extent = l->done = 0;
	if (r == 0)
		return compare_id(l, err);
	if (r > 0 && l->e->type == PF_TREE_FILE && l->e->n_extents > 0) {
		if (pf_map_next(&l->refs, l->e->data_bytes, err) < 0)
			return -1;
		pf_filesum_begin(l->sum, pf_tree_version(l->entries));
	}
	return r;
}

int pf_layer_next(
	struct pf_layer_reader *l, const struct pf_tree_entry **e, size_t *depth, struct pf_err *err)
{
	int r = next(l, depth, err);

	*e = l->e;
	return r < 0 ? pf_wrap(err, "layer %.19s", l->id.s) : r;
}

const char *pf_layer_path(const struct pf_layer_reader *l)
{
	return pf_tree_path(l->entries);
}

const char *pf_layer_link_path(const struct pf_layer_reader *l)
{
	return pf_tree_link_path(l->entries);
}

uint64_t pf_layer_number(const struct pf_layer_reader *l)
{
	return pf_tree_number(l->entries);
}

int pf_layer_tree_version(const struct pf_layer_reader *l)
{
	return pf_tree_version(l->entries);
}

const struct pf_ref *pf_layer_refs(const struct pf_layer_reader *l, size_t *n)
{
	*n = l->refs.n;
	return l->refs.refs;
}

struct pf_packs *pf_layer_packs(const struct pf_layer_reader *l)
{
	return l->packs;
}

const struct pf_layer_doc *pf_layer_document(const struct pf_layer_reader *l)
{
	return &l->doc;
}

static int compare_data(struct pf_layer_reader *l, struct pf_err *err)
{
	uint8_t raw[32];

	if (l->done == 0)
		return 0;
	l->done = 0;
	pf_filesum_end(l->sum, raw);
	return memcmp(raw, l->e->sum, sizeof(raw)) == 0
		       ? 0
		       : pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the data of /%s is not what the tree says",
				 pf_layer_path(l));
}

static ssize_t read_data(struct pf_layer_reader *l, int64_t *offset, struct pf_err *err)
{
	if (l->ref == l->refs.n)
		return compare_data(l, err);
	const struct pf_ref *ref = &l->refs.refs[l->ref];
	const struct pf_extent *x = &l->e->extents[l->extent];
	struct pf_chunk_id id;
	size_t len = ref->len - l->in_ref;
	if ((int64_t)len > x->len - l->in_extent)
		len = (size_t)(x->len - l->in_extent);
	if (len > PIECE)
		len = PIECE;
	memcpy(id.b, ref->id, sizeof(id.b));
	if (pf_packs_read(l->packs, &id, ref->off + l->in_ref, l->buf, len, err) < 0)
		return -1;
	pf_filesum_add(l->sum, l->buf, len);
	*offset = x->off + l->in_extent;
	pf_progress_done((int64_t)len);
	l->done += (int64_t)len;
	l->in_ref += (uint32_t)len;
	l->in_extent += (int64_t)len;
	if (l->in_ref == ref->len) {
		l->ref++;
		l->in_ref = 0;
	}
	if (l->in_extent == x->len) {
		l->extent++;
		l->in_extent = 0;
	}
	return (ssize_t)len;
}

ssize_t pf_layer_data(struct pf_layer_reader *l, const void **data, int64_t *offset, struct pf_err *err)
{
	ssize_t n = read_data(l, offset, err);

	*data = l->buf;
	return n < 0 ? pf_wrap(err, "layer %.19s", l->id.s) : n;
}
