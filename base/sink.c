#include "base/sink.h"

#include <errno.h>
#include <unistd.h>

bool pf_sink_drain(struct pf_sink *s)
{
	char chunk[65536];
	ssize_t n = read(s->fd, chunk, sizeof(chunk));

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false;
	size_t room = s->max - s->data.len, take = (size_t)n < room ? (size_t)n : room;
	pf_buf_add(&s->data, chunk, take);
	if (take < (size_t)n)
		s->truncated = true;
	return true;
}
