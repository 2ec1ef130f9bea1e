/* What limits become on each kind of host, without such a host: the probe of other machines' mount tables,
 * OCI resources to limits, limits to file contents (in a tree of plain files that stands in for cgroup v2).
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "sandbox/cgroup_internal.h"

static struct pf_err err;
static char dir[64];

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/pf-test-plan-%d", (int)getpid());
	return mkdir(dir, 0700);
}

static int teardown(void **state)
{
	(void)state;
	return pf_rm_rf_at(AT_FDCWD, dir, &err);
}

static void put(const char *name, const char *text)
{
	PF_FREE char *p = pf_asprintf("%s/%s", dir, name);
	int fd = open(p, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* The file begins with text: a plain file keeps what is longer of the old content. */
static void check(const char *name, const char *text)
{
	char buf[256];
	PF_FREE char *p = pf_asprintf("%s/%s", dir, name);
	assert_true(pf_cg_read(AT_FDCWD, p, buf, sizeof(buf)) >= 0);
	if (!pf_starts_with(buf, text))
		fail_msg("%s is '%s', not '%s'", name, buf, text);
}

static void limits_of(const char *text, struct pf_limits *l)
{
	PF_JSON cJSON *j = pf_json_parse("test", text, strlen(text), &err);
	assert_non_null(j);
	pf_limits_init(l);
	if (pf_limits_from_oci(j, l, &err) < 0)
		fail_msg("%s: %s", text, err.msg);
}

/* A host whose memory, pids, cpu, io, cpuset and hugetlb are all on v2 (or on v1), made by hand. */
static struct pf_cgroup_host host_of(bool v2)
{
	struct pf_cgroup_host h = {.n_hier = 1, .v2 = v2 ? 0 : -1};
	h.hier[0].v2 = v2;
	for (int c = 0; c < PF_CG_CTLS; c++)
		h.where[c] = 0;
	return h;
}

/* The plan as text: "file=value" lines in the order of writing. */
static char *plan_text(bool v2, const char *oci)
{
	PF_LIMITS struct pf_limits l;
	PF_CG_PLAN struct pf_cg_plan p = {0};
	struct pf_cgroup_host h = host_of(v2);
	struct pf_buf b = {0};

	limits_of(oci, &l);
	pf_buf_str(&b, "");
	if (pf_cg_plan_make(&h, &l, &p, &err) < 0) {
		pf_buf_printf(&b, "error %s", pf_err_kind_name(err.kind));
		return b.data;
	}
	for (size_t i = 0; i < p.n; i++)
		pf_buf_printf(&b, "%s%s=%s", i ? "\n" : "", p.w[i].file, p.w[i].value);
	return b.data;
}

