/* Theory of operation.
 *
 * Bytes go from socket to pipe to socket by splice(2) and are never copied to user space. A direction borrows
 * a pipe only while bytes are in it, so an idle connection costs two descriptors and no buffer, and what a
 * connection can hold is bounded by one pipe (16 pages or page fragments) each way. When the destination
 * takes no more, nothing is read from the source: back-pressure reaches the sender through its own socket.
 * The end of one direction is passed on (shutdown) after its last byte and leaves the other alone.
 *
 * Events are edge-triggered; readable and writable remember what they said until EAGAIN takes it back. A
 * connection that is still going after its share of work continues from a timer, after everybody else. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/proc.h"
#include "netpolicy/relay_priv.h"

#define CHUNK ((size_t)256 << 10)
#define ROUNDS 16

static int borrow(struct pf_gate *g, struct pf_flow *f)
{
	if (g->n_spare_pipes) {
		memcpy(f->pipe, g->spare_pipes[--g->n_spare_pipes], sizeof(f->pipe));
		return 0;
	}
	if (pipe2(f->pipe, O_CLOEXEC | O_NONBLOCK) == 0)
		return 0;
	f->pipe[0] = f->pipe[1] = -1;
	return -1;
}

/* A pipe with bytes in it is closed, never passed on. */
void pf_pump_release(struct pf_gate *g, struct pf_flow *f)
{
	if (f->pipe[0] < 0)
		return;
	if (f->in_pipe == 0 && g->n_spare_pipes < PF_GATE_SPARE_PIPES) {
		memcpy(g->spare_pipes[g->n_spare_pipes++], f->pipe, sizeof(f->pipe));
	} else {
		close(f->pipe[0]);
		close(f->pipe[1]);
	}
	f->pipe[0] = f->pipe[1] = -1;
	f->in_pipe = 0;
}

void pf_pump_drop_spares(struct pf_gate *g)
{
	while (g->n_spare_pipes) {
		g->n_spare_pipes--;
		close(g->spare_pipes[g->n_spare_pipes][0]);
		close(g->spare_pipes[g->n_spare_pipes][1]);
	}
}

/* Its rule has had all its bytes: whether there would be more to move, or just the end. */
static bool has_more(struct pf_end *from)
{
	char byte;
	ssize_t n = recv(from->src.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		from->readable = false;
	return n > 0;
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
		if (n > 0) {
			f->in_pipe -= (size_t)n;
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
	if (f->eof) {
		pf_pump_release(g, f);
		if (f->shut)
			return 0;
		f->shut = true;
		return shutdown(to->src.fd, SHUT_WR) < 0 && errno != ENOTCONN ? -1 : 0;
	}
	if (!from->readable) {
		pf_pump_release(g, f);
		return 0;
	}
	size_t left = pf_meter_left(g, c->rule);
	if (left == 0 && has_more(from)) {
		errno = EDQUOT;
		return -1;
	}
	if (f->pipe[0] < 0 && borrow(g, f) < 0)
		return -1;
	/* With none left it is the end that is read, or nothing. */
	n = splice(from->src.fd, NULL, f->pipe[1], NULL, left && left < CHUNK ? left : CHUNK,
		SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n > 0) {
		pf_meter_take(g, c->rule, (uint64_t)n);
		f->in_pipe = (size_t)n;
		return 1;
	}
	if (n == 0) {
		f->eof = true;
		return 1;
	}
	if (errno == EAGAIN) {
		from->readable = false;
		return 1;
	}
	return errno == EINTR ? 1 : -1;
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
