/* pinfold-jail: run one command that is not trusted, here and now. Arguments and printing; the rest is
 * jail/. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <pwd.h>
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
#include "cmd/pinfold-jail/jail_cmd.h"

static const char help[] =
	"usage: pinfold-jail [options] [--] COMMAND [ARGUMENT…]\n\n"
	"Runs a command that you do not trust. It sees the system's programs and the directory that you are\n"
	"in, read-only; it has a /tmp and a home of its own, no network, none of your environment, no view "
	"of\n"
	"other processes and no privileges, and it ends when pinfold-jail does.\n\n"
	"Files (rules nest by depth, in any order; later ones win)\n"
	"  --rw PATH, --ro PATH     show PATH, writable or not (--rw-try, --ro-try: if it is there)\n"
	"  --hide PATH              an empty directory or file in its place\n"
	"  --tmpfs PATH             an empty, writable directory there, gone at the end\n"
	"  --home private|keep|DIR  the home directory: empty, your own read-only, or DIR (default private)\n"
	"  --size SIZE              how much each of the scratch file systems may hold\n"
	"  -C, --cwd DIR            where it starts\n"
	"  --overlay                what it writes to --rw places (default: the working directory) goes to "
	"a\n"
	"                           scratch layer and is gone at the end, unless …\n"
	"  --diff                   … tell what it wrote, and\n"
	"  --commit                 … write that into the real directories if the command succeeds\n"
	"Network\n"
	"  --allow HOST[:PORT]      let it reach this host by name (*.HOST: all below it; repeat)\n"
	"  --allow-file FILE        the same, a host a line\n"
	"  --policy FILE            a `networking` object, as in a sandbox file\n"
	"Environment\n"
	"  -e, --env NAME=VALUE     set a variable (repeat)\n"
	"  --bind-env NAME          let it have yours\n"
	"  --user U[:G]             the ids that it sees itself as (default: yours)\n"
	"Limits\n"
	"  --timeout D              end it after D (90s, 5m): exit code 124\n"
	"  --memory SIZE            of all its processes together: exit code 137\n"
	"  --pids N, --cpus C\n"
	"Other\n"
	"  --profile NAME|FILE      begin with a profile (default build node python offline-strict)\n"
	"  --seccomp MODE           default, strict, off, or FILE with an OCI seccomp object\n"
	"  --tty, --no-tty          a terminal of its own (default: when ours are terminals)\n"
	"  --json                   print one JSON object with the result instead of passing output through\n"
	"  --explain                say what would be done, and do nothing\n"
	"  -v, --verbose            say on standard error what is denied, and how limits are kept\n"
	"  --version, -h, --help\n";

void pf_jail_message(const char *level, const char *text)
{
	bool colour = isatty(STDERR_FILENO) && !getenv("NO_COLOR");
	const char *on = !colour ? "" : strcmp(level, "error") == 0 ? "\033[31m" : "\033[33m";

	if (*level)
		fprintf(stderr, "pinfold-jail: %s%s%s: %s\n", on, level, colour ? "\033[0m" : "", text);
	else
		fprintf(stderr, "pinfold-jail: %s\n", text);
}

static int report(const struct pf_err *err)
{
	pf_jail_message("error", err->msg);
	return err->kind == PF_ERR_NO_EXEC ? 126 : err->kind == PF_ERR_NO_COMMAND ? 127 : 125;
}

static void say(void *arg, const char *text)
{
	(void)arg;
	pf_jail_message("", text);
}

static void warn(void *arg, const char *text)
{
	(void)arg;
	pf_jail_message("warning", text);
}

enum {
	O_RW = 256,
	O_RO,
	O_RW_TRY,
	O_RO_TRY,
	O_HIDE,
	O_TMPFS,
	O_HOME,
	O_SIZE,
	O_ALLOW,
	O_ALLOW_FILE,
	O_POLICY,
	O_BIND_ENV,
	O_USER,
	O_TIMEOUT,
	O_MEMORY,
	O_PIDS,
	O_CPUS,
	O_PROFILE,
	O_SECCOMP,
	O_TTY,
	O_NO_TTY,
	O_JSON,
	O_EXPLAIN,
	O_OVERLAY,
	O_DIFF,
	O_COMMIT,
	O_VERSION
};

static const struct option options[] = {{"rw", required_argument, NULL, O_RW},
	{"ro", required_argument, NULL, O_RO}, {"rw-try", required_argument, NULL, O_RW_TRY},
	{"ro-try", required_argument, NULL, O_RO_TRY}, {"hide", required_argument, NULL, O_HIDE},
	{"tmpfs", required_argument, NULL, O_TMPFS}, {"home", required_argument, NULL, O_HOME},
	{"size", required_argument, NULL, O_SIZE}, {"cwd", required_argument, NULL, 'C'},
	{"allow", required_argument, NULL, O_ALLOW}, {"allow-file", required_argument, NULL, O_ALLOW_FILE},
	{"policy", required_argument, NULL, O_POLICY}, {"env", required_argument, NULL, 'e'},
	{"bind-env", required_argument, NULL, O_BIND_ENV}, {"user", required_argument, NULL, O_USER},
	{"timeout", required_argument, NULL, O_TIMEOUT}, {"memory", required_argument, NULL, O_MEMORY},
	{"pids", required_argument, NULL, O_PIDS}, {"cpus", required_argument, NULL, O_CPUS},
	{"profile", required_argument, NULL, O_PROFILE}, {"seccomp", required_argument, NULL, O_SECCOMP},
	{"tty", no_argument, NULL, O_TTY}, {"no-tty", no_argument, NULL, O_NO_TTY},
	{"json", no_argument, NULL, O_JSON}, {"explain", no_argument, NULL, O_EXPLAIN},
	{"overlay", no_argument, NULL, O_OVERLAY}, {"diff", no_argument, NULL, O_DIFF},
	{"commit", no_argument, NULL, O_COMMIT}, {"verbose", no_argument, NULL, 'v'},
	{"version", no_argument, NULL, O_VERSION}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};

static int usage_error(const char *given)
{
	const char *names[64], *near;
	size_t n = 0;

	for (const struct option *o = options; o->name && n < 63; o++)
		names[n++] = o->name;
	names[n] = NULL;
	near = pf_starts_with(given, "--") ? pf_nearest(given + 2, names) : NULL;
	PF_FREE char *text = pf_asprintf("unknown option %s%s%s%s", given, near ? ": did you mean --" : "",
		near ? near : "", near ? "?" : "");
	pf_jail_message("error", text);
	fprintf(stderr, "try: pinfold-jail --help\n");
	return 125;
}

/* Rules are kept until the working directory and the profile are known. */
struct rule {
	int option;
	const char *path;
};

