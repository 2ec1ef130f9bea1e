/* Theory of operation.
 *
 * A rolling "gear" hash: h = 2h + gear[byte]. A byte leaves the top bits of h after 64 steps, so where the
 * masked top bits are all zero depends on the last 64 bytes alone, and a stream that was changed falls into
 * step again within a chunk or two. No cut comes before min bytes (which are skipped, but for the 64 that
 * fill the window) nor after max.
 *
 * Up to the average length the mask has two bits more than the average asks for, from there on two bits less
 * (as FastCDC does). That draws the lengths together around the average: fewer tiny chunks, few that are cut
 * at max, where a cut would depend on the place and not on the content.
 *
 * The table is made of SHA-256: gear[i] is the first 8 bytes, little-endian, of SHA-256("pinfold gear" NUL
 * i), or with a key of HMAC-SHA-256(key, "pinfold gear" NUL i). Published, because another writer needs the
 * same cuts. */
#include "checkpoint/chunk.h"

#include <endian.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#define WINDOW 64

const struct pf_chunk_params pf_chunk_default = {16384, 65536, 262144};

/* The topmost n bits: those that have seen most of the window. */
static uint64_t top_bits(unsigned n)
{
	return ~UINT64_C(0) << (64 - n);
}

int pf_chunker_init(
	struct pf_chunker *c, const struct pf_chunk_params *params, const uint8_t key[32], struct pf_err *err)
{
	uint8_t text[14] = "pinfold gear", md[32];
	unsigned bits, n = 0;

	if (params->min < 256 || params->min >= params->average || params->average >= params->max ||
		params->max > PF_CHUNK_MAX || (params->average & (params->average - 1)))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "chunk lengths %u, %u, %u", params->min,
			params->average, params->max);
	bits = (unsigned)__builtin_ctz(params->average);
	c->params = *params;
	c->early = top_bits(bits + 2);
	c->late = top_bits(bits - 2);
	for (unsigned i = 0; i < 256; i++) {
		text[13] = (uint8_t)i;
		int ok = key ? HMAC(EVP_sha256(), key, 32, text, sizeof(text), md, &n) != NULL
			     : EVP_Digest(text, sizeof(text), md, &n, EVP_sha256(), NULL);
		if (!ok)
			return pf_fail(err, 0, "libcrypto: SHA-256 is not to be had");
		memcpy(&c->gear[i], md, 8);
		c->gear[i] = le64toh(c->gear[i]);
	}
	return 0;
}

/* Go on from i to end; the position after the first cut, or 0. */
static size_t scan(
	const uint64_t gear[256], const uint8_t *d, size_t i, size_t end, uint64_t mask, uint64_t *hash)
{
	uint64_t h = *hash;

	for (; i + 4 <= end; i += 4) {
		h = (h << 1) + gear[d[i]];
		if (!(h & mask))
			return i + 1;
		h = (h << 1) + gear[d[i + 1]];
		if (!(h & mask))
			return i + 2;
		h = (h << 1) + gear[d[i + 2]];
		if (!(h & mask))
			return i + 3;
		h = (h << 1) + gear[d[i + 3]];
		if (!(h & mask))
			return i + 4;
	}
	for (; i < end; i++) {
		h = (h << 1) + gear[d[i]];
		if (!(h & mask))
			return i + 1;
	}
	*hash = h;
	return 0;
}

size_t pf_chunk_cut(const struct pf_chunker *c, const void *data, size_t len)
{
	const uint8_t *d = data;
	size_t end = len < c->params.max ? len : c->params.max;
	size_t normal = end < c->params.average ? end : c->params.average, at;
	uint64_t h = 0;

	if (end <= c->params.min)
		return end;
	for (size_t i = c->params.min - WINDOW; i < c->params.min; i++)
		h = (h << 1) + c->gear[d[i]];
	at = scan(c->gear, d, c->params.min, normal, c->early, &h);
	if (!at)
		at = scan(c->gear, d, normal, end, c->late, &h);
	return at ? at : end;
}
