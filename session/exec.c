/* Theory of operation: running a command in a session.
 *
 * The command is a child of this very process, in a cgroup leaf of its own. Without --json its 0, 1 and 2 are
 * simply the caller's, so that nothing is copied, whatever the amount; with it both outputs are pipes that
 * are read to the end, kept up to a bound and dropped after it; with -t a terminal of the sandbox's own
 * devpts stands between (tty.c).
 *
 * The keeper is told at the start ("exec") and at the end ("done") on one connection: if this process is
 * killed, the connection breaks and the keeper kills what it started. What a command leaves running in the
 * background stays, in its leaf, as with docker exec; what ran into a limit of its own does not. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/sink.h"
#include "base/str.h"
#include "sandbox/box.h"
#include "sandbox/caps.h"
#include "sandbox/rlimit.h"
#include "sandbox/user.h"
#include "session/audit.h"
#include "session/control.h"
#include "session/session.h"
#include "session/tty.h"

struct running {
	const struct pf_exec_opts *o;
	struct pf_state state;
	struct pf_cgroup_host host;
	struct pf_cgroup *cgroup, *leaf;
	struct pf_process process;
	struct pf_tty tty;
	pid_t pid;
	int pidfd, init_pidfd, control, signals, oom, pipes[2];
	int64_t oom_before, started_us;
	int cancel; /* readable when a signal asks to give up; never read */
	bool own_limits, oom_seen;
};

void pf_exec_result_done(struct pf_exec_result *r)
{
	free(r->out);
	free(r->err_out);
	*r = (struct pf_exec_result){0};
}

/* ---- who and what
 * --------------------------------------------------------------------------------------------- */

static void add_env(char **env, size_t *n, const char *name, const char *value)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < *n; i++)
		if (strncmp(env[i], name, len) == 0 && env[i][len] == '=')
			return;
	env[(*n)++] = pf_asprintf("%s=%s", name, value);
}

static char **make_env(const struct running *x, const struct pf_user *u)
{
	size_t n = 0, own = pf_strv_len(x->o->env), base = pf_strv_len(x->state.env);
	char **env = pf_calloc(own + base + 5, sizeof(*env));

	/* The call's own come first: add_env keeps what is there. */
	for (size_t i = 0; i < own; i++) {
		char *eq = strchr(x->o->env[i], '=');
		PF_FREE char *name = eq ? strndup(x->o->env[i], (size_t)(eq - x->o->env[i])) : NULL;
		if (name)
			add_env(env, &n, name, eq + 1);
	}
	for (size_t i = 0; i < base; i++) {
		char *eq = strchr(x->state.env[i], '=');
		PF_FREE char *name = eq ? strndup(x->state.env[i], (size_t)(eq - x->state.env[i])) : NULL;
		if (name)
			add_env(env, &n, name, eq + 1);
	}
	add_env(env, &n, "HOME", u->home);
	add_env(env, &n, "USER", u->name ? u->name : u->uid == 0 ? "root" : "user");
	if (x->o->tty) {
		const char *term = getenv("TERM");
		add_env(env, &n, "TERM", term && *term ? term : "xterm");
	}
	return env;
}

