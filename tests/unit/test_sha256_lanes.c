/* Many hashes side by side are what libcrypto says they are, one by one: whatever the lengths, in whatever
 * company, with every way of computing them that this processor has.
 *
 * parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants those first */
#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/sha256_lanes.h"

#define MAX_LEN ((size_t)256 << 10)
#define MAX_JOBS 5000

static uint8_t *text; /* 2 * MAX_LEN random bytes */
static struct pf_hash_job jobs[MAX_JOBS];
static uint8_t digests[MAX_JOBS][32];
static const uint8_t key[32] = "a key of thirty-two bytes, zeros";

static uint64_t seed = 0x1234567;

static size_t below(size_t n)
{
	seed = seed * 6364136223846793005U + 1442695040888963407U;
	return (size_t)(seed >> 33) % n;
}

static void compare(size_t n)
{
	unsigned len = 32;
	uint8_t want[32];

	memset(digests, 0xaa, sizeof(digests));
	pf_sha256_many(jobs, n);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(EVP_Digest(jobs[i].data, jobs[i].len, want, &len, EVP_sha256(), NULL), 1);
		assert_memory_equal(want, digests[i], 32);
	}
	memset(digests, 0xaa, sizeof(digests));
	pf_hmac_sha256_many(key, jobs, n);
	for (size_t i = 0; i < n; i++) {
		assert_non_null(HMAC(EVP_sha256(), key, 32, jobs[i].data, jobs[i].len, want, &len));
		assert_memory_equal(want, digests[i], 32);
	}
}

static void job(size_t i, size_t len)
{
	/* At any alignment. */
	jobs[i] = (struct pf_hash_job){text + below(2 * MAX_LEN - len + 1), len, digests[i]};
}

static bool use(enum pf_hash_engine e)
{
	if (pf_hash_engine_set(e))
		return true;
	print_message("this processor cannot do %d at once\n", (int)e);
	skip();
	return false;
}

static void every_short_length(enum pf_hash_engine e)
{
	if (!use(e))
		return;
	for (size_t i = 0; i <= 300; i++)
		job(i, i);
	compare(301);
	/* Each in the company of its like, so that padding of one and of two blocks meet. */
	for (size_t len = 0; len <= 300; len++) {
		for (size_t i = 0; i < 17; i++)
			job(i, len);
		compare(17);
	}
}

static void mixed_lengths(enum pf_hash_engine e)
{
	if (!use(e))
		return;
	for (int round = 0; round < 12; round++) {
		size_t n = 1 + below(40);
		for (size_t i = 0; i < n; i++)
			job(i, below(4) ? below(3000) : below(MAX_LEN + 1));
		compare(n);
	}
	job(0, MAX_LEN);
	compare(1);
	compare(0);
	for (size_t i = 0; i < MAX_JOBS; i++)
		job(i, below(200));
	compare(MAX_JOBS);
}

/* The end of the data is the end of what is read: the last lane of a batch must not look behind it. */
static void nothing_behind_the_end(enum pf_hash_engine e)
{
	uint8_t *exact[40];

	if (!use(e))
		return;
	for (size_t i = 0; i < 40; i++) {
		/* ASan sees what reads beyond these. */
		size_t len = 1 + below(2000);
		exact[i] = malloc(len);
		assert_non_null(exact[i]);
		memcpy(exact[i], text, len);
		jobs[i] = (struct pf_hash_job){exact[i], len, digests[i]};
	}
	compare(40);
	for (size_t i = 0; i < 40; i++)
		free(exact[i]);
}

#define TESTS(name, engine)                     \
	static void name##_short(void **state)  \
	{                                       \
		(void)state;                    \
		every_short_length(engine);     \
	}                                       \
	static void name##_mixed(void **state)  \
	{                                       \
		(void)state;                    \
		mixed_lengths(engine);          \
		nothing_behind_the_end(engine); \
	}
TESTS(one, PF_HASH_ONE)
TESTS(eight, PF_HASH_LANES8)
TESTS(sixteen, PF_HASH_LANES16)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_short),
		cmocka_unit_test(one_mixed),
		cmocka_unit_test(eight_short),
		cmocka_unit_test(eight_mixed),
		cmocka_unit_test(sixteen_short),
		cmocka_unit_test(sixteen_mixed),
	};

	text = malloc(2 * MAX_LEN);
	if (!text)
		return 1;
	for (size_t i = 0; i < 2 * MAX_LEN; i++)
		text[i] = (uint8_t)below(256);
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	free(text);
	return r;
}
