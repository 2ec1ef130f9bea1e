/* Theory of operation: the poller.
 *
 * It asks for work while there is room for it, acknowledges what it gets and starts a process for each item;
 * without --max-sessions more, one at a time, as other pollers do. It holds no state of a session but the
 * pid.
 *
 * SIGTERM: no new items; the sessions are told, finish the call that they are at, and put their sandboxes
 * away. A poller that is killed outright takes its sessions along in the same way (PDEATHSIG).
 *
 * Signals stay blocked in all that it starts until that reads them from a descriptor: one that is told to end
 * while it starts hears of it, and ends in order. */

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proc.h"
#include "cmd/pinfold-worker/worker.h"
#include "worker/api.h"
#include "worker/log.h"
#include "worker/metrics.h"
#include "worker/serve.h"

extern char **environ;

/* Where a process that we start finds what it gets. */
#define ITEM_FD 3
#define METRICS_FD 4
/* To reclaim an item that somebody polled and did not acknowledge: the contract's default, and sooner when a
 * webhook says that there is one. */
#define RECLAIM_MS 5000
#define RECLAIM_HOOK_MS 2000
#define BLOCK_MS 999
/* Ready means that a poll was answered within this and the time between two polls. */
#define READY_MS 90000
#define ACK_GRACE_MS 5000
/* Processes that remove what deleted sessions have left. */
#define FORGETS_MAX 8
#define FORGETS_END_MS 30000
#define FORGET_AGAIN_MS 1000
#define SPOILT_MS 2000
#define SPOILT_PAUSE_MS 30000

static struct {
	char *session;
	int64_t begun_us;
	pid_t pid;
	bool item; /* not one that removes what a deleted session has left */
} children[SESSIONS_MAX * 2];
static size_t n_children, n_sessions;
/* Items that failed as soon as they were begun, in a row: what is wrong is then more likely with this machine
 * than with the session, and it does not empty the queue of what others could do. */
static unsigned spoilt;
static int64_t pause_until_us;
static struct pf_serve_state state;
static int metrics = -1;

/* ---- processes ---- */

/* The environment of a process of ours: what we have, and NAME=VALUE lines (NULL-terminated) in place of any
 * of these names. Its strings and the array are to be freed with it; those of environ are not copied. */
static char **make_env(const char *const *lines)
{
	size_t n = 0, k = 0, m = 0;

	while (environ[n])
		n++;
	while (lines[m])
		m++;
	char **env = pf_calloc(n + m + 1, sizeof(*env));
	for (size_t i = 0; i < n; i++) {
		bool replaced = false;
		for (size_t l = 0; l < m; l++)
			replaced |= strncmp(environ[i], lines[l], strcspn(lines[l], "=") + 1) == 0;
		if (!replaced)
			env[k++] = environ[i];
	}
	for (size_t l = 0; l < m; l++)
		env[k++] = (char *)(uintptr_t)lines[l];
	return env;
}

/* In the child: only what may be done beside a thread that is not there any more. */
static _Noreturn void become(char **argv, char **env, int item, pid_t parent)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EXIT_SPOILT);
	/* Both out of the way first: either may have the other's number. */
	int a = fcntl(item, F_DUPFD_CLOEXEC, METRICS_FD + 1),
	    b = metrics < 0 ? -1 : fcntl(metrics, F_DUPFD_CLOEXEC, METRICS_FD + 1);
	if (a < 0 || dup2(a, ITEM_FD) < 0 || (b >= 0 && dup2(b, METRICS_FD) < 0))
		_exit(EXIT_SPOILT);
	(void)close_range(METRICS_FD + 1, ~0U, 0);
	if (b < 0)
		(void)close(METRICS_FD);
	execve("/proc/self/exe", argv, env);
	_exit(EXIT_SPOILT);
}

