/* Taking connections in: what the sandbox dialled arrives at a listener in its namespace, redirected by the
 * packet filter, which knows where it wanted to go. What cannot be taken is refused at once. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/proc.h"
#include "netpolicy/relay_priv.h"

#ifndef SO_ORIGINAL_DST
#define SO_ORIGINAL_DST \
	80 /* linux/netfilter_ipv4.h and netfilter_ipv6/ip6_tables.h; the same number in both */
#endif

#define ACCEPTS_PER_EVENT 64
#define RETRY_US 100000

/* Where the client wanted to go. Without a redirect (which the packet filter does not let through) it is the
 * listener itself. */
static bool original_dst(int fd, bool v6, union pf_sa *orig)
{
	socklen_t len = sizeof(*orig);

	memset(orig, 0, sizeof(*orig));
	if (getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, SO_ORIGINAL_DST, orig, &len) < 0)
		return false;
	if (v6)
		return !IN6_IS_ADDR_LOOPBACK(&orig->in6.sin6_addr);
	return (ntohl(orig->in.sin_addr.s_addr) >> 24) != 127;
}

static void refuse(struct pf_gate *g, int fd, const char *reason)
{
	struct pf_gate_event ev = {.kind = "connect", .verdict = "deny", .reason = reason, .proto = "tcp"};

	pf_reset_on_close(fd);
	close(fd);
	pf_gate_audit(g, PF_AUDIT_CONN, &ev);
}

static void take(struct pf_gate *g, int fd, bool v6, const union pf_sa *peer)
{
	union pf_sa orig;

	g->count.conns_accepted++;
	if (g->n_conns >= g->max_conns || !pf_room_for(g, 2)) {
		g->count.conns_overload++;
		refuse(g, fd, "too_many_connections");
		return;
	}
	if (!original_dst(fd, v6, &orig)) {
		g->count.conns_denied++;
		refuse(g, fd, "direct_dial");
		return;
	}
	pf_conn_begin(g, fd, peer, &orig);
}

static void watch_listeners(struct pf_gate *g, uint32_t events)
{
	for (int i = 0; i < (g->v6 ? 2 : 1); i++) {
		(void)pf_loop_mod(&g->loop, &g->listener[i], events);
		(void)pf_loop_mod(&g->loop, &g->dns_tcp[i], events);
	}
}

static void on_retry(struct pf_timer *t)
{
	watch_listeners(pf_container(t, struct pf_gate, listener_retry), EPOLLIN);
}

void pf_gate_pause_accept(struct pf_gate *g)
{
	watch_listeners(g, 0);
	g->listener_retry.fn = on_retry;
	pf_loop_timer(&g->loop, &g->listener_retry, pf_now_us() + RETRY_US);
}

static void on_listener(struct pf_gate *g, int listener, bool v6)
{
	/* One at first: asking for a second that is not there costs as much as taking one. */
	bool burst = g->accepted_in + 1 == g->loop.round;

	g->accepted_in = g->loop.round;
	for (int i = 0; i < (burst ? ACCEPTS_PER_EVENT : 1); i++) {
		union pf_sa peer;
		socklen_t len = sizeof(peer);
		int fd = accept4(listener, &peer.sa, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			take(g, fd, v6, &peer);
			continue;
		}
		if (errno == ECONNABORTED || errno == EINTR)
			continue;
		/* Out of descriptors: the backlog waits, and we must not spin on it. */
		if (errno != EAGAIN)
			pf_gate_pause_accept(g);
		return;
	}
}

static void on_listener4(struct pf_src *src, uint32_t events)
{
	(void)events;
	on_listener(pf_container(src, struct pf_gate, listener[0]), src->fd, false);
}

static void on_listener6(struct pf_src *src, uint32_t events)
{
	(void)events;
	on_listener(pf_container(src, struct pf_gate, listener[1]), src->fd, true);
}

int pf_relay_open(struct pf_gate *g, struct pf_err *err)
{
	static void (*const fn[2])(struct pf_src *, uint32_t) = {on_listener4, on_listener6};

	for (int i = 0; i < (g->v6 ? 2 : 1); i++) {
		g->listener[i].fn = fn[i];
		g->listener[i].fd = pf_gate_socket(i == 1, SOCK_STREAM, PF_NFT_RELAY_PORT, err);
		if (g->listener[i].fd < 0)
			return pf_wrap(err, "relay listener");
		if (pf_loop_add(&g->loop, &g->listener[i], EPOLLIN) < 0)
			return pf_fail(err, errno, "watch the relay listener");
	}
	return 0;
}
