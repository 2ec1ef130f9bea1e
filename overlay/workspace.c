/* Theory of operation
 *
 * A workspace is a directory holding `upper` and `work` (and `generations` once something was sealed). With
 * the dir backend it lies in the sandbox's own directory. With the image backend it is the root of an ext4
 * file system in one sparse file, which gives a limit in bytes and inodes on any host: whatever the sandbox
 * writes, it gets ENOSPC and nobody else does.
 *
 * The image is as large as asked plus what ext4 needs for itself, so that `size` is what can be written. It
 * has a journal (what fsync acknowledged survives a power cut), no reserved blocks (overlay writes as real
 * root, which could use them) and no lazy initialisation (the file is sparse, so its tables are zeros
 * already; letting the kernel zero them would fill the holes). A file system is made once per size and kept
 * as a template; a new one is a sparse copy of it (a reflink where possible), some milliseconds cheaper than
 * mke2fs.
 *
 * The loop device is configured to go away with its last user (autoclear), and our descriptor of it is closed
 * as soon as the mount holds it: there is no path on which one could leak, not even kill -9. The lock that
 * keeps two users apart is flock(2) on the very open file that the loop device is given; the kernel's
 * reference keeps it for as long as the device lives. */
#include "overlay/workspace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"

#define IMAGE "workspace.img"
#define DIR_NAME "workspace"
#define MIB ((int64_t)1 << 20)
#define DIR_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

void pf_workspace_close(struct pf_workspace *ws)
{
	int *fds[] = {&ws->upper_fd, &ws->work_fd, &ws->rw_fd};

	for (size_t i = 0; i < 3; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

static int make_dir(int dirfd, const char *name, mode_t mode, struct pf_err *err)
{
	if (mkdirat(dirfd, name, mode) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "workspace: mkdir %s", name);
	return 0;
}

/* upper and work below rw_fd, made where they are missing. A crash in the middle of sealing leaves the new
 * upper under the name it is prepared with. */
static int open_parts(struct pf_workspace *ws, struct pf_err *err)
{
	if (faccessat(ws->rw_fd, "upper", F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
		renameat(ws->rw_fd, "upper.new", ws->rw_fd, "upper") < 0 && errno != ENOENT)
		return pf_fail(err, errno, "workspace: finish sealing");
	if (make_dir(ws->rw_fd, "upper", 0755, err) < 0 || make_dir(ws->rw_fd, "work", 0700, err) < 0)
		return -1;
	ws->upper_fd = openat(ws->rw_fd, "upper", DIR_FLAGS);
	ws->work_fd = openat(ws->rw_fd, "work", DIR_FLAGS);
	if (ws->upper_fd < 0 || ws->work_fd < 0)
		return pf_fail(err, errno, "workspace: open");
	return 0;
}

/* ---- image backend: the file ---- */

static int64_t journal_size(int64_t size)
{
	return size < 256 * MIB ? 4 * MIB : 16 * MIB;
}

/* Inode tables take 1/64 (256 bytes per 16 KiB), bitmaps and descriptors little more; and the kernel keeps a
 * fiftieth, at most 16 MiB, back for its own metadata. */
static int64_t file_size(int64_t size)
{
	int64_t kept_back = size / 48 < 16 * MIB ? size / 48 : 16 * MIB;
	int64_t total = size + size / 60 + kept_back + journal_size(size) + MIB;

	return (total + 4095) & ~(int64_t)4095;
}

static char *fd_path(int fd)
{
	return pf_asprintf("/proc/self/fd/%d", fd);
}

/* pf_run's child gets only what is not close-on-exec; the descriptor is passed as a path. */
static int run_on_fd(char *const argv[], int fd, struct pf_err *err)
{
	if (pf_set_cloexec(fd, false) < 0)
		return pf_fail(err, errno, "fcntl");
	int r = pf_run(argv, NULL, err);
	(void)pf_set_cloexec(fd, true);
	return r;
}

static int make_fs(int fd, int64_t size, struct pf_err *err)
{
	PF_FREE char *path = fd_path(fd);
	PF_FREE char *journal = pf_asprintf("size=%" PRId64, journal_size(size) / MIB);
	char *argv[] = {"/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384",
		"-m", "0", "-J", journal, "-O", "^resize_inode", "-E",
		"lazy_itable_init=1,lazy_journal_init=1,nodiscard", path, NULL};

	if (ftruncate(fd, file_size(size)) < 0)
		return pf_fail(err, errno, "workspace: set the size of %s", IMAGE);
	return run_on_fd(argv, fd, err) < 0 ? pf_wrap(err, "workspace") : 0;
}

/* Copy one stretch; by the kernel where it can, which it cannot between some pairs of file systems. */
static int copy_stretch(int from, int to, off_t at, off_t end, struct pf_err *err)
{
	char buf[65536];

	while (at < end) {
		off_t in = at, out = at;
		ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - at), 0);
		if (n < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == EINVAL)) {
			size_t want = end - at < (off_t)sizeof(buf) ? (size_t)(end - at) : sizeof(buf);
			n = pread(from, buf, want, at);
			if (n > 0)
				n = pwrite(to, buf, (size_t)n, at);
		}
		if (n <= 0)
			return pf_fail(err, n < 0 ? errno : EIO, "workspace: copy the template");
		at += n;
	}
	return 0;
}

