/* What an address is: public, or one of the ranges that nothing may reach by resolving to it. */
#ifndef PF_NETPOLICY_ADDRFILTER_H
#define PF_NETPOLICY_ADDRFILTER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/err.h"

/* A network. addr is in network byte order, 4 or 16 bytes, host bits zero. */
struct pf_cidr {
	uint8_t addr[16];
	sa_family_t family; /* AF_INET, AF_INET6 */
	uint8_t prefix;
};

bool pf_cidr_has(const struct pf_cidr *net, sa_family_t family, const uint8_t *addr);
/* Whether every address of inner is in outer. */
bool pf_cidr_within(const struct pf_cidr *inner, const struct pf_cidr *outer);

/* Ordered by how much it takes to open them. */
enum pf_addr_class {
	PF_ADDR_PUBLIC = 0,
	PF_ADDR_PRIVATE,    /* opened by allow_private: RFC 1918, ULA, carrier NAT, test networks */
	PF_ADDR_LOOPBACK,   /* the host's own loopback; opened by allow_private */
	PF_ADDR_OWN,        /* an address of the host itself; opened by allow_private */
	PF_ADDR_LINK_LOCAL, /* opened only by a rule for exactly this one address with allow_private */
	PF_ADDR_METADATA,   /* a cloud's metadata service; as link-local */
	PF_ADDR_RESERVED,   /* multicast, broadcast, unspecified, future use, malformed: never opened */
};

/* "private", "metadata", … : stable words for the audit log. */
const char *pf_addr_class_name(enum pf_addr_class c);

/* The addresses of the host, so that a name that resolves to one of them is recognised. */
struct pf_own_addrs {
	struct pf_cidr *addrs; /* prefixes 32 and 128 */
	size_t n;
};
int pf_own_addrs_read(
	struct pf_own_addrs *own, struct pf_err *err); /* getifaddrs in the caller's namespace */
/* Add those of another namespace: that in which route_fd, a bound NETLINK_ROUTE socket, was opened. */
int pf_own_addrs_add(struct pf_own_addrs *own, int route_fd, struct pf_err *err);
void pf_own_addrs_done(struct pf_own_addrs *own);
#define PF_OWN_ADDRS PF_CLEANUP(pf_own_addrs_done)

/* Judge an address. IPv6 forms that carry an IPv4 address (mapped, NAT64, 6to4, Teredo, ISATAP) are judged by
 * what they carry too, the stricter result counts. own may be NULL. An unknown family is reserved. */
enum pf_addr_class pf_addr_classify(sa_family_t family, const uint8_t *addr, const struct pf_own_addrs *own);
enum pf_addr_class pf_addr_classify_sa(const struct sockaddr *sa, const struct pf_own_addrs *own);

/* The IPv4 addresses that an IPv6 address carries in one of these forms (a mapped one is IPv4, pf_addr_of),
 * and how many they are. */
#define PF_ADDR_EMBEDDED 3
size_t pf_addr_embedded(const uint8_t *addr, uint8_t out[PF_ADDR_EMBEDDED][4]);

/* The address bytes and family of a sockaddr, IPv4-mapped IPv6 reduced to IPv4. false: neither family. */
bool pf_addr_of(const struct sockaddr *sa, sa_family_t *family, uint8_t addr[16]);

/* Every range that is not public, for the packet filter. */
const struct pf_cidr *pf_addr_nonpublic(size_t *n);

#endif
