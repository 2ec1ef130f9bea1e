/* What a command writes, kept up to a limit. */
#ifndef PF_BASE_SINK_H
#define PF_BASE_SINK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

/* The reading end of a pipe (-1: none) and what came out of it: at most max bytes, the rest is read and
 * dropped, so that the writer never waits. */
struct pf_sink {
	int fd;
	struct pf_buf data;
	size_t max;
	bool truncated;
};

/* Read what is there. False at the end of the stream. */
bool pf_sink_drain(struct pf_sink *s);

#endif
