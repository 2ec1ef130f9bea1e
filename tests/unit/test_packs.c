/* Packs do what they promise when nothing is wrong: what was put is there, once, and goes when nobody needs
 * it. Each test is run in the plain and in the sealed domain.
 *
 * parallel-safe */
#include "tests/unit/packs_world.h"

#include <pthread.h>

/* Promise: chunks come back as they were, in whole and in part, from a handle opened later. */
static void test_round_trip(void **state)
{
	PF_PACKS struct pf_packs *p = NULL;

	(void)state;
	w_put(0, 500);
	p = w_packs();
	for (unsigned i = 0; i < 500; i++) {
		uint8_t data[4096], got[4096];
		size_t len = w_chunk(i, data);
		struct pf_chunk_id id;
		uint32_t there = 0;
		pf_packs_id(p, data, len, &id);
		assert_true(pf_packs_has(p, &id, &there));
		assert_int_equal(there, len);
		must(pf_packs_read(p, &id, 0, got, len, &w_err));
		assert_memory_equal(got, data, len);
		must(pf_packs_read(p, &id, (uint32_t)(len / 3), got, len - len / 3, &w_err));
		assert_memory_equal(got, data + len / 3, len - len / 3);
		must(pf_packs_read(p, &id, (uint32_t)len, got, 0, &w_err));
		assert_int_equal(pf_packs_read(p, &id, 1, got, len, &w_err), -1);
		assert_int_equal(w_err.kind, PF_ERR_CORRUPT);
		assert_int_equal(pf_packs_read(p, &id, UINT32_MAX, got, 1, &w_err), -1);
	}
	assert_int_equal(w_verify(), 0);
	assert_int_equal(pf_packs_unreadable(p), 0);
}

/* Promise: a chunk is stored once, whether the store or the writer itself had it before, and the statistics
 * say so. */
static void test_dedup(void **state)
{
	struct pf_packs_written s;

	(void)state;
	must(w_try_put(0, 100, &s));
	assert_int_equal(s.chunks, 100);
	assert_int_equal(s.new_chunks, 100);
	assert_int_equal(s.packs, 1);
	assert_true(s.stored_bytes > 0);
	must(w_try_put(0, 100, &s));
	assert_int_equal(s.chunks, 100);
	assert_int_equal(s.new_chunks, 0);
	assert_int_equal(s.stored_bytes, 0);
	assert_int_equal(w_files(".pack"), 1);
	must(w_try_put(50, 150, &s));
	assert_int_equal(s.new_chunks, 50);

	PF_PACKS struct pf_packs *p = w_packs();
	struct pf_packs_writer_opts opts = {0};
	struct pf_packs_writer *w = NULL;
	PF_CLOSE int tmp = w_tmp();
	struct pf_chunk_id ids[9];
	struct iovec v[9];
	uint8_t data[4096];
	size_t len = w_chunk(1000, data);
	must(pf_packs_writer_new(p, tmp, &opts, &w, &w_err));
	for (int i = 0; i < 9; i++)
		v[i] = (struct iovec){data, len};
	must(pf_packs_put(w, v, 9, ids, &w_err));
	assert_memory_equal(&ids[0], &ids[8], sizeof(ids[0]));
	must(pf_packs_finish(w, &s, &w_err));
	assert_int_equal(s.new_chunks, 1);
	assert_int_equal(s.chunks, 9);
	pf_packs_writer_free(w);
}

