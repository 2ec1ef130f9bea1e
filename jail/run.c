/* Theory of operation: from a pf_jail to a result.
 *
 *   before              the /etc from the cache, a cgroup (root only), the terminal, pipes, the filter
 *   making              the network namespace and its gate, the box
 *   confined            a loop over: the end of the command, the gate, signals, streams, time, memory
 *
 * There is no keeper: this process is the command's parent and dies with it, and it with this process (the
 * box's first process is killed when its parent dies, and with it its pid namespace). Once the box runs and
 * there is a gate, what this process needs no more is taken from it (session/confine.c), since from then on
 * it reads names and packets that the command wrote. */
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/sink.h"
#include "base/str.h"
#include "base/sys.h"
#include "jail/learn.h"
#include "jail/message.h"
#include "jail/run.h"
#include "jail/scratch.h"
#include "jail/weak.h"
#include "netpolicy/gate.h"
#include "sandbox/box.h"
#include "session/confine.h"
#include "session/tty.h"

#define MAX_DENIED 100

struct running {
	struct pf_jail *j;
	struct pf_jail_limits limits;
	struct pf_jail_scratch scratch;
	struct pf_spec spec;
	struct pf_bpf filter;
	struct pf_learn *learn;
	struct pf_gate *gate;
	struct pf_policy *policy;
	struct pf_tty tty;
	struct pf_box box;
	struct pf_sink sinks[2];
	int netns, signals; /* netns may be PF_BOX_NETNS_HERE */
	int out_w, err_w;   /* the command's ends of the pipes */
	int64_t started_us;
	int64_t kill_us; /* when the command is to be killed that was told to end; 0: it was not */
	const char *limit;
	struct pf_channel control;
	bool killed; /* all of it was sent SIGKILL */
	char *weak_scratch;
	cJSON *denied;
};

/* ---- before ---- */

static int open_sinks(struct running *r, struct pf_err *err)
{
	int *const ends[] = {&r->out_w, &r->err_w};

	for (int i = 0; i < 2; i++) {
		int p[2];
		if (pipe2(p, O_CLOEXEC) < 0)
			return pf_fail(err, errno, "pipe");
		r->sinks[i].fd = p[0];
		r->sinks[i].max = r->j->capture_max;
		pf_buf_add(&r->sinks[i].data, "", 0);
		*ends[i] = p[1];
		/* Only our ends: the command's are blocking, as programs expect. */
		(void)fcntl(p[0], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

static int read_bpf(int fd, struct pf_bpf *out, struct pf_err *err)
{
	enum { MAX = 4096 };
	struct sock_filter *insns = pf_calloc(MAX + 1, sizeof(*insns));
	ssize_t n = pf_read_full(fd, insns, (MAX + 1) * sizeof(*insns));

	if (n <= 0 || n % (ssize_t)sizeof(*insns) != 0 || n / (ssize_t)sizeof(*insns) > MAX) {
		free(insns);
		return n < 0 ? pf_fail(err, errno, "seccomp program")
			     : pf_fail_kind(err, PF_ERR_INVALID, 0,
				       "seccomp program: %zd bytes are no program of 1 to %d instructions", n,
				       (int)MAX);
	}
	out->insns = insns;
	out->len = (unsigned short)(n / (ssize_t)sizeof(*insns));
	return 0;
}

static int compile_filter(struct running *r, struct pf_err *err)
{
	const struct pf_jail *j = r->j;
	PF_FREE char *cache_path = NULL;
	unsigned flags = 0;
	int notify = 0;

	if (j->learn && j->seccomp != PF_JAIL_SECCOMP_DEFAULT && j->seccomp != PF_JAIL_SECCOMP_STRICT)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"--learn listens through the default filter; leave --seccomp out");
	if (j->seccomp == PF_JAIL_SECCOMP_OFF)
		return 0;
	if (j->seccomp == PF_JAIL_SECCOMP_BPF)
		return read_bpf(j->seccomp_fd, &r->filter, err);
	PF_CLOSE int cache = pf_jail_cache_dir(&cache_path);
	if (j->seccomp == PF_JAIL_SECCOMP_FILE) {
		if (pf_seccomp_oci_cached(cache, j->seccomp_object, &r->filter, &flags, &notify, err) < 0)
			return -1;
		return notify ? pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
					"seccomp: there is nobody to notify (SCMP_ACT_NOTIFY)")
			      : 0;
	}
	const struct pf_seccomp_opts opts = {.strict = j->seccomp == PF_JAIL_SECCOMP_STRICT,
		.bare = j->weak,
		.notify = j->learn ? pf_learn_calls : NULL};
	return j->learn ? pf_seccomp_default(&opts, &r->filter, err)
			: pf_seccomp_default_cached(cache, &opts, &r->filter, err);
}

static void add_op_first(struct pf_jail *j, struct pf_jail_op op)
{
	pf_jail_add(j, op);
	memmove(&j->ops[1], &j->ops[0], (j->n_ops - 1) * sizeof(*j->ops));
	j->ops[0] = op;
}

static int add_etc(struct pf_jail *j, struct pf_err *err)
{
	char *path = NULL;

	if (!j->etc)
		return 0;
	if (pf_jail_cached_etc(j, &path, err) < 0)
		return -1;
	int fd = path ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd < 0) {
		free(path);
		return 0;
	}
	add_op_first(j, (struct pf_jail_op){.kind = PF_JAIL_BIND,
				.dest = pf_strdup("/etc"),
				.source = path,
				.fd = fd,
				.read_only = true,
				.directory = true,
				.why = "system"});
	j->etc = false;
	return 0;
}

