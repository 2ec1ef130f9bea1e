/* What the packet filter has more when its namespace is one that somebody else made, with devices in it. */
#ifndef PF_NETPOLICY_NFT_JOINED_H
#define PF_NETPOLICY_NFT_JOINED_H

#include <netinet/in.h>
#include <stdint.h>

#include "netpolicy/nftmsg.h"

/* All of these add to a batch. mark is that of the keeper's own sockets, not 0. */

/* The chains that output is not enough for; once, with the table. */
void pf_nft_joined_chains(struct pf_nftmsg *m, uint32_t mark);
/* The beginning of the nat chain: the keeper's own dials are not redirected. */
void pf_nft_joined_nat(struct pf_nftmsg *m, const char *chain, uint32_t mark);
/* The beginning of the filter chain: what leaves. */
void pf_nft_joined_filter(struct pf_nftmsg *m, const char *chain, uint32_t mark);
/* Accept what goes to the namespace's own addresses, which the synthetic ones are not. */
void pf_nft_joined_own(
	struct pf_nftmsg *m, const char *chain, uint32_t net4, int prefix4, const struct in6_addr *synth6);

#endif
