/* Theory of operation.
 *
 * Data is collected in a stage, one chunk after the other. A stage that is full is handed to the pack writer,
 * whose threads hash and compress what is in it, while the next one is filled; what is still open (a chunk,
 * a block of a file's sum) is carried over. So a file's ids and sums come later than its data: who waits for
 * them is listed, and served by pf_content_flush().
 *
 * Files below 64 KiB are bundled: put one after the other into one chunk, because a frame for each costs more
 * than a third of the compressed size. A bundle is ended behind a file whose content says so (so that an
 * added file does not move all bundles behind it), once it has 160 KiB, about 190 KiB on average, 256 KiB at
 * most. Larger files, and those with holes, are cut by their content.
 *
 * Which bytes of a file are holes is decided by its bytes (tree.h): whole blocks of zeros count, whether the
 * file system stores them or not; asking it only spares reading them. */
#include "checkpoint/content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/progress.h"
#include "base/str.h"
#include "checkpoint/filesum.h"

#define STAGE ((size_t)2 << 20)
#define MAX_STAGES 10             /* 20 MiB */
#define PIECE ((size_t)256 << 10) /* read at once */
#define MAX_CHUNKS 256            /* in a stage */
#define BATCH 32                  /* chunks of a stream that are stored at once */
#define SMALL ((int64_t)64 << 10) /* files below this are bundled: not more than a block of a sum */
#define BUNDLE_MIN ((size_t)160 << 10)
#define BUNDLE_EVERY ((size_t)24 << 10) /* bytes, on average, until a bundle that is large enough ends */

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

struct stage {
	struct pf_packs_load load;
	uint8_t *data;
	struct pf_hash_job chunks[MAX_CHUNKS], *sums;
	size_t n_chunks, n_sums, cap_sums;
};

/* Who waits for ids: either each piece for its own, or all for one. */
struct waiting {
	struct waiting *next;
	struct pf_ref *refs;
	size_t n;
	const uint8_t *const *ids;
	const uint8_t *id;
	uint8_t *sum; /* the only id is this sum as well; or NULL */
};

/* A file of several blocks: its sum is made of theirs. */
struct blocks {
	struct blocks *next;
	uint8_t *const *parts; /* PART sums each */
	size_t n;
	uint8_t *sum;
};
#define PART 64

struct pf_content_writer {
	const struct pf_chunker *chunker;
	struct pf_packs_writer *packs;
	struct pf_arena *arena;
	bool sealed;              /* ids are no sums */
	struct pf_filesum *whole; /* tree version 2: the sum of all data of a large file; else NULL */
	struct stage *stages[MAX_STAGES], *at;
	size_t n_stages, max_stages, turn;
	size_t used;    /* bytes in the stage: closed chunks, then what is open */
	size_t open_at; /* where the open chunk begins */
	bool bundle;    /* it is a bundle, whose id will be at bundle_id */
	uint8_t *bundle_id;
	struct waiting *waiting;
	struct blocks *blocks;
	uint8_t *piece;
	/* The file that is being read. */
	bool large;
	size_t block_at; /* where the open block begins */
	uint8_t **parts; /* sums of its blocks */
	size_t n_blocks, cap_parts;
	struct pf_ref *refs;
	const uint8_t **ids; /* as many */
	size_t n_refs, cap_refs;
	struct pf_extent *extents;
	size_t n_extents, cap_extents;
	int64_t pending; /* zeros behind the last data, not yet known to be a hole */
	int64_t data_bytes;
};

static struct stage *stage_new(void)
{
	struct stage *s = pf_calloc(1, sizeof(*s));

	s->data = malloc(STAGE);
	if (!s->data)
		abort();
	return s;
}

struct pf_content_writer *pf_content_writer_new(
	const struct pf_packs *packs, struct pf_packs_writer *writer, struct pf_arena *arena, int version)
{
	struct pf_content_writer *w = pf_calloc(1, sizeof(*w));
	size_t stages = pf_packs_writer_threads(writer) + 2;

	w->chunker = pf_packs_chunker(packs);
	w->sealed = pf_packs_sealed(packs);
	w->packs = writer;
	w->arena = arena;
	w->whole = version == 2 ? pf_filesum_new() : NULL;
	w->max_stages = stages < MAX_STAGES ? stages : MAX_STAGES;
	w->at = w->stages[w->n_stages++] = stage_new();
	w->piece = malloc(PIECE);
	if (!w->piece)
		abort();
	return w;
}

