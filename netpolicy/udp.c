/* Theory of operation.
 *
 * Datagrams to what a rule for UDP has are redirected to one socket in the namespace. Which destination was
 * meant is asked of connection tracking once per flow; a flow is what comes from one address and port after
 * the redirect (the kernel gives each destination of a socket of its own there). From then on it is as with
 * TCP: a synthetic address is a name, its rule decides, the name is resolved and the addresses filtered here,
 * and a connected socket on the host's side sends. Only that peer can answer, and an answer goes back to
 * where the flow came from.
 *
 * A flow ends when nothing was said for half a minute, or two minutes once it was answered, or when
 * connection tracking, which counts differently, has given its port to another destination before. Datagrams
 * that come before the name is resolved are kept up to four; none is ever held back for another. What is
 * refused is answered with an ICMP error (icmp.c), so that nobody waits. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/ctlookup.h"
#include "netpolicy/gate_priv.h"
#include "netpolicy/icmp.h"

#define MAX_FLOWS 1024
#define UNANSWERED_US 30000000
#define ANSWERED_US 120000000
#define DENIED_US 5000000
#define SURE_US 1000000 /* connection tracking keeps what was silent for longer, however it is set */
#define PER_EVENT 64
#define WAITING 4
#define DATAGRAM_MAX 65536

struct datagram {
	size_t len;
	uint8_t data[];
};

struct pf_udp_flow {
	struct pf_src up;
	struct pf_timer timer;
	struct pf_gate *gate;
	struct pf_udp_flow *next, **prev;
	union pf_sa peer, orig, real;
	struct pf_synth_name *name; /* held; NULL for a literal address */
	const struct pf_rule *rule;
	char *rule_text, *exec, *process;
	struct pf_query *query;
	struct datagram *waiting[WAITING];
	size_t n_waiting;
	bool denied, answered;
	int64_t began, last; /* a datagram, in either direction */
	uint64_t bytes_out, bytes_in;
};

static void report(
	struct pf_udp_flow *f, const char *kind, const char *verdict, const char *reason, const char *detail)
{
	char orig[PF_ADDR_TEXT], real[PF_ADDR_TEXT];
	struct pf_gate_event ev = {.kind = kind,
		.verdict = verdict,
		.reason = reason,
		.detail = detail,
		.name = f->name ? f->name->name : NULL,
		.rule = f->rule_text,
		.orig = pf_sa_text(&f->orig.sa, orig),
		.addr = f->real.sa.sa_family ? pf_sa_text(&f->real.sa, real) : NULL,
		.proto = "udp",
		.port = pf_sa_port(&f->orig.sa),
		.exec = f->exec,
		.process = f->process,
		.bytes_out = f->bytes_out,
		.bytes_in = f->bytes_in,
		.duration_us = pf_now_us() - f->began};

	pf_gate_audit(f->gate, PF_AUDIT_CONN, &ev);
}

static void end_flow(struct pf_udp_flow *f)
{
	struct pf_gate *g = f->gate;

	if (f->query)
		pf_upstream_forget(f->query);
	pf_loop_cancel(&g->loop, &f->timer);
	pf_loop_close(&g->loop, &f->up);
	while (f->n_waiting)
		free(f->waiting[--f->n_waiting]);
	if (f->name)
		f->name->holds--;
	g->count.bytes_out += f->bytes_out;
	g->count.bytes_in += f->bytes_in;
	free(f->rule_text);
	free(f->exec);
	free(f->process);
	*f->prev = f->next;
	if (f->next)
		f->next->prev = f->prev;
	g->n_udp_flows--;
	pf_loop_free(&g->loop, f);
}

static void refuse(const struct pf_gate *g, const union pf_sa *peer, size_t len)
{
	pf_icmp_refuse(g->icmp[peer->sa.sa_family == AF_INET6], peer, PF_NFT_UDP_PORT, len);
}

/* A refused flow stays for a moment, so that each of its datagrams is not a decision and a line of its own.
 */
