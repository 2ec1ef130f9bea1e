/* One work item, from its first heartbeat to its stop. */
#ifndef PF_WORKER_RUNNER_H
#define PF_WORKER_RUNNER_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/box.h"
#include "worker/work.h"

struct pf_runner_opts {
	struct pf_box_opts box;
	const char *base_url, *agent; /* agent: the User-Agent */
	const char *environment_id;
	const char *key; /* the environment key, for items without a token; NULL: none */
	int64_t max_idle_ms;
	/* The words of a worker's command, NULL-terminated: that one, in the sandbox, does the work. NULL: we
	 * do it from outside. */
	const char *const *command;
	bool log_json;      /* how the gateway's process logs */
	const char *inputs; /* the directory of what sessions ask for in their metadata; NULL */
	int64_t grace_ms;   /* for that worker, from SIGTERM until it is killed */
	int64_t hang_ms; /* without a heartbeat of its own for that long, and three lengths of the lease, it
			  * is taken for hung; 0: never */
};

/* Works at the item until its session is idle for max_idle_ms or over, the item is to be stopped, its lease
 * is lost or SIGTERM, SIGINT or SIGHUP comes (which the caller has blocked). Returns 0 when it ended in
 * order; -1 when not, with *err. The sandbox is gone afterwards; its files are in a checkpoint, or still
 * there if that could not be made or was not ours to make. *exit_code is for our own end: that of the worker
 * inside, else 0 or 1. *spoilt: the session did not even begin here, which is likely to happen to the next
 * one, too. */
int pf_runner_run(const struct pf_runner_opts *o, const struct pf_work *w, int *exit_code, bool *spoilt,
	struct pf_err *err);

#endif
