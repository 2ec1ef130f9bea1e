/* Checkpoints of a jail's scratch layer, in the user's own store. They are ordinary ones of the sandbox id
 * "jail" on the image "jail": one layer with a directory for each overlaid one, "0", "1", …, and their paths,
 * in that order, as the record's sandbox_file.filesystem.writable_paths. */
#ifndef PF_JAIL_KEEP_H
#define PF_JAIL_KEEP_H

#include <cjson/cJSON.h>

#include "base/err.h"
#include "jail/jail.h"

/* What --from means, found and checked, nothing unpacked yet. */
struct pf_jail_from {
	char *digest;
	char *layer;  /* the path of its unpacked layer's directory */
	char **paths; /* that were overlaid; the n-th is in the layer's directory "n" */
};
void pf_jail_from_done(struct pf_jail_from *f);

/* $XDG_STATE_HOME/pinfold or ~/.local/state/pinfold; home is the user's. malloc'ed. */
char *pf_jail_default_store(const char *home);

/* Before anything is run: j->keep is a name that is free in j->store, which is made if it is not there. */
int pf_jail_keep_check(const struct pf_jail *j, struct pf_err *err);

/* Find j->from in j->store. Errors: NOT_FOUND, CORRUPT; INVALID for one that no jail made, or whose
 * directories are not all overlaid by j's ops: what was shown once is not shown again by a checkpoint's word.
 */
int pf_jail_from_find(const struct pf_jail *j, struct pf_jail_from *f, struct pf_err *err);
/* Unpack it as the directory "upper" of dirfd, which is on the store's file system. In the jail's own user
 * namespace: the caller's files are root's in there, as in the layer. */
int pf_jail_from_take(const struct pf_jail *j, const struct pf_jail_from *f, int dirfd, struct pf_err *err);

/* Make checkpoint name of the directories in upper_fd. parent is the digest of --from's, or NULL; paths are
 * those of "0", "1", …. box_pid > 0: it runs, and stands still for a moment. Returns what
 * pf_session_snapshot() does. */
cJSON *pf_jail_keep(const char *store, const char *name, const char *parent, char *const *paths, int upper_fd,
	pid_t box_pid, struct pf_err *err);

/* A struct pf_snapshot_freezer's set; arg is the pid of a box's first process, a pid_t. All processes of its
 * pid namespace are stopped by signals, and those that were go on (stop.c). */
int pf_jail_stop(void *arg, bool stopped, struct pf_err *err);

#endif
