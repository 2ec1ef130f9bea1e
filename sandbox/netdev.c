/* Theory of operation: moving a network device.
 *
 * A device loses its addresses when it changes its namespace, so they are read first: those that somebody
 * gave it (permanent) and that mean the world and not the link. Moving and renaming is one request,
 * RTM_NEWLINK with the namespace's descriptor and the new name, so that no other device of that name can come
 * between. The rest is asked of a socket that was opened in the other namespace: a socket belongs where it
 * was made. */
#include "sandbox/netdev.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BUFFER 8192

struct address {
	uint8_t family, prefix;
	unsigned char bytes[16];
};

struct dump {
	unsigned index;
	struct address *list;
	size_t n;
};

static void close_socket(struct mnl_socket **s)
{
	if (*s)
		(void)mnl_socket_close(*s);
}
#define MNL_CLOSE PF_CLEANUP(close_socket)

static struct mnl_socket *open_socket(struct pf_err *err)
{
	struct mnl_socket *s = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);

	if (!s || mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) < 0) {
		pf_fail(err, errno, "linux.netDevices: netlink socket");
		close_socket(&s);
		return NULL;
	}
	return s;
}

/* A socket of the other namespace; we are back in ours on return. */
static struct mnl_socket *open_socket_in(int netns, struct pf_err *err)
{
	PF_CLOSE int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	struct mnl_socket *s = NULL;

	if (own < 0 || setns(netns, CLONE_NEWNET) < 0) {
		pf_fail(err, errno, "linux.netDevices: enter the container's network namespace");
		return NULL;
	}
	s = open_socket(err);
	if (setns(own, CLONE_NEWNET) < 0)
		_exit(125); /* All that we did from here on would be done in the container's. */
	return s;
}

/* Send it and take the answers. 0, or -1 with errno. */
static int ask(struct mnl_socket *s, struct nlmsghdr *h, mnl_cb_t each, void *arg)
{
	char buf[BUFFER * 4];
	int r;

	if (mnl_socket_sendto(s, h, h->nlmsg_len) < 0)
		return -1;
	do {
		ssize_t n = mnl_socket_recvfrom(s, buf, sizeof(buf));
		if (n < 0)
			return -1;
		r = mnl_cb_run(buf, (size_t)n, h->nlmsg_seq, mnl_socket_get_portid(s), each, arg);
	} while (r > MNL_CB_STOP);
	return r;
}

static struct nlmsghdr *message(char *buf, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);

	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	h->nlmsg_seq = 1;
	return h;
}

/* mnl_attr_for_each, whose own arithmetic our warnings do not like. */
static const struct nlattr *first_attr(const struct nlmsghdr *h, size_t offset)
{
	return mnl_nlmsg_get_payload_offset(h, offset);
}

static bool is_attr(const struct nlattr *a, const struct nlmsghdr *h)
{
	return mnl_attr_ok(a, (int)((const char *)mnl_nlmsg_get_payload_tail(h) - (const char *)a));
}

static int on_address(const struct nlmsghdr *h, void *arg)
{
	const struct ifaddrmsg *m = mnl_nlmsg_get_payload(h);
	struct dump *d = arg;
	const struct nlattr *a, *found = NULL;
	uint32_t flags = m->ifa_flags;
	size_t len = m->ifa_family == AF_INET ? 4 : 16;

	if (m->ifa_index != d->index || m->ifa_scope != RT_SCOPE_UNIVERSE ||
		(m->ifa_family != AF_INET && m->ifa_family != AF_INET6))
		return MNL_CB_OK;
	for (a = first_attr(h, sizeof(*m)); is_attr(a, h); a = mnl_attr_next(a)) {
		uint16_t type = mnl_attr_get_type(a);
		/* Of a link between two ends this is our own and the other is the peer's. */
		if (type == IFA_LOCAL || (type == IFA_ADDRESS && !found))
			found = a;
		else if (type == IFA_FLAGS)
			flags = mnl_attr_get_u32(a);
	}
	if (!found || mnl_attr_get_payload_len(found) != len || !(flags & IFA_F_PERMANENT))
		return MNL_CB_OK;
	struct address *more = realloc(d->list, (d->n + 1) * sizeof(*more));
	if (!more)
		abort();
	d->list = more;
	more[d->n] = (struct address){.family = m->ifa_family, .prefix = m->ifa_prefixlen};
	memcpy(more[d->n++].bytes, mnl_attr_get_payload(found), len);
	return MNL_CB_OK;
}

static int read_addresses(struct mnl_socket *s, struct dump *d)
{
	char buf[BUFFER];
	struct nlmsghdr *h = message(buf, RTM_GETADDR, NLM_F_DUMP);
	struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifa_family = AF_UNSPEC;
	return ask(s, h, on_address, d);
}

