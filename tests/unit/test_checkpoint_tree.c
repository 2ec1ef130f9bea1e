/* A layer's tree and map as bytes: what is written is read again, equal trees are equal bytes, and nothing
 * but the one form is taken. parallel-safe */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants those first */
#include <cmocka.h>

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "checkpoint/map.h"
#include "checkpoint/tree.h"
#include "tests/helpers/memory_source.h"

static struct pf_tree_entry entry(enum pf_tree_type type, const char *name)
{
	struct pf_tree_entry e = {.type = type, .name = name, .name_len = strlen(name)};

	e.mode = type == PF_TREE_DIR ? 0755 : type == PF_TREE_FILE || type == PF_TREE_FIFO ? 0644 : 0;
	return e;
}

/* What was allocated and not freed. */
static size_t in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

/* Read all of it; the number of entries, -1 with err. trace (may be NULL) gets a line for each. */
static int read_all(const char *data, size_t len, size_t step, struct pf_buf *trace, struct pf_err *err)
{
	struct memory m = {data, len, 0, step};
	struct pf_tree_reader *r = pf_tree_reader_new(give, &m);
	const struct pf_tree_entry *e;
	size_t depth;
	int n = 0, rc;

	while ((rc = pf_tree_next(r, &e, &depth, err)) > 0) {
		n++;
		if (!trace)
			continue;
		pf_buf_printf(trace, "%zu %d /%s %o %u:%u %lld.%09ld %lld", depth, (int)e->type,
			pf_tree_path(r), e->mode, e->uid, e->gid, (long long)e->mtime.tv_sec,
			e->mtime.tv_nsec, (long long)e->size);
		for (size_t i = 0; i < e->n_extents; i++)
			pf_buf_printf(trace, " [%lld+%lld]", (long long)e->extents[i].off,
				(long long)e->extents[i].len);
		for (size_t i = 0; i < e->n_xattrs; i++)
			pf_buf_printf(trace, " %s=%zu", e->xattrs[i].name, e->xattrs[i].len);
		if (e->target)
			pf_buf_printf(trace, " -> %s", e->target);
		if (e->type == PF_TREE_LINK)
			pf_buf_printf(trace, " = /%s", pf_tree_link_path(r));
		pf_buf_printf(trace, "%s%s\n", e->opaque ? " opaque" : "", e->linked ? " linked" : "");
	}
	pf_tree_reader_free(r);
	return rc < 0 ? -1 : n;
}

/* One of everything. */
static void fill(struct pf_buf *b)
{
	static const struct pf_extent holes[] = {{16384, 4096}, {65536, 100}};
	static char long_name[256];
	struct pf_tar_xa xattrs[] = {
		{(char *)"security.capability", (char *)"1234", 4}, {(char *)"user.note", (char *)"a\0b", 3}};
	struct pf_tree_entry e = entry(PF_TREE_DIR, "");

	pf_tree_begin(b, PF_TREE_VERSION);
	pf_tree_put(b, &e);
	e = entry(PF_TREE_DIR, "dir");
	e.opaque = true;
	e.uid = 1000;
	e.gid = 65535;
	e.mtime = (struct timespec){-2, 500000000};
	e.xattrs = &xattrs[1];
	e.n_xattrs = 1;
	pf_tree_put(b, &e);
	e = entry(PF_TREE_FILE, "a");
	e.linked = true;
	e.size = e.data_bytes = 5;
	const struct pf_extent all = {0, 5};
	e.extents = &all;
	e.n_extents = 1;
	memset(e.sum, 7, sizeof(e.sum));
	e.mode = 06755;
	e.xattrs = xattrs;
	e.n_xattrs = 2;
	e.mtime = (struct timespec){9000000000, 999999999};
	pf_tree_put(b, &e);
	e = entry(PF_TREE_LINK, "b");
	e.link = 2;
	pf_tree_put(b, &e);
	e = entry(PF_TREE_FILE, "empty");
	pf_tree_put(b, &e);
	e = entry(PF_TREE_FILE, "hole");
	e.size = 1 << 20;
	pf_tree_put(b, &e);
	e = entry(PF_TREE_FILE, "sparse");
	e.size = 1 << 20;
	e.extents = holes;
	e.n_extents = 2;
	e.data_bytes = 4196;
	pf_tree_put(b, &e);
	pf_tree_end_dir(b);
	e = entry(PF_TREE_FIFO, "fifo");
	pf_tree_put(b, &e);
	e = entry(PF_TREE_WHITEOUT, "gone");
	pf_tree_put(b, &e);
	e = entry(PF_TREE_SYMLINK, "link");
	e.target = "../dir/a";
	e.target_len = 8;
	pf_tree_put(b, &e);
	memset(long_name, 0xff, 255);
	e = entry(PF_TREE_FILE, long_name);
	pf_tree_put(b, &e);
	pf_tree_end_dir(b);
}

