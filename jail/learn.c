/* Theory of operation: learning by listening.
 *
 * The filter asks a listener about every call that names a file; a thread reads the name out of the caller's
 * memory, notes it, and lets the call go on, whatever it says: nothing is decided here, so that it does no
 * harm that the memory may change meanwhile. Afterwards each name is judged against the rules that were in
 * force: a file of the machine's that lay in no rule's reach was missed, and one that was to be written in a
 * read-only place was denied. Both become rules, of directories rather than of their many files. What a jail
 * gives anyhow (an empty /tmp, a private home) is no loss. */
#include "jail/learn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"

#define MAX_PATHS 20000

const char *const pf_learn_calls[] = {"open", "openat", "openat2", "creat", "execve", "execveat", "stat",
	"lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
	"chdir", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link",
	"linkat", "symlink", "symlinkat", "truncate", "chmod", "fchmodat", "chown", "lchown", "fchownat",
	"utimensat", "mknod", "mknodat", "connect", NULL};

enum { NONE = -1 };
enum how { READ, WRITE, OPEN_FLAGS, OPEN_HOW };

/* Where a call's arguments say which file, and what for. */
struct call {
	long nr;
	int dir, path; /* indices of arguments; NONE: the working directory */
	enum how how;
	int flags;       /* of OPEN_FLAGS and OPEN_HOW */
	int dir2, path2; /* a second file, written; NONE */
};

static const struct call calls[] = {
#ifdef SYS_open
	{SYS_open, NONE, 0, OPEN_FLAGS, 1, NONE, NONE},
	{SYS_creat, NONE, 0, WRITE, 0, NONE, NONE},
	{SYS_stat, NONE, 0, READ, 0, NONE, NONE},
	{SYS_lstat, NONE, 0, READ, 0, NONE, NONE},
	{SYS_access, NONE, 0, READ, 0, NONE, NONE},
	{SYS_readlink, NONE, 0, READ, 0, NONE, NONE},
	{SYS_mkdir, NONE, 0, WRITE, 0, NONE, NONE},
	{SYS_rmdir, NONE, 0, WRITE, 0, NONE, NONE},
	{SYS_unlink, NONE, 0, WRITE, 0, NONE, NONE},
	{SYS_rename, NONE, 0, WRITE, 0, NONE, 1},
	{SYS_link, NONE, 0, READ, 0, NONE, 1},
	{SYS_symlink, NONE, 1, WRITE, 0, NONE, NONE},
	{SYS_chmod, NONE, 0, WRITE, 0, NONE, NONE},
	{SYS_chown, NONE, 0, WRITE, 0, NONE, NONE},
	{SYS_lchown, NONE, 0, WRITE, 0, NONE, NONE},
	{SYS_mknod, NONE, 0, WRITE, 0, NONE, NONE},
#endif
	{SYS_openat, 0, 1, OPEN_FLAGS, 2, NONE, NONE},
	{SYS_openat2, 0, 1, OPEN_HOW, 2, NONE, NONE},
	{SYS_execve, NONE, 0, READ, 0, NONE, NONE},
	{SYS_execveat, 0, 1, READ, 0, NONE, NONE},
	{SYS_newfstatat, 0, 1, READ, 0, NONE, NONE},
	{SYS_statx, 0, 1, READ, 0, NONE, NONE},
	{SYS_faccessat, 0, 1, READ, 0, NONE, NONE},
	{SYS_faccessat2, 0, 1, READ, 0, NONE, NONE},
	{SYS_readlinkat, 0, 1, READ, 0, NONE, NONE},
	{SYS_chdir, NONE, 0, READ, 0, NONE, NONE},
	{SYS_mkdirat, 0, 1, WRITE, 0, NONE, NONE},
	{SYS_unlinkat, 0, 1, WRITE, 0, NONE, NONE},
	{SYS_renameat, 0, 1, WRITE, 0, 2, 3},
	{SYS_renameat2, 0, 1, WRITE, 0, 2, 3},
	{SYS_linkat, 0, 1, READ, 0, 2, 3},
	{SYS_symlinkat, 1, 2, WRITE, 0, NONE, NONE},
	{SYS_truncate, NONE, 0, WRITE, 0, NONE, NONE},
	{SYS_fchmodat, 0, 1, WRITE, 0, NONE, NONE},
	{SYS_fchownat, 0, 1, WRITE, 0, NONE, NONE},
	{SYS_utimensat, 0, 1, WRITE, 0, NONE, NONE},
	{SYS_mknodat, 0, 1, WRITE, 0, NONE, NONE},
};

