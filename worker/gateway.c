/* Theory of operation: the gateway.
 *
 * A worker that was made for the platform runs in the sandbox and takes us for the platform. What it says
 * here it may say with a placeholder; the credential is ours and stays outside. Nothing that comes from
 * inside is passed on as it is: the route must be one of a short list, with exactly this session's and this
 * item's ids in it, and is written anew; of the headers those go along that say how an answer is wanted; the
 * only thing that can be written into the session is the result of a tool (results.c).
 *
 * The lease is not the sandbox's. It is kept from outside (lease.c) from before the sandbox is made until
 * after its checkpoint is written; heartbeats from inside are answered here, from what is known of it, in a
 * chain of their own, and the item's stop is only noted. So no process inside can lose the session, keep it
 * beyond its time, or have it handed to another worker before its files are safe.
 *
 * The socket listens in the sandbox's own network namespace, on its loopback, where the rules of the egress
 * gate have no say and nobody else can be. One thread takes connections; each connection has one, which does
 * its requests one by one and hands answers through piece by piece, so that an event is inside as soon as it
 * is here. */

#include "worker/gateway.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/str.h"
#include "worker/http.h"
#include "worker/httpd.h"
#include "worker/log.h"
#include "worker/results.h"
#include "worker/work.h"

#define CONNECTIONS_MAX 64
#define STACK_BYTES ((size_t)512 << 10)
#define SEGMENTS_MAX 8
#define WORD_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:"
#define ANSWER_MS 600000
#define SILENCE_MS 180000
#define TTL_UNTOLD_S 30
#define LOGGED_MAX 50
#define LINGER_MS 500
#define LINGER_BYTES ((size_t)1 << 20)

struct conn {
	struct pf_gateway *g;
	int fd;
	struct pf_http *http;
	struct conn *next;
};

struct pf_gateway {
	struct pf_gateway_opts o;
	int fd;
	pthread_t thread;
	bool threaded;
	pthread_mutex_t lock;
	pthread_cond_t less; /* a connection has ended */
	struct conn *conns;  /* under the lock, as all below */
	unsigned n_conns, logged;
	bool closing, done;
	int64_t beat_us;
	char last[48]; /* what the last heartbeat from inside was answered */
};

/* ---- the socket ---- */

struct listening {
	int pidfd, fd, error;
	uint16_t port;
};

/* In a thread of its own, which does not come back from where it goes. */
static void *listen_there(void *arg)
{
	struct listening *l = arg;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);

	PF_CLOSE int fd = -1;
	if (setns(l->pidfd, CLONE_NEWNET) < 0 || (fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0 ||
		bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0 ||
		getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
		l->error = errno;
		return NULL;
	}
	l->port = ntohs(a.sin_port);
	l->fd = pf_take_fd(&fd);
	return NULL;
}

int pf_gateway_listen(pid_t pid, uint64_t start, uint16_t *port, struct pf_err *err)
{
	PF_CLOSE int pidfd = pf_pidfd_open_checked(pid, start);
	struct listening l = {.pidfd = pidfd, .fd = -1};
	pthread_t t;

	if (pidfd < 0)
		return pf_fail(err, errno, "the sandbox's first process");
	int e = pthread_create(&t, NULL, listen_there, &l);
	if (e)
		return pf_fail(err, e, "start a thread");
	pthread_join(t, NULL);
	if (l.fd < 0)
		return pf_fail(err, l.error, "listen in the sandbox's network");
	*port = l.port;
	return l.fd;
}

/* ---- requests ---- */

/* A request's path in pieces. What has a piece that is no plain word, or too many, has none. */
struct route {
	char *path, *query; /* query: with its '?', or "" */
	char *seg[SEGMENTS_MAX];
	size_t n;
	char *again; /* the path as it is written to the control plane, with the query */
};

