/* Theory of operation.
 *
 * The blob is a tar in zstd frames like any other, but the data of each file begins a frame and ends one;
 * large files have one for each content-defined chunk, so that of a file that changed somewhere only what
 * changed is new. Behind the frames come three that decoders skip:
 *
 *   the table      JSON, zstd: every member with its metadata, the SHA-256 of its data and where its frames
 * are tar-split      what of the tar is no file's data, zstd: a line of JSON for each header (with the
 * padding before it) and each file. With it a reader that has the files, wherever they are from, can make the
 * tar again and compare it with its diff_id, and does before it believes the table the footer     64 bytes:
 * where the other two are
 *
 * Where a frame lies is only known when everything is compressed. So the text of the table is kept with gaps
 * for these numbers until then; tar-split needs none and is compressed as it comes. */
#include "checkpoint/toc.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "checkpoint/chunk.h"
#include "checkpoint/crc64.h"
#include "checkpoint/sha256.h"

#define NOTE "io.github.containers.zstd-chunked."
#define SKIPPABLE 0x184d2a50u
#define FOOTER_SIZE 64
#define DOC_LEVEL 3

/* A text that is compressed as it comes. */
struct zdoc {
	ZSTD_CCtx *z;
	struct pf_buf out;
	int64_t plain; /* bytes */
};

/* A number of the table that is not known yet: the offset of frame `cut` belongs at `at` of the text. */
struct gap {
	size_t at, cut;
};

/* A stretch of a file, in frames of its own. */
struct part {
	size_t cut;
	int64_t at, len;
	struct pf_digest digest;
	bool zeros;
};

struct pf_toc {
	struct pf_tarout *o;
	struct pf_chunker chunker;
	struct pf_buf text; /* the entries */
	struct gap *gaps;
	size_t n_gaps, cap_gaps;
	struct zdoc split;
	int64_t n_split;       /* lines */
	struct pf_buf between; /* tar since the last file's data or header */
	/* The file whose data is expected. */
	struct pf_buf name, head; /* its name, quoted, and its entry up to its digest */
	int64_t size, got;
	uint64_t crc;
	EVP_MD_CTX *file, *chunk;
	uint8_t *buf; /* what was not cut yet: 2 * PF_CHUNK_MAX */
	size_t held;
	struct part *parts;
	size_t n_parts, cap_parts;
};

/* Go's time has years of four digits: 0000-01-01 to 9999-12-31. */
#define FIRST_TIME INT64_C(-62167219200)
#define LAST_TIME INT64_C(253402300799)

bool pf_toc_can_say(const struct pf_tar_member *m, const char **why)
{
	bool names = pf_utf8_valid(m->path, strlen(m->path)) &&
		     (!m->link || pf_utf8_valid(m->link, strlen(m->link)));

	for (size_t i = 0; i < m->n_xattrs; i++)
		names = names && pf_utf8_valid(m->xattrs[i].name, strlen(m->xattrs[i].name));
	*why = names ? "its time has no year of four digits"
		     : "its name, target or an attribute is not UTF-8";
	return names && m->mtime.tv_sec >= FIRST_TIME && m->mtime.tv_sec <= LAST_TIME;
}

int64_t pf_toc_entry_size(const struct pf_tar_member *m)
{
	/* A character may be quoted by six; an average chunk has 64 KiB, the least a quarter of it. */
	size_t n = 400 + 2 * strlen(m->path) + 2 * (m->link ? strlen(m->link) : 0);
	int64_t chunks = m->size > (int64_t)PF_CHUNK_MAX ? m->size / (32 << 10) : 0;

	for (size_t i = 0; i < m->n_xattrs; i++)
		n += 16 + 2 * strlen(m->xattrs[i].name) + m->xattrs[i].len / 3 * 4;
	return (int64_t)n * (chunks + 1);
}

/* ---- helpers ---- */

static int zdoc_begin(struct zdoc *d, struct pf_err *err)
{
	d->z = ZSTD_createCCtx();
	if (!d->z || ZSTD_isError(ZSTD_CCtx_setParameter(d->z, ZSTD_c_compressionLevel, DOC_LEVEL)))
		return pf_fail(err, ENOMEM, "zstd");
	return 0;
}

