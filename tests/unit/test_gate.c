/* The egress gate end to end, with a real resolver and real sockets: what the policy admits works, and
 * nothing else leaves, from a sandbox that is root in a user namespace of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/gate_world.h"

#include <linux/if.h>
#include <linux/netlink.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

#include "base/str.h"

static int sandbox(struct pf_gate *g, int netns, int (*fn)(void *), void *arg)
{
	return sandbox_wait(g, sandbox_start(netns, fn, arg));
}

/* Run fn in a sandbox under this policy and expect that it is satisfied. */
static void expect(const char *policy, int (*fn)(void *), void *arg)
{
	int netns = -1;
	struct pf_gate *g = gate_of(policy, &netns);

	assert_non_null(g);
	int status = sandbox(g, netns, fn, arg);
	pf_gate_close(g);
	close(netns);
	if (status != 0)
		for (size_t i = 0; i < log_n; i++)
			print_message("%s\n", log_lines[i]);
	assert_int_equal(status, 0);
}

static int try_allowed(void *arg)
{
	union world_sa a, b;
	(void)arg;
	for (int type = 1; type <= 28; type += 27) {
		int fd = dial_name("web.example.test", PORT_WEB, type);
		CHECK(fd >= 0);
		const char *got = exchange(fd, "hello world\n", 12);
		CHECK(strcmp(got, "served ::ffff:9.9.9.1\n") == 0 || strcmp(got, "served 2600::1\n") == 0);
		close(fd);
	}
	/* Upper case, and the same address for the same name, in its range. */
	CHECK(resolve("WEB.Example.TEST", 1, &a) == 0 &&
		resolve_at("2001:4860:4860::8888", "web.example.test", 1, &b) == 0);
	CHECK(a.in.sin_addr.s_addr == b.in.sin_addr.s_addr);
	CHECK((ntohl(a.in.sin_addr.s_addr) & 0xfffe0000) == 0xc6120000);
	CHECK(resolve("web.example.test", 28, &a) == 0 && a.in6.sin6_addr.s6_addr[0] == 0xfd);
	return 0;
}

static void test_allowed_name_v4_v6(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[\"web.example.test\"]," RESOLVER "}", try_allowed, NULL);
	assert_int_equal(log_count("\"connect\"", "\"allow\"", "web.example.test"), 2);
	assert_true(log_count("\"close\"", "\"bytes_out\":12", "\"orig\":\"198.1") >= 1);
}

static int try_getaddrinfo(void *arg)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *ai;
	(void)arg;
	CHECK(getaddrinfo("web.example.test", "80", &hints, &ai) == 0);
	CHECK(ai->ai_next);
	freeaddrinfo(ai);
	CHECK(getaddrinfo("other.example.test", "80", &hints, &ai) == EAI_NONAME);
	CHECK(getaddrinfo("box", NULL, &hints, &ai) == 0);
	CHECK(((struct sockaddr_in6 *)ai->ai_addr)->sin6_family == AF_INET6 || ai->ai_next);
	freeaddrinfo(ai);
	return 0;
}

static void test_libc_resolver(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[\"web.example.test\"]," RESOLVER "}", try_getaddrinfo, NULL);
}

static int try_names(void *arg)
{
	union world_sa sa;
	(void)arg;
	CHECK(resolve("other.example.test", 1, &sa) == 3);
	CHECK(resolve("wild.test", 1, &sa) == 3);
	CHECK(resolve("example.test", 1, &sa) == 3);
	CHECK(resolve("web.example.test.evil.test", 1, &sa) == 3);
	CHECK(resolve("bad.wild.test", 1, &sa) == 3);
	CHECK(resolve("a.wild.test", 1, &sa) == 0 && sa.sa.sa_family == AF_INET);
	CHECK(resolve("deep.sub.wild.test", 1, &sa) == 0 && sa.sa.sa_family == AF_INET);
	CHECK(resolve("a.b.c.d.e.f.g.h.i.wild.test", 1, &sa) == 3);
	/* Other types have no data: HTTPS (65) first of all. TXT of a denied name is denied. */
	CHECK(resolve("a.wild.test", 65, &sa) == 0 && sa.sa.sa_family == 0);
	CHECK(resolve("a.wild.test", 16, &sa) == 0 && sa.sa.sa_family == 0);
	CHECK(resolve("c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0.evil.test", 16, &sa) == 3);
	int fd = dial_name("a.wild.test", PORT_ECHO, 1);
	CHECK(fd >= 0 && strcmp(exchange(fd, "ping", 4), "ping") == 0);
	close(fd);
	return 0;
}

