/* Making checkpoints. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_WRITE_H
#define PF_CHECKPOINT_WRITE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/live.h"
#include "checkpoint/sha256.h"
#include "checkpoint/store.h"
#include "checkpoint/txn.h"

/* Everything borrowed. */
struct pf_ckpt_source {
	int upper_fd;           /* the overlay upper */
	const char *sandbox_id; /* pf_check_id() */
	const char *from;   /* digest of the checkpoint the sandbox was created from, NULL: from its image */
	const char *parent; /* digest of the sandbox's previous checkpoint, NULL: the first */
	const char *name;   /* NULL: "<sandbox id>.<n>" */
	const char *base_image_ref, *base_image_digest;
	const cJSON *labels;        /* object of strings or NULL */
	const cJSON *sandbox_file;  /* normalised, without secrets; or NULL */
	const cJSON *policy;        /* as the caller keeps it; or NULL */
	const char *const *exclude; /* besides the defaults below; NULL-terminated or NULL */
	bool userxattr;             /* see struct pf_walk_opts */
	int level, threads;         /* 0: our own choice, number of cpus */
	const struct pf_live *live; /* NULL: nobody writes to the upper */
	bool no_sync;               /* no process of the box is left: see struct pf_txn_source */
	bool sealed;                /* into the sealed domain of h */
};

/* What is never part of a checkpoint: /proc /sys /dev /run /tmp, NULL-terminated. Nor are /etc/hosts,
 * /etc/hostname and /etc/resolv.conf when they are empty files: what the box mounts its own on. */
extern const char *const pf_ckpt_default_exclude[];

struct pf_ckpt_result {
	struct pf_digest digest;
	char *name; /* malloc'ed: pf_ckpt_result_done() */
	struct pf_txn_layer layer;
	struct pf_txn_written written;
	int64_t bytes_new; /* what the store grew by */
	int64_t duration_us;
};
void pf_ckpt_result_done(struct pf_ckpt_result *r);

/* Pack the upper and commit a checkpoint of it. When this returns 0 the checkpoint is on disk (fsync of every
 * file and directory on the way); on error the store shows nothing of it and holds nothing of it. Errors:
 * EXISTS for a taken name, STATE when an idle tree was written to, CORRUPT when a layer below is damaged. */
int pf_ckpt_write_to(struct pf_ckpt_heavy *h, const struct pf_ckpt_source *src, struct pf_ckpt_result *res,
	struct pf_err *err);
/* The same, opening the store (made if missing); sealed also where pf_ckpt_heavy_choose() says so. */
int pf_ckpt_write(
	const char *store, const struct pf_ckpt_source *src, struct pf_ckpt_result *res, struct pf_err *err);

#endif
