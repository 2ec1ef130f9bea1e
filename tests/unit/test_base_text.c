/* base/str, base/units, base/json, base/err: reading text that others wrote (parallel-safe). */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "base/units.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static void sizes(void **state)
{
	static const struct {
		const char *text;
		int64_t bytes;
	} right[] = {{"4096", 4096}, {"512M", 512 << 20}, {"512MB", 512 << 20}, {"512MiB", 512 << 20},
		{"512mb", 512 << 20}, {"1.5g", (int64_t)3 << 29}, {"1k", 1024}, {"1b", 1}, {"0.5K", 512},
		{"3T", (int64_t)3 << 40}, {"9007199254740991", 9007199254740991}};
	static const char *const wrong[] = {"", "0", "-1", "+1", " 1", "1 ", "1 M", "M", "512MBB", "1e3",
		"0x10", "1.", ".5", "1.5.5", "1ib", "1kk", "9007199254740992", "8192T", "9223372036854775808",
		"4194304T", "1,5M", "0.0001", "99999999999999999999999", "١"};
	struct pf_err err;
	int64_t v;

	(void)state;
	for (size_t i = 0; i < N(right); i++) {
		if (pf_parse_size("w", right[i].text, &v, &err) < 0)
			fail_msg("%s", err.msg);
		assert_int_equal(v, right[i].bytes);
	}
	for (size_t i = 0; i < N(wrong); i++) {
		v = 7;
		if (pf_parse_size("w", wrong[i], &v, &err) == 0)
			fail_msg("'%s' is taken for %" PRId64, wrong[i], v);
		assert_int_equal(v, 7);
		assert_int_equal(err.kind, PF_ERR_INVALID);
	}
}

static void durations(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} right[] = {{"300", 300000}, {"300s", 300000}, {"5m", 300000}, {"1h30m", 5400000}, {"250ms", 250},
		{"30d", (int64_t)30 * 86400000}, {"0.5s", 500}, {"3650d", (int64_t)3650 * 86400000}};
	static const char *const wrong[] = {"", "0", "0s", "-1", "5 m", "m", "5x", "1h30", "5M", "3651d",
		"9223372036854775807", "9223372036854775807d", "3650d1ms", "1e3", "s5"};
	struct pf_err err;
	int64_t v;

	(void)state;
	for (size_t i = 0; i < N(right); i++) {
		if (pf_parse_duration("w", right[i].text, &v, &err) < 0)
			fail_msg("%s", err.msg);
		assert_int_equal(v, right[i].ms);
	}
	for (size_t i = 0; i < N(wrong); i++)
		if (pf_parse_duration("w", wrong[i], &v, &err) == 0)
			fail_msg("'%s' is taken for %" PRId64, wrong[i], v);
}

static void counts_and_ids(void **state)
{
	struct pf_err err;
	int64_t v;
	uint32_t uid = 7, gid = 7;

	(void)state;
	assert_int_equal(pf_parse_cpus("w", "2.25", &v, &err), 0);
	assert_int_equal(v, 2250);
	assert_int_equal(pf_parse_cpus("w", "0.009", &v, &err), -1);
	assert_int_equal(pf_parse_cpus("w", "4096.001", &v, &err), -1);
	assert_int_equal(pf_parse_int("w", "9223372036854775807", 0, INT64_MAX, &v, &err), -1);
	assert_int_equal(pf_parse_int("w", "12", 0, 11, &v, &err), -1);
	assert_int_equal(pf_parse_int("w", "1 ", 0, 11, &v, &err), -1);
	assert_int_equal(pf_parse_user_ids("w", "5:6", &uid, &gid, &err), 0);
	assert_true(uid == 5 && gid == 6);
	/* 31 zeros and a number must not be cut down to zero. */
	uid = 7;
	if (pf_parse_user_ids("w", "00000000000000000000000000000001000", &uid, &gid, &err) == 0)
		assert_int_equal(uid, 1000);
	static const char *const wrong[] = {
		"", "0x0", "-1", "4294967295", "1000:", " 1", "root\n", ":5", "1:2:3"};
	for (size_t i = 0; i < N(wrong); i++)
		if (pf_parse_user_ids("w", wrong[i], &uid, &gid, &err) == 0)
			fail_msg("'%s' is taken for a user", wrong[i]);
}

static void formats(void **state)
{
	char b[32];

	(void)state;
	assert_string_equal(pf_format_size(999, b, sizeof(b)), "999 B");
	assert_string_equal(pf_format_size(1500, b, sizeof(b)), "1.5 kB");
	assert_string_equal(pf_format_size(INT64_MAX, b, sizeof(b)), "9223 PB");
	assert_string_equal(pf_format_us(999, b, sizeof(b)), "999 us");
	assert_string_equal(pf_format_us(1240, b, sizeof(b)), "1.24 ms");
}

