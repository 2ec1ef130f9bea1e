/* Theory of operation.
 *
 * A checkpoint is what its manifest's digest says. The index maps names to digests and is the only mutable
 * document: it is replaced whole (fsync, rename, fsync of the directory) under the store's lock. Everything a
 * reader uses is reached from there by digest, and the two JSON documents on the way are hashed before they
 * are believed, so a flipped bit in a record is an error and never a different sandbox.
 *
 * Order in the index is order of commit. "latest" is the last entry of a sandbox, not the largest time stamp:
 * clocks step back. */
#include "checkpoint/store.h"

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
#include "base/proc.h"
#include "base/str.h"

void pf_ckpt_done(struct pf_ckpt *c)
{
	free(c->name);
	free(c->sandbox_id);
	free(c->created);
	free(c->parent);
	free(c->base_image_ref);
	free(c->base_image_digest);
	cJSON_Delete(c->record);
	free(c->layers);
	*c = (struct pf_ckpt){0};
}

void pf_ckpt_list_free(struct pf_ckpt *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		pf_ckpt_done(&v[i]);
	free(v);
}

char *pf_ckpt_blob_path(const struct pf_digest *d, char buf[96])
{
	snprintf(buf, 96, "blobs/sha256/%s", pf_digest_hex(d));
	return buf;
}

char *pf_ckpt_unpacked_name(const struct pf_digest *diff_id, char buf[96])
{
	snprintf(buf, 96, "sha256-%s", pf_digest_hex(diff_id));
	return buf;
}

char *pf_ckpt_layer_dir(const char *store, const struct pf_ckpt_layer *l)
{
	return pf_asprintf("%s/checkpoints/unpacked/sha256-%s/fs", store, pf_digest_hex(&l->diff_id));
}

static int make_store(int fd, struct pf_err *err)
{
	static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
	static const char index[] = "{\"schemaVersion\":2,\"mediaType\":\"application/"
				    "vnd.oci.image.index.v1+json\",\"manifests\":[]}";
	static const char *const dirs[] = {"blobs", "blobs/sha256", "unpacked", "tmp"};
	struct stat st;

	if (fstatat(fd, "index.json", &st, 0) == 0)
		return 0;
	PF_CLOSE int lock = pf_ckpt_lock(fd, err);
	if (lock < 0)
		return -1;
	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++)
		if (mkdirat(fd, dirs[i], 0700) < 0 && errno != EEXIST)
			return pf_fail(err, errno, "mkdir checkpoints/%s", dirs[i]);
	if (fstatat(fd, "index.json", &st, 0) == 0)
		return 0;
	if (pf_replace_file_at(fd, "oci-layout", layout, strlen(layout), 0600, true, err) < 0 ||
		pf_replace_file_at(fd, "index.json", index, strlen(index), 0600, true, err) < 0)
		return -1;
	return 0;
}

int pf_ckpt_store_open(const char *store, bool create, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("%s/checkpoints", store);

	if (create && pf_mkdirs(path, 0700, err) < 0)
		return pf_wrap(err, "checkpoint store");
	PF_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return pf_fail_kind(err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno,
			"checkpoint store %s", path);
	if (create && make_store(fd, err) < 0)
		return pf_wrap(err, "checkpoint store %s", path);
	return pf_take_fd(&fd);
}

int pf_ckpt_lock(int storefd, struct pf_err *err)
{
	return pf_lock_file_at(storefd, "lock", true, err);
}

cJSON *pf_ckpt_index_read(int storefd, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	PF_JSON cJSON *index = NULL;
	const cJSON *manifests = NULL, *m;
	const char *digest;
	size_t len;

	if (pf_read_file_at(storefd, "index.json", PF_CKPT_MAX_DOC, &text, &len, err) < 0)
		return NULL;
	index = pf_json_parse("index.json", text, len, err);
	if (!index || pf_json_arr(index, "index.json", "manifests", &manifests, err) < 0) {
		err->kind = PF_ERR_CORRUPT;
		return NULL;
	}
	if (!manifests) {
		pf_fail_kind(err, PF_ERR_CORRUPT, 0, "index.json: no list of manifests");
		return NULL;
	}
	cJSON_ArrayForEach(m, manifests)
	{
		digest = "";
		if (!cJSON_IsObject(m) || pf_json_str(m, "manifests[]", "digest", &digest, err) < 0 ||
			!pf_digest_ok(digest)) {
			pf_fail_kind(err, PF_ERR_CORRUPT, 0, "index.json: an entry without a sha256 digest");
			return NULL;
		}
	}
	return pf_take(index);
}

