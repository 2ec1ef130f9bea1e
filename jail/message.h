/* What a host program and the jail's process say to each other over a stream socket: a length of four bytes
 * in the machine's order, then so much JSON (lib/pinfold.c has the other end). */
#ifndef PF_JAIL_MESSAGE_H
#define PF_JAIL_MESSAGE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* Blocks. NULL with err; at the end of the stream err->errnum is ECONNRESET. */
cJSON *pf_message_read(int fd, struct pf_err *err);
/* Blocks. Deletes message. */
int pf_message_write(int fd, cJSON *message, struct pf_err *err);

/* The same for who must not wait, whatever the other end does: sends half a message, or reads nothing. */
struct pf_channel {
	int fd; /* borrowed; -1: none */
	uint32_t len;
	size_t got; /* bytes of len that have come */
	struct pf_buf in, out;
	size_t sent; /* of out */
	bool over;   /* no message: nothing more is read */
};

/* For poll(2): requests are not read while too many answers wait for the other end to read them. */
short pf_channel_events(const struct pf_channel *c);
/* After poll: write what can be, read what is there. 1 and a message; 0 not yet; -1 the other end is gone
 * (err->errnum ECONNRESET) or says what is no message. To be called until it returns 0. */
int pf_channel_serve(struct pf_channel *c, cJSON **message, struct pf_err *err);
/* Put a message behind what waits to be written. Deletes it. */
void pf_channel_send(struct pf_channel *c, cJSON *message);
/* Write what waits; blocks. */
void pf_channel_flush(struct pf_channel *c);
void pf_channel_done(struct pf_channel *c);

#endif
