#include "checkpoint/heavy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "checkpoint/packs.h"
#include "checkpoint/seal.h"
#include "checkpoint/sealing.h"

/* Of the process: what it was told, and the key once it was fetched (a descriptor can be read once). */
static const char *given_key;
static int given_seal_new = -1;
static struct pf_kek *the_key;
static bool key_failed;
static struct pf_err key_why;

__attribute__((destructor)) static void forget_key(void)
{
	pf_kek_free(the_key);
	the_key = NULL;
}

void pf_ckpt_use_key(const char *spec, int seal_new)
{
	given_key = spec;
	given_seal_new = seal_new;
}

const struct pf_kek *pf_ckpt_key(int storefd, struct pf_err *err)
{
	PF_SEALING struct pf_sealing s = {0};

	if (the_key)
		return the_key;
	if (key_failed) {
		*err = key_why;
		return NULL;
	}
	if (!given_key && pf_sealing_read(storefd, &s, err) < 0)
		return NULL;
	if (!given_key && !s.key)
		pf_seal_no_key("the checkpoint", err);
	else if (pf_kek_load(given_key ? given_key : s.key, &the_key, err) < 0) {
		the_key = NULL;
		key_failed = true;
		key_why = *err;
	}
	return the_key;
}

void pf_ckpt_fetch_key(const char *store)
{
	struct pf_err later = PF_ERR_INIT;
	PF_CLOSE int storefd = given_key ? -1 : pf_ckpt_store_open(store, false, &later);

	if (given_key || storefd >= 0)
		(void)pf_ckpt_key(storefd, &later);
}

int pf_ckpt_heavy_open_manifest(int storefd, const struct pf_digest *digest, const char *sealed,
	size_t sealed_len, char **text, size_t *len, struct pf_err *err)
{
	const struct pf_kek *kek = pf_ckpt_key(storefd, err);
	PF_SEAL struct pf_seal *s = NULL;
	uint8_t *out = NULL;

	if (!kek || pf_seal_for_key(kek, &s, err) < 0 ||
		pf_unseal_doc(s, "manifest", pf_digest_hex(digest), sealed, sealed_len, &out, len, err) < 0)
		return -1;
	*text = (char *)out;
	return 0;
}

/* The sealed domain, as far as it is there and we are able to. A key that somebody gave must fit; that which
 * the store names may be out of reach while the plain domain is worked on. */
static int unseal(struct pf_ckpt_heavy *h, struct pf_err *err)
{
	PF_SEALING struct pf_sealing s = {0};
	struct pf_err why = PF_ERR_INIT;
	const struct pf_kek *kek;

	if (pf_sealing_read(h->storefd, &s, err) < 0)
		return -1;
	h->seal_new = s.by_default;
	if ((!given_key && !s.key) || !pf_seal_exists(h->storefd))
		return 0;
	kek = pf_ckpt_key(h->storefd, &why);
	if (kek && pf_ckpt_heavy_unseal(h, kek, false, &why) == 0)
		return 0;
	if (!given_key) {
		h->why_not = why;
		return 0;
	}
	*err = why;
	return -1;
}

int pf_ckpt_heavy_open(
	const char *store, bool create, bool exclusive, struct pf_ckpt_heavy *h, struct pf_err *err)
{
	*h = PF_CKPT_HEAVY_NONE;
	h->storefd = pf_ckpt_store_open(store, create, err);
	if (h->storefd >= 0)
		h->packs_lock = pf_packs_lock(h->storefd, exclusive, err);
	if (h->packs_lock >= 0 && pf_packs_open(h->storefd, NULL, &h->packs, err) == 0 && unseal(h, err) == 0)
		return 0;
	pf_ckpt_heavy_done(h);
	return -1;
}

