/* base/fd and base/proc: whole files, passed descriptors, helper programs (parallel-safe). */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/sys.h"
#include "tests/unit/open_fds.h"

struct dir {
	char path[64];
	int fd;
	size_t open; /* descriptors before the test */
};

static int setup(void **state)
{
	struct dir *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	d->open = open_fds();
	snprintf(d->path, sizeof(d->path), "/tmp/pinfold-fd.XXXXXX");
	assert_non_null(mkdtemp(d->path));
	d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = d;
	return d->fd < 0;
}

/* Every test of this file also keeps: no descriptor is left open. */
static int teardown(void **state)
{
	struct dir *d = *state;
	struct pf_err err = PF_ERR_INIT;

	close(d->fd);
	size_t now = open_fds(), before = d->open;
	int r = pf_rm_rf_at(AT_FDCWD, d->path, &err);
	free(d);
	if (now != before)
		print_error("%zu descriptors before, %zu after\n", before, now);
	return r < 0 || now != before;
}

static void put(int dirfd, const char *name, size_t len)
{
	PF_CLOSE int fd = openat(dirfd, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	PF_FREE char *data = malloc(len + 1);

	assert_true(fd >= 0 && data);
	memset(data, 'x', len);
	assert_int_equal(pf_write_all(fd, data, len), 0);
}

/* What is read has a bound, is whole, and is a regular file; a FIFO in its place neither hangs nor is read.
 */
static void reading_is_bounded(void **state)
{
	struct dir *d = *state;
	struct pf_err err = PF_ERR_INIT;
	static const size_t lens[] = {0, 1, 4095, 4096, 4097, 100000};

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		char *text = NULL;
		size_t len = 7;
		put(d->fd, "f", lens[i]);
		assert_int_equal(pf_read_file_at(d->fd, "f", lens[i], &text, &len, &err), 0);
		assert_int_equal(len, lens[i]);
		assert_int_equal(text[len], '\0');
		free(text);
		if (lens[i] > 0) {
			text = NULL;
			assert_int_equal(pf_read_file_at(d->fd, "f", lens[i] - 1, &text, &len, &err), -1);
			assert_int_equal(err.errnum, EFBIG);
			assert_null(text);
		}
		assert_int_equal(unlinkat(d->fd, "f", 0), 0);
	}
	char *text = NULL;
	assert_int_equal(mkfifoat(d->fd, "fifo", 0600), 0);
	assert_int_equal(pf_read_file_at(d->fd, "fifo", 100, &text, NULL, &err), -1);
	assert_non_null(strstr(err.msg, "not a regular file"));
	assert_int_equal(pf_read_file_at(d->fd, ".", 100, &text, NULL, &err), -1);
	assert_int_equal(pf_read_file_at(d->fd, "none", 100, &text, NULL, &err), -1);
	assert_int_equal(err.kind, PF_ERR_NOT_FOUND);
	assert_int_equal(pf_read_pseudo_at(AT_FDCWD, "/proc/self/status", 65536, &text, &err), 0);
	assert_non_null(strstr(text, "Name:"));
	free(text);
}

