/* The mounts of a box: what the parent prepares (mounts.c) and how the child puts it together (rootfs.c). */
#ifndef PF_SANDBOX_MOUNTS_H
#define PF_SANDBOX_MOUNTS_H

#include "sandbox/child.h"

/* A detached mount of a new file system: fsopen, fsconfig for each "key=value" or "flag" of the
 * NULL-terminated data, fsmount with MOUNT_ATTR_* attrs. source may be NULL. */
int pf_mount_new(const char *type, const char *source, char *const *data, uint64_t attrs, struct pf_err *err);

/* A detached clone of what fd refers to (a directory or a file), with attributes added; userns_fd >= 0 maps
 * ids. */
int pf_mount_clone(int fd, bool recursive, uint64_t attr_set, int userns_fd, struct pf_err *err);

/* Parent: fill fds for the mounts of kind BIND and HOST, in the order of spec->mounts. sysfs_fd is a sysfs
 * made inside the box's network namespace, or -1. m->n counts up as they are made, so that the caller closes
 * them on failure. */
int pf_mounts_prepare(const struct pf_spec *spec, int userns_fd, int sysfs_fd, struct pf_child_mounts *m,
	struct pf_err *err);

#endif