struct seen {
	char *path;
	bool write;
};

struct pf_learn {
	pthread_t thread;
	bool running;
	int fd, stop[2];
	struct seen *v;
	size_t n;
	bool overflow;
};

struct pf_learn *pf_learn_new(void)
{
	struct pf_learn *l = pf_calloc(1, sizeof(*l));

	l->fd = l->stop[0] = l->stop[1] = -1;
	return l;
}

/* ---- reading the caller's memory ---- */

/* A string of at most PATH_MAX bytes; false when it cannot be read. */
static bool read_string(int mem, uint64_t addr, char out[PATH_MAX])
{
	size_t have = 0;

	while (have < PATH_MAX - 1) {
		/* Never over the end of a page: the next one may not be there. */
		size_t want = 4096 - (addr + have) % 4096;
		if (want > PATH_MAX - 1 - have)
			want = PATH_MAX - 1 - have;
		ssize_t n = pread(mem, out + have, want, (off_t)(addr + have));
		if (n <= 0)
			return false;
		if (memchr(out + have, '\0', (size_t)n))
			return true;
		have += (size_t)n;
	}
	return false;
}

/* The absolute path, as the caller sees it. */
static char *absolute(pid_t pid, const char *path, int dirfd)
{
	char link[64], base[PATH_MAX];
	ssize_t n;

	if (path[0] == '/')
		return pf_strdup(path);
	if (dirfd == AT_FDCWD)
		snprintf(link, sizeof(link), "/proc/%d/cwd", (int)pid);
	else
		snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)pid, dirfd);
	n = readlink(link, base, sizeof(base) - 1);
	if (n <= 0 || base[0] != '/')
		return NULL;
	base[n] = '\0';
	return *path ? pf_asprintf("%s/%s", base, path) : NULL;
}

/* "." and ".." taken out as text: names that pass through links come out as they were asked for, near enough
 * to show what was missed. */
static char *normal(const char *path)
{
	char *out = pf_calloc(strlen(path) + 2, 1);
	size_t n = 0;

	for (const char *p = path; *p;) {
		size_t len = strcspn(p, "/");
		if (len == 2 && p[0] == '.' && p[1] == '.') {
			while (n > 0 && out[--n] != '/')
				;
		} else if (len && !(len == 1 && p[0] == '.')) {
			out[n++] = '/';
			memcpy(out + n, p, len);
			n += len;
		}
		p += len;
		p += *p == '/';
	}
	if (n == 0)
		out[n++] = '/';
	out[n] = '\0';
	return out;
}

static void note(struct pf_learn *l, char *path, bool write)
{
	for (size_t i = l->n; i-- > 0;)
		if (strcmp(l->v[i].path, path) == 0) {
			l->v[i].write = l->v[i].write || write;
			free(path);
			return;
		}
	if (l->n == MAX_PATHS) {
		l->overflow = true;
		free(path);
		return;
	}
	if ((l->n & (l->n - 1)) == 0) {
		struct seen *more = realloc(l->v, (l->n ? l->n * 2 : 1) * sizeof(*more));
		if (!more)
			abort();
		l->v = more;
	}
	l->v[l->n++] = (struct seen){path, write};
}

static void note_arg(
	struct pf_learn *l, const struct seccomp_notif *q, int mem, int dir, int path, bool write)
{
	char text[PATH_MAX];

	if (!read_string(mem, q->data.args[path], text))
		return;
	PF_FREE char *whole = absolute((pid_t)q->pid, text, dir == NONE ? AT_FDCWD : (int)q->data.args[dir]);
	if (whole)
		note(l, normal(whole), write);
}

static void note_connect(struct pf_learn *l, const struct seccomp_notif *q, int mem)
{
	struct sockaddr_un sa = {0};
	size_t len = q->data.args[2] < sizeof(sa) ? (size_t)q->data.args[2] : sizeof(sa);

	if (pread(mem, &sa, len, (off_t)q->data.args[1]) <= 0 || sa.sun_family != AF_UNIX ||
		sa.sun_path[0] == '\0')
		return;
	sa.sun_path[sizeof(sa.sun_path) - 1] = '\0';
	PF_FREE char *whole = absolute((pid_t)q->pid, sa.sun_path, AT_FDCWD);
	if (whole)
		note(l, normal(whole), true);
}

