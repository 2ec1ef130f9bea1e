/* Requests and answers one after another, in pieces: the borders must not depend on how the bytes arrive. */
#include <stdlib.h>
#include <string.h>

#include "netpolicy/http.h"
#include "netpolicy/refusal.h"
#include "netpolicy/sniff.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void count(void *arg, const char *data, size_t len)
{
	(void)data;
	*(size_t *)arg += len;
}

/* Where the first message ends when its body comes in pieces of this size; 0: not complete or refused. */
static size_t end_of(const char *p, size_t len, size_t piece, bool request)
{
	struct pf_http h, twin;
	size_t head = pf_http_head_len(p, len), content = 0;

	if (head > len)
		abort();
	if (head == 0 || (request ? pf_http_request(&h, p, head) : pf_http_response(&h, p, head, false)) < 0)
		return 0;
	size_t at = head;
	twin = h;
	twin.parser.data = &twin;
	while (!h.done && !h.until_close && at < len) {
		size_t n = len - at < piece ? len - at : piece;
		ssize_t took = pf_http_body(&h, p + at, n);
		/* Who wants its content sees the same message. */
		if (pf_http_body_to(&twin, p + at, n, count, &content) != took || twin.done != h.done ||
			content > len - head)
			abort();
		if (took < 0)
			return 0;
		if ((size_t)took > n || (took == 0 && !h.done))
			abort();
		at += (size_t)took;
	}
	return h.done ? at : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const char *p = (const char *)data;
	char out[PF_REFUSAL_MAX];
	struct pf_sniff s;
	struct pf_http_line line;
	size_t at = 0;

	if (len == 0)
		return 0;
	pf_sniff(data, len, &s);
	if (s.kind == PF_SNIFF_HTTP && !s.h2c) {
		size_t a = end_of(p, len, len, true), b = end_of(p, len, 1, true),
		       c = end_of(p, len, 7, true);
		if (a != b || b != c)
			abort();
		while (pf_http_next(p, s.head_len, &at, &line))
			if (line.name < p || line.name + line.name_len > p + s.head_len ||
				(line.value && line.value + line.value_len > p + s.head_len))
				abort();
		const struct pf_refusal r = {.status = 403, .host = s.name, .port = 1, .reason = "x"};
		if (pf_refusal_write(&r, p, s.head_len, out) >= sizeof(out))
			abort();
	}
	if (end_of(p, len, len, false) != end_of(p, len, 3, false))
		abort();
	return 0;
}
