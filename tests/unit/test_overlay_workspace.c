/* Promises: a size is a size (ENOSPC inside, nothing else harmed, and as much as was asked can be written);
 * what fsync acknowledged is there after the holder died; nothing leaks, whatever fails; a workspace cannot
 * be opened twice; sealing is a rename. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "overlay/mount.h"
#include "overlay/workspace.h"

#define MIB ((int64_t)1 << 20)

static char dir_path[64];
static int dir_fd = -1, template_fd = -1;
static struct pf_workspace ws; /* closed by teardown when a test failed in the middle */

static int setup(void **state)
{
	char path[96];

	(void)state;
	ws = PF_WORKSPACE_INIT;
	snprintf(dir_path, sizeof(dir_path), "/tmp/pf-test-ws-%d", (int)getpid());
	snprintf(path, sizeof(path), "%s/templates", dir_path);
	if (mkdir(dir_path, 0700) < 0 || mkdir(path, 0700) < 0)
		return -1;
	dir_fd = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	template_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0 || template_fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	pf_workspace_close(&ws);
	close(dir_fd);
	close(template_fd);
	return pf_rm_rf_at(AT_FDCWD, dir_path, &err);
}

static void need_loop(void)
{
	if (geteuid() != 0 || access("/dev/loop-control", R_OK | W_OK) < 0 ||
		access("/sbin/mke2fs", X_OK) < 0) {
		print_message("skipped: needs root, /dev/loop-control and mke2fs\n");
		skip();
	}
}

/* Loop devices whose backing file lies in our directory. */
static int our_loops(void)
{
	PF_CLOSEDIR DIR *d = opendir("/sys/block");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d))) {
		struct pf_err err = PF_ERR_INIT;
		PF_FREE char *path = pf_asprintf("/sys/block/%s/loop/backing_file", e->d_name);
		PF_FREE char *text = NULL;
		if (pf_read_pseudo_at(AT_FDCWD, path, 4096, &text, &err) == 0 && strstr(text, dir_path))
			n++;
	}
	return n;
}

/* The kernel takes a loop device apart after the last close, in its own time. */
static void expect_no_loops(void)
{
	for (int i = 0; i < 500 && our_loops() > 0; i++)
		usleep(10000);
	assert_int_equal(our_loops(), 0);
}

static void create(int64_t size)
{
	struct pf_err err = PF_ERR_INIT;

	int r = pf_workspace_create(dir_fd, template_fd, size, &ws, &err);
	if (r < 0)
		print_message("%s\n", err.msg);
	assert_int_equal(r, 0);
}

