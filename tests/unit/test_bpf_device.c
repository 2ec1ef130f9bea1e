/* Device rules, asked of the kernel: a process in the cgroup tries to make and open nodes. */
#include <errno.h>
#include <fcntl.h>
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
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "sandbox/bpf_device.h"

static struct pf_cgroup_host host;
static struct pf_cgroup *cg;
static struct pf_err err;
static char dir[64], path[64];

#define OK(e)                                            \
	do {                                             \
		if ((e) < 0)                             \
			fail_msg("%s: %s", #e, err.msg); \
	} while (0)

static bool as_v1;

/* The v1 hierarchies alone, as on a host without a v2 tree. */
static int probe_v1(void)
{
	PF_FREE char *text = NULL;
	PF_BUF struct pf_buf v1 = {0};
	char *save = NULL;

	if (pf_read_pseudo_at(AT_FDCWD, "/proc/self/mountinfo", 1 << 24, &text, &err) < 0)
		return -1;
	pf_buf_str(&v1, "");
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!strstr(line, " - cgroup2 "))
			pf_buf_printf(&v1, "%s\n", line);
	if (pf_cgroup_probe_mountinfo(&host, v1.data, &err) < 0)
		return -1;
	return host.where[PF_CG_DEVICES] < 0 ? -1 : 0;
}

static int setup(void **state)
{
	(void)state;
	cg = NULL;
	snprintf(path, sizeof(path), "/pf-test-dev-%d", (int)getpid());
	snprintf(dir, sizeof(dir), "/tmp/pf-test-dev-%d", (int)getpid());
	if (geteuid() != 0 || (as_v1 ? probe_v1() : pf_cgroup_probe(&host, &err)) < 0)
		return 0;
	(void)mkdir(dir, 0700);
	return pf_cgroup_create(&host, path, NULL, 0, &cg, &err);
}

static int teardown(void **state)
{
	int rc = 0;
	(void)state;
	if (cg) {
		(void)pf_cgroup_kill(cg, &err);
		rc = pf_cgroup_remove(cg, 5000, &err);
		pf_cgroup_free(cg);
	}
	if (pf_rm_rf_at(AT_FDCWD, dir, &err) < 0)
		rc = -1;
	return rc;
}

static void need_cgroup(void)
{
	if (!cg) {
		print_message("needs root and cgroups\n");
		skip();
	}
}

/* errno of one open (access = O_*) or mknod (access = -1) by a process in the cgroup; 0 = allowed. What has
 * no driver behind it answers ENXIO, which means that the filter let it through. */
static int attempt(const char *file, int access, char type, unsigned major, unsigned minor)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct pf_cgroup_join join;
		if (pf_cgroup_join_open(cg, true, &join, &err) < 0 || pf_cgroup_join_self(&join) < 0)
			_exit(255);
		int r = access >= 0 ? open(file, access | O_NONBLOCK | O_CLOEXEC)
				    : mknod(file, (type == 'b' ? S_IFBLK : S_IFCHR) | 0600,
					      makedev(major, minor));
		_exit(r >= 0 || errno == ENXIO ? 0 : errno);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_not_equal(WEXITSTATUS(status), 255);
	return WEXITSTATUS(status);
}

/* A session gets the harmless devices and not one more, and makes no nodes. */
static void test_default(void **state)
{
	PF_DEVICE_RULES struct pf_device_rules r = {0};
	(void)state;
	need_cgroup();
	pf_device_rules_add_default(&r, false);
	OK(pf_device_apply(cg, &r, &err));
	assert_int_equal(attempt("/dev/null", O_RDWR, 0, 0, 0), 0);
	assert_int_equal(attempt("/dev/zero", O_RDONLY, 0, 0, 0), 0);
	assert_int_equal(attempt("/dev/urandom", O_RDONLY, 0, 0, 0), 0);
	assert_int_equal(attempt("/dev/ptmx", O_RDWR | O_NOCTTY, 0, 0, 0), 0);
	PF_FREE char *node = pf_asprintf("%s/kmsg", dir);
	assert_int_equal(mknod(node, S_IFCHR | 0600, makedev(1, 11)), 0);
	assert_int_equal(attempt(node, O_RDONLY, 0, 0, 0), EPERM);
	PF_FREE char *disk = pf_asprintf("%s/disk", dir);
	assert_int_equal(attempt(disk, -1, 'b', 8, 0), EPERM);
	PF_FREE char *null = pf_asprintf("%s/null", dir);
	assert_int_equal(attempt(null, -1, 'c', 1, 3), EPERM);
}

/* What containerd sends, "deny all": the default devices stay, and nodes may be made but not opened. */
static void test_oci(void **state)
{
	static const char text[] =
		"{\"devices\":[{\"allow\":false,\"access\":\"rwm\"},"
		"{\"allow\":true,\"type\":\"c\",\"major\":240,\"minor\":-1,\"access\":\"r\"}]}";
	PF_DEVICE_RULES struct pf_device_rules r = {0};
	PF_JSON cJSON *j = pf_json_parse("test", text, strlen(text), &err);
	(void)state;
	need_cgroup();
	OK(pf_device_rules_from_oci(j, &r, &err));
	OK(pf_device_apply(cg, &r, &err));
	assert_int_equal(attempt("/dev/null", O_RDWR, 0, 0, 0), 0);
	PF_FREE char *disk = pf_asprintf("%s/disk", dir), *own = pf_asprintf("%s/own", dir);
	assert_int_equal(attempt(disk, -1, 'b', 8, 0), 0);
	assert_int_equal(attempt(disk, O_RDONLY, 0, 0, 0), EPERM);
	assert_int_equal(attempt(own, -1, 'c', 240, 7), 0);
	assert_int_equal(attempt(own, O_RDONLY, 0, 0, 0), 0);
	assert_int_equal(attempt(own, O_RDWR, 0, 0, 0), EPERM);
}

