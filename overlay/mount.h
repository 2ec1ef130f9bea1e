/* Overlay mounts that are never attached to the host's mount table. */
#ifndef PF_OVERLAY_MOUNT_H
#define PF_OVERLAY_MOUNT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define PF_OVERLAY_MAX_LOWERS 400 /* the kernel takes 500; some room is left for its own bookkeeping */

/* Stack directories and return the DETACHED mount (O_CLOEXEC), for move_mount(2) by the caller.
 * lower_fds: O_PATH directories, TOPMOST FIRST, at least one.
 * rw_fd: a directory that holds `upper` and `work` (pf_workspace.rw_fd), or -1 for a mount without an upper.
 * userns_fd: the user namespace of the box, or -1. With it every layer is cloned and idmapped, so that ids on
 *   disk stay 0-based while inside they are the box's own.
 * read_only: nothing can be written even if there is an upper.
 * The mount is always nodev (the box's devices live on its own /dev). Must be called by root in the initial
 * user namespace; the mount's superblock belongs there. Safe in a process with threads. Errors:
 * PF_ERR_UNSUPPORTED (with the remedy) when a layer's filesystem cannot be idmapped. */
int pf_overlay_mount(
	const int *lower_fds, size_t n, int rw_fd, int userns_fd, bool read_only, struct pf_err *err);

/* How the layers reach the kernel. AUTO is what pf_overlay_mount uses; the others exist so that both ways can
 * be tested on one kernel. */
enum pf_overlay_via {
	PF_OVERLAY_VIA_AUTO,
	PF_OVERLAY_VIA_FDS,   /* fsconfig(FSCONFIG_SET_FD): Linux 6.13; with detached layers 6.15 */
	PF_OVERLAY_VIA_PATHS, /* mount(2) in a short-lived child: any kernel with idmapped overlay layers
				 (5.19) */
};
int pf_overlay_mount_via(enum pf_overlay_via via, const int *lower_fds, size_t n, int rw_fd, int userns_fd,
	bool read_only, struct pf_err *err);

/* A detached clone of the file or directory tree src_fd (O_PATH is enough), idmapped when userns_fd is not
 * -1. recursive takes the mounts below it along. */
int pf_bind_mount_fd(int src_fd, int userns_fd, bool read_only, bool recursive, struct pf_err *err);
/* The directory dirfd, opened for reading through a mount of its own in which no device node can be opened
 * (EACCES). What is mounted below it is not there. */
int pf_dir_without_devices(int dirfd, struct pf_err *err);

#endif
