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
#include <sys/mman.h>
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
#include "sandbox/netdev.h"

extern const char pf_init_blob[], pf_init_blob_end[];

int pf_init_memfd(struct pf_err *err)
{
	PF_CLOSE int fd = memfd_create("pinfold-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

	/* MFD_EXEC is from Linux 6.3. */
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("pinfold-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return pf_fail(err, errno, "memfd for process 1 (is vm.memfd_noexec 2?)");
	/* Two labels around one object of the assembler's. */
	/* cppcheck-suppress comparePointers */
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

int pf_write_id_maps(pid_t pid, const struct pf_id_map *uid_maps, size_t n_uid,
	const struct pf_id_map *gid_maps, size_t n_gid, struct pf_err *err)
{
	return write_map(pid, "uid_map", uid_maps, n_uid, err) < 0 ||
			       write_map(pid, "gid_map", gid_maps, n_gid, err) < 0
		       ? -1
		       : 0;
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

static int send_mounts(int sync, const struct pf_child_mounts *m, struct pf_err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * (PF_MAX_MOUNT_FDS + 2))];
		struct cmsghdr align;
	} control = {0};
	char byte = PF_SYNC_MOUNTS;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	int fds[PF_MAX_MOUNT_FDS + 2] = {m->root}, n = 1;

	for (int i = 0; i < m->n; i++)
		fds[n++] = m->fds[i];
	if (m->nodes >= 0)
		fds[n++] = m->nodes;
	size_t bytes = sizeof(int) * (size_t)n;
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = CMSG_SPACE(bytes)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(bytes);
	memcpy(CMSG_DATA(c), fds, bytes);
	if (sendmsg(sync, &msg, MSG_NOSIGNAL) < 0)
		/* EPIPE: the child died early and its own account of it is in the socket. */
		return errno == EPIPE || errno == ECONNRESET
			       ? 0
			       : pf_fail(err, errno, "send mounts to the new process");
	return 0;
}

/* The sysfs that the parent makes while it is in the box's network namespace, or NULL. A box with a network
 * namespace that is new with it makes its own. */
static const struct pf_mount *sysfs_of(const struct pf_spec *spec)
{
	for (size_t i = 0; i < spec->n_mounts; i++)
		if (spec->mounts[i].kind == PF_MOUNT_HOST && strcmp(spec->mounts[i].type, "sysfs") == 0)
			return &spec->mounts[i];
	return NULL;
}

/* ---- namespaces that are there already ---- */

static const struct {
	uint64_t flag;
	const char *name;
} kinds[] = {{CLONE_NEWNET, "net"}, {CLONE_NEWIPC, "ipc"}, {CLONE_NEWUTS, "uts"}, {CLONE_NEWCGROUP, "cgroup"},
	{CLONE_NEWTIME, "time"}, {CLONE_NEWPID, "pid_for_children"}};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* What the caller is in itself, to go back to; -1: never left. */
struct home {
	int fd[N_KINDS];
};

static int leave_home(struct home *home, uint64_t flag, struct pf_err *err)
{
	for (size_t i = 0; i < N_KINDS; i++) {
		char path[48];
		if (kinds[i].flag != flag || home->fd[i] >= 0)
			continue;
		snprintf(path, sizeof(path), "/proc/self/ns/%s", kinds[i].name);
		home->fd[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (home->fd[i] < 0)
			return pf_fail(err, errno, "own %s namespace", kinds[i].name);
	}
	return 0;
}

static void go_home(struct home *home)
{
	for (size_t i = 0; i < N_KINDS; i++) {
		if (home->fd[i] < 0)
			continue;
		/* Staying in the box's network namespace would send our own connections through its gate. */
		if (setns(home->fd[i], (int)kinds[i].flag) < 0)
			_exit(125);
		close(home->fd[i]);
		home->fd[i] = -1;
	}
}

/* A time namespace gets its offsets before the first process is in it, so it is made here: our own children
 * are born in it, we are not. */
static int new_time(const struct pf_spec *spec, struct pf_err *err)
{
	if (unshare(CLONE_NEWTIME) < 0)
		return pf_fail(err, errno, "time namespace");
	if (spec->time_offsets &&
		pf_write_pseudo_at(AT_FDCWD, "/proc/self/timens_offsets", spec->time_offsets) < 0)
		return pf_fail(err, errno, "linux.timeOffsets");
	return 0;
}

/* The namespace of that kind to join, or -1. */
static int joined(const struct pf_box_params *p, uint64_t flag)
{
	for (size_t i = 0; p->oci && i < p->spec->n_joins; i++)
		if (p->spec->joins[i].flag == flag)
			return p->oci->join_fds[i];
	return -1;
}

/* Enter all that the child is to be born in, but a user namespace. */
static int enter_joins(const struct pf_box_params *p, struct home *home, struct pf_err *err)
{
	const struct pf_spec *spec = p->spec;

	if (p->netns_fd >= 0 &&
		(leave_home(home, CLONE_NEWNET, err) < 0 || setns(p->netns_fd, CLONE_NEWNET) < 0))
		return *err->msg ? -1 : pf_fail(err, errno, "enter the network namespace");
	for (size_t i = 0; p->oci && i < spec->n_joins; i++) {
		const struct pf_ns_join *j = &spec->joins[i];
		if (j->flag == CLONE_NEWUSER || p->oci->join_fds[i] < 0)
			continue;
		/* clone_between does that later. */
		if (j->flag == CLONE_NEWPID && joined(p, CLONE_NEWUSER) >= 0)
			continue;
		if (leave_home(home, j->flag, err) < 0)
			return -1;
		if (setns(p->oci->join_fds[i], (int)j->flag) < 0)
			return pf_fail(err, errno, "linux.namespaces: join %s", j->path);
	}
	if (spec->clone_flags & CLONE_NEWTIME)
		return leave_home(home, CLONE_NEWTIME, err) < 0 ? -1 : new_time(spec, err);
	return 0;
}

/* The pid, as we see it, of the process behind a pidfd: proc(5), fdinfo. */
static pid_t pid_of(int pidfd, struct pf_err *err)
{
	char path[48];
	PF_FREE char *text = NULL;
	int pid = -1;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	if (pf_read_pseudo_at(AT_FDCWD, path, 4096, &text, err) < 0)
		return -1;
	const char *line = strstr(text, "Pid:");
	if (!line || sscanf(line, "Pid: %d", &pid) != 1 || pid <= 0)
		return pf_fail(err, ESRCH, "the new process");
	return pid;
}

/* New namespaces belong to the user namespace that their maker is in, and nobody comes back from a user
 * namespace; nor from any other who is root of a user namespace only. Then somebody in between enters what is
 * to be joined, and has the child there as our child. The pid that he is told may be of another numbering
 * than ours; a pidfd is not. */
static pid_t clone_between(const struct pf_box_params *p, struct clone_args *args, struct pf_err *err)
{
	int pair[2], pidfd = -1, status = 0, userns = joined(p, CLONE_NEWUSER);
	int pidns = userns >= 0 ? joined(p, CLONE_NEWPID) : -1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return pf_fail(err, errno, "socketpair");
	pid_t between = fork();
	if (between == 0) {
		args->flags |= CLONE_PARENT;
		args->exit_signal = 0;
		struct home home = {.fd = {-1, -1, -1, -1, -1, -1}};
		if (p->rootless && enter_joins(p, &home, err) < 0)
			_exit(err->errnum);
		if ((pidns >= 0 && setns(pidns, CLONE_NEWPID) < 0) ||
			(userns >= 0 && setns(userns, CLONE_NEWUSER) < 0))
			_exit(errno);
		pid_t pid = pf_clone3(args);
		if (pid == 0) {
			close(pair[0]);
			close(pair[1]);
			return 0;
		}
		_exit(pid < 0 ? errno : pf_send_fd(pair[1], *(int *)(uintptr_t)args->pidfd) < 0 ? errno : 0);
	}
	int saved = errno;
	close(pair[1]);
	if (between > 0) {
		pidfd = pf_recv_fd(pair[0]);
		while (waitpid(between, &status, 0) < 0 && errno == EINTR)
			;
	}
	close(pair[0]);
	if (between < 0)
		return pf_fail(err, saved, "fork");
	if (pidfd < 0)
		return pf_fail(err, WIFEXITED(status) ? WEXITSTATUS(status) : 0,
			"linux.namespaces: clone3 in the namespaces to join");
	*(int *)(uintptr_t)args->pidfd = pidfd;
	return pid_of(pidfd, err);
}

/* clone3, from inside the namespaces that the box joins. A sysfs shows the network namespace that it was made
 * in, so it is made here too. 0 in the child. */
static pid_t clone_child(
	const struct pf_box_params *params, struct clone_args *args, int *sysfs_fd, struct pf_err *err)
{
	struct home home = {.fd = {-1, -1, -1, -1, -1, -1}};
	const struct pf_mount *sysfs = sysfs_of(params->spec);
	bool between = joined(params, CLONE_NEWUSER) >= 0 || (params->rootless && params->netns_fd >= 0) ||
		       (params->rootless && params->oci && params->spec->n_joins > 0);
	int saved = 0;
	pid_t pid = -1;

	if (!(between && params->rootless) && enter_joins(params, &home, err) < 0) {
		go_home(&home);
		return -1;
	}
	if (between) {
		pid = clone_between(params, args, err);
	} else {
		pid = pf_clone3(args);
		saved = errno;
	}
	if (pid == 0) {
		for (size_t i = 0; i < N_KINDS; i++)
			if (home.fd[i] >= 0)
				close(home.fd[i]);
		return 0;
	}
	if (pid > 0 && sysfs && home.fd[0] >= 0) {
		*sysfs_fd = pf_mount_new("sysfs", "sysfs", NULL, sysfs->attr_set, err);
		if (*sysfs_fd < 0)
			*sysfs_fd = -2;
	}
	go_home(&home);
	if (pid < 0)
		return between ? -1 : pf_fail(err, saved, "clone3");
	return pid;
}

/* ---- the parent's part ---- */

struct following {
	const struct pf_box_params *params;
	const struct pf_box_oci *oci;
	pid_t pid;
	int pidfd;
};

static int on_note(void *arg, int sync, const struct pf_child_note *note, struct pf_err *err)
{
	const struct following *f = arg;
	int r;

	if (!f->oci && note->what == PF_NOTE_HOOKS && f->params->on_ready) {
		uint64_t namespaces[PF_BOX_N_NS];
		if (recv(sync, namespaces, sizeof(namespaces), 0) != (ssize_t)sizeof(namespaces))
			return pf_fail(err, EPROTO, "the new process");
		r = f->params->on_ready(f->params->ready_arg, f->pid, namespaces, err);
	} else if (!f->oci && (note->what != PF_NOTE_LISTENER || !f->params->on_listener)) {
		return pf_fail(err, EPROTO, "the new process");
	} else if (!f->oci) {
		int fd = pf_recv_fd(sync);
		r = fd < 0 ? pf_fail(err, errno, "take the seccomp listener")
			   : f->params->on_listener(f->params->listener_arg, fd, err);
	} else if (note->what == PF_NOTE_HOOKS) {
		r = f->oci->on_hooks(f->oci->arg, f->pid, err);
	} else {
		int fd = (int)syscall(SYS_pidfd_getfd, f->pidfd, note->fd, 0);
		r = fd < 0 ? pf_fail(err, errno, "take the seccomp listener")
			   : f->oci->on_listener(f->oci->arg, f->pid, fd, err);
	}
	if (r < 0)
		return -1;
	if (send(sync, (char[]){PF_SYNC_GO_ON}, 1, MSG_NOSIGNAL) < 0 && errno != EPIPE)
		return pf_fail(err, errno, "sync with the new process");
	return 0;
}

static int parent_setup(
	const struct pf_box_params *params, pid_t pid, int sync, int sysfs_fd, struct pf_err *err)
{
	const struct pf_spec *spec = params->spec;
	struct pf_child_mounts mounts = {.root = -1, .nodes = -1};
	PF_CLOSE int userns = -1;
	int r = -1;

	if (spec->clone_flags & CLONE_NEWUSER) {
		if (pf_write_id_maps(
			    pid, spec->uid_maps, spec->n_uid_maps, spec->gid_maps, spec->n_gid_maps, err) < 0)
			return -1;
	}
	if (pf_spec_own_ns(spec, CLONE_NEWUSER)) {
		char path[64];
		snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
		userns = open(path, O_RDONLY | O_CLOEXEC);
		if (userns < 0)
			return pf_fail(err, errno, "the new user namespace");
	}
	/* Before the child goes on: kernel parameters of the devices are its to set. */
	if (pf_netdev_move(spec->netdevs, spec->n_netdevs, pid, err) < 0)
		return -1;
	if (send(sync, (char[]){PF_SYNC_MAPPED}, 1, MSG_NOSIGNAL) < 0 && errno != EPIPE)
		return pf_fail(err, errno, "sync with the new process");
	if (params->oci && (params->oci->on_pid(params->oci->arg, pid, err) < 0 ||
				   pf_child_oom_score(pid, &spec->process, err) < 0))
		return -1;
	mounts.root = params->root(params->root_arg, userns, err);
	if (mounts.root < 0)
		return pf_wrap(err, "root");
	if (pf_mounts_prepare(spec, userns, sysfs_fd, &mounts, err) == 0)
		r = send_mounts(sync, &mounts, err);
	for (int i = 0; i < mounts.n; i++)
		close(mounts.fds[i]);
	if (mounts.nodes >= 0)
		close(mounts.nodes);
	close(mounts.root);
	return r == 0 && params->oci ? params->oci->on_mounts(params->oci->arg, err) : r;
}

int pf_box_create(const struct pf_box_params *wanted, struct pf_box *box, struct pf_err *err)
{
	struct pf_box_params own = *wanted;
	const struct pf_box_params *params = &own;
	int pair[2], pidfd = -1, sysfs_fd = -1;
	PF_CLOSE int sync = -1, remote = -1, null = -1;
	struct pf_cgroup_join join = {.n = 0};
	struct clone_args args = {
		.flags = (wanted->spec->clone_flags & ~(uint64_t)(CLONE_NEWCGROUP | CLONE_NEWTIME)) |
			 CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
	};

	own.rootless = !pf_in_first_userns();
	if (params->netns_fd != -1)
		args.flags &= ~(uint64_t)CLONE_NEWNET;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return pf_fail(err, errno, "socketpair");
	sync = pair[0];
	remote = pair[1];
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return pf_fail(err, errno, "/dev/null");
	if (pf_clone_into_cgroup(params->cgroup, &args, &join, err) < 0)
		return -1;
	pid_t pid = clone_child(params, &args, &sysfs_fd, err);
	if (pid == 0) {
		close(sync);
		pf_child_main(params, &join, remote, null);
	}
	pf_cgroup_join_close(&join);
	if (pid < 0)
		return -1;
	close(remote);
	remote = -1;
	struct following f = {.params = params, .oci = params->oci, .pid = pid, .pidfd = pidfd};
	const struct pf_child_patience patience = {
		.deadline_us = INT64_MAX, .cancel_fd = params->oci ? params->oci->cancel_fd : -1};
	int r = sysfs_fd == -2 ? -1 : parent_setup(params, pid, sync, sysfs_fd, err);
	if (sysfs_fd >= 0)
		close(sysfs_fd);
	if (r == 0)
		r = pf_child_follow(sync, on_note, &f, params->oci ? &patience : NULL, err);
	if (r < 0) {
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
