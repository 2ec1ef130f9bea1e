/* Theory of operation.
 *
 * A policy is compiled once and never changes: an update builds a new one, loads the packet filter from it
 * and swaps the pointer. All strings are normalised here, so that a verdict is a hash look-up and never a
 * string decision: host rules sit in one hash table keyed by the name, wildcards by what follows "*."; a name
 * is looked up whole and then once per suffix, so the cost does not depend on the number of rules. Networks
 * are few and are searched in order.
 *
 * Who wins: denied_hosts over everything; then the most specific rule that has the port. Private addresses
 * need an opt-in of their own in every mode, because "this name is allowed" says nothing about where it
 * points. */
#include "netpolicy/policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"

struct pf_policy {
	unsigned int refs;
	enum pf_policy_type type;
	uint64_t revision;
	struct pf_rule *rules;
	size_t n_rules, cap_rules;
	uint32_t *buckets; /* index + 1 */
	size_t n_buckets;  /* a power of two */
	struct pf_cidr *private_nets;
	size_t n_private;
	bool all_private;
	char *resolver, *upstream_ca;
	bool explain;
	struct pf_rule any; /* the rule of type unrestricted */
};

/* Public DNS over HTTPS: a wildcard that happens to cover one would open a second, unfiltered resolver. An
 * exact entry still admits it. */
static const char *const doh_names[] = {"chrome.cloudflare-dns.com", "cloudflare-dns.com",
	"dns.adguard-dns.com", "dns.adguard.com", "dns.alidns.com", "dns.google", "dns.google.com",
	"dns.mullvad.net", "dns.nextdns.io", "dns.quad9.net", "dns.sb", "dns10.quad9.net", "dns11.quad9.net",
	"dns9.quad9.net", "doh.cleanbrowsing.org", "doh.dns.sb", "doh.familyshield.opendns.com",
	"doh.libredns.gr", "doh.opendns.com", "doh.pub", "dot.pub", "family.cloudflare-dns.com",
	"freedns.controld.com", "mozilla.cloudflare-dns.com", "one.one.one.one",
	"security.cloudflare-dns.com", "unfiltered.adguard-dns.com", NULL};

static uint32_t hash(const char *s)
{
	uint32_t h = 2166136261U;
	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 16777619U;
	return h ^ (h >> 15);
}

struct pf_policy *pf_policy_ref(const struct pf_policy *p)
{
	struct pf_policy *q = (struct pf_policy *)(uintptr_t)p; /* counting is not a change of the policy */
	q->refs++;
	return q;
}

void pf_policy_unref(struct pf_policy *p)
{
	if (!p || --p->refs)
		return;
	for (size_t i = 0; i < p->n_rules; i++) {
		free(p->rules[i].text);
		free(p->rules[i].host);
		free(p->rules[i].ports);
		if (p->rules[i].scope)
			pf_scope_done(p->rules[i].scope);
		free(p->rules[i].scope);
	}
	free(p->any.text);
	free(p->rules);
	free(p->buckets);
	free(p->private_nets);
	free(p->resolver);
	free(p->upstream_ca);
	free(p);
}

void pf_policy_set_revision(struct pf_policy *p, uint64_t revision)
{
	p->revision = revision;
}

uint64_t pf_policy_revision(const struct pf_policy *p)
{
	return p->revision;
}

enum pf_policy_type pf_policy_type(const struct pf_policy *p)
{
	return p->type;
}

const struct pf_rule *pf_policy_rules(const struct pf_policy *p, size_t *n)
{
	*n = p->n_rules;
	return p->rules;
}

const char *pf_policy_resolver(const struct pf_policy *p)
{
	return p->resolver;
}

bool pf_policy_ends_tls(const struct pf_policy *p)
{
	for (size_t i = 0; i < p->n_rules; i++)
		if (p->rules[i].tls == PF_TLS_TERMINATE)
			return true;
	return p->explain;
}

bool pf_policy_explains(const struct pf_policy *p)
{
	return p->explain;
}

const char *pf_policy_upstream_ca(const struct pf_policy *p)
{
	return p->upstream_ca;
}

