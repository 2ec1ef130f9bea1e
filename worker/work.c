/* Theory of operation: the contract's documents.
 *
 * What the control plane sends is read leniently: unknown members, types and states are passed over, because
 * they come with every release of the platform. What becomes a path here (ids) is checked. */

#include "worker/work.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char *member(const cJSON *j, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
}

cJSON *pf_json_lenient(const char *text, size_t len)
{
	PF_BUF struct pf_buf b = {0};
	size_t from = 0;

	for (size_t i = 0; i + 1 < len; i++) {
		if (text[i] != '\\')
			continue;
		if (i + 6 <= len && memcmp(text + i, "\\u0000", 6) == 0) {
			pf_buf_add(&b, text + from, i - from);
			pf_buf_str(&b, "\\udbff\\udfff");
			from = i + 6;
			i += 5;
		} else {
			i++;
		}
	}
	if (from == 0)
		return text ? cJSON_ParseWithLength(text, len) : NULL;
	pf_buf_add(&b, text + from, len - from);
	return cJSON_ParseWithLength(b.data, b.len);
}

char *pf_json_nul(const char *s, size_t *len)
{
	struct pf_buf b = {0};
	const char *nul;

	pf_buf_str(&b, "");
	for (; (nul = strstr(s, PF_JSON_NUL)); s = nul + 4) {
		pf_buf_add(&b, s, (size_t)(nul - s));
		pf_buf_add(&b, "", 1);
	}
	pf_buf_str(&b, s);
	*len = b.len;
	return b.data;
}

/* base64url, padding or none. malloc'ed, NULL when it is something else. */
static char *decode_base64url(const char *s)
{
	size_t n = 0, len = strlen(s);
	char *out = pf_calloc(len + 1, 1);
	uint32_t bits = 0;
	int have = 0;

	for (; *s && *s != '='; s++) {
		uint32_t v;
		if (*s >= 'A' && *s <= 'Z')
			v = (uint32_t)(*s - 'A');
		else if (*s >= 'a' && *s <= 'z')
			v = (uint32_t)(*s - 'a') + 26;
		else if (*s >= '0' && *s <= '9')
			v = (uint32_t)(*s - '0') + 52;
		else if (*s == '-' || *s == '+')
			v = 62;
		else if (*s == '_' || *s == '/')
			v = 63;
		else {
			free(out);
			return NULL;
		}
		bits = bits << 6 | v;
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[n++] = (char)(unsigned char)(bits >> have);
		}
	}
	return out;
}

/* The session's token out of the secret, which is never quoted in an error. */
static int read_secret(const char *secret, struct pf_work *w, struct pf_err *err)
{
	char *text = decode_base64url(secret);
	cJSON *j = text ? cJSON_Parse(text) : NULL;
	const char *token = member(j, "sessions_token");
	int r = 0;

	if (token && *token && !strpbrk(token, "\r\n"))
		w->token = pf_strdup(token);
	else if (!cJSON_IsObject(j) || token)
		r = pf_fail_kind(err, PF_ERR_INVALID, 0, "the secret of work item %s cannot be read", w->id);
	cJSON_Delete(j);
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
	return r;
}

static int fill(const cJSON *j, struct pf_work *w, struct pf_err *err)
{
	const cJSON *data = cJSON_GetObjectItemCaseSensitive(j, "data");
	const char *env = member(j, "environment_id"), *type = member(data, "type"),
		   *sid = member(data, "id"), *secret = member(j, "secret");

	w->id = pf_strdup(member(j, "id"));
	if (pf_check_id("work item", w->id, err) < 0 ||
		(env && *env && pf_check_id("environment", env, err) < 0))
		return -1;
	w->environment_id = env && *env ? pf_strdup(env) : NULL;
	if (!type || strcmp(type, "session") != 0)
		return 0;
	if (pf_check_id("session", sid, err) < 0 || !sid)
		return -1;
	/* pinfold would take it for an option; the platform has none such. */
	if (*sid == '-')
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "session '%s' begins with '-'", sid);
	w->session_id = pf_strdup(sid);
	return secret && *secret ? read_secret(secret, w, err) : 0;
}

int pf_work_parse(const char *text, size_t len, struct pf_work *w, struct pf_err *err)
{
	*w = (struct pf_work){0};
	if (len == 0)
		return 0;
	cJSON *j = cJSON_ParseWithLength(text, len);
	int r = 0;
	if (!j || (!cJSON_IsNull(j) && !cJSON_IsObject(j)))
		r = pf_fail_kind(err, PF_ERR_INVALID, 0, "that is no work item");
	else if (cJSON_IsObject(j) && member(j, "id") && *member(j, "id"))
		r = fill(j, w, err) < 0 ? -1 : 1;
	cJSON_Delete(j);
	if (r < 0)
		pf_work_done(w);
	return r;
}

void pf_work_done(struct pf_work *w)
{
	if (w->token)
		explicit_bzero(w->token, strlen(w->token));
	free(w->token);
	free(w->id);
	free(w->environment_id);
	free(w->session_id);
	*w = (struct pf_work){0};
}

/* How many bytes at s are one character, or 0 with *bad bytes to be replaced by one U+FFFD: the longest
 * prefix that could have begun one, as the WHATWG decoder counts. */
static size_t utf8_step(const unsigned char *s, size_t len, size_t *bad)
{
	unsigned char lo = 0x80, hi = 0xbf;
	size_t need;

	*bad = 1;
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		need = 1;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		need = 2;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		need = 3;
	else
		return 0;
	if (s[0] == 0xe0)
		lo = 0xa0;
	if (s[0] == 0xed)
		hi = 0x9f;
	if (s[0] == 0xf0)
		lo = 0x90;
	if (s[0] == 0xf4)
		hi = 0x8f;
	for (size_t i = 1; i <= need; i++) {
		if (i >= len || s[i] < lo || s[i] > hi) {
			*bad = i;
			return 0;
		}
		lo = 0x80;
		hi = 0xbf;
	}
	return need + 1;
}

void pf_json_quote(struct pf_buf *b, const char *data, size_t len)
{
	const unsigned char *s = (const unsigned char *)data;
	size_t bad, step;

	pf_buf_add(b, "\"", 1);
	for (size_t i = 0; i < len; i += step) {
		step = utf8_step(s + i, len - i, &bad);
		if (step == 0) {
			pf_buf_str(b, "\xef\xbf\xbd");
			step = bad;
		} else if (s[i] == '"' || s[i] == '\\') {
			pf_buf_printf(b, "\\%c", s[i]);
		} else if (s[i] == '\n') {
			pf_buf_str(b, "\\n");
		} else if (s[i] < 0x20) {
			pf_buf_printf(b, "\\u%04x", s[i]);
		} else {
			pf_buf_add(b, s + i, step);
		}
	}
	pf_buf_add(b, "\"", 1);
}

char *pf_result_body(const char *call_id, bool custom, bool is_error, const char *text, size_t len)
{
	struct pf_buf b = {0};

	pf_buf_printf(&b,
		"{\"events\":[{\"type\":\"user.%stool_result\",\"%stool_use_id\":", custom ? "custom_" : "",
		custom ? "custom_" : "");
	pf_json_quote(&b, call_id, strlen(call_id));
	pf_buf_printf(&b,
		",\"is_error\":%s,\"content\":[{\"type\":\"text\",\"text\":", is_error ? "true" : "false");
	if (len)
		pf_json_quote(&b, text, len);
	else
		pf_buf_str(&b, "\"(no output)\"");
	pf_buf_str(&b, "}]}]}");
	return b.data;
}
