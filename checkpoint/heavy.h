/* An open checkpoint store with its chunks: what the readers and writers of layers work on. Heavy:
 * pinfold-store only. */
#ifndef PF_CHECKPOINT_HEAVY_H
#define PF_CHECKPOINT_HEAVY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "checkpoint/store.h"

struct pf_kek;
struct pf_packs;
struct pf_seal;

/* Which domain a thing is in: plain, or sealed under the store's key. */
struct pf_ckpt_heavy {
	int storefd;
	int packs_lock;          /* flock on packs.lock: shared while chunks are read or added */
	struct pf_packs *packs;  /* plain */
	struct pf_seal *seal;    /* NULL: no key was given */
	struct pf_packs *sealed; /* NULL likewise */
	bool seal_new;           /* the store wants new checkpoints sealed */
	struct pf_err why_not;   /* why the key that the store names is not to be had, if that is so */
};
#define PF_CKPT_HEAVY_NONE ((struct pf_ckpt_heavy){.storefd = -1, .packs_lock = -1})

/* For the whole process, before a store is opened: the key that was given (as pf_kek_load() takes it; NULL:
 * the one that the store names, if it does) and whether new checkpoints are sealed (-1: as the store says).
 */
void pf_ckpt_use_key(const char *spec, int seal_new);

/* The key that was given, or that the store names, fetched once, and asked for once where it is not to be
 * had. NULL with an error that says how to give one when there is none. Lives as long as the process. */
const struct pf_kek *pf_ckpt_key(int storefd, struct pf_err *err);
/* Do that now, before the process becomes somebody else, to whom owners and keyrings look different. What
 * fails, and that there is none, is told to whoever asks for it then. */
void pf_ckpt_fetch_key(const char *store);

/* The opener of sealed manifests for pf_ckpt_load() in a process that links this (see store.h). */
int pf_ckpt_heavy_open_manifest(int storefd, const struct pf_digest *digest, const char *sealed,
	size_t sealed_len, char **text, size_t *len, struct pf_err *err);

/* Open STORE/checkpoints and take packs.lock. The sealed domain comes along when there is one and its key is
 * to be had; a key that was given and does not fit is an error. create as for pf_ckpt_store_open(). exclusive
 * is for collecting alone. Must not be called while the store's lock is held. */
int pf_ckpt_heavy_open(
	const char *store, bool create, bool exclusive, struct pf_ckpt_heavy *h, struct pf_err *err);
/* Add the sealed domain; create: also when the store has none yet. */
int pf_ckpt_heavy_unseal(struct pf_ckpt_heavy *h, const struct pf_kek *kek, bool create, struct pf_err *err);
/* Whether a new checkpoint is to be sealed: as the process was told, else if what it stands on is or the
 * store says so. The sealed domain is made if it is needed and not there. Not while the store's lock is held.
 */
int pf_ckpt_heavy_choose(struct pf_ckpt_heavy *h, bool below_sealed, bool *sealed, struct pf_err *err);
void pf_ckpt_heavy_done(struct pf_ckpt_heavy *h);
#define PF_CKPT_HEAVY PF_CLEANUP(pf_ckpt_heavy_done)

/* The chunks of a domain; sealed without a key is an error that says how to give one. */
struct pf_packs *pf_ckpt_heavy_packs(struct pf_ckpt_heavy *h, bool sealed, struct pf_err *err);

/* Read a document of the store, opening it when it is sealed. kind and name: see seal.h. *text is malloc'ed
 * and NUL-terminated, *sealed tells how it was stored. */
int pf_ckpt_heavy_read(struct pf_ckpt_heavy *h, const char *kind, const char *name, const char *path,
	size_t max, char **text, size_t *len, bool *sealed, struct pf_err *err);
/* Write one as file below dirfd, replacing what is there. durable: with fsync of file and directory. */
int pf_ckpt_heavy_write(struct pf_ckpt_heavy *h, const char *kind, const char *name, int dirfd,
	const char *file, const void *data, size_t len, bool sealed, bool durable, struct pf_err *err);

/* Load a checkpoint whose manifest may be sealed. */
int pf_ckpt_heavy_load(struct pf_ckpt_heavy *h, const char *digest, const char *name, struct pf_ckpt *out,
	struct pf_err *err);

#endif
