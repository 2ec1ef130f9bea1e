/* session/config: what a sandbox file means, and what is refused in it and how it is named (parallel-safe).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "session/config.h"

#define EXAMPLES "tests/data/sandbox-examples/"

static int parse(const char *text, struct pf_config *c, struct pf_err *err)
{
	PF_JSON cJSON *doc = pf_json_parse("doc", text, strlen(text), err);

	*c = (struct pf_config){0};
	return doc ? pf_config_parse(doc, c, err) : -1;
}

/* Parse what must be right. */
static void good(const char *text, struct pf_config *c)
{
	struct pf_err err = PF_ERR_INIT;

	if (parse(text, c, &err) < 0)
		fail_msg("%s\n  in %s", err.msg, text);
}

/* What must be refused, as invalid, with a message that holds each of the (up to two) words. */
static void bad2(const char *text, const char *word, const char *word2)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_config c;

	if (parse(text, &c, &err) == 0) {
		pf_config_done(&c);
		fail_msg("accepted: %s", text);
	}
	assert_int_equal(err.kind, PF_ERR_INVALID);
	if (!strstr(err.msg, word) || !strstr(err.msg, word2))
		fail_msg("'%s' lacks '%s' or '%s'", err.msg, word, word2);
	assert_null(c.networking); /* nothing half-made */
}

static void bad(const char *text, const char *word)
{
	bad2(text, word, word);
}

static char *canonical(const struct pf_config *c)
{
	PF_JSON cJSON *j = pf_config_to_json(c);
	return pf_json_text(j);
}

/* parse(to_json(c)) is c: the canonical text does not change any more, and fields agree. */
static void round_trip(const struct pf_config *c)
{
	PF_FREE char *one = canonical(c);
	struct pf_config again;
	good(one, &again);
	PF_FREE char *two = canonical(&again);
	assert_string_equal(one, two);
	assert_memory_equal(&c->limits, &again.limits, sizeof(c->limits));
	assert_int_equal(c->resources.memory, again.resources.memory);
	assert_int_equal(c->resources.memory_swap, again.resources.memory_swap);
	assert_int_equal(c->resources.millicpus, again.resources.millicpus);
	assert_int_equal(c->resources.pids, again.resources.pids);
	assert_int_equal(c->filesystem.access, again.filesystem.access);
	assert_int_equal(c->filesystem.size, again.filesystem.size);
	assert_int_equal(c->filesystem.tmp_size, again.filesystem.tmp_size);
	assert_int_equal(c->allow_package_managers, again.allow_package_managers);
	assert_int_equal(c->n_credentials, again.n_credentials);
	pf_config_done(&again);
}

static void load(const char *name, struct pf_config *c)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *path = pf_asprintf(EXAMPLES "%s", name);

	if (pf_config_load(path, c, &err) < 0)
		fail_msg("%s", err.msg);
}

static const char *net(const struct pf_config *c, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(c->networking, key);
	return cJSON_IsArray(v) ? cJSON_GetStringValue(v->child) : cJSON_GetStringValue(v);
}

/* The enterprise form, word for word as its platform writes it. */
static void enterprise_example(void **state)
{
	struct pf_config c;

	(void)state;
	load("enterprise.json", &c);
	assert_string_equal(c.runtime, "python3.9");
	assert_null(c.image);
	assert_int_equal(c.resources.millicpus, 1000);
	assert_int_equal(c.resources.memory, 512 << 20);
	assert_int_equal(c.resources.memory_swap, 0);
	assert_int_equal(c.limits.exec_timeout_ms, 300000);
	assert_int_equal(c.limits.max_runtime_ms, -1);
	assert_string_equal(net(&c, "type"), "limited");
	assert_string_equal(net(&c, "allowed_hosts"), "api.enterprise-internal.com");
	assert_int_equal(c.filesystem.access, PF_ACCESS_TEMP_ONLY);
	assert_int_equal(c.filesystem.tmp_size, PF_CONFIG_DEFAULT_TMP);
	assert_string_equal(c.workdir, "/tmp");
	assert_true(pf_config_writable(&c.filesystem, "/tmp/x"));
	assert_false(pf_config_writable(&c.filesystem, "/workspace"));
	assert_false(pf_config_writable(&c.filesystem, "/var/tmp"));
	round_trip(&c);
	pf_config_done(&c);
}

