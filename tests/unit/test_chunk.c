/* Content-defined chunking: every length within bounds, the same cuts for the same bytes however they are
 * handed over, and cuts that an edit moves only near it.
 *
 * parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "checkpoint/chunk.h"

#define SIZE ((size_t)24 << 20)

static struct pf_chunker chunker;
static uint64_t state_ = 88172645463325252u;

static uint64_t rnd(void)
{
	state_ ^= state_ << 13;
	state_ ^= state_ >> 7;
	state_ ^= state_ << 17;
	return state_;
}

static void fill(uint8_t *d, size_t len)
{
	for (size_t i = 0; i < len; i++)
		d[i] = (uint8_t)(rnd() >> 24);
}

static uint64_t sum_of(const uint8_t *d, size_t len)
{
	uint64_t h = len + 1469598103934665603u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ d[i]) * 1099511628211u;
	return h;
}

struct cuts {
	size_t n;
	size_t at[4096], len[4096];
	uint64_t sum[4096];
};

static void cut_all(const struct pf_chunker *c, const uint8_t *d, size_t len, struct cuts *out)
{
	out->n = 0;
	for (size_t at = 0; at < len;) {
		size_t n = pf_chunk_cut(c, d + at, len - at);
		assert_true(n > 0 && n <= len - at);
		assert_true(out->n < 4096);
		out->at[out->n] = at;
		out->len[out->n] = n;
		out->sum[out->n++] = sum_of(d + at, n);
		at += n;
	}
}

static int setup(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	return pf_chunker_init(&chunker, &pf_chunk_default, NULL, &err);
}

/* Promise: no chunk but a stream's last is shorter than min, none is longer than max, and the average is near
 * the one that was asked for. */
static void test_lengths(void **state)
{
	PF_FREE uint8_t *d = malloc(SIZE);
	PF_FREE struct cuts *c = malloc(sizeof(*c));

	(void)state;
	fill(d, SIZE);
	cut_all(&chunker, d, SIZE, c);
	for (size_t i = 0; i < c->n; i++) {
		assert_true(c->len[i] <= 262144);
		assert_true(c->len[i] >= 16384 || i + 1 == c->n);
	}
	assert_in_range(SIZE / c->n, 50000, 100000);
	/* Nothing to find: the longest there may be. */
	memset(d, 0, SIZE);
	cut_all(&chunker, d, SIZE, c);
	for (size_t i = 0; i + 1 < c->n; i++)
		assert_int_equal(c->len[i], 262144);
	assert_int_equal(pf_chunk_cut(&chunker, d, 0), 0);
	assert_int_equal(pf_chunk_cut(&chunker, d, 1), 1);
	assert_int_equal(pf_chunk_cut(&chunker, d, 16384), 16384);
}

/* Promise: what follows max bytes has no say, so a reader may hand over as much as it happens to have. */
static void test_window(void **state)
{
	PF_FREE uint8_t *d = malloc(SIZE);

	(void)state;
	fill(d, SIZE);
	for (size_t at = 0; at + 262144 < SIZE;) {
		size_t n = pf_chunk_cut(&chunker, d + at, SIZE - at);
		assert_int_equal(pf_chunk_cut(&chunker, d + at, 262144), n);
		assert_int_equal(pf_chunk_cut(&chunker, d + at, n), n);
		at += n;
	}
}

static bool known(const struct cuts *c, uint64_t sum)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->sum[i] == sum)
			return true;
	return false;
}

/* One random edit: bytes inserted, removed or overwritten. Returns the new length. */
static size_t edit(uint8_t *d, size_t len)
{
	size_t at = rnd() % len, n = 1 + rnd() % (rnd() % 4 ? 64 : 100000);

	switch (rnd() % 3) {
	case 0: /* insert */
		memmove(d + at + n, d + at, len - at);
		fill(d + at, n);
		return len + n;
	case 1:
		n = n < len - at ? n : len - at;
		memmove(d + at, d + at + n, len - at - n);
		return len - n;
	default:
		n = n < len - at ? n : len - at;
		fill(d + at, n);
		return len;
	}
}