/* Everything that an entry can say comes back, however the bytes arrive. */
static void everything_is_read_again(void **state)
{
	(void)state;
	PF_BUF struct pf_buf b = {0}, first = {0};
	struct pf_err err = PF_ERR_INIT;

	fill(&b);
	for (size_t step = 1; step < 70; step += 17) {
		PF_BUF struct pf_buf trace = {0};
		int n = read_all(b.data, b.len, step, &trace, &err);
		if (n < 0)
			fail_msg("%s", err.msg);
		assert_int_equal(n, 11);
		if (first.len == 0)
			pf_buf_str(&first, trace.data);
		assert_string_equal(first.data, trace.data);
	}
	assert_non_null(
		strstr(first.data, "2 2 /dir/a 6755 0:0 9000000000.999999999 5 [0+5] security.capability=4 "
				   "user.note=3 linked\n"));
	assert_non_null(strstr(first.data, "1 1 /dir 755 1000:65535 -2.500000000 0 user.note=3 opaque\n"));
	assert_non_null(strstr(first.data, " = /dir/a\n"));
	assert_non_null(strstr(first.data, "[16384+4096] [65536+100]\n"));
	assert_non_null(strstr(first.data, " -> ../dir/a\n"));
}

/* What is cut off anywhere, or goes on, is refused. */
static void cut_trees_are_refused(void **state)
{
	(void)state;
	PF_BUF struct pf_buf b = {0};
	struct pf_err err = PF_ERR_INIT;

	fill(&b);
	for (size_t len = 0; len < b.len; len++) {
		assert_int_equal(read_all(b.data, len, 64, NULL, &err), -1);
		assert_int_equal(err.kind, PF_ERR_CORRUPT);
	}
	pf_buf_add(&b, "x", 1);
	assert_int_equal(read_all(b.data, b.len, 64, NULL, &err), -1);
	assert_int_equal(err.kind, PF_ERR_CORRUPT);
}

/* With any byte changed to anything it is refused or says something else: no two forms of one tree. */
static void no_two_forms(void **state)
{
	(void)state;
	PF_BUF struct pf_buf b = {0}, want = {0};
	struct pf_err err = PF_ERR_INIT;

	fill(&b);
	(void)read_all(b.data, b.len, 4096, &want, &err);
	for (size_t at = 0; at < b.len; at++) {
		char was = b.data[at];
		for (int v = 0; v < 256; v++) {
			PF_BUF struct pf_buf got = {0};
			b.data[at] = (char)v;
			if ((char)v == was || read_all(b.data, b.len, 4096, &got, &err) < 0)
				continue;
			/* Bytes of hashes and of values do not show in the trace; names and numbers do. */
			if (got.len == want.len && memcmp(got.data, want.data, want.len) == 0)
				assert_true(was == 7 || memchr("1234a\0b", was, 7));
		}
		b.data[at] = was;
	}
}

