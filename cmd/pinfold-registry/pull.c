/* Theory of operation: the manifest is fetched by name or digest and compared with the digest that it is
 * under; it names everything else by digest and size, and each byte that comes is hashed on its way to the
 * disk. A download that breaks is gone on with from where it broke. What results is an OCI layout that nobody
 * has looked at yet: pinfold-store takes it in, with all the checks that it has for any other. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "checkpoint/oci.h"
#include "checkpoint/store.h"
#include "cmd/pinfold-registry/registry.h"

#define INDEX_TYPE "application/vnd.oci.image.index.v1+json"
#define DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define MAX_MANIFEST ((size_t)4 << 20)
#define MAX_BREAKS 20

static const char *text_of(const cJSON *o, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
}

static int fetch_manifest(struct reg *r, const char *what, char **text, size_t *len, struct pf_err *err)
{
	static const char *const headers[] = {
		"Accept: " PF_OCI_MANIFEST_TYPE ", " INDEX_TYPE ", " DOCKER_MANIFEST ", " DOCKER_LIST, NULL};
	PF_FREE char *url = pf_asprintf("%s/manifests/%s", r->base, what);
	const struct reg_request q = {.method = "GET",
		.url = url,
		.headers = headers,
		.fd = -1,
		.max = MAX_MANIFEST,
		.retry = true};
	struct reg_reply a = {0};
	struct pf_digest is;

	if (reg_send(r, &q, &a, err) < 0)
		return -1;
	int rc = a.status == 200 && a.text ? 0 : reg_refused(r, &a, what, err);
	if (rc == 0 && pf_digest_ok(what)) {
		pf_sha256_digest(a.text, a.len, &is);
		if (strcmp(is.s, what) != 0)
			rc = pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s: manifest %s has the digest %s",
				r->ref.host, what, is.s);
	}
	if (rc == 0) {
		*len = a.len;
		*text = a.text;
		a.text = NULL;
	}
	reg_reply_done(&a);
	return rc;
}

/* Of a list the entry for this machine; a list of one is that. */
static const char *choose(const cJSON *list)
{
#if defined(__aarch64__)
	static const char here[] = "arm64";
#else
	static const char here[] = "amd64";
#endif
	const cJSON *e;
	const char *only =
		cJSON_GetArraySize(list) == 1 ? text_of(cJSON_GetArrayItem(list, 0), "digest") : NULL;

	cJSON_ArrayForEach(e, list)
	{
		const cJSON *platform = cJSON_GetObjectItemCaseSensitive(e, "platform");
		const char *os = text_of(platform, "os"), *arch = text_of(platform, "architecture");
		if (os && arch && strcmp(os, "linux") == 0 && strcmp(arch, here) == 0)
			return text_of(e, "digest");
	}
	return only;
}

/* ---- blobs ---- */

struct download {
	struct reg *r;
	int fd;
	EVP_MD_CTX *hash;
	int64_t have, size;
	bool ranged;     /* the rest was asked for, and nothing has come yet */
	bool too_much;   /* why on_blob would not go on … */
	int write_errno; /* … or this */
};

static int start_again(struct download *d)
{
	reg_progress(d->r, -d->have, false);
	d->have = 0;
	return ftruncate(d->fd, 0) < 0 || lseek(d->fd, 0, SEEK_SET) < 0 ||
			       EVP_DigestInit_ex(d->hash, EVP_sha256(), NULL) != 1
		       ? -1
		       : 0;
}

static bool on_blob(void *arg, const char *data, size_t len)
{
	struct download *d = arg;
	long status = 0;

	/* The rest was asked for, and all of it comes. */
	if (d->ranged && curl_easy_getinfo(d->r->curl, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK &&
		status == 200 && start_again(d) < 0)
		return false;
	d->ranged = false;
	d->too_much = (int64_t)len > d->size - d->have;
	if (d->too_much)
		return false;
	if (pf_write_all(d->fd, data, len) < 0) {
		d->write_errno = errno;
		return false;
	}
	if (EVP_DigestUpdate(d->hash, data, len) != 1)
		return false;
	d->have += (int64_t)len;
	reg_progress(d->r, (int64_t)len, false);
	return true;
}

static int download(struct download *d, const char *url, const char *digest, struct pf_err *err)
{
	int breaks = 0;

	for (;;) {
		char range[64];
		const char *const headers[] = {range, NULL};
		const struct reg_request q = {.method = "GET",
			.url = url,
			.headers = d->have ? headers : NULL,
			.fd = -1,
			.sink = on_blob,
			.arg = d,
			.retry = true};
		struct reg_reply a = {0};

		snprintf(range, sizeof(range), "Range: bytes=%lld-", (long long)d->have);
		d->ranged = d->have > 0;
		if (reg_send(d->r, &q, &a, err) < 0)
			return d->write_errno ? pf_fail(err, d->write_errno, "write it")
			       : d->too_much  ? pf_fail_kind(err, PF_ERR_CORRUPT, 0,
							"%s sent more than its %lld bytes", d->r->ref.host,
							(long long)d->size)
					      : -1;
		bool cut = a.cut;
		int rc = a.status == 200 || a.status == 206 ? 0 : reg_refused(d->r, &a, digest, err);
		reg_reply_done(&a);
		if (rc < 0)
			return -1;
		if (d->have == d->size)
			return 0;
		if (!cut)
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%lld of %lld bytes came",
				(long long)d->have, (long long)d->size);
		if (++breaks > MAX_BREAKS)
			return pf_fail_kind(err, PF_ERR_SYSTEM, 0, "%s: the download broke %d times",
				d->r->ref.host, breaks);
	}
}

