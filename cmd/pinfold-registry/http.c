/* Theory of operation: one curl handle per run, so that connections are kept. A request is sent; if the
 * registry wants to know who asks (401), its WWW-Authenticate says whether with a password (Basic) or with a
 * token that another server gives for the password (Bearer), and the request is sent once more. What may be
 * repeated is repeated when the registry is busy or the connection breaks, with pauses that grow from half a
 * second and honour Retry-After.
 *
 * Redirects are followed for downloads, and curl takes the authorization off when they lead to another host.
 * The password goes nowhere but to the registry and to the token service that it names, and to neither
 * without TLS, unless plain HTTP was asked for and the host is this machine.
 *
 * Nobody keeps us for ever: documents have a time, blobs a least speed, answers that are no use a length. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/units.h"
#include "cmd/pinfold-registry/registry.h"

#define ATTEMPTS 6
#define MAX_PAUSE_MS 30000
/* Of what nobody asked for (the body of a redirect, an error's text), that much is waited for. */
#define MAX_WASTE ((curl_off_t)1 << 20)

/* What one attempt collects. */
struct exchange {
	struct reg *r;
	const struct reg_request *q;
	struct reg_reply *a;
	char *challenge;
	long retry_after_s;
	int64_t sent;
	bool stopped, too_long, wasted;
};

void reg_reply_done(struct reg_reply *a)
{
	free(a->text);
	free(a->location);
	free(a->range);
	free(a->digest);
	free(a->type);
	*a = (struct reg_reply){0};
}

static void keep(char **where, const char *value, size_t len)
{
	free(*where);
	while (len && strchr(" \t\r\n", value[len - 1]))
		len--;
	while (len && (*value == ' ' || *value == '\t')) {
		value++;
		len--;
	}
	*where = strndup(value, len);
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	size_t len = size * n;
	const struct {
		const char *name;
		char **where;
	} wanted[] = {{"location:", &x->a->location}, {"range:", &x->a->range},
		{"docker-content-digest:", &x->a->digest}, {"content-type:", &x->a->type},
		{"www-authenticate:", &x->challenge}};
	char *after = NULL;

	/* The headers of an answer that led elsewhere are not this one's. */
	if (len > 5 && strncmp(data, "HTTP/", 5) == 0)
		for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
			free(*wanted[i].where);
			*wanted[i].where = NULL;
		}
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		size_t k = strlen(wanted[i].name);
		if (len > k && strncasecmp(data, wanted[i].name, k) == 0)
			keep(wanted[i].where, data + k, len - k);
	}
	if (len > 12 && strncasecmp(data, "retry-after:", 12) == 0) {
		keep(&after, data + 12, len - 12);
		x->retry_after_s = strtol(after, NULL, 10);
		if (x->retry_after_s > MAX_PAUSE_MS / 1000)
			x->retry_after_s = MAX_PAUSE_MS / 1000;
		free(after);
	}
	return len;
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	size_t len = size * n;
	long status = 0;

	curl_easy_getinfo(x->r->curl, CURLINFO_RESPONSE_CODE, &status);
	if (x->q->sink && status >= 200 && status < 300) {
		x->stopped = !x->q->sink(x->q->arg, data, len);
		return x->stopped ? 0 : len;
	}
	/* An error's text is of use to people up to some length. */
	size_t max = x->q->sink || status >= 300 ? 4096 : x->q->max;
	if (x->a->len + len > max) {
		if (status >= 300)
			return len;
		x->too_long = true;
		return 0;
	}
	char *more = realloc(x->a->text, x->a->len + len + 1);
	if (!more)
		return 0;
	x->a->text = more;
	memcpy(more + x->a->len, data, len);
	x->a->len += len;
	more[x->a->len] = '\0';
	return len;
}

static int on_progress(void *arg, curl_off_t all, curl_off_t now, curl_off_t up_all, curl_off_t up_now)
{
	struct exchange *x = arg;
	long status = 0;

	(void)all, (void)up_all, (void)up_now;
	curl_easy_getinfo(x->r->curl, CURLINFO_RESPONSE_CODE, &status);
	x->wasted = now > MAX_WASTE && status >= 300;
	return x->wasted;
}

static size_t on_read(char *buf, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;
	size_t room = size * n;
	int64_t left = x->q->length - x->sent;
	ssize_t got;

	if (left <= 0)
		return 0;
	if ((int64_t)room > left)
		room = (size_t)left;
	got = pread(x->q->fd, buf, room, (off_t)(x->q->offset + x->sent));
	if (got <= 0)
		return CURL_READFUNC_ABORT;
	x->sent += got;
	reg_progress(x->r, got, false);
	return (size_t)got;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct exchange *x = arg;

	if (origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	/* curl by itself sends a request again when a kept connection ends without an answer. But it may have
	 * been done: what must not be done twice is for its owner to find out. */
	if (!x->q->retry && x->sent > 0)
		return CURL_SEEKFUNC_FAIL;
	reg_progress(x->r, offset - x->sent, false);
	x->sent = offset;
	return CURL_SEEKFUNC_OK;
}

static char *origin_of(const char *url)
{
	CURLU *u = curl_url();
	char *scheme = NULL, *host = NULL, *port = NULL, *origin = NULL;

	if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK)
		origin = pf_asprintf("%s://%s:%s", scheme, host, port);
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(u);
	return origin;
}

