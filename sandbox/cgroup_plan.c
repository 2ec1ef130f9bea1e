/* Theory of operation: limits → file writes → files.
 *
 * A plan is a list of (controller, file, value), made from the host map and the limits without touching a
 * file, so that what would be written on another kind of host can be shown and tested on this one. Applying
 * it looks up each controller's directory and writes. A limit that no hierarchy can hold fails while the plan
 * is made, that is before anything exists.
 *
 * On a live cgroup two pairs depend on each other and on what is in force. v1: memory <= memory+swap at every
 * moment; v1: cpu quota/period may not exceed the parent's, nor fall below a child's, at any moment. There
 * the order is turned when the first one is refused. What was overwritten is kept and put back if a later
 * write fails. */
#include "sandbox/cgroup_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

void pf_cg_plan_done(struct pf_cg_plan *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->w[i].value);
	free(p->w);
	*p = (struct pf_cg_plan){0};
}

static struct pf_cg_write *add(struct pf_cg_plan *p, enum pf_cg_ctl ctl, const char *limit, const char *file)
{
	struct pf_cg_write *more = realloc(p->w, (p->n + 1) * sizeof(*more));

	if (!more)
		abort();
	p->w = more;
	more += p->n++;
	*more = (struct pf_cg_write){.ctl = ctl, .limit = limit};
	snprintf(more->file, sizeof(more->file), "%s", file);
	return more;
}

static struct pf_cg_write *add_int(struct pf_cg_plan *p, enum pf_cg_ctl ctl, const char *limit,
	const char *file, int64_t v, const char *none)
{
	struct pf_cg_write *w = add(p, ctl, limit, file);
	w->value = v == PF_LIMIT_NONE ? pf_strdup(none) : pf_asprintf("%" PRId64, v);
	return w;
}

/* 1: on v2, 0: on v1, -1: nowhere (error set). */
static int side(const struct pf_cgroup_host *host, enum pf_cg_ctl ctl, const char *limit, struct pf_err *err)
{
	int h = host->where[ctl];
	const char *name = pf_cgroup_ctl_name(ctl);

	if (h >= 0)
		return host->hier[h].v2;
	return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
		"%s limit: no %s controller on this host (remedy: enable it, on the kernel command line with "
		"cgroup_enable=%s or in the parent's cgroup.subtree_control, or leave the limit out)",
		limit, name, name);
}

static int only_on(int have, int want, const char *limit, const char *remedy, struct pf_err *err)
{
	if (have == want)
		return 0;
	return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
		"%s: exists on cgroup v%d only, here the controller is on v%d (remedy: %s)", limit,
		want ? 2 : 1, have ? 2 : 1, remedy);
}

static int plan_swap(const struct pf_limits *l, bool v2, struct pf_cg_plan *p, struct pf_err *err)
{
	int64_t v = l->memory_swap;
	struct pf_cg_write *w;

	if (v2) {
		w = add_int(p, PF_CG_MEMORY, "swap", "memory.swap.max", v, "max");
	} else if (v == PF_LIMIT_NONE || (l->memory != -1 && l->memory != PF_LIMIT_NONE)) {
		/* v1 limits the sum of both. */
		if (v != PF_LIMIT_NONE && __builtin_add_overflow(l->memory, v, &v))
			v = PF_LIMIT_NONE;
		w = add_int(p, PF_CG_MEMORY, "swap", "memory.memsw.limit_in_bytes", v, "-1");
	} else if (v == 0) {
		/* There is no sum to name, but "none at all" can be had in another way. */
		if (l->memory == PF_LIMIT_NONE)
			add_int(p, PF_CG_MEMORY, "swap", "memory.memsw.limit_in_bytes", PF_LIMIT_NONE, "-1")
				->may_lack = true;
		w = add_int(p, PF_CG_MEMORY, "swap", "memory.swappiness", 0, "");
	} else {
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"swap limit: on cgroup v1 it needs a memory limit (remedy: set both)");
	}
	w->no_swap = l->memory_swap == 0;
	w->may_lack = l->memory_swap == PF_LIMIT_NONE;
	return 0;
}

static int plan_memory(const struct pf_cgroup_host *host, const struct pf_limits *l, struct pf_cg_plan *p,
	struct pf_err *err)
{
	int v2;
	bool any = l->memory != -1 || l->memory_high != -1 || l->memory_low != -1 || l->memory_swap != -1 ||
		   l->swappiness != -1 || l->disable_oom_killer;

