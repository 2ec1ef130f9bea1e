/* Theory of operation.
 *
 * A connection whose requests are to be seen, or that is to be told over TLS why it is refused, is decided on
 * here as any other: its name, its rule, where it may be dialled to, its first bytes. Then both descriptors,
 * and what was read, go to pinfold-tls, and what stays here is the entry in the books: it counts against the
 * limit, it ends with its rule, and the lines of the log about its requests come back over the socket.
 *
 * pinfold-tls is not there until the first connection needs it: whoever holds the gate is asked to start it,
 * and what came meanwhile waits. When it has died, that is told, its connections have ended with it, and the
 * next one has it started anew. Where it cannot be started there is no way for such a connection: it is
 * refused (tls_down), never passed on unseen. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/relay_priv.h"
#include "netpolicy/tlslink.h"

#define RETRY_US 1000
#define PER_EVENT 64
#define START_US 15000000 /* how long a connection waits for it */
#define AGAIN_US 1000000  /* before one that could not be started is asked for again */

static struct pf_conn *find(struct pf_gate *g, int64_t id)
{
	struct pf_conn *c = g->handed[(size_t)id % PF_GATE_HANDED];

	while (c && c->tls_id != id)
		c = c->tls_next;
	return c;
}

void pf_handover_forget(struct pf_conn *c)
{
	struct pf_conn **at = &c->gate->handed[(size_t)c->tls_id % PF_GATE_HANDED];

	if (!c->tls_id)
		return;
	while (*at != c)
		at = &(*at)->tls_next;
	*at = c->tls_next;
	c->tls_id = 0;
}

bool pf_handover_wanted(const struct pf_gate *g, const struct pf_rule *rule, const char *name, uint16_t port)
{
	if (!rule || !name)
		return false;
	return rule->tls == PF_TLS_TERMINATE || (!rule->tls_set && pf_creds_bound(g->opts.creds, name, port));
}

static int send_conn(struct pf_conn *c, const char *deny, struct pf_err *err)
{
	struct pf_gate *g = c->gate;
	PF_JSON cJSON *msg = cJSON_CreateObject();
	const int fds[2] = {c->client.src.fd, c->up.src.fd};
	char orig[PF_ADDR_TEXT];
	const char *name = c->other_name ? c->other_name
			   : c->name     ? c->name->name
					 : pf_sa_text(&c->orig.sa, orig);

	cJSON_AddStringToObject(msg, "op", "conn");
	pf_json_add_int(msg, "id", g->next_handed + 1);
	cJSON_AddStringToObject(msg, "name", name);
	pf_json_add_int(msg, "port", pf_sa_port(&c->orig.sa));
	cJSON_AddBoolToObject(msg, "tls", c->tls);
	if (deny)
		cJSON_AddStringToObject(msg, "deny", deny);
	return pf_tlslink_send(g->tls.fd, msg, c->head, c->head_len, fds, deny ? 1 : 2, err);
}

bool pf_handover_wake(struct pf_gate *g)
{
	if (g->tls_state == PF_LINK_ASLEEP && pf_now_us() >= g->tls_not_before) {
		g->tls_state = PF_LINK_WAKING;
		g->opts.wake_tls(g->opts.user);
	}
	return g->tls_state == PF_LINK_WAKING || g->tls_state == PF_LINK_UP;
}

static bool wait_for_link(struct pf_conn *c, bool denied)
{
	if (!pf_handover_wake(c->gate))
		return false;
	if (denied)
		c->state = PF_CONN_REFUSED;
	if (!c->waits_tls) {
		c->waits_tls = true;
		c->sniff_by = pf_now_us() + START_US;
		pf_conn_arm(c);
	}
	return true;
}

static void link_is_there(struct pf_gate *g)
{
	for (struct pf_conn *c = g->conns, *next; c; c = next) {
		next = c->next;
		if (!c->waits_tls)
			continue;
		c->waits_tls = false;
		c->sniff_by = 0;
		if (c->state != PF_CONN_REFUSED)
			pf_conn_flow(c);
		else if (!pf_handover(c, c->refusal))
			pf_conn_reset(c);
	}
}

bool pf_handover(struct pf_conn *c, const char *deny)
{
	struct pf_gate *g = c->gate;
	struct pf_err err = PF_ERR_INIT;

	if (g->tls.fd < 0)
		return wait_for_link(c, deny != NULL);
	if (send_conn(c, deny, &err) < 0) {
		if (err.errnum != EAGAIN || deny)
			return false;
		pf_loop_timer(&g->loop, &c->pump, pf_now_us() + RETRY_US);
		return true;
	}
	c->tls_id = ++g->next_handed;
	struct pf_conn **bucket = &g->handed[(size_t)c->tls_id % PF_GATE_HANDED];
	c->tls_next = *bucket;
	*bucket = c;
	c->state = PF_CONN_HANDED;
	c->handed_denied = deny != NULL;
	pf_loop_cancel(&g->loop, &c->timer);
	pf_loop_close(&g->loop, &c->client.src);
	pf_loop_close(&g->loop, &c->up.src);
	pf_conn_drop_head(c);
	return true;
}

