/* Which exec of a sandbox something came from, by the id of its cgroup. */
#ifndef PF_SESSION_ATTRIBUTION_H
#define PF_SESSION_ATTRIBUTION_H

#include <stdint.h>

/* cgroup: the sandbox's v2 directory, whose leaves are its execs. proc: a procfs of its process ids, which
 * are not the caller's. *exec is the leaf's name, *process the names of what runs in it, at most four,
 * "sh,curl"; malloc'ed, or NULL when they are not known. */
void pf_attribute(const char *cgroup, const char *proc, uint64_t cgroup_id, char **exec, char **process);

#endif
