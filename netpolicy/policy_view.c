/* What others need to know of a policy as a whole: the packet filter its ports, the sandbox's authority its
 * names. */
#include <stdlib.h>

#include "base/str.h"
#include "netpolicy/policy.h"

/* More names than this in one certificate are not worth its size. */
#define MAX_CA_NAMES 200

char **pf_policy_ca_names(const struct pf_policy *p)
{
	size_t k = 0, n_rules;
	const struct pf_rule *rules = pf_policy_rules(p, &n_rules);

	if (pf_policy_type(p) != PF_POLICY_LIMITED || pf_policy_explains(p) || n_rules > MAX_CA_NAMES)
		return NULL;
	char **names = pf_calloc(n_rules + 1, sizeof(*names));
	for (size_t i = 0; i < n_rules; i++)
		if (rules[i].host && !rules[i].denied)
			names[k++] = pf_strdup(rules[i].host);
	return names;
}

static int by_port(const void *a, const void *b)
{
	return (int)((const struct pf_ports *)a)->lo - (int)((const struct pf_ports *)b)->lo;
}

struct pf_ports *pf_policy_host_ports(const struct pf_policy *p, bool udp, size_t *n)
{
	size_t n_rules;
	const struct pf_rule *rules = pf_policy_rules(p, &n_rules);
	struct pf_ports *all = NULL;
	size_t total = 0, out = 0;
	bool every = pf_policy_type(p) == PF_POLICY_UNRESTRICTED && !udp,
	     explain = pf_policy_explains(p) && pf_policy_type(p) != PF_POLICY_NONE && !udp;

	for (size_t i = 0; i < n_rules; i++) {
		const struct pf_rule *r = &rules[i];
		if (!r->host || r->denied || r->udp != udp)
			continue;
		if (r->n_ports == 0)
			every = true;
		total += r->n_ports;
	}
	*n = 0;
	if (explain)
		total += 2;
	if (!every && !total)
		return NULL;
	all = pf_calloc(total + 1, sizeof(*all));
	if (every) {
		all[0] = (struct pf_ports){1, 65535};
		*n = 1;
		return all;
	}
	total = 0;
	for (size_t i = 0; i < n_rules; i++)
		if (rules[i].host && !rules[i].denied && rules[i].udp == udp)
			for (uint32_t k = 0; k < rules[i].n_ports; k++)
				all[total++] = rules[i].ports[k];
	if (explain) {
		all[total++] = (struct pf_ports){80, 80};
		all[total++] = (struct pf_ports){443, 443};
	}
	qsort(all, total, sizeof(*all), by_port);
	for (size_t i = 1; i < total; i++) {
		if (all[i].lo <= (unsigned int)all[out].hi + 1) {
			if (all[i].hi > all[out].hi)
				all[out].hi = all[i].hi;
		} else {
			all[++out] = all[i];
		}
	}
	*n = out + 1;
	return all;
}
