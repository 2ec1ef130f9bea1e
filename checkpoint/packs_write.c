/* Theory of operation: writing.
 *
 *   submit() ── loads ──► threads: hash ─► seen before? ─► jobs ──► threads: compress ─► reserve a place ─►
 *   put() ── id, seen before? ─► copy ─────────────────────┘                               encrypt ─► pwrite
 *
 * A load is hashed by one thread, all of it at once (sha256_lanes.h); each new chunk in it is a job for any
 * thread. Jobs come before loads, so that memory is given back soon. put() hashes in the caller's thread and
 * copies what is new.
 *
 * When something fails the threads go on and drop what comes, so that whoever waits for his memory gets it.
 *
 * A thread reserves a place in the current pack when it knows how long its frame
 * has become, under the lock; encrypting (the place is the nonce) and writing happen outside of it, so
 * threads write to one file at different places at the same time. A pack that is full takes no more
 * reservations; the thread whose write is the last one pending in it writes its index and syncs it, while the
 * others go on with the next.
 *
 * All files are made in a directory of the caller's. Nobody sees them before pf_packs_publish, which moves
 * key, pack, index in this order: a reader looks for packs, and one whose index has not arrived has its
 * footer. */
#include "checkpoint/packs.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/fd.h"
#include "base/str.h"
#include "checkpoint/packs_int.h"

#define QUEUE_BYTES ((size_t)4 << 20) /* of chunks that wait for a thread */
#define MAX_THREADS 32

struct job {
	struct job *next;
	struct pf_chunk_id id;
	uint32_t len;
	const uint8_t *data;
	struct pf_packs_load *load; /* whose the data is; NULL: the job's own */
	uint8_t copy[];
};

/* A pack that is being written. All but fd, name and key under the writer's lock. */
struct out_pack {
	struct pf_pack_index x;
	size_t cap; /* of x.entries */
	struct pf_seal_key *key;
	char name[PF_PACK_NAME + 1];
	int fd;
	unsigned pending; /* reserved and not yet written */
	bool full;
};

struct pf_packs_writer {
	struct pf_packs *p;
	int tmpfd;
	int level;
	pthread_mutex_t lock;
	pthread_cond_t work; /* there is a job or a load, or closing */
	pthread_cond_t done; /* the queue has room, a load has no users, or a thread has nothing to do */
	struct job *first, **last;
	struct pf_packs_load *loads, **last_load; /* to be hashed */
	size_t queued;                            /* bytes of jobs' copies */
	unsigned busy;                            /* threads that have a job or a pack to finish */
	bool closing;
	bool failed;
	struct pf_err err;
	struct out_pack *current;
	struct pf_chunk_id *own; /* what this writer has taken: open addressing, all zeros is free */
	size_t own_size, own_used;
	struct pf_packs_written stats;
	unsigned n_threads;
	pthread_t threads[MAX_THREADS];
};

/* ---- what was taken already --------------------------------------------------------------------------- */

static const struct pf_chunk_id no_id;

static struct pf_chunk_id *own_slot(
	struct pf_chunk_id *set, size_t size, uint64_t seed, const struct pf_chunk_id *id)
{
	uint64_t h;

	memcpy(&h, id->b, sizeof(h));
	h = (h ^ seed) * UINT64_C(0x9e3779b97f4a7c15);
	for (size_t i = (size_t)(h >> 20);; i++) {
		struct pf_chunk_id *s = &set[i & (size - 1)];
		if (memcmp(s, &no_id, sizeof(no_id)) == 0 || memcmp(s, id, sizeof(*id)) == 0)
			return s;
	}
}

/* Enter an id; false if it was there. */
static bool own_add(struct pf_packs_writer *w, const struct pf_chunk_id *id)
{
	struct pf_chunk_id *s;

	if ((w->own_used + 1) * 2 > w->own_size) {
		size_t size = w->own_size ? w->own_size * 2 : 1024;
		struct pf_chunk_id *bigger = pf_calloc(size, sizeof(*bigger));
		for (size_t i = 0; i < w->own_size; i++)
			if (memcmp(&w->own[i], &no_id, sizeof(no_id)) != 0)
				*own_slot(bigger, size, w->p->seed, &w->own[i]) = w->own[i];
		free(w->own);
		w->own = bigger;
		w->own_size = size;
	}
	s = own_slot(w->own, w->own_size, w->p->seed, id);
	if (memcmp(s, id, sizeof(*id)) == 0)
		return false;
	*s = *id;
	w->own_used++;
	return true;
}