/* Promise: the sizes that the statistics and the totals give are those of the files. */
static void test_totals(void **state)
{
	PF_PACKS struct pf_packs *p = NULL;
	struct pf_packs_totals t;
	struct pf_packs_written s;
	int64_t bytes = 0;

	(void)state;
	must(w_try_put(0, 300, &s));
	static const char *const suffixes[] = {".pack", ".idx", ".key"};
	for (size_t i = 0; i < 3; i++) {
		PF_FREE char *file = w_file("packs", suffixes[i]);
		struct stat st;
		if (!file)
			continue;
		assert_int_equal(fstatat(w_store, file, &st, 0), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
		bytes += st.st_size;
	}
	assert_int_equal(s.stored_bytes, bytes);
	p = w_packs();
	pf_packs_totals(p, &t);
	assert_int_equal(t.file_bytes, bytes);
	assert_int_equal(t.chunks, 300);
	assert_int_equal(t.bytes, s.new_bytes);
	assert_true(t.stored_bytes < t.bytes);
	assert_int_equal(t.packs, 1);
}

struct putter {
	struct pf_packs_writer *w;
	unsigned from;
	int result;
};

static void *put_some(void *arg)
{
	struct putter *t = arg;
	struct pf_err err = PF_ERR_INIT;
	uint8_t *data = malloc(PF_CHUNK_MAX);

	for (unsigned i = t->from; i < t->from + 400 && t->result == 0; i++) {
		struct pf_chunk_id id;
		struct iovec v = {data, w_chunk(i, data)};
		/* Large ones, too, so that packs are filled and changed. */
		if (i % 4 == 0) {
			for (size_t k = v.iov_len; k < PF_CHUNK_MAX; k++)
				data[k] = (uint8_t)((k * (i + 3) * 2654435761u) >> 13);
			v.iov_len = PF_CHUNK_MAX - i;
		}
		t->result = pf_packs_put(t->w, &v, 1, &id, &err);
	}
	free(data);
	return NULL;
}

static void *read_some(void *arg)
{
	struct pf_packs *p = arg;
	uintptr_t wrong = 0;

	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < 1000; i++)
			wrong += i % 4 != 0 && !w_good(p, i);
	return (void *)wrong;
}

