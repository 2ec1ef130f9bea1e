/* Theory of operation: "the newest N" are counted among those that the rules look at, per sandbox, from the
 * newest on; what is damaged is not counted, since it could not be restored. Whatever the rules say, what a
 * sandbox stands on stays, and what that one came from. */
#include "checkpoint/keep.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"

static bool has_labels(const cJSON *have, const char *const *labels)
{
	for (; labels && *labels; labels++) {
		const char *eq = strchr(*labels, '=');
		PF_FREE char *key = eq ? strndup(*labels, (size_t)(eq - *labels)) : pf_strdup(*labels);
		const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(have, key));
		if (!value || !eq || strcmp(value, eq + 1) != 0)
			return false;
	}
	return true;
}

static bool looked_at(const struct pf_keep_item *c, const struct pf_ckpt_prune_rules *r)
{
	if (r->sandbox_id && strcmp(r->sandbox_id, c->sandbox_id) != 0)
		return false;
	/* Of what cannot be read nobody knows the labels; without a rule about these it is shown as kept. */
	if (!c->readable)
		return !r->only_auto && !r->labels;
	return (!r->only_auto || cJSON_GetObjectItemCaseSensitive(c->labels, PF_CKPT_AUTO_LABEL)) &&
	       has_labels(c->labels, r->labels);
}

/* The day (UTC) it was made on, as in "2026-01-31". */
static bool same_day(const struct pf_keep_item *a, const struct pf_keep_item *b)
{
	return strncmp(a->created, b->created, 10) == 0;
}

/* Of the checkpoints of v[at]'s sandbox that are looked at and newer than it: how many, on how many days, and
 * whether one of them is of the same day. */
struct newer {
	int64_t n, days;
	bool today;
};

static struct newer newer_than(
	const struct pf_keep_item *v, size_t n, size_t at, const struct pf_ckpt_prune_rules *r)
{
	struct newer x = {0};
	const struct pf_keep_item *last = NULL;

	for (size_t i = n; i-- > at + 1;) {
		if (!v[i].readable || !looked_at(&v[i], r) || strcmp(v[i].sandbox_id, v[at].sandbox_id) != 0)
			continue;
		x.n++;
		x.days += !last || !same_day(last, &v[i]);
		x.today = x.today || same_day(&v[i], &v[at]);
		last = &v[i];
	}
	return x;
}

static const char *kept_by(
	const struct pf_keep_item *v, size_t n, size_t at, const struct pf_ckpt_prune_rules *r, int64_t now)
{
	struct newer x;

	if (!v[at].readable)
		return "damaged";
	x = newer_than(v, n, at, r);
	if (r->keep_last >= 0 && x.n < r->keep_last)
		return "last";
	if (r->keep_daily >= 0 && !x.today && x.days < r->keep_daily)
		return "daily";
	/* A last use in the future is a clock that was set; it must not look old for that. */
	if (r->older_than_ms >= 0 && now - v[at].last_used < r->older_than_ms / 1000)
		return "recent";
	return PF_KEEP_GOES;
}

/* What is used, and what it came from: sandbox → checkpoint → the sandbox that it was made of → its
 * checkpoint. */
static void follow(const struct pf_keep_item *v, size_t n, bool *used)
{
	for (size_t k = 0; k < n; k++) {
		if (!v[k].used)
			continue;
		size_t i = k;
		while (i < n && !used[i]) {
			const char *from = v[i].from ? v[i].from : "";
			used[i] = true;
			for (i = 0; i < n && strcmp(v[i].digest, from) != 0;)
				i++;
		}
	}
}

void pf_keep_choose(const struct pf_keep_item *v, size_t n, const struct pf_ckpt_prune_rules *rules,
	int64_t now, const char **why)
{
	PF_FREE bool *used = pf_calloc(n + 1, sizeof(*used));

	follow(v, n, used);
	for (size_t i = 0; i < n; i++) {
		why[i] = looked_at(&v[i], rules) ? kept_by(v, n, i, rules, now) : PF_KEEP_OTHER;
		if (!why[i] && used[i])
			why[i] = "in use";
	}
}
