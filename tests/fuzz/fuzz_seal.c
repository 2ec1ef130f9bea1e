/* Sealed things that somebody has meddled with, and keys. The first byte chooses. An edit is an offset (2
 * bytes) and what is to stand there; whatever opens after all of them must be what was sealed, and each end
 * and each length is tried by cutting. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "checkpoint/seal_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define TEXT 200000 /* four segments */

static uint8_t *text, *sealed;
static size_t sealed_len;
static struct pf_seal *seal;
static struct pf_kek *kek, *other;

static void make(void)
{
	struct pf_err err = PF_ERR_INIT;
	uint8_t bytes[32] = {1}, more[32] = {2};

	text = malloc(TEXT);
	for (size_t i = 0; i < TEXT; i++)
		text[i] = (uint8_t)(i * 7 + i / 251);
	if (pf_kek_from_bytes(bytes, &kek, &err) < 0 || pf_kek_from_bytes(more, &other, &err) < 0 ||
		pf_seal_for_key(kek, &seal, &err) < 0 ||
		pf_seal_doc(seal, "layer", "x", text, TEXT, &sealed, &sealed_len, &err) < 0)
		abort();
}

static int file_of(const uint8_t *data, size_t len)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || pf_write_all(fd, data, len) < 0 || lseek(fd, 0, SEEK_SET) != 0)
		abort();
	return fd;
}

/* What a stream gave before it failed must be the beginning of what was sealed. */
static void stream(const uint8_t *bad, size_t n, bool whole)
{
	static uint8_t got[TEXT + 1];
	struct pf_err err = PF_ERR_INIT;
	PF_CLOSE int in = file_of(bad, n);
	PF_CLOSE int out = memfd_create("fuzz", MFD_CLOEXEC);
	int r = pf_unseal_fd(seal, "layer", "x", in, out, &err);
	ssize_t len = pread(out, got, sizeof(got), 0);

	if (len < 0 || len > TEXT || memcmp(got, text, (size_t)len) != 0 || (r == 0 && len != TEXT) ||
		(whole && r < 0))
		abort();
}

static void meddled(const uint8_t *data, size_t len)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE uint8_t *bad = malloc(sealed_len + 300);
	uint8_t *out = NULL;
	size_t n = sealed_len, out_len;

	memcpy(bad, sealed, n);
	if (len >= 3) { /* cut off, or something added */
		n = sealed_len - (size_t)(data[0] | data[1] << 8 | (data[2] & 3) << 16) % (sealed_len + 1);
		if (data[2] & 4) {
			memset(bad + sealed_len, data[0], data[1]);
			n = sealed_len + data[1];
		}
		data += 3;
		len -= 3;
	}
	for (; len >= 4; data += 4, len -= 4) {
		size_t at = ((size_t)data[0] | (size_t)data[1] << 8) * (data[3] & 1 ? 4 : 1);
		if (at < n)
			bad[at] = data[2];
	}
	bool whole = n == sealed_len && memcmp(bad, sealed, n) == 0;
	if (pf_unseal_doc(seal, "layer", "x", bad, n, &out, &out_len, &err) == 0) {
		if (out_len != TEXT || memcmp(out, text, TEXT) != 0)
			abort();
		free(out);
	} else if (whole) {
		abort();
	}
	if (pf_unseal_doc(seal, "layer", "y", bad, n, &out, &out_len, &err) == 0)
		abort(); /* that is what another one is called */
	stream(bad, n, whole);
}

/* Heads as rotation meets them: it may refuse, but what it takes still opens, by the key that it should. */
static void head(const uint8_t *data, size_t len)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_seal_key k;
	uint8_t h[PF_SEAL_HEAD];
	bool changed;

	memcpy(h, sealed, sizeof(h));
	for (; len >= 2; data += 2, len -= 2)
		h[data[0] % sizeof(h)] = data[1];
	bool opens = pf_seal_key_open(kek, "layer", "x", h, &k, &err) == 0;
	if (pf_seal_head_add(kek, other, "layer", "x", h, &changed, &err) < 0)
		return;
	if (!opens || pf_seal_key_open(kek, "layer", "x", h, &k, &err) < 0 ||
		pf_seal_key_open(other, "layer", "x", h, &k, &err) < 0 ||
		pf_seal_head_keep(other, "layer", "x", h, &changed, &err) < 0 ||
		pf_seal_key_open(other, "layer", "x", h, &k, &err) < 0 ||
		pf_seal_key_open(kek, "layer", "x", h, &k, &err) == 0)
		abort();
}

static void key(const uint8_t *data, size_t len)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_kek *k;
	char spec[32];
	int fd = file_of(data, len);

	snprintf(spec, sizeof(spec), "fd:%d", fd);
	if (pf_kek_load(spec, &k, &err) < 0) {
		if (len == 32 || !err.msg[0])
			abort();
		return;
	}
	if (len != 32 && len != 64 && len != 65 && len != 44 && len != 45)
		abort();
	pf_kek_free(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!text)
		make();
	if (!len)
		return 0;
	switch (data[0] % 3) {
	case 0:
		meddled(data + 1, len - 1);
		break;
	case 1:
		head(data + 1, len - 1);
		break;
	default:
		key(data + 1, len - 1);
	}
	return 0;
}
