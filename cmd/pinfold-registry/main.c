/* pinfold-registry [--store DIR …] checkpoint push|pull …: started by `pinfold checkpoint push` and `pull`.
 * Arguments, printing, and the way into and out of the store, which is pinfold-store's export and import. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/guard.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/units.h"
#include "checkpoint/store.h"
#include "cmd/pinfold-registry/registry.h"
#include "session/log.h"

static const char help[] =
	"usage: pinfold checkpoint push [options] CHECKPOINT HOST[:PORT]/REPOSITORY[:TAG]\n"
	"       pinfold checkpoint pull [options] HOST[:PORT]/REPOSITORY[:TAG|@sha256:DIGEST]\n\n"
	"Send a checkpoint to an OCI registry, or fetch one from there. What the other side has is not sent "
	"again.\n"
	"Who you are is read from the files of `podman login` and `docker login`, or REGISTRY_AUTH_FILE.\n\n"
	"  --sandbox ID        push: whose checkpoint `latest` is; pull: whose it must be\n"
	"  --complete          push: with the layers of its image, so that others can run it\n"
	"  --zstd-chunked      push: layers with tables of contents, so that podman and others fetch of a "
	"layer\n"
	"                      only the files that they do not have; larger\n"
	"  --mount-from REPO   push: let the registry take blobs from this repository of its own\n"
	"  --name NAME         pull: what it is called here (default: REPOSITORY.TAG)\n"
	"  --ca FILE           believe these certificates instead of the machine's (or SSL_CERT_FILE)\n"
	"  --plain-http        without TLS, to a registry on this machine\n"
	"  --json              one JSON object; no progress\n";

static struct pf_log_to log_to;
static const char *store = "/var/lib/pinfold";

static int report(const char *verb, struct pf_err *err)
{
	pf_wrap(err, "checkpoint %s", verb);
	pf_log_say(&log_to, "error", err->msg, pf_err_kind_name(err->kind));
	return 125;
}

/* A directory of the store that goes again, whatever happens but SIGKILL; gc finds that one. */
struct tmp {
	int storefd, fd;
	char name[64];
	char *path;
};

static int make_tmp(struct tmp *t, struct pf_err *err)
{
	t->storefd = pf_ckpt_store_open(store, true, err);
	if (t->storefd < 0 || pf_ckpt_tmp_make(t->storefd, t->name, &t->fd, err) < 0)
		return -1;
	t->path = pf_asprintf("%s/checkpoints/%s", store, t->name);
	return 0;
}

static void remove_tmp(struct tmp *t)
{
	if (t->path)
		pf_ckpt_tmp_remove(t->storefd, t->name, &t->fd);
	if (t->storefd >= 0)
		close(t->storefd);
	free(t->path);
}
#define TMP PF_CLEANUP(remove_tmp)

static char *store_program(struct pf_err *err)
{
	PF_FREE char *dir = pf_program_dir(err);

	return dir ? pf_asprintf("%s/pinfold-store", dir) : NULL;
}

/* A growing, NULL-terminated list of copies. */
struct args {
	char **v;
	size_t n;
};

static void add_arg(struct args *a, const char *text)
{
	char **v = realloc(a->v, (a->n + 2) * sizeof(*v));

	if (!v)
		abort();
	a->v = v;
	v[a->n++] = pf_strdup(text);
	v[a->n] = NULL;
}

static void args_done(struct args *a)
{
	pf_strv_free(a->v);
}

/* Runs pinfold-store --store S checkpoint ARGS, which does not outlive us; its output, malloc'ed, or NULL. */
static char *run_store(char *const *args, struct pf_err *err)
{
	PF_FREE char *program = store_program(err);
	PF_CLEANUP(args_done) struct args a = {0};
	char *out = NULL;

	if (!program)
		return NULL;
	const char *const first[] = {program, "--store", store, "checkpoint"};
	for (size_t i = 0; i < 4; i++)
		add_arg(&a, first[i]);
	for (; *args; args++)
		add_arg(&a, *args);
	return pf_run_tied(a.v, &out, err) < 0 ? NULL : out;
}