/* Its keeper has the socket too; the end must be heard all the same. */
static void hang_up(struct pf_gate *g)
{
	(void)shutdown(g->tls.fd, SHUT_RDWR);
	pf_loop_close(&g->loop, &g->tls);
	g->tls_state = PF_LINK_ASLEEP;
}

void pf_handover_drop(struct pf_conn *c)
{
	struct pf_gate *g = c->gate;
	struct pf_err err = PF_ERR_INIT;
	PF_JSON cJSON *msg = cJSON_CreateObject();

	cJSON_AddStringToObject(msg, "op", "drop");
	pf_json_add_int(msg, "id", c->tls_id);
	/* What cannot be told to end one connection is told to end them all. The end is heard as any other
	 * (gone), not here, where the caller is among the connections. */
	if (g->tls.fd >= 0 && pf_tlslink_send(g->tls.fd, msg, NULL, 0, NULL, 0, &err) < 0)
		(void)shutdown(g->tls.fd, SHUT_RDWR);
}

static const char *text_of(const cJSON *msg, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, key));
}

static uint64_t number_of(const cJSON *msg, const char *key)
{
	const cJSON *j = cJSON_GetObjectItemCaseSensitive(msg, key);
	return cJSON_IsNumber(j) && j->valuedouble > 0 ? (uint64_t)j->valuedouble : 0;
}

static void on_request(struct pf_conn *c, const cJSON *msg)
{
	const char *verdict = text_of(msg, "verdict"), *reason = text_of(msg, "reason");
	struct pf_gate_event ev = {.kind = "request",
		.verdict = verdict && strcmp(verdict, "allow") == 0   ? "allow"
			   : verdict && strcmp(verdict, "error") == 0 ? "error"
								      : "deny",
		.reason = reason ? reason : "?",
		.name = c->other_name ? c->other_name
			: c->name     ? c->name->name
				      : NULL,
		.rule = c->rule_text,
		.port = pf_sa_port(&c->orig.sa),
		.proto = "tcp",
		.method = text_of(msg, "method"),
		.path = text_of(msg, "path"),
		.credential = text_of(msg, "credential"),
		.exec = c->exec,
		.process = c->process};

	if (strcmp(ev.verdict, "deny") == 0)
		c->gate->count.requests_denied++;
	else
		c->gate->count.requests++;
	/* The refusal of the connection is in the log already. */
	if (!c->handed_denied)
		pf_gate_audit(c->gate, PF_AUDIT_CONN, &ev);
}

/* Of a connection that moves elsewhere. */
static void count_bytes(struct pf_conn *c, const cJSON *msg)
{
	uint64_t out = number_of(msg, "bytes_out"), in = number_of(msg, "bytes_in");

	if (out < c->out.bytes || in < c->in.bytes)
		return;
	pf_meter_take(c->gate, c->rule, out - c->out.bytes + in - c->in.bytes);
	c->out.bytes = out;
	c->in.bytes = in;
}

static void on_message(struct pf_gate *g, const cJSON *msg)
{
	const char *op = text_of(msg, "op");
	struct pf_conn *c = find(g, (int64_t)number_of(msg, "id"));

	if (op && strcmp(op, "error") == 0) {
		struct pf_gate_event ev = {.kind = "tls",
			.verdict = "error",
			.reason = "pinfold-tls",
			.detail = text_of(msg, "text")};
		pf_gate_audit(g, PF_AUDIT_CONN, &ev);
	} else if (op && c && strcmp(op, "request") == 0) {
		on_request(c, msg);
	} else if (op && c && strcmp(op, "bytes") == 0) {
		count_bytes(c, msg);
		if (pf_meter_left(g, c->rule) == 0) {
			pf_handover_drop(c);
			pf_conn_abort(c, "deny", "rate", "max_bytes_per_hour");
		}
	} else if (op && c && strcmp(op, "closed") == 0) {
		count_bytes(c, msg);
		pf_conn_handed_end(c, text_of(msg, "error"));
	}
}

