/* Theory of operation.
 *
 * Why this exists. A store of chunks is limited by its hash, and one message at a time is slow on processors
 * that have no instructions for it: libcrypto gives 0.39 GB/s on a 2.5 GHz Xeon, zstd compresses as fast.
 * Many messages side by side, each in one 32-bit column of the vector registers, give six times that, and
 * a snapshot always has many: chunks, and files. No library of the distributions does it for messages as long
 * as ours: Intel's multi-buffer library takes them up to 64 KiB only, and is twelve megabytes large. Where
 * the processor has SHA instructions, or no such vectors, libcrypto is used, one message at a time.
 *
 * On that Xeon: 16 columns (AVX-512) 2.5 GB/s, 8 columns (AVX2) 1.0 GB/s, one core.
 *
 * A lane has a message, or none. All lanes go on together for as many blocks as the one that comes to an end
 * first has left; that one then goes on with its padding, or gives its digest and takes the next message.
 * Long messages are begun first, so that at the end no lane is long alone. */
#include "checkpoint/sha256_lanes.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "checkpoint/sha256.h"

static int engine_in_use; /* atomically; 0: not looked for yet */

/* ---- one at a time ------------------------------------------------------------------------------------- */

static void one_by_one(const uint8_t *key, const struct pf_hash_job *jobs, size_t n)
{
	unsigned len = 32;
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	EVP_MD *md = EVP_MD_fetch(NULL, "SHA256", NULL);

	/* Whoever opens a store has tried SHA-256 before: what fails here is memory. */
	if (!c || !md)
		abort();
	for (size_t i = 0; i < n; i++) {
		bool ok = key ? HMAC(md, key, 32, jobs[i].data, jobs[i].len, jobs[i].out, &len) != NULL
			      : EVP_DigestInit_ex2(c, md, NULL) == 1 &&
					  EVP_DigestUpdate(c, jobs[i].data, jobs[i].len) == 1 &&
					  EVP_DigestFinal_ex(c, jobs[i].out, NULL) == 1;
		if (!ok)
			abort();
	}
	EVP_MD_CTX_free(c);
	EVP_MD_free(md);
}

#if defined(__x86_64__)

/* ---- blocks, side by side ------------------------------------------------------------------------------ */

#define BLOCK 64
#define MAX_LANES 16

