#include "session/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"

static const char *const names[] = {"creating", "running", "paused", "stopped"};

const char *pf_status_name(enum pf_status status)
{
	return names[status];
}

char *pf_time_now(char *buf)
{
	struct timespec ts;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	size_t n = strftime(buf, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + n, 32 - n, ".%03ldZ", ts.tv_nsec / 1000000);
	return buf;
}

static void add_str(cJSON *j, const char *key, const char *value)
{
	if (value)
		cJSON_AddStringToObject(j, key, value);
}

static void add_strv(cJSON *j, const char *key, char *const *v)
{
	cJSON *a = cJSON_AddArrayToObject(j, key);
	for (; v && *v; v++)
		cJSON_AddItemToArray(a, cJSON_CreateString(*v));
}

cJSON *pf_state_json(const struct pf_state *s)
{
	cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "ociVersion", "1.2.0");
	cJSON_AddStringToObject(j, "id", s->id);
	cJSON_AddStringToObject(j, "status", pf_status_name(s->status));
	if (s->pid > 0)
		pf_json_add_int(j, "pid", s->pid);
	add_str(j, "bundle", s->bundle);
	add_str(j, "created", s->created);
	cJSON *p = cJSON_AddObjectToObject(j, "pinfold");
	add_str(p, "image", s->image);
	add_str(p, "image_digest", s->image_digest);
	add_str(p, "checkpoint", s->checkpoint);
	add_str(p, "cgroup", s->cgroup);
	pf_json_add_int(p, "pid_start", (int64_t)s->pid_start);
	pf_json_add_int(p, "keeper", s->keeper);
	pf_json_add_int(p, "keeper_start", (int64_t)s->keeper_start);
	pf_json_add_int(p, "id_base", s->id_base);
	if (s->stop_reason) {
		add_str(p, "stop_reason", s->stop_reason);
		pf_json_add_int(p, "exit_code", s->exit_code);
	}
	if (s->warnings && s->warnings[0])
		add_strv(p, "warnings", s->warnings);
	return j;
}

int pf_state_save(const struct pf_dirs *d, const struct pf_state *s, struct pf_err *err)
{
	/* Not made anew: a directory that is gone belongs to a sandbox that was destroyed. */
	PF_CLOSE int dir = pf_dirs_run(d, s->id, false, err);
	PF_JSON cJSON *j = pf_state_json(s);
	cJSON *p = cJSON_GetObjectItemCaseSensitive(j, "pinfold");

	if (dir < 0)
		return -1;
	cJSON *x = cJSON_AddObjectToObject(p, "exec");
	add_strv(x, "env", s->env);
	add_str(x, "cwd", s->cwd);
	add_str(x, "user", s->user);
	pf_json_add_int(x, "timeout_ms", s->exec_timeout_ms);
	PF_FREE char *text = pf_json_text(j);
	return pf_replace_file_at(dir, "state.json", text, strlen(text), 0600, false, err);
}

static char *dup_str(const cJSON *j, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
	return s ? pf_strdup(s) : NULL;
}

static int64_t get_int(const cJSON *j, const char *key, int64_t otherwise)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(j, key);
	return cJSON_IsNumber(n) ? (int64_t)n->valuedouble : otherwise;
}

/* What others than the keeper have to tell stands in files of its own, so that state.json has one writer at a
 * time: `paused` beside it, and the digest of the newest checkpoint in the sandbox's directory. */
static void read_marks(const struct pf_dirs *d, int dir, struct pf_state *s)
{
	PF_FREE char *path = pf_asprintf("%s/sandboxes/%s/checkpoint", d->store, s->id);
	struct pf_err ignored = PF_ERR_INIT;
	char *digest = NULL;

	if (s->status == PF_STATUS_RUNNING && faccessat(dir, "paused", F_OK, 0) == 0)
		s->status = PF_STATUS_PAUSED;
	if (pf_read_file_at(AT_FDCWD, path, 128, &digest, NULL, &ignored) == 0) {
		free(s->checkpoint);
		s->checkpoint = digest;
	}
}

int pf_state_mark_paused(const struct pf_dirs *d, const char *id, bool paused, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_run(d, id, false, err);

	if (dir < 0)
		return -1;
	if (paused)
		return pf_replace_file_at(dir, "paused", "", 0, 0600, false, err);
	if (unlinkat(dir, "paused", 0) < 0 && errno != ENOENT)
		return pf_fail(err, errno, "state of '%s'", id);
	return 0;
}

int pf_state_mark_checkpoint(const struct pf_dirs *d, const char *id, const char *digest, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_sandbox(d, id, false, err);

	return dir < 0 ? -1 : pf_replace_file_at(dir, "checkpoint", digest, strlen(digest), 0600, false, err);
}