/* New rules take the place of the old ones, wider or narrower, and the same ones again are no error. */
static void test_replace(void **state)
{
	PF_DEVICE_RULES struct pf_device_rules none = {0}, some = {0};
	(void)state;
	need_cgroup();
	pf_device_rules_add_default(&some, false);
	for (int i = 0; i < 3; i++) {
		OK(pf_device_apply(cg, &none, &err));
		assert_int_equal(attempt("/dev/null", O_RDONLY, 0, 0, 0), EPERM);
		OK(pf_device_apply(cg, &some, &err));
		OK(pf_device_apply(cg, &some, &err));
		assert_int_equal(attempt("/dev/null", O_RDONLY, 0, 0, 0), 0);
	}
}

/* What the rules mean, said the other way round: forward, one access at a time. */
static bool expected(const struct pf_device_rules *r, char type, int major, int minor, unsigned access)
{
	for (unsigned bit = 1; bit <= PF_DEV_WRITE; bit <<= 1) {
		bool allow = false;
		for (size_t i = 0; i < r->n; i++) {
			const struct pf_device_rule *e = &r->rule[i];
			if ((e->type == 'a' || e->type == type) && (e->major < 0 || e->major == major) &&
				(e->minor < 0 || e->minor == minor) && (e->access & bit))
				allow = e->allow;
		}
		if ((access & bit) && !allow)
			return false;
	}
	return true;
}

/* For any list of rules the last one that names an access decides it, for every combination of accesses at
 * once. */
static void test_last_rule_wins(void **state)
{
	static const struct {
		int flags;
		unsigned access;
	} ways[] = {{-1, PF_DEV_MKNOD}, {O_RDONLY, PF_DEV_READ}, {O_WRONLY, PF_DEV_WRITE},
		{O_RDWR, PF_DEV_READ | PF_DEV_WRITE}};
	PF_FREE char *node = pf_asprintf("%s/any", dir);
	unsigned seed = 1;
	(void)state;
	need_cgroup();
	for (int round = 0; round < 40; round++) {
		PF_DEVICE_RULES struct pf_device_rules r = {0};
		int n = rand_r(&seed) % 7;
		for (int i = 0; i < n; i++)
			pf_device_rules_add(
				&r, (struct pf_device_rule){.allow = rand_r(&seed) % 3 != 0,
					    .type = "abc"[rand_r(&seed) % 3],
					    .major = rand_r(&seed) % 2 ? -1 : 240 + rand_r(&seed) % 2,
					    .minor = rand_r(&seed) % 2 ? -1 : rand_r(&seed) % 2,
					    .access = 1 + (unsigned)rand_r(&seed) % 7});
		OK(pf_device_apply(cg, &r, &err));
		for (int k = 0; k < 4; k++) {
			int major = 240 + k / 2, minor = k % 2;
			for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
				(void)unlink(node);
				if (ways[w].flags >= 0)
					assert_int_equal(
						mknod(node, S_IFCHR | 0600,
							makedev(240 + (unsigned)k / 2, (unsigned)k % 2)),
						0);
				int got = attempt(node, ways[w].flags, 'c', (unsigned)major, (unsigned)minor);
				assert_int_equal(
					got, expected(&r, 'c', major, minor, ways[w].access) ? 0 : EPERM);
			}
		}
	}
}

/* v1 ignores a deny that is narrower than the allow before it; we refuse it instead. */
static void test_v1_refuses(void **state)
{
	PF_DEVICE_RULES struct pf_device_rules r = {0};
	(void)state;
	need_cgroup();
	pf_device_rules_add(&r, (struct pf_device_rule){true, 'c', -1, -1, PF_DEV_ALL});
	pf_device_rules_add(&r, (struct pf_device_rule){false, 'c', 240, 1, PF_DEV_ALL});
	assert_int_equal(pf_device_apply(cg, &r, &err), -1);
	assert_int_equal(err.kind, PF_ERR_UNSUPPORTED);
}

/* Entries that are wrong are refused by name. */
static void test_bad_rules(void **state)
{
	static const char *const bad[] = {"{\"devices\":{}}", "{\"devices\":[1]}", "{\"devices\":[{}]}",
		"{\"devices\":[{\"allow\":\"yes\"}]}", "{\"devices\":[{\"allow\":true,\"type\":\"x\"}]}",
		"{\"devices\":[{\"allow\":true,\"type\":\"\"}]}",
		"{\"devices\":[{\"allow\":true,\"access\":\"rwx\"}]}",
		"{\"devices\":[{\"allow\":true,\"type\":\"c\",\"major\":5000}]}",
		"{\"devices\":[{\"allow\":true,\"type\":\"c\",\"major\":-2}]}"};
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		PF_DEVICE_RULES struct pf_device_rules r = {0};
		PF_JSON cJSON *j = pf_json_parse("test", bad[i], strlen(bad[i]), &err);
		assert_non_null(j);
		assert_int_equal(pf_device_rules_from_oci(j, &r, &err), -1);
		assert_int_equal(err.kind, PF_ERR_INVALID);
		assert_non_null(strstr(err.msg, "devices"));
	}
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest found[] = {TEST(test_default), TEST(test_oci), TEST(test_replace),
		TEST(test_last_rule_wins), TEST(test_bad_rules)};
	const struct CMUnitTest v1[] = {
		TEST(test_default), TEST(test_oci), TEST(test_replace), TEST(test_v1_refuses)};
	int failed = cmocka_run_group_tests_name("devices as found", found, NULL, NULL);
	as_v1 = true;
	return failed + cmocka_run_group_tests_name("devices as on v1", v1, NULL, NULL);
}
