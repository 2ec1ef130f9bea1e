/* Theory of operation
 *
 * Resolving is reading: one small JSON record per reference, and a look at each layer directory. The record
 * was written by import (fsync, rename) after all its layers were in place, so it is either absent or
 * complete; a layer that is missing all the same was removed by hand, and the image is refused rather than
 * stacked without it.
 *
 * A record takes from an image's own configuration the environment, command, directory and user, and nothing
 * else: labels and annotations are data that an image's maker wrote and never become behaviour. */
#include "overlay/image.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "overlay/host.h"

#define MAX_RECORD ((size_t)1 << 20)

void pf_image_done(struct pf_image *img)
{
	free(img->ref);
	free(img->digest);
	pf_strv_free(img->layers);
	for (size_t i = 0; i < img->n_binds; i++) {
		free(img->binds[i].source);
		free(img->binds[i].target);
	}
	free(img->binds);
	pf_strv_free(img->env);
	pf_strv_free(img->cmd);
	free(img->workdir);
	free(img->user);
	*img = (struct pf_image){0};
}

bool pf_digest_valid(const char *digest)
{
	if (!pf_starts_with(digest, "sha256:") || strlen(digest) != 71)
		return false;
	return strspn(digest + 7, "0123456789abcdef") == 64;
}

char *pf_digest_dir(const char *digest)
{
	char *s = pf_strdup(digest);
	char *colon = strchr(s, ':');

	if (colon)
		*colon = '-';
	return s;
}

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       strchr("._-/", c);
}

char *pf_image_ref_normalize(const char *ref, struct pf_err *err)
{
	size_t len = strlen(ref);
	const char *slash = strrchr(ref, '/'), *colon = strrchr(ref, ':');
	/* "host:5000/name" has a port, not a tag. */
	bool tagged = colon && (!slash || colon > slash);
	size_t name_len = tagged ? (size_t)(colon - ref) : len;
	bool ok = name_len > 0 && len <= 200 && isalnum((unsigned char)ref[0]) && ref[name_len - 1] != '/' &&
		  !strstr(ref, "..") && !strstr(ref, "//") && (!tagged || colon[1]);

	for (const char *s = ref; ok && *s; s++)
		ok = name_char(*s) || (*s == ':' && s != ref);
	if (ok && tagged)
		for (const char *s = colon + 1; *s; s++)
			ok = ok && *s != '/' && *s != ':';
	if (!ok || strcmp(ref, "host") == 0) {
		pf_fail_kind(err, PF_ERR_INVALID, 0,
			ok ? "'%.200s' is the machine itself and cannot be the name of a stored image"
			   : "'%.200s' is not an image name (NAME[:TAG] of letters, digits, '.', '_', '-' "
			     "and '/')",
			ref);
		return NULL;
	}
	return tagged ? pf_strdup(ref) : pf_asprintf("%s:latest", ref);
}

char *pf_image_ref_file(const char *ref)
{
	PF_BUF struct pf_buf b = {0};

	for (; *ref; ref++) {
		if (*ref == '/')
			pf_buf_str(&b, "%2F");
		else
			pf_buf_add(&b, ref, 1);
	}
	pf_buf_str(&b, ".json");
	return pf_take(b.data);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char **pf_image_names(const char *store, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("%s/images/refs", store);
	size_t n = 0, cap = 16;
	char **v = pf_calloc(cap, sizeof(*v));
	struct dirent *e;
	PF_CLOSEDIR DIR *d = opendir(path);

	if (!d && errno != ENOENT) {
		pf_fail(err, errno, "%s", path);
		free(v);
		return NULL;
	}
	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.' || !pf_ends_with(e->d_name, ".json"))
			continue;
		PF_BUF struct pf_buf b = {0};
		size_t len = strlen(e->d_name) - 5;
		for (size_t i = 0; i < len; i++) {
			bool slash = strncmp(e->d_name + i, "%2F", 3) == 0;
			pf_buf_add(&b, slash ? "/" : e->d_name + i, 1);
			i += slash ? 2 : 0;
		}
		if (n + 1 == cap) {
			cap *= 2;
			v = realloc(v, cap * sizeof(*v));
			if (!v)
				abort();
		}
		v[n++] = pf_take(b.data);
	}
	v[n] = NULL;
	if (n)
		qsort(v, n, sizeof(*v), by_name);
	return v;
}