struct given {
	struct pf_jail *j;
	struct rule rules[1000];
	size_t n_rules;
	const char *home, *cwd, *user, *profile, *seccomp;
	char **allow;
	size_t n_allow;
	const char *policy;
	char **env; /* NAME=value */
	size_t n_env;
	int64_t size;
	int tty; /* -1 as it fits, 0, 1 */
	bool json, explain, verbose, overlay, diff;
};

static void push(char ***list, size_t *n, char *item)
{
	char **more = realloc(*list, (*n + 2) * sizeof(*more));

	if (!more)
		abort();
	more[(*n)++] = item;
	more[*n] = NULL;
	*list = more;
}

static int read_hosts(struct given *g, const char *file, struct pf_err *err)
{
	PF_FREE char *text = NULL;

	if (pf_read_file_at(AT_FDCWD, file, (size_t)1 << 20, &text, NULL, err) < 0)
		return pf_wrap(err, "--allow-file");
	for (char *save = NULL, *line = strtok_r(text, "\n", &save); line;
		line = strtok_r(NULL, "\n", &save)) {
		line += strspn(line, " \t");
		line[strcspn(line, "# \t\r")] = '\0';
		if (*line)
			push(&g->allow, &g->n_allow, pf_strdup(line));
	}
	return 0;
}

