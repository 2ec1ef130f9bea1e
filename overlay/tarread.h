/* Reading a tar stream, byte for byte: names are bytes, not text in some character set, and nothing is
 * guessed. */
#ifndef PF_OVERLAY_TARREAD_H
#define PF_OVERLAY_TARREAD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"

struct pf_tar_xattr {
	char *name;
	char *value;
	size_t len;
};

struct pf_tar_extent {
	int64_t offset, len;
};

/* One member. The type is tar's own letter, normalised: '0' file, '1' hard link, '2' symlink, '3' character
 * device, '4' block device, '5' directory, '6' FIFO. */
struct pf_tar_entry {
	char type;
	char *path; /* as in the archive; trailing slashes kept */
	char *link; /* '1' and '2' only, else NULL */
	uint32_t mode;
	int64_t uid, gid;
	int64_t size; /* logical, holes included */
	struct timespec mtime;
	int64_t dev_major, dev_minor;
	struct pf_tar_xattr *xattrs;
	size_t n_xattrs;
	struct pf_tar_extent *extents; /* where the data lies; NULL: one extent of size bytes */
	size_t n_extents;
};

/* Deliver up to len bytes; 0 at the end, -1 with err set. */
typedef ssize_t (*pf_tar_source)(void *arg, void *buf, size_t len, struct pf_err *err);

struct pf_tar;
/* The caller keeps arg alive; pf_tar_free() with NULL is fine. */
struct pf_tar *pf_tar_new(pf_tar_source source, void *arg);
void pf_tar_free(struct pf_tar *t);

/* The next member: 1 and *entry (valid until the next call), 0 after the end-of-archive mark, -1. The mark is
 * one block of zeros or more, or nothing but the end of the source behind a member's data. An archive that
 * stops anywhere else, or has no member and no mark, is PF_ERR_CORRUPT: it was cut short. What was not read
 * of the member before is skipped. */
int pf_tar_next(struct pf_tar *t, const struct pf_tar_entry **entry, struct pf_err *err);

/* Data of the current member: its next piece and the offset in the file where it belongs. Returns its length,
 * 0 at the end, -1. The pointer is valid until the next call. */
ssize_t pf_tar_data(struct pf_tar *t, const void **data, int64_t *offset, struct pf_err *err);

/* Read the source to its end (after the end mark), so that a hash over it is complete. */
int pf_tar_drain(struct pf_tar *t, struct pf_err *err);

#endif
