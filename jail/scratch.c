/* Theory of operation: writes that can be looked at first.
 *
 * For every overlaid directory an overlay is mounted in the jail's own mount namespace, above the directory
 * itself and with its writable layer in a scratch directory on disk; the box then gets a clone of that mount
 * like any other. The real directory's descriptor, opened before, goes on meaning the real directory.
 *
 * What is left when the command has ended (a tree that the command made, with modes that may shut its owner
 * out, and a cgroup) is for the sweeper: a process forked before this one gives up its power. It waits on a
 * socket; a request makes it list, apply or keep the changes; the end of the socket, be it an orderly close
 * or our death by SIGKILL, makes it remove everything.
 *
 *   pinfold-jail-XXXXXX/upper/N   what was written to the N-th directory; with --from a checkpoint's at first
 *                       work/N    overlayfs's own
 * in $TMPDIR or /var/tmp; with --from in the store, so that what is unpacked there can be moved. */
#include "jail/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "base/sys.h"
#include "jail/changes.h"
#include "jail/keep.h"
#include "jail/message.h"

#define MAX_LAYERS 64
#define MAX_LIST ((size_t)16 << 20) /* of changes; a message holds more */

struct layer {
	int lower, upper;
	const char *dest, *source;
};

struct sweeper {
	int sock;
	int parent_fd;   /* of the scratch directory */
	char *name;      /* in it; NULL: none */
	int upper, work; /* in that */
	struct layer layers[MAX_LAYERS];
	size_t n;
	char *paths[2 * MAX_LAYERS + 1]; /* that upper/0, upper/1, … stand for; borrowed */
	size_t n_paths;
	struct pf_jail_from from;
	const char *store;
	const struct pf_jail_limits *limits;
};

/* ---- the sweeper ---- */

static int look_at_changes(const struct sweeper *s, bool list, bool commit, cJSON *answer, struct pf_err *err)
{
	struct pf_changes c = {.list = cJSON_AddArrayToObject(answer, "changes"), .max = MAX_LIST};

	for (size_t i = 0; i < s->n; i++)
		if ((list && pf_changes_list(s->layers[i].lower, s->layers[i].upper, s->layers[i].dest, &c,
				     err) < 0) ||
			(commit && pf_changes_apply(s->layers[i].lower, s->layers[i].upper, err) < 0))
			return -1;
	if (c.truncated)
		cJSON_AddTrueToObject(answer, "truncated");
	return 0;
}

/* {"op": "changes", "list", "commit"} → {"changes", "truncated"};
 * {"op": "keep", "name", "box" (pid, if it runs)} → {"kept"}. */
static cJSON *handle(const struct sweeper *s, const cJSON *request)
{
	const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, "op"));
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, "name"));
	const cJSON *box = cJSON_GetObjectItemCaseSensitive(request, "box");
	cJSON *answer = cJSON_CreateObject(), *kept;
	struct pf_err err = PF_ERR_INIT;
	int r;

	if (op && name && strcmp(op, "keep") == 0) {
		kept = pf_jail_keep(s->store, name, s->from.digest, s->paths, s->upper,
			box ? (pid_t)box->valueint : -1, &err);
		r = kept ? 0 : -1;
		if (kept)
			cJSON_AddItemToObject(answer, "kept", kept);
	} else {
		r = look_at_changes(s, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "list")),
			cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "commit")), answer, &err);
	}
	if (r == 0)
		return answer;
	cJSON_Delete(answer);
	answer = cJSON_CreateObject();
	cJSON_AddStringToObject(answer, "error", err.msg);
	cJSON_AddNumberToObject(answer, "kind", err.kind);
	return answer;
}

/* A directory that its owner may not enter stops rm as well: first make all of them ours again. */
static void open_up(int dir, int depth)
{
	int again = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = again < 0 ? NULL : fdopendir(again);
	struct dirent *e;

	while (d && depth < 4000 && (e = readdir(d))) {
		struct stat st;
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
			fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
			continue;
		if ((st.st_mode & 0700) != 0700)
			if (fchmodat(dir, e->d_name, 0700, AT_SYMLINK_NOFOLLOW) < 0)
				continue;
		PF_CLOSE int fd = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0)
			open_up(fd, depth + 1);
	}
}

