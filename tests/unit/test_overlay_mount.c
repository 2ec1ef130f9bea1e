/* Promises: a box's root is stacked without the host's mount table noticing; with a user namespace ids on
 * disk are 0-based whatever the box's own range is; older kernels get the same mount by another way; what
 * cannot be idmapped is refused with the remedy. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "overlay/mount.h"

static char dir_path[64];
static int dir_fd = -1;

static int setup(void **state)
{
	(void)state;
	snprintf(dir_path, sizeof(dir_path), "/tmp/pf-test-mount-%d", (int)getpid());
	if (mkdir(dir_path, 0755) < 0)
		return -1;
	dir_fd = open(dir_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	close(dir_fd);
	return pf_rm_rf_at(AT_FDCWD, dir_path, &err);
}

static void put_file(const char *path, const char *text)
{
	PF_CLOSE int fd = pf_open_in_root(dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(pf_write_all(fd, text, strlen(text)), 0);
}

static int make_dir(const char *path)
{
	int fd = pf_mkdirs_in_root(dir_fd, path, 0755);

	assert_true(fd >= 0);
	return fd;
}

static void expect_file(int root, const char *path, const char *want)
{
	PF_CLOSE int fd = openat(root, path, O_RDONLY | O_CLOEXEC);
	char buf[64] = "";

	assert_true(fd >= 0);
	ssize_t n = read(fd, buf, sizeof(buf) - 1);
	assert_true(n >= 0);
	assert_string_equal(buf, want);
}

/* A user namespace whose 0..65535 are first..first+65535 here, held by a child that waits on a pipe. */
static int make_userns(unsigned first, pid_t *child)
{
	struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
	char path[64], map[64];

	*child = pf_clone3(&args);
	if (*child == 0) {
		pause();
		_exit(0);
	}
	if (*child < 0)
		return -1;
	snprintf(map, sizeof(map), "0 %u 65536", first);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)*child);
	if (pf_write_pseudo_at(AT_FDCWD, path, map) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/gid_map", (int)*child);
	if (pf_write_pseudo_at(AT_FDCWD, path, map) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)*child);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static void end_child(pid_t child)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static size_t mountinfo_lines(void)
{
	PF_FREE char *text = NULL;
	struct pf_err err = PF_ERR_INIT;
	size_t n = 0;

	assert_int_equal(pf_read_pseudo_at(AT_FDCWD, "/proc/self/mountinfo", 1 << 20, &text, &err), 0);
	for (const char *s = text; *s; s++)
		n += *s == '\n';
	return n;
}

static void need_root(void)
{
	if (geteuid() != 0) {
		print_message("skipped: needs root\n");
		skip();
	}
}

