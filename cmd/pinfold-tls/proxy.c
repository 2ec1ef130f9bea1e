/* Theory of operation.
 *
 * A connection has two ends, each with TLS or without, and one request under way at a time: a request is
 * read, judged, and sent on, then its answer is awaited to the end before the next one is read. So there is
 * always one clear place for a refusal, and a switch of protocols (101) is never guessed. Both directions
 * stream: a body or an event goes on as soon as it arrives, and what one end cannot take is not read from the
 * other.
 *
 * Bounded: 32 KiB of a request's head, 64 KiB of an answer's, 16 KiB of a body each way; buffers are there
 * only while something is in them. A body in which placeholders are to be replaced is collected up to 1 MiB,
 * because its length stands before it, and of all connections up to 64 MiB, until the server has taken them;
 * longer ones go as they are. One in chunks streams, in chunks of our own, and when it turns out to need a
 * secret that it may not have, its request is cut off.
 *
 * The certificate that the client is shown is made for the name that it connected to; the upstream's is
 * verified for the same name; and Host must be that name. So what a rule or a credential says of a host holds
 * for the host that really answers. */
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "cmd/pinfold-tls/tls.h"
#include "netpolicy/refusal.h"
#include "netpolicy/sniff.h"

#define CHUNK ((size_t)16 << 10)
#define ANSWER_HEAD_MAX ((size_t)64 << 10)
#define HELD_BODY_MAX ((uint64_t)1 << 20)
#define HANDSHAKE_US 15000000
#define HEAD_US 10000000
#define LINGER_US 1000000
#define TELL_BYTES ((uint64_t)128 << 10)
#define ROUNDS 64
#define STEPS 8

enum request_state { REQ_HEAD, REQ_BODY, REQ_DONE };

struct conn {
	struct tls *t;
	struct conn *next, **prev;
	int64_t id;
	char name[PF_NAME_MAX];
	uint16_t port;
	char *deny; /* NULL: it goes on to up */
	bool secure, dead;
	bool client_ready, up_ready; /* handshakes are over */
	char *up_error;              /* the upstream's handshake failed */
	bool tunnel, closing;
	bool awaiting, in_answer, no_body; /* an answer; its head was seen; it has no body */
	bool hold_body, keep_alive;
	bool rechunk;     /* the body streams, and placeholders in it are replaced; held has the head */
	const char *used; /* the credential that went into such a request */
	enum request_state state;
	struct end client, up;
	struct fifo in, out, rin, rout, held, body; /* body: all of it, or what is still to be looked at */
	uint64_t reserved;                          /* for bodies that are held, or not taken yet */
	struct pf_http request, answer;
	bool counted[256]; /* credentials, in this request */
	uint64_t bytes_out, bytes_in, bytes_told;
	struct pf_timer timer, again;
};

static void drive(struct conn *c);

/* The gate counts, for all connections of a rule, and ends what is beyond it. */
static void tell_bytes(struct conn *c)
{
	const struct pf_rule *rule = NULL;

	if (c->dead || c->bytes_out + c->bytes_in - c->bytes_told < TELL_BYTES)
		return;
	c->bytes_told = c->bytes_out + c->bytes_in;
	(void)pf_policy_host(c->t->policy, c->name, c->port, &rule);
	if (!rule || !rule->max_bytes_per_hour)
		return;
	PF_JSON cJSON *msg = cJSON_CreateObject();
	cJSON_AddStringToObject(msg, "op", "bytes");
	pf_json_add_int(msg, "id", c->id);
	pf_json_add_int(msg, "bytes_out", (int64_t)c->bytes_out);
	pf_json_add_int(msg, "bytes_in", (int64_t)c->bytes_in);
	tls_send(c->t, msg);
}

/* Bodies that are collected count until the server has taken them, or nobody wants them any more. */
static bool reserve(struct conn *c, uint64_t len)
{
	if (len > HELD_ALL_MAX - c->t->held)
		return false;
	c->t->held += len;
	c->reserved += len;
	return true;
}

static void release_body(struct conn *c)
{
	c->t->held -= c->reserved;
	c->reserved = 0;
}

