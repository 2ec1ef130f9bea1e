/* Control groups: the limits of a box, its membership, its freeze, its kill and its resource report.
 *
 * A pf_cgroup is one path that exists in every hierarchy that counts: the v2 tree where there is one, and
 * each v1 hierarchy that a limit or a statistic needs. It is held by descriptors; dropping the handle
 * (pf_cgroup_free) never removes a cgroup. Paths are those below the visible cgroup mounts: "/pinfold/<id>".
 */
#ifndef PF_SANDBOX_CGROUP_H
#define PF_SANDBOX_CGROUP_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/err.h"

/* ---- the host ---- */

enum pf_cg_ctl {
	PF_CG_CPU,
	PF_CG_CPUACCT, /* on v2: cpu.stat, always there */
	PF_CG_CPUSET,
	PF_CG_MEMORY,
	PF_CG_PIDS,
	PF_CG_IO, /* "blkio" on v1 */
	PF_CG_HUGETLB,
	PF_CG_DEVICES, /* on v2: a BPF program, see bpf_device.h */
	PF_CG_FREEZER, /* on v2: cgroup.freeze, always there */
	PF_CG_RDMA,
	PF_CG_MISC,
	PF_CG_CTLS
};

#define PF_CG_HIERS 14

struct pf_cg_hier {
	char mount[240];
	bool v2;
	bool readonly;
};

/* Where each controller lives. Plain data: copy it freely, nothing to free. */
struct pf_cgroup_host {
	struct pf_cg_hier hier[PF_CG_HIERS];
	int n_hier;
	int v2;                /* index of the unified tree in hier, -1: v1 alone */
	int where[PF_CG_CTLS]; /* index in hier, -1: nowhere */
};

/* Look once. No cgroup mount at all is PF_ERR_UNSUPPORTED. A host that is v2 alone costs one statfs and one
 * read. */
int pf_cgroup_probe(struct pf_cgroup_host *host, struct pf_err *err);
/* The same from the text of a mountinfo file (of another process, of a test). */
int pf_cgroup_probe_mountinfo(struct pf_cgroup_host *host, const char *mountinfo, struct pf_err *err);
/* "v2", "hybrid" or "v1". */
const char *pf_cgroup_mode(const struct pf_cgroup_host *host);
/* "memory", "io", …; v1 names differ only for "blkio". */
const char *pf_cgroup_ctl_name(enum pf_cg_ctl ctl);
/* {"mode":…,"unified":{"mount","readonly"},"controllers":{"memory":"v1"|"v2"|null,…}} for doctor. */
cJSON *pf_cgroup_host_json(const struct pf_cgroup_host *host);
/* The caller's own cgroup in the v2 tree (v1 alone: in the memory hierarchy), malloc'ed. */
char *pf_cgroup_self(const struct pf_cgroup_host *host, struct pf_err *err);

/* ---- limits ---- */

#define PF_LIMIT_UNSET (-1)
#define PF_LIMIT_NONE INT64_MAX /* explicitly unlimited */

struct pf_io_limit {
	unsigned major, minor;
	int64_t rbps, wbps, riops, wiops; /* per second */
	int64_t weight;                   /* 1…1000, of this device */
};

struct pf_hugetlb_limit {
	char size[16]; /* "2MB", "1GB", as in the file names */
	int64_t max;   /* bytes */
};

/* Every number: PF_LIMIT_UNSET leaves the kernel's value alone, PF_LIMIT_NONE lifts the limit. Strings NULL =
 * not set. Start from pf_limits_init(); strings and lists are malloc'ed and go with pf_limits_done(). */
struct pf_limits {
	int64_t memory;      /* bytes: hard limit */
	int64_t memory_high; /* bytes: throttled reclaim above it; v2 only */
	int64_t memory_low;  /* bytes: protected (soft limit on v1) */
	int64_t memory_swap; /* bytes of swap on top of memory; 0 = none at all */
	int64_t swappiness;  /* 0…100, v1 only */
	int64_t pids;
	int64_t cpu_quota_us, cpu_period_us, cpu_burst_us;
	int64_t cpu_weight; /* 1…10000 */
	int64_t cpu_shares; /* 2…262144; used where cpu_weight is not set, and exactly so on v1 */
	int64_t cpu_idle;   /* 0 or 1 */
	int64_t cpu_rt_runtime_us, cpu_rt_period_us; /* v1 only */
	char *cpuset_cpus, *cpuset_mems;
	int64_t io_weight; /* 1…1000 (bfq's scale; 100 is the kernel's default) */
	struct pf_io_limit *io;
	size_t n_io;
	struct pf_hugetlb_limit *hugetlb;
	size_t n_hugetlb;
	char **unified; /* v2 file names and values in turn, NULL-terminated: "memory.high", "1048576", … */
	bool disable_oom_killer;  /* v1 only */
	bool check_before_update; /* pf_cgroup_update refuses a memory limit below what is in use */
};

