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
};

/* What is never part of a checkpoint: /proc /sys /dev /run /tmp, NULL-terminated. Nor are /etc/hosts,
 * /etc/hostname and /etc/resolv.conf when they are empty files: what the box mounts its own on. */
extern const char *const pf_ckpt_default_exclude[];

struct pf_ckpt_result {
	struct pf_digest digest;
	char *name; /* malloc'ed: pf_ckpt_result_done() */
	struct pf_tarout_result layer;
	int64_t bytes_new; /* what the store grew by: config, manifest, layer unless it was there already */
	struct pf_walk_stats walked;
	struct pf_pack_stats packed;
	struct pf_live_stats live;
	int64_t duration_us;
};
void pf_ckpt_result_done(struct pf_ckpt_result *r);

/* Pack the upper and commit a checkpoint of it. When this returns 0 the checkpoint is on disk (fsync of every
 * file and directory on the way); on error the store shows nothing of it and holds nothing of it. Errors:
 * EXISTS for a taken name, STATE when an idle tree was written to, CORRUPT when a layer below is damaged. */
int pf_ckpt_write(
	const char *store, const struct pf_ckpt_source *src, struct pf_ckpt_result *res, struct pf_err *err);

/* Publish finished documents and blobs. In the directory tmp_fd of the store lie files named by their hex
 * digests, durable; they are moved into blobs/ and manifest gets an index entry with the name and sandbox id.
 * The store's lock is held by the caller. */
int pf_ckpt_commit(int storefd, int tmp_fd, const struct pf_digest *files, size_t n_files,
	const struct pf_digest *manifest, int64_t manifest_size, const char *name, const char *sandbox_id,
	const char *created, struct pf_err *err);

/* Write text as a blob file (named by its hex digest) into tmp_fd, durable. */
int pf_ckpt_put_document(
	int tmp_fd, const char *text, struct pf_digest *digest, int64_t *size, struct pf_err *err);

/* OCI's name of this machine's architecture ("amd64"). */
const char *pf_oci_architecture(void);

#endif