static int check_env(const char *option, const char *entry, struct pf_err *err)
{
	const char *eq = strchr(entry, '=');

	return eq && eq != entry
		       ? 0
		       : pf_fail_kind(err, PF_ERR_INVALID, 0, "%s %s: NAME=value is expected", option, entry);
}

static int take(struct given *g, int c, const char *arg, struct pf_err *err)
{
	switch (c) {
	case O_RW:
	case O_RO:
	case O_RW_TRY:
	case O_RO_TRY:
	case O_HIDE:
	case O_TMPFS:
		if (g->n_rules == sizeof(g->rules) / sizeof(g->rules[0]))
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "more than %zu paths", g->n_rules);
		g->rules[g->n_rules++] = (struct rule){c, arg};
		return 0;
	case O_HOME:
		g->home = arg;
		return 0;
	case O_SIZE:
		return pf_parse_size("--size", arg, &g->size, err);
	case 'C':
		g->cwd = arg;
		return 0;
	case O_ALLOW:
		push(&g->allow, &g->n_allow, pf_strdup(arg));
		return 0;
	case O_ALLOW_FILE:
		return read_hosts(g, arg, err);
	case O_POLICY:
		g->policy = arg;
		return 0;
	case 'e':
		if (check_env("--env", arg, err) < 0)
			return -1;
		push(&g->env, &g->n_env, pf_strdup(arg));
		return 0;
	case O_BIND_ENV:
		if (!getenv(arg))
			return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "--bind-env %s: it is not set", arg);
		push(&g->env, &g->n_env, pf_asprintf("%s=%s", arg, getenv(arg)));
		return 0;
	case O_USER:
		g->user = arg;
		return 0;
	case O_TIMEOUT:
		return pf_parse_duration("--timeout", arg, &g->j->timeout_ms, err);
	case O_MEMORY:
		return pf_parse_size("--memory", arg, &g->j->memory, err);
	case O_PIDS:
		return pf_parse_int("--pids", arg, 1, 4194304, &g->j->pids, err);
	case O_CPUS:
		return pf_parse_cpus("--cpus", arg, &g->j->millicpus, err);
	case O_PROFILE:
		g->profile = arg;
		return 0;
	case O_SECCOMP:
		g->seccomp = arg;
		return 0;
	case O_TTY:
	case O_NO_TTY:
		g->tty = c == O_TTY;
		return 0;
	case O_JSON:
		g->json = true;
		return 0;
	case O_EXPLAIN:
		g->explain = true;
		return 0;
	case O_OVERLAY:
		g->overlay = true;
		return 0;
	case O_DIFF:
		g->overlay = g->diff = true;
		return 0;
	case O_COMMIT:
		g->overlay = g->j->commit = true;
		return 0;
	case 'v':
		g->verbose = true;
		return 0;
	default:
		return 0;
	}
}

/* ---- from what was given to a jail ---- */

static int who(struct given *g, struct pf_err *err)
{
	struct pf_jail *j = g->j;
	const char *home = getenv("HOME");
	const struct passwd *pw;

	j->uid = geteuid();
	j->gid = getegid();
	if (g->user) {
		j->gid = (uint32_t)-1;
		if (pf_parse_user_ids("--user", g->user, &j->uid, &j->gid, err) < 0)
			return -1;
		if (j->gid == (uint32_t)-1)
			j->gid = j->uid;
	}
	pw = getpwuid(geteuid());
	if (!home || home[0] != '/')
		home = pw && pw->pw_dir && pw->pw_dir[0] == '/' ? pw->pw_dir : "/home/user";
	j->user_name = pf_strdup(j->uid == 0 ? "root" : pw && j->uid == pw->pw_uid ? pw->pw_name : "user");
	/* As it really is, since rules are: a home behind a link would be another place. */
	PF_FREE char *real = realpath(home, NULL);
	j->home = real ? pf_take(real) : pf_path_clean(home, err);
	j->hostname = pf_strdup("pinfold-jail");
	if (!j->home)
		return pf_wrap(err, "HOME");
	return strcmp(j->home, "/") == 0 ? (free(j->home), j->home = pf_strdup("/home/user"), 0) : 0;
}

