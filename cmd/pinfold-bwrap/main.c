/* pinfold-bwrap: bubblewrap's command line in front of jail/, so that a program which spawns bwrap can be
 * pointed here. docs/jail.md has the table of what is accepted. Options are taken in their order, as there:
 * what comes later is mounted over what came before. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "base/units.h"
#include "jail/jail.h"
#include "sandbox/caps.h"

static const char help[] =
	"usage: pinfold-bwrap [options] [--] COMMAND [ARGUMENT…]\n\n"
	"Takes bubblewrap's options (see bwrap(1)) and builds the same box with Pinfold.\n\n"
	"  --args FD --unshare-all --share-net --unshare-{user,ipc,pid,net,uts,cgroup}[-try]\n"
	"  --disable-userns --assert-userns-disabled --uid N --gid N --hostname NAME --chdir DIR\n"
	"  --clearenv --setenv NAME VALUE --unsetenv NAME --sync-fd FD --block-fd FD --info-fd FD\n"
	"  --json-status-fd FD --bind SRC DEST --dev-bind SRC DEST --ro-bind SRC DEST (each also -try)\n"
	"  --remount-ro DEST --proc DEST --dev DEST --tmpfs DEST --mqueue DEST --dir DEST\n"
	"  --file FD DEST --bind-data FD DEST --ro-bind-data FD DEST --symlink TARGET DEST\n"
	"  --perms MODE --size BYTES --chmod MODE PATH --seccomp FD --new-session --die-with-parent\n"
	"  --as-pid-1 --cap-add CAP --cap-drop CAP --version --help\n\n"
	"Not here: --userns --userns2 --pidns --userns-block-fd --lock-file --exec-label --file-label, and\n"
	"more than one --seccomp or --add-seccomp-fd. Open descriptors above 2 are not handed on.\n";

struct words {
	char **v;
	size_t n, next;
};

struct parsed {
	struct pf_jail *j;
	struct words words;
	const char *chdir;
	bool share_net, unshare_net, assert_no_userns, disable_userns;
	int64_t perms, size; /* of the next operation; -1 */
	int info_fd, status_fd, block_fd;
};

static int usage(const char *fmt, const char *arg, struct pf_err *err)
{
	return pf_fail_kind(err, PF_ERR_INVALID, 0, fmt, arg);
}

static const char *next(struct parsed *p, const char *option, struct pf_err *err)
{
	if (p->words.next >= p->words.n) {
		usage("%s: an argument is missing", option, err);
		return NULL;
	}
	return p->words.v[p->words.next++];
}

static void push(struct words *w, char *s)
{
	char **more = realloc(w->v, (w->n + 2) * sizeof(*more));

	if (!more)
		abort();
	w->v = more;
	w->v[w->n++] = s;
	w->v[w->n] = NULL;
}

static int parse_fd(const char *option, const char *text, struct pf_err *err)
{
	int64_t fd;

	if (pf_parse_int(option, text, 0, INT_MAX, &fd, err) < 0)
		return -1;
	if (fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "%s %s", option, text);
	return (int)fd;
}

/* --args FD: options, each ended by a NUL, in the place of the two words. */
static int splice_args(struct parsed *p, int fd, struct pf_err *err)
{
	struct words all = {0};
	PF_BUF struct pf_buf text = {0};
	char chunk[4096];
	ssize_t n;

	while ((n = read(fd, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)) {
		if (n > 0)
			pf_buf_add(&text, chunk, (size_t)n);
		if (text.len > (size_t)8 << 20)
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "--args: more than 8 MiB");
	}
	if (n < 0)
		return pf_fail(err, errno, "--args");
	for (size_t i = 0; i < p->words.next; i++)
		push(&all, p->words.v[i]);
	for (size_t at = 0; at < text.len; at += strlen(text.data + at) + 1)
		push(&all, pf_strdup(text.data + at));
	for (size_t i = p->words.next; i < p->words.n; i++)
		push(&all, p->words.v[i]);
	all.next = p->words.next;
	free(p->words.v);
	p->words = all;
	return 0;
}