/* ---- packs -------------------------------------------------------------------------------------------- */

static void out_pack_free(struct out_pack *o)
{
	if (!o)
		return;
	if (o->fd >= 0)
		close(o->fd);
	pf_secret_free(o->key, sizeof(*o->key));
	free(o->x.entries);
	free(o);
}

/* Remember the first thing that went wrong; everybody stops. Under the lock. */
static void fail_writer(struct pf_packs_writer *w, const struct pf_err *err)
{
	if (!w->failed) {
		w->failed = true;
		w->err = *err;
	}
	pthread_cond_broadcast(&w->work);
	pthread_cond_broadcast(&w->done);
}

static int new_file(int dirfd, const char *name, const char *suffix, struct pf_err *err)
{
	PF_FREE char *file = pf_asprintf("%s%s", name, suffix);
	int fd = openat(dirfd, file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? pf_fail(err, errno, "new pack %s", file) : fd;
}

static int write_file(
	int dirfd, const char *name, const char *suffix, const void *data, size_t len, struct pf_err *err)
{
	PF_CLOSE int fd = new_file(dirfd, name, suffix, err);

	if (fd < 0)
		return -1;
	if (pf_write_all(fd, data, len) < 0 || fsync(fd) < 0)
		return pf_fail(err, errno, "new pack %s%s", name, suffix);
	return 0;
}

static int make_pack_key(struct pf_packs_writer *w, struct out_pack *o, struct pf_err *err)
{
	uint8_t head[PF_SEAL_HEAD];

	o->key = pf_secret_alloc(sizeof(*o->key), err);
	if (!o->key || pf_seal_key_make(&w->p->seal->kek, "pack", o->name, o->key, head, err) < 0)
		return -1;
	w->stats.stored_bytes += PF_SEAL_HEAD;
	return write_file(w->tmpfd, o->name, ".key", head, sizeof(head), err);
}

/* Under the lock; rare enough. */
static int open_current(struct pf_packs_writer *w, struct pf_err *err)
{
	struct out_pack *o = pf_calloc(1, sizeof(*o));
	uint8_t head[PF_PACK_HEAD];

	o->fd = -1;
	if (RAND_bytes(o->x.id, sizeof(o->x.id)) != 1) {
		out_pack_free(o);
		return pf_fail(err, 0, "libcrypto: no random numbers");
	}
	pf_pack_id_to_name(o->x.id, o->name);
	o->x.sealed = w->p->seal != NULL;
	o->x.data_end = PF_PACK_HEAD;
	pf_pack_head(o->x.id, o->x.sealed, head);
	if ((w->p->seal && make_pack_key(w, o, err) < 0) ||
		(o->fd = new_file(w->tmpfd, o->name, ".pack", err)) < 0) {
		out_pack_free(o);
		return -1;
	}
	if (pf_write_all(o->fd, head, sizeof(head)) < 0) {
		pf_fail(err, errno, "new pack %s", o->name);
		out_pack_free(o);
		return -1;
	}
	w->stats.packs++;
	w->current = o;
	return 0;
}

/* Index and footer, durable. No lock: nobody else has it any more. */
static int close_pack(struct pf_packs_writer *w, struct out_pack *o, int64_t *bytes, struct pf_err *err)
{
	PF_FREE uint8_t *block = NULL;
	size_t len = 0;

	if (pf_pack_index_encode(&o->x, o->key, &block, &len, err) < 0)
		return pf_wrap(err, "pack %s", o->name);
	if (lseek(o->fd, (off_t)o->x.data_end, SEEK_SET) < 0 || pf_write_all(o->fd, block, len) < 0 ||
		fsync(o->fd) < 0)
		return pf_fail(err, errno, "new pack %s", o->name);
	*bytes = (int64_t)(o->x.data_end + 2 * len);
	return write_file(w->tmpfd, o->name, ".idx", block, len, err);
}

/* A full pack without pending writes: finish it. Called with the lock, which is given up meanwhile. */
static void finish_pack(struct pf_packs_writer *w, struct out_pack *o)
{
	struct pf_err err = PF_ERR_INIT;
	int64_t bytes = 0;
	int r = 0;

	w->busy++;
	pthread_mutex_unlock(&w->lock);
	r = close_pack(w, o, &bytes, &err);
	out_pack_free(o);
	pthread_mutex_lock(&w->lock);
	w->busy--;
	w->stats.stored_bytes += bytes;
	if (r < 0)
		fail_writer(w, &err);
	pthread_cond_broadcast(&w->done);
}

/* The current pack takes no more. */
static void retire_current(struct pf_packs_writer *w)
{
	struct out_pack *o = w->current;

	w->current = NULL;
	if (!o)
		return;
	o->full = true;
	if (!o->pending)
		finish_pack(w, o);
}

static bool has_room(const struct out_pack *o, uint32_t stored)
{
	return o->x.count < PF_PACK_MAX_CHUNKS && o->x.data_end + stored <= PF_PACK_SIZE;
}

/* Reserve a place for e (whose stored length is known). Under the lock. */
static struct out_pack *reserve(struct pf_packs_writer *w, struct pf_pack_entry *e, struct pf_err *err)
{
	struct out_pack *o;

	/* Again after retiring: the lock was given up, and somebody else may have opened the next one. */
	while (!w->current || !has_room(w->current, e->stored)) {
		if (w->current)
			retire_current(w);
		else if (open_current(w, err) < 0)
			return NULL;
	}
	o = w->current;
	if (o->x.count == o->cap) {
		size_t cap = o->cap ? o->cap * 2 : 256;
		struct pf_pack_entry *more = realloc(o->x.entries, cap * sizeof(*more));
		if (!more) {
			pf_fail(err, ENOMEM, "new pack");
			return NULL;
		}
		o->x.entries = more;
		o->cap = cap;
	}
	e->offset = (uint32_t)o->x.data_end;
	o->x.entries[o->x.count++] = *e;
	o->x.data_end += e->stored;
	o->pending++;
	return o;
}

/* Put a frame into the current pack. Called with the lock, which is given up meanwhile. scratch takes len and
 * a tag; it may be NULL in the plain domain. */
static int append(struct pf_packs_writer *w, struct pf_pack_entry *e, const uint8_t *frame, size_t len,
	uint8_t *scratch, struct pf_err *err)
{
	struct out_pack *o;
	int r = 0;

	e->stored = (uint32_t)(len + (w->p->seal ? PF_SEAL_TAG : 0));
	o = reserve(w, e, err);
	if (!o)
		return -1;
	pthread_mutex_unlock(&w->lock);
	if (o->key) {
		r = pf_aead_seal(o->key, PF_SEAL_USE_CHUNK, e->offset, NULL, 0, frame, len, scratch, err);
		frame = scratch;
	}
	if (r == 0 && pf_pwrite_all(o->fd, frame, e->stored, e->offset) < 0)
		r = pf_fail(err, errno, "new pack %s", o->name);
	pthread_mutex_lock(&w->lock);
	if (--o->pending == 0 && o->full)
		finish_pack(w, o);
	return r;
}

/* ---- threads ------------------------------------------------------------------------------------------ */

struct workspace {
	ZSTD_CCtx *cctx;
	size_t cap;
	uint8_t *frame, *sealed;
};

static int compress_job(const struct pf_packs_writer *w, struct workspace *s, const struct job *j,
	struct pf_pack_entry *e, const uint8_t **frame, size_t *len, struct pf_err *err)
{
	size_t n = ZSTD_compressCCtx(s->cctx, s->frame, s->cap, j->data, j->len, w->level);

	if (ZSTD_isError(n))
		return pf_fail(err, 0, "zstd: %s", ZSTD_getErrorName(n));
	*e = (struct pf_pack_entry){
		.id = j->id, .len = j->len, .codec = n < j->len ? PF_PACK_ZSTD : PF_PACK_RAW};
	*frame = n < j->len ? s->frame : j->data;
	*len = n < j->len ? n : j->len;
	return 0;
}

/* Under the lock. */
static void release_load(struct pf_packs_writer *w, struct pf_packs_load *l)
{
	if (l && --l->users == 0)
		pthread_cond_broadcast(&w->done);
}

static void take_job(struct pf_packs_writer *w, struct workspace *s)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_pack_entry e;
	const uint8_t *frame = NULL;
	struct job *j = w->first;
	size_t len = 0;
	int r = 0;

	w->first = j->next;
	if (!w->first)
		w->last = &w->first;
	if (!j->load) {
		w->queued -= j->len;
		pthread_cond_broadcast(&w->done);
	}
	if (!w->failed) {
		pthread_mutex_unlock(&w->lock);
		r = compress_job(w, s, j, &e, &frame, &len, &err);
		pthread_mutex_lock(&w->lock);
	}
	if (r == 0 && !w->failed)
		r = append(w, &e, frame, len, s->sealed, &err);
	if (r < 0)
		fail_writer(w, &err);
	release_load(w, j->load);
	free(j);
}

