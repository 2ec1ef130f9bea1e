/* checkpoint prune | stats */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "base/units.h"
#include "checkpoint/prune.h"
#include "checkpoint/unsealed.h"
#include "cmd/pinfold-store/checkpoint.h"
#include "cmd/pinfold-store/verbs.h"

const char pf_prune_help[] =
	"[--keep-last N] [--keep-daily N] [--older-than D] [--sandbox ID] [--label K=V]... [--auto] "
	"[--dry-run] "
	"[--json]   "
	"remove what no rule keeps\n\n"
	"  --keep-last N    keep the newest N of each sandbox\n"
	"  --keep-daily N   keep the newest of each of the last N days (UTC) that have one, of each sandbox\n"
	"  --older-than D   keep what was made or used (create --from, fork) less than D ago: 30d, 12h\n"
	"  --sandbox ID     look at those of this sandbox alone\n"
	"  --label K=V      look at those with this label alone; several: with all of them\n"
	"  --auto           look at those alone that were made because a sandbox file says so\n"
	"  --dry-run        say what would go, and remove nothing\n\n"
	"At least one rule must be given; what a sandbox stands on stays in any case.";
const char pf_stats_help[] = "[--json]   what the store holds and takes";

static void print_json(const cJSON *j)
{
	PF_FREE char *text = pf_json_text(j);
	puts(text);
}

static int parse_rule(
	int c, struct pf_ckpt_prune_rules *r, const char **labels, size_t *n, struct pf_err *err)
{
	switch (c) {
	case 'l':
		return pf_parse_int("--keep-last", optarg, 0, INT32_MAX, &r->keep_last, err);
	case 'd':
		return pf_parse_int("--keep-daily", optarg, 0, INT32_MAX, &r->keep_daily, err);
	case 'o':
		return pf_parse_duration("--older-than", optarg, &r->older_than_ms, err);
	case 's':
		r->sandbox_id = optarg;
		return pf_check_id("--sandbox", optarg, err);
	case 'k':
		labels[(*n)++] = optarg;
		return strchr(optarg, '=') && *optarg != '='
			       ? 0
			       : pf_fail_kind(err, PF_ERR_INVALID, 0, "--label %.100s: KEY=VALUE is expected",
					 optarg);
	case 'a':
		r->only_auto = true;
		return 0;
	default:
		r->dry_run = true;
		return 0;
	}
}

static void prune_json(const struct pf_ckpt_prune *p, bool dry_run)
{
	PF_JSON cJSON *j = cJSON_CreateObject();
	cJSON *gone = cJSON_AddArrayToObject(j, "removed"), *kept = cJSON_AddArrayToObject(j, "kept");

	for (size_t i = 0; i < p->n; i++) {
		cJSON *e = cJSON_CreateObject();
		cJSON_AddStringToObject(e, "checkpoint", p->v[i].digest.s);
		cJSON_AddStringToObject(e, "name", p->v[i].name);
		cJSON_AddStringToObject(e, "sandbox_id", p->v[i].sandbox_id);
		if (p->v[i].kept)
			cJSON_AddStringToObject(e, "because", p->v[i].kept);
		cJSON_AddItemToArray(p->v[i].kept ? kept : gone, e);
	}
	cJSON_AddBoolToObject(j, "dry_run", dry_run);
	if (!dry_run) {
		pf_json_add_int(j, "bytes", p->gc.bytes);
		cJSON_AddBoolToObject(j, "kept_all", p->gc.kept_all);
	}
	if (*p->gc.because)
		cJSON_AddStringToObject(j, "because", p->gc.because);
	print_json(j);
}

static void prune_text(const struct pf_ckpt_prune *p, bool dry_run)
{
	char size[16];

	for (size_t i = 0; i < p->n; i++)
		printf("%-7s  %-24s %.12s  %s\n",
			p->v[i].kept ? "kept"
			: dry_run    ? "goes"
				     : "removed",
			p->v[i].name, pf_digest_hex(&p->v[i].digest), p->v[i].kept ? p->v[i].kept : "");
	printf("%zu of %zu %s", p->removed, p->n, dry_run ? "would go" : "removed");
	if (!dry_run)
		printf(", %s freed", pf_format_size(p->gc.bytes, size, sizeof(size)));
	putchar('\n');
}

