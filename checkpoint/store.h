/* The checkpoint store, light half: where things lie, what a name means, and the index. No compression and no
 * crypto library, so that `pinfold create --from` can use it at the speed of opening a few files.
 *
 *   STORE/checkpoints/oci-layout, index.json   an OCI image layout; one manifest per checkpoint
 *                     blobs/sha256/HEX         manifests, configs, layers (tar+zstd)
 *                     unpacked/sha256-HEX/fs   layers by diff_id, as overlay lower directories
 *                     tmp/                     half-made things, each locked by its maker
 *                     lock                     flock around every change of index.json and blobs/ */
#ifndef PF_CHECKPOINT_STORE_H
#define PF_CHECKPOINT_STORE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "checkpoint/sha256.h"

#define PF_OCI_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define PF_OCI_CONFIG_TYPE "application/vnd.oci.image.config.v1+json"
#define PF_OCI_LAYER_ZSTD_TYPE "application/vnd.oci.image.layer.v1.tar+zstd"
#define PF_OCI_REF_NAME "org.opencontainers.image.ref.name"
#define PF_CKPT_KEY "io.pinfold.checkpoint" /* in the config, and the prefix of our annotations */
#define PF_CKPT_MAX_LAYERS 400              /* overlayfs takes 500 lowers, the image needs some of them */
#define PF_CKPT_MAX_DOC ((size_t)8 << 20)   /* manifest, config or index, bytes */

/* What writing and restoring both refuse to exceed, per layer. */
#define PF_CKPT_MAX_BYTES ((int64_t)256 << 30) /* sum of file sizes, holes included */
#define PF_CKPT_MAX_ENTRIES ((int64_t)16 << 20)

/* One layer of a checkpoint. */
struct pf_ckpt_layer {
	struct pf_digest digest;  /* of the compressed blob */
	struct pf_digest diff_id; /* of the tar stream */
	int64_t size;             /* of the compressed blob, bytes */
	bool present;             /* the blob is in the store with that size */
	bool unpacked;            /* pf_ckpt_layer_dir() is there, verified when it was made */
};

/* A checkpoint: its manifest and config, both checked against their digests. */
struct pf_ckpt {
	struct pf_digest digest; /* of the manifest: the checkpoint's identity */
	struct pf_digest config_digest;
	int64_t manifest_size, config_size; /* bytes */
	char *name;                         /* index name, "" if it has none */
	char *sandbox_id;
	char *created; /* RFC 3339, UTC */
	char *parent;  /* digest of the checkpoint before it in the same sandbox, "" for the first */
	char *base_image_ref;
	char *base_image_digest;      /* "" when unknown: then nothing but the same reference fits */
	cJSON *record;                /* the config's io.pinfold.checkpoint object */
	struct pf_ckpt_layer *layers; /* TOPMOST FIRST, as overlay wants them */
	size_t n_layers;
	size_t n_damaged; /* "latest": newer checkpoints passed over because they are damaged */
};
void pf_ckpt_done(struct pf_ckpt *c);
#define PF_CKPT PF_CLEANUP(pf_ckpt_done)

/* Open STORE/checkpoints; create=true makes it (0700) with an empty index. Returns a directory fd. */
int pf_ckpt_store_open(const char *store, bool create, struct pf_err *err);

/* Find a checkpoint: spec is a digest ("sha256:…" or at least 6 hex digits of it, unique), a name, or
 * "latest" = the newest undamaged one of sandbox_id (which may be NULL for the other forms). "Undamaged"
 * here: the documents match their digests and every layer is there with its size; layer bytes are checked by
 * pf_ckpt_prepare or verify. Errors: NOT_FOUND naming what exists, INVALID for an ambiguous prefix, CORRUPT.
 */
int pf_ckpt_resolve(
	const char *store, const char *spec, const char *sandbox_id, struct pf_ckpt *out, struct pf_err *err);
/* The same on an open store. */
int pf_ckpt_resolve_at(
	int storefd, const char *spec, const char *sandbox_id, struct pf_ckpt *out, struct pf_err *err);

/* Only the digest that a spec (not "latest") means; the checkpoint itself may be damaged. */
int pf_ckpt_find_digest(int storefd, const char *spec, struct pf_digest *out, struct pf_err *err);

/* Read manifest + config of one digest. name may be NULL. */
int pf_ckpt_load(int storefd, const char *digest, const char *name, struct pf_ckpt *out, struct pf_err *err);

/* Refuse a checkpoint that was made on another image: digest is that of the image the caller resolved. */
int pf_ckpt_check_base(const struct pf_ckpt *c, const char *image_digest, struct pf_err *err);

/* The directory of an unpacked layer, whether it is there or not: STORE/checkpoints/unpacked/sha256-HEX/fs.
 * malloc'ed. */
char *pf_ckpt_layer_dir(const char *store, const struct pf_ckpt_layer *l);

/* Every checkpoint of the index, oldest first; damaged ones have record == NULL. malloc'ed array. */
int pf_ckpt_list(int storefd, struct pf_ckpt **out, size_t *n, struct pf_err *err);
void pf_ckpt_list_free(struct pf_ckpt *v, size_t n);

/* Names in a blob directory: "blobs/sha256/HEX". buf holds at least 96 bytes; returns buf. */
char *pf_ckpt_blob_path(const struct pf_digest *d, char buf[96]);
/* "sha256-HEX", buf as above. */
char *pf_ckpt_unpacked_name(const struct pf_digest *diff_id, char buf[96]);

/* The store's lock, held while the returned fd is open. */
int pf_ckpt_lock(int storefd, struct pf_err *err);

/* index.json, whole and checked for shape. The caller owns it and changes it only under the lock. */
cJSON *pf_ckpt_index_read(int storefd, struct pf_err *err);
int pf_ckpt_index_write(int storefd, const cJSON *index, struct pf_err *err);
/* The entry of a digest or of a name (either may be NULL), or NULL. */
cJSON *pf_ckpt_index_find(const cJSON *index, const char *digest, const char *name);
/* The string annotation of an index entry, "" if missing. */
const char *pf_ckpt_index_note(const cJSON *entry, const char *key);

/* A new directory in tmp/, locked: *lockfd keeps others' gc away from it, and is its directory fd. name
 * (at least 64 bytes) is its name below the store. Remove with pf_ckpt_tmp_remove. */
int pf_ckpt_tmp_make(int storefd, char name[64], int *lockfd, struct pf_err *err);
void pf_ckpt_tmp_remove(int storefd, const char *name, int *lockfd);

#endif
