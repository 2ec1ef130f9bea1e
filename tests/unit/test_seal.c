/* Sealing: nothing in clear, the wrong key and every change are seen, keys come only from where they may.
 *
 * parallel-safe */
#include "tests/unit/packs_world.h"

#include <errno.h>
#include <openssl/sha.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/proc.h"
#include "base/sys.h"
#include "checkpoint/keys_command.h"

#define CANARY "the-canary-sings-47"

static struct pf_seal *with_key(uint8_t first)
{
	PF_KEK struct pf_kek *k = w_kek(first);
	struct pf_seal *s = NULL;

	must(pf_seal_for_key(k, &s, &w_err));
	return s;
}

/* Promise: documents of any length come back, and only under their kind, name and key. */
static void test_documents(void **state)
{
	static const size_t lengths[] = {0, 1, 65535, 65536, 65537, 131072, 200000};
	PF_SEAL struct pf_seal *s = with_key(1);
	PF_SEAL struct pf_seal *other = with_key(2);
	PF_FREE uint8_t *data = malloc(200000);

	(void)state;
	for (size_t i = 0; i < 200000; i++)
		data[i] = (uint8_t)(w_rnd() >> 9);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		PF_FREE uint8_t *sealed = NULL;
		PF_FREE uint8_t *back = NULL;
		uint8_t *none = NULL;
		size_t len, n, ignored;
		struct pf_err err = PF_ERR_INIT;
		must(pf_seal_doc(s, "manifest", "a", data, lengths[i], &sealed, &len, &w_err));
		assert_true(pf_is_sealed(sealed, len));
		must(pf_unseal_doc(s, "manifest", "a", sealed, len, &back, &n, &w_err));
		assert_int_equal(n, lengths[i]);
		assert_memory_equal(back, data, n);
		assert_int_equal(pf_unseal_doc(s, "manifest", "b", sealed, len, &none, &ignored, &err), -1);
		assert_int_equal(err.kind, PF_ERR_CORRUPT);
		assert_int_equal(pf_unseal_doc(s, "layer", "a", sealed, len, &none, &ignored, &err), -1);
		assert_int_equal(err.kind, PF_ERR_CORRUPT);
		assert_int_equal(
			pf_unseal_doc(other, "manifest", "a", sealed, len, &none, &ignored, &err), -1);
		assert_int_equal(err.kind, PF_ERR_INVALID);
		assert_null(none);
	}
}

/* Promise: every changed bit, every cut, every swap of segments is found. */
static void test_documents_damaged(void **state)
{
	PF_SEAL struct pf_seal *s = with_key(1);
	PF_FREE uint8_t *data = pf_calloc(1, 150000);
	PF_FREE uint8_t *sealed = NULL;
	struct pf_err err = PF_ERR_INIT;
	size_t len, n;
	uint8_t *none = NULL;

	(void)state;
	must(pf_seal_doc(s, "layer", "x", data, 300, &sealed, &len, &w_err));
	for (size_t i = 0; i < len * 8; i++) {
		sealed[i / 8] ^= (uint8_t)(1u << (i % 8));
		if (pf_unseal_doc(s, "layer", "x", sealed, len, &none, &n, &err) == 0)
			fail_msg("bit %zu", i);
		sealed[i / 8] ^= (uint8_t)(1u << (i % 8));
	}
	for (size_t i = 0; i < len; i++)
		assert_int_equal(pf_unseal_doc(s, "layer", "x", sealed, i, &none, &n, &err), -1);
	free(pf_take(sealed));
	/* 150000 bytes are three segments: without the last, with two swapped, with one twice. */
	must(pf_seal_doc(s, "layer", "x", data, 150000, &sealed, &len, &w_err));
	size_t piece = PF_SEAL_SEGMENT + PF_SEAL_TAG;
	assert_int_equal(
		pf_unseal_doc(s, "layer", "x", sealed, PF_SEAL_HEAD + 2 * piece, &none, &n, &err), -1);
	assert_int_equal(pf_unseal_doc(s, "layer", "x", sealed, PF_SEAL_HEAD + piece, &none, &n, &err), -1);
	PF_FREE uint8_t *swapped = malloc(len);
	memcpy(swapped, sealed, len);
	memcpy(swapped + PF_SEAL_HEAD, sealed + PF_SEAL_HEAD + piece, piece);
	assert_int_equal(pf_unseal_doc(s, "layer", "x", swapped, len, &none, &n, &err), -1);
	memcpy(swapped + PF_SEAL_HEAD + piece, sealed + PF_SEAL_HEAD, piece);
	assert_int_equal(pf_unseal_doc(s, "layer", "x", swapped, len, &none, &n, &err), -1);
	assert_null(none);
}

