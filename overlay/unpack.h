/* Unpacking one layer archive into a directory that can be used as an overlay lower as it is.
 *
 * Heavy part: needs libarchive (decompression) and libcrypto, so only pinfold-store may reference it.
 * The archive is hostile input: see unpack.c for what is refused and why. */
#ifndef PF_OVERLAY_UNPACK_H
#define PF_OVERLAY_UNPACK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define PF_DIGEST_SIZE 72 /* "sha256:" + 64 hex digits + NUL */

struct pf_unpack_opts {
	/* Limits; 0 takes the default (64 GiB, 4 million entries). max_bytes bounds both the sum of the
	 * files' logical sizes, holes included, and the decompressed stream. Checked before anything is
	 * written. Directories that the archive implies are entries too. */
	int64_t max_bytes;
	int64_t max_entries;
	/* Checkpoints: whatever our own writer never makes is refused: device nodes, a path given twice,
	 * absolute paths, overlay xattrs. Images (false): device nodes and such xattrs are skipped and
	 * counted, the later of two entries wins, a leading '/' is dropped, all as other runtimes read
	 * images. */
	bool strict;
	/* NULL or "sha256:<hex>": what the archive's own bytes (digest) and its uncompressed tar stream
	 * (diff_id) must hash to. Compared after the last byte; a difference is PF_ERR_CORRUPT. */
	const char *digest;
	const char *diff_id;
	/* Called now and then with the archive bytes read so far. May be NULL. */
	void (*progress)(void *arg, int64_t bytes);
	void *progress_arg;
};

struct pf_unpack_stats {
	int64_t entries;         /* entries of the archive, whiteouts included */
	int64_t bytes;           /* sum of the regular files' logical sizes */
	int64_t archive_bytes;   /* bytes read from the archive */
	int64_t skipped_devices; /* character and block devices left out (strict: always 0) */
	int64_t dropped_xattrs;  /* attributes left out: trusted.*, *.overlay.*, security.* but capability */
	char digest[PF_DIGEST_SIZE];
	char diff_id[PF_DIGEST_SIZE];
};

/* Unpack a tar (plain, gzip, zstd or xz, told apart by content) read from archive_fd, which may be a pipe,
 * into dest_dirfd (a directory, normally empty; neither descriptor is closed). Whiteouts become overlay's own
 * form (character device 0/0, trusted.overlay.opaque=y; user.overlay.opaque=y for who is root in a user
 * namespace alone). Needs root. Nothing is fsynced. On failure dest holds a partial tree that the caller
 * removes. Kinds: PF_ERR_CORRUPT for a damaged or hostile archive, PF_ERR_SYSTEM with errnum ENOSPC for a
 * full disk. stats may be NULL. */
int pf_unpack_layer(int archive_fd, int dest_dirfd, const struct pf_unpack_opts *opts,
	struct pf_unpack_stats *stats, struct pf_err *err);

#endif