/* A tree with one name in the root, read. */
static int read_named(const struct pf_tree_entry *e, const struct pf_tree_entry *second, struct pf_err *err)
{
	PF_BUF struct pf_buf b = {0};
	struct pf_tree_entry root = entry(PF_TREE_DIR, "");

	pf_tree_begin(&b, PF_TREE_VERSION);
	pf_tree_put(&b, &root);
	pf_tree_put(&b, e);
	if (e->type == PF_TREE_DIR)
		pf_tree_end_dir(&b);
	if (second)
		pf_tree_put(&b, second);
	pf_tree_end_dir(&b);
	return read_all(b.data, b.len, 64, NULL, err);
}

static void refused(struct pf_tree_entry e)
{
	struct pf_err err = PF_ERR_INIT;

	assert_int_equal(read_named(&e, NULL, &err), -1);
	assert_int_equal(err.kind, PF_ERR_CORRUPT);
}

/* Names that lead elsewhere, ids that no box has, and the like. */
static void hostile_entries_are_refused(void **state)
{
	(void)state;
	static const char *const names[] = {".", "..", "a/b", "/", "", ".wh.x", ".wh..wh..opq"};
	struct pf_err err = PF_ERR_INIT;
	struct pf_tree_entry e;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		refused(entry(PF_TREE_FIFO, names[i]));
	e = entry(PF_TREE_FIFO, "nul");
	e.name = "a\0b";
	e.name_len = 3;
	refused(e);
	e = entry(PF_TREE_FIFO, "x");
	e.uid = 65536;
	refused(e);
	e = entry(PF_TREE_FIFO, "x");
	e.mode = 010000;
	refused(e);
	e = entry(PF_TREE_FIFO, "x");
	e.mtime.tv_nsec = 1000000000;
	refused(e);
	e = entry(PF_TREE_LINK, "x");
	e.link = 0; /* the root */
	refused(e);
	e.link = 1; /* itself */
	refused(e);
	e = entry(PF_TREE_SYMLINK, "x");
	e.target = "";
	refused(e);
	struct pf_tar_xa bad[] = {{(char *)"trusted.overlay.opaque", (char *)"y", 1}};
	static const char *const keys[] = {"trusted.overlay.opaque", "user.overlay.redirect",
		"security.selinux", "user.a=b", "system.nfs4_acl", ""};
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		e = entry(PF_TREE_DIR, "x");
		bad[0].name = (char *)(uintptr_t)keys[i];
		e.xattrs = bad;
		e.n_xattrs = 1;
		refused(e);
	}
	e = entry(PF_TREE_FIFO, "b");
	struct pf_tree_entry before = entry(PF_TREE_FIFO, "a");
	assert_int_equal(read_named(&e, &before, &err), -1);
	assert_int_equal(read_named(&e, &e, &err), -1);
	assert_int_equal(read_named(&before, &e, &err), 3);
	/* "a" comes before "a.b" and "ab", whatever else sorts them. */
	struct pf_tree_entry dot = entry(PF_TREE_FIFO, "a.b");
	assert_int_equal(read_named(&before, &dot, &err), 3);
}

/* Directories in directories are bounded, and cost no recursion. */
static void depth_is_bounded(void **state)
{
	(void)state;
	PF_BUF struct pf_buf b = {0};
	struct pf_err err = PF_ERR_INIT;
	struct pf_tree_entry e = entry(PF_TREE_DIR, "");

	pf_tree_begin(&b, PF_TREE_VERSION);
	pf_tree_put(&b, &e);
	e = entry(PF_TREE_DIR, "d");
	for (int i = 0; i < PF_TREE_MAX_DEPTH + 10; i++)
		pf_tree_put(&b, &e);
	for (int i = 0; i < PF_TREE_MAX_DEPTH + 11; i++)
		pf_tree_end_dir(&b);
	assert_int_equal(read_all(b.data, b.len, 4096, NULL, &err), -1);
	assert_non_null(strstr(err.msg, "too deep"));
}

