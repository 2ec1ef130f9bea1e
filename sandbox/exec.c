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
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sys.h"
#include "sandbox/child.h"

static int exec_setup(
	const struct pf_exec_params *p, struct pf_cgroup_join *join, int sync, struct pf_err *err)
{
	int flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP |
		    (p->join_user ? CLONE_NEWUSER : 0) | (p->join_net ? CLONE_NEWNET : 0) |
		    (p->join_time ? CLONE_NEWTIME : 0);
	sigset_t none;

	if (pf_cgroup_join_self(join) < 0)
		return pf_fail(err, errno, "join the cgroup");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return pf_fail(err, errno, "PR_SET_DUMPABLE");
	/* The network namespace belongs to the user namespace outside: enter it while we are still there. */
	if (p->join_net && setns(p->pidfd, CLONE_NEWNET) < 0)
		return pf_fail(err, errno, "enter the sandbox's network namespace");
	if (setns(p->pidfd, flags & ~CLONE_NEWNET) < 0)
		return pf_fail_kind(
			err, errno == ESRCH ? PF_ERR_STATE : PF_ERR_SYSTEM, errno, "enter the sandbox");
	if (syscall(SYS_setsid) < 0)
		return pf_fail(err, errno, "setsid");
	if (pf_child_stdio(p->stdio, err) < 0)
		return -1;
	if (p->controlling_tty && ioctl(0, TIOCSCTTY, 0) < 0)
		return pf_fail(err, errno, "controlling terminal");
	/* What the caller blocked or ignored for itself is not the command's. */
	sigemptyset(&none);
	for (int sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			(void)signal(sig, SIG_DFL);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		return pf_fail(err, errno, "signal mask");
	if (pf_child_become(p->process, p->seccomp, err) < 0)
		return -1;
	/* If the caller is killed, its command does not stay behind alone. */
	return pf_child_die_with_parent(sync, err);
}

int pf_box_exec(const struct pf_exec_params *p, pid_t *pid_out, int *pidfd_out, struct pf_err *err)
{
	int pair[2], pidfd = -1;
	PF_CLOSE int sync = -1, remote = -1;
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
	if (setns(p->pidfd, CLONE_NEWPID) < 0)
		return pf_fail_kind(err, errno == ESRCH ? PF_ERR_STATE : PF_ERR_SYSTEM, errno,
			"enter the sandbox's pid namespace");
	if (pf_clone_into_cgroup(p->cgroup, &args, &join, err) < 0)
		return -1;
	pid_t pid = pf_clone3(&args);
	if (pid == 0) {
		struct pf_err cerr = PF_ERR_INIT;
		close(sync);
		if (exec_setup(p, &join, remote, &cerr) == 0)
			(void)pf_child_exec(p->process, &cerr);
		pf_child_fail(remote, &cerr);
	}
	int saved = errno;
	pf_cgroup_join_close(&join);
	if (pid < 0)
		/* ENOMEM is what the kernel says when the pid namespace's process 1 is gone:
		 * pid_namespaces(7). */
		return pf_fail_kind(err, saved == ENOMEM ? PF_ERR_STATE : PF_ERR_SYSTEM, saved,
			"start a process in the sandbox");
	close(remote);
	remote = -1;
	if (pf_child_result(sync, err) < 0) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		close(pidfd);
		return -1;
	}
	*pid_out = pid;
	*pidfd_out = pidfd;
	return 0;
}
