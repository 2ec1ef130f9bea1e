/* Theory of operation: automatic checkpoints.
 *
 * A keeper is confined: it can start no program and open next to no file. So where a sandbox file asks for
 * checkpoints, the keeper forks a *saver* before anything else, which keeps root's rights, holds nothing of
 * the keeper's but the workspace, reads nothing that a sandbox wrote, and does one thing when the keeper says
 * a word: the work of `pinfold snapshot`, in a child of its own (the *worker*), so that it stays able to
 * listen.
 *
 *     keeper → saver   {"on":"every"}                 of the running sandbox: lock, freeze protocol
 *                      {"on":"exit","ended":true}     of the ended one: just packed; a worker that is still
 * busy with the running one is killed first saver → keeper   {"on":…,"ended":…,"good":…}    the worker has
 * ended (the audit log has the rest)
 *
 * Lock: the worker of a running sandbox takes the id's lock as any snapshot does. That of an ended one does
 * not: whoever holds it then (destroy, create --reuse, gc) waits for the keeper before touching anything, and
 * the keeper waits for the worker. The file `saving` in the runtime directory tells these to be patient.
 *
 * The end of the socket is the end of the saver and its worker; the keeper's death is too (PR_SET_PDEATHSIG).
 * A store in which a worker died holds nothing but a temporary directory, for gc. */

#include "session/autosave.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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
#include "session/control.h"
#include "session/snapshot.h"

/* What runs out of memory over and over shall not fill the store. */
#define LIMIT_GAP_US ((int64_t)60000000)
/* For a saver that was told to end. */
#define SAVER_END_MS 5000

#define EVERY "every"
#define MARK "saving"

struct saver {
	const struct pf_dirs *d;
	const char *id;
	int64_t keep;
	int sock, upper;
	pid_t worker;
	int pidfd; /* of the worker, -1: none */
	char *on;  /* what it works for */
	bool ended;
};

bool pf_autosave_wanted(const struct pf_config_checkpoint *c)
{
	return c->every_ms >= 0 || c->on[PF_ON_EXIT] || c->on[PF_ON_IDLE] || c->on[PF_ON_LIMIT] ||
	       c->on[PF_ON_SIGNAL];
}

/* ---- the saver ---- */

static void kill_worker(struct saver *s)
{
	if (s->pidfd < 0)
		return;
	/* It, and the helper that it drives. */
	(void)kill(-s->worker, SIGKILL);
	(void)kill(s->worker, SIGKILL);
	while (waitpid(s->worker, NULL, 0) < 0 && errno == EINTR)
		;
	close(pf_take_fd(&s->pidfd));
}

__attribute__((noreturn)) static void work(const struct saver *s, const char *on, bool ended)
{
	struct pf_err err = PF_ERR_INIT;

	(void)setpgid(0, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	(void)signal(SIGTERM, SIG_DFL);
	close(s->sock);
	_exit(pf_session_snapshot_auto(s->d, s->id, on, s->keep, ended ? s->upper : -1, &err) < 0);
}

static int report(const struct saver *s, const char *on, bool good)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();
	struct pf_err ignored = PF_ERR_INIT;

	cJSON_AddStringToObject(msg, "on", on);
	cJSON_AddBoolToObject(msg, "ended", s->ended);
	cJSON_AddBoolToObject(msg, "good", good);
	return pf_control_send(s->sock, msg, -1, &ignored);
}

/* A word that is none of those that a file can ask for is not acted upon. */
static bool is_occasion(const char *on)
{
	if (strcmp(on, EVERY) == 0)
		return true;
	for (int i = 0; i < PF_N_ON; i++)
		if (strcmp(on, pf_config_on_name((enum pf_config_on)i)) == 0)
			return true;
	return false;
}

static int on_request(struct saver *s)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_JSON cJSON *msg = pf_control_recv(s->sock, NULL, &ignored);
	const char *on = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "on"));
	bool ended = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(msg, "ended"));

	if (!msg)
		return -1;
	if (!on || !is_occasion(on) || (s->pidfd >= 0 && !ended))
		return 0;
	kill_worker(s);
	free(s->on);
	s->on = pf_strdup(on);
	s->ended = ended;
	s->worker = fork();
	if (s->worker == 0)
		work(s, on, ended);
	if (s->worker > 0) {
		/* Here too, so that it is so before anybody could want to kill it. */
		(void)setpgid(s->worker, s->worker);
		s->pidfd = pidfd_open(s->worker, 0);
	}
	if (s->worker > 0 && s->pidfd < 0) {
		(void)kill(s->worker, SIGKILL);
		(void)waitpid(s->worker, NULL, 0);
	}
	return s->pidfd < 0 ? report(s, on, false) : 0;
}

static int on_worker_end(struct saver *s)
{
	int status = 0;

	while (waitpid(s->worker, &status, 0) < 0 && errno == EINTR)
		;
	close(pf_take_fd(&s->pidfd));
	return report(s, s->on, WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

__attribute__((noreturn)) static void saver_main(struct saver *s)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	(void)prctl(PR_SET_NAME, "pinfold-saver", 0, 0, 0);
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	/* A service manager that ends everything at once means the keeper, who will ask us for one more. */
	(void)signal(SIGTERM, SIG_IGN);
	for (int i = 0; null >= 0 && i < 3; i++)
		(void)dup2(null, i);
	if (dup3(s->upper, 3, O_CLOEXEC) < 0 || dup3(s->sock, 4, O_CLOEXEC) < 0 || close_range(5, ~0U, 0) < 0)
		_exit(1);
	s->upper = 3;
	s->sock = 4;
	for (;;) {
		struct pollfd p[2] = {{.fd = s->sock, .events = POLLIN}, {.fd = s->pidfd, .events = POLLIN}};
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].fd >= 0 && p[1].revents && on_worker_end(s) < 0)
			break;
		if (p[0].revents && on_request(s) < 0)
			break;
	}
	kill_worker(s);
	_exit(0);
}

