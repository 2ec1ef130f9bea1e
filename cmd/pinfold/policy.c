#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "cmd/pinfold/cmd.h"
#include "cmd/pinfold/oci.h"
#include "cmd/pinfold/policy_suggest.h"
#include "netpolicy/policy.h"
#include "netpolicy/tlslink.h"
#include "session/config.h"
#include "session/control.h"
#include "session/credentials.h"
#include "session/network.h"
#include "session/pod.h"
#include "session/session.h"

static const char help[] =
	"policy ID show\n"
	"       pinfold policy ID set FILE\n"
	"       pinfold policy ID check FILE\n"
	"       pinfold policy ID test HOST:PORT\n"
	"       pinfold policy ID suggest\n"
	"       pinfold policy ID rotate CREDENTIAL [FILE]\n\n"
	"show prints the rules that are live, their revision, and counts. set replaces them at once: FILE is "
	"a\n"
	"networking object or a sandbox file with one. Connections whose rule is gone are closed. check says "
	"whether\n"
	"set would take FILE, and how it is understood. test says what would become of a connection, and by "
	"which\n"
	"rule. suggest prints the policy that would have allowed what the log says was refused. rotate gives "
	"a\n"
	"credential's secret anew: from FILE ('-': standard input), else from where the first one came.\n\n"
	"  --credentials FILE    rotate: the administrator's file, if it is not in its usual place\n";

/* What FILE says of networking, complete. */
static cJSON *load(const char *id, const char *file, struct pf_err *err)
{
	PF_JSON cJSON *doc = pf_json_load(file, err);
	struct pf_config config;
	cJSON *networking = NULL;

	if (!doc)
		return NULL;
	/* A bare networking object is a sandbox file of which only that part is written. */
	if (cJSON_GetObjectItemCaseSensitive(doc, "type") ||
		cJSON_GetObjectItemCaseSensitive(doc, "allowed_hosts")) {
		cJSON *outer = cJSON_CreateObject();
		cJSON_AddItemToObject(outer, "networking", doc);
		doc = outer;
	}
	if (pf_config_parse(doc, &config, err) < 0) {
		pf_wrap(err, "%s", file);
		return NULL;
	}
	if (pf_oci_is(id))
		networking = pf_pod_networking(&config, err);
	else
		networking = pf_session_networking_of(&pf_globals.dirs, id, &config, err);
	pf_config_done(&config);
	return networking;
}

/* Ask the keeper and print what it says. value goes along under key and is taken. */
static int ask(const char *id, const char *op, const char *key, cJSON *value, struct pf_err *err)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();

	cJSON_AddStringToObject(msg, "op", op);
	if (key)
		cJSON_AddItemToObject(msg, key, value);
	cJSON *answer = pf_control_ask(&pf_globals.dirs, id, msg, NULL, err);
	if (!answer)
		return -1;
	pf_print_json(answer);
	return 0;
}

static int set(const char *id, const char *file, struct pf_err *err)
{
	PF_JSON cJSON *networking = load(id, file, err), *msg = cJSON_CreateObject();
	/* Beside the message, because thousands of names are longer than one may be. */
	PF_CLOSE int doc = networking ? pf_tlslink_document(networking, NULL, 0, err) : -1;

	if (doc < 0)
		return -1;
	cJSON_AddStringToObject(msg, "op", "policy-set");
	cJSON *answer = pf_control_ask_with(&pf_globals.dirs, id, msg, doc, err);
	if (!answer)
		return -1;
	pf_print_json(answer);
	return 0;
}

static int check(const char *id, const char *file, struct pf_err *err)
{
	PF_JSON cJSON *networking = load(id, file, err);
	struct pf_policy *p = networking ? pf_policy_compile(networking, err) : NULL;

	if (!p)
		return -1;
	cJSON *j = pf_policy_describe(p);
	cJSON_DeleteItemFromObjectCaseSensitive(j, "revision"); /* it has none before it is set */
	pf_policy_unref(p);
	pf_print_json(j);
	return 0;
}

static int rotate(
	const char *id, const char *name, const char *file, const char *bindings, struct pf_err *err)
{
	if (pf_session_rotate(&pf_globals.dirs, id, name, file, bindings, err) < 0)
		return -1;
	cJSON *j = cJSON_CreateObject();
	cJSON_AddStringToObject(j, "rotated", name);
	pf_print_json(j);
	return 0;
}

int pf_cmd_policy(int argc, char **argv)
{
	static const struct option options[] = {{"credentials", required_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	struct pf_err err = PF_ERR_INIT;
	const char *bindings = NULL;
	int r, c;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1)
		if (c == 'c')
			bindings = optarg;
	int n = argc - optind;
	char **a = argv + optind;
	if (bindings && (n < 2 || strcmp(a[1], "rotate") != 0))
		return pf_usage("policy", "--credentials is for rotate alone");
	if (n == 2 && strcmp(a[1], "show") == 0)
		r = ask(a[0], "policy", NULL, NULL, &err);
	else if (n == 3 && strcmp(a[1], "set") == 0)
		r = set(a[0], a[2], &err);
	else if (n == 3 && strcmp(a[1], "check") == 0)
		r = check(a[0], a[2], &err);
	else if (n == 3 && strcmp(a[1], "test") == 0)
		r = ask(a[0], "policy-test", "target", cJSON_CreateString(a[2]), &err);
	else if (n == 2 && strcmp(a[1], "suggest") == 0)
		r = pf_policy_suggest(a[0], &err);
	else if ((n == 3 || n == 4) && strcmp(a[1], "rotate") == 0)
		r = rotate(a[0], a[2], n == 4 ? a[3] : NULL, bindings, &err);
	else
		return pf_usage("policy", "takes ID and show, set FILE, check FILE, test HOST:PORT, suggest, "
					  "or rotate CREDENTIAL [FILE]");
	if (r < 0) {
		pf_wrap(&err, "policy");
		return pf_report(&err);
	}
	return 0;
}