static void deny(struct pf_udp_flow *f, const char *verdict, const char *reason, const char *detail)
{
	f->denied = true;
	f->gate->count.conns_denied++;
	report(f, "connect", verdict, reason, detail);
	pf_loop_close(&f->gate->loop, &f->up);
	while (f->n_waiting) {
		struct datagram *d = f->waiting[--f->n_waiting];
		refuse(f->gate, &f->peer, d->len);
		free(d);
	}
	pf_loop_timer(&f->gate->loop, &f->timer, pf_now_us() + DENIED_US);
}

static void close_flow(struct pf_udp_flow *f)
{
	if (!f->denied)
		report(f, "close", "allow", "closed", NULL);
	end_flow(f);
}

static void on_timer(struct pf_timer *t)
{
	close_flow(pf_container(t, struct pf_udp_flow, timer));
}

static void keep(struct pf_udp_flow *f)
{
	f->last = pf_now_us();
	pf_loop_timer(&f->gate->loop, &f->timer, f->last + (f->answered ? ANSWERED_US : UNANSWERED_US));
}

static void send_up(struct pf_udp_flow *f, const void *data, size_t len)
{
	if (pf_meter_left(f->gate, f->rule) < len) {
		deny(f, "deny", "rate", "max_bytes_per_hour");
		return;
	}
	/* A datagram that does not fit now is lost, as anywhere. */
	ssize_t n = send(f->up.fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n > 0) {
		f->bytes_out += (uint64_t)n;
		pf_meter_take(f->gate, f->rule, (uint64_t)n);
	}
	keep(f);
}

static void on_up(struct pf_src *src, uint32_t events)
{
	struct pf_udp_flow *f = pf_container(src, struct pf_udp_flow, up);
	struct pf_gate *g = f->gate;
	static uint8_t buf[DATAGRAM_MAX];

	(void)events;
	for (int i = 0; i < PER_EVENT; i++) {
		ssize_t n = recv(src->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0)
			return; /* nothing more, or an ICMP error that the next send will meet */
		if (pf_meter_left(g, f->rule) < (size_t)n) {
			deny(f, "deny", "rate", "max_bytes_per_hour");
			return;
		}
		pf_meter_take(g, f->rule, (uint64_t)n);
		f->answered = true;
		f->bytes_in += (uint64_t)n;
		(void)sendto(g->udp[f->peer.sa.sa_family == AF_INET6].fd, buf, (size_t)n,
			MSG_DONTWAIT | MSG_NOSIGNAL, &f->peer.sa, pf_sa_len(&f->peer.sa));
		keep(f);
	}
}

