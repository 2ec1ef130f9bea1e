/* The image `host`. Reached through pf_image_resolve(). */
#ifndef PF_OVERLAY_HOST_H
#define PF_OVERLAY_HOST_H

#include <stdint.h>

#include "base/err.h"
#include "overlay/image.h"

/* Fill *out with the host image, making its skeleton below store when there is none for the present state of
 * /etc. On error *out is to be given to pf_image_done(). */
int pf_host_image(const char *store, struct pf_image *out, struct pf_err *err);

/* Copy what programs need of the host's /etc, and nothing that is the host's own business, into the empty
 * directory to. No user's, host's or name service's file is among it: those are the caller's to write. */
int pf_host_etc_fill(int to, struct pf_err *err);
/* Names the present state of all that pf_host_etc_fill would copy; malloc'ed, NULL with err. */
char *pf_host_etc_version(struct pf_err *err);

/* Remove the skeletons of earlier states of /etc that no sandbox of the store was stacked on (image_layers of
 * its sandbox.json), and half-made ones. *count is raised for each. A record that cannot be read, or does not
 * say, may mean any: then none is removed. */
int pf_host_gc(const char *store, int64_t *count, struct pf_err *err);

#endif
