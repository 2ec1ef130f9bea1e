/* pinfold-jail: run one command that is not trusted, here and now. Arguments and printing; the rest is
 * jail/. */
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "base/units.h"
#include "cmd/pinfold-jail/jail_cmd.h"
#include "jail/config.h"

static const char help[] =
	"usage: pinfold-jail [options] [--] COMMAND [ARGUMENT…]\n\n"
	"Runs a command that you do not trust. It sees the system's programs and the directory that you are\n"
	"in, read-only; it has a /tmp and a home of its own, no network, none of your environment, no view "
	"of\n"
	"other processes and no privileges, and it ends when pinfold-jail does.\n\n"
	"Files (rules nest by depth, in any order; later ones win)\n"
	"  --rw PATH, --ro PATH     show PATH, writable or not\n"
	"  --rw-try, --ro-try PATH  the same, if it is there\n"
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
	"  --keep NAME              … keep it as a checkpoint, and\n"
	"  --from CHECKPOINT        … go on from one that was kept\n"
	"  --store DIR              where those are (default ~/.local/state/pinfold)\n"
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
	"  --grace D                kill it D after a SIGTERM to pinfold-jail that it was handed (default "
	"10s)\n"
	"  --memory SIZE            of all its processes together: exit code 137\n"
	"  --pids N, --cpus C\n"
	"Other\n"
	"  --profile NAME|FILE      begin with a profile (default build node python offline-strict)\n"
	"  --seccomp MODE           default, strict, off, or FILE with an OCI seccomp object\n"
	"  --tty, --no-tty          a terminal of its own (default: when ours are terminals)\n"
	"  --json                   print one JSON object with the result instead of passing output through\n"
	"  --learn                  run it, and print the smallest profile with which it had missed nothing\n"
	"  --weak                   without namespaces, by Landlock, seccomp and resource limits alone: for "
	"machines\n"
	"                           that allow no user namespaces; says what is lost\n"
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
	O_GRACE,
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
	O_KEEP,
	O_FROM,
	O_STORE,
	O_SERVE,
	O_LEARN,
	O_WEAK,
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
	{"timeout", required_argument, NULL, O_TIMEOUT}, {"grace", required_argument, NULL, O_GRACE},
	{"memory", required_argument, NULL, O_MEMORY}, {"pids", required_argument, NULL, O_PIDS},
	{"cpus", required_argument, NULL, O_CPUS}, {"profile", required_argument, NULL, O_PROFILE},
	{"seccomp", required_argument, NULL, O_SECCOMP}, {"tty", no_argument, NULL, O_TTY},
	{"no-tty", no_argument, NULL, O_NO_TTY}, {"json", no_argument, NULL, O_JSON},
	{"explain", no_argument, NULL, O_EXPLAIN}, {"overlay", no_argument, NULL, O_OVERLAY},
	{"diff", no_argument, NULL, O_DIFF}, {"commit", no_argument, NULL, O_COMMIT},
	{"keep", required_argument, NULL, O_KEEP}, {"from", required_argument, NULL, O_FROM},
	{"store", required_argument, NULL, O_STORE}, {"serve", required_argument, NULL, O_SERVE},
	{"learn", no_argument, NULL, O_LEARN}, {"weak", no_argument, NULL, O_WEAK},
	{"verbose", no_argument, NULL, 'v'}, {"version", no_argument, NULL, O_VERSION},
	{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};

static int usage_error(const char *given)
{
	const char *names[64], *near;
	size_t n = 0;

	for (const struct option *o = options; o->name && n < 63; o++)
		names[n++] = o->name;
	names[n] = NULL;
	near = pf_starts_with(given, "--") ? pf_nearest(given + 2, names) : NULL;
	PF_FREE char *text = pf_asprintf("unknown option %s%s%s%s; try: pinfold-jail --help", given,
		near ? ": did you mean --" : "", near ? near : "", near ? "?" : "");
	pf_jail_message("error", text);
	return 125;
}

static int lacks_value(const char *option)
{
	PF_FREE char *text = pf_asprintf("option %s needs a value; try: pinfold-jail --help", option);

	pf_jail_message("error", text);
	return 125;
}