static void sdk_example(void **state)
{
	struct pf_config c;

	(void)state;
	load("sdk.json", &c);
	assert_string_equal(c.name, "data-processor");
	assert_string_equal(net(&c, "type"), "limited");
	assert_string_equal(net(&c, "allowed_hosts"), "api.internal.example.com");
	assert_int_equal(c.filesystem.size, 512 << 20);
	assert_int_equal(c.filesystem.access, PF_ACCESS_READ_ONLY);
	assert_string_equal(c.filesystem.writable_paths[0], "/tmp");
	assert_string_equal(c.filesystem.writable_paths[1], "/workspace");
	assert_string_equal(c.filesystem.read_only_paths[0], "/config");
	assert_int_equal(c.filesystem.tmp_size, -1);
	assert_int_equal(c.limits.max_runtime_ms, 3600000);
	assert_int_equal(c.resources.memory, (int64_t)2048 << 20);
	assert_true(pf_config_writable(&c.filesystem, "/workspace/a/b"));
	assert_false(pf_config_writable(&c.filesystem, "/workspaces"));
	assert_false(pf_config_writable(&c.filesystem, "/etc"));
	round_trip(&c);
	pf_config_done(&c);
}

static void environment_example(void **state)
{
	struct pf_config c;

	(void)state;
	load("environment.json", &c);
	assert_string_equal(c.name, "data-analysis");
	assert_string_equal(net(&c, "type"), "limited");
	assert_string_equal(net(&c, "allowed_hosts"), "api.example.com");
	assert_false(c.allow_package_managers);
	assert_true(c.has_packages);
	assert_string_equal(c.packages[PF_APT][0], "jq");
	assert_null(c.packages[PF_PIP][0]);
	assert_null(c.warnings[0]);
	round_trip(&c);
	pf_config_done(&c);

	/* The same object as the platform hands it out, with what it adds. */
	good("{\"type\":\"environment\",\"id\":\"env_1\",\"name\":\"n\",\"description\":\"\",\"metadata\":{},"
	     "\"archived_at\":null,\"created_at\":\"2026-01-01T00:00:00Z\",\"updated_at\":\"x\",\"config\":"
	     "{\"type\":\"cloud\",\"networking\":{\"type\":\"unrestricted\"},\"packages\":{\"type\":"
	     "\"packages\","
	     "\"pip\":[\"pandas==2.2\"],\"npm\":[]}}}",
		&c);
	assert_string_equal(net(&c, "type"), "unrestricted");
	assert_string_equal(c.packages[PF_PIP][0], "pandas==2.2");
	round_trip(&c);
	pf_config_done(&c);
	bad("{\"id\":\"env_1\",\"config\":{},\"memroy_limit\":1}",
		"'memroy_limit': did you mean 'memory_limit'?");
	bad("{\"id\":\"env_1\"}", "unknown key 'id'");
}

static void credentials_example(void **state)
{
	struct pf_config c;

	(void)state;
	load("credentials.json", &c);
	assert_int_equal(c.n_credentials, 2);
	assert_string_equal(c.credentials[0].name, "crm_api_key");
	assert_string_equal(c.credentials[0].type, "api_key");
	assert_string_equal(c.credentials[0].scope, "read:contacts");
	assert_int_equal(c.credentials[0].validity_ms, (int64_t)30 * 86400000);
	assert_int_equal(c.credentials[0].max_requests_per_hour, 1000);
	assert_string_equal(c.credentials[1].databases[0], "customer_data");
	assert_int_equal(c.credentials[1].validity_ms, -1);
	assert_string_equal(net(&c, "type"), "none");
	round_trip(&c);
	pf_config_done(&c);
	bad("{\"credentials\":{\"a\":{}}}", "credentials.a.type: is missing");
	bad("{\"credentials\":{\"a\":{\"type\":null}}}", "credentials.a.type: is missing");
	bad("{\"credentials\":{\"a\":{\"type\":\"k\",\"scop\":\"x\"}}}",
		"'credentials.a.scop': did you mean 'scope'?");
	bad("{\"credentials\":{\"a/b\":{\"type\":\"k\"}}}", "credential's name");
	bad("{\"credentials\":{\"a\":{\"type\":\"k\",\"max_requests_per_hour\":0}}}",
		"max_requests_per_hour");
	bad("{\"credentials\":[]}", "credentials: must be an object");
}