static void test_denied_names_and_wildcards(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[\"web.example.test\",\"*.wild.test\"],\"denied_hosts\":[\"bad.wild."
	       "test\"]," RESOLVER "}",
		try_names, NULL);
	assert_true(log_count("\"dns\"", "\"not_listed\"", "other.example.test") >= 1);
	assert_int_equal(log_count("\"dns\"", "\"denied_host\"", "bad.wild.test"), 1);
	assert_int_equal(log_count("\"dns\"", "\"name_shape\"", NULL), 1);
}

static int udp_error(const char *addr, int port)
{
	union world_sa sa = sa_of(addr, port);
	int fd = socket(sa.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char c;

	limit_wait(fd);
	connect(fd, &sa.sa, sa_len(&sa));
	ssize_t n = send(fd, "x", 1, 0);
	if (n == 1)
		n = recv(fd, &c, 1, 0);
	int e = n < 0 ? errno : 0;
	close(fd);
	return e;
}

static int try_literals(void *arg)
{
	union world_sa sa;
	(void)arg;
	CHECK(dial_text("1.1.1.1", 443) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("2606:4700::1111", 443) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("169.254.169.254", 80) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("::ffff:9.9.9.1", 80) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("9.9.9.1", 853) < 0 && errno == ECONNREFUSED);
	/* QUIC, to a literal and to an allowed name: an error at once, no timeout. */
	int e = udp_error("9.9.9.1", 443);
	CHECK(e == EHOSTUNREACH || e == EACCES || e == EPERM);
	CHECK(resolve("web.example.test", 1, &sa) == 0);
	char text[INET_ADDRSTRLEN];
	inet_ntop(AF_INET, &sa.in.sin_addr, text, sizeof(text));
	e = udp_error(text, 443);
	CHECK(e == EHOSTUNREACH || e == EACCES || e == EPERM);
	e = udp_error("2606:4700::1111", 443);
	CHECK(e == EHOSTUNREACH || e == EACCES || e == EPERM);
	/* An address of the synthetic range that stands for nothing. */
	int fd = dial_text("198.19.255.254", 4000);
	CHECK(fd < 0 || strcmp(exchange(fd, "x", 1), "reset") == 0);
	return 0;
}

static void test_denied_literals_and_udp(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[\"web.example.test\"]," RESOLVER "}", try_literals, NULL);
	assert_true(log_count("\"packet\"", "\"orig\":\"1.1.1.1\"", "\"port\":443") >= 1);
	assert_true(log_count("\"packet\"", "\"orig\":\"2606:4700::1111\"", "tcp") >= 1);
	assert_true(log_count("\"packet\"", "\"reason\":\"protocol\"", "web.example.test") >= 1);
	assert_true(log_count("\"stale_address\"", NULL, NULL) +
			    log_count("\"packet\"", "198.19.255.254", NULL) >=
		    1);
}

static int try_escape(void *arg)
{
	(void)arg;
	/* The listeners answer to redirected connections alone. */
	CHECK(dial_text("127.0.0.1", 1) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("127.0.0.1", 2) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("::1", 1) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("0.0.0.0", 1) < 0 && errno == ECONNREFUSED);
	CHECK(udp_error("127.0.0.1", 2) != 0);
	CHECK(udp_error("::1", 2) != 0);
	/* Root here is nobody to the namespace. */
	CHECK(socket(AF_INET, SOCK_RAW, IPPROTO_TCP) < 0 && errno == EPERM);
	CHECK(socket(AF_PACKET, SOCK_RAW, 0) < 0 && errno == EPERM);
	CHECK(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP) < 0);
	struct ifreq ifr = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(ioctl(fd, SIOCSIFFLAGS, &ifr) < 0 && errno == EPERM);
	close(fd);
	struct {
		struct nlmsghdr h;
		struct {
			uint8_t family, version;
			uint16_t res;
		} g;
	} flush = {
		{sizeof(flush), 10 << 8 | 2 /* delete table */, NLM_F_REQUEST | NLM_F_ACK, 1, 0}, {1, 0, 0}};
	struct {
		struct nlmsghdr h;
		int error;
		char rest[256];
	} answer = {0};
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	if (fd >= 0) {
		CHECK(send(fd, &flush, sizeof(flush), 0) > 0 && recv(fd, &answer, sizeof(answer), 0) > 0);
		CHECK(answer.error == -EPERM);
		close(fd);
	}
	int w = open("/proc/sys/net/ipv4/ip_forward", O_WRONLY | O_CLOEXEC);
	CHECK(w < 0 || write(w, "1", 1) < 0);
	/* Its own services are its own, at low ports too. */
	for (int v6 = 0; v6 < 2; v6++) {
		union world_sa sa = sa_of(v6 ? "::1" : "127.0.0.1", 80);
		int l = socket(sa.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		CHECK(bind(l, &sa.sa, sa_len(&sa)) == 0 && listen(l, 1) == 0);
		CHECK((fd = dial(&sa)) >= 0);
		close(fd);
		close(l);
	}
	return 0;
}

static void test_no_way_around(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[\"web.example.test\"]," RESOLVER "}", try_escape, NULL);
	assert_true(log_count("\"direct_dial\"", NULL, NULL) >= 1);
}

static int try_ports(void *arg)
{
	(void)arg;
	int fd = dial_name("web.example.test", PORT_ECHO, 1);
	CHECK(fd >= 0 && strcmp(exchange(fd, "ping", 4), "ping") == 0);
	close(fd);
	CHECK(dial_name("web.example.test", PORT_TLS, 1) < 0 && errno == ECONNREFUSED);
	/* A port that only another rule has: accepted by the kernel, then reset, never relayed. */
	fd = dial_name("web.example.test", PORT_COUNT, 1);
	CHECK(fd < 0 || strcmp(exchange(fd, "x", 1), "reset") == 0);
	/* On port 80 the refusal is an answer. */
	fd = dial_name("web.example.test", PORT_WEB, 1);
	CHECK(fd >= 0);
	const char *got = exchange(fd, "GET / HTTP/1.1\r\nHost: web.example.test\r\n\r\n", 42);
	CHECK(strstr(got, " 403 ") && strstr(got, "web.example.test:80"));
	close(fd);
	return 0;
}

static void test_ports(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[\"web.example.test:7\",\"a.wild.test:9\",\"a.wild.test:80\"]," RESOLVER
	       "}",
		try_ports, NULL);
	assert_true(log_count("\"connect\"", "\"reason\":\"port\"", "web.example.test") >= 1);
	assert_true(log_count("\"packet\"", "\"reason\":\"port\"", "web.example.test") >= 1);
}

static int try_private(void *arg)
{
	static const char *const names[] = {"inside.example.test", "lo.example.test", "meta.example.test",
		"nat64.example.test", "mapped.example.test", NULL};
	(void)arg;
	for (int i = 0; names[i]; i++) {
		int fd = dial_name(names[i], PORT_ECHO, 1);
		CHECK(fd >= 0 && strcmp(exchange(fd, "x", 1), "reset") == 0);
		close(fd);
	}
	/* Of several results the public one is dialled; a chain of aliases is one name. */
	int fd = dial_name("mixed.example.test", PORT_WEB, 1);
	CHECK(fd >= 0 && strcmp(exchange(fd, "hello\n", 6), "served ::ffff:9.9.9.3\n") == 0);
	close(fd);
	fd = dial_name("c1.example.test", PORT_ECHO, 1);
	CHECK(fd >= 0 && strcmp(exchange(fd, "ping", 4), "ping") == 0);
	close(fd);
	/* Plain HTTP is told. */
	fd = dial_name("inside.example.test", PORT_WEB, 1);
	CHECK(fd >= 0);
	CHECK(strstr(exchange(fd, "GET / HTTP/1.0\r\n\r\n", 18), " 403 "));
	close(fd);
	return 0;
}

static void test_private_results_refused(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[\"*.example.test\"]," RESOLVER "}", try_private, NULL);
	assert_true(log_count("\"connect\"", "\"reason\":\"address\"", "\"detail\":\"private\"") >= 1);
	assert_true(log_count("\"reason\":\"address\"", "\"detail\":\"loopback\"", NULL) +
			    log_count("\"reason\":\"address\"", "\"detail\":\"own_address\"", NULL) >=
		    1);
	assert_true(log_count("\"reason\":\"address\"", "\"detail\":\"metadata\"", NULL) >= 2);
}

static int try_opt_in(void *arg)
{
	(void)arg;
	int fd = dial_name("lo.example.test", PORT_ECHO, 1);
	CHECK(fd >= 0 && strcmp(exchange(fd, "ping", 4), "ping") == 0);
	close(fd);
	fd = dial_text("10.1.2.3", PORT_ECHO);
	CHECK(fd >= 0 && strcmp(exchange(fd, "ping", 4), "ping") == 0);
	close(fd);
	fd = dial_text("2600::5", PORT_ECHO);
	CHECK(fd >= 0 && strcmp(exchange(fd, "ping", 4), "ping") == 0);
	close(fd);
	CHECK(dial_text("10.1.2.3", PORT_WEB) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("10.2.0.1", PORT_ECHO) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("2601::5", PORT_ECHO) < 0 && errno == ECONNREFUSED);
	fd = dial_name("meta.example.test", PORT_ECHO, 1);
	CHECK(fd >= 0 && strcmp(exchange(fd, "x", 1), "reset") == 0);
	close(fd);
	return 0;
}

static void test_private_opt_in_and_networks(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[{\"host\":\"lo.example.test\",\"allow_private\":true},\"meta.example."
	       "test\"],"
	       "\"allowed_cidrs\":[{\"cidr\":\"10.1.0.0/16\",\"ports\":7,\"allow_private\":true},\"[2600::/"
	       "32]:7\"]," RESOLVER "}",
		try_opt_in, NULL);
}

static int try_heads(void *arg)
{
	uint8_t hello[512];
	size_t n;
	int fd;
	(void)arg;
	/* The name that was dialled, another one of the same rule, one of no rule. */
	n = client_hello(hello, "a.wild.test", false);
	CHECK((fd = dial_name("a.wild.test", PORT_TLS, 1)) >= 0);
	CHECK(strncmp(exchange(fd, hello, n), "served", 6) == 0);
	close(fd);
	n = client_hello(hello, "b.wild.test", false);
	CHECK((fd = dial_name("a.wild.test", PORT_TLS, 1)) >= 0);
	CHECK(strncmp(exchange(fd, hello, n), "served", 6) == 0);
	close(fd);
	n = client_hello(hello, "evil.test", false);
	CHECK((fd = dial_name("a.wild.test", PORT_TLS, 1)) >= 0);
	CHECK(strcmp(exchange(fd, hello, n), "reset") == 0);
	close(fd);
	/* In the other rule's name, and on another port after a silence: no different. */
	n = client_hello(hello, "web.example.test", false);
	CHECK((fd = dial_name("a.wild.test", PORT_ALT, 28)) >= 0);
	nanosleep(&(struct timespec){.tv_nsec = 700000000}, NULL);
	CHECK(strcmp(exchange(fd, hello, n), "reset") == 0);
	close(fd);
	/* No SNI on 443; encrypted hello with an outer name that is not ours; with ours (as clients grease).
	 */
	n = client_hello(hello, NULL, false);
	CHECK((fd = dial_name("a.wild.test", PORT_TLS, 1)) >= 0);
	CHECK(strcmp(exchange(fd, hello, n), "reset") == 0);
	close(fd);
	n = client_hello(hello, "b.wild.test", true);
	CHECK((fd = dial_name("a.wild.test", PORT_TLS, 1)) >= 0);
	CHECK(strcmp(exchange(fd, hello, n), "reset") == 0);
	close(fd);
	n = client_hello(hello, "a.wild.test", true);
	CHECK((fd = dial_name("a.wild.test", PORT_TLS, 1)) >= 0);
	/* In two pieces. */
	CHECK(send(fd, hello, 20, 0) == 20);
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	CHECK(strncmp(exchange(fd, hello + 20, n - 20), "served", 6) == 0);
	close(fd);
	/* Host. */
	CHECK((fd = dial_name("a.wild.test", PORT_WEB, 1)) >= 0);
	CHECK(strncmp(exchange(fd, "GET / HTTP/1.1\r\nHost: a.wild.test:80\r\n\r\n", 40), "served", 6) == 0);
	close(fd);
	CHECK((fd = dial_name("a.wild.test", PORT_WEB, 1)) >= 0);
	const char *got = exchange(fd, "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", 35);
	CHECK(strstr(got, " 403 ") && strstr(got, "evil.test"));
	close(fd);
	return 0;
}

static void test_first_bytes(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[\"*.wild.test\",\"web.example.test\"]," RESOLVER "}", try_heads, NULL);
	assert_int_equal(log_count("\"connect\"", "\"sni_mismatch\"", NULL), 2);
	assert_int_equal(log_count("\"connect\"", "\"sni_missing\"", NULL), 1);
	assert_int_equal(log_count("\"connect\"", "\"ech\"", NULL), 1);
	assert_int_equal(log_count("\"connect\"", "\"host_mismatch\"", "\"detail\":\"evil.test\""), 1);
}

static int try_flows(void *arg)
{
	char buf[64];
	int fd;
	ssize_t n;
	(void)arg;
	/* The server speaks first. */
	CHECK((fd = dial_name("web.example.test", PORT_GREET, 1)) >= 0);
	CHECK(strcmp(exchange(fd, NULL, 0), "SSH-2.0-world\r\n") == 0);
	CHECK(strcmp(exchange(fd, "ping", 4), "ping") == 0);
	close(fd);
	/* Half-close: the answer comes after our end. */
	CHECK((fd = dial_name("web.example.test", PORT_COUNT, 28)) >= 0);
	CHECK(send(fd, "twelve bytes", 12, 0) == 12 && shutdown(fd, SHUT_WR) == 0);
	CHECK((n = recv(fd, buf, sizeof(buf), 0)) == 2 && memcmp(buf, "12", 2) == 0);
	CHECK(recv(fd, buf, sizeof(buf), 0) == 0);
	close(fd);
	/* Half-close at once. */
	CHECK((fd = dial_name("web.example.test", PORT_COUNT, 1)) >= 0);
	CHECK(shutdown(fd, SHUT_WR) == 0);
	CHECK(recv(fd, buf, sizeof(buf), 0) == 1 && buf[0] == '0');
	close(fd);
	/* Nobody listens there: a reset, soon. */
	CHECK((fd = dial_name("dead.example.test", 4444, 1)) >= 0);
	CHECK(strcmp(exchange(fd, "x", 1), "reset") == 0);
	close(fd);
	return 0;
}

static void test_half_close_and_server_first(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[\"web.example.test\",\"dead.example.test\"]," RESOLVER "}", try_flows,
		NULL);
	assert_int_equal(log_count("\"error\"", "\"reason\":\"connect\"", "dead.example.test"), 1);
}

#define BULK ((size_t)64 << 20)

static uint32_t pattern(size_t i)
{
	return (uint32_t)(i * 2654435761U >> 7);
}

static int try_bulk(void *arg)
{
	static uint32_t out[16384], in[16384];
	(void)arg;
	int fd = dial_name("web.example.test", PORT_ECHO, 1);
	CHECK(fd >= 0);
	pid_t writer = fork();
	if (writer == 0) {
		for (size_t at = 0; at < BULK / 4; at += 16384) {
			for (size_t i = 0; i < 16384; i++)
				out[i] = pattern(at + i);
			for (size_t off = 0; off < sizeof(out);) {
				ssize_t n = send(fd, (char *)out + off, sizeof(out) - off, 0);
				if (n <= 0)
					_exit(1);
				off += (size_t)n;
			}
		}
		_exit(shutdown(fd, SHUT_WR) < 0);
	}
	for (size_t at = 0; at < BULK / 4; at += 16384) {
		for (size_t off = 0; off < sizeof(in);) {
			ssize_t n = recv(fd, (char *)in + off, sizeof(in) - off, 0);
			CHECK(n > 0);
			off += (size_t)n;
		}
		for (size_t i = 0; i < 16384; i++)
			CHECK(in[i] == pattern(at + i));
	}
	CHECK(recv(fd, in, 1, 0) == 0);
	int status;
	waitpid(writer, &status, 0);
	CHECK(status == 0);
	return 0;
}

static void test_bulk_both_ways(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"allowed_hosts\":[\"web.example.test\"]," RESOLVER "}", try_bulk, NULL);
	assert_int_equal(log_count("\"close\"", "\"bytes_out\":67108864", "\"bytes_in\":67108864"), 1);
}

/* FTP's ABOR and telnet's synch are urgent: a read of what is there ends before such a byte, and a splice
 * never passes it. All of it is sent while the gate sleeps. */
static int try_urgent(void *arg)
{
	static char bulk[40000], in[80000];
	int sync = *(int *)arg, judged, fresh;
	size_t got = 0;
	ssize_t n;
	char c;

	memset(bulk, 'b', sizeof(bulk));
	CHECK((judged = dial_name("web.example.test", PORT_ECHO, 1)) >= 0);
	CHECK((fresh = dial_name("web.example.test", PORT_COUNT, 1)) >= 0);
	CHECK(strcmp(exchange(judged, "ping\n", 5), "ping\n") == 0);
	CHECK(write(sync, "1", 1) == 1 && read(sync, &c, 1) == 1);
	CHECK(send(judged, bulk, sizeof(bulk), 0) == (ssize_t)sizeof(bulk));
	CHECK(send(judged, "\xff", 1, MSG_OOB) == 1 && send(judged, "ABOR\r\n", 6, 0) == 6);
	CHECK(send(fresh, "\xff\xf4\xff", 3, MSG_OOB) == 3 && send(fresh,
								      "\xf2"
								      "ABOR\r\n",
								      7, 0) == 7);
	CHECK(shutdown(fresh, SHUT_WR) == 0);
	CHECK(write(sync, "2", 1) == 1 && read(sync, &c, 1) == 1);
	while (got < sizeof(bulk) + 7 && (n = recv(judged, in + got, sizeof(in) - got, 0)) > 0)
		got += (size_t)n;
	CHECK(got == sizeof(bulk) + 7 && memcmp(in, bulk, sizeof(bulk)) == 0);
	CHECK(memcmp(in + sizeof(bulk),
		      "\xff"
		      "ABOR\r\n",
		      7) == 0);
	CHECK(strcmp(exchange(fresh, NULL, 0), "10") == 0);
	return 0;
}

static void test_urgent_data(void **state)
{
	int netns, sync[2];
	char c;

	(void)state;
	NEED_WORLD();
	struct pf_gate *g = gate_of("{\"allowed_hosts\":[\"web.example.test\"]," RESOLVER "}", &netns);
	assert_non_null(g);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sync), 0);
	sandbox_keep = sync[1];
	pid_t pid = sandbox_start(netns, try_urgent, &sync[1]);
	sandbox_keep = -1;
	close(sync[1]);
	struct pollfd p = {.fd = sync[0], .events = POLLIN};
	while (poll(&p, 1, 0) == 0)
		gate_step(g, sync[0], 100);
	assert_int_equal(read(sync[0], &c, 1), 1);
	assert_int_equal(write(sync[0], "1", 1), 1);
	assert_int_equal(read(sync[0], &c, 1), 1);
	assert_int_equal(write(sync[0], "1", 1), 1);
	assert_int_equal(sandbox_wait(g, pid), 0);
	pf_gate_close(g);
	close(sync[0]);
	close(netns);
}