static void remove_all(const struct sweeper *s)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (s->limits->cgroup) {
		(void)pf_cgroup_kill(s->limits->cgroup, &ignored);
		(void)pf_cgroup_remove(s->limits->cgroup, 10000, &ignored);
		pf_cgroup_prune(&s->limits->host, "/pinfold");
	}
	if (!s->name)
		return;
	PF_CLOSE int dir = openat(s->parent_fd, s->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir >= 0)
		open_up(dir, 0);
	(void)pf_rm_rf_at(s->parent_fd, s->name, &ignored);
}

__attribute__((noreturn)) static void sweep(const struct sweeper *s)
{
	struct pf_err ignored = PF_ERR_INIT;
	cJSON *request;

	/* What the store's path leads to must be the real one, also where it lies in an overlaid directory.
	 */
	int r = s->n ? unshare(CLONE_NEWNS) : 0;
	/* The outer ones first: what is mounted further in lies below them. */
	for (size_t i = 0; r == 0 && i < s->n; i++)
		r = umount2(s->layers[i].source, MNT_DETACH);
	/* A terminal's signals are for the command; this one goes when the socket ends. */
	(void)setsid();
	(void)prctl(PR_SET_NAME, "pinfold-sweeper", 0, 0, 0);
	for (int sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP && sig != SIGCHLD)
			(void)signal(sig, SIG_IGN);
	while (r == 0 && (request = pf_message_read(s->sock, &ignored))) {
		r = pf_message_write(s->sock, handle(s, request), &ignored);
		cJSON_Delete(request);
		if (r < 0)
			break;
	}
	remove_all(s);
	_exit(0);
}

/* What it has no use for must not be kept open by it: the command's pipes above all. */
static void close_others(const struct sweeper *s)
{
	int kept[MAX_LAYERS * 2 + 8];
	size_t n = 0;
	PF_CLOSEDIR DIR *d = opendir("/proc/self/fd");
	struct dirent *e;

	kept[n++] = s->sock;
	kept[n++] = s->parent_fd;
	kept[n++] = s->upper;
	for (size_t i = 0; i < s->n; i++) {
		kept[n++] = s->layers[i].lower;
		kept[n++] = s->layers[i].upper;
	}
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; null >= 0 && i < 3; i++)
		(void)dup2(null, i);
	/* The cgroup's handle is made of descriptors that are its own business: with one, ours all stay. */
	while (!s->limits->cgroup && d && (e = readdir(d))) {
		int fd = atoi(e->d_name);
		bool keep = fd < 3 || fd == dirfd(d);
		for (size_t i = 0; i < n; i++)
			keep = keep || fd == kept[i];
		if (!keep)
			close(fd);
	}
}

/* ---- the layers ---- */

/* Made or, by --from, there already. */
static int open_part(int dir, const char *name, struct pf_err *err)
{
	int fd = -1;

	if (mkdirat(dir, name, 0700) == 0 || errno == EEXIST)
		fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? pf_fail(err, errno, "scratch directory") : fd;
}

static int make_scratch(const struct pf_jail *j, struct sweeper *s, struct pf_err *err)
{
	const char *base = getenv("TMPDIR");

	if (j->from)
		base = j->store;
	else if (!base || base[0] != '/')
		base = "/var/tmp";
	PF_FREE char *path = pf_asprintf("%s/pinfold-jail-XXXXXX", base);
	if (!mkdtemp(path))
		return pf_fail(err, errno, "scratch directory %s", path);
	char *slash = strrchr(path, '/');
	s->name = pf_strdup(slash + 1);
	*slash = '\0';
	s->parent_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->parent_fd < 0)
		return pf_fail(err, errno, "scratch directory %s", path);
	PF_CLOSE int dir = openat(s->parent_fd, s->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return pf_fail(err, errno, "scratch directory %s", path);
	if (j->from && pf_jail_from_take(j, &s->from, dir, err) < 0)
		return -1;
	s->upper = open_part(dir, "upper", err);
	s->work = open_part(dir, "work", err);
	return s->upper < 0 || s->work < 0 ? -1 : 0;
}