const char *pf_verdict_reason(enum pf_verdict v)
{
	static const char *const names[] = {[PF_VERDICT_ALLOW] = "allowed",
		[PF_VERDICT_NOT_LISTED] = "not_listed",
		[PF_VERDICT_DENIED_HOST] = "denied_host",
		[PF_VERDICT_PORT] = "port",
		[PF_VERDICT_PROTOCOL] = "protocol",
		[PF_VERDICT_SHAPE] = "name_shape",
		[PF_VERDICT_RESOLVER] = "public_resolver",
		[PF_VERDICT_ADDRESS] = "address"};
	return names[v];
}

static char *rule_text(const struct pf_entry *e)
{
	struct pf_buf b = {0};

	if (!e->is_cidr && e->n_ports == 0 && !e->wildcard && !e->udp)
		return pf_strdup(e->host);
	if (e->is_cidr) {
		char addr[INET6_ADDRSTRLEN];
		bool v6 = e->cidr.family == AF_INET6, whole = e->cidr.prefix == (v6 ? 128 : 32);
		inet_ntop(e->cidr.family, e->cidr.addr, addr, sizeof(addr));
		if (v6 && e->n_ports)
			pf_buf_str(&b, "[");
		pf_buf_str(&b, addr);
		if (!whole)
			pf_buf_printf(&b, "/%u", e->cidr.prefix);
		if (v6 && e->n_ports)
			pf_buf_str(&b, "]");
	} else {
		pf_buf_str(&b, e->wildcard ? "*." : "");
		pf_buf_str(&b, e->host);
	}
	if (e->udp && !e->n_ports)
		pf_buf_str(&b, "/udp");
	for (size_t i = 0; i < e->n_ports; i++) {
		pf_buf_printf(&b, "%c%u", i ? ',' : ':', e->ports[i].lo);
		if (e->ports[i].hi != e->ports[i].lo)
			pf_buf_printf(&b, "-%u", e->ports[i].hi);
	}
	if (e->udp && e->n_ports)
		pf_buf_str(&b, "/udp");
	/* Thousands of rules are kept, and a buffer grows by doubling. */
	char *text = pf_strdup(b.data);
	pf_buf_done(&b);
	return text;
}

/* Takes the ports of e. */
static struct pf_rule *add_rule(struct pf_policy *p, struct pf_entry *e, bool denied)
{
	if (p->n_rules == p->cap_rules) {
		size_t cap = p->cap_rules ? p->cap_rules * 2 : 8;
		struct pf_rule *more = reallocarray(p->rules, cap, sizeof(*more));
		if (!more)
			abort();
		p->rules = more;
		p->cap_rules = cap;
	}
	struct pf_rule *r = &p->rules[p->n_rules++];
	*r = (struct pf_rule){.text = rule_text(e),
		.host = e->is_cidr ? NULL : pf_strdup(e->host),
		.cidr = e->cidr,
		.ports = e->ports,
		.n_ports = (uint32_t)e->n_ports,
		.wildcard = e->wildcard,
		.allow_private = e->allow_private,
		.udp = e->udp,
		.tls = (uint8_t)e->tls,
		.tls_set = e->tls_set,
		.max_connections = (uint32_t)e->max_connections,
		.max_bytes_per_hour = e->max_bytes_per_hour,
		.denied = denied};
	e->ports = NULL;
	if (!pf_scope_is_empty(&e->scope)) {
		r->scope = pf_calloc(1, sizeof(*r->scope));
		*r->scope = e->scope;
		e->scope = (struct pf_scope){0};
	}
	return r;
}

/* cidrs_only: the list is allowed_cidrs. */
static int read_list(struct pf_policy *p, const cJSON *networking, const char *key, bool denied,
	bool cidrs_only, struct pf_err *err)
{
	const cJSON *list = NULL;
	char where[64];
	size_t i = 0;

	if (pf_json_arr(networking, "networking", key, &list, err) < 0)
		return -1;
	for (const cJSON *j = list ? list->child : NULL; j; j = j->next, i++) {
		struct pf_entry e = {0};
		snprintf(where, sizeof(where), "networking.%s[%zu]", key, i);
		int r = pf_entry_parse(j, where, &e, err);
		if (r == 0 && cidrs_only && !e.is_cidr)
			r = pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s: '%s' is no network; names go to allowed_hosts", where, e.host);
		if (r == 0 && denied && cJSON_IsObject(j))
			r = pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s: a denial is a string; it holds for everything", where);
		if (r == 0)
			add_rule(p, &e, denied);
		pf_entry_done(&e);
		if (r < 0)
			return -1;
	}
	return 0;
}

