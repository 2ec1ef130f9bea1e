/* Theory of operation: mark and sweep under the store's lock. Roots are the index and the sandboxes that were
 * created from a checkpoint (they stand on its unpacked layers even after it was removed by force). A root
 * that cannot be read might have needed anything, so then no blob and no layer is removed. */
#include "checkpoint/gc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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
#include "checkpoint/store.h"

/* Hex names that stay; blobs and diff_ids share it, equal hashes mean equal content. */
struct keep {
	char (*v)[65];
	size_t n, cap;
};

static void keep_add(struct keep *k, const struct pf_digest *d)
{
	if (k->n == k->cap) {
		k->cap = k->cap ? k->cap * 2 : 64;
		void *v = realloc(k->v, k->cap * sizeof(*k->v));
		if (!v)
			abort();
		k->v = v;
	}
	memcpy(k->v[k->n++], pf_digest_hex(d), 65);
}

static int cmp_hex(const void *a, const void *b)
{
	return strcmp(a, b);
}

static bool kept(const struct keep *k, const char *hex)
{
	return k->n > 0 && bsearch(hex, k->v, k->n, sizeof(*k->v), cmp_hex);
}

static void keep_checkpoint(struct keep *k, const struct pf_ckpt *c)
{
	keep_add(k, &c->digest);
	keep_add(k, &c->config_digest);
	for (size_t i = 0; i < c->n_layers; i++) {
		keep_add(k, &c->layers[i].digest);
		keep_add(k, &c->layers[i].diff_id);
	}
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

struct mark {
	int storefd;
	struct keep *k;
};

static int mark_user(void *ctx, const char *sandbox, const char *digest, struct pf_err *err)
{
	struct mark *m = ctx;
	PF_CKPT struct pf_ckpt c = {0};

	if (pf_ckpt_load(m->storefd, digest, NULL, &c, err) < 0)
		return pf_wrap(err, "sandbox %s", sandbox);
	keep_checkpoint(m->k, &c);
	return 0;
}

static int mark(int storefd, struct keep *k, struct pf_err *err)
{
	struct mark m = {storefd, k};
	struct pf_ckpt *v = NULL;
	size_t n = 0;
	int r = 0;

	if (pf_ckpt_list(storefd, &v, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (v[i].record)
			keep_checkpoint(k, &v[i]);
		else
			r = pf_fail_kind(
				err, PF_ERR_CORRUPT, 0, "checkpoint %s cannot be read", v[i].digest.s);
	pf_ckpt_list_free(v, n);
	if (r == 0)
		r = pf_ckpt_each_user(storefd, mark_user, &m, err);
	if (k->n > 1)
		qsort(k->v, k->n, sizeof(*k->v), cmp_hex);
	return r;
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

struct sweep {
	int storefd;
	struct keep *k;
	struct pf_ckpt_gc_stats *stats;
};

static int sweep_blob(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	struct sweep *s = ctx;
	struct stat st;

	if (kept(s->k, name))
		return 0;
	if (fstatat(dfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		s->stats->bytes += st.st_size;
	if (unlinkat(dfd, name, 0) < 0)
		return pf_fail(err, errno, "remove blob %s", name);
	s->stats->blobs++;
	return 0;
}

static int sweep_unpacked(int dfd, const char *name, void *ctx, struct pf_err *err)
{
	struct sweep *s = ctx;

	if (pf_starts_with(name, "sha256-") && kept(s->k, name + 7))
		return 0;
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

int pf_ckpt_gc_locked(int storefd, struct pf_ckpt_gc_stats *stats, struct pf_err *err)
{
	struct pf_ckpt_gc_stats mine = {0};
	struct keep k = {0};
	struct sweep s = {storefd, &k, stats ? stats : &mine};
	struct pf_err why = PF_ERR_INIT;
	int r;

	*s.stats = (struct pf_ckpt_gc_stats){0};
	r = sweep(storefd, "tmp", sweep_temp, &s, err);
	if (r == 0 && mark(storefd, &k, &why) < 0)
		s.stats->kept_all = true;
	else if (r == 0 && sweep(storefd, "blobs/sha256", sweep_blob, &s, err) == 0)
		r = sweep(storefd, "unpacked", sweep_unpacked, &s, err);
	else
		r = -1;
	free(k.v);
	return r;
}

int pf_ckpt_gc(const char *store, struct pf_ckpt_gc_stats *stats, struct pf_err *err)
{
	PF_CLOSE int storefd = pf_ckpt_store_open(store, false, err);
	PF_CLOSE int lock = -1;

	*stats = (struct pf_ckpt_gc_stats){0};
	if (storefd < 0)
		return err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	lock = pf_ckpt_lock(storefd, err);
	return lock < 0 ? -1 : pf_ckpt_gc_locked(storefd, stats, err);
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
	PF_CLOSE int storefd = pf_ckpt_store_open(store, false, err);
	PF_CLOSE int lock = storefd < 0 ? -1 : pf_ckpt_lock(storefd, err);
	struct pf_digest digest;

	if (lock < 0)
		return -1;
	if (pf_ckpt_find_digest(storefd, spec, &digest, err) < 0)
		return -1;
	struct find_user f = {digest.s};
	if (!force && pf_ckpt_each_user(storefd, refuse_user, &f, err) < 0)
		return pf_wrap(err, "remove checkpoint %s", spec);
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	if (!index)
		return -1;
	cJSON_Delete(cJSON_DetachItemViaPointer(cJSON_GetObjectItemCaseSensitive(index, "manifests"),
		pf_ckpt_index_find(index, digest.s, NULL)));
	if (pf_ckpt_index_write(storefd, index, err) < 0)
		return -1;
	return pf_ckpt_gc_locked(storefd, stats, err);
}
