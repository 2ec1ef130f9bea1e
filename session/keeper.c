/* Theory of operation: the keeper.
 *
 * pinfold forks it and goes on; it is not exec'ed, so that a sandbox costs no second program start and shares
 * most of its pages with every other. It builds the box (the order matters: gate first, so that there is no
 * moment in which the payload runs and the rules do not; then cgroup; then the box), tells pinfold how that
 * went over a pipe, and settles into one epoll loop over
 *
 *     process 1's pidfd    → the sandbox is over: kill what is left, write down why, clean up, end
 *     the gate's epoll fd  → DNS and connections (netpolicy/)
 *     the OOM descriptor   → note the kill in the audit log
 *     the control socket   → execs announcing themselves, requests for the workspace, policy updates
 *     a signalfd           → SIGTERM ends the sandbox in order
 *
 * with the nearest deadline (max_runtime, idle, the gate's own) as its timeout. If it is killed, process 1
 * dies with it (PR_SET_PDEATHSIG) and its sockets close: no keeper, no egress, no sandbox. What stays on disk
 * is found by gc. */

#include "session/keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "netpolicy/gate.h"
#include "netpolicy/tlslink.h"
#include "overlay/mount.h"
#include "sandbox/box.h"
#include "sandbox/bpf_device.h"
#include "session/attribution.h"
#include "session/audit.h"
#include "session/autosave.h"
#include "session/confine.h"
#include "session/control.h"
#include "session/record.h"
#include "session/session.h"
#include "session/tlsproc.h"
#include "session/trust.h"

/* A sandbox that lives longer than its authority must be started again. */
#define AUTHORITY_S ((int64_t)90 * 86400)
/* An end so soon after a kill for memory is that kill's. */
#define OOM_END_US ((int64_t)2000000)

/* A connection to the control socket. */
struct conn {
	int fd;
	char *leaf;    /* of the exec that it stands for; NULL: a request only */
	bool exec;     /* stands or stood for one */
	bool freezing; /* whoever is at the other end may have frozen the box */
	struct conn *next;
};

struct keeper {
	const struct pf_keeper_params *p;
	struct pf_cgroup_host host;
	struct pf_cgroup *cgroup, *init_leaf;
	struct pf_gate *gate;
	struct pf_box box;
	int audit, epoll, listen, signals, oom;
	int64_t oom_kills;
	bool oom_on_v2;
	int64_t oom_us; /* of the last kill, 0: none */
	struct pf_autosave autosave;
	int64_t deadline_us, idle_us; /* 0: none */
	const char *stop_reason;
	struct conn *conns;
	int execs;       /* connections that stand for one */
	char **leftover; /* leaves whose exec is over and which were not empty then; NULL-terminated */
	size_t n_leftover;
	int spare; /* a descriptor to give up when there is none left to accept with */
};

/* ---- building the box
 * ----------------------------------------------------------------------------------------- */

