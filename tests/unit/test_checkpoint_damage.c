/* Damage and malice: a checkpoint that is not exactly what was written is refused, a write that fails or is
 * killed leaves nothing that shows. */
#include "tests/unit/ckpt_tree.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "checkpoint/gc.h"
#include "checkpoint/restore.h"
#include "checkpoint/store.h"
#include "checkpoint/verify.h"
#include "checkpoint/write.h"

static struct ckpt_env env;
static int mounted;

static int setup(void **state)
{
	(void)state;
	env_make(&env, "/tmp");
	close(tree_mkdir(env.fd, "upper"));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (mounted)
		(void)umount2(env.store, MNT_DETACH);
	mounted = 0;
	env_remove(&env);
	return 0;
}

static int upper(void)
{
	int fd = openat(env.fd, "upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static int write_one(int fd, struct pf_ckpt_result *r, struct pf_err *err)
{
	struct pf_ckpt_source s = {.upper_fd = fd,
		.sandbox_id = "box",
		.base_image_ref = "host",
		.base_image_digest = "host:debian:12:x86_64"};

	return pf_ckpt_write(env.store, &s, r, err);
}

static void random_file(int dirfd, const char *name, size_t len)
{
	PF_FREE char *data = malloc(len);
	unsigned x = 12345;

	for (size_t i = 0; i < len; i++) {
		x = x * 1103515245u + 12345u;
		data[i] = (char)(x >> 16);
	}
	tree_file(dirfd, name, data, len);
}

static char *listing(const char *what)
{
	PF_FREE char *path = pf_asprintf("%s/checkpoints/%s", env.store, what);
	PF_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return tree_describe(fd);
}

static void assert_empty(const char *what)
{
	PF_FREE char *l = listing(what);
	if (*l)
		fail_msg("%s is not empty: %.200s", what, l);
}

static void flip(const char *path, off_t at, int bit)
{
	PF_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	char c;

	assert_int_equal(pread(fd, &c, 1, at), 1);
	c = (char)(c ^ 1 << bit);
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
}

static int verify(const char *digest, struct pf_err *err)
{
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;
	PF_CKPT struct pf_ckpt c = {0};
	struct pf_ckpt_verified *good = pf_ckpt_verified_new();
	int r = pf_ckpt_heavy_open(env.store, false, false, &h, err);

	if (r == 0)
		r = pf_ckpt_heavy_load(&h, digest, NULL, &c, err);
	if (r == 0)
		r = pf_ckpt_verify(&h, &c, good, err);
	pf_ckpt_verified_free(good);
	return r;
}

/* Flip a bit here and there in one file of the store: verify finds it and prepare refuses, or all that is
 * given back is as it was. */
static void flip_everywhere(const char *path, const char *digest, const char *want, int *found)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_prepare_stats st;
	struct stat s;

	assert_int_equal(stat(path, &s), 0);
	for (int i = 0; i < 24 && i < s.st_size; i++) {
		off_t at = s.st_size * i / 24;
		flip(path, at, i % 8);
		if (verify(digest, &err) < 0) {
			(*found)++;
			assert_int_equal(err.kind, PF_ERR_CORRUPT);
			assert_int_equal(pf_ckpt_prepare(env.store, digest, NULL, &st, &err), -1);
			assert_int_equal(err.kind, PF_ERR_CORRUPT);
			assert_empty("unpacked");
		} else {
			PF_CKPT struct pf_ckpt c = {0};
			assert_int_equal(pf_ckpt_prepare(env.store, digest, NULL, &st, &err), 0);
			assert_int_equal(pf_ckpt_resolve(env.store, digest, NULL, &c, &err), 0);
			PF_FREE char *dir = pf_ckpt_layer_dir(env.store, &c.layers[0]);
			PF_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			PF_FREE char *got = tree_describe(fd);
			tree_assert_same(want, got);
			PF_FREE char *unpacked = pf_asprintf("%s/checkpoints/unpacked", env.store);
			assert_int_equal(pf_rm_rf_at(AT_FDCWD, unpacked, &err), 0);
			assert_int_equal(mkdir(unpacked, 0700), 0);
		}
		assert_empty("tmp");
		flip(path, at, i % 8);
	}
}

/* A flipped bit anywhere (packs, layer, manifest) is found by verify and refused by prepare, or harms
 * nothing; a manifest that has one is passed over by latest. */
static void bit_flips_are_found(void **state)
{
	(void)state;
	static const char *const dirs[] = {"packs", "layers", "manifests"};
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result good, r;
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_prepare_stats st;
	int found[3] = {0};

	random_file(fd, "f", 100000);
	tree_text(fd, "g", "newer");
	assert_int_equal(write_one(fd, &r, &err), 0);
	PF_FREE char *want = tree_describe(fd);
	assert_int_equal(verify(r.digest.s, &err), 0);
	for (size_t i = 0; i < 3; i++) {
		PF_FREE char *path = pf_asprintf("%s/checkpoints/%s", env.store, dirs[i]);
		DIR *d = opendir(path);
		struct dirent *e;
		assert_non_null(d);
		while ((e = readdir(d)))
			if (e->d_name[0] != '.') {
				PF_FREE char *file = pf_asprintf("%s/%s", path, e->d_name);
				flip_everywhere(file, r.digest.s, want, &found[i]);
			}
		closedir(d);
	}
	assert_true(found[0] > 10);
	assert_true(found[1] > 10);
	assert_int_equal(found[2], 24);
	tree_text(fd, "h", "newest");
	assert_int_equal(write_one(fd, &good, &err), 0);
	char name[96];
	PF_FREE char *manifest =
		pf_asprintf("%s/checkpoints/%s", env.store, pf_ckpt_manifest_path(&good.digest, name));
	flip(manifest, 10, 2);
	PF_CKPT struct pf_ckpt latest = {0};
	assert_int_equal(pf_ckpt_resolve(env.store, "latest", "box", &latest, &err), 0);
	assert_string_equal(latest.digest.s, r.digest.s);
	assert_int_equal(latest.n_damaged, 1);
	/* gc beside a damaged checkpoint keeps everything; removing the damaged one works. */
	struct pf_ckpt_gc_stats gs;
	assert_int_equal(pf_ckpt_gc(env.store, &gs, &err), 0);
	assert_true(gs.kept_all);
	assert_int_equal(pf_ckpt_remove(env.store, good.name, false, &gs, &err), 0);
	assert_int_equal(gs.manifests, 1);
	assert_int_equal(gs.layers, 1);
	assert_int_equal(pf_ckpt_prepare(env.store, r.digest.s, NULL, &st, &err), 0);
	pf_ckpt_result_done(&good);
	pf_ckpt_result_done(&r);
}

/* A layer that is missing is damaged for resolve already; writing the same tree again heals it. */
static void missing_layers_are_found(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result r, r2;
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_prepare_stats st;
	PF_CKPT struct pf_ckpt c = {0};
	char name[96];

	random_file(fd, "f", 100000);
	assert_int_equal(write_one(fd, &r, &err), 0);
	PF_FREE char *path =
		pf_asprintf("%s/checkpoints/%s", env.store, pf_ckpt_layer_path(&r.layer.id, false, name));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(pf_ckpt_resolve(env.store, "latest", "box", &c, &err), -1);
	assert_int_equal(err.kind, PF_ERR_CORRUPT);
	assert_int_equal(pf_ckpt_prepare(env.store, r.digest.s, NULL, &st, &err), -1);
	assert_int_equal(err.kind, PF_ERR_CORRUPT);
	assert_int_equal(write_one(fd, &r2, &err), 0);
	assert_string_equal(r.layer.id.s, r2.layer.id.s);
	assert_int_equal(pf_ckpt_prepare(env.store, r.digest.s, NULL, &st, &err), 0);
	pf_ckpt_result_done(&r);
	pf_ckpt_result_done(&r2);
}

/* A full disk: one error with ENOSPC, and the store holds what it held before. */
static void full_disk_leaves_nothing(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result r, big;
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_prepare_stats st;

	assert_int_equal(mkdir(env.store, 0700), 0);
	if (mount("tmpfs", env.store, "tmpfs", 0, "size=3m") < 0) {
		printf("skipped: no tmpfs mount here\n");
		skip();
	}
	mounted = 1;
	tree_text(fd, "small", "x");
	assert_int_equal(write_one(fd, &r, &err), 0);
	PF_FREE char *before = listing("packs");
	random_file(fd, "f", 8 << 20);
	assert_int_equal(write_one(fd, &big, &err), -1);
	assert_int_equal(err.errnum, ENOSPC);
	PF_FREE char *after = listing("packs");
	tree_assert_same(before, after);
	assert_empty("tmp");
	/* Packed it fits, unpacked it does not. */
	PF_FREE char *zeros = pf_calloc(1, 8 << 20);
	memset(zeros, 'z', 8 << 20);
	tree_file(fd, "f", zeros, 8 << 20);
	assert_int_equal(write_one(fd, &big, &err), 0);
	assert_int_equal(pf_ckpt_prepare(env.store, big.digest.s, NULL, &st, &err), -1);
	assert_int_equal(err.errnum, ENOSPC);
	assert_empty("unpacked");
	assert_empty("tmp");
	pf_ckpt_result_done(&r);
	pf_ckpt_result_done(&big);
}

/* Killed at any point of a write: no checkpoint shows, or a whole one does; gc removes the rest. */
static void killed_writes_do_not_show(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_gc_stats gs;
	int whole = 0, none = 0;

	random_file(fd, "f", 3 << 20);
	PF_CLOSE int storefd = pf_ckpt_store_open(env.store, true, &err);
	/* How long one takes decides where the kills fall: from its start to a little after its end. */
	struct pf_ckpt_result first;
	assert_int_equal(write_one(fd, &first, &err), 0);
	assert_int_equal(pf_ckpt_remove(env.store, first.name, false, &gs, &err), 0);
	pf_ckpt_result_done(&first);
	for (int i = 0; i < 40; i++) {
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			struct pf_ckpt_result r;
			struct pf_err e = PF_ERR_INIT;
			_exit(write_one(fd, &r, &e) < 0);
		}
		usleep((useconds_t)(first.duration_us * i * 5 / 4 / 40));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		struct pf_ckpt *v;
		size_t n;
		assert_int_equal(pf_ckpt_list(storefd, &v, &n, &err), 0);
		for (size_t k = 0; k < n; k++) {
			assert_non_null(v[k].record);
			assert_int_equal(verify(v[k].digest.s, &err), 0);
		}
		whole += n > 0;
		none += n == 0;
		for (size_t k = 0; k < n; k++)
			assert_int_equal(pf_ckpt_remove(env.store, v[k].digest.s, false, &gs, &err), 0);
		pf_ckpt_list_free(v, n);
		assert_int_equal(pf_ckpt_gc(env.store, &gs, &err), 0);
		assert_false(gs.kept_all);
		assert_empty("tmp");
		assert_empty("packs");
		assert_empty("layers");
		assert_empty("manifests");
	}
	printf("killed: %d without a checkpoint, %d after it was whole\n", none, whole);
}

/* gc beside a running writer must not take its files away. */
static void gc_spares_the_living(void **state)
{
	(void)state;
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_gc_stats gs;
	PF_CLOSE int storefd = pf_ckpt_store_open(env.store, true, &err);
	char name[64];
	int lock = -1;

	assert_int_equal(pf_ckpt_tmp_make(storefd, name, &lock, &err), 0);
	assert_int_equal(pf_ckpt_gc(env.store, &gs, &err), 0);
	assert_int_equal(gs.temps, 0);
	assert_int_equal(faccessat(storefd, name, F_OK, 0), 0);
	close(lock);
	assert_int_equal(pf_ckpt_gc(env.store, &gs, &err), 0);
	assert_int_equal(gs.temps, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bit_flips_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(missing_layers_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(full_disk_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_writes_do_not_show, setup, teardown),
		cmocka_unit_test_setup_teardown(gc_spares_the_living, setup, teardown),
	};

	if (geteuid() != 0) {
		printf("skipped: needs root (whiteouts, ownership)\n");
		return 0;
	}
	/* The tmpfs of the full-disk test is nobody else's business. */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		printf("no mount namespace: %s\n", strerror(errno));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
