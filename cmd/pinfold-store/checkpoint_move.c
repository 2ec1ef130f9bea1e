/* checkpoint export | import */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "checkpoint/export.h"
#include "checkpoint/import.h"
#include "checkpoint/layer.h"
#include "checkpoint/restore.h"
#include "checkpoint/store.h"
#include "checkpoint/unsealed.h"
#include "cmd/pinfold-store/checkpoint.h"
#include "cmd/pinfold-store/progress.h"
#include "cmd/pinfold-store/verbs.h"
#include "overlay/image.h"

const char pf_export_help[] =
	"CHECKPOINT --to oci:DIR|oci-archive:FILE|tar:FILE [--complete] [--uncompressed|--zstd-chunked] "
	"[--sandbox ID]   write it for other tools\n\n"
	"  --to oci:DIR            an OCI image layout; checkpoint import makes the same checkpoint of it\n"
	"  --to oci-archive:FILE   the same as one file\n"
	"  --to tar:FILE           the files alone, all layers over each other\n"
	"  --complete              with the layers of the image below it\n"
	"  --uncompressed          layers as plain tar, for tools that do not know zstd\n"
	"  --zstd-chunked          layers with a table of contents, so that podman and others fetch of a "
	"layer only\n"
	"                          the files that they do not have; larger";
const char pf_import_help[] = "oci:DIR[:NAME]|oci-archive:FILE[:NAME] [--name NAME] [--sandbox ID]   take "
			      "one in from an OCI image layout";

static void print_json(const cJSON *j)
{
	PF_FREE char *text = pf_json_text(j);
	puts(text);
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

/* The base image for a complete export; refuses one that is not the checkpoint's, or that lives partly
 * outside its layers. */
static int base_image(const struct pf_ckpt *c, struct pf_image *img, struct pf_err *err)
{
	if (pf_ckpt_check_foreign_base(c, NULL, err) < 0 ||
		pf_image_resolve(pf_store.store, c->base_image_ref, img, err) < 0)
		return pf_wrap(err, "--complete needs the base image");
	if (pf_ckpt_check_base(c, img->digest, err) < 0)
		return -1;
	if (img->n_binds > 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"image %s is partly this machine's own files and cannot be exported: export without "
			"--complete",
			img->ref);
	return 0;
}

/* The checkpoint that a spec means, also a sealed one. */
static int load(
	struct pf_ckpt_heavy *h, const char *spec, const char *sandbox, struct pf_ckpt *c, struct pf_err *err)
{
	PF_JSON cJSON *index = NULL;
	struct pf_digest d;

	if (strcmp(spec, "latest") == 0) {
		struct pf_ckpt newest = {0};
		if (pf_ckpt_resolve_at(h->storefd, spec, sandbox, &newest, err) < 0)
			return -1;
		d = newest.digest;
		pf_ckpt_done(&newest);
	} else if (pf_ckpt_find_digest(h->storefd, spec, &d, err) < 0) {
		return -1;
	}

	if (!(index = pf_ckpt_index_read(h->storefd, err)))
		return -1;
	const cJSON *entry = pf_ckpt_index_find(index, d.s, NULL);
	if (pf_ckpt_heavy_load(h, d.s, pf_ckpt_index_str(entry, "name"), c, err) < 0)
		return -1;
	c->foreign = pf_ckpt_index_foreign(entry);
	return 0;
}

/* ---- export ---- */

struct export_args {
	const char *spec, *sandbox, *to;
	const char *refs; /* --base-refs */
	bool complete, plan;
	struct pf_ckpt_export_opts opts;
	const char **without;
	size_t n_without;
};

static int parse_form(struct export_args *a, struct pf_err *err)
{
	static const struct {
		const char *prefix;
		enum pf_ckpt_form form;
	} forms[] = {{"oci:", PF_CKPT_OCI}, {"oci-archive:", PF_CKPT_OCI_ARCHIVE}, {"tar:", PF_CKPT_TAR}};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		size_t n = strlen(forms[i].prefix);
		if (strncmp(a->to, forms[i].prefix, n) != 0 || !a->to[n])
			continue;
		a->opts.form = forms[i].form;
		a->to += n;
		return a->opts.form == PF_CKPT_TAR && (a->opts.uncompressed || a->opts.chunked)
			       ? pf_fail_kind(err, PF_ERR_INVALID, 0,
					 "a tar is never compressed: leave %s out",
					 a->opts.chunked ? "--zstd-chunked" : "--uncompressed")
			       : 0;
	}
	return pf_fail_kind(err, PF_ERR_INVALID, 0,
		"--to %.100s: oci:DIR, oci-archive:FILE or tar:FILE is expected", a->to);
}

