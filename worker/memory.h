/* A session's memory stores as directories of its sandbox, kept in step with the platform. */
#ifndef PF_WORKER_MEMORY_H
#define PF_WORKER_MEMORY_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "worker/box.h"
#include "worker/http.h"

struct pf_memory;

/* Whether a session has memory stores attached. */
bool pf_memory_wanted(const cJSON *session);

/* What a session has attached; token must be the item's (the environment key opens no memory store). When
 * ends says so, nothing more is asked, of the platform or of the helper, which is ended if it was at
 * something. NULL on error: no token, a mount path that is none. */
struct pf_memory *pf_memory_new(const char *base_url, const char *agent, const char *token,
	const cJSON *session, struct pf_http_over ends, struct pf_err *err);
void pf_memory_free(struct pf_memory *m);

/* Arguments for the tools' helper: where the stores are. NULL-terminated, of m. */
const char *const *pf_memory_roots(const struct pf_memory *m);

/* Make the directories and fill them, through the helper t. Any that cannot be is an error, as is one that is
 * there already: what an earlier run left would become part of the store. */
int pf_memory_download(struct pf_memory *m, const struct pf_tool *t, struct pf_err *err);

enum pf_memory_pass {
	PF_MEMORY_DUE,   /* both ways, if a quarter of a minute has gone by since the last */
	PF_MEMORY_LAST,  /* both ways; what is gone here is removed there without waiting to be sure */
	PF_MEMORY_FLUSH, /* what was written here goes there, nothing else */
};
/* Reconcile, for at most ms. What does not succeed is logged and left for the next. */
void pf_memory_sync(struct pf_memory *m, const struct pf_tool *t, enum pf_memory_pass pass, int64_t ms);

/* Remove the directories. */
void pf_memory_drop(struct pf_memory *m, const struct pf_tool *t);

#endif
