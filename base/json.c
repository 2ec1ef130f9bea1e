#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"

#define MAX_DOCUMENT ((size_t)8 << 20)

void pf_json_cleanup(cJSON **j)
{
	int saved = errno;
	cJSON_Delete(*j);
	errno = saved;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A reader that takes the first of two equal keys and a reader that takes the last would disagree about the
 * same document, so there may be only one. Sorted, because a hostile document may hold a million keys. */
static int check_keys(const char *what, const cJSON *obj, struct pf_err *err)
{
	size_t n = (size_t)cJSON_GetArraySize(obj), i = 0;

	if (n < 2)
		return 0;
	PF_FREE const char **keys = pf_calloc(n, sizeof(*keys));
	for (const cJSON *c = obj->child; c; c = c->next)
		keys[i++] = c->string;
	qsort(keys, n, sizeof(*keys), by_text);
	for (i = 1; i < n; i++)
		if (strcmp(keys[i - 1], keys[i]) == 0)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "%s: key '%.100s' is given twice", what, keys[i]);
	return 0;
}

static int check_tree(const char *what, const cJSON *j, int depth, struct pf_err *err)
{
	if (depth > 64)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: JSON nests deeper than 64 levels", what);
	if (cJSON_IsObject(j) && check_keys(what, j, err) < 0)
		return -1;
	for (const cJSON *c = j->child; c; c = c->next)
		if (check_tree(what, c, depth + 1, err) < 0)
			return -1;
	return 0;
}

/* Whether text holds an escaped NUL. cJSON would end the string there, and "evil\u0000.example" be taken for
 * "evil". A backslash can only stand within a string, so pairs are all there is to look at. */
static bool has_escaped_nul(const char *text, size_t len)
{
	for (const char *p = text; (p = memchr(p, '\\', len - (size_t)(p - text)));) {
		if (strncmp(p, "\\u0000", 6) == 0)
			return true;
		if (p[1] == '\0')
			return false;
		p += 2;
	}
	return false;
}

cJSON *pf_json_parse(const char *what, const char *text, size_t len, struct pf_err *err)
{
	const char *end = NULL;
	PF_JSON cJSON *j = NULL;

	if (memchr(text, '\0', len)) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: NUL byte in JSON", what);
		return NULL;
	}
	if (has_escaped_nul(text, len)) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: \\u0000 in JSON", what);
		return NULL;
	}
	if (!pf_utf8_valid(text, len)) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: JSON must be UTF-8", what);
		return NULL;
	}
	j = cJSON_ParseWithLengthOpts(text, len + 1, &end, true);
	if (!j) {
		size_t at = end && end >= text && end <= text + len ? (size_t)(end - text) : 0, line = 1;
		for (size_t i = 0; i < at; i++)
			line += text[i] == '\n';
		pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s: not valid JSON at byte %zu (line %zu)", what, at, line);
		return NULL;
	}
	if (check_tree(what, j, 0, err) < 0)
		return NULL;
	return pf_take(j);
}

cJSON *pf_json_load(const char *path, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	size_t len;

	if (strcmp(path, "-") == 0) {
		struct pf_buf b = {0};
		char chunk[65536];
		ssize_t n;
		while ((n = pf_read_full(STDIN_FILENO, chunk, sizeof(chunk))) > 0) {
			pf_buf_add(&b, chunk, (size_t)n);
			if (b.len > MAX_DOCUMENT) {
				pf_buf_done(&b);
				pf_fail_kind(err, PF_ERR_INVALID, EFBIG, "standard input");
				return NULL;
			}
		}
		pf_buf_add(&b, "", 0);
		text = b.data;
		len = b.len;
		path = "standard input";
	} else if (pf_read_file_at(AT_FDCWD, path, MAX_DOCUMENT, &text, &len, err) < 0) {
		return NULL;
	}
	return pf_json_parse(path, text, len, err);
}

