/* Theory of operation
 *
 * Five kinds of source, one path. An archive (of any kind) is first unpacked, by the same guarded code as a
 * layer, into a temporary directory; what it is shows then: `index.json` and `oci-layout` make it an OCI
 * layout, a `manifest.json` that is a list makes it a docker archive, and otherwise the tree is a root file
 * system, that is: the layer itself, already unpacked. Layouts are read by descriptors below their directory,
 * so a link in one leads nowhere else.
 *
 * Trust runs from the top: the index names the manifest by digest, that names config and layers, the config
 * names diff ids. Every hash is compared, and nothing is looked at before it was. Of a docker archive only
 * diff ids are known.
 *
 * Layers are unpacked one by one into temporary directories without a lock; all are put in place and the
 * record is written under the store's lock at the end. Whatever fails before leaves nothing but temporary
 * directories, which this process removes, or gc if it was killed. */
#include "overlay/import.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "overlay/image.h"
#include "overlay/layer_store.h"
#include "overlay/pack.h"
#include "overlay/stream.h"

#define MAX_BLOB_JSON ((size_t)4 << 20)
#define MAX_LAYERS 127

struct layer_tmp {
	struct pf_store_tmp tmp;
	struct pf_unpack_stats stats;
	bool present; /* was in the store already */
};

struct import {
	struct pf_layer_store store;
	const struct pf_import_opts *opts;
	const char *source;
	const char *what; /* for progress */
	int64_t total;
	char *name; /* the name that the source suggests */
	cJSON *record;
	struct layer_tmp layers[MAX_LAYERS];
	size_t n_layers;
	int64_t skipped_devices;
};

static int corrupt(struct pf_err *err, const char *what)
{
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s", what);
}

static void report(void *arg, int64_t done)
{
	struct import *im = arg;

	if (im->opts->progress)
		im->opts->progress(im->opts->progress_arg, im->what, done, im->total);
}

static struct pf_unpack_opts unpack_opts(struct import *im)
{
	return (struct pf_unpack_opts){
		.max_bytes = im->opts->max_bytes, .progress = report, .progress_arg = im};
}

/* ---- names ---- */

static bool is_plain_tag(const char *s)
{
	return s && *s && strlen(s) <= 128 && !strpbrk(s, "/:");
}

static void suggest_name(struct import *im, const char *name)
{
	if (im->name || !name || !*name)
		return;
	/* What docker leaves out when it shows names. */
	if (pf_starts_with(name, "docker.io/"))
		name += strlen("docker.io/");
	if (pf_starts_with(name, "library/"))
		name += strlen("library/");
	im->name = pf_strdup(name);
}

/* "/x/python.tar.zst" and tag "3.11" → "python:3.11" */
static void suggest_from_path(struct import *im, const char *path, const char *tag)
{
	PF_FREE char *copy = pf_strdup(path);
	size_t n = strlen(copy);

	while (n > 1 && copy[n - 1] == '/')
		copy[--n] = '\0';
	char *base = strrchr(copy, '/') ? strrchr(copy, '/') + 1 : copy;
	char *dot = strstr(base, ".tar");
	if (!dot)
		dot = strstr(base, ".tgz");
	if (dot)
		*dot = '\0';
	PF_FREE char *name = is_plain_tag(tag) ? pf_asprintf("%s:%s", base, tag) : pf_strdup(base);
	if (strcmp(path, "-") != 0)
		suggest_name(im, name);
}

/* ---- blobs of a layout ---- */

