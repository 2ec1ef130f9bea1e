/* Theory of operation: blobs first, the manifest last, so that whoever pulls sees all of it or nothing. A
 * blob that the registry has is not sent. Small ones go in one request; large ones in pieces, and when the
 * connection breaks the registry is asked how much it has and gets the rest. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "checkpoint/oci.h"
#include "checkpoint/store.h"
#include "cmd/pinfold-registry/registry.h"

#define PIECE ((int64_t)16 << 20)
#define MAX_BREAKS 20

/* A Location is often relative to what was asked for. malloc'ed; "" when it is none, which no request takes.
 */
static char *absolute(const char *asked, const char *location)
{
	CURLU *u = curl_url();
	char *text = NULL, *out;

	if (u && curl_url_set(u, CURLUPART_URL, asked, 0) == CURLUE_OK &&
		curl_url_set(u, CURLUPART_URL, location, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK)
		(void)curl_url_get(u, CURLUPART_URL, &text, 0);
	out = pf_strdup(text ? text : "");
	curl_free(text);
	curl_url_cleanup(u);
	return out;
}

static char *with_digest(const char *url, const char *digest)
{
	return pf_asprintf("%s%cdigest=%s", url, strchr(url, '?') ? '&' : '?', digest);
}

/* 1: it is there, 0: not. */
static int has_blob(struct reg *r, const char *digest, struct pf_err *err)
{
	PF_FREE char *url = pf_asprintf("%s/blobs/%s", r->base, digest);
	const struct reg_request q = {.method = "HEAD", .url = url, .fd = -1, .max = 4096, .retry = true};
	struct reg_reply a = {0};

	if (reg_send(r, &q, &a, err) < 0)
		return -1;
	int there = a.status == 200 ? 1 : a.status == 404 ? 0 : reg_refused(r, &a, "look for a blob", err);
	reg_reply_done(&a);
	return there;
}

/* A place to upload to; NULL and no error when the blob was taken from another repository instead. */
static char *begin_upload(struct reg *r, const char *digest, struct reg_stats *s, struct pf_err *err)
{
	PF_FREE char *url = r->mount_from ? pf_asprintf("%s/blobs/uploads/?mount=%s&from=%s", r->base, digest,
						    r->mount_from)
					  : pf_asprintf("%s/blobs/uploads/", r->base);
	const struct reg_request q = {.method = "POST", .url = url, .fd = -1, .max = 4096, .retry = true};
	struct reg_reply a = {0};
	char *place = NULL;

	if (reg_send(r, &q, &a, err) < 0)
		return NULL;
	if (a.status == 201 && r->mount_from)
		s->mounted++;
	else if (a.status == 202 && a.location)
		place = absolute(url, a.location);
	else
		(void)reg_refused(r, &a, "begin an upload", err);
	reg_reply_done(&a);
	return place;
}

/* "0-99" means that 100 bytes are there; nothing, or "0-0" of an empty upload, that none are. */
static int64_t after_range(const char *range)
{
	long long first, last;

	return range && sscanf(range, "%lld-%lld", &first, &last) == 2 && first == 0 && last > 0 ? last + 1
												 : 0;
}

/* How much of an upload has arrived; 0 with *place NULL: it has to be begun anew. Some registries know an
 * upload only by a location that they give with each piece, so that one that broke off is lost to both. -1
 * with err. */
static int64_t ask_how_far(struct reg *r, char **place, struct pf_err *err)
{
	const struct reg_request q = {.method = "GET", .url = *place, .fd = -1, .max = 4096, .retry = true};
	struct reg_reply a = {0};
	int64_t have = 0;

	if (reg_send(r, &q, &a, err) < 0)
		return -1;
	char *next = a.status == 204 ? absolute(*place, a.location ? a.location : *place) : NULL;
	if (a.status == 204)
		have = after_range(a.range);
	else if (a.status != 404 && a.status != 400 && a.status != 416)
		have = reg_refused(r, &a, "ask how far an upload got", err);
	free(*place);
	*place = next;
	reg_reply_done(&a);
	return have;
}

static int send_piece(
	struct reg *r, char **place, int fd, int64_t from, int64_t length, int64_t *have, struct pf_err *err)
{
	char range[80];
	const char *const headers[] = {"Content-Type: application/octet-stream", range, NULL};
	const struct reg_request q = {.method = "PATCH",
		.url = *place,
		.headers = headers,
		.fd = fd,
		.offset = from,
		.length = length,
		.max = 4096};
	struct reg_reply a = {0};
	struct pf_err e = PF_ERR_INIT;

	snprintf(range, sizeof(range), "Content-Range: %lld-%lld", (long long)from,
		(long long)(from + length - 1));
	int rc = reg_send(r, &q, &a, &e);
	if (rc == 0 && a.status == 202 && a.location) {
		char *next = absolute(*place, a.location);
		free(*place);
		*place = next;
		*have = from + length;
		reg_reply_done(&a);
		return 0;
	}
	bool busy = rc < 0 || a.status == 416 || a.status == 429 || a.status >= 500;
	if (!busy)
		(void)reg_refused(r, &a, "upload", &e);
	reg_reply_done(&a);
	if (!busy) {
		*err = e;
		return -1;
	}
	/* Broken in the middle: what did arrive? */
	reg_progress(r, from, false);
	*have = ask_how_far(r, place, err);
	reg_progress(r, *have < 0 ? -from : *have - 2 * from, false);
	return *have < 0 ? -1 : 1;
}

static int upload(struct reg *r, char **place, int fd, int64_t size, const char *digest, struct reg_stats *s,
	struct pf_err *err)
{
	int64_t have = 0;
	int breaks = 0;

	while (size > PIECE && have < size) {
		int64_t length = size - have < PIECE ? size - have : PIECE;
		int rc = send_piece(r, place, fd, have, length, &have, err);
		if (rc < 0)
			return -1;
		if (rc > 0 && ++breaks > MAX_BREAKS)
			return pf_fail_kind(
				err, PF_ERR_SYSTEM, 0, "%s: the upload broke %d times", r->ref.host, breaks);
		if (!*place && !(*place = begin_upload(r, digest, s, err)))
			return *err->msg ? -1 : 0; /* it has turned up elsewhere meanwhile */
		if (have > size)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "%s: it has more than was sent", r->ref.host);
	}
	PF_FREE char *url = with_digest(*place, digest);
	const char *const headers[] = {"Content-Type: application/octet-stream", NULL};
	const struct reg_request whole = {.method = "PUT",
		.url = url,
		.headers = headers,
		.fd = fd,
		.length = size,
		.max = 4096,
		.retry = true};
	const struct reg_request end = {
		.method = "PUT", .url = url, .headers = headers, .fd = -1, .max = 4096, .retry = true};
	struct reg_reply a = {0};
	if (reg_send(r, size > PIECE ? &end : &whole, &a, err) < 0)
		return -1;
	/* Sent twice, because the answer was lost: the first time ended the upload, and the second found
	 * none. */
	int there = a.status == 404 || a.status == 400 ? has_blob(r, digest, err) : a.status == 201;
	int rc = there > 0 ? 0 : there < 0 ? -1 : reg_refused(r, &a, "finish an upload", err);
	reg_reply_done(&a);
	return rc;
}

