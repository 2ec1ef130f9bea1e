/* A snapshot of a tree that is written to is the tree as it stood between freeze and thaw, whatever happened
 * before and after. */
#include "tests/unit/ckpt_tree.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "checkpoint/heavy.h"
#include "checkpoint/nodeio.h"
#include "checkpoint/restore.h"
#include "checkpoint/store.h"
#include "checkpoint/write.h"
#include "overlay/mount.h"

static struct ckpt_env env;

/* What the writers do and what stood there while they were stopped. */
struct box {
	int fd;
	void (*before_freeze)(struct box *b); /* between the passes: pass 1 has seen none of it */
	void (*after_thaw)(struct box *b);
	char *frozen; /* description while frozen */
	bool fail_freeze, fail_thaw;
	int thawed;
	char *map;
	pthread_t writer;
	pthread_mutex_t mu; /* held while frozen */
	bool stop;
};

static int freeze(void *ctx, struct pf_err *err)
{
	struct box *b = ctx;

	if (b->fail_freeze)
		return pf_fail(err, EIO, "freeze");
	if (b->before_freeze)
		b->before_freeze(b);
	pthread_mutex_lock(&b->mu);
	b->frozen = tree_describe(b->fd);
	return 0;
}

static int thaw(void *ctx, struct pf_err *err)
{
	struct box *b = ctx;

	b->thawed++;
	pthread_mutex_unlock(&b->mu);
	if (b->after_thaw)
		b->after_thaw(b);
	return b->fail_thaw ? pf_fail(err, EIO, "thaw") : 0;
}

static int setup(void **state)
{
	(void)state;
	env_make(&env, "/tmp");
	close(tree_mkdir(env.fd, "upper"));
	return 0;
}

/* The same with checkpoints that are sealed: what is set aside is encrypted. */
static int setup_sealed(void **state)
{
	static char spec[sizeof(env.dir) + 16];

	(void)setup(state);
	tree_text(env.fd, "key", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
	assert_int_equal(fchmodat(env.fd, "key", 0600, 0), 0);
	snprintf(spec, sizeof(spec), "file:%s/key", env.dir);
	pf_ckpt_use_key(spec, 1);
	pf_ckpt_open_manifest = pf_ckpt_heavy_open_manifest;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pf_ckpt_use_key(NULL, -1);
	pf_ckpt_open_manifest = NULL;
	env_remove(&env);
	return 0;
}

static void snapshot(struct box *b, struct pf_ckpt_result *r, struct pf_err *err, int expect)
{
	struct pf_live live = {freeze, thaw, b};
	struct pf_ckpt_source s = {.upper_fd = b->fd,
		.sandbox_id = "live",
		.base_image_ref = "host",
		.base_image_digest = "host:debian:12:x86_64",
		.live = &live};

	int got = pf_ckpt_write(env.store, &s, r, err);
	if (got != expect)
		fail_msg("write: %d %s", got, err->msg);
}

static void check_restored(struct box *b, struct pf_ckpt_result *r)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_ckpt_prepare_stats st;
	PF_CKPT struct pf_ckpt c = {0};

	if (pf_ckpt_prepare(env.store, r->digest.s, NULL, &st, &err) < 0 ||
		pf_ckpt_resolve(env.store, r->digest.s, NULL, &c, &err) < 0)
		fail_msg("prepare: %s", err.msg);
	assert_int_equal(c.sealed, pf_ckpt_open_manifest != NULL);
	PF_FREE char *dir = pf_ckpt_layer_dir(env.store, &c.layers[0]);
	PF_CLOSE int back = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_FREE char *got = tree_describe(back);
	tree_assert_same(b->frozen, got);
	free(b->frozen);
	pf_ckpt_result_done(r);
}

