/* Key-encryption keys: 256 bits that come from outside the store and wrap its data keys. Never from an
 * argument or the content of an environment variable, which other processes can see. Heavy: pinfold-store
 * only. */
#ifndef PF_CHECKPOINT_KEYS_H
#define PF_CHECKPOINT_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"

struct pf_kek;

/* Fetch the key that spec names:
 *   file:PATH      a regular file of ours or root's, neither readable nor writable by others
 *   fd:N           read to its end, then closed
 *   cmd:COMMAND    what /bin/sh -c COMMAND prints, within a minute
 *   keyring:NAME   the key of type "user" with this description, in a keyring that we possess
 * The text is 32 raw bytes, 64 hex digits or 44 characters of base64, the latter two with or without a
 * newline. The copy in memory is locked if that is allowed, is not part of core dumps, and is wiped by
 * pf_kek_free. Errors: INVALID for a spec or a text that is none of these; SYSTEM; UNSUPPORTED. No message
 * has any of the text. */
int pf_kek_load(const char *spec, struct pf_kek **out, struct pf_err *err);
/* From 32 bytes in memory (copied). */
int pf_kek_from_bytes(const uint8_t key[32], struct pf_kek **out, struct pf_err *err);
void pf_kek_free(struct pf_kek *k);
static inline void pf_kek_cleanup(struct pf_kek **k)
{
	pf_kek_free(*k);
}
#define PF_KEK PF_CLEANUP(pf_kek_cleanup)

/* Check the form of a spec without touching what it names. */
int pf_kek_check_spec(const char *spec, struct pf_err *err);

/* Sixteen hex digits that tell keys apart and nothing else of them; lives as long as k. */
const char *pf_kek_id(const struct pf_kek *k);

/* Memory for secrets: zeroed, not dumped, locked where the limit allows; wiped by the second. */
void *pf_secret_alloc(size_t len, struct pf_err *err);
void pf_secret_free(void *p, size_t len);

#endif