/* An empty document is a sandbox without network, with bounds where none were asked for. */
static void defaults_are_closed(void **state)
{
	struct pf_config c;

	(void)state;
	good("{}", &c);
	assert_string_equal(net(&c, "type"), "none");
	assert_int_equal(c.resources.pids, PF_CONFIG_DEFAULT_PIDS);
	assert_int_equal(c.resources.memory, -1);
	assert_int_equal(c.resources.memory_swap, 0);
	assert_int_equal(c.filesystem.access, PF_ACCESS_FULL);
	assert_null(c.command[0]);
	assert_null(c.env[0]);
	assert_null(c.user.text);
	assert_null(c.warnings[0]);
	round_trip(&c);
	pf_config_done(&c);
	good("{\"networking\":null,\"resources\":null,\"env\":null}", &c); /* null: not given */
	assert_string_equal(net(&c, "type"), "none");
	pf_config_done(&c);
	good("{\"networking\":{}}", &c);
	assert_string_equal(net(&c, "type"), "limited");
	pf_config_done(&c);
	good("{\"filesystem\":{\"mounts\":[{\"source\":\"/srv\",\"target\":\"/srv\"}]}}", &c);
	assert_true(c.filesystem.mounts[0].read_only);
	pf_config_done(&c);
}

/* Everything at once in the canonical form keeps every value through writing and reading. */
static void canonical_round_trip(void **state)
{
	struct pf_config c;

	(void)state;
	good("{\"name\":\"Café\",\"image\":\"python:3.11\",\"command\":[\"sh\",\"-c\",\"echo \\\"$A\\\"\"],"
	     "\"env\":{\"A\":\"x=y\\nz\",\"_B2\":\"\"},\"workdir\":\"/workspace//src/"
	     ".\",\"user\":\"1000:agent\","
	     "\"hostname\":\"box-1.local\",\"resources\":{\"cpus\":0.5,\"cpu_weight\":50,\"cpuset\":\"0-3,"
	     "5\","
	     "\"memory\":\"1.5G\",\"memory_swap\":\"64M\",\"pids\":100,\"io\":{\"read_bps\":\"10M\",\"write_"
	     "iops\":7}},"
	     "\"filesystem\":{\"access\":\"full\",\"size\":\"2G\",\"tmp_size\":\"64M\",\"writable_paths\":["
	     "\"/opt/data\"],"
	     "\"read_only_paths\":[\"/opt\"],\"mounts\":[{\"source\":\"/srv/in\",\"target\":\"/in\"},"
	     "{\"source\":\"/srv/out\",\"target\":\"/out\",\"read_only\":false}]},"
	     "\"networking\":{\"type\":\"limited\",\"allowed_hosts\":[\"a.example\",{\"host\":\"b.example\","
	     "\"ports\":"
	     "\"22\",\"allow_private\":true}],\"denied_hosts\":[\"c.a.example\"],\"allowed_cidrs\":[\"203.0."
	     "113.0/24\"],"
	     "\"allow_private\":[\"10.0.0.0/"
	     "8\"],\"resolver\":\"192.0.2.1:53\",\"allow_package_managers\":true,"
	     "\"allow_mcp_servers\":true},\"packages\":{\"npm\":[\"@scope/x@1\"]},"
	     "\"credentials\":{\"k\":{\"type\":\"api_key\"}},"
	     "\"limits\":{\"max_runtime\":\"1h30m\",\"idle\":1.5,\"exec_timeout\":\"250ms\"},"
	     "\"checkpoint\":{\"on\":[\"destroy\",\"idle\"],\"every\":\"10m\",\"keep\":3,\"pre\":[\"sync\"],"
	     "\"exclude\":[\"/mnt/"
	     "memory\"]},"
	     "\"labels\":{\"team/a\":\"x\",\"b\":\"\"}}",
		&c);
	assert_int_equal(c.resources.millicpus, 500);
	assert_int_equal(c.resources.memory, (int64_t)1536 << 20);
	assert_int_equal(c.resources.write_iops, 7);
	assert_string_equal(c.workdir, "/workspace/src");
	assert_string_equal(c.env[0], "A=x=y\nz");
	assert_int_equal(c.user.uid, 1000);
	assert_string_equal(c.user.group_name, "agent");
	assert_int_equal(c.limits.max_runtime_ms, 5400000);
	assert_int_equal(c.limits.idle_ms, 1500);
	assert_int_equal(c.limits.exec_timeout_ms, 250);
	assert_true(c.checkpoint.on[PF_ON_IDLE] && c.checkpoint.on[PF_ON_DESTROY] &&
		    !c.checkpoint.on[PF_ON_EXIT]);
	assert_string_equal(c.labels[0].key, "b");
	assert_non_null(strstr(c.warnings[0], "allow_mcp_servers"));
	/* The deepest rule decides. */
	assert_true(pf_config_writable(&c.filesystem, "/opt/data/x"));
	assert_false(pf_config_writable(&c.filesystem, "/opt/dat"));
	assert_false(pf_config_writable(&c.filesystem, "/in/x"));
	assert_true(pf_config_writable(&c.filesystem, "/out"));
	assert_true(pf_config_writable(&c.filesystem, "/etc"));
	round_trip(&c);
	pf_config_done(&c);
	for (int m = 10; m < 4096000; m = m * 3 + 1) { /* no cpu count is rounded on its way */
		char text[64];
		snprintf(text, sizeof(text), "{\"resources\":{\"cpus\":\"%d.%03d\"}}", m / 1000, m % 1000);
		good(text, &c);
		assert_int_equal(c.resources.millicpus, m);
		round_trip(&c);
		pf_config_done(&c);
	}
}

