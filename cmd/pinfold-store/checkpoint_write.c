/* snapshot-write --upper-fd N [--live] [--progress N]
 *
 * One line of JSON on standard input says what to make: sandbox_id, base_image{ref,digest}; optional name,
 * from (digest of the checkpoint below the upper), parent, labels, sandbox_file, policy, exclude[], level,
 * threads, userxattr, ended (no process of the box is left). The upper is an inherited directory; progress
 * goes to an inherited terminal. On standard output, one JSON object per line:
 *
 *   with --live   {"phase":"ready"}   packed once; stop the writers, then send one byte
 *                 {"phase":"thaw"}    what had changed is copied; let them go on
 *   always        {"checkpoint":…}    it is on disk
 *
 * End of input instead of the byte means that the caller is gone: nothing is made. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "base/units.h"
#include "checkpoint/write.h"
#include "cmd/pinfold-store/checkpoint.h"
#include "cmd/pinfold-store/progress.h"
#include "cmd/pinfold-store/verbs.h"

#define VERB "snapshot-write"

void pf_checkpoint_raise_nofile(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
		l.rlim_cur = l.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &l);
	}
}

/* Standard input, of which what follows the first line is kept. */
struct input {
	struct pf_buf buf;
};

static int more_input(struct input *in, struct pf_err *err)
{
	char chunk[16384];
	ssize_t n;

	do
		n = read(STDIN_FILENO, chunk, sizeof(chunk));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return pf_fail(err, errno, "standard input");
	if (n == 0)
		return pf_fail_kind(err, PF_ERR_STATE, 0, "the caller has gone");
	if (in->buf.len > PF_CKPT_MAX_DOC)
		return pf_fail_kind(err, PF_ERR_INVALID, EFBIG, "the request");
	pf_buf_add(&in->buf, chunk, (size_t)n);
	return 0;
}

static cJSON *read_request(struct input *in, struct pf_err *err)
{
	char *nl;

	while (!in->buf.data || !(nl = memchr(in->buf.data, '\n', in->buf.len)))
		if (more_input(in, err) < 0)
			return NULL;
	size_t len = (size_t)(nl - in->buf.data);
	*nl = '\0';
	cJSON *j = pf_json_parse("request", in->buf.data, len, err);
	in->buf.len -= len + 1;
	memmove(in->buf.data, nl + 1, in->buf.len);
	if (j && !cJSON_IsObject(j)) {
		cJSON_Delete(j);
		j = NULL;
		pf_fail_kind(err, PF_ERR_INVALID, 0, "request: must be an object");
	}
	return j;
}

static int say(const char *line, struct pf_err *err)
{
	if (pf_write_all(STDOUT_FILENO, line, strlen(line)) < 0)
		return pf_fail(err, errno, "standard output");
	return 0;
}

static int ask_freeze(void *ctx, struct pf_err *err)
{
	struct input *in = ctx;

	if (say("{\"phase\":\"ready\"}\n", err) < 0)
		return -1;
	while (in->buf.len == 0)
		if (more_input(in, err) < 0)
			return -1;
	return 0;
}

static int ask_thaw(void *ctx, struct pf_err *err)
{
	(void)ctx;
	return say("{\"phase\":\"thaw\"}\n", err);
}

static int check_labels(const cJSON *labels, struct pf_err *err)
{
	const cJSON *l;

	cJSON_ArrayForEach(l, labels) if (!cJSON_IsString(l)) return pf_fail_kind(
		err, PF_ERR_INVALID, 0, "labels.%s: must be a string", l->string);
	return 0;
}

/* Everything in *s but exclude stays owned by the request. */
static int read_source(const cJSON *req, struct pf_ckpt_source *s, char ***exclude, struct pf_err *err)
{
	static const char *const keys[] = {"sandbox_id", "name", "from", "parent", "base_image", "labels",
		"sandbox_file", "policy", "exclude", "level", "threads", "userxattr", "ended", NULL};
	const cJSON *base = NULL;
	const char *from = "", *parent = "";
	int64_t level = 0, threads = 0;

	s->base_image_ref = s->base_image_digest = "";
	if (pf_json_known(req, "", keys, err) < 0 ||
		pf_json_str(req, "", "sandbox_id", &s->sandbox_id, err) < 0 ||
		pf_json_str(req, "", "name", &s->name, err) < 0 ||
		pf_json_str(req, "", "from", &from, err) < 0 ||
		pf_json_str(req, "", "parent", &parent, err) < 0 ||
		pf_json_obj(req, "", "base_image", &base, err) < 0 ||
		pf_json_obj(req, "", "labels", &s->labels, err) < 0 ||
		pf_json_obj(req, "", "sandbox_file", &s->sandbox_file, err) < 0 ||
		pf_json_obj(req, "", "policy", &s->policy, err) < 0 ||
		pf_json_strv(req, "", "exclude", exclude, err) < 0 ||
		pf_json_int(req, "", "level", 0, 19, &level, err) < 0 ||
		pf_json_int(req, "", "threads", 0, 64, &threads, err) < 0 ||
		pf_json_bool(req, "", "userxattr", &s->userxattr, err) < 0 ||
		pf_json_bool(req, "", "ended", &s->no_sync, err) < 0 || check_labels(s->labels, err) < 0)
		return -1;
	if (!s->sandbox_id || !base)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "request: sandbox_id and base_image must be given");
	if (pf_json_str(base, "base_image", "ref", &s->base_image_ref, err) < 0 ||
		pf_json_str(base, "base_image", "digest", &s->base_image_digest, err) < 0)
		return -1;
	s->from = *from ? from : NULL;
	s->parent = *parent ? parent : NULL;
	s->exclude = (const char *const *)*exclude;
	s->level = (int)level;
	s->threads = (int)threads;
	return 0;
}

