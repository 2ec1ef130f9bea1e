/* The child of pf_box_create, from its first instruction to its exec. See box.c for the whole sequence.
 *
 * A container waits, when all is made and it has become whom it is to be, for the byte that `start` writes
 * into a FIFO of its state directory. It reads from a descriptor that was opened before: no path of its own
 * root takes part, and a filter that is in force needs to let read(2) pass and nothing else. What its exec
 * came to it tells through a second FIFO: a note that it is about to exec, and then the end of the file. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/child.h"
#include "sandbox/mounts.h"
#include "sandbox/sysctl.h"

static int recv_mounts(int sync, const struct pf_spec *spec, struct pf_child_mounts *m, struct pf_err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * (PF_MAX_MOUNT_FDS + 2))];
		struct cmsghdr align;
	} control;
	char byte = 0;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	int fds[PF_MAX_MOUNT_FDS + 2], want = 0;
	ssize_t n;

	do
		n = recvmsg(sync, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&msg) : NULL;
	if (!c || byte != PF_SYNC_MOUNTS || c->cmsg_type != SCM_RIGHTS)
		return pf_fail(err, n < 0 ? errno : ECONNRESET, "the parent gave up");
	size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(c), count * sizeof(int));
	for (size_t i = 0; i < spec->n_mounts; i++)
		want += spec->mounts[i].kind == PF_MOUNT_BIND || spec->mounts[i].kind == PF_MOUNT_HOST;
	if ((int)count < want + 1)
		return pf_fail(err, EPROTO, "the parent's mounts");
	m->root = fds[0];
	m->n = want;
	memcpy(m->fds, fds + 1, sizeof(int) * (size_t)want);
	m->nodes = (int)count > want + 1 ? fds[want + 1] : -1;
	return 0;
}

static int become_root_of_userns(struct pf_err *err)
{
	if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
		return pf_fail(err, errno, "become root of the user namespace");
	/* EPERM: a namespace whose maker denied setgroups(2) keeps its groups. */
	if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
		return pf_fail(err, errno, "become root of the user namespace");
	return 0;
}

/* A namespace that is joined has its maps already; they are not in the configuration. */
static bool maps_root(const struct pf_spec *spec)
{
	for (size_t i = 0; i < spec->n_uid_maps; i++)
		if (spec->uid_maps[i].container == 0)
			return true;
	return spec->n_uid_maps == 0;
}

