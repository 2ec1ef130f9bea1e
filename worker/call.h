/* One call over the pipes of the tools' helper: request out, answer in, without blocking. */
#ifndef PF_WORKER_CALL_H
#define PF_WORKER_CALL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "worker/box.h"
#include "worker/http.h"
#include "worker/ledger.h"

/* The longest that any call may take; the helper's own limits are within it. */
#define PF_CALL_CEILING_MS 130000

struct pf_exchange {
	struct pf_buf request, answer;
	size_t sent;
};
#define PF_EXCHANGE_INIT ((struct pf_exchange){0})

enum pf_exchange_state { PF_EXCHANGE_WRITING, PF_EXCHANGE_READING, PF_EXCHANGE_DONE, PF_EXCHANGE_BROKEN };

/* The request for a call: its input's members by the names that the helper knows. Members of another type
 * than the tool's are as if they were not there. */
void pf_exchange_begin(struct pf_exchange *x, const struct pf_call *c);
/* Go on as far as it goes. DONE fills *is_error and text. */
enum pf_exchange_state pf_exchange_step(
	struct pf_exchange *x, const struct pf_tool *t, bool *is_error, struct pf_buf *text);
void pf_exchange_end(struct pf_exchange *x);

/* Something that is no tool of the agent's: op on path, and rel and content (NULL: none), waited for, half a
 * minute at most, and no longer than until over says so, which is asked about every half second. -1 when the
 * helper did not do it, with its word for why; one that did not answer is ended. */
int pf_tool_ask(const struct pf_tool *t, const char *op, const char *path, const char *rel,
	const char *content, size_t len, struct pf_http_over over, struct pf_buf *answer, struct pf_err *err);

#endif
