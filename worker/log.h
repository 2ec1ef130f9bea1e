/* Lines on standard error: text, or one JSON object each. Never a credential. */
#ifndef PF_WORKER_LOG_H
#define PF_WORKER_LOG_H

#include <stdbool.h>

/* json for all lines; session begins each of them (NULL: none). Before threads. */
void pf_wlog_setup(bool json, const char *session);
void pf_wlog(const char *level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
