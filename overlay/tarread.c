/* Theory of operation
 *
 * A tar stream is 512-byte headers, each followed by its data padded to 512. This reader knows POSIX ustar,
 * pax extended headers ('x': long names, exact times, xattrs, large numbers), the GNU forms ('L' and 'K' long
 * names, 'S' and GNU.sparse.* sparse files, base-256 numbers) and v7: what docker, skopeo, umoci, containerd,
 * GNU tar, bsdtar and Python write. Everything else is an error, because a layer understood by halves is
 * worse than none.
 *
 * A library would do, but for two things: those at hand convert names between character sets (and so change
 * bytes that are not valid, or not normalised, text), and accept what they half understand. A layer's names
 * are bytes.
 *
 * The input is hostile. Each length is bounded before memory is taken for it (MAX_META per extended header,
 * MAX_EXTENTS per sparse map), each number is checked for its range, and sparse maps must be in order,
 * disjoint, inside the file and exactly as long as the stored data. */
#include "overlay/tarread.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define BLOCK 512
#define MAX_META ((int64_t)8 << 20)
#define MAX_EXTENTS ((size_t)1 << 20)
#define MAX_XATTRS 256
#define BUFFER ((size_t)256 << 10)

struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], chksum[8], typeflag, linkname[100];
	char magic[8], uname[32], gname[32], devmajor[8], devminor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "tar header");

/* What extended headers say about the next member. */
struct ext {
	char *path, *link, *sparse_name;
	bool has_size, has_uid, has_gid, has_mtime, has_real_size;
	int64_t size, uid, gid, real_size, sparse_offset;
	struct timespec mtime;
	struct pf_tar_xattr *xattrs;
	size_t n_xattrs;
	struct pf_tar_extent *extents;
	size_t n_extents;
	bool sparse, sparse_v1;
};

struct pf_tar {
	pf_tar_source source;
	void *arg;
	char *buf;
	size_t pos, end; /* unread bytes are buf[pos..end) */
	bool eof;
	struct pf_tar_entry entry;
	int64_t left;     /* stored bytes of the current member not yet read */
	int64_t padding;  /* after them */
	size_t extent;    /* index of the extent that is being read */
	int64_t ext_done; /* bytes of it already delivered */
	bool any;         /* there was a member */
	bool ended;
};

static int corrupt(struct pf_err *err, const char *what)
{
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "tar: %s", what);
}

struct pf_tar *pf_tar_new(pf_tar_source source, void *arg)
{
	struct pf_tar *t = pf_calloc(1, sizeof(*t));

	t->source = source;
	t->arg = arg;
	t->buf = pf_calloc(1, BUFFER);
	return t;
}

static void free_xattrs(struct pf_tar_xattr *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(x[i].name);
		free(x[i].value);
	}
	free(x);
}

static void clear_entry(struct pf_tar_entry *e)
{
	free(e->path);
	free(e->link);
	free_xattrs(e->xattrs, e->n_xattrs);
	free(e->extents);
	*e = (struct pf_tar_entry){0};
}

static void clear_ext(struct ext *x)
{
	free(x->path);
	free(x->link);
	free(x->sparse_name);
	free_xattrs(x->xattrs, x->n_xattrs);
	free(x->extents);
	*x = (struct ext){0};
}

void pf_tar_free(struct pf_tar *t)
{
	if (!t)
		return;
	clear_entry(&t->entry);
	free(t->buf);
	free(t);
}

/* At least one byte in the buffer: 1; end of the source: 0. */
static int fill(struct pf_tar *t, struct pf_err *err)
{
	if (t->pos < t->end)
		return 1;
	if (t->eof)
		return 0;
	ssize_t n = t->source(t->arg, t->buf, BUFFER, err);
	if (n < 0)
		return -1;
	t->pos = 0;
	t->end = (size_t)n;
	t->eof = n == 0;
	return n > 0;
}

static int read_exact(struct pf_tar *t, void *out, size_t len, struct pf_err *err)
{
	char *p = out;

	while (len > 0) {
		int r = fill(t, err);
		if (r <= 0)
			return r < 0 ? -1 : corrupt(err, "the archive ends in the middle of a member");
		size_t n = t->end - t->pos < len ? t->end - t->pos : len;
		memcpy(p, t->buf + t->pos, n);
		t->pos += n;
		p += n;
		len -= n;
	}
	return 0;
}