static void build_index(struct pf_policy *p)
{
	p->n_buckets = 16;
	while (p->n_buckets < p->n_rules * 2)
		p->n_buckets *= 2;
	p->buckets = pf_calloc(p->n_buckets, sizeof(*p->buckets));
	for (size_t i = 0; i < p->n_rules; i++) {
		if (!p->rules[i].host)
			continue;
		uint32_t *b = &p->buckets[hash(p->rules[i].host) & (p->n_buckets - 1)];
		p->rules[i].next = *b;
		*b = (uint32_t)i + 1;
	}
}

static struct pf_rule *first(const struct pf_policy *p, const char *name)
{
	uint32_t i = p->n_buckets ? p->buckets[hash(name) & (p->n_buckets - 1)] : 0;
	return i ? &p->rules[i - 1] : NULL;
}

static struct pf_rule *following(const struct pf_policy *p, const struct pf_rule *r)
{
	return r->next ? &p->rules[r->next - 1] : NULL;
}

static bool same_target(const struct pf_rule *a, const struct pf_rule *b)
{
	if (!a->host || !b->host)
		return !a->host && !b->host && pf_cidr_within(&a->cidr, &b->cidr) &&
		       a->cidr.prefix == b->cidr.prefix;
	return a->wildcard == b->wildcard && strcmp(a->host, b->host) == 0;
}

/* Whether every port of inner is one of outer's. */
static bool ports_cover(const struct pf_rule *outer, const struct pf_rule *inner)
{
	if (outer->n_ports == 0)
		return true;
	for (uint32_t i = 0; i < inner->n_ports; i++) {
		bool in = false;
		for (uint32_t o = 0; o < outer->n_ports && !in; o++)
			in = inner->ports[i].lo >= outer->ports[o].lo &&
			     inner->ports[i].hi <= outer->ports[o].hi;
		if (!in)
			return false;
	}
	return inner->n_ports > 0;
}

static int check_pair(const struct pf_rule *denied, const struct pf_rule *r, struct pf_err *err)
{
	if (r->denied || !same_target(denied, r) || !ports_cover(denied, r))
		return 0;
	return pf_fail_kind(err, PF_ERR_INVALID, 0,
		"networking: '%s' is allowed and '%s' denied; drop one of them", r->text, denied->text);
}

/* The same entry on both lists is a mistake: whoever wrote one of them believes something that is not so. */
static int check_contradictions(const struct pf_policy *p, struct pf_err *err)
{
	for (size_t d = 0; d < p->n_rules; d++) {
		const struct pf_rule *denied = &p->rules[d];
		if (!denied->denied)
			continue;
		if (denied->host) {
			for (struct pf_rule *r = first(p, denied->host); r; r = following(p, r))
				if (check_pair(denied, r, err) < 0)
					return -1;
			continue;
		}
		for (size_t i = 0; i < p->n_rules; i++)
			if (check_pair(denied, &p->rules[i], err) < 0)
				return -1;
	}
	return 0;
}

static int open_private(struct pf_policy *p, const struct pf_entry *e, const char *where, struct pf_err *err)
{
	const struct pf_rule wanted = {.host = e->is_cidr ? NULL : (char *)(uintptr_t)e->host,
		.wildcard = e->wildcard,
		.cidr = e->cidr};
	bool found = false;

	if (e->n_ports)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: give no port here", where);
	for (size_t i = 0; i < p->n_rules; i++)
		if (!p->rules[i].denied && same_target(&p->rules[i], &wanted))
			found = p->rules[i].allow_private = true;
	if (!e->is_cidr)
		return found ? 0
			     : pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: '%s%s' is not in allowed_hosts",
				       where, e->wildcard ? "*." : "", e->host);
	struct pf_cidr *more = reallocarray(p->private_nets, p->n_private + 1, sizeof(*more));
	if (!more)
		abort();
	p->private_nets = more;
	p->private_nets[p->n_private++] = e->cidr;
	return 0;
}