int reg_has(struct reg *r, const char *digest, struct reg_stats *s, struct pf_err *err)
{
	int64_t mounted = s->mounted;
	int there = has_blob(r, digest, err);

	if (there != 0 || !r->mount_from)
		return there;
	/* What is begun instead, where the other repository has no such blob, is forgotten by the registry.
	 */
	char *place = begin_upload(r, digest, s, err);
	bool begun = place != NULL;
	free(place);
	return begun ? 0 : s->mounted > mounted ? 1 : -1;
}

static int push_blob(
	struct reg *r, int blobs, const char *digest, int64_t size, struct reg_stats *s, struct pf_err *err)
{
	struct stat st;

	PF_CLOSE int fd = openat(blobs, digest + 7, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 ? errno != ENOENT : fstat(fd, &st) < 0)
		return pf_fail(err, errno, "blob %s", digest);
	s->blobs++;
	int there = has_blob(r, digest, err);
	if (there < 0)
		return -1;
	if (there) {
		reg_progress(r, size, false);
		return 0;
	}
	if (fd < 0)
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"blob %.19s: %s had it a moment ago and has it no more: push again", digest,
			r->ref.host);
	int64_t mounted = s->mounted;
	char *place = begin_upload(r, digest, s, err);
	if (!place) {
		reg_progress(r, size, false);
		return s->mounted > mounted ? 0 : -1;
	}
	int rc = upload(r, &place, fd, st.st_size, digest, s, err);
	free(place);
	if (rc < 0)
		return pf_wrap(err, "blob %.19s", digest);
	s->sent++;
	s->sent_bytes += st.st_size;
	return 0;
}

