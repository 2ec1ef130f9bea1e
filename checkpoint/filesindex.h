/* Which files of a sandbox need not be read at the next snapshot: what they held at the last one, by inode
 * and change time. A cache: lost, damaged or stale it costs time and nothing else. Heavy: pinfold-store only.
 */
#ifndef PF_CHECKPOINT_FILESINDEX_H
#define PF_CHECKPOINT_FILESINDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "checkpoint/content.h"
#include "checkpoint/heavy.h"
#include "checkpoint/nodeio.h"
#include "checkpoint/walk.h"

struct pf_files_index;

/* The index of this name that was made of the directory rootfd, or NULL. sealed: of the sealed domain, whose
 * chunks it names. */
struct pf_files_index *pf_files_index_load(
	struct pf_ckpt_heavy *h, const char *name, int rootfd, bool sealed);
/* NULL is fine. */
void pf_files_index_free(struct pf_files_index *x);

struct pf_files_known {
	struct pf_content content;
	const struct pf_tar_xa *xattrs;
	size_t n_xattrs;
};
/* What the file is known to hold, or NULL. Lives as long as the index. Whether its chunks are still there is
 * for the caller to see. */
const struct pf_files_known *pf_files_index_find(const struct pf_files_index *x, const struct pf_node *n);

/* Making one: begin, add files, save (atomically, replacing the one of this name; not durable). */
void pf_files_index_begin(struct pf_buf *b, int rootfd);
void pf_files_index_add(struct pf_buf *b, const struct pf_node *n, const struct pf_content *c,
	const struct pf_tar_xa *xattrs, size_t n_xattrs);
int pf_files_index_save(
	struct pf_ckpt_heavy *h, const char *name, struct pf_buf *b, bool sealed, struct pf_err *err);

#endif
