#include "session/record.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "session/session.h"

#define MAX_RECORD ((size_t)16 << 20)

static cJSON *load(int dirfd, const char *name, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	size_t len;

	if (pf_read_file_at(dirfd, name, MAX_RECORD, &text, &len, err) < 0)
		return NULL;
	return pf_json_parse(name, text, len, err);
}

cJSON *pf_session_record_load(int sandbox_dirfd, struct pf_err *err)
{
	return load(sandbox_dirfd, "sandbox.json", err);
}

int pf_session_policy_save(int sandbox_dirfd, const cJSON *networking, uint64_t revision, struct pf_err *err)
{
	PF_JSON cJSON *j = cJSON_CreateObject();

	pf_json_add_int(j, "revision", (int64_t)revision);
	cJSON_AddItemToObject(j, "networking", cJSON_Duplicate(networking, true));
	PF_FREE char *text = pf_json_text(j);
	return pf_replace_file_at(sandbox_dirfd, PF_SESSION_POLICY_FILE, text, strlen(text), 0600, true, err);
}

int pf_session_live_policy(int sandbox_dirfd, cJSON *record, uint64_t *revision, struct pf_err *err)
{
	struct pf_err e = PF_ERR_INIT;
	PF_JSON cJSON *j = load(sandbox_dirfd, PF_SESSION_POLICY_FILE, &e);
	cJSON *config = cJSON_GetObjectItemCaseSensitive(record, "config");
	const cJSON *n = cJSON_GetObjectItemCaseSensitive(j, "revision");
	cJSON *networking;

	*revision = 0;
	if (!j) {
		if (e.kind == PF_ERR_NOT_FOUND)
			return 0;
		*err = e;
		return -1;
	}
	networking = cJSON_DetachItemFromObjectCaseSensitive(j, "networking");
	if (!networking || !config || !cJSON_IsNumber(n)) {
		cJSON_Delete(networking);
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "policy.json of the sandbox is damaged");
	}
	*revision = (uint64_t)n->valuedouble;
	cJSON_DeleteItemFromObjectCaseSensitive(config, "networking");
	cJSON_AddItemToObject(config, "networking", networking);
	return 0;
}

static char *dup_member(const cJSON *j, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
	return s ? pf_strdup(s) : NULL;
}

/* What is known of a sandbox of which only the record is left. */
static int recorded_state(const struct pf_dirs *d, const char *id, struct pf_state *s, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_sandbox(d, id, false, err);
	PF_JSON cJSON *record = dir < 0 ? NULL : pf_session_record_load(dir, err);
	char now[32];

	if (!record)
		return -1;
	*s = (struct pf_state){.id = pf_strdup(id),
		.created = pf_strdup(pf_time_now(now)),
		.status = PF_STATUS_STOPPED,
		.cgroup = pf_session_cgroup(d, id),
		.image = dup_member(record, "image"),
		.image_digest = dup_member(record, "image_digest"),
		.checkpoint = dup_member(record, "checkpoint"),
		.bundle = pf_asprintf("%s/sandboxes/%s", d->store, id),
		.exit_code = -1,
		.exec_timeout_ms = -1,
		.stop_reason = pf_strdup("lost")};
	return 0;
}

int pf_session_record_stopped(const struct pf_dirs *d, const char *id, struct pf_err *err)
{
	struct pf_state s;

	if (recorded_state(d, id, &s, err) < 0)
		return -1;
	PF_CLOSE int run = pf_dirs_run(d, id, true, err);
	int r = run < 0 ? -1 : pf_state_save(d, &s, err);
	pf_state_done(&s);
	return r;
}
