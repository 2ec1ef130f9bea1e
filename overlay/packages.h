/* Lists of packages by manager, as the environment form has them, and the name of the image that an image
 * becomes with them. Light. Installing them is import.h's pf_image_packages. */
#ifndef PF_OVERLAY_PACKAGES_H
#define PF_OVERLAY_PACKAGES_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "base/err.h"

/* In the order in which they are installed; NULL-terminated. */
extern const char *const pf_package_managers[];

/* {"apt": ["jq"], "npm": ["node@22"], …} checked: no other keys, names that cannot be options. where begins
 * the error text. Each list comes out sorted, without repetitions; empty ones are left out. NULL on error. */
cJSON *pf_packages_read(const cJSON *packages, const char *where, struct pf_err *err);

/* What tells one set of packages on one image from another: text to be hashed. malloc'ed. */
char *pf_packages_text(const char *image_digest, const cJSON *packages);
/* The image's name from the digest ("sha256:…") of that text; malloc'ed. */
char *pf_packages_ref(const char *digest);

#endif
