/* Theory of operation: the lease.
 *
 * A beat names the previous answer's time stamp, byte for byte; if another worker has beaten since, the
 * control plane answers 412 and the item is its. The same holds when no beat got through for as long as a
 * lease lasts: the control plane may have given the item away by then. A lease that is lost is never had
 * back. */

#include "worker/lease.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/proc.h"
#include "base/str.h"
#include "worker/api.h"

#define TTL_UNTOLD_MS 90000
#define PERIOD_MAX_MS 30000
#define PERIOD_MIN_MS 1000

struct pf_lease {
	struct pf_http *http, *breaks;
	char *bearer, *env, *work_id, *last;
	int wake_fd;
	pthread_t thread;
	bool threaded;
	pthread_mutex_t lock;
	enum pf_lease_state state; /* under the lock, as what follows */
	int64_t ttl_ms;
	int64_t ok_us; /* the last beat that was taken; before the first: the start */
};

static int64_t period_ms(int64_t ttl_ms)
{
	int64_t p = ttl_ms ? ttl_ms / 2 : PERIOD_MAX_MS;

	return p < PERIOD_MIN_MS ? PERIOD_MIN_MS : p > PERIOD_MAX_MS ? PERIOD_MAX_MS : p;
}

static void set_state(struct pf_lease *l, enum pf_lease_state state)
{
	uint64_t one = 1;

	pthread_mutex_lock(&l->lock);
	l->state = state;
	pthread_mutex_unlock(&l->lock);
	if (l->breaks)
		pf_http_cancel(l->breaks);
	(void)!write(l->wake_fd, &one, sizeof(one));
}

static bool overdue(const struct pf_lease *l)
{
	return pf_now_us() - l->ok_us > (l->ttl_ms ? l->ttl_ms : TTL_UNTOLD_MS) * 1000;
}

/* Returns false when there is nothing more to beat for. */
static bool beat(struct pf_lease *l)
{
	struct pf_err err = PF_ERR_INIT;
	enum pf_beat seen = PF_BEAT_OK;
	int64_t ttl = l->ttl_ms, before = pf_now_us();

	if (pf_api_heartbeat(l->http, l->env, l->bearer, l->work_id, &l->last, period_ms(ttl), &ttl, &seen,
		    &err) < 0) {
		if (err.errnum == ECANCELED)
			return false;
		if (!overdue(l))
			return true;
		set_state(l, PF_LEASE_LOST);
		return false;
	}
	/* The lease runs from when the beat was taken, which was not before it was sent. */
	pthread_mutex_lock(&l->lock);
	if (seen != PF_BEAT_LOST)
		l->ok_us = before;
	l->ttl_ms = ttl;
	pthread_mutex_unlock(&l->lock);
	if (seen == PF_BEAT_OK)
		return true;
	set_state(l, seen == PF_BEAT_LOST ? PF_LEASE_LOST : PF_LEASE_STOPPING);
	/* While the item is being stopped, beats are not compared, and what ends here may take its time. */
	return seen == PF_BEAT_STOPPING;
}

static void *run(void *arg)
{
	struct pf_lease *l = arg;

	while (pf_http_sleep(l->http, period_ms(l->ttl_ms)) && beat(l))
		;
	return NULL;
}

struct pf_lease *pf_lease_start(const char *base_url, const char *agent, const char *bearer, const char *env,
	const char *work_id, int wake_fd, struct pf_http *breaks, struct pf_err *err)
{
	struct pf_lease *l = pf_calloc(1, sizeof(*l));
	sigset_t all, old;

	pthread_mutex_init(&l->lock, NULL);
	l->bearer = pf_strdup(bearer);
	l->env = pf_strdup(env);
	l->work_id = pf_strdup(work_id);
	l->wake_fd = wake_fd;
	l->breaks = breaks;
	l->ok_us = pf_now_us();
	l->http = pf_http_new(base_url, agent, err);
	if (!l->http) {
		pf_lease_stop(l);
		return NULL;
	}
	if (!beat(l))
		return l;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	int e = pthread_create(&l->thread, NULL, run, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e) {
		pf_fail(err, e, "start a thread");
		pf_lease_stop(l);
		return NULL;
	}
	l->threaded = true;
	return l;
}

enum pf_lease_state pf_lease_state(struct pf_lease *l)
{
	pthread_mutex_lock(&l->lock);
	enum pf_lease_state s = l->state;
	pthread_mutex_unlock(&l->lock);
	return s;
}

bool pf_lease_sure(struct pf_lease *l)
{
	pthread_mutex_lock(&l->lock);
	bool sure = l->state == PF_LEASE_STOPPING || (l->state != PF_LEASE_LOST && !overdue(l));
	pthread_mutex_unlock(&l->lock);
	return sure;
}

int64_t pf_lease_ttl_ms(struct pf_lease *l)
{
	pthread_mutex_lock(&l->lock);
	int64_t ttl = l->ttl_ms;
	pthread_mutex_unlock(&l->lock);
	return ttl;
}

void pf_lease_stop(struct pf_lease *l)
{
	if (!l)
		return;
	if (l->threaded) {
		pf_http_cancel(l->http);
		pthread_join(l->thread, NULL);
	}
	pf_http_free(l->http);
	explicit_bzero(l->bearer, strlen(l->bearer));
	free(l->bearer);
	free(l->env);
	free(l->work_id);
	free(l->last);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
