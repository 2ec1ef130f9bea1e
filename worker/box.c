/* Theory of operation: sandboxes for sessions.
 *
 * Everything is asked of the program pinfold, as a person would: what works by hand works here, and a worker
 * that crashes has no state of theirs in its memory. The sandbox is named after the session. What is started
 * gets an environment without a platform credential and no descriptor of ours but its own three.
 *
 * One session at a time is worked at by one process on a machine: a lock file each, below the state
 * directory. */

#include "worker/box.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "worker/log.h"

#define TOOL_TARGET "/run/pinfold-tool"
#define OUTPUT_MAX ((size_t)8 << 20)
#define LAST_READS 256 /* more than a full pipe's, however large one may make it */
#define ARGS_MAX 128
#define IDS_LAST 65533
#define NOBODY 65534

extern char **environ;

/* ---- starting pinfold ---- */

static char **clean_env(void)
{
	size_t n = 0, k = 0;

	while (environ[n])
		n++;
	char **env = pf_calloc(n + 1, sizeof(*env));
	for (size_t i = 0; i < n; i++)
		if (strncasecmp(environ[i], "ANTHROPIC_", 10) != 0)
			env[k++] = environ[i];
	return env;
}

/* argv for pinfold: the global options before the given words (NULL-terminated). */
static void make_argv(const struct pf_box_opts *o, const char *const *words, const char *argv[ARGS_MAX])
{
	size_t n = 0;

	argv[n++] = o->pinfold;
	argv[n++] = "--root";
	argv[n++] = o->root;
	argv[n++] = "--store";
	argv[n++] = o->store;
	argv[n++] = "--log-format";
	argv[n++] = "json";
	for (; *words && n < ARGS_MAX - 1; words++)
		argv[n++] = *words;
	argv[n] = NULL;
}

/* Returns the pid, or -1 with errno. dies: with this process, whatever ends it. */
static pid_t spawn(const char *const *argv, int in, int out, int errors, bool dies)
{
	char **env = clean_env();
	pid_t self = getpid(), pid = fork();

	if (pid == 0) {
		sigset_t none;
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		if (dies) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != self)
				_exit(125);
		}
		/* Not to be hit by the signals of our terminal. */
		(void)setpgid(0, 0);
		if (dup2(in, 0) == 0 && dup2(out, 1) == 1 && dup2(errors, 2) == 2 &&
			close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
			execve(argv[0], (char *const *)(uintptr_t)argv, env);
		_exit(125);
	}
	int e = errno;
	free(env);
	errno = e;
	return pid;
}

static void take_output(int *fd, struct pf_buf *b)
{
	char buf[16384];
	ssize_t n = read(*fd, buf, sizeof(buf));

	if (n > 0 && b->len < OUTPUT_MAX)
		pf_buf_add(b, buf, (size_t)n);
	if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) {
		close(*fd);
		*fd = -1;
	}
}

/* The error that pinfold reported on its standard error: the last JSON line. */
static int read_error(const char *verb, char *lines, struct pf_err *err)
{
	enum pf_err_kind kind = PF_ERR_SYSTEM;
	PF_BUF struct pf_buf msg = {0};
	char *save = NULL;

	for (char *l = strtok_r(lines, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		cJSON *j = cJSON_Parse(l);
		const char *level = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "level")),
			   *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "msg")),
			   *code = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "code"));
		if (!j || (level && strcmp(level, "error") == 0)) {
			pf_buf_done(&msg);
			pf_buf_str(&msg, text ? text : l);
		}
		for (int k = PF_ERR_SYSTEM; code && k <= PF_ERR_NO_COMMAND; k++)
			if (strcmp(code, pf_err_kind_name((enum pf_err_kind)k)) == 0)
				kind = (enum pf_err_kind)k;
		cJSON_Delete(j);
	}
	return pf_fail_kind(err, kind, 0, "pinfold %s: %.800s", verb, msg.data ? msg.data : "failed");
}