/* Count a chunk. True when it is to be stored. Under the lock. */
static bool count_chunk(struct pf_packs_writer *w, const struct pf_chunk_id *id, size_t len)
{
	bool fresh = !pf_packs_has(w->p, id, NULL) && own_add(w, id);

	w->stats.chunks++;
	w->stats.bytes += (int64_t)len;
	w->stats.new_chunks += fresh;
	w->stats.new_bytes += fresh ? (int64_t)len : 0;
	return fresh;
}

static void add_job(struct pf_packs_writer *w, struct job *j)
{
	*w->last = j;
	w->last = &j->next;
	pthread_cond_signal(&w->work);
}

/* All at once in the plain domain, where ids are hashes like others. */
static void hash_load(const struct pf_packs_writer *w, const struct pf_packs_load *l)
{
	size_t n = l->n_chunks + l->n_sums;
	struct pf_hash_job *all = w->p->seal ? NULL : malloc((n + 1) * sizeof(*all));

	if (!all) {
		pf_packs_ids(w->p, l->chunks, l->n_chunks);
		pf_sha256_many(l->sums, l->n_sums);
		return;
	}
	if (l->n_chunks > 0)
		memcpy(all, l->chunks, l->n_chunks * sizeof(*all));
	if (l->n_sums > 0)
		memcpy(all + l->n_chunks, l->sums, l->n_sums * sizeof(*all));
	pf_sha256_many(all, n);
	free(all);
}

