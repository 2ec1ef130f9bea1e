/* Theory of operation.
 *
 * The form is canonical: there is one way to write a tree, and the reader refuses every other, so that equal
 * trees have equal bytes and equal ids. What decides that: entries depth first with names in order, xattrs in
 * order, numbers in their shortest form, flags only where they say something, times normalised.
 *
 * The reader takes bytes from anywhere in pieces of any size and checks each length before it allocates. It
 * remembers the path it is at and the names of entries that links refer to and of the directories above
 * those, each once, so never more than it has read; nothing else grows. */
#include "checkpoint/tree.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* The last but one is the version. */
static const uint8_t magic[8] = {'P', 'F', 'T', 'R', 'E', 'E', '0' + PF_TREE_VERSION, '\n'};
#define VERSION_AT 6

/* Of the byte that begins an entry; the lower four bits are its type. */
#define F_XATTRS 0x10
#define F_OPAQUE 0x20 /* directories */
#define F_LINKED 0x20 /* everything else */
#define F_HOLES 0x40  /* files: the stretches of data follow; else it is all of the file */

#define MAX_TARGET 4096
#define MAX_SIZE ((uint64_t)1 << 60)

bool pf_tree_xattr_ok(const char *name)
{
	if (strcmp(name, "security.capability") == 0 || strcmp(name, "system.posix_acl_access") == 0 ||
		strcmp(name, "system.posix_acl_default") == 0)
		return true;
	/* A pax key ends at the first '=': OCI layers could not carry such a name. */
	return strncmp(name, "user.", 5) == 0 && strncmp(name, "user.overlay.", 13) != 0 &&
	       !strchr(name, '=');
}

/* ---- numbers ---- */

void pf_varint_put(struct pf_buf *out, uint64_t v)
{
	uint8_t b[10];
	size_t n = 0;

	do {
		b[n] = (uint8_t)(v & 0x7f);
		v >>= 7;
		b[n++] |= v ? 0x80 : 0;
	} while (v);
	pf_buf_add(out, b, n);
}

#define BYTES_BUF ((size_t)64 << 10)

void pf_bytes_done(struct pf_bytes *b)
{
	free(b->buf);
	b->buf = NULL;
	b->at = b->len = 0;
}

/* 1: there is at least a byte, 0: the end, -1. */
static int bytes_fill(struct pf_bytes *b, struct pf_err *err)
{
	if (b->at < b->len)
		return 1;
	if (!b->buf && !(b->buf = malloc(BYTES_BUF)))
		abort();
	ssize_t n = b->source(b->arg, b->buf, BYTES_BUF, err);
	b->at = 0;
	b->len = n > 0 ? (size_t)n : 0;
	return n > 0 ? 1 : (int)n;
}

int pf_bytes_take(struct pf_bytes *b, void *out, size_t len, struct pf_err *err)
{
	uint8_t *to = out;

	while (len > 0) {
		int r = bytes_fill(b, err);
		if (r <= 0)
			return r < 0 ? -1 : pf_fail_kind(err, PF_ERR_CORRUPT, 0, "it is cut short");
		size_t n = b->len - b->at < len ? b->len - b->at : len;
		if (to) {
			memcpy(to, b->buf + b->at, n);
			to += n;
		}
		b->at += n;
		b->pos += n;
		len -= n;
	}
	return 0;
}

int pf_bytes_varint(struct pf_bytes *b, uint64_t max, const char *what, uint64_t *v, struct pf_err *err)
{
	uint8_t byte;
	uint64_t x = 0;

	for (unsigned shift = 0;; shift += 7) {
		if (pf_bytes_take(b, &byte, 1, err) < 0)
			return -1;
		if (shift == 63 && byte > 1)
			return pf_fail_kind(
				err, PF_ERR_CORRUPT, 0, "%s: a number of more than 64 bits", what);
		x |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			if (byte == 0 && shift > 0)
				return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
					"%s: a number in a longer form than needed", what);
			break;
		}
		if (shift == 63)
			return pf_fail_kind(
				err, PF_ERR_CORRUPT, 0, "%s: a number of more than 64 bits", what);
	}
	if (x > max)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
			"%s: %" PRIu64 " is more than the %" PRIu64 " it can be", what, x, max);
	*v = x;
	return 0;
}

