/* libpinfold: what pinfold.h promises to a program. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
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

#include "lib/pinfold.h"

static char why[PINFOLD_ERROR_SIZE];

/* The program lies beside the tests: build/tests/unit/test_library → build/bin/pinfold-jail. */
static int set_program(void **state)
{
	char path[4096], program[4200];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	(void)state;
	if (n <= 0)
		return -1;
	path[n] = '\0';
	for (int i = 0; i < 3; i++)
		*strrchr(path, '/') = '\0';
	snprintf(program, sizeof(program), "%s/bin/pinfold-jail", path);
	if (access(program, X_OK) < 0) {
		print_message("%s is not built\n", program);
		return -1;
	}
	return setenv("PINFOLD_JAIL", program, 1) < 0 || chdir("/tmp") < 0 ? -1 : 0;
}

static pinfold_process *spawn(const char *config, const struct pinfold_stdio *io)
{
	pinfold_process *p = pinfold_spawn(config, io, why);

	if (!p)
		fail_msg("%s", why);
	return p;
}

static void input_output_and_exit_code(void **state)
{
	const struct pinfold_stdio io = {.kind = {PINFOLD_PIPE, PINFOLD_PIPE, PINFOLD_NULL}};
	pinfold_result r;
	char text[64] = "";

	(void)state;
	pinfold_process *p = spawn("{\"command\": [\"sh\", \"-c\", \"tr a-z A-Z; exit 7\"]}", &io);
	assert_true(pinfold_pid(p) > 0);
	assert_int_equal(write(pinfold_stream_fd(p, 0), "hello", 5), 5);
	pinfold_close_stream(p, 0);
	assert_int_equal(pinfold_stream_fd(p, 0), -1);
	assert_int_equal(read(pinfold_stream_fd(p, 1), text, sizeof(text) - 1), 5);
	assert_string_equal(text, "HELLO");
	assert_int_equal(pinfold_wait(p, &r, why), 0);
	assert_int_equal(r.exit_code, 7);
	assert_int_equal(r.signal, 0);
	assert_null(r.limit);
	assert_true(r.wall_us > 0);
	assert_non_null(strstr(r.json, "\"exit_code\":7"));
	pinfold_result_free(&r);
	pinfold_free(p);
}

/* A host that has its own streams the other way round, and waits for no children. */
static void streams_are_swapped_and_children_ignored(void **state)
{
	struct pinfold_stdio io = {.kind = {PINFOLD_NULL, PINFOLD_FD, PINFOLD_FD}, .fd = {-1, 2, 1}};
	int out[2], err[2], saved[2] = {dup(1), dup(2)};
	char text[64] = "";
	pinfold_result r;

	(void)state;
	assert_int_equal(pipe(out), 0);
	assert_int_equal(pipe(err), 0);
	fflush(NULL);
	dup2(err[1], 1);
	dup2(out[1], 2);
	void (*before)(int) = signal(SIGCHLD, SIG_IGN);
	pinfold_process *p = pinfold_spawn(
		"{\"command\": [\"sh\", \"-c\", \"true; echo out; echo err >&2; exit 7\"]}", &io, why);
	dup2(saved[0], 1);
	dup2(saved[1], 2);
	int waited = p ? pinfold_wait(p, &r, why) : -1;
	(void)signal(SIGCHLD, before);
	if (waited < 0)
		fail_msg("%s", why);
	const int fds[] = {out[1], err[1], saved[0], saved[1]};
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		close(fds[i]);
	assert_int_equal(r.exit_code, 7);
	assert_int_equal(read(out[0], text, sizeof(text) - 1), 4);
	assert_string_equal(text, "out\n");
	assert_int_equal(read(err[0], text, sizeof(text) - 1), 4);
	assert_string_equal(text, "err\n");
	close(out[0]);
	close(err[0]);
	pinfold_result_free(&r);
	pinfold_free(p);
}

