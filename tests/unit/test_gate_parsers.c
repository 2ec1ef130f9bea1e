/* parallel-safe
 * The gate's readers of hostile bytes: DNS queries, first bytes of connections; and the synthetic addresses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netpolicy/dns.h"
#include "netpolicy/nft.h"
#include "netpolicy/sniff.h"
#include "netpolicy/synth.h"

/* --- DNS ------------------------------------------------------------------------------------------------ */

static char asked[PF_DNS_TEXT_MAX];
static int asked_n;

static void lookup(void *arg, const char *name, uint16_t qtype, struct pf_dns_answer *a)
{
	(void)arg;
	(void)qtype;
	asked_n++;
	snprintf(asked, sizeof(asked), "%s", name);
	if (strcmp(name, "a.test") == 0 || strcmp(name, "A.tEsT") == 0) {
		a->action = PF_DNS_ADDRESS;
		a->has4 = true;
		inet_pton(AF_INET, "198.18.0.7", &a->a4);
	}
}

static size_t query(uint8_t *q, const char *name, uint8_t type, bool edns)
{
	uint8_t *p = q;
	const uint8_t head[12] = {0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, edns};

	memcpy(p, head, 12);
	p += 12;
	while (*name) {
		size_t len = strcspn(name, ".");
		*p++ = (uint8_t)len;
		memcpy(p, name, len);
		p += len;
		name += len + (name[len] == '.');
	}
	memcpy(p, "\0\0\0\0\1", 5);
	p[2] = type;
	p += 5;
	if (edns) {
		memcpy(p, "\0\0\51\4\320\0\0\0\0\0\0", 11);
		p += 11;
	}
	return (size_t)(p - q);
}

static int respond(const uint8_t *q, size_t len, uint8_t *out, size_t *n)
{
	/* On the heap, so that a reader that goes too far is caught. */
	uint8_t *copy = malloc(len ? len : 1);
	memcpy(copy, q, len);
	asked_n = 0;
	*n = pf_dns_respond(copy, len, out, lookup, NULL);
	free(copy);
	return *n ? out[3] & 15 : -1;
}

static void test_dns_answers(void **state)
{
	uint8_t q[512], out[PF_DNS_ANSWER_MAX];
	size_t n, len = query(q, "A.tEsT", 1, false);

	(void)state;
	assert_int_equal(respond(q, len, out, &n), 0);
	assert_int_equal(n, len + 16);
	assert_memory_equal(out, "\xab\xcd\x81\x80\0\1\0\1\0\0\0\0", 12);
	assert_memory_equal(out + 12, q + 12, len - 12); /* the question as it was asked, case and all */
	assert_memory_equal(out + n - 4, "\xc6\x12\0\7", 4);
	assert_int_equal(respond(q, query(q, "a.test", 28, false), out, &n), 0);
	assert_int_equal(out[7], 0); /* no IPv6 here: no data, not "no such name" */
	assert_int_equal(respond(q, query(q, "a.test", 65, true), out, &n), 0);
	assert_int_equal(out[7], 0);
	assert_int_equal(out[11], 1); /* EDNS is answered with EDNS */
	assert_int_equal(respond(q, query(q, "b.test", 1, true), out, &n), 3);
	/* Bytes that are no host name arrive escaped, never as something else. */
	len = query(q, "aXb.test", 1, false);
	q[14] = 0;
	assert_int_equal(respond(q, len, out, &n), 3);
	assert_string_equal(asked, "a\\000b.test");
}

