/* Capabilities and resource limits, set in children and read back from the kernel. */
#include <errno.h>
#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "sandbox/caps.h"
#include "sandbox/rlimit.h"

/* Promise: names as people and as OCI write them; a typo is an error with the right name. */
static void test_parse(void **state)
{
	const char *good[] = {"CAP_CHOWN", "kill", "cap_Bpf", NULL}, *bad[] = {"CAP_SYS_ADMINS", NULL};
	struct pf_err err = PF_ERR_INIT;
	uint64_t mask = 7;

	(void)state;
	assert_int_equal(pf_caps_parse(good, &mask, &err), 0);
	assert_true(mask == (PF_CAP_BIT(CAP_CHOWN) | PF_CAP_BIT(CAP_KILL) | PF_CAP_BIT(CAP_BPF)));
	assert_int_equal(pf_caps_parse(NULL, &mask, &err), 0);
	assert_true(mask == 0);
	mask = 7;
	assert_int_equal(pf_caps_parse(bad, &mask, &err), -1);
	assert_non_null(strstr(err.msg, "'CAP_SYS_ADMIN'"));
	assert_true(mask == 7);
}

/* Promise: our table is libcap's and the kernel's. */
static void test_names(void **state)
{
	(void)state;
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++) {
		char *theirs = cap_to_name((cap_value_t)cap);

		assert_non_null(pf_cap_name(cap));
		assert_int_equal(strcasecmp(pf_cap_name(cap), theirs), 0);
		cap_free(theirs);
	}
	assert_null(pf_cap_name(64));
	{
		struct pf_err err = PF_ERR_INIT;
		char *last = NULL;

		assert_int_equal(
			pf_read_pseudo_at(AT_FDCWD, "/proc/sys/kernel/cap_last_cap", 64, &last, &err), 0);
		assert_true(pf_caps_kernel() == (PF_CAP_BIT(atoi(last)) << 1) - 1);
		free(last);
	}
}

/* What /proc/self/status says of one set. */
static uint64_t set_of(const char *key)
{
	char line[256], want[32];
	uint64_t mask = ~0ULL;
	FILE *f = fopen("/proc/thread-self/status", "re");

	snprintf(want, sizeof(want), "%s:", key);
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, want, strlen(want)) == 0)
			mask = strtoull(line + strlen(want), NULL, 16);
	if (f)
		fclose(f);
	return mask;
}

static bool sets_are(const struct pf_caps *c)
{
	return set_of("CapBnd") == c->bounding && set_of("CapEff") == c->effective &&
	       set_of("CapPrm") == c->permitted && set_of("CapInh") == c->inheritable &&
	       set_of("CapAmb") == c->ambient;
}

