/* Theory of operation.
 *
 * The keeper resolves a name when, and only when, the sandbox connects to it, with c-ares on the gate's own
 * loop: by the policy's resolver, or the host's (/etc/resolv.conf and /etc/hosts). A result is remembered for
 * its time to live, at most five seconds, so that a client that opens thirty connections costs one query; it
 * is filtered at each dial all the same. Queries leave from the network namespace where the thread is: the
 * host's, or the one that the gate has joined; there the host's /etc/hosts does not count. */
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/gate_priv.h"

#define TRY_MS 2000
#define TRIES 3
#define OWN_US 2000000

/* c-ares opens and closes its sockets itself; this is our watch on one of them. */
struct ares_watch {
	struct pf_src src;
	struct pf_gate *gate;
	struct ares_watch *next;
};

/* The user data of a channel's socket callback. */
struct pf_ares_state {
	struct pf_gate *gate;
	struct ares_watch *watches;
};

static void arm(struct pf_gate *g)
{
	struct timeval max = {.tv_sec = 10}, tv;

	if (!g->ares)
		return;
	struct timeval *t = ares_timeout(g->ares, NULL, &tv);
	if (!t) {
		pf_loop_cancel(&g->loop, &g->ares_timer);
		return;
	}
	if (t->tv_sec > max.tv_sec)
		t = &max;
	pf_loop_timer(&g->loop, &g->ares_timer, pf_now_us() + t->tv_sec * 1000000LL + t->tv_usec + 1);
}