static cJSON *json(const char *text, struct pf_err *err)
{
	*err = PF_ERR_INIT;
	return pf_json_parse("doc", text, strlen(text), err);
}

static void json_documents(void **state)
{
	static const char *const wrong[] = {"", "{", "{}x", "{} {}", "{\"a\":1,}", "{\"a\":1,\"a\":2}",
		"{\"o\":{\"a\":1,\"b\":0,\"a\":1}}", "{\"a\":\"\\u0000\"}", "{\"\\u0000\":1}",
		"{\"a\":\"x\\\\\\u0000\"}", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"",
		"\"\xf5\x80\x80\x80\"", "\"\xe2\x82\"", "nul"};
	static const char *const right[] = {"{}", " [1] \n", "{\"a\":\"\\\\u0000\"}",
		"{\"a\":\"\\u0041\\n\"}", "{\"a\":1,\"A\":2}", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x91\"",
		"\"\\\\\""};
	struct pf_err err;

	(void)state;
	for (size_t i = 0; i < N(wrong); i++) {
		PF_JSON cJSON *j = json(wrong[i], &err);
		if (j)
			fail_msg("accepted %s", wrong[i]);
		assert_int_equal(err.kind, PF_ERR_INVALID);
		assert_non_null(strstr(err.msg, "doc"));
	}
	for (size_t i = 0; i < N(right); i++) {
		PF_JSON cJSON *j = json(right[i], &err);
		if (!j)
			fail_msg("%s: %s", right[i], err.msg);
	}
	static const char nul[] = "{\"a\":1}\0{\"a\":2}";
	assert_null(pf_json_parse("doc", nul, sizeof(nul) - 1, &err));

	PF_BUF struct pf_buf deep = {0};
	for (int i = 0; i < 70; i++)
		pf_buf_str(&deep, "[");
	for (int i = 0; i < 70; i++)
		pf_buf_str(&deep, "]");
	PF_JSON cJSON *d = json(deep.data, &err);
	assert_null(d);
	assert_non_null(strstr(err.msg, "64 levels"));
}

/* A hostile document of a quarter of a million keys is read, and its one repeated key is found. */
static void json_many_keys(void **state)
{
	PF_BUF struct pf_buf b = {0};
	struct pf_err err;

	(void)state;
	pf_buf_str(&b, "{");
	for (int i = 0; i < 250000; i++)
		pf_buf_printf(&b, "\"k%d\":0,", i);
	size_t end = b.len;
	pf_buf_str(&b, "\"z\":0}");
	PF_JSON cJSON *j = json(b.data, &err);
	assert_non_null(j);
	b.len = end;
	pf_buf_str(&b, "\"k777\":0}");
	PF_JSON cJSON *k = json(b.data, &err);
	assert_null(k);
	assert_non_null(strstr(err.msg, "'k777' is given twice"));
}

static void json_members(void **state)
{
	static const char *const known[] = {"s", "n", "memory", NULL};
	struct pf_err err;
	PF_JSON cJSON *j = json("{\"s\":\"t\",\"n\":5,\"b\":true,\"l\":[\"x\",\"y\"],\"m\":[1],\"z\":null,"
				"\"big\":1e300,\"half\":0.5}",
		&err);
	const char *s = "old";
	int64_t n = 3;
	bool b = false;
	char **v = NULL;

	(void)state;
	assert_non_null(j);
	assert_int_equal(pf_json_str(j, "", "none", &s, &err), 0);
	assert_int_equal(pf_json_str(j, "", "z", &s, &err), 0);
	assert_string_equal(s, "old");
	assert_int_equal(pf_json_str(j, "", "s", &s, &err), 1);
	assert_string_equal(s, "t");
	assert_int_equal(pf_json_str(j, "a.b", "n", &s, &err), -1);
	assert_string_equal(err.msg, "a.b.n: must be a string");
	assert_int_equal(pf_json_int(j, "", "n", 0, 5, &n, &err), 1);
	assert_int_equal(n, 5);
	assert_int_equal(pf_json_int(j, "", "n", 0, 4, &n, &err), -1);
	assert_int_equal(pf_json_int(j, "", "big", 0, INT64_MAX, &n, &err), -1);
	assert_int_equal(pf_json_int(j, "", "half", 0, 5, &n, &err), -1);
	assert_int_equal(pf_json_bool(j, "", "b", &b, &err), 1);
	assert_int_equal(pf_json_bool(j, "", "n", &b, &err), -1);
	assert_int_equal(pf_json_strv(j, "", "l", &v, &err), 1);
	assert_int_equal(pf_strv_len(v), 2);
	pf_strv_free(v);
	assert_int_equal(pf_json_strv(j, "", "m", &v, &err), -1);
	PF_JSON cJSON *t = json("{\"memroy\":1}", &err);
	assert_int_equal(pf_json_known(t, "r", known, &err), -1);
	assert_string_equal(err.msg, "unknown key 'r.memroy': did you mean 'memory'?");

	PF_JSON cJSON *o = cJSON_CreateObject();
	pf_json_add_int(o, "v", INT64_MAX);
	PF_FREE char *text = pf_json_text(o);
	assert_string_equal(text, "{\"v\":9223372036854775807}");
}

