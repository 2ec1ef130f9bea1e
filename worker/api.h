/* The control plane's routes, one function each. */
#ifndef PF_WORKER_API_H
#define PF_WORKER_API_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/http.h"
#include "worker/ledger.h"
#include "worker/work.h"

/* GET …/work/poll. body gets the answer: a work item, null, or nothing. */
int pf_api_poll(struct pf_http *h, const char *env, const char *key, const char *worker_id, int64_t block_ms,
	int64_t reclaim_ms, struct pf_http_resp *resp, struct pf_err *err);
int pf_api_ack(struct pf_http *h, const char *env, const char *key, const char *work_id, struct pf_err *err);

/* {"force":true}; 409 is fine: it has stopped. */
int pf_api_stop(
	struct pf_http *h, const char *env, const char *bearer, const char *work_id, struct pf_err *err);

enum pf_beat { PF_BEAT_OK, PF_BEAT_STOPPING, PF_BEAT_LOST };
/* One heartbeat. last is the previous answer's last_heartbeat, or NULL at first; it is replaced. *ttl_ms is
 * set when the answer says it. -1: no answer that counts. */
int pf_api_heartbeat(struct pf_http *h, const char *env, const char *bearer, const char *work_id, char **last,
	int64_t timeout_ms, int64_t *ttl_ms, enum pf_beat *beat, struct pf_err *err);

/* GET /v1/sessions/ID. The document, to be deleted; NULL on failure, with *status what it was answered (0:
 * nothing). */
cJSON *pf_api_session(
	struct pf_http *h, const char *bearer, const char *session_id, long *status, struct pf_err *err);
/* The whole list of events into the ledger. */
int pf_api_history(struct pf_http *h, const char *bearer, const char *session_id, struct pf_ledger *l,
	int64_t now_us, struct pf_err *err);
/* One try to post. *again: whether another makes sense. */
int pf_api_post(struct pf_http *h, const char *bearer, const char *session_id, const char *body, bool *again,
	struct pf_err *err);

/* An id as it may stand in a URL's path or query; malloc'ed. */
char *pf_url_word(const char *s);

#endif
