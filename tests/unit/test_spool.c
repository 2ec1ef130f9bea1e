/* parallel-safe
 * What is set aside while a box stands still comes back as it was, holes and all; sealed, the file that it is
 * in tells nothing and cannot be changed unseen. */
#include "tests/unit/ckpt_tree.h"

#include <dirent.h>

#include "checkpoint/spool.h"

static struct ckpt_env env;

static int setup(void **state)
{
	(void)state;
	env_make(&env, "/tmp");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	env_remove(&env);
	return 0;
}

static const char word[] = "a word that is in no ciphertext";

/* A file of that size, the word all over it, with a hole at each odd one of `parts` parts. */
static int make_file(off_t size, int parts)
{
	int fd = openat(env.fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	char text[1000];

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = word[i % sizeof(word)];
	for (int i = 0; i < parts; i += 2) {
		off_t at = size / parts * i, end = i == parts - 1 ? size : size / parts * (i + 1);
		for (; at < end; at += (off_t)sizeof(text)) {
			size_t n = end - at < (off_t)sizeof(text) ? (size_t)(end - at) : sizeof(text);
			snprintf(text, 32, "%lld of %lld", (long long)at, (long long)size);
			assert_int_equal(pwrite(fd, text, n, at), (ssize_t)n);
		}
	}
	return fd;
}

/* The descriptor of the spool: it has no name any more. */
static int spool_fd(void)
{
	DIR *d = opendir("/proc/self/fd");
	const struct dirent *e;
	char to[300];
	int fd = -1;

	while ((e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, to, sizeof(to) - 1);
		to[n < 0 ? 0 : n] = '\0';
		if (strstr(to, env.dir) && strstr(to, "/spool (deleted)"))
			fd = atoi(e->d_name);
	}
	closedir(d);
	assert_true(fd >= 0);
	return fd;
}

#define LAST 2000000
static const struct {
	off_t size;
	int parts;
} files[] = {{1, 1}, {100, 1}, {65535, 1}, {65536, 1}, {65537, 1}, {3000000, 1}, {200001, 1}, {40 << 20, 41},
	{3000000, 1}, {500000, 61}, {1 << 20, 2}, {70000, 3}, {4096, 1}, {LAST, 1}};
#define N (sizeof(files) / sizeof(files[0]))

static void fill(struct pf_spool *s, int fds[N])
{
	struct pf_err err = PF_ERR_INIT;

	for (size_t i = 0; i < N; i++) {
		fds[i] = make_file(files[i].size, files[i].parts);
		if (pf_spool_put(s, fds[i], files[i].size, files[i].parts > 1, &err) != (int64_t)i)
			fail_msg("put: %s", err.msg);
	}
}

static void done(struct pf_spool *s, const int fds[N])
{
	for (size_t i = 0; i < N; i++)
		close(fds[i]);
	pf_spool_free(s);
}

/* len bytes at off of both are equal. */
static void compare(const struct pf_content_in *in, int fd, off_t off, size_t len)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *a = pf_calloc(1, len + 1), *b = pf_calloc(1, len + 1);

	memset(a, 'x', len);
	if (in->read)
		assert_int_equal(in->read(in->ctx, a, len, off, &err), 0);
	else
		assert_int_equal(pread(in->fd, a, len, in->base + off), (ssize_t)len);
	assert_int_equal(pread(fd, b, len, off), (ssize_t)len);
	if (memcmp(a, b, len) != 0)
		fail_msg("%zu bytes at %lld differ", len, (long long)off);
}

/* Promise: every byte comes back, in whatever pieces it is read, and what is told to be a hole is one. */
static void comes_back(bool sealed)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_spool *s = NULL;
	struct pf_content_in in;
	unsigned seed = 7;
	int fds[N];

	assert_int_equal(pf_spool_new(env.fd, sealed, &s, &err), 0);
	fill(s, fds);
	for (size_t k = 0; k < 2 * N; k++) {
		size_t i = k % 2 ? N - 1 - k / 2 : k / 2;
		off_t size = files[i].size;
		assert_int_equal(pf_spool_get(s, (int64_t)i, &in, &err), 0);
		assert_int_equal(in.read != NULL, sealed);
		compare(&in, fds[i], 0, (size_t)size);
		for (int j = 0; j < 50; j++) {
			seed = seed * 1103515245u + 12345u;
			off_t at = (off_t)(seed >> 1) % size;
			size_t len = 1 + (seed >> 4) % 150000;
			compare(&in, fds[i], at, (off_t)len > size - at ? (size_t)(size - at) : len);
		}
		if (!in.next)
			continue;
		int64_t from = 0, to = 0, at = 0;
		while (in.next(in.ctx, at, &from, &to)) {
			assert_true(from >= at && to > from && to <= size);
			assert_int_equal(lseek(fds[i], from, SEEK_DATA), from);
			if (files[i].parts > 1 && from > at)
				assert_true(lseek(fds[i], at, SEEK_DATA) == from);
			at = to;
		}
		assert_true(at == size || lseek(fds[i], at, SEEK_DATA) < 0);
	}
	done(s, fds);
}

