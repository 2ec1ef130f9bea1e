/* What the parts of the gate share. */
#ifndef PF_NETPOLICY_GATE_PRIV_H
#define PF_NETPOLICY_GATE_PRIV_H

#include <ares.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "netpolicy/gate.h"
#include "netpolicy/loop.h"
#include "netpolicy/nft.h"
#include "netpolicy/synth.h"

#define PF_GATE_SPARE_PIPES 8
#define PF_GATE_SPARE_HEADS 8
#define PF_GATE_HANDED 256          /* buckets of connections that pinfold-tls has */
#define PF_GATE_NAMES_PER_SECOND 50 /* new names below wildcards */
#define PF_GATE_NAMES_BURST 500
#define PF_GATE_DENIALS_PER_SECOND 20
#define PF_GATE_DENIALS_BURST 200

#define pf_container(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct pf_bucket {
	int64_t tokens, last; /* thousandths; pf_now_us */
};
/* Take one token; false when there is none. */
bool pf_bucket_take(struct pf_bucket *b, int64_t per_second, int64_t burst);

struct pf_conn;
struct pf_dns_conn;
struct pf_udp_flow;

struct pf_gate_counters {
	uint64_t dns_answered, dns_denied, dns_malformed;
	uint64_t conns_accepted, conns_denied, conns_failed, conns_overload;
	uint64_t bytes_out, bytes_in;
	uint64_t requests, requests_denied;
	uint64_t tls_started, tls_ended;
};

/* What of its max_bytes_per_hour a rule has had. */
struct pf_meter {
	int64_t began, used; /* pf_now_us, 0: nothing yet; bytes */
};

/* pinfold-tls, as the gate sees it. */
enum pf_link_state {
	PF_LINK_NONE, /* the sandbox has no authority */
	PF_LINK_ASLEEP,
	PF_LINK_WAKING, /* asked for */
	PF_LINK_UP,
};

enum pf_audit_kind { PF_AUDIT_DNS, PF_AUDIT_CONN, PF_AUDIT_PACKET, PF_AUDIT_KINDS };

struct pf_gate {
	struct pf_loop loop;
	struct pf_policy *policy;
	struct pf_gate_opts opts;
	char *hostname; /* normal; NULL: none */
	bool v6;
	int joined; /* the namespace that was joined, -1: none; alone: it has no device but lo */
	bool alone;
	bool was_closed; /* joined a namespace in which rules of another keeper were in force */
	/* NETLINK_ROUTE sockets, -1: none: of the namespace that dials leave from, and, when that is not the
	 * host's, of the host's. */
	int route, host_route;
	struct pf_nft nft;
	struct pf_synth synth;
	struct pf_meter *meters; /* one per rule of the policy; NULL: no rule has a limit */
	struct pf_bucket new_names;
	struct pf_bucket denials[PF_AUDIT_KINDS];
	uint64_t suppressed[PF_AUDIT_KINDS];
	struct pf_gate_counters count;

	/* Who was asked for last, and when: many connections come from one. */
	uint64_t who_cgroup;
	int64_t who_at; /* pf_now_us */
	char *who_exec, *who_process;
	int diag; /* sock_diag of the namespace; -1: none */
	struct pf_src log;
	struct pf_src dns_udp[2], dns_tcp[2]; /* IPv4, IPv6 */
	struct pf_src udp[2];
	int conntrack; /* netlink; -1 */
	int icmp[2];   /* to refuse datagrams with; -1: they are dropped */
	struct pf_udp_flow *udp_flows;
	unsigned int n_udp_flows;
	const union pf_sa *asking; /* whose UDP question is being answered, or NULL */
	struct pf_dns_conn *dns_conns;
	unsigned int n_dns_conns;

	struct pf_src listener[2];
	struct pf_timer listener_retry;
	struct pf_conn *conns;
	unsigned int n_conns, max_conns;
	unsigned int room, n_lent; /* room.c: descriptors */
	uint64_t accepted_in;      /* the round of the loop in which one was accepted last */
	int spare_pipes[PF_GATE_SPARE_PIPES][2];
	unsigned int n_spare_pipes;
	uint8_t *spare_heads[PF_GATE_SPARE_HEADS];
	unsigned int n_spare_heads;

	struct pf_src tls; /* to pinfold-tls; -1: not there now */
	enum pf_link_state tls_state;
	int64_t tls_not_before; /* pf_now_us: when it may be asked for again */
	int64_t next_handed;
	struct pf_conn *handed[PF_GATE_HANDED];
	char **ca_names; /* what the sandbox's authority may speak for; NULL: anything, or there is none */

	struct ares_channeldata *ares; /* NULL until something is resolved */
	struct pf_ares_state *ares_state;
	struct pf_timer ares_timer;
	unsigned int n_queries;
	struct timespec
		resolv_conf; /* when /etc/resolv.conf was last changed, of the channel that is in use */
	int64_t resolv_read; /* pf_now_us */
	struct pf_own_addrs own;
	int64_t own_read; /* pf_now_us */
};

