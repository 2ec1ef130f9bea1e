/* Theory of operation.
 *
 * A name that is allowed may resolve to anything its owner likes: to 127.0.0.1, to the host's own address, to
 * a cloud's metadata service. So every resolved address is judged here before it is dialled. The table below
 * lists what is not the public internet; the longest prefix that matches counts. IPv6 has several ways
 * to write an IPv4 address that a translator on the path would turn back into one; each is unwrapped and its
 * content judged by the same table. Addresses of the host itself cannot be in a table: the caller reads them
 * when it dials. */
#include "netpolicy/addrfilter.h"

#include <errno.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>

#define V4(a, b, c, d, p, k)                                                       \
	{                                                                          \
		.net = {.addr = {a, b, c, d}, .family = AF_INET, .prefix = (p)}, k \
	}
#define V6(p, k, ...)                                                                  \
	{                                                                              \
		.net = {.addr = {__VA_ARGS__}, .family = AF_INET6, .prefix = (p)}, (k) \
	}

static const struct row {
	struct pf_cidr net;
	enum pf_addr_class class;
} table[] = {
	V4(0, 0, 0, 0, 8, PF_ADDR_RESERVED), V4(10, 0, 0, 0, 8, PF_ADDR_PRIVATE),
	V4(100, 64, 0, 0, 10, PF_ADDR_PRIVATE),                                            /* carrier NAT */
	V4(100, 100, 100, 200, 32, PF_ADDR_METADATA),                                      /* Alibaba */
	V4(127, 0, 0, 0, 8, PF_ADDR_LOOPBACK), V4(168, 63, 129, 16, 32, PF_ADDR_METADATA), /* Azure */
	V4(169, 254, 0, 0, 16, PF_ADDR_LINK_LOCAL), V4(169, 254, 169, 254, 32, PF_ADDR_METADATA),
	V4(169, 254, 170, 2, 32, PF_ADDR_METADATA), /* container credentials */
	V4(172, 16, 0, 0, 12, PF_ADDR_PRIVATE), V4(192, 0, 0, 0, 24, PF_ADDR_RESERVED),
	V4(192, 0, 0, 192, 32, PF_ADDR_METADATA), /* Oracle */
	V4(192, 0, 2, 0, 24, PF_ADDR_RESERVED),   /* documentation */
	V4(192, 88, 99, 0, 24, PF_ADDR_RESERVED), /* 6to4 relays, withdrawn */
	V4(192, 168, 0, 0, 16, PF_ADDR_PRIVATE),
	V4(198, 18, 0, 0, 15, PF_ADDR_PRIVATE),    /* benchmarks; our synthetic range */
	V4(198, 51, 100, 0, 24, PF_ADDR_RESERVED), /* documentation */
	V4(203, 0, 113, 0, 24, PF_ADDR_RESERVED),  /* documentation */
	V4(224, 0, 0, 0, 4, PF_ADDR_RESERVED),     /* multicast */
	V4(240, 0, 0, 0, 4, PF_ADDR_RESERVED),     /* future use, broadcast */
	V6(96, PF_ADDR_RESERVED, 0),               /* ::, IPv4-compatible (withdrawn) */
	V6(128, PF_ADDR_LOOPBACK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
	V6(48, PF_ADDR_PRIVATE, 0, 0x64, 0xff, 0x9b, 0, 1), /* a site's own NAT64 */
	V6(64, PF_ADDR_RESERVED, 1, 0),                     /* discard-only */
	V6(32, PF_ADDR_RESERVED, 0x20, 0x01, 0x0d, 0xb8),   /* documentation */
	V6(20, PF_ADDR_RESERVED, 0x3f, 0xff),               /* documentation */
	V6(28, PF_ADDR_RESERVED, 0x20, 0x01, 0, 0x10),      /* ORCHID */
	V6(28, PF_ADDR_RESERVED, 0x20, 0x01, 0, 0x20),      /* ORCHIDv2 */
	V6(48, PF_ADDR_RESERVED, 0x20, 0x01, 0, 2, 0, 0),   /* benchmarks */
	V6(16, PF_ADDR_RESERVED, 0x5f, 0),                  /* segment routing */
	V6(7, PF_ADDR_PRIVATE, 0xfc),
	V6(128, PF_ADDR_METADATA, 0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54), /* AWS */
	V6(128, PF_ADDR_METADATA, 0xfd, 0x20, 0, 0xce, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54), /* Google */
	V6(10, PF_ADDR_LINK_LOCAL, 0xfe, 0x80),
	V6(10, PF_ADDR_PRIVATE, 0xfe, 0xc0), /* site-local, withdrawn */
	V6(8, PF_ADDR_RESERVED, 0xff),       /* multicast */
};

bool pf_cidr_has(const struct pf_cidr *net, sa_family_t family, const uint8_t *addr)
{
	if (net->family != family)
		return false;
	unsigned int whole = net->prefix / 8, rest = net->prefix % 8;
	if (memcmp(net->addr, addr, whole) != 0)
		return false;
	return rest == 0 || ((net->addr[whole] ^ addr[whole]) >> (8 - rest)) == 0;
}

bool pf_cidr_within(const struct pf_cidr *inner, const struct pf_cidr *outer)
{
	return inner->prefix >= outer->prefix && pf_cidr_has(outer, inner->family, inner->addr);
}

const char *pf_addr_class_name(enum pf_addr_class c)
{
	static const char *const names[] = {[PF_ADDR_PUBLIC] = "public",
		[PF_ADDR_PRIVATE] = "private",
		[PF_ADDR_LOOPBACK] = "loopback",
		[PF_ADDR_OWN] = "own_address",
		[PF_ADDR_LINK_LOCAL] = "link_local",
		[PF_ADDR_METADATA] = "metadata",
		[PF_ADDR_RESERVED] = "reserved"};
	return names[c];
}

const struct pf_cidr *pf_addr_nonpublic(size_t *n)
{
	static struct pf_cidr nets[sizeof(table) / sizeof(*table)];
	*n = sizeof(table) / sizeof(*table);
	if (nets[0].family == 0)
		for (size_t i = 0; i < *n; i++)
			nets[i] = table[i].net;
	return nets;
}

int pf_own_addrs_read(struct pf_own_addrs *own, struct pf_err *err)
{
	struct ifaddrs *list;
	size_t n = 0;

	if (getifaddrs(&list) < 0)
		return pf_fail(err, errno, "read the host's addresses");
	for (struct ifaddrs *i = list; i; i = i->ifa_next)
		n++;
	struct pf_cidr *addrs = calloc(n + 1, sizeof(*addrs));
	if (!addrs) {
		freeifaddrs(list);
		return pf_fail(err, ENOMEM, "read the host's addresses");
	}
	n = 0;
	for (struct ifaddrs *i = list; i; i = i->ifa_next) {
		struct pf_cidr *c = &addrs[n];
		if (!i->ifa_addr || !pf_addr_of(i->ifa_addr, &c->family, c->addr))
			continue;
		c->prefix = c->family == AF_INET ? 32 : 128;
		n++;
	}
	freeifaddrs(list);
	free(own->addrs);
	*own = (struct pf_own_addrs){.addrs = addrs, .n = n};
	return 0;
}

void pf_own_addrs_done(struct pf_own_addrs *own)
{
	free(own->addrs);
	*own = (struct pf_own_addrs){0};
}

bool pf_addr_of(const struct sockaddr *sa, sa_family_t *family, uint8_t addr[16])
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	memset(addr, 0, 16);
	if (sa->sa_family == AF_INET) {
		*family = AF_INET;
		memcpy(addr, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
		return true;
	}
	if (sa->sa_family != AF_INET6)
		return false;
	const uint8_t *a = ((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr;
	if (memcmp(a, mapped, sizeof(mapped)) == 0) {
		*family = AF_INET;
		memcpy(addr, a + 12, 4);
	} else {
		*family = AF_INET6;
		memcpy(addr, a, 16);
	}
	return true;
}

static enum pf_addr_class stricter(enum pf_addr_class a, enum pf_addr_class b)
{
	return a > b ? a : b;
}

static enum pf_addr_class by_table(sa_family_t family, const uint8_t *addr, const struct pf_own_addrs *own)
{
	enum pf_addr_class c = PF_ADDR_PUBLIC;
	int longest = -1;

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
		if (table[i].net.prefix > longest && pf_cidr_has(&table[i].net, family, addr)) {
			longest = table[i].net.prefix;
			c = table[i].class;
		}
	for (size_t i = 0; own && i < own->n; i++)
		if (pf_cidr_has(&own->addrs[i], family, addr))
			c = stricter(c, PF_ADDR_OWN);
	return c;
}

static size_t put(uint8_t out[PF_ADDR_EMBEDDED][4], size_t n, uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
	const uint8_t v4[4] = {a, b, c, d};

	memcpy(out[n], v4, 4);
	return n + 1;
}

size_t pf_addr_embedded(const uint8_t *a, uint8_t out[PF_ADDR_EMBEDDED][4])
{
	static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
	static const uint8_t nat64_local[6] = {0, 0x64, 0xff, 0x9b, 0, 1};
	static const uint8_t isatap[3] = {0, 0x5e, 0xfe};
	size_t n = 0;

	if (memcmp(a, nat64, 12) == 0)
		return put(out, n, a[12], a[13], a[14], a[15]);
	if (memcmp(a, nat64_local, 6) == 0) {
		/* RFC 6052: where the IPv4 address sits depends on the site's prefix length (48, 64 or 96).
		 */
		n = put(out, n, a[6], a[7], a[9], a[10]);
		n = put(out, n, a[9], a[10], a[11], a[12]);
		return put(out, n, a[12], a[13], a[14], a[15]);
	}
	if (a[0] == 0x20 && a[1] == 0x02)
		return put(out, n, a[2], a[3], a[4], a[5]);
	if (a[0] == 0x20 && a[1] == 0x01 && a[2] == 0 && a[3] == 0) {
		/* Teredo: server in the clear, client with all bits inverted. */
		n = put(out, n, a[4], a[5], a[6], a[7]);
		return put(out, n, (uint8_t)~a[12], (uint8_t)~a[13], (uint8_t)~a[14], (uint8_t)~a[15]);
	}
	if ((a[8] & ~0x02) == 0 && memcmp(a + 9, isatap, 3) == 0)
		return put(out, n, a[12], a[13], a[14], a[15]);
	return 0;
}

enum pf_addr_class pf_addr_classify(sa_family_t family, const uint8_t *addr, const struct pf_own_addrs *own)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	uint8_t carried[PF_ADDR_EMBEDDED][4];

	if (family == AF_INET)
		return by_table(AF_INET, addr, own);
	if (family != AF_INET6)
		return PF_ADDR_RESERVED;
	if (memcmp(addr, mapped, 12) == 0)
		return by_table(AF_INET, addr + 12, own);

	enum pf_addr_class c = by_table(AF_INET6, addr, own);
	for (size_t n = pf_addr_embedded(addr, carried); n--;)
		c = stricter(c, by_table(AF_INET, carried[n], own));
	return c;
}

enum pf_addr_class pf_addr_classify_sa(const struct sockaddr *sa, const struct pf_own_addrs *own)
{
	sa_family_t family;
	uint8_t addr[16];

	if (!pf_addr_of(sa, &family, addr))
		return PF_ADDR_RESERVED;
	return pf_addr_classify(family, addr, own);
}
