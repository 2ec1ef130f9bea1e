/* What the worker's program is made of: options and one item (main.c), the poller (poller.c). */
#ifndef PF_CMD_WORKER_H
#define PF_CMD_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/runner.h"

/* Tells a session's process the descriptor on which its key and item come. */
#define ITEM_FD_ENV "PINFOLD_WORKER_ITEM_FD"
/* And on which the memory for metrics; a session whose sandbox and checkpoints are to be removed. */
#define METRICS_FD_ENV "PINFOLD_WORKER_METRICS_FD"
#define FORGET_ENV "PINFOLD_WORKER_FORGET"
/* How a session's process ends when the session did not even begin. */
#define EXIT_SPOILT 3
#define AGENT "pinfold-worker/" PF_VERSION
#define SESSIONS_MAX 1000

struct pf_worker_opts {
	struct pf_runner_opts run;
	const char *worker_id;
	int64_t max_sessions;
	bool drain, json, on_work;
	char *key;
	const char *listen, *hook_keys_file; /* NULL: no */
	char *hook_keys;                     /* the keys themselves, from the environment */
	int64_t poll_every_ms;               /* 0: as often as the contract has it */
};

/* Polls until it is told to end, or, with drain, until there is no work; then ends the sessions. argv is what
 * their processes are started with, too. Returns the exit code. */
int pf_poll_loop(struct pf_worker_opts *o, char **argv);

#endif