static int zdoc_add(struct zdoc *d, const void *data, size_t len, ZSTD_EndDirective mode, struct pf_err *err)
{
	ZSTD_inBuffer in = {data, len, 0};
	char piece[16384];
	size_t left;

	d->plain += (int64_t)len;
	do {
		ZSTD_outBuffer out = {piece, sizeof(piece), 0};
		left = ZSTD_compressStream2(d->z, &out, &in, mode);
		if (ZSTD_isError(left))
			return pf_fail(err, EIO, "zstd");
		pf_buf_add(&d->out, piece, out.pos);
	} while (mode == ZSTD_e_end ? left != 0 : in.pos < in.size);
	return 0;
}

static void zdoc_done(struct zdoc *d)
{
	ZSTD_freeCCtx(d->z);
	pf_buf_done(&d->out);
}

static int sum_begin(EVP_MD_CTX *md, struct pf_err *err)
{
	return EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 ? 0 : pf_fail(err, EIO, "SHA-256");
}

static int sum_end(EVP_MD_CTX *md, struct pf_digest *d, struct pf_err *err)
{
	uint8_t raw[32];

	if (EVP_DigestFinal_ex(md, raw, NULL) != 1)
		return pf_fail(err, EIO, "SHA-256");
	pf_digest_from_raw(raw, d);
	return 0;
}

static void add_base64(struct pf_buf *b, const void *data, size_t len)
{
	PF_FREE unsigned char *text = pf_calloc(1, len / 3 * 4 + 8);
	int n = EVP_EncodeBlock(text, data, (int)len);

	pf_buf_add(b, text, (size_t)n);
}

struct pf_toc *pf_toc_new(struct pf_tarout *o)
{
	struct pf_toc *t = pf_calloc(1, sizeof(*t));

	t->o = o;
	t->file = EVP_MD_CTX_new();
	t->chunk = EVP_MD_CTX_new();
	t->buf = malloc(2 * PF_CHUNK_MAX);
	if (!t->file || !t->chunk || !t->buf)
		abort();
	return t;
}

void pf_toc_free(struct pf_toc *t)
{
	if (!t)
		return;
	pf_buf_done(&t->text);
	pf_buf_done(&t->between);
	pf_buf_done(&t->name);
	pf_buf_done(&t->head);
	zdoc_done(&t->split);
	EVP_MD_CTX_free(t->file);
	EVP_MD_CTX_free(t->chunk);
	free(t->gaps);
	free(t->parts);
	free(t->buf);
	free(t);
}

/* ---- tar-split ---- */

static int add_line(struct pf_toc *t, struct pf_buf *line, struct pf_err *err)
{
	if (!t->split.z && zdoc_begin(&t->split, err) < 0)
		return -1;
	pf_buf_printf(line, ",\"position\":%" PRId64 "}\n", t->n_split++);
	return zdoc_add(&t->split, line->data, line->len, ZSTD_e_continue, err);
}

/* What lies between two files. */
static int add_segment(struct pf_toc *t, struct pf_err *err)
{
	PF_BUF struct pf_buf line = {0};

	pf_buf_str(&line, "{\"type\":2,\"payload\":\"");
	add_base64(&line, t->between.data, t->between.len);
	pf_buf_str(&line, "\"");
	t->between.len = 0;
	return add_line(t, &line, err);
}

/* A member's data stands here, also if there is none. */
static int add_file(struct pf_toc *t, struct pf_err *err)
{
	PF_BUF struct pf_buf line = {0};
	uint64_t sum = htobe64(t->crc);

	pf_buf_printf(&line, "{\"type\":1,\"name\":%s", t->name.data);
	if (t->size > 0) {
		pf_buf_printf(&line, ",\"size\":%" PRId64 ",\"payload\":\"", t->size);
		add_base64(&line, &sum, sizeof(sum));
		pf_buf_str(&line, "\"");
	} else {
		pf_buf_str(&line, ",\"payload\":null");
	}
	return add_line(t, &line, err);
}

/* ---- entries ---- */

static const char *type_name(char type)
{
	switch (type) {
	case '1':
		return "hardlink";
	case '2':
		return "symlink";
	case '5':
		return "dir";
	case '6':
		return "fifo";
	default:
		return "reg";
	}
}

