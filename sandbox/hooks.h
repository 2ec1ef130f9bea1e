/* Hooks: programs that the configuration has run at points of a container's life (runtime-spec, config.md,
 * POSIX-platform hooks). Each gets the container's state as JSON on its standard input. */
#ifndef PF_SANDBOX_HOOKS_H
#define PF_SANDBOX_HOOKS_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

enum pf_hook_kind {
	PF_HOOK_PRESTART,
	PF_HOOK_CREATE_RUNTIME,
	PF_HOOK_CREATE_CONTAINER,
	PF_HOOK_START_CONTAINER,
	PF_HOOK_POSTSTART,
	PF_HOOK_POSTSTOP,
	PF_HOOK_KINDS
};

struct pf_hook {
	char *path; /* absolute */
	char **args, **env;
	int timeout_s; /* 0: none */
};

struct pf_hooks {
	struct pf_hook *hook;
	size_t n;
};

/* "prestart", … */
const char *pf_hook_kind_name(enum pf_hook_kind kind);

/* hooks (NULL: none) of config.json → PF_HOOK_KINDS lists, which the caller gave zeroed and lets go with
 * pf_hooks_done, also on failure. */
int pf_hooks_parse(const cJSON *hooks, struct pf_hooks lists[PF_HOOK_KINDS], struct pf_err *err);
void pf_hooks_done(struct pf_hooks lists[PF_HOOK_KINDS]);

/* Run the list in order, each with state on its standard input and cwd as its directory (NULL: ours). The
 * first that fails ends it: an error that names it and quotes what it said (its standard output and error
 * together, at most 512 bytes). A hook that is not done after its timeout is killed,
 * and so is one that runs when cancel_fd (-1: none) is readable. The caller is a process
 * with one thread, which may be one between clone and exec. */
int pf_hooks_run(const struct pf_hooks *list, enum pf_hook_kind kind, const char *cwd, const char *state,
	int cancel_fd, struct pf_err *err);

#endif
