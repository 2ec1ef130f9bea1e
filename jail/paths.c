/* Theory of operation: what the command sees.
 *
 * Rules come in any order and nest by depth: a rule for a directory covers what is below it until a deeper
 * rule says otherwise. That is what mounting them in the order of their paths gives, so they are sorted once,
 * stably, and of several rules for one place the last is kept. A path is resolved when its rule is given, to
 * a descriptor; from then on names play no part, and who swaps a directory for a link afterwards changes
 * nothing. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "jail/jail.h"
#include "jail/run.h"

/* linux/magic.h */
#define PROC_MAGIC 0x9fa0

void pf_jail_add(struct pf_jail *j, struct pf_jail_op op)
{
	struct pf_jail_op *more = realloc(j->ops, (j->n_ops + 1) * sizeof(*more));

	if (!more)
		abort();
	j->ops = more;
	j->ops[j->n_ops++] = op;
}

/* The longest part of path that there is, for "did you mean". */
static void nearest(const char *path, char out[PATH_MAX])
{
	snprintf(out, PATH_MAX, "%s", path);
	for (;;) {
		char *slash = strrchr(out, '/');
		if (!slash) {
			snprintf(out, PATH_MAX, ".");
			return;
		}
		slash[slash == out] = '\0';
		if (access(out, F_OK) == 0 || strcmp(out, "/") == 0)
			return;
	}
}

int pf_jail_open_path(const char *option, const char *path, char **real, struct pf_err *err)
{
	char link[64], name[PATH_MAX], near[PATH_MAX];
	struct statfs fs;
	ssize_t n;

	if (!*path)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: the path is empty", option);
	PF_CLOSE int fd = open(path, O_PATH | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
		nearest(path, near);
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "%s %s: there is no such path (%s is there)",
			option, path, near);
	}
	if (fd < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "%s %s", option, path);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, name, sizeof(name) - 1);
	if (n <= 0 || n >= PATH_MAX - 1 || name[0] != '/')
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s %s: it has no path of its own", option, path);
	name[n] = '\0';
	/* Its own procfs shows the command its own processes; the machine's would show all. */
	if (fstatfs(fd, &fs) < 0 || fs.f_type == PROC_MAGIC)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s %s: it lies in the machine's /proc; the command has a /proc of its own", option,
			path);
	*real = pf_strdup(name);
	return pf_take_fd(&fd);
}

static bool is_directory(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

int pf_jail_show(struct pf_jail *j, const char *option, const char *path, bool read_only, bool missing_ok,
	struct pf_err *err)
{
	char *real = NULL;
	int fd = pf_jail_open_path(option, path, &real, err);

	if (fd < 0)
		return missing_ok && err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	if (strcmp(real, "/") == 0) {
		close(fd);
		free(real);
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s /: that is the whole machine; name the directories that the command needs",
			option);
	}
	pf_jail_add(j, (struct pf_jail_op){.kind = PF_JAIL_BIND,
			       .dest = pf_strdup(real),
			       .source = real,
			       .fd = fd,
			       .read_only = read_only,
			       .directory = is_directory(fd),
			       .why = option});
	return 0;
}

int pf_jail_hide(struct pf_jail *j, const char *option, const char *path, struct pf_err *err)
{
	char *real = NULL;
	PF_CLOSE int fd = pf_jail_open_path(option, path, &real, err);

	if (fd < 0)
		return -1;
	pf_jail_add(j, (struct pf_jail_op){.kind = PF_JAIL_HIDE,
			       .dest = real,
			       .fd = -1,
			       .directory = is_directory(fd),
			       .mode = 0755,
			       .size = -1,
			       .why = option});
	return 0;
}

int pf_jail_overlay(struct pf_jail *j, struct pf_err *err)
{
	size_t n = 0;

	for (int again = 0; again < 2 && n == 0; again++) {
		if (again && pf_jail_show(j, "--overlay", j->cwd, false, false, err) < 0)
			return -1;
		for (size_t i = 0; i < j->n_ops; i++) {
			struct pf_jail_op *op = &j->ops[i];
			if (op->kind != PF_JAIL_BIND || op->read_only)
				continue;
			if (!op->directory)
				return pf_fail_kind(err, PF_ERR_INVALID, 0,
					"--overlay: %s is no directory; name the one that it is in",
					op->source);
			op->kind = PF_JAIL_OVERLAY;
			n++;
		}
	}
	return 0;
}