/* Whether url is on the host that the password is for; a Location may lead anywhere. */
static bool is_ours(const struct reg *r, const char *url)
{
	PF_FREE char *ours = origin_of(r->base), *theirs = origin_of(url);

	return ours && theirs && strcasecmp(ours, theirs) == 0;
}

/* Loopback by its name or number: what needs no TLS to be where it is. */
static bool on_this_machine(const char *url)
{
	CURLU *u = curl_url();
	char *host = NULL;
	bool here = false;

	if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK) {
		size_t n = strlen(host);
		struct in_addr v4;
		here = strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
		       (n > 10 && strcasecmp(host + n - 10, ".localhost") == 0) ||
		       (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
	}
	curl_free(host);
	curl_url_cleanup(u);
	return here;
}

static struct curl_slist *headers_of(const struct reg *r, const struct reg_request *q)
{
	/* No waiting for permission to send a body. */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");

	for (const char *const *h = q->headers; h && *h; h++)
		list = curl_slist_append(list, *h);
	if (r->token && is_ours(r, q->url)) {
		PF_FREE char *line = pf_asprintf("Authorization: Bearer %s", r->token);
		list = curl_slist_append(list, line);
	}
	return list;
}

/* More than this of an answer is not even looked at. */
static size_t most(const struct reg_request *q)
{
	return q->max > (size_t)MAX_WASTE ? q->max : (size_t)MAX_WASTE;
}

static void set_up(struct reg *r, struct exchange *x, struct curl_slist *headers)
{
	const struct reg_request *q = x->q;
	CURL *c = r->curl;

	curl_easy_reset(c);
	curl_easy_setopt(c, CURLOPT_URL, q->url);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, r->plain_http ? "http,https" : "https");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "pinfold/" PF_VERSION);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 20L);
	/* Not the whole, which may be large: a minute with next to nothing. */
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1024L);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 60L);
	if (!q->sink && q->fd < 0)
		curl_easy_setopt(c, CURLOPT_TIMEOUT, 120L);
	if (!q->sink && strcmp(q->method, "GET") == 0)
		curl_easy_setopt(c, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)most(q));
	curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(c, CURLOPT_XFERINFODATA, x);
	if (r->ca)
		curl_easy_setopt(c, CURLOPT_CAINFO, r->ca);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, x);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, x);
	if (r->auth.user && (r->asking || (r->basic && is_ours(r, q->url)))) {
		curl_easy_setopt(c, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
		curl_easy_setopt(c, CURLOPT_USERNAME, r->auth.user);
		curl_easy_setopt(c, CURLOPT_PASSWORD, r->auth.password);
	}
	if (strcmp(q->method, "GET") == 0 || strcmp(q->method, "HEAD") == 0) {
		curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
		curl_easy_setopt(c, CURLOPT_MAXREDIRS, 5L);
		curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, r->plain_http ? "http,https" : "https");
		curl_easy_setopt(c, q->method[0] == 'H' ? CURLOPT_NOBODY : CURLOPT_HTTPGET, 1L);
		return;
	}
	curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, q->method);
	if (q->body) {
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, q->body);
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(q->body));
	} else if (q->fd >= 0) {
		curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, q->method);
		curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)q->length);
		curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(c, CURLOPT_READDATA, x);
		curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(c, CURLOPT_SEEKDATA, x);
	} else {
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, "");
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0);
	}
}

/* ---- who asks ---- */

/* key="value" of a challenge; malloc'ed, NULL: not there. */
static char *parameter(const char *challenge, const char *key)
{
	size_t n = strlen(key);

	for (const char *p = challenge; (p = strcasestr(p, key)); p += n) {
		if (p[n] != '=' || p[n + 1] != '"' || (p != challenge && !strchr(" ,\t", p[-1])))
			continue;
		const char *end = strchr(p + n + 2, '"');
		return end ? strndup(p + n + 2, (size_t)(end - p - (long)n - 2)) : NULL;
	}
	return NULL;
}

