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
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/units.h"
#include "cmd/pinfold-registry/registry.h"
#include "session/log.h"

static const char help[] =
	"usage: pinfold checkpoint push [options] CHECKPOINT HOST[:PORT]/REPOSITORY[:TAG]\n"
	"       pinfold checkpoint pull [options] HOST[:PORT]/REPOSITORY[:TAG|@sha256:DIGEST]\n\n"
	"Send a checkpoint to an OCI registry, or fetch one from there. What the other side has is not sent "
	"again.\n"
	"Who you are is read from the files of `podman login` and `docker login`, or REGISTRY_AUTH_FILE.\n\n"
	"  --sandbox ID        push: whose checkpoint `latest` is\n"
	"  --complete          push: with the layers of its image, so that others can run it\n"
	"  --mount-from REPO   push: let the registry take blobs from this repository of its own\n"
	"  --name NAME         pull: what it is called here (default: REPOSITORY.TAG)\n"
	"  --ca FILE           believe these certificates instead of the machine's (or SSL_CERT_FILE)\n"
	"  --plain-http        without TLS\n"
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
static int make_tmp(char **path, struct pf_err *err)
{
	PF_FREE char *parent = pf_asprintf("%s/checkpoints/tmp", store);

	if (pf_mkdirs(parent, 0700, err) < 0)
		return -1;
	*path = pf_asprintf("%s/registry-XXXXXX", parent);
	if (!mkdtemp(*path))
		return pf_fail(err, errno, "%s", *path);
	int fd = open(*path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? pf_fail(err, errno, "%s", *path) : fd;
}

static void remove_tmp(const char *path)
{
	struct pf_err ignored = PF_ERR_INIT;

	if (path)
		(void)pf_rm_rf_at(AT_FDCWD, path, &ignored);
}

static char *store_program(struct pf_err *err)
{
	PF_FREE char *dir = pf_program_dir(err);

	return dir ? pf_asprintf("%s/pinfold-store", dir) : NULL;
}

/* Runs pinfold-store --store S checkpoint ARGS; its output, malloc'ed, or NULL. */
static char *run_store(char *const *args, struct pf_err *err)
{
	PF_FREE char *program = store_program(err);
	char *argv[24] = {program, (char *)"--store", (char *)store, (char *)"checkpoint"}, *out = NULL;
	size_t n = 4;

	if (!program)
		return NULL;
	for (; *args && n < 23; args++)
		argv[n++] = *args;
	return pf_run(argv, &out, err) < 0 ? NULL : out;
}

static void print(const struct reg *r, const struct reg_stats *s, const cJSON *of_store, bool json, bool push)
{
	char size[32];

	if (!json) {
		PF_FREE char *ref = pf_asprintf("%s/%s%s%s", r->ref.host, r->ref.repo, r->ref.tag ? ":" : "",
			r->ref.tag ? r->ref.tag : "");
		printf("%s %s\n%s@%s: %lld of %lld blobs, %s\n", push ? "pushed to" : "pulled", ref,
			r->ref.repo, s->digest.s, (long long)s->sent, (long long)s->blobs,
			pf_format_size(s->sent_bytes, size, sizeof(size)));
		return;
	}
	PF_JSON cJSON *o = cJSON_CreateObject();
	PF_FREE char *ref = pf_asprintf("%s/%s@%s", r->ref.host, r->ref.repo, s->digest.s);
	cJSON_AddStringToObject(o, "reference", ref);
	cJSON_AddStringToObject(o, "digest", s->digest.s);
	if (r->ref.tag)
		cJSON_AddStringToObject(o, "tag", r->ref.tag);
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(of_store, "name"));
	const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(of_store, "digest"));
	if (digest)
		cJSON_AddStringToObject(o, "checkpoint", digest);
	if (name)
		cJSON_AddStringToObject(o, "name", name);
	pf_json_add_int(o, "blobs", s->blobs);
	pf_json_add_int(o, "blobs_moved", s->sent);
	pf_json_add_int(o, "bytes_moved", s->sent_bytes);
	if (push)
		pf_json_add_int(o, "blobs_mounted", s->mounted);
	PF_FREE char *text = pf_json_text(o);
	puts(text);
}

struct options {
	const char *sandbox, *name;
	bool complete, json;
};

static int push(struct reg *r, const struct options *o, const char *checkpoint, struct pf_err *err)
{
	PF_FREE char *dir = NULL, *layout = NULL, *to = NULL, *out = NULL;
	struct reg_stats s = {0};
	char *args[12];
	size_t n = 0;
	int rc = -1;

	PF_CLOSE int tmp = make_tmp(&dir, err);
	if (tmp < 0)
		return -1;
	/* export makes the directory itself. */
	layout = pf_asprintf("%s/layout", dir);
	to = pf_asprintf("oci:%s", layout);
	const char *const fixed[] = {"export", checkpoint, "--to", to};
	for (size_t i = 0; i < 4; i++)
		args[n++] = (char *)fixed[i];
	if (o->complete)
		args[n++] = (char *)"--complete";
	if (o->sandbox) {
		args[n++] = (char *)"--sandbox";
		args[n++] = (char *)o->sandbox;
	}
	args[n] = NULL;
	out = run_store(args, err);
	PF_CLOSE int fd = out ? open(layout, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (out && fd < 0)
		pf_fail(err, errno, "%s", layout);
	else if (fd >= 0)
		rc = reg_push(r, fd, &s, err);
	remove_tmp(dir);
	if (rc == 0)
		print(r, &s, NULL, o->json, true);
	return rc;
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
	PF_FREE char *dir = NULL, *from = NULL, *out = NULL,
		     *blobs = pf_asprintf("%s/checkpoints/blobs/sha256", store);
	struct reg_stats s = {0};

	PF_CLOSE int tmp = make_tmp(&dir, err);
	if (tmp < 0)
		return -1;
	PF_CLOSE int have = open(blobs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_FREE char *name = o->name ? pf_strdup(o->name) : name_for(&r->ref);
	int rc = reg_pull(r, tmp, have, name, &s, err);
	if (rc == 0) {
		from = pf_asprintf("oci:%s:%s", dir, name);
		char *args[] = {(char *)"import", from, (char *)"--name", name, NULL};
		out = run_store(args, err);
		rc = out ? 0 : -1;
	}
	remove_tmp(dir);
	if (rc == 0) {
		PF_JSON cJSON *of_store = cJSON_Parse(out);
		print(r, &s, of_store, o->json, false);
	}
	return rc;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {{"sandbox", required_argument, NULL, 's'},
		{"complete", no_argument, NULL, 'c'}, {"mount-from", required_argument, NULL, 'm'},
		{"name", required_argument, NULL, 'n'}, {"ca", required_argument, NULL, 'C'},
		{"plain-http", no_argument, NULL, 'p'}, {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
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
