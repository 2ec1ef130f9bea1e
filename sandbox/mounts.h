/* The mounts of a box: what the parent prepares (mounts.c, devices.c) and how the child puts it together
 * (rootfs.c). */
#ifndef PF_SANDBOX_MOUNTS_H
#define PF_SANDBOX_MOUNTS_H

#include "sandbox/child.h"

/* A detached mount of a new file system: fsopen, fsconfig for each "key=value" or "flag" of the
 * NULL-terminated data, fsmount with MOUNT_ATTR_* attrs. source may be NULL. */
int pf_mount_new(const char *type, const char *source, char *const *data, uint64_t attrs, struct pf_err *err);

/* A detached, private clone of what fd refers to (a directory or a file), with attributes added; userns_fd >=
 * 0 maps ids. */
int pf_mount_clone(int fd, bool recursive, uint64_t attr_set, int userns_fd, struct pf_err *err);

/* A detached clone as a bind mount of the configuration asks for: its attributes, its propagation (where it
 * names none: propagation), ids mapped through userns_fd if it says so. */
int pf_mount_bind(
	int fd, const struct pf_mount *mount, unsigned long propagation, int userns_fd, struct pf_err *err);

/* Parent: fill fds for the mounts of kind BIND and HOST, in the order of spec->mounts, and the node directory
 * (devices.h). sysfs_fd is a sysfs made inside the box's network namespace, or -1. m->n counts up as they are
 * made, so that the caller closes them on failure. */
int pf_mounts_prepare(const struct pf_spec *spec, int userns_fd, int sysfs_fd, struct pf_child_mounts *m,
	struct pf_err *err);

/* A user namespace with these maps and no process in it. */
int pf_userns_new(const struct pf_id_map *uid_maps, size_t n_uid, const struct pf_id_map *gid_maps,
	size_t n_gid, struct pf_err *err);

/* Fill what a tmpfs hides into it, for tmpcopyup: files, directories and links below from, with their owners,
 * modes and times, below to. Async-signal-safe enough for a process with one thread. */
int pf_copy_tree(int from, int to, struct pf_err *err);

#endif
