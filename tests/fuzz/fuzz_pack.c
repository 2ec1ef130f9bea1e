/* What lies in a store: an index block, a pack with its footer, a sealed document. The first byte chooses.
 * What is taken apart must stay within its bounds, and a chunk that is given out must be the one that its id
 * names. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "base/fd.h"
#include "checkpoint/packs_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const uint8_t id[16] = "fuzzfuzzfuzzfuz";

static void check_index(const struct pf_pack_index *x)
{
	for (uint32_t i = 0; i < x->count; i++) {
		const struct pf_pack_entry *e = &x->entries[i];
		if (e->len < 1 || e->len > PF_CHUNK_MAX || e->stored > PF_PACK_MAX_STORED ||
			(uint64_t)e->offset + e->stored > x->data_end || e->offset < PF_PACK_HEAD)
			abort();
	}
}

/* With the checksum made right, or few inputs would come further. */
static void index_block(const uint8_t *data, size_t len, const struct pf_seal_key *key)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_pack_index x = {0};
	uint8_t *block = malloc(len + 1);

	memcpy(block, data, len);
	if (len >= 16) {
		uint32_t crc = (uint32_t)crc32_z(0, block, len - 16);
		for (int i = 0; i < 4; i++)
			block[len - 16 + (size_t)i] = (uint8_t)(crc >> (8 * i));
	}
	if (pf_pack_index_decode(block, len, id, key, &x, &err) == 0)
		check_index(&x);
	free(x.entries);
	free(block);
}

/* A whole pack in a store of its own, by way of a handle that is open already. */
static void pack_file(struct pf_packs *p, const uint8_t *data, size_t len)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct pf_err err = PF_ERR_INIT;
	struct pf_pack k = {.fd = fd};
	uint8_t *block = NULL;
	uint64_t size;
	size_t n;

	if (fd < 0 || pf_write_all(fd, data, len) < 0)
		abort();
	if (pf_pack_read_footer(fd, &block, &n, &size, &err) == 0 &&
		pf_pack_index_decode(block, n, id, NULL, &k.x, &err) == 0) {
		struct pf_scratch *s = pf_scratch_take(p, &err);
		for (uint32_t i = 0; i < k.x.count && i < 64; i++) {
			const struct pf_pack_entry *e = &k.x.entries[i];
			struct pf_chunk_id right;
			const uint8_t *frame;
			if (pf_pack_frame(p, &k, e, s, &frame, &n, &err) < 0 ||
				pf_pack_expand(p, e, s, frame, n, s->chunk, &err) < 0)
				continue;
			pf_packs_id(p, s->chunk, e->len, &right);
			if (memcmp(&right, &e->id, sizeof(right)) != 0)
				abort();
		}
		pf_scratch_give(p, s);
	}
	free(block);
	free(k.x.entries);
	close(fd);
}

static void document(const struct pf_seal *seal, const uint8_t *data, size_t len)
{
	struct pf_err err = PF_ERR_INIT;
	uint8_t *out = NULL;
	size_t n;

	if (pf_unseal_doc(seal, "layer", "x", data, len, &out, &n, &err) == 0)
		free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct pf_packs *packs;
	static struct pf_seal *seal;
	static const struct pf_seal_key key = {.key = {1}};

	if (!packs) {
		struct pf_err err = PF_ERR_INIT;
		struct pf_kek *kek;
		/* A directory without packs. */
		int store = open("/proc/self/fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		uint8_t bytes[32] = {1};
		if (pf_packs_open(store, NULL, &packs, &err) < 0 ||
			pf_kek_from_bytes(bytes, &kek, &err) < 0 || pf_seal_for_key(kek, &seal, &err) < 0)
			abort();
		pf_kek_free(kek);
	}
	if (!len)
		return 0;
	switch (data[0] % 4) {
	case 0:
		index_block(data + 1, len - 1, NULL);
		break;
	case 1:
		pack_file(packs, data + 1, len - 1);
		break;
	case 2:
		index_block(data + 1, len - 1, &key);
		break;
	default:
		document(seal, data + 1, len - 1);
	}
	return 0;
}