/* The map gives back the pieces it was given, and no others. */
static void maps(void **state)
{
	(void)state;
	PF_BUF struct pf_buf b = {0};
	struct pf_err err = PF_ERR_INIT;
	struct pf_ref refs[3] = {{.off = 0, .len = 100}, {.off = 70000, .len = 5}, {.off = 0, .len = 262144}};

	memset(refs[0].id, 1, 32);
	memset(refs[2].id, 0xff, 32);
	pf_map_begin(&b);
	pf_map_put(&b, refs, 2);
	pf_map_put(&b, &refs[2], 1);
	struct memory m = {b.data, b.len, 0, 7};
	struct pf_map_reader r = {.in = {.source = give, .arg = &m}};
	assert_int_equal(pf_map_next(&r, 105, &err), 0);
	assert_int_equal(r.n, 2);
	assert_memory_equal(r.refs, refs, 2 * sizeof(*refs));
	assert_int_equal(pf_map_next(&r, 262144, &err), 0);
	assert_memory_equal(r.refs, &refs[2], sizeof(*refs));
	assert_int_equal(pf_map_finish(&r, &err), 0);
	pf_map_reader_done(&r);
	static const int64_t lengths[] = {104, 106, 1, INT64_MAX};
	for (size_t i = 0; i < 4; i++) {
		struct memory again = {b.data, b.len, 0, 64};
		struct pf_map_reader x = {.in = {.source = give, .arg = &again}};
		/* Its pieces must be as long as the file, to the byte. */
		assert_int_equal(pf_map_next(&x, lengths[i], &err), -1);
		assert_int_equal(err.kind, PF_ERR_CORRUPT);
		pf_map_reader_done(&x);
	}
	for (size_t len = 0; len < b.len; len++) {
		struct memory again = {b.data, len, 0, 64};
		struct pf_map_reader x = {.in = {.source = give, .arg = &again}};
		assert_true(pf_map_next(&x, 105, &err) < 0 || pf_map_next(&x, 262144, &err) < 0);
		pf_map_reader_done(&x);
	}
}

#define LEVELS 4000
#define NAME 255

/* Files with links, deep down: the reader remembers each directory's name once, not a path of a megabyte for
 * each file. */
static void deep_links_cost_their_names(void **state)
{
	(void)state;
	PF_BUF struct pf_buf b = {0};
	char name[NAME + 1];
	struct pf_tree_entry e = entry(PF_TREE_DIR, ""), linked = entry(PF_TREE_FILE, "a");
	const struct pf_tree_entry *got;
	struct pf_err err = PF_ERR_INIT;
	size_t before, after, number = 0;
	int rc;

	memset(name, 'd', NAME);
	name[NAME] = '\0';
	linked.linked = true;
	pf_tree_begin(&b, PF_TREE_VERSION);
	pf_tree_put(&b, &e);
	e = entry(PF_TREE_DIR, name);
	for (int i = 1; i <= LEVELS; i++) {
		pf_tree_put(&b, &e);
		number++;
		if (i % 10 == 0) {
			pf_tree_put(&b, &linked);
			number++;
		}
	}
	for (int i = 0; i < LEVELS; i++)
		pf_tree_end_dir(&b);
	e = entry(PF_TREE_LINK, "e");
	e.link = number; /* the deepest, which came last */
	pf_tree_put(&b, &e);
	pf_tree_end_dir(&b);

	struct memory m = {b.data, b.len, 0, 65536};
	before = in_use();
	struct pf_tree_reader *r = pf_tree_reader_new(give, &m);
	while ((rc = pf_tree_next(r, &got, NULL, &err)) > 0)
		if (got->type == PF_TREE_LINK) {
			const char *path = pf_tree_link_path(r);
			assert_int_equal(strlen(path), (size_t)LEVELS * (NAME + 1) + 1);
			assert_int_equal(strspn(path, "d"), NAME);
			assert_string_equal(path + strlen(path) - 3, "d/a");
		}
	after = in_use();
	assert_int_equal(rc, 0);
	assert_true(after - before < (size_t)16 << 20);
	pf_tree_reader_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_is_read_again),
		cmocka_unit_test(cut_trees_are_refused),
		cmocka_unit_test(no_two_forms),
		cmocka_unit_test(hostile_entries_are_refused),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(deep_links_cost_their_names),
		cmocka_unit_test(maps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
