/* What a container sees at /sys/fs/cgroup on a host that has cgroup v1 hierarchies: a tmpfs with one
 * directory per hierarchy, each being the container's own cgroup there. On v2 alone there is one file system
 * for all and no view is needed. */
#ifndef PF_SANDBOX_CGROUP_VIEW_H
#define PF_SANDBOX_CGROUP_VIEW_H

#include "base/err.h"
#include "sandbox/cgroup.h"

struct pf_cgroup_view {
	int top; /* a detached tmpfs with a directory for each of: */
	int n;
	char name[PF_CG_HIERS][64];
	int fd[PF_CG_HIERS]; /* detached mounts */
	bool own;            /* one cgroup2 mount in top's place: the host has v2 alone */
};

#define PF_CGROUP_VIEW_INIT       \
	{                         \
		.top = -1, .n = 0 \
	}

/* Make it for the cgroup at path. attrs are MOUNT_ATTR_* for all of it; v1 hierarchies are read-only in any
 * case: there a container's root could otherwise raise its own limits. */
int pf_cgroup_view_make(const struct pf_cgroup_host *host, const char *path, uint64_t attrs,
	struct pf_cgroup_view *v, struct pf_err *err);
void pf_cgroup_view_done(struct pf_cgroup_view *v);

/* Put it at target, a directory (opened) of the child's mount namespace. */
int pf_cgroup_view_attach(const struct pf_cgroup_view *v, int target, struct pf_err *err);

#endif
