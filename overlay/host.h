/* The image `host`. Reached through pf_image_resolve(). */
#ifndef PF_OVERLAY_HOST_H
#define PF_OVERLAY_HOST_H

#include "base/err.h"
#include "overlay/image.h"

/* Fill *out with the host image, making its skeleton below store when there is none for the present state of
 * /etc. On error *out is to be given to pf_image_done(). */
int pf_host_image(const char *store, struct pf_image *out, struct pf_err *err);

#endif
