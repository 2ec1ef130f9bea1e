#include "netpolicy/creds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"

#define MAX_CREDENTIALS 256

void pf_creds_done(struct pf_creds *c)
{
	for (size_t i = 0; i < c->n; i++) {
		struct pf_cred *k = &c->list[i];
		for (size_t h = 0; h < k->n_hosts; h++)
			pf_entry_done(&k->hosts[h]);
		free(k->hosts);
		free(k->name);
		free(k->scope_text);
		pf_strv_free(k->headers);
		pf_scope_done(&k->scope);
	}
	free(c->list);
	*c = (struct pf_creds){0};
}

static int read_hosts(const cJSON *j, const char *where, struct pf_cred *k, struct pf_err *err)
{
	const cJSON *hosts = NULL;
	char at[160];

	if (pf_json_arr(j, where, "hosts", &hosts, err) < 0)
		return -1;
	size_t n = hosts ? (size_t)cJSON_GetArraySize(hosts) : 0;
	if (n == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.hosts: is missing or empty", where);
	k->hosts = pf_calloc(n, sizeof(*k->hosts));
	for (const cJSON *h = hosts->child; h; h = h->next) {
		struct pf_entry *e = &k->hosts[k->n_hosts];
		snprintf(at, sizeof(at), "%.100s.hosts[%zu]", where, k->n_hosts);
		if (!cJSON_IsString(h))
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: expected a string", at);
		k->n_hosts++;
		if (pf_entry_parse_text(h->valuestring, at, e, err) < 0)
			return -1;
		if (e->is_cidr)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s: a credential is bound to names, which certificates can prove, not to "
				"addresses",
				at);
	}
	return 0;
}

static int read_one(const cJSON *j, struct pf_cred *k, struct pf_err *err)
{
	const char *name = NULL, *placeholder = NULL, *scope = NULL;
	char where[160];

	if (pf_json_str(j, "credentials", "name", &name, err) < 0)
		return -1;
	if (!name)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "credentials: one has no name");
	k->name = pf_strdup(name);
	k->header = true;
	snprintf(where, sizeof(where), "credentials.%.100s", name);
	if (pf_json_str(j, where, "placeholder", &placeholder, err) < 0 ||
		pf_json_str(j, where, "scope", &scope, err) < 0 || read_hosts(j, where, k, err) < 0 ||
		pf_json_bool(j, where, "header", &k->header, err) < 0 ||
		pf_json_strv(j, where, "headers", &k->headers, err) < 0 ||
		pf_json_bool(j, where, "body", &k->body, err) < 0 ||
		pf_json_int(j, where, "expires", 0, INT64_MAX / 2, &k->expires, err) < 0 ||
		pf_scope_read(j, where, &k->scope, err) < 0)
		return -1;
	k->scope_text = scope ? pf_strdup(scope) : NULL;
	if (!placeholder || strlen(placeholder) != PF_PLACEHOLDER_LEN ||
		!pf_starts_with(placeholder, PF_PLACEHOLDER_PREFIX))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: has no placeholder", where);
	strcpy(k->placeholder, placeholder);
	return 0;
}

int pf_creds_read(const cJSON *list, struct pf_creds *out, struct pf_err *err)
{
	size_t n = list ? (size_t)cJSON_GetArraySize(list) : 0;

	*out = (struct pf_creds){0};
	if (n == 0)
		return 0;
	if (n > MAX_CREDENTIALS)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "credentials: more than %d", MAX_CREDENTIALS);
	out->list = pf_calloc(n, sizeof(*out->list));
	for (const cJSON *j = list->child; j; j = j->next)
		if (read_one(j, &out->list[out->n++], err) < 0) {
			pf_creds_done(out);
			return -1;
		}
	return 0;
}

bool pf_cred_bound(const struct pf_cred *c, const char *name, uint16_t port)
{
	for (size_t i = 0; i < c->n_hosts; i++) {
		const struct pf_entry *e = &c->hosts[i];
		size_t host = strlen(e->host), len = strlen(name);
		bool same = e->wildcard ? len > host + 1 && name[len - host - 1] == '.' &&
						  strcmp(name + len - host, e->host) == 0
					: strcmp(name, e->host) == 0;
		if (same && pf_ports_have(e->ports, e->n_ports, port))
			return true;
	}
	return false;
}

bool pf_creds_bound(const struct pf_creds *c, const char *name, uint16_t port)
{
	for (size_t i = 0; c && i < c->n; i++)
		if (pf_cred_bound(&c->list[i], name, port))
			return true;
	return false;
}

static int check_host(
	const struct pf_cred *k, const struct pf_entry *e, const struct pf_policy *p, struct pf_err *err)
{
	const struct pf_rule *rule = NULL;
	/* Of a wildcard any name will do that it has. */
	PF_FREE char *name = pf_asprintf("%s%s", e->wildcard ? "x." : "", e->host);
	enum pf_verdict v = pf_policy_host(p, name, e->n_ports ? e->ports[0].lo : 0, &rule);

	if (v != PF_VERDICT_ALLOW)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"credentials.%s: its host '%s%s' cannot be reached under this policy (%s): allow it, "
			"or "
			"take it out",
			k->name, e->wildcard ? "*." : "", e->host, pf_verdict_reason(v));
	if (rule->tls_set && rule->tls != PF_TLS_TERMINATE)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"credentials.%s: '%s' has a rule whose TLS is not to be ended; take \"tls\" out of "
			"it, or "
			"the host out of the credential",
			k->name, e->host);
	return 0;
}

int pf_creds_check(const struct pf_creds *c, const struct pf_policy *p, struct pf_err *err)
{
	for (size_t i = 0; i < c->n; i++)
		for (size_t h = 0; h < c->list[i].n_hosts; h++)
			if (check_host(&c->list[i], &c->list[i].hosts[h], p, err) < 0)
				return -1;
	return 0;
}
