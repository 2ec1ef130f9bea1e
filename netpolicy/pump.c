/* Theory of operation.
 *
 * A few bytes are read and sent on, which for a few is cheaper than anything else. Who sends more than one
 * such buffer at a time gets a pipe, and its bytes go from socket to pipe to socket by splice(2) and are
 * never copied to user space. A direction borrows a pipe only while bytes are in it, so an idle connection
 * costs two descriptors and no buffer; where there is none to borrow (room.c), bytes go on by copying. What a
 * connection can hold is bounded by one chunk or one buffer each way. When the
 * destination takes no more, nothing is read from the source: back-pressure reaches the sender through its
 * own socket. The end of one direction is passed on (shutdown) after its last byte and leaves the other
 * alone.
 *
 * Events are edge-triggered; readable and writable remember what they said until EAGAIN takes it back, or a
 * read of less than there was room for. A connection that is still going after its share of work continues
 * from a timer, after everybody else. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/relay_priv.h"

#define FEW ((size_t)16 << 10)
#define CHUNK ((size_t)256 << 10)
#define ROUNDS 16

static bool borrow(struct pf_gate *g, struct pf_flow *f)
{
	if (f->pipe[0] >= 0)
		return true;
	if (g->n_spare_pipes) {
		memcpy(f->pipe, g->spare_pipes[--g->n_spare_pipes], sizeof(f->pipe));
		return true;
	}
	if (!pf_room_borrow(g, 2))
		return false;
	if (pipe2(f->pipe, O_CLOEXEC | O_NONBLOCK) == 0) {
		/* With room for a whole chunk a third less time goes into moving it; who may have no more
		 * pages goes on with what there is. */
		(void)fcntl(f->pipe[0], F_SETPIPE_SZ, (int)CHUNK);
		return true;
	}
	f->pipe[0] = f->pipe[1] = -1;
	pf_room_return(g, 2);
	return false;
}

static void close_pipe(struct pf_gate *g, const int pipe[2])
{
	close(pipe[0]);
	close(pipe[1]);
	pf_room_return(g, 2);
}

/* A pipe with bytes in it is closed, never passed on. */
void pf_pump_release(struct pf_gate *g, struct pf_flow *f)
{
	free(f->held);
	f->held = NULL;
	if (f->pipe[0] < 0)
		return;
	if (f->in_pipe == 0 && g->n_spare_pipes < PF_GATE_SPARE_PIPES)
		memcpy(g->spare_pipes[g->n_spare_pipes++], f->pipe, sizeof(f->pipe));
	else
		close_pipe(g, f->pipe);
	f->pipe[0] = f->pipe[1] = -1;
	f->in_pipe = 0;
}

void pf_pump_drop_spares(struct pf_gate *g)
{
	while (g->n_spare_pipes)
		close_pipe(g, g->spare_pipes[--g->n_spare_pipes]);
}

/* Of step, when the rule has had all its bytes: the end may still be passed on, and nothing else. */
static int end_only(struct pf_flow *f, struct pf_end *from)
{
	char byte;
	ssize_t n = recv(from->src.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n > 0)
		errno = EDQUOT;
	if (n == 0)
		f->eof = true;
	if (n < 0 && errno == EAGAIN)
		from->readable = false;
	return n == 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)) ? 1 : -1;
}

/* Of step: what a send or splice to this end has come to. */
static int sent(struct pf_flow *f, struct pf_end *to, ssize_t n)
{
	if (n > 0) {
		f->bytes += (uint64_t)n;
		return 1;
	}
	if (n < 0 && errno == EAGAIN) {
		to->writable = false;
		return 0;
	}
	if (n == 0)
		errno = EIO;
	return n < 0 && errno == EINTR ? 1 : -1;
}

static int send_held(struct pf_flow *f, struct pf_end *to)
{
	ssize_t n =
		send(to->src.fd, f->held + f->held_at, f->held_len - f->held_at, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n > 0 && (f->held_at += (uint32_t)n) == f->held_len) {
		free(f->held);
		f->held = NULL;
	}
	return sent(f, to, n);
}