static int make_process(struct running *x, struct pf_err *err)
{
	char path[64];
	struct pf_config_user want = {.uid = 0, .gid = -1};
	struct pf_user user;
	const char *text = x->o->user ? x->o->user : x->state.user;
	PF_CLOSE int root = -1;

	if (text && pf_config_user_parse("user", text, &want, err) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/root", (int)x->state.pid);
	root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	/* The pid may have been reused before the open, not after a look at the pidfd behind it. */
	if (root < 0 || pf_pidfd_ended(x->init_pidfd)) {
		pf_config_user_done(&want);
		return pf_fail_kind(err, PF_ERR_STATE, 0, "sandbox '%s' has stopped", x->state.id);
	}
	int r = pf_user_lookup(root, want.name, want.uid, want.group_name, want.gid, &user, err);
	pf_config_user_done(&want);
	if (r < 0)
		return -1;
	struct pf_process *p = &x->process;
	p->terminal = x->o->tty;
	p->uid = user.uid;
	p->gid = user.gid;
	p->args = (char **)x->o->argv;
	p->env = make_env(x, &user);
	p->cwd = pf_strdup(x->o->cwd ? x->o->cwd : x->state.cwd);
	p->groups = pf_take(user.groups);
	p->n_groups = user.n_groups;
	p->no_new_privileges = true;
	if (user.uid == 0)
		p->caps = (struct pf_caps){.bounding = PF_CAPS_SESSION_ROOT,
			.effective = PF_CAPS_SESSION_ROOT,
			.permitted = PF_CAPS_SESSION_ROOT};
	pf_user_done(&user);
	struct rlimit nofile;
	if (getrlimit(RLIMIT_NOFILE, &nofile) < 0)
		return pf_fail(err, errno, "RLIMIT_NOFILE");
	uint64_t hard = nofile.rlim_max < 1048576 ? nofile.rlim_max : 1048576;
	p->rlimits = pf_calloc(2, sizeof(*p->rlimits));
	p->rlimits[0] = (struct pf_rlimit){RLIMIT_CORE, pf_rlimit_no_core(), pf_rlimit_no_core()};
	p->rlimits[1] = (struct pf_rlimit){RLIMIT_NOFILE, hard < 65536 ? hard : 65536, hard};
	p->n_rlimits = 2;
	return 0;
}

static int make_leaf(struct running *x, struct pf_err *err)
{
	const struct pf_exec_opts *o = x->o;
	PF_LIMITS struct pf_limits limits;
	char name[48];

	pf_limits_init(&limits);
	limits.memory = o->memory;
	if (o->memory >= 0)
		limits.memory_swap = 0;
	limits.pids = o->pids;
	if (o->millicpus >= 0) {
		limits.cpu_quota_us = o->millicpus * 100;
		limits.cpu_period_us = 100000;
	}
	x->own_limits = o->memory >= 0 || o->pids >= 0 || o->millicpus >= 0;
	/* A pid comes again, while a leaf of an earlier one may still hold something in the background. */
	snprintf(name, sizeof(name), "x%d-%llx", (int)getpid(), (unsigned long long)pf_now_us());
	if (pf_cgroup_probe(&x->host, err) < 0 ||
		pf_cgroup_open(&x->host, x->state.cgroup, &x->cgroup, err) < 0 ||
		pf_cgroup_leaf(x->cgroup, name, x->own_limits ? &limits : NULL,
			(o->capture ? PF_CGROUP_ACCOUNT : 0) | (o->memory >= 0 ? PF_CGROUP_OOM_GROUP : 0),
			&x->leaf, err) < 0)
		return pf_wrap(err, "cgroup");
	/* v2 kills the group as a whole by itself; v1 has only a notice, and the rest is ours to do. */
	if (o->memory >= 0 && !x->host.hier[x->host.where[PF_CG_MEMORY]].v2) {
		x->oom = pf_cgroup_oom_fd(x->leaf, err);
		if (x->oom < 0)
			return pf_wrap(err, "cgroup");
	}
	PF_JSON cJSON *hello = cJSON_CreateObject();
	cJSON_AddStringToObject(hello, "op", "exec");
	cJSON_AddStringToObject(hello, "leaf", name);
	if (o->internal)
		cJSON_AddTrueToObject(hello, "internal");
	return pf_control_send(x->control, hello, -1, err);
}

/* ---- streams
 * -------------------------------------------------------------------------------------------------- */

static void forward_signals(struct running *x)
{
	struct signalfd_siginfo si;

	while (read(x->signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGWINCH) {
			pf_tty_resize(&x->tty);
			continue;
		}
		/* The command leads a session of its own, so its pid names its process group. It is our child
		 * and not reaped yet: nobody else can have that number. */
		(void)kill(-x->pid, (int)si.ssi_signo);
	}
}

static void kill_leaf(struct running *x)
{
	struct pf_err ignored = PF_ERR_INIT;

	(void)pf_cgroup_kill(x->leaf, &ignored);
}

/* Wait for the command, serving its streams; *timed_out when its time was up. */
static void serve(struct running *x, struct pf_sink sinks[2], int64_t deadline_us, bool *timed_out)
{
	bool ended = false;

	while (!ended) {
		int64_t now = pf_now_us();
		int wait_ms = -1;
		if (deadline_us && !*timed_out) {
			if (now >= deadline_us) {
				*timed_out = true;
				kill_leaf(x);
				continue;
			}
			wait_ms = (int)((deadline_us - now + 999) / 1000 < 3600000
						? (deadline_us - now + 999) / 1000
						: 3600000);
		}
		struct pollfd p[7] = {{.fd = x->pidfd, .events = POLLIN},
			{.fd = x->signals, .events = POLLIN}, {.fd = sinks[0].fd, .events = POLLIN},
			{.fd = sinks[1].fd, .events = POLLIN}, {.fd = x->oom, .events = POLLIN}};
		int n = 5 + (x->o->tty ? pf_tty_poll(&x->tty, &p[5]) : 0);
		if (poll(p, (nfds_t)n, wait_ms) < 0)
			continue;
		if (p[1].revents)
			forward_signals(x);
		for (int i = 0; i < 2; i++)
			if (p[2 + i].revents && !pf_sink_drain(&sinks[i]))
				close(pf_take_fd(&sinks[i].fd));
		if (x->o->tty)
			pf_tty_serve(&x->tty, &p[5]);
		if (p[4].revents && pf_cgroup_oom_drain(x->oom) > 0) {
			x->oom_seen = true;
			kill_leaf(x);
		}
		if (p[0].revents)
			ended = true;
	}
	/* Its last output is still in the pipes; something it left in the background may hold them open for
	 * ever. */
	for (int i = 0; i < 2; i++)
		while (sinks[i].fd >= 0) {
			struct pollfd p = {.fd = sinks[i].fd, .events = POLLIN};
			if (poll(&p, 1, 0) <= 0)
				break;
			if (!pf_sink_drain(&sinks[i]))
				close(pf_take_fd(&sinks[i].fd));
		}
	if (x->o->tty)
		pf_tty_drain(&x->tty);
}

/* ---- from start to result
 * ------------------------------------------------------------------------------------- */

/* How long the start of a command may take. */
#define START_US ((int64_t)30 * 1000000)

static int64_t exec_timeout_ms(const struct running *x)
{
	return x->o->timeout_ms >= 0 ? x->o->timeout_ms : x->state.exec_timeout_ms;
}

static int launch(struct running *x, struct pf_sink sinks[2], const struct pf_dirs *d, struct pf_err *err)
{
	PF_CLOSE int cache = pf_dirs_open(d->root, ".cache", err), null = -1, out_w = -1, err_w = -1;
	PF_BPF struct pf_bpf filter = {0};
	struct pf_exec_params p = {.pidfd = x->init_pidfd,
		.join_user = true,
		.join_net = true,
		.process = &x->process,
		.cgroup = x->leaf,
		.seccomp = &filter,
		.stdio = {0, 1, 2}};

	if (cache < 0 || pf_seccomp_default_cached(cache, &(struct pf_seccomp_opts){0}, &filter, err) < 0)
		return -1;
	if (x->o->capture) {
		int a[2], b[2];
		if (pipe2(a, O_CLOEXEC) < 0)
			return pf_fail(err, errno, "pipe");
		sinks[0].fd = a[0];
		out_w = a[1];
		if (pipe2(b, O_CLOEXEC) < 0)
			return pf_fail(err, errno, "pipe");
		sinks[1].fd = b[0];
		err_w = b[1];
		/* Only our ends: the command's are blocking, as programs expect. */
		(void)fcntl(a[0], F_SETFL, O_NONBLOCK);
		(void)fcntl(b[0], F_SETFL, O_NONBLOCK);
		p.stdio[0] = x->o->keep_stdin ? 0 : -1;
		p.stdio[1] = out_w;
		p.stdio[2] = err_w;
	} else if (x->o->tty) {
		if (pf_tty_open(&x->tty, x->state.pid, x->state.id_base + x->process.uid, err) < 0)
			return -1;
		for (int i = 0; i < 3; i++)
			p.stdio[i] = x->tty.peer;
		p.controlling_tty = true;
	}
	x->started_us = pf_now_us();
	/* A frozen sandbox, or one whose root stops whatever comes in, must not hold us for ever. */
	struct pf_child_patience patience = {.deadline_us = x->started_us + START_US, .cancel_fd = x->cancel};
	int64_t timeout_us = exec_timeout_ms(x) * 1000;
	if (timeout_us > 0 && timeout_us < START_US)
		patience.deadline_us = x->started_us + timeout_us;
	p.patience = &patience;
	int r = pf_box_exec(&p, &x->pid, &x->pidfd, err);
	if (x->o->tty)
		pf_tty_started(&x->tty);
	return r;
}

static void measure(
	struct running *x, int status, const struct rusage *ru, bool timed_out, struct pf_exec_result *r)
{
	struct pf_cgroup_stats st;
	struct pf_err ignored = PF_ERR_INIT;
	int64_t oom_now = pf_cgroup_oom_kills(x->o->memory >= 0 ? x->leaf : x->cgroup);

	r->wall_us = pf_now_us() - x->started_us;
	r->cpu_us = (ru->ru_utime.tv_sec + ru->ru_stime.tv_sec) * 1000000 + ru->ru_utime.tv_usec +
		    ru->ru_stime.tv_usec;
	r->memory_peak = (int64_t)ru->ru_maxrss * 1024;
	bool pids_hit = false;
	if ((x->o->capture || x->own_limits) && pf_cgroup_stats(x->leaf, &st, &ignored) == 0) {
		if (st.cpu_usage_us >= 0)
			r->cpu_us = st.cpu_usage_us;
		if (st.memory_peak >= 0)
			r->memory_peak = st.memory_peak;
		pids_hit = st.pids_limit_hits > 0;
	}
	r->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	r->exit_code = r->signal ? 128 + r->signal : WEXITSTATUS(status);
	if (timed_out) {
		r->limit = "timeout";
		r->exit_code = 124;
	} else if (x->oom_seen || (oom_now > x->oom_before && (x->o->memory >= 0 || r->exit_code == 137))) {
		/* Without a limit of its own the count is the sandbox's: it tells of us only if we were
		 * killed. */
		r->limit = "memory";
		/* Of a limit of its own all of the command dies; whether its first process was still there to
		 * be killed is chance. */
		if (r->signal == SIGKILL || x->o->memory >= 0)
			r->exit_code = 137;
	} else if (pids_hit) {
		r->limit = "pids";
	}
}

static void audit_exec(const struct pf_dirs *d, struct running *x, const struct pf_exec_result *r)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_CLOSE int fd = pf_audit_open(d, x->state.id, &ignored);
	cJSON *line = cJSON_CreateObject(), *argv = cJSON_AddArrayToObject(line, "argv");

	for (char *const *a = x->o->argv; *a; a++) {
		PF_FREE char *text = pf_strdup(*a);
		/* JSON is UTF-8; what is not shows as '?' rather than make the line unreadable. */
		if (!pf_utf8_valid(text, strlen(text)))
			for (char *p = text; *p; p++)
				if ((unsigned char)*p >= 0x80)
					*p = '?';
		cJSON_AddItemToArray(argv, cJSON_CreateString(text));
	}
	cJSON_AddStringToObject(line, "cwd", x->process.cwd);
	cJSON_AddNumberToObject(line, "uid", x->process.uid);
	pf_json_add_int(line, "exit_code", r->exit_code);
	if (r->limit)
		cJSON_AddStringToObject(line, "limit", r->limit);
	pf_json_add_int(line, "wall_us", r->wall_us);
	pf_json_add_int(line, "cpu_us", r->cpu_us);
	pf_json_add_int(line, "memory_peak", r->memory_peak);
	if (fd >= 0)
		(void)pf_audit_write(fd, "exec", line, &ignored);
	else
		cJSON_Delete(line);
}

