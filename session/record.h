/* What the store remembers of a sandbox, beside its workspace: sandbox.json, written when it is made, and
 * policy.json, the policy that was set while it lived. */
#ifndef PF_SESSION_RECORD_H
#define PF_SESSION_RECORD_H

#include <cjson/cJSON.h>
#include <stdint.h>

#include "base/err.h"
#include "session/dirs.h"

/* sandbox.json of sandbox_dirfd. NULL with PF_ERR_NOT_FOUND when there is none. */
cJSON *pf_session_record_load(int sandbox_dirfd, struct pf_err *err);

/* Durably remember the networking that is in force and its revision. */
#define PF_SESSION_POLICY_FILE "policy.json"
int pf_session_policy_save(int sandbox_dirfd, const cJSON *networking, uint64_t revision, struct pf_err *err);
/* Put what was remembered into record's config.networking; *revision is its, or 0 when none was ever set. */
int pf_session_live_policy(int sandbox_dirfd, cJSON *record, uint64_t *revision, struct pf_err *err);

#endif
