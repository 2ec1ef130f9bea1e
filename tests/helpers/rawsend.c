/* Try to get bytes out of a network namespace by every way that is no ordinary connection.
 *
 *   rawsend IPV4 IPV6   addresses outside; each try sends the word "escape-NAME"
 *
 * Prints a line a try: NAME and "sent", or the error. What "sent" is worth, a capture outside must tell. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static struct sockaddr_in out4 = {.sin_family = AF_INET};
static struct sockaddr_in6 out6 = {.sin6_family = AF_INET6};
static char word[64];

static const char *mark(const char *name)
{
	snprintf(word, sizeof(word), "escape-%s", name);
	return word;
}

static void say(const char *name, bool ok)
{
	printf("%s %s\n", name, ok ? "sent" : strerror(errno));
}

/* A whole IPv4 packet with UDP; the source is made up when forged. */
static size_t packet4(uint8_t *buf, const char *text, const char *forged)
{
	size_t n = strlen(text), len = sizeof(struct iphdr) + sizeof(struct udphdr) + n;
	struct iphdr ip = {.version = 4,
		.ihl = 5,
		.ttl = 64,
		.protocol = IPPROTO_UDP,
		.tot_len = htons((uint16_t)len),
		.daddr = out4.sin_addr.s_addr};
	struct udphdr udp = {.source = htons(4000), .dest = htons(9), .len = htons((uint16_t)(len - 20))};
	uint32_t sum = 0;
	uint16_t words[10];

	if (forged)
		ip.saddr = inet_addr(forged);
	memcpy(words, &ip, sizeof(words));
	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	ip.check = (uint16_t) ~(sum + (sum >> 16));
	memcpy(buf, &ip, sizeof(ip));
	memcpy(buf + sizeof(ip), &udp, sizeof(udp));
	memcpy(buf + sizeof(ip) + sizeof(udp), text, n);
	return len;
}

static void try_packet(const char *name, int type, unsigned ifindex)
{
	uint8_t buf[1500] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0};
	size_t head = type == SOCK_RAW ? ETH_HLEN : 0, len = packet4(buf + head, mark(name), "10.88.7.77");
	struct sockaddr_ll ll = {.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_IP),
		.sll_ifindex = (int)ifindex,
		.sll_halen = 6,
		.sll_addr = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
	int s = socket(AF_PACKET, type, htons(ETH_P_IP));

	say(name, s >= 0 && sendto(s, buf, head + len, 0, (struct sockaddr *)&ll, sizeof(ll)) > 0);
	close(s);
}

static void try_raw(const char *name, const char *forged)
{
	uint8_t buf[1500];
	size_t len = packet4(buf, mark(name), forged);
	int s = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);

	say(name, s >= 0 && sendto(s, buf, len, 0, (struct sockaddr *)&out4, sizeof(out4)) > 0);
	close(s);
}

static void try_send(const char *name, int family, int type, int proto, const char *device)
{
	const struct sockaddr *to = family == AF_INET ? (struct sockaddr *)&out4 : (struct sockaddr *)&out6;
	socklen_t len = family == AF_INET ? sizeof(out4) : sizeof(out6);
	int s = socket(family, type | SOCK_NONBLOCK, proto), on = 1;
	const char *text = mark(name);

	if (s >= 0 && device &&
		setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, device, (socklen_t)strlen(device)) < 0) {
		say(name, false);
		close(s);
		return;
	}
	(void)setsockopt(s, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
	say(name,
		s >= 0 && sendto(s, text, strlen(text), type == SOCK_STREAM ? MSG_FASTOPEN : 0, to, len) > 0);
	close(s);
}

/* An echo request carries what one likes. */
static void try_ping(void)
{
	struct {
		struct icmphdr h;
		char text[32];
	} p = {.h = {.type = ICMP_ECHO}};
	int s = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);

	strcpy(p.text, mark("ping"));
	say("ping", s >= 0 && sendto(s, &p, sizeof(p), 0, (struct sockaddr *)&out4, sizeof(out4)) > 0);
	close(s);
}

static void try_mark(void)
{
	int s = socket(AF_INET, SOCK_DGRAM, 0), v = 1;

	say("mark", setsockopt(s, SOL_SOCKET, SO_MARK, &v, sizeof(v)) == 0);
	close(s);
}

static void to(const char *v4, const char *v6, uint16_t port)
{
	inet_pton(AF_INET, v4, &out4.sin_addr);
	inet_pton(AF_INET6, v6, &out6.sin6_addr);
	out4.sin_port = out6.sin6_port = htons(port);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	to(argv[1], argv[2], 9);
	struct if_nameindex *devices = if_nameindex();
	for (const struct if_nameindex *i = devices; i && i->if_index; i++) {
		char name[64];
		snprintf(name, sizeof(name), "frame-%s", i->if_name);
		try_packet(name, SOCK_RAW, i->if_index);
		snprintf(name, sizeof(name), "packet-%s", i->if_name);
		try_packet(name, SOCK_DGRAM, i->if_index);
	}
	try_raw("raw", NULL);
	try_raw("forged", "10.88.7.78");
	out6.sin6_port = 0; /* of a raw socket's address it would be a protocol */
	try_send("raw6", AF_INET6, SOCK_RAW, 253, "eth0");
	out6.sin6_port = out4.sin_port;
	try_mark();
	try_ping();
	try_send("udp", AF_INET, SOCK_DGRAM, 0, NULL);
	try_send("udp6", AF_INET6, SOCK_DGRAM, 0, NULL);
	try_send("udp-by-lo", AF_INET, SOCK_DGRAM, 0, "lo");
	try_send("udp-by-eth0", AF_INET, SOCK_DGRAM, 0, "eth0");
	try_send("udplite", AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, NULL);
	try_send("fastopen", AF_INET, SOCK_STREAM, 0, NULL);
	try_send("fastopen6", AF_INET6, SOCK_STREAM, 0, NULL);
	try_send("fastopen-by-eth0", AF_INET, SOCK_STREAM, 0, "eth0");
	try_send("mptcp", AF_INET, SOCK_STREAM, IPPROTO_MPTCP, NULL);
	try_send("sctp", AF_INET, SOCK_SEQPACKET, IPPROTO_SCTP, NULL);
	to("255.255.255.255", "ff02::1", 9);
	out6.sin6_scope_id = if_nametoindex("eth0");
	try_send("broadcast", AF_INET, SOCK_DGRAM, 0, "eth0");
	try_send("multicast6", AF_INET6, SOCK_DGRAM, 0, NULL);
	to("224.0.0.251", argv[2], 5353);
	out6.sin6_scope_id = 0;
	try_send("multicast", AF_INET, SOCK_DGRAM, 0, "eth0");
	return 0;
}
