/* Theory of operation: limits with and without root.
 *
 * Root gets a cgroup, like any sandbox. An ordinary user has none that he may divide, but where systemd runs
 * for him it makes a scope with limits around this process when asked. Where not, what remains is:
 * RLIMIT_NPROC, which the kernel counts per user namespace (so other processes of the same user do not
 * count), RLIMIT_DATA for each process, and a look at the sum every tenth of a second for all of them
 * together. Processor time cannot be shared out that way, and asking for it is an error that says how to get
 * a cgroup. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "jail/run.h"
#include "session/session.h"

#define LOOK_US 100000
#define OURS 3 /* besides the command's processes: this one, process 1 of the box, the sweeper */
#define PROC_MAGIC 0x9fa0

static bool wanted(const struct pf_jail *j)
{
	return j->memory >= 0 || j->pids >= 0 || j->millicpus >= 0;
}

static int make_cgroup(const struct pf_jail *j, struct pf_jail_limits *l, struct pf_err *err)
{
	PF_LIMITS struct pf_limits limits;

	pf_limits_init(&limits);
	limits.memory = j->memory;
	if (j->memory >= 0)
		limits.memory_swap = 0;
	limits.pids = j->pids;
	if (j->millicpus >= 0) {
		limits.cpu_quota_us = j->millicpus * 100;
		limits.cpu_period_us = 100000;
	}
	l->path = pf_asprintf("/pinfold/jail-%d-%llx", (int)getpid(), (unsigned long long)pf_now_us());
	if (pf_cgroup_probe(&l->host, err) < 0 ||
		pf_cgroup_create(&l->host, l->path, &limits, j->memory >= 0 ? PF_CGROUP_OOM_GROUP : 0,
			&l->cgroup, err) < 0)
		return pf_wrap(err, "cgroup");
	if (j->memory >= 0) {
		l->oom_fd = pf_cgroup_oom_fd(l->cgroup, err);
		if (l->oom_fd < 0)
			return pf_wrap(err, "cgroup");
	}
	return 0;
}

/* ---- a scope of the user's own systemd ---- */

void pf_jail_limits_scope(struct pf_jail *j)
{
	const char *run = getenv("XDG_RUNTIME_DIR");
	char unit[64], pid[16], memory[24], tasks[24], quota[24];
	char *argv[40];
	size_t n = 0;
	struct pf_err err = PF_ERR_INIT;

	PF_FREE char *place = pf_asprintf("%s/systemd", run && run[0] == '/' ? run : "/nonexistent");
	if (j->caller_uid == 0 || !wanted(j) || access(place, F_OK) < 0)
		return;
	PF_FREE char *helper = pf_helper_path("pinfold-systemd", &err);
	if (!helper)
		return;
	snprintf(unit, sizeof(unit), "pinfold-jail-%d-%llx.scope", (int)getpid(),
		(unsigned long long)pf_now_us());
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(memory, sizeof(memory), "%lld", (long long)j->memory);
	snprintf(tasks, sizeof(tasks), "%lld", (long long)j->pids + OURS);
	snprintf(quota, sizeof(quota), "%lld", (long long)j->millicpus * 1000);
	const char *const head[] = {
		helper, "start", unit, "app.slice", unit, pid, "s", "OOMPolicy", "continue"};
	for (size_t i = 0; i < sizeof(head) / sizeof(head[0]); i++)
		argv[n++] = (char *)head[i];
	const struct {
		bool on;
		const char *name, *value;
	} props[] = {{j->memory >= 0, "MemoryMax", memory}, {j->memory >= 0, "MemorySwapMax", "0"},
		{j->pids >= 0, "TasksMax", tasks}, {j->millicpus >= 0, "CPUQuotaPerSecUSec", quota}};
	for (size_t i = 0; i < sizeof(props) / sizeof(props[0]); i++)
		if (props[i].on) {
			argv[n++] = (char *)"t";
			argv[n++] = (char *)props[i].name;
			argv[n++] = (char *)props[i].value;
		}
	argv[n] = NULL;
	j->scoped = pf_run(argv, NULL, &err) == 0;
	if (!j->scoped && j->say) {
		PF_FREE char *text = pf_asprintf("no scope from systemd: %s", err.msg);
		j->say(j->say_arg, text);
	}
}

/* Whether file of our own cgroup bounds it as we asked, or more tightly: a controller that the scope has not
 * been given keeps nothing, and what somebody else's default says is not our limit, whatever systemd
 * answered. */
static bool has_limit(int dir, const char *file, int64_t limit)
{
	PF_FREE char *text = NULL;
	struct pf_err ignored = PF_ERR_INIT;
	char *end;

	if (pf_read_pseudo_at(dir, file, 64, &text, &ignored) < 0)
		return false;
	long long n = strtoll(text, &end, 10); /* "max" is no number */
	if (end == text)
		return false;
	/* cpu.max has the length of its period, too; systemd chooses it, and rounds. */
	long long period = strtoll(end, NULL, 10);
	return period > 0 ? (double)n / (double)period <= (double)limit / 1000 * 1.01 : n <= limit;
}

