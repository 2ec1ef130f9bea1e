/* Theory of operation: reading.
 *
 * Opening reads the index of every pack of the domain and enters each chunk into one open-addressed table of
 * (pack, entry). A chunk may lie in several packs (two snapshots stored it at the same time); all copies are
 * in the table and a damaged one makes way for the next. The table is never changed afterwards, so looking
 * needs no lock.
 *
 * Nothing of a pack is believed: the index was bounds-checked when it was taken apart, a frame is expanded
 * into exactly the length that the index says, and what comes out is compared with the chunk's id.
 * Descriptors, buffers and a few expanded chunks (small files share one) are kept for the next reader, under
 * one lock that is never held while something is read or computed. */
#include "checkpoint/packs.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/fd.h"
#include "base/str.h"
#include "checkpoint/packs_int.h"

#define MAX_OPEN 128  /* pack descriptors that are kept */
#define MAX_CACHED 32 /* expanded chunks that are kept: at most 8 MiB */

struct pf_cached {
	struct pf_cached *next;
	struct pf_chunk_id id;
	unsigned users; /* under lock of the handle; the list counts as none */
	bool listed;
	uint32_t len;
	uint8_t data[];
};

/* ---- the table ---------------------------------------------------------------------------------------- */

/* The seed keeps whoever chooses file contents from choosing places in the table. */
static size_t place(const struct pf_packs *p, const struct pf_chunk_id *id)
{
	uint64_t h;

	memcpy(&h, id->b, sizeof(h));
	h = (h ^ p->seed) * UINT64_C(0x9e3779b97f4a7c15);
	return (size_t)(h >> 20) & p->mask;
}

bool pf_packs_find(
	const struct pf_packs *p, const struct pf_chunk_id *id, size_t *at, uint32_t *pack, uint32_t *entry)
{
	if (!p->table)
		return false;
	for (;; ++*at) {
		uint64_t v = p->table[(place(p, id) + *at) & p->mask];
		if (!v)
			return false;
		v--;
		*pack = (uint32_t)(v >> 32);
		*entry = (uint32_t)v;
		if (memcmp(p->packs[*pack].x.entries[*entry].id.b, id->b, 32) == 0) {
			++*at;
			return true;
		}
	}
}

static int build_table(struct pf_packs *p, struct pf_err *err)
{
	size_t chunks = 0, size = 64;

	for (size_t i = 0; i < p->n_packs; i++)
		chunks += p->packs[i].x.count;
	while (size < chunks * 2)
		size *= 2;
	p->table = calloc(size, sizeof(*p->table));
	if (!p->table)
		return pf_fail(err, ENOMEM, "index of %zu chunks", chunks);
	p->mask = size - 1;
	for (size_t i = 0; i < p->n_packs; i++) {
		for (uint32_t j = 0; j < p->packs[i].x.count; j++) {
			size_t at = place(p, &p->packs[i].x.entries[j].id);
			while (p->table[at & p->mask])
				at++;
			p->table[at & p->mask] = ((uint64_t)i << 32 | j) + 1;
		}
	}
	return 0;
}

/* ---- opening ------------------------------------------------------------------------------------------ */

