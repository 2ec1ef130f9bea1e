/* The sum of a file's data that a tree has of it, made of data as it comes. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_FILESUM_H
#define PF_CHECKPOINT_FILESUM_H

#include <stddef.h>
#include <stdint.h>

/* From tree version 3 on: of data up to one block its SHA-256; of more the SHA-256 of the SHA-256 of each
 * block, one after the other, the last one shorter. In version 2: SHA-256 of all data. */
#define PF_FILESUM_BLOCK ((size_t)64 << 10)

struct pf_filesum;
struct pf_filesum *pf_filesum_new(void);
/* NULL is fine. */
void pf_filesum_free(struct pf_filesum *s);
/* Begin a file, of a tree of this version. */
void pf_filesum_begin(struct pf_filesum *s, int version);
void pf_filesum_add(struct pf_filesum *s, const void *data, size_t len);
/* Of no data at all: 32 zeros. */
void pf_filesum_end(struct pf_filesum *s, uint8_t out[32]);

#endif