int pf_box_run(const struct pf_box_opts *o, const char *const *words, const char *input, char **output,
	struct pf_err *err)
{
	return pf_box_feed(o, words, input, input ? strlen(input) : 0, output, err);
}

int pf_box_feed(const struct pf_box_opts *o, const char *const *words, const void *input, size_t len,
	char **output, struct pf_err *err)
{
	PF_CLOSE int in =
		input ? memfd_create("pinfold-input", MFD_CLOEXEC) : open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (in < 0 || (input && (pf_write_all(in, input, len) < 0 || lseek(in, 0, SEEK_SET) < 0)))
		return pf_fail(err, errno, "memfd");
	return pf_box_pipe(o, words, in, output, err);
}

/* What a command in the sandbox has left in the background may hold the pipes open for ever: once the process
 * that we started has ended, only what is in them counts. */
static void take_all(int pidfd, int fd[2], struct pf_buf *out, struct pf_buf *errors)
{
	int last = 0;

	while ((fd[0] >= 0 || fd[1] >= 0) && last < LAST_READS) {
		struct pollfd p[3] = {{.fd = fd[0], .events = POLLIN}, {.fd = fd[1], .events = POLLIN},
			{.fd = last ? -1 : pidfd, .events = POLLIN}};
		int n = poll(p, 3, last ? 0 : -1);
		if (n == 0)
			break;
		if (n < 0)
			continue;
		if (p[0].revents)
			take_output(&fd[0], out);
		if (p[1].revents)
			take_output(&fd[1], errors);
		last += last || p[2].revents;
	}
	for (int i = 0; i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
}

int pf_box_pipe(
	const struct pf_box_opts *o, const char *const *words, int in, char **output, struct pf_err *err)
{
	PF_BUF struct pf_buf out = {0}, errors = {0};
	const char *argv[ARGS_MAX];
	int po[2], pe[2], status = 0;

	make_argv(o, words, argv);
	if (pf_two_pipes(po, pe) < 0)
		return pf_fail(err, errno, "pipe");
	pid_t pid = spawn(argv, in, po[1], pe[1], false);
	PF_CLOSE int pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
	int e = errno, ours[2] = {po[0], pe[0]};
	close(po[1]);
	close(pe[1]);
	if (pidfd < 0) {
		close(po[0]);
		close(pe[0]);
		if (pid > 0) {
			(void)kill(pid, SIGKILL);
			(void)waitpid(pid, &status, 0);
		}
		return pf_fail(err, e, "start %s", o->pinfold);
	}
	(void)fcntl(ours[0], F_SETFL, O_NONBLOCK);
	(void)fcntl(ours[1], F_SETFL, O_NONBLOCK);
	take_all(pidfd, ours, &out, &errors);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		return pf_fail(err, 0, "pinfold %s was ended by signal %d", words[0], WTERMSIG(status));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		pf_buf_str(&errors, "");
		return read_error(words[0], errors.data, err);
	}
	if (output) {
		pf_buf_str(&out, "");
		*output = pf_take(out.data);
	}
	return 0;
}

/* ---- the lock ---- */

static char *lock_path(const struct pf_box_opts *o, const char *id)
{
	return pf_asprintf("%s/%s.lock", o->state_dir, id);
}

int pf_box_lock(const struct pf_box_opts *o, const char *id, int *lock, struct pf_err *err)
{
	PF_FREE char *path = lock_path(o, id);
	struct stat a, b;

	if (pf_mkdirs(o->state_dir, 0700, err) < 0)
		return -1;
	for (;;) {
		PF_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return pf_fail(err, errno, "%s", path);
		if (flock(fd, LOCK_EX | LOCK_NB) < 0)
			return errno == EWOULDBLOCK ? 0 : pf_fail(err, errno, "lock %s", path);
		/* Whoever had it may have removed the file meanwhile. */
		if (fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino &&
			a.st_dev == b.st_dev) {
			*lock = pf_take_fd(&fd);
			return 1;
		}
	}
}

