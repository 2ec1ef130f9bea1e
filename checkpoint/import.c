/* Theory of operation: the configuration of the image says which checkpoint it is, by the manifest's own
 * words. They are believed only after each layer was unpacked by the strict reader, walked like any directory
 * that is stored, and has come out as the tree that they name: then the digest of the words is the
 * checkpoint's, whoever packed the tars and however. The directories that were unpacked for this are kept for
 * the restore that is likely to follow. Whatever goes wrong before the commit leaves nothing but a temporary
 * directory that goes with the transaction. */
#include "checkpoint/import.h"

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
#include "base/proc.h"
#include "base/progress.h"
#include "base/str.h"
#include "checkpoint/artifact.h"
#include "checkpoint/layer.h"
#include "checkpoint/memdir.h"
#include "checkpoint/oci.h"
#include "checkpoint/txn.h"
#include "overlay/unpack.h"

struct import {
	struct pf_ckpt_heavy *h;
	struct pf_txn *t;
	struct pf_txn *outer; /* that an archive lies in, when layers go into another */
	const struct pf_ckpt_import_opts *opts;
	bool artifact;
	bool sealed; /* goes into the sealed domain */
	struct pf_ckpt_import_stats *stats;
	int dir, blobs;  /* of the layout */
	cJSON *config;   /* of the image */
	cJSON *manifest; /* OCI's */
	const cJSON *layers, *diff_ids;
	/* The checkpoint's own ones, bottom first: what blob each is. */
	struct one {
		struct pf_oci_blob blob;
		struct pf_digest diff_id, id;
		int64_t bytes, entries;
		bool unpacked;
	} * v;
	size_t n;
};

static int corrupt(const char *what, struct pf_err *err)
{
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s", what);
}

/* ---- the layout ---- */

/* "oci:DIR:NAME" → what lies where. As skopeo reads it: what follows the last colon is the entry's name. */
static void split_source(const char *source, bool *archive, char **path, char **ref)
{
	*archive = pf_starts_with(source, "oci-archive:");
	const char *at = *archive ? source + 12 : pf_starts_with(source, "oci:") ? source + 4 : source;
	*path = pf_strdup(at);
	char *colon = strrchr(*path, ':');
	/* "sha256:…" has a colon of its own. */
	if (colon && colon - *path >= 7 && strncmp(colon - 7, ":sha256", 7) == 0)
		colon -= 7;
	*ref = colon && colon[1] ? pf_strdup(colon + 1) : NULL;
	if (colon)
		*colon = '\0';
}

