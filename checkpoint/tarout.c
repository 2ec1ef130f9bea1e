/* Theory of operation.
 *
 * A ring of buffers. The caller fills one, two consumers take it: one hashes (diff_id), one compresses,
 * writes and hashes what it wrote (digest). zstd runs its own workers below the second. On two cores the
 * packing of many small files, SHA-256 and zstd each cost about the same, so none may wait for another.
 *
 * With ZSTD_c_nbWorkers >= 1 the output depends on level and input only: job borders are at fixed offsets of
 * the input and do not move with the number of workers or with how the input was cut. That is what makes
 * equal trees equal blobs, so nbWorkers is never 0.
 *
 * Frames are compressed one by one, each in one go from where it lies: so no frame may lie in two buffers,
 * and when one is full what has not been cut off yet moves on to the next. Where a frame came to lie in the
 * file is known when the threads are done, not before.
 *
 * A consumer that fails (a full disk) records why and keeps taking buffers without using them: the caller
 * finds the error at its next call and never blocks. */
#include "checkpoint/tarout.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/fd.h"
#include "base/str.h"

#define BUF_SIZE ((size_t)1 << 20)
#define N_BUFS 8
#define WRITE_SIZE ((size_t)256 << 10) /* frames are written in pieces of about this */

struct slot {
	char *data;
	size_t len;
	size_t *cuts; /* where frames end in it */
	size_t n_cuts, cap_cuts;
	int pending; /* consumers that have yet to take it */
};

struct pf_tarout {
	struct slot slots[N_BUFS];
	size_t head; /* the slot the caller fills; counts up, index modulo N_BUFS */
	uint64_t pos;
	int fd;
	bool spool, frames;
	bool ended_by_caller;
	size_t n_cuts; /* in all slots so far */

	pthread_mutex_t mu;
	pthread_cond_t filled, freed;
	bool ended;
	int failed; /* errno of the first failure of a consumer, 0 while all is well */
	const char *failed_at;
	pthread_t hasher, packer;
	int n_threads;

	EVP_MD_CTX *tar_md, *file_md;
	ZSTD_CCtx *zstd;
	char *out_buf;
	size_t out_cap, out_len; /* out_len: frames that have yet to be written */
	int64_t out_size;
	int64_t *offsets; /* of frames: the packer's, by number; the first is 0 */
	size_t n_offsets, cap_offsets;
};

static void set_failed(struct pf_tarout *o, int errnum, const char *at)
{
	pthread_mutex_lock(&o->mu);
	if (!o->failed) {
		o->failed = errnum ? errnum : EIO;
		o->failed_at = at;
	}
	pthread_mutex_unlock(&o->mu);
}

/* Slot number seq once it is filled, or NULL at the end. */
static struct slot *take(struct pf_tarout *o, size_t seq)
{
	struct slot *s = NULL;

	pthread_mutex_lock(&o->mu);
	while (seq >= o->head && !o->ended)
		pthread_cond_wait(&o->filled, &o->mu);
	if (seq < o->head)
		s = &o->slots[seq % N_BUFS];
	pthread_mutex_unlock(&o->mu);
	return s;
}

static void give_back(struct pf_tarout *o, struct slot *s)
{
	pthread_mutex_lock(&o->mu);
	if (--s->pending == 0)
		pthread_cond_signal(&o->freed);
	pthread_mutex_unlock(&o->mu);
}

static void *hash_thread(void *arg)
{
	struct pf_tarout *o = arg;
	struct slot *s;

	for (size_t seq = 0; (s = take(o, seq)); seq++) {
		if (EVP_DigestUpdate(o->tar_md, s->data, s->len) != 1)
			set_failed(o, EIO, "SHA-256");
		give_back(o, s);
	}
	return NULL;
}

static int put_out(struct pf_tarout *o, const void *data, size_t len)
{
	if (EVP_DigestUpdate(o->file_md, data, len) != 1) {
		set_failed(o, EIO, "SHA-256");
		return -1;
	}
	if (pf_write_all(o->fd, data, len) < 0) {
		set_failed(o, errno, "write the layer");
		return -1;
	}
	o->out_size += (int64_t)len;
	return 0;
}

static int flush_frames(struct pf_tarout *o)
{
	size_t len = o->out_len;

	o->out_len = 0;
	return len > 0 ? put_out(o, o->out_buf, len) : 0;
}

