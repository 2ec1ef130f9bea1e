/* parallel-safe. What rules and credentials are made of: scopes, suffixes, names in other scripts, hosts of a
 * credential, where HTTP messages end, and how a refusal is worded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/str.h"
#include "netpolicy/creds.h"
#include "netpolicy/http.h"
#include "netpolicy/refusal.h"
#include "netpolicy/scope.h"
#include "netpolicy/suffix.h"

/* A path pattern has exactly the paths it says, and none that a server may read as another. */
static void test_paths(void **state)
{
	static const struct {
		const char *pattern, *path;
		bool match;
	} cases[] = {{"/v1/*", "/v1/a", true}, {"/v1/*", "/v1/a/b", false}, {"/v1/**", "/v1/a/b", true},
		{"/v1/**", "/v1/", true}, {"/v1/**", "/v1", false}, {"/**/x", "/a/b/x", true},
		{"/a*c", "/abbc", true}, {"/a*c", "/a/c", false}, {"/", "/", true}, {"/a", "/a?q=/b", true},
		{"/a", "/ab", false}, {"/v1/**", "/v1/../b", false}, {"/v1/**", "/v1/%2E%2e/b", false},
		{"/v1/**", "/v1//b", false}, {"/v1/**", "/v1/a%2fb", false}, {"/v1/**", "/v1/a\\b", false},
		{"/v1/*/read", "/v1/delete#/read", false}, {"**/x", "/a\t/x", false},
		{"**/x", "/a\x7f/x", false}, {"/v1/**", "/v1/..;/b", false}, {"/v1/**", "/v1/a/..", false},
		{"/**", "*", false}, {"**", "/any/thing", true}, {"/*/b/*/d", "/a/b/c/d", true},
		{"/*/b/*/d", "/a/b/c/c/d", false}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *paths[] = {(char *)(uintptr_t)cases[i].pattern, NULL};
		struct pf_scope s = {.paths = paths};
		if (pf_scope_path(&s, cases[i].path, strlen(cases[i].path)) != cases[i].match)
			fail_msg("%s %s", cases[i].pattern, cases[i].path);
	}
}

/* Methods are taken exactly, and nothing is allowed by an empty list. */
static void test_scope_documents(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_scope s;
	PF_JSON cJSON *j = cJSON_Parse("{\"methods\":[\"get\"],\"max_requests_per_hour\":2}");
	static const char *const bad[] = {"{\"methods\":[]}", "{\"methods\":[\"GET /\"]}",
		"{\"paths\":[\"v1\"]}", "{\"paths\":[]}", "{\"max_requests_per_hour\":0}"};

	(void)state;
	assert_int_equal(pf_scope_read(j, "x", &s, &err), 0);
	assert_true(pf_scope_method(&s, "GET", 3));
	assert_false(pf_scope_method(&s, "get", 3));
	assert_false(pf_scope_method(&s, "GETS", 4));
	struct pf_quota q = {0};
	assert_int_equal(pf_quota_take(&q, s.requests_per_hour), 0);
	assert_int_equal(pf_quota_take(&q, s.requests_per_hour), 0);
	assert_true(pf_quota_take(&q, s.requests_per_hour) > 3500);
	pf_scope_done(&s);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		PF_JSON cJSON *b = cJSON_Parse(bad[i]);
		assert_int_equal(pf_scope_read(b, "x", &s, &err), -1);
	}
}

static void test_suffixes(void **state)
{
	(void)state;
	assert_true(pf_is_public_suffix("com"));
	assert_true(pf_is_public_suffix("co.uk"));
	assert_false(pf_is_public_suffix("example.co.uk"));
	assert_false(pf_is_public_suffix("googleapis.com"));
	if (access("/usr/share/publicsuffix/public_suffix_list.dat", R_OK) != 0)
		return;
	assert_true(pf_is_public_suffix("pvt.k12.ma.us"));
	assert_true(pf_is_public_suffix("anything.ck"));
	assert_false(pf_is_public_suffix("www.ck"));
}

static void test_idna(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *a = pf_name_to_ascii("Bücher.example", &err),
		     *b = pf_name_to_ascii("straße.example", &err);

	(void)state;
	if (!a && strstr(err.msg, "not installed"))
		skip();
	assert_string_equal(a, "xn--bcher-kva.example");
	assert_string_equal(b, "xn--strae-oqa.example");
}

/* A credential is for its hosts and for no name that only resembles them. */
static void test_bound(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_creds c;
	PF_JSON cJSON *j = cJSON_Parse(
		"[{\"name\":\"k\",\"placeholder\":\"pfcred_0123456789012345678901234567890123456789\","
		"\"hosts\":[\"api.example.com:443\",\"*.wild.example\"]}]");

	(void)state;
	assert_int_equal(pf_creds_read(j, &c, &err), 0);
	assert_true(pf_creds_bound(&c, "api.example.com", 443));
	assert_false(pf_creds_bound(&c, "api.example.com", 8443));
	assert_false(pf_creds_bound(&c, "x.api.example.com", 443));
	assert_false(pf_creds_bound(&c, "notapi.example.com", 443));
	assert_true(pf_creds_bound(&c, "a.wild.example", 1));
	assert_false(pf_creds_bound(&c, "wild.example", 1));
	assert_false(pf_creds_bound(&c, "evilwild.example", 1));
	pf_creds_done(&c);
}

