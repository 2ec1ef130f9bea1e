/* Theory of operation: putting the root together, in the child.
 *
 * The root arrives as a detached mount. It is attached over "/" of the child's private mount namespace, so
 * that other mounts can be attached below it; then every mount of the configuration in turn, each at a target
 * that is resolved from the root's descriptor with RESOLVE_IN_ROOT, whatever symlinks an image has put there;
 * then the masked and read-only pieces; then the child pivots into it and lets the host's tree go. No path is
 * ever given to mount(2) as text, and the host's tree is never reachable through a name that the image
 * controls. */

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/child.h"
#include "sandbox/console.h"
#include "sandbox/devices.h"
#include "sandbox/mounts.h"

/* Mounts of which pieces are changed when all are in place: procfs, sysfs, and what becomes read-only then.
 * Found by its descriptor, each is itself whatever its place is called by then: where an image's /proc is a
 * link into a volume, somebody else who has the volume could give another directory its name
 * (CVE-2023-27561). */
struct placed {
	const struct pf_spec *spec;
	int root;
	int *fds; /* one per mount of spec; -1: not kept */
};

static bool is_kept(const struct pf_mount *mount)
{
	return mount->late_ro || strcmp(mount->type, "proc") == 0 || strcmp(mount->type, "sysfs") == 0;
}

/* What path is in the box: below the last mount that it is below where that is the kernel's own, whose links
 * lead nowhere else; or else by name. */
static int open_placed(const struct placed *p, const char *path)
{
	for (size_t i = p->spec->n_mounts; i-- > 0;) {
		const char *at = p->spec->mounts[i].destination;
		if (!pf_path_below(path, at))
			continue;
		if (p->fds[i] < 0 || p->spec->mounts[i].late_ro)
			break;
		return pf_open_in_root(p->fds[i], strcmp(at, "/") == 0 ? path : path + strlen(at), O_PATH, 0);
	}
	return pf_open_in_root(p->root, path, O_PATH, 0);
}

