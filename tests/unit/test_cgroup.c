/* Control groups for real, on whatever this host has: limits bite, leaves have limits of their own, freeze,
 * kill and wait work, updates go both ways, failures and removals leave nothing behind in any hierarchy. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/cgroup.h"

static struct pf_cgroup_host host;
static struct pf_err err;
static char top[64];

#define OK(e)                                            \
	do {                                             \
		if ((e) < 0)                             \
			fail_msg("%s: %s", #e, err.msg); \
	} while (0)

static char *path_of(const char *name)
{
	return pf_asprintf("%s/%s", top, name);
}

/* How many hierarchies have path. */
static int places(const char *path)
{
	int n = 0;
	for (int h = 0; h < host.n_hier; h++) {
		PF_FREE char *p = pf_asprintf("%s%s", host.hier[h].mount, path);
		n += access(p, F_OK) == 0;
	}
	return n;
}

static void read_at(enum pf_cg_ctl ctl, const char *path, const char *file, char *buf, size_t len)
{
	PF_FREE char *p = pf_asprintf("%s%s/%s", host.hier[host.where[ctl]].mount, path, file);
	int fd = open(p, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	ssize_t n = read(fd, buf, len - 1);
	close(fd);
	buf[n > 0 ? n : 0] = '\0';
	buf[strcspn(buf, "\n")] = '\0';
}

static bool on_v2(enum pf_cg_ctl ctl)
{
	return host.where[ctl] >= 0 && host.hier[host.where[ctl]].v2;
}

/* Born in cg as a sandbox's process is: cloned into the v2 tree, joining the rest itself. */
static pid_t spawn_unheard(struct pf_cgroup *cg, int (*fn)(void *), void *arg, int *pidfd, int ready)
{
	struct pf_cgroup_join join;
	bool clone_in = pf_cgroup_clone_safe(cg);
	struct clone_args args = {.flags = CLONE_PIDFD | (clone_in ? CLONE_INTO_CGROUP : 0),
		.pidfd = (uint64_t)(uintptr_t)pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = clone_in ? (unsigned)pf_cgroup_fd(cg) : 0};

	OK(pf_cgroup_join_open(cg, !clone_in, &join, &err));
	pid_t pid = pf_clone3(&args);
	assert_true(pid >= 0);
	if (pid == 0) {
		if (pf_cgroup_join_self(&join) < 0)
			_exit(99);
		if (ready >= 0)
			close(ready);
		_exit(fn(arg));
	}
	pf_cgroup_join_close(&join);
	return pid;
}

/* The same, and it has joined. */
static pid_t spawn(struct pf_cgroup *cg, int (*fn)(void *), void *arg, int *pidfd)
{
	int p[2];
	char c;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid_t pid = spawn_unheard(cg, fn, arg, pidfd, p[1]);
	close(p[1]);
	assert_int_equal(read(p[0], &c, 1), 0);
	close(p[0]);
	return pid;
}

static int reap(pid_t pid, int pidfd)
{
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(pidfd);
	return status;
}

static int sleeper(void *arg)
{
	(void)arg;
	while (pause() < 0)
		;
	return 0;
}

static int hog(void *arg)
{
	size_t n = (size_t) * (int64_t *)arg;
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return 98;
	for (size_t i = 0; i < n; i += 4096)
		((volatile char *)p)[i] = 1;
	return 0;
}

static int forker(void *arg)
{
	int made = 0, rc = 0;
	for (int i = 0; i < *(int *)arg; i++) {
		pid_t p = fork();
		if (p == 0) {
			pause();
			_exit(0);
		}
		if (p < 0) {
			rc = errno == EAGAIN ? 100 + made : 98;
			break;
		}
		made++;
	}
	signal(SIGTERM, SIG_IGN);
	kill(0, SIGTERM);
	return rc;
}

static int fork_in_group(void *arg)
{
	setpgid(0, 0);
	return forker(arg);
}

static int burner(void *arg)
{
	struct timespec a, b;
	(void)arg;
	clock_gettime(CLOCK_MONOTONIC, &a);
	do
		clock_gettime(CLOCK_MONOTONIC, &b);
	while ((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 < 400);
	return 0;
}

static struct pf_cgroup *make(const char *name, const struct pf_limits *l, unsigned flags)
{
	struct pf_cgroup *cg = NULL;
	PF_FREE char *p = path_of(name);
	OK(pf_cgroup_create(&host, p, l, flags, &cg, &err));
	return cg;
}

static void destroy(struct pf_cgroup *cg)
{
	PF_FREE char *p = pf_strdup(pf_cgroup_path(cg));
	OK(pf_cgroup_remove(cg, 5000, &err));
	assert_int_equal(places(p), 0);
	pf_cgroup_free(cg);
}

static int setup(void **state)
{
	(void)state;
	snprintf(top, sizeof(top), "/pf-test-%d", (int)getpid());
	return 0;
}

/* Root's subtree_control as it was before test_v2_controller: with or without hugetlb. */
static bool lent_hugetlb;

static void root_control(const char *word)
{
	PF_FREE char *p = pf_asprintf("%s/cgroup.subtree_control", host.hier[host.v2].mount);
	(void)pf_write_pseudo_at(AT_FDCWD, p, word);
}

/* Whatever a failed test left: kill it, remove it. */
static int teardown(void **state)
{
	struct pf_cgroup *cg = NULL;
	struct pf_err e = PF_ERR_INIT;
	(void)state;
	if (host.n_hier > 0 && pf_cgroup_open(&host, top, &cg, &e) == 0) {
		(void)pf_cgroup_kill(cg, &e);
		(void)pf_cgroup_remove(cg, 5000, &e);
	}
	pf_cgroup_free(cg);
	if (lent_hugetlb)
		root_control("-hugetlb");
	lent_hugetlb = false;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return host.n_hier > 0 ? places(top) : 0;
}

static void need_root(void)
{
	if (host.n_hier == 0 || geteuid() != 0 || host.where[PF_CG_MEMORY] < 0 ||
		host.where[PF_CG_PIDS] < 0 || host.where[PF_CG_CPU] < 0) {
		print_message("needs root and the memory, pids and cpu controllers\n");
		skip();
	}
}

/* The probe finds what is there and doctor can show it. */
static void test_probe(void **state)
{
	(void)state;
	if (pf_cgroup_probe(&host, &err) < 0) {
		assert_int_equal(err.kind, PF_ERR_UNSUPPORTED);
		print_message("no cgroups here: %s\n", err.msg);
		skip();
	}
	PF_FREE char *self = pf_cgroup_self(&host, &err);
	assert_non_null(self);
	cJSON *j = pf_cgroup_host_json(&host);
	assert_string_equal(cJSON_GetObjectItemCaseSensitive(j, "mode")->valuestring, pf_cgroup_mode(&host));
	cJSON_Delete(j);
}

/* The v1 hierarchies of a hybrid host without its v2 tree: what a v1 host has. */
static void test_probe_v1(void **state)
{
	PF_FREE char *text = NULL;
	PF_BUF struct pf_buf v1 = {0};
	char *save = NULL;
	(void)state;
	assert_int_equal(pf_read_pseudo_at(AT_FDCWD, "/proc/self/mountinfo", 1 << 24, &text, &err), 0);
	pf_buf_str(&v1, "");
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!strstr(line, " - cgroup2 "))
			pf_buf_printf(&v1, "%s\n", line);
	if (pf_cgroup_probe_mountinfo(&host, v1.data, &err) < 0 || host.where[PF_CG_FREEZER] < 0) {
		memset(&host, 0, sizeof(host));
		print_message("no cgroup v1 here\n");
		skip();
	}
	assert_string_equal(pf_cgroup_mode(&host), "v1");
}

/* A process beyond the memory limit is killed for it, the count says so, the notice arrives; nothing is left.
 */
static void test_memory(void **state)
{
	PF_LIMITS struct pf_limits l;
	struct pf_cgroup_stats st;
	int pidfd;
	int64_t want = 64 << 20;
	(void)state;
	need_root();
	pf_limits_init(&l);
	l.memory = 16 << 20;
	l.memory_swap = 0;
	struct pf_cgroup *cg = make("memory", &l, 0);
	int notice = pf_cgroup_oom_fd(cg, &err);
	OK(notice);
	assert_int_equal(pf_cgroup_oom_kills(cg), 0);
	int status = reap(spawn(cg, hog, &want, &pidfd), pidfd);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	struct pollfd p = {.fd = notice, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 5000), 1);
	pf_cgroup_oom_drain(notice);
	close(notice);
	assert_int_equal(pf_cgroup_oom_kills(cg), 1);
	OK(pf_cgroup_stats(cg, &st, &err));
	assert_int_equal(st.oom_kills, 1);
	assert_int_equal(st.memory_limit, 16 << 20);
	assert_true(st.memory_peak > 8 << 20 && st.memory_peak <= 16 << 20);
	assert_true(st.memory_limit_hits > 0);
	want = 4 << 20;
	status = reap(spawn(cg, hog, &want, &pidfd), pidfd);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	destroy(cg);
}

