/* How far long work has come, in bytes. Library code counts; a program that has somebody to tell reads. The
 * counts are the process's, and safe to use from threads. */
#ifndef PF_BASE_PROGRESS_H
#define PF_BASE_PROGRESS_H

#include <stdint.h>

/* So much more is to be done (less, when negative), as soon as it is known. */
void pf_progress_expect(int64_t bytes);
/* So much of it has been done. */
void pf_progress_done(int64_t bytes);

struct pf_progress {
	int64_t expected, done; /* expected 0: not known */
};
struct pf_progress pf_progress_now(void);

/* One line for people: "12.0 MB of 96.0 MB, 12 %, 7 s left"; what is not known is left out. spent_us: how
 * long it has taken so far. buf holds at least 80 bytes; returns buf. */
char *pf_progress_format(struct pf_progress p, int64_t spent_us, char *buf, int len);

#endif