static char *token_url(struct reg *r, const char *challenge, struct pf_err *err)
{
	PF_FREE char *realm = parameter(challenge, "realm"), *service = parameter(challenge, "service");
	PF_BUF struct pf_buf url = {0};

	if (!realm ||
		(strncasecmp(realm, "https://", 8) != 0 && !(r->plain_http && on_this_machine(realm)))) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s names no token service that can be asked over TLS",
			r->ref.host);
		return NULL;
	}
	/* Our own scope, whatever the challenge says: never more than is needed. */
	PF_FREE char *scope = pf_asprintf("repository:%s:%s", r->ref.repo, r->push ? "pull,push" : "pull");
	char *s = curl_easy_escape(r->curl, scope, 0);
	pf_buf_printf(&url, "%s%cscope=%s", realm, strchr(realm, '?') ? '&' : '?', s);
	curl_free(s);
	if (service) {
		s = curl_easy_escape(r->curl, service, 0);
		pf_buf_printf(&url, "&service=%s", s);
		curl_free(s);
	}
	if (r->mount_from && r->push) {
		PF_FREE char *from = pf_asprintf("repository:%s:pull", r->mount_from);
		s = curl_easy_escape(r->curl, from, 0);
		pf_buf_printf(&url, "&scope=%s", s);
		curl_free(s);
	}
	return pf_take(url.data);
}

static int get_token(struct reg *r, const char *challenge, struct pf_err *err)
{
	PF_FREE char *url = token_url(r, challenge, err);
	struct reg_reply a = {0};

	if (!url)
		return -1;
	free(r->token);
	r->token = NULL;
	r->asking = true; /* the token service takes the password */
	const struct reg_request q = {
		.method = "GET", .url = url, .fd = -1, .max = (size_t)1 << 20, .retry = true};
	int rc = reg_send(r, &q, &a, err);
	r->asking = false;
	if (rc == 0 && a.status == 200) {
		PF_JSON cJSON *j = cJSON_Parse(a.text ? a.text : "");
		const char *t = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "token"));
		if (!t)
			t = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "access_token"));
		r->token = t && !strpbrk(t, "\r\n") ? pf_strdup(t) : NULL;
		if (!r->token)
			rc = pf_fail_kind(
				err, PF_ERR_INVALID, 0, "%s: the token service gave no token", r->ref.host);
	} else if (rc == 0) {
		rc = pf_fail_kind(err, PF_ERR_INVALID, EACCES, "%s: the token service says %ld%s",
			r->ref.host, a.status,
			r->auth.user ? ""
				     : " (no user is known for it: podman login, or REGISTRY_AUTH_FILE)");
	}
	reg_reply_done(&a);
	return rc;
}

/* 1: ask again, 0: the answer stands. */
static int answer_challenge(struct reg *r, const char *challenge, struct pf_err *err)
{
	/* The token service itself is asked with the password at once, and not asked whom to ask. */
	if (!challenge || r->asking)
		return 0;
	/* Nor may somebody to whom a redirect led say where our password goes. */
	char *url = NULL;
	if (curl_easy_getinfo(r->curl, CURLINFO_EFFECTIVE_URL, &url) != CURLE_OK || !url || !is_ours(r, url))
		return 0;
	if (strncasecmp(challenge, "bearer", 6) == 0)
		return get_token(r, challenge, err) < 0 ? -1 : 1;
	if (strncasecmp(challenge, "basic", 5) == 0 && r->auth.user && !r->basic) {
		r->basic = true;
		return 1;
	}
	return 0;
}

/* ---- sending ---- */

static void pause_before(int attempt, long retry_after_s)
{
	unsigned random = 0;
	long ms = 500L << attempt;

	if (retry_after_s > 0)
		ms = retry_after_s * 1000;
	if (ms > MAX_PAUSE_MS)
		ms = MAX_PAUSE_MS;
	/* Many that were turned away together should not come back together. */
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) == (ssize_t)sizeof(random))
		ms += (long)(random % (unsigned)(ms / 4 + 1));
	const struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
	nanosleep(&t, NULL);
}

static bool transient(CURLcode c)
{
	return c == CURLE_COULDNT_CONNECT || c == CURLE_RECV_ERROR || c == CURLE_SEND_ERROR ||
	       c == CURLE_GOT_NOTHING || c == CURLE_OPERATION_TIMEDOUT || c == CURLE_PARTIAL_FILE ||
	       c == CURLE_HTTP2 || c == CURLE_HTTP2_STREAM || c == CURLE_SEND_FAIL_REWIND;
}

static CURLcode attempt(struct reg *r, const struct reg_request *q, struct reg_reply *a, struct exchange *x)
{
	struct curl_slist *headers = headers_of(r, q);

	reg_reply_done(a);
	*x = (struct exchange){.r = r, .q = q, .a = a};
	set_up(r, x, headers);
	CURLcode c = curl_easy_perform(r->curl);
	curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &a->status);
	curl_slist_free_all(headers);
	return c;
}

