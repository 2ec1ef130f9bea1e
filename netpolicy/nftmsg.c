/* nf_tables messages by hand: the few attributes we need are stable kernel interface, and a library or the
 * nft program would cost more to load than the whole table (docs/architecture.md). */
#include "netpolicy/nftmsg.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

/* Room that is guaranteed to one message; a nested attribute cannot be longer than 64 KiB anyway. */
#define MESSAGE_MAX ((size_t)64 << 10)
#define RULE_MAX ((size_t)4 << 10)
#define ELEMENTS_PER_MESSAGE 512 /* at most 56 bytes each, two per range */

static void start(
	struct pf_nftmsg *m, uint16_t type, uint16_t flags, uint8_t family, uint16_t res_id, size_t room)
{
	if (m->cap - m->len < room) {
		m->cap = (m->cap + room) * 2;
		char *more = realloc(m->buf, m->cap);
		if (!more)
			abort();
		m->buf = more;
	}
	memset(m->buf + m->len, 0, sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg));
	m->h = mnl_nlmsg_put_header(m->buf + m->len);
	m->h->nlmsg_type = type;
	m->h->nlmsg_flags = NLM_F_REQUEST | flags;
	m->h->nlmsg_seq = m->seq++;
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(m->h, sizeof(*g));
	g->nfgen_family = family;
	g->version = NFNETLINK_V0;
	g->res_id = htons(res_id);
}

static void finish(struct pf_nftmsg *m)
{
	m->len += (m->h->nlmsg_len + MNL_ALIGNTO - 1) & ~(size_t)(MNL_ALIGNTO - 1);
}

static void start_nft(struct pf_nftmsg *m, int type, uint16_t flags, size_t room)
{
	start(m, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags, NFPROTO_INET, 0, room);
}

static void put32(struct pf_nftmsg *m, uint16_t type, uint32_t v)
{
	mnl_attr_put_u32(m->h, type, htonl(v));
}

void pf_nftmsg_begin_batch(struct pf_nftmsg *m, uint32_t seq)
{
	*m = (struct pf_nftmsg){.seq = seq};
	start(m, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, RULE_MAX);
	finish(m);
}

void pf_nftmsg_end_batch(struct pf_nftmsg *m)
{
	m->h->nlmsg_flags |= NLM_F_ACK;
	start(m, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES, RULE_MAX);
	finish(m);
}

void pf_nftmsg_done(struct pf_nftmsg *m)
{
	free(m->buf);
	*m = (struct pf_nftmsg){0};
}

void pf_nftmsg_table(struct pf_nftmsg *m)
{
	start_nft(m, NFT_MSG_NEWTABLE, NLM_F_CREATE, RULE_MAX);
	mnl_attr_put_strz(m->h, NFTA_TABLE_NAME, PF_NFT_TABLE);
	finish(m);
}