static void split(const char *target, struct route *r)
{
	const char *q = strchrnul(target, '?');

	*r = (struct route){.query = pf_strdup(q), .path = strndup(target, (size_t)(q - target))};
	if (!r->path)
		abort();
	struct pf_buf again = {0};
	char *save = NULL;
	for (char *s = strtok_r(r->path, "/", &save); s; s = strtok_r(NULL, "/", &save)) {
		if (r->n == SEGMENTS_MAX || s[0] == '.' || s[strspn(s, WORD_BYTES)]) {
			r->n = 0;
			break;
		}
		r->seg[r->n++] = s;
		pf_buf_printf(&again, "/%s", s);
	}
	pf_buf_str(&again, r->query);
	r->again = again.data;
}

static void route_done(struct route *r)
{
	free(r->path);
	free(r->query);
	free(r->again);
}

/* Whether the pieces are these words; "*" is any. */
static bool matches(const struct route *r, const char *const *words)
{
	size_t i = 0;

	for (; words[i]; i++)
		if (i >= r->n || (strcmp(words[i], "*") != 0 && strcmp(words[i], r->seg[i]) != 0))
			return false;
	return i == r->n;
}
#define IS(r, ...) matches(r, (const char *const[]){__VA_ARGS__, NULL})

static bool refuse(struct conn *c, const struct pf_httpd_req *q, long status, const char *why)
{
	PF_BUF struct pf_buf b = {0};
	PF_FREE char *text = pf_asprintf("the sandbox's gateway: %.300s", why);

	pthread_mutex_lock(&c->g->lock);
	bool say = c->g->logged++ < LOGGED_MAX;
	pthread_mutex_unlock(&c->g->lock);
	if (say)
		pf_wlog("warning", "refused from inside: %.10s %.200s: %s", q->method, q->target, why);
	pf_buf_printf(&b, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":",
		status == 403   ? "permission_error"
		: status == 401 ? "authentication_error"
				: "invalid_request_error");
	pf_json_quote(&b, text, strlen(text));
	pf_buf_str(&b, "}}");
	return pf_httpd_reply(c->fd, q->keep, status, b.data);
}

/* ---- passing on ---- */

struct passing {
	struct conn *c;
	const struct pf_httpd_req *q;
	struct pf_buf head;
	bool begun, chunked, gone;
};

static void pass_header(void *arg, const char *name, const char *value)
{
	static const char *const wanted[] = {"content-type", "content-disposition", "request-id",
		"retry-after", "retry-after-ms", "x-should-retry", "cache-control", NULL};
	struct passing *p = arg;

	for (size_t i = 0; wanted[i]; i++)
		if (strcasecmp(name, wanted[i]) == 0)
			pf_buf_printf(&p->head, "%s: %s\r\n", wanted[i], value);
}

static bool begin_answer(struct passing *p)
{
	PF_BUF struct pf_buf b = {0};
	long status = pf_http_status(p->c->http);
	bool bodiless = status == 204 || status == 304;

	if (p->begun)
		return !p->gone;
	p->begun = true;
	p->chunked = p->q->http11 && !bodiless;
	pf_buf_printf(&b, "HTTP/1.1 %ld %s\r\nconnection: %s\r\n%s", status, status < 300 ? "OK" : "Error",
		p->q->keep ? "keep-alive" : "close", p->chunked ? "transfer-encoding: chunked\r\n" : "");
	pf_buf_add(&b, p->head.data ? p->head.data : "", p->head.len);
	pf_buf_str(&b, "\r\n");
	p->gone = !pf_httpd_send(p->c->fd, b.data, b.len);
	return !p->gone;
}

static void pass_head(void *arg)
{
	(void)begin_answer(arg);
}

static bool pass_body(void *arg, const char *data, size_t len)
{
	struct passing *p = arg;
	PF_BUF struct pf_buf b = {0};

	if (!begin_answer(p))
		return false;
	if (p->chunked)
		pf_buf_printf(&b, "%zx\r\n", len);
	pf_buf_add(&b, data, len);
	if (p->chunked)
		pf_buf_str(&b, "\r\n");
	p->gone = len && !pf_httpd_send(p->c->fd, b.data, b.len);
	return !p->gone;
}