/* A terminal of the machine's; the command finds it as /dev/console, since its own devpts has other ones. */
static int add_tty(struct running *r, struct pf_err *err)
{
	char link[64], name[128];
	ssize_t n;

	if (!r->j->tty)
		return 0;
	if (pf_tty_open_here(&r->tty, err) < 0)
		return -1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", r->tty.peer);
	n = readlink(link, name, sizeof(name) - 1);
	if (n <= 0)
		return pf_fail(err, errno, "terminal");
	name[n] = '\0';
	for (size_t i = 0; i < r->j->n_ops; i++)
		if (r->j->ops[i].kind == PF_JAIL_DEV) {
			int fd = open(name, O_PATH | O_CLOEXEC);
			if (fd < 0)
				return pf_fail(err, errno, "terminal %s", name);
			pf_jail_add(r->j, (struct pf_jail_op){.kind = PF_JAIL_BIND,
						  .dest = pf_asprintf("%s/console", r->j->ops[i].dest),
						  .source = pf_strdup(name),
						  .fd = fd,
						  .devices = true,
						  .why = "terminal"});
			break;
		}
	return 0;
}

static int watch_signals(struct running *r, struct pf_err *err)
{
	static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		sigaddset(&set, taken[i]);
	r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (r->signals < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return pf_fail(err, errno, "signals");
	return 0;
}

/* The part of prepare() that --weak has. */
static int prepare_weak(struct running *r, struct pf_err *err)
{
	struct pf_jail *j = r->j;

	if (j->seccomp == PF_JAIL_SECCOMP_DEFAULT)
		j->seccomp = PF_JAIL_SECCOMP_STRICT;
	if (j->learn)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "--weak cannot --learn");
	if (pf_weak_check(j, err) < 0 || (j->tty && pf_tty_open_here(&r->tty, err) < 0) ||
		(j->capture && open_sinks(r, err) < 0) || compile_filter(r, err) < 0 ||
		watch_signals(r, err) < 0)
		return -1;
	r->weak_scratch = pf_weak_scratch(j, err);
	return r->weak_scratch ? 0 : -1;
}