#define PF_LIMITS PF_CLEANUP(pf_limits_done)
void pf_limits_init(struct pf_limits *l);
void pf_limits_done(struct pf_limits *l);
/* OCI linux.resources (NULL: no limits) → limits. *l must be initialized; values are added to it. `devices`
 * is not read here (bpf_device.h). A wrong value is PF_ERR_INVALID naming the field; a field that no kernel
 * can honour any more (kernel memory, network classes) is PF_ERR_UNSUPPORTED unless its value asks for
 * nothing. */
int pf_limits_from_oci(const cJSON *resources, struct pf_limits *l, struct pf_err *err);

/* cpu.shares 2…262144 ↔ cpu.weight 1…10000 along the curve that maps min, default (1024 ↔ 100) and max. */
int64_t pf_cpu_shares_to_weight(int64_t shares);
int64_t pf_cpu_weight_to_shares(int64_t weight);

/* ---- one cgroup ---- */

struct pf_cgroup;

enum {
	PF_CGROUP_ADOPT = 1, /* create: take over a cgroup that has processes instead of PF_ERR_EXISTS */
	PF_CGROUP_LEAVES =
		2, /* create: processes will live in leaves only; hand memory and pids down to them */
	PF_CGROUP_OOM_GROUP = 4, /* a kill for memory takes all of this cgroup; v2 memory only, see below */
	PF_CGROUP_ACCOUNT = 8,   /* leaf: count memory and pids apart even without a limit of its own */
};

/* The cgroup path an OCI bundle means. cgroups_path NULL or "": "/pinfold/<id>". With systemd=true it must be
 * "slice:prefix:name" and becomes ".../slice/prefix-name.scope". malloc'ed, clean, NULL on error. */
char *pf_cgroup_path_from_oci(const char *cgroups_path, const char *id, bool systemd, struct pf_err *err);

/* Make path in every hierarchy needed and write the limits. `..`, "/" and relative paths are PF_ERR_INVALID;
 * an empty leftover of the same name is replaced; one with processes is PF_ERR_EXISTS. A limit whose
 * controller is nowhere is PF_ERR_UNSUPPORTED naming both. On failure everything made is gone again. Two
 * creates of one path at the same time are the caller's to prevent (it holds the lock on the id). limits may
 * be NULL. */
int pf_cgroup_create(const struct pf_cgroup_host *host, const char *path, const struct pf_limits *limits,
	unsigned flags, struct pf_cgroup **out, struct pf_err *err);
/* A child of cg for one exec. On v2 its limits need that no process sits in cg itself (PF_ERR_STATE
 * otherwise). On v1 it has directories of its own only where it has a limit; elsewhere its processes join
 * cg's. */
int pf_cgroup_leaf(struct pf_cgroup *cg, const char *name, const struct pf_limits *limits, unsigned flags,
	struct pf_cgroup **out, struct pf_err *err);
/* One that exists (PF_ERR_NOT_FOUND). */
int pf_cgroup_open(
	const struct pf_cgroup_host *host, const char *path, struct pf_cgroup **out, struct pf_err *err);
/* Close the handle. NULL is fine. */
void pf_cgroup_free(struct pf_cgroup *cg);
#define PF_CGROUP PF_CLEANUP(pf_cgroup_cleanup)
void pf_cgroup_cleanup(struct pf_cgroup **cg);

const char *pf_cgroup_path(const struct pf_cgroup *cg);
/* The v2 directory for CLONE_INTO_CGROUP; owned by cg; -1 when the host has no v2 tree. */
int pf_cgroup_fd(const struct pf_cgroup *cg);
/* Whether CLONE_INTO_CGROUP into it is known to be safe. Since 6.12 a clone into a cgroup that was once
 * killed dies at once, and nothing shows that it was: only a directory made by this handle and never killed
 * through it is safe. The others are joined with pf_cgroup_join (v2 = true). */
bool pf_cgroup_clone_safe(const struct pf_cgroup *cg);
/* For a caller who tries a clone and has another way when the child dies at birth. */
void pf_cgroup_presume_clone_safe(struct pf_cgroup *cg, bool safe);
/* Whether PF_CGROUP_OOM_GROUP is in force. On v1 it never is: the caller kills the rest after an OOM notice.
 */
bool pf_cgroup_oom_group(const struct pf_cgroup *cg);

/* Change limits of a live one, in an order that is right whether they rise or fall. If one is refused the
 * earlier ones get their old values back. A controller whose v1 hierarchy was not joined so far is joined
 * now. */
int pf_cgroup_update(struct pf_cgroup *cg, const struct pf_limits *limits, struct pf_err *err);

/* Remove it in every hierarchy with its (empty) children. Waits at most timeout_ms for processes that are
 * dying; never kills. Already gone is success. The error names the directory that is left. */
int pf_cgroup_remove(struct pf_cgroup *cg, int timeout_ms, struct pf_err *err);
/* Remove an empty parent such as "/pinfold" wherever it is empty; everything else is left alone, silently. */
void pf_cgroup_prune(const struct pf_cgroup_host *host, const char *path);