/* A state that says "running" is a claim about a process; look at the process. */
static int check_alive(struct pf_state *s, struct pf_err *err)
{
	if (s->status != PF_STATUS_RUNNING && s->status != PF_STATUS_PAUSED)
		return 0;
	PF_CLOSE int fd = pf_pidfd_open_checked(s->pid, s->pid_start);
	if (fd >= 0)
		return 0;
	/* Not to have been able to look is no news of its death. */
	if (errno != ESRCH)
		return pf_fail(err, errno, "look at process %d of sandbox '%s'", (int)s->pid, s->id);
	s->status = PF_STATUS_STOPPED;
	if (!s->stop_reason)
		s->stop_reason = pf_strdup("lost");
	return 0;
}

int pf_state_load(const struct pf_dirs *d, const char *id, struct pf_state *s, struct pf_err *err)
{
	PF_CLOSE int dir = -1;
	PF_FREE char *text = NULL;
	PF_JSON cJSON *j = NULL;
	size_t len;

	*s = (struct pf_state){.exit_code = -1, .exec_timeout_ms = -1};
	if (pf_check_id("sandbox id", id, err) < 0)
		return -1;
	dir = pf_dirs_run(d, id, false, err);
	if (dir < 0)
		return -1;
	if (pf_read_file_at(dir, "state.json", (size_t)4 << 20, &text, &len, err) < 0) {
		if (err->kind == PF_ERR_NOT_FOUND)
			return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "no sandbox '%s'", id);
		return -1;
	}
	j = pf_json_parse("state.json", text, len, err);
	if (!j)
		return pf_wrap(err, "sandbox '%s'", id);
	const cJSON *p = cJSON_GetObjectItemCaseSensitive(j, "pinfold");
	const cJSON *x = cJSON_GetObjectItemCaseSensitive(p, "exec");
	if (cJSON_GetObjectItemCaseSensitive(p, "kind"))
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"'%s' is an OCI container, not a session (see kill, delete, update, ps)", id);
	const char *status = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "status"));
	s->status = PF_STATUS_STOPPED;
	for (size_t i = 0; status && i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(status, names[i]) == 0)
			s->status = (enum pf_status)i;
	s->id = pf_strdup(id);
	s->created = dup_str(j, "created");
	s->bundle = dup_str(j, "bundle");
	s->pid = (pid_t)get_int(j, "pid", 0);
	s->pid_start = (uint64_t)get_int(p, "pid_start", 0);
	s->keeper = (pid_t)get_int(p, "keeper", 0);
	s->keeper_start = (uint64_t)get_int(p, "keeper_start", 0);
	s->id_base = (uint32_t)get_int(p, "id_base", 0);
	s->cgroup = dup_str(p, "cgroup");
	s->image = dup_str(p, "image");
	s->image_digest = dup_str(p, "image_digest");
	s->checkpoint = dup_str(p, "checkpoint");
	s->stop_reason = dup_str(p, "stop_reason");
	s->exit_code = (int)get_int(p, "exit_code", -1);
	s->cwd = dup_str(x, "cwd");
	s->user = dup_str(x, "user");
	s->exec_timeout_ms = get_int(x, "timeout_ms", -1);
	if (pf_json_strv(x, "exec", "env", &s->env, err) < 0 ||
		pf_json_strv(p, "", "warnings", &s->warnings, err) < 0) {
		pf_state_done(s);
		return -1;
	}
	read_marks(d, dir, s);
	if (check_alive(s, err) < 0) {
		pf_state_done(s);
		return -1;
	}
	return 0;
}

void pf_state_done(struct pf_state *s)
{
	free(s->id);
	free(s->created);
	free(s->cgroup);
	free(s->image);
	free(s->image_digest);
	free(s->checkpoint);
	free(s->bundle);
	pf_strv_free(s->env);
	free(s->cwd);
	free(s->user);
	free(s->stop_reason);
	pf_strv_free(s->warnings);
	*s = (struct pf_state){0};
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int pf_state_ids(const struct pf_dirs *d, char ***ids, struct pf_err *err)
{
	PF_CLOSEDIR DIR *dir = opendir(d->root);
	size_t n = 0, cap = 16;
	struct dirent *e;

	*ids = pf_calloc(cap, sizeof(**ids));
	if (!dir)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "%s", d->root);
	while ((e = readdir(dir))) {
		if (e->d_name[0] == '.' || e->d_type != DT_DIR)
			continue;
		if (n + 2 > cap) {
			char **more = realloc(*ids, 2 * cap * sizeof(**ids));
			if (!more)
				return pf_fail(err, ENOMEM, "list of sandboxes");
			*ids = more;
			cap *= 2;
		}
		(*ids)[n++] = pf_strdup(e->d_name);
		(*ids)[n] = NULL;
	}
	qsort(*ids, n, sizeof(**ids), by_name);
	return 0;
}
