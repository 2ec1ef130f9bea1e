/* Theory of operation: the event stream.
 *
 * One thread reads it and puts what comes into a queue; the runner takes it from there. The thread knows
 * nothing of what events mean. Whenever the stream is opened, an item says so, and the runner then reads the
 * list of events: in that order nothing falls between the two, and what comes by both is known by its id. A
 * stream that breaks, or says nothing at all for a long time (the platform sends pings), is opened again,
 * half a second to ten later. */

#include "worker/stream.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "worker/http.h"

#define FRAME_MAX ((size_t)16 << 20)
#define SILENCE_MS 180000
#define BACKOFF_MS 500
#define BACKOFF_MAX_MS 10000

struct node {
	struct pf_stream_item item;
	struct node *next;
};

struct pf_stream {
	struct pf_http *http;
	char *bearer, *path;
	int wake_fd;
	pthread_t thread;
	pthread_mutex_t lock;
	struct node *first, **last;
	struct pf_sse sse;
	unsigned failures;
};

/* ---- framing ---- */

static bool append(char **p, size_t *len, size_t *cap, const char *data, size_t n)
{
	if (*len + n > FRAME_MAX)
		return false;
	if (*len + n + 1 > *cap) {
		size_t more = *cap ? *cap * 2 : 4096;
		while (more < *len + n + 1)
			more *= 2;
		char *q = realloc(*p, more);
		if (!q)
			abort();
		*p = q;
		*cap = more;
	}
	memcpy(*p + *len, data, n);
	*len += n;
	(*p)[*len] = '\0';
	return true;
}

static void end_line(struct pf_sse *p, void (*emit)(void *, const char *, const char *, size_t), void *arg)
{
	if (p->line_len == 0 && !p->too_long) {
		if (p->event && *p->event && p->data_len)
			emit(arg, p->event, p->data, p->data_len);
		free(p->event);
		p->event = NULL;
		p->data_len = 0;
		return;
	}
	char *value = p->line ? strchr(p->line, ':') : NULL;
	if (value && value != p->line && !p->too_long) {
		*value++ = '\0';
		value += *value == ' ';
		if (strcmp(p->line, "event") == 0) {
			free(p->event);
			p->event = pf_strdup(value);
		} else if (strcmp(p->line, "data") == 0) {
			if ((p->data_len && !append(&p->data, &p->data_len, &p->data_cap, "\n", 1)) ||
				!append(&p->data, &p->data_len, &p->data_cap, value,
					p->line_len - (size_t)(value - p->line)))
				p->too_long = 1;
		}
	}
	if (p->too_long) {
		free(p->event);
		p->event = NULL;
		p->data_len = 0;
	}
	p->line_len = 0;
	p->too_long = 0;
}

void pf_sse_feed(struct pf_sse *p, const char *bytes, size_t len,
	void (*emit)(void *arg, const char *event, const char *data, size_t len), void *arg)
{
	while (len) {
		size_t n = 0;
		if (*bytes == '\n' && p->after_cr) {
			p->after_cr = 0;
			bytes++;
			len--;
			continue;
		}
		while (n < len && bytes[n] != '\n' && bytes[n] != '\r')
			n++;
		p->after_cr = 0;
		if (n && !p->too_long && !append(&p->line, &p->line_len, &p->line_cap, bytes, n))
			p->too_long = 1;
		bytes += n;
		len -= n;
		if (!len)
			return;
		p->after_cr = *bytes == '\r';
		bytes++;
		len--;
		end_line(p, emit, arg);
	}
}

void pf_sse_done(struct pf_sse *p)
{
	free(p->line);
	free(p->data);
	free(p->event);
	*p = (struct pf_sse){0};
}

/* ---- queue ---- */