static int pack_frames(struct pf_tarout *o, const struct slot *s)
{
	size_t at = 0;

	for (size_t i = 0; i < s->n_cuts; i++) {
		size_t n = ZSTD_compress2(o->zstd, o->out_buf + o->out_len, o->out_cap - o->out_len,
			s->data + at, s->cuts[i] - at);
		if (ZSTD_isError(n)) {
			set_failed(o, EIO, "zstd");
			return -1;
		}
		at = s->cuts[i];
		o->out_len += n;
		if (o->out_len >= WRITE_SIZE && flush_frames(o) < 0)
			return -1;
		o->offsets = pf_grow(o->offsets, o->n_offsets, &o->cap_offsets, sizeof(*o->offsets));
		o->offsets[o->n_offsets++] = o->out_size + (int64_t)o->out_len;
	}
	return 0;
}

static int compress_some(struct pf_tarout *o, const char *data, size_t len, ZSTD_EndDirective mode)
{
	ZSTD_inBuffer in = {data, len, 0};
	size_t left;

	do {
		ZSTD_outBuffer out = {o->out_buf, o->out_cap, 0};
		left = ZSTD_compressStream2(o->zstd, &out, &in, mode);
		if (ZSTD_isError(left)) {
			set_failed(o, EIO, "zstd");
			return -1;
		}
		if (out.pos > 0 && put_out(o, o->out_buf, out.pos) < 0)
			return -1;
	} while (mode == ZSTD_e_end ? left != 0 : in.pos < in.size);
	return 0;
}

static void *pack_thread(void *arg)
{
	struct pf_tarout *o = arg;
	struct slot *s;
	bool ok = true;

	for (size_t seq = 0; (s = take(o, seq)); seq++) {
		ok = ok && (o->frames ? pack_frames(o, s)
				      : compress_some(o, s->data, s->len, ZSTD_e_continue)) == 0;
		give_back(o, s);
	}
	if (ok)
		(void)(o->frames ? flush_frames(o) : compress_some(o, NULL, 0, ZSTD_e_end));
	return NULL;
}

static struct pf_tarout *new_out(int fd, bool spool, size_t n)
{
	struct pf_tarout *o = pf_calloc(1, sizeof(*o));

	o->fd = fd;
	o->spool = spool;
	pthread_mutex_init(&o->mu, NULL);
	pthread_cond_init(&o->filled, NULL);
	pthread_cond_init(&o->freed, NULL);
	for (size_t i = 0; i < n; i++)
		if (!(o->slots[i].data = malloc(BUF_SIZE)))
			abort();
	return o;
}

static void stop_threads(struct pf_tarout *o)
{
	pthread_mutex_lock(&o->mu);
	o->ended = true;
	pthread_cond_broadcast(&o->filled);
	pthread_mutex_unlock(&o->mu);
	if (o->n_threads > 0)
		pthread_join(o->hasher, NULL);
	if (o->n_threads > 1)
		pthread_join(o->packer, NULL);
	o->n_threads = 0;
}

void pf_tarout_abort(struct pf_tarout *o)
{
	int saved = errno;

	if (!o)
		return;
	set_failed(o, ECANCELED, "cancelled");
	stop_threads(o);
	for (int i = 0; i < N_BUFS; i++) {
		free(o->slots[i].data);
		free(o->slots[i].cuts);
	}
	free(o->offsets);
	EVP_MD_CTX_free(o->tar_md);
	EVP_MD_CTX_free(o->file_md);
	ZSTD_freeCCtx(o->zstd);
	free(o->out_buf);
	pthread_cond_destroy(&o->filled);
	pthread_cond_destroy(&o->freed);
	pthread_mutex_destroy(&o->mu);
	free(o);
	errno = saved;
}

/* Level 0 is ours: the fast strategy with level 3's match length and window, and a hash table that stays in a
 * core's second-level cache. On source trees and node_modules about 5 % larger than level 3 in three quarters
 * of its time; level 1 is 20 % larger in the same time. No checksum of zstd's own: SHA-256 covers the blob.
 */
static int set_parameters(ZSTD_CCtx *z, int level, int threads)
{
	static const struct {
		ZSTD_cParameter p;
		int v;
	} ours[] = {{ZSTD_c_strategy, ZSTD_fast}, {ZSTD_c_windowLog, 21}, {ZSTD_c_hashLog, 16},
		{ZSTD_c_minMatch, 5}};

	if (ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, level ? level : 3)) ||
		ZSTD_isError(ZSTD_CCtx_setParameter(z, ZSTD_c_nbWorkers, threads)))
		return -1;
	for (size_t i = 0; level == 0 && i < sizeof(ours) / sizeof(*ours); i++)
		if (ZSTD_isError(ZSTD_CCtx_setParameter(z, ours[i].p, ours[i].v)))
			return -1;
	return 0;
}

