#include "base/str.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

void pf_buf_done(struct pf_buf *b)
{
	int saved = errno;
	free(b->data);
	*b = (struct pf_buf){0};
	errno = saved;
}

static void reserve(struct pf_buf *b, size_t more)
{
	if (b->len + more + 1 <= b->cap)
		return;
	size_t cap = b->cap ? b->cap : 128;
	while (cap < b->len + more + 1)
		cap *= 2;
	b->data = must(realloc(b->data, cap));
	b->cap = cap;
}

void pf_buf_add(struct pf_buf *b, const void *data, size_t len)
{
	reserve(b, len);
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
}

void pf_buf_str(struct pf_buf *b, const char *s)
{
	pf_buf_add(b, s, strlen(s));
}

void pf_buf_printf(struct pf_buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		abort();
	reserve(b, (size_t)n);
	va_start(ap, fmt);
	vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

char *pf_asprintf(const char *fmt, ...)
{
	va_list ap;
	char *s = NULL;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) < 0)
		abort();
	va_end(ap);
	return s;
}

char *pf_strdup(const char *s)
{
	return must(strdup(s));
}

void *pf_grow(void *v, size_t n, size_t *cap, size_t size)
{
	if (n < *cap)
		return v;
	*cap = *cap ? *cap * 2 : 64;
	return must(reallocarray(v, *cap, size));
}

void *pf_calloc(size_t n, size_t size)
{
	return must(calloc(n ? n : 1, size ? size : 1));
}

bool pf_starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool pf_ends_with(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);
	return n >= m && strcmp(s + n - m, suffix) == 0;
}

bool pf_utf8_valid(const char *s, size_t len)
{
	static const unsigned least[] = {0, 0x80, 0x800, 0x10000};
	const unsigned char *p = (const unsigned char *)s, *end = p + len;

	while (p < end) {
		unsigned c = *p++, more = c < 0x80                ? 0
					  : c >= 0xc2 && c < 0xe0 ? 1
					  : c >= 0xe0 && c < 0xf0 ? 2
					  : c >= 0xf0 && c < 0xf5 ? 3
								  : 4;
		if (more == 0)
			continue;
		if (more == 4 || (size_t)(end - p) < more)
			return false;
		c &= 0x3fU >> more;
		for (unsigned i = 0; i < more; i++, p++) {
			if ((*p & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*p & 0x3fU);
		}
		if (c < least[more] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
			return false;
	}
	return true;
}

static bool id_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
	       c == '+' || c == '-' || c == '.';
}

int pf_check_id(const char *what, const char *id, struct pf_err *err)
{
	size_t n = id ? strlen(id) : 0;

	if (n == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s is empty", what);
	if (n > 128)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s is longer than 128 bytes", what);
	for (size_t i = 0; i < n; i++)
		if (!id_char(id[i]) || (i == 0 && id[i] == '.'))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s '%.128s' may hold only letters, digits, '_', '+', '-' and '.', and not "
				"begin "
				"with '.'",
				what, id);
	return 0;
}

/* Levenshtein distance with one row; words here are short keys. */
static size_t distance(const char *a, const char *b)
{
	size_t row[65];
	size_t n = strlen(a), m = strlen(b);

	if (n > 64 || m > 64)
		return SIZE_MAX;
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t diag = row[0];
		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t up = row[j];
			size_t best = diag + (a[i - 1] == b[j - 1] ? 0 : 1);
			if (up + 1 < best)
				best = up + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
			diag = up;
		}
	}
	return row[m];
}

const char *pf_nearest(const char *word, const char *const *list)
{
	const char *best = NULL;
	size_t limit = strlen(word) / 3 + 1, best_d = limit + 1;

	for (; *list; list++) {
		size_t d = distance(word, *list);
		if (d < best_d) {
			best_d = d;
			best = *list;
		}
	}
	return best_d <= limit ? best : NULL;
}

bool pf_is_control(const char *s, size_t len, size_t i)
{
	unsigned char c = (unsigned char)s[i], next = i + 1 < len ? (unsigned char)s[i + 1] : 0;
	unsigned char before = i > 0 ? (unsigned char)s[i - 1] : 0;

	return c < 0x20 || c == 0x7f || (c == 0xc2 && next >= 0x80 && next < 0xa0) ||
	       (before == 0xc2 && c >= 0x80 && c < 0xa0);
}

void pf_one_line(char *s)
{
	for (size_t i = 0, len = strlen(s); i < len; i++) {
		if (!pf_is_control(s, len, i))
			continue;
		bool pair = (unsigned char)s[i] == 0xc2;
		s[i] = s[i] == '\n' || s[i] == '\t' ? ' ' : '?';
		if (pair)
			s[++i] = '?';
	}
}

void pf_quote_name(struct pf_buf *out, const char *prefix, const char *s, size_t len)
{
	bool plain = pf_utf8_valid(s, len);

	for (size_t i = 0; i < len; i++)
		plain = plain && !pf_is_control(s, len, i) && s[i] != '"' && s[i] != '\\';
	if (!plain)
		pf_buf_str(out, "\"");
	pf_buf_str(out, prefix);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];
		if (plain || (c >= 0x20 && c < 0x7f && c != '"' && c != '\\'))
			pf_buf_add(out, &s[i], 1);
		else if (c == '"' || c == '\\')
			pf_buf_printf(out, "\\%c", c);
		else
			pf_buf_printf(out, "\\%03o", c);
	}
	if (!plain)
		pf_buf_str(out, "\"");
}
