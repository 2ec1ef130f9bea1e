/* A range of 65536 host ids per sandbox, machine-wide: no two sandboxes that live share one, whatever their
 * state directories. Nothing on disk is ever owned by such an id (mounts are idmapped), so a range is free
 * for the next as soon as its sandbox is gone. */
#ifndef PF_SANDBOX_IDRANGE_H
#define PF_SANDBOX_IDRANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define PF_IDRANGE_SIZE 65536u

/* Take a range for owner: the path of the sandbox's runtime directory, which gc looks at. *base is its first
 * host id. */
int pf_idrange_take(const char *owner, uint32_t *base, struct pf_err *err);
/* Give it back; one that is not taken, or is somebody else's by now, is left alone. */
void pf_idrange_release(const char *owner, uint32_t base);
/* Release every range whose owner alive() denies. Returns how many. */
int pf_idrange_gc(bool (*alive)(const char *owner, void *arg), void *arg, struct pf_err *err);

#endif
