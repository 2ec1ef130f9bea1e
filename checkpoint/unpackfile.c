/* Theory of operation.
 *
 * Files come in groups. Their chunks are expanded into one buffer, where a file of one piece is used as it
 * lies there, and others are put together; then the sums of all files of the group are computed side by side
 * (sha256_lanes.h), and what has the right one is written. So each byte is hashed once: the file's sum proves
 * what its chunks' ids would. Where a sum is wrong, or a chunk cannot be read, the file is made again the
 * careful way, each chunk compared with its id, which finds a good copy if there is another one, or says what
 * is damaged.
 *
 * A large file is made in parts by several threads, which leave the sums of its blocks (filesum.h) with it.
 *
 * Calls for what a new inode has by itself (root's own files with an ordinary mode, the most frequent kind)
 * are left out: they cost a third of making a small file. */
#include "checkpoint/unpackfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"
#include "checkpoint/filesum.h"

#define SLAB ((size_t)PF_FILE_PART + 2 * PF_CHUNK_MAX)
#define PIECE ((size_t)256 << 10)
#define GROUP 256

/* A file of a group. */
struct member {
	const struct pf_file_todo *t;
	const uint8_t *data;
	uint8_t sum[32];
	uint8_t (*blocks)[32]; /* NULL: it is one */
	bool careful;
};

struct pf_file_maker {
	struct pf_packs *packs;
	const struct pf_file_born *born;
	uint8_t *slab;
	size_t used;
	/* A chunk that is whole in the slab, or in `scratch`: the next file may be in it, too. */
	const uint8_t *last;
	struct pf_chunk_id last_id, scratch_id;
	bool have_scratch;
	uint8_t *scratch;
	struct member group[GROUP];
	size_t n;
	struct pf_hash_job *jobs;
	size_t n_jobs, cap_jobs;
	uint8_t (*blocks)[32]; /* of the group's files */
	size_t n_blocks;
	struct pf_filesum *sum;
};

/* Those put together, and those of one piece, which may all be in the same chunk. */
#define MAX_BLOCKS (SLAB / PF_FILESUM_BLOCK + GROUP * (PF_CHUNK_MAX / PF_FILESUM_BLOCK + 1))

struct pf_file_maker *pf_file_maker_new(struct pf_packs *packs, const struct pf_file_born *born)
{
	struct pf_file_maker *m = pf_calloc(1, sizeof(*m));

	m->packs = packs;
	m->born = born;
	m->slab = malloc(SLAB);
	m->scratch = malloc(PF_CHUNK_MAX);
	m->blocks = malloc(MAX_BLOCKS * sizeof(*m->blocks));
	m->sum = pf_filesum_new();
	if (!m->slab || !m->scratch || !m->blocks)
		abort();
	return m;
}

void pf_file_maker_free(struct pf_file_maker *m)
{
	if (!m)
		return;
	pf_filesum_free(m->sum);
	free(m->slab);
	free(m->scratch);
	free(m->blocks);
	free(m->jobs);
	free(m);
}

/* ---- the inode ---- */

void pf_file_born_look(int destfd, struct pf_file_born *b)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *status = NULL;
	size_t len;

	*b = (struct pf_file_born){.uid = geteuid(), .gid = getegid()};
	(void)fremovexattr(destfd, PF_FILE_INHERITED_ACL);
	if (pf_read_file_at(AT_FDCWD, "/proc/self/status", 1 << 16, &status, &len, &ignored) < 0)
		return;
	const char *line = strstr(status, "\nUmask:");
	if (!line)
		return;
	b->umask = (mode_t)strtoul(line + 7, NULL, 8);
	b->known = true;
}

/* What a new file in the directory has by itself; NULL: nothing is known. A group that is not ours is handed
 * down by the directory where the file system is mounted with grpid. */
static const struct pf_file_born *born_in(const struct pf_file_born *b, const struct pf_file_todo *t)
{
	return b->known && t->dir_gid == b->gid ? b : NULL;
}

