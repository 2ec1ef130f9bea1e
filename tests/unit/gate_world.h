/* A world for gate tests: a private network namespace that plays the host and the internet at once (every
 * address is local in it), with a DNS server and TCP servers, and sandboxes that are born into a gate's
 * namespace. */
#ifndef PF_TESTS_GATE_WORLD_H
#define PF_TESTS_GATE_WORLD_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/gate.h"
#include "netpolicy/netns.h"

#define WORLD_DNS_PORT 5354
/* What the servers do: */
#define PORT_ECHO 7   /* echo until the end, then end */
#define PORT_COUNT 9  /* read to the end, then answer with the number of bytes */
#define PORT_GREET 22 /* "SSH-2.0-world\r\n" first, then echo */
#define PORT_WEB 80   /* answer the first bytes with "served ADDRESS\n", then echo */
#define PORT_TLS 443  /* the same */
#define PORT_ALT 8443 /* the same */

static pid_t world_pids[16];
static size_t world_n;

static void world_echo(int fd)
{
	static char buf[1 << 16];
	ssize_t n;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t off = 0, w; off < n; off += w)
			if ((w = write(fd, buf + off, (size_t)(n - off))) <= 0)
				return;
}

static void world_serve(int fd, int port)
{
	static char buf[1 << 16];
	char addr[INET6_ADDRSTRLEN] = "";
	struct sockaddr_in6 sa;
	socklen_t len = sizeof(sa);
	long total = 0;
	ssize_t n;

	if (port == PORT_GREET)
		dprintf(fd, "SSH-2.0-world\r\n");
	if (port == PORT_COUNT) {
		while ((n = read(fd, buf, sizeof(buf))) > 0)
			total += n;
		dprintf(fd, "%ld", total);
		return;
	}
	if (port == PORT_WEB || port == PORT_TLS || port == PORT_ALT) {
		if (read(fd, buf, sizeof(buf)) <= 0)
			return;
		getsockname(fd, (struct sockaddr *)&sa, &len);
		inet_ntop(AF_INET6, &sa.sin6_addr, addr, sizeof(addr));
		dprintf(fd, "served %s\n", addr);
	}
	world_echo(fd);
}

static int world_listen(int port)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	int on = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 512) < 0)
		return -1;
	return fd;
}

static int world_server(int port)
{
	int fd = world_listen(port);

	if (fd < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGCHLD, SIG_IGN);
		signal(SIGPIPE, SIG_IGN);
		for (;;) {
			int c = accept(fd, NULL, NULL);
			if (c < 0)
				continue;
			if (fork() == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				world_serve(c, port);
				_exit(0);
			}
			close(c);
		}
	}
	close(fd);
	world_pids[world_n++] = pid;
	return 0;
}

