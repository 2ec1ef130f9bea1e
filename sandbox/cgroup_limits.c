/* Theory of operation: from OCI's linux.resources to pf_limits.
 *
 * OCI speaks v1: swap includes memory, cpu has shares, rates of 0 mean "none", -1 means "unlimited" and 0
 * means "not set" for most numbers. pf_limits speaks v2. All differences are settled here, so that nothing
 * after this file knows where a limit came from. */
#include "sandbox/cgroup.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"

void pf_limits_init(struct pf_limits *l)
{
	*l = (struct pf_limits){
		.memory = -1,
		.memory_high = -1,
		.memory_low = -1,
		.memory_swap = -1,
		.swappiness = -1,
		.pids = -1,
		.cpu_quota_us = -1,
		.cpu_period_us = -1,
		.cpu_burst_us = -1,
		.cpu_weight = -1,
		.cpu_shares = -1,
		.cpu_idle = -1,
		.cpu_rt_runtime_us = -1,
		.cpu_rt_period_us = -1,
		.io_weight = -1,
	};
}

void pf_limits_done(struct pf_limits *l)
{
	free(l->cpuset_cpus);
	free(l->cpuset_mems);
	free(l->io);
	free(l->hugetlb);
	pf_strv_free(l->unified);
	pf_limits_init(l);
}

#define LN2 0.69314718055994530942
#define LOG2_10 3.32192809488736234787

/* Logarithm and power, far more exact than whole weights need. libm has them too, and would be one more
 * library to load at every start of every program. */
static double log2_of(double x)
{
	double whole = 0, sum = 0;

	while (x >= 2) {
		x /= 2;
		whole++;
	}
	/* ln x = 2 artanh z. x is in [1, 2), so that z <= 1/3. */
	double z = (x - 1) / (x + 1), term = z;
	for (int k = 1; k < 40; k += 2) {
		sum += term / k;
		term *= z * z;
	}
	return whole + 2 * sum / LN2;
}

static double exp2_of(double y)
{
	double power = 1, term = 1, sum = 1;

	while (y >= 1) {
		y -= 1;
		power *= 2;
	}
	while (y < 0) {
		y += 1;
		power /= 2;
	}
	for (int k = 1; k < 25; k++) {
		term *= y * LN2 / k;
		sum += term;
	}
	return power * sum;
}

/* weight = 10^((log2(s)^2 + 125 log2(s)) / 612 - 7/34): the quadratic through (2, 1), (1024, 100) and
 * (262144, 10000) in logarithms. The straight line that was used before made the default of 1024 a weight
 * of 39. */
int64_t pf_cpu_shares_to_weight(int64_t shares)
{
	if (shares <= 2)
		return 1;
	if (shares >= 262144)
		return 10000;
	double l = log2_of((double)shares);
	/* Rounded up. The small term keeps 1024 at 100 where that would lift it to 101. */
	double w = exp2_of(LOG2_10 * ((l * l + 125 * l) / 612 - 7.0 / 34)) - 1e-9;
	return (int64_t)w + ((double)(int64_t)w < w);
}

int64_t pf_cpu_weight_to_shares(int64_t weight)
{
	if (weight <= 1)
		return 2;
	if (weight >= 10000)
		return 262144;
	double c = 612 * (log2_of((double)weight) / LOG2_10 + 7.0 / 34);
	double root = exp2_of(log2_of(125.0 * 125 + 4 * c) / 2);
	return (int64_t)(exp2_of((root - 125) / 2) + 0.5);
}

static const int64_t exact = (int64_t)1 << 53; /* what a JSON number can hold */

/* -1 (and below): lifted; 0: as if it was not there. */
static int limit_of(const cJSON *obj, const char *where, const char *key, int64_t *out, struct pf_err *err)
{
	int64_t v = 0;
	int r = pf_json_int(obj, where, key, INT64_MIN, INT64_MAX, &v, err);

	if (r <= 0)
		return r;
	if (v != 0)
		*out = v < 0 || v >= exact ? PF_LIMIT_NONE : v;
	return v != 0;
}

