/* Theory of operation: checking packs, and mending what has a second copy.
 *
 * Every byte of a pack is accounted for: its head is known in full, the frames follow each other without a
 * gap and each must give a chunk with the id that the index has for it, and what comes after them is a block
 * that must equal NAME.idx. Threads take packs one by one.
 *
 * The index exists twice, so either of its copies can be made from the other without any key, sealed or not:
 * the bytes are the same. A frame exists once; what is wrong with one can only be told. */
#include "checkpoint/packs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "checkpoint/packs_int.h"

#define CHECK_THREADS 4

struct check {
	struct pf_packs *p;
	pf_packs_found *found;
	void (*progress)(void *ctx, int64_t done, int64_t all);
	void *ctx;
	pthread_mutex_t lock; /* of all below, and around the callbacks */
	size_t next;          /* pack that nobody has yet */
	int64_t all;
	struct pf_packs_checked stats;
	bool failed;
	struct pf_err err;
};

static void tell(struct check *c, const struct pf_pack *k, const struct pf_chunk_id *id, const char *what)
{
	pthread_mutex_lock(&c->lock);
	c->stats.damaged++;
	if (c->found)
		c->found(c->ctx, k->files.name, id, what);
	pthread_mutex_unlock(&c->lock);
}

static void advance(struct check *c, int64_t bytes)
{
	pthread_mutex_lock(&c->lock);
	c->stats.bytes += bytes;
	if (c->progress)
		c->progress(c->ctx, c->stats.bytes, c->all);
	pthread_mutex_unlock(&c->lock);
}