void pf_box_unlock(const struct pf_box_opts *o, const char *id, int *lock)
{
	PF_FREE char *path = lock_path(o, id);

	if (*lock < 0)
		return;
	(void)unlink(path);
	close(*lock);
	*lock = -1;
}

/* ---- sandboxes ---- */

/* When a session's files are kept is for the worker to say: not when its sandbox is ended because another has
 * the session now, nor when its files are given up for newer ones. */
static void take_over(cJSON *j)
{
	cJSON *c = cJSON_GetObjectItemCaseSensitive(j, "checkpoint"),
	      *on = cJSON_GetObjectItemCaseSensitive(c, "on");

	for (int i = cJSON_GetArraySize(on) - 1; i >= 0; i--) {
		const char *w = cJSON_GetStringValue(cJSON_GetArrayItem(on, i));
		if (w && (strcmp(w, "signal") == 0 || strcmp(w, "destroy") == 0 || strcmp(w, "exit") == 0))
			cJSON_DeleteItemFromArray(on, i);
	}
}

/* Paths that no checkpoint is to have. */
static int exclude(cJSON *j, const char *const *paths)
{
	const char *workdir = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "workdir"));
	cJSON *c = cJSON_GetObjectItemCaseSensitive(j, "checkpoint");

	if (!c)
		c = cJSON_AddObjectToObject(j, "checkpoint");
	cJSON *list = cJSON_GetObjectItemCaseSensitive(c, "exclude");
	if (!list)
		list = cJSON_AddArrayToObject(c, "exclude");
	if (!cJSON_IsArray(list))
		return -1;
	for (; *paths; paths++) {
		PF_FREE char *path = **paths == '/'
					     ? pf_strdup(*paths)
					     : pf_asprintf("%s/%s", workdir ? workdir : "/workspace", *paths);
		cJSON_AddItemToArray(list, cJSON_CreateString(path));
	}
	return 0;
}

/* The administrator's document with the tools' helper mounted. */
static char *make_config(const struct pf_box_opts *o, const char *const *leave_out, struct pf_err *err)
{
	PF_JSON cJSON *j = o->config ? pf_json_load(o->config, err) : cJSON_CreateObject();

	if (!j)
		return NULL;
	cJSON *fs = cJSON_GetObjectItemCaseSensitive(j, "filesystem");
	if (!fs)
		fs = cJSON_AddObjectToObject(j, "filesystem");
	cJSON *mounts = cJSON_GetObjectItemCaseSensitive(fs, "mounts");
	if (!mounts)
		mounts = cJSON_AddArrayToObject(fs, "mounts");
	if (!cJSON_IsObject(j) || !cJSON_IsArray(mounts)) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: filesystem.mounts must be an array", o->config);
		return NULL;
	}
	take_over(j);
	if (leave_out && *leave_out && exclude(j, leave_out) < 0) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: checkpoint.exclude must be an array", o->config);
		return NULL;
	}
	if (o->tool) {
		cJSON *m = cJSON_CreateObject();
		cJSON_AddStringToObject(m, "source", o->tool);
		cJSON_AddStringToObject(m, "target", TOOL_TARGET);
		cJSON_AddTrueToObject(m, "read_only");
		cJSON_AddItemToArray(mounts, m);
	}
	return pf_json_text(j);
}

/* What is left of the sandbox by somebody who was here before: 0: go on with it; 1: it was cleared away,
 * since the session has been elsewhere meanwhile. start: the words that have it started on its files. */
