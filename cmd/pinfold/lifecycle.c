/* destroy, state, list, pause, resume, gc, stats: the verbs about whole sandboxes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "cmd/pinfold/cmd.h"
#include "cmd/pinfold/oci.h"
#include "cmd/pinfold/snapshot.h"
#include "sandbox/cgroup.h"
#include "session/session.h"
#include "session/snapshot.h"

static const struct option only_help[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};

/* The one ID of a verb without options, or NULL after an error. */
static const char *one_id(int argc, char **argv, const char *help)
{
	while (pf_getopt(argc, argv, only_help, false, help) != -1)
		;
	if (optind + 1 != argc) {
		pf_usage(argv[0], "takes one ID");
		return NULL;
	}
	return argv[optind];
}

int pf_cmd_destroy(int argc, char **argv)
{
	static const struct option options[] = {{"snapshot", no_argument, NULL, 's'},
		{"discard", no_argument, NULL, 'd'}, {"force", no_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	static const char help[] =
		"destroy ID… [--snapshot | --discard]\n\n"
		"Ends each sandbox and removes all of it but its checkpoints and its log. One that is not\n"
		"there is no error. With --snapshot a checkpoint is made first; if that fails the sandbox\n"
		"stays. So it is where the sandbox file says checkpoint.on destroy, unless --discard.\n"
		"An OCI container is deleted, as by delete --force.\n";
	bool snapshot = false, discard = false;
	int c, code = 0;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1) {
		snapshot = snapshot || c == 's';
		discard = discard || c == 'd';
	}
	if (snapshot && discard)
		return pf_usage("destroy", "--snapshot and --discard exclude each other");
	if (optind >= argc)
		return pf_usage("destroy", "needs an ID");
	for (int i = optind; i < argc; i++) {
		struct pf_err err = PF_ERR_INIT;
		bool found, oci = pf_oci_is(argv[i]);
		/* Nothing to make a checkpoint of is nothing to destroy either, which is no error. */
		if (snapshot && (oci || pf_session_remains(&pf_globals.dirs, argv[i]))) {
			cJSON *result = pf_snapshot(argv[i], NULL, NULL, NULL, &err);
			if (result)
				pf_print_json(result);
			else
				pf_wrap(&err, "destroy: snapshot");
		} else if (!oci && !snapshot && !discard &&
			   pf_session_snapshot_on_destroy(&pf_globals.dirs, argv[i], &err) < 0) {
			pf_wrap(&err, "destroy (--discard does without)");
		}
		if (*err.msg || (oci ? pf_oci_delete(argv[i], true, &err)
				     : pf_session_destroy(&pf_globals.dirs, argv[i], &found, &err)) < 0)
			code = pf_report(&err);
	}
	return code;
}

int pf_cmd_state(int argc, char **argv)
{
	const char *id = one_id(argc, argv, "state ID\n\nPrints the sandbox's state as one JSON object.\n");
	struct pf_err err = PF_ERR_INIT;
	struct pf_state s;

	if (!id)
		return PF_EXIT_FAILED;
	if (pf_oci_is(id))
		return pf_oci_state(id);
	if (pf_state_load(&pf_globals.dirs, id, &s, &err) < 0)
		return pf_report(&err);
	pf_print_json(pf_state_json(&s));
	pf_state_done(&s);
	return 0;
}

static int pause_resume(int argc, char **argv, bool pause, const char *help)
{
	const char *id = one_id(argc, argv, help);
	struct pf_err err = PF_ERR_INIT;

	if (!id)
		return PF_EXIT_FAILED;
	if (pf_oci_is(id))
		return pf_oci_freeze(id, pause);
	if (pf_session_pause(&pf_globals.dirs, id, pause, &err) < 0) {
		pf_wrap(&err, pause ? "pause" : "resume");
		return pf_report(&err);
	}
	return 0;
}

int pf_cmd_pause(int argc, char **argv)
{
	return pause_resume(
		argc, argv, true, "pause ID\n\nStops every process of the sandbox until resume.\n");
}

int pf_cmd_resume(int argc, char **argv)
{
	return pause_resume(argc, argv, false, "resume ID\n\nLets a paused sandbox go on.\n");
}

static void print_table(cJSON *list)
{
	const cJSON *s;

	printf("%-28s %-9s %-8s %-24s %s\n", "ID", "STATUS", "PID", "CREATED", "IMAGE");
	cJSON_ArrayForEach(s, list)
	{
		const cJSON *p = cJSON_GetObjectItemCaseSensitive(s, "pinfold");
		const cJSON *pid = cJSON_GetObjectItemCaseSensitive(s, "pid");
		const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(s, "id"));
		const char *status = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(s, "status"));
		const char *created = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(s, "created"));
		const char *image = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(p, "image"));
		printf("%-28s %-9s %-8d %-24s %s\n", id, status, pid ? pid->valueint : 0,
			created ? created : "-", image ? image : "-");
	}
}

