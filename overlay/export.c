/* Theory of operation
 *
 * Layers are kept unpacked, once, and not as archives besides; an export packs them again. Our own packer is
 * deterministic, so an image that was built or came from a directory leaves with the very digests it has
 * here. One that was imported from somebody else's tar leaves with the same content and other bytes, hence a
 * new image id, and the result says so. Blobs are written under temporary names, synced and renamed; the
 * index comes last. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "overlay/image.h"
#include "overlay/import.h"
#include "overlay/layer_store.h"
#include "overlay/pack.h"
#include "overlay/stream.h"

#define LEVEL 3

struct blob_writer {
	int fd;
	ZSTD_CCtx *z;
	EVP_MD_CTX *plain, *packed;
	char *out;
	size_t out_size;
	int64_t bytes;
	const struct pf_import_opts *opts;
	int64_t plain_bytes;
};

static int write_out(struct blob_writer *w, size_t n, struct pf_err *err)
{
	if (EVP_DigestUpdate(w->packed, w->out, n) != 1)
		return pf_fail(err, ENOMEM, "SHA-256");
	if (pf_write_all(w->fd, w->out, n) < 0)
		return pf_fail(err, errno, "write a layer");
	w->bytes += (int64_t)n;
	return 0;
}

static int compress(
	struct blob_writer *w, const void *data, size_t len, ZSTD_EndDirective end, struct pf_err *err)
{
	ZSTD_inBuffer in = {data, len, 0};
	size_t left;

	do {
		ZSTD_outBuffer out = {w->out, w->out_size, 0};
		left = ZSTD_compressStream2(w->z, &out, &in, end);
		if (ZSTD_isError(left))
			return pf_fail(err, 0, "compress: %s", ZSTD_getErrorName(left));
		if (out.pos && write_out(w, out.pos, err) < 0)
			return -1;
	} while (end == ZSTD_e_end ? left != 0 : in.pos < in.size);
	return 0;
}

static int sink(void *arg, const void *data, size_t len, struct pf_err *err)
{
	struct blob_writer *w = arg;

	if (EVP_DigestUpdate(w->plain, data, len) != 1)
		return pf_fail(err, ENOMEM, "SHA-256");
	w->plain_bytes += (int64_t)len;
	if (w->opts && w->opts->progress)
		w->opts->progress(w->opts->progress_arg, "packing", w->plain_bytes, 0);
	return compress(w, data, len, ZSTD_e_continue, err);
}

static int digest_text(EVP_MD_CTX *ctx, char *out, struct pf_err *err)
{
	unsigned char md[EVP_MAX_MD_SIZE];

	if (EVP_DigestFinal_ex(ctx, md, NULL) != 1)
		return pf_fail(err, ENOMEM, "SHA-256");
	memcpy(out, "sha256:", 7);
	for (size_t i = 0; i < 32; i++)
		snprintf(out + 7 + 2 * i, 3, "%02x", md[i]);
	return 0;
}

static void writer_done(struct blob_writer *w)
{
	ZSTD_freeCCtx(w->z);
	EVP_MD_CTX_free(w->plain);
	EVP_MD_CTX_free(w->packed);
	free(w->out);
}

static int writer_init(struct blob_writer *w, int fd, const struct pf_import_opts *opts, struct pf_err *err)
{
	*w = (struct blob_writer){.fd = fd, .opts = opts, .out_size = ZSTD_CStreamOutSize()};
	w->z = ZSTD_createCCtx();
	w->plain = EVP_MD_CTX_new();
	w->packed = EVP_MD_CTX_new();
	w->out = pf_calloc(1, w->out_size);
	if (w->z && w->plain && w->packed &&
		!ZSTD_isError(ZSTD_CCtx_setParameter(w->z, ZSTD_c_compressionLevel, LEVEL)) &&
		EVP_DigestInit_ex(w->plain, EVP_sha256(), NULL) == 1 &&
		EVP_DigestInit_ex(w->packed, EVP_sha256(), NULL) == 1)
		return 0;
	writer_done(w);
	return pf_fail(err, ENOMEM, "set up compression");
}

/* A blob under its temporary name → its digest's. */
static int place_blob(int blobs, const char *tmp, int fd, const char *digest, struct pf_err *err)
{
	if (fsync(fd) < 0 || renameat(blobs, tmp, blobs, digest + 7) < 0)
		return pf_fail(err, errno, "write a blob");
	return 0;
}

