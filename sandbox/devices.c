#include "sandbox/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/sys.h"
#include "sandbox/mounts.h"

/* OCI runtime-spec, config-linux.md, default devices. */
static const struct pf_device defaults[] = {
	{(char *)"/dev/null", S_IFCHR, 1, 3, 0666, 0, 0},
	{(char *)"/dev/zero", S_IFCHR, 1, 5, 0666, 0, 0},
	{(char *)"/dev/full", S_IFCHR, 1, 7, 0666, 0, 0},
	{(char *)"/dev/random", S_IFCHR, 1, 8, 0666, 0, 0},
	{(char *)"/dev/urandom", S_IFCHR, 1, 9, 0666, 0, 0},
	{(char *)"/dev/tty", S_IFCHR, 5, 0, 0666, 0, 0},
};
#define N_DEFAULTS (sizeof(defaults) / sizeof(defaults[0]))

static const struct {
	const char *name, *target;
} dev_links[] = {{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}};
#define N_LINKS (sizeof(dev_links) / sizeof(dev_links[0]))

enum dev_kind { DEV_IMAGE, DEV_TMPFS, DEV_BOUND };

/* What is on /dev; the last mount there counts. */
static enum dev_kind dev_of(const struct pf_spec *spec)
{
	enum dev_kind kind = DEV_IMAGE;

	for (size_t i = 0; i < spec->n_mounts; i++)
		if (strcmp(spec->mounts[i].destination, "/dev") == 0)
			kind = spec->mounts[i].kind == PF_MOUNT_HOST ? DEV_TMPFS : DEV_BOUND;
	return kind;
}

/* The i-th device of the box: the configuration's, then those of the defaults that it does not name itself.
 */
static const struct pf_device *device(const struct pf_spec *spec, size_t i)
{
	const struct pf_device *own = spec->devices;

	if (i < spec->n_devices)
		return &own[i];
	for (size_t k = 0; own && k < spec->n_devices; k++)
		if (strcmp(own[k].path, defaults[i - spec->n_devices].path) == 0)
			return NULL;
	return &defaults[i - spec->n_devices];
}

static bool in_dev_tmpfs(const struct pf_spec *spec, const struct pf_device *d)
{
	return dev_of(spec) == DEV_TMPFS && strncmp(d->path, "/dev/", 5) == 0;
}

static bool is_bound(const struct pf_spec *spec, const struct pf_device *d)
{
	return dev_of(spec) == DEV_BOUND && strncmp(d->path, "/dev/", 5) == 0;
}

/* The host's id of a box's one; the box's own where it has no user namespace. */
static uint32_t host_id(const struct pf_id_map *maps, size_t n, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (id >= maps[i].container && id - maps[i].container < maps[i].size)
			return maps[i].host + (id - maps[i].container);
	return n ? UINT32_MAX : id;
}

