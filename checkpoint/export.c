/* Theory of operation.
 *
 * An image layout is made below a temporary name beside its place: layers are written as tars from their
 * trees, then the configuration, which has the checkpoint's manifest in it word for word (so that whoever
 * imports it can compute the same digest), the OCI manifest, the index; then it is renamed. Which blob a
 * layer became is noted in the layer's document, so that a push can ask a registry for it before anything is
 * packed. */
#include "checkpoint/export.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/guard.h"
#include "base/json.h"
#include "base/path.h"
#include "base/progress.h"
#include "base/str.h"
#include "checkpoint/artifact.h"
#include "checkpoint/export_tar.h"
#include "checkpoint/layer.h"
#include "checkpoint/layertar.h"
#include "checkpoint/oci.h"
#include "checkpoint/tarout.h"
#include "overlay/pack.h"

struct export
{
	struct pf_ckpt_heavy *h;
	const struct pf_ckpt *c;
	const struct pf_ckpt_export_opts *o;
	struct pf_ckpt_export_stats *stats;
	int blobs; /* directory */
	cJSON *layers, *diff_ids;
};

/* A layer that was made, or is known. */
struct made {
	struct pf_oci_blob b;
	struct pf_digest diff_id;
	cJSON *notes; /* with a table of contents */
};

static const char *form_name(const struct export *x, bool chunked)
{
	return chunked ? "zstd:chunked" : x->o->uncompressed ? "tar" : "zstd";
}

static void add_layer(struct export *x, const struct made *l)
{
	cJSON *d = pf_oci_descriptor(x->o->uncompressed ? PF_OCI_LAYER_TYPE : PF_OCI_LAYER_ZSTD_TYPE, &l->b);

	if (l->notes)
		cJSON_AddItemToObject(d, "annotations", cJSON_Duplicate(l->notes, true));
	cJSON_AddItemToArray(x->layers, d);
	cJSON_AddItemToArray(x->diff_ids, cJSON_CreateString(l->diff_id.s));
}

/* ---- one layer ---- */

int pf_ckpt_hash_fd(int fd, struct pf_digest *out, int64_t *size, struct pf_err *err)
{
	PF_FREE char *buf = pf_calloc(1, (size_t)256 << 10);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t raw[32];
	ssize_t n = -1;
	off_t at = 0;
	bool good = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;

	while (good && (n = pread(fd, buf, (size_t)256 << 10, at)) > 0) {
		good = EVP_DigestUpdate(md, buf, (size_t)n) == 1;
		at += n;
	}
	int e = errno;
	good = good && n == 0 && EVP_DigestFinal_ex(md, raw, NULL) == 1;
	EVP_MD_CTX_free(md);
	if (!good)
		return pf_fail(err, n < 0 ? e : EIO, "read the layer back");
	pf_digest_from_raw(raw, out);
	*size = at;
	return 0;
}

/* What fills a layer. */
struct content {
	int (*write)(void *arg, struct pf_tarout *o, struct pf_err *err);
	void *arg;
	bool frames;
};

static struct pf_tarout *open_tar(
	const struct pf_ckpt_export_opts *o, const struct content *c, int fd, struct pf_err *err)
{
	if (o->uncompressed)
		return pf_tarout_spool(fd, err);
	return c->frames ? pf_tarout_frames(fd, o->level, err)
			 : pf_tarout_layer(fd, o->level, o->threads ? o->threads : 2, err);
}

static int make_blob(struct export *x, int fd, const struct content *c, struct made *l, struct pf_err *err)
{
	struct pf_tarout *o = open_tar(x->o, c, fd, err);
	struct pf_tarout_result r;

	if (!o)
		return -1;
	pf_tarout_leave_end(o);
	if (c->write(c->arg, o, err) < 0) {
		pf_tarout_abort(o);
		return -1;
	}
	if (pf_tarout_finish(o, x->o->uncompressed ? NULL : &r, err) < 0)
		return -1;
	if (!x->o->uncompressed) {
		l->b = (struct pf_oci_blob){r.digest, r.size};
		l->diff_id = r.diff_id;
		return 0;
	}
	if (pf_ckpt_hash_fd(fd, &l->b.digest, &l->b.size, err) < 0)
		return -1;
	l->diff_id = l->b.digest;
	return fsync(fd) < 0 ? pf_fail(err, errno, "write a layer") : 0;
}