/* Promise: several threads may put (the same and other chunks) and read at once. */
static void test_threads(void **state)
{
	PF_PACKS struct pf_packs *p = w_packs();
	struct pf_packs_writer_opts opts = {.threads = 3, .level = 1};
	struct pf_packs_writer *w = NULL;
	PF_CLOSE int tmp = w_tmp();
	struct putter t[4];
	pthread_t id[4];
	struct pf_packs_written s;

	(void)state;
	must(pf_packs_writer_new(p, tmp, &opts, &w, &w_err));
	for (unsigned i = 0; i < 4; i++) {
		t[i] = (struct putter){.w = w, .from = i * 200};
		assert_int_equal(pthread_create(&id[i], NULL, put_some, &t[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(id[i], NULL);
		assert_int_equal(t[i].result, 0);
	}
	must(pf_packs_finish(w, &s, &w_err));
	pf_packs_writer_free(w);
	must(pf_packs_publish(w_store, tmp, &w_err));
	assert_int_equal(s.chunks, 1600);
	assert_int_equal(s.new_chunks, 1000);
	assert_int_equal(w_verify(), 0);
	pf_packs_free(p);
	p = w_packs();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&id[i], NULL, read_some, p), 0);
	for (unsigned i = 0; i < 4; i++) {
		void *wrong;
		pthread_join(id[i], &wrong);
		assert_null(wrong);
	}
}

/* Promise: a pack is closed at 64 MiB, and what is in several packs is found in all of them. */
static void test_many_packs(void **state)
{
	PF_PACKS struct pf_packs *p = w_packs();
	struct pf_packs_writer_opts opts = {.level = 1};
	struct pf_packs_writer *w = NULL;
	PF_CLOSE int tmp = w_tmp();
	PF_FREE uint8_t *data = malloc(PF_CHUNK_MAX);
	struct pf_packs_written s;
	struct pf_chunk_id id;
	struct iovec v = {data, PF_CHUNK_MAX};

	(void)state;
	must(pf_packs_writer_new(p, tmp, &opts, &w, &w_err));
	for (size_t k = 0; k < PF_CHUNK_MAX; k++)
		data[k] = (uint8_t)(w_rnd() >> 20);
	for (unsigned i = 0; i < 300; i++) { /* 75 MiB that do not compress */
		memcpy(data, &i, sizeof(i));
		must(pf_packs_put(w, &v, 1, &id, &w_err));
	}
	must(pf_packs_finish(w, &s, &w_err));
	pf_packs_writer_free(w);
	must(pf_packs_publish(w_store, tmp, &w_err));
	assert_int_equal(s.packs, 2);
	pf_packs_free(p);
	p = w_packs();
	for (unsigned i = 0; i < 300; i++) {
		memcpy(data, &i, sizeof(i));
		pf_packs_id(p, data, PF_CHUNK_MAX, &id);
		assert_true(pf_packs_has(p, &id, NULL));
	}
}

static bool live_even(void *ctx, const struct pf_chunk_id *id)
{
	struct pf_packs *p = ctx;
	uint8_t data[4096];

	for (unsigned i = 0; i < 400; i += 2) {
		struct pf_chunk_id here;
		pf_packs_id(p, data, w_chunk(i, data), &here);
		if (memcmp(&here, id, sizeof(here)) == 0)
			return true;
	}
	return false;
}

static bool live_all(void *ctx, const struct pf_chunk_id *id)
{
	(void)ctx;
	(void)id;
	return true;
}

static bool live_none(void *ctx, const struct pf_chunk_id *id)
{
	(void)ctx;
	(void)id;
	return false;
}

static void sweep(bool (*live)(void *ctx, const struct pf_chunk_id *id),
	const struct pf_packs_sweep_opts *opts, struct pf_packs_swept *s)
{
	PF_PACKS struct pf_packs *p = w_packs();
	PF_CLOSE int tmp = w_tmp();

	must(pf_packs_sweep(p, tmp, live, p, opts, s, &w_err));
}

/* Promise: a sweep removes what is dead, keeps what is live, puts small packs together, and does nothing the
 * second time. */
static void test_sweep(void **state)
{
	struct pf_packs_sweep_opts dry = {.dry_run = true}, opts = {0};
	struct pf_packs_swept s;

	(void)state;
	w_put(0, 100);
	w_put(100, 250);
	w_put(250, 400);
	sweep(live_even, &dry, &s);
	assert_int_equal(w_files(".pack"), 3);
	assert_int_equal(w_count_good(0, 400), 400);
	assert_int_equal(s.chunks_removed, 200);
	sweep(live_even, &opts, &s);
	assert_int_equal(s.packs_removed, 3);
	assert_int_equal(s.packs_written, 1);
	assert_int_equal(s.chunks_removed, 200);
	assert_true(s.bytes_freed > 0);
	assert_int_equal(w_files(".pack"), 1);
	assert_int_equal(w_files(".idx"), 1);
	assert_int_equal(w_files(".key"), w_seal ? 1 : 0);
	assert_int_equal(w_verify(), 0);
	assert_int_equal(w_count_good(0, 400), 200);
	sweep(live_even, &opts, &s);
	assert_int_equal(s.packs_removed + s.packs_written + s.chunks_removed, 0);
	sweep(live_none, &opts, &s);
	assert_int_equal(s.packs_removed, 1);
	assert_int_equal(w_files("") - 2, 0); /* . and .. */
}

/* Promise: a chunk that two snapshots stored at the same time is kept once, and the copy that stays is a good
 * one. */
static void test_sweep_copies(void **state)
{
	PF_FREE char *first = NULL;
	PF_FREE char *hidden = NULL;
	PF_FREE uint8_t *bytes = NULL;
	struct pf_packs_sweep_opts opts = {0};
	struct pf_packs_swept s;
	size_t len;

	(void)state;
	/* The second writer does not see the first's pack. */
	w_put(0, 200);
	assert_int_equal(renameat(w_store, "packs", w_store, "aside"), 0);
	w_put(100, 250);
	first = w_file("packs", ".pack");
	bytes = w_slurp(first, &len);
	bytes[40] ^= 1; /* one chunk of the larger pack is damaged */
	w_spill(first, bytes, len);
	static const char *const suffixes[] = {".pack", ".idx", ".key"};
	for (size_t i = 0; i < 3; i++) {
		PF_FREE char *from = w_file("aside", suffixes[i]);
		PF_FREE char *to = from ? pf_asprintf("packs/%s", from + 6) : NULL;
		if (from)
			assert_int_equal(renameat(w_store, from, w_store, to), 0);
	}
	assert_true(w_count_good(0, 250) >= 249);
	sweep(live_all, &opts, &s);
	assert_true(w_count_good(0, 250) >= 249);
	assert_true(w_count_good(0, 200) == 200);
	/* Once more, without damage. */
	sweep(live_none, &opts, &s);
	(void)unlinkat(w_store, "aside", AT_REMOVEDIR);
}

/* Promise: the two domains do not see each other's chunks, and their ids differ for the same bytes. */
static void test_domains(void **state)
{
	PF_PACKS struct pf_packs *sealed = NULL;
	PF_PACKS struct pf_packs *plain = NULL;
	struct pf_chunk_id a, b;

	(void)state;
	w_put(0, 20);
	struct pf_seal *seal = w_seal;
	w_seal = NULL;
	w_put(10, 30);
	plain = w_packs();
	w_seal = seal;
	sealed = w_packs();
	for (unsigned i = 0; i < 30; i++) {
		assert_int_equal(w_good(sealed, i), i < 20);
		assert_int_equal(w_good(plain, i), i >= 10);
	}
	pf_packs_id(sealed, "x", 1, &a);
	pf_packs_id(plain, "x", 1, &b);
	assert_memory_not_equal(&a, &b, sizeof(a));
	/* sha256("x") */
	assert_int_equal(b.b[0], 0x2d);
	assert_int_equal(b.b[1], 0x71);
	assert_int_equal(pf_packs_unreadable(plain) + pf_packs_unreadable(sealed), 0);
}

/* Promise: a store without packs is an empty one; chunks of impossible length are refused. */
static void test_empty(void **state)
{
	PF_PACKS struct pf_packs *p = w_packs();
	struct pf_packs_writer_opts opts = {0}, wrong = {.level = 20};
	struct pf_packs_writer *w = NULL;
	struct pf_packs_written s;
	struct pf_packs_checked c;
	struct pf_packs_swept swept;
	struct pf_packs_sweep_opts sweep_opts = {0};
	PF_CLOSE int tmp = w_tmp();
	PF_FREE uint8_t *big = pf_calloc(1, PF_CHUNK_MAX + 1);
	struct iovec v[2] = {{big, PF_CHUNK_MAX + 1}, {big, 0}};
	struct pf_chunk_id id = {{0}};
	int64_t repaired;

	(void)state;
	assert_false(pf_packs_has(p, &id, NULL));
	assert_int_equal(pf_packs_read(p, &id, 0, big, 1, &w_err), -1);
	assert_int_equal(pf_packs_writer_new(p, tmp, &wrong, &w, &w_err), -1);
	must(pf_packs_writer_new(p, tmp, &opts, &w, &w_err));
	assert_int_equal(pf_packs_put(w, &v[0], 1, &id, &w_err), -1);
	assert_int_equal(pf_packs_put(w, &v[1], 1, &id, &w_err), -1);
	must(pf_packs_finish(w, &s, &w_err));
	pf_packs_writer_free(w);
	must(pf_packs_publish(w_store, tmp, &w_err));
	assert_int_equal(s.packs, 0);
	must(pf_packs_verify(p, NULL, NULL, NULL, &c, &w_err));
	must(pf_packs_repair(w_store, NULL, NULL, &repaired, &w_err));
	must(pf_packs_sweep(p, tmp, live_none, NULL, &sweep_opts, &swept, &w_err));
}

/* Promise: a writer that is given up leaves no thread and no memory behind. */
static void test_given_up(void **state)
{
	PF_PACKS struct pf_packs *p = w_packs();
	struct pf_packs_writer_opts opts = {.threads = 2, .level = 19};
	struct pf_packs_writer *w = NULL;
	PF_CLOSE int tmp = w_tmp();
	uint8_t data[4096];

	(void)state;
	must(pf_packs_writer_new(p, tmp, &opts, &w, &w_err));
	for (unsigned i = 0; i < 200; i++) {
		struct iovec v = {data, w_chunk(i, data)};
		struct pf_chunk_id id;
		must(pf_packs_put(w, &v, 1, &id, &w_err));
	}
	pf_packs_writer_free(w);
	pf_packs_writer_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		both_domains(test_round_trip),
		both_domains(test_dedup),
		both_domains(test_totals),
		both_domains(test_threads),
		both_domains(test_many_packs),
		both_domains(test_sweep),
		both_domains(test_sweep_copies),
		cmocka_unit_test_setup_teardown(test_domains, w_sealed_setup, w_teardown),
		both_domains(test_empty),
		both_domains(test_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
