/* Theory of operation: inputs.
 *
 * The platform brings no files into self-hosted sandboxes; who creates a session names what it needs, and the
 * administrator's directory has it. A name is one word, so nothing beside what lies in that directory can be
 * meant. What is copied goes through a pipe, from the host's tar to the sandbox's, into a place of its own
 * first: an input is there as a whole or not at all. Links in it are copied as links. */

#include "worker/inputs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "worker/log.h"

#define INPUTS_MAX 50
#define TAR_END_MS 10000

static const char missing[] = "for n; do [ -e \"inputs/$n\" ] || echo \"$n\"; done";
static const char unpack[] =
	"set -e; mkdir -p inputs; w=$(mktemp -d inputs/.stage-XXXXXX); trap 'rm -rf \"$w\"' EXIT\n"
	"tar -xf - -C \"$w\" --no-same-owner\n"
	"mv -- \"$w/$1\" \"inputs/$1\"";

static int start_tar(const char *dir, const char *name, pid_t *pid)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return -1;
	*pid = fork();
	if (*pid == 0) {
		sigset_t none;
		sigemptyset(&none);
		(void)sigprocmask(SIG_SETMASK, &none, NULL);
		if (dup2(p[1], STDOUT_FILENO) == STDOUT_FILENO)
			execlp("tar", "tar", "-C", dir, "-cf", "-", "--", name, (char *)NULL);
		_exit(127);
	}
	int e = errno;
	close(p[1]);
	if (*pid < 0) {
		close(p[0]);
		errno = e;
		return -1;
	}
	return p[0];
}

static int bring(
	const struct pf_box_opts *o, const char *id, const char *dir, const char *name, struct pf_err *err)
{
	const char *words[] = {
		"exec", id, "--timeout", "1h", "--", "/bin/sh", "-c", unpack, "inputs", name, NULL};
	PF_FREE char *path = pf_asprintf("%s/%s", dir, name);
	int status = 0;
	pid_t pid;

	if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return pf_fail(err, errno, "input %s", path);
	int in = start_tar(dir, name, &pid);
	if (in < 0)
		return pf_fail(err, errno, "start tar");
	int r = pf_box_pipe(o, words, in, NULL, err);
	close(in);
	/* What was left in the background inside may hold the pipe's other end, and tar waits for room. */
	PF_CLOSE int pidfd = pidfd_open(pid, 0);
	if (pidfd < 0 || pf_pidfd_wait(pidfd, TAR_END_MS) != 1)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r < 0)
		return pf_wrap(err, "input %s", name);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return pf_fail(err, 0, "input %s: tar could not read all of %s", name, path);
	pf_wlog("info", "input %s", name);
	return 0;
}

int pf_inputs_stage(const struct pf_box_opts *o, const char *id, const char *dir, const cJSON *session,
	struct pf_err *err)
{
	const char *list = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(session, "metadata"), "inputs"));
	const char *words[INPUTS_MAX + 10] = {
		"exec", id, "--timeout", "60s", "--", "/bin/sh", "-c", missing, "inputs"};
	PF_FREE char *copy = pf_strdup(list ? list : ""), *out = NULL;
	char *save = NULL;
	size_t n = 9;

	for (char *w = strtok_r(copy, ", \t\n", &save); w; w = strtok_r(NULL, ", \t\n", &save)) {
		if (pf_check_id("input", w, err) < 0)
			return -1;
		if (n == INPUTS_MAX + 9)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "a session may have %d inputs", INPUTS_MAX);
		words[n++] = w;
	}
	if (n == 9)
		return 0;
	if (!dir)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"the session asks for inputs, and there is no directory of them: --inputs");
	if (pf_box_run(o, words, NULL, &out, err) < 0)
		return -1;
	for (char *w = strtok_r(out, "\n", &save); w; w = strtok_r(NULL, "\n", &save)) {
		/* Said from inside: only what was asked for, and once. */
		bool asked = false;
		for (size_t i = 9; i < n;)
			if (strcmp(words[i], w) == 0) {
				asked = true;
				words[i] = words[--n];
			} else {
				i++;
			}
		if (asked && bring(o, id, dir, w, err) < 0)
			return -1;
	}
	return 0;
}
