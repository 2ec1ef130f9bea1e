/* Theory of operation: making, joining, changing and removing.
 *
 * One pf_cgroup is a path in several hierarchies at once. Making it goes: plan the limits (fails before
 * anything exists if one has no place) → mkdir in the v2 tree and in each v1 hierarchy needed → v2: hand the
 * controllers down from the root → write the limits. Whatever was made is remembered per hierarchy, down to
 * the first ancestor that was not there before, and is removed again if a later step fails.
 *
 * v1 hierarchies: memory, pids, cpu and cpuacct always (statistics, later updates), others where a limit
 * needs them. In hierarchies where we have no directory the processes join the nearest ancestor that somebody
 * made there: limits that an outer manager put on a parent must keep holding.
 *
 * Sessions put limits on PATH and processes in leaves PATH/init, PATH/x1 …, as v2 wants no process beside
 * children with controllers. An OCI container's init sits in PATH itself. Leaves get v1 directories only
 * where they have limits of their own. */
#include "sandbox/cgroup_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"

/* ---- handles ---- */

static struct pf_cgroup *handle_new(const struct pf_cgroup_host *host, const char *path)
{
	struct pf_cgroup *cg = pf_calloc(1, sizeof(*cg));

	cg->host = *host;
	cg->path = pf_strdup(path);
	for (int h = 0; h < PF_CG_HIERS; h++)
		cg->dir[h] = cg->join[h] = -1;
	return cg;
}

void pf_cgroup_free(struct pf_cgroup *cg)
{
	if (!cg)
		return;
	for (int h = 0; h < PF_CG_HIERS; h++) {
		if (cg->join[h] >= 0 && cg->join[h] != cg->dir[h])
			close(cg->join[h]);
		if (cg->dir[h] >= 0)
			close(cg->dir[h]);
	}
	free(cg->path);
	free(cg);
}

void pf_cgroup_cleanup(struct pf_cgroup **cg)
{
	int saved = errno;
	pf_cgroup_free(*cg);
	errno = saved;
}

const char *pf_cgroup_path(const struct pf_cgroup *cg)
{
	return cg->path;
}

int pf_cgroup_fd(const struct pf_cgroup *cg)
{
	return cg->host.v2 < 0 ? -1 : cg->dir[cg->host.v2];
}

bool pf_cgroup_clone_safe(const struct pf_cgroup *cg)
{
	return cg->fresh && pf_cgroup_fd(cg) >= 0;
}

void pf_cgroup_presume_clone_safe(struct pf_cgroup *cg, bool safe)
{
	cg->fresh = safe;
}

bool pf_cgroup_oom_group(const struct pf_cgroup *cg)
{
	return cg->oom_group;
}

int pf_cg_main_dir(const struct pf_cgroup *cg)
{
	if (pf_cgroup_fd(cg) >= 0)
		return pf_cgroup_fd(cg);
	for (int h = 0; h < cg->host.n_hier; h++)
		if (cg->dir[h] >= 0)
			return cg->dir[h];
	return -1;
}

/* ---- paths ---- */

static char *check_path(const char *path, struct pf_err *err)
{
	PF_FREE char *clean = NULL;

	if (path[0] != '/') {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "cgroup path '%.100s': must be absolute", path);
		return NULL;
	}
	for (const char *p = path; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f) {
			pf_fail_kind(err, PF_ERR_INVALID, 0, "cgroup path: has a control character in it");
			return NULL;
		}
	clean = pf_path_clean(path, err);
	if (!clean) {
		pf_wrap(err, "cgroup path");
		return NULL;
	}
	if (strcmp(clean, "/") == 0) {
		pf_fail_kind(err, PF_ERR_INVALID, 0,
			"cgroup path: may not be the root (remedy: name one below it)");
		return NULL;
	}
	return pf_take(clean);
}

