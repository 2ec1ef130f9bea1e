/* Theory of operation: each layer is read as restoring reads it, down to the hash of every file. A file that
 * was found good is known by its hash and by where its data is stored; in the next layer of the same sandbox
 * most files are those. The manifest has been compared when it was loaded. */
#include "checkpoint/verify.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "checkpoint/layer.h"

/* Keys that are hashes: open addressing, at most half full. */
struct pf_ckpt_verified {
	uint8_t (*v)[32];
	bool *used;
	size_t n, cap;
};

struct pf_ckpt_verified *pf_ckpt_verified_new(void)
{
	return pf_calloc(1, sizeof(struct pf_ckpt_verified));
}

void pf_ckpt_verified_free(struct pf_ckpt_verified *good)
{
	if (!good)
		return;
	free(good->v);
	free(good->used);
	free(good);
}

static size_t slot(const struct pf_ckpt_verified *x, const uint8_t key[32])
{
	uint64_t h;

	memcpy(&h, key, sizeof(h));
	size_t at = (size_t)h & (x->cap - 1);
	while (x->used[at] && memcmp(x->v[at], key, 32) != 0)
		at = (at + 1) & (x->cap - 1);
	return at;
}

static bool is_good(const struct pf_ckpt_verified *x, const uint8_t key[32])
{
	return x->cap > 0 && x->used[slot(x, key)];
}

static void add_good(struct pf_ckpt_verified *x, const uint8_t key[32])
{
	if (x->n * 2 >= x->cap) {
		struct pf_ckpt_verified more = {.cap = x->cap ? x->cap * 2 : 4096, .n = x->n};
		more.v = pf_calloc(more.cap, sizeof(*more.v));
		more.used = pf_calloc(more.cap, sizeof(*more.used));
		for (size_t i = 0; i < x->cap; i++)
			if (x->used[i]) {
				size_t to = slot(&more, x->v[i]);
				memcpy(more.v[to], x->v[i], 32);
				more.used[to] = true;
			}
		free(x->v);
		free(x->used);
		*x = more;
	}
	size_t at = slot(x, key);
	x->n += !x->used[at];
	x->used[at] = true;
	memcpy(x->v[at], key, 32);
}

static int hash(EVP_MD_CTX *md, const void *a, size_t a_len, const void *b, size_t b_len, uint8_t out[32])
{
	return EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(md, a, a_len) == 1 &&
			       EVP_DigestUpdate(md, b, b_len) == 1 && EVP_DigestFinal_ex(md, out, NULL) == 1
		       ? 0
		       : -1;
}

static int verify_file(struct pf_layer_reader *l, const struct pf_tree_entry *e, EVP_MD_CTX *md,
	struct pf_ckpt_verified *good, struct pf_err *err)
{
	uint8_t key[32];
	const void *data;
	int64_t off;
	size_t n;
	ssize_t got;
	const struct pf_ref *refs = pf_layer_refs(l, &n);

	if (hash(md, e->sum, sizeof(e->sum), refs, n * sizeof(*refs), key) < 0)
		return pf_fail(err, EIO, "SHA-256");
	/* The same sum means something else in another version. */
	key[0] ^= (uint8_t)pf_layer_tree_version(l);
	if (is_good(good, key))
		return 0;
	while ((got = pf_layer_data(l, &data, &off, err)) > 0)
		;
	if (got < 0)
		return pf_wrap(err, "/%s", pf_layer_path(l));
	add_good(good, key);
	return 0;
}

static int verify_layer(struct pf_ckpt_heavy *h, const struct pf_digest *id, struct pf_ckpt_verified *good,
	struct pf_err *err)
{
	struct pf_layer_reader *l = pf_layer_open(h, id, err);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	const struct pf_tree_entry *e;
	int r = l && md ? 1 : -1;

	while (r > 0 && (r = pf_layer_next(l, &e, NULL, err)) > 0)
		if (e->type == PF_TREE_FILE && e->n_extents > 0 && verify_file(l, e, md, good, err) < 0)
			r = -1;
	EVP_MD_CTX_free(md);
	pf_layer_close(l);
	return r;
}

int pf_ckpt_verify(
	struct pf_ckpt_heavy *h, const struct pf_ckpt *c, struct pf_ckpt_verified *good, struct pf_err *err)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t key[32];
	int r = 0;

	for (size_t i = 0; r == 0 && i < c->n_layers; i++) {
		const char *id = c->layers[i].id.s;
		if (!md || hash(md, "layer", 5, id, strlen(id), key) < 0)
			r = pf_fail(err, EIO, "SHA-256");
		else if (!is_good(good, key) && (r = verify_layer(h, &c->layers[i].id, good, err)) == 0)
			add_good(good, key);
	}
	EVP_MD_CTX_free(md);
	return r < 0 ? pf_wrap(err, "checkpoint %.19s", c->digest.s) : 0;
}