static void push(struct pf_stream *s, enum pf_stream_kind kind, const char *text, size_t len)
{
	struct node *n = pf_calloc(1, sizeof(*n));
	uint64_t one = 1;

	n->item.kind = kind;
	n->item.len = len;
	if (text) {
		n->item.text = pf_calloc(len + 1, 1);
		memcpy(n->item.text, text, len);
	}
	pthread_mutex_lock(&s->lock);
	*s->last = n;
	s->last = &n->next;
	pthread_mutex_unlock(&s->lock);
	(void)!write(s->wake_fd, &one, sizeof(one));
}

struct pf_stream_item *pf_stream_take(struct pf_stream *s)
{
	struct node *n;

	pthread_mutex_lock(&s->lock);
	n = s->first;
	if (n) {
		s->first = n->next;
		if (!s->first)
			s->last = &s->first;
	}
	pthread_mutex_unlock(&s->lock);
	return n ? &n->item : NULL;
}

void pf_stream_item_free(struct pf_stream_item *i)
{
	free(i->text);
	free(i);
}

/* ---- the thread ---- */

static void emit(void *arg, const char *event, const char *data, size_t len)
{
	struct pf_stream *s = arg;

	s->failures = 0;
	if (strcmp(event, "ping") != 0 && strcmp(event, "error") != 0)
		push(s, PF_STREAM_EVENT, data, len);
}

static bool on_bytes(void *arg, const char *data, size_t len)
{
	struct pf_stream *s = arg;

	pf_sse_feed(&s->sse, data, len, emit, s);
	return true;
}

static void on_open(void *arg)
{
	push(arg, PF_STREAM_OPENED, NULL, 0);
}

static void *run(void *arg)
{
	struct pf_stream *s = arg;

	for (;;) {
		struct pf_http_req req = {.method = "GET",
			.path = s->path,
			.bearer = s->bearer,
			.silence_ms = SILENCE_MS,
			.sink = on_bytes,
			.opened = on_open,
			.arg = s};
		struct pf_http_resp resp;
		struct pf_err err = PF_ERR_INIT;
		int r = pf_http_once(s->http, &req, &resp, &err);
		bool fatal = r == 0 && pf_http_fatal(&resp);
		if (fatal) {
			pf_http_fail(&resp, "event stream", &err);
			push(s, PF_STREAM_ENDED, err.msg, strlen(err.msg));
		}
		pf_http_resp_done(&resp);
		/* Half a frame is no event. */
		pf_sse_done(&s->sse);
		if (fatal ||
			!pf_http_sleep(s->http, pf_backoff_ms(s->failures++, BACKOFF_MS, BACKOFF_MAX_MS)))
			return NULL;
	}
}

struct pf_stream *pf_stream_start(const char *base_url, const char *agent, const char *bearer,
	const char *session_id, int wake_fd, struct pf_err *err)
{
	struct pf_stream *s = pf_calloc(1, sizeof(*s));
	sigset_t all, old;

	s->http = pf_http_new(base_url, agent, err);
	if (!s->http) {
		free(s);
		return NULL;
	}
	s->bearer = pf_strdup(bearer);
	s->path = pf_asprintf("/v1/sessions/%s/events/stream", session_id);
	s->wake_fd = wake_fd;
	s->last = &s->first;
	pthread_mutex_init(&s->lock, NULL);
	/* Signals are the runner's. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	int e = pthread_create(&s->thread, NULL, run, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e == 0)
		return s;
	pf_fail(err, e, "start a thread");
	pf_http_free(s->http);
	free(s->bearer);
	free(s->path);
	free(s);
	return NULL;
}

void pf_stream_stop(struct pf_stream *s)
{
	struct pf_stream_item *i;

	if (!s)
		return;
	pf_http_cancel(s->http);
	pthread_join(s->thread, NULL);
	while ((i = pf_stream_take(s)))
		pf_stream_item_free(i);
	pf_sse_done(&s->sse);
	pf_http_free(s->http);
	pthread_mutex_destroy(&s->lock);
	explicit_bzero(s->bearer, strlen(s->bearer));
	free(s->bearer);
	free(s->path);
	free(s);
}
