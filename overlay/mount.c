/* Theory of operation
 *
 * The root of a box is an overlay whose superblock belongs to real root in the initial user namespace: its
 * xattrs are trusted.overlay.*, which nobody inside can write. The ids inside are the box's own all the same,
 * because every layer is a private clone (open_tree) with the box's user namespace as its id map
 * (mount_setattr): disk id 0 is the box's root. Upper and work must be one mount for the kernel, so what is
 * cloned is the directory that holds both.
 *
 * The kernel works in the upper with the credentials that the overlay was made with, and creates its work
 * directory at once. Real root's id has no place in the map of such a mount (EOVERFLOW, upon which the kernel
 * silently goes read-only), so the overlay is made with the file system ids that the map gives to disk id 0,
 * and with all of root's capabilities. That the result can be written is checked.
 *
 * Way 1, by descriptors: the clones stay detached and go into fsconfig(FSCONFIG_SET_FD). No path, no
 * namespace, no child. Way 2, for kernels that want paths of attached mounts: a child in a private copy of
 * the mount namespace puts a tmpfs over its root, attaches the clones there under short numbers, calls
 * mount(2) (fsconfig strings end at 255 bytes), clones the result and hands it back over a socket. The
 * child's namespace dies with it; overlay keeps private references to the layers. The clones are made by the
 * parent: a namespace can clone only its own mounts. Between clone and exit the child calls nothing but
 * system calls.
 *
 * Options: index, metacopy and redirect_dir off, because they turn the upper into something that is no plain
 * diff (and follow what a hostile upper says); xino off, as nothing here relies on persistent inode numbers.
 */
#include "overlay/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"
#include "base/sys.h"

#define PATH_OPTIONS "index=off,metacopy=off,redirect_dir=nofollow,xino=off"

static int idmap_error(int errnum, struct pf_err *err)
{
	if (errnum != EINVAL && errnum != EOPNOTSUPP)
		return pf_fail(err, errnum, "map the ids of a layer");
	return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errnum,
		"the filesystem of a layer or bind cannot map ids; keep the store and binds on ext4, xfs, "
		"btrfs or "
		"tmpfs (Linux 6.3)");
}

static int set_attrs(int mount_fd, int userns_fd, bool read_only, bool recursive, struct pf_err *err)
{
	struct mount_attr attr = {.attr_set = read_only ? MOUNT_ATTR_RDONLY : 0};

	if (userns_fd >= 0) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = (uint64_t)(unsigned)userns_fd;
	}
	if (attr.attr_set == 0)
		return 0;
	if (mount_setattr(
		    mount_fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0U), &attr, sizeof(attr)) == 0)
		return 0;
	return userns_fd >= 0 ? idmap_error(errno, err) : pf_fail(err, errno, "make a bind read-only");
}

int pf_bind_mount_fd(int src_fd, int userns_fd, bool read_only, bool recursive, struct pf_err *err)
{
	PF_CLOSE int fd = open_tree(src_fd, "",
		OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0U));

	if (fd < 0)
		return pf_fail(err, errno, "clone a mount");
	if (set_attrs(fd, userns_fd, read_only, recursive, err) < 0)
		return -1;
	return pf_take_fd(&fd);
}