/* The same OCI resources, on v2 and on v1, file by file. */
static void test_plans(void **state)
{
	static const struct {
		const char *oci, *v2, *v1;
	} cases[] = {
		{"{}", "", ""},
		{"{\"memory\":{\"limit\":1048576,\"swap\":1048576}}", "memory.max=1048576\nmemory.swap.max=0",
			"memory.limit_in_bytes=1048576\nmemory.memsw.limit_in_bytes=1048576"},
		{"{\"memory\":{\"limit\":1048576,\"swap\":3145728,\"reservation\":4096}}",
			"memory.max=1048576\nmemory.low=4096\nmemory.swap.max=2097152",
			"memory.limit_in_bytes=1048576\nmemory.soft_limit_in_bytes=4096\n"
			"memory.memsw.limit_in_bytes=3145728"},
		{"{\"memory\":{\"limit\":-1,\"swap\":-1}}", "memory.max=max\nmemory.swap.max=max",
			"memory.limit_in_bytes=-1\nmemory.memsw.limit_in_bytes=-1"},
		{"{\"memory\":{\"limit\":0,\"swap\":0,\"disableOOMKiller\":false,\"kernel\":0}}", "", ""},
		{"{\"memory\":{\"swappiness\":10}}", "error unsupported", "memory.swappiness=10"},
		{"{\"memory\":{\"disableOOMKiller\":true}}", "error unsupported", "memory.oom_control=1"},
		{"{\"cpu\":{\"shares\":1024,\"quota\":50000,\"period\":100000}}",
			"cpu.weight=100\ncpu.max=50000 100000",
			"cpu.shares=1024\ncpu.cfs_period_us=100000\ncpu.cfs_quota_us=50000"},
		{"{\"cpu\":{\"quota\":50000}}", "cpu.max=50000", "cpu.cfs_quota_us=50000"},
		{"{\"cpu\":{\"period\":50000}}", "cpu.max== 50000", "cpu.cfs_period_us=50000"},
		{"{\"cpu\":{\"quota\":-1,\"period\":50000,\"burst\":0}}",
			"cpu.max=max 50000\ncpu.max.burst=0",
			"cpu.cfs_period_us=50000\ncpu.cfs_quota_us=-1\ncpu.cfs_burst_us=0"},
		{"{\"cpu\":{\"idle\":1,\"shares\":2}}", "cpu.idle=1", "cpu.idle=1"},
		{"{\"cpu\":{\"realtimeRuntime\":9500}}", "error unsupported", "cpu.rt_runtime_us=9500"},
		{"{\"cpu\":{\"cpus\":\"0-1,3\",\"mems\":\"0\"}}", "cpuset.mems=0\ncpuset.cpus=0-1,3",
			"cpuset.mems=0\ncpuset.cpus=0-1,3"},
		{"{\"pids\":{\"limit\":100}}", "pids.max=100", "pids.max=100"},
		{"{\"pids\":{\"limit\":-1}}", "pids.max=max", "pids.max=max"},
		{"{\"pids\":{\"limit\":0}}", "", ""},
		{"{\"blockIO\":{\"weight\":500,\"throttleReadBpsDevice\":[{\"major\":8,\"minor\":0,\"rate\":"
		 "1000}],"
		 "\"throttleWriteIOPSDevice\":[{\"major\":8,\"minor\":0,\"rate\":5},{\"major\":8,\"minor\":"
		 "16,\"rate\":0}]}}",
			"io.bfq.weight=500\nio.max=8:0 rbps=1000 wiops=5\nio.max=8:16 wiops=max",
			"blkio.bfq.weight=500\nblkio.throttle.read_bps_device=8:0 1000\n"
			"blkio.throttle.write_iops_device=8:0 5\nblkio.throttle.write_iops_device=8:16 0"},
		{"{\"unified\":{\"memory.high\":\"1048576\",\"cgroup.max.descendants\":\"5\"}}",
			"memory.high=1048576\ncgroup.max.descendants=5", "error unsupported"},
		{"{\"unified\":{\"cgroup.kill\":\"1\"}}", "error invalid", "error invalid"},
		{"{\"unified\":{\"../memory.max\":\"1\"}}", "error invalid", "error invalid"},
		{"{\"unified\":{\"memory.max\":\"1\\n2\"}}", "error invalid", "error invalid"},
		{"{\"hugepageLimits\":[{\"pageSize\":\"2MB\",\"limit\":4194304}]}",
			"hugetlb.2MB.max=4194304\nhugetlb.2MB.rsvd.max=4194304",
			"hugetlb.2MB.limit_in_bytes=4194304\nhugetlb.2MB.rsvd.limit_in_bytes=4194304"},
		{"{\"rdma\":{\"mlx5_0\":{\"hcaHandles\":3}}}", "rdma.max=mlx5_0 hca_handle=3",
			"rdma.max=mlx5_0 hca_handle=3"},
		{"{\"network\":{\"priorities\":[]}}", "", ""},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		PF_FREE char *v2 = plan_text(true, cases[i].oci), *v1 = plan_text(false, cases[i].oci);
		assert_string_equal(v2, cases[i].v2);
		assert_string_equal(v1, cases[i].v1);
	}
}

