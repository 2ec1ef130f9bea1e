/* Reading every byte of checkpoints and comparing. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_VERIFY_H
#define PF_CHECKPOINT_VERIFY_H

#include <stdint.h>

#include "base/err.h"
#include "checkpoint/heavy.h"
#include "checkpoint/store.h"

struct pf_ckpt_verified;

/* What was found good before is not read again: layers, and files that are in several layers. Free with
 * pf_ckpt_verified_free(); NULL is fine. */
struct pf_ckpt_verified *pf_ckpt_verified_new(void);
void pf_ckpt_verified_free(struct pf_ckpt_verified *good);

/* All layers of a loaded checkpoint: documents, trees, maps, and every file's data against its hash. CORRUPT
 * says what is wrong first. */
int pf_ckpt_verify(
	struct pf_ckpt_heavy *h, const struct pf_ckpt *c, struct pf_ckpt_verified *good, struct pf_err *err);

#endif