/* The leaf goes, unless something of the command still runs in it. Then the keeper is told that this was
 * meant. */
static void leave(struct running *x, bool kill_rest)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (x->leaf) {
		if (kill_rest)
			kill_leaf(x);
		if (kill_rest || pf_cgroup_is_empty(x->leaf, &ignored) == 1)
			(void)pf_cgroup_remove(x->leaf, kill_rest ? 5000 : 100, &ignored);
	}
	if (x->control >= 0) {
		PF_JSON cJSON *bye = cJSON_CreateObject();
		cJSON_AddStringToObject(bye, "op", "done");
		(void)pf_control_send(x->control, bye, -1, &ignored);
		close(x->control);
	}
	pf_cgroup_free(x->leaf);
	pf_cgroup_free(x->cgroup);
	x->process.args = NULL;
	pf_process_done(&x->process);
	pf_state_done(&x->state);
	if (x->pidfd >= 0)
		close(x->pidfd);
	if (x->init_pidfd >= 0)
		close(x->init_pidfd);
	if (x->signals >= 0)
		close(x->signals);
	if (x->cancel >= 0)
		close(x->cancel);
	if (x->oom >= 0)
		close(x->oom);
}

static int watch_signals(struct running *x, struct pf_err *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	x->cancel = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGWINCH);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return pf_fail(err, errno, "signal mask");
	x->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return x->signals < 0 || x->cancel < 0 ? pf_fail(err, errno, "signalfd") : 0;
}

