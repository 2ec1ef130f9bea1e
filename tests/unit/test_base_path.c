/* base/path: what a hostile tree cannot do to us (parallel-safe). Every test works in a directory of its own
 * below /tmp that the teardown removes whatever happened. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"

struct dirs {
	char base[64];
	int basefd, root; /* root is base/root; base/outside is what must stay as it is */
};

static int setup(void **state)
{
	struct dirs *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	snprintf(d->base, sizeof(d->base), "/tmp/pinfold-path.XXXXXX");
	assert_non_null(mkdtemp(d->base));
	d->basefd = open(d->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(d->basefd, "root", 0755), 0);
	assert_int_equal(mkdirat(d->basefd, "outside", 0755), 0);
	d->root = openat(d->basefd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(d->root >= 0);
	*state = d;
	return 0;
}

static int teardown(void **state)
{
	struct dirs *d = *state;
	struct pf_err err = PF_ERR_INIT;

	close(d->root);
	close(d->basefd);
	int r = pf_rm_rf_at(AT_FDCWD, d->base, &err);
	if (r < 0)
		print_error("%s\n", err.msg);
	free(d);
	return r;
}

static size_t entries(int dirfd, const char *name)
{
	DIR *dir = fdopendir(openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	size_t n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

/* Absolute links, `..` and links to links in any place of the path lead to a place inside root, never out. */
static void links_stay_inside(void **state)
{
	struct dirs *d = *state;

	assert_int_equal(mkdirat(d->root, "real", 0755), 0);
	assert_int_equal(symlinkat("/real", d->root, "abs"), 0);
	assert_int_equal(symlinkat("../../../../outside", d->root, "up"), 0);
	assert_int_equal(symlinkat("abs", d->root, "twice"), 0);
	assert_int_equal(symlinkat("/proc/self/root/etc", d->root, "magic"), 0);
	assert_int_equal(symlinkat("loop", d->root, "loop"), 0);

	int fd = pf_open_in_root(d->root, "twice/file", O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	assert_int_equal(faccessat(d->root, "real/file", F_OK, 0), 0);
	assert_int_equal(pf_open_in_root(d->root, "up/file", O_CREAT | O_WRONLY, 0600), -1);
	assert_int_equal(pf_open_in_root(d->root, "../../outside/file", O_CREAT | O_WRONLY, 0600), -1);
	assert_int_equal(pf_open_in_root(d->root, "magic/passwd", O_RDONLY, 0), -1);
	assert_int_equal(pf_open_in_root(d->root, "loop", O_RDONLY, 0), -1);
	assert_int_equal(errno, ELOOP);
	assert_int_equal(entries(d->basefd, "outside"), 0);
}

/* Parents of a mount target are made inside root, even when the tree has links where they should be. */
static void mkdirs_follow_links_inside_only(void **state)
{
	struct dirs *d = *state;
	struct stat st;

	assert_int_equal(symlinkat("/target", d->root, "dev"), 0);
	assert_int_equal(symlinkat("/outside/x", d->root, "dangling"), 0);
	assert_int_equal(mkdirat(d->root, "target", 0755), 0);
	mode_t old = umask(077); /* does not count */
	int fd = pf_mkdirs_in_root(d->root, "/dev/pts/deep", 0700);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(fstatat(d->root, "target/pts/deep", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(fstatat(d->root, "target/pts", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0755);

	fd = pf_mkdirs_in_root(d->root, "secret//", 0700);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(fstatat(d->root, "secret", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0700);

	assert_int_equal(pf_mkdirs_in_root(d->root, "dangling/y", 0755), -1);
	fd = pf_mkdirs_in_root(d->root, "../../outside/new", 0755); /* `..` of root is root */
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(entries(d->basefd, "outside"), 0);
	assert_int_equal(faccessat(d->root, "outside/new", F_OK, 0), 0);

	fd = pf_mkfile_in_root(d->root, "dev/null");
	assert_int_equal(umask(old), 077);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(fstatat(d->root, "target/null", &st, 0), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(pf_mkfile_in_root(d->root, "dangling"), -1);
	assert_int_equal(entries(d->basefd, "outside"), 0);
}

/* While another process swaps a directory for a link to the outside as fast as it can, nothing is ever made
 * outside. */
static void swapping_parent_never_leads_out(void **state)
{
	struct dirs *d = *state;
	char target[PATH_MAX];
	int go[2];

	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	snprintf(target, sizeof(target), "%s/outside", d->base);
	assert_int_equal(mkdirat(d->root, "a", 0755), 0);
	assert_int_equal(symlinkat(target, d->root, "b"), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(go[1]);
		(void)fcntl(go[0], F_SETFL, O_NONBLOCK);
		char c;
		while (read(go[0], &c, 1) < 0)
			renameat2(d->root, "a", d->root, "b", RENAME_EXCHANGE);
		_exit(0);
	}
	close(go[0]);
	for (int i = 0; i < 3000; i++) {
		char path[64];
		snprintf(path, sizeof(path), "a/x%d/y", i);
		int fd = pf_mkdirs_in_root(d->root, path, 0755);
		if (fd >= 0)
			close(fd);
		snprintf(path, sizeof(path), "a/f%d", i);
		fd = pf_mkfile_in_root(d->root, path);
		if (fd >= 0)
			close(fd);
	}
	close(go[1]);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(entries(d->basefd, "outside"), 0);
}

/* Removing a tree removes links, not what they point to. */
static void rm_rf_does_not_follow(void **state)
{
	struct dirs *d = *state;
	struct pf_err err = PF_ERR_INIT;

	int fd = openat(d->basefd, "outside/keep", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(mkdirat(d->root, "t", 0755), 0);
	assert_int_equal(symlinkat("../../outside", d->root, "t/link"), 0);
	assert_int_equal(mkfifoat(d->root, "t/fifo", 0600), 0);
	assert_int_equal(mkdirat(d->root, "t/.pinfold-rm-0", 0755), 0);
	assert_int_equal(pf_rm_rf_at(d->root, "t", &err), 0);
	assert_int_equal(faccessat(d->root, "t", F_OK, 0), -1);
	assert_int_equal(faccessat(d->basefd, "outside/keep", F_OK, 0), 0);
	assert_int_equal(pf_rm_rf_at(d->root, "never-was", &err), 0);
}

/* A payload that made directories inside each other until it got bored cannot keep its workspace on the disk.
 */
static void rm_rf_of_any_depth(void **state)
{
	struct dirs *d = *state;
	struct pf_err err = PF_ERR_INIT;
	int at = dup(d->root);

	assert_int_equal(mkdirat(at, "deep", 0755), 0);
	for (int i = 0; i < 10000; i++) {
		int next = openat(at, i ? "d" : "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(at);
		at = next;
		assert_int_equal(mkdirat(at, "d", 0700), 0);
		if (i % 1000 == 0) {
			int fd = openat(at, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
			assert_true(fd >= 0);
			close(fd);
			assert_int_equal(mkdirat(at, ".pinfold-rm-3", 0700), 0);
		}
	}
	close(at);
	if (pf_rm_rf_at(d->root, "deep", &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(entries(d->root, "."), 0);
}

/* A mount inside the tree, also one of the same file system, is an error and stays as it is. */
static void rm_rf_stops_at_mounts(void **state)
{
	struct dirs *d = *state;
	char source[PATH_MAX], target[PATH_MAX];

	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		/* A mount namespace of its own: nothing to unmount if the test dies. */
		struct pf_err err = PF_ERR_INIT;
		if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
			_exit(77);
		snprintf(source, sizeof(source), "%s/outside", d->base);
		snprintf(target, sizeof(target), "%s/root/t/m", d->base);
		int fd = openat(d->basefd, "outside/keep", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (fd < 0 || mkdirat(d->root, "t", 0755) < 0 || mkdirat(d->root, "t/m", 0755) < 0)
			_exit(1);
		close(fd);
		if (mount(source, target, NULL, MS_BIND, NULL) < 0)
			_exit(77);
		if (pf_rm_rf_at(d->root, "t", &err) == 0)
			_exit(2);
		if (!strstr(err.msg, "a mount is in the way"))
			_exit(3);
		if (faccessat(d->basefd, "outside/keep", F_OK, 0) < 0)
			_exit(4);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		print_message("skipped: no right to mount here\n");
		skip();
	}
	assert_int_equal(status, 0);
}

static void clean(const char *in, const char *out)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *p = pf_path_clean(in, &err);

	if (!out) {
		assert_null(p);
		assert_int_equal(err.kind, PF_ERR_INVALID);
	} else {
		assert_non_null(p);
		assert_string_equal(p, out);
	}
}

static void paths_are_cleaned_or_refused(void **state)
{
	(void)state;
	clean("/", "/");
	clean("///", "/");
	clean("/a//b/./c/", "/a/b/c");
	clean("/./.", "/");
	clean("/...", "/...");
	clean("/..a/b..", "/..a/b..");
	clean("", NULL);
	clean("a", NULL);
	clean("/..", NULL);
	clean("/a/../b", NULL);
	assert_true(pf_path_below("/a/b", "/a"));
	assert_true(pf_path_below("/a", "/a"));
	assert_true(pf_path_below("/a", "/"));
	assert_false(pf_path_below("/ab", "/a"));
	assert_false(pf_path_below("/", "/a"));
}

int main(void)
{
#define WITH_DIRS(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_DIRS(links_stay_inside),
		WITH_DIRS(mkdirs_follow_links_inside_only),
		WITH_DIRS(swapping_parent_never_leads_out),
		WITH_DIRS(rm_rf_does_not_follow),
		WITH_DIRS(rm_rf_of_any_depth),
		WITH_DIRS(rm_rf_stops_at_mounts),
		cmocka_unit_test(paths_are_cleaned_or_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
