/* Theory of operation.
 *
 * The namespace has no device but lo, so nothing can leave it whatever the rules say; the rules decide what
 * reaches the keeper and make every refusal immediate and visible.
 *
 *   chain nat (output, dstnat)     which new connections go to the keeper, in this order
 *     port 53 of anything, UDP and TCP   → the keeper's DNS
 *     127.0.0.0/8, ::1                   the payload's own services: left alone
 *     denied networks                    left alone, so that the filter rejects them
 *     TCP to synthetic addresses         → the relay, for ports that some host rule has
 *     UDP, likewise and to networks      → the relay for datagrams, when a rule is for UDP
 *     TCP to networks opened by name     → the relay (private ones included)
 *     not public                         left alone
 *     TCP to other allowed networks      → the relay; unrestricted: TCP to anything
 *   chain filter (output, policy drop)
 *     what nat redirected, and its replies    accept: the state is the proof, a direct dial has none
 *     ports of the keeper's listeners         reject: no way to them but the redirect
 *     127.0.0.0/8, ::1                        accept
 *     the kernel's own resets and unreachables  accept
 *     the rest                                count, log (rate-limited), reject at once
 *   chain who                                 what is logged is marked with the cgroup of its socket before
 *
 * A namespace that is not ours alone has more rules, see nft_joined.c.
 *
 * Names never get here: a name is a synthetic address and the keeper decides what it means. Only the nat
 * chain and its sets depend on the policy; an update is one batch that flushes the chain, drops the sets and
 * adds the new ones, so connections, counters and the filter stay as they are. */
#include "netpolicy/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "netpolicy/nft_joined.h"
#include "netpolicy/nftmsg.h"

#define CHAIN_NAT "nat"
#define CHAIN_FILTER "filter"
#define CHAIN_WHO "who"
#define COUNTER "denied"
#define PRIORITY_DSTNAT (-100)
#define PRIORITY_FILTER 0
/* Key types as the nft program shows them. */
#define TYPE_IPV4 7
#define TYPE_IPV6 8
#define TYPE_PORT 13
/* Each distinct port range of the networks costs up to four sets; more than this is not a policy. */
#define MAX_PORT_GROUPS 128
#define LOG_PER_SECOND 20
#define LOG_BURST 100
#define LOG_SNAPLEN 64
#define CGROUP_LEVELS 8 /* how deep below the root an exec may lie to be named */

struct builder {
	struct pf_nftmsg m;
	unsigned int n_sets;
};

static void set_name(char name[16], unsigned int i)
{
	snprintf(name, 16, "p%u", i);
}

/* Match daddr against the networks of one family, when there are any. */
static bool match_nets(struct builder *b, const struct pf_cidr *nets, size_t n, bool v6, unsigned int *set)
{
	sa_family_t family = v6 ? AF_INET6 : AF_INET;
	char name[16];
	bool any = false;

	for (size_t i = 0; i < n && !any; i++)
		any = nets[i].family == family;
	if (!any)
		return false;
	*set = b->n_sets++;
	set_name(name, *set);
	pf_nftmsg_set(&b->m, name, *set + 1, v6 ? TYPE_IPV6 : TYPE_IPV4, v6 ? 16 : 4);
	pf_nftmsg_set_nets(&b->m, name, *set + 1, nets, n, family);
	return true;
}