int pf_cmd_checkpoint_prune(int argc, char **argv)
{
	static const struct option options[] = {{"keep-last", required_argument, NULL, 'l'},
		{"keep-daily", required_argument, NULL, 'd'}, {"older-than", required_argument, NULL, 'o'},
		{"sandbox", required_argument, NULL, 's'}, {"label", required_argument, NULL, 'k'},
		{"auto", no_argument, NULL, 'a'}, {"dry-run", no_argument, NULL, 'n'},
		{"json", no_argument, NULL, 'j'}, {0}};
	struct pf_ckpt_prune_rules rules = {.keep_last = -1, .keep_daily = -1, .older_than_ms = -1};
	PF_FREE const char **labels = pf_calloc((size_t)argc + 1, sizeof(*labels));
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_prune p;
	int64_t unsealed = 0;
	bool json = false;
	size_t n = 0;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint prune", argc, argv, options)) != -1)
		if (c == '?')
			return 125;
		else if (c == 'j')
			json = true;
		else if (parse_rule(c, &rules, labels, &n, &err) < 0)
			return pf_store_error("checkpoint prune", &err);
	if (optind != argc)
		return pf_store_usage("checkpoint prune", pf_prune_help);
	if (rules.keep_last < 0 && rules.keep_daily < 0 && rules.older_than_ms < 0) {
		pf_fail_kind(&err, PF_ERR_INVALID, 0,
			"no rule says what stays: give --keep-last, --keep-daily or --older-than "
			"(--keep-last 0: "
			"nothing)");
		return pf_store_error("checkpoint prune", &err);
	}
	rules.labels = n > 0 ? labels : NULL;
	if (pf_ckpt_prune(pf_store.store, &rules, &p, &err) < 0)
		return pf_store_error("checkpoint prune", &err);
	/* What is left sealed alone; else the next gc does it. */
	if (!rules.dry_run)
		(void)pf_ckpt_drop_unsealed(pf_store.store, &unsealed, &err);
	if (json)
		prune_json(&p, rules.dry_run);
	else
		prune_text(&p, rules.dry_run);
	pf_checkpoint_tell_kept("prune", &p.gc);
	pf_ckpt_prune_done(&p);
	return 0;
}

static double ratio(int64_t a, int64_t b)
{
	return b > 0 ? (double)a / (double)b : 1;
}

int pf_cmd_checkpoint_stats(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_totals t;
	char logical[16], stored[16];
	bool json = false;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint stats", argc, argv, options)) != -1)
		if (c == '?')
			return 125;
		else
			json = true;
	if (optind != argc)
		return pf_store_usage("checkpoint stats", pf_stats_help);
	if (pf_ckpt_totals(pf_store.store, &t, &err) < 0)
		return pf_store_error("checkpoint stats", &err);
	if (json) {
		PF_JSON cJSON *j = cJSON_CreateObject();
		pf_json_add_int(j, "checkpoints", t.checkpoints);
		pf_json_add_int(j, "damaged", t.damaged);
		pf_json_add_int(j, "layers", t.layers);
		pf_json_add_int(j, "shared_layers", t.shared_layers);
		pf_json_add_int(j, "logical_bytes", t.logical);
		pf_json_add_int(j, "stored_bytes", t.stored);
		pf_json_add_int(j, "chunks", t.chunks);
		pf_json_add_int(j, "chunk_bytes", t.chunk_bytes);
		cJSON_AddNumberToObject(j, "ratio", ratio(t.logical, t.stored));
		cJSON_AddNumberToObject(j, "dedup_ratio", ratio(t.logical, t.chunk_bytes));
		cJSON_AddNumberToObject(j, "compression_ratio", ratio(t.chunk_bytes, t.stored));
		print_json(j);
		return 0;
	}
	printf("%" PRId64 " checkpoints (%" PRId64 " damaged), %" PRId64 " layers (%" PRId64
	       " of more than one)\n%s of files stored in %s: %.1f to 1 (%.1f by sharing, %.1f by "
	       "compression)\n",
		t.checkpoints, t.damaged, t.layers, t.shared_layers,
		pf_format_size(t.logical, logical, sizeof(logical)),
		pf_format_size(t.stored, stored, sizeof(stored)), ratio(t.logical, t.stored),
		ratio(t.logical, t.chunk_bytes), ratio(t.chunk_bytes, t.stored));
	return 0;
}
