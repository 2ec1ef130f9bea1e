#include "netpolicy/loop.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/proc.h"

#define BATCH 64
#define BATCHES_PER_RUN 4
#define BUSY_MAX 64

int pf_loop_init(struct pf_loop *l, struct pf_err *err)
{
	*l = (struct pf_loop){.epfd = epoll_create1(EPOLL_CLOEXEC)};
	return l->epfd < 0 ? pf_fail(err, errno, "epoll_create1") : 0;
}

static void take_out_garbage(struct pf_loop *l)
{
	for (size_t i = 0; i < l->n_garbage; i++)
		free(l->garbage[i]);
	l->n_garbage = 0;
}

void pf_loop_done(struct pf_loop *l)
{
	take_out_garbage(l);
	free(l->garbage);
	free(l->heap);
	if (l->epfd >= 0)
		close(l->epfd);
	*l = (struct pf_loop){.epfd = -1};
}

int pf_loop_add(struct pf_loop *l, struct pf_src *src, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = src};
	return epoll_ctl(l->epfd, EPOLL_CTL_ADD, src->fd, &ev);
}

int pf_loop_mod(struct pf_loop *l, struct pf_src *src, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = src};
	return epoll_ctl(l->epfd, EPOLL_CTL_MOD, src->fd, &ev);
}

void pf_loop_close(struct pf_loop *l, struct pf_src *src)
{
	if (src->fd < 0)
		return;
	/* Explicitly, because a copy of the descriptor in a forked child would keep the watch alive. */
	(void)epoll_ctl(l->epfd, EPOLL_CTL_DEL, src->fd, NULL);
	close(src->fd);
	src->fd = -1;
}

/* Grow an array of pointers by one. Out of memory aborts: a keeper that cannot keep its books must end, and
 * its sandbox is then closed. */
static void *grow(void *array, size_t n, size_t *cap)
{
	if (n < *cap)
		return array;
	*cap = *cap ? *cap * 2 : 32;
	void *more = reallocarray(array, *cap, sizeof(void *));
	if (!more)
		abort();
	return more;
}

void pf_loop_free(struct pf_loop *l, void *p)
{
	l->garbage = grow(l->garbage, l->n_garbage, &l->cap_garbage);
	l->garbage[l->n_garbage++] = p;
}

static void place(struct pf_loop *l, struct pf_timer *t, size_t i)
{
	l->heap[i] = t;
	t->pos = i + 1;
}

static void sift_up(struct pf_loop *l, struct pf_timer *t, size_t i)
{
	for (; i && l->heap[(i - 1) / 2]->at > t->at; i = (i - 1) / 2)
		place(l, l->heap[(i - 1) / 2], i);
	place(l, t, i);
}

static void sift_down(struct pf_loop *l, struct pf_timer *t, size_t i)
{
	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= l->n_timers)
			break;
		if (child + 1 < l->n_timers && l->heap[child + 1]->at < l->heap[child]->at)
			child++;
		if (l->heap[child]->at >= t->at)
			break;
		place(l, l->heap[child], i);
		i = child;
	}
	place(l, t, i);
}

void pf_loop_timer(struct pf_loop *l, struct pf_timer *t, int64_t at)
{
	pf_loop_cancel(l, t);
	l->heap = grow(l->heap, l->n_timers, &l->cap_timers);
	t->at = at;
	sift_up(l, t, l->n_timers++);
}

void pf_loop_cancel(struct pf_loop *l, struct pf_timer *t)
{
	if (!t->pos)
		return;
	size_t i = t->pos - 1;
	struct pf_timer *last = l->heap[--l->n_timers];
	t->pos = 0;
	if (last == t)
		return;
	if (i && l->heap[(i - 1) / 2]->at > last->at)
		sift_up(l, last, i);
	else
		sift_down(l, last, i);
}

int pf_loop_timeout_ms(const struct pf_loop *l)
{
	if (!l->n_timers)
		return -1;
	int64_t us = l->heap[0]->at - pf_now_us();
	if (us <= 0)
		return 0;
	us = (us + 999) / 1000;
	return us > INT_MAX ? INT_MAX : (int)us;
}

void pf_loop_wait(struct pf_loop *l)
{
	struct pollfd p = {.fd = l->epfd, .events = POLLIN};

	(void)poll(&p, 1, pf_loop_timeout_ms(l));
}

/* One batch of events. Returns how many there were. */
static int serve(struct pf_loop *l, int timeout_ms)
{
	struct epoll_event ev[BATCH];
	int n = epoll_wait(l->epfd, ev, BATCH, timeout_ms);

	l->round++;
	for (int i = 0; i < n; i++) {
		struct pf_src *src = ev[i].data.ptr;
		if (src->fd >= 0)
			src->fn(src, ev[i].events);
	}
	take_out_garbage(l);
	return n;
}

/* What a timer arms for "now" runs in the next round, so that nobody keeps the loop to himself. */
static void run_timers(struct pf_loop *l)
{
	int64_t now = l->n_timers ? pf_now_us() : 0;

	while (l->n_timers && l->heap[0]->at <= now) {
		struct pf_timer *t = l->heap[0];
		pf_loop_cancel(l, t);
		t->fn(t);
	}
	take_out_garbage(l);
}

void pf_loop_step(struct pf_loop *l, void (*idle)(void *arg), void *arg)
{
	bool served = l->busy && serve(l, 0) > 0;

	if (l->busy && (!served || l->busy >= BUSY_MAX)) {
		idle(arg);
		l->busy = 0;
	}
	if (!served)
		served = serve(l, pf_loop_timeout_ms(l)) > 0;
	l->busy += served;
	run_timers(l);
}

void pf_loop_run(struct pf_loop *l)
{
	for (int batch = 0; batch < BATCHES_PER_RUN && serve(l, 0) == BATCH; batch++)
		;
	run_timers(l);
}