static int make_root(void *arg, int userns_fd, struct pf_err *err)
{
	const struct keeper *k = arg;
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

static void on_verdict(void *arg, const struct pf_gate_event *e)
{
	const struct keeper *k = arg;
	struct pf_err ignored = PF_ERR_INIT;
	const char *event = strcmp(e->verdict, "deny") == 0    ? "egress_denied"
			    : strcmp(e->verdict, "allow") == 0 ? "egress_allowed"
							       : "egress_error";

	/* A full disk must not open the gate nor stop it; the line is lost. */
	(void)pf_audit_write(k->audit, event, pf_gate_event_json(e), &ignored);
}

static void on_whois(void *arg, uint64_t cgroup_id, char **exec, char **process)
{
	const struct keeper *k = arg;

	*exec = *process = NULL;
	if (k->cgroup)
		pf_attribute(pf_cgroup_fd(k->cgroup), cgroup_id, exec, process);
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

/* The certificates that the box will trust. The file must be there before it is bound. */
static int write_trust(const struct keeper *k, int tls, struct pf_err *err)
{
	PF_FREE char *pem = pf_tlsproc_ca(tls, err);
	PF_CLOSE int dir = pem ? pf_dirs_sandbox(k->p->dirs, k->p->state->id, false, err) : -1;

	if (dir < 0)
		return -1;
	PF_CLOSE int etc = openat(dir, "etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (etc < 0)
		return pf_fail(err, errno, "the sandbox's files for /etc");
	return pf_trust_write(etc, k->p->lowers, pem, err);
}

static int start_tls(const struct keeper *k, int *tls, struct pf_err *err)
{
	int64_t runtime = k->p->config->limits.max_runtime_ms;
	const struct pf_tlsproc t = {.helper = k->p->tls_helper,
		.id_base = k->p->state->id_base,
		.networking = k->p->networking,
		.revision = pf_policy_revision(k->p->policy),
		.lifetime_s =
			runtime > 0 && runtime / 1000 < AUTHORITY_S ? runtime / 1000 + 86400 : AUTHORITY_S,
		.credentials = k->p->credentials};

	*tls = k->p->tls_helper ? pf_tlsproc_start(&t, err) : -1;
	return k->p->tls_helper && *tls < 0 ? -1 : 0;
}

static int build(struct keeper *k, struct pf_err *err)
{
	int tls;

	PF_CLOSE int netns = -1, init = -1, cache = -1;
	PF_BPF struct pf_bpf filter = {0};
	struct pf_gate_opts opts = {
		.audit = on_verdict, .whois = on_whois, .user = k, .hostname = k->p->hostname};
	struct pf_box_params box = {.spec = k->p->spec,
		.stdio = {-1, -1, -1},
		.root = make_root,
		.root_arg = k,
		.seccomp = &filter,
		.die_with_parent = true};

	if (start_tls(k, &tls, err) < 0)
		return -1;
	opts.tls_fd = tls > 0 ? tls : 0;
	opts.creds = k->p->creds;
	k->gate = pf_gate_open(k->p->policy, &opts, &netns, err);
	if (!k->gate)
		return pf_wrap(err, "egress gate");
	if (make_cgroup(k, err) < 0 || limit_devices(k, err) < 0)
		return -1;
	init = pf_init_memfd(err);
	cache = pf_dirs_open(k->p->dirs->root, ".cache", err);
	if (init < 0 || cache < 0 ||
		pf_seccomp_default_cached(cache, &(struct pf_seccomp_opts){0}, &filter, err) < 0)
		return -1;
	if (tls >= 0 && write_trust(k, tls, err) < 0)
		return -1;
	box.cgroup = k->init_leaf;
	box.netns_fd = netns;
	box.init_fd = init;
	return pf_box_create(&box, &k->box, err);
}

static int save_state(struct keeper *k, enum pf_status status, struct pf_err *err)
{
	struct pf_state *s = k->p->state;

	s->status = status;
	s->pid = status == PF_STATUS_STOPPED ? 0 : k->box.pid;
	s->pid_start = k->box.start_time;
	s->keeper = getpid();
	s->keeper_start = pf_proc_start_time(getpid());
	return pf_state_save(k->p->dirs, s, err);
}

static int watch(const struct keeper *k, int fd, void *tag)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = tag};

	return epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &ev);
}

static int start(struct keeper *k, struct pf_err *err)
{
	PF_CLOSE int run = pf_dirs_run(k->p->dirs, k->p->state->id, true, err);
	sigset_t set;

	if (run < 0)
		return -1;
	(void)unlinkat(run, "paused", 0); /* of an earlier life of this sandbox */
	/* Before there is anything that it should not hold. */
	if (pf_autosave_wanted(&k->p->config->checkpoint) &&
		pf_autosave_start(k->p->dirs, k->p->state->id, &k->p->config->checkpoint,
			k->p->workspace->upper_fd, &k->autosave, err) < 0)
		return -1;
	k->audit = pf_audit_open(k->p->dirs, k->p->state->id, err);
	if (k->audit < 0 || build(k, err) < 0)
		return -1;
	k->epoll = epoll_create1(EPOLL_CLOEXEC);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	k->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (k->epoll < 0 || k->signals < 0)
		return pf_fail(err, errno, "keeper");
	k->listen = pf_control_listen(run, err);
	if (k->listen < 0)
		return -1;
	k->oom = pf_cgroup_oom_fd(k->cgroup, err);
	if (k->oom < 0)
		return pf_wrap(err, "cgroup");
	k->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	k->oom_on_v2 = k->host.hier[k->host.where[PF_CG_MEMORY]].v2;
	return save_state(k, PF_STATUS_RUNNING, err);
}

