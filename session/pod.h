/* Egress policy of OCI containers: the annotation io.pinfold.policy.
 *
 * It holds a networking object as text, as a sandbox file has it, and applies to the container's network
 * namespace, whoever made that: so to all containers of a pod whose sandbox container has it. */
#ifndef PF_SESSION_POD_H
#define PF_SESSION_POD_H

#include <cjson/cJSON.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/str.h"
#include "sandbox/container.h"
#include "sandbox/spec.h"
#include "session/config.h"
#include "session/dirs.h"

#define PF_POD_POLICY "io.pinfold.policy"

/* Between begin and commit. */
struct pf_pod {
	const struct pf_dirs *dirs;
	const char *id;
	int dir;           /* the container's state directory; borrowed */
	int netns, lock;   /* -1: none */
	int sock;          /* to a new keeper, -1: there is none */
	pid_t keeper;      /* 0: none */
	char *name;        /* of the namespace */
	char *owner;       /* the container whose keeper holds the namespace; NULL: no policy */
	cJSON *networking; /* of a new keeper */
	bool caps_matter;
};
#define PF_POD PF_CLEANUP(pf_pod_done)
#define PF_POD_INIT                                 \
	{                                           \
		.netns = -1, .lock = -1, .sock = -1 \
	}

/* Before the container `id` is made from spec: if a policy applies to its network, see that it is in force
 * there. spec is changed: it joins the namespace that was looked at, and loses CAP_NET_RAW where that would
 * be a way around (a line in warnings says so). A container that has more power than a policy can bear is
 * PF_ERR_INVALID. Without a policy nothing happens. */
int pf_pod_begin(const struct pf_dirs *d, const char *id, int dir, struct pf_spec *spec,
	struct pf_buf *warnings, struct pf_pod *p, struct pf_err *err);
/* The container is there: the keeper goes on as long as the process behind pidfd. */
int pf_pod_commit(struct pf_pod *p, const struct pf_container *c, int pidfd, struct pf_err *err);
/* Without commit: what begin did is taken back. */
void pf_pod_done(struct pf_pod *p);

/* The networking of a sandbox file, if it can be had for an OCI container; the caller deletes it. */
cJSON *pf_pod_networking(const struct pf_config *config, struct pf_err *err);

/* What an exec in the container of that state directory may have of capabilities, as in begin.
 * own_pid: it does not see the host's processes. */
int pf_pod_exec_caps(int dir, bool own_pid, struct pf_caps *caps, struct pf_err *err);

/* Add "egress" to a container's state: {"container", "keeper", "status": "enforced" or "closed"}. */
void pf_pod_describe(const struct pf_dirs *d, int dir, cJSON *state);

/* The container is gone: see its keeper off. */
void pf_pod_end(const struct pf_dirs *d, const char *id, int dir);

#endif
