#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "base/units.h"
#include "checkpoint/store.h"
#include "cmd/pinfold/oci.h"
#include "sandbox/spec.h"
#include "session/session.h"

struct pf_globals pf_globals = {
	.dirs = {.root = PF_DEFAULT_ROOT, .store = PF_DEFAULT_STORE}, .failed = PF_EXIT_FAILED};

/* Begins the summary of a verb that is runc's and answers as runc does, also to a mistake on its command
 * line. */
#define OCI "OCI: "

static const struct pf_verb verbs[] = {
	{"create", pf_cmd_create, "ID [--config FILE] [--image REF] [--from CHECKPOINT|latest]",
		"make a sandbox"},
	{"exec", pf_cmd_exec, "ID [options] -- COMMAND…", "run a command in a sandbox"},
	{"cp", pf_cmd_cp, "FILE ID:PATH", "copy a file into it or out of it"},
	{"snapshot", pf_cmd_snapshot, "ID [--name N] [--label K=V]", "make a checkpoint of its files"},
	{"destroy", pf_cmd_destroy, "ID… [--snapshot]", "end it and remove all of it"},
	{"fork", pf_cmd_fork, "CHECKPOINT ID…", "make sandboxes from one checkpoint"},
	{"diff", pf_cmd_diff, "A [B]", "what changed between checkpoints or sandboxes"},
	{"list", pf_cmd_list, "[--format table|json] [--quiet]", "the sandboxes of this machine"},
	{"state", pf_cmd_state, "ID", "one sandbox, as JSON"},
	{"stats", pf_cmd_stats, "ID", "what it uses, as JSON"},
	{"pause", pf_cmd_pause, "ID", "stop all its processes for a while"},
	{"resume", pf_cmd_resume, "ID", "let them go on"},
	{"logs", pf_cmd_logs, "ID [--follow] [--denied]", "its audit log"},
	{"policy", pf_cmd_policy, "ID show|set FILE", "what may leave it"},
	{"image", pf_cmd_image, "build|import|ls|inspect|rm …", "root file systems"},
	{"checkpoint", pf_cmd_checkpoint, "ls|inspect|verify|export|push|prune|rm …", "stored checkpoints"},
	{"run", pf_cmd_run, "[--bundle DIR] [--detach] ID", OCI "create, start, wait for the end"},
	{"start", pf_cmd_start, "ID", OCI "let a created container run"},
	{"kill", pf_cmd_kill, "[--all] ID [SIGNAL]", OCI "send a signal"},
	{"delete", pf_cmd_delete, "[--force] ID…", OCI "remove a stopped container"},
	{"ps", pf_cmd_ps, "[--format table|json] ID", OCI "the processes of a container"},
	{"update", pf_cmd_update, "[--resources FILE] ID", OCI "change limits"},
	{"events", pf_cmd_events, "[--stats] ID", OCI "usage and memory events"},
	{"features", pf_cmd_features, "", OCI "what is supported, as JSON"},
	{"spec", pf_cmd_spec, "[--bundle DIR] [--rootless]", OCI "write a config.json to begin with"},
	{"restore", pf_cmd_no_checkpoint, NULL, NULL},
	{"on-work", pf_cmd_on_work, "[options] <ITEM", "do one work item of an agent platform"},
	{"gc", pf_cmd_gc, "[--stopped]", "remove what crashes and reboots left"},
	{"doctor", pf_cmd_doctor, "[--json]", "what this machine offers and lacks"},
};
#define N_VERBS (sizeof(verbs) / sizeof(verbs[0]))

static void print_help(FILE *f)
{
	fprintf(f,
		"usage: pinfold [--root DIR] [--store DIR] [--log FILE] [--log-format text|json] VERB …\n\n");
	for (size_t i = 0; i < N_VERBS; i++)
		if (verbs[i].summary)
			fprintf(f, "  %-11s %s\n", verbs[i].name, verbs[i].summary);
	fprintf(f,
		"\n`pinfold VERB --help` tells more; so does man pinfold.\n\n"
		"  --root DIR    runtime state (default %s)\n"
		"  --store DIR   images, workspaces, checkpoints, logs (default %s)\n"
		"  --debug       accepted, since callers of OCI runtimes give it; changes nothing\n"
		"  --version     print the version\n",
		PF_DEFAULT_ROOT, PF_DEFAULT_STORE);
}

