/* Theory of operation: a session's checkpoints.
 *
 * A session may go on wherever a worker of its environment takes its next item, so the files that an earlier
 * worker left on this machine (it was killed, it had lost its lease) are the session's only if nobody has had
 * it since. Who had it left a checkpoint. A sandbox knows the checkpoint that it was made from, or last went
 * into; the store knows the order in which checkpoints came to it. Is the newest another than the sandbox's,
 * the sandbox is stale. Clocks are asked only where the sandbox's own is no longer in the store.
 *
 * With a remote, checkpoints are shared through an OCI registry, one tag for each session: fetched before the
 * sandbox is opened, sent before the item is stopped, so that who gets the next item finds it there. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "worker/box.h"
#include "worker/log.h"

#define SEND_TRIES 3

static const char *member(const cJSON *j, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

	return s ? s : "";
}

int pf_box_stale(const struct pf_box_opts *o, const char *id, bool *stale, struct pf_err *err)
{
	const char *state[] = {"state", id, NULL},
		   *ls[] = {"checkpoint", "ls", "--sandbox", id, "--json", NULL};
	PF_FREE char *text = NULL, *list = NULL;
	PF_JSON cJSON *s = NULL, *l = NULL;
	const cJSON *item, *own = NULL;

	*stale = false;
	if (pf_box_run(o, state, NULL, &text, err) < 0 || pf_box_run(o, ls, NULL, &list, err) < 0)
		return -1;
	s = cJSON_Parse(text);
	l = cJSON_Parse(list);
	if (!s || !cJSON_IsArray(l))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the checkpoints of %s cannot be read", id);
	const cJSON *newest = cJSON_GetArrayItem(l, cJSON_GetArraySize(l) - 1);
	const char *had = member(cJSON_GetObjectItemCaseSensitive(s, "pinfold"), "checkpoint");
	if (!newest || strcmp(member(newest, "checkpoint"), had) == 0)
		return 0;
	cJSON_ArrayForEach(item, l)
	{
		if (strcmp(member(item, "checkpoint"), had) == 0)
			own = item;
	}
	/* Both are RFC 3339 in UTC, so they compare as text up to the second. */
	*stale = own || !*had || strncmp(member(newest, "created"), member(s, "created"), 19) > 0;
	return 0;
}

/* ---- the remote ---- */

/* Its reference for the session, malloc'ed, and whether it is without TLS. */
static char *remote_ref(const struct pf_box_opts *o, const char *id, bool *plain, struct pf_err *err)
{
	const char *host = o->remote;

	*plain = pf_starts_with(host, "http://");
	host += *plain ? 7 : pf_starts_with(host, "https://") ? 8 : 0;
	/* What a tag may be is a little less than what an id may. */
	if (strchr(id, '+') || id[0] == '-') {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s cannot be a tag of a registry", id);
		return NULL;
	}
	return pf_asprintf("%s:%s", host, id);
}

int pf_box_fetch(const struct pf_box_opts *o, const char *id, struct pf_err *err)
{
	bool plain;
	PF_FREE char *ref = remote_ref(o, id, &plain, err);
	PF_FREE char *name = pf_asprintf("%.90s.%llx", id, (unsigned long long)pf_now_us());
	const char *words[] = {"checkpoint", "pull", "--json", "--name", name, "--sandbox", id, ref,
		plain ? "--plain-http" : NULL, NULL};

	if (!ref)
		return -1;
	if (pf_box_run(o, words, NULL, NULL, err) == 0)
		return 0;
	/* None yet; or ours, whose digest is in the store under another name. */
	if (err->kind == PF_ERR_NOT_FOUND || strstr(err->msg, "the checkpoint is here already"))
		return 0;
	return pf_wrap(err, "ask for the session's newest checkpoint");
}

int pf_box_send(const struct pf_box_opts *o, const char *id, struct pf_err *err)
{
	bool plain;
	PF_FREE char *ref = remote_ref(o, id, &plain, err);
	const char *words[] = {"checkpoint", "push", "--json", "--sandbox", id, "latest", ref,
		plain ? "--plain-http" : NULL, NULL};

	if (!ref)
		return -1;
	for (int n = 1; pf_box_run(o, words, NULL, NULL, err) < 0; n++) {
		if (n == SEND_TRIES)
			return pf_wrap(err, "send the checkpoint");
		pf_wlog("warning", "%s", err->msg);
		(void)sleep(1);
	}
	return 0;
}

/* ---- here ---- */

/* Remove checkpoints of the session, oldest first, until keep are left. One that cannot be removed stays. */
static int prune(const struct pf_box_opts *o, const char *id, size_t keep, struct pf_err *err)
{
	const char *ls[] = {"checkpoint", "ls", "--sandbox", id, "--quiet", NULL};
	PF_FREE char *text = NULL;
	size_t have = 0;
	char *save = NULL;

	if (pf_box_run(o, ls, NULL, &text, err) < 0 || !text)
		return -1;
	for (const char *p = text; *p; p++)
		have += *p == '\n';
	for (char *d = strtok_r(text, "\n", &save); d && have > keep;
		d = strtok_r(NULL, "\n", &save), have--) {
		const char *rm[] = {"checkpoint", "rm", d, NULL};
		struct pf_err why = PF_ERR_INIT;
		if (pf_box_run(o, rm, NULL, NULL, &why) < 0)
			pf_wlog("warning", "%s", why.msg);
	}
	return 0;
}

int pf_box_snapshot(const struct pf_box_opts *o, const char *id, struct pf_err *err)
{
	const char *words[] = {"snapshot", id, NULL};
	struct pf_err why = PF_ERR_INIT;

	if (pf_box_run(o, words, NULL, NULL, err) < 0)
		return -1;
	if (o->keep > 0 && prune(o, id, (size_t)o->keep, &why) < 0)
		pf_wlog("warning", "%s", why.msg);
	return 0;
}

int pf_box_forget(const struct pf_box_opts *o, const char *id, struct pf_err *err)
{
	return prune(o, id, 0, err);
}
