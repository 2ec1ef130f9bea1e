/* Theory of operation.
 *
 * A sandbox's network namespace has no device but lo. Two routes make every IPv4 and every IPv6 address a
 * local one, so a connect to anywhere is a connect to this namespace: there the packet filter (nft.c)
 * redirects it to the keeper's listener or rejects it. There is no other way for a packet to go. The
 * namespace is made by the keeper, in the keeper's user namespace, before the sandbox's own user namespace
 * exists; root in the sandbox can therefore change neither routes nor rules nor settings.
 *
 * One that somebody else made is entered and left as it is, but for lo, which is brought up, and for the
 * synthetic addresses, which are made local; if it has no other device either, it becomes like our own.
 *
 * unshare and setns act on the calling thread only; a saved descriptor of the old namespace is the way back.
 */
#include "netpolicy/netns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proc.h"
#include "netpolicy/addrfilter.h"
#include "netpolicy/nft.h"

#define LOOPBACK_INDEX 1 /* lo is the first device of every namespace */

static int set_lo_up(struct mnl_socket *nl, char *buf, size_t size)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	h->nlmsg_type = RTM_NEWLINK;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	struct ifinfomsg *ifi = mnl_nlmsg_put_extra_header(h, sizeof(*ifi));
	ifi->ifi_family = AF_UNSPEC;
	ifi->ifi_index = LOOPBACK_INDEX;
	ifi->ifi_flags = ifi->ifi_change = IFF_UP;
	if (mnl_socket_sendto(nl, h, h->nlmsg_len) < 0)
		return -1;
	ssize_t n = mnl_socket_recvfrom(nl, buf, size);
	return n < 0 ? -1 : mnl_cb_run(buf, (size_t)n, 0, 0, NULL, NULL);
}

/* Make a network local; prefix 0 is everything. flag is NLM_F_EXCL or NLM_F_REPLACE; 0 takes the route away.
 */
static int add_local(struct mnl_socket *nl, char *buf, size_t size, uint8_t family, const void *net,
	uint8_t prefix, uint16_t flag)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	h->nlmsg_type = flag ? RTM_NEWROUTE : RTM_DELROUTE;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | (flag ? NLM_F_CREATE | flag : 0));
	struct rtmsg *r = mnl_nlmsg_put_extra_header(h, sizeof(*r));
	r->rtm_family = family;
	r->rtm_dst_len = prefix;
	r->rtm_table = RT_TABLE_LOCAL;
	r->rtm_protocol = RTPROT_STATIC;
	r->rtm_scope = family == AF_INET ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
	r->rtm_type = RTN_LOCAL;
	if (prefix)
		mnl_attr_put(h, RTA_DST, family == AF_INET ? 4 : 16, net);
	mnl_attr_put_u32(h, RTA_OIF, LOOPBACK_INDEX);
	if (mnl_socket_sendto(nl, h, h->nlmsg_len) < 0)
		return -1;
	ssize_t n = mnl_socket_recvfrom(nl, buf, size);
	return n < 0 ? -1 : mnl_cb_run(buf, (size_t)n, 0, 0, NULL, NULL);
}

/* Whether the host speaks IPv6 at all. A namespace inherits all/disable_ipv6 from some kernels' settings, so
 * it is switched on here where it exists. */
static bool enable_v6(void)
{
	PF_CLOSE int s = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return false;
	PF_CLOSE int fd = open("/proc/sys/net/ipv6/conf/lo/disable_ipv6", O_RDWR | O_CLOEXEC);
	char c = '0';
	if (fd < 0 || read(fd, &c, 1) != 1)
		return errno != ENOENT;
	if (c == '0')
		return true;
	return pf_write_pseudo_at(AT_FDCWD, "/proc/sys/net/ipv6/conf/all/disable_ipv6", "0") == 0 &&
	       pf_write_pseudo_at(AT_FDCWD, "/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0") == 0;
}

