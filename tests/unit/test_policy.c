/* parallel-safe
 * Policies: what they admit, what they refuse to be, and the address filter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "netpolicy/policy.h"

static struct pf_policy *compile(const char *text, struct pf_err *err)
{
	PF_JSON cJSON *j = pf_json_parse("policy", text, strlen(text), err);
	return j ? pf_policy_compile(j, err) : NULL;
}

static struct pf_policy *good(const char *text)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_policy *p = compile(text, &err);
	if (!p)
		fail_msg("%s: %s", text, err.msg);
	return p;
}

static enum pf_verdict host(const struct pf_policy *p, const char *name, uint16_t port)
{
	const struct pf_rule *rule;
	return pf_policy_host(p, name, port, &rule);
}

static struct sockaddr_storage sa_of(const char *addr, uint16_t port)
{
	struct sockaddr_storage sa = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&sa;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&sa;

	if (inet_pton(AF_INET, addr, &in->sin_addr) == 1)
		in->sin_family = AF_INET;
	else if (inet_pton(AF_INET6, addr, &in6->sin6_addr) == 1)
		in6->sin6_family = AF_INET6;
	else
		fail_msg("%s", addr);
	in->sin_port = htons(port);
	return sa;
}

static enum pf_verdict addr(const struct pf_policy *p, const char *a, uint16_t port)
{
	const struct pf_rule *rule;
	struct sockaddr_storage sa = sa_of(a, port);
	return pf_policy_addr(p, (struct sockaddr *)&sa, IPPROTO_TCP, NULL, &rule);
}

/* Exact names, wildcards (never the apex), ports, and the denied list, which wins. */
static void test_hosts(void **state)
{
	(void)state;
	struct pf_policy *p = good(
		"{\"type\":\"limited\",\"allowed_hosts\":[\"API.Example.com.\",\"*.wild.test:443\","
		"\"range.test:8000-8010\",{\"host\":\"many.test\",\"ports\":[1,\"5-6\"]},\"many.test:9\"],"
		"\"denied_hosts\":[\"bad.wild.test\",\"*.evil.wild.test\",\"api.example.com:25\"]}");
	assert_int_equal(host(p, "api.example.com", 1), PF_VERDICT_ALLOW);
	assert_int_equal(host(p, "api.example.com", 25), PF_VERDICT_DENIED_HOST);
	assert_int_equal(host(p, "api.example.com", 0), PF_VERDICT_ALLOW);
	assert_int_equal(host(p, "www.api.example.com", 443), PF_VERDICT_NOT_LISTED);
	assert_int_equal(host(p, "example.com", 443), PF_VERDICT_NOT_LISTED);
	assert_int_equal(host(p, "wild.test", 443), PF_VERDICT_NOT_LISTED);
	assert_int_equal(host(p, "a.wild.test", 443), PF_VERDICT_ALLOW);
	assert_int_equal(host(p, "a.b.wild.test", 443), PF_VERDICT_ALLOW);
	assert_int_equal(host(p, "a.wild.test", 80), PF_VERDICT_PORT);
	assert_int_equal(host(p, "xwild.test", 443), PF_VERDICT_NOT_LISTED);
	assert_int_equal(host(p, "bad.wild.test", 443), PF_VERDICT_DENIED_HOST);
	assert_int_equal(host(p, "x.bad.wild.test", 443), PF_VERDICT_ALLOW);
	assert_int_equal(host(p, "x.evil.wild.test", 443), PF_VERDICT_DENIED_HOST);
	assert_int_equal(host(p, "range.test", 7999), PF_VERDICT_PORT);
	assert_int_equal(host(p, "range.test", 8010), PF_VERDICT_ALLOW);
	assert_int_equal(host(p, "many.test", 6), PF_VERDICT_ALLOW);
	assert_int_equal(host(p, "many.test", 9), PF_VERDICT_ALLOW);
	assert_int_equal(host(p, "many.test", 7), PF_VERDICT_PORT);
	assert_int_equal(host(p, "a.b.c.d.e.f.g.h.wild.test", 443), PF_VERDICT_SHAPE);
	pf_policy_unref(p);
}

/* A wildcard that happens to cover a public DNS-over-HTTPS service does not admit it; an exact entry does. */
static void test_public_resolvers(void **state)
{
	(void)state;
	struct pf_policy *p = good("{\"allowed_hosts\":[\"*.quad9.net\"]}");
	assert_int_equal(host(p, "www.quad9.net", 443), PF_VERDICT_ALLOW);
	assert_int_equal(host(p, "dns.quad9.net", 443), PF_VERDICT_RESOLVER);
	pf_policy_unref(p);
	p = good("{\"allowed_hosts\":[\"*.quad9.net\",\"dns.quad9.net\"]}");
	assert_int_equal(host(p, "dns.quad9.net", 443), PF_VERDICT_ALLOW);
	pf_policy_unref(p);
}