static int memory_file(const void *data, size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pf_write_all(fd, data, len), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

/* Promise: a stream is the same thing as a document, and one that was cut is refused at its end. */
static void test_streams(void **state)
{
	static const size_t lengths[] = {0, 5, 65536, 1000000};
	PF_SEAL struct pf_seal *s = with_key(1);
	PF_FREE uint8_t *data = malloc(1000000);

	(void)state;
	for (size_t i = 0; i < 1000000; i++)
		data[i] = (uint8_t)(w_rnd() >> 9);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		PF_CLOSE int in = memory_file(data, lengths[i]);
		PF_CLOSE int out = memory_file("", 0);
		PF_CLOSE int back = memory_file("", 0);
		PF_FREE uint8_t *sealed = malloc(2000000);
		PF_FREE uint8_t *doc = NULL;
		struct pf_err err = PF_ERR_INIT;
		size_t n;
		must(pf_seal_fd(s, "artifact", "", in, out, &w_err));
		ssize_t len = pread(out, sealed, 2000000, 0);
		must(pf_unseal_doc(s, "artifact", "", sealed, (size_t)len, &doc, &n, &w_err));
		assert_int_equal(n, lengths[i]);
		assert_memory_equal(doc, data, n);
		assert_int_equal(lseek(out, 0, SEEK_SET), 0);
		must(pf_unseal_fd(s, "artifact", "", out, back, &w_err));
		assert_int_equal(lseek(back, 0, SEEK_END), (off_t)lengths[i]);
		for (ssize_t cut = 1; cut < len; cut += 1 + len / 9) {
			assert_int_equal(ftruncate(out, len - cut), 0);
			assert_int_equal(lseek(out, 0, SEEK_SET), 0);
			assert_int_equal(pf_unseal_fd(s, "artifact", "", out, back, &err), -1);
			assert_int_equal(err.kind, PF_ERR_CORRUPT);
			assert_int_equal(pwrite(out, sealed, (size_t)len, 0), len);
		}
	}
}

/* Whether a word is anywhere in a file of the store. */
static bool in_store(const char *dir, const void *word, size_t len)
{
	PF_FREE char *path = pf_asprintf("%s/%s", w_path, dir);
	PF_CLOSEDIR DIR *d = opendir(path);
	struct dirent *e;
	bool found = false;

	while (d && (e = readdir(d)) != NULL) {
		PF_FREE char *file = pf_asprintf("%s/%s", dir, e->d_name);
		PF_FREE uint8_t *data = NULL;
		size_t n = 0;
		if (e->d_type != DT_REG)
			continue;
		data = w_slurp(file, &n);
		found |= memmem(data, n, word, len) != NULL;
	}
	return found;
}

/* Promise: neither the content nor the SHA-256 of a sealed chunk is anywhere in the store, nor the key; with
 * the plain domain the same test finds both, so it can see. */
static void test_canary(void **state)
{
	(void)state;
	for (int sealed = 1; sealed >= 0; sealed--) {
		struct pf_seal *keep = w_seal;
		if (!sealed)
			w_seal = NULL;
		PF_PACKS struct pf_packs *p = w_packs();
		struct pf_packs_writer_opts opts = {0};
		struct pf_packs_writer *w = NULL;
		struct pf_packs_written stats;
		PF_CLOSE int tmp = w_tmp();
		struct iovec v = {(void *)(uintptr_t)CANARY, strlen(CANARY)}; /* too short to be compressed */
		struct pf_chunk_id id;
		uint8_t sha[32], key[32] = {1, 1, 2, 3};
		must(pf_packs_writer_new(p, tmp, &opts, &w, &w_err));
		must(pf_packs_put(w, &v, 1, &id, &w_err));
		must(pf_packs_finish(w, &stats, &w_err));
		pf_packs_writer_free(w);
		must(pf_packs_publish(w_store, tmp, &w_err));
		SHA256((const uint8_t *)CANARY, strlen(CANARY), sha);
		assert_int_equal(in_store("packs", CANARY, strlen(CANARY)), !sealed);
		assert_int_equal(in_store("packs", sha, 32), !sealed);
		assert_false(in_store("packs", key, 32) || in_store(".", key, 32));
		assert_false(in_store("packs", keep->id_key, 32) || in_store(".", keep->id_key, 32));
		assert_int_equal(memcmp(id.b, sha, 32) != 0, sealed);
		w_seal = keep;
	}
}

