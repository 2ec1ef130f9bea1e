/* Theory of operation: counts. One page of atomic counters in a memfd; a session's process maps the poller's.
 * Nothing is locked, so a reader may see one half of an event (a histogram's sum before its count), which
 * those who read this format are used to. */

#include "worker/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const double bounds[] = {
	0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120};
#define N_BOUNDS (sizeof(bounds) / sizeof(bounds[0]))

struct memory {
	_Atomic uint64_t counter[PF_M_COUNT];
	struct {
		_Atomic uint64_t bucket[N_BOUNDS + 1], sum_us;
	} histogram[PF_H_COUNT];
};

static struct memory nobodys;
static struct memory *shared = &nobodys;

static int map(int fd)
{
	void *p = mmap(NULL, sizeof(struct memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -1;
	shared = p;
	return 0;
}

int pf_metrics_make(struct pf_err *err)
{
	int fd = memfd_create("pinfold-metrics", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	/* Nobody can make it smaller under whoever has mapped it. */
	if (fd >= 0 && ftruncate(fd, sizeof(struct memory)) == 0 &&
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0 && map(fd) == 0)
		return fd;
	pf_fail(err, errno, "memory for metrics");
	if (fd >= 0)
		close(fd);
	return -1;
}

void pf_metrics_join(int fd)
{
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && st.st_size == sizeof(struct memory))
		(void)map(fd);
	close(fd);
}

void pf_metric_add(enum pf_metric m, uint64_t n)
{
	atomic_fetch_add_explicit(&shared->counter[m], n, memory_order_relaxed);
}

void pf_metric_time(enum pf_histogram h, int64_t us)
{
	size_t b = 0;

	while (b < N_BOUNDS && (double)us > bounds[b] * 1e6)
		b++;
	atomic_fetch_add_explicit(&shared->histogram[h].bucket[b], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(
		&shared->histogram[h].sum_us, us > 0 ? (uint64_t)us : 0, memory_order_relaxed);
}

/* A family's line of help stands at its first counter. */
static const struct {
	enum pf_metric m;
	const char *family, *labels, *help;
} counters[] = {
	{PF_M_POLL_ITEM, "polls", "result=\"item\"", "Polls for work, by what they brought."},
	{PF_M_POLL_EMPTY, "polls", "result=\"empty\"", NULL},
	{PF_M_POLL_ERROR, "polls", "result=\"error\"", NULL},
	{PF_M_END_IDLE, "items", "end=\"idle\"", "Work items that are done with, by how they ended."},
	{PF_M_END_TERMINATED, "items", "end=\"terminated\"", NULL},
	{PF_M_END_DELETED, "items", "end=\"deleted\"", NULL},
	{PF_M_END_STOPPING, "items", "end=\"stopped\"", NULL},
	{PF_M_END_LOST, "items", "end=\"lease_lost\"", NULL},
	{PF_M_END_SIGNALLED, "items", "end=\"told_to_end\"", NULL},
	{PF_M_END_FAILED, "items", "end=\"failed\"", NULL},
	{PF_M_END_KILLED, "items", "end=\"killed\"", NULL},
	{PF_M_BOX_CREATED, "sandboxes", "how=\"created\"",
		"Sandboxes opened, by where their files came from."},
	{PF_M_BOX_RESUMED, "sandboxes", "how=\"resumed\"", NULL},
	{PF_M_BOX_RESTARTED, "sandboxes", "how=\"restarted\"", NULL},
	{PF_M_CALL_OK, "tool_calls", "result=\"ok\"", "Tool calls that were run."},
	{PF_M_CALL_ERROR, "tool_calls", "result=\"error\"", NULL},
	{PF_M_POSTED, "results", "outcome=\"posted\"", "Results of tool calls."},
	{PF_M_POST_AGAIN, "results", "outcome=\"retried\"", NULL},
	{PF_M_POST_FAILED, "results", "outcome=\"failed\"", NULL},
	{PF_M_SNAPSHOT, "checkpoints", "result=\"made\"", "Checkpoints of sessions that were put away."},
	{PF_M_SNAPSHOT_FAILED, "checkpoints", "result=\"failed\"", NULL},
	{PF_M_HOOK_ACCEPTED, "webhooks", "result=\"accepted\"", "Webhooks, by what became of them."},
	{PF_M_HOOK_REPEATED, "webhooks", "result=\"repeated\"", NULL},
	{PF_M_HOOK_IGNORED, "webhooks", "result=\"ignored\"", NULL},
	{PF_M_HOOK_REFUSED, "webhooks", "result=\"refused\"", NULL},
};

static const char *const histograms[PF_H_COUNT][2] = {
	[PF_H_BOX_OPEN] = {"sandbox_open", "Time until a session's sandbox was there."},
	[PF_H_CALL] = {"tool_call", "Time that tool calls ran."},
	[PF_H_POST] = {"result_post", "Time until a result was taken."},
};

static uint64_t value(const _Atomic uint64_t *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

void pf_metrics_print(struct pf_buf *out)
{
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		const char *f = counters[i].family;
		if (counters[i].help)
			pf_buf_printf(out,
				"# HELP pinfold_worker_%s_total %s\n# TYPE pinfold_worker_%s_total counter\n",
				f, counters[i].help, f);
		pf_buf_printf(out, "pinfold_worker_%s_total{%s} %llu\n", f, counters[i].labels,
			(unsigned long long)value(&shared->counter[counters[i].m]));
	}
	for (size_t h = 0; h < PF_H_COUNT; h++) {
		const char *f = histograms[h][0];
		uint64_t n = 0;
		pf_buf_printf(out,
			"# HELP pinfold_worker_%s_seconds %s\n# TYPE pinfold_worker_%s_seconds histogram\n",
			f, histograms[h][1], f);
		for (size_t b = 0; b < N_BOUNDS; b++) {
			n += value(&shared->histogram[h].bucket[b]);
			pf_buf_printf(out, "pinfold_worker_%s_seconds_bucket{le=\"%g\"} %llu\n", f, bounds[b],
				(unsigned long long)n);
		}
		n += value(&shared->histogram[h].bucket[N_BOUNDS]);
		pf_buf_printf(out,
			"pinfold_worker_%s_seconds_bucket{le=\"+Inf\"} %llu\n"
			"pinfold_worker_%s_seconds_sum %.6f\npinfold_worker_%s_seconds_count %llu\n",
			f, (unsigned long long)n, f, (double)value(&shared->histogram[h].sum_us) / 1e6, f,
			(unsigned long long)n);
	}
}
