/* What outlives this process: the authority's key and the credentials' secrets, in memory that the kernel
 * gives to nobody but who maps it (session/tlsproc.c). One that has none of it yet is all zeroes. */
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/pinfold-tls/tls.h"
#include "netpolicy/tlslink.h"

#define VAULT 4
#define SECRET_MAX 16384

struct authority {
	int64_t not_after; /* 0: there is none */
	uint8_t private[32], public[65];
	uint32_t cert_len;
	uint8_t cert[PF_TLSLINK_VAULT_CA - 128];
};

struct kept_secret {
	uint32_t len; /* 0: none */
	char secret[SECRET_MAX];
};

_Static_assert(sizeof(struct authority) <= PF_TLSLINK_VAULT_CA, "the authority has its place");
_Static_assert(sizeof(struct kept_secret) <= PF_TLSLINK_VAULT_SECRET, "a secret has its place");

static uint8_t *vault;
static size_t n_places;

int vault_open(struct pf_err *err)
{
	struct stat st;

	if (fstat(VAULT, &st) < 0)
		return errno == EBADF ? 0 : pf_fail(err, errno, "vault");
	if ((size_t)st.st_size < PF_TLSLINK_VAULT_CA)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "vault: too small");
	void *p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, VAULT, 0);
	if (p == MAP_FAILED)
		return pf_fail(err, errno, "vault: map it");
	vault = p;
	n_places = ((size_t)st.st_size - PF_TLSLINK_VAULT_CA) / PF_TLSLINK_VAULT_SECRET;
	close(VAULT);
	return 0;
}

bool vault_is_there(void)
{
	return vault;
}

void vault_put_secret(size_t i, const char *secret, size_t len)
{
	if (!vault || i >= n_places || len > SECRET_MAX)
		return;
	struct kept_secret *k = (void *)(vault + PF_TLSLINK_VAULT_CA + i * PF_TLSLINK_VAULT_SECRET);
	OPENSSL_cleanse(k, sizeof(*k));
	memcpy(k->secret, secret, len);
	k->len = (uint32_t)len;
}

const char *vault_secret(size_t i, size_t *len)
{
	if (!vault || i >= n_places)
		return NULL;
	const struct kept_secret *k =
		(const void *)(vault + PF_TLSLINK_VAULT_CA + i * PF_TLSLINK_VAULT_SECRET);
	if (k->len == 0 || k->len > SECRET_MAX)
		return NULL;
	*len = k->len;
	return k->secret;
}

int vault_put_authority(EVP_PKEY *key, X509 *cert, int64_t not_after, struct pf_err *err)
{
	struct authority *a = (void *)vault;
	BIGNUM *private = BN_secure_new();
	int len = i2d_X509(cert, NULL);
	size_t public;

	if (!vault) {
		BN_free(private);
		return 0;
	}
	uint8_t *at = a->cert;
	bool ok = private && len > 0 && (size_t)len <= sizeof(a->cert) && i2d_X509(cert, &at) == len &&
		  EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &private) == 1 &&
		  BN_bn2binpad(private, a->private, sizeof(a->private)) == sizeof(a->private) &&
		  EVP_PKEY_get_octet_string_param(
			  key, OSSL_PKEY_PARAM_PUB_KEY, a->public, sizeof(a->public), &public) == 1 &&
		  public == sizeof(a->public);
	BN_clear_free(private);
	if (!ok)
		return pf_fail_kind(err, PF_ERR_SYSTEM, 0, "vault: the authority cannot be kept");
	a->cert_len = (uint32_t)len;
	a->not_after = not_after;
	return 0;
}

static EVP_PKEY *key_of(const struct authority *a)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
	BIGNUM *private = BN_secure_new();
	OSSL_PARAM *params = NULL;
	EVP_PKEY *key = NULL;

	if (ctx && b && private && BN_bin2bn(a->private, sizeof(a->private), private) &&
		OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1 &&
		OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, a->public, sizeof(a->public)) ==
			1 &&
		OSSL_PARAM_BLD_push_BN_pad(b, OSSL_PKEY_PARAM_PRIV_KEY, private, sizeof(a->private)) == 1 &&
		(params = OSSL_PARAM_BLD_to_param(b)) && EVP_PKEY_fromdata_init(ctx) == 1)
		(void)EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params);
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(b);
	BN_clear_free(private);
	EVP_PKEY_CTX_free(ctx);
	return key;
}

int vault_authority(EVP_PKEY **key, X509 **cert, int64_t *not_after, struct pf_err *err)
{
	const struct authority *a = (const void *)vault;

	*key = NULL;
	if (!vault || a->not_after == 0)
		return 0;
	const uint8_t *at = a->cert;
	*cert = a->cert_len <= sizeof(a->cert) ? d2i_X509(NULL, &at, (long)a->cert_len) : NULL;
	*key = *cert ? key_of(a) : NULL;
	*not_after = a->not_after;
	if (*key)
		return 0;
	X509_free(*cert);
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "vault: the authority in it cannot be read");
}
