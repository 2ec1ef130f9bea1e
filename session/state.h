/* state.json: what is known of a sandbox while it lives and after it has died, in the OCI runtime's form
 * (state in runtime.md) with what sessions add. */
#ifndef PF_SESSION_STATE_H
#define PF_SESSION_STATE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "session/dirs.h"

enum pf_status { PF_STATUS_CREATING, PF_STATUS_RUNNING, PF_STATUS_PAUSED, PF_STATUS_STOPPED };

struct pf_state {
	char *id, *created; /* RFC 3339, UTC */
	enum pf_status status;
	pid_t pid; /* process 1, 0 when there is none */
	uint64_t pid_start;
	pid_t keeper;
	uint64_t keeper_start;
	char *cgroup;     /* path below the cgroup mounts */
	uint32_t id_base; /* first host id of its range, 0: none */
	char *image, *image_digest;
	char *checkpoint; /* digest that it started from or was last snapshotted to; NULL: none */
	char *bundle;
	char **env; /* what every command gets */
	char *cwd;
	char *user;              /* as written; NULL: root */
	int64_t exec_timeout_ms; /* -1: none */
	int exit_code;           /* of process 1; -1: not known */
	char *stop_reason;       /* "exit", "max_runtime", "killed", …; NULL while it runs */
	char **warnings;
};

/* Read it; PF_ERR_NOT_FOUND when there is no such sandbox. The status is checked against the processes: one
 * that is said to run and does not is PF_STATUS_STOPPED with stop_reason "lost". */
int pf_state_load(const struct pf_dirs *d, const char *id, struct pf_state *s, struct pf_err *err);
int pf_state_save(const struct pf_dirs *d, const struct pf_state *s, struct pf_err *err);
void pf_state_done(struct pf_state *s);

/* What may change while the keeper owns state.json. */
int pf_state_mark_paused(const struct pf_dirs *d, const char *id, bool paused, struct pf_err *err);
int pf_state_mark_checkpoint(const struct pf_dirs *d, const char *id, const char *digest, struct pf_err *err);

/* For people and programs: `pinfold state`, `create`. */
cJSON *pf_state_json(const struct pf_state *s);
const char *pf_status_name(enum pf_status status);

/* Ids that have a directory below root, sorted; NULL-terminated, malloc'ed. */
int pf_state_ids(const struct pf_dirs *d, char ***ids, struct pf_err *err);

/* Now, as RFC 3339 with milliseconds in UTC. buf has at least 32 bytes; returns buf. */
char *pf_time_now(char *buf);

#endif