static int make_node(
	const struct pf_spec *spec, const struct pf_device *d, int dir, const char *name, struct pf_err *err)
{
	uid_t uid = host_id(spec->uid_maps, spec->n_uid_maps, d->uid);
	gid_t gid = host_id(spec->gid_maps, spec->n_gid_maps, d->gid);

	if (mknodat(dir, name, d->type | d->mode, makedev(d->major, d->minor)) < 0)
		return pf_fail(err, errno, "device %s", d->path);
	if (uid == UINT32_MAX || gid == UINT32_MAX)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "device %s: its owner is not in the id mappings", d->path);
	if ((uid || gid) && fchownat(dir, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
		return pf_fail(err, errno, "device %s: owner", d->path);
	return 0;
}

/* A node at a path within /dev, in directories that are made as needed. */
static int make_in_dev(const struct pf_spec *spec, const struct pf_device *d, int dev, struct pf_err *err)
{
	char parent[256];
	const char *rel = d->path + 5, *slash = strrchr(rel, '/');

	if (!slash)
		return make_node(spec, d, dev, rel, err);
	if ((size_t)(slash - rel) >= sizeof(parent))
		return pf_fail(err, ENAMETOOLONG, "device %s", d->path);
	memcpy(parent, rel, (size_t)(slash - rel));
	parent[slash - rel] = '\0';
	PF_CLOSE int dir = pf_mkdirs_in_root(dev, parent, 0755);
	if (dir < 0)
		return pf_fail(err, errno, "device %s", d->path);
	return make_node(spec, d, dir, slash + 1, err);
}

/* How many there are to make: root of a user namespace only makes none. */
static size_t n_nodes(const struct pf_spec *spec)
{
	return pf_in_first_userns() ? spec->n_devices + N_DEFAULTS : 0;
}

static int fill_dev(const struct pf_spec *spec, int m, struct pf_err *err)
{
	uid_t uid = host_id(spec->uid_maps, spec->n_uid_maps, 0);
	gid_t gid = host_id(spec->gid_maps, spec->n_gid_maps, 0);

	for (size_t i = 0, n = n_nodes(spec); i < n; i++) {
		const struct pf_device *d = device(spec, i);
		if (d && in_dev_tmpfs(spec, d) && make_in_dev(spec, d, m, err) < 0)
			return -1;
	}
	for (size_t i = 0; i < N_LINKS; i++)
		if (symlinkat(dev_links[i].target, m, dev_links[i].name) < 0 && errno != EEXIST)
			return pf_fail(err, errno, "/dev/%s", dev_links[i].name);
	if ((mkdirat(m, "pts", 0755) < 0 && errno != EEXIST) ||
		(mkdirat(m, "shm", 01777) < 0 && errno != EEXIST) ||
		(mkdirat(m, "mqueue", 01777) < 0 && errno != EEXIST))
		return pf_fail(err, errno, "make /dev");
	if ((uid || gid) && uid != UINT32_MAX && gid != UINT32_MAX &&
		fchownat(m, "", uid, gid, AT_EMPTY_PATH) < 0)
		return pf_fail(err, errno, "owner of /dev");
	return 0;
}

int pf_dev_make(const struct pf_spec *spec, const struct pf_mount *mount, struct pf_err *err)
{
	/* It is there to hold device nodes: nodev on it would make it useless. */
	PF_CLOSE int m = pf_mount_new(
		"tmpfs", "tmpfs", mount->data, mount->attr_set & ~(uint64_t)MOUNT_ATTR_NODEV, err);

	if (m < 0)
		return -1;
	mode_t old = umask(0);
	int r = fill_dev(spec, m, err);
	umask(old);
	return r < 0 ? -1 : pf_take_fd(&m);
}

bool pf_dev_needs_nodes(const struct pf_spec *spec)
{
	for (size_t i = 0, n = n_nodes(spec); i < n; i++) {
		const struct pf_device *d = device(spec, i);
		if (d && !in_dev_tmpfs(spec, d) && !is_bound(spec, d))
			return true;
	}
	return false;
}

int pf_dev_make_nodes(const struct pf_spec *spec, struct pf_err *err)
{
	PF_CLOSE int m = pf_mount_new("tmpfs", "tmpfs", (char *[]){(char *)"mode=700", NULL},
		MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);
	mode_t old = umask(0);
	int r = m < 0 ? -1 : 0;

	for (size_t i = 0; r == 0 && i < spec->n_devices + N_DEFAULTS; i++) {
		const struct pf_device *d = device(spec, i);
		char name[24];
		snprintf(name, sizeof(name), "%zu", i);
		if (d && !in_dev_tmpfs(spec, d) && !is_bound(spec, d))
			r = make_node(spec, d, m, name, err);
	}
	umask(old);
	return r < 0 ? -1 : pf_take_fd(&m);
}

static int bind_node(const struct pf_device *d, int nodes, const char *name, int root, struct pf_err *err)
{
	PF_CLOSE int there = pf_open_in_root(root, d->path, O_PATH | O_NOFOLLOW, 0), target = -1, m = -1;
	struct stat st;

	if (there >= 0 && fstat(there, &st) == 0) {
		if ((st.st_mode & S_IFMT) == d->type &&
			(d->type == S_IFIFO || st.st_rdev == makedev(d->major, d->minor)))
			return 0;
		/* An empty file is what an earlier life of the container, or an image builder, left as a
		 * place for a mount. */
		if (!S_ISREG(st.st_mode) || st.st_size != 0)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"device %s: something else is there in the root file system", d->path);
	}
	PF_CLOSE int node = nodes < 0 ? open(d->path, O_PATH | O_NOFOLLOW | O_CLOEXEC)
				      : openat(nodes, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (node < 0)
		return pf_fail(err, errno, "device %s", d->path);
	if (nodes < 0 && (fstat(node, &st) < 0 || (st.st_mode & S_IFMT) != d->type ||
				 st.st_rdev != makedev(d->major, d->minor)))
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"device %s: the machine's own is something else, and without root none can be made",
			d->path);
	m = pf_mount_clone(node, false, 0, -1, err);
	if (m < 0)
		return pf_wrap(err, "device %s", d->path);
	target = pf_mkfile_in_root(root, d->path);
	if (target < 0 ||
		move_mount(m, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return pf_fail(err, errno, "device %s", d->path);
	return 0;
}

/* The links in an image's own /dev, where it has not got them. That directory is opened inside the root: an
 * image's symlink there leads nowhere else (CVE-2026-41579). */
static int link_dev(int root, struct pf_err *err)
{
	PF_CLOSE int dev = pf_mkdirs_in_root(root, "/dev", 0755);

	if (dev < 0)
		return pf_fail(err, errno, "/dev in the root file system");
	for (size_t i = 0; i < N_LINKS; i++)
		if (symlinkat(dev_links[i].target, dev, dev_links[i].name) < 0 && errno != EEXIST &&
			errno != EROFS)
			return pf_fail(err, errno, "/dev/%s", dev_links[i].name);
	return 0;
}

int pf_dev_bind_nodes(const struct pf_spec *spec, int nodes, int root, struct pf_err *err)
{
	for (size_t i = 0; i < spec->n_devices + N_DEFAULTS; i++) {
		const struct pf_device *d = device(spec, i);
		char name[24];
		snprintf(name, sizeof(name), "%zu", i);
		if (d && (nodes < 0 || !in_dev_tmpfs(spec, d)) && !is_bound(spec, d) &&
			bind_node(d, nodes, name, root, err) < 0)
			return -1;
	}
	return dev_of(spec) == DEV_IMAGE ? link_dev(root, err) : 0;
}
