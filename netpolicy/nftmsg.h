/* Building nf_tables netlink messages: one growing batch, and one function per expression we use. */
#ifndef PF_NETPOLICY_NFTMSG_H
#define PF_NETPOLICY_NFTMSG_H

#include <libmnl/libmnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "netpolicy/entry.h"

#define PF_NFT_TABLE "pinfold"

struct pf_nftmsg {
	char *buf;
	size_t len, cap;
	struct nlmsghdr *h;   /* the message being built */
	struct nlattr *exprs; /* its open expression list */
	uint32_t seq;
};

void pf_nftmsg_begin_batch(struct pf_nftmsg *m, uint32_t seq);
/* Close the batch; the last message before the end asks for an acknowledgement. */
void pf_nftmsg_end_batch(struct pf_nftmsg *m);
void pf_nftmsg_done(struct pf_nftmsg *m);

void pf_nftmsg_table(struct pf_nftmsg *m);
/* The table with all that is in it; it must be there. */
void pf_nftmsg_del_table(struct pf_nftmsg *m);
void pf_nftmsg_counter(struct pf_nftmsg *m, const char *name);
/* A base chain on hooknum (NF_INET_*). */
void pf_nftmsg_chain(
	struct pf_nftmsg *m, const char *name, const char *type, uint32_t hooknum, int prio, uint32_t policy);
/* A chain that rules of others jump to. */
void pf_nftmsg_subchain(struct pf_nftmsg *m, const char *name);
void pf_nftmsg_flush_chain(struct pf_nftmsg *m, const char *name);
/* An interval set: key_type and key_len as `nft` knows them. */
void pf_nftmsg_set(struct pf_nftmsg *m, const char *name, uint32_t id, uint32_t key_type, uint32_t key_len);
void pf_nftmsg_del_set(struct pf_nftmsg *m, const char *name);
/* Networks of one family, in any order, overlapping or not. */
void pf_nftmsg_set_nets(struct pf_nftmsg *m, const char *name, uint32_t id, const struct pf_cidr *nets,
	size_t n, sa_family_t family);
/* Port ranges, sorted and apart. */
void pf_nftmsg_set_ports(
	struct pf_nftmsg *m, const char *name, uint32_t id, const struct pf_ports *ports, size_t n);

void pf_nftmsg_rule(struct pf_nftmsg *m, const char *chain);
void pf_nftmsg_end_rule(struct pf_nftmsg *m);
/* Matches; all work on register 1. */
void pf_nftmsg_family(struct pf_nftmsg *m, uint8_t nfproto);
void pf_nftmsg_l4proto(struct pf_nftmsg *m, uint8_t proto);
void pf_nftmsg_cmp(struct pf_nftmsg *m, bool equal, const void *data, size_t len);
void pf_nftmsg_load_daddr(struct pf_nftmsg *m, bool v6);
void pf_nftmsg_load_dport(struct pf_nftmsg *m);
void pf_nftmsg_load_transport(struct pf_nftmsg *m, uint32_t offset, uint32_t len);
void pf_nftmsg_load_meta(struct pf_nftmsg *m, uint32_t key); /* NFT_META_* */
void pf_nftmsg_load_ct(struct pf_nftmsg *m, uint32_t key);   /* NFT_CT_*; marks and states in host order */
/* The id of the v2 cgroup that the packet's socket is of, or of the one above it at this level below the
 * root. No match when there is none so deep. */
void pf_nftmsg_load_cgroup(struct pf_nftmsg *m, uint32_t level);
void pf_nftmsg_mask(struct pf_nftmsg *m, const void *mask, size_t len);
void pf_nftmsg_range(struct pf_nftmsg *m, uint16_t lo, uint16_t hi);
void pf_nftmsg_in_set(struct pf_nftmsg *m, const char *name, uint32_t id);
void pf_nftmsg_limit(struct pf_nftmsg *m, uint64_t per_second, uint32_t burst);
/* Statements. */
void pf_nftmsg_verdict(struct pf_nftmsg *m, int code);
void pf_nftmsg_jump(struct pf_nftmsg *m, const char *chain);
void pf_nftmsg_redirect(struct pf_nftmsg *m, uint16_t port);
/* The packet's mark, from register 1. */
void pf_nftmsg_store_mark(struct pf_nftmsg *m);
void pf_nftmsg_set_ct_mark(struct pf_nftmsg *m, uint32_t mark);
void pf_nftmsg_count(struct pf_nftmsg *m, const char *counter);
void pf_nftmsg_log(struct pf_nftmsg *m, uint16_t group, uint32_t snaplen);
void pf_nftmsg_reject(struct pf_nftmsg *m, uint32_t type, uint8_t code);

#endif
