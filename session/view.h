/* The file system that a gate sees. */
#ifndef PF_SESSION_VIEW_H
#define PF_SESSION_VIEW_H

#include "base/err.h"

/* Where in it the sandbox's v2 cgroup is, and a procfs that shows the sandbox's processes and no others. */
#define PF_VIEW_CGROUP "/cgroup"
#define PF_VIEW_PROC "/proc"

/* Enter a mount namespace of its own, with a root of which nothing can be written: what resolving a name and
 * compiling a policy reads of the host, and these two. cgroup: the directory, pidfd: of the sandbox's first
 * process; -1: without. A procfs that is not to be had (the process has ended) is left out. For a process
 * with one thread. */
int pf_view_enter(int cgroup, int pidfd, struct pf_err *err);

#endif
