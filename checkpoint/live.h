/* A tree that is being written to, taken as it was at one moment. */
#ifndef PF_CHECKPOINT_LIVE_H
#define PF_CHECKPOINT_LIVE_H

#include <stdint.h>

#include "base/err.h"

struct pf_live {
	/* Stop all writers / let them go on. freeze is called once; thaw once after freeze has succeeded, on
	 * every path. What thaw reports is an error even if all else went well. */
	int (*freeze)(void *ctx, struct pf_err *err);
	int (*thaw)(void *ctx, struct pf_err *err);
	void *ctx;
};

struct pf_live_stats {
	int64_t changed;       /* names taken again while the writers stood still */
	int64_t changed_bytes; /* sizes of those */
	int64_t frozen_us;     /* from the return of freeze to the call of thaw */
};

#endif
