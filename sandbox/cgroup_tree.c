/* Theory of operation: directories of one hierarchy.
 *
 * Nothing here knows of limits or of a box; a hierarchy is a descriptor of its mount and paths are relative
 * to it, resolved beneath it without symlinks. Making remembers what was there before, so that undoing
 * removes exactly what was made. Removing waits for processes that are dying and never for those that are
 * not. */
#include "sandbox/cgroup_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"

#define MAX_DEPTH 32

int pf_cg_open_mount(const struct pf_cgroup_host *host, int h)
{
	return open(host->hier[h].mount, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int pf_cg_open_below(int mount, const char *rel)
{
	return pf_openat2(mount, rel, O_RDONLY | O_DIRECTORY, 0,
		RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

void pf_cg_unmake(int mount, const char *rel, const struct pf_cg_made *m)
{
	PF_FREE char *p = pf_strdup(rel);

	while (m->any && strlen(p) > m->kept) {
		char *slash;
		if (unlinkat(mount, p, AT_REMOVEDIR) < 0)
			return; /* somebody else uses it by now */
		slash = strrchr(p, '/');
		if (!slash)
			return;
		*slash = '\0';
	}
}

/* The parent of all ("pinfold") may be pruned by somebody between our steps: begin
 * again then. */
static int make_path(int mount, const char *rel, struct pf_cg_made *m)
{
	PF_FREE char *p = pf_strdup(rel);
	size_t len = strlen(rel), shortest = len + 1;

	for (int tries = 0; tries < 100; tries++) {
		if (mkdirat(mount, rel, 0755) == 0) {
			if (!m->any || shortest <= m->kept)
				m->kept = shortest > len ? len - 1 : shortest - 1;
			m->any = true;
			return 0;
		}
		if (errno == EEXIST)
			return 1;
		if (errno != ENOENT)
			return -1;
		for (size_t i = 1; i < len; i++) {
			if (rel[i] != '/')
				continue;
			p[i] = '\0';
			if (mkdirat(mount, p, 0755) == 0 && i < shortest)
				shortest = i;
			else if (errno != EEXIST && errno != ENOENT)
				return -1;
			p[i] = '/';
		}
	}
	return -1;
}

/* Whatever the caller's umask: Linux 6.1 walks to the root of a container's cgroup2 mount with
 * the container's own ids. */
int pf_cg_make_path(int mount, const char *rel, struct pf_cg_made *m)
{
	mode_t old = umask(022);
	int r = make_path(mount, rel, m), saved = errno;

	umask(old);
	errno = saved;
	return r;
}

int pf_cg_make_in(int parent, const char *rel, struct pf_cg_made *m)
{
	const char *name = strrchr(rel, '/') + 1;
	mode_t old = umask(022);
	int r = mkdirat(parent, name, 0755), saved = errno;

	umask(old);
	errno = saved;
	if (r == 0)
		*m = (struct pf_cg_made){.any = true, .kept = (size_t)(name - rel) - 1};
	return r == 0 ? 0 : errno == EEXIST ? 1 : -1;
}

int pf_cg_fill_cpusets(int mount, const char *rel, struct pf_err *err)
{
	static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
	PF_FREE char *p = pf_strdup(rel);
	PF_CLOSE int above = openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (size_t i = 1, len = strlen(rel); above >= 0 && i <= len; i++) {
		if (rel[i] != '/' && rel[i] != '\0')
			continue;
		p[i] = '\0';
		int dir = pf_cg_open_below(mount, p);
		p[i] = rel[i];
		for (int f = 0; dir >= 0 && f < 2; f++) {
			char text[4096];
			ssize_t n = pf_cg_read(dir, files[f], text, sizeof(text));
			if (n < 0 || text[0] != '\n')
				continue;
			if (pf_cg_read(above, files[f], text, sizeof(text)) <= 0 ||
				pf_write_pseudo_at(dir, files[f], text) < 0) {
				pf_fail(err, errno, "cpuset: hand %s down to /%.*s", files[f], (int)i, rel);
				close(dir);
				return -1;
			}
		}
		close(above);
		above = dir;
	}
	return above < 0 ? pf_fail(err, errno, "cpuset: open /%s", rel) : 0;
}

/* ---- v2: handing controllers down ---- */

unsigned pf_cg_lacking(const char *text, unsigned mask)
{
	unsigned left = 0;

	for (int c = 0; c < PF_CG_CTLS; c++) {
		const char *name = pf_cgroup_ctl_name((enum pf_cg_ctl)c), *at = text;
		size_t len = strlen(name);
		if (!(mask & 1U << c))
			continue;
		while ((at = strstr(at, name)) != NULL) {
			if ((at == text || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\n' || !at[len]))
				break;
			at += len;
		}
		if (!at)
			left |= 1U << c;
	}
	return left;
}

/* Whether dir has processes of its own, and is not the root of all (which may have both). The kernel would
 * refuse memory and io then, but take cpu and pids, and turn the children into parts of a threaded domain
 * that no process can be put into. */
static bool has_processes(int dir)
{
	char text[32];

	return faccessat(dir, "cgroup.type", F_OK, 0) == 0 &&
	       pf_cg_read(dir, "cgroup.procs", text, sizeof(text)) > 0;
}

int pf_cg_enable_children(int dir, const char *path, unsigned *mask, unsigned must, struct pf_err *err)
{
	char text[512];

	if (pf_cg_read(dir, "cgroup.subtree_control", text, sizeof(text)) < 0)
		return pf_fail(err, errno, "read cgroup.subtree_control of %s", path);
	unsigned need = pf_cg_lacking(text, *mask);
	bool busy = need != 0 && has_processes(dir);
	for (int c = 0; c < PF_CG_CTLS; c++) {
		const char *name = pf_cgroup_ctl_name((enum pf_cg_ctl)c);
		char word[32];
		if (!(need & 1U << c))
			continue;
		snprintf(word, sizeof(word), "+%s", name);
		if (busy)
			errno = EBUSY;
		else if (pf_write_pseudo_at(dir, "cgroup.subtree_control", word) == 0)
			continue;
		if (!(must & 1U << c)) {
			*mask &= ~(1U << c);
			continue;
		}
		if (errno == EBUSY || errno == EOPNOTSUPP)
			return pf_fail_kind(err, PF_ERR_STATE, errno,
				"hand the %s controller down from cgroup %s: it has processes of its own "
				"(remedy: move them "
				"into a child, or use a cgroup path elsewhere)",
				name, path);
		if (errno == ENOENT)
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errno,
				"hand the %s controller down from cgroup %s: it was not given this "
				"controller (remedy: "
				"delegate it from above)",
				name, path);
		return pf_fail(err, errno, "hand the %s controller down from cgroup %s", name, path);
	}
	return 0;
}

/* ---- removal ---- */

struct removal {
	int mount;
	bool v2;
	const char *rel, *show;
	int depth;
	int64_t deadline;
	struct pf_err *err;
};

static int remove_child(int dir, const char *name, void *arg)
{
	const struct removal *r = arg;
	PF_FREE char *rel = pf_asprintf("%s/%s", r->rel, name);

	(void)dir;
	return pf_cg_remove_below(r->mount, r->v2, rel, r->depth + 1, r->deadline, r->show, r->err);
}

int pf_cg_remove_below(int mount, bool v2, const char *rel, int depth, int64_t deadline, const char *show,
	struct pf_err *err)
{
	struct removal r = {mount, v2, rel, show, depth, deadline, err};

	if (depth > MAX_DEPTH)
		return pf_fail(err, ELOOP, "remove cgroup %s/%.200s: too deep", show, rel);
	for (;;) {
		if (unlinkat(mount, rel, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != EBUSY && errno != ENOTEMPTY)
			return pf_fail(err, errno, "remove cgroup %s/%s", show, rel);
		PF_CLOSE int dir = pf_cg_open_below(mount, rel);
		if (dir < 0 && errno == ENOENT)
			return 0;
		if (dir < 0)
			return pf_fail(err, errno, "open cgroup %s/%s", show, rel);
		int w = pf_cg_wait_dir(dir, v2, deadline, err);
		if (w < 0)
			return -1;
		if (w == 0)
			return pf_fail_kind(err, PF_ERR_STATE, 0,
				"remove cgroup %s/%s: it still has processes (remedy: kill them first)", show,
				rel);
		if (pf_cg_each_child(dir, remove_child, &r) < 0)
			return -1;
		if (unlinkat(mount, rel, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != EBUSY && errno != ENOTEMPTY)
			return pf_fail(err, errno, "remove cgroup %s/%s", show, rel);
		/* Empty a moment ago: somebody joined since, or an exit is not through yet. */
		if (pf_now_us() >= deadline)
			return pf_fail_kind(err, PF_ERR_STATE, 0,
				"remove cgroup %s/%s: it is in use again (remedy: stop who puts processes "
				"there)",
				show, rel);
		(void)usleep(200);
	}
}
