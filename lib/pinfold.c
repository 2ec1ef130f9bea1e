/* libpinfold: see pinfold.h. The other end is cmd/pinfold-jail/serve.c; jail/message.h says how they talk.
 * Stands alone: no other file of the tree is linked into it, so that nothing of theirs is exported. */
#include "lib/pinfold.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
#define MAX_MESSAGE ((uint32_t)64 << 20)
#define CONTROL_FD 3 /* in the program that is started */

#ifndef PF_JAIL_PROGRAM
#define PF_JAIL_PROGRAM "/usr/local/bin/pinfold-jail"
#endif

struct pinfold_process {
	pid_t monitor, pid;
	int control, stream[3];
	cJSON *result; /* that came while something else was waited for */
};

extern char **environ;

__attribute__((format(printf, 2, 3))) static int fail(char *why, const char *fmt, ...)
{
	va_list ap;

	if (why) {
		va_start(ap, fmt);
		(void)vsnprintf(why, PINFOLD_ERROR_SIZE, fmt, ap);
		va_end(ap);
	}
	return -1;
}

static int send_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int recv_all(int fd, void *data, size_t len)
{
	char *p = data;

	while (len) {
		ssize_t n = recv(fd, p, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int send_text(int fd, const char *text)
{
	size_t len = strlen(text);
	uint32_t n = (uint32_t)len;

	if (len == 0 || len > MAX_MESSAGE) {
		errno = EMSGSIZE;
		return -1;
	}
	return send_all(fd, &n, sizeof(n)) < 0 ? -1 : send_all(fd, text, len);
}

static int send_message(int fd, cJSON *m)
{
	char *text = cJSON_PrintUnformatted(m);
	int r = text ? send_text(fd, text) : -1;

	cJSON_Delete(m);
	free(text);
	return r;
}

static cJSON *recv_message(int fd)
{
	uint32_t len = 0;
	char *text;
	cJSON *m;

	if (recv_all(fd, &len, sizeof(len)) < 0 || len == 0 || len > MAX_MESSAGE)
		return NULL;
	text = malloc((size_t)len + 1);
	if (!text)
		return NULL;
	m = recv_all(fd, text, len) < 0 ? NULL : cJSON_ParseWithLength(text, len);
	free(text);
	return m;
}

static const cJSON *member(const cJSON *o, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(o, key);
}

/* ---- starting ---- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Descriptors that stand where the new process's own go (0 to 3) would be overwritten before they are copied:
 * ours are all moved above them. */
static int above(int fd)
{
	int up;

	if (fd > CONTROL_FD)
		return fd;
	up = fcntl(fd, F_DUPFD_CLOEXEC, CONTROL_FD + 1);
	close(fd);
	return up;
}

/* Give the new process its i-th standard stream; *ours is our end of a pipe, *theirs is closed by the caller.
 */
static int add_stream(
	posix_spawn_file_actions_t *fa, const struct pinfold_stdio *io, int i, int *ours, int *theirs)
{
	enum pinfold_stream kind = io ? io->kind[i] : PINFOLD_INHERIT;
	int p[2];

	*theirs = -1;
	switch (kind) {
	case PINFOLD_INHERIT:
		return 0;
	case PINFOLD_NULL:
		return posix_spawn_file_actions_addopen(fa, i, "/dev/null", i ? O_WRONLY : O_RDONLY, 0);
	case PINFOLD_FD:
		*theirs = fcntl(io->fd[i], F_DUPFD_CLOEXEC, CONTROL_FD + 1);
		return *theirs < 0 ? errno : posix_spawn_file_actions_adddup2(fa, *theirs, i);
	case PINFOLD_PIPE:
		if (pipe2(p, O_CLOEXEC) < 0)
			return errno;
		*ours = above(i ? p[0] : p[1]);
		*theirs = above(i ? p[1] : p[0]);
		if (*ours < 0 || *theirs < 0)
			return EMFILE;
		return posix_spawn_file_actions_adddup2(fa, *theirs, i);
	default:
		return EINVAL;
	}
}

static int start(pinfold_process *p, const struct pinfold_stdio *stdio, char *why)
{
	char number[] = {'0' + CONTROL_FD, '\0'};
	char *argv[] = {(char *)"pinfold-jail", (char *)"--serve", number, NULL};
	const char *program = secure_getenv("PINFOLD_JAIL");
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none, usual;
	int pair[2], theirs[3] = {-1, -1, -1}, e;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return fail(why, "socketpair: %s", strerror(errno));
	p->control = above(pair[0]);
	pair[1] = above(pair[1]);
	sigemptyset(&none);
	sigemptyset(&usual);
	sigaddset(&usual, SIGPIPE);
	sigaddset(&usual, SIGCHLD);
	posix_spawn_file_actions_init(&fa);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &usual);
	e = p->control < 0 || pair[1] < 0 ? EMFILE : 0;
	for (int i = 0; e == 0 && i < 3; i++) {
		e = add_stream(&fa, stdio, i, &p->stream[i], &theirs[i]);
	}
	if (e == 0)
		e = posix_spawn_file_actions_adddup2(&fa, pair[1], CONTROL_FD);
	if (e == 0 && program && *program)
		e = posix_spawn(&p->monitor, program, &fa, &attr, argv, environ);
	else if (e == 0 && access(PF_JAIL_PROGRAM, X_OK) == 0)
		e = posix_spawn(&p->monitor, PF_JAIL_PROGRAM, &fa, &attr, argv, environ);
	else if (e == 0)
		e = posix_spawnp(&p->monitor, "pinfold-jail", &fa, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	close_fd(&pair[1]);
	for (int i = 0; i < 3; i++)
		close_fd(&theirs[i]);
	if (e == 0)
		return 0;
	p->monitor = -1;
	return fail(why, "start pinfold-jail: %s (is it installed? PINFOLD_JAIL names it)", strerror(e));
}

static int wait_started(pinfold_process *p, const char *config_json, char *why)
{
	cJSON *m;
	int r = -1;

	if (send_text(p->control, config_json) < 0)
		return fail(why, "configuration: %s", strerror(errno));
	m = recv_message(p->control);
	if (!m)
		return fail(why,
			"pinfold-jail ended before the command was started (is the configuration JSON?)");
	if (cJSON_IsNumber(member(m, "started"))) {
		p->pid = (pid_t)member(m, "started")->valueint;
		r = 0;
	} else {
		const char *text = cJSON_GetStringValue(member(m, "error"));
		(void)fail(why, "%s", text ? text : "pinfold-jail said something else than expected");
	}
	cJSON_Delete(m);
	return r;
}

API const char *pinfold_version(void)
{
	return PF_VERSION;
}

API pinfold_process *pinfold_spawn(const char *config_json, const struct pinfold_stdio *stdio, char *why)
{
	pinfold_process *p = calloc(1, sizeof(*p));

	if (!p) {
		(void)fail(why, "out of memory");
		return NULL;
	}
	p->monitor = -1;
	p->control = p->stream[0] = p->stream[1] = p->stream[2] = -1;
	if (start(p, stdio, why) < 0 || wait_started(p, config_json, why) < 0) {
		pinfold_free(p);
		return NULL;
	}
	return p;
}

/* ---- while it runs ---- */

API int pinfold_stream_fd(const pinfold_process *p, int stream)
{
	return stream < 0 || stream > 2 ? -1 : p->stream[stream];
}

API void pinfold_close_stream(pinfold_process *p, int stream)
{
	if (stream >= 0 && stream <= 2)
		close_fd(&p->stream[stream]);
}

API pid_t pinfold_pid(const pinfold_process *p)
{
	return p->pid;
}

API int pinfold_poll_fd(const pinfold_process *p)
{
	return p->control;
}

/* Send a request and wait for its answer; the end of the command may come in between. done, if it is not
 * NULL, gets what the answer holds, as text. */
static int ask(pinfold_process *p, cJSON *request, char **done, char *why)
{
	cJSON *m;
	const char *text;

	if (p->result || send_message(p->control, request) < 0) {
		if (p->result)
			cJSON_Delete(request);
		return fail(why, "the command has ended");
	}
	m = recv_message(p->control);
	if (!m)
		return fail(why, "pinfold-jail is gone");
	if (member(m, "result")) {
		p->result = m;
		return fail(why, "the command has ended");
	}
	text = cJSON_GetStringValue(member(m, "error"));
	if (text)
		(void)fail(why, "%s", text);
	else if (done)
		*done = cJSON_PrintUnformatted(member(m, "done"));
	cJSON_Delete(m);
	return text ? -1 : 0;
}

API int pinfold_kill(pinfold_process *p, int sig, char *why)
{
	cJSON *m = cJSON_CreateObject();

	cJSON_AddStringToObject(m, "op", "kill");
	cJSON_AddNumberToObject(m, "signal", sig);
	return ask(p, m, NULL, why);
}

API int pinfold_policy_set(pinfold_process *p, const char *networking_json, char *why)
{
	cJSON *m = cJSON_CreateObject(), *n = cJSON_Parse(networking_json);

	if (!n) {
		cJSON_Delete(m);
		return fail(why, "the policy is no JSON");
	}
	cJSON_AddStringToObject(m, "op", "policy");
	cJSON_AddItemToObject(m, "networking", n);
	return ask(p, m, NULL, why);
}

API int pinfold_snapshot(pinfold_process *p, const char *name, char **json, char *why)
{
	cJSON *m = cJSON_CreateObject();

	cJSON_AddStringToObject(m, "op", "snapshot");
	cJSON_AddStringToObject(m, "name", name);
	return ask(p, m, json, why);
}

/* ---- the end ---- */

static int64_t number(const cJSON *o, const char *key, double factor)
{
	const cJSON *v = member(o, key);

	return cJSON_IsNumber(v) ? (int64_t)(v->valuedouble * factor) : -1;
}

API int pinfold_wait(pinfold_process *p, pinfold_result *result, char *why)
{
	cJSON *m = p->result ? p->result : recv_message(p->control);
	const cJSON *r;
	const char *text;

	p->result = NULL;
	memset(result, 0, sizeof(*result));
	if (p->monitor > 0)
		while (waitpid(p->monitor, NULL, 0) < 0 && errno == EINTR)
			;
	p->monitor = -1;
	if (!m)
		return fail(why, "pinfold-jail was killed, and the command with it");
	r = member(m, "result");
	if (!r) {
		text = cJSON_GetStringValue(member(m, "error"));
		(void)fail(why, "%s", text ? text : "pinfold-jail said something else than expected");
		cJSON_Delete(m);
		return -1;
	}
	result->exit_code = (int)number(r, "exit_code", 1);
	result->signal = member(r, "signal") ? (int)number(r, "signal", 1) : 0;
	text = cJSON_GetStringValue(member(r, "limit"));
	result->limit = text ? strdup(text) : NULL;
	result->wall_us = number(r, "wall_ms", 1000);
	result->cpu_us = number(r, "cpu_ms", 1000);
	result->memory_peak = number(r, "memory_peak", 1);
	result->json = cJSON_PrintUnformatted(r);
	cJSON_Delete(m);
	return 0;
}

API void pinfold_result_free(pinfold_result *result)
{
	if (!result)
		return;
	free(result->limit);
	free(result->json);
	memset(result, 0, sizeof(*result));
}

API void pinfold_free(pinfold_process *p)
{
	if (!p)
		return;
	/* Its other end ends the command, and then itself. */
	close_fd(&p->control);
	for (int i = 0; i < 3; i++)
		close_fd(&p->stream[i]);
	if (p->monitor > 0)
		while (waitpid(p->monitor, NULL, 0) < 0 && errno == EINTR)
			;
	cJSON_Delete(p->result);
	free(p);
}