static const uint32_t initial[8] = {
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* The eight words of state of every lane, a row for each word. */
struct lanes {
	_Alignas(64) uint32_t h[8][MAX_LANES];
	const uint8_t *at[MAX_LANES]; /* the next block of each */
};

/* One round; the caller turns the names instead of moving the values. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                                 \
	do {                                                                                             \
		V t = ADD(ADD(h, ADD(w[(i)&15], SET(pf_sha256_k[i]))), ADD(SIGMA1(e), CHOICE(e, f, g))); \
		(d) = ADD(d, t);                                                                         \
		(h) = ADD(t, ADD(SIGMA0(a), MAJORITY(a, b, c)));                                         \
	} while (0)
#define EIGHT(i)                                        \
	do {                                            \
		ROUND(a, b, c, d, e, f, g, h, (i) + 0); \
		ROUND(h, a, b, c, d, e, f, g, (i) + 1); \
		ROUND(g, h, a, b, c, d, e, f, (i) + 2); \
		ROUND(f, g, h, a, b, c, d, e, (i) + 3); \
		ROUND(e, f, g, h, a, b, c, d, (i) + 4); \
		ROUND(d, e, f, g, h, a, b, c, (i) + 5); \
		ROUND(c, d, e, f, g, h, a, b, (i) + 6); \
		ROUND(b, c, d, e, f, g, h, a, (i) + 7); \
	} while (0)
#define NEXT_WORD(i) \
	w[i] = ADD(ADD(w[i], SMALL0(w[((i) + 1) & 15])), ADD(w[((i) + 9) & 15], SMALL1(w[((i) + 14) & 15])))
#define NEXT_WORDS                                                          \
	do {                                                                \
		NEXT_WORD(0), NEXT_WORD(1), NEXT_WORD(2), NEXT_WORD(3);     \
		NEXT_WORD(4), NEXT_WORD(5), NEXT_WORD(6), NEXT_WORD(7);     \
		NEXT_WORD(8), NEXT_WORD(9), NEXT_WORD(10), NEXT_WORD(11);   \
		NEXT_WORD(12), NEXT_WORD(13), NEXT_WORD(14), NEXT_WORD(15); \
	} while (0)
/* One block of each lane, from w into s. */
#define COMPRESS()                                                             \
	do {                                                                   \
		V a = s[0], b = s[1], c = s[2], d = s[3];                      \
		V e = s[4], f = s[5], g = s[6], h = s[7];                      \
		EIGHT(0);                                                      \
		EIGHT(8);                                                      \
		NEXT_WORDS;                                                    \
		EIGHT(16);                                                     \
		EIGHT(24);                                                     \
		NEXT_WORDS;                                                    \
		EIGHT(32);                                                     \
		EIGHT(40);                                                     \
		NEXT_WORDS;                                                    \
		EIGHT(48);                                                     \
		EIGHT(56);                                                     \
		s[0] = ADD(s[0], a), s[1] = ADD(s[1], b), s[2] = ADD(s[2], c); \
		s[3] = ADD(s[3], d), s[4] = ADD(s[4], e), s[5] = ADD(s[5], f); \
		s[6] = ADD(s[6], g), s[7] = ADD(s[7], h);                      \
	} while (0)
#define SIGMA0(x) XOR3(ROR(x, 2), ROR(x, 13), ROR(x, 22))
#define SIGMA1(x) XOR3(ROR(x, 6), ROR(x, 11), ROR(x, 25))
#define SMALL0(x) XOR3(ROR(x, 7), ROR(x, 18), SHR(x, 3))
#define SMALL1(x) XOR3(ROR(x, 17), ROR(x, 19), SHR(x, 10))

/* -- sixteen lanes -- */

#define V __m512i
#define ADD(x, y) _mm512_add_epi32(x, y)
#define SET(x) _mm512_set1_epi32((int)(x))
#define ROR(x, n) _mm512_ror_epi32(x, n)
#define SHR(x, n) _mm512_srli_epi32(x, n)
#define XOR3(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0x96)
#define CHOICE(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0xca)
#define MAJORITY(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0xe8)

/* The next block of each lane: w[i] are the i-th words of all, in the processor's byte order. */
__attribute__((target("avx512f,avx512bw"))) static inline void load16(const struct lanes *l, V w[16])
{
	const V swap =
		_mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
	V r[16], t[16];

	for (int i = 0; i < 16; i++)
		r[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(l->at[i]), swap);
	for (int i = 0; i < 16; i += 4) {
		t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
		t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
		t[i + 2] = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]);
		t[i + 3] = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
		r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
		r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
		r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
		r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
	}
	/* r[4g + k] has in its quarter j the words 4j + k of the lanes 4g to 4g + 3. */
	for (int k = 0; k < 4; k++) {
		V even01 = _mm512_shuffle_i32x4(r[k], r[4 + k], 0x88);
		V even23 = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0x88);
		V odd01 = _mm512_shuffle_i32x4(r[k], r[4 + k], 0xdd);
		V odd23 = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0xdd);
		w[k] = _mm512_shuffle_i32x4(even01, even23, 0x88);
		w[8 + k] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
		w[4 + k] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
		w[12 + k] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
	}
}

__attribute__((target("avx512f,avx512bw"))) static void blocks16(struct lanes *l, size_t n)
{
	V s[8], w[16];

	for (int i = 0; i < 8; i++)
		s[i] = _mm512_load_si512(l->h[i]);
	for (; n > 0; n--) {
		load16(l, w);
		for (int i = 0; i < 16; i++)
			l->at[i] += BLOCK;
		COMPRESS();
	}
	for (int i = 0; i < 8; i++)
		_mm512_store_si512(l->h[i], s[i]);
}