int pf_ckpt_index_write(int storefd, const cJSON *index, struct pf_err *err)
{
	PF_FREE char *text = pf_json_text(index);

	return pf_replace_file_at(storefd, "index.json", text, strlen(text), 0600, true, err);
}

const char *pf_ckpt_index_note(const cJSON *entry, const char *key)
{
	const cJSON *notes = cJSON_GetObjectItemCaseSensitive(entry, "annotations");
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(notes, key));

	return s ? s : "";
}

cJSON *pf_ckpt_index_find(const cJSON *index, const char *digest, const char *name)
{
	cJSON *m;

	cJSON_ArrayForEach(m, cJSON_GetObjectItemCaseSensitive(index, "manifests"))
	{
		const char *d = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "digest"));
		if (digest && d && strcmp(d, digest) == 0)
			return m;
		if (name && strcmp(pf_ckpt_index_note(m, PF_OCI_REF_NAME), name) == 0)
			return m;
	}
	return NULL;
}

/* A blob that is JSON, compared with the digest it is named by. */
static cJSON *load_document(int storefd, const struct pf_digest *d, int64_t *size, struct pf_err *err)
{
	char path[96];
	PF_FREE char *text = NULL;
	struct pf_digest got;
	size_t len;

	if (pf_read_file_at(storefd, pf_ckpt_blob_path(d, path), PF_CKPT_MAX_DOC, &text, &len, err) < 0) {
		err->kind = PF_ERR_CORRUPT;
		return NULL;
	}
	pf_sha256_digest(text, len, &got);
	if (strcmp(got.s, d->s) != 0) {
		pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s: content has digest %s", path, got.s);
		return NULL;
	}
	*size = (int64_t)len;
	cJSON *j = pf_json_parse(path, text, len, err);
	if (!j)
		err->kind = PF_ERR_CORRUPT;
	else if (!cJSON_IsObject(j)) {
		cJSON_Delete(j);
		j = NULL;
		pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s: not a JSON object", path);
	}
	return j;
}

static int copy_digest(const char *where, const char *s, struct pf_digest *out, struct pf_err *err)
{
	if (!s || !pf_digest_ok(s))
		return pf_fail_kind(
			err, PF_ERR_CORRUPT, 0, "%s: '%.80s' is no sha256 digest", where, s ? s : "");
	memcpy(out->s, s, sizeof(out->s));
	return 0;
}

static int read_layer(
	int storefd, const cJSON *desc, const cJSON *diff_id, struct pf_ckpt_layer *l, struct pf_err *err)
{
	const char *digest = NULL, *type = "";
	char path[96];
	struct stat st;

	if (pf_json_str(desc, "layers[]", "digest", &digest, err) < 0 ||
		pf_json_str(desc, "layers[]", "mediaType", &type, err) < 0 ||
		pf_json_int(desc, "layers[]", "size", 0, (int64_t)1 << 53, &l->size, err) < 0 ||
		copy_digest("layers[].digest", digest, &l->digest, err) < 0 ||
		copy_digest("diff_ids[]", cJSON_GetStringValue(diff_id), &l->diff_id, err) < 0)
		return -1;
	if (strcmp(type, PF_OCI_LAYER_ZSTD_TYPE) != 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "layers[]: media type '%.80s' is not ours", type);
	l->present = fstatat(storefd, pf_ckpt_blob_path(&l->digest, path), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		     S_ISREG(st.st_mode) && st.st_size == l->size;
	snprintf(path, sizeof(path), "unpacked/sha256-%s/fs", pf_digest_hex(&l->diff_id));
	l->unpacked = fstatat(storefd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
	return 0;
}

static int read_layers(
	int storefd, const cJSON *manifest, const cJSON *config, struct pf_ckpt *out, struct pf_err *err)
{
	const cJSON *layers = NULL, *rootfs = NULL, *diff_ids = NULL, *desc, *diff;

	if (pf_json_arr(manifest, "", "layers", &layers, err) < 0 ||
		pf_json_obj(config, "", "rootfs", &rootfs, err) < 0 ||
		(rootfs && pf_json_arr(rootfs, "rootfs", "diff_ids", &diff_ids, err) < 0))
		return -1;
	int n = layers ? cJSON_GetArraySize(layers) : 0;
	if (n < 1 || n > PF_CKPT_MAX_LAYERS || !diff_ids || cJSON_GetArraySize(diff_ids) != n)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
			"%d layers and %d diff_ids: must be as many, 1 to %d", n,
			diff_ids ? cJSON_GetArraySize(diff_ids) : 0, PF_CKPT_MAX_LAYERS);
	out->layers = pf_calloc((size_t)n, sizeof(*out->layers));
	out->n_layers = (size_t)n;
	desc = layers->child;
	diff = diff_ids->child;
	for (int i = n - 1; i >= 0; i--, desc = desc->next, diff = diff->next)
		if (!cJSON_IsObject(desc))
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "layers[]: must be objects");
		else if (read_layer(storefd, desc, diff, &out->layers[i], err) < 0)
			return -1;
	return 0;
}

