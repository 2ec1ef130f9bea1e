/* Theory of operation.
 *
 * Data is collected in a stage, one chunk after the other, and handed on when there is a batch of them: the
 * pack writer hashes several at once. Until then the pieces of files (struct pf_ref) that lie in these chunks
 * wait as members, to be given the chunk's id.
 *
 * Files below PF_HOLE_MIN are bundled: put one after the other into one chunk, because a frame for each costs
 * more than a third of the compressed size. A bundle is ended behind a file whose content says so (so that an
 * added file does not move all bundles behind it), once it has 64 KiB, about 96 KiB on average, 256 KiB at
 * most. Larger files are cut by their content.
 *
 * Which bytes of a file are holes is decided by its bytes (tree.h): whole blocks of zeros count, whether the
 * file system stores them or not; asking it only spares reading them. */
#include "checkpoint/content.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/progress.h"
#include "base/str.h"

#define STAGE ((size_t)4 << 20)
#define PIECE ((size_t)256 << 10) /* read at once */
#define BATCH 32                  /* chunks in the stage at most */
#define BUNDLE_MIN ((size_t)64 << 10)
#define BUNDLE_EVERY 4 /* files, on average, until one ends a bundle that is large enough */

/* ---- memory ---- */

#define ARENA_BLOCK ((size_t)256 << 10)

struct pf_arena_block {
	struct pf_arena_block *next;
	size_t used, size;
	_Alignas(16) char data[];
};

void *pf_arena_alloc(struct pf_arena *a, size_t size)
{
	size = (size + 15) & ~(size_t)15;
	if (!a->blocks || a->blocks->size - a->blocks->used < size) {
		size_t want = size > ARENA_BLOCK ? size : ARENA_BLOCK;
		struct pf_arena_block *b = malloc(sizeof(*b) + want);
		if (!b)
			abort();
		*b = (struct pf_arena_block){.next = a->blocks, .size = want};
		a->blocks = b;
	}
	void *p = a->blocks->data + a->blocks->used;
	a->blocks->used += size;
	return p;
}

void *pf_arena_copy(struct pf_arena *a, const void *data, size_t size)
{
	void *p = pf_arena_alloc(a, size ? size : 1);

	if (size > 0)
		memcpy(p, data, size);
	return p;
}

void pf_arena_done(struct pf_arena *a)
{
	while (a->blocks) {
		struct pf_arena_block *b = a->blocks;
		a->blocks = b->next;
		free(b);
	}
}

/* ---- the stage ---- */

/* A piece of a staged chunk that waits for the chunk's id: of a file that is complete, or the n-th of the
 * file that is being read. */
struct member {
	struct pf_ref *ref;
	size_t nth;
};

struct staged {
	size_t off, len, members_end; /* its members: from where those of the one before end */
};

struct pf_content_writer {
	const struct pf_chunker *chunker;
	struct pf_packs_writer *packs;
	struct pf_arena *arena;
	EVP_MD_CTX *md;
	uint8_t *stage, *piece;
	size_t used;    /* bytes in the stage: closed chunks, then what is open */
	size_t open_at; /* where the open chunk begins */
	bool bundle;    /* it is a bundle */
	struct staged chunks[BATCH];
	size_t n_chunks;
	struct member *members;
	size_t n_members, cap_members;
	/* The file that is being read. */
	struct pf_ref *refs;
	size_t n_refs, cap_refs;
	struct pf_extent *extents;
	size_t n_extents, cap_extents;
	int64_t pending; /* zeros behind the last data, not yet known to be a hole */
	int64_t data_bytes;
};

struct pf_content_writer *pf_content_writer_new(
	const struct pf_chunker *chunker, struct pf_packs_writer *packs, struct pf_arena *arena)
{
	struct pf_content_writer *w = pf_calloc(1, sizeof(*w));

	w->chunker = chunker;
	w->packs = packs;
	w->arena = arena;
	w->md = EVP_MD_CTX_new();
	w->stage = malloc(STAGE);
	w->piece = malloc(PIECE);
	if (!w->md || !w->stage || !w->piece)
		abort();
	return w;
}

void pf_content_writer_free(struct pf_content_writer *w)
{
	if (!w)
		return;
	EVP_MD_CTX_free(w->md);
	free(w->stage);
	free(w->piece);
	free(w->members);
	free(w->refs);
	free(w->extents);
	free(w);
}