static const char *digest_of(const cJSON *descriptor)
{
	const char *d = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(descriptor, "digest"));

	return d && pf_digest_ok(d) ? d : NULL;
}

/* For what is shown alone; layers of an image below may be described by the registry. */
static int64_t size_of(const cJSON *descriptor)
{
	int64_t n = reg_size_of(descriptor);

	return n < 0 ? 0 : n;
}

static int push_manifest(
	struct reg *r, const char *text, const char *type, const char *digest, struct pf_err *err)
{
	PF_FREE char *url = pf_asprintf("%s/manifests/%s", r->base, r->ref.tag ? r->ref.tag : digest);
	PF_FREE char *header = pf_asprintf("Content-Type: %s", type);
	const char *const headers[] = {header, NULL};
	const struct reg_request q = {.method = "PUT",
		.url = url,
		.headers = headers,
		.body = text,
		.fd = -1,
		.max = 4096,
		.retry = true};
	struct reg_reply a = {0};

	if (reg_send(r, &q, &a, err) < 0)
		return -1;
	int rc = a.status == 201 ? 0 : reg_refused(r, &a, "send the manifest", err);
	if (rc == 0 && a.digest && strcmp(a.digest, digest) != 0)
		rc = pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s took the manifest as %s, not as %s",
			r->ref.host, a.digest, digest);
	reg_reply_done(&a);
	return rc;
}

int reg_push(struct reg *r, int layout_fd, struct reg_stats *s, struct pf_err *err)
{
	PF_FREE char *index_text = NULL, *text = NULL;
	PF_CLOSE int blobs = openat(layout_fd, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t len, manifest_len;

	if (blobs < 0)
		return pf_fail(err, errno, "blobs/sha256");
	if (pf_read_file_at(layout_fd, "index.json", PF_CKPT_MAX_DOC, &index_text, &len, err) < 0)
		return -1;
	PF_JSON cJSON *index = pf_json_parse("index.json", index_text, len, err);
	const cJSON *entry = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(index, "manifests"), 0),
		    *layer;
	const char *digest = digest_of(entry);
	if (!digest)
		return index ? pf_fail_kind(err, PF_ERR_CORRUPT, 0, "index.json names no manifest") : -1;
	if (r->ref.digest && strcmp(r->ref.digest, digest) != 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"what is pushed has the digest %s, not the one that was named", digest);
	if (pf_read_file_at(blobs, digest + 7, PF_CKPT_MAX_DOC, &text, &manifest_len, err) < 0)
		return -1;
	PF_JSON cJSON *manifest = pf_json_parse("manifest", text, manifest_len, err);
	const cJSON *config = cJSON_GetObjectItemCaseSensitive(manifest, "config");
	const cJSON *layers = cJSON_GetObjectItemCaseSensitive(manifest, "layers");
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(manifest, "mediaType"));
	if (!digest_of(config))
		return manifest ? pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the manifest names no config") : -1;
	r->total = size_of(config);
	cJSON_ArrayForEach(layer, layers) r->total += size_of(layer);
	cJSON_ArrayForEach(layer, layers)
	{
		if (!digest_of(layer))
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the manifest names no layer");
		if (push_blob(r, blobs, digest_of(layer), size_of(layer), s, err) < 0)
			return -1;
	}
	if (push_blob(r, blobs, digest_of(config), size_of(config), s, err) < 0 ||
		push_manifest(r, text, type ? type : PF_OCI_MANIFEST_TYPE, digest, err) < 0)
		return -1;
	snprintf(s->digest.s, sizeof(s->digest.s), "%s", digest);
	reg_progress(r, r->total - r->done, true);
	return 0;
}
