/* Checkpoints of the tree's version before are read, and taken in from elsewhere, as those that they are. */
#include "tests/unit/ckpt_tree.h"

#include "base/json.h"
#include "checkpoint/restore.h"
#include "checkpoint/store.h"
#include "checkpoint/txn.h"
#include "checkpoint/verify.h"
#include "checkpoint/write.h"

static struct ckpt_env env;

static int setup(void **state)
{
	(void)state;
	env_make(&env, "/tmp");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	env_remove(&env);
	return 0;
}

/* Files around every length where the two versions part, with data that is in no other file. */
static void fill(int root)
{
	static const size_t sizes[] = {
		1, 4096, 16383, 16384, 65535, 65536, 65537, 131072, 200001, 262144, 3000000};
	static uint8_t data[3000000];
	uint64_t x = 88172645463325252u;
	char name[32];

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		for (size_t k = 0; k < sizes[i]; k++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			data[k] = (uint8_t)x;
		}
		snprintf(name, sizeof(name), "f%zu", sizes[i]);
		tree_file(root, name, data, sizes[i]);
	}
	/* With holes, so that data is not where its blocks are. */
	int fd = openat(root, "holes", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	for (int i = 0; i < 9; i++)
		assert_int_equal(pwrite(fd, data + 5000 * i, 30000, (off_t)i * 70000), 30000);
	close(fd);
}

/* Put a layer into the transaction, as that version. */
static struct pf_digest layer(struct pf_txn *t, int fd, int version, const struct pf_digest *expected)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_txn_layer out;
	const struct pf_txn_source s = {
		.rootfd = fd, .no_sync = true, .expected = expected, .tree_version = version};

	if (pf_txn_layer(t, &s, &out, &err) < 0)
		fail_msg("layer: %s", err.msg);
	return out.id;
}

static void older_trees(void **state)
{
	(void)state;
	int fd = tree_mkdir(env.fd, "upper");
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_result r;
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	const struct pf_txn_opts o = {0};
	struct pf_txn_written w;
	struct pf_digest digest;
	struct pf_txn *t;

	fill(fd);
	struct pf_ckpt_source s = {.upper_fd = fd,
		.sandbox_id = "box-1",
		.base_image_ref = "python:latest",
		.base_image_digest =
			"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	if (pf_ckpt_write(env.store, &s, &r, &err) < 0)
		fail_msg("write: %s", err.msg);

	assert_int_equal(pf_ckpt_heavy_open(env.store, true, false, &h, &err), 0);
	assert_int_equal(pf_txn_begin(&h, &o, &t, &err), 0);
	struct pf_digest old = layer(t, fd, 2, NULL), now = layer(t, fd, 0, NULL);
	assert_string_equal(now.s, r.layer.id.s);
	assert_string_not_equal(old.s, now.s);
	/* Whoever says what it should be gets it in the version that it was. */
	assert_string_equal(layer(t, fd, 0, &old).s, old.s);
	assert_string_equal(layer(t, fd, 0, &now).s, now.s);

	/* The checkpoint that an older pinfold would have made: the same manifest with the other layer. */
	PF_CKPT struct pf_ckpt c = {0};
	assert_int_equal(pf_ckpt_heavy_load(&h, r.digest.s, NULL, &c, &err), 0);
	PF_FREE char *text = pf_json_text(c.record);
	char *id = strstr(text, now.s);
	assert_non_null(id);
	memcpy(id, old.s, strlen(old.s));
	assert_int_equal(pf_txn_finish(t, &w, &err), 0);
	if (pf_txn_commit(t, text, "older", "box-1", "2026-01-01T00:00:00.000000Z", &digest, &err) < 0)
		fail_msg("commit: %s", err.msg);
	pf_txn_end(t);
	pf_ckpt_heavy_done(&h);

	struct pf_ckpt_prepare_stats st;
	if (pf_ckpt_prepare(env.store, digest.s, NULL, &st, &err) < 0)
		fail_msg("prepare: %s", err.msg);
	PF_CKPT struct pf_ckpt back = {0};
	assert_int_equal(pf_ckpt_resolve(env.store, "older", NULL, &back, &err), 0);
	PF_FREE char *dir = pf_ckpt_layer_dir(env.store, &back.layers[0]);
	PF_CLOSE int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_FREE char *a = tree_describe(fd), *b = tree_describe(dirfd);
	tree_assert_same(a, b);

	/* And each is verified, in either order. */
	assert_int_equal(pf_ckpt_heavy_open(env.store, false, false, &h, &err), 0);
	struct pf_ckpt_verified *good = pf_ckpt_verified_new();
	if (pf_ckpt_verify(&h, &back, good, &err) < 0 || pf_ckpt_verify(&h, &c, good, &err) < 0)
		fail_msg("verify: %s", err.msg);
	pf_ckpt_verified_free(good);
	pf_ckpt_heavy_done(&h);
	pf_ckpt_result_done(&r);
	close(fd);
}

/* What a layer adds to a store of its own. */
static struct pf_txn_written added(
	const char *store, int fd, int version, const struct pf_digest *expected, struct pf_digest *id)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *dir = pf_asprintf("%s/%s", env.dir, store);
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	const struct pf_txn_opts o = {0};
	struct pf_txn_written w;
	struct pf_txn *t;

	assert_int_equal(pf_ckpt_heavy_open(dir, true, false, &h, &err), 0);
	assert_int_equal(pf_txn_begin(&h, &o, &t, &err), 0);
	*id = layer(t, fd, version, expected);
	assert_int_equal(pf_txn_finish(t, &w, &err), 0);
	pf_txn_end(t);
	return w;
}

/* A layer of the version before leaves nothing of the newer one in the store, which it is tried as first. */
static void older_trees_alone(void **state)
{
	(void)state;
	PF_CLOSE int fd = tree_mkdir(env.fd, "upper");
	struct pf_digest old, id;

	fill(fd);
	struct pf_txn_written one = added("one", fd, 2, NULL, &old), two = added("two", fd, 0, &old, &id);
	assert_string_equal(id.s, old.s);
	assert_int_equal(two.chunks_new, one.chunks_new);
	assert_int_equal(two.bytes_new, one.bytes_new);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(older_trees, setup, teardown),
		cmocka_unit_test_setup_teardown(older_trees_alone, setup, teardown)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
