/* A sandbox's credentials: which secret, from where, for which hosts. */
#ifndef PF_SESSION_CREDENTIALS_H
#define PF_SESSION_CREDENTIALS_H

#include <cjson/cJSON.h>
#include <stddef.h>

#include "base/err.h"
#include "session/config.h"
#include "session/dirs.h"

struct pf_secret {
	char *name;
	int fd; /* a memfd with it; nobody here has read it */
};

struct pf_credentials {
	cJSON *list; /* what netpolicy/creds.h reads; NULL: none */
	struct pf_secret *secrets;
	size_t n_secrets;
	char **env;      /* "NAME=placeholder", NULL-terminated or NULL */
	char **warnings; /* for people; NULL-terminated or NULL */
};
void pf_credentials_done(struct pf_credentials *c);

/* Bring together what the sandbox file says of its credentials and what the machine's administrator does, in
 * bindings (a file; NULL: STORE/credentials.json, else /etc/pinfold/credentials.json, if there is one), and
 * fetch the secrets. One without a source is left out, with a warning. */
int pf_credentials_resolve(const struct pf_config *config, const char *store, const char *bindings,
	struct pf_credentials *out, struct pf_err *err);

/* Give a live sandbox a secret anew: from file ("-": standard input), else from where its first one came. */
int pf_session_rotate(const struct pf_dirs *d, const char *id, const char *name, const char *file,
	const char *bindings, struct pf_err *err);

#endif
