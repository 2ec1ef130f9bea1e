/* The checkpoint store, light half: where things lie, what a name means, and the index. No compression and no
 * crypto library, so that `pinfold create --from` can use it at the speed of opening a few files.
 *
 *   STORE/checkpoints/format           version and parameters
 *                     index.json       the checkpoints in the order they were made
 *                     manifests/HEX    one per checkpoint, by its digest
 *                     layers/HEX       where a layer's tree and map are stored (sealed: HEX.sealed)
 *                     packs/           chunks (packs.h)
 *                     files/           which files need not be read again (filesindex.h)
 *                     unpacked/sha256-HEX/fs  layers by id, as overlay lower directories
 *                     tmp/             half-made things, each locked by its maker
 *                     packs.lock       flock: shared while chunks are read or added, exclusive while they go
 *                     lock             flock around every change of index.json, manifests/ and layers/;
 *                                      taken after packs.lock, never before it */
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
#define PF_CKPT_VERSION 2
#define PF_CKPT_KEY                                                                                      \
	"io.pinfold.checkpoint"           /* in an OCI image's config, and the prefix of our annotations \
					   */
#define PF_CKPT_MAX_LAYERS 400            /* overlayfs takes 500 lowers, the image needs some of them */
#define PF_CKPT_MAX_DOC ((size_t)8 << 20) /* manifest or index, bytes */

/* What writing and restoring both refuse to exceed, per layer. */
#define PF_CKPT_MAX_BYTES ((int64_t)256 << 30) /* sum of file sizes, holes included */
#define PF_CKPT_MAX_ENTRIES ((int64_t)16 << 20)

/* One layer of a checkpoint. */
struct pf_ckpt_layer {
	struct pf_digest id;    /* SHA-256 of its tree */
	int64_t bytes, entries; /* sizes of its files, number of its names */
	bool present;           /* its document is in the store */
	bool unpacked;          /* pf_ckpt_layer_dir() is there, verified when it was made */
};

/* A checkpoint: its manifest, checked against its digest. */
struct pf_ckpt {
	struct pf_digest digest; /* of the manifest: the checkpoint's identity */
	int64_t manifest_size;   /* bytes */
	bool sealed;             /* cannot be read without a key; then there may be no record */
	bool foreign;            /* imported in clear: who made it is not known (set by resolve and list) */
	char *name;              /* index name, "" if it has none */
	char *sandbox_id;
	char *created; /* RFC 3339, UTC */
	char *parent;  /* digest of the checkpoint before it in the same sandbox, "" for the first */
	char *base_image_ref;
	char *base_image_digest;      /* "" when unknown: then nothing but the same reference fits */
	cJSON *record;                /* the manifest */
	struct pf_ckpt_layer *layers; /* TOPMOST FIRST, as overlay wants them */
	size_t n_layers;
	size_t n_damaged; /* "latest": newer checkpoints passed over because they are damaged */
};
void pf_ckpt_done(struct pf_ckpt *c);
#define PF_CKPT PF_CLEANUP(pf_ckpt_done)

/* Open STORE/checkpoints; create=true makes it (0700) with an empty index. Returns a directory fd, whose ".."
 * is STORE: a symbolic link in its place is refused. */
int pf_ckpt_store_open(const char *store, bool create, struct pf_err *err);

/* Find a checkpoint: spec is a digest ("sha256:…" or at least 6 hex digits of it, unique), a name, or
 * "latest" = the newest undamaged one of sandbox_id (which may be NULL for the other forms). "Undamaged"
 * here: the manifest matches its digest and every layer's document is there; the data is checked by
 * pf_ckpt_prepare or verify. Errors: NOT_FOUND naming what exists, INVALID for an ambiguous prefix, CORRUPT.
 */
int pf_ckpt_resolve(
	const char *store, const char *spec, const char *sandbox_id, struct pf_ckpt *out, struct pf_err *err);
/* The same on an open store. */
int pf_ckpt_resolve_at(
	int storefd, const char *spec, const char *sandbox_id, struct pf_ckpt *out, struct pf_err *err);

/* Only the digest that a spec (not "latest") means; the checkpoint itself may be damaged. */
int pf_ckpt_find_digest(int storefd, const char *spec, struct pf_digest *out, struct pf_err *err);

/* How pf_ckpt_load() opens a sealed manifest: pinfold-store does it itself, pinfold asks pinfold-store (a
 * cipher is a library that takes longer to load than all the rest). *text is malloc'ed and NUL-terminated.
 * NULL: that a checkpoint is sealed is an error. Set once, before there are threads. */
typedef int pf_ckpt_manifest_opener(int storefd, const struct pf_digest *digest, const char *sealed,
	size_t sealed_len, char **text, size_t *len, struct pf_err *err);