static int configure_lo(bool *v6, struct pf_err *err)
{
	char buf[1024];
	int r = 0;

	struct mnl_socket *nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!nl || mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		r = pf_fail(err, errno, "route netlink socket");
		goto out;
	}
	*v6 = enable_v6();
	if (set_lo_up(nl, buf, sizeof(buf)) < 0)
		r = pf_fail(err, errno, "bring lo up");
	else if (add_local(nl, buf, sizeof(buf), AF_INET, NULL, 0, NLM_F_EXCL) < 0)
		r = pf_fail(err, errno, "local default route for IPv4");
	else if (*v6 && add_local(nl, buf, sizeof(buf), AF_INET6, NULL, 0, NLM_F_EXCL) < 0)
		r = pf_fail(err, errno, "local default route for IPv6");
out:
	if (nl)
		mnl_socket_close(nl);
	return r;
}

/* Settings of the new namespace. The first group is part of what was promised and must succeed. */
static int set_sysctls(bool tracked, struct pf_err *err)
{
	static const struct {
		const char *path, *value;
	} required[] =
		{
			/* Root in the sandbox has no CAP_NET_BIND_SERVICE over this namespace, and may still
			   want port 80. */
			{"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
			/* No ping sockets: nothing would answer, and they are a protocol more to think about.
			 */
			{"/proc/sys/net/ipv4/ping_group_range", "1 0"},
		},
	  tuning[] = {
		  /* Everything tracked here crosses no network: entries may go at once, so that a flood of
		   * queries or short connections cannot pile them up. */
		  {"/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "5"},
		  {"/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", "5"},
		  {"/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait", "2"},
		  {"/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", "2"},
		  {"/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "1"},
	  };

	/* Group 1 may be nobody in a user namespace; it is the value that new namespaces begin with. */
	size_t n = sizeof(required) / sizeof(*required) - (pf_in_first_userns() ? 0 : 1);
	for (size_t i = 0; i < n; i++)
		if (pf_write_pseudo_at(AT_FDCWD, required[i].path, required[i].value) < 0)
			return pf_fail(
				err, errno, "write %s (is /proc/sys mounted read-only?)", required[i].path);
	/* Kernels without one of these (it may be built out) are slower to forget, nothing else. */
	for (size_t i = 0; tracked && i < sizeof(tuning) / sizeof(*tuning); i++)
		(void)pf_write_pseudo_at(AT_FDCWD, tuning[i].path, tuning[i].value);
	return 0;
}

int pf_netns_make(struct pf_netns_visit *visit, bool tracked, bool *v6, struct pf_err *err)
{
	struct pf_err back = PF_ERR_INIT;
	PF_CLOSE int fd = -1;

	visit->home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (visit->home < 0)
		return pf_fail(err, errno, "open /proc/thread-self/ns/net");
	if (unshare(CLONE_NEWNET) < 0) {
		int e = errno;
		close(visit->home);
		visit->home = -1;
		return pf_fail_kind(err, e == EPERM ? PF_ERR_UNSUPPORTED : PF_ERR_SYSTEM, e,
			"new network namespace (needs CAP_SYS_ADMIN in the caller's user namespace)");
	}
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		pf_fail(err, errno, "open /proc/thread-self/ns/net");
	else if (configure_lo(v6, err) == 0 && set_sysctls(tracked, err) == 0)
		return pf_take_fd(&fd);
	pf_wrap(err, "network namespace");
	/* Elsewhere it is a thread that came here to stay. */
	if (pf_netns_leave(visit, &back) < 0 && pf_in_first_userns())
		pf_wrap(err, "%s", back.msg);
	return -1;
}

/* Whether the namespace has lo alone. */
static int is_alone(bool *alone, struct pf_err *err)
{
	struct if_nameindex *list = if_nameindex();

	if (!list)
		return pf_fail(err, errno, "list the devices");
	*alone = true;
	for (const struct if_nameindex *i = list; i->if_index || i->if_name; i++)
		*alone = *alone && i->if_index == LOOPBACK_INDEX;
	if_freenameindex(list);
	return 0;
}

/* The synthetic addresses must be free. */
static int check_synthetic(struct pf_err *err)
{
	PF_OWN_ADDRS struct pf_own_addrs own = {0};
	const struct pf_cidr net = {.addr = {198, 18}, .family = AF_INET, .prefix = PF_SYNTH_PREFIX4};

	if (pf_own_addrs_read(&own, err) < 0)
		return -1;
	for (size_t i = 0; i < own.n; i++)
		if (pf_cidr_has(&net, own.addrs[i].family, own.addrs[i].addr))
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"it has an address in 198.18.0.0/15, where the gate's own are (remedy: give "
				"it an "
				"address of another network)");
	return 0;
}

/* IPv6 on lo alone: whether the other devices have it is their owner's decision. */
static bool enable_v6_on_lo(void)
{
	static const char path[] = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
	PF_CLOSE int s = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return s >= 0 && (access(path, F_OK) < 0 || pf_write_pseudo_at(AT_FDCWD, path, "0") == 0);
}

static int set_joined_routes(
	const struct in6_addr *synth6, bool v6, bool alone, uint16_t flag, struct pf_err *err)
{
	const uint32_t synth4 = htonl(PF_SYNTH_NET4);
	char buf[1024];
	int r = 0;

	struct mnl_socket *nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!nl || mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		r = pf_fail(err, errno, "route netlink socket");
		goto out;
	}
	if (set_lo_up(nl, buf, sizeof(buf)) < 0)
		r = pf_fail(err, errno, "bring lo up");
	else if (add_local(nl, buf, sizeof(buf), AF_INET, &synth4, alone ? 0 : PF_SYNTH_PREFIX4, flag) < 0)
		r = pf_fail(err, errno, "local route for IPv4");
	else if (v6 && add_local(nl, buf, sizeof(buf), AF_INET6, synth6, alone ? 0 : 64, flag) < 0)
		r = pf_fail(err, errno, "local route for IPv6");
out:
	if (nl)
		mnl_socket_close(nl);
	return r;
}

static int prepare_joined(const struct in6_addr *synth6, bool *v6, bool *alone, struct pf_err *err)
{
	if (is_alone(alone, err) < 0 || (!*alone && check_synthetic(err) < 0))
		return -1;
	*v6 = enable_v6_on_lo();
	return set_joined_routes(synth6, *v6, *alone, NLM_F_REPLACE, err);
}

void pf_netns_unjoin(int fd, const struct in6_addr *synth6, bool v6, bool alone)
{
	PF_CLOSE int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	struct pf_err ignored = PF_ERR_INIT;

	if (home < 0 || setns(fd, CLONE_NEWNET) < 0)
		return;
	(void)set_joined_routes(synth6, v6, alone, 0, &ignored);
	(void)setns(home, CLONE_NEWNET);
}

int pf_netns_join(struct pf_netns_visit *visit, int fd, const struct in6_addr *synth6, bool *v6, bool *alone,
	struct pf_err *err)
{
	struct pf_err back = PF_ERR_INIT;

	visit->home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (visit->home < 0)
		return pf_fail(err, errno, "open /proc/thread-self/ns/net");
	if (setns(fd, CLONE_NEWNET) < 0) {
		int e = errno;
		close(visit->home);
		visit->home = -1;
		return pf_fail(err, e, "enter the network namespace");
	}
	if (prepare_joined(synth6, v6, alone, err) == 0)
		return 0;
	pf_wrap(err, "network namespace");
	if (pf_netns_leave(visit, &back) < 0)
		pf_wrap(err, "%s", back.msg);
	return -1;
}

bool pf_netns_can_return(void)
{
	PF_CLOSE int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	/* Going where one is already takes the same power. */
	return home >= 0 && setns(home, CLONE_NEWNET) == 0;
}

int pf_netns_leave(struct pf_netns_visit *visit, struct pf_err *err)
{
	if (visit->home < 0)
		return 0;
	int r = setns(visit->home, CLONE_NEWNET) < 0
			? pf_fail(err, errno, "return to the own network namespace")
			: 0;
	close(visit->home);
	visit->home = -1;
	return r;
}
