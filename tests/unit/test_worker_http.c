/* What ends requests and sleeps before their time. parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/str.h"
#include "worker/http.h"

/* Over when asked for the third time. */
static bool third(void *arg)
{
	return ++*(int *)arg >= 3;
}

static void what_nobody_answers_ends_when_it_is_over(void **state)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), asked = 0;
	struct pf_err err = PF_ERR_INIT;
	struct pf_http_resp resp;
	struct pf_http_req req = {.method = "GET", .path = "/", .bearer = "x", .timeout_ms = 1000000};

	(void)state;
	/* It listens, and accepts nobody. */
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	PF_FREE char *url = pf_asprintf("http://127.0.0.1:%u", ntohs(a.sin_port));
	assert_int_equal(pf_http_init(&err), 0);
	struct pf_http *h = pf_http_new(url, "test", &err);
	assert_non_null(h);
	pf_http_ends_with(h, (struct pf_http_over){.is = third, .arg = &asked});
	(void)alarm(60);
	assert_int_equal(pf_http_retry(h, &req, &resp, &err), -1);
	assert_int_equal(err.errnum, ECANCELED);
	pf_http_resp_done(&resp);
	asked = 0;
	assert_false(pf_http_sleep(h, 1000000));
	/* Not over, it is as it was. */
	pf_http_ends_with(h, (struct pf_http_over){0});
	assert_true(pf_http_sleep(h, 1));
	(void)alarm(0);
	pf_http_free(h);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(what_nobody_answers_ends_when_it_is_over)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