static void clear_comes_back(void **state)
{
	(void)state;
	comes_back(false);
}

static void sealed_comes_back(void **state)
{
	(void)state;
	comes_back(true);
}

/* Whether the word is in it. */
static bool tells(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_size > 4 << 20);
	PF_FREE char *all = pf_calloc(1, (size_t)st.st_size);
	assert_int_equal(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
	return memmem(all, (size_t)st.st_size, word, sizeof(word) - 1) != NULL;
}

/* Promise: the file of a sealed one has nothing in clear, with the search finding it in another's; two of the
 * same data have nothing in common. */
static void sealed_tells_nothing(void **state)
{
	(void)state;
	struct pf_err err = PF_ERR_INIT;
	struct pf_content_in in;
	char one[4096], two[4096];

	for (int sealed = 0; sealed < 3; sealed++) {
		struct pf_spool *s = NULL;
		int fds[N];
		assert_int_equal(pf_spool_new(env.fd, sealed > 0, &s, &err), 0);
		assert_int_equal(faccessat(env.fd, "spool", F_OK, 0), -1);
		fill(s, fds);
		assert_int_equal(pf_spool_get(s, 0, &in, &err), 0);
		int fd = spool_fd();
		assert_int_equal(tells(fd), !sealed);
		assert_int_equal(pread(fd, sealed == 1 ? one : two, sizeof(one), 1 << 20), sizeof(one));
		done(s, fds);
	}
	for (size_t i = 0; i + 16 <= sizeof(one); i += 16)
		assert_memory_not_equal(one + i, two + i, 16);
}

/* Promise: a bit that has changed in the file is found, wherever it is, and so is its end being gone. */
static void sealed_is_checked(void **state)
{
	(void)state;
	struct pf_err err = PF_ERR_INIT;
	struct pf_spool *s = NULL;
	struct pf_content_in in;
	PF_FREE char *all = pf_calloc(1, LAST);
	struct stat st;
	int fds[N];
	char c;

	/* The last file is behind what is kept in memory, somewhere in the last 3 of these MB. */
	assert_int_equal(pf_spool_new(env.fd, true, &s, &err), 0);
	fill(s, fds);
	assert_int_equal(pf_spool_get(s, N - 1, &in, &err), 0);
	assert_int_equal(in.read(in.ctx, all, LAST, 0, &err), 0);
	assert_int_equal(fstat(spool_fd(), &st), 0);
	const off_t places[] = {st.st_size - 1, st.st_size - 17, st.st_size - 200000, st.st_size - 1000000};
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(pread(spool_fd(), &c, 1, places[i]), 1);
		c ^= 4;
		assert_int_equal(pwrite(spool_fd(), &c, 1, places[i]), 1);
		assert_int_equal(pf_spool_get(s, 8, &in, &err), 0); /* another record than the last */
		assert_int_equal(in.read(in.ctx, all, 100, 0, &err), 0);
		assert_int_equal(pf_spool_get(s, N - 1, &in, &err), 0);
		assert_int_equal(in.read(in.ctx, all, LAST, 0, &err), -1);
		assert_int_equal(err.kind, PF_ERR_CORRUPT);
		c ^= 4;
		assert_int_equal(pwrite(spool_fd(), &c, 1, places[i]), 1);
		assert_int_equal(in.read(in.ctx, all, LAST, 0, &err), 0);
	}
	assert_int_equal(ftruncate(spool_fd(), st.st_size - 500000), 0);
	assert_int_equal(in.read(in.ctx, all, LAST, 0, &err), -1);
	done(s, fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(clear_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(sealed_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(sealed_tells_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(sealed_is_checked, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