static int type_error(const char *where, const char *key, const char *expected, struct pf_err *err)
{
	return pf_fail_kind(
		err, PF_ERR_INVALID, 0, "%s%s%s: must be %s", where, *where ? "." : "", key, expected);
}

static const cJSON *member(const cJSON *obj, const char *key)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(obj, key);
	return m && !cJSON_IsNull(m) ? m : NULL;
}

int pf_json_str(const cJSON *obj, const char *where, const char *key, const char **out, struct pf_err *err)
{
	const cJSON *m = member(obj, key);

	if (!m)
		return 0;
	if (!cJSON_IsString(m))
		return type_error(where, key, "a string", err);
	*out = m->valuestring;
	return 1;
}

int pf_json_bool(const cJSON *obj, const char *where, const char *key, bool *out, struct pf_err *err)
{
	const cJSON *m = member(obj, key);

	if (!m)
		return 0;
	if (!cJSON_IsBool(m))
		return type_error(where, key, "true or false", err);
	*out = cJSON_IsTrue(m);
	return 1;
}

/* Beyond 2^53 a double has no fraction; below it, it fits an int64_t. (floor() is libm's, which takes 0.03 ms
 * to load.) */
static bool is_whole(double d)
{
	return d >= 9007199254740992.0 || d <= -9007199254740992.0 || (double)(int64_t)d == d;
}

int pf_json_int(const cJSON *obj, const char *where, const char *key, int64_t min, int64_t max, int64_t *out,
	struct pf_err *err)
{
	const cJSON *m = member(obj, key);
	char expected[96];

	if (!m)
		return 0;
	/* Doubles hold every integer up to 2^53; beyond that the saturated ends are compared as doubles.
	 * Where anything goes, so do unsigned numbers that we cannot hold: 2^64 - 1 is how "no limit" is
	 * written. */
	double top = max == INT64_MAX ? 18446744073709551616.0 : (double)max;
	if (!cJSON_IsNumber(m) || !is_whole(m->valuedouble) || m->valuedouble < (double)min ||
		m->valuedouble > top) {
		snprintf(expected, sizeof(expected), "a whole number from %" PRId64 " to %" PRId64, min, max);
		return type_error(where, key, expected, err);
	}
	*out = m->valuedouble >= 9223372036854775807.0 ? max : (int64_t)m->valuedouble;
	return 1;
}

int pf_json_obj(const cJSON *obj, const char *where, const char *key, const cJSON **out, struct pf_err *err)
{
	const cJSON *m = member(obj, key);

	if (!m)
		return 0;
	if (!cJSON_IsObject(m))
		return type_error(where, key, "an object", err);
	*out = m;
	return 1;
}

int pf_json_arr(const cJSON *obj, const char *where, const char *key, const cJSON **out, struct pf_err *err)
{
	const cJSON *m = member(obj, key);

	if (!m)
		return 0;
	if (!cJSON_IsArray(m))
		return type_error(where, key, "an array", err);
	*out = m;
	return 1;
}

int pf_json_strv(const cJSON *obj, const char *where, const char *key, char ***out, struct pf_err *err)
{
	const cJSON *arr = NULL, *c;
	int r = pf_json_arr(obj, where, key, &arr, err);

	if (r <= 0)
		return r;
	size_t n = 0;
	for (c = arr->child; c; c = c->next, n++)
		if (!cJSON_IsString(c))
			return type_error(where, key, "an array of strings", err);
	char **v = pf_calloc(n + 1, sizeof(*v));
	n = 0;
	for (c = arr->child; c; c = c->next)
		v[n++] = pf_strdup(c->valuestring);
	*out = v;
	return 1;
}

