/* A program that is killed, loses power or gets an error at any one of its system calls leaves a store in
 * which everything that was committed before can be read, and with which one can go on.
 *
 * The program is this one, started anew with tests/helpers/faultinject.so preloaded:
 *     test_packs_crash put|sweep|repair|rotate STORE plain|sealed
 *
 * parallel-safe */
#include "tests/unit/packs_world.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#define OLD 40  /* chunks that were committed before */
#define MORE 80 /* and with those that are put now */

static char *preload, *self;

static bool live_odd(void *ctx, const struct pf_chunk_id *id)
{
	const struct pf_chunk_id *ids = ctx;

	for (unsigned i = 1; i < OLD; i += 2)
		if (memcmp(&ids[i], id, sizeof(*id)) == 0)
			return true;
	return false;
}

/* ---- what is killed ----------------------------------------------------------------------------------- */

static int do_sweep(void)
{
	PF_PACKS struct pf_packs *p = NULL;
	PF_CLOSE int tmp = w_tmp();
	struct pf_packs_sweep_opts opts = {0};
	struct pf_packs_swept s;
	struct pf_chunk_id ids[OLD];
	uint8_t data[4096];

	if (pf_packs_open(w_store, w_seal, &p, &w_err) < 0)
		return -1;
	for (unsigned i = 0; i < OLD; i++)
		pf_packs_id(p, data, w_chunk(i, data), &ids[i]);
	return pf_packs_sweep(p, tmp, live_odd, ids, &opts, &s, &w_err);
}

static int do_repair(void)
{
	int64_t n;

	return pf_packs_repair(w_store, NULL, NULL, &n, &w_err);
}

static int do_rotate(void)
{
	struct pf_kek *a = w_kek(1), *b = w_kek(2);
	struct pf_seal_rotated s;
	int r = pf_seal_rotate(w_store, a, b, &s, &w_err);

	pf_kek_free(a);
	pf_kek_free(b);
	return r;
}

static int act(char **argv)
{
	int r = -1;

	w_store = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w_store < 0)
		return 3;
	if (strcmp(argv[3], "sealed") == 0 && strcmp(argv[1], "rotate") != 0) {
		struct pf_kek *k = w_kek(1);
		r = pf_seal_open(w_store, k, false, &w_seal, &w_err);
		pf_kek_free(k);
		if (r < 0)
			return 4;
	}
	if (strcmp(argv[1], "put") == 0)
		r = w_try_put(OLD, MORE, NULL);
	else if (strcmp(argv[1], "sweep") == 0)
		r = do_sweep();
	else if (strcmp(argv[1], "repair") == 0)
		r = do_repair();
	else if (strcmp(argv[1], "rotate") == 0)
		r = do_rotate();
	pf_seal_free(w_seal);
	close(w_store);
	return r < 0 ? 1 : 0;
}

/* ---- who kills it ------------------------------------------------------------------------------------- */

enum ended { DONE, FAILED, KILLED };

/* Run an act with the n-th call struck. */
static enum ended run(const char *what, const char *fault, unsigned n)
{
	PF_FREE char *spec = pf_asprintf("PF_FAULT=any:%u:%s", n, fault);
	PF_FREE char *load = pf_asprintf("LD_PRELOAD=%s", preload);
	char *argv[] = {self, (char *)(uintptr_t)what, w_path, w_seal ? "sealed" : "plain", NULL};
	char *env[] = {spec, load, "ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0", NULL};
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		execve(self, argv, env);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status)) {
		assert_int_equal(WTERMSIG(status), SIGKILL);
		return KILLED;
	}
	if (WEXITSTATUS(status) > 1)
		fail_msg("%s with call %u struck (%s): exit code %d", what, n, fault, WEXITSTATUS(status));
	return WEXITSTATUS(status) == 0 ? DONE : FAILED;
}

static void empty_tmp(void)
{
	struct pf_err err = PF_ERR_INIT;

	assert_int_equal(pf_rm_rf_at(w_store, "tmp", &err), 0);
}

static void after_put(bool done)
{
	PF_PACKS struct pf_packs *p = w_packs();

	assert_int_equal(pf_packs_unreadable(p), 0);
	for (unsigned i = 0; i < OLD; i++)
		assert_true(w_good(p, i));
	for (unsigned i = OLD; done && i < MORE; i++)
		assert_true(w_good(p, i));
}

static void after_sweep(bool done)
{
	PF_PACKS struct pf_packs *p = w_packs();

	assert_int_equal(pf_packs_unreadable(p), 0);
	for (unsigned i = 1; i < OLD; i += 2)
		assert_true(w_good(p, i));
	assert_true(!done || !w_good(p, 0));
}

/* Whatever is struck, what was committed is there; the same act afterwards succeeds. A half-published pack
 * may lack its index: that is not damage that loses anything, and repair makes it whole. */
static void strike_all(
	const char *what, const char *const faults[2], void (*prepare)(void), void (*after)(bool done))
{
	unsigned n, undone = 0;

	for (n = 1;; n++) {
		enum ended e;
		assert_true(n < 400);
		prepare();
		e = run(what, faults[n % 2], n);
		after(e == DONE);
		if (e == DONE && undone && n > 8)
			break;
		undone += e != DONE;
		empty_tmp();
		assert_int_equal(do_repair(), 0);
		assert_int_equal(w_verify(), 0);
		assert_int_equal(run(what, "EIO", 0), DONE);
		after(true);
	}
	print_message("%s, %s and %s: %u places\n", what, faults[0], faults[1], undone);
	assert_true(undone >= 5);
}