static int skip(struct pf_tar *t, int64_t len, struct pf_err *err)
{
	while (len > 0) {
		int r = fill(t, err);
		if (r <= 0)
			return r < 0 ? -1 : corrupt(err, "the archive ends in the middle of a member");
		size_t have = t->end - t->pos;
		size_t n = (int64_t)have < len ? have : (size_t)len;
		t->pos += n;
		len -= (int64_t)n;
	}
	return 0;
}

/* Behind a member's data. Who leaves the end mark out may leave this out as well. */
static int skip_padding(struct pf_tar *t, struct pf_err *err)
{
	int r = 1;

	while (t->padding > 0 && (r = fill(t, err)) > 0) {
		size_t have = t->end - t->pos, n = (int64_t)have < t->padding ? have : (size_t)t->padding;
		t->pos += n;
		t->padding -= (int64_t)n;
	}
	return r < 0 ? -1 : 0;
}

static int64_t padding_of(int64_t size)
{
	return (BLOCK - size % BLOCK) % BLOCK;
}

/* Octal text, or base-256 when the top bit of the first byte is set. */
static int number(const char *field, size_t len, bool may_be_negative, int64_t *out, struct pf_err *err)
{
	const unsigned char *p = (const unsigned char *)field;
	uint64_t v = 0;

	if (p[0] & 0x80) {
		bool neg = p[0] & 0x40;
		/* Two's complement: bits above the 63 that fit must repeat the sign. */
		uint64_t u = neg ? UINT64_MAX : 0;
		for (size_t i = 0; i < len; i++) {
			unsigned c = i == 0 ? (neg ? p[0] : p[0] & 0x7fU) : p[i];
			if (u >> 55 != (neg ? 0x1ffU : 0))
				return corrupt(err, "a number is too large");
			u = u << 8 | c;
		}
		if ((u >> 63 != 0) != neg)
			return corrupt(err, "a number is too large");
		if (neg && !may_be_negative)
			return corrupt(err, "a number is negative");
		*out = (int64_t)u;
		return 0;
	}
	size_t i = 0;
	while (i < len && (p[i] == ' ' || p[i] == '\0'))
		i++;
	for (; i < len && p[i] >= '0' && p[i] <= '7'; i++)
		v = v << 3 | (unsigned)(p[i] - '0'); /* 12 digits are 36 bits */
	if (i < len && p[i] != ' ' && p[i] != '\0')
		return corrupt(err, "a number in a header is not octal");
	*out = (int64_t)v;
	return 0;
}

static int decimal(const char *s, size_t len, int64_t *out, struct pf_err *err)
{
	int64_t v = 0;

	if (len == 0)
		return corrupt(err, "an empty number in an extended header");
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9' || v > (INT64_MAX - 9) / 10)
			return corrupt(err, "a bad number in an extended header");
		v = v * 10 + (s[i] - '0');
	}
	*out = v;
	return 0;
}

/* "-12.345": seconds and a fraction; digits past nanoseconds are cut. */
static int pax_time(const char *s, size_t len, struct timespec *out, struct pf_err *err)
{
	bool neg = len > 0 && s[0] == '-';
	const char *dot = memchr(s, '.', len);
	size_t whole = dot ? (size_t)(dot - s) : len;
	int64_t sec;
	long nsec = 0, unit = 100000000;

	if (decimal(s + neg, whole - neg, &sec, err) < 0)
		return -1;
	for (size_t i = whole + 1; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return corrupt(err, "a bad time in an extended header");
		nsec += (s[i] - '0') * unit;
		unit /= 10;
	}
	if (neg) {
		sec = -sec;
		if (nsec > 0) {
			sec--;
			nsec = 1000000000 - nsec;
		}
	}
	*out = (struct timespec){.tv_sec = sec, .tv_nsec = nsec};
	return 0;
}

static char *bytes_dup(const char *s, size_t len)
{
	char *p = pf_calloc(1, len + 1);

	memcpy(p, s, len);
	return p;
}

static int set_text(char **slot, const char *s, size_t len, struct pf_err *err)
{
	if (len == 0 || memchr(s, '\0', len))
		return corrupt(err, "an extended header holds an empty name or one with a NUL byte");
	free(*slot);
	*slot = bytes_dup(s, len);
	return 0;
}