	if (!any)
		return 0;
	v2 = side(host, PF_CG_MEMORY, "memory", err);
	if (v2 < 0)
		return -1;
	if (l->swappiness != -1 && only_on(v2, 0, "memory swappiness", "set a swap limit instead", err) < 0)
		return -1;
	if (l->disable_oom_killer &&
		only_on(v2, 0, "disableOOMKiller", "leave it out; use memory.high to be slowed down first",
			err) < 0)
		return -1;
	if (l->memory_high != -1 &&
		only_on(v2, 1, "memory.high", "leave it out or use memory.max alone", err) < 0)
		return -1;
	if (l->memory != -1)
		add_int(p, PF_CG_MEMORY, "memory", v2 ? "memory.max" : "memory.limit_in_bytes", l->memory,
			v2 ? "max" : "-1");
	if (l->memory_high != -1)
		add_int(p, PF_CG_MEMORY, "memory high", "memory.high", l->memory_high, "max");
	if (l->memory_low != -1)
		add_int(p, PF_CG_MEMORY, "memory reservation",
			v2 ? "memory.low" : "memory.soft_limit_in_bytes", l->memory_low, v2 ? "max" : "-1");
	if (l->memory_swap != -1 && plan_swap(l, v2, p, err) < 0)
		return -1;
	if (l->swappiness != -1)
		add_int(p, PF_CG_MEMORY, "swappiness", "memory.swappiness", l->swappiness, "");
	if (l->disable_oom_killer)
		add_int(p, PF_CG_MEMORY, "disableOOMKiller", "memory.oom_control", 1, "");
	return 0;
}

static int plan_cpu(const struct pf_cgroup_host *host, const struct pf_limits *l, struct pf_cg_plan *p,
	struct pf_err *err)
{
	bool rt = l->cpu_rt_runtime_us != -1 || l->cpu_rt_period_us != -1;
	int v2;

	if (!rt && l->cpu_quota_us == -1 && l->cpu_period_us == -1 && l->cpu_burst_us == -1 &&
		l->cpu_weight == -1 && l->cpu_shares == -1 && l->cpu_idle == -1)
		return 0;
	v2 = side(host, PF_CG_CPU, "cpu", err);
	if (v2 < 0)
		return -1;
	if (rt && only_on(v2, 0, "realtime cpu", "leave realtimeRuntime and realtimePeriod out", err) < 0)
		return -1;
	/* Idle first: the kernel refuses a weight while it is set. */
	if (l->cpu_idle != -1)
		add_int(p, PF_CG_CPU, "cpu idle", "cpu.idle", l->cpu_idle, "")->may_lack = l->cpu_idle == 0;
	if (l->cpu_idle != 1 && (l->cpu_weight != -1 || l->cpu_shares != -1)) {
		int64_t v = l->cpu_weight;
		if (v2 && v == -1)
			v = pf_cpu_shares_to_weight(l->cpu_shares);
		else if (!v2)
			v = v != -1 ? pf_cpu_weight_to_shares(v) : l->cpu_shares;
		add_int(p, PF_CG_CPU, "cpu weight", v2 ? "cpu.weight" : "cpu.shares", v, "10000");
	}
	if (v2 && (l->cpu_quota_us != -1 || l->cpu_period_us != -1)) {
		/* "QUOTA" leaves the period as it is, but there is no such form for the period: "=" is filled
		 * in from the file when it is written. */
		struct pf_cg_write *w = add(p, PF_CG_CPU, "cpu quota", "cpu.max");
		PF_FREE char *quota = l->cpu_quota_us == -1 ? pf_strdup("=")
				      : l->cpu_quota_us == PF_LIMIT_NONE
					      ? pf_strdup("max")
					      : pf_asprintf("%" PRId64, l->cpu_quota_us);
		w->value = l->cpu_period_us == -1 ? pf_take(quota)
						  : pf_asprintf("%s %" PRId64, quota, l->cpu_period_us);
	} else {
		if (l->cpu_period_us != -1)
			add_int(p, PF_CG_CPU, "cpu period", "cpu.cfs_period_us", l->cpu_period_us, "");
		if (l->cpu_quota_us != -1)
			add_int(p, PF_CG_CPU, "cpu quota", "cpu.cfs_quota_us", l->cpu_quota_us, "-1");
	}
	if (l->cpu_burst_us != -1)
		add_int(p, PF_CG_CPU, "cpu burst", v2 ? "cpu.max.burst" : "cpu.cfs_burst_us", l->cpu_burst_us,
			"")
			->may_lack = l->cpu_burst_us == 0;
	if (l->cpu_rt_period_us != -1)
		add_int(p, PF_CG_CPU, "realtime cpu period", "cpu.rt_period_us", l->cpu_rt_period_us, "");
	if (l->cpu_rt_runtime_us != -1)
		add_int(p, PF_CG_CPU, "realtime cpu", "cpu.rt_runtime_us", l->cpu_rt_runtime_us, "-1");
	return 0;
}

