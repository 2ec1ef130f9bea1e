/* Theory of operation: what the worker answers.
 *
 * One thread of libmicrohttpd's, apart from the poller, so that health is told while a poll hangs. It reads
 * the poller's state, which is atomic, and leaves what webhooks say in a list of its own. Nothing that comes
 * in is believed before its signature has been verified, and a webhook can do no more than to have the poller
 * ask the control plane, or to have the sandbox and the checkpoints of a session removed that is said to be
 * deleted.
 *
 * There is no TLS: in front of what comes from outside belongs a proxy that ends it. Bodies, headers, the
 * number of connections and their idle time are bounded. Clients that hold connections and finish no request
 * keep nobody out: where there are many, each new one ends the one that has been there longest. By address
 * they could not be told apart, because behind a proxy and on the loopback all have the same. */

#include "worker/serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "worker/log.h"
#include "worker/metrics.h"
#include "worker/webhook.h"

#define BODY_MAX ((size_t)64 << 10)
#define KEYS_FILE_MAX ((size_t)64 << 10)
#define CONNECTIONS_MAX 128
#define CONNECTIONS_KEPT 96 /* the others are on their way out, or could not be told to go yet */
#define CONNECTION_MEMORY ((size_t)32 << 10)
#define CONNECTION_SECONDS 15
#define DELETED_MAX 10000
#define TEXT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define JSON_TYPE "application/json"

/* A connection that nobody has told to go. */
struct held {
	struct held *next, *prev;
	int fd;
};

struct pf_serve {
	struct pf_serve_opts o;
	struct MHD_Daemon *daemon;
	struct pf_hook_seen *seen; /* the thread's alone, with the next two */
	struct held held;          /* a ring, with those that have been there longest first behind it */
	size_t n_held;
	int64_t started_s;
	char *address;
	pthread_mutex_t lock;
	bool work;      /* under the lock, with the next two */
	char **deleted; /* a stack */
	size_t n_deleted;
};

/* A request whose body is still coming. */
struct incoming {
	struct pf_buf body;
	bool too_long;
};

/* ---- answers ---- */

static enum MHD_Result reply(struct MHD_Connection *c, unsigned status, const char *type, const char *text)
{
	struct MHD_Response *r =
		MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);

	if (!r)
		return MHD_NO;
	if (*text)
		MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD, POST");
	if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
		MHD_add_response_header(r, MHD_HTTP_HEADER_RETRY_AFTER, "10");
	enum MHD_Result result = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return result;
}

static enum MHD_Result refuse(struct MHD_Connection *c, unsigned status, const char *why)
{
	PF_FREE char *text = pf_asprintf("{\"error\":\"%s\"}\n", why);

	return reply(c, status, JSON_TYPE, text);
}

/* health: whether the process works. ready: whether it takes sessions. */
static enum MHD_Result tell_health(struct pf_serve *s, struct MHD_Connection *c, bool ready)
{
	const struct pf_serve_state *st = s->o.state;
	bool draining = atomic_load(&st->draining);
	int64_t polled = atomic_load(&st->polled_us), now = pf_now_us();
	bool reached = polled && now - polled <= s->o.ready_ms * 1000;
	PF_JSON cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "status", draining ? "draining" : reached ? "ok" : "unreachable");
	pf_json_add_int(j, "sessions", atomic_load(&st->sessions));
	pf_json_add_int(j, "max_sessions", atomic_load(&st->max_sessions));
	if (polled)
		cJSON_AddNumberToObject(j, "polled_seconds_ago", (double)(now - polled) / 1e6);
	else
		cJSON_AddNullToObject(j, "polled_seconds_ago");
	PF_FREE char *text = pf_json_text(j);
	return reply(c, ready && (draining || !reached) ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK,
		JSON_TYPE, text);
}

static void gauge(struct pf_buf *b, const char *name, const char *help, double value)
{
	pf_buf_printf(b, "# HELP %s %s\n# TYPE %s gauge\n%s %.15g\n", name, help, name, name, value);
}

