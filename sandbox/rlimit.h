/* Resource limits (setrlimit) by their OCI names. */
#ifndef PF_SANDBOX_RLIMIT_H
#define PF_SANDBOX_RLIMIT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include "base/err.h"

struct pf_rlimit {
	int resource;        /* RLIMIT_* */
	uint64_t soft, hard; /* RLIM_INFINITY is UINT64_MAX, as in OCI's config.json */
};

/* "RLIMIT_NOFILE" or "nofile", in any case: the RLIMIT_* number, or -1: PF_ERR_INVALID with the nearest. */
int pf_rlimit_parse(const char *name, struct pf_err *err);
/* "RLIMIT_NOFILE", or NULL. */
const char *pf_rlimit_name(int resource);

/* Whether a process like this one may set them: no soft limit above its hard one, nothing twice, nothing
 * above our own hard limit without CAP_SYS_RESOURCE. The error names the limit and the remedy. */
int pf_rlimits_check(const struct pf_rlimit *limits, size_t n, struct pf_err *err);

/* RLIMIT_CORE for who is to leave no core: one byte, if our own hard limit has it. No core is as small, and
 * with none at all the kernel would still start the program that core_pattern may name, outside, for each
 * crash. */
uint64_t pf_rlimit_no_core(void);

/* Set them for the calling process, in order. 0, or -1 with errno and *failed (may be NULL) the index of the
 * one refused. Async-signal-safe. */
int pf_rlimits_apply(const struct pf_rlimit *limits, size_t n, size_t *failed);
/* The error for a limit that pf_rlimits_apply could not set; errnum is the errno it left. Returns -1. */
int pf_rlimit_fail(const struct pf_rlimit *limit, int errnum, struct pf_err *err);

#endif
