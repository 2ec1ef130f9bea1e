/* Theory of operation: both ways copy blobs one by one through the hash into a directory that nobody sees
 * yet; only when all of them are what they claim to be is that directory renamed (export) or are its files
 * committed under the store's lock (import), by the same function that commits a new checkpoint. */
#include "checkpoint/transfer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/progress.h"
#include "base/str.h"
#include "checkpoint/pack.h"
#include "checkpoint/store.h"
#include "checkpoint/verify.h"
#include "checkpoint/write.h"

/* Copy a blob from one layout to a new file named by its hex in to_fd, then compare. */
static int copy_blob(int from_fd, const struct pf_digest *d, int64_t size, const struct pf_digest *diff_id,
	int to_fd, struct pf_err *err)
{
	char path[96];
	PF_CLOSE int in = openat(from_fd, pf_ckpt_blob_path(d, path),
		O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	PF_CLOSE int out = -1;
	struct stat st;

	if (in < 0 || fstat(in, &st) < 0)
		return pf_fail_kind(err, errno == ENOENT || errno == ELOOP ? PF_ERR_CORRUPT : PF_ERR_SYSTEM,
			errno, "%s", path);
	if (!S_ISREG(st.st_mode) || st.st_size != size)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s: not a file of the %lld bytes it should have",
			path, (long long)size);
	out = openat(to_fd, pf_digest_hex(d), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		return errno == EEXIST ? 0 : pf_fail(err, errno, "create blob");
	for (int64_t left = size; left > 0;) {
		ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
		if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)) {
			char buf[65536];
			n = read(in, buf, sizeof(buf));
			if (n > 0 && pf_write_all(out, buf, (size_t)n) < 0)
				return pf_fail(err, errno, "write %s", path);
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return pf_fail(err, n < 0 ? errno : EIO, "copy %s", path);
		left -= n;
	}
	if (lseek(out, 0, SEEK_SET) < 0 || fsync(out) < 0)
		return pf_fail(err, errno, "write %s", path);
	/* What is compared is our copy: the source may change under us. */
	return pf_ckpt_check_blob(out, d, size, diff_id, -1, NULL, err);
}

static int copy_checkpoint(int from_fd, const struct pf_ckpt *c, int to_fd,
	struct pf_ckpt_transfer_stats *stats, struct pf_err *err)
{
	if (copy_blob(from_fd, &c->digest, c->manifest_size, NULL, to_fd, err) < 0 ||
		copy_blob(from_fd, &c->config_digest, c->config_size, NULL, to_fd, err) < 0)
		return -1;
	for (size_t i = 0; i < c->n_layers; i++)
		pf_progress_expect(c->layers[i].size);
	for (size_t i = 0; i < c->n_layers; i++) {
		if (copy_blob(from_fd, &c->layers[i].digest, c->layers[i].size, &c->layers[i].diff_id, to_fd,
			    err) < 0)
			return -1;
		stats->bytes += c->layers[i].size;
	}
	stats->blobs = (int64_t)c->n_layers + 2;
	stats->bytes += c->manifest_size + c->config_size;
	return 0;
}

static cJSON *load_blob_json(int storefd, const struct pf_digest *d, struct pf_err *err)
{
	char path[96];
	PF_FREE char *text = NULL;
	size_t len;

	if (pf_read_file_at(storefd, pf_ckpt_blob_path(d, path), PF_CKPT_MAX_DOC, &text, &len, err) < 0)
		return NULL;
	return pf_json_parse(path, text, len, err);
}