/* Copy the parts of a sparse file that hold data. */
static int copy_sparse(int from, int to, struct pf_err *err)
{
	struct stat st;
	off_t data = 0, hole;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	if (fstat(from, &st) < 0 || ftruncate(to, st.st_size) < 0)
		return pf_fail(err, errno, "workspace: copy the template");
	while ((data = lseek(from, data, SEEK_DATA)) >= 0) {
		hole = lseek(from, data, SEEK_HOLE);
		if (hole < 0)
			return pf_fail(err, errno, "workspace: copy the template");
		if (copy_stretch(from, to, data, hole, err) < 0)
			return -1;
		data = hole;
	}
	return errno == ENXIO ? 0 : pf_fail(err, errno, "workspace: copy the template");
}

/* The template of this size, made if it is missing: under another name first, so that it is whole or not
 * there. */
static int open_template(int template_dirfd, int64_t size, struct pf_err *err)
{
	PF_FREE char *name = pf_asprintf("ext4-%" PRId64 ".img", size);
	PF_FREE char *tmp = pf_asprintf(".ext4-%" PRId64 ".%d.tmp", size, (int)getpid());
	int fd = openat(template_dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0 || errno != ENOENT)
		return fd < 0 ? pf_fail(err, errno, "workspace: template %s", name) : fd;
	(void)unlinkat(template_dirfd, tmp, 0);
	fd = openat(template_dirfd, tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return pf_fail(err, errno, "workspace: template %s", name);
	if (make_fs(fd, size, err) == 0) {
		/* Durable, or a power cut could leave a template with holes for good. */
		if (fsync(fd) == 0 && renameat(template_dirfd, tmp, template_dirfd, name) == 0)
			return fd;
		pf_fail(err, errno, "workspace: template %s", name);
	}
	(void)unlinkat(template_dirfd, tmp, 0);
	close(fd);
	return -1;
}

static int fill_image(int fd, int template_dirfd, int64_t size, struct pf_err *err)
{
	if (template_dirfd < 0)
		return make_fs(fd, size, err);
	PF_CLOSE int template = open_template(template_dirfd, size, err);
	return template <0 ? -1 : copy_sparse(template, fd, err);
}

/* ---- image backend: loop device and mount ---- */

/* Another process may take the free number first: the device then is busy and the next is asked for. */
static int attach_loop(int file_fd, char path[32], struct pf_err *err)
{
	struct loop_config config = {.fd = (uint32_t)file_fd,
		.info = {.lo_flags = LO_FLAGS_AUTOCLEAR, .lo_file_name = "pinfold " IMAGE}};
	PF_CLOSE int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	if (control < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errno,
			"a size limit needs loop devices: /dev/loop-control (modprobe loop)");
	for (int tries = 0; tries < 256; tries++) {
		int n = ioctl(control, LOOP_CTL_GET_FREE);
		if (n < 0)
			return pf_fail(err, errno, "workspace: find a free loop device");
		snprintf(path, 32, "/dev/loop%d", n);
		int fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return pf_fail(err, errno, "workspace: %s", path);
		if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
			return fd;
		int saved = errno;
		close(fd);
		if (saved != EBUSY)
			return pf_fail(err, saved, "workspace: set up %s", path);
	}
	return pf_fail(err, EBUSY, "workspace: every free loop device was taken by somebody else");
}

static int mount_ext4(const char *device, struct pf_err *err)
{
	static const char *const flags[] = {"noinit_itable", "discard"};
	PF_CLOSE int fs = fsopen("ext4", FSOPEN_CLOEXEC);

	if (fs < 0)
		return pf_fail_kind(err, errno == ENODEV ? PF_ERR_UNSUPPORTED : PF_ERR_SYSTEM, errno,
			"workspace: ext4 (modprobe ext4)");
	if (fsconfig(fs, FSCONFIG_SET_STRING, "source", device, 0) < 0 ||
		fsconfig(fs, FSCONFIG_SET_STRING, "errors", "remount-ro", 0) < 0)
		return pf_fail(err, errno, "workspace: ext4 options");
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (fsconfig(fs, FSCONFIG_SET_FLAG, flags[i], NULL, 0) < 0)
			return pf_fail(err, errno, "workspace: ext4 option %s", flags[i]);
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return pf_fail(err, errno, "workspace: mount %s", IMAGE);
	int fd = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV);
	return fd < 0 ? pf_fail(err, errno, "workspace: mount %s", IMAGE) : fd;
}

