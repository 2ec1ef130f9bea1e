/* An archive's bytes on their way in: hashed as they are, decompressed, hashed again. Heavy part (libarchive,
 * libcrypto). */
#ifndef PF_OVERLAY_STREAM_H
#define PF_OVERLAY_STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct pf_stream;

/* fd is read to its end and not closed; plain, gzip, xz or zstd by content. More than max bytes after
 * decompression is an error. progress may be NULL. */
struct pf_stream *pf_stream_open(
	int fd, int64_t max, void (*progress)(void *arg, int64_t bytes), void *arg, struct pf_err *err);
/* Decompressed bytes; a pf_tar_source. */
ssize_t pf_stream_read(void *stream, void *buf, size_t len, struct pf_err *err);
/* After pf_stream_read gave 0: read what follows the compressed data, and give the two hashes as
 * "sha256:<hex>" (PF_DIGEST_SIZE bytes each) and the count of archive bytes. */
int pf_stream_finish(
	struct pf_stream *s, char *digest, char *diff_id, int64_t *archive_bytes, struct pf_err *err);
void pf_stream_free(struct pf_stream *s);

/* "sha256:<hex>" of a buffer into out (PF_DIGEST_SIZE). */
int pf_sha256(const void *data, size_t len, char *out, struct pf_err *err);

#endif
