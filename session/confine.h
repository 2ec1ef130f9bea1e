/* What a keeper gives up once its sandbox runs: it reads names, packets and TLS heads that a payload wrote.
 */
#ifndef PF_SESSION_CONFINE_H
#define PF_SESSION_CONFINE_H

#include "base/err.h"

/* Of capabilities keep those that change the packet filter and signal the box; no new privileges; not
 * dumpable; no system call that starts a program, mounts, traces, loads code into the kernel or makes a
 * namespace. */
int pf_confine_keeper(struct pf_err *err);

/* The filter of system calls alone: what no part of a keeper has any use for is refused, and more (names,
 * NULL-terminated; may be NULL). */
int pf_confine_filter(const char *const *more, struct pf_err *err);

/* Where the kernel has Landlock: from here on files can be opened below these directories only, to read those
 * of ro, for anything but to execute those of rw; list has directories that are only listed. What does not
 * exist is left out; all lists are NULL-terminated. Without Landlock nothing changes. */
int pf_confine_files(
	const char *const *rw, const char *const *ro, const char *const *list, struct pf_err *err);

#endif
