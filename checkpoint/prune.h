/* Choosing which checkpoints go. Heavy, but for what is said to be light. */
#ifndef PF_CHECKPOINT_PRUNE_H
#define PF_CHECKPOINT_PRUNE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/gc.h"
#include "checkpoint/keep.h"
#include "checkpoint/sha256.h"

struct pf_ckpt_prune_entry {
	struct pf_digest digest;
	char *name, *sandbox_id;
	const char *kept; /* why it stays ("last", "daily", "recent", "in use", "damaged"); NULL: it goes */
};

struct pf_ckpt_prune {
	struct pf_ckpt_prune_entry *v; /* those looked at, oldest first */
	size_t n, removed;
	struct pf_ckpt_gc_stats gc;
};
void pf_ckpt_prune_done(struct pf_ckpt_prune *p);

/* Remove what the rules do not keep, and collect. Whatever the rules say, a checkpoint stays that a sandbox
 * was created from, or one that such a checkpoint descends from by `create --from`, or one that cannot be
 * read. With no rule (all -1) everything that is looked at goes. A store that is not there has nothing to
 * prune. */
int pf_ckpt_prune(const char *store, const struct pf_ckpt_prune_rules *rules, struct pf_ckpt_prune *out,
	struct pf_err *err);

/* Light (used.c). Remember that a checkpoint is used now. Failure is of no consequence but an earlier end of
 * it. */
void pf_ckpt_mark_used(const char *store, const struct pf_digest *digest);
/* When it was made or last used, whichever is later: seconds since 1970; 0 when it is not there. */
int64_t pf_ckpt_last_used(int storefd, const struct pf_digest *digest);

struct pf_ckpt_totals {
	int64_t checkpoints, damaged, layers, shared_layers; /* shared: of more than one checkpoint */
	int64_t logical;     /* bytes of the files of all checkpoints, each with all its layers */
	int64_t chunks;      /* what they were cut into, each stored once */
	int64_t chunk_bytes; /* of these, before compression */
	int64_t stored;      /* bytes of manifests and packs */
};
/* Sums over the store; zeros when there is none. */
int pf_ckpt_totals(const char *store, struct pf_ckpt_totals *t, struct pf_err *err);

#endif