/* A regular file below dir, at most max bytes, as text. */
static int read_in(int dir, const char *path, size_t max, char **out, size_t *len, struct pf_err *err)
{
	PF_CLOSE int fd = pf_open_in_root(dir, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	struct stat st;

	if (fd < 0)
		return pf_fail_kind(
			err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "%.200s", path);
	if (fstat(fd, &st) < 0)
		return pf_fail(err, errno, "%.200s", path);
	if (!S_ISREG(st.st_mode) || st.st_size > (off_t)max)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%.200s: not a regular file, or too large", path);
	PF_FREE char *buf = pf_calloc((size_t)st.st_size + 1, 1);
	ssize_t n = pf_read_full(fd, buf, (size_t)st.st_size);
	if (n < 0)
		return pf_fail(err, errno, "read %.200s", path);
	*len = (size_t)n;
	*out = pf_take(buf);
	return 0;
}

static char *blob_path(const char *digest)
{
	return pf_asprintf("blobs/sha256/%s", digest + strlen("sha256:"));
}

/* A descriptor's digest, checked in form. */
static const char *descriptor_digest(const cJSON *desc, struct pf_err *err)
{
	const char *digest = NULL;

	if (!cJSON_IsObject(desc) || pf_json_str(desc, "descriptor", "digest", &digest, err) < 0 || !digest ||
		!pf_digest_valid(digest)) {
		corrupt(err, "a descriptor without a sha256 digest");
		return NULL;
	}
	return digest;
}

/* The JSON blob that desc names; *text (malloc'ed, may be NULL) gets its bytes. */
static cJSON *load_blob(int dir, const cJSON *desc, char **text, struct pf_err *err)
{
	const char *digest = descriptor_digest(desc, err);
	PF_FREE char *bytes = NULL;
	char got[PF_DIGEST_SIZE];
	size_t len;

	if (!digest)
		return NULL;
	PF_FREE char *path = blob_path(digest);
	if (read_in(dir, path, MAX_BLOB_JSON, &bytes, &len, err) < 0) {
		if (err->kind == PF_ERR_NOT_FOUND)
			pf_fail_kind(err, PF_ERR_CORRUPT, 0, "blob %s is missing", digest);
		return NULL;
	}
	if (pf_sha256(bytes, len, got, err) < 0)
		return NULL;
	if (strcmp(got, digest) != 0) {
		pf_fail_kind(err, PF_ERR_CORRUPT, 0, "blob %s is damaged: its digest is %s", digest, got);
		return NULL;
	}
	cJSON *j = pf_json_parse(path, bytes, len, err);
	if (!j)
		err->kind = PF_ERR_CORRUPT;
	else if (text)
		*text = pf_take(bytes);
	return j;
}

/* ---- layers ---- */

static struct layer_tmp *new_layer(struct import *im, struct pf_err *err)
{
	if (im->n_layers == MAX_LAYERS) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "the image has more than %d layers", MAX_LAYERS);
		return NULL;
	}
	struct layer_tmp *l = &im->layers[im->n_layers];
	*l = (struct layer_tmp){.tmp = PF_STORE_TMP_INIT};
	im->n_layers++;
	return l;
}

/* One layer's archive; digest may be NULL. A layer that the store has is not unpacked again. */
static int take_layer(struct import *im, int dir, const char *path, const char *digest, const char *diff_id,
	struct pf_err *err)
{
	struct layer_tmp *l = new_layer(im, err);
	struct pf_unpack_opts opts = unpack_opts(im);
	struct stat st;

