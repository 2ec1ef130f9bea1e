/* Removing checkpoints and what nothing refers to any more. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_GC_H
#define PF_CHECKPOINT_GC_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/heavy.h"

struct pf_ckpt_gc_stats {
	int64_t manifests, layers, chunks, unpacked, temps; /* removed */
	int64_t bytes;      /* that manifests, layers' documents and packs have become smaller by */
	bool kept_all;      /* something could not be read, so nothing that may belong to it was removed */
	char because[1000]; /* what that was, or what else kept it from freeing all; "" if nothing */
};

/* Remove abandoned temporary directories, and manifests, layers, chunks and unpacked layers that neither a
 * checkpoint of the index nor a sandbox (field "checkpoint" of STORE/sandboxes/ID/sandbox.json) needs. Waits
 * for snapshots and restores that are under way. A store that is not there has nothing to collect. */
int pf_ckpt_gc(const char *store, struct pf_ckpt_gc_stats *stats, struct pf_err *err);
/* The same on an open store (exclusive), whose lock the caller holds too. Its handles of packs are stale
 * after that. all: look at the packs even if no layer was removed. */
int pf_ckpt_gc_locked(struct pf_ckpt_heavy *h, bool all, struct pf_ckpt_gc_stats *stats, struct pf_err *err);

/* pf_ckpt_index_write() of an index with fewer entries, also where the disk is full: what can be made again
 * goes for it. Both locks are held (packs.lock exclusive). */
int pf_ckpt_index_shrink(int storefd, const cJSON *index, struct pf_err *err);

/* Call fn for every sandbox that was created from a checkpoint, with that one's digest. */
int pf_ckpt_each_user(int storefd,
	int (*fn)(void *ctx, const char *sandbox, const char *digest, struct pf_err *err), void *ctx,
	struct pf_err *err);

/* Remove a checkpoint (spec as for pf_ckpt_resolve, not "latest") and collect. A checkpoint that a sandbox
 * was created from is refused (PF_ERR_STATE naming the sandbox) unless force; its layers then stay on disk
 * until that sandbox is gone. A damaged checkpoint can be removed. */
int pf_ckpt_remove(
	const char *store, const char *spec, bool force, struct pf_ckpt_gc_stats *stats, struct pf_err *err);

#endif
