/* Who gets the descriptors that the gate may have.
 *
 * A connection has two, one for each end, and no more is promised to anybody: so as many connections are
 * admitted as there are pairs, and the next one is told (too_many_connections) instead of left waiting. A
 * flow of UDP has one, out of the same. What is of use for a moment only (a pipe for a stream, a second
 * address that is tried beside the first) is lent out of a small stock beside, and whoever gets none does
 * without. */
#include <sys/resource.h>

#include "netpolicy/gate_priv.h"

#define DEFAULT_CONNECTIONS 16384
#define OWN 64   /* sockets, netlink, log, resolver; DNS over TCP */
#define LENT 128 /* to connections, for a moment */
#define FEW 16

void pf_room_init(struct pf_gate *g)
{
	struct rlimit r;

	g->max_conns = g->opts.max_connections ? g->opts.max_connections : DEFAULT_CONNECTIONS;
	g->room = g->max_conns * 2 + 2048;
	if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur >= g->room + OWN + LENT)
		return;
	g->room = r.rlim_cur > OWN + LENT + 2 * FEW ? (unsigned int)r.rlim_cur - OWN - LENT : 2 * FEW;
	if (g->max_conns > g->room / 2)
		g->max_conns = g->room / 2;
}

bool pf_room_for(const struct pf_gate *g, unsigned int n)
{
	return g->n_conns * 2 + g->n_udp_flows + n <= g->room;
}

bool pf_room_borrow(struct pf_gate *g, unsigned int n)
{
	if (g->n_lent + n > LENT)
		return false;
	g->n_lent += n;
	return true;
}

void pf_room_return(struct pf_gate *g, unsigned int n)
{
	g->n_lent -= n;
}