void pf_log(const char *level, const char *msg)
{
	pf_log_say(&pf_globals.log, level, msg, NULL);
}

int pf_report(const struct pf_err *err)
{
	pf_log_say(&pf_globals.log, "error", err->msg, pf_err_kind_name(err->kind));
	if ((err->errnum == EACCES || err->errnum == EPERM) && geteuid() != 0 && !pf_globals.log.json)
		fprintf(stderr, "try: as root; one command needs none: pinfold-jail -- COMMAND\n");
	if (err->kind == PF_ERR_NO_EXEC)
		return PF_EXIT_NO_EXEC;
	return err->kind == PF_ERR_NO_COMMAND ? PF_EXIT_NO_COMMAND : PF_EXIT_FAILED;
}

int pf_usage(const char *verb, const char *fmt, ...)
{
	char msg[600];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	PF_FREE char *text = pf_asprintf("%s%s%s; try: pinfold %s%s--help", verb ? verb : "",
		verb ? ": " : "", msg, verb ? verb : "", verb ? " " : "");
	pf_log_say(&pf_globals.log, "error", text, pf_err_kind_name(PF_ERR_INVALID));
	return pf_globals.failed;
}

void pf_warn(const char *fmt, ...)
{
	char msg[1000];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	pf_log("warning", msg);
}

/* What getopt_long calls wrong in verb's options, or in the global ones when verb is NULL. */
static int wrong_option(const char *verb, int c, char **argv, const struct option *options)
{
	if (c == ':')
		return pf_usage(verb, "option %s needs a value", argv[optind - 1]);
	/* One of several letters behind one dash is not what stands at optind. */
	char letter[3] = {'-', (char)optopt, '\0'};
	const char *names[64], *given = optopt > ' ' && optopt < 127 ? letter : argv[optind - 1];
	size_t k = 0;
	for (const struct option *o = options; o->name && k < 63; o++)
		names[k++] = o->name;
	names[k] = NULL;
	const char *near = pf_starts_with(given, "--") ? pf_nearest(given + 2, names) : NULL;
	return pf_usage(verb, "unknown option %s%s%s%s", given, near ? ": did you mean --" : "",
		near ? near : "", near ? "?" : "");
}

int pf_getopt(int argc, char **argv, const struct option *options, bool stop_at_operand, const char *help)
{
	char shorts[64];
	size_t n = 0;
	int c;

	if (stop_at_operand)
		shorts[n++] = '+';
	shorts[n++] = ':';
	for (const struct option *o = options; o->name; o++)
		if (o->val > 32 && o->val < 127 && n + 3 < sizeof(shorts)) {
			shorts[n++] = (char)o->val;
			if (o->has_arg)
				shorts[n++] = ':';
		}
	shorts[n++] = 'h';
	shorts[n] = '\0';
	opterr = 0;
	c = getopt_long(argc, argv, shorts, options, NULL);
	if (c == 'h' || (c == '?' && strcmp(argv[optind - 1], "--help") == 0)) {
		printf("usage: pinfold %s", help);
		exit(pf_finish_output(0, NULL));
	}
	if (c == ':' || c == '?')
		exit(wrong_option(argv[0], c, argv, options));
	return c;
}

void pf_print_json(cJSON *j)
{
	char *text = isatty(STDOUT_FILENO) ? cJSON_Print(j) : cJSON_PrintUnformatted(j);

	if (!text)
		abort();
	puts(text);
	free(text);
	cJSON_Delete(j);
}

int pf_finish_output(int code, const char *done)
{
	static bool said;
	bool bad = fflush(stdout) == EOF;
	int e = bad ? errno : 0;

	if (!bad && !ferror(stdout))
		return code;
	if (!said) {
		PF_FREE char *msg = pf_asprintf("%s%sstandard output cannot be written%s%s", done ? done : "",
			done ? "; " : "", e ? ": " : "", e ? strerrordesc_np(e) : "");
		pf_log_say(&pf_globals.log, "error", msg, pf_err_kind_name(PF_ERR_SYSTEM));
	}
	said = true;
	return code ? code : PF_EXIT_FAILED;
}

