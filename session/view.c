/* Theory of operation.
 *
 * A gate needs little of the host's files: the resolver's, which others replace while it runs, so that they
 * are shown by their directories; the list of public suffixes and libidn2, for a policy that is set; random
 * numbers, for the ids of c-ares' queries. To say whose a socket was it needs the names of the sandbox's
 * control groups and of the processes in them. A tmpfs gets these as read-only mounts, becomes read-only
 * itself and the root, and everything else of the host goes.
 *
 * The procfs is the one that the sandbox has itself, without what is mounted over it: it was made in the
 * sandbox's process id namespace and shows that one to whoever looks. */
#include "session/view.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/mounts.h"

#define CODE (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define DATA (CODE | MOUNT_ATTR_NOEXEC)
#define NODE (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
#define PROC_ROOT_INO 1 /* linux/proc_fs.h */

static const struct {
	const char *path;
	uint64_t attrs;
} of_host[] = {{"/etc", DATA}, {"/usr", CODE}, {"/lib", CODE}, {"/lib64", CODE}, {"/dev/urandom", NODE},
	{"/run/systemd/resolve", DATA}, {"/run/resolvconf", DATA}, {"/run/NetworkManager", DATA},
	{"/run/netconfig", DATA}, {"/run/connman", DATA}};
#define N_HOST (sizeof(of_host) / sizeof(*of_host))
/* Links that lead somewhere else on some hosts. */
static const char *const followed[] = {"/etc/resolv.conf", "/etc/hosts"};
#define N_FOLLOWED (sizeof(followed) / sizeof(*followed))
#define MAX_PLACES (N_HOST + N_FOLLOWED + 2)

struct place {
	char *path;
	char *link; /* it is a link to this; then no mount */
	int fd;     /* a detached mount */
	bool is_dir;
};

struct view {
	struct place places[MAX_PLACES];
	size_t n;
};

static void done(struct view *v)
{
	for (size_t i = 0; i < v->n; i++) {
		free(v->places[i].path);
		free(v->places[i].link);
		if (v->places[i].fd >= 0)
			close(v->places[i].fd);
	}
}

/* What does not exist is left out. below: with what is mounted there. */
static int add(struct view *v, const char *path, uint64_t attrs, bool below, struct pf_err *err)
{
	PF_CLOSE int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct place *p = &v->places[v->n];
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	*p = (struct place){.fd = -1, .is_dir = S_ISDIR(st.st_mode)};
	if (S_ISLNK(st.st_mode)) {
		char target[256];
		ssize_t n = readlinkat(fd, "", target, sizeof(target) - 1);
		if (n < 0)
			return pf_fail(err, errno, "%s", path);
		target[n] = '\0';
		p->link = pf_strdup(target);
	} else if ((p->fd = pf_mount_clone(fd, below, attrs, -1, err)) < 0) {
		return pf_wrap(err, "%s", path);
	}
	p->path = pf_strdup(path);
	v->n++;
	return 0;
}

static int add_followed(struct view *v, const char *file, struct pf_err *err)
{
	PF_FREE char *real = realpath(file, NULL);
	char *last = real ? strrchr(real, '/') : NULL, *second = real ? strchr(real + 1, '/') : NULL;

	if (!real)
		return 0;
	/* By its directory, so that one that replaces it is seen; but not for that all of /run, or of /. */
	if (second && second != last)
		*last = '\0';
	for (size_t i = 0; i < v->n; i++)
		if (!v->places[i].link && pf_path_below(real, v->places[i].path))
			return 0;
	return add(v, real, DATA, false, err);
}

static int add_host(struct view *v, struct pf_err *err)
{
	for (size_t i = 0; i < N_HOST; i++)
		if (add(v, of_host[i].path, of_host[i].attrs, true, err) < 0)
			return -1;
	for (size_t i = 0; i < N_FOLLOWED; i++)
		if (add_followed(v, followed[i], err) < 0)
			return -1;
	return 0;
}

static void add_mount(struct view *v, const char *path, int fd)
{
	v->places[v->n++] = (struct place){.path = pf_strdup(path), .fd = fd, .is_dir = true};
}