/* Hand the closed chunks on; what is open moves to the front. */
static int put_batch(struct pf_content_writer *w, struct pf_err *err)
{
	struct iovec v[BATCH];
	struct pf_chunk_id ids[BATCH];
	size_t m = 0;

	for (size_t i = 0; i < w->n_chunks; i++)
		v[i] = (struct iovec){w->stage + w->chunks[i].off, w->chunks[i].len};
	if (w->n_chunks > 0 && pf_packs_put(w->packs, v, w->n_chunks, ids, err) < 0)
		return -1;
	for (size_t i = 0; i < w->n_chunks; i++)
		for (; m < w->chunks[i].members_end; m++) {
			struct pf_ref *ref =
				w->members[m].ref ? w->members[m].ref : &w->refs[w->members[m].nth];
			memcpy(ref->id, ids[i].b, sizeof(ref->id));
		}
	/* Members of the open chunk stay. */
	if (m > 0)
		memmove(w->members, w->members + m, (w->n_members - m) * sizeof(*w->members));
	w->n_members -= m;
	w->n_chunks = 0;
	memmove(w->stage, w->stage + w->open_at, w->used - w->open_at);
	w->used -= w->open_at;
	w->open_at = 0;
	return 0;
}

/* End a chunk of the first len bytes of what is open. */
static int close_chunk(struct pf_content_writer *w, size_t len, struct pf_err *err)
{
	w->chunks[w->n_chunks++] = (struct staged){w->open_at, len, w->n_members};
	w->open_at += len;
	return w->n_chunks == BATCH ? put_batch(w, err) : 0;
}

static int end_bundle(struct pf_content_writer *w, struct pf_err *err)
{
	if (!w->bundle)
		return 0;
	w->bundle = false;
	return w->used > w->open_at ? close_chunk(w, w->used - w->open_at, err) : 0;
}

/* Room for len more bytes behind what is there. */
static int make_room(struct pf_content_writer *w, size_t len, struct pf_err *err)
{
	return STAGE - w->used < len ? put_batch(w, err) : 0;
}

static void add_member(struct pf_content_writer *w, struct pf_ref *ref, size_t nth)
{
	if (w->n_members == w->cap_members) {
		w->cap_members = w->cap_members ? w->cap_members * 2 : 1024;
		void *v = realloc(w->members, w->cap_members * sizeof(*w->members));
		if (!v)
			abort();
		w->members = v;
	}
	w->members[w->n_members++] = (struct member){ref, nth};
}

/* ---- small files ---- */

/* Whether a bundle may end behind a file of this content. Any even spread will do. */
static bool ends_bundle(const uint8_t *data, size_t len)
{
	uint64_t h = len * 0x9e3779b97f4a7c15U, word;

	for (; len >= 8; data += 8, len -= 8) {
		memcpy(&word, data, 8);
		h = (h ^ word) * 0x9e3779b97f4a7c15U;
		h ^= h >> 29;
	}
	word = 0;
	memcpy(&word, data, len);
	h = (h ^ word) * 0x9e3779b97f4a7c15U;
	return (h >> 40) % BUNDLE_EVERY == 0;
}

static int hash(const void *data, size_t len, uint8_t out[32], struct pf_err *err)
{
	return EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL) == 1 ? 0 : pf_fail(err, EIO, "SHA-256");
}

