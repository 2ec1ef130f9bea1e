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
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
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

static int open_route(struct pf_err *err)
{
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK};
	PF_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return pf_fail(err, errno, "route netlink socket");
	return pf_take_fd(&fd);
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
	g->host_route = open_route(err);
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
		close(pf_take_fd(&g->host_route));
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

/* ---- the addresses of another namespace ---- */

static void add_address(struct pf_own_addrs *own, const struct nlmsghdr *h)
{
	const struct ifaddrmsg *m = NLMSG_DATA(h);
	unsigned int left = (unsigned int)IFA_PAYLOAD(h);
	size_t len = m->ifa_family == AF_INET ? 4 : 16;

	if (m->ifa_family != AF_INET && m->ifa_family != AF_INET6)
		return;
	/* Of a point-to-point link IFA_ADDRESS is the other end's, which is no less the host's affair. */
	for (const struct rtattr *a = IFA_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if ((a->rta_type != IFA_LOCAL && a->rta_type != IFA_ADDRESS) || RTA_PAYLOAD(a) != len)
			continue;
		struct pf_cidr *more = realloc(own->addrs, (own->n + 1) * sizeof(*more));
		if (!more)
			abort();
		own->addrs = more;
		struct pf_cidr *c = &own->addrs[own->n++];
		*c = (struct pf_cidr){.family = m->ifa_family, .prefix = (uint8_t)(len * 8)};
		memcpy(c->addr, RTA_DATA(a), len);
	}
}

int pf_own_addrs_add(struct pf_own_addrs *own, int route_fd, struct pf_err *err)
{
	struct {
		struct nlmsghdr h;
		struct ifaddrmsg m;
	} ask = {.h = {.nlmsg_len = sizeof(ask),
			 .nlmsg_type = RTM_GETADDR,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
	_Alignas(struct nlmsghdr) char buf[32768];

	if (send(route_fd, &ask, sizeof(ask), 0) < 0)
		return pf_fail(err, errno, "ask for the host's addresses");
	/* A dump's first part is there when send returns; each recv makes the kernel add the next. */
	for (;;) {
		ssize_t n = recv(route_fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0)
			return pf_fail(err, errno, "read the host's addresses");
		unsigned int left = (unsigned int)n;
		for (struct nlmsghdr *h = (struct nlmsghdr *)buf; NLMSG_OK(h, left);
			h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR)
				return pf_fail(err, -((struct nlmsgerr *)NLMSG_DATA(h))->error,
					"read the host's addresses");
			if (h->nlmsg_type == RTM_NEWADDR)
				add_address(own, h);
		}
	}
}