static int mount_layer(int lower, int upper, int work, struct pf_err *err)
{
	PF_CLOSE int fs = fsopen("overlay", FSOPEN_CLOEXEC);
	char path[64];
	const struct {
		const char *key;
		int fd;
	} dirs[] = {{"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}};

	if (fs < 0)
		return pf_fail(err, errno, "overlay");
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", dirs[i].fd);
		if (fsconfig(fs, FSCONFIG_SET_STRING, dirs[i].key, path, 0) < 0)
			return pf_fail(err, errno, "overlay: %s", dirs[i].key);
	}
	/* Who is no root keeps the overlay's own marks in user.* attributes. */
	if (fsconfig(fs, FSCONFIG_SET_FLAG, "userxattr", NULL, 0) < 0 ||
		fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errno,
			"overlay without root (it takes Linux 5.11, and a scratch directory, TMPDIR, on a "
			"file system "
			"with user attributes such as ext4 or xfs)");
	int m = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	return m < 0 ? pf_fail(err, errno, "overlay") : m;
}

/* The number that stands for path in upper; *is_new when it had none. */
static size_t slot_of(struct sweeper *s, char *path, bool *is_new)
{
	for (size_t i = 0; i < s->n_paths; i++)
		if (strcmp(s->paths[i], path) == 0) {
			*is_new = false;
			return i;
		}
	*is_new = true;
	s->paths[s->n_paths] = path;
	return s->n_paths++;
}

static int add_layer(const struct pf_jail *j, struct sweeper *s, struct pf_jail_op *op, struct pf_err *err)
{
	char name[24];
	PF_CLOSE int upper = -1, work = -1, m = -1;
	struct stat st;
	bool is_new;

	if (s->n == MAX_LAYERS)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "more than %d overlaid directories", MAX_LAYERS);
	snprintf(name, sizeof(name), "%zu", slot_of(s, op->dest, &is_new));
	upper = open_part(s->upper, name, err);
	work = open_part(s->work, name, err);
	if (upper < 0 || work < 0 || pf_jail_guard_layer(j, op->dest, upper, err) < 0)
		return -1;
	/* The merged directory shows the mode of the upper's. */
	if (is_new && (fstat(op->fd, &st) < 0 || fchmod(upper, st.st_mode & 07777) < 0))
		return pf_fail(err, errno, "scratch directory");
	m = mount_layer(op->fd, upper, work, err);
	if (m < 0)
		return pf_wrap(err, "%s", op->source);
	PF_CLOSE int lower = openat(op->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lower < 0)
		return pf_fail(err, errno, "%s", op->source);
	/* Attached in our own mount namespace, since only what is can be cloned before Linux 6.15. */
	if (move_mount(m, "", op->fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return pf_fail(err, errno, "%s", op->source);
	close(op->fd);
	op->fd = pf_take_fd(&m);
	s->layers[s->n++] = (struct layer){.lower = pf_take_fd(&lower),
		.upper = pf_take_fd(&upper),
		.dest = op->dest,
		.source = op->source};
	return 0;
}

/* What --from brings has its numbers already. */
static int find_from(const struct pf_jail *j, struct sweeper *s, struct pf_err *err)
{
	if (!j->from)
		return 0;
	if (pf_jail_from_find(j, &s->from, err) < 0)
		return -1;
	size_t n = pf_strv_len(s->from.paths);
	if (n > MAX_LAYERS)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "--from %s: it has %zu directories", j->from, n);
	for (; s->n_paths < n; s->n_paths++)
		s->paths[s->n_paths] = s->from.paths[s->n_paths];
	return 0;
}

static int make_layers(struct pf_jail *j, struct sweeper *s, struct pf_err *err)
{
	if (find_from(j, s, err) < 0 || (j->keep && pf_jail_keep_check(j, err) < 0))
		return -1;
	for (size_t i = 0; i < j->n_ops; i++) {
		if (j->ops[i].kind != PF_JAIL_OVERLAY)
			continue;
		if ((!s->name && make_scratch(j, s, err) < 0) || add_layer(j, s, &j->ops[i], err) < 0)
			return -1;
	}
	return 0;
}

int pf_jail_scratch_make(struct pf_jail *j, const struct pf_jail_limits *limits, struct pf_jail_scratch *out,
	struct pf_err *err)
{
	struct sweeper s = {
		.sock = -1, .parent_fd = -1, .upper = -1, .work = -1, .store = j->store, .limits = limits};
	int pair[2], r = make_layers(j, &s, err);

	if (r == 0 && !s.name && !limits->cgroup)
		return 0;
	if (r == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		r = pf_fail(err, errno, "socketpair");
	if (r == 0) {
		s.sock = pair[1];
		out->pid = fork();
		if (out->pid == 0) {
			close(pair[0]);
			close_others(&s);
			sweep(&s);
		}
		close(pair[1]);
		out->fd = pair[0];
		if (out->pid < 0)
			r = pf_fail(err, errno, "fork");
	}
	/* The lowers are what --commit writes into; here nobody needs them any more. */
	for (size_t i = 0; i < s.n; i++) {
		close(s.layers[i].lower);
		close(s.layers[i].upper);
	}
	if (r < 0) {
		const struct pf_jail_limits none = PF_JAIL_LIMITS_INIT;
		s.limits = &none; /* the caller's to remove */
		remove_all(&s);
	}
	const int fds[] = {s.parent_fd, s.upper, s.work};
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(s.name);
	pf_jail_from_done(&s.from);
	return r;
}

/* Deletes request. NULL on error. */
static cJSON *ask(struct pf_jail_scratch *s, cJSON *request, struct pf_err *err)
{
	struct pf_err ignored = PF_ERR_INIT;
	cJSON *answer =
		pf_message_write(s->fd, request, &ignored) < 0 ? NULL : pf_message_read(s->fd, &ignored);
	const char *why = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "error"));
	const cJSON *kind = cJSON_GetObjectItemCaseSensitive(answer, "kind");

	if (answer && !why)
		return answer;
	pf_fail_kind(err, kind ? (enum pf_err_kind)kind->valueint : PF_ERR_SYSTEM, 0, "%s",
		why ? why : "the process that looks after the scratch layer is gone");
	cJSON_Delete(answer);
	return NULL;
}

