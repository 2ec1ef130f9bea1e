/* exec in an OCI container: runc's options. */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/units.h"
#include "cmd/pinfold/oci.h"
#include "sandbox/console.h"
#include "sandbox/selfguard.h"
#include "session/pod.h"

static const char help[] =
	"exec [options] ID COMMAND [ARGUMENT…]   (in an OCI container)\n"
	"exec --process FILE [options] ID\n\n"
	"  -p, --process FILE       the process object, instead of the options below\n"
	"  -u, --user UID[:GID]     -g, --additional-gids GID…    --cwd DIR     -e, --env K=V\n"
	"  -c, --cap CAP            --no-new-privs                --apparmor P  --process-label L\n"
	"  -t, --tty                give it a terminal\n"
	"  -d, --detach             do not wait for it\n"
	"      --pid-file FILE      --console-socket S            --pidfd-socket S\n"
	"      --preserve-fds N     --ignore-paused               --cgroup PATH\n";

struct request {
	const char *process_file, *user, *cwd, *apparmor, *label, *pid_file, *console_socket, *pidfd_socket,
		*cgroup;
	char **env, **gids, **caps;
	size_t n_env, n_gids, n_caps;
	bool tty, detach, no_new_privs, ignore_paused;
	unsigned keep_fds;
	const char *id;
	char **argv;
};

static int set_option(struct request *q, int c, struct pf_err *err)
{
	int64_t n;

	switch (c) {
	case 'p':
		q->process_file = optarg;
		break;
	case 'u':
		q->user = optarg;
		break;
	case 'g':
		q->gids[q->n_gids++] = optarg;
		break;
	case 'w':
		q->cwd = optarg;
		break;
	case 'e':
		q->env[q->n_env++] = optarg;
		break;
	case 'c':
		q->caps[q->n_caps++] = optarg;
		break;
	case 't':
		q->tty = true;
		break;
	case 'd':
		q->detach = true;
		break;
	case 1:
		q->no_new_privs = true;
		break;
	case 2:
		q->apparmor = optarg;
		break;
	case 3:
		q->label = optarg;
		break;
	case 4:
		q->pid_file = optarg;
		break;
	case 5:
		q->console_socket = optarg;
		break;
	case 6:
		q->pidfd_socket = optarg;
		break;
	case 7:
		if (pf_parse_int("--preserve-fds", optarg, 0, 1000, &n, err) < 0)
			return -1;
		q->keep_fds = (unsigned)n;
		break;
	case 8:
		q->ignore_paused = true;
		break;
	case 9:
		q->cgroup = optarg;
		break;
	default:
		break;
	}
	return 0;
}

static const struct option options[] = {{"process", required_argument, NULL, 'p'},
	{"user", required_argument, NULL, 'u'}, {"additional-gids", required_argument, NULL, 'g'},
	{"cwd", required_argument, NULL, 'w'}, {"env", required_argument, NULL, 'e'},
	{"cap", required_argument, NULL, 'c'}, {"tty", no_argument, NULL, 't'},
	{"detach", no_argument, NULL, 'd'}, {"no-new-privs", no_argument, NULL, 1},
	{"apparmor", required_argument, NULL, 2}, {"process-label", required_argument, NULL, 3},
	{"pid-file", required_argument, NULL, 4}, {"console-socket", required_argument, NULL, 5},
	{"pidfd-socket", required_argument, NULL, 6}, {"preserve-fds", required_argument, NULL, 7},
	{"ignore-paused", no_argument, NULL, 8}, {"cgroup", required_argument, NULL, 9},
	{"no-subreaper", no_argument, NULL, 10}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};

/* ---- the process ---- */

static int from_file(const char *path, struct pf_process *p, struct pf_err *err)
{
	PF_JSON cJSON *j = pf_json_load(path, err);

	return j ? pf_process_parse(j, "process", p, err) : -1;
}

