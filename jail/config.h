/* A jail as one JSON document: what the command line makes of its options, and what a program gives to
 * pinfold.h. docs/jail.md lists the keys. */
#ifndef PF_JAIL_CONFIG_H
#define PF_JAIL_CONFIG_H

#include <cjson/cJSON.h>

#include "jail/jail.h"

/* Enter the jail's user namespace (pf_jail_enter) and fill j, which is pf_jail_init()ed, from doc:
 *   command [..]; cwd; user "U[:G]"; env {NAME: value}; bind_env [NAME];
 *   files [{rw|ro|rw_try|ro_try|hide|tmpfs: PATH}]; home "private"|"keep"|DIR; size; overlay; commit; keep
 * NAME; from CHECKPOINT; store DIR; profile NAME|FILE; networking {…} and allow [HOST[:PORT]]; seccomp
 * "default"|"strict"|"off"|{…}; limits {memory, pids, cpus, timeout, grace} Unknown keys are errors. */
int pf_jail_configure(struct pf_jail *j, const cJSON *doc, struct pf_err *err);

/* Read a profile: a shipped one by name, one of the caller's own or the machine's, or a file; *path is where
 * it was. Before pf_jail_enter, since afterwards nobody can tell root from other users: a file that others
 * can write is PF_ERR_INVALID. */
cJSON *pf_jail_profile_load(const char *name, char **path, struct pf_err *err);
/* Its memory, processors and processes, where j has no limit of these yet. Opens nothing. */
int pf_jail_profile_limits(struct pf_jail *j, const char *path, const cJSON *doc, struct pf_err *err);
/* Add its rules and what else it says. *size is set when it was not given (-1) and the profile has one. */
int pf_jail_profile_apply(struct pf_jail *j, const char *path, cJSON *doc, int64_t *size, struct pf_err *err);

/* The short list of variables that a command gets, and given ones over them ("NAME=value"). */
void pf_jail_environment(struct pf_jail *j, char *const *given, size_t n);

#endif