/* Headers of the request that say how it is to be answered, or by which program it was made. */
static char **pass_along(const struct pf_httpd_req *q)
{
	static const char *const wanted[] = {"accept", "content-type", "anthropic-version", "anthropic-beta",
		"last-event-id", "idempotency-key", NULL};
	char **v = pf_calloc(PF_HTTPD_HEADERS + 1, sizeof(*v));
	size_t n = 0;

	for (size_t i = 0; i < q->n_headers; i++) {
		const char *name = q->headers[i].name;
		bool take = strncasecmp(name, "x-stainless-", 12) == 0;
		for (size_t k = 0; wanted[k]; k++)
			take = take || strcasecmp(name, wanted[k]) == 0;
		if (take && *q->headers[i].value)
			v[n++] = pf_asprintf("%s: %s", name, q->headers[i].value);
	}
	return v;
}

/* Ask the control plane for path, with this credential, and hand its answer through. false: the connection
 * is of no more use. */
static bool pass(
	struct conn *c, const struct pf_httpd_req *q, const char *path, const char *bearer, bool stream)
{
	struct passing p = {.c = c, .q = q};
	char **headers = pass_along(q);
	struct pf_http_req req = {.method = q->method,
		.path = path,
		.bearer = bearer,
		.body = q->body.len ? q->body.data : NULL,
		.extra = (const char *const *)headers,
		.bare = true,
		.once = true,
		.timeout_ms = stream ? 0 : ANSWER_MS,
		.silence_ms = SILENCE_MS,
		.sink = pass_body,
		.sink_all = true,
		.header = pass_header,
		.opened = pass_head,
		.arg = &p,
		.peer = c->fd};
	struct pf_http_resp resp;
	struct pf_err err = PF_ERR_INIT;
	bool ok;

	int r = pf_http_once(c->http, &req, &resp, &err);
	pf_http_resp_done(&resp);
	for (char **h = headers; *h; h++)
		free(*h);
	free(headers);
	if (r < 0 && !p.begun && err.errnum != ECONNRESET && err.errnum != ECANCELED) {
		ok = pf_httpd_reply(c->fd, q->keep, 502,
			"{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"the control "
			"plane "
			"cannot be reached\"}}");
	} else if (r < 0) {
		/* An answer that breaks off must not look like one that has ended. */
		ok = false;
	} else {
		ok = begin_answer(&p) && (!p.chunked || pf_httpd_send(c->fd, "0\r\n\r\n", 5)) &&
		     (p.chunked || pf_http_status(c->http) == 204);
	}
	pf_buf_done(&p.head);
	return ok;
}

/* ---- routes ---- */

/* The value of a query's parameter, decoded; malloc'ed. NULL: not there. */
static char *parameter(const char *query, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = query; *p; p = strchrnul(p, '&')) {
		p++;
		if (strncmp(p, name, n) != 0 || p[n] != '=')
			continue;
		p += n + 1;
		char *out = pf_calloc(strlen(p) + 1, 1), *o = out;
		for (; *p && *p != '&'; p++) {
			unsigned v;
			if (*p == '%' && p[1] && p[2] && sscanf(p + 1, "%2x", &v) == 1) {
				*o++ = (char)(unsigned char)v;
				p += 2;
			} else {
				*o++ = *p == '+' ? ' ' : *p;
			}
		}
		return out;
	}
	return NULL;
}

