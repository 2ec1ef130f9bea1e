/* What the processes around a sandbox give up. */
#ifndef PF_SESSION_CONFINE_H
#define PF_SESSION_CONFINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/err.h"

/* The user ids of helpers of a sandbox, one of each kind for every id range: nothing allocates them, and no
 * two processes share one. Containers' ids end below (sandbox/idrange.c). id_base 0: of all that have no
 * range. */
uid_t pf_confine_tls_uid(uint32_t id_base);
uid_t pf_confine_gate_uid(uint32_t id_base);
/* Of a pod's keeper: one for each network namespace, by the number that the kernel gave it. Where numbers are
 * none that fit, that of all that have no range. */
uid_t pf_confine_pod_uid(int netns);

/* A session's keeper, which reads nothing that a payload wrote: of capabilities keep what signals the box,
 * and, if it is to start pinfold-tls, what makes that another user; no new privileges; not dumpable; no
 * system call that mounts, traces, loads code into the kernel or makes a namespace, nor, unless it is to
 * start pinfold-tls, one that starts a program. */
int pf_confine_keeper(bool starts_tls, struct pf_err *err);

/* A gate: all of that, and another user id and no groups, of capabilities what changes the packet filter
 * alone, no new sockets but of IP, no ioctl, no memory, processes or core files without bounds. In a user
 * namespace that does not have uid, the user stays who he is; first_userns: this is none such
 * (pf_in_first_userns, which needs the host's /proc). Of all files that of the descriptor cut alone can be
 * made shorter (-1: none). */
int pf_confine_gate(uid_t uid, bool first_userns, int cut, struct pf_err *err);

/* pinfold-jail, which is both, of whoever called it. */
int pf_confine_jail(struct pf_err *err);

/* Keep these descriptors as 3, 4, …, and nothing else of what the caller has open: locks, the ends of pipes
 * that somebody reads to their end. 0 to 2 become /dev/null. -1 stays -1; at most 8. -1 with errno. */
int pf_confine_descriptors(int *const fds[], size_t n);

/* Make a resource limit (RLIMIT_…) max, hard and soft, or what it is where that is less already. */
int pf_confine_bound(int what, rlim_t max, struct pf_err *err);
/* What data a helper that serves a payload may have, bytes: whoever makes it keep more ends it. */
#ifdef __SANITIZE_ADDRESS__
#define PF_CONFINE_DATA RLIM_INFINITY /* its shadow alone is terabytes of address space */
#else
#define PF_CONFINE_DATA ((rlim_t)1 << 30)
#endif

/* For pf_confine_filter(): the calls of who signals others, and of who makes files or changes them other than
 * by writing into one that is open. NULL-terminated. */
extern const char *const pf_confine_bystander[];

/* The filter of system calls alone: what no part of a keeper has any use for is refused, and more (names,
 * NULL-terminated; may be NULL). */
int pf_confine_filter(const char *const *more, struct pf_err *err);

/* Where the kernel has Landlock: from here on files can be opened below these directories only, to read those
 * of ro, for anything but to execute those of rw; list has directories that are only listed, exec what may be
 * executed too. What does not exist is left out; all lists are NULL-terminated or NULL. Without Landlock
 * nothing changes. */
int pf_confine_files(const char *const *rw, const char *const *ro, const char *const *list,
	const char *const *exec, struct pf_err *err);

#endif