static int memory_from_oci(const cJSON *m, struct pf_limits *l, struct pf_err *err)
{
	static const char *const where = "linux.resources.memory";
	static const char *const kernel[] = {"kernel", "kernelTCP"};
	int64_t swap = -1, swappiness = -1;
	bool no_killer = false, hierarchy = true;

	if (limit_of(m, where, "limit", &l->memory, err) < 0 ||
		limit_of(m, where, "reservation", &l->memory_low, err) < 0 ||
		limit_of(m, where, "swap", &swap, err) < 0 ||
		pf_json_int(m, where, "swappiness", -1, 100, &swappiness, err) < 0 ||
		pf_json_bool(m, where, "disableOOMKiller", &no_killer, err) < 0 ||
		pf_json_bool(m, where, "useHierarchy", &hierarchy, err) < 0 ||
		pf_json_bool(m, where, "checkBeforeUpdate", &l->check_before_update, err) < 0)
		return -1;
	if (!hierarchy)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"%s.useHierarchy: cannot be off, Linux counts no other way any more (remedy: leave "
			"it out)",
			where);
	if (swappiness >= 0)
		l->swappiness = swappiness;
	l->disable_oom_killer = no_killer;
	if (l->memory != -1 && l->memory_low != -1 && l->memory_low != PF_LIMIT_NONE &&
		l->memory_low > l->memory)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s.reservation: larger than memory.limit (%lld > %lld)", where,
			(long long)l->memory_low, (long long)l->memory);
	if (swap == PF_LIMIT_NONE) {
		l->memory_swap = PF_LIMIT_NONE;
	} else if (swap != -1) {
		if (l->memory == -1 || l->memory == PF_LIMIT_NONE)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s.swap: counts memory and swap together and needs memory.limit", where);
		if (swap < l->memory)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s.swap: counts memory and swap together and cannot be below memory.limit "
				"(%lld < %lld)",
				where, (long long)swap, (long long)l->memory);
		l->memory_swap = swap - l->memory;
	}
	/* The kernel dropped these limits; its own memory counts as the cgroup's. At or above memory.limit
	 * they hold by themselves. */
	for (int i = 0; i < 2; i++) {
		int64_t v = -1;
		if (limit_of(m, where, kernel[i], &v, err) < 0)
			return -1;
		if (v != -1 && v != PF_LIMIT_NONE && (l->memory == -1 || v < l->memory))
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"%s.%s: Linux has no limit for kernel memory alone any more (remedy: leave "
				"it out; "
				"memory.limit includes it)",
				where, kernel[i]);
	}
	return 0;
}

/* "0-3,5": what the kernel would refuse with a bare EINVAL is refused with the field's name. */
static int check_cpu_list(const char *field, const char *s, struct pf_err *err)
{
	const char *p = s;

	while (*p) {
		long from, to;
		char *end;
		if (!isdigit((unsigned char)*p))
			goto bad;
		from = to = strtol(p, &end, 10);
		if (*end == '-') {
			if (!isdigit((unsigned char)end[1]))
				goto bad;
			to = strtol(end + 1, &end, 10);
		}
		if (to < from || to > 1000000 || (*end && (*end != ',' || !end[1])))
			goto bad;
		p = *end ? end + 1 : end;
	}
	return 0;
bad:
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: '%.60s' is no list like 0-3,5", field, s);
}

