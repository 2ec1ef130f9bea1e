/* Theory of operation: making a box.
 *
 *      parent                                        child (process 1 of the box)
 *      ------                                        ----------------------------
 *      sync socket; enter netns_fd for a moment
 *      clone3(all namespaces, INTO_CGROUP, PIDFD) ─► waits
 *      back to the own network namespace
 *                                                    joins cgroup v1 hierarchies, if any
 *      uid_map, gid_map ──────────────── 'M' ──────► becomes root of its user namespace
 *      root (overlay), binds, sysfs, /dev:
 *        detached, idmapped ──────── 'F' + fds ────► puts the tree together below the root,
 *                                                    pivots into it, drops everything, execs
 *      end of file on the socket ◄───────────────── (close-on-exec)
 *
 * Who makes what follows from who may. An idmapped clone, an overlay with trusted xattrs, a device node and a
 * sysfs of a network namespace that the box does not own need power in the initial user namespace: the
 * parent's. A procfs needs to be inside the pid namespace: the child's. Attaching is always the child's, in
 * its own mount namespace, so that nothing has to be undone when either side dies. The two sides work at the
 * same time.
 *
 * The network namespace is entered by the parent before the clone and not made by it, so that it is owned by
 * the user namespace outside and root inside has no power over its rules (user_namespaces(7)). */

#include "sandbox/box.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/child.h"
#include "sandbox/mounts.h"

extern const char pf_init_blob[], pf_init_blob_end[];

int pf_init_memfd(struct pf_err *err)
{
	PF_CLOSE int fd = memfd_create("pinfold-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

	/* MFD_EXEC is from Linux 6.3. */
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("pinfold-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return pf_fail(err, errno, "memfd for process 1 (is vm.memfd_noexec 2?)");
	if (pf_write_all(fd, pf_init_blob, (size_t)(pf_init_blob_end - pf_init_blob)) < 0 ||
		fchmod(fd, 0555) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return pf_fail(err, errno, "seal process 1's program");
	return pf_take_fd(&fd);
}

static int write_map(pid_t pid, const char *name, const struct pf_id_map *maps, size_t n, struct pf_err *err)
{
	char path[64];
	PF_BUF struct pf_buf text = {0};

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	for (size_t i = 0; i < n; i++)
		pf_buf_printf(&text, "%u %u %u\n", maps[i].container, maps[i].host, maps[i].size);
	if (pf_write_pseudo_at(AT_FDCWD, path, text.data) < 0)
		return pf_fail(err, errno, "%s", name);
	return 0;
}

int pf_write_id_maps(pid_t pid, const struct pf_spec *spec, struct pf_err *err)
{
	if (write_map(pid, "uid_map", spec->uid_maps, spec->n_uid_maps, err) < 0 ||
		write_map(pid, "gid_map", spec->gid_maps, spec->n_gid_maps, err) < 0)
		return -1;
	return 0;
}

/* ---- the child
 * ------------------------------------------------------------------------------------------------ */

static int recv_mounts(int sync, struct pf_child_mounts *m, struct pf_err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * (PF_MAX_MOUNT_FDS + 1))];
		struct cmsghdr align;
	} control;
	char byte = 0;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	ssize_t n;

	do
		n = recvmsg(sync, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&msg) : NULL;
	if (!c || byte != PF_SYNC_MOUNTS || c->cmsg_type != SCM_RIGHTS)
		return pf_fail(err, n < 0 ? errno : ECONNRESET, "the parent gave up");
	size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(&m->root, CMSG_DATA(c), sizeof(int));
	m->n = (int)count - 1;
	memcpy(m->fds, CMSG_DATA(c) + sizeof(int), sizeof(int) * (count - 1));
	return 0;
}