/* Namespaces and identity: what comes before the mounts. */
static int settle(const struct pf_box_params *params, int sync, struct pf_err *err)
{
	const struct pf_spec *spec = params->spec;
	char byte;
	ssize_t n;

	/* Nothing inside may look at us or at what we have open: our memory is a copy of the parent's. The
	 * maps of one that is not dumpable are for the machine's root alone to write, so without that they
	 * come first; the namespaces are new then, and nobody is inside yet. */
	if (!params->rootless && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return pf_fail(err, errno, "PR_SET_DUMPABLE");
	do
		n = recv(sync, &byte, 1, 0);
	while (n < 0 && errno == EINTR);
	if (n != 1 || byte != PF_SYNC_MAPPED)
		return pf_fail(err, n < 0 ? errno : ECONNRESET, "the parent gave up");
	if (params->rootless && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return pf_fail(err, errno, "PR_SET_DUMPABLE");
	/* Who was made with a user namespace has all power in it, whatever his id there is. */
	if (pf_spec_own_ns(spec, CLONE_NEWUSER) && maps_root(spec) && become_root_of_userns(err) < 0)
		return -1;
	/* Not with the clone: its root is where the process is, which on v1 is where it has just gone. */
	if ((spec->clone_flags & CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) < 0)
		return pf_fail(err, errno, "cgroup namespace");
	/* After the change of ids, which clears it. A container is left alone once it is ready. */
	if ((params->die_with_parent || params->oci) && pf_child_die_with_parent(sync, err) < 0)
		return -1;
	if (!params->keep_session && syscall(SYS_setsid) < 0)
		return pf_fail(err, errno, "setsid");
	if (params->oci && params->oci->keyring && pf_child_new_keyring(params->oci->keyring, err) < 0)
		return -1;
	if (spec->hostname && sethostname(spec->hostname, strlen(spec->hostname)) < 0)
		return pf_fail(err, errno, "hostname");
	if (spec->domainname && setdomainname(spec->domainname, strlen(spec->domainname)) < 0)
		return pf_fail(err, errno, "domainname");
	return 0;
}

/* Kernel parameters and the file for a security label, through a procfs that no image has touched. */
static int use_procfs(const struct pf_box_params *params, int *lsm_fd, struct pf_err *err)
{
	const struct pf_spec *spec = params->spec;
	bool label = params->oci && *params->oci->lsm.file;

	if (spec->n_sysctls == 0 && !label)
		return 0;
	PF_CLOSE int proc = pf_mount_new("proc", "proc", NULL, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, err);
	if (proc < 0)
		return -1;
	if (pf_sysctl_apply(proc, spec->sysctls, spec->n_sysctls, err) < 0)
		return -1;
	if (label) {
		*lsm_fd = pf_lsm_open(proc, &params->oci->lsm, err);
		return *lsm_fd < 0 ? -1 : 0;
	}
	return 0;
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* A container may wait for days to be started. All that it has from its maker goes now: above all the lock on
 * its id, which is the maker's as long as anybody has it open. */
static int close_rest(const struct pf_box_oci *oci, int sync, int lsm_fd, struct pf_err *err)
{
	int kept[] = {sync, oci->start_fd, oci->result_fd, lsm_fd};
	unsigned from = 3 + oci->keep_fds;

	qsort(kept, 4, sizeof(kept[0]), by_number);
	for (size_t i = 0; i < 4; i++) {
		if (kept[i] < (int)from)
			continue;
		if (kept[i] > (int)from && close_range(from, (unsigned)kept[i] - 1, 0) < 0)
			return pf_fail(err, errno, "close_range");
		from = (unsigned)kept[i] + 1;
	}
	return close_range(from, ~0U, 0) < 0 ? pf_fail(err, errno, "close_range") : 0;
}

static int child_setup(const struct pf_box_params *params, struct pf_cgroup_join *join, int sync, int null,
	struct pf_become *b, struct pf_err *err)
{
	const struct pf_box_oci *oci = params->oci;
	struct pf_child_mounts mounts;
	int stdio[3], console = -1;

	for (int i = 0; i < 3; i++)
		stdio[i] = params->stdio[i] >= 0 ? params->stdio[i] : null;

	/* First, so that all that is done below is accounted and limited. */
	if (pf_cgroup_join_self(join) < 0)
		return pf_fail(err, errno, "join the cgroup");
	/* What is made in the root on the way, mount points and their parents, is for all of its users. */
	umask(022);
	if (pf_child_signals(err) < 0 || settle(params, sync, err) < 0)
		return -1;
	if (use_procfs(params, &b->lsm_fd, err) < 0 || recv_mounts(sync, params->spec, &mounts, err) < 0)
		return -1;
	if (pf_child_enter_root(params, &mounts, sync, &console, err) < 0)
		return -1;
	if (console >= 0)
		stdio[0] = stdio[1] = stdio[2] = console;
	const int need[] = {
		sync, params->init_fd, oci ? oci->start_fd : -1, oci ? oci->result_fd : -1, b->lsm_fd};
	if (pf_child_stdio(stdio, oci ? oci->keep_fds : 0, need, sizeof(need) / sizeof(need[0]), err) < 0)
		return -1;
	if (console >= 0 && ioctl(0, TIOCSCTTY, 0) < 0)
		return pf_fail(err, errno, "controlling terminal");
	/* Before a filter is in force that might not let it be. */
	if (oci && close_rest(oci, sync, b->lsm_fd, err) < 0)
		return -1;
	if (oci && prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0) < 0)
		return pf_fail(err, errno, "PR_SET_PDEATHSIG");
	if (pf_child_become(b, sync, err) < 0)
		return -1;
	/* The change of ids in pf_child_become cleared it once more. */
	return params->die_with_parent ? pf_child_die_with_parent(sync, err) : 0;
}

static int run_hooks(const struct pf_box_oci *oci, const struct pf_spec *spec, struct pf_err *err)
{
	const struct pf_hooks *hooks = &spec->hooks[PF_HOOK_START_CONTAINER];

	if (hooks->n == 0)
		return 0;
	PF_FREE char *state = pf_asprintf("%s%d%s", oci->state_head, (int)getpid(), oci->state_start_tail);
	return pf_hooks_run(hooks, PF_HOOK_START_CONTAINER, NULL, state, -1, err);
}

/* Everything is there; wait to be started. Does not return when that succeeds. */
static void hold(const struct pf_box_params *params, struct pf_become *b, int sync, struct pf_err *err)
{
	const struct pf_process *p = &params->spec->process;
	const char *file;
	char path[4096], byte;
	ssize_t n;

	file = pf_child_resolve(p, b->env, path, sizeof(path), err);
	if (!file || pf_child_note(sync, PF_NOTE_READY, -1, err) < 0)
		pf_child_fail(sync, err);
	close(sync);
	do
		n = read(params->oci->start_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		pf_fail(err, n < 0 ? errno : 0, "wait to be started");
	else if (run_hooks(params->oci, params->spec, err) == 0 &&
		 pf_child_note(params->oci->result_fd, PF_NOTE_EXEC, -1, err) == 0 &&
		 pf_child_late_filter(b, err) == 0)
		(void)pf_child_exec(-1, file, p, b->env, err);
	(void)pf_write_all(params->oci->result_fd, err, sizeof(*err));
	_exit(125);
}

/* A session, or the like, whose command has nobody above it. Returns on failure. */
static void exec_itself(struct pf_become *b, int sync, struct pf_err *err)
{
	char path[4096];
	const char *file = pf_child_resolve(b->process, b->env, path, sizeof(path), err);

	if (file && pf_child_late_filter(b, err) == 0)
		(void)pf_child_exec(sync, file, b->process, b->env, err);
}

void pf_child_main(const struct pf_box_params *params, struct pf_cgroup_join *join, int sync, int null)
{
	struct pf_become b = {.process = &params->spec->process,
		.seccomp = params->seccomp,
		.seccomp_flags = params->seccomp_flags,
		.spec = params->spec,
		.lsm_fd = -1,
		.lsm_label = params->oci ? params->oci->lsm.label : NULL,
		.keeps_groups = params->rootless && params->spec->process.n_groups == 0,
		.oci = params->oci != NULL};
	struct pf_err err = PF_ERR_INIT;

	if (child_setup(params, join, sync, null, &b, &err) == 0) {
		if (params->oci)
			hold(params, &b, sync, &err);
		else if (params->init_fd < 0)
			exec_itself(&b, sync, &err);
		else if (pf_child_late_filter(&b, &err) == 0)
			pf_child_exec_init(sync, params->init_fd, b.process, &err);
	}
	pf_child_fail(sync, &err);
}
