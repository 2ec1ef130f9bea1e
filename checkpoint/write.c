/* Theory of operation.
 *
 * Everything is made in a directory of our own under tmp/, locked by us, and every file there is fsynced. The
 * commit is then, under the store's lock: rename the blobs in, fsync their directory, replace index.json. A
 * crash or kill before the last step leaves files that nothing refers to; gc collects them. After it the
 * checkpoint exists.
 *
 * Blobs that are there already are replaced by what we just made: the content is the same by name, and a
 * damaged one is healed by it. */
#include "checkpoint/write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "checkpoint/gc.h"

const char *const pf_ckpt_default_exclude[] = {"/dev", "/proc", "/run", "/sys", "/tmp", NULL};

/* The box is given these as mounts; an image that lacks them gets empty files to mount them on. */
static const char *const mount_points[] = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", NULL};

void pf_ckpt_result_done(struct pf_ckpt_result *r)
{
	free(r->name);
	r->name = NULL;
}

const char *pf_oci_architecture(void)
{
	static const char *const map[][2] = {{"x86_64", "amd64"}, {"aarch64", "arm64"}, {"armv7l", "arm"},
		{"i686", "386"}, {"ppc64le", "ppc64le"}, {"s390x", "s390x"}, {"riscv64", "riscv64"}};
	struct utsname u;

	if (uname(&u) == 0)
		for (size_t i = 0; i < sizeof(map) / sizeof(*map); i++)
			if (strcmp(u.machine, map[i][0]) == 0)
				return map[i][1];
	return "unknown";
}

static void timestamp(char out[40])
{
	struct timespec now;
	struct tm tm;
	char day[32];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out, 40, "%.24s.%06uZ", day, (unsigned)now.tv_nsec / 1000 % 1000000);
}

int pf_ckpt_put_document(
	int tmp_fd, const char *text, struct pf_digest *digest, int64_t *size, struct pf_err *err)
{
	size_t len = strlen(text);

	pf_sha256_digest(text, len, digest);
	*size = (int64_t)len;
	PF_CLOSE int fd =
		openat(tmp_fd, pf_digest_hex(digest), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || pf_write_all(fd, text, len) < 0 || fsync(fd) < 0)
		return pf_fail(err, errno, "write a document");
	return 0;
}

static cJSON *descriptor(const char *type, const struct pf_digest *d, int64_t size)
{
	cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "mediaType", type);
	cJSON_AddStringToObject(j, "digest", d->s);
	pf_json_add_int(j, "size", size);
	return j;
}

int pf_ckpt_commit(int storefd, int tmp_fd, const struct pf_digest *files, size_t n_files,
	const struct pf_digest *manifest, int64_t manifest_size, const char *name, const char *sandbox_id,
	const char *created, struct pf_err *err)
{
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	PF_CLOSE int blobs = openat(storefd, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (!index)
		return -1;
	if (blobs < 0)
		return pf_fail(err, errno, "blobs/sha256");
	if (pf_ckpt_index_find(index, manifest->s, NULL))
		return pf_fail_kind(
			err, PF_ERR_EXISTS, 0, "checkpoint %s is in the store already", manifest->s);
	if (*name && pf_ckpt_index_find(index, NULL, name))
		return pf_fail_kind(err, PF_ERR_EXISTS, 0,
			"the checkpoint name '%s' is taken: choose another, or remove that one first", name);
	for (size_t i = 0; i < n_files; i++)
		if (renameat(tmp_fd, pf_digest_hex(&files[i]), blobs, pf_digest_hex(&files[i])) < 0)
			return pf_fail(err, errno, "move blob %.19s into place", files[i].s);
	if (pf_sync_dir(blobs, err) < 0)
		return -1;
	cJSON *entry = descriptor(PF_OCI_MANIFEST_TYPE, manifest, manifest_size);
	cJSON *notes = cJSON_AddObjectToObject(entry, "annotations");
	if (*name)
		cJSON_AddStringToObject(notes, PF_OCI_REF_NAME, name);
	cJSON_AddStringToObject(notes, "org.opencontainers.image.created", created);
	cJSON_AddStringToObject(notes, PF_CKPT_KEY ".sandbox", sandbox_id);
	cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(index, "manifests"), entry);
	return pf_ckpt_index_write(storefd, index, err);
}