struct given {
	struct pf_jail *j;
	cJSON *doc; /* see jail/config.h */
	int tty;    /* -1 as it fits, 0, 1 */
	bool json, explain, verbose, diff;
};

static cJSON *list(cJSON *o, const char *key)
{
	cJSON *a = cJSON_GetObjectItemCaseSensitive(o, key);

	return a ? a : cJSON_AddArrayToObject(o, key);
}

static cJSON *object(cJSON *o, const char *key)
{
	cJSON *a = cJSON_GetObjectItemCaseSensitive(o, key);

	return a ? a : cJSON_AddObjectToObject(o, key);
}

/* The last of an option that is given more than once counts. */
static void set(cJSON *o, const char *key, cJSON *value)
{
	cJSON_DeleteItemFromObjectCaseSensitive(o, key);
	cJSON_AddItemToObject(o, key, value);
}

static void set_string(cJSON *o, const char *key, const char *value)
{
	set(o, key, cJSON_CreateString(value));
}

static void add_rule(struct given *g, const char *kind, const char *path)
{
	cJSON *rule = cJSON_CreateObject();

	cJSON_AddStringToObject(rule, kind, path);
	cJSON_AddItemToArray(list(g->doc, "files"), rule);
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
			cJSON_AddItemToArray(list(g->doc, "allow"), cJSON_CreateString(line));
	}
	return 0;
}

static int add_env(struct given *g, const char *entry, struct pf_err *err)
{
	const char *eq = strchr(entry, '=');

	if (!eq || eq == entry)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "--env %s: NAME=value is expected", entry);
	PF_FREE char *name = pf_strdup(entry);
	name[eq - entry] = '\0';
	set_string(object(g->doc, "env"), name, eq + 1);
	return 0;
}

static int load(struct given *g, const char *option, const char *key, const char *path, struct pf_err *err)
{
	cJSON *j = pf_json_load(path, err);

	if (!j)
		return pf_wrap(err, "%s", option);
	set(g->doc, key, j);
	return 0;
}

static int seccomp(struct given *g, const char *arg, struct pf_err *err)
{
	if (strcmp(arg, "default") == 0 || strcmp(arg, "strict") == 0 || strcmp(arg, "off") == 0) {
		set_string(g->doc, "seccomp", arg);
		return 0;
	}
	if (!*arg)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "--seccomp: default, strict, off or a file is expected");
	return load(g, "--seccomp (default, strict, off or a file)", "seccomp", arg, err);
}

static int take(struct given *g, int c, const char *arg, struct pf_err *err)
{
	static const struct {
		int option;
		const char *key;
	} rules[] = {{O_RW, "rw"}, {O_RO, "ro"}, {O_RW_TRY, "rw_try"}, {O_RO_TRY, "ro_try"}, {O_HIDE, "hide"},
		{O_TMPFS, "tmpfs"}},
	  strings[] = {{O_HOME, "home"}, {O_SIZE, "size"}, {'C', "cwd"}, {O_USER, "user"}, {O_KEEP, "keep"},
		  {O_FROM, "from"}, {O_STORE, "store"}, {O_PROFILE, "profile"}},
	  limits[] = {{O_TIMEOUT, "timeout"}, {O_GRACE, "grace"}, {O_MEMORY, "memory"}, {O_PIDS, "pids"},
		  {O_CPUS, "cpus"}};

	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].option == c)
			add_rule(g, rules[i].key, arg);
	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
		if (strings[i].option == c)
			set_string(g->doc, strings[i].key, arg);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		if (limits[i].option == c)
			set_string(object(g->doc, "limits"), limits[i].key, arg);
	switch (c) {
	case O_ALLOW:
		cJSON_AddItemToArray(list(g->doc, "allow"), cJSON_CreateString(arg));
		break;
	case O_ALLOW_FILE:
		return read_hosts(g, arg, err);
	case O_POLICY:
		return load(g, "--policy", "networking", arg, err);
	case 'e':
		return add_env(g, arg, err);
	case O_BIND_ENV:
		cJSON_AddItemToArray(list(g->doc, "bind_env"), cJSON_CreateString(arg));
		break;
	case O_SECCOMP:
		return seccomp(g, arg, err);
	case O_TTY:
	case O_NO_TTY:
		g->tty = c == O_TTY;
		break;
	case O_JSON:
		g->json = true;
		break;
	case O_EXPLAIN:
		g->explain = true;
		break;
	case O_DIFF:
		g->diff = true;
		set(g->doc, "overlay", cJSON_CreateTrue());
		break;
	case O_OVERLAY:
		set(g->doc, "overlay", cJSON_CreateTrue());
		break;
	case O_WEAK:
		set(g->doc, "weak", cJSON_CreateTrue());
		break;
	case O_LEARN:
		g->j->learn = true;
		break;
	case O_COMMIT:
		set(g->doc, "commit", cJSON_CreateTrue());
		break;
	case 'v':
		g->verbose = true;
		break;
	default:
		break;
	}
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

