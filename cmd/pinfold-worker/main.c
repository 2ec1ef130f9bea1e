/* Theory of operation: pinfold-worker, the environment worker.
 *
 * One process polls (poller.c); each work item is a process of its own, started from this same file with the
 * item (and the environment key) over a pipe. So a session that crashes takes nothing along, nothing secret
 * stands on a command line or in an environment, and the poller is small enough to be right. Here is what
 * both kinds begin with, the options, and the one item.
 *
 * As `pinfold on-work` it is the script that somebody else's poller starts: one item on standard input. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/units.h"
#include "cmd/pinfold-worker/worker.h"
#include "session/dirs.h"
#include "worker/gateway.h"
#include "worker/http.h"
#include "worker/log.h"
#include "worker/metrics.h"

#define DEFAULT_URL "https://api.anthropic.com"
#define ITEM_MAX ((size_t)1 << 20)
#define FORGET_WAIT_MS 120000

extern char **environ;

static const char help[] =
	"usage: pinfold-worker [options]            poll for work and do it\n"
	"       pinfold on-work [options] <ITEM     do one work item, for another poller\n"
	"       … [options] -- COMMAND…             with COMMAND, a worker that runs in the sandbox\n\n"
	"  --environment-id ID   (ANTHROPIC_ENVIRONMENT_ID)\n"
	"  --key-file FILE       the environment key (ANTHROPIC_ENVIRONMENT_KEY)\n"
	"  --base-url URL        the control plane (ANTHROPIC_BASE_URL)\n"
	"  --worker-id ID        what the control plane sees (ANTHROPIC_WORKER_ID; host name and a random "
	"part)\n"
	"  --max-sessions N      work items at a time (1)\n"
	"  --max-idle D          how long a session may be idle before its sandbox is put away (60s)\n"
	"  --config FILE         the sandbox file of all sessions\n"
	"  --credentials FILE    as for pinfold create\n"
	"  --keep N              checkpoints kept of each session (5; 0: all)\n"
	"  --rebase              resume on another version of the image\n"
	"  --inputs DIR          what sessions may ask for in their metadata\n"
	"  --remote HOST/REPO    share checkpoints with other machines through an OCI registry\n"
	"  --grace D             for COMMAND, from SIGTERM until it is killed (25s)\n"
	"  --hang D|never        for COMMAND, ended like on SIGTERM when it has not beaten its heart for so "
	"long "
	"(2m)\n"
	"  --drain               end when there is no work\n"
	"  --listen HOST:PORT    serve /healthz, /readyz, /metrics, and with a key /webhook\n"
	"  --webhook-key-file F  webhook keys, read anew for each (ANTHROPIC_WEBHOOK_SIGNING_KEY)\n"
	"  --poll-every D        between polls that find nothing, where webhooks tell of work (1s to 3s)\n"
	"  --root DIR, --store DIR, --state-dir DIR\n"
	"  --log-format text|json\n"
	"  --version, --help\n\n"
	"Without options, PINFOLD_CONFIG (else /etc/pinfold/sandbox.json, if it is there), _CREDENTIALS, "
	"_ROOT,\n"
	"_STORE, _STATE_DIR, _REMOTE, _INPUTS, _MAX_IDLE, _GRACE, _HANG, _KEEP, and _WORKER_COMMAND (words "
	"between\nblanks) count.\n";

static int fail(const struct pf_err *err)
{
	pf_wlog("error", "%s", err->msg);
	return 1;
}

/* ---- options ---- */

static int parse_time(const char *what, const char *s, bool may_be_never, int64_t *ms, struct pf_err *err)
{
	if (!may_be_never || strcmp(s, "never") != 0)
		return pf_parse_duration(what, s, ms, err);
	*ms = 0;
	return 0;
}

/* What can be said by options can be said by the environment too: other pollers start us without arguments.
 */
