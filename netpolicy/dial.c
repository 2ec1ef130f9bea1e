/* Theory of operation.
 *
 * Resolved addresses pass the filter first; what survives is dialled in the resolver's order, the next one as
 * soon as one fails or has not answered for a quarter of a second, at most three at a time (the first to
 * connect wins), all together for at most fifteen seconds. The first one is nearly always the only one: it
 * has its place in the connection from the beginning, and what it needs there. */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/relay_priv.h"

#define STAGGER_US 250000
#define TOTAL_US 15000000
#define MORE (PF_DIAL_PARALLEL - 1)
/* From the beginning what the connection will want, so that it is said once. */
#define WATCH (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET)

static bool is_pending(const struct pf_conn *c)
{
	for (size_t i = 0; c->more && i < MORE; i++)
		if (c->more[i].src.fd >= 0)
			return true;
	return c->up.src.fd >= 0;
}

static void drop(struct pf_gate *g, struct pf_src *src)
{
	if (src->fd < 0)
		return;
	pf_loop_close(&g->loop, src);
	pf_room_return(g, 1);
}

void pf_dial_stop(struct pf_conn *c)
{
	for (size_t i = 0; c->more && i < MORE; i++)
		drop(c->gate, &c->more[i].src);
	if (c->more)
		pf_loop_free(&c->gate->loop, c->more);
	c->more = NULL;
	free(c->addrs);
	c->addrs = NULL;
	c->n_addrs = 0;
}

static void next_attempt(struct pf_conn *c);

/* What has become of an attempt: 1 connected, 0 nothing yet, -1 failed, and c->dial_errno says why. */
static int outcome(struct pf_conn *c, int fd, uint32_t events)
{
	socklen_t len = sizeof(c->dial_errno);
	int e = 0;

	if (!(events & (EPOLLERR | EPOLLHUP)))
		return events & EPOLLOUT ? 1 : 0;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0)
		e = errno;
	if (e == 0)
		return 1;
	c->dial_errno = e;
	return -1;
}

void pf_dial_event(struct pf_conn *c, uint32_t events)
{
	int r = outcome(c, c->up.src.fd, events);

	if (r > 0) {
		c->real = c->first;
		pf_dial_stop(c);
		pf_end_note(&c->up, events);
		pf_conn_connected(c);
	} else if (r < 0) {
		pf_loop_close(&c->gate->loop, &c->up.src);
		next_attempt(c);
	}
}

/* It takes the place of the first, which is given up. What is known of its readiness is told anew. */
static void on_attempt(struct pf_src *src, uint32_t events)
{
	struct pf_attempt *a = pf_container(src, struct pf_attempt, src);
	struct pf_conn *c = a->conn;
	struct pf_gate *g = c->gate;
	int r = outcome(c, src->fd, events);

	if (r < 0) {
		drop(g, src);
		next_attempt(c);
	} else if (r > 0) {
		pf_loop_close(&g->loop, &c->up.src);
		c->up.src.fd = src->fd;
		c->real = a->addr;
		src->fd = -1;
		pf_room_return(g, 1);
		pf_dial_stop(c);
		pf_end_note(&c->up, events);
		if (pf_loop_mod(&g->loop, &c->up.src, WATCH) < 0)
			pf_conn_abort(c, "error", "epoll", strerror(errno));
		else
			pf_conn_connected(c);
	}
}

/* Where the next attempt goes: the first place if it is free. NULL: no more at a time. */
static struct pf_src *free_place(struct pf_conn *c, const union pf_sa *sa)
{
	if (c->up.src.fd < 0) {
		c->first = *sa;
		return &c->up.src;
	}
	if (!c->more) {
		c->more = pf_calloc(MORE, sizeof(*c->more));
		for (size_t i = 0; i < MORE; i++)
			c->more[i] = (struct pf_attempt){.conn = c, .src = {.fd = -1, .fn = on_attempt}};
	}
	for (size_t i = 0; i < MORE; i++) {
		if (c->more[i].src.fd >= 0)
			continue;
		if (!pf_room_borrow(c->gate, 1))
			return NULL;
		c->more[i].addr = *sa;
		return &c->more[i].src;
	}
	return NULL;
}

/* Start one attempt at the next address. */
static void try_one(struct pf_conn *c, struct pf_src *src, const union pf_sa *sa)
{
	struct pf_gate *g = c->gate;
	int on = 1;

	c->real = *sa; /* for the log, should none of them work */
	src->fd = socket(sa->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (src->fd < 0 || pf_gate_mark(g, src->fd) < 0 ||
		(connect(src->fd, &sa->sa, pf_sa_len(&sa->sa)) < 0 && errno != EINPROGRESS) ||
		pf_loop_add(&g->loop, src, WATCH) < 0) {
		c->dial_errno = errno;
		if (src->fd >= 0)
			close(src->fd);
		src->fd = -1;
		if (src != &c->up.src)
			pf_room_return(g, 1);
		return;
	}
	/* While the handshake goes on. A peer that is gone without a word would hold the connection for ever.
	 */
	(void)setsockopt(src->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(src->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	/* An urgent byte goes on in its place among the others. */
	(void)setsockopt(src->fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
}

/* One more, or as many as fail at once. */
static void next_attempt(struct pf_conn *c)
{
	bool under_way = false;

	while (!under_way && c->next_addr < c->n_addrs) {
		const union pf_sa *sa = &c->addrs[c->next_addr];
		struct pf_src *src = free_place(c, sa);
		if (!src)
			break;
		c->next_addr++;
		try_one(c, src, sa);
		under_way = src->fd >= 0;
	}
	if (!is_pending(c)) {
		pf_conn_abort(c, "error", "connect", strerror(c->dial_errno));
		return;
	}
	c->next_try = c->next_addr < c->n_addrs ? pf_now_us() + STAGGER_US : c->dial_by;
	pf_conn_arm(c);
}

void pf_dial_tick(struct pf_conn *c, int64_t now)
{
	if (now >= c->dial_by)
		pf_conn_abort(c, "error", "connect", strerror(ETIMEDOUT));
	else if (now >= c->next_try)
		next_attempt(c);
}

void pf_dial_start(struct pf_conn *c, const union pf_sa *addrs, size_t n)
{
	struct pf_gate *g = c->gate;
	const struct pf_own_addrs *own = pf_upstream_own(g);
	enum pf_verdict worst = PF_VERDICT_ADDRESS;
	enum pf_addr_class class = PF_ADDR_RESERVED, refused = PF_ADDR_RESERVED;
	uint16_t port = htons(pf_sa_port(&c->orig.sa));

	if (!own) {
		pf_conn_abort(c, "error", "own_addresses", "the host's own addresses cannot be read");
		return;
	}
	c->addrs = pf_calloc(n, sizeof(*c->addrs));
	for (size_t i = 0; i < n; i++) {
		union pf_sa sa = addrs[i];
		sa.in.sin_port = port; /* the same place in both families */
		enum pf_verdict v = pf_policy_result(g->policy, c->rule, &sa.sa, own, &class);
		if (v == PF_VERDICT_ALLOW) {
			c->addrs[c->n_addrs++] = sa;
			continue;
		}
		worst = v;
		refused = class;
		c->real = sa;
	}
	if (c->n_addrs == 0) {
		pf_conn_deny(c, pf_verdict_reason(worst),
			worst == PF_VERDICT_ADDRESS ? pf_addr_class_name(refused) : NULL);
		return;
	}
	c->state = PF_CONN_DIALLING;
	c->dial_by = pf_now_us() + TOTAL_US;
	next_attempt(c);
}
