/* DNS messages as a sandbox may send them. */
#include <stdlib.h>
#include <string.h>

#include "netpolicy/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void lookup(void *arg, const char *name, uint16_t qtype, struct pf_dns_answer *a)
{
	size_t len = strlen(name);

	(void)arg;
	if (len >= PF_DNS_TEXT_MAX)
		abort();
	a->action = (enum pf_dns_action)((len + qtype) % 3);
	a->has4 = len & 1;
	a->has6 = len & 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t out[PF_DNS_ANSWER_MAX];

	if (pf_dns_respond(data, len, out, lookup, NULL) > sizeof(out))
		abort();
	return 0;
}
