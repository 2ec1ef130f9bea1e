/* Theory of operation: the end of a session.
 *
 * cgroup.kill takes every process of the box at once; the keeper sees its process 1 go, cleans up what it
 * holds and ends; we wait for that by pidfd. Whatever a dead keeper could not clean up is done here: destroy
 * works from whatever is left, in any combination, and says what it could not remove. The workspace is only
 * renamed; a child in the background unlinks it.
 *
 * Taking an overlay down costs what it held: the kernel drops every inode and writes out the file system
 * below. Whoever lets go of it last waits for that, and without more that would be the dying process 1, for
 * which everybody else here waits. So its root is kept open over the end of the box and let go by that child.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "overlay/workspace.h"
#include "sandbox/cgroup.h"
#include "sandbox/container.h"
#include "sandbox/idrange.h"
#include "session/audit.h"
#include "session/control.h"
#include "session/session.h"

int pf_session_end_processes(const struct pf_state *s, struct pf_err *err)
{
	struct pf_cgroup_host host;
	PF_CGROUP struct pf_cgroup *cg = NULL;
	struct pf_err e = PF_ERR_INIT;
	PF_CLOSE int keeper = s->keeper > 0 ? pf_pidfd_open_checked(s->keeper, s->keeper_start) : -1;
	bool has_cgroup;

	if (pf_cgroup_probe(&host, err) < 0)
		return -1;
	has_cgroup = s->cgroup && pf_cgroup_open(&host, s->cgroup, &cg, &e) == 0;
	if (has_cgroup && pf_cgroup_kill(cg, err) < 0)
		return pf_wrap(err, "kill the processes of '%s'", s->id);
	if (keeper >= 0) {
		/* Normally it is done in a millisecond. One that is not is ended: nothing depends on it any
		 * more. */
		if (pf_pidfd_wait(keeper, 15000) != 1) {
			(void)pidfd_send_signal(keeper, SIGKILL, NULL, 0);
			(void)pf_pidfd_wait(keeper, 5000);
		}
	}
	if (has_cgroup && pf_cgroup_remove(cg, 5000, err) < 0)
		return pf_wrap(err, "sandbox '%s'", s->id);
	pf_cgroup_prune(&host, PF_SESSION_CGROUP);
	return 0;
}

/* The root of the box, or -1. Not of one with a file system of its own: that one is to be unmounted, and its
 * loop device free, when destroy returns. */