#undef V
#undef ADD
#undef SET
#undef ROR
#undef SHR
#undef XOR3
#undef CHOICE
#undef MAJORITY

/* -- eight lanes -- */

#define V __m256i
#define ADD(x, y) _mm256_add_epi32(x, y)
#define SET(x) _mm256_set1_epi32((int)(x))
#define SHR(x, n) _mm256_srli_epi32(x, n)
#define ROR(x, n) _mm256_or_si256(_mm256_srli_epi32(x, n), _mm256_slli_epi32(x, 32 - (n)))
#define XOR3(x, y, z) _mm256_xor_si256(_mm256_xor_si256(x, y), z)
#define CHOICE(x, y, z) _mm256_xor_si256(z, _mm256_and_si256(x, _mm256_xor_si256(y, z)))
#define MAJORITY(x, y, z) _mm256_or_si256(_mm256_and_si256(x, y), _mm256_and_si256(z, _mm256_or_si256(x, y)))

/* Half a block of each lane, from byte `from` on. */
__attribute__((target("avx2"))) static inline void load8(const struct lanes *l, size_t from, V w[8])
{
	const V swap = _mm256_broadcastsi128_si256(
		_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
	V r[8], t[8];

	for (int i = 0; i < 8; i++)
		r[i] = _mm256_shuffle_epi8(_mm256_loadu_si256((const void *)(l->at[i] + from)), swap);
	for (int i = 0; i < 8; i += 4) {
		t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
		t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
		t[i + 2] = _mm256_unpacklo_epi32(r[i + 2], r[i + 3]);
		t[i + 3] = _mm256_unpackhi_epi32(r[i + 2], r[i + 3]);
		r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
		r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
		r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
		r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
	}
	for (int k = 0; k < 4; k++) {
		w[k] = _mm256_permute2x128_si256(r[k], r[4 + k], 0x20);
		w[4 + k] = _mm256_permute2x128_si256(r[k], r[4 + k], 0x31);
	}
}

__attribute__((target("avx2"))) static void blocks8(struct lanes *l, size_t n)
{
	V s[8], w[16];

	for (int i = 0; i < 8; i++)
		s[i] = _mm256_load_si256((const void *)l->h[i]);
	for (; n > 0; n--) {
		load8(l, 0, w);
		load8(l, 32, w + 8);
		for (int i = 0; i < 8; i++)
			l->at[i] += BLOCK;
		COMPRESS();
	}
	for (int i = 0; i < 8; i++)
		_mm256_store_si256((void *)l->h[i], s[i]);
}

/* ---- messages ------------------------------------------------------------------------------------------ */

/* What a lane is about. */
struct lane {
	const struct pf_hash_job *job; /* NULL: nothing any more */
	size_t left;                   /* blocks at its place in lanes.at */
	size_t pads;                   /* blocks of padding that come after these */
	uint8_t tail[2 * BLOCK];
};

struct run {
	struct lanes l;
	struct lane lane[MAX_LANES];
	int n_lanes, busy;
	const uint32_t *begin; /* the state that each message begins with … */
	size_t before;         /* … after so many bytes */
	const struct pf_hash_job *jobs;
	const uint32_t *order; /* of the jobs */
	size_t n, next;
};

static const uint8_t nothing[4 * BLOCK]; /* what idle lanes are about */

/* The last bytes of a message with the padding behind them. */
static void make_tail(struct lane *l, const struct pf_hash_job *j, size_t before)
{
	size_t rest = j->len % BLOCK, len = rest < 56 ? BLOCK : 2 * BLOCK;
	uint64_t bits = ((uint64_t)j->len + before) * 8;

	memset(l->tail, 0, len);
	if (rest > 0)
		memcpy(l->tail, (const uint8_t *)j->data + j->len - rest, rest);
	l->tail[rest] = 0x80;
	for (size_t i = 0; i < 8; i++)
		l->tail[len - 1 - i] = (uint8_t)(bits >> (8 * i));
	l->pads = len / BLOCK;
}

/* Lane i has done what was at its place: its padding comes, or its end and the next message. */
static void lane_next(struct run *r, int i)
{
	struct lane *l = &r->lane[i];

	if (l->job && l->pads == 0) {
		for (int k = 0; k < 8; k++) {
			uint32_t v = __builtin_bswap32(r->l.h[k][i]);
			memcpy(l->job->out + 4 * k, &v, 4);
		}
		l->job = NULL;
		r->busy--;
	}
	if (!l->job && r->next < r->n) {
		l->job = &r->jobs[r->order[r->next++]];
		r->busy++;
		for (int k = 0; k < 8; k++)
			r->l.h[k][i] = r->begin[k];
		make_tail(l, l->job, r->before);
		r->l.at[i] = l->job->data;
		l->left = l->job->len / BLOCK;
		if (l->left > 0)
			return;
	}
	if (l->job) {
		r->l.at[i] = l->tail;
		l->left = l->pads;
		l->pads = 0;
	} else {
		l->left = 0;
	}
}

static void side_by_side(struct run *r)
{
	for (int i = 0; i < r->n_lanes; i++)
		lane_next(r, i);
	while (r->busy > 0) {
		size_t n = SIZE_MAX;
		for (int i = 0; i < r->n_lanes; i++)
			if (r->lane[i].job && r->lane[i].left < n)
				n = r->lane[i].left;
		for (int i = 0; i < r->n_lanes; i++)
			if (!r->lane[i].job) {
				/* The lane must have something to read. */
				r->l.at[i] = nothing;
				n = n < sizeof(nothing) / BLOCK ? n : sizeof(nothing) / BLOCK;
			}
		if (r->n_lanes == PF_HASH_LANES16)
			blocks16(&r->l, n);
		else
			blocks8(&r->l, n);
		for (int i = 0; i < r->n_lanes; i++)
			if (r->lane[i].job && (r->lane[i].left -= n) == 0)
				lane_next(r, i);
	}
}

#define CLASSES 40

static int class_of(const struct pf_hash_job *j)
{
	int bits = j->len ? 64 - __builtin_clzll(j->len) : 0;

	return CLASSES - 1 - (bits < CLASSES ? bits : CLASSES - 1);
}

/* The longest first; about is enough. */
static void order_jobs(const struct pf_hash_job *jobs, size_t n, uint32_t *order)
{
	size_t at[CLASSES + 1] = {0};

	for (size_t i = 0; i < n; i++)
		at[class_of(&jobs[i]) + 1]++;
	for (int i = 1; i <= CLASSES; i++)
		at[i] += at[i - 1];
	for (size_t i = 0; i < n; i++)
		order[at[class_of(&jobs[i])]++] = (uint32_t)i;
}

/* The state after one block. */
static void one_block(int n_lanes, const uint8_t block[BLOCK], uint32_t out[8])
{
	struct lanes l;

	for (int i = 0; i < n_lanes; i++) {
		l.at[i] = block;
		for (int k = 0; k < 8; k++)
			l.h[k][i] = initial[k];
	}
	if (n_lanes == PF_HASH_LANES16)
		blocks16(&l, 1);
	else
		blocks8(&l, 1);
	for (int k = 0; k < 8; k++)
		out[k] = l.h[k][0];
}

#define MAX_AT_ONCE 4096

static void run_lanes(
	int n_lanes, const uint32_t begin[8], size_t before, const struct pf_hash_job *jobs, size_t n)
{
	uint32_t order[MAX_AT_ONCE];
	struct run r = {.n_lanes = n_lanes, .begin = begin, .before = before, .jobs = jobs, .order = order};

	order_jobs(jobs, n, order);
	r.n = n;
	side_by_side(&r);
}

static void hmac_lanes(int n_lanes, const uint8_t key[32], const struct pf_hash_job *jobs, size_t n)
{
	struct pf_hash_job outer[MAX_AT_ONCE];
	uint8_t block[BLOCK];
	uint32_t inside[8], outside[8];

	for (size_t i = 0; i < BLOCK; i++)
		block[i] = (uint8_t)((i < 32 ? key[i] : 0) ^ 0x36);
	one_block(n_lanes, block, inside);
	for (size_t i = 0; i < BLOCK; i++)
		block[i] ^= 0x36 ^ 0x5c;
	one_block(n_lanes, block, outside);
	run_lanes(n_lanes, inside, BLOCK, jobs, n);
	/* A message of less than a block is in its lane's tail before its digest is written. */
	for (size_t i = 0; i < n; i++)
		outer[i] = (struct pf_hash_job){jobs[i].out, 32, jobs[i].out};
	run_lanes(n_lanes, outside, BLOCK, outer, n);
	explicit_bzero(block, sizeof(block));
	explicit_bzero(inside, sizeof(inside));
	explicit_bzero(outside, sizeof(outside));
}

/* Whether lanes are worth it: a lane by itself is less than half as fast as libcrypto. */
static bool few(const struct pf_hash_job *jobs, size_t n)
{
	size_t sum = 0, longest = 0;

	for (size_t i = 0; i < n; i++) {
		size_t len = jobs[i].len + BLOCK;
		sum += len;
		if (len > longest)
			longest = len;
	}
	return sum < longest * 5 / 2;
}

static void in_lanes(int n_lanes, const uint8_t *key, const struct pf_hash_job *jobs, size_t n)
{
	if (few(jobs, n))
		one_by_one(key, jobs, n);
	else if (key)
		hmac_lanes(n_lanes, key, jobs, n);
	else
		run_lanes(n_lanes, initial, 0, jobs, n);
}

static bool has(enum pf_hash_engine e)
{
	if (e == PF_HASH_LANES16)
		return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
	return e == PF_HASH_ONE || (e == PF_HASH_LANES8 && __builtin_cpu_supports("avx2"));
}

static enum pf_hash_engine fastest(void)
{
	unsigned a = 0, b = 0, c = 0, d = 0;

	__builtin_cpu_init();
	/* SHA instructions. */
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29))
		return PF_HASH_ONE;
	return has(PF_HASH_LANES16) ? PF_HASH_LANES16 : has(PF_HASH_LANES8) ? PF_HASH_LANES8 : PF_HASH_ONE;
}

