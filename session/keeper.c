/* Theory of operation: the keeper.
 *
 * pinfold forks it and goes on; it is not exec'ed, so that a sandbox costs no second program start and shares
 * most of its pages with every other. It builds the box (keeper_build.c: gate first, so that there is no
 * moment in which the payload runs and the rules do not; then cgroup; then the box), tells pinfold how that
 * went over a pipe, and settles into one epoll loop over
 *
 *     process 1's pidfd    → the sandbox is over: kill what is left, write down why, clean up, end
 *     the gate's socket    → it wants pinfold-tls; or it has ended, and the sandbox with it
 *     pinfold-tls's pidfd  → note what it died of
 *     the OOM descriptor   → note the kill in the audit log
 *     the control socket   → execs announcing themselves, requests for the workspace, policy updates
 *     a signalfd           → SIGTERM ends the sandbox in order
 *
 * with the nearest deadline (max_runtime, idle) as its timeout. It reads nothing that the payload has
 * written: that is the gate's, a process of its own (gateproc.c). If the keeper is killed, process 1 and the
 * gate die with it (PR_SET_PDEATHSIG): no keeper, no egress, no sandbox. What stays on disk is found by gc.
 */

#include "session/keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "session/audit.h"
#include "session/confine.h"
#include "session/control.h"
#include "session/keeper_priv.h"

struct pf_keeper_tags pf_keeper_tags;

void pf_keeper_log(const struct keeper *k, const char *event, cJSON *fields)
{
	struct pf_err ignored = PF_ERR_INIT;

	(void)pf_audit_write(k->audit, event, fields, &ignored);
}

int pf_keeper_save_state(struct keeper *k, enum pf_status status, struct pf_err *err)
{
	struct pf_state *s = k->p->state;

	s->status = status;
	s->pid = status == PF_STATUS_STOPPED ? 0 : k->box.pid;
	s->pid_start = k->box.start_time;
	s->keeper = getpid();
	s->keeper_start = pf_proc_start_time(getpid());
	return pf_state_save(k->p->dirs, s, err);
}

int pf_keeper_watch(const struct keeper *k, int fd, void *tag)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = tag};

	return epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &ev);
}

void pf_keeper_unwatch(const struct keeper *k, int fd)
{
	(void)epoll_ctl(k->epoll, EPOLL_CTL_DEL, fd, NULL);
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
	if (k->audit < 0 || pf_keeper_build(k, err) < 0)
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
	return pf_keeper_save_state(k, PF_STATUS_RUNNING, err);
}

static int next_timeout(const struct keeper *k)
{
	int64_t now = pf_now_us(), best = -1;

	const int64_t deadlines[] = {k->deadline_us, k->idle_us, k->autosave.busy ? 0 : k->autosave.next_us,
		k->oom_untold > 0 ? k->oom_tell_us : 0};
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

static int watch_all(const struct keeper *k)
{
	struct pf_keeper_tags *t = &pf_keeper_tags;

	if (pf_keeper_watch(k, k->box.pidfd, &t->init) < 0 ||
		pf_keeper_watch(k, k->gate.sock, &t->gate) < 0 || pf_keeper_watch(k, k->oom, &t->oom) < 0 ||
		pf_keeper_watch(k, k->listen, &t->listen) < 0 ||
		pf_keeper_watch(k, k->signals, &t->signal) < 0 ||
		(k->tls.pid > 0 && pf_keeper_watch(k, k->tls.pidfd, &t->tls) < 0) ||
		(k->autosave.fd >= 0 && pf_keeper_watch(k, k->autosave.fd, &t->saver) < 0))
		return -1;
	return 0;
}

static void on_event(struct keeper *k, void *tag)
{
	const struct pf_keeper_tags *t = &pf_keeper_tags;

	if (tag == &t->init) {
		k->stop_reason = "exit";
	} else if (tag == &t->signal) {
		k->stop_reason = "terminated";
	} else if (tag == &t->gate) {
		if (k->gate.sock >= 0 && !pf_gateproc_hear(&k->gate))
			k->stop_reason = "gate_failed";
	} else if (tag == &t->tls) {
		/* Its end may have been seen before. */
		if (k->tls.pid > 0 && pf_pidfd_ended(k->tls.pidfd))
			pf_keeper_tls_ended(k);
	} else if (tag == &t->oom) {
		pf_keeper_on_oom(k);
	} else if (tag == &t->saver) {
		if (k->autosave.fd >= 0)
			pf_keeper_on_saver(k);
	} else if (tag == &t->listen) {
		pf_keeper_on_listen(k);
	} else {
		pf_keeper_on_conn(k, tag);
	}
}

static bool is_conn(const void *tag)
{
	const char *p = tag, *tags = (const char *)&pf_keeper_tags;

	return p < tags || p >= tags + sizeof(pf_keeper_tags);
}

static void run(struct keeper *k)
{
	if (watch_all(k) < 0)
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
			on_event(k, ev[i].data.ptr);
			/* The list of connections may have changed under later events of this batch. */
			if (is_conn(ev[i].data.ptr))
				break;
		}
		int64_t now = pf_now_us();
		pf_keeper_tell_oom(k, now);
		if (!k->stop_reason && k->deadline_us && now >= k->deadline_us)
			k->stop_reason = "max_runtime";
		if (!k->stop_reason && k->idle_us && now >= k->idle_us)
			k->stop_reason = "idle";
		if (!k->stop_reason)
			pf_autosave_tick(&k->autosave, &k->p->config->checkpoint, now);
	}
}

/* Of the file system it needs its own state, its cgroup, and what pinfold-tls reads when it starts. */
static int confine(const struct keeper *k, struct pf_err *err)
{
	const struct pf_dirs *d = k->p->dirs;
	const char *id = k->p->state->id;
	PF_FREE char *run_dir = pf_asprintf("%s/%s", d->root, id),
		     *own = pf_asprintf("%s/sandboxes/%s", d->store, id);
	PF_FREE char *all = pf_asprintf("%s/sandboxes", d->store);
	const char *rw[4 + PF_CG_HIERS] = {run_dir, own, "/dev/null"};
	const char *const list[] = {d->root, all, d->store, NULL};
	const char *const ro[] = {"/proc", k->tls.helper ? "/etc" : NULL, "/usr", NULL};
	const char *const exec[] = {k->tls.helper, "/lib", "/lib64", "/usr/lib", "/usr/lib64", NULL};

	for (int i = 0, n = 3; i < k->host.n_hier; i++)
		rw[n++] = k->host.hier[i].mount;
	if (pf_confine_files(rw, ro, list, k->tls.helper ? exec : NULL, err) < 0)
		return -1;
	return pf_confine_keeper(k->tls.helper != NULL, err);
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
		.gate = PF_GATEPROC_NONE,
		.tls = PF_TLSPROC_NONE,
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
		pf_keeper_undo(&k);
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
	/* After the report, which nobody has to wait longer for. */
	if (confine(&k, &err) < 0) {
		cJSON *line = cJSON_CreateObject();
		cJSON_AddStringToObject(line, "error", err.msg);
		pf_keeper_log(&k, "keeper_failed", line);
		k.stop_reason = "keeper_failed";
	}
	run(&k);
	pf_keeper_finish(&k);
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
