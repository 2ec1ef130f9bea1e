/* Theory of operation: a connection from inside.
 *
 * Whoever writes here may be hostile: every length is bounded, every wait ends, and what is taken out of a
 * request is taken out of http_parser's reading of it. Nothing is passed on as bytes: whoever forwards a
 * request writes it anew, so that what two readers might see in its framing does not matter. A client that
 * sends a second request before the first is answered gets no answer to it. */

#include "worker/httpd.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/proc.h"

#define BODY_MAX ((size_t)16 << 20)
#define BODIES_MAX ((size_t)64 << 20) /* of all connections: it is the host's memory */
#define TARGET_MAX 8192
#define HEADER_MAX 8192
#define IDLE_MS 120000
#define REQUEST_MS 60000
#define SEND_MS 30000

static atomic_size_t bodies; /* bytes that requests of this process hold */

struct reading {
	struct pf_httpd_req *r;
	int fd;
	struct pf_buf target, name, value;
	bool in_value, done;
	int refuse; /* the status to refuse it with */
};

static void end_header(struct reading *x)
{
	if (!x->in_value)
		return;
	pf_buf_str(&x->value, "");
	struct pf_httpd_req *r = x->r;
	for (const char *p = x->value.data; *p; p++)
		if ((unsigned char)*p < ' ' && *p != '\t')
			x->refuse = 400;
	if (r->n_headers == PF_HTTPD_HEADERS) {
		x->refuse = 431;
	} else {
		r->headers[r->n_headers].name = pf_take(x->name.data);
		r->headers[r->n_headers++].value = pf_take(x->value.data);
	}
	pf_buf_done(&x->name);
	pf_buf_done(&x->value);
	x->name = x->value = (struct pf_buf){0};
	x->in_value = false;
}

static int add(struct reading *x, struct pf_buf *b, const char *at, size_t n, size_t max, int status)
{
	if (b->len + n > max || memchr(at, '\0', n)) {
		x->refuse = status;
		return 1;
	}
	pf_buf_add(b, at, n);
	return 0;
}

static int on_url(http_parser *p, const char *at, size_t n)
{
	struct reading *x = p->data;

	return add(x, &x->target, at, n, TARGET_MAX, 414);
}

static int on_field(http_parser *p, const char *at, size_t n)
{
	struct reading *x = p->data;

	end_header(x);
	return x->refuse ? 1 : add(x, &x->name, at, n, HEADER_MAX, 431);
}

static int on_value(http_parser *p, const char *at, size_t n)
{
	struct reading *x = p->data;

	x->in_value = true;
	return add(x, &x->value, at, n, HEADER_MAX, 431);
}