/* Whether a file that is created with this mode has it. */
static bool born_with(const struct pf_file_born *b, unsigned mode)
{
	return b && !(mode & (07000 | b->umask));
}

int pf_file_set_meta(
	const struct pf_tree_entry *e, int fd, const struct pf_file_born *born, struct pf_err *err)
{
	/* Owner before mode (chown clears setuid), both before attributes (chown clears capabilities). */
	if (!(born && e->uid == born->uid && e->gid == born->gid) && fchown(fd, e->uid, e->gid) < 0)
		return pf_fail(err, errno, "chown");
	if (!born_with(born, e->mode) && fchmod(fd, e->mode) < 0)
		return pf_fail(err, errno, "chmod");
	for (size_t i = 0; i < e->n_xattrs; i++)
		if ((e->type != PF_TREE_DIR || strcmp(e->xattrs[i].name, PF_FILE_INHERITED_ACL) != 0) &&
			fsetxattr(fd, e->xattrs[i].name, e->xattrs[i].value, e->xattrs[i].len, 0) < 0)
			return pf_fail(err, errno, "set attribute %s", e->xattrs[i].name);
	return 0;
}

static int create(const struct pf_file_todo *t, mode_t mode, struct pf_err *err)
{
	int fd = openat(
		t->dirfd, t->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, mode);

	return fd < 0 ? pf_fail(err, errno, "create") : fd;
}

/* All but the data. */
static int complete(const struct pf_file_todo *t, int fd, const struct pf_file_born *born, struct pf_err *err)
{
	const struct timespec times[2] = {t->e.mtime, t->e.mtime};
	const struct pf_extent *last = t->e.n_extents ? &t->e.extents[t->e.n_extents - 1] : NULL;

	if (t->e.size > 0 && (!last || last->off + last->len != t->e.size) && ftruncate(fd, t->e.size) < 0)
		return pf_fail(err, errno, "set the size");
	if (pf_file_set_meta(&t->e, fd, born, err) < 0)
		return -1;
	return futimens(fd, times) < 0 ? pf_fail(err, errno, "set the time") : 0;
}

/* ---- data ---- */

/* Where in a file a byte of its data goes. */
struct place {
	size_t extent;
	int64_t in_extent;
};

static struct place place_of(const struct pf_tree_entry *e, int64_t data)
{
	struct place p = {0, data};

	while (p.extent < e->n_extents && p.in_extent >= e->extents[p.extent].len)
		p.in_extent -= e->extents[p.extent++].len;
	return p;
}

/* Write data where it belongs, from a place on. */
static int write_data(const struct pf_tree_entry *e, struct place *p, int fd, const uint8_t *data, size_t len,
	struct pf_err *err)
{
	while (len > 0) {
		const struct pf_extent *x = &e->extents[p->extent];
		size_t n = (int64_t)len > x->len - p->in_extent ? (size_t)(x->len - p->in_extent) : len;
		if (pf_pwrite_all(fd, data, n, x->off + p->in_extent) < 0)
			return pf_fail(err, errno, "write");
		data += n;
		len -= n;
		p->in_extent += (int64_t)n;
		if (p->in_extent == x->len)
			*p = (struct place){p->extent + 1, 0};
	}
	return 0;
}

/* The careful way: each chunk compared with its id, and the sum at the end. */
static int write_carefully(struct pf_file_maker *m, const struct pf_file_todo *t, int fd, struct pf_err *err)
{
	struct place p = {0, 0};
	uint8_t sum[32];

	m->have_scratch = false;
	pf_filesum_begin(m->sum, t->version);
	for (size_t i = 0; i < t->n_refs; i++) {
		struct pf_chunk_id id;
		memcpy(id.b, t->refs[i].id, sizeof(id.b));
		for (uint32_t done = 0; done < t->refs[i].len;) {
			size_t n = t->refs[i].len - done < PIECE ? t->refs[i].len - done : PIECE;
			if (pf_packs_read(m->packs, &id, t->refs[i].off + done, m->scratch, n, err) < 0)
				return -1;
			pf_filesum_add(m->sum, m->scratch, n);
			if (write_data(&t->e, &p, fd, m->scratch, n, err) < 0)
				return -1;
			done += (uint32_t)n;
		}
	}
	pf_filesum_end(m->sum, sum);
	return t->e.n_extents == 0 || memcmp(sum, t->e.sum, sizeof(sum)) == 0
		       ? 0
		       : pf_fail_kind(err, PF_ERR_CORRUPT, 0, "its data is not what the tree says");
}

