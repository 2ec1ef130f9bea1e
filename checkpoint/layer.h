/* A stored layer, read from its beginning to its end: the tree, the map and the data together. Heavy:
 * pinfold-store only. */
#ifndef PF_CHECKPOINT_LAYER_H
#define PF_CHECKPOINT_LAYER_H

#include <cjson/cJSON.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "checkpoint/heavy.h"
#include "checkpoint/map.h"
#include "checkpoint/sha256.h"
#include "checkpoint/tree.h"

#define PF_LAYER_MAX_DOC ((size_t)64 << 20) /* bytes */

/* The document layers/HEX: which chunks hold the tree and the map, and (a cache) what was published of it. */
struct pf_layer_doc {
	uint8_t (*tree)[32], (*map)[32]; /* chunk ids, in order */
	size_t n_tree, n_map;
	int64_t tree_bytes, map_bytes;
	bool sealed; /* how it was stored, and where its chunks are */
	/* The blob it was exported or pushed as, with the form it had ("zstd", "zstd:chunked", "tar") and,
	 * NULL for none, the annotations that belong to its descriptor. form NULL: none. */
	struct pf_layer_published {
		char *form;
		struct pf_digest digest, diff_id;
		int64_t size;
		cJSON *notes;
	} * published;
	size_t n_published;
};
void pf_layer_doc_done(struct pf_layer_doc *d);
/* NOT_FOUND when there is none, CORRUPT when it is no such document. */
int pf_layer_doc_load(
	struct pf_ckpt_heavy *h, const struct pf_digest *layer, struct pf_layer_doc *d, struct pf_err *err);
/* The same of one domain alone. */
int pf_layer_doc_load_as(struct pf_ckpt_heavy *h, const struct pf_digest *layer, bool sealed,
	struct pf_layer_doc *d, struct pf_err *err);
/* The document as text, malloc'ed. */
char *pf_layer_doc_text(const struct pf_digest *layer, const struct pf_layer_doc *d);
/* Remember a published blob in the document of a layer that is in the store; a blob of the same form is
 * replaced. Everything is borrowed. The store's lock must not be held. */
int pf_layer_doc_publish(struct pf_ckpt_heavy *h, const struct pf_digest *layer,
	const struct pf_layer_published *blob, struct pf_err *err);

struct pf_layer_reader;

/* h is borrowed and open for reading (its packs.lock is held shared). */
struct pf_layer_reader *pf_layer_open(
	struct pf_ckpt_heavy *h, const struct pf_digest *layer, struct pf_err *err);
/* The same of one domain alone. */
struct pf_layer_reader *pf_layer_open_as(
	struct pf_ckpt_heavy *h, const struct pf_digest *layer, bool sealed, struct pf_err *err);
/* NULL is fine. */
void pf_layer_close(struct pf_layer_reader *l);

/* The next entry: 1, 0 at the end, -1. At the end the tree has been compared with the layer's id; what was
 * given before that is not to be believed yet. */
int pf_layer_next(
	struct pf_layer_reader *l, const struct pf_tree_entry **e, size_t *depth, struct pf_err *err);
/* Of the entry that was given last: see pf_tree_path() and its like. */
const char *pf_layer_path(const struct pf_layer_reader *l);
const char *pf_layer_link_path(const struct pf_layer_reader *l);
uint64_t pf_layer_number(const struct pf_layer_reader *l);
int pf_layer_tree_version(const struct pf_layer_reader *l);
/* Where its data is stored; valid until the next pf_layer_next(). */
const struct pf_ref *pf_layer_refs(const struct pf_layer_reader *l, size_t *n);

/* The domain its data is in. */
struct pf_packs *pf_layer_packs(const struct pf_layer_reader *l);
const struct pf_layer_doc *pf_layer_document(const struct pf_layer_reader *l);

/* Data of the entry that was given last: its next piece and the offset in the file where it belongs (never
 * across a hole). Returns its length, 0 at the end of the file, when its hash has been compared, -1. Valid
 * until the next call. */
ssize_t pf_layer_data(struct pf_layer_reader *l, const void **data, int64_t *offset, struct pf_err *err);

#endif