/* A process of this program with text on its ITEM_FD. more: one more line of its environment, or NULL. */
static bool start(struct pf_worker_opts *o, char **argv, const char *more, const struct pf_buf *text,
	const char *session, bool item)
{
	PF_FREE char *base = pf_asprintf("ANTHROPIC_BASE_URL=%s", o->run.base_url);
	PF_FREE char *env_id = pf_asprintf("ANTHROPIC_ENVIRONMENT_ID=%s", o->run.environment_id);
	char item_fd[40], metrics_fd[40];
	const char *lines[] = {base, env_id, item_fd, metrics_fd, more, NULL};
	pid_t self = getpid();
	int p[2];

	(void)snprintf(item_fd, sizeof(item_fd), ITEM_FD_ENV "=%d", ITEM_FD);
	(void)snprintf(metrics_fd, sizeof(metrics_fd), METRICS_FD_ENV "=%d", metrics < 0 ? -1 : METRICS_FD);
	bool room = n_children < sizeof(children) / sizeof(children[0]);
	if (!room || pipe2(p, O_CLOEXEC) < 0) {
		pf_wlog("error", "%s: no process can be started: %s", session,
			room ? strerrordesc_np(errno) : "there are too many");
		return false;
	}
	char **env = make_env(lines);
	pid_t pid = fork();
	if (pid == 0)
		become(argv, env, p[0], self);
	int e = errno;
	free(env);
	close(p[0]);
	if (pid > 0) {
		(void)pf_write_all(p[1], text->data, text->len);
		children[n_children].pid = pid;
		children[n_children].item = item;
		children[n_children].begun_us = pf_now_us();
		children[n_children++].session = pf_strdup(session);
		n_sessions += item;
		atomic_store(&state.sessions, (int64_t)n_sessions);
	} else {
		pf_wlog("error", "fork: %s", strerrordesc_np(e));
	}
	close(p[1]);
	return pid > 0;
}

static bool start_item(
	struct pf_worker_opts *o, char **argv, const struct pf_work *w, const struct pf_buf *item)
{
	PF_BUF struct pf_buf text = {0};

	pf_buf_printf(&text, "%s\n", o->key);
	pf_buf_add(&text, item->data, item->len);
	bool started = start(o, argv, NULL, &text, w->session_id, true);
	if (started)
		pf_wlog("info", "%s: work item %s, process %d", w->session_id, w->id,
			(int)children[n_children - 1].pid);
	explicit_bzero(text.data, text.len);
	return started;
}

/* A session was deleted: its checkpoints go, and its sandbox if nobody works at it. */
static bool start_forget(struct pf_worker_opts *o, char **argv, const char *session)
{
	PF_FREE char *line = pf_asprintf(FORGET_ENV "=%s", session);
	PF_BUF struct pf_buf none = {0};

	pf_buf_str(&none, "");
	return start(o, argv, line, &none, session, false);
}

/* As many of them as may be at it at a time; whenever one ends there is room for the next. gone: one that
 * could not be begun yet. Returns whether there are more. */
static bool forget_some(struct pf_worker_opts *o, char **argv, struct pf_serve *serve, char **gone)
{
	while (serve && n_children - n_sessions < FORGETS_MAX &&
		(*gone || (*gone = pf_serve_deleted(serve)))) {
		if (!start_forget(o, argv, *gone))
			return true;
		free(*gone);
		*gone = NULL;
	}
	return n_children - n_sessions == FORGETS_MAX;
}

static void make_pause(void)
{
	pause_until_us = pf_now_us() + pf_backoff_ms(spoilt++, 1000, SPOILT_PAUSE_MS) * 1000;
}

static void look_at_end(bool item, int64_t begun_us, int status)
{
	if (!item)
		return;
	if ((WIFSIGNALED(status) || WEXITSTATUS(status) == EXIT_SPOILT) &&
		pf_now_us() - begun_us < SPOILT_MS * 1000)
		make_pause();
	else
		spoilt = 0;
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < n_children; i++)
			if (children[i].pid == pid) {
				if (WIFSIGNALED(status)) {
					pf_wlog("error", "%s: its process was ended by signal %d",
						children[i].session, WTERMSIG(status));
					if (children[i].item)
						pf_metric_add(PF_M_END_KILLED, 1);
				}
				look_at_end(children[i].item, children[i].begun_us, status);
				n_sessions -= children[i].item;
				free(children[i].session);
				children[i] = children[--n_children];
				break;
			}
	atomic_store(&state.sessions, (int64_t)n_sessions);
}

/* ---- polling ---- */

/* Sleep, but not over a signal or, with hooks, what a webhook says. Returns true when we are told to end. */
static bool rest(int signals, int hooks, int64_t ms)
{
	int64_t end = pf_now_us() + ms * 1000;
	struct signalfd_siginfo info;
	uint64_t n;

	for (;;) {
		while (read(signals, &info, sizeof(info)) == sizeof(info))
			if (info.ssi_signo != SIGCHLD)
				return true;
		size_t before = n_children;
		reap();
		int64_t left = (end - pf_now_us()) / 1000;
		if (left <= 0 || n_children < before)
			return false;
		struct pollfd p[2] = {{.fd = signals, .events = POLLIN}, {.fd = hooks, .events = POLLIN}};
		(void)poll(p, 2, left > 60000 ? 60000 : (int)left + 1);
		if (p[1].revents && read(hooks, &n, sizeof(n)) == sizeof(n))
			return false;
	}
}

