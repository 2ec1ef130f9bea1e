/* Packs: where chunks lie. STORE/checkpoints/packs/ holds for each pack, named by 32 random hex digits,
 *
 *   NAME.pack   frames (one chunk each, zstd or as it is) one after the other, then a copy of the index
 *   NAME.idx    the index: chunk id -> place
 *   NAME.key    sealed packs alone: the pack's data key, wrapped (seal.h)
 *
 * A handle shows the packs of one domain: the plain one, whose ids are SHA-256 of the chunk, or the sealed
 * one of a store, whose ids are HMAC-SHA-256 under the store's secret. They never share a chunk.
 *
 * Locks are the caller's. pf_packs_lock() SHARED: from the look whether a chunk is there until what refers to
 * it is committed, and while chunks are read. EXCLUSIVE: from marking what is live to the end of
 * pf_packs_sweep and for pf_packs_repair. A handle shows what was published before it was opened; open it
 * under the lock.
 *
 * Heavy: pinfold-store only (but pf_packs_lock and struct pf_chunk_id, which need nothing). */
#ifndef PF_CHECKPOINT_PACKS_H
#define PF_CHECKPOINT_PACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "checkpoint/chunk.h"
#include "checkpoint/sha256_lanes.h"

struct pf_seal; /* seal.h */

struct pf_chunk_id {
	uint8_t b[32];
};

/* flock on STORE/checkpoints/packs.lock; waits. Returns the fd that holds it. */
int pf_packs_lock(int storefd, bool exclusive, struct pf_err *err);

/* ---- reading ------------------------------------------------------------------------------------------ */

struct pf_packs;
void pf_packs_free(struct pf_packs *p);
static inline void pf_packs_cleanup(struct pf_packs **p)
{
	pf_packs_free(*p);
}
#define PF_PACKS PF_CLEANUP(pf_packs_cleanup) /* struct pf_packs *p = NULL */

/* Open the packs of a store (a directory fd of STORE/checkpoints, borrowed until pf_packs_free). packs/ need
 * not exist. seal NULL: the plain domain; else the sealed one (borrowed as well). An index that is missing or
 * damaged is read from its pack instead; a pack of which neither is readable is passed over and counted: its
 * chunks are not there. Memory: about 64 bytes a chunk. */
int pf_packs_open(int storefd, const struct pf_seal *seal, struct pf_packs **out, struct pf_err *err);

/* How many packs were passed over because neither index nor footer could be read. */
size_t pf_packs_unreadable(const struct pf_packs *p);

/* The id of these bytes in this domain. Thread-safe. */
void pf_packs_id(const struct pf_packs *p, const void *data, size_t len, struct pf_chunk_id *id);
/* The ids of many, which is faster than one by one. Each job's out is where its id goes. Thread-safe. */
void pf_packs_ids(const struct pf_packs *p, const struct pf_hash_job *jobs, size_t n);

/* Whether ids are keyed here; else a chunk's id is its SHA-256. */
bool pf_packs_sealed(const struct pf_packs *p);

/* The domain's chunker (standard parameters). */
const struct pf_chunker *pf_packs_chunker(const struct pf_packs *p);

/* Whether the chunk is there, by the indexes alone; *len (may be NULL) is its length. Thread-safe. */
bool pf_packs_has(const struct pf_packs *p, const struct pf_chunk_id *id, uint32_t *len);

/* Read len bytes from offset of a chunk. The whole chunk is always compared with its id. Thread-safe; parts
 * of the same chunk that are read one after the other cost one decompression. A second copy of a damaged
 * chunk is used if there is one. Errors: CORRUPT: not there, damaged, or shorter than offset + len. */
int pf_packs_read(struct pf_packs *p, const struct pf_chunk_id *id, uint32_t offset, void *buf, size_t len,
	struct pf_err *err);

/* A whole chunk of that length, NOT compared with its id, from the copy that is found first: for those who
 * have another proof of what is in it, and use pf_packs_read() where that fails. Thread-safe. */
int pf_packs_fetch(
	struct pf_packs *p, const struct pf_chunk_id *id, uint32_t len, void *buf, struct pf_err *err);

struct pf_packs_totals {
	int64_t packs, chunks;       /* chunks: a chunk that lies in two packs counts twice */
	int64_t bytes, stored_bytes; /* of chunks, before and after compression */
	int64_t file_bytes;          /* of all files of these packs */
};
void pf_packs_totals(const struct pf_packs *p, struct pf_packs_totals *t);

/* ---- writing ------------------------------------------------------------------------------------------ */

struct pf_packs_writer;

struct pf_packs_writer_opts {
	int level;   /* of zstd, 1..19; 0: 3 */
	int threads; /* that compress, beside the caller; 0: number of cpus, at most 8 */
};

struct pf_packs_written {
	int64_t chunks, bytes;         /* all that was put */
	int64_t new_chunks, new_bytes; /* what of it was not there yet */
	int64_t stored_bytes;          /* what new_bytes became: size of the files made */
	int64_t packs;
};

/* Write new chunks into packs in the directory tmpfd (borrowed, on the store's file system), which holds
 * nothing else. Chunks that p or the writer itself has already are not written again. */
int pf_packs_writer_new(struct pf_packs *p, int tmpfd, const struct pf_packs_writer_opts *opts,
	struct pf_packs_writer **out, struct pf_err *err);
