/* Inside of the pack store: its files' form, and what the reader, the writer and the upkeep share.
 *
 * All numbers little-endian.
 *
 * NAME.pack:  head, frames, index block.
 *     head (32 bytes)    0  8  "PFPACK1\n"
 *                        8 16  the pack's id: NAME in binary
 *                       24  4  flags: 1 sealed
 *                       28  4  0
 *     frame              a zstd frame without checksum, or the chunk as it is; in sealed packs encrypted with
 *                        AES-256-GCM under the pack's key (kind "pack", name NAME), numbered by its offset,
 * tag last
 *
 * index block, at the end of the pack and alone in NAME.idx:
 *     head (40 bytes)    0  8  "PFINDEX1"
 *                        8 16  the pack's id
 *                       24  4  flags
 *                       28  4  number of entries
 *                       32  8  where the frames end in the pack
 *     entries            48 bytes each, sorted by id; in sealed packs encrypted as one piece with its tag,
 * the head of the block authenticated along with it 0 32  chunk id 32  4  offset in the pack 36  4  length
 * there (with the tag) 40  4  length of the chunk 44  4  0 as it is, 1 zstd tail (16 bytes)    0  4  CRC-32
 * (zlib's) of head and entries 4  4  length of the whole block 8  8  "PFINDEXE"
 *
 * NAME.key:  a head of sealing (seal_int.h), kind "pack", name NAME. */
#ifndef PF_CHECKPOINT_PACKS_INT_H
#define PF_CHECKPOINT_PACKS_INT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/packs.h"
#include "checkpoint/seal_int.h"

#define PF_PACKS_DIR "packs"
#define PF_PACK_HEAD 32
#define PF_PACK_BLOCK_HEAD 40
#define PF_PACK_BLOCK_TAIL 16
#define PF_PACK_ENTRY 48
#define PF_PACK_SIZE ((uint32_t)64 << 20) /* a pack is closed before it would grow beyond */
#define PF_PACK_MAX_CHUNKS 65536
#define PF_PACK_MAX_BLOCK \
	(PF_PACK_BLOCK_HEAD + PF_PACK_MAX_CHUNKS * PF_PACK_ENTRY + PF_SEAL_TAG + PF_PACK_BLOCK_TAIL)
#define PF_PACK_MAX_STORED (PF_CHUNK_MAX + PF_SEAL_TAG) /* of one frame */
#define PF_PACK_NAME 32                                 /* hex digits, without the NUL */

enum pf_pack_codec { PF_PACK_RAW = 0, PF_PACK_ZSTD = 1 };

struct pf_pack_entry {
	struct pf_chunk_id id;
	uint32_t offset, stored, len;
	uint32_t codec; /* enum pf_pack_codec */
};

/* The index block of one pack. */
struct pf_pack_index {
	uint8_t id[16];
	bool sealed;
	uint32_t count;
	uint64_t data_end;
	struct pf_pack_entry *entries; /* sorted by id */
};

/* Make a block. Entries are sorted here. *out is malloc'ed. key is NULL for plain packs. */
int pf_pack_index_encode(struct pf_pack_index *x, const struct pf_seal_key *key, uint8_t **out, size_t *len,
	struct pf_err *err);
/* Take one apart, trusting nothing. Error CORRUPT. */
int pf_pack_index_decode(const uint8_t *block, size_t len, const uint8_t id[16],
	const struct pf_seal_key *key, struct pf_pack_index *x, struct pf_err *err);
/* What can be said without the key: magic, lengths, checksum, id. */
int pf_pack_block_check(
	const uint8_t *block, size_t len, const uint8_t id[16], bool sealed, struct pf_err *err);
uint64_t pf_pack_block_data_end(const uint8_t *block);
/* The block at the end of a pack file. *size is the file's size. *out malloc'ed. */
int pf_pack_read_footer(int fd, uint8_t **out, size_t *len, uint64_t *size, struct pf_err *err);
void pf_pack_head(const uint8_t id[16], bool sealed, uint8_t out[PF_PACK_HEAD]);
bool pf_pack_name_to_id(const char *name, uint8_t id[16]);
void pf_pack_id_to_name(const uint8_t id[16], char name[PF_PACK_NAME + 1]);

/* One name in packs/, whichever of its files are there. */
struct pf_pack_files {
	char name[PF_PACK_NAME + 1];
	bool pack, idx, key;
};
/* What is in packs/, sorted by name; strangers are left out. None when the directory is missing. */
int pf_pack_scan(int dirfd, struct pf_pack_files **out, size_t *n, struct pf_err *err);
/* packs/ of a store, -1 with errno ENOENT in err->errnum when there is none. */
int pf_pack_dir(int storefd, struct pf_err *err);

/* A pack of an open handle. */
struct pf_pack {
	struct pf_pack_files files;
	struct pf_pack_index x;
	struct pf_seal_key *key; /* in secret memory; NULL: plain */
	uint64_t file_bytes;     /* of its files */
	bool readable;           /* x is there; why tells otherwise */
	char *why;
	int fd; /* -1: not open; under lock of the handle */
};

struct pf_scratch;
struct pf_cached;

struct pf_packs {
	int dirfd; /* packs/, -1: not there yet */
	int storefd;
	const struct pf_seal *seal;
	struct pf_chunker plain_chunker;
	struct pf_pack *packs;
	size_t n_packs;
	uint64_t seed;   /* of the table */
	uint64_t *table; /* pack << 32 | entry, plus 1; 0 is free */
	size_t mask;     /* size of the table - 1 */
	pthread_mutex_t lock;
	struct pf_scratch *scratch; /* not in use, under lock */
	struct pf_cached *cache;    /* newest first, under lock */
	size_t n_cached;
	size_t n_open;
};

/* Buffers and contexts for reading one chunk at a time. */
struct pf_scratch {
	struct pf_scratch *next;
	void *dctx;
	uint8_t frame[PF_PACK_MAX_STORED];
	uint8_t opened[PF_CHUNK_MAX];
	uint8_t chunk[PF_CHUNK_MAX];
};
struct pf_scratch *pf_scratch_take(struct pf_packs *p, struct pf_err *err);
void pf_scratch_give(struct pf_packs *p, struct pf_scratch *s);

/* Walk the copies of a chunk: *at starts at 0; false after the last. */
bool pf_packs_find(
	const struct pf_packs *p, const struct pf_chunk_id *id, size_t *at, uint32_t *pack, uint32_t *entry);
/* Read one frame, out of the cipher if there is one, into s: *frame points at e->stored bytes less the tag.
 */
int pf_pack_frame(struct pf_packs *p, struct pf_pack *k, const struct pf_pack_entry *e, struct pf_scratch *s,
	const uint8_t **frame, size_t *len, struct pf_err *err);
/* From the frame to the chunk's e->len bytes in out, compared with its id. */
int pf_pack_expand(struct pf_packs *p, const struct pf_pack_entry *e, struct pf_scratch *s,
	const uint8_t *frame, size_t len, void *out, struct pf_err *err);

/* Write a frame that exists already (compressed, not sealed) into the writer's current pack. */
int pf_packs_put_frame(struct pf_packs_writer *w, const struct pf_pack_entry *e, const uint8_t *frame,
	size_t len, struct pf_err *err);

#endif