/* One process too many is EAGAIN, and counted. */
static void test_pids(void **state)
{
	PF_LIMITS struct pf_limits l;
	struct pf_cgroup_stats st;
	int pidfd, n = 20;
	(void)state;
	need_root();
	pf_limits_init(&l);
	l.pids = 5;
	struct pf_cgroup *cg = make("pids", &l, 0);
	int status = reap(spawn(cg, fork_in_group, &n, &pidfd), pidfd);
	assert_int_equal(WEXITSTATUS(status), 104);
	OK(pf_cgroup_stats(cg, &st, &err));
	assert_int_equal(st.pids_limit, 5);
	assert_int_equal(st.pids_limit_hits, 1);
	if (st.pids_peak >= 0)
		assert_int_equal(st.pids_peak, 5);
	OK(pf_cgroup_kill(cg, &err));
	assert_int_equal(pf_cgroup_wait_empty(cg, 5000, &err), 1);
	destroy(cg);
}

/* A cpu quota throttles, and the report tells how often; cpu time used is the process's. */
static void test_cpu(void **state)
{
	PF_LIMITS struct pf_limits l;
	struct pf_cgroup_stats st;
	char text[64];
	int pidfd;
	(void)state;
	need_root();
	pf_limits_init(&l);
	/* Less than falls to it on a machine with much else to do, where it may want more than one go. */
	l.cpu_quota_us = 4000;
	l.cpu_period_us = 100000;
	l.cpu_weight = 100;
	struct pf_cgroup *cg = make("cpu", &l, 0);
	int goes = 0;
	do {
		assert_int_equal(reap(spawn(cg, burner, NULL, &pidfd), pidfd), 0);
		OK(pf_cgroup_stats(cg, &st, &err));
	} while (st.cpu_throttled == 0 && ++goes < 30);
	assert_true(st.cpu_throttled >= 1);
	assert_true(st.cpu_usage_us > 2000 && st.cpu_usage_us < 400000 * (goes + 1));
	PF_FREE char *p = path_of("cpu");
	read_at(PF_CG_CPU, p, on_v2(PF_CG_CPU) ? "cpu.weight" : "cpu.shares", text, sizeof(text));
	assert_string_equal(text, on_v2(PF_CG_CPU) ? "100" : "1024");
	cJSON *j = pf_cgroup_stats_json(&st);
	assert_true(cJSON_GetObjectItemCaseSensitive(
			    cJSON_GetObjectItemCaseSensitive(j, "cpu"), "usage_us") != NULL);
	cJSON_Delete(j);
	destroy(cg);
}

