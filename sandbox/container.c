/* Theory of operation: a container's state.
 *
 * state.json is written twice by create (when the first process exists, so that a create that is killed then
 * can be tidied up; and when it is ready) and never again. How the container is now is looked up each time:
 * a pid with the start time it had is alive, and it has not started its program yet as long as somebody has
 * the `start` FIFO open for reading. So no crash of ours can leave a status that is not so. */
#include "sandbox/container.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/sys.h"
#include "sandbox/child.h"
#include "sandbox/hooks.h"
#include "sandbox/systemd.h"

#define MAX_STATE ((size_t)4 << 20)
#define MAX_CONFIG ((size_t)8 << 20)

static const char *const names[] = {"creating", "created", "running", "paused", "stopped"};

const char *pf_container_status_name(enum pf_container_status status)
{
	return names[status];
}

void pf_container_done(struct pf_container *c)
{
	free(c->id);
	free(c->bundle);
	free(c->rootfs);
	free(c->created);
	free(c->cgroup);
	free(c->unit);
	cJSON_Delete(c->annotations);
	*c = (struct pf_container){0};
}

cJSON *pf_container_json(const struct pf_container *c, const char *status, pid_t pid)
{
	cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "ociVersion", PF_OCI_VERSION);
	cJSON_AddStringToObject(j, "id", c->id);
	if (pid >= 0)
		pf_json_add_int(j, "pid", pid);
	cJSON_AddStringToObject(j, "status", status ? status : names[c->status]);
	cJSON_AddStringToObject(j, "bundle", c->bundle);
	if (c->rootfs)
		cJSON_AddStringToObject(j, "rootfs", c->rootfs);
	if (c->created)
		cJSON_AddStringToObject(j, "created", c->created);
	if (c->annotations)
		cJSON_AddItemToObject(j, "annotations", cJSON_Duplicate(c->annotations, true));
	return j;
}

int pf_container_save(int dir, const struct pf_container *c, struct pf_err *err)
{
	PF_JSON cJSON *j = pf_container_json(c, NULL, c->pid);
	cJSON *p = cJSON_AddObjectToObject(j, "pinfold");

	cJSON_AddStringToObject(p, "kind", "oci");
	pf_json_add_int(p, "pid_start", (int64_t)c->pid_start);
	if (c->cgroup)
		cJSON_AddStringToObject(p, "cgroup", c->cgroup);
	if (c->unit)
		cJSON_AddStringToObject(p, "systemd_unit", c->unit);
	pf_json_add_int(p, "root_dev", (int64_t)c->root_dev);
	cJSON_AddBoolToObject(p, "ready", c->ready);
	cJSON_AddBoolToObject(p, "own_user", c->own_user);
	cJSON_AddBoolToObject(p, "own_pid", c->own_pid);
	cJSON_AddBoolToObject(p, "own_time", c->own_time);
	cJSON_AddBoolToObject(p, "no_new_keyring", c->no_new_keyring);
	PF_FREE char *text = pf_json_text(j);
	return pf_replace_file_at(dir, "state.json", text, strlen(text), 0600, false, err);
}

static cJSON *read_state(int dir, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	size_t len;

	if (pf_read_file_at(dir, "state.json", MAX_STATE, &text, &len, err) < 0)
		return NULL;
	return pf_json_parse("state.json", text, len, err);
}

bool pf_container_is(int dir)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_JSON cJSON *j = read_state(dir, &ignored);
	const cJSON *p = cJSON_GetObjectItemCaseSensitive(j, "pinfold");
	const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(p, "kind"));

	/* A create that was killed before it had a state has made the FIFOs. */
	return j ? kind && strcmp(kind, "oci") == 0 : faccessat(dir, "start", F_OK, 0) == 0;
}

/* ---- how it is ---- */

static bool is_frozen(const struct pf_container *c)
{
	PF_CGROUP struct pf_cgroup *cg = NULL;
	struct pf_err ignored = PF_ERR_INIT;

	return pf_container_cgroup(c, &cg, &ignored) == 0 && pf_cgroup_is_frozen(cg, &ignored) == 1;
}

/* Whether its process still waits for start: it has the FIFO open, so that one can be had for writing. */
static bool waits_for_start(int dir)
{
	PF_CLOSE int fd = openat(dir, "start", O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);

	return fd >= 0;
}