/* Pack one directory of the base image and put it in front of what the manifest and config list. */
static int add_base_layer(
	int blobs, const char *dir, cJSON *layers, cJSON *diff_ids, int at, struct pf_err *err)
{
	PF_CLOSE int root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSE int fd = openat(blobs, "layer", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct pf_walk_opts o = {0};
	struct pf_tarout_result r;
	struct pf_walk_stats w;
	struct pf_pack_stats p;

	if (root < 0 || fd < 0)
		return pf_fail(err, errno, "base layer %s", dir);
	if (pf_pack_layer(root, &o, fd, 0, 2, NULL, &r, &w, &p, err) < 0)
		return pf_wrap(err, "base layer %s", dir);
	if (renameat(blobs, "layer", blobs, pf_digest_hex(&r.digest)) < 0)
		return pf_fail(err, errno, "name the layer");
	cJSON *desc = cJSON_CreateObject();
	cJSON_AddStringToObject(desc, "mediaType", PF_OCI_LAYER_ZSTD_TYPE);
	cJSON_AddStringToObject(desc, "digest", r.digest.s);
	pf_json_add_int(desc, "size", r.size);
	cJSON_InsertItemInArray(layers, at, desc);
	cJSON_InsertItemInArray(diff_ids, at, cJSON_CreateString(r.diff_id.s));
	return 0;
}

/* Put the plain tar of a layer beside the blob, and into its descriptor. */
static int plain_layer(int blobs, cJSON *desc, const char *diff_id, struct pf_err *err)
{
	struct pf_digest d, tar;
	int64_t size = 0, tar_size = 0;

	/* Both strings come from documents that pf_ckpt_load or we have made sure of. */
	memcpy(d.s, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(desc, "digest")), sizeof(d.s));
	memcpy(tar.s, diff_id, sizeof(tar.s));
	PF_CLOSE int in = openat(blobs, pf_digest_hex(&d), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (in < 0 || fstat(in, &st) < 0)
		return pf_fail(err, errno, "layer %.19s", d.s);
	size = st.st_size;
	PF_CLOSE int out = openat(blobs, "layer", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		return pf_fail(err, errno, "create the layer");
	if (pf_ckpt_check_blob(in, &d, size, &tar, out, &tar_size, err) < 0)
		return -1;
	if (fsync(out) < 0 || renameat(blobs, "layer", blobs, pf_digest_hex(&tar)) < 0 ||
		unlinkat(blobs, pf_digest_hex(&d), 0) < 0)
		return pf_fail(err, errno, "name the layer");
	cJSON_ReplaceItemInObjectCaseSensitive(
		desc, "mediaType", cJSON_CreateString("application/vnd.oci.image.layer.v1.tar"));
	cJSON_ReplaceItemInObjectCaseSensitive(desc, "digest", cJSON_CreateString(tar.s));
	cJSON_DeleteItemFromObjectCaseSensitive(desc, "size");
	pf_json_add_int(desc, "size", tar_size);
	return 0;
}

static int plain_layers(int blobs, cJSON *layers, const cJSON *diff_ids, struct pf_err *err)
{
	const cJSON *diff = diff_ids->child;
	cJSON *desc;

	cJSON_ArrayForEach(desc, layers)
	{
		if (plain_layer(blobs, desc, diff->valuestring, err) < 0)
			return -1;
		diff = diff->next;
	}
	return 0;
}

/* The manifest and config of an image made from the checkpoint. The record does not come along: this is an
 * image, and import refuses it. */
static int make_image(int storefd, const struct pf_ckpt *c, int blobs, const struct pf_ckpt_export_opts *opts,
	struct pf_digest *digest, int64_t *size, struct pf_err *err)
{
	PF_JSON cJSON *manifest = load_blob_json(storefd, &c->digest, err);
	PF_JSON cJSON *config = manifest ? load_blob_json(storefd, &c->config_digest, err) : NULL;
	struct pf_digest config_d;
	int64_t config_size;
	size_t n = 0;

	if (!config)
		return -1;
	cJSON *layers = cJSON_GetObjectItemCaseSensitive(manifest, "layers");
	cJSON *diff_ids = cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(config, "rootfs"), "diff_ids");
	cJSON_DeleteItemFromObjectCaseSensitive(config, PF_CKPT_KEY);
	/* A history must say as many layers as there are. */
	cJSON_DeleteItemFromObjectCaseSensitive(config, "history");
	cJSON *inner = cJSON_GetObjectItemCaseSensitive(config, "config");
	const cJSON *member;
	cJSON_ArrayForEach(member, opts->base_config)
		cJSON_AddItemToObject(inner, member->string, cJSON_Duplicate(member, true));
	while (opts->base_layers && opts->base_layers[n])
		n++;
	for (size_t i = n; i-- > 0;)
		if (add_base_layer(blobs, opts->base_layers[i], layers, diff_ids, (int)(n - 1 - i), err) < 0)
			return -1;
	if (opts->uncompressed && plain_layers(blobs, layers, diff_ids, err) < 0)
		return -1;
	PF_FREE char *config_text = pf_json_text(config);
	if (pf_ckpt_put_document(blobs, config_text, &config_d, &config_size, err) < 0)
		return -1;
	cJSON *desc = cJSON_GetObjectItemCaseSensitive(manifest, "config");
	cJSON_ReplaceItemInObjectCaseSensitive(desc, "digest", cJSON_CreateString(config_d.s));
	cJSON_DeleteItemFromObjectCaseSensitive(desc, "size");
	pf_json_add_int(desc, "size", config_size);
	PF_FREE char *text = pf_json_text(manifest);
	return pf_ckpt_put_document(blobs, text, digest, size, err);
}

static int write_layout(
	int dirfd, const struct pf_digest *manifest, int64_t size, const char *name, struct pf_err *err)
{
	static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
	PF_JSON cJSON *index = cJSON_CreateObject();

	cJSON_AddNumberToObject(index, "schemaVersion", 2);
	cJSON *list = cJSON_AddArrayToObject(index, "manifests"), *m = cJSON_CreateObject();
	cJSON_AddStringToObject(m, "mediaType", PF_OCI_MANIFEST_TYPE);
	cJSON_AddStringToObject(m, "digest", manifest->s);
	pf_json_add_int(m, "size", size);
	if (*name)
		cJSON_AddStringToObject(cJSON_AddObjectToObject(m, "annotations"), PF_OCI_REF_NAME, name);
	cJSON_AddItemToArray(list, m);
	PF_FREE char *text = pf_json_text(index);
	if (pf_replace_file_at(dirfd, "oci-layout", layout, strlen(layout), 0600, true, err) < 0)
		return -1;
	return pf_replace_file_at(dirfd, "index.json", text, strlen(text), 0600, true, err);
}

/* Add up what lies there. */
static int count_blobs(int dirfd, struct pf_ckpt_transfer_stats *stats, struct pf_err *err)
{
	PF_CLOSEDIR DIR *d = fdopendir(fcntl(dirfd, F_DUPFD_CLOEXEC, 3));
	struct dirent *e;
	struct stat st;

	stats->blobs = stats->bytes = 0;
	while (d && (errno = 0, e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		if (fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return pf_fail(err, errno, "blob %s", e->d_name);
		stats->blobs++;
		stats->bytes += st.st_size;
	}
	return !d || errno ? pf_fail(err, errno, "list the blobs") : 0;
}

static int fill_export(int storefd, const struct pf_ckpt *c, int dirfd,
	const struct pf_ckpt_export_opts *opts, struct pf_ckpt_transfer_stats *stats, struct pf_err *err)
{
	int64_t size = c->manifest_size;

	if (mkdirat(dirfd, "blobs", 0700) < 0 || mkdirat(dirfd, "blobs/sha256", 0700) < 0)
		return pf_fail(err, errno, "mkdir blobs");
	PF_CLOSE int blobs = openat(dirfd, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (blobs < 0)
		return pf_fail(err, errno, "blobs");
	if (copy_checkpoint(storefd, c, blobs, stats, err) < 0)
		return -1;
	stats->digest = c->digest;
	if (opts->base_layers || opts->uncompressed) {
		if (make_image(storefd, c, blobs, opts, &stats->digest, &size, err) < 0)
			return -1;
		/* What only the checkpoint's own manifest refers to. */
		(void)unlinkat(blobs, pf_digest_hex(&c->digest), 0);
		(void)unlinkat(blobs, pf_digest_hex(&c->config_digest), 0);
	}
	if (count_blobs(blobs, stats, err) < 0 || pf_sync_dir(blobs, err) < 0)
		return -1;
	return write_layout(dirfd, &stats->digest, size, c->name, err);
}

int pf_ckpt_export(const char *store, const char *spec, const char *sandbox_id, const char *dir,
	const struct pf_ckpt_export_opts *opts, struct pf_ckpt_transfer_stats *stats, struct pf_err *err)
{
	PF_CLOSE int storefd = pf_ckpt_store_open(store, false, err);
	PF_CKPT struct pf_ckpt c = {0};
	PF_FREE char *tmp = pf_asprintf("%s.%d.tmp", dir, (int)getpid());
	struct pf_err ignored = PF_ERR_INIT;
	struct stat st;

	*stats = (struct pf_ckpt_transfer_stats){0};
	if (storefd < 0 || pf_ckpt_resolve_at(storefd, spec, sandbox_id, &c, err) < 0)
		return -1;
	if (lstat(dir, &st) == 0)
		return pf_fail_kind(err, PF_ERR_EXISTS, 0, "%s exists already: choose a new directory", dir);
	if (mkdir(tmp, 0700) < 0)
		return pf_fail(err, errno, "mkdir %s", tmp);
	PF_CLOSE int fd = open(tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r = fd < 0 ? pf_fail(err, errno, "open %s", tmp) : fill_export(storefd, &c, fd, opts, stats, err);
	if (r == 0 && renameat2(AT_FDCWD, tmp, AT_FDCWD, dir, RENAME_NOREPLACE) < 0)
		r = pf_fail(err, errno, "rename to %s", dir);
	if (r < 0) {
		(void)pf_rm_rf_at(AT_FDCWD, tmp, &ignored);
		return -1;
	}
	snprintf(stats->name, sizeof(stats->name), "%s", c.name);
	return 0;
}

/* The wanted entry of a foreign index. */
static const cJSON *pick(const cJSON *index, const char *ref, struct pf_err *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(index, "manifests"), *m;

	if (ref) {
		m = pf_ckpt_index_find(index, ref, ref);
		if (!m)
			pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "the layout has no '%.100s'", ref);
		return m;
	}
	if (cJSON_GetArraySize(list) != 1) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "the layout has %d entries: say which with oci:DIR:NAME",
			cJSON_GetArraySize(list));
		return NULL;
	}
	return cJSON_GetArrayItem(list, 0);
}

static int import_commit(
	int storefd, int tmp_fd, const struct pf_ckpt *c, const char *name, struct pf_err *err)
{
	PF_CLOSE int lock = pf_ckpt_lock(storefd, err);
	PF_FREE struct pf_digest *files = pf_calloc(c->n_layers + 2, sizeof(*files));
	size_t n = 0;

	if (lock < 0)
		return -1;
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	if (!index)
		return -1;
	const cJSON *here = pf_ckpt_index_find(index, c->digest.s, NULL);
	if (here && strcmp(pf_ckpt_index_note(here, PF_OCI_REF_NAME), name) == 0)
		return 0;
	/* Equal layers in one manifest are one file. */
	for (size_t i = 0; i < c->n_layers; i++) {
		size_t k = 0;
		while (k < n && strcmp(files[k].s, c->layers[i].digest.s) != 0)
			k++;
		if (k == n)
			files[n++] = c->layers[i].digest;
	}
	files[n++] = c->config_digest;
	files[n++] = c->digest;
	return pf_ckpt_commit(storefd, tmp_fd, files, n, &c->digest, c->manifest_size, name, c->sandbox_id,
		c->created, err);
}

static int import_from(int storefd, int dirfd, const char *ref, const char *name,
	struct pf_ckpt_transfer_stats *stats, struct pf_err *err)
{
	PF_JSON cJSON *index = pf_ckpt_index_read(dirfd, err);
	const cJSON *entry = index ? pick(index, ref, err) : NULL;
	PF_CKPT struct pf_ckpt c = {0};
	char tmp[64];
	int tmp_fd = -1;

	if (!entry)
		return -1;
	const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "digest"));
	if (!name)
		name = pf_ckpt_index_note(entry, PF_OCI_REF_NAME);
	if (pf_check_id("checkpoint name (set one with --name)", name, err) < 0)
		return -1;
	if (strcmp(name, "latest") == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"'latest' means the newest checkpoint: set another name with --name");
	if (pf_ckpt_load(dirfd, digest, name, &c, err) < 0)
		return -1;
	stats->digest = c.digest;
	snprintf(stats->name, sizeof(stats->name), "%s", name);
	if (pf_ckpt_tmp_make(storefd, tmp, &tmp_fd, err) < 0)
		return -1;
	int r = copy_checkpoint(dirfd, &c, tmp_fd, stats, err);
	if (r == 0)
		r = import_commit(storefd, tmp_fd, &c, name, err);
	pf_ckpt_tmp_remove(storefd, tmp, &tmp_fd);
	return r;
}

int pf_ckpt_import(const char *store, const char *dir, const char *ref, const char *name,
	struct pf_ckpt_transfer_stats *stats, struct pf_err *err)
{
	PF_CLOSE int storefd = pf_ckpt_store_open(store, true, err);
	PF_CLOSE int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*stats = (struct pf_ckpt_transfer_stats){0};
	if (storefd < 0)
		return -1;
	if (dirfd < 0)
		return pf_fail_kind(
			err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "%s", dir);
	if (import_from(storefd, dirfd, ref, name, stats, err) < 0)
		return pf_wrap(err, "import %s", dir);
	return 0;
}