/* What cannot be meant is refused, and the message names the entry and a way out. */
static void test_refused_documents(void **state)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"{\"allowed_hosts\":[\"*\"]}", "unrestricted"},
		{"{\"allowed_hosts\":[\"*.com\"]}", "public suffix"},
		{"{\"allowed_hosts\":[\"*.co.uk\"]}", "public suffix"},
		{"{\"allowed_hosts\":[\"a.*.com\"]}", "first labels"},
		{"{\"allowed_hosts\":[\"https://a.com/\"]}", "URL"},
		{"{\"allowed_hosts\":[\"\xe2\x80\xae.example\"]}", "internationalised"},
		{"{\"allowed_hosts\":[\"a_b.com\"]}", "host name"},
		{"{\"allowed_hosts\":[\"a..com\"]}", "host name"},
		{"{\"allowed_hosts\":[\"\"]}", "host name"},
		{"{\"allowed_hosts\":[\"a b.com\"]}", "host name"},
		{"{\"allowed_hosts\":[\"-a.com\"]}", "hyphen"},
		{"{\"allowed_hosts\":[\"a.com:0\"]}", "port"},
		{"{\"allowed_hosts\":[\"a.com:65536\"]}", "port"},
		{"{\"allowed_hosts\":[\"a.com:9-8\"]}", "ends before"},
		{"{\"allowed_hosts\":[\"a.com:\"]}", "port"},
		{"{\"allowed_hosts\":[{\"host\":\"a.com\",\"ports\":[]}]}", "empty"},
		{"{\"allowed_hosts\":[{\"host\":\"a.com\",\"port\":1}]}", "ports"},
		{"{\"allowed_hosts\":[{\"host\":\"a.com\",\"cidr\":\"1.2.3.4\"}]}", "either"},
		{"{\"allowed_hosts\":[\"localhost\"]}", "sandbox itself"},
		{"{\"allowed_hosts\":[\"127.1\"]}", "looks like an address"},
		{"{\"allowed_hosts\":[\"0x7f.0x1\"]}", "looks like an address"},
		{"{\"allowed_cidrs\":[\"a.com\"]}", "allowed_hosts"},
		{"{\"allowed_cidrs\":[\"1.2.3.4/8\"]}", "1.0.0.0/8"},
		{"{\"allowed_cidrs\":[\"1.2.3.0/33\"]}", "prefix"},
		{"{\"allowed_cidrs\":[\"10.0.0.0/8\"]}", "allow_private"},
		{"{\"allowed_cidrs\":[\"127.0.0.1\"]}", "allow_private"},
		{"{\"allowed_cidrs\":[\"169.254.0.0/16\"],\"allow_private\":true}", "single address"},
		{"{\"allowed_cidrs\":[\"224.0.0.0/4\"],\"allow_private\":true}", "reserved"},
		{"{\"allowed_cidrs\":[\"::ffff:10.0.0.0/104\"]}", "IPv4"},
		{"{\"allowed_hosts\":[\"a.com\"],\"denied_hosts\":[\"A.com\"]}", "allowed and"},
		{"{\"allowed_hosts\":[\"a.com:443\"],\"denied_hosts\":[\"a.com\"]}", "allowed and"},
		{"{\"allowed_hosts\":[\"1.2.3.4\"],\"denied_hosts\":[\"1.2.3.4/32\"]}", "allowed and"},
		{"{\"allowed_hosts\":[\"a.com\"],\"allow_private\":[\"b.com\"]}", "not in allowed_hosts"},
		{"{\"allow_private\":\"yes\"}", "allow_private"},
		{"{\"type\":\"none\",\"allowed_hosts\":[\"a.com\"]}", "limited"},
		{"{\"type\":\"open\"}", "unrestricted"},
		{"{\"allowed_host\":[]}", "allowed_hosts"},
		{"{\"resolver\":\"dns.test\"}", "resolver"},
		{"{\"resolver\":\"1.1.1.0/24\"}", "resolver"},
		{"{\"resolver\":[]}", "resolver"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct pf_err err = PF_ERR_INIT;
		if (compile(bad[i].text, &err))
			fail_msg("compiled: %s", bad[i].text);
		if (!strstr(err.msg, bad[i].says) || !strstr(err.msg, "networking"))
			fail_msg("%s: says '%s', not '%s'", bad[i].text, err.msg, bad[i].says);
		assert_int_equal(err.kind, PF_ERR_INVALID);
	}
}