static void take_load(struct pf_packs_writer *w)
{
	struct pf_packs_load *l = w->loads;

	w->loads = l->next;
	if (!w->loads)
		w->last_load = &w->loads;
	if (!w->failed) {
		pthread_mutex_unlock(&w->lock);
		hash_load(w, l);
		pthread_mutex_lock(&w->lock);
	}
	for (size_t i = 0; i < l->n_chunks && !w->failed; i++) {
		struct pf_chunk_id id;
		memcpy(id.b, l->chunks[i].out, sizeof(id.b));
		if (!count_chunk(w, &id, l->chunks[i].len))
			continue;
		struct job *j = pf_calloc(1, sizeof(*j));
		*j = (struct job){
			.id = id, .len = (uint32_t)l->chunks[i].len, .data = l->chunks[i].data, .load = l};
		l->users++;
		add_job(w, j);
	}
	release_load(w, l);
}

static void work(struct pf_packs_writer *w, struct workspace *s)
{
	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->first && !w->loads && !w->closing)
			pthread_cond_wait(&w->work, &w->lock);
		if (!w->first && !w->loads)
			break;
		w->busy++;
		if (w->first)
			take_job(w, s);
		else
			take_load(w);
		w->busy--;
		pthread_cond_broadcast(&w->done);
	}
	pthread_mutex_unlock(&w->lock);
}

static void *thread_main(void *arg)
{
	struct pf_packs_writer *w = arg;
	struct workspace s = {.cctx = ZSTD_createCCtx(), .cap = ZSTD_compressBound(PF_CHUNK_MAX)};

	s.frame = malloc(s.cap);
	s.sealed = malloc(s.cap + PF_SEAL_TAG);
	if (!s.cctx || !s.frame || !s.sealed) {
		struct pf_err err = PF_ERR_INIT;
		pf_fail(&err, ENOMEM, "compressing");
		pthread_mutex_lock(&w->lock);
		fail_writer(w, &err);
		pthread_mutex_unlock(&w->lock);
	}
	work(w, &s);
	free(s.frame);
	free(s.sealed);
	ZSTD_freeCCtx(s.cctx);
	return NULL;
}

