/* Theory of operation: no command may write what later jails believe.
 *
 * A later jail takes its filter and its /etc from the caller's cache as it finds them, and a profile from his
 * own ones. It finds them by a
 * name, so it is not enough that the cache itself cannot be written: where a rule shows a directory above it
 * writable, every directory between is made a mount point as well, because one of those cannot be renamed
 * away, and the cache a read-only one. Directories are known by device and inode, wherever a rule shows them.
 * Which of the places is the cache depends on an environment that may be another one later, so all of them
 * are guarded, and made where a command could make them. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "base/str.h"
#include "jail/jail.h"

static bool writable(const struct pf_jail *j, const struct pf_jail_op *op)
{
	/* What is kept now may be committed by a later run. */
	bool taken_over = j->commit || j->keep || j->control_fd >= 0;

	return op->kind == PF_JAIL_OVERLAY ? taken_over : op->kind == PF_JAIL_BIND && !op->read_only;
}

/* In this run, not in one that takes over what this one has kept. */
static bool writes_through(const struct pf_jail *j, const struct pf_jail_op *op)
{
	return op->kind != PF_JAIL_OVERLAY || j->commit;
}

static bool is_at(const struct pf_jail_op *op, const char *path)
{
	struct stat a, b;

	return fstat(op->fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static char *joined(const char *dir, const char *rest)
{
	return pf_asprintf("%s%s", strcmp(dir, "/") == 0 ? "" : dir, *rest ? rest : "");
}

/* Show source at dest, right after rule i, so that the rules for what is deeper stay above it. */
static int hold(
	struct pf_jail *j, size_t i, const char *source, const char *dest, bool read_only, struct pf_err *err)
{
	int fd = open(source, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return pf_fail(err, errno, "%s", source);
	const struct pf_jail_op op = {.kind = PF_JAIL_BIND,
		.dest = pf_strdup(dest),
		.source = pf_strdup(source),
		.fd = fd,
		.read_only = read_only,
		.devices = j->ops[i].devices,
		.directory = true,
		.why = "what later jails trust"};
	pf_jail_add(j, op);
	memmove(&j->ops[i + 2], &j->ops[i + 1], (j->n_ops - i - 2) * sizeof(*j->ops));
	j->ops[i + 1] = op;
	return 0;
}

/* For pf_jail_guard_layer. */
static void note(struct pf_jail *j, const char *at)
{
	j->guarded = pf_grow(j->guarded, j->n_guarded, &j->cap_guarded, sizeof(*j->guarded));
	j->guarded[j->n_guarded++] = pf_strdup(at);
}

/* Rule i shows top, which is cache or above it. */
static int guard_below(struct pf_jail *j, size_t i, const char *top, const char *cache, struct pf_err *err)
{
	const char *rest = cache + (strcmp(top, "/") == 0 ? 0 : strlen(top));
	PF_FREE char *rule = pf_strdup(j->ops[i].dest), *at = joined(rule, rest);

	if (j->ops[i].kind == PF_JAIL_OVERLAY)
		note(j, at);
	/* A later rule that covers the place shows something else there, or is looked at itself. */
	for (size_t k = i + 1; k < j->n_ops; k++)
		if (pf_path_below(at, j->ops[k].dest))
			return 0;
	if (j->weak)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"%s %s: it holds %s, which later jails trust; --weak cannot leave that out",
			j->ops[i].why, j->ops[i].dest, cache);
	/* An overlay renames no directory of the one below it, and to bind that would write past it. */
	bool overlay = j->ops[i].kind == PF_JAIL_OVERLAY;
	for (const char *p = *rest && !overlay ? strchr(rest + 1, '/') : NULL; p; p = strchr(p + 1, '/')) {
		PF_FREE char *part = strndup(rest, (size_t)(p - rest));
		PF_FREE char *source = joined(top, part), *dest = joined(rule, part);
		if (hold(j, i++, source, dest, false, err) < 0)
			return -1;
	}
	return hold(j, i, cache, at, true, err);
}

/* cache is a real path. */
static int guard_real(struct pf_jail *j, const char *cache, struct pf_err *err)
{
	/* From the end, since what is added comes after the rule at hand. */
	for (size_t i = j->n_ops; i-- > 0;) {
		PF_FREE char *top = pf_strdup(cache);
		const struct pf_jail_op *op = &j->ops[i];
		if (!writable(j, op))
			continue;
		if (pf_path_below(op->source, cache) && strcmp(op->source, cache) != 0)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s %s: it lies in %s, which later jails trust", op->why, op->source, cache);
		while (!is_at(op, top) && strcmp(top, "/") != 0) {
			char *slash = strrchr(top, '/');
			slash[slash == top] = '\0';
		}
		if (is_at(op, top) && guard_below(j, i, top, cache, err) < 0)
			return -1;
	}
	return 0;
}

/* The rule by which a command could make path, whose parts may be missing; one that writes through before one
 * that does not. link: whether it could change what a link on the way means. */
static const struct pf_jail_op *in_reach(const struct pf_jail *j, const char *path, bool *link)
{
	char real[PATH_MAX];
	const struct pf_jail_op *found = NULL;
	struct stat st;

	*link = false;
	for (const char *p = path; p; p = strchr(p + 1, '/')) {
		PF_FREE char *dir = strndup(path, p == path ? 1 : (size_t)(p - path)), *name = NULL;
		const char *end = strchr(p + 1, '/');
		if (!realpath(dir, real))
			break;
		name = strndup(path, end ? (size_t)(end - path) : strlen(path));
		for (size_t i = 0; i < j->n_ops; i++)
			if (writable(j, &j->ops[i]) && pf_path_below(real, j->ops[i].source)) {
				bool through = writes_through(j, &j->ops[i]);
				if (through || !found || !writes_through(j, found))
					found = &j->ops[i];
				*link = *link || (through && access(real, W_OK) == 0 &&
							 lstat(name, &st) == 0 && S_ISLNK(st.st_mode));
			}
	}
	return found;
}

static int guard_place(struct pf_jail *j, const char *variable, const char *path, struct pf_err *err)
{
	struct pf_err ignored = PF_ERR_INIT;
	bool link;
	const struct pf_jail_op *rule = in_reach(j, path, &link);

	if (rule && link)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"%s %s: it holds a symbolic link on the way to %s, which later jails trust; set "
			"%s to where it leads",
			rule->why, rule->dest, path, variable);
	/* One that cannot be made by us cannot be made by the command either. */
	if (rule && writes_through(j, rule) && access(path, F_OK) < 0)
		(void)pf_mkdirs(path, 0700, &ignored);
	PF_FREE char *real = realpath(path, NULL);
	return real ? guard_real(j, real, err) : 0;
}

int pf_jail_guard_cache(struct pf_jail *j, struct pf_err *err)
{
	/* As they are looked for: jail/etc.c, jail/profile.c. */
	static const struct {
		const char *base, *below, *variable;
	} places[] = {{"XDG_RUNTIME_DIR", "", "XDG_RUNTIME_DIR"}, {"XDG_CACHE_HOME", "", "XDG_CACHE_HOME"},
		{"HOME", "/.cache", "XDG_CACHE_HOME"}, {"XDG_CONFIG_HOME", "", "XDG_CONFIG_HOME"},
		{"HOME", "/.config", "XDG_CONFIG_HOME"}};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		const char *base = getenv(places[i].base);
		if (!base || base[0] != '/')
			continue;
		PF_FREE char *path = pf_asprintf("%s%s/pinfold", base, places[i].below);
		if (guard_place(j, places[i].variable, path, err) < 0)
			return -1;
	}
	return 0;
}

static bool is_opaque(int dir)
{
	char v[2];

	return fgetxattr(dir, "user.overlay.opaque", v, sizeof(v)) > 0 && v[0] == 'y';
}

/* Whether a commit of upper would make, replace or remove what rest names, or something on the way to it. */
static bool writes(int upper, const char *rest)
{
	PF_CLOSE int dir = openat(upper, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_FREE char *names = pf_strdup(rest);
	struct stat st;

	for (char *save = NULL, *name = strtok_r(names, "/", &save); name;
		name = strtok_r(NULL, "/", &save)) {
		if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return errno != ENOENT;
		int next = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			return true;
		close(dir);
		dir = next;
		if (is_opaque(dir))
			return true;
	}
	return true;
}

int pf_jail_guard_layer(const struct pf_jail *j, const char *dest, int upper, struct pf_err *err)
{
	for (size_t i = 0; j->from && j->commit && i < j->n_guarded; i++) {
		const char *at = j->guarded[i];
		if (pf_path_below(at, dest) &&
			writes(upper, at + (strcmp(dest, "/") == 0 ? 0 : strlen(dest))))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"--commit: checkpoint %s would change %s, which later jails trust; take what "
				"you need of it with `checkpoint export`",
				j->from, at);
	}
	return 0;
}
