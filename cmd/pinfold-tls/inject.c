/* Theory of operation.
 *
 * The sandbox knows a placeholder; the secret is known here. Where a placeholder stands in the head (or, if
 * the credential says so, in the body) of a request to a host that the credential is bound to, and whose
 * certificate was verified, the secret takes its place. To every other host the placeholder goes as it is: it
 * is worth nothing there. A request that would need the secret and is not within the credential's scope is
 * refused with what is the matter.
 *
 * Secrets lie in OpenSSL's locked heap, which no core file holds; buffers that they pass through are wiped.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"
#include "cmd/pinfold-tls/tls.h"

#define SECRET_MAX 16384
#define SECRET_SHORT 8 /* shorter ones are in much that is none */

static void set(struct pf_cred *k, char *secret, size_t len)
{
	if (k->secret)
		OPENSSL_secure_clear_free(k->secret, k->secret_len);
	k->secret = secret;
	k->secret_len = len;
}

int secret_take(struct tls *t, const char *name, int fd, struct pf_err *err)
{
	PF_CLOSE int f = fd;
	struct pf_cred *k = NULL;
	struct stat st;

	for (size_t i = 0; i < t->creds.n; i++)
		if (strcmp(t->creds.list[i].name, name) == 0)
			k = &t->creds.list[i];
	if (!k)
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "no credential is called '%s'", name);
	if (fstat(f, &st) < 0 || lseek(f, 0, SEEK_SET) < 0)
		return pf_fail(err, 0, "the secret of %s", name);
	if (st.st_size == 0 || st.st_size > SECRET_MAX)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "the secret of %s is %s", name,
			st.st_size ? "longer than 16 KiB" : "empty");
	char *s = OPENSSL_secure_malloc((size_t)st.st_size + 1);
	if (!s)
		return pf_fail(err, 0, "no locked memory is left for the secret of %s", name);
	ssize_t n = pf_read_full(f, s, (size_t)st.st_size);
	/* Editors and echo end a file with a line end that belongs to no secret. */
	while (n > 0 && (s[n - 1] == '\n' || s[n - 1] == '\r'))
		n--;
	bool odd = n <= 0;
	for (ssize_t i = 0; i < n; i++)
		odd = odd || (unsigned char)s[i] < ' ' || s[i] == 0x7f;
	if (odd) {
		OPENSSL_secure_clear_free(s, (size_t)st.st_size + 1);
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"the secret of %s is empty or has a line break or another control character in it",
			name);
	}
	set(k, s, (size_t)n);
	vault_put_secret((size_t)(k - t->creds.list), s, (size_t)n);
	return 0;
}

int secret_recall(struct tls *t, struct pf_err *err)
{
	for (size_t i = 0; i < t->creds.n; i++) {
		size_t len;
		const char *kept = vault_secret(i, &len);
		char *s = kept ? OPENSSL_secure_malloc(len + 1) : NULL;
		if (kept && !s)
			return pf_fail(err, 0, "no locked memory is left for the secret of %s",
				t->creds.list[i].name);
		if (kept) {
			memcpy(s, kept, len);
			set(&t->creds.list[i], s, len);
		}
	}
	return 0;
}

static bool refuse(struct request *r, int status, const char *reason)
{
	r->status = status;
	r->reason = reason;
	return false;
}