static void stack_and_write(enum pf_overlay_via via)
{
	struct pf_err err = PF_ERR_INIT;

	need_root();
	PF_CLOSE int low1 = make_dir("low1"), low2 = make_dir("low2"), rw = make_dir("rw");
	PF_CLOSE int up = make_dir("rw/upper"), work = make_dir("rw/work");
	put_file("low1/both", "top");
	put_file("low2/both", "bottom");
	put_file("low2/only", "bottom");
	put_file("low2/gone", "x");
	size_t before = mountinfo_lines();
	int lowers[] = {low1, low2};
	PF_CLOSE int m = pf_overlay_mount_via(via, lowers, 2, rw, -1, false, &err);
	if (m < 0)
		print_message("%s\n", err.msg);
	assert_true(m >= 0);
	expect_file(m, "both", "top");
	expect_file(m, "only", "bottom");
	assert_int_equal(unlinkat(m, "gone", 0), 0);
	PF_CLOSE int fd = openat(m, "new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	struct stat st;
	assert_int_equal(fstatat(up, "new", &st, 0), 0);
	assert_int_equal(fstatat(up, "gone", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0));
	assert_int_equal(mountinfo_lines(), before);
}

static void test_stack_by_fds(void **state)
{
	(void)state;
	stack_and_write(PF_OVERLAY_VIA_FDS);
}

static void test_stack_by_paths(void **state)
{
	(void)state;
	stack_and_write(PF_OVERLAY_VIA_PATHS);
}

/* In the box: root there makes a file and a directory, changes a lower file, and gives one to uid 1000. */
static int act_in_userns(int userns, int m)
{
	if (setns(userns, CLONE_NEWUSER) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return 10;
	int fd = openat(m, "made", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return 11;
	if (mkdirat(m, "made.d", 0700) < 0)
		return 12;
	if (fchownat(m, "low", 1000, 1000, 0) < 0)
		return 13;
	struct stat st;
	if (fstatat(m, "other", &st, 0) < 0 || st.st_uid != 33)
		return 14;
	return fstat(fd, &st) < 0 || st.st_uid != 0 ? 15 : 0;
}

static void ids_are_mapped(enum pf_overlay_via via)
{
	struct pf_err err = PF_ERR_INIT;
	struct stat st;
	pid_t child, actor;
	int status;

	need_root();
	PF_CLOSE int low = make_dir("low"), rw = make_dir("rw"), up = make_dir("rw/upper"),
		     work = make_dir("rw/work");
	put_file("low/low", "x");
	put_file("low/other", "x");
	assert_int_equal(fchownat(low, "other", 33, 33, 0), 0);
	PF_CLOSE int userns = make_userns(300000, &child);
	assert_true(userns >= 0);
	int lowers[] = {low};
	PF_CLOSE int m = pf_overlay_mount_via(via, lowers, 1, rw, userns, false, &err);
	end_child(child);
	if (m < 0)
		print_message("%s\n", err.msg);
	assert_true(m >= 0);
	actor = fork();
	if (actor == 0)
		_exit(act_in_userns(userns, m));
	assert_int_equal(waitpid(actor, &status, 0), actor);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(fstatat(up, "made", &st, 0), 0);
	assert_int_equal(st.st_uid, 0);
	assert_int_equal(fstatat(up, "made.d", &st, 0), 0);
	assert_int_equal(st.st_uid, 0);
	assert_int_equal(fstatat(up, "low", &st, 0), 0);
	assert_int_equal(st.st_uid, 1000);
	/* The lower itself is as it was. */
	assert_int_equal(fstatat(low, "low", &st, 0), 0);
	assert_int_equal(st.st_uid, 0);
}

static void test_ids_by_fds(void **state)
{
	(void)state;
	ids_are_mapped(PF_OVERLAY_VIA_FDS);
}

static void test_ids_by_paths(void **state)
{
	(void)state;
	ids_are_mapped(PF_OVERLAY_VIA_PATHS);
}

/* Crafted overlay xattrs in a lower must not lead elsewhere: redirects are not followed. */
static void test_redirect_not_followed(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	need_root();
	PF_CLOSE int a = make_dir("ra"), b = make_dir("rb"), d = make_dir("ra/dir"),
		     s = make_dir("rb/secret");
	put_file("rb/secret/file", "x");
	PF_FREE char *path = pf_asprintf("%s/ra/dir", dir_path);
	assert_int_equal(setxattr(path, "trusted.overlay.redirect", "/secret", 7, 0), 0);
	int lowers[] = {a, b};
	PF_CLOSE int m = pf_overlay_mount(lowers, 2, -1, -1, true, &err);
	assert_true(m >= 0);
	assert_int_equal(faccessat(m, "dir/file", F_OK, 0), -1);
}

/* Read-only means read-only, with an upper or without one, with one layer or several; devices never work. */
static void test_read_only(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	need_root();
	PF_CLOSE int low = make_dir("low"), low2 = make_dir("low2"), rw = make_dir("rw"),
		     up = make_dir("rw/upper"), work = make_dir("rw/work");
	int lowers[] = {low, low2};
	assert_true(mknodat(low, "null", S_IFCHR | 0666, makedev(1, 3)) == 0);
	for (int i = 0; i < 3; i++) {
		PF_CLOSE int m = pf_overlay_mount(lowers, i == 2 ? 1 : 2, i == 0 ? rw : -1, -1, true, &err);
		assert_true(m >= 0);
		assert_int_equal(mkdirat(m, "x", 0700), -1);
		assert_int_equal(errno, EROFS);
		assert_int_equal(openat(m, "null", O_RDONLY | O_CLOEXEC), -1);
		assert_int_equal(errno, EACCES);
	}
}

/* A stack as deep as allowed works both ways; one more is refused with the number. */
static void test_many_layers(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	int lowers[PF_OVERLAY_MAX_LOWERS + 1];
	char name[32];

	(void)state;
	need_root();
	for (int i = 0; i <= PF_OVERLAY_MAX_LOWERS; i++) {
		snprintf(name, sizeof(name), "many/%d/f%d", i, i);
		PF_CLOSE int leaf = make_dir(name);
		snprintf(name, sizeof(name), "many/%d", i);
		lowers[i] = make_dir(name);
	}
	for (int via = PF_OVERLAY_VIA_FDS; via <= PF_OVERLAY_VIA_PATHS; via++) {
		PF_CLOSE int m = pf_overlay_mount_via(
			(enum pf_overlay_via)via, lowers, PF_OVERLAY_MAX_LOWERS, -1, -1, true, &err);
		if (m < 0)
			print_message("%s\n", err.msg);
		assert_true(m >= 0);
		snprintf(name, sizeof(name), "f%d", PF_OVERLAY_MAX_LOWERS - 1);
		assert_int_equal(faccessat(m, name, F_OK, 0), 0);
	}
	assert_int_equal(pf_overlay_mount(lowers, PF_OVERLAY_MAX_LOWERS + 1, -1, -1, true, &err), -1);
	assert_int_equal(err.kind, PF_ERR_INVALID);
	for (int i = 0; i <= PF_OVERLAY_MAX_LOWERS; i++)
		close(lowers[i]);
}

/* procfs cannot map ids: the error says what to do instead of the bare EINVAL. */
static void test_no_idmap(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	pid_t child;

	(void)state;
	need_root();
	PF_CLOSE int userns = make_userns(300000, &child);
	assert_true(userns >= 0);
	PF_CLOSE int proc = open("/proc/sys", O_PATH | O_CLOEXEC);
	int fd = pf_bind_mount_fd(proc, userns, true, false, &err);
	end_child(child);
	assert_int_equal(fd, -1);
	assert_int_equal(err.kind, PF_ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "keep the store"));
}

/* A single file can be bound, read-only. */
static void test_bind_file(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	need_root();
	put_file("single", "text");
	PF_CLOSE int src = openat(dir_fd, "single", O_PATH | O_CLOEXEC);
	PF_CLOSE int m = pf_bind_mount_fd(src, -1, true, false, &err);
	assert_true(m >= 0);
	PF_FREE char *path = pf_asprintf("/proc/self/fd/%d", m);
	assert_int_equal(open(path, O_WRONLY | O_CLOEXEC), -1);
	assert_int_equal(errno, EROFS);
}

/* Not a promise but a number: how long a mount takes. All are kept until the end, because unmounting an
 * overlay makes the kernel write out its upper's file system, and the next mount would wait for that. */
static void test_report_time(void **state)
{
	enum { COUNT = 40 };
	static const char *const names[] = {"auto", "descriptors", "paths"};
	struct pf_err err = PF_ERR_INIT;
	int mounts[COUNT];
	char name[32];
	pid_t child;

	(void)state;
	need_root();
	PF_CLOSE int low1 = make_dir("low1"), low2 = make_dir("low2");
	PF_CLOSE int userns = make_userns(300000, &child);
	int lowers[] = {low1, low2};
	for (int via = 0; via <= 2; via++) {
		int64_t took = 0;
		for (int i = 0; i < COUNT; i++) {
			snprintf(name, sizeof(name), "t%d-%d", via, i);
			PF_CLOSE int rw = make_dir(name);
			assert_int_equal(mkdirat(rw, "upper", 0755), 0);
			assert_int_equal(mkdirat(rw, "work", 0700), 0);
			int64_t t0 = pf_now_us();
			mounts[i] = pf_overlay_mount_via(
				(enum pf_overlay_via)via, lowers, 2, rw, userns, false, &err);
			took += pf_now_us() - t0;
			assert_true(mounts[i] >= 0);
		}
		print_message("idmapped overlay mount of two layers, %s: %lld us\n", names[via],
			(long long)took / COUNT);
		for (int i = 0; i < COUNT; i++)
			close(mounts[i]);
	}
	end_child(child);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stack_by_fds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stack_by_paths, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ids_by_fds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ids_by_paths, setup, teardown),
		cmocka_unit_test_setup_teardown(test_redirect_not_followed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_layers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_idmap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bind_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_report_time, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