static void what_cannot_be_started_is_told(void **state)
{
	static const struct {
		const char *config, *text;
	} bad[] = {{"{\"command\": [\"/no/such/thing\"]}", "/no/such/thing"},
		{"{\"comand\": [\"true\"]}", "did you mean 'command'"},
		{"{\"command\": []}", "at least one word"},
		{"{\"command\": [\"true\"], \"files\": [{\"rw\": \"/no/such/dir\"}]}", "/no/such/dir"},
		{"{\"command\": [\"true\"], \"limits\": {\"memory\": \"lots\"}}", "limits.memory"},
		{"{\"command\": [\"true\"], \"networking\": {\"type\": \"limited\", \"allowed_hosts\": "
		 "[\"*\"]}}",
			"network"},
		{"not JSON", ""}, {"[]", "object"}};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		why[0] = '\0';
		assert_null(pinfold_spawn(bad[i].config, NULL, why));
		assert_true(*why);
		if (!strstr(why, bad[i].text))
			fail_msg("%s: \"%s\" does not tell of \"%s\"", bad[i].config, why, bad[i].text);
	}
	/* Nobody has to listen. */
	assert_null(pinfold_spawn("{}", NULL, NULL));
}

static void a_signal_reaches_the_command(void **state)
{
	const struct pinfold_stdio io = {.kind = {PINFOLD_NULL, PINFOLD_PIPE, PINFOLD_NULL}};
	pinfold_result r;
	char c;

	(void)state;
	pinfold_process *p = spawn("{\"command\": [\"sh\", \"-c\", \"trap 'exit 3' TERM; echo x; while :; do "
				   "sleep 0.05; done\"]}",
		&io);
	assert_int_equal(read(pinfold_stream_fd(p, 1), &c, 1), 1);
	struct pollfd fd = {.fd = pinfold_poll_fd(p), .events = POLLIN};
	assert_int_equal(poll(&fd, 1, 0), 0);
	assert_int_equal(pinfold_kill(p, SIGTERM, why), 0);
	assert_int_equal(poll(&fd, 1, 10000), 1);
	assert_int_equal(pinfold_wait(p, &r, why), 0);
	assert_int_equal(r.exit_code, 3);
	pinfold_result_free(&r);
	pinfold_free(p);
}

static void a_limit_ends_it_and_is_named(void **state)
{
	pinfold_result r;

	(void)state;
	pinfold_process *p =
		spawn("{\"command\": [\"sleep\", \"60\"], \"limits\": {\"timeout\": \"200ms\"}}", NULL);
	assert_int_equal(pinfold_wait(p, &r, why), 0);
	assert_int_equal(r.exit_code, 124);
	assert_string_equal(r.limit, "timeout");
	pinfold_result_free(&r);
	pinfold_free(p);
}

static void the_policy_changes_while_it_runs(void **state)
{
	pinfold_result r;

	(void)state;
	pinfold_process *p =
		spawn("{\"command\": [\"sleep\", \"60\"], \"allow\": [\"a.example.com\"]}", NULL);
	assert_int_equal(
		pinfold_policy_set(p, "{\"type\": \"limited\", \"allowed_hosts\": [\"b.example.com\"]}", why),
		0);
	assert_int_equal(
		pinfold_policy_set(p, "{\"type\": \"limited\", \"allowed_hosts\": [\"*\"]}", why), -1);
	assert_true(*why);
	assert_int_equal(pinfold_policy_set(p, "nonsense", why), -1);
	assert_int_equal(pinfold_kill(p, SIGKILL, why), 0);
	assert_int_equal(pinfold_wait(p, &r, why), 0);
	assert_int_equal(r.exit_code, 137);
	pinfold_result_free(&r);
	pinfold_free(p);

	p = spawn("{\"command\": [\"sleep\", \"60\"]}", NULL);
	assert_int_equal(pinfold_policy_set(p, "{\"type\": \"none\"}", why), -1);
	assert_non_null(strstr(why, "without a network"));
	pinfold_free(p);
}

