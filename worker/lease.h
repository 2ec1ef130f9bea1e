/* The lease on a work item: kept up by heartbeats from a thread of its own. */
#ifndef PF_WORKER_LEASE_H
#define PF_WORKER_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "worker/http.h"

struct pf_lease;

enum pf_lease_state {
	PF_LEASE_HELD,
	PF_LEASE_STOPPING, /* the control plane wants the session stopped; it is still ours to say so */
	PF_LEASE_LOST,     /* somebody else's, or nobody knows: nothing may be posted any more */
};

/* Start to beat. The first beat is made before this returns; *state says how it went. wake_fd is written to,
 * and the requests of breaks (may be NULL) are cut short, when the state changes. */
struct pf_lease *pf_lease_start(const char *base_url, const char *agent, const char *bearer, const char *env,
	const char *work_id, int wake_fd, struct pf_http *breaks, struct pf_err *err);
enum pf_lease_state pf_lease_state(struct pf_lease *l);
/* Whether the item is certainly ours still: it is not lost, and a beat was taken within the length of the
 * lease. One may be without noticing: whoever stops an item that is another worker's ends that one's session.
 */
bool pf_lease_sure(struct pf_lease *l);
/* The length of the lease, milliseconds; 0: not known yet. */
int64_t pf_lease_ttl_ms(struct pf_lease *l);
/* No more beats; frees it. */
void pf_lease_stop(struct pf_lease *l);

#endif