/* Read and send on at most so many. Only what the destination does not take is kept. */
static int copy(struct pf_conn *c, struct pf_flow *f, struct pf_end *from, struct pf_end *to, size_t max)
{
	uint8_t buf[FEW];
	size_t want = max < sizeof(buf) ? max : sizeof(buf);
	ssize_t n = recv(from->src.fd, buf, want, MSG_DONTWAIT);

	if (n == 0)
		f->eof = true;
	if (n < 0 && errno == EAGAIN)
		from->readable = false;
	if (n <= 0)
		return n == 0 || errno == EAGAIN || errno == EINTR ? 1 : -1;
	/* Less than there was room for: it was all, and what comes is an event of its own; unless that has
	 * been told already. */
	if ((size_t)n < want && !from->unsure)
		from->readable = false;
	f->bulk = n == FEW;
	pf_meter_take(c->gate, c->rule, (uint64_t)n);
	ssize_t k = send(to->src.fd, buf, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	size_t gone = k > 0 ? (size_t)k : 0;
	if (gone < (size_t)n && (k >= 0 || errno == EAGAIN || errno == EINTR)) {
		int saved = errno;
		f->held_len = (uint32_t)((size_t)n - gone);
		f->held_at = 0;
		f->held = pf_calloc(1, f->held_len);
		memcpy(f->held, buf + gone, f->held_len);
		errno = saved;
	}
	return sent(f, to, k);
}

/* 1: there may be more to do, 0: nothing now, -1: the connection failed (errno; EDQUOT: it has had its
 * bytes).
 */
static int step(struct pf_conn *c, struct pf_flow *f, struct pf_end *from, struct pf_end *to)
{
	struct pf_gate *g = c->gate;
	ssize_t n;

	if (f->in_pipe) {
		if (!to->writable)
			return 0;
		n = splice(f->pipe[0], NULL, to->src.fd, NULL, f->in_pipe, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		if (n > 0)
			f->in_pipe -= (size_t)n;
		return sent(f, to, n);
	}
	if (f->held)
		return to->writable ? send_held(f, to) : 0;
	if (f->eof) {
		pf_pump_release(g, f);
		if (f->shut)
			return 0;
		f->shut = true;
		/* When both have ended, their sockets are closed, which says it too. */
		if (c->out.shut && c->in.shut)
			return 0;
		return shutdown(to->src.fd, SHUT_WR) < 0 && errno != ENOTCONN ? -1 : 0;
	}
	if (!from->readable) {
		pf_pump_release(g, f);
		return 0;
	}
	size_t left = pf_meter_left(g, c->rule);
	if (left == 0)
		return end_only(f, from);
	if (!f->bulk || !borrow(g, f))
		return to->writable ? copy(c, f, from, to, left) : 0;
	n = splice(from->src.fd, NULL, f->pipe[1], NULL, left < CHUNK ? left : CHUNK,
		SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n > 0) {
		pf_meter_take(g, c->rule, (uint64_t)n);
		f->in_pipe = (size_t)n;
		f->bulk = (size_t)n >= FEW / 4;
		return 1;
	}
	/* Nothing more, or nothing before an urgent byte, which no splice takes or passes: reading tells. */
	if (n == 0 || (errno == EAGAIN && from->unsure)) {
		f->bulk = false;
		return 1;
	}
	if (errno == EAGAIN)
		from->readable = false;
	return errno == EAGAIN || errno == EINTR ? 1 : -1;
}

void pf_pump(struct pf_conn *c)
{
	struct pf_gate *g = c->gate;
	/* The first bytes go before all others, and requests one by one. */
	int out = c->judged && !c->head && !c->web, in = 1;

	for (int round = 0; round < 2 * ROUNDS && (out > 0 || in > 0); round++) {
		if (out > 0)
			out = step(c, &c->out, &c->client, &c->up);
		if (out < 0)
			break;
		if (in > 0)
			in = step(c, &c->in, &c->up, &c->client);
		if (in < 0)
			break;
	}
	if ((out < 0 || in < 0) && errno == EDQUOT) {
		pf_conn_abort(c, "deny", "rate", "max_bytes_per_hour");
		return;
	}
	if (out < 0 || in < 0) {
		pf_conn_abort(c, "error", "reset", strerror(errno));
		return;
	}
	if (c->out.shut && c->in.shut) {
		pf_conn_finish(c);
		return;
	}
	if (out > 0 || in > 0)
		pf_loop_timer(&g->loop, &c->pump, pf_now_us());
}