int pf_jail_scratch_finish(struct pf_jail_scratch *s, bool list, bool commit, cJSON **changes,
	bool *truncated, struct pf_err *err)
{
	cJSON *m = cJSON_CreateObject();

	cJSON_AddStringToObject(m, "op", "changes");
	cJSON_AddBoolToObject(m, "list", list);
	cJSON_AddBoolToObject(m, "commit", commit);
	PF_JSON cJSON *answer = ask(s, m, err);
	if (!answer)
		return commit ? pf_wrap(err, "commit") : -1;
	*changes = list ? cJSON_DetachItemFromObjectCaseSensitive(answer, "changes") : NULL;
	*truncated = cJSON_HasObjectItem(answer, "truncated");
	return 0;
}

cJSON *pf_jail_scratch_keep(struct pf_jail_scratch *s, const char *name, pid_t box_pid, struct pf_err *err)
{
	cJSON *m = cJSON_CreateObject();

	cJSON_AddStringToObject(m, "op", "keep");
	cJSON_AddStringToObject(m, "name", name);
	if (box_pid > 0)
		cJSON_AddNumberToObject(m, "box", box_pid);
	PF_JSON cJSON *answer = ask(s, m, err);
	if (!answer)
		pf_wrap(err, "keep %s", name);
	return cJSON_DetachItemFromObjectCaseSensitive(answer, "kept");
}

void pf_jail_scratch_done(struct pf_jail_scratch *s)
{
	if (s->fd >= 0)
		close(s->fd);
	if (s->pid > 0)
		while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
			;
	*s = PF_JAIL_SCRATCH_INIT;
}