/* Run body in a child: the number of the step that failed, 0 when none did. */
static int in_child(int (*body)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(body());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

#define STEP(n, ok)                 \
	do {                        \
		if (!(ok))          \
			return (n); \
	} while (0)

static int session_root(void)
{
	struct pf_caps c = {PF_CAPS_SESSION_ROOT, PF_CAPS_SESSION_ROOT, PF_CAPS_SESSION_ROOT, 0, 0};
	struct pf_caps more = c;

	STEP(1, pf_caps_apply_bounding(c.bounding) == 0);
	STEP(2, pf_caps_apply(&c) == 0);
	STEP(3, sets_are(&c));
	more.permitted |= PF_CAP_BIT(CAP_NET_ADMIN);
	STEP(4, pf_caps_apply(&more) == -1 && errno == EPERM);
	STEP(5, sets_are(&c));
	/* Applying again needs no CAP_SETPCAP, which is gone. */
	STEP(6, pf_caps_apply_bounding(c.bounding) == 0);
	STEP(7, pf_caps_apply_bounding(0) == -1 && errno == EPERM);
	return 0;
}

/* Promise: a session's root gets exactly its set, nothing inheritable or ambient, and cannot regain the rest.
 */
static void test_session_root(void **state)
{
	(void)state;
	if (geteuid() != 0) {
		print_message("needs root\n");
		skip();
	}
	assert_int_equal(in_child(session_root), 0);
}

static int user_with_ambient(void)
{
	uint64_t m = PF_CAP_BIT(CAP_NET_BIND_SERVICE);
	struct pf_caps c = {m | PF_CAP_BIT(CAP_KILL), m, m, m, m};

	STEP(1, pf_caps_apply_bounding(c.bounding) == 0);
	STEP(2, prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0);
	STEP(3, setresgid(12345, 12345, 12345) == 0 && setresuid(12345, 12345, 12345) == 0);
	STEP(4, pf_caps_apply(&c) == 0);
	STEP(5, sets_are(&c));
	execl("/bin/sh", "sh", "-c", "grep -q '^CapEff:.*0000000000000400$' /proc/self/status", (char *)NULL);
	return 6;
}

static int user_without(void)
{
	struct pf_caps c = {0};

	STEP(1, pf_caps_apply_bounding(0) == 0);
	STEP(2, setresuid(12345, 12345, 12345) == 0);
	STEP(3, pf_caps_apply(&c) == 0);
	STEP(4, sets_are(&c));
	return 0;
}

/* Promise: another user keeps exactly what is asked across the change of user id, and through exec what is
 * ambient; without asking, nothing. */
static void test_other_user(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(in_child(user_with_ambient), 0);
	assert_int_equal(in_child(user_without), 0);
}

static int check_in_child(void)
{
	uint64_t m = PF_CAP_BIT(CAP_KILL);
	struct pf_caps now = {0, m, m, 0, 0}, want = {0, m, m | PF_CAP_BIT(CAP_CHOWN), 0, 0};
	struct pf_err e = PF_ERR_INIT;

	STEP(1, pf_caps_apply(&now) == 0);
	STEP(2, pf_caps_check(&now, &e) == 0);
	STEP(3, pf_caps_check(&want, &e) == -1 && strstr(e.msg, "CAP_CHOWN") && !strstr(e.msg, "CAP_KILL"));
	STEP(4, e.kind == PF_ERR_UNSUPPORTED);
	return 0;
}

/* Promise: what cannot be given is said before anything is built, by name. */
static void test_check(void **state)
{
	uint64_t m = PF_CAP_BIT(CAP_KILL);
	struct pf_caps effective = {.effective = m}, ambient = {.permitted = m, .ambient = m};
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	assert_int_equal(pf_caps_check(&effective, &err), -1);
	assert_non_null(strstr(err.msg, "CAP_KILL"));
	assert_int_equal(pf_caps_check(&ambient, &err), -1);
	assert_non_null(strstr(err.msg, "inheritable"));
	if (geteuid() != 0)
		skip();
	assert_int_equal(in_child(check_in_child), 0);
}

/* Promise: limits by their names; unknown, doubled, inverted ones are errors. */
static void test_rlimit_names(void **state)
{
	struct pf_rlimit inverted = {RLIMIT_CORE, 2, 1},
			 twice[2] = {{RLIMIT_CORE, 0, 0}, {RLIMIT_CORE, 0, 0}};
	struct pf_rlimit none = {99, 0, 0};
	struct pf_err err = PF_ERR_INIT;

	(void)state;
	assert_int_equal(pf_rlimit_parse("RLIMIT_NOFILE", &err), RLIMIT_NOFILE);
	assert_int_equal(pf_rlimit_parse("nproc", &err), RLIMIT_NPROC);
	assert_int_equal(pf_rlimit_parse("RLIMIT_NOFILES", &err), -1);
	assert_non_null(strstr(err.msg, "'RLIMIT_NOFILE'"));
	for (int i = 0; i < (int)RLIM_NLIMITS; i++)
		assert_int_equal(pf_rlimit_parse(pf_rlimit_name(i), &err), i);
	assert_int_equal(pf_rlimits_check(&inverted, 1, &err), -1);
	assert_non_null(strstr(err.msg, "RLIMIT_CORE: soft limit 2"));
	assert_int_equal(pf_rlimits_check(twice, 2, &err), -1);
	assert_non_null(strstr(err.msg, "twice"));
	assert_int_equal(pf_rlimits_check(&none, 1, &err), -1);
}

static int limits_in_child(void)
{
	struct pf_rlimit low[2] = {{RLIMIT_NOFILE, 50, 60}, {RLIMIT_CORE, 0, 0}};
	struct pf_rlimit high[2] = {{RLIMIT_CORE, 0, 0}, {RLIMIT_NOFILE, 61, UINT64_MAX}};
	struct pf_err e = PF_ERR_INIT;
	struct pf_caps none = {0};
	struct rlimit r;
	size_t failed = 9;

	STEP(1, pf_rlimits_check(low, 2, &e) == 0);
	STEP(2, pf_rlimits_apply(low, 2, NULL) == 0);
	STEP(3, getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur == 50 && r.rlim_max == 60);
	STEP(4, pf_caps_apply(&none) == 0);
	STEP(5, pf_rlimits_check(high, 2, &e) == -1 && e.kind == PF_ERR_UNSUPPORTED);
	STEP(6, strstr(e.msg, "RLIMIT_NOFILE") && strstr(e.msg, "at most 60"));
	STEP(7, pf_rlimits_apply(high, 2, &failed) == -1 && errno == EPERM && failed == 1);
	STEP(8, pf_rlimit_fail(&high[failed], EPERM, &e) == -1 && strstr(e.msg, "at most 60"));
	return 0;
}

/* Promise: lowering works; raising without CAP_SYS_RESOURCE is refused before and explained, not ignored. */
static void test_rlimit_set(void **state)
{
	(void)state;
	assert_int_equal(in_child(limits_in_child), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_session_root),
		cmocka_unit_test(test_other_user),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_rlimit_names),
		cmocka_unit_test(test_rlimit_set),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
