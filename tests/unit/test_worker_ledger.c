/* Which calls may run: every permission with every verdict, in either order, as the platform's SDK decides
 * it. parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/ledger.h"

static void event(struct pf_ledger *l, const char *fmt, const char *a, const char *b)
{
	char text[400];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	(void)snprintf(text, sizeof(text), fmt, a, b);
#pragma GCC diagnostic pop
	assert_int_equal(pf_ledger_event(l, text, strlen(text), 1), 0);
}

static void call(struct pf_ledger *l, const char *type, const char *permission)
{
	char member[80] = "";

	if (permission)
		(void)snprintf(member, sizeof(member), ",\"evaluated_permission\":%s", permission);
	event(l, "{\"type\":\"%s\",\"id\":\"c\",\"name\":\"bash\",\"input\":{}%s}", type, member);
}

static void verdict(struct pf_ledger *l, const char *result)
{
	event(l, "{\"type\":\"user.tool_confirmation\",\"tool_use_id\":\"%s\",\"result\":%s}", "c", result);
}

static void permissions_and_verdicts(void **state)
{
	static const struct {
		const char *permission, *verdict; /* JSON; NULL: not there */
		enum pf_call_state then;
	} cases[] = {{NULL, NULL, PF_CALL_READY}, {"null", NULL, PF_CALL_READY},
		{"\"allow\"", NULL, PF_CALL_READY}, {"\"ask\"", NULL, PF_CALL_HELD},
		{"\"of_next_year\"", NULL, PF_CALL_HELD}, {"7", NULL, PF_CALL_HELD},
		{"\"deny\"", NULL, PF_CALL_ANSWERED}, {"\"ask\"", "\"allow\"", PF_CALL_READY},
		{"\"ask\"", "\"deny\"", PF_CALL_ANSWERED}, {"\"ask\"", "\"of_next_year\"", PF_CALL_ANSWERED},
		{"\"ask\"", "null", PF_CALL_ANSWERED}, {"\"ask\"", "true", PF_CALL_ANSWERED},
		{"\"of_next_year\"", "\"allow\"", PF_CALL_READY},
		/* What the platform denies nobody allows. */
		{"\"deny\"", "\"allow\"", PF_CALL_ANSWERED}};
	static const char *const types[] = {"agent.tool_use", "agent.custom_tool_use"};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]) * 4; i++) {
		struct pf_ledger l = {0};
		size_t k = i / 4;
		bool before = i & 1;
		if (before && cases[k].verdict)
			verdict(&l, cases[k].verdict);
		call(&l, types[i >> 1 & 1], cases[k].permission);
		if (!before && cases[k].verdict)
			verdict(&l, cases[k].verdict);
		assert_int_equal(l.n_calls, 1);
		if (l.calls[0].state != cases[k].then)
			fail_msg("permission %s, verdict %s %s the call: %d", cases[k].permission,
				cases[k].verdict, before ? "before" : "after", (int)l.calls[0].state);
		pf_ledger_done(&l);
	}
}

static void a_held_call_keeps_the_session_from_being_idle(void **state)
{
	struct pf_ledger l = {0};

	(void)state;
	call(&l, "agent.tool_use", "\"ask\"");
	event(&l, "{\"type\":\"session.status_idle\",\"stop_reason\":{\"type\":\"%s\"}%s}", "requires_action",
		"");
	assert_int_equal(pf_ledger_idle_since(&l), 0);
	event(&l, "{\"type\":\"session.status_idle\",\"stop_reason\":{\"type\":\"%s\"}%s}", "end_turn", "");
	assert_int_equal(pf_ledger_idle_since(&l), 0);
	verdict(&l, "\"deny\"");
	assert_int_equal(pf_ledger_idle_since(&l), 1);
	pf_ledger_done(&l);
}

static void a_call_of_a_thread_that_ended_is_dropped(void **state)
{
	static const char asked[] =
		"{\"type\":\"agent.tool_use\",\"id\":\"%s\",\"name\":\"bash\",\"input\":{},"
		"\"session_thread_id\":\"%s\",\"evaluated_permission\":\"ask\"}";
	struct pf_ledger l = {0};

	(void)state;
	event(&l, asked, "before", "t");
	event(&l, "{\"type\":\"session.thread_status_terminated\",\"session_thread_id\":\"%s\"%s}", "t", "");
	event(&l, asked, "after", "t");
	assert_int_equal(l.calls[0].state, PF_CALL_ANSWERED);
	assert_int_equal(l.calls[1].state, PF_CALL_ANSWERED);
	event(&l, "{\"type\":\"user.tool_confirmation\",\"tool_use_id\":\"%s\",\"result\":\"%s\"}", "before",
		"allow");
	assert_null(pf_ledger_next(&l));
	pf_ledger_done(&l);
}

static void a_call_that_was_answered_is_not_run_by_a_late_verdict(void **state)
{
	struct pf_ledger l = {0};

	(void)state;
	call(&l, "agent.tool_use", "\"ask\"");
	event(&l, "{\"type\":\"user.tool_result\",\"tool_use_id\":\"%s\"%s}", "c", "");
	verdict(&l, "\"allow\"");
	assert_null(pf_ledger_next(&l));
	pf_ledger_done(&l);
}

static void an_end_that_is_told_again_is_no_later(void **state)
{
	static const char *const events[] = {"{\"type\":\"session.status_idle\",\"id\":\"x\"}",
		"{\"type\":\"user.message\",\"id\":\"m\"}",
		"{\"type\":\"session.status_idle\",\"id\":\"y\"}"};
	struct pf_ledger l = {0};

	(void)state;
	for (int64_t now = 1; now < 200; now += 99) {
		for (size_t i = 0; i < 3; i++)
			assert_int_equal(pf_ledger_event(&l, events[i], strlen(events[i]), now), 0);
		assert_int_equal(pf_ledger_idle_since(&l), 1);
	}
	assert_int_equal(pf_ledger_event(&l, events[1], strlen(events[1]), 300), 0);
	assert_int_equal(pf_ledger_idle_since(&l), 0);
	pf_ledger_done(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(permissions_and_verdicts),
		cmocka_unit_test(a_held_call_keeps_the_session_from_being_idle),
		cmocka_unit_test(a_call_of_a_thread_that_ended_is_dropped),
		cmocka_unit_test(a_call_that_was_answered_is_not_run_by_a_late_verdict),
		cmocka_unit_test(an_end_that_is_told_again_is_no_later)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