/* threads 0: frames. */
static struct pf_tarout *new_layer(int fd, int level, int threads, struct pf_err *err)
{
	struct pf_tarout *o = new_out(fd, false, N_BUFS);
	int e;

	o->frames = threads == 0;
	o->tar_md = EVP_MD_CTX_new();
	o->file_md = EVP_MD_CTX_new();
	o->zstd = ZSTD_createCCtx();
	o->out_cap = o->frames ? WRITE_SIZE + ZSTD_compressBound(BUF_SIZE) : ZSTD_CStreamOutSize();
	o->out_buf = malloc(o->out_cap);
	if (!o->tar_md || !o->file_md || !o->zstd || !o->out_buf ||
		EVP_DigestInit_ex(o->tar_md, EVP_sha256(), NULL) != 1 ||
		EVP_DigestInit_ex(o->file_md, EVP_sha256(), NULL) != 1) {
		pf_fail(err, ENOMEM, "set up hashing");
		goto fail;
	}
	if (set_parameters(o->zstd, level, threads) < 0) {
		pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "this libzstd refuses the parameters (no threads?)");
		goto fail;
	}
	if ((e = pthread_create(&o->hasher, NULL, hash_thread, o)) != 0) {
		pf_fail(err, e, "start a thread");
		goto fail;
	}
	o->n_threads = 1;
	if ((e = pthread_create(&o->packer, NULL, pack_thread, o)) != 0) {
		pf_fail(err, e, "start a thread");
		goto fail;
	}
	o->n_threads = 2;
	return o;
fail:
	pf_tarout_abort(o);
	return NULL;
}

struct pf_tarout *pf_tarout_layer(int fd, int level, int threads, struct pf_err *err)
{
	return new_layer(fd, level, threads, err);
}

struct pf_tarout *pf_tarout_frames(int fd, int level, struct pf_err *err)
{
	/* In small pieces level 3 is 3 % smaller than our own choice for hardly more time. */
	return new_layer(fd, level ? level : 3, 0, err);
}

struct pf_tarout *pf_tarout_spool(int fd, struct pf_err *err)
{
	(void)err;
	return new_out(fd, true, 1);
}

static int check_failed(struct pf_tarout *o, struct pf_err *err)
{
	pthread_mutex_lock(&o->mu);
	int failed = o->failed;
	const char *at = o->failed_at;
	pthread_mutex_unlock(&o->mu);
	return failed ? pf_fail(err, failed, "%s", at) : 0;
}

static size_t last_cut(const struct slot *s)
{
	return s->n_cuts ? s->cuts[s->n_cuts - 1] : 0;
}

static void add_cut(struct pf_tarout *o, struct slot *s)
{
	s->cuts = pf_grow(s->cuts, s->n_cuts, &s->cap_cuts, sizeof(*s->cuts));
	s->cuts[s->n_cuts++] = s->len;
	o->n_cuts++;
}

/* Hand the current slot over and wait until the next one is free. */
static int next_slot(struct pf_tarout *o, struct pf_err *err)
{
	struct slot *s = &o->slots[o->spool ? 0 : o->head % N_BUFS];
	const char *rest = NULL;
	size_t rest_len = 0;

	if (o->spool) {
		if (pf_write_all(o->fd, s->data, s->len) < 0)
			return pf_fail(err, errno, "write the spool");
		s->len = 0;
		return 0;
	}
	if (o->frames) {
		if (last_cut(s) == 0)
			add_cut(o, s);
		rest = s->data + last_cut(s);
		rest_len = s->len - last_cut(s);
		s->len -= rest_len;
	}
	pthread_mutex_lock(&o->mu);
	s->pending = 2;
	o->head++;
	pthread_cond_broadcast(&o->filled);
	s = &o->slots[o->head % N_BUFS];
	while (s->pending > 0)
		pthread_cond_wait(&o->freed, &o->mu);
	pthread_mutex_unlock(&o->mu);
	/* Nobody writes to the slot before this one until it is our turn again. */
	if (rest_len > 0)
		memcpy(s->data, rest, rest_len);
	s->len = rest_len;
	s->n_cuts = 0;
	return check_failed(o, err);
}