static int mount_image(int file_fd, struct pf_err *err)
{
	char device[32];
	PF_CLOSE int loop = attach_loop(file_fd, device, err);

	return loop < 0 ? -1 : mount_ext4(device, err);
}

/* s_magic and s_state of the superblock: has the kernel seen errors on this file system? */
static bool marked_damaged(int fd)
{
	unsigned char sb[64];

	if (pread(fd, sb, sizeof(sb), 1024) != (ssize_t)sizeof(sb))
		return true;
	return sb[0x38] != 0x53 || sb[0x39] != 0xef || (sb[0x3a] & 2) != 0;
}

/* e2fsck's exit code 1 means "repaired", which pf_run sees as a failure; the second run says 0 then. */
static int check_fs(int fd, struct pf_err *err)
{
	struct pf_err first = PF_ERR_INIT;
	PF_FREE char *path = fd_path(fd);
	char *argv[] = {"/sbin/e2fsck", "-p", "-f", path, NULL};

	if (run_on_fd(argv, fd, &first) == 0 || run_on_fd(argv, fd, err) == 0)
		return 0;
	err->kind = PF_ERR_CORRUPT;
	return pf_wrap(err,
		"workspace: %s is damaged and cannot be repaired without asking (run e2fsck on it)", IMAGE);
}

static int lock_image(int fd, struct pf_err *err)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK ? pf_fail_kind(err, PF_ERR_STATE, 0, "the workspace is in use")
				    : pf_fail(err, errno, "workspace: lock %s", IMAGE);
}

static int open_image(int fd, struct pf_workspace *ws, struct pf_err *err)
{
	if (lock_image(fd, err) < 0)
		return -1;
	bool checked = marked_damaged(fd);
	if (checked && check_fs(fd, err) < 0)
		return -1;
	ws->image = true;
	ws->rw_fd = mount_image(fd, err);
	if (ws->rw_fd < 0 && !checked &&
		(err->errnum == EUCLEAN || err->errnum == EINVAL || err->errnum == EIO)) {
		if (check_fs(fd, err) < 0)
			return -1;
		ws->rw_fd = mount_image(fd, err);
	}
	return ws->rw_fd < 0 ? -1 : open_parts(ws, err);
}

/* ---- both ---- */