static void test_dns_malformed(void **state)
{
	uint8_t q[512], out[PF_DNS_ANSWER_MAX];
	size_t n, len = query(q, "a.test", 1, true);

	(void)state;
	/* Every truncation is an error, never an answer, and never asks. */
	for (size_t i = 0; i < len; i++) {
		int r = respond(q, i, out, &n);
		assert_true(r == -1 || r == 1);
		assert_int_equal(asked_n, 0);
	}
	q[len] = 0;
	assert_int_equal(respond(q, len + 1, out, &n), 1); /* trailing bytes */
	q[2] = 0x81;
	assert_int_equal(respond(q, len, out, &n), -1); /* an answer */
	q[2] = 0x29;
	assert_int_equal(respond(q, len, out, &n), 4); /* update */
	q[2] = 1;
	q[5] = 2;
	assert_int_equal(respond(q, len, out, &n), 1); /* two questions */
	q[5] = 1;
	q[7] = 1;
	assert_int_equal(respond(q, len, out, &n), 1); /* an answer section */
	q[7] = 0;
	len = query(q, "a.test", 1, false);
	q[12] = 0xc0, q[13] = 12;
	assert_int_equal(respond(q, len, out, &n), 1); /* a pointer to itself */
	len = query(q, "a.test", 1, false);
	q[len - 1] = 3;
	assert_int_equal(respond(q, len, out, &n), 5); /* class CHAOS */
	len = query(q, "a.test", 1, true);
	q[len - 5] = 1;
	respond(q, len, out, &n);
	assert_int_equal(out[n - 6], 1); /* EDNS version 1: BADVERS */
	/* Random damage: whatever happens, the answer fits. */
	srand(1);
	for (int i = 0; i < 50000; i++) {
		len = query(q, "some.longer.name.test", (uint8_t)rand(), i & 1);
		for (int k = rand() % 6; k >= 0; k--)
			q[(size_t)rand() % len] = (uint8_t)rand();
		respond(q, len - (size_t)rand() % 3, out, &n);
		assert_true(n <= sizeof(out));
	}
}

/* --- first bytes ---------------------------------------------------------------------------------------- */

static struct pf_sniff sniff(const void *data, size_t len)
{
	struct pf_sniff s;
	uint8_t *copy = malloc(len ? len : 1);
	memcpy(copy, data, len);
	pf_sniff(copy, len, &s);
	free(copy);
	return s;
}

static struct pf_sniff sniff_text(const char *text)
{
	return sniff(text, strlen(text));
}