char *pf_cgroup_path_from_oci(const char *cgroups_path, const char *id, bool systemd, struct pf_err *err)
{
	PF_BUF struct pf_buf b = {0};

	if (!cgroups_path || !*cgroups_path) {
		if (pf_check_id("container id", id, err) < 0)
			return NULL;
		return pf_asprintf("/pinfold/%s", id);
	}
	if (!systemd) {
		pf_buf_printf(&b, "%s%s", cgroups_path[0] == '/' ? "" : "/", cgroups_path);
		return check_path(b.data, err);
	}
	const char *c1 = strchr(cgroups_path, ':'), *c2 = c1 ? strchr(c1 + 1, ':') : NULL;
	if (!c2 || strchr(c2 + 1, ':') || strchr(cgroups_path, '/') || !c2[1]) {
		pf_fail_kind(err, PF_ERR_INVALID, 0,
			"cgroupsPath '%.100s': with --systemd-cgroup it must be slice:prefix:name",
			cgroups_path);
		return NULL;
	}
	/* "a-b.slice" lies in "a.slice". "-.slice" is the root. */
	PF_FREE char *slice = c1 == cgroups_path
				      ? pf_strdup("system.slice")
				      : pf_asprintf("%.*s", (int)(c1 - cgroups_path), cgroups_path);
	if (!pf_ends_with(slice, ".slice") || slice[0] == '.') {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "cgroupsPath: '%.100s' is no slice (a-b.slice)", slice);
		return NULL;
	}
	size_t stem = strlen(slice) - strlen(".slice");
	if (strcmp(slice, "-.slice") != 0) {
		for (size_t i = 1; i < stem; i++)
			if (slice[i] == '-')
				pf_buf_printf(&b, "/%.*s.slice", (int)i, slice);
		pf_buf_printf(&b, "/%s", slice);
	}
	pf_buf_printf(&b, "/%.*s%s%s.scope", (int)(c2 - c1 - 1), c1 + 1, c2 - c1 > 1 ? "-" : "", c2 + 1);
	return check_path(b.data, err);
}

/* ---- making directories ---- */

static int host_error(const struct pf_cgroup_host *host, int h, const char *path, struct pf_err *err)
{
	int e = errno;
	const char *remedy = e == EROFS                  ? " (remedy: mount it read-write)"
			     : e == EACCES || e == EPERM ? " (remedy: run as root, or in a delegated cgroup)"
			     : e == EAGAIN ? " (remedy: raise cgroup.max.descendants of a parent)"
					   : "";
	return pf_fail(err, e, "make cgroup %s%s%s", host->hier[h].mount, path, remedy);
}

/* The directory of cg in hierarchy h with its missing parents; or, where there is one, in its parent's alone:
 * a sandbox that was removed meanwhile must not come back, without its limits. */
static int make_dir(
	const struct pf_cgroup *cg, const struct pf_cgroup *parent, int h, int mount, struct pf_cg_made *m)
{
	const char *rel = cg->path + 1;

	if (parent && parent->dir[h] >= 0)
		return pf_cg_make_in(parent->dir[h], rel, m);
	if (!parent || !cg->host.hier[h].v2)
		return pf_cg_make_path(mount, rel, m);
	errno = ENOENT;
	return -1;
}

/* The directory of cg in hierarchy h: made, or taken over. parent: of a leaf, else NULL. */
static int enter_hier(struct pf_cgroup *cg, const struct pf_cgroup *parent, int h, unsigned flags,
	struct pf_cg_made *m, struct pf_err *err)
{
	const char *rel = cg->path + 1;
	bool v2 = cg->host.hier[h].v2;
	PF_CLOSE int mount = pf_cg_open_mount(&cg->host, h);
	int there;

	if (mount < 0)
		return pf_fail(err, errno, "open %s", cg->host.hier[h].mount);
	there = make_dir(cg, parent, h, mount, m);
	if (there == 1 && !(flags & PF_CGROUP_ADOPT)) {
		/* A leftover of a box that died, with its old limits, or a kill that makes it deadly to be
		 * cloned into: never worked with again, only replaced. */
		struct pf_err why = PF_ERR_INIT;
		if (pf_cg_remove_below(mount, v2, rel, 0, 0, cg->host.hier[h].mount, &why) < 0) {
			if (why.kind == PF_ERR_STATE)
				return pf_fail_kind(err, PF_ERR_EXISTS, 0,
					"cgroup %s%s has processes (remedy: destroy the sandbox that owns "
					"it, or use "
					"another path)",
					cg->host.hier[h].mount, cg->path);
			*err = why;
			return -1;
		}
		there = make_dir(cg, parent, h, mount, m);
	}
	if (there < 0 && parent && errno == ENOENT)
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "no cgroup %s", parent->path);
	if (there < 0)
		return host_error(&cg->host, h, cg->path, err);
	cg->dir[h] = pf_cg_open_below(mount, rel);
	if (cg->dir[h] < 0)
		return pf_fail(err, errno, "open cgroup %s%s", cg->host.hier[h].mount, cg->path);
	if (v2)
		cg->fresh = there == 0;
	if (!v2 && h == cg->host.where[PF_CG_CPUSET] && pf_cg_fill_cpusets(mount, rel, err) < 0)
		return -1;
	return 0;
}

