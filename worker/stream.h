/* The session's event stream: read by a thread of its own, connected again whenever it breaks. */
#ifndef PF_WORKER_STREAM_H
#define PF_WORKER_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct pf_stream;

enum pf_stream_kind {
	PF_STREAM_OPENED, /* (again) connected: what was missed is in the list of events */
	PF_STREAM_EVENT,  /* text holds one event */
	PF_STREAM_ENDED,  /* refused for good; text says why */
};
struct pf_stream_item {
	enum pf_stream_kind kind;
	char *text; /* malloc'ed; NULL */
	size_t len;
};

/* Start reading. wake_fd is an eventfd, written to when there is something to take. */
struct pf_stream *pf_stream_start(const char *base_url, const char *agent, const char *bearer,
	const char *session_id, int wake_fd, struct pf_err *err);
/* The next item, without waiting; NULL: none now. To be freed with pf_stream_item_free. */
struct pf_stream_item *pf_stream_take(struct pf_stream *s);
void pf_stream_item_free(struct pf_stream_item *i);
/* Ends the thread and frees all. */
void pf_stream_stop(struct pf_stream *s);

/* The parser of the stream's framing, by itself: bytes in, events out. */
struct pf_sse {
	char *line, *data, *event;
	size_t line_len, line_cap, data_len, data_cap;
	int too_long, after_cr;
};
/* Calls emit(arg, event, data, len) for each frame that has an event name and data. A frame beyond 16 MiB is
 * dropped; the history has it. */
void pf_sse_feed(struct pf_sse *p, const char *bytes, size_t len,
	void (*emit)(void *arg, const char *event, const char *data, size_t len), void *arg);
void pf_sse_done(struct pf_sse *p);

#endif
