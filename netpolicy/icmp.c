/* Theory of operation.
 *
 * What the packet filter rejects gets an answer of the kernel's. A datagram that it let through to the gate
 * and that is refused there, because of what its name resolved to, would be lost without a word, and its
 * sender wait. So the gate sends what the kernel would have: an ICMP error with the head of the datagram in
 * it. It has the addresses as the gate sees them, after the redirect; on its way the kernel's NAT finds the
 * connection that they belong to and puts the ones of the sender into their place, by which that finds its
 * socket. */
#include "netpolicy/icmp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

/* linux/icmp.h, whose other names collide with netinet's. */
#define RAW_ICMP_FILTER 1

struct refusal4 {
	struct icmphdr icmp;
	struct iphdr ip;
	struct udphdr udp;
};

struct refusal6 {
	struct icmp6_hdr icmp;
	struct ip6_hdr ip;
	struct udphdr udp;
};

int pf_icmp_open(bool v6)
{
	PF_CLOSE int fd = v6 ? socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMPV6)
			     : socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMP);
	const uint32_t all4 = ~0U;
	struct icmp6_filter all6;

	/* Nothing is to be read from it, so nothing may queue up. */
	ICMP6_FILTER_SETBLOCKALL(&all6);
	if (fd < 0 || (v6 ? setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &all6, sizeof(all6))
			  : setsockopt(fd, SOL_RAW, RAW_ICMP_FILTER, &all4, sizeof(all4))) < 0)
		return -1;
	return pf_take_fd(&fd);
}

/* RFC 1071, of an even number of bytes, as they lie in memory. */
static uint16_t checksum(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < len; i += 2) {
		uint16_t word;
		memcpy(&word, p + i, sizeof(word));
		sum += word;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static struct udphdr udp_head(const union pf_sa *peer, uint16_t port, uint16_t len)
{
	return (struct udphdr){.source = peer->in.sin_port, .dest = htons(port), .len = htons(len)};
}

static void refuse4(int fd, const union pf_sa *peer, uint16_t port, uint16_t len)
{
	struct refusal4 r = {.icmp = {.type = ICMP_DEST_UNREACH, .code = ICMP_PKT_FILTERED},
		.ip = {.version = 4,
			.ihl = 5,
			.tot_len = htons((uint16_t)(sizeof(r.ip) + len)),
			.ttl = 64,
			.protocol = IPPROTO_UDP,
			.saddr = peer->in.sin_addr.s_addr,
			.daddr = htonl(INADDR_LOOPBACK)},
		.udp = udp_head(peer, port, len)};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = peer->in.sin_addr};

	r.ip.check = checksum(&r.ip, sizeof(r.ip));
	r.icmp.checksum = checksum(&r, sizeof(r));
	(void)sendto(fd, &r, sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof(to));
}

/* The kernel sums up ICMPv6 itself. */
static void refuse6(int fd, const union pf_sa *peer, uint16_t port, uint16_t len)
{
	struct refusal6 r = {.icmp = {.icmp6_type = ICMP6_DST_UNREACH, .icmp6_code = ICMP6_DST_UNREACH_ADMIN},
		.ip = {.ip6_src = peer->in6.sin6_addr, .ip6_dst = IN6ADDR_LOOPBACK_INIT},
		.udp = udp_head(peer, port, len)};
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_addr = peer->in6.sin6_addr};

	r.ip.ip6_vfc = 6 << 4;
	r.ip.ip6_plen = htons(len);
	r.ip.ip6_nxt = IPPROTO_UDP;
	r.ip.ip6_hlim = 64;
	(void)sendto(fd, &r, sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof(to));
}

void pf_icmp_refuse(int fd, const union pf_sa *peer, uint16_t port, size_t len)
{
	uint16_t with_head = (uint16_t)(len < 65000 ? len + sizeof(struct udphdr) : 65000);

	if (fd >= 0)
		(peer->sa.sa_family == AF_INET6 ? refuse6 : refuse4)(fd, peer, port, with_head);
}
