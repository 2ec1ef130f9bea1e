/* --overlay: writes go to a scratch layer, which a process of its own looks after. */
#ifndef PF_JAIL_SCRATCH_H
#define PF_JAIL_SCRATCH_H

#include "jail/jail.h"
#include "jail/run.h"

struct pf_jail_scratch {
	int fd; /* to the process that sweeps up; -1: there is none */
	pid_t pid;
};
#define PF_JAIL_SCRATCH_INIT ((struct pf_jail_scratch){.fd = -1, .pid = -1})

/* Stack a scratch layer on every op of kind OVERLAY. The sweeper is started, who removes the layers and
 * limits' cgroup when this process has ended, however it ended. Nothing is made when neither is there. */
int pf_jail_scratch_make(struct pf_jail *j, const struct pf_jail_limits *limits, struct pf_jail_scratch *s,
	struct pf_err *err);

/* After the command's end: with list what it wrote, as pf_changes_list tells it, and with commit the writing
 * of it into the real directories. *changes is NULL when there was no overlay or no list was asked for;
 * *truncated: there is more than it says. */
int pf_jail_scratch_finish(struct pf_jail_scratch *s, bool list, bool commit, cJSON **changes,
	bool *truncated, struct pf_err *err);
/* Make checkpoint name of what was written so far; box_pid is the box's first process while it runs, else -1.
 * See keep.h. NULL on error. */
cJSON *pf_jail_scratch_keep(struct pf_jail_scratch *s, const char *name, pid_t box_pid, struct pf_err *err);
/* Let the sweeper go on, and wait for it. */
void pf_jail_scratch_done(struct pf_jail_scratch *s);

#endif
