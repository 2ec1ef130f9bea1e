/* The unified diff of texts: whatever the texts, applying it to the one gives the other. parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants those first */
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/str.h"
#include "checkpoint/textdiff.h"

/* Applies hunks while they come: out is what the new text must be. */
struct apply {
	const char *old;
	size_t old_len, at; /* bytes of old that were used */
	struct pf_buf out, shown;
	size_t line; /* of old, from 0 */
	char last;
};

static void take_line(struct apply *p, bool keep)
{
	const char *nl = memchr(p->old + p->at, '\n', p->old_len - p->at);
	size_t len = nl ? (size_t)(nl + 1 - p->old) - p->at : p->old_len - p->at;

	assert_true(len > 0);
	if (keep)
		pf_buf_add(&p->out, p->old + p->at, len);
	p->at += len;
	p->line++;
}

static int apply_line(void *ctx, char mark, const char *text, size_t len, struct pf_err *err)
{
	struct apply *p = ctx;
	size_t first, n = 1;

	(void)err;
	if (mark != '@')
		pf_buf_add(&p->shown, &mark, 1);
	pf_buf_add(&p->shown, text, len);
	pf_buf_str(&p->shown, "\n");
	switch (mark) {
	case '@':
		if (sscanf(text, "@@ -%zu,%zu", &first, &n) < 2)
			assert_int_equal(sscanf(text, "@@ -%zu +", &first), 1);
		while (p->line + (n > 0) < first)
			take_line(p, true);
		break;
	case '\\':
		/* The line before this has no end after all; of '-' we do not keep anything. */
		if (p->last == '+')
			p->out.data[--p->out.len] = '\0';
		break;
	case '+':
		pf_buf_add(&p->out, text, len);
		pf_buf_str(&p->out, "\n");
		break;
	default: {
		const char *here = p->old + p->at;
		assert_true(p->old_len - p->at >= len);
		assert_memory_equal(here, text, len);
		take_line(p, mark == ' ');
	}
	}
	p->last = mark;
	return 0;
}

static size_t check(const char *a, size_t a_len, const char *b, size_t b_len, size_t context)
{
	struct apply p = {.old = a, .old_len = a_len};
	const struct pf_textdiff_sink sink = {apply_line, &p};
	struct pf_err err = PF_ERR_INIT;
	size_t shown;

	pf_buf_str(&p.out, "");
	assert_int_equal(pf_textdiff(a, a_len, b, b_len, context, &sink, &err), 0);
	while (p.at < a_len)
		take_line(&p, true);
	assert_int_equal(p.out.len, b_len);
	assert_memory_equal(p.out.data, b, b_len);
	shown = p.shown.len;
	pf_buf_done(&p.out);
	pf_buf_done(&p.shown);
	return shown;
}

static char *diff_of(const char *a, const char *b, size_t context)
{
	struct apply p = {.old = a, .old_len = strlen(a)};
	const struct pf_textdiff_sink sink = {apply_line, &p};
	struct pf_err err = PF_ERR_INIT;

	pf_buf_str(&p.out, "");
	pf_buf_str(&p.shown, "");
	assert_int_equal(pf_textdiff(a, strlen(a), b, strlen(b), context, &sink, &err), 0);
	pf_buf_done(&p.out);
	return p.shown.data;
}

