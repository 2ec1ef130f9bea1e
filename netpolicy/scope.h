/* What requests something is good for: methods, paths, how many. Of rules and of credentials. */
#ifndef PF_NETPOLICY_SCOPE_H
#define PF_NETPOLICY_SCOPE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct pf_scope {
	char **methods;            /* upper case, NULL-terminated; NULL: every method */
	char **paths;              /* patterns, NULL-terminated; NULL: every path */
	int64_t requests_per_hour; /* 0: no limit */
};
void pf_scope_done(struct pf_scope *s);

/* Keys methods, paths, max_requests_per_hour of obj; obj's other keys are the caller's. */
int pf_scope_read(const cJSON *obj, const char *where, struct pf_scope *s, struct pf_err *err);
bool pf_scope_is_empty(const struct pf_scope *s);

bool pf_scope_method(const struct pf_scope *s, const char *method, size_t len);
/* target: of the request line, in origin form, its query included (it plays no part). A path that a server
 * might read as another one (dot segments, encoded slashes, empty segments) matches no pattern. */
bool pf_scope_path(const struct pf_scope *s, const char *target, size_t len);
/* "*" is anything but a slash, "**" anything; all else is itself. */
bool pf_scope_glob(const char *pattern, const char *s, size_t len);

/* So many in an hour, counted from the first. */
struct pf_quota {
	int64_t began, used; /* pf_now_us */
};
/* 0: granted; else seconds until it will be. */
int64_t pf_quota_take(struct pf_quota *q, int64_t per_hour);

#endif
