#include "netpolicy/ctlookup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

int pf_ctlookup_open(struct pf_err *err)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);

	return fd < 0 ? pf_fail(err, errno, "connection tracking netlink socket") : fd;
}

/* The tuple of answers: from the keeper's socket to the payload. */
static void put_reply(struct nlmsghdr *h, const union pf_sa *peer, uint16_t port)
{
	struct nlattr *tuple = mnl_attr_nest_start(h, CTA_TUPLE_REPLY),
		      *part = mnl_attr_nest_start(h, CTA_TUPLE_IP);

	if (peer->sa.sa_family == AF_INET) {
		mnl_attr_put_u32(h, CTA_IP_V4_SRC, htonl(INADDR_LOOPBACK));
		mnl_attr_put_u32(h, CTA_IP_V4_DST, peer->in.sin_addr.s_addr);
	} else {
		mnl_attr_put(h, CTA_IP_V6_SRC, 16, &in6addr_loopback);
		mnl_attr_put(h, CTA_IP_V6_DST, 16, &peer->in6.sin6_addr);
	}
	mnl_attr_nest_end(h, part);
	part = mnl_attr_nest_start(h, CTA_TUPLE_PROTO);
	mnl_attr_put_u8(h, CTA_PROTO_NUM, IPPROTO_UDP);
	mnl_attr_put_u16(h, CTA_PROTO_SRC_PORT, htons(port));
	mnl_attr_put_u16(h, CTA_PROTO_DST_PORT, peer->in.sin_port);
	mnl_attr_nest_end(h, part);
	mnl_attr_nest_end(h, tuple);
}

static const struct nlattr *child(const void *begin, const void *end, uint16_t type)
{
	const struct nlattr *a = begin;

	while (mnl_attr_ok(a, (int)((const char *)end - (const char *)a))) {
		if (mnl_attr_get_type(a) == type)
			return a;
		a = mnl_attr_next(a);
	}
	return NULL;
}

static const struct nlattr *nested(const struct nlattr *a, uint16_t type)
{
	return a ? child(mnl_attr_get_payload(a),
			   (const char *)mnl_attr_get_payload(a) + mnl_attr_get_payload_len(a), type)
		 : NULL;
}

bool pf_ctlookup_udp(int fd, const union pf_sa *peer, uint16_t port, union pf_sa *dst)
{
	char buf[4096];
	bool v6 = peer->sa.sa_family == AF_INET6;
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);

	h->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
	h->nlmsg_flags = NLM_F_REQUEST;
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	g->nfgen_family = (uint8_t)peer->sa.sa_family;
	g->version = NFNETLINK_V0;
	put_reply(h, peer, port);
	if (send(fd, h, h->nlmsg_len, MSG_DONTWAIT) < 0)
		return false;
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < (ssize_t)sizeof(*h) || !mnl_nlmsg_ok(h, (int)n) || h->nlmsg_type == NLMSG_ERROR)
		return false;
	const struct nlattr *orig = child(mnl_nlmsg_get_payload_offset(h, sizeof(struct nfgenmsg)),
		mnl_nlmsg_get_payload_tail(h), CTA_TUPLE_ORIG);
	const struct nlattr *to = nested(nested(orig, CTA_TUPLE_IP), v6 ? CTA_IP_V6_DST : CTA_IP_V4_DST);
	const struct nlattr *at = nested(nested(orig, CTA_TUPLE_PROTO), CTA_PROTO_DST_PORT);
	if (!to || !at || mnl_attr_get_payload_len(to) != (v6 ? 16 : 4))
		return false;
	memset(dst, 0, sizeof(*dst));
	dst->sa.sa_family = peer->sa.sa_family;
	dst->in.sin_port = mnl_attr_get_u16(at);
	memcpy(v6 ? (void *)&dst->in6.sin6_addr : &dst->in.sin_addr, mnl_attr_get_payload(to), v6 ? 16 : 4);
	return true;
}