/* ---- the control socket
 * --------------------------------------------------------------------------------------- */

static void kill_leaf(struct keeper *k, const char *leaf)
{
	PF_FREE char *path = pf_asprintf("%s/%s", pf_cgroup_path(k->cgroup), leaf);
	PF_CGROUP struct pf_cgroup *cg = NULL;
	struct pf_err ignored = PF_ERR_INIT;

	if (pf_cgroup_open(&k->host, path, &cg, &ignored) == 0 && pf_cgroup_kill(cg, &ignored) == 0)
		(void)pf_cgroup_remove(cg, 1000, &ignored);
}

/* Leaves in which something of an exec went on in the background go when that has ended. */
static void collect_leaves(struct keeper *k, char *leaf)
{
	size_t n = 0;

	if (leaf) {
		char **more = realloc(k->leftover, (k->n_leftover + 1) * sizeof(*more));
		if (!more)
			abort();
		k->leftover = more;
		k->leftover[k->n_leftover++] = leaf;
	}
	for (size_t i = 0; i < k->n_leftover; i++) {
		PF_FREE char *path = pf_asprintf("%s/%s", pf_cgroup_path(k->cgroup), k->leftover[i]);
		PF_CGROUP struct pf_cgroup *cg = NULL;
		struct pf_err e = PF_ERR_INIT;
		bool gone = pf_cgroup_open(&k->host, path, &cg, &e) < 0 && e.kind == PF_ERR_NOT_FOUND;
		if (!gone && cg && pf_cgroup_is_empty(cg, &e) == 1)
			gone = pf_cgroup_remove(cg, 0, &e) == 0;
		if (gone)
			free(k->leftover[i]);
		else
			k->leftover[n++] = k->leftover[i];
	}
	k->n_leftover = n;
}

/* Somebody froze the box and went away without a word: nobody else would thaw it. */
static void thaw(struct keeper *k)
{
	PF_FREE char *paused = pf_asprintf("%s/%s/paused", k->p->dirs->root, k->p->state->id);
	struct pf_err ignored = PF_ERR_INIT;

	if (access(paused, F_OK) != 0)
		(void)pf_cgroup_freeze(k->cgroup, false, 1000, &ignored);
}

static void drop_conn(struct keeper *k, struct conn *c)
{
	struct conn **pp = &k->conns;

	while (*pp != c)
		pp = &(*pp)->next;
	*pp = c->next;
	if (c->freezing)
		thaw(k);
	if (c->leaf)
		kill_leaf(k, c->leaf);
	if (c->exec && --k->execs == 0 && k->p->config->limits.idle_ms > 0)
		k->idle_us = pf_now_us() + k->p->config->limits.idle_ms * 1000;
	close(c->fd);
	free(c->leaf);
	free(c);
}

static cJSON *set_policy(struct keeper *k, const cJSON *networking, struct pf_err *err)
{
	struct pf_policy *next = pf_policy_compile(networking, err);
	uint64_t revision = pf_policy_revision(pf_gate_policy(k->gate)) + 1;
	int r = -1;

	if (next) {
		/* Remembered first: a policy that was narrowed must not be wide again after a restart. */
		PF_CLOSE int dir = pf_dirs_sandbox(k->p->dirs, k->p->state->id, false, err);
		pf_policy_set_revision(next, revision);
		if (dir >= 0 && pf_session_policy_save(dir, networking, revision, err) == 0)
			r = pf_gate_set_policy(k->gate, next, err);
		if (r == 0)
			r = pf_gate_tls_policy(k->gate, networking, err);
		pf_policy_unref(next);
	}
	if (r < 0)
		return NULL;
	struct pf_err ignored = PF_ERR_INIT;
	cJSON *line = cJSON_CreateObject(), *a = cJSON_CreateObject();
	pf_json_add_int(line, "revision", (int64_t)revision);
	cJSON_AddItemToObject(line, "networking", cJSON_Duplicate(networking, true));
	(void)pf_audit_write(k->audit, "policy_set", line, &ignored);
	pf_json_add_int(a, "revision", (int64_t)revision);
	return a;
}