static int where(struct given *g, struct pf_err *err)
{
	char real[PATH_MAX];

	if (g->cwd && chdir(g->cwd) < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "--cwd %s", g->cwd);
	if (!getcwd(real, sizeof(real)) || real[0] != '/')
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "the working directory");
	g->j->cwd = pf_strdup(real);
	return 0;
}

static int apply_rules(struct given *g, struct pf_err *err)
{
	for (size_t i = 0; i < g->n_rules; i++) {
		const char *path = g->rules[i].path;
		int r = 0;
		switch (g->rules[i].option) {
		case O_RW:
		case O_RW_TRY:
			r = pf_jail_show(g->j, "--rw", path, false, g->rules[i].option == O_RW_TRY, err);
			break;
		case O_RO:
		case O_RO_TRY:
			r = pf_jail_show(g->j, "--ro", path, true, g->rules[i].option == O_RO_TRY, err);
			break;
		case O_HIDE:
			r = pf_jail_hide(g->j, "--hide", path, err);
			break;
		default:
			r = pf_jail_tmpfs(g->j, "--tmpfs", path, g->size, err);
		}
		if (r < 0)
			return -1;
	}
	return 0;
}

static int network(struct given *g, struct pf_err *err)
{
	struct pf_jail *j = g->j;

	if (g->policy) {
		cJSON_Delete(j->networking);
		j->networking = pf_json_load(g->policy, err);
		if (!j->networking)
			return pf_wrap(err, "--policy");
	}
	if (g->n_allow) {
		if (!j->networking)
			j->networking = cJSON_CreateObject();
		cJSON *type = cJSON_GetObjectItemCaseSensitive(j->networking, "type");
		if (!type || (cJSON_IsString(type) && strcmp(type->valuestring, "none") == 0)) {
			cJSON_DeleteItemFromObjectCaseSensitive(j->networking, "type");
			cJSON_AddStringToObject(j->networking, "type", "limited");
		}
		cJSON *hosts = cJSON_GetObjectItemCaseSensitive(j->networking, "allowed_hosts");
		if (!hosts)
			hosts = cJSON_AddArrayToObject(j->networking, "allowed_hosts");
		for (size_t i = 0; i < g->n_allow; i++)
			cJSON_AddItemToArray(hosts, cJSON_CreateString(g->allow[i]));
	}
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j->networking, "type"));
	j->net = j->networking && (!type || strcmp(type, "none") != 0) ? PF_JAIL_NET_GATE : PF_JAIL_NET_NONE;
	return 0;
}

static int seccomp(struct given *g, struct pf_err *err)
{
	if (!g->seccomp || strcmp(g->seccomp, "default") == 0)
		return 0;
	if (strcmp(g->seccomp, "strict") == 0) {
		g->j->seccomp = PF_JAIL_SECCOMP_STRICT;
	} else if (strcmp(g->seccomp, "off") == 0) {
		g->j->seccomp = PF_JAIL_SECCOMP_OFF;
	} else {
		g->j->seccomp = PF_JAIL_SECCOMP_FILE;
		g->j->seccomp_object = pf_json_load(g->seccomp, err);
		if (!g->j->seccomp_object)
			return pf_wrap(err, "--seccomp (default, strict, off or a file)");
	}
	return 0;
}

