/* Checkpoints of OCI containers, whose root a container engine has made. */
#ifndef PF_SESSION_OCISNAP_H
#define PF_SESSION_OCISNAP_H

#include <cjson/cJSON.h>

#include "base/err.h"
#include "base/str.h"
#include "sandbox/container.h"
#include "session/dirs.h"

/* Make a checkpoint of what container c (of state directory dir) has written above its image, running, paused
 * or stopped. Its root must be an overlay mount with an upper directory, else PF_ERR_UNSUPPORTED. image is a
 * reference in Pinfold's own store that the container's image is known by there; NULL: what the engine calls
 * it, with no digest. name and labels as for pf_session_snapshot, and so is the result. */
cJSON *pf_oci_snapshot(const struct pf_dirs *d, int dir, const struct pf_container *c, const char *image,
	const char *name, const cJSON *labels, struct pf_err *err);

/* Annotations of ours: "io.pinfold.snapshot": "exit" has a checkpoint made when the container is deleted. */
#define PF_OCI_SNAPSHOT "io.pinfold.snapshot"

/* Whether all annotations under io.pinfold. are ones that we know, with values that we know: one that is
 * misspelt must not pass as if it had had its effect. NULL is fine. */
int pf_oci_check_annotations(const cJSON *annotations, struct pf_err *err);

/* The container, which no process is left of, is about to be deleted: make the checkpoint that its annotation
 * asks for. What goes wrong is a line in warnings, for the container goes anyway. */
void pf_oci_snapshot_at_exit(
	const struct pf_dirs *d, int dir, const struct pf_container *c, struct pf_buf *warnings);

#endif
