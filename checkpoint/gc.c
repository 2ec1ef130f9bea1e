/* Theory of operation: mark and sweep, in two steps, under packs.lock (exclusive: nobody reads or adds
 * chunks) and the store's lock.
 *
 * First documents. Roots are the index and the sandboxes that were created from a checkpoint (they stand on
 * its unpacked layers even after it was removed by force); they lead to manifests, these to layers. A root
 * that cannot be read might have needed anything, so then no document and no chunk is removed.
 *
 * Then chunks: those of the trees and maps of the layers that are left, and those that the maps name. Again,
 * a layer that cannot be read keeps all. The sealed domain is swept by somebody who has its key; by everybody
 * when no sealed layer is left, because then all of it goes. */
#include "checkpoint/gc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "checkpoint/layer.h"
#include "checkpoint/packs.h"
#include "checkpoint/seal.h"
#include "checkpoint/store.h"

/* Names of files that stay: HEX or HEX.sealed. Manifests and layers share it, equal hashes mean equal
 * content. */
struct keep {
	char (*v)[80];
	size_t n, cap;
};

static void keep_add(struct keep *k, const char *name)
{
	if (k->n == k->cap) {
		k->cap = k->cap ? k->cap * 2 : 64;
		void *v = realloc(k->v, k->cap * sizeof(*k->v));
		if (!v)
			abort();
		k->v = v;
	}
	snprintf(k->v[k->n++], sizeof(*k->v), "%s", name);
}

static int cmp_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

static bool kept(const struct keep *k, const char *name)
{
	return k->n > 0 && bsearch(name, k->v, k->n, sizeof(*k->v), cmp_name);
}

/* A layer that the store has twice is needed once: in clear by a checkpoint in clear, sealed by a sealed one,
 * which would else stay in clear for good. Where it is there in the other form alone, that is the one. */
