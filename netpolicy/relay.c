/* Theory of operation.
 *
 * A connection arrives at the listener (accept.c) inside the sandbox's namespace with its original
 * destination. A synthetic address is a name, and the name has a rule or not; any other address needs a rule
 * for a network. The name is then resolved and dialled (upstream.c, dial.c) from the host's namespace, while
 * the client's first bytes are looked at (sniff.c). What the server sends flows as soon as it is connected;
 * what the client sends flows freely (pump.c) once its beginning was judged.
 *
 * Who speaks first is not known, and need not be: a client may be silent as long as it likes, and what it
 * sends first, whenever that is, is judged before a server can act on it. There is no waiting time after
 * which a silent client is believed. Only a client that has begun a TLS or HTTP head must finish it in ten
 * seconds.
 *
 * SNI or Host must be the name that was dialled, or another name that the same rule allows. With an encrypted
 * ClientHello the outer name must be the very name: what is inside cannot be seen. TLS to port 443 of a name
 * needs an SNI. HTTP/2 without TLS hides its authority in compressed headers and is refused on port 80. Every
 * request of an HTTP connection is judged, the first one here and all others in web.c.
 *
 * A refusal is a reset at once; only on port 80 the request is awaited for up to two seconds, so that it can
 * be answered with a 403 that says what was refused. */
#include "netpolicy/relay_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/refusal.h"

#define HEAD_US 10000000
#define REFUSED_US 2000000
#define GOODBYE_US 1000000
#define RESOLVE_US 15000000
#define HALF_CLOSED_US (600 * 1000000LL)
#define ROUNDS 16

static void read_head(struct pf_conn *c);

/* --- the log, and the end ------------------------------------------------------------------------------- */

/* Late, because nobody waits for it, but while the client's socket is likely to be there. */
static void ask_who(struct pf_conn *c)
{
	struct pf_gate *g = c->gate;
	const union pf_sa *peer = c->peer;

	c->peer = NULL;
	if (peer && g->diag >= 0)
		pf_gate_whois(g, IPPROTO_TCP, &peer->sa, &c->orig.sa, &c->exec, &c->process);
}

static void report(
	struct pf_conn *c, const char *kind, const char *verdict, const char *reason, const char *detail)
{
	char orig[PF_ADDR_TEXT], real[PF_ADDR_TEXT];

	ask_who(c);
	struct pf_gate_event ev = {.kind = kind,
		.verdict = verdict,
		.reason = reason,
		.detail = detail,
		.name = c->name ? c->name->name : NULL,
		.rule = c->rule_text,
		.orig = pf_sa_text(&c->orig.sa, orig),
		.addr = c->real.sa.sa_family ? pf_sa_text(&c->real.sa, real) : NULL,
		.proto = "tcp",
		.port = pf_sa_port(&c->orig.sa),
		.exec = c->exec,
		.process = c->process,
		.bytes_out = c->out.bytes,
		.bytes_in = c->in.bytes,
		.duration_us = pf_now_us() - c->began};

	pf_gate_audit(c->gate, PF_AUDIT_CONN, &ev);
}

static void end_conn(struct pf_conn *c)
{
	struct pf_gate *g = c->gate;

	c->state = PF_CONN_DEAD;
	if (c->query)
		pf_upstream_forget(c->query);
	c->query = NULL;
	pf_dial_stop(c);
	pf_loop_cancel(&g->loop, &c->timer);
	pf_loop_cancel(&g->loop, &c->pump);
	pf_loop_close(&g->loop, &c->client.src);
	pf_loop_close(&g->loop, &c->up.src);
	pf_pump_release(g, &c->out);
	pf_pump_release(g, &c->in);
	g->count.bytes_out += c->out.bytes;
	g->count.bytes_in += c->in.bytes;
	if (c->name)
		c->name->holds--;
	pf_handover_forget(c);
	free(c->exec);
	free(c->process);
	free(c->rule_text);
	free(c->other_name);
	pf_conn_drop_head(c);
	free(c->web);
	c->rule_text = c->other_name = NULL;
	c->web = NULL;
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	g->n_conns--;
	pf_loop_free(&g->loop, c);
}