	if (!l)
		return -1;
	if (pf_layer_present(&im->store, diff_id)) {
		l->present = true;
		strcpy(l->stats.diff_id, diff_id);
		return 0;
	}
	PF_CLOSE int fd = pf_open_in_root(dir, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return errno == ENOENT ? pf_fail_kind(err, PF_ERR_CORRUPT, 0, "layer %.200s is missing", path)
				       : pf_fail(err, errno, "layer %.200s", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return corrupt(err, "a layer is not a regular file");
	if (pf_store_tmp_new(&im->store, &l->tmp, err) < 0)
		return -1;
	opts.digest = digest;
	opts.diff_id = diff_id;
	im->what = diff_id;
	im->total = st.st_size;
	if (pf_layer_unpack(&l->tmp, fd, &opts, &l->stats, err) < 0)
		return pf_wrap(err, "layer %zu", im->n_layers);
	im->skipped_devices += l->stats.skipped_devices;
	return 0;
}

static bool known_layer_type(const char *type)
{
	static const char *const known[] = {"application/vnd.oci.image.layer.v1.tar",
		"application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd",
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
		"application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.diff.tar.zstd"};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(type, known[i]) == 0)
			return true;
	return false;
}

static int add_digests(struct import *im, const char *digest, const char *manifest, const char *config_text)
{
	cJSON_AddStringToObject(im->record, "digest", digest);
	if (manifest)
		cJSON_AddStringToObject(im->record, "manifest", manifest);
	cJSON_AddStringToObject(im->record, "config", config_text);
	return 0;
}

static int take_manifest(struct import *im, int dir, const cJSON *desc, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	const cJSON *cdesc = NULL, *layers = NULL;
	PF_JSON cJSON *m = load_blob(dir, desc, NULL, err);

	if (!m)
		return -1;
	if (pf_json_obj(m, "manifest", "config", &cdesc, err) <= 0 ||
		pf_json_arr(m, "manifest", "layers", &layers, err) <= 0)
		return corrupt(err, "the manifest has no config or no layers");
	PF_JSON cJSON *config = load_blob(dir, cdesc, &text, err);
	if (!config || pf_record_from_config(config, im->record, err) < 0)
		return -1;
	const cJSON *diff_ids = cJSON_GetObjectItemCaseSensitive(im->record, "layers");
	int n = cJSON_GetArraySize(diff_ids);
	if (n != cJSON_GetArraySize(layers))
		return corrupt(err, "manifest and config do not have the same number of layers");
	for (int i = 0; i < n; i++) {
		const cJSON *l = cJSON_GetArrayItem(layers, i);
		const char *digest = descriptor_digest(l, err), *type = "";
		if (!digest || pf_json_str(l, "layer", "mediaType", &type, err) < 0)
			return -1;
		if (!known_layer_type(type))
			return pf_fail_kind(
				err, PF_ERR_UNSUPPORTED, 0, "layers of type '%.100s' cannot be read", type);
		PF_FREE char *path = blob_path(digest);
		if (take_layer(im, dir, path, digest, cJSON_GetArrayItem(diff_ids, i)->valuestring, err) < 0)
			return -1;
	}
	return add_digests(im, descriptor_digest(cdesc, err), descriptor_digest(desc, err), text);
}

static const char *annotation(const cJSON *desc, const char *key)
{
	const cJSON *a = cJSON_GetObjectItemCaseSensitive(desc, "annotations");
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(a, key);

	return cJSON_IsString(v) ? v->valuestring : NULL;
}

static bool is_index(const cJSON *desc)
{
	const cJSON *t = cJSON_GetObjectItemCaseSensitive(desc, "mediaType");

	return cJSON_IsString(t) &&
	       (strcmp(t->valuestring, "application/vnd.oci.image.index.v1+json") == 0 ||
		       strcmp(t->valuestring, "application/vnd.docker.distribution.manifest.list.v2+json") ==
			       0);
}

static bool for_this_machine(const cJSON *desc)
{
	const cJSON *p = cJSON_GetObjectItemCaseSensitive(desc, "platform");
	const cJSON *os = cJSON_GetObjectItemCaseSensitive(p, "os");
	const cJSON *arch = cJSON_GetObjectItemCaseSensitive(p, "architecture");
#if defined(__x86_64__)
	static const char here[] = "amd64";
#elif defined(__aarch64__)
	static const char here[] = "arm64";
#else
	static const char here[] = "";
#endif

	if (!p)
		return true;
	return cJSON_IsString(os) && strcmp(os->valuestring, "linux") == 0 && cJSON_IsString(arch) &&
	       strcmp(arch->valuestring, here) == 0;
}

static const char *const ref_name = "org.opencontainers.image.ref.name";

/* The one manifest of an index that is meant: by tag when one is given, by machine when there are several. */
static const cJSON *pick(const cJSON *index, const char *tag, struct pf_err *err)
{
	const cJSON *manifests = NULL, *m, *found = NULL;
	PF_BUF struct pf_buf names = {0};
	int fits = 0;

	if (!cJSON_IsObject(index) || pf_json_arr(index, "index", "manifests", &manifests, err) < 0) {
		corrupt(err, "the index is damaged");
		return NULL;
	}
	pf_buf_str(&names, "");
	cJSON_ArrayForEach(m, manifests)
	{
		const char *name = annotation(m, ref_name);
		if (name && names.len < 300)
			pf_buf_printf(&names, " %.60s", name);
		if (!for_this_machine(m) || (tag && (!name || strcmp(name, tag) != 0)))
			continue;
		fits++;
		if (!found)
			found = m;
	}
	if (fits == 1)
		return found;
	if (fits == 0)
		pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "the layout has no image %s%.100s; there are:%s",
			tag ? "named " : "for this machine", tag ? tag : "",
			names.len ? names.data : " none with a name");
	else
		pf_fail_kind(err, PF_ERR_INVALID, 0,
			"the layout has several images, say which one by :TAG;%s",
			names.len ? names.data : " none has a name");
	return NULL;
}