/* One exec hits its own memory limit and dies of it while the sandbox lives on; the leaf is gone afterwards
 * and the next leaf of the same name is as good as new. */
static void test_leaf(void **state)
{
	PF_LIMITS struct pf_limits box, own;
	struct pf_cgroup *init = NULL, *x = NULL;
	int pidfd_init, pidfd, n = 20;
	int64_t want = 48 << 20;
	(void)state;
	need_root();
	pf_limits_init(&box);
	pf_limits_init(&own);
	box.memory = 128 << 20;
	box.pids = 64;
	own.memory = 16 << 20;
	own.memory_swap = 0;
	own.pids = 4;
	struct pf_cgroup *cg = make("leaf", &box, PF_CGROUP_LEAVES);
	OK(pf_cgroup_leaf(cg, "init", NULL, 0, &init, &err));
	pid_t pid = spawn(init, sleeper, NULL, &pidfd_init);
	for (int round = 0; round < 2; round++) {
		OK(pf_cgroup_leaf(cg, "x1", &own, PF_CGROUP_OOM_GROUP, &x, &err));
		assert_int_equal(pf_cgroup_oom_group(x), on_v2(PF_CG_MEMORY));
		int status = reap(spawn(x, hog, &want, &pidfd), pidfd);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		/* A kernel that kills the group may count the one at fault twice. */
		assert_in_range(pf_cgroup_oom_kills(x), 1, on_v2(PF_CG_MEMORY) ? 2 : 1);
		status = reap(spawn(x, fork_in_group, &n, &pidfd), pidfd);
		assert_int_equal(WEXITSTATUS(status), 103);
		assert_false(pf_pidfd_ended(pidfd_init));
		OK(pf_cgroup_kill(x, &err));
		destroy(x);
	}
	pid_t *pids;
	size_t np;
	OK(pf_cgroup_pids(cg, &pids, &np, &err));
	assert_int_equal(np, 1);
	assert_int_equal(pids[0], pid);
	free(pids);
	/* The same amount is fine without a limit of its own. */
	OK(pf_cgroup_leaf(cg, "x2", NULL, 0, &x, &err));
	assert_int_equal(reap(spawn(x, hog, &want, &pidfd), pidfd), 0);
	struct pf_cgroup_stats st;
	OK(pf_cgroup_stats(x, &st, &err));
	assert_true(st.cpu_usage_us > 0);
	destroy(x);
	/* With PF_CGROUP_ACCOUNT memory is counted all the same. */
	OK(pf_cgroup_leaf(cg, "x3", NULL, PF_CGROUP_ACCOUNT, &x, &err));
	assert_int_equal(reap(spawn(x, hog, &want, &pidfd), pidfd), 0);
	OK(pf_cgroup_stats(x, &st, &err));
	assert_true(st.memory_peak >= want);
	destroy(x);
	assert_int_equal(pf_cgroup_leaf(cg, "../x", NULL, 0, &x, &err), -1);
	OK(pf_cgroup_kill(cg, &err));
	(void)reap(pid, pidfd_init);
	pf_cgroup_free(init);
	destroy(cg);
}

