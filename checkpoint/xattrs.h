/* The extended attributes that belong to a sandbox's files. Light. */
#ifndef PF_CHECKPOINT_XATTRS_H
#define PF_CHECKPOINT_XATTRS_H

#include <stddef.h>

#include "base/err.h"

struct pf_xattr {
	char *name, *value;
	size_t len;
};
struct pf_xattrs {
	struct pf_xattr *v; /* sorted by name */
	size_t n;
};
void pf_xattrs_done(struct pf_xattrs *x);

/* Those of name below dirfd that checkpoints keep (pf_tree_xattr_ok); links are not followed. path is for
 * error texts. */
int pf_xattrs_read(int dirfd, const char *name, const char *path, struct pf_xattrs *out, struct pf_err *err);

/* Go through two lists together: fn gets each attribute that is not the same, with NULL where a side lacks
 * it. fn may be NULL. Returns how many differ. */
size_t pf_xattrs_compare(const struct pf_xattrs *a, const struct pf_xattrs *b,
	void (*fn)(void *ctx, const struct pf_xattr *a, const struct pf_xattr *b), void *ctx);

#endif