/* len bytes from offset of a chunk, not compared with its id. False: not to be had so. */
static bool fetch(struct pf_file_maker *m, const struct pf_ref *ref, uint32_t off, size_t len, uint8_t *to)
{
	struct pf_err ignored = PF_ERR_INIT;
	struct pf_chunk_id id;
	uint32_t all;

	memcpy(id.b, ref->id, sizeof(id.b));
	if (!pf_packs_has(m->packs, &id, &all) || off > all || len > all - off)
		return false;
	if (len == all)
		return pf_packs_fetch(m->packs, &id, all, to, &ignored) == 0;
	if (!m->have_scratch || memcmp(&id, &m->scratch_id, sizeof(id)) != 0) {
		m->have_scratch = pf_packs_fetch(m->packs, &id, all, m->scratch, &ignored) == 0;
		m->scratch_id = id;
	}
	if (m->have_scratch)
		memcpy(to, m->scratch + off, len);
	return m->have_scratch;
}

static void add_job(struct pf_file_maker *m, const uint8_t *data, size_t len, uint8_t *out)
{
	if (m->n_jobs == m->cap_jobs) {
		m->cap_jobs = m->cap_jobs ? m->cap_jobs * 2 : 256;
		void *v = realloc(m->jobs, m->cap_jobs * sizeof(*m->jobs));
		if (!v)
			abort();
		m->jobs = v;
	}
	m->jobs[m->n_jobs++] = (struct pf_hash_job){data, len, out};
}

static void run_jobs(struct pf_file_maker *m)
{
	pf_sha256_many(m->jobs, m->n_jobs);
	m->n_jobs = 0;
}

static void add_blocks(struct pf_file_maker *m, const uint8_t *data, size_t len, uint8_t (*out)[32])
{
	for (size_t at = 0; at < len; at += PF_FILESUM_BLOCK, out++)
		add_job(m, data + at, len - at < PF_FILESUM_BLOCK ? len - at : PF_FILESUM_BLOCK, *out);
}

static size_t blocks_of(int64_t len)
{
	return (size_t)((len + (int64_t)PF_FILESUM_BLOCK - 1) / (int64_t)PF_FILESUM_BLOCK);
}

/* ---- groups ---- */

static int make_member(struct pf_file_maker *m, const struct member *g, struct pf_err *err)
{
	const struct pf_tree_entry *e = &g->t->e;
	bool good = e->n_extents == 0 || (!g->careful && memcmp(g->sum, e->sum, sizeof(g->sum)) == 0);
	const struct pf_file_born *born = born_in(m->born, g->t);
	PF_CLOSE int fd = create(g->t, born_with(born, e->mode) ? e->mode : 0600, err);
	struct place p = {0, 0};

	if (fd < 0)
		return -1;
	if (good && e->n_extents > 0 && write_data(e, &p, fd, g->data, (size_t)e->data_bytes, err) < 0)
		return -1;
	if (!good && write_carefully(m, g->t, fd, err) < 0)
		return -1;
	return complete(g->t, fd, born, err);
}

static void sum_group(struct pf_file_maker *m)
{
	for (size_t i = 0; i < m->n; i++) {
		struct member *g = &m->group[i];
		size_t len = (size_t)g->t->e.data_bytes;
		if (g->careful || len == 0)
			continue;
		if (g->t->version == 2 || len <= PF_FILESUM_BLOCK) {
			add_job(m, g->data, len, g->sum);
			continue;
		}
		g->blocks = m->blocks + m->n_blocks;
		m->n_blocks += blocks_of((int64_t)len);
		add_blocks(m, g->data, len, g->blocks);
	}
	run_jobs(m);
	for (size_t i = 0; i < m->n; i++)
		if (m->group[i].blocks)
			add_job(m, m->group[i].blocks[0], blocks_of(m->group[i].t->e.data_bytes) * 32,
				m->group[i].sum);
	run_jobs(m);
}

