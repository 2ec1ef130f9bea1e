/* Theory of operation: giving back what no checkpoint needs.
 *
 *   1. Each chunk is asked for once. Where a live chunk lies in several packs, the copy in the pack that has
 * the most live data stays and the others are dead, but only after that copy was read and found good.
 *   2. Packs with nothing live go first, so that a full file system has room for the rest.
 *   3. Packs with much that is dead, and small ones, are put together: their live frames are read, compared
 * with their ids, and written to new packs as they are (sealed ones under new keys). A pack in which a live
 * chunk cannot be read stays whole: what is left of it may be wanted.
 *   4. The new packs are published (durable), and only then the old ones go: index, pack, key.
 *
 * Killed anywhere, every live chunk is in at least one published pack; the rest is swept the next time. */
#include "checkpoint/packs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "checkpoint/packs_int.h"

#define DEFAULT_WASTE 25
#define DEFAULT_SMALL ((int64_t)8 << 20)

/* What becomes of one pack. */
struct fate {
	struct pf_pack *k;
	uint8_t *live; /* a byte for each entry */
	uint32_t live_chunks;
	uint64_t live_bytes; /* of frames */
	bool rewrite, remove;
};

struct sweep {
	struct pf_packs *p;
	struct fate *fates; /* as p->packs, those that can be read */
	size_t *order;      /* packs, most live data first */
	struct pf_packs_swept *stats;
	int64_t small;
	unsigned waste;
};

static void sweep_cleanup(struct sweep *w)
{
	for (size_t i = 0; w->fates && i < w->p->n_packs; i++)
		free(w->fates[i].live);
	free(w->fates);
	free(w->order);
}

static struct fate *sort_fates; /* qsort has no context, and sweeping is done by one thread of a process */

static int by_live(const void *a, const void *b)
{
	uint64_t x = sort_fates[*(const size_t *)a].live_bytes, y = sort_fates[*(const size_t *)b].live_bytes;

	return x > y ? -1 : x < y;
}

static int ask(
	struct sweep *w, bool (*live)(void *ctx, const struct pf_chunk_id *id), void *ctx, struct pf_err *err)
{
	struct pf_packs *p = w->p;

	for (size_t i = 0; i < p->n_packs; i++) {
		struct fate *f = &w->fates[i];
		f->k = &p->packs[i];
		w->order[i] = i;
		if (!f->k->readable)
			continue;
		f->live = calloc((size_t)f->k->x.count + 1, 1);
		if (!f->live)
			return pf_fail(err, ENOMEM, "sweeping packs");
		for (uint32_t j = 0; j < f->k->x.count; j++) {
			f->live[j] = live(ctx, &f->k->x.entries[j].id);
			f->live_chunks += f->live[j];
			f->live_bytes += f->live[j] ? f->k->x.entries[j].stored : 0;
		}
	}
	if (p->n_packs) {
		sort_fates = w->fates;
		qsort(w->order, p->n_packs, sizeof(*w->order), by_live);
	}
	return 0;
}

static bool good_copy(
	struct pf_packs *p, struct pf_pack *k, const struct pf_pack_entry *e, struct pf_scratch *s)
{
	struct pf_err ignored = PF_ERR_INIT;
	const uint8_t *frame;
	size_t len;

	return pf_pack_frame(p, k, e, s, &frame, &len, &ignored) == 0 &&
	       pf_pack_expand(p, e, s, frame, len, s->chunk, &ignored) == 0;
}

/* The copy of f's entry j stays: the others die, if it is any good and they have not been looked at yet (rank
 * is the position of each pack in the order). */
static void claim(struct sweep *w, struct fate *f, uint32_t j, const size_t *rank, struct pf_scratch *s)
{
	const struct pf_pack_entry *e = &f->k->x.entries[j];
	uint32_t pack, entry;
	bool checked = false;
	size_t at = 0, mine = rank[f - w->fates];

	while (pf_packs_find(w->p, &e->id, &at, &pack, &entry)) {
		struct fate *other = &w->fates[pack];
		if (rank[pack] <= mine || !other->live[entry])
			continue;
		if (!checked && !good_copy(w->p, f->k, e, s))
			return;
		checked = true;
		other->live[entry] = 0;
		other->live_chunks--;
		other->live_bytes -= other->k->x.entries[entry].stored;
	}
}