/* A typing error in any object is refused with its place and what was meant. */
static void unknown_keys(void **state)
{
	(void)state;
	bad("{\"memory_limits\":\"1G\"}", "unknown key 'memory_limits': did you mean 'memory_limit'?");
	bad("{\"resources\":{\"memroy\":1}}", "unknown key 'resources.memroy': did you mean 'memory'?");
	bad("{\"memory\":\"1G\"}", "unknown key 'memory': did you mean 'resources.memory'?");
	bad("{\"networking\":{\"allowed_host\":[]}}",
		"'networking.allowed_host': did you mean 'allowed_hosts'?");
	bad("{\"config\":{\"networking\":{\"alowed_hosts\":[]}}}", "'config.networking.alowed_hosts'");
	bad("{\"sandbox\":{\"max_memory\":1}}", "'sandbox.max_memory': did you mean 'max_memory_mb'?");
	bad("{\"sandbox\":{\"filesystem\":{\"max_size\":1}}}", "'sandbox.filesystem.max_size'");
	bad("{\"sandbox\":{\"filesystem\":{\"writeable_paths\":[]}}}", "did you mean 'writable_paths'?");
	bad("{\"filesystem\":{\"mounts\":[{\"src\":\"/a\"}]}}", "filesystem.mounts[0].src");
	bad("{\"resources\":{\"io\":{\"rbps\":1}}}", "resources.io.rbps");
	bad("{\"limits\":{\"timeout\":1}}", "limits.timeout");
	bad("{\"checkpoint\":{\"onn\":[]}}", "did you mean 'on'?");
	bad("{\"packages\":{\"yum\":[\"x\"]}}", "packages.yum");
	bad("{\"zzzzzzzzzz\":1}", "unknown key 'zzzzzzzzzz'");
	bad("{\"networking\":{\"allowed_hosts\":[{\"host\":\"a\",\"port\":1}]}}", "did you mean 'ports'?");
	bad("{\"Memory_limit\":\"1G\"}", "did you mean 'memory_limit'?"); /* keys keep their case */
	bad("{\"memory_limit\":\"1G\",\"memory_limit\":\"2G\"}", "given twice");
	bad("{\"memory_limit\\u0000x\":\"1G\"}", "\\u0000");
}

