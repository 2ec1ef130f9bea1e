/* What pinfold-bwrap's command sees. As with bubblewrap, options are taken in their order: what comes later
 * is mounted over what came before. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "base/str.h"
#include "cmd/pinfold-bwrap/bwrap.h"

static struct pf_jail_op *covering(struct pf_jail *j, const char *dest)
{
	struct pf_jail_op *best = NULL;

	for (size_t i = 0; i < j->n_ops; i++) {
		struct pf_jail_op *op = &j->ops[i];
		bool mount =
			op->kind != PF_JAIL_DIR && op->kind != PF_JAIL_FILE && op->kind != PF_JAIL_SYMLINK;
		if (mount && pf_path_below(dest, op->dest))
			best = op;
	}
	return best;
}

static char *clean(const char *option, const char *dest, struct pf_err *err)
{
	PF_FREE char *whole = pf_asprintf("%s%s", dest[0] == '/' ? "" : "/", dest);
	char *c = pf_path_clean(whole, err);

	if (!c)
		pf_wrap(err, "%s", option);
	return c;
}

static int bind(struct parsed *p, const char *option, bool ro, bool dev, bool try_, struct pf_err *err)
{
	const char *src = pf_bwrap_next(p, option, err), *dst = src ? pf_bwrap_next(p, option, err) : NULL;
	char *real = NULL;
	struct stat st;

	if (!dst)
		return -1;
	PF_CLOSE int fd = pf_jail_open_path(option, src, &real, err);
	if (fd < 0)
		return try_ && err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	char *dest = clean(option, dst, err);
	if (!dest || fstat(fd, &st) < 0) {
		free(real);
		free(dest);
		return -1;
	}
	pf_jail_add(p->j, (struct pf_jail_op){.kind = PF_JAIL_BIND,
				  .dest = dest,
				  .source = real,
				  .fd = pf_take_fd(&fd),
				  .read_only = ro,
				  .devices = dev,
				  .directory = S_ISDIR(st.st_mode),
				  .why = option});
	return 0;
}

static bool is_there(const struct pf_jail_op *cover, const char *dest)
{
	struct stat st;

	if (cover && cover->directory && strcmp(cover->dest, dest) == 0)
		return true;
	if (cover && cover->kind == PF_JAIL_DEV) {
		const char *name = dest + strlen(cover->dest);
		return strcmp(name, "/shm") == 0 || strcmp(name, "/pts") == 0 || strcmp(name, "/mqueue") == 0;
	}
	if (!cover || cover->kind != PF_JAIL_BIND)
		return false;
	PF_FREE char *path = pf_asprintf(
		"%s/%s", cover->source, dest + (strcmp(cover->dest, "/") == 0 ? 0 : strlen(cover->dest)));
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* By an option before; it keeps its mode. */
static bool is_made(const struct pf_jail *j, const char *dest)
{
	for (size_t i = 0; i < j->n_ops; i++)
		if (j->ops[i].kind == PF_JAIL_DIR && strcmp(j->ops[i].dest, dest) == 0)
			return true;
	return false;
}

/* By what was mounted further in. */
static bool is_made_below(const struct pf_jail *j, const struct pf_jail_op *cover, const char *dest)
{
	for (const struct pf_jail_op *op = cover + 1; op < j->ops + j->n_ops; op++)
		if (pf_path_below(op->dest, dest))
			return true;
	return false;
}

static int simple(struct parsed *p, const char *option, enum pf_jail_kind kind, struct pf_err *err)
{
	const char *dst = pf_bwrap_next(p, option, err);
	char *dest = dst ? clean(option, dst, err) : NULL;

	if (!dest)
		return -1;
	const struct pf_jail_op *cover = covering(p->j, dest);
	bool in_root = !cover;
	/* A directory that is there already is no error, as with mkdir -p. */
	if (kind == PF_JAIL_DIR &&
		(strcmp(dest, "/") == 0 || is_there(cover, dest) || (in_root && is_made(p->j, dest)))) {
		free(dest);
		return 0;
	}
	if (kind == PF_JAIL_DIR && cover && is_made_below(p->j, cover, dest)) {
		free(dest);
		return 0;
	}
	/* Only the root itself can get new directories, but any place in a tmpfs another one on it. */
	if (kind == PF_JAIL_DIR && cover && cover->kind == PF_JAIL_TMPFS)
		kind = PF_JAIL_TMPFS;
	/* The root is a tmpfs: a part of it does for another one, and later options can put things there. */
	if (kind == PF_JAIL_TMPFS && in_root && p->size < 0)
		kind = PF_JAIL_DIR;
	if (kind == PF_JAIL_DIR && strcmp(dest, "/") == 0) {
		free(dest);
		return 0;
	}
	pf_jail_add(p->j, (struct pf_jail_op){.kind = kind,
				  .dest = dest,
				  .fd = -1,
				  .directory = true,
				  .size = p->size,
				  .mode = p->perms >= 0 ? (mode_t)p->perms : 0755,
				  .why = option});
	return 0;
}

