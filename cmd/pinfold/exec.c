#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/str.h"
#include "base/units.h"
#include "cmd/pinfold/cmd.h"
#include "cmd/pinfold/oci.h"
#include "session/session.h"

static const char help[] =
	"exec [options] ID [options] [--] COMMAND [ARGUMENT…]\n\n"
	"Runs a command in the sandbox and ends with its exit code (124 timed out, 137 killed for memory,\n"
	"125 pinfold failed, 126 cannot be executed, 127 not found).\n\n"
	"  --timeout D           end it and all it started after D (90s, 5m, 250ms)\n"
	"  --memory SIZE         limit of this command and all it starts\n"
	"  --pids N, --cpus C    likewise\n"
	"  -u, --user U[:G]      name or number, of the sandbox's own users\n"
	"  -w, --cwd PATH        working directory\n"
	"  -e, --env K=V         add to its environment (repeat)\n"
	"  -t, --tty             give it a terminal\n"
	"  --json                print one JSON object with its result and output instead of passing it "
	"through\n"
	"  --output-max SIZE     with --json: how much of each stream to keep (default 1M)\n"
	"  -i, --stdin           with --json: pass standard input on\n";

static void print_result(const struct pf_exec_result *r)
{
	cJSON *j = cJSON_CreateObject();

	pf_json_add_int(j, "exit_code", r->exit_code);
	if (r->signal)
		pf_json_add_int(j, "signal", r->signal);
	if (r->limit)
		cJSON_AddStringToObject(j, "limit", r->limit);
	cJSON_AddNumberToObject(j, "wall_ms", (double)r->wall_us / 1000);
	if (r->cpu_us >= 0)
		cJSON_AddNumberToObject(j, "cpu_ms", (double)r->cpu_us / 1000);
	if (r->memory_peak >= 0)
		pf_json_add_int(j, "memory_peak", r->memory_peak);
	pf_json_add_bytes(j, "stdout", r->out, r->out_len);
	pf_json_add_bytes(j, "stderr", r->err_out, r->err_len);
	cJSON_AddBoolToObject(j, "stdout_truncated", r->out_truncated);
	cJSON_AddBoolToObject(j, "stderr_truncated", r->err_truncated);
	pf_print_json(j);
}

struct parsed {
	struct pf_exec_opts o;
	char **env;
	size_t n_env;
	bool json, stdin_on;
};

static int parse_options(int argc, char **argv, struct parsed *p, struct pf_err *err)
{
	static const struct option options[] = {{"timeout", required_argument, NULL, 1},
		{"memory", required_argument, NULL, 2}, {"pids", required_argument, NULL, 3},
		{"cpus", required_argument, NULL, 4}, {"user", required_argument, NULL, 'u'},
		{"cwd", required_argument, NULL, 'w'}, {"env", required_argument, NULL, 'e'},
		{"tty", no_argument, NULL, 't'}, {"json", no_argument, NULL, 5},
		{"output-max", required_argument, NULL, 6}, {"stdin", no_argument, NULL, 'i'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	int64_t v;
	int c;

	while ((c = pf_getopt(argc, argv, options, true, help)) != -1) {
		switch (c) {
		case 1:
			if (pf_parse_duration("--timeout", optarg, &p->o.timeout_ms, err) < 0)
				return -1;
			break;
		case 2:
			if (pf_parse_size("--memory", optarg, &p->o.memory, err) < 0)
				return -1;
			break;
		case 3:
			if (pf_parse_int("--pids", optarg, 1, 4194304, &p->o.pids, err) < 0)
				return -1;
			break;
		case 4:
			if (pf_parse_cpus("--cpus", optarg, &p->o.millicpus, err) < 0)
				return -1;
			break;
		case 5:
			p->json = true;
			break;
		case 6:
			if (pf_parse_size("--output-max", optarg, &v, err) < 0)
				return -1;
			p->o.capture_max = (size_t)v;
			break;
		case 'u':
			p->o.user = optarg;
			break;
		case 'w':
			p->o.cwd = optarg;
			break;
		case 'e':
			if (!strchr(optarg, '=') || optarg[0] == '=')
				return pf_fail_kind(
					err, PF_ERR_INVALID, 0, "--env: '%.64s' is not NAME=VALUE", optarg);
			p->env[p->n_env++] = optarg;
			break;
		case 't':
			p->o.tty = true;
			break;
		case 'i':
			p->stdin_on = true;
			break;
		default:
			break;
		}
	}
	return 0;
}

/* The id that a command line is about, whichever kind of sandbox has it: the first word that is neither an
 * option nor an option's value, of the options of both kinds. */
static const char *find_id(int argc, char **argv)
{
	static const char *const with_value[] = {"timeout", "memory", "pids", "cpus", "user", "cwd", "env",
		"output-max", "process", "additional-gids", "cap", "apparmor", "process-label", "pid-file",
		"console-socket", "pidfd-socket", "preserve-fds", "cgroup", NULL};

	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];
		if (strcmp(a, "--") == 0)
			return i + 1 < argc ? argv[i + 1] : NULL;
		if (a[0] != '-' || !a[1])
			return a;
		bool next = a[1] != '-' && strchr("uwepgc", a[strlen(a) - 1]) != NULL && !a[2];
		for (const char *const *w = with_value; a[1] == '-' && *w; w++)
			next = next || strcmp(a + 2, *w) == 0;
		i += next;
	}
	return NULL;
}

int pf_cmd_exec(int argc, char **argv)
{
	struct parsed p = {
		.o = {.timeout_ms = -1, .memory = -1, .pids = -1, .millicpus = -1, .capture_max = 1 << 20}};
	struct pf_err err = PF_ERR_INIT;
	struct pf_exec_result r;
	const char *id = find_id(argc, argv);

	if (id && pf_oci_is(id))
		return pf_oci_exec(argc, argv);
	p.env = pf_calloc((size_t)argc + 1, sizeof(*p.env));
	/* Options before the id, as runc takes them, and after it. */
	if (parse_options(argc, argv, &p, &err) < 0)
		goto failed;
	if (optind >= argc) {
		free(p.env);
		return pf_usage("exec", "needs an ID and a command");
	}
	id = argv[optind++];
	if (optind < argc && argv[optind][0] == '-') {
		argc -= optind - 1;
		argv += optind - 1;
		argv[0] = (char *)"exec";
		optind = 0;
		if (parse_options(argc, argv, &p, &err) < 0)
			goto failed;
	}
	if (optind >= argc) {
		free(p.env);
		return pf_usage("exec", "needs a command");
	}
	if (p.json && p.o.tty) {
		free(p.env);
		return pf_usage("exec", "--json and --tty exclude each other");
	}
	p.o.argv = argv + optind;
	p.o.env = p.env;
	p.o.capture = p.json;
	p.o.keep_stdin = p.stdin_on;
	if (pf_session_exec(&pf_globals.dirs, id, &p.o, &r, &err) < 0)
		goto failed;
	free(p.env);
	if (p.json)
		print_result(&r);
	else if (r.limit && strcmp(r.limit, "timeout") == 0)
		pf_log("error", "exec: timed out; ended with all it started");
	else if (r.limit && strcmp(r.limit, "memory") == 0)
		pf_log("error", "exec: a process was killed for memory");
	int code = r.exit_code;
	pf_exec_result_done(&r);
	return code;
failed:
	free(p.env);
	pf_wrap(&err, "exec");
	return pf_report(&err);
}