static int plan_cpuset(const struct pf_cgroup_host *host, const struct pf_limits *l, struct pf_cg_plan *p,
	struct pf_err *err)
{
	if (!l->cpuset_cpus && !l->cpuset_mems)
		return 0;
	if (side(host, PF_CG_CPUSET, "cpuset", err) < 0)
		return -1;
	if (l->cpuset_mems)
		add(p, PF_CG_CPUSET, "cpuset mems", "cpuset.mems")->value = pf_strdup(l->cpuset_mems);
	if (l->cpuset_cpus)
		add(p, PF_CG_CPUSET, "cpuset cpus", "cpuset.cpus")->value = pf_strdup(l->cpuset_cpus);
	return 0;
}

static void io_part(struct pf_buf *b, const char *key, int64_t v)
{
	if (v == PF_LIMIT_NONE)
		pf_buf_printf(b, " %s=max", key);
	else if (v != -1)
		pf_buf_printf(b, " %s=%" PRId64, key, v);
}

static int plan_io(const struct pf_cgroup_host *host, const struct pf_limits *l, struct pf_cg_plan *p,
	struct pf_err *err)
{
	static const char *const v1_files[] = {"blkio.throttle.read_bps_device",
		"blkio.throttle.write_bps_device", "blkio.throttle.read_iops_device",
		"blkio.throttle.write_iops_device"};
	int v2;

	if (l->io_weight == -1 && l->n_io == 0)
		return 0;
	v2 = side(host, PF_CG_IO, "io", err);
	if (v2 < 0)
		return -1;
	if (l->io_weight != -1)
		add_int(p, PF_CG_IO, "io weight", v2 ? "io.bfq.weight" : "blkio.bfq.weight", l->io_weight,
			"1000");
	for (size_t i = 0; i < l->n_io; i++) {
		const struct pf_io_limit *e = &l->io[i];
		const int64_t rate[] = {e->rbps, e->wbps, e->riops, e->wiops};
		char key[24];
		snprintf(key, sizeof(key), "%u:%u", e->major, e->minor);
		if (v2) {
			PF_BUF struct pf_buf b = {0};
			io_part(&b, "rbps", e->rbps);
			io_part(&b, "wbps", e->wbps);
			io_part(&b, "riops", e->riops);
			io_part(&b, "wiops", e->wiops);
			if (b.len > 0) {
				struct pf_cg_write *w = add(p, PF_CG_IO, "io", "io.max");
				w->value = pf_asprintf("%s%s", key, b.data);
				memcpy(w->key, key, sizeof(key));
			}
		}
		for (int k = 0; !v2 && k < 4; k++) {
			if (rate[k] == -1)
				continue;
			struct pf_cg_write *w = add(p, PF_CG_IO, "io", v1_files[k]);
			w->value = pf_asprintf("%s %" PRId64, key, rate[k] == PF_LIMIT_NONE ? 0 : rate[k]);
			memcpy(w->key, key, sizeof(key));
		}
		if (e->weight != -1) {
			struct pf_cg_write *w = add(p, PF_CG_IO, "io weight of a device",
				v2 ? "io.bfq.weight" : "blkio.bfq.weight_device");
			w->value = pf_asprintf("%s %" PRId64, key, e->weight);
			memcpy(w->key, key, sizeof(key));
		}
	}
	return 0;
}

/* CRI sends a limit of 0 for every page size it knows. Where the host has no pages of that size at all, 0
 * holds. */
