/* Theory of operation: one report from two kinds of files.
 *
 * Each group of numbers is read where its controller lives. cpu time comes from the v2 tree's cpu.stat
 * whenever there is one, as it counts every process of the cgroup with or without a cpu controller;
 * throttling is the controller's own. v1's oom_kill counts a cgroup without its children, so it is summed
 * over them. */
#include "sandbox/cgroup_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"

#define STAT_MAX 16384 /* memory.stat of today is a third of that */

static int dir_of(const struct pf_cgroup *cg, enum pf_cg_ctl ctl, bool *v2)
{
	int h = cg->host.where[ctl];

	*v2 = h >= 0 && cg->host.hier[h].v2;
	return h < 0 ? -1 : cg->dir[h];
}

static int64_t ns_to_us(int64_t ns)
{
	return ns < 0 ? -1 : ns / 1000;
}

static void read_cpu(const struct pf_cgroup *cg, struct pf_cgroup_stats *st)
{
	char text[4096];
	bool v2;
	int dir;

	if (pf_cgroup_fd(cg) >= 0 && pf_cg_read(pf_cgroup_fd(cg), "cpu.stat", text, sizeof(text)) > 0) {
		st->cpu_usage_us = pf_cg_value(text, "usage_usec");
		st->cpu_user_us = pf_cg_value(text, "user_usec");
		st->cpu_system_us = pf_cg_value(text, "system_usec");
	} else {
		dir = dir_of(cg, PF_CG_CPUACCT, &v2);
		st->cpu_usage_us = ns_to_us(pf_cg_read_int(dir, "cpuacct.usage"));
		st->cpu_user_us = ns_to_us(pf_cg_read_int(dir, "cpuacct.usage_user"));
		st->cpu_system_us = ns_to_us(pf_cg_read_int(dir, "cpuacct.usage_sys"));
	}
	dir = dir_of(cg, PF_CG_CPU, &v2);
	if (dir < 0 || (!v2 && pf_cg_read(dir, "cpu.stat", text, sizeof(text)) <= 0))
		return;
	st->cpu_periods = pf_cg_value(text, "nr_periods");
	st->cpu_throttled = pf_cg_value(text, "nr_throttled");
	st->cpu_throttled_us =
		v2 ? pf_cg_value(text, "throttled_usec") : ns_to_us(pf_cg_value(text, "throttled_time"));
}

static int add_oom_kills(int dir, const char *name, void *arg)
{
	PF_CLOSE int child = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char text[256];

	if (child < 0 || pf_cg_read(child, "memory.oom_control", text, sizeof(text)) <= 0)
		return 0;
	int64_t n = pf_cg_value(text, "oom_kill");
	if (n > 0)
		*(int64_t *)arg += n;
	(void)pf_cg_each_child(child, add_oom_kills, arg); /* what cannot be listed is on its way out */
	return 0;
}

int64_t pf_cgroup_oom_kills(const struct pf_cgroup *cg)
{
	char text[512];
	bool v2;
	int dir = dir_of(cg, PF_CG_MEMORY, &v2);

	if (dir < 0 || pf_cg_read(dir, v2 ? "memory.events" : "memory.oom_control", text, sizeof(text)) <= 0)
		return -1;
	int64_t n = pf_cg_value(text, "oom_kill");
	if (!v2 && n >= 0)
		(void)pf_cg_each_child(dir, add_oom_kills, &n);
	return n;
}

static void read_memory(const struct pf_cgroup *cg, struct pf_cgroup_stats *st)
{
	PF_FREE char *text = pf_calloc(1, STAT_MAX);
	bool v2;
	int dir = dir_of(cg, PF_CG_MEMORY, &v2);

	if (dir < 0)
		return;
	st->memory_current = pf_cg_read_int(dir, v2 ? "memory.current" : "memory.usage_in_bytes");
	st->memory_peak = pf_cg_read_int(dir, v2 ? "memory.peak" : "memory.max_usage_in_bytes");
	st->memory_limit = pf_cg_read_int(dir, v2 ? "memory.max" : "memory.limit_in_bytes");
	if (!v2 && st->memory_limit > INT64_MAX - 65536)
		st->memory_limit = PF_LIMIT_NONE; /* the largest number of whole pages */
	st->oom_kills = pf_cgroup_oom_kills(cg);
	if (v2 && pf_cg_read(dir, "memory.events.local", text, STAT_MAX) > 0) {
		st->memory_limit_hits = pf_cg_value(text, "max");
	} else if (!v2) {
		/* With no room for swap both limits are one, the sum of memory and swap is met first, and
		 * newer kernels do not count that: the peak tells. */
		int64_t sum = pf_cg_read_int(dir, "memory.memsw.failcnt");
		st->memory_limit_hits = pf_cg_read_int(dir, "memory.failcnt") + (sum > 0 ? sum : 0);
		if (st->memory_limit_hits == 0 && st->memory_peak >= st->memory_limit)
			st->memory_limit_hits = 1;
	}
	if (pf_cg_read(dir, "memory.stat", text, STAT_MAX) > 0) {
		st->memory_anon = pf_cg_value(text, v2 ? "anon" : "total_rss");
		st->memory_file = pf_cg_value(text, v2 ? "file" : "total_cache");
		st->memory_inactive_file = pf_cg_value(text, v2 ? "inactive_file" : "total_inactive_file");
		if (!v2)
			st->memory_swap = pf_cg_value(text, "total_swap");
	}
	if (v2)
		st->memory_swap = pf_cg_read_int(dir, "memory.swap.current");
}