static int look_over(const struct pf_box_opts *o, const char *id, const char *const *start,
	const char *config, struct pf_err *err)
{
	bool stale;

	/* What still runs in it is nobody's. */
	if (pf_box_kill(o, id, err) < 0)
		return -1;
	int r = pf_box_stale(o, id, &stale, err);
	if (r < 0 && err->kind == PF_ERR_NOT_FOUND) {
		/* Files and nothing else: the machine was started anew, or a destroy was killed. What they
		 * came from is asked of the sandbox, once there is one. */
		*err = PF_ERR_INIT;
		r = pf_box_run(o, start, config, NULL, err) < 0 || pf_box_kill(o, id, err) < 0
			    ? -1
			    : pf_box_stale(o, id, &stale, err);
	}
	if (r < 0)
		return -1;
	if (!stale)
		return 0;
	pf_wlog("warning",
		"the files here are older than the session's newest checkpoint: they are given up for it");
	return pf_box_destroy(o, id, err) < 0 ? -1 : 1;
}

static int have_packages(const struct pf_box_opts *o, struct pf_err *err)
{
	const char *words[] = {"image", "packages", o->config, NULL};
	PF_JSON cJSON *j = o->config ? pf_json_load(o->config, err) : NULL;
	const cJSON *packages = cJSON_GetObjectItemCaseSensitive(j, "packages"), *list;
	PF_FREE char *made = NULL;
	bool some = false;

	if (!o->config)
		return 0;
	if (!j)
		return -1;
	if (!packages)
		packages = cJSON_GetObjectItemCaseSensitive(
			cJSON_GetObjectItemCaseSensitive(j, "config"), "packages");
	cJSON_ArrayForEach(list, packages) some = some || cJSON_GetArraySize(list) > 0;
	if (!some)
		return 0;
	pf_wlog("info", "the image with the packages of %s: made, unless it is there", o->config);
	if (pf_box_run(o, words, NULL, &made, err) < 0)
		return -1;
	pf_wlog("info", "the image with the packages is %s",
		strstr(made, "\"cached\":true") ? "there" : "made");
	return 0;
}

/* One name and a lock, so that what a worker that was killed in here has left goes with the next one. */
#define TRIAL "pinfold-worker-trial"

static int try_one(const struct pf_box_opts *o, struct pf_err *err)
{
	PF_FREE char *config = make_config(o, NULL, err);
	const char *create[] = {"create", TRIAL, "--config", "-", o->credentials ? "--credentials" : NULL,
		o->credentials, NULL};
	const char *bash[] = {"exec", TRIAL, "--", "/bin/bash", "-c", ":", NULL};
	struct pf_err ignored = PF_ERR_INIT;

	if (!config || pf_box_destroy(o, TRIAL, err) < 0)
		return -1;
	int r = pf_box_run(o, create, config, NULL, err);
	if (r < 0)
		pf_wrap(err, "no sandbox can be made for sessions");
	else if (o->tool && pf_box_run(o, bash, NULL, NULL, &ignored) < 0)
		pf_wlog("warning", "agents will have no shell here: %s", ignored.msg);
	if (pf_box_destroy(o, TRIAL, r < 0 ? &ignored : err) < 0)
		r = -1;
	PF_FREE char *log = pf_asprintf("%s/logs/" TRIAL ".jsonl", o->store);
	(void)unlink(log);
	return r;
}

int pf_box_prepare(const struct pf_box_opts *o, struct pf_err *err)
{
	int lock = -1, r = have_packages(o, err);
	int got = r == 0 ? pf_box_lock(o, TRIAL, &lock, err) : -1;

	/* Where another worker is at it, its word is as good. */
	if (got > 0) {
		r = try_one(o, err);
		pf_box_unlock(o, TRIAL, &lock);
	}
	return got < 0 ? -1 : r;
}

int pf_box_open(const struct pf_box_opts *o, const char *id, const char *const *leave_out, const char **how,
	struct pf_err *err)
{
	PF_FREE char *config = make_config(o, leave_out, err), *state = NULL;
	const char *words[12] = {"create", id, "--config", "-"};
	size_t n = 4;

