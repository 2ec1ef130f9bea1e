/* Theory of operation.
 *
 * Everything is made in a directory of our own under tmp/, locked by us, and every file there is fsynced. The
 * commit is then, under the store's lock: rename the blobs in, fsync their directory, replace index.json. A
 * crash or kill before the last step leaves files that nothing refers to; gc collects them. After it the
 * checkpoint exists.
 *
 * Blobs that are there already are replaced by what we just made: the content is the same by name, and a
 * damaged one is healed by it. */
#include "checkpoint/write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "checkpoint/oci.h"

const char *const pf_ckpt_default_exclude[] = {"/dev", "/proc", "/run", "/sys", "/tmp", NULL};

/* The box is given these as mounts; an image that lacks them gets empty files to mount them on. */
static const char *const mount_points[] = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", NULL};

void pf_ckpt_result_done(struct pf_ckpt_result *r)
{
	free(r->name);
	r->name = NULL;
}

static void timestamp(char out[40])
{
	struct timespec now;
	struct tm tm;
	char day[32];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out, 40, "%.24s.%06uZ", day, (unsigned)now.tv_nsec / 1000 % 1000000);
}

/* "<sandbox id>.<n>" with the lowest n above all used ones that is free. */
static char *default_name(const cJSON *index, const char *sandbox_id)
{
	const cJSON *m;
	long n = 0;

	cJSON_ArrayForEach(m, pf_ckpt_index_entries(index))
	{
		const char *name = pf_ckpt_index_str(m, "name"), *dot = strrchr(name, '.');
		if (!dot || strncmp(name, sandbox_id, (size_t)(dot - name)) != 0 ||
			strlen(sandbox_id) != (size_t)(dot - name))
			continue;
		long k = strtol(dot + 1, NULL, 10);
		if (k > n && k < 1000000000)
			n = k;
	}
	return pf_asprintf("%s.%ld", sandbox_id, n + 1);
}

static void add_stats(cJSON *record, const struct pf_ckpt_result *r)
{
	cJSON *s = cJSON_AddObjectToObject(record, "stats");
	const struct pf_walk_stats *w = &r->layer.walked;

	pf_json_add_int(s, "files", w->files);
	pf_json_add_int(s, "dirs", w->dirs);
	pf_json_add_int(s, "symlinks", w->symlinks);
	pf_json_add_int(s, "hardlinks", w->hardlinks);
	pf_json_add_int(s, "deletions", w->whiteouts);
	pf_json_add_int(s, "bytes", w->bytes);
	pf_json_add_int(s, "stored_bytes", r->written.bytes_new);
	pf_json_add_int(s, "skipped", w->skipped);
	pf_json_add_int(s, "dropped_xattrs", r->layer.dropped_xattrs);
}

static void add_layer(cJSON *layers, const struct pf_digest *id, int64_t bytes, int64_t entries)
{
	cJSON *l = cJSON_CreateObject();

	cJSON_AddStringToObject(l, "id", id->s);
	pf_json_add_int(l, "bytes", bytes);
	pf_json_add_int(l, "entries", entries);
	cJSON_AddItemToArray(layers, l);
}

/* Nobody who knows what is in a sealed checkpoint shall be able to tell so from its digest. */
static void add_salt(cJSON *j)
{
	uint8_t raw[32];
	struct pf_digest d;

	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		abort();
	pf_digest_from_raw(raw, &d);
	cJSON_AddStringToObject(j, "salt", pf_digest_hex(&d));
}

/* below holds the layers under the new one (topmost first). */
static cJSON *make_manifest(const struct pf_ckpt_source *src, const char *const *exclude, const char *created,
	const struct pf_ckpt *below, const struct pf_ckpt_result *r)
{
	cJSON *j = cJSON_CreateObject(), *base, *list;

	cJSON_AddNumberToObject(j, "version", PF_CKPT_VERSION);
	cJSON_AddStringToObject(j, "sandbox_id", src->sandbox_id);
	cJSON_AddStringToObject(j, "name", r->name);
	cJSON_AddStringToObject(j, "created", created);
	cJSON_AddStringToObject(j, "architecture", pf_oci_machine());
	cJSON_AddStringToObject(j, "parent", src->parent ? src->parent : "");
	cJSON_AddStringToObject(j, "from", src->from ? src->from : "");
	base = cJSON_AddObjectToObject(j, "base_image");
	cJSON_AddStringToObject(base, "ref", src->base_image_ref);
	cJSON_AddStringToObject(base, "digest", src->base_image_digest);
	cJSON_AddItemToObject(
		j, "labels", src->labels ? cJSON_Duplicate(src->labels, true) : cJSON_CreateObject());
	if (src->sandbox_file)
		cJSON_AddItemToObject(j, "sandbox_file", cJSON_Duplicate(src->sandbox_file, true));
	if (src->policy)
		cJSON_AddItemToObject(j, "policy", cJSON_Duplicate(src->policy, true));
	list = cJSON_AddArrayToObject(j, "exclude");
	for (; *exclude; exclude++)
		cJSON_AddItemToArray(list, cJSON_CreateString(*exclude));
	cJSON_AddBoolToObject(j, "live", src->live != NULL);
	list = cJSON_AddArrayToObject(j, "layers");
	for (size_t i = below->n_layers; i-- > 0;)
		add_layer(list, &below->layers[i].id, below->layers[i].bytes, below->layers[i].entries);
	add_layer(list, &r->layer.id, r->layer.walked.bytes, r->layer.entries);
	add_stats(j, r);
	if (src->sealed)
		add_salt(j);
	return j;
}