static bool heartbeat(struct conn *c, const struct pf_httpd_req *q, const struct route *route)
{
	struct pf_gateway *g = c->g;
	PF_FREE char *expected = parameter(route->query, "expected_last_heartbeat");
	enum pf_lease_state state = (enum pf_lease_state)atomic_load(&g->o.lease->state);
	int64_t ms = atomic_load(&g->o.lease->ttl_ms), ttl = ms >= 1000 ? ms / 1000 : ms ? 1 : TTL_UNTOLD_S;
	uint64_t one = 1;
	char was[sizeof(g->last)];
	struct timespec ts;
	struct tm tm;

	pthread_mutex_lock(&g->lock);
	(void)snprintf(was, sizeof(was), "%s", g->last);
	bool wrong = state == PF_LEASE_LOST ||
		     (state == PF_LEASE_HELD &&
			     strcmp(expected ? expected : "", *was ? was : "NO_HEARTBEAT") != 0);
	if (!wrong) {
		char stamp[32];
		clock_gettime(CLOCK_REALTIME, &ts);
		gmtime_r(&ts.tv_sec, &tm);
		(void)strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
		(void)snprintf(g->last, sizeof(g->last), "%.24s.%09ldZ", stamp, ts.tv_nsec);
		(void)snprintf(was, sizeof(was), "%s", g->last);
		g->beat_us = pf_now_us();
	}
	pthread_mutex_unlock(&g->lock);
	if (!wrong)
		(void)!write(g->o.wake_fd, &one, sizeof(one));
	bool held = state == PF_LEASE_HELD;
	PF_FREE char *quoted = *was ? pf_asprintf("\"%s\"", was) : pf_strdup("null");
	PF_FREE char *text =
		wrong ? pf_asprintf(
				"{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\","
				"\"message\":"
				"\"the heartbeat before is another\",\"details\":{\"error_code\":"
				"\"heartbeat_precondition_failed\",\"current_state\":{\"last_heartbeat\":%s,"
				"\"lease_extended\":false,\"state\":\"active\",\"ttl_seconds\":%lld}}}}",
				quoted, (long long)ttl)
		      : pf_asprintf(
				"{\"type\":\"work_heartbeat\",\"last_heartbeat\":%s,\"lease_extended\":%s,"
				"\"state\":\"%s\",\"ttl_seconds\":%lld}",
				quoted, held ? "true" : "false", held ? "active" : "stopping",
				(long long)ttl);
	return pf_httpd_reply(c->fd, q->keep, wrong ? 412 : 200, text);
}

static bool note_stop(struct conn *c, const struct pf_httpd_req *q)
{
	uint64_t one = 1;

	pthread_mutex_lock(&c->g->lock);
	c->g->done = true;
	pthread_mutex_unlock(&c->g->lock);
	(void)!write(c->g->o.wake_fd, &one, sizeof(one));
	return pf_httpd_reply(c->fd, q->keep, 204, NULL);
}

static const char *member(const cJSON *j, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

	return s ? s : "";
}

/* Of the session's memory stores, the one with this id. */
static const cJSON *find_store(const struct pf_gateway *g, const char *id)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(g->o.session, "resources"))
	{
		if (strcmp(member(item, "type"), "memory_store") == 0 &&
			strcmp(member(item, "memory_store_id"), id) == 0)
			return item;
	}
	return NULL;
}

static bool has_skill(const struct pf_gateway *g, const char *id)
{
	const cJSON *agent = cJSON_GetObjectItemCaseSensitive(g->o.session, "agent"), *item;

	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(agent, "skills"))
	{
		if (strcmp(member(item, "skill_id"), id) == 0)
			return true;
	}
	return false;
}

static bool memory(struct conn *c, const struct pf_httpd_req *q, const struct route *r)
{
	const struct pf_gateway_opts *o = &c->g->o;
	const cJSON *store = find_store(c->g, r->seg[2]);
	bool get = strcmp(q->method, "GET") == 0, one = r->n == 5;

	if (!store)
		return refuse(c, q, 403, "this memory store is not attached to the session");
	if (!get && strcmp(q->method, "POST") != 0 && !(one && strcmp(q->method, "DELETE") == 0))
		return refuse(c, q, 403, "this method is of no use on memories");
	if (!get && strcmp(member(store, "access"), "read_only") == 0)
		return refuse(c, q, 403, "this memory store is attached for reading only");
	if (!o->token)
		return refuse(c, q, 403,
			"the work item has no token, without which memory stores cannot be reached");
	return pass(c, q, r->again, o->token, false);
}

