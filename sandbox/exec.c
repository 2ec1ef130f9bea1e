/* Theory of operation: one more process in a box.
 *
 * The caller joins the box's pid namespace with setns(pidfd, CLONE_NEWPID), which moves only its future
 * children, and clones. The child is born in its own cgroup leaf and in the pid namespace; it enters all
 * other namespaces with one setns on the same pidfd, becomes who it is to be, and execs. There is no
 * intermediate process, and the child is the caller's own, so that its status is waited for like any other's.
 *
 * A pidfd cannot be mistaken for another process: the caller opened it for a pid and start time that the
 * state names (base/proc.h). From the moment it is inside until it has exec'ed the child is not dumpable, so
 * that nothing inside can trace it or reach its descriptors (CVE-2016-9962). */

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/sys.h"
#include "sandbox/child.h"
#include "sandbox/console.h"
#include "sandbox/spec_internal.h"

/* Labels are written to the procfs outside, before it is out of reach. */
static int open_label(const struct pf_exec_params *p, int *fd, struct pf_err *err)
{
	if (!p->oci || !*p->oci->lsm.file)
		return 0;
	PF_CLOSE int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	*fd = proc < 0 ? pf_fail(err, errno, "/proc") : pf_lsm_open(proc, &p->oci->lsm, err);
	return *fd < 0 ? -1 : 0;
}

static int set_affinity(const char *list, const char *where, struct pf_err *err)
{
	unsigned long set[16];

	if (!list)
		return 0;
	if (pf_spec_cpu_list(where, list, set, 16, err) < 0)
		return -1;
	if (syscall(SYS_sched_setaffinity, 0, sizeof(set), set) < 0)
		return pf_fail(err, errno, "%s", where);
	return 0;
}

static int make_console(const struct pf_exec_params *p, int stdio[3], struct pf_err *err)
{
	PF_CLOSE int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int slave = root < 0 ? pf_fail(err, errno, "/")
			     : pf_console_open(root, p->oci->console_fd, p->process, err);

	stdio[0] = stdio[1] = stdio[2] = slave;
	return slave < 0 ? -1 : 0;
}

static int exec_setup(const struct pf_exec_params *p, struct pf_cgroup_join *join, int sync, int null,
	struct pf_become *b, struct pf_err *err)
{
	int flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP |
		    (p->join_user ? CLONE_NEWUSER : 0) | (p->join_net ? CLONE_NEWNET : 0) |
		    (p->join_time ? CLONE_NEWTIME : 0);
	int stdio[3];
	bool tty = p->controlling_tty;

	for (int i = 0; i < 3; i++)
		stdio[i] = p->stdio[i] >= 0 ? p->stdio[i] : null;
	if (set_affinity(p->process->cpus_initial, "process.execCPUAffinity.initial", err) < 0)
		return -1;
	if (pf_cgroup_join_self(join) < 0)
		return pf_fail(err, errno, "join the cgroup");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return pf_fail(err, errno, "PR_SET_DUMPABLE");
	if (open_label(p, &b->lsm_fd, err) < 0)
		return -1;
	/* The network namespace belongs to the user namespace outside: enter it while we are still there. */
	if (p->join_net && setns(p->pidfd, CLONE_NEWNET) < 0)
		return pf_fail(err, errno, "enter the sandbox's network namespace");
	if (setns(p->pidfd, flags & ~CLONE_NEWNET) < 0)
		return pf_fail_kind(
			err, errno == ESRCH ? PF_ERR_STATE : PF_ERR_SYSTEM, errno, "enter the sandbox");
	/* Root of the container's user namespace: whoever we were outside has no name in it. */
	if (p->join_user && p->oci &&
		(syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0))
		return pf_fail(err, errno, "become root of the container");
	if (syscall(SYS_setsid) < 0)
		return pf_fail(err, errno, "setsid");
	if (p->oci && p->oci->keyring && pf_child_new_keyring(p->oci->keyring, err) < 0)
		return -1;
	if (p->oci && p->oci->console_fd >= 0) {
		if (make_console(p, stdio, err) < 0)
			return -1;
		tty = true;
	}
	const int need[] = {sync, b->lsm_fd};
	if (pf_child_stdio(stdio, p->oci ? p->oci->keep_fds : 0, need, 2, err) < 0)
		return -1;
	if (tty && ioctl(0, TIOCSCTTY, 0) < 0)
		return pf_fail(err, errno, "controlling terminal");
	if (pf_child_signals(err) < 0 ||
		set_affinity(p->process->cpus_final, "process.execCPUAffinity.final", err) < 0)
		return -1;
	if (pf_child_become(b, sync, err) < 0)
		return -1;
	/* If the caller is killed, its command does not stay behind alone. */
	return p->stay ? 0 : pf_child_die_with_parent(sync, err);
}