static int read_allow_private(struct pf_policy *p, const cJSON *networking, struct pf_err *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(networking, "allow_private");
	char where[64];
	size_t i = 0;

	if (!list || cJSON_IsNull(list) || cJSON_IsFalse(list))
		return 0;
	if (cJSON_IsTrue(list)) {
		p->all_private = p->any.allow_private = true;
		for (size_t r = 0; r < p->n_rules; r++)
			p->rules[r].allow_private = !p->rules[r].denied;
		return 0;
	}
	if (!cJSON_IsArray(list))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"networking.allow_private: expected true, false or a list of hosts and networks");
	for (const cJSON *j = list->child; j; j = j->next, i++) {
		struct pf_entry e = {0};
		snprintf(where, sizeof(where), "networking.allow_private[%zu]", i);
		int r = cJSON_IsString(j)
				? pf_entry_parse(j, where, &e, err)
				: pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: expected a string", where);
		if (r == 0)
			r = open_private(p, &e, where, err);
		pf_entry_done(&e);
		if (r < 0)
			return -1;
	}
	return 0;
}

bool pf_policy_cidr_private(const struct pf_policy *p, const struct pf_rule *rule)
{
	if (rule->allow_private)
		return true;
	for (size_t i = 0; i < p->n_private; i++)
		if (pf_cidr_within(&rule->cidr, &p->private_nets[i]))
			return true;
	return false;
}

/* A rule for a private network that could never admit anything is a misunderstanding, not a policy. */
static int check_private_cidrs(const struct pf_policy *p, struct pf_err *err)
{
	size_t n;
	const struct pf_cidr *nets = pf_addr_nonpublic(&n);

	for (size_t i = 0; i < p->n_rules; i++) {
		const struct pf_rule *r = &p->rules[i];
		bool inside = false;
		if (r->host || r->denied)
			continue;
		for (size_t k = 0; k < n && !inside; k++)
			inside = pf_cidr_within(&r->cidr, &nets[k]);
		if (!inside)
			continue;
		enum pf_addr_class c = pf_addr_classify(r->cidr.family, r->cidr.addr, NULL);
		const char *name = pf_addr_class_name(c);
		bool whole = r->cidr.prefix == (r->cidr.family == AF_INET ? 32 : 128);
		if (c == PF_ADDR_RESERVED)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"networking: '%s' is a %s network; nothing there can be reached", r->text,
				name);
		if (!pf_policy_cidr_private(p, r))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"networking: '%s' is a %s network; add it to allow_private if that is meant",
				r->text, name);
		if (c >= PF_ADDR_LINK_LOCAL && !(whole && r->allow_private))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"networking: '%s' is a %s network; name each single address in allowed_cidrs "
				"and "
				"allow_private",
				r->text, name);
	}
	return 0;
}

static int add_resolver(struct pf_buf *b, const cJSON *j, const char *where, struct pf_err *err)
{
	struct pf_entry e = {0};
	char addr[INET6_ADDRSTRLEN];

	if (!cJSON_IsString(j))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: expected \"IP\" or \"IP:PORT\"", where);
	int r = pf_entry_parse_text(j->valuestring, where, &e, err);
	bool whole = e.is_cidr && e.cidr.prefix == (e.cidr.family == AF_INET ? 32 : 128);
	if (r == 0 && (!whole || e.n_ports > 1 || (e.n_ports && e.ports[0].lo != e.ports[0].hi)))
		r = pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%s': a resolver is an address with an optional port, like 10.0.0.2:53", where,
			j->valuestring);
	if (r == 0) {
		inet_ntop(e.cidr.family, e.cidr.addr, addr, sizeof(addr));
		pf_buf_printf(b, e.cidr.family == AF_INET ? "%s%s:%u" : "%s[%s]:%u", b->len ? "," : "", addr,
			e.n_ports ? e.ports[0].lo : 53U);
	}
	pf_entry_done(&e);
	return r;
}

static int read_resolver(struct pf_policy *p, const cJSON *networking, struct pf_err *err)
{
	const cJSON *j = cJSON_GetObjectItemCaseSensitive(networking, "resolver");
	PF_BUF struct pf_buf b = {0};

	if (!j || cJSON_IsNull(j))
		return 0;
	if (!cJSON_IsArray(j)) {
		if (add_resolver(&b, j, "networking.resolver", err) < 0)
			return -1;
	} else {
		for (const cJSON *i = j->child; i; i = i->next)
			if (add_resolver(&b, i, "networking.resolver", err) < 0)
				return -1;
		if (!b.len)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"networking.resolver: is empty; leave it out instead");
	}
	p->resolver = pf_take(b.data);
	return 0;
}

