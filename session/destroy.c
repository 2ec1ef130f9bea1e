/* Theory of operation: the end of a session.
 *
 * cgroup.kill takes every process of the box at once; the keeper sees its process 1 go, cleans up what it
 * holds and ends; we wait for that by pidfd. Whatever a dead keeper could not clean up is done here: destroy
 * works from whatever is left, in any combination, and says what it could not remove. The workspace is only
 * renamed; a child in the background, made while we wait, unlinks it.
 *
 * Taking an overlay down costs what it held: the kernel drops every inode and writes out the file system
 * below. Whoever lets go of it last waits for that, and without more that would be the dying process 1, for
 * which everybody else here waits. So its root is kept open over the end of the box and let go by that child.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "checkpoint/unsealed.h"
#include "overlay/workspace.h"
#include "sandbox/cgroup.h"
#include "sandbox/idrange.h"
#include "session/audit.h"
#include "session/autosave.h"
#include "session/control.h"
#include "session/session.h"

/* Wait until the keeper has closed its end of a connection to it, which it does by ending. Needs no pid. */
static bool wait_for_hangup(int sock, int timeout_ms)
{
	struct pollfd p = {.fd = sock};
	int64_t deadline = pf_now_us() + (int64_t)timeout_ms * 1000;

	while (pf_now_us() < deadline)
		if (poll(&p, 1, (int)((deadline - pf_now_us()) / 1000 + 1)) > 0)
			return true;
	return false;
}

/* Normally it is done in a millisecond, unless it saves what its sandbox left. */
static bool wait_for_keeper(const struct pf_dirs *d, const char *id, int keeper)
{
	int r = pf_pidfd_wait(keeper, 15000);

	for (int ms = 0; r == 0 && ms < PF_AUTOSAVE_END_MS && pf_autosave_saving(d, id); ms += 1000)
		r = pf_pidfd_wait(keeper, 1000);
	return r == 1;
}

/* meanwhile (NULL: nothing) is called when everything has been told to end, and nothing has been waited for.
 */
static int end_processes(const struct pf_dirs *d, const struct pf_state *s, void (*meanwhile)(void *),
	void *arg, struct pf_err *err)
{
	struct pf_cgroup_host host;
	PF_CGROUP struct pf_cgroup *cg = NULL;
	struct pf_err e = PF_ERR_INIT;
	PF_CLOSE int keeper = s->keeper > 0 ? pf_pidfd_open_checked(s->keeper, s->keeper_start) : -1;
	/* A state that is damaged or gone names no keeper; its socket does. */
	PF_CLOSE int control = s->keeper > 0 ? -1 : pf_control_connect(d, s->id, &e);
	bool has_cgroup;

	if (pf_cgroup_probe(&host, err) < 0)
		return -1;
	has_cgroup = s->cgroup && pf_cgroup_open(&host, s->cgroup, &cg, &e) == 0;
	if (has_cgroup && pf_cgroup_kill(cg, err) < 0)
		return pf_wrap(err, "kill the processes of '%s'", s->id);
	if (meanwhile)
		meanwhile(arg);
	/* One that does not end is ended: nothing depends on it any more. */
	if (keeper >= 0 && !wait_for_keeper(d, s->id, keeper)) {
		(void)pidfd_send_signal(keeper, SIGKILL, NULL, 0);
		(void)pf_pidfd_wait(keeper, 5000);
	}
	if (control >= 0 && !wait_for_hangup(control, 15000))
		return pf_fail_kind(err, PF_ERR_STATE, 0, "the keeper of '%s' does not end", s->id);
	if (has_cgroup && pf_cgroup_remove(cg, 5000, err) < 0)
		return pf_wrap(err, "sandbox '%s'", s->id);
	pf_cgroup_prune(&host, PF_SESSION_CGROUP);
	return 0;
}

