/* How the programs say that something went wrong: one line on standard error for people, or one JSON object
 * for machines, and the same to a file when there is one. Used by cmd/ alone. */
#ifndef PF_SESSION_LOG_H
#define PF_SESSION_LOG_H

#include <stdbool.h>

struct pf_log_to {
	bool json;        /* --log-format json: {level, msg, code, time} */
	const char *file; /* --log FILE, appended to (made 0600); NULL: none */
};

/* level is "error" or "warning"; code is a word of pf_err_kind_name() or NULL. With a file that is where JSON
 * goes, and warnings: standard error then has the errors as text. */
void pf_log_say(const struct pf_log_to *to, const char *level, const char *msg, const char *code);

#endif
