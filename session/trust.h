/* The certificates that programs in a sandbox trust: the image's, and the sandbox's own authority. */
#ifndef PF_SESSION_TRUST_H
#define PF_SESSION_TRUST_H

#include "base/err.h"

/* Where all programs find the bundle (no checkpoint holds what is in /run); the environment variables of
 * pf_trust_env name it. */
#define PF_TRUST_PATH "/run/pinfold/ca-certificates.crt"
/* The file's name among those of the sandbox that are bound into its /etc. */
#define PF_TRUST_FILE "ca-certificates.crt"

/* The bundles that this image has, and PF_TRUST_PATH: what the merged one is to be bound over. lowers: layer
 * directories, topmost first. malloc'ed, NULL-terminated. */
char **pf_trust_targets(char *const *lowers);
/* Write the merged bundle into dirfd: the image's own (without one, the host's), then ca (PEM). */
int pf_trust_write(int dirfd, char *const *lowers, const char *ca, struct pf_err *err);
/* "NAME=PF_TRUST_PATH" for the programs that look nowhere else; NULL-terminated, static. */
const char *const *pf_trust_env(void);

#endif
