/* The image `host`. Reached through pf_image_resolve(). */
#ifndef PF_OVERLAY_HOST_H
#define PF_OVERLAY_HOST_H

#include <stdint.h>

#include "base/err.h"
#include "overlay/image.h"

/* Fill *out with the host image, making its skeleton below store when there is none for the present state of
 * /etc. On error *out is to be given to pf_image_done(). */
int pf_host_image(const char *store, struct pf_image *out, struct pf_err *err);

/* Remove the skeletons of earlier states of /etc that no sandbox of the store was stacked on (image_layers of
 * its sandbox.json), and half-made ones. *count is raised for each. A record that cannot be read, or does not
 * say, may mean any: then none is removed. */
int pf_host_gc(const char *store, int64_t *count, struct pf_err *err);

#endif