static int read_type(struct pf_policy *p, const cJSON *networking, struct pf_err *err)
{
	const char *type = "limited";

	if (pf_json_str(networking, "networking", "type", &type, err) < 0)
		return -1;
	if (strcmp(type, "none") == 0)
		p->type = PF_POLICY_NONE;
	else if (strcmp(type, "limited") == 0)
		p->type = PF_POLICY_LIMITED;
	else if (strcmp(type, "unrestricted") == 0)
		p->type = PF_POLICY_UNRESTRICTED;
	else
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"networking.type: '%.64s' is none of none, limited, unrestricted", type);
	return 0;
}

static int compile(struct pf_policy *p, const cJSON *networking, struct pf_err *err)
{
	static const char *const keys[] = {"type", "allowed_hosts", "denied_hosts", "allowed_cidrs",
		"allow_private", "resolver", "explain_denied", "upstream_ca", NULL};
	const char *ca = NULL;

	if (!cJSON_IsObject(networking))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "networking: expected an object");
	if (pf_json_known(networking, "networking", keys, err) < 0 || read_type(p, networking, err) < 0 ||
		read_list(p, networking, "allowed_hosts", false, false, err) < 0 ||
		read_list(p, networking, "allowed_cidrs", false, true, err) < 0)
		return -1;
	if (p->type == PF_POLICY_NONE && p->n_rules)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"networking: type is 'none' but '%s' is allowed; use type 'limited'",
			p->rules[0].text);
	if (read_list(p, networking, "denied_hosts", true, false, err) < 0)
		return -1;
	build_index(p);
	if (check_contradictions(p, err) < 0 || read_allow_private(p, networking, err) < 0 ||
		check_private_cidrs(p, err) < 0 ||
		pf_json_bool(networking, "networking", "explain_denied", &p->explain, err) < 0 ||
		pf_json_str(networking, "networking", "upstream_ca", &ca, err) < 0)
		return -1;
	if (p->explain && p->type == PF_POLICY_NONE)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"networking.explain_denied has no effect with type 'none'; use type 'limited'");
	p->upstream_ca = ca ? pf_strdup(ca) : NULL;
	return read_resolver(p, networking, err);
}

struct pf_policy *pf_policy_compile(const cJSON *networking, struct pf_err *err)
{
	struct pf_policy *p = pf_calloc(1, sizeof(*p));

	p->refs = 1;
	p->any.text = pf_strdup("*");
	if (networking && !cJSON_IsNull(networking) && compile(p, networking, err) < 0) {
		pf_policy_unref(p);
		return NULL;
	}
	return p;
}

static bool is_public_resolver(const char *name)
{
	for (size_t i = 0; doh_names[i]; i++)
		if (strcmp(name, doh_names[i]) == 0)
			return true;
	return false;
}

/* Look at the rules for key, which is name itself or, for wildcards, a suffix of it. */
static enum pf_verdict match(const struct pf_policy *p, const char *name, const char *key, uint16_t port,
	bool udp, bool denied, const struct pf_rule **rule)
{
	enum pf_verdict v = PF_VERDICT_NOT_LISTED;
	bool wildcard = key != name;

	for (const struct pf_rule *r = first(p, key); r; r = following(p, r)) {
		if (r->denied != denied || r->wildcard != wildcard || strcmp(r->host, key) != 0)
			continue;
		/* A question for a name is one for both protocols; a denial is of both. */
		if (port && !denied && r->udp != udp)
			continue;
		/* Without a port: allowed when some port is, denied only when every port is. */
		if (port ? pf_ports_have(r->ports, r->n_ports, port) : !denied || r->n_ports == 0) {
			*rule = r;
			return PF_VERDICT_ALLOW;
		}
		*rule = r;
		v = PF_VERDICT_PORT;
	}
	return v;
}

static bool is_shapely(const char *name, const char *suffix)
{
	size_t len = (size_t)(suffix - name), labels = 0;

	for (size_t i = 0; i < len; i++)
		labels += name[i] == '.';
	return len <= PF_WILDCARD_BYTES + 1 && labels <= PF_WILDCARD_LABELS;
}

