/* What is known of names in general: public suffixes, and names in other scripts. */
#ifndef PF_NETPOLICY_SUFFIX_H
#define PF_NETPOLICY_SUFFIX_H

#include <stdbool.h>

#include "base/err.h"

/* Whether anybody can register below host (normal): a top-level domain, or a suffix of the ICANN part of the
 * host's public suffix list; without that list, of a short one of our own. */
bool pf_is_public_suffix(const char *host);

/* A name that is not ASCII in its xn-- form (IDNA 2008, by libidn2, which is loaded when it is first needed);
 * malloc'ed. */
char *pf_name_to_ascii(const char *name, struct pf_err *err);

#endif