static int add_extent(struct ext *x, int64_t offset, int64_t len, struct pf_err *err)
{
	if (x->n_extents >= MAX_EXTENTS)
		return corrupt(err, "a sparse file has too many extents");
	if ((x->n_extents & (x->n_extents - 1)) == 0) {
		size_t cap = x->n_extents ? 2 * x->n_extents : 1;
		struct pf_tar_extent *more = realloc(x->extents, cap * sizeof(*more));
		if (!more)
			return pf_fail(err, ENOMEM, "tar: sparse map");
		x->extents = more;
	}
	x->extents[x->n_extents++] = (struct pf_tar_extent){offset, len};
	return 0;
}

static int sparse_map_text(struct ext *x, const char *s, size_t len, struct pf_err *err)
{
	int64_t v[2];
	int have = 0;

	while (len > 0) {
		const char *comma = memchr(s, ',', len);
		size_t n = comma ? (size_t)(comma - s) : len;
		if (decimal(s, n, &v[have], err) < 0)
			return -1;
		if (++have == 2) {
			have = 0;
			if (add_extent(x, v[0], v[1], err) < 0)
				return -1;
		}
		s += n + (comma != NULL);
		len -= n + (comma != NULL);
	}
	return have ? corrupt(err, "a bad sparse map") : 0;
}

static int add_xattr(
	struct ext *x, const char *name, size_t name_len, const char *val, size_t len, struct pf_err *err)
{
	if (name_len == 0 || name_len > 255 || len > 65536)
		return corrupt(err, "a bad extended attribute");
	for (size_t i = 0; i < x->n_xattrs; i++)
		if (strlen(x->xattrs[i].name) == name_len && memcmp(x->xattrs[i].name, name, name_len) == 0)
			return corrupt(err, "an extended attribute is given twice");
	if (x->n_xattrs >= MAX_XATTRS)
		return corrupt(err, "too many extended attributes");
	if (!x->xattrs)
		x->xattrs = pf_calloc(MAX_XATTRS, sizeof(*x->xattrs));
	x->xattrs[x->n_xattrs++] = (struct pf_tar_xattr){
		.name = bytes_dup(name, name_len), .value = bytes_dup(val, len), .len = len};
	return 0;
}

static bool key_is(const char *key, size_t len, const char *want)
{
	return strlen(want) == len && memcmp(key, want, len) == 0;
}

static int pax_record(
	struct ext *x, const char *key, size_t klen, const char *val, size_t vlen, struct pf_err *err)
{
	static const char xattr_prefix[] = "SCHILY.xattr.";
	int64_t v;

	if (klen > sizeof(xattr_prefix) - 1 && memcmp(key, xattr_prefix, sizeof(xattr_prefix) - 1) == 0) {
		size_t skip_len = sizeof(xattr_prefix) - 1;
		if (memchr(key, '\0', klen))
			return corrupt(err, "a bad extended attribute");
		return add_xattr(x, key + skip_len, klen - skip_len, val, vlen, err);
	}
	if (key_is(key, klen, "path"))
		return set_text(&x->path, val, vlen, err);
	if (key_is(key, klen, "linkpath"))
		return set_text(&x->link, val, vlen, err);
	if (key_is(key, klen, "GNU.sparse.name"))
		return set_text(&x->sparse_name, val, vlen, err);
	if (key_is(key, klen, "size")) {
		x->has_size = true;
		return decimal(val, vlen, &x->size, err);
	}
	if (key_is(key, klen, "uid")) {
		x->has_uid = true;
		return decimal(val, vlen, &x->uid, err);
	}
	if (key_is(key, klen, "gid")) {
		x->has_gid = true;
		return decimal(val, vlen, &x->gid, err);
	}
	if (key_is(key, klen, "mtime")) {
		x->has_mtime = true;
		return pax_time(val, vlen, &x->mtime, err);
	}
	if (key_is(key, klen, "GNU.sparse.size") || key_is(key, klen, "GNU.sparse.realsize")) {
		x->has_real_size = x->sparse = true;
		return decimal(val, vlen, &x->real_size, err);
	}
	if (key_is(key, klen, "GNU.sparse.offset")) {
		x->sparse = true;
		return decimal(val, vlen, &x->sparse_offset, err);
	}
	if (key_is(key, klen, "GNU.sparse.numbytes"))
		return decimal(val, vlen, &v, err) < 0 ? -1 : add_extent(x, x->sparse_offset, v, err);
	if (key_is(key, klen, "GNU.sparse.map")) {
		x->sparse = true;
		return sparse_map_text(x, val, vlen, err);
	}
	if (key_is(key, klen, "GNU.sparse.major")) {
		if (decimal(val, vlen, &v, err) < 0)
			return -1;
		if (v > 1)
			return corrupt(err, "an unknown kind of sparse file");
		x->sparse = true;
		x->sparse_v1 = v == 1;
	}
	return 0; /* atime, ctime, uname, comment, hdrcharset …: nothing that we use */
}

