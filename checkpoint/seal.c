/* Theory of operation.
 *
 * A sealed object is its head (seal_int.h) and segments: 65536 bytes of plaintext each, encrypted, with their
 * tag; the last is shorter, be it empty, and its nonce says so. So segments cannot be dropped, repeated, put
 * in another order or into another object, and an object that was cut off is seen to be.
 *
 * The sealed domain of a store has one more secret, seal.key: 32 bytes under which chunk ids are made
 * (HMAC-SHA-256), so that an id tells nobody whether the store holds a file that he knows, and 32 bytes for
 * the chunker's table, so that the lengths of chunks do not either. It stays the same when keys are rotated:
 * ids are in everything. */
#include "checkpoint/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "checkpoint/seal_int.h"

#define STORE_KEY "seal.key"
#define STORE_SECRETS 64
#define STREAM_PIECE (PF_SEAL_SEGMENT + PF_SEAL_TAG)

int pf_seal_no_key(const char *what, struct pf_err *err)
{
	return pf_fail_kind(err, PF_ERR_INVALID, 0,
		"%s is sealed and no key was given: --key file:PATH, fd:N, cmd:COMMAND or keyring:NAME",
		what);
}

static void wipe_key(struct pf_seal_key *k)
{
	OPENSSL_cleanse(k, sizeof(*k));
}
#define SEAL_KEY __attribute__((cleanup(wipe_key))) struct pf_seal_key

/* ---- documents ---------------------------------------------------------------------------------------- */

int pf_seal_doc(const struct pf_seal *s, const char *kind, const char *name, const void *data, size_t len,
	uint8_t **out, size_t *out_len, struct pf_err *err)
{
	size_t segments = len / PF_SEAL_SEGMENT + 1, total;
	PF_FREE uint8_t *buf = NULL;
	const uint8_t *in = data;
	SEAL_KEY k;

	if (__builtin_add_overflow(len, PF_SEAL_HEAD + segments * PF_SEAL_TAG, &total) ||
		!(buf = malloc(total)))
		return pf_fail(err, ENOMEM, "sealing %s %s", kind, name);
	if (pf_seal_key_make(&s->kek, kind, name, &k, buf, err) < 0)
		return pf_wrap(err, "sealing %s %s", kind, name);
	for (size_t i = 0; i < segments; i++) {
		bool last = i + 1 == segments;
		size_t n = last ? len % PF_SEAL_SEGMENT : PF_SEAL_SEGMENT;
		if (pf_aead_seal(&k, last ? PF_SEAL_USE_LAST : PF_SEAL_USE_SEGMENT, i, NULL, 0,
			    n ? in + i * PF_SEAL_SEGMENT : NULL, n, buf + PF_SEAL_HEAD + i * STREAM_PIECE,
			    err) < 0)
			return pf_wrap(err, "sealing %s %s", kind, name);
	}
	*out = pf_take(buf);
	*out_len = total;
	return 0;
}

int pf_unseal_doc(const struct pf_seal *s, const char *kind, const char *name, const void *data, size_t len,
	uint8_t **out, size_t *out_len, struct pf_err *err)
{
	const uint8_t *in = data;
	PF_FREE uint8_t *buf = NULL;
	size_t body, segments, tail;
	SEAL_KEY k;

	if (len < PF_SEAL_HEAD + PF_SEAL_TAG)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "sealed %s %s is cut off", kind, name);
	body = len - PF_SEAL_HEAD;
	segments = body / STREAM_PIECE + 1;
	tail = body % STREAM_PIECE;
	if (tail < PF_SEAL_TAG)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "sealed %s %s is cut off", kind, name);
	if (pf_seal_key_open(&s->kek, kind, name, in, &k, err) < 0)
		return pf_wrap(err, "%s %s", kind, name);
	*out_len = body - segments * PF_SEAL_TAG;
	buf = malloc(*out_len + 1);
	if (!buf)
		return pf_fail(err, ENOMEM, "opening %s %s", kind, name);
	for (size_t i = 0; i < segments; i++) {
		bool last = i + 1 == segments;
		if (pf_aead_open(&k, last ? PF_SEAL_USE_LAST : PF_SEAL_USE_SEGMENT, i, NULL, 0,
			    in + PF_SEAL_HEAD + i * STREAM_PIECE, last ? tail : STREAM_PIECE,
			    buf + i * PF_SEAL_SEGMENT, err) < 0) {
			OPENSSL_cleanse(buf, i * PF_SEAL_SEGMENT);
			return pf_wrap(err, "%s %s", kind, name);
		}
	}
	buf[*out_len] = '\0';
	*out = pf_take(buf);
	return 0;
}

/* ---- streams ------------------------------------------------------------------------------------------ */

