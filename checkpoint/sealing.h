/* Whether a store seals what it is given, and where its key comes from: STORE/checkpoints/sealing.json,
 * {"version":1,"key":"file:/…","default":true}. No secrets: the key is named, not given. */
#ifndef PF_CHECKPOINT_SEALING_H
#define PF_CHECKPOINT_SEALING_H

#include <stdbool.h>

#include "base/cleanup.h"
#include "base/err.h"

struct pf_sealing {
	char *key;       /* as pf_kek_load() takes it; NULL: none */
	bool by_default; /* new checkpoints are sealed */
};
void pf_sealing_done(struct pf_sealing *s);
#define PF_SEALING PF_CLEANUP(pf_sealing_done)

/* A store without the file has neither. Error CORRUPT or INVALID for one that is not understood. */
int pf_sealing_read(int storefd, struct pf_sealing *s, struct pf_err *err);
/* Durable. The store's lock is held. */
int pf_sealing_write(int storefd, const struct pf_sealing *s, struct pf_err *err);

#endif
