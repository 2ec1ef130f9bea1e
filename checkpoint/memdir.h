/* A directory that is on no disk, for what must not be there in clear. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_MEMDIR_H
#define PF_CHECKPOINT_MEMDIR_H

#include "base/err.h"

/* An empty directory (0755) of a file system of its own, which goes with the last descriptor into it: nobody
 * else sees it, and nothing of it outlives the process. It takes at most three quarters of the machine's
 * memory. Errors: UNSUPPORTED where memory keeps no user.* attributes (Linux before 6.6) or nothing may be
 * mounted. */
int pf_memdir(struct pf_err *err);

#endif
