/* Theory of operation: the routes. Each call is the path, the body and what its answer means; how often a
 * request is tried again, and how long apart, is the HTTP client's business, except where the contract says
 * otherwise: a heartbeat is tried once, because the next is due anyway, and a result by a loop of its own. */

#include "worker/api.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS 60000
#define POLL_TIMEOUT_MS 30000
#define POST_TIMEOUT_MS 60000

static const char *member(const cJSON *j, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
}

char *pf_url_word(const char *s)
{
	struct pf_buf b = {0};

	pf_buf_str(&b, "");
	for (; *s; s++)
		if (isalnum((unsigned char)*s) || strchr("-_.~", *s))
			pf_buf_add(&b, s, 1);
		else
			pf_buf_printf(&b, "%%%02X", (unsigned char)*s);
	return b.data;
}

static bool good(const struct pf_http_resp *r)
{
	return r->status >= 200 && r->status < 300;
}

int pf_api_poll(struct pf_http *h, const char *env, const char *key, const char *worker_id, int64_t block_ms,
	int64_t reclaim_ms, struct pf_http_resp *resp, struct pf_err *err)
{
	PF_FREE char *block =
		block_ms > 0 ? pf_asprintf("&block_ms=%lld", (long long)block_ms) : pf_strdup("");
	PF_FREE char *path = pf_asprintf("/v1/environments/%s/work/poll?reclaim_older_than_ms=%lld%s", env,
		(long long)reclaim_ms, block);
	PF_FREE char *who = pf_asprintf("Anthropic-Worker-ID: %s", worker_id);
	const char *extra[] = {who, NULL};
	struct pf_http_req req = {
		.method = "GET", .path = path, .bearer = key, .extra = extra, .timeout_ms = POLL_TIMEOUT_MS};

	if (pf_http_once(h, &req, resp, err) < 0)
		return -1;
	return good(resp) ? 0 : pf_http_fail(resp, "poll", err);
}

int pf_api_ack(struct pf_http *h, const char *env, const char *key, const char *work_id, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("/v1/environments/%s/work/%s/ack", env, work_id);
	struct pf_http_req req = {
		.method = "POST", .path = path, .bearer = key, .timeout_ms = POLL_TIMEOUT_MS};
	struct pf_http_resp resp;
	int r = pf_http_retry(h, &req, &resp, err);

	if (r == 0 && !good(&resp))
		r = pf_http_fail(&resp, "ack", err);
	pf_http_resp_done(&resp);
	return r;
}

int pf_api_stop(
	struct pf_http *h, const char *env, const char *bearer, const char *work_id, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("/v1/environments/%s/work/%s/stop", env, work_id);
	struct pf_http_req req = {.method = "POST",
		.path = path,
		.bearer = bearer,
		.body = "{\"force\":true}",
		.timeout_ms = 30000};
	struct pf_http_resp resp;
	int r;

	for (unsigned n = 0;; n++) {
		r = pf_http_once(h, &req, &resp, err);
		/* 409 says that it has stopped: to ask again is of no use here. */
		if (r == 0 && (good(&resp) || resp.status == 409)) {
			pf_http_resp_done(&resp);
			return 0;
		}
		if (n == 4 || (r == 0 && !pf_http_transient(&resp)))
			break;
		pf_http_resp_done(&resp);
		if (!pf_http_sleep(h, pf_backoff_ms(n, 500, 8000)))
			return pf_fail(err, 0, "stop: cancelled");
	}
	if (r == 0)
		r = pf_http_fail(&resp, "stop", err);
	pf_http_resp_done(&resp);
	return r;
}

