/* linux.sysctl: which kernel parameters belong to a container, and setting them. */
#ifndef PF_SANDBOX_SYSCTL_H
#define PF_SANDBOX_SYSCTL_H

#include "base/err.h"
#include "sandbox/spec.h"

/* The file below /proc/sys for a parameter that is the box's own because of its namespaces, malloc'ed; NULL
 * with PF_ERR_INVALID for one that is the whole machine's, or that nobody knows, or a value with more than
 * one line. Both spellings are taken: "net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/forwarding". */
char *pf_sysctl_check(const char *name, const char *value, const struct pf_spec *spec, struct pf_err *err);

/* Set them, by the box's own process within its namespaces; procfd is the root of a procfs. */
int pf_sysctl_apply(int procfd, const struct pf_sysctl *sysctls, size_t n, struct pf_err *err);

#endif