/* 0, or -1 after a message. */
static int parse_export(int argc, char **argv, struct export_args *a)
{
	static const struct option options[] = {{"to", required_argument, NULL, 't'},
		{"complete", no_argument, NULL, 'c'}, {"uncompressed", no_argument, NULL, 'u'},
		{"sandbox", required_argument, NULL, 's'}, {"without", required_argument, NULL, 1},
		{"base-refs", required_argument, NULL, 2}, {"plan", no_argument, NULL, 3},
		{"zstd-chunked", no_argument, NULL, 'z'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint export", argc, argv, options)) != -1)
		if (c == 't')
			a->to = optarg;
		else if (c == 'c')
			a->complete = true;
		else if (c == 'u')
			a->opts.uncompressed = true;
		else if (c == 'z')
			a->opts.chunked = true;
		else if (c == 's')
			a->sandbox = optarg;
		else if (c == 1)
			a->without[a->n_without++] = optarg;
		else if (c == 2)
			a->refs = optarg;
		else if (c == 3)
			a->plan = true;
		else
			return -1;
	if (argc - optind != 1 || !a->to == !a->plan) {
		(void)pf_store_usage("checkpoint export", pf_export_help);
		return -1;
	}
	a->spec = argv[optind];
	if (a->n_without > 0)
		a->opts.without = a->without;
	int r = a->to ? parse_form(a, &err) : 0;
	if (r == 0 && a->opts.chunked && a->opts.uncompressed)
		r = pf_fail_kind(
			&err, PF_ERR_INVALID, 0, "--uncompressed and --zstd-chunked exclude each other");
	if (r < 0) {
		(void)pf_store_error("checkpoint export", &err);
		return -1;
	}
	return 0;
}

/* Of the manifest that the image came by, if it is known: a registry may have it. */
static void add_manifest_digest(cJSON *base, const char *ref)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *normal = pf_image_ref_normalize(ref, &ignored), *text = NULL;
	PF_FREE char *file = normal ? pf_image_ref_file(normal) : NULL;
	PF_FREE char *path = file ? pf_asprintf("%s/images/refs/%s", pf_store.store, file) : NULL;
	const char *manifest = NULL;
	size_t len;

	if (!path || pf_read_file_at(AT_FDCWD, path, PF_CKPT_MAX_DOC, &text, &len, &ignored) < 0)
		return;
	PF_JSON cJSON *record = pf_json_parse(path, text, len, &ignored);
	if (record && pf_json_str(record, "", "manifest", &manifest, &ignored) > 0)
		cJSON_AddStringToObject(base, "manifest", manifest);
}

/* For pinfold-registry: what the layers were published as, and what they stand on. */
static int print_plan(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, struct pf_err *err)
{
	PF_JSON cJSON *j = cJSON_CreateObject();
	cJSON *layers = cJSON_AddArrayToObject(j, "layers");

	cJSON_AddStringToObject(j, "checkpoint", c->digest.s);
	cJSON_AddStringToObject(j, "name", c->name);
	cJSON_AddBoolToObject(j, "sealed", c->sealed && !pf_store.decrypt);
	cJSON *base = cJSON_AddObjectToObject(j, "base_image");
	cJSON_AddStringToObject(base, "ref", c->base_image_ref);
	cJSON_AddStringToObject(base, "digest", c->base_image_digest);
	add_manifest_digest(base, c->base_image_ref);
	for (size_t i = c->n_layers; i-- > 0;) {
		struct pf_layer_doc doc = {0};
		cJSON *l = cJSON_CreateObject();
		cJSON_AddItemToArray(layers, l);
		cJSON_AddStringToObject(l, "id", c->layers[i].id.s);
		if (pf_layer_doc_load(h, &c->layers[i].id, &doc, err) < 0)
			return -1;
		for (size_t k = 0; k < doc.n_published; k++)
			cJSON_AddStringToObject(l, doc.published[k].form, doc.published[k].digest.s);
		pf_layer_doc_done(&doc);
	}
	print_json(j);
	return 0;
}

/* Sealed, it is nobody's image: what would make it one is for somebody who says that it may leave in clear.
 */
static int check_sealed(const struct pf_ckpt *c, const struct export_args *a, struct pf_err *err)
{
	if (!c->sealed || pf_store.decrypt ||
		(a->opts.form != PF_CKPT_TAR && !a->complete && !a->opts.uncompressed && !a->opts.chunked))
		return 0;
	return pf_fail_kind(err, PF_ERR_INVALID, 0,
		"checkpoint %.60s is encrypted, and so is what leaves the store: --decrypt says that it may "
		"be read",
		a->spec);
}

/* A tar is made of layers that are stacked, and these are mounted from the store. */
static int unpack_for_tar(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, struct pf_err *err)
{
	struct pf_ckpt_prepare_stats prepared;

	for (size_t i = 0; i < c->n_layers; i++)
		if (!c->layers[i].unpacked && pf_ckpt_read_only(h->storefd))
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"the store is read-only, and layers of this checkpoint are not unpacked in "
				"it: "
				"export --to oci:DIR needs none");
	return pf_ckpt_prepare_in(h, c->digest.s, NULL, &prepared, err);
}

