/* kill, delete, ps, and the containers' part of state, list, pause and resume. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/units.h"
#include "cmd/pinfold/oci.h"
#include "session/ocisnap.h"
#include "session/pod.h"

int pf_oci_state(const char *id)
{
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	struct pf_err err = PF_ERR_INIT;

	if (pf_oci_open(id, false, &h, &err) < 0)
		return pf_oci_fail("state", &err, PF_OCI_FAILED);
	cJSON *j = pf_container_json(&h.c, NULL, h.c.pid);
	pf_pod_describe(&pf_globals.dirs, h.dir, j);
	pf_print_json(j);
	return 0;
}

int pf_oci_freeze(const char *id, bool freeze)
{
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	struct pf_err err = PF_ERR_INIT;

	if (pf_oci_open(id, true, &h, &err) < 0 || pf_container_freeze(&h.c, freeze, &err) < 0)
		return pf_oci_fail(freeze ? "pause" : "resume", &err, PF_OCI_FAILED);
	return 0;
}

cJSON *pf_oci_list_entry(const char *id)
{
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	struct pf_err ignored = PF_ERR_INIT;

	if (pf_oci_open(id, false, &h, &ignored) < 0)
		return NULL;
	cJSON *j = pf_container_json(&h.c, NULL, h.c.pid);
	cJSON_AddStringToObject(j, "owner", "root");
	return j;
}

/* "TERM", "SIGTERM", "15", "RTMIN+3"; -1 for none of these. */
static int parse_signal(const char *s)
{
	struct pf_err ignored = PF_ERR_INIT;
	int64_t n;

	if (pf_parse_int("signal", s, 0, 64, &n, &ignored) == 0)
		return (int)n;
	if (strncasecmp(s, "SIG", 3) == 0)
		s += 3;
	for (int i = 1; i < SIGRTMIN; i++) {
		const char *name = sigabbrev_np(i);
		if (name && strcasecmp(name, s) == 0)
			return i;
	}
	const struct {
		const char *name;
		int sig;
	} others[] = {{"IOT", SIGIOT}, {"POLL", SIGPOLL}, {"CLD", SIGCHLD}, {"RTMIN", SIGRTMIN},
		{"RTMAX", SIGRTMAX}};
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strcasecmp(others[i].name, s) == 0)
			return others[i].sig;
	if (strncasecmp(s, "RTMIN+", 6) == 0 && pf_parse_int("signal", s + 6, 0, 30, &n, &ignored) == 0)
		return SIGRTMIN + (int)n;
	if (strncasecmp(s, "RTMAX-", 6) == 0 && pf_parse_int("signal", s + 6, 0, 30, &n, &ignored) == 0)
		return SIGRTMAX - (int)n;
	return -1;
}

