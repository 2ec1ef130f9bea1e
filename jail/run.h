/* The pieces of pf_jail_run(). */
#ifndef PF_JAIL_RUN_H
#define PF_JAIL_RUN_H

#include "jail/jail.h"
#include "sandbox/cgroup.h"

/* Files with given contents that would lie below a mount: make them binds of files in a scratch tmpfs. */
int pf_jail_data_files(struct pf_jail *j, struct pf_err *err);

/* The root: a detached tmpfs with what lies in it itself. A pf_box_root_fn; arg is the jail. */
int pf_jail_root(void *arg, int userns_fd, struct pf_err *err);

/* lonenet.c: begin to make the network of a jail that has none (nothing, if that is done already), after
 * pf_jail_enter; enter it, for good; whatever became of it, be done with it. */
int pf_jail_lone_net_begin(struct pf_jail *j, struct pf_err *err);
int pf_jail_lone_net_enter(struct pf_jail *j, struct pf_err *err);
void pf_jail_lone_net_done(struct pf_jail *j);

/* How limits are kept: in a cgroup where we can make one, else by resource limits and by looking. */
struct pf_jail_limits {
	struct pf_cgroup_host host;
	struct pf_cgroup *cgroup; /* NULL: none */
	char *path;
	int64_t watch_memory; /* bytes that all processes together may use; -1: not watched */
	int proc_fd;          /* the box's /proc, for watching */
	int events_fd;        /* memory.events of a scope; -1 */
	int oom_fd;           /* readable when the cgroup's memory ran out; -1 */
	int64_t next_look_us;
};
#define PF_JAIL_LIMITS_INIT \
	((struct pf_jail_limits){.watch_memory = -1, .proc_fd = -1, .events_fd = -1, .oom_fd = -1})

int pf_jail_limits_make(const struct pf_jail *j, struct pf_jail_limits *l, struct pf_err *err);
/* Milliseconds until pf_jail_limits_look wants to be called; -1: never. */
int pf_jail_limits_timeout(const struct pf_jail_limits *l);
/* An ordinary user with limits, before pf_jail_enter: ask his own systemd for a scope around this process,
 * that has them. Where there is none, or it does not do it, nothing happens. */
void pf_jail_limits_scope(struct pf_jail *j);
/* Whether the memory limit was passed; pid is the box's first process. */
bool pf_jail_limits_look(struct pf_jail_limits *l, pid_t pid);
/* Whether the kernel has killed in its cgroup or scope because memory was passed; also when nothing of the
 * box is left. */
bool pf_jail_limits_killed(const struct pf_jail_limits *l);
/* Bytes at the peak, or -1; cpu time in *cpu_us if the cgroup knows it. */
int64_t pf_jail_limits_peak(const struct pf_jail_limits *l, int64_t *cpu_us);
/* End what is left in it and remove it. */
void pf_jail_limits_done(struct pf_jail_limits *l);

#endif
