/* parallel-safe. What the gateway reads of a connection from inside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/httpd.h"

#define BODY ((size_t)12 << 20)
#define CLIENTS 8

struct client {
	int fd[2];
	pthread_t reader;
	struct pf_httpd_req request;
	int result;
};

static void *read_one(void *arg)
{
	struct client *c = arg;

	c->result = pf_httpd_read(c->fd[0], &c->request);
	if (c->result < 0)
		(void)shutdown(c->fd[0], SHUT_RDWR);
	return NULL;
}

/* As one that is to be held open: all of its body but the last byte. */
static void send_most(struct client *c)
{
	static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12582912\r\n\r\n";
	char *body = calloc(1, BODY);

	assert_non_null(body);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c->fd), 0);
	assert_int_equal(pthread_create(&c->reader, NULL, read_one, c), 0);
	if (pf_httpd_send(c->fd[1], head, sizeof(head) - 1))
		(void)pf_httpd_send(c->fd[1], body, BODY - 1);
	free(body);
}

/* Connections that each send a body which is allowed do not together fill the host's memory; what they held
 * is there again when they are gone. */
static void test_bodies_are_bounded_together(void **state)
{
	struct client c[CLIENTS] = {0}, again = {0};
	char answer[64] = "";
	int taken = 0;

	(void)state;
	for (int i = 0; i < CLIENTS; i++)
		send_most(&c[i]);
	for (int i = 0; i < CLIENTS; i++) {
		(void)send(c[i].fd[1], "", 1, MSG_NOSIGNAL);
		assert_int_equal(pthread_join(c[i].reader, NULL), 0);
		taken += c[i].result == 0;
		if (c[i].result < 0 && recv(c[i].fd[1], answer, sizeof(answer) - 1, 0) > 0)
			assert_memory_equal(answer, "HTTP/1.1 503", 12);
	}
	assert_in_range(taken, 4, 5);
	for (int i = 0; i < CLIENTS; i++) {
		if (c[i].result == 0)
			pf_httpd_done(&c[i].request);
		close(c[i].fd[0]);
		close(c[i].fd[1]);
	}
	send_most(&again);
	assert_int_equal(send(again.fd[1], "", 1, MSG_NOSIGNAL), 1);
	assert_int_equal(pthread_join(again.reader, NULL), 0);
	assert_int_equal(again.result, 0);
	assert_int_equal(again.request.body.len, BODY);
	pf_httpd_done(&again.request);
	close(again.fd[0]);
	close(again.fd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_bodies_are_bounded_together)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