static int move(struct mnl_socket *s, unsigned index, const char *name, int netns)
{
	char buf[BUFFER];
	struct nlmsghdr *h = message(buf, RTM_NEWLINK, NLM_F_ACK);
	struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifi_family = AF_UNSPEC;
	m->ifi_index = (int)index;
	mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)netns);
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	return ask(s, h, NULL, NULL);
}

/* The numbers of a namespace's devices. */
struct links {
	int *list;
	size_t n;
};

static int on_link(const struct nlmsghdr *h, void *arg)
{
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	struct links *l = arg;
	int *more = realloc(l->list, (l->n + 1) * sizeof(*more));

	if (!more)
		abort();
	l->list = more;
	more[l->n++] = m->ifi_index;
	return MNL_CB_OK;
}

static int list_links(struct mnl_socket *s, struct links *l)
{
	char buf[BUFFER];
	struct nlmsghdr *h = message(buf, RTM_GETLINK, NLM_F_DUMP);
	struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifi_family = AF_UNSPEC;
	return ask(s, h, on_link, l);
}

static bool has_link(const struct links *l, int index)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->list[i] == index)
			return true;
	return false;
}

/* Move it and find its number there: that may be another one than here, and the name may be the kernel's
 * choice
 * ("eth%d"). */
static int move_and_find(struct mnl_socket *here, struct mnl_socket *there, unsigned index,
	const struct pf_netdev *d, int netns, struct pf_err *err)
{
	struct links before = {0}, after = {0};
	int found = -1, r;

	r = list_links(there, &before);
	if (r == 0 && move(here, index, d->name, netns) < 0)
		r = pf_fail(err, errno, "linux.netDevices: move %s to be %s", d->device, d->name);
	else if (r < 0 || list_links(there, &after) < 0)
		r = pf_fail(err, errno, "linux.netDevices: devices of the container");
	for (size_t i = 0; r == 0 && i < after.n; i++)
		if (!has_link(&before, after.list[i]))
			found = after.list[i];
	if (r == 0 && found < 0)
		pf_fail(err, ENODEV, "linux.netDevices: %s after its move", d->device);
	free(before.list);
	free(after.list);
	return found;
}

static int add_address(struct mnl_socket *s, int index, const struct address *a)
{
	char buf[BUFFER];
	struct nlmsghdr *h = message(buf, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
	struct ifaddrmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	size_t len = a->family == AF_INET ? 4 : 16;

	m->ifa_family = a->family;
	m->ifa_prefixlen = a->prefix;
	m->ifa_flags = IFA_F_PERMANENT;
	m->ifa_scope = RT_SCOPE_UNIVERSE;
	m->ifa_index = (unsigned)index;
	mnl_attr_put(h, IFA_LOCAL, len, a->bytes);
	mnl_attr_put(h, IFA_ADDRESS, len, a->bytes);
	return ask(s, h, NULL, NULL);
}

static int set_up(struct mnl_socket *s, int index)
{
	char buf[BUFFER];
	struct nlmsghdr *h = message(buf, RTM_NEWLINK, NLM_F_ACK);
	struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifi_family = AF_UNSPEC;
	m->ifi_index = index;
	m->ifi_flags = IFF_UP;
	m->ifi_change = IFF_UP;
	return ask(s, h, NULL, NULL);
}

static int move_one(struct mnl_socket *here, struct mnl_socket *there, const struct pf_netdev *d, int netns,
	struct pf_err *err)
{
	struct dump addresses = {.index = if_nametoindex(d->device)};
	PF_FREE struct address *list = NULL;
	int r, index;

	if (addresses.index == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "linux.netDevices: %s", d->device);
	r = read_addresses(here, &addresses);
	list = addresses.list;
	if (r < 0)
		return pf_fail(err, errno, "linux.netDevices: addresses of %s", d->device);
	index = move_and_find(here, there, addresses.index, d, netns, err);
	if (index < 0)
		return -1;
	for (size_t i = 0; i < addresses.n; i++)
		if (add_address(there, index, &list[i]) < 0)
			return pf_fail(err, errno, "linux.netDevices: address of %s", d->name);
	return set_up(there, index) < 0 ? pf_fail(err, errno, "linux.netDevices: set %s up", d->name) : 0;
}

int pf_netdev_move(const struct pf_netdev *devices, size_t n, pid_t pid, struct pf_err *err)
{
	MNL_CLOSE struct mnl_socket *here = NULL, *there = NULL;
	PF_CLOSE int netns = -1;
	char path[48];

	if (n == 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	netns = open(path, O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return pf_fail(err, errno, "linux.netDevices: the container's network namespace");
	here = open_socket(err);
	if (!here)
		return -1;
	there = open_socket_in(netns, err);
	if (!there)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (move_one(here, there, &devices[i], netns, err) < 0)
			return -1;
	return 0;
}
