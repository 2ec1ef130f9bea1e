/* What a box's mounts are made of, before they have a place: detached mounts, by the new mount API.
 *
 * A detached mount is in no mount table; it goes away with its descriptor. So whatever fails, or whoever is
 * killed here, leaves nothing mounted. */

#include "sandbox/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sys.h"
#include "sandbox/box.h"
#include "sandbox/devices.h"

/* The kernel explains a refused option on the context's own log: "e overlay: ...". */
static void append_log(int fs, struct pf_err *err)
{
	char text[256];
	ssize_t n = read(fs, text, sizeof(text) - 1);
	size_t len = strlen(err->msg);

	if (n <= 2 || len + 5 > sizeof(err->msg))
		return;
	while (n > 2 && (text[n - 1] == '\n' || text[n - 1] == ' '))
		n--;
	size_t room = sizeof(err->msg) - len - 4, want = (size_t)n - 2;
	if (want > room)
		want = room;
	memcpy(err->msg + len, " (", 2);
	memcpy(err->msg + len + 2, text + 2, want);
	memcpy(err->msg + len + 2 + want, ")", 2);
}

static int set_option(int fs, const char *option)
{
	char key[64];
	const char *eq = strchr(option, '=');

	if (!eq)
		return fsconfig(fs, FSCONFIG_SET_FLAG, option, NULL, 0);
	size_t n = (size_t)(eq - option);
	if (n >= sizeof(key)) {
		errno = EINVAL;
		return -1;
	}
	memcpy(key, option, n);
	key[n] = '\0';
	return fsconfig(fs, FSCONFIG_SET_STRING, key, eq + 1, 0);
}

int pf_mount_new(const char *type, const char *source, char *const *data, uint64_t attrs, struct pf_err *err)
{
	PF_CLOSE int fs = fsopen(type, FSOPEN_CLOEXEC);

	if (fs < 0)
		return pf_fail(err, errno, "file system %s", type);
	if (source && fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) < 0)
		return pf_fail(err, errno, "%s: source %s", type, source);
	for (; data && *data; data++)
		if (set_option(fs, *data) < 0) {
			pf_fail_kind(err, PF_ERR_INVALID, errno, "%s: mount option '%s'", type, *data);
			append_log(fs, err);
			return -1;
		}
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
		pf_fail(err, errno, "make a %s", type);
		append_log(fs, err);
		return -1;
	}
	int m = fsmount(fs, FSMOUNT_CLOEXEC, (unsigned)attrs);
	if (m < 0)
		return pf_fail(err, errno, "mount %s", type);
	return m;
}

int pf_mount_clone(int fd, bool recursive, uint64_t attr_set, int userns_fd, struct pf_err *err)
{
	const struct pf_mount how = {.recursive = recursive,
		.rec_attr_set = recursive ? attr_set : 0,
		.attr_set = recursive ? 0 : attr_set,
		.attr_clr = attr_set & MOUNT_ATTR__ATIME ? MOUNT_ATTR__ATIME : 0,
		.idmap = userns_fd >= 0,
		.idmap_recursive = recursive,
		.propagation = MS_PRIVATE | MS_REC};

	return pf_mount_bind(fd, &how, 0, userns_fd, err);
}

static int set_attr(int m, bool recursive, struct mount_attr *attr, struct pf_err *err)
{
	if (attr->attr_set == 0 && attr->attr_clr == 0 && attr->propagation == 0)
		return 0;
	if (mount_setattr(m, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), attr, sizeof(*attr)) < 0)
		return pf_fail(err, errno,
			attr->attr_set & MOUNT_ATTR_IDMAP ? "id-mapped mount (its file system must support "
							    "it: ext4, xfs, btrfs, overlay)"
							  : "mount attributes");
	return 0;
}

int pf_mount_bind(
	int fd, const struct pf_mount *mount, unsigned long propagation, int userns_fd, struct pf_err *err)
{
	PF_CLOSE int m = open_tree(fd, "",
		OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (mount->recursive ? AT_RECURSIVE : 0));
	struct mount_attr top = {.attr_set = mount->attr_set, .attr_clr = mount->attr_clr};
	struct mount_attr all = {.attr_set = mount->rec_attr_set, .attr_clr = mount->rec_attr_clr};

	if (m < 0)
		return pf_fail(err, errno, "clone of a mount");
	if (mount->propagation)
		propagation = mount->propagation;
	/* One call does for both where nothing is mounted below. */
	if (!mount->recursive) {
		top.attr_set |= all.attr_set;
		top.attr_clr |= all.attr_clr;
		all = (struct mount_attr){0};
	}
	*(mount->recursive && (propagation & MS_REC) ? &all.propagation : &top.propagation) =
		propagation & ~(unsigned long)MS_REC;
	if (mount->idmap) {
		struct mount_attr *a = mount->recursive && mount->idmap_recursive ? &all : &top;
		a->attr_set |= MOUNT_ATTR_IDMAP;
		a->userns_fd = (uint64_t)(unsigned)userns_fd;
	}
	if (set_attr(m, false, &top, err) < 0 || set_attr(m, true, &all, err) < 0)
		return -1;
	return pf_take_fd(&m);
}

