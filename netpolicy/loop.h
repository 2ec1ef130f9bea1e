/* The gate's event loop: one epoll descriptor that a caller's own poll loop can hold, and timers. */
#ifndef PF_NETPOLICY_LOOP_H
#define PF_NETPOLICY_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct pf_src {
	int fd; /* -1: not watched */
	void (*fn)(struct pf_src *src, uint32_t events);
};

struct pf_timer {
	int64_t at; /* pf_now_us */
	size_t pos; /* place in the heap + 1; 0: not armed */
	void (*fn)(struct pf_timer *t);
};

struct pf_loop {
	int epfd;
	struct pf_timer **heap;
	size_t n_timers, cap_timers;
	void **garbage;
	size_t n_garbage, cap_garbage;
	unsigned int busy; /* rounds since the last wait */
	uint64_t round;    /* number of the batch of events that is being served */
};

int pf_loop_init(struct pf_loop *l, struct pf_err *err);
void pf_loop_done(struct pf_loop *l);

/* Watch src->fd. events as for epoll. -1 with errno. */
int pf_loop_add(struct pf_loop *l, struct pf_src *src, uint32_t events);
/* Change the events, or hand the watch of the same descriptor over from another source. */
int pf_loop_mod(struct pf_loop *l, struct pf_src *src, uint32_t events);
/* Stop watching and close. Events of src that were already fetched are not delivered. */
void pf_loop_close(struct pf_loop *l, struct pf_src *src);
/* Free when no fetched event can point to p any more. */
void pf_loop_free(struct pf_loop *l, void *p);

/* Arm or move; t->fn is called once, at or after at. */
void pf_loop_timer(struct pf_loop *l, struct pf_timer *t, int64_t at);
void pf_loop_cancel(struct pf_loop *l, struct pf_timer *t);

/* Milliseconds to the next timer, rounded up; -1: none. */
int pf_loop_timeout_ms(const struct pf_loop *l);
/* Wait until there is something to serve, for a program that has no other loop. */
void pf_loop_wait(struct pf_loop *l);
/* Wait until there is something to serve, and serve it: one round. idle is called before the wait, and after
 * many rounds without one. */
void pf_loop_step(struct pf_loop *l, void (*idle)(void *arg), void *arg);
/* Serve what is ready; never blocks, and returns after a bounded amount of work. */
void pf_loop_run(struct pf_loop *l);

#endif
