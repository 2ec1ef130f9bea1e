/* Theory of operation: HTTP.
 *
 * Each handle is one easy handle in a multi handle of its own, which keeps the connection between requests
 * and can be woken from another thread: that is how a stream which says nothing for an hour ends at once when
 * its session does. Redirects are not followed, so a credential goes to no other host than the one it is for.
 */

#include "worker/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "base/json.h"
#include "base/proc.h"

#define BODY_MAX ((size_t)64 << 20)
#define CONNECT_MS 10000L
#define LOOK_MS 1000

struct pf_http {
	CURL *easy;
	CURLM *multi;
	char *base, *agent;
	atomic_bool cancelled;
	struct pf_http_over over;
};

/* One request in flight. */
struct flight {
	struct pf_http *h;
	const struct pf_http_req *req;
	struct pf_http_resp *resp;
	int64_t last_us; /* when something came */
	size_t sent;     /* of the body, when it is read piece by piece */
	bool opened, ended, too_long;
};

int pf_http_init(struct pf_err *err)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
		return pf_fail(err, 0, "libcurl cannot be set up");
	return 0;
}

struct pf_http *pf_http_new(const char *base_url, const char *user_agent, struct pf_err *err)
{
	struct pf_http *h = pf_calloc(1, sizeof(*h));
	size_t n = strlen(base_url);

	h->easy = curl_easy_init();
	h->multi = curl_multi_init();
	h->base = pf_strdup(base_url);
	while (n > 0 && h->base[n - 1] == '/')
		h->base[--n] = '\0';
	h->agent = pf_strdup(user_agent);
	if (h->easy && h->multi)
		return h;
	pf_http_free(h);
	pf_fail(err, ENOMEM, "libcurl");
	return NULL;
}

void pf_http_free(struct pf_http *h)
{
	if (!h)
		return;
	curl_easy_cleanup(h->easy);
	curl_multi_cleanup(h->multi);
	free(h->base);
	free(h->agent);
	free(h);
}

void pf_http_cancel(struct pf_http *h)
{
	atomic_store(&h->cancelled, true);
	curl_multi_wakeup(h->multi);
}

void pf_http_ends_with(struct pf_http *h, struct pf_http_over over)
{
	h->over = over;
}

static bool over(const struct pf_http *h)
{
	return atomic_load(&h->cancelled) || (h->over.is && h->over.is(h->over.arg));
}

void pf_http_resp_done(struct pf_http_resp *r)
{
	pf_buf_done(&r->body);
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct flight *f = arg;
	size_t len = size * n;
	char line[200];

	f->last_us = pf_now_us();
	if (len >= sizeof(line))
		return len;
	memcpy(line, data, len);
	line[len] = '\0';
	char *colon = strchr(line, ':');
	if (!colon) {
		if (len > 2 || !f->req->opened || f->opened)
			return len;
		long status = pf_http_status(f->h);
		f->opened = status >= 200 && status < 300;
		if (f->opened)
			f->req->opened(f->req->arg);
		return len;
	}
	*colon++ = '\0';
	colon += strspn(colon, " ");
	if (strcasecmp(line, "retry-after-ms") == 0)
		f->resp->retry_after_ms = strtoll(colon, NULL, 10);
	else if (strcasecmp(line, "retry-after") == 0 && f->resp->retry_after_ms < 0)
		f->resp->retry_after_ms = (int64_t)(strtod(colon, NULL) * 1000);
	else if (strcasecmp(line, "x-should-retry") == 0)
		f->resp->should_retry = strncasecmp(colon, "true", 4) == 0;
	colon[strcspn(colon, "\r\n")] = '\0';
	if (f->req->header)
		f->req->header(f->req->arg, line, colon);
	return len;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct flight *f = arg;
	size_t len = size * n;
	long status = pf_http_status(f->h);

	f->last_us = pf_now_us();
	if (f->req->sink && (f->req->sink_all || (status >= 200 && status < 300))) {
		f->ended = !f->req->sink(f->req->arg, data, len);
		return f->ended ? 0 : len;
	}
	if (f->resp->body.len + len > BODY_MAX) {
		f->too_long = true;
		return 0;
	}
	pf_buf_add(&f->resp->body, data, len);
	return len;
}

