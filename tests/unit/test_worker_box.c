/* What pinfold prints is read until it ends, and no longer: what a command in a sandbox leaves in the
 * background may hold the pipes. parallel-safe */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/str.h"
#include "worker/box.h"

static char dir[] = "/tmp/pf-worker-box-XXXXXX";

/* In place of pinfold: a script. malloc'ed. */
static char *script(const char *text)
{
	char *path = pf_asprintf("%s/pinfold", dir);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fprintf(f, "#!/bin/sh\n%s\n", text) > 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, 0700), 0);
	return path;
}

static void what_is_left_in_the_background_holds_nobody(void **state)
{
	PF_FREE char *text =
		pf_asprintf("sleep 1000 & echo $! >%s/pid\nhead -c 200000 /dev/zero | tr '\\0' x", dir);
	PF_FREE char *path = script(text), *out = NULL, *file = pf_asprintf("%s/pid", dir);
	struct pf_box_opts o = {.pinfold = path, .root = "/nowhere", .store = "/nowhere"};
	const char *words[] = {"exec", NULL};
	struct pf_err err = PF_ERR_INIT;
	int pid = 0;

	(void)state;
	/* Far sooner than what it left would end. */
	(void)alarm(60);
	int r = pf_box_run(&o, words, NULL, &out, &err);
	(void)alarm(0);
	FILE *f = fopen(file, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%d", &pid), 1);
	(void)fclose(f);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(r, 0);
	assert_int_equal(strlen(out), 200000);
}

static void an_error_is_read_as_a_whole(void **state)
{
	PF_FREE char *path = script(
		"echo '{\"level\":\"error\",\"msg\":\"no such thing\",\"code\":\"not_found\"}' >&2; exit 1");
	struct pf_box_opts o = {.pinfold = path, .root = "/nowhere", .store = "/nowhere"};
	const char *words[] = {"state", NULL};
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	assert_int_equal(pf_box_run(&o, words, NULL, NULL, &err), -1);
	assert_string_equal(err.msg, "pinfold state: no such thing");
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	PF_FREE char *path = pf_asprintf("%s/pinfold", dir), *pid = pf_asprintf("%s/pid", dir);

	(void)state;
	(void)unlink(path);
	(void)unlink(pid);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_left_in_the_background_holds_nobody),
		cmocka_unit_test(an_error_is_read_as_a_whole)};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