static enum MHD_Result tell_metrics(struct pf_serve *s, struct MHD_Connection *c)
{
	const struct pf_serve_state *st = s->o.state;
	int64_t polled = atomic_load(&st->polled_us);
	PF_BUF struct pf_buf b = {0};

	pf_buf_str(&b, "# HELP pinfold_worker_info The program.\n# TYPE pinfold_worker_info gauge\n"
		       "pinfold_worker_info{version=\"" PF_VERSION "\"} 1\n");
	gauge(&b, "pinfold_worker_sessions", "Sessions that are worked at.",
		(double)atomic_load(&st->sessions));
	gauge(&b, "pinfold_worker_max_sessions", "Sessions that there is room for.",
		(double)atomic_load(&st->max_sessions));
	gauge(&b, "pinfold_worker_draining", "1 when no new sessions are taken.",
		atomic_load(&st->draining) ? 1 : 0);
	gauge(&b, "pinfold_worker_last_poll_timestamp_seconds", "When a poll was last answered.",
		polled ? (double)time(NULL) - (double)(pf_now_us() - polled) / 1e6 : 0);
	gauge(&b, "pinfold_worker_start_time_seconds", "When the worker was started.", (double)s->started_s);
	pf_metrics_print(&b);
	return reply(c, MHD_HTTP_OK, TEXT_TYPE, b.data);
}

/* ---- webhooks ---- */

static int load_keys(const struct pf_serve_opts *o, struct pf_hook_keys *keys, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	size_t len = 0;

	if (!o->keys_file)
		return pf_hook_keys_parse(o->keys, keys, err);
	if (pf_read_file_at(AT_FDCWD, o->keys_file, KEYS_FILE_MAX, &text, &len, err) < 0)
		return -1;
	int r = pf_hook_keys_parse(text, keys, err);
	explicit_bzero(text, len);
	return r < 0 ? pf_wrap(err, "%s", o->keys_file) : 0;
}

static void wake(const struct pf_serve *s)
{
	uint64_t one = 1;

	(void)!write(s->o.wake_fd, &one, sizeof(one));
}

static bool list_full(struct pf_serve *s)
{
	pthread_mutex_lock(&s->lock);
	bool full = s->n_deleted >= DELETED_MAX;
	pthread_mutex_unlock(&s->lock);
	return full;
}

/* What a genuine message asks for. */
static enum pf_metric act(struct pf_serve *s, const struct pf_buf *body)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_JSON cJSON *j = body->len ? cJSON_ParseWithLength(body->data, body->len) : NULL;
	const cJSON *data = cJSON_GetObjectItemCaseSensitive(j, "data");
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(data, "type"));
	const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(data, "id"));
	bool work = type && (strcmp(type, "session.status_run_started") == 0 ||
				    strcmp(type, "session.status_rescheduled") == 0);
	bool deleted = type && strcmp(type, "session.deleted") == 0 && id && *id != '-' &&
		       pf_check_id("session id", id, &ignored) == 0;

	if (!work && !deleted)
		return PF_M_HOOK_IGNORED;
	pthread_mutex_lock(&s->lock);
	s->work |= work;
	if (deleted) {
		char **more = reallocarray(s->deleted, s->n_deleted + 1, sizeof(*more));
		if (!more)
			abort();
		s->deleted = more;
		s->deleted[s->n_deleted++] = pf_strdup(id);
	}
	pthread_mutex_unlock(&s->lock);
	wake(s);
	return PF_M_HOOK_ACCEPTED;
}

