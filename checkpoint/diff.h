/* What differs between two stacks of layers, as a user would see the two trees. Content, types, modes, owners
 * and extended attributes are compared, not times. Light (no crypto, no compression). */
#ifndef PF_CHECKPOINT_DIFF_H
#define PF_CHECKPOINT_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"

/* What is not the same in a 'C' entry. */
enum {
	PF_DIFF_TYPE = 1 << 0,    /* a file became a directory, or so: nothing else is compared then */
	PF_DIFF_CONTENT = 1 << 1, /* a file's bytes, a link's target, a device's number */
	PF_DIFF_MODE = 1 << 2,
	PF_DIFF_OWNER = 1 << 3,
	PF_DIFF_XATTRS = 1 << 4,
};

/* Where a side of an entry can be read: name below dirfd, which is borrowed. It may be live: open it with
 * O_NOFOLLOW and look again what it is. */
struct pf_diff_at {
	int dirfd;
	const char *name;
	struct stat st;
};

struct pf_diff_entry {
	char change;      /* 'A' added, 'C' changed, 'D' deleted */
	char old, new;    /* type on each side: 'f' file, 'd' directory, 'l' symlink, 'o' other, 0 nothing */
	unsigned what;    /* PF_DIFF_*; 0 for what was added or deleted */
	const char *path; /* absolute */
	const struct pf_diff_at *from, *to; /* NULL on a side where it is not */
	int64_t old_size, new_size;         /* files: bytes; else 0 */
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
