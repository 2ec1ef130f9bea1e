/* parallel-safe. What a keeper and its gate may do once they are confined. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/proc.h"
#include "session/confine.h"
#include "session/view.h"

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

#define GATE_UID 1879113728u

/* The sockets that a gate has are there before; of new ones it makes those that it dials with. */
static int gate(void)
{
	struct pf_err err = PF_ERR_INIT;
	int one = 1, netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
	struct rlimit core;
	char path[64];

	snprintf(path, sizeof(path), "%s/log", dir);
	int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	CHECK(log >= 0 && write(log, "line\n", 5) == 5 && unlink(path) == 0);
	CHECK(netlink >= 0 && pf_confine_gate(GATE_UID, pf_in_first_userns(), -1, &err) == 0);
	CHECK(getuid() == GATE_UID && geteuid() == GATE_UID && getgid() == GATE_UID &&
		getgroups(0, NULL) == 0);
	CHECK(setresuid(0, 0, 0) < 0 && errno == EPERM);
	int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), udp = socket(AF_INET6, SOCK_DGRAM, 0);
	CHECK(tcp >= 0 && (udp >= 0 || errno == EAFNOSUPPORT));
	CHECK(setsockopt(tcp, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)) == 0);
	CHECK(setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
	/* What CAP_NET_ADMIN would be good for on the host. */
	CHECK(socket(AF_NETLINK, SOCK_RAW, 0) < 0 && errno == EPERM);
	CHECK(socket(AF_PACKET, SOCK_RAW, 0) < 0 && errno == EPERM);
	CHECK(socket(AF_UNIX, SOCK_STREAM, 0) < 0 && errno == EPERM);
	CHECK(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0 && errno == EPERM);
	CHECK(setsockopt(tcp, IPPROTO_IP, 64 /* IPT_SO_SET_REPLACE */, &one, sizeof(one)) < 0 &&
		errno == EPERM);
	CHECK(setsockopt(tcp, IPPROTO_IPV6, 64, &one, sizeof(one)) < 0 && errno == EPERM);
	/* The upper half of an int's register is nothing to the kernel. */
	CHECK(syscall(SYS_setsockopt, tcp, (1UL << 32) | IPPROTO_IP, 64, &one, sizeof(one)) < 0 &&
		errno == EPERM);
	CHECK(syscall(SYS_setsockopt, tcp, (1UL << 32) | IPPROTO_IPV6, 64, &one, sizeof(one)) < 0 &&
		errno == EPERM);
	CHECK(syscall(SYS_socket, (1UL << 32) | AF_NETLINK, SOCK_RAW, 0) < 0 && errno == EPERM);
	CHECK(ioctl(tcp, 0x8913 /* SIOCGIFFLAGS */, path) < 0 && errno == EPERM);
	/* What stands in the log stays there. */
	CHECK(fcntl(log, F_SETFL, 0) < 0 && errno == EPERM && ftruncate(log, 0) < 0 && errno == EPERM);
	CHECK(syscall(SYS_fcntl, log, (1UL << 32) | F_SETFL, 0) < 0 && errno == EPERM);
	CHECK(fallocate(log, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1) < 0 && errno == EPERM);
	CHECK(lseek(log, 0, SEEK_SET) == 0 && write(log, "next\n", 5) == 5 && lseek(log, 0, SEEK_CUR) == 10);
	/* Nobody else, nothing new. */
	CHECK(syscall(SYS_tgkill, getppid(), getppid(), 0) < 0 && errno == EPERM);
	CHECK(kill(getppid(), 0) < 0 && errno == EPERM && pidfd_open(getppid(), 0) < 0 && errno == EPERM);
	CHECK(fork() < 0 && errno == EPERM);
	snprintf(path, sizeof(path), "%s/new", dir);
	CHECK(mkdir(path, 0700) < 0 && errno == EPERM &&
		open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0);
	CHECK(getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_max == 0);
	execl("/bin/true", "true", NULL);
	return errno == EPERM ? 0 : 199;
}

/* Of a pod: its log is cut by itself, by one descriptor. */
static int pod(void)
{
	struct pf_err err = PF_ERR_INIT;
	char path[64];

	snprintf(path, sizeof(path), "%s/log", dir);
	int log = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), other = dup(log);
	CHECK(log >= 0 && other >= 0 && write(log, "line\n", 5) == 5 && unlink(path) == 0);
	CHECK(pf_confine_gate(GATE_UID, pf_in_first_userns(), log, &err) == 0);
	CHECK(ftruncate(other, 0) < 0 && errno == EPERM);
	CHECK(syscall(SYS_ftruncate, (1UL << 32) | (unsigned)other, 0) < 0 && errno == EPERM);
	return ftruncate(log, 0) == 0 && lseek(log, 0, SEEK_END) == 0 ? 0 : 199;
}

/* In it a gate still resolves names and finds random numbers, and nothing else of the host. */
static int view(void)
{
	struct pf_err err = PF_ERR_INIT;
	char bytes[8];

	CHECK(access(dir, F_OK) == 0 && pf_view_enter(-1, -1, &err) == 0);
	CHECK(access(dir, F_OK) < 0 && access("/proc/self", F_OK) < 0 && access("/sys", F_OK) < 0);
	CHECK(access("/etc/passwd", R_OK) == 0 && access("/usr/lib", X_OK) == 0);
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && read(fd, bytes, sizeof(bytes)) == sizeof(bytes));
	CHECK(open("/x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == EROFS);
	CHECK(open("/etc/x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == EROFS);
	CHECK(mkdir("/usr/x", 0700) < 0 && errno == EROFS);
	return chdir("/..") == 0 && access("usr", F_OK) == 0 ? 0 : 199;
}

/* It is root still; what it starts is what it may start. */
static int keeper(void)
{
	struct pf_err err = PF_ERR_INIT;

	CHECK(pf_confine_keeper(false, &err) == 0);
	CHECK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0 && kill(getppid(), 0) == 0);
	CHECK(unshare(CLONE_NEWNS) < 0 && errno == EPERM && setresuid(1, 1, 1) < 0 && errno == EPERM);
	execl("/bin/true", "true", NULL);
	return errno == EPERM ? 0 : 199;
}

static int keeper_of_tls(void)
{
	static const char *const exec[] = {"/bin/true", "/lib", "/lib64", "/usr/lib", NULL};
	struct pf_err err = PF_ERR_INIT;

	CHECK(pf_confine_files(NULL, NULL, NULL, exec, &err) == 0 && pf_confine_keeper(true, &err) == 0);
	execl("/bin/false", "false", NULL);
	CHECK(errno == EACCES || errno == EPERM);
	execl("/bin/true", "true", NULL);
	return 198;
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

static void test_gate(void **state)
{
	(void)state;
	assert_int_equal(in_child(gate), 0);
	assert_int_equal(in_child(pod), 0);
}

static void test_view(void **state)
{
	(void)state;
	assert_int_equal(in_child(view), 0);
}

static void test_keeper(void **state)
{
	(void)state;
	assert_int_equal(in_child(keeper), 0);
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 1)
		assert_int_equal(in_child(keeper_of_tls), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_files), cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_gate), cmocka_unit_test(test_view), cmocka_unit_test(test_keeper)};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
