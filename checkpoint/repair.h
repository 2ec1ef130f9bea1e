/* What of a store can be written anew from the rest of it. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_REPAIR_H
#define PF_CHECKPOINT_REPAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/packs.h"

struct pf_ckpt_repaired {
	int64_t packs; /* indexes and footers of packs that were written */
	bool index;    /* index.json was */
	int64_t checkpoints,
		damaged; /* in it then, and how many of these have a manifest that cannot be read */
};

/* Indexes of packs from the packs, footers of packs from their indexes; and, where it is missing or cannot be
 * read, index.json from the manifests, in the order of their times, all marked as come from elsewhere, since
 * nothing else says which of them did. Sealed manifests need their key: without it nothing is written of
 * index.json. found (may be NULL) is told what cannot be mended. Waits for snapshots and restores. */
int pf_ckpt_repair(const char *store, pf_packs_found *found, void *ctx, struct pf_ckpt_repaired *out,
	struct pf_err *err);

#endif