static int not_found(const char *store, const char *ref, struct pf_err *err)
{
	PF_BUF struct pf_buf b = {0};
	char **names = pf_image_names(store, err);

	if (!names)
		return -1;
	pf_buf_str(&b, "host");
	for (size_t i = 0; names[i] && b.len < 500; i++)
		pf_buf_printf(&b, ", %s", names[i]);
	pf_strv_free(names);
	return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0,
		"there is no image '%.200s'; there are: %s (add one with: pinfold image import, or build)",
		ref, b.data);
}

static cJSON *load_record(const char *store, const char *ref, struct pf_err *err)
{
	PF_FREE char *file = pf_image_ref_file(ref);
	PF_FREE char *path = pf_asprintf("%s/images/refs/%s", store, file);
	PF_FREE char *text = NULL;
	size_t len;

	if (pf_read_file_at(AT_FDCWD, path, MAX_RECORD, &text, &len, err) < 0)
		return NULL;
	cJSON *j = pf_json_parse(path, text, len, err);
	if (!j)
		err->kind = PF_ERR_CORRUPT;
	return j;
}

static int join_commands(const cJSON *rec, char ***out, struct pf_err *err)
{
	char **entry = NULL, **cmd = NULL;
	int r = -1;

	if (pf_json_strv(rec, "", "entrypoint", &entry, err) >= 0 &&
		pf_json_strv(rec, "", "cmd", &cmd, err) >= 0) {
		size_t n = pf_strv_len(entry), m = pf_strv_len(cmd);
		char **v = pf_calloc(n + m + 1, sizeof(*v));
		for (size_t i = 0; i < n; i++)
			v[i] = pf_strdup(entry[i]);
		for (size_t i = 0; i < m; i++)
			v[n + i] = pf_strdup(cmd[i]);
		*out = v;
		r = 0;
	}
	pf_strv_free(entry);
	pf_strv_free(cmd);
	return r;
}

static bool listed(char *const *v, const char *s)
{
	for (; *v; v++)
		if (strcmp(*v, s) == 0)
			return true;
	return false;
}

/* The record has layers bottom first, as in an OCI config. One that comes twice (empty ones do) is stacked
 * once, where it is topmost: overlay refuses the same directory twice, and below itself a layer shows nothing
 * and hides nothing that it does not show or hide above. */
static int layer_paths(const char *store, const cJSON *rec, const char *ref, char ***out, struct pf_err *err)
{
	const cJSON *layers = NULL;
	struct stat st;
	size_t n = 0;

	if (pf_json_arr(rec, "", "layers", &layers, err) < 0)
		return -1;
	int count = cJSON_GetArraySize(layers);
	char **v = pf_calloc((size_t)count + 1, sizeof(*v));
	*out = v; /* the caller frees it in any case */
	if (count == 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "image %s has no layers", ref);
	for (int i = count - 1; i >= 0; i--) {
		const cJSON *l = cJSON_GetArrayItem(layers, i);
		if (!cJSON_IsString(l) || !pf_digest_valid(l->valuestring))
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "image %s: its record is damaged", ref);
		PF_FREE char *dir = pf_digest_dir(l->valuestring);
		PF_FREE char *path = pf_asprintf("%s/images/layers/%s/fs", store, dir);
		if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
				"image %s: layer %s is missing from the store; remove the image and import "
				"it again",
				ref, l->valuestring);
		if (!listed(v, path))
			v[n++] = pf_take(path);
	}
	return 0;
}

static int take_str(const cJSON *rec, const char *key, char **out, struct pf_err *err)
{
	const char *s = NULL;

	if (pf_json_str(rec, "", key, &s, err) < 0)
		return -1;
	*out = s && *s ? pf_strdup(s) : NULL;
	return 0;
}

static int from_record(
	const char *store, const cJSON *rec, const char *ref, struct pf_image *out, struct pf_err *err)
{
	out->kind = PF_IMAGE_STORED;
	out->ref = pf_strdup(ref);
	if (take_str(rec, "digest", &out->digest, err) < 0 ||
		take_str(rec, "workdir", &out->workdir, err) < 0 ||
		take_str(rec, "user", &out->user, err) < 0 ||
		pf_json_strv(rec, "", "env", &out->env, err) < 0 || join_commands(rec, &out->cmd, err) < 0) {
		err->kind = PF_ERR_CORRUPT;
		return pf_wrap(err, "image %s", ref);
	}
	if (!out->digest || !pf_digest_valid(out->digest))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "image %s: its record is damaged", ref);
	if (!out->env)
		out->env = pf_calloc(1, sizeof(char *));
	return layer_paths(store, rec, ref, &out->layers, err);
}

