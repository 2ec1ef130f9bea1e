/* Theory of operation.
 *
 * A key is fetched once, when a verb begins, from where its owner keeps it: a file that others cannot read, a
 * descriptor, a command (a key service's own client), or the kernel's keyring. What comes is text of a known
 * form or 32 bytes; anything else is refused rather than stretched into a key, because a pass phrase would be
 * guessed.
 *
 * Everything that touches key text lies in pages of its own: zeroed before they go back, left out of core
 * dumps (of which there are none from then on), and locked where RLIMIT_MEMLOCK lets us (else swap is the
 * host's matter, as docs/checkpoints.md says). */
#include "checkpoint/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "base/units.h"
#include "checkpoint/keys_command.h"
#include "checkpoint/keys_int.h"

#define COMMAND_MS 60000 /* somebody may have to type a pass phrase, or to touch a token */
#define TEXT_MAX 256     /* longer is no key: 64 digits and a newline are the longest form */

static const char remedy[] =
	"a key is 32 bytes, 64 hex digits or 44 characters of base64 (openssl rand -hex 32)";

void *pf_secret_alloc(size_t len, struct pf_err *err)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		pf_fail(err, errno, "memory for keys");
		return NULL;
	}
	(void)madvise(p, len, MADV_DONTDUMP);
	(void)mlock(p, len);
	return p;
}

void pf_secret_free(void *p, size_t len)
{
	if (!p)
		return;
	OPENSSL_cleanse(p, len);
	munmap(p, len);
}

/* What a key is, as pf_kek_load has read it. */
struct text {
	uint8_t raw[TEXT_MAX + 1]; /* one more, to see that it is too long */
	size_t len;
};

static void text_cleanup(struct text **t)
{
	pf_secret_free(*t, sizeof(**t));
}

static int hex_value(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static int base64_value(int c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool from_hex(const uint8_t *s, uint8_t key[32])
{
	for (size_t i = 0; i < 32; i++) {
		int a = hex_value(s[2 * i]), b = hex_value(s[2 * i + 1]);
		if (a < 0 || b < 0)
			return false;
		key[i] = (uint8_t)(a << 4 | b);
	}
	return true;
}

/* 32 bytes are 43 characters, of which the last carries four bits, and '='. */
static bool from_base64(const uint8_t *s, uint8_t key[32])
{
	uint32_t bits = 0;
	unsigned held = 0;
	size_t n = 0;

	for (size_t i = 0; i < 43; i++) {
		int v = base64_value(s[i]);
		if (v < 0)
			return false;
		bits = (bits << 6 | (uint32_t)v) & 0xffff;
		held += 6;
		if (held >= 8) {
			held -= 8;
			key[n++] = (uint8_t)(bits >> held);
		}
	}
	return s[43] == '=' && (bits & 3) == 0;
}

static int text_to_key(const char *spec, const struct text *t, uint8_t key[32], struct pf_err *err)
{
	size_t len = t->len;
	bool ok;

	if (len == 32) {
		memcpy(key, t->raw, 32);
		return 0;
	}
	if (len && t->raw[len - 1] == '\n')
		len--;
	ok = len == 64 ? from_hex(t->raw, key) : len == 44 && from_base64(t->raw, key);
	if (!ok)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "key %s: %zu%s bytes that are no key: %s", spec,
			t->len, t->len > TEXT_MAX ? " or more" : "", remedy);
	return 0;
}

static int read_text(int fd, struct text *t)
{
	ssize_t n = pf_read_full(fd, t->raw, sizeof(t->raw));

	if (n < 0)
		return -1;
	t->len = (size_t)n;
	return 0;
}

static int from_file(const char *spec, const char *path, struct text *t, struct pf_err *err)
{
	PF_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return pf_fail_kind(
			err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "key %s", spec);
	if (fstat(fd, &st) < 0)
		return pf_fail(err, errno, "key %s", spec);
	if (!S_ISREG(st.st_mode))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"key %s is not a regular file (a descriptor is given as fd:N)", spec);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "key %s belongs to user %u, not to root or to us",
			spec, (unsigned)st.st_uid);
	if (st.st_mode & (S_IRWXO | S_IWGRP))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"key %s can be used by others (mode %04o): chmod 600 %s", spec,
			(unsigned)(st.st_mode & 07777), path);
	return read_text(fd, t) < 0 ? pf_fail(err, errno, "key %s", spec) : 0;
}

static int from_fd(const char *spec, const char *number, struct text *t, struct pf_err *err)
{
	PF_CLOSE int fd = -1;
	int64_t n;

	if (pf_parse_int("key fd", number, 0, 1 << 20, &n, err) < 0)
		return -1;
	(void)lseek((int)n, 0, SEEK_SET); /* a file may have been read by somebody before us */
	if (read_text((int)n, t) < 0)
		return pf_fail(err, errno, "key %s", spec);
	if (n > 2) /* standard input stays open: the next file would take its number */
		fd = (int)n;
	return 0;
}