static int take_layout(struct import *im, int dir, const char *path, const char *tag, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	size_t len;

	if (read_in(dir, "index.json", MAX_BLOB_JSON, &text, &len, err) < 0)
		return pf_wrap(err, "not an OCI layout");
	PF_JSON cJSON *index = pf_json_parse("index.json", text, len, err);
	PF_JSON cJSON *nested = NULL;
	if (!index) {
		err->kind = PF_ERR_CORRUPT;
		return -1;
	}
	const cJSON *desc = pick(index, tag, err);
	if (!desc)
		return -1;
	const char *name = annotation(desc, ref_name);
	suggest_name(im, annotation(desc, "io.containerd.image.name"));
	if (name && !is_plain_tag(name))
		suggest_name(im, name);
	suggest_from_path(im, path, name);
	if (is_index(desc)) {
		nested = load_blob(dir, desc, NULL, err);
		desc = nested ? pick(nested, NULL, err) : NULL;
		if (!desc)
			return -1;
		if (is_index(desc))
			return corrupt(err, "indexes nest too deep");
	}
	return take_manifest(im, dir, desc, err);
}

static int take_docker(struct import *im, int dir, const cJSON *list, const char *path, struct pf_err *err)
{
	const cJSON *m = cJSON_GetArrayItem(list, 0), *layers = NULL, *tags = NULL;
	const char *config_path = NULL;
	PF_FREE char *text = NULL;
	char digest[PF_DIGEST_SIZE];
	size_t len;

	if (cJSON_GetArraySize(list) != 1 || !cJSON_IsObject(m))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "the archive must hold one image, it has %d",
			cJSON_GetArraySize(list));
	if (pf_json_str(m, "manifest", "Config", &config_path, err) <= 0 ||
		pf_json_arr(m, "manifest", "Layers", &layers, err) <= 0 ||
		pf_json_arr(m, "manifest", "RepoTags", &tags, err) < 0)
		return corrupt(err, "manifest.json lacks Config or Layers");
	if (cJSON_IsString(cJSON_GetArrayItem(tags, 0)))
		suggest_name(im, cJSON_GetArrayItem(tags, 0)->valuestring);
	suggest_from_path(im, path, NULL);
	if (read_in(dir, config_path, MAX_BLOB_JSON, &text, &len, err) < 0 ||
		pf_sha256(text, len, digest, err) < 0)
		return -1;
	PF_JSON cJSON *config = pf_json_parse("config", text, len, err);
	if (!config || pf_record_from_config(config, im->record, err) < 0)
		return -1;
	const cJSON *diff_ids = cJSON_GetObjectItemCaseSensitive(im->record, "layers");
	int n = cJSON_GetArraySize(diff_ids);
	if (n != cJSON_GetArraySize(layers))
		return corrupt(err, "manifest.json and config do not have the same number of layers");
	for (int i = 0; i < n; i++) {
		const cJSON *l = cJSON_GetArrayItem(layers, i);
		if (!cJSON_IsString(l))
			return corrupt(err, "manifest.json: a layer is not a path");
		if (take_layer(im, dir, l->valuestring, NULL, cJSON_GetArrayItem(diff_ids, i)->valuestring,
			    err) < 0)
			return -1;
	}
	return add_digests(im, digest, NULL, text);
}

/* ---- a root file system without a configuration ---- */

static int synthesize_config(struct import *im, const char *diff_id, struct pf_err *err)
{
	char digest[PF_DIGEST_SIZE];
	PF_JSON cJSON *c = cJSON_CreateObject();
	cJSON *rootfs, *ids;

#if defined(__aarch64__)
	cJSON_AddStringToObject(c, "architecture", "arm64");
#else
	cJSON_AddStringToObject(c, "architecture", "amd64");
#endif
	cJSON_AddStringToObject(c, "os", "linux");
	cJSON_AddObjectToObject(c, "config");
	rootfs = cJSON_AddObjectToObject(c, "rootfs");
	cJSON_AddStringToObject(rootfs, "type", "layers");
	ids = cJSON_AddArrayToObject(rootfs, "diff_ids");
	cJSON_AddItemToArray(ids, cJSON_CreateString(diff_id));
	PF_FREE char *text = pf_json_text(c);
	if (pf_sha256(text, strlen(text), digest, err) < 0 || pf_record_from_config(c, im->record, err) < 0)
		return -1;
	return add_digests(im, digest, NULL, text);
}

struct packer {
	int dir, out;
	struct pf_pack_stats stats;
	struct pf_err err;
	int result;
};

static int pipe_sink(void *arg, const void *data, size_t len, struct pf_err *err)
{
	struct packer *p = arg;

	return pf_write_all(p->out, data, len) < 0 ? pf_fail(err, errno, "pass the tree on") : 0;
}

