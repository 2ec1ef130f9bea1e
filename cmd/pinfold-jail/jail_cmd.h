/* The pieces of pinfold-jail's command line. */
#ifndef PF_CMD_PINFOLD_JAIL_H
#define PF_CMD_PINFOLD_JAIL_H

#include "jail/jail.h"

/* One line on standard error; level "error", "warning" or "". */
void pf_jail_message(const char *level, const char *text);

/* --explain: what would be mounted, let out and limited; as JSON with the document (jail/config.h) that the
 * command line stands for, which pinfold_spawn() takes, too. */
void pf_jail_print_plan(const struct pf_jail *j, bool json, const cJSON *doc);
/* --learn: the profile, for --profile. */
void pf_jail_print_learned(const cJSON *profile);
/* --diff: a line for each change, coloured on a terminal. */
void pf_jail_print_changes(const cJSON *changes);
/* The result as an object; with the command's output if it was captured. */
cJSON *pf_jail_result_json(const struct pf_jail_result *r);
/* --json: the same on standard output. */
void pf_jail_print_result(const struct pf_jail_result *r);

/* --serve: be the jail of a host program that is at the other end of fd. Returns the exit code. */
int pf_jail_serve(int fd);

#endif