static int print_result(const struct pf_ckpt_source *s, const struct pf_ckpt_result *r, struct pf_err *err)
{
	PF_JSON cJSON *j = cJSON_CreateObject();

	cJSON_AddStringToObject(j, "checkpoint", r->digest.s);
	cJSON_AddStringToObject(j, "name", r->name);
	if (s->parent)
		cJSON_AddStringToObject(j, "parent", s->parent);
	else
		cJSON_AddNullToObject(j, "parent");
	cJSON_AddStringToObject(j, "layer", r->layer.id.s);
	pf_json_add_int(j, "bytes_new", r->bytes_new);
	pf_json_add_int(j, "chunks_new", r->written.chunks_new);
	pf_json_add_int(j, "chunks_reused", r->written.chunks_reused);
	pf_json_add_int(j, "bytes", r->layer.walked.bytes);
	pf_json_add_int(j, "files", r->layer.walked.files);
	pf_json_add_int(j, "unchanged", r->layer.unchanged);
	pf_json_add_int(j, "unchanged_bytes", r->layer.unchanged_bytes);
	pf_json_add_int(j, "dirs", r->layer.walked.dirs);
	pf_json_add_int(j, "deletions", r->layer.walked.whiteouts);
	pf_json_add_int(j, "skipped", r->layer.walked.skipped);
	pf_json_add_int(j, "dropped_xattrs", r->layer.dropped_xattrs);
	if (s->live)
		pf_json_add_int(j, "changed", r->layer.live.changed);
	cJSON_AddNumberToObject(j, "frozen_ms", (double)r->layer.live.frozen_us / 1000);
	cJSON_AddNumberToObject(j, "duration_ms", (double)r->duration_us / 1000);
	PF_FREE char *text = pf_json_text(j);
	PF_FREE char *line = pf_asprintf("%s\n", text);
	return say(line, err);
}

static int run(int upper_fd, bool live_writers, struct pf_err *err)
{
	struct input in = {0};
	struct pf_live live = {ask_freeze, ask_thaw, &in};
	struct pf_ckpt_source s = {.upper_fd = upper_fd, .live = live_writers ? &live : NULL};
	struct pf_ckpt_result r = {0};
	char **exclude = NULL;
	PF_JSON cJSON *req = read_request(&in, err);
	int rc = -1;

	if (req && read_source(req, &s, &exclude, err) == 0 &&
		pf_ckpt_write(pf_store.store, &s, &r, err) == 0) {
		rc = print_result(&s, &r, err);
		pf_ckpt_result_done(&r);
	}
	pf_buf_done(&in.buf);
	pf_strv_free(exclude);
	return rc;
}

int pf_cmd_snapshot_write(int argc, char **argv)
{
	static const struct option options[] = {{"upper-fd", required_argument, NULL, 'u'},
		{"live", no_argument, NULL, 'l'}, {"progress", required_argument, NULL, 'p'}, {0}};
	struct pf_err err = PF_ERR_INIT;
	int64_t upper_fd = -1, progress_fd = -1;
	bool live = false;
	int c;

	optind = 0;
	while ((c = pf_store_getopt(VERB, argc, argv, options)) != -1) {
		if (c == '?')
			return 125;
		if (c == 'l')
			live = true;
		else if (pf_parse_int(c == 'u' ? "--upper-fd" : "--progress", optarg, 0, 1 << 20,
				 c == 'u' ? &upper_fd : &progress_fd, &err) < 0)
			return pf_store_error(VERB, &err);
	}
	if (upper_fd < 0 || optind != argc) {
		pf_fail_kind(&err, PF_ERR_INVALID, 0,
			"usage: snapshot-write --upper-fd N [--live] [--progress N] < request");
		return pf_store_error(VERB, &err);
	}
	/* A caller that is gone is an error to clean up after, not a reason to die half-way. */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)pf_set_cloexec((int)upper_fd, true);
	pf_checkpoint_raise_nofile();
	if (progress_fd >= 0)
		(void)pf_set_cloexec((int)progress_fd, true);
	pf_show_begin((int)progress_fd, "snapshot");
	int r = run((int)upper_fd, live, &err);
	pf_show_end();
	return r < 0 ? pf_store_error(VERB, &err) : 0;
}
