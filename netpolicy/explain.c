/* `policy ID test`: the same questions that the relay asks, without a connection. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "netpolicy/gate_priv.h"

static const char *sentence(enum pf_verdict v)
{
	static const char *const texts[] = {[PF_VERDICT_ALLOW] = "allowed",
		[PF_VERDICT_NOT_LISTED] = "no rule has it",
		[PF_VERDICT_DENIED_HOST] = "an entry of denied_hosts has it",
		[PF_VERDICT_PORT] = "the rule has the host, but not this port",
		[PF_VERDICT_PROTOCOL] = "only TCP",
		[PF_VERDICT_SHAPE] =
			"below a wildcard, but deeper or longer than a host name is; list the name itself",
		[PF_VERDICT_RESOLVER] =
			"a public DNS-over-HTTPS service below a wildcard; list the name itself",
		[PF_VERDICT_ADDRESS] = "the address is not public, and nothing opens it; see allow_private"};
	return texts[v];
}

static void add_treatment(
	struct pf_gate *g, cJSON *j, const char *name, uint16_t port, const struct pf_rule *rule)
{
	cJSON_AddStringToObject(j, "tls",
		pf_handover_wanted(g, rule, name, port)   ? "terminate"
		: rule && rule->tls == PF_TLS_PASSTHROUGH ? "passthrough"
							  : "verify");
	if (rule && rule->max_bytes_per_hour) {
		size_t left = pf_meter_left(g, rule);
		pf_json_add_int(j, "max_bytes_per_hour", rule->max_bytes_per_hour);
		pf_json_add_int(j, "bytes_left", (int64_t)left);
	}
	if (rule && rule->scope && rule->scope->methods) {
		cJSON *a = cJSON_AddArrayToObject(j, "methods");
		for (char **m = rule->scope->methods; *m; m++)
			cJSON_AddItemToArray(a, cJSON_CreateString(*m));
	}
	if (rule && rule->scope && rule->scope->paths) {
		cJSON *a = cJSON_AddArrayToObject(j, "paths");
		for (char **p = rule->scope->paths; *p; p++)
			cJSON_AddItemToArray(a, cJSON_CreateString(*p));
	}
	cJSON *creds = cJSON_CreateArray();
	for (size_t i = 0; g->opts.creds && i < g->opts.creds->n; i++)
		if (pf_cred_bound(&g->opts.creds->list[i], name, port))
			cJSON_AddItemToArray(creds, cJSON_CreateString(g->opts.creds->list[i].name));
	if (creds->child)
		cJSON_AddItemToObject(j, "credentials", creds);
	else
		cJSON_Delete(creds);
}

cJSON *pf_gate_explain(struct pf_gate *g, const char *target, struct pf_err *err)
{
	struct pf_entry e = {0};
	const struct pf_rule *rule = NULL;
	enum pf_verdict v;

	if (!target || pf_entry_parse_text(target, "test", &e, err) < 0) {
		if (!target)
			pf_fail_kind(err, PF_ERR_INVALID, 0, "test: needs HOST:PORT");
		pf_entry_done(&e);
		return NULL;
	}
	bool whole = !e.is_cidr || e.cidr.prefix == (e.cidr.family == AF_INET ? 32 : 128);
	if (e.wildcard || !whole || e.n_ports != 1 || e.ports[0].lo != e.ports[0].hi) {
		pf_fail_kind(err, PF_ERR_INVALID, 0,
			"test: '%.200s' is not one host and one port, as in api.example.com:443", target);
		pf_entry_done(&e);
		return NULL;
	}
	uint16_t port = e.ports[0].lo;
	cJSON *j = cJSON_CreateObject();
	if (e.is_cidr) {
		union pf_sa sa = {.sa = {.sa_family = e.cidr.family}};
		sa.in.sin_port = htons(port);
		if (e.cidr.family == AF_INET)
			memcpy(&sa.in.sin_addr, e.cidr.addr, 4);
		else
			memcpy(&sa.in6.sin6_addr, e.cidr.addr, 16);
		v = pf_policy_addr(g->policy, &sa.sa, IPPROTO_TCP, pf_upstream_own(g), &rule);
	} else {
		v = pf_policy_host(g->policy, e.host, port, &rule);
	}
	cJSON_AddStringToObject(j, "target", target);
	cJSON_AddStringToObject(j, "verdict", v == PF_VERDICT_ALLOW ? "allow" : "deny");
	cJSON_AddStringToObject(j, "reason", pf_verdict_reason(v));
	cJSON_AddStringToObject(j, "explanation", sentence(v));
	if (rule)
		cJSON_AddStringToObject(j, "rule", rule->text);
	pf_json_add_int(j, "revision", (int64_t)pf_policy_revision(g->policy));
	if (v == PF_VERDICT_ALLOW && !e.is_cidr)
		add_treatment(g, j, e.host, port, rule);
	pf_entry_done(&e);
	return j;
}