static const char *header(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

static enum MHD_Result take_webhook(struct pf_serve *s, struct MHD_Connection *c, const struct incoming *in)
{
	struct pf_hook_keys keys = {0};
	struct pf_err err = PF_ERR_INIT;
	const char *id = header(c, "webhook-id"), *why = NULL;
	int64_t now = time(NULL);

	if (atomic_load(&s->o.state->draining))
		return refuse(c, MHD_HTTP_SERVICE_UNAVAILABLE, "draining");
	if (load_keys(&s->o, &keys, &err) < 0) {
		pf_wlog("error", "webhook: %s", err.msg);
		return refuse(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "no key to verify it with");
	}
	enum pf_hook_verdict v = pf_hook_verify(&keys, id, header(c, "webhook-timestamp"),
		header(c, "webhook-signature"), in->body.data ? in->body.data : "", in->body.len, now);
	pf_hook_keys_done(&keys);
	if (v == PF_HOOK_MALFORMED)
		why = "webhook-id, webhook-timestamp or webhook-signature is missing or malformed";
	else if (v == PF_HOOK_FORGED)
		why = "no signature is valid";
	else if (v == PF_HOOK_STALE)
		why = "webhook-timestamp is too far from now";
	if (why) {
		pf_metric_add(PF_M_HOOK_REFUSED, 1);
		pf_wlog("warning", "webhook refused: %s", why);
		return refuse(c, v == PF_HOOK_MALFORMED ? MHD_HTTP_BAD_REQUEST : MHD_HTTP_UNAUTHORIZED, why);
	}
	/* Its sender tries again, and it does not count as seen. */
	if (list_full(s))
		return refuse(c, MHD_HTTP_SERVICE_UNAVAILABLE, "too many deleted sessions at once");
	/* Once more the same: taken, or its sender would go on, and without effect. */
	pf_metric_add(pf_hook_seen(s->seen, id, now) ? PF_M_HOOK_REPEATED : act(s, &in->body), 1);
	return reply(c, MHD_HTTP_NO_CONTENT, JSON_TYPE, "");
}

/* ---- requests ---- */

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
	const char *version, const char *data, size_t *len, void **state)
{
	struct pf_serve *s = arg;
	struct incoming *in = *state;
	bool post = strcmp(method, MHD_HTTP_METHOD_POST) == 0;
	bool get = strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;

	(void)version;
	if (!in) {
		*state = pf_calloc(1, sizeof(*in));
		return MHD_YES;
	}
	if (*len) {
		in->too_long |= in->body.len + *len > BODY_MAX;
		if (!in->too_long)
			pf_buf_add(&in->body, data, *len);
		*len = 0;
		return MHD_YES;
	}
	if (in->too_long)
		return refuse(c, MHD_HTTP_CONTENT_TOO_LARGE, "more than 64 KiB");
	if (get && strcmp(url, "/healthz") == 0)
		return tell_health(s, c, false);
	if (get && strcmp(url, "/readyz") == 0)
		return tell_health(s, c, true);
	if (get && strcmp(url, "/metrics") == 0)
		return tell_metrics(s, c);
	bool hooks = (s->o.keys || s->o.keys_file) && strcmp(url, "/webhook") == 0;
	if (post && hooks)
		return take_webhook(s, c, in);
	if (hooks || strcmp(url, "/healthz") == 0 || strcmp(url, "/readyz") == 0 ||
		strcmp(url, "/metrics") == 0)
		return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "not with this method");
	return refuse(c, MHD_HTTP_NOT_FOUND, "there is /healthz, /readyz, /metrics, and /webhook with a key");
}

static void on_done(void *arg, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode how)
{
	struct incoming *in = *state;

	(void)arg, (void)c, (void)how;
	if (in)
		pf_buf_done(&in->body);
	free(in);
	*state = NULL;
}

/* ---- connections ---- */

static void let_go(struct pf_serve *s, struct held *h)
{
	h->prev->next = h->next;
	h->next->prev = h->prev;
	h->next = h->prev = h;
	s->n_held--;
}

/* libmicrohttpd says that there is a connection, or that there is none any more: then it still has the
 * number. */
