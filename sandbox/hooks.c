/* Theory of operation: running a hook.
 *
 * A hook is forked and exec'ed with three descriptors: its standard input is one end of a pipe that the state
 * is written to, its output and errors another pipe that is read for the error text. One poll loop serves
 * both until the hook has ended (by its pidfd) or its time is over. A hook need not read its input, and may
 * leave a process behind that holds the pipes open: neither keeps us waiting, and SIGPIPE cannot kill us (it
 * is blocked meanwhile, and taken out again if it came). */
#include "sandbox/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"

static const char *const names[PF_HOOK_KINDS] = {
	"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"};

const char *pf_hook_kind_name(enum pf_hook_kind kind)
{
	return names[kind];
}

static int parse_one(const cJSON *j, const char *where, struct pf_hook *h, struct pf_err *err)
{
	const char *path = NULL;
	int64_t timeout = 0;

	if (!cJSON_IsObject(j))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: must be an object", where);
	if (pf_json_str(j, where, "path", &path, err) < 0 ||
		pf_json_strv(j, where, "args", &h->args, err) < 0 ||
		pf_json_strv(j, where, "env", &h->env, err) < 0)
		return -1;
	if (!path || path[0] != '/')
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.path: must be an absolute path", where);
	int r = pf_json_int(j, where, "timeout", 1, 86400 * 365, &timeout, err);
	if (r < 0)
		return -1;
	h->path = pf_strdup(path);
	h->timeout_s = (int)timeout;
	return 0;
}

int pf_hooks_parse(const cJSON *hooks, struct pf_hooks lists[PF_HOOK_KINDS], struct pf_err *err)
{
	for (int k = 0; hooks && k < PF_HOOK_KINDS; k++) {
		const cJSON *arr = NULL, *j;

		if (pf_json_arr(hooks, "hooks", names[k], &arr, err) < 0)
			return -1;
		lists[k].hook = pf_calloc((size_t)cJSON_GetArraySize(arr), sizeof(*lists[k].hook));
		cJSON_ArrayForEach(j, arr)
		{
			char where[64];
			snprintf(where, sizeof(where), "hooks.%s[%zu]", names[k], lists[k].n);
			if (parse_one(j, where, &lists[k].hook[lists[k].n++], err) < 0)
				return -1;
		}
	}
	return 0;
}

void pf_hooks_done(struct pf_hooks lists[PF_HOOK_KINDS])
{
	for (int k = 0; k < PF_HOOK_KINDS; k++) {
		for (size_t i = 0; i < lists[k].n; i++) {
			free(lists[k].hook[i].path);
			pf_strv_free(lists[k].hook[i].args);
			pf_strv_free(lists[k].hook[i].env);
		}
		free(lists[k].hook);
		lists[k] = (struct pf_hooks){0};
	}
}

/* What the hook's process is: ours to serve until it ends. */
struct running {
	pid_t pid;
	int pidfd, in, out; /* in, out: our ends of its pipes, -1 when done */
	const char *state;
	size_t state_len;
	char said[513];
	size_t n_said;
};

__attribute__((noreturn)) static void become_hook(const struct pf_hook *h, const char *cwd, int in, int out)
{
	static char *const none[] = {NULL};
	char *fallback[] = {h->path, NULL};
	sigset_t empty;

	sigemptyset(&empty);
	(void)sigprocmask(SIG_SETMASK, &empty, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 || close_range(3, ~0U, 0) < 0 ||
		(cwd && chdir(cwd) < 0)) {
		const char *text = strerrordesc_np(errno);
		(void)!write(out, text, strlen(text));
		_exit(127);
	}
	execve(h->path, h->args && h->args[0] ? h->args : fallback, h->env ? h->env : none);
	const char *text = strerrordesc_np(errno);
	(void)!write(2, text, strlen(text));
	_exit(127);
}

static int start(const struct pf_hook *h, const char *cwd, struct running *r, struct pf_err *err)
{
	int in[2], out[2];

	if (pf_two_pipes(in, out) < 0)
		return pf_fail(err, errno, "pipe");
	struct clone_args args = {
		.flags = CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)&r->pidfd, .exit_signal = SIGCHLD};
	r->pid = pf_clone3(&args);
	if (r->pid == 0)
		become_hook(h, cwd, in[0], out[1]);
	int saved = errno;
	close(in[0]);
	close(out[1]);
	r->in = in[1];
	r->out = out[0];
	(void)fcntl(r->in, F_SETFL, O_NONBLOCK);
	(void)fcntl(r->out, F_SETFL, O_NONBLOCK);
	return r->pid < 0 ? pf_fail(err, saved, "start it") : 0;
}