static void gone(struct pf_gate *g)
{
	struct pf_gate_event ev = {.kind = "tls",
		.verdict = "error",
		.reason = "tls_down",
		.detail = "pinfold-tls has ended, and its connections with it"};

	hang_up(g);
	g->count.tls_ended++;
	pf_gate_audit(g, PF_AUDIT_CONN, &ev);
	for (size_t i = 0; i < PF_GATE_HANDED; i++)
		while (g->handed[i])
			pf_conn_handed_end(g->handed[i], "tls_down");
}

static void on_link(struct pf_src *src, uint32_t events)
{
	struct pf_gate *g = pf_container(src, struct pf_gate, tls);

	(void)events;
	for (int i = 0; i < PER_EVENT && g->tls.fd >= 0; i++) {
		struct pf_err err = PF_ERR_INIT;
		PF_FREE char *text = NULL;
		const char *tail;
		size_t len;
		int fds[PF_TLSLINK_FDS];
		PF_JSON cJSON *msg = pf_tlslink_recv(g->tls.fd, &text, &tail, &len, fds, &err);
		if (!msg && err.errnum == EAGAIN)
			return;
		if (!msg) {
			gone(g);
			return;
		}
		for (size_t k = 0; k < PF_TLSLINK_FDS; k++)
			if (fds[k] >= 0)
				close(fds[k]);
		on_message(g, msg);
	}
}

void pf_handover_open(struct pf_gate *g)
{
	g->tls = (struct pf_src){.fd = -1, .fn = on_link};
	if (!g->opts.authority)
		return;
	g->tls_state = PF_LINK_ASLEEP;
	g->ca_names = pf_policy_ca_names(g->policy);
}

int pf_gate_tls(struct pf_gate *g, int fd, const char *why, struct pf_err *err)
{
	struct pf_gate_event ev = {.kind = "tls", .verdict = "error", .reason = "tls_down", .detail = why};

	if (fd < 0) {
		g->tls_state = PF_LINK_ASLEEP;
		g->tls_not_before = pf_now_us() + AGAIN_US;
		pf_gate_audit(g, PF_AUDIT_CONN, &ev);
		for (struct pf_conn *c = g->conns, *next; c; c = next) {
			next = c->next;
			if (c->waits_tls)
				pf_handover_gave_up(c);
		}
		return 0;
	}
	if (g->tls.fd >= 0)
		gone(g);
	g->tls.fd = fd;
	if (pf_loop_add(&g->loop, &g->tls, EPOLLIN) < 0) {
		int saved = errno;
		hang_up(g);
		return pf_fail(err, saved, "watch pinfold-tls");
	}
	g->tls_state = PF_LINK_UP;
	g->count.tls_started++;
	link_is_there(g);
	return 0;
}

void pf_handover_gave_up(struct pf_conn *c)
{
	c->waits_tls = false;
	if (c->state == PF_CONN_REFUSED)
		pf_conn_reset(c);
	else
		pf_conn_abort(c, "deny", "tls_down", NULL);
}

int pf_handover_check(struct pf_gate *g, const struct pf_policy *p, struct pf_err *err)
{
	size_t n;
	const struct pf_rule *rules = pf_policy_rules(p, &n);

	if (g->opts.creds && pf_creds_check(g->opts.creds, p, err) < 0)
		return -1;
	if (pf_policy_ends_tls(p) && !g->opts.authority)
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"this sandbox was started without an authority of its own, because nothing in its "
			"policy "
			"needed one; a policy with \"terminate\", methods, paths or \"explain_denied\" needs "
			"it to be "
			"created anew");
	for (size_t i = 0; g->ca_names && i < n; i++) {
		bool covered = rules[i].tls != PF_TLS_TERMINATE;
		for (char **s = g->ca_names; !covered && *s; s++)
			covered = strcmp(*s, rules[i].host) == 0 ||
				  (pf_ends_with(rules[i].host, *s) &&
					  rules[i].host[strlen(rules[i].host) - strlen(*s) - 1] == '.');
		if (!covered)
			return pf_fail_kind(err, PF_ERR_STATE, 0,
				"'%s': the sandbox's authority was made for the names that were allowed when "
				"it was "
				"created, and TLS of no other can be ended; create it anew",
				rules[i].text);
	}
	return 0;
}

void pf_gate_tls_policy(struct pf_gate *g, const cJSON *networking)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();
	struct pf_err ignored = PF_ERR_INIT;

	if (g->tls.fd < 0)
		return;
	PF_CLOSE int doc = pf_tlslink_document(networking, NULL, pf_policy_revision(g->policy), &ignored);
	cJSON_AddStringToObject(msg, "op", "policy");
	/* It must not go on with rules that are no longer true. */
	if (doc < 0 || pf_tlslink_send(g->tls.fd, msg, NULL, 0, &doc, 1, &ignored) < 0)
		gone(g);
}
