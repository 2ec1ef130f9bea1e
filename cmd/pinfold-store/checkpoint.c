/* checkpoint ls | inspect | verify | rm | prepare | export | import | gc */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/str.h"
#include "base/units.h"
#include "checkpoint/gc.h"
#include "checkpoint/packs.h"
#include "checkpoint/repair.h"
#include "checkpoint/restore.h"
#include "checkpoint/store.h"
#include "checkpoint/unsealed.h"
#include "checkpoint/verify.h"
#include "cmd/pinfold-store/checkpoint.h"
#include "cmd/pinfold-store/progress.h"
#include "cmd/pinfold-store/verbs.h"

static const char ls_help[] = "[--sandbox ID] [--json | --quiet]   list checkpoints, oldest first";
static const char inspect_help[] = "[--sandbox ID] CHECKPOINT   everything recorded of one, as JSON";
static const char verify_help[] =
	"[--repair-index] --all | [--sandbox ID] CHECKPOINT...   read every byte and compare";
static const char rm_help[] = "[--force] CHECKPOINT...   remove, and free what only they used";
static const char prepare_help[] =
	"[--sandbox ID] CHECKPOINT   unpack its layers (create --from does so by itself)";
static const char push_help[] = "[options] CHECKPOINT HOST/REPOSITORY[:TAG]   send one to an OCI registry";
static const char pull_help[] = "[options] HOST/REPOSITORY[:TAG|@DIGEST]   fetch one from an OCI registry";
static const char gc_help[] = "   remove what nothing refers to";

static void print_json(const cJSON *j)
{
	PF_FREE char *text = pf_json_text(j);
	puts(text);
}

/* Sizes of the files, as the layers hold them. */
static int64_t file_bytes(const struct pf_ckpt *c)
{
	int64_t sum = 0;

	for (size_t i = 0; i < c->n_layers; i++)
		sum += c->layers[i].bytes;
	return sum;
}

static bool complete(const struct pf_ckpt *c)
{
	for (size_t i = 0; i < c->n_layers; i++)
		if (!c->layers[i].present)
			return false;
	return c->record != NULL;
}

static cJSON *describe(const struct pf_ckpt *c)
{
	cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "checkpoint", c->digest.s);
	cJSON_AddStringToObject(j, "name", c->name);
	cJSON_AddStringToObject(j, "sandbox_id", c->sandbox_id);
	cJSON_AddBoolToObject(j, "damaged", !complete(c) && !c->sealed);
	cJSON_AddBoolToObject(j, "sealed", c->sealed);
	cJSON_AddBoolToObject(j, "foreign", c->foreign);
	if (!c->record)
		return j;
	cJSON_AddStringToObject(j, "created", c->created);
	cJSON_AddStringToObject(j, "parent", c->parent);
	cJSON *base = cJSON_AddObjectToObject(j, "base_image");
	cJSON_AddStringToObject(base, "ref", c->base_image_ref);
	cJSON_AddStringToObject(base, "digest", c->base_image_digest);
	cJSON_AddItemToObject(
		j, "labels", cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(c->record, "labels"), true));
	pf_json_add_int(j, "bytes", file_bytes(c));
	cJSON *layers = cJSON_AddArrayToObject(j, "layers");
	for (size_t i = 0; i < c->n_layers; i++) {
		cJSON *l = cJSON_CreateObject();
		cJSON_AddStringToObject(l, "id", c->layers[i].id.s);
		pf_json_add_int(l, "bytes", c->layers[i].bytes);
		pf_json_add_int(l, "entries", c->layers[i].entries);
		cJSON_AddBoolToObject(l, "present", c->layers[i].present);
		cJSON_AddBoolToObject(l, "unpacked", c->layers[i].unpacked);
		cJSON_AddItemToArray(layers, l);
	}
	return j;
}

/* The open store; 0 checkpoints when there is none. */
static int list_all(int *storefd, struct pf_ckpt **v, size_t *n, struct pf_err *err)
{
	*v = NULL;
	*n = 0;
	*storefd = pf_ckpt_store_open(pf_store.store, false, err);
	if (*storefd < 0)
		return err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	return pf_ckpt_list(*storefd, v, n, err);
}

static void print_row(const struct pf_ckpt *c)
{
	char size[16];

	if (!c->record) {
		printf("%-24s %.12s  %-20s %s\n", c->name, pf_digest_hex(&c->digest), c->sandbox_id,
			c->sealed ? "sealed" : "damaged");
		return;
	}
	printf("%-24s %.12s  %-20s %.19sZ  %10s  %s%s\n", c->name, pf_digest_hex(&c->digest), c->sandbox_id,
		c->created, pf_format_size(file_bytes(c), size, sizeof(size)), c->base_image_ref,
		complete(c) ? "" : "  damaged");
}

