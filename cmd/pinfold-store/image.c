/* The image verbs: arguments in, JSON (or a table for people) out. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/units.h"
#include "checkpoint/store.h"
#include "cmd/pinfold-store/verbs.h"
#include "overlay/import.h"
#include "overlay/recipe.h"
#include "session/config.h"

/* ---- progress, on a terminal only ---- */

struct meter {
	bool tty;
	int64_t last; /* microseconds */
	char stage[100];
};

static void show(void *arg, const char *what, int64_t done, int64_t total)
{
	struct meter *m = arg;
	int64_t now = pf_now_us();
	bool news = strncmp(m->stage, what, sizeof(m->stage) - 1) != 0;
	char size[24];

	if (!news && (!m->tty || now - m->last < 100000))
		return;
	m->last = now;
	snprintf(m->stage, sizeof(m->stage), "%s", what);
	if (!m->tty)
		return;
	if (total > 0)
		fprintf(stderr, "\r\033[K%.60s  %lld%%", what, (long long)(done * 100 / total));
	else if (done > 0)
		fprintf(stderr, "\r\033[K%.60s  %s", what, pf_format_size(done, size, sizeof(size)));
	else
		fprintf(stderr, "\r\033[K%.76s", what);
	fflush(stderr);
}

static void meter_end(const struct meter *m)
{
	if (m->tty && m->stage[0])
		fputs("\r\033[K", stderr);
}

static int print(cJSON *j)
{
	PF_FREE char *text = pf_json_text(j);

	cJSON_Delete(j);
	puts(text);
	return 0;
}

/* ---- options ---- */

struct args {
	const char *name, *max_size, *image;
	bool json;
	char **rest;
	int n_rest;
};

/* 0, or 125 after a message; n operands are wanted, or at least -n. */
static int parse(const char *verb, const char *help, int n, int argc, char **argv, struct args *a)
{
	static const struct option known[] = {{"name", required_argument, NULL, 'n'},
		{"json", no_argument, NULL, 'j'}, {"max-size", required_argument, NULL, 'm'},
		{"image", required_argument, NULL, 'i'}, {NULL, 0, NULL, 0}};
	int c;

	*a = (struct args){0};
	optind = 0;
	while ((c = pf_store_getopt(verb, argc, argv, known)) != -1) {
		if (c == 'n')
			a->name = optarg;
		else if (c == 'j')
			a->json = true;
		else if (c == 'm')
			a->max_size = optarg;
		else if (c == 'i')
			a->image = optarg;
		else
			return 125;
	}
	a->rest = argv + optind;
	a->n_rest = argc - optind;
	return (n < 0 ? a->n_rest >= -n : a->n_rest == n) ? 0 : pf_store_usage(verb, help);
}

static int import_opts(const struct args *a, struct meter *m, struct pf_import_opts *o, struct pf_err *err)
{
	*m = (struct meter){.tty = isatty(STDERR_FILENO) == 1};
	*o = (struct pf_import_opts){.name = a->name, .progress = show, .progress_arg = m};
	return a->max_size ? pf_parse_size("--max-size", a->max_size, &o->max_bytes, err) : 0;
}

/* ---- verbs ---- */

static const char import_help[] =
	"SOURCE [--name NAME[:TAG]] [--max-size BYTES]   add an image (oci:DIR[:TAG], oci-archive:F, "
	"docker-archive:F, tar:F, dir:D, a path, or - )";
static const char build_help[] =
	"DIR|RECIPE [--name NAME[:TAG]]   build one from a recipe, with this machine's apt sources";
static const char packages_help[] =
	"FILE [--image IMAGE] [--name NAME[:TAG]]   install a sandbox file's packages into its image";
static const char ls_help[] = "[--json]   list what is in the store";
static const char inspect_help[] = "IMAGE   everything known of one, as JSON";
static const char rm_help[] = "IMAGE... [--key SPEC]   remove, and free the layers that only they had";
static const char export_help[] = "IMAGE oci:DIR[:TAG]   write one as an OCI image layout";
static const char gc_help[] = "   remove what interrupted work left behind";

static int cmd_import(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_import_opts o;
	struct meter m;
	struct args a;

	if (parse("image import", import_help, 1, argc, argv, &a) != 0)
		return 125;
	if (import_opts(&a, &m, &o, &err) < 0)
		return pf_store_error("image import", &err);
	cJSON *j = pf_image_import(pf_store.store, a.rest[0], &o, &err);
	meter_end(&m);
	return j ? print(j) : pf_store_error("image import", &err);
}

