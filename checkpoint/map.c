/* Theory of operation: the map runs beside the tree and has no names of its own. A chunk's id stands in full
 * with every piece of it, so that a file that is put in or taken out changes the bytes around it alone and
 * the rest of the map is cut into the chunks it was cut into before. */
#include "checkpoint/map.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = {'P', 'F', 'M', 'A', 'P', '2', '\n', '\n'};

void pf_map_begin(struct pf_buf *out)
{
	pf_buf_add(out, magic, sizeof(magic));
}

void pf_map_put(struct pf_buf *out, const struct pf_ref *refs, size_t n)
{
	pf_varint_put(out, n);
	for (size_t i = 0; i < n; i++) {
		pf_buf_add(out, refs[i].id, sizeof(refs[i].id));
		pf_varint_put(out, refs[i].off);
		pf_varint_put(out, refs[i].len);
	}
}

void pf_map_reader_done(struct pf_map_reader *m)
{
	pf_bytes_done(&m->in);
	free(m->refs);
	m->refs = NULL;
	m->n = m->cap = 0;
}

static int begin(struct pf_map_reader *m, struct pf_err *err)
{
	char got[sizeof(magic)];

	if (m->begun)
		return 0;
	if (pf_bytes_take(&m->in, got, sizeof(got), err) < 0)
		return -1;
	m->begun = true;
	return memcmp(got, magic, sizeof(magic)) == 0
		       ? 0
		       : pf_fail_kind(err, PF_ERR_CORRUPT, 0, "this is no map");
}

static int read_ref(struct pf_map_reader *m, int64_t left, struct pf_ref *ref, struct pf_err *err)
{
	uint64_t off, len;

	if (pf_bytes_take(&m->in, ref->id, sizeof(ref->id), err) < 0 ||
		pf_bytes_varint(&m->in, PF_REF_MAX_CHUNK, "offset in a chunk", &off, err) < 0 ||
		pf_bytes_varint(&m->in, PF_REF_MAX_CHUNK - off, "length of a piece", &len, err) < 0)
		return -1;
	if (len == 0 || len > (uint64_t)left)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the pieces are not as long as the file's data");
	ref->off = (uint32_t)off;
	ref->len = (uint32_t)len;
	return 0;
}

static int read_file(struct pf_map_reader *m, int64_t data_bytes, struct pf_err *err)
{
	uint64_t n;

	m->n = 0;
	if (begin(m, err) < 0 ||
		pf_bytes_varint(&m->in, (uint64_t)data_bytes, "pieces of a file", &n, err) < 0)
		return -1;
	/* Grown as they come: the number alone is no reason to allocate. */
	for (uint64_t i = 0; i < n; i++) {
		if (m->n == m->cap) {
			m->cap = m->cap ? m->cap * 2 : 64;
			void *v = realloc(m->refs, m->cap * sizeof(*m->refs));
			if (!v)
				abort();
			m->refs = v;
		}
		if (read_ref(m, data_bytes, &m->refs[m->n], err) < 0)
			return -1;
		data_bytes -= m->refs[m->n++].len;
	}
	return data_bytes == 0 ? 0
			       : pf_fail_kind(err, PF_ERR_CORRUPT, 0,
					 "the pieces are not as long as the file's data");
}

int pf_map_next(struct pf_map_reader *m, int64_t data_bytes, struct pf_err *err)
{
	return read_file(m, data_bytes, err) < 0 ? pf_wrap(err, "map, at byte %" PRIu64, m->in.pos) : 0;
}

int pf_map_finish(struct pf_map_reader *m, struct pf_err *err)
{
	int end = begin(m, err) < 0 ? -1 : pf_bytes_end(&m->in, err);

	if (end == 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "map: there is something after the end");
	return end < 0 ? pf_wrap(err, "map") : 0;
}