static int send_request(struct reg *r, const struct reg_request *q, struct reg_reply *a, struct pf_err *err)
{
	bool asked = false;

	for (int i = 0;; i++) {
		struct exchange x;
		CURLcode c = attempt(r, q, a, &x);
		PF_FREE char *challenge = x.challenge;
		/* An error is an error however long it talks. */
		if ((x.wasted || c == CURLE_FILESIZE_EXCEEDED) && a->status >= 400) {
			x.wasted = false;
			c = CURLE_OK;
		}
		int again =
			c == CURLE_OK && a->status == 401 && !asked ? answer_challenge(r, challenge, err) : 0;

		if (again < 0)
			return -1;
		if (x.sent && (again || c != CURLE_OK))
			reg_progress(r, -x.sent, false);
		if (again) {
			asked = true;
			i--;
			continue;
		}
		if (x.stopped)
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s", q->url);
		if (x.too_long || x.wasted || c == CURLE_FILESIZE_EXCEEDED)
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: the answer is longer than %zu bytes",
				q->url, x.too_long ? q->max : most(q));
		bool busy = c == CURLE_OK && (a->status == 408 || a->status == 429 || a->status >= 500);
		a->cut = transient(c) && a->status >= 200 && a->status < 300;
		/* A download that was cut is gone on with by its sink's owner. */
		if (a->cut && q->sink)
			return 0;
		if ((busy || transient(c)) && q->retry && i + 1 < ATTEMPTS) {
			pause_before(i, x.retry_after_s);
			continue;
		}
		return c == CURLE_OK ? 0
				     : pf_fail_kind(err, PF_ERR_SYSTEM, 0, "%s: %s", r->ref.host,
					       curl_easy_strerror(c));
	}
}

int reg_send(struct reg *r, const struct reg_request *q, struct reg_reply *a, struct pf_err *err)
{
	if (send_request(r, q, a, err) == 0)
		return 0;
	reg_reply_done(a);
	return -1;
}

int reg_refused(const struct reg *r, const struct reg_reply *a, const char *what, struct pf_err *err)
{
	PF_JSON cJSON *j = a->text ? cJSON_Parse(a->text) : NULL;
	const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(j, "errors"), 0);
	const char *message = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(first, "message"));
	const char *hint =
		a->status == 401 || a->status == 403
			? r->auth.user ? " (is the password right, and the user allowed?)"
				       : " (no user is known for it: podman login, or REGISTRY_AUTH_FILE)"
			: "";

	return pf_fail_kind(err, a->status == 404 ? PF_ERR_NOT_FOUND : PF_ERR_INVALID, 0,
		"%s: %s: status %ld%s%.200s%s", r->ref.host, what, a->status, message ? ", " : "",
		message ? message : "", hint);
}

/* ---- the handle ---- */

int reg_open(struct reg *r, const char *ref, struct pf_err *err)
{
	if (reg_ref_parse(ref, &r->ref, err) < 0 || reg_auth_find(&r->ref, &r->auth, err) < 0)
		return -1;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0 || !(r->curl = curl_easy_init()))
		return pf_fail(err, ENOMEM, "libcurl");
	PF_FREE char *root = pf_asprintf("%s://%s/", r->plain_http ? "http" : "https", r->ref.host);
	if (r->plain_http && !on_this_machine(root))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"--plain-http is for a registry on this machine (localhost, 127.0.0.1, [::1]), not "
			"for %s",
			r->ref.host);
	r->base = pf_asprintf("%s://%s/v2/%s", r->plain_http ? "http" : "https", r->ref.host, r->ref.repo);
	/* As curl(1) and OpenSSL's own programs take it. */
	if (!r->ca && getenv("SSL_CERT_FILE"))
		r->ca = getenv("SSL_CERT_FILE");
	r->begin_us = pf_now_us();
	return 0;
}

void reg_close(struct reg *r)
{
	if (r->curl)
		curl_easy_cleanup(r->curl);
	reg_ref_done(&r->ref);
	free(r->auth.user);
	free(r->auth.password);
	free(r->base);
	free(r->token);
}

void reg_progress(struct reg *r, int64_t more, bool last)
{
	char done[32], total[32];
	int64_t now = pf_now_us();

	r->done += more;
	if (!r->progress || (!last && now - r->shown_us < 100000))
		return;
	r->shown_us = now;
	double left = r->done > 0 ? (double)(now - r->begin_us) * (double)(r->total - r->done) /
					    (double)r->done / 1e6
				  : 0;
	fprintf(stderr, "\r\033[K%s of %s", pf_format_size(r->done, done, sizeof(done)),
		pf_format_size(r->total, total, sizeof(total)));
	if (!last && left > 0)
		fprintf(stderr, ", %.0f s left", left);
	if (last)
		fputc('\n', stderr);
}