static int from_env(struct pf_worker_opts *o, int64_t *keep, struct pf_err *err)
{
	static const char usual[] = "/etc/pinfold/sandbox.json";
	struct pf_box_opts *b = &o->run.box;
	struct {
		const char *name, **to;
	} strings[] = {{"PINFOLD_CONFIG", &b->config}, {"PINFOLD_CREDENTIALS", &b->credentials},
		{"PINFOLD_ROOT", &b->root}, {"PINFOLD_STORE", &b->store},
		{"PINFOLD_STATE_DIR", &b->state_dir}, {"PINFOLD_REMOTE", &b->remote},
		{"PINFOLD_INPUTS", &o->run.inputs}};
	const struct {
		const char *name;
		int64_t *to;
		bool never; /* may be "never", 0 */
	} times[] = {{"PINFOLD_MAX_IDLE", &o->run.max_idle_ms, false},
		{"PINFOLD_GRACE", &o->run.grace_ms, false}, {"PINFOLD_HANG", &o->run.hang_ms, true}};
	const char *v;

	if (access(usual, R_OK) == 0)
		b->config = usual;
	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
		if ((v = getenv(strings[i].name)) && *v)
			*strings[i].to = v;
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if ((v = getenv(times[i].name)) &&
			parse_time(times[i].name, v, times[i].never, times[i].to, err) < 0)
			return -1;
	return (v = getenv("PINFOLD_KEEP")) ? pf_parse_int("PINFOLD_KEEP", v, 0, 10000, keep, err) : 0;
}

/* The command of a worker inside, from the command line or word by word from the environment. */
static void take_command(struct pf_worker_opts *o, char **words)
{
	const char *v = getenv("PINFOLD_WORKER_COMMAND");

	if (*words) {
		o->run.command = (const char *const *)words;
		return;
	}
	size_t n = 0, len = v ? strlen(v) : 0;
	const char **list = pf_calloc(len / 2 + 2, sizeof(*list));
	char *copy = pf_strdup(v ? v : ""), *save = NULL;
	for (char *w = strtok_r(copy, " \t\n", &save); w; w = strtok_r(NULL, " \t\n", &save))
		list[n++] = w;
	if (n) {
		/* Lives as long as the process. */
		o->run.command = list;
		return;
	}
	free(copy);
	free(list);
}

static const char *env_or(const char *name, const char *other)
{
	const char *v = getenv(name);

	return v && *v ? v : other;
}

static int read_key(const char *path, char **key, struct pf_err *err)
{
	PF_CLOSE int dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	size_t len;

	if (stat(path, &st) < 0)
		return pf_fail(err, errno, "%s", path);
	if (st.st_mode & 07)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: everybody may read it: chmod 0600 it", path);
	PF_FREE char *cwd = *path == '/' ? NULL : getcwd(NULL, 0);
	PF_FREE char *abs = cwd ? pf_asprintf("%s/%s", cwd, path) : pf_strdup(path);
	if (pf_read_file_at(dir, abs + 1, 4096, key, &len, err) < 0 || !*key)
		return -1;
	(*key)[strcspn(*key, " \r\n")] = '\0';
	return **key ? 0 : pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: no key in it", path);
}

/* libexec or the same directory. */
static char *find_program(const char *name, struct pf_err *err)
{
	PF_FREE char *dir = pf_program_dir(err);

	for (size_t i = 0; dir && i < 3; i++) {
		char *path = i == 0   ? pf_asprintf("%s/%s", dir, name)
			     : i == 1 ? pf_asprintf("%s/../libexec/pinfold/%s", dir, name)
				      : pf_asprintf("%s/../../bin/%s", dir, name);
		char *real = realpath(path, NULL);
		free(path);
		if (real && access(real, X_OK) == 0)
			return real;
		free(real);
	}
	if (dir)
		pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "the program %s is not installed (looked around %s)",
			name, dir);
	return NULL;
}

static char *make_worker_id(void)
{
	char host[65] = "";
	unsigned r = 0;

	(void)gethostname(host, sizeof(host) - 1);
	(void)!getrandom(&r, sizeof(r), 0);
	return pf_asprintf("%s-%08x", host, r);
}

static int wrong_option(const struct option *options, bool lacks_value, const char *given, struct pf_err *err)
{
	const char *names[64];
	size_t n = 0;

	if (lacks_value)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "option %s needs a value; try: pinfold-worker --help", given);
	for (const struct option *o = options; o->name && n < 63; o++)
		names[n++] = o->name;
	names[n] = NULL;
	const char *near = pf_starts_with(given, "--") ? pf_nearest(given + 2, names) : NULL;
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "unknown option %s%s%s%s; try: pinfold-worker --help",
		given, near ? " (did you mean --" : "", near ? near : "", near ? "?)" : "");
}

