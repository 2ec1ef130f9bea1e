#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cmd/pinfold/cmd.h"
#include "session/config.h"
#include "session/control.h"
#include "session/session.h"

static const char help[] =
	"policy ID show\n"
	"       pinfold policy ID set FILE\n\n"
	"show prints the rules that are live, their revision, and counts. set replaces them at once: FILE is "
	"a\n"
	"networking object or a sandbox file with one. Connections whose rule is gone are closed.\n";

static int set(const char *id, const char *file, struct pf_err *err)
{
	PF_JSON cJSON *doc = pf_json_load(file, err), *msg = cJSON_CreateObject();
	struct pf_config config;

	if (!doc)
		return -1;
	/* A bare networking object is a sandbox file of which only that part is written. */
	if (cJSON_GetObjectItemCaseSensitive(doc, "type") ||
		cJSON_GetObjectItemCaseSensitive(doc, "allowed_hosts")) {
		cJSON *outer = cJSON_CreateObject();
		cJSON_AddItemToObject(outer, "networking", doc);
		doc = outer;
	}
	if (pf_config_parse(doc, &config, err) < 0)
		return pf_wrap(err, "%s", file);
	if (pf_session_check_supported(&config, err) < 0) {
		pf_config_done(&config);
		return -1;
	}
	cJSON_AddStringToObject(msg, "op", "policy-set");
	cJSON_AddItemToObject(msg, "networking", cJSON_Duplicate(config.networking, true));
	pf_config_done(&config);
	cJSON *answer = pf_control_ask(&pf_globals.dirs, id, msg, NULL, err);
	if (!answer)
		return -1;
	pf_print_json(answer);
	return 0;
}

static int show(const char *id, struct pf_err *err)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();

	cJSON_AddStringToObject(msg, "op", "policy");
	cJSON *answer = pf_control_ask(&pf_globals.dirs, id, msg, NULL, err);
	if (!answer)
		return -1;
	pf_print_json(answer);
	return 0;
}

int pf_cmd_policy(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	struct pf_err err = PF_ERR_INIT;
	int r;

	while (pf_getopt(argc, argv, options, false, help) != -1)
		;
	int n = argc - optind;
	char **a = argv + optind;
	if (n == 2 && strcmp(a[1], "show") == 0)
		r = show(a[0], &err);
	else if (n == 3 && strcmp(a[1], "set") == 0)
		r = set(a[0], a[2], &err);
	else
		return pf_usage("policy", "takes ID show, or ID set FILE");
	if (r < 0) {
		pf_wrap(&err, "policy");
		return pf_report(&err);
	}
	return 0;
}