static void look(struct pf_learn *l, const struct seccomp_notif *q)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%u/mem", q->pid);
	PF_CLOSE int mem = open(path, O_RDONLY | O_CLOEXEC);
	if (mem < 0)
		return;
	if (q->data.nr == SYS_connect) {
		note_connect(l, q, mem);
		return;
	}
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		const struct call *c = &calls[i];
		uint64_t flags = 0;
		if (c->nr != q->data.nr)
			continue;
		if (c->how == OPEN_FLAGS)
			flags = q->data.args[c->flags];
		else if (c->how == OPEN_HOW &&
			 pread(mem, &flags, sizeof(flags), (off_t)q->data.args[c->flags]) < 0)
			flags = 0;
		bool write = c->how == WRITE || (flags & O_ACCMODE) == O_WRONLY ||
			     (flags & O_ACCMODE) == O_RDWR || (flags & O_CREAT);
		note_arg(l, q, mem, c->dir, c->path, write);
		if (c->path2 != NONE)
			note_arg(l, q, mem, c->dir2, c->path2, true);
		return;
	}
}

static void *listen_to_it(void *arg)
{
	struct pf_learn *l = arg;

	for (;;) {
		struct pollfd p[2] = {{.fd = l->fd, .events = POLLIN}, {.fd = l->stop[0], .events = POLLIN}};
		struct seccomp_notif q;
		struct seccomp_notif_resp a = {0};

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents || (p[0].revents & (POLLHUP | POLLERR)))
			return NULL;
		memset(&q, 0, sizeof(q));
		if (ioctl(l->fd, SECCOMP_IOCTL_NOTIF_RECV, &q) < 0)
			continue; /* whoever asked is gone */
		look(l, &q);
		a.id = q.id;
		a.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		(void)ioctl(l->fd, SECCOMP_IOCTL_NOTIF_SEND, &a);
	}
}

int pf_learn_start(struct pf_learn *l, int fd, struct pf_err *err)
{
	l->fd = fd;
	if (pipe2(l->stop, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe");
	int e = pthread_create(&l->thread, NULL, listen_to_it, l);
	if (e != 0)
		return pf_fail(err, e, "thread for --learn");
	l->running = true;
	return 0;
}

void pf_learn_stop(struct pf_learn *l)
{
	if (!l->running)
		return;
	close(l->stop[1]);
	l->stop[1] = -1;
	(void)pthread_join(l->thread, NULL);
	l->running = false;
}

void pf_learn_free(struct pf_learn *l)
{
	if (!l)
		return;
	pf_learn_stop(l);
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].path);
	free(l->v);
	for (int i = 0; i < 2; i++)
		if (l->stop[i] >= 0)
			close(l->stop[i]);
	if (l->fd >= 0)
		close(l->fd);
	free(l);
}

/* ---- from names to a profile ---- */

struct wish {
	char *path;
	bool write;
};

static const struct pf_jail_op *rule_for(const struct pf_jail *j, const char *path)
{
	const struct pf_jail_op *best = NULL;

	for (size_t i = 0; i < j->n_ops; i++)
		if (pf_path_below(path, j->ops[i].dest))
			best = &j->ops[i]; /* sorted: the deepest comes last */
	return best;
}

/* The nearest directory that is there and may be given: of a file that is written, or not there yet, its
 * directory. NULL: nothing that this machine could show. */
static char *to_show(const char *path, bool write)
{
	struct stat st;
	char *p = pf_strdup(path);

	while (stat(p, &st) < 0 || (write && !S_ISDIR(st.st_mode))) {
		char *slash = strrchr(p, '/');
		/* What is not there cannot be read, whatever is shown. */
		if (!write || slash == p || !slash) {
			free(p);
			return NULL;
		}
		*slash = '\0';
	}
	return p;
}