/* ---- the keeper's side ---- */

int pf_autosave_start(const struct pf_dirs *d, const char *id, const struct pf_config_checkpoint *c,
	int upper_fd, struct pf_autosave *a, struct pf_err *err)
{
	/* Above what the saver's own numbers are. A workspace's descriptor may be one for paths alone. */
	PF_CLOSE int listed = openat(upper_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSE int upper = listed < 0 ? -1 : fcntl(listed, F_DUPFD_CLOEXEC, 5);
	PF_CLOSE int ours = -1, theirs = -1;
	int pair[2];

	*a = PF_AUTOSAVE_NONE;
	if (upper < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return pf_fail(err, errno, "start the saver");
	ours = pair[0];
	theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, 5);
	close(pair[1]);
	if (theirs < 0)
		return pf_fail(err, errno, "start the saver");
	a->pid = fork();
	if (a->pid < 0)
		return pf_fail(err, errno, "start the saver");
	if (a->pid == 0) {
		struct saver s = {
			.d = d, .id = id, .keep = c->keep, .sock = theirs, .upper = upper, .pidfd = -1};
		saver_main(&s);
	}
	a->fd = pf_take_fd(&ours);
	if (c->every_ms >= 0)
		a->next_us = pf_now_us() + c->every_ms * 1000;
	return 0;
}

static int ask(struct pf_autosave *a, const char *on, bool ended, struct pf_err *err)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();

	cJSON_AddStringToObject(msg, "on", on);
	if (ended)
		cJSON_AddTrueToObject(msg, "ended");
	if (pf_control_send(a->fd, msg, -1, err) < 0)
		return -1;
	a->busy = true;
	return 0;
}

void pf_autosave_tick(struct pf_autosave *a, const struct pf_config_checkpoint *c, int64_t now_us)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (a->fd < 0 || a->busy || a->next_us == 0 || now_us < a->next_us)
		return;
	a->next_us = now_us + c->every_ms * 1000;
	(void)ask(a, EVERY, false, &ignored); /* a saver that is gone is found out by pf_autosave_event() */
}

void pf_autosave_after_kill(struct pf_autosave *a, const struct pf_config_checkpoint *c, int64_t now_us)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (a->fd < 0 || a->busy || !c->on[PF_ON_LIMIT] ||
		(a->limit_us && now_us - a->limit_us < LIMIT_GAP_US))
		return;
	a->limit_us = now_us;
	(void)ask(a, pf_config_on_name(PF_ON_LIMIT), false, &ignored);
}

void pf_autosave_event(struct pf_autosave *a, const struct pf_config_checkpoint *c)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_JSON cJSON *msg = pf_control_recv(a->fd, NULL, &ignored);

	a->busy = false;
	if (!msg) {
		close(pf_take_fd(&a->fd));
		a->next_us = 0;
	} else if (c->every_ms >= 0) {
		a->next_us = pf_now_us() + c->every_ms * 1000;
	}
}

/* Its answer to the last request; one to an earlier request may come before it. */
static int wait_for_last(const struct pf_autosave *a, struct pf_err *err)
{
	int64_t until = pf_now_us() + (int64_t)PF_AUTOSAVE_END_MS * 1000;

	for (;;) {
		struct pollfd p = {.fd = a->fd, .events = POLLIN};
		struct pf_err e = PF_ERR_INIT;
		int64_t left = (until - pf_now_us()) / 1000;
		int r = left <= 0 ? 0 : poll(&p, 1, (int)left);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return pf_fail(err, 0, "it was not done in %d s", PF_AUTOSAVE_END_MS / 1000);
		PF_JSON cJSON *msg = pf_control_recv(a->fd, NULL, &e);
		if (!msg)
			return pf_fail(err, 0, "the saver has ended");
		if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(msg, "ended")))
			return 0;
	}
}

static void mark(const struct pf_dirs *d, const char *id, bool saving)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_CLOSE int dir = pf_dirs_run(d, id, false, &ignored);

	if (dir >= 0 && saving)
		(void)pf_replace_file_at(dir, MARK, "", 0, 0600, false, &ignored);
	else if (dir >= 0)
		(void)unlinkat(dir, MARK, 0);
}

bool pf_autosave_saving(const struct pf_dirs *d, const char *id)
{
	PF_FREE char *path = pf_asprintf("%s/%s/" MARK, d->root, id);

	return access(path, F_OK) == 0;
}

static void end_saver(const struct pf_autosave *a)
{
	for (int waited = 0; waited < SAVER_END_MS; waited += 10) {
		if (waitpid(a->pid, NULL, WNOHANG) != 0)
			return;
		(void)poll(NULL, 0, 10);
	}
	(void)kill(a->pid, SIGKILL);
	(void)waitpid(a->pid, NULL, 0);
}

int pf_autosave_end(struct pf_autosave *a, const struct pf_dirs *d, const char *id, enum pf_config_on on,
	struct pf_err *err)
{
	int r = 0;

	if (on != PF_N_ON && a->fd < 0) {
		r = pf_fail(err, 0, "the saver has ended");
	} else if (on != PF_N_ON) {
		mark(d, id, true);
		r = ask(a, pf_config_on_name(on), true, err);
		if (r == 0)
			r = wait_for_last(a, err);
		mark(d, id, false);
	}
	if (a->fd >= 0)
		close(pf_take_fd(&a->fd));
	if (a->pid > 0)
		end_saver(a);
	a->pid = 0;
	return r;
}
