#include "netpolicy/refusal.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "netpolicy/http.h"

static bool wants_json(const char *head, size_t len)
{
	struct pf_http_line line;
	size_t at = 0;

	while (pf_http_next(head, len, &at, &line))
		if (pf_http_is(&line, "Accept"))
			return memmem(line.value, line.value_len, "json", 4) != NULL;
	return false;
}

static const char *phrase(int status)
{
	switch (status) {
	case 429:
		return "Too Many Requests";
	case 431:
		return "Request Header Fields Too Large";
	case 502:
		return "Bad Gateway";
	default:
		return "Forbidden";
	}
}

size_t pf_refusal_write(
	const struct pf_refusal *r, const char *head, size_t head_len, char out[PF_REFUSAL_MAX])
{
	PF_FREE char *body = NULL;
	char message[700], retry[40] = "";
	bool json = wants_json(head, head_len);

	if (r->text)
		snprintf(message, sizeof(message), "%.600s", r->text);
	else
		snprintf(message, sizeof(message),
			"%.300s:%u is denied by this sandbox's network policy (%s).\nAsk for it to be added "
			"to "
			"allowed_hosts if it is needed.",
			r->host, r->port, r->reason);
	if (r->retry_s)
		snprintf(retry, sizeof(retry), "Retry-After: %lld\r\n", (long long)r->retry_s);
	if (json) {
		PF_JSON cJSON *j = cJSON_CreateObject();
		cJSON_AddStringToObject(j, "error", "egress_denied");
		cJSON_AddStringToObject(j, "reason", r->reason);
		cJSON_AddStringToObject(j, "host", r->host);
		pf_json_add_int(j, "port", r->port);
		pf_json_add_int(j, "policy_revision", (int64_t)r->revision);
		cJSON_AddStringToObject(j, "message", message);
		PF_FREE char *text = pf_json_text(j);
		body = pf_asprintf("%s\n", text);
	} else {
		body = pf_asprintf("%s\n", message);
	}
	int n = snprintf(out, PF_REFUSAL_MAX,
		"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sConnection: close\r\n\r\n%s",
		r->status, phrase(r->status), json ? "application/json" : "text/plain", strlen(body), retry,
		body);
	return n < PF_REFUSAL_MAX ? (size_t)n : PF_REFUSAL_MAX - 1;
}