static int prepare(struct running *x, const struct pf_dirs *d, const char *id, struct pf_err *err)
{
	if (pf_state_load(d, id, &x->state, err) < 0)
		return -1;
	if (x->state.status != PF_STATUS_RUNNING)
		return pf_fail_kind(err, PF_ERR_STATE, 0, "sandbox '%s' is %s%s", id,
			pf_status_name(x->state.status),
			x->state.status == PF_STATUS_PAUSED ? "; `pinfold resume` it first" : "");
	x->init_pidfd = pf_pidfd_open_checked(x->state.pid, x->state.pid_start);
	if (x->init_pidfd < 0)
		return pf_fail_kind(err, PF_ERR_STATE, 0, "sandbox '%s' has stopped", id);
	x->control = pf_control_connect(d, id, err);
	if (x->control < 0 || make_process(x, err) < 0 || make_leaf(x, err) < 0 || watch_signals(x, err) < 0)
		return -1;
	x->oom_before = x->o->memory >= 0 ? 0 : pf_cgroup_oom_kills(x->cgroup);
	return 0;
}

int pf_session_exec(const struct pf_dirs *d, const char *id, const struct pf_exec_opts *opts,
	struct pf_exec_result *r, struct pf_err *err)
{
	struct running x = {.o = opts,
		.pidfd = -1,
		.init_pidfd = -1,
		.control = -1,
		.signals = -1,
		.cancel = -1,
		.oom = -1,
		.tty = PF_TTY_INIT};
	struct pf_sink sinks[2] = {
		{.fd = -1, .max = opts->capture_max}, {.fd = -1, .max = opts->capture_max}};
	bool timed_out = false;
	struct rusage ru = {0};
	int status = 0;
	pid_t reaped;