/* In the sandbox's mount namespace, where nothing is trusted. */
static int clone_procfs(void)
{
	PF_CLOSE int at = pf_openat2(
		AT_FDCWD, "/proc", O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
	struct pf_err ignored = PF_ERR_INIT;
	struct statfs fs;
	struct stat st;

	if (at < 0 || fstatfs(at, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC || fstat(at, &st) < 0 ||
		st.st_ino != PROC_ROOT_INO)
		return -1;
	return pf_mount_clone(at, false, DATA, -1, &ignored);
}

/* Only who is in the namespace of a mount can clone it, before Linux 6.15. */
static int add_procfs(struct view *v, int pidfd, struct pf_err *err)
{
	PF_CLOSE int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

	if (home < 0)
		return pf_fail(err, errno, "own mount namespace");
	if (setns(pidfd, CLONE_NEWNS) < 0)
		return 0;
	int fd = clone_procfs();
	if (fd >= 0)
		add_mount(v, PF_VIEW_PROC, fd);
	return setns(home, CLONE_NEWNS) < 0 ? pf_fail(err, errno, "return to the own mount namespace") : 0;
}

static int put(int root, const struct place *p, struct pf_err *err)
{
	PF_FREE char *parent = pf_strdup(p->path);
	PF_CLOSE int at = -1;

	*strrchr(parent, '/') = '\0';
	if (p->is_dir) {
		at = pf_mkdirs_in_root(root, p->path, 0755);
	} else if ((at = pf_mkdirs_in_root(root, *parent ? parent : "/", 0755)) >= 0) {
		int dir = at;
		if (p->link)
			return symlinkat(p->link, dir, strrchr(p->path, '/') + 1) < 0
				       ? pf_fail(err, errno, "link %s", p->path)
				       : 0;
		at = openat(dir, strrchr(p->path, '/') + 1, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
		close(dir);
	}
	if (at < 0 || move_mount(p->fd, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return pf_fail(err, errno, "attach %s", p->path);
	return 0;
}

/* pivot_root(".", ".") puts the old root on top of the new one, from where it is let go. */
static int settle(const struct view *v, struct pf_err *err)
{
	static char mode[] = "mode=755";
	char *const data[] = {mode, NULL};
	struct mount_attr read_only = {.attr_set = DATA};
	PF_CLOSE int root = pf_mount_new("tmpfs", "pinfold-gate", data, 0, err);

	if (root < 0)
		return -1;
	if (move_mount(root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return pf_fail(err, errno, "attach the root");
	for (size_t i = 0; i < v->n; i++)
		if (put(root, &v->places[i], err) < 0)
			return -1;
	/* What /etc/resolv.conf may go through. */
	PF_CLOSE int var = pf_mkdirs_in_root(root, "/var", 0755);
	if (var < 0 || (symlinkat("../run", var, "run") < 0 && errno != EEXIST))
		return pf_fail(err, errno, "link /var/run");
	if (mount_setattr(root, "", AT_EMPTY_PATH, &read_only, sizeof(read_only)) < 0)
		return pf_fail(err, errno, "make the root read-only");
	if (fchdir(root) < 0)
		return pf_fail(err, errno, "enter the root");
	if (pf_pivot_root(".", ".") < 0) {
		/* The initramfs cannot be pivoted away from. It stays below, where no path leads. */
		if (errno != EINVAL || chroot(".") < 0)
			return pf_fail(err, errno, "pivot_root");
	} else if (umount2(".", MNT_DETACH) < 0) {
		return pf_fail(err, errno, "let the old root go");
	}
	return chdir("/") < 0 ? pf_fail(err, errno, "enter the root") : 0;
}

int pf_view_enter(int cgroup, int pidfd, struct pf_err *err)
{
	struct view v = {.n = 0};
	int own = -1, r = -1;

	/* It is in the namespace that is left. */
	if (cgroup >= 0 && (own = pf_mount_clone(cgroup, false, DATA, -1, err)) < 0)
		return pf_wrap(err, "the gate's mounts: cgroup");
	if (own >= 0)
		add_mount(&v, PF_VIEW_CGROUP, own);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		pf_fail(err, errno, "mount namespace");
	else if (add_host(&v, err) == 0 && (pidfd < 0 || add_procfs(&v, pidfd, err) == 0))
		r = settle(&v, err);
	done(&v);
	return r < 0 ? pf_wrap(err, "the gate's mounts") : 0;
}
