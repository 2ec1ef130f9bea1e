/* Making a checkpoint's layers usable. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_RESTORE_H
#define PF_CHECKPOINT_RESTORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "checkpoint/heavy.h"

struct pf_ckpt_prepare_stats {
	int64_t layers, unpacked; /* of the checkpoint; of those, unpacked now */
	int64_t entries, bytes;
	int64_t duration_us;
};

/* Unpack every layer of the checkpoint (a digest) that is not unpacked yet. Each is compared in every byte
 * before it gets its name; a checkpoint is hostile input and whatever our writer never makes is
 * PF_ERR_CORRUPT. image_digest: refuse a checkpoint of another base image; NULL leaves that to the caller. */
int pf_ckpt_prepare(const char *store, const char *digest, const char *image_digest,
	struct pf_ckpt_prepare_stats *stats, struct pf_err *err);

/* The same in an open store. */
int pf_ckpt_prepare_in(struct pf_ckpt_heavy *h, const char *digest, const char *image_digest,
	struct pf_ckpt_prepare_stats *stats, struct pf_err *err);

/* To read the layers rather than to stand on them: the directory of each, in c's order, in fds (c->n_layers),
 * which are the caller's. What is not unpacked yet comes into memory where the store is read-only, and where
 * the checkpoint is sealed and memory is good for it (memdir.h), or else it is prepared. On failure there are
 * none. */
int pf_ckpt_open_layers(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, int *fds, struct pf_err *err);

/* Whether nothing can be written to it where it is mounted. */
bool pf_ckpt_read_only(int storefd);

#endif
