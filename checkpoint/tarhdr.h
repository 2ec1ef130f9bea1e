/* The header blocks of one tar member in POSIX pax form, nothing that an exact reader has to guess. Pure:
 * values in, bytes out. */
#ifndef PF_CHECKPOINT_TARHDR_H
#define PF_CHECKPOINT_TARHDR_H

#include <stdint.h>
#include <time.h>

#include "base/str.h"

#define PF_TAR_BLOCK 512

struct pf_tar_xa {
	char *name; /* without '=' */
	char *value;
	size_t len;
};

/* One member. size is what follows the header in the archive; for a sparse file (sparse_size >= 0) that is
 * its map and its data, and sparse_size is the file's own size. */
struct pf_tar_member {
	char type;        /* '0' file, '1' hard link, '2' symlink, '5' directory, '6' FIFO */
	const char *path; /* no leading slash; directories end with one */
	const char *link; /* '1': path of the other name, '2': the target; else NULL */
	unsigned mode;    /* permission bits with setuid, setgid, sticky */
	uint32_t uid, gid;
	int64_t size;
	int64_t sparse_size; /* -1: not sparse */
	struct timespec mtime;
	const struct pf_tar_xa *xattrs; /* in the order to be written */
	size_t n_xattrs;
};

/* Append the header (and the pax header before it, when one is needed) to out. */
void pf_tar_header(struct pf_buf *out, const struct pf_tar_member *m);

#endif