static int prepare(struct running *r, struct pf_err *err)
{
	struct pf_jail *j = r->j;

	if (j->die_with_parent && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return pf_fail(err, errno, "PR_SET_PDEATHSIG");
	if (pf_jail_guard_cache(j, err) < 0)
		return -1;
	if (j->weak)
		return prepare_weak(r, err);
	/* Only the gate can tell what was tried. */
	if (j->learn && j->net == PF_JAIL_NET_NONE)
		j->net = PF_JAIL_NET_GATE;
	if (j->net == PF_JAIL_NET_NONE && pf_jail_lone_net_begin(j, err) < 0)
		return -1;
	if (pf_jail_data_files(j, err) < 0)
		return -1;
	/* The cache before an overlay may cover it, and take what is written to it. */
	if (add_etc(j, err) < 0 || compile_filter(r, err) < 0 ||
		pf_jail_limits_make(j, &r->limits, err) < 0 ||
		pf_jail_scratch_make(j, &r->limits, &r->scratch, err) < 0 || add_tty(r, err) < 0 ||
		(j->capture && open_sinks(r, err) < 0) || watch_signals(r, err) < 0)
		return -1;
	if (j->net == PF_JAIL_NET_GATE) {
		r->policy = pf_policy_compile(j->networking, err);
		if (!r->policy)
			return pf_wrap(err, "network policy");
	}
	return pf_spec_parse(pf_jail_spec(j), &r->spec, err);
}

/* ---- the network ---- */

/* The entry for ev among what was denied, made if it is not there and there is room. */
static cJSON *denied_entry(struct running *r, const struct pf_gate_event *ev)
{
	cJSON *e;

	if (!r->denied)
		r->denied = cJSON_CreateArray();
	const char *what = ev->name ? ev->name : ev->orig ? ev->orig : "";
	cJSON_ArrayForEach(e, r->denied)
	{
		const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "name"));
		const cJSON *port = cJSON_GetObjectItemCaseSensitive(e, "port");
		if (name && strcmp(name, what) == 0 && (port ? port->valueint : 0) == ev->port)
			return e;
	}
	if (cJSON_GetArraySize(r->denied) >= MAX_DENIED)
		return NULL;
	e = cJSON_CreateObject();
	cJSON_AddStringToObject(e, "name", what);
	if (ev->port)
		cJSON_AddNumberToObject(e, "port", ev->port);
	if (ev->proto)
		cJSON_AddStringToObject(e, "proto", ev->proto);
	cJSON_AddStringToObject(e, "reason", ev->reason ? ev->reason : "denied");
	cJSON_AddNumberToObject(e, "count", 0);
	cJSON_AddItemToArray(r->denied, e);
	if (r->j->say) {
		PF_FREE char *text =
			ev->port ? pf_asprintf("denied: %s:%u (%s)", what, (unsigned)ev->port,
					   ev->reason ? ev->reason : "denied")
				 : pf_asprintf("denied: %s (%s)", what, ev->reason ? ev->reason : "denied");
		r->j->say(r->j->say_arg, text);
	}
	return e;
}

static void on_gate(void *user, const struct pf_gate_event *ev)
{
	struct running *r = user;

	if (!ev->verdict || strcmp(ev->verdict, "deny") != 0)
		return;
	cJSON *e = denied_entry(r, ev);
	cJSON *count = e ? cJSON_GetObjectItemCaseSensitive(e, "count") : NULL;
	if (count)
		cJSON_SetNumberValue(count, count->valuedouble + 1 + (double)ev->suppressed);
}

static int make_network(struct running *r, struct pf_err *err)
{
	struct pf_gate_opts opts = {.audit = on_gate, .user = r, .hostname = r->j->hostname};

	if (r->j->net == PF_JAIL_NET_HOST)
		return 0;
	if (r->j->net == PF_JAIL_NET_GATE) {
		r->gate = pf_gate_open(r->policy, &opts, &r->netns, err);
		return r->gate ? 0 : -1;
	}
	r->netns = PF_BOX_NETNS_HERE;
	return pf_jail_lone_net_enter(r->j, err);
}

/* ---- the box ---- */

static int on_listener(void *arg, int fd, struct pf_err *err)
{
	struct running *r = arg;

	r->learn = pf_learn_new();
	return pf_learn_start(r->learn, fd, err);
}

