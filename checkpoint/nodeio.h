/* What a walk's name holds: the facts beyond its stat. */
#ifndef PF_CHECKPOINT_NODEIO_H
#define PF_CHECKPOINT_NODEIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/tarhdr.h"
#include "checkpoint/walk.h"

/* Those that a checkpoint carries, sorted by name. */
struct pf_node_xattrs {
	struct pf_tar_xa *v;
	size_t n;
};
void pf_node_xattrs_done(struct pf_node_xattrs *x);

/* The attributes of a name below dirfd, by its descriptor fd unless that is -1. Others are counted in
 * *dropped. live: a name that is gone has none. */
int pf_node_xattrs(const struct pf_node *n, int dirfd, int fd, const char *path, bool live,
	struct pf_node_xattrs *out, int64_t *dropped, struct pf_err *err);

/* Open the file that the walk saw and take its stat over into n. 1 when it is not that file any more, or
 * (not live) was written to. */
int pf_node_open(struct pf_node *n, int dirfd, const char *path, bool live, int *fd, struct pf_err *err);

/* Target of a symbolic link. 1 when it is gone (live). */
int pf_node_target(
	struct pf_node *n, int dirfd, const char *path, bool live, char target[4097], struct pf_err *err);

#endif
