/* A jail's scratch layer: the list of what was written to it, and processes that stand still for a copy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants those first */
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "base/sys.h"
#include "jail/changes.h"
#include "jail/keep.h"

static int directory(const char *path)
{
	assert_int_equal(mkdir(path, 0700), 0);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* What a command wrote, however much, is bounded in memory and on the way to who asks, and applied whole. */
static void a_list_has_a_bound_and_a_commit_none(void **state)
{
	char dir[] = "/tmp/pf-unit-jail-XXXXXX", name[64];
	struct pf_err err = PF_ERR_INIT;
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	PF_FREE char *lower_path = pf_asprintf("%s/lower", dir), *upper_path = pf_asprintf("%s/upper", dir);
	PF_CLOSE int lower = directory(lower_path), upper = directory(upper_path);
	for (int i = 0; i < 100; i++) {
		/* A name that is six times as long in JSON. */
		snprintf(name, sizeof(name), "%02d\001\001\001\001\001\001\001\001", i);
		PF_CLOSE int fd = openat(upper, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
	}
	struct pf_changes c = {.list = cJSON_CreateArray(), .max = 5000};
	assert_int_equal(pf_changes_list(lower, upper, "/d", &c, &err), 0);
	assert_true(c.truncated);
	int n = cJSON_GetArraySize(c.list);
	assert_in_range(n, 10, 99);
	PF_FREE char *text = cJSON_PrintUnformatted(c.list);
	assert_in_range(strlen(text), 4000, 5000);
	/* Another directory's come no more. */
	assert_int_equal(pf_changes_list(lower, upper, "/e", &c, &err), 0);
	assert_int_equal(cJSON_GetArraySize(c.list), n);
	cJSON_Delete(c.list);
	assert_int_equal(pf_changes_apply(lower, upper, &err), 0);
	assert_int_equal(fstatat(lower, name, &st, 0), 0);

	struct pf_changes all = {.list = cJSON_CreateArray(), .max = 100000};
	PF_CLOSE int none = open("/proc/self/fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(pf_changes_list(none, upper, "/d", &all, &err), 0);
	assert_false(all.truncated);
	assert_int_equal(cJSON_GetArraySize(all.list), 100);
	cJSON_Delete(all.list);
	assert_int_equal(pf_rm_rf_at(AT_FDCWD, dir, &err), 0);
}

/* As a compiler's driver: it waits in the kernel, taking no signal, until its child has another program. */
static _Noreturn void vforks(int told)
{
	for (;;) {
		pid_t pid =
			(pid_t)syscall(SYS_clone, (unsigned long)(CLONE_VFORK | SIGCHLD), 0UL, 0UL, 0UL, 0UL);
		if (pid == 0) {
			(void)!write(told, "x", 1);
			usleep(300000);
			_exit(0);
		}
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		usleep(50000);
	}
}

static char state_of(pid_t pid)
{
	PF_FREE char *path = pf_asprintf("/proc/%d/stat", (int)pid), *text = NULL;
	struct pf_err err = PF_ERR_INIT;

	assert_int_equal(pf_read_pseudo_at(AT_FDCWD, path, 4096, &text, &err), 0);
	return strrchr(text, ')')[2];
}

static void who_waits_in_vfork_is_stopped_too(void **state)
{
	struct clone_args args = {.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
	struct pf_err err = PF_ERR_INIT;
	int p[2];
	char c;

	(void)state;
	if (geteuid() != 0) {
		print_message("needs root: a pid namespace\n");
		skip();
	}
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid_t pid = pf_clone3(&args);
	if (pid == 0)
		vforks(p[1]);
	assert_true(pid > 0);
	assert_int_equal(read(p[0], &c, 1), 1);
	int r = pf_jail_stop(&pid, true, &err);
	char found = r == 0 ? state_of(pid) : '-';
	if (r == 0)
		assert_int_equal(pf_jail_stop(&pid, false, &err), 0);
	(void)kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(p[0]);
	close(p[1]);
	if (r < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(found, 'T');
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_list_has_a_bound_and_a_commit_none),
		cmocka_unit_test(who_waits_in_vfork_is_stopped_too)};

	return cmocka_run_group_tests_name("jail", tests, NULL, NULL);
}