static int open_file(const struct pf_packs *p, const struct pf_pack *k, const char *suffix)
{
	char name[PF_PACK_NAME + 8];

	memcpy(name, k->files.name, PF_PACK_NAME);
	strcpy(name + PF_PACK_NAME, suffix);
	return openat(p->dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

static int read_key(struct pf_packs *p, struct pf_pack *k, struct pf_err *err)
{
	uint8_t head[PF_SEAL_HEAD];
	PF_CLOSE int fd = open_file(p, k, ".key");
	struct pf_seal_key *key;

	if (fd < 0 || pf_read_full(fd, head, sizeof(head)) != (ssize_t)sizeof(head))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "its key cannot be read");
	key = pf_secret_alloc(sizeof(*key), err);
	if (!key)
		return -1;
	if (pf_seal_key_open(&p->seal->kek, "pack", k->files.name, head, key, err) < 0) {
		pf_secret_free(key, sizeof(*key));
		return -1;
	}
	k->key = key;
	k->file_bytes += sizeof(head);
	return 0;
}

/* The whole of NAME.idx. */
static int read_idx(
	const struct pf_packs *p, const struct pf_pack *k, uint8_t **block, size_t *len, struct pf_err *err)
{
	char name[PF_PACK_NAME + 8];
	char *text = NULL;

	memcpy(name, k->files.name, PF_PACK_NAME);
	strcpy(name + PF_PACK_NAME, ".idx");
	if (pf_read_file_at(p->dirfd, name, PF_PACK_MAX_BLOCK, &text, len, err) < 0)
		return -1;
	*block = (uint8_t *)text;
	return 0;
}

/* From the index, else from the footer. */
static int read_index(struct pf_packs *p, struct pf_pack *k, struct pf_err *err)
{
	struct pf_err idx_err = PF_ERR_INIT;
	PF_FREE uint8_t *block = NULL;
	uint64_t size = 0;
	size_t len = 0;
	struct stat st;
	uint8_t id[16];
	PF_CLOSE int fd = open_file(p, k, ".pack");

	(void)pf_pack_name_to_id(k->files.name, id);
	if (fd < 0 || fstat(fd, &st) < 0)
		return pf_fail(err, errno, "pack");
	k->file_bytes += (uint64_t)st.st_size;
	if (k->files.idx && read_idx(p, k, &block, &len, &idx_err) == 0) {
		k->file_bytes += len;
		if (pf_pack_index_decode(block, len, id, k->key, &k->x, &idx_err) == 0)
			return 0;
	}
	free(pf_take(block));
	if (pf_pack_read_footer(fd, &block, &len, &size, err) < 0)
		return -1;
	return pf_pack_index_decode(block, len, id, k->key, &k->x, err);
}

static bool is_key_mistake(const struct pf_err *err)
{
	return err->kind == PF_ERR_INVALID;
}

static int open_pack(struct pf_packs *p, struct pf_pack *k, struct pf_err *err)
{
	struct pf_err why = PF_ERR_INIT;

	k->fd = -1;
	if ((p->seal && read_key(p, k, &why) < 0) || read_index(p, k, &why) < 0) {
		/* The wrong key is the caller's mistake, and not this pack's. */
		if (is_key_mistake(&why)) {
			*err = why;
			return pf_wrap(err, "pack %s", k->files.name);
		}
		k->why = pf_strdup(why.msg);
		return 0;
	}
	k->readable = true;
	return 0;
}

static int open_all(struct pf_packs *p, struct pf_err *err)
{
	PF_FREE struct pf_pack_files *files = NULL;
	size_t n = 0;

	if (pf_pack_scan(p->dirfd, &files, &n, err) < 0)
		return -1;
	p->packs = calloc(n + 1, sizeof(*p->packs));
	if (!p->packs)
		return pf_fail(err, ENOMEM, "%zu packs", n);
	for (size_t i = 0; i < n; i++) {
		struct pf_pack *k = &p->packs[p->n_packs];
		/* A key or an index without a pack is what a killed process left. */
		if (files[i].key != (p->seal != NULL) || !files[i].pack)
			continue;
		k->files = files[i];
		p->n_packs++;
		if (open_pack(p, k, err) < 0)
			return -1;
	}
	return 0;
}

int pf_packs_open(int storefd, const struct pf_seal *seal, struct pf_packs **out, struct pf_err *err)
{
	struct pf_err dir_err = PF_ERR_INIT;
	PF_PACKS struct pf_packs *p = pf_calloc(1, sizeof(*p));

	pthread_mutex_init(&p->lock, NULL);
	p->dirfd = -1;
	p->storefd = storefd;
	p->seal = seal;
	if (seal && !seal->has_store)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "packs need the secrets of a store");
	if (RAND_bytes((uint8_t *)&p->seed, sizeof(p->seed)) != 1)
		return pf_fail(err, 0, "libcrypto: no random numbers");
	if (!seal && pf_chunker_init(&p->plain_chunker, &pf_chunk_default, NULL, err) < 0)
		return -1;
	p->dirfd = pf_pack_dir(storefd, &dir_err);
	if (p->dirfd < 0 && dir_err.errnum != ENOENT) {
		*err = dir_err;
		return -1;
	}
	if (p->dirfd >= 0 && (open_all(p, err) < 0 || build_table(p, err) < 0))
		return -1;
	*out = pf_take(p);
	return 0;
}