	if (!config || (o->remote && pf_box_fetch(o, id, err) < 0))
		return -1;
	if (o->credentials) {
		words[n++] = "--credentials";
		words[n++] = o->credentials;
	}
	if (o->rebase)
		words[n++] = "--rebase";
	size_t from = n;
	words[n++] = "--from";
	words[n++] = "latest";
	size_t reuse = n;
	words[n++] = "--reuse";
	struct pf_err first = PF_ERR_INIT;
	bool made = pf_box_run(o, words, config, &state, &first) == 0;
	bool alive = made && strstr(state, "\"reused\":true");
	if (alive || (!made && first.kind == PF_ERR_EXISTS)) {
		words[from] = "--reuse";
		words[from + 1] = NULL;
		int cleared = look_over(o, id, words, config, err);
		if (cleared < 0)
			return -1;
		if (cleared) {
			words[from] = "--from";
			words[from + 1] = "latest";
			words[reuse] = NULL;
		}
		*how = cleared ? "resumed from its checkpoint" : "started again on its files";
		return pf_box_run(o, words, config, NULL, err);
	}
	if (made) {
		*how = strstr(state, "\"checkpoint\":\"") ? "resumed from its checkpoint" : "created";
		return 0;
	}
	if (first.kind == PF_ERR_NOT_FOUND) {
		words[from] = NULL;
		*how = "created";
		return pf_box_run(o, words, config, NULL, err);
	}
	*err = first;
	return -1;
}

int pf_box_tidy(const struct pf_box_opts *o, const char *id, bool memory, struct pf_err *err)
{
	/* As the sandbox's root, so nothing here goes through a link that the agent may have put there. */
	static const char clear[] =
		"m=/mnt/memory; [ ! -L $m ] || rm -f $m; [ ! -d $m ] || find $m -mindepth 1 -delete";
	static const char make[] =
		"m=/mnt/memory; [ ! -L $m ] || rm -f $m; [ ! -d $m ] || find $m -mindepth 1 -delete\n"
		"mkdir -p $m && chmod 1777 $m";
	const char *words[] = {"exec", id, "--user", "0:0", "--timeout", "60s", "--", "/bin/sh", "-c",
		memory ? make : clear, NULL};

	return pf_box_run(o, words, NULL, NULL, err);
}

/* A process that the state names by its number and when it was started, as a pidfd. -1 with errno: ESRCH when
 * it is gone. */
static int named_process(const cJSON *pid, const cJSON *start)
{
	if (!cJSON_IsNumber(pid) || !cJSON_IsNumber(start)) {
		errno = EINVAL;
		return -1;
	}
	return pf_pidfd_open_checked((pid_t)pid->valuedouble, (uint64_t)start->valuedouble);
}

bool pf_box_runs(const struct pf_box_opts *o, const char *id)
{
	const char *words[] = {"state", id, NULL};
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *text = NULL;
	PF_JSON cJSON *j = NULL;

	if (pf_box_run(o, words, NULL, &text, &err) < 0)
		return false;
	j = cJSON_Parse(text);
	const cJSON *p = cJSON_GetObjectItemCaseSensitive(j, "pinfold");
	const char *status = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "status"));
	/* Without its keeper it is about to end. */
	PF_CLOSE int keeper = named_process(cJSON_GetObjectItemCaseSensitive(p, "keeper"),
		cJSON_GetObjectItemCaseSensitive(p, "keeper_start"));
	return status && strcmp(status, "running") == 0 && keeper >= 0 && !pf_pidfd_ended(keeper);
}