void pf_content_writer_free(struct pf_content_writer *w)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (!w)
		return;
	for (size_t i = 0; i < w->n_stages; i++) {
		(void)pf_packs_wait(w->packs, &w->stages[i]->load, &ignored);
		free(w->stages[i]->data);
		free(w->stages[i]->sums);
		free(w->stages[i]);
	}
	pf_filesum_free(w->whole);
	free(w->piece);
	free(w->parts);
	free(w->refs);
	free(w->ids);
	free(w->extents);
	free(w);
}

/* The stage is handed on, and what is open goes to the next. */
static int hand_on(struct pf_content_writer *w, struct pf_err *err)
{
	struct stage *s = w->at;
	bool block = w->large && !w->whole;
	size_t from = block && w->block_at < w->open_at ? w->block_at : w->open_at;

	if (s->n_chunks + s->n_sums > 0) {
		w->turn = (w->turn + 1) % w->max_stages;
		if (w->turn == w->n_stages)
			w->stages[w->n_stages++] = stage_new();
		w->at = w->stages[w->turn];
		if (pf_packs_wait(w->packs, &w->at->load, err) < 0)
			return -1;
		w->at->n_chunks = w->at->n_sums = 0;
		memcpy(w->at->data, s->data + from, w->used - from);
		s->load = (struct pf_packs_load){
			.chunks = s->chunks, .n_chunks = s->n_chunks, .sums = s->sums, .n_sums = s->n_sums};
		pf_packs_submit(w->packs, &s->load);
	} else {
		memmove(s->data, s->data + from, w->used - from);
	}
	w->used -= from;
	w->open_at -= from;
	w->block_at -= block ? from : 0;
	return 0;
}

/* Room for len more bytes behind what is there. */
static int make_room(struct pf_content_writer *w, size_t len, struct pf_err *err)
{
	return STAGE - w->used < len ? hand_on(w, err) : 0;
}

/* End a chunk of the first len bytes of what is open; its id comes to id. */
static int close_chunk(struct pf_content_writer *w, size_t len, uint8_t *id, struct pf_err *err)
{
	w->at->chunks[w->at->n_chunks++] = (struct pf_hash_job){w->at->data + w->open_at, len, id};
	w->open_at += len;
	return w->at->n_chunks == MAX_CHUNKS ? hand_on(w, err) : 0;
}

/* The sum of len bytes in the stage comes to out. */
static void add_sum(struct pf_content_writer *w, size_t from, size_t len, uint8_t *out)
{
	struct stage *s = w->at;

	s->sums = pf_grow(s->sums, s->n_sums, &s->cap_sums, sizeof(*s->sums));
	s->sums[s->n_sums++] = (struct pf_hash_job){s->data + from, len, out};
}

static struct waiting *wait_for(struct pf_content_writer *w, struct pf_ref *refs, size_t n)
{
	struct waiting *q = pf_arena_alloc(w->arena, sizeof(*q));

	*q = (struct waiting){.next = w->waiting, .refs = refs, .n = n};
	w->waiting = q;
	return q;
}

static int end_bundle(struct pf_content_writer *w, struct pf_err *err)
{
	if (!w->bundle)
		return 0;
	w->bundle = false;
	return w->used > w->open_at ? close_chunk(w, w->used - w->open_at, w->bundle_id, err) : 0;
}

/* ---- small files ---- */

static bool is_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && (len == 1 || memcmp(p, p + 1, len - 1) == 0);
}

static bool has_zero_block(const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i += PF_HOLE_BLOCK)
		if (is_zero(data + i, len - i < PF_HOLE_BLOCK ? len - i : PF_HOLE_BLOCK))
			return true;
	return false;
}