static size_t give_body(char *to, size_t size, size_t n, void *arg)
{
	struct flight *f = arg;
	size_t left = strlen(f->req->body) - f->sent, len = size * n < left ? size * n : left;

	memcpy(to, f->req->body + f->sent, len);
	f->sent += len;
	return len;
}

static struct curl_slist *make_headers(const struct pf_http_req *req)
{
	PF_FREE char *auth = pf_asprintf("Authorization: Bearer %s", req->bearer);
	struct curl_slist *l = NULL;

	l = curl_slist_append(l, auth);
	l = curl_slist_append(l, "Expect:");
	if (req->bare) {
		/* Those that libcurl would add by itself; one of extra comes after and counts. */
		l = curl_slist_append(l, "Accept:");
		l = curl_slist_append(l, "Content-Type:");
	} else {
		l = curl_slist_append(l, "Accept: application/json");
		l = curl_slist_append(l, "anthropic-version: 2023-06-01");
		l = curl_slist_append(l, "anthropic-beta: managed-agents-2026-04-01");
		if (req->body)
			l = curl_slist_append(l, "Content-Type: application/json");
	}
	for (const char *const *e = req->extra; e && *e; e++)
		l = curl_slist_append(l, *e);
	return l;
}

/* Something to read here is the end: nobody sends a second request before the answer to the first. */
static bool peer_left(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};

	return fd > 0 && poll(&p, 1, 0) > 0;
}

/* Until it is done, cancelled or silent for too long. */
static int transfer(struct flight *f, CURLcode *code, struct pf_err *err)
{
	int running = 1;

	while (running) {
		if (over(f->h))
			return pf_fail(err, ECANCELED, "%s", f->req->method);
		if (f->req->silence_ms && pf_now_us() - f->last_us > f->req->silence_ms * 1000)
			return pf_fail(err, ETIMEDOUT, "nothing came for %lld s",
				(long long)f->req->silence_ms / 1000);
		struct curl_waitfd peer = {.fd = f->req->peer, .events = CURL_WAIT_POLLIN};
		CURLMcode m = curl_multi_perform(f->h->multi, &running);
		if (m == CURLM_OK && running)
			m = curl_multi_poll(f->h->multi, &peer, f->req->peer > 0, LOOK_MS, NULL);
		if (running && peer_left(f->req->peer))
			return pf_fail(err, ECONNRESET, "%s: whoever asked is gone", f->req->method);
		if (m != CURLM_OK)
			return pf_fail(err, 0, "%s", curl_multi_strerror(m));
	}
	int left;
	CURLMsg *msg = curl_multi_info_read(f->h->multi, &left);
	*code = msg ? msg->data.result : CURLE_FAILED_INIT;
	return 0;
}

int pf_http_once(
	struct pf_http *h, const struct pf_http_req *req, struct pf_http_resp *resp, struct pf_err *err)
{
	struct flight f = {.h = h, .req = req, .resp = resp, .last_us = pf_now_us()};
	struct curl_slist *headers = make_headers(req);
	PF_FREE char *url = pf_asprintf("%s%s", h->base, req->path);
	char why[CURL_ERROR_SIZE] = "";
	CURLcode code = CURLE_OK;