static int commit(struct pf_ckpt_heavy *h, struct pf_txn *t, const struct pf_ckpt_source *src,
	const char *const *exclude, struct pf_ckpt_result *r, struct pf_err *err)
{
	PF_CKPT struct pf_ckpt below = {0};
	char created[40];
	PF_CLOSE int lock = pf_ckpt_lock(h->storefd, err);

	if (lock < 0)
		return -1;
	if (src->from && pf_ckpt_heavy_load(h, src->from, NULL, &below, err) < 0)
		return pf_wrap(err, "the checkpoint below this sandbox");
	for (size_t i = 0; i < below.n_layers; i++)
		if (!below.layers[i].present)
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
				"layer %s of the checkpoint below is missing", below.layers[i].id.s);
	if (below.n_layers >= PF_CKPT_MAX_LAYERS)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"this chain has %zu layers already, more cannot be stacked", below.n_layers);
	PF_JSON cJSON *index = pf_ckpt_index_read(h->storefd, err);
	if (!index)
		return -1;
	r->name = src->name ? pf_strdup(src->name) : default_name(index, src->sandbox_id);
	timestamp(created);
	PF_JSON cJSON *manifest = make_manifest(src, exclude, created, &below, r);
	PF_FREE char *text = pf_json_text(manifest);
	if (strlen(text) > PF_CKPT_MAX_DOC)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, EFBIG, "the manifest");
	r->bytes_new = r->written.bytes_new + (int64_t)strlen(text);
	return pf_txn_commit_locked(t, text, r->name, src->sandbox_id, created, &r->digest, err);
}

static int check_source(int storefd, const struct pf_ckpt_source *src, struct pf_err *err)
{
	if (pf_check_id("sandbox id", src->sandbox_id, err) < 0 ||
		(src->name && pf_check_id("checkpoint name", src->name, err) < 0))
		return -1;
	if (src->name && strcmp(src->name, "latest") == 0)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "'latest' means the newest checkpoint: choose another name");
	if ((src->from && !pf_digest_ok(src->from)) || (src->parent && !pf_digest_ok(src->parent)))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "from and parent must be sha256 digests");
	/* Before the work, not only after it; commit looks again, under the lock. */
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	if (!index)
		return -1;
	if (src->name && pf_ckpt_index_find(index, NULL, src->name))
		return pf_fail_kind(err, PF_ERR_EXISTS, 0,
			"the checkpoint name '%s' is taken: choose another, or remove that one first",
			src->name);
	return 0;
}

static int write_layer(struct pf_ckpt_heavy *h, struct pf_txn *t, const struct pf_ckpt_source *src,
	const char *const *exclude, struct pf_ckpt_result *res, struct pf_err *err)
{
	const struct pf_txn_source s = {.rootfd = src->upper_fd,
		.exclude = exclude,
		.exclude_empty = mount_points,
		.userxattr = src->userxattr,
		.live = src->live,
		.files_index = src->sandbox_id,
		.no_sync = src->no_sync};

	if (pf_txn_layer(t, &s, &res->layer, err) < 0 || pf_txn_finish(t, &res->written, err) < 0)
		return -1;
	return commit(h, t, src, exclude, res, err);
}

int pf_ckpt_write_to(struct pf_ckpt_heavy *h, const struct pf_ckpt_source *src, struct pf_ckpt_result *res,
	struct pf_err *err)
{
	int64_t t0 = pf_now_us();
	const struct pf_txn_opts o = {.level = src->level, .threads = src->threads, .sealed = src->sealed};
	size_t n_defaults = sizeof(pf_ckpt_default_exclude) / sizeof(char *) - 1, n = 0;
	struct pf_txn *t = NULL;

	*res = (struct pf_ckpt_result){0};
	if (check_source(h->storefd, src, err) < 0)
		return -1;
	while (src->exclude && src->exclude[n])
		n++;
	PF_FREE const char **exclude = pf_calloc(n_defaults + n + 1, sizeof(*exclude));
	memcpy(exclude, pf_ckpt_default_exclude, n_defaults * sizeof(*exclude));
	for (size_t i = 0; i < n; i++)
		exclude[n_defaults + i] = src->exclude[i];
	int r = pf_txn_begin(h, &o, &t, err);
	if (r == 0)
		r = write_layer(h, t, src, exclude, res, err);
	pf_txn_end(t);
	if (r < 0)
		pf_ckpt_result_done(res);
	res->duration_us = pf_now_us() - t0;
	return r;
}

int pf_ckpt_write(
	const char *store, const struct pf_ckpt_source *src, struct pf_ckpt_result *res, struct pf_err *err)
{
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;

	struct pf_ckpt_source mine = *src;
	PF_CKPT struct pf_ckpt below = {0};

	*res = (struct pf_ckpt_result){0};
	if (pf_ckpt_heavy_open(store, true, false, &h, err) < 0)
		return -1;
	if (src->from && pf_digest_ok(src->from) && pf_ckpt_heavy_load(&h, src->from, NULL, &below, err) < 0)
		return pf_wrap(err, "the checkpoint below this sandbox");
	if (!src->sealed && pf_ckpt_heavy_choose(&h, below.sealed, &mine.sealed, err) < 0)
		return -1;
	return pf_ckpt_write_to(&h, &mine, res, err);
}
