/* Theory of operation.
 *
 * A file is taken for the one it was when device, inode, size and change time are the same: nothing but the
 * kernel sets a change time, and everything sets it that changes a file, its mode or its attributes. Whoever
 * makes the index leaves out the files of which that does not hold: with a change time so late that another
 * change might bear the same one, or written through a mapping (take.c). The directory's own inode and time
 * of birth stand at the front, so that the index of a sandbox that was destroyed says nothing about a new one
 * of the same name.
 *
 * In the file: magic, identity of the directory, entries, and at the end a sum of all of it. The sum finds
 * what disks do, not what people do: whoever can write here can write the checkpoints. */
#include "checkpoint/filesindex.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

static const char magic[8] = {'P', 'F', 'F', 'I', 'L', 'E', 'S', '3'};

#define MAX_BYTES ((size_t)4 << 30)
#define IDENTITY 32

struct entry {
	uint64_t dev, ino;
	int64_t ctime_s;
	uint32_t ctime_ns;
	struct pf_files_known known;
};

struct pf_files_index {
	struct entry *entries;
	size_t n;
	uint32_t *table; /* entry + 1; 0 is free */
	size_t mask;
	struct pf_arena arena;
};

static void identity(int rootfd, uint64_t id[4])
{
	struct statx sx;

	memset(id, 0, IDENTITY);
	if (statx(rootfd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &sx) < 0)
		return;
	id[0] = (uint64_t)sx.stx_dev_major << 32 | sx.stx_dev_minor;
	id[1] = sx.stx_ino;
	if (sx.stx_mask & STATX_BTIME) {
		id[2] = (uint64_t)sx.stx_btime.tv_sec;
		id[3] = sx.stx_btime.tv_nsec;
	}
}

static uint64_t sum(const char *data, size_t len)
{
	uint64_t h = 0x9e3779b97f4a7c15U ^ len, word;

	for (; len > 0;) {
		size_t n = len < 8 ? len : 8;
		word = 0;
		memcpy(&word, data, n);
		h = (h ^ word) * 0x9e3779b97f4a7c15U;
		h ^= h >> 31;
		data += n;
		len -= n;
	}
	return h;
}

/* ---- reading ---- */

struct cursor {
	const uint8_t *p, *end;
	bool bad;
};

static uint64_t number(struct cursor *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64 && c->p < c->end; shift += 7) {
		v |= (uint64_t)(*c->p & 0x7f) << shift;
		if (!(*c->p++ & 0x80))
			return v;
	}
	c->bad = true;
	return 0;
}

/* A number of things of which each takes at least `each` bytes of what is left. */
static size_t count(struct cursor *c, size_t each)
{
	uint64_t v = number(c);

	if (v <= (uint64_t)(c->end - c->p) / each)
		return (size_t)v;
	c->bad = true;
	return 0;
}

static void bytes(struct cursor *c, void *to, size_t len)
{
	if ((size_t)(c->end - c->p) < len) {
		c->bad = true;
		return;
	}
	memcpy(to, c->p, len);
	c->p += len;
}

static void read_xattrs(struct pf_files_index *x, struct cursor *c, struct pf_files_known *k)
{
	k->n_xattrs = count(c, 2);
	if (k->n_xattrs == 0)
		return;
	struct pf_tar_xa *v = pf_arena_alloc(&x->arena, k->n_xattrs * sizeof(*v));
	memset(v, 0, k->n_xattrs * sizeof(*v));
	for (size_t i = 0; i < k->n_xattrs && !c->bad; i++) {
		size_t len = count(c, 1);
		v[i].name = pf_arena_alloc(&x->arena, len + 1);
		bytes(c, v[i].name, len);
		v[i].name[len] = '\0';
		v[i].len = count(c, 1);
		v[i].value = pf_arena_alloc(&x->arena, v[i].len + 1);
		bytes(c, v[i].value, v[i].len);
	}
	k->xattrs = v;
}

static void read_content(struct pf_files_index *x, struct cursor *c, struct pf_content *k)
{
	k->size = (int64_t)number(c);
	k->n_extents = count(c, 2);
	k->extents = pf_arena_alloc(&x->arena, (k->n_extents + 1) * sizeof(*k->extents));
	for (size_t i = 0; i < k->n_extents && !c->bad; i++) {
		k->extents[i].off = (int64_t)number(c);
		k->extents[i].len = (int64_t)number(c);
		k->data_bytes += k->extents[i].len;
	}
	if (k->n_extents > 0)
		bytes(c, k->sum, sizeof(k->sum));
	k->n_refs = count(c, 34);
	k->refs = pf_arena_alloc(&x->arena, (k->n_refs + 1) * sizeof(*k->refs));
	for (size_t i = 0; i < k->n_refs && !c->bad; i++) {
		bytes(c, k->refs[i].id, sizeof(k->refs[i].id));
		k->refs[i].off = (uint32_t)number(c);
		k->refs[i].len = (uint32_t)number(c);
	}
}

static size_t slot(const struct pf_files_index *x, uint64_t dev, uint64_t ino)
{
	return (size_t)((ino ^ dev << 40) * 0x9e3779b97f4a7c15U >> 20) & x->mask;
}