extern pf_ckpt_manifest_opener *pf_ckpt_open_manifest;

/* Whether something of the store was not read for want of rights, memory or descriptors: that says nothing of
 * what it is like. */
bool pf_ckpt_not_now(const struct pf_err *err);
/* Make of an error in reading a document PF_ERR_CORRUPT, unless it is such a one. */
void pf_ckpt_unreadable(struct pf_err *err);
/* Read the manifest of one digest. name may be NULL. When a sealed one cannot be opened out->sealed is set
 * all the same. */
int pf_ckpt_load(int storefd, const char *digest, const char *name, struct pf_ckpt *out, struct pf_err *err);
/* The same of a manifest's text, which is compared with its digest and may come from elsewhere (storefd -1:
 * then no layer is present). */
int pf_ckpt_parse(int storefd, const struct pf_digest *digest, const char *name, const char *text, size_t len,
	bool sealed, struct pf_ckpt *out, struct pf_err *err);

/* What the checkpoints of jails have in place of an image: theirs is what differs from directories of the
 * machine. */
#define PF_CKPT_JAIL "jail"
/* Refuse such a one, where a sandbox is to stand on it. */
int pf_ckpt_check_no_jail(const struct pf_ckpt *c, struct pf_err *err);

/* Refuse a foreign checkpoint that says to stand on a directory of whoever made it: here that would be one of
 * ours. remedy: ends the error text; NULL: none. */
int pf_ckpt_check_foreign_base(const struct pf_ckpt *c, const char *remedy, struct pf_err *err);

/* Refuse a checkpoint that was made on another image: digest is that of the image the caller resolved. */
int pf_ckpt_check_base(const struct pf_ckpt *c, const char *image_digest, struct pf_err *err);

/* The directory of an unpacked layer, whether it is there or not: STORE/checkpoints/unpacked/sha256-HEX/fs.
 * malloc'ed. */
char *pf_ckpt_layer_dir(const char *store, const struct pf_ckpt_layer *l);

/* Every checkpoint of the index, oldest first; damaged ones have record == NULL. malloc'ed array. */
int pf_ckpt_list(int storefd, struct pf_ckpt **out, size_t *n, struct pf_err *err);
void pf_ckpt_list_free(struct pf_ckpt *v, size_t n);

/* "manifests/HEX", "layers/HEX", "layers/HEX.sealed". buf holds at least 96 bytes; returns buf. */
char *pf_ckpt_manifest_path(const struct pf_digest *d, char buf[96]);
char *pf_ckpt_layer_path(const struct pf_digest *id, bool sealed, char buf[96]);
/* "sha256-HEX", buf as above. */
char *pf_ckpt_unpacked_name(const struct pf_digest *id, char buf[96]);

/* The store's lock, held while the returned fd is open. */
int pf_ckpt_lock(int storefd, struct pf_err *err);

/* index.json, whole and checked for shape. The caller owns it and changes it only under the lock. */
cJSON *pf_ckpt_index_read(int storefd, struct pf_err *err);
int pf_ckpt_index_write(int storefd, const cJSON *index, struct pf_err *err);
/* Refuse an index that is too long to be read again. */
int pf_ckpt_index_check_size(const cJSON *index, struct pf_err *err);
/* The entry of a digest or of a name (either may be NULL), or NULL. */
cJSON *pf_ckpt_index_find(const cJSON *index, const char *digest, const char *name);
/* Of an entry: "digest", "name", "sandbox" or "created"; "" if missing. */
const char *pf_ckpt_index_str(const cJSON *entry, const char *key);
bool pf_ckpt_index_sealed(const cJSON *entry);
bool pf_ckpt_index_foreign(const cJSON *entry);
/* Add an entry, remove one. */
void pf_ckpt_index_add(cJSON *index, const struct pf_digest *digest, const char *name, const char *sandbox,
	const char *created, bool sealed, bool foreign);
void pf_ckpt_index_remove(cJSON *index, const char *digest);
/* The array of entries. */
cJSON *pf_ckpt_index_entries(const cJSON *index);

/* A new directory in tmp/, locked: *lockfd keeps others' gc away from it, and is its directory fd. name
 * (at least 64 bytes) is its name below the store. Remove with pf_ckpt_tmp_remove. */
int pf_ckpt_tmp_make(int storefd, char name[64], int *lockfd, struct pf_err *err);
/* The same when the caller holds the store's lock. */
int pf_ckpt_tmp_make_locked(int storefd, char name[64], int *lockfd, struct pf_err *err);
void pf_ckpt_tmp_remove(int storefd, const char *name, int *lockfd);

#endif