/* The container's own process with what the options change. */
static int from_options(
	const struct request *q, const cJSON *config, struct pf_process *p, struct pf_err *err)
{
	PF_JSON cJSON *j = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(config, "process"), true);
	cJSON *args = cJSON_CreateArray(), *env;

	for (char **a = q->argv; *a; a++)
		cJSON_AddItemToArray(args, cJSON_CreateString(*a));
	cJSON_DeleteItemFromObjectCaseSensitive(j, "args");
	cJSON_AddItemToObject(j, "args", args);
	/* How the first process was placed is not how every command is. */
	cJSON_DeleteItemFromObjectCaseSensitive(j, "consoleSize");
	cJSON_DeleteItemFromObjectCaseSensitive(j, "terminal");
	cJSON_AddBoolToObject(j, "terminal", q->tty);
	if (q->cwd) {
		cJSON_DeleteItemFromObjectCaseSensitive(j, "cwd");
		cJSON_AddStringToObject(j, "cwd", q->cwd);
	}
	env = cJSON_GetObjectItemCaseSensitive(j, "env");
	if (!cJSON_IsArray(env))
		env = cJSON_AddArrayToObject(j, "env");
	for (size_t i = 0; i < q->n_env; i++)
		cJSON_AddItemToArray(env, cJSON_CreateString(q->env[i]));
	const struct {
		const char *key, *value;
	} labels[] = {{"apparmorProfile", q->apparmor}, {"selinuxLabel", q->label}};
	for (size_t i = 0; i < 2; i++)
		if (labels[i].value) {
			cJSON_DeleteItemFromObjectCaseSensitive(j, labels[i].key);
			cJSON_AddStringToObject(j, labels[i].key, labels[i].value);
		}
	return pf_process_parse(j, "process", p, err);
}

static int change_identity(const struct request *q, struct pf_process *p, struct pf_err *err)
{
	int64_t gid;

	if (q->user) {
		uint32_t g = p->gid;
		if (pf_parse_user_ids("--user", q->user, &p->uid, &g, err) < 0)
			return -1;
		p->gid = strchr(q->user, ':') ? g : 0;
	}
	if (q->n_gids) {
		uint32_t *more = realloc(p->groups, (p->n_groups + q->n_gids) * sizeof(*more));
		if (!more)
			abort();
		p->groups = more;
	}
	for (size_t i = 0; i < q->n_gids; i++) {
		if (pf_parse_int("--additional-gids", q->gids[i], 0, 4294967294LL, &gid, err) < 0)
			return -1;
		p->groups[p->n_groups++] = (uint32_t)gid;
	}
	if (q->n_caps) {
		uint64_t extra = 0;
		if (pf_caps_parse((const char *const *)q->caps, &extra, err) < 0)
			return -1;
		p->caps.bounding |= extra;
		p->caps.permitted |= extra;
		p->caps.effective |= extra;
		/* What lets another user's program keep them. */
		if (p->uid != 0) {
			p->caps.inheritable |= extra;
			p->caps.ambient |= extra;
		}
	}
	p->no_new_privileges = p->no_new_privileges || q->no_new_privs;
	return 0;
}

/* ---- running it ---- */

/* Those who asked for it learn who the process is. */
static int tell(const struct request *q, pid_t pid, int pidfd, struct pf_err *err)
{
	if (q->pidfd_socket) {
		PF_CLOSE int sock = pf_console_connect(q->pidfd_socket, err);
		if (sock < 0 || pf_send_fd(sock, pidfd) < 0)
			return sock < 0 ? -1 : pf_fail(err, errno, "--pidfd-socket");
	}
	return q->pid_file ? pf_container_pid_file(q->pid_file, pid, err) : 0;
}