static int from_command(const char *spec, const char *command, struct text *t, struct pf_err *err)
{
	return pf_key_command(spec, command, COMMAND_MS, t->raw, sizeof(t->raw), &t->len, err);
}

static int from_keyring(const char *spec, const char *name, struct text *t, struct pf_err *err)
{
	long serial = syscall(SYS_request_key, "user", name, NULL, 0), n;

	if (serial < 0 && (errno == ENOKEY || errno == EKEYEXPIRED || errno == EKEYREVOKED))
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, errno,
			"key %s (there is: keyctl padd user '%s' @u)", spec, name);
	if (serial < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errno, "key %s: the kernel's keyring", spec);
	n = syscall(SYS_keyctl, KEYCTL_READ, serial, t->raw, sizeof(t->raw), 0);
	if (n < 0)
		return pf_fail(err, errno, "key %s", spec);
	t->len = (size_t)n > sizeof(t->raw) ? sizeof(t->raw) : (size_t)n;
	return 0;
}

static const struct source {
	const char *prefix;
	int (*fetch)(const char *spec, const char *rest, struct text *t, struct pf_err *err);
} sources[] = {
	{"file:", from_file},
	{"fd:", from_fd},
	{"cmd:", from_command},
	{"keyring:", from_keyring},
};

static const struct source *find_source(const char *spec, struct pf_err *err)
{
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
		if (pf_starts_with(spec, sources[i].prefix) && spec[strlen(sources[i].prefix)])
			return &sources[i];
	/* Not quoted: somebody may have written the key itself. */
	pf_fail_kind(err, PF_ERR_INVALID, 0,
		"a key is named as file:PATH, fd:N, cmd:COMMAND or keyring:NAME, and never given itself");
	return NULL;
}

int pf_kek_check_spec(const char *spec, struct pf_err *err)
{
	const struct source *s = find_source(spec, err);
	int64_t n;

	if (!s)
		return -1;
	return s->fetch == from_fd ? pf_parse_int("key fd", spec + strlen(s->prefix), 0, 1 << 20, &n, err)
				   : 0;
}

static void derive(const uint8_t key[32], const char *what, uint8_t out[32])
{
	unsigned n = 32;

	/* Cannot fail: one block of a hash that pf_kek_from_bytes has tried. */
	(void)HMAC(EVP_sha256(), key, 32, (const uint8_t *)what, strlen(what), out, &n);
}

int pf_kek_from_bytes(const uint8_t key[32], struct pf_kek **out, struct pf_err *err)
{
	struct pf_kek *k = pf_secret_alloc(sizeof(*k), err);
	uint8_t md[32];
	unsigned n = 32;

	if (!k)
		return -1;
	if (!HMAC(EVP_sha256(), key, 32, (const uint8_t *)"", 0, md, &n)) {
		pf_secret_free(k, sizeof(*k));
		return pf_fail(err, 0, "libcrypto: HMAC-SHA-256 is not to be had");
	}
	derive(key, "pinfold wrap", k->wrap);
	derive(key, "pinfold key id", md);
	memcpy(k->id, md, sizeof(k->id));
	for (size_t i = 0; i < sizeof(k->id); i++)
		snprintf(k->name + 2 * i, 3, "%02x", k->id[i]);
	*out = k;
	return 0;
}

int pf_kek_load(const char *spec, struct pf_kek **out, struct pf_err *err)
{
	/* What is opened and sealed from now on is in memory that libcrypto and we share with everything
	 * else: no core of it to a file (less than a core needs) nor to a program (1 is the kernel's word for
	 * that). */
	const struct rlimit none = {1, 1};
	const struct source *s = find_source(spec, err);
	__attribute__((cleanup(text_cleanup))) struct text *t = NULL;
	uint8_t key[32];
	int r;

	(void)setrlimit(RLIMIT_CORE, &none);
	if (!s || !(t = pf_secret_alloc(sizeof(*t), err)) ||
		s->fetch(spec, spec + strlen(s->prefix), t, err) < 0)
		return -1;
	r = text_to_key(spec, t, key, err);
	if (r == 0)
		r = pf_kek_from_bytes(key, out, err);
	OPENSSL_cleanse(key, sizeof(key));
	return r;
}

void pf_kek_free(struct pf_kek *k)
{
	pf_secret_free(k, sizeof(*k));
}

const char *pf_kek_id(const struct pf_kek *k)
{
	return k->name;
}