/* "<sandbox id>.<n>" with the lowest n above all used ones that is free. */
static char *default_name(const cJSON *index, const char *sandbox_id)
{
	const cJSON *m;
	long n = 0;

	cJSON_ArrayForEach(m, cJSON_GetObjectItemCaseSensitive(index, "manifests"))
	{
		const char *name = pf_ckpt_index_note(m, PF_OCI_REF_NAME), *dot = strrchr(name, '.');
		if (!dot || strncmp(name, sandbox_id, (size_t)(dot - name)) != 0 ||
			strlen(sandbox_id) != (size_t)(dot - name))
			continue;
		long k = strtol(dot + 1, NULL, 10);
		if (k > n && k < 1000000000)
			n = k;
	}
	return pf_asprintf("%s.%ld", sandbox_id, n + 1);
}

static void add_stats(cJSON *record, const struct pf_ckpt_result *r)
{
	cJSON *s = cJSON_AddObjectToObject(record, "stats");

	pf_json_add_int(s, "files", r->walked.files);
	pf_json_add_int(s, "dirs", r->walked.dirs);
	pf_json_add_int(s, "symlinks", r->walked.symlinks);
	pf_json_add_int(s, "hardlinks", r->walked.hardlinks);
	pf_json_add_int(s, "deletions", r->walked.whiteouts);
	pf_json_add_int(s, "bytes", r->walked.bytes);
	pf_json_add_int(s, "layer_bytes", r->layer.size);
	pf_json_add_int(s, "skipped", r->walked.skipped);
	pf_json_add_int(s, "dropped_xattrs", r->packed.dropped_xattrs);
}

static cJSON *make_record(const struct pf_ckpt_source *src, const char *const *exclude, const char *created,
	const struct pf_ckpt_result *r)
{
	cJSON *j = cJSON_CreateObject(), *base, *list;

	cJSON_AddNumberToObject(j, "version", 1);
	cJSON_AddStringToObject(j, "sandbox_id", src->sandbox_id);
	cJSON_AddStringToObject(j, "name", r->name);
	cJSON_AddStringToObject(j, "created", created);
	cJSON_AddStringToObject(j, "parent", src->parent ? src->parent : "");
	cJSON_AddStringToObject(j, "from", src->from ? src->from : "");
	base = cJSON_AddObjectToObject(j, "base_image");
	cJSON_AddStringToObject(base, "ref", src->base_image_ref);
	cJSON_AddStringToObject(base, "digest", src->base_image_digest);
	cJSON_AddItemToObject(
		j, "labels", src->labels ? cJSON_Duplicate(src->labels, true) : cJSON_CreateObject());
	if (src->sandbox_file)
		cJSON_AddItemToObject(j, "sandbox_file", cJSON_Duplicate(src->sandbox_file, true));
	if (src->policy)
		cJSON_AddItemToObject(j, "policy", cJSON_Duplicate(src->policy, true));
	list = cJSON_AddArrayToObject(j, "exclude");
	for (; *exclude; exclude++)
		cJSON_AddItemToArray(list, cJSON_CreateString(*exclude));
	cJSON_AddBoolToObject(j, "live", src->live != NULL);
	add_stats(j, r);
	return j;
}

static void add_history(cJSON *history, const char *created)
{
	cJSON *h = cJSON_CreateObject();

	if (*created)
		cJSON_AddStringToObject(h, "created", created);
	cJSON_AddStringToObject(h, "created_by", "pinfold snapshot");
	cJSON_AddItemToArray(history, h);
}

/* Config and manifest as files in tmp_fd. below holds the layers under the new one (topmost first). */
static int make_documents(int tmp_fd, const struct pf_ckpt_source *src, const char *const *exclude,
	const struct pf_ckpt *below, const char *created, struct pf_ckpt_result *r,
	struct pf_digest *config_d, int64_t *manifest_size, struct pf_err *err)
{
	PF_JSON cJSON *config = cJSON_CreateObject(), *manifest = cJSON_CreateObject();
	cJSON *inner, *rootfs, *diff_ids, *history, *layers, *notes;
	int64_t config_size;

