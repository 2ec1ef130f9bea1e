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
#include "sandbox/cgroup_view.h"
#include "sandbox/lsm.h"
#include "sandbox/seccomp.h"
#include "sandbox/spec.h"

/* Makes the root of the box: a detached mount, whose files have 0-based ids seen through userns_fd (-1: the
 * box has no user namespace of its own). Called once, by the parent, after the box's user namespace exists.
 */
typedef int (*pf_box_root_fn)(void *arg, int userns_fd, struct pf_err *err);

/* What an OCI container has that a session has not. Descriptors: -1 is none. */
struct pf_box_oci {
	const int
		*join_fds; /* of the namespaces to join, in the order of spec->joins; -1: it is ours anyway */
	int start_fd;      /* the program waits until a byte can be read here */
	int result_fd;     /* and tells here what came of it: nothing, or a struct pf_err */
	int console_fd;    /* a connected socket that the terminal's master goes to */
	unsigned keep_fds; /* descriptors from 3 on that the program gets */
	const char *keyring;                  /* name of a new session keyring; NULL: the caller's stays */
	bool no_pivot;                        /* chroot instead of pivot_root: the root is the initramfs */
	const char *root_place;               /* where hooks expect to find the root; NULL: nobody looks */
	const struct pf_cgroup_view *cgroups; /* for mounts of kind CGROUP; NULL: a new cgroup2 mount */
	struct pf_lsm lsm;
	int cancel_fd; /* pf_box_create: give up when it is readable; -1: none */
	/* The state for hooks that the child runs: state_head, its pid, state_tail (createContainer) or
	 * state_start_tail (startContainer). */
	const char *state_head, *state_tail, *state_start_tail;
	/* The parent's part. on_pid: the process exists. on_mounts: it is putting its mounts together, and
	 * there is time for other things. on_hooks: its namespaces and mounts are there. on_listener: a
	 * filter that notifies was loaded; fd is the caller's to close. */
	int (*on_pid)(void *arg, pid_t pid, struct pf_err *err);
	int (*on_mounts)(void *arg, struct pf_err *err);
	int (*on_hooks)(void *arg, pid_t pid, struct pf_err *err);
	int (*on_listener)(void *arg, pid_t pid, int fd, struct pf_err *err);
	void *arg;
};

/* The numbers of a box's namespaces, as /proc has them. */
enum {
	PF_BOX_NS_CGROUP,
	PF_BOX_NS_IPC,
	PF_BOX_NS_MNT,
	PF_BOX_NS_NET,
	PF_BOX_NS_PID,
	PF_BOX_NS_UTS,
	PF_BOX_N_NS
};

#define PF_BOX_NETNS_HERE (-2)

struct pf_box_params {
	const struct pf_spec *spec;
	const struct pf_cgroup *cgroup; /* the leaf that the first process is born in */
	int netns_fd; /* network namespace to be born in; -1: what spec says; PF_BOX_NETNS_HERE: the caller's,
			 whatever spec says */
	int init_fd;  /* program that runs as process 1, spec's args being its arguments; -1: they are
			 the program themselves */
	int stdio[3]; /* -1: /dev/null */
	pf_box_root_fn root;
	void *root_arg;
	const struct pf_bpf *seccomp; /* NULL: none */
	unsigned seccomp_flags;
	bool die_with_parent;
	const struct pf_box_oci *oci; /* NULL: a session */
	/* A session's filter that notifies: takes its listener, which is the callee's to close. */
	int (*on_listener)(void *arg, int fd, struct pf_err *err);
	void *listener_arg;
	/* The namespaces and mounts are there, and nothing of the program runs yet: until it returns. NULL:
	 * nobody wants to know, which saves a message. Not for oci, which has hooks. */
	int (*on_ready)(void *arg, pid_t pid, const uint64_t namespaces[PF_BOX_N_NS], struct pf_err *err);
	void *ready_arg;
	int ready_fd; /* with on_ready: a descriptor that it closes, and the process has let go of by then; -1
		       */
	bool keep_session; /* the process stays in the caller's session, and has its terminal */
	bool rootless;     /* pf_box_create's own: we are root of a user namespace only */
};

struct pf_box {
	pid_t pid;           /* of the first process, in the caller's namespace */
	int pidfd;           /* the caller closes it */
	uint64_t start_time; /* see base/proc.h */
};

/* On return the first process runs (its exec has succeeded), or waits for start_fd. The caller is its parent
 * and reaps it. On failure nothing is left but what the caller made. */
int pf_box_create(const struct pf_box_params *params, struct pf_box *box, struct pf_err *err);

/* How long to wait for it: a process that enters a box can be stopped by what is already there. */
struct pf_child_patience {
	int64_t deadline_us; /* of pf_now_us */
	int cancel_fd;       /* readable: give up at once; -1: none */
};

struct pf_exec_params {
	int pidfd; /* of the box's first process: names the namespaces to join */
	bool join_user, join_net, join_time;
	const struct pf_process *process;
	const struct pf_cgroup *cgroup;
	const struct pf_bpf *seccomp;
	unsigned seccomp_flags;
	int stdio[3];         /* descriptors of the caller that become 0, 1 and 2; -1: /dev/null */
	bool controlling_tty; /* stdio[0] is the slave side of a new terminal */
	bool stay;            /* it outlives the caller; else it is killed with it */
	const struct pf_child_patience *patience; /* how long its start may take ; NULL: for ever */
	const struct pf_spec *spec;   /* the container's, for OCI's manners (see pf_become); NULL */
	const struct pf_box_oci *oci; /* console_fd, keep_fds, keyring, lsm, on_listener; NULL: a session */
};

/* Starts process in the box. *pid is a child of the caller, who reaps it; *pidfd is for the caller to close.
 * A command that is not there or cannot be executed is PF_ERR_NO_COMMAND or PF_ERR_NO_EXEC; one that did not
 * get to start in time is PF_ERR_STATE with ETIMEDOUT. */
int pf_box_exec(const struct pf_exec_params *params, pid_t *pid, int *pidfd, struct pf_err *err);

/* Writes the id maps of a process that was just cloned into a new user namespace. */
int pf_write_id_maps(pid_t pid, const struct pf_id_map *uid_maps, size_t n_uid,
	const struct pf_id_map *gid_maps, size_t n_gid, struct pf_err *err);

/* A sealed memfd with PID 1's program in it, ready for params.init_fd. */
int pf_init_memfd(struct pf_err *err);

#endif
