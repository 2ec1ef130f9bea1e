/* Users by the box's own /etc/passwd and /etc/group, read as hostile text: no NSS, regular files only, at
 * most 10 MiB, never followed out of the root (CVE-2019-14271, CVE-2024-9676). */
#ifndef PF_SANDBOX_USER_H
#define PF_SANDBOX_USER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct pf_user {
	uint32_t uid, gid;
	uint32_t *groups; /* supplementary, malloc'ed; with the primary one first */
	size_t n_groups;
	char *home; /* malloc'ed; "/" when nothing is known */
	char *name; /* malloc'ed; NULL when the uid has no entry */
};

/* name or NULL: uid; group or NULL: gid when >= 0, else the user's own. */
int pf_user_lookup(int rootfd, const char *name, int64_t uid, const char *group, int64_t gid,
	struct pf_user *out, struct pf_err *err);
void pf_user_done(struct pf_user *u);

#endif
