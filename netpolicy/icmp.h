/* Saying no to a datagram that has already arrived, as a host without such a service does. */
#ifndef PF_NETPOLICY_ICMP_H
#define PF_NETPOLICY_ICMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "netpolicy/synth.h"

/* A raw socket that only sends, in the namespace that the caller is in. -1 with errno: this takes CAP_NET_RAW
 * over it. */
int pf_icmp_open(bool v6);
/* Tell peer, in that namespace, that its datagram of len bytes to this port of the loopback was refused:
 * "administratively prohibited". Connection tracking turns the port back into where peer believes that it
 * sent it. */
void pf_icmp_refuse(int fd, const union pf_sa *peer, uint16_t port, size_t len);

#endif
