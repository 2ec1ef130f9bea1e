/* The keeper's socket, <root>/ID/control: how other pinfold processes talk to a sandbox's keeper.
 *
 * SOCK_SEQPACKET, one JSON object per message, at most one descriptor with it. A connection that announced an
 * exec is held while the command runs; if it breaks without "done", the keeper kills that exec. */
#ifndef PF_SESSION_CONTROL_H
#define PF_SESSION_CONTROL_H

#include <cjson/cJSON.h>

#include "base/err.h"
#include "session/dirs.h"

#define PF_CONTROL_MAX 131072 /* bytes of one message */

/* Listen in dirfd (the sandbox's run directory). */
int pf_control_listen(int dirfd, struct pf_err *err);
/* Connect to a sandbox's keeper. PF_ERR_STATE when it is not there. */
int pf_control_connect(const struct pf_dirs *d, const char *id, struct pf_err *err);

/* Send a message (fd -1: without a descriptor). The message stays the caller's. */
int pf_control_send(int sock, const cJSON *msg, int fd, struct pf_err *err);
/* Receive one. *fd (when fd is not NULL) is -1 or a descriptor for the caller. NULL with err->msg empty at
 * the end of the connection. */
cJSON *pf_control_recv(int sock, int *fd, struct pf_err *err);

/* Ask and wait for the answer; an answer {"error": text} becomes an error. */
cJSON *pf_control_ask(
	const struct pf_dirs *d, const char *id, const cJSON *request, int *fd, struct pf_err *err);

/* The same with a descriptor that goes along (and stays the caller's). */
cJSON *pf_control_ask_with(
	const struct pf_dirs *d, const char *id, const cJSON *request, int with, struct pf_err *err);

#endif
