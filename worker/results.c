/* Theory of operation: one meaning.
 *
 * The text is passed on as it came, to a reader whose parser we do not know. So it is not enough that our own
 * parser finds results in it: readers differ in which of two equal keys counts, in whether case does, in what
 * they make of bytes after the end. This one walks the text by JSON's grammar alone and takes only what
 * leaves no choice: the keys that decide stand there once, without escapes, in plain ASCII, in exactly their
 * own case. What else is in an event is a matter of the session and of no concern. */

#include "worker/results.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"

#define DEPTH_MAX 64

struct scan {
	const char *p, *end;
};

/* A string's content as it is written. */
struct word {
	const char *s;
	size_t len;
	bool plain; /* printable ASCII without escapes */
};

static void blanks(struct scan *c)
{
	while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r'))
		c->p++;
}

/* The character, with the blanks around it. */
static bool take(struct scan *c, char what)
{
	blanks(c);
	if (c->p >= c->end || *c->p != what)
		return false;
	c->p++;
	blanks(c);
	return true;
}

static bool hex4(const char *p)
{
	for (int i = 0; i < 4; i++)
		if (!strchr("0123456789abcdefABCDEF", p[i]) || !p[i])
			return false;
	return true;
}

static bool string(struct scan *c, struct word *w)
{
	blanks(c);
	if (c->p >= c->end || *c->p != '"')
		return false;
	*w = (struct word){.s = ++c->p, .plain = true};
	for (; c->p < c->end && *c->p != '"'; c->p++) {
		unsigned char b = (unsigned char)*c->p;
		if (b < 0x20)
			return false;
		if (b == '\\') {
			w->plain = false;
			if (c->end - c->p < 2 || !c->p[1] || !strchr("\"\\/bfnrtu", c->p[1]))
				return false;
			if (c->p[1] == 'u' && (c->end - c->p < 6 || !hex4(c->p + 2)))
				return false;
			c->p += c->p[1] == 'u' ? 5 : 1;
		}
		w->plain = w->plain && b < 0x7f;
	}
	if (c->p >= c->end)
		return false;
	w->len = (size_t)(c->p - w->s);
	c->p++;
	blanks(c);
	return true;
}

static bool is(const struct word *w, const char *s)
{
	return w->plain && w->len == strlen(s) && memcmp(w->s, s, w->len) == 0;
}

static size_t digits(struct scan *c)
{
	size_t n = 0;

	for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
		n++;
	return n;
}

static bool number(struct scan *c)
{
	c->p += *c->p == '-';
	const char *first = c->p;
	size_t n = digits(c);
	if (n == 0 || (n > 1 && *first == '0'))
		return false;
	if (c->p < c->end && *c->p == '.') {
		c->p++;
		if (digits(c) == 0)
			return false;
	}
	if (c->p < c->end && (*c->p == 'e' || *c->p == 'E')) {
		c->p++;
		c->p += c->p < c->end && (*c->p == '+' || *c->p == '-');
		if (digits(c) == 0)
			return false;
	}
	return true;
}

static bool literal(struct scan *c, const char *s)
{
	size_t n = strlen(s);

	if ((size_t)(c->end - c->p) < n || memcmp(c->p, s, n) != 0)
		return false;
	c->p += n;
	return true;
}

static bool value(struct scan *c, int depth)
{
	struct word w;

	blanks(c);
	if (c->p >= c->end || depth > DEPTH_MAX)
		return false;
	char first = *c->p, last = first == '{' ? '}' : ']';
	if (first == '"')
		return string(c, &w);
	if (first == '-' || (first >= '0' && first <= '9'))
		return number(c);
	if (first != '{' && first != '[')
		return literal(c, "true") || literal(c, "false") || literal(c, "null");
	c->p++;
	if (take(c, last))
		return true;
	do {
		if (first == '{' && (!string(c, &w) || !take(c, ':')))
			return false;
		if (!value(c, depth + 1))
			return false;
	} while (take(c, ','));
	return take(c, last);
}

/* One event; *what says what is wrong with it. */
static bool event(struct scan *c, const char **what)
{
	struct word key, type = {0};
	bool typed = false;

	*what = "that is not one JSON document of events";
	if (!take(c, '{'))
		return false;
	do {
		if (!string(c, &key) || !take(c, ':'))
			return false;
		if (!key.plain) {
			*what = "an event's keys must be plain words";
			return false;
		}
		if (key.len == 4 && strncasecmp(key.s, "type", 4) == 0) {
			*what = "an event must have one type";
			if (typed || !is(&key, "type") || !string(c, &type))
				return false;
			typed = true;
			*what = "that is not one JSON document of events";
		} else if (!value(c, 2)) {
			return false;
		}
	} while (take(c, ','));
	if (!take(c, '}'))
		return false;
	*what = "only results of tools (user.tool_result, user.custom_tool_result) may be posted from here";
	return typed && (is(&type, "user.tool_result") || is(&type, "user.custom_tool_result"));
}

int pf_results_check(const char *text, size_t len, struct pf_err *err)
{
	struct scan c = {.p = text, .end = text + len};
	const char *what = "that is not {\"events\": [...]}";
	struct word key;

	if (!pf_utf8_valid(text, len))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "that is not UTF-8");
	if (!take(&c, '{') || !string(&c, &key) || !is(&key, "events") || !take(&c, ':') || !take(&c, '['))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s", what);
	do
		if (!event(&c, &what))
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s", what);
	while (take(&c, ','));
	if (!take(&c, ']') || !take(&c, '}') || c.p != c.end)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "that is not one JSON document of events");
	return 0;
}
