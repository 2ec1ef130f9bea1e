/* Making the files of a stored layer: their data from the packs, compared with its sum, then all that belongs
 * to it. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_UNPACKFILE_H
#define PF_CHECKPOINT_UNPACKFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "checkpoint/map.h"
#include "checkpoint/packs.h"
#include "checkpoint/tree.h"

/* What a new file has by itself in a directory of our own group that is not set-group-id. */
struct pf_file_born {
	uid_t uid;
	gid_t gid;
	mode_t umask;
	bool known; /* else nothing is relied upon */
};
/* destfd: where the tree goes. An access list that it would hand down is taken off it. */
void pf_file_born_look(int destfd, struct pf_file_born *b);

/* A file to be made. All borrowed. The directory must not be set-group-id yet. */
struct pf_file_todo {
	int dirfd;
	gid_t dir_gid;
	const char *name, *path; /* path: for errors */
	struct pf_tree_entry e;
	const struct pf_ref *refs;
	size_t n_refs;
	int version; /* of the tree */
};

/* The buffers of one thread, about 4 MiB. packs and born are borrowed. */
struct pf_file_maker;
struct pf_file_maker *pf_file_maker_new(struct pf_packs *packs, const struct pf_file_born *born);
/* NULL is fine. */
void pf_file_maker_free(struct pf_file_maker *m);

/* Make files, in whatever order is best; best are many with neighbouring data. They must not be there yet. A
 * sum that is not what it should be is PF_ERR_CORRUPT, and some files may have been made then. */
int pf_files_make(struct pf_file_maker *m, const struct pf_file_todo *v, size_t n, struct pf_err *err);

/* A file that several threads make together, of more data than PF_FILE_PART. */
#define PF_FILE_PART ((int64_t)2 << 20)
struct pf_big_file;
/* Whether it is one. */
bool pf_file_is_big(const struct pf_file_todo *t);
/* Create it. The todo is copied, what it points to is not. NULL on error. */
struct pf_big_file *pf_big_file_begin(const struct pf_file_todo *t, struct pf_err *err);
size_t pf_big_file_parts(const struct pf_big_file *b);
/* Write one of its parts, in any order, by any thread. The one that writes the last one completes the file,
 * as pf_files_make() would. */
int pf_big_file_part(struct pf_file_maker *m, struct pf_big_file *b, size_t part, struct pf_err *err);
/* When nobody works on it any more, complete or not. */
void pf_big_file_free(struct pf_big_file *b);

/* Owner, mode and attributes of a file, or of a directory without the access list that new things in it
 * inherit. born: what the inode has by being new and made with that very mode, or NULL. */
int pf_file_set_meta(
	const struct pf_tree_entry *e, int fd, const struct pf_file_born *born, struct pf_err *err);
#define PF_FILE_INHERITED_ACL "system.posix_acl_default"

#endif