/* A sandbox that was removed does not come back, without its limits, by a leaf of it. */
static void test_leaf_of_none(void **state)
{
	struct pf_cgroup *leaf = NULL, *other = NULL;
	(void)state;
	need_root();
	struct pf_cgroup *cg = make("none", NULL, PF_CGROUP_LEAVES);
	OK(pf_cgroup_open(&host, pf_cgroup_path(cg), &other, &err));
	OK(pf_cgroup_remove(other, 5000, &err));
	pf_cgroup_free(other);
	assert_int_equal(pf_cgroup_leaf(cg, "x1", NULL, PF_CGROUP_ACCOUNT, &leaf, &err), -1);
	assert_int_equal(pf_cgroup_leaf(cg, "x1", NULL, 0, &leaf, &err), -1);
	assert_int_equal(err.kind, PF_ERR_NOT_FOUND);
	assert_int_equal(places(pf_cgroup_path(cg)), 0);
	pf_cgroup_free(cg);
}

/* Frozen means no process runs; thawed they go on; a frozen box can be killed. */
static void test_freeze_kill(void **state)
{
	int pidfd, pidfd2;
	(void)state;
	need_root();
	struct pf_cgroup *cg = make("freeze", NULL, 0);
	pid_t a = spawn(cg, sleeper, NULL, &pidfd);
	OK(pf_cgroup_freeze(cg, true, 5000, &err));
	assert_int_equal(pf_cgroup_is_frozen(cg, &err), 1);
	pid_t b = spawn_unheard(cg, burner, NULL, &pidfd2, -1);
	assert_int_equal(pf_pidfd_wait(pidfd2, 600), 0);
	OK(pf_cgroup_freeze(cg, false, 5000, &err));
	assert_int_equal(WEXITSTATUS(reap(b, pidfd2)), 0);
	assert_int_equal(pf_cgroup_is_empty(cg, &err), 0);
	assert_int_equal(pf_cgroup_wait_empty(cg, 20, &err), 0);
	OK(pf_cgroup_freeze(cg, true, 5000, &err));
	OK(pf_cgroup_kill(cg, &err));
	assert_int_equal(pf_cgroup_wait_empty(cg, 5000, &err), 1);
	int status = reap(a, pidfd);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	destroy(cg);
}

/* A cgroup that was killed is not cloned into again, by this handle or one that does not know; joining works.
 */
