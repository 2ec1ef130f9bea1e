/* Damage and malice: a pack or an index that is not what was written is found, and leads nowhere.
 *
 * parallel-safe */
#include "tests/unit/packs_world.h"

#include <zlib.h>

#define CHUNKS 12

static struct pf_seal_key *key_of_pack(const char *name)
{
	struct pf_seal_key *k = pf_calloc(1, sizeof(*k));
	PF_FREE char *file = pf_asprintf("packs/%s.key", name);
	PF_FREE uint8_t *head = NULL;
	size_t len = 0;

	head = w_slurp(file, &len);
	must(pf_seal_key_open(&w_seal->kek, "pack", name, head, k, &w_err));
	return k;
}

/* Bytes of a file of the pack are changed in turn: all of the index, of frames some. What that does must be
 * found by verify, or be harmless (a zstd frame has bits that mean nothing; under encryption there are none);
 * no read gives wrong data, and all chunks are there still unless their own frame was hit. */
static void flip_all(const char *suffix, unsigned lost_at_most)
{
	PF_FREE char *file = w_file("packs", suffix);
	PF_FREE uint8_t *bytes = NULL;
	size_t len = 0;

	assert_non_null(file);
	bytes = w_slurp(file, &len);
	for (size_t i = 0; i<len; i += i> 100 && i + 800 < len ? 1 + i % 31 : 1) {
		uint8_t mask = (uint8_t)(1u << (i % 8));
		bytes[i] ^= mask;
		w_spill(file, bytes, len);
		if (w_verify() == 0 && (w_seal || w_count_good(0, CHUNKS) < CHUNKS))
			fail_msg("byte %zu of %s: not found", i, suffix);
		if (w_count_good(0, CHUNKS) + lost_at_most < CHUNKS)
			fail_msg("byte %zu of %s: more is lost than was damaged", i, suffix);
		bytes[i] ^= mask;
	}
	w_spill(file, bytes, len);
	assert_int_equal(w_verify(), 0);
	assert_int_equal(w_count_good(0, CHUNKS), CHUNKS);
}

/* Promise: a changed byte anywhere in a pack or its index is found by verify, and costs one chunk at most. */
static void test_flip(void **state)
{
	(void)state;
	w_put(0, CHUNKS);
	flip_all(".pack", 1);
	flip_all(".idx", 0);
}

/* Promise: a changed byte in a sealed pack's key is seen at once, as damage or as another key's. */
static void test_flip_key(void **state)
{
	PF_FREE char *file = NULL;
	PF_FREE uint8_t *bytes = NULL;
	size_t len = 0;

	(void)state;
	w_put(0, CHUNKS);
	file = w_file("packs", ".key");
	bytes = w_slurp(file, &len);
	for (size_t i = 0; i < len; i++) {
		PF_PACKS struct pf_packs *p = NULL;
		struct pf_err err = PF_ERR_INIT;
		bytes[i] ^= 4;
		w_spill(file, bytes, len);
		int r = pf_packs_open(w_store, w_seal, &p, &err);
		assert_true(r < 0 || pf_packs_unreadable(p) == 1);
		assert_true(r == 0 || err.kind == PF_ERR_INVALID);
		bytes[i] ^= 4;
	}
	w_spill(file, bytes, len);
	assert_int_equal(w_verify(), 0);
}