static int on_headers(http_parser *p)
{
	struct reading *x = p->data;

	end_header(x);
	const char *expect = pf_httpd_header(x->r, "expect");
	if (!x->refuse && expect && strcasecmp(expect, "100-continue") == 0)
		(void)pf_httpd_send(x->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	/* A request that wants another protocol is none for us. */
	if (p->upgrade)
		x->refuse = 400;
	return x->refuse ? -1 : 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
	struct reading *x = p->data;

	if (x->r->body.len + n > BODY_MAX) {
		x->refuse = 413;
		return 1;
	}
	if (atomic_fetch_add(&bodies, n) + n > BODIES_MAX) {
		atomic_fetch_sub(&bodies, n);
		x->refuse = 503;
		return 1;
	}
	pf_buf_add(&x->r->body, at, n);
	return 0;
}

static int on_complete(http_parser *p)
{
	struct reading *x = p->data;

	x->done = true;
	http_parser_pause(p, 1);
	return 0;
}

static const http_parser_settings settings = {.on_url = on_url,
	.on_header_field = on_field,
	.on_header_value = on_value,
	.on_headers_complete = on_headers,
	.on_body = on_body,
	.on_message_complete = on_complete};

static bool good_target(const char *t)
{
	if (*t != '/')
		return false;
	for (; *t; t++)
		if ((unsigned char)*t <= ' ' || (unsigned char)*t >= 0x7f || *t == '#')
			return false;
	return true;
}

/* Returns 1 when the request is complete, 0 when it never will be, -1 when it is to be refused. */
static int read_it(struct reading *x, http_parser *p)
{
	int64_t begun = 0;
	char buf[16384];

	while (!x->done) {
		int64_t left = begun ? REQUEST_MS - (pf_now_us() - begun) / 1000 : IDLE_MS;
		struct pollfd f = {.fd = x->fd, .events = POLLIN};
		if (left <= 0 || poll(&f, 1, (int)left) <= 0)
			return 0;
		ssize_t n = recv(x->fd, buf, sizeof(buf), 0);
		if (n <= 0)
			return 0;
		if (!begun)
			begun = pf_now_us();
		size_t took = http_parser_execute(p, &settings, buf, (size_t)n);
		if (x->refuse)
			return -1;
		if (HTTP_PARSER_ERRNO(p) != HPE_OK && HTTP_PARSER_ERRNO(p) != HPE_PAUSED) {
			x->refuse = 400;
			return -1;
		}
		/* What follows would be a request before the answer to this one. */
		x->r->keep = x->done && took == (size_t)n;
	}
	return 1;
}

int pf_httpd_read(int fd, struct pf_httpd_req *r)
{
	struct reading x = {.r = r, .fd = fd};
	http_parser p;

	*r = (struct pf_httpd_req){0};
	http_parser_init(&p, HTTP_REQUEST);
	p.data = &x;
	int got = read_it(&x, &p);
	if (got > 0) {
		pf_buf_str(&x.target, "");
		r->method = pf_strdup(http_method_str((enum http_method)p.method));
		r->target = pf_take(x.target.data);
		r->http11 = p.http_major == 1 && p.http_minor >= 1;
		r->keep = r->keep && r->http11 && http_should_keep_alive(&p);
		if (!good_target(r->target))
			x.refuse = 400;
	}
	pf_buf_done(&x.target);
	pf_buf_done(&x.name);
	pf_buf_done(&x.value);
	if (x.refuse) {
		PF_FREE char *text =
			pf_asprintf("{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\","
				    "\"message\":\"this request cannot be taken\"}}");
		(void)pf_httpd_reply(fd, false, x.refuse, text);
	}
	if (got <= 0 || x.refuse) {
		pf_httpd_done(r);
		return -1;
	}
	return 0;
}

void pf_httpd_done(struct pf_httpd_req *r)
{
	free(r->method);
	free(r->target);
	for (size_t i = 0; i < r->n_headers; i++) {
		free(r->headers[i].name);
		free(r->headers[i].value);
	}
	atomic_fetch_sub(&bodies, r->body.len);
	pf_buf_done(&r->body);
	*r = (struct pf_httpd_req){0};
}

const char *pf_httpd_header(const struct pf_httpd_req *r, const char *name)
{
	for (size_t i = 0; i < r->n_headers; i++)
		if (strcasecmp(r->headers[i].name, name) == 0)
			return r->headers[i].value;
	return NULL;
}

bool pf_httpd_send(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		struct pollfd f = {.fd = fd, .events = POLLOUT};
		if (errno != EAGAIN && errno != EINTR)
			return false;
		if (errno == EAGAIN && poll(&f, 1, SEND_MS) <= 0)
			return false;
	}
	return true;
}

bool pf_httpd_reply(int fd, bool keep, long status, const char *json)
{
	PF_BUF struct pf_buf b = {0};

	pf_buf_printf(&b, "HTTP/1.1 %ld %s\r\nconnection: %s\r\n", status, status < 300 ? "OK" : "Refused",
		keep ? "keep-alive" : "close");
	if (json)
		pf_buf_printf(&b, "content-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
			strlen(json), json);
	else
		pf_buf_str(&b, status == 204 ? "\r\n" : "content-length: 0\r\n\r\n");
	return pf_httpd_send(fd, b.data, b.len);
}