int pf_session_end_processes(const struct pf_dirs *d, const struct pf_state *s, struct pf_err *err)
{
	return end_processes(d, s, NULL, NULL, err);
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

/* A process of its own lets go of the root and unlinks the trash, so that the caller is not kept waiting. It
 * is made while the caller waits for others anyway, and begins when it is told to. */
struct sweeper {
	const struct pf_dirs *d;
	int root; /* of the box; -1: none */
	int go;   /* writable; its end without a byte: there is nothing to do. -1: there is no such process */
};

__attribute__((noreturn)) static void sweep(const struct sweeper *s, int go)
{
	struct pf_err ignored = PF_ERR_INIT;
	int64_t dropped;
	char byte;

	/* Of all that the caller holds, a lock among it, only these two: and the root to the end of the box.
	 */
	if (s->root >= 0 && (dup2(s->root, 3) < 0 || dup2(go, 4) < 0))
		_exit(125);
	if (s->root < 0 && dup2(go, 3) < 0)
		_exit(125);
	go = s->root >= 0 ? 4 : 3;
	close_range((unsigned)go + 1, ~0U, 0);
	(void)setsid();
	int null = open("/dev/null", O_RDWR);
	for (int i = 0; null >= 0 && i < 3; i++)
		(void)dup2(null, i);
	bool told = pf_read_full(go, &byte, 1) == 1;
	close_range(3, ~0U, 0);
	if (!told)
		_exit(0);
	(void)setpriority(PRIO_PROCESS, 0, 10);
	(void)pf_dirs_empty_trash(s->d, &ignored);
	/* It may have been the last on layers that are not to lie about in clear. gc would find them, too. */
	(void)pf_ckpt_drop_unsealed(s->d->store, &dropped, &ignored);
	_exit(0);
}

static void begin_sweeper(void *arg)
{
	struct sweeper *s = arg;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	/* Out of the way of what sweep() puts there. */
	int go = fcntl(pair[0], F_DUPFD_CLOEXEC, 5);
	close(pair[0]);
	pid_t pid = go < 0 ? -1 : fork();
	if (pid == 0) {
		close(pair[1]);
		sweep(s, go);
	}
	if (go >= 0)
		close(go);
	if (pid < 0) {
		close(pair[1]);
		return;
	}
	s->go = pair[1];
	if (s->root >= 0)
		close(pf_take_fd(&s->root));
}

static void end_sweeper(struct sweeper *s, bool work)
{
	if (s->go >= 0) {
		/* One that was killed leaves its work to the next, or to gc. */
		if (work)
			(void)send(s->go, "", 1, MSG_NOSIGNAL);
		close(pf_take_fd(&s->go));
	}
	if (s->root >= 0)
		close(pf_take_fd(&s->root));
}

static int remove_files(const struct pf_dirs *d, const char *id, struct sweeper *sweeper, struct pf_err *err)
{
	PF_CLOSE int root = pf_dirs_open(d->root, "", err);
	PF_FREE char *path = pf_asprintf("%s/sandboxes/%s", d->store, id);
	struct stat st;

	if (root < 0)
		return -1;
	if (lstat(path, &st) == 0) {
		if (pf_dirs_trash(d, id, err) < 0)
			return -1;
		end_sweeper(sweeper, true);
	}
	return pf_rm_rf_at(root, id, err);
}

bool pf_session_remains(const struct pf_dirs *d, const char *id)
{
	PF_FREE char *path = pf_asprintf("%s/sandboxes/%s", d->store, id);
	PF_FREE char *run = pf_asprintf("%s/%s", d->root, id);

	return access(path, F_OK) == 0 || errno != ENOENT || access(run, F_OK) == 0 || errno != ENOENT;
}

int pf_session_destroy_locked(
	const struct pf_dirs *d, const char *id, int *lock, bool *found, struct pf_err *err)
{
	struct pf_state s;
	struct pf_err e = PF_ERR_INIT;
	struct sweeper sweeper = {.d = d, .root = -1, .go = -1};

	*found = true;
	if (pf_state_load(d, id, &s, &e) < 0) {
		/* No state, or one that cannot be read, but pieces may be there: of a create that was killed,
		 * from before a reboot, of a disk that was full. An OCI container's is not ours to take. */
		if (e.kind == PF_ERR_SYSTEM || e.kind == PF_ERR_STATE) {
			*err = e;
			return -1;
		}
		*found = pf_session_remains(d, id);
		if (!*found) {
			pf_dirs_unlock_remove(d, id, lock);
			return 0;
		}
		s = (struct pf_state){.id = pf_strdup(id), .cgroup = pf_session_cgroup(d, id)};
	}
	sweeper.root = hold_root(d, &s);
	int r = end_processes(d, &s, begin_sweeper, &sweeper, err);
	if (r == 0)
		r = remove_files(d, id, &sweeper, err);
	end_sweeper(&sweeper, false);
	if (r == 0) {
		PF_CLOSE int log = pf_audit_open(d, id, &e);
		pf_session_release_ids(d, id, s.id_base);
		if (log >= 0)
			(void)pf_audit_write(log, "destroy", NULL, &e);
		pf_dirs_unlock_remove(d, id, lock);
	}
	pf_state_done(&s);
	return r;
}

int pf_session_destroy(const struct pf_dirs *d, const char *id, bool *found, struct pf_err *err)
{
	PF_CLOSE int lock = -1;

	*found = true;
	if (pf_check_id("sandbox id", id, err) < 0)
		return -1;
	lock = pf_dirs_lock(d, id, true, err);
	return lock < 0 ? -1 : pf_session_destroy_locked(d, id, &lock, found, err);
}

void pf_session_release_ids(const struct pf_dirs *d, const char *id, uint32_t base)
{
	PF_FREE char *owner = pf_asprintf("%s/%s", d->root, id);

	if (base)
		pf_idrange_release(owner, base);
}

/* The keeper is told that the box is being frozen, and by whom: it lets it go on when he is killed before he
 * has left the mark. op: "freezing", "thawed". */
static int tell_keeper(int control, const char *op, struct pf_err *err)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();

	cJSON_AddStringToObject(msg, "op", op);
	return pf_control_send(control, msg, -1, err);
}