/* Pack one layer into blobs/. */
static int export_layer(int blobs, const char *fs_path, const struct pf_import_opts *opts, char *digest,
	char *diff_id, int64_t *size, struct pf_err *err)
{
	PF_FREE char *tmp = pf_asprintf(".%d.tmp", (int)getpid());
	PF_CLOSE int dir = open(fs_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct pf_pack_opts pack = {.layer = true};
	struct blob_writer w;
	int r = -1;

	if (dir < 0)
		return pf_fail(err, errno, "%s", fs_path);
	(void)unlinkat(blobs, tmp, 0);
	PF_CLOSE int fd = openat(blobs, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return pf_fail(err, errno, "create a blob");
	if (writer_init(&w, fd, opts, err) == 0) {
		if (pf_pack_tree(dir, &pack, sink, &w, NULL, err) == 0 &&
			compress(&w, NULL, 0, ZSTD_e_end, err) == 0 &&
			digest_text(w.plain, diff_id, err) == 0 && digest_text(w.packed, digest, err) == 0)
			r = place_blob(blobs, tmp, fd, digest, err);
		*size = w.bytes;
		writer_done(&w);
	}
	if (r < 0)
		(void)unlinkat(blobs, tmp, 0);
	return r;
}

static int put_json(int blobs, const char *text, char *digest, struct pf_err *err)
{
	if (pf_sha256(text, strlen(text), digest, err) < 0)
		return -1;
	return pf_replace_file_at(blobs, digest + 7, text, strlen(text), 0644, true, err);
}

static cJSON *descriptor(const char *type, const char *digest, int64_t size)
{
	cJSON *d = cJSON_CreateObject();

	cJSON_AddStringToObject(d, "mediaType", type);
	cJSON_AddStringToObject(d, "digest", digest);
	pf_json_add_int(d, "size", size);
	return d;
}

static cJSON *load_index(int dir, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	size_t len;

	if (faccessat(dir, "index.json", F_OK, 0) == 0) {
		if (pf_read_file_at(dir, "index.json", 4 << 20, &text, &len, err) < 0)
			return NULL;
		return pf_json_parse("index.json", text, len, err);
	}
	cJSON *j = cJSON_CreateObject();
	pf_json_add_int(j, "schemaVersion", 2);
	cJSON_AddStringToObject(j, "mediaType", "application/vnd.oci.image.index.v1+json");
	cJSON_AddArrayToObject(j, "manifests");
	return j;
}

/* Put desc into the index under tag, in place of what had it. */
static int update_index(int dir, cJSON *desc, const char *tag, struct pf_err *err)
{
	static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
	PF_CLOSE int lock = pf_lock_file_at(dir, ".lock", true, err);
	PF_JSON cJSON *index = lock < 0 ? NULL : load_index(dir, err);
	cJSON *manifests = cJSON_GetObjectItemCaseSensitive(index, "manifests");

	if (!index || !cJSON_IsArray(manifests)) {
		cJSON_Delete(desc);
		return index ? pf_fail_kind(err, PF_ERR_INVALID, 0, "the index there is damaged") : -1;
	}
	for (int i = cJSON_GetArraySize(manifests) - 1; i >= 0; i--) {
		const cJSON *a =
			cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(manifests, i), "annotations");
		const cJSON *n = cJSON_GetObjectItemCaseSensitive(a, "org.opencontainers.image.ref.name");
		if (cJSON_IsString(n) && strcmp(n->valuestring, tag) == 0)
			cJSON_DeleteItemFromArray(manifests, i);
	}
	cJSON *a = cJSON_AddObjectToObject(desc, "annotations");
	cJSON_AddStringToObject(a, "org.opencontainers.image.ref.name", tag);
	cJSON_AddItemToArray(manifests, desc);
	PF_FREE char *text = pf_json_text(index);
	if (pf_replace_file_at(dir, "oci-layout", layout, sizeof(layout) - 1, 0644, true, err) < 0)
		return -1;
	return pf_replace_file_at(dir, "index.json", text, strlen(text), 0644, true, err);
}

static cJSON *stored_config(const char *store, const char *ref, char **text, struct pf_err *err)
{
	struct pf_layer_store s;
	PF_FREE char *file = pf_image_ref_file(ref);
	PF_FREE char *rec_text = NULL;
	const char *config = NULL;
	size_t len;

	if (pf_layer_store_open(store, &s, err) < 0)
		return NULL;
	int r = pf_read_file_at(s.refs, file, 1 << 20, &rec_text, &len, err);
	pf_layer_store_close(&s);
	PF_JSON cJSON *rec = r < 0 ? NULL : pf_json_parse(file, rec_text, len, err);
	if (!rec || pf_json_str(rec, "", "config", &config, err) < 0)
		return NULL;
	if (!config) {
		pf_fail_kind(err, PF_ERR_CORRUPT, 0, "image %s has no configuration", ref);
		return NULL;
	}
	*text = pf_strdup(config);
	return pf_json_parse("config", config, strlen(config), err);
}

static int export_to(const char *store, const struct pf_image *img, int dir, int blobs, const char *tag,
	const struct pf_import_opts *opts, cJSON *result, struct pf_err *err)
{
	PF_FREE char *config_text = NULL;
	PF_JSON cJSON *config = stored_config(store, img->ref, &config_text, err);
	PF_JSON cJSON *manifest = cJSON_CreateObject();
	char digest[PF_DIGEST_SIZE], diff_id[PF_DIGEST_SIZE];
	size_t n = pf_strv_len(img->layers);
	int64_t size = 0;

	if (!config)
		return -1;
	cJSON *rootfs = cJSON_GetObjectItemCaseSensitive(config, "rootfs");
	cJSON *now = cJSON_CreateArray(), *layers = cJSON_CreateArray();
	for (size_t i = 0; i < n; i++) { /* bottom first */
		if (export_layer(blobs, img->layers[n - 1 - i], opts, digest, diff_id, &size, err) < 0) {
			cJSON_Delete(now);
			cJSON_Delete(layers);
			return -1;
		}
		cJSON_AddItemToArray(
			layers, descriptor("application/vnd.oci.image.layer.v1.tar+zstd", digest, size));
		cJSON_AddItemToArray(now, cJSON_CreateString(diff_id));
	}
	/* A layer that an image has twice is exported once. */
	bool same = cJSON_Compare(now, cJSON_GetObjectItemCaseSensitive(rootfs, "diff_ids"), true);
	cJSON_ReplaceItemInObjectCaseSensitive(rootfs, "diff_ids", now);
	if (!same) {
		free(config_text);
		config_text = pf_json_text(config);
	}
	pf_json_add_int(manifest, "schemaVersion", 2);
	cJSON_AddStringToObject(manifest, "mediaType", "application/vnd.oci.image.manifest.v1+json");
	if (put_json(blobs, config_text, digest, err) < 0) {
		cJSON_Delete(layers);
		return -1;
	}
	cJSON_AddStringToObject(result, "digest", digest);
	cJSON_AddBoolToObject(result, "same", same);
	cJSON_AddItemToObject(manifest, "config",
		descriptor("application/vnd.oci.image.config.v1+json", digest, (int64_t)strlen(config_text)));
	cJSON_AddItemToObject(manifest, "layers", layers);
	PF_FREE char *text = pf_json_text(manifest);
	if (put_json(blobs, text, digest, err) < 0)
		return -1;
	cJSON_AddStringToObject(result, "manifest", digest);
	return update_index(dir,
		descriptor("application/vnd.oci.image.manifest.v1+json", digest, (int64_t)strlen(text)), tag,
		err);
}

cJSON *pf_image_export(const char *store, const char *ref, const char *dest,
	const struct pf_import_opts *opts, struct pf_err *err)
{
	struct pf_image img;
	cJSON *result;

	if (!pf_starts_with(dest, "oci:")) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "'%s': images are exported to oci:DIR[:TAG]", dest);
		return NULL;
	}
	PF_FREE char *path = pf_strdup(dest + 4);
	char *colon = strrchr(path, ':');
	if (colon && strchr(colon, '/'))
		colon = NULL;
	if (colon)
		*colon = '\0';
	if (pf_image_resolve(store, ref, &img, err) < 0)
		return NULL;
	if (img.kind != PF_IMAGE_STORED) {
		pf_image_done(&img);
		pf_fail_kind(err, PF_ERR_INVALID, 0, "only stored images can be exported, not '%s'", ref);
		return NULL;
	}
	PF_FREE char *blobs_path = pf_asprintf("%s/blobs/sha256", path);
	PF_CLOSE int dir = -1, blobs = -1;
	result = cJSON_CreateObject();
	int r = pf_mkdirs(blobs_path, 0755, err);
	if (r == 0 && ((dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
			      (blobs = open(blobs_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0))
		r = pf_fail(err, errno, "%s", path);
	if (r == 0)
		r = export_to(store, &img, dir, blobs, colon ? colon + 1 : strrchr(img.ref, ':') + 1, opts,
			result, err);
	pf_image_done(&img);
	if (r < 0) {
		cJSON_Delete(result);
		pf_wrap(err, "export %s", ref);
		return NULL;
	}
	return result;
}
