/* Shared by the cgroup*.c files only. */
#ifndef PF_SANDBOX_CGROUP_INTERNAL_H
#define PF_SANDBOX_CGROUP_INTERNAL_H

#include "sandbox/cgroup.h"

struct pf_cgroup {
	struct pf_cgroup_host host;
	char *path;
	int dir[PF_CG_HIERS];  /* O_DIRECTORY fd of path in that hierarchy, -1: not there */
	int join[PF_CG_HIERS]; /* where its processes go: dir, or the nearest ancestor's; -1: nowhere */
	bool fresh;            /* the v2 directory was made by this handle and not killed since */
	bool leaves;
	bool oom_group;
};

/* One write to one file. */
struct pf_cg_write {
	enum pf_cg_ctl ctl; /* PF_CG_CTLS: a file of the v2 core, no controller */
	const char *limit;  /* what the user asked for, for error texts: "memory", "cpu quota" */
	char file[64];
	char *value;   /* malloc'ed */
	char key[24];  /* "8:0" where the file has one line per device */
	bool no_swap;  /* this write asks for "no swap", which can be had in other ways too */
	bool may_lack; /* a file that is missing means the limit holds anyway */
};

struct pf_cg_plan {
	struct pf_cg_write *w;
	size_t n;
};

#define PF_CG_PLAN PF_CLEANUP(pf_cg_plan_done)
void pf_cg_plan_done(struct pf_cg_plan *p);

/* What to write where, in the order that holds for a cgroup without limits. PF_ERR_UNSUPPORTED when a limit
 * has no controller or no file on its kind of hierarchy. */
int pf_cg_plan_make(const struct pf_cgroup_host *host, const struct pf_limits *l, struct pf_cg_plan *p,
	struct pf_err *err);

/* Write the plan into cg's directories. live: the cgroup has limits already; order memory and cpu pairs by
 * what is there, and put the old values back on failure. */
int pf_cg_plan_apply(const struct pf_cgroup *cg, struct pf_cg_plan *p, bool live, struct pf_err *err);

/* The whole small file, or -1 with errno. Returns the length. */
ssize_t pf_cg_read(int dir, const char *file, char *buf, size_t len);
/* A single number ("max" → PF_LIMIT_NONE); -1 when it cannot be read. */
int64_t pf_cg_read_int(int dir, const char *file);
/* The number after "key " at the beginning of a line of text; -1 when it is not there. */
int64_t pf_cg_value(const char *text, const char *key);

/* The mount of hierarchy h, O_PATH. -1 with errno. */
int pf_cg_open_mount(const struct pf_cgroup_host *host, int h);
/* A directory below it, readable; rel has no leading slash. -1 with errno. */
int pf_cg_open_below(int mount, const char *rel);

/* How much of a path existed before: what is longer than kept bytes was made by us. */
struct pf_cg_made {
	bool any;
	size_t kept;
};

/* mkdir -p of rel: 0 made, 1 was there, -1 errno. */
int pf_cg_make_path(int mount, const char *rel, struct pf_cg_made *m);
/* The same of rel's last part alone, in its parent's open directory. */
int pf_cg_make_in(int parent, const char *rel, struct pf_cg_made *m);
/* Remove what pf_cg_make_path made, as far as it is empty. */
void pf_cg_unmake(int mount, const char *rel, const struct pf_cg_made *m);
/* v1's cpusets begin empty and take no process then. Fill every level down to rel from the one above. */
int pf_cg_fill_cpusets(int mount, const char *rel, struct pf_err *err);
/* rmdir of rel with its children. PF_ERR_STATE when processes are left at the deadline (monotonic us; 0: do
 * not wait). show is the mount's path for error texts; depth is 0. */
int pf_cg_remove_below(int mount, bool v2, const char *rel, int depth, int64_t deadline, const char *show,
	struct pf_err *err);

/* The controllers of mask (1 << pf_cg_ctl) that text ("cpu memory pids\n") does not list. */
unsigned pf_cg_lacking(const char *text, unsigned mask);
/* Enable *mask for the children of the v2 directory dir. Controllers outside must are dropped from *mask when
 * the kernel refuses them. */
int pf_cg_enable_children(int dir, const char *path, unsigned *mask, unsigned must, struct pf_err *err);

/* A directory that answers for the processes: the v2 one, on v1 alone the first there is. */
int pf_cg_main_dir(const struct pf_cgroup *cg);

/* Wait until no process is in dir (v2: or below it) or the monotonic time deadline_us (-1: never) has come.
 * 1 empty, 0 time is over, -1 error. */
int pf_cg_wait_dir(int dir, bool v2, int64_t deadline_us, struct pf_err *err);

/* The pids in one directory and those below it, appended. */
int pf_cg_collect_pids(int dir, pid_t **pids, size_t *n, size_t *cap, struct pf_err *err);

/* Call fn for each child directory's name; stops at its first non-zero return and gives that; -1 with errno
 * when dir cannot be listed. */
int pf_cg_each_child(int dir, int (*fn)(int dir, const char *name, void *arg), void *arg);

#endif