int pf_bytes_end(struct pf_bytes *b, struct pf_err *err)
{
	int r = bytes_fill(b, err);
	return r < 0 ? -1 : !r;
}

/* ---- writing ---- */

void pf_tree_begin(struct pf_buf *out, int version)
{
	uint8_t mine[sizeof(magic)];

	memcpy(mine, magic, sizeof(magic));
	mine[VERSION_AT] = (uint8_t)('0' + version);
	pf_buf_add(out, mine, sizeof(mine));
}

static void put_bytes(struct pf_buf *out, const void *data, size_t len)
{
	pf_varint_put(out, len);
	pf_buf_add(out, data, len);
}

/* Signed numbers: 0, -1, 1, -2, … */
static uint64_t zigzag(int64_t v)
{
	return ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0);
}

static int64_t unzigzag(uint64_t v)
{
	return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

static bool whole(const struct pf_tree_entry *e)
{
	return e->n_extents == 1 && e->extents[0].off == 0 && e->extents[0].len == e->size;
}

static void put_file(struct pf_buf *out, const struct pf_tree_entry *e)
{
	int64_t at = 0;

	pf_varint_put(out, (uint64_t)e->size);
	if (e->size == 0)
		return;
	if (!whole(e)) {
		pf_varint_put(out, e->n_extents);
		for (size_t i = 0; i < e->n_extents; i++) {
			pf_varint_put(out, (uint64_t)(e->extents[i].off - at));
			pf_varint_put(out, (uint64_t)e->extents[i].len);
			at = e->extents[i].off + e->extents[i].len;
		}
	}
	if (e->n_extents > 0)
		pf_buf_add(out, e->sum, sizeof(e->sum));
}

void pf_tree_put(struct pf_buf *out, const struct pf_tree_entry *e)
{
	unsigned tag = e->type;

	if (e->n_xattrs > 0)
		tag |= F_XATTRS;
	if (e->type == PF_TREE_DIR ? e->opaque : e->linked)
		tag |= F_OPAQUE;
	if (e->type == PF_TREE_FILE && e->size > 0 && !whole(e))
		tag |= F_HOLES;
	uint8_t byte = (uint8_t)tag;
	pf_buf_add(out, &byte, 1);
	put_bytes(out, e->name, e->name_len);
	if (e->type == PF_TREE_WHITEOUT)
		return;
	if (e->type == PF_TREE_LINK) {
		pf_varint_put(out, e->link);
		return;
	}
	if (e->type != PF_TREE_SYMLINK)
		pf_varint_put(out, e->mode);
	pf_varint_put(out, e->uid);
	pf_varint_put(out, e->gid);
	pf_varint_put(out, zigzag(e->mtime.tv_sec));
	pf_varint_put(out, (uint64_t)e->mtime.tv_nsec);
	if (e->n_xattrs > 0) {
		pf_varint_put(out, e->n_xattrs);
		for (size_t i = 0; i < e->n_xattrs; i++) {
			put_bytes(out, e->xattrs[i].name, strlen(e->xattrs[i].name));
			put_bytes(out, e->xattrs[i].value, e->xattrs[i].len);
		}
	}
	if (e->type == PF_TREE_FILE)
		put_file(out, e);
	else if (e->type == PF_TREE_SYMLINK)
		put_bytes(out, e->target, e->target_len);
}

void pf_tree_end_dir(struct pf_buf *out)
{
	pf_buf_add(out, "", 1);
}

/* ---- reading ---- */

/* A directory that has such an entry in it, or below it. */
struct dir {
	struct dir *up; /* NULL: it is in the root */
	size_t refs;    /* of levels, targets and directories in it */
	char name[];
};

struct level {
	size_t path_len; /* of the directory's own path */
	struct dir *dir; /* NULL: not asked for yet, or the root */
	size_t last_at;  /* where in `names` the name that came last in it begins; its end is the array's */
	size_t last_len; /* 0: none yet */
};

/* An entry that links refer to. */
struct target {
	uint64_t number;
	struct dir *dir; /* NULL: the root */
	char *name;
};

struct pf_tree_reader {
	struct pf_bytes in;
	struct pf_tree_entry e;
	bool begun, ended, in_dir; /* in_dir: the last entry was a directory that is to be gone into */
	int version;
	uint64_t number, next; /* of the last entry, of the next one */
	struct pf_buf path;    /* of the last entry */
	struct level *levels;  /* open directories */
	size_t depth, cap;
	struct pf_buf names; /* the last name of each open directory, one after the other */
	char name[NAME_MAX + 1], target[MAX_TARGET + 1];
	struct pf_extent *extents;
	size_t cap_extents;
	struct pf_tar_xa *xattrs;
	size_t n_xattrs;
	struct target *targets; /* ascending by number */
	size_t n_targets, cap_targets;
	const struct target *link; /* what the last entry refers to */
	char *link_path;           /* of that, once somebody asked */
};

struct pf_tree_reader *pf_tree_reader_new(pf_tree_source source, void *arg)
{
	struct pf_tree_reader *r = pf_calloc(1, sizeof(*r));

	r->in.source = source;
	r->in.arg = arg;
	return r;
}

static void drop_xattrs(struct pf_tree_reader *r)
{
	for (size_t i = 0; i < r->n_xattrs; i++) {
		free(r->xattrs[i].name);
		free(r->xattrs[i].value);
	}
	r->n_xattrs = 0;
}

static void drop_dir(struct dir *d)
{
	while (d && --d->refs == 0) {
		struct dir *up = d->up;
		free(d);
		d = up;
	}
}

void pf_tree_reader_free(struct pf_tree_reader *r)
{
	if (!r)
		return;
	drop_xattrs(r);
	for (size_t i = 0; i < r->n_targets; i++) {
		free(r->targets[i].name);
		drop_dir(r->targets[i].dir);
	}
	while (r->depth > 0)
		drop_dir(r->levels[--r->depth].dir);
	free(r->link_path);
	free(r->targets);
	free(r->xattrs);
	free(r->extents);
	free(r->levels);
	pf_buf_done(&r->path);
	pf_buf_done(&r->names);
	pf_bytes_done(&r->in);
	free(r);
}

static int bad(struct pf_err *err, const char *what)
{
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s", what);
}

/* A single component that a layer may have. */
static int check_name(const char *name, size_t len, struct pf_err *err)
{
	if (len == 0 || memchr(name, '/', len) || memchr(name, 0, len) || (len == 1 && name[0] == '.') ||
		(len == 2 && name[0] == '.' && name[1] == '.'))
		return bad(err, "a name that is no single component of a path");
	if (len >= 4 && memcmp(name, ".wh.", 4) == 0)
		return bad(err, "a name that begins with .wh.");
	return 0;
}

static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int c = memcmp(a, b, a_len < b_len ? a_len : b_len);
	return c ? c : a_len < b_len ? -1 : a_len > b_len;
}

