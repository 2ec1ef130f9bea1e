/* Checkpoints into the store, from the forms that export makes and that registries and other tools hand on.
 * Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_IMPORT_H
#define PF_CHECKPOINT_IMPORT_H

#include <stdint.h>

#include "base/err.h"
#include "checkpoint/heavy.h"
#include "checkpoint/sha256.h"

struct pf_ckpt_import_opts {
	const char *name;    /* what it is called here; NULL: its name there */
	const char *sandbox; /* the sandbox whose it must be; NULL: any */
	int level, threads;  /* zstd; 0: 3, as many as there are cpus */
};

struct pf_ckpt_import_stats {
	struct pf_digest digest; /* the checkpoint's */
	struct pf_digest source; /* of the OCI manifest it came by */
	char name[160];
	int64_t layers, unpacked; /* of it; of these, not in the store before */
	int64_t bytes;            /* of the files in the layers that were unpacked */
	int64_t bytes_new;        /* what the store grew by */
};

/* Take a checkpoint in. source: "oci:DIR[:NAME]", "oci-archive:FILE[:NAME]" or a directory; NAME (or a
 * digest) is needed where there are several. Also checkpoints of version 1, which get the digest that their
 * files have in this version. Everything is hostile: each blob must match its digest, size and diff_id, must
 * hold nothing that our own writer never makes, and what was unpacked must be the tree that the checkpoint's
 * manifest says. Nothing but the manifest, the layers and the name is taken over. Layers that the store has
 * need not be there. EXISTS when the name means something else here, or the checkpoint has another one;
 * INVALID for an image that is no checkpoint, or another sandbox's; one that is here already under the same
 * name is success. h is open, not exclusive. */
int pf_ckpt_import(struct pf_ckpt_heavy *h, const char *source, const struct pf_ckpt_import_opts *opts,
	struct pf_ckpt_import_stats *stats, struct pf_err *err);

#endif
