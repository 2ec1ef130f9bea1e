/* What OCI calls things, and documents named by their digests. Light. */
#ifndef PF_CHECKPOINT_OCI_H
#define PF_CHECKPOINT_OCI_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/sha256.h"

#define PF_OCI_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define PF_OCI_CONFIG_TYPE "application/vnd.oci.image.config.v1+json"
#define PF_OCI_LAYER_TYPE "application/vnd.oci.image.layer.v1.tar"
#define PF_OCI_LAYER_ZSTD_TYPE "application/vnd.oci.image.layer.v1.tar+zstd"
#define PF_OCI_REF_NAME "org.opencontainers.image.ref.name"

/* A file of an image layout, as its manifest speaks of it. */
struct pf_oci_blob {
	struct pf_digest digest;
	int64_t size; /* bytes */
};

/* {"mediaType","digest","size"}, the caller's. */
cJSON *pf_oci_descriptor(const char *type, const struct pf_oci_blob *b);
/* Read one; what is wrong with it is CORRUPT. what names it in the error. */
int pf_oci_descriptor_read(const cJSON *d, const char *what, struct pf_oci_blob *b, struct pf_err *err);

/* Write text as a blob (named by its hex digest) into the directory blobs, durable. One that is there already
 * is as good. */
int pf_oci_put_document(int blobs, const char *text, struct pf_oci_blob *b, struct pf_err *err);
/* Read a blob that is a document, of its descriptor's size and digest. *text is malloc'ed. */
int pf_oci_get_document(int blobs, const struct pf_oci_blob *b, char **text, struct pf_err *err);

/* oci-layout and index.json with one manifest; name: what it is called there, "" for nothing. Durable. */
int pf_oci_write_layout(int dirfd, const char *type, const struct pf_oci_blob *manifest, const char *name,
	struct pf_err *err);
/* index.json of a foreign layout, checked for shape: an object with an array of objects "manifests". */
cJSON *pf_oci_read_index(int dirfd, struct pf_err *err);
/* The entry called ref (a name or digest), or with ref NULL the only one; borrowed from index. */
const cJSON *pf_oci_pick(const cJSON *index, const char *ref, struct pf_err *err);
/* The string annotation of a descriptor, "" if missing. */
const char *pf_oci_note(const cJSON *descriptor, const char *key);

/* OCI's name of this machine's architecture ("amd64"). */
const char *pf_oci_machine(void);

#endif
