/* Credentials: which hosts a secret is for, and for what of them. The keeper knows that much, to have the
 * connections to those hosts ended by pinfold-tls; only that program ever sees a secret. */
#ifndef PF_NETPOLICY_CREDS_H
#define PF_NETPOLICY_CREDS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "netpolicy/entry.h"
#include "netpolicy/policy.h"
#include "netpolicy/scope.h"

#define PF_PLACEHOLDER_PREFIX "pfcred_"
#define PF_PLACEHOLDER_LEN 47 /* the prefix and 40 hexadecimal digits */

struct pf_cred {
	char *name;
	char placeholder[PF_PLACEHOLDER_LEN + 1];
	struct pf_entry *hosts;
	size_t n_hosts;
	bool header, body; /* where the placeholder is replaced */
	char **headers;    /* in these only; NULL: in all */
	struct pf_scope scope;
	char *scope_text;      /* as the sandbox file has it; NULL: none */
	int64_t expires;       /* seconds since 1970; 0: never */
	struct pf_quota quota; /* of pinfold-tls */
	char *secret;          /* likewise: in locked memory, or NULL */
	size_t secret_len;
};

struct pf_creds {
	struct pf_cred *list;
	size_t n;
};

/* An array of {"name", "placeholder", "hosts": [entries], "header": bool, "headers": [names], "body": bool,
 * "methods", "paths", "max_requests_per_hour", "scope", "expires"}. NULL: none. On failure *out is empty. */
int pf_creds_read(const cJSON *list, struct pf_creds *out, struct pf_err *err);
void pf_creds_done(struct pf_creds *c);

/* Whether this one is for the host. name is normal. */
bool pf_cred_bound(const struct pf_cred *c, const char *name, uint16_t port);
/* Whether any is. */
bool pf_creds_bound(const struct pf_creds *c, const char *name, uint16_t port);

/* Every credential must be able to reach a host of its own under the policy, with TLS that may be ended. */
int pf_creds_check(const struct pf_creds *c, const struct pf_policy *p, struct pf_err *err);

#endif
