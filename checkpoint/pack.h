/* From a directory in overlay form to the bytes of an OCI layer. */
#ifndef PF_CHECKPOINT_PACK_H
#define PF_CHECKPOINT_PACK_H

#include <stdint.h>

#include "base/err.h"
#include "checkpoint/tarout.h"
#include "checkpoint/walk.h"

#define PF_PACK_MAX_ID 65535 /* ids a box has; restoring refuses others */

struct pf_pack_stats {
	int64_t dropped_xattrs; /* labels of this host (security.* but capability), trusted.*, names with '='
				 */
};

/* Append the member(s) for one node, as pf_walk hands it over, and set its tar_start and tar_end. live: a
 * file that is gone or changes under the read makes the node unstable (and the archive stays well-formed);
 * otherwise that is PF_ERR_STATE. */
int pf_pack_node(struct pf_tarout *o, struct pf_node *n, int dirfd, int selffd, const char *path, bool live,
	struct pf_pack_stats *stats, struct pf_err *err);

/* Walk rootfd and write it as one layer into outfd (empty, borrowed). opts->visit and ctx are set by this
 * function. tree may be NULL; else the caller frees it. level 0..19, threads >= 1. */
int pf_pack_layer(int rootfd, const struct pf_walk_opts *opts, int outfd, int level, int threads,
	struct pf_tree **tree, struct pf_tarout_result *res, struct pf_walk_stats *walked,
	struct pf_pack_stats *stats, struct pf_err *err);

#endif
