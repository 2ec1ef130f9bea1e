/* Theory of operation.
 *
 * Every sandbox has an authority of its own, made when it starts and known to nobody else: its key is in this
 * process alone, in OpenSSL's locked heap, and goes with it. It may only sign for servers, only below itself,
 * and where the names are known only for these, so that it is worth nothing elsewhere.
 *
 * Certificates are made when a name is first connected to, all on one key, and kept by name. */
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cmd/pinfold-tls/tls.h"

#define BACKDATE_S 3600 /* a sandbox's clock is the host's, its programs' idea of time zones is not */
#define LEAF_S (int64_t)86400
#define CACHE 256

static struct {
	EVP_PKEY *key, *leaf_key;
	X509 *cert;
	int64_t not_after;
} ca;

static struct leaf {
	char *name;
	X509 *cert;
	int64_t renew;
} leaves[CACHE];

static int broken(struct pf_err *err, const char *what)
{
	char text[200];

	ERR_error_string_n(ERR_get_error(), text, sizeof(text));
	return pf_fail_kind(err, PF_ERR_SYSTEM, 0, "%s: %s", what, text);
}

static bool add_ext(X509 *x, int nid, const char *value)
{
	X509V3_CTX ctx;

	X509V3_set_ctx(&ctx, ca.cert ? ca.cert : x, x, NULL, NULL, 0);
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	bool ok = e && X509_add_ext(x, e, -1) == 1;
	X509_EXTENSION_free(e);
	return ok;
}

static X509 *new_cert(const char *cn, EVP_PKEY *key, int64_t from, int64_t to)
{
	X509 *x = X509_new();
	X509_NAME *subject = x ? X509_get_subject_name(x) : NULL;
	BIGNUM *serial = BN_new();
	bool ok = subject && serial && X509_set_version(x, X509_VERSION_3) &&
		  BN_rand(serial, 126, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) &&
		  BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(x)) &&
		  ASN1_TIME_set(X509_getm_notBefore(x), from) && ASN1_TIME_set(X509_getm_notAfter(x), to) &&
		  X509_NAME_add_entry_by_txt(
			  subject, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0) &&
		  X509_set_pubkey(x, key) &&
		  X509_set_issuer_name(x, ca.cert ? X509_get_subject_name(ca.cert) : subject);
	BN_free(serial);
	if (ok)
		return x;
	X509_free(x);
	return NULL;
}

static char *to_pem(X509 *x)
{
	BIO *b = BIO_new(BIO_s_mem());
	char *data, *pem = NULL;

	if (b && PEM_write_bio_X509(b, x) == 1) {
		long n = BIO_get_mem_data(b, &data);
		pem = strndup(data, (size_t)n);
	}
	BIO_free(b);
	return pem;
}

static int make(char *const *names, int64_t lifetime_s, struct pf_err *err)
{
	int64_t now = time(NULL);
	char cn[64];
	unsigned id;

	if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return pf_fail(err, 0, "getrandom");
	snprintf(cn, sizeof(cn), "Pinfold sandbox %08x", id);
	ca.key = EVP_EC_gen("P-256");
	ca.not_after = now + lifetime_s;
	X509 *x = ca.key ? new_cert(cn, ca.key, now - BACKDATE_S, ca.not_after) : NULL;
	if (!x)
		return broken(err, "make the sandbox's authority");
	PF_BUF struct pf_buf constraint = {0};
	/* No certificate of ours is for an address. */
	pf_buf_str(&constraint, "critical,excluded;IP:0.0.0.0/0.0.0.0,excluded;IP:::/::");
	for (; names && *names; names++)
		pf_buf_printf(&constraint, ",permitted;DNS:%s", *names);
	if (!add_ext(x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
		!add_ext(x, NID_key_usage, "critical,keyCertSign") ||
		!add_ext(x, NID_ext_key_usage, "serverAuth") ||
		!add_ext(x, NID_subject_key_identifier, "hash") ||
		!add_ext(x, NID_name_constraints, constraint.data) || !X509_sign(x, ca.key, EVP_sha256())) {
		X509_free(x);
		return broken(err, "make the sandbox's authority");
	}
	ca.cert = x;
	return vault_put_authority(ca.key, ca.cert, ca.not_after, err);
}

int tls_ca_make(char *const *names, int64_t lifetime_s, char **pem, struct pf_err *err)
{
	ca.leaf_key = EVP_EC_gen("P-256");
	if (!ca.leaf_key)
		return broken(err, "make a key");
	if (vault_authority(&ca.key, &ca.cert, &ca.not_after, err) < 0 ||
		(!ca.key && make(names, lifetime_s, err) < 0))
		return -1;
	*pem = to_pem(ca.cert);
	return *pem ? 0 : broken(err, "write the sandbox's authority");
}

static X509 *make_leaf(const char *name, int64_t now)
{
	int64_t to = now + LEAF_S < ca.not_after ? now + LEAF_S : ca.not_after;
	/* A common name has at most 64 bytes, and nobody reads it. */
	X509 *x = new_cert("Pinfold", ca.leaf_key, now - BACKDATE_S, to);
	PF_FREE char *san = pf_asprintf("DNS:%s", name);

	if (x && add_ext(x, NID_basic_constraints, "critical,CA:FALSE") &&
		add_ext(x, NID_key_usage, "critical,digitalSignature") &&
		add_ext(x, NID_ext_key_usage, "serverAuth") && add_ext(x, NID_subject_alt_name, san) &&
		add_ext(x, NID_authority_key_identifier, "keyid") && X509_sign(x, ca.key, EVP_sha256()))
		return x;
	X509_free(x);
	return NULL;
}

int tls_ca_leaf(SSL *ssl, const char *name)
{
	int64_t now = time(NULL);
	uint32_t h = 2166136261U;

	for (const char *s = name; *s; s++)
		h = (h ^ (uint8_t)*s) * 16777619U;
	struct leaf *l = &leaves[(h ^ h >> 15) % CACHE];
	if (!l->name || strcmp(l->name, name) != 0 || now >= l->renew) {
		X509 *x = make_leaf(name, now);
		if (!x)
			return -1;
		free(l->name);
		X509_free(l->cert);
		*l = (struct leaf){.name = pf_strdup(name), .cert = x, .renew = now + LEAF_S / 2};
	}
	return SSL_use_certificate(ssl, l->cert) == 1 && SSL_use_PrivateKey(ssl, ca.leaf_key) == 1 ? 0 : -1;
}
