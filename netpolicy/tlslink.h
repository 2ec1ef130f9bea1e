/* The keeper's end of the socket to pinfold-tls, and what goes over it.
 *
 * SOCK_SEQPACKET; each message is one JSON object, followed, for "conn", by a NUL and the bytes that were
 * read from the client already. Descriptors go with some.
 *
 *   to it    {"op":"setup", "lifetime":S} + a memfd with {"networking", "credentials", "revision"}   answered
 * by "ca"
 *            {"op":"policy"} + a memfd with the same
 *            {"op":"secret","name"} + a memfd with the secret
 *            {"op":"rest"}                                        end: the vault has it all
 *            {"op":"conn","id","name","port","tls":bool} + client, upstream
 *            {"op":"conn", …, "deny":reason} + client             to be answered with 403
 *            {"op":"drop","id"}                                   end it: the policy has changed
 *   from it  {"op":"ca","pem"}
 *            {"op":"error","text"}                                setup failed
 *            {"op":"request","id",…}                              one line of the audit log
 *            {"op":"bytes","id","bytes_out","bytes_in"}           so far; now and then, where bytes are
 * limited
 *            {"op":"closed","id","bytes_out","bytes_in"[,"error"]}
 */
#ifndef PF_NETPOLICY_TLSLINK_H
#define PF_NETPOLICY_TLSLINK_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define PF_TLSLINK_MAX ((size_t)64 << 10) /* bytes of a message */
#define PF_TLSLINK_FDS 2

/* The vault is descriptor 4, if it is open: the authority first, then a place for each credential. */
#define PF_TLSLINK_VAULT_CA ((size_t)128 << 10)
#define PF_TLSLINK_VAULT_SECRET ((size_t)20 << 10)
#define PF_TLSLINK_VAULT_SIZE(n) (PF_TLSLINK_VAULT_CA + (n)*PF_TLSLINK_VAULT_SECRET)

/* Both ends. A message that does not fit now is EAGAIN in err->errnum. tail may be NULL. */
int pf_tlslink_send(int sock, const cJSON *msg, const void *tail, size_t tail_len, const int *fds,
	size_t n_fds, struct pf_err *err);
/* One message; fds[] gets -1 for what did not come. *tail points into *text, which the caller frees. NULL
 * with err->msg empty at the end, err->errnum EAGAIN when there is none. */
cJSON *pf_tlslink_recv(int sock, char **text, const char **tail, size_t *tail_len, int fds[PF_TLSLINK_FDS],
	struct pf_err *err);

/* Read a document as the next makes it; the descriptor stays the caller's. */
cJSON *pf_tlslink_read_document(int fd, struct pf_err *err);
/* A document as a sealed memfd. */
int pf_tlslink_document(
	const cJSON *networking, const cJSON *credentials, uint64_t revision, struct pf_err *err);

#endif