static void *run_packer(void *arg)
{
	struct packer *p = arg;
	sigset_t pipe_only;

	/* A reader that gave up shall be an EPIPE to this thread, not the end of the process. */
	sigemptyset(&pipe_only);
	sigaddset(&pipe_only, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe_only, NULL);
	p->result = pf_pack_tree(p->dir, NULL, pipe_sink, p, &p->stats, &p->err);
	close(p->out);
	return NULL;
}

/* A directory becomes a layer by the way every layer comes in: as a tar stream. */
static int take_rootfs_dir(struct import *im, int dir, const char *path, struct pf_err *err)
{
	struct packer p = {.dir = dir, .err = PF_ERR_INIT};
	struct pf_unpack_opts opts = unpack_opts(im);
	struct layer_tmp *l = new_layer(im, err);
	pthread_t thread;
	int fds[2];

	suggest_from_path(im, path, NULL);
	if (!l || pf_store_tmp_new(&im->store, &l->tmp, err) < 0)
		return -1;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe");
	p.out = fds[1];
	int e = pthread_create(&thread, NULL, run_packer, &p);
	if (e) {
		close(fds[0]);
		close(fds[1]);
		return pf_fail(err, e, "start a thread");
	}
	im->what = path;
	im->total = 0;
	int r = pf_layer_unpack(&l->tmp, fds[0], &opts, &l->stats, err);
	close(fds[0]); /* the packer's next write fails if we gave up first */
	pthread_join(thread, NULL);
	im->skipped_devices = p.stats.skipped;
	/* The packer's own failure is the cause when the unpacker saw its stream end early. A closed pipe is
	 * not. */
	if (p.result < 0 && p.err.errnum != EPIPE) {
		*err = p.err;
		return -1;
	}
	return r < 0 ? -1 : synthesize_config(im, l->stats.diff_id, err);
}

static bool is_layout(int dir)
{
	return faccessat(dir, "index.json", F_OK, 0) == 0 && faccessat(dir, "oci-layout", F_OK, 0) == 0;
}

/* manifest.json as docker writes it, or NULL. */
static cJSON *docker_list(int dir)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *text = NULL;
	size_t len;

	if (read_in(dir, "manifest.json", MAX_BLOB_JSON, &text, &len, &ignored) < 0)
		return NULL;
	cJSON *j = pf_json_parse("manifest.json", text, len, &ignored);
	if (j && (!cJSON_IsArray(j) ||
			 !cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(j, 0), "Layers"))) {
		cJSON_Delete(j);
		j = NULL;
	}
	return j;
}

enum kind { ANY, LAYOUT, DOCKER, ROOTFS };

static int take_archive(
	struct import *im, const char *path, enum kind kind, const char *tag, struct pf_err *err)
{
	struct pf_unpack_opts opts = unpack_opts(im);
	struct layer_tmp spool = {.tmp = PF_STORE_TMP_INIT};
	struct stat st;
	PF_CLOSE int fd = strcmp(path, "-") == 0 ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
						 : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int r = -1;

