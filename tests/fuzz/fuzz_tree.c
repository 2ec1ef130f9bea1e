/* A layer's tree, and the map beside it: whatever is taken as one is written again as the very same bytes
 * (there is one way to write a tree, or equal trees would have different ids), and lengths, names and links
 * are within what the reader promises. The first two bytes say how long the tree is; the map follows. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "checkpoint/map.h"
#include "checkpoint/tree.h"
#include "tests/helpers/memory_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_entry(const struct pf_tree_entry *e, struct pf_tree_reader *r, size_t depth)
{
	int64_t at = -1, sum = 0;

	if (strlen(e->name) != e->name_len || e->name_len > 255 || strchr(e->name, '/') ||
		(e->name_len == 0) != (depth == 0) || strncmp(e->name, ".wh.", 4) == 0 ||
		strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0)
		abort();
	if (e->uid > PF_TREE_MAX_ID || e->gid > PF_TREE_MAX_ID || e->mode > 07777 ||
		e->mtime.tv_nsec > 999999999 || e->n_extents > PF_TREE_MAX_EXTENTS ||
		e->n_xattrs > PF_TREE_MAX_XATTRS)
		abort();
	for (size_t i = 0; i < e->n_extents; i++) {
		if (e->extents[i].off <= at || e->extents[i].len <= 0)
			abort();
		at = e->extents[i].off + e->extents[i].len;
		sum += e->extents[i].len;
	}
	if (at > e->size || sum != e->data_bytes)
		abort();
	if (e->type == PF_TREE_LINK && (!pf_tree_link_path(r) || e->link >= pf_tree_number(r)))
		abort();
}

static void check_refs(const struct pf_map_reader *m, int64_t data_bytes)
{
	for (size_t i = 0; i < m->n; i++) {
		if (m->refs[i].len == 0 || (uint64_t)m->refs[i].off + m->refs[i].len > PF_REF_MAX_CHUNK)
			abort();
		data_bytes -= m->refs[i].len;
	}
	if (data_bytes != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct pf_err err = PF_ERR_INIT;
	PF_BUF struct pf_buf tree = {0};
	PF_BUF struct pf_buf map = {0};
	const struct pf_tree_entry *e;
	size_t depth, open = 0;
	bool mapped = true;
	int r;

	if (len < 2)
		return 0;
	size_t n = (size_t)data[0] << 8 | data[1];
	if (n > len - 2)
		n = len - 2;
	struct memory of_tree = {data + 2, n, 0, 1 + n % 97};
	struct memory of_map = {data + 2 + n, len - 2 - n, 0, 1 + len % 89};
	struct pf_map_reader m = {.in = {.source = give, .arg = &of_map}};
	struct pf_tree_reader *t = pf_tree_reader_new(give, &of_tree);

	pf_map_begin(&map);
	while ((r = pf_tree_next(t, &e, &depth, &err)) > 0) {
		if (!tree.len)
			pf_tree_begin(&tree, pf_tree_version(t));
		check_entry(e, t, depth);
		for (; open > depth; open--)
			pf_tree_end_dir(&tree);
		pf_tree_put(&tree, e);
		open = depth + (e->type == PF_TREE_DIR);
		if (e->data_bytes == 0 || !mapped)
			continue;
		mapped = pf_map_next(&m, e->data_bytes, &err) == 0;
		if (mapped) {
			check_refs(&m, e->data_bytes);
			pf_map_put(&map, m.refs, m.n);
		}
	}
	for (; open > 0; open--)
		pf_tree_end_dir(&tree);
	if (r == 0 && (tree.len != n || memcmp(tree.data, data + 2, n) != 0))
		abort();
	if (r == 0 && mapped && pf_map_finish(&m, &err) == 0 &&
		(map.len != of_map.len || memcmp(map.data, of_map.p, map.len) != 0))
		abort();
	pf_map_reader_done(&m);
	pf_tree_reader_free(t);
	return 0;
}