/* No policy, or type none: nothing. */
static void test_nothing(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	(void)state;
	struct pf_policy *p = pf_policy_compile(NULL, &err);
	assert_int_equal(pf_policy_type(p), PF_POLICY_NONE);
	assert_int_equal(host(p, "a.com", 443), PF_VERDICT_NOT_LISTED);
	assert_int_equal(addr(p, "1.1.1.1", 443), PF_VERDICT_NOT_LISTED);
	pf_policy_unref(p);
	p = good("{}");
	assert_int_equal(host(p, "a.com", 443), PF_VERDICT_NOT_LISTED);
	pf_policy_unref(p);
}

/* Literal addresses: by network and port; private ones only by name; a wide network does not open them. */
static void test_networks(void **state)
{
	const struct pf_rule *rule;
	(void)state;
	struct pf_policy *p =
		good("{\"allowed_hosts\":[\"5.6.7.8:22\"],\"allowed_cidrs\":[\"0.0.0.0/0:443\",\"10.1.0.0/"
		     "16:5432\","
		     "\"[2001:4860::/32]:53\",\"169.254.169.254\"],\"allow_private\":[\"10.1.0.0/"
		     "16\",\"169.254.169.254\"],"
		     "\"denied_hosts\":[\"9.9.9.0/24\"]}");
	assert_int_equal(addr(p, "8.8.8.8", 443), PF_VERDICT_ALLOW);
	assert_int_equal(addr(p, "::ffff:8.8.8.8", 443), PF_VERDICT_ALLOW);
	assert_int_equal(addr(p, "8.8.8.8", 80), PF_VERDICT_PORT);
	assert_int_equal(addr(p, "5.6.7.8", 22), PF_VERDICT_ALLOW);
	assert_int_equal(addr(p, "9.9.9.9", 443), PF_VERDICT_DENIED_HOST);
	assert_int_equal(addr(p, "10.1.2.3", 5432), PF_VERDICT_ALLOW);
	assert_int_equal(addr(p, "10.2.2.3", 443), PF_VERDICT_ADDRESS);
	assert_int_equal(addr(p, "127.0.0.1", 443), PF_VERDICT_ADDRESS);
	assert_int_equal(addr(p, "169.254.169.254", 80), PF_VERDICT_ALLOW);
	assert_int_equal(addr(p, "169.254.170.2", 443), PF_VERDICT_ADDRESS);
	assert_int_equal(addr(p, "2001:4860::1", 53), PF_VERDICT_ALLOW);
	assert_int_equal(addr(p, "2001:4861::1", 53), PF_VERDICT_NOT_LISTED);
	struct sockaddr_storage sa = sa_of("8.8.8.8", 443);
	assert_int_equal(
		pf_policy_addr(p, (struct sockaddr *)&sa, IPPROTO_UDP, NULL, &rule), PF_VERDICT_PROTOCOL);
	pf_policy_unref(p);
}

static enum pf_verdict result(const struct pf_policy *p, const char *name, const char *a)
{
	const struct pf_rule *rule;
	enum pf_addr_class class;
	struct sockaddr_storage sa = sa_of(a, 443);
	assert_int_equal(pf_policy_host(p, name, 443, &rule), PF_VERDICT_ALLOW);
	return pf_policy_result(p, rule, (struct sockaddr *)&sa, NULL, &class);
}