static int start(struct running *r, struct pf_err *err)
{
	const struct pf_jail *j = r->j;
	PF_CLOSE int init = -1;
	struct pf_box_params p = {.spec = &r->spec,
		.cgroup = r->limits.cgroup,
		.netns_fd = -1,
		.init_fd = -1,
		.stdio = {0, 1, 2},
		.root = pf_jail_root,
		.root_arg = r->j,
		.seccomp = r->filter.len ? &r->filter : NULL,
		.seccomp_flags = j->learn ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0,
		.on_listener = on_listener,
		.listener_arg = r,
		.on_ready = j->ready,
		.ready_arg = j->started_arg,
		.ready_fd = j->ready_fd,
		.die_with_parent = true,
		.keep_session = !j->new_session};

	if (!j->weak && make_network(r, err) < 0)
		return -1;
	p.netns_fd = r->netns;
	if (!j->as_pid_1 && !j->weak) {
		init = pf_init_memfd(err);
		if (init < 0)
			return -1;
		p.init_fd = init;
	}
	if (j->capture) {
		p.stdio[0] = j->keep_stdin ? 0 : -1;
		p.stdio[1] = r->out_w;
		p.stdio[2] = r->err_w;
	} else if (j->tty) {
		for (int i = 0; i < 3; i++)
			p.stdio[i] = r->tty.peer;
	}
	r->started_us = pf_now_us();
	if (j->weak ? pf_weak_start(j, r->weak_scratch, p.stdio, &r->filter, &r->box, err) < 0
		    : pf_box_create(&p, &r->box, err) < 0) {
		if (r->limits.cgroup && j->memory >= 0 && pf_cgroup_oom_kills(r->limits.cgroup) > 0)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"--memory %lld: that is too little for anything to start; a few megabytes "
				"are "
				"needed",
				(long long)j->memory);
		return -1;
	}
	if (j->started)
		j->started(j->started_arg, r->box.pid);
	for (size_t i = 0; i < j->n_ops; i++)
		if (j->ops[i].fd >= 0)
			close(pf_take_fd(&r->j->ops[i].fd));
	if (j->capture) {
		close(pf_take_fd(&r->out_w));
		close(pf_take_fd(&r->err_w));
	} else if (j->tty) {
		pf_tty_started(&r->tty);
	}
	if (r->netns >= 0)
		close(pf_take_fd(&r->netns));
	return 0;
}

/* ---- the loop ---- */

static bool has_overlay(const struct pf_jail *j)
{
	for (size_t i = 0; i < j->n_ops; i++)
		if (j->ops[i].kind == PF_JAIL_OVERLAY)
			return true;
	return false;
}

static void forward_signals(struct running *r)
{
	struct signalfd_siginfo si;

	while (read(r->signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGWINCH)
			pf_tty_resize(&r->tty);
		/* What was typed at a terminal that the command shares has reached it already. */
		else if (r->j->new_session || si.ssi_code != SI_KERNEL)
			(void)pidfd_send_signal(r->box.pidfd, (int)si.ssi_signo, NULL, 0);
		/* Whoever says so wants it to be over, whatever the command makes of it. */
		if (si.ssi_signo == SIGTERM && !r->kill_us)
			r->kill_us = pf_now_us() + r->j->grace_ms * 1000;
	}
}

static void end(struct running *r, const char *limit)
{
	struct pf_err ignored = PF_ERR_INIT;

	r->killed = true;
	if (!r->limit)
		r->limit = limit;
	if (r->limits.cgroup)
		(void)pf_cgroup_kill(r->limits.cgroup, &ignored);
	(void)pidfd_send_signal(r->box.pidfd, SIGKILL, NULL, 0);
	if (r->j->weak)
		(void)kill(
			-r->box.pid, SIGKILL); /* its process group; what left that is swept up at the end */
}

static void answer_snapshot(struct running *r, const char *name, cJSON *a, struct pf_err *err)
{
	if (!name || pf_check_id("checkpoint name", name, err) < 0) {
		if (!name)
			pf_fail_kind(err, PF_ERR_INVALID, 0, "snapshot: a name is expected");
	} else if (!has_overlay(r->j)) {
		pf_fail_kind(err, PF_ERR_STATE, 0,
			"it was started without an overlay, and writes to the real directories; give it "
			"\"overlay\": true at the start");
	} else {
		cJSON *kept = pf_jail_scratch_keep(&r->scratch, name, r->box.pid, err);
		if (kept)
			cJSON_AddItemToObject(a, "done", kept);
	}
}

static cJSON *answer(struct running *r, const cJSON *m, struct pf_err *err)
{
	const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "op"));
	const cJSON *signal_ = cJSON_GetObjectItemCaseSensitive(m, "signal");
	const cJSON *networking = cJSON_GetObjectItemCaseSensitive(m, "networking");
	cJSON *a = cJSON_CreateObject();

	if (op && strcmp(op, "kill") == 0 && cJSON_IsNumber(signal_)) {
		(void)pidfd_send_signal(r->box.pidfd, signal_->valueint, NULL, 0);
		cJSON_AddStringToObject(a, "done", "kill");
		return a;
	}
	if (op && strcmp(op, "policy") == 0 && r->gate) {
		struct pf_policy *next = pf_policy_compile(networking, err);
		if (next) {
			uint64_t revision = pf_policy_revision(pf_gate_policy(r->gate)) + 1;
			pf_policy_set_revision(next, revision);
			if (pf_gate_set_policy(r->gate, next, err) == 0)
				pf_json_add_int(a, "done", (int64_t)revision);
			pf_policy_unref(next);
		}
	} else if (op && strcmp(op, "snapshot") == 0) {
		answer_snapshot(r, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "name")), a, err);
	} else if (op && strcmp(op, "policy") == 0) {
		pf_fail_kind(err, PF_ERR_STATE, 0,
			"it was started without a network; give it a policy at the start");
	} else {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "unknown request");
	}
	if (*err->msg)
		cJSON_AddStringToObject(a, "error", err->msg);
	return a;
}