/* Promise: the wrong key is one clear error that names both keys by their ids, and no key at all is one that
 * says how to give it. */
static void test_wrong_key(void **state)
{
	PF_KEK struct pf_kek *right = w_kek(1);
	PF_KEK struct pf_kek *wrong = w_kek(2);
	struct pf_seal *s = NULL;
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	assert_int_equal(pf_seal_open(w_store, wrong, true, &s, &err), -1);
	assert_int_equal(err.kind, PF_ERR_INVALID);
	assert_non_null(strstr(err.msg, pf_kek_id(right)));
	assert_non_null(strstr(err.msg, pf_kek_id(wrong)));
	assert_null(s);
	assert_int_equal(pf_seal_no_key("checkpoint c1.2", &err), -1);
	assert_non_null(strstr(err.msg, "--key file:PATH"));
	/* A store that was never sealed into. */
	assert_true(pf_seal_exists(w_store));
	assert_int_equal(unlinkat(w_store, "seal.key", 0), 0);
	assert_false(pf_seal_exists(w_store));
	assert_int_equal(pf_seal_open(w_store, right, false, &s, &err), -1);
	assert_int_equal(err.kind, PF_ERR_NOT_FOUND);
}

/* Promise: two stores under one key share neither chunk ids nor cuts. */
static void test_two_stores(void **state)
{
	PF_SEAL struct pf_seal *a = NULL;
	PF_SEAL struct pf_seal *b = NULL;
	PF_KEK struct pf_kek *k = w_kek(1);

	(void)state;
	must(pf_seal_open(w_store, k, false, &a, &w_err));
	assert_int_equal(unlinkat(w_store, "seal.key", 0), 0);
	must(pf_seal_open(w_store, k, true, &b, &w_err));
	assert_memory_not_equal(a->id_key, b->id_key, 32);
	assert_memory_not_equal(a->chunker.gear, b->chunker.gear, sizeof(a->chunker.gear));
	assert_memory_not_equal(a->id_key, w_seal->chunker.gear, 32);
}

/* Promise: no nonce comes twice under one key: frames are numbered by their place in their own pack, and no
 * two packs or documents have the same key or wrapping nonce. */
static void test_nonces(void **state)
{
	PF_PACKS struct pf_packs *p = NULL;
	uint8_t seen[64][PF_SEAL_SLOT];
	size_t n = 0;

	(void)state;
	for (unsigned i = 0; i < 30; i++)
		w_put(i * 3, i * 3 + 3);
	p = w_packs();
	for (size_t i = 0; i < p->n_packs; i++) {
		PF_FREE char *file = pf_asprintf("packs/%s.key", p->packs[i].files.name);
		PF_FREE uint8_t *head = NULL;
		size_t len;
		head = w_slurp(file, &len);
		assert_int_equal(len, PF_SEAL_HEAD);
		memcpy(seen[n++], head + 16, PF_SEAL_SLOT);
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(p->packs[i].key->key, p->packs[j].key->key, 32);
		for (uint32_t a = 0; a < p->packs[i].x.count; a++)
			for (uint32_t b = 0; b < a; b++)
				assert_int_not_equal(
					p->packs[i].x.entries[a].offset, p->packs[i].x.entries[b].offset);
	}
	assert_int_equal(n, 30);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(
				seen[i] + PF_KEK_ID_LEN, seen[j] + PF_KEK_ID_LEN, PF_SEAL_NONCE);
	/* The same document twice has nothing in common but the form of its head. */
	PF_FREE uint8_t *a = NULL;
	PF_FREE uint8_t *b = NULL;
	size_t la, lb;
	must(pf_seal_doc(w_seal, "layer", "x", CANARY, 19, &a, &la, &w_err));
	must(pf_seal_doc(w_seal, "layer", "x", CANARY, 19, &b, &lb, &w_err));
	assert_memory_not_equal(a + 16 + PF_KEK_ID_LEN, b + 16 + PF_KEK_ID_LEN, PF_SEAL_NONCE);
	assert_memory_not_equal(a + PF_SEAL_HEAD, b + PF_SEAL_HEAD, 16);
}