static int try_nothing(void *arg)
{
	union world_sa sa;
	(void)arg;
	CHECK(resolve("web.example.test", 1, &sa) == 3);
	CHECK(resolve("localhost", 1, &sa) == 0 && ntohl(sa.in.sin_addr.s_addr) == INADDR_LOOPBACK);
	CHECK(dial_text("9.9.9.1", PORT_WEB) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("198.18.0.9", PORT_WEB) < 0 && errno == ECONNREFUSED);
	return 0;
}

static void test_nothing_allowed(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"type\":\"none\"}", try_nothing, NULL);
	assert_int_equal(log_count("\"dns\"", "\"deny\"", "web.example.test"), 1);
	assert_true(log_count("\"packet\"", "\"deny\"", "9.9.9.1") >= 1);
}

static int try_unrestricted(void *arg)
{
	union world_sa sa;
	int fd;
	(void)arg;
	CHECK((fd = dial_text("9.9.9.1", PORT_ECHO)) >= 0 && strcmp(exchange(fd, "ping", 4), "ping") == 0);
	close(fd);
	CHECK((fd = dial_text("2600::1", PORT_ECHO)) >= 0 && strcmp(exchange(fd, "ping", 4), "ping") == 0);
	close(fd);
	CHECK((fd = dial_name("web.example.test", PORT_ECHO, 28)) >= 0);
	CHECK(strcmp(exchange(fd, "ping", 4), "ping") == 0);
	close(fd);
	CHECK(resolve("bad.wild.test", 1, &sa) == 3);
	CHECK(dial_text("9.9.9.66", PORT_ECHO) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("10.1.2.3", PORT_ECHO) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("169.254.169.254", PORT_WEB) < 0 && errno == ECONNREFUSED);
	CHECK(dial_text("fd00:ec2::254", PORT_WEB) < 0 && errno == ECONNREFUSED);
	/* A denied name behind a literal address. */
	CHECK((fd = dial_text("9.9.9.1", PORT_WEB)) >= 0);
	CHECK(strstr(exchange(fd, "GET / HTTP/1.1\r\nHost: bad.wild.test\r\n\r\n", 39), " 403 "));
	close(fd);
	/* One that is no host name has its denials all the same. */
	CHECK((fd = dial_text("9.9.9.1", PORT_WEB)) >= 0);
	CHECK(strstr(exchange(fd, "GET / HTTP/1.1\r\nHost: My_.Bad.WILD.test.\r\n\r\n", 44), " 403 "));
	close(fd);
	CHECK((fd = dial_name("inside.example.test", PORT_ECHO, 1)) >= 0);
	CHECK(strcmp(exchange(fd, "x", 1), "reset") == 0);
	close(fd);
	return 0;
}

