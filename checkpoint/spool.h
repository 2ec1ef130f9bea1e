/* Files' data set aside while a box stands still, in a file without a name. Where the snapshot is sealed it
 * is encrypted, under a key that is nowhere but in our memory. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_SPOOL_H
#define PF_CHECKPOINT_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "checkpoint/content.h"

struct pf_spool;

/* In dirfd, where nothing is called "spool". */
int pf_spool_new(int dirfd, bool sealed, struct pf_spool **out, struct pf_err *err);
void pf_spool_free(struct pf_spool *s);

/* Put the first size bytes of fd into it; holes: ask its file system where there are none to be read. Returns
 * the file's number, from 0 up. */
int64_t pf_spool_put(struct pf_spool *s, int fd, int64_t size, bool holes, struct pf_err *err);

/* File `number` as pf_content_read() takes it, until the next call of this. Nothing may be put in any more.
 */
int pf_spool_get(struct pf_spool *s, int64_t number, struct pf_content_in *in, struct pf_err *err);

#endif
