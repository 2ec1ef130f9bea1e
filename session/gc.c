/* Theory of operation: finding what killed processes and reboots left.
 *
 * Nothing here is believed without the id's lock, and a lock that somebody holds is left to him: he is
 * making, ending or snapshotting that sandbox right now. What is found is looked at again once the lock is
 * held. A fault with one sandbox does not keep the others from being collected; the first one is reported at
 * the end. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "sandbox/container.h"
#include "sandbox/idrange.h"
#include "session/session.h"

static int remember(struct pf_err *first, const struct pf_err *e)
{
	if (!*first->msg)
		*first = *e;
	return -1;
}

/* Whether the sandbox with this runtime directory may still have processes. What cannot be told counts as
 * alive. */
static bool owner_lives(const char *owner, void *arg)
{
	const struct pf_dirs *d = arg;
	struct pf_err e = PF_ERR_INIT;
	const char *id = strrchr(owner, '/');
	struct pf_state s;

	/* Below another --root: alive as long as its directory is there. */
	if (!id || strlen(d->root) != (size_t)(id - owner) || !pf_starts_with(owner, d->root))
		return access(owner, F_OK) == 0;
	id++;
	if (pf_state_load(d, id, &s, &e) < 0) {
		if (e.kind != PF_ERR_NOT_FOUND)
			return true;
		/* None yet: somebody who is making it holds its lock. */
		PF_CLOSE int lock = pf_dirs_lock(d, id, false, &e);
		return lock < 0;
	}
	bool lives = s.status != PF_STATUS_STOPPED;
	pf_state_done(&s);
	if (lives)
		return true;
	/* Who starts it again holds its lock. */
	PF_CLOSE int lock = pf_dirs_lock(d, id, false, &e);
	return lock < 0;
}

/* A sandbox whose processes or keeper are gone and that nobody has tidied up after. */
static int collect_one(const struct pf_dirs *d, const char *id, bool remove_stopped,
	struct pf_gc_report *report, struct pf_err *err)
{
	struct pf_state s;
	struct pf_err e = PF_ERR_INIT;
	PF_CLOSE int lock = pf_dirs_lock(d, id, false, &e);
	bool found;

	if (lock < 0)
		return 0;
	PF_CLOSE int run = pf_dirs_run(d, id, false, &e);
	/* An OCI container is its caller's to delete, dead or not. */
	if (run < 0 || pf_container_is(run))
		return 0;
	if (pf_state_load(d, id, &s, &e) < 0) {
		if (e.kind != PF_ERR_NOT_FOUND)
			return remember(err, &e);
		/* A create that was killed before it had a state; with a record it may have been one of a
		 * workspace that was there before. */
		report->sandboxes++;
		e = PF_ERR_INIT;
		if (!remove_stopped && pf_session_record_stopped(d, id, &e) == 0)
			return 0;
		if (!remove_stopped && e.kind != PF_ERR_NOT_FOUND)
			return remember(err, &e);
		return pf_session_destroy_locked(d, id, &lock, &found, err);
	}
	PF_CLOSE int keeper = pf_pidfd_open_checked(s.keeper, s.keeper_start);
	bool lost = s.status == PF_STATUS_STOPPED || (keeper < 0 && errno == ESRCH);
	int r = 0;
	if (lost) {
		report->sandboxes++;
		if (remove_stopped) {
			r = pf_session_destroy_locked(d, id, &lock, &found, err);
		} else {
			r = pf_session_end_processes(d, &s, err);
			pf_session_release_ids(d, id, s.id_base);
			s.status = PF_STATUS_STOPPED;
			if (r == 0)
				r = pf_state_save(d, &s, err);
		}
	}
	pf_state_done(&s);
	return r;
}

/* After a reboot /run is empty. What was not snapshotted is in the workspace: write down that it is there, so
 * that create --reuse, snapshot and destroy find it. One without a record never ran. */
static int collect_orphan(
	const struct pf_dirs *d, const char *id, struct pf_gc_report *report, struct pf_err *err)
{
	struct pf_err e = PF_ERR_INIT;
	PF_CLOSE int lock = pf_dirs_lock(d, id, false, &e);
	PF_FREE char *run = pf_asprintf("%s/%s", d->root, id);
	bool found;

	if (lock < 0 || access(run, F_OK) == 0)
		return 0;
	report->sandboxes++;
	if (pf_session_record_stopped(d, id, &e) == 0)
		return 0;
	if (e.kind != PF_ERR_NOT_FOUND)
		return remember(err, &e);
	return pf_session_destroy_locked(d, id, &lock, &found, err);
}

/* Call fn for each name in a directory that does not begin with a dot. */
static int each(const char *base, const char *sub, const struct pf_dirs *d,
	int (*fn)(const struct pf_dirs *, const char *, struct pf_gc_report *, struct pf_err *),
	struct pf_gc_report *report, struct pf_err *err)
{
	PF_CLOSE int fd = pf_dirs_open(base, sub, err);
	struct dirent *e;
	int r = 0;

	if (fd < 0)
		return -1;
	PF_CLOSEDIR DIR *dir = fdopendir(fcntl(fd, F_DUPFD_CLOEXEC, 3));
	if (!dir)
		return pf_fail(err, errno, "%s/%s", base, sub);
	while ((e = readdir(dir))) {
		struct pf_err one = PF_ERR_INIT;
		if (e->d_name[0] != '.' && fn(d, e->d_name, report, &one) < 0)
			r = remember(err, &one);
	}
	return r;
}

/* A lock file that nobody holds and whose sandbox is gone. */
static int collect_lock(
	const struct pf_dirs *d, const char *id, struct pf_gc_report *report, struct pf_err *err)
{
	PF_FREE char *run = pf_asprintf("%s/%s", d->root, id);
	struct pf_err e = PF_ERR_INIT;

	(void)err;
	if (access(run, F_OK) == 0)
		return 0;
	PF_CLOSE int lock = pf_dirs_lock(d, id, false, &e);
	if (lock >= 0 && access(run, F_OK) != 0) {
		pf_dirs_unlock_remove(d, id, &lock);
		report->locks++;
	}
	return 0;
}

int pf_session_gc(
	const struct pf_dirs *d, bool remove_stopped, struct pf_gc_report *report, struct pf_err *err)
{
	struct pf_err one = PF_ERR_INIT;
	char **ids = NULL;
	int r = 0;

	*report = (struct pf_gc_report){0};
	if (each(d->store, "sandboxes", d, collect_orphan, report, err) < 0)
		r = -1;
	if (pf_state_ids(d, &ids, &one) < 0)
		r = remember(err, &one);
	for (char **id = ids; id && *id; id++) {
		one = PF_ERR_INIT;
		if (collect_one(d, *id, remove_stopped, report, &one) < 0)
			r = remember(err, &one);
	}
	pf_strv_free(ids);
	one = PF_ERR_INIT;
	report->id_ranges = pf_idrange_gc(owner_lives, (void *)d, &one);
	if (report->id_ranges < 0)
		r = remember(err, &one);
	if (each(d->root, ".locks", d, collect_lock, report, err) < 0)
		r = -1;
	one = PF_ERR_INIT;
	if (pf_dirs_empty_trash(d, &one) < 0)
		r = remember(err, &one);
	return r;
}