int pf_exec_helper(const char *program, char *const argv[])
{
	struct pf_err err = PF_ERR_INIT;
	char *path = pf_helper_path(program, &err), *args[256];
	size_t n = 0;

	if (!path)
		return pf_report(&err);
	args[n++] = path;
	args[n++] = (char *)"--root";
	args[n++] = (char *)pf_globals.dirs.root;
	args[n++] = (char *)"--store";
	args[n++] = (char *)pf_globals.dirs.store;
	if (pf_globals.log.json) {
		args[n++] = (char *)"--log-format";
		args[n++] = (char *)"json";
	}
	if (pf_globals.log.file) {
		args[n++] = (char *)"--log";
		args[n++] = (char *)pf_globals.log.file;
	}
	for (; *argv && n < 255; argv++)
		args[n++] = *argv;
	args[n] = NULL;
	if (*argv)
		return pf_usage(NULL, "too many arguments");
	execv(path, args);
	pf_fail(&err, errno, "start %s", path);
	return pf_report(&err);
}

/* A descriptor below 3 that the caller closed would otherwise be taken by one of our own files. */
static void open_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd < 3);
	if (fd >= 3)
		close(fd);
}

static int find_verb(const char *name)
{
	const char *names[N_VERBS + 1];

	for (size_t i = 0; i < N_VERBS; i++) {
		if (strcmp(name, verbs[i].name) == 0)
			return (int)i;
		names[i] = verbs[i].name;
	}
	names[N_VERBS] = NULL;
	const char *near = pf_nearest(name, names);
	pf_usage(NULL, "unknown verb '%s'%s%s%s", name, near ? ": did you mean '" : "", near ? near : "",
		near ? "'?" : "");
	return -1;
}

/* What lies there is also found from other working directories. Lives as long as the program. */
static void make_absolute(const char **path)
{
	char *cwd;

	if (**path == '/')
		return;
	cwd = getcwd(NULL, 0);
	*path = pf_asprintf("%s/%s", cwd ? cwd : "", *path);
	free(cwd);
}

/* "fd:N" that can be read only once (a pipe) becomes a file in memory: more than one helper may need the key.
 */
static int keep_key_fd(const char *spec, struct pf_err *err)
{
	char text[512];
	int64_t fd;
	PF_CLOSE int copy = -1;

	if (pf_parse_int("key fd", spec + 3, 0, 1 << 20, &fd, err) < 0)
		return -1;
	if (lseek((int)fd, 0, SEEK_SET) == 0)
		return 0;
	ssize_t n = pf_read_full((int)fd, text, sizeof(text));
	copy = memfd_create("pinfold-key", MFD_CLOEXEC);
	int r = n < 0 || copy < 0 || pf_write_all(copy, text, (size_t)n) < 0 ||
				lseek(copy, 0, SEEK_SET) < 0 || dup2(copy, (int)fd) < 0
			? pf_fail(err, errno, "key %s", spec)
			: 0;
	explicit_bzero(text, sizeof(text));
	return r;
}

/* How the key is to be had, and whether to encrypt: helpers of all sorts need to know, and the names of keys
 * may stand in the environment (keys may not). */
static int use_key(const char *spec, struct pf_err *err)
{
	if (pf_starts_with(spec, "fd:") && keep_key_fd(spec, err) < 0)
		return -1;
	return setenv("PINFOLD_KEY", spec, 1) < 0 ? pf_fail(err, errno, "--key") : 0;
}

/* --key SPEC, --encrypt, --no-encrypt and --decrypt of the verbs that deal with checkpoints, wherever they
 * stand before
 * "--". */