static void fresh_store(void)
{
	bool sealed = w_seal != NULL;

	w_close();
	w_open_in(w_parent(), sealed);
	w_put(0, OLD / 2);
	w_put(OLD / 2, OLD);
}

static void test_put(void **state)
{
	(void)state;
	strike_all("put", (const char *[]){"power", "power"}, fresh_store, after_put);
	strike_all("put", (const char *[]){"EIO", "ENOSPC+"}, fresh_store, after_put);
}

static void test_sweep(void **state)
{
	(void)state;
	strike_all("sweep", (const char *[]){"power", "power"}, fresh_store, after_sweep);
	strike_all("sweep", (const char *[]){"EIO", "ENOSPC+"}, fresh_store, after_sweep);
}

static void broken_index(void)
{
	fresh_store();
	PF_FREE char *idx = w_file("packs", ".idx");
	w_spill(idx, "x", 1);
}

static void after_repair(bool done)
{
	after_put(false);
	assert_true(!done || w_verify() == 0);
}

static void test_repair(void **state)
{
	unsigned n, undone = 0;

	(void)state;
	for (n = 1; n < 50; n++) {
		broken_index();
		bool done = run("repair", n % 2 ? "power" : "EIO", n) == DONE;
		after_repair(done);
		undone += !done;
		assert_int_equal(run("repair", "EIO", 0), DONE);
		after_repair(true);
		if (done)
			break;
	}
	assert_true(undone >= 3);
}

/* Which of the two keys opens everything: bit 0 the old one, bit 1 the new one. */
static unsigned opens(void)
{
	unsigned which = 0;

	for (uint8_t k = 1; k <= 2; k++) {
		struct pf_err err = PF_ERR_INIT;
		PF_KEK struct pf_kek *kek = w_kek(k);
		PF_SEAL struct pf_seal *seal = NULL;
		PF_PACKS struct pf_packs *p = NULL;
		bool all = pf_seal_open(w_store, kek, false, &seal, &err) == 0 &&
			   pf_packs_open(w_store, seal, &p, &err) == 0 && pf_packs_unreadable(p) == 0;
		for (unsigned i = 0; all && i < OLD; i++)
			all = w_good(p, i);
		/* A wrong key is called that, never damage. */
		assert_true(all || err.kind == PF_ERR_INVALID);
		which |= all ? k : 0;
	}
	return which;
}

static void test_rotate(void **state)
{
	static const char *const faults[] = {"power", "EIO", "ENOSPC+"};
	unsigned n, undone = 0;

	(void)state;
	for (n = 1; n < 400; n++) {
		fresh_store();
		assert_int_equal(opens(), 1);
		bool done = run("rotate", faults[n % 3], n) == DONE;
		unsigned which = opens();
		assert_true(done ? which == 2 : which != 0);
		undone += !done;
		assert_int_equal(run("rotate", "EIO", 0), DONE);
		assert_int_equal(opens(), 2);
		if (done)
			break;
	}
	print_message("rotate: %u places\n", undone);
	assert_true(undone >= 20);
}

/* Promise: on a full file system (a real one) a put fails with one clear error, what was there stays
 * readable, and as soon as there is room it works. */
static void test_full(void **state)
{
	bool sealed = w_seal != NULL;
	unsigned stored = 0;
	char dir[40];

	(void)state;
	w_close();
	snprintf(dir, sizeof(dir), "/tmp/pf-full-%d", (int)getpid());
	assert_int_equal(mkdir(dir, 0700), 0);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("tmpfs", dir, "tmpfs", 0, "size=512k,mode=700") < 0) {
		print_message("skipped: no tmpfs can be mounted: %s\n", strerror(errno));
		rmdir(dir);
		skip();
	}
	w_open_in(dir, sealed);
	while (stored < 100000 && w_try_put(stored, stored + 20, NULL) == 0)
		stored += 20;
	assert_int_equal(w_err.errnum, ENOSPC);
	empty_tmp();
	assert_true(stored > 0);
	assert_int_equal(w_count_good(0, stored), stored);
	assert_int_equal(w_verify(), 0);
	assert_int_equal(mount(NULL, dir, NULL, MS_REMOUNT, "size=2m"), 0);
	w_put(stored, stored + 20);
	assert_int_equal(w_count_good(0, stored + 20), stored + 20);
	w_close();
	assert_int_equal(umount2(dir, MNT_DETACH), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		both_domains(test_put),
		both_domains(test_sweep),
		cmocka_unit_test_setup_teardown(test_repair, w_plain_setup, w_teardown),
		cmocka_unit_test_setup_teardown(test_rotate, w_sealed_setup, w_teardown),
		both_domains(test_full),
	};
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *dir = NULL;
	int r;

	if (argc == 4)
		return act(argv);
	dir = pf_program_dir(&err);
	preload = pf_asprintf("%s/../helpers/faultinject.so", dir);
	self = pf_asprintf("%s/test_packs_crash", dir);
	if (access(preload, R_OK) < 0) {
		printf("skipped: %s is missing (make test-programs)\n", preload);
		return 0;
	}
	r = cmocka_run_group_tests(tests, NULL, NULL);
	free(preload);
	free(self);
	return r;
}
