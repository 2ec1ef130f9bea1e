/* Promises: `host` needs nothing prepared, follows the machine, and carries none of its secrets; references
 * mean what they say and errors name what there is; a runtime is mapped to the nearest newer one, with a
 * note, and to the host where that is as good. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "overlay/image.h"
#include "overlay/runtime.h"

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B "aaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static char store[64];

static int setup(void **state)
{
	(void)state;
	snprintf(store, sizeof(store), "/tmp/pf-test-image-%d", (int)getpid());
	return mkdir(store, 0700);
}

static int teardown(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	return pf_rm_rf_at(AT_FDCWD, store, &err);
}

static void put_image(const char *ref, const char *digest_hex)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *file = pf_image_ref_file(ref);
	PF_FREE char *refs = pf_asprintf("%s/images/refs", store);
	PF_FREE char *layers = pf_asprintf("%s/images/layers", store);
	PF_FREE char *record = pf_asprintf(
		"{\"ref\":\"%s\",\"digest\":\"sha256:%s\",\"manifest\":\"sha256:ccc%.61s\","
		"\"layers\":[\"sha256:%s\",\"sha256:%s\"],\"env\":[\"A=1\"],\"entrypoint\":[\"/e\"],"
		"\"cmd\":[\"c\"],\"workdir\":\"/w\",\"user\":\"1000\"}",
		ref, digest_hex, digest_hex, HEX_A, HEX_B);

	assert_int_equal(pf_mkdirs(refs, 0700, &err), 0);
	PF_FREE char *a = pf_asprintf("%s/sha256-%s/fs", layers, HEX_A);
	PF_FREE char *b = pf_asprintf("%s/sha256-%s/fs", layers, HEX_B);
	assert_int_equal(pf_mkdirs(a, 0700, &err), 0);
	assert_int_equal(pf_mkdirs(b, 0700, &err), 0);
	PF_CLOSE int dir = open(refs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(pf_replace_file_at(dir, file, record, strlen(record), 0600, false, &err), 0);
}

static void fails(const char *ref, enum pf_err_kind kind, const char *why)
{
	struct pf_image img;
	struct pf_err err = PF_ERR_INIT;

	assert_int_equal(pf_image_resolve(store, ref, &img, &err), -1);
	if (err.kind != kind || !strstr(err.msg, why))
		fail_msg("%s: expected '%s', got %s: %s", ref, why, pf_err_kind_name(err.kind), err.msg);
}

static void resolves(const char *ref, const char *name)
{
	struct pf_image img;
	struct pf_err err = PF_ERR_INIT;

	if (pf_image_resolve(store, ref, &img, &err) < 0)
		fail_msg("%s: %s", ref, err.msg);
	assert_string_equal(img.ref, name);
	pf_image_done(&img);
}

static void test_references(void **state)
{
	struct pf_image img;
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	put_image("python:latest", HEX_A);
	put_image("registry/team/python:3", HEX_B);
	resolves("python", "python:latest");
	resolves("python:latest", "python:latest");
	resolves("registry/team/python:3", "registry/team/python:3");
	resolves("sha256:" HEX_A, "python:latest");
	resolves("aaaaaaaa", "python:latest");
	resolves("aaaaaaab", "registry/team/python:3");
	resolves("sha256:cccaaaaaaaa", "python:latest"); /* by manifest digest */
	fails("aaaaaa", PF_ERR_INVALID, "more than one");
	fails("ruby", PF_ERR_NOT_FOUND, "python:latest, registry/team/python:3");
	fails("aaaaa", PF_ERR_NOT_FOUND, "there is no image");
	fails("../../etc", PF_ERR_INVALID, "not an image name");
	fails("a b", PF_ERR_INVALID, "not an image name");
	fails("", PF_ERR_INVALID, "not an image name");
	assert_int_equal(pf_image_resolve(store, "python", &img, &err), 0);
	assert_int_equal(img.kind, PF_IMAGE_STORED);
	assert_string_equal(img.digest, "sha256:" HEX_A);
	/* Topmost first: the record's last. */
	assert_non_null(strstr(img.layers[0], HEX_B));
	assert_non_null(strstr(img.layers[1], HEX_A));
	assert_null(img.layers[2]);
	assert_string_equal(img.cmd[0], "/e");
	assert_string_equal(img.cmd[1], "c");
	assert_string_equal(img.env[0], "A=1");
	assert_string_equal(img.workdir, "/w");
	assert_string_equal(img.user, "1000");
	pf_image_done(&img);
}

