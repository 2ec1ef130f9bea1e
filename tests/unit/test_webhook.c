/* parallel-safe
 * Webhooks: only what one of the keys has signed, lately, is believed, and once; whatever else is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "worker/metrics.h"
#include "worker/webhook.h"

/* The example of the Standard Webhooks specification's libraries. */
#define KEY "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define ID "msg_p5jXN8AQM9LWM0D4loKWxJek"
#define TIME "1614265330"
#define NOW 1614265330
#define BODY "{\"test\": 2432232314}"
#define SIGNATURE "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
#define OTHER "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"

static enum pf_hook_verdict verify(const char *keys, const char *id, const char *at, const char *signatures,
	const char *body, int64_t now)
{
	struct pf_hook_keys k;
	struct pf_err err = PF_ERR_INIT;

	assert_int_equal(pf_hook_keys_parse(keys, &k, &err), 0);
	enum pf_hook_verdict v = pf_hook_verify(&k, id, at, signatures, body, strlen(body), now);
	pf_hook_keys_done(&k);
	return v;
}

static void test_genuine(void **state)
{
	(void)state;
	assert_int_equal(verify(KEY, ID, TIME, SIGNATURE, BODY, NOW), PF_HOOK_GENUINE);
	/* Without the prefix the key is the same. */
	assert_int_equal(verify(&KEY[6], ID, TIME, SIGNATURE, BODY, NOW), PF_HOOK_GENUINE);
}

static void test_rotation(void **state)
{
	(void)state;
	assert_int_equal(verify(OTHER, ID, TIME, SIGNATURE, BODY, NOW), PF_HOOK_FORGED);
	assert_int_equal(verify("# old\n" OTHER "\n# new\n" KEY "\n", ID, TIME, SIGNATURE, BODY, NOW),
		PF_HOOK_GENUINE);
	assert_int_equal(verify(OTHER " " KEY, ID, TIME, SIGNATURE, BODY, NOW), PF_HOOK_GENUINE);
	/* And several signatures, ours among them. */
	assert_int_equal(verify(KEY, ID, TIME,
				 "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= v1a,xyz " SIGNATURE " v9,",
				 BODY, NOW),
		PF_HOOK_GENUINE);
}

static void test_forged(void **state)
{
	static const char *const wrong[] = {"", " ", "v1,", "v1",
		"v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		"g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1O",
		"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OEA",
		"v1,G0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
		"v1,g0hM9SsE-OTPJTGt_tmIKtSyZlE3uFJELVlNIOLJ1OE="};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(verify(KEY, ID, TIME, wrong[i], BODY, NOW), PF_HOOK_FORGED);
	/* All that is signed counts: body, id, time. */
	assert_int_equal(verify(KEY, ID, TIME, SIGNATURE, "{\"test\": 2432232315}", NOW), PF_HOOK_FORGED);
	assert_int_equal(verify(KEY, "msg_other", TIME, SIGNATURE, BODY, NOW), PF_HOOK_FORGED);
	assert_int_equal(verify(KEY, ID, "1614265331", SIGNATURE, BODY, NOW), PF_HOOK_FORGED);
}

static void test_malformed(void **state)
{
	(void)state;
	assert_int_equal(verify(KEY, NULL, TIME, SIGNATURE, BODY, NOW), PF_HOOK_MALFORMED);
	assert_int_equal(verify(KEY, "", TIME, SIGNATURE, BODY, NOW), PF_HOOK_MALFORMED);
	assert_int_equal(verify(KEY, ID, NULL, SIGNATURE, BODY, NOW), PF_HOOK_MALFORMED);
	assert_int_equal(verify(KEY, ID, TIME, NULL, BODY, NOW), PF_HOOK_MALFORMED);
	assert_int_equal(verify(KEY, ID, "-1", SIGNATURE, BODY, NOW), PF_HOOK_MALFORMED);
	assert_int_equal(verify(KEY, ID, "1614265330.5", SIGNATURE, BODY, NOW), PF_HOOK_MALFORMED);
	assert_int_equal(verify(KEY, ID, "99999999999999999999", SIGNATURE, BODY, NOW), PF_HOOK_MALFORMED);
}