static void keep_layer(struct keep *k, int storefd, const struct pf_digest *id, bool sealed)
{
	char path[96];
	struct stat st;

	keep_add(k, pf_ckpt_layer_path(id, sealed, path) + strlen("layers/"));
	if (fstatat(storefd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		keep_add(k, pf_ckpt_layer_path(id, !sealed, path) + strlen("layers/"));
}

static void keep_checkpoint(struct keep *k, int storefd, const struct pf_ckpt *c)
{
	keep_add(k, pf_digest_hex(&c->digest));
	for (size_t i = 0; i < c->n_layers; i++)
		keep_layer(k, storefd, &c->layers[i].id, c->sealed);
}

int pf_ckpt_each_user(int storefd,
	int (*fn)(void *ctx, const char *sandbox, const char *digest, struct pf_err *err), void *ctx,
	struct pf_err *err)
{
	PF_CLOSE int fd = openat(storefd, "../sandboxes", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = NULL;
	struct dirent *e;

	if (fd < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "sandboxes");
	if (!(d = fdopendir(fd)))
		return pf_fail(err, errno, "sandboxes");
	int dfd = pf_take_fd(&fd);
	while ((errno = 0, e = readdir(d))) {
		char path[300];
		PF_FREE char *text = NULL;
		size_t len;
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/sandbox.json", e->d_name);
		if (pf_read_file_at(dfd, path, PF_CKPT_MAX_DOC, &text, &len, err) < 0) {
			if (err->kind == PF_ERR_NOT_FOUND || err->errnum == ENOTDIR)
				continue;
			return -1;
		}
		PF_JSON cJSON *j = pf_json_parse(path, text, len, err);
		const char *digest = NULL;
		if (!j || pf_json_str(j, path, "checkpoint", &digest, err) < 0)
			return -1;
		if (digest && *digest && fn(ctx, e->d_name, digest, err) < 0)
			return -1;
	}
	return errno ? pf_fail(err, errno, "sandboxes") : 0;
}

/* What the one can do who reads the error. Returns -1. */
static int remedy(struct pf_err *err, const char *fmt, ...)
{
	size_t n = strlen(err->msg);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(err->msg + n, sizeof(err->msg) - n, fmt, ap);
	va_end(ap);
	return -1;
}

struct mark {
	struct pf_ckpt_heavy *h;
	struct keep *k;
};

static int mark_one(struct mark *m, const char *digest, struct pf_err *err)
{
	PF_CKPT struct pf_ckpt c = {0};

	if (pf_ckpt_heavy_load(m->h, digest, NULL, &c, err) < 0)
		return -1;
	keep_checkpoint(m->k, m->h->storefd, &c);
	return 0;
}

static int mark_user(void *ctx, const char *sandbox, const char *digest, struct pf_err *err)
{
	if (mark_one(ctx, digest, err) == 0)
		return 0;
	if (err->kind == PF_ERR_CORRUPT)
		(void)remedy(err, " (`pinfold destroy %s` lets go of it)", sandbox);
	return pf_wrap(err, "sandbox %s", sandbox);
}

static int mark(struct pf_ckpt_heavy *h, struct keep *k, struct pf_err *err)
{
	struct mark m = {h, k};
	PF_JSON cJSON *index = pf_ckpt_index_read(h->storefd, err);
	const cJSON *entry;

	if (!index)
		return -1;
	cJSON_ArrayForEach(entry, pf_ckpt_index_entries(index))
	{
		const char *digest = pf_ckpt_index_str(entry, "digest");
		if (mark_one(&m, digest, err) < 0)
			return err->kind != PF_ERR_CORRUPT
				       ? -1
				       : remedy(err, " (`pinfold checkpoint rm %.12s` gives it up)",
						 digest + strlen("sha256:"));
	}
	if (pf_ckpt_each_user(h->storefd, mark_user, &m, err) < 0)
		return -1;
	if (k->n > 1)
		qsort(k->v, k->n, sizeof(*k->v), cmp_name);
	return 0;
}

static int sweep(int storefd, const char *dir,
	int (*fn)(int dfd, const char *name, void *ctx, struct pf_err *err), void *ctx, struct pf_err *err)
{
	PF_CLOSE int fd = openat(storefd, dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = NULL;
	struct dirent *e;

	if (fd < 0 && errno == ENOENT)
		return 0; /* made when it is needed */
	if (fd < 0 || !(d = fdopendir(fd)))
		return pf_fail(err, errno, "%s", dir);
	int dfd = pf_take_fd(&fd);
	while ((errno = 0, e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
			fn(dfd, e->d_name, ctx, err) < 0)
			return -1;
	return errno ? pf_fail(err, errno, "%s", dir) : 0;
}

/* ---- a full disk ---- */

static int drop_cache(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	if (unlinkat(dfd, name, 0) < 0)
		return pf_fail(err, errno, "remove files/%s", name);
	*(bool *)ctx = true;
	return 0;
}

static bool no_room(const struct pf_err *failed)
{
	return failed->errnum == ENOSPC || failed->errnum == EDQUOT;
}

/* What was to be written found no room, and there is some now: the indexes of unchanged files have gone,
 * which are made again (filesindex.h). */
static bool made_room(int storefd, const struct pf_err *failed)
{
	struct pf_err ignored = PF_ERR_INIT;
	bool any = false;

	if (no_room(failed))
		(void)sweep(storefd, "files", drop_cache, &any, &ignored);
	return any;
}

int pf_ckpt_index_shrink(int storefd, const cJSON *index, struct pf_err *err)
{
	if (pf_ckpt_index_write(storefd, index, err) == 0)
		return 0;
	return made_room(storefd, err) ? pf_ckpt_index_write(storefd, index, err) : -1;
}

struct sweep {
	int storefd;
	struct keep *k;
	struct pf_ckpt_gc_stats *stats;
};

static int sweep_document(int dfd, const char *name, int64_t *count, struct sweep *s, struct pf_err *err)
{
	struct stat st;

	if (kept(s->k, name))
		return 0;
	if (fstatat(dfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		s->stats->bytes += st.st_size;
	if (unlinkat(dfd, name, 0) < 0)
		return pf_fail(err, errno, "remove %s", name);
	(*count)++;
	return 0;
}

static int sweep_manifest(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	struct sweep *s = ctx;

	return sweep_document(dfd, name, &s->stats->manifests, s, err);
}

static int sweep_layer(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	struct sweep *s = ctx;

	return sweep_document(dfd, name, &s->stats->layers, s, err);
}

static int sweep_unpacked(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	struct sweep *s = ctx;

	if (pf_starts_with(name, "sha256-")) {
		PF_FREE char *sealed = pf_asprintf("%s.sealed", name + 7);
		if (kept(s->k, name + 7) || kept(s->k, sealed))
			return 0;
	}
	s->stats->unpacked++;
	/* Out of the way in one step: a removal that is cut short must not leave half a layer under its name.
	 */
	char trash[300];
	snprintf(trash, sizeof(trash), "tmp/trash-%s", name);
	if (renameat(dfd, name, s->storefd, trash) < 0 && errno != ENOTEMPTY && errno != EEXIST)
		return pf_fail(err, errno, "remove unpacked/%s", name);
	return pf_rm_rf_at(s->storefd, trash, err);
}

static int sweep_temp(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	struct sweep *s = ctx;
	PF_CLOSE int fd = openat(dfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? 0 : pf_fail(err, errno, "lock tmp/%s", name);
	s->stats->temps++;
	return pf_rm_rf_at(dfd, name, err);
}

/* ---- indexes of unchanged files ---- */

struct sandboxes {
	int storefd;
	const char **v; /* that have checkpoints, sorted */
	size_t n;
};

static int cmp_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Such an index (filesindex.h) is needed while there is its sandbox, or, if it is of something that is no
 * sandbox of this store, while it has checkpoints. A dot begins the name of one whose maker was killed. */
static int sweep_files_index(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	const struct sandboxes *s = ctx;

	(void)err;
	PF_FREE char *sandbox = pf_asprintf("../sandboxes/%s", name);
	struct stat st;
	if (*name != '.' &&
		((s->n > 0 && bsearch(&name, s->v, s->n, sizeof(*s->v), cmp_text)) ||
			fstatat(s->storefd, sandbox, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT))
		return 0;
	(void)unlinkat(dfd, name, 0); /* what stays is in nobody's way */
	return 0;
}

static int sweep_files(int storefd, struct pf_err *err)
{
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	const cJSON *entry;

	if (!index)
		return -1;
	PF_FREE const char **v =
		pf_calloc((size_t)cJSON_GetArraySize(pf_ckpt_index_entries(index)) + 1, sizeof(*v));
	struct sandboxes s = {storefd, v, 0};
	cJSON_ArrayForEach(entry, pf_ckpt_index_entries(index)) v[s.n++] =
		pf_ckpt_index_str(entry, "sandbox");
	if (s.n > 1)
		qsort(v, s.n, sizeof(*v), cmp_text);
	return sweep(storefd, "files", sweep_files_index, &s, err);
}

/* ---- chunks ---- */

/* Ids that stay: open addressing, at most half full. An id is random bytes already. */
struct ids {
	uint8_t (*v)[32];
	bool *used;
	size_t n, cap;
};

static void ids_done(struct ids *x)
{
	free(x->v);
	free(x->used);
}

static size_t ids_slot(const struct ids *x, const uint8_t id[32])
{
	uint64_t h;

	memcpy(&h, id, sizeof(h));
	size_t at = (size_t)h & (x->cap - 1);
	while (x->used[at] && memcmp(x->v[at], id, 32) != 0)
		at = (at + 1) & (x->cap - 1);
	return at;
}

static void ids_add(struct ids *x, const uint8_t id[32])
{
	if (x->n * 2 >= x->cap) {
		struct ids more = {.cap = x->cap ? x->cap * 2 : 4096, .n = x->n};
		more.v = pf_calloc(more.cap, sizeof(*more.v));
		more.used = pf_calloc(more.cap, sizeof(*more.used));
		for (size_t i = 0; i < x->cap; i++)
			if (x->used[i]) {
				size_t to = ids_slot(&more, x->v[i]);
				memcpy(more.v[to], x->v[i], 32);
				more.used[to] = true;
			}
		ids_done(x);
		*x = more;
	}
	size_t at = ids_slot(x, id);
	if (x->used[at])
		return;
	memcpy(x->v[at], id, 32);
	x->used[at] = true;
	x->n++;
}

static bool is_live(void *ctx, const struct pf_chunk_id *id)
{
	const struct ids *x = ctx;

	return x->cap > 0 && x->used[ids_slot(x, id->b)];
}

static int whose_layer(struct pf_err *err)
{
	return pf_ckpt_not_now(err)
		       ? -1
		       : remedy(err,
				 " (`pinfold checkpoint verify --all` names the checkpoints that need it; "
				 "`pinfold checkpoint rm` gives them up)");
}

struct mark_chunks {
	struct pf_ckpt_heavy *h;
	bool sealed;
	struct ids *ids;
};

static int mark_layer(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	struct mark_chunks *m = ctx;
	struct pf_digest id;
	const struct pf_tree_entry *e;
	size_t n;
	int r;

	(void)dfd;
	if ((strlen(name) > 64) != m->sealed)
		return 0;
	snprintf(id.s, sizeof(id.s), "sha256:%.64s", name);
	struct pf_layer_reader *l = pf_layer_open_as(m->h, &id, m->sealed, err);
	if (!l)
		return whose_layer(err);
	const struct pf_layer_doc *d = pf_layer_document(l);
	for (size_t i = 0; i < d->n_tree; i++)
		ids_add(m->ids, d->tree[i]);
	for (size_t i = 0; i < d->n_map; i++)
		ids_add(m->ids, d->map[i]);
	while ((r = pf_layer_next(l, &e, NULL, err)) > 0) {
		const struct pf_ref *refs = pf_layer_refs(l, &n);
		for (size_t i = 0; i < n; i++)
			ids_add(m->ids, refs[i].id);
	}
	pf_layer_close(l);
	return r < 0 ? whose_layer(err) : 0;
}

static void keep_all(struct pf_ckpt_gc_stats *stats, const struct pf_err *why)
{
	stats->kept_all = true;
	snprintf(stats->because, sizeof(stats->because), "%s", why->msg);
}

static int count_sealed(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	(void)dfd;
	(void)err;
	*(int *)ctx += strlen(name) > 64;
	return 0;
}

/* A sealed pack is one that has a key beside it, which goes last. */
static int drop_sealed_pack(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	struct pf_ckpt_gc_stats *stats = ctx;
	size_t len = strlen(name);
	struct stat st;

	if (len < 5 || len > 200 || strcmp(name + len - 4, ".key") != 0)
		return 0;
	for (const char *const *end = (const char *const[]){"idx", "pack", "key", NULL}; *end; end++) {
		char file[256];
		snprintf(file, sizeof(file), "%.*s.%s", (int)(len - 4), name, *end);
		if (fstatat(dfd, file, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (unlinkat(dfd, file, 0) < 0)
			return pf_fail(err, errno, "remove packs/%s", file);
		stats->bytes += st.st_size;
	}
	return 0;
}

static int sweep_without_key(struct pf_ckpt_heavy *h, struct pf_ckpt_gc_stats *stats, struct pf_err *err)
{
	int sealed = 0;

	if (sweep(h->storefd, "layers", count_sealed, &sealed, err) < 0)
		return -1;
	if (sealed == 0)
		return sweep(h->storefd, "packs", drop_sealed_pack, stats, err);
	struct pf_err why = PF_ERR_INIT;
	(void)pf_seal_no_key("a checkpoint", &why);
	keep_all(stats, &why);
	return 0;
}

static int sweep_chunks(
	struct pf_ckpt_heavy *h, bool sealed, struct pf_ckpt_gc_stats *stats, struct pf_err *err)
{
	struct pf_packs *p = sealed ? h->sealed : h->packs;
	PF_CLEANUP(ids_done) struct ids ids = {0};
	struct mark_chunks m = {h, sealed, &ids};
	const struct pf_packs_sweep_opts opts = {0};
	struct pf_packs_swept swept = {0};
	struct pf_err why = PF_ERR_INIT;
	char tmp[64];
	int tmp_fd = -1;

	if (!p)
		return sealed ? sweep_without_key(h, stats, err) : 0;
	if (sweep(h->storefd, "layers", mark_layer, &m, &why) < 0) {
		keep_all(stats, &why);
		return 0;
	}
	if (pf_ckpt_tmp_make_locked(h->storefd, tmp, &tmp_fd, err) < 0 &&
		(!made_room(h->storefd, err) || pf_ckpt_tmp_make_locked(h->storefd, tmp, &tmp_fd, err) < 0))
		return -1;
	int r = pf_packs_sweep(p, tmp_fd, is_live, &ids, &opts, &swept, err);
	pf_ckpt_tmp_remove(h->storefd, tmp, &tmp_fd);
	stats->chunks += swept.chunks_removed;
	stats->bytes += swept.bytes_freed;
	if (r == 0 || !no_room(err) || !swept.removed)
		return r;
	/* Whole packs have gone. Without room for a new one the others stay as they are, until there is some.
	 */
	if (swept.chunks_waiting > 0)
		snprintf(stats->because, sizeof(stats->because),
			"packs that are needed in part could not be written anew: %.800s", err->msg);
	return 0;
}

int pf_ckpt_gc_locked(struct pf_ckpt_heavy *h, bool all, struct pf_ckpt_gc_stats *stats, struct pf_err *err)
{
	struct pf_ckpt_gc_stats mine = {0};
	struct keep k = {0};
	struct sweep s = {h->storefd, &k, stats ? stats : &mine};
	struct pf_err why = PF_ERR_INIT;

	*s.stats = (struct pf_ckpt_gc_stats){0};
	int r = sweep(h->storefd, "tmp", sweep_temp, &s, err);
	if (r == 0 && mark(h, &k, &why) < 0)
		keep_all(s.stats, &why);
	else if (r == 0 && sweep(h->storefd, "manifests", sweep_manifest, &s, err) == 0 &&
		 sweep(h->storefd, "layers", sweep_layer, &s, err) == 0 &&
		 sweep(h->storefd, "unpacked", sweep_unpacked, &s, err) == 0)
		r = sweep_files(h->storefd, err);
	else
		r = -1;
	free(k.v);
	if (r == 0 && !s.stats->kept_all && (all || s.stats->layers > 0) &&
		(sweep_chunks(h, false, s.stats, err) < 0 || sweep_chunks(h, true, s.stats, err) < 0))
		r = -1;
	return r;
}

int pf_ckpt_gc(const char *store, struct pf_ckpt_gc_stats *stats, struct pf_err *err)
{
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	PF_CLOSE int lock = -1;

	*stats = (struct pf_ckpt_gc_stats){0};
	if (pf_ckpt_heavy_open(store, false, true, &h, err) < 0)
		return err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	lock = pf_ckpt_lock(h.storefd, err);
	return lock < 0 ? -1 : pf_ckpt_gc_locked(&h, true, stats, err);
}

struct find_user {
	const char *digest;
};

static int refuse_user(void *ctx, const char *sandbox, const char *digest, struct pf_err *err)
{
	struct find_user *f = ctx;

	if (strcmp(f->digest, digest) != 0)
		return 0;
	return pf_fail_kind(err, PF_ERR_STATE, 0,
		"sandbox %s was created from it: destroy that first, or remove with --force", sandbox);
}

int pf_ckpt_remove(
	const char *store, const char *spec, bool force, struct pf_ckpt_gc_stats *stats, struct pf_err *err)
{
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	PF_CLOSE int lock = -1;
	struct pf_digest digest;

	if (pf_ckpt_heavy_open(store, false, true, &h, err) < 0 || (lock = pf_ckpt_lock(h.storefd, err)) < 0)
		return -1;
	if (pf_ckpt_find_digest(h.storefd, spec, &digest, err) < 0)
		return -1;
	struct find_user f = {digest.s};
	if (!force && pf_ckpt_each_user(h.storefd, refuse_user, &f, err) < 0)
		return pf_wrap(err, "remove checkpoint %s", spec);
	PF_JSON cJSON *index = pf_ckpt_index_read(h.storefd, err);
	if (!index)
		return -1;
	pf_ckpt_index_remove(index, digest.s);
	if (pf_ckpt_index_shrink(h.storefd, index, err) < 0)
		return -1;
	return pf_ckpt_gc_locked(&h, false, stats, err);
}