static int by_offset(const void *a, const void *b)
{
	const struct pf_pack_entry *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int open_part(const struct pf_packs *p, const char *name, const char *suffix)
{
	char file[PF_PACK_NAME + 8];

	snprintf(file, sizeof(file), "%s%s", name, suffix);
	return openat(p->dirfd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

/* Head, footer and index, if there is one. */
static void check_form(struct check *c, const struct pf_pack *k)
{
	uint8_t head[PF_PACK_HEAD], right[PF_PACK_HEAD];
	struct pf_err err = PF_ERR_INIT;
	PF_CLOSE int fd = open_part(c->p, k->files.name, ".pack");
	PF_CLOSE int idx = -1;
	PF_FREE uint8_t *footer = NULL;
	PF_FREE uint8_t *block = NULL;
	uint64_t size = 0;
	size_t len = 0;
	uint8_t id[16];
	struct stat st;

	(void)pf_pack_name_to_id(k->files.name, id);
	pf_pack_head(id, k->key != NULL, right);
	if (fd < 0 || pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head)) {
		tell(c, k, NULL, "cannot be read");
		return;
	}
	if (memcmp(head, right, sizeof(head)) != 0)
		tell(c, k, NULL, "its first bytes are not a pack's");
	if (pf_pack_read_footer(fd, &footer, &len, &size, &err) < 0 ||
		pf_pack_block_check(footer, len, id, k->key != NULL, &err) < 0) {
		tell(c, k, NULL, err.msg);
		len = 0;
	}
	if (!k->files.idx)
		return;
	idx = open_part(c->p, k->files.name, ".idx");
	if (idx < 0 || fstat(idx, &st) < 0 || (len && (uint64_t)st.st_size != len) || !len) {
		if (len)
			tell(c, k, NULL, "its index file does not equal its footer");
		return;
	}
	block = malloc(len);
	if (!block || pf_read_full(idx, block, len) != (ssize_t)len || memcmp(block, footer, len) != 0)
		tell(c, k, NULL, "its index file does not equal its footer");
}

/* All frames, in the order in which they lie. -1 only when checking is not possible. */
static int check_frames(struct check *c, struct pf_pack *k, struct pf_err *err)
{
	PF_FREE struct pf_pack_entry *v = malloc(((size_t)k->x.count + 1) * sizeof(*v));
	struct pf_scratch *s = pf_scratch_take(c->p, err);
	uint64_t at = PF_PACK_HEAD;

	if (!v || !s) {
		pf_scratch_give(c->p, s);
		return v ? -1 : pf_fail(err, ENOMEM, "checking packs");
	}
	if (k->x.count) {
		memcpy(v, k->x.entries, k->x.count * sizeof(*v));
		qsort(v, k->x.count, sizeof(*v), by_offset);
	}
	for (uint32_t i = 0; i < k->x.count; i++) {
		const struct pf_pack_entry *e = &v[i];
		struct pf_err what = PF_ERR_INIT;
		const uint8_t *frame;
		size_t len;
		if (e->offset != at)
			tell(c, k, &e->id, "lies over another chunk, or behind a gap");
		at = (uint64_t)e->offset + e->stored;
		if (pf_pack_frame(c->p, k, e, s, &frame, &len, &what) < 0 ||
			pf_pack_expand(c->p, e, s, frame, len, s->chunk, &what) < 0)
			tell(c, k, &e->id, what.msg);
		advance(c, e->stored);
	}
	pf_scratch_give(c->p, s);
	pthread_mutex_lock(&c->lock);
	c->stats.chunks += k->x.count;
	pthread_mutex_unlock(&c->lock);
	return 0;
}

static int check_pack(struct check *c, struct pf_pack *k, struct pf_err *err)
{
	if (!k->readable) {
		tell(c, k, NULL, k->why);
		return 0;
	}
	check_form(c, k);
	if (!k->files.idx)
		tell(c, k, NULL, "it has no index file");
	return check_frames(c, k, err);
}

static void *check_main(void *arg)
{
	struct check *c = arg;

	pthread_mutex_lock(&c->lock);
	while (c->next < c->p->n_packs && !c->failed) {
		struct pf_pack *k = &c->p->packs[c->next++];
		struct pf_err err = PF_ERR_INIT;
		pthread_mutex_unlock(&c->lock);
		int r = check_pack(c, k, &err);
		pthread_mutex_lock(&c->lock);
		c->stats.packs++;
		if (r < 0 && !c->failed) {
			c->failed = true;
			c->err = err;
		}
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* An index without its pack: no order of ours, killed anywhere, leaves that. */
static int check_lost(struct check *c, struct pf_err *err)
{
	PF_FREE struct pf_pack_files *files = NULL;
	size_t n = 0;

	if (pf_pack_scan(c->p->dirfd, &files, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (files[i].idx && !files[i].pack && files[i].key == (c->p->seal != NULL)) {
			struct pf_pack k = {.files = files[i]};
			tell(c, &k, NULL, "the pack itself is missing");
		}
	}
	return 0;
}

int64_t pf_packs_verify_form(struct pf_packs *p, pf_packs_found *found, void *ctx)
{
	struct check c = {.p = p, .found = found, .ctx = ctx};

	pthread_mutex_init(&c.lock, NULL);
	for (size_t i = 0; i < p->n_packs; i++)
		if (p->packs[i].readable)
			check_form(&c, &p->packs[i]);
	pthread_mutex_destroy(&c.lock);
	return c.stats.damaged;
}

int pf_packs_verify(struct pf_packs *p, pf_packs_found *found,
	void (*progress)(void *ctx, int64_t done, int64_t all), void *ctx, struct pf_packs_checked *stats,
	struct pf_err *err)
{
	struct check c = {.p = p, .found = found, .progress = progress, .ctx = ctx};
	pthread_t threads[CHECK_THREADS];
	size_t started = 0;
	int r = 0;

	memset(stats, 0, sizeof(*stats));
	if (p->dirfd < 0)
		return 0;
	pthread_mutex_init(&c.lock, NULL);
	for (size_t i = 0; i < p->n_packs; i++)
		c.all += p->packs[i].readable ? (int64_t)(p->packs[i].x.data_end - PF_PACK_HEAD) : 0;
	r = check_lost(&c, err);
	while (r == 0 && started < CHECK_THREADS && started + 1 < p->n_packs &&
		pthread_create(&threads[started], NULL, check_main, &c) == 0)
		started++;
	if (r == 0)
		check_main(&c);
	while (started)
		pthread_join(threads[--started], NULL);
	pthread_mutex_destroy(&c.lock);
	if (r == 0 && c.failed) {
		*err = c.err;
		r = -1;
	}
	*stats = c.stats;
	return r;
}

/* ---- repair ------------------------------------------------------------------------------------------- */

struct repair {
	int dirfd;
	pf_packs_found *found;
	void *ctx;
	int64_t *repaired;
};

/* Put the block (from the index) behind the frames, where it was. The index stays until that is durable. */
static int rewrite_footer(
	int fd, const struct pf_pack_files *f, const uint8_t *block, size_t len, struct pf_err *err)
{
	uint64_t at = pf_pack_block_data_end(block);

	if (ftruncate(fd, (off_t)at) < 0 || lseek(fd, (off_t)at, SEEK_SET) < 0 ||
		pf_write_all(fd, block, len) < 0 || fsync(fd) < 0)
		return pf_fail(err, errno, "pack %s", f->name);
	return 0;
}

static int repair_head(
	int fd, const struct pf_pack_files *f, const uint8_t id[16], int64_t *repaired, struct pf_err *err)
{
	uint8_t head[PF_PACK_HEAD], right[PF_PACK_HEAD];

	pf_pack_head(id, f->key, right);
	if (pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
		memcmp(head, right, sizeof(head)) == 0)
		return 0;
	if (pwrite(fd, right, sizeof(right), 0) != (ssize_t)sizeof(right) || fsync(fd) < 0)
		return pf_fail(err, errno, "pack %s", f->name);
	++*repaired;
	return 0;
}

static int repair_one(struct repair *r, const struct pf_pack_files *f, struct pf_err *err)
{
	struct pf_err why = PF_ERR_INIT;
	char pack[PF_PACK_NAME + 8], idx[PF_PACK_NAME + 8];
	PF_FREE uint8_t *footer = NULL;
	PF_FREE char *index = NULL;
	size_t footer_len = 0, index_len = 0;
	uint64_t size = 0;
	uint8_t id[16];
	bool footer_ok, index_ok;
	PF_CLOSE int fd = -1;

	snprintf(pack, sizeof(pack), "%s.pack", f->name);
	snprintf(idx, sizeof(idx), "%s.idx", f->name);
	(void)pf_pack_name_to_id(f->name, id);
	fd = openat(r->dirfd, pack, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return pf_fail(err, errno, "pack %s", f->name);
	footer_ok = pf_pack_read_footer(fd, &footer, &footer_len, &size, &why) == 0 &&
		    pf_pack_block_check(footer, footer_len, id, f->key, &why) == 0;
	index_ok = f->idx &&
		   pf_read_file_at(r->dirfd, idx, PF_PACK_MAX_BLOCK, &index, &index_len, &why) == 0 &&
		   pf_pack_block_check((uint8_t *)index, index_len, id, f->key, &why) == 0;
	if (!footer_ok && !index_ok) {
		if (r->found)
			r->found(r->ctx, f->name, NULL, why.msg);
		return 0;
	}
	if (repair_head(fd, f, id, r->repaired, err) < 0)
		return -1;
	if (footer_ok && (!index_ok || index_len != footer_len || memcmp(index, footer, footer_len) != 0)) {
		if (pf_replace_file_at(r->dirfd, idx, footer, footer_len, 0600, true, err) < 0)
			return -1;
		++*r->repaired;
	} else if (!footer_ok && size >= pf_pack_block_data_end((uint8_t *)index)) {
		if (rewrite_footer(fd, f, (uint8_t *)index, index_len, err) < 0)
			return -1;
		++*r->repaired;
	} else if (!footer_ok && r->found) {
		r->found(r->ctx, f->name, NULL, "frames at its end are missing");
	}
	return 0;
}

int pf_packs_repair(int storefd, pf_packs_found *found, void *ctx, int64_t *repaired, struct pf_err *err)
{
	struct pf_err dir_err = PF_ERR_INIT;
	PF_FREE struct pf_pack_files *files = NULL;
	PF_CLOSE int dirfd = pf_pack_dir(storefd, &dir_err);
	struct repair r = {.dirfd = dirfd, .found = found, .ctx = ctx, .repaired = repaired};
	size_t n = 0;

	*repaired = 0;
	if (dirfd < 0) {
		if (dir_err.errnum == ENOENT)
			return 0;
		*err = dir_err;
		return -1;
	}
	if (pf_pack_scan(dirfd, &files, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (files[i].pack && repair_one(&r, &files[i], err) < 0)
			return -1;
		if (files[i].idx && !files[i].pack && found)
			found(ctx, files[i].name, NULL, "the pack itself is missing");
	}
	return 0;
}