static void reset(struct pf_file_maker *m)
{
	m->n = m->n_blocks = m->used = m->n_jobs = 0;
	m->last = NULL;
}

static int end_group(struct pf_file_maker *m, struct pf_err *err)
{
	int r = 0;

	sum_group(m);
	for (size_t i = 0; r == 0 && i < m->n; i++)
		if (make_member(m, &m->group[i], err) < 0)
			r = pf_wrap(err, "/%s", m->group[i].t->path);
	reset(m);
	return r;
}

/* The data of a file that is one piece of a chunk, where the chunk lies. */
static const uint8_t *in_chunk(struct pf_file_maker *m, const struct pf_ref *ref, uint32_t all)
{
	struct pf_err ignored = PF_ERR_INIT;
	struct pf_chunk_id id;

	memcpy(id.b, ref->id, sizeof(id.b));
	if (!m->last || memcmp(&id, &m->last_id, sizeof(id)) != 0) {
		m->last = NULL;
		if (pf_packs_fetch(m->packs, &id, all, m->slab + m->used, &ignored) < 0)
			return NULL;
		m->last = m->slab + m->used;
		m->last_id = id;
		m->used += all;
	}
	return m->last + ref->off;
}

/* What a file takes of the slab. */
static size_t needs(const struct pf_file_maker *m, const struct pf_file_todo *t, uint32_t *chunk)
{
	struct pf_chunk_id id;

	*chunk = 0;
	if (t->n_refs != 1)
		return (size_t)t->e.data_bytes;
	memcpy(id.b, t->refs[0].id, sizeof(id.b));
	if (!pf_packs_has(m->packs, &id, chunk) || t->refs[0].off > *chunk ||
		t->refs[0].len > *chunk - t->refs[0].off)
		*chunk = 0;
	return *chunk;
}

static int add_member(struct pf_file_maker *m, const struct pf_file_todo *t, struct pf_err *err)
{
	uint32_t chunk;
	size_t need = needs(m, t, &chunk);

	if ((m->n == GROUP || m->used + need > SLAB) && end_group(m, err) < 0)
		return -1;
	struct member *g = &m->group[m->n++];
	*g = (struct member){.t = t};
	if (t->e.n_extents == 0)
		return 0;
	if (t->n_refs == 1) {
		g->data = chunk ? in_chunk(m, &t->refs[0], chunk) : NULL;
		g->careful = !g->data;
		return 0;
	}
	uint8_t *to = m->slab + m->used;
	g->data = to;
	m->used += need;
	for (size_t i = 0; i < t->n_refs && !g->careful; i++) {
		g->careful = !fetch(m, &t->refs[i], t->refs[i].off, t->refs[i].len, to);
		to += t->refs[i].len;
	}
	return 0;
}

static int make_alone(struct pf_file_maker *m, const struct pf_file_todo *t, struct pf_err *err)
{
	struct pf_big_file *b = pf_big_file_begin(t, err);
	int r = b ? 0 : -1;

	for (size_t i = 0; r == 0 && i < pf_big_file_parts(b); i++)
		r = pf_big_file_part(m, b, i, err);
	pf_big_file_free(b);
	return r;
}

static int make_files(struct pf_file_maker *m, const struct pf_file_todo *v, size_t n, struct pf_err *err)
{
	for (size_t i = 0; i < n; i++) {
		if (!pf_file_is_big(&v[i])) {
			if (add_member(m, &v[i], err) < 0)
				return -1;
		} else if (end_group(m, err) < 0 || make_alone(m, &v[i], err) < 0) {
			return -1;
		}
	}
	return end_group(m, err);
}

