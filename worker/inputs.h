/* Files of the administrator's that a session asks for in its metadata. */
#ifndef PF_WORKER_INPUTS_H
#define PF_WORKER_INPUTS_H

#include <cjson/cJSON.h>

#include "worker/box.h"

/* The session's metadata has "inputs": names between commas or blanks, each of a file or directory in dir.
 * Those that are not in the sandbox yet come into inputs below its working directory, as its user's. One that
 * cannot be brought is an error: the session would begin without what it is about. */
int pf_inputs_stage(const struct pf_box_opts *o, const char *id, const char *dir, const cJSON *session,
	struct pf_err *err);

#endif