/* The name comes after the one before it in its directory, and is remembered as that. */
static int enter_name(struct pf_tree_reader *r, size_t len, struct pf_err *err)
{
	struct level *l = &r->levels[r->depth - 1];

	if (l->last_len > 0 && compare(r->names.data + l->last_at, l->last_len, r->name, len) >= 0)
		return bad(err, "names out of order, or one given twice");
	r->names.len = l->last_at;
	pf_buf_add(&r->names, r->name, len);
	l->last_len = len;
	r->path.len = l->path_len;
	if (l->path_len > 0)
		pf_buf_add(&r->path, "/", 1);
	pf_buf_add(&r->path, r->name, len);
	return 0;
}

static int read_name(struct pf_tree_reader *r, struct pf_err *err)
{
	uint64_t len;

	if (pf_bytes_varint(&r->in, NAME_MAX, "length of a name", &len, err) < 0 ||
		pf_bytes_take(&r->in, r->name, len, err) < 0)
		return -1;
	r->name[len] = '\0';
	r->e.name = r->name;
	r->e.name_len = len;
	if (r->depth == 0) {
		pf_buf_str(&r->path, "");
		return len == 0 ? 0 : bad(err, "the root has a name");
	}
	return check_name(r->name, len, err) < 0 ? -1 : enter_name(r, len, err);
}

