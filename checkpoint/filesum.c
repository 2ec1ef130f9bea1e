/* Theory of operation: the blocks exist so that the data of one large file can be hashed in many places at
 * once (sha256_lanes.h); where they are cut depends on nothing but the data. The length of the data stands
 * beside the sum in the tree and tells which of the two forms it has. Here is the sequential way, for those
 * who read a file from its beginning to its end. */
#include "checkpoint/filesum.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

struct pf_filesum {
	EVP_MD *md;
	EVP_MD_CTX *block, *blocks;
	size_t in_block;
	bool whole, any, several;
};

static void must(int ok)
{
	/* Whoever opens a store has tried SHA-256 before: what fails here is memory. */
	if (ok != 1)
		abort();
}

struct pf_filesum *pf_filesum_new(void)
{
	struct pf_filesum *s = pf_calloc(1, sizeof(*s));

	s->md = EVP_MD_fetch(NULL, "SHA256", NULL);
	s->block = EVP_MD_CTX_new();
	s->blocks = EVP_MD_CTX_new();
	must(s->md && s->block && s->blocks);
	return s;
}

void pf_filesum_free(struct pf_filesum *s)
{
	if (!s)
		return;
	EVP_MD_CTX_free(s->block);
	EVP_MD_CTX_free(s->blocks);
	EVP_MD_free(s->md);
	free(s);
}

void pf_filesum_begin(struct pf_filesum *s, int version)
{
	s->whole = version == 2;
	s->any = s->several = false;
	s->in_block = 0;
	must(EVP_DigestInit_ex2(s->block, s->md, NULL));
}

/* What is in the block, which is full, is one of several. */
static void end_block(struct pf_filesum *s)
{
	uint8_t sum[32];

	must(EVP_DigestFinal_ex(s->block, sum, NULL));
	if (!s->several)
		must(EVP_DigestInit_ex2(s->blocks, s->md, NULL));
	s->several = true;
	must(EVP_DigestUpdate(s->blocks, sum, sizeof(sum)));
	must(EVP_DigestInit_ex2(s->block, s->md, NULL));
	s->in_block = 0;
}

void pf_filesum_add(struct pf_filesum *s, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len > 0) {
		size_t n = len;
		if (!s->whole && s->in_block == PF_FILESUM_BLOCK)
			end_block(s);
		if (!s->whole && n > PF_FILESUM_BLOCK - s->in_block)
			n = PF_FILESUM_BLOCK - s->in_block;
		must(EVP_DigestUpdate(s->block, p, n));
		s->any = true;
		s->in_block += s->whole ? 0 : n;
		p += n;
		len -= n;
	}
}

void pf_filesum_end(struct pf_filesum *s, uint8_t out[32])
{
	if (s->several) {
		end_block(s);
		must(EVP_DigestFinal_ex(s->blocks, out, NULL));
	} else {
		must(EVP_DigestFinal_ex(s->block, out, NULL));
	}
	if (!s->any)
		memset(out, 0, 32);
}