int pf_box_init(const struct pf_box_opts *o, const char *id, struct pf_box_first *first, struct pf_err *err)
{
	const char *words[] = {"state", id, NULL};
	PF_FREE char *text = NULL;
	PF_JSON cJSON *j = NULL;

	if (pf_box_run(o, words, NULL, &text, err) < 0)
		return -1;
	j = cJSON_Parse(text);
	const cJSON *p = cJSON_GetObjectItemCaseSensitive(j, "pid"),
		    *began = cJSON_GetObjectItemCaseSensitive(
			    cJSON_GetObjectItemCaseSensitive(j, "pinfold"), "pid_start");
	if (!cJSON_IsNumber(p) || p->valuedouble < 1 || !cJSON_IsNumber(began))
		return pf_fail_kind(err, PF_ERR_STATE, 0, "the sandbox does not run");
	const cJSON *base =
		cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(j, "pinfold"), "id_base");
	*first = (struct pf_box_first){.pid = (pid_t)p->valuedouble,
		.start = (uint64_t)began->valuedouble,
		.uid = cJSON_IsNumber(base) && base->valuedouble > 0 ? (uid_t)base->valuedouble + IDS_LAST
								     : NOBODY};
	return 0;
}

int pf_box_kill(const struct pf_box_opts *o, const char *id, struct pf_err *err)
{
	const char *words[] = {"state", id, NULL};
	PF_FREE char *text = NULL;
	PF_JSON cJSON *j = NULL;

	if (pf_box_run(o, words, NULL, &text, err) < 0)
		return err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	j = cJSON_Parse(text);
	const cJSON *p = cJSON_GetObjectItemCaseSensitive(j, "pinfold"),
		    *keeper = cJSON_GetObjectItemCaseSensitive(p, "keeper");
	const char *status = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "status"));
	if (status && strcmp(status, "stopped") == 0)
		return 0;
	PF_CLOSE int init = named_process(
		cJSON_GetObjectItemCaseSensitive(j, "pid"), cJSON_GetObjectItemCaseSensitive(p, "pid_start"));
	if (init < 0 && errno != ESRCH)
		return pf_fail(err, errno, "the first process of %s", id);
	PF_CLOSE int fd = named_process(keeper, cJSON_GetObjectItemCaseSensitive(p, "keeper_start"));
	if (fd < 0 && errno != ESRCH)
		return pf_fail(err, errno, "the keeper of %s", id);
	/* The keeper ends its sandbox in order when it is told to, and leaves the files. Where it is gone,
	 * the sandbox is about to be. */
	if (fd >= 0 && kill((pid_t)keeper->valuedouble, SIGTERM) < 0 && errno != ESRCH)
		return pf_fail(err, errno, "end the keeper");
	if ((fd < 0 || pf_pidfd_wait(fd, 20000) == 1) && (init < 0 || pf_pidfd_wait(init, 20000) == 1))
		return 0;
	return pf_fail(err, ETIMEDOUT, "the end of %s", id);
}

int pf_box_destroy(const struct pf_box_opts *o, const char *id, struct pf_err *err)
{
	const char *words[] = {"destroy", id, NULL};
	struct pf_err first = PF_ERR_INIT;

	/* Once more where it was ended half-way: what it had not done yet is done now. */
	if (pf_box_run(o, words, NULL, NULL, &first) == 0 || pf_box_run(o, words, NULL, NULL, err) == 0)
		return 0;
	if (err->kind == PF_ERR_NOT_FOUND && first.kind != PF_ERR_NOT_FOUND)
		return 0;
	return -1;
}

/* ---- the helper ---- */

int pf_tool_start(const struct pf_box_opts *o, const char *id, const char *const *args, struct pf_tool *t,
	struct pf_err *err)
{
	/* The sandbox's limit for one command is not for what serves all of them. */
	const char *words[ARGS_MAX - 10] = {"exec", id, "--timeout", "3650d", "--", TOOL_TARGET};
	const char *argv[ARGS_MAX];
	int in[2], out[2], errors[2];