/* May the secret of k go into this request? */
static bool grant(struct tls *t, struct request *r, struct pf_cred *k)
{
	size_t i = (size_t)(k - t->creds.list);

	if (!r->secure) {
		snprintf(r->text, sizeof(r->text),
			"Credential %s is only sent over verified TLS: use https://%s.", k->name, r->name);
		return refuse(r, 403, "credential_plain");
	}
	if (!k->secret) {
		snprintf(r->text, sizeof(r->text), "Credential %s has no secret at the moment.", k->name);
		return refuse(r, 403, "credential_missing");
	}
	if (k->expires && time(NULL) >= k->expires) {
		snprintf(r->text, sizeof(r->text), "Credential %s is no longer valid.", k->name);
		return refuse(r, 403, "credential_expired");
	}
	/* Its answer is what was sent. */
	if (r->method_len == 5 &&
		(strncasecmp(r->method, "TRACE", 5) == 0 || strncasecmp(r->method, "TRACK", 5) == 0)) {
		snprintf(r->text, sizeof(r->text),
			"Credential %s is not sent with %.5s, whose answer repeats it.", k->name, r->method);
		return refuse(r, 403, "credential_scope");
	}
	if (!pf_scope_method(&k->scope, r->method, r->method_len) ||
		!pf_scope_path(&k->scope, r->target, r->target_len)) {
		snprintf(r->text, sizeof(r->text), "Credential %s%s%s%s is not for %.*s of this path.",
			k->name, k->scope_text ? " (scope " : "", k->scope_text ? k->scope_text : "",
			k->scope_text ? ")" : "", (int)r->method_len, r->method);
		return refuse(r, 403, "credential_scope");
	}
	int64_t wait = r->counted[i] ? 0 : pf_quota_take(&k->quota, k->scope.requests_per_hour);
	if (wait) {
		r->retry_s = wait;
		snprintf(r->text, sizeof(r->text), "Credential %s is good for %lld requests an hour.",
			k->name, (long long)k->scope.requests_per_hour);
		return refuse(r, 429, "credential_rate");
	}
	r->counted[i] = true;
	r->used = k->name;
	return true;
}

/* Whether k may stand in this header; NULL: in a body. */
static bool has_place(const struct pf_cred *k, const struct pf_http_line *line)
{
	if (!line)
		return k->body;
	for (char **h = k->headers; h && *h; h++)
		if (pf_http_is(line, *h))
			return true;
	return k->header && !k->headers;
}

/* The first placeholder of a credential of this host in s; NULL: there is none. */
static const char *find(struct tls *t, const struct request *r, const char *s, size_t len,
	const struct pf_http_line *line, struct pf_cred **which)
{
	const char *end = s + len;

	while ((s = memmem(s, (size_t)(end - s), PF_PLACEHOLDER_PREFIX, sizeof(PF_PLACEHOLDER_PREFIX) - 1))) {
		for (size_t i = 0; i < t->creds.n && end - s >= PF_PLACEHOLDER_LEN; i++) {
			struct pf_cred *k = &t->creds.list[i];
			if (memcmp(s, k->placeholder, PF_PLACEHOLDER_LEN) == 0 && has_place(k, line) &&
				pf_cred_bound(k, r->name, r->port)) {
				*which = k;
				return s;
			}
		}
		s++;
	}
	return NULL;
}

static bool replace(struct tls *t, struct request *r, const char *s, size_t len,
	const struct pf_http_line *line, struct fifo *out)
{
	struct pf_cred *k;
	const char *end = s + len, *at;
	/* Known before it is made: a short body may ask for a long secret many times. */
	size_t max = fifo_size(out) + len + (HELD_ALL_MAX - t->held);

	while ((at = find(t, r, s, (size_t)(end - s), line, &k))) {
		if (!grant(t, r, k))
			return false;
		if (fifo_size(out) + (size_t)(at - s) + k->secret_len > max) {
			request_no_room(r);
			return false;
		}
		fifo_add(out, s, (size_t)(at - s));
		fifo_add(out, k->secret, k->secret_len);
		s = at + PF_PLACEHOLDER_LEN;
	}
	fifo_add(out, s, (size_t)(end - s));
	return true;
}

/* "Basic base64(user:placeholder)": what git, pip and npm make of a password. */
static bool replace_basic(
	struct tls *t, struct request *r, const struct pf_http_line *line, struct fifo *out, bool *done)
{
	size_t len = line->value_len - 6;
	uint8_t plain[1536];
	struct pf_cred *k;

	*done = false;
	if (len == 0 || len % 4 || len > 2048)
		return true;
	int n = EVP_DecodeBlock(plain, (const uint8_t *)line->value + 6, (int)len);
	if (n < 0)
		return true;
	for (size_t pad = len; pad && line->value[5 + pad] == '=' && n; pad--)
		n--;
	if (!find(t, r, (char *)plain, (size_t)n, line, &k))
		return true;
	struct fifo fresh = {0};
	bool ok = replace(t, r, (char *)plain, (size_t)n, line, &fresh);
	if (ok) {
		size_t size = fifo_size(&fresh);
		fifo_add(out, "Basic ", 6);
		uint8_t *room = fifo_room(out, (size + 2) / 3 * 4 + 1);
		out->len += (size_t)EVP_EncodeBlock(room, fresh.p + fresh.at, (int)size);
	}
	fifo_done(&fresh);
	*done = true;
	return ok;
}