static enum pf_container_status look(int dir, const struct pf_container *c)
{
	PF_CLOSE int pidfd = c->pid > 0 ? pf_pidfd_open_checked(c->pid, c->pid_start) : -1;

	if (pidfd < 0)
		return PF_CONTAINER_STOPPED;
	if (!c->ready)
		return PF_CONTAINER_CREATING;
	if (is_frozen(c))
		return PF_CONTAINER_PAUSED; /* one that waits for start, too: it could not */
	return waits_for_start(dir) ? PF_CONTAINER_CREATED : PF_CONTAINER_RUNNING;
}

static char *dup_str(const cJSON *j, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
	return s ? pf_strdup(s) : NULL;
}

static int64_t get_int(const cJSON *j, const char *key)
{
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(j, key);
	return cJSON_IsNumber(n) ? (int64_t)n->valuedouble : 0;
}

static bool get_bool(const cJSON *j, const char *key)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(j, key));
}

int pf_container_load(int dir, const char *id, struct pf_container *c, struct pf_err *err)
{
	PF_JSON cJSON *j = read_state(dir, err);
	const cJSON *p = cJSON_GetObjectItemCaseSensitive(j, "pinfold"),
		    *a = cJSON_GetObjectItemCaseSensitive(j, "annotations");

	*c = (struct pf_container){0};
	if (!j)
		return err->kind == PF_ERR_NOT_FOUND
			       ? pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "container %s does not exist", id)
			       : pf_wrap(err, "container %s", id);
	c->id = pf_strdup(id);
	c->bundle = dup_str(j, "bundle");
	c->rootfs = dup_str(j, "rootfs");
	c->created = dup_str(j, "created");
	c->pid = (pid_t)get_int(j, "pid");
	c->pid_start = (uint64_t)get_int(p, "pid_start");
	c->root_dev = (dev_t)get_int(p, "root_dev");
	c->cgroup = dup_str(p, "cgroup");
	c->unit = dup_str(p, "systemd_unit");
	c->ready = get_bool(p, "ready");
	c->own_user = get_bool(p, "own_user");
	c->own_pid = get_bool(p, "own_pid");
	c->own_time = get_bool(p, "own_time");
	c->no_new_keyring = get_bool(p, "no_new_keyring");
	c->annotations = a ? cJSON_Duplicate(a, true) : NULL;
	if (!c->bundle) {
		pf_container_done(c);
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "container %s: its state.json is damaged", id);
	}
	c->status = look(dir, c);
	if (c->status == PF_CONTAINER_STOPPED)
		c->pid = 0;
	return 0;
}

int pf_container_spec(int dir, struct pf_spec *spec, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	cJSON *j;
	size_t len;

	if (pf_read_file_at(dir, "config.json", MAX_CONFIG, &text, &len, err) < 0)
		return -1;
	j = pf_json_parse("config.json", text, len, err);
	return j ? pf_spec_parse(j, spec, err) : -1;
}

int pf_container_cgroup(const struct pf_container *c, struct pf_cgroup **cg, struct pf_err *err)
{
	struct pf_cgroup_host host;

	if (!c->cgroup)
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "container %s has no cgroup", c->id);
	if (pf_cgroup_probe(&host, err) < 0)
		return -1;
	return pf_cgroup_open(&host, c->cgroup, cg, err);
}

char *pf_container_keyring(const struct pf_container *c)
{
	return c->no_new_keyring ? NULL : pf_asprintf("_ses.%s", c->id);
}

