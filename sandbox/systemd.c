/* Theory of operation: a scope before its container.
 *
 * systemd makes a scope around processes that are there already, while a container's first process is cloned
 * into a cgroup that is there already. So a process that does nothing, the hold, is put into the scope first;
 * the container's own is then born in the scope's cgroup as in any other, and the hold ends. It waits on a
 * pipe of ours, and dies with us whatever happens: then systemd finds the scope empty and removes it.
 *
 * Limits are told in systemd's own properties as far as it has them; it writes those again whenever it likes,
 * so that they must be the same. The others it leaves alone in a delegated scope. */
#include "sandbox/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "sandbox/spec_internal.h"

#define CPUSET_LONGS 16

int pf_systemd_names(const char *path, char **unit, char **slice, struct pf_err *err)
{
	const char *last = strrchr(path, '/'), *p = last;

	if (!last || !last[1])
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "cgroupsPath: names no unit");
	for (const char *c = last + 1; *c; c++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_.\\@-", *c))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"cgroupsPath: '%.100s' is no name of a systemd unit", last + 1);
	if (strlen(last + 1) > 255)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "cgroupsPath: a unit's name has at most 255 bytes");
	while (p > path && p[-1] != '/')
		p--;
	*slice = p == last ? pf_strdup("-.slice") : pf_asprintf("%.*s", (int)(last - p), p);
	*unit = pf_strdup(last + 1);
	return 0;
}

/* ---- properties ---- */

struct list {
	char **v;
	size_t n;
};

static void put(struct list *l, const char *type, const char *name, char *value)
{
	char **more = realloc(l->v, (l->n + 4) * sizeof(*more));

	if (!more)
		abort();
	l->v = more;
	more[l->n++] = pf_strdup(type);
	more[l->n++] = pf_strdup(name);
	more[l->n++] = value;
	more[l->n] = NULL;
}

/* systemd's word for "no limit" is the largest number. */
static void put_number(struct list *l, const char *name, int64_t v)
{
	if (v != PF_LIMIT_UNSET)
		put(l, "t", name, pf_asprintf("%" PRIu64, v == PF_LIMIT_NONE ? UINT64_MAX : (uint64_t)v));
}

/* A CPU list as bytes, the lowest first, in hexadecimal; one that does not fit stays with the cgroup file. */
static void put_set(struct list *l, const char *name, const char *text)
{
	unsigned long set[CPUSET_LONGS];
	struct pf_err ignored = PF_ERR_INIT;
	PF_BUF struct pf_buf b = {0};
	size_t last = 0;

	if (!text || pf_spec_cpu_list(name, text, set, CPUSET_LONGS, &ignored) < 0)
		return;
	for (size_t i = 0; i < sizeof(set); i++)
		if ((set[i / sizeof(long)] >> 8 * (i % sizeof(long))) & 0xff)
			last = i;
	for (size_t i = 0; i <= last; i++)
		pf_buf_printf(&b, "%02lx", (set[i / sizeof(long)] >> 8 * (i % sizeof(long))) & 0xff);
	put(l, "y", name, pf_take(b.data));
}

static void put_quota(struct list *l, int64_t quota, int64_t period)
{
	uint64_t usec;

	if (period > 0)
		put_number(l, "CPUQuotaPeriodUSec", period);
	if (quota == PF_LIMIT_UNSET)
		return;
	if (quota == PF_LIMIT_NONE) {
		put_number(l, "CPUQuotaPerSecUSec", PF_LIMIT_NONE);
		return;
	}
	/* Per second of time; systemd counts in hundredths and would cut what is over. */
	usec = (uint64_t)quota * 1000000 / (uint64_t)(period > 0 ? period : 100000);
	put_number(l, "CPUQuotaPerSecUSec", (int64_t)((usec + 9999) / 10000 * 10000));
}

/* Raw files of v2 that systemd would write itself. */
static void put_unified(struct list *l, char *const *unified)
{
	static const struct {
		const char *file, *property;
	} same[] = {{"memory.max", "MemoryMax"}, {"memory.high", "MemoryHigh"}, {"memory.low", "MemoryLow"},
		{"memory.min", "MemoryMin"}, {"memory.swap.max", "MemorySwapMax"}, {"pids.max", "TasksMax"},
		{"cpu.weight", "CPUWeight"}};

	for (char *const *kv = unified; kv && *kv; kv += 2) {
		char *end;
		long long v = strtoll(kv[1], &end, 10), period = 100000;
		bool max = strncmp(kv[1], "max", 3) == 0;

		if (strcmp(kv[0], "cpuset.cpus") == 0 || strcmp(kv[0], "cpuset.mems") == 0)
			put_set(l, strcmp(kv[0] + 7, "cpus") == 0 ? "AllowedCPUs" : "AllowedMemoryNodes",
				kv[1]);
		for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
			if (strcmp(kv[0], same[i].file) == 0 && (max || end != kv[1]))
				put_number(l, same[i].property, max ? PF_LIMIT_NONE : v);
		if (strcmp(kv[0], "cpu.max") == 0 && (max || end != kv[1])) {
			const char *space = strchr(kv[1], ' ');
			if (space)
				period = strtoll(space + 1, NULL, 10);
			put_quota(l, max ? PF_LIMIT_NONE : v, period);
		}
	}
}

static bool on_v2(const struct pf_cgroup_host *host, enum pf_cg_ctl ctl)
{
	return host->where[ctl] >= 0 && host->hier[host->where[ctl]].v2;
}