/* Whether a bundle may end behind a file of this content. Any even spread will do. */
static bool ends_bundle(const uint8_t *data, size_t len)
{
	uint64_t h = len * 0x9e3779b97f4a7c15U, word;
	size_t whole = len;

	for (; len >= 8; data += 8, len -= 8) {
		memcpy(&word, data, 8);
		h = (h ^ word) * 0x9e3779b97f4a7c15U;
		h ^= h >> 29;
	}
	word = 0;
	memcpy(&word, data, len);
	h = (h ^ word) * 0x9e3779b97f4a7c15U;
	return (h >> 40) % BUNDLE_EVERY < whole;
}

/* len bytes of the file at off; *cut: it has fewer. */
static int read_at(
	const struct pf_content_in *in, void *buf, size_t len, int64_t off, bool *cut, struct pf_err *err)
{
	size_t done = 0;

	if (in->read)
		return in->read(in->ctx, buf, len, off, err);
	while (done < len) {
		ssize_t n = pread(in->fd, (char *)buf + done, len - done, in->base + off + (int64_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pf_fail(err, errno, "read");
		*cut = n == 0;
		if (*cut)
			break;
		done += (size_t)n;
	}
	return 0;
}

/* 1: there may be holes in it. */
static int read_small(struct pf_content_writer *w, const struct pf_content_in *in, size_t size,
	struct pf_content *out, bool *cut, struct pf_err *err)
{
	if (w->used - w->open_at + size > PF_CHUNK_MAX && end_bundle(w, err) < 0)
		return -1;
	if (make_room(w, size, err) < 0)
		return -1;
	uint8_t *to = w->at->data + w->used;
	if (read_at(in, to, size, 0, cut, err) < 0)
		return -1;
	if (*cut)
		return 0;
	if ((int64_t)size >= PF_HOLE_MIN && has_zero_block(to, size))
		return 1;
	if (!w->bundle)
		w->bundle_id = pf_arena_alloc(w->arena, 32);
	w->bundle = true;
	pf_progress_done((int64_t)size);
	add_sum(w, w->used, size, out->sum);
	out->data_bytes = (int64_t)size;
	out->extents = pf_arena_alloc(w->arena, sizeof(*out->extents));
	out->extents[0] = (struct pf_extent){0, (int64_t)size};
	out->n_extents = 1;
	out->refs = pf_arena_alloc(w->arena, sizeof(*out->refs));
	out->refs[0] = (struct pf_ref){.off = (uint32_t)(w->used - w->open_at), .len = (uint32_t)size};
	out->n_refs = 1;
	wait_for(w, out->refs, 1)->id = w->bundle_id;
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
	uint8_t *id = pf_arena_alloc(w->arena, 32);
	size_t cap = w->cap_refs;

	w->refs = pf_grow(w->refs, w->n_refs, &cap, sizeof(*w->refs));
	w->ids = pf_grow(w->ids, w->n_refs, &w->cap_refs, sizeof(*w->ids));
	w->refs[w->n_refs] = (struct pf_ref){.len = (uint32_t)len};
	w->ids[w->n_refs++] = id;
	return close_chunk(w, len, id, err);
}

/* Cut chunks off what is open as long as there is enough for any cut, or all of it at the end. */
static int cut_chunks(struct pf_content_writer *w, bool end, struct pf_err *err)
{
	while (w->used - w->open_at >= PF_CHUNK_MAX || (end && w->used > w->open_at)) {
		size_t len = pf_chunk_cut(w->chunker, w->at->data + w->open_at, w->used - w->open_at);
		if (close_piece(w, len, err) < 0)
			return -1;
	}
	return 0;
}

/* The next len bytes are the sum's next block. */
static void end_block(struct pf_content_writer *w, size_t len)
{
	size_t part = w->n_blocks / PART;

	if (w->n_blocks % PART == 0) {
		w->parts = pf_grow(w->parts, part, &w->cap_parts, sizeof(uint8_t *));
		w->parts[part] = pf_arena_alloc(w->arena, PART * 32);
	}
	add_sum(w, w->block_at, len, w->parts[part] + w->n_blocks % PART * 32);
	w->n_blocks++;
	w->block_at += len;
}

/* n bytes of the file have been put behind what is in the stage. */
static int data_added(struct pf_content_writer *w, size_t n, struct pf_err *err)
{
	pf_progress_done((int64_t)n);
	if (w->whole)
		pf_filesum_add(w->whole, w->at->data + w->used, n);
	w->used += n;
	w->data_bytes += (int64_t)n;
	w->extents[w->n_extents - 1].len += (int64_t)n;
	/* The last block is known at the end: it may be the only one. */
	while (!w->whole && w->used - w->block_at > PF_FILESUM_BLOCK)
		end_block(w, PF_FILESUM_BLOCK);
	return cut_chunks(w, false, err);
}

/* Data of the file; NULL: zeros. */
static int add_data(struct pf_content_writer *w, const uint8_t *data, int64_t len, struct pf_err *err)
{
	while (len > 0) {
		size_t n = len < (int64_t)PIECE ? (size_t)len : PIECE;
		if (make_room(w, n, err) < 0)
			return -1;
		if (data)
			memcpy(w->at->data + w->used, data, n);
		else
			memset(w->at->data + w->used, 0, n);
		data = data ? data + n : NULL;
		len -= (int64_t)n;
		if (data_added(w, n, err) < 0)
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
	w->extents = pf_grow(w->extents, w->n_extents, &w->cap_extents, sizeof(*w->extents));
	w->extents[w->n_extents++] = (struct pf_extent){at, 0};
	return add_data(w, NULL, zeros, err);
}

/* A piece of the file, from a block's beginning, that may have zeros in it. */
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

/* Read n bytes at offset `at` to where they belong in the stage, which is right unless there are zeros. */
static int read_piece(struct pf_content_writer *w, const struct pf_content_in *in, size_t n, int64_t at,
	bool *cut, struct pf_err *err)
{
	if (make_room(w, n, err) < 0)
		return -1;
	uint8_t *to = w->at->data + w->used;
	if (read_at(in, to, n, at, cut, err) < 0)
		return -1;
	if (*cut)
		return 0;
	if (w->pending > 0 || has_zero_block(to, n)) {
		memcpy(w->piece, to, n);
		return add_piece(w, w->piece, n, at, err);
	}
	if (w->n_extents == 0 && end_zeros(w, at, err) < 0)
		return -1;
	return data_added(w, n, err);
}

/* Where there is something to read from offset `at` on: 1, or -1; 0: nowhere. */
static int seek_data(const struct pf_content_in *in, int64_t size, int64_t at, int64_t *from, int64_t *to,
	struct pf_err *err)
{
	if (in->next)
		return in->next(in->ctx, at, from, to);
	int64_t data = lseek(in->fd, in->base + at, SEEK_DATA), hole;
	if (data < 0 && errno == ENXIO)
		return 0;
	hole = data < 0 ? -1 : lseek(in->fd, data, SEEK_HOLE);
	if (hole < 0 && errno != EINVAL)
		return pf_fail(err, errno, "find holes");
	*from = hole < 0 ? at : data - in->base;
	*to = hole < 0 ? size : hole - in->base;
	return 1;
}

/* The same by whole blocks; size when there is nothing. */
static int next_data(const struct pf_content_in *in, int64_t size, int64_t at, int64_t *from, int64_t *to,
	struct pf_err *err)
{
	int64_t data, hole;
	int r = seek_data(in, size, at, &data, &hole, err);

	*from = *to = size;
	if (r <= 0)
		return r;
	data &= ~(int64_t)(PF_HOLE_BLOCK - 1);
	hole = (hole + PF_HOLE_BLOCK - 1) & ~(int64_t)(PF_HOLE_BLOCK - 1);
	*from = data < at ? at : data < size ? data : size;
	*to = hole < size ? hole : size;
	return 0;
}

static int read_stretches(struct pf_content_writer *w, const struct pf_content_in *in, int64_t size,
	bool holes, bool *cut, struct pf_err *err)
{
	int64_t at = 0, from = 0, to = size;

	while (at < size) {
		if (holes && next_data(in, size, at, &from, &to, err) < 0)
			return -1;
		w->pending += from - at;
		for (at = from; at < to;) {
			size_t n = to - at < (int64_t)PIECE ? (size_t)(to - at) : PIECE;
			if (read_piece(w, in, n, at, cut, err) < 0)
				return -1;
			if (*cut)
				return 0;
			at += (int64_t)n;
		}
	}
	/* Zeros at the end. */
	if (w->pending > 0 && w->pending < hole_min(w))
		return w->n_extents > 0 ? end_zeros(w, size, err) : 0;
	return 0;
}

/* The sum of the file, now or when its blocks have theirs. The open block is still in the stage. */
static void end_sum(struct pf_content_writer *w, struct pf_content *out, struct waiting *q)
{
	if (w->whole) {
		pf_filesum_end(w->whole, out->sum);
	} else if (w->n_blocks == 0 && w->n_refs == 1 && !w->sealed) {
		q->sum = out->sum;
	} else if (w->n_blocks == 0) {
		if (w->used > w->block_at)
			add_sum(w, w->block_at, w->used - w->block_at, out->sum);
	} else {
		struct blocks *b = pf_arena_alloc(w->arena, sizeof(*b));
		end_block(w, w->used - w->block_at);
		*b = (struct blocks){.next = w->blocks, .n = w->n_blocks, .sum = out->sum};
		b->parts = pf_arena_copy(
			w->arena, w->parts, (w->n_blocks + PART - 1) / PART * sizeof(uint8_t *));
		w->blocks = b;
	}
}

static int read_large(struct pf_content_writer *w, const struct pf_content_in *in, int64_t size, bool holes,
	struct pf_content *out, bool *cut, struct pf_err *err)
{
	w->n_refs = w->n_extents = w->n_blocks = 0;
	w->pending = w->data_bytes = 0;
	if (end_bundle(w, err) < 0)
		return -1;
	w->large = true;
	w->block_at = w->used;
	if (w->whole)
		pf_filesum_begin(w->whole, 2);
	if (read_stretches(w, in, size, holes, cut, err) < 0 || cut_chunks(w, true, err) < 0) {
		w->large = false;
		return -1;
	}
	out->data_bytes = w->data_bytes;
	out->n_extents = w->n_extents;
	out->extents = pf_arena_copy(w->arena, w->extents, w->n_extents * sizeof(*w->extents));
	out->n_refs = w->n_refs;
	out->refs = pf_arena_copy(w->arena, w->refs, w->n_refs * sizeof(*w->refs));
	struct waiting *q = wait_for(w, out->refs, out->n_refs);
	q->ids = pf_arena_copy(w->arena, w->ids, w->n_refs * sizeof(*w->ids));
	end_sum(w, out, q);
	w->large = false;
	return 0;
}

int pf_content_read(struct pf_content_writer *w, const struct pf_content_in *in, int64_t size, bool holes,
	struct pf_content *out, bool *cut, struct pf_err *err)
{
	int r = 1;

	*out = (struct pf_content){.size = size};
	*cut = false;
	if (size == 0)
		return 0;
	if (size < PF_HOLE_MIN || (size < SMALL && !holes))
		r = read_small(w, in, (size_t)size, out, cut, err);
	return r == 1 ? read_large(w, in, size, holes, out, cut, err) : r;
}

/* ---- what was waited for ---- */

static void sum_blocks(const struct blocks *b)
{
	uint8_t *all = malloc(b->n * 32);

	if (!all)
		abort();
	for (size_t i = 0; i < b->n; i++)
		memcpy(all + i * 32, b->parts[i / PART] + i % PART * 32, 32);
	pf_sha256_many(&(struct pf_hash_job){all, b->n * 32, b->sum}, 1);
	free(all);
}

int pf_content_flush(struct pf_content_writer *w, struct pf_err *err)
{
	if (end_bundle(w, err) < 0 || hand_on(w, err) < 0)
		return -1;
	for (size_t i = 0; i < w->n_stages; i++)
		if (pf_packs_wait(w->packs, &w->stages[i]->load, err) < 0)
			return -1;
	for (struct waiting *q = w->waiting; q; q = q->next) {
		for (size_t i = 0; i < q->n; i++)
			memcpy(q->refs[i].id, q->ids ? q->ids[i] : q->id, 32);
		if (q->sum)
			memcpy(q->sum, q->refs[0].id, 32);
	}
	for (const struct blocks *b = w->blocks; b; b = b->next)
		sum_blocks(b);
	w->waiting = NULL;
	w->blocks = NULL;
	return 0;
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
