/* Which device nodes a box may make, read and write: OCI's linux.resources.devices, enforced by a BPF program
 * on the v2 tree, or by devices.allow/deny on a host with cgroup v1 alone. */
#ifndef PF_SANDBOX_BPF_DEVICE_H
#define PF_SANDBOX_BPF_DEVICE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "sandbox/cgroup.h"

enum { PF_DEV_MKNOD = 1, PF_DEV_READ = 2, PF_DEV_WRITE = 4, PF_DEV_ALL = 7 };

struct pf_device_rule {
	bool allow;
	char type;            /* 'c', 'b', or 'a' for both */
	int32_t major, minor; /* -1: any */
	unsigned access;      /* PF_DEV_* */
};

/* Rules in order; for each of mknod, read and write the last one that matches decides; what none matches is
 * denied. */
struct pf_device_rules {
	struct pf_device_rule *rule;
	size_t n;
};

#define PF_DEVICE_RULES PF_CLEANUP(pf_device_rules_done)
void pf_device_rules_done(struct pf_device_rules *r);
void pf_device_rules_add(struct pf_device_rules *r, struct pf_device_rule rule);

/* The harmless devices every box has: null zero full random urandom tty ptmx pts. mknod=true also lets nodes
 * of any number be made (not opened), as OCI runtimes do. */
void pf_device_rules_add_default(struct pf_device_rules *r, bool mknod);

/* linux.resources (or NULL) → its rules, then the default ones: a bundle that says "deny all" still gets
 * /dev/null. Wrong entries are PF_ERR_INVALID naming the field. Rules are added to *r. */
int pf_device_rules_from_oci(const cJSON *resources, struct pf_device_rules *r, struct pf_err *err);

/* Put the rules in force on cg and everything below it, in place of those that were there before. At no
 * moment is more allowed than the old or the new rules allow. Equal rule sets share one loaded program per
 * process. */
int pf_device_apply(const struct pf_cgroup *cg, const struct pf_device_rules *r, struct pf_err *err);

/* Whether some device filter is attached to cg itself (1), none (0), or that cannot be told (-1: a host with
 * v1 alone, an old kernel). A filter reaches everything below its cgroup. */
int pf_device_in_force(const struct pf_cgroup *cg);

#endif