char **pf_systemd_limits(const struct pf_limits *l, const struct pf_cgroup_host *host)
{
	struct list out = {.v = pf_calloc(1, sizeof(char *))};

	if (on_v2(host, PF_CG_MEMORY)) {
		put_number(&out, "MemoryMax", l->memory);
		put_number(&out, "MemoryHigh", l->memory_high);
		put_number(&out, "MemoryLow", l->memory_low);
		put_number(&out, "MemorySwapMax", l->memory_swap);
	} else {
		put_number(&out, "MemoryLimit", l->memory);
	}
	if (!on_v2(host, PF_CG_CPU))
		put_number(&out, "CPUShares", l->cpu_shares);
	else if (l->cpu_weight != PF_LIMIT_UNSET)
		put_number(&out, "CPUWeight", l->cpu_weight);
	else if (l->cpu_shares != PF_LIMIT_UNSET)
		put_number(&out, "CPUWeight", pf_cpu_shares_to_weight(l->cpu_shares));
	put_quota(&out, l->cpu_quota_us, l->cpu_period_us);
	put_number(&out, "TasksMax", l->pids);
	if (on_v2(host, PF_CG_CPUSET)) {
		put_set(&out, "AllowedCPUs", l->cpuset_cpus);
		put_set(&out, "AllowedMemoryNodes", l->cpuset_mems);
	}
	put_unified(&out, l->unified);
	return out.v;
}

/* ---- the helper ---- */

/* Run pinfold-systemd with head, then the properties. */
static int call(char *const *head, char *const *limits, struct pf_err *err)
{
	size_t n = pf_strv_len(head), k = pf_strv_len(limits);
	PF_FREE char *dir = pf_program_dir(err), *program = NULL;
	PF_FREE char **argv = pf_calloc(n + k + 2, sizeof(*argv));

	if (!dir)
		return -1;
	program = pf_asprintf("%s/../libexec/pinfold/pinfold-systemd", dir);
	if (access(program, X_OK) < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errno,
			"--systemd-cgroup: its helper %s (remedy: install it, or use the cgroupfs driver)",
			program);
	argv[0] = program;
	memcpy(argv + 1, head, n * sizeof(*argv));
	memcpy(argv + 1 + n, limits, k * sizeof(*argv));
	return pf_run(argv, NULL, err) < 0 ? pf_wrap(err, "--systemd-cgroup") : 0;
}

static char *const nothing[] = {NULL};

/* ---- the scope ---- */

static int start_hold(struct pf_systemd_hold *hold, struct pf_err *err)
{
	pid_t parent = getpid();

	hold->pid = fork();
	if (hold->pid < 0)
		return pf_fail(err, errno, "fork");
	if (hold->pid > 0)
		return 0;
	(void)prctl(PR_SET_NAME, "pinfold-hold", 0, 0, 0);
	(void)close_range(0, ~0U, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent)
		_exit(1);
	for (;;)
		pause();
}

void pf_systemd_release(struct pf_systemd_hold *hold)
{
	if (hold->pid <= 0)
		return;
	(void)kill(hold->pid, SIGKILL);
	while (waitpid(hold->pid, NULL, 0) < 0 && errno == EINTR)
		;
	hold->pid = 0;
}

/* Where systemd has put it: "0::/a.slice/x.scope", or the line of systemd's own v1 hierarchy. */
static char *cgroup_of(pid_t pid, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	char file[48], *save = NULL;
	char *found = NULL;

	snprintf(file, sizeof(file), "/proc/%d/cgroup", (int)pid);
	if (pf_read_pseudo_at(AT_FDCWD, file, 65536, &text, err) < 0)
		return NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *v1 = strstr(line, ":name=systemd:");
		const char *at = pf_starts_with(line, "0::") ? line + 3 : v1 ? v1 + 14 : NULL;
		if (at && (!found || pf_starts_with(line, "0::"))) {
			free(found);
			found = pf_strdup(at);
		}
	}
	if (!found)
		pf_fail(err, 0, "--systemd-cgroup: the scope has no cgroup");
	return found;
}

int pf_systemd_start(const char *unit, const char *slice, const char *id, char *const *limits,
	struct pf_systemd_hold *hold, char **path, struct pf_err *err)
{
	char pid[16];

	if (access("/run/systemd/system", F_OK) < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"--systemd-cgroup: systemd does not run on this host (remedy: leave it out, or set "
			"the "
			"caller to the cgroupfs driver)");
	if (start_hold(hold, err) < 0)
		return -1;
	snprintf(pid, sizeof(pid), "%d", (int)hold->pid);
	char *head[] = {(char *)"start", (char *)unit, (char *)slice, (char *)id, pid, NULL};
	if (call(head, limits, err) < 0)
		return -1;
	*path = cgroup_of(hold->pid, err);
	if (!*path)
		return -1;
	/* A name below which there is nothing of ours: were it not moved, it would be in our own cgroup. */
	if (!pf_ends_with(*path, unit)) {
		pf_fail(err, 0, "--systemd-cgroup: systemd has not moved the process, it is in %s", *path);
		free(*path);
		*path = NULL;
		return -1;
	}
	return 0;
}

int pf_systemd_set(const char *unit, char *const *limits, struct pf_err *err)
{
	char *head[] = {(char *)"set", (char *)unit, NULL};

	return *limits ? call(head, limits, err) : 0;
}

int pf_systemd_stop(const char *unit, struct pf_err *err)
{
	char *head[] = {(char *)"stop", (char *)unit, NULL};

	return call(head, nothing, err);
}
