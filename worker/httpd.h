/* The server's side of HTTP/1.1 for one connection at a time: a request in, an answer out. */
#ifndef PF_WORKER_HTTPD_H
#define PF_WORKER_HTTPD_H

#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

#define PF_HTTPD_HEADERS 64

struct pf_httpd_req {
	char *method, *target; /* target: path and query, printable ASCII */
	struct {
		char *name, *value;
	} headers[PF_HTTPD_HEADERS];
	size_t n_headers;
	struct pf_buf body;
	bool keep; /* another request may follow on the connection */
	bool http11;
};

/* Read one request. Returns 0; -1 when none came (the end, or nothing for two minutes) or what came is none
 * or is too large, alone or with what other connections are sending, which is answered. */
int pf_httpd_read(int fd, struct pf_httpd_req *r);
void pf_httpd_done(struct pf_httpd_req *r);
/* A header's value; NULL. */
const char *pf_httpd_header(const struct pf_httpd_req *r, const char *name);

/* A whole answer; json NULL: without a body. false: nobody takes it. */
bool pf_httpd_reply(int fd, bool keep, long status, const char *json);
/* All of it, or false after half a minute without progress. */
bool pf_httpd_send(int fd, const void *data, size_t len);

#endif
