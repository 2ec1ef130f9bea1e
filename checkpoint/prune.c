/* Theory of operation: pruning.
 *
 * One pass over the index from its newest end, under the store's lock, so that "the newest five" are the same
 * five for everybody; then one new index, then one collection. When a checkpoint was
 * used last is said by used.c. */
#include "checkpoint/prune.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "checkpoint/packs.h"
#include "checkpoint/store.h"

void pf_ckpt_prune_done(struct pf_ckpt_prune *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free(p->v[i].name);
		free(p->v[i].sandbox_id);
	}
	free(p->v);
	*p = (struct pf_ckpt_prune){0};
}

/* ---- what is in use ---- */

struct in_use {
	struct pf_keep_item *v;
	size_t n;
};

static int mark_used(void *ctx, const char *sandbox, const char *digest, struct pf_err *err)
{
	struct in_use *u = ctx;

	(void)sandbox;
	(void)err;
	for (size_t i = 0; i < u->n; i++)
		u->v[i].used = u->v[i].used || strcmp(u->v[i].digest, digest) == 0;
	return 0;
}

/* ---- pruning ---- */

static int remove_entries(int storefd, const struct pf_ckpt_prune *p, struct pf_err *err)
{
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);

	if (!index)
		return -1;
	for (size_t i = 0; i < p->n; i++)
		if (!p->v[i].kept)
			pf_ckpt_index_remove(index, p->v[i].digest.s);
	return pf_ckpt_index_shrink(storefd, index, err);
}

static int choose(
	int storefd, const struct pf_ckpt_prune_rules *rules, struct pf_ckpt_prune *out, struct pf_err *err)
{
	struct pf_ckpt *v = NULL;
	size_t n = 0;

	if (pf_ckpt_list(storefd, &v, &n, err) < 0)
		return -1;
	PF_FREE struct pf_keep_item *items = pf_calloc(n + 1, sizeof(*items));
	PF_FREE const char **why = pf_calloc(n + 1, sizeof(*why));
	for (size_t i = 0; i < n; i++)
		items[i] = (struct pf_keep_item){.digest = v[i].digest.s,
			.sandbox_id = v[i].sandbox_id,
			.from = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v[i].record, "from")),
			.created = v[i].created,
			.labels = cJSON_GetObjectItemCaseSensitive(v[i].record, "labels"),
			.readable = v[i].record != NULL,
			.last_used = pf_ckpt_last_used(storefd, &v[i].digest)};
	struct in_use u = {items, n};
	int r = pf_ckpt_each_user(storefd, mark_used, &u, err);
	pf_keep_choose(items, n, rules, (int64_t)time(NULL), why);
	out->v = pf_calloc(n + 1, sizeof(*out->v));
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (why[i] && !*why[i])
			continue;
		struct pf_ckpt_prune_entry *e = &out->v[out->n++];
		e->digest = v[i].digest;
		e->name = pf_strdup(v[i].name);
		e->sandbox_id = pf_strdup(v[i].sandbox_id);
		e->kept = why[i];
		out->removed += !e->kept;
	}
	pf_ckpt_list_free(v, n);
	return r;
}

int pf_ckpt_prune(const char *store, const struct pf_ckpt_prune_rules *rules, struct pf_ckpt_prune *out,
	struct pf_err *err)
{
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	PF_CLOSE int lock = -1;

	*out = (struct pf_ckpt_prune){0};
	if (pf_ckpt_heavy_open(store, false, !rules->dry_run, &h, err) < 0)
		return err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	/* The index is replaced whole: nothing has to stand still to be looked at. */
	lock = rules->dry_run ? -1 : pf_ckpt_lock(h.storefd, err);
	if (lock < 0 && !rules->dry_run)
		return -1;
	int r = choose(h.storefd, rules, out, err);
	if (r == 0 && out->removed > 0 && !rules->dry_run) {
		r = remove_entries(h.storefd, out, err);
		if (r == 0)
			r = pf_ckpt_gc_locked(&h, false, &out->gc, err);
	}
	if (r < 0)
		pf_ckpt_prune_done(out);
	return r;
}

/* ---- totals ---- */

static int cmp_digest(const void *a, const void *b)
{
	return strcmp(((const struct pf_digest *)a)->s, ((const struct pf_digest *)b)->s);
}

/* Layers, each once, and how many of them are in more than one checkpoint. */
static void count_layers(struct pf_digest *v, size_t n, struct pf_ckpt_totals *t)
{
	if (n > 1)
		qsort(v, n, sizeof(*v), cmp_digest);
	for (size_t i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && strcmp(v[end].s, v[i].s) == 0;)
			end++;
		t->layers++;
		t->shared_layers += end - i > 1;
	}
}

/* p NULL: a domain that the store does not have, or whose key we have not. */
static void add_packs(const struct pf_packs *p, struct pf_ckpt_totals *t)
{
	struct pf_packs_totals packs;

	if (!p)
		return;
	pf_packs_totals(p, &packs);
	t->stored += packs.file_bytes;
	t->chunks += packs.chunks;
	t->chunk_bytes += packs.bytes;
}

int pf_ckpt_totals(const char *store, struct pf_ckpt_totals *t, struct pf_err *err)
{
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	struct pf_ckpt *v = NULL;
	size_t n = 0, all = 0, k = 0;

	*t = (struct pf_ckpt_totals){0};
	if (pf_ckpt_heavy_open(store, false, false, &h, err) < 0)
		return err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	if (pf_ckpt_list(h.storefd, &v, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		all += v[i].n_layers;
	PF_FREE struct pf_digest *layers = pf_calloc(all + 1, sizeof(*layers));
	for (size_t i = 0; i < n; i++) {
		t->checkpoints++;
		t->damaged += !v[i].record && !v[i].sealed;
		t->stored += v[i].manifest_size;
		for (size_t l = 0; l < v[i].n_layers; l++) {
			t->logical += v[i].layers[l].bytes;
			layers[k++] = v[i].layers[l].id;
		}
	}
	count_layers(layers, k, t);
	add_packs(h.packs, t);
	add_packs(h.sealed, t);
	pf_ckpt_list_free(v, n);
	return 0;
}