/* Where an allowed name may point: nowhere private without an opt-in, to metadata never. */
static void test_results(void **state)
{
	(void)state;
	struct pf_policy *p =
		good("{\"allowed_hosts\":[\"a.test\",\"db.test\",\"*.corp.test\"],"
		     "\"allow_private\":[\"db.test\",\"10.20.0.0/16\"],\"denied_hosts\":[\"6.6.6.6\"]}");
	assert_int_equal(result(p, "a.test", "1.1.1.1"), PF_VERDICT_ALLOW);
	assert_int_equal(result(p, "a.test", "10.1.1.1"), PF_VERDICT_ADDRESS);
	assert_int_equal(result(p, "a.test", "10.20.1.1"), PF_VERDICT_ALLOW);
	assert_int_equal(result(p, "x.corp.test", "10.20.1.1"), PF_VERDICT_ALLOW);
	assert_int_equal(result(p, "db.test", "10.1.1.1"), PF_VERDICT_ALLOW);
	assert_int_equal(result(p, "db.test", "127.0.0.1"), PF_VERDICT_ALLOW);
	assert_int_equal(result(p, "db.test", "169.254.169.254"), PF_VERDICT_ADDRESS);
	assert_int_equal(result(p, "db.test", "::ffff:169.254.169.254"), PF_VERDICT_ADDRESS);
	assert_int_equal(result(p, "db.test", "fe80::1"), PF_VERDICT_ADDRESS);
	assert_int_equal(result(p, "db.test", "224.0.0.1"), PF_VERDICT_ADDRESS);
	assert_int_equal(result(p, "a.test", "6.6.6.6"), PF_VERDICT_DENIED_HOST);
	/* Nor to a denied one, in whichever form a translator would take it. */
	static const char *const carried[] = {"::ffff:6.6.6.6", "64:ff9b::606:606", "2002:606:606::1",
		"2001:0:606:606::1", "2001:0:102:304:0:0:f9f9:f9f9", "2600::5efe:606:606"};
	for (size_t i = 0; i < sizeof(carried) / sizeof(*carried); i++) {
		assert_int_equal(result(p, "a.test", carried[i]), PF_VERDICT_DENIED_HOST);
		assert_int_equal(addr(p, carried[i], 443), PF_VERDICT_DENIED_HOST);
	}
	assert_int_equal(result(p, "a.test", "64:ff9b::606:607"), PF_VERDICT_ALLOW);
	pf_policy_unref(p);
}

/* Unrestricted: every name and every public address; the denied list and the private filter stay. */
static void test_unrestricted(void **state)
{
	(void)state;
	struct pf_policy *p =
		good("{\"type\":\"unrestricted\",\"denied_hosts\":[\"*.bad.test\",\"8.8.8.8\"]}");
	assert_int_equal(host(p, "anything.example", 25), PF_VERDICT_ALLOW);
	assert_int_equal(host(p, "x.bad.test", 443), PF_VERDICT_DENIED_HOST);
	assert_int_equal(addr(p, "1.1.1.1", 1), PF_VERDICT_ALLOW);
	assert_int_equal(addr(p, "8.8.8.8", 443), PF_VERDICT_DENIED_HOST);
	assert_int_equal(addr(p, "192.168.1.1", 443), PF_VERDICT_ADDRESS);
	assert_int_equal(addr(p, "168.63.129.16", 80), PF_VERDICT_ADDRESS);
	pf_policy_unref(p);
}

