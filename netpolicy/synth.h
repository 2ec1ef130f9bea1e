/* Names as addresses: which synthetic address stands for which name in one sandbox. */
#ifndef PF_NETPOLICY_SYNTH_H
#define PF_NETPOLICY_SYNTH_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"

/* At most this many names have an address at a time. The one that was asked for longest ago makes room,
 * unless connections hold it. An address comes back for another name only after all others of the /15 were
 * used. */
#define PF_SYNTH_MAX 4096
/* Addresses that are remembered of a resolved name, and for how long at most. */
#define PF_RESOLVED_MAX 8
#define PF_RESOLVED_US 5000000

union pf_sa {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

struct pf_resolved {
	int64_t expires; /* pf_now_us */
	size_t n;
	union pf_sa addrs[];
};

struct pf_synth_name {
	uint32_t index;                           /* in the /15 */
	uint32_t holds;                           /* connections */
	struct pf_synth_name *by_name, *by_index; /* hash chains */
	struct pf_synth_name *newer, *older;
	struct pf_resolved *resolved; /* may be NULL */
	char name[];
};

struct pf_synth {
	struct in6_addr net6; /* /64 */
	uint32_t salt, step, next;
	struct pf_synth_name **names, **indexes;
	size_t n, n_buckets;
	struct pf_synth_name *newest, *oldest;
};

/* Draws the salt and the IPv6 prefix at random. */
int pf_synth_init(struct pf_synth *s, struct pf_err *err);
void pf_synth_done(struct pf_synth *s);

/* The entry of a normal name; made if make is set. NULL: none, or all PF_SYNTH_MAX are held. */
struct pf_synth_name *pf_synth_name(struct pf_synth *s, const char *name, bool make);
/* The entry whose address this is, NULL when there is none. */
struct pf_synth_name *pf_synth_addr(struct pf_synth *s, const struct sockaddr *sa);
/* Whether sa is in one of the synthetic ranges. */
bool pf_synth_has(const struct pf_synth *s, const struct sockaddr *sa);

struct in_addr pf_synth_addr4(const struct pf_synth_name *e);
struct in6_addr pf_synth_addr6(const struct pf_synth *s, const struct pf_synth_name *e);

#endif