/* One setting in two spellings is refused even when both say the same. */
static void two_spellings(void **state)
{
	(void)state;
	bad2("{\"memory_limit\":\"1G\",\"resources\":{\"memory\":\"1G\"}}", "'memory_limit'",
		"'resources.memory'");
	bad2("{\"memory_limit\":\"1G\",\"sandbox\":{\"max_memory_mb\":1}}", "'memory_limit'",
		"'sandbox.max_memory_mb'");
	bad2("{\"cpu_limit\":\"1\",\"resources\":{\"cpus\":1}}", "'cpu_limit'", "'resources.cpus'");
	bad2("{\"timeout_seconds\":1,\"limits\":{\"exec_timeout\":1}}", "timeout_seconds",
		"limits.exec_timeout");
	bad2("{\"limits\":{\"max_runtime\":1},\"sandbox\":{\"max_runtime_seconds\":1}}", "limits.max_runtime",
		"sandbox.max_runtime_seconds");
	bad2("{\"network_whitelist\":[],\"networking\":{}}", "'networking'", "'network_whitelist'");
	bad2("{\"network_whitelist\":[],\"sandbox\":{\"allowed_domains\":[]}}", "'sandbox.allowed_domains'",
		"'network_whitelist'");
	bad2("{\"networking\":{},\"config\":{\"networking\":{}}}", "'networking'", "'config.networking'");
	bad2("{\"filesystem_access\":\"full\",\"filesystem\":{\"access\":\"full\"}}", "filesystem_access",
		"filesystem.access");
	bad2("{\"filesystem\":{\"size\":\"1G\"},\"sandbox\":{\"filesystem\":{\"max_size_mb\":1}}}",
		"filesystem.size", "max_size_mb");
	bad2("{\"packages\":{},\"config\":{\"packages\":{}}}", "'packages'", "'config.packages'");

	/* Different settings of different spellings go together. */
	struct pf_config c;
	good("{\"memory_limit\":\"1G\",\"resources\":{\"pids\":5},\"limits\":{\"idle\":60},\"timeout_"
	     "seconds\":9}",
		&c);
	assert_int_equal(c.resources.pids, 5);
	assert_int_equal(c.limits.exec_timeout_ms, 9000);
	pf_config_done(&c);
}

static void sizes_and_numbers(void **state)
{
	static const char *const sizes[] = {"\"512MBB\"", "\"-1\"", "-1", "0", "\"0\"", "1e300", "1e999",
		"\"1e9\"", "9223372036854775808", "\"9223372036854775808\"", "1.5", "\"\"", "\" 512M\"",
		"\"512M \"", "\"0x10\"", "true", "[]", "{}", "\"99999999T\"", "1", "\"4K\"", "\"512M\\n\""};
	char text[256];

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		snprintf(text, sizeof(text), "{\"memory_limit\":%s}", sizes[i]);
		bad(text, "memory_limit: ");
		snprintf(text, sizeof(text), "{\"filesystem\":{\"size\":%s}}", sizes[i]);
		bad(text, "filesystem.size: ");
	}
	static const char *const mbs[] = {"0", "-1", "1e300", "0.5", "\"512\"", "1099511627777"};
	for (size_t i = 0; i < sizeof(mbs) / sizeof(mbs[0]); i++) {
		snprintf(text, sizeof(text), "{\"sandbox\":{\"max_memory_mb\":%s}}", mbs[i]);
		bad(text, "sandbox.max_memory_mb: ");
	}
	static const char *const times[] = {
		"0", "-1", "1e300", "\"5 m\"", "\"m\"", "\"-5m\"", "\"\"", "400000000", "true"};
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		snprintf(text, sizeof(text), "{\"limits\":{\"idle\":%s}}", times[i]);
		bad(text, "limits.idle: ");
	}
	bad("{\"timeout_seconds\":\"300\"}", "timeout_seconds: must be a number of seconds");
	static const char *const cpus[] = {
		"0", "\"0\"", "-1", "\"-1\"", "0.001", "5000", "1e300", "\"1 \"", "\"one\"", "[]"};
	for (size_t i = 0; i < sizeof(cpus) / sizeof(cpus[0]); i++) {
		snprintf(text, sizeof(text), "{\"cpu_limit\":%s}", cpus[i]);
		bad(text, "cpu_limit: ");
	}
	bad("{\"resources\":{\"pids\":0}}", "resources.pids");
	bad("{\"resources\":{\"pids\":\"5\"}}", "resources.pids");
	bad("{\"resources\":{\"pids\":4194305}}", "resources.pids");
	bad("{\"resources\":{\"memory_swap\":\"1G\"}}",
		"memory_swap: has no effect without resources.memory");
	static const char *const sets[] = {"", "-", "3-1", "0-", ",1", "1,", "0-1-2", "99999", "a", "1 ,2"};
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		snprintf(text, sizeof(text), "{\"resources\":{\"cpuset\":\"%s\"}}", sets[i]);
		bad(text, "resources.cpuset: ");
	}
	bad("{\"resources\":[]}", "resources: must be an object");
	bad("{\"sandbox\":5}", "sandbox: must be an object");
	bad("[]", "one JSON object");
	/* What the workspace cannot be made with is refused here, by its name. */
	bad("{\"filesystem\":{\"size\":\"3M\"}}", "filesystem.size: must be from 4M");
	bad("{\"filesystem\":{\"size\":4194303}}", "filesystem.size: must be from 4M");
	bad("{\"sandbox\":{\"filesystem\":{\"max_size_mb\":3}}}",
		"sandbox.filesystem.max_size_mb: must be from 4M");
	bad("{\"filesystem\":{\"size\":\"9T\"}}", "filesystem.size: must be at most 8T");
	bad("{\"filesystem\":{\"tmp_size\":\"4K\"}}", "filesystem.tmp_size: must be from 1M");
}

