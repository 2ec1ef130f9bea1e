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
#include "checkpoint/restore.h"
#include "checkpoint/store.h"
#include "checkpoint/transfer.h"
#include "checkpoint/verify.h"
#include "cmd/pinfold-store/checkpoint.h"
#include "cmd/pinfold-store/progress.h"
#include "cmd/pinfold-store/verbs.h"
#include "overlay/image.h"

static const char ls_help[] = "[--sandbox ID] [--json | --quiet]   list checkpoints, oldest first";
static const char inspect_help[] = "[--sandbox ID] CHECKPOINT   everything recorded of one, as JSON";
static const char verify_help[] = "--all | [--sandbox ID] CHECKPOINT...   read every byte and compare";
static const char rm_help[] = "[--force] CHECKPOINT...   remove, and free what only they used";
static const char prepare_help[] =
	"[--sandbox ID] CHECKPOINT   unpack its layers (create --from does so by itself)";
static const char export_help[] =
	"CHECKPOINT --to oci:DIR [--complete] [--uncompressed] [--sandbox ID]   write "
	"an OCI image layout";
static const char import_help[] = "oci:DIR[:NAME] [--name NAME]   take one in from an OCI image layout";
static const char push_help[] = "[options] CHECKPOINT HOST/REPOSITORY[:TAG]   send one to an OCI registry";
static const char pull_help[] = "[options] HOST/REPOSITORY[:TAG|@DIGEST]   fetch one from an OCI registry";
static const char gc_help[] = "   remove what nothing refers to";

static void print_json(const cJSON *j)
{
	PF_FREE char *text = pf_json_text(j);
	puts(text);
}

