/* --learn: what a command looked for and did not get. */
#ifndef PF_JAIL_LEARN_H
#define PF_JAIL_LEARN_H

#include <cjson/cJSON.h>

#include "jail/jail.h"

struct pf_learn;

/* The calls to be asked about, for pf_seccomp_opts.notify. */
extern const char *const pf_learn_calls[];

struct pf_learn *pf_learn_new(void);
/* Answer a listener from a thread of its own, and let every call go on as it would. Takes fd over. */
int pf_learn_start(struct pf_learn *l, int fd, struct pf_err *err);
/* After the command's end. */
void pf_learn_stop(struct pf_learn *l);
void pf_learn_free(struct pf_learn *l);

/* The smallest profile (a sandbox file, for --profile) that would have shown and let be written what was
 * asked for and was not there, and have let out what denied lists. */
cJSON *pf_learn_profile(const struct pf_learn *l, const struct pf_jail *j, const cJSON *denied);

#endif
