/* Network namespaces: one that holds nothing but its loopback, and one that somebody else made. */
#ifndef PF_NETPOLICY_NETNS_H
#define PF_NETPOLICY_NETNS_H

#include <netinet/in.h>
#include <stdbool.h>

#include "base/err.h"

/* A visit to another network namespace by the calling thread. */
struct pf_netns_visit {
	int home; /* fd of the namespace to come back to; -1 when not away */
};

/* Make a new namespace and stay in it until pf_netns_leave. The namespace belongs to the caller's user
 * namespace, so a payload with a user namespace of its own has no power over it. lo is up and every address
 * of both families is local to it: whatever is dialled arrives at this namespace's own packet filter. *v6
 * says whether the host has IPv6 (without it the namespace is IPv4 only). tracked: there will be a packet
 * filter that tracks connections. Returns an fd of the namespace (close-on-exec); on failure the caller is
 * back home and nothing remains. */
int pf_netns_make(struct pf_netns_visit *visit, bool tracked, bool *v6, struct pf_err *err);

/* Go to the namespace fd until pf_netns_leave: lo is up then and has the synthetic addresses (of IPv6 those
 * of the /64 synth6). *alone says that there is no other device; then every address is local to it as above.
 * *v6 says whether there is IPv6. On failure the caller is back home. */
int pf_netns_join(struct pf_netns_visit *visit, int fd, const struct in6_addr *synth6, bool *v6, bool *alone,
	struct pf_err *err);

/* Take the routes away again that pf_netns_join made. The thread is where it was, afterwards. */
void pf_netns_unjoin(int fd, const struct in6_addr *synth6, bool v6, bool alone);

/* Whether a thread that goes to another network namespace could come back: that takes power over the one it
 * came from, which root of a user namespace has not. */
bool pf_netns_can_return(void);

/* Come back. A thread that cannot is in the sandbox's network: the caller must give up. */
int pf_netns_leave(struct pf_netns_visit *visit, struct pf_err *err);

#endif
