/* Pruning: every rule keeps what it promises to keep, and nothing else stays. parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants those first */
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "checkpoint/keep.h"

#define DAY ((int64_t)86400)
#define NOW (100 * DAY)

/* Seven of sandbox a on four days, one of b among them; the digest is the letter that the tests name it by.
 */
static struct pf_keep_item all[] = {
	{.digest = "1", .sandbox_id = "a", .created = "2026-01-01T08:00:00Z", .readable = true},
	{.digest = "2", .sandbox_id = "a", .created = "2026-01-01T20:00:00Z", .readable = true},
	{.digest = "b", .sandbox_id = "b", .created = "2026-01-02T00:00:00Z", .readable = true},
	{.digest = "3", .sandbox_id = "a", .created = "2026-01-03T00:00:00Z", .readable = true},
	{.digest = "4", .sandbox_id = "a", .created = "2026-01-03T23:59:59Z", .readable = true},
	{.digest = "5", .sandbox_id = "a", .created = "2026-01-04T00:00:00Z", .readable = true},
	{.digest = "6", .sandbox_id = "a", .created = "2026-01-09T00:00:00Z", .readable = true},
	{.digest = "7", .sandbox_id = "a", .created = "2026-01-09T00:00:01Z", .readable = true},
};
#define N (sizeof(all) / sizeof(all[0]))

static const struct pf_ckpt_prune_rules none = {.keep_last = -1, .keep_daily = -1, .older_than_ms = -1};

/* "1- 2last b-": each that is looked at, with what keeps it; '-' goes. */
static void expect(
	const struct pf_keep_item *v, size_t n, const struct pf_ckpt_prune_rules *r, const char *wanted)
{
	const char *why[16];
	char got[400] = "";

	pf_keep_choose(v, n, r, NOW, why);
	for (size_t i = 0; i < n; i++)
		if (!why[i] || *why[i])
			snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s%s", *got ? " " : "",
				v[i].digest, why[i] ? why[i] : "-");
	assert_string_equal(got, wanted);
}

static void without_a_rule_all_goes(void **state)
{
	(void)state;
	expect(all, N, &none, "1- 2- b- 3- 4- 5- 6- 7-");
}

static void keep_last_counts_for_each_sandbox(void **state)
{
	struct pf_ckpt_prune_rules r = none;

	(void)state;
	r.keep_last = 2;
	expect(all, N, &r, "1- 2- blast 3- 4- 5- 6last 7last");
	r.keep_last = 0;
	expect(all, N, &r, "1- 2- b- 3- 4- 5- 6- 7-");
	r.keep_last = 1000;
	expect(all, N, &r, "1last 2last blast 3last 4last 5last 6last 7last");
}

/* Days without a checkpoint are no days: a session that rested a month does not lose its last ones. */
static void keep_daily_keeps_the_newest_of_each_day_that_has_one(void **state)
{
	struct pf_ckpt_prune_rules r = none;

	(void)state;
	r.keep_daily = 3;
	expect(all, N, &r, "1- 2- bdaily 3- 4daily 5daily 6- 7daily");
	r.keep_daily = 10;
	expect(all, N, &r, "1- 2daily bdaily 3- 4daily 5daily 6- 7daily");
}

static void what_one_rule_keeps_the_others_do_not_take(void **state)
{
	struct pf_ckpt_prune_rules r = none;

	(void)state;
	r.keep_last = 2;
	r.keep_daily = 2;
	expect(all, N, &r, "1- 2- blast 3- 4- 5daily 6last 7last");
}

/* 30 days after the last use, not after it was made. */
static void older_than_runs_from_last_use(void **state)
{
	struct pf_keep_item v[3] = {all[0], all[1], all[3]};
	struct pf_ckpt_prune_rules r = none;

	(void)state;
	r.older_than_ms = 30 * DAY * 1000;
	v[0].last_used = NOW - 1; /* the oldest, used just now */
	v[1].last_used = NOW - 30 * DAY;
	v[2].last_used = NOW - 30 * DAY + 1;
	expect(v, 3, &r, "1recent 2- 3recent");
	/* A clock that was set back must not make all of it old. */
	v[1].last_used = NOW + 100 * DAY;
	expect(v, 3, &r, "1recent 2recent 3recent");
}

static void only_what_is_asked_for_is_looked_at_and_counted(void **state)
{
	PF_JSON cJSON *mine = cJSON_Parse("{\"team\":\"x\",\"stage\":\"done\",\"io.pinfold.auto\":\"idle\"}");
	PF_JSON cJSON *other = cJSON_Parse("{\"team\":\"x\"}");
	static const char *const team[] = {"team=x", NULL};
	static const char *const both[] = {"team=x", "stage=done", NULL};
	static const char *const neither[] = {"team", NULL};
	struct pf_keep_item v[N];
	struct pf_ckpt_prune_rules r = none;

	(void)state;
	memcpy(v, all, sizeof(v));
	v[0].labels = v[4].labels = v[5].labels = mine;
	v[1].labels = other;
	r.sandbox_id = "b";
	expect(v, N, &r, "b-");
	r = none;
	r.keep_last = 1;
	r.labels = team;
	expect(v, N, &r, "1- 2- 4- 5last");
	r.labels = both;
	expect(v, N, &r, "1- 4- 5last");
	r.labels = neither;
	expect(v, N, &r, "");
	r.labels = NULL;
	r.only_auto = true;
	r.keep_last = 2;
	expect(v, N, &r, "1- 4last 5last");
}

/* sandbox → 5; 5 was made of a sandbox from 2, and that one of a sandbox from b. */
static void what_a_sandbox_stands_on_stays_with_all_it_came_from(void **state)
{
	struct pf_keep_item v[N];

	(void)state;
	memcpy(v, all, sizeof(v));
	v[5].used = true;
	v[5].from = "2";
	v[1].from = "b";
	v[6].from = "1"; /* nobody uses 6 */
	expect(v, N, &none, "1- 2in use bin use 3- 4- 5in use 6- 7-");
	/* A record that says that it comes from itself ends the way back, it does not go round for ever. */
	v[2].from = "2";
	expect(v, N, &none, "1- 2in use bin use 3- 4- 5in use 6- 7-");
	v[2].from = "not here any more";
	expect(v, N, &none, "1- 2in use bin use 3- 4- 5in use 6- 7-");
}

/* It is not known what it is worth; and it does not take the place of a good one. */
static void what_cannot_be_read_stays_and_does_not_count(void **state)
{
	static const char *const labels[] = {"team=x", NULL};
	struct pf_keep_item v[N];
	struct pf_ckpt_prune_rules r = none;

	(void)state;
	memcpy(v, all, sizeof(v));
	v[7] = (struct pf_keep_item){.digest = "7", .sandbox_id = "a"};
	r.keep_last = 1;
	expect(v, N, &r, "1- 2- blast 3- 4- 5- 6last 7damaged");
	r.labels = labels;
	expect(v, N, &r, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_rule_all_goes),
		cmocka_unit_test(keep_last_counts_for_each_sandbox),
		cmocka_unit_test(keep_daily_keeps_the_newest_of_each_day_that_has_one),
		cmocka_unit_test(what_one_rule_keeps_the_others_do_not_take),
		cmocka_unit_test(older_than_runs_from_last_use),
		cmocka_unit_test(only_what_is_asked_for_is_looked_at_and_counted),
		cmocka_unit_test(what_a_sandbox_stands_on_stays_with_all_it_came_from),
		cmocka_unit_test(what_cannot_be_read_stays_and_does_not_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