void pf_reset_on_close(int fd)
{
	const struct linger now = {.l_onoff = 1, .l_linger = 0};
	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

void pf_conn_reset(struct pf_conn *c)
{
	pf_reset_on_close(c->client.src.fd);
	pf_reset_on_close(c->up.src.fd);
	end_conn(c);
}

void pf_conn_abort(struct pf_conn *c, const char *verdict, const char *reason, const char *detail)
{
	if (strcmp(verdict, "deny") == 0)
		c->gate->count.conns_denied++;
	else
		c->gate->count.conns_failed++;
	report(c, c->reported ? "close" : "connect", verdict, reason, detail);
	pf_conn_reset(c);
}

void pf_conn_finish(struct pf_conn *c)
{
	report(c, "close", "allow", "closed", NULL);
	end_conn(c);
}

void pf_conn_handed_end(struct pf_conn *c, const char *error)
{
	if (!c->handed_denied)
		report(c, "close", error ? "error" : "allow", error ? "tls" : "closed", error);
	end_conn(c);
}

/* --- refusing ------------------------------------------------------------------------------------------- */

static void send_403(struct pf_conn *c)
{
	char answer[PF_REFUSAL_MAX], orig[PF_ADDR_TEXT];
	const char *host = c->other_name ? c->other_name
			   : c->name     ? c->name->name
					 : pf_sa_text(&c->orig.sa, orig);

	const struct pf_refusal r = {.status = 403,
		.host = host,
		.port = pf_sa_port(&c->orig.sa),
		.reason = c->refusal,
		.revision = pf_policy_revision(c->gate->policy)};
	size_t len = pf_refusal_write(&r, (const char *)c->head, c->head_len, answer);
	(void)send(c->client.src.fd, answer, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)shutdown(c->client.src.fd, SHUT_WR);
	c->state = PF_CONN_GOODBYE;
	c->sniff_by = pf_now_us() + GOODBYE_US;
	pf_conn_arm(c);
}

/* Bytes that were not read when a socket is closed turn the close into a reset, which can overtake the
 * answer. */
static void drain(struct pf_conn *c)
{
	char scrap[4096];
	ssize_t n = 1;

	for (int i = 0; i < 64 && n > 0; i++)
		n = recv(c->client.src.fd, scrap, sizeof(scrap), MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		end_conn(c);
	else if (n > 0)
		pf_conn_reset(c);
}

/* Where a request is likely to come, it is worth waiting for: only then is there something to answer. */
static bool may_explain(const struct pf_conn *c)
{
	uint16_t port = pf_sa_port(&c->orig.sa);

	return port == 80 || (c->gate->opts.authority && (port == 443 || port == 8443));
}

void pf_conn_deny(struct pf_conn *c, const char *reason, const char *detail)
{
	c->gate->count.conns_denied++;
	report(c, "connect", "deny", reason, detail);
	if (c->query)
		pf_upstream_forget(c->query);
	c->query = NULL;
	pf_dial_stop(c);
	pf_reset_on_close(c->up.src.fd);
	pf_loop_close(&c->gate->loop, &c->up.src);
	c->refusal = reason;
	c->rule = NULL;
	if (c->http) {
		send_403(c);
	} else if (c->tls && pf_handover(c, reason)) {
		return;
	} else if (!c->judged && may_explain(c)) {
		c->state = PF_CONN_REFUSED;
		c->sniff_by = pf_now_us() + REFUSED_US;
		pf_conn_arm(c);
		if (c->head_len)
			c->sniff_need = 0;
		read_head(c);
	} else {
		pf_conn_reset(c);
	}
}

/* --- the first bytes ------------------------------------------------------------------------------------ */

bool pf_conn_same_rule(const struct pf_conn *c, const char *name)
{
	const struct pf_rule *rule;
	const struct pf_policy *p = c->gate->policy;
	char normal[PF_NAME_MAX];

	if (pf_policy_host(p, name, pf_sa_port(&c->orig.sa), &rule) != PF_VERDICT_ALLOW)
		return false;
	/* What is no host name ends in whatever one likes, and servers differ in what they take it for. */
	return pf_policy_type(p) == PF_POLICY_UNRESTRICTED ||
	       (rule == c->rule && pf_name_normal(name, strlen(name), normal));
}

/* Why the first bytes are not acceptable; NULL: they are. */
static const char *judge(const struct pf_conn *c, const struct pf_sniff *s)
{
	const struct pf_rule *rule;
	uint16_t port = pf_sa_port(&c->orig.sa);

	/* The first bytes of the connection only: later on the buffer's beginning is anything. */
	if (c->rule && c->rule->tls == PF_TLS_PASSTHROUGH && !c->web && c->head_len && c->head[0] >= 20 &&
		c->head[0] <= 23)
		return NULL;
	if (s->kind == PF_SNIFF_BAD)
		return "malformed_head";
	if (c->ends_tls && (s->kind == PF_SNIFF_OPAQUE || s->h2c))
		return "not_http";
	if (s->kind == PF_SNIFF_OPAQUE)
		return NULL;
	if (!c->name)
		return s->has_name && pf_policy_host(c->gate->policy, s->name, port, &rule) ==
					       PF_VERDICT_DENIED_HOST
			       ? "denied_host"
			       : NULL;
	bool same = s->has_name && strcmp(s->name, c->name->name) == 0;
	if (s->kind == PF_SNIFF_TLS) {
		if (s->ech && !same)
			return "ech";
		if (!s->has_name)
			return port == 443 ? "sni_missing" : NULL;
		return same || pf_conn_same_rule(c, s->name) ? NULL : "sni_mismatch";
	}
	if (s->h2c)
		return port == 80 ? "h2c" : NULL;
	return !s->has_name || same || pf_conn_same_rule(c, s->name) ? NULL : "host_mismatch";
}

const char *pf_conn_judge(struct pf_conn *c, const struct pf_sniff *s)
{
	free(c->other_name);
	c->other_name =
		s->has_name && !(c->name && strcmp(s->name, c->name->name) == 0) ? pf_strdup(s->name) : NULL;
	return judge(c, s);
}

static void on_head(struct pf_conn *c, const struct pf_sniff *s)
{
	c->http = s->kind == PF_SNIFF_HTTP;
	c->tls = s->kind == PF_SNIFF_TLS;
	const char *why = pf_conn_judge(c, s);
	if (c->state == PF_CONN_REFUSED) {
		if (c->http)
			send_403(c);
		else if (!c->tls || !pf_handover(c, c->refusal))
			pf_conn_reset(c);
		return;
	}
	c->judged = true;
	c->sniff_by = 0;
	if (why) {
		pf_conn_deny(c, why, c->other_name);
		return;
	}
	if (c->http && !s->h2c && !c->ends_tls)
		pf_web_begin(c, s->head_len);
	pf_conn_arm(c);
}

static void on_client_end(struct pf_conn *c)
{
	c->client_ended = true;
	if (c->state == PF_CONN_REFUSED) {
		pf_conn_reset(c);
		return;
	}
	c->judged = true;
	c->sniff_by = 0;
	if (c->head_len && !c->line_open)
		pf_conn_deny(c, "malformed_head", NULL);
	else
		pf_conn_arm(c);
}

static bool wants_head(const struct pf_conn *c)
{
	return !c->judged && !c->waits_tls && c->state != PF_CONN_GOODBYE && c->state != PF_CONN_HANDED &&
	       c->state != PF_CONN_DEAD;
}

static void read_head(struct pf_conn *c)
{
	struct pf_sniff s;

	while (wants_head(c) && c->client.readable) {
		if (c->head_len == c->head_cap)
			pf_conn_grow_head(c);
		ssize_t n = recv(
			c->client.src.fd, c->head + c->head_len, c->head_cap - c->head_len, MSG_DONTWAIT);
		if (n < 0) {
			if (errno == EAGAIN)
				c->client.readable = false;
			else if (errno != EINTR)
				pf_conn_abort(c, "error", "reset", strerror(errno));
			continue;
		}
		if (n == 0) {
			on_client_end(c);
			return;
		}
		bool line_end = memchr(c->head + c->head_len, '\n', (size_t)n) != NULL;
		bool first = c->head_len == 0;
		/* Less than there was room for: it was all, and what comes is an event of its own; unless
		 * that has been told already. */
		if ((size_t)n < c->head_cap - c->head_len && !c->client.unsure)
			c->client.readable = false;
		c->head_len += (size_t)n;
		/* A head can only become complete with a line; asking for every byte would cost its square.
		 */
		bool text = !first && !c->line_open && (c->head[0] < 20 || c->head[0] > 23);
		if (c->head_len < c->sniff_need || (text && !line_end && c->head_len < PF_SNIFF_MAX))
			continue;
		pf_sniff(c->head, c->head_len, &s);
		c->sniff_need = s.need;
		c->line_open = s.kind == PF_SNIFF_MORE && s.line_open;
		if (s.kind != PF_SNIFF_MORE) {
			on_head(c, &s);
		} else if (!c->line_open && !c->sniff_by) {
			c->sniff_by = pf_now_us() + HEAD_US;
			pf_conn_arm(c);
		}
	}
	if (wants_head(c))
		pf_conn_fit_head(c);
}

/* --- flowing -------------------------------------------------------------------------------------------- */

static bool flush_head(struct pf_conn *c)
{
	size_t end = c->web ? c->web->judged : c->head_len;

	while (c->head_sent < end && c->up.writable) {
		size_t len = end - c->head_sent, left = pf_meter_left(c->gate, c->rule);
		if (left == 0) {
			pf_conn_abort(c, "deny", "rate", "max_bytes_per_hour");
			return false;
		}
		ssize_t n = send(c->up.src.fd, c->head + c->head_sent, len < left ? len : left,
			MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n >= 0) {
			pf_meter_take(c->gate, c->rule, (uint64_t)n);
			c->head_sent += (size_t)n;
			c->out.bytes += (uint64_t)n;
		} else if (errno == EAGAIN) {
			c->up.writable = false;
		} else if (errno != EINTR) {
			pf_conn_abort(c, "error", "reset", strerror(errno));
			return false;
		}
	}
	if (c->judged && c->head_sent == c->head_len) {
		pf_conn_drop_head(c);
		if (c->web)
			c->web->judged = 0;
	}
	return true;
}

/* Requests go on as they are judged; when the client has ended, so does their sequence. false: the connection
 * is over, or has to wait. */
static bool flow_web(struct pf_conn *c)
{
	bool more = true;

	for (int round = 0; more && round < ROUNDS; round++) {
		pf_web_read(c);
		if (c->state != PF_CONN_CONNECTED || (c->head && !flush_head(c)))
			return false;
		more = c->web && c->client.readable && c->up.writable && !c->web->waiting && !c->client_ended;
	}
	/* After everybody else. */
	if (more)
		pf_loop_timer(&c->gate->loop, &c->pump, pf_now_us());
	if (c->web && c->web->waiting && c->head_sent == c->web->judged && c->up.readable &&
		!pf_web_answered(c))
		return false;
	if (c->web && c->client_ended && (!c->head || c->head_sent == c->web->judged)) {
		free(c->web);
		c->web = NULL;
		pf_conn_drop_head(c); /* the beginning of a request that never came */
		c->sniff_by = 0;
	}
	return true;
}

static void hand_over(struct pf_conn *c)
{
	bool ended = c->client_ended && !c->head_len;

	if (!ended && !pf_handover(c, NULL)) {
		pf_conn_abort(c, "deny", "tls_down", NULL);
		return;
	}
	/* Not before it is handed over: it may have to wait for that, in vain. */
	if (!c->reported && (ended || c->state == PF_CONN_HANDED)) {
		c->reported = true;
		report(c, "connect", "allow", "allowed", NULL);
	}
	if (ended)
		pf_conn_finish(c);
}

void pf_conn_flow(struct pf_conn *c)
{
	if (c->state != PF_CONN_CONNECTED)
		return;
	if (c->ends_tls) {
		if (c->judged && !c->waits_tls)
			hand_over(c);
		return;
	}
	if (!c->reported && (c->judged || c->line_open || c->up.readable)) {
		c->reported = true;
		report(c, "connect", "allow", "allowed", NULL);
	}
	if (c->web && !flow_web(c))
		return;
	if (!c->web && c->head && (c->judged || c->line_open) && !flush_head(c))
		return;
	if (c->client_ended && !c->head && !c->web)
		c->out.eof = true;
	pf_pump(c);
	if (c->state == PF_CONN_CONNECTED && (c->out.eof || c->in.eof) && !c->timer.pos)
		pf_conn_arm(c);
}

static void on_pump(struct pf_timer *t)
{
	pf_conn_flow(pf_container(t, struct pf_conn, pump));
}

void pf_end_note(struct pf_end *e, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		e->readable = true;
	/* A read ends before an urgent byte, whatever is behind it. */
	if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		e->unsure = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		e->writable = true;
}

/* An error that no read or write of ours would meet, because neither is due. */
static bool died(struct pf_conn *c, const struct pf_end *e, uint32_t events)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (!(events & EPOLLERR) || getsockopt(e->src.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || !error)
		return false;
	pf_conn_abort(c, "error", "reset", strerror(error));
	return true;
}

static void on_client(struct pf_src *src, uint32_t events)
{
	struct pf_conn *c = pf_container(src, struct pf_conn, client.src);

	pf_end_note(&c->client, events);
	if (c->state == PF_CONN_GOODBYE) {
		drain(c);
		return;
	}
	if (died(c, &c->client, events))
		return;
	read_head(c);
	pf_conn_flow(c);
}

static void on_up(struct pf_src *src, uint32_t events)
{
	struct pf_conn *c = pf_container(src, struct pf_conn, up.src);

	if (c->state == PF_CONN_DIALLING) {
		pf_dial_event(c, events);
		return;
	}
	pf_end_note(&c->up, events);
	if (died(c, &c->up, events))
		return;
	pf_conn_flow(c);
}

void pf_conn_connected(struct pf_conn *c)
{
	enum pf_addr_class class;

	/* The policy may have changed since the address was chosen. */
	if (pf_policy_result(c->gate->policy, c->rule, &c->real.sa, pf_upstream_own(c->gate), &class) !=
		PF_VERDICT_ALLOW) {
		pf_conn_deny(c, "policy_changed", pf_addr_class_name(class));
		return;
	}
	c->state = PF_CONN_CONNECTED;
	pf_conn_arm(c);
	pf_conn_flow(c);
}

/* --- time ----------------------------------------------------------------------------------------------- */

static bool head_is_due(const struct pf_conn *c)
{
	return c->sniff_by && (!c->judged || c->web || c->waits_tls || c->state == PF_CONN_GOODBYE);
}

void pf_conn_arm(struct pf_conn *c)
{
	int64_t at = INT64_MAX;

	if (c->state == PF_CONN_DEAD)
		return;
	if (c->state == PF_CONN_RESOLVING)
		at = c->began + RESOLVE_US;
	else if (c->state == PF_CONN_DIALLING)
		at = c->next_try < c->dial_by ? c->next_try : c->dial_by;
	else if (c->state == PF_CONN_CONNECTED && (c->out.eof || c->in.eof))
		at = pf_now_us() + HALF_CLOSED_US;
	if (head_is_due(c) && c->sniff_by < at)
		at = c->sniff_by;
	if (at == INT64_MAX)
		pf_loop_cancel(&c->gate->loop, &c->timer);
	else
		pf_loop_timer(&c->gate->loop, &c->timer, at);
}

static void on_timer(struct pf_timer *t)
{
	struct pf_conn *c = pf_container(t, struct pf_conn, timer);
	int64_t now = pf_now_us();

	if (head_is_due(c) && now >= c->sniff_by) {
		if (c->waits_tls)
			pf_handover_gave_up(c);
		else if (c->state == PF_CONN_REFUSED || c->state == PF_CONN_GOODBYE)
			pf_conn_reset(c);
		else
			pf_conn_abort(c, "deny", "slow_head", NULL);
		return;
	}
	if (c->state == PF_CONN_RESOLVING && now >= c->began + RESOLVE_US) {
		pf_conn_abort(c, "error", "resolve", "timed out");
		return;
	}
	if (c->state == PF_CONN_CONNECTED) {
		/* Half closed, and the other half silent: the process that would read it is most likely gone.
		 */
		if (c->out.bytes + c->in.bytes == c->idle_mark) {
			pf_conn_abort(c, "error", "idle", "half-closed for ten minutes");
			return;
		}
		c->idle_mark = c->out.bytes + c->in.bytes;
	}
	if (c->state == PF_CONN_DIALLING)
		pf_dial_tick(c, now);
	else
		pf_conn_arm(c);
}

/* --- admission ------------------------------------------------------------------------------------------ */

static void on_resolved(void *arg, const struct pf_resolved *res, const char *error)
{
	struct pf_conn *c = arg;

	c->query = NULL;
	if (error)
		pf_conn_abort(c, "error", "resolve", error);
	else
		pf_dial_start(c, res->addrs, res->n);
}

static uint32_t count_rule(const struct pf_conn *c)
{
	uint32_t n = 0;

	for (const struct pf_conn *o = c->gate->conns; o; o = o->next)
		n += o->rule == c->rule;
	return n;
}

static void admit(struct pf_conn *c)
{
	struct pf_gate *g = c->gate;
	uint16_t port = pf_sa_port(&c->orig.sa);
	enum pf_verdict v;

	if (pf_synth_has(&g->synth, &c->orig.sa)) {
		c->name = pf_synth_addr(&g->synth, &c->orig.sa);
		if (!c->name) {
			pf_conn_deny(c, "stale_address", NULL);
			return;
		}
		c->name->holds++;
		v = pf_policy_host(g->policy, c->name->name, port, &c->rule);
	} else {
		v = pf_policy_addr(g->policy, &c->orig.sa, IPPROTO_TCP, pf_upstream_own(g), &c->rule);
	}
	if (c->rule)
		c->rule_text = pf_strdup(c->rule->text);
	if (v != PF_VERDICT_ALLOW) {
		pf_conn_deny(c, pf_verdict_reason(v), NULL);
		return;
	}
	c->ends_tls = pf_handover_wanted(g, c->rule, c->name ? c->name->name : NULL, port);
	/* Now, and not with its first bytes: it starts while the connection is made. */
	if (c->ends_tls && !pf_handover_wake(g)) {
		pf_conn_deny(c, "tls_down", NULL);
	} else if (c->rule && c->rule->max_connections && count_rule(c) > c->rule->max_connections) {
		pf_conn_deny(c, "rate", "max_connections");
	} else if (pf_meter_left(g, c->rule) == 0) {
		pf_conn_deny(c, "rate", "max_bytes_per_hour");
	} else if (c->name) {
		struct pf_query *q = pf_upstream_resolve(g, c->name, on_resolved, c);
		if (c->state == PF_CONN_RESOLVING) {
			c->query = q;
			pf_conn_arm(c);
		}
	} else {
		union pf_sa sa = c->orig;
		pf_dial_start(c, &sa, 1);
	}
}

void pf_conn_begin(struct pf_gate *g, int fd, const union pf_sa *peer, const union pf_sa *orig)
{
	struct pf_conn *c = pf_calloc(1, sizeof(*c));

	c->gate = g;
	c->orig = *orig;
	c->began = pf_now_us();
	c->client.src = (struct pf_src){.fd = fd, .fn = on_client};
	c->client.writable = true;
	c->up.src = (struct pf_src){.fd = -1, .fn = on_up};
	c->out.pipe[0] = c->out.pipe[1] = c->in.pipe[0] = c->in.pipe[1] = -1;
	c->timer.fn = on_timer;
	c->pump.fn = on_pump;
	c->dial_errno = EHOSTUNREACH;
	c->next = g->conns;
	c->prev = &g->conns;
	if (c->next)
		c->next->prev = &c->next;
	g->conns = c;
	g->n_conns++;
	c->peer = peer;
	if (pf_loop_add(&g->loop, &c->client.src, EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET) < 0)
		pf_conn_abort(c, "error", "epoll", strerror(errno));
	else
		admit(c);
	/* Not freed before this round is over. */
	if (c->state != PF_CONN_DEAD)
		ask_who(c);
}
