/* pinfold-bwrap: bubblewrap's command line in front of jail/, so that a program which spawns bwrap can be
 * pointed here. docs/jail.md has the table of what is accepted. Options are taken in their order, as there:
 * what comes later is mounted over what came before. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
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
#include "cmd/pinfold-bwrap/bwrap.h"
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

int pf_bwrap_usage(const char *fmt, const char *arg, struct pf_err *err)
{
	return pf_fail_kind(err, PF_ERR_INVALID, 0, fmt, arg);
}

const char *pf_bwrap_next(struct parsed *p, const char *option, struct pf_err *err)
{
	if (p->words.next >= p->words.n) {
		pf_bwrap_usage("%s: an argument is missing", option, err);
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

int pf_bwrap_fd(const char *option, const char *text, struct pf_err *err)
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
	for (size_t at = 0; at < text.len; at += strlen(text.data + at) + 1) {
		push(&p->own, pf_strdup(text.data + at));
		push(&all, p->own.v[p->own.n - 1]);
	}
	for (size_t i = p->words.next; i < p->words.n; i++)
		push(&all, p->words.v[i]);
	all.next = p->words.next;
	free(p->words.v);
	p->words = all;
	return 0;
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
	const char *name = pf_bwrap_next(p, option, err),
		   *value = name ? pf_bwrap_next(p, option, err) : NULL;

	if (!value)
		return -1;
	unset(p->j, name);
	add_env(p->j, pf_asprintf("%s=%s", name, value));
	return 0;
}

static int capability(struct parsed *p, const char *option, bool add, struct pf_err *err)
{
	const char *name = pf_bwrap_next(p, option, err);
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
	const char *text = pf_bwrap_next(p, option, err);

	return text ? pf_parse_int(option, text, 0, max, out, err) : -1;
}

static int descriptor(struct parsed *p, const char *option, int *fd, struct pf_err *err)
{
	const char *text = pf_bwrap_next(p, option, err);

	*fd = text ? pf_bwrap_fd(option, text, err) : -1;
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
	if (all || strcmp(o, "--unshare-user") == 0 || strcmp(o, "--unshare-user-try") == 0)
		p->unshare_user = found = true;
	return found;
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
	const char *text = pf_bwrap_next(p, "--perms", err);
	char *end;

	if (!text)
		return -1;
	p->perms = (int64_t)strtoul(text, &end, 8);
	return *text && !*end && p->perms <= 07777
		       ? 0
		       : pf_bwrap_usage("--perms: %s is no mode in octal", text, err);
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
		while (j->n_env) {
			free(j->env[--j->n_env]);
			j->env[j->n_env] = NULL;
		}
	} else if (strcmp(o, "--setenv") == 0) {
		return set_env(p, "--setenv", err);
	} else if (strcmp(o, "--unsetenv") == 0) {
		const char *name = pf_bwrap_next(p, o, err);
		if (!name)
			return -1;
		unset(j, name);
	} else if (strcmp(o, "--uid") == 0 || strcmp(o, "--gid") == 0) {
		if (number(p, o, UINT32_MAX - 1, &n, err) < 0)
			return -1;
		*(o[2] == 'u' ? &j->uid : &j->gid) = (uint32_t)n;
		p->ids = true;
	} else if (strcmp(o, "--hostname") == 0) {
		const char *name = pf_bwrap_next(p, o, err);
		if (!name)
			return -1;
		free(j->hostname);
		j->hostname = pf_strdup(name);
		p->hostname = true;
	} else if (strcmp(o, "--chdir") == 0) {
		p->chdir = pf_bwrap_next(p, "--chdir", err);
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
		return pf_bwrap_usage("unknown option %s", o, err);
	}
	return 0;
}

/* --perms and --size are about the option behind them; NULL: there is none. */
static int precedes(const struct parsed *p, const char *next_option, struct pf_err *err)
{
	static const char *const made[] = {
		"--tmpfs", "--dir", "--file", "--bind-data", "--ro-bind-data", "--perms", "--size"};
	bool found = false;

	for (size_t i = 0; next_option && i < sizeof(made) / sizeof(made[0]); i++)
		found = found || strcmp(next_option, made[i]) == 0;
	if (p->perms >= 0 && !found)
		return pf_bwrap_usage(
			"--perms must be followed by an option that makes something%s", "", err);
	if (p->size >= 0 &&
		(!found || (strcmp(next_option, "--tmpfs") != 0 && strcmp(next_option, "--perms") != 0)))
		return pf_bwrap_usage("--size must be followed by --tmpfs%s", "", err);
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
		if (precedes(p, o, err) < 0)
			return -1;
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
		r = unshare_option(p, o) ? 1 : pf_bwrap_file_option(p, o, err);
		if (r < 0 || (r == 0 && other_option(p, o, err) < 0))
			return -1;
		p->perms = p->size = -1;
	}
	return precedes(p, NULL, err);
}

/* ---- running ---- */

/* The namespaces that are not the caller's, in bubblewrap's words and order. */
static void add_namespaces(
	const struct parsed *p, const uint64_t *numbers, const char *separator, struct pf_buf *b)
{
	const struct {
		const char *name;
		bool own;
		int at;
	} kinds[] = {{"cgroup", !p->j->share_cgroup, PF_BOX_NS_CGROUP},
		{"ipc", !p->j->share_ipc, PF_BOX_NS_IPC}, {"mnt", true, PF_BOX_NS_MNT},
		{"net", p->j->net != PF_JAIL_NET_HOST, PF_BOX_NS_NET},
		{"pid", !p->j->share_pid, PF_BOX_NS_PID}, {"uts", !p->j->share_uts, PF_BOX_NS_UTS}};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].own && numbers[kinds[i].at])
			pf_buf_printf(b, "%s\"%s-namespace\": %llu", separator, kinds[i].name,
				(unsigned long long)numbers[kinds[i].at]);
}

