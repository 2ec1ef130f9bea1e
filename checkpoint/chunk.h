/* Content-defined chunking: where a stream is cut depends on the bytes near the cut, so that an insertion or
 * a deletion moves only the cuts beside it. Heavy half of the store (pinfold-store only). */
#ifndef PF_CHECKPOINT_CHUNK_H
#define PF_CHECKPOINT_CHUNK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Lengths in bytes. They are part of a store's format: other numbers give other chunks, which are right but
 * found nowhere. average is a power of two. */
struct pf_chunk_params {
	uint32_t min, average, max;
};

/* 16 KiB, 64 KiB, 256 KiB. */
extern const struct pf_chunk_params pf_chunk_default;

#define PF_CHUNK_MAX ((size_t)256 << 10) /* no chunk of any parameters, and no bundle, is longer */

/* Made once, read-only afterwards: any number of threads may use one. Holds secrets if it was made with a
 * key. */
struct pf_chunker {
	struct pf_chunk_params params;
	uint64_t early, late; /* masks before and after the average length */
	uint64_t gear[256];
};

/* key: NULL for the plain domain, whose table is the same everywhere; else 32 secret bytes, so that the
 * lengths of chunks do not tell which known file they were cut from. Errors: INVALID for parameters that are
 * not 256 <= min < average < max <= PF_CHUNK_MAX. */
int pf_chunker_init(struct pf_chunker *c, const struct pf_chunk_params *params, const uint8_t key[32],
	struct pf_err *err);

/* The length of the chunk that begins at data: 1..max, 0 only when len is 0. len must be at least max unless
 * the stream ends at data + len; then the answer depends on nothing but the bytes of the chunk. */
size_t pf_chunk_cut(const struct pf_chunker *c, const void *data, size_t len);

#endif