static void finish(struct conn *c, const char *error)
{
	struct tls *t = c->t;
	PF_JSON cJSON *msg = cJSON_CreateObject();

	if (c->dead)
		return;
	c->dead = true;
	release_body(c);
	cJSON_AddStringToObject(msg, "op", "closed");
	pf_json_add_int(msg, "id", c->id);
	pf_json_add_int(msg, "bytes_out", (int64_t)c->bytes_out);
	pf_json_add_int(msg, "bytes_in", (int64_t)c->bytes_in);
	if (error)
		cJSON_AddStringToObject(msg, "error", error);
	tls_send(t, msg);
	pf_loop_cancel(&t->loop, &c->timer);
	pf_loop_cancel(&t->loop, &c->again);
	end_close(&t->loop, &c->client, error != NULL);
	end_close(&t->loop, &c->up, error != NULL);
	struct fifo *fifos[] = {&c->in, &c->out, &c->rin, &c->rout, &c->held, &c->body};
	for (size_t i = 0; i < sizeof(fifos) / sizeof(fifos[0]); i++)
		fifo_done(fifos[i]);
	free(c->deny);
	free(c->up_error);
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	pf_loop_free(&t->loop, c);
}

/* ---- refusing */

static void refuse(struct conn *c, struct request *r, const char *head, size_t len)
{
	char answer[PF_REFUSAL_MAX];
	const struct pf_refusal f = {.status = r->status ? r->status : 403,
		.host = c->name,
		.port = c->port,
		.reason = r->reason,
		.text = *r->text ? r->text : NULL,
		.revision = pf_policy_revision(c->t->policy),
		.retry_s = r->retry_s};

	request_report(c->t, c->id, r, f.status == 502 ? "error" : "deny", r->reason);
	c->hold_body = false;
	fifo_done(&c->held);
	fifo_done(&c->body);
	fifo_add(&c->rout, answer, pf_refusal_write(&f, head, len, answer));
	c->closing = true;
	c->state = REQ_DONE;
}

/* ---- requests */

/* Send the request on. head is complete; the body, if it was held, too. */
static void send_request(struct conn *c, struct request *r, const char *head, size_t len, int64_t length)
{
	struct fifo fresh = {0};

	if (inject_head(c->t, r, head, len, length, &fresh)) {
		if (c->rechunk)
			c->used = r->used; /* told when it is known what its body needs */
		else
			request_report(c->t, c->id, r, "allow", "allowed");
		fifo_add(&c->out, fifo_data(&fresh), fifo_size(&fresh));
	} else {
		refuse(c, r, head, len);
	}
	fifo_done(&fresh);
}

/* Room for the body, if it is one that is collected. false: others have it all. */
static bool reserve_body(struct conn *c, const struct request *r)
{
	uint64_t len = c->request.parser.content_length;

	if (c->request.done || (c->request.parser.flags & F_CHUNKED) || len > HELD_BODY_MAX ||
		!inject_wants_body(c->t, r))
		return true;
	c->hold_body = reserve(c, len);
	return c->hold_body;
}

