/* Making a checkpoint's layers usable. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_RESTORE_H
#define PF_CHECKPOINT_RESTORE_H

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

#endif
