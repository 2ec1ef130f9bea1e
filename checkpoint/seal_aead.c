/* Theory of operation.
 *
 * AES-256-GCM must never see a nonce twice under one key. Data keys are random and belong to one object that
 * is written once, so its nonces are counters: use (1 byte), 3 zeros, number (8 bytes, big-endian). The
 * wrapping key lives long and wraps few things; its nonces are random (2^32 wrappings stay below a chance of
 * 2^-32).
 *
 * Everything is tied to its place: kind and name of the object are authenticated with each piece, the number
 * of the piece is its nonce, and whoever needs more (a chunk its length) hands it over as extra. */
#include "checkpoint/seal_int.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>

static const uint8_t magic[PF_SEAL_MAGIC_LEN] = {'P', 'F', 'S', 'E', 'A', 'L', '1', '\n'};

bool pf_is_sealed(const void *data, size_t len)
{
	return len >= sizeof(magic) && memcmp(data, magic, sizeof(magic)) == 0;
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void ctx_cleanup(EVP_CIPHER_CTX **c)
{
	EVP_CIPHER_CTX_free(*c);
}
#define CIPHER_CTX __attribute__((cleanup(ctx_cleanup))) EVP_CIPHER_CTX

struct piece {
	const void *data;
	size_t len;
};

static bool add_ad(EVP_CIPHER_CTX *c, const struct piece ad[2])
{
	int n;

	for (int i = 0; i < 2; i++)
		if (ad[i].len && EVP_CipherUpdate(c, NULL, &n, ad[i].data, (int)ad[i].len) != 1)
			return false;
	return true;
}

static bool gcm_seal(const uint8_t key[32], const uint8_t nonce[PF_SEAL_NONCE], const struct piece ad[2],
	const void *in, size_t len, uint8_t *out)
{
	CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n = 0;

	return c && EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce) == 1 && add_ad(c, ad) &&
	       (len == 0 || EVP_EncryptUpdate(c, out, &n, in, (int)len) == 1) &&
	       EVP_EncryptFinal_ex(c, out + len, &n) == 1 &&
	       EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, PF_SEAL_TAG, out + len) == 1;
}

static bool gcm_open(const uint8_t key[32], const uint8_t nonce[PF_SEAL_NONCE], const struct piece ad[2],
	const uint8_t *in, size_t len, uint8_t *out)
{
	CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	uint8_t tag[PF_SEAL_TAG];
	size_t plain = len - PF_SEAL_TAG;
	int n = 0;

	memcpy(tag, in + plain, sizeof(tag));
	if (c && EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce) == 1 && add_ad(c, ad) &&
		(plain == 0 || EVP_DecryptUpdate(c, out, &n, in, (int)plain) == 1) &&
		EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, PF_SEAL_TAG, tag) == 1 &&
		EVP_DecryptFinal_ex(c, tag, &n) == 1)
		return true;
	OPENSSL_cleanse(out, plain);
	return false;
}

static void nonce_of(enum pf_seal_use use, uint64_t number, uint8_t nonce[PF_SEAL_NONCE])
{
	memset(nonce, 0, PF_SEAL_NONCE);
	nonce[0] = (uint8_t)use;
	for (int i = 0; i < 8; i++)
		nonce[4 + i] = (uint8_t)(number >> (56 - 8 * i));
}

int pf_aead_seal(const struct pf_seal_key *k, enum pf_seal_use use, uint64_t number, const void *extra,
	size_t extra_len, const void *in, size_t len, uint8_t *out, struct pf_err *err)
{
	const struct piece ad[2] = {{k->ad, k->ad_len}, {extra, extra_len}};
	uint8_t nonce[PF_SEAL_NONCE];

	nonce_of(use, number, nonce);
	if (len > INT32_MAX - PF_SEAL_TAG || !gcm_seal(k->key, nonce, ad, in, len, out))
		return pf_fail(err, 0, "libcrypto: AES-256-GCM failed");
	return 0;
}

int pf_aead_open(const struct pf_seal_key *k, enum pf_seal_use use, uint64_t number, const void *extra,
	size_t extra_len, const uint8_t *in, size_t len, void *out, struct pf_err *err)
{
	const struct piece ad[2] = {{k->ad, k->ad_len}, {extra, extra_len}};
	uint8_t nonce[PF_SEAL_NONCE];

	nonce_of(use, number, nonce);
	if (len < PF_SEAL_TAG || len > INT32_MAX || !gcm_open(k->key, nonce, ad, in, len, out))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "sealed data is not as it was written");
	return 0;
}

/* ---- heads -------------------------------------------------------------------------------------------- */

static uint8_t *slot_of(uint8_t head[PF_SEAL_HEAD], unsigned i)
{
	return head + 16 + (size_t)i * PF_SEAL_SLOT;
}

static int set_ad(struct pf_seal_key *k, const char *kind, const char *name, struct pf_err *err)
{
	size_t a = strlen(kind) + 1, b = strlen(name) + 1;

	if (a > PF_SEAL_WORD_MAX + 1 || b > PF_SEAL_WORD_MAX + 1)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "sealed object: name of more than %d bytes",
			PF_SEAL_WORD_MAX);
	memcpy(k->ad, kind, a);
	memcpy(k->ad + a, name, b);
	k->ad_len = a + b;
	return 0;
}

static const char wrap_ad[] = "data key"; /* with its NUL */

