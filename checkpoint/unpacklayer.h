/* A stored layer as a directory in overlay form. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_UNPACKLAYER_H
#define PF_CHECKPOINT_UNPACKLAYER_H

#include <stdint.h>

#include "base/err.h"
#include "checkpoint/heavy.h"

struct pf_unpacked {
	int64_t entries, bytes; /* names; sizes of files */
};

/* Unpack into destfd, an empty directory. linksfd is another one on the same file system, empty, and used
 * meanwhile; its content is the caller's to remove. threads read and write files beside the caller; 0: as
 * many as there are cpus. Everything is compared: chunks with their ids, files with their hashes, the tree
 * with the layer's id; a layer is hostile input all the same, and what no writer of ours makes is CORRUPT.
 * Nothing is flushed. On failure the directory holds what the caller removes. */
int pf_ckpt_layer_unpack(struct pf_ckpt_heavy *h, const struct pf_digest *layer, int destfd, int linksfd,
	int threads, struct pf_unpacked *stats, struct pf_err *err);

#endif