/* A directory, or the name of a recipe that comes with pinfold. */
static char *find_recipe(const char *arg)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *here = pf_asprintf("%s/recipe.json", arg);

	if (strchr(arg, '/') || access(here, F_OK) == 0)
		return pf_strdup(arg);
	PF_FREE char *program = pf_program_dir(&ignored);
	PF_FREE char *share =
		pf_store.share ? pf_asprintf("%s/images/%s", pf_store.share, arg)
			       : pf_asprintf("%s/../../share/pinfold/images/%s", program ? program : "", arg);
	return access(share, F_OK) == 0 ? pf_take(share) : pf_strdup(arg);
}

/* The program pinfold, which runs the managers' containers. malloc'ed. */
static char *find_pinfold(struct pf_err *err)
{
	PF_FREE char *dir = pf_program_dir(err);

	if (!dir)
		return NULL;
	PF_FREE char *far = pf_asprintf("%s/../../bin/pinfold", dir), *near = pf_asprintf("%s/pinfold", dir);
	if (access(far, X_OK) == 0)
		return pf_take(far);
	if (access(near, X_OK) == 0)
		return pf_take(near);
	pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "the program pinfold is not installed beside %s", dir);
	return NULL;
}

/* The recipe's image; what other managers than Debian's bring is a layer of its own above it. */
static cJSON *build(const char *dir, const struct pf_import_opts *o, struct pf_err *err)
{
	struct pf_recipe r;
	cJSON *j = NULL;

	if (pf_recipe_load(dir, &r, err) < 0)
		return NULL;
	PF_FREE char *pinfold = r.others->child ? find_pinfold(err) : NULL;
	if (!r.others->child || pinfold)
		j = pf_image_build(pf_store.store, dir, o, err);
	if (j && pinfold) {
		struct pf_import_opts more = *o;
		PF_JSON cJSON *below = pf_take(j);
		const char *ref = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(below, "ref"));
		more.name = ref;
		j = pf_image_packages(pf_store.store, pinfold, ref, r.others, &more, err);
		if (!j)
			pf_wrap(err, "build %s", dir);
	}
	pf_recipe_done(&r);
	return j;
}

static int cmd_build(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_import_opts o;
	struct meter m;
	struct args a;

	if (parse("image build", build_help, 1, argc, argv, &a) != 0)
		return 125;
	if (import_opts(&a, &m, &o, &err) < 0)
		return pf_store_error("image build", &err);
	PF_FREE char *dir = find_recipe(a.rest[0]);
	cJSON *j = build(dir, &o, &err);
	meter_end(&m);
	return j ? print(j) : pf_store_error("image build", &err);
}

static cJSON *packages(const struct args *a, const struct pf_import_opts *o, struct pf_err *err)
{
	PF_FREE char *pinfold = find_pinfold(err);
	struct pf_config c;
	cJSON *j = NULL;

	if (!pinfold || pf_config_load(a->rest[0], &c, err) < 0)
		return NULL;
	const char *image = a->image ? a->image : c.image;
	PF_JSON cJSON *lists = pf_config_packages(&c);
	if (image)
		j = pf_image_packages(pf_store.store, pinfold, image, lists, o, err);
	else
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s names no image: say which (--image)", a->rest[0]);
	pf_config_done(&c);
	return j;
}

static int cmd_packages(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_import_opts o;
	struct meter m;
	struct args a;

	if (parse("image packages", packages_help, 1, argc, argv, &a) != 0)
		return 125;
	if (import_opts(&a, &m, &o, &err) < 0)
		return pf_store_error("image packages", &err);
	cJSON *j = packages(&a, &o, &err);
	meter_end(&m);
	return j ? print(j) : pf_store_error("image packages", &err);
}

static const char *text_of(const cJSON *j, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, key);

	return cJSON_IsString(v) ? v->valuestring : "-";
}