/* Promise: rotation changes heads and nothing else; afterwards the new key opens all of it and the old one is
 * refused by name; ids stay, so that old and new snapshots still share chunks. */
static void test_rotate(void **state)
{
	PF_KEK struct pf_kek *old = w_kek(1);
	PF_KEK struct pf_kek *fresh = w_kek(2);
	PF_FREE uint8_t *doc = NULL;
	PF_FREE uint8_t *before = NULL;
	PF_FREE uint8_t *after = NULL;
	PF_FREE uint8_t *back = NULL;
	PF_FREE char *pack = NULL;
	PF_FREE uint8_t *pack_before = NULL;
	PF_FREE uint8_t *pack_after = NULL;
	struct pf_seal_rotated s;
	struct pf_err err = PF_ERR_INIT;
	size_t len, n, pack_len, pack_len2;
	struct pf_packs_written written;

	(void)state;
	w_put(0, 50);
	assert_int_equal(mkdirat(w_store, "manifests", 0700), 0);
	must(pf_seal_doc(w_seal, "manifest", "abc", CANARY, 19, &doc, &len, &w_err));
	w_spill("manifests/abc", doc, len);
	w_spill("manifests/plain", "{}", 2);
	before = w_slurp("manifests/abc", &len);
	for (size_t i = 0; i < 2; i++) {
		PF_FREE uint8_t *other = NULL;
		size_t other_len;
		assert_int_equal(mkdirat(w_store, i ? "layers" : "files", 0700), 0);
		must(pf_seal_doc(
			w_seal, i ? "layer" : "files", "abc", CANARY, 19, &other, &other_len, &w_err));
		w_spill(i ? "layers/abc.sealed" : "files/abc", other, other_len);
	}
	pack = w_file("packs", ".pack");
	pack_before = w_slurp(pack, &pack_len);
	assert_int_equal(pf_seal_rotate(w_store, old, old, &s, &err), -1);
	assert_int_equal(pf_seal_rotate(w_store, fresh, old, &s, &err), 0); /* has it already */
	must(pf_seal_rotate(w_store, old, fresh, &s, &w_err));
	assert_int_equal(s.objects, 5);
	after = w_slurp("manifests/abc", &n);
	assert_int_equal(n, len);
	assert_memory_equal(after + PF_SEAL_HEAD, before + PF_SEAL_HEAD, len - PF_SEAL_HEAD);
	pack_after = w_slurp(pack, &pack_len2);
	assert_int_equal(pack_len, pack_len2);
	assert_memory_equal(pack_before, pack_after, pack_len);
	struct pf_seal *none = NULL;
	assert_int_equal(pf_seal_open(w_store, old, false, &none, &err), -1);
	assert_int_equal(err.kind, PF_ERR_INVALID);
	assert_non_null(strstr(err.msg, pf_kek_id(old)));
	pf_seal_free(w_seal);
	w_seal = NULL;
	must(pf_seal_open(w_store, fresh, false, &w_seal, &w_err));
	must(pf_unseal_doc(w_seal, "manifest", "abc", after, n, &back, &n, &w_err));
	assert_memory_equal(back, CANARY, n);
	for (size_t i = 0; i < 2; i++) {
		PF_FREE uint8_t *other = w_slurp(i ? "layers/abc.sealed" : "files/abc", &n);
		PF_FREE uint8_t *open = NULL;
		must(pf_unseal_doc(w_seal, i ? "layer" : "files", "abc", other, n, &open, &n, &w_err));
	}
	assert_int_equal(w_count_good(0, 50), 50);
	must(w_try_put(0, 50, &written));
	assert_int_equal(written.new_chunks, 0);
	/* A third key, with what does not belong to the second: refused, and nothing is half changed. */
	PF_KEK struct pf_kek *third = w_kek(3);
	assert_int_equal(pf_seal_rotate(w_store, old, third, &s, &err), -1);
	assert_int_equal(w_count_good(0, 50), 50);
}

