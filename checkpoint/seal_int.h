/* Inside of sealing: the cipher, and the heads that carry wrapped data keys. Shared with the packs, whose
 * heads are files of their own.
 *
 * A head is 152 bytes, numbers little-endian:
 *     0   8  "PFSEAL1\n"
 *     8   4  slots in use, 1 or 2
 *    12   4  bytes in a segment: 65536
 *    16  68  slot: 8 key id, 12 nonce, 32 data key encrypted with AES-256-GCM, 16 tag
 *    84  68  second slot, or zeros
 * The second slot is there while keys are being changed. What a slot authenticates is "data key", NUL, the
 * object's kind, NUL, its name, NUL. */
#ifndef PF_CHECKPOINT_SEAL_INT_H
#define PF_CHECKPOINT_SEAL_INT_H

#include <stdint.h>

#include "base/err.h"
#include "checkpoint/chunk.h"
#include "checkpoint/keys_int.h"
#include "checkpoint/packs.h"
#include "checkpoint/seal.h"

#define PF_SEAL_TAG 16
#define PF_SEAL_NONCE 12
#define PF_SEAL_SLOT (PF_KEK_ID_LEN + PF_SEAL_NONCE + 32 + PF_SEAL_TAG)
#define PF_SEAL_SLOTS 2
#define PF_SEAL_HEAD (16 + PF_SEAL_SLOTS * PF_SEAL_SLOT)
#define PF_SEAL_SEGMENT 65536
#define PF_SEAL_WORD_MAX 200 /* bytes of a kind or a name */

/* What a nonce is for; the first byte of it. No data key is used for the same purpose and number twice. */
enum pf_seal_use {
	PF_SEAL_USE_SEGMENT = 1,
	PF_SEAL_USE_LAST = 2,
	PF_SEAL_USE_CHUNK = 3,
	PF_SEAL_USE_INDEX = 4
};

/* A data key with what is authenticated along with everything under it. */
struct pf_seal_key {
	uint8_t key[32];
	uint8_t ad[2 * PF_SEAL_WORD_MAX + 2]; /* kind NUL name NUL */
	size_t ad_len;
};

struct pf_seal {
	struct pf_kek kek;
	bool has_store; /* what follows is there */
	uint8_t id_key[32];
	struct pf_chunker chunker;
};

/* Encrypt len bytes into out, which takes len + PF_SEAL_TAG. extra (may be NULL) is authenticated as well. */
int pf_aead_seal(const struct pf_seal_key *k, enum pf_seal_use use, uint64_t number, const void *extra,
	size_t extra_len, const void *in, size_t len, uint8_t *out, struct pf_err *err);
/* The opposite: len counts the tag; out takes len - PF_SEAL_TAG. Error CORRUPT; out is then zeros. */
int pf_aead_open(const struct pf_seal_key *k, enum pf_seal_use use, uint64_t number, const void *extra,
	size_t extra_len, const uint8_t *in, size_t len, void *out, struct pf_err *err);

/* A new random data key for an object, and its head. The key is wiped by its owner. */
int pf_seal_key_make(const struct pf_kek *kek, const char *kind, const char *name, struct pf_seal_key *k,
	uint8_t head[PF_SEAL_HEAD], struct pf_err *err);
/* Errors: CORRUPT, or INVALID for another key-encryption key than the head's. */
int pf_seal_key_open(const struct pf_kek *kek, const char *kind, const char *name,
	const uint8_t head[PF_SEAL_HEAD], struct pf_seal_key *k, struct pf_err *err);

/* The key of the object is wrapped under new_kek also (in a second slot, whoever's that was) … */
int pf_seal_head_add(const struct pf_kek *old, const struct pf_kek *new_kek, const char *kind,
	const char *name, uint8_t head[PF_SEAL_HEAD], bool *changed, struct pf_err *err);
/* … or under new_kek alone. */
int pf_seal_head_keep(const struct pf_kek *new_kek, const char *kind, const char *name,
	uint8_t head[PF_SEAL_HEAD], bool *changed, struct pf_err *err);

#endif
