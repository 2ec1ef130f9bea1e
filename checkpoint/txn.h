/* Adding to the store: layers, then the checkpoint that is made of them, all or nothing. Heavy: pinfold-store
 * only. */
#ifndef PF_CHECKPOINT_TXN_H
#define PF_CHECKPOINT_TXN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/heavy.h"
#include "checkpoint/live.h"
#include "checkpoint/sha256.h"
#include "checkpoint/walk.h"

struct pf_txn;

struct pf_txn_opts {
	int level, threads; /* zstd; 0: 3, as many as there are cpus */
	bool sealed;        /* into the sealed domain of h */
	bool foreign;       /* made by somebody else, who is not known */
};

/* h is borrowed, and open (not exclusive). */
int pf_txn_begin(
	struct pf_ckpt_heavy *h, const struct pf_txn_opts *o, struct pf_txn **out, struct pf_err *err);

/* A directory in overlay form. */
struct pf_txn_source {
	int rootfd;                       /* borrowed */
	const char *const *exclude;       /* see struct pf_walk_opts */
	const char *const *exclude_empty; /* likewise */
	bool userxattr;
	const struct pf_live *live; /* NULL: nobody writes to it */
	/* The index of unchanged files: its name in files/, NULL: none is used or made. */
	const char *files_index;
	bool no_sync; /* no process is left that may have any of its files mapped */
	/* The id that it should have, or NULL: if it is that of a tree of an older version, it is stored as
	 * such. */
	const struct pf_digest *expected;
	int tree_version; /* 0: the newest */
};

struct pf_txn_layer {
	struct pf_digest id;
	int64_t entries;
	int64_t tree_bytes, map_bytes;
	bool was_there; /* the store had this layer already */
	struct pf_walk_stats walked;
	struct pf_live_stats live;
	int64_t dropped_xattrs;  /* labels of this host (security.* but capability), trusted.*, names with '='
				  */
	int64_t unchanged;       /* files that were not read */
	int64_t unchanged_bytes; /* their sizes */
};

/* Store a directory as a layer. May be called several times. */
int pf_txn_layer(
	struct pf_txn *t, const struct pf_txn_source *s, struct pf_txn_layer *out, struct pf_err *err);

struct pf_txn_written {
	int64_t chunks_new, chunks_reused;
	int64_t bytes_new; /* what the store grows by so far, compressed: packs and layers' documents */
};
/* All layers are there: make their data durable. Before pf_txn_commit(). */
int pf_txn_finish(struct pf_txn *t, struct pf_txn_written *w, struct pf_err *err);

/* Give the checkpoint of this manifest (JSON text, its layers all in the store or in this transaction) its
 * name and make everything durable and visible: packs, layers, manifest, index, in that order. *digest is the
 * checkpoint's. Takes the store's lock. EXISTS when the name is taken or the checkpoint is there already. On
 * failure the store shows nothing of it. Call pf_txn_end() in either case. */
int pf_txn_commit(struct pf_txn *t, const char *manifest, const char *name, const char *sandbox_id,
	const char *created, struct pf_digest *digest, struct pf_err *err);
/* The same when the caller holds the store's lock already (to choose the name under it). */
int pf_txn_commit_locked(struct pf_txn *t, const char *manifest, const char *name, const char *sandbox_id,
	const char *created, struct pf_digest *digest, struct pf_err *err);

/* The transaction's own directory below tmp/, for the caller's temporary files; it goes with the transaction.
 */
int pf_txn_tmp(const struct pf_txn *t);

/* Make the unpacked layer in directory `name` of pf_txn_tmp() (it holds "fs") the one that overlays use, if
 * there is none yet, and the transaction is not sealed. Only for a layer whose id was computed from that very
 * directory. */
int pf_txn_keep_unpacked(
	struct pf_txn *t, const char *name, const struct pf_digest *layer, struct pf_err *err);

/* Free; what was not committed is removed. NULL is fine. */
void pf_txn_end(struct pf_txn *t);

#endif
