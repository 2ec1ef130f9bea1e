/* The keeper of an OCI container's network: one small process that holds the gate. */
#ifndef PF_SESSION_PODKEEPER_H
#define PF_SESSION_PODKEEPER_H

#include <sys/types.h>

#include "base/err.h"
#include "netpolicy/policy.h"
#include "session/dirs.h"

struct pf_podkeeper {
	const struct pf_dirs *dirs;
	const char *id;
	int dir;   /* the container's state directory */
	int netns; /* -1: make one */
	const struct pf_policy *policy;
	const char *hostname, *resolver; /* or NULL */
};

/* Fork it; on return the rules are in force in the namespace. *sock is the caller's end of the line to it,
 * and *netns, when it was -1, the namespace that was made; both are the caller's to close. Closing *sock
 * before pf_podkeeper_go takes everything back. */
int pf_podkeeper_start(const struct pf_podkeeper *k, pid_t *pid, int *sock, int *netns, struct pf_err *err);

/* Let it stay until the process behind pidfd ends. */
int pf_podkeeper_go(int sock, int pidfd, struct pf_err *err);

#endif