	for (size_t n = 6; args && *args && n < sizeof(words) / sizeof(words[0]) - 1; args++)
		words[n++] = *args;
	make_argv(o, words, argv);
	if (pf_two_pipes(in, out) < 0)
		return pf_fail(err, errno, "pipe");
	/* The agent, who may open what its shell's parent has open, gets no descriptor of ours: neither our
	 * standard error, which may be a file. Nobody waits for room in this one. */
	if (pipe2(errors, O_CLOEXEC | O_NONBLOCK) < 0) {
		int e = errno;
		close(in[0]);
		close(in[1]);
		close(out[0]);
		close(out[1]);
		return pf_fail(err, e, "pipe");
	}
	pid_t pid = spawn(argv, in[0], out[1], errors[1], true);
	close(in[0]);
	close(out[1]);
	close(errors[1]);
	if (pid < 0 || fcntl(in[1], F_SETFL, O_NONBLOCK) < 0 || fcntl(out[0], F_SETFL, O_NONBLOCK) < 0) {
		int e = errno;
		close(in[1]);
		close(out[0]);
		close(errors[0]);
		return pf_fail(err, e, "start %s exec", o->pinfold);
	}
	*t = (struct pf_tool){.pid = pid, .in = in[1], .out = out[0], .errors = errors[0]};
	return 0;
}

int pf_box_start_worker(const struct pf_box_opts *o, const char *id, const char *const *env,
	const char *const *command, struct pf_tool *t, struct pf_err *err)
{
	/* Some want the secret in a file that only they can read. It is in memory, hence in no checkpoint. */
	static const char begin[] =
		"m=$(umask); umask 077\n"
		"f=$(mktemp /dev/shm/work-secret.XXXXXX 2>/dev/null) && printf %s \"$ANTHROPIC_WORK_SECRET\" "
		">\"$f\" && export ANTHROPIC_WORK_SECRET_FILE=\"$f\"\n"
		"umask \"$m\"; exec \"$@\"";
	const char *words[ARGS_MAX - 10], *argv[ARGS_MAX];
	size_t n = 0, max = sizeof(words) / sizeof(words[0]) - 1;
	int out[2];

	words[n++] = "exec";
	words[n++] = id;
	words[n++] = "--timeout";
	words[n++] = "3650d";
	for (; *env; env++) {
		words[n++] = "--env";
		words[n++] = *env;
	}
	words[n++] = "--";
	words[n++] = "/bin/sh";
	words[n++] = "-c";
	words[n++] = begin;
	words[n++] = "worker";
	for (; *command; command++) {
		if (n == max)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "the worker's command has too many words");
		words[n++] = *command;
	}
	words[n] = NULL;
	make_argv(o, words, argv);
	PF_CLOSE int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (in < 0 || pipe2(out, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe");
	pid_t pid = spawn(argv, in, out[1], out[1], true);
	close(out[1]);
	if (pid < 0 || fcntl(out[0], F_SETFL, O_NONBLOCK) < 0) {
		int e = errno;
		close(out[0]);
		return pf_fail(err, e, "start %s exec", o->pinfold);
	}
	*t = (struct pf_tool){.pid = pid, .in = -1, .out = out[0], .errors = -1};
	return 0;
}

/* Why it ended, in one line: the first of what it said is enough, and a stranger may have said it. */
static void log_errors(const struct pf_tool *t)
{
	char said[8192];
	struct pf_err err = PF_ERR_INIT;
	ssize_t n = t->errors < 0 ? -1 : read(t->errors, said, sizeof(said) - 1);

	if (n <= 0)
		return;
	said[n] = '\0';
	(void)read_error("exec", said, &err);
	pf_wlog("warning", "the helper in the sandbox: %s", err.msg);
}

void pf_tool_stop(struct pf_tool *t)
{
	if (t->pid > 0) {
		/* The keeper kills what an exec that is gone stood for. */
		(void)kill(t->pid, SIGKILL);
		while (waitpid(t->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (t->in >= 0)
		close(t->in);
	if (t->out >= 0)
		close(t->out);
	log_errors(t);
	if (t->errors >= 0)
		close(t->errors);
	*t = PF_TOOL_INIT;
}