/* "LEN key=value\n", where LEN counts itself. */
static int pax_parse(struct ext *x, const char *s, size_t len, struct pf_err *err)
{
	while (len > 0 && *s != '\0') {
		const char *space = memchr(s, ' ', len < 12 ? len : 12);
		int64_t rec;
		if (!space || decimal(s, (size_t)(space - s), &rec, err) < 0)
			return corrupt(err, "a bad extended header");
		size_t head = (size_t)(space - s) + 1;
		if (rec > (int64_t)len || (size_t)rec < head + 2 || s[rec - 1] != '\n')
			return corrupt(err, "a bad extended header");
		const char *eq = memchr(space + 1, '=', (size_t)rec - head);
		if (!eq)
			return corrupt(err, "a bad extended header");
		if (pax_record(x, space + 1, (size_t)(eq - space) - 1, eq + 1,
			    (size_t)(s + rec - 1 - (eq + 1)), err) < 0)
			return -1;
		s += rec;
		len -= (size_t)rec;
	}
	return 0;
}

static int read_meta(struct pf_tar *t, int64_t size, char **out, struct pf_err *err)
{
	if (size > MAX_META)
		return corrupt(err, "an extended header is too large");
	PF_FREE char *p = malloc((size_t)size + 1);
	if (!p)
		return pf_fail(err, ENOMEM, "tar");
	if (read_exact(t, p, (size_t)size, err) < 0 || skip(t, padding_of(size), err) < 0)
		return -1;
	p[size] = '\0';
	*out = pf_take(p);
	return 0;
}

/* Global headers set defaults for all members that follow. Only what describes the archive is taken (git
 * archive writes its commit so); a default path or size makes no sense and is not guessed at. */
static int check_global(const char *s, size_t len, struct pf_err *err)
{
	struct ext x = {0};
	int r = pax_parse(&x, s, len, err);

	if (r == 0 && (x.path || x.link || x.has_size || x.has_uid || x.has_gid || x.has_mtime || x.sparse ||
			      x.n_xattrs || x.n_extents || x.sparse_name))
		r = corrupt(err, "a global header that changes members is not supported");
	clear_ext(&x);
	return r;
}

static int old_gnu_sparse(struct pf_tar *t, const struct header *h, struct ext *x, struct pf_err *err)
{
	const char *raw = (const char *)h;
	char block[BLOCK];
	int64_t off, len;
	size_t at = 386, count = 4;
	bool more = raw[482] != 0;

	if (number(raw + 483, 12, false, &x->real_size, err) < 0)
		return -1;
	for (;;) {
		for (size_t i = 0; i < count; i++, at += 24) {
			if (raw[at] == '\0' && raw[at + 12] == '\0')
				break;
			if (number(raw + at, 12, false, &off, err) < 0 ||
				number(raw + at + 12, 12, false, &len, err) < 0 ||
				add_extent(x, off, len, err) < 0)
				return -1;
		}
		if (!more)
			break;
		if (read_exact(t, block, BLOCK, err) < 0)
			return -1;
		raw = block;
		at = 0;
		count = 21;
		more = block[504] != 0;
	}
	x->sparse = x->has_real_size = true;
	return 0;
}

/* GNU.sparse 1.0: the map is text at the start of the data, in whole blocks. */
static int sparse_v1_map(struct pf_tar *t, struct ext *x, int64_t *stored, struct pf_err *err)
{
	char block[BLOCK] = {0};
	size_t pos = BLOCK;
	int64_t want = -1, got = 0, pending = 0;

	while (want < 0 || got < 2 * want) {
		int64_t v = 0;
		size_t digits = 0;
		for (;; pos++) {
			if (pos == BLOCK) {
				if (*stored < BLOCK)
					return corrupt(err, "a sparse map is cut short");
				if (read_exact(t, block, BLOCK, err) < 0)
					return -1;
				*stored -= BLOCK;
				pos = 0;
			}
			char c = block[pos];
			if (c == '\n')
				break;
			if (c < '0' || c > '9' || ++digits > 18)
				return corrupt(err, "a bad sparse map");
			v = v * 10 + (c - '0');
		}
		pos++;
		if (digits == 0)
			return corrupt(err, "a bad sparse map");
		if (want < 0) {
			if (v > (int64_t)MAX_EXTENTS)
				return corrupt(err, "a sparse file has too many extents");
			want = v;
		} else {
			if (got % 2 == 0)
				pending = v;
			else if (add_extent(x, pending, v, err) < 0)
				return -1;
			got++;
		}
	}
	return 0;
}