	*resp = (struct pf_http_resp){.retry_after_ms = -1, .should_retry = -1};
	curl_easy_reset(h->easy);
	curl_easy_setopt(h->easy, CURLOPT_URL, url);
	curl_easy_setopt(h->easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(h->easy, CURLOPT_USERAGENT, h->agent);
	curl_easy_setopt(h->easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(h->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h->easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(h->easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	curl_easy_setopt(h->easy, CURLOPT_TIMEOUT_MS, (long)req->timeout_ms);
	curl_easy_setopt(h->easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(h->easy, CURLOPT_HEADERDATA, &f);
	curl_easy_setopt(h->easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(h->easy, CURLOPT_WRITEDATA, &f);
	curl_easy_setopt(h->easy, CURLOPT_ERRORBUFFER, why);
	if (strcmp(req->method, "DELETE") == 0)
		curl_easy_setopt(h->easy, CURLOPT_CUSTOMREQUEST, "DELETE");
	if (strcmp(req->method, "POST") == 0) {
		curl_easy_setopt(h->easy, CURLOPT_POST, 1L);
		curl_easy_setopt(h->easy, CURLOPT_POSTFIELDSIZE_LARGE,
			(curl_off_t)(req->body ? strlen(req->body) : 0));
		/* On a connection that was used before and closes without an answer, libcurl would send the
		 * request again by itself: but not a body that it cannot rewind. */
		if (req->once && req->body) {
			curl_easy_setopt(h->easy, CURLOPT_READFUNCTION, give_body);
			curl_easy_setopt(h->easy, CURLOPT_READDATA, &f);
		} else {
			curl_easy_setopt(h->easy, CURLOPT_POSTFIELDS, req->body ? req->body : "");
		}
	}
	curl_multi_add_handle(h->multi, h->easy);
	int r = transfer(&f, &code, err);
	if (r == 0)
		curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &resp->status);
	curl_multi_remove_handle(h->multi, h->easy);
	curl_easy_setopt(h->easy, CURLOPT_ERRORBUFFER, NULL);
	curl_slist_free_all(headers);
	if (r < 0)
		return -1;
	if (f.too_long)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the answer is longer than 64 MiB");
	if (code != CURLE_OK && !f.ended)
		return pf_fail(err, 0, "%s", *why ? why : curl_easy_strerror(code));
	return 0;
}

long pf_http_status(struct pf_http *h)
{
	long status = 0;

	curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

bool pf_http_fatal(const struct pf_http_resp *resp)
{
	return resp->status >= 400 && resp->status < 500 && !pf_http_transient(resp);
}

bool pf_http_transient(const struct pf_http_resp *resp)
{
	if (resp->should_retry >= 0)
		return resp->status >= 400 && resp->should_retry;
	return resp->status == 408 || resp->status == 409 || resp->status == 429 || resp->status >= 500;
}

int64_t pf_backoff_ms(unsigned n, int64_t base_ms, int64_t cap_ms)
{
	int64_t ms = n > 30 ? cap_ms : base_ms << n;
	uint32_t chance = 0;

	if (ms > cap_ms || ms <= 0)
		ms = cap_ms;
	(void)!getrandom(&chance, sizeof(chance), 0);
	return ms - (int64_t)((double)ms * 0.25 * ((double)chance / 4294967296.0));
}

bool pf_http_sleep(struct pf_http *h, int64_t ms)
{
	int64_t end = pf_now_us() + ms * 1000;

	for (;;) {
		int64_t left = (end - pf_now_us()) / 1000;
		if (over(h))
			return false;
		if (left <= 0)
			return true;
		int64_t most = h->over.is ? LOOK_MS : 3600000;
		curl_multi_poll(h->multi, NULL, 0, (int)(left > most ? most : left), NULL);
	}
}

int pf_http_retry(
	struct pf_http *h, const struct pf_http_req *req, struct pf_http_resp *resp, struct pf_err *err)
{
	for (unsigned n = 0;; n++) {
		int r = pf_http_once(h, req, resp, err);
		if (n == 2 || (r == 0 && !pf_http_transient(resp)) || (r < 0 && err->errnum == ECANCELED))
			return r;
		int64_t ms = resp->retry_after_ms >= 0 && resp->retry_after_ms <= 60000
				     ? resp->retry_after_ms
				     : pf_backoff_ms(n, 500, 8000);
		pf_http_resp_done(resp);
		if (!pf_http_sleep(h, ms))
			return pf_fail(err, ECANCELED, "%s", req->method);
	}
}

int pf_http_fail(const struct pf_http_resp *resp, const char *what, struct pf_err *err)
{
	cJSON *j = resp->body.data ? cJSON_ParseWithLength(resp->body.data, resp->body.len) : NULL;
	const cJSON *e = cJSON_GetObjectItemCaseSensitive(j, "error");
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "type"));
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "message"));

	pf_fail(err, 0, "%s: HTTP %ld%s%.64s%s%.300s", what, resp->status, type ? " " : "", type ? type : "",
		text ? ": " : "", text ? text : "");
	cJSON_Delete(j);
	return -1;
}
