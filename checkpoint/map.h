/* A layer's map: where the data of its files is stored. In the order of the tree, for each file that has
 * data, the pieces of chunks that make it up. Not part of the layer's identity: the same tree may have
 * another map after its data was stored again. Pure. */
#ifndef PF_CHECKPOINT_MAP_H
#define PF_CHECKPOINT_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "checkpoint/tree.h"

/* A piece of a chunk. */
struct pf_ref {
	uint8_t id[32];
	uint32_t off, len; /* bytes of the plaintext; off + len is at most PF_REF_MAX_CHUNK */
};
#define PF_REF_MAX_CHUNK ((uint32_t)1 << 20)

void pf_map_begin(struct pf_buf *out);
/* One file. */
void pf_map_put(struct pf_buf *out, const struct pf_ref *refs, size_t n);

struct pf_map_reader {
	struct pf_bytes in;
	struct pf_ref *refs; /* of the file that was read last */
	size_t n, cap;
	bool begun;
};
/* Start with {.in = {.source, .arg}}. */
void pf_map_reader_done(struct pf_map_reader *m);
/* The pieces of the next file, which has data_bytes bytes of data: m->refs, m->n. Their lengths must add up
 * to that, else PF_ERR_CORRUPT. */
int pf_map_next(struct pf_map_reader *m, int64_t data_bytes, struct pf_err *err);
/* Nothing may follow the last file. */
int pf_map_finish(struct pf_map_reader *m, struct pf_err *err);

#endif
