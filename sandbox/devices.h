/* The device nodes of a box: those that every box has and those of linux.devices.
 *
 * Where the configuration puts a tmpfs on /dev, the parent makes the nodes in it. Nodes elsewhere, or
 * everywhere in a box that uses its image's /dev, are made in a hidden tmpfs and bound to their places by the
 * child: that way it does not matter who owns the places, and nothing is made on the image's file system that
 * could be a device there. A box that has /dev bound from outside gets no nodes there.
 *
 * Root of a user namespace cannot make nodes. There the child binds the machine's own, each believed only
 * when it is the device that it should be. */
#ifndef PF_SANDBOX_DEVICES_H
#define PF_SANDBOX_DEVICES_H

#include "sandbox/spec.h"

/* Parent: /dev as a tmpfs with nodes and links in it. */
int pf_dev_make(const struct pf_spec *spec, const struct pf_mount *mount, struct pf_err *err);

/* Whether the box needs the hidden directory, and making it (parent). */
bool pf_dev_needs_nodes(const struct pf_spec *spec);
int pf_dev_make_nodes(const struct pf_spec *spec, struct pf_err *err);

/* Child: bind the nodes from the hidden directory (-1: the machine's own) to their places below root; links
 * in an image's /dev. */
int pf_dev_bind_nodes(const struct pf_spec *spec, int nodes, int root, struct pf_err *err);

#endif