void pf_packs_free(struct pf_packs *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n_packs; i++) {
		free(p->packs[i].x.entries);
		free(p->packs[i].why);
		pf_secret_free(p->packs[i].key, sizeof(*p->packs[i].key));
		if (p->packs[i].fd >= 0)
			close(p->packs[i].fd);
	}
	while (p->scratch) {
		struct pf_scratch *s = p->scratch;
		p->scratch = s->next;
		ZSTD_freeDCtx(s->dctx);
		free(s);
	}
	while (p->cache) {
		struct pf_cached *c = p->cache;
		p->cache = c->next;
		free(c);
	}
	if (p->dirfd >= 0)
		close(p->dirfd);
	free(p->packs);
	free(p->table);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

size_t pf_packs_unreadable(const struct pf_packs *p)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n_packs; i++)
		n += !p->packs[i].readable;
	return n;
}

void pf_packs_totals(const struct pf_packs *p, struct pf_packs_totals *t)
{
	memset(t, 0, sizeof(*t));
	for (size_t i = 0; i < p->n_packs; i++) {
		const struct pf_pack *k = &p->packs[i];
		t->packs++;
		t->chunks += k->x.count;
		t->file_bytes += (int64_t)k->file_bytes;
		for (uint32_t j = 0; j < k->x.count; j++) {
			t->bytes += k->x.entries[j].len;
			t->stored_bytes += k->x.entries[j].stored;
		}
	}
}

/* ---- chunks ------------------------------------------------------------------------------------------- */

void pf_packs_id(const struct pf_packs *p, const void *data, size_t len, struct pf_chunk_id *id)
{
	unsigned n = 32;

	/* Neither fails: what they need was tried when the chunker was made. */
	if (p->seal)
		(void)HMAC(EVP_sha256(), p->seal->id_key, 32, data, len, id->b, &n);
	else
		(void)EVP_Digest(data, len, id->b, &n, EVP_sha256(), NULL);
}

void pf_packs_ids(const struct pf_packs *p, const struct pf_hash_job *jobs, size_t n)
{
	if (p->seal)
		pf_hmac_sha256_many(p->seal->id_key, jobs, n);
	else
		pf_sha256_many(jobs, n);
}

bool pf_packs_sealed(const struct pf_packs *p)
{
	return p->seal != NULL;
}

const struct pf_chunker *pf_packs_chunker(const struct pf_packs *p)
{
	return p->seal ? &p->seal->chunker : &p->plain_chunker;
}

bool pf_packs_has(const struct pf_packs *p, const struct pf_chunk_id *id, uint32_t *len)
{
	uint32_t pack, entry;
	size_t at = 0;

	if (!pf_packs_find(p, id, &at, &pack, &entry))
		return false;
	if (len)
		*len = p->packs[pack].x.entries[entry].len;
	return true;
}

struct pf_scratch *pf_scratch_take(struct pf_packs *p, struct pf_err *err)
{
	struct pf_scratch *s;

	pthread_mutex_lock(&p->lock);
	s = p->scratch;
	if (s)
		p->scratch = s->next;
	pthread_mutex_unlock(&p->lock);
	if (s)
		return s;
	s = malloc(sizeof(*s));
	if (!s || !(s->dctx = ZSTD_createDCtx())) {
		free(s);
		pf_fail(err, ENOMEM, "reading chunks");
		return NULL;
	}
	return s;
}

void pf_scratch_give(struct pf_packs *p, struct pf_scratch *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&p->lock);
	s->next = p->scratch;
	p->scratch = s;
	pthread_mutex_unlock(&p->lock);
}

/* A descriptor of the pack. *mine: the caller closes it, because enough are kept already. */
static int pack_fd(struct pf_packs *p, struct pf_pack *k, bool *mine, struct pf_err *err)
{
	int fd, other = -1;

	*mine = false;
	pthread_mutex_lock(&p->lock);
	fd = k->fd;
	pthread_mutex_unlock(&p->lock);
	if (fd >= 0)
		return fd;
	fd = open_file(p, k, ".pack");
	if (fd < 0)
		return pf_fail(err, errno, "pack %s", k->files.name);
	pthread_mutex_lock(&p->lock);
	if (k->fd >= 0) {
		other = fd;
		fd = k->fd;
	} else if (p->n_open < MAX_OPEN) {
		k->fd = fd;
		p->n_open++;
	} else {
		*mine = true;
	}
	pthread_mutex_unlock(&p->lock);
	if (other >= 0)
		close(other);
	return fd;
}

