/* What a host program and the jail's process say to each other over a stream socket: a length of four bytes
 * in the machine's order, then so much JSON (lib/pinfold.c has the other end). */
#ifndef PF_JAIL_MESSAGE_H
#define PF_JAIL_MESSAGE_H

#include <cjson/cJSON.h>

#include "base/err.h"

/* Blocks. NULL with err; at the end of the stream err->errnum is ECONNRESET. */
cJSON *pf_message_read(int fd, struct pf_err *err);
/* Deletes message. */
int pf_message_write(int fd, cJSON *message, struct pf_err *err);

#endif