static int read_xattrs(struct pf_tree_reader *r, struct pf_err *err)
{
	uint64_t n, len;

	if (pf_bytes_varint(&r->in, PF_TREE_MAX_XATTRS, "extended attributes", &n, err) < 0)
		return -1;
	if (n == 0)
		return bad(err, "a list of no extended attributes");
	if (!r->xattrs)
		r->xattrs = pf_calloc(PF_TREE_MAX_XATTRS, sizeof(*r->xattrs));
	for (uint64_t i = 0; i < n; i++) {
		struct pf_tar_xa *x = &r->xattrs[i];
		if (pf_bytes_varint(&r->in, 255, "length of an attribute's name", &len, err) < 0)
			return -1;
		*x = (struct pf_tar_xa){.name = pf_calloc(len + 1, 1)};
		r->n_xattrs = i + 1;
		if (pf_bytes_take(&r->in, x->name, len, err) < 0)
			return -1;
		if (strlen(x->name) != len || !pf_tree_xattr_ok(x->name))
			return bad(err, "an extended attribute that is not for checkpoints");
		if (i > 0 && strcmp(r->xattrs[i - 1].name, x->name) >= 0)
			return bad(err, "extended attributes out of order, or one given twice");
		if (pf_bytes_varint(&r->in, PF_TREE_MAX_XATTR, "length of an attribute", &len, err) < 0)
			return -1;
		x->value = pf_calloc(len + 1, 1);
		x->len = len;
		if (pf_bytes_take(&r->in, x->value, len, err) < 0)
			return -1;
	}
	r->e.xattrs = r->xattrs;
	r->e.n_xattrs = n;
	return 0;
}

static void add_extent(struct pf_tree_reader *r, int64_t off, int64_t len)
{
	if (r->e.n_extents == r->cap_extents) {
		r->cap_extents = r->cap_extents ? r->cap_extents * 2 : 64;
		void *v = realloc(r->extents, r->cap_extents * sizeof(*r->extents));
		if (!v)
			abort();
		r->extents = v;
	}
	r->extents[r->e.n_extents++] = (struct pf_extent){off, len};
}

static int read_extents(struct pf_tree_reader *r, struct pf_err *err)
{
	uint64_t n, gap, len, at = 0, size = (uint64_t)r->e.size;

	if (pf_bytes_varint(&r->in, PF_TREE_MAX_EXTENTS, "stretches of data", &n, err) < 0)
		return -1;
	for (uint64_t i = 0; i < n; i++) {
		if (pf_bytes_varint(&r->in, size - at, "hole", &gap, err) < 0 ||
			pf_bytes_varint(&r->in, size - at - gap, "stretch of data", &len, err) < 0)
			return -1;
		if (len == 0 || (gap == 0 && i > 0) || (gap == 0 && len == size))
			return bad(err, "a list of holes without a hole");
		add_extent(r, (int64_t)(at + gap), (int64_t)len);
		r->e.data_bytes += (int64_t)len;
		at += gap + len;
	}
	return 0;
}

static int read_file(struct pf_tree_reader *r, bool holes, struct pf_err *err)
{
	uint64_t size;

	if (pf_bytes_varint(&r->in, MAX_SIZE, "size of a file", &size, err) < 0)
		return -1;
	r->e.size = (int64_t)size;
	if (size == 0)
		return holes ? bad(err, "an empty file with holes") : 0;
	if (holes) {
		if (read_extents(r, err) < 0)
			return -1;
	} else {
		add_extent(r, 0, (int64_t)size);
		r->e.data_bytes = (int64_t)size;
	}
	r->e.extents = r->extents;
	return r->e.n_extents > 0 ? pf_bytes_take(&r->in, r->e.sum, sizeof(r->e.sum), err) : 0;
}

static int read_target(struct pf_tree_reader *r, struct pf_err *err)
{
	uint64_t len;

	if (pf_bytes_varint(&r->in, MAX_TARGET - 1, "length of a symbolic link", &len, err) < 0 ||
		pf_bytes_take(&r->in, r->target, len, err) < 0)
		return -1;
	r->target[len] = '\0';
	if (len == 0 || strlen(r->target) != len)
		return bad(err, "a symbolic link without a target");
	r->e.target = r->target;
	r->e.target_len = len;
	return 0;
}