static int pread_all(int fd, uint8_t *buf, size_t len, uint64_t at)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = pread(fd, buf + got, len - got, (off_t)(at + got));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			if (n == 0)
				errno = 0;
			return -1;
		}
		got += (size_t)n;
	}
	return 0;
}

int pf_pack_frame(struct pf_packs *p, struct pf_pack *k, const struct pf_pack_entry *e, struct pf_scratch *s,
	const uint8_t **frame, size_t *len, struct pf_err *err)
{
	bool mine;
	int fd = pack_fd(p, k, &mine, err), r;

	if (fd < 0)
		return -1;
	r = pread_all(fd, s->frame, e->stored, e->offset);
	if (r < 0)
		r = errno ? pf_fail(err, errno, "pack %s", k->files.name)
			  : pf_fail_kind(err, PF_ERR_CORRUPT, 0, "pack %s is cut off", k->files.name);
	if (mine)
		close(fd);
	if (r < 0)
		return -1;
	*frame = s->frame;
	*len = e->stored;
	if (!k->key)
		return 0;
	if (pf_aead_open(k->key, PF_SEAL_USE_CHUNK, e->offset, NULL, 0, s->frame, e->stored, s->opened, err) <
		0)
		return pf_wrap(err, "pack %s", k->files.name);
	*frame = s->opened;
	*len = e->stored - PF_SEAL_TAG;
	return 0;
}

/* Not yet compared with its id. */
static int unpack_frame(const struct pf_pack_entry *e, struct pf_scratch *s, const uint8_t *frame, size_t len,
	void *out, struct pf_err *err)
{
	if (e->codec == PF_PACK_ZSTD) {
		size_t n = ZSTD_decompressDCtx(s->dctx, out, e->len, frame, len);
		if (ZSTD_isError(n) || n != e->len)
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
				"chunk %02x%02x%02x%02x… does not unpack (%s)", e->id.b[0], e->id.b[1],
				e->id.b[2], e->id.b[3], ZSTD_isError(n) ? ZSTD_getErrorName(n) : "too short");
	} else if (len == e->len) {
		memcpy(out, frame, len);
	} else {
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "chunk of the wrong length");
	}
	return 0;
}

int pf_pack_expand(struct pf_packs *p, const struct pf_pack_entry *e, struct pf_scratch *s,
	const uint8_t *frame, size_t len, void *out, struct pf_err *err)
{
	struct pf_chunk_id id;

	if (unpack_frame(e, s, frame, len, out, err) < 0)
		return -1;
	pf_packs_id(p, out, e->len, &id);
	if (memcmp(id.b, e->id.b, 32) != 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "chunk %02x%02x%02x%02x… is not what its id says",
			e->id.b[0], e->id.b[1], e->id.b[2], e->id.b[3]);
	return 0;
}

/* The whole chunk into out, of at least its length, from the first copy that is good. */
static int read_chunk(
	struct pf_packs *p, const struct pf_chunk_id *id, uint32_t len, void *out, struct pf_err *err)
{
	struct pf_scratch *s = pf_scratch_take(p, err);
	struct pf_err first = PF_ERR_INIT;
	uint32_t pack, entry;
	size_t at = 0;
	int r = -1;

	if (!s)
		return -1;
	while (r < 0 && pf_packs_find(p, id, &at, &pack, &entry)) {
		struct pf_pack *k = &p->packs[pack];
		const struct pf_pack_entry *e = &k->x.entries[entry];
		struct pf_err here = PF_ERR_INIT;
		const uint8_t *frame;
		size_t n;
		if (e->len == len && pf_pack_frame(p, k, e, s, &frame, &n, &here) == 0)
			r = pf_pack_expand(p, e, s, frame, n, out, &here);
		if (r < 0 && (!first.msg[0] || !here.msg[0]))
			first = here;
	}
	pf_scratch_give(p, s);
	if (r < 0) {
		*err = first;
		if (!first.msg[0])
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "chunk of two lengths");
	}
	return r;
}

