/* Compiled filters on disk: theory of operation.
 *
 * A file's name is a hash of the source text it was compiled from and of what compiled it: the running
 * program, by the build id the linker gave it (libseccomp is linked into it; where it is not, its version
 * counts too). So a filter never outlives a change of the lists or of the generator. The file holds that
 * whole text, which is compared, so a collision of the hash is only a miss; and a checksum of the program, so
 * that damage is one too.
 *
 * A filter is what stands between a session and the kernel, so nothing in a cache that others could have
 * written is believed: directory and file belong to us, nobody else may write them, the file is a regular one
 * of exactly the size its header says, and every instruction is one our generator makes, with jumps that stay
 * inside. Otherwise the filter is built as if there were no cache, and the file replaced (by rename: a reader
 * sees the old one or the new one). */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "sandbox/seccomp.h"

#define MAGIC "PFBPF\0\1"
#define MAX_KEY (8U << 20)

struct header {
	char magic[8];
	uint64_t checksum; /* of the instructions */
	uint64_t key_len;  /* of the text behind the instructions */
	uint64_t n_insns;
};

/* FNV-1a, eight bytes at a step: the name only has to be spread well, the text itself is compared. */
static uint64_t hash(uint64_t h, const void *data, size_t len)
{
	const unsigned char *p = data;
	uint64_t word;

	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		h = (h ^ word) * 0x100000001b3U;
		h ^= h >> 32;
	}
	for (; len > 0; p++, len--)
		h = (h ^ *p) * 0x100000001b3U;
	return h;
}

#define HASH_START 0xcbf29ce484222325U

static bool ours_alone(const struct stat *st)
{
	return st->st_uid == geteuid() && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static bool trusted_dir(int dirfd)
{
	struct stat st;

	return dirfd >= 0 && fstat(dirfd, &st) == 0 && S_ISDIR(st.st_mode) && ours_alone(&st);
}

/* The kernel checks programs too; this refuses what would be valid and is not ours. */
static bool sane_program(const struct sock_filter *insns, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t left = n - i - 1;

		switch (insns[i].code) {
		case BPF_LD | BPF_W | BPF_ABS:
		case BPF_ALU | BPF_AND | BPF_K:
			if (left == 0)
				return false;
			break;
		case BPF_JMP | BPF_JA:
			if (insns[i].k >= left)
				return false;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
		case BPF_JMP | BPF_JGE | BPF_K:
		case BPF_JMP | BPF_JGT | BPF_K:
		case BPF_JMP | BPF_JSET | BPF_K:
			if (insns[i].jt >= left || insns[i].jf >= left)
				return false;
			break;
		case BPF_RET | BPF_K:
			break;
		default:
			return false;
		}
	}
	return n > 0 && n <= BPF_MAXINSNS;
}

/* Whether out was filled from the file. */
static bool load(int dirfd, const char *name, const struct pf_buf *key, struct pf_bpf *out)
{
	PF_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	PF_FREE char *data = NULL;
	struct header h;
	struct stat st;
	size_t size, code;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !ours_alone(&st))
		return false;
	if (st.st_size < (off_t)(sizeof(h) + key->len) ||
		st.st_size > (off_t)(sizeof(h) + key->len + BPF_MAXINSNS * sizeof(struct sock_filter)))
		return false;
	size = (size_t)st.st_size;
	data = pf_calloc(1, size);
	if (pf_read_full(fd, data, size) != (ssize_t)size)
		return false;
	memcpy(&h, data, sizeof(h));
	code = size - sizeof(h) - key->len;
	if (memcmp(h.magic, MAGIC, sizeof(h.magic)) != 0 || h.key_len != key->len ||
		h.n_insns * sizeof(struct sock_filter) != code || h.n_insns > BPF_MAXINSNS ||
		h.checksum != hash(HASH_START, data + sizeof(h), code) ||
		memcmp(data + sizeof(h) + code, key->data, key->len) != 0)
		return false;
	out->insns = pf_calloc(h.n_insns + 1, sizeof(struct sock_filter));
	out->len = (unsigned short)h.n_insns;
	memcpy(out->insns, data + sizeof(h), code);
	if (sane_program(out->insns, out->len))
		return true;
	pf_bpf_done(out);
	return false;
}

static void store(int dirfd, const char *name, const struct pf_buf *key, const struct pf_bpf *bpf)
{
	struct header h = {.magic = MAGIC, .key_len = key->len, .n_insns = bpf->len};
	size_t code = bpf->len * sizeof(struct sock_filter);
	struct pf_err ignored = PF_ERR_INIT;
	PF_BUF struct pf_buf file = {0};

	h.checksum = hash(HASH_START, bpf->insns, code);
	pf_buf_add(&file, &h, sizeof(h));
	pf_buf_add(&file, bpf->insns, code);
	pf_buf_add(&file, key->data, key->len);
	/* A full or read-only disk costs the next caller some microseconds, and must not cost this one its
	 * sandbox. */
	(void)pf_replace_file_at(dirfd, name, file.data, file.len, 0600, false, &ignored);
}

/* The build id of the program itself (it is the first object), as hexadecimal digits. */
static int find_build_id(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct pf_buf *out = arg;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		const char *p = (const char *)(info->dlpi_addr + ph->p_vaddr), *end = p + ph->p_memsz;

		if (ph->p_type != PT_NOTE)
			continue;
		while ((size_t)(end - p) >= sizeof(ElfW(Nhdr))) {
			const ElfW(Nhdr) *note = (const void *)p;
			size_t name = (note->n_namesz + 3U) & ~3U, desc = (note->n_descsz + 3U) & ~3U;

			p += sizeof(*note);
			if (name + desc > (size_t)(end - p))
				break;
			if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 &&
				memcmp(p, "GNU", 4) == 0)
				for (size_t k = 0; k < note->n_descsz; k++)
					pf_buf_printf(out, "%02x", (unsigned char)p[name + k]);
			p += name + desc;
		}
	}
	return 1;
}

int pf_seccomp_cached(int cache_dirfd, const char *key, size_t len, pf_seccomp_build_fn build, void *arg,
	struct pf_bpf *out, struct pf_err *err)
{
	const struct scmp_version *v = seccomp_version();
	PF_BUF struct pf_buf full = {0};
	char name[32];

	if (len > MAX_KEY || !trusted_dir(cache_dirfd))
		return build(arg, out, err);
	(void)dl_iterate_phdr(find_build_id, &full);
	if (full.len == 0) /* linked without one: nothing tells this program from its next version */
		return build(arg, out, err);
	pf_buf_printf(&full, " libseccomp %u.%u.%u arch 0x%x\n", v ? v->major : 0, v ? v->minor : 0,
		v ? v->micro : 0, seccomp_arch_native());
	pf_buf_add(&full, key, len);
	snprintf(
		name, sizeof(name), "%016llx.bpf", (unsigned long long)hash(HASH_START, full.data, full.len));
	if (load(cache_dirfd, name, &full, out))
		return 0;
	if (build(arg, out, err) < 0)
		return -1;
	store(cache_dirfd, name, &full, out);
	return 0;
}
