/* What a sandbox wants to post into its session's events: results of tools, and nothing else. */
#ifndef PF_WORKER_RESULTS_H
#define PF_WORKER_RESULTS_H

#include <stddef.h>

#include "base/err.h"

/* Whether text is {"events":[…]} with at least one event and every one of them a user.tool_result or a
 * user.custom_tool_result, so written that no reader can see anything else in it. -1: not, with the reason
 * for whoever posted it. */
int pf_results_check(const char *text, size_t len, struct pf_err *err);

#endif
