/* What making images has in common, from a recipe and from packages. Only pinfold-store. */
#ifndef PF_OVERLAY_BUILD_H
#define PF_OVERLAY_BUILD_H

#include "base/err.h"
#include "overlay/import.h"
#include "overlay/pack.h"

/* Run a program to its end in a mount namespace of its own, so that nothing of it stays mounted. Its lines
 * are progress; their end, after name, is the error text when it fails. prepare (NULL: nothing) runs in the
 * child before it, and says what is wrong on standard output; nonzero fails. */
struct pf_build_tool {
	const char *name;
	char *const *argv; /* argv[0] absolute */
	char *const *env;
	int (*prepare)(void *arg);
	void *arg;
	/* Where the error begins in what it said, if it says so. NULL-terminated. */
	const char *const *error_marks;
};
int pf_build_run(const struct pf_build_tool *t, const struct pf_import_opts *opts, struct pf_err *err);

/* Remove what an installation leaves behind that is not the image's content. */
int pf_build_tidy(int root, struct pf_err *err);

/* The diff id of a layer's tree (PF_DIGEST_SIZE bytes). */
int pf_build_diff_id(int root, char *diff_id, struct pf_pack_stats *stats, struct pf_err *err);

#endif
