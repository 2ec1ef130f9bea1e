/* Damage and malice: a checkpoint that is not exactly what was written is refused, a write that fails or is
 * killed leaves nothing that shows. */
#include "tests/unit/ckpt_tree.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "base/json.h"
#include "checkpoint/gc.h"
#include "checkpoint/restore.h"
#include "checkpoint/store.h"
#include "checkpoint/tarhdr.h"
#include "checkpoint/tarout.h"
#include "checkpoint/transfer.h"
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

static void flip(const char *hex, off_t at, int bit)
{
	PF_FREE char *path = pf_asprintf("%s/checkpoints/blobs/sha256/%s", env.store, hex);
	PF_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	char c;

	assert_int_equal(pread(fd, &c, 1, at), 1);
	c = (char)(c ^ 1 << bit);
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
}

/* A flipped bit anywhere (layer, config, manifest) is found by verify, refused by prepare, passed over by
 * latest. */
static void bit_flips_are_found(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result good, r;
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_prepare_stats st;
	PF_CKPT struct pf_ckpt c = {0};
	struct pf_ckpt_verified done = {0};
	PF_CLOSE int storefd = pf_ckpt_store_open(env.store, true, &err);

	random_file(fd, "f", 100000);
	assert_int_equal(write_one(fd, &good, &err), 0);
	tree_text(fd, "g", "newer");
	assert_int_equal(write_one(fd, &r, &err), 0);
	assert_int_equal(pf_ckpt_load(storefd, r.digest.s, NULL, &c, &err), 0);
	assert_int_equal(pf_ckpt_verify(storefd, &c, &done, &err), 0);
	pf_ckpt_verified_done(&done);
	static const struct {
		int64_t part;
		int bit;
	} spots[] = {{0, 0}, {2, 3}, {5, 7}, {9, 1}};
	for (size_t i = 0; i < sizeof(spots) / sizeof(*spots); i++) {
		off_t at = (off_t)(r.layer.size * spots[i].part / 10);
		flip(pf_digest_hex(&r.layer.digest), at, spots[i].bit);
		assert_int_equal(pf_ckpt_verify(storefd, &c, &done, &err), -1);
		assert_int_equal(err.kind, PF_ERR_CORRUPT);
		assert_int_equal(pf_ckpt_prepare(env.store, r.digest.s, NULL, &st, &err), -1);
		assert_int_equal(err.kind, PF_ERR_CORRUPT);
		assert_empty("unpacked");
		assert_empty("tmp");
		flip(pf_digest_hex(&r.layer.digest), at, spots[i].bit);
	}
	flip(pf_digest_hex(&c.config_digest), 40, 2);
	PF_CKPT struct pf_ckpt latest = {0};
	assert_int_equal(pf_ckpt_resolve(env.store, "latest", "box", &latest, &err), 0);
	assert_string_equal(latest.digest.s, good.digest.s);
	assert_int_equal(latest.n_damaged, 1);
	flip(pf_digest_hex(&c.config_digest), 40, 2);
	flip(pf_digest_hex(&r.digest), 10, 2);
	PF_CKPT struct pf_ckpt again = {0};
	assert_int_equal(pf_ckpt_load(storefd, r.digest.s, NULL, &again, &err), -1);
	assert_int_equal(err.kind, PF_ERR_CORRUPT);
	/* gc beside a damaged checkpoint keeps everything; removing the damaged one works. */
	struct pf_ckpt_gc_stats gs;
	assert_int_equal(pf_ckpt_gc(env.store, &gs, &err), 0);
	assert_true(gs.kept_all);
	assert_int_equal(pf_ckpt_remove(env.store, r.name, false, &gs, &err), 0);
	assert_int_equal(gs.blobs, 3);
	assert_int_equal(pf_ckpt_prepare(env.store, good.digest.s, NULL, &st, &err), 0);
	pf_ckpt_result_done(&good);
	pf_ckpt_result_done(&r);
}