/* Values that are wrong are refused with the field's name. */
static void test_bad_resources(void **state)
{
	static const struct {
		const char *oci, *field;
	} cases[] = {
		{"[]", "resources"},
		{"{\"memory\":1}", "memory"},
		{"{\"memory\":{\"limit\":\"1G\"}}", "memory.limit"},
		{"{\"memory\":{\"limit\":1.5}}", "memory.limit"},
		{"{\"memory\":{\"limit\":100,\"swap\":50}}", "memory.swap"},
		{"{\"memory\":{\"swap\":50}}", "memory.swap"},
		{"{\"memory\":{\"limit\":100,\"reservation\":200}}", "memory.reservation"},
		{"{\"memory\":{\"limit\":100,\"kernel\":50}}", "memory.kernel"},
		{"{\"memory\":{\"swappiness\":101}}", "memory.swappiness"},
		{"{\"cpu\":{\"shares\":-1}}", "cpu.shares"},
		{"{\"cpu\":{\"quota\":-2}}", "cpu.quota"},
		{"{\"cpu\":{\"quota\":10}}", "cpu.quota"},
		{"{\"cpu\":{\"period\":10}}", "cpu.period"},
		{"{\"cpu\":{\"period\":2000000}}", "cpu.period"},
		{"{\"cpu\":{\"cpus\":\"0-\"}}", "cpu.cpus"},
		{"{\"cpu\":{\"cpus\":\"3-1\"}}", "cpu.cpus"},
		{"{\"cpu\":{\"cpus\":\"0\\n1\"}}", "cpu.cpus"},
		{"{\"cpu\":{\"mems\":\"a\"}}", "cpu.mems"},
		{"{\"pids\":{\"limit\":\"10\"}}", "pids.limit"},
		{"{\"blockIO\":{\"weight\":2000}}", "blockIO.weight"},
		{"{\"blockIO\":{\"leafWeight\":100}}", "blockIO.leafWeight"},
		{"{\"blockIO\":{\"throttleReadBpsDevice\":[{\"rate\":5}]}}", "throttleReadBpsDevice[0]"},
		{"{\"blockIO\":{\"throttleReadBpsDevice\":[{\"major\":8,\"minor\":0,\"rate\":-5}]}}",
			"throttleReadBpsDevice[0].rate"},
		{"{\"hugepageLimits\":[{\"pageSize\":\"2mb\",\"limit\":1}]}", "pageSize"},
		{"{\"hugepageLimits\":[{\"pageSize\":\"2MB/..\",\"limit\":1}]}", "pageSize"},
		{"{\"hugepageLimits\":[{\"pageSize\":\"2MB\"}]}", "limit"},
		{"{\"unified\":{\"memory.max\":5}}", "unified.memory.max"},
		{"{\"network\":{\"classID\":5}}", "network"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		PF_LIMITS struct pf_limits l;
		PF_JSON cJSON *j = pf_json_parse("test", cases[i].oci, strlen(cases[i].oci), &err);
		assert_non_null(j);
		pf_limits_init(&l);
		assert_int_equal(pf_limits_from_oci(j, &l, &err), -1);
		if (!strstr(err.msg, cases[i].field))
			fail_msg("%s: '%s' does not name %s", cases[i].oci, err.msg, cases[i].field);
	}
}

/* The conversion keeps minimum, default and maximum, never falls, and goes back to where it came from. */
static void test_shares(void **state)
{
	int64_t last = 0;
	(void)state;
	assert_int_equal(pf_cpu_shares_to_weight(2), 1);
	assert_int_equal(pf_cpu_shares_to_weight(1024), 100);
	assert_int_equal(pf_cpu_shares_to_weight(262144), 10000);
	assert_int_equal(pf_cpu_weight_to_shares(1), 2);
	assert_int_equal(pf_cpu_weight_to_shares(100), 1024);
	assert_int_equal(pf_cpu_weight_to_shares(10000), 262144);
	for (int64_t s = 2; s <= 262144; s += 7) {
		int64_t w = pf_cpu_shares_to_weight(s);
		assert_true(w >= last && w >= 1 && w <= 10000);
		last = w;
	}
	for (int64_t w = 1; w <= 10000; w++) {
		int64_t back = pf_cpu_shares_to_weight(pf_cpu_weight_to_shares(w));
		assert_true(back >= w - 1 && back <= w + 1);
	}
}

/* Other machines' mount tables: v1 alone with controllers mounted together, hybrid, read-only, several
 * mounts. */
static void test_probe(void **state)
{
	struct pf_cgroup_host h;
	PF_FREE char *hybrid =
		pf_asprintf("31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"
			    "32 31 0:29 / %s rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
			    "33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
			    "34 31 0:31 / /ro\\040place/memory ro,nosuid - cgroup cgroup rw,memory\n"
			    "35 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
			    "36 31 0:32 / /sys/fs/cgroup/pi\\040ds ro - cgroup cgroup rw,pids\n",
			dir);
	(void)state;
	assert_int_equal(
		pf_cgroup_probe_mountinfo(&h,
			"40 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n"
			"41 31 0:31 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n",
			&err),
		0);
	assert_string_equal(pf_cgroup_mode(&h), "v1");
	assert_int_equal(h.n_hier, 2);
	assert_int_equal(h.where[PF_CG_CPU], 0);
	assert_int_equal(h.where[PF_CG_CPUACCT], 0);
	assert_int_equal(h.where[PF_CG_IO], 1);
	assert_int_equal(h.where[PF_CG_MEMORY], -1);
	put("cgroup.controllers", "hugetlb misc\n");
	assert_int_equal(pf_cgroup_probe_mountinfo(&h, hybrid, &err), 0);
	assert_string_equal(pf_cgroup_mode(&h), "hybrid");
	assert_string_equal(h.hier[h.v2].mount, dir);
	assert_int_equal(h.where[PF_CG_HUGETLB], h.v2);
	assert_int_equal(h.where[PF_CG_FREEZER], h.v2);
	assert_int_equal(h.where[PF_CG_CPU], -1);
	assert_string_equal(h.hier[h.where[PF_CG_MEMORY]].mount, "/sys/fs/cgroup/memory");
	assert_string_equal(h.hier[h.where[PF_CG_PIDS]].mount, "/sys/fs/cgroup/pi ds");
	assert_true(h.hier[h.where[PF_CG_PIDS]].readonly);
	assert_int_equal(pf_cgroup_probe_mountinfo(&h, "22 1 0:1 / / rw - ext4 /dev/vda rw\n", &err), -1);
	assert_int_equal(err.kind, PF_ERR_UNSUPPORTED);
}

/* On v2: controllers are handed down from the root through every level, limits arrive in their files, a
 * period alone keeps the quota, and the numbers of the report come from the v2 files. */
static void test_v2_files(void **state)
{
	static const char *const levels[] = {"", "a/", "a/b/"};
	PF_LIMITS struct pf_limits l;
	struct pf_cgroup *cg = NULL;
	struct pf_cgroup_stats st;
	PF_FREE char *mounts = pf_asprintf("30 23 0:26 / %s rw - cgroup2 cgroup rw\n", dir);
	PF_FREE char *a = pf_asprintf("%s/a", dir), *b = pf_asprintf("%s/a/b", dir);
	struct pf_cgroup_host h;
	(void)state;
	assert_int_equal(mkdir(a, 0700), 0);
	assert_int_equal(mkdir(b, 0700), 0);
	for (int i = 0; i < 3; i++) {
		char name[64];
		snprintf(name, sizeof(name), "%scgroup.controllers", levels[i]);
		put(name, i == 0 ? "cpuset cpu io memory pids\n" : "\n");
		snprintf(name, sizeof(name), "%scgroup.subtree_control", levels[i]);
		put(name, i == 0 ? "cpuset cpu io memory\n" : "cpu io memory cpuset\n");
	}
	put("a/b/cgroup.procs", "");
	put("a/b/memory.max", "max\n");
	put("a/b/memory.high", "max\n");
	put("a/b/memory.swap.max", "max\n");
	put("a/b/memory.oom.group", "0\n");
	put("a/b/cpu.max", "max 100000\n");
	put("a/b/cpu.weight", "");
	put("a/b/pids.max", "");
	put("a/b/io.weight", "");
	put("a/b/io.max", "");
	assert_int_equal(pf_cgroup_probe_mountinfo(&h, mounts, &err), 0);
	assert_string_equal(pf_cgroup_mode(&h), "v2");
	limits_of("{\"memory\":{\"limit\":67108864,\"swap\":67108864},\"cpu\":{\"period\":50000,\"shares\":"
		  "512},"
		  "\"pids\":{\"limit\":32},\"blockIO\":{\"weight\":500},\"unified\":{\"memory.high\":"
		  "\"60000000\"}}",
		&l);
	if (pf_cgroup_create(&h, "/a/b", &l, PF_CGROUP_ADOPT | PF_CGROUP_OOM_GROUP, &cg, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(pf_cgroup_oom_group(cg));
	assert_false(pf_cgroup_clone_safe(cg));
	check("cgroup.subtree_control", "+pids");
	check("a/cgroup.subtree_control", "+pids");
	check("a/b/memory.max", "67108864");
	check("a/b/memory.swap.max", "0");
	check("a/b/memory.high", "60000000");
	check("a/b/memory.oom.group", "1");
	check("a/b/pids.max", "32");
	check("a/b/cpu.weight", "59");
	check("a/b/cpu.max", "max 50000");
	/* 10…1000 onto 1…10000, as other runtimes have it. */
	check("a/b/io.weight", "4950");
	put("a/b/cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 9\nnr_throttled "
			    "4\nthrottled_usec 77\n");
	put("a/b/memory.current", "4096\n");
	put("a/b/memory.peak", "8192\n");
	put("a/b/memory.events", "low 0\nhigh 0\nmax 6\noom 2\noom_kill 1\noom_group_kill 0\n");
	put("a/b/memory.events.local", "low 0\nhigh 0\nmax 5\noom 2\noom_kill 1\n");
	put("a/b/memory.stat", "anon 100\nfile 200\ninactive_anon 7\ninactive_file 50\n");
	put("a/b/io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0 "
			   "rios=1 wios=0\n");
	put("a/b/pids.max", "max\n");
	put("a/b/pids.current", "3\n");
	assert_int_equal(pf_cgroup_stats(cg, &st, &err), 0);
	assert_int_equal(st.cpu_usage_us, 5);
	assert_int_equal(st.cpu_throttled, 4);
	assert_int_equal(st.cpu_throttled_us, 77);
	assert_int_equal(st.memory_peak, 8192);
	assert_int_equal(st.memory_limit_hits, 5);
	assert_int_equal(st.oom_kills, 1);
	assert_int_equal(st.memory_inactive_file, 50);
	assert_int_equal(st.io_read_bytes, 15);
	assert_int_equal(st.io_writes, 2);
	assert_int_equal(st.pids_limit, PF_LIMIT_NONE);
	assert_int_equal(st.pids_peak, -1);
	PF_JSON cJSON *j = pf_cgroup_stats_json(&st);
	PF_FREE char *text = pf_json_text(j);
	assert_non_null(strstr(text, "\"limit\":null"));
	assert_null(strstr(text, "-1"));
	pf_cgroup_free(cg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plans),
		cmocka_unit_test(test_bad_resources),
		cmocka_unit_test(test_shares),
		cmocka_unit_test_setup_teardown(test_probe, setup, teardown),
		cmocka_unit_test_setup_teardown(test_v2_files, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