static void test_http_heads(void **state)
{
	static const struct {
		const char *text;
		enum pf_sniff_kind kind;
		const char *name;
	} cases[] = {
		{"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", PF_SNIFF_HTTP, "a.test"},
		{"\r\n\r\nGET / HTTP/1.1\r\nX: y\r\nhOsT:\t A.Test.:8080 \r\n\r\n", PF_SNIFF_HTTP, "a.test"},
		{"GET / HTTP/1.1\nHost: a.test\n\n", PF_SNIFF_HTTP, "a.test"},
		{"get / http/1.1\r\nHost: a.test\r\n\r\n", PF_SNIFF_HTTP, "a.test"},
		{"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", PF_SNIFF_HTTP, "a.test"},
		{"GET http://a.test/x HTTP/1.0\r\n\r\n", PF_SNIFF_HTTP, "a.test"},
		{"CONNECT a.test:443 HTTP/1.1\r\n\r\n", PF_SNIFF_HTTP, "a.test"},
		{"GET / HTTP/1.0\r\n\r\n", PF_SNIFF_HTTP, NULL},
		{"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", PF_SNIFF_HTTP, "[2001:db8::1]"},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PF_SNIFF_HTTP, NULL},
		{"GET http://b.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET http://a.test@b.test/ HTTP/1.1\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET / HTTP/1.1\r\nHost : b.test\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET / HTTP/1.1\r\nX: y\r\n Host: b.test\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET / HTTP/1.1\r\nX: y\rHost: b.test\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET / HTTP/1.1\rHost: b.test\r\r", PF_SNIFF_BAD, NULL},
		{"GET / HTTP/1.1\rHost: b.test\r\r\n", PF_SNIFF_BAD, NULL},
		{"GET / HTTP/1.1\r\nHost:\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET / HTTP/1.1\r\nHost: a.test:x\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET b.test HTTP/1.1\r\nHost: a.test\r\n\r\n", PF_SNIFF_BAD, NULL},
		/* What only some servers take for a request, for a host that no Host names. */
		{"AMETHODTHATISLONGERTHANANYTHINGTHEREIS / HTTP/1.1\r\nHost: b.test\r\n\r\n", PF_SNIFF_HTTP,
			"b.test"},
		{"G(T / HTTP/1.1\r\nHost: b.test\r\n\r\n", PF_SNIFF_BAD, NULL},
		{" GET / HTTP/1.1\r\nHost: b.test\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET\v/\vHTTP/1.1\r\nHost: b.test\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET /\fHTTP/1.1\r\nHost: b.test\r\n\r\n", PF_SNIFF_BAD, NULL},
		{"GET http://b.test/x\r\n", PF_SNIFF_BAD, NULL},
		{"get\t http://b.test/x y\n", PF_SNIFF_BAD, NULL},
		{"GET /x\r\n", PF_SNIFF_OPAQUE, NULL},
		{"DESCRIBE rtsp://a.test/x RTSP/1.0\r\n", PF_SNIFF_OPAQUE, NULL},
		{"PROXY TCP4 9.9.9.9 9.9.9.9 1 2\r\nGET / HTTP/1.1\r\nHost: b.test\r\n\r\n", PF_SNIFF_BAD,
			NULL},
		{"{\"a\": 1,", PF_SNIFF_MORE, NULL},
		{"{\"a\": 1}\n", PF_SNIFF_OPAQUE, NULL},
		{"GET / HTTP/1.1\r\nHost: a.test\r\n", PF_SNIFF_MORE, NULL},
		{"GET / HT", PF_SNIFF_MORE, NULL},
		{"G", PF_SNIFF_MORE, NULL},
		{"", PF_SNIFF_MORE, NULL},
		{"SSH-2.0-OpenSSH_9.2\r\n", PF_SNIFF_OPAQUE, NULL},
		{"EHLO me\r\n", PF_SNIFF_OPAQUE, NULL},
		{"PING\r\n", PF_SNIFF_OPAQUE, NULL},
		{"*1\r\n$4\r\nPING\r\n", PF_SNIFF_OPAQUE, NULL},
		{"003egit-upload-pack /x\n", PF_SNIFF_OPAQUE, NULL},
		{"AMQP\x01", PF_SNIFF_OPAQUE, NULL},
		{"\x10\x0e", PF_SNIFF_OPAQUE, NULL},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct pf_sniff s = sniff_text(cases[i].text);
		if (s.kind != cases[i].kind)
			fail_msg("%s: %d, not %d", cases[i].text, (int)s.kind, (int)cases[i].kind);
		if (s.kind == PF_SNIFF_HTTP) {
			assert_int_equal(s.has_name, cases[i].name != NULL);
			if (cases[i].name)
				assert_string_equal(s.name, cases[i].name);
		}
	}
	/* Only a first line that is not complete may go on before it is judged. */
	assert_true(sniff_text("ping").line_open);
	assert_true(sniff_text("GET / HTTP/1.1\r").line_open);
	assert_false(sniff_text("GET / HTTP/1.1\r\n").line_open);
	assert_false(sniff_text("GET / HTTP/1.1\r\nHost: b").line_open);
	/* A head without an end is refused at the limit. */
	char *big = malloc(PF_SNIFF_MAX);
	memset(big, 'a', PF_SNIFF_MAX);
	memcpy(big, "GET / HTTP/1.1\r\nX: ", 19);
	assert_int_equal(sniff(big, PF_SNIFF_MAX - 1).kind, PF_SNIFF_MORE);
	assert_int_equal(sniff(big, PF_SNIFF_MAX).kind, PF_SNIFF_BAD);
	/* What is no beginning of one, and has no lines, is not. */
	memset(big, '{', PF_SNIFF_MAX);
	assert_int_equal(sniff(big, PF_SNIFF_MAX - 1).kind, PF_SNIFF_MORE);
	assert_int_equal(sniff(big, PF_SNIFF_MAX).kind, PF_SNIFF_OPAQUE);
	/* A method may be as long as that to somebody. */
	memset(big, 'X', PF_SNIFF_MAX);
	assert_int_equal(sniff(big, PF_SNIFF_MAX - 1).kind, PF_SNIFF_MORE);
	assert_int_equal(sniff(big, PF_SNIFF_MAX).kind, PF_SNIFF_BAD);
	memset(big, '\n', PF_SNIFF_MAX);
	assert_int_equal(sniff(big, PF_SNIFF_MAX).kind, PF_SNIFF_BAD);
	/* The second version of the PROXY protocol, behind which a connection begins anew. */
	assert_int_equal(sniff("\r\n\r\n\0\r\nQUIT\n!\x11", 14).kind, PF_SNIFF_BAD);
	assert_int_equal(sniff("\r\n\r\n\0\r\n", 7).kind, PF_SNIFF_MORE);
	free(big);
}

