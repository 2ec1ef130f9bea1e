/* What a command wrote above a directory: reading it from an overlay's upper, and applying it. */
#ifndef PF_JAIL_CHANGES_H
#define PF_JAIL_CHANGES_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* A list that is being made. More than max bytes of it, as JSON, are not made: then truncated is set. */
struct pf_changes {
	cJSON *list;
	size_t size, max;
	bool truncated;
};

/* Append {"change": "added"|"modified"|"deleted", "type": "file"|"directory"|"symlink"|"other", "path"} to
 * the list for everything in upper that differs from lower, by name order; prefix is put before the paths. A
 * file whose times alone changed is none. */
int pf_changes_list(
	int lower_fd, int upper_fd, const char *prefix, struct pf_changes *out, struct pf_err *err);

/* Make lower as upper says. Each file is replaced in one step, whole; set-id bits are not taken over. On
 * failure some of it has been done; the error names where. */
int pf_changes_apply(int lower_fd, int upper_fd, struct pf_err *err);

#endif