/* ---- where keys come from ----------------------------------------------------------------------------- */

#define HEX "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define BASE64 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static char id_of_counting[17];

static void load(const char *spec)
{
	PF_KEK struct pf_kek *k = NULL;
	struct pf_err err = PF_ERR_INIT;

	if (pf_kek_load(spec, &k, &err) < 0)
		fail_msg("%s: %s", spec, err.msg);
	assert_string_equal(pf_kek_id(k), id_of_counting);
}

static void refuse(const char *spec, enum pf_err_kind kind, const char *say)
{
	struct pf_kek *k = NULL;
	struct pf_err err = PF_ERR_INIT;

	assert_int_equal(pf_kek_load(spec, &k, &err), -1);
	assert_null(k);
	if (err.kind != kind || !strstr(err.msg, say))
		fail_msg("%s: %s (%s)", spec, err.msg, pf_err_kind_name(err.kind));
	assert_null(strstr(err.msg, "0a0b0c"));
}

static void key_file(const char *text, size_t len, mode_t mode)
{
	w_spill("k", text, len);
	assert_int_equal(fchmodat(w_store, "k", mode, 0), 0);
}

/* Promise: a key is read from a file, a descriptor, a command and the kernel's keyring, as bytes, hex or
 * base64; what can be read by others, is of another length or form, or is not there, is refused with the
 * reason, without quoting any of it. */
static void test_sources(void **state)
{
	uint8_t counting[32];
	PF_KEK struct pf_kek *k = NULL;
	PF_FREE char *file = pf_asprintf("file:%s/k", w_path);
	PF_FREE char *cmd = pf_asprintf("cmd:cat %s/k", w_path);
	PF_FREE char *dir = pf_asprintf("file:%s", w_path);
	char spec[40];

	(void)state;
	for (unsigned i = 0; i < 32; i++)
		counting[i] = (uint8_t)i;
	must(pf_kek_from_bytes(counting, &k, &w_err));
	snprintf(id_of_counting, sizeof(id_of_counting), "%s", pf_kek_id(k));
	key_file((char *)counting, 32, 0600);
	load(file);
	load(cmd);
	key_file(HEX, 64, 0400);
	load(file);
	key_file(HEX "\n", 65, 0640);
	load(file);
	key_file(BASE64, 44, 0600);
	load(file);
	key_file(BASE64 "\n", 45, 0600);
	load(file);
	load(cmd);
	int fd = openat(w_store, "k", O_RDONLY | O_CLOEXEC);
	snprintf(spec, sizeof(spec), "fd:%d", fd);
	load(spec);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed */
	refuse(spec, PF_ERR_SYSTEM, "Bad file descriptor");

	key_file(HEX, 64, 0604);
	refuse(file, PF_ERR_INVALID, "chmod 600");
	key_file(HEX, 64, 0620);
	refuse(file, PF_ERR_INVALID, "chmod 600");
	key_file("", 0, 0600);
	refuse(file, PF_ERR_INVALID, "0 bytes");
	key_file(HEX "0", 65, 0600);
	refuse(file, PF_ERR_INVALID, "65 bytes");
	key_file("correct horse battery staple", 28, 0600);
	refuse(file, PF_ERR_INVALID, "no key");
	key_file("g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", 64, 0600);
	refuse(file, PF_ERR_INVALID, "no key");
	key_file("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=", 44, 0600); /* bits left over */
	refuse(file, PF_ERR_INVALID, "no key");
	PF_FREE char *big = pf_calloc(1, 5000);
	memset(big, 'a', 5000);
	key_file(big, 5000, 0600);
	refuse(file, PF_ERR_INVALID, "257 or more bytes");
	refuse(cmd, PF_ERR_INVALID, "257 or more bytes");
	refuse(dir, PF_ERR_INVALID, "not a regular file");
	refuse("file:/nonexistent/key", PF_ERR_NOT_FOUND, "No such file");
	refuse("cmd:echo locked >&2; exit 3", PF_ERR_SYSTEM, "exit code 3: locked");
	refuse("cmd:kill -9 $$", PF_ERR_SYSTEM, "signal 9");
	refuse("fd:x", PF_ERR_INVALID, "key fd");
	refuse("fd:-1", PF_ERR_INVALID, "key fd");
	refuse("file:", PF_ERR_INVALID, "file:PATH, fd:N");
	refuse(HEX, PF_ERR_INVALID, "never given itself");
	refuse("", PF_ERR_INVALID, "file:PATH, fd:N");
	struct pf_err err = PF_ERR_INIT;
	assert_int_equal(pf_kek_check_spec("keyring:x", &err), 0);
	assert_int_equal(pf_kek_check_spec("fd:9x", &err), -1);
}

