/* The egress gate with a policy that changes while connections are open, end to end: what the new one does
 * not admit ends, all else goes on, and what is told of it is so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/gate_world.h"

/* The sandbox side of a change of policy: two connections, one of which must die and one live on. */
static int try_shrink(void *arg)
{
	int sync = *(int *)arg, doomed, kept;
	char c;

	CHECK((doomed = dial_name("web.example.test", PORT_ECHO, 1)) >= 0);
	CHECK((kept = dial_name("a.wild.test", PORT_ECHO, 1)) >= 0);
	CHECK(strcmp(exchange(doomed, "ping", 4), "ping") == 0);
	CHECK(strcmp(exchange(kept, "ping", 4), "ping") == 0);
	CHECK(write(sync, "1", 1) == 1 && read(sync, &c, 1) == 1);
	CHECK(strcmp(exchange(doomed, NULL, 0), "reset") == 0);
	CHECK(strcmp(exchange(kept, "pong", 4), "pong") == 0);
	union world_sa sa;
	CHECK(resolve("web.example.test", 1, &sa) == 3);
	CHECK((doomed = dial_name("deep.sub.wild.test", PORT_ECHO, 1)) >= 0);
	CHECK(strcmp(exchange(doomed, "ping", 4), "ping") == 0);
	/* The gate closes: nothing works any more. */
	CHECK(write(sync, "2", 1) == 1 && read(sync, &c, 1) == 1);
	CHECK(strcmp(exchange(kept, NULL, 0), "reset") == 0);
	CHECK(resolve("a.wild.test", 1, &sa) == -1);
	CHECK(dial_text("198.18.0.9", PORT_ECHO) < 0);
	CHECK(dial_text("9.9.9.1", PORT_ECHO) < 0);
	return 0;
}

static void test_policy_change_and_close(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	int netns, sync[2];
	char c;

	(void)state;
	NEED_WORLD();
	struct pf_gate *g =
		gate_of("{\"allowed_hosts\":[\"web.example.test\",\"*.wild.test\"]," RESOLVER "}", &netns);
	assert_non_null(g);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sync), 0);
	sandbox_keep = sync[1];
	pid_t pid = sandbox_start(netns, try_shrink, &sync[1]);
	sandbox_keep = -1;
	close(sync[1]);
	struct pollfd p = {.fd = sync[0], .events = POLLIN};
	while (poll(&p, 1, 0) == 0)
		gate_step(g, sync[0], 100);
	assert_int_equal(read(sync[0], &c, 1), 1);

	struct pf_policy *smaller = policy_of("{\"allowed_hosts\":[\"*.wild.test\"]," RESOLVER "}");
	pf_policy_set_revision(smaller, 2);
	assert_int_equal(pf_gate_set_policy(g, smaller, &err), 0);
	pf_policy_unref(smaller);
	assert_int_equal(log_count("\"policy_changed\"", "web.example.test", "\"revision\":2"), 1);
	assert_int_equal(write(sync[0], "1", 1), 1);
	while (poll(&p, 1, 0) == 0)
		gate_step(g, sync[0], 100);
	assert_int_equal(read(sync[0], &c, 1), 1);

	PF_JSON cJSON *stats = pf_gate_stats(g);
	assert_int_equal(cJSON_GetObjectItem(stats, "revision")->valueint, 2);
	assert_true(cJSON_GetObjectItem(stats, "connections_accepted")->valueint >= 3);
	pf_gate_close(g);
	assert_int_equal(write(sync[0], "1", 1), 1);
	int status = -1;
	waitpid(pid, &status, 0);
	close(sync[0]);
	close(netns);
	assert_int_equal(status, 0);
}

/* Something in the sandbox, at the point where it has told that it is there. */
struct part {
	pid_t pid;
	int sync; /* ours */
};

static struct part start_part(struct pf_gate *g, int netns, int (*fn)(void *))
{
	struct part p;
	int sync[2];
	char c;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sync), 0);
	sandbox_keep = sync[1];
	p.pid = sandbox_start(netns, fn, &sync[1]);
	sandbox_keep = -1;
	close(sync[1]);
	p.sync = sync[0];
	struct pollfd f = {.fd = p.sync, .events = POLLIN};
	while (poll(&f, 1, 0) == 0)
		gate_step(g, p.sync, 100);
	assert_int_equal(read(p.sync, &c, 1), 1);
	return p;
}

static void end_part(struct pf_gate *g, struct part *p)
{
	int status = sandbox_wait(g, p->pid);

	close(p->sync);
	assert_int_equal(status, 0);
}

static void become_policy(struct pf_gate *g, const char *text)
{
	struct pf_policy *p = policy_of(text);
	struct pf_err err = PF_ERR_INIT;

	assert_non_null(p);
	assert_int_equal(pf_gate_set_policy(g, p, &err), 0);
	pf_policy_unref(p);
}

static int try_literal(void *arg)
{
	int sync = *(int *)arg, bad, good;
	uint8_t hello[512];

	CHECK((bad = dial_text("9.9.9.1", PORT_TLS)) >= 0 && (good = dial_text("9.9.9.1", PORT_TLS)) >= 0);
	CHECK(strstr(exchange(bad, hello, client_hello(hello, "bad.wild.test", false)), "served"));
	CHECK(strstr(exchange(good, hello, client_hello(hello, "good.wild.test", false)), "served"));
	CHECK(write(sync, "1", 1) == 1);
	CHECK(strcmp(exchange(bad, NULL, 0), "reset") == 0);
	CHECK(strcmp(exchange(good, "ping", 4), "ping") == 0);
	return 0;
}

