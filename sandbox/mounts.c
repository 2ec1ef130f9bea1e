/* What a box's mounts are made of, before they have a place: detached mounts, by the new mount API.
 *
 * A detached mount is in no mount table; it goes away with its descriptor. So whatever fails, or whoever is
 * killed here, leaves nothing mounted. */

#include "sandbox/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sys.h"

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
	unsigned rec = recursive ? AT_RECURSIVE : 0;
	PF_CLOSE int m = open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | rec);
	struct mount_attr attr = {.attr_set = attr_set, .propagation = MS_PRIVATE};

	if (m < 0)
		return pf_fail(err, errno, "clone of a mount");
	if (attr_set & MOUNT_ATTR__ATIME)
		attr.attr_clr = MOUNT_ATTR__ATIME;
	if (userns_fd >= 0) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = (uint64_t)(unsigned)userns_fd;
	}
	if (mount_setattr(m, "", AT_EMPTY_PATH | rec, &attr, sizeof(attr)) < 0)
		return pf_fail(err, errno,
			userns_fd >= 0 ? "id-mapped mount (its file system must support it: ext4, xfs, "
					 "btrfs, overlay)"
				       : "mount attributes");
	return pf_take_fd(&m);
}

/* The devices that every box has: OCI runtime-spec, config-linux.md, default devices. */
static const struct {
	const char *name;
	unsigned major, minor;
} devices[] = {
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

static const struct {
	const char *name, *target;
} dev_links[] = {{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}};

/* /dev as one tmpfs with nodes in it, made by real root: a box's own root could only bind each from the host.
 * The directory belongs to the box's root. Needs to allow device nodes, so MOUNT_ATTR_NODEV is never set. */
static int make_dev(const struct pf_spec *spec, const struct pf_mount *mount, struct pf_err *err)
{
	uid_t uid = spec->n_uid_maps ? spec->uid_maps[0].host : 0;
	gid_t gid = spec->n_gid_maps ? spec->gid_maps[0].host : 0;
	PF_CLOSE int m = pf_mount_new(
		"tmpfs", "tmpfs", mount->data, mount->attr_set & ~(uint64_t)MOUNT_ATTR_NODEV, err);
	mode_t old = umask(0);
	bool ok = m >= 0;

	for (size_t i = 0; ok && i < sizeof(devices) / sizeof(devices[0]); i++)
		ok = mknodat(m, devices[i].name, S_IFCHR | 0666,
			     makedev(devices[i].major, devices[i].minor)) == 0;
	for (size_t i = 0; ok && i < sizeof(dev_links) / sizeof(dev_links[0]); i++)
		ok = symlinkat(dev_links[i].target, m, dev_links[i].name) == 0;
	ok = ok && mkdirat(m, "pts", 0755) == 0 && mkdirat(m, "shm", 01777) == 0 &&
	     mkdirat(m, "mqueue", 01777) == 0;
	ok = ok && fchownat(m, "", uid, gid, AT_EMPTY_PATH) == 0;
	int saved = errno;
	umask(old);
	if (m < 0)
		return -1;
	if (!ok)
		return pf_fail(err, saved, "make /dev");
	return pf_take_fd(&m);
}

static int prepare_bind(const struct pf_mount *mount, int userns_fd, struct pf_err *err)
{
	PF_CLOSE int src = open(mount->source, O_PATH | O_CLOEXEC);

	if (src < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "mount source %s", mount->source);
	return pf_mount_clone(src, mount->recursive, mount->attr_set, mount->idmap ? userns_fd : -1, err);
}

int pf_mounts_prepare(const struct pf_spec *spec, int userns_fd, int sysfs_fd, struct pf_child_mounts *m,
	struct pf_err *err)
{
	for (size_t i = 0; i < spec->n_mounts; i++) {
		const struct pf_mount *mount = &spec->mounts[i];
		int fd;

		if (mount->kind != PF_MOUNT_BIND && mount->kind != PF_MOUNT_HOST)
			continue;
		if (m->n == PF_MAX_MOUNT_FDS)
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "more than %d mounts", PF_MAX_MOUNT_FDS);
		if (mount->kind == PF_MOUNT_BIND)
			fd = prepare_bind(mount, userns_fd, err);
		else if (strcmp(mount->type, "sysfs") == 0)
			fd = sysfs_fd >= 0 ? fcntl(sysfs_fd, F_DUPFD_CLOEXEC, 3)
					   : pf_mount_new("sysfs", "sysfs", NULL, mount->attr_set, err);
		else
			fd = make_dev(spec, mount, err);
		if (fd < 0)
			return pf_wrap(err, "mount %s", mount->destination);
		m->fds[m->n++] = fd;
	}
	return 0;
}