static enum pf_verdict judge_host(
	const struct pf_policy *p, const char *name, uint16_t port, bool udp, const struct pf_rule **rule)
{
	enum pf_verdict v = PF_VERDICT_NOT_LISTED;
	const struct pf_rule *found = NULL;

	*rule = NULL;
	if (p->type == PF_POLICY_NONE)
		return v;
	for (const char *key = name; key; key = strchr(key, '.'), key = key ? key + 1 : NULL)
		if (match(p, name, key, port, udp, true, &found) == PF_VERDICT_ALLOW) {
			*rule = found;
			return PF_VERDICT_DENIED_HOST;
		}
	for (const char *key = name; key; key = strchr(key, '.'), key = key ? key + 1 : NULL) {
		enum pf_verdict m = match(p, name, key, port, udp, false, &found);
		if (m == PF_VERDICT_ALLOW && key != name) {
			if (!is_shapely(name, key))
				m = PF_VERDICT_SHAPE;
			else if (is_public_resolver(name))
				m = PF_VERDICT_RESOLVER;
		}
		if (m == PF_VERDICT_NOT_LISTED)
			continue;
		*rule = found;
		v = m;
		if (v != PF_VERDICT_PORT)
			break;
	}
	if (v != PF_VERDICT_ALLOW && p->type == PF_POLICY_UNRESTRICTED && !udp) {
		*rule = &p->any;
		return PF_VERDICT_ALLOW;
	}
	return v;
}

enum pf_verdict pf_policy_host(
	const struct pf_policy *p, const char *name, uint16_t port, const struct pf_rule **rule)
{
	return judge_host(p, name, port, false, rule);
}

/* Why not: what would go by TCP is of the wrong protocol, not unknown. */
enum pf_verdict pf_policy_host_udp(
	const struct pf_policy *p, const char *name, uint16_t port, const struct pf_rule **rule)
{
	const struct pf_rule *tcp;
	enum pf_verdict v = judge_host(p, name, port, true, rule);

	if (v == PF_VERDICT_NOT_LISTED && judge_host(p, name, port, false, &tcp) == PF_VERDICT_ALLOW) {
		*rule = tcp;
		return PF_VERDICT_PROTOCOL;
	}
	return v;
}

bool pf_policy_has_udp(const struct pf_policy *p)
{
	for (size_t i = 0; i < p->n_rules; i++)
		if (p->rules[i].udp)
			return true;
	return false;
}

static bool is_open(const struct pf_policy *p, const struct pf_rule *rule, enum pf_addr_class c,
	sa_family_t family, const uint8_t *addr)
{
	if (c == PF_ADDR_PUBLIC)
		return true;
	if (c == PF_ADDR_RESERVED)
		return false;
	if (c >= PF_ADDR_LINK_LOCAL)
		return rule->allow_private && rule->cidr.family == family &&
		       rule->cidr.prefix == (family == AF_INET ? 32 : 128);
	if (rule->allow_private)
		return true;
	for (size_t i = 0; i < p->n_private; i++)
		if (pf_cidr_has(&p->private_nets[i], family, addr))
			return true;
	return false;
}

static const struct pf_rule *denying_net(
	const struct pf_policy *p, sa_family_t family, const uint8_t *addr, uint16_t port)
{
	for (size_t i = 0; i < p->n_rules; i++) {
		const struct pf_rule *r = &p->rules[i];
		if (r->denied && !r->host && pf_cidr_has(&r->cidr, family, addr) &&
			pf_ports_have(r->ports, r->n_ports, port))
			return r;
	}
	return NULL;
}

/* The same, and of what a translator on the path would make of it. */
static const struct pf_rule *denying(
	const struct pf_policy *p, sa_family_t family, const uint8_t *addr, uint16_t port)
{
	const struct pf_rule *r = denying_net(p, family, addr, port);
	uint8_t carried[PF_ADDR_EMBEDDED][4];
	size_t n = family == AF_INET6 ? pf_addr_embedded(addr, carried) : 0;

	while (!r && n--)
		r = denying_net(p, AF_INET, carried[n], port);
	return r;
}

/* sin_port and sin6_port are at the same place. */
static uint16_t port_of(const struct sockaddr *sa)
{
	return ntohs(((const struct sockaddr_in *)(const void *)sa)->sin_port);
}