/* Where v1 hierarchies without a directory of ours have one of an ancestor's. */
static void find_joins(struct pf_cgroup *cg)
{
	PF_FREE char *p = pf_strdup(cg->path + 1);

	for (int h = 0; h < cg->host.n_hier; h++) {
		if (cg->join[h] >= 0 && cg->join[h] != cg->dir[h])
			close(cg->join[h]);
		cg->join[h] = cg->dir[h];
		if (cg->dir[h] >= 0 || cg->host.hier[h].v2)
			continue;
		PF_CLOSE int mount = pf_cg_open_mount(&cg->host, h);
		strcpy(p, cg->path + 1);
		for (char *slash; mount >= 0 && cg->join[h] < 0 && (slash = strrchr(p, '/')) != NULL;) {
			*slash = '\0';
			cg->join[h] = pf_cg_open_below(mount, p);
		}
	}
}

/* ---- v2: handing controllers down ---- */

static int hand_down(struct pf_cgroup *cg, unsigned want, unsigned must, struct pf_err *err)
{
	PF_FREE char *p = pf_strdup(cg->path + 1);
	char text[512];

	if (want == 0)
		return 0;
	if (pf_cg_read(pf_cgroup_fd(cg), "cgroup.controllers", text, sizeof(text)) >= 0 &&
		pf_cg_lacking(text, want) == 0)
		return 0;
	PF_CLOSE int mount = pf_cg_open_mount(&cg->host, cg->host.v2);
	PF_CLOSE int dir = mount < 0 ? -1 : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return pf_fail(err, errno, "open %s", cg->host.hier[cg->host.v2].mount);
	if (pf_cg_enable_children(dir, "/", &want, must, err) < 0)
		return -1;
	for (size_t i = 1; cg->path[1 + i]; i++) {
		if (p[i] != '/')
			continue;
		p[i] = '\0';
		PF_CLOSE int level = pf_cg_open_below(mount, p);
		if (level < 0)
			return pf_fail(err, errno, "open cgroup /%s", p);
		PF_FREE char *show = pf_asprintf("/%s", p);
		if (pf_cg_enable_children(level, show, &want, must, err) < 0)
			return -1;
		p[i] = '/';
	}
	return 0;
}

/* ---- create, leaf, open ---- */

/* Which controllers of the plan are on v2 (mask of controllers) and which v1 hierarchies it writes to (mask
 * of hierarchies). */
static void plan_needs(
	const struct pf_cgroup_host *host, const struct pf_cg_plan *p, unsigned *v2, unsigned *v1)
{
	*v2 = *v1 = 0;
	for (size_t i = 0; i < p->n; i++) {
		if (p->w[i].ctl == PF_CG_CTLS)
			continue;
		int h = host->where[p->w[i].ctl];
		if (host->hier[h].v2)
			*v2 |= 1U << p->w[i].ctl;
		else
			*v1 |= 1U << h;
	}
}

static unsigned v2_part(const struct pf_cgroup_host *host, const enum pf_cg_ctl *ctls, size_t n)
{
	unsigned mask = 0;

	for (size_t i = 0; i < n; i++)
		if (host->where[ctls[i]] >= 0 && host->hier[host->where[ctls[i]]].v2)
			mask |= 1U << ctls[i];
	return mask;
}

static unsigned v1_part(const struct pf_cgroup_host *host, const enum pf_cg_ctl *ctls, size_t n)
{
	unsigned mask = 0;

	for (size_t i = 0; i < n; i++)
		if (host->where[ctls[i]] >= 0 && !host->hier[host->where[ctls[i]]].v2)
			mask |= 1U << host->where[ctls[i]];
	return mask;
}

static const enum pf_cg_ctl always_v2[] = {PF_CG_CPU, PF_CG_MEMORY, PF_CG_PIDS, PF_CG_IO};
/* Freezer and devices are on v1 only where there is no v2 tree. */
static const enum pf_cg_ctl always_v1[] = {
	PF_CG_CPU, PF_CG_CPUACCT, PF_CG_MEMORY, PF_CG_PIDS, PF_CG_FREEZER, PF_CG_DEVICES};