static int settle(struct given *g, int argc, char **argv, struct pf_err *err)
{
	struct pf_jail *j = g->j;

	if (who(g, err) < 0 || pf_jail_enter(j, err) < 0 || where(g, err) < 0)
		return -1;
	if (pf_jail_profile(j, g->profile ? g->profile : NULL, &g->home, &g->size, err) < 0)
		return -1;
	if (apply_rules(g, err) < 0 || (g->overlay && pf_jail_overlay(j, err) < 0) || network(g, err) < 0 ||
		seccomp(g, err) < 0)
		return -1;
	if (pf_jail_add_defaults(j, g->home, g->size, err) < 0)
		return -1;
	pf_jail_environment(j, g->env, g->n_env);
	j->argv = pf_calloc((size_t)argc + 1, sizeof(*j->argv));
	for (int i = 0; i < argc; i++)
		j->argv[i] = pf_strdup(argv[i]);
	j->capture = g->json;
	j->tty = !g->json && (g->tty == 1 || (g->tty == -1 && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)));
	return 0;
}

static void tell_denied(const struct given *g, const struct pf_jail_result *r)
{
	PF_BUF struct pf_buf b = {0};
	const cJSON *e;
	int shown = 0;

	/* For people who look at a terminal; -v has told each already. */
	if (!r->denied || g->verbose || !isatty(STDERR_FILENO))
		return;
	cJSON_ArrayForEach(e, r->denied)
	{
		const cJSON *name = cJSON_GetObjectItemCaseSensitive(e, "name");
		const cJSON *port = cJSON_GetObjectItemCaseSensitive(e, "port");
		if (shown++ == 5) {
			pf_buf_str(&b, ", …");
			break;
		}
		pf_buf_printf(&b, "%s%s", b.len ? ", " : "", name->valuestring);
		if (port)
			pf_buf_printf(&b, ":%d", port->valueint);
	}
	PF_FREE char *text =
		pf_asprintf("the network was denied: %s (--allow HOST lets it be reached)", b.data);
	pf_jail_message("", text);
}

static int run(struct given *g)
{
	struct pf_jail_result r = {0};
	struct pf_err err = PF_ERR_INIT;

	if (g->explain) {
		pf_jail_print_plan(g->j, g->json);
		return fflush(stdout) == 0 ? 0 : 125;
	}
	if (pf_jail_run(g->j, &r, &err) < 0) {
		pf_jail_result_done(&r);
		return report(&err);
	}
	int code = r.exit_code;
	if (g->json)
		pf_jail_print_result(&r);
	else
		tell_denied(g, &r);
	if (g->diff && !g->json)
		pf_jail_print_changes(r.changes);
	if (r.limit && !g->json) {
		PF_FREE char *text = pf_asprintf("ended: its %s limit was reached", r.limit);
		pf_jail_message("", text);
	}
	pf_jail_result_done(&r);
	return fflush(stdout) == 0 ? code : 125;
}

int main(int argc, char **argv)
{
	struct pf_jail j;
	struct given g = {.j = &j, .size = -1, .tty = -1};
	struct pf_err err = PF_ERR_INIT;
	int c, code;

	/* Somebody else's power must not be ours to spend. */
	if (geteuid() != getuid() || getegid() != getgid()) {
		pf_jail_message("error", "this program must not be setuid or setgid; it needs no privileges");
		return 125;
	}
	pf_jail_init(&j);
	j.warn = warn;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:C:e:vh", options, NULL)) != -1) {
		if (c == 'h') {
			fputs(help, stdout);
			return 0;
		}
		if (c == O_VERSION) {
			printf("pinfold-jail %s\n", PF_VERSION);
			return 0;
		}
		if (c == ':') {
			PF_FREE char *text = pf_asprintf("option %s needs a value", argv[optind - 1]);
			pf_jail_message("error", text);
			return 125;
		}
		if (c == '?')
			return usage_error(argv[optind - 1]);
		if (take(&g, c, optarg, &err) < 0)
			return report(&err);
	}
	if (optind >= argc) {
		pf_jail_message("error", "no command given");
		fprintf(stderr, "try: pinfold-jail --help\n");
		return 125;
	}
	if (g.verbose)
		j.say = say;
	code = settle(&g, argc - optind, argv + optind, &err) < 0 ? report(&err) : run(&g);
	pf_jail_done(&j);
	pf_strv_free(g.allow);
	pf_strv_free(g.env);
	return code;
}