int pf_api_heartbeat(struct pf_http *h, const char *env, const char *bearer, const char *work_id, char **last,
	int64_t timeout_ms, int64_t *ttl_ms, enum pf_beat *beat, struct pf_err *err)
{
	PF_FREE char *expected = pf_url_word(*last ? *last : "NO_HEARTBEAT");
	PF_FREE char *path = pf_asprintf(
		"/v1/environments/%s/work/%s/heartbeat?expected_last_heartbeat=%s", env, work_id, expected);
	struct pf_http_req req = {.method = "POST", .path = path, .bearer = bearer, .timeout_ms = timeout_ms};
	struct pf_http_resp resp;
	int r = -1;

	if (pf_http_once(h, &req, &resp, err) < 0) {
		pf_http_resp_done(&resp);
		return -1;
	}
	cJSON *j = good(&resp) ? cJSON_ParseWithLength(resp.body.data, resp.body.len) : NULL;
	const char *stamp = member(j, "last_heartbeat"), *state = member(j, "state");
	if (resp.status == 412) {
		*beat = PF_BEAT_LOST;
		r = 0;
	} else if (!good(&resp)) {
		/* Another refusal that no repetition mends: somebody took the item, or the credential, away.
		 */
		*beat = PF_BEAT_LOST;
		r = pf_http_fatal(&resp) ? 0 : pf_http_fail(&resp, "heartbeat", err);
	} else if (!cJSON_IsObject(j)) {
		pf_fail_kind(err, PF_ERR_CORRUPT, 0, "heartbeat: the answer is no JSON object");
	} else {
		const cJSON *ttl = cJSON_GetObjectItemCaseSensitive(j, "ttl_seconds");
		if (stamp) {
			free(*last);
			*last = pf_strdup(stamp);
		}
		if (cJSON_IsNumber(ttl) && ttl->valuedouble > 0 && ttl->valuedouble < 86400)
			*ttl_ms = (int64_t)(ttl->valuedouble * 1000);
		*beat = PF_BEAT_OK;
		if ((state && (strcmp(state, "stopping") == 0 || strcmp(state, "stopped") == 0)) ||
			cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(j, "lease_extended")))
			*beat = PF_BEAT_STOPPING;
		r = 0;
	}
	cJSON_Delete(j);
	pf_http_resp_done(&resp);
	return r;
}

cJSON *pf_api_session(
	struct pf_http *h, const char *bearer, const char *session_id, long *status, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("/v1/sessions/%s", session_id);
	struct pf_http_req req = {.method = "GET", .path = path, .bearer = bearer, .timeout_ms = TIMEOUT_MS};
	struct pf_http_resp resp;
	cJSON *j = NULL;

	if (pf_http_retry(h, &req, &resp, err) == 0) {
		if (!good(&resp))
			pf_http_fail(&resp, "session", err);
		else if (!(j = cJSON_ParseWithLength(resp.body.data, resp.body.len)))
			pf_fail_kind(err, PF_ERR_CORRUPT, 0, "session: the answer is no JSON");
	}
	*status = resp.status;
	pf_http_resp_done(&resp);
	return j;
}

int pf_api_history(struct pf_http *h, const char *bearer, const char *session_id, struct pf_ledger *l,
	int64_t now_us, struct pf_err *err)
{
	PF_FREE char *page = pf_strdup("");

	for (int pages = 0; pages < 10000; pages++) {
		PF_FREE char *path = pf_asprintf(
			"/v1/sessions/%s/events?limit=1000%s%s", session_id, *page ? "&page=" : "", page);
		struct pf_http_req req = {
			.method = "GET", .path = path, .bearer = bearer, .timeout_ms = TIMEOUT_MS};
		struct pf_http_resp resp;
		if (pf_http_retry(h, &req, &resp, err) < 0 || !good(&resp)) {
			int r = resp.status ? pf_http_fail(&resp, "events", err) : -1;
			pf_http_resp_done(&resp);
			return r;
		}
		cJSON *j = pf_json_lenient(resp.body.data, resp.body.len);
		const cJSON *data = cJSON_GetObjectItemCaseSensitive(j, "data"), *ev;
		pf_http_resp_done(&resp);
		if (!cJSON_IsArray(data)) {
			cJSON_Delete(j);
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "events: the answer is no list");
		}
		cJSON_ArrayForEach(ev, data)
		{
			(void)pf_ledger_event_json(l, ev, now_us);
		}
		const char *next = member(j, "next_page");
		free(page);
		page = pf_url_word(next ? next : "");
		cJSON_Delete(j);
		if (!*page)
			return 0;
	}
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "events: the list has no end");
}

int pf_api_post(struct pf_http *h, const char *bearer, const char *session_id, const char *body, bool *again,
	struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("/v1/sessions/%s/events", session_id);
	struct pf_http_req req = {.method = "POST",
		.path = path,
		.bearer = bearer,
		.body = body,
		.once = true,
		.timeout_ms = POST_TIMEOUT_MS};
	struct pf_http_resp resp;
	int r = pf_http_once(h, &req, &resp, err);

	*again = r < 0 || !pf_http_fatal(&resp);
	if (r == 0 && !good(&resp))
		r = pf_http_fail(&resp, "result", err);
	pf_http_resp_done(&resp);
	return r;
}