static void test_kill_trap(void **state)
{
	struct pf_cgroup *again = NULL;
	int pidfd;
	int64_t want = 4096;
	(void)state;
	need_root();
	struct pf_cgroup *cg = make("trap", NULL, 0);
	assert_int_equal(pf_cgroup_clone_safe(cg), host.v2 >= 0);
	OK(pf_cgroup_kill(cg, &err));
	assert_false(pf_cgroup_clone_safe(cg));
	assert_int_equal(reap(spawn(cg, hog, &want, &pidfd), pidfd), 0);
	OK(pf_cgroup_open(&host, pf_cgroup_path(cg), &again, &err));
	assert_false(pf_cgroup_clone_safe(again));
	assert_int_equal(reap(spawn(again, hog, &want, &pidfd), pidfd), 0);
	pf_cgroup_free(again);
	/* Made anew over the empty leftover, it is safe again. */
	pf_cgroup_free(cg);
	cg = make("trap", NULL, 0);
	assert_int_equal(pf_cgroup_clone_safe(cg), host.v2 >= 0);
	assert_int_equal(reap(spawn(cg, hog, &want, &pidfd), pidfd), 0);
	destroy(cg);
}

/* A path in use is refused; asked to, it is taken over with its processes. */
static void test_exists(void **state)
{
	struct pf_cgroup *two = NULL;
	PF_FREE char *p = path_of("exists");
	PF_LIMITS struct pf_limits l;
	struct pf_cgroup_stats st;
	int pidfd;
	(void)state;
	need_root();
	struct pf_cgroup *cg = make("exists", NULL, 0);
	pid_t pid = spawn(cg, sleeper, NULL, &pidfd);
	assert_int_equal(pf_cgroup_create(&host, p, NULL, 0, &two, &err), -1);
	assert_int_equal(err.kind, PF_ERR_EXISTS);
	assert_int_equal(kill(pid, 0), 0);
	pf_limits_init(&l);
	l.pids = 7;
	OK(pf_cgroup_create(&host, p, &l, PF_CGROUP_ADOPT, &two, &err));
	OK(pf_cgroup_stats(two, &st, &err));
	assert_int_equal(st.pids_current, 1);
	assert_int_equal(st.pids_limit, 7);
	pf_cgroup_free(two);
	/* With a process in it removal does not kill but says so. */
	assert_int_equal(pf_cgroup_remove(cg, 10, &err), -1);
	assert_int_equal(err.kind, PF_ERR_STATE);
	assert_int_equal(kill(pid, 0), 0);
	OK(pf_cgroup_kill(cg, &err));
	(void)reap(pid, pidfd);
	destroy(cg);
}

/* Limits of a live box rise and fall; a value that the kernel refuses leaves the others as they were. */
static void test_update(void **state)
{
	PF_LIMITS struct pf_limits l;
	struct pf_cgroup_stats st;
	static const int64_t steps[] = {256 << 20, 32 << 20, 512 << 20, 16 << 20, PF_LIMIT_NONE, 64 << 20};
	int pidfd;
	(void)state;
	need_root();
	pf_limits_init(&l);
	l.memory = 64 << 20;
	l.memory_swap = 0;
	l.cpu_quota_us = 50000;
	l.cpu_period_us = 100000;
	l.pids = 10;
	struct pf_cgroup *cg = make("update", &l, 0);
	pid_t pid = spawn(cg, sleeper, NULL, &pidfd);
	l.cpu_quota_us = l.cpu_period_us = l.pids = -1;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		l.memory = steps[i];
		l.memory_swap = i % 2 ? -1 : i == 2 ? 128 << 20 : 0;
		OK(pf_cgroup_update(cg, &l, &err));
		OK(pf_cgroup_stats(cg, &st, &err));
		assert_int_equal(st.memory_limit, steps[i]);
	}
	pf_limits_init(&l);
	l.cpu_period_us = 50000;
	OK(pf_cgroup_update(cg, &l, &err));
	/* pids and memory come before the cpuset, which names a cpu that does not exist. */
	pf_limits_init(&l);
	l.memory = 99 << 20;
	l.cpu_quota_us = 20000;
	l.cpuset_cpus = pf_strdup("4095");
	l.pids = 3;
	assert_int_equal(pf_cgroup_update(cg, &l, &err), -1);
	assert_non_null(strstr(err.msg, "cpuset"));
	OK(pf_cgroup_stats(cg, &st, &err));
	assert_int_equal(st.memory_limit, 64 << 20);
	assert_int_equal(st.pids_limit, 10);
	char text[64];
	read_at(PF_CG_CPU, pf_cgroup_path(cg), on_v2(PF_CG_CPU) ? "cpu.max" : "cpu.cfs_quota_us", text,
		sizeof(text));
	assert_string_equal(text, on_v2(PF_CG_CPU) ? "50000 50000" : "50000");
	pf_limits_done(&l);
	/* Below what is in use, when asked to check. */
	l.memory = 4096;
	l.check_before_update = true;
	OK(pf_cgroup_stats(cg, &st, &err));
	if (st.memory_current > 4096) {
		assert_int_equal(pf_cgroup_update(cg, &l, &err), -1);
		assert_int_equal(err.kind, PF_ERR_STATE);
	}
	OK(pf_cgroup_kill(cg, &err));
	(void)reap(pid, pidfd);
	destroy(cg);
}

