/* Sealed checkpoints outside of a store: an OCI artifact that any registry keeps and only the key opens.
 * Heavy: pinfold-store only.
 *
 * A manifest of artifactType PF_SEALED_TYPE with an empty config. Its first layer is the checkpoint's
 * manifest, the others are its layers, bottom first, as tar and zstd; each is a sealed stream (seal.h) of
 * kind "export-manifest" and "export-layer", named by the digest of the checkpoint and the id of the layer.
 */
#ifndef PF_CHECKPOINT_ARTIFACT_H
#define PF_CHECKPOINT_ARTIFACT_H

#include <cjson/cJSON.h>

#include "base/err.h"
#include "checkpoint/heavy.h"
#include "checkpoint/oci.h"

#define PF_SEALED_TYPE "application/vnd.pinfold.checkpoint.sealed.v1"
#define PF_SEALED_MANIFEST_TYPE "application/vnd.pinfold.checkpoint.manifest.v1+json.sealed"
#define PF_SEALED_LAYER_TYPE "application/vnd.pinfold.checkpoint.layer.v1.tar+zstd.sealed"

/* Write the artifact's blobs into the directory blobs; *out is its manifest. Nothing is on the disk in clear
 * meanwhile. manifest: the checkpoint's, in clear. */
int pf_ckpt_export_sealed(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, const char *manifest, int blobs,
	int level, int threads, struct pf_oci_blob *out, struct pf_err *err);

/* Whether an OCI manifest is such an artifact's. */
bool pf_ckpt_is_artifact(const cJSON *oci_manifest);

/* Open the checkpoint's manifest: malloc'ed text that has the digest which the artifact names. */
int pf_ckpt_artifact_manifest(struct pf_ckpt_heavy *h, int blobs, const cJSON *oci_manifest,
	struct pf_digest *digest, char **text, struct pf_err *err);

/* Open a layer's blob and unpack it into the directory fs, strictly. That it is the layer of this id is only
 * known when its tree was computed. */
int pf_ckpt_artifact_unpack(
	struct pf_ckpt_heavy *h, int blob_fd, const struct pf_digest *layer, int fs, struct pf_err *err);

#endif
