/* An open checkpoint store with its chunks: what the readers and writers of layers work on. Heavy:
 * pinfold-store only. */
#ifndef PF_CHECKPOINT_HEAVY_H
#define PF_CHECKPOINT_HEAVY_H

#include <stdbool.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "checkpoint/store.h"

struct pf_packs;

struct pf_ckpt_heavy {
	int storefd;
	int packs_lock; /* flock on packs.lock: shared while chunks are read or added, exclusive for gc */
	struct pf_packs *packs;
};
#define PF_CKPT_HEAVY_NONE ((struct pf_ckpt_heavy){.storefd = -1, .packs_lock = -1})

/* Open STORE/checkpoints and take packs.lock. create as for pf_ckpt_store_open(). exclusive is for collecting
 * alone. Must not be called while the store's lock is held. */
int pf_ckpt_heavy_open(
	const char *store, bool create, bool exclusive, struct pf_ckpt_heavy *h, struct pf_err *err);
void pf_ckpt_heavy_done(struct pf_ckpt_heavy *h);
#define PF_CKPT_HEAVY PF_CLEANUP(pf_ckpt_heavy_done)

#endif