/* Promise: wherever a pack was cut off, verify tells, and what is before the cut can be read by its index. */
static void test_truncated(void **state)
{
	PF_FREE char *file = NULL;
	PF_FREE uint8_t *bytes = NULL;
	size_t len = 0, was = 0;

	(void)state;
	w_put(0, CHUNKS);
	file = w_file("packs", ".pack");
	bytes = w_slurp(file, &len);
	for (size_t n = 0; n < len; n += 1 + n / 60) {
		unsigned good;
		w_spill(file, bytes, n);
		assert_true(w_verify() > 0);
		good = w_count_good(0, CHUNKS);
		assert_true(good >= was && good <= CHUNKS);
		was = good;
	}
	assert_int_equal(was, CHUNKS); /* the footer alone was missing */
	w_spill(file, bytes, len);
	PF_FREE char *idx = w_file("packs", ".idx");
	PF_FREE uint8_t *index = w_slurp(idx, &len);
	for (size_t n = 0; n < len; n += 1 + n / 60) {
		w_spill(idx, index, n);
		assert_true(w_verify() > 0);
		assert_int_equal(w_count_good(0, CHUNKS), CHUNKS);
	}
	assert_int_equal(unlinkat(w_store, idx, 0), 0);
	assert_int_equal(w_verify(), 1);
	assert_int_equal(w_count_good(0, CHUNKS), CHUNKS);
	/* The pack gone, the index there: damage, and not nothing. */
	w_spill(idx, index, len);
	assert_int_equal(unlinkat(w_store, file, 0), 0);
	assert_int_equal(w_verify(), 1);
	assert_int_equal(w_count_good(0, CHUNKS), 0);
}

/* Promise: an index that is missing or damaged is made anew from the pack, and equals the one that was lost;
 * likewise the footer from the index; without any key. Where both are gone that is told. */
