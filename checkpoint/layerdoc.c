/* Theory of operation: the document is a few hundred bytes for a small layer, and grows by one id for every
 * 64 KiB of tree or map. It is replaced whole. */
#include "checkpoint/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"

void pf_layer_doc_done(struct pf_layer_doc *d)
{
	for (size_t i = 0; i < d->n_published; i++) {
		free(d->published[i].form);
		cJSON_Delete(d->published[i].notes);
	}
	free(d->published);
	free(d->tree);
	free(d->map);
	*d = (struct pf_layer_doc){0};
}

static void to_hex(const uint8_t raw[32], char hex[65])
{
	struct pf_digest d;

	pf_digest_from_raw(raw, &d);
	memcpy(hex, pf_digest_hex(&d), 65);
}

static bool from_hex(const char *hex, uint8_t raw[32])
{
	if (strlen(hex) != 64 || strspn(hex, "0123456789abcdef") != 64)
		return false;
	for (size_t i = 0; i < 64; i++) {
		unsigned v = hex[i] <= '9' ? (unsigned)(hex[i] - '0') : (unsigned)(hex[i] - 'a' + 10);
		raw[i / 2] = (uint8_t)(i % 2 ? (unsigned)raw[i / 2] << 4 | v : v);
	}
	return true;
}

static int read_stream(
	const cJSON *j, const char *key, uint8_t (**ids)[32], size_t *n, int64_t *bytes, struct pf_err *err)
{
	const cJSON *stream = NULL, *chunks = NULL, *c;

	if (pf_json_obj(j, "", key, &stream, err) < 0)
		return -1;
	if (!stream)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "it has no %s", key);
	if (pf_json_int(stream, key, "bytes", 0, (int64_t)1 << 53, bytes, err) < 0 ||
		pf_json_arr(stream, key, "chunks", &chunks, err) < 0)
		return -1;
	*ids = pf_calloc((size_t)cJSON_GetArraySize(chunks) + 1, sizeof(**ids));
	cJSON_ArrayForEach(c, chunks)
	{
		const char *hex = cJSON_GetStringValue(c);
		if (!hex || !from_hex(hex, (*ids)[*n]))
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s.chunks: not an id", key);
		(*n)++;
	}
	return 0;
}

static int read_published(const cJSON *j, struct pf_layer_doc *d, struct pf_err *err)
{
	const cJSON *list = NULL, *notes, *p;

	if (pf_json_arr(j, "", "published", &list, err) < 0)
		return -1;
	d->published = pf_calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*d->published));
	cJSON_ArrayForEach(p, list)
	{
		const char *form = NULL, *digest = NULL, *diff_id = NULL;
		struct pf_layer_published *to = &d->published[d->n_published];
		notes = NULL;
		if (!cJSON_IsObject(p) || pf_json_str(p, "published[]", "form", &form, err) < 0 ||
			pf_json_str(p, "published[]", "digest", &digest, err) < 0 ||
			pf_json_str(p, "published[]", "diff_id", &diff_id, err) < 0 ||
			pf_json_int(p, "published[]", "size", 0, (int64_t)1 << 53, &to->size, err) < 0 ||
			pf_json_obj(p, "published[]", "annotations", &notes, err) < 0)
			return -1;
		if (!form || !digest || !diff_id || !pf_digest_ok(digest) || !pf_digest_ok(diff_id))
			return pf_fail_kind(
				err, PF_ERR_CORRUPT, 0, "published[]: form or digests are missing");
		to->form = pf_strdup(form);
		memcpy(to->digest.s, digest, sizeof(to->digest.s));
		memcpy(to->diff_id.s, diff_id, sizeof(to->diff_id.s));
		to->notes = notes ? cJSON_Duplicate(notes, true) : NULL;
		d->n_published++;
	}
	return 0;
}

static int parse(const char *text, size_t len, const struct pf_digest *layer, struct pf_layer_doc *d,
	struct pf_err *err)
{
	PF_JSON cJSON *j = pf_json_parse("layer document", text, len, err);
	const char *id = "";
	int64_t version = 0;

	if (!j || !cJSON_IsObject(j) || pf_json_int(j, "", "version", 0, INT32_MAX, &version, err) < 0 ||
		pf_json_str(j, "", "layer", &id, err) < 0)
		return -1;
	if (version != PF_CKPT_VERSION || strcmp(id, layer->s) != 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "it is of another layer or version");
	if (read_stream(j, "tree", &d->tree, &d->n_tree, &d->tree_bytes, err) < 0 ||
		read_stream(j, "map", &d->map, &d->n_map, &d->map_bytes, err) < 0)
		return -1;
	return read_published(j, d, err);
}

static int load(struct pf_ckpt_heavy *h, const struct pf_digest *layer, bool sealed, struct pf_layer_doc *d,
	struct pf_err *err)
{
	PF_FREE char *text = NULL;
	char path[96];
	size_t len;

