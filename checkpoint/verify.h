/* Reading every byte of checkpoints and comparing. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_VERIFY_H
#define PF_CHECKPOINT_VERIFY_H

#include <stdint.h>

#include "base/err.h"
#include "checkpoint/store.h"

/* Check one blob file: its size and digest, and that it decompresses to diff_id (NULL: no look inside). fd is
 * read from its current position to the end. With diff_id, tar_fd >= 0 gets the decompressed bytes and
 * *tar_size (may be NULL) their number. PF_ERR_CORRUPT says what differs. */
int pf_ckpt_check_blob(int fd, const struct pf_digest *digest, int64_t size, const struct pf_digest *diff_id,
	int tar_fd, int64_t *tar_size, struct pf_err *err);

/* All layers of a loaded checkpoint. `good` remembers layers that were found good before (shared ones are
 * read once); start with a zeroed one, free with pf_ckpt_verified_done(). */
struct pf_ckpt_verified {
	struct pf_digest *v;
	size_t n;
};
int pf_ckpt_verify(int storefd, const struct pf_ckpt *c, struct pf_ckpt_verified *good, struct pf_err *err);
void pf_ckpt_verified_done(struct pf_ckpt_verified *good);

#endif