__attribute__((noreturn)) static void child_main(
	const struct pf_exec_params *p, struct pf_cgroup_join *join, int sync, int null)
{
	struct pf_become b = {.process = p->process,
		.seccomp = p->seccomp,
		.seccomp_flags = p->seccomp_flags,
		.spec = p->spec,
		.lsm_fd = -1,
		.lsm_label = p->oci ? p->oci->lsm.label : NULL,
		.oci = p->oci != NULL};
	struct pf_err err = PF_ERR_INIT;
	char path[4096];
	const char *file;

	if (exec_setup(p, join, sync, null, &b, &err) == 0 &&
		(file = pf_child_resolve(p->process, b.env, path, sizeof(path), &err)) != NULL &&
		pf_child_note(sync, PF_NOTE_EXEC, -1, &err) == 0 && pf_child_late_filter(&b, &err) == 0)
		(void)pf_child_exec(-1, file, p->process, b.env, &err);
	pf_child_fail(sync, &err);
}

struct following {
	const struct pf_exec_params *p;
	pid_t pid;
	int pidfd;
};

static int on_note(void *arg, int sync, const struct pf_child_note *note, struct pf_err *err)
{
	const struct following *f = arg;

	if (note->what != PF_NOTE_LISTENER || !f->p->oci)
		return pf_fail(err, EPROTO, "the new process");
	int fd = (int)syscall(SYS_pidfd_getfd, f->pidfd, note->fd, 0);
	if (fd < 0)
		return pf_fail(err, errno, "take the seccomp listener");
	if (f->p->oci->on_listener(f->p->oci->arg, f->pid, fd, err) < 0)
		return -1;
	if (send(sync, (char[]){PF_SYNC_GO_ON}, 1, MSG_NOSIGNAL) < 0 && errno != EPIPE)
		return pf_fail(err, errno, "sync with the new process");
	return 0;
}

int pf_box_exec(const struct pf_exec_params *p, pid_t *pid_out, int *pidfd_out, struct pf_err *err)
{
	int pair[2], pidfd = -1;
	PF_CLOSE int sync = -1, remote = -1, own_pid = -1, null = -1;
	struct pf_cgroup_join join = {.n = 0};
	struct clone_args args = {
		.flags = CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
	};

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return pf_fail(err, errno, "socketpair");
	sync = pair[0];
	remote = pair[1];
	own_pid = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (own_pid < 0 || null < 0)
		return pf_fail(err, errno, own_pid < 0 ? "own pid namespace" : "/dev/null");
	if (pf_clone_into_cgroup(p->cgroup, &args, &join, err) < 0)
		return -1;
	if (setns(p->pidfd, CLONE_NEWPID) < 0) {
		pf_cgroup_join_close(&join);
		return pf_fail_kind(err, errno == ESRCH ? PF_ERR_STATE : PF_ERR_SYSTEM, errno,
			"enter the sandbox's pid namespace");
	}
	pid_t pid = pf_clone3(&args);
	if (pid == 0) {
		close(sync);
		child_main(p, &join, remote, null);
	}
	int saved = errno;
	/* Only our children's namespace had changed; whatever we start next is outside again. */
	if (setns(own_pid, CLONE_NEWPID) < 0)
		_exit(125);
	pf_cgroup_join_close(&join);
	if (pid < 0)
		/* ENOMEM is what the kernel says when the pid namespace's process 1 is gone:
		 * pid_namespaces(7). */
		return pf_fail_kind(err, saved == ENOMEM ? PF_ERR_STATE : PF_ERR_SYSTEM, saved,
			"start a process in the sandbox");
	close(remote);
	remote = -1;
	struct following f = {.p = p, .pid = pid, .pidfd = pidfd};
	if (pf_child_oom_score(pid, p->process, err) < 0 ||
		pf_child_follow(sync, on_note, &f, p->patience, err) < 0) {
		(void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		close(pidfd);
		return -1;
	}
	*pid_out = pid;
	*pidfd_out = pidfd;
	return 0;
}