/* What tells a leaf's processes from the others' where no v2 tree does. */
static const enum pf_cg_ctl membership[] = {PF_CG_FREEZER, PF_CG_CPUACCT};
static const enum pf_cg_ctl counted[] = {PF_CG_MEMORY, PF_CG_PIDS};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int set_oom_group(struct pf_cgroup *cg, struct pf_err *err)
{
	int h = cg->host.where[PF_CG_MEMORY];

	if (h < 0 || !cg->host.hier[h].v2)
		return 0;
	if (pf_write_pseudo_at(cg->dir[h], "memory.oom.group", "1") < 0)
		return pf_fail(err, errno, "write memory.oom.group of %s", cg->path);
	cg->oom_group = true;
	return 0;
}

/* Beside a v2 tree a v1 hierarchy without a limit only counts. One that we are not let into (a user's own
 * part of the machine is a part of v2) is gone without. */
static bool is_dispensable(const struct pf_cgroup *cg, unsigned must, int h, const struct pf_err *why)
{
	return cg->host.v2 >= 0 && !(must & 1U << h) &&
	       (why->errnum == EACCES || why->errnum == EPERM || why->errnum == EROFS);
}

/* must: the v1 hierarchies that limits are in. */
static int enter_all(struct pf_cgroup *cg, const struct pf_cgroup *parent, unsigned v1, unsigned must,
	unsigned flags, struct pf_cg_made *made, struct pf_err *err)
{
	/* The v2 tree first: it knows whether the path is in use at all, before a v1 leftover is replaced. */
	if (cg->host.v2 >= 0 && enter_hier(cg, parent, cg->host.v2, flags, &made[cg->host.v2], err) < 0)
		return -1;
	for (int h = 0; h < cg->host.n_hier; h++) {
		struct pf_err why = PF_ERR_INIT;
		if (!(v1 & 1U << h) || enter_hier(cg, parent, h, flags, &made[h], &why) == 0 ||
			is_dispensable(cg, must, h, &why))
			continue;
		*err = why;
		return -1;
	}
	return 0;
}

static void undo(const struct pf_cgroup *cg, const struct pf_cg_made *made)
{
	for (int h = 0; h < cg->host.n_hier; h++) {
		PF_CLOSE int mount = made[h].any ? pf_cg_open_mount(&cg->host, h) : -1;
		if (mount >= 0)
			pf_cg_unmake(mount, cg->path + 1, &made[h]);
	}
}

int pf_cgroup_create(const struct pf_cgroup_host *host, const char *path, const struct pf_limits *limits,
	unsigned flags, struct pf_cgroup **out, struct pf_err *err)
{
	PF_CG_PLAN struct pf_cg_plan plan = {0};
	PF_CGROUP struct pf_cgroup *cg = NULL;
	PF_FREE char *clean = check_path(path, err);
	struct pf_cg_made made[PF_CG_HIERS] = {{0}};
	unsigned must, v1, v1_must, want;

	if (!clean || (limits && pf_cg_plan_make(host, limits, &plan, err) < 0))
		return -1;
	plan_needs(host, &plan, &must, &v1_must);
	want = must | v2_part(host, always_v2, COUNT(always_v2));
	v1 = v1_must | v1_part(host, always_v1, COUNT(always_v1));
	cg = handle_new(host, clean);
	cg->leaves = (flags & PF_CGROUP_LEAVES) != 0;
	if (enter_all(cg, NULL, v1, v1_must, flags, made, err) < 0 || hand_down(cg, want, must, err) < 0 ||
		pf_cg_plan_apply(cg, &plan, (flags & PF_CGROUP_ADOPT) != 0, err) < 0 ||
		((flags & PF_CGROUP_OOM_GROUP) && set_oom_group(cg, err) < 0))
		goto fail;
	if (cg->leaves && host->v2 >= 0) {
		unsigned down = v2_part(host, counted, COUNT(counted));
		if (down && pf_cg_enable_children(pf_cgroup_fd(cg), clean, &down, down, err) < 0)
			goto fail;
	}
	find_joins(cg);
	*out = pf_take(cg);
	return 0;
fail:
	undo(cg, made);
	return -1;
}

