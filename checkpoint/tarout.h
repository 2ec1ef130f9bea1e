/* Where a layer's bytes go. Three forms behind one type, so that the code that makes tar entries knows none:
 * a *layer* is hashed, compressed and hashed again by threads while the caller is still reading files;
 * *frames* are the same, compressed in pieces that can be read one by one; a *spool* is the plain bytes in a
 * file, for what must be taken while a box stands still. */
#ifndef PF_CHECKPOINT_TAROUT_H
#define PF_CHECKPOINT_TAROUT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/sha256.h"

struct pf_tarout;

struct pf_tarout_result {
	struct pf_digest digest;  /* of the compressed file */
	struct pf_digest diff_id; /* of the tar stream */
	int64_t size;             /* compressed bytes */
	int64_t tar_size;         /* uncompressed bytes */
};

/* A layer written to fd (borrowed, empty, stays open), zstd level 1..19 or 0 for
 * our own choice, threads 1..64. The bytes depend on
 * the input and the level alone, not on threads or timing. NULL on error. */
struct pf_tarout *pf_tarout_layer(int fd, int level, int threads, struct pf_err *err);
/* A layer whose zstd frames end where the caller says, and after at most 1 MiB of the tar. The bytes depend
 * on the input, the level and where it was cut. */
struct pf_tarout *pf_tarout_frames(int fd, int level, struct pf_err *err);
/* Plain bytes to fd (borrowed). */
struct pf_tarout *pf_tarout_spool(int fd, struct pf_err *err);

/* Add bytes. */
int pf_tarout_write(struct pf_tarout *o, const void *data, size_t len, struct pf_err *err);
/* Add exactly len bytes from fd's current position; what is missing at end of file is filled with zeros.
 * *got is what the file had. */
int pf_tarout_from_fd(struct pf_tarout *o, int fd, int64_t len, int64_t *got, struct pf_err *err);
/* Add n zero bytes. */
int pf_tarout_zeros(struct pf_tarout *o, size_t n, struct pf_err *err);
/* Of frames: end one here. What is added next begins another; its number, for pf_tarout_offset(). */
size_t pf_tarout_cut(struct pf_tarout *o);
/* Of frames: the tar is complete. Everything is compressed and in the file: from now on offsets are known,
 * and nothing but pf_tarout_append() and the end may follow. */
int pf_tarout_end_frames(struct pf_tarout *o, struct pf_err *err);
/* Where that frame begins in the file, in bytes; of the last cut: where they all end. */
int64_t pf_tarout_offset(const struct pf_tarout *o, size_t cut);
/* Bytes that come after the frames as they are; they count for the file's digest and size alone. */
int pf_tarout_append(struct pf_tarout *o, const void *data, size_t len, struct pf_err *err);

/* The caller writes the end mark of the tar itself. */
void pf_tarout_leave_end(struct pf_tarout *o);

/* Everything down to the file. A layer gets the two zero blocks that end a tar, is fsynced, and *res (NULL
 * for a spool) is filled in. Frees o, also on error. */
int pf_tarout_finish(struct pf_tarout *o, struct pf_tarout_result *res, struct pf_err *err);
/* Stop the threads and free; the file holds rubbish. NULL is fine. */
void pf_tarout_abort(struct pf_tarout *o);

#endif
