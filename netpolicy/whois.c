#include "netpolicy/whois.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "netpolicy/synth.h"

int pf_whois_open(struct pf_err *err)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);

	return fd < 0 ? pf_fail(err, errno, "sock_diag netlink socket") : fd;
}

static void put(const struct sockaddr *sa, __be16 *port, __be32 addr[4])
{
	const union pf_sa *u = (const void *)sa;

	*port = u->in.sin_port;
	if (sa->sa_family == AF_INET6)
		memcpy(addr, &u->in6.sin6_addr, 16);
	else
		memcpy(addr, &u->in.sin_addr, 4);
}

bool pf_whois_cgroup(
	int fd, int proto, const struct sockaddr *local, const struct sockaddr *remote, uint64_t *cgroup)
{
	char buf[1024];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	h->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	h->nlmsg_flags = NLM_F_REQUEST;
	struct inet_diag_req_v2 *r = mnl_nlmsg_put_extra_header(h, sizeof(*r));
	r->sdiag_family = (uint8_t)local->sa_family;
	r->sdiag_protocol = (uint8_t)proto;
	r->idiag_states = ~0U;
	r->id.idiag_cookie[0] = r->id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	/* The kernel's two protocols disagree on which end is the source. */
	bool tcp = proto == IPPROTO_TCP;
	put(tcp ? local : remote, &r->id.idiag_sport, r->id.idiag_src);
	put(tcp ? remote : local, &r->id.idiag_dport, r->id.idiag_dst);
	if (send(fd, h, h->nlmsg_len, MSG_DONTWAIT) < 0)
		return false;
	/* The answer is there when send returns: it was made in the call. */
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < (ssize_t)sizeof(*h) || !mnl_nlmsg_ok(h, (int)n) || h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return false;
	const struct nlattr *a = mnl_nlmsg_get_payload_offset(h, sizeof(struct inet_diag_msg));
	while (mnl_attr_ok(a, (int)((char *)mnl_nlmsg_get_payload_tail(h) - (const char *)a))) {
		if (mnl_attr_get_type(a) == INET_DIAG_CGROUP_ID &&
			mnl_attr_get_payload_len(a) == sizeof(*cgroup)) {
			memcpy(cgroup, mnl_attr_get_payload(a), sizeof(*cgroup));
			return true;
		}
		a = mnl_attr_next(a);
	}
	return false;
}