/* Connect to the first address that may be. */
static void dial(struct pf_udp_flow *f, const union pf_sa *addrs, size_t n)
{
	struct pf_gate *g = f->gate;
	const struct pf_own_addrs *own = pf_upstream_own(g);
	enum pf_verdict v = PF_VERDICT_ADDRESS;
	enum pf_addr_class class = PF_ADDR_RESERVED;

	for (size_t i = 0; own && i < n; i++) {
		union pf_sa sa = addrs[i];
		sa.in.sin_port = f->orig.in.sin_port; /* the same place in both families */
		f->real = sa;
		v = pf_policy_result(g->policy, f->rule, &sa.sa, own, &class);
		if (v != PF_VERDICT_ALLOW)
			continue;
		int fd = socket(sa.sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		f->up = (struct pf_src){.fd = fd, .fn = on_up};
		if (fd < 0 || pf_gate_mark(g, fd) < 0 || connect(fd, &sa.sa, pf_sa_len(&sa.sa)) < 0 ||
			pf_loop_add(&g->loop, &f->up, EPOLLIN) < 0) {
			if (fd >= 0)
				close(fd);
			f->up.fd = -1;
			continue;
		}
		report(f, "connect", "allow", "allowed", NULL);
		for (size_t k = 0; k < f->n_waiting; k++)
			send_up(f, f->waiting[k]->data, f->waiting[k]->len);
		while (f->n_waiting)
			free(f->waiting[--f->n_waiting]);
		return;
	}
	if (v == PF_VERDICT_ALLOW || !own)
		deny(f, "error", "connect",
			own ? strerror(errno) : "the host's own addresses cannot be read");
	else
		deny(f, "deny", pf_verdict_reason(v),
			v == PF_VERDICT_ADDRESS ? pf_addr_class_name(class) : NULL);
}

static void on_resolved(void *arg, const struct pf_resolved *res, const char *error)
{
	struct pf_udp_flow *f = arg;

	f->query = NULL;
	if (error)
		deny(f, "error", "resolve", error);
	else
		dial(f, res->addrs, res->n);
}

static void decide(struct pf_udp_flow *f)
{
	struct pf_gate *g = f->gate;
	enum pf_verdict v;

	if (pf_synth_has(&g->synth, &f->orig.sa)) {
		f->name = pf_synth_addr(&g->synth, &f->orig.sa);
		if (!f->name) {
			deny(f, "deny", "stale_address", NULL);
			return;
		}
		f->name->holds++;
		v = pf_policy_host_udp(g->policy, f->name->name, pf_sa_port(&f->orig.sa), &f->rule);
	} else {
		v = pf_policy_addr(g->policy, &f->orig.sa, IPPROTO_UDP, pf_upstream_own(g), &f->rule);
	}
	if (f->rule)
		f->rule_text = pf_strdup(f->rule->text);
	if (v != PF_VERDICT_ALLOW) {
		deny(f, "deny", pf_verdict_reason(v), NULL);
	} else if (f->name) {
		struct pf_query *q = pf_upstream_resolve(g, f->name, on_resolved, f);
		if (f->up.fd < 0 && !f->denied)
			f->query = q;
	} else {
		union pf_sa sa = f->orig;
		dial(f, &sa, 1);
	}
}

static struct pf_udp_flow *flow_of(struct pf_gate *g, const union pf_sa *peer)
{
	struct pf_udp_flow *f = g->udp_flows;
	union pf_sa orig;

	while (f && memcmp(&f->peer, peer, pf_sa_len(&peer->sa)) != 0)
		f = f->next;
	if (f && pf_now_us() - f->last < SURE_US)
		return f;
	bool full = !f && (g->n_udp_flows >= MAX_FLOWS || !pf_room_for(g, 1));
	bool known = !full && pf_ctlookup_udp(g->conntrack, peer, PF_NFT_UDP_PORT, &orig);
	if (f && known && memcmp(&f->orig, &orig, pf_sa_len(&orig.sa)) == 0)
		return f;
	/* The kernel has forgotten it before us, and given its port to what the payload sends elsewhere. */
	if (f)
		close_flow(f);
	if (!known) {
		struct pf_gate_event ev = {.kind = "connect",
			.verdict = "deny",
			.reason = full ? "too_many_connections" : "direct_dial",
			.proto = "udp"};
		g->count.conns_denied++;
		pf_gate_audit(g, PF_AUDIT_CONN, &ev);
		return NULL;
	}
	f = pf_calloc(1, sizeof(*f));
	f->gate = g;
	f->peer = *peer;
	f->orig = orig;
	f->began = pf_now_us();
	f->up = (struct pf_src){.fd = -1, .fn = on_up};
	f->timer.fn = on_timer;
	f->next = g->udp_flows;
	f->prev = &g->udp_flows;
	if (f->next)
		f->next->prev = &f->next;
	g->udp_flows = f;
	g->n_udp_flows++;
	g->count.conns_accepted++;
	pf_gate_whois(g, IPPROTO_UDP, &peer->sa, &orig.sa, &f->exec, &f->process);
	keep(f);
	decide(f);
	return f;
}

static void on_udp(struct pf_gate *g, int fd)
{
	static uint8_t buf[DATAGRAM_MAX];

	for (int i = 0; i < PER_EVENT; i++) {
		union pf_sa peer = {0};
		socklen_t len = sizeof(peer);
		ssize_t n = recvfrom(fd, buf, sizeof(buf), MSG_DONTWAIT, &peer.sa, &len);
		if (n < 0)
			return;
		struct pf_udp_flow *f = flow_of(g, &peer);
		if (!f || f->denied) {
			refuse(g, &peer, (size_t)n);
		} else if (f->up.fd >= 0) {
			send_up(f, buf, (size_t)n);
		} else if (f->n_waiting < WAITING) {
			struct datagram *d = pf_calloc(1, sizeof(*d) + (size_t)n);
			d->len = (size_t)n;
			memcpy(d->data, buf, (size_t)n);
			f->waiting[f->n_waiting++] = d;
		}
	}
}

static void on_udp4(struct pf_src *src, uint32_t events)
{
	(void)events;
	on_udp(pf_container(src, struct pf_gate, udp[0]), src->fd);
}

static void on_udp6(struct pf_src *src, uint32_t events)
{
	(void)events;
	on_udp(pf_container(src, struct pf_gate, udp[1]), src->fd);
}

int pf_udp_open(struct pf_gate *g, struct pf_err *err)
{
	static void (*const fn[2])(struct pf_src *, uint32_t) = {on_udp4, on_udp6};

	for (int i = 0; i < (g->v6 ? 2 : 1); i++) {
		g->udp[i].fn = fn[i];
		g->udp[i].fd = pf_gate_socket(i == 1, SOCK_DGRAM, PF_NFT_UDP_PORT, err);
		if (g->udp[i].fd < 0)
			return pf_wrap(err, "UDP socket");
		if (pf_loop_add(&g->loop, &g->udp[i], EPOLLIN) < 0)
			return pf_fail(err, errno, "watch the UDP socket");
	}
	g->conntrack = pf_ctlookup_open(err);
	if (g->conntrack < 0)
		return -1;
	/* Who may not have one drops instead: nothing is let through for it. */
	for (int i = 0; i < (g->v6 ? 2 : 1); i++) {
		g->icmp[i] = pf_icmp_open(i == 1);
		if (g->icmp[i] >= 0 && pf_gate_mark(g, g->icmp[i]) < 0)
			return pf_fail(err, errno, "mark the ICMP socket");
	}
	/* The namespace's own times are made for DNS. With them a flow would be forgotten after five seconds.
	 */
	if (pf_policy_has_udp(g->policy)) {
		(void)pf_write_pseudo_at(AT_FDCWD, "/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "30");
		(void)pf_write_pseudo_at(
			AT_FDCWD, "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", "120");
	}
	return 0;
}

void pf_udp_recheck(struct pf_gate *g)
{
	const struct pf_own_addrs *own = pf_upstream_own(g);

	for (struct pf_udp_flow *f = g->udp_flows, *next; f; f = next) {
		const struct pf_rule *rule = NULL;
		enum pf_addr_class class;
		next = f->next;
		enum pf_verdict v =
			f->name ? pf_policy_host_udp(g->policy, f->name->name, pf_sa_port(&f->orig.sa), &rule)
				: pf_policy_addr(g->policy, &f->orig.sa, IPPROTO_UDP, own, &rule);
		if (v == PF_VERDICT_ALLOW && f->up.fd >= 0)
			v = pf_policy_result(g->policy, rule, &f->real.sa, own, &class);
		f->rule = rule;
		if (v == PF_VERDICT_ALLOW && !f->denied)
			continue;
		if (!f->denied)
			report(f, "close", "deny", "policy_changed", NULL);
		end_flow(f);
	}
}

void pf_udp_close(struct pf_gate *g)
{
	while (g->udp_flows) {
		if (!g->udp_flows->denied)
			report(g->udp_flows, "close", "error", "gate_closed", NULL);
		end_flow(g->udp_flows);
	}
	for (int i = 0; i < 2; i++) {
		pf_loop_close(&g->loop, &g->udp[i]);
		if (g->icmp[i] >= 0)
			close(g->icmp[i]);
		g->icmp[i] = -1;
	}
	if (g->conntrack >= 0)
		close(g->conntrack);
	g->conntrack = -1;
}