/* ---- the writer --------------------------------------------------------------------------------------- */

static unsigned default_threads(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	return (unsigned)(n > 8 ? 8 : n < 1 ? 1 : n);
}

int pf_packs_writer_new(struct pf_packs *p, int tmpfd, const struct pf_packs_writer_opts *opts,
	struct pf_packs_writer **out, struct pf_err *err)
{
	struct pf_packs_writer *w;
	unsigned threads = opts->threads > 0 ? (unsigned)opts->threads : default_threads();

	if (opts->level < 0 || opts->level > 19)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "zstd level %d is not one of 1 to 19", opts->level);
	w = pf_calloc(1, sizeof(*w));
	w->p = p;
	w->tmpfd = tmpfd;
	w->level = opts->level ? opts->level : 3;
	w->last = &w->first;
	w->last_load = &w->loads;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->work, NULL);
	pthread_cond_init(&w->done, NULL);
	while (w->n_threads < threads && w->n_threads < MAX_THREADS) {
		int r = pthread_create(&w->threads[w->n_threads], NULL, thread_main, w);
		if (r != 0 && w->n_threads == 0) {
			pf_packs_writer_free(w);
			return pf_fail(err, r, "thread for compressing");
		}
		if (r != 0)
			break;
		w->n_threads++;
	}
	*out = w;
	return 0;
}

static void stop_threads(struct pf_packs_writer *w)
{
	pthread_mutex_lock(&w->lock);
	w->closing = true;
	pthread_cond_broadcast(&w->work);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->n_threads; i++)
		pthread_join(w->threads[i], NULL);
	w->n_threads = 0;
}

void pf_packs_writer_free(struct pf_packs_writer *w)
{
	struct pf_err given_up = PF_ERR_INIT;

	if (!w)
		return;
	pf_fail(&given_up, ECANCELED, "writing packs");
	pthread_mutex_lock(&w->lock);
	fail_writer(w, &given_up);
	pthread_mutex_unlock(&w->lock);
	stop_threads(w);
	out_pack_free(w->current);
	free(w->own);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->work);
	pthread_cond_destroy(&w->done);
	free(w);
}

static int writer_error(struct pf_packs_writer *w, struct pf_err *err)
{
	*err = w->err;
	return -1;
}

/* One chunk whose id is known. */
static int put_one(
	struct pf_packs_writer *w, const struct iovec *v, const struct pf_chunk_id *id, struct pf_err *err)
{
	bool fresh;
	struct job *j;

	pthread_mutex_lock(&w->lock);
	fresh = !w->failed && count_chunk(w, id, v->iov_len);
	if (fresh) {
		while (w->queued && w->queued + v->iov_len > QUEUE_BYTES && !w->failed)
			pthread_cond_wait(&w->done, &w->lock);
		w->queued += v->iov_len;
	}
	if (w->failed) {
		(void)writer_error(w, err);
		pthread_mutex_unlock(&w->lock);
		return -1;
	}
	pthread_mutex_unlock(&w->lock);
	if (!fresh)
		return 0;
	/* Room was taken for it, so copying needs no lock. */
	j = malloc(sizeof(*j) + v->iov_len);
	if (!j) {
		pf_fail(err, ENOMEM, "compressing");
		pthread_mutex_lock(&w->lock);
		fail_writer(w, err);
		pthread_mutex_unlock(&w->lock);
		return -1;
	}
	*j = (struct job){.id = *id, .len = (uint32_t)v->iov_len};
	memcpy(j->copy, v->iov_base, v->iov_len);
	j->data = j->copy;
	pthread_mutex_lock(&w->lock);
	add_job(w, j);
	pthread_mutex_unlock(&w->lock);
	return 0;
}

#define PUT_AT_ONCE 64

int pf_packs_put(struct pf_packs_writer *w, const struct iovec *v, size_t n, struct pf_chunk_id *ids,
	struct pf_err *err)
{
	struct pf_hash_job jobs[PUT_AT_ONCE];