static void test_repair(void **state)
{
	PF_FREE char *pack = NULL;
	PF_FREE char *idx = NULL;
	PF_FREE uint8_t *pack_bytes = NULL;
	PF_FREE uint8_t *idx_bytes = NULL;
	PF_FREE uint8_t *now = NULL;
	struct w_found found = {0};
	size_t pack_len = 0, idx_len = 0, len = 0;
	int64_t n = -1;

	(void)state;
	w_put(0, CHUNKS);
	pack = w_file("packs", ".pack");
	idx = w_file("packs", ".idx");
	pack_bytes = w_slurp(pack, &pack_len);
	idx_bytes = w_slurp(idx, &idx_len);
	must(pf_packs_repair(w_store, w_note, &found, &n, &w_err));
	assert_int_equal(n + found.n, 0);

	assert_int_equal(unlinkat(w_store, idx, 0), 0);
	must(pf_packs_repair(w_store, w_note, &found, &n, &w_err));
	assert_int_equal(n, 1);
	now = w_slurp(idx, &len);
	assert_int_equal(len, idx_len);
	assert_memory_equal(now, idx_bytes, len);

	w_spill(idx, idx_bytes, idx_len / 2);
	must(pf_packs_repair(w_store, w_note, &found, &n, &w_err));
	assert_int_equal(n, 1);
	assert_int_equal(w_verify(), 0);

	for (size_t cut = 1; cut < idx_len; cut += 97) { /* the footer, and the first byte of the head */
		w_spill(pack, pack_bytes, pack_len - cut);
		must(pf_packs_repair(w_store, w_note, &found, &n, &w_err));
		assert_int_equal(n, 1);
		assert_int_equal(w_verify(), 0);
	}
	pack_bytes[0] ^= 1;
	w_spill(pack, pack_bytes, pack_len);
	pack_bytes[0] ^= 1;
	must(pf_packs_repair(w_store, w_note, &found, &n, &w_err));
	assert_int_equal(n, 1);
	free(pf_take(now));
	now = w_slurp(pack, &len);
	assert_int_equal(len, pack_len);
	assert_memory_equal(now, pack_bytes, len);
	assert_int_equal(found.n, 0);

	w_spill(pack, pack_bytes, pack_len - idx_len - 1); /* a frame is cut */
	must(pf_packs_repair(w_store, w_note, &found, &n, &w_err));
	assert_int_equal(n, 0);
	assert_int_equal(found.n, 1);
	w_spill(idx, "x", 1);
	must(pf_packs_repair(w_store, w_note, &found, &n, &w_err));
	assert_int_equal(found.n, 2);
	assert_true(w_verify() > 0);
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

/* Decode a block after a change, with its checksum made right again. */
static int decode(uint8_t *block, size_t len, const uint8_t id[16])
{
	struct pf_pack_index x = {0};
	struct pf_err err = PF_ERR_INIT;
	int r;

	put32(block + len - 16, (uint32_t)crc32_z(0, block, len - 16));
	r = pf_pack_index_decode(block, len, id, NULL, &x, &err);
	free(x.entries);
	assert_true(r == 0 || err.kind == PF_ERR_CORRUPT);
	return r;
}

/* Promise: an index that somebody made up, checksum and all, is refused if it leads out of the pack, asks for
 * much memory, is not sorted or does not add up. */
static void test_hostile_index(void **state)
{
	static const uint32_t numbers[] = {
		0, 1, 15, 31, 4096, 262145, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff};
	PF_FREE char *file = NULL;
	PF_FREE uint8_t *block = NULL;
	PF_FREE uint8_t *copy = NULL;
	uint8_t id[16];
	size_t len = 0;

	(void)state;
	w_put(0, CHUNKS);
	file = w_file("packs", ".idx");
	block = w_slurp(file, &len);
	copy = malloc(len);
	memcpy(id, block + 8, 16);
	memcpy(copy, block, len);
	assert_int_equal(decode(copy, len, id), 0);
	static const size_t fields[] = {
		24, 28, 32, 36, 40 + 32, 40 + 36, 40 + 40, 40 + 44, 40 + 48 + 32, 40 + 48 + 36};
	for (size_t f = 0; f < sizeof(fields) / sizeof(fields[0]); f++) {
		for (size_t n = 0; n < sizeof(numbers) / sizeof(numbers[0]); n++) {
			memcpy(copy, block, len);
			put32(copy + fields[f], numbers[n]);
			if (memcmp(copy, block, len) == 0)
				continue;
			/* What can be right by itself: another place of the same length, another codec or
			 * length. */
			bool possible = fields[f] >= 72 && (fields[f] - 40) % 48 != 36;
			if (decode(copy, len, id) == 0 && !possible)
				fail_msg("field at %zu = %u was believed", fields[f], numbers[n]);
		}
	}
	/* The same id twice, and out of order. */
	memcpy(copy, block, len);
	memcpy(copy + 40 + 48, copy + 40, 32);
	assert_int_equal(decode(copy, len, id), -1);
	memcpy(copy, block, len);
	copy[40] = 0xff;
	copy[41] = 0xff;
	assert_int_equal(decode(copy, len, id), -1);
	/* Two entries over each other: nothing leaves the pack, and verify tells. */
	memcpy(copy, block, len);
	memcpy(copy + 40 + 48 + 32, copy + 40 + 32, 4);
	put32(copy + len - 16, (uint32_t)crc32_z(0, copy, len - 16));
	w_spill(file, copy, len);
	assert_true(w_verify() > 0);
	for (size_t n = 0; n < len; n++) {
		uint8_t *exact = malloc(n ? n : 1); /* so that reading beyond it is seen */
		memcpy(exact, block, n);
		struct pf_pack_index x;
		struct pf_err err = PF_ERR_INIT;
		assert_int_equal(pf_pack_index_decode(exact, n, id, NULL, &x, &err), -1);
		free(exact);
	}
}

/* Promise: frames that were made up cannot unpack to more than their index says, nor to another chunk. */
static void test_hostile_frame(void **state)
{
	PF_PACKS struct pf_packs *p = NULL;
	PF_FREE char *file = NULL;
	PF_FREE uint8_t *bytes = NULL;
	size_t len = 0;

	(void)state;
	w_put(0, CHUNKS);
	file = w_file("packs", ".pack");
	bytes = w_slurp(file, &len);
	p = w_packs();
	for (int round = 0; round < 2000; round++) {
		struct pf_scratch *s = pf_scratch_take(p, &w_err);
		const struct pf_pack_entry *e = &p->packs[0].x.entries[w_rnd() % p->packs[0].x.count];
		struct pf_err err = PF_ERR_INIT;
		PF_FREE uint8_t *frame = malloc(e->stored);
		PF_FREE uint8_t *out = malloc(e->len);
		memcpy(frame, bytes + e->offset, e->stored);
		size_t at = w_rnd() % (e->stored < 40 ? e->stored : 40);
		frame[at] = (uint8_t)(frame[at] + 1 + w_rnd() % 255);
		if (pf_pack_expand(p, e, s, frame, e->stored, out, &err) == 0) {
			struct pf_chunk_id id; /* a bit that means nothing */
			pf_packs_id(p, out, e->len, &id);
			assert_memory_equal(id.b, e->id.b, 32);
		} else {
			assert_int_equal(err.kind, PF_ERR_CORRUPT);
		}
		pf_scratch_give(p, s);
	}
}

/* Promise: a sealed pack cannot be put together from pieces: frames moved within it or taken from another
 * pack, another pack's index or key. */
static void test_sealed_swap(void **state)
{
	PF_FREE struct pf_pack_files *files = NULL;
	PF_CLOSE int dirfd = -1;
	size_t n = 0, len_a = 0, len_b = 0;

	(void)state;
	w_put(0, CHUNKS);
	w_put(CHUNKS, 2 * CHUNKS);
	dirfd = openat(w_store, "packs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(pf_pack_scan(dirfd, &files, &n, &w_err));
	assert_int_equal(n, 2);
	static const char *const suffixes[] = {"pack", "idx", "key"};
	for (size_t i = 0; i < 3; i++) {
		PF_FREE char *a = pf_asprintf("packs/%s.%s", files[0].name, suffixes[i]);
		PF_FREE char *b = pf_asprintf("packs/%s.%s", files[1].name, suffixes[i]);
		PF_FREE uint8_t *bytes_a = w_slurp(a, &len_a);
		PF_FREE uint8_t *bytes_b = w_slurp(b, &len_b);
		w_spill(a, bytes_b, len_b);
		assert_true(w_verify() > 0);
		w_spill(a, bytes_a, len_a);
		assert_int_equal(w_verify(), 0);
	}
	/* Two frames of one length change places: the index still fits, the chunks do not open. */
	PF_FREE struct pf_seal_key *k = key_of_pack(files[0].name);
	PF_FREE uint8_t *out = malloc(PF_CHUNK_MAX);
	PF_FREE char *a = pf_asprintf("packs/%s.pack", files[0].name);
	PF_FREE uint8_t *bytes = w_slurp(a, &len_a);
	PF_PACKS struct pf_packs *p = w_packs();
	for (uint32_t i = 0; i < p->packs[0].x.count; i++) {
		const struct pf_pack_entry *e = &p->packs[0].x.entries[i];
		struct pf_err err = PF_ERR_INIT;
		must(pf_aead_open(
			k, PF_SEAL_USE_CHUNK, e->offset, NULL, 0, bytes + e->offset, e->stored, out, &w_err));
		assert_int_equal(pf_aead_open(k, PF_SEAL_USE_CHUNK, e->offset + 1, NULL, 0, bytes + e->offset,
					 e->stored, out, &err),
			-1);
		assert_int_equal(pf_aead_open(k, PF_SEAL_USE_INDEX, e->offset, NULL, 0, bytes + e->offset,
					 e->stored, out, &err),
			-1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		both_domains(test_flip),
		cmocka_unit_test_setup_teardown(test_flip_key, w_sealed_setup, w_teardown),
		both_domains(test_truncated),
		both_domains(test_repair),
		cmocka_unit_test_setup_teardown(test_hostile_index, w_plain_setup, w_teardown),
		cmocka_unit_test_setup_teardown(test_hostile_frame, w_plain_setup, w_teardown),
		cmocka_unit_test_setup_teardown(test_sealed_swap, w_sealed_setup, w_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