static bool wants(const struct pf_jail *j, const struct seen *s, char **show)
{
	static const char *const own[] = {"/proc", "/dev", "/sys", "/run", "/tmp", "/var/tmp", "/etc"};
	const struct pf_jail_op *op = rule_for(j, s->path);

	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (pf_path_below(s->path, own[i]) &&
			!(op && op->kind == PF_JAIL_BIND && strcmp(op->dest, own[i]) != 0) &&
			strcmp(own[i], "/run") != 0)
			return false;
	if (op && op->kind == PF_JAIL_SYMLINK)
		return false;
	if (op && (op->kind == PF_JAIL_BIND || op->kind == PF_JAIL_OVERLAY)) {
		if (!s->write || !op->read_only)
			return false;
		*show = to_show(s->path, true);
	} else {
		/* In the private home a missing file of the real one counts; a new one is private as
		 * promised. */
		*show = to_show(s->path, false);
	}
	if (!*show || strcmp(*show, "/") == 0 || pf_path_below(j->home, *show) ||
		strcmp(*show, "/etc") == 0 || strcmp(*show, "/usr") == 0) {
		free(*show);
		*show = NULL;
	}
	return *show != NULL;
}

static void add_wish(struct wish **v, size_t *n, char *path, bool write)
{
	for (size_t i = 0; i < *n; i++)
		if (strcmp((*v)[i].path, path) == 0) {
			(*v)[i].write = (*v)[i].write || write;
			free(path);
			return;
		}
	struct wish *more = realloc(*v, (*n + 1) * sizeof(*more));
	if (!more)
		abort();
	*v = more;
	(*v)[(*n)++] = (struct wish){path, write};
}

/* Many files of one directory are the directory. */
static void gather(struct wish *v, size_t n, const struct pf_jail *j)
{
	for (size_t i = 0; i < n; i++) {
		char *slash = strrchr(v[i].path, '/');
		size_t dir = slash ? (size_t)(slash - v[i].path) : 0, same = 0;
		PF_FREE char *parent = pf_strdup(v[i].path);
		parent[dir] = '\0';
		if (dir == 0 || pf_path_below(j->home, parent))
			continue;
		for (size_t k = 0; k < n; k++)
			same += v[k].write == v[i].write && strncmp(v[k].path, parent, dir) == 0 &&
				v[k].path[dir] == '/' && !strchr(v[k].path + dir + 1, '/');
		if (same >= 4)
			v[i].path[dir] = '\0';
	}
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct wish *)a)->path, ((const struct wish *)b)->path);
}

static void add_paths(cJSON *fs, const char *key, const struct wish *v, size_t n, bool write)
{
	cJSON *list = NULL;
	const char *last = NULL;

	for (size_t i = 0; i < n; i++) {
		if (v[i].write != write || (last && pf_path_below(v[i].path, last)))
			continue;
		if (!list)
			list = cJSON_AddArrayToObject(fs, key);
		cJSON_AddItemToArray(list, cJSON_CreateString(v[i].path));
		last = v[i].path;
	}
}

static cJSON *network(const cJSON *denied)
{
	cJSON *net = cJSON_CreateObject(), *hosts = NULL;
	const cJSON *e;

	cJSON_ArrayForEach(e, denied)
	{
		const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "name"));
		const cJSON *port = cJSON_GetObjectItemCaseSensitive(e, "port");
		if (!name || !*name)
			continue;
		if (!hosts) {
			cJSON_AddStringToObject(net, "type", "limited");
			hosts = cJSON_AddArrayToObject(net, "allowed_hosts");
		}
		PF_FREE char *text = port ? pf_asprintf("%s:%d", name, port->valueint) : pf_strdup(name);
		cJSON_AddItemToArray(hosts, cJSON_CreateString(text));
	}
	if (!hosts)
		cJSON_AddStringToObject(net, "type", "none");
	return net;
}

cJSON *pf_learn_profile(const struct pf_learn *l, const struct pf_jail *j, const cJSON *denied)
{
	cJSON *doc = cJSON_CreateObject(), *fs;
	struct wish *v = NULL;
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++) {
		char *show = NULL;
		if (wants(j, &l->v[i], &show))
			add_wish(&v, &n, show,
				l->v[i].write && rule_for(j, l->v[i].path) &&
					rule_for(j, l->v[i].path)->kind == PF_JAIL_BIND);
	}
	gather(v, n, j);
	if (n > 0)
		qsort(v, n, sizeof(*v), by_path);
	cJSON_AddStringToObject(doc, "name", "learned");
	fs = cJSON_AddObjectToObject(doc, "filesystem");
	add_paths(fs, "writable_paths", v, n, true);
	add_paths(fs, "read_only_paths", v, n, false);
	cJSON_AddItemToObject(doc, "networking", network(denied));
	for (size_t i = 0; i < n; i++)
		free(v[i].path);
	free(v);
	return doc;
}
