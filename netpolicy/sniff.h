/* What the first bytes of a connection say about where it wants to go. */
#ifndef PF_NETPOLICY_SNIFF_H
#define PF_NETPOLICY_SNIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "netpolicy/entry.h"

/* A TLS ClientHello or a request head larger than this is refused. */
#define PF_SNIFF_MAX ((size_t)32 << 10)

enum pf_sniff_kind {
	PF_SNIFF_MORE = 0, /* undecided: more bytes are needed */
	PF_SNIFF_OPAQUE,   /* neither TLS nor HTTP */
	PF_SNIFF_TLS,
	PF_SNIFF_HTTP,
	PF_SNIFF_BAD, /* TLS or HTTP that is malformed, ambiguous or too large: refuse */
};

struct pf_sniff {
	enum pf_sniff_kind kind;
	bool has_name;          /* SNI; Host or the authority of an absolute request target */
	bool ech;               /* an encrypted ClientHello is (or pretends to be) inside */
	bool h2c;               /* HTTP/2 without TLS: its authority is not looked at */
	char name[PF_NAME_MAX]; /* normal; what is no host name (an address) as like that as it can be */
	size_t head_len;        /* HTTP: of the request head, with its empty line */
	size_t need;            /* MORE: do not ask again with fewer bytes than this */
	/* MORE: text whose first line is not complete. Nobody can act on it yet, so it may go on while its
	 * sequel is still to be judged. */
	bool line_open;
};

/* Judge the first len bytes. Never reads past them, keeps no state. */
void pf_sniff(const uint8_t *data, size_t len, struct pf_sniff *out);

#endif
