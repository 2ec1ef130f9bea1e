/* Sealing: authenticated encryption of what a store holds. Every object has a random 256-bit data key of its
 * own, which the object's head carries wrapped by the key-encryption key. So changing that key rewrites heads
 * only.
 *
 *   STORE/checkpoints/seal.key   sealed: the store's secrets, under which chunk ids and cuts are made
 *
 * Which kind of object it is and what it is called is authenticated too: one that was put in the place of
 * another does not open. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_SEAL_H
#define PF_CHECKPOINT_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "checkpoint/keys.h"

struct pf_seal; /* a key-encryption key together with a store's secrets; read-only, any thread */
void pf_seal_free(struct pf_seal *s);
static inline void pf_seal_cleanup(struct pf_seal **s)
{
	pf_seal_free(*s);
}
#define PF_SEAL PF_CLEANUP(pf_seal_cleanup)

/* Whether the store was ever sealed into: it has a seal.key. */
bool pf_seal_exists(int storefd);

/* Open the sealed domain of a store with its key. create: make seal.key (durable) if there is none; the
 * store's lock is held. kek is copied. Errors: INVALID for another key than the store's (both named by their
 * pf_kek_id); NOT_FOUND: no seal.key and not create; CORRUPT. */
int pf_seal_open(
	int storefd, const struct pf_kek *kek, bool create, struct pf_seal **out, struct pf_err *err);

/* A domain without a store, to seal and open artifacts under a key alone: no chunk ids. */
int pf_seal_for_key(const struct pf_kek *kek, struct pf_seal **out, struct pf_err *err);

/* The error for a sealed thing without a key, which says how to give one. Returns -1. */
int pf_seal_no_key(const char *what, struct pf_err *err);

#define PF_SEAL_MAGIC_LEN 8
/* Whether a document is a sealed one (by its first PF_SEAL_MAGIC_LEN bytes). */
bool pf_is_sealed(const void *data, size_t len);

/* Seal a document in memory. kind is a short word, name what it is called in the store, each at most 200
 * bytes. Rotation knows these, and needs the name to be that of the file: "manifest" in manifests/, "layer"
 * in layers/, "files" in files/. *out is malloc'ed. */
int pf_seal_doc(const struct pf_seal *s, const char *kind, const char *name, const void *data, size_t len,
	uint8_t **out, size_t *out_len, struct pf_err *err);
/* Open one. *out is malloc'ed, with a NUL after its len bytes. Errors: INVALID for the wrong key, CORRUPT for
 * any byte that is not as it was sealed, and for another kind or name. Nothing is given out before all is
 * checked. */
int pf_unseal_doc(const struct pf_seal *s, const char *kind, const char *name, const void *data, size_t len,
	uint8_t **out, size_t *out_len, struct pf_err *err);

/* The same form from fd to fd, of any length, in bounded memory. When pf_unseal_fd fails, what it wrote so
 * far is genuine, but not all there is: the caller throws it away. */
int pf_seal_fd(
	const struct pf_seal *s, const char *kind, const char *name, int infd, int outfd, struct pf_err *err);
int pf_unseal_fd(
	const struct pf_seal *s, const char *kind, const char *name, int infd, int outfd, struct pf_err *err);

struct pf_seal_rotated {
	int64_t objects; /* whose heads were rewritten */
};
/* Wrap every data key of the store under new instead of old. No data is touched. Needs the store's lock and
 * the packs' EXCLUSIVE lock. Killed at any moment, either old or new opens everything, and running it again
 * completes it. */
int pf_seal_rotate(int storefd, const struct pf_kek *old, const struct pf_kek *new_kek,
	struct pf_seal_rotated *stats, struct pf_err *err);

#endif