static void begin_request(struct conn *c, char *head, size_t len)
{
	struct request r = {.name = c->name, .port = c->port, .secure = c->secure, .counted = c->counted};
	struct pf_sniff s;

	memset(c->counted, 0, sizeof(c->counted));
	pf_sniff((const uint8_t *)head, len, &s);
	if (s.kind == PF_SNIFF_HTTP)
		pf_http_hide_h2c(head, len);
	request_read(&r, head, len);
	if (s.kind != PF_SNIFF_HTTP || s.h2c || pf_http_request(&c->request, head, len) < 0) {
		r.reason = "malformed_head";
		refuse(c, &r, head, len);
		return;
	}
	c->keep_alive = c->request.keep_alive;
	c->hold_body = false;
	if (c->deny) {
		r.reason = c->deny;
	} else if (s.has_name && strcmp(s.name, c->name) != 0) {
		r.reason = "host_mismatch";
	} else if (c->request.parser.method == HTTP_CONNECT) {
		r.reason = "method";
	} else if (request_judge(c->t, &r) && !reserve_body(c, &r)) {
		request_no_room(&r);
	} else if (!r.reason && c->up_error) {
		r.status = 502;
		r.reason = "upstream_tls";
		snprintf(r.text, sizeof(r.text), "%.200s:%u did not prove who it is: %.100s.", c->name,
			c->port, c->up_error);
	}
	if (r.reason) {
		refuse(c, &r, head, len);
		return;
	}
	c->awaiting = true;
	c->in_answer = false;
	c->no_body = c->request.parser.method == HTTP_HEAD;
	c->state = c->request.done ? REQ_DONE : REQ_BODY;
	if (c->state == REQ_BODY && (c->request.parser.flags & F_CHUNKED) && inject_wants_body(c->t, &r)) {
		fifo_add(&c->held, head, len);
		c->rechunk = true;
		c->used = NULL;
	}
	if (!c->hold_body) {
		send_request(c, &r, head, len, -1);
		return;
	}
	fifo_add(&c->held, head, len);
	struct pf_http_line line;
	size_t at = 0;
	while (pf_http_next(head, len, &at, &line))
		if (pf_http_is(&line, "Expect"))
			fifo_add(&c->rout, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

static bool inject_held(struct conn *c, struct request *r, struct fifo *fresh)
{
	size_t had = fifo_size(&c->body);

	if (!inject_body(c->t, r, fifo_data(&c->body), had, fresh))
		return false;
	/* A secret may be longer than what stands for it. */
	if (fifo_size(fresh) <= had || reserve(c, fifo_size(fresh) - had))
		return true;
	request_no_room(r);
	return false;
}

static void end_held_body(struct conn *c)
{
	struct request r = {.name = c->name, .port = c->port, .secure = c->secure, .counted = c->counted};
	struct fifo fresh = {0}, head = c->held;

	c->held = (struct fifo){0};
	c->hold_body = false;
	request_read(&r, fifo_data(&head), fifo_size(&head));
	if (inject_held(c, &r, &fresh)) {
		send_request(c, &r, fifo_data(&head), fifo_size(&head), (int64_t)fifo_size(&fresh));
		if (!c->closing)
			fifo_add(&c->out, fifo_data(&fresh), fifo_size(&fresh));
	} else {
		refuse(c, &r, fifo_data(&head), fifo_size(&head));
	}
	fifo_done(&fresh);
	fifo_done(&c->body);
	fifo_done(&head);
}

static void into_body(void *arg, const char *data, size_t len)
{
	struct conn *c = arg;

	fifo_add(&c->body, data, len);
}

/* Its beginning is with the server already, which must not take it for all of it. */
static void cut_off(struct conn *c, struct request *r)
{
	bool answered = c->in_answer;
	struct fifo head = c->held;

	c->held = (struct fifo){0};
	c->rechunk = c->awaiting = false;
	end_close(&c->t->loop, &c->up, true);
	fifo_done(&c->out);
	fifo_done(&c->rin);
	refuse(c, r, fifo_data(&head), fifo_size(&head));
	fifo_done(&head);
	if (answered)
		finish(c, r->reason);
}

/* What has come of a body in chunks goes on. */
static void pass_chunks(struct conn *c)
{
	struct request r = {.name = c->name,
		.port = c->port,
		.secure = c->secure,
		.counted = c->counted,
		.used = c->used};
	struct fifo fresh = {0};
	bool last = c->request.done;
	char size[24];
	size_t took;

	request_read(&r, fifo_data(&c->held), fifo_size(&c->held));
	if (!inject_part(c->t, &r, fifo_data(&c->body), fifo_size(&c->body), last, &fresh, &took)) {
		fifo_done(&fresh);
		cut_off(c, &r);
		return;
	}
	/* A secret may be longer than what stands for it. */
	if (fifo_size(&fresh) > took && !reserve(c, fifo_size(&fresh) - took)) {
		fifo_done(&fresh);
		request_no_room(&r);
		cut_off(c, &r);
		return;
	}
	c->used = r.used;
	fifo_skip(&c->body, took);
	if (fifo_size(&fresh)) {
		fifo_add(&c->out, size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", fifo_size(&fresh)));
		fifo_add(&c->out, fifo_data(&fresh), fifo_size(&fresh));
		fifo_add(&c->out, "\r\n", 2);
	}
	fifo_done(&fresh);
	if (last) {
		fifo_add(&c->out, "0\r\n\r\n", 5);
		request_report(c->t, c->id, &r, "allow", "allowed");
		c->rechunk = false;
		fifo_done(&c->held);
	}
}

static bool step_request(struct conn *c)
{
	size_t n = fifo_size(&c->in);

	if (n == 0 || c->closing)
		return false;
	if (c->tunnel) {
		fifo_add(&c->out, fifo_data(&c->in), n);
		fifo_skip(&c->in, n);
		return true;
	}
	if (c->state == REQ_HEAD) {
		size_t len = pf_http_head_len(fifo_data(&c->in), n);
		if (len > PF_SNIFF_MAX || (len == 0 && n >= PF_SNIFF_MAX)) {
			struct request r = {
				.method = "", .target = "", .status = 431, .reason = "malformed_head"};
			snprintf(r.text, sizeof(r.text), "The request's head is longer than 32 KiB.");
			refuse(c, &r, "", 0);
			return true;
		}
		if (len == 0) {
			if (!c->timer.pos)
				pf_loop_timer(&c->t->loop, &c->timer, pf_now_us() + HEAD_US);
			return false;
		}
		pf_loop_cancel(&c->t->loop, &c->timer);
		begin_request(c, (char *)c->in.p + c->in.at, len);
		fifo_skip(&c->in, len);
		return true;
	}
	if (c->state == REQ_BODY) {
		ssize_t took = c->rechunk ? pf_http_body_to(&c->request, fifo_data(&c->in), n, into_body, c)
					  : pf_http_body(&c->request, fifo_data(&c->in), n);
		if (took < 0) {
			finish(c, "malformed body");
			return false;
		}
		if (!c->rechunk)
			fifo_add(c->hold_body ? &c->body : &c->out, fifo_data(&c->in), (size_t)took);
		fifo_skip(&c->in, (size_t)took);
		if (c->rechunk)
			pass_chunks(c);
		if (c->dead || c->closing)
			return true;
		if (c->request.done) {
			c->state = REQ_DONE;
			if (c->hold_body)
				end_held_body(c);
		}
		return took > 0;
	}
	return false;
}

/* ---- answers */

static void end_answer(struct conn *c)
{
	c->awaiting = c->in_answer = false;
	/* An answer before the request was complete: nobody can say where the next would begin. */
	if (!c->keep_alive || !c->answer.keep_alive || c->state != REQ_DONE)
		c->closing = true;
	else
		c->state = REQ_HEAD;
}

static bool step_answer(struct conn *c)
{
	size_t n = fifo_size(&c->rin);

	if (n == 0)
		return false;
	if (c->tunnel) {
		fifo_add(&c->rout, fifo_data(&c->rin), n);
		fifo_skip(&c->rin, n);
		return true;
	}
	if (!c->awaiting) {
		finish(c, c->closing ? NULL : "an answer that nobody asked for");
		return false;
	}
	if (!c->in_answer) {
		size_t len = pf_http_head_len(fifo_data(&c->rin), n);
		if (len == 0 && n < ANSWER_HEAD_MAX)
			return false;
		if (len == 0 || pf_http_response(&c->answer, fifo_data(&c->rin), len, c->no_body) < 0) {
			finish(c, "malformed answer");
			return false;
		}
		hide_secrets(c->t, c->name, c->port, fifo_data(&c->rin), len, &c->rout);
		fifo_skip(&c->rin, len);
		if (c->answer.upgrade)
			c->tunnel = true;
		else if (c->answer.parser.status_code / 100 == 1)
			return true;
		else
			c->in_answer = true;
	} else {
		ssize_t took = pf_http_body(&c->answer, fifo_data(&c->rin), n);
		if (took < 0) {
			finish(c, "malformed answer");
			return false;
		}
		fifo_add(&c->rout, fifo_data(&c->rin), (size_t)took);
		fifo_skip(&c->rin, (size_t)took);
	}
	if (c->in_answer && c->answer.done)
		end_answer(c);
	return true;
}

/* ---- moving */

/* 1 something went, 0 nothing, -1 the end failed. */
static int flush(struct fifo *f, struct end *e, uint64_t *count)
{
	int moved = 0;

	while (fifo_size(f) && e->writable && e->src.fd >= 0) {
		ssize_t n = end_write(e, fifo_data(f), fifo_size(f));
		if (n == END_FAILED)
			return -1;
		if (n <= 0)
			break;
		*count += (uint64_t)n;
		fifo_skip(f, (size_t)n);
		moved = 1;
	}
	return moved;
}

static int fill(struct fifo *f, struct end *e, size_t limit)
{
	if (!e->readable || e->eof || fifo_size(f) >= limit)
		return 0;
	static uint8_t scratch[CHUNK];
	size_t want = limit - fifo_size(f) < CHUNK ? limit - fifo_size(f) : CHUNK;
	ssize_t n = end_read(e, scratch, want);
	if (n > 0) {
		fifo_add(f, scratch, (size_t)n);
		OPENSSL_cleanse(scratch, (size_t)n);
		return 1;
	}
	if (n == END_FAILED)
		return -1;
	if (n == 0)
		e->eof = true;
	return n == 0;
}

static bool wants_client(const struct conn *c)
{
	if (c->closing || (c->state == REQ_DONE && !c->tunnel))
		return false;
	return fifo_size(&c->out) < CHUNK;
}

/* The ends of both directions. */
static void settle(struct conn *c)
{
	bool up_gone = c->up.eof && !fifo_size(&c->rin);

	if (c->tunnel) {
		if (c->client.eof && !fifo_size(&c->in) && !fifo_size(&c->out))
			end_shut(&c->up);
		if (up_gone && !fifo_size(&c->rout))
			end_shut(&c->client);
		if (c->up.shut && c->client.shut)
			finish(c, NULL);
		return;
	}
	if (up_gone && c->awaiting) {
		if (!c->in_answer || !c->answer.until_close) {
			finish(c, "the server hung up");
			return;
		}
		c->awaiting = false;
		c->closing = true;
	}
	if (up_gone && !c->awaiting && c->state == REQ_HEAD && !fifo_size(&c->in))
		c->closing = true;
	if (c->client.eof && c->state == REQ_HEAD && !fifo_size(&c->rout)) {
		finish(c, NULL);
		return;
	}
	if (c->client.eof && c->state == REQ_BODY) {
		finish(c, "the client hung up");
		return;
	}
	if (c->closing && !fifo_size(&c->rout) && !c->client.shut) {
		/* Closing with unread bytes would reset the connection, and the answer with it. */
		end_shut(&c->client);
		end_close(&c->t->loop, &c->up, false);
		fifo_done(&c->out);
		fifo_done(&c->body);
		release_body(c);
		pf_loop_timer(&c->t->loop, &c->timer, pf_now_us() + LINGER_US);
	}
	if (c->client.shut) {
		char scrap[4096];
		ssize_t n = 1;
		for (int i = 0; i < ROUNDS && n > 0; i++)
			n = end_read(&c->client, scrap, sizeof(scrap));
		if (n == 0 || n == END_FAILED)
			finish(c, NULL);
		else if (n > 0)
			pf_loop_timer(&c->t->loop, &c->again, pf_now_us());
	}
}

static bool shake(struct conn *c)
{
	char text[100];

	/* The server's first: it works on its part while we do the client's. */
	if (!c->up_ready && !c->up_error && c->up.src.fd >= 0) {
		int r = end_handshake(&c->up);
		if (r < 0) {
			c->up_error = pf_strdup(end_error(&c->up, text, sizeof(text)));
			end_close(&c->t->loop, &c->up, true);
		}
		c->up_ready = r == 1;
	}
	if (!c->client_ready) {
		int r = end_handshake(&c->client);
		if (r < 0) {
			finish(c, end_error(&c->client, text, sizeof(text)));
			return false;
		}
		c->client_ready = r == 1;
	}
	return c->client_ready && (c->up_ready || c->up_error || c->deny);
}

static void drive(struct conn *c)
{
	struct tls *t = c->t;
	int moved = 1, rounds = 0;

	if (c->dead)
		return;
	if (!c->client_ready || !(c->up_ready || c->up_error || c->deny)) {
		if (!shake(c))
			return;
		pf_loop_cancel(&c->t->loop, &c->timer);
	}
	while (moved && !c->dead && rounds++ < ROUNDS) {
		moved = 0;
		int a = flush(&c->out, &c->up, &c->bytes_out), b = flush(&c->rout, &c->client, &c->bytes_in);
		if (!c->hold_body && !fifo_size(&c->out))
			release_body(c);
		int in = wants_client(c) ? fill(&c->in, &c->client,
						   c->state == REQ_HEAD ? PF_SNIFF_MAX + CHUNK : CHUNK)
					 : 0;
		int rin = c->up.src.fd >= 0 && fifo_size(&c->rout) < CHUNK
				  ? fill(&c->rin, &c->up, c->in_answer || c->tunnel ? CHUNK : ANSWER_HEAD_MAX)
				  : 0;
		if (b < 0 || in < 0) {
			finish(c, "the client is gone");
			return;
		}
		if (a < 0 || rin < 0) {
			/* The rest of an answer may have come before the end; without one it is an error. */
			c->up.eof = true;
			fifo_done(&c->out);
			moved = 1;
		}
		moved |= a > 0 || b > 0 || in > 0 || rin > 0;
		/* A head and its body go together. */
		for (int k = 0; k < STEPS && !c->dead && step_request(c); k++)
			moved = 1;
		for (int k = 0; k < STEPS && !c->dead && step_answer(c); k++)
			moved = 1;
		if (!c->dead)
			settle(c);
	}
	tell_bytes(c);
	/* After what the two ends wait for. */
	tls_flush(t);
	if (!c->dead && rounds >= ROUNDS)
		pf_loop_timer(&c->t->loop, &c->again, pf_now_us());
}

static void note(struct end *e, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		e->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		e->writable = true;
}

#define container(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static void on_client(struct pf_src *src, uint32_t events)
{
	struct conn *c = container(src, struct conn, client.src);

	note(&c->client, events);
	/* A client that has hung up while it is answered does not read the answer: over TLS nobody closes
	 * just one half. */
	if ((events & (EPOLLHUP | EPOLLERR)) || ((events & EPOLLRDHUP) && c->client.ssl &&
							c->state == REQ_DONE && !c->tunnel && !c->closing)) {
		finish(c, "the client hung up");
		return;
	}
	drive(c);
}

static void on_up(struct pf_src *src, uint32_t events)
{
	struct conn *c = container(src, struct conn, up.src);

	note(&c->up, events);
	drive(c);
}

static void on_again(struct pf_timer *t)
{
	drive(container(t, struct conn, again));
}

static void on_timer(struct pf_timer *t)
{
	struct conn *c = container(t, struct conn, timer);

	finish(c, c->closing ? NULL : "too slow");
}

/* ---- coming and going */

static int watch(struct conn *c, struct end *e)
{
	return pf_loop_add(&c->t->loop, &e->src, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

static const char *set_up(struct conn *c, bool tls, const char *first, size_t first_len)
{
	if (!tls)
		fifo_add(&c->in, first, first_len);
	else if (end_accept(&c->client, c->t->server, first, first_len) < 0 ||
		 tls_ca_leaf(c->client.ssl, c->name) < 0)
		return "no certificate for the client";
	c->client_ready = !tls;
	c->secure = tls && c->up.src.fd >= 0;
	if (c->up.src.fd >= 0 && tls) {
		SSL_CTX *ctx = tls_upstream(c->t);
		if (!ctx || end_connect(&c->up, ctx, c->name, c->port) < 0)
			return "no way to verify the server";
	}
	c->up_ready = c->up.src.fd >= 0 && !tls;
	if (watch(c, &c->client) < 0 || (c->up.src.fd >= 0 && watch(c, &c->up) < 0))
		return "epoll";
	return NULL;
}

void conn_open(struct tls *t, const cJSON *msg, const char *first, size_t first_len, int client, int up)
{
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "name"));
	const char *deny = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "deny"));
	const cJSON *id = cJSON_GetObjectItemCaseSensitive(msg, "id");
	const cJSON *port = cJSON_GetObjectItemCaseSensitive(msg, "port");
	struct conn *c = pf_calloc(1, sizeof(*c));

	c->t = t;
	c->id = id ? (int64_t)id->valuedouble : 0;
	c->port = port ? (uint16_t)port->valueint : 0;
	snprintf(c->name, sizeof(c->name), "%s", name ? name : "");
	c->deny = deny ? pf_strdup(deny) : up < 0 ? pf_strdup("not_listed") : NULL;
	c->client = (struct end){.src = {.fd = client, .fn = on_client}, .readable = true, .writable = true};
	c->up = (struct end){.src = {.fd = up, .fn = on_up}, .readable = true, .writable = true};
	c->timer.fn = on_timer;
	c->again.fn = on_again;
	c->next = t->conns;
	c->prev = &t->conns;
	if (c->next)
		c->next->prev = &c->next;
	t->conns = c;
	const char *wrong =
		set_up(c, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(msg, "tls")), first, first_len);
	if (wrong) {
		finish(c, wrong);
		return;
	}
	pf_loop_timer(&t->loop, &c->timer, pf_now_us() + HANDSHAKE_US);
	drive(c);
}

void conn_drop(struct tls *t, int64_t id)
{
	for (struct conn *c = t->conns; c; c = c->next)
		if (c->id == id) {
			finish(c, "policy");
			return;
		}
}