/* ---- files ---- */

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
	const char *src = next(p, option, err), *dst = src ? next(p, option, err) : NULL;
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

	if (!cover || cover->kind != PF_JAIL_BIND)
		return false;
	PF_FREE char *path = pf_asprintf(
		"%s/%s", cover->source, dest + (strcmp(cover->dest, "/") == 0 ? 0 : strlen(cover->dest)));
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int simple(struct parsed *p, const char *option, enum pf_jail_kind kind, struct pf_err *err)
{
	const char *dst = next(p, option, err);
	char *dest = dst ? clean(option, dst, err) : NULL;

	if (!dest)
		return -1;
	const struct pf_jail_op *cover = covering(p->j, dest);
	bool in_root = !cover;
	/* A directory that is there already is no error, as with mkdir -p. */
	if (kind == PF_JAIL_DIR && (strcmp(dest, "/") == 0 || is_there(cover, dest))) {
		free(dest);
		return 0;
	}
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
	const char *num = next(p, option, err), *dst = num ? next(p, option, err) : NULL;

	if (!dst)
		return -1;
	int fd = parse_fd(option, num, err);
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
	const char *target = next(p, option, err), *dst = target ? next(p, option, err) : NULL;
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
	const char *dst = next(p, option, err);
	PF_FREE char *dest = dst ? clean(option, dst, err) : NULL;

	if (!dest)
		return -1;
	for (size_t i = p->j->n_ops; i-- > 0;) {
		struct pf_jail_op *op = &p->j->ops[i];
		if (strcmp(op->dest, dest) == 0 && (op->kind == PF_JAIL_BIND || op->kind == PF_JAIL_TMPFS)) {
			op->read_only = true;
			return 0;
		}
	}
	if (strcmp(dest, "/") == 0) {
		p->j->root_read_only = true;
		return 0;
	}
	return usage("--remount-ro %s: nothing was mounted there", dest, err);
}

static int change_mode(struct parsed *p, const char *option, struct pf_err *err)
{
	const char *text = next(p, option, err), *dst = text ? next(p, option, err) : NULL;
	PF_FREE char *dest = dst ? clean(option, dst, err) : NULL;
	char *end;

	if (!dest)
		return -1;
	unsigned long mode = strtoul(text, &end, 8);
	if (!*text || *end || mode > 07777)
		return usage("--chmod: %s is no mode in octal", text, err);
	for (size_t i = p->j->n_ops; i-- > 0;)
		if (strcmp(p->j->ops[i].dest, dest) == 0 &&
			(p->j->ops[i].kind == PF_JAIL_DIR || p->j->ops[i].kind == PF_JAIL_FILE ||
				p->j->ops[i].kind == PF_JAIL_TMPFS)) {
			p->j->ops[i].mode = (mode_t)mode;
			return 0;
		}
	return usage("--chmod %s: it is nothing that was made here", dest, err);
}

/* ---- environment, ids, privileges ---- */

static void unset(struct pf_jail *j, const char *name)
{
	size_t len = strlen(name), n = 0;

	for (size_t i = 0; i < j->n_env; i++) {
		if (strncmp(j->env[i], name, len) == 0 && j->env[i][len] == '=')
			free(j->env[i]);
		else
			j->env[n++] = j->env[i];
	}
	j->n_env = n;
	if (j->env)
		j->env[n] = NULL;
}

static void add_env(struct pf_jail *j, char *entry)
{
	char **more = realloc(j->env, (j->n_env + 2) * sizeof(*more));

	if (!more)
		abort();
	j->env = more;
	j->env[j->n_env++] = entry;
	j->env[j->n_env] = NULL;
}

static int set_env(struct parsed *p, const char *option, struct pf_err *err)
{
	const char *name = next(p, option, err), *value = name ? next(p, option, err) : NULL;

	if (!value)
		return -1;
	unset(p->j, name);
	add_env(p->j, pf_asprintf("%s=%s", name, value));
	return 0;
}

