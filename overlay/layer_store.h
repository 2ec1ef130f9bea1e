/* Adding to the image store: layers by diff id, records by name. Heavy part (callers unpack and hash).
 *
 * Everything is made under <store>/images/tmp in a directory of its own, which its maker keeps locked, and
 * renamed when it is complete and on disk. A crash leaves only unlocked directories there; gc removes them.
 */
#ifndef PF_OVERLAY_LAYER_STORE_H
#define PF_OVERLAY_LAYER_STORE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "overlay/unpack.h"

struct pf_layer_store {
	char *path; /* <store>/images */
	int fd;     /* of it */
	int layers, refs, tmp;
};
#define PF_LAYER_STORE_INIT ((struct pf_layer_store){.fd = -1, .layers = -1, .refs = -1, .tmp = -1})

/* Open <store>/images, making what is missing (mode 0700). */
int pf_layer_store_open(const char *store, struct pf_layer_store *s, struct pf_err *err);
void pf_layer_store_close(struct pf_layer_store *s);

/* The lock under which layers and records are put in place or taken away: nobody can remove a layer between
 * another's look at it and the record that needs it. Held as long as the fd. */
int pf_layer_store_lock(struct pf_layer_store *s, struct pf_err *err);

/* A directory for half-made things. */
struct pf_store_tmp {
	char *name; /* below tmp/ */
	int fd, lock;
};
#define PF_STORE_TMP_INIT ((struct pf_store_tmp){.fd = -1, .lock = -1})
int pf_store_tmp_new(struct pf_layer_store *s, struct pf_store_tmp *t, struct pf_err *err);
/* Remove it with whatever is in it. Safe on a PF_STORE_TMP_INIT. */
void pf_store_tmp_drop(struct pf_layer_store *s, struct pf_store_tmp *t);

/* Whether this layer is there, complete. */
bool pf_layer_present(const struct pf_layer_store *s, const char *diff_id);

/* The sum of its files' sizes, as noted when it came in; 0 if that is not known. */
int64_t pf_layer_bytes(const struct pf_layer_store *s, const char *diff_id);

/* Unpack an archive as t/fs. stats tells its diff id. Checks what a root file system must not have (a FIFO
 * for /etc/passwd). */
int pf_layer_unpack(struct pf_store_tmp *t, int archive_fd, const struct pf_unpack_opts *opts,
	struct pf_unpack_stats *stats, struct pf_err *err);
/* What pf_layer_unpack checks at the end, for trees that came otherwise. */
int pf_layer_check_tree(int fs_fd, struct pf_err *err);

/* Give t/fs its place as diff_id, with the numbers about it; if the layer is there already, t is dropped.
 * Under the lock. */
int pf_layer_commit(struct pf_layer_store *s, struct pf_store_tmp *t, const char *diff_id, int64_t bytes,
	int64_t entries, struct pf_err *err);

/* Write a record durably. Under the lock. Takes the members ref, digest, manifest, layers (bottom first),
 * env, entrypoint, cmd, workdir, user, config (the config blob's text), created, source, bytes. */
int pf_record_write(struct pf_layer_store *s, const cJSON *record, struct pf_err *err);

/* A record's part that comes from an OCI image configuration: env, entrypoint, cmd, workdir, user, and
 * nothing else. Checks the system and the machine it is for. layers is set to its diff ids. */
int pf_record_from_config(const cJSON *config, cJSON *record, struct pf_err *err);

#endif