/* A ClientHello body (from the handshake header on) with the given extensions. */
static size_t hello(uint8_t *out, const void *exts, size_t len)
{
	uint8_t *p = out + 4;
	memcpy(p, "\3\3", 2), p += 2;
	memset(p, 1, 32), p += 32;
	memcpy(p, "\0\0\2\x13\1\1\0", 7), p += 7;
	*p++ = (uint8_t)(len >> 8), *p++ = (uint8_t)len;
	memcpy(p, exts, len), p += len;
	size_t n = (size_t)(p - out - 4);
	out[0] = 1, out[1] = 0, out[2] = (uint8_t)(n >> 8), out[3] = (uint8_t)n;
	return n + 4;
}

/* In records of at most step bytes. */
static size_t records(uint8_t *out, const uint8_t *body, size_t len, size_t step)
{
	uint8_t *p = out;
	for (size_t at = 0; at < len; at += step) {
		size_t n = len - at < step ? len - at : step;
		*p++ = 22, *p++ = 3, *p++ = 1, *p++ = (uint8_t)(n >> 8), *p++ = (uint8_t)n;
		memcpy(p, body + at, n), p += n;
	}
	return (size_t)(p - out);
}

#define SNI_A "\0\0\0\x0b\0\x09\0\0\6a.test"
#define SNI_A_LEN (sizeof(SNI_A) - 1)

static void test_tls_heads(void **state)
{
	uint8_t body[4096], rec[8192];
	size_t n, len;
	struct pf_sniff s;

	(void)state;
	n = hello(body, SNI_A, SNI_A_LEN);
	for (size_t step = 1; step <= n; step += 7) {
		len = records(rec, body, n, step);
		s = sniff(rec, len);
		assert_int_equal(s.kind, PF_SNIFF_TLS);
		assert_string_equal(s.name, "a.test");
		assert_false(s.ech);
		/* Every prefix wants more, and says how much at least. */
		for (size_t i = 1; i < len; i++) {
			s = sniff(rec, i);
			assert_int_equal(s.kind, PF_SNIFF_MORE);
			assert_true(s.need > i && s.need <= len);
			assert_false(s.line_open);
		}
	}
	/* Encrypted hello; no SNI; two SNI extensions; two names in one; an empty name; a length that lies.
	 */
	static const char ech[] = "\xfe\x0d\0\1\0" SNI_A;
	s = sniff(rec, records(rec, body, hello(body, ech, sizeof(ech) - 1), 4096));
	assert_true(s.kind == PF_SNIFF_TLS && s.ech && s.has_name);
	s = sniff(rec, records(rec, body, hello(body, "\0\x17\0\0", 4), 4096));
	assert_true(s.kind == PF_SNIFF_TLS && !s.has_name);
	static const char twice[] = SNI_A SNI_A;
	s = sniff(rec, records(rec, body, hello(body, twice, sizeof(twice) - 1), 4096));
	assert_int_equal(s.kind, PF_SNIFF_BAD);
	static const char two[] = "\0\0\0\x14\0\x12\0\0\6a.test\0\0\6b.test";
	s = sniff(rec, records(rec, body, hello(body, two, sizeof(two) - 1), 4096));
	assert_int_equal(s.kind, PF_SNIFF_BAD);
	s = sniff(rec, records(rec, body, hello(body, "\0\0\0\5\0\3\0\0\0", 9), 4096));
	assert_int_equal(s.kind, PF_SNIFF_BAD);
	s = sniff(rec, records(rec, body, hello(body, "\0\0\0\x0b\0\x09\0\0\7a.test", SNI_A_LEN), 4096));
	assert_int_equal(s.kind, PF_SNIFF_BAD);
	/* A NUL in the name is not the end of it. */
	n = hello(body, "\0\0\0\x0b\0\x09\0\0\6a.\0est", SNI_A_LEN);
	s = sniff(rec, records(rec, body, n, 4096));
	assert_string_equal(s.name, "a.?est");
	/* An alert before the hello, another handshake message, an endless one. */
	assert_int_equal(sniff("\x15\3\1\0\2\1\0", 7).kind, PF_SNIFF_BAD);
	assert_int_equal(sniff("\x16\3\1\0\4\2\0\0\0", 9).kind, PF_SNIFF_BAD);
	assert_int_equal(sniff("\x16\3\1\0\4\1\xff\xff\xff", 9).kind, PF_SNIFF_BAD);
	/* Random damage. */
	n = hello(body, ech, sizeof(ech) - 1);
	srand(2);
	for (int i = 0; i < 50000; i++) {
		len = records(rec, body, n, 1 + (size_t)rand() % n);
		for (int k = rand() % 4; k >= 0; k--)
			rec[(size_t)rand() % len] = (uint8_t)rand();
		sniff(rec, len);
	}
}