static bool allowed_bearer(const struct pf_gateway *g, const struct pf_httpd_req *q)
{
	const char *a = pf_httpd_header(q, "authorization");

	return a && strncasecmp(a, "Bearer ", 7) == 0 && strcmp(a + 7, g->o.placeholder) == 0;
}

static bool handle(struct conn *c, const struct pf_httpd_req *q, const struct route *r)
{
	const struct pf_gateway_opts *o = &c->g->o;
	bool get = strcmp(q->method, "GET") == 0, post = strcmp(q->method, "POST") == 0;

	if (!allowed_bearer(c->g, q))
		return refuse(c, q, 401, "show the placeholder that stands in ANTHROPIC_WORK_SECRET");
	if (post && IS(r, "v1", "environments", o->env, "work", o->work_id, "heartbeat"))
		return heartbeat(c, q, r);
	if (post && IS(r, "v1", "environments", o->env, "work", o->work_id, "stop"))
		return note_stop(c, q);
	if (get && IS(r, "v1", "sessions", o->session_id))
		return pass(c, q, r->again, o->bearer, false);
	if (get && IS(r, "v1", "sessions", o->session_id, "events"))
		return pass(c, q, r->again, o->bearer, false);
	if (get && IS(r, "v1", "sessions", o->session_id, "events", "stream"))
		return pass(c, q, r->again, o->bearer, true);
	if (post && IS(r, "v1", "sessions", o->session_id, "events")) {
		struct pf_err err = PF_ERR_INIT;
		if (pf_results_check(q->body.data ? q->body.data : "", q->body.len, &err) < 0)
			return refuse(c, q, 403, err.msg);
		/* Whoever has lost the session has no more say in it. */
		if (atomic_load(&o->lease->state) == PF_LEASE_LOST)
			return refuse(c, q, 403, "the lease on the work item is lost");
		return pass(c, q, r->again, o->bearer, false);
	}
	if (get && (IS(r, "v1", "skills", "*", "versions", "*") ||
			   IS(r, "v1", "skills", "*", "versions", "*", "content"))) {
		if (!has_skill(c->g, r->seg[2]))
			return refuse(c, q, 403, "this is no skill of the session's agent");
		return pass(c, q, r->again, o->key ? o->key : o->bearer, false);
	}
	if (IS(r, "v1", "memory_stores", "*", "memories") ||
		IS(r, "v1", "memory_stores", "*", "memories", "*"))
		return memory(c, q, r);
	return refuse(c, q, 403,
		"only this session, its work item's heartbeat and stop, and its own skills and memory stores "
		"are "
		"within reach");
}

/* ---- connections ---- */

static void end_conn(struct conn *c)
{
	struct pf_gateway *g = c->g;

	pthread_mutex_lock(&g->lock);
	for (struct conn **p = &g->conns; *p; p = &(*p)->next)
		if (*p == c) {
			*p = c->next;
			break;
		}
	pthread_mutex_unlock(&g->lock);
	close(c->fd);
	pf_http_free(c->http);
	free(c);
	/* The last that is done with g. */
	pthread_mutex_lock(&g->lock);
	g->n_conns--;
	pthread_cond_broadcast(&g->less);
	pthread_mutex_unlock(&g->lock);
}

/* What a client that was refused still sends is read for a moment: closed over it, the connection would be
 * reset and take the answer along. */
static void linger(int fd)
{
	char buf[4096];
	size_t all = 0;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	(void)shutdown(fd, SHUT_WR);
	while (all < LINGER_BYTES && poll(&p, 1, LINGER_MS) > 0) {
		ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n <= 0)
			return;
		all += (size_t)n;
	}
}