int pf_cmd_list(int argc, char **argv)
{
	static const struct option options[] = {{"format", required_argument, NULL, 'f'},
		{"quiet", no_argument, NULL, 'q'}, {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	static const char help[] =
		"list [--format table|json] [--quiet]\n\nThe sandboxes below --root; --quiet prints ids.\n";
	struct pf_err err = PF_ERR_INIT;
	bool json = false, quiet = false;
	char **ids = NULL;
	int c;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1) {
		if (c == 'f' && strcmp(optarg, "json") != 0 && strcmp(optarg, "table") != 0)
			return pf_usage("list", "--format must be table or json");
		json = json || c == 'j' || (c == 'f' && strcmp(optarg, "json") == 0);
		quiet = quiet || c == 'q';
	}
	if (optind != argc)
		return pf_usage("list", "takes no arguments");
	if (pf_state_ids(&pf_globals.dirs, &ids, &err) < 0) {
		pf_strv_free(ids);
		return pf_report(&err);
	}
	cJSON *list = cJSON_CreateArray();
	for (char **id = ids; *id; id++) {
		struct pf_err ignored = PF_ERR_INIT;
		struct pf_state s;
		if (pf_oci_is(*id)) {
			cJSON *entry = pf_oci_list_entry(*id);
			if (entry && quiet)
				puts(*id);
			if (entry)
				cJSON_AddItemToArray(list, entry);
			continue;
		}
		if (pf_state_load(&pf_globals.dirs, *id, &s, &ignored) < 0)
			continue; /* just being made or removed */
		cJSON_AddItemToArray(list, pf_state_json(&s));
		if (quiet)
			puts(*id);
		pf_state_done(&s);
	}
	pf_strv_free(ids);
	if (quiet) {
		cJSON_Delete(list);
	} else if (json) {
		pf_print_json(list);
	} else {
		print_table(list);
		cJSON_Delete(list);
	}
	return 0;
}

/* The helper collects what lies in the store; its result becomes a member of j. */
static int store_gc(cJSON *j, const char *dir, const char *verb, const char *key)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *there = pf_asprintf("%s/%s", pf_globals.dirs.store, dir), *out = NULL;
	PF_FREE char *helper = pf_helper_path("pinfold-store", &err);
	char *args[] = {helper, (char *)"--root", (char *)pf_globals.dirs.root, (char *)"--store",
		(char *)pf_globals.dirs.store, (char *)verb, (char *)"gc", NULL};

	if (access(there, F_OK) < 0)
		return 0;
	if (!helper || pf_run(args, &out, &err) < 0) {
		pf_wrap(&err, "gc");
		return pf_report(&err);
	}
	cJSON *result = pf_json_parse("the helper's result", out, strlen(out), &err);
	if (!result)
		return pf_report(&err);
	cJSON_AddItemToObject(j, key, result);
	return 0;
}

int pf_cmd_gc(int argc, char **argv)
{
	static const struct option options[] = {
		{"stopped", no_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	static const char help[] =
		"gc [--stopped]\n\n"
		"Finds what killed processes or a reboot left and removes it: cgroups, id ranges, locks,\n"
		"half-made sandboxes, trash; and in the store what belongs to no image and no checkpoint.\n"
		"A sandbox that died keeps its workspace (create --reuse starts it again) unless --stopped.\n"
		"No image and no checkpoint is removed.\n";
	struct pf_gc_report report;
	struct pf_err err = PF_ERR_INIT;
	bool stopped = false;
	int c;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1)
		stopped = stopped || c == 's';
	if (optind != argc)
		return pf_usage("gc", "takes no arguments");
	if (pf_session_gc(&pf_globals.dirs, stopped, &report, &err) < 0) {
		pf_wrap(&err, "gc");
		return pf_report(&err);
	}
	cJSON *j = cJSON_CreateObject();
	pf_json_add_int(j, "sandboxes", report.sandboxes);
	pf_json_add_int(j, "id_ranges", report.id_ranges);
	pf_json_add_int(j, "locks", report.locks);
	/* One that fails does not keep the other from its work. */
	int checkpoints = store_gc(j, "checkpoints", "checkpoint", "checkpoints");
	int images = store_gc(j, "images", "image", "images");
	pf_print_json(j);
	return checkpoints ? checkpoints : images;
}

int pf_cmd_stats(int argc, char **argv)
{
	const char *id = one_id(argc, argv, "stats ID\n\nWhat the sandbox uses now, as one JSON object.\n");
	struct pf_cgroup_host host;
	PF_CGROUP struct pf_cgroup *cg = NULL;
	struct pf_cgroup_stats st;
	struct pf_err err = PF_ERR_INIT;
	struct pf_state s;

	if (!id)
		return PF_EXIT_FAILED;
	if (pf_state_load(&pf_globals.dirs, id, &s, &err) < 0)
		return pf_report(&err);
	int r = s.status == PF_STATUS_STOPPED
			? pf_fail_kind(&err, PF_ERR_STATE, 0, "sandbox '%s' has stopped", id)
		: pf_cgroup_probe(&host, &err) < 0 || pf_cgroup_open(&host, s.cgroup, &cg, &err) < 0 ||
				pf_cgroup_stats(cg, &st, &err) < 0
			? -1
			: 0;
	pf_state_done(&s);
	if (r < 0)
		return pf_report(&err);
	pf_print_json(pf_cgroup_stats_json(&st));
	return 0;
}