static void on_control(struct running *r)
{
	struct pf_err err = PF_ERR_INIT;
	cJSON *m = NULL;
	int n;

	while ((n = pf_channel_serve(&r->control, &m, &err)) > 0) {
		pf_channel_send(&r->control, answer(r, m, &err));
		cJSON_Delete(m);
		err = PF_ERR_INIT;
	}
	if (n == 0)
		return;
	/* Nobody is there any more, or nobody who can be understood. */
	if (r->control.over) {
		cJSON *a = cJSON_CreateObject();
		cJSON_AddStringToObject(a, "error", err.msg);
		pf_channel_send(&r->control, a);
	} else {
		r->control.fd = -1;
	}
	end(r, NULL);
}

/* The shorter of best and what is left until a moment; 0: there is no such moment. */
static int sooner(int best, int64_t moment_us)
{
	if (!moment_us)
		return best;
	int64_t left = (moment_us - pf_now_us() + 999) / 1000;
	if (left < 0)
		left = 0;
	return best >= 0 && left >= best ? best : left > 3600000 ? 3600000 : (int)left;
}

static int wait_ms(const struct running *r, int64_t deadline_us)
{
	int best = r->gate ? pf_gate_timeout_ms(r->gate) : -1, look = pf_jail_limits_timeout(&r->limits);

	if (best < 0 || (look >= 0 && look < best))
		best = look;
	return sooner(sooner(best, r->limit ? 0 : deadline_us), r->killed ? 0 : r->kill_us);
}

static void serve(struct running *r)
{
	int64_t deadline = r->j->timeout_ms > 0 ? r->started_us + r->j->timeout_ms * 1000 : 0;
	bool ended = false;

	while (!ended) {
		struct pollfd p[9] = {{.fd = r->box.pidfd, .events = POLLIN},
			{.fd = r->signals, .events = POLLIN}, {.fd = r->sinks[0].fd, .events = POLLIN},
			{.fd = r->sinks[1].fd, .events = POLLIN},
			{.fd = r->gate ? pf_gate_fd(r->gate) : -1, .events = POLLIN},
			{.fd = r->limits.oom_fd, .events = POLLIN},
			{.fd = r->control.fd, .events = pf_channel_events(&r->control)}};
		int n = 7 + (r->j->tty ? pf_tty_poll(&r->tty, &p[7]) : 0);

		if (poll(p, (nfds_t)n, wait_ms(r, deadline)) < 0)
			continue;
		if (p[1].revents)
			forward_signals(r);
		if (p[6].revents)
			on_control(r);
		for (int i = 0; i < 2; i++)
			if (p[2 + i].revents && !pf_sink_drain(&r->sinks[i]))
				close(pf_take_fd(&r->sinks[i].fd));
		if (r->gate)
			pf_gate_dispatch(r->gate);
		if (r->j->tty)
			pf_tty_serve(&r->tty, &p[7]);
		if (!r->limit && pf_jail_limits_look(&r->limits, r->box.pid))
			end(r, "memory");
		if (deadline && !r->limit && pf_now_us() >= deadline)
			end(r, "timeout");
		if (r->kill_us && !r->killed && pf_now_us() >= r->kill_us)
			end(r, NULL);
		ended = p[0].revents != 0;
	}
	for (int i = 0; i < 2; i++)
		while (r->sinks[i].fd >= 0) {
			struct pollfd p = {.fd = r->sinks[i].fd, .events = POLLIN};
			if (poll(&p, 1, 0) <= 0)
				break;
			if (!pf_sink_drain(&r->sinks[i]))
				close(pf_take_fd(&r->sinks[i].fd));
		}
	if (r->j->tty)
		pf_tty_drain(&r->tty);
}