int pf_packs_fetch(
	struct pf_packs *p, const struct pf_chunk_id *id, uint32_t len, void *buf, struct pf_err *err)
{
	struct pf_scratch *s = pf_scratch_take(p, err);
	uint32_t pack, entry;
	const uint8_t *frame;
	size_t at = 0, n;
	int r = -1;

	if (!s)
		return -1;
	if (!pf_packs_find(p, id, &at, &pack, &entry) || p->packs[pack].x.entries[entry].len != len) {
		pf_fail_kind(err, PF_ERR_CORRUPT, 0, "a chunk of that length is not in the store");
	} else {
		const struct pf_pack_entry *e = &p->packs[pack].x.entries[entry];
		if (pf_pack_frame(p, &p->packs[pack], e, s, &frame, &n, err) == 0)
			r = unpack_frame(e, s, frame, n, buf, err);
	}
	pf_scratch_give(p, s);
	return r;
}

static void cache_drop(struct pf_cached *c)
{
	if (c && !c->listed && !c->users)
		free(c);
}

/* The cached chunk, moved to the front, with one user more; NULL if it is not there. */
static struct pf_cached *cache_get(struct pf_packs *p, const struct pf_chunk_id *id)
{
	struct pf_cached *c = NULL;

	pthread_mutex_lock(&p->lock);
	for (struct pf_cached **at = &p->cache; *at; at = &(*at)->next) {
		if (memcmp((*at)->id.b, id->b, 32) == 0) {
			c = *at;
			*at = c->next;
			c->next = p->cache;
			p->cache = c;
			c->users++;
			break;
		}
	}
	pthread_mutex_unlock(&p->lock);
	return c;
}

static void cache_release(struct pf_packs *p, struct pf_cached *c)
{
	pthread_mutex_lock(&p->lock);
	c->users--;
	cache_drop(c);
	pthread_mutex_unlock(&p->lock);
}

static void cache_add(struct pf_packs *p, struct pf_cached *c)
{
	pthread_mutex_lock(&p->lock);
	c->listed = true;
	c->next = p->cache;
	p->cache = c;
	if (++p->n_cached > MAX_CACHED) {
		struct pf_cached **last = &p->cache, *old;
		while ((*last)->next)
			last = &(*last)->next;
		old = *last;
		*last = NULL;
		old->listed = false;
		p->n_cached--;
		cache_drop(old);
	}
	pthread_mutex_unlock(&p->lock);
}

/* Part of a chunk, by way of the cache. */
static int read_part(struct pf_packs *p, const struct pf_chunk_id *id, uint32_t chunk_len, uint32_t offset,
	void *buf, size_t len, struct pf_err *err)
{
	struct pf_cached *c = cache_get(p, id);

	if (!c) {
		c = malloc(sizeof(*c) + chunk_len);
		if (!c)
			return pf_fail(err, ENOMEM, "reading chunks");
		*c = (struct pf_cached){.id = *id, .users = 1, .len = chunk_len};
		if (read_chunk(p, id, chunk_len, c->data, err) < 0) {
			free(c);
			return -1;
		}
		cache_add(p, c);
	}
	memcpy(buf, c->data + offset, len);
	cache_release(p, c);
	return 0;
}

int pf_packs_read(struct pf_packs *p, const struct pf_chunk_id *id, uint32_t offset, void *buf, size_t len,
	struct pf_err *err)
{
	uint32_t chunk_len;

	if (!pf_packs_has(p, id, &chunk_len)) {
		size_t lost = pf_packs_unreadable(p);
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "chunk %02x%02x%02x%02x… is not in the store%s",
			id->b[0], id->b[1], id->b[2], id->b[3],
			lost ? ", some of whose packs cannot be read (pinfold checkpoint verify --all)" : "");
	}
	if (len > chunk_len || offset > chunk_len - len)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
			"chunk %02x%02x%02x%02x… is shorter than asked for", id->b[0], id->b[1], id->b[2],
			id->b[3]);
	if (len == chunk_len)
		return read_chunk(p, id, chunk_len, buf, err);
	return len ? read_part(p, id, chunk_len, offset, buf, len, err) : 0;
}
