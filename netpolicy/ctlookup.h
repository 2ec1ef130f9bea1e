/* Where a redirected datagram was going: connection tracking remembers. */
#ifndef PF_NETPOLICY_CTLOOKUP_H
#define PF_NETPOLICY_CTLOOKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "netpolicy/synth.h"

/* A netlink socket for the namespace it is opened in; -1 with err. */
int pf_ctlookup_open(struct pf_err *err);
/* The destination that the payload at peer meant, of UDP that was redirected to port of the loopback. */
bool pf_ctlookup_udp(int fd, const union pf_sa *peer, uint16_t port, union pf_sa *dst);

#endif
