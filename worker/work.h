/* The documents of the contract: a work item, its secret, and what is posted. */
#ifndef PF_WORKER_WORK_H
#define PF_WORKER_WORK_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

struct pf_work {
	char *id, *environment_id;
	char *session_id; /* NULL: not a session's (a health check) */
	char *token;      /* of the secret; NULL: the environment key is used */
};

/* Read a work item. Members that are not known are passed over. 1: read; 0: there is none (null, or an empty
 * id); -1: it is none. Ids are checked to be one path component each. */
int pf_work_parse(const char *text, size_t len, struct pf_work *w, struct pf_err *err);
/* Frees it; the token is wiped. */
void pf_work_done(struct pf_work *w);

/* Parse what the control plane sends; NULL when it is no JSON. cJSON's strings end at a NUL character: an
 * escaped one becomes PF_JSON_NUL instead, a character that no text has, and pf_json_nul puts it back. */
#define PF_JSON_NUL "\xf4\x8f\xbf\xbf"
cJSON *pf_json_lenient(const char *text, size_t len);
/* A string of such a document with its NULs; *len its bytes. malloc'ed. */
char *pf_json_nul(const char *s, size_t *len);

/* A word of JSON, quotes included, from bytes that a sandbox wrote: what is not UTF-8 becomes U+FFFD, as a
 * decoder of JavaScript would have it, and NUL is kept. */
void pf_json_quote(struct pf_buf *b, const char *data, size_t len);

/* The body that answers one call. */
char *pf_result_body(const char *call_id, bool custom, bool is_error, const char *text, size_t len);

#endif