/* Write until it is full; returns the bytes. */
static int64_t fill(int dirfd)
{
	static char block[65536];
	int64_t total = 0;
	ssize_t n;
	PF_CLOSE int fd = openat(dirfd, "big", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	while ((n = write(fd, block, sizeof(block))) > 0)
		total += n;
	assert_int_equal(errno, ENOSPC);
	return total;
}

/* The size given is what can be written: not less, and not more than a few percent above. */
static void size_is_size(int64_t size)
{
	struct pf_workspace_usage u;
	struct pf_err err = PF_ERR_INIT;

	need_loop();
	create(size);
	assert_true(ws.image);
	int64_t got = fill(ws.upper_fd);
	print_message("asked %lld MiB, got %.2f MiB\n", (long long)(size / MIB), (double)got / (double)MIB);
	assert_true(got >= size);
	assert_true(got <= size + size / 20 + 2 * MIB);
	assert_int_equal(pf_workspace_usage(&ws, &u, &err), 0);
	assert_true(u.bytes >= got && u.bytes_max >= u.bytes && u.inodes > 0 && u.inodes_max > u.inodes);
	pf_workspace_close(&ws);
	expect_no_loops();
}

static void test_size_small(void **state)
{
	(void)state;
	size_is_size(12 * MIB);
}

static void test_size_large(void **state)
{
	(void)state;
	size_is_size(600 * MIB);
}

static void test_size_least(void **state)
{
	(void)state;
	size_is_size(PF_WORKSPACE_MIN_SIZE);
}

/* The file takes what is used, not what is allowed. */
static void test_sparse(void **state)
{
	struct stat st;

	(void)state;
	need_loop();
	create((int64_t)20 << 30);
	assert_int_equal(fstatat(dir_fd, "workspace.img", &st, 0), 0);
	assert_true(st.st_size >= (int64_t)20 << 30);
	assert_true(st.st_blocks * 512 < 40 * MIB);
	pf_workspace_close(&ws);
	expect_no_loops();
}

/* Through the overlay, as real root inside or not: full is full, files that were there stay whole, and
 * deleting helps. */
static void test_full_through_overlay(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	char buf[16] = "";

	(void)state;
	need_loop();
	create(8 * MIB);
	PF_CLOSE int low = pf_mkdirs_in_root(dir_fd, "low", 0755);
	for (int via = PF_OVERLAY_VIA_FDS; via <= PF_OVERLAY_VIA_PATHS; via++) {
		PF_CLOSE int m =
			pf_overlay_mount_via((enum pf_overlay_via)via, &low, 1, ws.rw_fd, -1, false, &err);
		if (m < 0)
			print_message("%s\n", err.msg);
		assert_true(m >= 0);
		PF_CLOSE int fd = openat(m, "kept", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		assert_int_equal(write(fd, "kept", 4), 4);
		assert_int_equal(fsync(fd), 0);
		assert_true(fill(m) >= 7 * MIB);
		assert_int_equal(pread(fd, buf, 4, 0), 4);
		assert_string_equal(buf, "kept");
		assert_int_equal(unlinkat(m, "big", 0), 0);
		assert_int_equal(pwrite(fd, "more", 4, 4), 4);
		assert_int_equal(fsync(fd), 0);
	}
	pf_workspace_close(&ws);
	expect_no_loops();
}

/* Inodes end too, before they cost the host anything. */
static void test_inodes_are_limited(void **state)
{
	char name[32];
	int n = 0;

	(void)state;
	need_loop();
	create(4 * MIB);
	for (;; n++) {
		snprintf(name, sizeof(name), "f%d", n);
		int fd = openat(ws.upper_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			break;
		close(fd);
	}
	assert_int_equal(errno, ENOSPC);
	assert_true(n > 100 && n < 5000);
	pf_workspace_close(&ws);
	expect_no_loops();
}

/* A holder killed at once loses nothing that was fsynced, and leaves no loop device; setuid bits survive; no
 * devices. */
static void test_holder_killed(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	char buf[16] = "";
	struct stat st;
	int status;

	(void)state;
	need_loop();
	pid_t pid = fork();
	if (pid == 0) {
		if (pf_workspace_create(dir_fd, template_fd, 16 * MIB, &ws, &err) < 0)
			_exit(1);
		int fd = openat(ws.upper_fd, "data", O_WRONLY | O_CREAT, 0755);
		if (write(fd, "durable", 7) != 7 || fchmod(fd, 04755) < 0 || fsync(fd) < 0)
			_exit(2);
		mknodat(ws.upper_fd, "null", S_IFCHR | 0666, 0x103);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	expect_no_loops();
	assert_int_equal(pf_workspace_open(dir_fd, &ws, &err), 0);
	PF_CLOSE int fd = openat(ws.upper_fd, "data", O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, buf, sizeof(buf)), 7);
	assert_string_equal(buf, "durable");
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 04755);
	assert_int_equal(openat(ws.upper_fd, "null", O_RDONLY | O_CLOEXEC), -1);
	assert_int_equal(errno, EACCES);
	pf_workspace_close(&ws);
	close(pf_take_fd(&fd));
	expect_no_loops();
}

/* Two mounts of one image would destroy it. The lock holds as long as the mount, not only as long as the
 * opener. */
static void test_not_twice(void **state)
{
	struct pf_workspace second;
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	need_loop();
	create(4 * MIB);
	assert_int_equal(pf_workspace_open(dir_fd, &second, &err), -1);
	assert_int_equal(err.kind, PF_ERR_STATE);
	assert_int_equal(pf_workspace_create(dir_fd, template_fd, 4 * MIB, &second, &err), -1);
	assert_int_equal(err.kind, PF_ERR_EXISTS);
	PF_CLOSE int low = pf_mkdirs_in_root(dir_fd, "low", 0755);
	int m = pf_overlay_mount(&low, 1, ws.rw_fd, -1, false, &err);
	assert_true(m >= 0);
	pf_workspace_close(&ws);
	assert_int_equal(pf_workspace_open(dir_fd, &second, &err), -1);
	assert_int_equal(err.kind, PF_ERR_STATE);
	close(m);
	expect_no_loops();
	assert_int_equal(pf_workspace_open(dir_fd, &second, &err), 0);
	pf_workspace_close(&second);
	expect_no_loops();
}

/* Damage is found and, where that needs no answer, repaired; where it does, the error says so and nothing is
 * left mounted. */
static void test_damage(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	static char junk[8 << 20];

	(void)state;
	need_loop();
	create(4 * MIB);
	pf_workspace_close(&ws);
	expect_no_loops();
	/* "errors were seen", as the kernel would note it */
	PF_FREE char *image = pf_asprintf("%s/workspace.img", dir_path);
	char *debugfs[] = {"/sbin/debugfs", "-w", "-R", "set_super_value state 2", image, NULL};
	assert_int_equal(pf_run(debugfs, NULL, &err), 0);
	if (pf_workspace_open(dir_fd, &ws, &err) < 0)
		fail_msg("%s", err.msg);
	pf_workspace_close(&ws);
	expect_no_loops();
	{
		PF_CLOSE int fd = openat(dir_fd, "workspace.img", O_RDWR | O_CLOEXEC);
		struct stat st;
		assert_int_equal(fstat(fd, &st), 0);
		memset(junk, 0xa5, sizeof(junk));
		assert_true(pwrite(fd, junk,
				    sizeof(junk) < (size_t)st.st_size ? sizeof(junk) : (size_t)st.st_size,
				    0) > 0);
	}
	assert_int_equal(pf_workspace_open(dir_fd, &ws, &err), -1);
	assert_int_equal(err.kind, PF_ERR_CORRUPT);
	assert_non_null(strstr(err.msg, "e2fsck"));
	expect_no_loops();
}

/* A full disk under a new workspace: one error, and neither file nor loop device. */
static void test_create_on_full_disk(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	char path[96];

	(void)state;
	need_loop();
	snprintf(path, sizeof(path), "%s/tiny", dir_path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(mount("pf-test", path, "tmpfs", 0, "size=16k"), 0);
	int tiny = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = pf_workspace_create(tiny, template_fd, 64 * MIB, &ws, &err);
	int left = faccessat(tiny, "workspace.img", F_OK, 0);
	close(tiny);
	umount2(path, MNT_DETACH);
	assert_int_equal(r, -1);
	assert_int_equal(err.errnum, ENOSPC);
	assert_int_equal(left, -1);
	expect_no_loops();
}

static void test_bad_sizes(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	assert_int_equal(pf_workspace_create(dir_fd, -1, 4096, &ws, &err), -1);
	assert_int_equal(err.kind, PF_ERR_INVALID);
	assert_int_equal(pf_workspace_create(dir_fd, -1, INT64_MAX, &ws, &err), -1);
	assert_int_equal(err.kind, PF_ERR_INVALID);
	assert_int_equal(pf_workspace_open(dir_fd, &ws, &err), -1);
	assert_int_equal(err.kind, PF_ERR_NOT_FOUND);
	pf_workspace_close(&ws);
}

/* Sealing takes the upper away as it is, newest first in the list, and the new one looks the same from
 * outside. */
static void seal(int64_t size)
{
	struct pf_err err = PF_ERR_INIT;
	struct stat st;
	int64_t n;
	int *fds;
	size_t count;

	create(size);
	for (int i = 1; i <= 12; i++) {
		char name[16];
		snprintf(name, sizeof(name), "g%d", i);
		PF_CLOSE int fd = openat(ws.upper_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		if (i == 3) {
			PF_CLOSE int up = openat(ws.upper_fd, ".", O_RDONLY | O_CLOEXEC);
			assert_int_equal(fchmod(up, 01770), 0);
			assert_int_equal(fchown(up, 12, 13), 0);
		}
		assert_int_equal(pf_workspace_seal(&ws, &n, &err), 0);
		assert_int_equal(n, i);
	}
	assert_int_equal(fstat(ws.upper_fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 01770);
	assert_int_equal(st.st_uid, 12);
	pf_workspace_close(&ws);
	expect_no_loops();
	assert_int_equal(pf_workspace_open(dir_fd, &ws, &err), 0);
	assert_int_equal(pf_workspace_generations(&ws, &fds, &count, &err), 0);
	assert_int_equal(count, 12);
	assert_int_equal(faccessat(fds[0], "g12", F_OK, 0), 0);
	assert_int_equal(faccessat(fds[11], "g1", F_OK, 0), 0);
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
	free(fds);
	pf_workspace_close(&ws);
	expect_no_loops();
}

static void test_seal_dir(void **state)
{
	(void)state;
	seal(0);
}

static void test_seal_image(void **state)
{
	(void)state;
	need_loop();
	seal(8 * MIB);
}

/* A crash between the two renames of a seal leaves the prepared upper under its other name: opening finishes
 * it. */
static void test_seal_interrupted(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	struct stat st;

	(void)state;
	create(0);
	assert_int_equal(mkdirat(ws.rw_fd, "generations", 0700), 0);
	assert_int_equal(mkdirat(ws.rw_fd, "upper.new", 0711), 0);
	assert_int_equal(renameat(ws.rw_fd, "upper", ws.rw_fd, "generations/1"), 0);
	pf_workspace_close(&ws);
	assert_int_equal(pf_workspace_open(dir_fd, &ws, &err), 0);
	assert_int_equal(fstat(ws.upper_fd, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0711);
	pf_workspace_close(&ws);
}

static void test_dir_usage(void **state)
{
	struct pf_workspace_usage u;
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	create(0);
	assert_false(ws.image);
	PF_CLOSE int fd = openat(ws.upper_fd, "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(linkat(ws.upper_fd, "f", ws.upper_fd, "g", 0), 0);
	assert_int_equal(pf_workspace_usage(&ws, &u, &err), 0);
	assert_int_equal(u.inodes, 2);
	assert_int_equal(u.bytes, 4096);
	assert_int_equal(u.bytes_max, 0);
	pf_workspace_close(&ws);
}

/* Not a promise but a number. */
static void test_report_time(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	char name[16];

	(void)state;
	need_loop();
	for (int with = 0; with < 2; with++) {
		int64_t took = 0, closing = 0;
		for (int i = 0; i < 12; i++) {
			snprintf(name, sizeof(name), "t%d-%d", with, i);
			PF_CLOSE int sub = pf_mkdirs_in_root(dir_fd, name, 0700);
			int64_t t0 = pf_now_us();
			assert_int_equal(
				pf_workspace_create(sub, with ? template_fd : -1, 1024 * MIB, &ws, &err), 0);
			int64_t t1 = pf_now_us();
			pf_workspace_close(&ws);
			if (i >= 2) {
				took += t1 - t0;
				closing += pf_now_us() - t1;
			}
		}
		print_message("1 GiB workspace %s: create and mount %lld us, close %lld us\n",
			with ? "from a template" : "by mke2fs", (long long)took / 10,
			(long long)closing / 10);
	}
	expect_no_loops();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_size_small, setup, teardown),
		cmocka_unit_test_setup_teardown(test_size_large, setup, teardown),
		cmocka_unit_test_setup_teardown(test_size_least, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sparse, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_through_overlay, setup, teardown),
		cmocka_unit_test_setup_teardown(test_inodes_are_limited, setup, teardown),
		cmocka_unit_test_setup_teardown(test_holder_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_create_on_full_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_seal_dir, setup, teardown),
		cmocka_unit_test_setup_teardown(test_seal_image, setup, teardown),
		cmocka_unit_test_setup_teardown(test_seal_interrupted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dir_usage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_report_time, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