/* Every class of address in every disguise. */
static void test_address_classes(void **state)
{
	static const struct {
		const char *addr;
		enum pf_addr_class class;
	} cases[] = {{"8.8.8.8", PF_ADDR_PUBLIC}, {"0.0.0.0", PF_ADDR_RESERVED},
		{"0.1.2.3", PF_ADDR_RESERVED}, {"10.255.255.255", PF_ADDR_PRIVATE},
		{"11.0.0.0", PF_ADDR_PUBLIC}, {"100.64.0.1", PF_ADDR_PRIVATE},
		{"100.128.0.1", PF_ADDR_PUBLIC}, {"100.100.100.200", PF_ADDR_METADATA},
		{"127.9.9.9", PF_ADDR_LOOPBACK}, {"169.254.1.1", PF_ADDR_LINK_LOCAL},
		{"169.254.169.254", PF_ADDR_METADATA}, {"168.63.129.16", PF_ADDR_METADATA},
		{"172.15.255.255", PF_ADDR_PUBLIC}, {"172.16.0.0", PF_ADDR_PRIVATE},
		{"172.31.255.255", PF_ADDR_PRIVATE}, {"172.32.0.0", PF_ADDR_PUBLIC},
		{"192.0.0.192", PF_ADDR_METADATA}, {"192.0.0.1", PF_ADDR_RESERVED},
		{"192.168.0.1", PF_ADDR_PRIVATE}, {"198.18.0.1", PF_ADDR_PRIVATE},
		{"198.20.0.1", PF_ADDR_PUBLIC}, {"224.0.0.1", PF_ADDR_RESERVED},
		{"240.0.0.1", PF_ADDR_RESERVED}, {"255.255.255.255", PF_ADDR_RESERVED},
		{"::", PF_ADDR_RESERVED}, {"::1", PF_ADDR_LOOPBACK}, {"::8.8.8.8", PF_ADDR_RESERVED},
		{"2606:4700::1111", PF_ADDR_PUBLIC}, {"fc00::1", PF_ADDR_PRIVATE},
		{"fd00:ec2::254", PF_ADDR_METADATA}, {"fe80::1", PF_ADDR_LINK_LOCAL},
		{"fec0::1", PF_ADDR_PRIVATE}, {"ff02::1", PF_ADDR_RESERVED},
		{"2001:db8::1", PF_ADDR_RESERVED}, {"::ffff:8.8.8.8", PF_ADDR_PUBLIC},
		{"::ffff:127.0.0.1", PF_ADDR_LOOPBACK}, {"::ffff:169.254.169.254", PF_ADDR_METADATA},
		{"64:ff9b::8.8.8.8", PF_ADDR_PUBLIC}, {"64:ff9b::a9fe:a9fe", PF_ADDR_METADATA},
		{"64:ff9b::10.0.0.1", PF_ADDR_PRIVATE}, {"64:ff9b:1::8.8.8.8", PF_ADDR_RESERVED},
		{"64:ff9b:1:a9fe:a9:fe00::", PF_ADDR_RESERVED}, {"2002:808:808::1", PF_ADDR_PUBLIC},
		{"2002:7f00:1::1", PF_ADDR_LOOPBACK}, {"2002:a9fe:a9fe::1", PF_ADDR_METADATA},
		{"2001:0:808:808:0:0:f7f7:f7f7", PF_ADDR_PUBLIC},
		{"2001:0:808:808:0:0:5601:5601", PF_ADDR_METADATA},
		{"2001:0:a00:1:0:0:f7f7:f7f7", PF_ADDR_PRIVATE},
		{"2606::5efe:169.254.169.254", PF_ADDR_METADATA},
		{"2606::200:5efe:10.0.0.1", PF_ADDR_PRIVATE}};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct sockaddr_storage sa = sa_of(cases[i].addr, 1);
		enum pf_addr_class c = pf_addr_classify_sa((struct sockaddr *)&sa, NULL);
		if (c != cases[i].class)
			fail_msg("%s is %s, not %s", cases[i].addr, pf_addr_class_name(c),
				pf_addr_class_name(cases[i].class));
	}
	struct sockaddr_storage own_sa = sa_of("::ffff:8.8.4.4", 1);
	struct pf_cidr one = {.family = AF_INET, .addr = {8, 8, 4, 4}, .prefix = 32};
	const struct pf_own_addrs own = {.addrs = &one, .n = 1};
	assert_int_equal(pf_addr_classify_sa((struct sockaddr *)&own_sa, &own), PF_ADDR_OWN);
}

/* 20 000 names: every one found, and nothing else; what is shown is what was said. */
static void test_many_names(void **state)
{
	(void)state;
	PF_BUF struct pf_buf b = {0};
	pf_buf_str(&b, "{\"allowed_hosts\":[\"*.w.test:443\"");
	for (int i = 0; i < 20000; i++)
		pf_buf_printf(&b, ",\"h%d.example.com:443\"", i);
	pf_buf_str(&b, "]}");
	struct pf_policy *p = good(b.data);
	char name[64];
	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "h%d.example.com", i);
		assert_int_equal(host(p, name, 443), PF_VERDICT_ALLOW);
		snprintf(name, sizeof(name), "g%d.example.com", i);
		assert_int_equal(host(p, name, 443), PF_VERDICT_NOT_LISTED);
	}
	size_t n;
	free(pf_policy_host_ports(p, false, &n));
	assert_int_equal(n, 1);
	pf_policy_set_revision(p, 7);
	PF_JSON cJSON *j = pf_policy_describe(p);
	assert_int_equal(cJSON_GetObjectItem(j, "revision")->valueint, 7);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(j, "allowed")), 20001);
	assert_string_equal(cJSON_GetObjectItem(j, "allowed")->child->valuestring, "*.w.test:443");
	pf_policy_unref(p);
}

static void test_resolver(void **state)
{
	(void)state;
	struct pf_policy *p = good("{\"resolver\":[\"10.0.0.2\",\"[::1]:5353\",\"127.0.0.1:5354\"]}");
	assert_string_equal(pf_policy_resolver(p), "10.0.0.2:53,[::1]:5353,127.0.0.1:5354");
	pf_policy_unref(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_public_resolvers),
		cmocka_unit_test(test_refused_documents),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_networks),
		cmocka_unit_test(test_results),
		cmocka_unit_test(test_unrestricted),
		cmocka_unit_test(test_address_classes),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_resolver),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
