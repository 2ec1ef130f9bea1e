/* `policy ID suggest`. */
#ifndef PF_CMD_POLICY_SUGGEST_H
#define PF_CMD_POLICY_SUGGEST_H

#include "base/err.h"

/* Print the networking object that would have allowed what the sandbox's log says was refused. */
int pf_policy_suggest(const char *id, struct pf_err *err);

#endif