static int check_extents(const struct ext *x, int64_t stored, struct pf_err *err)
{
	int64_t end = 0, sum = 0;

	for (size_t i = 0; i < x->n_extents; i++) {
		const struct pf_tar_extent *e = &x->extents[i];
		if (e->offset < end || e->len > x->real_size || e->offset > x->real_size - e->len)
			return corrupt(err, "a sparse map is out of order or leaves the file");
		end = e->offset + e->len;
		sum += e->len;
	}
	return sum == stored ? 0 : corrupt(err, "a sparse map does not match the stored data");
}

static bool checksum_ok(const struct header *h, int64_t want)
{
	const unsigned char *p = (const unsigned char *)h;
	int64_t u = 0, s = 0;

	for (size_t i = 0; i < BLOCK; i++) {
		bool field = i >= offsetof(struct header, chksum) && i < offsetof(struct header, typeflag);
		u += field ? ' ' : p[i];
		s += field ? ' ' : (signed char)p[i];
	}
	return u == want || s == want;
}

static bool all_zero(const struct header *h)
{
	const char *p = (const char *)h;

	return p[0] == 0 && memcmp(p, p + 1, BLOCK - 1) == 0;
}

static char *field_dup(const char *f, size_t max)
{
	return bytes_dup(f, strnlen(f, max));
}

static char *header_path(const struct header *h)
{
	/* GNU's magic ("ustar  ") puts other things where POSIX has the prefix. */
	if (memcmp(h->magic, "ustar", 6) == 0 && h->prefix[0]) {
		PF_FREE char *a = field_dup(h->prefix, sizeof(h->prefix));
		PF_FREE char *b = field_dup(h->name, sizeof(h->name));
		return pf_asprintf("%s/%s", a, b);
	}
	return field_dup(h->name, sizeof(h->name));
}

static int build_entry(struct pf_tar *t, const struct header *h, struct ext *x, struct pf_err *err)
{
	struct pf_tar_entry *e = &t->entry;
	int64_t mode, stored, mtime;

	if (number(h->mode, 8, false, &mode, err) < 0 || number(h->size, 12, false, &stored, err) < 0 ||
		number(h->mtime, 12, true, &mtime, err) < 0)
		return -1;
	if (x->has_size)
		stored = x->size;
	if ((!x->has_uid && number(h->uid, 8, false, &x->uid, err) < 0) ||
		(!x->has_gid && number(h->gid, 8, false, &x->gid, err) < 0))
		return -1;

	e->type = h->typeflag == '\0' || h->typeflag == '7' || h->typeflag == 'S' ? '0' : h->typeflag;
	if (e->type < '0' || e->type > '6')
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "tar: unknown member type 0x%02x",
			(unsigned char)h->typeflag);
	e->path = x->sparse_name ? pf_take(x->sparse_name) : x->path ? pf_take(x->path) : header_path(h);
	size_t plen = strlen(e->path);
	if (plen == 0)
		return corrupt(err, "a member without a name");
	if (e->type == '0' && e->path[plen - 1] == '/')
		e->type = '5'; /* v7 has no type for directories */
	e->mode = (uint32_t)mode & 07777;
	e->uid = x->uid;
	e->gid = x->gid;
	e->mtime = x->has_mtime ? x->mtime : (struct timespec){.tv_sec = mtime};
	e->xattrs = pf_take(x->xattrs);
	e->n_xattrs = x->n_xattrs;
	x->n_xattrs = 0;
	if (e->type == '1' || e->type == '2')
		e->link = x->link ? pf_take(x->link) : field_dup(h->linkname, sizeof(h->linkname));
	if ((e->type == '3' || e->type == '4') &&
		(number(h->devmajor, 8, false, &e->dev_major, err) < 0 ||
			number(h->devminor, 8, false, &e->dev_minor, err) < 0))
		return -1;
	if (e->type != '0') {
		/* Only files have data; what some writers put into the size of the others is not stored. */
		if (x->sparse)
			return corrupt(err, "a sparse member that is no file");
		t->left = t->padding = 0;
		return 0;
	}
	t->padding = padding_of(stored);
	if (h->typeflag == 'S' && old_gnu_sparse(t, h, x, err) < 0)
		return -1;
	if (x->sparse) {
		if (x->sparse_v1 && sparse_v1_map(t, x, &stored, err) < 0)
			return -1;
		if (!x->has_real_size)
			return corrupt(err, "a sparse file without its size");
		if (check_extents(x, stored, err) < 0)
			return -1;
		e->size = x->real_size;
		e->extents = pf_take(x->extents);
		e->n_extents = x->n_extents;
		if (!e->extents)
			e->extents = pf_calloc(1, sizeof(*e->extents)); /* all hole */
	} else {
		e->size = stored;
	}
	t->left = stored;
	t->extent = 0;
	t->ext_done = 0;
	return 0;
}

