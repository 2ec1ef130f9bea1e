/* Theory of operation.
 *
 * What is in the spool is a list of runs of data, one after the other in the order in which they came; what
 * lies between the runs of a file are holes. In clear each file begins at a whole block of its own and its
 * runs are as far apart as they were: the spool has the same holes, and the kernel may copy or share blocks.
 *
 * Sealed, the runs follow each other without gaps, as one stream. Its first 16 MiB, which is all where not
 * much has changed, stay in memory, so that the box waits for no cipher. The rest is cut into records of 64
 * KiB and encrypted: AES-256-GCM with the record's number as nonce, under a key that is made for this spool,
 * is in no file and goes with it. */
#include "checkpoint/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "checkpoint/keys.h"
#include "checkpoint/seal_int.h"

#define RECORD ((size_t)65536)
#define STORED (RECORD + PF_SEAL_TAG)
#define HELD 16 /* records that are written at once */
#define MEMORY ((int64_t)16 << 20)

struct run {
	int64_t off, len; /* in the file */
	int64_t at;       /* in the stream */
};

struct file {
	size_t first, n; /* runs */
	int64_t base;    /* in clear: where it begins */
};

struct pf_spool {
	int fd;
	int64_t end; /* in clear: of the file */
	struct run *runs;
	size_t n_runs, cap_runs;
	struct file *files;
	size_t n_files, cap_files;
	/* Sealed. */
	struct pf_seal_key *key;
	uint8_t *memory; /* the first MEMORY bytes of the stream */
	int64_t len;     /* of the stream */
	uint8_t *held;   /* its last n_held bytes, as records with room for their tags */
	size_t n_held;
	uint64_t written;  /* records in the file */
	uint8_t *opened;   /* a record that was read, and its tag */
	int64_t opened_is; /* its number; -1: none */
	const struct file *reading;
};

static uint8_t *alloc(size_t len)
{
	uint8_t *p = malloc(len);

	if (!p)
		abort();
	return p;
}

static int make_key(struct pf_spool *s, struct pf_err *err)
{
	static const char ad[] = "spool";

	s->key = pf_secret_alloc(sizeof(*s->key), err);
	if (!s->key)
		return -1;
	memcpy(s->key->ad, ad, sizeof(ad));
	s->key->ad_len = sizeof(ad);
	if (RAND_priv_bytes(s->key->key, sizeof(s->key->key)) != 1)
		return pf_fail(err, 0, "libcrypto: no random numbers");
	/* Pages come when they are used; large ones, where there are any, cost the box the least. */
	void *m = mmap(
		NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m == MAP_FAILED)
		return pf_fail(err, errno, "memory");
	s->memory = m;
	(void)madvise(m, MEMORY, MADV_HUGEPAGE);
	s->held = alloc(HELD * STORED);
	s->opened = alloc(STORED);
	s->opened_is = -1;
	return 0;
}

int pf_spool_new(int dirfd, bool sealed, struct pf_spool **out, struct pf_err *err)
{
	struct pf_spool *s = pf_calloc(1, sizeof(*s));

	s->fd = openat(dirfd, "spool", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (s->fd < 0 || unlinkat(dirfd, "spool", 0) < 0) {
		pf_fail(err, errno, "temporary file");
	} else if (!sealed || make_key(s, err) == 0) {
		*out = s;
		return 0;
	}
	pf_spool_free(s);
	return -1;
}

void pf_spool_free(struct pf_spool *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		close(s->fd);
	pf_secret_free(s->key, sizeof(*s->key));
	if (s->memory)
		munmap(s->memory, MEMORY);
	free(s->held);
	free(s->opened);
	free(s->runs);
	free(s->files);
	free(s);
}

/* ---- writing ---- */

static int copy_clear(struct pf_spool *s, int from, int64_t off, int64_t at, int64_t len, struct pf_err *err)
{
	char buf[65536];

	while (len > 0) {
		loff_t in = off, out = at;
		ssize_t n = copy_file_range(from, &in, s->fd, &out, (size_t)len, 0);
		if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)) {
			n = pread(from, buf, len < (int64_t)sizeof(buf) ? (size_t)len : sizeof(buf), off);
			if (n > 0)
				n = pwrite(s->fd, buf, (size_t)n, at);
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return pf_fail(err, n < 0 ? errno : EIO, "copy");
		off += n;
		at += n;
		len -= n;
	}
	return 0;
}

/* Encrypt what is held, each record where it lies, and write it. Only the last one of all may not be full. */
static int write_held(struct pf_spool *s, struct pf_err *err)
{
	size_t left = s->n_held, stored = 0;
	off_t at = (off_t)(s->written * STORED);

	for (uint8_t *p = s->held; left > 0; p += STORED) {
		size_t len = left < RECORD ? left : RECORD;
		if (pf_aead_seal(s->key, PF_SEAL_USE_SEGMENT, s->written++, NULL, 0, p, len, p, err) < 0)
			return -1;
		stored += len + PF_SEAL_TAG;
		left -= len;
	}
	s->n_held = 0;
	return pf_pwrite_all(s->fd, s->held, stored, at) < 0 ? pf_fail(err, errno, "copy") : 0;
}

/* Where the next bytes of the stream go, and how many have room there. */
static uint8_t *next_room(struct pf_spool *s, size_t *room, struct pf_err *err)
{
	if (s->len < MEMORY) {
		*room = (size_t)(MEMORY - s->len);
		return s->memory + s->len;
	}
	if (s->n_held == HELD * RECORD && write_held(s, err) < 0)
		return NULL;
	*room = RECORD - s->n_held % RECORD;
	return s->held + s->n_held / RECORD * STORED + s->n_held % RECORD;
}

