/* The first bytes of a connection: a ClientHello, a request head, or anything. What was decided of a part
 * must hold for the whole, or what was passed on early was not what was judged. */
#include <stdlib.h>
#include <string.h>

#include "netpolicy/sniff.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct pf_sniff whole, part;

	pf_sniff(data, len, &whole);
	if (whole.kind == PF_SNIFF_MORE && (len >= PF_SNIFF_MAX || whole.need <= len))
		abort();
	if (whole.has_name && strlen(whole.name) >= PF_NAME_MAX)
		abort();
	if (whole.kind == PF_SNIFF_HTTP && whole.head_len > len)
		abort();
	for (size_t n = 0; n < len; n += 1 + len / 16) {
		/* A copy of its own, so that a read beyond it is seen. */
		uint8_t *copy = malloc(n ? n : 1);
		memcpy(copy, data, n);
		pf_sniff(copy, n, &part);
		free(copy);
		if (part.kind == PF_SNIFF_MORE)
			continue;
		if (part.kind != whole.kind || strcmp(part.name, whole.name) != 0)
			abort();
	}
	return 0;
}
