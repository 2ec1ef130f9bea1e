/* The two forms of an export that are one tar file. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_EXPORT_TAR_H
#define PF_CHECKPOINT_EXPORT_TAR_H

#include "base/err.h"
#include "checkpoint/export.h"

/* An image layout as a tar, in the order of names, without times, durable. path must not exist. */
int pf_ckpt_export_archive(int layout, const char *path, struct pf_err *err);

/* All files of stacked layers (directories in overlay form, topmost first), as a plain tar, durable; stats
 * gets its digest and size. Device nodes and sockets are left out. Needs overlay mounts. path must not exist.
 */
int pf_ckpt_export_files(char *const *unpacked, char *const *base_layers, const char *path,
	struct pf_ckpt_export_stats *stats, struct pf_err *err);

#endif