static int parse(int argc, char **argv, struct pf_worker_opts *o, struct pf_err *err)
{
	static const struct option options[] = {{"environment-id", 1, NULL, 'e'}, {"key-file", 1, NULL, 'k'},
		{"base-url", 1, NULL, 'u'}, {"worker-id", 1, NULL, 'w'}, {"max-sessions", 1, NULL, 'n'},
		{"max-idle", 1, NULL, 'i'}, {"config", 1, NULL, 'c'}, {"credentials", 1, NULL, 'C'},
		{"keep", 1, NULL, 'K'}, {"rebase", 0, NULL, 'b'}, {"drain", 0, NULL, 'd'},
		{"root", 1, NULL, 'r'}, {"store", 1, NULL, 's'}, {"state-dir", 1, NULL, 'S'},
		{"grace", 1, NULL, 'g'}, {"hang", 1, NULL, 'H'}, {"remote", 1, NULL, 'R'},
		{"inputs", 1, NULL, 'I'}, {"log-format", 1, NULL, 'f'}, {"listen", 1, NULL, 'l'},
		{"webhook-key-file", 1, NULL, 'W'}, {"poll-every", 1, NULL, 'p'}, {"on-work", 0, NULL, 'o'},
		{"version", 0, NULL, 'v'}, {"help", 0, NULL, 'h'}, {NULL, 0, NULL, 0}};
	const char *key_file = NULL;
	int64_t keep = 5;
	const char *base = strrchr(argv[0], '/');
	int c;

	o->on_work = strcmp(base ? base + 1 : argv[0], "pinfold-on-work") == 0;
	if (from_env(o, &keep, err) < 0)
		return -1;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		int bad = 0;
		switch (c) {
		case 'e':
			o->run.environment_id = optarg;
			break;
		case 'k':
			key_file = optarg;
			break;
		case 'u':
			o->run.base_url = optarg;
			break;
		case 'w':
			o->worker_id = optarg;
			break;
		case 'n':
			bad = pf_parse_int("--max-sessions", optarg, 1, SESSIONS_MAX, &o->max_sessions, err);
			break;
		case 'i':
			bad = pf_parse_duration("--max-idle", optarg, &o->run.max_idle_ms, err);
			break;
		case 'c':
			o->run.box.config = optarg;
			break;
		case 'C':
			o->run.box.credentials = optarg;
			break;
		case 'K':
			bad = pf_parse_int("--keep", optarg, 0, 10000, &keep, err);
			break;
		case 'b':
			o->run.box.rebase = true;
			break;
		case 'd':
			o->drain = true;
			break;
		case 'r':
			o->run.box.root = optarg;
			break;
		case 's':
			o->run.box.store = optarg;
			break;
		case 'S':
			o->run.box.state_dir = optarg;
			break;
		case 'f':
			o->json = strcmp(optarg, "json") == 0;
			if (!o->json && strcmp(optarg, "text") != 0)
				bad = pf_fail_kind(
					err, PF_ERR_INVALID, 0, "--log-format must be text or json");
			break;
		case 'l':
			o->listen = optarg;
			break;
		case 'W':
			o->hook_keys_file = optarg;
			break;
		case 'p':
			bad = pf_parse_duration("--poll-every", optarg, &o->poll_every_ms, err);
			break;
		case 'I':
			o->run.inputs = optarg;
			break;
		case 'R':
			o->run.box.remote = optarg;
			break;
		case 'g':
			bad = pf_parse_duration("--grace", optarg, &o->run.grace_ms, err);
			break;
		case 'H':
			bad = parse_time("--hang", optarg, true, &o->run.hang_ms, err);
			break;
		case 'o':
			o->on_work = true;
			break;
		case 'v':
			printf("pinfold-worker version %s\n", PF_VERSION);
			exit(0);
		case 'h':
			fputs(help, stdout);
			exit(0);
		default:
			return wrong_option(options, c == ':', argv[optind - 1], err);
		}
		if (bad < 0)
			return -1;
	}
	/* Only after --, so that a misspelt option does not become a command. */
	if (optind != argc && (optind == 0 || strcmp(argv[optind - 1], "--") != 0))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"'%s': there are options only, and a worker's command after --", argv[optind]);
	take_command(o, argv + optind);
	o->run.box.keep = (int)keep;
	if (key_file && read_key(key_file, &o->key, err) < 0)
		return -1;
	if (!o->key && getenv("ANTHROPIC_ENVIRONMENT_KEY"))
		o->key = pf_strdup(getenv("ANTHROPIC_ENVIRONMENT_KEY"));
	const char *hook_keys = getenv("ANTHROPIC_WEBHOOK_SIGNING_KEY");
	if (o->hook_keys_file && !o->listen)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "--webhook-key-file needs --listen");
	if (hook_keys && *hook_keys && o->listen)
		o->hook_keys = pf_strdup(hook_keys);
	return 0;
}