static bool page_size_exists(const char *size)
{
	char path[96];
	unsigned long kb = strtoul(size, NULL, 10);
	char unit = size[strspn(size, "0123456789")];

	kb <<= unit == 'M' ? 10 : unit == 'G' ? 20 : 0;
	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%lukB", kb);
	return access(path, F_OK) == 0;
}

static int plan_hugetlb(const struct pf_cgroup_host *host, const struct pf_limits *l, struct pf_cg_plan *p,
	struct pf_err *err)
{
	for (size_t i = 0; i < l->n_hugetlb; i++) {
		const struct pf_hugetlb_limit *e = &l->hugetlb[i];
		char file[48];
		bool holds = e->max == PF_LIMIT_NONE || (e->max == 0 && !page_size_exists(e->size));
		if (holds && host->where[PF_CG_HUGETLB] < 0)
			continue;
		int v2 = side(host, PF_CG_HUGETLB, "hugepage", err);
		if (v2 < 0)
			return -1;
		snprintf(file, sizeof(file), v2 ? "hugetlb.%s.max" : "hugetlb.%s.limit_in_bytes", e->size);
		add_int(p, PF_CG_HUGETLB, "hugepage", file, e->max, v2 ? "max" : "-1")->may_lack = holds;
		/* Reservations too, or a mapping beyond the limit dies of SIGBUS instead of failing in mmap.
		 */
		snprintf(file, sizeof(file), v2 ? "hugetlb.%s.rsvd.max" : "hugetlb.%s.rsvd.limit_in_bytes",
			e->size);
		add_int(p, PF_CG_HUGETLB, "hugepage", file, e->max, v2 ? "max" : "-1")->may_lack = true;
	}
	return 0;
}

/* Raw v2 files. Only limits: a key of the core (cgroup.procs, cgroup.kill …) would be an action, except the
 * two that bound the tree below. */
static int plan_unified(const struct pf_cgroup_host *host, const struct pf_limits *l, struct pf_cg_plan *p,
	struct pf_err *err)
{
	for (char **kv = l->unified; kv && *kv; kv += 2) {
		const char *key = kv[0], *dot = strchr(key, '.');
		enum pf_cg_ctl ctl = PF_CG_CTLS;
		int v2;
		if (!dot || strchr(key, '/') || strlen(key) >= sizeof(p->w->file) || strchr(kv[1], '\n'))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"unified limit '%.60s': must be the name of a cgroup v2 file and one line of "
				"value",
				key);
		if (strcmp(key, "cgroup.max.depth") == 0 || strcmp(key, "cgroup.max.descendants") == 0) {
			v2 = host->v2 >= 0;
		} else {
			for (int c = 0; c < PF_CG_CTLS; c++) {
				const char *name = pf_cgroup_ctl_name((enum pf_cg_ctl)c);
				if (strlen(name) == (size_t)(dot - key) &&
					strncmp(name, key, strlen(name)) == 0)
					ctl = (enum pf_cg_ctl)c;
			}
			if (ctl == PF_CG_CTLS || ctl == PF_CG_CPUACCT || ctl == PF_CG_DEVICES ||
				ctl == PF_CG_FREEZER)
				return pf_fail_kind(err, PF_ERR_INVALID, 0,
					"unified limit '%s': is no limit file of a known controller", key);
			v2 = side(host, ctl, key, err);
			if (v2 < 0)
				return -1;
		}
		if (v2 || ctl == PF_CG_RDMA) {
			add(p, ctl, "unified", key)->value = pf_strdup(kv[1]);
			continue;
		}
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"unified limit '%s': this host has the %s controller on cgroup v1 (remedy: use the "
			"OCI field "
			"instead of the raw file, or boot with systemd.unified_cgroup_hierarchy=1)",
			key, pf_cgroup_ctl_name(ctl));
	}
	return 0;
}

int pf_cg_plan_make(const struct pf_cgroup_host *host, const struct pf_limits *l, struct pf_cg_plan *p,
	struct pf_err *err)
{
	if (plan_memory(host, l, p, err) == 0 && plan_cpu(host, l, p, err) == 0 &&
		plan_cpuset(host, l, p, err) == 0 && plan_io(host, l, p, err) == 0 &&
		plan_hugetlb(host, l, p, err) == 0) {
		if (l->pids != -1 && side(host, PF_CG_PIDS, "pids", err) >= 0)
			add_int(p, PF_CG_PIDS, "pids", "pids.max", l->pids, "max");
		if ((l->pids == -1 || host->where[PF_CG_PIDS] >= 0) && plan_unified(host, l, p, err) == 0)
			return 0;
	}
	pf_cg_plan_done(p);
	return -1;
}