static int copy_sealed(struct pf_spool *s, int from, int64_t off, int64_t len, struct pf_err *err)
{
	while (len > 0) {
		size_t room;
		uint8_t *to = next_room(s, &room, err);
		if (!to)
			return -1;
		ssize_t n = pread(from, to, len < (int64_t)room ? (size_t)len : room, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return pf_fail(err, n < 0 ? errno : EIO, "copy");
		s->n_held += s->len < MEMORY ? 0 : (size_t)n;
		s->len += n;
		off += n;
		len -= n;
	}
	return 0;
}

static int put_run(
	struct pf_spool *s, const struct file *f, int fd, int64_t off, int64_t len, struct pf_err *err)
{
	if (!s->key)
		return copy_clear(s, fd, off, f->base + off, len, err);
	s->runs = pf_grow(s->runs, s->n_runs, &s->cap_runs, sizeof(*s->runs));
	s->runs[s->n_runs++] = (struct run){.off = off, .len = len, .at = s->len};
	return copy_sealed(s, fd, off, len, err);
}

int64_t pf_spool_put(struct pf_spool *s, int fd, int64_t size, bool holes, struct pf_err *err)
{
	struct file f = {.first = s->n_runs, .base = s->end};
	int64_t at = 0;

	while (at < size) {
		int64_t data = holes ? lseek(fd, at, SEEK_DATA) : at, hole = size;
		if (data < 0 && errno == ENXIO)
			break;
		if (holes && data >= 0)
			hole = lseek(fd, data, SEEK_HOLE);
		if (data < 0 || hole < 0)
			return pf_fail(err, errno, "find holes");
		if (hole > size)
			hole = size;
		if (data < hole && put_run(s, &f, fd, data, hole - data, err) < 0)
			return -1;
		at = hole;
	}
	if (!s->key) {
		s->end = (f.base + size + PF_HOLE_BLOCK - 1) & ~(int64_t)(PF_HOLE_BLOCK - 1);
		if (ftruncate(s->fd, s->end) < 0)
			return pf_fail(err, errno, "copy");
	}
	f.n = s->n_runs - f.first;
	s->files = pf_grow(s->files, s->n_files, &s->cap_files, sizeof(*s->files));
	s->files[s->n_files] = f;
	return (int64_t)s->n_files++;
}

/* ---- reading ---- */

static int open_record(struct pf_spool *s, int64_t number, struct pf_err *err)
{
	int64_t left = s->len - MEMORY - number * (int64_t)RECORD;
	size_t len = (left < (int64_t)RECORD ? (size_t)left : RECORD) + PF_SEAL_TAG, got = 0;

	if (s->opened_is == number)
		return 0;
	s->opened_is = -1;
	while (got < len) {
		ssize_t n = pread(s->fd, s->opened + got, len - got, number * (int64_t)STORED + (int64_t)got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return pf_fail(err, n < 0 ? errno : EIO, "read the spool");
		got += (size_t)n;
	}
	if (pf_aead_open(s->key, PF_SEAL_USE_SEGMENT, (uint64_t)number, NULL, 0, s->opened, len, s->opened,
		    err) < 0)
		return pf_wrap(err, "read the spool");
	s->opened_is = number;
	return 0;
}

static int read_stream(struct pf_spool *s, uint8_t *to, int64_t at, int64_t len, struct pf_err *err)
{
	while (len > 0) {
		int64_t off = (at - MEMORY) % (int64_t)RECORD;
		int64_t n = at < MEMORY ? MEMORY - at : (int64_t)RECORD - off;
		if (n > len)
			n = len;
		if (at >= MEMORY && open_record(s, (at - MEMORY) / (int64_t)RECORD, err) < 0)
			return -1;
		memcpy(to, at < MEMORY ? s->memory + at : s->opened + off, (size_t)n);
		to += n;
		at += n;
		len -= n;
	}
	return 0;
}

/* The first run of the file that is being read which ends behind off; NULL: none. */
static const struct run *run_at(const struct pf_spool *s, int64_t off)
{
	const struct run *runs = s->runs + s->reading->first;
	size_t low = 0, high = s->reading->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (runs[mid].off + runs[mid].len > off)
			high = mid;
		else
			low = mid + 1;
	}
	return low < s->reading->n ? runs + low : NULL;
}

static int read_sealed(void *ctx, void *buf, size_t len, int64_t off, struct pf_err *err)
{
	struct pf_spool *s = ctx;
	const struct run *end = s->runs + s->reading->first + s->reading->n, *r = run_at(s, off);
	int64_t to = off + (int64_t)len;

	memset(buf, 0, len);
	for (; r && r < end && r->off < to; r++) {
		int64_t from = r->off > off ? r->off : off,
			till = r->off + r->len < to ? r->off + r->len : to;
		if (read_stream(s, (uint8_t *)buf + (from - off), r->at + (from - r->off), till - from, err) <
			0)
			return -1;
	}
	return 0;
}

static bool next_sealed(void *ctx, int64_t at, int64_t *from, int64_t *to)
{
	const struct pf_spool *s = ctx;
	const struct run *r = run_at(s, at);

	if (!r)
		return false;
	*from = r->off > at ? r->off : at;
	*to = r->off + r->len;
	return true;
}

int pf_spool_get(struct pf_spool *s, int64_t number, struct pf_content_in *in, struct pf_err *err)
{
	const struct file *f = s->files + number;

	if (!s->key) {
		*in = (struct pf_content_in){.fd = s->fd, .base = f->base};
		return 0;
	}
	if (write_held(s, err) < 0)
		return -1;
	s->reading = f;
	*in = (struct pf_content_in){.fd = -1, .read = read_sealed, .next = next_sealed, .ctx = s};
	return 0;
}