/* gate.c: report. kind's rate limit applies to denials. */
void pf_gate_audit(struct pf_gate *g, enum pf_audit_kind kind, struct pf_gate_event *ev);

/* gate.c: who has the socket with these addresses, as the payload has them. malloc'ed, NULL: not known. */
void pf_gate_whois(struct pf_gate *g, int proto, const struct sockaddr *local, const struct sockaddr *remote,
	char **exec, char **process);

/* gate.c: a socket on the loopback of the namespace the caller is in, listening if it is a stream. -1 with
 * err. */
int pf_gate_socket(bool v6, int type, uint16_t port, struct pf_err *err);

/* gate.c: a gate with nothing open yet; pf_gate_close frees it. */
struct pf_gate *pf_gate_new(const struct pf_policy *policy, const struct pf_gate_opts *opts);
/* gate.c: sockets and rules, in the namespace that the caller is in. */
int pf_gate_open_sockets(struct pf_gate *g, struct pf_err *err);

/* join.c: let the packet filter know that this socket is the keeper's. -1 with errno. */
int pf_gate_mark(const struct pf_gate *g, int fd);

/* room.c: descriptors, as far as the process may have them. */
void pf_room_init(struct pf_gate *g);
/* Whether connections and flows may have n more. */
bool pf_room_for(const struct pf_gate *g, unsigned int n);
/* n more for a moment; false: there are none to lend. */
bool pf_room_borrow(struct pf_gate *g, unsigned int n);
void pf_room_return(struct pf_gate *g, unsigned int n);

/* accept.c: out of descriptors; stop accepting for a tenth of a second. */
void pf_gate_pause_accept(struct pf_gate *g);

/* dnsserver.c. open is called inside the namespace. */
int pf_dnsserver_open(struct pf_gate *g, struct pf_err *err);
void pf_dnsserver_close(struct pf_gate *g);

/* accept.c, called inside the namespace; relay_end.c. */
int pf_relay_open(struct pf_gate *g, struct pf_err *err);
/* After a change of policy: reset what is no longer admitted. */
void pf_relay_recheck(struct pf_gate *g);
void pf_relay_close(struct pf_gate *g);

/* udp.c. open is called inside the namespace. */
int pf_udp_open(struct pf_gate *g, struct pf_err *err);
/* After a change of policy. */
void pf_udp_recheck(struct pf_gate *g);
void pf_udp_close(struct pf_gate *g);

/* handover.c. */
void pf_handover_open(struct pf_gate *g);
/* Have pinfold-tls started if it is not there. false: that is not possible now. */
bool pf_handover_wake(struct pf_gate *g);
/* Whether this policy can be served with what there is. */
int pf_handover_check(struct pf_gate *g, const struct pf_policy *p, struct pf_err *err);
/* Whether connections of this rule to this name go to pinfold-tls. */
bool pf_handover_wanted(const struct pf_gate *g, const struct pf_rule *rule, const char *name, uint16_t port);

/* meter.c: how many bytes may still move under the rule (NULL is fine); SIZE_MAX: no limit. */
size_t pf_meter_left(const struct pf_gate *g, const struct pf_rule *rule);
void pf_meter_take(const struct pf_gate *g, const struct pf_rule *rule, uint64_t bytes);
/* The gate has another policy than old (NULL: had none). */
void pf_meter_policy(struct pf_gate *g, const struct pf_policy *old);

/* route.c: a NETLINK_ROUTE socket of the namespace that the caller is in, by which nothing can be changed:
 * it is made without capabilities. -1 with err. */
int pf_route_open(struct pf_err *err);

/* upstream.c: resolve a name. fn is called once, maybe before pf_upstream_resolve returns: error is NULL and
 * there is at least one address, or error says what went wrong. */
struct pf_query {
	struct pf_gate *gate;
	struct pf_synth_name *name; /* held */
	void (*fn)(void *arg, const struct pf_resolved *res, const char *error);
	void *arg;
	bool starting, done;
};
/* The query, until fn was called; NULL when it was called already. */
struct pf_query *pf_upstream_resolve(struct pf_gate *g, struct pf_synth_name *name,
	void (*fn)(void *arg, const struct pf_resolved *res, const char *error), void *arg);
/* fn will not be called. */
void pf_upstream_forget(struct pf_query *q);
/* The host's own addresses, at most two seconds old; NULL when they cannot be read. */
const struct pf_own_addrs *pf_upstream_own(struct pf_gate *g);
/* Drop the resolver, its sockets, and what it remembers; a later resolve makes a new one. */
void pf_upstream_reset(struct pf_gate *g);

/* Text of an address without the port. */
#define PF_ADDR_TEXT 46
const char *pf_sa_text(const struct sockaddr *sa, char out[PF_ADDR_TEXT]);
uint16_t pf_sa_port(const struct sockaddr *sa);
socklen_t pf_sa_len(const struct sockaddr *sa);

#endif
