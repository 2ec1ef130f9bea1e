/* Theory of operation
 *
 * Records own layers: a layer is needed as long as any record names it, and nothing counts references (a
 * count can be wrong after a crash; reading some small files cannot). Removal takes the store's lock, deletes
 * the record, and then moves each layer that no record names into tmp/, where a crash leaves it to gc, and
 * deletes it there: what disappears disappears at once and whole.
 *
 * Whether sandboxes or checkpoints need an image is asked of the caller. For sandboxes the answer looks for
 * the digest as text in their JSON files: it must not miss a use because a file's layout grew, and a false
 * alarm costs no data. What cannot be read may name any image. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "overlay/host.h"
#include "overlay/image.h"
#include "overlay/import.h"
#include "overlay/layer_store.h"

#define MAX_RECORD ((size_t)1 << 20)

static cJSON *load_record(const struct pf_layer_store *s, const char *ref, struct pf_err *err)
{
	PF_FREE char *file = pf_image_ref_file(ref);
	PF_FREE char *text = NULL;
	size_t len;

	if (pf_read_file_at(s->refs, file, MAX_RECORD, &text, &len, err) < 0)
		return NULL;
	return pf_json_parse(file, text, len, err);
}

static const char *str_of(const cJSON *rec, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(rec, key);

	return cJSON_IsString(v) ? v->valuestring : NULL;
}

cJSON *pf_image_list(const char *store, struct pf_err *err)
{
	struct pf_layer_store s;
	cJSON *out;

	if (pf_layer_store_open(store, &s, err) < 0)
		return NULL;
	char **names = pf_image_names(store, err);
	out = names ? cJSON_CreateArray() : NULL;
	for (size_t i = 0; names && names[i]; i++) {
		struct pf_err one = PF_ERR_INIT;
		cJSON *rec = load_record(&s, names[i], &one);
		if (!rec) {
			/* A damaged record must not hide the others. */
			rec = cJSON_CreateObject();
			cJSON_AddStringToObject(rec, "ref", names[i]);
			cJSON_AddStringToObject(rec, "error", one.msg);
		}
		cJSON_DeleteItemFromObjectCaseSensitive(rec, "config");
		cJSON_AddItemToArray(out, rec);
	}
	pf_strv_free(names);
	pf_layer_store_close(&s);
	return out;
}

static cJSON *inspect_resolved(const struct pf_image *img)
{
	cJSON *out = cJSON_CreateObject(), *layers, *binds;

	cJSON_AddStringToObject(out, "ref", img->ref);
	cJSON_AddStringToObject(out, "digest", img->digest);
	layers = cJSON_AddArrayToObject(out, "directories");
	for (size_t i = 0; img->layers[i]; i++)
		cJSON_AddItemToArray(layers, cJSON_CreateString(img->layers[i]));
	binds = cJSON_AddArrayToObject(out, "binds");
	for (size_t i = 0; i < img->n_binds; i++)
		cJSON_AddItemToArray(binds, cJSON_CreateString(img->binds[i].source));
	return out;
}

cJSON *pf_image_inspect(const char *store, const char *ref, struct pf_err *err)
{
	struct pf_layer_store s;
	struct pf_image img;
	const cJSON *l;

	if (pf_image_resolve(store, ref, &img, err) < 0)
		return NULL;
	cJSON *out = inspect_resolved(&img);
	enum pf_image_kind kind = img.kind;
	PF_FREE char *name = pf_take(img.ref);
	pf_image_done(&img);
	if (kind != PF_IMAGE_STORED)
		return out;
	if (pf_layer_store_open(store, &s, err) < 0) {
		cJSON_Delete(out);
		return NULL;
	}
	cJSON *rec = load_record(&s, name, err);
	if (rec) {
		cJSON *config = cJSON_Parse(str_of(rec, "config"));
		cJSON_DeleteItemFromObjectCaseSensitive(rec, "config");
		if (config)
			cJSON_AddItemToObject(rec, "config", config);
		cJSON *sizes = cJSON_AddArrayToObject(rec, "layer_bytes");
		cJSON_ArrayForEach(l, cJSON_GetObjectItemCaseSensitive(rec, "layers"))
		{
			cJSON_AddItemToArray(
				sizes, cJSON_CreateNumber((double)pf_layer_bytes(&s, l->valuestring)));
		}
		cJSON_AddItemToObject(
			rec, "directories", cJSON_DetachItemFromObjectCaseSensitive(out, "directories"));
	}
	cJSON_Delete(out);
	pf_layer_store_close(&s);
	return rec;
}

/* ---- who uses it ---- */