/* --- synthetic addresses -------------------------------------------------------------------------------- */

/* A name keeps its address, no two share one, the oldest makes room, and an address that was given up does
 * not come back for another name soon. */
static void test_synthetic(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_synth s;
	char name[32];
	struct sockaddr_in sin = {.sin_family = AF_INET};
	struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6};

	(void)state;
	assert_int_equal(pf_synth_init(&s, &err), 0);
	struct pf_synth_name *held = pf_synth_name(&s, "held.test", true);
	held->holds = 1;
	uint32_t first = pf_synth_name(&s, "n0.test", true)->index;
	for (int i = 1; i < PF_SYNTH_MAX + 1000; i++) {
		snprintf(name, sizeof(name), "n%d.test", i);
		struct pf_synth_name *e = pf_synth_name(&s, name, true);
		assert_non_null(e);
		assert_int_not_equal(e->index, first);
		sin.sin_addr = pf_synth_addr4(e);
		assert_ptr_equal(pf_synth_addr(&s, (struct sockaddr *)&sin), e);
		sin6.sin6_addr = pf_synth_addr6(&s, e);
		assert_ptr_equal(pf_synth_addr(&s, (struct sockaddr *)&sin6), e);
		assert_ptr_equal(pf_synth_name(&s, name, false), e);
	}
	assert_int_equal(s.n, PF_SYNTH_MAX);
	assert_null(pf_synth_name(&s, "n0.test", false));
	assert_ptr_equal(pf_synth_name(&s, "held.test", false), held);
	/* Our /64 is ours even where no name has an address; other addresses are not. */
	sin6.sin6_addr.s6_addr[9] = 1;
	assert_true(pf_synth_has(&s, (struct sockaddr *)&sin6));
	sin6.sin6_addr.s6_addr[1] ^= 1;
	assert_false(pf_synth_has(&s, (struct sockaddr *)&sin6));
	sin.sin_addr.s_addr = htonl(0xc6140001);
	assert_false(pf_synth_has(&s, (struct sockaddr *)&sin));
	pf_synth_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dns_answers),
		cmocka_unit_test(test_dns_malformed),
		cmocka_unit_test(test_http_heads),
		cmocka_unit_test(test_tls_heads),
		cmocka_unit_test(test_synthetic),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
