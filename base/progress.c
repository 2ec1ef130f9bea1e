#include "base/progress.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"

static _Atomic int64_t expected, done;

void pf_progress_expect(int64_t bytes)
{
	atomic_fetch_add_explicit(&expected, bytes, memory_order_relaxed);
}

void pf_progress_done(int64_t bytes)
{
	atomic_fetch_add_explicit(&done, bytes, memory_order_relaxed);
}

struct pf_progress pf_progress_now(void)
{
	return (struct pf_progress){atomic_load_explicit(&expected, memory_order_relaxed),
		atomic_load_explicit(&done, memory_order_relaxed)};
}

static void add_left(int64_t s, char *buf, size_t len)
{
	if (s < 100)
		snprintf(buf, len, ", %" PRId64 " s left", s);
	else if (s < 360000)
		snprintf(buf, len, ", %" PRId64 ":%02" PRId64 ":%02" PRId64 " left", s / 3600, s / 60 % 60,
			s % 60);
}

char *pf_progress_format(struct pf_progress p, int64_t spent_us, char *buf, int len)
{
	char a[16], b[16];
	size_t size = len > 0 ? (size_t)len : 0;

	if (p.expected < p.done || p.expected <= 0) {
		snprintf(buf, size, "%s", pf_format_size(p.done, a, sizeof(a)));
		return buf;
	}
	int n = snprintf(buf, size, "%s of %s, %d %%", pf_format_size(p.done, a, sizeof(a)),
		pf_format_size(p.expected, b, sizeof(b)), (int)((double)p.done * 100 / (double)p.expected));
	/* The first moments say nothing about the rest. */
	if (n > 0 && (size_t)n < size && p.done > 0 && spent_us > 1000000)
		add_left((int64_t)((double)spent_us * (double)(p.expected - p.done) / (double)p.done / 1e6),
			buf + n, size - (size_t)n);
	return buf;
}