static void on_connection(
	void *arg, struct MHD_Connection *c, void **state, enum MHD_ConnectionNotificationCode what)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct pf_serve *s = arg;
	struct held *h = *state;

	if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (h && h->next != h)
			let_go(s, h);
		free(h);
		*state = NULL;
		return;
	}
	h = *state = pf_calloc(1, sizeof(*h));
	h->fd = info ? info->connect_fd : -1;
	h->next = &s->held;
	h->prev = s->held.prev;
	h->prev->next = h->next->prev = h;
	if (++s->n_held <= CONNECTIONS_KEPT)
		return;
	(void)shutdown(s->held.next->fd, SHUT_RDWR);
	let_go(s, s->held.next);
}

/* ---- begin and end ---- */

static int open_socket(const char *address, char **name, struct pf_err *err)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
				.ai_socktype = SOCK_STREAM,
				.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV},
			*list = NULL;
	struct sockaddr_storage at;
	socklen_t len = sizeof(at);
	char host[64], port[16];
	const char *colon = strrchr(address, ':');
	PF_CLOSE int fd = -1;
	int one = 1;

	if (!colon)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "--listen: '%s' is not HOST:PORT", address);
	size_t n = (size_t)(colon - address);
	bool brackets = n > 1 && *address == '[' && colon[-1] == ']';
	PF_FREE char *word = strndup(address + brackets, n - (brackets ? 2 : 0));
	int r = getaddrinfo(word && *word ? word : NULL, colon + 1, &hints, &list);
	if (r != 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"--listen: '%s' is no numeric address and port: %s", address, gai_strerror(r));
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool open = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
		    bind(fd, list->ai_addr, list->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0 &&
		    getsockname(fd, (struct sockaddr *)&at, &len) == 0;
	int e = errno;
	freeaddrinfo(list);
	if (!open)
		return pf_fail(err, e, "--listen: %s", address);
	if (getnameinfo((struct sockaddr *)&at, len, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "--listen: %s", address);
	*name = pf_asprintf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
	return pf_take_fd(&fd);
}

struct pf_serve *pf_serve_start(const struct pf_serve_opts *o, struct pf_err *err)
{
	struct pf_serve *s = pf_calloc(1, sizeof(*s));
	struct pf_hook_keys keys = {0};

	s->o = *o;
	s->held.next = s->held.prev = &s->held;
	s->started_s = time(NULL);
	s->seen = pf_calloc(1, sizeof(*s->seen));
	pthread_mutex_init(&s->lock, NULL);
	/* Wrong keys are told now, not with the first webhook. */
	if ((o->keys || o->keys_file) && load_keys(o, &keys, err) < 0) {
		pf_serve_stop(s);
		return NULL;
	}
	pf_hook_keys_done(&keys);
	int fd = open_socket(o->address, &s->address, err);
	if (fd < 0) {
		pf_serve_stop(s);
		return NULL;
	}
	s->daemon = MHD_start_daemon(MHD_USE_AUTO_INTERNAL_THREAD, 0, NULL, NULL, on_request, s,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_SECONDS,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY, MHD_OPTION_NOTIFY_COMPLETED, on_done,
		NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_END);
	if (!s->daemon) {
		pf_fail(err, errno, "--listen: %s", o->address);
		close(fd);
		pf_serve_stop(s);
		return NULL;
	}
	return s;
}

const char *pf_serve_address(const struct pf_serve *s)
{
	return s->address;
}

bool pf_serve_work(struct pf_serve *s)
{
	pthread_mutex_lock(&s->lock);
	bool work = s->work;
	s->work = false;
	pthread_mutex_unlock(&s->lock);
	return work;
}

char *pf_serve_deleted(struct pf_serve *s)
{
	pthread_mutex_lock(&s->lock);
	char *id = s->n_deleted ? s->deleted[--s->n_deleted] : NULL;
	pthread_mutex_unlock(&s->lock);
	return id;
}

void pf_serve_stop(struct pf_serve *s)
{
	if (!s)
		return;
	if (s->daemon)
		MHD_stop_daemon(s->daemon);
	for (size_t i = 0; i < s->n_deleted; i++)
		free(s->deleted[i]);
	free(s->deleted);
	free(s->seen);
	free(s->address);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