/* The caller's umask takes nothing from the mode of a replaced file, and adds nothing to it. */
static void replacing_keeps_the_mode(void **state)
{
	struct dir *d = *state;
	struct pf_err err = PF_ERR_INIT;
	struct stat st;
	mode_t old = umask(077);
	int r = pf_replace_file_at(d->fd, "m", "x", 1, 0644, false, &err);

	umask(0);
	r |= pf_replace_file_at(d->fd, "n", "x", 1, 0600, false, &err);
	umask(old);
	assert_int_equal(r, 0);
	assert_int_equal(fstatat(d->fd, "m", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(fstatat(d->fd, "n", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

/* A replaced file is the old one or the new one; a link in its place is replaced, not written through. */
static void replacing_is_whole(void **state)
{
	struct dir *d = *state;
	struct pf_err err = PF_ERR_INIT;
	struct stat st;
	char *text = NULL;

	put(d->fd, "victim", 3);
	assert_int_equal(symlinkat("victim", d->fd, "f"), 0);
	assert_int_equal(pf_replace_file_at(d->fd, "f", "new", 3, 0600, true, &err), 0);
	assert_int_equal(fstatat(d->fd, "f", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(pf_read_file_at(d->fd, "victim", 100, &text, NULL, &err), 0);
	assert_string_equal(text, "xxx");
	free(text);
	/* Failing leaves no temporary name behind. */
	assert_int_equal(mkdirat(d->fd, "dir", 0700), 0);
	assert_int_equal(pf_replace_file_at(d->fd, "dir", "x", 1, 0600, false, &err), -1);
	char tmp[64];
	snprintf(tmp, sizeof(tmp), ".dir.%d.tmp", (int)getpid());
	assert_int_equal(faccessat(d->fd, tmp, F_OK, 0), -1);
}

static void locks_exclude(void **state)
{
	struct dir *d = *state;
	struct pf_err err = PF_ERR_INIT;
	int one = pf_lock_file_at(d->fd, "lock", false, &err);

	assert_true(one >= 0);
	assert_int_equal(pf_lock_file_at(d->fd, "lock", false, &err), -1);
	assert_int_equal(err.errnum, EWOULDBLOCK);
	close(one);
	int two = pf_lock_file_at(d->fd, "lock", false, &err);
	assert_true(two >= 0);
	close(two);
}

/* One descriptor arrives, close-on-exec; a message with none or with two is refused and leaks none. */
static void descriptors_are_passed(void **state)
{
	struct dir *d = *state;
	int s[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
	assert_int_equal(pf_send_fd(s[0], d->fd), 0);
	int fd = pf_recv_fd(s[1]);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(pf_set_cloexec(fd, false), 0);
	assert_false(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	assert_int_equal(send(s[0], "x", 1, 0), 1);
	assert_int_equal(pf_recv_fd(s[1]), -1);

	_Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {0};
	char byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int two[2] = {d->fd, d->fd};
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(two));
	memcpy(CMSG_DATA(c), two, sizeof(two));
	assert_int_equal(sendmsg(s[0], &msg, 0), 1);
	assert_int_equal(pf_recv_fd(s[1]), -1);
	assert_int_equal(errno, ECONNRESET);
	close(s[0]);
	assert_int_equal(pf_recv_fd(s[1]), -1);
	close(s[1]);
}

/* A pid counts only together with its start time. */
static void processes_are_who_they_were(void **state)
{
	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		pause();
		_exit(0);
	}
	uint64_t start = pf_proc_start_time(pid);
	assert_true(start > 0);
	assert_int_equal(pf_pidfd_open_checked(pid, start + 1), -1);
	assert_int_equal(errno, ESRCH);
	int fd = pf_pidfd_open_checked(pid, start);
	assert_true(fd >= 0);
	assert_false(pf_pidfd_ended(fd));
	assert_int_equal(pf_pidfd_wait(fd, 10), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(pf_pidfd_wait(fd, -1), 1);
	assert_true(pf_pidfd_ended(fd)); /* a zombie has ended */
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(pf_pidfd_open_checked(pid, start), -1);
	close(fd);
}

static void helper_programs(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	char *out = NULL;

	(void)state;
	assert_int_equal(pf_run((char *[]){"/bin/sh", "-c", "echo a; cat; echo b >&2", NULL}, &out, &err), 0);
	assert_string_equal(out, "a\n");
	free(out);
	assert_int_equal(pf_run((char *[]){"/bin/sh", "-c", "echo why >&2; exit 3", NULL}, NULL, &err), -1);
	assert_string_equal(err.msg, "sh: why");
	assert_int_equal(pf_run((char *[]){"/bin/sh", "-c", "kill -9 $$", NULL}, NULL, &err), -1);
	assert_string_equal(err.msg, "sh: killed by a signal");
	assert_int_equal(pf_run((char *[]){"/no/such/program", NULL}, NULL, &err), -1);
	assert_non_null(strstr(err.msg, "No such file"));
	/* More than the bound on either stream neither blocks the helper nor grows us. */
	assert_int_equal(pf_run((char *[]){"/bin/sh", "-c",
					"head -c 3000000 /dev/zero | tr '\\0' o; "
					"head -c 300000 /dev/zero | tr '\\0' e >&2",
					NULL},
				 &out, &err),
		0);
	assert_int_equal(strlen(out), 1 << 20);
	free(out);
}

int main(void)
{
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		IN_DIR(reading_is_bounded),
		IN_DIR(replacing_is_whole),
		IN_DIR(replacing_keeps_the_mode),
		IN_DIR(locks_exclude),
		IN_DIR(descriptors_are_passed),
		IN_DIR(processes_are_who_they_were),
		IN_DIR(helper_programs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
