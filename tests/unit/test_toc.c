/* What a table of contents stands on: a layer in frames that can be read one by one, the same bytes however
 * its parts were handed over, and the sum by which tar-split knows a file.
 *
 * parallel-safe */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "checkpoint/crc64.h"
#include "checkpoint/sha256.h"
#include "checkpoint/tarout.h"

#define SIZE ((size_t)11 << 20) /* more than there are buffers */

static uint8_t *data_;
/* Where frames are cut: nothing between two, a byte, more than a frame may have, what fills a buffer. */
static const size_t cuts_[] = {0, 1, 1, 1000, 700000, 1048576, 1048577, 2000000, 5242880, SIZE - 1};
#define N_CUTS (sizeof(cuts_) / sizeof(*cuts_))

static int setup(void **state)
{
	uint64_t x = 88172645463325252u;

	(void)state;
	data_ = malloc(SIZE);
	for (size_t i = 0; i < SIZE; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		data_[i] = (uint8_t)("abcdefgh"[x >> 61]);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(data_);
	return 0;
}

struct written {
	uint8_t *blob;
	size_t len;
	int64_t offsets[N_CUTS];
	struct pf_tarout_result r;
};

/* In pieces of at most `piece` bytes. */
static struct written write_frames(size_t piece)
{
	struct pf_err err = PF_ERR_INIT;
	PF_CLOSE int fd = memfd_create("frames", MFD_CLOEXEC);
	struct pf_tarout *o = pf_tarout_frames(fd, 0, &err);
	struct written w = {0};
	size_t numbers[N_CUTS], at = 0;
	struct stat st;

	assert_non_null(o);
	pf_tarout_leave_end(o);
	for (size_t i = 0; i <= N_CUTS; i++) {
		size_t end = i < N_CUTS ? cuts_[i] : SIZE;
		while (at < end) {
			size_t n = end - at < piece ? end - at : piece;
			assert_int_equal(pf_tarout_write(o, data_ + at, n, &err), 0);
			at += n;
		}
		if (i < N_CUTS)
			numbers[i] = pf_tarout_cut(o);
	}
	assert_int_equal(pf_tarout_end_frames(o, &err), 0);
	for (size_t i = 0; i < N_CUTS; i++)
		w.offsets[i] = pf_tarout_offset(o, numbers[i]);
	assert_int_equal(pf_tarout_append(o, "behind", 6, &err), 0);
	assert_int_equal(pf_tarout_finish(o, &w.r, &err), 0);
	assert_int_equal(fstat(fd, &st), 0);
	w.len = (size_t)st.st_size;
	w.blob = malloc(w.len);
	assert_int_equal(pread(fd, w.blob, w.len, 0), st.st_size);
	return w;
}

/* Each stretch between two cuts is what the frames between their offsets give, and none is longer than 1 MiB.
 */
static void test_frames(void **state)
{
	struct written w = write_frames(SIZE);
	uint8_t *out = malloc(SIZE);
	struct pf_digest d;

	(void)state;
	assert_int_equal(w.offsets[0], 0);
	assert_int_equal(w.offsets[1], w.offsets[2]);
	for (size_t i = 0; i < N_CUTS; i++) {
		size_t end = i + 1 < N_CUTS ? cuts_[i + 1] : SIZE, len = end - cuts_[i];
		size_t from = (size_t)w.offsets[i],
		       to = i + 1 < N_CUTS ? (size_t)w.offsets[i + 1] : w.len - 6;
		assert_int_equal(ZSTD_decompress(out, SIZE, w.blob + from, to - from), len);
		assert_memory_equal(out, data_ + cuts_[i], len);
		while (from < to) {
			size_t n = ZSTD_findFrameCompressedSize(w.blob + from, to - from);
			assert_false(ZSTD_isError(n));
			assert_in_range(ZSTD_getFrameContentSize(w.blob + from, n), 1, 1 << 20);
			from += n;
		}
	}
	assert_memory_equal(w.blob + w.len - 6, "behind", 6);
	assert_int_equal(w.r.size, w.len);
	assert_int_equal(w.r.tar_size, SIZE);
	pf_sha256_digest(w.blob, w.len, &d);
	assert_string_equal(w.r.digest.s, d.s);
	pf_sha256_digest(data_, SIZE, &d);
	assert_string_equal(w.r.diff_id.s, d.s);
	free(out);
	free(w.blob);
}

/* The blob depends on what was written and where it was cut, not on the pieces it came in. */
static void test_pieces(void **state)
{
	static const size_t pieces[] = {4099, 65536, 999999};
	struct written a = write_frames(SIZE);

	(void)state;
	for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		struct written b = write_frames(pieces[i]);
		assert_string_equal(a.r.digest.s, b.r.digest.s);
		assert_memory_equal(a.offsets, b.offsets, sizeof(a.offsets));
		free(b.blob);
	}
	free(a.blob);
}

/* A full disk is an error of whoever writes, whenever it is found. */
static void test_full(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_tarout_result r;
	PF_CLOSE int fd = open("/dev/full", O_RDWR | O_CLOEXEC);

	(void)state;
	if (fd < 0)
		skip();
	for (size_t n = 0; n < 2; n++) {
		struct pf_tarout *o = pf_tarout_frames(fd, 0, &err);
		int bad = 0;
		for (size_t i = 0; i < (n ? SIZE : 1000) && bad == 0; i += 1000) {
			bad = pf_tarout_write(o, data_, 1000, &err);
			(void)pf_tarout_cut(o);
		}
		if (bad < 0)
			pf_tarout_abort(o);
		else
			assert_int_equal(pf_tarout_finish(o, &r, &err), -1);
		assert_int_equal(err.errnum, ENOSPC);
	}
}

static void test_crc64(void **state)
{
	(void)state;
	assert_true(pf_crc64(0, "", 0) == 0);
	assert_true(pf_crc64(0, "123456789", 9) == UINT64_C(0xb90956c775a41001));
	for (size_t cut = 0; cut < 40; cut++) {
		uint64_t part = pf_crc64(0, data_ + 1, cut);
		assert_true(pf_crc64(part, data_ + 1 + cut, 100 - cut) == pf_crc64(0, data_ + 1, 100));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_crc64),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