static void print(const struct reg *r, const struct reg_stats *s, const cJSON *of_store, bool json, bool push)
{
	const cJSON *tables = cJSON_GetObjectItemCaseSensitive(of_store, "tables"),
		    *others = cJSON_GetObjectItemCaseSensitive(of_store, "without_table"), *why;
	char size[32];

	if (!json) {
		PF_FREE char *ref = pf_asprintf("%s/%s%s%s", r->ref.host, r->ref.repo, r->ref.tag ? ":" : "",
			r->ref.tag ? r->ref.tag : "");
		printf("%s %s\n%s@%s: %lld of %lld blobs, %s\n", push ? "pushed to" : "pulled", ref,
			r->ref.repo, s->digest.s, (long long)s->sent, (long long)s->blobs,
			pf_format_size(s->sent_bytes, size, sizeof(size)));
		cJSON_ArrayForEach(why, others)
			printf("no table of contents: %s\n", cJSON_GetStringValue(why));
		return;
	}
	PF_JSON cJSON *o = cJSON_CreateObject();
	PF_FREE char *ref = pf_asprintf("%s/%s@%s", r->ref.host, r->ref.repo, s->digest.s);
	cJSON_AddStringToObject(o, "reference", ref);
	cJSON_AddStringToObject(o, "digest", s->digest.s);
	if (r->ref.tag)
		cJSON_AddStringToObject(o, "tag", r->ref.tag);
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(of_store, "name"));
	const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(of_store, "checkpoint"));
	if (digest)
		cJSON_AddStringToObject(o, "checkpoint", digest);
	if (name)
		cJSON_AddStringToObject(o, "name", name);
	pf_json_add_int(o, "blobs", s->blobs);
	pf_json_add_int(o, "blobs_moved", s->sent);
	pf_json_add_int(o, "bytes_moved", s->sent_bytes);
	if (push)
		pf_json_add_int(o, "blobs_mounted", s->mounted);
	if (tables)
		cJSON_AddItemToObject(o, "tables", cJSON_Duplicate(tables, true));
	if (others)
		cJSON_AddItemToObject(o, "without_table", cJSON_Duplicate(others, true));
	PF_FREE char *text = pf_json_text(o);
	puts(text);
}

struct options {
	const char *sandbox, *name;
	bool complete, chunked, json;
};

/* What the registry has need not be packed: the layers as they were published before, and the image below. */
static int add_known(struct reg *r, const cJSON *plan, bool chunked, const struct tmp *tmp, struct args *a,
	struct reg_stats *s, struct pf_err *err)
{
	const cJSON *layer, *base = cJSON_GetObjectItemCaseSensitive(plan, "base_image");

	/* What is encrypted is other bytes each time, and stands on nothing that others see. */
	if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(plan, "sealed")))
		return 0;

	cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(plan, "layers"))
	{
		/* A layer of which there can be no table is known in the other form. */
		const char *d = cJSON_GetStringValue(
			cJSON_GetObjectItemCaseSensitive(layer, chunked ? "zstd:chunked" : "zstd"));
		if (!d)
			d = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(layer, "zstd"));
		int there = d ? reg_has(r, d, s, err) : 0;
		if (there < 0)
			return -1;
		if (there) {
			add_arg(a, "--without");
			add_arg(a, d);
		}
	}
	PF_JSON cJSON *refs =
		reg_find_base(r, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(base, "manifest")),
			cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(base, "digest")), s);
	if (!refs)
		return 0;
	PF_FREE char *text = pf_json_text(refs), *file = pf_asprintf("%s/base.json", tmp->path);
	add_arg(a, "--base-refs");
	add_arg(a, file);
	return pf_replace_file_at(tmp->fd, "base.json", text, strlen(text), 0600, false, err) < 0 ? -1 : 1;
}

static int push(struct reg *r, const struct options *o, const char *checkpoint, struct pf_err *err)
{
	TMP struct tmp tmp = {.storefd = -1, .fd = -1};
	PF_CLEANUP(args_done) struct args plan_args = {0}, a = {0};
	PF_FREE char *layout = NULL, *to = NULL, *out = NULL, *plan_text = NULL;
	struct reg_stats s = {0};

	add_arg(&plan_args, "export");
	add_arg(&plan_args, checkpoint);
	add_arg(&plan_args, "--plan");
	if (o->sandbox) {
		add_arg(&plan_args, "--sandbox");
		add_arg(&plan_args, o->sandbox);
	}
	plan_text = run_store(plan_args.v, err);
	PF_JSON cJSON *plan = plan_text ? pf_json_parse("plan", plan_text, strlen(plan_text), err) : NULL;
	const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(plan, "checkpoint"));
	if (!digest || make_tmp(&tmp, err) < 0)
		return -1;
	/* export makes the directory itself. By its digest: `latest` may be another one by now. */
	layout = pf_asprintf("%s/layout", tmp.path);
	to = pf_asprintf("oci:%s", layout);
	const char *const fixed[] = {"export", digest, "--to", to};
	for (size_t i = 0; i < 4; i++)
		add_arg(&a, fixed[i]);
	int based = add_known(r, plan, o->chunked, &tmp, &a, &s, err);
	if (based < 0)
		return -1;
	if (o->chunked)
		add_arg(&a, "--zstd-chunked");
	if (o->complete && !based)
		add_arg(&a, "--complete");
	out = run_store(a.v, err);
	PF_JSON cJSON *made = out ? pf_json_parse("export", out, strlen(out), err) : NULL;
	PF_CLOSE int fd = made ? open(layout, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (made && fd < 0)
		return pf_fail(err, errno, "%s", layout);
	if (!made || reg_push(r, fd, &s, err) < 0)
		return -1;
	print(r, &s, made, o->json, true);
	return 0;
}