	if (fd < 0)
		return pf_fail_kind(
			err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "%s", path);
	im->what = path;
	im->total = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? st.st_size : 0;
	if (pf_store_tmp_new(&im->store, &spool.tmp, err) < 0)
		return -1;
	if (pf_layer_unpack(&spool.tmp, fd, &opts, &spool.stats, err) < 0) {
		pf_store_tmp_drop(&im->store, &spool.tmp);
		return -1;
	}
	PF_CLOSE int dir = openat(spool.tmp.fd, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	PF_JSON cJSON *list = dir >= 0 && kind != ROOTFS ? docker_list(dir) : NULL;
	if (dir < 0) {
		pf_fail(err, errno, "open");
	} else if (kind == LAYOUT || (kind == ANY && is_layout(dir))) {
		r = take_layout(im, dir, path, tag, err);
	} else if (list) {
		r = take_docker(im, dir, list, path, err);
	} else if (kind == DOCKER) {
		corrupt(err, "not a docker archive: no manifest.json");
	} else {
		struct layer_tmp *l = new_layer(im, err);
		suggest_from_path(im, path, NULL);
		if (l) {
			*l = spool;
			spool.tmp = PF_STORE_TMP_INIT;
			im->skipped_devices = l->stats.skipped_devices;
			r = synthesize_config(im, l->stats.diff_id, err);
		}
	}
	pf_store_tmp_drop(&im->store, &spool.tmp);
	return r;
}

/* ---- all together ---- */

static bool strip(const char **s, const char *prefix)
{
	if (!pf_starts_with(*s, prefix))
		return false;
	*s += strlen(prefix);
	return true;
}

static int take_path(struct import *im, const char *path, enum kind kind, bool archive, struct pf_err *err)
{
	PF_FREE char *base = pf_strdup(path);
	const char *tag = NULL;
	struct stat st;
	char *colon;

	/* DIR:TAG, unless that is the name of something. */
	if ((kind == LAYOUT || kind == ANY) && strcmp(path, "-") != 0 && stat(path, &st) < 0 &&
		(colon = strrchr(base, ':')) && !strchr(colon, '/')) {
		*colon = '\0';
		tag = colon + 1;
	}
	if (archive || strcmp(base, "-") == 0)
		return take_archive(im, base, kind, tag, err);
	PF_CLOSE int dir = open(base, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (dir < 0)
		return pf_fail_kind(
			err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "%s", base);
	if (fstat(dir, &st) < 0)
		return pf_fail(err, errno, "%s", base);
	if (S_ISREG(st.st_mode) && kind == ANY)
		return take_archive(im, base, kind, tag, err);
	if (!S_ISDIR(st.st_mode))
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s is neither a directory nor a regular file", base);
	if (kind == LAYOUT || (kind == ANY && is_layout(dir)))
		return take_layout(im, dir, base, tag, err);
	return take_rootfs_dir(im, dir, base, err);
}

static int take_source(struct import *im, struct pf_err *err)
{
	const char *s = im->source;

	if (strip(&s, "oci:"))
		return take_path(im, s, LAYOUT, false, err);
	if (strip(&s, "oci-archive:"))
		return take_path(im, s, LAYOUT, true, err);
	if (strip(&s, "docker-archive:"))
		return take_path(im, s, DOCKER, true, err);
	if (strip(&s, "tar:"))
		return take_path(im, s, ROOTFS, true, err);
	if (strip(&s, "dir:"))
		return take_path(im, s, ROOTFS, false, err);
	return take_path(im, s, ANY, false, err);
}

static int commit(struct import *im, struct pf_err *err)
{
	char now[32];
	time_t t = time(NULL);
	struct tm tm;
	int64_t bytes = 0;
	const char *wanted = im->opts->name ? im->opts->name : im->name;

	if (!wanted)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"the source does not say the image's name; give one with --name");
	PF_FREE char *ref = pf_image_ref_normalize(wanted, err);
	if (!ref)
		return pf_wrap(err, "choose a name with --name");
	gmtime_r(&t, &tm);
	strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", &tm);
	cJSON_AddStringToObject(im->record, "ref", ref);
	cJSON_AddStringToObject(im->record, "source", im->source);
	cJSON_AddStringToObject(im->record, "imported", now);
	PF_CLOSE int lock = pf_layer_store_lock(&im->store, err);
	if (lock < 0)
		return -1;
	for (size_t i = 0; i < im->n_layers; i++) {
		struct layer_tmp *l = &im->layers[i];
		if (l->present)
			l->stats.bytes = pf_layer_bytes(&im->store, l->stats.diff_id);
		bytes += l->stats.bytes;
		if (!l->present && pf_layer_commit(&im->store, &l->tmp, l->stats.diff_id, l->stats.bytes,
					   l->stats.entries, err) < 0)
			return -1;
	}
	pf_json_add_int(im->record, "bytes", bytes);
	return pf_record_write(&im->store, im->record, err);
}

cJSON *pf_image_import(
	const char *store, const char *source, const struct pf_import_opts *opts, struct pf_err *err)
{
	static const struct pf_import_opts defaults;
	struct import *im = pf_calloc(1, sizeof(*im));
	cJSON *result = NULL;

	im->opts = opts ? opts : &defaults;
	im->source = source;
	if (pf_layer_store_open(store, &im->store, err) < 0) {
		free(im);
		return NULL;
	}
	im->record = cJSON_CreateObject();
	if (take_source(im, err) == 0 && commit(im, err) == 0) {
		result = pf_take(im->record);
		cJSON_DeleteItemFromObjectCaseSensitive(result, "config");
		if (im->skipped_devices)
			pf_json_add_int(result, "skipped_devices", im->skipped_devices);
	} else {
		pf_wrap(err, "import %.300s", source);
	}
	for (size_t i = 0; i < im->n_layers; i++)
		pf_store_tmp_drop(&im->store, &im->layers[i].tmp);
	cJSON_Delete(im->record);
	free(im->name);
	pf_layer_store_close(&im->store);
	free(im);
	return result;
}
