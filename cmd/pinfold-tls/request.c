/* One request: what its first line says, whether the rule of its host has it, and its line in the log. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "cmd/pinfold-tls/tls.h"

void request_read(struct request *r, const char *head, size_t len)
{
	struct pf_http_line line = {0};
	size_t at = 0;

	if (!pf_http_next(head, len, &at, &line))
		return;
	const char *end = line.name + line.name_len, *p = memchr(line.name, ' ', line.name_len);
	r->method = line.name;
	r->method_len = p ? (size_t)(p - line.name) : line.name_len;
	/* As servers do, and sniff.c did. */
	while (p && p < end && *p == ' ')
		p++;
	r->target = p ? p : end;
	p = memchr(r->target, ' ', (size_t)(end - r->target));
	r->target_len = (size_t)((p ? p : end) - r->target);
	/* An absolute target names the host once more (sniff.c made sure that it is the same): scopes are
	 * about what comes after it. */
	p = memmem(r->target, r->target_len, "://", 3);
	if (r->target_len && r->target[0] != '/' && p) {
		const char *stop = r->target + r->target_len;
		/* Without a path it is '?' or '#' that ends the host, and no path of a scope. */
		p += 3;
		while (p < stop && *p != '/' && *p != '?' && *p != '#')
			p++;
		r->target = p;
		r->target_len = (size_t)(stop - p);
	}
}

void request_no_room(struct request *r)
{
	r->status = 429;
	r->reason = "rate";
	r->retry_s = 1;
	snprintf(r->text, sizeof(r->text), "Too many bodies wait for a credential at a time.");
}

bool request_judge(struct tls *t, struct request *r)
{
	const struct pf_rule *rule = NULL, *all;
	size_t n;
	enum pf_verdict v = pf_policy_host(t->policy, r->name, r->port, &rule);

	if (v != PF_VERDICT_ALLOW) {
		r->reason = pf_verdict_reason(v);
		return false;
	}
	if (!rule->scope)
		return true;
	if (!pf_scope_method(rule->scope, r->method, r->method_len)) {
		r->reason = "method";
		snprintf(r->text, sizeof(r->text),
			"%.*s is not among the methods that this sandbox's network policy allows for %.200s.",
			(int)(r->method_len < 32 ? r->method_len : 32), r->method, r->name);
		return false;
	}
	if (!pf_scope_path(rule->scope, r->target, r->target_len)) {
		r->reason = "path";
		snprintf(r->text, sizeof(r->text),
			"This path is not among those that this sandbox's network policy allows for %.200s.",
			r->name);
		return false;
	}
	all = pf_policy_rules(t->policy, &n);
	int64_t wait = pf_quota_take(&t->rule_quotas[rule - all], rule->scope->requests_per_hour);
	if (wait) {
		r->status = 429;
		r->reason = "rate";
		r->retry_s = wait;
		snprintf(r->text, sizeof(r->text),
			"This sandbox's network policy allows %lld requests an hour for %.200s.",
			(long long)rule->scope->requests_per_hour, r->name);
		return false;
	}
	return true;
}

void request_report(
	struct tls *t, int64_t id, const struct request *r, const char *verdict, const char *reason)
{
	PF_BUF struct pf_buf msg = {0};
	size_t path = r->target_len;
	char text[260];

	/* Without the query: it may hold what is nobody else's business. */
	for (size_t i = 0; i < r->target_len; i++)
		if (r->target[i] == '?' || r->target[i] == '#') {
			path = i;
			break;
		}
	/* By hand: there is one for each request. */
	pf_buf_printf(&msg,
		"{\"op\":\"request\",\"id\":%lld,\"verdict\":\"%s\",\"reason\":\"%s\",\"method\":",
		(long long)id, verdict, reason);
	snprintf(text, sizeof(text), "%.*s", (int)(r->method_len < 32 ? r->method_len : 32), r->method);
	pf_json_quoted(&msg, text);
	/* A path that is no UTF-8 would make no JSON. */
	snprintf(text, sizeof(text), "%.*s", (int)(path < 256 ? path : 256), r->target);
	for (char *p = text; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	pf_buf_str(&msg, ",\"path\":");
	pf_json_quoted(&msg, text);
	if (r->used) {
		pf_buf_str(&msg, ",\"credential\":");
		pf_json_quoted(&msg, r->used);
	}
	pf_buf_str(&msg, "}");
	tls_send_text(t, msg.data);
}