static int check_hash(struct download *d, const char *digest, struct pf_err *err)
{
	uint8_t raw[32];
	struct pf_digest is;

	if (EVP_DigestFinal_ex(d->hash, raw, NULL) != 1)
		return pf_fail(err, ENOMEM, "libcrypto");
	pf_digest_from_raw(raw, &is);
	return strcmp(is.s, digest) == 0 ? 0
					 : pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s sent something else (%s)",
						   d->r->ref.host, is.s);
}

static int pull_blob(
	struct reg *r, int blobs, const cJSON *descriptor, struct reg_stats *s, struct pf_err *err)
{
	const char *digest = text_of(descriptor, "digest");
	int64_t want = reg_size_of(descriptor);

	if (!digest || !pf_digest_ok(digest))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the manifest names a blob without its digest");
	s->blobs++;
	/* One that comes twice. */
	if (faccessat(blobs, digest + 7, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		reg_progress(r, want, false);
		return 0;
	}
	PF_FREE char *url = pf_asprintf("%s/blobs/%s", r->base, digest);
	PF_CLOSE int fd = openat(blobs, digest + 7, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	struct download d = {.r = r, .fd = fd, .hash = EVP_MD_CTX_new(), .size = want};
	int rc = fd < 0 || !d.hash || EVP_DigestInit_ex(d.hash, EVP_sha256(), NULL) != 1
			 ? pf_fail(err, errno, "blob %s", digest)
			 : download(&d, url, digest, err);
	if (rc == 0)
		rc = check_hash(&d, digest, err);
	EVP_MD_CTX_free(d.hash);
	if (rc < 0)
		return pf_wrap(err, "blob %.19s", digest);
	s->sent++;
	s->sent_bytes += want;
	return 0;
}

/* ---- the layout ---- */

static int write_blob(
	int blobs, const struct pf_digest *digest, const char *text, size_t len, struct pf_err *err)
{
	return pf_replace_file_at(blobs, pf_digest_hex(digest), text, len, 0600, false, err);
}

static int write_index(int dir, const struct pf_digest *digest, size_t len, const char *type,
	const char *name, struct pf_err *err)
{
	static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
	PF_JSON cJSON *index = cJSON_CreateObject();
	cJSON *e = cJSON_CreateObject();

	cJSON_AddNumberToObject(index, "schemaVersion", 2);
	cJSON_AddItemToArray(cJSON_AddArrayToObject(index, "manifests"), e);
	cJSON_AddStringToObject(e, "mediaType", type);
	cJSON_AddStringToObject(e, "digest", digest->s);
	cJSON_AddNumberToObject(e, "size", (double)len);
	cJSON_AddStringToObject(cJSON_AddObjectToObject(e, "annotations"), PF_OCI_REF_NAME, name);
	PF_FREE char *text = pf_json_text(index);
	return pf_replace_file_at(dir, "oci-layout", layout, sizeof(layout) - 1, 0600, false, err) < 0 ||
			       pf_replace_file_at(dir, "index.json", text, strlen(text), 0600, false, err) < 0
		       ? -1
		       : 0;
}

/* ---- which layers are wanted ---- */

int64_t reg_size_of(const cJSON *descriptor)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(descriptor, "size");

	return cJSON_IsNumber(n) && n->valuedouble >= 0 && n->valuedouble <= (double)PF_CKPT_MAX_BYTES
		       ? (int64_t)n->valuedouble
		       : -1;
}

static int add_size(struct reg *r, const cJSON *descriptor, struct pf_err *err)
{
	int64_t n = reg_size_of(descriptor);

	if (n < 0)
		return pf_fail_kind(
			err, PF_ERR_CORRUPT, 0, "the manifest names a blob of a size that cannot be");
	r->total += n;
	return 0;
}

static bool in_store(int storefd, const char *id)
{
	char path[120];

	if (!id || !pf_digest_ok(id) || storefd < 0)
		return false;
	snprintf(path, sizeof(path), "layers/%s", id + 7);
	if (faccessat(storefd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return true;
	snprintf(path, sizeof(path), "layers/%s.sealed", id + 7);
	return faccessat(storefd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* The checkpoint's manifest, as the image's configuration has it; NULL: none, or of version 1. */
static cJSON *checkpoint_of(int blobs, const cJSON *config)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *text = NULL;
	const char *digest = text_of(config, "digest");
	size_t len;

	if (!digest || pf_read_file_at(blobs, digest + 7, PF_CKPT_MAX_DOC, &text, &len, &ignored) < 0)
		return NULL;
	PF_JSON cJSON *j = pf_json_parse("config", text, len, &ignored);
	const char *inner = text_of(j, PF_CKPT_KEY);
	return inner ? pf_json_parse("checkpoint", inner, strlen(inner), &ignored) : NULL;
}

/* Of a checkpoint the last layers are its own, and those below are its image's, which is not taken in. What
 * the store has is not fetched. Whether all of it is true is for import to find out. */
static int pull_layers(struct reg *r, int blobs, int storefd, const cJSON *config, const cJSON *layers,
	struct reg_stats *s, struct pf_err *err)
{
	PF_JSON cJSON *checkpoint = checkpoint_of(blobs, config);
	const cJSON *own = cJSON_GetObjectItemCaseSensitive(checkpoint, "layers"), *layer;
	int n = cJSON_GetArraySize(layers), n_own = cJSON_IsArray(own) ? cJSON_GetArraySize(own) : n, i = 0;

	cJSON_ArrayForEach(layer, layers)
	{
		const cJSON *o = cJSON_IsArray(own) ? cJSON_GetArrayItem(own, i - (n - n_own)) : NULL;
		bool wanted = i >= n - n_own && !in_store(storefd, text_of(o, "id"));
		i++;
		if (!wanted) {
			s->blobs++;
			reg_progress(r, reg_size_of(layer), false);
		} else if (pull_blob(r, blobs, layer, s, err) < 0) {
			return -1;
		}
	}
	return 0;
}

int reg_pull(
	struct reg *r, int dir_fd, int storefd, const char *name, struct reg_stats *s, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	size_t len = 0;

	if (fetch_manifest(r, r->ref.digest ? r->ref.digest : r->ref.tag, &text, &len, err) < 0)
		return -1;
	PF_JSON cJSON *manifest = pf_json_parse("manifest", text, len, err);
	if (!manifest)
		return -1;
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(manifest, "manifests");
	if (cJSON_IsArray(list)) {
		const char *digest = choose(list);
		if (!digest || !pf_digest_ok(digest))
			return pf_fail_kind(
				err, PF_ERR_NOT_FOUND, 0, "the list of images has none for this machine");
		PF_FREE char *copy = pf_strdup(digest);
		free(pf_take(text));
		cJSON_Delete(manifest);
		manifest = NULL;
		if (fetch_manifest(r, copy, &text, &len, err) < 0)
			return -1;
		manifest = pf_json_parse("manifest", text, len, err);
		if (!manifest)
			return -1;
	}
	const cJSON *config = cJSON_GetObjectItemCaseSensitive(manifest, "config"), *layer;
	const cJSON *layers = cJSON_GetObjectItemCaseSensitive(manifest, "layers");
	const char *type = text_of(manifest, "mediaType");
	if (!cJSON_IsObject(config) || !cJSON_IsArray(layers) || cJSON_GetArraySize(layers) > 1000)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "it is no image: config and layers are missing");
	if (mkdirat(dir_fd, "blobs", 0700) < 0 || mkdirat(dir_fd, "blobs/sha256", 0700) < 0)
		return pf_fail(err, errno, "mkdir");
	PF_CLOSE int blobs = openat(dir_fd, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (blobs < 0)
		return pf_fail(err, errno, "blobs");
	pf_sha256_digest(text, len, &s->digest);
	if (add_size(r, config, err) < 0)
		return -1;
	cJSON_ArrayForEach(layer, layers) if (add_size(r, layer, err) < 0) return -1;
	if (write_blob(blobs, &s->digest, text, len, err) < 0 || pull_blob(r, blobs, config, s, err) < 0 ||
		pull_layers(r, blobs, storefd, config, layers, s, err) < 0)
		return -1;
	reg_progress(r, r->total - r->done, true);
	return write_index(dir_fd, &s->digest, len, type ? type : PF_OCI_MANIFEST_TYPE, name, err);
}
