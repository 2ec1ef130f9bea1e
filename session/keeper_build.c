/* The keeper's first work: the gate, the cgroup and the box, in the order that fails closed. The gate makes
 * its namespace in a process of its own and pinfold-tls its authority, while the cgroup is made here; it
 * loads its rules while the box is made. The box does not get its root, without which nothing of it runs,
 * before the gate has said that the rules are in force. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "overlay/mount.h"
#include "sandbox/bpf_device.h"
#include "session/confine.h"
#include "session/keeper_priv.h"
#include "session/session.h"

static int stack_layers(const struct keeper *k, int userns_fd, struct pf_err *err)
{
	size_t n = pf_strv_len(k->p->lowers), i;
	int *fds = pf_calloc(n, sizeof(*fds)), r = 0;

	for (i = 0; i < n; i++) {
		fds[i] = open(k->p->lowers[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fds[i] < 0) {
			r = pf_fail(err, errno, "layer %s", k->p->lowers[i]);
			break;
		}
	}
	if (r == 0)
		r = pf_overlay_mount(fds, n, k->p->workspace->rw_fd, userns_fd, false, err);
	while (i-- > 0)
		close(fds[i]);
	free(fds);
	return r;
}

static int make_root(void *arg, int userns_fd, struct pf_err *err)
{
	struct keeper *k = arg;
	PF_CLOSE int root = stack_layers(k, userns_fd, err);

	if (root < 0)
		return -1;
	if (pf_gateproc_ready(&k->gate, err) < 0)
		return pf_wrap(err, "egress gate");
	/* A file that the box is about to be shown. */
	return pf_keeper_tls_trust(k, err) < 0 ? -1 : pf_take_fd(&root);
}

static int make_cgroup(struct keeper *k, struct pf_err *err)
{
	PF_LIMITS struct pf_limits limits;

	pf_limits_init(&limits);
	if (pf_limits_from_oci(k->p->spec->resources, &limits, err) < 0 ||
		pf_cgroup_probe(&k->host, err) < 0 ||
		pf_cgroup_create(
			&k->host, k->p->spec->cgroups_path, &limits, PF_CGROUP_LEAVES, &k->cgroup, err) < 0 ||
		pf_cgroup_leaf(k->cgroup, "init", NULL, 0, &k->init_leaf, err) < 0)
		return pf_wrap(err, "cgroup");
	return 0;
}

/* All sessions have the same devices, so the filter is attached once, to the cgroup above them all: loading
 * one takes longer than making a box. Two keepers that both find none attach two equal ones, which is no
 * harm. */
static int limit_devices(struct keeper *k, struct pf_err *err)
{
	PF_CGROUP struct pf_cgroup *parent = NULL;
	PF_DEVICE_RULES struct pf_device_rules rules = {0};

	if (pf_cgroup_open(&k->host, PF_SESSION_CGROUP, &parent, err) < 0)
		return -1;
	if (pf_device_in_force(parent) == 1)
		return 0;
	pf_device_rules_add_default(&rules, false);
	return pf_device_apply(parent, &rules, err);
}

int pf_keeper_build(struct keeper *k, struct pf_err *err)
{
	PF_CLOSE int netns = -1, init = -1, cache = -1;
	PF_BPF struct pf_bpf filter = {0};
	const struct pf_gateproc_params gate = {.policy = k->p->policy,
		.creds = k->p->creds,
		.hostname = k->p->hostname,
		.authority = k->p->tls_helper,
		.audit = k->audit,
		.uid = pf_confine_gate_uid(k->p->state->id_base)};
	struct pf_box_params box = {.spec = k->p->spec,
		.stdio = {-1, -1, -1},
		.root = make_root,
		.root_arg = k,
		.seccomp = &filter,
		.die_with_parent = true};

	k->revision = pf_policy_revision(k->p->policy);
	if (pf_keeper_tls_begin(k, err) < 0 || pf_gateproc_start(&gate, &k->gate, err) < 0)
		return -1;
	k->gate.wake_tls = pf_keeper_tls_wake;
	k->gate.arg = k;
	if (make_cgroup(k, err) < 0 || limit_devices(k, err) < 0)
		return -1;
	init = pf_init_memfd(err);
	cache = pf_dirs_open(k->p->dirs->root, ".cache", err);
	if (init < 0 || cache < 0 ||
		pf_seccomp_default_cached(cache, &(struct pf_seccomp_opts){0}, &filter, err) < 0)
		return -1;
	netns = pf_gateproc_netns(&k->gate, err);
	if (netns < 0)
		return pf_wrap(err, "egress gate");
	box.cgroup = k->init_leaf;
	box.netns_fd = netns;
	box.init_fd = init;
	/* Not before: one that has failed is asked for its reason, and told nothing. */
	return pf_box_create(&box, &k->box, err) < 0 ||
			       pf_gateproc_box(&k->gate, pf_cgroup_fd(k->cgroup), k->box.pidfd, err) < 0
		       ? -1
		       : 0;
}

void pf_keeper_undo(struct keeper *k)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (k->box.pid > 0) {
		(void)kill(k->box.pid, SIGKILL);
		(void)waitpid(k->box.pid, NULL, 0);
	}
	pf_gateproc_end(&k->gate);
	pf_tlsproc_done(&k->tls);
	if (k->cgroup) {
		(void)pf_cgroup_remove(k->cgroup, 2000, &ignored);
		pf_cgroup_prune(&k->host, PF_SESSION_CGROUP);
	}
	(void)pf_autosave_end(&k->autosave, k->p->dirs, k->p->state->id, PF_N_ON, &ignored);
}