static int cpu_from_oci(const cJSON *c, struct pf_limits *l, struct pf_err *err)
{
	static const char *const where = "linux.resources.cpu";
	int64_t shares = 0, quota = 0, period = 0, burst = 0, rt_run = 0, rt_period = 0;
	const char *cpus = NULL, *mems = NULL;

	if (pf_json_int(c, where, "shares", 0, exact, &shares, err) < 0 ||
		pf_json_int(c, where, "quota", -1, exact, &quota, err) < 0 ||
		pf_json_int(c, where, "period", 0, 1000000, &period, err) < 0 ||
		pf_json_int(c, where, "burst", 0, exact, &burst, err) < 0 ||
		pf_json_int(c, where, "realtimeRuntime", -1, exact, &rt_run, err) < 0 ||
		pf_json_int(c, where, "realtimePeriod", 0, exact, &rt_period, err) < 0 ||
		pf_json_int(c, where, "idle", 0, 1, &l->cpu_idle, err) < 0 ||
		pf_json_str(c, where, "cpus", &cpus, err) < 0 ||
		pf_json_str(c, where, "mems", &mems, err) < 0)
		return -1;
	if (quota > 0 && quota < 1000)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.quota: at least 1000 (1 ms), not %lld", where,
			(long long)quota);
	if (quota > 0 && burst > quota)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.burst: may not be above quota (%lld > %lld)",
			where, (long long)burst, (long long)quota);
	if (period > 0 && period < 1000)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.period: from 1000 to 1000000, not %lld",
			where, (long long)period);
	/* The kernel bends larger and smaller shares to the ends of its range; so do we. */
	if (shares > 0)
		l->cpu_shares = shares < 2 ? 2 : shares > 262144 ? 262144 : shares;
	if (quota != 0)
		l->cpu_quota_us = quota < 0 ? PF_LIMIT_NONE : quota;
	if (period > 0)
		l->cpu_period_us = period;
	if (cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(c, "burst")))
		l->cpu_burst_us = burst;
	if (rt_run != 0)
		l->cpu_rt_runtime_us = rt_run < 0 ? PF_LIMIT_NONE : rt_run;
	if (rt_period > 0)
		l->cpu_rt_period_us = rt_period;
	if ((cpus && check_cpu_list("linux.resources.cpu.cpus", cpus, err) < 0) ||
		(mems && check_cpu_list("linux.resources.cpu.mems", mems, err) < 0))
		return -1;
	if (cpus && *cpus) {
		free(l->cpuset_cpus);
		l->cpuset_cpus = pf_strdup(cpus);
	}
	if (mems && *mems) {
		free(l->cpuset_mems);
		l->cpuset_mems = pf_strdup(mems);
	}
	return 0;
}

/* The entry for a device, made if there is none: OCI spreads one device over five lists, v2 has one line for
 * it. */
static struct pf_io_limit *io_entry(struct pf_limits *l, unsigned major, unsigned minor)
{
	for (size_t i = 0; i < l->n_io; i++)
		if (l->io[i].major == major && l->io[i].minor == minor)
			return &l->io[i];
	struct pf_io_limit *more = realloc(l->io, (l->n_io + 1) * sizeof(*more));
	if (!more)
		abort();
	l->io = more;
	more[l->n_io] = (struct pf_io_limit){.major = major,
		.minor = minor,
		.rbps = -1,
		.wbps = -1,
		.riops = -1,
		.wiops = -1,
		.weight = -1};
	return &more[l->n_io++];
}

static int no_leaf_weight(const char *where, struct pf_err *err)
{
	return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
		"%s.leafWeight: left Linux with the CFQ scheduler (remedy: use weight)", where);
}