/* A layer that was cut is damaged for resolve already; writing the same tree again heals it. */
static void cut_layers_are_found(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result r, r2;
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_prepare_stats st;
	PF_CKPT struct pf_ckpt c = {0};

	random_file(fd, "f", 100000);
	assert_int_equal(write_one(fd, &r, &err), 0);
	PF_FREE char *path =
		pf_asprintf("%s/checkpoints/blobs/sha256/%s", env.store, pf_digest_hex(&r.layer.digest));
	assert_int_equal(truncate(path, r.layer.size - 1), 0);
	assert_int_equal(pf_ckpt_resolve(env.store, "latest", "box", &c, &err), -1);
	assert_int_equal(err.kind, PF_ERR_CORRUPT);
	assert_int_equal(pf_ckpt_prepare(env.store, r.digest.s, NULL, &st, &err), -1);
	assert_int_equal(err.kind, PF_ERR_CORRUPT);
	assert_int_equal(write_one(fd, &r2, &err), 0);
	assert_string_equal(r.layer.digest.s, r2.layer.digest.s);
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
	PF_FREE char *before = listing("blobs");
	random_file(fd, "f", 8 << 20);
	assert_int_equal(write_one(fd, &big, &err), -1);
	assert_int_equal(err.errnum, ENOSPC);
	PF_FREE char *after = listing("blobs");
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
		struct pf_ckpt_verified good = {0};
		for (size_t k = 0; k < n; k++) {
			assert_non_null(v[k].record);
			assert_int_equal(pf_ckpt_verify(storefd, &v[k], &good, &err), 0);
		}
		pf_ckpt_verified_done(&good);
		whole += n > 0;
		none += n == 0;
		for (size_t k = 0; k < n; k++)
			assert_int_equal(pf_ckpt_remove(env.store, v[k].digest.s, false, &gs, &err), 0);
		pf_ckpt_list_free(v, n);
		assert_int_equal(pf_ckpt_gc(env.store, &gs, &err), 0);
		assert_false(gs.kept_all);
		assert_empty("tmp");
		assert_empty("blobs/sha256");
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

/* ---- a hand-made layout with whatever members a test wants ---- */

struct evil {
	int dir, blobs;
	struct pf_tarout *o;
	int fd;
};

static void evil_open(struct evil *e)
{
	struct pf_err err = PF_ERR_INIT;

	(void)pf_rm_rf_at(env.fd, "evil", &err);
	e->dir = tree_mkdir(env.fd, "evil");
	assert_int_equal(mkdirat(e->dir, "blobs", 0700), 0);
	assert_int_equal(mkdirat(e->dir, "blobs/sha256", 0700), 0);
	e->blobs = openat(e->dir, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	e->fd = openat(e->dir, "layer", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	e->o = pf_tarout_layer(e->fd, 1, 1, &err);
	assert_non_null(e->o);
}

static void member(struct evil *e, char type, const char *path, const char *link, const char *data)
{
	struct pf_err err = PF_ERR_INIT;
	PF_BUF struct pf_buf h = {0};
	struct pf_tar_member m = {.type = type,
		.path = path,
		.link = link,
		.mode = type == '5' ? 0755 : 0644,
		.size = data ? (int64_t)strlen(data) : 0,
		.sparse_size = -1};

	pf_tar_header(&h, &m);
	assert_int_equal(pf_tarout_write(e->o, h.data, h.len, &err), 0);
	if (data) {
		assert_int_equal(pf_tarout_write(e->o, data, strlen(data), &err), 0);
		assert_int_equal(pf_tarout_zeros(e->o, 512 - strlen(data), &err), 0);
	}
}

/* Finish the layout; wrong_diff: the config lies about the tar. digest gets the manifest's. */
static void evil_close(struct evil *e, bool wrong_diff, const char *name, struct pf_digest *digest)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_tarout_result r;
	struct pf_digest config;
	int64_t config_size, size;

	assert_int_equal(pf_tarout_finish(e->o, &r, &err), 0);
	assert_int_equal(renameat(e->dir, "layer", e->blobs, pf_digest_hex(&r.digest)), 0);
	PF_FREE char *text = pf_asprintf("{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":"
					 "\"layers\",\"diff_ids\":[\"%s\"]},"
					 "\"io.pinfold.checkpoint\":{\"version\":1,\"sandbox_id\":\"evil\","
					 "\"created\":\"2026-01-01T00:00:00Z\","
					 "\"parent\":\"\",\"base_image\":{\"ref\":\"host\",\"digest\":\"host:"
					 "debian:12:x86_64\"},\"labels\":{}}}",
		wrong_diff ? r.digest.s : r.diff_id.s);
	assert_int_equal(pf_ckpt_put_document(e->blobs, text, &config, &config_size, &err), 0);
	PF_FREE char *manifest = pf_asprintf(
		"{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\","
		"\"digest\":\"%s\",\"size\":%lld},\"layers\":[{\"mediaType\":\"" PF_OCI_LAYER_ZSTD_TYPE
		"\",\"digest\":\"%s\",\"size\":%lld}]}",
		config.s, (long long)config_size, r.digest.s, (long long)r.size);
	assert_int_equal(pf_ckpt_put_document(e->blobs, manifest, digest, &size, &err), 0);
	PF_FREE char *index =
		pf_asprintf("{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"x\",\"digest\":\"%s\","
			    "\"size\":%lld,\"annotations\":{\"org.opencontainers.image.ref.name\":\"%s\","
			    "\"cdi.k8s.io/x\":\"vendor=evil\"}}]}",
			digest->s, (long long)size, name);
	tree_text(e->dir, "index.json", index);
	close(e->fd);
	close(e->blobs);
	close(e->dir);
}

static int import_evil(const char *name, struct pf_err *err)
{
	struct pf_ckpt_transfer_stats s;
	PF_FREE char *dir = pf_asprintf("%s/evil", env.dir);

	return pf_ckpt_import(env.store, dir, NULL, name, &s, err);
}

static void sparse_member(struct evil *e, int64_t size)
{
	struct pf_err err = PF_ERR_INIT;
	PF_BUF struct pf_buf h = {0};
	char map[512] = {0};
	struct pf_tar_member m = {
		.type = '0', .path = "huge", .mode = 0644, .size = 512, .sparse_size = size};

	snprintf(map, sizeof(map), "1\n%lld\n0\n", (long long)size);
	pf_tar_header(&h, &m);
	assert_int_equal(pf_tarout_write(e->o, h.data, h.len, &err), 0);
	assert_int_equal(pf_tarout_write(e->o, map, sizeof(map), &err), 0);
}

static void evil_members(struct evil *e, int which)
{
	struct pf_tar_xa mark = {(char *)"trusted.overlay.redirect", (char *)"/etc", 4};
	struct pf_tar_member m = {.type = '5', .path = "d/", .mode = 0755, .sparse_size = -1};
	PF_BUF struct pf_buf h = {0};
	struct pf_err err = PF_ERR_INIT;

	member(e, '5', "./", NULL, NULL);
	switch (which) {
	case 0:
		member(e, '0', "../escaped", NULL, "x");
		break;
	case 1:
		member(e, '0', "a/../../escaped", NULL, "x");
		break;
	case 2:
		member(e, '0', "/absolute", NULL, "x");
		break;
	case 3:
		member(e, '2', "d", "/tmp", NULL);
		member(e, '0', "d/escaped", NULL, "x");
		break;
	case 4:
		member(e, '2', "d", "..", NULL);
		member(e, '5', "d/", NULL, NULL);
		member(e, '0', "d/escaped", NULL, "x");
		break;
	case 5:
		member(e, '1', "passwd", "/etc/passwd", NULL);
		break;
	case 6:
		member(e, '1', "passwd", "../../../../../../etc/passwd", NULL);
		break;
	case 7:
		member(e, '2', "l", "/etc", NULL);
		member(e, '1', "passwd", "l/passwd", NULL);
		break;
	case 8:
		member(e, '3', "null", NULL, NULL);
		break;
	case 9:
		member(e, '4', "disk", NULL, NULL);
		break;
	case 10:
		member(e, '0', "twice", NULL, "1");
		member(e, '0', "twice", NULL, "2");
		break;
	case 11:
		member(e, '0', ".wh..", NULL, NULL);
		break;
	case 12:
		member(e, '0', ".wh...", NULL, NULL);
		break;
	case 13:
		sparse_member(e, (int64_t)1 << 40);
		break;
	case 14:
		m.uid = 70000;
		pf_tar_header(&h, &m);
		assert_int_equal(pf_tarout_write(e->o, h.data, h.len, &err), 0);
		break;
	case 15:
		m.xattrs = &mark;
		m.n_xattrs = 1;
		pf_tar_header(&h, &m);
		assert_int_equal(pf_tarout_write(e->o, h.data, h.len, &err), 0);
		break;
	default:
		member(e, '0', "d/..", NULL, "x");
	}
}

#define N_EVIL 17

/* Archives that try to leave the root, or hold what our writer never makes: each is refused with nothing
 * made. */
static void hostile_layers_are_refused(void **state)
{
	(void)state;

	for (int i = 0; i < N_EVIL; i++) {
		struct evil e;
		struct pf_err err = PF_ERR_INIT;
		struct pf_digest d;
		struct pf_ckpt_prepare_stats st;
		char name[24];

		snprintf(name, sizeof(name), "evil-%d", i);
		evil_open(&e);
		evil_members(&e, i);
		evil_close(&e, false, name, &d);
		if (import_evil(NULL, &err) < 0)
			fail_msg("%d: import: %s", i, err.msg);
		if (pf_ckpt_prepare(env.store, d.s, NULL, &st, &err) == 0)
			fail_msg("hostile layer %d was unpacked", i);
		if (err.kind != PF_ERR_CORRUPT)
			fail_msg("hostile layer %d: kind %s: %s", i, pf_err_kind_name(err.kind), err.msg);
		assert_empty("unpacked");
		assert_empty("tmp");
		assert_int_equal(faccessat(env.fd, "store/checkpoints/unpacked/escaped", F_OK, 0), -1);
		assert_int_equal(access("/tmp/escaped", F_OK), -1);
	}
}

/* Lies in the documents are refused at import: nothing becomes visible. */
static void hostile_documents_are_refused(void **state)
{
	(void)state;
	struct evil e;
	struct pf_err err = PF_ERR_INIT;
	struct pf_digest d;
	char path[200];

	evil_open(&e);
	member(&e, '0', "f", NULL, "x");
	evil_close(&e, true, "wrong-diff-id", &d);
	assert_int_equal(import_evil(NULL, &err), -1);
	assert_int_equal(err.kind, PF_ERR_CORRUPT);

	evil_open(&e);
	member(&e, '0', "f", NULL, "x");
	evil_close(&e, false, "../../index.json", &d);
	assert_int_equal(import_evil(NULL, &err), -1);
	assert_int_equal(import_evil("latest", &err), -1);
	assert_int_equal(import_evil("fine", &err), 0);
	/* The index entry is ours: no annotation of theirs came along. */
	PF_FREE char *index_path = pf_asprintf("%s/checkpoints/index.json", env.store);
	PF_FREE char *index = NULL;
	assert_int_equal(pf_read_file_at(AT_FDCWD, index_path, 1 << 20, &index, NULL, &err), 0);
	assert_null(strstr(index, "cdi"));
	assert_int_equal(import_evil("fine", &err), 0);
	assert_int_equal(import_evil("other", &err), -1);
	assert_int_equal(err.kind, PF_ERR_EXISTS);

	/* A blob that is a link to somewhere else. */
	evil_open(&e);
	member(&e, '0', "g", NULL, "y");
	evil_close(&e, false, "link", &d);
	snprintf(path, sizeof(path), "evil/blobs/sha256/%s", pf_digest_hex(&d));
	assert_int_equal(renameat(env.fd, path, env.fd, "manifest"), 0);
	assert_int_equal(symlinkat("../../../manifest", env.fd, path), 0);
	assert_int_equal(import_evil(NULL, &err), -1);
	assert_int_equal(err.kind, PF_ERR_CORRUPT);
	assert_empty("tmp");
}

/* Export and import give the same checkpoint in another store. */
static void export_import(void **state)
{
	(void)state;
	PF_CLOSE int fd = upper();
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_transfer_stats s;
	struct pf_ckpt_prepare_stats st;
	PF_CKPT struct pf_ckpt c = {0};

	struct pf_ckpt_export_opts plain = {0};
	tree_fill(fd);
	assert_int_equal(write_one(fd, &r, &err), 0);
	PF_FREE char *out = pf_asprintf("%s/out", env.dir);
	PF_FREE char *second = pf_asprintf("%s/second", env.dir);
	if (pf_ckpt_export(env.store, "latest", "box", out, &plain, &s, &err) < 0)
		fail_msg("export: %s", err.msg);
	assert_string_equal(s.digest.s, r.digest.s);
	assert_int_equal(pf_ckpt_export(env.store, "latest", "box", out, &plain, &s, &err), -1);
	assert_int_equal(err.kind, PF_ERR_EXISTS);
	if (pf_ckpt_import(second, out, r.name, "elsewhere", &s, &err) < 0)
		fail_msg("import: %s", err.msg);
	assert_int_equal(pf_ckpt_resolve(second, "elsewhere", NULL, &c, &err), 0);
	assert_string_equal(c.digest.s, r.digest.s);
	assert_int_equal(pf_ckpt_prepare(second, c.digest.s, NULL, &st, &err), 0);
	PF_FREE char *dir = pf_ckpt_layer_dir(second, &c.layers[0]);
	PF_CLOSE int back = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_FREE char *a = tree_describe(fd), *b = tree_describe(back);
	tree_assert_same(a, b);
	/* A complete export is an image, not a checkpoint: import says so. */
	PF_FREE char *whole = pf_asprintf("%s/whole", env.dir);
	PF_FREE char *base = pf_asprintf("%s/base", env.dir);
	PF_CLOSE int basefd = tree_mkdir(env.fd, "base");
	tree_text(basefd, "from-image", "i");
	char *layers[] = {base, NULL};
	struct pf_ckpt_export_opts complete = {.base_layers = layers};
	if (pf_ckpt_export(env.store, r.digest.s, NULL, whole, &complete, &s, &err) < 0)
		fail_msg("complete export: %s", err.msg);
	assert_int_equal(pf_ckpt_import(second, whole, NULL, NULL, &s, &err), -1);
	assert_non_null(strstr(err.msg, "an image, not a checkpoint"));
	pf_ckpt_result_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bit_flips_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(cut_layers_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(full_disk_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_writes_do_not_show, setup, teardown),
		cmocka_unit_test_setup_teardown(gc_spares_the_living, setup, teardown),
		cmocka_unit_test_setup_teardown(hostile_layers_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(hostile_documents_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(export_import, setup, teardown),
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