static ssize_t read_at(int fd, void *buf, size_t len, int64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, off + (int64_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int read_small(struct pf_content_writer *w, int fd, int64_t base, size_t size, struct pf_content *out,
	bool *cut, struct pf_err *err)
{
	if (w->used - w->open_at + size > PF_CHUNK_MAX && end_bundle(w, err) < 0)
		return -1;
	if (make_room(w, size, err) < 0)
		return -1;
	uint8_t *to = w->stage + w->used;
	ssize_t n = read_at(fd, to, size, base);
	if (n < 0)
		return pf_fail(err, errno, "read");
	if ((size_t)n != size) {
		*cut = true;
		return 0;
	}
	if (hash(to, size, out->sha256, err) < 0)
		return -1;
	pf_progress_done((int64_t)size);
	w->bundle = true;
	out->data_bytes = (int64_t)size;
	out->extents = pf_arena_alloc(w->arena, sizeof(*out->extents));
	out->extents[0] = (struct pf_extent){0, (int64_t)size};
	out->n_extents = 1;
	out->refs = pf_arena_alloc(w->arena, sizeof(*out->refs));
	out->refs[0] = (struct pf_ref){.off = (uint32_t)(w->used - w->open_at), .len = (uint32_t)size};
	out->n_refs = 1;
	add_member(w, out->refs, 0);
	w->used += size;
	return w->used - w->open_at >= BUNDLE_MIN && ends_bundle(to, size) ? end_bundle(w, err) : 0;
}

/* ---- large files ---- */

static int64_t hole_min(const struct pf_content_writer *w)
{
	return PF_HOLE_MIN << (w->n_extents / PF_HOLE_STEP);
}

static int close_piece(struct pf_content_writer *w, size_t len, struct pf_err *err)
{
	if (w->n_refs == w->cap_refs) {
		w->cap_refs = w->cap_refs ? w->cap_refs * 2 : 64;
		void *v = realloc(w->refs, w->cap_refs * sizeof(*w->refs));
		if (!v)
			abort();
		w->refs = v;
	}
	w->refs[w->n_refs] = (struct pf_ref){.len = (uint32_t)len};
	add_member(w, NULL, w->n_refs++);
	return close_chunk(w, len, err);
}

/* Cut chunks off what is open as long as there is enough for any cut, or all of it at the end. */
static int cut_chunks(struct pf_content_writer *w, bool end, struct pf_err *err)
{
	while (w->used - w->open_at >= PF_CHUNK_MAX || (end && w->used > w->open_at)) {
		size_t len = pf_chunk_cut(w->chunker, w->stage + w->open_at, w->used - w->open_at);
		if (close_piece(w, len, err) < 0)
			return -1;
	}
	return 0;
}

/* Data of the file; NULL: zeros. */
static int add_data(struct pf_content_writer *w, const uint8_t *data, int64_t len, struct pf_err *err)
{
	while (len > 0) {
		size_t n = len < (int64_t)PIECE ? (size_t)len : PIECE;
		if (make_room(w, n, err) < 0)
			return -1;
		uint8_t *to = w->stage + w->used;
		if (data)
			memcpy(to, data, n);
		else
			memset(to, 0, n);
		if (EVP_DigestUpdate(w->md, to, n) != 1)
			return pf_fail(err, EIO, "SHA-256");
		pf_progress_done((int64_t)n);
		w->used += n;
		w->data_bytes += (int64_t)n;
		w->extents[w->n_extents - 1].len += (int64_t)n;
		data = data ? data + n : NULL;
		len -= (int64_t)n;
		if (cut_chunks(w, false, err) < 0)
			return -1;
	}
	return 0;
}

/* The zeros before offset `at`, where data begins, are a hole or data themselves. */
static int end_zeros(struct pf_content_writer *w, int64_t at, struct pf_err *err)
{
	int64_t zeros = w->pending;

	w->pending = 0;
	if (w->n_extents > 0 && zeros < hole_min(w))
		return add_data(w, NULL, zeros, err);
	if (w->n_extents == 0 && zeros < hole_min(w))
		at -= zeros;
	else
		zeros = 0;
	if (w->n_extents == w->cap_extents) {
		w->cap_extents = w->cap_extents ? w->cap_extents * 2 : 64;
		void *v = realloc(w->extents, w->cap_extents * sizeof(*w->extents));
		if (!v)
			abort();
		w->extents = v;
	}
	w->extents[w->n_extents++] = (struct pf_extent){at, 0};
	return add_data(w, NULL, zeros, err);
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && (len == 1 || memcmp(p, p + 1, len - 1) == 0);
}

/* A piece of the file, from a block's beginning. */
static int add_piece(
	struct pf_content_writer *w, const uint8_t *data, size_t len, int64_t at, struct pf_err *err)
{
	size_t i = 0;

	while (i < len) {
		size_t n = len - i < PF_HOLE_BLOCK ? len - i : PF_HOLE_BLOCK, from = i;
		if (is_zero(data + i, n)) {
			w->pending += (int64_t)n;
			i += n;
			continue;
		}
		if ((w->pending > 0 || w->n_extents == 0) && end_zeros(w, at + (int64_t)i, err) < 0)
			return -1;
		do {
			i += n;
			n = len - i < PF_HOLE_BLOCK ? len - i : PF_HOLE_BLOCK;
		} while (i < len && !is_zero(data + i, n));
		if (add_data(w, data + from, (int64_t)(i - from), err) < 0)
			return -1;
	}
	return 0;
}

/* Where there is something to read from `at` on, by whole blocks; size when there is nothing. */
static int next_data(
	int fd, int64_t base, int64_t size, int64_t at, int64_t *from, int64_t *to, struct pf_err *err)
{
	int64_t data = lseek(fd, base + at, SEEK_DATA), hole;

	*from = *to = size;
	if (data < 0 && errno == ENXIO)
		return 0;
	hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
	if (hole < 0 && errno == EINVAL) {
		*from = at;
		return 0;
	}
	if (hole < 0)
		return pf_fail(err, errno, "find holes");
	data = (data - base) & ~(int64_t)(PF_HOLE_BLOCK - 1);
	hole = (hole - base + PF_HOLE_BLOCK - 1) & ~(int64_t)(PF_HOLE_BLOCK - 1);
	*from = data < at ? at : data < size ? data : size;
	*to = hole < size ? hole : size;
	return 0;
}

static int read_stretches(struct pf_content_writer *w, int fd, int64_t base, int64_t size, bool holes,
	bool *cut, struct pf_err *err)
{
	int64_t at = 0, from = 0, to = size;

	while (at < size) {
		if (holes && next_data(fd, base, size, at, &from, &to, err) < 0)
			return -1;
		w->pending += from - at;
		for (at = from; at < to;) {
			size_t n = to - at < (int64_t)PIECE ? (size_t)(to - at) : PIECE;
			ssize_t got = read_at(fd, w->piece, n, base + at);
			if (got < 0)
				return pf_fail(err, errno, "read");
			*cut = *cut || (size_t)got != n;
			if (*cut)
				return 0;
			if (add_piece(w, w->piece, n, at, err) < 0)
				return -1;
			at += (int64_t)n;
		}
	}
	/* Zeros at the end. */
	if (w->pending > 0 && w->pending < hole_min(w))
		return w->n_extents > 0 ? end_zeros(w, size, err) : 0;
	return 0;
}

static int read_large(struct pf_content_writer *w, int fd, int64_t base, int64_t size, bool holes,
	struct pf_content *out, bool *cut, struct pf_err *err)
{
	w->n_refs = w->n_extents = 0;
	w->pending = w->data_bytes = 0;
	if (end_bundle(w, err) < 0)
		return -1;
	if (EVP_DigestInit_ex(w->md, EVP_sha256(), NULL) != 1)
		return pf_fail(err, EIO, "SHA-256");
	if (read_stretches(w, fd, base, size, holes, cut, err) < 0 || cut_chunks(w, true, err) < 0)
		return -1;
	if (EVP_DigestFinal_ex(w->md, out->sha256, NULL) != 1)
		return pf_fail(err, EIO, "SHA-256");
	if (w->n_extents == 0)
		memset(out->sha256, 0, sizeof(out->sha256));
	out->data_bytes = w->data_bytes;
	out->n_extents = w->n_extents;
	out->extents = pf_arena_copy(w->arena, w->extents, w->n_extents * sizeof(*w->extents));
	out->n_refs = w->n_refs;
	out->refs = pf_arena_copy(w->arena, w->refs, w->n_refs * sizeof(*w->refs));
	for (size_t i = 0; i < w->n_members; i++)
		if (!w->members[i].ref)
			w->members[i].ref = &out->refs[w->members[i].nth];
	return 0;
}

int pf_content_read(struct pf_content_writer *w, int fd, int64_t base, int64_t size, bool holes,
	struct pf_content *out, bool *cut, struct pf_err *err)
{
	*out = (struct pf_content){.size = size};
	*cut = false;
	if (size == 0)
		return 0;
	return size < PF_HOLE_MIN ? read_small(w, fd, base, (size_t)size, out, cut, err)
				  : read_large(w, fd, base, size, holes, out, cut, err);
}

int pf_content_flush(struct pf_content_writer *w, struct pf_err *err)
{
	return end_bundle(w, err) < 0 ? -1 : put_batch(w, err);
}

int pf_content_stream(struct pf_content_writer *w, const void *data, size_t len, uint8_t (**ids)[32],
	size_t *n, struct pf_err *err)
{
	struct iovec v[BATCH];
	struct pf_chunk_id got[BATCH];
	const char *p = data;
	size_t at = 0, cap = len / w->chunker->params.min + 1, count = 0;
	uint8_t(*out)[32] = pf_calloc(cap, sizeof(*out));

	while (at < len) {
		size_t k = 0;
		for (; k < BATCH && at < len; k++) {
			size_t cut = pf_chunk_cut(w->chunker, p + at, len - at);
			v[k] = (struct iovec){(void *)(uintptr_t)(p + at), cut};
			at += cut;
		}
		if (pf_packs_put(w->packs, v, k, got, err) < 0) {
			free(out);
			return -1;
		}
		for (size_t i = 0; i < k; i++)
			memcpy(out[count++], got[i].b, 32);
	}
	*ids = out;
	*n = count;
	return 0;
}
