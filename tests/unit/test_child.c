/* What the parent hears of a child that is on its way to exec. parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants those first */
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/proc.h"
#include "sandbox/child.h"

/* A child whose end is the socket that it is given. */
static int begin(pid_t *pid, void (*child)(int sync))
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	/* What it will not read is there before it is. */
	assert_int_equal(send(pair[0], "F", 1, MSG_NOSIGNAL), 1);
	*pid = fork();
	if (*pid == 0) {
		close(pair[0]);
		child(pair[1]);
		_exit(0);
	}
	assert_true(*pid > 0);
	close(pair[1]);
	return pair[0];
}

static void end(pid_t pid, int sync)
{
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(sync);
}

static void fails(int sync)
{
	struct pf_err err = PF_ERR_INIT;

	pf_fail_kind(&err, PF_ERR_INVALID, ENOTDIR, "its own words");
	pf_child_fail(sync, &err);
}

static void dies(int sync)
{
	(void)sync;
}

static void execs(int sync)
{
	struct pf_err err = PF_ERR_INIT;

	(void)pf_child_note(sync, PF_NOTE_EXEC, -1, &err);
}

/* A child that fails with something unread has the kernel report a reset before its error. */
static void an_error_is_heard_whatever_was_not_read(void **state)
{
	struct pf_child_patience patience = {.deadline_us = INT64_MAX, .cancel_fd = -1};
	struct pf_err err = PF_ERR_INIT;
	pid_t pid;

	(void)state;
	for (int i = 0; i < 2; i++) {
		int sync = begin(&pid, fails);
		assert_int_equal(pf_child_follow(sync, NULL, NULL, i ? &patience : NULL, &err), -1);
		assert_string_equal(err.msg, "its own words: Not a directory");
		assert_int_equal(err.errnum, ENOTDIR);
		assert_int_equal(err.kind, PF_ERR_INVALID);
		end(pid, sync);
	}
}

/* The end of one that had said that it was about to exec is its exec; of another, its death. */
static void an_end_is_told_from_an_exec(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	pid_t pid;

	(void)state;
	int sync = begin(&pid, dies);
	assert_int_equal(pf_child_follow(sync, NULL, NULL, NULL, &err), -1);
	assert_int_equal(err.errnum, PF_CHILD_DIED);
	end(pid, sync);
	err = PF_ERR_INIT;
	sync = begin(&pid, execs);
	assert_int_equal(pf_child_follow(sync, NULL, NULL, NULL, &err), 0);
	end(pid, sync);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_error_is_heard_whatever_was_not_read),
		cmocka_unit_test(an_end_is_told_from_an_exec),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
