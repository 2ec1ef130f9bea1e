/* Whose socket a connection inside the namespace is: the kernel knows the cgroup that made it. */
#ifndef PF_NETPOLICY_WHOIS_H
#define PF_NETPOLICY_WHOIS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"

/* A netlink socket for the namespace it is opened in; -1 with err. */
int pf_whois_open(struct pf_err *err);
/* The v2 cgroup id of the payload's socket, given its two addresses as the payload has them. false: not
 * known. */
bool pf_whois_cgroup(
	int fd, int proto, const struct sockaddr *local, const struct sockaddr *remote, uint64_t *cgroup);

#endif