/* Join a v1 hierarchy that cg was not in so far: make its directory there and move everybody over. */
static int join_late(struct pf_cgroup *cg, int h, struct pf_cg_made *m, struct pf_err *err)
{
	if (enter_hier(cg, NULL, h, PF_CGROUP_ADOPT, m, err) < 0)
		return -1;
	/* Processes fork meanwhile, from either side; a pass that finds nobody outside has them all. */
	for (int pass = 0; pass < 100; pass++) {
		PF_FREE pid_t *all = NULL, *in = NULL;
		size_t n = 0, n_in = 0, cap = 0, k = 0, moved = 0;
		if (pf_cgroup_pids(cg, &all, &n, err) < 0)
			return -1;
		if (pf_cg_collect_pids(cg->dir[h], &in, &n_in, &cap, err) < 0)
			return -1;
		for (size_t i = 0; i < n; i++) {
			char text[16];
			for (k = 0; k < n_in && in[k] != all[i]; k++)
				;
			if (k < n_in)
				continue;
			snprintf(text, sizeof(text), "%d", (int)all[i]);
			if (pf_write_pseudo_at(cg->dir[h], "cgroup.procs", text) == 0)
				moved++;
			else if (errno != ESRCH)
				return pf_fail(err, errno, "move process %d to cgroup %s%s", (int)all[i],
					cg->host.hier[h].mount, cg->path);
		}
		if (moved == 0)
			return 0;
	}
	return pf_fail_kind(err, PF_ERR_STATE, 0,
		"cgroup %s forks faster than its processes can be moved to %s (remedy: pause it first)",
		cg->path, cg->host.hier[h].mount);
}

/* Undo of join_late: give the processes back to the hierarchy's nearest ancestor and remove the directory. */
static void leave_late(struct pf_cgroup *cg, int h, const struct pf_cg_made *m)
{
	PF_CLOSE int mount = m->any ? pf_cg_open_mount(&cg->host, h) : -1;
	PF_FREE pid_t *in = NULL;
	size_t n = 0, cap = 0;
	struct pf_err ignored = PF_ERR_INIT;

	if (mount < 0 || cg->dir[h] < 0)
		return;
	if (pf_cg_collect_pids(cg->dir[h], &in, &n, &cap, &ignored) == 0)
		for (size_t i = 0; i < n; i++) {
			char text[16];
			snprintf(text, sizeof(text), "%d", (int)in[i]);
			if (cg->join[h] >= 0) {
				(void)pf_write_pseudo_at(cg->join[h], "cgroup.procs", text);
			} else {
				PF_CLOSE int root = openat(mount, "cgroup.procs", O_WRONLY | O_CLOEXEC);
				if (root >= 0 && write(root, text, strlen(text)) < 0)
					continue;
			}
		}
	close(cg->dir[h]);
	cg->dir[h] = -1;
	pf_cg_unmake(mount, cg->path + 1, m);
}

static int join_all_late(struct pf_cgroup *cg, unsigned v1, struct pf_cg_made *made, struct pf_err *err)
{
	for (int h = 0; h < cg->host.n_hier; h++)
		if ((v1 & 1U << h) && cg->dir[h] < 0 && join_late(cg, h, &made[h], err) < 0)
			return -1;
	return 0;
}

int pf_cgroup_leaf(struct pf_cgroup *cg, const char *name, const struct pf_limits *limits, unsigned flags,
	struct pf_cgroup **out, struct pf_err *err)
{
	PF_CG_PLAN struct pf_cg_plan plan = {0};
	PF_CGROUP struct pf_cgroup *leaf = NULL;
	PF_FREE char *path = NULL;
	struct pf_cg_made made[PF_CG_HIERS] = {{0}}, late[PF_CG_HIERS] = {{0}};
	unsigned must, v1;