static void test_unrestricted(void **state)
{
	(void)state;
	NEED_WORLD();
	expect("{\"type\":\"unrestricted\",\"denied_hosts\":[\"bad.wild.test\",\"*.bad.wild.test\",\"9.9.9."
	       "66\"]," RESOLVER "}",
		try_unrestricted, NULL);
}

static int try_overload(void *arg)
{
	int fd[5];
	(void)arg;
	for (int i = 0; i < 4; i++) {
		CHECK((fd[i] = dial_name("web.example.test", PORT_ECHO, 1)) >= 0);
		CHECK(strcmp(exchange(fd[i], "ping", 4), "ping") == 0);
	}
	fd[4] = dial_name("web.example.test", PORT_ECHO, 1);
	CHECK(fd[4] < 0 || strcmp(exchange(fd[4], "ping", 4), "reset") == 0);
	CHECK(strcmp(exchange(fd[0], "ping", 4), "ping") == 0);
	close(fd[0]);
	/* There is room again, as soon as the gate has seen it. */
	for (int i = 0; i < 200; i++) {
		fd[4] = dial_name("web.example.test", PORT_ECHO, 1);
		if (fd[4] >= 0 && strcmp(exchange(fd[4], "ping", 4), "ping") == 0)
			return 0;
		close(fd[4]);
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	return 1;
}

/* At its limit of connections the gate refuses new ones at once and keeps serving the others. */
static void test_connection_limit(void **state)
{
	(void)state;
	NEED_WORLD();
	gate_max = 4;
	expect("{\"allowed_hosts\":[\"web.example.test\"]," RESOLVER "}", try_overload, NULL);
	gate_max = 0;
	assert_true(log_count("\"too_many_connections\"", NULL, NULL) >= 1);
}

static int try_echo(void *arg)
{
	(void)arg;
	int fd = dial_name("web.example.test", PORT_ECHO, 1);
	CHECK(fd >= 0 && strcmp(exchange(fd, "ping", 4), "ping") == 0);
	return 0;
}

/* A policy that cannot be loaded is an error, and the one before it stays in force, whole. */
static void test_failed_update(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	PF_BUF struct pf_buf b = {0};
	int netns;

	(void)state;
	NEED_WORLD();
	struct pf_gate *g = gate_of("{\"allowed_hosts\":[\"web.example.test\"]," RESOLVER "}", &netns);
	assert_non_null(g);
	pf_buf_str(&b, "{\"allowed_cidrs\":[\"1.0.0.0/8:1\"");
	for (int i = 2; i < 300; i++)
		pf_buf_printf(&b, ",\"1.0.0.0/8:%d\"", i);
	pf_buf_str(&b, "]}");
	struct pf_policy *p = policy_of(b.data);
	assert_int_equal(pf_gate_set_policy(g, p, &err), -1);
	assert_non_null(strstr(err.msg, "port ranges"));
	pf_policy_unref(p);
	assert_int_equal(sandbox(g, netns, try_echo, NULL), 0);
	/* And an update after the failure works. */
	p = policy_of("{\"type\":\"none\"}");
	assert_int_equal(pf_gate_set_policy(g, p, &err), 0);
	pf_policy_unref(p);
	assert_int_equal(sandbox(g, netns, try_nothing, NULL), 0);
	pf_gate_close(g);
	close(netns);
}

/* The caller is where it was, and a gate that was closed has left no descriptor behind. */
static void test_leaves_nothing(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	char before[64] = "", after[64] = "";
	int netns, first = dup(0), last;

	(void)state;
	NEED_WORLD();
	close(first);
	assert_true(readlink("/proc/self/ns/net", before, sizeof(before) - 1) > 0);
	for (int i = 0; i < 5; i++) {
		struct pf_gate *g = pf_gate_open(NULL, NULL, &netns, &err);
		assert_non_null(g);
		pf_gate_close(g);
		close(netns);
	}
	assert_true(readlink("/proc/self/ns/net", after, sizeof(after) - 1) > 0);
	assert_string_equal(before, after);
	assert_true(fcntl(0, F_GETFD) >= 0);
	last = dup(0);
	close(last);
	assert_int_equal(first, last);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed_name_v4_v6),
		cmocka_unit_test(test_libc_resolver),
		cmocka_unit_test(test_denied_names_and_wildcards),
		cmocka_unit_test(test_denied_literals_and_udp),
		cmocka_unit_test(test_no_way_around),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_private_results_refused),
		cmocka_unit_test(test_private_opt_in_and_networks),
		cmocka_unit_test(test_first_bytes),
		cmocka_unit_test(test_half_close_and_server_first),
		cmocka_unit_test(test_bulk_both_ways),
		cmocka_unit_test(test_urgent_data),
		cmocka_unit_test(test_nothing_allowed),
		cmocka_unit_test(test_unrestricted),
		cmocka_unit_test(test_connection_limit),
		cmocka_unit_test(test_failed_update),
		cmocka_unit_test(test_leaves_nothing),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