	cJSON_AddStringToObject(config, "created", created);
	cJSON_AddStringToObject(config, "architecture", pf_oci_architecture());
	cJSON_AddStringToObject(config, "os", "linux");
	inner = cJSON_AddObjectToObject(config, "config");
	cJSON_AddItemToObject(
		inner, "Labels", src->labels ? cJSON_Duplicate(src->labels, true) : cJSON_CreateObject());
	rootfs = cJSON_AddObjectToObject(config, "rootfs");
	cJSON_AddStringToObject(rootfs, "type", "layers");
	diff_ids = cJSON_AddArrayToObject(rootfs, "diff_ids");
	history = cJSON_AddArrayToObject(config, "history");
	layers = cJSON_CreateArray();
	for (size_t i = below->n_layers; i-- > 0;) {
		cJSON_AddItemToArray(diff_ids, cJSON_CreateString(below->layers[i].diff_id.s));
		cJSON_AddItemToArray(layers,
			descriptor(PF_OCI_LAYER_ZSTD_TYPE, &below->layers[i].digest, below->layers[i].size));
		add_history(history, "");
	}
	cJSON_AddItemToArray(diff_ids, cJSON_CreateString(r->layer.diff_id.s));
	cJSON_AddItemToArray(layers, descriptor(PF_OCI_LAYER_ZSTD_TYPE, &r->layer.digest, r->layer.size));
	add_history(history, created);
	cJSON_AddItemToObject(config, PF_CKPT_KEY, make_record(src, exclude, created, r));

	PF_FREE char *config_text = pf_json_text(config);
	if (pf_ckpt_put_document(tmp_fd, config_text, config_d, &config_size, err) < 0) {
		cJSON_Delete(layers);
		return -1;
	}
	cJSON_AddNumberToObject(manifest, "schemaVersion", 2);
	cJSON_AddStringToObject(manifest, "mediaType", PF_OCI_MANIFEST_TYPE);
	cJSON_AddItemToObject(manifest, "config", descriptor(PF_OCI_CONFIG_TYPE, config_d, config_size));
	cJSON_AddItemToObject(manifest, "layers", layers);
	notes = cJSON_AddObjectToObject(manifest, "annotations");
	cJSON_AddStringToObject(notes, "org.opencontainers.image.created", created);
	cJSON_AddStringToObject(notes, "org.opencontainers.image.base.name", src->base_image_ref);
	cJSON_AddStringToObject(notes, "org.opencontainers.image.base.digest", src->base_image_digest);
	cJSON_AddStringToObject(notes, PF_CKPT_KEY ".sandbox", src->sandbox_id);
	cJSON_AddStringToObject(notes, PF_CKPT_KEY ".parent", src->parent ? src->parent : "");
	PF_FREE char *manifest_text = pf_json_text(manifest);
	if (pf_ckpt_put_document(tmp_fd, manifest_text, &r->digest, manifest_size, err) < 0)
		return -1;
	r->bytes_new = config_size + *manifest_size;
	return 0;
}

static bool has_blob(int storefd, const struct pf_digest *d, int64_t size)
{
	char path[96];
	struct stat st;

	return fstatat(storefd, pf_ckpt_blob_path(d, path), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISREG(st.st_mode) && st.st_size == size;
}

static int commit(int storefd, int tmp_fd, const struct pf_ckpt_source *src, const char *const *exclude,
	struct pf_ckpt_result *r, struct pf_err *err)
{
	PF_CKPT struct pf_ckpt below = {0};
	char created[40];
	struct pf_digest files[3];
	int64_t manifest_size;
	PF_CLOSE int lock = pf_ckpt_lock(storefd, err);

	if (lock < 0)
		return -1;
	if (src->from && pf_ckpt_load(storefd, src->from, NULL, &below, err) < 0)
		return pf_wrap(err, "the checkpoint below this sandbox");
	for (size_t i = 0; i < below.n_layers; i++)
		if (!below.layers[i].present)
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
				"layer %s of the checkpoint below is missing or cut",
				below.layers[i].digest.s);
	if (below.n_layers >= PF_CKPT_MAX_LAYERS)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"this chain has %zu layers already, more cannot be stacked", below.n_layers);
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	if (!index)
		return -1;
	r->name = src->name ? pf_strdup(src->name) : default_name(index, src->sandbox_id);
	if (pf_ckpt_index_find(index, NULL, r->name))
		return pf_fail_kind(err, PF_ERR_EXISTS, 0,
			"the checkpoint name '%s' is taken: choose another, or remove that one first",
			r->name);
	timestamp(created);
	if (make_documents(tmp_fd, src, exclude, &below, created, r, &files[1], &manifest_size, err) < 0)
		return -1;
	if (!has_blob(storefd, &r->layer.digest, r->layer.size))
		r->bytes_new += r->layer.size;
	if (renameat(tmp_fd, "layer", tmp_fd, pf_digest_hex(&r->layer.digest)) < 0)
		return pf_fail(err, errno, "name the layer");
	files[0] = r->layer.digest;
	files[2] = r->digest;
	if (pf_ckpt_commit(storefd, tmp_fd, files, 3, &r->digest, manifest_size, r->name, src->sandbox_id,
		    created, err) < 0) {
		/* Blobs may have been moved in before it failed: nothing refers to them. */
		struct pf_err ignored = PF_ERR_INIT;
		(void)pf_ckpt_gc_locked(storefd, NULL, &ignored);
		return -1;
	}
	return 0;
}