int pf_ckpt_heavy_unseal(struct pf_ckpt_heavy *h, const struct pf_kek *kek, bool create, struct pf_err *err)
{
	PF_CLOSE int lock = create ? pf_ckpt_lock(h->storefd, err) : -1;

	if ((create && lock < 0) || pf_seal_open(h->storefd, kek, create, &h->seal, err) < 0)
		return -1;
	return pf_packs_open(h->storefd, h->seal, &h->sealed, err);
}

int pf_ckpt_heavy_choose(struct pf_ckpt_heavy *h, bool below_sealed, bool *sealed, struct pf_err *err)
{
	const struct pf_kek *kek;

	*sealed = given_seal_new >= 0 ? given_seal_new != 0 : h->seal_new || below_sealed;
	if (!*sealed || h->sealed)
		return 0;
	kek = pf_ckpt_key(h->storefd, err);
	return kek ? pf_ckpt_heavy_unseal(h, kek, true, err) : -1;
}

void pf_ckpt_heavy_done(struct pf_ckpt_heavy *h)
{
	pf_packs_free(h->packs);
	pf_packs_free(h->sealed);
	pf_seal_free(h->seal);
	if (h->packs_lock >= 0)
		close(h->packs_lock);
	if (h->storefd >= 0)
		close(h->storefd);
	*h = PF_CKPT_HEAVY_NONE;
}

static int no_key(const struct pf_ckpt_heavy *h, const char *what, struct pf_err *err)
{
	if (!h->why_not.msg[0])
		return pf_seal_no_key(what, err);
	*err = h->why_not;
	return pf_wrap(err, "%s is sealed", what);
}

struct pf_packs *pf_ckpt_heavy_packs(struct pf_ckpt_heavy *h, bool sealed, struct pf_err *err)
{
	if (sealed && !h->sealed)
		(void)no_key(h, "this checkpoint", err);
	return sealed ? h->sealed : h->packs;
}

int pf_ckpt_heavy_read(struct pf_ckpt_heavy *h, const char *kind, const char *name, const char *path,
	size_t max, char **text, size_t *len, bool *sealed, struct pf_err *err)
{
	uint8_t *opened;

	if (pf_read_file_at(h->storefd, path, max, text, len, err) < 0)
		return -1;
	*sealed = pf_is_sealed(*text, *len);
	if (!*sealed)
		return 0;
	PF_FREE char *raw = pf_take(*text);
	if (!h->seal)
		return no_key(h, path, err);
	if (pf_unseal_doc(h->seal, kind, name, raw, *len, &opened, len, err) < 0)
		return -1;
	*text = (char *)opened;
	return 0;
}

int pf_ckpt_heavy_write(struct pf_ckpt_heavy *h, const char *kind, const char *name, int dirfd,
	const char *file, const void *data, size_t len, bool sealed, bool durable, struct pf_err *err)
{
	PF_FREE uint8_t *closed = NULL;

	if (sealed) {
		if (!h->seal)
			return no_key(h, file, err);
		if (pf_seal_doc(h->seal, kind, name, data, len, &closed, &len, err) < 0)
			return -1;
		data = closed;
	}
	return pf_replace_file_at(dirfd, file, data, len, 0600, durable, err);
}

int pf_ckpt_heavy_load(struct pf_ckpt_heavy *h, const char *digest, const char *name, struct pf_ckpt *out,
	struct pf_err *err)
{
	char path[96];
	PF_FREE char *text = NULL;
	struct pf_digest d;
	size_t len;
	bool sealed;

	if (!pf_digest_ok(digest))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "'%.80s' is no sha256 digest", digest);
	memcpy(d.s, digest, sizeof(d.s));
	if (pf_ckpt_heavy_read(h, "manifest", pf_digest_hex(&d), pf_ckpt_manifest_path(&d, path),
		    PF_CKPT_MAX_DOC, &text, &len, &sealed, err) < 0) {
		pf_ckpt_unreadable(err);
		return pf_wrap(err, "checkpoint %.19s", digest);
	}
	return pf_ckpt_parse(h->storefd, &d, name, text, len, sealed, out, err);
}
