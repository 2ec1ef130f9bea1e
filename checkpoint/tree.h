/* A layer's tree as bytes: every name of a directory in overlay form with all that is to come back, in a form
 * that depends on the files alone. SHA-256 of these bytes is the layer's id. Where files' data is stored is
 * not in it: that is the map (map.h). Pure: bytes in, entries out. docs/checkpoints.md has the form. */
#ifndef PF_CHECKPOINT_TREE_H
#define PF_CHECKPOINT_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"
#include "base/str.h"
#include "checkpoint/tarhdr.h"

#define PF_TREE_MAX_ID 65535   /* ids a box has */
#define PF_TREE_MAX_DEPTH 8192 /* directories in directories; walking has the same limit */
#define PF_TREE_MAX_XATTR ((size_t)64 << 10)
#define PF_TREE_MAX_XATTRS 256

/* Holes: a run of whole 4096-byte blocks of zeros in a file of at least PF_HOLE_MIN bytes (the last block may
 * be shorter), at least PF_HOLE_MIN bytes long; this doubles with every PF_HOLE_STEP stretches of data that
 * the file has so far. So the stretches are the same whatever the file system thinks of the file, and their
 * number is bounded. */
#define PF_HOLE_BLOCK 4096
#define PF_HOLE_MIN ((int64_t)16384)
#define PF_HOLE_STEP 512
#define PF_TREE_MAX_EXTENTS 16384

/* The version that is written. 2 differs in what the sum of a file's data is (filesum.h); it is read, and
 * written where what has to come out is a tree of that version. */
#define PF_TREE_VERSION 3

enum pf_tree_type {
	PF_TREE_END = 0, /* of a directory; never seen by users of the reader */
	PF_TREE_DIR,
	PF_TREE_FILE,
	PF_TREE_SYMLINK,
	PF_TREE_FIFO,
	PF_TREE_WHITEOUT,
	PF_TREE_LINK, /* another name of an entry before it */
};

/* A stretch of a file that holds data. */
struct pf_extent {
	int64_t off, len; /* bytes */
};

/* One name. Which members count depends on the type; the others are 0. */
struct pf_tree_entry {
	enum pf_tree_type type;
	const char *name; /* "" for the root, which comes first */
	size_t name_len;
	bool opaque;   /* directories: hide what lower layers have. Never the root. */
	bool linked;   /* not a directory: a PF_TREE_LINK refers to it */
	uint64_t link; /* PF_TREE_LINK: the number of that entry (the root is 0, every entry counts) */
	unsigned mode; /* permission bits with setuid, setgid, sticky; not of symlinks, whiteouts, links */
	uint32_t uid, gid;
	struct timespec mtime;
	int64_t size; /* files: bytes, holes included */
	/* Files: where the data lies (ascending, apart from each other), its length, and the sum (filesum.h)
	 * of the stretches one after the other. No stretches and size > 0: nothing but a hole. */
	const struct pf_extent *extents;
	size_t n_extents;
	int64_t data_bytes;
	uint8_t sum[32];
	const char *target; /* symlinks */
	size_t target_len;
	const struct pf_tar_xa *xattrs; /* files and directories: sorted by name, exported kinds alone */
	size_t n_xattrs;
};

/* Whether an extended attribute of this name is part of a checkpoint. */
bool pf_tree_xattr_ok(const char *name);

/* ---- writing ---- */

/* The magic bytes a tree begins with. version: 2 or 3. */
void pf_tree_begin(struct pf_buf *out, int version);
/* One entry; the children of a directory follow, then pf_tree_end_dir(). The caller keeps to the rules that
 * the reader checks. */
void pf_tree_put(struct pf_buf *out, const struct pf_tree_entry *e);
void pf_tree_end_dir(struct pf_buf *out);

/* ---- reading ---- */

/* Deliver 1 to len bytes; 0 at the end, -1 with err set. */
typedef ssize_t (*pf_tree_source)(void *arg, void *buf, size_t len, struct pf_err *err);

struct pf_tree_reader;
struct pf_tree_reader *pf_tree_reader_new(pf_tree_source source, void *arg);
/* NULL is fine. */
void pf_tree_reader_free(struct pf_tree_reader *r);

/* The next entry: 1 and *e (valid until the next call), 0 at the end, -1. *depth (may be NULL): 0 for the
 * root, 1 for what is in it. Everything is hostile: names that are no single component, out of order or
 * twice, ids beyond 65535, lengths and numbers out of range, links to what is not there, an end too early or
 * too late and numbers not in their shortest form are PF_ERR_CORRUPT. */
int pf_tree_next(struct pf_tree_reader *r, const struct pf_tree_entry **e, size_t *depth, struct pf_err *err);

/* The tree's version, once there was an entry. */
int pf_tree_version(const struct pf_tree_reader *r);
/* Path of the entry that pf_tree_next gave last, without leading slash, "" for the root; and, when that is a
 * PF_TREE_LINK, the path of what it refers to. Valid until the next call. */
const char *pf_tree_path(const struct pf_tree_reader *r);
const char *pf_tree_link_path(struct pf_tree_reader *r);
/* Number of the entry that was given last. */
uint64_t pf_tree_number(const struct pf_tree_reader *r);

/* ---- numbers, also for the map ---- */

/* LEB128: seven bits a byte, the lowest first. */
void pf_varint_put(struct pf_buf *out, uint64_t v);

/* A buffered view on a source. */
struct pf_bytes {
	pf_tree_source source;
	void *arg;
	uint8_t *buf;
	size_t at, len;
	uint64_t pos; /* bytes taken so far */
};
void pf_bytes_done(struct pf_bytes *b);
/* Exactly len bytes; an end before that is PF_ERR_CORRUPT. out NULL: skip. */
int pf_bytes_take(struct pf_bytes *b, void *out, size_t len, struct pf_err *err);
/* A number of at most max, in its shortest form; what names it in the error. */
int pf_bytes_varint(struct pf_bytes *b, uint64_t max, const char *what, uint64_t *v, struct pf_err *err);
/* Whether there is nothing more: 1, 0, -1. */
int pf_bytes_end(struct pf_bytes *b, struct pf_err *err);

#endif
