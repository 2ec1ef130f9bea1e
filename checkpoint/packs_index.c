/* Theory of operation: the form of a pack's parts (packs_int.h), and nothing that opens a store. An index
 * block says everything about itself twice over (length at both ends, checksum, the sum of its frames), so
 * that one that was cut off or written over is known before anything in it is believed; what it says of
 * places is checked against the bounds of the pack, so that one that was made up cannot lead out of it. */
#include "checkpoint/packs_int.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/fd.h"
#include "base/str.h"

#define FLAG_SEALED 1u

static void put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, 8);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return le64toh(v);
}

bool pf_pack_name_to_id(const char *name, uint8_t id[16])
{
	for (size_t i = 0; i < PF_PACK_NAME; i++) {
		char c = name[i];
		int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
		if (v < 0)
			return false;
		id[i / 2] = (uint8_t)(i % 2 ? id[i / 2] | v : v << 4);
	}
	return name[PF_PACK_NAME] == '\0';
}

void pf_pack_id_to_name(const uint8_t id[16], char name[PF_PACK_NAME + 1])
{
	for (size_t i = 0; i < 16; i++)
		snprintf(name + 2 * i, 3, "%02x", id[i]);
}

void pf_pack_head(const uint8_t id[16], bool sealed, uint8_t out[PF_PACK_HEAD])
{
	memset(out, 0, PF_PACK_HEAD);
	memcpy(out, "PFPACK1\n", 8);
	memcpy(out + 8, id, 16);
	put32(out + 24, sealed ? FLAG_SEALED : 0);
}

static int by_id(const void *a, const void *b)
{
	return memcmp(((const struct pf_pack_entry *)a)->id.b, ((const struct pf_pack_entry *)b)->id.b, 32);
}

static void encode_entry(const struct pf_pack_entry *e, uint8_t *o)
{
	memcpy(o, e->id.b, 32);
	put32(o + 32, e->offset);
	put32(o + 36, e->stored);
	put32(o + 40, e->len);
	put32(o + 44, e->codec);
}

int pf_pack_index_encode(struct pf_pack_index *x, const struct pf_seal_key *key, uint8_t **out, size_t *len,
	struct pf_err *err)
{
	size_t plain = (size_t)x->count * PF_PACK_ENTRY, body = plain + (key ? PF_SEAL_TAG : 0);
	size_t total = PF_PACK_BLOCK_HEAD + body + PF_PACK_BLOCK_TAIL;
	PF_FREE uint8_t *block = malloc(total);
	PF_FREE uint8_t *clear = key ? malloc(plain + 1) : NULL;
	uint8_t *entries = key ? clear : block ? block + PF_PACK_BLOCK_HEAD : NULL, *tail;

	if (!block || !entries)
		return pf_fail(err, ENOMEM, "index of a pack");
	if (x->count)
		qsort(x->entries, x->count, sizeof(*x->entries), by_id);
	memcpy(block, "PFINDEX1", 8);
	memcpy(block + 8, x->id, 16);
	put32(block + 24, key ? FLAG_SEALED : 0);
	put32(block + 28, x->count);
	put64(block + 32, x->data_end);
	for (uint32_t i = 0; i < x->count; i++)
		encode_entry(&x->entries[i], entries + (size_t)i * PF_PACK_ENTRY);
	if (key && pf_aead_seal(key, PF_SEAL_USE_INDEX, 0, block, PF_PACK_BLOCK_HEAD, clear, plain,
			   block + PF_PACK_BLOCK_HEAD, err) < 0)
		return -1;
	tail = block + PF_PACK_BLOCK_HEAD + body;
	put32(tail, (uint32_t)crc32_z(0, block, PF_PACK_BLOCK_HEAD + body));
	put32(tail + 4, (uint32_t)total);
	memcpy(tail + 8, "PFINDEXE", 8);
	*out = pf_take(block);
	*len = total;
	return 0;
}

uint64_t pf_pack_block_data_end(const uint8_t *block)
{
	return get64(block + 32);
}

static int bad(struct pf_err *err, const char *what)
{
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "index of a pack: %s", what);
}