static int hold_root(const struct pf_dirs *d, const struct pf_state *s)
{
	PF_FREE char *image = pf_asprintf("%s/sandboxes/%s/workspace.img", d->store, s->id);
	PF_CLOSE int init = s->pid > 0 ? pf_pidfd_open_checked(s->pid, s->pid_start) : -1;
	char path[64];

	if (init < 0 || access(image, F_OK) == 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/root", (int)s->pid);
	PF_CLOSE int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return root >= 0 && !pf_pidfd_ended(init) ? pf_take_fd(&root) : -1;
}

/* Let go of the root and unlink the trash in a process of its own, so that the caller is not kept waiting. */
static void empty_trash_in_background(const struct pf_dirs *d, int *root)
{
	int ours[2] = {-1, -1};
	char byte;

	if (*root >= 0 && pipe2(ours, O_CLOEXEC) < 0)
		return;
	pid_t pid = fork();
	if (pid != 0) {
		if (*root >= 0) {
			close(pf_take_fd(root));
			close(ours[1]);
			close(ours[0]);
		}
		return;
	}
	struct pf_err ignored = PF_ERR_INIT;
	if (*root >= 0) {
		/* The end of the pipe: the parent's copy is gone, ours is the last. */
		close(ours[1]);
		(void)!read(ours[0], &byte, 1);
	}
	(void)setsid();
	int null = open("/dev/null", O_RDWR);
	for (int i = 0; null >= 0 && i < 3; i++)
		(void)dup2(null, i);
	close_range(3, ~0U, 0);
	(void)setpriority(PRIO_PROCESS, 0, 10);
	(void)pf_dirs_empty_trash(d, &ignored);
	_exit(0);
}

static int remove_files(const struct pf_dirs *d, const char *id, int *box_root, struct pf_err *err)
{
	PF_CLOSE int root = pf_dirs_open(d->root, "", err);
	PF_FREE char *path = pf_asprintf("%s/sandboxes/%s", d->store, id);
	struct stat st;

	if (root < 0)
		return -1;
	if (lstat(path, &st) == 0) {
		if (pf_dirs_trash(d, id, err) < 0)
			return -1;
		empty_trash_in_background(d, box_root);
	}
	return pf_rm_rf_at(root, id, err);
}

int pf_session_destroy(const struct pf_dirs *d, const char *id, bool *found, struct pf_err *err)
{
	struct pf_state s;
	struct pf_err e = PF_ERR_INIT;
	PF_CLOSE int lock = -1, box_root = -1;

	*found = true;
	if (pf_check_id("sandbox id", id, err) < 0)
		return -1;
	lock = pf_dirs_lock(d, id, true, err);
	if (lock < 0)
		return -1;
	if (pf_state_load(d, id, &s, &e) < 0) {
		if (e.kind != PF_ERR_NOT_FOUND) {
			*err = e;
			return -1;
		}
		/* No state, but pieces may be there: of a create that was killed, or from before a reboot. */
		s = (struct pf_state){.id = pf_strdup(id), .cgroup = pf_session_cgroup(id)};
		PF_FREE char *path = pf_asprintf("%s/sandboxes/%s", d->store, id);
		*found = access(path, F_OK) == 0;
	}
	box_root = hold_root(d, &s);
	int r = pf_session_end_processes(&s, err);
	if (r == 0)
		r = remove_files(d, id, &box_root, err);
	if (r == 0) {
		PF_CLOSE int log = *found ? pf_audit_open(d, id, &e) : -1;
		pf_session_release_ids(d, id, s.id_base);
		if (log >= 0)
			(void)pf_audit_write(log, "destroy", NULL, &e);
		pf_dirs_unlock_remove(d, id, &lock);
	}
	pf_state_done(&s);
	return r;
}

int pf_session_pause(const struct pf_dirs *d, const char *id, bool pause, struct pf_err *err)
{
	struct pf_state s;
	struct pf_cgroup_host host;
	PF_CGROUP struct pf_cgroup *cg = NULL;
	int r = -1;

	if (pf_state_load(d, id, &s, err) < 0)
		return -1;
	if (s.status == PF_STATUS_STOPPED || s.status == PF_STATUS_CREATING)
		pf_fail_kind(err, PF_ERR_STATE, 0, "sandbox '%s' is %s", id, pf_status_name(s.status));
	else if (pf_cgroup_probe(&host, err) == 0 && pf_cgroup_open(&host, s.cgroup, &cg, err) == 0 &&
		 pf_cgroup_freeze(cg, pause, 10000, err) == 0)
		r = pf_state_mark_paused(d, id, pause, err);
	if (r < 0 && pause && cg) {
		struct pf_err ignored = PF_ERR_INIT;
		(void)pf_cgroup_freeze(cg, false, 1000, &ignored);
	}
	pf_state_done(&s);
	return r;
}

/* ---- gc
 * ------------------------------------------------------------------------------------------------------- */

void pf_session_release_ids(const struct pf_dirs *d, const char *id, uint32_t base)
{
	PF_FREE char *owner = pf_asprintf("%s/%s", d->root, id);

	if (base)
		pf_idrange_release(owner, base);
}

/* Whether the sandbox with this runtime directory may still have processes. */
static bool owner_lives(const char *owner, void *arg)
{
	const struct pf_dirs *d = arg;
	struct pf_err ignored = PF_ERR_INIT;
	const char *id = strrchr(owner, '/');
	struct pf_state s;

	/* Below another --root: alive as long as its directory is there. */
	if (!id || strlen(d->root) != (size_t)(id - owner) || !pf_starts_with(owner, d->root))
		return access(owner, F_OK) == 0;
	id++;
	if (pf_state_load(d, id, &s, &ignored) < 0) {
		/* None yet: somebody who is making it holds its lock. */
		PF_CLOSE int lock = pf_dirs_lock(d, id, false, &ignored);
		return lock < 0;
	}
	bool lives = s.status != PF_STATUS_STOPPED;
	pf_state_done(&s);
	return lives;
}

/* A sandbox whose processes or keeper are gone and that nobody has tidied up after. */
static int collect_one(const struct pf_dirs *d, const char *id, bool remove_stopped,
	struct pf_gc_report *report, struct pf_err *err)
{
	struct pf_state s;
	struct pf_err e = PF_ERR_INIT;
	PF_CLOSE int lock = pf_dirs_lock(d, id, false, &e);
	bool lost, found;

	if (lock < 0)
		return 0; /* somebody is at work on it */
	PF_CLOSE int run = pf_dirs_run(d, id, false, &e);
	/* An OCI container is its caller's to delete, dead or not. */
	if (run >= 0 && pf_container_is(run))
		return 0;
	if (pf_state_load(d, id, &s, &e) < 0) {
		lost = true; /* a create that was killed before it had a state */
		remove_stopped = true;
	} else {
		PF_CLOSE int keeper = pf_pidfd_open_checked(s.keeper, s.keeper_start);
		lost = s.status == PF_STATUS_STOPPED || keeper < 0;
		if (lost && !remove_stopped) {
			if (pf_session_end_processes(&s, err) < 0) {
				pf_state_done(&s);
				return -1;
			}
			pf_session_release_ids(d, id, s.id_base);
			s.status = PF_STATUS_STOPPED;
			(void)pf_state_save(d, &s, &e);
		}
		pf_state_done(&s);
	}
	if (!lost)
		return 0;
	report->sandboxes++;
	if (!remove_stopped)
		return 0;
	close(pf_take_fd(&lock));
	return pf_session_destroy(d, id, &found, err);
}

static int collect_orphan_dirs(const struct pf_dirs *d, struct pf_gc_report *report, struct pf_err *err)
{
	PF_CLOSE int fd = pf_dirs_open(d->store, "sandboxes", err);
	struct dirent *e;

	if (fd < 0)
		return -1;
	PF_CLOSEDIR DIR *dir = fdopendir(fcntl(fd, F_DUPFD_CLOEXEC, 3));
	while (dir && (e = readdir(dir))) {
		PF_FREE char *run = pf_asprintf("%s/%s", d->root, e->d_name);
		bool found;
		if (e->d_name[0] == '.' || access(run, F_OK) == 0)
			continue;
		/* After a reboot /run is empty. What was not snapshotted is in the workspace: write down that
		 * it is there so that --reuse and destroy can find it. */
		PF_FREE char *record = pf_asprintf("%s/%s/sandbox.json", "sandboxes", e->d_name);
		PF_CLOSE int store = pf_dirs_open(d->store, "", err);
		if (store < 0)
			return -1;
		if (faccessat(store, record, F_OK, 0) == 0) {
			char now[32];
			struct pf_state s = {.id = pf_strdup(e->d_name),
				.created = pf_strdup(pf_time_now(now)),
				.status = PF_STATUS_STOPPED,
				.cgroup = pf_session_cgroup(e->d_name),
				.exit_code = -1,
				.exec_timeout_ms = -1,
				.stop_reason = pf_strdup("lost")};
			int r = pf_state_save(d, &s, err);
			pf_state_done(&s);
			if (r < 0)
				return -1;
		} else if (pf_session_destroy(d, e->d_name, &found, err) < 0) {
			return -1;
		}
		report->sandboxes++;
	}
	return 0;
}

/* Lock files nobody holds and whose sandbox is gone. */
static int collect_locks(const struct pf_dirs *d, struct pf_gc_report *report, struct pf_err *err)
{
	PF_CLOSE int fd = pf_dirs_open(d->root, ".locks", err);
	struct dirent *e;

	if (fd < 0)
		return -1;
	PF_CLOSEDIR DIR *dir = fdopendir(fcntl(fd, F_DUPFD_CLOEXEC, 3));
	while (dir && (e = readdir(dir))) {
		PF_FREE char *run = pf_asprintf("%s/%s", d->root, e->d_name);
		struct pf_err ignored = PF_ERR_INIT;
		if (e->d_name[0] == '.' || access(run, F_OK) == 0)
			continue;
		PF_CLOSE int lock = pf_dirs_lock(d, e->d_name, false, &ignored);
		if (lock >= 0 && access(run, F_OK) != 0) {
			pf_dirs_unlock_remove(d, e->d_name, &lock);
			report->locks++;
		}
	}
	return 0;
}

int pf_session_gc(
	const struct pf_dirs *d, bool remove_stopped, struct pf_gc_report *report, struct pf_err *err)
{
	char **ids = NULL;
	int r = 0;

	*report = (struct pf_gc_report){0};
	if (collect_orphan_dirs(d, report, err) < 0 || pf_state_ids(d, &ids, err) < 0) {
		pf_strv_free(ids);
		return -1;
	}
	for (char **id = ids; *id && r == 0; id++)
		r = collect_one(d, *id, remove_stopped, report, err);
	pf_strv_free(ids);
	if (r == 0) {
		report->id_ranges = pf_idrange_gc(owner_lives, (void *)d, err);
		r = report->id_ranges < 0 ? -1 : 0;
	}
	if (r == 0)
		r = collect_locks(d, report, err);
	if (r == 0)
		r = pf_dirs_empty_trash(d, err);
	return r;
}

/* ---- the upper
 * ------------------------------------------------------------------------------------------------ */

/* The descriptor that mounts are made from is O_PATH; reading and syncing want an open directory. */
static int reopen(struct pf_upper *u, struct pf_err *err)
{
	int fd = openat(u->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return pf_fail(err, errno, "open the workspace");
	close(u->fd);
	u->fd = fd;
	return 0;
}

int pf_session_upper(
	const struct pf_dirs *d, const struct pf_state *s, struct pf_upper *u, struct pf_err *err)
{
	*u = (struct pf_upper){.fd = -1};
	if (s->status != PF_STATUS_STOPPED) {
		PF_JSON cJSON *ask = cJSON_CreateObject();
		cJSON_AddStringToObject(ask, "op", "workspace");
		PF_JSON cJSON *answer = pf_control_ask(d, s->id, ask, &u->fd, err);
		if (!answer)
			return -1;
		if (u->fd < 0)
			return pf_fail(err, 0, "the keeper of '%s' sent no workspace", s->id);
		return reopen(u, err);
	}
	PF_CLOSE int dir = pf_dirs_sandbox(d, s->id, false, err);
	if (dir < 0)
		return -1;
	u->ws = pf_calloc(1, sizeof(*u->ws));
	*u->ws = PF_WORKSPACE_INIT;
	if (pf_workspace_open(dir, u->ws, err) < 0) {
		free(pf_take(u->ws));
		return -1;
	}
	u->fd = fcntl(u->ws->upper_fd, F_DUPFD_CLOEXEC, 3);
	return u->fd < 0 ? pf_fail(err, errno, "workspace") : reopen(u, err);
}

void pf_session_upper_done(struct pf_upper *u)
{
	if (u->fd >= 0)
		close(u->fd);
	if (u->ws) {
		pf_workspace_close(u->ws);
		free(u->ws);
	}
	*u = (struct pf_upper){.fd = -1};
}
