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
	const char *remote; /* the registry where sessions' checkpoints are shared, [http://]HOST/REPOSITORY;
			       NULL */
	bool rebase;
	int keep; /* checkpoints of one session that are kept; 0: all */
};

/* Run pinfold to its end. input (NULL: none) is its standard input, *output (NULL: not wanted) what it
 * prints, malloc'ed. An error has the kind that pinfold gave it. */
int pf_box_run(const struct pf_box_opts *o, const char *const *words, const char *input, char **output,
	struct pf_err *err);
/* The same with len bytes of input, whatever they are. */
int pf_box_feed(const struct pf_box_opts *o, const char *const *words, const void *input, size_t len,
	char **output, struct pf_err *err);

/* Have the image with the packages that the sandbox file lists made, if it lists any and there is none yet
 * (may take minutes), and make a sandbox as a session's and remove it: what would fail for each session is an
 * error before the first is taken. */
int pf_box_prepare(const struct pf_box_opts *o, struct pf_err *err);

/* The same with input from a descriptor, which stays the caller's. */
int pf_box_pipe(
	const struct pf_box_opts *o, const char *const *words, int in, char **output, struct pf_err *err);

/* Take the session for this process, so that no two work at one sandbox. 1: taken, *lock is an fd; 0:
 * somebody has it. */
int pf_box_lock(const struct pf_box_opts *o, const char *id, int *lock, struct pf_err *err);
void pf_box_unlock(const struct pf_box_opts *o, const char *id, int *lock);

/* Make the sandbox: on the files that a worker before us left here, unless a newer checkpoint than theirs is
 * known; from its newest checkpoint; or anew. *how says which. leave_out (NULL-terminated, or NULL) are paths
 * that no checkpoint is to have, absolute or below the working directory. With a remote, that is asked first,
 * and not to be able to is an error. */
int pf_box_open(const struct pf_box_opts *o, const char *id, const char *const *leave_out, const char **how,
	struct pf_err *err);
/* Take away what earlier runs left for the agent that must not be there when one begins. memory: make also
 * sure that memory stores can be made in /mnt/memory. */
int pf_box_tidy(const struct pf_box_opts *o, const char *id, bool memory, struct pf_err *err);
/* Whether it runs. */
bool pf_box_runs(const struct pf_box_opts *o, const char *id);
/* Its first process, when that was started (clock ticks since boot), and a user that is nobody else's: the
 * last but one of those that the sandbox has to itself, or nobody where it has none. */
struct pf_box_first {
	pid_t pid;
	uint64_t start;
	uid_t uid;
};
int pf_box_init(const struct pf_box_opts *o, const char *id, struct pf_box_first *first, struct pf_err *err);
/* End all its processes. Its files stay, for whoever opens it next. */
int pf_box_kill(const struct pf_box_opts *o, const char *id, struct pf_err *err);
/* A checkpoint; older ones beyond opts.keep are removed. */
int pf_box_snapshot(const struct pf_box_opts *o, const char *id, struct pf_err *err);
int pf_box_destroy(const struct pf_box_opts *o, const char *id, struct pf_err *err);
/* Whether the session's newest checkpoint in the store is not one that the sandbox's files came from or went
 * into: then somebody else has had the session since. */
int pf_box_stale(const struct pf_box_opts *o, const char *id, bool *stale, struct pf_err *err);
/* Fetch the session's newest checkpoint from the remote. That there is none is none. */
int pf_box_fetch(const struct pf_box_opts *o, const char *id, struct pf_err *err);
/* Send its newest to the remote. */
int pf_box_send(const struct pf_box_opts *o, const char *id, struct pf_err *err);
/* Remove all its checkpoints here. */
int pf_box_forget(const struct pf_box_opts *o, const char *id, struct pf_err *err);

/* The tools' helper in the sandbox. args (NULL-terminated, or NULL) are its own. */
struct pf_tool {
	pid_t pid; /* 0: not running */
	int in, out;
	int errors; /* what it, and pinfold, say is wrong: for the log, at its end */
};
#define PF_TOOL_INIT ((struct pf_tool){.in = -1, .out = -1, .errors = -1})
/* A worker inside: the command (NULL-terminated) with these variables. in stays closed, out is what it
 * prints, for reading without blocking. SIGTERM to pid reaches it. */
int pf_box_start_worker(const struct pf_box_opts *o, const char *id, const char *const *env,
	const char *const *command, struct pf_tool *t, struct pf_err *err);
int pf_tool_start(const struct pf_box_opts *o, const char *id, const char *const *args, struct pf_tool *t,
	struct pf_err *err);
/* With all that it has started. */
void pf_tool_stop(struct pf_tool *t);

#endif
