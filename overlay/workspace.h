/* The workspace: what a sandbox may write, as `upper` and `work` directories of an overlay.
 *
 * Backends:
 *   dir    <sandbox>/workspace/{upper,work,generations/}; no limit of its own.
 *   image  <sandbox>/workspace.img: a sparse ext4 file on a loop device that goes away by itself with the
 * last user, mounted detached; a hard limit in bytes and inodes. While it is in use the file is locked, so it
 * cannot be opened twice (a second mount would destroy it); other processes get at the live tree by the
 * holder's descriptors. */
#ifndef PF_OVERLAY_WORKSPACE_H
#define PF_OVERLAY_WORKSPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct pf_workspace {
	bool image; /* backend */
	int rw_fd;  /* holds upper/ and work/ (for pf_overlay_mount); with the image backend the mount itself
		     */
	int upper_fd; /* O_PATH */
	int work_fd;  /* O_PATH */
};
#define PF_WORKSPACE_INIT ((struct pf_workspace){.rw_fd = -1, .upper_fd = -1, .work_fd = -1})

/* What the image backend takes: with less there would be no room for a journal. */
#define PF_WORKSPACE_MIN_SIZE ((int64_t)4 << 20)
#define PF_WORKSPACE_MAX_SIZE ((int64_t)8 << 40)

/* Make a workspace below sandbox_dirfd and open it. size is what can be written in bytes; 0 is the dir
 * backend. template_dirfd: a directory of the store where made filesystems are kept as sparse templates, one
 * per size (copying one is much cheaper than mke2fs), or -1 to make it anew. Fails with PF_ERR_EXISTS if
 * there is one. On error nothing is left: no file, no mount, no loop device. */
int pf_workspace_create(
	int sandbox_dirfd, int template_dirfd, int64_t size, struct pf_workspace *ws, struct pf_err *err);

/* Open it again: after the end of its holder, or a reboot. A file system marked as damaged is checked (e2fsck
 * -p) first; what cannot be repaired without asking is PF_ERR_CORRUPT. PF_ERR_STATE while somebody has it
 * open, PF_ERR_NOT_FOUND if there is none. */
int pf_workspace_open(int sandbox_dirfd, struct pf_workspace *ws, struct pf_err *err);

/* Close the descriptors. The image backend's loop device ends when the last mount of it (the box's overlay
 * holds one) is gone. Safe on a PF_WORKSPACE_INIT. */
void pf_workspace_close(struct pf_workspace *ws);

/* Bytes and inodes in use, and the limits (0: none). With the dir backend the tree is walked. */
struct pf_workspace_usage {
	int64_t bytes, bytes_max;
	int64_t inodes, inodes_max;
};
int pf_workspace_usage(const struct pf_workspace *ws, struct pf_workspace_usage *out, struct pf_err *err);

/* Seal the upper as a generation (rename; whatever its size) and put an empty one in its place. No overlay
 * may be mounted on it: open descriptors would go on writing into what was sealed. *n is the new generation's
 * number, counted from 1. */
int pf_workspace_seal(struct pf_workspace *ws, int64_t *n, struct pf_err *err);

/* Open the generations as O_PATH descriptors, newest first (the order of overlay lowers). *fds is malloc'ed;
 * the caller closes each and frees it. */
int pf_workspace_generations(const struct pf_workspace *ws, int **fds, size_t *n, struct pf_err *err);

#endif