#else

#define MAX_AT_ONCE 4096

static void in_lanes(int n_lanes, const uint8_t *key, const struct pf_hash_job *jobs, size_t n)
{
	(void)n_lanes;
	one_by_one(key, jobs, n);
}

static bool has(enum pf_hash_engine e)
{
	return e == PF_HASH_ONE;
}

static enum pf_hash_engine fastest(void)
{
	return PF_HASH_ONE;
}

#endif

/* ---- which --------------------------------------------------------------------------------------------- */

enum pf_hash_engine pf_hash_engine(void)
{
	int e = __atomic_load_n(&engine_in_use, __ATOMIC_RELAXED);

	if (e == 0) {
		e = (int)fastest();
		__atomic_store_n(&engine_in_use, e, __ATOMIC_RELAXED);
	}
	return (enum pf_hash_engine)e;
}

bool pf_hash_engine_set(enum pf_hash_engine engine)
{
	if (!has(engine))
		return false;
	__atomic_store_n(&engine_in_use, (int)engine, __ATOMIC_RELAXED);
	return true;
}

static void many(const uint8_t *key, const struct pf_hash_job *jobs, size_t n)
{
	enum pf_hash_engine e = pf_hash_engine();

	for (size_t at = 0; at < n; at += MAX_AT_ONCE) {
		size_t k = n - at < MAX_AT_ONCE ? n - at : MAX_AT_ONCE;
		if (e == PF_HASH_ONE)
			one_by_one(key, jobs + at, k);
		else
			in_lanes((int)e, key, jobs + at, k);
	}
}

void pf_sha256_many(const struct pf_hash_job *jobs, size_t n)
{
	many(NULL, jobs, n);
}

void pf_hmac_sha256_many(const uint8_t key[32], const struct pf_hash_job *jobs, size_t n)
{
	many(key, jobs, n);
}