static int complete(struct pf_worker_opts *o, struct pf_err *err)
{
	o->run.agent = AGENT;
	o->run.log_json = o->json;
	o->run.key = o->key;
	o->run.base_url =
		o->run.base_url ? o->run.base_url : pf_strdup(env_or("ANTHROPIC_BASE_URL", DEFAULT_URL));
	if (!o->run.environment_id && getenv("ANTHROPIC_ENVIRONMENT_ID"))
		o->run.environment_id = pf_strdup(getenv("ANTHROPIC_ENVIRONMENT_ID"));
	if (o->run.environment_id && pf_check_id("environment id", o->run.environment_id, err) < 0)
		return -1;
	if (!o->worker_id)
		o->worker_id = getenv("ANTHROPIC_WORKER_ID") ? pf_strdup(getenv("ANTHROPIC_WORKER_ID"))
							     : make_worker_id();
	if (o->key && strpbrk(o->key, "\r\n"))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "the environment key has a line end in it");
	o->run.box.pinfold = find_program("pinfold", err);
	if (o->run.box.pinfold && !o->run.command)
		o->run.box.tool = find_program("pinfold-tool", err);
	/* From here on the key is in our memory alone, as far as those we start can see. */
	for (char **e = environ; *e;)
		if (strncasecmp(*e, "ANTHROPIC_", 10) == 0) {
			PF_FREE char *name = pf_strdup(*e);
			*strchrnul(name, '=') = '\0';
			memset(*e + strlen(name), '\0', strlen(*e + strlen(name)));
			for (char **m = e; (*m = m[1]); m++)
				;
		} else {
			e++;
		}
	return o->run.box.pinfold && (o->run.box.tool || o->run.command) ? 0 : -1;
}

/* ---- one item ---- */

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
}

/* for_poller: our exit code is for poller.c. */
static int do_item(struct pf_worker_opts *o, const char *text, size_t len, bool for_poller)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_work w;
	sigset_t chld;
	bool spoilt;
	int code = 1;

	/* A child that ends is waited for, not told. */
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_UNBLOCK, &chld, NULL);
	int r = pf_work_parse(text, len, &w, &err);
	if (r < 0)
		return fail(&err);
	if (r == 0 || !w.session_id) {
		pf_wlog("info", "no session's work item: nothing to do");
		pf_work_done(&w);
		return 0;
	}
	pf_wlog_setup(o->json, w.session_id);
	r = pf_runner_run(&o->run, &w, &code, &spoilt, &err);
	pf_work_done(&w);
	if (for_poller)
		return r == 0 ? 0 : spoilt ? EXIT_SPOILT : 1;
	return code;
}

/* The item from a descriptor: for a session's process the key in the first line. */
static int item_from(struct pf_worker_opts *o, int fd, bool with_key)
{
	char *text = pf_calloc(ITEM_MAX + 1, 1);
	ssize_t n = pf_read_full(fd, text, ITEM_MAX);
	char *item = text;

	if (n < 0) {
		pf_wlog("error", "the work item cannot be read: %s", strerrordesc_np(errno));
		free(text);
		return 1;
	}
	if (with_key) {
		item = strchrnul(text, '\n');
		if (*item)
			*item++ = '\0';
		o->key = *text ? pf_strdup(text) : NULL;
		o->run.key = o->key;
	}
	int code = do_item(o, item, strlen(item), with_key);
	explicit_bzero(text, (size_t)n);
	free(text);
	return code;
}

