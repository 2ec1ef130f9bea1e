/* Theory of operation: the ledger of calls.
 *
 * Events come twice, out of two sources (the stream, and the list that is read when the stream has been
 * opened) and once more after each reconnection; results may have been posted by a worker that died. So
 * nothing is counted: each call is known by its id, a result seen anywhere closes it, and a call is run only
 * while it is open. A permission that is not known is treated as `ask`: what is not plainly allowed waits.
 *
 * The turn is over when the last event that says anything about it was an idle one other than
 * requires_action. */

#include "worker/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "worker/work.h"

static const char *member(const cJSON *j, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
}

static void *grow(void *p, size_t n, size_t size)
{
	/* Room is doubled at powers of two. */
	if (n && (n & (n - 1)))
		return p;
	void *more = reallocarray(p, n ? n * 2 : 1, size);
	if (!more)
		abort();
	return more;
}

static bool in(char *const *list, size_t n, const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i], id) == 0)
			return true;
	return false;
}

static struct pf_call *find(const struct pf_ledger *l, const char *id)
{
	for (size_t i = l->n_calls; i > 0; i--)
		if (strcmp(l->calls[i - 1].id, id) == 0)
			return &l->calls[i - 1];
	return NULL;
}

void pf_ledger_done(struct pf_ledger *l)
{
	for (size_t i = 0; i < l->n_calls; i++) {
		free(l->calls[i].id);
		free(l->calls[i].name);
		free(l->calls[i].thread);
		cJSON_Delete(l->calls[i].input);
	}
	for (size_t i = 0; i < l->n_verdicts; i++)
		free(l->verdicts[i].id);
	for (size_t i = 0; i < l->n_answers; i++)
		free(l->answers[i]);
	for (size_t i = 0; i < l->n_dead_threads; i++)
		free(l->dead_threads[i]);
	for (size_t i = 0; i < l->n_idles; i++)
		free(l->idles[i].id);
	free(l->calls);
	free(l->verdicts);
	free(l->answers);
	free(l->dead_threads);
	free(l->idles);
	*l = (struct pf_ledger){0};
}

static bool ours(const char *name)
{
	static const char *const tools[] = {"bash", "read", "write", "edit", "glob", "grep"};

	for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++)
		if (strcmp(name, tools[i]) == 0)
			return true;
	return false;
}

/* What becomes of a call: nothing is run that is not plainly allowed. */
static enum pf_call_state judge(const struct pf_ledger *l, const struct pf_call *c, const char *permission)
{
	if (in(l->answers, l->n_answers, c->id))
		return PF_CALL_ANSWERED;
	if (c->thread && in(l->dead_threads, l->n_dead_threads, c->thread))
		return PF_CALL_ANSWERED;
	if (permission && strcmp(permission, "deny") == 0)
		return PF_CALL_ANSWERED;
	for (size_t i = l->n_verdicts; i > 0; i--)
		if (strcmp(l->verdicts[i - 1].id, c->id) == 0) {
			if (!l->verdicts[i - 1].allow)
				return PF_CALL_ANSWERED;
			return ours(c->name) ? PF_CALL_READY : PF_CALL_FOREIGN;
		}
	if (permission && strcmp(permission, "allow") != 0)
		return PF_CALL_HELD;
	return ours(c->name) ? PF_CALL_READY : PF_CALL_FOREIGN;
}

static void add_call(struct pf_ledger *l, const cJSON *ev, bool custom)
{
	const char *id = member(ev, "id"), *name = member(ev, "name"),
		   *thread = member(ev, "session_thread_id");
	const cJSON *input = cJSON_GetObjectItemCaseSensitive(ev, "input");

	if (!id || !*id || !name || find(l, id))
		return;
	l->calls = grow(l->calls, l->n_calls, sizeof(*l->calls));
	struct pf_call *c = &l->calls[l->n_calls++];
	*c = (struct pf_call){.id = pf_strdup(id),
		.name = pf_strdup(name),
		.thread = thread && *thread ? pf_strdup(thread) : NULL,
		.input = cJSON_IsObject(input) ? cJSON_Duplicate(input, true) : cJSON_CreateObject(),
		.custom = custom};
	const cJSON *permission = cJSON_GetObjectItemCaseSensitive(ev, "evaluated_permission");
	c->state = judge(l, c,
		!permission || cJSON_IsNull(permission) ? NULL
		: cJSON_IsString(permission)            ? permission->valuestring
							: "unknown");
}

void pf_ledger_answered(struct pf_ledger *l, const char *id)
{
	struct pf_call *c = find(l, id);

	if (c)
		c->state = PF_CALL_ANSWERED;
	if (!c && !in(l->answers, l->n_answers, id)) {
		l->answers = grow(l->answers, l->n_answers, sizeof(*l->answers));
		l->answers[l->n_answers++] = pf_strdup(id);
	}
}

bool pf_ledger_is_answered(const struct pf_ledger *l, const char *id)
{
	const struct pf_call *c = find(l, id);

	return c ? c->state == PF_CALL_ANSWERED : in(l->answers, l->n_answers, id);
}