	*r = (struct pf_exec_result){.memory_peak = -1, .cpu_us = -1};
	bool prepared = prepare(&x, d, id, err) == 0;
	if (!prepared || launch(&x, sinks, d, err) < 0) {
		if (prepared) {
			r->exit_code = err->kind == PF_ERR_NO_EXEC      ? 126
				       : err->kind == PF_ERR_NO_COMMAND ? 127
									: 125;
			audit_exec(d, &x, r);
		}
		for (int i = 0; i < 2; i++)
			if (sinks[i].fd >= 0)
				close(sinks[i].fd);
		pf_tty_close(&x.tty);
		leave(&x, true);
		return -1;
	}
	int64_t timeout = exec_timeout_ms(&x);
	serve(&x, sinks, timeout > 0 ? x.started_us + timeout * 1000 : 0, &timed_out);
	do
		reaped = wait4(x.pid, &status, 0, &ru);
	while (reaped < 0 && errno == EINTR);
	pf_tty_close(&x.tty);
	if (reaped < 0) {
		/* Somebody else has taken its status: there is no telling how it ended. */
		pf_fail(err, errno, "the command's exit status is lost");
		for (int i = 0; i < 2; i++) {
			if (sinks[i].fd >= 0)
				close(sinks[i].fd);
			pf_buf_done(&sinks[i].data);
		}
		leave(&x, true);
		return -1;
	}
	measure(&x, status, &ru, timed_out, r);
	for (int i = 0; i < 2; i++)
		if (sinks[i].fd >= 0)
			close(sinks[i].fd);
	if (opts->capture) {
		pf_buf_add(&sinks[0].data, "", 0);
		pf_buf_add(&sinks[1].data, "", 0);
		r->out = sinks[0].data.data;
		r->out_len = sinks[0].data.len;
		r->out_truncated = sinks[0].truncated;
		r->err_out = sinks[1].data.data;
		r->err_len = sinks[1].data.len;
		r->err_truncated = sinks[1].truncated;
	}
	audit_exec(d, &x, r);
	leave(&x, timed_out || (r->limit && opts->memory >= 0));
	return 0;
}