int pf_cmd_kill(int argc, char **argv)
{
	static const struct option options[] = {
		{"all", no_argument, NULL, 'a'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	static const char help[] =
		"kill [--all] ID [SIGNAL]\n\n"
		"Sends a signal (TERM, SIGTERM, 15; default TERM) to the container's first\n"
		"process, or to all of them.\n";
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	struct pf_err err = PF_ERR_INIT;
	bool all = false;
	int c, sig = SIGTERM;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1)
		all = all || c == 'a';
	if (optind >= argc || optind + 2 < argc)
		return pf_usage("kill", "takes an ID and a signal");
	if (optind + 1 < argc)
		sig = parse_signal(argv[optind + 1]);
	if (sig < 0) {
		pf_fail_kind(&err, PF_ERR_INVALID, 0, "unknown signal '%.40s'", argv[optind + 1]);
		return pf_oci_fail("kill", &err, PF_OCI_FAILED);
	}
	if (pf_oci_open(argv[optind], false, &h, &err) < 0 || pf_container_kill(&h.c, sig, all, &err) < 0)
		return pf_oci_fail("kill", &err, PF_OCI_FAILED);
	return 0;
}

/* One that is there, or pieces of one whose create was killed. */
int pf_oci_delete(const char *id, bool force, struct pf_err *err)
{
	PF_BUF struct pf_buf warnings = {0};
	PF_OCI struct pf_oci h = PF_OCI_INIT;

	if (pf_oci_open(id, true, &h, err) < 0) {
		if (err->kind != PF_ERR_NOT_FOUND || !force)
			return -1;
		if (h.dir < 0)
			return 0;
		*err = PF_ERR_INIT;
	} else if (pf_container_delete(h.dir, &h.c, force, &warnings, err) < 0) {
		return -1;
	} else {
		pf_oci_snapshot_at_exit(&pf_globals.dirs, h.dir, &h.c, &warnings);
	}
	pf_oci_warn(&warnings);
	pf_pod_end(&pf_globals.dirs, id, h.dir);
	PF_CLOSE int root = pf_dirs_open(pf_globals.dirs.root, "", err);
	if (root < 0 || pf_rm_rf_at(root, id, err) < 0)
		return -1;
	pf_dirs_unlock_remove(&pf_globals.dirs, id, &h.lock);
	return 0;
}

int pf_cmd_delete(int argc, char **argv)
{
	static const struct option options[] = {
		{"force", no_argument, NULL, 'f'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	static const char help[] =
		"delete [--force] ID…\n\n"
		"Removes stopped OCI containers; with --force also one that runs, and one\n"
		"that is not there is no error.\n";
	bool force = false;
	int c, code = 0;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1)
		force = force || c == 'f';
	if (optind >= argc)
		return pf_usage("delete", "needs an ID");
	for (int i = optind; i < argc; i++) {
		struct pf_err err = PF_ERR_INIT;
		if (pf_oci_delete(argv[i], force, &err) < 0)
			code = pf_oci_fail("delete", &err, PF_OCI_FAILED);
	}
	return code;
}

static int print_pids(const pid_t *pids, size_t n)
{
	cJSON *a = cJSON_CreateArray();

	for (size_t i = 0; i < n; i++)
		cJSON_AddItemToArray(a, cJSON_CreateNumber((double)pids[i]));
	pf_print_json(a);
	return 0;
}

/* The lines of ps(1) that are about one of the pids; the column is found by its title. */
static int print_table(const pid_t *pids, size_t n, int argc, char **argv, struct pf_err *err)
{
	char **args = pf_calloc((size_t)argc + 3, sizeof(*args)), *save = NULL;
	PF_FREE char *out = NULL;
	int column = -1;

	args[0] = (char *)"/bin/ps";
	args[1] = (char *)"-ef";
	for (int i = 0; i < argc; i++)
		args[1 + i] = argv[i];
	int r = pf_run(args, &out, err);
	free(args);
	if (r < 0)
		return -1;
	for (char *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *word = line + strspn(line, " ");
		if (column < 0) {
			int at = 0;
			for (; *word; at++) {
				size_t len = strcspn(word, " ");
				if (len == 3 && strncmp(word, "PID", 3) == 0)
					break;
				word += len + strspn(word + len, " ");
			}
			if (!*word)
				return pf_fail_kind(err, PF_ERR_INVALID, 0, "ps shows no column PID");
			column = at;
			puts(line);
			continue;
		}
		for (int at = 0; at < column; at++) {
			size_t len = strcspn(word, " ");
			word += len + strspn(word + len, " ");
		}
		long pid = strtol(word, NULL, 10);
		for (size_t i = 0; i < n; i++)
			if (pids[i] == pid)
				puts(line);
	}
	return 0;
}

int pf_cmd_ps(int argc, char **argv)
{
	static const struct option options[] = {{"format", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	static const char help[] = "ps [--format table|json] ID [PS OPTIONS]\n\nThe container's processes.\n";
	PF_CGROUP struct pf_cgroup *cg = NULL;
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	PF_FREE pid_t *pids = NULL;
	struct pf_err err = PF_ERR_INIT;
	bool json = false;
	size_t n = 0;
	int c;

	while ((c = pf_getopt(argc, argv, options, true, help)) != -1) {
		if (c == 'f' && strcmp(optarg, "json") != 0 && strcmp(optarg, "table") != 0)
			return pf_usage("ps", "--format must be table or json");
		json = json || (c == 'f' && strcmp(optarg, "json") == 0);
	}
	if (optind >= argc)
		return pf_usage("ps", "needs an ID");
	if (pf_oci_open(argv[optind], false, &h, &err) < 0 || pf_container_cgroup(&h.c, &cg, &err) < 0 ||
		pf_cgroup_pids(cg, &pids, &n, &err) < 0)
		return pf_oci_fail("ps", &err, PF_OCI_FAILED);
	if (json)
		return print_pids(pids, n);
	if (print_table(pids, n, argc - optind - 1, argv + optind + 1, &err) < 0)
		return pf_oci_fail("ps", &err, PF_OCI_FAILED);
	return 0;
}
