/* A source that gives its bytes in pieces of `step`, so that what lies across two of them is read, too. */
#ifndef PF_TESTS_MEMORY_SOURCE_H
#define PF_TESTS_MEMORY_SOURCE_H

#include <string.h>
#include <sys/types.h>

#include "base/err.h"

struct memory {
	const void *p;
	size_t len, at, step;
};

static ssize_t give(void *arg, void *buf, size_t len, struct pf_err *err)
{
	struct memory *m = arg;

	(void)err;
	if (len > m->len - m->at)
		len = m->len - m->at;
	if (len > m->step)
		len = m->step;
	memcpy(buf, (const char *)m->p + m->at, len);
	m->at += len;
	return (ssize_t)len;
}

#endif
