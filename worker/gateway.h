/* The control plane as a worker inside of a sandbox sees it. */
#ifndef PF_WORKER_GATEWAY_H
#define PF_WORKER_GATEWAY_H

#include <cjson/cJSON.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "worker/lease.h"

/* What the gateway knows of the lease; others set it. */
struct pf_gateway_lease {
	atomic_int state; /* enum pf_lease_state */
	atomic_llong ttl_ms;
};

/* Strings and documents belong to the caller and live longer than the gateway. */
struct pf_gateway_opts {
	const char *base_url, *agent;
	const char *placeholder; /* what the sandbox shows in place of a credential */
	const char *bearer;      /* for the session: its token, else the environment key */
	const char *token;       /* for memory stores, which know no key; NULL: none */
	const char *key;         /* for skills; NULL: the bearer */
	const char *env, *work_id, *session_id;
	const cJSON *session; /* its skills and memory stores are within reach */
	struct pf_gateway_lease *lease;
	int wake_fd; /* an eventfd, written to when the worker inside has beaten its heart, or said that it is
			done */
};

struct pf_gateway;

/* A socket that listens on 127.0.0.1 of the network that process pid, which was started at start (clock ticks
 * since boot), is in. Returns it; *port is its port. */
int pf_gateway_listen(pid_t pid, uint64_t start, uint16_t *port, struct pf_err *err);

/* Serve those who connect to fd, which is taken in any case. */
struct pf_gateway *pf_gateway_start(const struct pf_gateway_opts *o, int fd, struct pf_err *err);
/* Whether the worker inside has stopped its item. */
bool pf_gateway_done(struct pf_gateway *g);
/* When it beat last, on the monotonic clock; 0: never. */
int64_t pf_gateway_beat_us(struct pf_gateway *g);
/* Ends all connections and frees it. */
void pf_gateway_stop(struct pf_gateway *g);

/* ---- a process of its own (gatewayd.c), since it reads what a sandbox sends: it has one socket to us, the
 * one that listens, what it needs to know, and a user that owns nothing. */

struct pf_gatewayd {
	pid_t pid; /* 0: none */
	int sock;
};
#define PF_GATEWAYD_INIT ((struct pf_gatewayd){.sock = -1})
/* The variable by which this program knows that it is to be one. */
#define PF_GATEWAYD_ENV "PINFOLD_WORKER_GATEWAY_FD"

/* Start it, as uid; lease and wake_fd of o are not used, listening stays the caller's. Returns when it
 * serves. */
int pf_gatewayd_start(struct pf_gatewayd *d, const struct pf_gateway_opts *o, int listening, uid_t uid,
	const char *log_session, bool log_json, struct pf_err *err);
/* Tell it of the lease. */
void pf_gatewayd_tell(struct pf_gatewayd *d, enum pf_lease_state state, int64_t ttl_ms);
/* What it has told: *beat is set when the worker inside has beaten, *done when it has stopped its item.
 * false: it is gone. */
bool pf_gatewayd_hear(struct pf_gatewayd *d, bool *beat, bool *done);
void pf_gatewayd_stop(struct pf_gatewayd *d);
/* Be it: what main does in the process. Returns the exit code. */
int pf_gatewayd_main(int sock);

#endif