static void test_damaged_store(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *layers = pf_asprintf("%s/images/layers", store);
	PF_FREE char *record = pf_asprintf("%s/images/refs/python:latest.json", store);

	(void)state;
	put_image("python:latest", HEX_A);
	PF_CLOSE int dir = open(layers, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(pf_rm_rf_at(dir, "sha256-" HEX_A, &err), 0);
	fails("python", PF_ERR_CORRUPT, "missing from the store");
	assert_int_equal(truncate(record, 20), 0);
	fails("python", PF_ERR_CORRUPT, "JSON");
	assert_int_equal(unlink(record), 0);
	assert_int_equal(mkfifo(record, 0600), 0);
	fails("python", PF_ERR_INVALID, "not a regular file");
}

static void test_directory(void **state)
{
	PF_FREE char *dir = pf_asprintf("%s/root", store);
	PF_FREE char *odd = pf_asprintf("%s//./root/", store);
	PF_FREE char *file = pf_asprintf("%s/file", store);
	struct pf_image img;
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	assert_int_equal(mkdir(dir, 0755), 0);
	resolves(odd, dir);
	assert_int_equal(pf_image_resolve(store, dir, &img, &err), 0);
	assert_int_equal(img.kind, PF_IMAGE_DIR);
	assert_string_equal(img.layers[0], dir);
	pf_image_done(&img);
	PF_CLOSE int fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	fails(file, PF_ERR_INVALID, "imported first");
	fails("/nowhere/at/all", PF_ERR_NOT_FOUND, "No such file");
	fails("/", PF_ERR_INVALID, "use 'host'");
	fails("/a/../b", PF_ERR_INVALID, "..");
}

/* ---- host ---- */

static int check_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	static const char *const secrets[] = {"shadow", "gshadow", "machine-id", "sudoers", "ssh_host",
		"private", "npmrc", "pip.conf", "fstab"};

	(void)ftw;
	for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
		const char *name = strrchr(path, '/') + 1;
		if (strncmp(name, secrets[i], strlen(secrets[i])) == 0)
			return fprintf(stderr, "%s\n", path);
	}
	/* Nothing that is not everybody's, no special file. */
	if (type == FTW_F && (!S_ISREG(st->st_mode) || (st->st_mode & 07022)))
		return fprintf(stderr, "%s: mode %o\n", path, st->st_mode);
	return 0;
}