/* Bytes of data that belong to the message; -1: refused. */
static long message(const char *head, const char *data, bool *done)
{
	struct pf_http h;

	if (pf_http_request(&h, head, strlen(head)) < 0)
		return -1;
	long n = (long)pf_http_body(&h, data, strlen(data));
	*done = h.done;
	return n;
}

static void collect(void *arg, const char *data, size_t len)
{
	pf_buf_add(arg, data, len);
}

/* What a body is without its framing, in pieces of every size; the border is where it is without looking. */
static void test_content(void **state)
{
	static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
	static const char data[] =
		"3;ext=1\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP/1.1";
	const size_t want = sizeof(data) - sizeof("GET / HTTP/1.1");

	(void)state;
	for (size_t piece = 1; piece < sizeof(data); piece++) {
		PF_BUF struct pf_buf content = {0};
		struct pf_http h;
		size_t at = 0;
		assert_int_equal(pf_http_request(&h, head, sizeof(head) - 1), 0);
		while (!h.done && at < sizeof(data) - 1) {
			size_t n = sizeof(data) - 1 - at < piece ? sizeof(data) - 1 - at : piece;
			ssize_t took = pf_http_body_to(&h, data + at, n, collect, &content);
			assert_true(took > 0);
			at += (size_t)took;
		}
		assert_true(h.done);
		assert_int_equal(at, want);
		assert_string_equal(content.data, "abc0123456789abcdef");
	}
}

/* HTTP/2 without TLS is not asked for where it may not be begun with; all else is left as it is. */
static void test_hide_h2c(void **state)
{
	char head[] = "GET /h2c HTTP/1.1\r\nHost: a\r\nupgrade: websocket, H2C\r\nX: h2c\r\n\r\n";

	(void)state;
	pf_http_hide_h2c(head, sizeof(head) - 1);
	assert_string_equal(
		head, "GET /h2c HTTP/1.1\r\nHost: a\r\nupgrade: websocket, x2C\r\nX: h2c\r\n\r\n");
}

static void test_framing(void **state)
{
	static const struct {
		const char *fields, *data;
		long want;
	} cases[] = {{"Content-Length: 3\r\n", "abcGET", 3}, {"", "GET", 0},
		{"Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\nGET", 13},
		{"Transfer-Encoding: chunked\r\n", "0\r\nX: y\r\n\r\nGET", 11},
		{"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "", -1},
		{"Content-Length: 3\r\nContent-Length: 3\r\n", "", -1}, {"Content-Length: -1\r\n", "", -1},
		{"Transfer-Encoding: gzip\r\n", "", -1}};
	bool done = false;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		PF_FREE char *head = pf_asprintf("POST / HTTP/1.1\r\nHost: a\r\n%s\r\n", cases[i].fields);
		assert_int_equal(pf_http_head_len(head, strlen(head)), strlen(head));
		assert_int_equal(pf_http_head_len(head, strlen(head) - 1), 0);
		assert_int_equal(message(head, cases[i].data, &done), cases[i].want);
		assert_true(cases[i].want < 0 || done);
	}
	assert_int_equal(message("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "", &done), -1);
	assert_int_equal(message("GET / HTTP/1.2\r\n\r\n", "", &done), -1);
}

/* Answers end where HTTP says: no body for HEAD, 204 and 304; with the connection when nothing else says. */
static void test_answers(void **state)
{
	static const struct {
		const char *head;
		bool no_body, done, until_close;
	} cases[] = {{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, false, false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, true, false},
		{"HTTP/1.1 204 No Content\r\n\r\n", false, true, false},
		{"HTTP/1.1 304 X\r\n\r\n", false, true, false},
		{"HTTP/1.1 100 Continue\r\n\r\n", false, true, false},
		{"HTTP/1.1 200 OK\r\n\r\n", false, false, true},
		{"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", false, true, false}};
	struct pf_http h;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(
			pf_http_response(&h, cases[i].head, strlen(cases[i].head), cases[i].no_body), 0);
		assert_int_equal(h.done, cases[i].done);
		assert_int_equal(h.until_close, cases[i].until_close);
	}
	assert_int_equal(pf_http_response(&h, "SSH-2.0-x\r\n\r\n", 13, false), -1);
}

static void test_refusal(void **state)
{
	char out[PF_REFUSAL_MAX];
	const struct pf_refusal r = {.status = 429,
		.host = "a.example",
		.port = 443,
		.reason = "rate",
		.text = "Too many.",
		.retry_s = 7};
	const char *head = "GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n";

	(void)state;
	size_t n = pf_refusal_write(&r, head, strlen(head), out);
	assert_int_equal(n, strlen(out));
	assert_non_null(strstr(out, "Retry-After: 7\r\n"));
	PF_JSON cJSON *j = cJSON_Parse(strstr(out, "\r\n\r\n") + 4);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(j, "host")), "a.example");
	n = pf_refusal_write(&r, "", 0, out);
	assert_int_equal(n, strlen(out));
	assert_non_null(strstr(out, "\r\n\r\nToo many.\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_paths),
		cmocka_unit_test(test_scope_documents), cmocka_unit_test(test_suffixes),
		cmocka_unit_test(test_idna), cmocka_unit_test(test_bound), cmocka_unit_test(test_hide_h2c),
		cmocka_unit_test(test_framing), cmocka_unit_test(test_content),
		cmocka_unit_test(test_answers), cmocka_unit_test(test_refusal)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
