/* Theory of operation: webhooks.
 *
 * What is signed is "id.timestamp.body", with HMAC-SHA256; the header holds one signature or more, each
 * "v1,BASE64", because senders sign with the old key and the new one while they change it. Of other versions
 * than v1 we know nothing, so they do not count.
 *
 * The same message may come again, from the sender (which tries until it hears a 2xx) or from somebody who
 * has listened: within the tolerance its id is remembered, beyond it the time refuses it. */

#include "worker/webhook.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "base/units.h"

#define MAC_LEN 32
#define KEY_MIN 16
#define ID_MAX 256
#define KEYS_MAX 16

static int digit(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* len characters of base64, padding or none, into at most max bytes. -1: it is none, or more. */
static int decode(const char *s, size_t len, unsigned char *to, size_t max)
{
	unsigned bits = 0, have = 0;
	size_t n = 0;

	while (len && s[len - 1] == '=')
		len--;
	for (size_t i = 0; i < len; i++) {
		int d = digit(s[i]);
		if (d < 0)
			return -1;
		bits = bits << 6 | (unsigned)d;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		if (n == max)
			return -1;
		to[n++] = (unsigned char)(bits >> have);
		bits &= (1U << have) - 1;
	}
	return len % 4 == 1 || bits ? -1 : (int)n;
}

void pf_hook_keys_done(struct pf_hook_keys *keys)
{
	for (size_t i = 0; i < keys->n; i++) {
		explicit_bzero(keys->v[i].bytes, keys->v[i].len);
		free(keys->v[i].bytes);
	}
	free(keys->v);
	*keys = (struct pf_hook_keys){0};
}

static int add_key(struct pf_hook_keys *keys, const char *s, size_t len, struct pf_err *err)
{
	if (len > 6 && strncmp(s, "whsec_", 6) == 0) {
		s += 6;
		len -= 6;
	}
	unsigned char *bytes = pf_calloc(len + 1, 1);
	int n = decode(s, len, bytes, len);
	if (n < KEY_MIN || keys->n == KEYS_MAX) {
		explicit_bzero(bytes, len);
		free(bytes);
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			n < 0         ? "webhook key %zu is not base64 (whsec_…)"
			: n < KEY_MIN ? "webhook key %zu is shorter than 16 bytes"
				      : "there are more than %zu webhook keys",
			n < KEY_MIN ? keys->n + 1 : keys->n);
	}
	keys->v[keys->n++] = (struct pf_hook_key){bytes, (size_t)n};
	return 0;
}

int pf_hook_keys_parse(const char *text, struct pf_hook_keys *keys, struct pf_err *err)
{
	*keys = (struct pf_hook_keys){.v = pf_calloc(KEYS_MAX, sizeof(*keys->v))};
	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *s = line + strspn(line, " \t\r");
		while (*s != '#' && *s != '\n' && *s) {
			size_t len = strcspn(s, " \t\r\n");
			if (add_key(keys, s, len, err) < 0) {
				pf_hook_keys_done(keys);
				return -1;
			}
			s += len;
			s += strspn(s, " \t\r");
		}
	}
	if (keys->n)
		return 0;
	pf_hook_keys_done(keys);
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "there is no webhook key in it");
}

/* Whether one of the signatures is this MAC. Looks at all of them, whichever fits. */
static bool listed(const char *signatures, const unsigned char mac[MAC_LEN])
{
	unsigned char got[MAC_LEN];
	bool fits = false;

	for (const char *s = signatures; *s;) {
		s += strspn(s, " ");
		size_t len = strcspn(s, " ");
		if (len > 3 && strncmp(s, "v1,", 3) == 0 && decode(s + 3, len - 3, got, MAC_LEN) == MAC_LEN)
			fits |= CRYPTO_memcmp(got, mac, MAC_LEN) == 0;
		s += len;
	}
	return fits;
}

enum pf_hook_verdict pf_hook_verify(const struct pf_hook_keys *keys, const char *id, const char *timestamp,
	const char *signatures, const void *body, size_t len, int64_t now_s)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_BUF struct pf_buf text = {0};
	int64_t at = 0;
	bool genuine = false;

	if (!id || !*id || strlen(id) > ID_MAX || !timestamp || !signatures ||
		pf_parse_int("webhook-timestamp", timestamp, 0, (int64_t)1 << 50, &at, &ignored) < 0)
		return PF_HOOK_MALFORMED;
	pf_buf_printf(&text, "%s.%s.", id, timestamp);
	pf_buf_add(&text, body, len);
	for (size_t i = 0; i < keys->n; i++) {
		unsigned char mac[EVP_MAX_MD_SIZE];
		unsigned n = 0;
		if (HMAC(EVP_sha256(), keys->v[i].bytes, (int)keys->v[i].len,
			    (const unsigned char *)text.data, text.len, mac, &n) &&
			n == MAC_LEN)
			genuine |= listed(signatures, mac);
	}
	if (!genuine)
		return PF_HOOK_FORGED;
	return at < now_s - PF_HOOK_TOLERANCE_S || at > now_s + PF_HOOK_TOLERANCE_S ? PF_HOOK_STALE
										    : PF_HOOK_GENUINE;
}

bool pf_hook_seen(struct pf_hook_seen *seen, const char *id, int64_t now_s)
{
	unsigned char md[EVP_MAX_MD_SIZE] = {0};
	uint64_t hash[2];

	EVP_Digest(id, strlen(id), md, NULL, EVP_sha256(), NULL);
	memcpy(hash, md, sizeof(hash));
	/* A message may be sent from one end of the tolerance to the other. */
	for (size_t i = 0; i < PF_HOOK_SEEN_MAX; i++)
		if (seen->v[i].hash[0] == hash[0] && seen->v[i].hash[1] == hash[1] &&
			seen->v[i].at_s >= now_s - (int64_t)2 * PF_HOOK_TOLERANCE_S)
			return true;
	memcpy(seen->v[seen->next].hash, hash, sizeof(hash));
	seen->v[seen->next].at_s = now_s;
	seen->next = (seen->next + 1) % PF_HOOK_SEEN_MAX;
	return false;
}