/* Records: name=address; the names of the tests. */
static int world_dns(const char *const *records)
{
	const char *argv[64] = {"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
		"--no-hosts", "--port=5354", "--listen-address=127.0.0.1", "--bind-interfaces", "--user=root",
		"--group=root", "--pid-file=", "--log-facility=/dev/null"};
	size_t n = 12;

	while (*records && n < 62)
		argv[n++] = *records++;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execv("/usr/sbin/dnsmasq", (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	world_pids[world_n++] = pid;
	/* It is there when its TCP port accepts. */
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons(WORLD_DNS_PORT),
		.sin_addr = {htonl(INADDR_LOOPBACK)}};
	for (int i = 0; i < 500; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int r = connect(fd, (struct sockaddr *)&sa, sizeof(sa));
		close(fd);
		if (r == 0)
			return 0;
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	return -1;
}

/* NULL, or why there can be no world here. */
static const char *world_open(const char *const *records)
{
	static const int ports[] = {PORT_ECHO, PORT_COUNT, PORT_GREET, PORT_WEB, PORT_TLS, PORT_ALT};
	struct pf_err err = PF_ERR_INIT;
	struct pf_netns_visit visit;
	bool v6;

	if (geteuid() != 0)
		return "needs root";
	if (access("/usr/sbin/dnsmasq", X_OK) < 0)
		return "needs dnsmasq";
	int fd = pf_netns_make(&visit, true, &v6, &err);
	if (fd < 0)
		return "no network namespace can be made";
	close(fd);
	close(visit.home);
	if (!v6)
		return "needs IPv6";
	for (size_t i = 0; i < sizeof(ports) / sizeof(*ports); i++)
		if (world_server(ports[i]) < 0)
			return "a test server cannot listen";
	return world_dns(records) < 0 ? "dnsmasq does not answer" : NULL;
}

static void world_close(void)
{
	for (size_t i = 0; i < world_n; i++)
		if (world_pids[i] > 0) {
			kill(world_pids[i], SIGKILL);
			waitpid(world_pids[i], NULL, 0);
		}
	world_n = 0;
}

/* --- a gate, its log, and sandboxes --------------------------------------------------------------------- */

static char *log_lines[4096];
static size_t log_n;

static void log_clear(void)
{
	while (log_n)
		free(log_lines[--log_n]);
}

static void log_event(void *user, const struct pf_gate_event *ev)
{
	(void)user;
	PF_BUF struct pf_buf b = {0};
	pf_gate_event_text(ev, &b);
	*b.data = '{';
	pf_buf_str(&b, "}");
	if (log_n < sizeof(log_lines) / sizeof(*log_lines))
		log_lines[log_n++] = pf_strdup(b.data);
}

/* How many lines hold all three texts (NULL: any). */
static size_t log_count(const char *a, const char *b, const char *c)
{
	size_t n = 0;
	for (size_t i = 0; i < log_n; i++)
		n += (!a || strstr(log_lines[i], a)) && (!b || strstr(log_lines[i], b)) &&
		     (!c || strstr(log_lines[i], c));
	return n;
}

static struct pf_policy *policy_of(const char *text)
{
	struct pf_err err = PF_ERR_INIT;
	PF_JSON cJSON *j = pf_json_parse("policy", text, strlen(text), &err);
	struct pf_policy *p = j ? pf_policy_compile(j, &err) : NULL;

	if (!p)
		fprintf(stderr, "%s\n", err.msg);
	return p;
}

static unsigned int gate_max; /* connections; 0: the default */

static struct pf_gate *gate_of(const char *text, int *netns)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_policy *p = policy_of(text);
	const struct pf_gate_opts opts = {.audit = log_event, .hostname = "box", .max_connections = gate_max};

	if (!p)
		return NULL;
	log_clear();
	struct pf_gate *g = pf_gate_open(p, &opts, netns, &err);
	if (!g)
		fprintf(stderr, "%s\n", err.msg);
	pf_policy_unref(p);
	return g;
}

static int sandbox_keep = -1; /* a descriptor that sandboxes inherit */

/* A process in the namespace, in a user namespace of its own where it is root. */
static pid_t sandbox_start(int netns, int (*fn)(void *), void *arg)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	if (setns(netns, CLONE_NEWNET) < 0 || unshare(CLONE_NEWUSER) < 0)
		_exit(99);
	int fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0 0 1", 5) != 5)
		_exit(98);
	close(fd);
	/* The gate's sockets are the keeper's alone. */
	for (fd = 3; fd < 1024; fd++)
		if (fd != sandbox_keep)
			close(fd);
	_exit(fn(arg));
}

static void gate_step(struct pf_gate *g, int other, int max_ms)
{
	struct pollfd p[2] = {{.fd = pf_gate_fd(g), .events = POLLIN}, {.fd = other, .events = POLLIN}};
	int ms = pf_gate_timeout_ms(g);

	if (ms < 0 || ms > max_ms)
		ms = max_ms;
	poll(p, 2, ms);
	pf_gate_dispatch(g);
}