static int child_setup(
	const struct pf_box_params *params, struct pf_cgroup_join *join, int sync, struct pf_err *err)
{
	const struct pf_spec *spec = params->spec;
	struct pf_child_mounts mounts;
	char byte;
	ssize_t n;

	/* First, so that all that is done below is accounted and limited. */
	if (pf_cgroup_join_self(join) < 0)
		return pf_fail(err, errno, "join the cgroup");

	/* Nothing inside may look at us or at what we have open: our memory is a copy of the parent's. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return pf_fail(err, errno, "PR_SET_DUMPABLE");
	do
		n = recv(sync, &byte, 1, 0);
	while (n < 0 && errno == EINTR);
	if (n != 1 || byte != PF_SYNC_MAPPED)
		return pf_fail(err, n < 0 ? errno : ECONNRESET, "the parent gave up");
	if ((spec->clone_flags & CLONE_NEWUSER) &&
		(syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0 ||
			syscall(SYS_setgroups, 0, NULL) < 0))
		return pf_fail(err, errno, "become root of the user namespace");
	/* Not with the clone: its root is where the process is, which on v1 is where it has just gone. */
	if ((spec->clone_flags & CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) < 0)
		return pf_fail(err, errno, "cgroup namespace");
	/* After the change of ids, which clears it. */
	if (params->die_with_parent && pf_child_die_with_parent(sync, err) < 0)
		return -1;
	if (syscall(SYS_setsid) < 0)
		return pf_fail(err, errno, "setsid");
	if (spec->hostname && sethostname(spec->hostname, strlen(spec->hostname)) < 0)
		return pf_fail(err, errno, "hostname");
	if (spec->domainname && setdomainname(spec->domainname, strlen(spec->domainname)) < 0)
		return pf_fail(err, errno, "domainname");
	if (recv_mounts(sync, &mounts, err) < 0)
		return -1;
	if (pf_child_enter_root(spec, &mounts, err) < 0 || pf_child_stdio(params->stdio, err) < 0)
		return -1;
	if (pf_child_become(&spec->process, params->seccomp, err) < 0)
		return -1;
	/* The change of ids in pf_child_become cleared it once more. */
	return params->die_with_parent ? pf_child_die_with_parent(sync, err) : 0;
}

__attribute__((noreturn)) static void child_main(
	const struct pf_box_params *params, struct pf_cgroup_join *join, int sync)
{
	struct pf_err err = PF_ERR_INIT;

	if (child_setup(params, join, sync, &err) == 0) {
		const struct pf_process *p = &params->spec->process;
		if (params->init_fd < 0)
			(void)pf_child_exec(p, &err);
		else
			pf_child_exec_init(params->init_fd, p, &err);
	}
	pf_child_fail(sync, &err);
}

int pf_clone_into_cgroup(
	const struct pf_cgroup *cg, struct clone_args *args, struct pf_cgroup_join *join, struct pf_err *err)
{
	if (!cg)
		return 0;
	bool into = pf_cgroup_fd(cg) >= 0 && pf_cgroup_clone_safe(cg);
	if (into) {
		args->flags |= CLONE_INTO_CGROUP;
		args->cgroup = (uint64_t)(unsigned)pf_cgroup_fd(cg);
	}
	return pf_cgroup_join_open(cg, !into, join, err);
}

/* ---- the parent
 * ----------------------------------------------------------------------------------------------- */

static int send_mounts(int sync, const struct pf_child_mounts *m, struct pf_err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * (PF_MAX_MOUNT_FDS + 1))];
		struct cmsghdr align;
	} control = {0};
	char byte = PF_SYNC_MOUNTS;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	size_t bytes = sizeof(int) * (size_t)(m->n + 1);
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = CMSG_SPACE(bytes)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(bytes);
	memcpy(CMSG_DATA(c), &m->root, sizeof(int));
	memcpy(CMSG_DATA(c) + sizeof(int), m->fds, bytes - sizeof(int));
	if (sendmsg(sync, &msg, MSG_NOSIGNAL) < 0)
		/* EPIPE: the child died early and its own account of it is in the socket. */
		return errno == EPIPE || errno == ECONNRESET
			       ? 0
			       : pf_fail(err, errno, "send mounts to the new process");
	return 0;
}

static bool has_sysfs(const struct pf_spec *spec)
{
	for (size_t i = 0; i < spec->n_mounts; i++)
		if (strcmp(spec->mounts[i].type, "sysfs") == 0)
			return true;
	return false;
}