static int run_export(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, struct export_args *a,
	struct pf_ckpt_export_stats *s, struct pf_err *err)
{
	struct pf_err ignored = PF_ERR_INIT;
	struct pf_image img = {0};
	int64_t dropped;
	PF_JSON cJSON *refs = a->refs ? pf_json_load(a->refs, err) : NULL, *config = NULL;
	char **dirs = pf_calloc(c->n_layers + 1, sizeof(*dirs));
	int r = a->refs && !refs ? -1 : check_sealed(c, a, err);
	bool unpacks = c->sealed && a->opts.form == PF_CKPT_TAR && !pf_ckpt_read_only(h->storefd);
	PF_CLOSE int hold = -1;

	if (r == 0 && a->complete && (r = base_image(c, &img, err)) == 0) {
		config = image_config(&img);
		a->opts.base_layers = img.layers;
	}
	if (r == 0 && unpacks && (hold = pf_ckpt_hold_unpacked(pf_store.store, err)) < 0)
		r = -1;
	if (r == 0 && a->opts.form == PF_CKPT_TAR)
		r = unpack_for_tar(h, c, err);
	for (size_t i = 0; i < c->n_layers; i++)
		dirs[i] = pf_ckpt_layer_dir(pf_store.store, &c->layers[i]);
	a->opts.unpacked = dirs;
	a->opts.decrypt = pf_store.decrypt;
	a->opts.base_config = config;
	a->opts.base_refs = refs;
	if (refs) {
		const cJSON *given = cJSON_GetObjectItemCaseSensitive(refs, "config");
		a->opts.base_config = given ? given : config;
	}
	pf_show_begin(STDERR_FILENO, "export");
	if (r == 0)
		r = pf_ckpt_export(h, c, a->to, &a->opts, s, err);
	pf_show_end();
	/* What was unpacked of a sealed one has served; who still reads it does this then. */
	if (hold >= 0)
		close(pf_take_fd(&hold));
	if (unpacks)
		(void)pf_ckpt_drop_unsealed(pf_store.store, &dropped, &ignored);
	pf_strv_free(dirs);
	pf_image_done(&img);
	return r;
}

