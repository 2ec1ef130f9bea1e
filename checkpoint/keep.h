/* Which checkpoints stay when a store is pruned: the rules alone, without a store. Pure. */
#ifndef PF_CHECKPOINT_KEEP_H
#define PF_CHECKPOINT_KEEP_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The label of checkpoints that were made because the sandbox file says so; its value is the occasion. */
#define PF_CKPT_AUTO_LABEL "io.pinfold.auto"

/* First which checkpoints are looked at at all, then what keeps one of these; what no rule keeps goes. */
struct pf_ckpt_prune_rules {
	const char *sandbox_id;    /* only those of this sandbox; NULL: of all */
	const char *const *labels; /* "K=V", all of which it must have; NULL-terminated or NULL */
	bool only_auto;            /* only automatic ones */
	int64_t keep_last;         /* the newest N of each sandbox stay; -1: not a rule */
	int64_t keep_daily; /* the newest of each of the last N days (UTC) that have one, per sandbox; -1 */
	int64_t older_than_ms; /* what was made or used more recently stays; -1: not a rule */
	bool dry_run;          /* only say what would go */
};

/* What the rules look at. All borrowed. */
struct pf_keep_item {
	const char *digest, *sandbox_id;
	const char *from; /* digest of the checkpoint that its sandbox was created from; NULL or "": none */
	const char *created; /* RFC 3339, UTC */
	const cJSON *labels; /* object of strings, or NULL */
	bool readable;       /* else nothing but digest and sandbox_id is known */
	bool used;           /* a sandbox stands on it */
	int64_t last_used;   /* seconds since 1970 */
};

/* v: all checkpoints of the store, oldest first. why[i]: PF_KEEP_GOES; PF_KEEP_OTHER: the rules do not look
 * at it; or the word for what keeps it: "last", "daily", "recent", "in use" (also what such a one came from),
 * "damaged". now: seconds since 1970. */
#define PF_KEEP_GOES NULL
#define PF_KEEP_OTHER ""
void pf_keep_choose(const struct pf_keep_item *v, size_t n, const struct pf_ckpt_prune_rules *rules,
	int64_t now, const char **why);

#endif