static int64_t between(int64_t low, int64_t high)
{
	uint32_t r = 0;

	(void)!getrandom(&r, sizeof(r), 0);
	return low + (int64_t)(r % (uint32_t)(high - low + 1));
}

/* Whether we have been told to end, though nobody has read it yet. */
static bool told_to_end(void)
{
	sigset_t set;

	return sigpending(&set) == 0 && (sigismember(&set, SIGTERM) > 0 || sigismember(&set, SIGINT) > 0 ||
						sigismember(&set, SIGHUP) > 0);
}

/* What a request of ours ends with, grace_ms after that: what was polled and not acknowledged goes back into
 * the queue, but whether an ack has arrived should be known. */
struct patience {
	int64_t grace_ms, told_us;
};

static bool requests_over(void *arg)
{
	struct patience *p = arg;

	if (!p->told_us && told_to_end())
		p->told_us = pf_now_us();
	return p->told_us && pf_now_us() - p->told_us >= p->grace_ms * 1000;
}

/* An item that was polled; *wait_ms: until the next poll. */
static void take_item(struct pf_worker_opts *o, char **argv, struct pf_http *h, const struct pf_work *w,
	const struct pf_buf *text, int64_t *wait_ms)
{
	static unsigned failures;
	struct patience patience = {.grace_ms = ACK_GRACE_MS};
	struct pf_err err = PF_ERR_INIT;

	/* One that is not acknowledged goes back into the queue by itself. */
	if (told_to_end())
		return;
	pf_http_ends_with(h, (struct pf_http_over){.is = requests_over, .arg = &patience});
	if (pf_api_ack(h, o->run.environment_id, o->key, w->id, &err) < 0) {
		pf_wlog("error", "%s: %s", w->session_id ? w->session_id : w->id, err.msg);
		*wait_ms = pf_backoff_ms(failures++, 1000, 60000);
	} else {
		/* A health check is done with that. */
		bool started = w->session_id && start_item(o, argv, w, text);
		failures = 0;
		if (w->session_id && !started)
			make_pause();
		if (!started &&
			pf_api_stop(h, o->run.environment_id, w->token ? w->token : o->key, w->id, &err) < 0)
			pf_wlog("warning", "%s", err.msg);
	}
	pf_http_ends_with(h, (struct pf_http_over){0});
}

/* One poll, and the item started if there was one. *wait_ms: until the next. Returns -1 when it will never
 * work, 1 when the queue was empty. */
static int poll_once(struct pf_worker_opts *o, char **argv, struct pf_http *h, bool hooked,
	unsigned *failures, int64_t *wait_ms)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_http_resp resp;
	struct pf_work w = {0};
	bool block = !o->drain && !hooked && !o->poll_every_ms;
	struct patience none = {0};

	pf_http_ends_with(h, (struct pf_http_over){.is = requests_over, .arg = &none});
	int r = pf_api_poll(h, o->run.environment_id, o->key, o->worker_id, block ? BLOCK_MS : 0,
		hooked ? RECLAIM_HOOK_MS : RECLAIM_MS, &resp, &err);
	pf_http_ends_with(h, (struct pf_http_over){0});

	*wait_ms = 0;
	if (r < 0 && err.errnum == ECANCELED) {
		pf_http_resp_done(&resp);
		return 0;
	}
	if (r < 0) {
		bool fatal = pf_http_fatal(&resp);
		pf_wlog("error", "%s", err.msg);
		pf_metric_add(PF_M_POLL_ERROR, 1);
		pf_http_resp_done(&resp);
		*wait_ms = pf_backoff_ms((*failures)++, 1000, 60000);
		return fatal ? -1 : 0;
	}
	*failures = 0;
	atomic_store(&state.polled_us, pf_now_us());
	r = pf_work_parse(resp.body.data ? resp.body.data : "", resp.body.len, &w, &err);
	pf_metric_add(r > 0 ? PF_M_POLL_ITEM : r < 0 ? PF_M_POLL_ERROR : PF_M_POLL_EMPTY, 1);
	if (r > 0) {
		take_item(o, argv, h, &w, &resp.body, wait_ms);
	} else if (r < 0) {
		pf_wlog("error", "%s", err.msg);
		*wait_ms = 1000;
	} else {
		*wait_ms = o->poll_every_ms ? o->poll_every_ms : between(1000, 3000);
	}
	if (resp.body.data)
		explicit_bzero(resp.body.data, resp.body.len);
	pf_work_done(&w);
	pf_http_resp_done(&resp);
	return r == 0;
}