int pf_container_pid_file(const char *path, pid_t pid, struct pf_err *err)
{
	PF_FREE char *dir = pf_strdup(path);
	char *slash = strrchr(dir, '/'), text[16];
	PF_CLOSE int fd = -1;

	if (slash)
		*slash = '\0';
	fd = open(!slash ? "." : *dir ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return pf_fail(err, errno, "pid file %s", path);
	snprintf(text, sizeof(text), "%d", (int)pid);
	if (pf_replace_file_at(fd, slash ? slash + 1 : path, text, strlen(text), 0644, false, err) < 0)
		return pf_wrap(err, "pid file %s", path);
	return 0;
}

/* ---- start ---- */

/* The end of the started process's story about itself: a note that it is about to exec, then nothing; or an
 * error. */
static int read_result(int fd, struct pf_err *err)
{
	char buf[sizeof(struct pf_child_note) + sizeof(struct pf_err)];
	ssize_t n = pf_read_full(fd, buf, sizeof(buf));
	size_t len = n < 0 ? 0 : (size_t)n;

	if (len == sizeof(struct pf_child_note))
		return 0;
	if (len >= sizeof(*err)) {
		memcpy(err, buf + (len - sizeof(*err)), sizeof(*err));
		err->msg[sizeof(err->msg) - 1] = '\0';
		return -1;
	}
	return pf_fail(
		err, n < 0 ? errno : 0, "the container's process ended before it could start its program");
}

static int release(int dir, struct pf_err *err)
{
	PF_CLOSE int result = openat(dir, "result", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	PF_CLOSE int start = openat(dir, "start", O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);

	if (result < 0 || start < 0)
		return pf_fail(err, errno == ENXIO ? 0 : errno, "the container's process is gone");
	if (fcntl(result, F_SETFL, 0) < 0 || write(start, "s", 1) != 1)
		return pf_fail(err, errno, "start the container's process");
	return read_result(result, err);
}

static void kill_all(const struct pf_container *c)
{
	PF_CGROUP struct pf_cgroup *cg = NULL;
	struct pf_err ignored = PF_ERR_INIT;

	if (pf_container_cgroup(c, &cg, &ignored) == 0)
		(void)pf_cgroup_kill(cg, &ignored);
}

int pf_container_start(int dir, struct pf_container *c, struct pf_err *err)
{
	struct pf_spec spec;
	int r = 0;

	if (c->status != PF_CONTAINER_CREATED)
		return pf_fail_kind(
			err, PF_ERR_STATE, 0, "cannot start container %s: it is %s", c->id, names[c->status]);
	if (release(dir, err) < 0)
		return -1;
	(void)unlinkat(dir, "start", 0);
	(void)unlinkat(dir, "result", 0);
	c->status = PF_CONTAINER_RUNNING;
	/* Hooks are rare, and parsing the configuration again takes longer than all the rest of start. */
	if (faccessat(dir, "hooks", F_OK, 0) < 0)
		return 0;
	if (pf_container_spec(dir, &spec, err) < 0)
		return -1;
	PF_JSON cJSON *j = pf_container_json(c, "running", c->pid);
	PF_FREE char *state = pf_json_text(j);
	r = pf_hooks_run(&spec.hooks[PF_HOOK_POSTSTART], PF_HOOK_POSTSTART, NULL, state, -1, err);
	if (r < 0)
		kill_all(c);
	pf_spec_done(&spec);
	return r;
}

/* ---- kill, freeze ---- */

static int signal_all(const struct pf_container *c, int sig, struct pf_err *err)
{
	PF_CGROUP struct pf_cgroup *cg = NULL;
	PF_FREE pid_t *pids = NULL;
	struct pf_err e = PF_ERR_INIT;
	size_t n = 0;

	if (pf_container_cgroup(c, &cg, &e) < 0)
		/* Nothing of a stopped container may be left: then everybody has been signalled. */
		return e.kind == PF_ERR_NOT_FOUND ? 0 : (*err = e, -1);
	if (sig == SIGKILL)
		return pf_cgroup_kill(cg, err);
	if (pf_cgroup_pids(cg, &pids, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		PF_CLOSE int fd = pidfd_open(pids[i], 0);
		if (fd >= 0 && pidfd_send_signal(fd, sig, NULL, 0) < 0 && errno != ESRCH)
			return pf_fail(err, errno, "signal process %d", (int)pids[i]);
	}
	return 0;
}

int pf_container_kill(const struct pf_container *c, int sig, bool all, struct pf_err *err)
{
	if (all)
		return signal_all(c, sig, err);
	if (c->status == PF_CONTAINER_STOPPED)
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"container not running (os: process already finished): container %s has stopped",
			c->id);
	/* In the host's pid namespace the others do not end with the first. */
	if (sig == SIGKILL && !c->own_pid)
		return signal_all(c, sig, err);
	PF_CLOSE int fd = pf_pidfd_open_checked(c->pid, c->pid_start);
	if (fd < 0 || pidfd_send_signal(fd, sig, NULL, 0) < 0) {
		if (errno == ESRCH)
			return pf_fail_kind(err, PF_ERR_STATE, 0,
				"container not running (os: process already finished): container %s has "
				"stopped",
				c->id);
		return pf_fail(err, errno, "signal the process of container %s", c->id);
	}
	return 0;
}

int pf_container_freeze(const struct pf_container *c, bool freeze, struct pf_err *err)
{
	PF_CGROUP struct pf_cgroup *cg = NULL;
	bool possible = freeze ? c->status == PF_CONTAINER_RUNNING || c->status == PF_CONTAINER_CREATED
			       : c->status == PF_CONTAINER_PAUSED;

	if (!possible)
		return pf_fail_kind(err, PF_ERR_STATE, 0, "container %s is %s, not %s", c->id,
			names[c->status], freeze ? "running" : "paused");
	return pf_container_cgroup(c, &cg, err) < 0 ? -1 : pf_cgroup_freeze(cg, freeze, 10000, err);
}

/* ---- delete ---- */

static int remove_cgroup(const struct pf_container *c, struct pf_err *err)
{
	struct pf_cgroup_host host;
	PF_CGROUP struct pf_cgroup *cg = NULL;
	struct pf_err e = PF_ERR_INIT;

	if (!c->cgroup)
		return 0;
	if (pf_cgroup_probe(&host, err) < 0)
		return -1;
	if (pf_cgroup_open(&host, c->cgroup, &cg, &e) < 0) {
		if (e.kind == PF_ERR_NOT_FOUND)
			return 0;
		*err = e;
		return -1;
	}
	if (pf_cgroup_is_empty(cg, &e) != 1 && pf_cgroup_kill(cg, err) < 0)
		return -1;
	if (pf_cgroup_remove(cg, 10000, err) < 0)
		return -1;
	if (pf_starts_with(c->cgroup, PF_CONTAINER_CGROUP "/"))
		pf_cgroup_prune(&host, PF_CONTAINER_CGROUP);
	return 0;
}

/* Each of them, whatever becomes of the others. */
static void run_poststop(int dir, const struct pf_container *c, struct pf_buf *warnings)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_spec spec;

	if (faccessat(dir, "hooks", F_OK, 0) < 0)
		return;
	if (pf_container_spec(dir, &spec, &err) < 0) {
		pf_buf_printf(warnings, "poststop hooks: %s\n", err.msg);
		return;
	}
	PF_JSON cJSON *j = pf_container_json(c, "stopped", 0);
	PF_FREE char *state = pf_json_text(j);
	for (size_t i = 0; i < spec.hooks[PF_HOOK_POSTSTOP].n; i++) {
		const struct pf_hooks one = {.hook = &spec.hooks[PF_HOOK_POSTSTOP].hook[i], .n = 1};
		if (pf_hooks_run(&one, PF_HOOK_POSTSTOP, NULL, state, -1, &err) < 0)
			pf_buf_printf(warnings, "%s\n", err.msg);
	}
	pf_spec_done(&spec);
}

int pf_container_delete(
	int dir, struct pf_container *c, bool force, struct pf_buf *warnings, struct pf_err *err)
{
	if (!force && (c->status == PF_CONTAINER_RUNNING || c->status == PF_CONTAINER_PAUSED))
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"cannot delete container %s that is not stopped: %s (remedy: kill it, or delete "
			"--force)",
			c->id, names[c->status]);
	if (c->status != PF_CONTAINER_STOPPED) {
		PF_CLOSE int pidfd = pf_pidfd_open_checked(c->pid, c->pid_start);
		/* Its own first: in a cgroup that somebody moved it out of, the cgroup's kill would miss it.
		 */
		if (pidfd >= 0)
			(void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
		kill_all(c);
		if (pidfd >= 0 && pf_pidfd_wait(pidfd, 10000) != 1)
			return pf_fail_kind(
				err, PF_ERR_STATE, 0, "the process of container %s does not die", c->id);
	}
	/* Before its cgroup goes: what systemd has not seen ending it would remember for ever. But no
	 * container stays because systemd does not answer. */
	struct pf_err e = PF_ERR_INIT;
	if (c->unit && pf_systemd_stop(c->unit, &e) < 0)
		pf_buf_printf(warnings, "%s\n", e.msg);
	if (remove_cgroup(c, err) < 0)
		return pf_wrap(err, "container %s", c->id);
	run_poststop(dir, c, warnings);
	return 0;
}