int pf_files_make(struct pf_file_maker *m, const struct pf_file_todo *v, size_t n, struct pf_err *err)
{
	reset(m);
	return make_files(m, v, n, err);
}

/* ---- in parts ---- */

struct pf_big_file {
	struct pf_file_todo t;
	int fd;
	size_t parts, left; /* left: atomically */
	bool careful;       /* atomically: a part could not be written the quick way */
	uint8_t (*blocks)[32];
};

bool pf_file_is_big(const struct pf_file_todo *t)
{
	return t->e.data_bytes > PF_FILE_PART;
}

struct pf_big_file *pf_big_file_begin(const struct pf_file_todo *t, struct pf_err *err)
{
	int fd = create(t, 0600, err);

	if (fd < 0) {
		pf_wrap(err, "/%s", t->path);
		return NULL;
	}
	struct pf_big_file *b = pf_calloc(1, sizeof(*b));
	b->t = *t;
	b->fd = fd;
	b->careful = t->version == 2; /* its sum is not made of blocks */
	b->parts = b->careful ? 1 : (size_t)((t->e.data_bytes + PF_FILE_PART - 1) / PF_FILE_PART);
	b->left = b->parts;
	b->blocks = b->careful ? NULL : pf_calloc(blocks_of(t->e.data_bytes), sizeof(*b->blocks));
	return b;
}

size_t pf_big_file_parts(const struct pf_big_file *b)
{
	return b->parts;
}

void pf_big_file_free(struct pf_big_file *b)
{
	if (!b)
		return;
	close(b->fd);
	free(b->blocks);
	free(b);
}

/* The data from..from + len of the file into the slab. */
static bool fetch_part(struct pf_file_maker *m, const struct pf_file_todo *t, int64_t from, size_t len)
{
	uint8_t *to = m->slab;
	size_t i = 0;

	for (; i < t->n_refs && from >= t->refs[i].len; i++)
		from -= t->refs[i].len;
	for (; len > 0; i++, from = 0) {
		size_t n = t->refs[i].len - (size_t)from;
		n = n < len ? n : len;
		if (!fetch(m, &t->refs[i], t->refs[i].off + (uint32_t)from, n, to))
			return false;
		to += n;
		len -= n;
	}
	return true;
}

static int write_part(struct pf_file_maker *m, struct pf_big_file *b, size_t part, struct pf_err *err)
{
	int64_t from = (int64_t)part * PF_FILE_PART, left = b->t.e.data_bytes - from;
	size_t len = (size_t)(left < PF_FILE_PART ? left : PF_FILE_PART);
	struct place p = place_of(&b->t.e, from);

	if (__atomic_load_n(&b->careful, __ATOMIC_RELAXED))
		return 0;
	if (!fetch_part(m, &b->t, from, len)) {
		__atomic_store_n(&b->careful, true, __ATOMIC_RELAXED);
		return 0;
	}
	add_blocks(m, m->slab, len, b->blocks + from / (int64_t)PF_FILESUM_BLOCK);
	run_jobs(m);
	return write_data(&b->t.e, &p, b->fd, m->slab, len, err);
}

static int end_big(struct pf_file_maker *m, struct pf_big_file *b, struct pf_err *err)
{
	uint8_t sum[32] = {0};

	if (!b->careful) {
		add_job(m, b->blocks[0], blocks_of(b->t.e.data_bytes) * 32, sum);
		run_jobs(m);
		b->careful = memcmp(sum, b->t.e.sum, sizeof(sum)) != 0;
	}
	if (b->careful && write_carefully(m, &b->t, b->fd, err) < 0)
		return -1;
	return complete(&b->t, b->fd, NULL, err);
}

int pf_big_file_part(struct pf_file_maker *m, struct pf_big_file *b, size_t part, struct pf_err *err)
{
	int r = write_part(m, b, part, err);

	if (__atomic_sub_fetch(&b->left, 1, __ATOMIC_ACQ_REL) == 0 && r == 0)
		r = end_big(m, b, err);
	return r < 0 ? pf_wrap(err, "/%s", b->t.path) : 0;
}
