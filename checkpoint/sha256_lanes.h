/* SHA-256 and HMAC-SHA-256 of many messages at once. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_SHA256_LANES_H
#define PF_CHECKPOINT_SHA256_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pf_hash_job {
	const void *data;
	size_t len;
	uint8_t *out; /* 32 bytes; not within any job's data */
};

/* The digests of n messages of any lengths, in no order. Best with sixteen or more, and with no single one
 * that is as long as all others together. Thread-safe; what it needs is on the stack, but for a few bytes a
 * job. Cannot fail. */
void pf_sha256_many(const struct pf_hash_job *jobs, size_t n);
/* The same with a key of 32 bytes. */
void pf_hmac_sha256_many(const uint8_t key[32], const struct pf_hash_job *jobs, size_t n);

/* How it is computed: one message after the other by libcrypto, or that many side by side. */
enum pf_hash_engine { PF_HASH_ONE = 1, PF_HASH_LANES8 = 8, PF_HASH_LANES16 = 16 };
/* What is in use: the fastest that this processor has. */
enum pf_hash_engine pf_hash_engine(void);
/* For tests: use this one from now on, in every thread. False if the processor has not got it. */
bool pf_hash_engine_set(enum pf_hash_engine engine);

#endif