static cJSON *set_secret(struct keeper *k, const char *name, int fd, struct pf_err *err)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (!name || fd < 0) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "no secret came");
		return NULL;
	}
	if (pf_gate_secret(k->gate, name, fd, err) < 0)
		return NULL;
	cJSON *line = cJSON_CreateObject();
	cJSON_AddStringToObject(line, "credential", name);
	(void)pf_audit_write(k->audit, "secret_set", line, &ignored);
	return cJSON_CreateObject();
}

/* Returns the answer to a request, NULL when there is none to give; *fd goes with it. */
static cJSON *answer(struct keeper *k, struct conn *c, const cJSON *msg, int given, int *fd)
{
	const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "op"));
	const char *leaf = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "leaf"));
	struct pf_err err = PF_ERR_INIT;
	cJSON *a = NULL;

	*fd = -1;
	if (!op)
		op = "";
	if (strcmp(op, "exec") == 0 && leaf && pf_check_id("leaf", leaf, &err) == 0 && !c->leaf) {
		c->leaf = pf_strdup(leaf);
		if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(msg, "internal")))
			return NULL;
		k->execs += !c->exec;
		c->exec = true;
		k->idle_us = 0;
		return NULL;
	}
	if (strcmp(op, "done") == 0) {
		collect_leaves(k, pf_take(c->leaf));
		return NULL;
	}
	if (strcmp(op, "freezing") == 0 || strcmp(op, "thawed") == 0) {
		c->freezing = op[0] == 'f';
		return NULL;
	}
	if (strcmp(op, "workspace") == 0) {
		*fd = k->p->workspace->upper_fd;
		a = cJSON_CreateObject();
	} else if (strcmp(op, "policy") == 0) {
		a = cJSON_CreateObject();
		pf_json_add_int(a, "revision", (int64_t)pf_policy_revision(pf_gate_policy(k->gate)));
		cJSON_AddItemToObject(a, "policy", pf_policy_describe(pf_gate_policy(k->gate)));
		cJSON_AddItemToObject(a, "gate", pf_gate_stats(k->gate));
	} else if (strcmp(op, "policy-set") == 0) {
		PF_JSON cJSON *doc = pf_tlslink_read_document(given, &err);
		const cJSON *networking = cJSON_GetObjectItemCaseSensitive(doc, "networking");
		a = networking ? set_policy(k, networking, &err) : NULL;
	} else if (strcmp(op, "policy-test") == 0) {
		a = pf_gate_explain(
			k->gate, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "target")), &err);
	} else if (strcmp(op, "secret") == 0) {
		a = set_secret(
			k, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "name")), given, &err);
	} else {
		pf_fail_kind(&err, PF_ERR_INVALID, 0, "the keeper knows no request '%.40s'", op);
	}
	if (!a) {
		a = cJSON_CreateObject();
		cJSON_AddStringToObject(a, "error", err.msg);
	}
	return a;
}

static void on_conn(struct keeper *k, struct conn *c)
{
	struct pf_err err = PF_ERR_INIT;
	PF_CLOSE int given = -1;
	PF_JSON cJSON *msg = pf_control_recv(c->fd, &given, &err), *a = NULL;
	int fd;

	if (!msg) {
		if (err.errnum == EAGAIN)
			return;
		drop_conn(k, c);
		return;
	}
	a = answer(k, c, msg, given, &fd);
	/* A client that does not read its answer is dropped, never waited for: the socket does not block. */
	if (!a || pf_control_send(c->fd, a, fd, &err) == 0)
		return;
	PF_JSON cJSON *sorry = cJSON_CreateObject();
	cJSON_AddStringToObject(sorry, "error", err.msg);
	if (err.kind != PF_ERR_INVALID || pf_control_send(c->fd, sorry, -1, &err) < 0)
		drop_conn(k, c);
}