/* Stops the threads; whatever was not finished stays in tmpfd for the caller to remove. NULL is fine. */
void pf_packs_writer_free(struct pf_packs_writer *w);

/* Store n chunks, each 1..PF_CHUNK_MAX bytes; ids gets their ids. The data may be reused on return: it was
 * copied where needed. Waits while more than a few MiB are not yet compressed. Several chunks at once are
 * hashed faster than one by one (sixteen or more are best). Thread-safe. After an error every further call
 * fails too. */
int pf_packs_put(struct pf_packs_writer *w, const struct iovec *v, size_t n, struct pf_chunk_id *ids,
	struct pf_err *err);

/* Much at once, without a copy: chunks to be stored, and other pieces to be hashed alone. The load and all
 * that it points to are the writer's from pf_packs_submit() until pf_packs_wait() has returned. */
struct pf_packs_load {
	const struct pf_hash_job *chunks; /* each 1..PF_CHUNK_MAX bytes; their ids go to out */
	size_t n_chunks;
	const struct pf_hash_job *sums; /* their SHA-256 goes to out */
	size_t n_sums;
	struct pf_packs_load *next; /* the writer's */
	unsigned users;             /* likewise */
};
/* Does not wait. Errors are told by pf_packs_wait(). */
void pf_packs_submit(struct pf_packs_writer *w, struct pf_packs_load *l);
/* Wait until nothing of a load (submitted, or all zeros) is in use any more; its ids and hashes are there
 * then. After an error they are not, but the memory is the caller's again all the same. */
int pf_packs_wait(struct pf_packs_writer *w, struct pf_packs_load *l, struct pf_err *err);
/* How many loads can be worked on at the same time. */
unsigned pf_packs_writer_threads(const struct pf_packs_writer *w);

/* Wait for all of it, write footers and indexes, fsync every file. Then the packs lie in tmpfd, durable and
 * not yet visible. No put may follow. */
int pf_packs_finish(struct pf_packs_writer *w, struct pf_packs_written *stats, struct pf_err *err);

/* Move the finished packs from tmpfd into packs/ (made if missing) and fsync that directory. The caller holds
 * the lock, shared or exclusive, since before pf_packs_open. */
int pf_packs_publish(int storefd, int tmpfd, struct pf_err *err);

/* ---- upkeep ------------------------------------------------------------------------------------------- */

/* One thing that is wrong. id is NULL where a pack as a whole is meant. what is one line. Called from one
 * thread at a time. */
typedef void pf_packs_found(void *ctx, const char *pack, const struct pf_chunk_id *id, const char *what);

struct pf_packs_checked {
	int64_t packs, chunks, bytes; /* read and compared; bytes: of the pack files */
	int64_t damaged;              /* how often found was called */
};

/* Read every byte of every pack of the domain and compare: frames with their ids, footers with indexes, and
 * that nothing lies between the frames. progress (may be NULL) is called now and then with bytes done and in
 * all. Returns -1 only when checking itself failed. */
int pf_packs_verify(struct pf_packs *p, pf_packs_found *found,
	void (*progress)(void *ctx, int64_t done, int64_t all), void *ctx, struct pf_packs_checked *stats,
	struct pf_err *err);

/* What of the readable packs is wrong beside their frames: heads, footers, and indexes that do not equal
 * them, all of which pf_packs_repair() writes anew. A missing index is not: a pack has none when it was being
 * added or removed and whoever did it was killed. A few reads for each pack. Returns how often found was
 * called. */
int64_t pf_packs_verify_form(struct pf_packs *p, pf_packs_found *found, void *ctx);

/* Write indexes anew from the packs where they are missing or damaged, and footers from indexes; needs the
 * EXCLUSIVE lock and no key. *repaired counts, found tells what cannot be repaired. The handle, if any is
 * open, must be opened anew. */
int pf_packs_repair(int storefd, pf_packs_found *found, void *ctx, int64_t *repaired, struct pf_err *err);

struct pf_packs_sweep_opts {
	unsigned
		waste_percent; /* rewrite packs with at least so much dead; 0: 25; 100: only those all dead */
	int64_t small;         /* packs below so many bytes are put together; 0: 8 MiB */
	bool dry_run;
};

struct pf_packs_swept {
	int64_t packs_removed, packs_written;
	int64_t chunks_removed;
	int64_t chunks_waiting; /* after a failure: those whose packs were not written anew */
	bool removed;        /* also after a failure: what nobody needs has gone, and only rewriting failed */
	int64_t bytes_freed; /* of files; with dry_run what would be, without what rewriting would give */
	int64_t packs_damaged; /* kept whole, because not every live chunk in them could be read */
};

/* Remove what live() does not know and put what is left together. tmpfd: an empty directory of the store, as
 * for the writer. Needs the EXCLUSIVE lock. live is called for every chunk, in no order. Killed at any
 * moment, no live chunk is lost. The handle shows the state before and can only be freed. */
int pf_packs_sweep(struct pf_packs *p, int tmpfd, bool (*live)(void *ctx, const struct pf_chunk_id *id),
	void *ctx, const struct pf_packs_sweep_opts *opts, struct pf_packs_swept *stats, struct pf_err *err);

#endif
