/* A store of one's own below /tmp with packs in it: for the tests of packs. */
#ifndef TEST_PACKS_WORLD_H
#define TEST_PACKS_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "checkpoint/packs_int.h"
#include "checkpoint/seal.h"

#define must(x)                                            \
	do {                                               \
		if ((x) < 0)                               \
			fail_msg("%s: %s", #x, w_err.msg); \
	} while (0)

static struct pf_err w_err;
static char w_path[100];
static int w_store = -1;
static struct pf_seal *w_seal; /* NULL: plain */
static uint64_t w_state = 88172645463325252u;

static inline uint64_t w_rnd(void)
{
	w_state ^= w_state << 13;
	w_state ^= w_state >> 7;
	w_state ^= w_state << 17;
	return w_state;
}

/* Chunk i of a test: half of them compress well, half do not. Returns the length. */
static inline size_t w_chunk(unsigned i, uint8_t *out)
{
	uint64_t x = UINT64_C(0x9e3779b97f4a7c15) ^ (i + 1) * UINT64_C(0x100000001b3);
	size_t len = 1 + (size_t)(i * 7919u) % 3000;

	for (size_t k = 0; k < len; k++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		out[k] = (uint8_t)(i % 2 ? x >> 30 : (k / 50 + i) & 0x3f);
	}
	out[0] = (uint8_t)i;
	if (len > 1)
		out[1] = (uint8_t)(i >> 8);
	return len;
}

static inline struct pf_kek *w_kek(uint8_t first)
{
	uint8_t key[32] = {first, 1, 2, 3};
	struct pf_kek *k = NULL;

	must(pf_kek_from_bytes(key, &k, &w_err));
	return k;
}

static inline void w_open_in(const char *parent, bool sealed)
{
	w_err = PF_ERR_INIT;
	snprintf(w_path, sizeof(w_path), "%s/pf-packs-%d", parent, (int)getpid());
	assert_int_equal(mkdir(w_path, 0700), 0);
	w_store = open(w_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(w_store >= 0);
	if (sealed) {
		struct pf_kek *k = w_kek(1);
		must(pf_seal_open(w_store, k, true, &w_seal, &w_err));
		pf_kek_free(k);
	}
}

static inline void w_close(void)
{
	struct pf_err err = PF_ERR_INIT;

	pf_seal_free(w_seal);
	w_seal = NULL;
	if (w_store >= 0)
		close(w_store);
	w_store = -1;
	if (w_path[0])
		(void)pf_rm_rf_at(AT_FDCWD, w_path, &err);
	w_path[0] = '\0';
}

static inline struct pf_packs *w_packs(void)
{
	struct pf_packs *p = NULL;

	must(pf_packs_open(w_store, w_seal, &p, &w_err));
	return p;
}

/* A directory for half-made packs. */
static inline int w_tmp(void)
{
	int fd;

	(void)mkdirat(w_store, "tmp", 0700);
	fd = openat(w_store, "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* Store chunks from..to-1 in a pack or packs of their own; 0, or -1 with w_err. */
static inline int w_try_put(unsigned from, unsigned to, struct pf_packs_written *stats)
{
	PF_PACKS struct pf_packs *p = NULL;
	struct pf_packs_writer_opts opts = {.threads = 2};
	struct pf_packs_writer *w = NULL;
	struct pf_packs_written ignored;
	PF_CLOSE int tmp = w_tmp();
	uint8_t data[4096];
	int r = 0;

	if (pf_packs_open(w_store, w_seal, &p, &w_err) < 0 ||
		pf_packs_writer_new(p, tmp, &opts, &w, &w_err) < 0)
		return -1;
	for (unsigned i = from; r == 0 && i < to; i++) {
		struct iovec v = {data, w_chunk(i, data)};
		struct pf_chunk_id id;
		r = pf_packs_put(w, &v, 1, &id, &w_err);
	}
	if (r == 0)
		r = pf_packs_finish(w, stats ? stats : &ignored, &w_err);
	if (r == 0)
		r = pf_packs_publish(w_store, tmp, &w_err);
	pf_packs_writer_free(w);
	return r;
}

static inline void w_put(unsigned from, unsigned to)
{
	must(w_try_put(from, to, NULL));
}

/* Whether chunk i is there and right. */
static inline bool w_good(struct pf_packs *p, unsigned i)
{
	struct pf_err err = PF_ERR_INIT;
	uint8_t data[4096], got[4096];
	size_t len = w_chunk(i, data);
	struct pf_chunk_id id;

	pf_packs_id(p, data, len, &id);
	return pf_packs_has(p, &id, NULL) && pf_packs_read(p, &id, 0, got, len, &err) == 0 &&
	       memcmp(data, got, len) == 0;
}

static inline unsigned w_count_good(unsigned from, unsigned to)
{
	PF_PACKS struct pf_packs *p = w_packs();
	unsigned n = 0;

	for (unsigned i = from; i < to; i++)
		n += w_good(p, i);
	return n;
}

struct w_found {
	unsigned n;
	char last[300];
};

static inline void w_note(void *ctx, const char *pack, const struct pf_chunk_id *id, const char *what)
{
	struct w_found *f = ctx;

	(void)id;
	f->n++;
	snprintf(f->last, sizeof(f->last), "%.8s: %s", pack, what);
}

/* How many things verify finds. */
static inline unsigned w_verify(void)
{
	PF_PACKS struct pf_packs *p = w_packs();
	struct pf_packs_checked stats;
	struct w_found f = {0};

	must(pf_packs_verify(p, w_note, NULL, &f, &stats, &w_err));
	assert_int_equal(stats.damaged, f.n);
	return f.n;
}

/* The one file in packs/ (or tmp/) that ends like this; its path below the store. */
static inline char *w_file(const char *dir, const char *suffix)
{
	PF_FREE char *path = pf_asprintf("%s/%s", w_path, dir);
	PF_CLOSEDIR DIR *d = opendir(path);
	char *found = NULL;
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		if (!pf_ends_with(e->d_name, suffix))
			continue;
		free(found);
		found = pf_asprintf("%s/%s", dir, e->d_name);
	}
	return found;
}

static inline unsigned w_files(const char *suffix)
{
	PF_FREE char *path = pf_asprintf("%s/packs", w_path);
	PF_CLOSEDIR DIR *d = opendir(path);
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)) != NULL)
		n += pf_ends_with(e->d_name, suffix);
	return n;
}

static inline uint8_t *w_slurp(const char *file, size_t *len)
{
	char *data = NULL;

	must(pf_read_file_at(w_store, file, (size_t)1 << 30, &data, len, &w_err));
	return (uint8_t *)data;
}

static inline void w_spill(const char *file, const void *data, size_t len)
{
	PF_CLOSE int fd = openat(w_store, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pf_write_all(fd, data, len), 0);
}

/* Where syncing costs nothing, if there is such a place. */
static inline const char *w_parent(void)
{
	return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

static inline int w_plain_setup(void **state)
{
	(void)state;
	w_open_in(w_parent(), false);
	return 0;
}

static inline int w_sealed_setup(void **state)
{
	(void)state;
	w_open_in(w_parent(), true);
	return 0;
}

static inline int w_teardown(void **state)
{
	(void)state;
	w_close();
	return 0;
}

/* The same promise of both domains. */
#define both_domains(test)                                               \
	{"plain: " #test, test, w_plain_setup, w_teardown, NULL},        \
	{                                                                \
		"sealed: " #test, test, w_sealed_setup, w_teardown, NULL \
	}

#endif
