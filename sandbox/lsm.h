/* Labels for the program from the Linux security modules: process.apparmorProfile, process.selinuxLabel. */
#ifndef PF_SANDBOX_LSM_H
#define PF_SANDBOX_LSM_H

#include <stdbool.h>

#include "base/err.h"
#include "sandbox/spec.h"

struct pf_lsm {
	char file[32];   /* below /proc/thread-self/; "": nothing to do */
	char label[512]; /* what is written there */
};

bool pf_lsm_apparmor(void); /* whether this kernel runs it */
bool pf_lsm_selinux(void);

/* What the process asks for. PF_ERR_UNSUPPORTED when the kernel does not run the module. */
int pf_lsm_plan(const struct pf_process *p, struct pf_lsm *lsm, struct pf_err *err);
/* Open the file to write the label to, below the root of a procfs; -1 with an error. */
int pf_lsm_open(int procfd, const struct pf_lsm *lsm, struct pf_err *err);

#endif
