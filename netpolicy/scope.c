#include "netpolicy/scope.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"

#define HOUR_US 3600000000LL
#define MAX_LIST 256

void pf_scope_done(struct pf_scope *s)
{
	pf_strv_free(s->methods);
	pf_strv_free(s->paths);
	*s = (struct pf_scope){0};
}

static bool is_token(const char *s)
{
	for (const char *p = s; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_')
			return false;
	return *s && strlen(s) <= 32;
}

static int check_list(char *const *list, const char *where, const char *key, struct pf_err *err)
{
	if (!list[0])
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s.%s: is empty; leave it out for all", where, key);
	if (pf_strv_len(list) > MAX_LIST)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s.%s: more than %d entries", where, key, MAX_LIST);
	return 0;
}

int pf_scope_read(const cJSON *obj, const char *where, struct pf_scope *s, struct pf_err *err)
{
	*s = (struct pf_scope){0};
	if (pf_json_strv(obj, where, "methods", &s->methods, err) < 0 ||
		pf_json_strv(obj, where, "paths", &s->paths, err) < 0 ||
		pf_json_int(obj, where, "max_requests_per_hour", 1, 1000000000, &s->requests_per_hour, err) <
			0 ||
		(s->methods && check_list(s->methods, where, "methods", err) < 0) ||
		(s->paths && check_list(s->paths, where, "paths", err) < 0))
		goto failed;
	for (char **m = s->methods; m && *m; m++) {
		if (!is_token(*m)) {
			pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.methods: '%.64s' is no method", where, *m);
			goto failed;
		}
		for (char *c = *m; *c; c++)
			*c = (char)toupper((unsigned char)*c);
	}
	for (char **p = s->paths; p && *p; p++)
		if (**p != '/' && strncmp(*p, "**", 2) != 0) {
			pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s.paths: '%.64s': a pattern begins with '/' or '**'", where, *p);
			goto failed;
		}
	return 0;
failed:
	pf_scope_done(s);
	return -1;
}

bool pf_scope_is_empty(const struct pf_scope *s)
{
	return !s->methods && !s->paths && !s->requests_per_hour;
}

bool pf_scope_method(const struct pf_scope *s, const char *method, size_t len)
{
	if (!s->methods)
		return true;
	/* Methods are case-sensitive, and servers that are not would be led to another one. */
	for (char **m = s->methods; *m; m++)
		if (strlen(*m) == len && memcmp(*m, method, len) == 0)
			return true;
	return false;
}

/* One pass with a way back to the last "**" and, within its segment, the last "*": linear in practice, and
 * never worse than the product of both lengths. */
bool pf_scope_glob(const char *pattern, const char *s, size_t len)
{
	const char *p = pattern, *end = s + len;
	const char *star = NULL, *star_s = NULL, *deep = NULL, *deep_s = NULL;

	while (s < end) {
		if (p[0] == '*' && p[1] == '*') {
			deep = p += 2;
			deep_s = s;
			star = NULL;
		} else if (*p == '*') {
			star = ++p;
			star_s = s;
		} else if (*p == *s && *p) {
			p++, s++;
		} else if (star && *star_s != '/') {
			p = star;
			s = ++star_s;
		} else if (deep) {
			p = deep;
			s = ++deep_s;
			star = NULL;
		} else {
			return false;
		}
	}
	while (*p == '*')
		p++;
	return *p == '\0';
}

static bool is_plain(const char *path, size_t len)
{
	static const char *const odd[] = {"//", "/./", "/../", "%2f", "%5c", "%2e", "%00", "\\", ";", "#"};

	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)path[i] <= ' ' || path[i] == 0x7f)
			return false;
		for (size_t k = 0; k < sizeof(odd) / sizeof(*odd); k++)
			if (strlen(odd[k]) <= len - i && strncasecmp(path + i, odd[k], strlen(odd[k])) == 0)
				return false;
	}
	return !(len >= 2 && memcmp(path + len - 2, "/.", 2) == 0) &&
	       !(len >= 3 && memcmp(path + len - 3, "/..", 3) == 0);
}

bool pf_scope_path(const struct pf_scope *s, const char *target, size_t len)
{
	if (!s->paths)
		return true;
	const char *query = memchr(target, '?', len);
	if (query)
		len = (size_t)(query - target);
	if (len == 0 || target[0] != '/' || !is_plain(target, len))
		return false;
	for (char **p = s->paths; *p; p++)
		if (pf_scope_glob(*p, target, len))
			return true;
	return false;
}

int64_t pf_quota_take(struct pf_quota *q, int64_t per_hour)
{
	int64_t now = pf_now_us();

	if (!per_hour)
		return 0;
	if (!q->began || now - q->began >= HOUR_US)
		*q = (struct pf_quota){.began = now};
	if (q->used >= per_hour)
		return (q->began + HOUR_US - now) / 1000000 + 1;
	q->used++;
	return 0;
}
