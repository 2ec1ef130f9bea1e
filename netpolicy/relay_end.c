/* The relay's connections when the policy changes, and when the gate closes. */
#include <netinet/in.h>

#include "netpolicy/relay_priv.h"

static bool still_admitted(struct pf_conn *c)
{
	struct pf_gate *g = c->gate;
	uint16_t port = pf_sa_port(&c->orig.sa);
	const struct pf_own_addrs *own = pf_upstream_own(g);
	const struct pf_rule *other;
	enum pf_addr_class class;

	enum pf_verdict v = c->name ? pf_policy_host(g->policy, c->name->name, port, &c->rule)
				    : pf_policy_addr(g->policy, &c->orig.sa, IPPROTO_TCP, own, &c->rule);
	if (v != PF_VERDICT_ALLOW)
		return false;
	/* Nobody looks at the name in a connection that is passed through. */
	const char *inside = c->tls && c->rule && c->rule->tls == PF_TLS_PASSTHROUGH ? NULL : c->other_name;
	if (inside && c->name && !pf_conn_same_rule(c, inside))
		return false;
	if (inside && !c->name && pf_policy_host(g->policy, inside, port, &other) == PF_VERDICT_DENIED_HOST)
		return false;
	/* What went through unseen must not go on so when it is to be seen. */
	if (pf_handover_wanted(g, c->rule, c->name ? c->name->name : NULL, port) && !c->ends_tls)
		return false;
	return (c->state != PF_CONN_CONNECTED && c->state != PF_CONN_HANDED) ||
	       pf_policy_result(g->policy, c->rule, &c->real.sa, own, &class) == PF_VERDICT_ALLOW;
}

void pf_relay_recheck(struct pf_gate *g)
{
	for (struct pf_conn *c = g->conns, *next; c; c = next) {
		next = c->next;
		if (c->state == PF_CONN_REFUSED || c->state == PF_CONN_GOODBYE || c->handed_denied)
			continue;
		if (still_admitted(c))
			continue;
		if (c->state == PF_CONN_HANDED)
			pf_handover_drop(c);
		pf_conn_abort(c, "deny", "policy_changed", NULL);
	}
}

void pf_relay_close(struct pf_gate *g)
{
	while (g->conns) {
		struct pf_conn *c = g->conns;
		if (c->state == PF_CONN_REFUSED || c->state == PF_CONN_GOODBYE || c->handed_denied)
			pf_conn_reset(c);
		else
			pf_conn_abort(c, "error", "gate_closed", NULL);
	}
	pf_pump_drop_spares(g);
	pf_heads_close(g);
	pf_loop_cancel(&g->loop, &g->listener_retry);
	for (int i = 0; i < 2; i++)
		pf_loop_close(&g->loop, &g->listener[i]);
}
