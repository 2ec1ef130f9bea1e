/* Theory of operation.
 *
 * A connection that began with a request goes on with requests, and each names its host anew: the client's
 * side is therefore read here, not spliced, and a byte goes on only when it belongs to a request whose head
 * was judged. Where one ends and the next begins is http.c's business; what the server answers flows freely.
 *
 * A request may ask for another protocol (websockets do). If it is the first of its connection, its answer is
 * the first that the server sends: what the client says after it is held until that answer begins, and when
 * it agrees (101, or 2xx to CONNECT) the rest is opaque and spliced. Later on a connection one answer cannot
 * be told from another without reading them all; there the sequel must be HTTP again, or it is refused. To go
 * on in HTTP/2 is not to be asked for where HTTP/2 may not be begun with either. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/relay_priv.h"

#define ROOM ((size_t)16 << 10)
#define HEAD_US 10000000
#define STATUS_LEN 12 /* "HTTP/1.1 101" */

static void refuse(struct pf_conn *c, const char *why)
{
	/* Answers to earlier requests may be under way; a 403 could be taken for one of them. */
	pf_conn_abort(c, "deny", why, c->other_name);
}

/* A head that is complete in the buffer at web->judged. */
static bool begin_request(struct pf_conn *c, size_t head_len)
{
	struct pf_web *w = c->web;
	char *head = (char *)c->head + w->judged;

	if (pf_sa_port(&c->orig.sa) == 80)
		pf_http_hide_h2c(head, head_len);
	if (pf_http_request(&w->request, head, head_len) < 0) {
		refuse(c, "malformed_head");
		return false;
	}
	w->judged += head_len;
	w->n_requests++;
	w->in_body = !w->request.done;
	w->waiting = w->request.upgrade && w->n_requests == 1;
	c->sniff_by = 0;
	return true;
}

static bool next_head(struct pf_conn *c)
{
	struct pf_web *w = c->web;
	struct pf_sniff s;
	const uint8_t *p = c->head + w->judged;
	size_t n = c->head_len - w->judged;

	if (!c->sniff_by) {
		c->sniff_by = pf_now_us() + HEAD_US;
		pf_conn_arm(c);
	}
	if (n < PF_SNIFF_MAX && pf_http_head_len((const char *)p, n) == 0)
		return false;
	pf_sniff(p, n, &s);
	if (s.kind != PF_SNIFF_HTTP || s.h2c) {
		refuse(c, "malformed_head");
		return false;
	}
	const char *why = pf_conn_judge(c, &s);
	if (why) {
		refuse(c, why);
		return false;
	}
	return begin_request(c, s.head_len);
}

static void judge_all(struct pf_conn *c)
{
	struct pf_web *w = c->web;

	while (c->state != PF_CONN_DEAD && w->judged < c->head_len) {
		if (w->in_body) {
			ssize_t n = pf_http_body(
				&w->request, (const char *)c->head + w->judged, c->head_len - w->judged);
			if (n < 0) {
				refuse(c, "malformed_body");
				return;
			}
			w->judged += (size_t)n;
			w->in_body = !w->request.done;
		} else if (w->waiting || !next_head(c)) {
			return;
		}
	}
}

/* Make room behind what is there; never more than a head may need. */
static bool make_room(struct pf_conn *c)
{
	struct pf_web *w = c->web;
	size_t cap = w->judged == c->head_len || w->in_body ? ROOM : PF_SNIFF_MAX;

	if (c->head_sent && c->head_sent == w->judged) {
		memmove(c->head, c->head + c->head_sent, c->head_len - c->head_sent);
		c->head_len -= c->head_sent;
		w->judged = c->head_sent = 0;
	}
	if (cap < c->head_len)
		cap = c->head_len;
	if (c->head_cap < cap) {
		uint8_t *more = realloc(c->head, cap);
		if (!more)
			abort();
		c->head = more;
		c->head_cap = cap;
	}
	return c->head_len < c->head_cap;
}

void pf_web_begin(struct pf_conn *c, size_t head_len)
{
	c->web = pf_calloc(1, sizeof(*c->web));
	if (begin_request(c, head_len))
		judge_all(c);
}

void pf_web_read(struct pf_conn *c)
{
	while (c->state == PF_CONN_CONNECTED && c->client.readable && !c->client_ended) {
		/* A protocol that is not known yet stays where it is: in the socket. */
		if ((c->web->waiting && !c->web->in_body) || !make_room(c))
			break;
		ssize_t n = recv(
			c->client.src.fd, c->head + c->head_len, c->head_cap - c->head_len, MSG_DONTWAIT);
		if (n > 0) {
			/* As in read_head. */
			if (c->head_len + (size_t)n < c->head_cap && !c->client.unsure)
				c->client.readable = false;
			c->head_len += (size_t)n;
			judge_all(c);
		} else if (n == 0) {
			c->client_ended = true;
		} else if (errno == EAGAIN) {
			c->client.readable = false;
		} else if (errno != EINTR) {
			pf_conn_abort(c, "error", "reset", strerror(errno));
		}
	}
	if (c->state == PF_CONN_CONNECTED && c->head && c->head_len == 0) {
		pf_conn_drop_head(c);
	}
}

bool pf_web_answered(struct pf_conn *c)
{
	char status[STATUS_LEN];
	ssize_t n = recv(c->up.src.fd, status, sizeof(status), MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN) {
		c->up.readable = false;
		return false;
	}
	if (n > 0 && n < STATUS_LEN && !c->client_ended && !c->up.unsure) {
		c->up.readable = false; /* more of the line is an event of its own */
		return false;
	}
	bool connect = c->web->request.parser.method == HTTP_CONNECT;
	bool agreed = n == STATUS_LEN && memcmp(status, "HTTP/1.", 7) == 0 &&
		      memcmp(status + 9, connect ? "2" : "101", connect ? 1 : 3) == 0;
	c->web->waiting = false;
	if (!agreed) {
		judge_all(c);
		if (c->state == PF_CONN_CONNECTED)
			pf_loop_timer(&c->gate->loop, &c->pump, pf_now_us());
		return c->state == PF_CONN_CONNECTED;
	}
	free(c->web);
	c->web = NULL;
	return true;
}