int pf_dir_without_devices(int dirfd, struct pf_err *err)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NODEV};
	PF_CLOSE int mnt = pf_bind_mount_fd(dirfd, -1, false, false, err);

	if (mnt < 0)
		return -1;
	if (mount_setattr(mnt, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return pf_fail(err, errno, "make a mount without devices");
	int fd = openat(mnt, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? pf_fail(err, errno, "open a mount without devices") : fd;
}

/* What goes into the overlay: the caller's descriptors, or clones of them that are ours to close. */
struct layers {
	int *fds;
	bool *owned;
	size_t n; /* without the writable one */
	int rw;
	bool rw_owned;
};

static void layers_done(struct layers *l)
{
	for (size_t i = 0; l->fds && i < l->n; i++)
		if (l->owned[i])
			close(l->fds[i]);
	if (l->rw_owned)
		close(l->rw);
	free(l->fds);
	free(l->owned);
}

static int clone_detached(int fd, struct pf_err *err);

/* With an id map the workspace is cloned, never mapped itself: who packs it reads it by the ids on the disk.
 * elsewhere: a kernel before 6.15 cannot clone a mount that is attached nowhere, which the image backend's
 * is, so that is done where it can be attached. */
static int clone_rw(struct layers *l, int rw_fd, int userns_fd, bool elsewhere, struct pf_err *err)
{
	int fd = open_tree(rw_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

	if (fd < 0 && errno == EINVAL && elsewhere) {
		fd = clone_detached(rw_fd, err);
		if (fd < 0)
			return -1;
	}
	if (fd < 0)
		return pf_fail(err, errno, "clone the workspace's mount");
	l->rw = fd;
	l->rw_owned = true;
	return set_attrs(fd, userns_fd, false, false, err);
}

/* VIA_FDS clones only what must be idmapped; VIA_PATHS everything, to attach it in another namespace. */
static int clone_layers(const int *lower_fds, size_t n, int rw_fd, int userns_fd, enum pf_overlay_via via,
	struct layers *l, struct pf_err *err)
{
	bool clone = via == PF_OVERLAY_VIA_PATHS || userns_fd >= 0;

	*l = (struct layers){
		.fds = pf_calloc(n, sizeof(int)), .owned = pf_calloc(n, sizeof(bool)), .n = n, .rw = -1};
	for (size_t i = 0; i < n; i++) {
		l->fds[i] =
			clone ? pf_bind_mount_fd(lower_fds[i], userns_fd, false, false, err) : lower_fds[i];
		if (l->fds[i] < 0)
			return -1;
		l->owned[i] = clone;
	}
	if (rw_fd < 0)
		return 0;
	if (clone)
		return clone_rw(l, rw_fd, userns_fd, via == PF_OVERLAY_VIA_PATHS, err);
	l->rw = rw_fd;
	return 0;
}

static int open_rw(const struct layers *l, const char *name, struct pf_err *err)
{
	int fd = openat(l->rw, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? pf_fail(err, errno, "workspace: %s", name) : fd;
}

/* The text that the kernel keeps on a filesystem context ("e overlay: …"), for the error message. */
static int fs_error(int fs, int errnum, const char *what, struct pf_err *err)
{
	char log[256];
	ssize_t n = read(fs, log, sizeof(log) - 1);

	if (n <= 0)
		return pf_fail(err, errnum, "overlay: %s", what);
	log[n] = '\0';
	log[strcspn(log, "\n")] = '\0';
	return pf_fail(err, errnum, "overlay: %s: %s", what, log + (n > 2 && log[1] == ' ' ? 2 : 0));
}

/* The ids that the kernel shall use in the upper: those that own what is 0:0 on disk, seen through the map.
 */
struct maker {
	uid_t uid;
	gid_t gid;
};

static int find_maker(const struct layers *l, struct maker *m, struct pf_err *err)
{
	struct stat st;
	PF_CLOSE int work = l->rw >= 0 ? open_rw(l, "work", err) : -1;

	*m = (struct maker){0};
	if (l->rw < 0)
		return 0;
	if (work < 0)
		return -1;
	if (fstat(work, &st) < 0)
		return pf_fail(err, errno, "workspace: stat work");
	*m = (struct maker){st.st_uid, st.st_gid};
	return 0;
}

/* Take these file system ids and keep the capabilities that leaving id 0 drops, for this thread alone. Only
 * system calls. maker 0:0 gives root's own back (and with the id the capabilities). */
static int become(struct maker m)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];

	if (syscall(SYS_capget, &head, caps) < 0)
		return -1;
	setfsgid(m.gid);
	setfsuid(m.uid);
	if ((uid_t)setfsuid((uid_t)-1) != m.uid || (gid_t)setfsgid((gid_t)-1) != m.gid) {
		errno = EPERM;
		return -1;
	}
	return (int)syscall(SYS_capset, &head, caps);
}

static int create_as(int fs, struct maker m, struct pf_err *err)
{
	if (become(m) < 0) {
		pf_fail(err, errno, "overlay: take the workspace's ids");
		(void)become((struct maker){0});
		return -1;
	}
	int r = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
	if (r < 0)
		fs_error(fs, errno, "create", err);
	return become((struct maker){0}) < 0 ? pf_fail(err, errno, "overlay: take root's ids back") : r;
}

/* The kernel mounts read-only, with a line in its log, when it cannot use the work directory. */
static int check_writable(int fd, struct pf_err *err)
{
	struct statvfs v;

	if (fstatvfs(fd, &v) < 0)
		return pf_fail(err, errno, "overlay: statvfs");
	if (v.f_flag & ST_RDONLY)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"overlay: the kernel can use the workspace only for reading (its log says why)");
	return 0;
}

static int by_fds(const struct layers *l, bool read_only, struct pf_err *err)
{
	static const char *const options[][2] = {
		{"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "nofollow"}, {"xino", "off"}};
	struct maker maker;
	PF_CLOSE int upper = -1, work = -1;
	PF_CLOSE int fs = fsopen("overlay", FSOPEN_CLOEXEC);

	if (fs < 0)
		return pf_fail_kind(err, errno == ENODEV ? PF_ERR_UNSUPPORTED : PF_ERR_SYSTEM, errno,
			"overlay filesystem (modprobe overlay)");
	for (size_t i = 0; i < l->n; i++)
		if (fsconfig(fs, FSCONFIG_SET_FD, "lowerdir+", NULL, l->fds[i]) < 0)
			return fs_error(fs, errno, "lowerdir", err);
	if (l->rw >= 0) {
		if ((upper = open_rw(l, "upper", err)) < 0 || (work = open_rw(l, "work", err)) < 0)
			return -1;
		if (fsconfig(fs, FSCONFIG_SET_FD, "upperdir", NULL, upper) < 0)
			return fs_error(fs, errno, "upperdir", err);
		if (fsconfig(fs, FSCONFIG_SET_FD, "workdir", NULL, work) < 0)
			return fs_error(fs, errno, "workdir", err);
	}
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (fsconfig(fs, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0) < 0)
			return fs_error(fs, errno, options[i][0], err);
	if (fsconfig(fs, FSCONFIG_SET_STRING, "source", "pinfold", 0) < 0)
		return fs_error(fs, errno, "source", err);
	if (find_maker(l, &maker, err) < 0 || create_as(fs, maker, err) < 0)
		return -1;
	int fd = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV | (read_only ? MOUNT_ATTR_RDONLY : 0U));
	return fd < 0 ? fs_error(fs, errno, "mount", err) : fd;
}

static int attach(int mount_fd, const char *name)
{
	if (mkdir(name, 0700) < 0)
		return -1;
	return move_mount(mount_fd, "", AT_FDCWD, name, MOVE_MOUNT_F_EMPTY_PATH);
}

/* In the child: a tmpfs as the root of a mount namespace of our own. */
static int own_root(void)
{
	int fs, fd;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -1;
	fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
	if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	fd = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	if (fd < 0 || move_mount(fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -1;
	return fchdir(fd) < 0 || chroot(".") < 0 ? -1 : 0;
}

struct child_plan {
	int clone; /* only clone this mount, with the rest unused; -1: make the overlay */
	const struct layers *l;
	char (*names)[8]; /* one per layer, made before the clone */
	const char *options;
	struct maker maker;
	bool read_only;
	int sock;
};

/* Only system calls. Returns the step that failed, for the parent's message, with errno; 0 when the mount was
 * sent. */
static int child_mount(const struct child_plan *p)
{
	int fd;

	if (own_root() < 0)
		return 1;
	if (p->clone >= 0) {
		if (attach(p->clone, "w") < 0)
			return 3;
		fd = open_tree(AT_FDCWD, "w", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		return fd < 0 ? 5 : pf_send_fd(p->sock, fd) < 0 ? 6 : 0;
	}
	for (size_t i = 0; i < p->l->n; i++)
		if (attach(p->l->fds[i], p->names[i]) < 0)
			return 2;
	if (p->l->rw >= 0 && attach(p->l->rw, "w") < 0)
		return 3;
	if (mkdir("m", 0700) < 0 || become(p->maker) < 0 ||
		mount("pinfold", "m", "overlay", MS_NODEV | (p->read_only ? MS_RDONLY : 0U), p->options) < 0)
		return 4;
	fd = open_tree(AT_FDCWD, "m", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0)
		return 5;
	return pf_send_fd(p->sock, fd) < 0 ? 6 : 0;
}

static const char *const child_steps[] = {"", "private mount namespace", "attach a layer",
	"attach the workspace", "mount", "clone the mount", "hand over"};

static int run_child(const struct child_plan *plan, int parent_sock, struct pf_err *err)
{
	struct clone_args args = {.flags = CLONE_NEWNS, .exit_signal = SIGCHLD};
	int report[2], code[2] = {1, 0}, status;

	if (pipe2(report, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe");
	pid_t pid = pf_clone3(&args);
	if (pid == 0) {
		code[0] = child_mount(plan);
		code[1] = errno;
		ssize_t n = write(report[1], code, sizeof(code));
		_exit(n == (ssize_t)sizeof(code) ? 0 : 1);
	}
	int saved = errno;
	close(report[1]);
	if (pid < 0) {
		close(report[0]);
		return pf_fail(err, saved, "clone3");
	}
	ssize_t n = pf_read_full(report[0], code, sizeof(code));
	close(report[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (n != (ssize_t)sizeof(code))
		return pf_fail(err, 0, "overlay: the mounting process died");
	if (code[0] != 0)
		return pf_fail(err, code[1], "overlay: %s", child_steps[code[0]]);
	int fd = pf_recv_fd(parent_sock);
	return fd < 0 ? pf_fail(err, errno, "overlay: receive the mount") : fd;
}

/* Afterwards fd's own mount is one that was taken off: what is open on it goes on. */
static int clone_detached(int fd, struct pf_err *err)
{
	int sock[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0)
		return pf_fail(err, errno, "socketpair");
	struct child_plan plan = {.clone = fd, .sock = sock[1]};
	int clone = run_child(&plan, sock[0], err);
	close(sock[0]);
	close(sock[1]);
	return clone;
}

static int by_paths(const struct layers *l, bool read_only, struct pf_err *err)
{
	PF_BUF struct pf_buf opts = {0};
	struct maker maker;
	int sock[2];

	if (find_maker(l, &maker, err) < 0)
		return -1;
	pf_buf_str(&opts, PATH_OPTIONS ",lowerdir=");
	PF_FREE char(*names)[8] = pf_calloc(l->n, sizeof(*names));
	for (size_t i = 0; i < l->n; i++) {
		snprintf(names[i], sizeof(names[i]), "%u", (unsigned)i % 1000);
		pf_buf_printf(&opts, "%s%s", i ? ":" : "", names[i]);
	}
	if (l->rw >= 0)
		pf_buf_str(&opts, ",upperdir=w/upper,workdir=w/work");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0)
		return pf_fail(err, errno, "socketpair");
	struct child_plan plan = {.clone = -1,
		.l = l,
		.names = names,
		.options = opts.data,
		.maker = maker,
		.read_only = read_only,
		.sock = sock[1]};
	int fd = run_child(&plan, sock[0], err);
	close(sock[0]);
	close(sock[1]);
	return fd;
}

int pf_overlay_mount_via(enum pf_overlay_via via, const int *lower_fds, size_t n, int rw_fd, int userns_fd,
	bool read_only, struct pf_err *err)
{
	struct layers l;
	int fd = -1;

	if (n == 0 || n > PF_OVERLAY_MAX_LOWERS)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "overlay: %zu layers (1 to %d are possible)", n,
			PF_OVERLAY_MAX_LOWERS);
	/* The kernel wants two layers at least when nothing is writable; one alone needs no overlay. */
	if (n == 1 && rw_fd < 0) {
		fd = pf_bind_mount_fd(lower_fds[0], userns_fd, true, false, err);
		if (fd < 0)
			return -1;
		struct mount_attr attr = {.attr_set = MOUNT_ATTR_NODEV};
		if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0) {
			pf_fail(err, errno, "set nodev");
			close(fd);
			return -1;
		}
		return fd;
	}
	if (via != PF_OVERLAY_VIA_PATHS) {
		if (clone_layers(lower_fds, n, rw_fd, userns_fd, PF_OVERLAY_VIA_FDS, &l, err) == 0)
			fd = by_fds(&l, read_only, err);
		layers_done(&l);
	}
	/* EINVAL is how older kernels say that they know no "lowerdir+", or no detached layers; those that
	 * know overlay's options as one text only (before 6.5) say EOPNOTSUPP. */
	if (fd < 0 && (via == PF_OVERLAY_VIA_PATHS ||
			      (via == PF_OVERLAY_VIA_AUTO &&
				      (err->errnum == EINVAL || err->errnum == EOPNOTSUPP)))) {
		if (clone_layers(lower_fds, n, rw_fd, userns_fd, PF_OVERLAY_VIA_PATHS, &l, err) == 0)
			fd = by_paths(&l, read_only, err);
		layers_done(&l);
	}
	if (fd >= 0 && !read_only && rw_fd >= 0 && check_writable(fd, err) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int pf_overlay_mount(
	const int *lower_fds, size_t n, int rw_fd, int userns_fd, bool read_only, struct pf_err *err)
{
	return pf_overlay_mount_via(PF_OVERLAY_VIA_AUTO, lower_fds, n, rw_fd, userns_fd, read_only, err);
}