static bool inject_line(struct tls *t, struct request *r, const struct pf_http_line *line, struct fifo *out)
{
	bool done = false;

	fifo_add(out, line->name, line->name_len);
	fifo_add(out, ": ", 2);
	if (line->value_len > 6 && strncasecmp(line->value, "Basic ", 6) == 0 &&
		(pf_http_is(line, "Authorization") || pf_http_is(line, "Proxy-Authorization")) &&
		!replace_basic(t, r, line, out, &done))
		return false;
	if (!done && !replace(t, r, line->value, line->value_len, line, out))
		return false;
	fifo_add(out, "\r\n", 2);
	return true;
}

bool inject_head(
	struct tls *t, struct request *r, const char *head, size_t len, int64_t length, struct fifo *out)
{
	struct pf_http_line line;
	size_t at = 0;

	while (pf_http_next(head, len, &at, &line)) {
		if (!line.value) { /* the request line: a secret is no part of an address */
			fifo_add(out, line.name, line.name_len);
			fifo_add(out, "\r\n", 2);
			continue;
		}
		if (length >= 0 && pf_http_is(&line, "Expect"))
			continue;
		if (length >= 0 && pf_http_is(&line, "Content-Length")) {
			char text[64];
			int n = snprintf(text, sizeof(text), "Content-Length: %lld\r\n", (long long)length);
			fifo_add(out, text, (size_t)n);
			continue;
		}
		if (!inject_line(t, r, &line, out))
			return false;
	}
	fifo_add(out, "\r\n", 2);
	return true;
}

bool inject_wants_body(const struct tls *t, const struct request *r)
{
	for (size_t i = 0; i < t->creds.n; i++)
		if (t->creds.list[i].body && pf_cred_bound(&t->creds.list[i], r->name, r->port))
			return true;
	return false;
}

bool inject_body(struct tls *t, struct request *r, const char *body, size_t len, struct fifo *out)
{
	return replace(t, r, body, len, NULL, out);
}

bool inject_part(struct tls *t, struct request *r, const char *body, size_t len, bool last, struct fifo *out,
	size_t *took)
{
	const size_t prefix = sizeof(PF_PLACEHOLDER_PREFIX) - 1;
	size_t held = len < PF_PLACEHOLDER_LEN - 1 ? len : PF_PLACEHOLDER_LEN - 1;

	/* No more than is needed: what is sent bit by bit may be answered bit by bit. */
	while (!last && held &&
		memcmp(body + len - held, PF_PLACEHOLDER_PREFIX, held < prefix ? held : prefix) != 0)
		held--;
	*took = last ? len : len - held;
	return *took == 0 || replace(t, r, body, *took, NULL, out);
}

void hide_secrets(
	struct tls *t, const char *name, uint16_t port, const char *head, size_t len, struct fifo *out)
{
	const char *end = head + len;

	while (head < end) {
		const char *first = NULL;
		const struct pf_cred *which = NULL;
		for (size_t i = 0; i < t->creds.n; i++) {
			const struct pf_cred *k = &t->creds.list[i];
			if (!k->secret || k->secret_len < SECRET_SHORT || !pf_cred_bound(k, name, port))
				continue;
			const char *at = memmem(head, (size_t)(end - head), k->secret, k->secret_len);
			/* One secret may be how another begins. */
			if (at && (!first || at < first ||
					  (at == first && k->secret_len > which->secret_len))) {
				first = at;
				which = k;
			}
		}
		if (!which)
			break;
		fifo_add(out, head, (size_t)(first - head));
		fifo_add(out, which->placeholder, PF_PLACEHOLDER_LEN);
		head = first + which->secret_len;
	}
	fifo_add(out, head, (size_t)(end - head));
}
