/* SHA-256 (FIPS 180-4) for the small documents that name a checkpoint. `pinfold create --from` must check
 * that a manifest and a config are what their digests say, without loading a crypto library for a few KiB;
 * bulk data is hashed in pinfold-store, by libcrypto or many pieces side by side (sha256_lanes.h). */
#ifndef PF_CHECKPOINT_SHA256_H
#define PF_CHECKPOINT_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PF_DIGEST_LEN (7 + 64) /* "sha256:" and 64 hex digits, without the NUL */

/* A digest as text, NUL-terminated: "sha256:…". */
struct pf_digest {
	char s[PF_DIGEST_LEN + 1];
};

/* The standard's round constants. */
extern const uint32_t pf_sha256_k[64];

/* out = digest of data. */
void pf_sha256_digest(const void *data, size_t len, struct pf_digest *out);

/* Text from 32 raw bytes. */
void pf_digest_from_raw(const uint8_t raw[32], struct pf_digest *out);

/* Whether s is exactly "sha256:" and 64 lower-case hex digits; such a string is safe as a file name. */
bool pf_digest_ok(const char *s);

/* The 64 hex digits of a good digest. */
const char *pf_digest_hex(const struct pf_digest *d);

#endif
