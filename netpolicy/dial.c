/* Theory of operation.
 *
 * Resolved addresses pass the filter first; what survives is dialled in the resolver's order, the next one as
 * soon as one fails or has not answered for a quarter of a second, at most three at a time (the first to
 * connect wins), all together for at most fifteen seconds. */
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

static bool is_pending(const struct pf_conn *c)
{
	for (size_t i = 0; i < PF_DIAL_PARALLEL; i++)
		if (c->attempts[i].conn && c->attempts[i].src.fd >= 0)
			return true;
	return false;
}

void pf_dial_stop(struct pf_conn *c)
{
	for (size_t i = 0; i < PF_DIAL_PARALLEL; i++)
		if (c->attempts[i].conn)
			pf_loop_close(&c->gate->loop, &c->attempts[i].src);
	free(c->addrs);
	c->addrs = NULL;
	c->n_addrs = 0;
}

static void won(struct pf_conn *c, struct pf_attempt *a)
{
	c->up.src.fd = a->src.fd;
	c->up.writable = true;
	c->real = a->addr;
	a->src.fd = -1;
	pf_dial_stop(c);
	if (pf_loop_mod(&c->gate->loop, &c->up.src, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) < 0)
		pf_conn_abort(c, "error", "epoll", strerror(errno));
	else
		pf_conn_connected(c);
}

static void next_attempt(struct pf_conn *c);

static void on_attempt(struct pf_src *src, uint32_t events)
{
	struct pf_attempt *a = pf_container(src, struct pf_attempt, src);
	struct pf_conn *c = a->conn;
	socklen_t len = sizeof(c->dial_errno);
	int e = 0;

	(void)events;
	if (getsockopt(src->fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0)
		e = errno;
	if (e == 0) {
		won(c, a);
		return;
	}
	c->dial_errno = e;
	pf_loop_close(&c->gate->loop, src);
	next_attempt(c);
}

/* Start one attempt at the next address; true when it is under way. */
static bool try_one(struct pf_conn *c)
{
	struct pf_attempt *a = c->attempts;
	const union pf_sa *sa = &c->addrs[c->next_addr];
	int on = 1;

	while (a->conn && a->src.fd >= 0)
		a++;
	c->next_addr++;
	*a = (struct pf_attempt){.conn = c, .addr = *sa, .src = {.fn = on_attempt}};
	c->real = *sa; /* for the log, should none of them work */
	a->src.fd = socket(sa->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (a->src.fd < 0) {
		c->dial_errno = errno;
		return false;
	}
	if (pf_gate_mark(c->gate, a->src.fd) < 0 ||
		(connect(a->src.fd, &sa->sa, pf_sa_len(&sa->sa)) < 0 && errno != EINPROGRESS) ||
		pf_loop_add(&c->gate->loop, &a->src, EPOLLOUT) < 0) {
		c->dial_errno = errno;
		close(a->src.fd);
		a->src.fd = -1;
		return false;
	}
	/* While the handshake goes on. A peer that is gone without a word would hold the connection for ever.
	 */
	(void)setsockopt(a->src.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(a->src.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	return true;
}

static void next_attempt(struct pf_conn *c)
{
	size_t running = 0;

	for (size_t i = 0; i < PF_DIAL_PARALLEL; i++)
		running += c->attempts[i].conn && c->attempts[i].src.fd >= 0;
	if (running < PF_DIAL_PARALLEL)
		while (c->next_addr < c->n_addrs && !try_one(c))
			;
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
