/* Cgroups by systemd: where it runs and the caller asks for it (--systemd-cgroup), a container's cgroup is
 * that of a transient scope which systemd makes, and systemd is told the limits, so that it does not take
 * back what we write. What we write is the same as without it (cgroup.h); the scope is delegated to us.
 *
 * The bus is spoken by a program of its own, pinfold-systemd, which is found beside our own program: nobody
 * else needs to load its library. */
#ifndef PF_SANDBOX_SYSTEMD_H
#define PF_SANDBOX_SYSTEMD_H

#include <sys/types.h>

#include "base/err.h"
#include "sandbox/cgroup.h"

/* The unit and its slice from the path that pf_cgroup_path_from_oci made: "/a.slice/a-b.slice/x-y.scope" is
 * x-y.scope in a-b.slice. Both malloc'ed. */
int pf_systemd_names(const char *path, char **unit, char **slice, struct pf_err *err);

/* What of the limits systemd has properties for, as arguments of pinfold-systemd: type, name and value in
 * turn, NULL-terminated, free with pf_strv_free. An empty list when there is none. */
char **pf_systemd_limits(const struct pf_limits *l, const struct pf_cgroup_host *host);

/* Keeps a scope alive while it has no other process. */
struct pf_systemd_hold {
	pid_t pid;
};

/* Start the scope, with the limits as properties, and *path its cgroup's, malloc'ed. It lives as long as a
 * process is in it, the first being the hold, which the caller releases. PF_ERR_UNSUPPORTED where systemd
 * does not run. */
int pf_systemd_start(const char *unit, const char *slice, const char *id, char *const *limits,
	struct pf_systemd_hold *hold, char **path, struct pf_err *err);
void pf_systemd_release(struct pf_systemd_hold *hold);
/* Change the properties of a scope that is there. */
int pf_systemd_set(const char *unit, char *const *limits, struct pf_err *err);
/* End it; one that is gone is fine. */
int pf_systemd_stop(const char *unit, struct pf_err *err);

#endif