static int data(struct parsed *p, const char *option, bool ro, struct pf_err *err)
{
	const char *num = pf_bwrap_next(p, option, err), *dst = num ? pf_bwrap_next(p, option, err) : NULL;

	if (!dst)
		return -1;
	int fd = pf_bwrap_fd(option, num, err);
	char *dest = fd < 0 ? NULL : clean(option, dst, err);
	if (!dest)
		return -1;
	pf_jail_add(p->j, (struct pf_jail_op){.kind = PF_JAIL_FILE,
				  .dest = dest,
				  .fd = fd,
				  .read_only = ro,
				  .mode = p->perms >= 0                   ? (mode_t)p->perms
					  : strcmp(option, "--file") == 0 ? 0666
									  : 0600,
				  .why = option});
	return 0;
}

static int symlink_op(struct parsed *p, const char *option, struct pf_err *err)
{
	const char *target = pf_bwrap_next(p, option, err),
		   *dst = target ? pf_bwrap_next(p, option, err) : NULL;
	char *dest = dst ? clean(option, dst, err) : NULL, now[PATH_MAX];

	if (!dest)
		return -1;
	/* The same link that is there already is no error. */
	const struct pf_jail_op *cover = covering(p->j, dest);
	if (cover && cover->kind == PF_JAIL_BIND) {
		PF_FREE char *path = pf_asprintf("%s/%s", cover->source,
			dest + (strcmp(cover->dest, "/") == 0 ? 0 : strlen(cover->dest)));
		ssize_t n = readlink(path, now, sizeof(now) - 1);
		if (n > 0 && (size_t)n == strlen(target) && memcmp(now, target, (size_t)n) == 0) {
			free(dest);
			return 0;
		}
	}
	pf_jail_add(p->j, (struct pf_jail_op){.kind = PF_JAIL_SYMLINK,
				  .dest = dest,
				  .source = pf_strdup(target),
				  .fd = -1,
				  .why = option});
	return 0;
}

static int remount_ro(struct parsed *p, const char *option, struct pf_err *err)
{
	const char *dst = pf_bwrap_next(p, option, err);
	PF_FREE char *dest = dst ? clean(option, dst, err) : NULL;
	bool filled = false;

	if (!dest)
		return -1;
	for (size_t i = p->j->n_ops; i-- > 0;) {
		struct pf_jail_op *op = &p->j->ops[i];
		if (pf_path_below(op->dest, dest) && strcmp(op->dest, dest) != 0)
			filled = true;
		if (strcmp(op->dest, dest) != 0)
			continue;
		/* A part of the root that did for a file system of its own; read-only it has to be one, and
		 * would then hide what was put there. */
		if (op->kind == PF_JAIL_DIR && strcmp(op->why, "--tmpfs") == 0 && !filled)
			op->kind = PF_JAIL_TMPFS;
		if (op->kind == PF_JAIL_BIND || op->kind == PF_JAIL_TMPFS) {
			op->read_only = true;
			return 0;
		}
	}
	if (strcmp(dest, "/") == 0) {
		p->j->root_read_only = true;
		return 0;
	}
	return pf_bwrap_usage("--remount-ro %s: nothing was mounted there", dest, err);
}

static int change_mode(struct parsed *p, const char *option, struct pf_err *err)
{
	const char *text = pf_bwrap_next(p, option, err), *dst = text ? pf_bwrap_next(p, option, err) : NULL;
	PF_FREE char *dest = dst ? clean(option, dst, err) : NULL;
	char *end;

	if (!dest)
		return -1;
	unsigned long mode = strtoul(text, &end, 8);
	if (!*text || *end || mode > 07777)
		return pf_bwrap_usage("--chmod: %s is no mode in octal", text, err);
	for (size_t i = p->j->n_ops; i-- > 0;)
		if (strcmp(p->j->ops[i].dest, dest) == 0 &&
			(p->j->ops[i].kind == PF_JAIL_DIR || p->j->ops[i].kind == PF_JAIL_FILE ||
				p->j->ops[i].kind == PF_JAIL_TMPFS)) {
			p->j->ops[i].mode = (mode_t)mode;
			return 0;
		}
	return pf_bwrap_usage("--chmod %s: it is nothing that was made here", dest, err);
}

/* A new procfs would be one of the caller's process ids, which no user namespace of ours may mount: there it
 * is the caller's own, without what root writes to. */