/* ---- membership ---- */

/* Joining from inside, for a child that has just been cloned and has one thread. Writing "0" to a v1 `tasks`
 * file spares the RCU grace period (6–7 ms) that moving somebody else by pid costs. Open before clone, join
 * in the child as its first act, close in the parent. The descriptors are O_CLOEXEC and stay valid in other
 * namespaces. */
struct pf_cgroup_join {
	int fd[PF_CG_HIERS];
	int n;
};
/* v2=true: the v2 tree too (a child that was not cloned into it). */
int pf_cgroup_join_open(const struct pf_cgroup *cg, bool v2, struct pf_cgroup_join *join, struct pf_err *err);
/* Async-signal-safe. Moves the caller, closes the descriptors. -1 with errno. */
int pf_cgroup_join_self(struct pf_cgroup_join *join);
void pf_cgroup_join_close(struct pf_cgroup_join *join);

/* Move pid into the v1 hierarchies (everywhere if v2=true or there is no v2 tree), all in one go. Nothing to
 * do on pure v2. Costs 6–7 ms on a host with v1 hierarchies. */
int pf_cgroup_attach(const struct pf_cgroup *cg, pid_t pid, bool v2, struct pf_err *err);

/* All pids below cg, leaves included, sorted, malloc'ed; *n is their number. */
int pf_cgroup_pids(const struct pf_cgroup *cg, pid_t **pids, size_t *n, struct pf_err *err);

/* Make uid the owner of the v2 directory and of the files that the kernel lists for that: it may make cgroups
 * below and move its processes there; the limits of cg itself stay ours. */
int pf_cgroup_delegate(const struct pf_cgroup *cg, uid_t uid, struct pf_err *err);

/* ---- run control ---- */

/* Freeze and wait until every process has stopped, or thaw. Freezing that is not done in timeout_ms (-1: for
 * ever) is undone and PF_ERR_STATE with ETIMEDOUT. */
int pf_cgroup_freeze(struct pf_cgroup *cg, bool frozen, int timeout_ms, struct pf_err *err);
/* 1 frozen, 0 not, -1 error. */
int pf_cgroup_is_frozen(const struct pf_cgroup *cg, struct pf_err *err);
/* SIGKILL to everything in it, frozen or not; returns without waiting. After that the same cgroup takes no
 * CLONE_INTO_CGROUP any more (pf_cgroup_clone_safe), and neither do its leaves: drop handles of theirs, make
 * new leaves. */
int pf_cgroup_kill(struct pf_cgroup *cg, struct pf_err *err);
/* 1 no process is left, 0 timeout_ms passed (-1: for ever), -1 error. Zombies do not count. */
int pf_cgroup_wait_empty(const struct pf_cgroup *cg, int timeout_ms, struct pf_err *err);
/* 1 no process, 0 some, -1 error. */
int pf_cgroup_is_empty(const struct pf_cgroup *cg, struct pf_err *err);

/* ---- what it used ---- */

/* -1 = this host does not tell. */
struct pf_cgroup_stats {
	int64_t cpu_usage_us, cpu_user_us, cpu_system_us;
	int64_t cpu_periods, cpu_throttled, cpu_throttled_us;
	int64_t memory_current, memory_peak, memory_limit; /* bytes; limit PF_LIMIT_NONE when there is none */
	int64_t memory_swap;                               /* bytes of swap in use */
	int64_t memory_anon, memory_file, memory_inactive_file;
	int64_t memory_limit_hits; /* times an allocation met the limit of this very cgroup */
	int64_t oom_kills;
	int64_t pids_current, pids_peak, pids_limit, pids_limit_hits;
	int64_t io_read_bytes, io_write_bytes, io_reads, io_writes;
};

/* Of cg and everything below it. On v1, and for a leaf without a directory of its own there, values that only
 * the parent counts are -1. */
int pf_cgroup_stats(const struct pf_cgroup *cg, struct pf_cgroup_stats *st, struct pf_err *err);
/* {"cpu":{…},"memory":{…},"pids":{…},"io":{…}}; unknown values are left out, no limit is null. */
cJSON *pf_cgroup_stats_json(const struct pf_cgroup_stats *st);
/* Processes killed for memory in cg and below it so far; -1 when nothing counts them here. */
int64_t pf_cgroup_oom_kills(const struct pf_cgroup *cg);

/* A non-blocking descriptor that becomes readable when memory ran out in cg (v2: also below it, and for other
 * memory events: compare pf_cgroup_oom_kills with the value before). On v1 the notice comes before the kill,
 * for this very cgroup only, and once more when the cgroup is removed. Drain it with pf_cgroup_oom_drain. */
int pf_cgroup_oom_fd(const struct pf_cgroup *cg, struct pf_err *err);
/* Returns how many times the limit was met, on v1; 0 on v2, where pf_cgroup_oom_kills tells. */
int64_t pf_cgroup_oom_drain(int fd);

#endif
