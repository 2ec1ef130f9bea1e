/* The OCI runtime configuration (config.json) as the box builder needs it: parsed once, typed, checked.
 * Source: OCI runtime-spec config.md and config-linux.md. Unknown properties are ignored, as the
 * specification asks; a property that is known and cannot be done is an error that names it. */
#ifndef PF_SANDBOX_SPEC_H
#define PF_SANDBOX_SPEC_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "sandbox/caps.h"
#include "sandbox/hooks.h"
#include "sandbox/rlimit.h"

/* The version of the specification that this follows. */
#define PF_OCI_VERSION "1.3.0"

struct pf_id_map {
	uint32_t container, host, size;
};

/* sched_setattr(2). */
struct pf_scheduler {
	bool set;
	uint32_t policy; /* SCHED_* */
	int32_t nice;
	uint32_t priority;
	uint64_t flags; /* SCHED_FLAG_* */
	uint64_t runtime, deadline, period;
};

/* process: what runs in the box first, or by exec. */
struct pf_process {
	bool terminal;
	uint32_t uid, gid;
	bool has_umask;
	uint32_t umask;
	uint32_t *groups;
	size_t n_groups;
	char **args, **env;
	char *cwd;
	struct pf_caps caps;
	struct pf_rlimit *rlimits;
	size_t n_rlimits;
	bool no_new_privileges;
	bool has_oom_score_adj;
	int oom_score_adj;
	uint16_t console_width, console_height; /* 0: not given */
	struct pf_scheduler scheduler;
	bool has_io_priority;
	int io_priority; /* as ioprio_set(2) takes it */
	/* exec only: cpus to start on, and to run on. CPU lists as in cpuset(7), checked; NULL: not given. */
	char *cpus_initial, *cpus_final;
	char *apparmor_profile, *selinux_label; /* NULL: none */
};

/* How one mount gets into the box. */
enum pf_mount_kind {
	PF_MOUNT_FS,     /* a new file system made inside: proc, tmpfs, devpts, mqueue, cgroup */
	PF_MOUNT_BIND,   /* a clone of a tree outside, opened by the parent */
	PF_MOUNT_SELF,   /* a clone of the box's own path, with other attributes (x-pinfold.self) */
	PF_MOUNT_HOST,   /* a new file system that only the parent can make: sysfs, the device tmpfs */
	PF_MOUNT_CGROUP, /* what the host has of cgroups, seen from the box's own (cgroup_view.h) */
};

struct pf_mount {
	enum pf_mount_kind kind;
	char *destination; /* clean and absolute */
	char *type, *source;
	uint64_t attr_set, attr_clr;         /* MOUNT_ATTR_* of the mount itself */
	uint64_t rec_attr_set, rec_attr_clr; /* of it and of all below it: "rro" */
	bool recursive;                      /* rbind */
	unsigned long propagation;           /* MS_PRIVATE, …, perhaps with MS_REC; 0: not given */
	char **data;                         /* options for the file system itself, "size=64m" */
	bool idmap, idmap_recursive;         /* through the box's own mapping, or: */
	struct pf_id_map *uid_maps, *gid_maps;
	size_t n_uid_maps, n_gid_maps;
	bool copy_up; /* tmpcopyup: a tmpfs that begins with what its place held */
	bool late_ro; /* made read-only when everything is mounted: others may be mounted below it */
};

/* A namespace to join. */
struct pf_ns_join {
	uint64_t flag; /* CLONE_NEW* */
	char *path;
};

struct pf_device {
	char *path;  /* clean and absolute */
	mode_t type; /* S_IFCHR, S_IFBLK or S_IFIFO */
	uint32_t major, minor;
	mode_t mode;
	uint32_t uid, gid; /* the box's */
};

struct pf_netdev {
	char *device;  /* outside */
	char name[16]; /* inside */
};

struct pf_sysctl {
	char *file; /* below /proc/sys */
	char *value;
};

/* set_mempolicy(2). */
struct pf_mempolicy {
	bool set;
	int mode; /* MPOL_* with flags */
	unsigned long nodes[16];
};

struct pf_spec {
	struct pf_process process;
	char *root_path; /* NULL when the caller brings the root */
	bool root_readonly;
	char *hostname, *domainname;
	struct pf_mount *mounts; /* in configuration order */
	size_t n_mounts;
	uint64_t clone_flags; /* CLONE_NEW* of the namespaces to make */
	struct pf_ns_join *joins;
	size_t n_joins;
	char *time_offsets; /* text for timens_offsets; NULL: none */
	struct pf_id_map *uid_maps, *gid_maps;
	size_t n_uid_maps, n_gid_maps;
	char *cgroups_path;
	const cJSON *resources, *seccomp; /* owned by the document */
	char **masked_paths, **readonly_paths;
	struct pf_device *devices;
	size_t n_devices;
	struct pf_netdev *netdevs;
	size_t n_netdevs;
	struct pf_sysctl *sysctls;
	size_t n_sysctls;
	struct pf_hooks hooks[PF_HOOK_KINDS];
	unsigned long rootfs_propagation; /* as for a mount; 0: not given */
	char *mount_label;
	bool has_personality;
	unsigned long personality;
	struct pf_mempolicy mempolicy;
	const cJSON *annotations; /* owned by the document; NULL: none */
	cJSON *document;
};

/* Whether the box has namespaces of this kind that are not the caller's: new ones or joined ones. */
bool pf_spec_own_ns(const struct pf_spec *spec, uint64_t flag);

/* Takes the document over, also on failure. */
int pf_spec_parse(cJSON *document, struct pf_spec *spec, struct pf_err *err);
void pf_spec_done(struct pf_spec *spec);

/* The mount options that this knows, an array for features. */
cJSON *pf_mount_options_json(void);

/* The process object alone (exec --process). *p is zero before; pf_process_done afterwards, also on failure.
 */
int pf_process_parse(const cJSON *object, const char *where, struct pf_process *p, struct pf_err *err);
void pf_process_done(struct pf_process *p);

#endif