static void box_init(struct box *b)
{
	*b = (struct box){.fd = openat(env.fd, "upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	pthread_mutex_init(&b->mu, NULL);
	assert_true(b->fd >= 0);
}

/* Let what setup wrote become older than the tick that counts as uncertain. */
static void settle(void)
{
	struct timespec t = {.tv_nsec = 60000000};
	nanosleep(&t, NULL);
}

/* Nothing changed: the second pass finds that out and takes nothing. */
static void quiet_tree_is_packed_once(void **state)
{
	(void)state;
	struct box b;
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;

	box_init(&b);
	tree_fill(b.fd);
	settle();
	snapshot(&b, &r, &err, 0);
	assert_int_equal(b.thawed, 1);
	assert_int_equal(r.layer.live.changed, 0);
	check_restored(&b, &r);
	close(b.fd);
}

static void edit(struct box *b)
{
	int a = openat(b->fd, "a", O_RDONLY | O_CLOEXEC), bb = openat(b->fd, "b", O_RDONLY | O_CLOEXEC);

	tree_text(bb, "big", "now small");
	assert_int_equal(unlinkat(a, "one", 0), 0); /* the first of three hard links */
	assert_int_equal(renameat(b->fd, "opaque", b->fd, "renamed"), 0);
	assert_int_equal(unlinkat(bb, "gone", 0), 0);
	tree_text(bb, "gone", "a file where a deletion was");
	assert_int_equal(unlinkat(bb, "fifo", 0), 0);
	assert_int_equal(mknodat(bb, "fifo", S_IFCHR, 0), 0);
	close(tree_mkdir(b->fd, "0-new"));
	assert_int_equal(fsetxattr(a, "user.on-dir", "changed", 7, 0), 0);
	assert_int_equal(fchmodat(bb, "setuid", 0700, 0), 0);
	assert_int_equal(unlinkat(bb, "all-hole", 0), 0);
	assert_int_equal(mkdirat(bb, "all-hole", 0700), 0); /* a directory where a file was */
	int fd = openat(bb, "sparse", O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "middle", 6, (off_t)1 << 30), 6);
	close(fd);
	close(a);
	close(bb);
}

static void wreck(struct box *b)
{
	struct pf_err err = PF_ERR_INIT;

	assert_int_equal(pf_rm_rf_at(b->fd, "b", &err), 0);
	assert_int_equal(pf_rm_rf_at(b->fd, "odd", &err), 0);
	tree_text(b->fd, "zzz-three", "after");
}

/* Edits of every kind between the passes are in; edits after the thaw are not. */
static void edits_between_the_passes(void **state)
{
	(void)state;
	struct box b;
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;

	box_init(&b);
	tree_fill(b.fd);
	settle();
	b.before_freeze = edit;
	b.after_thaw = wreck;
	snapshot(&b, &r, &err, 0);
	assert_true(r.layer.live.changed > 8);
	assert_true(r.layer.live.changed < 60); /* the 300 odd names are not taken again */
	check_restored(&b, &r);
	close(b.fd);
}

static void edits_of_a_sealed_one(void **state)
{
	edits_between_the_passes(state);
}

static void fill_hosts(struct box *b)
{
	tree_text(b->fd, "etc/hosts", "127.0.0.1 localhost");
}

static void box_with_mount_point(struct box *b)
{
	box_init(b);
	close(tree_mkdir(b->fd, "etc"));
	tree_text(b->fd, "etc/hosts", "");
	settle();
}

/* One that stays empty is no reason to walk the tree again. */
static void a_mount_point_that_stays_empty(void **state)
{
	(void)state;
	struct box b;
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;

	box_with_mount_point(&b);
	snapshot(&b, &r, &err, 0);
	assert_int_equal(r.layer.live.changed, 0);
	free(b.frozen);
	pf_ckpt_result_done(&r);
	close(b.fd);
}

/* An empty file that a box's own is mounted upon is left out; filled in the meantime it is somebody's. */
static void a_mount_point_that_was_filled(void **state)
{
	(void)state;
	struct box b;
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;

	box_with_mount_point(&b);
	b.before_freeze = fill_hosts;
	snapshot(&b, &r, &err, 0);
	check_restored(&b, &r);
	close(b.fd);
}

/* A device node that took a file's name after the walk has seen it is not opened. */
static void a_device_in_place_of_a_file(void **state)
{
	(void)state;
	struct box b;
	struct stat st;
	struct pf_err err = PF_ERR_INIT;
	int fd = -1;

	box_init(&b);
	if (mknodat(b.fd, "name", S_IFCHR | 0600, makedev(1, 3)) < 0) {
		close(b.fd);
		print_message("no device nodes can be made: %s\n", strerror(errno));
		skip();
	}
	PF_CLOSE int dir = pf_dir_without_devices(b.fd, &err);
	assert_true(dir >= 0);
	assert_int_equal(fstat(dir, &st), 0);
	PF_FREE struct pf_node *n = pf_calloc(1, sizeof(*n) + sizeof("name"));
	memcpy(n->name, "name", sizeof("name"));
	n->dev = st.st_dev;
	assert_int_equal(pf_node_open(n, dir, "name", true, &fd, &err), 1);
	assert_int_equal(fd, -1);
	assert_int_equal(errno, EACCES);
	assert_int_equal(pf_node_open(n, dir, "name", false, &fd, &err), -1);
	close(b.fd);
}

static void scribble(struct box *b)
{
	memcpy(b->map, "second", 6); /* same page, no new fault, no new time */
}

/* A write through a mapping that moves no time stamp: the file's ctime is too young to prove anything. */
static void mapped_writes_are_seen(void **state)
{
	(void)state;
	struct box b;
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;
	char page[4096] = {0};

	box_init(&b);
	tree_file(b.fd, "mapped", page, sizeof(page));
	settle();
	PF_CLOSE int fd = openat(b.fd, "mapped", O_RDWR | O_CLOEXEC);
	b.map = mmap(NULL, sizeof(page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(b.map, MAP_FAILED);
	memcpy(b.map, "first", 5);
	settle();
	b.before_freeze = scribble;
	snapshot(&b, &r, &err, 0);
	assert_non_null(strstr(b.frozen, "mapped"));
	check_restored(&b, &r);
	munmap(b.map, sizeof(page));
	close(b.fd);
}

static void *keep_writing(void *arg)
{
	struct box *b = arg;
	unsigned seed = 1;

	for (;;) {
		pthread_mutex_lock(&b->mu);
		bool stop = b->stop;
		char name[32], to[32], data[3000];
		seed = seed * 1103515245u + 12345u;
		snprintf(name, sizeof(name), "d%u/f%u", seed >> 8 & 7, seed >> 16 & 63);
		snprintf(to, sizeof(to), "d%u/g%u", seed >> 11 & 7, seed >> 22 & 63);
		memset(data, (int)(seed >> 16), sizeof(data));
		switch (seed >> 28) {
		case 0:
		case 1:
			(void)unlinkat(b->fd, name, 0);
			break;
		case 2:
			(void)renameat(b->fd, name, b->fd, to);
			break;
		case 3:
			(void)!linkat(b->fd, name, b->fd, to, 0);
			break;
		default: {
			int fd = openat(b->fd, name,
				O_WRONLY | O_CREAT | O_CLOEXEC | (seed & 64 ? O_TRUNC : 0), 0644);
			if (fd >= 0) {
				(void)!pwrite(fd, data, seed >> 5 & 2047, seed >> 7 & 4095);
				close(fd);
			}
		}
		}
		pthread_mutex_unlock(&b->mu);
		if (stop)
			return NULL;
	}
}

/* Ten snapshots in a row of a tree that is rewritten all the time: each is one moment of it. */
static void busy_tree(void **state)
{
	(void)state;
	struct box b;
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;
	char name[16];

	box_init(&b);
	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		close(tree_mkdir(b.fd, name));
	}
	assert_int_equal(pthread_create(&b.writer, NULL, keep_writing, &b), 0);
	for (int i = 0; i < 10; i++) {
		snapshot(&b, &r, &err, 0);
		check_restored(&b, &r);
	}
	pthread_mutex_lock(&b.mu);
	b.stop = true;
	pthread_mutex_unlock(&b.mu);
	pthread_join(b.writer, NULL);
	close(b.fd);
}

static void break_it(struct box *b)
{
	close(tree_mkdir(b->fd, "bad"));
	assert_int_equal(fchownat(b->fd, "bad", 70000, 0, 0), 0);
}

/* Whatever goes wrong after the freeze, the writers are let go and nothing is left in the store. */
static void failures_thaw(void **state)
{
	(void)state;
	struct box b;
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;
	PF_CKPT struct pf_ckpt c = {0};

	box_init(&b);
	tree_text(b.fd, "x", "y");
	b.fail_freeze = true;
	snapshot(&b, &r, &err, -1);
	assert_int_equal(b.thawed, 0);
	b.fail_freeze = false;
	b.fail_thaw = true;
	snapshot(&b, &r, &err, -1);
	assert_int_equal(b.thawed, 1);
	free(b.frozen);
	b.fail_thaw = false;
	b.before_freeze = break_it;
	snapshot(&b, &r, &err, -1);
	assert_int_equal(b.thawed, 2);
	free(b.frozen);
	assert_int_equal(pf_ckpt_resolve(env.store, "latest", "live", &c, &err), -1);
	PF_CLOSE int storefd = pf_ckpt_store_open(env.store, false, &err);
	PF_CLOSE int tmp = openat(storefd, "tmp", O_RDONLY | O_CLOEXEC);
	PF_FREE char *left = tree_describe(tmp);
	assert_string_equal(left, "");
	close(b.fd);
}

/* On tmpfs a mapped page is writable without a fault: what is written there moves no time and is seen all the
 * same, because every file with content is taken again. What cannot be mapped is not. */
static void tmpfs_takes_every_content(void **state)
{
	(void)state;
	struct box b = {.fd = -1};
	struct pf_ckpt_result r;
	struct pf_err err = PF_ERR_INIT;
	char dir[64], page[4096] = {0};
	struct statfs fs;

	snprintf(dir, sizeof(dir), "/dev/shm/pf-ckpt-%d", (int)getpid());
	if (statfs("/dev/shm", &fs) < 0 || fs.f_type != 0x01021994 || mkdir(dir, 0700) < 0) {
		printf("skipped: /dev/shm is no tmpfs\n");
		skip();
	}
	b.fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pthread_mutex_init(&b.mu, NULL);
	close(tree_mkdir(b.fd, "dir"));
	tree_file(b.fd, "mapped", page, sizeof(page));
	tree_text(b.fd, "plain", "x");
	tree_text(b.fd, "empty", "");
	int r1 = linkat(b.fd, "plain", b.fd, "second-name", 0), r2 = symlinkat("plain", b.fd, "symlink");
	PF_CLOSE int fd = openat(b.fd, "mapped", O_RDWR | O_CLOEXEC);
	b.map = mmap(NULL, sizeof(page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	bool mapped = b.map != MAP_FAILED;
	if (mapped)
		(void)*(volatile char *)b.map; /* the page is there, and writable from now on */
	settle();
	b.before_freeze = mapped ? scribble : NULL;
	snapshot(&b, &r, &err, 0);
	int64_t changed = r.layer.live.changed;
	if (mapped)
		munmap(b.map, sizeof(page));
	close(b.fd);
	(void)pf_rm_rf_at(AT_FDCWD, dir, &err);
	check_restored(&b, &r);
	assert_int_equal(r1 | r2, 0);
	assert_true(mapped);
	assert_int_equal(changed, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(quiet_tree_is_packed_once, setup, teardown),
		cmocka_unit_test_setup_teardown(edits_between_the_passes, setup, teardown),
		cmocka_unit_test_setup_teardown(edits_of_a_sealed_one, setup_sealed, teardown),
		cmocka_unit_test_setup_teardown(a_mount_point_that_stays_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mount_point_that_was_filled, setup, teardown),
		cmocka_unit_test_setup_teardown(a_device_in_place_of_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(mapped_writes_are_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(busy_tree, setup, teardown),
		cmocka_unit_test_setup_teardown(failures_thaw, setup, teardown),
		cmocka_unit_test_setup_teardown(tmpfs_takes_every_content, setup, teardown),
	};

	if (geteuid() != 0) {
		printf("skipped: needs root (whiteouts, ownership)\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