/* A controller that the box did not need so far: the processes are brought under it by an update. */
static void test_update_joins(void **state)
{
	PF_LIMITS struct pf_limits l;
	char text[64];
	int pidfd;
	(void)state;
	need_root();
	if (host.where[PF_CG_CPUSET] < 0)
		skip();
	struct pf_cgroup *cg = make("late", NULL, 0);
	pid_t pid = spawn(cg, sleeper, NULL, &pidfd);
	pf_limits_init(&l);
	l.cpuset_cpus = pf_strdup("0");
	OK(pf_cgroup_update(cg, &l, &err));
	read_at(PF_CG_CPUSET, pf_cgroup_path(cg), "cpuset.cpus", text, sizeof(text));
	assert_string_equal(text, "0");
	cpu_set_t set;
	assert_int_equal(sched_getaffinity(pid, sizeof(set), &set), 0);
	assert_int_equal(CPU_COUNT(&set), 1);
	OK(pf_cgroup_kill(cg, &err));
	(void)reap(pid, pidfd);
	destroy(cg);
}

/* A limit that cannot be had is an error that names it, and nothing was made anywhere. */
static void test_impossible(void **state)
{
	PF_LIMITS struct pf_limits l;
	struct pf_cgroup *cg = NULL;
	struct pf_cgroup_host without = host;
	PF_FREE char *p = path_of("impossible");
	(void)state;
	need_root();
	pf_limits_init(&l);
	l.pids = 5;
	without.where[PF_CG_PIDS] = -1;
	assert_int_equal(pf_cgroup_create(&without, p, &l, 0, &cg, &err), -1);
	assert_int_equal(err.kind, PF_ERR_UNSUPPORTED);
	assert_non_null(strstr(err.msg, "pids"));
	assert_non_null(strstr(err.msg, "remedy"));
	l.cpuset_cpus = pf_strdup("4095");
	if (host.where[PF_CG_CPUSET] >= 0) {
		assert_int_equal(pf_cgroup_create(&host, p, &l, 0, &cg, &err), -1);
		assert_non_null(strstr(err.msg, "cpuset"));
	}
	pf_limits_done(&l);
	l.unified = pf_calloc(3, sizeof(char *));
	l.unified[0] = pf_strdup("cgroup.procs");
	l.unified[1] = pf_strdup("1");
	assert_int_equal(pf_cgroup_create(&host, p, &l, 0, &cg, &err), -1);
	assert_int_equal(err.kind, PF_ERR_INVALID);
	assert_int_equal(places(p), 0);
	assert_int_equal(places(top), 0);
}

