/* The keeper: one small process per sandbox, the parent of its process 1. It holds what must outlive any
 * command: the egress gate's sockets, the workspace's mount, the clock of max_runtime and idle, and it writes
 * the audit log. */
#ifndef PF_SESSION_KEEPER_H
#define PF_SESSION_KEEPER_H

#include "netpolicy/creds.h"
#include "netpolicy/policy.h"
#include "overlay/workspace.h"
#include "sandbox/spec.h"
#include "session/config.h"
#include "session/credentials.h"
#include "session/state.h"

struct pf_keeper_params {
	const struct pf_dirs *dirs;
	const struct pf_config *config;
	const struct pf_spec *spec;
	struct pf_policy *policy;
	struct pf_workspace *workspace;
	char *const *lowers;    /* directories below the workspace's upper, topmost first, NULL-terminated */
	struct pf_state *state; /* with everything that is known before the start */
	/* What the policy was compiled from, and what goes to pinfold-tls if it is needed (tls_helper: its
	 * path, else NULL). */
	const cJSON *networking;
	struct pf_credentials *credentials;
	const struct pf_creds *creds;
	const char *tls_helper;
	const char *hostname;
	int lock_fd; /* the caller's lock on the id; the keeper lets go of it when the sandbox is up */
};

/* Fork the keeper, have it build and start the box, and return when process 1 runs: state is then filled and
 * saved. The keeper stays behind as a process of its own session. The caller keeps its own copies of
 * everything. */
int pf_keeper_start(const struct pf_keeper_params *params, struct pf_err *err);

#endif
