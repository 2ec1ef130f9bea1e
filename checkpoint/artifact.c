/* Theory of operation: what is packed goes through a pipe to a thread that seals it, and what is opened
 * through a pipe to the unpacker, so that neither is anywhere as a whole. When one end fails it closes the
 * pipe, and the other finds that out; the error that is told is that of the one who failed first. */
#include "checkpoint/artifact.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "checkpoint/export.h"
#include "checkpoint/layertar.h"
#include "checkpoint/seal.h"
#include "checkpoint/tarhdr.h"
#include "checkpoint/tarout.h"
#include "overlay/unpack.h"

#define EMPTY_TYPE "application/vnd.oci.empty.v1+json"
#define DIGEST_NOTE PF_CKPT_KEY ".digest"
#define KIND_MANIFEST "export-manifest"
#define KIND_LAYER "export-layer"

static int open_seal(struct pf_ckpt_heavy *h, struct pf_seal **s, struct pf_err *err)
{
	const struct pf_kek *kek = pf_ckpt_key(h->storefd, err);

	return kek ? pf_seal_for_key(kek, s, err) : -1;
}

/* One end of a pipe in a thread of its own. */
struct pump {
	const struct pf_seal *seal;
	const char *name;
	int in, out;
	bool unseal;
	int r;
	struct pf_err err;
	pthread_t thread;
};

static void *pump(void *arg)
{
	struct pump *p = arg;

	p->err = PF_ERR_INIT;
	p->r = p->unseal ? pf_unseal_fd(p->seal, KIND_LAYER, p->name, p->in, p->out, &p->err)
			 : pf_seal_fd(p->seal, KIND_LAYER, p->name, p->in, p->out, &p->err);
	/* The pipe's end; the file is its opener's. */
	close(p->unseal ? p->out : p->in);
	return NULL;
}

static int start(struct pump *p, int *other, struct pf_err *err)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe");
	if (p->unseal)
		p->out = ends[1];
	else
		p->in = ends[0];
	*other = ends[p->unseal ? 0 : 1];
	int e = pthread_create(&p->thread, NULL, pump, p);
	if (e == 0)
		return 0;
	close(ends[0]);
	close(ends[1]);
	return pf_fail(err, e, "start a thread");
}

/* ---- out ---- */

static int pack(struct pf_ckpt_heavy *h, const struct pf_digest *layer, int fd, int level, int threads,
	struct pf_err *err)
{
	struct pf_tarout *o = pf_tarout_layer(fd, level, threads ? threads : 2, err);
	struct pf_tarout_result r;

	if (!o)
		return -1;
	if (pf_layer_tar(h, layer, o, err) < 0) {
		pf_tarout_abort(o);
		return -1;
	}
	return pf_tarout_finish(o, &r, err);
}

static int name_blob(int blobs, int fd, struct pf_oci_blob *b, struct pf_err *err)
{
	if (pf_ckpt_hash_fd(fd, &b->digest, &b->size, err) < 0)
		return -1;
	if (fsync(fd) < 0 || renameat(blobs, "sealed", blobs, pf_digest_hex(&b->digest)) < 0)
		return pf_fail(err, errno, "name a blob");
	return 0;
}