/* Returns the exit code. */
static int poll_until_told(struct pf_worker_opts *o, char **argv, int signals, int hooks,
	struct pf_serve *serve, char **gone, struct pf_http *h)
{
	unsigned failures = 0;
	/* The first polls are as after a webhook: nobody knows what happened before. */
	bool told = false, hooked = o->poll_every_ms > 0;

	while (!told) {
		int64_t wait = 3600000;
		(void)forget_some(o, argv, serve, gone);
		if (serve && pf_serve_work(serve))
			hooked = true;
		int64_t pause = (pause_until_us - pf_now_us()) / 1000;
		if ((int64_t)n_sessions < o->max_sessions && pause > 0) {
			wait = pause + 1;
		} else if ((int64_t)n_sessions < o->max_sessions) {
			int r = poll_once(o, argv, h, hooked, &failures, &wait);
			if (r < 0)
				return 1;
			if (r > 0)
				hooked = false;
			if (r > 0 && o->drain && n_children == 0)
				return 0;
			if (r > 0 && o->drain && wait > 3000)
				wait = 3000;
		}
		/* Where one could not be begun, nothing that ends will wake us. */
		told = rest(signals, hooks, *gone && wait > FORGET_AGAIN_MS ? FORGET_AGAIN_MS : wait);
	}
	return 0;
}

/* What was taken before we were told to end is done, if there is the time. */
static void end_forgets(
	struct pf_worker_opts *o, char **argv, int signals, struct pf_serve *serve, char *gone)
{
	int64_t end = pf_now_us() + (int64_t)FORGETS_END_MS * 1000;
	size_t left = 0;

	while (forget_some(o, argv, serve, &gone) && pf_now_us() < end)
		(void)rest(signals, -1, FORGET_AGAIN_MS);
	while (gone || (serve && (gone = pf_serve_deleted(serve)))) {
		left++;
		free(gone);
		gone = NULL;
	}
	if (left)
		pf_wlog("warning",
			"what %zu deleted sessions left here is not removed: their checkpoints stay", left);
}

static struct pf_serve *listen_on(const struct pf_worker_opts *o, int hooks, struct pf_err *err)
{
	struct pf_serve_opts so = {.address = o->listen,
		.keys_file = o->hook_keys_file,
		.keys = o->hook_keys_file ? NULL : o->hook_keys,
		.state = &state,
		.ready_ms = READY_MS + o->poll_every_ms,
		.wake_fd = hooks};
	struct pf_serve *s = pf_serve_start(&so, err);

	if (s)
		pf_wlog("info", "listening on %s%s", pf_serve_address(s),
			so.keys || so.keys_file ? ", for webhooks too" : "");
	return s;
}

int pf_poll_loop(struct pf_worker_opts *o, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_serve *serve = NULL;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	PF_CLOSE int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	PF_CLOSE int hooks = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct pf_http *h = pf_http_new(o->run.base_url, AGENT, &err);
	atomic_store(&state.max_sessions, o->max_sessions);
	if (!h || signals < 0 || hooks < 0 || pf_box_prepare(&o->run.box, &err) < 0 ||
		(metrics = pf_metrics_make(&err)) < 0 ||
		(o->listen && !(serve = listen_on(o, hooks, &err)))) {
		pf_wlog("error", "%s", *err.msg ? err.msg : "no descriptors are left");
		pf_http_free(h);
		return 1;
	}
	pf_wlog("info", "polling %s as %s, %lld at a time", o->run.environment_id, o->worker_id,
		(long long)o->max_sessions);
	char *gone = NULL;
	int code = poll_until_told(o, argv, signals, hooks, serve, &gone, h);
	pf_http_free(h);
	atomic_store(&state.draining, true);
	if (n_sessions)
		pf_wlog("info", "ending; %zu sessions are put away", n_sessions);
	for (size_t i = 0; i < n_children; i++)
		(void)kill(children[i].pid, SIGTERM);
	end_forgets(o, argv, signals, serve, gone);
	while (n_children)
		(void)rest(signals, -1, 60000);
	pf_serve_stop(serve);
	close(metrics);
	return code;
}