/* The number that a process has written into the file; 0 when it has not come to that. */
static pid_t noted(const char *path)
{
	PF_FREE char *text = NULL;
	struct pf_err ignored = PF_ERR_INIT;

	return pf_read_file_at(AT_FDCWD, path, 32, &text, NULL, &ignored) < 0 ? 0 : (pid_t)atoi(text);
}

/* Promise: a command for a key that does not end is killed with what it started, and named; one that has
 * ended counts, though something that it left behind still holds its output. */
static void test_command_bound(void **state)
{
	PF_FREE char *file = pf_asprintf("%s/pid", w_path);
	PF_FREE char *stuck = pf_asprintf("(sleep 4321 & echo $! >%s; wait)", file);
	PF_FREE char *agent = pf_asprintf("echo " HEX "; sleep 4321 & echo $! >%s", file);
	uint8_t out[100];
	size_t len;
	pid_t pid = 0;

	(void)state;
	/* On a machine that is slow to start it, again with more time. */
	for (int64_t ms = 500; !pid && ms < 100000; ms *= 2) {
		struct pf_err err = PF_ERR_INIT;
		(void)unlink(file);
		assert_int_equal(pf_key_command("cmd:x", stuck, ms, out, sizeof(out), &len, &err), -1);
		assert_non_null(strstr(err.msg, "key cmd:x: the command did not end within"));
		pid = noted(file);
	}
	assert_true(pid > 0);
	PF_CLOSE int pidfd = pidfd_open(pid, 0);
	assert_true(pidfd < 0 || pf_pidfd_wait(pidfd, 60000) == 1);
	(void)unlink(file);
	must(pf_key_command("cmd:x", agent, 100000, out, sizeof(out), &len, &w_err));
	pid = noted(file);
	assert_true(pid > 0);
	(void)kill(pid, SIGKILL);
	assert_int_equal(len, 65);
	assert_memory_equal(out, HEX "\n", 65);
}

/* Promise: the kernel's keyring is a source, too. */
static void test_keyring(void **state)
{
	char name[40], spec[60];
	long serial;

	(void)state;
	snprintf(name, sizeof(name), "pinfold-test-%d", (int)getpid());
	snprintf(spec, sizeof(spec), "keyring:%s", name);
	serial = syscall(SYS_add_key, "user", name, HEX, 64L, -2L /* of this process */);
	if (serial < 0) {
		print_message("skipped: no kernel keyring: %s\n", strerror(errno));
		skip();
	}
	load(spec);
	refuse("keyring:pinfold-no-such-key", PF_ERR_NOT_FOUND, "keyctl padd");
	assert_int_equal(syscall(SYS_keyctl, 3 /* revoke */, serial), 0);
	refuse(spec, PF_ERR_NOT_FOUND, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_documents),
		cmocka_unit_test(test_documents_damaged),
		cmocka_unit_test(test_streams),
		cmocka_unit_test_setup_teardown(test_canary, w_sealed_setup, w_teardown),
		cmocka_unit_test_setup_teardown(test_wrong_key, w_sealed_setup, w_teardown),
		cmocka_unit_test_setup_teardown(test_two_stores, w_sealed_setup, w_teardown),
		cmocka_unit_test_setup_teardown(test_nonces, w_sealed_setup, w_teardown),
		cmocka_unit_test_setup_teardown(test_rotate, w_sealed_setup, w_teardown),
		cmocka_unit_test_setup_teardown(test_sources, w_plain_setup, w_teardown),
		cmocka_unit_test_setup_teardown(test_command_bound, w_plain_setup, w_teardown),
		cmocka_unit_test_setup_teardown(test_keyring, w_plain_setup, w_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
