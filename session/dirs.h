/* Where a session's things lie, and the lock on its id.
 *
 *   <root>   /run/pinfold       ID/state.json, ID/control (the keeper's socket), .locks/ID, .cache/
 *   <store>  /var/lib/pinfold   sandboxes/ID/ (sandbox file, bundle, workspace), logs/ID.jsonl, trash/,
 *                               images/, checkpoints/
 * All 0700. */
#ifndef PF_SESSION_DIRS_H
#define PF_SESSION_DIRS_H

#include <stdbool.h>

#include "base/err.h"

#define PF_DEFAULT_ROOT "/run/pinfold"
#define PF_DEFAULT_STORE "/var/lib/pinfold"

struct pf_dirs {
	const char *root, *store; /* absolute paths */
};

/* Open <root>/ID or <store>/sandboxes/ID. create makes it (and what is above it); otherwise a missing one is
 * PF_ERR_NOT_FOUND: "no sandbox 'ID'". */
int pf_dirs_run(const struct pf_dirs *d, const char *id, bool create, struct pf_err *err);
int pf_dirs_sandbox(const struct pf_dirs *d, const char *id, bool create, struct pf_err *err);
/* Open a directory below <root> or <store>, made if it is not there. */
int pf_dirs_open(const char *base, const char *sub, struct pf_err *err);

/* Take the id's lock: whoever creates, destroys, snapshots or collects it holds it meanwhile. Blocks while
 * another does if wait, else PF_ERR_STATE. Closing the fd releases it. */
int pf_dirs_lock(const struct pf_dirs *d, const char *id, bool wait, struct pf_err *err);
/* Remove the lock's file too, by its holder, when the id is free again. */
void pf_dirs_unlock_remove(const struct pf_dirs *d, const char *id, int *lock_fd);

/* Move <store>/sandboxes/ID into <store>/trash (O(1)); pf_dirs_empty_trash removes what lies there. */
int pf_dirs_trash(const struct pf_dirs *d, const char *id, struct pf_err *err);
int pf_dirs_empty_trash(const struct pf_dirs *d, struct pf_err *err);

#endif
