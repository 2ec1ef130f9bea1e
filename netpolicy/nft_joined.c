/* Theory of operation.
 *
 * A pod's namespace has a device to the outside, and others connect to it there: a kubelet that probes, a
 * service's clients. So "nothing can leave" is a matter of rules here, and the rules have to say what may:
 *
 *   chain mark (prerouting)
 *     what begins a connection and came in by a device   its connection gets the mark
 *   chain filter (output), before what every sandbox has
 *     the keeper's own packets                           accept, but not to the namespace itself
 *     replies of connections with the mark               accept
 *     neighbour discovery, router solicitations          accept
 *   chain leave (postrouting, policy drop)
 *     to the loopback device, and the three above        accept: whatever other chains say, this is all
 *   chain forward (policy drop)                          nothing passes through
 *
 * The mark of the keeper's packets is a socket's (SO_MARK), and that takes CAP_NET_ADMIN or CAP_NET_RAW over
 * the namespace, which no payload under a policy has; it is drawn at random for each gate. Their way to the
 * namespace itself is barred, because there the payload could play the resolver. The mark of a connection is
 * set by these rules alone. Replies need it, and not only their direction: a payload that could put a packet
 * on lo as if it came from far away would else make its own answer a reply.
 *
 * None of this depends on the keeper being alive: without it nobody has the mark, nobody listens where the
 * nat chain redirects to, and nothing leaves but replies. */
#include "netpolicy/nft_joined.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <netinet/icmp6.h>

#define CHAIN_MARK "mark"
#define CHAIN_LEAVE "leave"
#define CHAIN_FORWARD "forward"
#define PRIORITY_MANGLE (-150) /* after connection tracking */
#define PRIORITY_LAST 300      /* after source nat */
#define LOOPBACK_INDEX 1       /* lo is the first device of every namespace */
#define CT_STATE_NEW 8         /* NF_CT_STATE_BIT(IP_CT_NEW) */
#define CT_DIR_REPLY 1         /* IP_CT_DIR_REPLY */

static void match32(struct pf_nftmsg *m, bool equal, uint32_t v)
{
	pf_nftmsg_cmp(m, equal, &v, sizeof(v));
}

static void accept_rule(struct pf_nftmsg *m)
{
	pf_nftmsg_verdict(m, NF_ACCEPT);
	pf_nftmsg_end_rule(m);
}

static void accept_replies(struct pf_nftmsg *m, const char *chain, uint32_t mark)
{
	const uint8_t reply = CT_DIR_REPLY;

	pf_nftmsg_rule(m, chain);
	pf_nftmsg_load_ct(m, NFT_CT_DIRECTION);
	pf_nftmsg_cmp(m, true, &reply, sizeof(reply));
	pf_nftmsg_load_ct(m, NFT_CT_MARK);
	match32(m, true, mark);
	accept_rule(m);
}

/* Without raw sockets only the kernel sends these. */
static void accept_discovery(struct pf_nftmsg *m, const char *chain)
{
	static const uint8_t types[] = {ND_ROUTER_SOLICIT, ND_NEIGHBOR_SOLICIT, ND_NEIGHBOR_ADVERT};

	for (size_t i = 0; i < sizeof(types); i++) {
		pf_nftmsg_rule(m, chain);
		pf_nftmsg_l4proto(m, IPPROTO_ICMPV6);
		pf_nftmsg_load_transport(m, 0, 1);
		pf_nftmsg_cmp(m, true, &types[i], 1);
		accept_rule(m);
	}
}

static void match_mark(struct pf_nftmsg *m, const char *chain, uint32_t mark)
{
	pf_nftmsg_rule(m, chain);
	pf_nftmsg_load_meta(m, NFT_META_MARK);
	match32(m, true, mark);
}

void pf_nft_joined_chains(struct pf_nftmsg *m, uint32_t mark)
{
	const uint32_t zero = 0, new = CT_STATE_NEW;

	pf_nftmsg_chain(m, CHAIN_MARK, "filter", NF_INET_PRE_ROUTING, PRIORITY_MANGLE, NF_ACCEPT);
	pf_nftmsg_rule(m, CHAIN_MARK);
	pf_nftmsg_load_meta(m, NFT_META_IIF);
	match32(m, false, LOOPBACK_INDEX);
	pf_nftmsg_load_ct(m, NFT_CT_STATE);
	pf_nftmsg_mask(m, &new, sizeof(new));
	pf_nftmsg_cmp(m, false, &zero, sizeof(zero));
	pf_nftmsg_set_ct_mark(m, mark);
	pf_nftmsg_end_rule(m);

	pf_nftmsg_chain(m, CHAIN_LEAVE, "filter", NF_INET_POST_ROUTING, PRIORITY_LAST, NF_DROP);
	pf_nftmsg_rule(m, CHAIN_LEAVE);
	pf_nftmsg_load_meta(m, NFT_META_OIF);
	match32(m, true, LOOPBACK_INDEX);
	accept_rule(m);
	match_mark(m, CHAIN_LEAVE, mark);
	accept_rule(m);
	accept_replies(m, CHAIN_LEAVE, mark);
	accept_discovery(m, CHAIN_LEAVE);

	pf_nftmsg_chain(m, CHAIN_FORWARD, "filter", NF_INET_FORWARD, 0, NF_DROP);
}

void pf_nft_joined_nat(struct pf_nftmsg *m, const char *chain, uint32_t mark)
{
	match_mark(m, chain, mark);
	accept_rule(m);
}

void pf_nft_joined_filter(struct pf_nftmsg *m, const char *chain, uint32_t mark)
{
	match_mark(m, chain, mark);
	pf_nftmsg_load_meta(m, NFT_META_OIF);
	match32(m, true, LOOPBACK_INDEX);
	pf_nftmsg_reject(m, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	pf_nftmsg_end_rule(m);
	match_mark(m, chain, mark);
	accept_rule(m);
	accept_replies(m, chain, mark);
	accept_discovery(m, chain);
}

void pf_nft_joined_own(
	struct pf_nftmsg *m, const char *chain, uint32_t net4, int prefix4, const struct in6_addr *synth6)
{
	const uint32_t mask4 = htonl(~0U << (32 - prefix4)), synth4 = htonl(net4);
	const uint8_t mask6[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	for (int v6 = 0; v6 < 2; v6++) {
		pf_nftmsg_rule(m, chain);
		pf_nftmsg_family(m, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
		pf_nftmsg_load_meta(m, NFT_META_OIF);
		match32(m, true, LOOPBACK_INDEX);
		pf_nftmsg_load_daddr(m, v6);
		if (v6) {
			pf_nftmsg_mask(m, mask6, 16);
			pf_nftmsg_cmp(m, false, synth6, 16);
		} else {
			pf_nftmsg_mask(m, &mask4, 4);
			pf_nftmsg_cmp(m, false, &synth4, 4);
		}
		accept_rule(m);
	}
}
