/* Theory of operation.
 *
 * The borders between messages are what a filter of requests stands or falls with: who sees them elsewhere
 * sees other requests. They come from http_parser (Joyent's, of which Node's is a descendant), which refuses
 * a length beside a transfer coding, two lengths, and codings that do not end in chunked. It is given whole
 * heads only, of which sniff.c has made sure that every line is what it seems: no folding, no bare CR or NUL,
 * no blank before a colon. One parser state is one message; nothing of it survives into the next. */
#include "netpolicy/http.h"

#include <string.h>
#include <strings.h>

static int on_complete(http_parser *p)
{
	struct pf_http *h = p->data;

	h->done = true;
	/* What follows is the next message's. */
	http_parser_pause(p, 1);
	return 0;
}

static int on_headers(http_parser *p)
{
	const struct pf_http *h = p->data;

	return h->done ? 1 : 0; /* set by pf_http_response: this one has no body whatever it says */
}

static const http_parser_settings settings = {
	.on_headers_complete = on_headers, .on_message_complete = on_complete};

/* A message whose content is wanted, while some of it is read. */
struct reading {
	struct pf_http *h;
	pf_http_sink sink;
	void *arg;
};

static int on_body(http_parser *p, const char *at, size_t len)
{
	const struct reading *r = p->data;

	r->sink(r->arg, at, len);
	return 0;
}

static int on_complete_reading(http_parser *p)
{
	const struct reading *r = p->data;

	r->h->done = true;
	http_parser_pause(p, 1);
	return 0;
}

static const http_parser_settings settings_reading = {
	.on_body = on_body, .on_message_complete = on_complete_reading};

size_t pf_http_head_len(const char *data, size_t len)
{
	size_t at = 0;

	while (at < len && (data[at] == '\r' || data[at] == '\n'))
		at++;
	while (at < len) {
		const char *nl = memchr(data + at, '\n', len - at);
		if (!nl)
			return 0;
		size_t line = (size_t)(nl - data) - at;
		at += line + 1;
		if (line == 0 || (line == 1 && data[at - 2] == '\r'))
			return at;
	}
	return 0;
}

static int begin(struct pf_http *h, const char *head, size_t len, bool no_body)
{
	h->parser.data = h;
	h->done = no_body;
	size_t n = http_parser_execute(&h->parser, &settings, head, len);
	enum http_errno e = HTTP_PARSER_ERRNO(&h->parser);
	if ((e != HPE_OK && e != HPE_PAUSED) || n != len)
		return -1;
	if (h->parser.http_major != 1 || h->parser.http_minor > 1)
		return -1;
	h->keep_alive = http_should_keep_alive(&h->parser) != 0;
	return 0;
}

int pf_http_request(struct pf_http *h, const char *head, size_t len)
{
	*h = (struct pf_http){0};
	http_parser_init(&h->parser, HTTP_REQUEST);
	if (begin(h, head, len, false) < 0)
		return -1;
	/* The library asks for "Connection: upgrade" beside the field; servers have been known not to. */
	struct pf_http_line line;
	size_t at = 0;
	h->upgrade = h->parser.method == HTTP_CONNECT;
	while (pf_http_next(head, len, &at, &line))
		h->upgrade = h->upgrade || pf_http_is(&line, "Upgrade");
	/* A transfer coding is unknown to HTTP/1.0, and servers differ in what they make of it. */
	return h->parser.http_minor == 0 && (h->parser.flags & F_CHUNKED) ? -1 : 0;
}

int pf_http_response(struct pf_http *h, const char *head, size_t len, bool no_body)
{
	*h = (struct pf_http){0};
	http_parser_init(&h->parser, HTTP_RESPONSE);
	if (begin(h, head, len, no_body) < 0)
		return -1;
	h->upgrade = h->parser.status_code == 101;
	if (h->parser.status_code / 100 == 1)
		h->done = true;
	h->until_close = !h->done && !(h->parser.flags & F_CHUNKED) && h->parser.content_length == UINT64_MAX;
	return 0;
}

ssize_t pf_http_body(struct pf_http *h, const char *data, size_t len)
{
	if (h->done || len == 0)
		return 0;
	if (h->until_close)
		return (ssize_t)len;
	size_t n = http_parser_execute(&h->parser, &settings, data, len);
	enum http_errno e = HTTP_PARSER_ERRNO(&h->parser);
	return e == HPE_OK || e == HPE_PAUSED ? (ssize_t)n : -1;
}

ssize_t pf_http_body_to(struct pf_http *h, const char *data, size_t len, pf_http_sink sink, void *arg)
{
	struct reading r = {h, sink, arg};

	if (h->done || len == 0)
		return 0;
	if (h->until_close) {
		sink(arg, data, len);
		return (ssize_t)len;
	}
	h->parser.data = &r;
	size_t n = http_parser_execute(&h->parser, &settings_reading, data, len);
	h->parser.data = h;
	enum http_errno e = HTTP_PARSER_ERRNO(&h->parser);
	return e == HPE_OK || e == HPE_PAUSED ? (ssize_t)n : -1;
}

bool pf_http_next(const char *head, size_t len, size_t *at, struct pf_http_line *line)
{
	bool first = *at == 0;

	while (first && *at < len && (head[*at] == '\r' || head[*at] == '\n'))
		++*at;
	const char *s = head + *at, *nl = memchr(s, '\n', len - *at);
	if (!nl)
		return false;
	size_t n = (size_t)(nl - s);
	*at += n + 1;
	if (n && s[n - 1] == '\r')
		n--;
	if (n == 0)
		return false;
	*line = (struct pf_http_line){.name = s, .name_len = n};
	const char *colon = first ? NULL : memchr(s, ':', n);
	if (!colon)
		return true;
	line->name_len = (size_t)(colon - s);
	line->value = colon + 1;
	line->value_len = n - line->name_len - 1;
	while (line->value_len && (*line->value == ' ' || *line->value == '\t'))
		line->value++, line->value_len--;
	while (line->value_len &&
		(line->value[line->value_len - 1] == ' ' || line->value[line->value_len - 1] == '\t'))
		line->value_len--;
	return true;
}

bool pf_http_is(const struct pf_http_line *line, const char *name)
{
	return line->value && line->name_len == strlen(name) &&
	       strncasecmp(line->name, name, line->name_len) == 0;
}

void pf_http_hide_h2c(char *head, size_t len)
{
	struct pf_http_line line;
	size_t at = 0;

	while (pf_http_next(head, len, &at, &line)) {
		if (!pf_http_is(&line, "Upgrade"))
			continue;
		char *value = head + (line.value - head);
		for (size_t i = 0; i + 3 <= line.value_len; i++)
			if (strncasecmp(value + i, "h2c", 3) == 0)
				value[i] = 'x';
	}
}