int pf_bwrap_share_proc(struct pf_jail *j, struct pf_err *err)
{
	static const char *const covered[] = {"", "/sys", "/sysrq-trigger", "/irq", "/bus"};
	size_t n = j->n_ops;

	for (size_t i = 0; i < n; i++) {
		if (j->ops[i].kind != PF_JAIL_PROC)
			continue;
		struct pf_jail_op all[sizeof(covered) / sizeof(covered[0])];
		size_t made = 0;
		for (size_t k = 0; k < sizeof(covered) / sizeof(covered[0]); k++) {
			PF_FREE char *source = pf_asprintf("/proc%s", covered[k]);
			PF_CLOSE int fd = open(source, O_PATH | O_CLOEXEC);
			struct stat st;
			if (fd < 0 || fstat(fd, &st) < 0) {
				if (k > 0)
					continue;
				return pf_fail(err, errno, "--proc");
			}
			all[made++] = (struct pf_jail_op){.kind = PF_JAIL_BIND,
				.dest = pf_asprintf("%s%s", j->ops[i].dest, covered[k]),
				.source = pf_take(source),
				.fd = pf_take_fd(&fd),
				.read_only = k > 0,
				.directory = S_ISDIR(st.st_mode),
				.why = "--proc"};
		}
		free(j->ops[i].dest);
		j->ops[i] = all[0];
		for (size_t k = 1; k < made; k++) {
			pf_jail_add(j, all[k]);
			struct pf_jail_op last = j->ops[j->n_ops - 1];
			memmove(&j->ops[i + k + 1], &j->ops[i + k], (j->n_ops - 1 - i - k) * sizeof(last));
			j->ops[i + k] = last;
		}
		n = j->n_ops;
		i += made - 1;
	}
	return 0;
}

/* 1: taken, 0: not of this kind. */
int pf_bwrap_file_option(struct parsed *p, const char *o, struct pf_err *err)
{
	static const struct {
		const char *name;
		bool ro, dev, try_;
	} binds[] = {{"--bind", 0, 0, 0}, {"--bind-try", 0, 0, 1}, {"--dev-bind", 0, 1, 0},
		{"--dev-bind-try", 0, 1, 1}, {"--ro-bind", 1, 0, 0}, {"--ro-bind-try", 1, 0, 1}};
	static const struct {
		const char *name;
		enum pf_jail_kind kind;
	} simples[] = {{"--proc", PF_JAIL_PROC}, {"--dev", PF_JAIL_DEV}, {"--tmpfs", PF_JAIL_TMPFS},
		{"--mqueue", PF_JAIL_MQUEUE}, {"--dir", PF_JAIL_DIR}};
	int r = 2;

	for (size_t i = 0; i < sizeof(binds) / sizeof(binds[0]); i++)
		if (strcmp(o, binds[i].name) == 0)
			r = bind(p, binds[i].name, binds[i].ro, binds[i].dev, binds[i].try_, err);
	for (size_t i = 0; i < sizeof(simples) / sizeof(simples[0]); i++)
		if (strcmp(o, simples[i].name) == 0)
			r = simple(p, simples[i].name, simples[i].kind, err);
	if (strcmp(o, "--file") == 0 || strcmp(o, "--bind-data") == 0)
		r = data(p, strcmp(o, "--file") == 0 ? "--file" : "--bind-data", false, err);
	else if (strcmp(o, "--ro-bind-data") == 0)
		r = data(p, "--ro-bind-data", true, err);
	else if (strcmp(o, "--symlink") == 0)
		r = symlink_op(p, "--symlink", err);
	else if (strcmp(o, "--remount-ro") == 0)
		r = remount_ro(p, o, err);
	else if (strcmp(o, "--chmod") == 0)
		r = change_mode(p, o, err);
	return r == 2 ? 0 : r < 0 ? -1 : 1;
}

/* Where it starts: --chdir, else where we are if that is there inside, else home, else the root. */
char *pf_bwrap_working_directory(const struct parsed *p, const char *own)
{
	struct pf_jail_op *cover;

	if (p->chdir)
		return pf_strdup(p->chdir);
	cover = covering(p->j, own);
	if (cover && cover->kind == PF_JAIL_BIND && is_there(cover, own))
		return pf_strdup(own);
	for (size_t i = 0; i < p->j->n_env; i++)
		if (pf_starts_with(p->j->env[i], "HOME=/")) {
			const char *home = p->j->env[i] + 5;
			cover = covering(p->j, home);
			bool made = false;
			for (size_t k = 0; k < p->j->n_ops; k++)
				made = made ||
				       (p->j->ops[k].directory && strcmp(p->j->ops[k].dest, home) == 0);
			if (made || (cover && is_there(cover, home)))
				return pf_strdup(home);
		}
	return pf_strdup("/");
}
