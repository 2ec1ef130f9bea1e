/* The keeper's DNS sockets inside the namespace, and the decision about a name. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/dns.h"
#include "netpolicy/gate_priv.h"

#define UDP_PER_EVENT 64
#define MAX_TCP 32
#define TCP_IDLE_US 10000000

/* DNS over TCP: one query at a time, answered at once. */
struct pf_dns_conn {
	struct pf_src src;
	struct pf_timer timer;
	struct pf_gate *gate;
	struct pf_dns_conn *next, **prev;
	size_t have;
	uint8_t buf[2 + PF_DNS_QUERY_MAX];
};

static bool is_local(const struct pf_gate *g, const char *name)
{
	return strcmp(name, "localhost") == 0 || pf_ends_with(name, ".localhost") ||
	       (g->hostname && strcmp(name, g->hostname) == 0);
}

static void deny(struct pf_gate *g, const char *name, const char *reason, const struct pf_rule *rule)
{
	struct pf_gate_event ev = {.kind = "dns",
		.verdict = "deny",
		.reason = reason,
		.name = name,
		.rule = rule ? rule->text : NULL};
	PF_FREE char *exec = NULL, *process = NULL;

	/* Resolvers connect their sockets, to the server that resolv.conf names. */
	if (g->asking && g->asking->sa.sa_family == AF_INET && g->diag >= 0) {
		const union pf_sa server = {.in = {.sin_family = AF_INET,
						    .sin_port = htons(53),
						    .sin_addr = {htonl(PF_SYNTH_NET4 | 1)}}};
		pf_gate_whois(g, IPPROTO_UDP, &g->asking->sa, &server.sa, &exec, &process);
	}
	ev.exec = exec;
	ev.process = process;
	g->count.dns_denied++;
	pf_gate_audit(g, PF_AUDIT_DNS, &ev);
}

static void set_address(const struct pf_gate *g, const struct pf_synth_name *e, struct pf_dns_answer *answer)
{
	*answer = (struct pf_dns_answer){.action = PF_DNS_ADDRESS,
		.has4 = true,
		.has6 = g->v6,
		.a4 = pf_synth_addr4(e),
		.a6 = pf_synth_addr6(&g->synth, e)};
}

/* A query carries no port, so any rule that has the name on some port makes it exist. */
static void lookup(void *arg, const char *asked, uint16_t qtype, struct pf_dns_answer *answer)
{
	struct pf_gate *g = arg;
	const struct pf_rule *rule = NULL;
	char name[PF_NAME_MAX];

	(void)qtype;
	if (!pf_name_normal(asked, strlen(asked), name)) {
		deny(g, asked, "not_a_host_name", NULL);
		return;
	}
	if (is_local(g, name)) {
		*answer = (struct pf_dns_answer){.action = PF_DNS_ADDRESS,
			.has4 = true,
			.has6 = g->v6,
			.a4 = {htonl(INADDR_LOOPBACK)},
			.a6 = in6addr_loopback};
		return;
	}
	enum pf_verdict v = pf_policy_host(g->policy, name, 0, &rule);
	if (v != PF_VERDICT_ALLOW) {
		deny(g, name, pf_verdict_reason(v), rule);
		/* With an address the client connects, and can be told. Nothing is asked of anybody for it.
		 */
		if (!pf_policy_explains(g->policy) || !g->opts.authority ||
			(v != PF_VERDICT_NOT_LISTED && v != PF_VERDICT_DENIED_HOST) ||
			!pf_bucket_take(&g->new_names, PF_GATE_NAMES_PER_SECOND, PF_GATE_NAMES_BURST))
			return;
		struct pf_synth_name *told = pf_synth_name(&g->synth, name, true);
		if (told)
			set_address(g, told, answer);
		return;
	}
	struct pf_synth_name *e = pf_synth_name(&g->synth, name, false);
	if (!e) {
		/* Names below a wildcard are the sandbox's to make up. */
		bool made_up = rule->wildcard || !rule->host;
		if (made_up &&
			!pf_bucket_take(&g->new_names, PF_GATE_NAMES_PER_SECOND, PF_GATE_NAMES_BURST)) {
			deny(g, name, "rate", rule);
			answer->action = PF_DNS_SERVFAIL;
			return;
		}
		e = pf_synth_name(&g->synth, name, true);
		if (!e) {
			deny(g, name, "too_many_names", rule);
			answer->action = PF_DNS_SERVFAIL;
			return;
		}
		struct pf_gate_event ev = {.kind = "dns",
			.verdict = "allow",
			.reason = "allowed",
			.name = name,
			.rule = rule->text};
		pf_gate_audit(g, PF_AUDIT_DNS, &ev);
	}
	g->count.dns_answered++;
	set_address(g, e, answer);
}

static void on_udp(struct pf_gate *g, int fd)
{
	uint8_t query[PF_DNS_QUERY_MAX + 1], answer[PF_DNS_ANSWER_MAX];
	union pf_sa from;

	for (int i = 0; i < UDP_PER_EVENT; i++) {
		socklen_t from_len = sizeof(from);
		ssize_t n = recvfrom(fd, query, sizeof(query), MSG_DONTWAIT, &from.sa, &from_len);
		if (n < 0)
			return;
		g->asking = &from;
		size_t len = pf_dns_respond(query, (size_t)n, answer, lookup, g);
		g->asking = NULL;
		if (len <= 12)
			g->count.dns_malformed++;
		/* An answer that does not fit now is lost as any datagram may be. */
		if (len)
			(void)sendto(fd, answer, len, MSG_DONTWAIT | MSG_NOSIGNAL, &from.sa, from_len);
	}
}