static void add_time(struct pf_buf *b, struct timespec at)
{
	struct tm tm;

	if (!gmtime_r(&at.tv_sec, &tm))
		abort(); /* pf_toc_can_say() */
	pf_buf_printf(b, ",\"modtime\":\"%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year + 1900, tm.tm_mon + 1,
		tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
	if (at.tv_nsec > 0)
		pf_buf_printf(b, ".%09ld", at.tv_nsec);
	pf_buf_str(b, "Z\"");
}

/* What the table says of a member but for its data; t->name is set. */
static void describe(struct pf_toc *t, const struct pf_tar_member *m)
{
	struct pf_buf *b = &t->head;

	b->len = 0;
	pf_buf_printf(b, "{\"type\":\"%s\",\"name\":%s", type_name(m->type), t->name.data);
	if (m->link) {
		pf_buf_str(b, ",\"linkName\":");
		pf_json_quoted(b, m->link);
	}
	if (m->mode)
		pf_buf_printf(b, ",\"mode\":%u", m->mode & 07777);
	if (m->size > 0)
		pf_buf_printf(b, ",\"size\":%" PRId64, m->size);
	if (m->uid)
		pf_buf_printf(b, ",\"uid\":%" PRIu32, m->uid);
	if (m->gid)
		pf_buf_printf(b, ",\"gid\":%" PRIu32, m->gid);
	add_time(b, m->mtime);
	for (size_t i = 0; i < m->n_xattrs; i++) {
		pf_buf_str(b, i == 0 ? ",\"xattrs\":{" : ",");
		pf_json_quoted(b, m->xattrs[i].name);
		pf_buf_str(b, ":\"");
		add_base64(b, m->xattrs[i].value, m->xattrs[i].len);
		pf_buf_str(b, i + 1 == m->n_xattrs ? "\"}" : "\"");
	}
}

static void add_offset(struct pf_toc *t, const char *key, size_t cut)
{
	pf_buf_printf(&t->text, ",\"%s\":", key);
	t->gaps = pf_grow(t->gaps, t->n_gaps, &t->cap_gaps, sizeof(*t->gaps));
	t->gaps[t->n_gaps++] = (struct gap){t->text.len, cut};
}

static void add_chunk(struct pf_toc *t, const struct part *p)
{
	pf_buf_printf(&t->text, ",\"chunkSize\":%" PRId64 ",\"chunkDigest\":\"%s\"", p->len, p->digest.s);
	if (p->at > 0)
		pf_buf_printf(&t->text, ",\"chunkOffset\":%" PRId64, p->at);
	if (p->zeros)
		pf_buf_str(&t->text, ",\"chunkType\":\"zeros\"");
}

static void begin_entry(struct pf_toc *t)
{
	if (t->text.len > 0)
		pf_buf_str(&t->text, ",");
}

/* The entry of a file with its data, and one for each further part. */
static void add_parts(struct pf_toc *t, const struct pf_digest *digest, size_t end)
{
	begin_entry(t);
	pf_buf_add(&t->text, t->head.data, t->head.len);
	pf_buf_printf(&t->text, ",\"digest\":\"%s\"", digest->s);
	add_offset(t, "offset", t->parts[0].cut);
	add_offset(t, "endOffset", end);
	if (t->n_parts > 1)
		add_chunk(t, &t->parts[0]);
	pf_buf_str(&t->text, "}");
	for (size_t i = 1; i < t->n_parts; i++) {
		pf_buf_printf(&t->text, ",{\"type\":\"chunk\",\"name\":%s", t->name.data);
		add_offset(t, "offset", t->parts[i].cut);
		add_offset(t, "endOffset", i + 1 < t->n_parts ? t->parts[i + 1].cut : end);
		add_chunk(t, &t->parts[i]);
		pf_buf_str(&t->text, "}");
	}
}

/* ---- data ---- */

static int sum_file(struct pf_toc *t, const void *data, size_t len, struct pf_err *err)
{
	t->got += (int64_t)len;
	if (t->got > t->size)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "a file is longer than its header says");
	t->crc = pf_crc64(t->crc, data, len);
	return EVP_DigestUpdate(t->file, data, len) == 1 ? 0 : pf_fail(err, EIO, "SHA-256");
}

static struct part *begin_part(struct pf_toc *t, int64_t at)
{
	t->parts = pf_grow(t->parts, t->n_parts, &t->cap_parts, sizeof(*t->parts));
	t->parts[t->n_parts] = (struct part){.cut = pf_tarout_cut(t->o), .at = at};
	return &t->parts[t->n_parts++];
}