/* ---- applying ---- */

static int dir_of(const struct pf_cgroup *cg, enum pf_cg_ctl ctl)
{
	int h = ctl == PF_CG_CTLS ? cg->host.v2 : cg->host.where[ctl];
	return h < 0 ? -1 : cg->dir[h];
}

/* Write value and remember in *old what restores the file (NULL when nothing sensible does). -1 with errno.
 */
static int write_one(int dir, const struct pf_cg_write *w, bool live, char **old)
{
	char now[4096], value[4200];

	*old = NULL;
	if (!live && w->value[0] != '=')
		return pf_write_pseudo_at(dir, w->file, w->value);
	ssize_t n = pf_cg_read(dir, w->file, now, sizeof(now));
	/* What stands in for a part of the old value cannot be written without it. */
	if (n < 0 && (errno == ENOENT || w->value[0] == '='))
		return -1;
	if (n >= 0 && w->key[0]) {
		/* One line per device; a device without a line is put back by lifting what we set. */
		size_t len = strlen(w->key);
		const char *line = now;
		while (line && (strncmp(line, w->key, len) != 0 || line[len] != ' ')) {
			line = strchr(line, '\n');
			line = line ? line + 1 : NULL;
		}
		if (line)
			*old = pf_asprintf("%.*s", (int)strcspn(line, "\n"), line);
		else if (strcmp(w->file, "io.max") == 0)
			*old = pf_asprintf("%s rbps=max wbps=max riops=max wiops=max", w->key);
		else
			*old = pf_asprintf("%s %s", w->key, strstr(w->file, "weight") ? "default" : "0");
	} else if (n >= 0) {
		now[strcspn(now, "\n")] = '\0';
		*old = pf_strdup(now);
	}
	if (w->value[0] == '=') {
		snprintf(value, sizeof(value), "%.*s%s", (int)strcspn(now, " "), n > 0 ? now : "max",
			w->value + 1);
		return pf_write_pseudo_at(dir, w->file, value);
	}
	return pf_write_pseudo_at(dir, w->file, w->value);
}

/* "No swap" where the kernel counts no swap: it holds when there is none, or when this cgroup never swaps. */
static bool swap_is_impossible(int dir)
{
	char info[4096];

	if (pf_write_pseudo_at(dir, "memory.swappiness", "0") == 0)
		return true;
	return pf_cg_read(AT_FDCWD, "/proc/swaps", info, sizeof(info)) > 0 && !strstr(info, "\n/");
}

/* io.weight and blkio.weight are what blk-iocost and older kernels call the weight that bfq has under its own
 * name; OCI's 10…1000 becomes 1…10000 there, as other runtimes have it. */
static int write_weight(int dir, struct pf_cg_write *w, bool live, char **old)
{
	bool v2 = w->file[0] == 'i';
	const char *v = w->key[0] ? strchr(w->value, ' ') + 1 : w->value;
	long long n = strtoll(v, NULL, 10);

	snprintf(w->file, sizeof(w->file), "%s",
		v2          ? "io.weight"
		: w->key[0] ? "blkio.weight_device"
			    : "blkio.weight");
	if (v2 && n > 0) {
		n = n < 10 ? 1 : 1 + (n - 10) * 9999 / 990;
		free(w->value);
		w->value = w->key[0] ? pf_asprintf("%s %lld", w->key, n) : pf_asprintf("%lld", n);
	}
	return write_one(dir, w, live, old);
}

