/* A checkpoint's manifest, as it comes from somebody else: what is taken has the digests, layers and numbers
 * that everything behind it relies on. */
#include <stdlib.h>
#include <string.h>

#include "checkpoint/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt c;
	struct pf_digest d;
	char *text = malloc(len + 1);

	memcpy(text, data, len);
	text[len] = '\0';
	pf_sha256_digest(text, len, &d);
	if (pf_ckpt_parse(-1, &d, "fuzz", text, len, false, &c, &err) == 0) {
		if (c.n_layers < 1 || c.n_layers > 400 || !c.sandbox_id)
			abort();
		for (size_t i = 0; i < c.n_layers; i++)
			if (!pf_digest_ok(c.layers[i].id.s) || c.layers[i].bytes < 0 || c.layers[i].present)
				abort();
		pf_ckpt_done(&c);
	} else if (!err.msg[0]) {
		abort();
	}
	free(text);
	return 0;
}
