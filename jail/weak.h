/* --weak: what is left of a jail where no user namespace can be made. Only when asked for. */
#ifndef PF_JAIL_WEAK_H
#define PF_JAIL_WEAK_H

#include "jail/jail.h"
#include "sandbox/box.h"
#include "sandbox/seccomp.h"

/* Whether j can be had that way; an error names what cannot. What is lost is said through j->warn. */
int pf_weak_check(const struct pf_jail *j, struct pf_err *err);

/* A private directory for HOME and TMPDIR, which j's environment is made to name; malloc'ed. */
char *pf_weak_scratch(struct pf_jail *j, struct pf_err *err);

/* Start the command. It becomes a child of the caller, who must be a subreaper (prctl(2)) so that nothing of
 * it gets away. */
int pf_weak_start(const struct pf_jail *j, const char *scratch, const int stdio[3],
	const struct pf_bpf *filter, struct pf_box *box, struct pf_err *err);

/* End everything that the command started and left behind. */
void pf_weak_sweep(void);

#endif
