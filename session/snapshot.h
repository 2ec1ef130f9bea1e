/* Taking a checkpoint of a sandbox, with the helper program doing the packing. */
#ifndef PF_SESSION_SNAPSHOT_H
#define PF_SESSION_SNAPSHOT_H

#include <cjson/cJSON.h>

#include "base/err.h"
#include "session/state.h"

/* Make a checkpoint of sandbox id, running, paused or stopped. name (NULL: the store chooses) must not be
 * taken; labels is an object of strings or NULL. Returns {checkpoint, name, parent, frozen_ms, bytes_new, …}
 * for the caller, NULL on error. The sandbox is stopped only for what frozen_ms says, and always goes on,
 * whatever happens to the snapshot. */
cJSON *pf_session_snapshot(
	const struct pf_dirs *d, const char *id, const char *name, const cJSON *labels, struct pf_err *err);

/* The same for a reason of the sandbox file's ("exit", "every", …), which becomes its label
 * PF_CKPT_AUTO_LABEL; older ones than the newest `keep` of this sandbox are removed (-1: none). upper_fd >=
 * 0: the sandbox has ended, this is its upper directory, and who calls is its keeper's: no lock is taken.
 * Success and failure are written to the audit log. */
int pf_session_snapshot_auto(const struct pf_dirs *d, const char *id, const char *on, int64_t keep,
	int upper_fd, struct pf_err *err);

/* Before sandbox id is destroyed: make the checkpoint that its file asks for with "destroy", if it does. */
int pf_session_snapshot_on_destroy(const struct pf_dirs *d, const char *id, struct pf_err *err);

/* How what writes to a tree is stopped and let go on. */
struct pf_snapshot_freezer {
	int (*set)(void *arg, bool frozen, struct pf_err *err);
	/* Right before the freeze, -1: no snapshot; and after the thaw, if `before` was called and succeeded,
	 * whatever became of the rest. Both may be NULL. */
	int (*before)(void *arg, struct pf_err *err);
	void (*after)(void *arg);
	void *arg;
};
/* Have the helper make a checkpoint of an upper directory, as the request says (cmd/pinfold-store,
 * snapshot-write). f NULL: nothing writes to it. Returns the result, for how long all stood still in
 * *frozen_us; NULL on error. */
cJSON *pf_snapshot_pack(const struct pf_dirs *d, int upper_fd, const cJSON *request,
	const struct pf_snapshot_freezer *f, int64_t *frozen_us, struct pf_err *err);

/* What changed between two of: a checkpoint, a sandbox id (its live files), NULL (its image). options
 * begin the helper's command line: its global options, its verb, the verb's options. Replaces this process;
 * returns only on failure. */
int pf_session_diff(
	const struct pf_dirs *d, const char *a, const char *b, char *const *options, struct pf_err *err);

#endif