static void test_time(void **state)
{
	(void)state;
	assert_int_equal(verify(KEY, ID, TIME, SIGNATURE, BODY, NOW + PF_HOOK_TOLERANCE_S), PF_HOOK_GENUINE);
	assert_int_equal(
		verify(KEY, ID, TIME, SIGNATURE, BODY, NOW + PF_HOOK_TOLERANCE_S + 1), PF_HOOK_STALE);
	assert_int_equal(verify(KEY, ID, TIME, SIGNATURE, BODY, NOW - PF_HOOK_TOLERANCE_S), PF_HOOK_GENUINE);
	assert_int_equal(
		verify(KEY, ID, TIME, SIGNATURE, BODY, NOW - PF_HOOK_TOLERANCE_S - 1), PF_HOOK_STALE);
}

static void test_keys_refused(void **state)
{
	static const char *const wrong[] = {
		"", " \n", "# only a comment\n", "whsec_", "whsec_c2hvcnQ=", "not base64!", KEY " *"};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct pf_hook_keys k;
		struct pf_err err = PF_ERR_INIT;
		assert_int_equal(pf_hook_keys_parse(wrong[i], &k, &err), -1);
		assert_null(strstr(err.msg, "MfKQ"));
		assert_null(k.v);
	}
}

static void test_seen(void **state)
{
	struct pf_hook_seen *seen = pf_calloc(1, sizeof(*seen));

	(void)state;
	assert_false(pf_hook_seen(seen, "a", NOW));
	assert_true(pf_hook_seen(seen, "a", NOW + 1));
	assert_false(pf_hook_seen(seen, "b", NOW));
	/* It is forgotten when its time would be refused. */
	assert_true(pf_hook_seen(seen, "a", NOW + 2 * PF_HOOK_TOLERANCE_S));
	assert_false(pf_hook_seen(seen, "a", NOW + 2 * PF_HOOK_TOLERANCE_S + 1));
	/* More than there is room for push out the oldest, and nothing else. */
	for (int i = 0; i < PF_HOOK_SEEN_MAX - 1; i++) {
		PF_FREE char *id = pf_asprintf("m%d", i);
		assert_false(pf_hook_seen(seen, id, NOW));
	}
	assert_true(pf_hook_seen(seen, "m0", NOW));
	free(seen);
}

static void test_metrics(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	PF_BUF struct pf_buf b = {0};

	(void)state;
	int fd = pf_metrics_make(&err);
	assert_true(fd >= 0);
	pf_metric_add(PF_M_POSTED, 3);
	pf_metric_time(PF_H_CALL, 1500);
	pf_metric_time(PF_H_CALL, (int64_t)500 * 1000000);
	pf_metrics_print(&b);
	assert_non_null(strstr(b.data, "pinfold_worker_results_total{outcome=\"posted\"} 3\n"));
	assert_non_null(strstr(b.data, "tool_call_seconds_bucket{le=\"0.001\"} 0\n"));
	assert_non_null(strstr(b.data, "tool_call_seconds_bucket{le=\"0.0025\"} 1\n"));
	assert_non_null(strstr(b.data, "tool_call_seconds_bucket{le=\"120\"} 1\n"));
	assert_non_null(strstr(b.data, "tool_call_seconds_bucket{le=\"+Inf\"} 2\n"));
	assert_non_null(strstr(b.data, "tool_call_seconds_sum 500.001500\n"));
	/* Another that maps the same counts on. */
	pf_metrics_join(fd);
	pf_metric_add(PF_M_POSTED, 1);
	b.len = 0;
	pf_metrics_print(&b);
	assert_non_null(strstr(b.data, "pinfold_worker_results_total{outcome=\"posted\"} 4\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_genuine),
		cmocka_unit_test(test_rotation),
		cmocka_unit_test(test_forged),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_keys_refused),
		cmocka_unit_test(test_seen),
		cmocka_unit_test(test_metrics),
	};

	return cmocka_run_group_tests_name("webhook", tests, NULL, NULL);
}
