/* The pieces of pinfold-jail's command line. */
#ifndef PF_CMD_PINFOLD_JAIL_H
#define PF_CMD_PINFOLD_JAIL_H

#include "jail/jail.h"

/* One line on standard error; level "error", "warning" or "". */
void pf_jail_message(const char *level, const char *text);

/* --explain: what would be mounted, let out and limited. */
void pf_jail_print_plan(const struct pf_jail *j, bool json);
/* --diff: a line for each change, coloured on a terminal. */
void pf_jail_print_changes(const cJSON *changes);
/* --json: the result as one object on standard output. */
void pf_jail_print_result(const struct pf_jail_result *r);

#endif
