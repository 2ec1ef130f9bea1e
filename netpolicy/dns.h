/* The DNS answers a sandbox gets: wire format only, no sockets. */
#ifndef PF_NETPOLICY_DNS_H
#define PF_NETPOLICY_DNS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PF_DNS_TTL 30         /* seconds; a synthetic address lives much longer */
#define PF_DNS_QUERY_MAX 1232 /* longer queries are dropped */
#define PF_DNS_ANSWER_MAX 512 /* one question, at most one address, one OPT record: always fits */
#define PF_DNS_TEXT_MAX 1025  /* a name in presentation form, with escapes */

enum pf_dns_action { PF_DNS_NXDOMAIN = 0, PF_DNS_ADDRESS, PF_DNS_SERVFAIL };

struct pf_dns_answer {
	enum pf_dns_action action;
	bool has4, has6; /* ADDRESS: which there are; a query for the other, or another type, gets no data */
	struct in_addr a4;
	struct in6_addr a6;
};

/* Decide about one name. name is in presentation form: bytes that are no host name are escaped ("\000"). */
typedef void pf_dns_lookup(void *arg, const char *name, uint16_t qtype, struct pf_dns_answer *answer);

/* Answer one message. Returns the length of the answer in out, 0 for what must be ignored. lookup is called
 * at most once, and only for a well-formed question of class IN. */
size_t pf_dns_respond(
	const uint8_t *query, size_t len, uint8_t out[PF_DNS_ANSWER_MAX], pf_dns_lookup *lookup, void *arg);

#endif