static int exists(int dirfd, const char *name)
{
	struct stat st;

	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int create_image(
	int sandbox_dirfd, int template_dirfd, int64_t size, struct pf_workspace *ws, struct pf_err *err)
{
	if (size < PF_WORKSPACE_MIN_SIZE || size > PF_WORKSPACE_MAX_SIZE)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "a workspace's size must be between 4 MiB and 8 TiB");
	PF_CLOSE int fd =
		openat(sandbox_dirfd, IMAGE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return pf_fail(err, errno, "workspace: create %s", IMAGE);
	if (fill_image(fd, template_dirfd, size, err) == 0 && open_image(fd, ws, err) == 0)
		return 0;
	pf_workspace_close(ws);
	(void)unlinkat(sandbox_dirfd, IMAGE, 0);
	return -1;
}

static int create_dir(int sandbox_dirfd, struct pf_workspace *ws, struct pf_err *err)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (mkdirat(sandbox_dirfd, DIR_NAME, 0700) < 0)
		return pf_fail(err, errno, "workspace: mkdir");
	ws->rw_fd = openat(sandbox_dirfd, DIR_NAME, DIR_FLAGS);
	if (ws->rw_fd < 0)
		pf_fail(err, errno, "workspace: open");
	else if (open_parts(ws, err) == 0)
		return 0;
	pf_workspace_close(ws);
	(void)pf_rm_rf_at(sandbox_dirfd, DIR_NAME, &ignored);
	return -1;
}

int pf_workspace_create(
	int sandbox_dirfd, int template_dirfd, int64_t size, struct pf_workspace *ws, struct pf_err *err)
{
	*ws = PF_WORKSPACE_INIT;
	if (exists(sandbox_dirfd, IMAGE) || exists(sandbox_dirfd, DIR_NAME))
		return pf_fail_kind(err, PF_ERR_EXISTS, 0, "there is a workspace already");
	return size == 0 ? create_dir(sandbox_dirfd, ws, err)
			 : create_image(sandbox_dirfd, template_dirfd, size, ws, err);
}

int pf_workspace_open(int sandbox_dirfd, struct pf_workspace *ws, struct pf_err *err)
{
	*ws = PF_WORKSPACE_INIT;
	PF_CLOSE int fd = openat(sandbox_dirfd, IMAGE, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	int r;

	if (fd >= 0) {
		r = open_image(fd, ws, err);
	} else if (errno != ENOENT) {
		return pf_fail(err, errno, "workspace: open %s", IMAGE);
	} else {
		ws->rw_fd = openat(sandbox_dirfd, DIR_NAME, DIR_FLAGS);
		if (ws->rw_fd < 0)
			return pf_fail_kind(
				err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "workspace");
		r = open_parts(ws, err);
	}
	if (r < 0)
		pf_workspace_close(ws);
	return r;
}

static int walk_usage(
	int dirfd, const char *name, struct pf_workspace_usage *u, int depth, struct pf_err *err)
{
	struct dirent *e;
	struct stat st;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "workspace usage");
	PF_CLOSEDIR DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return pf_fail(err, errno, "workspace usage");
	}
	if (depth > 4096)
		return pf_fail(err, ELOOP, "workspace usage");
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue; /* gone since */
		/* A file with several names counts by its share for each. */
		u->bytes += st.st_blocks * 512 / (S_ISDIR(st.st_mode) ? 1 : (int64_t)st.st_nlink);
		u->inodes++;
		if (S_ISDIR(st.st_mode) && walk_usage(fd, e->d_name, u, depth + 1, err) < 0)
			return -1;
	}
	return 0;
}

int pf_workspace_usage(const struct pf_workspace *ws, struct pf_workspace_usage *out, struct pf_err *err)
{
	struct statfs sfs;

	*out = (struct pf_workspace_usage){0};
	if (!ws->image)
		return walk_usage(ws->rw_fd, "upper", out, 0, err) < 0
			       ? -1
			       : walk_usage(ws->rw_fd, "generations", out, 0, err);
	if (fstatfs(ws->rw_fd, &sfs) < 0)
		return pf_fail(err, errno, "workspace usage");
	out->bytes = (int64_t)(sfs.f_blocks - sfs.f_bfree) * sfs.f_bsize;
	out->bytes_max = (int64_t)(sfs.f_blocks - sfs.f_bfree + sfs.f_bavail) * sfs.f_bsize;
	out->inodes = (int64_t)(sfs.f_files - sfs.f_ffree);
	out->inodes_max = (int64_t)sfs.f_files;
	return 0;
}

/* ---- generations ---- */

static int by_number_descending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x < y) - (x > y);
}