static bool parse(struct pf_files_index *x, struct cursor *c)
{
	x->n = count(c, 8);
	x->mask = 1024;
	while (x->mask < x->n * 2)
		x->mask *= 2;
	x->table = pf_calloc(x->mask--, sizeof(*x->table));
	x->entries = pf_calloc(x->n + 1, sizeof(*x->entries));
	for (size_t i = 0; i < x->n && !c->bad; i++) {
		struct entry *e = &x->entries[i];
		e->dev = number(c);
		e->ino = number(c);
		e->ctime_s = (int64_t)number(c);
		e->ctime_ns = (uint32_t)number(c);
		read_content(x, c, &e->known.content);
		read_xattrs(x, c, &e->known);
		size_t at = slot(x, e->dev, e->ino);
		while (x->table[at])
			at = (at + 1) & x->mask;
		x->table[at] = (uint32_t)i + 1;
	}
	return !c->bad && c->p == c->end;
}

void pf_files_index_free(struct pf_files_index *x)
{
	if (!x)
		return;
	pf_arena_done(&x->arena);
	free(x->entries);
	free(x->table);
	free(x);
}

struct pf_files_index *pf_files_index_load(struct pf_ckpt_heavy *h, const char *name, int rootfd, bool sealed)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *path = pf_asprintf("files/%s", name);
	PF_FREE char *text = NULL;
	uint64_t id[4], want;
	size_t len;
	bool was_sealed;

	if (pf_ckpt_heavy_read(h, "files", name, path, MAX_BYTES, &text, &len, &was_sealed, &ignored) < 0 ||
		was_sealed != sealed || len < sizeof(magic) + IDENTITY + 8 ||
		memcmp(text, magic, sizeof(magic)) != 0)
		return NULL;
	identity(rootfd, id);
	memcpy(&want, text + len - 8, 8);
	if (memcmp(text + sizeof(magic), id, IDENTITY) != 0 || want != sum(text, len - 8))
		return NULL;
	struct cursor c = {(uint8_t *)text + sizeof(magic) + IDENTITY, (uint8_t *)text + len - 8, false};
	struct pf_files_index *x = pf_calloc(1, sizeof(*x));
	if (!parse(x, &c)) {
		pf_files_index_free(x);
		return NULL;
	}
	return x;
}

const struct pf_files_known *pf_files_index_find(const struct pf_files_index *x, const struct pf_node *n)
{
	for (size_t at = slot(x, n->dev, n->ino); x->table[at]; at = (at + 1) & x->mask) {
		const struct entry *e = &x->entries[x->table[at] - 1];
		if (e->ino == n->ino && e->dev == n->dev)
			return e->known.content.size == n->size && e->ctime_s == n->ctime.tv_sec &&
					       e->ctime_ns == n->ctime.tv_nsec
				       ? &e->known
				       : NULL;
	}
	return NULL;
}

/* ---- writing ---- */

/* The number of entries is not known yet: it has a place of fixed length. */
#define COUNT_AT (sizeof(magic) + IDENTITY)
#define COUNT_LEN 5

static void put_count(struct pf_buf *b, uint64_t n)
{
	for (size_t i = 0; i < COUNT_LEN; i++)
		b->data[COUNT_AT + i] = (char)((n >> (7 * i) & 0x7f) | (i + 1 < COUNT_LEN ? 0x80 : 0));
}

static uint64_t get_count(const struct pf_buf *b)
{
	uint64_t n = 0;

	for (size_t i = 0; i < COUNT_LEN; i++)
		n |= (uint64_t)(b->data[COUNT_AT + i] & 0x7f) << (7 * i);
	return n;
}

void pf_files_index_begin(struct pf_buf *b, int rootfd)
{
	uint64_t id[4];

	identity(rootfd, id);
	pf_buf_add(b, magic, sizeof(magic));
	pf_buf_add(b, id, IDENTITY);
	pf_buf_add(b, "\x80\x80\x80\x80", COUNT_LEN);
}

void pf_files_index_add(struct pf_buf *b, const struct pf_node *n, const struct pf_content *c,
	const struct pf_tar_xa *xattrs, size_t n_xattrs)
{
	uint64_t so_far = get_count(b);

	if (so_far >= UINT32_MAX)
		return;
	put_count(b, so_far + 1);
	pf_varint_put(b, n->dev);
	pf_varint_put(b, n->ino);
	pf_varint_put(b, (uint64_t)n->ctime.tv_sec);
	pf_varint_put(b, (uint64_t)n->ctime.tv_nsec);
	pf_varint_put(b, (uint64_t)c->size);
	pf_varint_put(b, c->n_extents);
	for (size_t i = 0; i < c->n_extents; i++) {
		pf_varint_put(b, (uint64_t)c->extents[i].off);
		pf_varint_put(b, (uint64_t)c->extents[i].len);
	}
	if (c->n_extents > 0)
		pf_buf_add(b, c->sum, sizeof(c->sum));
	pf_map_put(b, c->refs, c->n_refs);
	pf_varint_put(b, n_xattrs);
	for (size_t i = 0; i < n_xattrs; i++) {
		size_t len = strlen(xattrs[i].name);
		pf_varint_put(b, len);
		pf_buf_add(b, xattrs[i].name, len);
		pf_varint_put(b, xattrs[i].len);
		pf_buf_add(b, xattrs[i].value, xattrs[i].len);
	}
}

int pf_files_index_save(
	struct pf_ckpt_heavy *h, const char *name, struct pf_buf *b, bool sealed, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("files/%s", name);
	uint64_t s = sum(b->data, b->len);

	pf_buf_add(b, &s, 8);
	if (mkdirat(h->storefd, "files", 0700) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "mkdir files");
	PF_CLOSE int dir = openat(h->storefd, "files", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return pf_fail(err, errno, "files");
	return pf_ckpt_heavy_write(h, "files", name, dir, name, b->data, b->len, sealed, false, err);
}