/* clone3, from inside the network namespace that the box is to have. A sysfs shows the network namespace that
 * it was made in, so it is made here too. */
static pid_t clone_child(
	const struct pf_box_params *params, struct clone_args *args, int *sysfs_fd, struct pf_err *err)
{
	PF_CLOSE int own_net = -1;
	pid_t pid;

	if (params->netns_fd < 0) {
		pid = pf_clone3(args);
		return pid < 0 ? pf_fail(err, errno, "clone3") : pid;
	}
	own_net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (own_net < 0)
		return pf_fail(err, errno, "own network namespace");
	if (setns(params->netns_fd, CLONE_NEWNET) < 0)
		return pf_fail(err, errno, "enter the network namespace");
	pid = pf_clone3(args);
	if (pid == 0)
		return 0;
	int saved = errno;
	if (pid > 0 && has_sysfs(params->spec))
		*sysfs_fd = pf_mount_new("sysfs", "sysfs", NULL,
			MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, err);
	/* Staying in the box's network namespace would send our own connections through its gate. */
	if (setns(own_net, CLONE_NEWNET) < 0)
		_exit(125);
	if (pid < 0)
		return pf_fail(err, saved, "clone3");
	return pid;
}

static int parent_setup(
	const struct pf_box_params *params, pid_t pid, int sync, int sysfs_fd, struct pf_err *err)
{
	const struct pf_spec *spec = params->spec;
	struct pf_child_mounts mounts = {.root = -1};
	PF_CLOSE int userns = -1;
	int r = -1;

	if (spec->clone_flags & CLONE_NEWUSER) {
		char path[64];
		if (pf_write_id_maps(pid, spec, err) < 0)
			return -1;
		snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
		userns = open(path, O_RDONLY | O_CLOEXEC);
		if (userns < 0)
			return pf_fail(err, errno, "the new user namespace");
	}
	if (send(sync, (char[]){PF_SYNC_MAPPED}, 1, MSG_NOSIGNAL) < 0 && errno != EPIPE)
		return pf_fail(err, errno, "sync with the new process");
	mounts.root = params->root(params->root_arg, userns, err);
	if (mounts.root < 0)
		return pf_wrap(err, "root");
	if (pf_mounts_prepare(spec, userns, sysfs_fd, &mounts, err) == 0)
		r = send_mounts(sync, &mounts, err);
	for (int i = 0; i < mounts.n; i++)
		close(mounts.fds[i]);
	close(mounts.root);
	return r;
}

int pf_box_create(const struct pf_box_params *params, struct pf_box *box, struct pf_err *err)
{
	int pair[2], pidfd = -1;
	PF_CLOSE int sync = -1, remote = -1, sysfs_fd = -1;
	struct pf_cgroup_join join = {.n = 0};
	struct clone_args args = {
		.flags = (params->spec->clone_flags & ~(uint64_t)CLONE_NEWCGROUP) | CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
	};

	if (params->netns_fd >= 0)
		args.flags &= ~(uint64_t)CLONE_NEWNET;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return pf_fail(err, errno, "socketpair");
	sync = pair[0];
	remote = pair[1];
	if (pf_clone_into_cgroup(params->cgroup, &args, &join, err) < 0)
		return -1;
	pid_t pid = clone_child(params, &args, &sysfs_fd, err);
	if (pid == 0) {
		close(sync);
		child_main(params, &join, remote);
	}
	pf_cgroup_join_close(&join);
	if (pid < 0)
		return -1;
	close(remote);
	remote = -1;
	if ((sysfs_fd < 0 && params->netns_fd >= 0 && has_sysfs(params->spec)) ||
		parent_setup(params, pid, sync, sysfs_fd, err) < 0 || pf_child_result(sync, err) < 0) {
		(void)kill(pid, SIGKILL); /* our own child, not reaped yet: the pid is its */
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		if (pidfd >= 0)
			close(pidfd);
		return -1;
	}
	*box = (struct pf_box){.pid = pid, .pidfd = pidfd, .start_time = pf_proc_start_time(pid)};
	return 0;
}
