/* Checkpoints out of the store, in the forms that other tools read. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_EXPORT_H
#define PF_CHECKPOINT_EXPORT_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/heavy.h"
#include "checkpoint/sha256.h"

enum pf_ckpt_form {
	PF_CKPT_OCI,         /* an OCI image layout: a directory */
	PF_CKPT_OCI_ARCHIVE, /* the same as one tar file */
	PF_CKPT_TAR,         /* the files alone, all layers over each other, as one plain tar */
};

struct pf_ckpt_export_opts {
	enum pf_ckpt_form form;
	/* The directories of the base image (topmost first, NULL-terminated) come below the checkpoint's
	 * layers, so that other tools unpack or run the whole tree. */
	char *const *base_layers;
	/* PF_CKPT_TAR: the directories of the checkpoint's own layers, unpacked, topmost first,
	 * NULL-terminated. */
	char *const *unpacked;
	/* With base_layers: members for the image's "config" (Env, Cmd, WorkingDir, User), or NULL. */
	const cJSON *base_config;
	/* Instead of base_layers: {"layers": [descriptor…], "diff_ids": ["sha256:…"…]}, bottom first, of the
	 * base image's layers where somebody else has them: they are referred to, and not in the layout. */
	const cJSON *base_refs;
	/* A sealed checkpoint leaves in clear. Without this it leaves as an artifact that is sealed under the
	 * same key (artifact.h), for which only forms with an image layout and none of the options above are
	 * good. */
	bool decrypt;
	/* Layers as plain tar, for tools that do not know zstd. */
	bool uncompressed;
	/* The checkpoint's own layers with tables of contents (toc.h), where they can be had. Not with
	 * uncompressed. */
	bool chunked;
	/* Digests of blobs that the receiver has, NULL-terminated: they are left out, and not made. */
	const char *const *without;
	int level, threads; /* zstd; 0: 3, as many as there are cpus */
};

struct pf_ckpt_export_stats {
	struct pf_digest digest; /* of the OCI manifest; of a tar: of the file */
	int64_t blobs, bytes;    /* that were written */
	int64_t tables;          /* chunked: layers that have a table of contents */
	cJSON *without_table; /* chunked: of the others, why ("sha256:…: /path: …"); the caller's, or NULL */
};

/* Write the checkpoint to path, which must not exist. The image's configuration carries the checkpoint's
 * manifest word for word: pf_ckpt_import() makes the same checkpoint of it again, with whatever of the
 * options. The same checkpoint gives the same bytes. h is open for reading; c is loaded. On failure path is
 * not there. */
int pf_ckpt_export(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, const char *path,
	const struct pf_ckpt_export_opts *opts, struct pf_ckpt_export_stats *stats, struct pf_err *err);

/* Digest and size of a file, read from its beginning. */
int pf_ckpt_hash_fd(int fd, struct pf_digest *out, int64_t *size, struct pf_err *err);

#endif
