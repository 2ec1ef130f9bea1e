/* Theory of operation.
 *
 * One question in, one answer out, nothing forwarded ever: the answer comes from the policy alone, so a query
 * is no way to send anything anywhere. Only what a stub resolver sends is understood: a single question, no
 * answer or authority records, at most a few additional ones (EDNS). Compression in a question is legal and
 * pointless, and refused. Types other than A and AAAA have no data: HTTPS and SVCB first of all, so that no
 * client learns a key for encrypted ClientHello. */
#include "netpolicy/dns.h"

#include <arpa/nameser.h>
#include <string.h>

#define CLASS_IN 1
#define TYPE_A 1
#define TYPE_AAAA 28
#define TYPE_OPT 41
#define RCODE_BADVERS 16
#define EDNS_SIZE 1232
#define MAX_ADDITIONAL 4
#define HEADER 12

struct question {
	size_t end; /* offset behind the question */
	uint16_t type, class;
	char name[PF_DNS_TEXT_MAX];
};

struct edns {
	bool present;
	uint8_t version;
};

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t **p, unsigned int v)
{
	*(*p)++ = (uint8_t)(v >> 8);
	*(*p)++ = (uint8_t)v;
}

static bool read_question(const uint8_t *msg, size_t len, struct question *q)
{
	uint8_t wire[NS_MAXCDNAME + 2] = {0};
	int n = ns_name_unpack(msg, msg + len, msg + HEADER, wire, sizeof(wire));

	if (n <= 0 || len - HEADER < (size_t)n + 4)
		return false;
	/* Taken literally, the packed and the unpacked form of a name without pointers are the same bytes. */
	if (memcmp(wire, msg + HEADER, (size_t)n) != 0)
		return false;
	if (ns_name_ntop(wire, q->name, sizeof(q->name)) < 0)
		return false;
	q->type = get16(msg + HEADER + n);
	q->class = get16(msg + HEADER + n + 2);
	q->end = HEADER + (size_t)n + 4;
	return true;
}

static bool read_additional(const uint8_t *msg, size_t len, size_t at, unsigned int count, struct edns *edns)
{
	for (unsigned int i = 0; i < count; i++) {
		const uint8_t *p = msg + at;
		if (ns_name_skip(&p, msg + len) < 0 || (size_t)(msg + len - p) < 10)
			return false;
		size_t rdlen = get16(p + 8);
		if ((size_t)(msg + len - p) - 10 < rdlen)
			return false;
		if (get16(p) == TYPE_OPT) {
			if (edns->present || msg[at] != 0)
				return false;
			*edns = (struct edns){.present = true, .version = p[5]};
		}
		at = (size_t)(p - msg) + 10 + rdlen;
	}
	return at == len;
}

static void put_opt(uint8_t **p, unsigned int extended_rcode)
{
	*(*p)++ = 0;
	put16(p, TYPE_OPT);
	put16(p, EDNS_SIZE);
	put16(p, extended_rcode << 8); /* and version 0 */
	put16(p, 0);
	put16(p, 0);
}

static void put_address(uint8_t **p, uint16_t type, const void *addr, size_t len)
{
	put16(p, 0xc000 | HEADER);
	put16(p, type);
	put16(p, CLASS_IN);
	put16(p, 0);
	put16(p, PF_DNS_TTL);
	put16(p, (unsigned int)len);
	memcpy(*p, addr, len);
	*p += len;
}

size_t pf_dns_respond(
	const uint8_t *query, size_t len, uint8_t out[PF_DNS_ANSWER_MAX], pf_dns_lookup *lookup, void *arg)
{
	struct pf_dns_answer a = {0};
	struct edns edns = {0};
	struct question q;
	unsigned int rcode = ns_r_noerror, answers = 0;
	uint8_t *p = out + HEADER;

	/* An answer to an answer could go round for ever. */
	if (len < HEADER || len > PF_DNS_QUERY_MAX || query[2] & 0x80)
		return 0;
	unsigned int opcode = query[2] >> 3 & 15;
	memset(out, 0, HEADER);
	memcpy(out, query, 2);
	out[2] = (uint8_t)(0x80 | opcode << 3 | (query[2] & 1));
	out[3] = 0x80; /* recursion available */
	if (opcode != ns_o_query)
		return out[3] |= ns_r_notimpl, HEADER;
	if (get16(query + 4) != 1 || get16(query + 6) || get16(query + 8) ||
		get16(query + 10) > MAX_ADDITIONAL || query[2] & 2 || !read_question(query, len, &q) ||
		!read_additional(query, len, q.end, get16(query + 10), &edns))
		return out[3] |= ns_r_formerr, HEADER;

	out[5] = 1;
	memcpy(p, query + HEADER, q.end - HEADER);
	p += q.end - HEADER;
	if (edns.version != 0) {
		rcode = RCODE_BADVERS;
	} else if (q.class != CLASS_IN) {
		rcode = ns_r_refused;
	} else {
		lookup(arg, q.name, q.type, &a);
		if (a.action == PF_DNS_NXDOMAIN)
			rcode = ns_r_nxdomain;
		else if (a.action == PF_DNS_SERVFAIL)
			rcode = ns_r_servfail;
		else if (q.type == TYPE_A && a.has4)
			put_address(&p, TYPE_A, &a.a4, 4), answers = 1;
		else if (q.type == TYPE_AAAA && a.has6)
			put_address(&p, TYPE_AAAA, &a.a6, 16), answers = 1;
	}
	out[3] |= (uint8_t)(rcode & 15);
	out[7] = (uint8_t)answers;
	if (edns.present) {
		put_opt(&p, rcode >> 4);
		out[11] = 1;
	}
	return (size_t)(p - out);
}
