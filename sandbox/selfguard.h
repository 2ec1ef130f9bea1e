/* Our own program, seen from inside a container (CVE-2019-5736). Where a container has no user namespace of
 * its own, or one that maps our file's owner, its root is that owner as far as our file goes: a program in it
 * that is /proc/self/exe, or that finds a process of ours on its way to exec, could open our file for
 * writing. So what makes or enters such a container runs from a read-only mount of its file that is in
 * nobody's mount table. */
#ifndef PF_SANDBOX_SELFGUARD_H
#define PF_SANDBOX_SELFGUARD_H

#include <stdbool.h>

#include "base/err.h"
#include "sandbox/spec.h"

/* Whether somebody in a container of spec may be able to write our program's file; also when that is not
 * known, as of a user namespace that is joined, whose maps are not in its configuration. */
bool pf_self_in_reach(const struct pf_spec *spec);

/* Start this program anew from there, unless it runs from a read-only mount already. Returns 0 when there is
 * nothing to do; -1 when it cannot be done; and not at all when it is done: argv is run from its beginning.
 * Call it before anything is made. */
int pf_self_guard(char *const argv[], struct pf_err *err);

#endif
