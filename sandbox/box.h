/* Making a box and putting processes into it.
 *
 * pf_box_create() takes a parsed configuration and gives back a running first process inside new namespaces,
 * in its cgroup from birth, on a root made of detached mounts: nothing of a box is ever in the host's mount
 * table, and all of it dies with its last process. pf_box_exec() puts one more process into a box that lives.
 * Neither knows where the root came from (images are overlay/'s) nor what the box is for. */
#ifndef PF_SANDBOX_BOX_H
#define PF_SANDBOX_BOX_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "sandbox/cgroup.h"
#include "sandbox/seccomp.h"
#include "sandbox/spec.h"

/* Makes the root of the box: a detached mount, whose files have 0-based ids seen through userns_fd (-1: the
 * box has no user namespace of its own). Called once, by the parent, after the box's user namespace exists.
 */
typedef int (*pf_box_root_fn)(void *arg, int userns_fd, struct pf_err *err);

struct pf_box_params {
	const struct pf_spec *spec;
	const struct pf_cgroup *cgroup; /* the leaf that the first process is born in */
	int netns_fd;                   /* network namespace to be born in; -1: what spec says */
	int init_fd;  /* program that runs as process 1, spec's args being its arguments; -1: they are
			 the program themselves */
	int stdio[3]; /* -1: /dev/null */
	pf_box_root_fn root;
	void *root_arg;
	const struct pf_bpf *seccomp; /* NULL: none */
	bool die_with_parent;
};

struct pf_box {
	pid_t pid;           /* of the first process, in the caller's namespace */
	int pidfd;           /* the caller closes it */
	uint64_t start_time; /* see base/proc.h */
};

/* On return the first process runs (its exec has succeeded). The caller is its parent and reaps it. On
 * failure nothing is left but what the caller made. */
int pf_box_create(const struct pf_box_params *params, struct pf_box *box, struct pf_err *err);

struct pf_exec_params {
	int pidfd; /* of the box's first process: names the namespaces to join */
	bool join_user, join_net, join_time;
	const struct pf_process *process;
	const struct pf_cgroup *cgroup;
	const struct pf_bpf *seccomp;
	int stdio[3];         /* descriptors of the caller that become 0, 1 and 2 */
	bool controlling_tty; /* stdio[0] is the slave side of a new terminal */
};

/* Starts process in the box. *pid is a child of the caller, who reaps it; *pidfd is for the caller to close.
 * A command that is not there or cannot be executed is PF_ERR_NO_COMMAND or PF_ERR_NO_EXEC. From then on the
 * caller's own new children are born in the box's pid namespace too: call it from a process that starts
 * nothing else. */
int pf_box_exec(const struct pf_exec_params *params, pid_t *pid, int *pidfd, struct pf_err *err);

/* Writes the id maps of a process that was just cloned into a new user namespace. */
int pf_write_id_maps(pid_t pid, const struct pf_spec *spec, struct pf_err *err);

/* A sealed memfd with PID 1's program in it, ready for params.init_fd. */
int pf_init_memfd(struct pf_err *err);

#endif