static int cmd_ls(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct args a;
	const cJSON *img;
	char size[24];

	if (parse("image ls", ls_help, 0, argc, argv, &a) != 0)
		return 125;
	PF_JSON cJSON *list = pf_image_list(pf_store.store, &err);
	if (!list)
		return pf_store_error("image ls", &err);
	if (a.json)
		return print(pf_take(list));
	printf("%-32s %-20s %10s  %s\n", "IMAGE", "DIGEST", "SIZE", "ADDED");
	printf("%-32s %-20s %10s  %s\n", "host", "-", "-", "this machine");
	cJSON_ArrayForEach(img, list)
	{
		const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(img, "bytes");
		const char *digest = text_of(img, "digest"), *when = text_of(img, "imported");
		printf("%-32s %-20.19s %10s  %s\n", text_of(img, "ref"), digest,
			pf_format_size(
				cJSON_IsNumber(bytes) ? (int64_t)bytes->valuedouble : 0, size, sizeof(size)),
			strcmp(when, "-") != 0 ? when : text_of(img, "created"));
	}
	return 0;
}

static int cmd_inspect(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct args a;

	if (parse("image inspect", inspect_help, 1, argc, argv, &a) != 0)
		return 125;
	cJSON *j = pf_image_inspect(pf_store.store, a.rest[0], &err);
	return j ? print(j) : pf_store_error("image inspect", &err);
}

/* The checkpoint of v that needs an image, as text. One that cannot be read may need any. */
static char *checkpoint_among(const struct pf_ckpt *v, size_t n, const char *const *digests)
{
	for (size_t i = 0; i < n; i++) {
		const char *name = *v[i].name ? v[i].name : pf_digest_hex(&v[i].digest);
		if (!v[i].record)
			return pf_asprintf("checkpoint %.64s, perhaps, which cannot be read (remedy: %s)",
				name, v[i].sealed ? "give --key" : "`pinfold checkpoint verify --all`");
		for (const char *const *d = digests; *d; d++)
			if (strcmp(v[i].base_image_digest, *d) == 0)
				return pf_asprintf("checkpoint %.64s", name);
	}
	return NULL;
}

static char *user_of(void *arg, const char *const *digests)
{
	char *user = pf_image_user_sandbox(pf_store.root, pf_store.store, digests);
	struct pf_err why = PF_ERR_INIT;
	struct pf_ckpt *v = NULL;
	size_t n = 0;

	(void)arg;
	if (user)
		return user;
	PF_CLOSE int fd = pf_ckpt_store_open(pf_store.store, false, &why);
	if (fd < 0 && why.kind == PF_ERR_NOT_FOUND)
		return NULL;
	if (fd < 0 || pf_ckpt_list(fd, &v, &n, &why) < 0)
		return pf_asprintf("a checkpoint, perhaps: %.600s", why.msg);
	user = checkpoint_among(v, n, digests);
	pf_ckpt_list_free(v, n);
	return user;
}

static int cmd_rm(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct args a;

	if (parse("image rm", rm_help, -1, argc, argv, &a) != 0)
		return 125;
	for (int i = 0; i < a.n_rest; i++) {
		cJSON *j = pf_image_remove(pf_store.store, a.rest[i], user_of, NULL, &err);
		if (!j)
			return pf_store_error("image rm", &err);
		print(j);
	}
	return 0;
}

static int cmd_export(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_import_opts o;
	struct meter m;
	struct args a;

	if (parse("image export", export_help, 2, argc, argv, &a) != 0)
		return 125;
	if (import_opts(&a, &m, &o, &err) < 0)
		return pf_store_error("image export", &err);
	cJSON *j = pf_image_export(pf_store.store, a.rest[0], a.rest[1], &o, &err);
	meter_end(&m);
	return j ? print(j) : pf_store_error("image export", &err);
}

static int cmd_gc(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	struct args a;

	if (parse("image gc", gc_help, 0, argc, argv, &a) != 0)
		return 125;
	cJSON *j = pf_image_gc(pf_store.store, &err);
	return j ? print(j) : pf_store_error("image gc", &err);
}

const struct pf_store_verb pf_image_verbs[] = {
	{"image import", cmd_import, import_help},
	{"image build", cmd_build, build_help},
	{"image packages", cmd_packages, packages_help},
	{"image ls", cmd_ls, ls_help},
	{"image inspect", cmd_inspect, inspect_help},
	{"image rm", cmd_rm, rm_help},
	{"image export", cmd_export, export_help},
	{"image gc", cmd_gc, gc_help},
	{0},
};
