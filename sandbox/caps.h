/* Capabilities as 64-bit masks, bit n being capability n. */
#ifndef PF_SANDBOX_CAPS_H
#define PF_SANDBOX_CAPS_H

#include <linux/capability.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define PF_CAP_BIT(cap) (UINT64_C(1) << (cap))

/* What root of a session keeps: what package managers need to own, move and hand over files, and to serve.
 * Valid in the session's own user namespace alone. */
#define PF_CAPS_SESSION_ROOT                                                               \
	(PF_CAP_BIT(CAP_CHOWN) | PF_CAP_BIT(CAP_DAC_OVERRIDE) | PF_CAP_BIT(CAP_FOWNER) |   \
		PF_CAP_BIT(CAP_FSETID) | PF_CAP_BIT(CAP_SETUID) | PF_CAP_BIT(CAP_SETGID) | \
		PF_CAP_BIT(CAP_SETFCAP) | PF_CAP_BIT(CAP_KILL) | PF_CAP_BIT(CAP_NET_BIND_SERVICE))

struct pf_caps {
	uint64_t bounding, effective, permitted, inheritable, ambient;
};

/* "CAP_CHOWN" or "chown", in any case, NULL-terminated list (NULL: none). An unknown name is PF_ERR_INVALID
 * and names the nearest. */
int pf_caps_parse(const char *const *names, uint64_t *mask, struct pf_err *err);
/* "CAP_CHOWN", or NULL for a number without a name. */
const char *pf_cap_name(unsigned cap);
/* "CAP_CHOWN, CAP_KILL", appended. */
void pf_caps_format(uint64_t mask, struct pf_buf *out);

/* The capabilities this kernel has. */
uint64_t pf_caps_kernel(void);
/* Those that this process holds and may hand on. */
uint64_t pf_caps_held(void);

/* Whether caps can be applied by this process as it is, without a new user namespace: the sets agree with
 * each other (effective and ambient within permitted, ambient within inheritable) and permitted is within
 * what we hold. The error names what is missing. Names that the kernel does not have are let pass; they are
 * never granted. */
int pf_caps_check(const struct pf_caps *caps, struct pf_err *err);

/* Drop from the bounding set all that is not in mask; before the change of user id, while CAP_SETPCAP is
 * there. Nothing is called when nothing has to go. 0, or -1 with errno. Async-signal-safe. */
int pf_caps_apply_bounding(uint64_t mask);
/* Set effective, permitted, inheritable and ambient; after the change of user id, which must have been made
 * with PR_SET_KEEPCAPS when it goes from root to another user that keeps any. 0, or -1 with errno (EPERM: not
 * ours to give). Async-signal-safe. */
int pf_caps_apply(const struct pf_caps *caps);

#endif