int pf_pack_block_check(
	const uint8_t *block, size_t len, const uint8_t id[16], bool sealed, struct pf_err *err)
{
	const uint8_t *tail;
	uint64_t body, data_end;
	uint32_t count;

	if (len < PF_PACK_BLOCK_HEAD + PF_PACK_BLOCK_TAIL || len > PF_PACK_MAX_BLOCK)
		return bad(err, "cut off");
	tail = block + len - PF_PACK_BLOCK_TAIL;
	count = get32(block + 28);
	data_end = get64(block + 32);
	body = (uint64_t)count * PF_PACK_ENTRY + (sealed ? PF_SEAL_TAG : 0);
	if (memcmp(block, "PFINDEX1", 8) != 0 || memcmp(tail + 8, "PFINDEXE", 8) != 0)
		return bad(err, "not one");
	if (count > PF_PACK_MAX_CHUNKS || PF_PACK_BLOCK_HEAD + body + PF_PACK_BLOCK_TAIL != len ||
		get32(tail + 4) != len)
		return bad(err, "its lengths disagree");
	if (get32(tail) != (uint32_t)crc32_z(0, block, len - PF_PACK_BLOCK_TAIL))
		return bad(err, "wrong checksum");
	if (memcmp(block + 8, id, 16) != 0)
		return bad(err, "another pack's");
	if (get32(block + 24) != (sealed ? FLAG_SEALED : 0))
		return bad(err,
			sealed ? "not sealed, but there is a key to it" : "sealed, but its key is missing");
	if (data_end < PF_PACK_HEAD || data_end > UINT32_MAX)
		return bad(err, "impossible size");
	return 0;
}

/* One entry by itself. */
static bool entry_possible(const struct pf_pack_entry *e, uint64_t data_end, uint32_t tag)
{
	if (e->len < 1 || e->len > PF_CHUNK_MAX || e->codec > PF_PACK_ZSTD || e->offset < PF_PACK_HEAD ||
		e->stored <= tag || e->stored > e->len + tag || (uint64_t)e->offset + e->stored > data_end)
		return false;
	return e->codec == PF_PACK_ZSTD || e->stored == e->len + tag;
}

static int decode_entries(
	const uint8_t *in, const struct pf_pack_index *x, struct pf_pack_entry *entries, struct pf_err *err)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < x->count; i++, in += PF_PACK_ENTRY) {
		struct pf_pack_entry *e = &entries[i];
		memcpy(e->id.b, in, 32);
		e->offset = get32(in + 32);
		e->stored = get32(in + 36);
		e->len = get32(in + 40);
		e->codec = get32(in + 44);
		sum += e->stored;
		if (!entry_possible(e, x->data_end, x->sealed ? PF_SEAL_TAG : 0))
			return bad(err, "an entry leads nowhere");
		if (i && memcmp(e[-1].id.b, e->id.b, 32) >= 0)
			return bad(err, "not sorted");
	}
	return sum == x->data_end - PF_PACK_HEAD ? 0 : bad(err, "it does not add up");
}

/* The entries of a block that was checked, out of the cipher. malloc'ed. */
static uint8_t *open_entries(
	const uint8_t *block, uint32_t count, const struct pf_seal_key *key, struct pf_err *err)
{
	size_t len = (size_t)count * PF_PACK_ENTRY + PF_SEAL_TAG;
	uint8_t *clear = malloc(len);

	if (!clear) {
		pf_fail(err, ENOMEM, "index of a pack");
		return NULL;
	}
	if (pf_aead_open(key, PF_SEAL_USE_INDEX, 0, block, PF_PACK_BLOCK_HEAD, block + PF_PACK_BLOCK_HEAD,
		    len, clear, err) < 0) {
		free(clear);
		pf_wrap(err, "index of a pack");
		return NULL;
	}
	return clear;
}

int pf_pack_index_decode(const uint8_t *block, size_t len, const uint8_t id[16],
	const struct pf_seal_key *key, struct pf_pack_index *x, struct pf_err *err)
{
	struct pf_pack_index got = {.sealed = key != NULL};
	PF_FREE uint8_t *clear = NULL;
	struct pf_pack_entry *entries;

	if (pf_pack_block_check(block, len, id, key != NULL, err) < 0)
		return -1;
	memcpy(got.id, id, 16);
	got.count = get32(block + 28);
	got.data_end = get64(block + 32);
	if (key && !(clear = open_entries(block, got.count, key, err)))
		return -1;
	entries = malloc(((size_t)got.count + 1) * sizeof(*entries));
	if (!entries)
		return pf_fail(err, ENOMEM, "index of a pack");
	if (decode_entries(clear ? clear : block + PF_PACK_BLOCK_HEAD, &got, entries, err) < 0) {
		free(entries);
		return -1;
	}
	*x = got;
	x->entries = entries;
	return 0;
}