static void test_host_is_synthetic(void **state)
{
	struct pf_image img;
	struct pf_err err = PF_ERR_INIT;
	struct stat st;
	PF_FREE char *passwd = NULL;

	(void)state;
	if (pf_image_resolve(store, "host", &img, &err) < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(img.kind, PF_IMAGE_HOST);
	assert_true(pf_starts_with(img.digest, "host:"));
	assert_null(img.layers[1]);
	assert_string_equal(img.binds[0].source, "/usr");
	assert_true(img.binds[0].read_only);
	PF_CLOSE int root = open(img.layers[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(pf_read_file_at(root, "etc/passwd", 4096, &passwd, NULL, &err), 0);
	assert_non_null(strstr(passwd, "agent:x:1000:1000:"));
	assert_non_null(strstr(passwd, "root:x:0:0:"));
	assert_int_equal(fstatat(root, "tmp", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 01777);
	assert_int_equal(fstatat(root, "root", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(fstatat(root, "home/agent", &st, 0), 0);
	assert_int_equal(st.st_uid, 1000);
	assert_int_equal(faccessat(root, "etc/ssl/certs", F_OK, 0), 0);
	assert_int_equal(faccessat(root, "etc/ssl/private", F_OK, 0), -1);
	assert_int_equal(nftw(img.layers[0], check_entry, 32, FTW_PHYS), 0);
	pf_image_done(&img);
}

/* The box's programs really start on it: the skeleton with /usr bound in, by chroot in a private mount
 * namespace. */
static void test_host_runs_programs(void **state)
{
	struct pf_image img;
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	if (geteuid() != 0 || access("/usr/bin/unshare", X_OK) < 0) {
		print_message("skipped: needs root and unshare\n");
		skip();
	}
	assert_int_equal(pf_image_resolve(store, "host", &img, &err), 0);
	PF_FREE char *cmd = pf_asprintf(
		"set -e; mount --bind /usr %s/usr; mount --bind /dev %s/dev; chroot %s /bin/sh -ec "
		"'id -un 1000; git --version; curl --version | head -1; echo ok; test ! -s /etc/shadow; "
		"! command -v python3 || python3 -c \"import ssl, json; ssl.create_default_context()\"'",
		img.layers[0], img.layers[0], img.layers[0]);
	char *argv[] = {"/usr/bin/unshare", "-m", "/bin/sh", "-c", cmd, NULL};
	PF_FREE char *out = NULL;
	if (pf_run(argv, &out, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(pf_starts_with(out, "agent\n"));
	pf_image_done(&img);
}

static int count_versions(void)
{
	PF_FREE char *path = pf_asprintf("%s/images/host", store);
	PF_CLOSEDIR DIR *d = opendir(path);
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)))
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		     strcmp(e->d_name, ".lock") != 0;
	return n;
}

/* Eight at once on an empty store: one skeleton, nothing half-made beside it, all agree. */
static void test_host_concurrently(void **state)
{
	pid_t pids[8];
	int status;

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			struct pf_image img;
			struct pf_err err = PF_ERR_INIT;
			_exit(pf_image_resolve(store, "host", &img, &err) < 0 ||
				access(img.layers[0], F_OK) < 0);
		}
	}
	for (size_t i = 0; i < 8; i++) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	assert_int_equal(count_versions(), 1);
}

static void test_host_time(void **state)
{
	struct pf_image img;
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	assert_int_equal(pf_image_resolve(store, "host", &img, &err), 0);
	pf_image_done(&img);
	int64_t t0 = pf_now_us();
	for (int i = 0; i < 100; i++) {
		assert_int_equal(pf_image_resolve(store, "host", &img, &err), 0);
		pf_image_done(&img);
	}
	print_message("resolving host when it is there: %lld us\n", (long long)(pf_now_us() - t0) / 100);
	assert_int_equal(count_versions(), 1);
}

/* ---- runtimes ---- */

static cJSON *table(const char *text)
{
	struct pf_err err = PF_ERR_INIT;
	cJSON *j = pf_json_parse("table", text, strlen(text), &err);

	assert_non_null(j);
	return j;
}

static void maps(const cJSON *t, const char *runtime, bool strict, const char *image, const char *note_part)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *ref = NULL, *note = NULL;

	if (pf_runtime_map(t, store, runtime, strict, &ref, &note, &err) < 0)
		fail_msg("%s: %s", runtime, err.msg);
	assert_string_equal(ref, image);
	if (note_part ? !note || !strstr(note, note_part) : note != NULL)
		fail_msg("%s: note is %s", runtime, note ? note : "missing");
}

static void no_map(const cJSON *t, const char *runtime, bool strict, const char *why)
{
	struct pf_err err = PF_ERR_INIT;
	char *ref = NULL, *note = NULL;

	assert_int_equal(pf_runtime_map(t, store, runtime, strict, &ref, &note, &err), -1);
	assert_int_equal(err.kind, PF_ERR_INVALID);
	if (!strstr(err.msg, why))
		fail_msg("%s: %s", runtime, err.msg);
	assert_null(note);
}

static void test_runtimes(void **state)
{
	PF_JSON cJSON *t = table(
		"{\"python\":{\"aliases\":[\"py\"],\"images\":[{\"version\":\"3.11\",\"image\":\"py311\"},"
		"{\"version\":\"3.13\",\"image\":\"py313\"},{\"version\":\"2.7\",\"image\":\"py27\"}]},"
		"\"node\":{\"aliases\":[\"nodejs\"],\"images\":[{\"version\":\"18\",\"image\":\"n18\"},"
		"{\"version\":\"22\",\"image\":\"n22\"}]}}");

	(void)state;
	maps(t, "python3.11", false, "py311", NULL);
	maps(t, "python3.11.4", true, "py311", NULL);
	maps(t, "Python-3.13", true, "py313", NULL);
	maps(t, "py:3.9", false, "py311", "nearest newer");
	maps(t, "python3.12", false, "py313", "python 3.13");
	maps(t, "python", false, "py313", NULL);
	maps(t, "python3", false, "py313", NULL);
	maps(t, "nodejs20", false, "n22", "node 22");
	maps(t, "node:18", true, "n18", NULL);
	maps(t, "node18.4", true, "n18", NULL);
	no_map(t, "python3.9", true, "python 3.11 (py311)");
	no_map(t, "python3.14", false, "newer");
	no_map(t, "cobol", false, "python, node");
	no_map(t, "python3.x", false, "must be a language");
	no_map(t, "", false, "must be a language");
	no_map(t, "3.11", false, "must be a language");
	no_map(t, "python3.99999999", false, "must be a language");
}

/* The host's interpreter serves as long as the image is not there; then the image does. */
static void test_runtime_prefers_what_is_there(void **state)
{
	PF_JSON cJSON *t = table("{\"python\":{\"images\":[{\"version\":\"3.11\",\"image\":\"python\"}],"
				 "\"host\":[\"usr/bin/python3.%\"]}}");

	(void)state;
	if (access("/usr/bin/python3.11", X_OK) < 0) {
		print_message("skipped: the host has no python3.11\n");
		skip();
	}
	maps(t, "python3.11", true, "host", NULL);
	put_image("python:latest", HEX_A);
	maps(t, "python3.11", true, "python", NULL);
}

/* The table that is shipped parses, and gives bash and python something on any machine that has them. */
static void test_shipped_table(void **state)
{
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	if (access("images/runtimes.json", R_OK) < 0) {
		print_message("skipped: not run from the source tree\n");
		skip();
	}
	PF_JSON cJSON *t = pf_json_load("images/runtimes.json", &err);
	assert_non_null(t);
	maps(t, "bash", true, "host", NULL);
	maps(t, "bash5", true, "host", NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_references, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_store, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_is_synthetic, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_runs_programs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_concurrently, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_runtimes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_runtime_prefers_what_is_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shipped_table, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