static int read_meta(struct pf_tree_reader *r, struct pf_err *err)
{
	uint64_t mode = 0, uid, gid, sec, nsec;

	if ((r->e.type != PF_TREE_SYMLINK && pf_bytes_varint(&r->in, 07777, "mode", &mode, err) < 0) ||
		pf_bytes_varint(&r->in, PF_TREE_MAX_ID, "user id", &uid, err) < 0 ||
		pf_bytes_varint(&r->in, PF_TREE_MAX_ID, "group id", &gid, err) < 0 ||
		pf_bytes_varint(&r->in, UINT64_MAX, "time", &sec, err) < 0 ||
		pf_bytes_varint(&r->in, 999999999, "nanoseconds", &nsec, err) < 0)
		return -1;
	r->e.mode = (unsigned)mode;
	r->e.uid = (uint32_t)uid;
	r->e.gid = (uint32_t)gid;
	r->e.mtime.tv_sec = unzigzag(sec);
	r->e.mtime.tv_nsec = (long)nsec;
	return 0;
}

static int read_link(struct pf_tree_reader *r, struct pf_err *err)
{
	size_t lo = 0, hi = r->n_targets;

	if (pf_bytes_varint(&r->in, r->next - 1, "number of a linked entry", &r->e.link, err) < 0)
		return -1;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (r->targets[mid].number < r->e.link)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == r->n_targets || r->targets[lo].number != r->e.link)
		return bad(err, "a link to an entry that is not marked as linked");
	r->link = &r->targets[lo];
	return 0;
}

/* The directory that is being read. */
static struct dir *this_dir(struct pf_tree_reader *r)
{
	size_t from = r->depth;

	while (from > 1 && !r->levels[from - 1].dir)
		from--;
	for (size_t i = from; i < r->depth; i++) {
		/* The root's path is empty and has no slash behind it. */
		size_t at = r->levels[i - 1].path_len + (i > 1), len = r->levels[i].path_len - at;
		struct dir *d = pf_calloc(1, sizeof(*d) + len + 1);
		memcpy(d->name, r->path.data + at, len);
		d->refs = 1;
		d->up = r->levels[i - 1].dir;
		if (d->up)
			d->up->refs++;
		r->levels[i].dir = d;
	}
	return r->levels[r->depth - 1].dir;
}

static void add_target(struct pf_tree_reader *r)
{
	if (r->n_targets == r->cap_targets) {
		r->cap_targets = r->cap_targets ? r->cap_targets * 2 : 64;
		void *v = realloc(r->targets, r->cap_targets * sizeof(*r->targets));
		if (!v)
			abort();
		r->targets = v;
	}
	struct dir *d = this_dir(r);
	if (d)
		d->refs++;
	r->targets[r->n_targets++] = (struct target){r->next, d, pf_strdup(r->name)};
}

static void push_level(struct pf_tree_reader *r)
{
	if (r->depth == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 32;
		void *v = realloc(r->levels, r->cap * sizeof(*r->levels));
		if (!v)
			abort();
		r->levels = v;
	}
	r->levels[r->depth++] = (struct level){.path_len = r->path.len, .last_at = r->names.len};
}

static void pop_level(struct pf_tree_reader *r)
{
	r->names.len = r->levels[--r->depth].last_at;
	drop_dir(r->levels[r->depth].dir);
}

static int check_tag(unsigned tag, const struct pf_tree_reader *r, struct pf_err *err)
{
	static const uint8_t allowed[] = {[PF_TREE_DIR] = F_XATTRS | F_OPAQUE,
		[PF_TREE_FILE] = F_XATTRS | F_LINKED | F_HOLES,
		[PF_TREE_SYMLINK] = F_LINKED,
		[PF_TREE_FIFO] = F_LINKED,
		[PF_TREE_WHITEOUT] = 0,
		[PF_TREE_LINK] = 0};
	unsigned type = tag & 15;

	if (type == PF_TREE_END || type >= sizeof(allowed) || ((tag & ~15U) & ~(unsigned)allowed[type]))
		return bad(err, "an entry of an unknown kind");
	if (r->depth == 0 && tag != PF_TREE_DIR && tag != (PF_TREE_DIR | F_XATTRS))
		return bad(err, "the root is not a directory");
	return 0;
}

