/* Theory of operation.
 *
 * ustar blocks, preceded by a pax extended header with exactly what ustar cannot say: names longer than 100
 * bytes or not ASCII, times with nanoseconds or before 1970, sizes from 8 GiB, large ids, extended attributes
 * (SCHILY.xattr., which every OCI tool reads), sparse maps (GNU.sparse 1.0, which tar, libarchive and Go
 * read). Names that are not UTF-8 carry hdrcharset=BINARY, the standard's own word for "these are bytes". No
 * user names, no device numbers, no atime or ctime: they would differ between equal trees. */
#include "checkpoint/tarhdr.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct ustar {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], chksum[8], type, linkname[100],
		magic[6], version[2], uname[32], gname[32], devmajor[8], devminor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct ustar) == PF_TAR_BLOCK, "a header is one block");

static void octal(char *field, size_t len, uint64_t v)
{
	field[--len] = '\0';
	while (len > 0) {
		field[--len] = (char)('0' + (v & 7));
		v >>= 3;
	}
}

static bool fits(uint64_t v, size_t field)
{
	return v < (uint64_t)1 << (3 * (field - 1));
}

static bool plain(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s >= 0x80)
			return false;
	return true;
}

static bool utf8(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	while (*s) {
		int more = *s < 0x80             ? 0
			   : (*s & 0xe0) == 0xc0 ? 1
			   : (*s & 0xf0) == 0xe0 ? 2
			   : (*s & 0xf8) == 0xf0 ? 3
						 : -1;
		uint32_t v = more <= 0 ? *s : *s & (0x3fu >> more);
		static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
		if (more < 0)
			return false;
		s++;
		for (int i = 0; i < more; i++, s++) {
			if ((*s & 0xc0) != 0x80)
				return false;
			v = v << 6 | (*s & 0x3f);
		}
		if (v < least[more] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
			return false;
	}
	return true;
}

/* "LEN key=value\n" where LEN counts itself. */
static void record(struct pf_buf *b, const char *key, const void *value, size_t len)
{
	size_t body = strlen(key) + len + 3, total = body + 1;
	char digits[24];

	while (total != body + (size_t)snprintf(digits, sizeof(digits), "%zu", total))
		total = body + strlen(digits);
	pf_buf_printf(b, "%zu %s=", total, key);
	pf_buf_add(b, value, len);
	pf_buf_add(b, "\n", 1);
}

static void record_str(struct pf_buf *b, const char *key, const char *value)
{
	record(b, key, value, strlen(value));
}

static void record_int(struct pf_buf *b, const char *key, int64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, v);
	record_str(b, key, text);
}

static void record_time(struct pf_buf *b, struct timespec t)
{
	bool neg = t.tv_sec < 0;
	char text[48];

	/* -1.5 s is stored as -2 s + 0.5 s. */
	if (neg && t.tv_nsec > 0) {
		t.tv_sec++;
		t.tv_nsec = 1000000000 - t.tv_nsec;
	}
	int n = snprintf(text, sizeof(text), "%s%" PRId64, neg ? "-" : "",
		neg ? -(int64_t)t.tv_sec : (int64_t)t.tv_sec);
	if (t.tv_nsec > 0) {
		n += snprintf(text + n, sizeof(text) - (size_t)n, ".%09ld", t.tv_nsec);
		while (text[n - 1] == '0')
			text[--n] = '\0';
	}
	record_str(b, "mtime", text);
}

static void put_xattr(struct pf_buf *b, const struct pf_tar_xa *x)
{
	PF_FREE char *key = pf_asprintf("SCHILY.xattr.%s", x->name);

	record(b, key, x->value, x->len);
}

static void ustar_block(
	struct pf_buf *out, const struct pf_tar_member *m, const char *name, char type, uint64_t size)
{
	struct ustar h = {0};
	const unsigned char *p = (const unsigned char *)&h;
	unsigned sum = 0;

	/* Cut where too long: the pax header has the whole of it. */
	memcpy(h.name, name, strnlen(name, sizeof(h.name)));
	if (m->link)
		memcpy(h.linkname, m->link, strnlen(m->link, sizeof(h.linkname)));
	octal(h.mode, sizeof(h.mode), m->mode & 07777);
	octal(h.uid, sizeof(h.uid), fits(m->uid, 8) ? m->uid : 0);
	octal(h.gid, sizeof(h.gid), fits(m->gid, 8) ? m->gid : 0);
	octal(h.size, sizeof(h.size), fits(size, 12) ? size : 0);
	octal(h.mtime, sizeof(h.mtime),
		m->mtime.tv_sec >= 0 && fits((uint64_t)m->mtime.tv_sec, 12) ? (uint64_t)m->mtime.tv_sec : 0);
	h.type = type;
	memcpy(h.magic, "ustar", 6);
	memcpy(h.version, "00", 2);
	memset(h.chksum, ' ', sizeof(h.chksum));
	for (size_t i = 0; i < sizeof(h); i++)
		sum += p[i];
	octal(h.chksum, 7, sum);
	pf_buf_add(out, &h, sizeof(h));
}

static bool needs_record(const char *s)
{
	return strlen(s) > 100 || !plain(s);
}

void pf_tar_header(struct pf_buf *out, const struct pf_tar_member *m)
{
	static const char zeros[PF_TAR_BLOCK];
	PF_BUF struct pf_buf pax = {0};
	bool sparse = m->sparse_size >= 0;

	if (!utf8(m->path) || (m->link && !utf8(m->link)))
		record_str(&pax, "hdrcharset", "BINARY");
	if (sparse) {
		record_str(&pax, "GNU.sparse.major", "1");
		record_str(&pax, "GNU.sparse.minor", "0");
		record_str(&pax, "GNU.sparse.name", m->path);
		record_int(&pax, "GNU.sparse.realsize", m->sparse_size);
	} else if (needs_record(m->path)) {
		record_str(&pax, "path", m->path);
	}
	if (m->link && needs_record(m->link))
		record_str(&pax, "linkpath", m->link);
	if (m->mtime.tv_nsec != 0 || m->mtime.tv_sec < 0 || !fits((uint64_t)m->mtime.tv_sec, 12))
		record_time(&pax, m->mtime);
	if (!fits((uint64_t)m->size, 12))
		record_int(&pax, "size", m->size);
	if (!fits(m->uid, 8))
		record_int(&pax, "uid", m->uid);
	if (!fits(m->gid, 8))
		record_int(&pax, "gid", m->gid);
	for (size_t i = 0; i < m->n_xattrs; i++)
		put_xattr(&pax, &m->xattrs[i]);
	if (pax.len > 0) {
		struct pf_tar_member x = {.mode = 0644};
		ustar_block(out, &x, "PaxHeaders/x", 'x', pax.len);
		pf_buf_add(out, pax.data, pax.len);
		pf_buf_add(out, zeros, (PF_TAR_BLOCK - pax.len % PF_TAR_BLOCK) % PF_TAR_BLOCK);
	}
	/* A reader that does not know sparse files must not take the map for the file's content. */
	ustar_block(out, m, sparse ? "GNUSparseFile.0/sparse" : m->path, m->type, (uint64_t)m->size);
}