static int unpack_archive(struct import *x, const char *path, struct pf_err *err)
{
	const struct pf_unpack_opts o = {.max_bytes = PF_CKPT_MAX_BYTES};
	PF_CLOSE int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (file < 0 || fstat(file, &st) < 0)
		return pf_fail_kind(
			err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s is no file", path);
	if (mkdirat(pf_txn_tmp(x->t), "archive", 0700) < 0)
		return pf_fail(err, errno, "mkdir archive");
	x->dir = openat(pf_txn_tmp(x->t), "archive", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (x->dir < 0)
		return pf_fail(err, errno, "archive");
	return pf_unpack_layer(file, x->dir, &o, NULL, err);
}

/* What an archive says to be elsewhere is a file of ours. Blobs are never followed, and compared with
 * digests. */
static int check_archive(int dir, struct pf_err *err)
{
	static const char *const names[] = {"index.json", "blobs"};
	struct stat st;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (fstatat(dir, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
			return pf_fail_kind(
				err, PF_ERR_CORRUPT, 0, "no image layout: %s is a symbolic link", names[i]);
	return 0;
}

static int open_layout(struct import *x, const char *path, bool archive, struct pf_err *err)
{
	if (archive && (unpack_archive(x, path, err) < 0 || check_archive(x->dir, err) < 0))
		return -1;
	if (!archive)
		x->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (x->dir < 0)
		return pf_fail_kind(
			err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "%s", path);
	x->blobs = openat(x->dir, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return x->blobs < 0 ? pf_fail_kind(err, PF_ERR_INVALID, errno, "no image layout: blobs/sha256") : 0;
}

static cJSON *get_json(int blobs, const struct pf_oci_blob *b, const char *what, struct pf_err *err)
{
	PF_FREE char *text = NULL;

	if (pf_oci_get_document(blobs, b, &text, err) < 0)
		return NULL;
	return pf_json_parse(what, text, strlen(text), err);
}

static int read_documents(struct import *x, const cJSON *entry, struct pf_err *err)
{
	struct pf_oci_blob b;

	if (pf_oci_descriptor_read(entry, "index.json", &b, err) < 0)
		return -1;
	x->stats->source = b.digest;
	x->manifest = get_json(x->blobs, &b, "manifest", err);
	if (!x->manifest || pf_oci_descriptor_read(cJSON_GetObjectItemCaseSensitive(x->manifest, "config"),
				    "manifest: config", &b, err) < 0)
		return -1;
	x->config = get_json(x->blobs, &b, "config", err);
	x->layers = cJSON_GetObjectItemCaseSensitive(x->manifest, "layers");
	x->diff_ids = cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(x->config, "rootfs"), "diff_ids");
	return x->config ? 0 : -1;
}

/* The last n layers of the image are the checkpoint's. */
static int read_layers(struct import *x, size_t n, struct pf_err *err)
{
	int all = cJSON_GetArraySize(x->layers);

	if (!cJSON_IsArray(x->layers) ||
		(!x->artifact && (!cJSON_IsArray(x->diff_ids) || all != cJSON_GetArraySize(x->diff_ids))))
		return corrupt("manifest and config do not have the same layers", err);
	if (n < 1 || n > PF_CKPT_MAX_LAYERS || (size_t)all < n)
		return corrupt("the image has fewer layers than its checkpoint, or too many", err);
	x->n = n;
	x->v = pf_calloc(n, sizeof(*x->v));
	for (size_t i = 0; i < n; i++) {
		int at = all - (int)n + (int)i;
		const char *d = cJSON_GetStringValue(cJSON_GetArrayItem(x->diff_ids, at));
		if (pf_oci_descriptor_read(
			    cJSON_GetArrayItem(x->layers, at), "manifest: layer", &x->v[i].blob, err) < 0)
			return -1;
		if (x->artifact)
			continue;
		if (!d || !pf_digest_ok(d))
			return corrupt("config: a diff_id is no sha256 digest", err);
		memcpy(x->v[i].diff_id.s, d, sizeof(x->v[i].diff_id.s));
	}
	return 0;
}

/* ---- layers ---- */

static int unpack_blob(
	struct import *x, const struct one *l, const struct pf_digest *id, int fs, struct pf_err *err)
{
	struct pf_unpack_opts o = {.max_bytes = PF_CKPT_MAX_BYTES,
		.max_entries = PF_CKPT_MAX_ENTRIES,
		.strict = true,
		.digest = l->blob.digest.s,
		.diff_id = l->diff_id.s};
	PF_CLOSE int blob = openat(
		x->blobs, pf_digest_hex(&l->blob.digest), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (blob < 0)
		return pf_fail_kind(err, errno == ENOENT ? PF_ERR_CORRUPT : PF_ERR_SYSTEM, errno, "blob %s",
			l->blob.digest.s);
	if (fstat(blob, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != l->blob.size)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "blob %s: not a file of the size that is said",
			l->blob.digest.s);
	if ((x->artifact ? pf_ckpt_artifact_unpack(x->h, blob, id, fs, err)
			 : pf_unpack_layer(blob, fs, &o, NULL, err)) == 0)
		return 0;
	if (err->kind == PF_ERR_INVALID) /* beyond a limit: our writer refuses to make such a layer */
		err->kind = PF_ERR_CORRUPT;
	return -1;
}

/* Where layer i is put together: on the disk, to be kept there; in memory what is sealed. */
static int layer_dir(struct import *x, size_t i, bool *in_memory, struct pf_err *err)
{
	struct pf_err cannot = PF_ERR_INIT;
	char dir[32], path[40];
	int fs;

	if (x->sealed && (fs = pf_memdir(&cannot)) >= 0) {
		*in_memory = true;
		return fs;
	}
	snprintf(dir, sizeof(dir), "layer-%zu", i);
	snprintf(path, sizeof(path), "%s/fs", dir);
	if (mkdirat(pf_txn_tmp(x->t), dir, 0700) < 0 || mkdirat(pf_txn_tmp(x->t), path, 0755) < 0)
		return pf_fail(err, errno, "mkdir %s", path);
	fs = openat(pf_txn_tmp(x->t), path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fs < 0 ? pf_fail(err, errno, "%s", path) : fs;
}

static int take_layer(struct import *x, size_t i, const struct pf_digest *wanted, struct pf_err *err)
{
	struct one *l = &x->v[i];
	struct pf_txn_layer done = {0};
	bool in_memory = false;
	PF_CLOSE int fs = layer_dir(x, i, &in_memory, err);

	if (fs < 0)
		return -1;
	if (unpack_blob(x, l, wanted, fs, err) < 0)
		return in_memory && err->errnum == ENOSPC
			       ? pf_wrap(err,
					 "what is encrypted is put together in memory, which is too small "
					 "for it (--no-encrypt does it on the disk)")
			       : -1;
	const struct pf_txn_source s = {
		.rootfd = fs, .userxattr = !pf_in_first_userns(), .no_sync = true, .expected = wanted};
	if (pf_txn_layer(x->t, &s, &done, err) < 0)
		return -1;
	if (wanted && strcmp(done.id.s, wanted->s) != 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
			"blob %s unpacks to other files than the checkpoint has (%.19s, not %.19s)",
			l->blob.digest.s, done.id.s, wanted->s);
	l->id = done.id;
	l->bytes = done.walked.bytes;
	l->entries = done.entries;
	l->unpacked = !in_memory;
	x->stats->unpacked++;
	x->stats->bytes += done.walked.bytes;
	return 0;
}

static int take_layers(struct import *x, const struct pf_ckpt *c, struct pf_err *err)
{
	x->stats->layers = (int64_t)x->n;
	for (size_t i = 0; c && i < x->n; i++)
		pf_progress_expect(c->layers[i].present ? 0 : c->layers[i].bytes);
	for (size_t i = 0; i < x->n; i++) {
		const struct pf_ckpt_layer *l = c ? &c->layers[x->n - 1 - i] : NULL;
		if (l && l->present)
			x->v[i].id = l->id;
		else if (take_layer(x, i, l ? &l->id : NULL, err) < 0)
			return pf_wrap(err, "layer %zu", i + 1);
	}
	return 0;
}

/* ---- which checkpoint ---- */

/* The manifest that a checkpoint of version 1 has in this version. What it came from has another digest here,
 * or is not here, so that is not said any more. */
static char *from_version_1(const struct import *x, const cJSON *record)
{
	static const char *const anew[] = {"version", "parent", "from", "layers"};
	PF_JSON cJSON *j = cJSON_Duplicate(record, true);

	for (size_t i = 0; i < sizeof(anew) / sizeof(anew[0]); i++)
		cJSON_DeleteItemFromObjectCaseSensitive(j, anew[i]);
	cJSON_AddNumberToObject(j, "version", PF_CKPT_VERSION);
	cJSON_AddStringToObject(j, "parent", "");
	cJSON_AddStringToObject(j, "from", "");
	cJSON *layers = cJSON_AddArrayToObject(j, "layers");
	for (size_t i = 0; i < x->n; i++) {
		cJSON *l = cJSON_CreateObject();
		cJSON_AddStringToObject(l, "id", x->v[i].id.s);
		pf_json_add_int(l, "bytes", x->v[i].bytes);
		pf_json_add_int(l, "entries", x->v[i].entries);
		cJSON_AddItemToArray(layers, l);
	}
	return pf_json_text(j);
}

/* What was sealed outside is sealed here, unless it was said that it need not be. That our key opened it says
 * who made it: one of us. */
static int seal_too(struct import *x, struct pf_err *err)
{
	struct pf_txn_opts t = {.level = x->opts->level, .threads = x->opts->threads};

	if (pf_ckpt_heavy_choose(x->h, true, &t.sealed, err) < 0)
		return -1;
	x->sealed = t.sealed;
	x->outer = pf_take(x->t);
	return pf_txn_begin(x->h, &t, &x->t, err);
}

/* 1: the store has it, under this name; 0: not. */
static int is_here(const struct import *x, const struct pf_digest *digest, struct pf_err *err)
{
	PF_JSON cJSON *index = pf_ckpt_index_read(x->h->storefd, err);

	if (!index)
		return -1;
	const cJSON *e = pf_ckpt_index_find(index, digest->s, NULL);
	if (!e)
		return 0;
	const char *name = pf_ckpt_index_str(e, "name");
	if (strcmp(name, x->stats->name) == 0)
		return 1;
	return pf_fail_kind(err, PF_ERR_EXISTS, 0, "the checkpoint is here already, as '%s'", name);
}

static int commit(struct import *x, const char *text, const struct pf_ckpt *c, struct pf_err *err)
{
	struct pf_err ignored = PF_ERR_INIT;
	struct pf_txn_written w;
	char dir[32];

	if (pf_txn_finish(x->t, &w, err) < 0)
		return -1;
	x->stats->bytes_new = w.bytes_new;
	if (pf_txn_commit(x->t, text, x->stats->name, c->sandbox_id, c->created, &x->stats->digest, err) < 0)
		return -1;
	for (size_t i = 0; i < x->n; i++) {
		const struct one *l = &x->v[i];
		snprintf(dir, sizeof(dir), "layer-%zu", i);
		/* Both save work later; the checkpoint is good without them. */
		if (l->unpacked)
			(void)pf_txn_keep_unpacked(x->t, dir, &l->id, &ignored);
		struct pf_layer_published blob = {.form = (char *)"zstd",
			.digest = l->blob.digest,
			.diff_id = l->diff_id,
			.size = l->blob.size};
		if (!x->artifact)
			(void)pf_layer_doc_publish(x->h, &l->id, &blob, &ignored);
	}
	return 0;
}

/* `latest` goes by what a checkpoint says that it is of. */
static int check_sandbox(const struct import *x, const struct pf_ckpt *c, struct pf_err *err)
{
	const char *wanted = x->opts->sandbox;

	if (!wanted || strcmp(c->sandbox_id, wanted) == 0)
		return 0;
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "it is a checkpoint of sandbox '%s', not of '%s'",
		c->sandbox_id, wanted);
}

static int import_native(struct import *x, const char *text, struct pf_err *err)
{
	PF_CKPT struct pf_ckpt c = {0};

	pf_sha256_digest(text, strlen(text), &x->stats->digest);
	if (pf_ckpt_parse(x->h->storefd, &x->stats->digest, x->stats->name, text, strlen(text), false, &c,
		    err) < 0 ||
		check_sandbox(x, &c, err) < 0)
		return -1;
	int here = is_here(x, &x->stats->digest, err);
	if (here != 0)
		return here < 0 ? -1 : 0;
	if (read_layers(x, c.n_layers, err) < 0 || take_layers(x, &c, err) < 0)
		return -1;
	return commit(x, text, &c, err);
}

static int import_version_1(struct import *x, const cJSON *record, struct pf_err *err)
{
	PF_CKPT struct pf_ckpt c = {0};

	if (read_layers(x, (size_t)cJSON_GetArraySize(x->layers), err) < 0 || take_layers(x, NULL, err) < 0)
		return -1;
	PF_FREE char *text = from_version_1(x, record);
	pf_sha256_digest(text, strlen(text), &x->stats->digest);
	if (pf_ckpt_parse(-1, &x->stats->digest, x->stats->name, text, strlen(text), false, &c, err) < 0 ||
		check_sandbox(x, &c, err) < 0)
		return -1;
	int here = is_here(x, &x->stats->digest, err);
	return here != 0 ? (here < 0 ? -1 : 0) : commit(x, text, &c, err);
}

static int choose_name(struct import *x, const cJSON *entry, const char *name, struct pf_err *err)
{
	if (!name)
		name = pf_oci_note(entry, PF_OCI_REF_NAME);
	if (pf_check_id("checkpoint name (set one with --name)", name, err) < 0)
		return -1;
	if (strcmp(name, "latest") == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"'latest' means the newest checkpoint: set another name with --name");
	snprintf(x->stats->name, sizeof(x->stats->name), "%s", name);
	return 0;
}

static int import_layout(struct import *x, const char *ref, const char *name, struct pf_err *err)
{
	PF_JSON cJSON *index = pf_oci_read_index(x->dir, err);
	const cJSON *entry = index ? pf_oci_pick(index, ref, err) : NULL;

	if (!entry || choose_name(x, entry, name, err) < 0 || read_documents(x, entry, err) < 0)
		return -1;
	if (pf_ckpt_is_artifact(x->manifest)) {
		PF_FREE char *text = NULL;
		struct pf_digest digest;
		x->artifact = true;
		if (pf_ckpt_artifact_manifest(x->h, x->blobs, x->manifest, &digest, &text, err) < 0 ||
			seal_too(x, err) < 0)
			return -1;
		return import_native(x, text, err);
	}
	const cJSON *key = cJSON_GetObjectItemCaseSensitive(x->config, PF_CKPT_KEY);
	const cJSON *version = cJSON_GetObjectItemCaseSensitive(key, "version");
	if (cJSON_IsString(key))
		return import_native(x, key->valuestring, err);
	if (cJSON_IsNumber(version) && version->valueint == 1)
		return import_version_1(x, key, err);
	if (cJSON_IsObject(key))
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"the checkpoint is of a version that this program does not know: a newer one may");
	return pf_fail_kind(err, PF_ERR_INVALID, 0,
		"an image and no checkpoint: its configuration has no %s; pinfold image import takes it",
		PF_CKPT_KEY);
}

int pf_ckpt_import(struct pf_ckpt_heavy *h, const char *source, const struct pf_ckpt_import_opts *opts,
	struct pf_ckpt_import_stats *stats, struct pf_err *err)
{
	struct import x = {.h = h, .opts = opts, .stats = stats, .dir = -1, .blobs = -1};
	struct pf_txn_opts t = {.level = opts->level, .threads = opts->threads, .foreign = true};
	PF_FREE char *path = NULL, *ref = NULL;
	bool archive;

	*stats = (struct pf_ckpt_import_stats){0};
	split_source(source, &archive, &path, &ref);
	int r = pf_ckpt_heavy_choose(h, false, &t.sealed, err);
	if (r == 0)
		r = pf_txn_begin(h, &t, &x.t, err);
	if (r == 0)
		r = open_layout(&x, path, archive, err);
	if (r == 0)
		r = import_layout(&x, ref, opts->name, err);
	pf_txn_end(x.t);
	pf_txn_end(x.outer);
	cJSON_Delete(x.config);
	cJSON_Delete(x.manifest);
	free(x.v);
	if (x.blobs >= 0)
		close(x.blobs);
	if (x.dir >= 0)
		close(x.dir);
	return r < 0 ? pf_wrap(err, "import %s", source) : 0;
}