static int capability(struct parsed *p, const char *option, bool add, struct pf_err *err)
{
	const char *name = next(p, option, err);
	uint64_t mask;

	if (!name)
		return -1;
	if (strcasecmp(name, "ALL") == 0)
		mask = pf_caps_kernel();
	else if (pf_caps_parse((const char *[]){name, NULL}, &mask, err) < 0)
		return pf_wrap(err, "%s", option);
	p->j->caps = add ? p->j->caps | mask : p->j->caps & ~mask;
	return 0;
}

static int number(struct parsed *p, const char *option, int64_t max, int64_t *out, struct pf_err *err)
{
	const char *text = next(p, option, err);

	return text ? pf_parse_int(option, text, 0, max, out, err) : -1;
}

static int descriptor(struct parsed *p, const char *option, int *fd, struct pf_err *err)
{
	const char *text = next(p, option, err);

	*fd = text ? parse_fd(option, text, err) : -1;
	return *fd < 0 ? -1 : 0;
}

/* ---- the options ---- */

static int unshare_option(struct parsed *p, const char *o)
{
	static const struct {
		const char *name;
		size_t offset;
	} kinds[] = {{"--unshare-ipc", offsetof(struct pf_jail, share_ipc)},
		{"--unshare-pid", offsetof(struct pf_jail, share_pid)},
		{"--unshare-uts", offsetof(struct pf_jail, share_uts)},
		{"--unshare-cgroup", offsetof(struct pf_jail, share_cgroup)},
		{"--unshare-cgroup-try", offsetof(struct pf_jail, share_cgroup)}};
	bool all = strcmp(o, "--unshare-all") == 0, found = all;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (all || strcmp(o, kinds[i].name) == 0) {
			*(bool *)((char *)p->j + kinds[i].offset) = false;
			found = true;
		}
	if (all || strcmp(o, "--unshare-net") == 0)
		p->unshare_net = found = true;
	/* There is always one. */
	return found || strcmp(o, "--unshare-user") == 0 || strcmp(o, "--unshare-user-try") == 0;
}

/* 1: taken, 0: not of this kind. */
static int file_option(struct parsed *p, const char *o, struct pf_err *err)
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

static int seccomp(struct parsed *p, const char *o, struct pf_err *err)
{
	if (p->j->seccomp == PF_JAIL_SECCOMP_BPF)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "%s: only one filter can be given", o);
	p->j->seccomp = PF_JAIL_SECCOMP_BPF;
	return descriptor(p, o, &p->j->seccomp_fd, err);
}

static int perms(struct parsed *p, struct pf_err *err)
{
	const char *text = next(p, "--perms", err);
	char *end;

	if (!text)
		return -1;
	p->perms = (int64_t)strtoul(text, &end, 8);
	return *text && !*end && p->perms <= 07777 ? 0 : usage("--perms: %s is no mode in octal", text, err);
}