static void paths(void **state)
{
	(void)state;
	bad("{\"filesystem\":{\"writable_paths\":[\"tmp\"]}}",
		"filesystem.writable_paths: path 'tmp' must be absolute");
	bad("{\"filesystem\":{\"writable_paths\":[\"/a/../b\"]}}", "'..'");
	bad("{\"filesystem\":{\"writable_paths\":[\"/a\",\"/a/\"]}}", "'/a' is listed twice");
	bad("{\"filesystem\":{\"writable_paths\":[\"/a\"],\"read_only_paths\":[\"//a\"]}}",
		"'/a' is listed in");
	bad("{\"filesystem\":{\"writable_paths\":[\"/\"]}}", "filesystem.access");
	bad("{\"filesystem\":{\"writable_paths\":[\"/proc/sys\"]}}", "/proc");
	bad("{\"filesystem\":{\"writable_paths\":\"/a\"}}", "an array");
	bad("{\"filesystem\":{\"writable_paths\":[1]}}", "strings");
	bad("{\"filesystem\":{\"writable_paths\":[\"/a\\nb\"]}}", "control characters");
	bad("{\"sandbox\":{\"filesystem\":{\"writable_paths\":[\"tmp\"]}}}",
		"sandbox.filesystem.writable_paths");
	bad("{\"workdir\":\"../x\"}", "workdir");
	bad("{\"filesystem\":{\"mounts\":[{\"source\":\"a\",\"target\":\"/b\"}]}}",
		"filesystem.mounts[0].source");
	bad("{\"filesystem\":{\"mounts\":[{\"target\":\"/b\"}]}}", "mounts[0].source: is missing");
	bad("{\"filesystem\":{\"mounts\":[{\"source\":\"/b\",\"target\":null}]}}",
		"mounts[0].target: is missing");
	bad("{\"filesystem\":{\"mounts\":[{\"source\":\"/b\",\"target\":\"/\"}]}}", "cannot be mounted over");
	bad("{\"filesystem\":{\"mounts\":[{\"source\":\"/b\",\"target\":\"/proc/1\"}]}}",
		"cannot be mounted over");
	bad("{\"filesystem\":{\"mounts\":[{\"source\":\"/b\",\"target\":\"/c\"},{\"source\":\"/"
	    "d\",\"target\":\"/c/\"}]}}",
		"filesystem.mounts[0]");
	bad("{\"filesystem\":{\"mounts\":[5]}}", "objects");
	bad("{\"filesystem\":{\"writable_paths\":[\"/c\"],\"mounts\":[{\"source\":\"/b\",\"target\":\"/"
	    "c\"}]}}",
		"writable_paths");
	bad("{\"filesystem\":{\"access\":\"none\"}}", "filesystem.access");
	bad("{\"filesystem_access\":\"temp\"}", "filesystem_access");
	bad("{\"filesystem_access\":7}", "filesystem_access");
	bad("{\"filesystem\":{\"access\":\"read_only\",\"tmp_size\":\"1G\"}}", "/tmp is read-only here");
	bad("{\"filesystem_access\":\"temp_only\",\"filesystem\":{\"read_only_paths\":[\"/tmp\"]}}",
		"temp_only");

	PF_BUF struct pf_buf b = {0};
	pf_buf_str(&b, "{\"workdir\":\"");
	for (int i = 0; i < 2100; i++)
		pf_buf_str(&b, "/a");
	pf_buf_str(&b, "\"}");
	bad(b.data, "at most 4095 bytes");
}

