/* HTTP to the control plane, over libcurl: one request at a time per handle, cut short from another thread.
 */
#ifndef PF_WORKER_HTTP_H
#define PF_WORKER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* Once per process, before anything else here and before threads. */
int pf_http_init(struct pf_err *err);

/* What one thread uses, and no other but for pf_http_cancel. */
struct pf_http;
struct pf_http *pf_http_new(const char *base_url, const char *user_agent, struct pf_err *err);
void pf_http_free(struct pf_http *h);
/* Ends the request that runs and every later one; from any thread. */
void pf_http_cancel(struct pf_http *h);

/* What may end requests and sleeps before their time, too: asked before each and about once a second, by the
 * thread that uses h. */
struct pf_http_over {
	bool (*is)(void *arg); /* NULL: nothing */
	void *arg;
};
void pf_http_ends_with(struct pf_http *h, struct pf_http_over over);

struct pf_http_req {
	const char *method;       /* GET, POST, DELETE */
	const char *path;         /* below the base URL, with its query */
	const char *bearer;       /* Authorization */
	const char *body;         /* JSON, or NULL: none */
	const char *const *extra; /* further "Name: value" headers, NULL-terminated; or NULL */
	bool bare;                /* no headers but Authorization and those */
	bool once;                /* never sent again by libcurl itself, whatever the connection did */
	int64_t timeout_ms;       /* 0: none, for streams */
	int64_t silence_ms;       /* a stream that says nothing for so long has broken; 0: never */
	/* A 2xx body (sink_all: any body) as it comes, instead of into the response. Returns false to end the
	 * request. */
	bool (*sink)(void *arg, const char *data, size_t len);
	bool sink_all;
	/* Each header of the answer that is shorter than 200 bytes, its name and its value without the line's
	 * end. */
	void (*header)(void *arg, const char *name, const char *value);
	void (*opened)(void *arg); /* a stream's: the 2xx head is here */
	void *arg;
	int peer; /* > 0: a socket whose other end gives the request up by closing it */
};

struct pf_http_resp {
	long status;
	struct pf_buf body;     /* at most 64 MiB */
	int64_t retry_after_ms; /* what the server asked for; -1: nothing */
	int should_retry;       /* x-should-retry: 1, 0; -1: not said */
};
void pf_http_resp_done(struct pf_http_resp *r);

/* One try. 0 when a status came, whatever it says; -1 when none did (err->errnum ECANCELED after
 * pf_http_cancel, and when it is over). *resp is to be freed in both cases. */
int pf_http_once(
	struct pf_http *h, const struct pf_http_req *req, struct pf_http_resp *resp, struct pf_err *err);
/* The same with two more tries, half a second to eight apart, where a try makes sense (pf_http_transient). */
int pf_http_retry(
	struct pf_http *h, const struct pf_http_req *req, struct pf_http_resp *resp, struct pf_err *err);

/* The status that the request which runs, or ran last, was answered with so far; 0: none. In its callbacks
 * and after it, by its thread. */
long pf_http_status(struct pf_http *h);

/* Whether the same request may succeed later: 408, 409, 429, 5xx, or as the server said. */
bool pf_http_transient(const struct pf_http_resp *resp);
/* Whether it never will: another 4xx. */
bool pf_http_fatal(const struct pf_http_resp *resp);
/* The error for a status that is no success: "what: 403 permission_error: text". Returns -1. Never quotes
 * what was sent. */
int pf_http_fail(const struct pf_http_resp *resp, const char *what, struct pf_err *err);

/* Sleep, or until cancelled or over. False: it was. */
bool pf_http_sleep(struct pf_http *h, int64_t ms);
/* base * 2^n up to cap, less up to a quarter by chance. */
int64_t pf_backoff_ms(unsigned n, int64_t base_ms, int64_t cap_ms);

#endif