static void *serve(void *arg)
{
	struct conn *c = arg;
	struct pf_httpd_req q;
	bool more = true;

	while (more && pf_httpd_read(c->fd, &q) == 0) {
		struct route r;
		split(q.target, &r);
		more = handle(c, &q, &r) && q.keep;
		route_done(&r);
		pf_httpd_done(&q);
	}
	linger(c->fd);
	end_conn(c);
	return NULL;
}

static void start_conn(struct pf_gateway *g, int fd)
{
	struct pf_err err = PF_ERR_INIT;
	struct conn *c = pf_calloc(1, sizeof(*c));
	pthread_attr_t attr;
	pthread_t t;
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*c = (struct conn){.g = g, .fd = fd, .http = pf_http_new(g->o.base_url, g->o.agent, &err)};
	if (!c->http) {
		close(fd);
		free(c);
		return;
	}
	pthread_mutex_lock(&g->lock);
	c->next = g->conns;
	g->conns = c;
	g->n_conns++;
	pthread_mutex_unlock(&g->lock);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&t, &attr, serve, c) != 0)
		end_conn(c);
	pthread_attr_destroy(&attr);
}

static void *take_connections(void *arg)
{
	struct pf_gateway *g = arg;

	for (;;) {
		int fd = accept4(g->fd, NULL, NULL, SOCK_CLOEXEC);
		int e = errno;
		pthread_mutex_lock(&g->lock);
		/* Whoever opens more than that waits in the socket's queue. */
		while (!g->closing && g->n_conns >= CONNECTIONS_MAX)
			pthread_cond_wait(&g->less, &g->lock);
		bool closing = g->closing;
		pthread_mutex_unlock(&g->lock);
		if (closing) {
			if (fd >= 0)
				close(fd);
			return NULL;
		}
		if (fd >= 0)
			start_conn(g, fd);
		else if (e == EMFILE || e == ENFILE || e == ENOBUFS || e == ENOMEM)
			(void)usleep(100000);
	}
}

struct pf_gateway *pf_gateway_start(const struct pf_gateway_opts *o, int fd, struct pf_err *err)
{
	struct pf_gateway *g = pf_calloc(1, sizeof(*g));
	sigset_t all, old;

	*g = (struct pf_gateway){.o = *o, .fd = fd};
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->less, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	int e = pthread_create(&g->thread, NULL, take_connections, g);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	g->threaded = e == 0;
	if (e == 0)
		return g;
	pf_fail(err, e, "start a thread");
	pf_gateway_stop(g);
	return NULL;
}

bool pf_gateway_done(struct pf_gateway *g)
{
	pthread_mutex_lock(&g->lock);
	bool done = g->done;
	pthread_mutex_unlock(&g->lock);
	return done;
}

int64_t pf_gateway_beat_us(struct pf_gateway *g)
{
	pthread_mutex_lock(&g->lock);
	int64_t us = g->beat_us;
	pthread_mutex_unlock(&g->lock);
	return us;
}

void pf_gateway_stop(struct pf_gateway *g)
{
	if (!g)
		return;
	pthread_mutex_lock(&g->lock);
	g->closing = true;
	pthread_cond_broadcast(&g->less);
	pthread_mutex_unlock(&g->lock);
	(void)shutdown(g->fd, SHUT_RDWR);
	if (g->threaded)
		pthread_join(g->thread, NULL);
	pthread_mutex_lock(&g->lock);
	for (struct conn *c = g->conns; c; c = c->next) {
		(void)shutdown(c->fd, SHUT_RDWR);
		pf_http_cancel(c->http);
	}
	while (g->n_conns)
		pthread_cond_wait(&g->less, &g->lock);
	pthread_mutex_unlock(&g->lock);
	close(g->fd);
	pthread_mutex_destroy(&g->lock);
	pthread_cond_destroy(&g->less);
	free(g);
}
