/* The worker's own HTTP server: POST /webhook, GET /healthz, /readyz, /metrics. */
#ifndef PF_WORKER_SERVE_H
#define PF_WORKER_SERVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* What the poller says of itself; the server's thread reads it. */
struct pf_serve_state {
	_Atomic int64_t sessions, max_sessions;
	_Atomic int64_t polled_us; /* the last poll that was answered (pf_now_us); 0: none yet */
	atomic_bool draining;
};

struct pf_serve_opts {
	const char *address;   /* HOST:PORT, numeric; the host may be missing (all) */
	const char *keys_file; /* webhook keys, read again for each webhook; or NULL */
	const char *keys;      /* the keys themselves; NULL with keys_file. Neither: no webhooks */
	const struct pf_serve_state *state;
	int64_t ready_ms; /* ready while the last answered poll is no older than that */
	int wake_fd;      /* an eventfd, written to when a webhook says something */
};

struct pf_serve;
/* Listens and serves from a thread of its own. Strings must outlive it. */
struct pf_serve *pf_serve_start(const struct pf_serve_opts *o, struct pf_err *err);
/* host:port that it listens on, for the log. */
const char *pf_serve_address(const struct pf_serve *s);
/* Whether a webhook has said since the last time that there may be work. */
bool pf_serve_work(struct pf_serve *s);
/* The id of a session that was deleted, malloc'ed; NULL: none more. */
char *pf_serve_deleted(struct pf_serve *s);
void pf_serve_stop(struct pf_serve *s);

#endif
