/* Theory of operation: the network of a jail without one.
 *
 * A namespace in which nobody listens and from which no packet has a way out. The kernel takes longer to make
 * it than we take for everything else before the box, so a thread makes it, from as soon as it is sure to be
 * wanted. Then this process goes there itself and stays: nobody who is root of a user namespace only comes
 * back, we need no network any more, and the box is born in it without somebody in between. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "jail/run.h"
#include "netpolicy/netns.h"

struct pf_lone_net {
	pthread_t thread;
	bool running;
	int fd;
	struct pf_err err;
};

static void *make(void *arg)
{
	struct pf_lone_net *l = arg;
	struct pf_netns_visit visit;
	bool v6;

	l->fd = pf_netns_make(&visit, false, &v6, &l->err);
	if (l->fd >= 0)
		close(visit.home);
	return NULL;
}

int pf_jail_lone_net_begin(struct pf_jail *j, struct pf_err *err)
{
	sigset_t all, old;

	if (j->lone)
		return 0;
	j->lone = pf_calloc(1, sizeof(*j->lone));
	j->lone->fd = -1;
	/* One heap for both: to make a second one takes longer than all that is asked of it. */
	(void)mallopt(M_ARENA_MAX, 1);
	/* Signals are the first thread's to take. */
	sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, &old);
	int e = pthread_create(&j->lone->thread, NULL, make, j->lone);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e != 0)
		return pf_fail(err, e, "thread for the network namespace");
	j->lone->running = true;
	return 0;
}

static void wait_for(struct pf_lone_net *l)
{
	if (l->running)
		(void)pthread_join(l->thread, NULL);
	l->running = false;
}

int pf_jail_lone_net_enter(struct pf_jail *j, struct pf_err *err)
{
	wait_for(j->lone);
	if (j->lone->fd < 0) {
		*err = j->lone->err;
		return -1;
	}
	return setns(j->lone->fd, CLONE_NEWNET) < 0 ? pf_fail(err, errno, "enter the network namespace") : 0;
}

void pf_jail_lone_net_done(struct pf_jail *j)
{
	if (!j->lone)
		return;
	wait_for(j->lone);
	if (j->lone->fd >= 0)
		close(j->lone->fd);
	free(j->lone);
	j->lone = NULL;
}
