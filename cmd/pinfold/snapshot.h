#ifndef PF_CMD_PINFOLD_SNAPSHOT_H
#define PF_CMD_PINFOLD_SNAPSHOT_H

#include <cjson/cJSON.h>

#include "base/err.h"

/* Make a checkpoint of sandbox or OCI container id; image (of the latter), name and labels ("K=V",
 * NULL-terminated) may be NULL. The result for printing, or NULL. */
cJSON *pf_snapshot(
	const char *id, const char *image, const char *name, char *const *labels, struct pf_err *err);

#endif
