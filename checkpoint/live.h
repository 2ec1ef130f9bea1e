/* A layer of a tree that is being written to, as it was at one moment. */
#ifndef PF_CHECKPOINT_LIVE_H
#define PF_CHECKPOINT_LIVE_H

#include "checkpoint/pack.h"

struct pf_live {
	/* Stop all writers / let them go on. freeze is called once; thaw once after freeze has succeeded, on
	 * every path. What thaw reports is an error even if all else went well. */
	int (*freeze)(void *ctx, struct pf_err *err);
	int (*thaw)(void *ctx, struct pf_err *err);
	void *ctx;
};

struct pf_live_stats {
	int64_t changed;       /* names taken again while the writers stood still */
	int64_t changed_bytes; /* tar bytes of those */
	int64_t frozen_us;     /* from the return of freeze to the call of thaw */
};

/* Pack upper_fd into the file `layer` made in tmp_fd (other files made there are removed again); arguments as
 * for pf_pack_layer. opts->live is implied. */
int pf_live_pack(int upper_fd, const struct pf_walk_opts *opts, int tmp_fd, const char *layer, int level,
	int threads, const struct pf_live *live, struct pf_tarout_result *res, struct pf_walk_stats *walked,
	struct pf_pack_stats *stats, struct pf_live_stats *lstats, struct pf_err *err);

#endif