static int attach(int mount_fd, int target_fd)
{
	return move_mount(mount_fd, "", target_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* The place for a mount below root: made if it is not there, a directory for a directory and a file for a
 * file. */
static int open_target(int root, const char *destination, int mount_fd, struct pf_err *err)
{
	struct stat st;
	int fd;

	if (fstat(mount_fd, &st) < 0)
		return pf_fail(err, errno, "stat of a mount");
	if (S_ISDIR(st.st_mode))
		fd = pf_mkdirs_in_root(root, destination, 0755);
	else
		fd = pf_mkfile_in_root(root, destination);
	if (fd < 0)
		return pf_fail(err, errno, "mount point %s", destination);
	return fd;
}

/* A path that is to be writable may lie in one that a rule above it made read-only: the deeper rule wins.
 * Only in the box's own root, though; what is read-only because the image says so (the host's /usr), or where
 * a symlink of the image leads (/sys), stays so. */
static int make_writable(int root, int mount_fd, const char *destination, struct pf_err *err)
{
	struct mount_attr rw = {.attr_clr = MOUNT_ATTR_RDONLY};
	struct statfs own, other;

	if (fstatfs(root, &own) < 0 || fstatfs(mount_fd, &other) < 0)
		return pf_fail(err, errno, "%s", destination);
	if (!(other.f_flags & ST_RDONLY))
		return 0;
	if (own.f_type != other.f_type || memcmp(&own.f_fsid, &other.f_fsid, sizeof(own.f_fsid)) != 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s cannot be writable: it lies in a part of the image that is read-only",
			destination);
	if (mount_setattr(mount_fd, "", AT_EMPTY_PATH, &rw, sizeof(rw)) < 0)
		return pf_fail(err, errno, "make %s writable", destination);
	return 0;
}

/* A clone of the box's own path onto itself, so that it can have attributes other than its surroundings'. */
static int self_mount(int root, const struct pf_mount *mount, struct pf_err *err)
{
	PF_CLOSE int fd = pf_open_in_root(root, mount->destination, O_PATH, 0);

	if (fd < 0)
		return pf_fail(err, errno, "%s", mount->destination);
	PF_CLOSE int m = pf_mount_clone(fd, mount->recursive, mount->attr_set, -1, err);
	if (m < 0)
		return -1;
	if (!(mount->attr_set & MOUNT_ATTR_RDONLY) && make_writable(root, m, mount->destination, err) < 0)
		return -1;
	return pf_take_fd(&m);
}

/* A cgroup mount: the view that was made for the container, else one cgroup2 mount, which shows the box's own
 * cgroup because of its cgroup namespace. */
static int attach_cgroups(
	const struct pf_box_params *params, int root, const struct pf_mount *mount, struct pf_err *err)
{
	PF_CLOSE int target = pf_mkdirs_in_root(root, mount->destination, 0755), made = -1;

	if (target < 0)
		return pf_fail(err, errno, "mount point %s", mount->destination);
	if (params->oci && params->oci->cgroups)
		return pf_cgroup_view_attach(params->oci->cgroups, target, err) < 0
			       ? pf_wrap(err, "mount %s", mount->destination)
			       : 0;
	made = pf_mount_new(
		"cgroup2", mount->source, mount->data, mount->attr_set | mount->rec_attr_set, err);
	if (made < 0)
		return pf_wrap(err, "mount %s", mount->destination);
	if (attach(made, target) < 0)
		return pf_fail(err, errno, "mount %s", mount->destination);
	return 0;
}

/* A new file system's propagation and, for tmpcopyup, its contents. */
static int finish_new(int root, int fd, const struct pf_mount *mount, struct pf_err *err)
{
	struct mount_attr attr = {.propagation = mount->propagation & ~(unsigned long)MS_REC};

	if (mount->copy_up) {
		PF_CLOSE int from = pf_open_in_root(root, mount->destination, O_RDONLY | O_DIRECTORY, 0);
		if (from < 0 && errno != ENOENT)
			return pf_fail(err, errno, "tmpcopyup of %s", mount->destination);
		if (from >= 0 && pf_copy_tree(from, fd, err) < 0)
			return pf_wrap(err, "tmpcopyup of %s", mount->destination);
	}
	if (attr.propagation && mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return pf_fail(err, errno, "propagation of %s", mount->destination);
	return 0;
}

/* *keep gets the mount, if it is one that is kept. */
static int attach_one(const struct pf_box_params *params, const struct pf_child_mounts *m,
	const struct pf_mount *mount, int *next, int *keep, struct pf_err *err)
{
	PF_CLOSE int made = -1, target = -1;

	switch (mount->kind) {
	case PF_MOUNT_CGROUP:
		return attach_cgroups(params, m->root, mount, err);
	case PF_MOUNT_BIND:
	case PF_MOUNT_HOST:
		made = m->fds[(*next)++];
		break;
	case PF_MOUNT_SELF:
		made = self_mount(m->root, mount, err);
		break;
	case PF_MOUNT_FS:
	default:
		made = pf_mount_new(
			mount->type, mount->source, mount->data, mount->attr_set | mount->rec_attr_set, err);
		break;
	}
	if (made < 0)
		return pf_wrap(err, "mount %s", mount->destination);
	if ((mount->kind == PF_MOUNT_FS || mount->kind == PF_MOUNT_HOST) &&
		finish_new(m->root, made, mount, err) < 0)
		return -1;
	target = open_target(m->root, mount->destination, made, err);
	if (target < 0)
		return -1;
	if (attach(made, target) < 0)
		return pf_fail(err, errno, "mount %s", mount->destination);
	if (is_kept(mount))
		*keep = pf_take_fd(&made);
	return 0;
}

static int attach_mounts(const struct pf_box_params *params, const struct pf_child_mounts *m,
	struct placed *placed, struct pf_err *err)
{
	const struct pf_spec *spec = params->spec;
	int next = 0;

	/* First what must be made in the root itself, while all of it is still writable. */
	for (size_t i = 0; i < spec->n_mounts; i++)
		if (spec->mounts[i].kind == PF_MOUNT_SELF) {
			PF_CLOSE int fd = pf_open_in_root(m->root, spec->mounts[i].destination, O_PATH, 0);
			if (fd < 0 && errno == ENOENT)
				fd = pf_mkdirs_in_root(m->root, spec->mounts[i].destination, 0755);
			if (fd < 0)
				return pf_fail(err, errno, "%s", spec->mounts[i].destination);
		}
	for (size_t i = 0; i < spec->n_mounts; i++)
		if (attach_one(params, m, &spec->mounts[i], &next, &placed->fds[i], err) < 0)
			return -1;
	return 0;
}

/* What had to stay writable while others found their places in it. */
static int late_read_only(const struct placed *p, struct pf_err *err)
{
	struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY};

	for (size_t i = 0; i < p->spec->n_mounts; i++)
		if (p->spec->mounts[i].late_ro &&
			mount_setattr(p->fds[i], "", AT_EMPTY_PATH, &ro, sizeof(ro)) < 0)
			return pf_fail(err, errno, "make %s read-only", p->spec->mounts[i].destination);
	return 0;
}

/* Masked files become the null device, masked directories an empty read-only tmpfs, one superblock for all of
 * them. The null device is taken from the box's own /dev and believed only when it is character device 1:3,
 * so that an image cannot make the mask a door (CVE-2025-31133). */
static int mask_paths(const struct placed *placed, struct pf_err *err)
{
	PF_CLOSE int null = -1, empty = -1;
	struct stat st;

	for (char **p = placed->spec->masked_paths; p && *p; p++) {
		PF_CLOSE int target = open_placed(placed, *p), fd = -1;

		if (target < 0) {
			if (errno == ENOENT || errno == ENOTDIR || errno == EACCES)
				continue;
			return pf_fail(err, errno, "masked path %s", *p);
		}
		if (fstat(target, &st) < 0)
			return pf_fail(err, errno, "masked path %s", *p);
		if (S_ISDIR(st.st_mode)) {
			/* The first place takes the mount itself and the others clones of it: one that stayed
			 * detached would cost an RCU grace period when it is closed. */
			if (empty >= 0) {
				fd = pf_mount_clone(empty, false, MOUNT_ATTR_RDONLY, -1, err);
			} else {
				empty = pf_mount_new("tmpfs", "tmpfs",
					(char *[]){"nr_inodes=1", "mode=755", NULL},
					MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
						MOUNT_ATTR_NOEXEC,
					err);
				fd = empty < 0 ? -1 : fcntl(empty, F_DUPFD_CLOEXEC, 3);
			}
		} else {
			if (null < 0) {
				null = pf_open_in_root(placed->root, "/dev/null", O_PATH | O_NOFOLLOW, 0);
				if (null < 0 || fstat(null, &st) < 0 || !S_ISCHR(st.st_mode) ||
					st.st_rdev != makedev(1, 3))
					return pf_fail(err, 0,
						"masked path %s: /dev/null is not the null device", *p);
			}
			fd = pf_mount_clone(null, false, MOUNT_ATTR_RDONLY, -1, err);
		}
		if (fd < 0 || attach(fd, target) < 0)
			return fd < 0 ? pf_wrap(err, "masked path %s", *p)
				      : pf_fail(err, errno, "masked path %s", *p);
	}
	return 0;
}

static int read_only_paths(const struct placed *placed, struct pf_err *err)
{
	for (char **p = placed->spec->readonly_paths; p && *p; p++) {
		PF_CLOSE int target = open_placed(placed, *p);

		if (target < 0) {
			if (errno == ENOENT || errno == ENOTDIR || errno == EACCES)
				continue;
			return pf_fail(err, errno, "read-only path %s", *p);
		}
		PF_CLOSE int fd = pf_mount_clone(target, true, MOUNT_ATTR_RDONLY, -1, err);
		if (fd < 0)
			return pf_wrap(err, "read-only path %s", *p);
		if (attach(fd, target) < 0)
			return pf_fail(err, errno, "read-only path %s", *p);
	}
	return 0;
}

/* Where the root is attached does not matter, except to hooks: they look for it at the path that the
 * configuration names. */
static int attach_root(const struct pf_box_params *params, int root, struct pf_err *err)
{
	if (params->oci && params->oci->root_place) {
		PF_CLOSE int place = open(params->oci->root_place, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (place >= 0 && attach(root, place) == 0)
			return 0;
		/* A user namespace may not be let through to it; then neither are the hooks. */
		if (!pf_spec_own_ns(params->spec, CLONE_NEWUSER))
			return pf_fail(err, errno, "attach the root at %s", params->oci->root_place);
	}
	if (move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return pf_fail(err, errno, "attach the root");
	return 0;
}

/* Our namespaces go along: the parent may not look at a process that nobody is to look at. */
static int tell_ready(const struct pf_box_params *params, int sync, struct pf_err *err)
{
	static const char *const names[PF_BOX_N_NS] = {[PF_BOX_NS_CGROUP] = "/proc/self/ns/cgroup",
		[PF_BOX_NS_IPC] = "/proc/self/ns/ipc",
		[PF_BOX_NS_MNT] = "/proc/self/ns/mnt",
		[PF_BOX_NS_NET] = "/proc/self/ns/net",
		[PF_BOX_NS_PID] = "/proc/self/ns/pid",
		[PF_BOX_NS_UTS] = "/proc/self/ns/uts"};
	uint64_t numbers[PF_BOX_N_NS];
	struct stat st;

	/* Somebody may be reading up to its end. */
	if (params->ready_fd >= 0)
		close(params->ready_fd);
	for (size_t i = 0; i < PF_BOX_N_NS; i++)
		numbers[i] = stat(names[i], &st) == 0 ? st.st_ino : 0;
	if (pf_child_note(sync, PF_NOTE_HOOKS, -1, err) < 0)
		return -1;
	if (write(sync, numbers, sizeof(numbers)) != (ssize_t)sizeof(numbers))
		return pf_fail(err, errno, "tell the parent");
	return pf_child_wait_go_on(sync, err);
}

/* Who wants to see the mounts and the tree outside: the parent or its hooks first, then our own. */
static int run_hooks(const struct pf_box_params *params, int sync, struct pf_err *err)
{
	const struct pf_hooks *hooks = params->spec->hooks;
	const struct pf_hooks *own = &hooks[PF_HOOK_CREATE_CONTAINER];

	if (!params->oci && params->on_ready)
		return tell_ready(params, sync, err);
	if (!params->oci)
		return 0;
	if (hooks[PF_HOOK_PRESTART].n + hooks[PF_HOOK_CREATE_RUNTIME].n > 0 &&
		(pf_child_note(sync, PF_NOTE_HOOKS, -1, err) < 0 || pf_child_wait_go_on(sync, err) < 0))
		return -1;
	if (own->n == 0)
		return 0;
	PF_FREE char *state =
		pf_asprintf("%s%d%s", params->oci->state_head, (int)getpid(), params->oci->state_tail);
	return pf_hooks_run(own, PF_HOOK_CREATE_CONTAINER, NULL, state, -1, err);
}

static int make_console(const struct pf_box_params *params, int root, int *console, struct pf_err *err)
{
	if (!params->oci || params->oci->console_fd < 0)
		return 0;
	*console = pf_console_open(root, params->oci->console_fd, &params->spec->process, err);
	return *console < 0 ? -1 : pf_console_bind(root, *console, err);
}

/* pivot_root(".", ".") puts the old root under the new one's top, from where it is let go: no directory for
 * it is needed in a root that is not ours to change. The initramfs cannot be pivoted away from; there the new
 * root lies on top of it for good. */
static int enter(const struct pf_box_params *params, int root, struct pf_err *err)
{
	if (fchdir(root) < 0)
		return pf_fail(err, errno, "enter the root");
	if (params->oci && params->oci->no_pivot) {
		if (umount2("/proc", MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT)
			return pf_fail(err, errno, "let the host's /proc go");
		if (chroot(".") < 0)
			return pf_fail(err, errno, "chroot");
	} else {
		if (pf_pivot_root(".", ".") < 0)
			return pf_fail(err, errno, "pivot_root");
		if (umount2(".", MNT_DETACH) < 0)
			return pf_fail(err, errno, "let the old root go");
	}
	if (chdir("/") < 0)
		return pf_fail(err, errno, "chdir /");
	return 0;
}

/* All that has a place in the root, and what is taken away of it. */
static int furnish(const struct pf_box_params *params, const struct pf_child_mounts *m, struct placed *placed,
	int sync, int *console, struct pf_err *err)
{
	const struct pf_spec *spec = params->spec;

	if (attach_mounts(params, m, placed, err) < 0)
		return -1;
	if ((m->nodes >= 0 || params->rootless) && pf_dev_bind_nodes(spec, m->nodes, m->root, err) < 0)
		return -1;
	if (make_console(params, m->root, console, err) < 0 || run_hooks(params, sync, err) < 0)
		return -1;
	if (params->oci) {
		/* As other runtimes do. Where it cannot be made chdir will say so. */
		int cwd = pf_mkdirs_in_root(m->root, spec->process.cwd, 0755);
		if (cwd >= 0)
			close(cwd);
	}
	return mask_paths(placed, err) < 0 || read_only_paths(placed, err) < 0 ||
			       late_read_only(placed, err) < 0
		       ? -1
		       : 0;
}

int pf_child_enter_root(const struct pf_box_params *params, const struct pf_child_mounts *m, int sync,
	int *console, struct pf_err *err)
{
	const struct pf_spec *spec = params->spec;
	struct mount_attr top = {.attr_set = spec->root_readonly ? MOUNT_ATTR_RDONLY : 0};

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return pf_fail(err, errno, "make the mounts private");
	/* Only a mount that is in our namespace can be cloned, before Linux 6.15; it goes with the old root.
	 */
	if (m->nodes >= 0 && move_mount(m->nodes, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return pf_fail(err, errno, "attach the device nodes");
	if (attach_root(params, m->root, err) < 0)
		return -1;
	struct placed placed = {
		.spec = spec, .root = m->root, .fds = pf_calloc(spec->n_mounts + 1, sizeof(int))};
	for (size_t i = 0; i < spec->n_mounts; i++)
		placed.fds[i] = -1;
	int r = furnish(params, m, &placed, sync, console, err);
	for (size_t i = 0; i < spec->n_mounts; i++)
		if (placed.fds[i] >= 0)
			close(placed.fds[i]);
	free(placed.fds);
	if (r < 0)
		return -1;
	if (top.attr_set && mount_setattr(m->root, "", AT_EMPTY_PATH, &top, sizeof(top)) < 0)
		return pf_fail(err, errno, "make the root read-only");
	if (enter(params, m->root, err) < 0)
		return -1;
	/* Only of the root itself: each mount has its own by now. pivot_root(2) wants it private before. */
	if (spec->rootfs_propagation &&
		mount(NULL, "/", NULL, spec->rootfs_propagation & ~(unsigned long)MS_REC, NULL) < 0)
		return pf_fail(err, errno, "linux.rootfsPropagation");
	return 0;
}
