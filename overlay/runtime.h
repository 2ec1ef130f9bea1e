/* Language runtimes: "python3.11" in a sandbox file → an image. Light. */
#ifndef PF_OVERLAY_RUNTIME_H
#define PF_OVERLAY_RUNTIME_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "base/err.h"

/* Choose the image for a runtime as a user writes it: "python3.9", "python", "node18", "node:20", "nodejs20".
 * table: the parsed images/runtimes.json. store: where images are looked up.
 * Exact version, else the nearest NEWER one of the same language with *note (malloc'ed, else NULL) saying so;
 * strict refuses that. At equal versions the host's own interpreter wins when the table's image is not in the
 * store, so that things start at once. *image_ref is malloc'ed. Errors: PF_ERR_INVALID for an unknown
 * language or a version that nothing satisfies, listing what is there. */
int pf_runtime_map(const cJSON *table, const char *store, const char *runtime, bool strict, char **image_ref,
	char **note, struct pf_err *err);

#endif
