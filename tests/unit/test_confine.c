/* parallel-safe. What a keeper may open once it is confined. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "session/confine.h"

static char dir[] = "/tmp/pf-confine-XXXXXX";

static int in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 200;
}

#define CHECK(what)                            \
	do {                                   \
		if (!(what))                   \
			return __LINE__ % 200; \
	} while (0)

static int files(void)
{
	struct pf_err err = PF_ERR_INIT;
	const char *rw[] = {dir, NULL}, *ro[] = {"/etc", "/nowhere/at/all", NULL}, *list[] = {"/var", NULL};

	CHECK(chdir(dir) == 0 && pf_confine_files(rw, ro, list, NULL, &err) == 0);
	CHECK(open("mine", O_RDWR | O_CREAT | O_CLOEXEC, 0600) >= 0 && rename("mine", "ours") == 0);
	CHECK(open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0);
	CHECK(open("/etc/passwd", O_WRONLY | O_CLOEXEC) < 0 && errno == EACCES);
	CHECK(open("/root", O_RDONLY | O_DIRECTORY | O_CLOEXEC) < 0 && errno == EACCES);
	CHECK(open("/proc/1/environ", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
	CHECK(open("/var", O_RDONLY | O_DIRECTORY | O_CLOEXEC) >= 0);
	CHECK(open("/var/lib/dpkg/status", O_RDONLY | O_CLOEXEC) < 0);
	CHECK(symlink("/etc/shadow", "link") < 0 && errno == EACCES);
	execl("/bin/true", "true", NULL);
	CHECK(errno == EACCES);
	return 0;
}

static int nothing(void)
{
	static const char *const more[] = {"openat", "socket", NULL};
	struct pf_err err = PF_ERR_INIT;

	CHECK(pf_confine_files(NULL, NULL, NULL, NULL, &err) == 0 && pf_confine_filter(more, &err) == 0);
	CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) < 0);
	CHECK(socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EPERM);
	CHECK(fork() < 0 || errno == EPERM);
	execl("/bin/true", "true", NULL);
	return errno == EPERM || errno == EACCES ? 0 : 199;
}

static int set_up(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	char path[64];

	(void)state;
	snprintf(path, sizeof(path), "%s/ours", dir);
	(void)unlink(path);
	return rmdir(dir);
}

/* Below its own directories anything but to execute, elsewhere what it was given, and nothing more. */
static void test_files(void **state)
{
	(void)state;
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1) {
		print_message("skip: the kernel has no Landlock\n");
		skip();
	}
	assert_int_equal(in_child(files), 0);
}

static void test_nothing(void **state)
{
	(void)state;
	assert_int_equal(in_child(nothing), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_files), cmocka_unit_test(test_nothing)};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
