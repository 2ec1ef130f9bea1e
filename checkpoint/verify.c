/* Theory of operation: one pass over the blob feeds the hash of the file and the decompressor, whose output
 * feeds the hash of the tar. Manifest and config have been compared by pf_ckpt_load already. */
#include "checkpoint/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/progress.h"

struct check {
	EVP_MD_CTX *file, *tar;
	ZSTD_DCtx *zstd;
	char *in, *out;
	int64_t size, tar_size;
	int tar_fd;  /* -1: only look */
	size_t left; /* 0 when a zstd frame has just ended */
};

static void check_done(struct check *c)
{
	EVP_MD_CTX_free(c->file);
	EVP_MD_CTX_free(c->tar);
	ZSTD_freeDCtx(c->zstd);
	free(c->in);
	free(c->out);
}

static int corrupt_blob(const struct pf_digest *d, const char *what, struct pf_err *err)
{
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "blob %s: %s", d->s, what);
}

static int feed(struct check *c, const char *data, size_t len, bool inside, const struct pf_digest *d,
	struct pf_err *err)
{
	ZSTD_inBuffer in = {data, len, 0};

	if (EVP_DigestUpdate(c->file, data, len) != 1)
		return pf_fail(err, EIO, "SHA-256");
	while (inside && in.pos < in.size) {
		ZSTD_outBuffer out = {c->out, ZSTD_DStreamOutSize(), 0};
		c->left = ZSTD_decompressStream(c->zstd, &out, &in);
		if (ZSTD_isError(c->left))
			return corrupt_blob(d, ZSTD_getErrorName(c->left), err);
		c->tar_size += (int64_t)out.pos;
		if (EVP_DigestUpdate(c->tar, c->out, out.pos) != 1)
			return pf_fail(err, EIO, "SHA-256");
		if (c->tar_fd >= 0 && pf_write_all(c->tar_fd, c->out, out.pos) < 0)
			return pf_fail(err, errno, "write the unpacked layer");
		if (c->tar_size > PF_CKPT_MAX_BYTES * 2)
			return corrupt_blob(d, "decompresses to more than a checkpoint may hold", err);
	}
	return 0;
}

static int compare(EVP_MD_CTX *md, const struct pf_digest *d, const struct pf_digest *blob, const char *what,
	struct pf_err *err)
{
	uint8_t raw[32];
	struct pf_digest got;

	if (EVP_DigestFinal_ex(md, raw, NULL) != 1)
		return pf_fail(err, EIO, "SHA-256");
	pf_digest_from_raw(raw, &got);
	return strcmp(got.s, d->s) == 0 ? 0 : corrupt_blob(blob, what, err);
}

int pf_ckpt_check_blob(int fd, const struct pf_digest *digest, int64_t size, const struct pf_digest *diff_id,
	int tar_fd, int64_t *tar_size, struct pf_err *err)
{
	PF_CLEANUP(check_done)
	struct check c = {.tar_fd = tar_fd,
		.file = EVP_MD_CTX_new(),
		.tar = EVP_MD_CTX_new(),
		.zstd = ZSTD_createDCtx(),
		.in = malloc((size_t)256 << 10),
		.out = malloc(ZSTD_DStreamOutSize())};
	ssize_t n;

	if (!c.file || !c.tar || !c.zstd || !c.in || !c.out ||
		EVP_DigestInit_ex(c.file, EVP_sha256(), NULL) != 1 ||
		EVP_DigestInit_ex(c.tar, EVP_sha256(), NULL) != 1)
		return pf_fail(err, ENOMEM, "verify");
	/* Hash everything before believing a decompressor's error: "the digest differs" is the cause. */
	struct pf_err inner = PF_ERR_INIT;
	bool inside = diff_id != NULL, broken = false;
	while ((n = read(fd, c.in, (size_t)256 << 10)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pf_fail(err, errno, "read blob %.19s", digest->s);
		pf_progress_done(n);
		if ((c.size += n) > size)
			return corrupt_blob(digest, "longer than its descriptor says", err);
		if (feed(&c, c.in, (size_t)n, inside, digest, &inner) < 0) {
			broken = true;
			inside = false;
		}
	}
	if (c.size != size)
		return corrupt_blob(digest, "shorter than its descriptor says", err);
	if (compare(c.file, digest, digest, "content does not match its digest", err) < 0)
		return -1;
	if (broken) {
		*err = inner;
		return -1;
	}
	if (!diff_id)
		return 0;
	if (tar_size)
		*tar_size = c.tar_size;
	if (c.left != 0)
		return corrupt_blob(digest, "the compressed data stops in the middle", err);
	return compare(c.tar, diff_id, digest, "unpacked content does not match its diff_id", err);
}

static int verify_layer(int storefd, const struct pf_ckpt_layer *l, struct pf_err *err)
{
	char path[96];
	PF_CLOSE int fd =
		openat(storefd, pf_ckpt_blob_path(&l->digest, path), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, errno, "%s", path);
	return pf_ckpt_check_blob(fd, &l->digest, l->size, &l->diff_id, -1, NULL, err);
}

int pf_ckpt_verify(int storefd, const struct pf_ckpt *c, struct pf_ckpt_verified *good, struct pf_err *err)
{
	for (size_t i = 0; i < c->n_layers; i++) {
		const struct pf_ckpt_layer *l = &c->layers[i];
		size_t k = 0;
		while (k < good->n && (strcmp(good->v[k].s, l->digest.s) != 0 ||
					      strcmp(good->v[k + 1].s, l->diff_id.s) != 0))
			k += 2;
		if (k < good->n)
			continue;
		if (verify_layer(storefd, l, err) < 0)
			return pf_wrap(err, "checkpoint %.19s", c->digest.s);
		struct pf_digest *v = realloc(good->v, (good->n + 2) * sizeof(*v));
		if (!v)
			abort();
		good->v = v;
		v[good->n++] = l->digest;
		v[good->n++] = l->diff_id;
	}
	return 0;
}

void pf_ckpt_verified_done(struct pf_ckpt_verified *good)
{
	free(good->v);
	*good = (struct pf_ckpt_verified){0};
}
