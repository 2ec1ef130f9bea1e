/* Theory of operation
 *
 * Networking reaches the egress gate as one canonical object. Here only its shape is settled: which spelling
 * it came in, which type it has, that nothing in it contradicts that type. What a host pattern or an address
 * range may look like is the policy compiler's business, so that a policy set later at run time goes through
 * the same checks. A document without any networking lets nothing out. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "session/config_read.h"

static void add_copy(cJSON *to, const cJSON *from, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(from, key);

	if (v && !cJSON_IsNull(v))
		cJSON_AddItemToObject(to, key, cJSON_Duplicate(v, true));
}

/* An entry is a pattern or, where object_key is given, also an object of a pattern with ports and the leave
 * to reach private addresses. */
static int check_entries(const struct pf_cfg_at *at, const char *object_key, struct pf_err *err)
{
	const char *const keys[] = {object_key, "ports", "allow_private", "protocol", "tls", "methods",
		"paths", "max_requests_per_hour", "max_connections", "max_bytes_per_hour", NULL};
	char where[PF_CFG_PATH_MAX];
	const cJSON *e;

	if (!at->node)
		return 0;
	if (!cJSON_IsArray(at->node))
		return pf_cfg_bad(at, err, "must be an array");
	(void)pf_cfg_path(at, where);
	cJSON_ArrayForEach(e, at->node)
	{
		const char *s = NULL;
		if (cJSON_IsString(e) && *e->valuestring)
			continue;
		if (!cJSON_IsObject(e) || !object_key)
			return pf_cfg_bad(at, err, "each entry must be a string that is not empty");
		if (pf_json_known(e, where, keys, err) < 0 || pf_json_str(e, where, object_key, &s, err) < 0)
			return -1;
		if (!s || !*s)
			return pf_cfg_bad(at, err, "an entry has no \"%s\"", object_key);
	}
	return 0;
}

static bool has_entries(const cJSON *networking, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(networking, key);

	return v && !cJSON_IsNull(v) && (!cJSON_IsArray(v) || v->child);
}

/* Whether some entry of the list asks for nothing that type "unrestricted" does not give anyway. */
static bool has_idle_entry(const cJSON *net, const char *key)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(net, key), *e;

	if (!cJSON_IsArray(list))
		return false; /* a wrong type is found where the list is read */
	cJSON_ArrayForEach(
		e, list) if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(e, "allow_private"))) return true;
	return false;
}

/* A type that makes an entry mean nothing must not stand beside it: its author expects an effect. */
static int check_type(const cJSON *net, const char *where, const char *type, struct pf_err *err)
{
	static const char *const opening[] = {"allowed_hosts", "allowed_cidrs"};
	bool none = strcmp(type, "none") == 0, any = strcmp(type, "unrestricted") == 0;

	if (!none && !any && strcmp(type, "limited") != 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s.type: must be \"none\", \"limited\" or \"unrestricted\"", where);
	for (size_t i = 0; i < 2; i++) {
		if (none && has_entries(net, opening[i]))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s.%s has no effect with type \"none\": use type \"limited\"", where,
				opening[i]);
		if (any && has_idle_entry(net, opening[i]))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s.%s has no effect with type \"unrestricted\", but for entries with "
				"\"allow_private\": true: use type \"limited\" to allow these alone",
				where, opening[i]);
	}
	if (none && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(net, "allow_package_managers")))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s.allow_package_managers has no effect with type \"none\": use type \"limited\"",
			where);
	return 0;
}