int pf_json_unknown(const char *where, const char *key, const char *const *keys, struct pf_err *err)
{
	const char *near = pf_nearest(key, keys);

	return pf_fail_kind(err, PF_ERR_INVALID, 0, "unknown key '%s%s%.100s'%s%s%s", where,
		*where ? "." : "", key, near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
}

int pf_json_known(const cJSON *obj, const char *where, const char *const *keys, struct pf_err *err)
{
	for (const cJSON *c = obj->child; c; c = c->next) {
		const char *const *k = keys;
		while (*k && strcmp(*k, c->string) != 0)
			k++;
		if (!*k)
			return pf_json_unknown(where, c->string, keys, err);
	}
	return 0;
}

void pf_strv_free(char **v)
{
	if (!v)
		return;
	for (char **p = v; *p; p++)
		free(*p);
	free(v);
}

size_t pf_strv_len(char *const *v)
{
	size_t n = 0;
	while (v && v[n])
		n++;
	return n;
}

char *pf_json_text(const cJSON *j)
{
	char *s = cJSON_PrintUnformatted(j);
	if (!s)
		abort();
	return s;
}

void pf_json_add_int(cJSON *obj, const char *key, int64_t v)
{
	char text[32];

	/* As far as cJSON prints a double with all its digits; so that what was built can be read like what
	 * was parsed. */
	if (v > -1000000000000000 && v < 1000000000000000) {
		cJSON_AddNumberToObject(obj, key, (double)v);
		return;
	}
	snprintf(text, sizeof(text), "%" PRId64, v);
	cJSON_AddRawToObject(obj, key, text);
}

void pf_json_add_bytes(cJSON *j, const char *key, const char *text, size_t len)
{
	/* JSON text is UTF-8; bytes that are not become U+FFFD, and a flag says so. */
	PF_BUF struct pf_buf b = {0};
	bool replaced = false;

	pf_buf_add(&b, "", 0);
	for (size_t i = 0; i < len;) {
		unsigned char c = (unsigned char)text[i];
		size_t n = c < 0x80                ? 1
			   : c >= 0xc2 && c < 0xe0 ? 2
			   : c >= 0xe0 && c < 0xf0 ? 3
			   : c >= 0xf0 && c < 0xf5 ? 4
						   : 0;
		bool ok = n > 0 && i + n <= len && c != 0;
		for (size_t k = 1; ok && k < n; k++)
			ok = ((unsigned char)text[i + k] & 0xc0) == 0x80;
		/* Overlong forms, surrogates and what lies beyond U+10FFFF. */
		unsigned char d = n > 1 && i + 1 < len ? (unsigned char)text[i + 1] : 0;
		if (ok && ((c == 0xe0 && d < 0xa0) || (c == 0xed && d > 0x9f) || (c == 0xf0 && d < 0x90) ||
				  (c == 0xf4 && d > 0x8f)))
			ok = false;
		if (ok) {
			pf_buf_add(&b, text + i, n);
			i += n;
		} else {
			pf_buf_str(&b, "\xef\xbf\xbd");
			replaced = true;
			i++;
		}
	}
	cJSON_AddStringToObject(j, key, b.data);
	if (replaced) {
		char *flag = pf_asprintf("%s_not_utf8", key);
		cJSON_AddTrueToObject(j, flag);
		free(flag);
	}
}

void pf_json_quoted(struct pf_buf *out, const char *s)
{
	static const char hex[] = "0123456789abcdef";
	size_t len = strlen(s), plain = 0;
	bool utf8 = pf_utf8_valid(s, len);

	pf_buf_add(out, "\"", 1);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];
		if (c >= ' ' && c != '"' && c != '\\' && c != 0x7f && (c < 0x80 || utf8))
			continue;
		pf_buf_add(out, s + plain, i - plain);
		plain = i + 1;
		if (c == '"' || c == '\\') {
			const char escaped[2] = {'\\', (char)c};
			pf_buf_add(out, escaped, 2);
		} else if (c < 0x80) {
			const char escaped[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
			pf_buf_add(out, escaped, 6);
		} else {
			pf_buf_str(out, "\xef\xbf\xbd");
		}
	}
	pf_buf_add(out, s + plain, len - plain);
	pf_buf_add(out, "\"", 1);
}
