/* Theory of operation: stopping, killing and waiting.
 *
 * v2 tells by events: cgroup.events is polled for POLLPRI and read again. The kernel sends at most one such
 * event per 10 ms and file, so a box that lives shorter would be noticed late; while waiting for the end we
 * therefore also poll pidfds of the members (a process leaves its cgroup before its pidfd fires). v1 has no
 * events: the pidfds alone do there, and freezing is watched in steps of a millisecond.
 *
 * Kill is one write to cgroup.kill. Without it (Linux < 5.14, v1): freeze so that nobody forks, signal
 * everybody, thaw (a task in a frozen v1 cgroup does not even die). */
#include "sandbox/cgroup_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"

#define WATCHED 32 /* members whose pidfds are polled at a time */

/* ---- reading ---- */

ssize_t pf_cg_read(int dir, const char *file, char *buf, size_t len)
{
	PF_CLOSE int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	ssize_t n = pf_read_full(fd, buf, len - 1);
	if (n >= 0)
		buf[n] = '\0';
	return n;
}

int64_t pf_cg_value(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		if (*line == '\n')
			line++;
		if (strncmp(line, key, len) == 0 && line[len] == ' ')
			return strtoll(line + len + 1, NULL, 10);
	}
	return -1;
}

int64_t pf_cg_read_int(int dir, const char *file)
{
	char text[64];

	if (dir < 0 || pf_cg_read(dir, file, text, sizeof(text)) <= 0)
		return -1;
	if (strncmp(text, "max", 3) == 0)
		return PF_LIMIT_NONE;
	/* v1 counters are unsigned: what does not fit is no limit. */
	unsigned long long v = strtoull(text, NULL, 10);
	return v > INT64_MAX ? PF_LIMIT_NONE : (int64_t)v;
}

int pf_cg_each_child(int dir, int (*fn)(int dir, const char *name, void *arg), void *arg)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	for (struct dirent *e; rc == 0 && (e = readdir(d)) != NULL;)
		if (e->d_type == DT_DIR && strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			rc = fn(dir, e->d_name, arg);
	return rc;
}

struct collection {
	pid_t **pids;
	size_t *n, *cap;
	struct pf_err *err;
	int depth;
};

static int collect(int dir, struct collection *c);

static int collect_child(int dir, const char *name, void *arg)
{
	struct collection *c = arg;
	PF_CLOSE int child = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (child < 0)
		return errno == ENOENT ? 0 : pf_fail(c->err, errno, "open cgroup %s", name);
	if (c->depth >= 64)
		return pf_fail(c->err, ELOOP, "cgroup %s: too deep", name);
	c->depth++;
	int rc = collect(child, c);
	c->depth--;
	return rc;
}

static int collect_here(int dir, struct collection *c)
{
	PF_FREE char *text = NULL;

	if (pf_read_pseudo_at(dir, "cgroup.procs", (size_t)64 << 20, &text, c->err) < 0)
		return c->err->errnum == ENODEV ? 0 : -1; /* removed meanwhile */
	for (char *p = text, *end; *p; p = *end ? end + 1 : end) {
		long pid = strtol(p, &end, 10);
		if (end == p)
			break;
		if (pid <= 0)
			continue; /* of a pid namespace that is not ours */
		if (*c->n == *c->cap) {
			size_t cap = *c->cap ? *c->cap * 2 : 64;
			pid_t *more = realloc(*c->pids, cap * sizeof(*more));
			if (!more)
				abort();
			*c->pids = more;
			*c->cap = cap;
		}
		(*c->pids)[(*c->n)++] = (pid_t)pid;
	}
	return 0;
}

static int collect(int dir, struct collection *c)
{
	if (collect_here(dir, c) < 0)
		return -1;
	int rc = pf_cg_each_child(dir, collect_child, c);
	return rc < 0 && errno == ENODEV ? 0 : rc;
}

int pf_cg_collect_pids(int dir, pid_t **pids, size_t *n, size_t *cap, struct pf_err *err)
{
	struct collection c = {pids, n, cap, err, 0};
	return collect(dir, &c);
}

static int by_pid(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
	return (x > y) - (x < y);
}

static int gone(const struct pf_cgroup *cg, struct pf_err *err)
{
	return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "cgroup %s is not there", cg->path);
}