/* A digest or a prefix of one, against the config and the manifest digest of every image. */
static char *find_by_digest(const char *store, const char *want, struct pf_err *err)
{
	const char *hex = pf_starts_with(want, "sha256:") ? want + 7 : want;
	size_t len = strlen(hex);
	char **names = pf_image_names(store, err), *found = NULL;
	PF_FREE char *found_digest = NULL;

	for (size_t i = 0; names && names[i]; i++) {
		struct pf_err ignored = PF_ERR_INIT;
		PF_JSON cJSON *rec = load_record(store, names[i], &ignored);
		const char *d[2] = {NULL, NULL};
		if (!rec || pf_json_str(rec, "", "digest", &d[0], &ignored) < 0 ||
			pf_json_str(rec, "", "manifest", &d[1], &ignored) < 0)
			continue;
		for (int k = 0; k < 2; k++) {
			if (!d[k] || !pf_digest_valid(d[k]) || strncmp(d[k] + 7, hex, len) != 0)
				continue;
			/* Two names of one image are not ambiguous. */
			if (found_digest && strcmp(found_digest, d[0] ? d[0] : "") != 0) {
				pf_fail_kind(err, PF_ERR_INVALID, 0,
					"'%s' fits more than one image: %s and %s", want, found, names[i]);
				free(found);
				pf_strv_free(names);
				return NULL;
			}
			if (!found) {
				found = pf_strdup(names[i]);
				found_digest = pf_strdup(d[0] ? d[0] : "");
			}
		}
	}
	if (names && !found)
		not_found(store, want, err);
	pf_strv_free(names);
	return found;
}

static bool looks_like_digest(const char *ref)
{
	const char *hex = pf_starts_with(ref, "sha256:") ? ref + 7 : ref;
	size_t len = strlen(hex);

	return len >= 6 && len <= 64 && strspn(hex, "0123456789abcdef") == len;
}

static int from_dir(const char *path, struct pf_image *out, struct pf_err *err)
{
	struct stat st;
	PF_FREE char *clean = pf_path_clean(path, err);

	if (!clean)
		return -1;
	if (stat(clean, &st) < 0)
		return pf_fail_kind(err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno,
			"image directory %s", clean);
	if (!S_ISDIR(st.st_mode))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s is not a root directory (an archive must be imported first: pinfold image "
			"import)",
			clean);
	if (strcmp(clean, "/") == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"/ cannot be an image: it holds the host's secrets; use 'host'");
	out->kind = PF_IMAGE_DIR;
	out->digest = pf_asprintf("dir:%s", clean);
	out->layers = pf_calloc(2, sizeof(char *));
	out->env = pf_calloc(1, sizeof(char *));
	out->cmd = pf_calloc(1, sizeof(char *));
	out->ref = pf_strdup(clean);
	out->layers[0] = pf_take(clean);
	return 0;
}

static int resolve(const char *store, const char *ref, struct pf_image *out, struct pf_err *err)
{
	struct pf_err nf = PF_ERR_INIT;

	if (strcmp(ref, "host") == 0)
		return pf_host_image(store, out, err);
	if (ref[0] == '/')
		return from_dir(ref, out, err);
	/* A name wins over a digest prefix that reads the same. */
	PF_FREE char *name = NULL;
	if (!pf_starts_with(ref, "sha256:")) {
		name = pf_image_ref_normalize(ref, err);
		if (!name)
			return -1;
		PF_JSON cJSON *rec = load_record(store, name, &nf);
		if (rec)
			return from_record(store, rec, name, out, err);
		if (nf.kind != PF_ERR_NOT_FOUND) {
			*err = nf;
			return -1;
		}
	}
	if (!looks_like_digest(ref))
		return not_found(store, ref, err);
	PF_FREE char *found = find_by_digest(store, ref, err);
	if (!found)
		return -1;
	PF_JSON cJSON *rec = load_record(store, found, err);
	return rec ? from_record(store, rec, found, out, err) : -1;
}

int pf_image_resolve(const char *store, const char *ref, struct pf_image *out, struct pf_err *err)
{
	*out = (struct pf_image){0};
	int r = resolve(store, ref, out, err);

	if (r < 0)
		pf_image_done(out);
	return r;
}
