/* The packet filter of a sandbox's network namespace: table inet pinfold, spoken to the kernel directly. */
#ifndef PF_NETPOLICY_NFT_H
#define PF_NETPOLICY_NFT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "netpolicy/policy.h"

/* The keeper's listeners in the namespace, on 127.0.0.1 and ::1. The namespace is new when they are bound, so
 * they are always free; they lie where no server of a payload listens. */
#define PF_NFT_RELAY_PORT 1
#define PF_NFT_DNS_PORT 2
#define PF_NFT_UDP_PORT 3
/* nflog group of denied packets. */
#define PF_NFT_LOG_GROUP 1

/* 198.18.0.0/15, and the /64 of this sandbox. */
#define PF_SYNTH_NET4 0xc6120000U
#define PF_SYNTH_PREFIX4 15

struct pf_nft {
	int fd; /* nfnetlink socket of the namespace it was opened in */
	uint32_t seq;
	unsigned int n_sets;    /* policy sets now in the kernel: p0 … */
	struct in6_addr synth6; /* /64 */
	/* 0: a namespace of our own, with lo alone. Else one with devices that somebody else made, where this
	   is the mark of the keeper's own sockets (nft_joined.h). To be set before the rules are loaded. */
	uint32_t mark;
	bool replace; /* a table may be there, of a keeper that was killed; as mark */
	bool loaded;
	bool nameless; /* the kernel cannot tell whose socket a packet is of */
};

/* Called inside the namespace. */
int pf_nft_open(struct pf_nft *t, const struct in6_addr *synth6, struct pf_err *err);
/* Load or replace the rules: one atomic batch. On failure the old rules stand. Works from any namespace. */
int pf_nft_load(struct pf_nft *t, const struct pf_policy *p, struct pf_err *err);
/* Take the table away again, if it was loaded. */
void pf_nft_unload(struct pf_nft *t);
/* Packets rejected so far; -1 when the kernel does not say. */
int64_t pf_nft_denied(struct pf_nft *t);
void pf_nft_close(struct pf_nft *t);

/* A denied packet, from the log group. */
struct pf_nft_packet {
	struct sockaddr_storage dst; /* with port for TCP and UDP */
	int proto;
	/* The v2 cgroup of the socket that sent it, the lower half of its id; 0: not known. Ids are counted
	 * up from the boot of the machine: the upper half is 0. */
	uint32_t cgroup;
};
/* A netlink socket (non-blocking) that receives the log of the namespace it is opened in. -1 with err. */
int pf_nft_log_open(struct pf_err *err);
/* Read what is there and call fn for each packet. */
void pf_nft_log_read(int fd, void (*fn)(void *arg, const struct pf_nft_packet *), void *arg);

#endif