/* 1: the file has one of them in it, 0: none, -1: that cannot be told. */
static int mentions(int dirfd, const char *name, const char *const *digests, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "%.128s", name);
	if (!S_ISREG(st.st_mode))
		return 0;
	if (pf_read_file_at(dirfd, name, 8 << 20, &text, NULL, err) < 0)
		return err->errnum == ENOENT ? 0 : -1;
	for (; *digests; digests++)
		if (strstr(text, *digests))
			return 1;
	return 0;
}

/* The same of the JSON files of directory path; there may be no such directory. */
static int dir_mentions(const char *path, const char *const *digests, struct pf_err *err)
{
	PF_CLOSEDIR DIR *d = opendir(path);
	struct dirent *e;
	int r = 0;

	if (!d)
		return errno == ENOENT || errno == ENOTDIR ? 0 : pf_fail(err, errno, "%.200s", path);
	while (r == 0 && (e = readdir(d)))
		if (pf_ends_with(e->d_name, ".json"))
			r = mentions(dirfd(d), e->d_name, digests, err);
	return r;
}

static char *sandbox_below(const char *path, const char *const *digests)
{
	PF_CLOSEDIR DIR *d = opendir(path);
	struct dirent *e;

	if (!d && errno != ENOENT)
		return pf_asprintf("a sandbox, perhaps: %.200s cannot be read (%s)", path, strerror(errno));
	while (d && (e = readdir(d))) {
		struct pf_err why = PF_ERR_INIT;
		if (e->d_name[0] == '.')
			continue;
		PF_FREE char *sub = pf_asprintf("%s/%s", path, e->d_name);
		int r = dir_mentions(sub, digests, &why);
		if (r < 0)
			return pf_asprintf("sandbox %.128s, perhaps: %.300s", e->d_name, why.msg);
		if (r > 0)
			return pf_asprintf("sandbox %.128s", e->d_name);
	}
	return NULL;
}

char *pf_image_user_sandbox(const char *root, const char *store, const char *const *digests)
{
	PF_FREE char *sandboxes = pf_asprintf("%s/sandboxes", store);
	char *user = sandbox_below(sandboxes, digests);

	return user ? user : sandbox_below(root, digests);
}

/* ---- removing ---- */

/* Whether any record but the one named without has this layer (or, with digest, is this image). */
static bool any_record(const char *store, const struct pf_layer_store *s, const char *without,
	const char *layer, const char *digest, bool *found, struct pf_err *err)
{
	char **names = pf_image_names(store, err);
	bool ok = names != NULL;

	*found = false;
	for (size_t i = 0; ok && names[i] && !*found; i++) {
		const cJSON *l;
		if (without && strcmp(names[i], without) == 0)
			continue;
		/* A record that cannot be read may name anything: then nothing is removed. */
		PF_JSON cJSON *rec = load_record(s, names[i], err);
		ok = rec != NULL;
		if (digest && rec && str_of(rec, "digest") && strcmp(str_of(rec, "digest"), digest) == 0)
			*found = true;
		cJSON_ArrayForEach(l, cJSON_GetObjectItemCaseSensitive(rec, "layers"))
		{
			*found = *found || (layer && cJSON_IsString(l) && strcmp(l->valuestring, layer) == 0);
		}
	}
	pf_strv_free(names);
	return ok;
}

/* Move layers/<dir> into a temporary directory of its own and remove that. */
static int remove_layer(struct pf_layer_store *s, const char *dir, struct pf_err *err)
{
	PF_FREE char *gone = pf_asprintf("removed-%s", dir);

	if (pf_rm_rf_at(s->tmp, gone, err) < 0)
		return -1;
	if (renameat(s->layers, dir, s->tmp, gone) < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "remove layer %s", dir);
	return pf_rm_rf_at(s->tmp, gone, err);
}

static int remove_layers_of(const char *store, struct pf_layer_store *s, const cJSON *rec, int64_t *count,
	int64_t *bytes, struct pf_err *err)
{
	const cJSON *l;
	bool needed;

	cJSON_ArrayForEach(l, cJSON_GetObjectItemCaseSensitive(rec, "layers"))
	{
		/* A layer may be in an image twice: then it is gone by now. */
		if (!cJSON_IsString(l) || !pf_digest_valid(l->valuestring) ||
			!pf_layer_present(s, l->valuestring))
			continue;
		if (!any_record(store, s, NULL, l->valuestring, NULL, &needed, err))
			return -1;
		if (needed)
			continue;
		PF_FREE char *dir = pf_digest_dir(l->valuestring);
		int64_t size = pf_layer_bytes(s, l->valuestring);
		if (remove_layer(s, dir, err) < 0)
			return -1;
		*bytes += size;
		(*count)++;
	}
	return 0;
}