static int io_from_oci(const cJSON *b, struct pf_limits *l, struct pf_err *err)
{
	static const char *const where = "linux.resources.blockIO";
	static const struct {
		const char *key, *value;
		size_t offset;
	} lists[] = {
		{"weightDevice", "weight", offsetof(struct pf_io_limit, weight)},
		{"throttleReadBpsDevice", "rate", offsetof(struct pf_io_limit, rbps)},
		{"throttleWriteBpsDevice", "rate", offsetof(struct pf_io_limit, wbps)},
		{"throttleReadIOPSDevice", "rate", offsetof(struct pf_io_limit, riops)},
		{"throttleWriteIOPSDevice", "rate", offsetof(struct pf_io_limit, wiops)},
	};
	int64_t weight = 0, leaf = 0;

	if (pf_json_int(b, where, "weight", 0, 1000, &weight, err) < 0 ||
		pf_json_int(b, where, "leafWeight", 0, 1000, &leaf, err) < 0)
		return -1;
	if (weight > 0)
		l->io_weight = weight;
	if (leaf > 0)
		return no_leaf_weight(where, err);
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		const cJSON *list = NULL, *e;
		int n = 0;
		if (pf_json_arr(b, where, lists[i].key, &list, err) < 0)
			return -1;
		for (e = list ? list->child : NULL; e; e = e->next, n++) {
			char at[96];
			int64_t major = -1, minor = -1, v = -1, e_leaf = 0;
			snprintf(at, sizeof(at), "%s.%s[%d]", where, lists[i].key, n);
			if (!cJSON_IsObject(e))
				return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: must be an object", at);
			if (pf_json_int(e, at, "major", 0, 4095, &major, err) < 0 ||
				pf_json_int(e, at, "minor", 0, 1048575, &minor, err) < 0 ||
				pf_json_int(e, at, lists[i].value, 0, i == 0 ? 1000 : INT64_MAX, &v, err) <
					0 ||
				(i == 0 && pf_json_int(e, at, "leafWeight", 0, 1000, &e_leaf, err) < 0))
				return -1;
			if (major < 0 || minor < 0)
				return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: needs major and minor", at);
			if (e_leaf > 0)
				return no_leaf_weight(at, err);
			if (v == -1)
				return pf_fail_kind(
					err, PF_ERR_INVALID, 0, "%s: needs %s", at, lists[i].value);
			if (i == 0 && v == 0)
				continue;
			int64_t *slot =
				(int64_t *)(void *)((char *)io_entry(l, (unsigned)major, (unsigned)minor) +
						    lists[i].offset);
			*slot = v == 0 || v >= exact ? PF_LIMIT_NONE : v;
		}
	}
	return 0;
}

static int hugetlb_from_oci(const cJSON *list, struct pf_limits *l, struct pf_err *err)
{
	int n = 0;

	for (const cJSON *e = list->child; e; e = e->next, n++) {
		char at[64];
		const char *size = NULL;
		int64_t max = -1;
		snprintf(at, sizeof(at), "linux.resources.hugepageLimits[%d]", n);
		if (!cJSON_IsObject(e))
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: must be an object", at);
		if (pf_json_str(e, at, "pageSize", &size, err) < 0 ||
			pf_json_int(e, at, "limit", 0, INT64_MAX, &max, err) < 0)
			return -1;
		size_t digits = size ? strspn(size, "0123456789") : 0;
		if (digits == 0 || digits > 8 || strlen(size + digits) != 2 || !strchr("KMG", size[digits]) ||
			size[digits + 1] != 'B')
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s.pageSize: must be a size like \"2MB\" or \"1GB\"", at);
		if (max < 0)
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.limit: is missing", at);
		struct pf_hugetlb_limit *more = realloc(l->hugetlb, (l->n_hugetlb + 1) * sizeof(*more));
		if (!more)
			abort();
		l->hugetlb = more;
		snprintf(more[l->n_hugetlb].size, sizeof(more->size), "%s", size);
		more[l->n_hugetlb++].max = max >= exact ? PF_LIMIT_NONE : max;
	}
	return 0;
}

static void add_unified(struct pf_limits *l, const char *key, char *value)
{
	size_t n = pf_strv_len(l->unified);
	char **more = realloc(l->unified, (n + 3) * sizeof(*more));

	if (!more)
		abort();
	more[n] = pf_strdup(key);
	more[n + 1] = value;
	more[n + 2] = NULL;
	l->unified = more;
}