/* Paths that would lead anywhere else are refused. */
static void test_paths(void **state)
{
	static const char *const bad[] = {"/", "", "x", "/a/../b", "/..", "/a/b/..", "/a\nb", "//"};
	struct pf_cgroup *cg = NULL;
	(void)state;
	need_root();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(pf_cgroup_create(&host, bad[i], NULL, 0, &cg, &err), -1);
		assert_int_equal(err.kind, PF_ERR_INVALID);
		assert_int_equal(pf_cgroup_open(&host, bad[i], &cg, &err), -1);
	}
	assert_int_equal(pf_cgroup_open(&host, "/pf-no-such-cgroup", &cg, &err), -1);
	assert_int_equal(err.kind, PF_ERR_NOT_FOUND);
	char *p = pf_cgroup_path_from_oci(NULL, "abc", false, &err);
	assert_string_equal(p, "/pinfold/abc");
	free(p);
	p = pf_cgroup_path_from_oci("kube/./pod//c", "abc", false, &err);
	assert_string_equal(p, "/kube/pod/c");
	free(p);
	p = pf_cgroup_path_from_oci("a-b.slice:cri:xyz", "abc", true, &err);
	assert_string_equal(p, "/a.slice/a-b.slice/cri-xyz.scope");
	free(p);
	assert_null(pf_cgroup_path_from_oci("/x/../..", "abc", false, &err));
	assert_null(pf_cgroup_path_from_oci("a.slice:b", "abc", true, &err));
	assert_null(pf_cgroup_path_from_oci("../a.slice:b:c", "abc", true, &err));
}

/* A controller that really is on v2 is handed down from the root, its limit is written, and a parent with
 * processes of its own cannot hand it on. */
static void test_v2_controller(void **state)
{
	PF_LIMITS struct pf_limits l;
	struct pf_cgroup *leaf = NULL;
	char text[64];
	int pidfd;
	(void)state;
	need_root();
	if (!on_v2(PF_CG_HUGETLB) || access("/sys/kernel/mm/hugepages/hugepages-2048kB", F_OK) < 0) {
		print_message("no hugetlb on cgroup v2 here\n");
		skip();
	}
	read_at(PF_CG_HUGETLB, "", "cgroup.subtree_control", text, sizeof(text));
	lent_hugetlb = !strstr(text, "hugetlb");
	pf_limits_init(&l);
	l.hugetlb = pf_calloc(1, sizeof(*l.hugetlb));
	l.n_hugetlb = 1;
	snprintf(l.hugetlb[0].size, sizeof(l.hugetlb[0].size), "2MB");
	l.hugetlb[0].max = 4 << 20;
	struct pf_cgroup *cg = make("deep/huge", &l, 0);
	read_at(PF_CG_HUGETLB, pf_cgroup_path(cg), "hugetlb.2MB.max", text, sizeof(text));
	assert_string_equal(text, "4194304");
	pid_t pid = spawn(cg, sleeper, NULL, &pidfd);
	assert_int_equal(pf_cgroup_leaf(cg, "x1", &l, 0, &leaf, &err), -1);
	assert_int_equal(err.kind, PF_ERR_STATE);
	assert_non_null(strstr(err.msg, "hugetlb"));
	PF_FREE char *p = path_of("deep/huge/x1");
	assert_int_equal(places(p), 0);
	OK(pf_cgroup_kill(cg, &err));
	(void)reap(pid, pidfd);
	OK(pf_cgroup_leaf(cg, "x1", &l, 0, &leaf, &err));
	read_at(PF_CG_HUGETLB, p, "hugetlb.2MB.max", text, sizeof(text));
	assert_string_equal(text, "4194304");
	pf_cgroup_free(leaf);
	destroy(cg);
}

/* Moving somebody by pid works as joining does. */
static void test_attach(void **state)
{
	(void)state;
	need_root();
	struct pf_cgroup *cg = make("attach", NULL, 0);
	struct pf_cgroup_stats st;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(sleeper(NULL));
	OK(pf_cgroup_attach(cg, pid, true, &err));
	OK(pf_cgroup_stats(cg, &st, &err));
	assert_int_equal(st.pids_current, 1);
	OK(pf_cgroup_kill(cg, &err));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	destroy(cg);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
#define ALL                                                                                                 \
	TEST(test_memory), TEST(test_pids), TEST(test_cpu), TEST(test_leaf), TEST(test_leaf_of_none),       \
		TEST(test_freeze_kill), TEST(test_kill_trap), TEST(test_exists), TEST(test_update),         \
		TEST(test_update_joins), TEST(test_impossible), TEST(test_paths), TEST(test_v2_controller), \
		TEST(test_attach)
	const struct CMUnitTest as_found[] = {TEST(test_probe), ALL}, as_v1[] = {TEST(test_probe_v1), ALL};
	int failed = cmocka_run_group_tests_name("cgroups as found", as_found, NULL, NULL);
	return failed + cmocka_run_group_tests_name("cgroups as on v1", as_v1, NULL, NULL);
}