static int pack(int tmp_fd, const struct pf_ckpt_source *src, const char *const *exclude,
	struct pf_ckpt_result *r, struct pf_err *err)
{
	struct pf_walk_opts o = {
		.exclude = exclude, .exclude_empty = mount_points, .userxattr = src->userxattr};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int threads = src->threads ? src->threads : cpus < 1 ? 1 : cpus > 16 ? 16 : (int)cpus;

	if (src->live)
		return pf_live_pack(src->upper_fd, &o, tmp_fd, "layer", src->level, threads, src->live,
			&r->layer, &r->walked, &r->packed, &r->live, err);
	PF_CLOSE int fd = openat(tmp_fd, "layer", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return pf_fail(err, errno, "create the layer");
	return pf_pack_layer(
		src->upper_fd, &o, fd, src->level, threads, NULL, &r->layer, &r->walked, &r->packed, err);
}

static int check_source(int storefd, const struct pf_ckpt_source *src, struct pf_err *err)
{
	if (pf_check_id("sandbox id", src->sandbox_id, err) < 0 ||
		(src->name && pf_check_id("checkpoint name", src->name, err) < 0))
		return -1;
	if (src->name && strcmp(src->name, "latest") == 0)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "'latest' means the newest checkpoint: choose another name");
	if ((src->from && !pf_digest_ok(src->from)) || (src->parent && !pf_digest_ok(src->parent)))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "from and parent must be sha256 digests");
	/* Before the work, not only after it; commit looks again, under the lock. */
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	if (!index)
		return -1;
	if (src->name && pf_ckpt_index_find(index, NULL, src->name))
		return pf_fail_kind(err, PF_ERR_EXISTS, 0,
			"the checkpoint name '%s' is taken: choose another, or remove that one first",
			src->name);
	return 0;
}

/* What restoring would refuse must not be written. */
static int check_limits(const struct pf_walk_stats *w, struct pf_err *err)
{
	int64_t entries = w->files + w->dirs * 2 + w->symlinks + w->fifos + w->whiteouts + w->hardlinks;

	if (w->bytes > PF_CKPT_MAX_BYTES)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, EFBIG,
			"the files add up to %" PRId64 " bytes, holes included; a checkpoint holds %" PRId64,
			w->bytes, PF_CKPT_MAX_BYTES);
	if (entries > PF_CKPT_MAX_ENTRIES)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"%" PRId64 " names; a checkpoint holds %" PRId64, entries, PF_CKPT_MAX_ENTRIES);
	return 0;
}

int pf_ckpt_write(
	const char *store, const struct pf_ckpt_source *src, struct pf_ckpt_result *res, struct pf_err *err)
{
	int64_t t0 = pf_now_us();
	PF_CLOSE int storefd = pf_ckpt_store_open(store, true, err);
	size_t n_defaults = sizeof(pf_ckpt_default_exclude) / sizeof(char *) - 1, n = 0;
	char tmp[64];
	int tmp_fd = -1;

	*res = (struct pf_ckpt_result){0};
	if (storefd < 0 || check_source(storefd, src, err) < 0)
		return -1;
	while (src->exclude && src->exclude[n])
		n++;
	PF_FREE const char **exclude = pf_calloc(n_defaults + n + 1, sizeof(*exclude));
	memcpy(exclude, pf_ckpt_default_exclude, n_defaults * sizeof(*exclude));
	for (size_t i = 0; i < n; i++)
		exclude[n_defaults + i] = src->exclude[i];
	if (pf_ckpt_tmp_make(storefd, tmp, &tmp_fd, err) < 0)
		return -1;
	int r = pack(tmp_fd, src, exclude, res, err);
	if (r == 0)
		r = check_limits(&res->walked, err);
	if (r == 0)
		r = commit(storefd, tmp_fd, src, exclude, res, err);
	pf_ckpt_tmp_remove(storefd, tmp, &tmp_fd);
	if (r < 0)
		pf_ckpt_result_done(res);
	res->duration_us = pf_now_us() - t0;
	return r;
}
