/* What people are told about long work. parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants those first */
#include <cmocka.h>

#include "base/progress.h"

static void says_what_is_known(void **state)
{
	static const struct {
		struct pf_progress p;
		int64_t us;
		const char *text;
	} cases[] = {
		{{0, 0}, 0, "0 B"}, {{0, 1500000}, 5000000, "1.5 MB"},
		{{4000000, 1000000}, 500000, "1.0 MB of 4.0 MB, 25 %"},
		{{4000000, 1000000}, 4000000, "1.0 MB of 4.0 MB, 25 %, 12 s left"},
		{{4000000, 1000}, 4000000, "1.0 kB of 4.0 MB, 0 %, 4:26:36 left"},
		{{4000000, 4000000}, 4000000, "4.0 MB of 4.0 MB, 100 %, 0 s left"},
		{{INT64_MAX / 2, 1}, 4000000, NULL}, /* centuries are left out */
		{{1000, 2000}, 4000000, "2.0 kB"},   /* more than was expected */
	};
	char buf[80];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *text = pf_progress_format(cases[i].p, cases[i].us, buf, sizeof(buf));
		if (cases[i].text)
			assert_string_equal(text, cases[i].text);
	}
}

static void counts_add_up(void **state)
{
	(void)state;
	pf_progress_expect(100);
	pf_progress_expect(-40);
	pf_progress_done(7);
	pf_progress_done(8);
	struct pf_progress p = pf_progress_now();
	assert_int_equal(p.expected, 60);
	assert_int_equal(p.done, 15);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_what_is_known),
		cmocka_unit_test(counts_add_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