static struct slot *room(struct pf_tarout *o, struct pf_err *err)
{
	struct slot *s = &o->slots[o->spool ? 0 : o->head % N_BUFS];

	if (s->len < BUF_SIZE)
		return s;
	if (next_slot(o, err) < 0)
		return NULL;
	return &o->slots[o->spool ? 0 : o->head % N_BUFS];
}

int pf_tarout_write(struct pf_tarout *o, const void *data, size_t len, struct pf_err *err)
{
	const char *p = data;

	while (len > 0) {
		struct slot *s = room(o, err);
		if (!s)
			return -1;
		size_t n = BUF_SIZE - s->len < len ? BUF_SIZE - s->len : len;
		memcpy(s->data + s->len, p, n);
		s->len += n;
		o->pos += n;
		p += n;
		len -= n;
	}
	return 0;
}

int pf_tarout_zeros(struct pf_tarout *o, size_t n, struct pf_err *err)
{
	static const char zeros[4096];

	for (; n > sizeof(zeros); n -= sizeof(zeros))
		if (pf_tarout_write(o, zeros, sizeof(zeros), err) < 0)
			return -1;
	return pf_tarout_write(o, zeros, n, err);
}

int pf_tarout_from_fd(struct pf_tarout *o, int fd, int64_t len, int64_t *got, struct pf_err *err)
{
	*got = 0;
	while (len > 0) {
		struct slot *s = room(o, err);
		if (!s)
			return -1;
		size_t n = BUF_SIZE - s->len;
		if ((int64_t)n > len)
			n = (size_t)len;
		ssize_t r = pf_read_full(fd, s->data + s->len, n);
		if (r < 0)
			return pf_fail(err, errno, "read");
		memset(s->data + s->len + r, 0, n - (size_t)r);
		*got += r;
		s->len += n;
		o->pos += n;
		len -= (int64_t)n;
	}
	return 0;
}

size_t pf_tarout_cut(struct pf_tarout *o)
{
	struct slot *s = &o->slots[o->head % N_BUFS];

	if (s->len > last_cut(s))
		add_cut(o, s);
	return o->n_cuts;
}

int64_t pf_tarout_offset(const struct pf_tarout *o, size_t cut)
{
	return cut ? o->offsets[cut - 1] : 0;
}

int pf_tarout_append(struct pf_tarout *o, const void *data, size_t len, struct pf_err *err)
{
	return put_out(o, data, len) < 0 ? check_failed(o, err) : 0;
}

void pf_tarout_leave_end(struct pf_tarout *o)
{
	o->ended_by_caller = true;
}

/* The last slot, and the threads. */
static int end_input(struct pf_tarout *o, struct pf_err *err)
{
	if (!o->spool && !o->ended_by_caller && pf_tarout_zeros(o, 1024, err) < 0)
		return -1;
	if (o->frames)
		(void)pf_tarout_cut(o);
	if (o->slots[o->spool ? 0 : o->head % N_BUFS].len > 0 && next_slot(o, err) < 0)
		return -1;
	stop_threads(o);
	return check_failed(o, err);
}

int pf_tarout_end_frames(struct pf_tarout *o, struct pf_err *err)
{
	return end_input(o, err);
}

int pf_tarout_finish(struct pf_tarout *o, struct pf_tarout_result *res, struct pf_err *err)
{
	uint8_t raw[32];

	if (!o->ended && end_input(o, err) < 0)
		goto fail;
	if (o->spool) {
		pf_tarout_abort(o);
		return 0;
	}
	/* A pipe cannot be synced: that is for whoever reads it. */
	if (fsync(o->fd) < 0 && errno != EINVAL) {
		pf_fail(err, errno, "write the layer");
		goto fail;
	}
	res->size = o->out_size;
	res->tar_size = (int64_t)o->pos;
	if (EVP_DigestFinal_ex(o->tar_md, raw, NULL) != 1) {
		pf_fail(err, EIO, "SHA-256");
		goto fail;
	}
	pf_digest_from_raw(raw, &res->diff_id);
	if (EVP_DigestFinal_ex(o->file_md, raw, NULL) != 1) {
		pf_fail(err, EIO, "SHA-256");
		goto fail;
	}
	pf_digest_from_raw(raw, &res->digest);
	pf_tarout_abort(o);
	return 0;
fail:
	pf_tarout_abort(o);
	return -1;
}