static int write_blob(struct export *x, const struct content *c, struct made *l, struct pf_err *err)
{
	PF_CLOSE int fd = openat(x->blobs, "layer", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return pf_fail(err, errno, "create a layer");
	if (make_blob(x, fd, c, l, err) < 0)
		return -1;
	/* Equal layers in one image are one file. */
	if (renameat(x->blobs, "layer", x->blobs, pf_digest_hex(&l->b.digest)) < 0)
		return pf_fail(err, errno, "name the layer");
	return 0;
}

struct stored {
	struct pf_ckpt_heavy *h;
	const struct pf_digest *id;
	cJSON **notes; /* NULL: no table of contents */
};

static int write_stored(void *arg, struct pf_tarout *o, struct pf_err *err)
{
	const struct stored *s = arg;

	if (s->notes)
		return pf_layer_tar_toc(s->h, s->id, o, s->notes, err);
	return pf_layer_tar(s->h, s->id, o, err) < 0 ? -1 : pf_tarout_zeros(o, (size_t)2 * PF_TAR_BLOCK, err);
}

static bool left_out(const struct export *x, const char *digest)
{
	for (const char *const *d = x->o->without; d && *d; d++)
		if (strcmp(*d, digest) == 0)
			return true;
	return false;
}

/* The blob that this layer is known as in this form and that the receiver has: nothing needs to be packed. */
static bool known_there(struct export *x, const struct pf_digest *id, bool chunked)
{
	struct pf_layer_doc doc = {0};
	struct pf_err ignored = PF_ERR_INIT;
	bool found = false;

	if (!x->o->without || pf_layer_doc_load(x->h, id, &doc, &ignored) < 0)
		return false;
	for (size_t i = 0; i < doc.n_published && !found; i++) {
		const struct pf_layer_published *p = &doc.published[i];
		if (strcmp(p->form, form_name(x, chunked)) != 0 || !p->notes == chunked ||
			!left_out(x, p->digest.s))
			continue;
		const struct made l = {{p->digest, p->size}, p->diff_id, p->notes};
		add_layer(x, &l);
		found = true;
	}
	pf_layer_doc_done(&doc);
	return found;
}

static int pack_stored(struct export *x, const struct pf_digest *id, bool chunked, struct pf_err *err)
{
	PF_JSON cJSON *notes = NULL;
	struct stored s = {x->h, id, chunked ? &notes : NULL};
	const struct content content = {write_stored, &s, chunked};
	struct pf_err ignored = PF_ERR_INIT;
	struct made l = {0};

	if (write_blob(x, &content, &l, err) < 0)
		return -1;
	l.notes = notes;
	add_layer(x, &l);
	/* Only a cache: without it the next push packs the layer to find out. */
	const struct pf_layer_published blob = {
		(char *)form_name(x, chunked), l.b.digest, l.diff_id, l.b.size, notes};
	(void)pf_layer_doc_publish(x->h, id, &blob, &ignored);
	return 0;
}

/* 1: it gets a table of contents; 0: it cannot. */
static int choose_table(struct export *x, const struct pf_digest *id, struct pf_err *err)
{
	PF_FREE char *why = NULL;
	int r = pf_layer_has_toc(x->h, id, &why, err);

	if (r != 0)
		return r;
	PF_FREE char *line = pf_asprintf("%s: %s", id->s, why);
	if (!x->stats->without_table)
		x->stats->without_table = cJSON_CreateArray();
	cJSON_AddItemToArray(x->stats->without_table, cJSON_CreateString(line));
	return 0;
}

static int add_stored(struct export *x, const struct pf_digest *id, struct pf_err *err)
{
	bool there = x->o->chunked && known_there(x, id, true);
	int table = there ? 1 : x->o->chunked ? choose_table(x, id, err) : 0;

	if (table < 0)
		return -1;
	x->stats->tables += table;
	if (there || (!table && known_there(x, id, false)))
		return 0;
	return pack_stored(x, id, table, err);
}

/* ---- the base image ---- */

static int sink(void *arg, const void *data, size_t len, struct pf_err *err)
{
	return pf_tarout_write(arg, data, len, err);
}

static int write_dir(void *arg, struct pf_tarout *o, struct pf_err *err)
{
	const struct pf_pack_opts pack = {.layer = true};

	return pf_pack_tree(*(const int *)arg, &pack, sink, o, NULL, err);
}

static int add_base(struct export *x, struct pf_err *err)
{
	const cJSON *refs = x->o->base_refs, *d;
	size_t n = 0;

	cJSON_ArrayForEach(d, cJSON_GetObjectItemCaseSensitive(refs, "layers"))
		cJSON_AddItemToArray(x->layers, cJSON_Duplicate(d, true));
	cJSON_ArrayForEach(d, cJSON_GetObjectItemCaseSensitive(refs, "diff_ids"))
		cJSON_AddItemToArray(x->diff_ids, cJSON_Duplicate(d, true));
	while (x->o->base_layers && x->o->base_layers[n])
		n++;
	while (n-- > 0) {
		const char *dir = x->o->base_layers[n];
		PF_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		const struct content content = {write_dir, &fd, false};
		struct made l = {0};
		if (fd < 0)
			return pf_fail(err, errno, "%s", dir);
		if (write_blob(x, &content, &l, err) < 0)
			return pf_wrap(err, "base layer %s", dir);
		add_layer(x, &l);
	}
	return 0;
}

/* ---- documents ---- */

static cJSON *make_config(const struct export *x, const char *manifest)
{
	cJSON *j = cJSON_CreateObject(), *inner, *rootfs, *history;
	const cJSON *labels = cJSON_GetObjectItemCaseSensitive(x->c->record, "labels"), *member;
	int n = cJSON_GetArraySize(x->diff_ids), own = (int)x->c->n_layers;

	cJSON_AddStringToObject(j, "created", x->c->created);
	cJSON_AddStringToObject(j, "architecture", pf_oci_machine());
	cJSON_AddStringToObject(j, "os", "linux");
	inner = cJSON_AddObjectToObject(j, "config");
	cJSON_AddItemToObject(inner, "Labels", labels ? cJSON_Duplicate(labels, true) : cJSON_CreateObject());
	cJSON_ArrayForEach(member, x->o->base_config)
		cJSON_AddItemToObject(inner, member->string, cJSON_Duplicate(member, true));
	rootfs = cJSON_AddObjectToObject(j, "rootfs");
	cJSON_AddStringToObject(rootfs, "type", "layers");
	cJSON_AddItemToObject(rootfs, "diff_ids", cJSON_Duplicate(x->diff_ids, true));
	history = cJSON_AddArrayToObject(j, "history");
	for (int i = 0; i < n; i++) {
		cJSON *e = cJSON_CreateObject();
		if (i == n - 1)
			cJSON_AddStringToObject(e, "created", x->c->created);
		cJSON_AddStringToObject(e, "created_by", i < n - own ? "base image" : "pinfold snapshot");
		cJSON_AddItemToArray(history, e);
	}
	cJSON_AddStringToObject(j, PF_CKPT_KEY, manifest);
	return j;
}

static cJSON *make_manifest(const struct export *x, const struct pf_oci_blob *config)
{
	cJSON *j = cJSON_CreateObject(), *notes;

	cJSON_AddNumberToObject(j, "schemaVersion", 2);
	cJSON_AddStringToObject(j, "mediaType", PF_OCI_MANIFEST_TYPE);
	cJSON_AddItemToObject(j, "config", pf_oci_descriptor(PF_OCI_CONFIG_TYPE, config));
	cJSON_AddItemToObject(j, "layers", cJSON_Duplicate(x->layers, true));
	notes = cJSON_AddObjectToObject(j, "annotations");
	cJSON_AddStringToObject(notes, "org.opencontainers.image.created", x->c->created);
	cJSON_AddStringToObject(notes, "org.opencontainers.image.base.name", x->c->base_image_ref);
	cJSON_AddStringToObject(notes, "org.opencontainers.image.base.digest", x->c->base_image_digest);
	cJSON_AddStringToObject(notes, PF_CKPT_KEY ".digest", x->c->digest.s);
	cJSON_AddStringToObject(notes, PF_CKPT_KEY ".sandbox", x->c->sandbox_id);
	cJSON_AddStringToObject(notes, PF_CKPT_KEY ".parent", x->c->parent);
	return j;
}

static int fill(struct export *x, const char *manifest, struct pf_oci_blob *out, struct pf_err *err)
{
	struct pf_oci_blob config_blob;

	for (size_t i = 0; i < x->c->n_layers; i++)
		pf_progress_expect(x->c->layers[i].bytes);
	if (add_base(x, err) < 0)
		return -1;
	for (size_t i = x->c->n_layers; i-- > 0;)
		if (add_stored(x, &x->c->layers[i].id, err) < 0)
			return -1;
	PF_JSON cJSON *config = make_config(x, manifest);
	PF_FREE char *config_text = pf_json_text(config);
	if (pf_oci_put_document(x->blobs, config_text, &config_blob, err) < 0)
		return -1;
	PF_JSON cJSON *m = make_manifest(x, &config_blob);
	PF_FREE char *text = pf_json_text(m);
	return pf_oci_put_document(x->blobs, text, out, err);
}

/* ---- the layout ---- */

static int count_blobs(int blobs, struct pf_ckpt_export_stats *stats, struct pf_err *err)
{
	PF_CLOSE int copy = openat(blobs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	struct stat st;

	if (!d)
		return pf_fail(err, errno, "list the blobs");
	(void)pf_take_fd(&copy);
	while ((errno = 0, e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		if (fstatat(blobs, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return pf_fail(err, errno, "blob %s", e->d_name);
		stats->blobs++;
		stats->bytes += st.st_size;
	}
	return errno ? pf_fail(err, errno, "list the blobs") : 0;
}

static int write_layout(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, const char *manifest, int dirfd,
	const struct pf_ckpt_export_opts *opts, struct pf_ckpt_export_stats *stats, struct pf_err *err)
{
	struct pf_oci_blob m;

	if (mkdirat(dirfd, "blobs", 0700) < 0 || mkdirat(dirfd, "blobs/sha256", 0700) < 0)
		return pf_fail(err, errno, "mkdir blobs");
	PF_CLOSE int blobs = openat(dirfd, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (blobs < 0)
		return pf_fail(err, errno, "blobs");
	struct export x = {h, c, opts, stats, blobs, cJSON_CreateArray(), cJSON_CreateArray()};
	int r = c->sealed && !opts->decrypt
			? pf_ckpt_export_sealed(h, c, manifest, blobs, opts->level, opts->threads, &m, err)
			: fill(&x, manifest, &m, err);
	cJSON_Delete(x.layers);
	cJSON_Delete(x.diff_ids);
	if (r < 0 || count_blobs(blobs, stats, err) < 0 || pf_sync_dir(blobs, err) < 0)
		return -1;
	stats->digest = m.digest;
	return pf_oci_write_layout(dirfd, PF_OCI_MANIFEST_TYPE, &m, c->name, err);
}

static int export_to(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, const char *tmp, const char *file,
	const struct pf_ckpt_export_opts *opts, struct pf_ckpt_export_stats *stats, struct pf_err *err)
{
	PF_FREE char *manifest = NULL;
	char path[96];
	size_t len;
	bool sealed;

	if (opts->form == PF_CKPT_TAR)
		return pf_ckpt_export_files(opts->unpacked, opts->base_layers, file, stats, err);
	if (pf_ckpt_heavy_read(h, "manifest", pf_digest_hex(&c->digest),
		    pf_ckpt_manifest_path(&c->digest, path), PF_CKPT_MAX_DOC, &manifest, &len, &sealed,
		    err) < 0)
		return -1;
	if (mkdir(tmp, 0700) < 0)
		return pf_fail(err, errno, "mkdir %s", tmp);
	PF_CLOSE int fd = open(tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return pf_fail(err, errno, "open %s", tmp);
	if (write_layout(h, c, manifest, fd, opts, stats, err) < 0)
		return -1;
	return opts->form == PF_CKPT_OCI_ARCHIVE ? pf_ckpt_export_archive(fd, file, err) : 0;
}

/* What has been given its name has it after a crash, too. */
static int sync_parent(const char *path, struct pf_err *err)
{
	PF_FREE char *copy = pf_strdup(path);
	PF_CLOSE int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? pf_fail(err, errno, "open the directory of %s", path) : pf_sync_dir(fd, err);
}

int pf_ckpt_export(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, const char *path,
	const struct pf_ckpt_export_opts *opts, struct pf_ckpt_export_stats *stats, struct pf_err *err)
{
	PF_FREE char *tmp = pf_asprintf("%s.%d.tmp", path, (int)getpid());
	PF_FREE char *file = pf_asprintf("%s.%d.file", path, (int)getpid());
	struct pf_err ignored = PF_ERR_INIT;
	struct stat st;

	*stats = (struct pf_ckpt_export_stats){0};
	if (lstat(path, &st) == 0)
		return pf_fail_kind(err, PF_ERR_EXISTS, 0, "%s exists already: choose a new name", path);
	pf_guard_add(AT_FDCWD, tmp);
	pf_guard_add(AT_FDCWD, file);
	int r = export_to(h, c, tmp, file, opts, stats, err);
	if (r == 0 && renameat2(AT_FDCWD, opts->form == PF_CKPT_OCI ? tmp : file, AT_FDCWD, path,
			      RENAME_NOREPLACE) < 0)
		r = pf_fail(err, errno, "rename to %s", path);
	else if (r == 0)
		r = sync_parent(path, err);
	if (r < 0)
		(void)unlink(file);
	if (r < 0 || opts->form == PF_CKPT_OCI_ARCHIVE)
		(void)pf_rm_rf_at(AT_FDCWD, tmp, &ignored);
	pf_guard_drop(AT_FDCWD, tmp);
	pf_guard_drop(AT_FDCWD, file);
	return r;
}