static int wrap(const struct pf_kek *kek, const struct pf_seal_key *k, uint8_t *slot, struct pf_err *err)
{
	const struct piece ad[2] = {{wrap_ad, sizeof(wrap_ad)}, {k->ad, k->ad_len}};
	uint8_t *nonce = slot + PF_KEK_ID_LEN;

	memcpy(slot, kek->id, PF_KEK_ID_LEN);
	if (RAND_bytes(nonce, PF_SEAL_NONCE) != 1 ||
		!gcm_seal(kek->wrap, nonce, ad, k->key, 32, nonce + PF_SEAL_NONCE))
		return pf_fail(err, 0, "libcrypto: cannot wrap a key");
	return 0;
}

static int unwrap(const struct pf_kek *kek, const uint8_t *slot, struct pf_seal_key *k, struct pf_err *err)
{
	const struct piece ad[2] = {{wrap_ad, sizeof(wrap_ad)}, {k->ad, k->ad_len}};
	const uint8_t *nonce = slot + PF_KEK_ID_LEN;

	if (!gcm_open(kek->wrap, nonce, ad, nonce + PF_SEAL_NONCE, 32 + PF_SEAL_TAG, k->key))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "its sealed key is damaged, or another object's");
	return 0;
}

/* The number of slots in use, -1 for a head that is none. */
static int check_head(const uint8_t head[PF_SEAL_HEAD], struct pf_err *err)
{
	static const uint8_t zeros[PF_SEAL_SLOT];
	uint32_t n = get32(head + 8);

	if (!pf_is_sealed(head, PF_SEAL_HEAD) || n < 1 || n > PF_SEAL_SLOTS ||
		get32(head + 12) != PF_SEAL_SEGMENT ||
		(n == 1 && memcmp(head + 16 + PF_SEAL_SLOT, zeros, PF_SEAL_SLOT) != 0))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "its sealed head is damaged");
	return (int)n;
}

/* The slot of a key-encryption key, -1 if it has none. */
static int find_slot(const uint8_t head[PF_SEAL_HEAD], int n, const struct pf_kek *kek)
{
	for (int i = 0; i < n; i++)
		if (memcmp(head + 16 + (size_t)i * PF_SEAL_SLOT, kek->id, PF_KEK_ID_LEN) == 0)
			return i;
	return -1;
}

static int wrong_key(const uint8_t head[PF_SEAL_HEAD], const struct pf_kek *kek, struct pf_err *err)
{
	const uint8_t *id = head + 16;

	return pf_fail_kind(err, PF_ERR_INVALID, 0,
		"sealed with key %02x%02x%02x%02x%02x%02x%02x%02x; the one that was given is %s", id[0],
		id[1], id[2], id[3], id[4], id[5], id[6], id[7], kek->name);
}

int pf_seal_key_make(const struct pf_kek *kek, const char *kind, const char *name, struct pf_seal_key *k,
	uint8_t head[PF_SEAL_HEAD], struct pf_err *err)
{
	if (set_ad(k, kind, name, err) < 0)
		return -1;
	if (RAND_priv_bytes(k->key, 32) != 1)
		return pf_fail(err, 0, "libcrypto: no random numbers");
	memset(head, 0, PF_SEAL_HEAD);
	memcpy(head, magic, sizeof(magic));
	put32(head + 8, 1);
	put32(head + 12, PF_SEAL_SEGMENT);
	return wrap(kek, k, slot_of(head, 0), err);
}

int pf_seal_key_open(const struct pf_kek *kek, const char *kind, const char *name,
	const uint8_t head[PF_SEAL_HEAD], struct pf_seal_key *k, struct pf_err *err)
{
	int n = check_head(head, err), slot;

	if (n < 0 || set_ad(k, kind, name, err) < 0)
		return -1;
	if ((slot = find_slot(head, n, kek)) < 0)
		return wrong_key(head, kek, err);
	return unwrap(kek, head + 16 + (size_t)slot * PF_SEAL_SLOT, k, err);
}

int pf_seal_head_add(const struct pf_kek *old, const struct pf_kek *new_kek, const char *kind,
	const char *name, uint8_t head[PF_SEAL_HEAD], bool *changed, struct pf_err *err)
{
	struct pf_seal_key k;
	int n = check_head(head, err), from, r = -1;

	*changed = false;
	if (n < 0)
		return -1;
	if (find_slot(head, n, new_kek) >= 0)
		return pf_seal_key_open(new_kek, kind, name, head, &k, err) < 0
			       ? -1
			       : (OPENSSL_cleanse(&k, sizeof(k)), 0);
	if ((from = find_slot(head, n, old)) < 0)
		return wrong_key(head, old, err);
	if (set_ad(&k, kind, name, err) == 0 && unwrap(old, slot_of(head, (unsigned)from), &k, err) == 0 &&
		wrap(new_kek, &k, slot_of(head, from == 0 ? 1 : 0), err) == 0) {
		put32(head + 8, 2);
		*changed = true;
		r = 0;
	}
	OPENSSL_cleanse(&k, sizeof(k));
	return r;
}

int pf_seal_head_keep(const struct pf_kek *new_kek, const char *kind, const char *name,
	uint8_t head[PF_SEAL_HEAD], bool *changed, struct pf_err *err)
{
	struct pf_seal_key k;
	int n = check_head(head, err), slot;

	*changed = false;
	if (n < 0 || pf_seal_key_open(new_kek, kind, name, head, &k, err) < 0)
		return -1;
	OPENSSL_cleanse(&k, sizeof(k));
	if (n == 1)
		return 0;
	slot = find_slot(head, n, new_kek);
	if (slot != 0)
		memcpy(slot_of(head, 0), slot_of(head, (unsigned)slot), PF_SEAL_SLOT);
	memset(slot_of(head, 1), 0, PF_SEAL_SLOT);
	put32(head + 8, 1);
	*changed = true;
	return 0;
}