static void collect(struct running *r, struct pf_jail_result *res)
{
	siginfo_t si = {0};
	struct rusage ru = {0};

	while (syscall(SYS_waitid, P_PIDFD, r->box.pidfd, &si, WEXITED, &ru) < 0 && errno == EINTR)
		;
	res->wall_us = pf_now_us() - r->started_us;
	res->cpu_us = (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000 + ru.ru_utime.tv_usec +
		      ru.ru_stime.tv_usec;
	res->memory_peak = (int64_t)ru.ru_maxrss * 1024;
	int64_t peak = pf_jail_limits_peak(&r->limits, &res->cpu_us);
	if (peak >= 0)
		res->memory_peak = peak;
	res->exit_code = si.si_code == CLD_EXITED ? si.si_status : 128 + si.si_status;
	/* A kill for memory may be noticed by nobody but the one who was killed. */
	if (!r->limit && r->j->memory >= 0 && pf_jail_limits_killed(&r->limits))
		r->limit = "memory";
	res->limit = r->limit;
	if (r->limit)
		res->exit_code = strcmp(r->limit, "timeout") == 0 ? 124 : 137;
	else if (res->exit_code > 128 && res->exit_code <= 128 + 64)
		res->signal = res->exit_code - 128;
	res->out = pf_take(r->sinks[0].data.data);
	res->out_len = r->sinks[0].data.len;
	res->out_truncated = r->sinks[0].truncated;
	res->err_out = pf_take(r->sinks[1].data.data);
	res->err_len = r->sinks[1].data.len;
	res->err_truncated = r->sinks[1].truncated;
	if (r->learn) {
		pf_learn_stop(r->learn);
		res->learned = pf_learn_profile(r->learn, r->j, r->denied);
	}
	res->denied = r->denied;
	r->denied = NULL;
}

static int look_at_overlays(struct running *r, struct pf_jail_result *res, struct pf_err *err)
{
	if (!has_overlay(r->j))
		return 0;
	if (r->j->keep) {
		res->kept = pf_jail_scratch_keep(&r->scratch, r->j->keep, -1, err);
		if (!res->kept)
			return -1;
	}
	res->committed = r->j->commit && res->exit_code == 0;
	if (!r->j->list_changes && !res->committed)
		return 0;
	return pf_jail_scratch_finish(
		&r->scratch, r->j->list_changes, res->committed, &res->changes, &res->changes_truncated, err);
}

static void clean_up(struct running *r)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (r->j->weak)
		pf_weak_sweep();
	if (r->weak_scratch)
		(void)pf_rm_rf_at(AT_FDCWD, r->weak_scratch, &ignored);
	free(r->weak_scratch);
	pf_channel_flush(&r->control);
	pf_channel_done(&r->control);
	pf_tty_close(&r->tty);
	pf_learn_free(r->learn);
	if (r->gate)
		pf_gate_close(r->gate);
	pf_policy_unref(r->policy);
	pf_jail_limits_done(&r->limits);
	pf_jail_scratch_done(&r->scratch);
	pf_spec_done(&r->spec);
	pf_bpf_done(&r->filter);
	cJSON_Delete(r->denied);
	const int fds[] = {
		r->sinks[0].fd, r->sinks[1].fd, r->netns, r->signals, r->out_w, r->err_w, r->box.pidfd};
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

int pf_jail_run(struct pf_jail *j, struct pf_jail_result *result, struct pf_err *err)
{
	struct running r = {.j = j,
		.limits = PF_JAIL_LIMITS_INIT,
		.scratch = PF_JAIL_SCRATCH_INIT,
		.tty = PF_TTY_INIT,
		.sinks = {{.fd = -1}, {.fd = -1}},
		.netns = -1,
		.signals = -1,
		.out_w = -1,
		.err_w = -1,
		.control = {.fd = j->control_fd},
		.box = {.pidfd = -1}};
	int status = -1;

	if (prepare(&r, err) == 0 && start(&r, err) == 0) {
		if (r.gate && pf_confine_jail(err) < 0) {
			end(&r, NULL);
			serve(&r);
			collect(&r, result);
		} else {
			serve(&r);
			collect(&r, result);
			status = look_at_overlays(&r, result, err);
		}
	}
	clean_up(&r);
	return status;
}
