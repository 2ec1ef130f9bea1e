/* Writing a directory tree as a layer: the same tree always gives the same bytes. Light enough (no library),
 * but only pinfold-store has a use for it. */
#ifndef PF_OVERLAY_PACK_H
#define PF_OVERLAY_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Takes the tar stream; -1 with err set stops. */
typedef int (*pf_pack_sink)(void *arg, const void *data, size_t len, struct pf_err *err);

struct pf_pack_opts {
	/* dirfd is a layer of the store: overlay's whiteouts and opaque marks become .wh. entries. Otherwise
	 * it is a plain root: device nodes are left out. */
	bool layer;
	/* dirfd is an overlay: a name that is listed and not there is a deletion in a directory that no layer
	 * below has, which overlayfs does not hide, and is left out. */
	bool overlay;
};

struct pf_pack_stats {
	int64_t entries, bytes;
	int64_t skipped; /* sockets, and device nodes */
};

/* Sorted by name, pax format, owners by number, times to the nanosecond. Hard links among the files are kept.
 * The tree must not change meanwhile: a file that does is an error. */
int pf_pack_tree(int dirfd, const struct pf_pack_opts *opts, pf_pack_sink sink, void *arg,
	struct pf_pack_stats *stats, struct pf_err *err);

#endif
