/* A stored layer as a tar: what OCI tools call a layer. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_LAYERTAR_H
#define PF_CHECKPOINT_LAYERTAR_H

#include <cjson/cJSON.h>

#include "base/err.h"
#include "checkpoint/heavy.h"
#include "checkpoint/sha256.h"
#include "checkpoint/tarout.h"

/* Write the members of a layer to o, in the order of its tree. The bytes depend on the layer's id alone.
 * Every chunk and file is compared with its hash on the way, and the tree with the id: after 0 what o got is
 * true. */
int pf_layer_tar(
	struct pf_ckpt_heavy *h, const struct pf_digest *layer, struct pf_tarout *o, struct pf_err *err);

/* Whether it can have a table of contents: 1; 0 and *why (malloc'ed, one line: "/path: …") if not; -1. */
int pf_layer_has_toc(struct pf_ckpt_heavy *h, const struct pf_digest *layer, char **why, struct pf_err *err);
/* The same by t, to the end of the tar, and *notes as pf_toc_finish() gives them. What is a hole is zeros
 * here: the readers of such tables know no sparse files, and OCI advises against them. */
int pf_layer_tar_toc(struct pf_ckpt_heavy *h, const struct pf_digest *layer, struct pf_tarout *o,
	cJSON **notes, struct pf_err *err);

#endif