static int explain(const struct pf_cgroup *cg, const struct pf_cg_write *w, struct pf_err *err)
{
	const char *ctl = pf_cgroup_ctl_name(w->ctl), *text;
	int e = errno;

	if (e == ENOENT)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"%s limit: the %s controller of this kernel has no %s (remedy: leave the limit out, "
			"or use a "
			"kernel that has it)",
			w->limit, ctl, w->file);
	if (e == EBUSY && w->ctl == PF_CG_MEMORY)
		text = "more than that is in use (remedy: a higher limit)";
	else if (e == EINVAL && w->ctl == PF_CG_CPU)
		text = "not a value the kernel takes; on cgroup v1 it also may not exceed the parent's or "
		       "fall below a "
		       "child's";
	else if (e == ENODEV)
		text = "no such block device (remedy: give the numbers of a whole disk)";
	else if (e == EACCES || e == EPERM)
		text = "not permitted (remedy: run as root, or in a delegated cgroup)";
	else if (e == EROFS)
		text = "the cgroup file system is mounted read-only (remedy: mount it read-write)";
	else
		return pf_fail_kind(err, e == EINVAL || e == ERANGE ? PF_ERR_INVALID : PF_ERR_SYSTEM, e,
			"%s limit: write '%s' to %s of %s", w->limit, w->value, w->file, cg->path);
	return pf_fail_kind(err, e == EINVAL || e == ENODEV ? PF_ERR_INVALID : PF_ERR_SYSTEM, e,
		"%s limit: write '%s' to %s of %s: %s", w->limit, w->value, w->file, cg->path, text);
}

/* Write one entry in all the ways there are. -1 with errno. */
static int apply_one(const struct pf_cgroup *cg, struct pf_cg_write *w, bool live, char **old)
{
	int dir = dir_of(cg, w->ctl);

	if (dir < 0) {
		errno = ENOENT;
		return -1;
	}
	if (write_one(dir, w, live, old) == 0)
		return 0;
	if (errno == ENOENT && w->may_lack)
		return 0;
	if (errno == ENOENT && strstr(w->file, "bfq.weight"))
		return write_weight(dir, w, live, old);
	if (w->no_swap && strcmp(w->file, "memory.swappiness") != 0 &&
		(errno == ENOENT || errno == EOPNOTSUPP) && swap_is_impossible(dir))
		return 0;
	return -1;
}

static bool is_file(const struct pf_cg_plan *p, size_t i, const char *file)
{
	return i < p->n && strcmp(p->w[i].file, file) == 0;
}

/* Raise memory+swap before memory when the new memory limit is above the old sum; the other way round the
 * plan's own order is right. cpu quota before period is tried when the period alone is refused. */
static void order(const struct pf_cgroup *cg, struct pf_cg_plan *p)
{
	int dir = dir_of(cg, PF_CG_MEMORY);

	for (size_t i = 0; i < p->n; i++) {
		size_t m = i + 1;
		if (!is_file(p, i, "memory.limit_in_bytes"))
			continue;
		while (m < p->n && !is_file(p, m, "memory.memsw.limit_in_bytes"))
			m++;
		if (m == p->n)
			return;
		int64_t sum = pf_cg_read_int(dir, "memory.memsw.limit_in_bytes");
		int64_t want = strtoll(p->w[i].value, NULL, 10);
		if (sum >= 0 && (want < 0 || want > sum)) {
			struct pf_cg_write t = p->w[i];
			p->w[i] = p->w[m];
			p->w[m] = t;
		}
		return;
	}
}

int pf_cg_plan_apply(const struct pf_cgroup *cg, struct pf_cg_plan *p, bool live, struct pf_err *err)
{
	PF_FREE char **old = pf_calloc(p->n + 1, sizeof(*old));
	size_t i;
	int rc = 0;

	if (live)
		order(cg, p);
	for (i = 0; i < p->n && rc == 0; i++) {
		rc = apply_one(cg, &p->w[i], live, &old[i]);
		if (rc < 0 && errno == EINVAL && is_file(p, i, "cpu.cfs_period_us") &&
			is_file(p, i + 1, "cpu.cfs_quota_us")) {
			struct pf_cg_write t = p->w[i];
			p->w[i] = p->w[i + 1];
			p->w[i + 1] = t;
			free(old[i]);
			old[i] = NULL;
			rc = apply_one(cg, &p->w[i], live, &old[i]);
		}
		if (rc < 0)
			explain(cg, &p->w[i], err);
	}
	if (rc < 0 && live)
		for (size_t k = i - 1; k-- > 0;)
			if (old[k])
				(void)pf_write_pseudo_at(dir_of(cg, p->w[k].ctl), p->w[k].file, old[k]);
	for (size_t k = 0; k < p->n; k++)
		free(old[k]);
	return rc;
}
