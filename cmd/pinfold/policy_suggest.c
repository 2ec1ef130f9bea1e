/* Theory of operation.
 *
 * The audit log says what was refused: a name that was asked for, a name with a port, an address with a port.
 * What a list of allowed hosts or networks would have let through is added to the policy that is in force.
 * Questions for a name carry no port; when a connection to it was refused later, that one's is taken.
 * Refusals that no entry could cure (a private address, a wrong SNI, a denied host) are left alone: they are
 * decisions. */
#include "cmd/pinfold/policy_suggest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "cmd/pinfold/cmd.h"
#include "session/record.h"

static const char *str(const cJSON *j, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
}

static void add(cJSON *list, const char *entry)
{
	const cJSON *j;

	cJSON_ArrayForEach(j, list)
	{
		const char *have = cJSON_IsString(j) ? j->valuestring : str(j, "host");
		/* The same, or the same without a port. */
		if (have && (strcmp(have, entry) == 0 ||
				    (pf_starts_with(entry, have) && entry[strlen(have)] == ':')))
			return;
	}
	cJSON_AddItemToArray(list, cJSON_CreateString(entry));
}

static cJSON *list_of(cJSON *net, const char *key)
{
	cJSON *l = cJSON_GetObjectItemCaseSensitive(net, key);

	return cJSON_IsArray(l) ? l : cJSON_AddArrayToObject(net, key);
}

static bool curable(const cJSON *j)
{
	static const char *const reasons[] = {"not_listed", "port", "name_shape", "public_resolver"};
	const char *event = str(j, "event"), *reason = str(j, "reason");

	for (size_t i = 0; event && reason && i < sizeof(reasons) / sizeof(*reasons); i++)
		if (strcmp(event, "egress_denied") == 0 && strcmp(reason, reasons[i]) == 0)
			return true;
	return false;
}

static void learn(cJSON *net, const cJSON *j)
{
	const cJSON *port = cJSON_GetObjectItemCaseSensitive(j, "port");
	const char *name = str(j, "name"), *orig = str(j, "orig"), *proto = str(j, "proto");

	if (!curable(j) || (proto && strcmp(proto, "tcp") != 0))
		return;
	const char *target = name ? name : orig;
	if (!target)
		return;
	bool v6 = !name && strchr(target, ':');
	PF_FREE char *entry = cJSON_IsNumber(port)
				      ? pf_asprintf(v6 ? "[%s]:%d" : "%s:%d", target, port->valueint)
				      : pf_strdup(target);
	/* A later line knows the port of a name that was only asked for. */
	if (name && cJSON_IsNumber(port)) {
		cJSON *hosts = list_of(net, "allowed_hosts"), *h = hosts->child;
		for (cJSON *next; h; h = next) {
			next = h->next;
			if (cJSON_IsString(h) && strcmp(h->valuestring, name) == 0)
				cJSON_Delete(cJSON_DetachItemViaPointer(hosts, h));
		}
	}
	add(list_of(net, name ? "allowed_hosts" : "allowed_cidrs"), entry);
}

/* The networking that is in force: the one that was set last, else the sandbox file's. */
static cJSON *current(const char *id, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_sandbox(&pf_globals.dirs, id, false, err);
	PF_JSON cJSON *record = dir < 0 ? NULL : pf_session_record_load(dir, err);
	uint64_t revision;

	if (!record || pf_session_live_policy(dir, record, &revision, err) < 0)
		return NULL;
	cJSON *config = cJSON_GetObjectItemCaseSensitive(record, "config");
	cJSON *net = cJSON_DetachItemFromObjectCaseSensitive(config, "networking");
	return net ? net : cJSON_CreateObject();
}

int pf_policy_suggest(const char *id, struct pf_err *err)
{
	if (pf_check_id("sandbox id", id, err) < 0)
		return -1;
	PF_JSON cJSON *net = current(id, err);
	PF_FREE char *path = pf_asprintf("%s/logs/%s.jsonl", pf_globals.dirs.store, id), *line = NULL;
	size_t cap = 0;
	ssize_t n;

	if (!net)
		return -1;
	PF_FCLOSE FILE *f = fopen(path, "re");
	if (!f)
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, errno, "log of sandbox '%s'", id);
	while ((n = getline(&line, &cap, f)) > 0) {
		struct pf_err ignored = PF_ERR_INIT;
		PF_JSON cJSON *j = pf_json_parse("log line", line, (size_t)n, &ignored);
		if (j)
			learn(net, j);
	}
	if (strcmp(str(net, "type") ? str(net, "type") : "limited", "none") == 0 &&
		(list_of(net, "allowed_hosts")->child || list_of(net, "allowed_cidrs")->child))
		cJSON_ReplaceItemInObjectCaseSensitive(net, "type", cJSON_CreateString("limited"));
	cJSON *out = cJSON_CreateObject();
	cJSON_AddItemToObject(out, "networking", cJSON_Duplicate(net, true));
	pf_print_json(out);
	return 0;
}