/* A name that is denied from now on ends what it stands in, also where an address was dialled. */
static void test_denied_behind_literal(void **state)
{
	int netns;

	(void)state;
	NEED_WORLD();
	struct pf_gate *g = gate_of("{\"type\":\"unrestricted\"," RESOLVER "}", &netns);
	assert_non_null(g);
	struct part part = start_part(g, netns, try_literal);
	become_policy(g, "{\"type\":\"unrestricted\",\"denied_hosts\":[\"bad.wild.test\"]," RESOLVER "}");
	end_part(g, &part);
	pf_gate_close(g);
	close(netns);
}

static int try_passthrough(void *arg)
{
	int sync = *(int *)arg, fd;
	uint8_t hello[512];

	CHECK((fd = dial_name("a.wild.test", PORT_TLS, 1)) >= 0);
	CHECK(strstr(exchange(fd, hello, client_hello(hello, "other.wild.test", false)), "served"));
	CHECK(write(sync, "1", 1) == 1);
	CHECK(strcmp(exchange(fd, "ping", 4), "ping") == 0);
	return 0;
}

/* What nobody looked at is not what a new policy judges. */
static void test_passthrough_goes_on(void **state)
{
	static const char policy[] =
		"{\"allowed_hosts\":[{\"host\":\"a.wild.test\",\"tls\":\"passthrough\"}]," RESOLVER "}";
	int netns;

	(void)state;
	NEED_WORLD();
	struct pf_gate *g = gate_of(policy, &netns);
	assert_non_null(g);
	struct part part = start_part(g, netns, try_passthrough);
	become_policy(g, policy);
	end_part(g, &part);
	pf_gate_close(g);
	close(netns);
}

static bool woken;

static void on_wake(void *user)
{
	(void)user;
	woken = true;
}

static int try_two_hellos(void *arg)
{
	int sync = *(int *)arg, a, b;
	uint8_t hello[512];
	size_t len;

	CHECK((a = dial_name("a.wild.test", PORT_TLS, 1)) >= 0);
	CHECK((b = dial_name("b.wild.test", PORT_TLS, 1)) >= 0);
	len = client_hello(hello, "a.wild.test", false);
	CHECK(send(a, hello, len, 0) == (ssize_t)len);
	len = client_hello(hello, "b.wild.test", false);
	CHECK(send(b, hello, len, 0) == (ssize_t)len);
	CHECK(write(sync, "1", 1) == 1);
	CHECK(strcmp(exchange(a, NULL, 0), "ping") != 0 && strcmp(exchange(b, NULL, 0), "ping") != 0);
	return 0;
}

/* A pinfold-tls that takes nothing cannot be told to end one connection: it is given up, and none of those it
 * had stays in the books. */
static void test_stuck_link(void **state)
{
	static const char fill[] = "{}";
	const struct pf_gate_opts opts = {.audit = log_event, .authority = true, .wake_tls = on_wake};
	struct pf_err err = PF_ERR_INIT;
	int netns, link[2];

	(void)state;
	NEED_WORLD();
	log_clear();
	woken = false;
	struct pf_policy *p =
		policy_of("{\"allowed_hosts\":[{\"host\":\"a.wild.test\",\"tls\":\"terminate\"},"
			  "{\"host\":\"b.wild.test\",\"tls\":\"terminate\"}]," RESOLVER "}");
	struct pf_gate *g = pf_gate_open(p, &opts, &netns, &err);
	assert_non_null(g);
	pf_policy_unref(p);
	struct part part = start_part(g, netns, try_two_hellos);
	while (!woken)
		gate_step(g, -1, 100);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, link), 0);
	int ours = fcntl(link[0], F_DUPFD_CLOEXEC, 3);
	assert_int_equal(pf_gate_tls(g, link[0], NULL, &err), 0);
	while (log_count("\"connect\"", "\"allow\"", NULL) < 2)
		gate_step(g, -1, 100);
	while (send(ours, fill, sizeof(fill), MSG_NOSIGNAL) > 0)
		;
	become_policy(
		g, "{\"allowed_hosts\":[{\"host\":\"b.wild.test\",\"tls\":\"terminate\"}]," RESOLVER "}");
	gate_step(g, -1, 0);
	PF_JSON cJSON *stats = pf_gate_stats(g);
	assert_int_equal(cJSON_GetObjectItem(stats, "connections")->valueint, 0);
	assert_int_equal(log_count("a.wild.test", "\"close\"", "\"policy_changed\""), 1);
	assert_int_equal(log_count("b.wild.test", "\"close\"", "\"tls_down\""), 1);
	close(ours);
	close(link[1]);
	end_part(g, &part);
	pf_gate_close(g);
	close(netns);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_policy_change_and_close),
		cmocka_unit_test(test_denied_behind_literal),
		cmocka_unit_test(test_passthrough_goes_on),
		cmocka_unit_test(test_stuck_link),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
