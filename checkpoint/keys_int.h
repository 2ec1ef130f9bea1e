/* What sealing sees of a key-encryption key. */
#ifndef PF_CHECKPOINT_KEYS_INT_H
#define PF_CHECKPOINT_KEYS_INT_H

#include <stdint.h>

#define PF_KEK_ID_LEN 8

/* Both are derived from the key, which itself is not kept: HMAC-SHA-256 of "pinfold wrap" and the first bytes
 * of that of "pinfold key id". */
struct pf_kek {
	uint8_t wrap[32];
	uint8_t id[PF_KEK_ID_LEN];
	char name[2 * PF_KEK_ID_LEN + 1];
};

#endif
