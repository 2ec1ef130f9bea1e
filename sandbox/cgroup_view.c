#include "sandbox/cgroup_view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/mounts.h"

static int add_hier(const struct pf_cg_hier *h, const char *path, uint64_t attrs, struct pf_cgroup_view *v,
	struct pf_err *err)
{
	PF_FREE char *full = pf_asprintf("%s%s", h->mount, path);
	PF_CLOSE int dir = open(full, O_PATH | O_DIRECTORY | O_CLOEXEC);
	const char *name = strrchr(h->mount, '/');

	if (dir < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "%s", full);
	if (mkdirat(v->top, name + 1, 0755) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "cgroup view");
	int fd = pf_mount_clone(dir, false, attrs | (h->v2 ? 0 : MOUNT_ATTR_RDONLY), -1, err);
	if (fd < 0)
		return -1;
	snprintf(v->name[v->n], sizeof(v->name[0]), "%s", name + 1);
	v->fd[v->n++] = fd;
	return 0;
}

int pf_cgroup_view_make(const struct pf_cgroup_host *host, const char *path, uint64_t attrs,
	struct pf_cgroup_view *v, struct pf_err *err)
{
	char *const data[] = {(char *)"mode=755", (char *)"size=64k", NULL};

	*v = (struct pf_cgroup_view)PF_CGROUP_VIEW_INIT;
	if (host->v2 >= 0 && host->n_hier == 1) {
		v->own = true;
		v->top = pf_mount_new("cgroup2", "cgroup", NULL, attrs, err);
		return v->top < 0 ? -1 : 0;
	}
	v->top = pf_mount_new("tmpfs", "tmpfs", data, attrs & ~(uint64_t)MOUNT_ATTR_RDONLY, err);
	if (v->top < 0)
		return -1;
	for (int h = 0; h < host->n_hier; h++)
		if (add_hier(&host->hier[h], path, attrs, v, err) < 0) {
			pf_cgroup_view_done(v);
			return -1;
		}
	/* Nothing is ever to be made beside the hierarchies. */
	struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY};
	if (mount_setattr(v->top, "", AT_EMPTY_PATH, &ro, sizeof(ro)) < 0) {
		pf_fail(err, errno, "cgroup view");
		pf_cgroup_view_done(v);
		return -1;
	}
	return 0;
}

void pf_cgroup_view_done(struct pf_cgroup_view *v)
{
	for (int i = 0; i < v->n; i++)
		close(v->fd[i]);
	if (v->top >= 0)
		close(v->top);
	*v = (struct pf_cgroup_view)PF_CGROUP_VIEW_INIT;
}

int pf_cgroup_view_attach(const struct pf_cgroup_view *v, int target, struct pf_err *err)
{
	const unsigned both = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;

	if (move_mount(v->top, "", target, "", both) < 0)
		return pf_fail(err, errno, "attach the cgroup view");
	for (int i = 0; i < v->n; i++) {
		/* Ours, made a moment ago: its names are as they were made. */
		PF_CLOSE int place =
			openat(v->top, v->name[i], O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (place < 0 || move_mount(v->fd[i], "", place, "", both) < 0)
			return pf_fail(err, errno, "attach the cgroup view of %s", v->name[i]);
	}
	return 0;
}
