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
#include "sandbox/rlimit.h"

struct pf_id_map {
	uint32_t container, host, size;
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
};

/* How one mount gets into the box. */
enum pf_mount_kind {
	PF_MOUNT_FS,   /* a new file system made inside: proc, tmpfs, devpts, mqueue, cgroup */
	PF_MOUNT_BIND, /* a clone of a tree outside, opened by the parent */
	PF_MOUNT_SELF, /* a clone of the box's own path, with other attributes (x-pinfold.self) */
	PF_MOUNT_HOST, /* a new file system that only the parent can make: sysfs, the device tmpfs */
};

struct pf_mount {
	enum pf_mount_kind kind;
	char *destination; /* clean and absolute */
	char *type, *source;
	uint64_t attr_set;         /* MOUNT_ATTR_* */
	bool recursive;            /* rbind, and attributes too */
	unsigned long propagation; /* MS_PRIVATE, …, 0: private */
	char **data;               /* options for the file system itself, "size=64m" */
	bool idmap;                /* through the box's own mapping */
};

struct pf_spec {
	struct pf_process process;
	char *root_path; /* NULL when the caller brings the root */
	bool root_readonly;
	char *hostname, *domainname;
	struct pf_mount *mounts; /* in configuration order */
	size_t n_mounts;
	uint64_t clone_flags; /* CLONE_NEW* of the namespaces to make */
	struct pf_id_map *uid_maps, *gid_maps;
	size_t n_uid_maps, n_gid_maps;
	char *cgroups_path;
	const cJSON *resources, *seccomp; /* owned by the document */
	char **masked_paths, **readonly_paths;
	cJSON *document;
};

/* Takes the document over, also on failure. */
int pf_spec_parse(cJSON *document, struct pf_spec *spec, struct pf_err *err);
void pf_spec_done(struct pf_spec *spec);

/* The process object alone (exec --process). */
int pf_process_parse(const cJSON *object, const char *where, struct pf_process *p, struct pf_err *err);
void pf_process_done(struct pf_process *p);

#endif
