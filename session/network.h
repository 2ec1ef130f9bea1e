/* From what a sandbox file says of networking to what the policy compiler takes. */
#ifndef PF_SESSION_NETWORK_H
#define PF_SESSION_NETWORK_H

#include <cjson/cJSON.h>

#include "base/err.h"
#include "session/config.h"
#include "session/dirs.h"

/* config->networking with all that stands outside of it: the certificates that upstream_ca names, and for
 * allow_package_managers the hosts that the image (lowers: its layer directories, topmost first) and the
 * administrator's list (STORE/package-hosts or /etc/pinfold/package-hosts) name. The caller deletes it. */
cJSON *pf_session_networking(
	const struct pf_config *config, const char *store, char *const *lowers, struct pf_err *err);
/* The same for a sandbox that is there, whose image is on record. */
cJSON *pf_session_networking_of(
	const struct pf_dirs *d, const char *id, const struct pf_config *config, struct pf_err *err);

#endif