/* The numbers below generations/, newest first. */
static int list_generations(int rw_fd, int64_t **out, size_t *n, struct pf_err *err)
{
	PF_FREE int64_t *v = NULL;
	size_t count = 0, cap = 0;
	struct dirent *e;
	int fd = openat(rw_fd, "generations", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	*out = NULL;
	*n = 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "workspace: generations");
	PF_CLOSEDIR DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return pf_fail(err, errno, "workspace: generations");
	}
	while ((errno = 0, e = readdir(d))) {
		char *end;
		if (e->d_name[0] < '1' || e->d_name[0] > '9')
			continue;
		long long num = strtoll(e->d_name, &end, 10);
		if (*end)
			continue;
		if (count == cap) {
			cap = cap ? 2 * cap : 16;
			int64_t *more = realloc(v, cap * sizeof(*v));
			if (!more)
				return pf_fail(err, ENOMEM, "workspace: generations");
			v = more;
		}
		v[count++] = num;
	}
	if (errno)
		return pf_fail(err, errno, "workspace: generations");
	if (count)
		qsort(v, count, sizeof(*v), by_number_descending);
	*out = pf_take(v);
	*n = count;
	return 0;
}

/* The upper's root is the sandbox's root directory as far as its attributes go, so the new one takes them
 * over. */
static int copy_root_attrs(int from, int to, struct pf_err *err)
{
	struct stat st;

	if (fstat(from, &st) < 0)
		return pf_fail(err, errno, "workspace: stat");
	PF_FREE char *path = fd_path(to);
	struct timespec times[2] = {st.st_atim, st.st_mtim};
	if (fchownat(to, "", st.st_uid, st.st_gid, AT_EMPTY_PATH) < 0 ||
		chmod(path, st.st_mode & 07777) < 0 || utimensat(AT_FDCWD, path, times, 0) < 0)
		return pf_fail(err, errno, "workspace: copy the root's attributes");
	return 0;
}

int pf_workspace_seal(struct pf_workspace *ws, int64_t *n, struct pf_err *err)
{
	PF_FREE int64_t *have = NULL;
	size_t count;
	int64_t num;
	char name[48];

	if (list_generations(ws->rw_fd, &have, &count, err) < 0 ||
		make_dir(ws->rw_fd, "generations", 0700, err) < 0)
		return -1;
	num = count ? have[0] + 1 : 1;
	snprintf(name, sizeof(name), "generations/%" PRId64, num);
	/* The new upper is complete before it gets its name, and a missing one is made by open_parts. */
	if (pf_rm_rf_at(ws->rw_fd, "upper.new", err) < 0 || make_dir(ws->rw_fd, "upper.new", 0755, err) < 0)
		return -1;
	PF_CLOSE int fresh = openat(ws->rw_fd, "upper.new", DIR_FLAGS);
	if (fresh < 0)
		return pf_fail(err, errno, "workspace: open");
	if (copy_root_attrs(ws->upper_fd, fresh, err) < 0)
		return -1;
	if (renameat(ws->rw_fd, "upper", ws->rw_fd, name) < 0)
		return pf_fail(err, errno, "workspace: seal");
	if (renameat(ws->rw_fd, "upper.new", ws->rw_fd, "upper") < 0) {
		pf_fail(err, errno, "workspace: seal");
		(void)renameat(ws->rw_fd, name, ws->rw_fd, "upper");
		return -1;
	}
	close(ws->upper_fd);
	ws->upper_fd = pf_take_fd(&fresh);
	*n = num;
	return pf_sync_dir(ws->rw_fd, err);
}

int pf_workspace_generations(const struct pf_workspace *ws, int **fds, size_t *n, struct pf_err *err)
{
	PF_FREE int64_t *have = NULL;
	size_t count;
	char name[48];

	if (list_generations(ws->rw_fd, &have, &count, err) < 0)
		return -1;
	PF_FREE int *out = pf_calloc(count, sizeof(int));
	for (size_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "generations/%" PRId64, have[i]);
		out[i] = openat(ws->rw_fd, name, DIR_FLAGS);
		if (out[i] < 0) {
			int saved = errno;
			while (i > 0)
				close(out[--i]);
			return pf_fail(err, saved, "workspace: %s", name);
		}
	}
	*fds = pf_take(out);
	*n = count;
	return 0;
}
