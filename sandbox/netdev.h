/* linux.netDevices: network devices that are moved into the container's network namespace. */
#ifndef PF_SANDBOX_NETDEV_H
#define PF_SANDBOX_NETDEV_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "sandbox/spec.h"

/* Move the devices from the caller's network namespace into that of process pid, under the names that the
 * configuration gives them there, with the global addresses that they have, and set them up. When the
 * namespace ends the kernel gives physical devices back and removes virtual ones. */
int pf_netdev_move(const struct pf_netdev *devices, size_t n, pid_t pid, struct pf_err *err);

#endif