static int cmd_ls(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
		{"quiet", no_argument, NULL, 'q'}, {"sandbox", required_argument, NULL, 's'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	PF_CLOSE int storefd = -1;
	PF_JSON cJSON *list = cJSON_CreateArray();
	bool json = false, quiet = false;
	const char *sandbox = NULL;
	struct pf_ckpt *v;
	size_t n;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint ls", argc, argv, options)) != -1)
		if (c == 'j')
			json = true;
		else if (c == 'q')
			quiet = true;
		else if (c == 's')
			sandbox = optarg;
		else
			return 125;
	if (optind != argc)
		return pf_store_usage("checkpoint ls", ls_help);
	if (list_all(&storefd, &v, &n, &err) < 0)
		return pf_store_error("checkpoint ls", &err);
	if (!json && !quiet)
		printf("%-24s %-12s  %-20s %-20s  %10s  %s\n", "NAME", "DIGEST", "SANDBOX", "CREATED", "SIZE",
			"IMAGE");
	for (size_t i = 0; i < n; i++) {
		if (sandbox && strcmp(v[i].sandbox_id, sandbox) != 0)
			continue;
		if (json)
			cJSON_AddItemToArray(list, describe(&v[i]));
		else if (quiet)
			puts(v[i].digest.s);
		else
			print_row(&v[i]);
	}
	if (json)
		print_json(list);
	pf_ckpt_list_free(v, n);
	return 0;
}

/* The one option most verbs share: whose `latest` is meant. Returns the first operand's index, -1 after a
 * message. */
static int parse_sandbox(const char *verb, int argc, char **argv, const char **sandbox)
{
	static const struct option options[] = {{"sandbox", required_argument, NULL, 's'}, {0}};
	int c;

	optind = 0;
	*sandbox = NULL;
	while ((c = pf_store_getopt(verb, argc, argv, options)) != -1)
		if (c == 's')
			*sandbox = optarg;
		else
			return -1;
	return optind;
}

static int cmd_inspect(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	PF_CKPT struct pf_ckpt c = {0};
	const char *sandbox;
	int at = parse_sandbox("checkpoint inspect", argc, argv, &sandbox);

	if (at < 0)
		return 125;
	if (argc - at != 1)
		return pf_store_usage("checkpoint inspect", inspect_help);
	if (pf_ckpt_resolve(pf_store.store, argv[at], sandbox, &c, &err) < 0)
		return pf_store_error("checkpoint inspect", &err);
	PF_JSON cJSON *j = describe(&c);
	cJSON_AddItemToObject(j, "record", cJSON_Duplicate(c.record, true));
	PF_FREE char *text = cJSON_Print(j);
	puts(text);
	return 0;
}

static int verify_one(struct pf_ckpt_heavy *h, const char *digest, const char *name,
	struct pf_ckpt_verified *good, cJSON *out)
{
	struct pf_err err = PF_ERR_INIT;
	PF_CKPT struct pf_ckpt c = {0};
	cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "checkpoint", digest);
	cJSON_AddStringToObject(j, "name", name);
	int r = pf_ckpt_heavy_load(h, digest, name, &c, &err);
	if (r == 0)
		r = pf_ckpt_verify(h, &c, good, &err);
	cJSON_AddBoolToObject(j, "good", r == 0);
	if (r < 0) {
		cJSON_AddStringToObject(j, "error", err.msg);
		(void)pf_store_error("checkpoint verify", &err);
	}
	cJSON_AddItemToArray(out, j);
	return r;
}

/* What the command line names, or all. */
static size_t verify_these(struct pf_ckpt_heavy *h, int argc, char **argv, const char *sandbox,
	struct pf_ckpt_verified *good, cJSON *out, struct pf_err *err)
{
	PF_JSON cJSON *index = argc == 0 ? pf_ckpt_index_read(h->storefd, err) : NULL;
	const cJSON *e;
	size_t bad = argc == 0 && !index;

	if (bad > 0)
		(void)pf_store_error("checkpoint verify", err);
	cJSON_ArrayForEach(e, pf_ckpt_index_entries(index)) bad +=
		verify_one(h, pf_ckpt_index_str(e, "digest"), pf_ckpt_index_str(e, "name"), good, out) < 0;
	for (int i = 0; i < argc; i++) {
		PF_CKPT struct pf_ckpt one = {0};
		struct pf_digest d;
		if (strcmp(argv[i], "latest") == 0 || pf_ckpt_find_digest(h->storefd, argv[i], &d, err) < 0) {
			if (pf_ckpt_resolve_at(h->storefd, argv[i], sandbox, &one, err) < 0) {
				(void)pf_store_error("checkpoint verify", err);
				bad++;
				continue;
			}
			d = one.digest;
		}
		bad += verify_one(h, d.s, one.name ? one.name : "", good, out) < 0;
	}
	return bad;
}