static int freeze(
	const struct pf_dirs *d, const char *id, struct pf_cgroup *cg, bool pause, struct pf_err *err)
{
	PF_CLOSE int control = pause ? pf_control_connect(d, id, err) : -1;
	struct pf_err ignored = PF_ERR_INIT;

	if (pause && (control < 0 || tell_keeper(control, "freezing", err) < 0))
		return -1;
	int r = pf_cgroup_freeze(cg, pause, 10000, err);
	if (r == 0)
		r = pf_state_mark_paused(d, id, pause, err);
	if (r < 0 && pause)
		(void)pf_cgroup_freeze(cg, false, 1000, &ignored);
	/* Not our end is to thaw it: it may come when somebody else has frozen the box. */
	if (pause)
		(void)tell_keeper(control, "thawed", &ignored);
	return r;
}

int pf_session_pause_locked(const struct pf_dirs *d, const char *id, bool pause, struct pf_err *err)
{
	struct pf_state s;
	struct pf_cgroup_host host;
	PF_CGROUP struct pf_cgroup *cg = NULL;
	int r = -1;

	if (pf_state_load(d, id, &s, err) < 0)
		return -1;
	if (s.status == PF_STATUS_STOPPED || s.status == PF_STATUS_CREATING)
		pf_fail_kind(err, PF_ERR_STATE, 0, "sandbox '%s' is %s", id, pf_status_name(s.status));
	else if (pf_cgroup_probe(&host, err) == 0 && pf_cgroup_open(&host, s.cgroup, &cg, err) == 0)
		r = freeze(d, id, cg, pause, err);
	pf_state_done(&s);
	return r;
}

int pf_session_pause(const struct pf_dirs *d, const char *id, bool pause, struct pf_err *err)
{
	struct pf_state s;
	PF_CLOSE int lock = -1;

	/* Looked at before locking: a lock on an id that never was would leave a file behind. */
	if (pf_state_load(d, id, &s, err) < 0)
		return -1;
	pf_state_done(&s);
	/* A snapshot freezes and thaws too: one after the other. */
	lock = pf_dirs_lock(d, id, true, err);
	return lock < 0 ? -1 : pf_session_pause_locked(d, id, pause, err);
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
	/* Its keeper may still have the workspace mounted, and an image must not be mounted twice. */
	PF_CLOSE int keeper = s->keeper > 0 ? pf_pidfd_open_checked(s->keeper, s->keeper_start) : -1;
	if (keeper >= 0 && !wait_for_keeper(d, s->id, keeper))
		return pf_fail_kind(err, PF_ERR_STATE, 0, "the keeper of '%s' does not end", s->id);
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