static int take_key_options(int *argc, char **argv, struct pf_err *err)
{
	static const char *const these[] = {"create", "snapshot", "fork", "diff", "checkpoint", NULL};
	bool mine = false;
	int to = 1, i;

	for (size_t k = 0; these[k]; k++)
		mine = mine || strcmp(argv[0], these[k]) == 0;
	/* What stands on the image may be hidden. */
	mine = mine || (strcmp(argv[0], "image") == 0 && *argc > 1 && strcmp(argv[1], "rm") == 0);
	/* Whose --key is not for using but for remembering. */
	mine = mine && !(*argc > 1 && strcmp(argv[1], "encryption") == 0);
	for (i = 1; mine && i < *argc && strcmp(argv[i], "--") != 0; i++) {
		const char *spec = pf_starts_with(argv[i], "--key=") ? argv[i] + 6 : NULL;
		if (strcmp(argv[i], "--key") == 0 && !(spec = argv[++i]))
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "option --key needs a value");
		if (spec && use_key(spec, err) < 0)
			return -1;
		if (!spec && strcmp(argv[i], "--decrypt") == 0)
			(void)setenv("PINFOLD_DECRYPT", "yes", 1);
		else if (!spec && (strcmp(argv[i], "--encrypt") == 0 || strcmp(argv[i], "--no-encrypt") == 0))
			(void)setenv("PINFOLD_ENCRYPT", argv[i][2] == 'e' ? "yes" : "no", 1);
		else if (!spec)
			argv[to++] = argv[i];
	}
	while (mine && i < *argc)
		argv[to++] = argv[i++];
	if (mine) {
		argv[to] = NULL;
		*argc = to;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"root", required_argument, NULL, 'r'},
		{"store", required_argument, NULL, 's'}, {"log", required_argument, NULL, 'l'},
		{"log-format", required_argument, NULL, 'f'}, {"debug", no_argument, NULL, 'd'},
		{"systemd-cgroup", no_argument, NULL, 1}, {"rootless", required_argument, NULL, 2},
		{"criu", required_argument, NULL, 3}, {"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	int c;

	if (pf_open_stdio() < 0)
		return 125;
	/* Two things that a caller hands down and that must not count: that nobody waits for children, and
	 * the permissions of what is made. */
	(void)signal(SIGCHLD, SIG_DFL);
	umask(022);
	pf_globals.argv = argv;
	/* Started by a descriptor (selfguard.h) we would be named after its number. */
	(void)prctl(PR_SET_NAME, "pinfold", 0, 0, 0);
	open_standard_fds();
	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:hv", options, NULL)) != -1) {
		switch (c) {
		case 'r':
			pf_globals.dirs.root = optarg;
			break;
		case 's':
			pf_globals.dirs.store = optarg;
			break;
		case 'l':
			pf_globals.log.file = optarg;
			break;
		case 'f':
			if (strcmp(optarg, "json") != 0 && strcmp(optarg, "text") != 0)
				return pf_usage(NULL, "--log-format must be text or json");
			pf_globals.log.json = strcmp(optarg, "json") == 0;
			break;
		case 'd': /* runc's; there are no lines for it alone */
			break;
		case 1:
			pf_globals.systemd_cgroup = true;
			break;
		case 2: /* which of the two it is, is asked of the system */
			if (strcmp(optarg, "auto") != 0 && strcmp(optarg, "true") != 0 &&
				strcmp(optarg, "false") != 0)
				return pf_usage(NULL, "--rootless must be auto, true or false");
			break;
		case 3: /* obsolete in runc, too */
			break;
		case 'v':
			printf("pinfold version %s\nspec: %s\n", PF_VERSION, PF_OCI_VERSION);
			return pf_finish_output(0, NULL);
		case 'h':
			print_help(stdout);
			return pf_finish_output(0, NULL);
		default:
			return wrong_option(NULL, c, argv, options);
		}
	}
	make_absolute(&pf_globals.dirs.root);
	make_absolute(&pf_globals.dirs.store);
	if (optind >= argc && pf_globals.log.json)
		return pf_usage(NULL, "no verb given");
	if (optind >= argc) {
		print_help(stderr);
		return PF_EXIT_FAILED;
	}
	if (getuid() != geteuid())
		return pf_usage(NULL, "refusing to run set-user-id");
	/* help VERB… is VERB… --help. */
	if (strcmp(argv[optind], "help") == 0 && optind + 1 == argc) {
		print_help(stdout);
		return pf_finish_output(0, NULL);
	} else if (strcmp(argv[optind], "help") == 0) {
		memmove(argv + optind, argv + optind + 1, (size_t)(argc - optind - 1) * sizeof(*argv));
		argv[argc - 1] = (char *)"--help";
	}
	int verb = find_verb(argv[optind]);
	if (verb < 0)
		return PF_EXIT_FAILED;
	if (!verbs[verb].summary || pf_starts_with(verbs[verb].summary, OCI))
		pf_globals.failed = PF_OCI_FAILED;
	argv += optind;
	argc -= optind;
	optind = 0;
	struct pf_err err = PF_ERR_INIT;
	if (take_key_options(&argc, argv, &err) < 0)
		return pf_report(&err);
	pf_ckpt_open_manifest = pf_open_sealed_manifest;
	return pf_finish_output(verbs[verb].run(argc, argv), NULL);
}
