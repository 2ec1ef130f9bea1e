/* What differs between two stacks of layers, as a user would see the two trees. Content is compared, not
 * times. Light (no crypto, no compression). */
#ifndef PF_CHECKPOINT_DIFF_H
#define PF_CHECKPOINT_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct pf_diff_entry {
	char change;      /* 'A' added, 'C' changed, 'D' deleted */
	char old, new;    /* type on each side: 'f' file, 'd' directory, 'l' symlink, 'o' other, 0 nothing */
	const char *path; /* absolute */
	int64_t old_size, new_size; /* files: bytes; else 0 */
};

struct pf_diff_sum {
	int64_t added, changed, deleted;              /* names */
	int64_t added_bytes, deleted_bytes;           /* of files that came or went */
	int64_t changed_old_bytes, changed_new_bytes; /* of changed files, before and after */
};

/* One side: directories in overlay form, TOPMOST FIRST. Borrowed. */
struct pf_diff_side {
	const int *layers;
	size_t n;
};

/* Compare a (before) with b (after), sorted by path; fn may return -1 to stop. exclude: NULL-terminated clean
 * absolute paths whose content is left out, or NULL. Layers at the bottom that are the same directory on both
 * sides are not read. */
int pf_diff(const struct pf_diff_side *a, const struct pf_diff_side *b, const char *const *exclude,
	int (*fn)(void *ctx, const struct pf_diff_entry *e, struct pf_err *err), void *ctx,
	struct pf_diff_sum *sum, struct pf_err *err);

#endif