enum pf_verdict pf_policy_result(const struct pf_policy *p, const struct pf_rule *rule,
	const struct sockaddr *sa, const struct pf_own_addrs *own, enum pf_addr_class *class)
{
	sa_family_t family;
	uint8_t addr[16];

	*class = PF_ADDR_RESERVED;
	if (!pf_addr_of(sa, &family, addr))
		return PF_VERDICT_ADDRESS;
	*class = pf_addr_classify(family, addr, own);
	if (denying(p, family, addr, port_of(sa)))
		return PF_VERDICT_DENIED_HOST;
	return is_open(p, rule, *class, family, addr) ? PF_VERDICT_ALLOW : PF_VERDICT_ADDRESS;
}

enum pf_verdict pf_policy_addr(const struct pf_policy *p, const struct sockaddr *sa, int proto,
	const struct pf_own_addrs *own, const struct pf_rule **rule)
{
	enum pf_verdict v = PF_VERDICT_NOT_LISTED;
	uint16_t port = port_of(sa);
	enum pf_addr_class class;
	sa_family_t family;
	uint8_t addr[16];

	*rule = NULL;
	if (p->type == PF_POLICY_NONE || !pf_addr_of(sa, &family, addr))
		return v;
	if ((*rule = denying(p, family, addr, port)))
		return PF_VERDICT_DENIED_HOST;
	for (size_t i = 0; i < p->n_rules; i++) {
		const struct pf_rule *r = &p->rules[i];
		if (r->denied || r->host || !pf_cidr_has(&r->cidr, family, addr))
			continue;
		enum pf_verdict m = PF_VERDICT_PORT;
		if (r->udp != (proto == IPPROTO_UDP))
			m = PF_VERDICT_PROTOCOL;
		else if (pf_ports_have(r->ports, r->n_ports, port))
			m = pf_policy_result(p, r, sa, own, &class);
		/* Of several reasons to refuse, the one nearest to admission says most. */
		if (m == PF_VERDICT_ALLOW || m == PF_VERDICT_ADDRESS || v == PF_VERDICT_NOT_LISTED) {
			v = m;
			*rule = r;
		}
		if (m == PF_VERDICT_ALLOW)
			break;
	}
	if (v != PF_VERDICT_ALLOW && p->type == PF_POLICY_UNRESTRICTED) {
		*rule = &p->any;
		v = pf_policy_result(p, &p->any, sa, own, &class);
	}
	if (v == PF_VERDICT_ALLOW && proto != IPPROTO_TCP && !(*rule)->udp)
		return PF_VERDICT_PROTOCOL;
	return v;
}

cJSON *pf_policy_describe(const struct pf_policy *p)
{
	static const char *const types[] = {"none", "limited", "unrestricted"};
	cJSON *j = cJSON_CreateObject();

	pf_json_add_int(j, "revision", (int64_t)p->revision);
	cJSON_AddStringToObject(j, "type", types[p->type]);
	cJSON *allowed = cJSON_AddArrayToObject(j, "allowed"), *denied = cJSON_AddArrayToObject(j, "denied");
	cJSON *private = cJSON_AddArrayToObject(j, "allow_private");
	for (size_t i = 0; i < p->n_rules; i++) {
		const struct pf_rule *r = &p->rules[i];
		cJSON_AddItemToArray(r->denied ? denied : allowed, cJSON_CreateString(r->text));
		if (r->allow_private)
			cJSON_AddItemToArray(private, cJSON_CreateString(r->text));
	}
	for (size_t i = 0; i < p->n_private; i++) {
		char addr[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN + 8];
		inet_ntop(p->private_nets[i].family, p->private_nets[i].addr, addr, sizeof(addr));
		snprintf(text, sizeof(text), "%s/%u", addr, p->private_nets[i].prefix);
		cJSON_AddItemToArray(private, cJSON_CreateString(text));
	}
	if (p->all_private && !p->n_rules)
		cJSON_AddItemToArray(private, cJSON_CreateString("*"));
	cJSON_AddStringToObject(j, "resolver", p->resolver ? p->resolver : "host");
	cJSON *terminated = cJSON_CreateArray();
	for (size_t i = 0; i < p->n_rules; i++)
		if (p->rules[i].tls == PF_TLS_TERMINATE)
			cJSON_AddItemToArray(terminated, cJSON_CreateString(p->rules[i].text));
	if (terminated->child)
		cJSON_AddItemToObject(j, "terminated", terminated);
	else
		cJSON_Delete(terminated);
	if (p->explain)
		cJSON_AddTrueToObject(j, "explain_denied");
	return j;
}