static int read_record(const cJSON *config, struct pf_ckpt *out, struct pf_err *err)
{
	const cJSON *record = NULL, *base = NULL;
	const char *sandbox = "", *created = "", *parent = "", *ref = "", *digest = "";

	if (pf_json_obj(config, "", PF_CKPT_KEY, &record, err) < 0)
		return -1;
	if (!record)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
			"the config holds no " PF_CKPT_KEY ": this is an image, not a checkpoint");
	if (pf_json_str(record, PF_CKPT_KEY, "sandbox_id", &sandbox, err) < 0 ||
		pf_json_str(record, PF_CKPT_KEY, "created", &created, err) < 0 ||
		pf_json_str(record, PF_CKPT_KEY, "parent", &parent, err) < 0 ||
		pf_json_obj(record, PF_CKPT_KEY, "base_image", &base, err) < 0)
		return -1;
	if (base && (pf_json_str(base, "base_image", "ref", &ref, err) < 0 ||
			    pf_json_str(base, "base_image", "digest", &digest, err) < 0))
		return -1;
	if (pf_check_id("the checkpoint's sandbox id", sandbox, err) < 0)
		return -1;
	if (*parent && !pf_digest_ok(parent))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "parent: '%.80s' is no sha256 digest", parent);
	out->record = cJSON_Duplicate(record, true);
	if (!out->record)
		abort();
	out->sandbox_id = pf_strdup(sandbox);
	out->created = pf_strdup(created);
	out->parent = pf_strdup(parent);
	out->base_image_ref = pf_strdup(ref);
	out->base_image_digest = pf_strdup(digest);
	return 0;
}

static int load(int storefd, const char *digest, struct pf_ckpt *out, struct pf_err *err)
{
	PF_JSON cJSON *manifest = NULL, *config = NULL;
	const cJSON *desc = NULL;
	const char *config_digest = NULL;

	if (copy_digest("checkpoint", digest, &out->digest, err) < 0)
		return -1;
	manifest = load_document(storefd, &out->digest, &out->manifest_size, err);
	if (!manifest)
		return -1;
	if (pf_json_obj(manifest, "manifest", "config", &desc, err) < 0)
		return -1;
	if (!desc)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the manifest names no config");
	if (pf_json_str(desc, "config", "digest", &config_digest, err) < 0 ||
		copy_digest("config.digest", config_digest, &out->config_digest, err) < 0)
		return -1;
	config = load_document(storefd, &out->config_digest, &out->config_size, err);
	if (!config)
		return -1;
	if (read_record(config, out, err) < 0 || read_layers(storefd, manifest, config, out, err) < 0)
		return -1;
	return 0;
}

int pf_ckpt_load(int storefd, const char *digest, const char *name, struct pf_ckpt *out, struct pf_err *err)
{
	*out = (struct pf_ckpt){0};
	if (load(storefd, digest, out, err) < 0) {
		pf_ckpt_done(out);
		if (err->kind == PF_ERR_INVALID)
			err->kind =
				PF_ERR_CORRUPT; /* what was wrong is stored data, not the caller's input */
		return pf_wrap(err, "checkpoint %.19s", digest);
	}
	out->name = pf_strdup(name ? name : "");
	return 0;
}

