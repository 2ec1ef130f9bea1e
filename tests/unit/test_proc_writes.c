/* What is written below /proc on a container's behalf, kernel parameters and security labels, goes to procfs
 * or nowhere (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).
 *
 * parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"
#include "sandbox/lsm.h"
#include "sandbox/mounts.h"
#include "sandbox/sysctl.h"

#define PARAMETER "net/ipv4/ip_forward"

static char dir[] = "/tmp/pf-proc.XXXXXX";
static const struct pf_lsm label = {.file = "attr/exec", .label = "x"};

/* The files of whoever lays traps, in a mount namespace and a network of our own: a "victim" that is to stay
 * as it is, and the procfs at "proc" over pieces of which it is laid. */
static int setup(void **state)
{
	(void)state;
	if (geteuid() != 0 || unshare(CLONE_NEWNS | CLONE_NEWNET) < 0 ||
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		print_message("skipped: needs root, with namespaces\n");
		return 0;
	}
	if (!mkdtemp(dir) || mount("tmpfs", dir, "tmpfs", 0, NULL) < 0 || chdir(dir) < 0 ||
		mkdir("proc", 0755) < 0 || mount("proc", "proc", "proc", 0, NULL) < 0)
		return -1;
	int fd = open("victim", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, "untouched", 9) != 9)
		return -1;
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (chdir("/") < 0)
		return -1;
	(void)umount2(dir, MNT_DETACH);
	(void)rmdir(dir);
	return 0;
}

static void need_setup(void)
{
	if (access("victim", F_OK) < 0)
		skip();
}

static void check_victim(void)
{
	PF_FREE char *text = NULL;
	struct pf_err err = PF_ERR_INIT;

	assert_int_equal(pf_read_file_at(AT_FDCWD, "victim", 100, &text, NULL, &err), 0);
	assert_string_equal(text, "untouched");
}

static int apply(int procfd, struct pf_err *err)
{
	char file[] = PARAMETER, value[] = "1";
	const struct pf_sysctl s = {.file = file, .value = value};

	*err = PF_ERR_INIT;
	return pf_sysctl_apply(procfd, &s, 1, err);
}

static void check_refused(int procfd, const char *why)
{
	struct pf_err err;

	assert_int_equal(apply(procfd, &err), -1);
	if (!strstr(err.msg, why))
		fail_msg("refused for another reason than '%s': %s", why, err.msg);
	check_victim();
}

/* Promise: through a procfs that was made for it both get where they belong; so a refusal below is one. */
static void test_real(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	struct statfs fs;
	char c = 0;

	(void)state;
	need_setup();
	PF_CLOSE int proc = pf_mount_new("proc", "proc", NULL, MOUNT_ATTR_NOSUID, &err);
	assert_true(proc >= 0);
	assert_int_equal(apply(proc, &err), 0);
	PF_CLOSE int real = openat(proc, "sys/" PARAMETER, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(real, &c, 1), 1);
	assert_int_equal(c, '1');
	PF_CLOSE int fd = pf_lsm_open(proc, &label, &err);
	assert_true(fd >= 0);
	assert_int_equal(fstatfs(fd, &fs), 0);
	assert_int_equal(fs.f_type, PROC_SUPER_MAGIC);
}

/* Promise: over a parameter's file, or over a directory above it, something else may be mounted: it is not
 * written to. */
static void test_mounted_over(void **state)
{
	static const char *const places[] = {"proc/sys/" PARAMETER, "proc/sys/net/ipv4"};

	(void)state;
	need_setup();
	PF_CLOSE int proc = open("proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdir("ipv4", 0755), 0);
	assert_int_equal(link("victim", "ipv4/ip_forward"), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(mount(i ? "ipv4" : "victim", places[i], NULL, MS_BIND, NULL), 0);
		check_refused(proc, strerror(EXDEV));
		assert_int_equal(umount2(places[i], MNT_DETACH), 0);
	}
}

/* Promise: nor is it where a directory that passes for procfs leads by a link. */
static void test_links(void **state)
{
	(void)state;
	need_setup();
	assert_int_equal(mkdir("fake", 0755), 0);
	assert_int_equal(mkdir("fake/sys", 0755), 0);
	assert_int_equal(mkdir("fake/sys/net", 0755), 0);
	assert_int_equal(mkdir("fake/sys/net/ipv4", 0755), 0);
	assert_int_equal(symlink("../../../../victim", "fake/sys/net/ipv4/ip_forward"), 0);
	PF_CLOSE int fake = open("fake", O_PATH | O_DIRECTORY | O_CLOEXEC);
	check_refused(fake, strerror(ELOOP));
	assert_int_equal(rename("fake/sys/net/ipv4", "real"), 0);
	assert_int_equal(symlink("../../../real", "fake/sys/net/ipv4"), 0);
	check_refused(fake, strerror(ELOOP));
}

/* Promise: a label is written to this thread's own attributes or not at all: not to what is mounted over
 * them, nor to what a directory that passes for procfs has in their place. */
static void test_labels(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	char path[64];

	(void)state;
	need_setup();
	snprintf(path, sizeof(path), "proc/%d/task/%d/attr/exec", (int)getpid(), (int)gettid());
	PF_CLOSE int proc = open("proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mount("victim", path, NULL, MS_BIND, NULL), 0);
	assert_int_equal(pf_lsm_open(proc, &label, &err), -1);
	assert_non_null(strstr(err.msg, strerror(EXDEV)));
	assert_int_equal(umount2(path, MNT_DETACH), 0);
	assert_int_equal(mkdir("other", 0755), 0);
	assert_int_equal(mkdir("other/attr", 0755), 0);
	assert_int_equal(link("victim", "other/attr/exec"), 0);
	assert_int_equal(mkdir("passes", 0755), 0);
	assert_int_equal(mkdir("passes/thread-self", 0755), 0);
	assert_int_equal(symlink("../../other/attr", "passes/thread-self/attr"), 0);
	PF_CLOSE int passes = open("passes", O_PATH | O_DIRECTORY | O_CLOEXEC);
	err = PF_ERR_INIT;
	assert_int_equal(pf_lsm_open(passes, &label, &err), -1);
	assert_non_null(strstr(err.msg, strerror(EXDEV)));
	check_victim();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_real),
		cmocka_unit_test(test_mounted_over),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_labels),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