static void a_snapshot_is_taken_while_it_runs(void **state)
{
	const struct pinfold_stdio io = {.kind = {PINFOLD_PIPE, PINFOLD_PIPE, PINFOLD_NULL}};
	char dir[] = "/tmp/pf-library.XXXXXX", config[512], clean[600], file[64], c, *json = NULL;
	pinfold_result r;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(snprintf(file, sizeof(file), "%s/tree", dir) > 0 ? mkdir(file, 0700) : -1, 0);
	(void)snprintf(config, sizeof(config),
		"{\"command\": [\"sh\", \"-c\", \"echo kept >%s/tree/f; echo x; read x; echo late "
		">%s/tree/g\"], "
		"\"files\": [{\"rw\": \"%s/tree\"}], \"overlay\": true, \"store\": \"%s/store\"}",
		dir, dir, dir, dir);
	pinfold_process *p = spawn(config, &io);
	assert_int_equal(read(pinfold_stream_fd(p, 1), &c, 1), 1);
	if (pinfold_snapshot(p, "mid", &json, why) < 0)
		fail_msg("%s", why);
	assert_non_null(strstr(json, "sha256:"));
	free(json);
	/* A taken name is refused, and the command goes on all the same. */
	assert_int_equal(pinfold_snapshot(p, "mid", NULL, why), -1);
	assert_non_null(strstr(why, "mid"));
	assert_int_equal(pinfold_snapshot(p, "../x", NULL, why), -1);
	pinfold_close_stream(p, 0);
	assert_int_equal(pinfold_wait(p, &r, why), 0);
	assert_int_equal(r.exit_code, 0);
	pinfold_result_free(&r);
	pinfold_free(p);

	(void)snprintf(config, sizeof(config),
		"{\"command\": [\"sh\", \"-c\", \"grep -q kept %s/tree/f && test ! -e %s/tree/g\"], "
		"\"files\": [{\"rw\": \"%s/tree\"}], \"from\": \"mid\", \"store\": \"%s/store\"}",
		dir, dir, dir, dir);
	p = spawn(config, NULL);
	assert_int_equal(pinfold_wait(p, &r, why), 0);
	assert_int_equal(r.exit_code, 0);
	pinfold_result_free(&r);
	pinfold_free(p);

	p = spawn("{\"command\": [\"sleep\", \"60\"]}", NULL);
	assert_int_equal(pinfold_snapshot(p, "none", NULL, why), -1);
	assert_non_null(strstr(why, "without an overlay"));
	pinfold_free(p);
	(void)snprintf(clean, sizeof(clean), "rm -rf %s", dir);
	assert_int_equal(system(clean), 0);
}

/* Whether pid is there and no zombie. */
static int lives(pid_t pid)
{
	char path[64], text[256];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return 0;
	const char *got = fgets(text, sizeof(text), f);
	fclose(f);
	const char *paren = got ? strrchr(text, ')') : NULL;
	return paren && paren[1] && paren[2] != 'Z';
}

static void free_ends_the_command(void **state)
{
	(void)state;
	pinfold_process *p = spawn("{\"command\": [\"sleep\", \"60\"]}", NULL);
	pid_t pid = pinfold_pid(p);
	assert_true(lives(pid));
	pinfold_free(p);
	assert_false(lives(pid));
	pinfold_free(NULL);
}

static void the_command_ends_with_its_host(void **state)
{
	int fds[2];
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	pid_t host = fork();
	if (host == 0) {
		pinfold_process *p = pinfold_spawn("{\"command\": [\"sleep\", \"60\"]}", NULL, NULL);
		pid = p ? pinfold_pid(p) : 0;
		(void)!write(fds[1], &pid, sizeof(pid));
		raise(SIGKILL);
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &pid, sizeof(pid)), sizeof(pid));
	close(fds[0]);
	assert_int_equal(waitpid(host, NULL, 0), host);
	assert_true(pid > 0);
	for (int i = 0; i < 500 && lives(pid); i++)
		usleep(10000);
	assert_false(lives(pid));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(input_output_and_exit_code),
		cmocka_unit_test(streams_are_swapped_and_children_ignored),
		cmocka_unit_test(what_cannot_be_started_is_told),
		cmocka_unit_test(a_signal_reaches_the_command),
		cmocka_unit_test(a_limit_ends_it_and_is_named),
		cmocka_unit_test(the_policy_changes_while_it_runs),
		cmocka_unit_test(a_snapshot_is_taken_while_it_runs), cmocka_unit_test(free_ends_the_command),
		cmocka_unit_test(the_command_ends_with_its_host)};

	return cmocka_run_group_tests(tests, set_program, NULL);
}