static bool is_hex_prefix(const char *s)
{
	size_t n = strlen(s);
	return n >= 6 && n <= 64 && strspn(s, "0123456789abcdef") == n;
}

/* "there are: a, b, c" for the error text; a handful is enough to see a typo. */
static int not_found(const cJSON *index, const char *spec, struct pf_err *err)
{
	PF_BUF struct pf_buf b = {0};
	const cJSON *m, *list = cJSON_GetObjectItemCaseSensitive(index, "manifests");
	int n = cJSON_GetArraySize(list), i = 0;

	cJSON_ArrayForEach(m, list)
	{
		if (i++ < n - 8)
			continue;
		const char *name = pf_ckpt_index_note(m, PF_OCI_REF_NAME);
		pf_buf_printf(&b, "%s%.60s",
			b.len   ? ", "
			: n > 8 ? "…, "
				: "",
			*name ? name
			      : cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "digest")) + 7);
	}
	return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "no checkpoint '%.100s' (%s%s)", spec,
		b.len ? "there are: " : "the store holds none", b.len ? b.data : "");
}

static const char *entry_digest(const cJSON *m)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "digest"));
}

static int resolve_latest(
	int storefd, const cJSON *index, const char *sandbox_id, struct pf_ckpt *out, struct pf_err *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(index, "manifests");
	struct pf_err first = PF_ERR_INIT;
	size_t damaged = 0;

	if (!sandbox_id || !*sandbox_id)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"'latest' means the newest checkpoint of one sandbox: name the sandbox");
	for (int i = cJSON_GetArraySize(list) - 1; i >= 0; i--) {
		const cJSON *m = cJSON_GetArrayItem(list, i);
		if (strcmp(pf_ckpt_index_note(m, PF_CKPT_KEY ".sandbox"), sandbox_id) != 0)
			continue;
		struct pf_err why = PF_ERR_INIT;
		size_t missing = 0;
		if (pf_ckpt_load(storefd, entry_digest(m), pf_ckpt_index_note(m, PF_OCI_REF_NAME), out,
			    &why) == 0) {
			for (size_t l = 0; l < out->n_layers; l++)
				missing += !out->layers[l].present;
			/* The index's word for whose checkpoint this is counts only with the record's. */
			if (missing == 0 && strcmp(out->sandbox_id, sandbox_id) == 0) {
				out->n_damaged = damaged;
				return 0;
			}
			pf_ckpt_done(out);
			pf_fail_kind(&why, PF_ERR_CORRUPT, 0, "checkpoint %.19s: %zu layers missing or cut",
				entry_digest(m), missing);
		}
		if (damaged++ == 0)
			first = why;
	}
	if (damaged > 0) {
		*err = first;
		return pf_wrap(err, "no undamaged checkpoint of sandbox %s", sandbox_id);
	}
	return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "sandbox %s has no checkpoint", sandbox_id);
}

static const cJSON *find_entry(const cJSON *index, const char *spec, struct pf_err *err)
{
	const cJSON *m, *found = NULL;
	const char *hex = pf_starts_with(spec, "sha256:") ? spec + 7 : spec;

	if (*spec)
		found = pf_ckpt_index_find(index, NULL, spec);
	if (!found && is_hex_prefix(hex)) {
		cJSON_ArrayForEach(m, cJSON_GetObjectItemCaseSensitive(index, "manifests"))
		{
			if (!pf_starts_with(entry_digest(m) + 7, hex))
				continue;
			if (found && strcmp(entry_digest(found), entry_digest(m)) != 0) {
				pf_fail_kind(err, PF_ERR_INVALID, 0,
					"checkpoint '%s' is ambiguous: give more digits", spec);
				return NULL;
			}
			found = m;
		}
	}
	if (!found)
		not_found(index, spec, err);
	return found;
}

int pf_ckpt_find_digest(int storefd, const char *spec, struct pf_digest *out, struct pf_err *err)
{
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	const cJSON *m = index ? find_entry(index, spec, err) : NULL;

	return m ? copy_digest("checkpoint", entry_digest(m), out, err) : -1;
}

