/* Theory of operation: pruning.
 *
 * One pass over the index from its newest end, under the store's lock, so that "the newest five" are the same
 * five for everybody; then one new index, then one collection. A checkpoint's last use is the time of its
 * manifest's file: it is set when the checkpoint is made or taken in, and again by `create --from`. A store
 * that was copied without its times is all new, so that what is wrong keeps too much rather than too little.
 *
 * Logical size: a layer's files are only counted when it is packed, so each checkpoint's record has those of
 * its topmost layer, and the ones below are found by the layers' digests in the records of others. */
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

void pf_ckpt_mark_used(const char *store, const struct pf_digest *digest)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_CLOSE int fd = pf_ckpt_store_open(store, false, &ignored);
	char path[96];

	if (fd >= 0)
		(void)utimensat(fd, pf_ckpt_blob_path(digest, path), NULL, AT_SYMLINK_NOFOLLOW);
}

int64_t pf_ckpt_last_used(int storefd, const struct pf_digest *digest)
{
	struct stat st;
	char path[96];

	return fstatat(storefd, pf_ckpt_blob_path(digest, path), &st, AT_SYMLINK_NOFOLLOW) < 0
		       ? 0
		       : st.st_mtim.tv_sec;
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
			cJSON_Delete(cJSON_DetachItemViaPointer(
				cJSON_GetObjectItemCaseSensitive(index, "manifests"),
				pf_ckpt_index_find(index, p->v[i].digest.s, NULL)));
	return pf_ckpt_index_write(storefd, index, err);
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
	PF_CLOSE int storefd = pf_ckpt_store_open(store, false, err);
	PF_CLOSE int lock = -1;

	*out = (struct pf_ckpt_prune){0};
	if (storefd < 0)
		return err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	lock = pf_ckpt_lock(storefd, err);
	if (lock < 0)
		return -1;
	int r = choose(storefd, rules, out, err);
	if (r == 0 && out->removed > 0 && !rules->dry_run) {
		r = remove_entries(storefd, out, err);
		if (r == 0)
			r = pf_ckpt_gc_locked(storefd, &out->gc, err);
	}
	if (r < 0)
		pf_ckpt_prune_done(out);
	return r;
}

/* ---- totals ---- */

struct layer_sum {
	const char *digest;
	int64_t size, files; /* files: bytes of the files in it, 0 when nobody recorded them */
	int64_t users;
};

static struct layer_sum *layer(struct layer_sum *v, size_t *n, const char *digest)
{
	for (size_t i = 0; i < *n; i++)
		if (strcmp(v[i].digest, digest) == 0)
			return &v[i];
	v[*n] = (struct layer_sum){.digest = digest};
	return &v[(*n)++];
}

static int64_t own_files(const struct pf_ckpt *c)
{
	const cJSON *b = cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(c->record, "stats"), "bytes");

	return cJSON_IsNumber(b) ? (int64_t)b->valuedouble : 0;
}

int pf_ckpt_totals(const char *store, struct pf_ckpt_totals *t, struct pf_err *err)
{
	PF_CLOSE int storefd = pf_ckpt_store_open(store, false, err);
	struct pf_ckpt *v = NULL;
	size_t n = 0, all = 0, n_layers = 0;

	*t = (struct pf_ckpt_totals){0};
	if (storefd < 0)
		return err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	if (pf_ckpt_list(storefd, &v, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		all += v[i].n_layers;
	PF_FREE struct layer_sum *layers = pf_calloc(all + 1, sizeof(*layers));
	for (size_t i = 0; i < n; i++) {
		t->checkpoints++;
		t->damaged += !v[i].record;
		t->stored += v[i].manifest_size + v[i].config_size;
		t->separate += v[i].manifest_size + v[i].config_size;
		for (size_t l = 0; l < v[i].n_layers; l++) {
			struct layer_sum *s = layer(layers, &n_layers, v[i].layers[l].digest.s);
			s->size = v[i].layers[l].size;
			s->users++;
			t->separate += s->size;
			if (l == 0)
				s->files = own_files(&v[i]);
		}
	}
	for (size_t i = 0; i < n; i++)
		for (size_t l = 0; l < v[i].n_layers; l++)
			t->logical += layer(layers, &n_layers, v[i].layers[l].digest.s)->files;
	for (size_t i = 0; i < n_layers; i++) {
		t->layers++;
		t->shared_layers += layers[i].users > 1;
		t->stored += layers[i].size;
	}
	pf_ckpt_list_free(v, n);
	return 0;
}