int pf_seal_fd(
	const struct pf_seal *s, const char *kind, const char *name, int infd, int outfd, struct pf_err *err)
{
	PF_FREE uint8_t *in = malloc(PF_SEAL_SEGMENT + STREAM_PIECE);
	uint8_t *out;
	uint8_t head[PF_SEAL_HEAD];
	SEAL_KEY k;

	if (!in)
		return pf_fail(err, ENOMEM, "sealing %s %s", kind, name);
	out = in + PF_SEAL_SEGMENT;
	if (pf_seal_key_make(&s->kek, kind, name, &k, head, err) < 0)
		return pf_wrap(err, "sealing %s %s", kind, name);
	if (pf_write_all(outfd, head, sizeof(head)) < 0)
		return pf_fail(err, errno, "writing sealed %s %s", kind, name);
	for (uint64_t i = 0;; i++) {
		ssize_t n = pf_read_full(infd, in, PF_SEAL_SEGMENT);
		bool last = n < PF_SEAL_SEGMENT;
		if (n < 0)
			return pf_fail(err, errno, "sealing %s %s", kind, name);
		if (pf_aead_seal(&k, last ? PF_SEAL_USE_LAST : PF_SEAL_USE_SEGMENT, i, NULL, 0, in, (size_t)n,
			    out, err) < 0)
			return pf_wrap(err, "sealing %s %s", kind, name);
		if (pf_write_all(outfd, out, (size_t)n + PF_SEAL_TAG) < 0)
			return pf_fail(err, errno, "writing sealed %s %s", kind, name);
		if (last)
			return 0;
	}
}

int pf_unseal_fd(
	const struct pf_seal *s, const char *kind, const char *name, int infd, int outfd, struct pf_err *err)
{
	PF_FREE uint8_t *in = malloc(STREAM_PIECE + PF_SEAL_SEGMENT);
	uint8_t *out;
	uint8_t head[PF_SEAL_HEAD];
	ssize_t n = pf_read_full(infd, head, sizeof(head));
	SEAL_KEY k;

	if (!in)
		return pf_fail(err, ENOMEM, "opening %s %s", kind, name);
	out = in + STREAM_PIECE;
	if (n < 0)
		return pf_fail(err, errno, "reading sealed %s %s", kind, name);
	if (n < PF_SEAL_HEAD)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "sealed %s %s is cut off", kind, name);
	if (pf_seal_key_open(&s->kek, kind, name, head, &k, err) < 0)
		return pf_wrap(err, "%s %s", kind, name);
	for (uint64_t i = 0;; i++) {
		n = pf_read_full(infd, in, STREAM_PIECE);
		bool last = n < STREAM_PIECE;
		if (n < 0)
			return pf_fail(err, errno, "reading sealed %s %s", kind, name);
		if (n < PF_SEAL_TAG)
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "sealed %s %s is cut off", kind, name);
		if (pf_aead_open(&k, last ? PF_SEAL_USE_LAST : PF_SEAL_USE_SEGMENT, i, NULL, 0, in, (size_t)n,
			    out, err) < 0)
			return pf_wrap(err, "%s %s", kind, name);
		if (pf_write_all(outfd, out, (size_t)n - PF_SEAL_TAG) < 0)
			return pf_fail(err, errno, "writing what was sealed as %s %s", kind, name);
		if (last)
			return 0;
	}
}

/* ---- stores ------------------------------------------------------------------------------------------- */

bool pf_seal_exists(int storefd)
{
	return faccessat(storefd, STORE_KEY, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

void pf_seal_free(struct pf_seal *s)
{
	pf_secret_free(s, sizeof(*s));
}

int pf_seal_for_key(const struct pf_kek *kek, struct pf_seal **out, struct pf_err *err)
{
	struct pf_seal *s = pf_secret_alloc(sizeof(*s), err);

	if (!s)
		return -1;
	s->kek = *kek;
	*out = s;
	return 0;
}

static int make_store_key(int storefd, const struct pf_seal *s, struct pf_err *err)
{
	uint8_t secrets[STORE_SECRETS];
	PF_FREE uint8_t *sealed = NULL;
	size_t len = 0;
	int r;

	if (RAND_priv_bytes(secrets, sizeof(secrets)) != 1)
		return pf_fail(err, 0, "libcrypto: no random numbers");
	r = pf_seal_doc(s, "store", "", secrets, sizeof(secrets), &sealed, &len, err);
	OPENSSL_cleanse(secrets, sizeof(secrets));
	return r < 0 ? -1 : pf_replace_file_at(storefd, STORE_KEY, sealed, len, 0600, true, err);
}

static int read_store_key(int storefd, struct pf_seal *s, struct pf_err *err)
{
	PF_FREE char *sealed = NULL;
	PF_FREE uint8_t *secrets = NULL;
	size_t len = 0, n = 0;
	int r;

	if (pf_read_file_at(storefd, STORE_KEY, 4096, &sealed, &len, err) < 0)
		return -1;
	if (pf_unseal_doc(s, "store", "", sealed, len, &secrets, &n, err) < 0)
		return pf_wrap(err, STORE_KEY);
	if (n == STORE_SECRETS) {
		memcpy(s->id_key, secrets, 32);
		r = pf_chunker_init(&s->chunker, &pf_chunk_default, secrets + 32, err);
	} else {
		r = pf_fail_kind(
			err, PF_ERR_CORRUPT, 0, STORE_KEY " holds %zu bytes instead of %d", n, STORE_SECRETS);
	}
	OPENSSL_cleanse(secrets, n);
	s->has_store = r == 0;
	return r;
}

int pf_seal_open(int storefd, const struct pf_kek *kek, bool create, struct pf_seal **out, struct pf_err *err)
{
	PF_SEAL struct pf_seal *s = NULL;

	if (pf_seal_for_key(kek, &s, err) < 0)
		return -1;
	if (!pf_seal_exists(storefd)) {
		if (errno != ENOENT)
			return pf_fail(err, errno, STORE_KEY);
		if (!create)
			return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "nothing in this store is sealed");
		if (make_store_key(storefd, s, err) < 0)
			return -1;
	}
	if (read_store_key(storefd, s, err) < 0)
		return -1;
	*out = pf_take(s);
	return 0;
}
