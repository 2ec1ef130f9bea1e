/* The unpacked layers of sealed checkpoints: in clear for as long as a sandbox stands on them. Light. */
#ifndef PF_CHECKPOINT_UNSEALED_H
#define PF_CHECKPOINT_UNSEALED_H

#include <stdint.h>

#include "base/err.h"

/* Keep pf_ckpt_drop_unsealed() away until the returned fd is closed: from before a layer is looked for until
 * the sandbox's record names it. */
int pf_ckpt_hold_unpacked(const char *store, struct pf_err *err);

/* Remove every unpacked layer that the store has sealed only and that no sandbox's record names; *dropped
 * counts them. Does nothing while somebody holds them. Needs no key. */
int pf_ckpt_drop_unsealed(const char *store, int64_t *dropped, struct pf_err *err);

#endif
