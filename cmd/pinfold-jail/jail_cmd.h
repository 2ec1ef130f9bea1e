/* The pieces of pinfold-jail's command line. */
#ifndef PF_CMD_PINFOLD_JAIL_H
#define PF_CMD_PINFOLD_JAIL_H

#include "jail/jail.h"

/* One line on standard error; level "error", "warning" or "". */
void pf_jail_message(const char *level, const char *text);

/* Add a profile's rules and limits to j: a shipped one by name, or a file; NULL is none. *home and *size are
 * set when the profile has them and they were not given. */
int pf_jail_profile(
	struct pf_jail *j, const char *name, const char **home, int64_t *size, struct pf_err *err);

/* The short list of variables that a command gets, then given ones over them. */
void pf_jail_environment(struct pf_jail *j, char *const *given, size_t n);

/* --explain: what would be mounted, let out and limited. */
void pf_jail_print_plan(const struct pf_jail *j, bool json);
/* --diff: a line for each change, coloured on a terminal. */
void pf_jail_print_changes(const cJSON *changes);
/* --json: the result as one object on standard output. */
void pf_jail_print_result(const struct pf_jail_result *r);

#endif