	if (pf_check_id("cgroup leaf", name, err) < 0 ||
		(limits && pf_cg_plan_make(&cg->host, limits, &plan, err) < 0))
		return -1;
	path = pf_asprintf("%s/%s", cg->path, name);
	plan_needs(&cg->host, &plan, &must, &v1);
	if (flags & PF_CGROUP_ACCOUNT) {
		must |= v2_part(&cg->host, counted, COUNT(counted));
		v1 |= v1_part(&cg->host, counted, COUNT(counted));
	}
	if (flags & PF_CGROUP_OOM_GROUP)
		must |= v2_part(&cg->host, counted, 1);
	if (cg->host.v2 < 0)
		v1 |= v1_part(&cg->host, membership, COUNT(membership));
	leaf = handle_new(&cg->host, path);
	if (join_all_late(cg, v1, late, err) < 0)
		goto fail;
	if (must && pf_cg_enable_children(pf_cgroup_fd(cg), cg->path, &must, must, err) < 0)
		goto fail;
	if (enter_all(leaf, cg, v1, v1, flags & PF_CGROUP_ADOPT, made, err) < 0 ||
		pf_cg_plan_apply(leaf, &plan, false, err) < 0 ||
		((flags & PF_CGROUP_OOM_GROUP) && set_oom_group(leaf, err) < 0))
		goto fail;
	for (int h = 0; h < cg->host.n_hier; h++)
		if (late[h].any) {
			find_joins(cg);
			break;
		}
	for (int h = 0; h < cg->host.n_hier; h++) {
		leaf->join[h] = leaf->dir[h];
		if (leaf->dir[h] < 0 && cg->join[h] >= 0) {
			leaf->join[h] = fcntl(cg->join[h], F_DUPFD_CLOEXEC, 0);
			if (leaf->join[h] < 0) {
				pf_fail(err, errno, "cgroup %s", path);
				goto fail;
			}
		}
	}
	*out = pf_take(leaf);
	return 0;
fail:
	undo(leaf, made);
	for (int h = 0; h < cg->host.n_hier; h++)
		leave_late(cg, h, &late[h]);
	return -1;
}

int pf_cgroup_open(
	const struct pf_cgroup_host *host, const char *path, struct pf_cgroup **out, struct pf_err *err)
{
	PF_FREE char *clean = check_path(path, err);
	PF_CGROUP struct pf_cgroup *cg = NULL;
	bool any = false;

	if (!clean)
		return -1;
	cg = handle_new(host, clean);
	for (int h = 0; h < host->n_hier; h++) {
		PF_CLOSE int mount = pf_cg_open_mount(host, h);
		cg->dir[h] = mount < 0 ? -1 : pf_cg_open_below(mount, clean + 1);
		any |= cg->dir[h] >= 0;
		if (cg->dir[h] < 0 && errno != ENOENT && errno != ENOTDIR)
			return pf_fail(err, errno, "open cgroup %s%s", host->hier[h].mount, clean);
	}
	if (!any)
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "no cgroup %s", clean);
	int h = host->where[PF_CG_MEMORY];
	if (h >= 0 && host->hier[h].v2 && cg->dir[h] >= 0)
		cg->oom_group = pf_cg_read_int(cg->dir[h], "memory.oom.group") == 1;
	find_joins(cg);
	*out = pf_take(cg);
	return 0;
}

/* ---- update ---- */

/* v1 limits memory and swap as a sum. A new memory limit alone must leave the room for swap what it was: a
 * box without swap stays without. */
static void keep_swap(const struct pf_cgroup *cg, struct pf_limits *l)
{
	int h = cg->host.where[PF_CG_MEMORY];

	if (l->memory == -1 || l->memory_swap != -1 || h < 0 || cg->host.hier[h].v2 || cg->dir[h] < 0)
		return;
	int64_t sum = pf_cg_read_int(cg->dir[h], "memory.memsw.limit_in_bytes");
	int64_t memory = pf_cg_read_int(cg->dir[h], "memory.limit_in_bytes");
	if (sum < 0 || memory < 0)
		return;
	/* Without a limit both files show the largest number of whole pages. */
	l->memory_swap = sum > INT64_MAX - 65536 ? PF_LIMIT_NONE : sum > memory ? sum - memory : 0;
	if (l->memory == PF_LIMIT_NONE && l->memory_swap != 0)
		l->memory_swap = PF_LIMIT_NONE;
}

static int check_usage(const struct pf_cgroup *cg, const struct pf_limits *l, struct pf_err *err)
{
	struct pf_cgroup_stats st;

	if (!l->check_before_update || l->memory == -1 || l->memory == PF_LIMIT_NONE)
		return 0;
	if (pf_cgroup_stats(cg, &st, err) < 0)
		return -1;
	if (st.memory_current > l->memory)
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"memory limit: %lld bytes are in use, more than the new limit of %lld",
			(long long)st.memory_current, (long long)l->memory);
	return 0;
}