static int other_option(struct parsed *p, const char *o, struct pf_err *err)
{
	static const char *const not_here[] = {"--userns", "--userns2", "--pidns", "--userns-block-fd",
		"--lock-file", "--exec-label", "--file-label"};
	struct pf_jail *j = p->j;
	int64_t n;
	int fd;

	if (strcmp(o, "--share-net") == 0) {
		p->share_net = true;
	} else if (strcmp(o, "--new-session") == 0) {
		j->new_session = true;
	} else if (strcmp(o, "--die-with-parent") == 0) {
		j->die_with_parent = true;
	} else if (strcmp(o, "--as-pid-1") == 0) {
		j->as_pid_1 = true;
	} else if (strcmp(o, "--disable-userns") == 0) {
		p->disable_userns = true;
	} else if (strcmp(o, "--assert-userns-disabled") == 0) {
		p->assert_no_userns = true;
	} else if (strcmp(o, "--clearenv") == 0) {
		while (j->n_env)
			free(j->env[--j->n_env]);
	} else if (strcmp(o, "--setenv") == 0) {
		return set_env(p, "--setenv", err);
	} else if (strcmp(o, "--unsetenv") == 0) {
		const char *name = next(p, o, err);
		if (!name)
			return -1;
		unset(j, name);
	} else if (strcmp(o, "--uid") == 0 || strcmp(o, "--gid") == 0) {
		if (number(p, o, UINT32_MAX - 1, &n, err) < 0)
			return -1;
		*(o[2] == 'u' ? &j->uid : &j->gid) = (uint32_t)n;
	} else if (strcmp(o, "--hostname") == 0) {
		const char *name = next(p, o, err);
		if (!name)
			return -1;
		free(j->hostname);
		j->hostname = pf_strdup(name);
	} else if (strcmp(o, "--chdir") == 0) {
		p->chdir = next(p, "--chdir", err);
		return p->chdir ? 0 : -1;
	} else if (strcmp(o, "--cap-add") == 0 || strcmp(o, "--cap-drop") == 0) {
		return capability(p, o[6] == 'a' ? "--cap-add" : "--cap-drop", o[6] == 'a', err);
	} else if (strcmp(o, "--sync-fd") == 0) {
		/* It stays open for as long as we are there. */
		return descriptor(p, "--sync-fd", &fd, err);
	} else if (strcmp(o, "--block-fd") == 0) {
		return descriptor(p, "--block-fd", &p->block_fd, err);
	} else if (strcmp(o, "--info-fd") == 0) {
		return descriptor(p, "--info-fd", &p->info_fd, err);
	} else if (strcmp(o, "--json-status-fd") == 0) {
		return descriptor(p, "--json-status-fd", &p->status_fd, err);
	} else if (strcmp(o, "--seccomp") == 0 || strcmp(o, "--add-seccomp-fd") == 0) {
		return seccomp(p, o, err);
	} else if (strcmp(o, "--args") == 0) {
		return descriptor(p, "--args", &fd, err) < 0 ? -1 : splice_args(p, fd, err);
	} else {
		for (size_t i = 0; i < sizeof(not_here) / sizeof(not_here[0]); i++)
			if (strcmp(o, not_here[i]) == 0)
				return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
					"%s is not supported (docs/jail.md has the table)", o);
		return usage("unknown option %s", o, err);
	}
	return 0;
}

static int parse(struct parsed *p, struct pf_err *err)
{
	while (p->words.next < p->words.n) {
		const char *o = p->words.v[p->words.next];
		int r;

		if (strncmp(o, "--", 2) != 0)
			break;
		p->words.next++;
		if (strcmp(o, "--") == 0)
			break;
		if (strcmp(o, "--help") == 0) {
			fputs(help, stdout);
			exit(0);
		}
		if (strcmp(o, "--version") == 0) {
			printf("bubblewrap 0.8.0 (pinfold-bwrap %s)\n", PF_VERSION);
			exit(0);
		}
		if (strcmp(o, "--perms") == 0) {
			if (perms(p, err) < 0)
				return -1;
			continue;
		}
		if (strcmp(o, "--size") == 0) {
			if (number(p, "--size", INT64_MAX, &p->size, err) < 0)
				return -1;
			continue;
		}
		r = unshare_option(p, o) ? 1 : file_option(p, o, err);
		if (r < 0 || (r == 0 && other_option(p, o, err) < 0))
			return -1;
		p->perms = p->size = -1;
	}
	return 0;
}

/* ---- running ---- */

static void on_started(void *arg, pid_t pid)
{
	const struct parsed *p = arg;
	PF_FREE char *text = pf_asprintf("{\n    \"child-pid\": %d\n}\n", (int)pid);
	PF_FREE char *line = pf_asprintf("{ \"child-pid\": %d }\n", (int)pid);

	if (p->info_fd >= 0) {
		(void)pf_write_all(p->info_fd, text, strlen(text));
		close(p->info_fd);
	}
	if (p->status_fd >= 0)
		(void)pf_write_all(p->status_fd, line, strlen(line));
}

