/* From a directory in overlay form to a layer's tree and map, its data on the way to the packs. Heavy:
 * pinfold-store only. */
#ifndef PF_CHECKPOINT_TAKE_H
#define PF_CHECKPOINT_TAKE_H

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "checkpoint/content.h"
#include "checkpoint/filesindex.h"
#include "checkpoint/txn.h"

struct pf_take {
	/* Given, borrowed. */
	const struct pf_txn_source *src;
	struct pf_packs *packs;
	struct pf_content_writer *writer;
	struct pf_arena *arena;             /* the writer's */
	const struct pf_files_index *known; /* NULL: every file is read */
	int tmp_fd;                         /* for a spool */
	int version;                        /* of the tree: PF_TREE_VERSION, or 2; the writer's, too */
	/* Results: the caller frees the buffers. */
	struct pf_buf tree, map,
		index; /* index: see pf_files_index_save(); empty when nothing proves files */
	struct pf_txn_layer *out;
};

/* Refuse more bytes of files, holes included, than restoring would take. So many as were walked count: asked
 * before each file is read, so that no sparse one keeps the machine busy for days only to be refused. */
int pf_take_check_bytes(const struct pf_txn_layer *l, struct pf_err *err);

/* All data is in the writer and has its ids (it has been flushed) when this returns. */
int pf_take_tree(struct pf_take *k, struct pf_err *err);

#endif