static int read_entry(struct pf_tree_reader *r, unsigned tag, struct pf_err *err)
{
	if (check_tag(tag, r, err) < 0)
		return -1;
	r->e = (struct pf_tree_entry){.type = tag & 15};
	r->link = NULL;
	free(pf_take(r->link_path));
	drop_xattrs(r);
	if (read_name(r, err) < 0)
		return -1;
	if (r->e.type == PF_TREE_LINK)
		return read_link(r, err);
	if (r->e.type == PF_TREE_WHITEOUT)
		return 0;
	if (read_meta(r, err) < 0 || ((tag & F_XATTRS) && read_xattrs(r, err) < 0))
		return -1;
	if (r->e.type == PF_TREE_DIR) {
		r->e.opaque = tag & F_OPAQUE;
		r->in_dir = true;
		return 0;
	}
	if ((tag & F_LINKED)) {
		r->e.linked = true;
		add_target(r);
	}
	if (r->e.type == PF_TREE_FILE)
		return read_file(r, tag & F_HOLES, err);
	return r->e.type == PF_TREE_SYMLINK ? read_target(r, err) : 0;
}

static int begin(struct pf_tree_reader *r, struct pf_err *err)
{
	uint8_t got[sizeof(magic)];

	if (pf_bytes_take(&r->in, got, sizeof(got), err) < 0)
		return -1;
	r->begun = true;
	r->version = got[VERSION_AT] - '0';
	got[VERSION_AT] = magic[VERSION_AT];
	if (memcmp(got, magic, sizeof(magic)) != 0 || r->version < 2)
		return bad(err, "this is no tree");
	return r->version <= PF_TREE_VERSION ? 0
					     : bad(err, "this tree is of a later version: update pinfold");
}

static int next(struct pf_tree_reader *r, struct pf_err *err)
{
	uint8_t tag;

	if (r->ended)
		return 0;
	if (!r->begun && begin(r, err) < 0)
		return -1;
	if (r->in_dir) {
		if (r->depth > PF_TREE_MAX_DEPTH)
			return bad(err, "directories nest too deep");
		push_level(r);
		r->in_dir = false;
	}
	for (;;) {
		if (pf_bytes_take(&r->in, &tag, 1, err) < 0)
			return -1;
		if (tag != PF_TREE_END)
			break;
		if (r->depth == 0)
			return bad(err, "an end without a directory");
		pop_level(r);
		if (r->depth > 0)
			continue;
		int end = pf_bytes_end(&r->in, err);
		if (end <= 0)
			return end < 0 ? -1 : bad(err, "there is something after the end");
		r->ended = true;
		return 0;
	}
	if (read_entry(r, tag, err) < 0)
		return -1;
	r->number = r->next++;
	return 1;
}

int pf_tree_next(struct pf_tree_reader *r, const struct pf_tree_entry **e, size_t *depth, struct pf_err *err)
{
	int rc = next(r, err);

	if (rc < 0)
		return pf_wrap(err, "tree, at byte %" PRIu64, r->in.pos);
	*e = &r->e;
	if (depth)
		*depth = r->depth;
	return rc;
}

const char *pf_tree_path(const struct pf_tree_reader *r)
{
	return r->path.data ? r->path.data : "";
}

const char *pf_tree_link_path(struct pf_tree_reader *r)
{
	if (!r->link || r->link_path)
		return r->link_path;
	size_t at = strlen(r->link->name);
	for (const struct dir *d = r->link->dir; d; d = d->up)
		at += strlen(d->name) + 1;
	char *path = pf_calloc(at + 1, 1);
	at -= strlen(r->link->name);
	memcpy(path + at, r->link->name, strlen(r->link->name));
	for (const struct dir *d = r->link->dir; d; d = d->up) {
		path[--at] = '/';
		at -= strlen(d->name);
		memcpy(path + at, d->name, strlen(d->name));
	}
	return r->link_path = path;
}

uint64_t pf_tree_number(const struct pf_tree_reader *r)
{
	return r->number;
}

int pf_tree_version(const struct pf_tree_reader *r)
{
	return r->version;
}
