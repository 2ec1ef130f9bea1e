/* The answer to an HTTP request that is refused: for people, or as JSON when that is what is accepted. */
#ifndef PF_NETPOLICY_REFUSAL_H
#define PF_NETPOLICY_REFUSAL_H

#include <stddef.h>
#include <stdint.h>

struct pf_refusal {
	int status; /* 403, 429, 431, 502 */
	const char *host;
	uint16_t port;
	const char *reason; /* one word, as in the audit log */
	const char *text;   /* one or two sentences; NULL: what is said of a host that is not allowed */
	uint64_t revision;  /* of the policy */
	int64_t retry_s;    /* 429 */
};

#define PF_REFUSAL_MAX 2048
/* The whole answer, with "Connection: close"; returns its length. head is the request's, of any length, for
 * its Accept. */
size_t pf_refusal_write(
	const struct pf_refusal *r, const char *head, size_t head_len, char out[PF_REFUSAL_MAX]);

#endif