static int unified_from_oci(const cJSON *obj, struct pf_limits *l, struct pf_err *err)
{
	for (const cJSON *e = obj->child; e; e = e->next) {
		if (!cJSON_IsString(e))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"linux.resources.unified.%.60s: must be a string", e->string);
		add_unified(l, e->string, pf_strdup(e->valuestring));
	}
	return 0;
}

/* rdma.max is the same file on v1 and v2: one line per device. */
static int rdma_from_oci(const cJSON *obj, struct pf_limits *l, struct pf_err *err)
{
	for (const cJSON *e = obj->child; e; e = e->next) {
		char at[96];
		int64_t handles = -1, objects = -1;
		snprintf(at, sizeof(at), "linux.resources.rdma.%.50s", e->string);
		if (!cJSON_IsObject(e) || strpbrk(e->string, " \n="))
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "%s: must be an object named as a device", at);
		if (pf_json_int(e, at, "hcaHandles", 0, UINT32_MAX, &handles, err) < 0 ||
			pf_json_int(e, at, "hcaObjects", 0, UINT32_MAX, &objects, err) < 0)
			return -1;
		if (handles < 0 && objects < 0)
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: needs hcaHandles or hcaObjects", at);
		PF_BUF struct pf_buf b = {0};
		pf_buf_str(&b, e->string);
		if (handles >= 0)
			pf_buf_printf(&b, " hca_handle=%lld", (long long)handles);
		if (objects >= 0)
			pf_buf_printf(&b, " hca_object=%lld", (long long)objects);
		add_unified(l, "rdma.max", pf_take(b.data));
	}
	return 0;
}

static int network_from_oci(const cJSON *net, struct pf_err *err)
{
	static const char *const where = "linux.resources.network";
	const cJSON *prio = NULL;
	int64_t class = 0;

	if (pf_json_int(net, where, "classID", 0, UINT32_MAX, &class, err) < 0 ||
		pf_json_arr(net, where, "priorities", &prio, err) < 0)
		return -1;
	if (class != 0 || cJSON_GetArraySize(prio) > 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"%s: net_cls and net_prio exist on cgroup v1 only and are not supported (remedy: "
			"leave it out and "
			"use an egress policy)",
			where);
	return 0;
}

int pf_limits_from_oci(const cJSON *resources, struct pf_limits *l, struct pf_err *err)
{
	static const char *const where = "linux.resources";
	const cJSON *memory = NULL, *cpu = NULL, *pids = NULL, *io = NULL, *net = NULL, *unified = NULL,
		    *rdma = NULL, *huge = NULL;

	if (!resources || cJSON_IsNull(resources))
		return 0;
	if (!cJSON_IsObject(resources))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: must be an object", where);
	if (pf_json_obj(resources, where, "memory", &memory, err) < 0 ||
		pf_json_obj(resources, where, "cpu", &cpu, err) < 0 ||
		pf_json_obj(resources, where, "pids", &pids, err) < 0 ||
		pf_json_obj(resources, where, "blockIO", &io, err) < 0 ||
		pf_json_obj(resources, where, "network", &net, err) < 0 ||
		pf_json_obj(resources, where, "unified", &unified, err) < 0 ||
		pf_json_obj(resources, where, "rdma", &rdma, err) < 0 ||
		pf_json_arr(resources, where, "hugepageLimits", &huge, err) < 0)
		return -1;
	if ((memory && memory_from_oci(memory, l, err) < 0) || (cpu && cpu_from_oci(cpu, l, err) < 0) ||
		(pids && limit_of(pids, "linux.resources.pids", "limit", &l->pids, err) < 0) ||
		(io && io_from_oci(io, l, err) < 0) || (net && network_from_oci(net, err) < 0) ||
		(rdma && rdma_from_oci(rdma, l, err) < 0) || (huge && hugetlb_from_oci(huge, l, err) < 0))
		return -1;
	/* Last: the raw values are the more exact wish and are written after the others. */
	return unified ? unified_from_oci(unified, l, err) : 0;
}