static int drop_copies(struct sweep *w, struct pf_err *err)
{
	PF_FREE size_t *rank = calloc(w->p->n_packs + 1, sizeof(*rank));
	struct pf_scratch *s = pf_scratch_take(w->p, err);

	if (!rank || !s) {
		pf_scratch_give(w->p, s);
		return rank ? -1 : pf_fail(err, ENOMEM, "sweeping packs");
	}
	for (size_t i = 0; i < w->p->n_packs; i++)
		rank[w->order[i]] = i;
	for (size_t i = 0; i < w->p->n_packs; i++) {
		struct fate *f = &w->fates[w->order[i]];
		for (uint32_t j = 0; f->live && j < f->k->x.count; j++)
			if (f->live[j])
				claim(w, f, j, rank, s);
	}
	pf_scratch_give(w->p, s);
	return 0;
}

static void decide(struct sweep *w)
{
	size_t n_small = 0;

	for (size_t i = 0; i < w->p->n_packs; i++) {
		struct fate *f = &w->fates[i];
		uint64_t data;
		if (!f->live)
			continue;
		data = f->k->x.data_end - PF_PACK_HEAD;
		f->remove = f->live_chunks == 0;
		f->rewrite = !f->remove && w->waste < 100 &&
			     (data - f->live_bytes) * 100 >= data * w->waste && f->live_bytes < data;
		n_small += !f->remove && !f->rewrite && (int64_t)data < w->small;
	}
	if (n_small < 2 || w->waste >= 100)
		return;
	for (size_t i = 0; i < w->p->n_packs; i++) {
		struct fate *f = &w->fates[i];
		if (f->live && !f->remove && (int64_t)(f->k->x.data_end - PF_PACK_HEAD) < w->small)
			f->rewrite = true;
	}
}

static int unlink_part(int dirfd, const char *name, const char *suffix, struct pf_err *err)
{
	PF_FREE char *file = pf_asprintf("%s%s", name, suffix);

	if (unlinkat(dirfd, file, 0) < 0 && errno != ENOENT)
		return pf_fail(err, errno, "removing pack %s", file);
	return 0;
}

/* Index first: a pack without one is still a pack, an index without its pack would be damage. */
static int remove_pack(struct sweep *w, const struct fate *f, struct pf_err *err)
{
	const char *name = f->k->files.name;

	if (unlink_part(w->p->dirfd, name, ".idx", err) < 0 ||
		unlink_part(w->p->dirfd, name, ".pack", err) < 0 ||
		unlink_part(w->p->dirfd, name, ".key", err) < 0)
		return -1;
	w->stats->packs_removed++;
	w->stats->bytes_freed += (int64_t)f->k->file_bytes;
	return 0;
}

static int remove_marked(struct sweep *w, struct pf_err *err)
{
	bool any = false;

	for (size_t i = 0; i < w->p->n_packs; i++) {
		if (!w->fates[i].remove)
			continue;
		if (remove_pack(w, &w->fates[i], err) < 0)
			return -1;
		w->fates[i].remove = false;
		any = true;
	}
	return any ? pf_sync_dir(w->p->dirfd, err) : 0;
}

/* Copy what lives in a pack. 1: a chunk of it cannot be read. */
static int copy_pack(struct sweep *w, const struct fate *f, struct pf_packs_writer *to, struct pf_scratch *s,
	struct pf_err *err)
{
	for (uint32_t j = 0; j < f->k->x.count; j++) {
		const struct pf_pack_entry *e = &f->k->x.entries[j];
		struct pf_err what = PF_ERR_INIT;
		const uint8_t *frame;
		size_t len;
		if (!f->live[j])
			continue;
		if (pf_pack_frame(w->p, f->k, e, s, &frame, &len, &what) < 0 ||
			pf_pack_expand(w->p, e, s, frame, len, s->chunk, &what) < 0)
			return 1;
		if (pf_packs_put_frame(to, e, frame, len, err) < 0)
			return -1;
	}
	return 0;
}

