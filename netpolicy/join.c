/* Theory of operation.
 *
 * A namespace that somebody else made, a pod's, has an address of its own, and its owner has rules for what
 * that address may reach: a cluster's NetworkPolicy, a security group, a quota. The gate narrows what leaves,
 * it does not widen it; so its dials and its questions to the resolver leave by the pod's own device, and not
 * by the host's, whose address may reach more than any pod's. The packet filter lets them through by a mark
 * that only the keeper can give its sockets (nft_joined.c).
 *
 * The thread stays there. What it still needs of the host is a list of the host's addresses, which stay
 * forbidden: a netlink socket that was opened before answers for the namespace where that was.
 *
 * With no device but lo nothing can leave from there, and it is dialled from home, as for a namespace that is
 * our own from the beginning. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "netpolicy/gate_priv.h"
#include "netpolicy/netns.h"

int pf_gate_mark(const struct pf_gate *g, int fd)
{
	return g->nft.mark ? setsockopt(fd, SOL_SOCKET, SO_MARK, &g->nft.mark, sizeof(g->nft.mark)) : 0;
}

static int draw_mark(uint32_t *mark, struct pf_err *err)
{
	do
		if (getrandom(mark, sizeof(*mark), 0) != (ssize_t)sizeof(*mark))
			return pf_fail(err, errno, "random mark");
	while (*mark == 0);
	return 0;
}

/* In the namespace. */
static int open_joined(struct pf_gate *g, bool alone, struct pf_err *err)
{
	uint32_t mark = 0;

	if (!alone && draw_mark(&mark, err) < 0)
		return -1;
	if (pf_nft_open(&g->nft, &g->synth.net6, err) < 0)
		return -1;
	g->was_closed = pf_nft_denied(&g->nft) >= 0;
	g->nft.mark = mark;
	g->nft.replace = true;
	if (!alone && (g->route = pf_route_open(err)) < 0)
		return -1;
	return pf_gate_open_sockets(g, err);
}

static void take_back(struct pf_gate *g)
{
	if (g->joined < 0 || g->was_closed)
		return;
	pf_nft_unload(&g->nft);
	pf_netns_unjoin(g->joined, &g->synth.net6, g->v6, g->alone);
}

static int join(struct pf_gate *g, int netns_fd, struct pf_err *err)
{
	struct pf_netns_visit visit;
	struct pf_err back = PF_ERR_INIT;

	if (pf_loop_init(&g->loop, err) < 0 || pf_synth_init(&g->synth, err) < 0)
		return -1;
	g->host_route = pf_route_open(err);
	if (g->host_route < 0 || pf_netns_join(&visit, netns_fd, &g->synth.net6, &g->v6, &g->alone, err) < 0)
		return -1;
	g->joined = fcntl(netns_fd, F_DUPFD_CLOEXEC, 3);
	int r = g->joined < 0 ? pf_fail(err, errno, "network namespace") : open_joined(g, g->alone, err);
	if (r < 0)
		take_back(g);
	if (r < 0 || g->alone) {
		if (pf_netns_leave(&visit, &back) < 0) {
			*err = back;
			return -1;
		}
		if (g->route >= 0)
			close(g->route);
		g->route = pf_take_fd(&g->host_route);
		return r;
	}
	close(visit.home);
	return 0;
}

struct pf_gate *pf_gate_join(
	const struct pf_policy *policy, const struct pf_gate_opts *opts, int netns_fd, struct pf_err *err)
{
	struct pf_gate *g = pf_gate_new(policy, opts);

	if (join(g, netns_fd, err) < 0) {
		pf_wrap(err, "egress gate");
		g->opts.audit = NULL;
		pf_gate_close(g);
		return NULL;
	}
	return g;
}

void pf_gate_undo(struct pf_gate *g)
{
	if (!g)
		return;
	g->opts.audit = NULL;
	take_back(g);
	pf_gate_close(g);
}