	*d = (struct pf_layer_doc){0};
	if (pf_ckpt_heavy_read(h, "layer", pf_digest_hex(layer), pf_ckpt_layer_path(layer, sealed, path),
		    PF_LAYER_MAX_DOC, &text, &len, &d->sealed, err) < 0)
		return -1;
	if (d->sealed != sealed || parse(text, len, layer, d, err) < 0) {
		if (d->sealed != sealed)
			pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s is not sealed as its name says", path);
		err->kind = PF_ERR_CORRUPT;
		pf_layer_doc_done(d);
		return -1;
	}
	return 0;
}

int pf_layer_doc_load_as(struct pf_ckpt_heavy *h, const struct pf_digest *layer, bool sealed,
	struct pf_layer_doc *d, struct pf_err *err)
{
	return load(h, layer, sealed, d, err) < 0 ? pf_wrap(err, "layer %.19s", layer->s) : 0;
}

int pf_layer_doc_load(
	struct pf_ckpt_heavy *h, const struct pf_digest *layer, struct pf_layer_doc *d, struct pf_err *err)
{
	struct pf_err sealed = PF_ERR_INIT;

	/* Whichever can be read; of two errors the one about what is there. */
	if (load(h, layer, false, d, err) == 0 || load(h, layer, true, d, &sealed) == 0)
		return 0;
	if (err->kind == PF_ERR_NOT_FOUND)
		*err = sealed;
	if (err->kind == PF_ERR_NOT_FOUND)
		err->kind = PF_ERR_CORRUPT; /* what refers to it is there */
	return pf_wrap(err, "layer %.19s", layer->s);
}

static void add_stream(cJSON *j, const char *key, const uint8_t (*ids)[32], size_t n, int64_t bytes)
{
	cJSON *stream = cJSON_AddObjectToObject(j, key);

	pf_json_add_int(stream, "bytes", bytes);
	cJSON *chunks = cJSON_AddArrayToObject(stream, "chunks");
	for (size_t i = 0; i < n; i++) {
		char hex[65];
		to_hex(ids[i], hex);
		cJSON_AddItemToArray(chunks, cJSON_CreateString(hex));
	}
}

char *pf_layer_doc_text(const struct pf_digest *layer, const struct pf_layer_doc *d)
{
	PF_JSON cJSON *j = cJSON_CreateObject();

	cJSON_AddNumberToObject(j, "version", PF_CKPT_VERSION);
	cJSON_AddStringToObject(j, "layer", layer->s);
	add_stream(j, "tree", (const uint8_t(*)[32])d->tree, d->n_tree, d->tree_bytes);
	add_stream(j, "map", (const uint8_t(*)[32])d->map, d->n_map, d->map_bytes);
	if (d->n_published > 0) {
		cJSON *list = cJSON_AddArrayToObject(j, "published");
		for (size_t i = 0; i < d->n_published; i++) {
			cJSON *p = cJSON_CreateObject();
			cJSON_AddStringToObject(p, "form", d->published[i].form);
			cJSON_AddStringToObject(p, "digest", d->published[i].digest.s);
			cJSON_AddStringToObject(p, "diff_id", d->published[i].diff_id.s);
			pf_json_add_int(p, "size", d->published[i].size);
			if (d->published[i].notes)
				cJSON_AddItemToObject(
					p, "annotations", cJSON_Duplicate(d->published[i].notes, true));
			cJSON_AddItemToArray(list, p);
		}
	}
	return pf_json_text(j);
}

static void set_published(struct pf_layer_doc *d, const struct pf_layer_published *blob)
{
	size_t i = 0;

	while (i < d->n_published && strcmp(d->published[i].form, blob->form) != 0)
		i++;
	if (i == d->n_published) {
		void *v = realloc(d->published, (i + 1) * sizeof(*d->published));
		if (!v)
			abort();
		d->published = v;
		d->published[d->n_published++] = (struct pf_layer_published){.form = pf_strdup(blob->form)};
	}
	d->published[i].digest = blob->digest;
	d->published[i].diff_id = blob->diff_id;
	d->published[i].size = blob->size;
	cJSON_Delete(d->published[i].notes);
	d->published[i].notes = blob->notes ? cJSON_Duplicate(blob->notes, true) : NULL;
}

int pf_layer_doc_publish(struct pf_ckpt_heavy *h, const struct pf_digest *layer,
	const struct pf_layer_published *blob, struct pf_err *err)
{
	PF_CLEANUP(pf_layer_doc_done) struct pf_layer_doc d = {0};
	PF_CLOSE int lock = pf_ckpt_lock(h->storefd, err);
	char path[96];

	if (lock < 0 || pf_layer_doc_load(h, layer, &d, err) < 0)
		return -1;
	set_published(&d, blob);
	PF_FREE char *text = pf_layer_doc_text(layer, &d);
	PF_CLOSE int dir = openat(h->storefd, "layers", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return pf_fail(err, errno, "layers");
	return pf_ckpt_heavy_write(h, "layer", pf_digest_hex(layer), dir,
		pf_ckpt_layer_path(layer, d.sealed, path) + strlen("layers/"), text, strlen(text), d.sealed,
		true, err);
}