static int copy_all(struct sweep *w, struct pf_packs_writer *to, struct pf_err *err)
{
	struct pf_scratch *s = pf_scratch_take(w->p, err);
	int r = s ? 0 : -1;

	for (size_t i = 0; r >= 0 && i < w->p->n_packs; i++) {
		struct fate *f = &w->fates[i];
		if (!f->rewrite)
			continue;
		r = copy_pack(w, f, to, s, err);
		f->remove = r == 0;
		w->stats->packs_damaged += r == 1;
	}
	pf_scratch_give(w->p, s);
	return r < 0 ? -1 : 0;
}

static int rewrite(struct sweep *w, int tmpfd, struct pf_err *err)
{
	const struct pf_packs_writer_opts opts = {.threads = 1};
	struct pf_packs_written written;
	struct pf_packs_writer *to = NULL;
	bool any = false;
	int r;

	for (size_t i = 0; i < w->p->n_packs; i++)
		any |= w->fates[i].rewrite;
	if (!any)
		return 0;
	if (pf_packs_writer_new(w->p, tmpfd, &opts, &to, err) < 0)
		return -1;
	r = copy_all(w, to, err);
	if (r == 0)
		r = pf_packs_finish(to, &written, err);
	pf_packs_writer_free(to);
	if (r < 0 || pf_packs_publish(w->p->storefd, tmpfd, err) < 0)
		return -1;
	w->stats->packs_written = written.packs;
	w->stats->bytes_freed -= written.stored_bytes;
	return remove_marked(w, err);
}

/* Keys whose packs never arrived. */
static int remove_stray_keys(struct sweep *w, struct pf_err *err)
{
	PF_FREE struct pf_pack_files *files = NULL;
	size_t n = 0;

	if (pf_pack_scan(w->p->dirfd, &files, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (files[i].key && !files[i].pack && !files[i].idx &&
			unlink_part(w->p->dirfd, files[i].name, ".key", err) < 0)
			return -1;
	return 0;
}

int pf_packs_sweep(struct pf_packs *p, int tmpfd, bool (*live)(void *ctx, const struct pf_chunk_id *id),
	void *ctx, const struct pf_packs_sweep_opts *opts, struct pf_packs_swept *stats, struct pf_err *err)
{
	__attribute__((cleanup(sweep_cleanup))) struct sweep w = {.p = p,
		.stats = stats,
		.small = opts->small ? opts->small : DEFAULT_SMALL,
		.waste = opts->waste_percent ? opts->waste_percent : DEFAULT_WASTE};

	memset(stats, 0, sizeof(*stats));
	if (p->dirfd < 0)
		return 0;
	w.fates = calloc(p->n_packs + 1, sizeof(*w.fates));
	w.order = calloc(p->n_packs + 1, sizeof(*w.order));
	if (!w.fates || !w.order)
		return pf_fail(err, ENOMEM, "sweeping packs");
	if (ask(&w, live, ctx, err) < 0 || drop_copies(&w, err) < 0)
		return -1;
	decide(&w);
	for (size_t i = 0; i < p->n_packs; i++) {
		struct fate *f = &w.fates[i];
		if (f->remove)
			stats->chunks_removed += f->k->x.count - f->live_chunks;
		else if (f->rewrite)
			stats->chunks_waiting += f->k->x.count - f->live_chunks;
		if (opts->dry_run && f->remove) {
			stats->packs_removed++;
			stats->bytes_freed += (int64_t)f->k->file_bytes;
		}
	}
	if (!opts->dry_run) {
		if (remove_stray_keys(&w, err) < 0 || remove_marked(&w, err) < 0)
			return -1;
		stats->removed = true;
		if (rewrite(&w, tmpfd, err) < 0)
			return -1;
	}
	stats->chunks_removed += stats->chunks_waiting;
	stats->chunks_waiting = 0;
	return 0;
}
