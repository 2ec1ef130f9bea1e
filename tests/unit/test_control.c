/* The keeper's lines to others: what comes that was not asked for is not kept, and nobody who does not read
 * keeps it waiting (parallel-safe). */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "session/control.h"
#include "session/gateproc.h"
#include "tests/unit/open_fds.h"

static void send_fds(int sock, size_t n)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {0};
	const int fds[3] = {sock, sock, sock};
	char text[] = "{\"op\":\"x\"}";
	struct iovec iov = {text, strlen(text)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n) {
		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &m, 0), strlen(text));
}

/* However many descriptors come with a message, one is the receiver's, if he wants one, and none is left. */
static void no_descriptor_is_left(void **state)
{
	int s[2];
	(void)state;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
	size_t before = open_fds();
	for (size_t n = 0; n <= 3; n++)
		for (int wants = 0; wants < 2; wants++) {
			struct pf_err err = PF_ERR_INIT;
			int fd = -1;
			send_fds(s[0], n);
			cJSON *j = pf_control_recv(s[1], wants ? &fd : NULL, &err);
			assert_int_equal(fd >= 0, j && wants && n > 0);
			/* Of three the kernel says that there were too many. */
			assert_int_equal(j != NULL, n < 3);
			cJSON_Delete(j);
			if (fd >= 0)
				close(fd);
			assert_int_equal(open_fds(), before);
		}
	close(s[0]);
	close(s[1]);
}

static void on_wake(void *gate)
{
	struct pf_err ignored = PF_ERR_INIT;

	(void)pf_gateproc_tls(gate, -1, "there is none", &ignored);
}

/* A gate that was taken over asks and asks, and reads no answer: it is ended, and the keeper does not wait
 * for it. */
static void a_gate_that_does_not_read_is_ended(void **state)
{
	struct pf_gateproc g = PF_GATEPROC_NONE;
	struct pf_err err = PF_ERR_INIT;
	int pair[2], status;
	(void)state;

	assert_int_equal(pf_gateproc_line(pair, &err), 0);
	g.pid = fork();
	assert_true(g.pid >= 0);
	if (g.pid == 0) {
		static const char wish[] = "{\"op\":\"wake-tls\"}";
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		while (send(pair[1], wish, sizeof(wish) - 1, MSG_NOSIGNAL) > 0)
			;
		_exit(0);
	}
	close(pair[1]);
	g.sock = pair[0];
	g.wake_tls = on_wake;
	g.arg = &g;
	/* Not to hang is what is tested. */
	alarm(60);
	while (pf_gateproc_hear(&g))
		;
	assert_int_equal(waitpid(g.pid, &status, 0), g.pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	alarm(0);
	close(pair[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(no_descriptor_is_left),
		cmocka_unit_test(a_gate_that_does_not_read_is_ended)};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
