/* Keys that a command prints. Heavy: pinfold-store only. */
#ifndef PF_CHECKPOINT_KEYS_COMMAND_H
#define PF_CHECKPOINT_KEYS_COMMAND_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Run /bin/sh -c command, at most ms milliseconds, after which it and all that descends from it is killed.
 * out gets the first max bytes of what it printed until it ended, *len how many. spec ("cmd:…") is for
 * messages. Errors: SYSTEM, with the exit code and the first line of its complaints, or that it took too
 * long. */
int pf_key_command(const char *spec, const char *command, int64_t ms, uint8_t *out, size_t max, size_t *len,
	struct pf_err *err);

#endif