int pf_userns_new(const struct pf_id_map *uid_maps, size_t n_uid, const struct pf_id_map *gid_maps,
	size_t n_gid, struct pf_err *err)
{
	struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
	int pair[2], fd = -1, r;
	char path[64];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe");
	pid_t pid = pf_clone3(&args);
	if (pid == 0) {
		/* It holds the namespace until it is named by a descriptor. */
		char byte;
		close(pair[1]);
		_exit(read(pair[0], &byte, 1) == 0 ? 0 : 1);
	}
	int saved = errno;
	close(pair[0]);
	if (pid < 0) {
		close(pair[1]);
		return pf_fail(err, saved, "user namespace for an id-mapped mount");
	}
	r = pf_write_id_maps(pid, uid_maps, n_uid, gid_maps, n_gid, err);
	if (r == 0) {
		snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			r = pf_fail(err, errno, "user namespace for an id-mapped mount");
	}
	close(pair[1]);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return r < 0 ? -1 : fd;
}

static int prepare_bind(
	const struct pf_spec *spec, const struct pf_mount *mount, int userns_fd, struct pf_err *err)
{
	/* The root's propagation is that of all mounts that name none; private where there is none either. */
	unsigned long propagation = spec->rootfs_propagation & ~(unsigned long)MS_UNBINDABLE;
	PF_CLOSE int src = open(mount->source, O_PATH | O_CLOEXEC), own = -1;

	if (src < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "mount source %s", mount->source);
	if (!(propagation & ~(unsigned long)MS_REC))
		propagation = MS_PRIVATE | MS_REC;
	if (mount->n_uid_maps > 0) {
		own = pf_userns_new(
			mount->uid_maps, mount->n_uid_maps, mount->gid_maps, mount->n_gid_maps, err);
		if (own < 0)
			return -1;
		userns_fd = own;
	}
	return pf_mount_bind(src, mount, propagation, userns_fd, err);
}

/* The one that was made in the network namespace's own context. The first place takes it itself: before Linux
 * 6.15 a mount that is nowhere attached cannot be cloned. */
static int prepare_sysfs(const struct pf_mount *mount, int sysfs_fd, bool taken, struct pf_err *err)
{
	struct mount_attr attr = {.attr_set = mount->attr_set};

	if (taken)
		return pf_mount_clone(sysfs_fd, false, mount->attr_set, -1, err);
	if (attr.attr_set && mount_setattr(sysfs_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return pf_fail(err, errno, "mount attributes");
	int fd = fcntl(sysfs_fd, F_DUPFD_CLOEXEC, 3);
	return fd < 0 ? pf_fail(err, errno, "sysfs") : fd;
}

static int prepare(const struct pf_spec *spec, const struct pf_mount *mount, int userns_fd, int sysfs_fd,
	bool *sysfs_taken, struct pf_err *err)
{
	if (mount->kind == PF_MOUNT_BIND)
		return prepare_bind(spec, mount, userns_fd, err);
	if (strcmp(mount->type, "sysfs") != 0)
		return pf_dev_make(spec, mount, err);
	if (sysfs_fd < 0)
		return pf_mount_new("sysfs", "sysfs", NULL, mount->attr_set, err);
	int fd = prepare_sysfs(mount, sysfs_fd, *sysfs_taken, err);
	*sysfs_taken = true;
	return fd;
}

int pf_mounts_prepare(const struct pf_spec *spec, int userns_fd, int sysfs_fd, struct pf_child_mounts *m,
	struct pf_err *err)
{
	bool sysfs_taken = false;

	for (size_t i = 0; i < spec->n_mounts; i++) {
		const struct pf_mount *mount = &spec->mounts[i];

		if (mount->kind != PF_MOUNT_BIND && mount->kind != PF_MOUNT_HOST)
			continue;
		if (m->n == PF_MAX_MOUNT_FDS)
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "more than %d mounts", PF_MAX_MOUNT_FDS);
		int fd = prepare(spec, mount, userns_fd, sysfs_fd, &sysfs_taken, err);
		if (fd < 0)
			return pf_wrap(err, "mount %s", mount->destination);
		m->fds[m->n++] = fd;
	}
	if (pf_dev_needs_nodes(spec)) {
		m->nodes = pf_dev_make_nodes(spec, err);
		return m->nodes < 0 ? -1 : 0;
	}
	return 0;
}
