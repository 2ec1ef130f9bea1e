/* Theory of operation
 *
 * libarchive is used for one thing: taking gzip, xz or zstd off a byte stream (its "raw" format, told apart
 * by magic numbers). A layer is named twice in an OCI image, by the hash of its blob and by the hash of the
 * tar inside, and both are computed here while the bytes pass, so that nothing is read twice and nothing
 * unverified is kept: the caller unpacks into a temporary place and compares after the last byte. */
#include "overlay/stream.h"

#include <archive.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "overlay/unpack.h"

#define CHUNK ((size_t)256 << 10)

struct pf_stream {
	int fd;
	struct archive *a;
	EVP_MD_CTX *in, *out;
	char *buf;
	int64_t in_bytes, out_bytes, max;
	int read_errno; /* why the last read of fd failed, 0 otherwise */
	void (*progress)(void *arg, int64_t bytes);
	void *arg;
};

static void hash_text(const unsigned char *md, char *out)
{
	memcpy(out, "sha256:", 7);
	for (size_t i = 0; i < 32; i++)
		snprintf(out + 7 + 2 * i, 3, "%02x", md[i]);
}

int pf_sha256(const void *data, size_t len, char *out, struct pf_err *err)
{
	unsigned char md[EVP_MAX_MD_SIZE];

	if (EVP_Digest(data, len, md, NULL, EVP_sha256(), NULL) != 1)
		return pf_fail(err, ENOMEM, "SHA-256");
	hash_text(md, out);
	return 0;
}

static ssize_t read_in(struct pf_stream *s)
{
	ssize_t n;

	do
		n = read(s->fd, s->buf, CHUNK);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		s->read_errno = errno;
		return -1;
	}
	if (EVP_DigestUpdate(s->in, s->buf, (size_t)n) != 1) {
		s->read_errno = ENOMEM;
		return -1;
	}
	s->in_bytes += n;
	if (s->progress)
		s->progress(s->arg, s->in_bytes);
	return n;
}

static la_ssize_t archive_read_cb(struct archive *a, void *arg, const void **buf)
{
	struct pf_stream *s = arg;
	ssize_t n = read_in(s);

	if (n < 0) {
		archive_set_error(a, s->read_errno, "read");
		return ARCHIVE_FATAL;
	}
	*buf = s->buf;
	return n;
}

static int archive_error(struct pf_stream *s, struct pf_err *err)
{
	if (s->read_errno)
		return pf_fail(err, s->read_errno, "read the archive");
	const char *text = archive_error_string(s->a);
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "decompress: %s", text ? text : "damaged data");
}

struct pf_stream *pf_stream_open(
	int fd, int64_t max, void (*progress)(void *arg, int64_t bytes), void *arg, struct pf_err *err)
{
	struct pf_stream *s = pf_calloc(1, sizeof(*s));
	struct archive_entry *entry;

	s->fd = fd;
	s->max = max;
	s->progress = progress;
	s->arg = arg;
	s->buf = pf_calloc(1, CHUNK);
	s->a = archive_read_new();
	s->in = EVP_MD_CTX_new();
	s->out = EVP_MD_CTX_new();
	if (!s->a || !s->in || !s->out || EVP_DigestInit_ex(s->in, EVP_sha256(), NULL) != 1 ||
		EVP_DigestInit_ex(s->out, EVP_sha256(), NULL) != 1 ||
		archive_read_support_format_raw(s->a) != ARCHIVE_OK ||
		archive_read_support_format_empty(s->a) != ARCHIVE_OK ||
		archive_read_support_filter_gzip(s->a) != ARCHIVE_OK ||
		archive_read_support_filter_xz(s->a) != ARCHIVE_OK ||
		archive_read_support_filter_zstd(s->a) != ARCHIVE_OK) {
		pf_fail(err, ENOMEM, "set up decompression");
		pf_stream_free(s);
		return NULL;
	}
	if (archive_read_open(s->a, s, NULL, archive_read_cb, NULL) != ARCHIVE_OK) {
		archive_error(s, err);
		pf_stream_free(s);
		return NULL;
	}
	int r = archive_read_next_header(s->a, &entry);
	if (r != ARCHIVE_OK) {
		if (r == ARCHIVE_EOF)
			pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the archive is empty");
		else
			archive_error(s, err);
		pf_stream_free(s);
		return NULL;
	}
	return s;
}

ssize_t pf_stream_read(void *stream, void *buf, size_t len, struct pf_err *err)
{
	struct pf_stream *s = stream;
	la_ssize_t n = archive_read_data(s->a, buf, len);

	if (n < 0)
		return archive_error(s, err);
	s->out_bytes += n;
	if (s->out_bytes > s->max)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"the archive is larger than the limit of %lld bytes", (long long)s->max);
	if (EVP_DigestUpdate(s->out, buf, (size_t)n) != 1)
		return pf_fail(err, ENOMEM, "SHA-256");
	return n;
}

int pf_stream_finish(
	struct pf_stream *s, char *digest, char *diff_id, int64_t *archive_bytes, struct pf_err *err)
{
	unsigned char md[EVP_MAX_MD_SIZE];
	ssize_t n;

	do
		n = read_in(s);
	while (n > 0);
	if (n < 0)
		return archive_error(s, err);
	if (EVP_DigestFinal_ex(s->in, md, NULL) != 1)
		return pf_fail(err, ENOMEM, "SHA-256");
	hash_text(md, digest);
	if (EVP_DigestFinal_ex(s->out, md, NULL) != 1)
		return pf_fail(err, ENOMEM, "SHA-256");
	hash_text(md, diff_id);
	*archive_bytes = s->in_bytes;
	return 0;
}

void pf_stream_free(struct pf_stream *s)
{
	if (!s)
		return;
	archive_read_free(s->a);
	EVP_MD_CTX_free(s->in);
	EVP_MD_CTX_free(s->out);
	free(s->buf);
	free(s);
}
