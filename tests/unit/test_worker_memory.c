/* Of a directory with more files than are kept in step, those that are known still are. parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/memory.c"

static void a_known_file_is_seen_when_there_is_no_room_for_others(void **state)
{
	struct pf_memory m = {.deadline_us = INT64_MAX};
	struct store s = {.m = &m, .id = "memstore"};
	struct pf_tool none = PF_TOOL_INIT;
	char name[16];

	(void)state;
	for (int i = 0; i < ENTRIES_MAX; i++) {
		(void)snprintf(name, sizeof(name), "%d", i);
		struct entry *e = find(&s, name);
		e->mark = pf_strdup("mark");
		e->local_sha = pf_strdup("sha");
	}
	assert_true(note_file(&none, &s, "7", "mark"));
	assert_true(find(&s, "7")->local);
	/* Those beyond are neither asked for nor noted. */
	assert_true(note_file(&none, &s, "new", "mark"));
	assert_null(known(&s, "new"));
	assert_int_equal(s.n, ENTRIES_MAX);
	for (size_t i = 0; i < s.n; i++) {
		free(s.entries[i].rel);
		free(s.entries[i].mark);
		free(s.entries[i].local_sha);
	}
	free(s.entries);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_known_file_is_seen_when_there_is_no_room_for_others)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