/* What people know from diff -u. */
static void shows_hunks_as_diff_does(void **state)
{
	static const struct {
		const char *a, *b, *shown;
	} cases[] = {
		{"", "", ""},
		{"same\n", "same\n", ""},
		{"", "new\n", "@@ -0,0 +1 @@\n+new\n"},
		{"gone\n", "", "@@ -1 +0,0 @@\n-gone\n"},
		{"a\nb\nc\n", "a\nB\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"},
		{"x", "x\n", "@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+x\n"},
		{"1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n",
			"@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"},
		{"f {\n}\n", "f {\n}\ng {\n}\n", "@@ -1,2 +1,4 @@\n f {\n }\n+g {\n+}\n"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		PF_FREE char *shown = diff_of(cases[i].a, cases[i].b, 3);
		assert_string_equal(shown, cases[i].shown);
	}
}

static void far_changes_are_hunks_of_their_own(void **state)
{
	PF_BUF struct pf_buf a = {0}, b = {0};

	(void)state;
	for (int i = 0; i < 40; i++) {
		pf_buf_printf(&a, "%d\n", i);
		pf_buf_printf(&b, "%s%d\n", i == 5 || i == 12 || i == 30 ? "x" : "", i);
	}
	PF_FREE char *shown = diff_of(a.data, b.data, 3);
	size_t hunks = 0;
	for (const char *p = shown; (p = strstr(p, "@@ -")); p++)
		hunks++;
	/* 5 and 12 have six lines between them and share a hunk. */
	assert_int_equal(hunks, 2);
	PF_FREE char *narrow = diff_of(a.data, b.data, 0);
	assert_null(strstr(narrow, "\n 4"));
}

/* Random edits of random texts of few different lines, which is hard for every heuristic. */
static void applying_gives_the_other_text(void **state)
{
	(void)state;
	srand(1);
	for (int round = 0; round < 3000; round++) {
		PF_BUF struct pf_buf a = {0}, b = {0};
		int kinds = 1 + rand() % 12, n = rand() % 60;
		pf_buf_str(&a, "");
		pf_buf_str(&b, "");
		for (int i = 0; i < n; i++) {
			int line = rand() % kinds, what = rand() % 8;
			const char *end = i == n - 1 && rand() % 2 ? "" : "\n";
			if (what != 0)
				pf_buf_printf(&a, "%.*s%d%s", line % 3, "  ", line, i == n - 1 ? end : "\n");
			if (what == 1)
				pf_buf_printf(&b, "%d\n", rand() % kinds);
			if (what != 2)
				pf_buf_printf(&b, "%.*s%d%s", line % 3, "  ", line, i == n - 1 ? end : "\n");
		}
		(void)check(a.data, a.len, b.data, b.len, (size_t)(rand() % 5));
	}
}

/* The largest texts that are taken, with nothing and with little in common: an answer, and a right one. */
static void large_texts_are_right_too(void **state)
{
	PF_BUF struct pf_buf a = {0}, b = {0};

	(void)state;
	srand(2);
	while (a.len < PF_TEXTDIFF_MAX / 4) {
		pf_buf_printf(&a, "%d\n", rand() % 5000);
		pf_buf_printf(&b, "%d\n", rand() % 5000);
	}
	(void)check(a.data, a.len, b.data, b.len, 3);

	PF_FREE char *ends = pf_calloc(1, PF_TEXTDIFF_MAX);
	memset(ends, '\n', PF_TEXTDIFF_MAX);
	(void)check(a.data, a.len, ends, PF_TEXTDIFF_MAX, 3);
	(void)check(ends, PF_TEXTDIFF_MAX, ends, PF_TEXTDIFF_MAX - 1, 3);
}

static void longer_than_the_limit_is_refused(void **state)
{
	PF_FREE char *text = pf_calloc(1, PF_TEXTDIFF_MAX + 1);
	struct pf_err err = PF_ERR_INIT;
	const struct pf_textdiff_sink sink = {NULL, NULL};

	(void)state;
	assert_int_equal(pf_textdiff(text, PF_TEXTDIFF_MAX + 1, "", 0, 3, &sink, &err), -1);
	assert_int_equal(err.kind, PF_ERR_UNSUPPORTED);
}

/* One line changed of many costs one hunk, not a new text: the result is near the shortest. */
static void little_changed_shows_little(void **state)
{
	PF_BUF struct pf_buf a = {0}, b = {0};

	(void)state;
	for (int i = 0; i < 100000; i++) {
		pf_buf_printf(&a, "line %d\n", i);
		if (i == 50000)
			pf_buf_str(&b, "another\n");
		else
			pf_buf_printf(&b, "line %d\n", i);
	}
	assert_true(check(a.data, a.len, b.data, b.len, 3) < 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shows_hunks_as_diff_does),
		cmocka_unit_test(far_changes_are_hunks_of_their_own),
		cmocka_unit_test(applying_gives_the_other_text),
		cmocka_unit_test(large_texts_are_right_too),
		cmocka_unit_test(longer_than_the_limit_is_refused),
		cmocka_unit_test(little_changed_shows_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
