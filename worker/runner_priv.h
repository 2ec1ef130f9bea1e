/* What the parts of a runner share. */
#ifndef PF_WORKER_RUNNER_PRIV_H
#define PF_WORKER_RUNNER_PRIV_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/box.h"
#include "worker/http.h"
#include "worker/lease.h"
#include "worker/ledger.h"
#include "worker/memory.h"
#include "worker/runner.h"
#include "worker/skills.h"
#include "worker/stream.h"

/* Why a session's work ends; GOING_ON: it does not yet. */
enum end { GOING_ON, IDLE, TERMINATED, DELETED, STOPPING, LOST, SIGNALLED, FAILED };

struct run {
	const struct pf_runner_opts *o;
	const struct pf_work *w;
	const char *bearer, *env;
	struct pf_http *http; /* cut short when the lease is lost or the item is to be stopped */
	struct pf_lease *lease;
	struct pf_stream *stream;
	struct pf_ledger ledger;
	struct pf_tool tool;
	cJSON *session; /* as it was when the item was taken */
	struct pf_skills skills;
	char **leave_out;         /* paths of theirs that no checkpoint is to have */
	struct pf_memory *memory; /* NULL: none, or the worker inside has it */
	int wake, signals, lock;
	bool signalled, made, ending; /* ending: what is left to do is what has to be done at the end */
	bool suspect;                 /* the helper died: perhaps the sandbox has, too */
	int64_t signalled_us;
	int64_t history_us; /* when to read the list of events; 0: it is known */
	char *refused;      /* why the stream was refused for good */
};

/* What has happened to us meanwhile. */
enum end pf_run_look(struct run *r);
/* Wait for something to happen, or for fd (-1: none) to be ready, or ms (-1: for ever). */
void pf_run_wait(struct run *r, int fd, short events, int64_t ms);

/* inside.c: the worker in the sandbox, from its start to its end. *exit_code is its own. */
enum end pf_run_inside(struct run *r, int *exit_code, struct pf_err *err);

#endif