static void read_pids(const struct pf_cgroup *cg, struct pf_cgroup_stats *st)
{
	char text[256];
	bool v2;
	int dir = dir_of(cg, PF_CG_PIDS, &v2);

	if (dir < 0)
		return;
	st->pids_current = pf_cg_read_int(dir, "pids.current");
	st->pids_peak = pf_cg_read_int(dir, "pids.peak");
	st->pids_limit = pf_cg_read_int(dir, "pids.max");
	if (pf_cg_read(dir, "pids.events", text, sizeof(text)) > 0)
		st->pids_limit_hits = pf_cg_value(text, "max");
}

static void add_to(int64_t *sum, int64_t v)
{
	*sum = (*sum < 0 ? 0 : *sum) + v;
}

/* "8:0 rbytes=1 wbytes=2 rios=3 …" */
static void sum_io_v2(char *text, struct pf_cgroup_stats *st)
{
	char *save = NULL;

	for (char *w = strtok_r(text, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
		char *eq = strchr(w, '=');
		int64_t v = eq ? strtoll(eq + 1, NULL, 10) : 0;
		if (!eq)
			continue;
		if (pf_starts_with(w, "rbytes="))
			add_to(&st->io_read_bytes, v);
		else if (pf_starts_with(w, "wbytes="))
			add_to(&st->io_write_bytes, v);
		else if (pf_starts_with(w, "rios="))
			add_to(&st->io_reads, v);
		else if (pf_starts_with(w, "wios="))
			add_to(&st->io_writes, v);
	}
}

/* "8:0 Read 4096" */
static void sum_io_v1(char *text, int64_t *reads, int64_t *writes)
{
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *r = strstr(line, " Read "), *w = strstr(line, " Write ");
		if (r)
			add_to(reads, strtoll(r + 6, NULL, 10));
		else if (w)
			add_to(writes, strtoll(w + 7, NULL, 10));
	}
}

static void read_io(const struct pf_cgroup *cg, struct pf_cgroup_stats *st)
{
	PF_FREE char *text = pf_calloc(1, STAT_MAX);
	bool v2;
	int dir = dir_of(cg, PF_CG_IO, &v2);

	if (dir < 0)
		return;
	if (v2) {
		if (pf_cg_read(dir, "io.stat", text, STAT_MAX) < 0)
			return;
		st->io_read_bytes = st->io_write_bytes = st->io_reads = st->io_writes = 0;
		sum_io_v2(text, st);
		return;
	}
	if (pf_cg_read(dir, "blkio.throttle.io_service_bytes_recursive", text, STAT_MAX) > 0)
		sum_io_v1(text, &st->io_read_bytes, &st->io_write_bytes);
	if (pf_cg_read(dir, "blkio.throttle.io_serviced_recursive", text, STAT_MAX) > 0)
		sum_io_v1(text, &st->io_reads, &st->io_writes);
}

int pf_cgroup_stats(const struct pf_cgroup *cg, struct pf_cgroup_stats *st, struct pf_err *err)
{
	if (pf_cg_main_dir(cg) < 0 || faccessat(pf_cg_main_dir(cg), "cgroup.procs", F_OK, 0) < 0)
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "cgroup %s is not there", cg->path);
	memset(st, 0xff, sizeof(*st)); /* every number -1 */
	read_cpu(cg, st);
	read_memory(cg, st);
	read_pids(cg, st);
	read_io(cg, st);
	return 0;
}

cJSON *pf_cgroup_stats_json(const struct pf_cgroup_stats *st)
{
	const struct {
		const char *group, *key;
		int64_t v;
	} all[] = {
		{"cpu", "usage_us", st->cpu_usage_us},
		{"cpu", "user_us", st->cpu_user_us},
		{"cpu", "system_us", st->cpu_system_us},
		{"cpu", "periods", st->cpu_periods},
		{"cpu", "throttled", st->cpu_throttled},
		{"cpu", "throttled_us", st->cpu_throttled_us},
		{"memory", "current", st->memory_current},
		{"memory", "peak", st->memory_peak},
		{"memory", "limit", st->memory_limit},
		{"memory", "swap", st->memory_swap},
		{"memory", "anon", st->memory_anon},
		{"memory", "file", st->memory_file},
		{"memory", "inactive_file", st->memory_inactive_file},
		{"memory", "limit_hits", st->memory_limit_hits},
		{"memory", "oom_kills", st->oom_kills},
		{"pids", "current", st->pids_current},
		{"pids", "peak", st->pids_peak},
		{"pids", "limit", st->pids_limit},
		{"pids", "limit_hits", st->pids_limit_hits},
		{"io", "read_bytes", st->io_read_bytes},
		{"io", "write_bytes", st->io_write_bytes},
		{"io", "reads", st->io_reads},
		{"io", "writes", st->io_writes},
	};
	cJSON *j = cJSON_CreateObject();

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		cJSON *g = cJSON_GetObjectItemCaseSensitive(j, all[i].group);
		if (!g)
			g = cJSON_AddObjectToObject(j, all[i].group);
		if (all[i].v == PF_LIMIT_NONE)
			cJSON_AddNullToObject(g, all[i].key);
		else if (all[i].v >= 0)
			pf_json_add_int(g, all[i].key, all[i].v);
	}
	return j;
}
