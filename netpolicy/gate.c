/* Theory of operation.
 *
 * The gate ties the parts together in the order that fails closed: namespace, sockets, then rules; a
 * namespace is handed out only when all three are there. Everything runs on one epoll descriptor that the
 * keeper puts into its own poll loop; nothing blocks, and an idle gate wakes up for nothing.
 *
 * What a gate costs: twelve descriptors, and memory for what is in use: names that were asked for,
 * connections that are open. c-ares comes to life with the first name that is dialled. */
#include "netpolicy/gate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/gate_priv.h"
#include "netpolicy/netns.h"
#include "netpolicy/whois.h"

#define BACKLOG 1024
#define WHO_US 100000 /* how long names of processes are believed */

bool pf_bucket_take(struct pf_bucket *b, int64_t per_second, int64_t burst)
{
	int64_t now = pf_now_us(), full = burst * 1000;

	/* Full at first; after an hour too, which also keeps the product in range. */
	if (!b->last || now - b->last > 3600 * 1000000LL)
		b->tokens = full;
	else
		b->tokens += (now - b->last) * per_second / 1000;
	b->last = now;
	if (b->tokens > full)
		b->tokens = full;
	if (b->tokens < 1000)
		return false;
	b->tokens -= 1000;
	return true;
}

/* IPv4 by hand: libc prints it with printf, twice for each line of the log. */
static void text4(uint32_t addr, char *out)
{
	for (int shift = 24; shift >= 0; shift -= 8) {
		unsigned int n = addr >> shift & 255;
		if (n >= 100)
			*out++ = (char)('0' + n / 100);
		if (n >= 10)
			*out++ = (char)('0' + n / 10 % 10);
		*out++ = (char)('0' + n % 10);
		*out++ = shift ? '.' : '\0';
	}
}

const char *pf_sa_text(const struct sockaddr *sa, char out[PF_ADDR_TEXT])
{
	const union pf_sa *u = (const void *)sa;

	if (sa->sa_family == AF_INET)
		text4(ntohl(u->in.sin_addr.s_addr), out);
	else if (sa->sa_family != AF_INET6 || !inet_ntop(AF_INET6, &u->in6.sin6_addr, out, PF_ADDR_TEXT))
		strcpy(out, "?");
	return out;
}

uint16_t pf_sa_port(const struct sockaddr *sa)
{
	return ntohs(((const union pf_sa *)(const void *)sa)->in.sin_port);
}

