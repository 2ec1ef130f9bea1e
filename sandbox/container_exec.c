/* One more process in a container. It is cloned into the container's own cgroup; if the kernel kills it at
 * birth (a cgroup that was ever killed takes no clones, see cgroup.h) it is made once more and joins: moving
 * costs milliseconds, and hardly any cgroup was ever killed and still has a process to exec beside. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "sandbox/box.h"
#include "sandbox/child.h"
#include "sandbox/container.h"

/* How long the start of a process may take. */
#define START_US ((int64_t)30 * 1000000)

struct execing {
	const struct pf_container *c;
	const struct pf_spec *spec;
};

static int on_listener(void *arg, pid_t pid, int fd, struct pf_err *err)
{
	const struct execing *e = arg;
	PF_CLOSE int listener = fd;

	return pf_container_send_listener(
		e->spec->seccomp, pf_container_json(e->c, NULL, e->c->pid), pid, listener, err);
}

static int open_cgroup(
	const struct pf_container *c, const char *below, struct pf_cgroup **cg, struct pf_err *err)
{
	struct pf_cgroup_host host;

	if (!below)
		return pf_container_cgroup(c, cg, err);
	PF_FREE char *path = pf_asprintf("%s/%s", c->cgroup, below);
	return pf_cgroup_probe(&host, err) < 0 ? -1 : pf_cgroup_open(&host, path, cg, err);
}

static int check(const struct pf_container *c, const struct pf_container_exec *x, struct pf_err *err)
{
	if (c->status == PF_CONTAINER_PAUSED && !x->ignore_paused)
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"cannot exec in paused container %s (remedy: resume it, or --ignore-paused)", c->id);
	if (c->status == PF_CONTAINER_STOPPED || c->status == PF_CONTAINER_CREATING)
		return pf_fail_kind(err, PF_ERR_STATE, 0, "cannot exec in container %s: it is %s", c->id,
			pf_container_status_name(c->status));
	if (x->process->terminal && x->console_fd < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"a terminal needs --console-socket, or exec without --detach");
	if (!x->process->args || !x->process->args[0])
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "process.args: needs a program to run");
	return pf_rlimits_check(x->process->rlimits, x->process->n_rlimits, err);
}

/* Where its process 1 is now: a container that was given its part of the tree (systemd, an engine inside) has
 * handed controllers down and sits in a cgroup below, and the kernel lets nobody into the one above. */
static int open_own_cgroup(const struct pf_container *c, struct pf_cgroup **cg, struct pf_err *err)
{
	struct pf_cgroup_host host;
	PF_FREE char *text = NULL;
	char file[64];
	size_t len = c->cgroup ? strlen(c->cgroup) : 0;

	snprintf(file, sizeof(file), "/proc/%d/cgroup", (int)c->pid);
	if (pf_read_pseudo_at(AT_FDCWD, file, 65536, &text, err) < 0)
		return -1;
	char *path = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
	if (!path)
		return pf_fail_kind(err, PF_ERR_STATE, 0, "process %d is in no v2 cgroup", (int)c->pid);
	path = strchr(path, '/');
	if (path)
		path[strcspn(path, "\n")] = '\0';
	if (!path || !len || strncmp(path, c->cgroup, len) != 0 || path[len] != '/')
		return pf_fail_kind(
			err, PF_ERR_STATE, 0, "process %d has left the container's cgroup", (int)c->pid);
	return pf_cgroup_probe(&host, err) < 0 ? -1 : pf_cgroup_open(&host, path, cg, err);
}

/* Into the cgroup of p, by clone or by joining. */
static int exec_into(
	struct pf_exec_params *p, struct pf_cgroup *cg, pid_t *pid, int *pidfd, struct pf_err *err)
{
	p->cgroup = cg;
	pf_cgroup_presume_clone_safe(cg, true);
	if (pf_box_exec(p, pid, pidfd, err) == 0)
		return 0;
	if (err->errnum != PF_CHILD_DIED || pf_pidfd_ended(p->pidfd))
		return -1;
	pf_cgroup_presume_clone_safe(cg, false);
	*err = PF_ERR_INIT;
	return pf_box_exec(p, pid, pidfd, err);
}

int pf_container_exec(const struct pf_container *c, const struct pf_spec *spec,
	const struct pf_container_exec *x, pid_t *pid, int *pidfd, struct pf_err *err)
{
	PF_CGROUP struct pf_cgroup *cg = NULL;
	PF_BPF struct pf_bpf filter = {0};
	PF_FREE char *keyring = pf_container_keyring(c);
	struct execing e = {.c = c, .spec = spec};
	struct pf_box_oci oci = {.console_fd = x->process->terminal ? x->console_fd : -1,
		.keep_fds = x->keep_fds,
		.keyring = keyring,
		.on_listener = on_listener,
		.arg = &e};
	struct pf_exec_params p = {.join_user = c->own_user,
		.join_net = true,
		.join_time = c->own_time,
		.process = x->process,
		.stdio = {0, 1, 2},
		.stay = x->stay,
		.spec = spec,
		.oci = &oci};
	/* As long as for a session's command. */
	const struct pf_child_patience patience = {
		.deadline_us = x->ignore_paused ? INT64_MAX : pf_now_us() + START_US,
		.cancel_fd = x->cancel_fd};
	int notify = 0;

	p.patience = &patience;
	if (check(c, x, err) < 0 || pf_lsm_plan(x->process, &oci.lsm, err) < 0)
		return -1;
	if (spec->seccomp) {
		if (pf_seccomp_oci_cached(
			    x->cache_dir, spec->seccomp, &filter, &p.seccomp_flags, &notify, err) < 0)
			return pf_wrap(err, "linux.seccomp");
		p.seccomp = &filter;
	}
	if (open_cgroup(c, x->cgroup, &cg, err) < 0)
		return pf_wrap(err, "cgroup");
	PF_CLOSE int init = pf_pidfd_open_checked(c->pid, c->pid_start);
	if (init < 0)
		return pf_fail_kind(err, PF_ERR_STATE, 0, "container %s has stopped", c->id);
	p.pidfd = init;
	if (exec_into(&p, cg, pid, pidfd, err) == 0)
		return 0;
	if (err->errnum != EBUSY || x->cgroup)
		return -1;
	PF_CGROUP struct pf_cgroup *own = NULL;
	struct pf_err why = PF_ERR_INIT;
	if (open_own_cgroup(c, &own, &why) < 0)
		return -1;
	*err = PF_ERR_INIT;
	return exec_into(&p, own, pid, pidfd, err);
}
