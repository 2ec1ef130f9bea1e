/* Theory of operation: the poller.
 *
 * It asks for work while there is room for it, acknowledges what it gets and starts a process for each item;
 * without --max-sessions more, one at a time, as other pollers do. It holds no state of a session but the
 * pid.
 *
 * SIGTERM: no new items; the sessions are told, finish the call that they are at, and put their sandboxes
 * away. A poller that is killed outright takes its sessions along in the same way (PDEATHSIG). */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static struct {
	pid_t pid;
	char *session;
} children[SESSIONS_MAX];
static size_t n_children;

static void start_item(
	struct pf_worker_opts *o, char **argv, const struct pf_work *w, const struct pf_buf *item)
{
	pid_t self = getpid();
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0) {
		pf_wlog("error", "pipe: %s", strerrordesc_np(errno));
		return;
	}
	pid_t pid = fork();
	if (pid == 0) {
		char number[16];
		sigset_t none;
		sigemptyset(&none);
		(void)sigprocmask(SIG_SETMASK, &none, NULL);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		if (getppid() != self)
			_exit(1);
		int fd = fcntl(p[0], F_DUPFD, 3);
		(void)snprintf(number, sizeof(number), "%d", fd);
		setenv(ITEM_FD_ENV, number, 1);
		if (o->run.environment_id)
			setenv("ANTHROPIC_ENVIRONMENT_ID", o->run.environment_id, 1);
		setenv("ANTHROPIC_BASE_URL", o->run.base_url, 1);
		execv("/proc/self/exe", argv);
		_exit(1);
	}
	close(p[0]);
	if (pid > 0) {
		(void)pf_write_all(p[1], o->key, strlen(o->key));
		(void)pf_write_all(p[1], "\n", 1);
		(void)pf_write_all(p[1], item->data, item->len);
		children[n_children].pid = pid;
		children[n_children++].session = pf_strdup(w->session_id);
		pf_wlog("info", "%s: work item %s, process %d", w->session_id, w->id, (int)pid);
	} else {
		pf_wlog("error", "fork: %s", strerrordesc_np(errno));
	}
	close(p[1]);
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < n_children; i++)
			if (children[i].pid == pid) {
				if (WIFSIGNALED(status))
					pf_wlog("error", "%s: its process was ended by signal %d",
						children[i].session, WTERMSIG(status));
				free(children[i].session);
				children[i] = children[--n_children];
				break;
			}
}

/* Sleep, but not over a signal. Returns true when we are told to end. */
static bool rest(int signals, int64_t ms)
{
	int64_t end = pf_now_us() + ms * 1000;
	struct signalfd_siginfo info;

	for (;;) {
		while (read(signals, &info, sizeof(info)) == sizeof(info))
			if (info.ssi_signo != SIGCHLD)
				return true;
		size_t before = n_children;
		reap();
		int64_t left = (end - pf_now_us()) / 1000;
		if (left <= 0 || n_children < before)
			return false;
		struct pollfd p = {.fd = signals, .events = POLLIN};
		(void)poll(&p, 1, left > 60000 ? 60000 : (int)left + 1);
	}
}

static int64_t between(int64_t low, int64_t high)
{
	uint32_t r = 0;

	(void)!getrandom(&r, sizeof(r), 0);
	return low + (int64_t)(r % (uint32_t)(high - low + 1));
}

/* One poll, and the item started if there was one. *wait_ms: until the next. Returns -1 when it will never
 * work, 1 when the queue was empty. */
static int poll_once(
	struct pf_worker_opts *o, char **argv, struct pf_http *h, unsigned *failures, int64_t *wait_ms)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_http_resp resp;
	struct pf_work w = {0};
	int r = pf_api_poll(
		h, o->run.environment_id, o->key, o->worker_id, o->drain ? 0 : 999, 5000, &resp, &err);

	*wait_ms = 0;
	if (r < 0) {
		bool fatal = pf_http_fatal(&resp);
		pf_wlog("error", "%s", err.msg);
		pf_http_resp_done(&resp);
		*wait_ms = pf_backoff_ms((*failures)++, 1000, 60000);
		return fatal ? -1 : 0;
	}
	*failures = 0;
	r = pf_work_parse(resp.body.data ? resp.body.data : "", resp.body.len, &w, &err);
	if (r > 0 && w.session_id) {
		/* An item that is not acknowledged goes back into the queue by itself. */
		if (pf_api_ack(h, o->run.environment_id, o->key, w.id, &err) < 0)
			pf_wlog("error", "%s: %s", w.session_id, err.msg);
		else
			start_item(o, argv, &w, &resp.body);
	} else if (r > 0) {
		/* A health check: taken, and done. */
		if (pf_api_ack(h, o->run.environment_id, o->key, w.id, &err) == 0)
			(void)pf_api_stop(h, o->run.environment_id, o->key, w.id, &err);
	} else if (r < 0) {
		pf_wlog("error", "%s", err.msg);
		*wait_ms = 1000;
	} else {
		*wait_ms = between(1000, 3000);
	}
	if (resp.body.data)
		explicit_bzero(resp.body.data, resp.body.len);
	pf_work_done(&w);
	pf_http_resp_done(&resp);
	return r == 0;
}

int pf_poll_loop(struct pf_worker_opts *o, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	sigset_t set;
	unsigned failures = 0;
	int code = 0;
	bool told = false;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	PF_CLOSE int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	struct pf_http *h = pf_http_new(o->run.base_url, AGENT, &err);
	if (!h || signals < 0) {
		pf_wlog("error", "%s", err.msg);
		return 1;
	}
	pf_wlog("info", "polling %s as %s, %lld at a time", o->run.environment_id, o->worker_id,
		(long long)o->max_sessions);
	while (!told) {
		int64_t wait = 3600000;
		if ((int64_t)n_children < o->max_sessions) {
			int r = poll_once(o, argv, h, &failures, &wait);
			if (r < 0) {
				code = 1;
				break;
			}
			if (r > 0 && o->drain && n_children == 0)
				break;
		}
		told = rest(signals, wait);
	}
	pf_http_free(h);
	if (n_children)
		pf_wlog("info", "ending; %zu sessions are put away", n_children);
	for (size_t i = 0; i < n_children; i++)
		(void)kill(children[i].pid, SIGTERM);
	while (n_children)
		(void)rest(signals, 60000);
	return code;
}