static bool scope_holds(const struct pf_jail *j, struct pf_jail_limits *l)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (!j->scoped || pf_cgroup_probe(&l->host, &ignored) < 0 || l->host.v2 < 0)
		return false;
	PF_FREE char *own = pf_cgroup_self(&l->host, &ignored);
	PF_FREE char *path = own ? pf_asprintf("%s%s", l->host.hier[l->host.v2].mount, own) : NULL;
	PF_CLOSE int dir = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (dir < 0 || (j->memory >= 0 && !has_limit(dir, "memory.max", j->memory)) ||
		(j->pids >= 0 && !has_limit(dir, "pids.max", j->pids + OURS)) ||
		(j->millicpus >= 0 && !has_limit(dir, "cpu.max", j->millicpus)))
		return false;
	if (j->memory >= 0) {
		l->events_fd = openat(dir, "memory.events", O_RDONLY | O_CLOEXEC);
		if (l->events_fd < 0)
			return false;
		l->watch_memory = j->memory; /* looked at for kills, not for sums */
	}
	return true;
}

static bool killed_in_scope(const struct pf_jail_limits *l)
{
	char text[512];
	ssize_t n = pread(l->events_fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return false;
	text[n] = '\0';
	const char *line = strstr(text, "oom_kill ");
	return line && strtoll(line + 9, NULL, 10) > 0;
}

int pf_jail_limits_make(const struct pf_jail *j, struct pf_jail_limits *l, struct pf_err *err)
{
	if (!wanted(j))
		return 0;
	if (j->caller_uid == 0)
		return make_cgroup(j, l, err);
	if (scope_holds(j, l)) {
		if (j->say)
			j->say(j->say_arg, "limits: kept by a scope of your systemd");
		return 0;
	}
	if (j->millicpus >= 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"--cpus takes a cgroup, which an ordinary user gets from a systemd of his own "
			"(loginctl "
			"enable-linger) on a machine with cgroup v2: run it there, as root, or with --cpus "
			"left out");
	if (j->memory >= 0) {
		l->watch_memory = j->memory;
		if (j->say)
			j->say(j->say_arg,
				"memory: kept by RLIMIT_DATA and a look ten times a second (no cgroup)");
	}
	if (j->pids >= 0 && j->say)
		j->say(j->say_arg, "processes: kept by RLIMIT_NPROC (no cgroup)");
	return 0;
}

int pf_jail_limits_timeout(const struct pf_jail_limits *l)
{
	if (l->watch_memory < 0)
		return -1;
	int64_t left = l->next_look_us - pf_now_us();
	return left <= 0 ? 0 : (int)(left / 1000 + 1);
}

/* Memory that is a process's alone or shared with others of the box; shared pages count for each. */
static int64_t used_by(int proc, const char *pid)
{
	char path[64];
	PF_FREE char *text = NULL;
	struct pf_err ignored = PF_ERR_INIT;
	int64_t sum = 0;

	snprintf(path, sizeof(path), "%.16s/status", pid);
	if (pf_read_pseudo_at(proc, path, 8192, &text, &ignored) < 0)
		return 0;
	static const char *const keys[] = {"\nRssAnon:", "\nRssShmem:", "\nVmSwap:"};
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *line = strstr(text, keys[i]);
		if (line)
			sum += strtoll(line + strlen(keys[i]), NULL, 10) * 1024;
	}
	return sum;
}

static int64_t used_by_all(struct pf_jail_limits *l, pid_t pid)
{
	struct dirent *e;
	int64_t sum = 0;

	if (l->proc_fd < 0) {
		char path[64];
		struct statfs fs;
		snprintf(path, sizeof(path), "/proc/%d/root/proc", (int)pid);
		PF_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || fstatfs(fd, &fs) < 0 || fs.f_type != PROC_MAGIC)
			return 0;
		l->proc_fd = pf_take_fd(&fd);
	}
	int again = openat(l->proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = again < 0 ? NULL : fdopendir(again);
	while (d && (e = readdir(d)))
		if (isdigit((unsigned char)e->d_name[0]))
			sum += used_by(l->proc_fd, e->d_name);
	return sum;
}

bool pf_jail_limits_look(struct pf_jail_limits *l, pid_t pid)
{
	if (l->oom_fd >= 0) {
		bool met = pf_cgroup_oom_drain(l->oom_fd) > 0 || pf_cgroup_oom_kills(l->cgroup) > 0;
		return met;
	}
	if (l->watch_memory < 0 || pf_now_us() < l->next_look_us)
		return false;
	l->next_look_us = pf_now_us() + LOOK_US;
	if (l->events_fd >= 0)
		return killed_in_scope(l);
	return used_by_all(l, pid) > l->watch_memory;
}

bool pf_jail_limits_killed(const struct pf_jail_limits *l)
{
	return l->cgroup ? pf_cgroup_oom_kills(l->cgroup) > 0 : l->events_fd >= 0 && killed_in_scope(l);
}

int64_t pf_jail_limits_peak(const struct pf_jail_limits *l, int64_t *cpu_us)
{
	struct pf_cgroup_stats st;
	struct pf_err ignored = PF_ERR_INIT;

	if (!l->cgroup || pf_cgroup_stats(l->cgroup, &st, &ignored) < 0)
		return -1;
	if (st.cpu_usage_us >= 0)
		*cpu_us = st.cpu_usage_us;
	return st.memory_peak;
}

void pf_jail_limits_done(struct pf_jail_limits *l)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (l->cgroup) {
		(void)pf_cgroup_kill(l->cgroup, &ignored);
		(void)pf_cgroup_remove(l->cgroup, 5000, &ignored);
		pf_cgroup_free(l->cgroup);
		pf_cgroup_prune(&l->host, "/pinfold");
	}
	free(l->path);
	if (l->proc_fd >= 0)
		close(l->proc_fd);
	if (l->oom_fd >= 0)
		close(l->oom_fd);
	if (l->events_fd >= 0)
		close(l->events_fd);
	*l = PF_JAIL_LIMITS_INIT;
}