static int read_object(const struct pf_cfg_at *at, struct pf_config *c, struct pf_err *err)
{
	const char *where = strcmp(at->where, "config") == 0 ? "config.networking" : "networking";
	const char *type = "limited";
	const cJSON *net = at->node;
	bool mcp = false;
	struct pf_cfg_at hosts = pf_cfg_in(net, where, "allowed_hosts");
	struct pf_cfg_at denied = pf_cfg_in(net, where, "denied_hosts");
	struct pf_cfg_at cidrs = pf_cfg_in(net, where, "allowed_cidrs");
	struct pf_cfg_at private = pf_cfg_in(net, where, "allow_private");
	struct pf_cfg_at resolver = pf_cfg_in(net, where, "resolver");

	if (pf_json_str(net, where, "type", &type, err) < 0 || check_type(net, where, type, err) < 0 ||
		pf_json_bool(net, where, "allow_package_managers", &c->allow_package_managers, err) < 0 ||
		pf_json_bool(net, where, "allow_mcp_servers", &mcp, err) < 0 ||
		check_entries(&hosts, "host", err) < 0 || check_entries(&denied, NULL, err) < 0 ||
		check_entries(&cidrs, "cidr", err) < 0)
		return -1;
	if (!cJSON_IsBool(private.node) && check_entries(&private, NULL, err) < 0)
		return -1;
	if (!cJSON_IsString(resolver.node) && check_entries(&resolver, NULL, err) < 0)
		return -1;
	bool explain = false;
	if (pf_json_bool(net, where, "explain_denied", &explain, err) < 0)
		return -1;

	cJSON_AddStringToObject(c->networking, "type", type);
	static const char *const copied[] = {"allowed_hosts", "denied_hosts", "allowed_cidrs",
		"allow_private", "resolver", "explain_denied", "upstream_ca"};
	for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]); i++)
		add_copy(c->networking, net, copied[i]);
	if (mcp)
		pf_cfg_append(&c->warnings,
			"%s.allow_mcp_servers opens nothing by itself: list the servers' hosts in "
			"allowed_hosts",
			where);
	return 0;
}

int pf_cfg_networking(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_cfg_at at;

	if (pf_cfg_find(doc, PF_SET_NETWORKING, &at, err) < 0)
		return -1;
	c->networking = cJSON_CreateObject();
	if (!c->networking)
		abort();
	if (!at.node) {
		cJSON_AddStringToObject(c->networking, "type", "none");
		return 0;
	}
	if (at.unit != PF_UNIT_HOSTS)
		return read_object(&at, c, err);
	if (check_entries(&at, NULL, err) < 0)
		return -1;
	cJSON_AddStringToObject(c->networking, "type", "limited");
	cJSON_AddItemToObject(c->networking, "allowed_hosts", cJSON_Duplicate(at.node, true));
	return 0;
}

static int read_credential(const cJSON *node, struct pf_config_credential *cr, struct pf_err *err)
{
	static const char *const keys[] = {"type", "scope", "validity", "max_requests_per_hour", "databases",
		/* what an administrator's file may say instead: session/credentials.c */
		"source", "hosts", "env", "injection_location", "scopes", "methods", "paths", NULL};
	PF_FREE char *where = pf_asprintf("credentials.%s", cr->name);

	struct pf_cfg_at type = pf_cfg_in(node, where, "type"), scope = pf_cfg_in(node, where, "scope");
	struct pf_cfg_at validity = pf_cfg_in(node, where, "validity");
	struct pf_cfg_at rate = pf_cfg_in(node, where, "max_requests_per_hour");
	struct pf_cfg_at databases = pf_cfg_in(node, where, "databases");

	cr->validity_ms = cr->max_requests_per_hour = -1;
	cr->databases = pf_cfg_empty_list();
	if (!cJSON_IsObject(node))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: must be an object", where);
	if (pf_json_known(node, where, keys, err) < 0 || pf_cfg_text(&type, 64, &cr->type, err) < 0 ||
		pf_cfg_text(&scope, 256, &cr->scope, err) < 0 ||
		pf_cfg_duration(&validity, &cr->validity_ms, err) < 0 ||
		pf_cfg_int(&rate, 1, 1000000000, &cr->max_requests_per_hour, err) < 0 ||
		pf_cfg_strings(&databases, &cr->databases, err) < 0)
		return -1;
	if (!cr->type)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.type: is missing", where);
	return 0;
}

int pf_cfg_credentials(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_cfg_at at = pf_cfg_at(doc, "", "credentials");

	if (!at.node)
		return 0;
	if (!cJSON_IsObject(at.node))
		return pf_cfg_bad(&at, err, "must be an object of named credentials");
	size_t n = (size_t)cJSON_GetArraySize(at.node);
	if (n == 0)
		return 0;
	c->credentials = pf_calloc(n, sizeof(*c->credentials));
	for (const cJSON *node = at.node->child; node; node = node->next) {
		struct pf_config_credential *cr = &c->credentials[c->n_credentials++];
		if (pf_check_id("credentials: a credential's name", node->string, err) < 0)
			return -1;
		cr->name = pf_strdup(node->string);
		if (read_credential(node, cr, err) < 0)
			return -1;
	}
	c->credentials_raw = cJSON_Duplicate(at.node, true);
	return 0;
}