/* --block-fd, whoever is to end meanwhile. Our signals wait for the loop that hands them on. */
static int wait_for_caller(int fd, struct pf_err *err)
{
	sigset_t none, old;
	char byte;

	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, &old) < 0)
		return pf_fail(err, errno, "signals");
	ssize_t n = read(fd, &byte, 1);
	int saved = errno;
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	return n < 0 ? pf_fail(err, saved, "--block-fd") : 0;
}

/* Before the command: who asked may want to do something about it first, and let it go on by --block-fd. */
static int on_ready(void *arg, pid_t pid, const uint64_t *namespaces, struct pf_err *err)
{
	struct parsed *p = arg;
	PF_BUF struct pf_buf info = {0}, line = {0};

	if (p->info_fd >= 0) {
		pf_buf_printf(&info, "{\n    \"child-pid\": %d", (int)pid);
		add_namespaces(p, namespaces, ",\n    ", &info);
		pf_buf_str(&info, "\n}\n");
		(void)pf_write_all(p->info_fd, info.data, info.len);
		close(pf_take_fd(&p->info_fd));
	}
	if (p->status_fd >= 0) {
		pf_buf_printf(&line, "{ \"child-pid\": %d", (int)pid);
		add_namespaces(p, namespaces, ", ", &line);
		pf_buf_str(&line, " }\n");
		(void)pf_write_all(p->status_fd, line.data, line.len);
	}
	return p->block_fd >= 0 ? wait_for_caller(p->block_fd, err) : 0;
}

/* Options that mean nothing without another one. */
static int consistent(const struct parsed *p, struct pf_err *err)
{
	const struct pf_jail *j = p->j;

	if (p->hostname && j->share_uts)
		return pf_bwrap_usage("%s takes --unshare-uts", "--hostname", err);
	if (j->as_pid_1 && j->share_pid)
		return pf_bwrap_usage("%s takes --unshare-pid", "--as-pid-1", err);
	/* An ordinary user has a user namespace without asking. */
	if (p->ids && !p->unshare_user && j->caller_uid == 0)
		return pf_bwrap_usage("%s takes --unshare-user", "--uid or --gid", err);
	return 0;
}

static int settle(struct parsed *p, const char *cwd, struct pf_err *err)
{
	struct pf_jail *j = p->j;

	if (p->words.next >= p->words.n)
		return pf_bwrap_usage("no command given (%s tells the options)", "--help", err);
	if (consistent(p, err) < 0)
		return -1;
	j->net = p->unshare_net && !p->share_net ? PF_JAIL_NET_NONE : PF_JAIL_NET_HOST;
	if (j->share_pid) {
		j->as_pid_1 = true;
		if (pf_bwrap_share_proc(j, err) < 0)
			return -1;
	}
	/* The list lets nobody make a namespace. */
	if ((p->disable_userns || p->assert_no_userns) && j->seccomp == PF_JAIL_SECCOMP_OFF)
		j->seccomp = PF_JAIL_SECCOMP_DEFAULT;
	j->cwd = pf_bwrap_working_directory(p, cwd);
	unset(j, "PWD");
	add_env(j, pf_asprintf("PWD=%s", j->cwd));
	size_t n = p->words.n - p->words.next;
	j->argv = pf_calloc(n + 1, sizeof(*j->argv));
	for (size_t i = 0; i < n; i++)
		j->argv[i] = pf_strdup(p->words.v[p->words.next + i]);
	return 0;
}

extern char **environ;

/* The exit code, or -1 with err. */
static int run(struct parsed *p, const char *cwd, struct pf_jail_result *r, struct pf_err *err)
{
	struct pf_jail *j = p->j;

	if (pf_jail_enter(j, err) < 0 || parse(p, err) < 0 || settle(p, cwd, err) < 0)
		return -1;
	if (p->info_fd >= 0 || p->status_fd >= 0 || p->block_fd >= 0)
		j->ready = on_ready;
	j->ready_fd = p->info_fd;
	if (pf_jail_run(j, r, err) < 0)
		return -1;
	if (p->status_fd >= 0) {
		PF_FREE char *line = pf_asprintf("{ \"exit-code\": %d }\n", r->exit_code);
		(void)pf_write_all(p->status_fd, line, strlen(line));
	}
	return r->exit_code;
}

int main(int argc, char **argv)
{
	struct pf_jail j;
	struct parsed p = {.j = &j, .perms = -1, .size = -1, .info_fd = -1, .status_fd = -1, .block_fd = -1};
	struct pf_jail_result r = {0};
	struct pf_err err = PF_ERR_INIT;
	char cwd[PATH_MAX];

	if (pf_open_stdio() < 0)
		return 1;
	/* Whose caller ignores it would never learn how the command ended. */
	(void)signal(SIGCHLD, SIG_DFL);
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
	j.started_arg = &p;
	for (char **e = environ; e && *e; e++)
		add_env(&j, pf_strdup(*e));
	for (int i = 1; i < argc; i++)
		push(&p.words, argv[i]);
	if (!getcwd(cwd, sizeof(cwd)))
		snprintf(cwd, sizeof(cwd), "/");
	int code = run(&p, cwd, &r, &err);
	if (code < 0) {
		fprintf(stderr, "pinfold-bwrap: %s\n", err.msg);
		code = 1;
	}
	pf_jail_result_done(&r);
	pf_jail_done(&j);
	while (p.own.n > 0)
		free(p.own.v[--p.own.n]);
	free(p.own.v);
	free(p.words.v);
	return code;
}
