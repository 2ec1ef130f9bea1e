/* Checkpoints in and out of the store as OCI image layouts. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_TRANSFER_H
#define PF_CHECKPOINT_TRANSFER_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/sha256.h"

struct pf_ckpt_transfer_stats {
	struct pf_digest digest; /* of the manifest that was written or taken in */
	char name[160];
	int64_t blobs, bytes; /* of the layout that was written; of the checkpoint that was taken in */
};

struct pf_ckpt_export_opts {
	/* The directories of the base image (topmost first, NULL-terminated) are packed below the
	 * checkpoint's layers, so that other tools unpack or run the whole tree. */
	char *const *base_layers;
	/* With base_layers: members for the image's "config" (Env, Cmd, WorkingDir, User), or NULL. */
	const cJSON *base_config;
	/* Layers as plain tar, for tools that do not know zstd. */
	bool uncompressed;
};

/* Write the checkpoint `spec` as a new OCI layout directory `dir` (which must not exist), every blob compared
 * with its digest on the way. Without options it is the checkpoint's own manifest, which import takes back;
 * with any of them it is an image with a digest of its own, which import refuses. */
int pf_ckpt_export(const char *store, const char *spec, const char *sandbox_id, const char *dir,
	const struct pf_ckpt_export_opts *opts, struct pf_ckpt_transfer_stats *stats, struct pf_err *err);

/* Take a checkpoint from an OCI layout directory into the store: ref picks it by name or digest (NULL: the
 * only one), name is what it is called here (NULL: its name there). Everything is hostile: each blob must
 * match its digest, its size and its diff_id before anything becomes visible. Nothing but the blobs and the
 * name is taken over: no annotation, no other entry. EXISTS when the name means something else here; a
 * checkpoint that is here already under the same name is success. */
int pf_ckpt_import(const char *store, const char *dir, const char *ref, const char *name,
	struct pf_ckpt_transfer_stats *stats, struct pf_err *err);

#endif
