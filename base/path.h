/* Paths below a directory that somebody else may control. Every step is resolved by the kernel with
 * openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS): `..`, absolute paths and symlinks stay inside root. */
#ifndef PF_BASE_PATH_H
#define PF_BASE_PATH_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

/* open(2) below rootfd. O_CLOEXEC is added; flags may hold O_CREAT (then mode counts). -1 with errno, so that
 * it can be used between clone and exec. */
int pf_open_in_root(int rootfd, const char *path, int flags, mode_t mode);

/* Make the directory path below rootfd with its missing parents (mode 0755 each, owned by the caller) and
 * open it O_PATH. Symlinks on the way are followed inside root. -1 with errno. The umask does not count: it
 * is 0 meanwhile, for the whole process. */
int pf_mkdirs_in_root(int rootfd, const char *path, mode_t mode);

/* Make an empty regular file (0644) with its missing parents if there is nothing; open it O_PATH. The umask
 * as above. */
int pf_mkfile_in_root(int rootfd, const char *path);

/* mkdir -p of an own, trusted path. Existing directories keep their mode. */
int pf_mkdirs(const char *path, mode_t mode, struct pf_err *err);

/* Remove name below dirfd with all that is in it; never follows a symlink and never crosses into another file
 * system. Something that is not there is no error. */
int pf_rm_rf_at(int dirfd, const char *name, struct pf_err *err);

/* "/a//b/./c/" → "/a/b/c"; ".." is an error for an absolute path given by a user. malloc'ed. */
char *pf_path_clean(const char *path, struct pf_err *err);

/* Whether path is dir or below it; both clean and absolute. */
bool pf_path_below(const char *path, const char *dir);

/* Where the running program's file lies when it was started through a mount that has no path (selfguard.h).
 * Believed when it is the same file. */
void pf_program_was(const char *path);

/* The directory of the running program's own file (dirname of /proc/self/exe), malloc'ed. */
char *pf_program_dir(struct pf_err *err);

#endif