static void rule_daddr_set(struct builder *b, bool v6, unsigned int set)
{
	char name[16];

	set_name(name, set);
	pf_nftmsg_rule(&b->m, CHAIN_NAT);
	pf_nftmsg_family(&b->m, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
	pf_nftmsg_load_daddr(&b->m, v6);
	pf_nftmsg_in_set(&b->m, name, set + 1);
}

/* Leave connections to these networks alone. ports NULL: any. */
static void leave_alone(struct builder *b, const struct pf_cidr *nets, size_t n, const struct pf_ports *ports)
{
	for (int v6 = 0; v6 < 2; v6++) {
		unsigned int set;
		if (!match_nets(b, nets, n, v6, &set))
			continue;
		rule_daddr_set(b, v6, set);
		if (ports) {
			pf_nftmsg_l4proto(&b->m, IPPROTO_TCP);
			pf_nftmsg_load_dport(&b->m);
			pf_nftmsg_range(&b->m, ports->lo, ports->hi);
		}
		pf_nftmsg_verdict(&b->m, NF_ACCEPT);
		pf_nftmsg_end_rule(&b->m);
	}
}

static void redirect_nets(
	struct builder *b, const struct pf_cidr *nets, size_t n, const struct pf_ports *ports, bool udp)
{
	for (int v6 = 0; v6 < 2; v6++) {
		unsigned int set;
		if (!match_nets(b, nets, n, v6, &set))
			continue;
		rule_daddr_set(b, v6, set);
		pf_nftmsg_l4proto(&b->m, udp ? IPPROTO_UDP : IPPROTO_TCP);
		if (ports) {
			pf_nftmsg_load_dport(&b->m);
			pf_nftmsg_range(&b->m, ports->lo, ports->hi);
		}
		pf_nftmsg_redirect(&b->m, udp ? PF_NFT_UDP_PORT : PF_NFT_RELAY_PORT);
		pf_nftmsg_end_rule(&b->m);
	}
}

static void redirect_dns(struct builder *b)
{
	static const uint8_t protos[] = {IPPROTO_UDP, IPPROTO_TCP};
	uint16_t port = htons(53);

	for (size_t i = 0; i < 2; i++) {
		pf_nftmsg_rule(&b->m, CHAIN_NAT);
		pf_nftmsg_l4proto(&b->m, protos[i]);
		pf_nftmsg_load_dport(&b->m);
		pf_nftmsg_cmp(&b->m, true, &port, sizeof(port));
		pf_nftmsg_redirect(&b->m, PF_NFT_DNS_PORT);
		pf_nftmsg_end_rule(&b->m);
	}
}

static void match_loopback(struct builder *b, const char *chain, bool v6)
{
	static const uint8_t net = 127;

	pf_nftmsg_rule(&b->m, chain);
	pf_nftmsg_family(&b->m, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
	pf_nftmsg_load_daddr(&b->m, v6);
	if (v6) {
		pf_nftmsg_cmp(&b->m, true, &in6addr_loopback, 16);
	} else {
		const uint8_t mask[4] = {0xff}, want[4] = {net};
		pf_nftmsg_mask(&b->m, mask, 4);
		pf_nftmsg_cmp(&b->m, true, want, 4);
	}
}

static void redirect_synthetic(struct builder *b, const struct pf_nft *t, const struct pf_policy *p, bool udp)
{
	size_t n;
	PF_FREE struct pf_ports *ports = pf_policy_host_ports(p, udp, &n);
	unsigned int set = 0;
	char name[16];

	if (!ports)
		return;
	bool all = n == 1 && ports[0].lo <= 1 && ports[0].hi == 65535;
	if (!all) {
		set = b->n_sets++;
		set_name(name, set);
		pf_nftmsg_set(&b->m, name, set + 1, TYPE_PORT, 2);
		pf_nftmsg_set_ports(&b->m, name, set + 1, ports, n);
	}
	for (int v6 = 0; v6 < 2; v6++) {
		const uint32_t mask4 = htonl(~0U << (32 - PF_SYNTH_PREFIX4)), net4 = htonl(PF_SYNTH_NET4);
		const uint8_t mask6[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
		pf_nftmsg_rule(&b->m, CHAIN_NAT);
		pf_nftmsg_family(&b->m, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
		pf_nftmsg_load_daddr(&b->m, v6);
		if (v6) {
			pf_nftmsg_mask(&b->m, mask6, 16);
			pf_nftmsg_cmp(&b->m, true, &t->synth6, 16);
		} else {
			pf_nftmsg_mask(&b->m, &mask4, 4);
			pf_nftmsg_cmp(&b->m, true, &net4, 4);
		}
		pf_nftmsg_l4proto(&b->m, udp ? IPPROTO_UDP : IPPROTO_TCP);
		if (!all) {
			pf_nftmsg_load_dport(&b->m);
			pf_nftmsg_in_set(&b->m, name, set + 1);
		}
		pf_nftmsg_redirect(&b->m, udp ? PF_NFT_UDP_PORT : PF_NFT_RELAY_PORT);
		pf_nftmsg_end_rule(&b->m);
	}
}

enum group_kind { GROUP_DENIED, GROUP_PRIVATE, GROUP_PUBLIC, GROUP_UDP };

static bool in_group(const struct pf_policy *p, const struct pf_rule *r, enum group_kind kind)
{
	if (r->host)
		return false;
	if (r->denied || kind == GROUP_DENIED)
		return r->denied && kind == GROUP_DENIED;
	/* Which addresses a datagram may go to in the end is decided where it is sent. */
	if (r->udp || kind == GROUP_UDP)
		return r->udp && kind == GROUP_UDP;
	return pf_policy_cidr_private(p, r) == (kind == GROUP_PRIVATE);
}

static int by_range(const void *a, const void *b)
{
	const struct pf_ports *x = a, *y = b;
	return x->lo != y->lo ? (int)x->lo - (int)y->lo : (int)x->hi - (int)y->hi;
}

/* The networks of one kind, one set per distinct port range. */
static int add_group(struct builder *b, const struct pf_policy *p, enum group_kind kind, struct pf_err *err)
{
	size_t n, n_ranges = 0, n_all = 0, cap = 0;
	const struct pf_rule *rules = pf_policy_rules(p, &n);

	for (size_t i = 0; i < n; i++)
		if (in_group(p, &rules[i], kind))
			cap += rules[i].n_ports ? rules[i].n_ports : 1;
	if (cap == 0)
		return 0;
	PF_FREE struct pf_ports *ranges = pf_calloc(cap, sizeof(*ranges));
	PF_FREE struct pf_cidr *nets = pf_calloc(cap, sizeof(*nets));
	for (size_t i = 0; i < n; i++) {
		if (!in_group(p, &rules[i], kind))
			continue;
		if (rules[i].n_ports == 0)
			nets[n_all++] = rules[i].cidr;
		for (uint32_t k = 0; k < rules[i].n_ports; k++)
			ranges[n_ranges++] = rules[i].ports[k];
	}
	if (n_all) {
		if (kind == GROUP_DENIED)
			leave_alone(b, nets, n_all, NULL);
		else
			redirect_nets(b, nets, n_all, NULL, kind == GROUP_UDP);
	}
	qsort(ranges, n_ranges, sizeof(*ranges), by_range);
	unsigned int groups = 0;
	for (size_t i = 0; i < n_ranges; i++) {
		if (i && by_range(&ranges[i - 1], &ranges[i]) == 0)
			continue;
		if (++groups > MAX_PORT_GROUPS)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"networking: more than %d different port ranges among networks; merge some",
				MAX_PORT_GROUPS);
		size_t k = 0;
		for (size_t r = 0; r < n; r++)
			if (in_group(p, &rules[r], kind))
				for (uint32_t q = 0; q < rules[r].n_ports; q++)
					if (by_range(&rules[r].ports[q], &ranges[i]) == 0)
						nets[k++] = rules[r].cidr;
		if (kind == GROUP_DENIED)
			leave_alone(b, nets, k, &ranges[i]);
		else
			redirect_nets(b, nets, k, &ranges[i], kind == GROUP_UDP);
	}
	return 0;
}

static int add_nat_rules(
	struct builder *b, const struct pf_nft *t, const struct pf_policy *p, struct pf_err *err)
{
	size_t n;
	const struct pf_cidr *nonpublic = pf_addr_nonpublic(&n);

	if (t->mark)
		pf_nft_joined_nat(&b->m, CHAIN_NAT, t->mark);
	redirect_dns(b);
	if (t->mark)
		pf_nft_joined_own(&b->m, CHAIN_NAT, PF_SYNTH_NET4, PF_SYNTH_PREFIX4, &t->synth6);
	for (int v6 = 0; v6 < 2; v6++) {
		match_loopback(b, CHAIN_NAT, v6);
		pf_nftmsg_verdict(&b->m, NF_ACCEPT);
		pf_nftmsg_end_rule(&b->m);
	}
	if (pf_policy_type(p) == PF_POLICY_NONE)
		return 0;
	if (add_group(b, p, GROUP_DENIED, err) < 0)
		return -1;
	redirect_synthetic(b, t, p, false);
	redirect_synthetic(b, t, p, true);
	if (add_group(b, p, GROUP_UDP, err) < 0 || add_group(b, p, GROUP_PRIVATE, err) < 0)
		return -1;

	bool unrestricted = pf_policy_type(p) == PF_POLICY_UNRESTRICTED, public_nets = false;
	size_t n_rules;
	const struct pf_rule *rules = pf_policy_rules(p, &n_rules);
	for (size_t i = 0; i < n_rules && !public_nets; i++)
		public_nets = in_group(p, &rules[i], GROUP_PUBLIC);
	if (!unrestricted && !public_nets)
		return 0;
	leave_alone(b, nonpublic, n, NULL);
	if (!unrestricted)
		return add_group(b, p, GROUP_PUBLIC, err);
	pf_nftmsg_rule(&b->m, CHAIN_NAT);
	pf_nftmsg_l4proto(&b->m, IPPROTO_TCP);
	pf_nftmsg_redirect(&b->m, PF_NFT_RELAY_PORT);
	pf_nftmsg_end_rule(&b->m);
	return 0;
}

/* What the kernel sends by itself: resets, and the errors our own reject rule makes. The payload has no raw
 * sockets to forge them, and they could only reach itself. */
static void accept_kernel_answers(struct builder *b)
{
	const uint8_t unreach4 = ICMP_DEST_UNREACH, unreach6 = ICMP6_DST_UNREACH, rst = 0x04, zero = 0;

	pf_nftmsg_rule(&b->m, CHAIN_FILTER);
	pf_nftmsg_l4proto(&b->m, IPPROTO_ICMP);
	pf_nftmsg_load_transport(&b->m, 0, 1);
	pf_nftmsg_cmp(&b->m, true, &unreach4, 1);
	pf_nftmsg_verdict(&b->m, NF_ACCEPT);
	pf_nftmsg_end_rule(&b->m);

	pf_nftmsg_rule(&b->m, CHAIN_FILTER);
	pf_nftmsg_l4proto(&b->m, IPPROTO_ICMPV6);
	pf_nftmsg_load_transport(&b->m, 0, 1);
	pf_nftmsg_cmp(&b->m, true, &unreach6, 1);
	pf_nftmsg_verdict(&b->m, NF_ACCEPT);
	pf_nftmsg_end_rule(&b->m);

	pf_nftmsg_rule(&b->m, CHAIN_FILTER);
	pf_nftmsg_l4proto(&b->m, IPPROTO_TCP);
	pf_nftmsg_load_transport(&b->m, 13, 1);
	pf_nftmsg_mask(&b->m, &rst, 1);
	pf_nftmsg_cmp(&b->m, false, &zero, 1);
	pf_nftmsg_verdict(&b->m, NF_ACCEPT);
	pf_nftmsg_end_rule(&b->m);
}

/* Segments of connections that are over would be logged as attempts; only a SYN is one. */
static void drop_strays(struct builder *b)
{
	const uint8_t syn = 0x02, zero = 0;

	pf_nftmsg_rule(&b->m, CHAIN_FILTER);
	pf_nftmsg_l4proto(&b->m, IPPROTO_TCP);
	pf_nftmsg_load_transport(&b->m, 13, 1);
	pf_nftmsg_mask(&b->m, &syn, 1);
	pf_nftmsg_cmp(&b->m, true, &zero, 1);
	pf_nftmsg_verdict(&b->m, NF_DROP);
	pf_nftmsg_end_rule(&b->m);
}

/* The rule can name a cgroup above the socket's at a level only, and the deepest that there is, is the
 * socket's own: each sets the mark anew. It is the log that reads it; the packet goes no further. */
static void add_who_rules(struct builder *b)
{
	pf_nftmsg_subchain(&b->m, CHAIN_WHO);
	for (uint32_t level = 1; level <= CGROUP_LEVELS; level++) {
		pf_nftmsg_rule(&b->m, CHAIN_WHO);
		pf_nftmsg_load_cgroup(&b->m, level);
		pf_nftmsg_store_mark(&b->m);
		pf_nftmsg_end_rule(&b->m);
	}
}

/* In the rule at hand: what it matches is rejected next. */
static void count_and_log(struct builder *b)
{
	pf_nftmsg_count(&b->m, COUNTER);
	pf_nftmsg_limit(&b->m, LOG_PER_SECOND, LOG_BURST);
	pf_nftmsg_log(&b->m, PF_NFT_LOG_GROUP, LOG_SNAPLEN);
	pf_nftmsg_end_rule(&b->m);
}

static void match_listeners(struct builder *b, uint8_t proto)
{
	pf_nftmsg_rule(&b->m, CHAIN_FILTER);
	pf_nftmsg_l4proto(&b->m, proto);
	pf_nftmsg_load_dport(&b->m);
	pf_nftmsg_range(&b->m, PF_NFT_RELAY_PORT, PF_NFT_UDP_PORT);
}

static void reject(struct builder *b, bool only_listeners, bool who)
{
	static const uint8_t protos[] = {IPPROTO_TCP, IPPROTO_UDP};

	for (size_t i = 0; i < 2; i++) {
		if (only_listeners) {
			if (who) {
				match_listeners(b, protos[i]);
				pf_nftmsg_jump(&b->m, CHAIN_WHO);
				pf_nftmsg_end_rule(&b->m);
			}
			match_listeners(b, protos[i]);
			count_and_log(b);
			match_listeners(b, protos[i]);
		} else {
			pf_nftmsg_rule(&b->m, CHAIN_FILTER);
			pf_nftmsg_l4proto(&b->m, protos[i]);
		}
		if (protos[i] == IPPROTO_TCP)
			pf_nftmsg_reject(&b->m, NFT_REJECT_TCP_RST, 0);
		else
			pf_nftmsg_reject(&b->m, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
		pf_nftmsg_end_rule(&b->m);
	}
}

static void add_filter_rules(struct builder *b, const struct pf_nft *t)
{
	const uint32_t dnat = IPS_DST_NAT, zero = 0; /* register content: host order */

	if (t->mark)
		pf_nft_joined_filter(&b->m, CHAIN_FILTER, t->mark);
	pf_nftmsg_rule(&b->m, CHAIN_FILTER);
	pf_nftmsg_load_ct(&b->m, NFT_CT_STATUS);
	pf_nftmsg_mask(&b->m, &dnat, sizeof(dnat));
	pf_nftmsg_cmp(&b->m, false, &zero, sizeof(zero));
	pf_nftmsg_verdict(&b->m, NF_ACCEPT);
	pf_nftmsg_end_rule(&b->m);

	accept_kernel_answers(b);
	reject(b, true, !t->nameless);
	for (int v6 = 0; v6 < 2; v6++) {
		match_loopback(b, CHAIN_FILTER, v6);
		pf_nftmsg_verdict(&b->m, NF_ACCEPT);
		pf_nftmsg_end_rule(&b->m);
	}
	if (t->mark)
		pf_nft_joined_own(&b->m, CHAIN_FILTER, PF_SYNTH_NET4, PF_SYNTH_PREFIX4, &t->synth6);
	drop_strays(b);

	if (!t->nameless) {
		pf_nftmsg_rule(&b->m, CHAIN_FILTER);
		pf_nftmsg_jump(&b->m, CHAIN_WHO);
		pf_nftmsg_end_rule(&b->m);
	}
	pf_nftmsg_rule(&b->m, CHAIN_FILTER);
	count_and_log(b);
	reject(b, false, false);
	pf_nftmsg_rule(&b->m, CHAIN_FILTER);
	pf_nftmsg_reject(&b->m, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	pf_nftmsg_end_rule(&b->m);
}

static int netlink_socket(int protocol, struct pf_err *err)
{
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK};
	PF_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);

	if (fd < 0)
		return pf_fail_kind(err, errno == EPROTONOSUPPORT ? PF_ERR_UNSUPPORTED : PF_ERR_SYSTEM, errno,
			"netfilter netlink socket (is CONFIG_NETFILTER_NETLINK in the kernel?)");
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return pf_fail(err, errno, "bind the netfilter netlink socket");
	return pf_take_fd(&fd);
}

int pf_nft_open(struct pf_nft *t, const struct in6_addr *synth6, struct pf_err *err)
{
	*t = (struct pf_nft){.fd = netlink_socket(NETLINK_NETFILTER, err), .seq = 1, .synth6 = *synth6};
	return t->fd < 0 ? -1 : 0;
}

void pf_nft_close(struct pf_nft *t)
{
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

/* nf_tables answers within sendmsg, so every answer is already there; whatever is left over from a batch that
 * failed is read too, or it would be taken for the next batch's. */
static int read_answers(struct pf_nft *t)
{
	_Alignas(struct nlmsghdr) char buf[16384];
	bool acked = false;
	int error = 0;
	ssize_t n;

	while ((n = recv(t->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		int left = (int)n;
		for (struct nlmsghdr *h = (struct nlmsghdr *)buf; mnl_nlmsg_ok(h, left);
			h = mnl_nlmsg_next(h, &left)) {
			if (h->nlmsg_type != NLMSG_ERROR ||
				h->nlmsg_len < mnl_nlmsg_size(sizeof(struct nlmsgerr)))
				continue;
			int e = ((struct nlmsgerr *)mnl_nlmsg_get_payload(h))->error;
			if (e == 0)
				acked = true;
			else if (!error)
				error = -e;
		}
	}
	if (n < 0 && errno == ENOBUFS && !error)
		error = ENOBUFS;
	return error ? error : acked ? 0 : EPROTO;
}

static int send_batch(struct pf_nft *t, const struct pf_nftmsg *m, struct pf_err *err)
{
	int size = (int)(m->len < (1 << 30) ? m->len * 2 : 1 << 30);

	/* A batch is one message to the kernel and must fit the socket's send buffer whole. */
	if (m->len > 100000 && setsockopt(t->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(t->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	t->seq = m->seq;
	if (send(t->fd, m->buf, m->len, 0) < 0)
		return pf_fail(err, errno, "nf_tables: send %zu bytes of rules%s", m->len,
			errno == EMSGSIZE ? " (raise net.core.wmem_max or merge networks)" : "");
	int e = read_answers(t);
	if (e)
		return pf_fail_kind(err, e == EOPNOTSUPP || e == ENOENT ? PF_ERR_UNSUPPORTED : PF_ERR_SYSTEM,
			e,
			"nf_tables: load table inet " PF_NFT_TABLE
			" (the kernel needs NF_TABLES_INET, NFT_CT, NFT_REDIR, NFT_LOG, NFT_LIMIT, "
			"NFT_REJECT)");
	return 0;
}

static int load(struct pf_nft *t, const struct pf_policy *p, struct pf_err *err)
{
	struct builder b = {0};
	char name[16];

	pf_nftmsg_begin_batch(&b.m, t->seq);
	if (t->loaded) {
		pf_nftmsg_flush_chain(&b.m, CHAIN_NAT);
		for (unsigned int i = 0; i < t->n_sets; i++) {
			set_name(name, i);
			pf_nftmsg_del_set(&b.m, name);
		}
	} else {
		pf_nftmsg_table(&b.m);
		if (t->replace) {
			pf_nftmsg_del_table(&b.m);
			pf_nftmsg_table(&b.m);
		}
		pf_nftmsg_counter(&b.m, COUNTER);
		pf_nftmsg_chain(&b.m, CHAIN_NAT, "nat", NF_INET_LOCAL_OUT, PRIORITY_DSTNAT, NF_ACCEPT);
		pf_nftmsg_chain(&b.m, CHAIN_FILTER, "filter", NF_INET_LOCAL_OUT, PRIORITY_FILTER, NF_DROP);
		if (t->mark)
			pf_nft_joined_chains(&b.m, t->mark);
		if (!t->nameless)
			add_who_rules(&b);
		add_filter_rules(&b, t);
	}
	int r = add_nat_rules(&b, t, p, err);
	if (r == 0) {
		pf_nftmsg_end_batch(&b.m);
		r = send_batch(t, &b.m, err);
	}
	pf_nftmsg_done(&b.m);
	if (r < 0)
		return -1;
	t->loaded = true;
	t->n_sets = b.n_sets;
	return 0;
}

int pf_nft_load(struct pf_nft *t, const struct pf_policy *p, struct pf_err *err)
{
	struct pf_err first = PF_ERR_INIT;

	if (t->loaded || t->nameless)
		return load(t, p, err);
	if (load(t, p, &first) == 0)
		return 0;
	/* A name in the log is a help, not a promise: without it where the kernel has no NFT_SOCKET. */
	t->nameless = true;
	if (load(t, p, err) == 0)
		return 0;
	t->nameless = false;
	*err = first;
	return -1;
}

void pf_nft_unload(struct pf_nft *t)
{
	struct pf_err ignored = PF_ERR_INIT;
	struct pf_nftmsg m;

	if (!t->loaded)
		return;
	pf_nftmsg_begin_batch(&m, t->seq);
	pf_nftmsg_del_table(&m);
	pf_nftmsg_end_batch(&m);
	(void)send_batch(t, &m, &ignored);
	pf_nftmsg_done(&m);
	t->loaded = false;
}

static int counter_attr(const struct nlattr *a, void *data)
{
	if (mnl_attr_get_type(a) == NFTA_COUNTER_PACKETS && mnl_attr_validate(a, MNL_TYPE_U64) == 0)
		*(int64_t *)data = (int64_t)be64toh(mnl_attr_get_u64(a));
	return MNL_CB_OK;
}

static int object_attr(const struct nlattr *a, void *data)
{
	return mnl_attr_get_type(a) == NFTA_OBJ_DATA ? mnl_attr_parse_nested(a, counter_attr, data)
						     : MNL_CB_OK;
}

int64_t pf_nft_denied(struct pf_nft *t)
{
	_Alignas(struct nlmsghdr) char buf[4096];
	int64_t packets = -1;
	ssize_t n;

	memset(buf, 0, sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg));
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	h->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETOBJ;
	h->nlmsg_flags = NLM_F_REQUEST;
	h->nlmsg_seq = t->seq++;
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	g->nfgen_family = NFPROTO_INET;
	mnl_attr_put_strz(h, NFTA_OBJ_TABLE, PF_NFT_TABLE);
	mnl_attr_put_strz(h, NFTA_OBJ_NAME, COUNTER);
	mnl_attr_put_u32(h, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
	if (send(t->fd, buf, h->nlmsg_len, 0) < 0)
		return -1;
	while ((n = recv(t->fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		int left = (int)n;
		for (h = (struct nlmsghdr *)buf; mnl_nlmsg_ok(h, left); h = mnl_nlmsg_next(h, &left))
			if (h->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWOBJ))
				mnl_attr_parse(h, sizeof(struct nfgenmsg), object_attr, &packets);
	}
	return packets;
}

/* --- the log ------------------------------------------------------------------------------------------- */

int pf_nft_log_open(struct pf_err *err)
{
	_Alignas(struct nlmsghdr) char buf[512] = {0};
	PF_CLOSE int fd = netlink_socket(NETLINK_NETFILTER, err);

	if (fd < 0)
		return -1;
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	h->nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	g->res_id = htons(PF_NFT_LOG_GROUP);
	struct nfulnl_msg_config_cmd cmd = {.command = NFULNL_CFG_CMD_BIND};
	struct nfulnl_msg_config_mode mode = {
		.copy_mode = NFULNL_COPY_PACKET, .copy_range = htonl(LOG_SNAPLEN)};
	mnl_attr_put(h, NFULA_CFG_CMD, sizeof(cmd), &cmd);
	mnl_attr_put(h, NFULA_CFG_MODE, sizeof(mode), &mode);
	mnl_attr_put_u32(h, NFULA_CFG_NLBUFSIZ, htonl(4096));
	mnl_attr_put_u32(h, NFULA_CFG_QTHRESH, htonl(1)); /* each at once: the rules limit the rate */
	if (send(fd, buf, h->nlmsg_len, 0) < 0)
		return pf_fail(err, errno, "nflog: configure");
	struct pf_nft as_nft = {.fd = fd};
	int e = read_answers(&as_nft);
	if (e)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, e,
			"nflog: bind group %d (the kernel needs NETFILTER_NETLINK_LOG)", PF_NFT_LOG_GROUP);
	return pf_take_fd(&fd);
}

static bool parse_packet(const uint8_t *ip, size_t len, struct pf_nft_packet *p)
{
	size_t l4;

	*p = (struct pf_nft_packet){0};
	if (len >= 20 && ip[0] >> 4 == 4) {
		struct sockaddr_in *sin = (struct sockaddr_in *)&p->dst;
		sin->sin_family = AF_INET;
		memcpy(&sin->sin_addr, ip + 16, 4);
		p->proto = ip[9];
		l4 = (size_t)(ip[0] & 15) * 4;
	} else if (len >= 40 && ip[0] >> 4 == 6) {
		struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&p->dst;
		sin6->sin6_family = AF_INET6;
		memcpy(&sin6->sin6_addr, ip + 24, 16);
		p->proto = ip[6];
		l4 = 40;
	} else {
		return false;
	}
	if ((p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP) && len >= l4 + 4)
		memcpy(&((struct sockaddr_in *)&p->dst)->sin_port, ip + l4 + 2, 2);
	return true;
}

struct payload {
	const uint8_t *data;
	size_t len;
	uint32_t mark;
};

static int payload_attr(const struct nlattr *a, void *data)
{
	struct payload *p = data;

	if (mnl_attr_get_type(a) == NFULA_PAYLOAD) {
		p->data = mnl_attr_get_payload(a);
		p->len = mnl_attr_get_payload_len(a);
	} else if (mnl_attr_get_type(a) == NFULA_MARK && mnl_attr_validate(a, MNL_TYPE_U32) == 0) {
		p->mark = ntohl(mnl_attr_get_u32(a));
	}
	return MNL_CB_OK;
}

void pf_nft_log_read(int fd, void (*fn)(void *arg, const struct pf_nft_packet *), void *arg)
{
	_Alignas(struct nlmsghdr) char buf[8192];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		int left = (int)n;
		for (struct nlmsghdr *h = (struct nlmsghdr *)buf; mnl_nlmsg_ok(h, left);
			h = mnl_nlmsg_next(h, &left)) {
			struct pf_nft_packet p;
			struct payload payload = {0};
			if (h->nlmsg_type != (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET))
				continue;
			mnl_attr_parse(h, sizeof(struct nfgenmsg), payload_attr, &payload);
			if (!payload.data || !parse_packet(payload.data, payload.len, &p))
				continue;
			p.cgroup = payload.mark;
			fn(arg, &p);
		}
	}
}