static void on_udp4(struct pf_src *src, uint32_t events)
{
	(void)events;
	on_udp(pf_container(src, struct pf_gate, dns_udp[0]), src->fd);
}

static void on_udp6(struct pf_src *src, uint32_t events)
{
	(void)events;
	on_udp(pf_container(src, struct pf_gate, dns_udp[1]), src->fd);
}

static void end_conn(struct pf_dns_conn *c)
{
	struct pf_gate *g = c->gate;

	pf_loop_close(&g->loop, &c->src);
	pf_loop_cancel(&g->loop, &c->timer);
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	g->n_dns_conns--;
	pf_loop_free(&g->loop, c);
}

static void on_conn_timer(struct pf_timer *t)
{
	end_conn(pf_container(t, struct pf_dns_conn, timer));
}

/* false: end the connection. */
static bool answer_one(struct pf_dns_conn *c, size_t len)
{
	uint8_t out[2 + PF_DNS_ANSWER_MAX];
	size_t n = pf_dns_respond(c->buf + 2, len, out + 2, lookup, c->gate);

	if (n <= 12)
		c->gate->count.dns_malformed++;
	if (n == 0)
		return false;
	out[0] = (uint8_t)(n >> 8);
	out[1] = (uint8_t)n;
	/* A client that does not read its answers gets no more of them. */
	return send(c->src.fd, out, n + 2, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)(n + 2);
}

static void on_conn(struct pf_src *src, uint32_t events)
{
	struct pf_dns_conn *c = pf_container(src, struct pf_dns_conn, src);

	(void)events;
	ssize_t n = recv(src->fd, c->buf + c->have, sizeof(c->buf) - c->have, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_conn(c);
		return;
	}
	c->have += (size_t)n;
	while (c->have >= 2) {
		size_t len = (size_t)c->buf[0] << 8 | c->buf[1];
		if (len < 12 || len > PF_DNS_QUERY_MAX) {
			end_conn(c);
			return;
		}
		if (c->have < 2 + len)
			break;
		if (!answer_one(c, len)) {
			end_conn(c);
			return;
		}
		c->have -= 2 + len;
		memmove(c->buf, c->buf + 2 + len, c->have);
	}
	pf_loop_timer(&c->gate->loop, &c->timer, pf_now_us() + TCP_IDLE_US);
}

static void on_listener(struct pf_gate *g, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
			pf_gate_pause_accept(g);
		return;
	}
	if (g->n_dns_conns >= MAX_TCP) {
		/* The oldest makes room: new ones are put in front. */
		struct pf_dns_conn *last = g->dns_conns;
		while (last->next)
			last = last->next;
		end_conn(last);
	}
	struct pf_dns_conn *c = pf_calloc(1, sizeof(*c));
	c->gate = g;
	c->src = (struct pf_src){.fd = fd, .fn = on_conn};
	c->timer.fn = on_conn_timer;
	c->next = g->dns_conns;
	c->prev = &g->dns_conns;
	if (c->next)
		c->next->prev = &c->next;
	g->dns_conns = c;
	g->n_dns_conns++;
	if (pf_loop_add(&g->loop, &c->src, EPOLLIN) < 0)
		end_conn(c);
	else
		pf_loop_timer(&g->loop, &c->timer, pf_now_us() + TCP_IDLE_US);
}

static void on_listener4(struct pf_src *src, uint32_t events)
{
	(void)events;
	on_listener(pf_container(src, struct pf_gate, dns_tcp[0]), src->fd);
}

static void on_listener6(struct pf_src *src, uint32_t events)
{
	(void)events;
	on_listener(pf_container(src, struct pf_gate, dns_tcp[1]), src->fd);
}

int pf_dnsserver_open(struct pf_gate *g, struct pf_err *err)
{
	static void (*const on_udp_fn[2])(struct pf_src *, uint32_t) = {on_udp4, on_udp6};
	static void (*const on_tcp_fn[2])(struct pf_src *, uint32_t) = {on_listener4, on_listener6};

	for (int i = 0; i < (g->v6 ? 2 : 1); i++) {
		g->dns_udp[i].fn = on_udp_fn[i];
		g->dns_tcp[i].fn = on_tcp_fn[i];
		if ((g->dns_udp[i].fd = pf_gate_socket(i == 1, SOCK_DGRAM, PF_NFT_DNS_PORT, err)) < 0 ||
			(g->dns_tcp[i].fd = pf_gate_socket(i == 1, SOCK_STREAM, PF_NFT_DNS_PORT, err)) < 0)
			return pf_wrap(err, "DNS socket");
		if (pf_loop_add(&g->loop, &g->dns_udp[i], EPOLLIN) < 0 ||
			pf_loop_add(&g->loop, &g->dns_tcp[i], EPOLLIN) < 0)
			return pf_fail(err, errno, "watch the DNS sockets");
	}
	return 0;
}

void pf_dnsserver_close(struct pf_gate *g)
{
	while (g->dns_conns)
		end_conn(g->dns_conns);
	for (int i = 0; i < 2; i++) {
		pf_loop_close(&g->loop, &g->dns_udp[i]);
		pf_loop_close(&g->loop, &g->dns_tcp[i]);
	}
}
