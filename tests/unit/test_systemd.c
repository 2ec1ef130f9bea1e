/* What systemd is told of a container's limits, and which unit it is told of, on each kind of host.
 * parallel-safe
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/str.h"
#include "sandbox/cgroup.h"
#include "sandbox/systemd.h"

/* All controllers on v2, or all on v1. */
static struct pf_cgroup_host host_of(bool v2)
{
	struct pf_cgroup_host host;

	memset(&host, 0, sizeof(host));
	host.n_hier = 1;
	host.hier[0].v2 = v2;
	host.v2 = v2 ? 0 : -1;
	return host;
}

static void expect(bool v2, const char *resources, const char *want)
{
	PF_LIMITS struct pf_limits l;
	PF_JSON cJSON *j = cJSON_Parse(resources);
	PF_BUF struct pf_buf got = {0};
	struct pf_cgroup_host host = host_of(v2);
	struct pf_err err = PF_ERR_INIT;

	pf_limits_init(&l);
	assert_non_null(j);
	if (pf_limits_from_oci(j, &l, &err) < 0)
		fail_msg("%s: %s", resources, err.msg);
	char **props = pf_systemd_limits(&l, &host);
	for (char **p = props; *p; p += 3)
		pf_buf_printf(&got, "%s%s %s=%s", p == props ? "" : ", ", p[0], p[1], p[2]);
	pf_strv_free(props);
	assert_string_equal(got.data ? got.data : "", want);
}

/* Each limit is the property that systemd has for it, in its units; what it has none for is not told. */
static void test_limits(void **state)
{
	(void)state;
	expect(true, "{}", "");
	expect(true, "{\"memory\":{\"limit\":1048576,\"reservation\":4096,\"swap\":2097152}}",
		"t MemoryMax=1048576, t MemoryLow=4096, t MemorySwapMax=1048576");
	expect(false, "{\"memory\":{\"limit\":1048576}}", "t MemoryLimit=1048576");
	expect(true, "{\"memory\":{\"limit\":-1},\"pids\":{\"limit\":-1}}",
		"t MemoryMax=18446744073709551615, t TasksMax=18446744073709551615");
	expect(true, "{\"cpu\":{\"shares\":1024}}", "t CPUWeight=100");
	expect(false, "{\"cpu\":{\"shares\":1024}}", "t CPUShares=1024");
	expect(true, "{\"cpu\":{\"quota\":50000}}", "t CPUQuotaPerSecUSec=500000");
	/* Rounded up to systemd's hundredths, so that nobody gets less than was asked for. */
	expect(true, "{\"cpu\":{\"quota\":33333,\"period\":200000}}",
		"t CPUQuotaPeriodUSec=200000, t CPUQuotaPerSecUSec=170000");
	expect(true, "{\"cpu\":{\"quota\":-1}}", "t CPUQuotaPerSecUSec=18446744073709551615");
	expect(true, "{\"cpu\":{\"cpus\":\"0-2,9\",\"mems\":\"0\"}}",
		"y AllowedCPUs=0702, y AllowedMemoryNodes=01");
	expect(false, "{\"cpu\":{\"cpus\":\"0\"}}", "");
	expect(true, "{\"pids\":{\"limit\":33}}", "t TasksMax=33");
	expect(true,
		"{\"unified\":{\"memory.high\":\"5000\",\"cpu.max\":\"20000 50000\",\"io.max\":\"8:0 "
		"rbps=1\"}}",
		"t MemoryHigh=5000, t CPUQuotaPeriodUSec=50000, t CPUQuotaPerSecUSec=400000");
	expect(true, "{\"unified\":{\"memory.max\":\"max\",\"cpuset.cpus\":\"1\"}}",
		"t MemoryMax=18446744073709551615, y AllowedCPUs=02");
}

/* cgroupsPath "slice:prefix:name" is a scope in that slice, and slices nest by their dashes. */
static void test_names(void **state)
{
	static const struct {
		const char *cgroups_path, *path, *unit, *slice;
	} cases[] = {
		{"a-b.slice:cri:x1", "/a.slice/a-b.slice/cri-x1.scope", "cri-x1.scope", "a-b.slice"},
		{":p:x", "/system.slice/p-x.scope", "p-x.scope", "system.slice"},
		{"-.slice::x", "/x.scope", "x.scope", "-.slice"},
	};
	struct pf_err err = PF_ERR_INIT;
	char *unit = NULL, *slice = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *path = pf_cgroup_path_from_oci(cases[i].cgroups_path, "id", true, &err);
		assert_non_null(path);
		assert_string_equal(path, cases[i].path);
		assert_int_equal(pf_systemd_names(path, &unit, &slice, &err), 0);
		assert_string_equal(unit, cases[i].unit);
		assert_string_equal(slice, cases[i].slice);
		free(path);
		free(unit);
		free(slice);
	}
	assert_null(pf_cgroup_path_from_oci("/a/b", "id", true, &err));
	assert_null(pf_cgroup_path_from_oci("a:b", "id", true, &err));
	assert_null(pf_cgroup_path_from_oci("noslice:b:c", "id", true, &err));
	assert_int_equal(pf_systemd_names("/system.slice/a b.scope", &unit, &slice, &err), -1);
	assert_non_null(strstr(err.msg, "cgroupsPath"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
