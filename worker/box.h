/* A session's sandbox, through the program pinfold. */
#ifndef PF_WORKER_BOX_H
#define PF_WORKER_BOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* How sandboxes are made here. Strings belong to the caller. */
struct pf_box_opts {
	const char *pinfold; /* the program */
	const char *tool;    /* pinfold-tool, on the host; NULL: not brought into sandboxes */
	const char *root, *store;
	const char *config;      /* the administrator's sandbox file; NULL: the default sandbox */
	const char *credentials; /* for create; NULL */
	const char *state_dir;
	bool rebase;
	int keep; /* checkpoints of one session that are kept; 0: all */
};

/* Take the session for this process, so that no two work at one sandbox. 1: taken, *lock is an fd; 0:
 * somebody has it. */
int pf_box_lock(const struct pf_box_opts *o, const char *id, int *lock, struct pf_err *err);
void pf_box_unlock(const struct pf_box_opts *o, const char *id, int *lock);

/* Make the sandbox, or take the one that is there, or make it from its last checkpoint. *how says which. */
int pf_box_open(const struct pf_box_opts *o, const char *id, const char **how, struct pf_err *err);
/* Take away what earlier runs left for the agent that must not be there when one begins. */
int pf_box_tidy(const struct pf_box_opts *o, const char *id, struct pf_err *err);
/* Whether it runs. */
bool pf_box_runs(const struct pf_box_opts *o, const char *id);
/* Its first process, with when that was started (clock ticks since boot). */
int pf_box_init(const struct pf_box_opts *o, const char *id, pid_t *pid, uint64_t *start, struct pf_err *err);
/* End all its processes. Its files stay, for whoever opens it next. */
int pf_box_kill(const struct pf_box_opts *o, const char *id, struct pf_err *err);
/* A checkpoint; older ones beyond opts.keep are removed. */
int pf_box_snapshot(const struct pf_box_opts *o, const char *id, struct pf_err *err);
int pf_box_destroy(const struct pf_box_opts *o, const char *id, struct pf_err *err);
/* All its checkpoints. */
int pf_box_forget(const struct pf_box_opts *o, const char *id, struct pf_err *err);

/* The tools' helper in the sandbox. */
struct pf_tool {
	pid_t pid; /* 0: not running */
	int in, out;
};
#define PF_TOOL_INIT ((struct pf_tool){.in = -1, .out = -1})
/* A worker inside: the command (NULL-terminated) with these variables. in stays closed, out is what it
 * prints, for reading without blocking. SIGTERM to pid reaches it. */
int pf_box_start_worker(const struct pf_box_opts *o, const char *id, const char *const *env,
	const char *const *command, struct pf_tool *t, struct pf_err *err);
int pf_tool_start(const struct pf_box_opts *o, const char *id, struct pf_tool *t, struct pf_err *err);
/* With all that it has started. */
void pf_tool_stop(struct pf_tool *t);

#endif
