/* The parts of pinfold-bwrap. */
#ifndef PF_CMD_BWRAP_H
#define PF_CMD_BWRAP_H

#include "jail/jail.h"

struct words {
	char **v;
	size_t n, next;
};

struct parsed {
	struct pf_jail *j;
	struct words words;
	struct words own; /* those of words that came by --args, to be freed */
	const char *chdir;
	bool share_net, unshare_net, unshare_user, assert_no_userns, disable_userns;
	bool hostname, ids;  /* --hostname, --uid or --gid were given */
	int64_t perms, size; /* of the next operation; -1 */
	int info_fd, status_fd, block_fd;
};

/* An error of the command line's: fmt has one %s, for arg. -1. */
int pf_bwrap_usage(const char *fmt, const char *arg, struct pf_err *err);
/* The next word, which option needs; NULL with err. */
const char *pf_bwrap_next(struct parsed *p, const char *option, struct pf_err *err);
/* A descriptor by its number, which nobody inherits from now on; the caller's to close. */
int pf_bwrap_fd(const char *option, const char *text, struct pf_err *err);

/* Options about files, in their order (files.c). 1: taken, 0: o is none of them. */
int pf_bwrap_file_option(struct parsed *p, const char *o, struct pf_err *err);
/* What --proc is without --unshare-pid. */
int pf_bwrap_share_proc(struct pf_jail *j, struct pf_err *err);
/* Where the command starts, malloc'ed; own is where we are. */
char *pf_bwrap_working_directory(const struct parsed *p, const char *own);

#endif