static void networking(void **state)
{
	(void)state;
	bad("{\"networking\":{\"type\":\"open\"}}", "networking.type");
	bad("{\"networking\":{\"type\":5}}", "networking.type");
	bad("{\"networking\":{\"type\":\"none\",\"allowed_hosts\":[\"a.example\"]}}",
		"networking.allowed_hosts has no effect");
	bad("{\"config\":{\"networking\":{\"type\":\"unrestricted\",\"allowed_hosts\":[\"a\"]}}}",
		"config.networking.allowed_hosts has no effect");
	struct pf_config c;
	good("{\"networking\":{\"type\":\"unrestricted\",\"allowed_hosts\":[{\"host\":\"db.example\",\"allow_"
	     "private\":true}]}}",
		&c);
	assert_string_equal(net(&c, "type"), "unrestricted");
	round_trip(&c);
	pf_config_done(&c);
	bad("{\"networking\":{\"allowed_hosts\":\"a.example\"}}",
		"networking.allowed_hosts: must be an array");
	bad("{\"networking\":{\"allowed_hosts\":[\"\"]}}", "not empty");
	bad("{\"networking\":{\"allowed_hosts\":[{}]}}", "no \"host\"");
	bad("{\"networking\":{\"denied_hosts\":[{\"host\":\"a\"}]}}", "denied_hosts");
	bad("{\"networking\":{\"allow_private\":\"yes\"}}", "allow_private");
	bad("{\"networking\":{\"resolver\":5}}", "resolver");
	bad("{\"networking\":{\"allow_package_managers\":\"no\"}}", "allow_package_managers");
	bad("{\"networking\":{\"type\":\"none\",\"allow_package_managers\":true}}", "allow_package_managers");
	bad("{\"network_whitelist\":\"a\"}", "network_whitelist");
	bad("{\"network_whitelist\":[{\"host\":\"a\"}]}", "network_whitelist");
	bad("{\"sandbox\":{\"allowed_domains\":[null]}}", "sandbox.allowed_domains");
	bad("{\"networking\":[]}", "networking: must be an object");
	bad("{\"networking\":{\"allowed_hosts\":[\"evil.example\\u0000.good.example\"]}}", "\\u0000");
}

static void process(void **state)
{
	(void)state;
	bad("{\"command\":\"sh\"}", "command");
	bad("{\"command\":[]}", "command: must begin with the program");
	bad("{\"command\":[\"\"]}", "command: must begin with the program");
	bad("{\"command\":[\"sh\",1]}", "command");
	bad("{\"env\":[\"A=b\"]}", "env: must be an object");
	bad("{\"env\":{\"A\":1}}", "env: 'A' must be a string");
	bad("{\"env\":{\"A\":null}}", "env: 'A' must be a string");
	bad("{\"env\":{\"A=B\":\"\"}}", "not a variable name");
	bad("{\"env\":{\"\":\"\"}}", "not a variable name");
	bad("{\"env\":{\"1A\":\"\"}}", "not a variable name");
	bad("{\"hostname\":\"-a\"}", "hostname");
	bad("{\"hostname\":\"a..b\"}", "hostname");
	bad("{\"hostname\":\"a b\"}", "hostname");
	bad("{\"image\":\"\"}", "image");
	bad("{\"image\":\"--root\"}", "image");
	bad("{\"image\":\"a\",\"runtime\":\"python3.9\"}", "'image' and 'runtime'");
	bad("{\"strict_runtime\":true}", "strict_runtime");
	bad("{\"user\":1000}", "user: must be a string");
	bad("{\"packages\":{\"apt\":[\"--allow-unauthenticated\"]}}", "packages.apt");
	bad("{\"packages\":{\"pip\":[\"a b\"]}}", "packages.pip");
	bad("{\"config\":{\"packages\":{\"apt\":[\"\"]}}}", "config.packages.apt");
	bad("{\"config\":{\"type\":\"hosted\"}}", "config.type");
	bad("{\"tools\":{}}", "tools");
	bad("{\"labels\":{\"io.pinfold.x\":\"\"}}", "Pinfold's own");
	bad("{\"labels\":{\"a b\":\"\"}}", "label key");
	bad("{\"labels\":{\"a\":1}}", "labels: 'a'");
	bad("{\"checkpoint\":{\"on\":[\"never\"]}}", "checkpoint.on");
	bad("{\"checkpoint\":{\"on\":[\"idle\"]}}", "limits.idle");
	bad("{\"checkpoint\":{\"on\":[\"destroy\",\"destroy\"]}}", "listed twice");
	bad("{\"checkpoint\":{\"keep\":0}}", "checkpoint.keep");
	bad("{\"checkpoint\":{\"keep\":3}}", "checkpoint.keep");
	bad("{\"checkpoint\":{\"every\":\"10ms\"}}", "checkpoint.every");
	bad("{\"checkpoint\":{\"pre\":\"sync\"}}", "checkpoint.pre");
	bad("{\"name\":\"a\\u0007\"}", "name");
}

