/* The addresses of a namespace, by a socket that answers for the one in which it was made, wherever its
 * holder is now, and that may ask and nothing else: the kernel looks at the capabilities of who made a
 * netlink socket as well as of who uses it. */
#include <errno.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "netpolicy/gate_priv.h"

int pf_route_open(struct pf_err *err)
{
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK};
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct had[2], none[2];

	if (syscall(SYS_capget, &h, had) < 0)
		return pf_fail(err, errno, "capabilities");
	memcpy(none, had, sizeof(none));
	none[0].effective = none[1].effective = 0;
	if (syscall(SYS_capset, &h, none) < 0)
		return pf_fail(err, errno, "capabilities");
	PF_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int saved = errno;
	if (syscall(SYS_capset, &h, had) < 0)
		return pf_fail(err, errno, "capabilities");
	errno = saved;
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return pf_fail(err, errno, "route netlink socket");
	return pf_take_fd(&fd);
}

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
