/* events: what a container uses, and when it ran out of memory, as JSON lines of runc's form. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/proc.h"
#include "base/units.h"
#include "cmd/pinfold/oci.h"

static void add(cJSON *j, const char *key, int64_t v)
{
	if (v >= 0)
		pf_json_add_int(j, key, v == PF_LIMIT_NONE ? (INT64_C(1) << 53) : v);
}

static cJSON *stats_data(const struct pf_cgroup_stats *s)
{
	cJSON *d = cJSON_CreateObject(), *cpu = cJSON_AddObjectToObject(d, "cpu"),
	      *usage = cJSON_AddObjectToObject(cpu, "usage"),
	      *throttling = cJSON_AddObjectToObject(cpu, "throttling"),
	      *memory = cJSON_AddObjectToObject(d, "memory"), *now = cJSON_AddObjectToObject(memory, "usage"),
	      *swap = cJSON_AddObjectToObject(memory, "swap"), *raw = cJSON_AddObjectToObject(memory, "raw"),
	      *pids = cJSON_AddObjectToObject(d, "pids"), *blkio = cJSON_AddObjectToObject(d, "blkio");

	/* Nanoseconds. */
	add(usage, "total", s->cpu_usage_us < 0 ? -1 : s->cpu_usage_us * 1000);
	add(usage, "kernel", s->cpu_system_us < 0 ? -1 : s->cpu_system_us * 1000);
	add(usage, "user", s->cpu_user_us < 0 ? -1 : s->cpu_user_us * 1000);
	add(throttling, "periods", s->cpu_periods);
	add(throttling, "throttledPeriods", s->cpu_throttled);
	add(throttling, "throttledTime", s->cpu_throttled_us < 0 ? -1 : s->cpu_throttled_us * 1000);
	add(now, "usage", s->memory_current);
	add(now, "max", s->memory_peak);
	add(now, "limit", s->memory_limit);
	add(now, "failcnt", s->memory_limit_hits);
	add(memory, "cache", s->memory_file);
	add(swap, "usage", s->memory_swap);
	add(raw, "anon", s->memory_anon);
	add(raw, "file", s->memory_file);
	add(raw, "inactive_file", s->memory_inactive_file);
	add(raw, "oom_kill", s->oom_kills);
	add(pids, "current", s->pids_current);
	add(pids, "limit", s->pids_limit == PF_LIMIT_NONE ? 0 : s->pids_limit);
	add(blkio, "readBytes", s->io_read_bytes);
	add(blkio, "writeBytes", s->io_write_bytes);
	add(blkio, "reads", s->io_reads);
	add(blkio, "writes", s->io_writes);
	return d;
}

static void print_event(const char *type, const char *id, cJSON *data)
{
	PF_JSON cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "type", type);
	cJSON_AddStringToObject(j, "id", id);
	if (data)
		cJSON_AddItemToObject(j, "data", data);
	PF_FREE char *text = pf_json_text(j);
	puts(text);
	(void)fflush(stdout);
}

static int print_stats(const char *id, const struct pf_cgroup *cg, struct pf_err *err)
{
	struct pf_cgroup_stats s;

	if (pf_cgroup_stats(cg, &s, err) < 0)
		return -1;
	print_event("stats", id, stats_data(&s));
	return 0;
}

/* Until the container ends. */
static int watch(struct pf_oci *h, struct pf_cgroup *cg, int64_t interval_ms, struct pf_err *err)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_CLOSE int pidfd = pf_pidfd_open_checked(h->c.pid, h->c.pid_start);
	PF_CLOSE int oom = pf_cgroup_oom_fd(cg, &ignored);
	int64_t kills = pf_cgroup_oom_kills(cg), next = pf_now_us() + interval_ms * 1000;

	while (pidfd >= 0) {
		struct pollfd p[2] = {{.fd = pidfd, .events = POLLIN}, {.fd = oom, .events = POLLIN}};
		int64_t left = (next - pf_now_us() + 999) / 1000;
		int n = left > 0 ? poll(p, 2, left > 3600000 ? 3600000 : (int)left) : 0;
		if (n < 0 && errno != EINTR)
			return pf_fail(err, errno, "poll");
		if (n > 0 && p[1].revents) {
			int64_t hits = pf_cgroup_oom_drain(oom), now = pf_cgroup_oom_kills(cg);
			if (hits > 0 || now > kills)
				print_event("oom", h->id, NULL);
			kills = now;
		}
		if (n > 0 && p[0].revents)
			return 0;
		if (pf_now_us() >= next) {
			if (print_stats(h->id, cg, &ignored) < 0)
				return 0; /* it ended meanwhile */
			next = pf_now_us() + interval_ms * 1000;
		}
	}
	return 0;
}

int pf_cmd_events(int argc, char **argv)
{
	static const struct option options[] = {{"stats", no_argument, NULL, 's'},
		{"interval", required_argument, NULL, 'i'}, {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	static const char help[] =
		"events [--stats] [--interval D] ID\n\n"
		"What the container uses every 5 seconds, and when memory ran out, until it\n"
		"ends; with --stats once.\n";
	PF_CGROUP struct pf_cgroup *cg = NULL;
	PF_OCI struct pf_oci h = PF_OCI_INIT;
	struct pf_err err = PF_ERR_INIT;
	int64_t interval = 5000;
	bool once = false;
	int c, r;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1) {
		once = once || c == 's';
		if (c == 'i' && pf_parse_duration("--interval", optarg, &interval, &err) < 0)
			return pf_oci_fail("events", &err, PF_OCI_FAILED);
	}
	if (optind + 1 != argc)
		return pf_usage("events", "takes one ID");
	r = pf_oci_open(argv[optind], false, &h, &err);
	if (r == 0 && h.c.status == PF_CONTAINER_STOPPED)
		r = pf_fail_kind(&err, PF_ERR_STATE, 0, "container with id %s is not running", h.id);
	if (r == 0)
		r = pf_container_cgroup(&h.c, &cg, &err);
	if (r == 0)
		r = once ? print_stats(h.id, cg, &err) : watch(&h, cg, interval, &err);
	return r < 0 ? pf_oci_fail("events", &err, PF_OCI_FAILED) : 0;
}