static void damaged_pack(void *ctx, const char *pack, const struct pf_chunk_id *id, const char *what)
{
	(void)ctx, (void)id;
	fprintf(stderr,
		"pinfold: checkpoint verify: pack %s: %s (`pinfold checkpoint verify --all --repair-index` "
		"writes it anew)\n",
		pack, what);
}

static void cannot_repair(void *ctx, const char *pack, const struct pf_chunk_id *id, const char *what)
{
	(void)ctx, (void)id;
	fprintf(stderr, "pinfold: checkpoint verify: pack %s cannot be repaired: %s\n", pack, what);
}

static int repair(struct pf_err *err)
{
	struct pf_ckpt_repaired done;

	if (pf_ckpt_repair(pf_store.store, cannot_repair, NULL, &done, err) < 0)
		return err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	fprintf(stderr, "pinfold: checkpoint verify: %lld indexes of packs written anew\n",
		(long long)done.packs);
	if (done.index)
		fprintf(stderr,
			"pinfold: checkpoint verify: index.json written anew: %lld checkpoints, %lld of them "
			"damaged; "
			"all count as imported\n",
			(long long)done.checkpoints, (long long)done.damaged);
	return 0;
}

static int cmd_verify(int argc, char **argv)
{
	static const struct option options[] = {{"all", no_argument, NULL, 'a'},
		{"repair-index", no_argument, NULL, 'r'}, {"sandbox", required_argument, NULL, 's'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	PF_JSON cJSON *out = cJSON_CreateArray();
	const char *sandbox = NULL;
	bool all = false, mend = false;
	size_t bad = 0;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint verify", argc, argv, options)) != -1)
		if (c == 'a')
			all = true;
		else if (c == 'r')
			mend = true;
		else if (c == 's')
			sandbox = optarg;
		else
			return 125;
	if (all ? optind != argc : optind == argc)
		return pf_store_usage("checkpoint verify", verify_help);
	if (mend && repair(&err) < 0)
		return pf_store_error("checkpoint verify", &err);
	if (pf_ckpt_heavy_open(pf_store.store, false, false, &h, &err) < 0) {
		if (!all || err.kind != PF_ERR_NOT_FOUND)
			return pf_store_error("checkpoint verify", &err);
	} else {
		struct pf_ckpt_verified *good = pf_ckpt_verified_new();
		pf_show_begin(STDERR_FILENO, "verify");
		bad = verify_these(&h, argc - optind, argv + optind, sandbox, good, out, &err);
		if (all)
			bad += (size_t)pf_packs_verify_form(h.packs, damaged_pack, NULL);
		if (all && h.sealed)
			bad += (size_t)pf_packs_verify_form(h.sealed, damaged_pack, NULL);
		pf_show_end();
		pf_ckpt_verified_free(good);
	}
	print_json(out);
	return bad ? 125 : 0;
}

static cJSON *gc_json(const struct pf_ckpt_gc_stats *s)
{
	cJSON *j = cJSON_CreateObject();

	pf_json_add_int(j, "manifests", s->manifests);
	pf_json_add_int(j, "layers", s->layers);
	pf_json_add_int(j, "chunks", s->chunks);
	pf_json_add_int(j, "unpacked", s->unpacked);
	pf_json_add_int(j, "temps", s->temps);
	pf_json_add_int(j, "bytes", s->bytes);
	cJSON_AddBoolToObject(j, "kept_all", s->kept_all);
	if (*s->because)
		cJSON_AddStringToObject(j, "because", s->because);
	return j;
}

void pf_checkpoint_tell_kept(const char *verb, const struct pf_ckpt_gc_stats *s)
{
	if (*s->because)
		fprintf(stderr, "pinfold: checkpoint %s: %s: %s\n", verb,
			s->kept_all ? "nothing was freed that it might need" : "not all was freed",
			s->because);
}

static int cmd_rm(int argc, char **argv)
{
	static const struct option options[] = {{"force", no_argument, NULL, 'f'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_gc_stats s = {0}, one;
	int64_t unsealed = 0;
	bool force = false;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint rm", argc, argv, options)) != -1)
		if (c == 'f')
			force = true;
		else
			return 125;
	if (optind == argc)
		return pf_store_usage("checkpoint rm", rm_help);
	/* Unpacked directories may have modes that keep their own owner out; most have not. */
	if (pf_store_may_own_root(&err) < 0)
		return pf_store_error("checkpoint rm", &err);
	/* A name that is none must not be found out with half of them gone. */
	PF_CLOSE int storefd = pf_ckpt_store_open(pf_store.store, false, &err);
	if (storefd < 0)
		return pf_store_error("checkpoint rm", &err);
	for (int i = optind; i < argc; i++) {
		struct pf_digest digest;
		if (pf_ckpt_find_digest(storefd, argv[i], &digest, &err) < 0)
			return pf_store_error("checkpoint rm", &err);
	}
	for (; optind < argc; optind++) {
		if (pf_ckpt_remove(pf_store.store, argv[optind], force, &one, &err) < 0)
			return pf_store_error("checkpoint rm", &err);
		s.manifests += one.manifests;
		s.layers += one.layers;
		s.chunks += one.chunks;
		s.unpacked += one.unpacked;
		s.temps += one.temps;
		s.bytes += one.bytes;
		if (*one.because)
			memcpy(s.because, one.because, sizeof(s.because));
		s.kept_all |= one.kept_all;
	}
	if (pf_ckpt_drop_unsealed(pf_store.store, &unsealed, &err) < 0)
		return pf_store_error("checkpoint rm", &err);
	s.unpacked += unsealed;
	PF_JSON cJSON *j = gc_json(&s);
	print_json(j);
	pf_checkpoint_tell_kept("rm", &s);
	return 0;
}

static int cmd_gc(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_gc_stats s;
	int64_t unsealed = 0;

	static const struct option options[] = {{0}};

	optind = 0;
	if (pf_store_getopt("checkpoint gc", argc, argv, options) != -1)
		return 125;
	if (optind != argc)
		return pf_store_usage("checkpoint gc", gc_help);
	if (pf_store_may_own_root(&err) < 0 || pf_ckpt_gc(pf_store.store, &s, &err) < 0 ||
		pf_ckpt_drop_unsealed(pf_store.store, &unsealed, &err) < 0)
		return pf_store_error("checkpoint gc", &err);
	s.unpacked += unsealed;
	PF_JSON cJSON *j = gc_json(&s);
	print_json(j);
	pf_checkpoint_tell_kept("gc", &s);
	return 0;
}

static int cmd_prepare(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_prepare_stats s;
	PF_CKPT struct pf_ckpt c = {0};
	const char *sandbox;
	int at = parse_sandbox("checkpoint prepare", argc, argv, &sandbox);

	if (at < 0)
		return 125;
	if (argc - at != 1)
		return pf_store_usage("checkpoint prepare", prepare_help);
	pf_checkpoint_raise_nofile();
	if (pf_store_own_root(&err) < 0 || pf_ckpt_resolve(pf_store.store, argv[at], sandbox, &c, &err) < 0 ||
		pf_ckpt_prepare(pf_store.store, c.digest.s, NULL, &s, &err) < 0)
		return pf_store_error("checkpoint prepare", &err);
	PF_JSON cJSON *j = cJSON_CreateObject();
	cJSON_AddStringToObject(j, "checkpoint", c.digest.s);
	pf_json_add_int(j, "layers", s.layers);
	pf_json_add_int(j, "unpacked", s.unpacked);
	pf_json_add_int(j, "bytes", s.bytes);
	cJSON_AddNumberToObject(j, "duration_ms", (double)s.duration_us / 1000);
	print_json(j);
	return 0;
}

/* pinfold starts pinfold-registry for these: they are here to be listed among the others. */
static int cmd_elsewhere(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;

	(void)argc;
	pf_fail_kind(&err, PF_ERR_INVALID, 0, "start it as pinfold checkpoint %s", argv[0]);
	return pf_store_error(NULL, &err);
}

const struct pf_store_verb pf_checkpoint_verbs[] = {
	{"snapshot-write", pf_cmd_snapshot_write, "--upper-fd N [--live]   pack an upper (internal)"},
	{"diff", pf_cmd_diff,
		"[--json|--stat|--name-only] A [B]   what differs between checkpoints or sandboxes"},
	{"checkpoint ls", cmd_ls, ls_help},
	{"checkpoint inspect", cmd_inspect, inspect_help},
	{"checkpoint verify", cmd_verify, verify_help},
	{"checkpoint rm", cmd_rm, rm_help},
	{"checkpoint prepare", cmd_prepare, prepare_help},
	{"checkpoint export", pf_cmd_checkpoint_export, pf_export_help},
	{"checkpoint import", pf_cmd_checkpoint_import, pf_import_help},
	{"checkpoint push", cmd_elsewhere, push_help},
	{"checkpoint pull", cmd_elsewhere, pull_help},
	{"checkpoint prune", pf_cmd_checkpoint_prune, pf_prune_help},
	{"checkpoint stats", pf_cmd_checkpoint_stats, pf_stats_help},
	{"checkpoint gc", cmd_gc, gc_help},
	{"checkpoint encryption", pf_cmd_checkpoint_encryption, pf_encryption_help},
	{"checkpoint rotate-key", pf_cmd_checkpoint_rotate_key, pf_rotate_help},
	{"manifest-open", pf_cmd_manifest_open, "DIGEST   print a sealed manifest (internal)"},
	{0},
};
