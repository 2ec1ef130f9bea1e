/* Bytes per hour of a rule: both directions of all its connections and flows, counted from the first byte.
 * Kept beside the policy, which is immutable; a rule that a new policy still has goes on where it was. */
#include <stdlib.h>
#include <string.h>

#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/gate_priv.h"

#define HOUR_US 3600000000LL

static struct pf_meter *meter_of(const struct pf_gate *g, const struct pf_rule *rule)
{
	size_t n;

	return rule && rule->max_bytes_per_hour ? &g->meters[rule - pf_policy_rules(g->policy, &n)] : NULL;
}

size_t pf_meter_left(const struct pf_gate *g, const struct pf_rule *rule)
{
	struct pf_meter *m = meter_of(g, rule);

	if (!m)
		return SIZE_MAX;
	if (m->began && pf_now_us() - m->began >= HOUR_US)
		*m = (struct pf_meter){0};
	return m->used >= rule->max_bytes_per_hour ? 0 : (size_t)(rule->max_bytes_per_hour - m->used);
}

void pf_meter_take(const struct pf_gate *g, const struct pf_rule *rule, uint64_t bytes)
{
	struct pf_meter *m = meter_of(g, rule);

	if (!m || !bytes)
		return;
	if (!m->began)
		m->began = pf_now_us();
	/* Never beyond what a sum of two can hold. */
	m->used = bytes > (uint64_t)(INT64_MAX - m->used) ? INT64_MAX : m->used + (int64_t)bytes;
}

void pf_meter_policy(struct pf_gate *g, const struct pf_policy *old)
{
	size_t n, n_old = 0;
	const struct pf_rule *rules = pf_policy_rules(g->policy, &n);
	const struct pf_rule *before = old ? pf_policy_rules(old, &n_old) : NULL;
	struct pf_meter *meters = NULL;

	for (size_t i = 0; i < n; i++) {
		if (!rules[i].max_bytes_per_hour)
			continue;
		if (!meters)
			meters = pf_calloc(n, sizeof(*meters));
		for (size_t k = 0; g->meters && k < n_old; k++)
			if (before[k].max_bytes_per_hour && before[k].udp == rules[i].udp &&
				strcmp(before[k].text, rules[i].text) == 0)
				meters[i] = g->meters[k];
	}
	free(g->meters);
	g->meters = meters;
}