static void add_verdict(struct pf_ledger *l, const char *id, const char *result)
{
	bool allow = result && strcmp(result, "allow") == 0;
	struct pf_call *c = find(l, id);

	if (c && c->state == PF_CALL_HELD)
		c->state = !allow ? PF_CALL_ANSWERED : ours(c->name) ? PF_CALL_READY : PF_CALL_FOREIGN;
	if (c)
		return;
	l->verdicts = grow(l->verdicts, l->n_verdicts, sizeof(*l->verdicts));
	l->verdicts[l->n_verdicts++] = (struct pf_note){.id = pf_strdup(id), .allow = allow};
}

/* Nobody waits any more for what a thread that ended had asked for. */
static void end_thread(struct pf_ledger *l, const char *thread)
{
	if (!in(l->dead_threads, l->n_dead_threads, thread)) {
		l->dead_threads = grow(l->dead_threads, l->n_dead_threads, sizeof(*l->dead_threads));
		l->dead_threads[l->n_dead_threads++] = pf_strdup(thread);
	}
	for (size_t i = 0; i < l->n_calls; i++)
		if (l->calls[i].thread && strcmp(l->calls[i].thread, thread) == 0)
			l->calls[i].state = PF_CALL_ANSWERED;
}

static int64_t first_seen(struct pf_ledger *l, const char *id, int64_t now_us)
{
	if (!id)
		return now_us;
	for (size_t i = l->n_idles; i > 0; i--)
		if (strcmp(l->idles[i - 1].id, id) == 0)
			return l->idles[i - 1].seen_us;
	l->idles = grow(l->idles, l->n_idles, sizeof(*l->idles));
	l->idles[l->n_idles++] = (struct pf_idle){.id = pf_strdup(id), .seen_us = now_us};
	return now_us;
}

static void note_idle(struct pf_ledger *l, const cJSON *ev, const char *type, int64_t now_us)
{
	if (strcmp(type, "user.tool_confirmation") == 0 ||
		strcmp(type, "session.thread_status_terminated") == 0)
		return;
	const char *why = member(cJSON_GetObjectItemCaseSensitive(ev, "stop_reason"), "type");
	if (strcmp(type, "session.status_idle") != 0 || (why && strcmp(why, "requires_action") == 0)) {
		l->idle_since_us = 0;
		return;
	}
	if (!l->idle_since_us)
		l->idle_since_us = first_seen(l, member(ev, "id"), now_us);
}

int pf_ledger_event_json(struct pf_ledger *l, const cJSON *ev, int64_t now_us)
{
	const char *type = member(ev, "type"), *about;

	if (!type)
		return -1;
	note_idle(l, ev, type, now_us);
	if (strcmp(type, "agent.tool_use") == 0) {
		add_call(l, ev, false);
	} else if (strcmp(type, "agent.custom_tool_use") == 0) {
		add_call(l, ev, true);
	} else if (strcmp(type, "user.tool_result") == 0) {
		if ((about = member(ev, "tool_use_id")))
			pf_ledger_answered(l, about);
	} else if (strcmp(type, "user.custom_tool_result") == 0) {
		if ((about = member(ev, "custom_tool_use_id")))
			pf_ledger_answered(l, about);
	} else if (strcmp(type, "user.tool_confirmation") == 0) {
		if ((about = member(ev, "tool_use_id")))
			add_verdict(l, about, member(ev, "result"));
	} else if (strcmp(type, "session.thread_status_terminated") == 0) {
		if ((about = member(ev, "session_thread_id")))
			end_thread(l, about);
	} else if (strcmp(type, "session.status_terminated") == 0 || strcmp(type, "session.deleted") == 0) {
		l->ended = true;
		l->deleted = strcmp(type, "session.deleted") == 0;
	}
	return 0;
}

int pf_ledger_event(struct pf_ledger *l, const char *text, size_t len, int64_t now_us)
{
	cJSON *ev = pf_json_lenient(text, len);

	if (!cJSON_IsObject(ev)) {
		cJSON_Delete(ev);
		return -1;
	}
	int r = pf_ledger_event_json(l, ev, now_us);
	cJSON_Delete(ev);
	return r;
}

void pf_ledger_history_read(struct pf_ledger *l)
{
	for (size_t i = l->first_open; i < l->n_calls; i++)
		if (l->calls[i].state == PF_CALL_READY || l->calls[i].state == PF_CALL_FOREIGN)
			l->idle_since_us = 0;
}

struct pf_call *pf_ledger_next(struct pf_ledger *l)
{
	while (l->first_open < l->n_calls && l->calls[l->first_open].state == PF_CALL_ANSWERED)
		l->first_open++;
	for (size_t i = l->first_open; i < l->n_calls; i++)
		if (l->calls[i].state == PF_CALL_READY)
			return &l->calls[i];
	return NULL;
}

int64_t pf_ledger_idle_since(const struct pf_ledger *l)
{
	for (size_t i = l->first_open; i < l->n_calls; i++)
		if (l->calls[i].state == PF_CALL_READY || l->calls[i].state == PF_CALL_HELD)
			return 0;
	return l->idle_since_us;
}