int pf_cgroup_update(struct pf_cgroup *cg, const struct pf_limits *limits, struct pf_err *err)
{
	PF_CG_PLAN struct pf_cg_plan plan = {0};
	struct pf_cg_made late[PF_CG_HIERS] = {{0}};
	struct pf_limits l = *limits; /* shallow: only numbers are changed */
	unsigned must, v1;

	if (check_usage(cg, &l, err) < 0)
		return -1;
	keep_swap(cg, &l);
	if (pf_cg_plan_make(&cg->host, &l, &plan, err) < 0)
		return -1;
	plan_needs(&cg->host, &plan, &must, &v1);
	if (join_all_late(cg, v1, late, err) < 0 || (must && hand_down(cg, must, must, err) < 0) ||
		pf_cg_plan_apply(cg, &plan, true, err) < 0) {
		for (int h = 0; h < cg->host.n_hier; h++)
			leave_late(cg, h, &late[h]);
		return -1;
	}
	find_joins(cg);
	return 0;
}

/* ---- removal ---- */

int pf_cgroup_remove(struct pf_cgroup *cg, int timeout_ms, struct pf_err *err)
{
	int64_t deadline = timeout_ms < 0 ? INT64_MAX : pf_now_us() + (int64_t)timeout_ms * 1000;
	int rc = 0;

	cg->fresh = false;
	/* The v2 tree first: its wait is by event, and when it is empty there the others are at once. */
	for (int pass = 0; pass < 2; pass++)
		for (int h = 0; h < cg->host.n_hier; h++) {
			if (cg->host.hier[h].v2 != (pass == 0))
				continue;
			struct pf_err one = PF_ERR_INIT;
			PF_CLOSE int mount = cg->dir[h] < 0 ? -1 : pf_cg_open_mount(&cg->host, h);
			if (mount >= 0 && pf_cg_remove_below(mount, pass == 0, cg->path + 1, 0, deadline,
						  cg->host.hier[h].mount, &one) < 0) {
				if (rc == 0)
					*err = one;
				rc = -1;
				continue;
			}
		}
	return rc;
}

void pf_cgroup_prune(const struct pf_cgroup_host *host, const char *path)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *clean = check_path(path, &ignored);

	for (int h = 0; clean && h < host->n_hier; h++) {
		PF_CLOSE int mount = pf_cg_open_mount(host, h);
		if (mount >= 0)
			(void)unlinkat(mount, clean + 1, AT_REMOVEDIR);
	}
}

/* ---- joining ---- */

int pf_cgroup_join_open(const struct pf_cgroup *cg, bool v2, struct pf_cgroup_join *join, struct pf_err *err)
{
	join->n = 0;
	for (int h = 0; h < cg->host.n_hier; h++) {
		bool is_v2 = cg->host.hier[h].v2;
		if (cg->join[h] < 0 || (is_v2 && !v2))
			continue;
		/* Only v1 may move a single thread; in v2 it would have to stay within its process. */
		int fd = openat(cg->join[h], is_v2 ? "cgroup.procs" : "tasks", O_WRONLY | O_CLOEXEC);
		if (fd < 0) {
			pf_fail(err, errno, "open cgroup %s%s to join it", cg->host.hier[h].mount, cg->path);
			pf_cgroup_join_close(join);
			return -1;
		}
		join->fd[join->n++] = fd;
	}
	return 0;
}

int pf_cgroup_join_self(struct pf_cgroup_join *join)
{
	int rc = 0;

	for (int i = 0; i < join->n && rc == 0; i++) {
		ssize_t n;
		do
			n = write(join->fd[i], "0", 1);
		while (n < 0 && errno == EINTR);
		if (n != 1)
			rc = -1;
	}
	int saved = errno;
	pf_cgroup_join_close(join);
	errno = saved;
	return rc;
}

void pf_cgroup_join_close(struct pf_cgroup_join *join)
{
	while (join->n > 0)
		close(join->fd[--join->n]);
}

int pf_cgroup_attach(const struct pf_cgroup *cg, pid_t pid, bool v2, struct pf_err *err)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", (int)pid);
	for (int h = 0; h < cg->host.n_hier; h++) {
		if (cg->join[h] < 0 || (cg->host.hier[h].v2 && !v2))
			continue;
		if (pf_write_pseudo_at(cg->join[h], "cgroup.procs", text) == 0)
			continue;
		if (errno == EBUSY && cg->host.hier[h].v2)
			return pf_fail_kind(err, PF_ERR_STATE, errno,
				"move process %d to cgroup %s: it hands controllers down to its children "
				"(remedy: use a leaf)",
				(int)pid, cg->path);
		return pf_fail(err, errno, "move process %d to cgroup %s%s", (int)pid, cg->host.hier[h].mount,
			cg->path);
	}
	return 0;
}