static int64_t stored_bytes(const struct pf_ckpt *c)
{
	int64_t sum = c->manifest_size + c->config_size;

	for (size_t i = 0; i < c->n_layers; i++)
		sum += c->layers[i].size;
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
	cJSON_AddBoolToObject(j, "damaged", !complete(c));
	if (!c->record)
		return j;
	cJSON_AddStringToObject(j, "created", c->created);
	cJSON_AddStringToObject(j, "parent", c->parent);
	cJSON *base = cJSON_AddObjectToObject(j, "base_image");
	cJSON_AddStringToObject(base, "ref", c->base_image_ref);
	cJSON_AddStringToObject(base, "digest", c->base_image_digest);
	cJSON_AddItemToObject(
		j, "labels", cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(c->record, "labels"), true));
	pf_json_add_int(j, "bytes", stored_bytes(c));
	cJSON *layers = cJSON_AddArrayToObject(j, "layers");
	for (size_t i = 0; i < c->n_layers; i++) {
		cJSON *l = cJSON_CreateObject();
		cJSON_AddStringToObject(l, "digest", c->layers[i].digest.s);
		cJSON_AddStringToObject(l, "diff_id", c->layers[i].diff_id.s);
		pf_json_add_int(l, "size", c->layers[i].size);
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
			"damaged");
		return;
	}
	printf("%-24s %.12s  %-20s %.19sZ  %10s  %s%s\n", c->name, pf_digest_hex(&c->digest), c->sandbox_id,
		c->created, pf_format_size(stored_bytes(c), size, sizeof(size)), c->base_image_ref,
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

static int verify_one(int storefd, const struct pf_ckpt *c, struct pf_ckpt_verified *good, cJSON *out)
{
	struct pf_err err = PF_ERR_INIT;
	cJSON *j = cJSON_CreateObject();
	int r = 0;

	cJSON_AddStringToObject(j, "checkpoint", c->digest.s);
	cJSON_AddStringToObject(j, "name", c->name ? c->name : "");
	if (!c->record) {
		PF_CKPT struct pf_ckpt again = {0};
		r = pf_ckpt_load(storefd, c->digest.s, NULL, &again, &err);
	} else {
		r = pf_ckpt_verify(storefd, c, good, &err);
	}
	cJSON_AddBoolToObject(j, "good", r == 0);
	if (r < 0) {
		cJSON_AddStringToObject(j, "error", err.msg);
		(void)pf_store_error("checkpoint verify", &err);
	}
	cJSON_AddItemToArray(out, j);
	return r;
}

static int cmd_verify(int argc, char **argv)
{
	static const struct option options[] = {
		{"all", no_argument, NULL, 'a'}, {"sandbox", required_argument, NULL, 's'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	PF_CLOSE int storefd = -1;
	PF_JSON cJSON *out = cJSON_CreateArray();
	struct pf_ckpt_verified good = {0};
	struct pf_ckpt *v = NULL;
	const char *sandbox = NULL;
	bool all = false;
	size_t n = 0, bad = 0;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint verify", argc, argv, options)) != -1)
		if (c == 'a')
			all = true;
		else if (c == 's')
			sandbox = optarg;
		else
			return 125;
	if (all ? optind != argc : optind == argc)
		return pf_store_usage("checkpoint verify", verify_help);
	if (list_all(&storefd, &v, &n, &err) < 0)
		return pf_store_error("checkpoint verify", &err);
	pf_show_begin(STDERR_FILENO, "verify");
	for (size_t i = 0; all && i < n; i++)
		pf_progress_expect(stored_bytes(&v[i]));
	for (size_t i = 0; all && i < n; i++)
		bad += verify_one(storefd, &v[i], &good, out) < 0;
	for (; optind < argc; optind++) {
		PF_CKPT struct pf_ckpt one = {0};
		if (pf_ckpt_resolve(pf_store.store, argv[optind], sandbox, &one, &err) < 0) {
			(void)pf_store_error("checkpoint verify", &err);
			bad++;
		} else {
			pf_progress_expect(stored_bytes(&one));
			bad += verify_one(storefd, &one, &good, out) < 0;
		}
	}
	pf_show_end();
	print_json(out);
	pf_ckpt_verified_done(&good);
	pf_ckpt_list_free(v, n);
	return bad ? 125 : 0;
}

static cJSON *gc_json(const struct pf_ckpt_gc_stats *s)
{
	cJSON *j = cJSON_CreateObject();

	pf_json_add_int(j, "blobs", s->blobs);
	pf_json_add_int(j, "unpacked", s->unpacked);
	pf_json_add_int(j, "temps", s->temps);
	pf_json_add_int(j, "bytes", s->bytes);
	cJSON_AddBoolToObject(j, "kept_all", s->kept_all);
	return j;
}

static int cmd_rm(int argc, char **argv)
{
	static const struct option options[] = {{"force", no_argument, NULL, 'f'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_gc_stats s = {0}, one;
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
		s.blobs += one.blobs;
		s.unpacked += one.unpacked;
		s.temps += one.temps;
		s.bytes += one.bytes;
		s.kept_all |= one.kept_all;
	}
	PF_JSON cJSON *j = gc_json(&s);
	print_json(j);
	return 0;
}

static int cmd_gc(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_gc_stats s;

	static const struct option options[] = {{0}};

	optind = 0;
	if (pf_store_getopt("checkpoint gc", argc, argv, options) != -1)
		return 125;
	if (optind != argc)
		return pf_store_usage("checkpoint gc", gc_help);
	if (pf_ckpt_gc(pf_store.store, &s, &err) < 0)
		return pf_store_error("checkpoint gc", &err);
	PF_JSON cJSON *j = gc_json(&s);
	print_json(j);
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
	if (pf_ckpt_resolve(pf_store.store, argv[at], sandbox, &c, &err) < 0 ||
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

static int print_transfer(const struct pf_ckpt_transfer_stats *s, const char *dir)
{
	PF_JSON cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "digest", s->digest.s);
	cJSON_AddStringToObject(j, "name", s->name);
	if (dir)
		cJSON_AddStringToObject(j, "directory", dir);
	pf_json_add_int(j, "bytes", s->bytes);
	print_json(j);
	return 0;
}

/* The base image's directories for a complete export; refuses an image that is not the checkpoint's, or that
 * lives partly outside its layers. */
static int base_image(const char *spec, const char *sandbox, struct pf_image *img, struct pf_err *err)
{
	PF_CKPT struct pf_ckpt c = {0};

	if (pf_ckpt_resolve(pf_store.store, spec, sandbox, &c, err) < 0)
		return -1;
	if (pf_image_resolve(pf_store.store, c.base_image_ref, img, err) < 0)
		return pf_wrap(err, "--complete needs the base image");
	if (pf_ckpt_check_base(&c, img->digest, err) < 0)
		return -1;
	if (img->n_binds > 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"image %s is partly this machine's own files and cannot be exported: export without "
			"--complete",
			img->ref);
	return 0;
}

static void add_strings(cJSON *j, const char *key, char *const *v)
{
	cJSON *list = v && *v ? cJSON_AddArrayToObject(j, key) : NULL;

	for (; list && *v; v++)
		cJSON_AddItemToArray(list, cJSON_CreateString(*v));
}

/* What the base image says about running it. Its entrypoint is a part of cmd already. */
static cJSON *image_config(const struct pf_image *img)
{
	cJSON *j = cJSON_CreateObject();

	add_strings(j, "Env", img->env);
	add_strings(j, "Cmd", img->cmd);
	if (img->workdir)
		cJSON_AddStringToObject(j, "WorkingDir", img->workdir);
	if (img->user)
		cJSON_AddStringToObject(j, "User", img->user);
	return j;
}

static int cmd_export(int argc, char **argv)
{
	static const struct option options[] = {{"to", required_argument, NULL, 't'},
		{"complete", no_argument, NULL, 'c'}, {"uncompressed", no_argument, NULL, 'u'},
		{"sandbox", required_argument, NULL, 's'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_transfer_stats s;
	struct pf_image img = {0};
	const char *to = NULL, *sandbox = NULL;
	struct pf_ckpt_export_opts opts = {0};
	bool whole = false;
	int c, r = 0;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint export", argc, argv, options)) != -1)
		if (c == 't')
			to = optarg;
		else if (c == 'c')
			whole = true;
		else if (c == 'u')
			opts.uncompressed = true;
		else if (c == 's')
			sandbox = optarg;
		else
			return 125;
	if (!to || argc - optind != 1 || (pf_starts_with(to, "oci:") && !to[4]))
		return pf_store_usage("checkpoint export", export_help);
	const char *dir = pf_starts_with(to, "oci:") ? to + 4 : to;
	pf_checkpoint_raise_nofile();
	if (whole)
		r = base_image(argv[optind], sandbox, &img, &err);
	PF_JSON cJSON *config = whole && r == 0 ? image_config(&img) : NULL;
	opts.base_layers = whole ? img.layers : NULL;
	opts.base_config = config;
	pf_show_begin(STDERR_FILENO, "export");
	if (r == 0)
		r = pf_ckpt_export(pf_store.store, argv[optind], sandbox, dir, &opts, &s, &err);
	pf_show_end();
	pf_image_done(&img);
	return r < 0 ? pf_store_error("checkpoint export", &err) : print_transfer(&s, dir);
}

static int cmd_import(int argc, char **argv)
{
	static const struct option options[] = {{"name", required_argument, NULL, 'n'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_transfer_stats s;
	const char *name = NULL;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint import", argc, argv, options)) != -1)
		if (c == 'n')
			name = optarg;
		else
			return 125;
	if (argc - optind != 1)
		return pf_store_usage("checkpoint import", import_help);
	/* As skopeo reads it: what follows the last colon is the entry's name. */
	PF_FREE char *dir = pf_strdup(argv[optind] + (pf_starts_with(argv[optind], "oci:") ? 4 : 0));
	char *ref = strrchr(dir, ':');
	if (ref)
		*ref++ = '\0';
	pf_show_begin(STDERR_FILENO, "import");
	if (pf_ckpt_import(pf_store.store, dir, ref && *ref ? ref : NULL, name, &s, &err) < 0)
		return pf_store_error("checkpoint import", &err);
	pf_show_end();
	return print_transfer(&s, NULL);
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
	{"checkpoint export", cmd_export, export_help},
	{"checkpoint import", cmd_import, import_help},
	{"checkpoint push", cmd_elsewhere, push_help},
	{"checkpoint pull", cmd_elsewhere, pull_help},
	{"checkpoint prune", pf_cmd_checkpoint_prune, pf_prune_help},
	{"checkpoint stats", pf_cmd_checkpoint_stats, pf_stats_help},
	{"checkpoint gc", cmd_gc, gc_help},
	{0},
};