/* Where it starts: --chdir, else where we are if that is there inside, else home, else the root. */
static char *working_directory(const struct parsed *p, const char *own)
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

static int settle(struct parsed *p, const char *cwd, struct pf_err *err)
{
	struct pf_jail *j = p->j;
	char byte;

	if (p->words.next >= p->words.n)
		return usage("no command given%s", "", err);
	j->net = p->unshare_net && !p->share_net ? PF_JAIL_NET_NONE : PF_JAIL_NET_HOST;
	if (j->share_pid) {
		/* A procfs shows a pid namespace, and may be mounted by who owns that: here the caller's. */
		for (size_t i = 0; i < j->n_ops; i++)
			if (j->ops[i].kind == PF_JAIL_PROC)
				return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
					"--proc %s: this takes a pid namespace of its own; add --unshare-pid",
					j->ops[i].dest);
		j->as_pid_1 = true;
	}
	/* The list lets nobody make a namespace. */
	if ((p->disable_userns || p->assert_no_userns) && j->seccomp == PF_JAIL_SECCOMP_OFF)
		j->seccomp = PF_JAIL_SECCOMP_DEFAULT;
	j->cwd = working_directory(p, cwd);
	if (p->chdir) {
		unset(j, "PWD");
		add_env(j, pf_asprintf("PWD=%s", p->chdir));
	}
	size_t n = p->words.n - p->words.next;
	j->argv = pf_calloc(n + 1, sizeof(*j->argv));
	for (size_t i = 0; i < n; i++)
		j->argv[i] = pf_strdup(p->words.v[p->words.next + i]);
	if (p->block_fd >= 0 && read(p->block_fd, &byte, 1) < 0)
		return pf_fail(err, errno, "--block-fd");
	return 0;
}

extern char **environ;

int main(int argc, char **argv)
{
	struct pf_jail j;
	struct parsed p = {.j = &j, .perms = -1, .size = -1, .info_fd = -1, .status_fd = -1, .block_fd = -1};
	struct pf_jail_result r = {0};
	struct pf_err err = PF_ERR_INIT;
	char cwd[PATH_MAX];

	if (pf_open_stdio() < 0)
		return 1;
	if (geteuid() != getuid() || getegid() != getgid()) {
		fprintf(stderr, "pinfold-bwrap: this program must not be setuid or setgid\n");
		return 1;
	}
	pf_jail_init(&j);
	j.root_read_only = j.etc = j.die_with_parent = j.new_session = false;
	j.share_pid = j.share_ipc = j.share_uts = j.share_cgroup = true;
	j.seccomp = PF_JAIL_SECCOMP_OFF;
	j.uid = geteuid();
	j.gid = getegid();
	j.started = on_started;
	j.started_arg = &p;
	for (char **e = environ; e && *e; e++)
		add_env(&j, pf_strdup(*e));
	for (int i = 1; i < argc; i++)
		push(&p.words, argv[i]);
	if (!getcwd(cwd, sizeof(cwd)))
		snprintf(cwd, sizeof(cwd), "/");
	if (pf_jail_enter(&j, &err) < 0 || parse(&p, &err) < 0 || settle(&p, cwd, &err) < 0 ||
		pf_jail_run(&j, &r, &err) < 0) {
		fprintf(stderr, "pinfold-bwrap: %s\n", err.msg);
		return err.kind == PF_ERR_NO_COMMAND || err.kind == PF_ERR_NO_EXEC ? 127 : 1;
	}
	if (p.status_fd >= 0) {
		PF_FREE char *line = pf_asprintf("{ \"exit-code\": %d }\n", r.exit_code);
		(void)pf_write_all(p.status_fd, line, strlen(line));
	}
	int code = r.exit_code;
	pf_jail_result_done(&r);
	pf_jail_done(&j);
	free(p.words.v);
	return code;
}