void pf_nftmsg_counter(struct pf_nftmsg *m, const char *name)
{
	start_nft(m, NFT_MSG_NEWOBJ, NLM_F_CREATE, RULE_MAX);
	mnl_attr_put_strz(m->h, NFTA_OBJ_TABLE, PF_NFT_TABLE);
	mnl_attr_put_strz(m->h, NFTA_OBJ_NAME, name);
	put32(m, NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
	mnl_attr_nest_end(m->h, mnl_attr_nest_start(m->h, NFTA_OBJ_DATA));
	finish(m);
}

void pf_nftmsg_del_table(struct pf_nftmsg *m)
{
	start_nft(m, NFT_MSG_DELTABLE, 0, RULE_MAX);
	mnl_attr_put_strz(m->h, NFTA_TABLE_NAME, PF_NFT_TABLE);
	finish(m);
}

void pf_nftmsg_chain(
	struct pf_nftmsg *m, const char *name, const char *type, uint32_t hooknum, int prio, uint32_t policy)
{
	start_nft(m, NFT_MSG_NEWCHAIN, NLM_F_CREATE, RULE_MAX);
	mnl_attr_put_strz(m->h, NFTA_CHAIN_TABLE, PF_NFT_TABLE);
	mnl_attr_put_strz(m->h, NFTA_CHAIN_NAME, name);
	struct nlattr *hook = mnl_attr_nest_start(m->h, NFTA_CHAIN_HOOK);
	put32(m, NFTA_HOOK_HOOKNUM, hooknum);
	put32(m, NFTA_HOOK_PRIORITY, (uint32_t)prio);
	mnl_attr_nest_end(m->h, hook);
	put32(m, NFTA_CHAIN_POLICY, policy);
	mnl_attr_put_strz(m->h, NFTA_CHAIN_TYPE, type);
	finish(m);
}

void pf_nftmsg_subchain(struct pf_nftmsg *m, const char *name)
{
	start_nft(m, NFT_MSG_NEWCHAIN, NLM_F_CREATE, RULE_MAX);
	mnl_attr_put_strz(m->h, NFTA_CHAIN_TABLE, PF_NFT_TABLE);
	mnl_attr_put_strz(m->h, NFTA_CHAIN_NAME, name);
	finish(m);
}

void pf_nftmsg_flush_chain(struct pf_nftmsg *m, const char *name)
{
	start_nft(m, NFT_MSG_DELRULE, 0, RULE_MAX);
	mnl_attr_put_strz(m->h, NFTA_RULE_TABLE, PF_NFT_TABLE);
	mnl_attr_put_strz(m->h, NFTA_RULE_CHAIN, name);
	finish(m);
}

void pf_nftmsg_set(struct pf_nftmsg *m, const char *name, uint32_t id, uint32_t key_type, uint32_t key_len)
{
	start_nft(m, NFT_MSG_NEWSET, NLM_F_CREATE, RULE_MAX);
	mnl_attr_put_strz(m->h, NFTA_SET_TABLE, PF_NFT_TABLE);
	mnl_attr_put_strz(m->h, NFTA_SET_NAME, name);
	put32(m, NFTA_SET_ID, id);
	put32(m, NFTA_SET_FLAGS, NFT_SET_INTERVAL);
	put32(m, NFTA_SET_KEY_TYPE, key_type);
	put32(m, NFTA_SET_KEY_LEN, key_len);
	finish(m);
}

void pf_nftmsg_del_set(struct pf_nftmsg *m, const char *name)
{
	start_nft(m, NFT_MSG_DELSET, 0, RULE_MAX);
	mnl_attr_put_strz(m->h, NFTA_SET_TABLE, PF_NFT_TABLE);
	mnl_attr_put_strz(m->h, NFTA_SET_NAME, name);
	finish(m);
}

struct elements {
	struct nlattr *list;
	size_t n; /* in this message */
	const char *set;
	uint32_t id;
};

static void open_elements(struct pf_nftmsg *m, struct elements *e)
{
	start_nft(m, NFT_MSG_NEWSETELEM, NLM_F_CREATE, MESSAGE_MAX);
	mnl_attr_put_strz(m->h, NFTA_SET_ELEM_LIST_TABLE, PF_NFT_TABLE);
	mnl_attr_put_strz(m->h, NFTA_SET_ELEM_LIST_SET, e->set);
	put32(m, NFTA_SET_ELEM_LIST_SET_ID, e->id);
	e->list = mnl_attr_nest_start(m->h, NFTA_SET_ELEM_LIST_ELEMENTS);
	e->n = 0;
}

static void close_elements(struct pf_nftmsg *m, struct elements *e)
{
	mnl_attr_nest_end(m->h, e->list);
	finish(m);
}

static void put_key(struct pf_nftmsg *m, struct elements *e, const void *key, size_t len, bool end)
{
	struct nlattr *elem = mnl_attr_nest_start(m->h, (uint16_t)(e->n++ + 1));
	if (end)
		put32(m, NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
	struct nlattr *k = mnl_attr_nest_start(m->h, NFTA_SET_ELEM_KEY);
	mnl_attr_put(m->h, NFTA_DATA_VALUE, len, key);
	mnl_attr_nest_end(m->h, k);
	mnl_attr_nest_end(m->h, elem);
}

/* [first, after). after NULL: to the end of the key space, which needs no closing element. */
static void put_range(
	struct pf_nftmsg *m, struct elements *e, const void *first, const void *after, size_t len)
{
	if (e->n + 2 > ELEMENTS_PER_MESSAGE) {
		close_elements(m, e);
		open_elements(m, e);
	}
	put_key(m, e, first, len, false);
	if (after)
		put_key(m, e, after, len, true);
}

static int by_addr(const void *a, const void *b)
{
	const struct pf_cidr *x = a, *y = b;
	int c = memcmp(x->addr, y->addr, sizeof(x->addr));
	return c ? c : (int)x->prefix - (int)y->prefix;
}

/* The first address after the network; false when there is none. */
static bool next_addr(const struct pf_cidr *c, uint8_t out[16])
{
	memcpy(out, c->addr, 16);
	if (c->prefix == 0)
		return false;
	int byte = (c->prefix - 1) / 8;
	unsigned int add = 0x80U >> ((c->prefix - 1) % 8);
	for (; byte >= 0; byte--, add = 1) {
		unsigned int sum = out[byte] + add;
		out[byte] = (uint8_t)sum;
		if (sum < 256)
			return true;
	}
	return false;
}

void pf_nftmsg_set_nets(struct pf_nftmsg *m, const char *name, uint32_t id, const struct pf_cidr *nets,
	size_t n, sa_family_t family)
{
	struct pf_cidr *sorted = pf_calloc(n + 1, sizeof(*sorted));
	size_t len = family == AF_INET ? 4 : 16, k = 0;
	struct elements e = {.set = name, .id = id};

	for (size_t i = 0; i < n; i++)
		if (nets[i].family == family)
			sorted[k++] = nets[i];
	qsort(sorted, k, sizeof(*sorted), by_addr);
	open_elements(m, &e);
	for (size_t i = 0; i < k;) {
		uint8_t after[16];
		bool more = next_addr(&sorted[i], after);
		const uint8_t *first = sorted[i].addr;
		/* Nested and adjacent networks become one range: the kernel refuses overlaps. */
		for (i++; i < k && (!more || memcmp(sorted[i].addr, after, len) <= 0); i++) {
			uint8_t other[16];
			if (!more)
				continue;
			if (!next_addr(&sorted[i], other))
				more = false;
			else if (memcmp(other, after, len) > 0)
				memcpy(after, other, sizeof(after));
		}
		put_range(m, &e, first, more ? after : NULL, len);
	}
	close_elements(m, &e);
	free(sorted);
}

void pf_nftmsg_set_ports(
	struct pf_nftmsg *m, const char *name, uint32_t id, const struct pf_ports *ports, size_t n)
{
	struct elements e = {.set = name, .id = id};

	open_elements(m, &e);
	for (size_t i = 0; i < n; i++) {
		uint16_t first = htons(ports[i].lo), after = htons((uint16_t)(ports[i].hi + 1));
		put_range(m, &e, &first, ports[i].hi == 65535 ? NULL : &after, sizeof(first));
	}
	close_elements(m, &e);
}

void pf_nftmsg_rule(struct pf_nftmsg *m, const char *chain)
{
	start_nft(m, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, RULE_MAX);
	mnl_attr_put_strz(m->h, NFTA_RULE_TABLE, PF_NFT_TABLE);
	mnl_attr_put_strz(m->h, NFTA_RULE_CHAIN, chain);
	m->exprs = mnl_attr_nest_start(m->h, NFTA_RULE_EXPRESSIONS);
}

void pf_nftmsg_end_rule(struct pf_nftmsg *m)
{
	mnl_attr_nest_end(m->h, m->exprs);
	finish(m);
}

struct expr {
	struct nlattr *elem, *data;
};

static struct expr open_expr(struct pf_nftmsg *m, const char *name)
{
	struct expr e;
	e.elem = mnl_attr_nest_start(m->h, NFTA_LIST_ELEM);
	mnl_attr_put_strz(m->h, NFTA_EXPR_NAME, name);
	e.data = mnl_attr_nest_start(m->h, NFTA_EXPR_DATA);
	return e;
}

static void close_expr(struct pf_nftmsg *m, struct expr e)
{
	mnl_attr_nest_end(m->h, e.data);
	mnl_attr_nest_end(m->h, e.elem);
}

static void put_data(struct pf_nftmsg *m, uint16_t type, const void *data, size_t len)
{
	struct nlattr *n = mnl_attr_nest_start(m->h, type);
	mnl_attr_put(m->h, NFTA_DATA_VALUE, len, data);
	mnl_attr_nest_end(m->h, n);
}

void pf_nftmsg_load_meta(struct pf_nftmsg *m, uint32_t key)
{
	struct expr e = open_expr(m, "meta");
	put32(m, NFTA_META_KEY, key);
	put32(m, NFTA_META_DREG, NFT_REG_1);
	close_expr(m, e);
}

void pf_nftmsg_cmp(struct pf_nftmsg *m, bool equal, const void *data, size_t len)
{
	struct expr e = open_expr(m, "cmp");
	put32(m, NFTA_CMP_SREG, NFT_REG_1);
	put32(m, NFTA_CMP_OP, equal ? NFT_CMP_EQ : NFT_CMP_NEQ);
	put_data(m, NFTA_CMP_DATA, data, len);
	close_expr(m, e);
}

void pf_nftmsg_family(struct pf_nftmsg *m, uint8_t nfproto)
{
	pf_nftmsg_load_meta(m, NFT_META_NFPROTO);
	pf_nftmsg_cmp(m, true, &nfproto, 1);
}

void pf_nftmsg_l4proto(struct pf_nftmsg *m, uint8_t proto)
{
	pf_nftmsg_load_meta(m, NFT_META_L4PROTO);
	pf_nftmsg_cmp(m, true, &proto, 1);
}

static void load_payload(struct pf_nftmsg *m, uint32_t base, uint32_t offset, uint32_t len)
{
	struct expr e = open_expr(m, "payload");
	put32(m, NFTA_PAYLOAD_DREG, NFT_REG_1);
	put32(m, NFTA_PAYLOAD_BASE, base);
	put32(m, NFTA_PAYLOAD_OFFSET, offset);
	put32(m, NFTA_PAYLOAD_LEN, len);
	close_expr(m, e);
}

void pf_nftmsg_load_daddr(struct pf_nftmsg *m, bool v6)
{
	load_payload(m, NFT_PAYLOAD_NETWORK_HEADER, v6 ? 24 : 16, v6 ? 16 : 4);
}

void pf_nftmsg_load_dport(struct pf_nftmsg *m)
{
	load_payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
}

void pf_nftmsg_load_transport(struct pf_nftmsg *m, uint32_t offset, uint32_t len)
{
	load_payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, offset, len);
}

void pf_nftmsg_load_ct(struct pf_nftmsg *m, uint32_t key)
{
	struct expr e = open_expr(m, "ct");
	put32(m, NFTA_CT_KEY, key);
	put32(m, NFTA_CT_DREG, NFT_REG_1);
	close_expr(m, e);
}

void pf_nftmsg_set_ct_mark(struct pf_nftmsg *m, uint32_t mark)
{
	struct expr e = open_expr(m, "immediate");
	put32(m, NFTA_IMMEDIATE_DREG, NFT_REG_1);
	put_data(m, NFTA_IMMEDIATE_DATA, &mark, sizeof(mark));
	close_expr(m, e);
	e = open_expr(m, "ct");
	put32(m, NFTA_CT_KEY, NFT_CT_MARK);
	put32(m, NFTA_CT_SREG, NFT_REG_1);
	close_expr(m, e);
}

void pf_nftmsg_load_cgroup(struct pf_nftmsg *m, uint32_t level)
{
	struct expr e = open_expr(m, "socket");
	put32(m, NFTA_SOCKET_KEY, NFT_SOCKET_CGROUPV2);
	put32(m, NFTA_SOCKET_DREG, NFT_REG_1);
	put32(m, NFTA_SOCKET_LEVEL, level);
	close_expr(m, e);
}

void pf_nftmsg_store_mark(struct pf_nftmsg *m)
{
	struct expr e = open_expr(m, "meta");
	put32(m, NFTA_META_KEY, NFT_META_MARK);
	put32(m, NFTA_META_SREG, NFT_REG_1);
	close_expr(m, e);
}

void pf_nftmsg_mask(struct pf_nftmsg *m, const void *mask, size_t len)
{
	static const uint8_t zero[16];
	struct expr e = open_expr(m, "bitwise");
	put32(m, NFTA_BITWISE_SREG, NFT_REG_1);
	put32(m, NFTA_BITWISE_DREG, NFT_REG_1);
	put32(m, NFTA_BITWISE_LEN, (uint32_t)len);
	put_data(m, NFTA_BITWISE_MASK, mask, len);
	put_data(m, NFTA_BITWISE_XOR, zero, len);
	close_expr(m, e);
}

void pf_nftmsg_range(struct pf_nftmsg *m, uint16_t lo, uint16_t hi)
{
	uint16_t from = htons(lo), to = htons(hi);
	struct expr e = open_expr(m, "range");
	put32(m, NFTA_RANGE_SREG, NFT_REG_1);
	put32(m, NFTA_RANGE_OP, NFT_RANGE_EQ);
	put_data(m, NFTA_RANGE_FROM_DATA, &from, sizeof(from));
	put_data(m, NFTA_RANGE_TO_DATA, &to, sizeof(to));
	close_expr(m, e);
}

void pf_nftmsg_in_set(struct pf_nftmsg *m, const char *name, uint32_t id)
{
	struct expr e = open_expr(m, "lookup");
	mnl_attr_put_strz(m->h, NFTA_LOOKUP_SET, name);
	put32(m, NFTA_LOOKUP_SREG, NFT_REG_1);
	put32(m, NFTA_LOOKUP_SET_ID, id);
	close_expr(m, e);
}

void pf_nftmsg_limit(struct pf_nftmsg *m, uint64_t per_second, uint32_t burst)
{
	struct expr e = open_expr(m, "limit");
	mnl_attr_put_u64(m->h, NFTA_LIMIT_RATE, htobe64(per_second));
	mnl_attr_put_u64(m->h, NFTA_LIMIT_UNIT, htobe64(1));
	put32(m, NFTA_LIMIT_BURST, burst);
	put32(m, NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
	put32(m, NFTA_LIMIT_FLAGS, 0);
	close_expr(m, e);
}

static void put_verdict(struct pf_nftmsg *m, int code, const char *chain)
{
	struct expr e = open_expr(m, "immediate");
	put32(m, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	struct nlattr *data = mnl_attr_nest_start(m->h, NFTA_IMMEDIATE_DATA);
	struct nlattr *v = mnl_attr_nest_start(m->h, NFTA_DATA_VERDICT);
	put32(m, NFTA_VERDICT_CODE, (uint32_t)code);
	if (chain)
		mnl_attr_put_strz(m->h, NFTA_VERDICT_CHAIN, chain);
	mnl_attr_nest_end(m->h, v);
	mnl_attr_nest_end(m->h, data);
	close_expr(m, e);
}

void pf_nftmsg_verdict(struct pf_nftmsg *m, int code)
{
	put_verdict(m, code, NULL);
}

void pf_nftmsg_jump(struct pf_nftmsg *m, const char *chain)
{
	put_verdict(m, NFT_JUMP, chain);
}

void pf_nftmsg_redirect(struct pf_nftmsg *m, uint16_t port)
{
	uint16_t be = htons(port);
	struct expr e = open_expr(m, "immediate");
	put32(m, NFTA_IMMEDIATE_DREG, NFT_REG_1);
	put_data(m, NFTA_IMMEDIATE_DATA, &be, sizeof(be));
	close_expr(m, e);
	e = open_expr(m, "redir");
	put32(m, NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1);
	put32(m, NFTA_REDIR_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED);
	close_expr(m, e);
}

void pf_nftmsg_count(struct pf_nftmsg *m, const char *counter)
{
	struct expr e = open_expr(m, "objref");
	put32(m, NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
	mnl_attr_put_strz(m->h, NFTA_OBJREF_IMM_NAME, counter);
	close_expr(m, e);
}

void pf_nftmsg_log(struct pf_nftmsg *m, uint16_t group, uint32_t snaplen)
{
	struct expr e = open_expr(m, "log");
	mnl_attr_put_u16(m->h, NFTA_LOG_GROUP, htons(group));
	put32(m, NFTA_LOG_SNAPLEN, snaplen);
	close_expr(m, e);
}

void pf_nftmsg_reject(struct pf_nftmsg *m, uint32_t type, uint8_t code)
{
	struct expr e = open_expr(m, "reject");
	put32(m, NFTA_REJECT_TYPE, type);
	mnl_attr_put_u8(m->h, NFTA_REJECT_ICMP_CODE, code);
	close_expr(m, e);
}