static int next(struct pf_tar *t, struct ext *x, struct pf_err *err)
{
	struct header h;
	int64_t sum, size;
	bool began = false; /* extended headers were read, so a member must follow */

	for (;;) {
		int r = fill(t, err);
		if (r < 0)
			return -1;
		/* Some writers (umoci among them) leave the end mark out, and GNU tar and Go read their
		 * archives. */
		if (r == 0 && t->any && !began) {
			t->ended = true;
			return 0;
		}
		if (r == 0)
			return corrupt(err, "the archive is cut short: its end mark is missing");
		if (read_exact(t, &h, BLOCK, err) < 0)
			return -1;
		if (all_zero(&h)) {
			t->ended = true;
			return 0;
		}
		if (number(h.chksum, 8, false, &sum, err) < 0 || !checksum_ok(&h, sum))
			return corrupt(err, "not a tar archive, or a damaged header");
		if (h.typeflag != 'x' && h.typeflag != 'g' && h.typeflag != 'L' && h.typeflag != 'K')
			return build_entry(t, &h, x, err) < 0 ? -1 : 1;
		began = true;

		PF_FREE char *meta = NULL;
		if (number(h.size, 12, false, &size, err) < 0 || read_meta(t, size, &meta, err) < 0)
			return -1;
		if (h.typeflag == 'x')
			r = pax_parse(x, meta, (size_t)size, err);
		else if (h.typeflag == 'g')
			r = check_global(meta, (size_t)size, err);
		else
			r = set_text(h.typeflag == 'L' ? &x->path : &x->link, meta, strlen(meta), err);
		if (r < 0)
			return -1;
	}
}

int pf_tar_next(struct pf_tar *t, const struct pf_tar_entry **entry, struct pf_err *err)
{
	struct ext x = {0};

	if (t->ended)
		return 0;
	if (skip(t, t->left, err) < 0 || skip_padding(t, err) < 0)
		return -1;
	t->left = t->padding = 0;
	clear_entry(&t->entry);
	int r = next(t, &x, err);
	clear_ext(&x);
	t->any = t->any || r > 0;
	*entry = &t->entry;
	return r;
}

ssize_t pf_tar_data(struct pf_tar *t, const void **data, int64_t *offset, struct pf_err *err)
{
	const struct pf_tar_entry *e = &t->entry;
	int64_t room;

	if (t->left == 0)
		return 0;
	if (e->extents) {
		while (t->ext_done == e->extents[t->extent].len) {
			t->extent++;
			t->ext_done = 0;
		}
		room = e->extents[t->extent].len - t->ext_done;
		*offset = e->extents[t->extent].offset + t->ext_done;
	} else {
		room = t->left;
		*offset = e->size - t->left;
	}
	int r = fill(t, err);
	if (r <= 0)
		return r < 0 ? -1 : corrupt(err, "the archive ends in the middle of a member");
	size_t n = t->end - t->pos;
	if ((int64_t)n > room)
		n = (size_t)room;
	*data = t->buf + t->pos;
	t->pos += n;
	t->left -= (int64_t)n;
	t->ext_done += (int64_t)n;
	return (ssize_t)n;
}

int pf_tar_drain(struct pf_tar *t, struct pf_err *err)
{
	int r;

	while ((r = fill(t, err)) > 0)
		t->pos = t->end;
	return r;
}