int pf_jail_tmpfs(struct pf_jail *j, const char *option, const char *path, int64_t size, struct pf_err *err)
{
	if (!*path)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: the path is empty", option);
	PF_FREE char *whole =
		path[0] == '/' ? pf_strdup(path) : pf_asprintf("%s/%s", j->cwd ? j->cwd : "", path);
	char *clean = pf_path_clean(whole, err);

	if (!clean)
		return pf_wrap(err, "%s", option);
	if (strcmp(clean, "/") == 0) {
		free(clean);
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s /: the root is one already", option);
	}
	pf_jail_add(j, (struct pf_jail_op){.kind = PF_JAIL_TMPFS,
			       .dest = clean,
			       .fd = -1,
			       .directory = true,
			       .size = size,
			       .mode = 0755,
			       .why = option});
	return 0;
}

/* ---- the defaults ---- */

static int add_system(struct pf_jail *j, struct pf_err *err)
{
	static const char *const dirs[] = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
	struct stat st;

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		char target[256];
		if (lstat(dirs[i], &st) < 0)
			continue;
		if (!S_ISLNK(st.st_mode)) {
			if (pf_jail_show(j, "system", dirs[i], true, true, err) < 0)
				return -1;
			continue;
		}
		ssize_t n = readlink(dirs[i], target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		pf_jail_add(j, (struct pf_jail_op){.kind = PF_JAIL_SYMLINK,
				       .dest = pf_strdup(dirs[i]),
				       .source = pf_strdup(target),
				       .fd = -1,
				       .why = "system"});
	}
	return 0;
}

static void add_simple(struct pf_jail *j, enum pf_jail_kind kind, const char *dest, mode_t mode, int64_t size)
{
	pf_jail_add(j, (struct pf_jail_op){.kind = kind,
			       .dest = pf_strdup(dest),
			       .fd = -1,
			       .directory = true,
			       .size = size,
			       .mode = mode,
			       .why = "default"});
}

static int add_home(struct pf_jail *j, const char *home, int64_t size, struct pf_err *err)
{
	char *real = NULL;
	int fd;

	if (!home || strcmp(home, "private") == 0) {
		add_simple(j, PF_JAIL_TMPFS, j->home, 0700, size);
		return 0;
	}
	if (strcmp(home, "keep") == 0)
		return pf_jail_show(j, "--home", j->home, true, false, err);
	fd = pf_jail_open_path("--home", home, &real, err);
	if (fd < 0)
		return -1;
	if (!is_directory(fd)) {
		close(fd);
		free(real);
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "--home %s: it is no directory", home);
	}
	pf_jail_add(j, (struct pf_jail_op){.kind = PF_JAIL_BIND,
			       .dest = pf_strdup(j->home),
			       .source = real,
			       .fd = fd,
			       .directory = true,
			       .why = "--home"});
	return 0;
}

static const struct pf_jail_op *rule_for(const struct pf_jail *j, const char *path)
{
	for (size_t i = j->n_ops; i-- > 0;)
		if (strcmp(j->ops[i].dest, path) == 0)
			return &j->ops[i];
	return NULL;
}

/* The directory that the command starts in is seen, unless that would show the whole home or machine, or
 * uncover what it gets anew (/tmp). rules: the user's own. */
static int add_cwd(struct pf_jail *j, const struct pf_jail *rules, struct pf_err *err)
{
	const struct pf_jail_op *own = rule_for(j, j->cwd);
	bool is_new = own && own->kind != PF_JAIL_BIND;

	if (strcmp(j->cwd, "/") == 0 || rule_for(rules, j->cwd) || (own && !is_new))
		return 0;
	if (is_new || pf_path_below(j->home, j->cwd)) {
		PF_FREE char *text = pf_asprintf(
			"the working directory, %s, is one that the command has of its own, or "
			"above your home, and stays hidden: show what is needed with --ro PATH or "
			"--rw PATH, or work in a directory below it",
			j->cwd);
		if (j->warn)
			j->warn(j->say_arg, text);
		return 0;
	}
	return pf_jail_show(j, "working directory", j->cwd, true, true, err);
}

static int by_place(const void *a, const void *b)
{
	const struct pf_jail_op *x = a, *y = b;
	int r = strcmp(x->dest, y->dest);

	/* Between rules for one place the order in which they were given, kept in mode's stead by sort(). */
	return r ? r : (x->size > y->size) - (x->size < y->size);
}