static void on_timer(struct pf_timer *t)
{
	struct pf_gate *g = pf_container(t, struct pf_gate, ares_timer);

	ares_process_fd(g->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	arm(g);
}

static void on_socket(struct pf_src *src, uint32_t events)
{
	struct ares_watch *w = pf_container(src, struct ares_watch, src);
	struct pf_gate *g = w->gate;
	ares_socket_t fd = src->fd;

	ares_process_fd(g->ares, events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? fd : ARES_SOCKET_BAD,
		events & EPOLLOUT ? fd : ARES_SOCKET_BAD);
	arm(g);
}

static void on_state(void *data, ares_socket_t fd, int readable, int writable)
{
	struct pf_ares_state *st = data;
	struct pf_loop *loop = &st->gate->loop;
	struct ares_watch **at = &st->watches;
	uint32_t events = (readable ? EPOLLIN : 0U) | (writable ? EPOLLOUT : 0U);

	while (*at && (*at)->src.fd != fd)
		at = &(*at)->next;
	struct ares_watch *w = *at;
	if (!events) {
		if (!w)
			return;
		*at = w->next;
		/* The descriptor is c-ares's to close, just after this call. */
		(void)epoll_ctl(loop->epfd, EPOLL_CTL_DEL, fd, NULL);
		w->src.fd = -1;
		pf_loop_free(loop, w);
		return;
	}
	if (w) {
		(void)pf_loop_mod(loop, &w->src, events);
		return;
	}
	w = pf_calloc(1, sizeof(*w));
	*w = (struct ares_watch){.src = {.fd = fd, .fn = on_socket}, .gate = st->gate, .next = st->watches};
	st->watches = w;
	/* A socket that cannot be watched shows as a timeout of the query, which is an answer too. */
	(void)pf_loop_add(loop, &w->src, events);
}

static int on_new_socket(ares_socket_t fd, int type, void *data)
{
	(void)type;
	return pf_gate_mark(data, fd);
}

/* Sockets for c-ares, made as they have to be: the flags of a descriptor are nothing that a gate may change
 * later, since its log's keep it from writing anywhere but at the end. */
static ares_socket_t make_socket(int family, int type, int protocol, void *data)
{
	(void)data;
	return socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
}

static int close_socket(ares_socket_t fd, void *data)
{
	(void)data;
	return close(fd);
}

static int connect_socket(ares_socket_t fd, const struct sockaddr *sa, ares_socklen_t len, void *data)
{
	(void)data;
	return connect(fd, sa, len);
}

static ares_ssize_t receive(ares_socket_t fd, void *buf, size_t len, int flags, struct sockaddr *sa,
	ares_socklen_t *sa_len, void *data)
{
	(void)data;
	return recvfrom(fd, buf, len, flags, sa, sa_len);
}

static ares_ssize_t send_parts(ares_socket_t fd, const struct iovec *parts, int n, void *data)
{
	const struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = (size_t)n};

	(void)data;
	return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static const struct ares_socket_functions sockets = {
	make_socket, close_socket, connect_socket, receive, send_parts};

static const char *make_channel(struct pf_gate *g)
{
	static char host_lookups[] = "fb", dns_only[] = "b";
	const char *resolver = pf_policy_resolver(g->policy);
	if (!resolver)
		resolver = g->opts.resolver;
	struct ares_options o = {.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
		.timeout = TRY_MS,
		.tries = TRIES,
		.lookups = resolver || g->nft.mark ? dns_only : host_lookups,
		.sock_state_cb = on_state};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS |
		   ARES_OPT_SOCK_STATE_CB;

	struct pf_ares_state *st = pf_calloc(1, sizeof(*st));
	st->gate = g;
	o.sock_state_cb_data = st;
	int r = ares_init_options(&g->ares, &o, mask);
	if (r == ARES_SUCCESS && resolver) {
		r = ares_set_servers_ports_csv(g->ares, resolver);
		if (r != ARES_SUCCESS)
			ares_destroy(g->ares);
	}
	if (r != ARES_SUCCESS) {
		g->ares = NULL;
		free(st);
		return ares_strerror(r);
	}
	ares_set_socket_functions(g->ares, &sockets, NULL);
	ares_set_socket_configure_callback(g->ares, on_new_socket, g);
	g->ares_state = st;
	g->ares_timer.fn = on_timer;
	return NULL;
}

/* Keep what was found with the name. NULL: no address of a family we know. */
static struct pf_resolved *remember(struct pf_synth_name *name, const struct ares_addrinfo *ai)
{
	size_t n = 0;
	int64_t ttl_us = PF_RESOLVED_US;

	for (const struct ares_addrinfo_node *i = ai->nodes; i && n < PF_RESOLVED_MAX; i = i->ai_next)
		n += i->ai_family == AF_INET || i->ai_family == AF_INET6;
	free(name->resolved);
	name->resolved = NULL;
	if (n == 0)
		return NULL;
	struct pf_resolved *res = pf_calloc(1, sizeof(*res) + n * sizeof(*res->addrs));
	for (const struct ares_addrinfo_node *i = ai->nodes; i && res->n < n; i = i->ai_next) {
		union pf_sa *sa = &res->addrs[res->n];
		if ((i->ai_family != AF_INET && i->ai_family != AF_INET6) || i->ai_addrlen > sizeof(*sa))
			continue;
		memcpy(sa, i->ai_addr, i->ai_addrlen);
		res->n++;
		if (i->ai_ttl * 1000000LL < ttl_us)
			ttl_us = i->ai_ttl > 0 ? i->ai_ttl * 1000000LL : 0;
	}
	res->expires = pf_now_us() + ttl_us;
	name->resolved = res;
	return res;
}

static void on_result(void *arg, int status, int timeouts, struct ares_addrinfo *ai)
{
	struct pf_query *q = arg;
	const char *error = NULL;
	struct pf_resolved *res = NULL;

	(void)timeouts;
	if (status != ARES_SUCCESS)
		error = ares_strerror(status);
	else if (!(res = remember(q->name, ai)))
		error = "no address";
	if (ai)
		ares_freeaddrinfo(ai);
	q->name->holds--;
	q->gate->n_queries--;
	void (*fn)(void *, const struct pf_resolved *, const char *) = q->fn;
	q->fn = NULL;
	q->done = true;
	if (fn)
		fn(q->arg, res, error);
	if (!q->starting)
		free(q);
}

/* The host may have moved to another network. A channel with queries under way is left until they are done.
 */
static void follow_resolv_conf(struct pf_gate *g)
{
	int64_t now = pf_now_us();
	struct stat st;

	if (pf_policy_resolver(g->policy) || g->n_queries || now - g->resolv_read < OWN_US)
		return;
	g->resolv_read = now;
	if (stat("/etc/resolv.conf", &st) < 0 ||
		(st.st_mtim.tv_sec == g->resolv_conf.tv_sec && st.st_mtim.tv_nsec == g->resolv_conf.tv_nsec))
		return;
	if (g->ares)
		pf_upstream_reset(g);
	g->resolv_conf = st.st_mtim;
}

struct pf_query *pf_upstream_resolve(struct pf_gate *g, struct pf_synth_name *name,
	void (*fn)(void *arg, const struct pf_resolved *res, const char *error), void *arg)
{
	const struct ares_addrinfo_hints hints = {
		.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = 0};

	if (name->resolved && name->resolved->expires > pf_now_us()) {
		fn(arg, name->resolved, NULL);
		return NULL;
	}
	follow_resolv_conf(g);
	const char *error = g->ares ? NULL : make_channel(g);
	if (error) {
		fn(arg, NULL, error);
		return NULL;
	}
	struct pf_query *q = pf_calloc(1, sizeof(*q));
	*q = (struct pf_query){.gate = g, .name = name, .fn = fn, .arg = arg, .starting = true};
	name->holds++;
	g->n_queries++;
	ares_getaddrinfo(g->ares, name->name, NULL, &hints, on_result, q);
	arm(g);
	if (q->done) {
		free(q);
		return NULL;
	}
	q->starting = false;
	return q;
}

void pf_upstream_forget(struct pf_query *q)
{
	q->fn = NULL;
}

const struct pf_own_addrs *pf_upstream_own(struct pf_gate *g)
{
	struct pf_err err = PF_ERR_INIT;
	int64_t now = pf_now_us();

	if (g->own.addrs && now - g->own_read < OWN_US)
		return &g->own;
	pf_own_addrs_done(&g->own);
	if (pf_own_addrs_add(&g->own, g->route, &err) < 0 ||
		(g->host_route >= 0 && pf_own_addrs_add(&g->own, g->host_route, &err) < 0)) {
		pf_own_addrs_done(&g->own);
		return NULL;
	}
	g->own_read = now;
	return &g->own;
}

void pf_upstream_reset(struct pf_gate *g)
{
	pf_loop_cancel(&g->loop, &g->ares_timer);
	if (g->ares)
		ares_destroy(g->ares);
	g->ares = NULL;
	free(g->ares_state);
	g->ares_state = NULL;
	for (struct pf_synth_name *e = g->synth.newest; e; e = e->older)
		if (e->resolved)
			e->resolved->expires = 0;
}
