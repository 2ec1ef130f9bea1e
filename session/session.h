/* Sessions: sandboxes with an image, a workspace, a policy and a keeper. What the command line's session
 * verbs do. */
#ifndef PF_SESSION_SESSION_H
#define PF_SESSION_SESSION_H

#include "session/config.h"
#include "session/state.h"

struct pf_create_opts {
	const char *config_path; /* sandbox file; NULL: the checkpoint's, else defaults */
	const char *image;       /* overrides the file's */
	const char *from;        /* checkpoint, or "latest"; NULL: start fresh */
	const char *credentials; /* the administrator's credentials file; NULL: the usual places */
	bool reuse;              /* a sandbox of that id that lives is returned, resumed if paused */
	bool strict_runtime;
	bool rebase; /* take the checkpoint although its base image has another digest */
	bool trust;  /* a foreign checkpoint's sandbox file may ask for what is outside of the sandbox */
};

/* Create and start sandbox id. *state is filled; *existed tells whether --reuse found it. On failure nothing
 * is left. */
int pf_session_create(const struct pf_dirs *d, const char *id, const struct pf_create_opts *opts,
	struct pf_state *state, bool *existed, struct pf_err *err);

/* Whether anything of sandbox id is there, be it only pieces; also when that cannot be seen. */
bool pf_session_remains(const struct pf_dirs *d, const char *id);

/* End sandbox id and remove all of it but its checkpoints and its log. One that is not there is success
 * (*found false). The workspace's files go to the trash and are removed in the background. */
int pf_session_destroy(const struct pf_dirs *d, const char *id, bool *found, struct pf_err *err);

/* The same for a caller who holds the id's lock; it is released, and its file removed, on success. */
int pf_session_destroy_locked(
	const struct pf_dirs *d, const char *id, int *lock, bool *found, struct pf_err *err);

int pf_session_pause(const struct pf_dirs *d, const char *id, bool pause, struct pf_err *err);
int pf_session_pause_locked(const struct pf_dirs *d, const char *id, bool pause, struct pf_err *err);

struct pf_exec_opts {
	char *const *argv;
	char *const *env;                /* "K=V", added to the sandbox's; NULL-terminated or NULL */
	const char *cwd;                 /* NULL: the sandbox's */
	const char *user;                /* NULL: the sandbox's */
	int64_t timeout_ms;              /* -1: the sandbox's */
	int64_t memory, pids, millicpus; /* of this command and all it starts; -1: none of its own */
	bool tty;
	bool capture; /* stdout and stderr into the result, stdin from /dev/null unless keep_stdin */
	bool keep_stdin;
	bool internal;      /* not a use of the sandbox: the clock of limits.idle goes on */
	size_t capture_max; /* bytes of each stream */
};

struct pf_exec_result {
	int exit_code;           /* the command's; 128+n for a signal; 124 timed out; 137 killed for memory */
	int signal;              /* 0: it exited */
	const char *limit;       /* "timeout", "memory", "pids": which limit it hit; NULL: none */
	int64_t wall_us, cpu_us; /* cpu_us and memory_peak: -1 not known */
	int64_t memory_peak;
	char *out, *err_out; /* malloc'ed, when captured */
	size_t out_len, err_len;
	bool out_truncated, err_truncated;
};
void pf_exec_result_done(struct pf_exec_result *r);

/* Run a command in sandbox id and wait for it. SIGINT, SIGTERM, SIGHUP and SIGQUIT sent to the caller go to
 * the command. */
int pf_session_exec(const struct pf_dirs *d, const char *id, const struct pf_exec_opts *opts,
	struct pf_exec_result *r, struct pf_err *err);

/* The open upper of a sandbox that lives (from its keeper) or has stopped (from disk: *ws is then what to
 * close). */
struct pf_upper {
	int fd; /* of the upper directory */
	struct pf_workspace *ws;
};
int pf_session_upper(
	const struct pf_dirs *d, const struct pf_state *s, struct pf_upper *u, struct pf_err *err);
void pf_session_upper_done(struct pf_upper *u);

struct pf_gc_report {
	int sandboxes, id_ranges, locks;
};
/* Find what killed processes or a reboot left: sandboxes that are dead and have no keeper, id ranges, locks,
 * trash. Their workspaces are kept for --reuse unless remove_stopped. Checkpoints are never touched. */
int pf_session_gc(
	const struct pf_dirs *d, bool remove_stopped, struct pf_gc_report *report, struct pf_err *err);

/* The helper program with the archive, hash and compression libraries, next to this one's libexec; malloc'ed.
 */
char *pf_helper_path(const char *name, struct pf_err *err);

/* Kill what is left of the sandbox's processes, wait for its keeper, remove its cgroups. */
int pf_session_end_processes(const struct pf_dirs *d, const struct pf_state *s, struct pf_err *err);
/* Give the id range of a sandbox back; base 0: it has none. */
void pf_session_release_ids(const struct pf_dirs *d, const char *id, uint32_t base);

/* The cgroup above all sessions, and that of one: "/pinfold/ID", or below a --root that is not the default
 * one a name that no id can have, made from it, so that equal ids below two roots are two sandboxes. */
#define PF_SESSION_CGROUP "/pinfold"
char *pf_session_cgroup(const struct pf_dirs *d, const char *id);

/* Write down that a sandbox of which only the store's record is left has stopped. Its lock is held.
 * PF_ERR_NOT_FOUND when there is no record either. */
int pf_session_record_stopped(const struct pf_dirs *d, const char *id, struct pf_err *err);

#endif
