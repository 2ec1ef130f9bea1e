/* What runs in the new process, between clone and exec. Internal to sandbox/.
 *
 * The process is a copy of a single-threaded parent: what the parent had parsed is here, read-only by
 * convention. It allocates nothing, takes no lock, and reports by writing one struct pf_err to the sync
 * socket; an exec that succeeds closes that socket and so says so. */
#ifndef PF_SANDBOX_CHILD_H
#define PF_SANDBOX_CHILD_H

#include "base/sys.h"
#include "sandbox/box.h"

/* Messages from the parent: one byte each, the second with descriptors. */
enum { PF_SYNC_MAPPED = 'M', PF_SYNC_MOUNTS = 'F' };

/* Descriptors that the parent prepared, in this order: the root, then one per mount of kind BIND or HOST. */
#define PF_MAX_MOUNT_FDS 250

struct pf_child_mounts {
	int root;
	int n;
	int fds[PF_MAX_MOUNT_FDS];
};

/* Build the root from spec and enter it (mounts.c). */
int pf_child_enter_root(const struct pf_spec *spec, const struct pf_child_mounts *mounts, struct pf_err *err);

/* Identity, limits, filter: the last steps before exec, the same for the first process and for later ones. */
int pf_child_become(const struct pf_process *process, const struct pf_bpf *seccomp, struct pf_err *err);

/* execve with a search of process->env's PATH. Returns only on failure. */
int pf_child_exec(const struct pf_process *process, struct pf_err *err);

/* The same through process 1's program: it starts process->args, if there are any, and stays. */
void pf_child_exec_init(int init_fd, const struct pf_process *process, struct pf_err *err);

/* Put the three descriptors at 0, 1 and 2; -1 is /dev/null. All others are closed on exec. */
int pf_child_stdio(const int stdio[3], struct pf_err *err);

/* SIGKILL when the parent dies, also if it has already. Lost at every change of ids. */
int pf_child_die_with_parent(int sync, struct pf_err *err);

/* Send the error to the parent and leave. */
__attribute__((noreturn)) void pf_child_fail(int sync, const struct pf_err *err);

/* Have the process that args will clone start in cg: born there where that is safe, joining as its first act
 * (pf_cgroup_join_self) where not. cg may be NULL. */
int pf_clone_into_cgroup(
	const struct pf_cgroup *cg, struct clone_args *args, struct pf_cgroup_join *join, struct pf_err *err);

/* The parent's side: wait for "exec succeeded" (end of file). -1: the child's error is in err. */
int pf_child_result(int sync, struct pf_err *err);

#endif