	for (size_t i = 0; i < n; i++)
		if (v[i].iov_len < 1 || v[i].iov_len > PF_CHUNK_MAX)
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "chunk of %zu bytes", v[i].iov_len);
	for (size_t at = 0; at < n; at += PUT_AT_ONCE) {
		size_t k = n - at < PUT_AT_ONCE ? n - at : PUT_AT_ONCE;
		for (size_t i = 0; i < k; i++)
			jobs[i] = (struct pf_hash_job){v[at + i].iov_base, v[at + i].iov_len, ids[at + i].b};
		pf_packs_ids(w->p, jobs, k);
		for (size_t i = 0; i < k; i++)
			if (put_one(w, &v[at + i], &ids[at + i], err) < 0)
				return -1;
	}
	return 0;
}

void pf_packs_submit(struct pf_packs_writer *w, struct pf_packs_load *l)
{
	l->next = NULL;
	l->users = 1;
	pthread_mutex_lock(&w->lock);
	*w->last_load = l;
	w->last_load = &l->next;
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->lock);
}

int pf_packs_wait(struct pf_packs_writer *w, struct pf_packs_load *l, struct pf_err *err)
{
	int r = 0;

	pthread_mutex_lock(&w->lock);
	while (l->users > 0)
		pthread_cond_wait(&w->done, &w->lock);
	if (w->failed)
		r = writer_error(w, err);
	pthread_mutex_unlock(&w->lock);
	return r;
}

unsigned pf_packs_writer_threads(const struct pf_packs_writer *w)
{
	return w->n_threads;
}

int pf_packs_put_frame(struct pf_packs_writer *w, const struct pf_pack_entry *e, const uint8_t *frame,
	size_t len, struct pf_err *err)
{
	struct pf_pack_entry mine = *e;
	uint8_t *sealed = w->p->seal ? malloc(len + PF_SEAL_TAG) : NULL;
	int r = 0;

	if (w->p->seal && !sealed)
		return pf_fail(err, ENOMEM, "new pack");
	pthread_mutex_lock(&w->lock);
	if (w->failed)
		r = writer_error(w, err);
	else if (own_add(w, &e->id))
		r = append(w, &mine, frame, len, sealed, err);
	if (r < 0)
		fail_writer(w, err);
	pthread_mutex_unlock(&w->lock);
	free(sealed);
	return r;
}

int pf_packs_finish(struct pf_packs_writer *w, struct pf_packs_written *stats, struct pf_err *err)
{
	int r = 0;

	pthread_mutex_lock(&w->lock);
	while ((w->first || w->loads || w->busy) && !w->failed)
		pthread_cond_wait(&w->done, &w->lock);
	if (!w->failed)
		retire_current(w);
	pthread_mutex_unlock(&w->lock);
	stop_threads(w);
	if (w->failed)
		r = writer_error(w, err);
	else
		*stats = w->stats;
	return r;
}

/* ---- publishing --------------------------------------------------------------------------------------- */

static int make_dir(int storefd, struct pf_err *err)
{
	int fd;

	if (mkdirat(storefd, PF_PACKS_DIR, 0700) == 0) {
		if (pf_sync_dir(storefd, err) < 0)
			return -1;
	} else if (errno != EEXIST) {
		return pf_fail(err, errno, "checkpoint store: " PF_PACKS_DIR);
	}
	fd = pf_pack_dir(storefd, err);
	return fd;
}

static int move_file(int tmpfd, int dirfd, const char *name, const char *suffix, struct pf_err *err)
{
	PF_FREE char *file = pf_asprintf("%s%s", name, suffix);

	if (renameat(tmpfd, file, dirfd, file) < 0)
		return pf_fail(err, errno, "checkpoint store: " PF_PACKS_DIR "/%s", file);
	return 0;
}

int pf_packs_publish(int storefd, int tmpfd, struct pf_err *err)
{
	PF_FREE struct pf_pack_files *files = NULL;
	PF_CLOSE int dirfd = -1;
	size_t n = 0;

	if (pf_pack_scan(tmpfd, &files, &n, err) < 0)
		return -1;
	if (n == 0)
		return 0;
	dirfd = make_dir(storefd, err);
	if (dirfd < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const struct pf_pack_files *f = &files[i];
		if ((f->key && move_file(tmpfd, dirfd, f->name, ".key", err) < 0) ||
			(f->pack && move_file(tmpfd, dirfd, f->name, ".pack", err) < 0) ||
			(f->idx && move_file(tmpfd, dirfd, f->name, ".idx", err) < 0))
			return -1;
	}
	return pf_sync_dir(dirfd, err);
}