int pf_cmd_checkpoint_export(int argc, char **argv)
{
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	PF_CKPT struct pf_ckpt c = {0};
	PF_FREE const char **without = pf_calloc((size_t)argc + 1, sizeof(*without));
	struct export_args a = {.without = without};
	struct pf_ckpt_export_stats s = {0};
	struct pf_err err = PF_ERR_INIT;

	if (parse_export(argc, argv, &a) < 0)
		return 125;
	pf_checkpoint_raise_nofile();
	if ((a.opts.form == PF_CKPT_TAR && !a.plan && pf_store_own_root(&err) < 0) ||
		pf_ckpt_heavy_open(pf_store.store, false, false, &h, &err) < 0 ||
		load(&h, a.spec, a.sandbox, &c, &err) < 0)
		return pf_store_error("checkpoint export", &err);
	if ((a.plan ? print_plan(&h, &c, &err) : run_export(&h, &c, &a, &s, &err)) < 0) {
		cJSON_Delete(s.without_table);
		return pf_store_error("checkpoint export", &err);
	}
	if (a.plan)
		return 0;
	PF_JSON cJSON *j = cJSON_CreateObject();
	cJSON_AddStringToObject(j, "checkpoint", c.digest.s);
	cJSON_AddStringToObject(j, "digest", s.digest.s);
	cJSON_AddStringToObject(j, "name", c.name);
	cJSON_AddStringToObject(j, a.opts.form == PF_CKPT_OCI ? "directory" : "file", a.to);
	cJSON_AddBoolToObject(j, "sealed", c.sealed && !pf_store.decrypt);
	pf_json_add_int(j, "blobs", s.blobs);
	pf_json_add_int(j, "bytes", s.bytes);
	if (a.opts.chunked)
		pf_json_add_int(j, "tables", s.tables);
	if (s.without_table)
		cJSON_AddItemToObject(j, "without_table", s.without_table);
	print_json(j);
	return 0;
}

/* ---- import ---- */

int pf_cmd_checkpoint_import(int argc, char **argv)
{
	static const struct option options[] = {
		{"name", required_argument, NULL, 'n'}, {"sandbox", required_argument, NULL, 's'}, {0}};
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	struct pf_ckpt_import_opts opts = {0};
	struct pf_ckpt_import_stats s;
	struct pf_err err = PF_ERR_INIT;
	int c;

	optind = 0;
	while ((c = pf_store_getopt("checkpoint import", argc, argv, options)) != -1)
		if (c == 'n')
			opts.name = optarg;
		else if (c == 's')
			opts.sandbox = optarg;
		else
			return 125;
	if (argc - optind != 1)
		return pf_store_usage("checkpoint import", pf_import_help);
	pf_checkpoint_raise_nofile();
	if (pf_store_own_root(&err) < 0 || pf_ckpt_heavy_open(pf_store.store, true, false, &h, &err) < 0)
		return pf_store_error("checkpoint import", &err);
	pf_show_begin(STDERR_FILENO, "import");
	if (pf_ckpt_import(&h, argv[optind], &opts, &s, &err) < 0)
		return pf_store_error("checkpoint import", &err);
	pf_show_end();
	PF_JSON cJSON *j = cJSON_CreateObject();
	cJSON_AddStringToObject(j, "checkpoint", s.digest.s);
	cJSON_AddStringToObject(j, "digest", s.source.s);
	cJSON_AddStringToObject(j, "name", s.name);
	pf_json_add_int(j, "layers", s.layers);
	pf_json_add_int(j, "unpacked", s.unpacked);
	pf_json_add_int(j, "bytes", s.bytes);
	pf_json_add_int(j, "bytes_new", s.bytes_new);
	print_json(j);
	return 0;
}