/* Promise: after an insertion, a deletion or a change anywhere, all chunks are old ones but what holds the
 * edit and at most a handful after it. */
static void test_stable(void **state)
{
	size_t len = (size_t)6 << 20, worst = 0, total = 0;
	PF_FREE uint8_t *d = malloc(len + ((size_t)4 << 20));
	PF_FREE struct cuts *before = malloc(sizeof(*before));
	PF_FREE struct cuts *after = malloc(sizeof(*after));

	(void)state;
	fill(d, len);
	cut_all(&chunker, d, len, before);
	for (int round = 0; round < 60; round++) {
		size_t fresh = 0, n;
		n = edit(d, len);
		cut_all(&chunker, d, n, after);
		for (size_t i = 0; i < after->n; i++)
			fresh += !known(before, after->sum[i]);
		worst = fresh > worst ? fresh : worst;
		total += fresh;
		len = n > (size_t)9 << 20 ? (size_t)6 << 20 : n;
		cut_all(&chunker, d, len, before);
	}
	print_message("new chunks after one edit: %.1f, at most %zu\n", (double)total / 60, worst);
	assert_in_range(worst, 1, 12);
	assert_true(total < 60 * 4);
}

/* Promise: the table of the plain domain is the published one (docs/checkpoints.md), so that other writers
 * can make the same cuts. */
static void test_published(void **state)
{
	(void)state;
	/* sha256("pinfold gear\0\0"), sha256("pinfold gear\0\377"), as little-endian numbers */
	assert_int_equal(chunker.gear[0], UINT64_C(0x613d45344bfc076c));
	assert_int_equal(chunker.gear[255], UINT64_C(0x05a58750cecf93a8));
	assert_int_equal(chunker.early, UINT64_C(0x3ffff) << 46);
	assert_int_equal(chunker.late, UINT64_C(0x3fff) << 50);
}

/* Promise: with a key the cuts are others, and the same key gives the same ones. */
static void test_keyed(void **state)
{
	uint8_t key[32] = {1, 2, 3};
	struct pf_chunker a, b;
	struct pf_err err = PF_ERR_INIT;
	PF_FREE uint8_t *d = malloc((size_t)2 << 20);
	PF_FREE struct cuts *plain = malloc(sizeof(*plain));
	PF_FREE struct cuts *keyed = malloc(sizeof(*keyed));
	size_t same = 0;

	(void)state;
	assert_int_equal(pf_chunker_init(&a, &pf_chunk_default, key, &err), 0);
	assert_int_equal(pf_chunker_init(&b, &pf_chunk_default, key, &err), 0);
	assert_memory_equal(a.gear, b.gear, sizeof(a.gear));
	fill(d, (size_t)2 << 20);
	cut_all(&chunker, d, (size_t)2 << 20, plain);
	cut_all(&a, d, (size_t)2 << 20, keyed);
	for (size_t i = 0; i < keyed->n; i++)
		same += known(plain, keyed->sum[i]);
	assert_true(same <= 1);
}

/* Promise: lengths that make no sense are refused. */
static void test_params(void **state)
{
	static const struct pf_chunk_params wrong[] = {{0, 65536, 262144}, {65536, 65536, 262144},
		{16384, 65537, 262144}, {16384, 65536, 65536}, {16384, 65536, 262145}, {255, 65536, 262144}};
	struct pf_chunker c;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct pf_err err = PF_ERR_INIT;
		assert_int_equal(pf_chunker_init(&c, &wrong[i], NULL, &err), -1);
		assert_int_equal(err.kind, PF_ERR_INVALID);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_stable),
		cmocka_unit_test(test_published),
		cmocka_unit_test(test_keyed),
		cmocka_unit_test(test_params),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