socklen_t pf_sa_len(const struct sockaddr *sa)
{
	return sa->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

int pf_gate_socket(bool v6, int type, uint16_t port, struct pf_err *err)
{
	union pf_sa sa = {.in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}};
	int on = 1;

	if (v6)
		sa = (union pf_sa){.in6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback}};
	sa.in.sin_port = htons(port);
	PF_CLOSE int fd = socket(sa.sa.sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return pf_fail(err, errno, "socket");
	if (v6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
		return pf_fail(err, errno, "IPV6_V6ONLY");
	/* Connections to a keeper that was killed may linger in a namespace that lives on. */
	if (type == SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return pf_fail(err, errno, "SO_REUSEADDR");
	/* Whatever is accepted here has it too. */
	if (type == SOCK_STREAM && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
		return pf_fail(err, errno, "TCP_NODELAY");
	if (type == SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on)) < 0)
		return pf_fail(err, errno, "SO_OOBINLINE");
	if (bind(fd, &sa.sa, pf_sa_len(&sa.sa)) < 0)
		return pf_fail(err, errno, "bind to port %u of the sandbox's loopback", port);
	if (type == SOCK_STREAM && listen(fd, BACKLOG) < 0)
		return pf_fail(err, errno, "listen");
	return pf_take_fd(&fd);
}

/* --- the audit log -------------------------------------------------------------------------------------- */

void pf_gate_audit(struct pf_gate *g, enum pf_audit_kind kind, struct pf_gate_event *ev)
{
	if (!g->opts.audit)
		return;
	if (strcmp(ev->verdict, "deny") == 0) {
		if (!pf_bucket_take(&g->denials[kind], PF_GATE_DENIALS_PER_SECOND, PF_GATE_DENIALS_BURST)) {
			g->suppressed[kind]++;
			return;
		}
		ev->suppressed = g->suppressed[kind];
		g->suppressed[kind] = 0;
	}
	ev->revision = pf_policy_revision(g->policy);
	g->opts.audit(g->opts.user, ev);
}

static void put_text(struct pf_buf *out, const char *key, const char *value)
{
	if (!value)
		return;
	pf_buf_str(out, key);
	pf_json_quoted(out, value);
}

static void put_number(struct pf_buf *out, const char *key, uint64_t value)
{
	char text[24], *p = text + sizeof(text);

	do
		*--p = (char)('0' + value % 10);
	while (value /= 10);
	pf_buf_str(out, key);
	pf_buf_add(out, p, (size_t)(text + sizeof(text) - p));
}

/* By hand: there are two for each connection, and the library takes longer for one than the kernel for half
 * of the connection. */
void pf_gate_event_text(const struct pf_gate_event *ev, struct pf_buf *out)
{
	put_text(out, ",\"kind\":", ev->kind);
	put_text(out, ",\"verdict\":", ev->verdict);
	put_text(out, ",\"reason\":", ev->reason);
	put_text(out, ",\"detail\":", ev->detail);
	put_text(out, ",\"name\":", ev->name);
	put_text(out, ",\"rule\":", ev->rule);
	put_text(out, ",\"orig\":", ev->orig);
	put_text(out, ",\"addr\":", ev->addr);
	put_text(out, ",\"proto\":", ev->proto);
	put_text(out, ",\"method\":", ev->method);
	put_text(out, ",\"path\":", ev->path);
	put_text(out, ",\"credential\":", ev->credential);
	put_text(out, ",\"exec\":", ev->exec);
	put_text(out, ",\"process\":", ev->process);
	if (ev->port)
		put_number(out, ",\"port\":", ev->port);
	if (strcmp(ev->kind, "close") == 0) {
		put_number(out, ",\"bytes_out\":", ev->bytes_out);
		put_number(out, ",\"bytes_in\":", ev->bytes_in);
	}
	if (ev->duration_us > 0)
		put_number(out, ",\"duration_us\":", (uint64_t)ev->duration_us);
	put_number(out, ",\"revision\":", ev->revision);
	if (ev->suppressed)
		put_number(out, ",\"suppressed\":", ev->suppressed);
}

/* Into g->who_exec and g->who_process. */
static void look_up_cgroup(struct pf_gate *g, uint64_t cgroup)
{
	int64_t now = pf_now_us();

	if (cgroup != g->who_cgroup || now - g->who_at > WHO_US) {
		free(g->who_exec);
		free(g->who_process);
		g->opts.whois(g->opts.user, cgroup, &g->who_exec, &g->who_process);
		g->who_cgroup = cgroup;
		g->who_at = now;
	}
}

void pf_gate_whois(struct pf_gate *g, int proto, const struct sockaddr *local, const struct sockaddr *remote,
	char **exec, char **process)
{
	uint64_t cgroup;

	*exec = *process = NULL;
	if (g->diag < 0 || !pf_whois_cgroup(g->diag, proto, local, remote, &cgroup))
		return;
	look_up_cgroup(g, cgroup);
	*exec = g->who_exec ? pf_strdup(g->who_exec) : NULL;
	*process = g->who_process ? pf_strdup(g->who_process) : NULL;
}

static const char *proto_name(int proto, char text[8])
{
	switch (proto) {
	case IPPROTO_TCP:
		return "tcp";
	case IPPROTO_UDP:
		return "udp";
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return "icmp";
	default:
		snprintf(text, 8, "%d", proto & 255);
		return text;
	}
}

/* The filter only says that a packet was rejected; the policy says why. */
static void on_packet(void *arg, const struct pf_nft_packet *p)
{
	struct pf_gate *g = arg;
	const struct sockaddr *sa = (const struct sockaddr *)&p->dst;
	const struct pf_rule *rule = NULL;
	char orig[PF_ADDR_TEXT], proto[8];
	enum pf_verdict v;
	struct pf_gate_event ev = {.kind = "packet",
		.verdict = "deny",
		.orig = pf_sa_text(sa, orig),
		.proto = proto_name(p->proto, proto),
		.port = pf_sa_port(sa)};

	if (pf_synth_has(&g->synth, sa)) {
		struct pf_synth_name *e = pf_synth_addr(&g->synth, sa);
		ev.name = e ? e->name : NULL;
		v = !e                        ? PF_VERDICT_NOT_LISTED
		    : p->proto == IPPROTO_UDP ? pf_policy_host_udp(g->policy, e->name, ev.port, &rule)
					      : pf_policy_host(g->policy, e->name, ev.port, &rule);
	} else {
		v = pf_policy_addr(
			g->policy, sa, p->proto == IPPROTO_UDP ? IPPROTO_UDP : IPPROTO_TCP, NULL, &rule);
	}
	if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
		v = v == PF_VERDICT_ALLOW ? PF_VERDICT_PROTOCOL : v;
	/* Allowed by now: the policy changed between the packet and its report. */
	ev.reason = v == PF_VERDICT_ALLOW ? "policy_changed" : pf_verdict_reason(v);
	if (pf_addr_classify_sa(sa, NULL) == PF_ADDR_LOOPBACK)
		ev.reason = "direct_dial";
	ev.rule = rule ? rule->text : NULL;
	if (p->cgroup && g->opts.whois) {
		look_up_cgroup(g, p->cgroup);
		ev.exec = g->who_exec;
		ev.process = g->who_process;
	}
	pf_gate_audit(g, PF_AUDIT_PACKET, &ev);
}

static void on_log(struct pf_src *src, uint32_t events)
{
	struct pf_gate *g = pf_container(src, struct pf_gate, log);

	(void)events;
	pf_nft_log_read(src->fd, on_packet, g);
}

/* --- opening and closing -------------------------------------------------------------------------------- */

static void read_hostname(struct pf_gate *g, const char *hostname)
{
	char normal[PF_NAME_MAX];

	if (hostname && pf_name_normal(hostname, strlen(hostname), normal))
		g->hostname = pf_strdup(normal);
}

/* In the namespace. */
int pf_gate_open_sockets(struct pf_gate *g, struct pf_err *err)
{
	if ((g->nft.fd < 0 && pf_nft_open(&g->nft, &g->synth.net6, err) < 0) || pf_relay_open(g, err) < 0 ||
		pf_dnsserver_open(g, err) < 0 || pf_udp_open(g, err) < 0)
		return -1;
	/* Names in the log are a help, not a promise: a kernel without sock_diag has none. */
	struct pf_err ignored = PF_ERR_INIT;
	if (g->opts.whois && g->diag < 0)
		g->diag = pf_whois_open(&ignored);
	g->log.fn = on_log;
	g->log.fd = pf_nft_log_open(err);
	if (g->log.fd < 0)
		return -1;
	if (pf_loop_add(&g->loop, &g->log, EPOLLIN) < 0)
		return pf_fail(err, errno, "watch the packet log");
	return pf_nft_load(&g->nft, g->policy, err);
}

/* Make the namespace and open the sockets in it. Without come_back the calling thread stays there. */
static int open_inside(struct pf_gate *g, bool come_back, int *netns_fd, struct pf_err *err)
{
	struct pf_netns_visit visit;
	PF_CLOSE int fd = pf_netns_make(&visit, true, &g->v6, err);

	if (fd < 0)
		return -1;
	if (g->opts.made)
		g->opts.made(g->opts.user, fd);
	int r = pf_gate_open_sockets(g, err);
	struct pf_err back = PF_ERR_INIT;
	if (!come_back) {
		close(visit.home);
	} else if (pf_netns_leave(&visit, &back) < 0) {
		*err = back;
		r = -1;
	}
	if (r < 0)
		return -1;
	*netns_fd = pf_take_fd(&fd);
	return 0;
}

struct one_way {
	struct pf_gate *g;
	int *netns_fd;
	struct pf_err *err;
	int result;
};

static void *go_one_way(void *arg)
{
	struct one_way *w = arg;

	w->result = open_inside(w->g, false, w->netns_fd, w->err);
	return NULL;
}

/* Descriptors are the process's, namespaces the thread's: one that cannot come back is a thread that ends
 * there. */
static int open_from_thread(struct pf_gate *g, int *netns_fd, struct pf_err *err)
{
	struct one_way w = {.g = g, .netns_fd = netns_fd, .err = err, .result = -1};
	pthread_t thread;
	int r = pthread_create(&thread, NULL, go_one_way, &w);

	if (r != 0)
		return pf_fail(err, r, "thread for the network namespace");
	(void)pthread_join(thread, NULL);
	return w.result;
}

static int open_gate(struct pf_gate *g, int *netns_fd, struct pf_err *err)
{
	if (pf_loop_init(&g->loop, err) < 0 || pf_synth_init(&g->synth, err) < 0)
		return -1;
	pf_handover_open(g);
	if (pf_handover_check(g, g->policy, err) < 0)
		return -1;
	g->route = pf_route_open(err);
	if (g->route < 0)
		return -1;
	return pf_in_first_userns() || pf_netns_can_return() ? open_inside(g, true, netns_fd, err)
							     : open_from_thread(g, netns_fd, err);
}

struct pf_gate *pf_gate_new(const struct pf_policy *policy, const struct pf_gate_opts *opts)
{
	struct pf_gate *g = pf_calloc(1, sizeof(*g));
	struct pf_err ignored = PF_ERR_INIT;

	g->loop.epfd = g->nft.fd = g->log.fd = g->route = g->host_route = g->joined = g->tls.fd = g->diag =
		g->conntrack = g->icmp[0] = g->icmp[1] = -1;
	for (int i = 0; i < 2; i++)
		g->listener[i].fd = g->dns_udp[i].fd = g->dns_tcp[i].fd = g->udp[i].fd = -1;
	if (opts)
		g->opts = *opts;
	g->policy = policy ? pf_policy_ref(policy) : pf_policy_compile(NULL, &ignored);
	pf_meter_policy(g, NULL);
	read_hostname(g, g->opts.hostname);
	g->opts.hostname = g->hostname;
	pf_room_init(g);
	return g;
}

struct pf_gate *pf_gate_open(
	const struct pf_policy *policy, const struct pf_gate_opts *opts, int *netns_fd, struct pf_err *err)
{
	struct pf_gate *g = pf_gate_new(policy, opts);

	if (open_gate(g, netns_fd, err) < 0) {
		pf_wrap(err, "egress gate");
		g->opts.audit = NULL;
		pf_gate_close(g);
		return NULL;
	}
	return g;
}

void pf_gate_close(struct pf_gate *g)
{
	if (!g)
		return;
	pf_relay_close(g);
	pf_dnsserver_close(g);
	pf_udp_close(g);
	pf_upstream_reset(g);
	pf_loop_close(&g->loop, &g->log);
	pf_loop_close(&g->loop, &g->tls);
	pf_strv_free(g->ca_names);
	if (g->diag >= 0)
		close(g->diag);
	pf_nft_close(&g->nft);
	pf_loop_done(&g->loop);
	pf_synth_done(&g->synth);
	pf_own_addrs_done(&g->own);
	if (g->route >= 0)
		close(g->route);
	if (g->host_route >= 0)
		close(g->host_route);
	if (g->joined >= 0)
		close(g->joined);
	pf_policy_unref(g->policy);
	free(g->meters);
	free(g->who_exec);
	free(g->who_process);
	free(g->hostname);
	free(g);
}

/* --- running -------------------------------------------------------------------------------------------- */

int pf_gate_fd(const struct pf_gate *g)
{
	return g->loop.epfd;
}

int pf_gate_timeout_ms(const struct pf_gate *g)
{
	return pf_loop_timeout_ms(&g->loop);
}

/* splice(2) has no MSG_NOSIGNAL: a peer that went away between two events would kill the keeper. The signal
 * is held back here, and taken off the thread if one arrived, so the process's own setting does not matter.
 */
void pf_gate_dispatch(struct pf_gate *g)
{
	const struct timespec no_wait = {0};
	sigset_t pipe_only, before, pending;

	sigemptyset(&pipe_only);
	sigaddset(&pipe_only, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
	pf_loop_run(&g->loop);
	if (!sigismember(&before, SIGPIPE)) {
		if (sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE))
			(void)sigtimedwait(&pipe_only, NULL, &no_wait);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
}

struct other {
	struct pf_src src;
	bool (*fn)(void *arg);
	void *arg;
	bool over;
};

static void on_other(struct pf_src *src, uint32_t events)
{
	struct other *o = pf_container(src, struct other, src);

	(void)events;
	o->over = !o->fn(o->arg);
}

int pf_gate_run(struct pf_gate *g, int fd, bool (*on_fd)(void *arg), void (*idle)(void *arg), void *arg,
	struct pf_err *err)
{
	struct other o = {.src = {.fd = fd, .fn = on_other}, .fn = on_fd, .arg = arg};

	if (pf_loop_add(&g->loop, &o.src, EPOLLIN) < 0)
		return pf_fail(err, errno, "watch the keeper");
	while (!o.over)
		pf_loop_step(&g->loop, idle, arg);
	(void)epoll_ctl(g->loop.epfd, EPOLL_CTL_DEL, fd, NULL);
	return 0;
}

static bool same_resolver(const struct pf_policy *a, const struct pf_policy *b)
{
	const char *x = pf_policy_resolver(a), *y = pf_policy_resolver(b);
	return x == y || (x && y && strcmp(x, y) == 0);
}

int pf_gate_set_policy(struct pf_gate *g, const struct pf_policy *policy, struct pf_err *err)
{
	struct pf_policy *fresh = policy ? pf_policy_ref(policy) : pf_policy_compile(NULL, err),
			 *old = g->policy;

	if (pf_handover_check(g, fresh, err) < 0 || pf_nft_load(&g->nft, fresh, err) < 0) {
		pf_policy_unref(fresh);
		return pf_wrap(err, "egress gate: new policy (the old one stays in force)");
	}
	g->policy = fresh;
	pf_meter_policy(g, old);
	pf_relay_recheck(g);
	pf_udp_recheck(g);
	if (!same_resolver(fresh, old))
		pf_upstream_reset(g);
	pf_policy_unref(old);
	return 0;
}

const struct pf_policy *pf_gate_policy(const struct pf_gate *g)
{
	return g->policy;
}

cJSON *pf_gate_stats(struct pf_gate *g)
{
	cJSON *j = cJSON_CreateObject();
	int64_t packets = pf_nft_denied(&g->nft);
	const struct {
		const char *key;
		uint64_t value;
	} counters[] = {{"revision", pf_policy_revision(g->policy)}, {"names", g->synth.n},
		{"connections", g->n_conns}, {"connections_accepted", g->count.conns_accepted},
		{"connections_denied", g->count.conns_denied}, {"connections_failed", g->count.conns_failed},
		{"connections_overload", g->count.conns_overload}, {"dns_answered", g->count.dns_answered},
		{"dns_denied", g->count.dns_denied}, {"dns_malformed", g->count.dns_malformed},
		{"requests", g->count.requests}, {"requests_denied", g->count.requests_denied},
		{"bytes_out", g->count.bytes_out}, {"bytes_in", g->count.bytes_in},
		{"tls_started", g->count.tls_started}, {"tls_ended", g->count.tls_ended}};
	static const char *const links[] = {[PF_LINK_NONE] = NULL,
		[PF_LINK_ASLEEP] = "asleep",
		[PF_LINK_WAKING] = "starting",
		[PF_LINK_UP] = "up"};

	for (size_t i = 0; i < sizeof(counters) / sizeof(*counters); i++)
		pf_json_add_int(j, counters[i].key, (int64_t)counters[i].value);
	if (packets >= 0)
		pf_json_add_int(j, "packets_denied", packets);
	if (links[g->tls_state])
		cJSON_AddStringToObject(j, "tls", links[g->tls_state]);
	return j;
}