/* A chunk of the file, which begins `back` bytes before what was summed so far. */
static int put_chunk(struct pf_toc *t, const uint8_t *data, size_t len, size_t back, struct pf_err *err)
{
	struct part *p = begin_part(t, t->got - (int64_t)back);

	p->len = (int64_t)len;
	if (sum_begin(t->chunk, err) < 0 || EVP_DigestUpdate(t->chunk, data, len) != 1 ||
		sum_end(t->chunk, &p->digest, err) < 0)
		return pf_fail(err, EIO, "SHA-256");
	return pf_tarout_write(t->o, data, len, err);
}

/* Chunks out of what is held: all that are sure, at the end of the stretch all. What is no longer than a
 * chunk may be is one. */
static int put_chunks(struct pf_toc *t, bool end, struct pf_err *err)
{
	size_t at = 0;

	while (t->held - at >= PF_CHUNK_MAX || (end && t->held > at)) {
		size_t left = t->held - at, n = left;
		if (t->size > (int64_t)PF_CHUNK_MAX)
			n = pf_chunk_cut(&t->chunker, t->buf + at, left);
		if (put_chunk(t, t->buf + at, n, left, err) < 0)
			return -1;
		at += n;
	}
	t->held -= at;
	memmove(t->buf, t->buf + at, t->held);
	return 0;
}

static int end_file(struct pf_toc *t, struct pf_err *err)
{
	size_t pad = (size_t)(-t->size & (PF_TAR_BLOCK - 1));
	static const char zeros[PF_TAR_BLOCK];
	struct pf_digest digest;

	if (t->got < t->size)
		return 0;
	if (put_chunks(t, true, err) < 0 || sum_end(t->file, &digest, err) < 0 || add_file(t, err) < 0)
		return -1;
	add_parts(t, &digest, pf_tarout_cut(t->o));
	pf_buf_add(&t->between, zeros, pad);
	return pf_tarout_zeros(t->o, pad, err);
}

int pf_toc_data(struct pf_toc *t, const void *data, size_t len, struct pf_err *err)
{
	const uint8_t *p = data;

	while (len > 0) {
		size_t n = 2 * PF_CHUNK_MAX - t->held < len ? 2 * PF_CHUNK_MAX - t->held : len;
		if (sum_file(t, p, n, err) < 0)
			return -1;
		memcpy(t->buf + t->held, p, n);
		t->held += n;
		p += n;
		len -= n;
		if (t->size > (int64_t)PF_CHUNK_MAX && put_chunks(t, false, err) < 0)
			return -1;
	}
	return end_file(t, err);
}

int pf_toc_hole(struct pf_toc *t, int64_t len, struct pf_err *err)
{
	static const uint8_t zeros[64 << 10];
	struct part *p;

	if (len == 0)
		return 0;
	if (put_chunks(t, true, err) < 0 || sum_begin(t->chunk, err) < 0)
		return -1;
	p = begin_part(t, t->got);
	p->zeros = true;
	p->len = len;
	for (int64_t left = len; left > 0;) {
		size_t n = left < (int64_t)sizeof(zeros) ? (size_t)left : sizeof(zeros);
		if (sum_file(t, zeros, n, err) < 0 || EVP_DigestUpdate(t->chunk, zeros, n) != 1 ||
			pf_tarout_write(t->o, zeros, n, err) < 0)
			return -1;
		left -= (int64_t)n;
	}
	return sum_end(t->chunk, &p->digest, err) < 0 ? -1 : end_file(t, err);
}

int pf_toc_member(
	struct pf_toc *t, const struct pf_tar_member *m, const void *header, size_t len, struct pf_err *err)
{
	if (t->got != t->size)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "a file is shorter than its header says");
	if (t->n_split == 0 && pf_chunker_init(&t->chunker, &pf_chunk_default, NULL, err) < 0)
		return -1;
	pf_buf_add(&t->between, header, len);
	t->name.len = 0;
	pf_json_quoted(&t->name, m->path);
	t->size = m->size;
	t->got = 0;
	t->crc = 0;
	t->n_parts = 0;
	describe(t, m);
	if (add_segment(t, err) < 0 || pf_tarout_write(t->o, header, len, err) < 0)
		return -1;
	if (t->size > 0)
		return sum_begin(t->file, err);
	begin_entry(t);
	pf_buf_add(&t->text, t->head.data, t->head.len);
	pf_buf_str(&t->text, "}");
	return add_file(t, err);
}