/* What a deleted session has left: its checkpoints, and its sandbox. Whoever works at it hears of it, too. */
static int forget(const struct pf_worker_opts *o, const char *session)
{
	int64_t end = pf_now_us() + (int64_t)FORGET_WAIT_MS * 1000;
	struct pf_err err = PF_ERR_INIT;
	int lock = -1, got;

	pf_wlog_setup(o->json, session);
	while ((got = pf_box_lock(&o->run.box, session, &lock, &err)) == 0 && pf_now_us() < end)
		(void)usleep(200000);
	if (got < 0)
		return fail(&err);
	if (got == 0) {
		pf_wlog("warning", "deleted, but somebody still works at it: nothing is removed");
		return 1;
	}
	int r = pf_box_destroy(&o->run.box, session, &err);
	if (r < 0 && err.kind == PF_ERR_NOT_FOUND)
		r = 0;
	if (r == 0)
		r = pf_box_forget(&o->run.box, session, &err);
	pf_box_unlock(&o->run.box, session, &lock);
	if (r < 0)
		return fail(&err);
	pf_wlog("info", "deleted: nothing of it is left here");
	return 0;
}

/* The number of a descriptor that the poller gave us, now closed on exec; -1: none. */
static int given_fd(const char *name)
{
	const char *v = getenv(name);
	int fd = v ? atoi(v) : -1;

	if (fd >= 0)
		(void)pf_set_cloexec(fd, true);
	unsetenv(name);
	return fd;
}

int main(int argc, char **argv)
{
	/* Its strings live as long as the process. */
	static struct pf_worker_opts o = {.run = {.box = {.root = PF_DEFAULT_ROOT,
							  .store = PF_DEFAULT_STORE,
							  .state_dir = "/run/pinfold-worker"},
						  .max_idle_ms = 60000,
						  .grace_ms = 25000,
						  .hang_ms = 120000},
		.max_sessions = 1};
	struct pf_err err = PF_ERR_INIT;
	int gateway = given_fd(PF_GATEWAYD_ENV);

	if (gateway >= 0)
		return pf_gatewayd_main(gateway);
	int code = 1, fd = given_fd(ITEM_FD_ENV);
	PF_FREE char *deleted = getenv(FORGET_ENV) ? pf_strdup(getenv(FORGET_ENV)) : NULL;

	umask(022);
	/* The key is in our memory: no core of it, wherever the machine sends cores, and no look into it. */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	int wrong = parse(argc, argv, &o, &err);
	pf_wlog_setup(o.json, NULL);
	/* A session's process that cannot even begin tells its poller so. */
	if (wrong < 0 || complete(&o, &err) < 0 || pf_http_init(&err) < 0) {
		(void)fail(&err);
		return fd >= 0 ? EXIT_SPOILT : 1;
	}
	pf_metrics_join(given_fd(METRICS_FD_ENV));
	unsetenv(FORGET_ENV);
	block_signals();
	if (fd >= 0 && deleted) {
		sigset_t chld;
		sigemptyset(&chld);
		sigaddset(&chld, SIGCHLD);
		sigprocmask(SIG_UNBLOCK, &chld, NULL);
		code = forget(&o, deleted);
	} else if (fd >= 0) {
		code = item_from(&o, fd, true);
	} else if (o.on_work) {
		code = item_from(&o, STDIN_FILENO, false);
	} else if (!o.run.environment_id || !o.key) {
		pf_wlog("error", "%s: try pinfold-worker --help",
			o.key ? "no environment id"
			      : "no environment key (--key-file, or ANTHROPIC_ENVIRONMENT_KEY)");
	} else {
		code = pf_poll_loop(&o, argv);
	}
	if (o.key)
		explicit_bzero(o.key, strlen(o.key));
	free(o.key);
	if (o.hook_keys)
		explicit_bzero(o.hook_keys, strlen(o.hook_keys));
	free(o.hook_keys);
	return code;
}
