/* The data of files on its way into chunks. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_CONTENT_H
#define PF_CHECKPOINT_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/map.h"
#include "checkpoint/packs.h"
#include "checkpoint/tree.h"

/* Memory that is freed all at once. */
struct pf_arena {
	struct pf_arena_block *blocks;
};
void *pf_arena_alloc(struct pf_arena *a, size_t size);
void *pf_arena_copy(struct pf_arena *a, const void *data, size_t size);
void pf_arena_done(struct pf_arena *a);

/* What a file holds and where that is stored. */
struct pf_content {
	int64_t size, data_bytes;
	uint8_t sum[32];           /* filesum.h */
	struct pf_extent *extents; /* see struct pf_tree_entry */
	struct pf_ref *refs;
	size_t n_extents, n_refs;
};

struct pf_content_writer;

/* All borrowed; what pf_content_read() gives lives in the arena. version: of the tree that the sums are for.
 */
struct pf_content_writer *pf_content_writer_new(
	const struct pf_packs *packs, struct pf_packs_writer *writer, struct pf_arena *arena, int version);
/* Before the packs' writer. NULL is fine. */
void pf_content_writer_free(struct pf_content_writer *w);

/* Where a file's data is read from. */
struct pf_content_in {
	int fd;       /* another file … */
	int64_t base; /* … from here on, a multiple of PF_HOLE_BLOCK */
	/* Or what these give, if there is a read. It fills buf, with zeros in holes. */
	int (*read)(void *ctx, void *buf, size_t len, int64_t off, struct pf_err *err);
	/* The next stretch that is no hole from offset `at` on; false: there is none. */
	bool (*next)(void *ctx, int64_t at, int64_t *from, int64_t *to);
	void *ctx;
};

/* Read size bytes and store them. holes: ask where there is nothing to be read. *out is complete only after
 * the next pf_content_flush(): it must stay where it is. *cut tells that the file was shorter than that; what
 * is in *out then is not to be used. */
int pf_content_read(struct pf_content_writer *w, const struct pf_content_in *in, int64_t size, bool holes,
	struct pf_content *out, bool *cut, struct pf_err *err);
int pf_content_flush(struct pf_content_writer *w, struct pf_err *err);

/* Cut a stream in memory into chunks and store them: their ids, malloc'ed. */
int pf_content_stream(struct pf_content_writer *w, const void *data, size_t len, uint8_t (**ids)[32],
	size_t *n, struct pf_err *err);

#endif