static void tell_kept(const struct given *g, const cJSON *kept)
{
	const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(kept, "checkpoint"));
	PF_FREE char *text = pf_asprintf("kept as %s (%.19s)", g->j->keep, digest ? digest : "");

	pf_jail_message("", text);
}

static int run(struct given *g)
{
	struct pf_jail_result r = {0};
	struct pf_err err = PF_ERR_INIT;

	if (g->explain) {
		pf_jail_print_plan(g->j, g->json, g->doc);
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
	if (g->j->learn && !g->json)
		pf_jail_print_learned(r.learned);
	if (r.kept && !g->json)
		tell_kept(g, r.kept);
	if (g->diff && !g->json)
		pf_jail_print_changes(r.changes);
	if (r.changes_truncated && !g->json)
		pf_jail_message("", "there are more changes than the list can hold");
	if (r.limit && !g->json) {
		PF_FREE char *text = pf_asprintf("ended: its %s limit was reached", r.limit);
		pf_jail_message("", text);
	}
	pf_jail_result_done(&r);
	return fflush(stdout) == 0 ? code : 125;
}

/* Returns -1 when there is a command to be run, else the exit code. */
static int read_options(struct given *g, int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	int64_t fd;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:C:e:vh", options, NULL)) != -1) {
		switch (c) {
		case 'h':
			fputs(help, stdout);
			return 0;
		case O_SERVE:
			return pf_parse_int("--serve", optarg, 3, INT_MAX, &fd, &err) < 0
				       ? report(&err)
				       : pf_jail_serve((int)fd);
		case O_VERSION:
			printf("pinfold-jail %s\n", PF_VERSION);
			return 0;
		case ':':
			return lacks_value(argv[optind - 1]);
		case '?':
			return usage_error(argv[optind - 1]);
		default:
			if (take(g, c, optarg, &err) < 0)
				return report(&err);
		}
	}
	if (optind >= argc) {
		pf_jail_message("error", "no command given; try: pinfold-jail --help");
		return 125;
	}
	if (g->json && g->tty == 1) {
		pf_jail_message("error",
			"--tty gives the command our terminal, --json keeps its output for the result: one "
			"of the two");
		return 125;
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct pf_jail j;
	struct given g = {.j = &j, .doc = NULL, .tty = -1};
	struct pf_err err = PF_ERR_INIT;

	if (pf_open_stdio() < 0)
		return 125;
	/* Whose caller ignores it would never learn how the command ended. */
	(void)signal(SIGCHLD, SIG_DFL);
	/* Somebody else's power must not be ours to spend. */
	if (geteuid() != getuid() || getegid() != getgid()) {
		pf_jail_message("error", "this program must not be setuid or setgid; it needs no privileges");
		return 125;
	}
	pf_jail_init(&j);
	j.warn = warn;
	g.doc = cJSON_CreateObject();
	int code = read_options(&g, argc, argv);
	if (code < 0) {
		if (g.verbose)
			j.say = say;
		for (int i = optind; i < argc; i++)
			cJSON_AddItemToArray(list(g.doc, "command"), cJSON_CreateString(argv[i]));
		j.capture = g.json;
		j.list_changes = g.json || g.diff;
		j.keep_stdin = true;
		j.tty = !g.json &&
			(g.tty == 1 || (g.tty == -1 && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)));
		code = pf_jail_configure(&j, g.doc, &err) < 0 ? report(&err) : run(&g);
	}
	pf_jail_done(&j);
	cJSON_Delete(g.doc);
	return code;
}