/* "team/work:v1" is work.v1 here; by digest its first digits stand for the tag. */
static char *name_for(const struct reg_ref *ref)
{
	const char *slash = strrchr(ref->repo, '/'), *base = slash ? slash + 1 : ref->repo;

	return ref->tag ? pf_asprintf("%s.%s", base, ref->tag)
			: pf_asprintf("%s.%.12s", base, ref->digest + 7);
}

static int pull(struct reg *r, const struct options *o, struct pf_err *err)
{
	TMP struct tmp tmp = {.storefd = -1, .fd = -1};
	PF_FREE char *from = NULL, *out = NULL;
	struct reg_stats s = {0};

	if (make_tmp(&tmp, err) < 0)
		return -1;
	PF_FREE char *name = o->name ? pf_strdup(o->name) : name_for(&r->ref);
	if (reg_pull(r, tmp.fd, tmp.storefd, name, &s, err) < 0)
		return -1;
	from = pf_asprintf("oci:%s:%s", tmp.path, name);
	char *args[] = {(char *)"import", from, (char *)"--name", name,
		o->sandbox ? (char *)"--sandbox" : NULL, (char *)o->sandbox, NULL};
	out = run_store(args, err);
	PF_JSON cJSON *taken = out ? pf_json_parse("import", out, strlen(out), err) : NULL;
	if (!taken)
		return -1;
	print(r, &s, taken, o->json, false);
	return 0;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {{"sandbox", required_argument, NULL, 's'},
		{"complete", no_argument, NULL, 'c'}, {"mount-from", required_argument, NULL, 'm'},
		{"name", required_argument, NULL, 'n'}, {"ca", required_argument, NULL, 'C'},
		{"plain-http", no_argument, NULL, 'p'}, {"json", no_argument, NULL, 'j'},
		{"zstd-chunked", no_argument, NULL, 'z'}, {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	struct reg r = {0};
	struct options o = {0};
	struct pf_err err = PF_ERR_INIT;
	int c;

	r.push = argc > 0 && strcmp(argv[0], "push") == 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		switch (c) {
		case 's':
			o.sandbox = optarg;
			break;
		case 'c':
			o.complete = true;
			break;
		case 'z':
			o.chunked = true;
			break;
		case 'm':
			r.mount_from = optarg;
			break;
		case 'n':
			o.name = optarg;
			break;
		case 'C':
			r.ca = optarg;
			break;
		case 'p':
			r.plain_http = true;
			break;
		case 'j':
			o.json = true;
			break;
		case 'h':
			fputs(help, stdout);
			return 0;
		default:
			pf_fail_kind(&err, PF_ERR_INVALID, 0,
				c == ':' ? "%s needs a value" : "unknown option %s", argv[optind - 1]);
			return report(argv[0], &err);
		}
	}
	if (argc - optind != (r.push ? 2 : 1)) {
		pf_fail_kind(&err, PF_ERR_INVALID, 0, "%s (try --help)",
			r.push ? "a checkpoint and where to push it are expected"
			       : "what to pull is expected");
		return report(argv[0], &err);
	}
	r.progress = !o.json && isatty(STDERR_FILENO);
	int rc = reg_open(&r, argv[argc - 1], &err);
	if (rc == 0)
		rc = r.push ? push(&r, &o, argv[optind], &err) : pull(&r, &o, &err);
	reg_close(&r);
	if (rc < 0)
		return report(argv[0], &err);
	return fflush(stdout) == 0 ? 0 : 125;
}

int main(int argc, char **argv)
{
	int i = 1;

	if (argc > 3 && strcmp(argv[1], "remove-behind") == 0) {
		pf_guard_remove(atoi(argv[2]), argv + 3);
		return 0;
	}
	pf_guard_begin("/proc/self/exe");
	/* As pinfold hands them on: --root DIR --store DIR [--log-format json] [--log FILE] checkpoint VERB …
	 */
	for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
		if (strcmp(argv[i], "--store") == 0)
			store = argv[i + 1];
		else if (strcmp(argv[i], "--log") == 0)
			log_to.file = argv[i + 1];
		else if (strcmp(argv[i], "--log-format") == 0)
			log_to.json = strcmp(argv[i + 1], "json") == 0;
	}
	if (argc - i < 2 || strcmp(argv[i], "checkpoint") != 0 ||
		(strcmp(argv[i + 1], "push") != 0 && strcmp(argv[i + 1], "pull") != 0)) {
		fputs("pinfold-registry is started by pinfold checkpoint push and pull\n", stderr);
		return 125;
	}
	umask(077);
	return run(argc - i - 1, argv + i + 1);
}