/* Serve until the process has ended; its exit status, -1 if it was killed or took more than two minutes. */
static int sandbox_wait(struct pf_gate *g, pid_t pid)
{
	int64_t end = pf_now_us() + 120 * 1000000LL;
	int fd = pidfd_open(pid, 0), status = -1;

	while (!pf_pidfd_ended(fd) && pf_now_us() < end)
		gate_step(g, fd, 1000);
	if (!pf_pidfd_ended(fd))
		kill(pid, SIGKILL);
	close(fd);
	waitpid(pid, &status, 0);
	for (int i = 0; i < 5; i++)
		gate_step(g, -1, 10);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* --- inside a sandbox ----------------------------------------------------------------------------------- */

#define CHECK(cond)                                                                                          \
	do {                                                                                                 \
		if (!(cond)) {                                                                               \
			fprintf(stderr, "in the sandbox: %s:%d: %s (errno %d)\n", __FILE__, __LINE__, #cond, \
				errno);                                                                      \
			return 1;                                                                            \
		}                                                                                            \
	} while (0)

union world_sa {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static union world_sa sa_of(const char *addr, int port)
{
	union world_sa sa = {0};

	if (inet_pton(AF_INET, addr, &sa.in.sin_addr) == 1) {
		sa.in.sin_family = AF_INET;
	} else {
		inet_pton(AF_INET6, addr, &sa.in6.sin6_addr);
		sa.in6.sin6_family = AF_INET6;
	}
	sa.in.sin_port = htons((uint16_t)port);
	return sa;
}

static socklen_t sa_len(const union world_sa *sa)
{
	return sa->sa.sa_family == AF_INET ? sizeof(sa->in) : sizeof(sa->in6);
}

static void limit_wait(int fd)
{
	const struct timeval tv = {.tv_sec = 20};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

static int dial(const union world_sa *sa)
{
	int fd = socket(sa->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	limit_wait(fd);
	if (connect(fd, &sa->sa, sa_len(sa)) < 0) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

static int dial_text(const char *addr, int port)
{
	union world_sa sa = sa_of(addr, port);
	return dial(&sa);
}

/* Ask a resolver nobody has configured. Returns the rcode (and the address, if there is one), -1: no answer.
 */
static int resolve_at(const char *server, const char *name, int type, union world_sa *out)
{
	uint8_t q[512] = {0x12, 0x34, 1, 0, 0, 1}, a[512], *p = q + 12;
	union world_sa to = sa_of(server, 53);
	int fd = socket(to.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	for (const char *s = name; *s;) {
		size_t len = strcspn(s, ".");
		*p++ = (uint8_t)len;
		memcpy(p, s, len);
		p += len;
		s += len + (s[len] == '.');
	}
	*p++ = 0;
	*p++ = 0;
	*p++ = (uint8_t)type;
	*p++ = 0;
	*p++ = 1;
	limit_wait(fd);
	ssize_t n = -1;
	if (connect(fd, &to.sa, sa_len(&to)) == 0 && send(fd, q, (size_t)(p - q), 0) > 0)
		n = recv(fd, a, sizeof(a), 0);
	close(fd);
	if (n < p - q || a[0] != 0x12 || a[1] != 0x34)
		return -1;
	memset(out, 0, sizeof(*out));
	if (a[7] == 1) {
		const uint8_t *data = a + (p - q) + 12;
		out->sa.sa_family = type == 1 ? AF_INET : AF_INET6;
		if (type == 1)
			memcpy(&out->in.sin_addr, data, 4);
		else
			memcpy(&out->in6.sin6_addr, data, 16);
	}
	return a[3] & 15;
}

static int resolve(const char *name, int type, union world_sa *out)
{
	return resolve_at("8.8.8.8", name, type, out);
}

static int dial_name(const char *name, int port, int type)
{
	union world_sa sa;

	if (resolve(name, type, &sa) != 0 || sa.sa.sa_family == 0) {
		errno = ENOENT;
		return -1;
	}
	sa.in.sin_port = htons((uint16_t)port);
	return dial(&sa);
}

/* Send, and what comes back first. "" for an end, "reset" when the connection was reset. */
static const char *exchange(int fd, const void *data, size_t len)
{
	static char answer[4096];

	if (len && send(fd, data, len, MSG_NOSIGNAL) < 0)
		return errno == ECONNRESET || errno == EPIPE ? "reset" : "failed";
	ssize_t n = recv(fd, answer, sizeof(answer) - 1, 0);
	if (n < 0)
		return errno == ECONNRESET ? "reset" : "failed";
	answer[n] = '\0';
	return answer;
}

/* A ClientHello with this SNI (NULL: none). */
static size_t client_hello(uint8_t *out, const char *sni, bool ech)
{
	uint8_t *p = out, *rec, *hs, *ext;
	size_t len = sni ? strlen(sni) : 0;

	*p++ = 22, *p++ = 3, *p++ = 1;
	rec = p, p += 2;
	*p++ = 1;
	hs = p, p += 3;
	*p++ = 3, *p++ = 3;
	memset(p, 7, 32), p += 32;
	*p++ = 0;
	*p++ = 0, *p++ = 2, *p++ = 0x13, *p++ = 1;
	*p++ = 1, *p++ = 0;
	ext = p, p += 2;
	if (ech) {
		*p++ = 0xfe, *p++ = 0x0d, *p++ = 0, *p++ = 4;
		memset(p, 1, 4), p += 4;
	}
	if (sni) {
		*p++ = 0, *p++ = 0;
		*p++ = 0, *p++ = (uint8_t)(len + 5);
		*p++ = 0, *p++ = (uint8_t)(len + 3);
		*p++ = 0;
		*p++ = 0, *p++ = (uint8_t)len;
		memcpy(p, sni, len), p += len;
	}
	size_t n = (size_t)(p - ext - 2);
	ext[0] = (uint8_t)(n >> 8), ext[1] = (uint8_t)n;
	n = (size_t)(p - hs - 3);
	hs[0] = 0, hs[1] = (uint8_t)(n >> 8), hs[2] = (uint8_t)n;
	n = (size_t)(p - rec - 2);
	rec[0] = (uint8_t)(n >> 8), rec[1] = (uint8_t)n;
	return (size_t)(p - out);
}

/* ---- for a group of tests ---- */

#define RESOLVER "\"resolver\":\"127.0.0.1:5354\""

static const char *const records[] = {"--host-record=web.example.test,9.9.9.1,2600::1",
	"--host-record=deep.sub.wild.test,9.9.9.2", "--host-record=a.wild.test,9.9.9.2",
	"--host-record=b.wild.test,9.9.9.2", "--host-record=inside.example.test,10.1.2.3",
	"--host-record=lo.example.test,127.0.0.1", "--host-record=meta.example.test,169.254.169.254",
	"--host-record=nat64.example.test,64:ff9b::a9fe:a9fe",
	"--host-record=mapped.example.test,::ffff:169.254.169.254",
	"--host-record=mixed.example.test,10.9.9.9", "--host-record=mixed.example.test,9.9.9.3",
	"--cname=c1.example.test,c2.example.test", "--cname=c2.example.test,c3.example.test",
	"--cname=c3.example.test,web.example.test", "--host-record=dead.example.test,9.9.9.4",
	"--host-record=own.example.test,9.9.9.77", NULL};

static const char *no_world;

static int group_setup(void **state)
{
	(void)state;
	no_world = world_open(records);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	world_close();
	log_clear();
	return 0;
}

#define NEED_WORLD()                                           \
	do {                                                   \
		if (no_world) {                                \
			print_message("skip: %s\n", no_world); \
			skip();                                \
		}                                              \
	} while (0)

#endif