static void ids(void **state)
{
	static const char *const wrong[] = {
		NULL, "", ".", "..", ".a", "a/b", "a b", "a\n", "é", "a:b", "../x", "a%2f"};
	struct pf_err err;
	char longest[130];

	(void)state;
	for (size_t i = 0; i < N(wrong); i++)
		assert_int_equal(pf_check_id("sandbox id", wrong[i], &err), -1);
	assert_int_equal(pf_check_id("sandbox id", "sesn_01-a.b+C", &err), 0);
	/* runc and crun take those, too: behind "--". */
	assert_int_equal(pf_check_id("sandbox id", "-rf", &err), 0);
	memset(longest, 'a', sizeof(longest));
	longest[129] = '\0';
	assert_int_equal(pf_check_id("sandbox id", longest, &err), -1);
	longest[128] = '\0';
	assert_int_equal(pf_check_id("sandbox id", longest, &err), 0);
}

/* Context goes before, errno survives, and a message that is too long is cut, not overrun. */
static void errors(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	char longer[3000];

	(void)state;
	errno = EBUSY;
	assert_int_equal(pf_fail(&err, ENOENT, "open %s", "x"), -1);
	assert_int_equal(errno, EBUSY);
	assert_int_equal(err.errnum, ENOENT);
	assert_int_equal(pf_wrap(&err, "create"), -1);
	assert_string_equal(err.msg, "create: open x: No such file or directory");
	pf_fail(&err, 0, "no '%s'", "a\nb\x1b[31m");
	assert_string_equal(err.msg, "no 'a b?[31m'");
	pf_wrap(&err, "c\nd");
	assert_string_equal(err.msg, "c d: no 'a b?[31m'");
	memset(longer, 'y', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	pf_wrap(&err, "%s", longer);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
	pf_fail(&err, ENOENT, "%s", longer);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
}

static void buffers(void **state)
{
	PF_BUF struct pf_buf b = {0};
	static const char *const words[] = {"allowed_hosts", "denied_hosts", NULL};

	(void)state;
	for (int i = 0; i < 1000; i++)
		pf_buf_printf(&b, "%d,", i);
	assert_int_equal(strlen(b.data), b.len);
	assert_true(pf_ends_with(b.data, "998,999,"));
	assert_true(pf_starts_with(b.data, "0,1,2,"));
	assert_false(pf_ends_with("a", "aa"));
	assert_string_equal(pf_nearest("allowed_host", words), "allowed_hosts");
	assert_null(pf_nearest("completely-else", words));
	assert_null(pf_nearest(b.data, words));
}

/* What others wrote is shown without what a terminal would obey. */
static void others_text(void **state)
{
	static const struct {
		const char *name, *quoted;
	} names[] = {{"plain", "plain"}, {"b\303\274cher", "b\303\274cher"}, {"a b", "a b"},
		{"x\033[2K\ny", "\"x\\033[2K\\012y\""}, {"\302\233A", "\"\\302\\233A\""},
		{"\377", "\"\\377\""}, {"q\"\\", "\"q\\\"\\\\\""}};
	char text[] = "a\033]0;x\a\nb\302\233\303\274";

	(void)state;
	for (size_t i = 0; i < N(names); i++) {
		PF_BUF struct pf_buf b = {0};
		pf_quote_name(&b, "", names[i].name, strlen(names[i].name));
		assert_string_equal(b.data, names[i].quoted);
	}
	pf_one_line(text);
	assert_string_equal(text, "a?]0;x? b??\303\274");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(durations),
		cmocka_unit_test(counts_and_ids),
		cmocka_unit_test(formats),
		cmocka_unit_test(json_documents),
		cmocka_unit_test(json_many_keys),
		cmocka_unit_test(json_members),
		cmocka_unit_test(ids),
		cmocka_unit_test(errors),
		cmocka_unit_test(buffers),
		cmocka_unit_test(others_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
