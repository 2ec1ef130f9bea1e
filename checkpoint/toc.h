/* The table of contents that makes a layer "zstd:chunked": with it, whoever has some of the files already
 * fetches the others alone, by ranges of the blob. The format is that of containers/storage (podman, skopeo,
 * CRI-O). Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_TOC_H
#define PF_CHECKPOINT_TOC_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/tarhdr.h"
#include "checkpoint/tarout.h"

struct pf_toc;

/* Whether the table has words for this member: it is JSON, so names must be UTF-8, and its times have years
 * of four digits. Otherwise *why (static) says what it has none for. */
bool pf_toc_can_say(const struct pf_tar_member *m, const char **why);
/* About how long the entry of a member will be, in bytes of JSON. Readers refuse tables of more than 150 MiB.
 */
int64_t pf_toc_entry_size(const struct pf_tar_member *m);
#define PF_TOC_MAX_SIZE ((int64_t)140 << 20)

/* For a layer that is written to o (frames; borrowed), whose tar goes there through these functions alone. */
struct pf_toc *pf_toc_new(struct pf_tarout *o);
/* NULL is fine. */
void pf_toc_free(struct pf_toc *t);

/* A member's header blocks. It is one that can be said, and has no holes; m->size bytes of data follow by the
 * next two functions, and then it is padded by itself. */
int pf_toc_member(
	struct pf_toc *t, const struct pf_tar_member *m, const void *header, size_t len, struct pf_err *err);
int pf_toc_data(struct pf_toc *t, const void *data, size_t len, struct pf_err *err);
/* len bytes of zeros in a file, where it had a hole. */
int pf_toc_hole(struct pf_toc *t, int64_t len, struct pf_err *err);

/* The end of the tar, and behind it the table. *notes: the annotations that the blob's descriptor needs so
 * that the table is found, the caller's. pf_tarout_finish() of o is left to do. */
int pf_toc_finish(struct pf_toc *t, cJSON **notes, struct pf_err *err);

#endif