static int check_unused(const char *store, struct pf_layer_store *s, const char *name, const cJSON *rec,
	pf_image_user user, void *arg, struct pf_err *err)
{
	const char *digests[3] = {str_of(rec, "digest"), str_of(rec, "manifest"), NULL};
	bool other;

	if (!digests[0] || !user)
		return 0;
	if (!any_record(store, s, name, NULL, digests[0], &other, err))
		return -1;
	if (other)
		return 0; /* the image stays, under its other name */
	PF_FREE char *who = user(arg, digests);
	return who ? pf_fail_kind(err, PF_ERR_STATE, 0, "image %s is used by %s", name, who) : 0;
}

cJSON *pf_image_remove(const char *store, const char *ref, pf_image_user user, void *arg, struct pf_err *err)
{
	struct pf_layer_store s;
	struct pf_image img;
	int64_t count = 0, bytes = 0;
	cJSON *out = NULL;
	PF_FREE char *name = NULL;

	if (strcmp(ref, "host") == 0 || ref[0] == '/') {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "'%s' is not an image of the store", ref);
		return NULL;
	}
	/* Resolved for digests; an image with a missing layer can be removed by its name all the same. */
	if (pf_image_resolve(store, ref, &img, err) == 0) {
		name = pf_take(img.ref);
		pf_image_done(&img);
	} else if (err->kind == PF_ERR_CORRUPT) {
		name = pf_image_ref_normalize(ref, err);
	}
	if (!name || pf_layer_store_open(store, &s, err) < 0)
		return NULL;
	PF_CLOSE int lock = pf_layer_store_lock(&s, err);
	PF_JSON cJSON *rec = lock < 0 ? NULL : load_record(&s, name, err);
	if (rec && check_unused(store, &s, name, rec, user, arg, err) == 0) {
		PF_FREE char *file = pf_image_ref_file(name);
		if (unlinkat(s.refs, file, 0) < 0)
			pf_fail(err, errno, "remove %s", name);
		else if (pf_sync_dir(s.refs, err) == 0 &&
			 remove_layers_of(store, &s, rec, &count, &bytes, err) == 0) {
			out = cJSON_CreateObject();
			cJSON_AddStringToObject(out, "removed", name);
			pf_json_add_int(out, "layers", count);
			pf_json_add_int(out, "bytes", bytes);
		}
	}
	pf_layer_store_close(&s);
	return out;
}

/* ---- gc ---- */

/* Temporary directories whose maker is gone. */
static int gc_tmp(struct pf_layer_store *s, int64_t *count, struct pf_err *err)
{
	struct dirent *e;
	int fd = openat(s->tmp, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		if (fd >= 0)
			close(fd);
		return pf_fail(err, errno, "image store: tmp");
	}
	while ((e = readdir(d))) {
		struct pf_err ignored = PF_ERR_INIT;
		if (e->d_name[0] == '.')
			continue;
		PF_CLOSE int sub = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		PF_CLOSE int lock = sub < 0 ? -1 : pf_lock_file_at(sub, ".lock", false, &ignored);
		if (sub >= 0 && lock < 0)
			continue;
		if (pf_rm_rf_at(fd, e->d_name, err) < 0)
			return -1;
		(*count)++;
	}
	return 0;
}

static int gc_layers(const char *store, struct pf_layer_store *s, int64_t *count, struct pf_err *err)
{
	struct dirent *e;
	bool needed;
	int fd = openat(s->layers, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		if (fd >= 0)
			close(fd);
		return pf_fail(err, errno, "image store: layers");
	}
	while ((e = readdir(d))) {
		if (!pf_starts_with(e->d_name, "sha256-"))
			continue;
		PF_FREE char *digest = pf_strdup(e->d_name);
		digest[strlen("sha256")] = ':';
		if (!any_record(store, s, NULL, digest, NULL, &needed, err))
			return -1;
		if (!needed) {
			if (remove_layer(s, e->d_name, err) < 0)
				return -1;
			(*count)++;
		}
	}
	return 0;
}

cJSON *pf_image_gc(const char *store, struct pf_err *err)
{
	struct pf_layer_store s;
	int64_t tmp = 0, layers = 0, hosts = 0;
	cJSON *out = NULL;

	if (pf_layer_store_open(store, &s, err) < 0)
		return NULL;
	PF_CLOSE int lock = pf_layer_store_lock(&s, err);
	if (lock >= 0 && gc_tmp(&s, &tmp, err) == 0 && gc_layers(store, &s, &layers, err) == 0 &&
		pf_host_gc(store, &hosts, err) == 0) {
		out = cJSON_CreateObject();
		pf_json_add_int(out, "temporary", tmp);
		pf_json_add_int(out, "layers", layers);
		pf_json_add_int(out, "host_skeletons", hosts);
	}
	pf_layer_store_close(&s);
	return out;
}