static void feed(struct running *r)
{
	ssize_t n = write(r->in, r->state, r->state_len);

	if (n > 0) {
		r->state += n;
		r->state_len -= (size_t)n;
	}
	if (r->state_len == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		close(pf_take_fd(&r->in));
}

/* Keep the first bytes, drop the rest. */
static void listen_to(struct running *r)
{
	char chunk[4096];
	ssize_t n = read(r->out, chunk, sizeof(chunk));

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		close(pf_take_fd(&r->out));
		return;
	}
	size_t room = sizeof(r->said) - 1 - r->n_said, take = n < 0 ? 0 : (size_t)n < room ? (size_t)n : room;
	memcpy(r->said + r->n_said, chunk, take);
	r->n_said += take;
}

enum ending { ENDED, LATE, CANCELLED };

/* Until it has ended, its time is over or we are to give up. */
static enum ending serve(struct running *r, int timeout_s, int cancel_fd)
{
	int64_t deadline = timeout_s ? pf_now_us() + (int64_t)timeout_s * 1000000 : 0;

	for (;;) {
		struct pollfd p[4] = {{.fd = r->pidfd, .events = POLLIN}, {.fd = r->in, .events = POLLOUT},
			{.fd = r->out, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};
		int64_t left = deadline ? (deadline - pf_now_us() + 999) / 1000 : -1;

		if (deadline && left <= 0)
			return LATE;
		if (poll(p, 4, left > INT32_MAX ? INT32_MAX : (int)left) < 0)
			continue;
		if (p[1].revents)
			feed(r);
		if (p[2].revents)
			listen_to(r);
		if (p[0].revents) {
			/* What it said last is still in the pipe. */
			struct pollfd rest = {.fd = r->out, .events = POLLIN};
			while (r->out >= 0 && r->n_said < sizeof(r->said) - 1 && poll(&rest, 1, 0) > 0) {
				listen_to(r);
				rest.fd = r->out;
			}
			return ENDED;
		}
		if (p[3].revents)
			return CANCELLED;
	}
}

static int run_one(
	const struct pf_hook *h, const char *cwd, const char *state, int cancel_fd, struct pf_err *err)
{
	struct running r = {.pidfd = -1, .in = -1, .out = -1, .state = state, .state_len = strlen(state)};
	int status = 0, rc;

	rc = start(h, cwd, &r, err);
	if (rc == 0) {
		enum ending ending = serve(&r, h->timeout_s, cancel_fd);
		if (ending != ENDED)
			(void)pidfd_send_signal(r.pidfd, SIGKILL, NULL, 0);
		while (waitpid(r.pid, &status, 0) < 0 && errno == EINTR)
			;
		while (r.n_said && (r.said[r.n_said - 1] == '\n' || r.said[r.n_said - 1] == ' '))
			r.n_said--;
		r.said[r.n_said] = '\0';
		if (ending == CANCELLED)
			rc = pf_fail_kind(err, PF_ERR_STATE, EINTR, "interrupted, and ended");
		else if (ending == LATE)
			rc = pf_fail(err, 0, "it did not end within %d s", h->timeout_s);
		else if (WIFSIGNALED(status))
			rc = pf_fail(err, 0, "signal %d%s%s", WTERMSIG(status), r.n_said ? ": " : "", r.said);
		else if (WEXITSTATUS(status) != 0)
			rc = pf_fail(err, 0, "exit status %d%s%s", WEXITSTATUS(status), r.n_said ? ": " : "",
				r.said);
	}
	if (r.in >= 0)
		close(r.in);
	if (r.out >= 0)
		close(r.out);
	if (r.pidfd >= 0)
		close(r.pidfd);
	return rc;
}

int pf_hooks_run(const struct pf_hooks *list, enum pf_hook_kind kind, const char *cwd, const char *state,
	int cancel_fd, struct pf_err *err)
{
	sigset_t pipe, old;
	int rc = 0;

	if (list->n == 0)
		return 0;
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	(void)sigprocmask(SIG_BLOCK, &pipe, &old);
	for (size_t i = 0; i < list->n && rc == 0; i++)
		if (run_one(&list->hook[i], cwd, state, cancel_fd, err) < 0)
			rc = pf_wrap(err, "%s hook %s", names[kind], list->hook[i].path);
	if (!sigismember(&old, SIGPIPE)) {
		struct timespec now = {0};
		(void)sigtimedwait(&pipe, NULL, &now);
		(void)sigprocmask(SIG_SETMASK, &old, NULL);
	}
	return rc;
}