static void drop_op(struct pf_jail_op *op)
{
	free(op->dest);
	free(op->source);
	if (op->fd >= 0)
		close(op->fd);
}

/* strcmp() puts "/a b" between "/a" and "/a/c", which does no harm: a parent still precedes what is below it.
 */
static void sort(struct pf_jail *j)
{
	int64_t *sizes = pf_calloc(j->n_ops + 1, sizeof(*sizes));
	size_t n = 0;

	for (size_t i = 0; i < j->n_ops; i++) {
		sizes[i] = j->ops[i].size;
		j->ops[i].size = (int64_t)i;
	}
	qsort(j->ops, j->n_ops, sizeof(*j->ops), by_place);
	for (size_t i = 0; i < j->n_ops; i++) {
		j->ops[i].size = sizes[j->ops[i].size];
		if (n > 0 && strcmp(j->ops[n - 1].dest, j->ops[i].dest) == 0)
			drop_op(&j->ops[--n]);
		j->ops[n++] = j->ops[i];
	}
	j->n_ops = n;
	free(sizes);
}

int pf_jail_add_defaults(struct pf_jail *j, const char *home, int64_t size, struct pf_err *err)
{
	struct pf_jail own = {.home = j->home, .cwd = j->cwd, .warn = j->warn, .say_arg = j->say_arg};

	if (add_system(&own, err) < 0)
		goto fail;
	add_simple(&own, PF_JAIL_PROC, "/proc", 0, -1);
	add_simple(&own, PF_JAIL_DEV, "/dev", 0755, -1);
	add_simple(&own, PF_JAIL_MQUEUE, "/dev/mqueue", 0, -1);
	add_simple(&own, PF_JAIL_TMPFS, "/dev/shm", 01777, size);
	add_simple(&own, PF_JAIL_TMPFS, "/tmp", 01777, size);
	add_simple(&own, PF_JAIL_TMPFS, "/var/tmp", 01777, size);
	add_simple(&own, PF_JAIL_TMPFS, "/run", 0755, size);
	if (add_home(&own, home, size, err) < 0 || add_cwd(&own, j, err) < 0)
		goto fail;
	/* The user's rules come after, so that they win where they name the same place. */
	for (size_t i = 0; i < j->n_ops; i++)
		pf_jail_add(&own, j->ops[i]);
	free(j->ops);
	j->ops = own.ops;
	j->n_ops = own.n_ops;
	sort(j);
	return 0;
fail:
	for (size_t i = 0; i < own.n_ops; i++)
		drop_op(&own.ops[i]);
	free(own.ops);
	return -1;
}

void pf_jail_init(struct pf_jail *j)
{
	*j = (struct pf_jail){.memory = -1,
		.pids = -1,
		.millicpus = -1,
		.timeout_ms = -1,
		.grace_ms = 10000,
		.seccomp_fd = -1,
		.control_fd = -1,
		.ready_fd = -1,
		.root_read_only = true,
		.etc = true,
		.die_with_parent = true,
		.new_session = true,
		.capture_max = (size_t)1 << 20};
}

void pf_jail_done(struct pf_jail *j)
{
	pf_jail_lone_net_done(j);
	for (size_t i = 0; i < j->n_ops; i++)
		drop_op(&j->ops[i]);
	free(j->ops);
	pf_strv_free(j->argv);
	pf_strv_free(j->env);
	free(j->cwd);
	free(j->user_name);
	free(j->home);
	free(j->hostname);
	free(j->keep);
	free(j->from);
	while (j->n_guarded > 0)
		free(j->guarded[--j->n_guarded]);
	free(j->guarded);
	free(j->store);
	cJSON_Delete(j->networking);
	cJSON_Delete(j->seccomp_object);
	if (j->seccomp_fd >= 0)
		close(j->seccomp_fd);
	*j = (struct pf_jail){.seccomp_fd = -1};
}

void pf_jail_result_done(struct pf_jail_result *r)
{
	free(r->out);
	free(r->err_out);
	cJSON_Delete(r->denied);
	cJSON_Delete(r->changes);
	cJSON_Delete(r->kept);
	cJSON_Delete(r->learned);
	*r = (struct pf_jail_result){0};
}