int pf_cgroup_pids(const struct pf_cgroup *cg, pid_t **pids, size_t *n, struct pf_err *err)
{
	pid_t *list = NULL;
	size_t have = 0, cap = 0;
	int dir = pf_cg_main_dir(cg);

	if (dir < 0)
		return gone(cg, err);
	if (pf_cg_collect_pids(dir, &list, &have, &cap, err) < 0) {
		free(list);
		return -1;
	}
	if (have > 0)
		qsort(list, have, sizeof(*list), by_pid);
	*pids = list;
	*n = have;
	return 0;
}

/* ---- waiting ---- */

/* 1 the key of cgroup.events is set, 0 not, -1 errno. fd stays armed for the next change. */
static int64_t event_state(int fd, const char *key)
{
	char text[256];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n < 0)
		return -1;
	text[n] = '\0';
	return pf_cg_value(text, key);
}

/* Milliseconds until deadline, rounded up, at least 0; -1 for never. */
static int left_ms(int64_t deadline)
{
	if (deadline < 0 || deadline == INT64_MAX)
		return -1;
	int64_t us = deadline - pf_now_us();
	return us <= 0 ? 0 : us > (int64_t)3600 * 1000000 ? 3600 * 1000 : (int)((us + 999) / 1000);
}

static int watch_members(int dir, bool below, struct pollfd *pfd, struct pf_err *err)
{
	PF_FREE pid_t *pids = NULL;
	size_t n = 0, cap = 0;
	int k = 0;
	struct collection c = {&pids, &n, &cap, err, 0};

	if ((below ? collect(dir, &c) : collect_here(dir, &c)) < 0)
		return -1;
	for (size_t i = 0; i < n && k < WATCHED; i++) {
		int fd = pidfd_open(pids[i], 0);
		if (fd >= 0 && pf_pidfd_ended(fd)) {
			close(fd);
			fd = -1;
		}
		if (fd >= 0)
			pfd[k++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
	return k;
}

int pf_cg_wait_dir(int dir, bool v2, int64_t deadline, struct pf_err *err)
{
	PF_CLOSE int events = v2 ? openat(dir, "cgroup.events", O_RDONLY | O_CLOEXEC) : -1;

	if (v2 && events < 0)
		return errno == ENOENT || errno == ENODEV ? 1 : pf_fail(err, errno, "open cgroup.events");
	for (;;) {
		struct pollfd pfd[WATCHED + 1];
		int k, ms = left_ms(deadline);
		if (v2) {
			int64_t busy = event_state(events, "populated");
			if (busy < 0 && errno != ENODEV)
				return pf_fail(err, errno, "read cgroup.events");
			if (busy <= 0)
				return 1;
		}
		if (ms == 0 && v2)
			return 0;
		k = watch_members(dir, v2, pfd, err);
		if (k < 0)
			return -1;
		if (!v2 && k == 0)
			return 1;
		if (ms == 0) {
			while (k > 0)
				close(pfd[--k].fd);
			return 0;
		}
		pfd[k] = (struct pollfd){.fd = events, .events = POLLPRI};
		int r = poll(pfd, (nfds_t)k + (v2 ? 1 : 0), ms);
		int saved = errno;
		while (k > 0)
			close(pfd[--k].fd);
		if (r < 0 && saved != EINTR)
			return pf_fail(err, saved, "poll of a cgroup");
	}
}

int pf_cgroup_wait_empty(const struct pf_cgroup *cg, int timeout_ms, struct pf_err *err)
{
	int64_t deadline = timeout_ms < 0 ? -1 : pf_now_us() + (int64_t)timeout_ms * 1000;
	int dir = pf_cg_main_dir(cg);

	if (dir < 0)
		return 1;
	if (pf_cgroup_fd(cg) >= 0)
		return pf_cg_wait_dir(dir, true, deadline, err);
	/* v1 watches one directory at a time; a box's leaves are one level down. */
	for (;;) {
		PF_FREE pid_t *pids = NULL;
		size_t n = 0;
		if (pf_cgroup_pids(cg, &pids, &n, err) < 0)
			return -1;
		if (n == 0)
			return 1;
		PF_CLOSE int fd = pidfd_open(pids[0], 0);
		int r = fd < 0 ? 1 : pf_pidfd_wait(fd, left_ms(deadline));
		if (r < 0)
			return pf_fail(err, errno, "wait for process %d", (int)pids[0]);
		if (r == 0)
			return 0;
		/* A dead leader with threads still alive stays listed: give them a moment. */
		if (fd >= 0)
			(void)usleep(500);
	}
}

int pf_cgroup_is_empty(const struct pf_cgroup *cg, struct pf_err *err)
{
	return pf_cgroup_wait_empty(cg, 0, err);
}

/* ---- freezing ---- */

static int freeze_v2(struct pf_cgroup *cg, int dir, bool frozen, int64_t deadline, struct pf_err *err)
{
	PF_CLOSE int events = openat(dir, "cgroup.events", O_RDONLY | O_CLOEXEC);

	if (events < 0 || pf_write_pseudo_at(dir, "cgroup.freeze", frozen ? "1" : "0") < 0) {
		if (errno == ENOENT)
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"freeze cgroup %s: this kernel has no cgroup.freeze (remedy: Linux 5.2 or "
				"later)",
				cg->path);
		return pf_fail(err, errno, "write cgroup.freeze of %s", cg->path);
	}
	for (int64_t step = 50000;; step = step < 15000000 ? step * 2 : step) {
		struct pollfd pfd = {.fd = events, .events = POLLPRI};
		/* A box frozen within 10 ms of its last event hears of this one late: look a few times, at
		 * growing distances, before the event alone is relied on. */
		struct timespec early = {.tv_nsec = (long)step};
		int64_t now = event_state(events, "frozen");
		int ms = left_ms(deadline);
		if (now < 0)
			return pf_fail(err, errno, "read cgroup.events of %s", cg->path);
		/* A parent that is frozen keeps us so; the thaw of ours is done all the same. */
		if (!frozen || now == 1)
			return 0;
		if (ms == 0)
			return 1;
		int r = step < 15000000 && (ms < 0 || ms > 15) ? ppoll(&pfd, 1, &early, NULL)
							       : poll(&pfd, 1, ms);
		if (r < 0 && errno != EINTR)
			return pf_fail(err, errno, "poll of cgroup %s", cg->path);
	}
}

static int freeze_v1(struct pf_cgroup *cg, int dir, bool frozen, int64_t deadline, struct pf_err *err)
{
	const char *want = frozen ? "FROZEN" : "THAWED";
	char text[32];

	for (;;) {
		/* Written each time: a task that forked at the wrong moment leaves the state at FREEZING for
		 * ever. */
		if (pf_write_pseudo_at(dir, "freezer.state", want) < 0 ||
			pf_cg_read(dir, "freezer.state", text, sizeof(text)) < 0)
			return pf_fail(err, errno, "freezer.state of %s", cg->path);
		if (!frozen || strncmp(text, want, strlen(want)) == 0)
			return 0;
		if (left_ms(deadline) == 0)
			return 1;
		(void)usleep(1000);
	}
}

int pf_cgroup_freeze(struct pf_cgroup *cg, bool frozen, int timeout_ms, struct pf_err *err)
{
	int64_t deadline = timeout_ms < 0 ? -1 : pf_now_us() + (int64_t)timeout_ms * 1000;
	int h = cg->host.where[PF_CG_FREEZER], dir = h < 0 ? -1 : cg->dir[h], rc;

	if (h < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"freeze: no freezer on this host (remedy: mount a cgroup2 file system)");
	if (dir < 0)
		return gone(cg, err);
	rc = cg->host.hier[h].v2 ? freeze_v2(cg, dir, frozen, deadline, err)
				 : freeze_v1(cg, dir, frozen, deadline, err);
	if (rc == 1) {
		(void)pf_write_pseudo_at(dir, cg->host.hier[h].v2 ? "cgroup.freeze" : "freezer.state",
			cg->host.hier[h].v2 ? "0" : "THAWED");
		return pf_fail_kind(err, PF_ERR_STATE, ETIMEDOUT,
			"freeze cgroup %s: a process did not stop within %d ms", cg->path, timeout_ms);
	}
	return rc;
}

int pf_cgroup_is_frozen(const struct pf_cgroup *cg, struct pf_err *err)
{
	int h = cg->host.where[PF_CG_FREEZER], dir = h < 0 ? -1 : cg->dir[h];
	char text[256];

	if (dir < 0)
		return gone(cg, err);
	if (pf_cg_read(dir, cg->host.hier[h].v2 ? "cgroup.events" : "freezer.state", text, sizeof(text)) < 0)
		return pf_fail(err, errno, "freezer state of %s", cg->path);
	return cg->host.hier[h].v2 ? pf_cg_value(text, "frozen") == 1 : strncmp(text, "FROZEN", 6) == 0;
}

/* ---- killing ---- */

static int kill_one_by_one(struct pf_cgroup *cg, struct pf_err *err)
{
	struct pf_err ignored = PF_ERR_INIT;
	bool frozen = pf_cgroup_freeze(cg, true, 500, &ignored) == 0;
	int rc = 0;

	/* Frozen, one pass has them all; otherwise as many as it takes until nobody new is found. */
	for (int pass = 0; pass < (frozen ? 1 : 100) && rc == 0; pass++) {
		PF_FREE pid_t *pids = NULL;
		size_t n = 0, hit = 0;
		rc = pf_cgroup_pids(cg, &pids, &n, err);
		for (size_t i = 0; rc == 0 && i < n; i++) {
			PF_CLOSE int fd = pidfd_open(pids[i], 0);
			if (fd >= 0 && !pf_pidfd_ended(fd) && pidfd_send_signal(fd, SIGKILL, NULL, 0) == 0)
				hit++;
			else if (fd >= 0 && errno == EPERM)
				rc = pf_fail(err, errno, "kill process %d", (int)pids[i]);
		}
		if (hit == 0)
			break;
	}
	if (frozen && pf_cgroup_freeze(cg, false, 0, &ignored) < 0 && rc == 0) {
		*err = ignored;
		rc = -1;
	}
	return rc;
}

int pf_cgroup_kill(struct pf_cgroup *cg, struct pf_err *err)
{
	int dir = pf_cg_main_dir(cg);

	if (dir < 0)
		return gone(cg, err);
	cg->fresh = false;
	if (pf_cgroup_fd(cg) >= 0) {
		if (pf_write_pseudo_at(dir, "cgroup.kill", "1") == 0 || errno == ENODEV)
			return 0;
		if (errno != ENOENT)
			return pf_fail(err, errno, "write cgroup.kill of %s", cg->path);
	}
	return kill_one_by_one(cg, err);
}

/* ---- out of memory ---- */

int pf_cgroup_oom_fd(const struct pf_cgroup *cg, struct pf_err *err)
{
	int h = cg->host.where[PF_CG_MEMORY], dir = h < 0 ? -1 : cg->dir[h];
	PF_CLOSE int fd = -1;

	if (dir < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"memory notices of cgroup %s: memory is not counted here (remedy: give it a memory "
			"limit)",
			cg->path);
	if (cg->host.hier[h].v2) {
		char path[64];
		snprintf(path, sizeof(path), "/proc/self/fd/%d/memory.events", dir);
		fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
		if (fd < 0 || inotify_add_watch(fd, path, IN_MODIFY) < 0)
			return pf_fail(err, errno, "watch memory.events of %s", cg->path);
	} else {
		PF_CLOSE int control = openat(dir, "memory.oom_control", O_RDONLY | O_CLOEXEC);
		char text[32];
		fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (fd < 0 || control < 0)
			return pf_fail(err, errno, "memory.oom_control of %s", cg->path);
		snprintf(text, sizeof(text), "%d %d", fd, control);
		if (pf_write_pseudo_at(dir, "cgroup.event_control", text) < 0)
			return pf_fail(err, errno, "write cgroup.event_control of %s", cg->path);
	}
	return pf_take_fd(&fd);
}

int64_t pf_cgroup_oom_drain(int fd)
{
	char buf[4096];
	uint64_t count = 0;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		/* An inotify event is 16 bytes at least; this is an eventfd's counter. */
		if (n == (ssize_t)sizeof(count))
			memcpy(&count, buf, sizeof(count));
	return (int64_t)count;
}

/* ---- handing over ---- */

int pf_cgroup_delegate(const struct pf_cgroup *cg, uid_t uid, struct pf_err *err)
{
	/* What kernels without a list of their own (before 4.15) let be handed over. */
	char list[1024] = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n", *save = NULL;
	int dir = pf_cgroup_fd(cg);

	if (dir < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "cgroup: only one on v2 can be handed over");
	char known[sizeof(list)];
	if (pf_cg_read(AT_FDCWD, "/sys/kernel/cgroup/delegate", known, sizeof(known)) > 0)
		memcpy(list, known, sizeof(list));
	if (fchown(dir, uid, (gid_t)-1) < 0)
		return pf_fail(err, errno, "hand cgroup %s over to user %u", cg->path, (unsigned)uid);
	for (char *name = strtok_r(list, "\n", &save); name; name = strtok_r(NULL, "\n", &save))
		if (!strchr(name, '/') && fchownat(dir, name, uid, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0 &&
			errno != ENOENT)
			return pf_fail(err, errno, "hand %s of cgroup %s over to user %u", name, cg->path,
				(unsigned)uid);
	return 0;
}