static void on_listen(struct keeper *k)
{
	int fd;

	while ((fd = accept4(k->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct conn *c = pf_calloc(1, sizeof(*c));
		c->fd = fd;
		c->next = k->conns;
		k->conns = c;
		if (watch(k, fd, c) < 0)
			drop_conn(k, c);
	}
	/* Out of descriptors: take the caller and turn him away, or the event would come again at once, for
	 * ever. */
	if ((errno == EMFILE || errno == ENFILE) && k->spare >= 0) {
		close(k->spare);
		fd = accept4(k->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			close(fd);
		k->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
}

/* ---- running and ending
 * --------------------------------------------------------------------------------------- */

static void on_oom(struct keeper *k)
{
	struct pf_err ignored = PF_ERR_INIT;
	/* On v1 the notice comes before the kill is counted, and the count goes with the leaf of the exec
	 * that was killed: there the notice itself is the news. */
	int64_t kills = pf_cgroup_oom_drain(k->oom), now = pf_cgroup_oom_kills(k->cgroup);

	if (kills == 0 && k->oom_on_v2 && now > k->oom_kills)
		kills = now - k->oom_kills;
	k->oom_kills = now;
	if (kills == 0)
		return;
	cJSON *line = cJSON_CreateObject();
	cJSON_AddStringToObject(line, "limit", "memory");
	pf_json_add_int(line, "kills", kills);
	(void)pf_audit_write(k->audit, "limit_hit", line, &ignored);
	k->oom_us = pf_now_us();
	if (!k->stop_reason)
		pf_autosave_after_kill(&k->autosave, &k->p->config->checkpoint, k->oom_us);
}

static void audit_no_snapshot(const struct keeper *k, const char *on, const char *why)
{
	cJSON *line = cJSON_CreateObject();
	struct pf_err ignored = PF_ERR_INIT;

	if (on)
		cJSON_AddStringToObject(line, "on", on);
	cJSON_AddStringToObject(line, "error", why);
	(void)pf_audit_write(k->audit, "snapshot_failed", line, &ignored);
}

static void on_saver(struct keeper *k)
{
	pf_autosave_event(&k->autosave, &k->p->config->checkpoint);
	if (k->autosave.fd < 0)
		audit_no_snapshot(k, NULL, "the process that makes checkpoints has died: there will be none");
}

/* What the end of this sandbox is called in checkpoint.on; PF_N_ON when the file does not ask for it. */
static enum pf_config_on occasion(const struct keeper *k, const siginfo_t *si)
{
	const bool *on = k->p->config->checkpoint.on;
	enum pf_config_on o = PF_N_ON;

	bool ended = strcmp(k->stop_reason, "exit") == 0;
	bool out_of_memory = ended && on[PF_ON_LIMIT] && k->oom_us && pf_now_us() - k->oom_us < OOM_END_US;

	if (strcmp(k->stop_reason, "max_runtime") == 0 || out_of_memory)
		o = PF_ON_LIMIT;
	else if (strcmp(k->stop_reason, "idle") == 0)
		o = PF_ON_IDLE;
	else if (strcmp(k->stop_reason, "terminated") == 0)
		o = PF_ON_SIGNAL;
	else if (ended && si->si_code == CLD_EXITED) /* else: killed from outside, by who wanted that */
		o = PF_ON_EXIT;
	return o != PF_N_ON && on[o] ? o : PF_N_ON;
}

static int next_timeout(const struct keeper *k)
{
	int64_t now = pf_now_us(), best = -1;
	int gate = pf_gate_timeout_ms(k->gate);

	if (gate >= 0)
		best = gate;
	const int64_t deadlines[] = {k->deadline_us, k->idle_us, k->autosave.busy ? 0 : k->autosave.next_us};
	for (size_t i = 0; i < sizeof(deadlines) / sizeof(deadlines[0]); i++) {
		int64_t at = deadlines[i];
		if (at == 0)
			continue;
		int64_t ms = at <= now ? 0 : (at - now + 999) / 1000;
		if (best < 0 || ms < best)
			best = ms;
	}
	return best > 3600000 ? 3600000 : (int)best;
}

static void run(struct keeper *k)
{
	static char tag_init, tag_gate, tag_oom, tag_listen, tag_signal, tag_saver;

	if (watch(k, k->box.pidfd, &tag_init) < 0 || watch(k, pf_gate_fd(k->gate), &tag_gate) < 0 ||
		watch(k, k->oom, &tag_oom) < 0 || watch(k, k->listen, &tag_listen) < 0 ||
		watch(k, k->signals, &tag_signal) < 0 ||
		(k->autosave.fd >= 0 && watch(k, k->autosave.fd, &tag_saver) < 0))
		k->stop_reason = "keeper_failed";
	if (k->p->config->limits.max_runtime_ms > 0)
		k->deadline_us = pf_now_us() + k->p->config->limits.max_runtime_ms * 1000;
	if (k->p->config->limits.idle_ms > 0)
		k->idle_us = pf_now_us() + k->p->config->limits.idle_ms * 1000;

	while (!k->stop_reason) {
		struct epoll_event ev[16];
		int n = epoll_wait(k->epoll, ev, 16, next_timeout(k));

		if (n < 0 && errno != EINTR)
			k->stop_reason = "keeper_failed";
		for (int i = 0; i < n && !k->stop_reason; i++) {
			void *tag = ev[i].data.ptr;
			if (tag == &tag_init) {
				k->stop_reason = "exit";
			} else if (tag == &tag_signal) {
				k->stop_reason = "terminated";
			} else if (tag == &tag_oom) {
				on_oom(k);
			} else if (tag == &tag_saver) {
				on_saver(k);
			} else if (tag == &tag_listen) {
				on_listen(k);
			} else if (tag != &tag_gate) {
				on_conn(k, tag);
				break; /* the connection list may have changed under later events of this
					  batch */
			}
		}
		pf_gate_dispatch(k->gate);
		int64_t now = pf_now_us();
		if (!k->stop_reason && k->deadline_us && now >= k->deadline_us)
			k->stop_reason = "max_runtime";
		if (!k->stop_reason && k->idle_us && now >= k->idle_us)
			k->stop_reason = "idle";
		if (!k->stop_reason)
			pf_autosave_tick(&k->autosave, &k->p->config->checkpoint, now);
	}
}

static int code_of(const siginfo_t *si)
{
	return si->si_code == CLD_EXITED ? si->si_status : 128 + si->si_status;
}

/* Everything of the box goes; the workspace on disk stays. */
static void finish(struct keeper *k)
{
	struct pf_err err = PF_ERR_INIT;
	siginfo_t si = {0};

	(void)pf_cgroup_kill(k->cgroup, &err);
	/* And by another way: the end of process 1 is the end of everybody in its namespace. */
	(void)pidfd_send_signal(k->box.pidfd, SIGKILL, NULL, 0);
	(void)pf_cgroup_wait_empty(k->cgroup, 10000, &err);
	on_oom(k);
	while (waitid(P_PIDFD, (id_t)k->box.pidfd, &si, WEXITED) < 0 && errno == EINTR)
		;
	k->p->state->exit_code = code_of(&si);
	free(k->p->state->stop_reason);
	k->p->state->stop_reason = pf_strdup(k->stop_reason);

	cJSON *line = cJSON_CreateObject();
	cJSON_AddStringToObject(line, "reason", k->stop_reason);
	pf_json_add_int(line, "exit_code", k->p->state->exit_code);
	struct pf_cgroup_stats stats;
	if (pf_cgroup_stats(k->cgroup, &stats, &err) == 0)
		cJSON_AddItemToObject(line, "resources", pf_cgroup_stats_json(&stats));
	if (strcmp(k->stop_reason, "max_runtime") == 0 || strcmp(k->stop_reason, "idle") == 0)
		cJSON_AddStringToObject(line, "limit", k->stop_reason);
	(void)pf_audit_write(k->audit, "stop", line, &err);
	(void)pf_cgroup_remove(k->cgroup, 2000, &err);
	(void)save_state(k, PF_STATUS_STOPPED, &err);
	if (k->autosave.pid > 0) {
		enum pf_config_on on = occasion(k, &si);
		struct pf_err why = PF_ERR_INIT;
		if (pf_autosave_end(&k->autosave, k->p->dirs, k->p->state->id, on, &why) < 0)
			audit_no_snapshot(k, pf_config_on_name(on), why.msg);
	}
}

static void undo(struct keeper *k)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (k->box.pid > 0) {
		(void)kill(k->box.pid, SIGKILL);
		(void)waitpid(k->box.pid, NULL, 0);
	}
	if (k->cgroup)
		(void)pf_cgroup_remove(k->cgroup, 2000, &ignored);
	if (k->gate)
		pf_gate_close(k->gate);
	(void)pf_autosave_end(&k->autosave, k->p->dirs, k->p->state->id, PF_N_ON, &ignored);
}

/* Of the file system it needs its own state, its cgroup, and what resolving a name reads. */
static int confine_files(const struct keeper *k, struct pf_err *err)
{
	const struct pf_dirs *d = k->p->dirs;
	const char *id = k->p->state->id;
	PF_FREE char *run = pf_asprintf("%s/%s", d->root, id),
		     *own = pf_asprintf("%s/sandboxes/%s", d->store, id);
	PF_FREE char *all = pf_asprintf("%s/sandboxes", d->store);
	const char *rw[4 + PF_CG_HIERS] = {run, own, "/dev/null"};
	const char *const ro[] = {"/etc", "/proc", "/usr", "/lib", "/lib64", "/run/systemd/resolve",
		"/run/resolvconf", "/run/NetworkManager", NULL};
	const char *const list[] = {d->root, all, d->store, NULL};

	for (int i = 0, n = 3; i < k->host.n_hier; i++)
		rw[n++] = k->host.hier[i].mount;
	return pf_confine_files(rw, ro, list, err);
}

/* What the caller of pinfold left open must not stay open for as long as the sandbox lives: a lock, the end
 * of a pipe that somebody reads to its end. It is told from our own by the flag that all of ours have. */
static void close_inherited(void)
{
	PF_CLOSEDIR DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		int fd = atoi(e->d_name), flags = fd > 2 ? fcntl(fd, F_GETFD) : -1;
		if (flags >= 0 && !(flags & FD_CLOEXEC))
			close(fd);
	}
}

__attribute__((noreturn)) static void keeper_main(const struct pf_keeper_params *p, int report)
{
	struct keeper k = {.p = p,
		.epoll = -1,
		.listen = -1,
		.signals = -1,
		.oom = -1,
		.spare = -1,
		.autosave = PF_AUTOSAVE_NONE};
	struct pf_err err = PF_ERR_INIT;
	struct rlimit files;
	int null;

	close_inherited();
	/* The soft limit is what select(2) can bear; each connection through the gate takes several. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)setsid();
	(void)prctl(PR_SET_NAME, "pinfold-keeper", 0, 0, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	umask(077);
	if (chdir("/") < 0 || start(&k, &err) < 0) {
		undo(&k);
		(void)pf_write_all(report, &err, sizeof(err));
		_exit(125);
	}
	/* Only now let go of the caller's terminal and pipes: whoever reads them to the end is not kept
	 * waiting. */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; null >= 0 && i < 3; i++)
		(void)dup2(null, i);
	/* Until here the lock was held for a caller that may have been killed meanwhile: nobody else could
	 * start a second box on the same workspace. */
	close(p->lock_fd);
	close(report);
	/* After the report, which nobody has to wait longer for: until now nothing hostile has been read. */
	if (confine_files(&k, &err) < 0 || pf_confine_keeper(&err) < 0)
		k.stop_reason = "keeper_failed";
	run(&k);
	finish(&k);
	pf_gate_close(k.gate);
	_exit(0);
}

int pf_keeper_start(const struct pf_keeper_params *params, struct pf_err *err)
{
	int pipe_fds[2];
	struct pf_err remote;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe to the keeper");
	pid_t pid = fork();
	if (pid == 0) {
		close(pipe_fds[0]);
		keeper_main(params, pipe_fds[1]);
	}
	int saved = errno;
	close(pipe_fds[1]);
	if (pid < 0) {
		close(pipe_fds[0]);
		return pf_fail(err, saved, "start the keeper");
	}
	ssize_t n = pf_read_full(pipe_fds[0], &remote, sizeof(remote));
	close(pipe_fds[0]);
	if (n == 0)
		return 0;
	(void)waitpid(pid, NULL, 0);
	if (n != (ssize_t)sizeof(remote))
		return pf_fail(err, 0, "the keeper ended before the sandbox was up");
	remote.msg[sizeof(remote.msg) - 1] = '\0';
	*err = remote;
	return -1;
}