/* A user string is exactly what it says, or it is refused; never root by accident. */
static void users(void **state)
{
	static const char *const refused[] = {"", "0x0", "-1", "4294967296", "4294967295", "1000:", ":1000",
		" 1", "1 ", "root\n", "+1", "1:2:3", "1000:-1", "a b", "root:", "-root", "1000:0x0",
		"99999999999999999999", "1e3", "١", "0a", ":", "1000: 1", ".."};
	struct pf_config_user u;
	struct pf_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		err = PF_ERR_INIT;
		if (pf_config_user_parse("--user", refused[i], &u, &err) == 0)
			fail_msg("accepted '%s'", refused[i]);
		assert_int_equal(err.kind, PF_ERR_INVALID);
		assert_non_null(strstr(err.msg, "--user: "));
	}
	assert_int_equal(pf_config_user_parse("u", "4294967294:0", &u, &err), 0);
	assert_true(u.uid == 4294967294LL && u.gid == 0 && !u.name && !u.group_name);
	pf_config_user_done(&u);
	assert_int_equal(pf_config_user_parse("u", "www-data", &u, &err), 0);
	assert_true(u.uid == -1 && u.gid == -1);
	assert_string_equal(u.name, "www-data");
	assert_null(u.group_name);
	pf_config_user_done(&u);
	assert_int_equal(pf_config_user_parse("u", "00000000000000000000000000000000001000", &u, &err), 0);
	assert_int_equal(u.uid, 1000);
	pf_config_user_done(&u);
}

/* Errors of a file name the file; a missing one is not_found; damage is placed. */
static void files(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_config c;
	char path[] = "/tmp/pinfold-config.XXXXXX";
	int fd = mkstemp(path);
	static const char text[] = "{\"resources\":{\"memory\":-5}}";

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	assert_int_equal(pf_config_load(path, &c, &err), -1);
	assert_non_null(strstr(err.msg, path));
	assert_non_null(strstr(err.msg, "resources.memory"));
	assert_int_equal(ftruncate(fd, 10), 0);
	assert_int_equal(pf_config_load(path, &c, &err), -1);
	assert_non_null(strstr(err.msg, "not valid JSON"));
	close(fd);
	unlink(path);
	assert_int_equal(pf_config_load(path, &c, &err), -1);
	assert_int_equal(err.kind, PF_ERR_NOT_FOUND);
	assert_int_equal(pf_config_load("/tmp", &c, &err), -1);
	assert_non_null(strstr(err.msg, "not a regular file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(enterprise_example),
		cmocka_unit_test(sdk_example),
		cmocka_unit_test(environment_example),
		cmocka_unit_test(credentials_example),
		cmocka_unit_test(defaults_are_closed),
		cmocka_unit_test(canonical_round_trip),
		cmocka_unit_test(unknown_keys),
		cmocka_unit_test(two_spellings),
		cmocka_unit_test(sizes_and_numbers),
		cmocka_unit_test(paths),
		cmocka_unit_test(networking),
		cmocka_unit_test(process),
		cmocka_unit_test(users),
		cmocka_unit_test(files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