static int pread_full(int fd, void *buf, size_t len, uint64_t at)
{
	uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = pread(fd, p, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n < 0 ? errno : ENODATA;
			return -1;
		}
		p += n;
		at += (size_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int pf_pack_read_footer(int fd, uint8_t **out, size_t *len, uint64_t *size, struct pf_err *err)
{
	uint8_t tail[PF_PACK_BLOCK_TAIL];
	PF_FREE uint8_t *block = NULL;
	struct stat st;
	uint32_t n;

	if (fstat(fd, &st) < 0)
		return pf_fail(err, errno, "pack");
	*size = (uint64_t)st.st_size;
	if (!S_ISREG(st.st_mode) || *size < PF_PACK_HEAD + PF_PACK_BLOCK_HEAD + PF_PACK_BLOCK_TAIL)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "pack: cut off");
	if (pread_full(fd, tail, sizeof(tail), *size - sizeof(tail)) < 0)
		return pf_fail(err, errno, "pack");
	n = get32(tail + 4);
	if (memcmp(tail + 8, "PFINDEXE", 8) != 0 || n < PF_PACK_BLOCK_HEAD + PF_PACK_BLOCK_TAIL ||
		n > PF_PACK_MAX_BLOCK || n > *size - PF_PACK_HEAD)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "pack: cut off, or its footer is damaged");
	block = malloc(n);
	if (!block)
		return pf_fail(err, ENOMEM, "pack");
	if (pread_full(fd, block, n, *size - n) < 0)
		return pf_fail(err, errno, "pack");
	if (get64(block + 32) != *size - n)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "pack: its footer is not where it says");
	*out = pf_take(block);
	*len = n;
	return 0;
}

int pf_pack_dir(int storefd, struct pf_err *err)
{
	int fd = openat(storefd, PF_PACKS_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? pf_fail(err, errno, "checkpoint store: " PF_PACKS_DIR) : fd;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct pf_pack_files *)a)->name, ((const struct pf_pack_files *)b)->name);
}

/* Which of a pack's files the name is: "pack", "idx" or "key", NULL for a stranger. */
static const char *file_kind(const char *file, char name[PF_PACK_NAME + 1])
{
	static const char *const kinds[] = {"pack", "idx", "key"};
	uint8_t id[16];

	if (strlen(file) <= PF_PACK_NAME + 1 || file[PF_PACK_NAME] != '.')
		return NULL;
	memcpy(name, file, PF_PACK_NAME);
	name[PF_PACK_NAME] = '\0';
	if (!pf_pack_name_to_id(name, id))
		return NULL;
	for (size_t i = 0; i < 3; i++)
		if (strcmp(file + PF_PACK_NAME + 1, kinds[i]) == 0)
			return kinds[i];
	return NULL;
}

int pf_pack_scan(int dirfd, struct pf_pack_files **out, size_t *n, struct pf_err *err)
{
	/* A descriptor of its own: the position of a directory is shared among duplicates. */
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	PF_FREE struct pf_pack_files *v = NULL;
	size_t len = 0, cap = 0, kept = 0;
	struct dirent *e;

	if (!d) {
		int saved = errno;
		if (fd >= 0)
			close(fd);
		return pf_fail(err, saved, "checkpoint store: " PF_PACKS_DIR);
	}
	while ((errno = 0, e = readdir(d)) != NULL) {
		char name[PF_PACK_NAME + 1];
		const char *kind = file_kind(e->d_name, name);
		if (!kind)
			continue;
		if (len == cap) {
			cap = cap ? cap * 2 : 64;
			struct pf_pack_files *more = realloc(v, cap * sizeof(*v));
			if (!more)
				return pf_fail(err, ENOMEM, "checkpoint store: " PF_PACKS_DIR);
			v = more;
		}
		v[len] = (struct pf_pack_files){
			.pack = *kind == 'p', .idx = *kind == 'i', .key = *kind == 'k'};
		memcpy(v[len++].name, name, sizeof(name));
	}
	if (errno)
		return pf_fail(err, errno, "checkpoint store: " PF_PACKS_DIR);
	if (len)
		qsort(v, len, sizeof(*v), by_name);
	for (size_t i = 0; i < len; i++) {
		if (kept && strcmp(v[kept - 1].name, v[i].name) == 0) {
			v[kept - 1].pack |= v[i].pack;
			v[kept - 1].idx |= v[i].idx;
			v[kept - 1].key |= v[i].key;
		} else {
			v[kept++] = v[i];
		}
	}
	*out = pf_take(v);
	*n = kept;
	return 0;
}