/* ---- the end ---- */

/* The table as it is read: with the numbers in their places. */
static int compress_table(struct pf_toc *t, struct zdoc *d, struct pf_err *err)
{
	static const char begin[] = "{\"version\":1,\"entries\":[";
	struct pf_digest digest;
	char text[128];
	size_t at = 0;

	pf_sha256_digest(t->split.out.data, t->split.out.len, &digest);
	if (zdoc_begin(d, err) < 0 || zdoc_add(d, begin, strlen(begin), ZSTD_e_continue, err) < 0)
		return -1;
	for (size_t i = 0; i <= t->n_gaps; i++) {
		size_t end = i < t->n_gaps ? t->gaps[i].at : t->text.len;
		if (zdoc_add(d, t->text.data + at, end - at, ZSTD_e_continue, err) < 0)
			return -1;
		at = end;
		if (i == t->n_gaps)
			break;
		snprintf(text, sizeof(text), "%" PRId64, pf_tarout_offset(t->o, t->gaps[i].cut));
		if (zdoc_add(d, text, strlen(text), ZSTD_e_continue, err) < 0)
			return -1;
	}
	snprintf(text, sizeof(text), "],\"tarSplitDigest\":\"%s\"}", digest.s);
	return zdoc_add(d, text, strlen(text), ZSTD_e_end, err);
}

static int append_skipped(struct pf_toc *t, const void *data, size_t len, struct pf_err *err)
{
	uint32_t head[2] = {htole32(SKIPPABLE), htole32((uint32_t)len)};

	if (len > UINT32_MAX)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "its table of contents is too large");
	return pf_tarout_append(t->o, head, sizeof(head), err) < 0 ? -1
								   : pf_tarout_append(t->o, data, len, err);
}

static int append_table(struct pf_toc *t, const struct zdoc *d, cJSON **notes, struct pf_err *err)
{
	const struct zdoc *s = &t->split;
	const int64_t end = pf_tarout_offset(t->o, pf_tarout_cut(t->o)), table = end + 8,
		      split = table + (int64_t)d->out.len + 8;
	const int64_t numbers[] = {
		table, (int64_t)d->out.len, d->plain, 1, split, (int64_t)s->out.len, s->plain};
	uint64_t footer[FOOTER_SIZE / 8];
	struct pf_digest digest;
	char text[80];

	for (size_t i = 0; i < 7; i++)
		footer[i] = htole64((uint64_t)numbers[i]);
	memcpy(&footer[7], "GNUlInUx", 8);
	if (append_skipped(t, d->out.data, d->out.len, err) < 0 ||
		append_skipped(t, s->out.data, s->out.len, err) < 0 ||
		append_skipped(t, footer, sizeof(footer), err) < 0)
		return -1;
	pf_sha256_digest(d->out.data, d->out.len, &digest);
	*notes = cJSON_CreateObject();
	cJSON_AddStringToObject(*notes, NOTE "manifest-checksum", digest.s);
	snprintf(text, sizeof(text), "%" PRId64 ":%zu:%" PRId64 ":1", table, d->out.len, d->plain);
	cJSON_AddStringToObject(*notes, NOTE "manifest-position", text);
	snprintf(text, sizeof(text), "%" PRId64 ":%zu:%" PRId64, split, s->out.len, s->plain);
	cJSON_AddStringToObject(*notes, NOTE "tarsplit-position", text);
	return 0;
}

int pf_toc_finish(struct pf_toc *t, cJSON **notes, struct pf_err *err)
{
	static const char zeros[2 * PF_TAR_BLOCK];
	struct zdoc table = {0};

	if (t->got != t->size)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "a file is shorter than its header says");
	pf_buf_add(&t->between, zeros, sizeof(zeros));
	if (add_segment(t, err) < 0 || zdoc_add(&t->split, NULL, 0, ZSTD_e_end, err) < 0 ||
		pf_tarout_write(t->o, zeros, sizeof(zeros), err) < 0 || pf_tarout_end_frames(t->o, err) < 0)
		return -1;
	int r = compress_table(t, &table, err) < 0 ? -1 : append_table(t, &table, notes, err);
	zdoc_done(&table);
	return r;
}