static int start(struct request *q, struct pf_oci *h, const struct pf_spec *spec, struct pf_process *p,
	int *code, struct pf_err *err)
{
	PF_BUF struct pf_buf warnings = {0};
	PF_CLOSE int cache = pf_oci_cache(), console = -1, served = -1, pidfd = -1, cancel = -1;
	int pair[2];
	pid_t pid;

	if (pf_pod_exec_caps(h->dir, h->c.own_pid, &p->caps, err) < 0)
		return -1;
	pf_container_clip_caps(&p->caps, h->c.own_user, &warnings);
	pf_oci_warn(&warnings);
	if (q->console_socket) {
		console = pf_console_connect(q->console_socket, err);
		if (console < 0)
			return pf_wrap(err, "--console-socket");
	} else if (p->terminal && !q->detach) {
		if (pf_oci_console_pair(pair, err) < 0)
			return -1;
		served = pair[0];
		console = pair[1];
	}
	if (!q->detach) {
		cancel = pf_oci_block_signals(err);
		if (cancel < 0)
			return -1;
	}
	const struct pf_container_exec x = {.process = p,
		.cgroup = q->cgroup,
		.cache_dir = cache,
		.console_fd = console,
		.keep_fds = q->keep_fds,
		.ignore_paused = q->ignore_paused,
		.stay = q->detach,
		.cancel_fd = cancel};
	if (pf_container_exec(&h->c, spec, &x, &pid, &pidfd, err) < 0)
		return -1;
	if (tell(q, pid, pidfd, err) < 0) {
		/* What was refused does not run. */
		(void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return -1;
	}
	*code = q->detach ? 0 : pf_oci_wait(pid, pidfd, served);
	return 0;
}

static int run(struct request *q, struct pf_oci *h, int *code, struct pf_err *err)
{
	struct pf_spec spec = {0};
	struct pf_process p = {0};
	int r;

	if (pf_oci_check_fds(q->keep_fds, err) < 0 || pf_oci_open(q->id, false, h, err) < 0)
		return -1;
	/* Without a user namespace of its own the configuration need not be read twice to know. */
	if (!h->c.own_user && pf_self_guard(pf_globals.argv, err) < 0)
		return -1;
	if (pf_container_spec(h->dir, &spec, err) < 0)
		return -1;
	if (pf_self_in_reach(&spec) && pf_self_guard(pf_globals.argv, err) < 0) {
		pf_spec_done(&spec);
		return -1;
	}
	r = q->process_file ? from_file(q->process_file, &p, err) : from_options(q, spec.document, &p, err);
	if (r == 0 && q->process_file && q->tty)
		p.terminal = true;
	if (r == 0)
		r = change_identity(q, &p, err);
	if (r == 0)
		r = start(q, h, &spec, &p, code, err);
	pf_process_done(&p);
	pf_spec_done(&spec);
	return r;
}

int pf_oci_exec(int argc, char **argv)
{
	struct request q = {.id = NULL};
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	struct pf_err err = PF_ERR_INIT;
	int c, code = PF_OCI_EXEC_FAILED, r = 0;

	q.env = pf_calloc((size_t)argc + 1, sizeof(*q.env));
	q.gids = pf_calloc((size_t)argc + 1, sizeof(*q.gids));
	q.caps = pf_calloc((size_t)argc + 1, sizeof(*q.caps));
	while (r == 0 && (c = pf_getopt(argc, argv, options, true, help)) != -1)
		r = set_option(&q, c, &err);
	if (r == 0 && (optind >= argc || (optind + 1 >= argc && !q.process_file))) {
		(void)pf_usage("exec", "needs an ID and a command, or --process");
	} else if (r == 0) {
		q.id = argv[optind];
		q.argv = argv + optind + 1;
		/* "exec ID -- COMMAND" too, as sessions have it. */
		if (*q.argv && strcmp(*q.argv, "--") == 0)
			q.argv++;
		r = run(&q, &h, &code, &err);
	}
	free(q.env);
	free(q.gids);
	free(q.caps);
	return r < 0 ? pf_oci_fail("exec failed", &err, PF_OCI_EXEC_FAILED) : code;
}