static int new_blob(int blobs, struct pf_err *err)
{
	int fd = openat(blobs, "sealed", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	return fd < 0 ? pf_fail(err, errno, "create a blob") : fd;
}

static int seal_layer(struct pf_ckpt_heavy *h, const struct pf_seal *s, const struct pf_digest *layer,
	int blobs, int level, int threads, struct pf_oci_blob *b, struct pf_err *err)
{
	PF_CLOSE int fd = new_blob(blobs, err);
	struct pump p = {.seal = s, .name = pf_digest_hex(layer), .out = fd};
	int pipe_end;

	if (fd < 0 || start(&p, &pipe_end, err) < 0)
		return -1;
	int r = pack(h, layer, pipe_end, level, threads, err);
	close(pipe_end);
	(void)pthread_join(p.thread, NULL);
	if (p.r < 0)
		*err = p.err;
	return r < 0 || p.r < 0 ? -1 : name_blob(blobs, fd, b, err);
}

static int seal_manifest(const struct pf_seal *s, const struct pf_ckpt *c, const char *manifest, int blobs,
	struct pf_oci_blob *b, struct pf_err *err)
{
	PF_CLOSE int fd = new_blob(blobs, err);
	PF_FREE uint8_t *sealed = NULL;
	size_t len;

	if (fd < 0 || pf_seal_doc(s, KIND_MANIFEST, pf_digest_hex(&c->digest), manifest, strlen(manifest),
			      &sealed, &len, err) < 0)
		return -1;
	if (pf_write_all(fd, sealed, len) < 0)
		return pf_fail(err, errno, "write a blob");
	return name_blob(blobs, fd, b, err);
}

int pf_ckpt_export_sealed(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, const char *manifest, int blobs,
	int level, int threads, struct pf_oci_blob *out, struct pf_err *err)
{
	PF_SEAL struct pf_seal *s = NULL;
	PF_JSON cJSON *j = cJSON_CreateObject();
	struct pf_oci_blob b;

	if (open_seal(h, &s, err) < 0 || pf_oci_put_document(blobs, "{}", &b, err) < 0)
		return -1;
	cJSON_AddNumberToObject(j, "schemaVersion", 2);
	cJSON_AddStringToObject(j, "mediaType", PF_OCI_MANIFEST_TYPE);
	cJSON_AddStringToObject(j, "artifactType", PF_SEALED_TYPE);
	cJSON_AddItemToObject(j, "config", pf_oci_descriptor(EMPTY_TYPE, &b));
	cJSON *layers = cJSON_AddArrayToObject(j, "layers");
	if (seal_manifest(s, c, manifest, blobs, &b, err) < 0)
		return -1;
	cJSON_AddItemToArray(layers, pf_oci_descriptor(PF_SEALED_MANIFEST_TYPE, &b));
	for (size_t i = c->n_layers; i-- > 0;) {
		if (seal_layer(h, s, &c->layers[i].id, blobs, level, threads, &b, err) < 0)
			return -1;
		cJSON_AddItemToArray(layers, pf_oci_descriptor(PF_SEALED_LAYER_TYPE, &b));
	}
	cJSON_AddStringToObject(cJSON_AddObjectToObject(j, "annotations"), DIGEST_NOTE, c->digest.s);
	PF_FREE char *text = pf_json_text(j);
	return pf_oci_put_document(blobs, text, out, err);
}

/* ---- in ---- */

bool pf_ckpt_is_artifact(const cJSON *oci_manifest)
{
	const char *type =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(oci_manifest, "artifactType"));

	return type && strcmp(type, PF_SEALED_TYPE) == 0;
}

int pf_ckpt_artifact_manifest(struct pf_ckpt_heavy *h, int blobs, const cJSON *oci_manifest,
	struct pf_digest *digest, char **text, struct pf_err *err)
{
	PF_SEAL struct pf_seal *s = NULL;
	PF_FREE char *sealed = NULL;
	PF_FREE uint8_t *opened = NULL;
	const char *named = pf_oci_note(oci_manifest, DIGEST_NOTE);
	struct pf_oci_blob b;
	struct pf_digest is;
	size_t len, opened_len;

	if (pf_oci_descriptor_read(
		    cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(oci_manifest, "layers"), 0),
		    "the sealed manifest", &b, err) < 0)
		return -1;
	if (!pf_digest_ok(named))
		return pf_fail_kind(
			err, PF_ERR_CORRUPT, 0, "the artifact does not say which checkpoint it is");
	memcpy(digest->s, named, sizeof(digest->s));
	if (open_seal(h, &s, err) < 0 ||
		pf_read_plain_at(blobs, pf_digest_hex(&b.digest), 2 * PF_CKPT_MAX_DOC, &sealed, &len, err) <
			0 ||
		pf_unseal_doc(
			s, KIND_MANIFEST, pf_digest_hex(digest), sealed, len, &opened, &opened_len, err) < 0)
		return -1;
	pf_sha256_digest(opened, opened_len, &is);
	if (strcmp(is.s, digest->s) != 0 || strlen((char *)opened) != opened_len)
		return pf_fail_kind(
			err, PF_ERR_CORRUPT, 0, "the sealed manifest is that of another checkpoint");
	*text = (char *)pf_take(opened);
	return 0;
}

int pf_ckpt_artifact_unpack(
	struct pf_ckpt_heavy *h, int blob_fd, const struct pf_digest *layer, int fs, struct pf_err *err)
{
	PF_SEAL struct pf_seal *s = NULL;
	const struct pf_unpack_opts o = {
		.max_bytes = PF_CKPT_MAX_BYTES, .max_entries = PF_CKPT_MAX_ENTRIES, .strict = true};
	struct pump p = {.name = pf_digest_hex(layer), .in = blob_fd, .unseal = true};
	int pipe_end;

	if (open_seal(h, &s, err) < 0)
		return -1;
	p.seal = s;
	if (start(&p, &pipe_end, err) < 0)
		return -1;
	int r = pf_unpack_layer(pipe_end, fs, &o, NULL, err);
	close(pipe_end);
	(void)pthread_join(p.thread, NULL);
	/* Of two errors a full disk is ours, a broken pipe is not the other's fault. */
	if (p.r < 0 && (r == 0 || p.err.errnum != EPIPE)) {
		*err = p.err;
		return -1;
	}
	return r;
}
