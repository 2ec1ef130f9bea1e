/* What a checkpoint gives back is what was there, and equal trees make equal layers. */
#include "tests/unit/ckpt_tree.h"

#include <sys/mount.h>

#include "base/json.h"
#include "base/proc.h"
#include "checkpoint/gc.h"
#include "checkpoint/restore.h"
#include "checkpoint/store.h"
#include "checkpoint/verify.h"
#include "checkpoint/write.h"

static struct ckpt_env env;

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
	env_remove(&env);
	return 0;
}

static int upper(void)
{
	int fd = openat(env.fd, "upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static struct pf_ckpt_source source(int fd)
{
	return (struct pf_ckpt_source){.upper_fd = fd,
		.sandbox_id = "box-1",
		.base_image_ref = "python:latest",
		.base_image_digest =
			"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
}

static void write_ok(const struct pf_ckpt_source *s, struct pf_ckpt_result *r)
{
	struct pf_err err = PF_ERR_INIT;

	if (pf_ckpt_write(env.store, s, r, &err) < 0)
		fail_msg("write: %s", err.msg);
}

static void prepare_ok(const char *digest)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_prepare_stats st;

	if (pf_ckpt_prepare(env.store, digest, NULL, &st, &err) < 0)
		fail_msg("prepare: %s", err.msg);
}

static int layer_fd(const char *spec, size_t i)
{
	struct pf_err err = PF_ERR_INIT;
	PF_CKPT struct pf_ckpt c = {0};

	if (pf_ckpt_resolve(env.store, spec, NULL, &c, &err) < 0)
		fail_msg("resolve: %s", err.msg);
	PF_FREE char *dir = pf_ckpt_layer_dir(env.store, &c.layers[i]);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* Every kind of file, name, link, attribute, time and overlay mark survives write and prepare. */
static void everything_comes_back(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result r;

	tree_fill(fd);
	struct pf_ckpt_source s = source(fd);
	write_ok(&s, &r);
	prepare_ok(r.digest.s);
	assert_string_equal(r.name, "box-1.1");
	PF_CLOSE int back = layer_fd("box-1.1", 0);
	PF_FREE char *a = tree_describe(fd), *b = tree_describe(back);
	tree_assert_same(a, b);
	struct stat s1, s2;
	assert_int_equal(fstat(fd, &s1), 0);
	assert_int_equal(fstat(back, &s2), 0);
	assert_int_equal(s1.st_mode, s2.st_mode);
	assert_int_equal(s1.st_mtim.tv_nsec, s2.st_mtim.tv_nsec);
	pf_ckpt_result_done(&r);
}

static int setup_grpid(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)setup(state);
	assert_int_equal(mkdir(env.store, 0700), 0);
	PF_FREE char *cmd = pf_asprintf("cd %s && truncate -s 16M image && mkfs.ext4 -q image && "
					"mount -o loop,grpid image store",
		env.dir);
	char *argv[] = {"/bin/sh", "-c", cmd, NULL};
	*state = pf_run(argv, NULL, &err) == 0 ? &env : NULL;
	if (!*state)
		print_message("skipped: %s\n", err.msg);
	return 0;
}

static int teardown_grpid(void **state)
{
	if (*state)
		(void)umount2(env.store, MNT_DETACH);
	return teardown(state);
}

/* Also where a new file has the group of its directory: no file gets that which it did not have. */
static void groups_come_back_under_grpid(void **state)
{
	struct pf_ckpt_result r;

	if (!*state)
		skip();
	PF_CLOSE int fd = upper();
	for (int i = 0; i < 2; i++) {
		PF_CLOSE int dir = tree_mkdir(fd, i ? "setgid" : "staff"), in = tree_mkdir(dir, "own");
		tree_text(dir, "of-root", "0:0");
		tree_text(dir, "of-staff", "0:50");
		assert_int_equal(fchownat(dir, "of-staff", 0, 50, 0), 0);
		assert_int_equal(mkfifoat(dir, "fifo", 0644), 0);
		tree_text(in, "in-own", "0:0");
		assert_int_equal(fchown(dir, 0, 50), 0);
		assert_int_equal(fchmod(dir, i ? 02775 : 0775), 0);
	}
	struct pf_ckpt_source s = source(fd);
	write_ok(&s, &r);
	prepare_ok(r.digest.s);
	PF_CLOSE int back = layer_fd(r.digest.s, 0);
	PF_FREE char *a = tree_describe(fd), *b = tree_describe(back);
	tree_assert_same(a, b);
	pf_ckpt_result_done(&r);
}

/* The same tree gives the same layer whatever the number of threads; another mtime gives another. */
static void equal_trees_equal_layers(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result r[3];

	tree_fill(fd);
	for (int i = 0; i < 60; i++) { /* several zstd jobs */
		char name[16], *data = malloc(1 << 20);
		snprintf(name, sizeof(name), "f%d", i);
		for (size_t k = 0; k < 1 << 20; k++)
			data[k] = (char)(k * k >> (i % 11));
		tree_file(fd, name, data, 1 << 20);
		free(data);
	}
	struct pf_ckpt_source s = source(fd);
	for (int i = 0; i < 2; i++) {
		s.threads = i ? 3 : 1;
		write_ok(&s, &r[i]);
	}
	assert_string_equal(r[0].layer.id.s, r[1].layer.id.s);
	assert_int_equal(r[1].written.chunks_new, 0);
	tree_time(fd, "f1", 5, 6);
	write_ok(&s, &r[2]);
	assert_string_not_equal(r[0].layer.id.s, r[2].layer.id.s);
	for (int i = 0; i < 3; i++)
		pf_ckpt_result_done(&r[i]);
}

/* Sockets and names the format cannot carry are left out and counted; excluded directories stay, empty. */
static void left_out_is_counted(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result r;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	PF_CLOSE int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static const char *const exclude[] = {"/data/cache", NULL};

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/upper/sock", env.dir);
	assert_int_equal(bind(sock, (struct sockaddr *)&sa, sizeof(sa)), 0);
	tree_text(fd, ".wh.etc", "not a deletion");
	PF_CLOSE int tmp = tree_mkdir(fd, "tmp");
	PF_CLOSE int data = tree_mkdir(fd, "data");
	PF_CLOSE int cache = tree_mkdir(data, "cache");
	tree_text(tmp, "x", "scratch");
	tree_text(cache, "x", "scratch");
	tree_text(data, "kept", "kept");
	assert_int_equal(fsetxattr(data, "user.overlay.opaque", "y", 1, 0), 0);
	struct pf_ckpt_source s = source(fd);
	s.exclude = exclude;
	write_ok(&s, &r);
	assert_int_equal(r.layer.walked.skipped, 2);
	prepare_ok(r.digest.s);
	PF_CLOSE int back = layer_fd(r.digest.s, 0);
	assert_int_equal(faccessat(back, "tmp", F_OK, 0), 0);
	assert_int_equal(faccessat(back, "tmp/x", F_OK, 0), -1);
	assert_int_equal(faccessat(back, "data/cache", F_OK, 0), 0);
	assert_int_equal(faccessat(back, "data/cache/x", F_OK, 0), -1);
	assert_int_equal(faccessat(back, "data/kept", F_OK, 0), 0);
	assert_int_equal(faccessat(back, "sock", F_OK, 0), -1);
	PF_CLOSE int backdata = openat(back, "data", O_RDONLY | O_CLOEXEC);
	/* With trusted.* in force the payload's own user.overlay.opaque must not hide anything. */
	assert_int_equal(fgetxattr(backdata, "trusted.overlay.opaque", NULL, 0), -1);
	pf_ckpt_result_done(&r);
}

/* An upper that is no plain difference (redirects) or holds ids a box cannot have is an error, nothing stays.
 */
static void what_cannot_be_carried_is_refused(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;

	close(tree_mkdir(fd, "moved"));
	PF_CLOSE int moved = openat(fd, "moved", O_RDONLY | O_CLOEXEC);
	assert_int_equal(fsetxattr(moved, "trusted.overlay.redirect", "from", 4, 0), 0);
	struct pf_ckpt_source s = source(fd);
	assert_int_equal(pf_ckpt_write(env.store, &s, &r, &err), -1);
	assert_int_equal(err.kind, PF_ERR_UNSUPPORTED);
	assert_int_equal(fremovexattr(moved, "trusted.overlay.redirect"), 0);
	assert_int_equal(fchown(moved, 70000, 0), 0);
	assert_int_equal(pf_ckpt_write(env.store, &s, &r, &err), -1);
	assert_int_equal(err.kind, PF_ERR_INVALID);
	struct pf_ckpt *v;
	size_t n;
	PF_CLOSE int storefd = pf_ckpt_store_open(env.store, false, &err);
	assert_int_equal(pf_ckpt_list(storefd, &v, &n, &err), 0);
	assert_int_equal(n, 0);
	pf_ckpt_list_free(v, n);
	PF_CLOSE int tmp = openat(storefd, "tmp", O_RDONLY | O_CLOEXEC);
	PF_FREE char *left = tree_describe(tmp);
	assert_string_equal(left, "");
}

/* Names, prefixes, latest; a second snapshot of a box replaces its layer, a child's is stacked on its
 * parent's. */
static void names_and_chains(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result r[3];
	struct pf_err err = PF_ERR_INIT;
	PF_CKPT struct pf_ckpt c = {0};
	char prefix[20];

	assert_int_equal(pf_ckpt_resolve(env.store, "latest", "box-1", &c, &err), -1);
	assert_int_equal(err.kind, PF_ERR_NOT_FOUND);
	tree_text(fd, "a", "1");
	struct pf_ckpt_source s = source(fd);
	s.name = "first";
	write_ok(&s, &r[0]);
	assert_int_equal(pf_ckpt_write(env.store, &s, &r[1], &err), -1);
	assert_int_equal(err.kind, PF_ERR_EXISTS);
	tree_text(fd, "b", "2");
	s.name = NULL;
	s.parent = r[0].digest.s;
	write_ok(&s, &r[1]);
	assert_string_equal(r[1].name, "box-1.1");
	s.sandbox_id = "child";
	s.from = r[1].digest.s;
	s.parent = NULL;
	tree_text(fd, "c", "3");
	write_ok(&s, &r[2]);

	assert_int_equal(pf_ckpt_resolve(env.store, "latest", "box-1", &c, &err), 0);
	assert_string_equal(c.digest.s, r[1].digest.s);
	assert_string_equal(c.parent, r[0].digest.s);
	assert_int_equal(c.n_layers, 1);
	pf_ckpt_done(&c);
	snprintf(prefix, sizeof(prefix), "%.8s", r[2].digest.s + 7);
	assert_int_equal(pf_ckpt_resolve(env.store, prefix, NULL, &c, &err), 0);
	assert_int_equal(c.n_layers, 2);
	assert_string_equal(c.layers[1].id.s, r[1].layer.id.s);
	assert_string_equal(c.layers[0].id.s, r[2].layer.id.s);
	assert_string_equal(c.base_image_ref, "python:latest");
	assert_int_equal(pf_ckpt_check_base(&c, s.base_image_digest, &err), 0);
	assert_int_equal(pf_ckpt_check_base(&c, "host:debian:12:x86_64", &err), -1);
	struct pf_ckpt_prepare_stats st;
	assert_int_equal(pf_ckpt_prepare(env.store, c.digest.s, "host:debian:12:x86_64", &st, &err), -1);
	pf_ckpt_done(&c);
	assert_int_equal(pf_ckpt_resolve(env.store, "frist", NULL, &c, &err), -1);
	assert_non_null(strstr(err.msg, "first"));

	/* The parent is removed; the child has all it needs. */
	struct pf_ckpt_gc_stats gs;
	assert_int_equal(pf_ckpt_remove(env.store, "box-1.1", false, &gs, &err), 0);
	assert_int_equal(pf_ckpt_remove(env.store, "first", false, &gs, &err), 0);
	assert_int_equal(pf_ckpt_resolve(env.store, r[2].digest.s, NULL, &c, &err), 0);
	prepare_ok(c.digest.s);
	pf_ckpt_done(&c);
	assert_int_equal(pf_ckpt_remove(env.store, r[2].digest.s, false, &gs, &err), 0);
	assert_int_equal(gs.unpacked, 2);
	PF_CLOSE int storefd = pf_ckpt_store_open(env.store, false, &err);
	static const char *const dirs[] = {"manifests", "layers", "packs"};
	for (int i = 0; i < 3; i++) {
		PF_CLOSE int dir = openat(storefd, dirs[i], O_RDONLY | O_CLOEXEC);
		PF_FREE char *left = tree_describe(dir);
		assert_string_equal(left, "");
	}
	for (int i = 0; i < 3; i++)
		pf_ckpt_result_done(&r[i]);
}

/* A checkpoint that a sandbox stands on is not removed; by force only its name goes, the layers stay. */
static void used_checkpoints_stay(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_gc_stats gs;
	char json[200];

	tree_text(fd, "a", "1");
	struct pf_ckpt_source s = source(fd);
	write_ok(&s, &r);
	prepare_ok(r.digest.s);
	PF_CLOSE int storedir = openat(env.fd, "store", O_RDONLY | O_CLOEXEC);
	PF_CLOSE int boxes = tree_mkdir(storedir, "sandboxes");
	PF_CLOSE int box = tree_mkdir(boxes, "kid");
	snprintf(json, sizeof(json), "{\"id\":\"kid\",\"checkpoint\":\"%s\"}", r.digest.s);
	tree_text(box, "sandbox.json", json);
	PF_CLOSE int lower = layer_fd(r.digest.s, 0);
	assert_int_equal(pf_ckpt_remove(env.store, r.name, false, &gs, &err), -1);
	assert_int_equal(err.kind, PF_ERR_STATE);
	assert_non_null(strstr(err.msg, "kid"));
	assert_int_equal(pf_ckpt_remove(env.store, r.name, true, &gs, &err), 0);
	assert_int_equal(faccessat(lower, "a", F_OK, 0), 0);
	assert_int_equal(unlinkat(box, "sandbox.json", 0), 0);
	assert_int_equal(pf_ckpt_gc(env.store, &gs, &err), 0);
	assert_int_equal(gs.unpacked, 1);
	assert_int_equal(faccessat(lower, "a", F_OK, 0), -1);
	pf_ckpt_result_done(&r);
}

/* The small hash agrees with the standard's examples and at every padding length with itself fed as text. */
static void sha256_examples(void **state)
{
	(void)state;
	struct pf_digest d;
	char million[1000];

	pf_sha256_digest("", 0, &d);
	assert_string_equal(d.s, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	pf_sha256_digest("abc", 3, &d);
	assert_string_equal(d.s, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	pf_sha256_digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, &d);
	assert_string_equal(d.s, "sha256:248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	memset(million, 'a', sizeof(million));
	pf_sha256_digest(million, sizeof(million), &d);
	assert_string_equal(d.s, "sha256:41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3");
	assert_false(pf_digest_ok("sha256:abc"));
	assert_false(
		pf_digest_ok("sha256:../../../../../../../../../../../../../../../../../../../../../../x"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sha256_examples),
		cmocka_unit_test_setup_teardown(everything_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(groups_come_back_under_grpid, setup_grpid, teardown_grpid),
		cmocka_unit_test_setup_teardown(equal_trees_equal_layers, setup, teardown),
		cmocka_unit_test_setup_teardown(left_out_is_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_carried_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(names_and_chains, setup, teardown),
		cmocka_unit_test_setup_teardown(used_checkpoints_stay, setup, teardown),
	};

	if (geteuid() != 0) {
		printf("skipped: needs root (whiteouts, ownership)\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