int pf_ckpt_resolve_at(
	int storefd, const char *spec, const char *sandbox_id, struct pf_ckpt *out, struct pf_err *err)
{
	*out = (struct pf_ckpt){0};
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);

	if (!index)
		return -1;
	if (strcmp(spec, "latest") == 0)
		return resolve_latest(storefd, index, sandbox_id, out, err);
	const cJSON *m = find_entry(index, spec, err);
	return m ? pf_ckpt_load(storefd, entry_digest(m), pf_ckpt_index_note(m, PF_OCI_REF_NAME), out, err)
		 : -1;
}

int pf_ckpt_resolve(
	const char *store, const char *spec, const char *sandbox_id, struct pf_ckpt *out, struct pf_err *err)
{
	*out = (struct pf_ckpt){0};
	PF_CLOSE int fd = pf_ckpt_store_open(store, false, err);

	if (fd < 0)
		return err->kind == PF_ERR_NOT_FOUND
			       ? pf_fail_kind(err, PF_ERR_NOT_FOUND, 0,
					 "no checkpoint '%.100s' (the store holds none)", spec)
			       : -1;
	return pf_ckpt_resolve_at(fd, spec, sandbox_id, out, err);
}

int pf_ckpt_check_base(const struct pf_ckpt *c, const char *image_digest, struct pf_err *err)
{
	if (*c->base_image_digest && strcmp(c->base_image_digest, image_digest) == 0)
		return 0;
	return pf_fail_kind(err, PF_ERR_STATE, 0,
		"checkpoint %.19s was made on image %s (%.80s), not on %.80s: import that image, or start "
		"without "
		"the checkpoint",
		c->digest.s, c->base_image_ref,
		*c->base_image_digest ? c->base_image_digest : "digest unknown", image_digest);
}

int pf_ckpt_list(int storefd, struct pf_ckpt **out, size_t *n, struct pf_err *err)
{
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	const cJSON *m;

	if (!index)
		return -1;
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(index, "manifests");
	struct pf_ckpt *v = pf_calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*v));
	size_t i = 0;
	cJSON_ArrayForEach(m, list)
	{
		struct pf_err why = PF_ERR_INIT;
		const char *name = pf_ckpt_index_note(m, PF_OCI_REF_NAME);
		if (pf_ckpt_load(storefd, entry_digest(m), name, &v[i], &why) < 0) {
			memcpy(v[i].digest.s, entry_digest(m), sizeof(v[i].digest.s));
			v[i].name = pf_strdup(name);
			v[i].sandbox_id = pf_strdup(pf_ckpt_index_note(m, PF_CKPT_KEY ".sandbox"));
		}
		i++;
	}
	*out = v;
	*n = i;
	return 0;
}

int pf_ckpt_tmp_make(int storefd, char name[64], int *lockfd, struct pf_err *err)
{
	static unsigned counter;
	/* Between mkdir and flock the directory looks abandoned; gc holds the store's lock, so take it too.
	 */
	PF_CLOSE int lock = pf_ckpt_lock(storefd, err);

	if (lock < 0)
		return -1;
	/* A store that was copied without what can be made again is as good. */
	if (mkdirat(storefd, "tmp", 0700) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "mkdir tmp");
	for (int tries = 0; tries < 100; tries++) {
		snprintf(name, 64, "tmp/%d.%llx.%u", (int)getpid(), (unsigned long long)pf_now_us(),
			__atomic_fetch_add(&counter, 1, __ATOMIC_RELAXED));
		if (mkdirat(storefd, name, 0700) < 0) {
			if (errno == EEXIST)
				continue;
			return pf_fail(err, errno, "mkdir %s", name);
		}
		PF_CLOSE int fd = openat(storefd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
			pf_fail(err, errno, "lock %s", name);
			(void)unlinkat(storefd, name, AT_REMOVEDIR);
			return -1;
		}
		*lockfd = pf_take_fd(&fd);
		return 0;
	}
	return pf_fail(err, EEXIST, "mkdir %s", name);
}

void pf_ckpt_tmp_remove(int storefd, const char *name, int *lockfd)
{
	int saved = errno;
	struct pf_err ignored = PF_ERR_INIT; /* what cannot be removed now is collected by gc */

	if (*lockfd < 0)
		return;
	(void)pf_rm_rf_at(storefd, name, &ignored);
	close(*lockfd);
	*lockfd = -1;
	errno = saved;
}
